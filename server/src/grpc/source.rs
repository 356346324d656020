//! What a read or a subscription asks for: which events, from where, in which direction.
//!
//! From the messages of `foldlog.v1` to a [`Selection`], a filter and the reader of both; malformed input ends here.

use foldlog_log::{EventQuery, LogBackend, LogError, LogReader, Offset, PartitionId, Position, Selection, StreamVersion, Timestamp};
use foldlog_proto::v1 as pb;
use prost_types::Timestamp as ProtoTimestamp;

use super::convert::{event_query, stream, time, topic};
use crate::failure::Failure;

/// Where a read begins: the four kinds of source that reads and subscriptions share.
pub enum Source {
    /// One stream.
    Stream(pb::StreamRange),
    /// One partition.
    Partition(pb::PartitionRange),
    /// One topic.
    Topic(pb::TopicRange),
    /// Everything.
    All(pb::AllRange),
}

macro_rules! source_from {
    ($($module:ident)*) => {$(
        impl From<pb::$module::Source> for Source {
            fn from(source: pb::$module::Source) -> Self {
                match source {
                    pb::$module::Source::Stream(range) => Self::Stream(range),
                    pb::$module::Source::Partition(range) => Self::Partition(range),
                    pb::$module::Source::Topic(range) => Self::Topic(range),
                    pb::$module::Source::All(range) => Self::All(range),
                }
            }
        }
    )*};
}
source_from!(read_request subscribe_request);

impl Source {
    /// The version, offset or position that the source says to begin with.
    pub fn begins_at(&self) -> Option<u64> {
        match self {
            Self::Stream(range) => range.from_version,
            Self::Partition(range) => range.from_offset,
            Self::Topic(range) => range.from_position,
            Self::All(range) => range.from_position,
        }
    }

    /// The selection that begins where the source says, or at the beginning.
    pub fn selection(self) -> Result<Selection, Failure> {
        Ok(match self {
            Self::Stream(range) => Selection::Stream(
                topic(&range.topic, || "stream.topic".to_owned())?,
                stream(&range.stream, || "stream.stream".to_owned())?,
                StreamVersion::new(range.from_version.unwrap_or(1).max(1)),
            ),
            Self::Partition(range) => Selection::Partition(
                topic(&range.topic, || "partition.topic".to_owned())?,
                PartitionId::new(range.partition),
                Offset::new(range.from_offset.unwrap_or(0)),
            ),
            Self::Topic(range) => {
                let topic = topic(&range.topic, || "topic.topic".to_owned())?;
                Selection::Topics(vec![topic], Position::new(range.from_position.unwrap_or(0)))
            }
            Self::All(range) => Selection::All(Position::new(range.from_position.unwrap_or(0))),
        })
    }
}

/// Which way a read goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The oldest first.
    Forwards,
    /// The newest first.
    Backwards,
}

impl Direction {
    /// The direction with a number in `v1.Direction`.
    pub fn of(number: i32) -> Result<Self, Failure> {
        match pb::Direction::try_from(number) {
            Ok(pb::Direction::Unspecified | pb::Direction::Forwards) => Ok(Self::Forwards),
            Ok(pb::Direction::Backwards) => Ok(Self::Backwards),
            Err(unknown) => Err(Failure::invalid("direction", format_args!("{} is no direction", unknown.0))),
        }
    }
}

/// The filter of a read or a subscription, if it has one.
pub fn filter(given: Option<pb::EventQuery>) -> Result<Option<EventQuery>, Failure> {
    given.map(|given| event_query(given, |part| format!("filter.{part}"))).transpose()
}

/// A reader of what a filter leaves of a selection.
pub fn reader(
    log: &dyn LogBackend,
    selection: Selection,
    filter: Option<EventQuery>,
    direction: Direction,
) -> Result<Box<dyn LogReader>, Failure> {
    let reader = match (filter, direction) {
        (None, Direction::Forwards) => log.reader(selection),
        (None, Direction::Backwards) => log.backward_reader(selection),
        (Some(query), Direction::Forwards) => log.filtered_reader(selection, query),
        (Some(query), Direction::Backwards) => log.filtered_backward_reader(selection, query),
    };
    reader.map_err(|error| match error {
        LogError::Invalid { field, reason } if field == "query" => Failure::invalid("filter", reason),
        other => other.into(),
    })
}

/// A time to begin at, to the millisecond: forwards the first that is not before it, backwards the first that is behind it, from
/// where everything at or before the given one lies backwards.
pub fn from_time(given: ProtoTimestamp, direction: Direction) -> Result<Timestamp, Failure> {
    let has_rest = given.nanos % 1_000_000 > 0;
    let floor = time(given, || "from_time".to_owned())?;
    let next = direction == Direction::Backwards || has_rest;
    Ok(if next { Timestamp::new(floor.get() + 1) } else { floor })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_begin_at_leaves_nothing_out_and_takes_nothing_too_much() {
        let at = |nanos, direction| from_time(ProtoTimestamp { seconds: 1, nanos }, direction).unwrap().get();
        assert_eq!([at(5_000_000, Direction::Forwards), at(5_000_001, Direction::Forwards)], [1_005, 1_006]);
        assert_eq!([at(5_000_000, Direction::Backwards), at(5_999_999, Direction::Backwards)], [1_006, 1_006]);
        let bad = ProtoTimestamp { seconds: 0, nanos: -1 };
        assert_eq!(from_time(bad, Direction::Forwards).unwrap_err().reason, "INVALID_REQUEST");
    }
}
