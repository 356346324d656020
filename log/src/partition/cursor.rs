//! Where a reader stands: what it selects, looked up, and the place it has come to.
//!
//! Readers of both directions and reads by time begin with one. Invariant: what it names exists.

use std::sync::Arc;

use hashbrown::HashMap;

use super::{request::require_events, streams::StreamKey};
use crate::{
    engine::Engine,
    error::LogError,
    ids::{Offset, Position, StreamId, StreamVersion, Timestamp, TopicName},
    record::Selection,
    retention::LowMark,
    topic_store::{Partition, TopicEntry},
};

use super::tail::Since;

/// Of which topics, or which part of one, a merged read returns records, and what of them was removed when it began: nobody misses that.
#[derive(Debug)]
pub(crate) struct Topics {
    which: Which,
    /// What was removed lies below, by partition.
    gone: HashMap<usize, Position>,
}

#[derive(Debug)]
enum Which {
    These(Vec<Arc<TopicEntry>>),
    Users,
    Part(Arc<Partition>),
}

impl Topics {
    fn new(engine: &Engine, which: Which) -> Self {
        let mut topics = Self { which, gone: HashMap::new() };
        for partition in engine.topics.partitions().into_iter().filter(|partition| topics.takes(partition)).collect::<Vec<_>>() {
            let removed = engine.low(&partition).position;
            if removed > Position::default() {
                topics.gone.insert(partition.index, removed);
            }
        }
        topics
    }

    pub(crate) fn takes(&self, partition: &Partition) -> bool {
        match &self.which {
            Which::These(topics) => topics.iter().any(|entry| entry.topic.id == partition.topic.id),
            Which::Users => !partition.topic.name.is_system() && !partition.is_gone(),
            Which::Part(part) => partition.index == part.index,
        }
    }

    /// Refuses to go on if a topic that was named was deleted since.
    fn present(&self) -> Result<(), LogError> {
        match &self.which {
            Which::These(topics) => topics.iter().flat_map(|entry| &entry.partitions).try_for_each(|partition| partition.present()),
            Which::Users => Ok(()),
            Which::Part(part) => part.present(),
        }
    }

    /// Whether what a partition has at a position was removed when the read began; memory may hold it for a while.
    pub(crate) fn is_gone(&self, partition: &Partition, position: Position) -> bool {
        self.gone.get(&partition.index).is_some_and(|gone| position < *gone)
    }

    /// The refusal to go on at `next`, if a partition that has its records from `low` on had some there when the read began.
    pub(crate) fn missing(&self, partition: &Partition, low: LowMark, next: Position) -> Option<LogError> {
        let was_gone = self.gone.get(&partition.index).is_some_and(|gone| *gone >= low.position);
        (low.position > next && !was_gone).then_some(LogError::Removed { asked: next, first: low.position })
    }
}

/// A selection and a place in it: forwards that of the next record, backwards that behind it.
#[derive(Clone, Debug)]
pub(crate) enum Cursor {
    Partition { partition: Arc<Partition>, next: Offset },
    Stream { partition: Arc<Partition>, key: StreamKey, next: StreamVersion },
    Merged { topics: Arc<Topics>, next: Position },
}

impl Cursor {
    /// The cursor of `selection`, once its place is known to exist.
    ///
    /// # Errors
    /// As [`crate::backend::LogBackend::reader`].
    pub(crate) fn open(engine: &Engine, selection: Selection) -> Result<Self, LogError> {
        let end = engine.tail.end();
        let within = |position: Position| {
            if position > end {
                return Err(LogError::PositionOutOfRange { asked: position, end });
            }
            engine.not_lost(position, position).map(|()| position)
        };
        Ok(match selection {
            Selection::Partition(topic, id, next) => {
                let partition = Arc::clone(engine.topics.get(&topic)?.partition(id)?);
                let end = engine.tail.end_of(partition.index);
                let first = engine.low(&partition).offset;
                if !(first..=end).contains(&next) {
                    return Err(LogError::OffsetOutOfRange { topic, partition: id, asked: next, first, end });
                }
                Self::Partition { partition, next }
            }
            Selection::Stream(topic, stream, from) => {
                let (partition, key) = stream_of(engine, &topic, &stream)?;
                Self::Stream { partition, key, next: from.max(StreamVersion::FIRST) }
            }
            Selection::Topics(names, next) => Self::Merged { topics: Arc::new(these(engine, &names)?), next: within(next)? },
            Selection::All(next) => Self::Merged { topics: Arc::new(Topics::new(engine, Which::Users)), next: within(next)? },
        })
    }
}

impl Cursor {
    /// Refuses to go on if what it names was deleted since.
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`].
    pub(crate) fn present(&self) -> Result<(), LogError> {
        match self {
            Self::Partition { partition, .. } | Self::Stream { partition, .. } => partition.present(),
            Self::Merged { topics, .. } => topics.present(),
        }
    }

    /// The position it has come to, if it goes by position.
    pub(crate) const fn position(&self) -> Option<Position> {
        match self {
            Self::Merged { next, .. } => Some(*next),
            Self::Partition { .. } | Self::Stream { .. } => None,
        }
    }

    /// Goes on from another position. A partition is gone through by position from then on, which is the same order; a stream cannot.
    pub(crate) fn seek(&mut self, engine: &Engine, position: Position) {
        match self {
            Self::Merged { next, .. } => *next = position,
            Self::Partition { partition, .. } => {
                let which = Which::Part(Arc::clone(partition));
                *self = Self::Merged { topics: Arc::new(Topics::new(engine, which)), next: position };
            }
            Self::Stream { .. } => {}
        }
    }

    /// Whether it may come to records of a partition.
    pub(crate) fn takes(&self, other: &Partition) -> bool {
        match self {
            Self::Merged { topics, .. } => topics.takes(other),
            Self::Partition { partition, .. } | Self::Stream { partition, .. } => partition.index == other.index,
        }
    }
}

/// See [`crate::backend::LogBackend::whole_from`].
pub(crate) fn whole_from(engine: &Engine, selection: &Selection) -> Result<(), LogError> {
    let (topics, asked) = match selection {
        Selection::Partition(..) => return Cursor::open(engine, selection.clone()).map(drop),
        Selection::Stream(..) => return Ok(()),
        Selection::Topics(names, asked) => (these(engine, names)?, *asked),
        Selection::All(asked) => (Topics::new(engine, Which::Users), *asked),
    };
    let first = topics.gone.into_values().max().unwrap_or_default();
    if asked < first { Err(LogError::Removed { asked, first }) } else { Ok(()) }
}

fn stream_of(engine: &Engine, topic: &TopicName, stream: &StreamId) -> Result<(Arc<Partition>, StreamKey), LogError> {
    let entry = engine.topics.get(topic)?;
    require_events(&entry, "it has no streams")?;
    let name = stream.as_str().as_bytes();
    let partition = Arc::clone(entry.partition_for(name));
    let key = StreamKey::of(&engine.hasher, &partition, name);
    Ok((partition, key))
}

fn these(engine: &Engine, names: &[TopicName]) -> Result<Topics, LogError> {
    let entries: Result<_, _> = names.iter().map(|name| engine.topics.get(name)).collect();
    Ok(Topics::new(engine, Which::These(entries?)))
}

/// The selection from its first record on that the server recorded at `time` or later; see
/// [`crate::backend::LogBackend::at_time`].
///
/// Server time rises with positions, so that the places of a time are found by search: in the tail group by group, below it by
/// the heads of blocks of `.runs`.
pub(crate) fn at_time(engine: &Engine, selection: Selection, time: Timestamp) -> Result<Selection, LogError> {
    Ok(match selection {
        Selection::Partition(topic, id, _) => {
            let partition = Arc::clone(engine.topics.get(&topic)?.partition(id)?);
            Selection::Partition(topic, id, offset_at(engine, &partition, time)?)
        }
        Selection::Stream(topic, stream, _) => {
            let (partition, key) = stream_of(engine, &topic, &stream)?;
            let version = version_at(engine, &partition, key, time)?;
            Selection::Stream(topic, stream, version)
        }
        Selection::Topics(names, _) => {
            let position = position_at(engine, &these(engine, &names)?, time)?;
            Selection::Topics(names, position)
        }
        Selection::All(_) => Selection::All(position_at(engine, &Topics::new(engine, Which::Users), time)?),
    })
}

fn offset_at(engine: &Engine, partition: &Partition, time: Timestamp) -> Result<Offset, LogError> {
    // The tail first: what it lets go meanwhile is in segments then.
    let found = match engine.tail.offset_at(partition.index, time) {
        Since::Here(offset) => offset,
        Since::HereOrBefore(offset) => match engine.segments(partition) {
            Some(segments) => segments.at_time(time)?.map_or(offset, |(found, _)| found.min(offset)),
            None => offset,
        },
    };
    // Memory may hold for a while what was removed.
    Ok(found.max(engine.low(partition).offset))
}

fn version_at(engine: &Engine, partition: &Partition, key: StreamKey, time: Timestamp) -> Result<StreamVersion, LogError> {
    let offset = offset_at(engine, partition, time)?;
    let behind = engine.standing(partition, &key)?.newest.plus(1);
    // Asked before segments: what they take over meanwhile is found there then.
    let recent = engine.streams.recent_at(&key, offset);
    let below = match engine.segments(partition) {
        Some(segments) => segments.version_at(key.hash, offset)?,
        None => None,
    };
    Ok(below.or(recent).unwrap_or(behind))
}

fn position_at(engine: &Engine, topics: &Topics, time: Timestamp) -> Result<Position, LogError> {
    let mut first = match engine.tail.position_at(time) {
        Since::Here(position) => return Ok(position),
        Since::HereOrBefore(position) => position,
    };
    for partition in engine.topics.partitions().into_iter().filter(|partition| topics.takes(partition)) {
        let Some(segments) = engine.segments(&partition) else { continue };
        if let Some((_, position)) = segments.at_time(time)? {
            first = first.min(position.max(segments.low().position));
        }
    }
    Ok(first)
}
