//! Data folders with topics of records, made in this process, and what stands in such a topic in the end, read over the API.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use foldlog_log::{
    Append, EmbeddedLog, LogBackend as _, LogConfig, NewRecord, PartitionId, Stepper, TopicKind, TopicName, TopicSettings, Write,
    clock::SystemClock, disk::RealDisk,
};
use foldlog_proto::v1::{ReadRequest, RecordedEvent, TopicRange, read_request};
use tonic::transport::Channel;

use crate::child::event_log;

/// Partitions of each topic.
const PARTITIONS: u32 = 4;
/// Records of one append, and appends of one sync.
const BATCH: usize = 500;
const GROUP: usize = 8;

/// A folder that is being filled.
pub struct Records {
    log: EmbeddedLog,
    stepper: Stepper,
    /// What is in no append yet, by topic.
    waiting: BTreeMap<TopicName, Vec<NewRecord>>,
    appends: Vec<Append>,
    /// Appends so far.
    count: u32,
}

impl Records {
    /// Opens a folder, which is made if it does not exist.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let config = LogConfig { untidied_bytes: 1 << 30, ..LogConfig::default() }.without_reserve();
        let random = || uuid::Uuid::new_v4().as_u128();
        let (log, stepper) = EmbeddedLog::open_stepped(Arc::new(RealDisk), Arc::new(SystemClock::new()), folder, config, random)?;
        Ok(Self { log, stepper, waiting: BTreeMap::new(), appends: Vec::new(), count: 0 })
    }

    /// A topic, which is made if it does not exist.
    pub fn topic(&self, name: &str) -> anyhow::Result<TopicName> {
        let name: TopicName = name.parse()?;
        if self.log.topic(&name).is_ok() {
            return Ok(name);
        }
        self.log.create_topic(name.clone(), TopicSettings::new(TopicKind::Records, PARTITIONS))?;
        Ok(name)
    }

    /// Adds a record: those without a key go to all partitions by turns, many at a time.
    pub async fn push(&mut self, topic: &TopicName, record: NewRecord) -> anyhow::Result<()> {
        let is_keyed = record.key.is_some();
        let waiting = self.waiting.entry(topic.clone()).or_default();
        waiting.push(record);
        if waiting.len() < BATCH {
            return Ok(());
        }
        let records = std::mem::take(waiting);
        self.append(topic.clone(), is_keyed, records);
        if self.appends.len() == GROUP { self.commit().await } else { Ok(()) }
    }

    fn append(&mut self, topic: TopicName, is_keyed: bool, records: Vec<NewRecord>) {
        self.count += 1;
        let partition = (!is_keyed).then(|| PartitionId::new(self.count % PARTITIONS));
        self.appends.push(Append { writes: vec![Write::Records { topic, partition, records }], ..Append::default() });
    }

    async fn commit(&mut self) -> anyhow::Result<()> {
        let answers = self.appends.drain(..).map(|append| self.log.append(append)).collect::<Result<Vec<_>, _>>()?;
        self.stepper.commit()?;
        for answer in answers {
            answer.await?;
        }
        if self.count.is_multiple_of(256) {
            self.stepper.tidy()?;
        }
        Ok(())
    }

    /// Appends what is left and copies everything into segments.
    pub async fn finish(mut self) -> anyhow::Result<()> {
        for (topic, records) in std::mem::take(&mut self.waiting) {
            if let Some(first) = records.first() {
                let is_keyed = first.key.is_some();
                self.append(topic, is_keyed, records);
            }
        }
        self.commit().await?;
        Ok(self.stepper.tidy()?)
    }
}

/// Gives every record of a topic, in the order in which they were committed.
pub async fn read(channel: Channel, topic: &str, mut take: impl FnMut(RecordedEvent) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let range = TopicRange { topic: topic.to_owned(), from_position: Some(0) };
    let request = ReadRequest { source: Some(read_request::Source::Topic(range)), ..ReadRequest::default() };
    let mut batches = event_log(channel).read(request).await?.into_inner();
    while let Some(batch) = batches.message().await? {
        batch.events.into_iter().try_for_each(&mut take)?;
    }
    Ok(())
}
