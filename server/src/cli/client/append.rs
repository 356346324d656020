//! `foldlog append`: events or records from stdin, one JSON object a line.
//!
//! What is there goes out together, at the latest when the input pauses: so a file travels in large appends and what is typed at once.
//! Each append is a unit. Where a line is wrong, everything before it is appended and nothing after it.

use std::{
    io::{self, IsTerminal as _},
    str::FromStr,
};

use anyhow::anyhow;
use foldlog_sdk::{Append as SdkAppend, Appended, Client, Durability, EventQuery, Expected, TopicKind};
use tokio::io::AsyncRead;

use super::{
    Connection, Stop,
    event::{Defaults, Parsed, parse},
    lines::Lines,
    show_token,
};
use crate::cli::{
    Failed,
    output::{Cell, Head, OutputArgs, Record, note},
};

/// Most lines and bytes of one append unless all are one: well below the server's limits, with room for names.
const BATCH_LINES: usize = 2_000;
const BATCH_BYTES: usize = 1 << 20;

/// The server's limits, for input that is one unit.
const UNIT_LINES: usize = 10_000;
/// 4 MiB of payload, each byte escaped in six.
const UNIT_BYTES: usize = 24 << 20;

/// Append events from stdin, one JSON object a line: {"stream": ..., "type": ..., "data": ...}, as `read -o jsonl` writes them
#[derive(Debug, clap::Args)]
pub struct Append {
    /// Topic; it must exist
    topic: String,
    /// Stream of the lines that name none
    #[arg(long)]
    stream: Option<String>,
    /// Type of the lines that name none
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Append all lines as one unit, or none: at most 10,000 events and 4 MiB
    #[arg(long)]
    atomic: bool,
    /// Append only if --stream stands there: absent, exists, deleted or a version. All lines are then one unit; exit code 4 if not
    #[arg(long, requires = "stream", value_name = "STATE", value_parser = parse_expected)]
    expect: Option<Expected>,
    /// When it is answered: synced (it survives the loss of power) or written (sooner; it survives the server's process)
    /// [default: as the topic says]
    #[arg(long)]
    durability: Option<Durability>,
    /// Append only if the topic has no event of this type (of any of them, if given again) with every --none-tagged. All lines are then
    /// one unit; exit code 4 if it has
    #[arg(long, value_name = "TYPE")]
    none_of_type: Vec<String>,
    /// Append only if the topic has no event with this tag (with all of them, if given again) and --none-of-type
    #[arg(long, value_name = "TAG")]
    none_tagged: Vec<String>,
    /// Events up to this position do not count for --none-of-type and --none-tagged: that of the newest event you know of,
    /// as `read --type --tag` tells it
    #[arg(long, value_name = "POSITION")]
    after: Option<u64>,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: OutputArgs,
}

/// Reads where a stream should stand.
pub fn parse_expected(text: &str) -> Result<Expected, String> {
    match text {
        "absent" => Ok(Expected::Absent),
        "exists" => Ok(Expected::Exists),
        "deleted" => Ok(Expected::Deleted),
        _ => match u64::from_str(text) {
            Ok(version) if version > 0 => Ok(Expected::Version(version)),
            _ => Err("it is absent, exists, deleted or a version from 1".to_owned()),
        },
    }
}

impl Append {
    pub async fn run(self) -> Result<(), Stop> {
        if self.after.is_some() && !self.has_query() {
            return Err(Failed::Usage(anyhow!("--after goes with --none-of-type or --none-tagged")).into());
        }
        let client = self.connection.open().await?;
        let kind = client.describe_topic(&self.topic).await?.topic.kind;
        if kind != TopicKind::Events && self.expect.is_some() {
            return Err(Failed::Usage(anyhow!("topic {} is of kind {kind}, --expect is for topics of kind events", self.topic)).into());
        }
        if kind != TopicKind::Events && self.has_query() {
            let error = anyhow!("topic {} is of kind {kind}, --none-of-type and --none-tagged are for topics of kind events", self.topic);
            return Err(Failed::Usage(error).into());
        }
        if io::stdin().is_terminal() {
            note("reading events from the terminal, one JSON object a line; Ctrl-D ends");
        }
        let mut sender = Sender { client, verb: &self, events: kind == TopicKind::Events, sent: Sent::default() };
        sender.send_all(Lines::new(tokio::io::stdin())).await?;
        sender.report()
    }

    const fn is_one_unit(&self) -> bool {
        self.atomic || self.expect.is_some() || self.has_query()
    }

    const fn has_query(&self) -> bool {
        !self.none_of_type.is_empty() || !self.none_tagged.is_empty()
    }
}

/// Appends line by line and counts.
struct Sender<'a> {
    client: Client,
    verb: &'a Append,
    events: bool,
    sent: Sent,
}

#[derive(Debug, Default)]
struct Sent {
    lines: u64,
    appends: u64,
    first_position: Option<u64>,
    last: Option<Appended>,
    /// How durable all of it is.
    weakest: Option<Durability>,
}

impl Sender<'_> {
    async fn send_all<R: AsyncRead + Unpin>(&mut self, mut lines: Lines<R>) -> Result<(), Stop> {
        let defaults = Defaults { stream: self.verb.stream.clone(), kind: self.verb.kind.clone(), ..Defaults::default() };
        let one_unit = self.verb.is_one_unit();
        let mut batch = self.empty();
        let mut bytes = 0;
        loop {
            let parsed = match lines.next().await {
                Ok(None) => break,
                Ok(Some(line)) if line.trim_ascii().is_empty() => continue,
                Ok(Some(line)) => {
                    bytes += line.len();
                    parse(line, self.events, &defaults)
                }
                Err(error) => Err(error),
            };
            let parsed = parsed.and_then(|parsed| match parsed {
                Parsed::Redacted(..) => {
                    Err("its data was redacted, and there is nothing to append; topic import keeps its place".to_owned())
                }
                parsed => Ok(parsed),
            });
            match parsed {
                Ok(Parsed::Event(stream, event) | Parsed::Redacted(stream, event)) => batch = batch.event(stream, *event),
                Ok(Parsed::Record(record)) => batch = batch.record(record),
                Err(error) if one_unit => return Err(bad_line(lines.number(), &error, 0)),
                Err(error) => {
                    self.send(batch).await?;
                    return Err(bad_line(lines.number(), &error, self.sent.lines));
                }
            }
            if one_unit && (batch.len() > UNIT_LINES || bytes > UNIT_BYTES) {
                let error = anyhow!("more than {UNIT_LINES} lines or {UNIT_BYTES} bytes, the limit of one unit; nothing was appended");
                return Err(Failed::Operation(error).into());
            }
            let is_full = batch.len() >= BATCH_LINES || bytes >= BATCH_BYTES;
            if !one_unit && (is_full || !lines.has_ready()) {
                self.send(std::mem::replace(&mut batch, self.empty())).await?;
                bytes = 0;
            }
        }
        self.send(batch).await
    }

    fn empty(&self) -> SdkAppend {
        let mut append = self.client.append(self.verb.topic.as_str());
        if let Some(durability) = self.verb.durability {
            append = append.durability(durability);
        }
        append = match (self.verb.expect, &self.verb.stream) {
            (Some(expected), Some(stream)) => append.expect(stream.as_str(), expected),
            _ => append,
        };
        if !self.verb.has_query() {
            return append;
        }
        append.absent(EventQuery::of(self.verb.none_of_type.clone(), self.verb.none_tagged.clone()), self.verb.after)
    }

    async fn send(&mut self, batch: SdkAppend) -> Result<(), Stop> {
        let lines = batch.len() as u64;
        if lines == 0 {
            return Ok(());
        }
        let appended = batch.send().await.inspect_err(|_| {
            if self.sent.lines > 0 {
                note(&format!("appended before it failed: {}", self.sent.lines));
            }
        })?;
        self.sent.lines += lines;
        self.sent.appends += 1;
        self.sent.first_position.get_or_insert(appended.first_position);
        self.sent.weakest = Some(self.sent.weakest.map_or(appended.durability, |weakest| weakest.min(appended.durability)));
        self.sent.last = Some(appended);
        Ok(())
    }

    /// What was appended, as data: the token goes into reads and queries.
    fn report(self) -> Result<(), Stop> {
        let Some(last) = self.sent.last else {
            note("no line, nothing appended");
            return Ok(());
        };
        let heads = [
            Head::number("events"),
            Head::number("appends"),
            Head::number("first_position"),
            Head::number("last_position"),
            Head::text("token"),
            Head::text("durability"),
        ];
        let cells = vec![
            self.sent.lines.into(),
            self.sent.appends.into(),
            self.sent.first_position.map_or(Cell::Null, Cell::from),
            last.last_position.into(),
            Cell::Text(show_token(&last.token)),
            self.sent.weakest.map_or(Cell::Null, |durability| durability.as_str().into()),
        ];
        let mut printer = self.verb.output.stdout().printer(&heads);
        printer.print(&Record { heads: &heads, cells })?;
        Ok(printer.finish()?)
    }
}

fn bad_line(number: u64, error: &str, appended: u64) -> Stop {
    let error = crate::cli::output::text::visible(error);
    Failed::Operation(anyhow!("line {number}: {error} (appended before it: {appended}, after it: nothing)")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expectations_are_words_or_versions() {
        assert_eq!(parse_expected("absent"), Ok(Expected::Absent));
        assert_eq!(parse_expected("exists"), Ok(Expected::Exists));
        assert_eq!(parse_expected("deleted"), Ok(Expected::Deleted));
        assert_eq!(parse_expected("7"), Ok(Expected::Version(7)));
        for bad in ["", "0", "-1", "any", "18446744073709551616"] {
            assert!(parse_expected(bad).is_err(), "{bad}");
        }
    }
}
