//! Where a group's events come from: read ahead for their places, and looked up again when they are delivered.
//!
//! Called by [`super::runner`] and the doors. Holds no payload longer than a message takes to be made: deliveries are references until
//! their member takes them.

use std::{hash::Hasher as _, sync::Arc};

use foldlog_log::{
    Chunk, EventQuery, LogBackend, LogError, LogReader, Offset, PartitionId, Position, ReadLimits, Run, Selection, TopicName,
};
use siphasher::sip::SipHasher13;
use tokio::sync::Semaphore;

use super::delivery::{At, Known};
use crate::failure::{Failure, Kind};

/// How much is read at once.
const READ: ReadLimits = ReadLimits { records: 1_000, bytes: 256 << 10 };

/// A topic that groups read.
#[derive(Clone)]
pub struct Source {
    /// The log.
    pub log: Arc<dyn LogBackend>,
    /// The topic.
    pub topic: TopicName,
    /// Places for reads of files.
    pub file_reads: Arc<Semaphore>,
}

impl Source {
    fn reader(&self, at: At, filter: Option<&EventQuery>) -> Result<Box<dyn LogReader>, LogError> {
        let selection = Selection::Partition(self.topic.clone(), PartitionId::new(at.0), Offset::new(at.1));
        match filter {
            None => self.log.reader(selection),
            Some(query) => self.log.filtered_reader(selection, query.clone()),
        }
    }

    /// Reads in place where that needs no file, else on the blocking pool. Not cancel-safe.
    async fn read(
        &self,
        mut reader: Box<dyn LogReader>,
        until: Position,
        limits: ReadLimits,
    ) -> Result<(Box<dyn LogReader>, Result<Chunk, LogError>), Failure> {
        if reader.in_memory() {
            let chunk = reader.read(until, limits);
            return Ok((reader, chunk));
        }
        let place = self.file_reads.acquire().await.map_err(|_| Failure::draining())?;
        let read = tokio::task::spawn_blocking(move || {
            let chunk = reader.read(until, limits);
            (reader, chunk)
        });
        let (reader, chunk) = read.await.map_err(|_| Failure::new(Kind::Internal, "READ_FAILED", "the read was interrupted"))?;
        drop(place);
        Ok((reader, chunk))
    }

    /// The place and key of one event; none if it is not there any more.
    pub async fn known(&self, at: At) -> Result<Option<Known>, Failure> {
        let mut lookup = Lookup::new(self.clone());
        let run = lookup.run(at, 1).await?;
        Ok(run.map(|run| places(&[run])).transpose()?.and_then(|known| known.first().copied()))
    }
}

/// Reads one partition ahead of its deliveries, and of it what a filter means.
#[derive(Default)]
pub struct Ahead {
    reader: Option<(u64, Box<dyn LogReader>)>,
    /// Whether what is read comes from memory.
    pub live: bool,
}

/// What was read.
#[derive(Debug)]
pub struct Read {
    /// Events, in order.
    pub known: Vec<Known>,
    /// Everything below it was read.
    pub end: u64,
    /// What lay there was removed.
    pub is_removed: bool,
}

impl Read {
    const fn removed(first: Offset) -> Self {
        Self { known: Vec::new(), end: first.get(), is_removed: true }
    }
}

impl Ahead {
    /// Gives up what is held.
    pub fn rest(&mut self) {
        self.reader = None;
    }

    /// Whether the next read needs files although the one before did not.
    pub fn falls_behind(&mut self) -> bool {
        let falls = self.live && self.reader.as_ref().is_some_and(|(_, reader)| !reader.in_memory());
        self.live &= !falls;
        falls
    }

    /// Reads at most so many events of a partition from `from` up to its `end`, both of which the log has shown. Not cancel-safe.
    ///
    /// # Errors
    /// Whatever the log says; the next call begins anew.
    pub async fn read(
        &mut self,
        source: &Source,
        filter: Option<&EventQuery>,
        partition: u32,
        (from, end): (u64, u64),
        most: u32,
    ) -> Result<Read, Failure> {
        let reader = match self.reader.take().filter(|(at, _)| *at == from) {
            Some((_, reader)) => reader,
            None => match source.reader((partition, from), filter) {
                Ok(reader) => reader,
                // Retention was faster.
                Err(LogError::OffsetOutOfRange { first, .. }) if first.get() > from => return Ok(Read::removed(first)),
                Err(error) => return Err(error.into()),
            },
        };
        let until = source.log.head().position;
        let (reader, chunk) = source.read(reader, until, ReadLimits { records: most.min(READ.records), ..READ }).await?;
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(LogError::OffsetOutOfRange { first, .. }) if first.get() > from => return Ok(Read::removed(first)),
            Err(error) => return Err(error.into()),
        };
        let known = places(&chunk.runs)?;
        let end = match chunk.runs.last() {
            Some(last) => last.first_offset.get() + u64::from(last.count),
            // With nothing left, what lies before the end is nothing for readers.
            None if chunk.scanned_to >= until => end,
            // A filter that lets nothing through for long: the reader knows how far it has come.
            None => from,
        };
        self.reader = Some((end, reader));
        Ok(Read { known, end, is_removed: false })
    }
}

/// Looks events up that are delivered: those of a partition in order cost one read together.
pub struct Lookup {
    source: Source,
    /// What the last read brought and is not behind us.
    read: Vec<(u32, Run)>,
}

impl Lookup {
    /// Looks up in this topic.
    pub const fn new(source: Source) -> Self {
        Self { source, read: Vec::new() }
    }

    /// A run of one record: the event there; none if it is not there any more. `ahead` is how many may be asked for behind it. Not cancel-safe.
    ///
    /// # Errors
    /// Whatever the log says.
    pub async fn run(&mut self, at: At, ahead: u32) -> Result<Option<Run>, Failure> {
        if let Some(found) = self.take(at)? {
            return Ok(Some(found));
        }
        self.read.clear();
        let reader = match self.source.reader(at, None) {
            Ok(reader) => reader,
            Err(LogError::OffsetOutOfRange { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let until = self.source.log.head().position;
        let limits = ReadLimits { records: ahead.clamp(1, READ.records), ..READ };
        let (_, chunk) = self.source.read(reader, until, limits).await?;
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(LogError::OffsetOutOfRange { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        self.read = chunk.runs.into_iter().map(|run| (at.0, run)).collect();
        self.take(at)
    }

    /// Forgets what was read.
    pub fn rest(&mut self) {
        self.read = Vec::new();
    }

    fn take(&mut self, (partition, offset): At) -> Result<Option<Run>, Failure> {
        let holds = |(of, run): &(u32, Run)| {
            let first = run.first_offset.get();
            *of == partition && (first..first + u64::from(run.count)).contains(&offset)
        };
        let Some(place) = self.read.iter().position(holds) else { return Ok(None) };
        self.read.drain(..place);
        let Some((_, run)) = self.read.first_mut() else { return Ok(None) };
        let skip = u32::try_from(offset - run.first_offset.get()).unwrap_or(u32::MAX);
        let found = run.part(skip, 1)?;
        // The next one that is asked for lies behind it: nothing is followed twice.
        let left = run.count - skip - 1;
        if left > 0 {
            *run = run.part(skip + 1, left)?;
        } else {
            self.read.remove(0);
        }
        Ok(Some(found))
    }
}

fn places(runs: &[Run]) -> Result<Vec<Known>, LogError> {
    let mut known = Vec::new();
    for run in runs {
        for record in run.records() {
            let record = record?;
            let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
            known.push(Known {
                offset: record.offset.get(),
                key: record.key.map(hash),
                bytes: u32::try_from(length(record.key) + length(record.value)).unwrap_or(u32::MAX),
                recorded_at: run.recorded_at,
            });
        }
    }
    Ok(known)
}

/// Two keys with one hash wait for each other, and nothing else happens.
fn hash(key: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(key);
    hasher.finish()
}
