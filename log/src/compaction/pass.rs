//! A pass over one partition, segment by segment, and the thread that makes one after the other: over tables for what newer records of a key
//! replaced, over topics of events for what the lives of streams let go.
//!
//! A thread of its own calls [`run`]; simulations call [`Compactor::step`]. It holds up nobody: it reads and writes files beside those in use,
//! and each segment that it wrote is switched in by the committer like an append. Invariant: the oldest come first, so that a tombstone
//! is not marked before all that it deletes is gone.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{
    judge::Judge,
    keys::Keys,
    plan::{self, Cleaned},
    removal::{Looks, Removal},
    throttle::Throttle,
};
use crate::{
    engine::{Engine, FailOnPanic},
    error::LogError,
    holds::Held,
    ids::{Offset, Timestamp},
    journal::frame::Replacement,
    partition::group::Switch,
    record::Purpose,
    redaction::Eraser,
    segment::{Fate, Rewritten, Segments, Source, WholeBatch},
    tidy::is_full,
    topic::TopicKind,
    topic_store::Partition,
};

/// How long the thread waits at most before it looks whether something is due.
const EVERY: Duration = Duration::from_secs(10);

/// Waits as long as reading so many bytes may take.
type Pace<'a> = &'a mut dyn FnMut(u64) -> Result<(), LogError>;

/// Compacts partitions, one at a time.
#[derive(Debug)]
pub(crate) struct Compactor {
    engine: Arc<Engine>,
    pass: Option<Pass>,
    /// When it was last looked what lives let go.
    looks: Looks,
    /// Writes segments anew as well, on the same thread.
    eraser: Eraser,
}

/// What is left of a pass.
#[derive(Debug)]
struct Pass {
    partition: Arc<Partition>,
    segments: Arc<Segments>,
    rule: Rule,
    /// What is to be written anew, the oldest first.
    sources: Vec<Source>,
}

/// What decides what becomes of a record.
#[derive(Debug)]
enum Rule {
    /// That a newer one of its key is there.
    Key(ByKey),
    /// The life of its stream.
    Life(Removal),
}

/// What a pass over a table knows.
#[derive(Debug)]
struct ByKey {
    keys: Keys,
    /// All below is in `keys`, or was looked at before.
    end: Offset,
    now: Timestamp,
    horizon: Timestamp,
    /// From when on the last of its tombstones may go, of those that were seen so far.
    waits: Timestamp,
}

impl Compactor {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        Self { engine, pass: None, looks: Looks::default(), eraser: Eraser::default() }
    }

    /// Begins a pass where one is due, or writes the next segment of the one under way and puts the switch in line for the committer. Whether
    /// there was something to do.
    ///
    /// # Errors
    /// What ends the log, or a full disk: then a pass begins anew with the next call.
    pub(crate) fn step(&mut self) -> Result<bool, LogError> {
        self.advance(&mut |_| Ok(()), &mut |_| {})
    }

    fn advance(&mut self, pace: Pace<'_>, settle: &mut dyn FnMut(&mut Held)) -> Result<bool, LogError> {
        let engine = Arc::clone(&self.engine);
        if engine.read_only.get().is_none() && self.eraser.step(&engine, pace, settle)? {
            return Ok(true);
        }
        // A clock that is not believed tells neither how old a record is nor how long a tombstone has waited.
        let now = engine.time.for_removal();
        let pass = self.pass.take();
        if engine.read_only.get().is_some() {
            return Ok(false);
        }
        let advanced = match pass {
            Some(pass) if now.is_some() || matches!(pass.rule, Rule::Life(_)) => pass.write_next(&engine, pace, settle),
            // It begins anew when the clock is believed again.
            Some(_) => Ok(Next::Nothing),
            None => Pass::begin(&engine, now, &mut self.looks, pace),
        };
        match advanced {
            Ok(Next::GoesOn(pass)) => {
                self.pass = Some(pass);
                Ok(true)
            }
            Ok(Next::Waits(pass)) => {
                self.pass = Some(pass);
                Ok(false)
            }
            Ok(Next::Ended) => {
                engine.compacting.end();
                Ok(true)
            }
            Ok(Next::Nothing) => {
                engine.compacting.end();
                Ok(false)
            }
            Err(error) => {
                engine.compacting.end();
                if engine.note_damage(&error) { Ok(false) } else { Err(error) }
            }
        }
    }
}

/// What a pass is due for.
struct Due {
    partition: Arc<Partition>,
    segments: Arc<Segments>,
    sources: Vec<Source>,
}

/// What came of a step.
enum Next {
    /// There is more to do.
    GoesOn(Pass),
    /// What was put in line before is not switched yet.
    Waits(Pass),
    /// The pass is over.
    Ended,
    /// Nothing is due.
    Nothing,
}

impl Pass {
    /// Begins a pass over the table that has most to look at, if one is due, else over a topic of events.
    fn begin(engine: &Engine, now: Option<Timestamp>, looks: &mut Looks, pace: Pace<'_>) -> Result<Next, LogError> {
        match now.map_or(Ok(None), |now| Self::begin_by_key(engine, now, pace))? {
            Some(pass) => Ok(Next::GoesOn(pass)),
            None => Self::begin_by_life(engine, now, looks),
        }
    }

    /// Begins a pass over the table that has most to look at, if one is due.
    fn begin_by_key(engine: &Engine, now: Timestamp, pace: Pace<'_>) -> Result<Option<Self>, LogError> {
        // The first of those that have as much dirty.
        let mut most: Option<(u64, Due)> = None;
        let tables = engine.topics.partitions().into_iter().filter(|partition| partition.topic.settings.kind == TopicKind::Table);
        for partition in tables.filter(|partition| partition.damage.get().is_none()) {
            let Some(segments) = engine.segments(&partition) else { continue };
            let mut sources = match segments.sources() {
                Err(error) if engine.note_damage(&error) => continue,
                sources => sources?,
            };
            let held = {
                let held = engine.holds.lock();
                if !held.is_complete() {
                    return Ok(None);
                }
                held.from(&partition.topic.name)
            };
            let candidates: Vec<_> = sources.iter().map(|source| source.about).collect();
            let standing = plan::standing(&partition.topic.settings.compaction, &candidates, segments.cleaned(), now, held);
            sources.truncate(standing.count);
            if standing.is_due && most.as_ref().is_none_or(|(dirty, ..)| *dirty < standing.dirty) {
                most = Some((standing.dirty, Due { partition, segments, sources }));
            }
        }
        match most {
            Some((_, due)) => Self::of(engine, due, now, pace).map(Some),
            None => Ok(None),
        }
    }

    /// Begins a pass over a topic of events whose streams let go of enough.
    fn begin_by_life(engine: &Engine, now: Option<Timestamp>, looks: &mut Looks) -> Result<Next, LogError> {
        let may_remove = {
            let mut held = engine.holds.lock();
            held.is_complete() && !held.is_waiting()
        };
        if !may_remove {
            return Ok(Next::Nothing);
        }
        let Some((partition, segments, sources)) = looks.due(engine, now)? else { return Ok(Next::Nothing) };
        let topic = &partition.topic;
        engine.reserve.admits_file(engine.layout(&partition).max_log_bytes, Purpose::Upkeep)?;
        engine.admit_blanks(&topic.name)?;
        engine.compacting.begin((topic.id, partition.id), sources.iter().map(|source| source.about.bytes).sum());
        let low = segments.low().offset;
        let retained = sources.iter().filter(|source| source.about.end <= low).count();
        let all = sources.len();
        tracing::info!(topic = %topic.name, partition = %partition.id, segments = all, retained, "removes what streams and retention let go");
        let rule = Rule::Life(Removal::new(engine, &partition));
        Ok(Next::GoesOn(Self { partition, segments, rule, sources }))
    }

    /// Reads what was not looked at, as far as memory allows.
    fn of(engine: &Engine, due: Due, now: Timestamp, pace: Pace<'_>) -> Result<Self, LogError> {
        let Due { partition, segments, mut sources } = due;
        // A disk without room is found before anything is read.
        engine.reserve.admits_file(engine.layout(&partition).max_log_bytes, Purpose::Upkeep)?;
        let cleaned = segments.cleaned();
        let (topic, is_dirty) = (&partition.topic, |source: &&Source| source.about.end > cleaned.to);
        let bytes = |sources: &mut dyn Iterator<Item = &Source>| sources.map(|source| source.about.bytes).sum::<u64>();
        let of = bytes(&mut sources.iter()) + bytes(&mut sources.iter().filter(is_dirty));
        engine.compacting.begin((topic.id, partition.id), of);
        let mut keys = Keys::new(engine.config.compaction_memory_bytes, engine.hasher);
        let mut end = sources.last().map_or(cleaned.to, |source| source.about.end);
        let mut full_at = None;
        for source in sources.iter().filter(is_dirty) {
            source.batches(cleaned.to, |batch| {
                engine.compacting.advance(batch.len());
                pace(batch.len())?;
                full_at = note(&mut keys, &batch.bytes, cleaned.to).map_err(|flaw| batch.damage(flaw))?;
                Ok(full_at.is_none())
            })?;
            if let Some(offset) = full_at {
                end = offset;
                break;
            }
        }
        sources.retain(|source| source.base() < end);
        let delete_retention = i64::try_from(topic.settings.compaction.delete_retention.as_millis()).unwrap_or(i64::MAX);
        tracing::info!(topic = %topic.name, partition = %partition.id, from = %cleaned.to, to = %end, keys = keys.len(), "compacts");
        let horizon = Timestamp::new(now.get().saturating_add(delete_retention));
        let rule = Rule::Key(ByKey { keys, end, now, horizon, waits: Timestamp::default() });
        Ok(Self { partition, segments, rule, sources })
    }

    /// Writes the next segments anew and has them switched in.
    fn write_next(mut self, engine: &Engine, pace: Pace<'_>, settle: &mut dyn FnMut(&mut Held)) -> Result<Next, LogError> {
        if engine.holds.lock().is_waiting() {
            return Ok(Next::Waits(self));
        }
        let layout = engine.layout(&self.partition);
        // What is written is hardly longer than a segment, and what it replaces goes only afterwards.
        engine.reserve.admits_file(layout.max_log_bytes, Purpose::Upkeep)?;
        let rule = &mut self.rule;
        let rewritten = self.segments.rewrite(adjacent(&self.sources), layout, |batch| {
            engine.compacting.advance(batch.len());
            pace(batch.len())?;
            match rule {
                Rule::Key(by_key) => by_key.fate(batch),
                Rule::Life(removal) => removal.fate(engine, batch),
            }
        })?;
        let Some(Rewritten { rewrite, count, bytes }) = rewritten else { return Ok(Next::Ended) };
        let group: Vec<_> = self.sources.drain(..count).collect();
        let is_last = self.sources.is_empty();
        let cleaned = match &self.rule {
            Rule::Key(by_key) if is_last => Cleaned { to: by_key.end, horizon: by_key.waits },
            _ => self.segments.cleaned(),
        };

        let mut held = engine.holds.lock();
        let switch = Switch { partition: Arc::clone(&self.partition), by: Replacement::Rewritten(rewrite, cleaned) };
        let may_go = self.may_go(&group, &held) && engine.put_in_line(switch, &mut held)?;
        if !may_go {
            self.segments.give_up()?;
            return Ok(Next::Nothing);
        }
        settle(&mut held);
        drop(held);
        let before: u64 = group.iter().map(|source| source.about.bytes).sum();
        engine.compacting.freed_bytes.fetch_add(before.saturating_sub(bytes), Ordering::Relaxed);
        if is_last {
            engine.compacting.passes.fetch_add(1, Ordering::Relaxed);
            return Ok(Next::Ended);
        }
        Ok(Next::GoesOn(self))
    }

    /// Whether nobody has come to hold what was written anew, and retention has left all of it in its place.
    fn may_go(&self, group: &[Source], held: &Held) -> bool {
        let from = held.from(&self.partition.topic.name);
        let is_free = from.is_none_or(|from| group.iter().all(|source| source.about.end_position <= from));
        is_free && self.segments.has(group) && self.partition.damage.get().is_none()
    }
}

impl ByKey {
    fn fate(&mut self, batch: &WholeBatch) -> Result<Fate, LogError> {
        let judge = Judge { keys: &self.keys, end: self.end, now: self.now, horizon: self.horizon };
        let (fate, horizon) = judge.fate(&batch.bytes).map_err(|flaw| batch.damage(flaw))?;
        self.waits = self.waits.max(horizon.unwrap_or_default());
        Ok(fate)
    }
}

/// The first segments that follow each other.
fn adjacent(sources: &[Source]) -> &[Source] {
    let follows = |(one, next): &(&Source, &Source)| one.about.end == next.base();
    let following = sources.iter().zip(sources.iter().skip(1)).take_while(follows).count();
    sources.get(..=following).unwrap_or(sources)
}

/// Takes down what a batch has from an offset on; the offset of the first record for which there is no room.
fn note(keys: &mut Keys, batch: &[u8], from: Offset) -> Result<Option<Offset>, crate::batch::Flaw> {
    for record in crate::batch::StoredRecords::from(batch, crate::batch::HEADER_LEN)? {
        let record = record?;
        let is_noted = record.offset < from || record.key.is_none_or(|key| keys.note(key, record.offset));
        if !is_noted {
            return Ok(Some(record.offset));
        }
    }
    Ok(None)
}

/// Compacts until the log stops.
pub(crate) fn run(mut compactor: Compactor) {
    let engine = Arc::clone(&compactor.engine);
    let _panicking = FailOnPanic(&engine);
    let mut throttle = Throttle::new(Arc::clone(&engine));
    loop {
        match throttle.wait(0).and_then(|()| compactor.advance(&mut |bytes| throttle.wait(bytes), &mut Held::wait)) {
            Ok(true) => continue,
            Ok(false) => {}
            Err(LogError::Stopping) => return,
            Err(error) if is_full(&error) => tracing::warn!(error = &error as &dyn std::error::Error, "compaction waits for space"),
            Err(error) => return engine.fail(error),
        }
        if !engine.compacting.signal.wait_most(EVERY) || engine.failure.borrow().is_some() {
            return;
        }
    }
}
