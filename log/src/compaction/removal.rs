//! Where in topics of events enough may go, and the judge of a pass there.
//!
//! A [`super::pass`] asks [`Looks`] what is due: key indexes are read, and only where lives have changed since. Invariants: only events and
//! marks of segments that a durable checkpoint holds, and that nobody holds, are judged; what came later is asked of postings, which know
//! it exactly.

use std::{sync::Arc, time::Duration};

use hashbrown::HashMap;

use super::lives::{self, Count, Counted, LongAgo, Rest};
use crate::{
    batch::{EventView, HEADER_LEN, StoredRecords},
    engine::Engine,
    error::LogError,
    ids::{Offset, Position, StreamVersion, Timestamp, TopicId},
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
    /// From where on they were retained, where they ended, and how far they were held.
    low: Offset,
    sealed_to: Offset,
    held: Option<Position>,
    counted: Counted,
}

impl Look {
    /// Whether it might be found otherwise by now.
    fn is_over(&self, now: &Self, after: Duration) -> bool {
        let has_more = now.let_go.saturating_sub(self.let_go) > self.counted.records / 16;
        let again = u64::try_from(after.as_millis()).unwrap_or(u64::MAX) / PARTS;
        let is_late = self.counted.let_go > 0 && now.at.get().saturating_sub(self.at.get()) >= i64::try_from(again).unwrap_or(i64::MAX);
        has_more || is_late || (now.low, now.sealed_to, now.held) != (self.low, self.sealed_to, self.held)
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
        let low = segments.low().offset;
        let mut look = Look { at: engine.time.now(), let_go, low, sealed_to, held, counted: Counted::default() };
        if self.0.get(&partition.index).is_some_and(|before| !before.is_over(&look, after)) {
            return Ok(Vec::new());
        }
        let aged = match now.map(|now| now.get().saturating_sub_unsigned(u64::try_from(after.as_millis()).unwrap_or(u64::MAX))) {
            Some(aged) => segments.at_time(Timestamp::new(aged.saturating_add(1)))?.map_or(segments.end(), |(offset, _)| offset),
            // How long ago something was recorded is told by a clock that is believed alone.
            None => Offset::default(),
        };
        sources.retain(|source| held.is_none_or(|held| source.about.end_position <= held));
        let (mut bytes, mut long_ago) = (0, LongAgo::default());
        let mut due = Vec::with_capacity(sources.len());
        for source in sources.iter().rev() {
            let rest_of = |hash| engine.standing_and_rest(&StreamKey { partition: index(partition), hash }, low).1;
            let begin = || Count::new(rest_of, aged, long_ago.clone(), source.about.end <= low);
            let (counted, told) = segments.fold_entries(source, begin, Count::take)?.finish();
            long_ago = told;
            look.counted.records += counted.records;
            look.counted.let_go += counted.let_go;
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
            self.0.insert(partition.index, look);
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
    /// Below, retention has let go of everything.
    low: Offset,
    /// What lies below is durable.
    end: Position,
    /// Where the last event is that has a type and tags.
    last: HashMap<Term, Option<Position>>,
}

impl Removal {
    pub(super) fn new(engine: &Engine, partition: &Partition) -> Self {
        let (topic, hasher, end) = (partition.topic.id, engine.hasher, engine.tail.end());
        Self { topic, partition: index(partition), hasher, low: engine.low(partition).offset, end, last: HashMap::new() }
    }

    /// What becomes of a batch.
    ///
    /// # Errors
    /// [`LogError::Corrupt`], [`LogError::Io`].
    pub(super) fn fate(&mut self, engine: &Engine, batch: &WholeBatch) -> Result<Fate, LogError> {
        let mut kept = Vec::new();
        let mut known: Option<(&[u8], (StreamVersion, Rest))> = None;
        for record in StoredRecords::from(&batch.bytes, HEADER_LEN).map_err(|flaw| batch.damage(flaw))? {
            let record = record.map_err(|flaw| batch.damage(flaw))?;
            let stream = record.key.unwrap_or_default();
            let (newest, rest) = match known {
                Some((same, known)) if same == stream => known,
                _ => engine.standing_and_rest(&StreamKey { partition: self.partition, hash: self.hasher.hash(stream) }, self.low),
            };
            known = Some((stream, (newest, rest)));
            let position = batch.position(record.offset);
            kept.push(lives::kept(&record, newest, &rest, |event| self.is_followed(engine, event, position))?);
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

impl Engine {
    /// At which version a stream is, and what it rests on in a partition in which retention has let go of what lies below an offset.
    fn standing_and_rest(&self, key: &StreamKey, low: Offset) -> (StreamVersion, Rest) {
        let Standing { newest, life } = self.streams.standing(key);
        let snapshot = || self.streams.snapshots(key, newest, Offset::default()).map(|(_, snapshot, _)| snapshot.offset);
        let snapshots_from = if low > Offset::default() { snapshot().map_or(low, |newest| newest.min(low)) } else { low };
        (newest, Rest { life, snapshots_from })
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
