//! Reading the events that match a query, in either direction, without reading through what lies between.
//!
//! A [`FilteredReader`] sends a reader of everything selected to where postings say that the next match is, and reads on from there for as
//! long as matches lie close together: so a rare tag costs a few pages and its own records, and a frequent one what reading through costs.
//! The newest records are read through without asking. Streams are short and are read through, too. Invariants: what matches is decided by the
//! record's own header, never by postings; what postings lack, because a partition was damaged when they were made, is read through.

use std::sync::Arc;

use super::{asked::Asked, backward::BackwardReader, cursor::Cursor, reader::EmbeddedReader};
use crate::{
    backend::LogReader,
    engine::Engine,
    error::LogError,
    ids::{Offset, Position},
    record::{Chunk, EventQuery, ReadLimits, Run, Scope, Selection},
    topic_store::Partition,
};

/// Most comparisons that reading through the last positions may cost.
const COMPARISONS: u64 = 1 << 20;
/// Most times that one call looks for something that matches, before it says how far it has come.
const ROUNDS: u32 = 64;

/// Reads what matches a query.
#[derive(Debug)]
pub(crate) struct FilteredReader {
    engine: Arc<Engine>,
    asked: Asked,
    inner: Inner,
    /// Records to be read before the next match is asked for: one, and twice as many each time that it was near.
    along: u32,
    /// The partition that it goes through by position, and the offset to which it had come by then.
    of: Option<(Arc<Partition>, Offset)>,
}

#[derive(Debug)]
enum Inner {
    Forwards(EmbeddedReader),
    Backwards(BackwardReader),
}

/// Where the next match is.
enum Next {
    At(Position),
    /// Nothing more matches.
    Nowhere,
    /// Postings need not be asked, or cannot answer.
    ReadThrough,
}

impl FilteredReader {
    /// A reader that goes forwards from the place of `selection`.
    pub(crate) fn forwards(engine: Arc<Engine>, selection: Selection, query: EventQuery) -> Result<Self, LogError> {
        let asked = asked(&engine, &selection, query)?;
        let inner = Inner::Forwards(EmbeddedReader::open(Arc::clone(&engine), selection)?);
        Ok(Self { engine, asked, inner, along: 1, of: None })
    }

    /// A reader that goes backwards from the place of `selection`.
    pub(crate) fn backwards(engine: Arc<Engine>, selection: Selection, query: EventQuery) -> Result<Self, LogError> {
        let asked = asked(&engine, &selection, query)?;
        let inner = Inner::Backwards(BackwardReader::open(Arc::clone(&engine), selection)?);
        Ok(Self { engine, asked, inner, along: 1, of: None })
    }

    /// Reads from the next match on, at most as much as `limits` say, and takes what matches.
    fn round(&mut self, until: Position, limits: ReadLimits) -> Result<Chunk, LogError> {
        if let Cursor::Partition { partition, next } = self.inner.cursor() {
            self.of = Some((Arc::clone(partition), *next));
            // Its offset tells the position, by which it goes on.
            let first = self.inner.read(until, ReadLimits { records: 1, ..limits })?;
            let Some(run) = first.runs.first() else { return Ok(first) };
            let place = self.inner.before(run);
            self.inner.cursor_mut().seek(&self.engine, place);
            return Ok(Chunk { scanned_to: place, ..Chunk::default() });
        }
        let records = match self.next(until) {
            Next::Nowhere => {
                let end = self.inner.last(until);
                self.inner.cursor_mut().seek(&self.engine, end);
                return Ok(Chunk { scanned_to: end, ..Chunk::default() });
            }
            Next::At(position) => {
                self.inner.cursor_mut().seek(&self.engine, position);
                self.along
            }
            Next::ReadThrough => u32::MAX,
        };
        let before = self.inner.cursor().clone();
        let found = self.inner.read(until, ReadLimits { records: records.min(limits.records), ..limits })?;
        let is_backward = matches!(self.inner, Inner::Backwards(_));
        // What cannot be read is not passed over.
        found.matching(&self.asked.query, is_backward).inspect_err(|_| *self.inner.cursor_mut() = before)
    }

    /// Asks for the next match, and decides how much is read from there.
    fn next(&mut self, until: Position) -> Next {
        let Some(place) = self.inner.cursor().position() else { return Next::ReadThrough };
        if self.inner.distance(place, self.inner.last(until)) <= self.last_positions() {
            return Next::ReadThrough;
        }
        let asked = &self.asked;
        let found = self.engine.ask_postings(|postings| match &self.inner {
            Inner::Forwards(_) => postings.first(asked.terms(), place, until),
            Inner::Backwards(_) => Ok(postings.last(asked.terms(), place.min(until))?.map(|found| found.plus(1))),
        });
        // Damage in what is selected is met on the way; any other has no say here.
        let Ok(found) = found else { return Next::ReadThrough };
        let is_damaged = || asked.partitions().iter().any(|one| one.damage.get().is_some() && self.inner.cursor().takes(one));
        if self.engine.postings.may_lack_something() && is_damaged() || asked.is_behind(&self.engine.topics) {
            return Next::ReadThrough;
        }
        let Some(found) = found else { return Next::Nowhere };
        let is_near = self.inner.distance(place, found) <= self.engine.config.near_positions;
        self.along = if is_near { self.along.saturating_mul(2) } else { 1 };
        Next::At(found)
    }

    /// Whoever reads a partition is told by offset what was removed of it.
    fn of_partition(&self, error: LogError) -> LogError {
        let of = self.of.as_ref().filter(|_| matches!(error, LogError::Removed { .. }));
        let segments = of.and_then(|(partition, offset)| Some((self.engine.segments(partition)?, *offset)));
        segments.map_or(error, |(segments, offset)| segments.removed(offset))
    }

    /// As many of the last positions as are read through without asking.
    fn last_positions(&self) -> u64 {
        let most = COMPARISONS / self.asked.combinations().max(1) as u64;
        self.engine.config.near_positions.saturating_mul(8).min(most)
    }
}

/// What is asked of the topics of a selection.
fn asked(engine: &Engine, selection: &Selection, query: EventQuery) -> Result<Asked, LogError> {
    let scope = match selection {
        Selection::Partition(topic, ..) | Selection::Stream(topic, ..) => Scope::Topics(vec![topic.clone()]),
        Selection::Topics(topics, _) => Scope::Topics(topics.clone()),
        Selection::All(_) => Scope::Everything,
    };
    Asked::new(query, scope, &engine.topics, &engine.hasher)
}

impl Inner {
    const fn cursor(&self) -> &Cursor {
        match self {
            Self::Forwards(reader) => &reader.cursor,
            Self::Backwards(reader) => &reader.cursor,
        }
    }

    const fn cursor_mut(&mut self) -> &mut Cursor {
        match self {
            Self::Forwards(reader) => &mut reader.cursor,
            Self::Backwards(reader) => &mut reader.cursor,
        }
    }

    fn read(&mut self, until: Position, limits: ReadLimits) -> Result<Chunk, LogError> {
        match self {
            Self::Forwards(reader) => reader.read(until, limits),
            Self::Backwards(reader) => reader.read(until, limits),
        }
    }

    fn in_memory(&self) -> bool {
        match self {
            Self::Forwards(reader) => reader.in_memory(),
            Self::Backwards(reader) => reader.in_memory(),
        }
    }

    /// The place from which a run comes next.
    const fn before(&self, run: &Run) -> Position {
        match self {
            Self::Forwards(_) => run.first_position,
            Self::Backwards(_) => run.end_position(),
        }
    }

    /// The place behind which nothing is left.
    const fn last(&self, until: Position) -> Position {
        match self {
            Self::Forwards(_) => until,
            Self::Backwards(_) => Position::new(0),
        }
    }

    /// Positions from a place to another one further on.
    const fn distance(&self, place: Position, further: Position) -> u64 {
        match self {
            Self::Forwards(_) => further.get().saturating_sub(place.get()),
            Self::Backwards(_) => place.get().saturating_sub(further.get()),
        }
    }
}

impl LogReader for FilteredReader {
    fn read(&mut self, until: Position, limits: ReadLimits) -> Result<Chunk, LogError> {
        self.inner.cursor().present()?;
        let until = until.min(self.engine.tail.end());
        if self.asked.is_behind(&self.engine.topics) {
            // Where that are too many by now, it is read through.
            let _ = self.asked.renew(&self.engine.topics, &self.engine.hasher);
        }
        let must_be_in_memory = self.in_memory();
        let mut chunk = Chunk::default();
        let (mut records, mut bytes) = (0, 0);
        for round in 0..ROUNDS {
            let is_full = records >= limits.records || bytes >= limits.bytes as usize;
            if round > 0 && (is_full || must_be_in_memory && !self.in_memory()) {
                break;
            }
            let found = match self.round(until, ReadLimits { records: limits.records - records, ..limits }) {
                Ok(found) => found,
                // What was found before is returned first, and the next call meets it again.
                Err(_) if !chunk.runs.is_empty() => break,
                Err(error) => return Err(self.of_partition(error)),
            };
            records += found.runs.iter().map(|run| run.count).sum::<u32>();
            bytes += held(&found.runs);
            chunk.runs.extend(found.runs);
            (chunk.scanned_to, chunk.beginning) = (found.scanned_to, found.beginning);
            if chunk.scanned_to == self.inner.last(until) {
                break;
            }
        }
        Ok(chunk)
    }

    fn in_memory(&self) -> bool {
        let end = self.engine.tail.end();
        self.inner.in_memory()
            && self.inner.cursor().position().is_none_or(|place| {
                let knows = matches!(self.inner, Inner::Forwards(_)) && place >= self.engine.postings.recent.floor();
                knows || self.inner.distance(place, self.inner.last(end)) <= self.last_positions()
            })
    }
}

/// Bytes of batches that runs keep in memory.
fn held(runs: &[Run]) -> usize {
    let (mut bytes, mut last) = (0, std::ptr::null());
    for run in runs {
        bytes += if run.batch.as_ptr() == last { 0 } else { run.batch.len() };
        last = run.batch.as_ptr();
    }
    bytes
}
