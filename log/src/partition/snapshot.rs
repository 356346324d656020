//! The snapshot of a stream as of a version or before: found in memory or key indexes, read where it lies.
//!
//! Called by the face of the log for whoever folds a stream. Invariant: a snapshot that is gone is not returned, and one that may lie in
//! what cannot be read is a report. Retention leaves a stream its newest, wherever that lies, and none that lies before both that one and where the
//! partition begins.

use std::sync::Arc;

use super::{group::Frame, streams::StreamKey};
use crate::{
    engine::Engine,
    error::LogError,
    ids::{Offset, StreamVersion},
    life::SnapshotAt,
    partition::below::{lost, segments_of},
    record::{Run, Snapshot, StoredSnapshot},
    segment::Start,
    topic_store::Partition,
};

/// The newest snapshot of a stream as of `at_most` or before.
///
/// # Errors
/// [`LogError::Corrupt`], [`LogError::Io`].
pub(crate) fn find(
    engine: &Engine,
    partition: &Partition,
    key: &StreamKey,
    at_most: StreamVersion,
) -> Result<Option<StoredSnapshot>, LogError> {
    // Known here a moment before it is shown.
    let end = engine.tail.end_of(partition.index);
    let Some((life, newest, recent)) = engine.streams.snapshots(key, at_most, end) else {
        let segments = engine.segments(partition);
        return match segments.as_ref().and_then(|segments| segments.damage()) {
            Some(damage) => Err(damage.report()),
            None => Ok(None),
        };
    };
    let found = if newest.version <= at_most && newest.offset < end {
        Some(newest)
    } else {
        // Before the newest is shown nobody knows what it is that it leaves.
        let from = if newest.offset < end { engine.low(partition).offset.min(newest.offset) } else { Offset::default() };
        let keeps = |at: SnapshotAt| life.keeps(at) && (from..end).contains(&at.offset);
        // Recent ones were asked for before: what segments take over meanwhile is found there then.
        let below = match engine.segments(partition) {
            Some(segments) => segments.snapshot(key.hash, at_most, keeps)?,
            None => None,
        };
        recent.max(below)
    };
    let Some(at) = found else { return Ok(None) };
    match read(engine, partition, at.offset) {
        // It was let go, and removed, a moment ago: there may be another one.
        Err(_) if !is_kept(engine, partition, key, at) => find(engine, partition, key, at_most),
        read => read.map(Some),
    }
}

fn is_kept(engine: &Engine, partition: &Partition, key: &StreamKey, at: SnapshotAt) -> bool {
    let known = engine.streams.snapshots(key, at.version, Offset::default());
    known.is_some_and(|(life, newest, _)| life.keeps(at) && at.offset >= engine.low(partition).offset.min(newest.offset))
}

fn read(engine: &Engine, partition: &Partition, offset: Offset) -> Result<StoredSnapshot, LogError> {
    let run = match in_tail(engine, partition, offset)? {
        Some(run) => run,
        None => {
            let mut reader = segments_of(engine, partition)?.reader_of_all(Start::Offset(offset), false)?;
            reader.next_run(1)?.filter(|run| run.first_offset == offset).ok_or_else(|| lost(engine, partition, offset))?
        }
    };
    stored(&run)?.ok_or_else(|| lost(engine, partition, offset))
}

fn in_tail(engine: &Engine, partition: &Partition, offset: Offset) -> Result<Option<Run>, LogError> {
    let Some((group, slice)) = engine.tail.slices_from(partition.index, offset, 0).into_iter().next() else { return Ok(None) };
    let Some(group) = Frame::default().load(engine, &group)? else { return Ok(None) };
    let Some(slice) = group.slices.get(slice as usize).filter(|slice| slice.base <= offset) else { return Ok(None) };
    let Some(run) = slice.runs.iter().find(|run| run.first_offset == offset) else { return Ok(None) };
    group.cut(slice, run, 0, 1).map(Some)
}

/// The snapshot that a run is; none if it is none.
///
/// # Errors
/// [`LogError::Corrupt`] when its record cannot be read.
pub(crate) fn stored(run: &Run) -> Result<Option<StoredSnapshot>, LogError> {
    let Some(record) = run.records().next().transpose()? else { return Ok(None) };
    let (Some(mark), Some(data)) = (record.mark(), record.snapshot_data()) else { return Ok(None) };
    let snapshot = Snapshot {
        version: mark.mark.version(),
        schema: mark.schema.map(Arc::from),
        content_type: mark.content_type.map(Arc::from),
        data: run.batch.slice_ref(data),
    };
    Ok(Some(StoredSnapshot { snapshot, position: run.first_position, recorded_at: run.recorded_at }))
}
