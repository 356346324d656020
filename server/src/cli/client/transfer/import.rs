//! `foldlog topic import`.
//!
//! Requests have ids that follow from the topic and from the file up to there, so that the same import, begun again after it was cut
//! off, appends nothing twice for as long as the server remembers requests.

use std::{hash::Hasher as _, path::PathBuf};

use anyhow::anyhow;
use foldlog_sdk::{Append, Appended, Client, Topic, TopicDescription, TopicKind};
use siphasher::sip128::{Hasher128 as _, SipHasher13};

use super::{
    Format, progress,
    rows::{Fault, Rows},
};
use crate::cli::{
    Failed,
    client::{
        Connection, Stop,
        event::{Defaults, Parsed, parse},
        show_token,
    },
    output::{Cell, Head, OutputArgs, Record, note, text::visible},
};

/// Most rows and bytes of one append: well below the server's limits, with room for names.
const BATCH_ROWS: usize = 2_000;
const BATCH_BYTES: usize = 1 << 20;

/// Append what a file has, as `topic export` wrote it, to a topic that is there: nothing, if anything is wrong with the file
///
/// Events go to their streams in the order of the file, and get the file's versions if the streams were empty and the file has them
/// from 1 on. Of a redacted event the place comes back, with type, tags and times, and `null` as its data: `redacted` says of how many.
/// Times come back; positions, offsets and the server's times are new. The same import, begun again after it was cut off,
/// goes on where it was: what is there is not appended again, for as long as the server remembers requests (a day, unless very many came).
#[derive(Debug, clap::Args)]
pub struct Import {
    /// Topic; it must exist
    topic: String,
    /// File
    file: PathBuf,
    /// What it is written in [default: as its name ends]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Let keys decide where records go, and not the partitions that the file names
    #[arg(long)]
    by_key: bool,
    /// Append all of it, also what an import of the same file has appended
    #[arg(long)]
    again: bool,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: OutputArgs,
}

impl Import {
    pub async fn run(self) -> Result<(), Stop> {
        let Some(format) = self.format.or_else(|| Format::of(&self.file)) else {
            let error = anyhow!("the name of {} does not say what it is written in; give --format", self.file.display());
            return Err(Failed::Usage(error).into());
        };
        let client = self.connection.open().await?;
        let target = Target { description: client.describe_topic(&self.topic).await?, by_key: self.by_key };
        let (mut rows, length) = Rows::open(&self.file, format).map_err(|fault| self.wrong(fault, 0))?;
        let bar = progress(2 * length, "{bar:40} {percent}%  {msg}");
        bar.set_message("reading all of it first");
        while let Some((number, line)) = rows.next().map_err(|fault| self.wrong(fault, 0))? {
            target.parsed(&line).map_err(|what| self.wrong((number, what), 0))?;
            bar.set_position(rows.place());
        }
        let (mut rows, _) = Rows::open(&self.file, format).map_err(|fault| self.wrong(fault, 0))?;
        let mut sender = Sender::new(client, target.description.topic.clone(), (!self.again).then(|| identity(&target)));
        while let Some((number, line)) = rows.next().map_err(|fault| self.wrong(fault, sender.sent.rows))? {
            let parsed = target.parsed(&line).map_err(|what| self.wrong((number, what), sender.sent.rows))?;
            sender.push(parsed, &line).await?;
            bar.set_position(length + rows.place());
            bar.set_message(format!("{} appended", sender.sent.rows));
        }
        sender.send().await?;
        bar.finish_and_clear();
        sender.report(self.output)
    }

    fn wrong(&self, (number, what): Fault, appended: u64) -> Stop {
        let file = self.file.display();
        let is_rows = self.format.or_else(|| Format::of(&self.file)) == Some(Format::Parquet);
        let unit = if is_rows { "row" } else { "line" };
        let place = if number == 0 { file.to_string() } else { format!("{file}, {unit} {number}") };
        let done =
            if appended == 0 { "nothing was appended".to_owned() } else { format!("appended before it: {appended}, after it: nothing") };
        Failed::Operation(anyhow!("{}", visible(&format!("{place}: {what} ({done})")))).into()
    }
}

/// Where it goes, and what is allowed there.
struct Target {
    description: TopicDescription,
    by_key: bool,
}

impl Target {
    fn parsed(&self, line: &str) -> Result<Parsed, String> {
        let Topic { kind, partitions, .. } = self.description.topic;
        let defaults = Defaults { keeps_partition: !self.by_key, ..Defaults::default() };
        let parsed = parse(line, kind == TopicKind::Events, &defaults)?;
        let bytes = match &parsed {
            Parsed::Event(_, event) | Parsed::Redacted(_, event) => event.data.len(),
            Parsed::Record(record) => {
                if let Some(partition) = record.partition.filter(|partition| *partition >= partitions) {
                    return Err(format!("partition {partition} is not in the topic, which has {partitions}; --by-key lets keys decide"));
                }
                if kind == TopicKind::Table && record.key.is_none() {
                    return Err("there is no key, which a record of a table needs".to_owned());
                }
                record.key.as_ref().map_or(0, |key| key.len()) + record.value.as_ref().map_or(0, |value| value.len())
            }
        };
        let most = self.description.max_event_bytes;
        if bytes as u64 > most { Err(format!("it has {bytes} bytes, and at most {most} are allowed")) } else { Ok(parsed) }
    }
}

/// What ids of requests follow from: another one for each topic, also of the same name, and each way to place records.
fn identity(target: &Target) -> SipHasher13 {
    let mut hasher = SipHasher13::new();
    hasher.write(b"foldlog topic import");
    hasher.write(&target.description.topic.id);
    hasher.write(&[u8::from(target.by_key)]);
    hasher
}

/// Appends row by row and counts.
struct Sender {
    client: Client,
    topic: Topic,
    /// Everything so far, if a repeat is to be known.
    identity: Option<SipHasher13>,
    batch: Append,
    bytes: usize,
    /// Rows of which the data was redacted.
    redacted: u64,
    sent: Sent,
}

#[derive(Debug, Default)]
struct Sent {
    rows: u64,
    /// Of those, what was there already.
    known: u64,
    appends: u64,
    first_position: Option<u64>,
    last: Option<Appended>,
}

impl Sender {
    fn new(client: Client, topic: Topic, identity: Option<SipHasher13>) -> Self {
        let batch = client.append(topic.name.as_str());
        Self { client, topic, identity, batch, bytes: 0, redacted: 0, sent: Sent::default() }
    }

    async fn push(&mut self, parsed: Parsed, line: &str) -> Result<(), Stop> {
        if self.batch.len() >= BATCH_ROWS || self.bytes + line.len() > BATCH_BYTES {
            self.send().await?;
        }
        if let Some(identity) = &mut self.identity {
            identity.write(line.as_bytes());
            identity.write(b"\n");
        }
        self.bytes += line.len();
        let batch = std::mem::replace(&mut self.batch, self.client.append(self.topic.name.as_str()));
        self.redacted += u64::from(matches!(parsed, Parsed::Redacted(..)));
        self.batch = match parsed {
            Parsed::Event(stream, event) | Parsed::Redacted(stream, event) => batch.event(stream, *event),
            Parsed::Record(record) => batch.record(record),
        };
        Ok(())
    }

    async fn send(&mut self) -> Result<(), Stop> {
        let mut batch = std::mem::replace(&mut self.batch, self.client.append(self.topic.name.as_str()));
        let rows = batch.len() as u64;
        self.bytes = 0;
        if rows == 0 {
            return Ok(());
        }
        if let Some(identity) = &self.identity {
            batch = batch.request_id(identity.finish128().as_u128().to_be_bytes());
        }
        let appended = batch.send().await.inspect_err(|_| {
            note(&format!("appended before it failed: {}; the same import goes on from there", self.sent.rows));
        })?;
        self.sent.rows += rows;
        self.sent.known += if appended.deduplicated { rows } else { 0 };
        self.sent.appends += 1;
        self.sent.first_position.get_or_insert(appended.first_position);
        self.sent.last = Some(appended);
        Ok(())
    }

    fn report(self, output: OutputArgs) -> Result<(), Stop> {
        let Sent { rows, known, appends, first_position, last } = self.sent;
        let heads = [
            Head::number("rows"),
            Head::number("already_there"),
            Head::number("redacted"),
            Head::number("appends"),
            Head::number("first_position"),
            Head::number("last_position"),
            Head::text("token"),
        ];
        let cells = vec![
            rows.into(),
            known.into(),
            self.redacted.into(),
            appends.into(),
            first_position.map_or(Cell::Null, Cell::from),
            last.as_ref().map_or(Cell::Null, |last| last.last_position.into()),
            last.map_or(Cell::Null, |last| Cell::Text(show_token(&last.token))),
        ];
        let mut printer = output.stdout().printer(&heads);
        printer.print(&Record { heads: &heads, cells })?;
        Ok(printer.finish()?)
    }
}
