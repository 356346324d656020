//! `foldlog stream`: reads one stream, shows where it stands, truncates, deletes and tombstones it, redacts data in it, and its snapshots.

use std::{
    io::{self, Read as _},
    ops::RangeInclusive,
    time::Duration,
};

use anyhow::anyhow;
use clap::Subcommand;
use foldlog_sdk::{Client, Expected, Redaction, Snapshot, StreamChange, StreamInfo, Token};

use super::{
    Connection, Stop,
    append::parse_expected,
    event::payload_cell,
    read::{Begin, Filter, Read},
    topic::redacting,
};
use crate::cli::{
    Failed,
    output::{Cell, Head, OutputArgs, Record, note, text::time},
};

/// Read the events of one stream, show where it stands, truncate, delete or tombstone it, keep snapshots of it
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Stream {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Topic
    #[arg(required = true)]
    topic: Option<String>,
    /// Stream
    #[arg(required = true)]
    stream: Option<String>,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    begin: Begin,
    /// Only the newest so many events, in the order of their versions
    #[arg(long, value_name = "N", conflicts_with_all = ["Begin", "Filter"], value_parser = clap::value_parser!(u64).range(1..))]
    last: Option<u64>,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show where a stream stands and begins
    Show {
        #[command(flatten)]
        one: One,
    },
    /// Remove the events before a version: they can no longer be read by stream
    Truncate {
        #[command(flatten)]
        one: One,
        /// Version of the first event that stays; at most the one after the newest
        #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u64).range(1..))]
        before: u64,
        #[command(flatten)]
        belief: Belief,
    },
    /// Remove all events of a stream; the next one that is appended gets the next version
    Delete {
        #[command(flatten)]
        one: One,
        #[command(flatten)]
        belief: Belief,
    },
    /// Remove all events of a stream and take no more, ever
    Tombstone {
        #[command(flatten)]
        one: One,
        #[command(flatten)]
        belief: Belief,
    },
    /// Show the newest snapshot of a stream
    Snapshot {
        #[command(flatten)]
        one: One,
        /// As of this version or before
        #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u64).range(1..))]
        at_most: Option<u64>,
    },
    /// Put a snapshot of a stream from stdin
    PutSnapshot {
        #[command(flatten)]
        one: One,
        /// Version of the last event that was folded into it
        #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u64).range(1..))]
        as_of: u64,
        /// Name of its schema, so that readers can ignore one they do not know
        #[arg(long)]
        schema: Option<String>,
        /// Media type [default: application/json]
        #[arg(long, value_name = "TYPE")]
        content_type: Option<String>,
    },
    /// Redact data of events: nobody reads it any more, and its bytes are removed; place, version, type and tags stay
    Redact {
        #[command(flatten)]
        one: One,
        /// Versions: 7, or 7-9
        #[arg(required = true, value_name = "VERSIONS", value_parser = parse_versions)]
        versions: Vec<RangeInclusive<u64>>,
        /// Who wants it, for the record
        #[arg(long, value_name = "WHO")]
        by: String,
        /// Why, for the record
        #[arg(long, value_name = "WHY", default_value = "", hide_default_value = true)]
        reason: String,
        /// Wait until the bytes are gone from all files of the data folder
        #[arg(long)]
        wait: bool,
        /// How long to wait; exit code 1 if something is left then
        #[arg(long, value_name = "SECONDS", default_value_t = 600, requires = "wait")]
        timeout: u64,
        #[command(flatten)]
        belief: Belief,
    },
    /// Remove all snapshots of a stream; its events stay
    DropSnapshots {
        #[command(flatten)]
        one: One,
        #[command(flatten)]
        belief: Belief,
    },
}

/// A stream, and how to tell of it.
#[derive(Debug, clap::Args)]
struct One {
    /// Topic
    topic: String,
    /// Stream
    stream: String,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, clap::Args)]
struct Belief {
    /// Only if the stream stands there: absent, exists, deleted or a version; exit code 4 if not
    #[arg(long, value_name = "STATE", value_parser = parse_expected)]
    expect: Option<Expected>,
}

impl Stream {
    pub async fn run(self) -> Result<(), Stop> {
        let (one, change, belief) = match self.verb {
            None => return self.read().await,
            Some(Verb::Show { one }) => return one.show(&one.connection.open().await?, None).await,
            Some(Verb::Truncate { one, before, belief }) => (one, StreamChange::TruncateBefore(before), belief),
            Some(Verb::Delete { one, belief }) => (one, StreamChange::Delete, belief),
            Some(Verb::Tombstone { one, belief }) => (one, StreamChange::Tombstone, belief),
            Some(Verb::DropSnapshots { one, belief }) => (one, StreamChange::DropSnapshots, belief),
            Some(Verb::Redact { one, versions, by, reason, wait, timeout, belief }) => {
                let redaction = Redaction::of(versions, by, reason);
                return one.redact(redaction, belief.expect, wait.then(|| Duration::from_secs(timeout))).await;
            }
            Some(Verb::Snapshot { one, at_most }) => return one.snapshot(&one.connection.open().await?, at_most, None).await,
            Some(Verb::PutSnapshot { one, as_of, schema, content_type }) => {
                let (schema, content_type) = (schema.unwrap_or_default(), content_type.unwrap_or_default());
                return one.put_snapshot(Snapshot { version: as_of, schema, content_type, data: read_snapshot()?.into() }).await;
            }
        };
        one.change(change, belief.expect).await
    }

    async fn read(self) -> Result<(), Stop> {
        let (topic, stream) = (self.topic.unwrap_or_default(), self.stream.unwrap_or_default());
        let info = self.connection.open().await?.get_stream(&topic, &stream, None).await?;
        let Some(version) = info.version else {
            let what = if info.tombstoned { "is tombstoned" } else { "has no events" };
            return Err(Failed::Operation(anyhow!("stream {stream:?} of topic {topic} {what}")).into());
        };
        note(&format!("stream {stream} is at version {version}, in partition {} of {topic}", info.partition));
        match info.beginning.first_version {
            1 => {}
            _ if info.deleted => note("it was deleted; the next event gets the version after this one"),
            first if first == info.beginning.retained_version => note(&format!("retention has let go of events before version {first}")),
            first => note(&format!("events before version {first} are gone")),
        }
        Read::of_stream(&info, self.filter, self.begin, self.last, self.connection, self.output).run().await
    }
}

impl One {
    async fn change(self, change: StreamChange, expected: Option<Expected>) -> Result<(), Stop> {
        let client = self.connection.open().await?;
        let append = client.append(self.topic.as_str()).expect(self.stream.as_str(), expected.unwrap_or(Expected::Any));
        let appended = append.change(self.stream.as_str(), change).send().await?;
        if appended.ranges.is_empty() {
            note("nothing was to be changed");
        }
        self.show(&client, Some(appended.token)).await
    }

    async fn redact(self, redaction: Redaction, expected: Option<Expected>, wait: Option<Duration>) -> Result<(), Stop> {
        let client = self.connection.open().await?;
        let append = client.append(self.topic.as_str()).expect(self.stream.as_str(), expected.unwrap_or(Expected::Any));
        let appended = append.redact(self.stream.as_str(), redaction).send().await?;
        if let Some(timeout) = wait {
            client.wait_erased(&self.topic, &self.stream, timeout).await?;
        }
        self.show(&client, Some(appended.token)).await
    }

    async fn put_snapshot(self, snapshot: Snapshot) -> Result<(), Stop> {
        let client = self.connection.open().await?;
        let version = snapshot.version;
        let appended = client.append(self.topic.as_str()).snapshot(self.stream.as_str(), snapshot).send().await?;
        self.snapshot(&client, Some(version), Some(appended.token)).await
    }

    async fn snapshot(&self, client: &Client, at_most: Option<u64>, at_least: Option<Token>) -> Result<(), Stop> {
        let Some(found) = client.get_snapshot(&self.topic, &self.stream, at_most, at_least).await? else {
            return Err(Failed::Operation(anyhow!("stream {:?} of topic {} has no such snapshot", self.stream, self.topic)).into());
        };
        let heads = [
            Head::text("topic"),
            Head::text("stream"),
            Head::number("version"),
            Head::text("schema"),
            Head::text("recorded_at"),
            Head::text("data"),
        ];
        let Snapshot { version, schema, content_type, data } = found.snapshot;
        let cells = vec![
            self.topic.as_str().into(),
            self.stream.as_str().into(),
            version.into(),
            if schema.is_empty() { Cell::Null } else { schema.as_str().into() },
            Cell::Text(time(found.recorded_at_ms)),
            payload_cell(&data, &content_type),
        ];
        let mut printer = self.output.stdout().printer(&heads);
        printer.print(&Record { heads: &heads, cells })?;
        Ok(printer.finish()?)
    }

    async fn show(&self, client: &Client, at_least: Option<Token>) -> Result<(), Stop> {
        let info = client.get_stream(&self.topic, &self.stream, at_least).await?;
        let heads = [
            Head::text("topic"),
            Head::text("stream"),
            Head::number("partition"),
            Head::text("state"),
            Head::number("version"),
            Head::number("first_version"),
            Head::number("anew_version"),
            Head::number("retained_version"),
            Head::text("redacting"),
        ];
        let cells = vec![
            info.topic.as_str().into(),
            info.stream.as_str().into(),
            u64::from(info.partition).into(),
            state(&info).into(),
            info.version.map_or(Cell::Null, Cell::from),
            info.beginning.first_version.into(),
            info.beginning.anew_version.into(),
            info.beginning.retained_version.into(),
            redacting(info.redacting.as_ref()),
        ];
        let mut printer = self.output.stdout().printer(&heads);
        printer.print(&Record { heads: &heads, cells })?;
        Ok(printer.finish()?)
    }
}

/// A version, or the first and the last of several.
fn parse_versions(text: &str) -> Result<RangeInclusive<u64>, &'static str> {
    let version = |text: &str| text.parse::<u64>().ok().filter(|version| *version > 0);
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (version(first), version(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        _ => Err("a version from 1 on, or two of them with - between, the lower one first"),
    }
}

/// Most bytes that are taken from stdin: the server's own limit is lower.
const MAX_SNAPSHOT_BYTES: u64 = 8 << 20;

fn read_snapshot() -> Result<Vec<u8>, Failed> {
    let mut data = Vec::new();
    // Nothing else is under way yet that could wait for it.
    let read = io::stdin().lock().take(MAX_SNAPSHOT_BYTES).read_to_end(&mut data);
    read.map_err(|error| Failed::Usage(anyhow!("failed to read stdin: {error}")))?;
    Ok(data)
}

const fn state(info: &StreamInfo) -> &'static str {
    match info.version {
        _ if info.tombstoned => "tombstoned",
        _ if info.deleted => "deleted",
        Some(_) => "live",
        None => "absent",
    }
}
