//! `foldlog topic create | list | describe`.

use clap::Subcommand;
use foldlog_sdk::{Compression, Durability, Topic as SdkTopic, TopicKind, TopicSettings};

use super::{Connection, Stop};
use crate::cli::output::{Cell, Head, OutputArgs, Record};

/// Create, list and describe topics
#[derive(Debug, Subcommand)]
pub enum Topic {
    /// Create a topic; one that exists with the same settings is left as it is
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
        #[command(flatten)]
        connection: Connection,
        #[command(flatten)]
        output: OutputArgs,
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
}

impl Topic {
    pub async fn run(self) -> Result<(), Stop> {
        match self {
            Self::Create { name, kind, partitions, durability, compression, connection, output } => {
                let settings = TopicSettings { kind, partitions, durability, compression };
                let topic = connection.open().await?.create_topic_with(&name, settings).await?;
                print_topics(output, &[topic])
            }
            Self::List { system, connection, output } => {
                let topics = connection.open().await?.list_topics(system).await?;
                print_topics(output, &topics)
            }
            Self::Describe { name, connection, output } => describe(&name, &connection, output).await,
        }
    }
}

fn print_topics(output: OutputArgs, topics: &[SdkTopic]) -> Result<(), Stop> {
    let heads = [Head::text("name"), Head::text("kind"), Head::number("partitions"), Head::text("durability"), Head::text("compression")];
    let mut printer = output.stdout().printer(&heads);
    for topic in topics {
        let cells = vec![
            topic.name.as_str().into(),
            topic.kind.as_str().into(),
            u64::from(topic.partitions).into(),
            topic.durability.as_str().into(),
            topic.compression.as_str().into(),
        ];
        printer.print(&Record { heads: &heads, cells })?;
    }
    Ok(printer.finish()?)
}

async fn describe(name: &str, connection: &Connection, output: OutputArgs) -> Result<(), Stop> {
    let description = connection.open().await?.describe_topic(name).await?;
    let heads = [
        Head::text("name"),
        Head::text("kind"),
        Head::number("partitions"),
        Head::text("durability"),
        Head::text("compression"),
        Head::number("records"),
        Head::text("ends"),
        Head::number("max_event_bytes"),
        Head::number("max_append_bytes"),
        Head::number("max_append_events"),
        Head::number("max_event_tags"),
        Head::number("max_tag_bytes"),
    ];
    let ends = description.ends.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
    let cells = vec![
        description.topic.name.as_str().into(),
        description.topic.kind.as_str().into(),
        u64::from(description.topic.partitions).into(),
        description.topic.durability.as_str().into(),
        description.topic.compression.as_str().into(),
        description.ends.iter().sum::<u64>().into(),
        Cell::Json(format!("[{ends}]")),
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
