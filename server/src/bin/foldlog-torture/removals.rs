//! The topics from which something goes, and those that go themselves: made, written to, asked again, and checked against what was acknowledged.
//!
//! Queries read none of them, for what a query would fold again stays.

use std::{fmt, sync::Arc};

use anyhow::{Context as _, ensure};
use foldlog_proto::v1::{
    Compaction, CreateTopicRequest, GetStreamRequest, ReadRequest, RecordedEvent, Retention, StreamRange, TopicKind, TopicRange,
    read_request::Source, topics_client::TopicsClient,
};
use parking_lot::Mutex;
use tokio::{sync::watch, task::JoinSet};
use tonic::{Code, Status, transport::Channel};

use crate::{
    aged::{self, Aged},
    check::Verdict,
    child::event_log,
    churn::{self, Churn, Then},
    given::Row,
    line::{self, Line, number_of},
    lives::{self, Lives, Told},
    random::Random,
    recent::{self, Recent},
    table::{self, Table},
};

/// See the module.
#[derive(Clone)]
pub struct Removals {
    table: Arc<Mutex<Line<Table>>>,
    lives: Arc<Mutex<Line<Lives>>>,
    recent: Arc<Mutex<Line<Recent>>>,
    aged: Arc<Mutex<Line<Aged>>>,
    churn: Arc<Mutex<Churn>>,
}

/// How much was acknowledged and is not there any more, as it may be; and what became of topics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gone {
    /// Records of the table, which were replaced, and tombstones.
    pub compacted: u64,
    /// Events that streams let go.
    pub removed: u64,
    /// Records that were too many.
    pub expired: u64,
    /// Events that were too many.
    pub retained: u64,
    /// Alterations of topics.
    pub altered: u64,
    /// Topics that were deleted.
    pub deleted: u64,
}

impl Gone {
    /// Whether there is something of each kind.
    pub const fn is_complete(&self) -> bool {
        self.compacted > 0 && self.removed > 0 && self.expired > 0 && self.retained > 0 && self.altered > 0 && self.deleted > 0
    }
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { compacted, removed, expired, retained, altered, deleted } = self;
        write!(f, "compacted={compacted} removed={removed} expired={expired} retained={retained} altered={altered} deleted={deleted}")
    }
}

impl Removals {
    /// Creates the topics.
    pub async fn prepare(channel: &Channel, random: &mut Random) -> anyhow::Result<Self> {
        let ms = |ms: i32| Some(prost_types::Duration { seconds: 0, nanos: ms * 1_000_000 });
        let second = Some(prost_types::Duration { seconds: 1, nanos: 0 });
        let compaction = Compaction { delete_retention: ms(100), min_lag: ms(0), max_lag: second, dirty_percent: Some(20) };
        let of = |name: &str, kind: TopicKind, partitions| CreateTopicRequest {
            name: name.to_owned(),
            kind: kind.into(),
            partitions: Some(partitions),
            ..CreateTopicRequest::default()
        };
        let retention = Some(Retention { bytes: Some(recent::KEPT_BYTES), ..Retention::default() });
        for request in [
            CreateTopicRequest { compaction: Some(compaction), ..of(table::TOPIC, TopicKind::Table, 1) },
            of(lives::TOPIC, TopicKind::Events, lives::PARTITIONS),
            CreateTopicRequest { retention, ..of(recent::TOPIC, TopicKind::Records, recent::PARTITIONS) },
            CreateTopicRequest { retention, ..of(aged::TOPIC, TopicKind::Events, aged::PARTITIONS) },
        ] {
            let name = request.name.clone();
            TopicsClient::new(channel.clone()).create(request).await.with_context(|| format!("cannot create the topic {name}"))?;
        }
        Ok(Self {
            table: Line::new(1, Table::default(), random.split()),
            lives: Line::new(2, Lives::default(), random.split()),
            recent: Line::new(3, Recent::default(), random.split()),
            aged: Line::new(4, Aged::default(), random.split()),
            churn: Churn::new(random.split()),
        })
    }

    /// Writes until the server is gone; what is acknowledged is counted.
    pub fn spawn(&self, tasks: &mut JoinSet<anyhow::Result<()>>, channel: &Channel, acked: &watch::Sender<u64>) {
        tasks.spawn(line::run(Arc::clone(&self.table), channel.clone(), acked.clone()));
        tasks.spawn(line::run(Arc::clone(&self.lives), channel.clone(), acked.clone()));
        tasks.spawn(line::run(Arc::clone(&self.recent), channel.clone(), acked.clone()));
        tasks.spawn(line::run(Arc::clone(&self.aged), channel.clone(), acked.clone()));
        tasks.spawn(churn::run(Arc::clone(&self.churn), channel.clone()));
    }

    /// Sends again what was never answered; how much that was.
    pub async fn ask_again(&self, channel: &Channel) -> anyhow::Result<usize> {
        let asked = [
            line::ask_again(&self.table, channel).await?,
            line::ask_again(&self.lives, channel).await?,
            line::ask_again(&self.recent, channel).await?,
            line::ask_again(&self.aged, channel).await?,
            churn::ask_again(&self.churn, channel).await?,
        ];
        Ok(asked.into_iter().filter(|asked| *asked).count())
    }

    /// Checks everything, and takes down what is gone.
    pub async fn check(&self, channel: &Channel) -> anyhow::Result<Verdict> {
        let read = Read::all(channel, &self.streams(u64::MAX)).await?;
        let mut verdict = self.compare(&read, u64::MAX);
        let found = churn::found(channel).await?;
        verdict.add(self.churn.lock().take_verdict());
        verdict.add(self.churn.lock().check(&found));
        for (given, rows) in [
            (&mut self.table.lock().script.given, &read.table),
            (&mut self.lives.lock().script.given, &read.lives),
            (&mut self.recent.lock().script.given, &read.recent),
            (&mut self.aged.lock().script.given, &read.aged),
        ] {
            verdict.add(given.take_verdict());
            verdict.add(given.leaves(rows));
        }
        Ok(verdict)
    }

    /// Checks another log, which ends at a position.
    pub async fn check_then(&self, channel: &Channel, then: &Then, end: u64) -> anyhow::Result<Verdict> {
        let read = Read::all(channel, &self.streams(end)).await?;
        let mut verdict = self.compare(&read, end);
        let found = churn::found(channel).await?;
        verdict.add(self.churn.lock().check_then(&found, then, end));
        Ok(verdict)
    }

    /// Topics of which it was acknowledged by now what became of them.
    pub fn topics(&self) -> Then {
        self.churn.lock().now()
    }

    fn compare(&self, read: &Read, end: u64) -> Verdict {
        let mut verdict = self.table.lock().script.check(&read.table, end);
        verdict.add(self.lives.lock().script.check(&read.lives, &read.streams, end));
        verdict.add(self.aged.lock().script.check(&read.aged, &read.of_aged, end));
        verdict.add(self.recent.lock().script.check(&read.recent, end));
        verdict
    }

    /// Streams of [`crate::lives`] and of [`crate::aged`].
    fn streams(&self, end: u64) -> [Vec<String>; 2] {
        let lives = self.lives.lock().script.stories(end).into_keys().collect();
        [lives, self.aged.lock().script.streams(end).into_keys().collect()]
    }

    /// Position behind all that was acknowledged.
    pub fn acked_end(&self) -> u64 {
        let ends = [self.table.lock().script.given.end(), self.lives.lock().script.given.end(), self.recent.lock().script.given.end()];
        ends.into_iter().max().unwrap_or_default().max(self.aged.lock().script.given.end())
    }

    /// What is gone by the last check.
    pub fn gone(&self) -> Gone {
        let compacted = self.table.lock().script.given.gone();
        let removed = self.lives.lock().script.given.gone();
        let (altered, deleted) = self.churn.lock().done();
        let (expired, retained) = (self.recent.lock().script.given.gone(), self.aged.lock().script.given.gone());
        Gone { compacted, removed, expired, retained, altered, deleted }
    }
}

/// What is there.
struct Read {
    table: Vec<Row>,
    lives: Vec<Row>,
    streams: Vec<Told>,
    recent: Vec<Row>,
    aged: Vec<Row>,
    of_aged: Vec<Told>,
}

impl Read {
    async fn all(channel: &Channel, [of_lives, of_aged]: &[Vec<String>; 2]) -> anyhow::Result<Self> {
        let [table, lives, recent, aged] = [table::TOPIC, lives::TOPIC, recent::TOPIC, aged::TOPIC].map(|topic| topic_rows(channel, topic));
        let (table, lives, recent, aged) = (table.await?, lives.await?, recent.await?, aged.await?);
        let streams = told(channel, lives::TOPIC, of_lives).await?;
        Ok(Self { table, lives, streams, recent, aged, of_aged: told(channel, aged::TOPIC, of_aged).await? })
    }
}

/// What is told of streams, and what is read of them.
async fn told(channel: &Channel, topic: &str, streams: &[String]) -> anyhow::Result<Vec<Told>> {
    let mut all = Vec::with_capacity(streams.len());
    for stream in streams {
        let (topic, stream) = (topic.to_owned(), stream.clone());
        let asked = GetStreamRequest { topic: topic.clone(), stream: stream.clone(), ..GetStreamRequest::default() };
        let info = event_log(channel.clone()).get_stream(asked).await.context("cannot ask for a stream")?.into_inner();
        let range = StreamRange { topic, stream, from_version: None };
        all.push((info, rows(read(channel, Source::Stream(range)).await?)?));
    }
    Ok(all)
}

async fn topic_rows(channel: &Channel, topic: &str) -> anyhow::Result<Vec<Row>> {
    rows(read_topic(channel, topic).await?)
}

/// Everything that a topic has, in position order.
pub async fn read_topic(channel: &Channel, topic: &str) -> anyhow::Result<Vec<RecordedEvent>> {
    let range = TopicRange { topic: topic.to_owned(), from_position: None };
    loop {
        match read(channel, Source::Topic(range.clone())).await {
            // Something was removed before it was read: from the beginning that is now.
            Err(status) if status.code() == Code::OutOfRange => {}
            read => return read.with_context(|| format!("cannot read {topic}")),
        }
    }
}

async fn read(channel: &Channel, source: Source) -> Result<Vec<RecordedEvent>, Status> {
    let request = ReadRequest { source: Some(source), ..ReadRequest::default() };
    let mut batches = event_log(channel.clone()).read(request).await?.into_inner();
    let (mut records, mut has_ended) = (Vec::new(), false);
    while let Some(batch) = batches.message().await? {
        has_ended = batch.end;
        records.extend(batch.events);
    }
    if has_ended { Ok(records) } else { Err(Status::internal("a read ended without saying so")) }
}

fn rows(records: Vec<RecordedEvent>) -> anyhow::Result<Vec<Row>> {
    records.into_iter().map(row).collect()
}

fn row(record: RecordedEvent) -> anyhow::Result<Row> {
    let RecordedEvent { position, partition, offset, stream, stream_version: version, key, event, .. } = record;
    ensure!(stream.is_empty() || key.is_none(), "stream {stream} has a key");
    let name = key.map_or(Ok(stream), |key| String::from_utf8(key.to_vec())).context("a key that is not text")?;
    let data = event.context("a record without an event")?.data;
    Ok(Row { position, partition, offset, name, version, number: data.map(|data| number_of(&data)).transpose()? })
}
