//! `foldlog topic create | alter | delete | list | describe | compaction | export | import`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use foldlog_sdk::{
    Compaction, CompactionState, Compression, Durability, Redacting, Retention, Topic as SdkTopic, TopicChanges, TopicDescription,
    TopicKind, TopicSettings,
};

use super::{Connection, Stop, transfer};
use crate::cli::output::{Cell, Head, OutputArgs, Record, note, text::time};

/// Create, alter, delete, list, describe, export and import topics
#[derive(Debug, Subcommand)]
pub enum Topic {
    /// Create a topic; one that exists with the same settings is left as it is
    #[command(group = clap::ArgGroup::new("changes").multiple(true))]
    Create {
        /// Name: 1 to 249 characters of A-Z a-z 0-9 . _ -
        name: String,
        /// What it holds: events (streams with versions), records (as Kafka has them) or table (newest value of each key)
        #[arg(long, default_value_t = TopicKind::Events)]
        kind: TopicKind,
        /// Number of partitions, 1 to 1,024 [default: 8]
        #[arg(long)]
        partitions: Option<u32>,
        /// When appends are answered that do not say: synced (they survive the loss of power) or written (sooner; they survive the
        /// process) [default: synced]
        #[arg(long)]
        durability: Option<Durability>,
        /// How its batches are compressed where they lie for long: none, lz4 (fast) or zstd (smaller)
        #[arg(long, default_value_t = Compression::None)]
        compression: Compression,
        /// Let records go that were recorded longer ago, like 7d, 12h, 30m or 90s [default: keep them for ever]
        #[arg(long, value_name = "TIME", value_parser = parse_time)]
        retention_time: Option<Duration>,
        /// Keep the newest so many bytes in each partition and let older records go, like 1GiB or 512MiB [default: keep them for ever]
        #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
        retention_bytes: Option<u64>,
        #[command(flatten)]
        compaction: CompactionArgs,
        #[command(flatten)]
        connection: Connection,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Alter a topic while it is in use; what is not named stays as it is
    #[command(group = clap::ArgGroup::new("changes").required(true).multiple(true))]
    Alter {
        /// Name
        name: String,
        /// Number of partitions, more than there are; for topics of records. Records of a key may lie in another partition from then on
        #[arg(long, group = "changes")]
        partitions: Option<u32>,
        /// When appends are answered that do not say: synced or written
        #[arg(long, group = "changes")]
        durability: Option<Durability>,
        /// How batches are compressed that come to lie for long from now on: none, lz4 or zstd
        #[arg(long, group = "changes")]
        compression: Option<Compression>,
        /// Let records go that were recorded longer ago, like 7d, 12h, 30m or 90s; none: age is no reason any more
        #[arg(long, value_name = "TIME", value_parser = |text: &str| none_or(text, Duration::ZERO, parse_time), group = "changes")]
        retention_time: Option<Duration>,
        /// Keep the newest so many bytes in each partition, like 1GiB or 512MiB; none: bytes are no reason any more
        #[arg(long, value_name = "BYTES", value_parser = |text: &str| none_or(text, 0, parse_bytes), group = "changes")]
        retention_bytes: Option<u64>,
        #[command(flatten)]
        compaction: CompactionArgs,
        #[command(flatten)]
        connection: Connection,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Delete a topic with all that it holds, for ever; refused while streams, tables or queries are made of it
    Delete {
        /// Name
        name: String,
        /// Really
        #[arg(long, required = true)]
        yes: bool,
        #[command(flatten)]
        connection: Connection,
    },
    /// List topics by name
    List {
        /// Also list foldlog's own topics
        #[arg(long)]
        system: bool,
        #[command(flatten)]
        connection: Connection,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show a topic, where its partitions end and what may be appended to it
    Describe {
        /// Name
        name: String,
        #[command(flatten)]
        connection: Connection,
        #[command(flatten)]
        output: OutputArgs,
    },
    Export(transfer::Export),
    Import(transfer::Import),
    /// Have the compaction of all tables stop where it is, or go on; a restart goes on
    Compaction {
        /// What it is to do
        #[arg(value_enum)]
        order: Order,
        #[command(flatten)]
        connection: Connection,
    },
}

/// What compaction is to do.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Order {
    /// Stop where it is
    Pause,
    /// Go on from there
    Resume,
}

/// When a table is rid of what a newer record of the same key replaced.
#[derive(Clone, Copy, Debug, Args)]
pub struct CompactionArgs {
    /// How long a deletion stays to be seen in a table after what it deletes is gone [default: 1d]
    #[arg(long, value_name = "TIME", value_parser = parse_time, group = "changes")]
    delete_retention: Option<Duration>,
    /// Leave what was recorded more recently alone; for tables [default: 0s]
    #[arg(long, value_name = "TIME", value_parser = parse_time, group = "changes")]
    min_lag: Option<Duration>,
    /// Be rid of what was replaced about so long after it was recorded; for tables [default: 7d]
    #[arg(long, value_name = "TIME", value_parser = parse_time, group = "changes")]
    max_lag: Option<Duration>,
    /// Compact a partition of a table once so many hundredths of it have not been looked at, 1 to 100 [default: 50]
    #[arg(long, value_name = "PERCENT", group = "changes")]
    dirty_percent: Option<u32>,
}

impl From<CompactionArgs> for Compaction {
    fn from(args: CompactionArgs) -> Self {
        let CompactionArgs { delete_retention, min_lag, max_lag, dirty_percent } = args;
        Self { delete_retention, min_lag, max_lag, dirty_percent }
    }
}

impl Topic {
    pub async fn run(self) -> Result<(), Stop> {
        match self {
            Self::Create {
                name,
                kind,
                partitions,
                durability,
                compression,
                retention_time,
                retention_bytes,
                compaction,
                connection,
                output,
            } => {
                let retention = Retention { time: retention_time, bytes: retention_bytes };
                let settings = TopicSettings { kind, partitions, durability, compression, retention, compaction: compaction.into() };
                let topic = connection.open().await?.create_topic_with(&name, settings).await?;
                print_topics(output, &[topic])
            }
            Self::Alter { name, partitions, durability, compression, retention_time, retention_bytes, compaction, connection, output } => {
                let compaction = compaction.into();
                let changes = TopicChanges { partitions, durability, compression, retention_time, retention_bytes, compaction };
                let topic = connection.open().await?.alter_topic(&name, changes).await?;
                print_topics(output, &[topic])
            }
            Self::Delete { name, yes: _, connection } => {
                connection.open().await?.delete_topic(&name).await?;
                note(&format!("topic {name} is deleted"));
                Ok(())
            }
            Self::List { system, connection, output } => {
                let topics = connection.open().await?.list_topics(system).await?;
                print_topics(output, &topics)
            }
            Self::Describe { name, connection, output } => describe(&name, &connection, output).await,
            Self::Export(verb) => verb.run().await,
            Self::Import(verb) => verb.run().await,
            Self::Compaction { order, connection } => Ok(connection.open().await?.pause_compaction(matches!(order, Order::Pause)).await?),
        }
    }
}

fn print_topics(output: OutputArgs, topics: &[SdkTopic]) -> Result<(), Stop> {
    let heads = [
        Head::text("name"),
        Head::text("kind"),
        Head::number("partitions"),
        Head::text("durability"),
        Head::text("compression"),
        Head::number("retention_ms"),
        Head::number("retention_bytes"),
    ];
    let mut printer = output.stdout().printer(&heads);
    for topic in topics {
        let cells = vec![
            topic.name.as_str().into(),
            topic.kind.as_str().into(),
            u64::from(topic.partitions).into(),
            topic.durability.as_str().into(),
            topic.compression.as_str().into(),
            time_cell(topic.retention),
            topic.retention.bytes.map_or(Cell::Null, Into::into),
        ];
        printer.print(&Record { heads: &heads, cells })?;
    }
    Ok(printer.finish()?)
}

fn time_cell(retention: Retention) -> Cell {
    retention.time.map_or(Cell::Null, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX).into())
}

async fn describe(name: &str, connection: &Connection, output: OutputArgs) -> Result<(), Stop> {
    let description = connection.open().await?.describe_topic(name).await?;
    let heads = [
        Head::text("name"),
        Head::text("kind"),
        Head::number("partitions"),
        Head::text("durability"),
        Head::text("compression"),
        Head::number("retention_ms"),
        Head::number("retention_bytes"),
        Head::text("compaction"),
        Head::text("compacted"),
        Head::number("records"),
        Head::text("firsts"),
        Head::text("ends"),
        Head::text("held_by"),
        Head::text("redacting"),
        Head::number("max_event_bytes"),
        Head::number("max_append_bytes"),
        Head::number("max_append_events"),
        Head::number("max_event_tags"),
        Head::number("max_tag_bytes"),
    ];
    let offsets = |offsets: &[u64]| Cell::Json(format!("[{}]", offsets.iter().map(u64::to_string).collect::<Vec<_>>().join(",")));
    let records = description.ends.iter().sum::<u64>().saturating_sub(description.firsts.iter().sum());
    let retention = description.topic.retention;
    let held_by: Vec<_> =
        description.holders.iter().map(|one| serde_json::json!({ "query": one.owner, "position": one.position })).collect();
    let cells = vec![
        description.topic.name.as_str().into(),
        description.topic.kind.as_str().into(),
        u64::from(description.topic.partitions).into(),
        description.topic.durability.as_str().into(),
        description.topic.compression.as_str().into(),
        time_cell(retention),
        retention.bytes.map_or(Cell::Null, Into::into),
        description.topic.compaction.map_or(Cell::Null, |settings| Cell::Json(settings_as_json(settings).to_string())),
        compacted(&description),
        records.into(),
        offsets(&description.firsts),
        offsets(&description.ends),
        Cell::Json(serde_json::Value::from(held_by).to_string()),
        redacting(description.redacting.as_ref()),
        description.max_event_bytes.into(),
        description.max_append_bytes.into(),
        u64::from(description.max_append_events).into(),
        u64::from(description.max_event_tags).into(),
        u64::from(description.max_tag_bytes).into(),
    ];
    let mut printer = output.stdout().printer(&heads);
    printer.print(&Record { heads: &heads, cells })?;
    Ok(printer.finish()?)
}

fn settings_as_json(settings: Compaction) -> serde_json::Value {
    let ms = |time: Option<Duration>| time.and_then(|time| u64::try_from(time.as_millis()).ok());
    serde_json::json!({
        "delete_retention_ms": ms(settings.delete_retention),
        "min_lag_ms": ms(settings.min_lag),
        "max_lag_ms": ms(settings.max_lag),
        "dirty_percent": settings.dirty_percent,
    })
}

/// How far compaction has come, by partition.
fn compacted(description: &TopicDescription) -> Cell {
    if description.compaction.is_empty() {
        return Cell::Null;
    }
    let of_partition = |state: &CompactionState| {
        let mut json = serde_json::json!({ "to": state.cleaned_to, "bytes": state.bytes, "dirty_bytes": state.dirty_bytes });
        if let Some(percent) = state.percent {
            json["percent"] = percent.into();
        }
        if description.compaction_paused {
            json["paused"] = true.into();
        }
        json
    };
    let states: Vec<_> = description.compaction.iter().map(of_partition).collect();
    Cell::Json(serde_json::Value::from(states).to_string())
}

/// A number and its unit.
fn split(text: &str) -> Option<(u64, &str)> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    Some((number.parse().ok()?, unit))
}

/// What `none` stands for, or what is read.
fn none_or<T>(text: &str, none: T, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<T, String> {
    if text == "none" { Ok(none) } else { parse(text) }
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time; write a number and ms, s, m, h or d, like 7d");
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(ms).map(Duration::from_millis).ok_or_else(wrong)
}

fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no number of bytes; write one, or one and KiB, MiB, GiB or TiB, like 1GiB");
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let power = match unit {
        "" | "B" => 0,
        "KiB" => 1,
        "MiB" => 2,
        "GiB" => 3,
        "TiB" => 4,
        _ => return Err(wrong()),
    };
    number.checked_mul(1024_u64.pow(power)).ok_or_else(wrong)
}

/// Redacted events of which bytes are left; null if there are none.
pub fn redacting(left: Option<&Redacting>) -> Cell {
    let json = |left: &Redacting| {
        let waits_for = (!left.waits_for.is_empty()).then_some(left.waits_for.as_str());
        serde_json::json!({ "events": left.events, "since": time(left.since_ms), "waits_for": waits_for })
    };
    left.map_or(Cell::Null, |left| Cell::Json(json(left).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_bytes_are_numbers_with_a_unit() {
        for (text, ms) in [("7d", 604_800_000), ("12h", 43_200_000), ("30m", 1_800_000), ("90s", 90_000), ("1500ms", 1500)] {
            assert_eq!(parse_time(text), Ok(Duration::from_millis(ms)));
        }
        for (text, bytes) in [("16384", 16_384), ("5B", 5), ("2KiB", 2048), ("1GiB", 1 << 30), ("3TiB", 3 << 40)] {
            assert_eq!(parse_bytes(text), Ok(bytes));
        }
        assert_eq!((none_or("none", 0, parse_bytes), none_or("5B", 0, parse_bytes)), (Ok(0), Ok(5)));
        assert!(none_or("never", Duration::ZERO, parse_time).unwrap_err().contains("7d"));
        for text in ["", "d", "7", "7 d", "-1d", "7w", "1.5h", "999999999999999999d"] {
            assert!(parse_time(text).unwrap_err().contains("7d"), "{text}");
        }
        for text in ["", "GiB", "1GB", "-1", "1 KiB", "99999999999TiB"] {
            assert!(parse_bytes(text).unwrap_err().contains("1GiB"), "{text}");
        }
    }
}
