//! `foldlog read` and `tail`: events up to the end, and from now on.

use std::time::Duration;

use anyhow::anyhow;
use foldlog_sdk::{Client, Delivery, EventQuery, Source, StreamInfo, Subscription, Token, TopicKind};
use futures::FutureExt as _;

use super::{
    Connection, Stop,
    event::{Columns, Printed},
    parse_token,
};
use crate::cli::{
    Failed,
    output::{OutputArgs, note, text::parse_time},
};

/// Read events up to the end of now, in the order of their positions, or backwards
#[derive(Debug, clap::Args)]
pub struct Read {
    #[command(flatten)]
    what: What,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    begin: Begin,
    /// Most events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Token of an earlier command: reflect at least what it did
    #[arg(long, value_name = "TOKEN", value_parser = parse_token)]
    at_least: Option<Token>,
    /// Longest time to wait for --at-least, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(..=3600))]
    wait: u64,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: OutputArgs,
}

/// Where a read begins and which way it goes.
#[derive(Debug, clap::Args)]
pub struct Begin {
    /// Begin with this position, version (of a stream) or offset (of a partition) [default: the beginning, with --backward the end]
    #[arg(long, value_name = "N")]
    from: Option<u64>,
    /// Begin with the first event that the server recorded at this time (2013-01-01T10:15:00Z) or later; with --backward with the last
    /// one at this time or before
    #[arg(long, value_name = "TIME", conflicts_with = "from", value_parser = parse_begin)]
    from_time: Option<i64>,
    /// Read backwards: the newest first
    #[arg(long)]
    backward: bool,
}

/// Milliseconds since 1970 of a time given as text.
fn parse_begin(text: &str) -> Result<i64, &'static str> {
    parse_time(text).ok_or("a time is RFC 3339, like 2013-01-01T10:15:00Z")
}

/// Follow events as they are appended, until Ctrl-C
#[derive(Debug, clap::Args)]
pub struct Tail {
    #[command(flatten)]
    what: What,
    #[command(flatten)]
    filter: Filter,
    /// Begin with what is there, at this position, version (with --stream) or offset (with --partition) [default: from now]
    #[arg(long, value_name = "N")]
    from: Option<u64>,
    /// Begin with the first event that the server recorded at this time (2013-01-01T10:15:00Z) or later
    #[arg(long, value_name = "TIME", conflicts_with = "from", value_parser = parse_begin)]
    from_time: Option<i64>,
    /// End after so many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, clap::Args)]
struct What {
    /// Topic; with --all none
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    topic: Option<String>,
    /// Every topic but foldlog's own
    #[arg(long)]
    all: bool,
    /// Only this stream of the topic
    #[arg(long, conflicts_with_all = ["all", "partition"])]
    stream: Option<String>,
    /// Only this partition of the topic
    #[arg(long, conflicts_with = "all")]
    partition: Option<u32>,
}

/// Which events are meant.
#[derive(Debug, clap::Args)]
pub struct Filter {
    /// Only events of this type (of any of them, if given again)
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// Only events with this tag (with all of them, if given again)
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
}

impl Filter {
    pub fn query(&self) -> Option<EventQuery> {
        let is_given = !self.types.is_empty() || !self.tags.is_empty();
        is_given.then(|| EventQuery::of(self.types.clone(), self.tags.clone()))
    }
}

impl What {
    fn source(&self, from: Option<u64>) -> Source {
        let topic = self.topic.clone().unwrap_or_default();
        match (&self.stream, self.partition) {
            (Some(stream), _) => Source::Stream { topic, stream: stream.clone(), from_version: from },
            (None, Some(partition)) => Source::Partition { topic, partition, from_offset: from },
            (None, None) if self.all => Source::All { from_position: from },
            (None, None) => Source::Topic { topic, from_position: from },
        }
    }

    async fn columns(&self, client: &Client) -> Result<Columns, Stop> {
        let Some(topic) = &self.topic else { return Ok(Columns::All) };
        Ok(match client.describe_topic(topic).await?.topic.kind {
            TopicKind::Events => Columns::Events,
            TopicKind::Records | TopicKind::Table => Columns::Records,
        })
    }
}

impl Read {
    /// All of one stream that `begin` and `filter` say, or its newest events, as of a token.
    pub fn of_stream(
        info: &StreamInfo,
        filter: Filter,
        begin: Begin,
        last: Option<u64>,
        connection: Connection,
        output: OutputArgs,
    ) -> Self {
        let what = What { topic: Some(info.topic.clone()), all: false, stream: Some(info.stream.clone()), partition: None };
        let newest = |last: u64| info.version.unwrap_or(0).saturating_sub(last - 1);
        let begin = last.map_or(begin, |last| Begin { from: Some(newest(last)), from_time: None, backward: false });
        Self { what, filter, begin, limit: None, at_least: Some(info.token.clone()), wait: 10, connection, output }
    }

    pub async fn run(self) -> Result<(), Stop> {
        let client = self.connection.open().await?;
        let columns = self.what.columns(&client).await?;
        let mut read = client.read(self.what.source(self.begin.from));
        if self.begin.backward {
            read = read.backwards();
        }
        if let Some(ms) = self.begin.from_time {
            read = read.from_time(ms);
        }
        if let Some(limit) = self.limit {
            read = read.limit(limit);
        }
        if let Some(token) = self.at_least {
            read = read.at_least(token, Some(Duration::from_secs(self.wait)));
        }
        let query = self.filter.query();
        let is_filtered = query.is_some();
        if let Some(query) = query {
            read = read.matching(query);
        }
        let mut reading = read.start().await?;
        let mut printer = self.output.stdout().printer(&columns.heads());
        loop {
            match reading.next().await {
                Ok(Some(event)) => printer.print(&Printed(&event, columns))?,
                Ok(None) => break,
                Err(error) => {
                    printer.finish()?;
                    return Err(error.into());
                }
            }
        }
        printer.finish()?;
        if let Some(seen) = reading.seen().filter(|_| is_filtered) {
            note(&format!("looked at everything up to position {seen}; `append --after {seen}` goes on from there"));
        }
        Ok(())
    }
}

/// Most messages between two looks at Ctrl-C and two flushes.
const BURST: usize = 1_000;

impl Tail {
    pub async fn run(self) -> Result<(), Stop> {
        let client = self.connection.open().await?;
        let columns = self.what.columns(&client).await?;
        let mut subscribe = client.subscribe(self.what.source(self.from));
        if let Some(query) = self.filter.query() {
            subscribe = subscribe.matching(query);
        }
        subscribe = match self.from_time {
            Some(ms) => subscribe.from_time(ms),
            None if self.from.is_none() => subscribe.from_now(),
            None => subscribe,
        };
        let mut subscription = subscribe.start().await?;
        let mut follower =
            Follower { printer: self.output.stdout().printer(&columns.heads()), columns, left: self.limit.unwrap_or(u64::MAX) };
        let outcome = follower.follow(&mut subscription).await;
        if !matches!(outcome, Err(Stop::OutputClosed)) {
            follower.printer.finish()?;
        }
        outcome
    }
}

struct Follower {
    printer: crate::cli::output::Printer<std::io::Stdout>,
    columns: Columns,
    left: u64,
}

impl Follower {
    async fn follow(&mut self, subscription: &mut Subscription) -> Result<(), Stop> {
        // One listener all the way: an interrupt that comes while a burst is printed is not lost.
        let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
        loop {
            // Both arms are cancel-safe.
            let first = tokio::select! {
                biased;
                interrupted = &mut interrupt => return interrupted.map_err(|error| Failed::Operation(anyhow!(error)).into()),
                delivery = subscription.next() => delivery?,
            };
            self.take(&first)?;
            for _ in 0..BURST {
                if self.left == 0 {
                    return Ok(());
                }
                let Some(delivery) = subscription.next().now_or_never() else { break };
                self.take(&delivery?)?;
            }
            self.printer.flush()?;
        }
    }

    fn take(&mut self, delivery: &Delivery) -> Result<(), Stop> {
        match delivery {
            Delivery::Event(event) if self.left > 0 => {
                self.left -= 1;
                self.printer.print(&Printed(event, self.columns))?;
            }
            Delivery::FellBehind { position, head } => {
                note(&format!("fell behind: at position {position} of {head}; nothing is lost"));
            }
            Delivery::Event(_) | Delivery::Progress(_) | Delivery::CaughtUp(_) => {}
        }
        Ok(())
    }
}
