//! Where in topics of events enough may go, and the judge of a pass there.
//!
//! A [`super::pass`] asks [`Looks`] what is due: key indexes are read, and only where lives have changed since. Invariants: only events and
//! marks of segments that a durable checkpoint holds, and that nobody holds, are judged; what came later is asked of postings, which know
//! it exactly.

use std::{sync::Arc, time::Duration};

use hashbrown::HashMap;

use super::lives::{self, Count, Counted, LongAgo};
use crate::{
    batch::{EventView, HEADER_LEN, StoredRecords},
    engine::Engine,
    error::LogError,
    ids::{Offset, Position, Timestamp, TopicId},
    life::Standing,
    partition::streams::StreamKey,
    postings::{Term, term_of},
    segment::{Fate, Segments, Source, StreamHasher, WholeBatch},
    topic::TopicKind,
    topic_store::Partition,
};

/// Combinations of type and tags of which it is remembered what came last; beyond, they are asked for anew.
const MOST_TERMS: usize = 65_536;
/// What is left alone is looked at again after so small a part of the time in which it is to go.
const PARTS: u64 = 24;

/// When each partition was looked at.
#[derive(Debug, Default)]
pub(super) struct Looks(HashMap<usize, Look>);

/// What was found when a partition was looked at.
#[derive(Clone, Copy, Debug)]
struct Look {
    at: Timestamp,
    /// How much lives had let go by then.
    let_go: u64,
    /// Where its sealed segments ended, and how far they were held.
    sealed_to: Offset,
    held: Option<Position>,
    counted: Counted,
}

impl Look {
    /// Whether it might be found otherwise by now.
    fn is_over(&self, let_go: u64, sealed_to: Offset, held: Option<Position>, now: Timestamp, after: Duration) -> bool {
        let has_more = let_go.saturating_sub(self.let_go) > self.counted.records / 16;
        let again = u64::try_from(after.as_millis()).unwrap_or(u64::MAX) / PARTS;
        let is_late = self.counted.let_go > 0 && now.get().saturating_sub(self.at.get()) >= i64::try_from(again).unwrap_or(i64::MAX);
        has_more || sealed_to != self.sealed_to || held != self.held || is_late
    }
}

/// What a pass is due for.
type Due = (Arc<Partition>, Arc<Segments>, Vec<Source>);

impl Looks {
    /// The first partition of a topic of events in which enough may go, with the segments in which it may, the oldest first.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub(super) fn due(&mut self, engine: &Engine, now: Option<Timestamp>) -> Result<Option<Due>, LogError> {
        let events = engine.topics.partitions().into_iter().filter(|partition| partition.topic.settings.kind == TopicKind::Events);
        for partition in events.filter(|partition| partition.damage.get().is_none()) {
            let let_go = engine.streams.let_go(index(&partition));
            let Some(segments) = engine.segments(&partition).filter(|_| let_go > 0) else { continue };
            match self.look(engine, &partition, &segments, let_go, now) {
                Err(error) if engine.note_damage(&error) => {}
                found => {
                    let sources = found?;
                    if !sources.is_empty() {
                        return Ok(Some((partition, segments, sources)));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Looks at a partition, unless nothing has happened since it was done.
    fn look(
        &mut self,
        engine: &Engine,
        partition: &Arc<Partition>,
        segments: &Segments,
        let_go: u64,
        now: Option<Timestamp>,
    ) -> Result<Vec<Source>, LogError> {
        let mut sources = segments.sources()?;
        let held = engine.holds.lock().from(&partition.topic.name);
        let sealed_to = sources.last().map_or(Offset::default(), |source| source.about.end);
        let after = Duration::from_secs(engine.config.removal_after_hours.saturating_mul(3600));
        let at = engine.time.now();
        if self.0.get(&partition.index).is_some_and(|look| !look.is_over(let_go, sealed_to, held, at, after)) {
            return Ok(Vec::new());
        }
        let aged = match now.map(|now| now.get().saturating_sub_unsigned(u64::try_from(after.as_millis()).unwrap_or(u64::MAX))) {
            Some(aged) => segments.at_time(Timestamp::new(aged.saturating_add(1)))?.map_or(segments.end(), |(offset, _)| offset),
            // How long ago something was recorded is told by a clock that is believed alone.
            None => Offset::default(),
        };
        sources.retain(|source| held.is_none_or(|held| source.about.end_position <= held));
        let (mut all, mut bytes, mut long_ago) = (Counted::default(), 0, LongAgo::default());
        let mut due = Vec::with_capacity(sources.len());
        for source in sources.iter().rev() {
            let life_of = |hash| engine.streams.standing(&StreamKey { partition: index(partition), hash }).life;
            let begin = || Count::new(life_of, aged, long_ago.clone());
            let (counted, told) = segments.fold_entries(source, begin, Count::take)?.finish();
            long_ago = told;
            all.records += counted.records;
            all.let_go += counted.let_go;
            bytes += counted.bytes(source.about.bytes);
            due.push(counted.is_due(engine.config.removal_percent));
        }
        due.reverse();
        take_along(&mut due, |place| {
            sources.get(place).is_some_and(|source| source.about.bytes <= engine.layout(partition).max_log_bytes / 2)
        });
        let sources: Vec<_> = sources.into_iter().zip(&due).filter(|(_, is_due)| **is_due).map(|(source, _)| source).collect();
        engine.compacting.looked_at((partition.topic.id, partition.id), bytes);
        // When what is due was done one looks again.
        self.0.remove(&partition.index);
        if sources.is_empty() {
            self.0.insert(partition.index, Look { at, let_go, sealed_to, held, counted: all });
        }
        Ok(sources)
    }
}

/// Takes small segments along that lie beside one that is due, or beside such: so what was left of many becomes one, and blanks go that others
/// have replaced since.
fn take_along(due: &mut [bool], is_small: impl Fn(usize) -> bool) {
    for place in 1..due.len() {
        due[place] |= due[place - 1] && is_small(place);
    }
    for place in (1..due.len()).rev() {
        due[place - 1] |= due[place] && is_small(place - 1);
    }
}

fn index(partition: &Partition) -> u32 {
    u32::try_from(partition.index).unwrap_or(u32::MAX)
}

/// Judges the records of a partition.
#[derive(Debug)]
pub(super) struct Removal {
    topic: TopicId,
    partition: u32,
    hasher: StreamHasher,
    /// What lies below is durable.
    end: Position,
    /// Where the last event is that has a type and tags.
    last: HashMap<Term, Option<Position>>,
}

impl Removal {
    pub(super) fn new(engine: &Engine, partition: &Partition) -> Self {
        let (topic, hasher, end) = (partition.topic.id, engine.hasher, engine.tail.end());
        Self { topic, partition: index(partition), hasher, end, last: HashMap::new() }
    }

    /// What becomes of a batch.
    ///
    /// # Errors
    /// [`LogError::Corrupt`], [`LogError::Io`].
    pub(super) fn fate(&mut self, engine: &Engine, batch: &WholeBatch) -> Result<Fate, LogError> {
        let mut kept = Vec::new();
        let mut known: Option<(&[u8], Standing)> = None;
        for record in StoredRecords::from(&batch.bytes, HEADER_LEN).map_err(|flaw| batch.damage(flaw))? {
            let record = record.map_err(|flaw| batch.damage(flaw))?;
            let stream = record.key.unwrap_or_default();
            let standing = match known {
                Some((same, standing)) if same == stream => standing,
                _ => engine.streams.standing(&StreamKey { partition: self.partition, hash: self.hasher.hash(stream) }),
            };
            known = Some((stream, standing));
            let position = batch.position(record.offset);
            kept.push(lives::kept(&record, &standing, |event| self.is_followed(engine, event, position))?);
        }
        Fate::of(&batch.bytes, &kept).map_err(|flaw| batch.damage(flaw))
    }

    /// Whether an event behind a position has the type of another one and all of its tags, so that a query which means that one means it, too.
    fn is_followed(&mut self, engine: &Engine, event: &EventView<'_>, position: Position) -> Result<bool, LogError> {
        let term = term_of(self.topic, &self.hasher, event.kind, event.tags());
        if let Some(last) = self.last.get(&term) {
            return Ok(last.is_some_and(|last| last > position));
        }
        let last = engine.ask_postings(|postings| postings.last(std::slice::from_ref(&term), self.end))?;
        if self.last.len() == MOST_TERMS {
            self.last.clear();
        }
        self.last.insert(term, last);
        Ok(last.is_some_and(|last| last > position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_segments_come_along_with_what_is_due_beside_them() {
        // Of each segment: due, small, or neither.
        let taken = |text: &str| {
            let mut due: Vec<_> = text.chars().map(|one| one == 'd').collect();
            take_along(&mut due, |place| text.chars().nth(place) == Some('s'));
            due.iter().map(|is_due| if *is_due { 'x' } else { '.' }).collect::<String>()
        };
        for (text, expected) in [
            ("", ""),
            ("s", "."),
            ("ss.s", "...."),
            ("d", "x"),
            ("ssd.", "xxx."),
            (".dss.s", ".xxx.."),
            ("s.ds", "..xx"),
            ("sds.ssd", "xxx.xxx"),
        ] {
            assert_eq!(taken(text), expected, "{text}");
        }
    }
}
