//! Data folders as a killed server leaves them, made in this process: the log's own steps decide what lies in segments and what in
//! the journal alone, which a running server decides for itself.

use std::{path::Path, sync::Arc};

use foldlog_log::{
    Append, EmbeddedLog, LogBackend as _, LogConfig, NewEvent, PartitionId, Stepper, Tag, TopicKind, TopicName, TopicSettings, Write,
    clock::SystemClock, disk::RealDisk,
};
use prost::bytes::Bytes;

use crate::load::{PAYLOAD, TOPIC};

/// Partitions of the measured topic.
pub const PARTITIONS: u32 = 16;
/// Events of one append.
const BATCH: u64 = 500;
/// Appends of one sync.
const GROUP: u64 = 8;

/// A folder that is being filled.
pub struct Filling {
    log: EmbeddedLog,
    stepper: Stepper,
    topic: TopicName,
}

/// Which events there are: the stream and the tags of each, by its number.
pub struct Shape {
    /// Streams that events go to by turns.
    pub streams: u64,
    /// Kinds of tags; an event has one of each.
    pub tags: u64,
    /// Different tags of a kind.
    pub distinct: u64,
}

impl Filling {
    /// Opens a folder, which is made if it does not exist.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let config = LogConfig { untidied_bytes: 1 << 30, ..LogConfig::default() }.without_reserve();
        let random = || uuid::Uuid::new_v4().as_u128();
        let (log, stepper) = EmbeddedLog::open_stepped(Arc::new(RealDisk), Arc::new(SystemClock::new()), folder, config, random)?;
        let topic: TopicName = TOPIC.parse()?;
        if log.topic(&topic).is_err() {
            log.create_topic(topic.clone(), TopicSettings::new(TopicKind::Events, PARTITIONS))?;
        }
        Ok(Self { log, stepper, topic })
    }

    /// Appends the events `from..to` (in whole appends) and copies them into segments.
    pub async fn fill(&mut self, shape: &Shape, from: u64, to: u64) -> anyhow::Result<()> {
        for (group, first) in (1_u64..).zip((from..to).step_by(usize::try_from(GROUP * BATCH)?)) {
            self.group(shape, first, to).await?;
            if group.is_multiple_of(32) {
                self.stepper.tidy()?;
            }
        }
        Ok(self.stepper.tidy()?)
    }

    /// Appends events from a number on until the journal holds so many bytes that lie nowhere else. Returns how many those are.
    pub async fn leave_in_journal(&mut self, shape: &Shape, mut from: u64, bytes: u64) -> anyhow::Result<u64> {
        while self.log.metrics().untidied_bytes < bytes {
            self.group(shape, from, u64::MAX).await?;
            from += GROUP * BATCH;
        }
        Ok(self.log.metrics().untidied_bytes)
    }

    async fn group(&mut self, shape: &Shape, from: u64, to: u64) -> anyhow::Result<()> {
        let starts = (0..GROUP).map(|append| from + append * BATCH).filter(|start| *start < to);
        let answers = starts.map(|start| Ok(self.log.append(self.append(shape, start)?)?)).collect::<anyhow::Result<Vec<_>>>()?;
        self.stepper.commit()?;
        for answer in answers {
            answer.await?;
        }
        Ok(())
    }

    fn append(&self, shape: &Shape, from: u64) -> anyhow::Result<Append> {
        let write = |number: u64| {
            // A large odd step visits all tags in an order that looks like none.
            let tag = |kind: u64| format!("{kind}:{}", number.wrapping_mul(7_919 + 2 * kind) % shape.distinct).parse::<Tag>();
            let event = NewEvent {
                kind: "Measured".into(),
                data: Bytes::from_static(PAYLOAD),
                tags: (0..shape.tags).map(tag).collect::<Result<_, _>>()?,
                ..NewEvent::default()
            };
            let stream = format!("account-{:08}", number % shape.streams).parse()?;
            anyhow::Ok(Write::Stream { topic: self.topic.clone(), stream, events: vec![event] })
        };
        Ok(Append { writes: (from..from + BATCH).map(write).collect::<anyhow::Result<_>>()?, ..Append::default() })
    }
}

/// A stream of each partition that no event was appended to.
pub fn unused_streams() -> Vec<String> {
    let of = |partition: u32| {
        let mut names = (0..).map(|number| format!("unused-{number}"));
        names.find(|name| PartitionId::for_key(name.as_bytes(), PARTITIONS) == PartitionId::new(partition))
    };
    (0..PARTITIONS).filter_map(of).collect()
}
