//! A group in memory: what one frame holds, so laid out that readers share its bytes.
//!
//! The committer builds it, the tail keeps it, readers take [`Run`]s out of it, tidy copies it into segments.

use std::sync::Arc;

use bytes::Bytes;

use super::streams::{StreamMark, StreamSpan};
use crate::{
    batch,
    engine::Engine,
    error::LogError,
    ids::{Offset, PartitionId, Position, Timestamp, TopicId},
    journal::{
        file::FramePlace,
        frame::{FrameBody, FrameHeader, Replacement},
    },
    record::Run,
    topic_store::Partition,
};

/// Records of a slice that are contiguous in offset and position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SliceRun {
    pub(crate) first_offset: Offset,
    pub(crate) first_position: Position,
    pub(crate) count: u32,
    /// Byte place of the first in the batch.
    pub(crate) start: u32,
}

impl SliceRun {
    pub(crate) const fn end_offset(&self) -> Offset {
        self.first_offset.plus(self.count as u64)
    }

    pub(crate) const fn end_position(&self) -> Position {
        self.first_position.plus(self.count as u64)
    }
}

/// What a group holds of one partition.
#[derive(Clone, Debug)]
pub(crate) struct Slice {
    pub(crate) partition: Arc<Partition>,
    pub(crate) base: Offset,
    pub(crate) count: u32,
    /// By offset; empty when the group is not in memory.
    pub(crate) runs: Vec<SliceRun>,
    pub(crate) batch: Bytes,
}

impl Slice {
    pub(crate) const fn end(&self) -> Offset {
        self.base.plus(self.count as u64)
    }
}

/// Segments of a partition are replaced.
#[derive(Clone, Debug)]
pub(crate) struct Switch {
    pub(crate) partition: Arc<Partition>,
    pub(crate) by: Replacement,
}

/// The units that share a frame.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) number: u64,
    /// Checksum of the frame's header, for the checkpoint.
    pub(crate) frame_crc: u32,
    pub(crate) place: FramePlace,
    pub(crate) first: Position,
    pub(crate) end: Position,
    pub(crate) time: Timestamp,
    pub(crate) slices: Vec<Slice>,
    /// Places of runs (slice, run) in order of position; empty when the group is not in memory.
    pub(crate) order: Vec<(u32, u32)>,
    /// Shared with the same group unloaded.
    pub(crate) spans: Arc<[StreamSpan]>,
    /// Of streams.
    pub(crate) marks: Vec<StreamMark>,
    /// Window entries as encoded.
    pub(crate) entries: Bytes,
    pub(crate) switches: Vec<Switch>,
    /// Whether the batches are here.
    pub(crate) loaded: bool,
}

impl Group {
    /// Bytes of memory that unloading it gives back.
    pub(crate) fn memory(&self) -> u64 {
        if !self.loaded {
            return 0;
        }
        let runs: usize = self.slices.iter().map(|slice| slice.batch.len() + slice.runs.len() * 32 + 96).sum();
        runs as u64
    }

    /// The same without what can be read from the journal again.
    pub(crate) fn unloaded(&self) -> Self {
        let slice = |slice: &Slice| Slice {
            partition: Arc::clone(&slice.partition),
            base: slice.base,
            count: slice.count,
            runs: Vec::new(),
            batch: Bytes::new(),
        };
        Self {
            slices: self.slices.iter().map(slice).collect(),
            order: Vec::new(),
            spans: Arc::clone(&self.spans),
            marks: self.marks.clone(),
            entries: self.entries.clone(),
            switches: self.switches.clone(),
            loaded: false,
            ..*self
        }
    }

    /// What a frame holds, once its partitions are known; `None` if one is not.
    pub(crate) fn from_frame(
        header: &FrameHeader,
        place: FramePlace,
        body: FrameBody,
        mut partition: impl FnMut(TopicId, PartitionId) -> Option<Arc<Partition>>,
    ) -> Option<Self> {
        let mut slices = Vec::with_capacity(body.slices.len());
        for slice in body.slices {
            let partition = partition(slice.topic, slice.partition)?;
            let mut offset = slice.base;
            let mut runs = Vec::with_capacity(slice.runs.len());
            for run in &slice.runs {
                let first_position = header.first.plus(u64::from(run.position_delta));
                runs.push(SliceRun { first_offset: offset, first_position, count: run.count, start: run.start });
                offset = offset.plus(u64::from(run.count));
            }
            slices.push(Slice { partition, base: slice.base, count: slice.count, runs, batch: slice.batch });
        }
        let mut switches = Vec::with_capacity(body.switches.len());
        for switch in body.switches {
            switches.push(Switch { partition: partition(switch.topic, switch.partition)?, by: switch.by });
        }
        Some(Self {
            number: header.number,
            frame_crc: header.crc,
            place,
            first: header.first,
            end: header.end(),
            time: header.time,
            order: order_of(&slices),
            slices,
            spans: Arc::default(),
            marks: Vec::new(),
            // A copy: a part of the frame would keep all of it in memory.
            entries: Bytes::copy_from_slice(&body.entries),
            switches,
            loaded: true,
        })
    }

    /// The run at a place of `order`, whole.
    pub(crate) fn run(&self, slice: u32, run: u32) -> Option<(&Slice, &SliceRun)> {
        let slice = self.slices.get(slice as usize)?;
        Some((slice, slice.runs.get(run as usize)?))
    }

    /// Part of a run: `count` records from the one `skip` records in.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] when the batch cannot be followed that far.
    pub(crate) fn cut(&self, slice: &Slice, run: &SliceRun, skip: u32, count: u32) -> Result<Run, LogError> {
        let start = if skip == 0 {
            run.start
        } else {
            batch::skip(&slice.batch, run.start, skip).map_err(|flaw| LogError::Corrupt {
                file: format!("journal frame {}", self.number).into(),
                from: flaw.at as u64,
                end: slice.batch.len() as u64,
                what: flaw.what.into(),
            })?
        };
        Ok(Run {
            topic: Arc::clone(&slice.partition.topic),
            partition: slice.partition.id,
            first_offset: run.first_offset.plus(u64::from(skip)),
            first_position: run.first_position.plus(u64::from(skip)),
            count,
            recorded_at: self.time,
            batch: slice.batch.clone(),
            start,
        })
    }
}

/// A span as a run: its own part of the one it lies in.
pub(crate) fn run_of(slice: &Slice, span: &StreamSpan) -> Option<SliceRun> {
    let run = slice.runs.get(slice.runs.partition_point(|run| run.end_offset() <= span.offset))?;
    let skip = span.offset.get().checked_sub(run.first_offset.get())?;
    Some(SliceRun { first_offset: span.offset, first_position: run.first_position.plus(skip), count: span.count, start: span.start })
}

/// The frame that a reader read last from the journal, so that its further runs cost nothing.
#[derive(Debug, Default)]
pub(crate) struct Frame(Option<Arc<Group>>);

impl Frame {
    /// The group with its batches, from the journal if need be; none if segments hold it by now.
    ///
    /// # Errors
    /// [`LogError::Corrupt`], [`LogError::Io`].
    pub(crate) fn load(&mut self, engine: &Engine, group: &Arc<Group>) -> Result<Option<Arc<Group>>, LogError> {
        if group.loaded {
            return Ok(Some(Arc::clone(group)));
        }
        if self.0.as_ref().is_none_or(|loaded| loaded.number != group.number) {
            self.0 = engine.load(group)?.map(Arc::new);
        }
        Ok(self.0.clone())
    }
}

/// Places of all runs in order of position.
pub(crate) fn order_of(slices: &[Slice]) -> Vec<(u32, u32)> {
    let mut order = Vec::with_capacity(slices.iter().map(|slice| slice.runs.len()).sum());
    for (slice, at) in slices.iter().zip(0_u32..) {
        order.extend(slice.runs.iter().zip(0_u32..).map(|(run, place)| (run.first_position, at, place)));
    }
    if slices.len() > 1 {
        order.sort_unstable();
    }
    order.into_iter().map(|(_, slice, run)| (slice, run)).collect()
}
