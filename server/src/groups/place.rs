//! Where a group begins, as offsets of the partitions. Called when a group is created or reset; may read files (blocking).

use foldlog_log::{LogBackend, LogError, Offset, PartitionId, Position, ReadLimits, Selection, Timestamp, Topic};

use super::config::Place;

/// The first offset of each partition that belongs to a group which begins at `place`.
///
/// # Errors
/// [`LogError::PositionOutOfRange`]; whatever the log says.
pub fn starts(log: &dyn LogBackend, topic: &Topic, place: Place) -> Result<Vec<u64>, LogError> {
    let ends = log.ends(&topic.name)?;
    match place {
        Place::Beginning => Ok(log.firsts(&topic.name)?.into_iter().map(Offset::get).collect()),
        Place::End => Ok(ends.into_iter().map(Offset::get).collect()),
        Place::Time(time) => ends.iter().enumerate().map(|(partition, _)| at_time(log, topic, partition, time)).collect(),
        Place::Position(position) => {
            let until = log.head().position;
            let mut reader = log.reader(Selection::Topics(vec![topic.name.clone()], position))?;
            let first = reader.read(until, ReadLimits { records: 1, bytes: 1 })?;
            // The server's time is a place in every partition; behind it no more has to be looked through than was recorded in that moment.
            let Some(first) = first.runs.first() else { return Ok(ends.into_iter().map(Offset::get).collect()) };
            let from = |(partition, end): (usize, Offset)| {
                let from = at_time(log, topic, partition, first.recorded_at)?;
                at_position(log, topic, partition, from, position, until).map(|found| found.unwrap_or_else(|| end.get().max(from)))
            };
            ends.into_iter().enumerate().map(from).collect()
        }
    }
}

fn selection(topic: &Topic, partition: usize, offset: u64) -> Selection {
    let partition = PartitionId::new(u32::try_from(partition).unwrap_or(u32::MAX));
    Selection::Partition(topic.name.clone(), partition, Offset::new(offset))
}

fn at_time(log: &dyn LogBackend, topic: &Topic, partition: usize, time: Timestamp) -> Result<u64, LogError> {
    match log.at_time(selection(topic, partition, 0), time)? {
        Selection::Partition(_, _, offset) => Ok(offset.get()),
        // The same selection with another place is a partition again.
        Selection::Stream(..) | Selection::Topics(..) | Selection::All(_) => Ok(0),
    }
}

/// The first offset from `from` on at `position` or behind it.
fn at_position(
    log: &dyn LogBackend,
    topic: &Topic,
    partition: usize,
    from: u64,
    position: Position,
    until: Position,
) -> Result<Option<u64>, LogError> {
    let mut reader = log.reader(selection(topic, partition, from))?;
    loop {
        let chunk = reader.read(until, ReadLimits::default())?;
        if let Some(run) = chunk.runs.iter().find(|run| run.end_position() > position) {
            return Ok(Some(run.first_offset.get() + position.get().saturating_sub(run.first_position.get())));
        }
        if chunk.runs.is_empty() {
            return Ok(None);
        }
    }
}
