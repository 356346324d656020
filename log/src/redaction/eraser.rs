//! Removes the bytes of what was redacted, partition by partition, and has a mark say when they are gone.
//!
//! A part of the thread that writes segments anew, so that no two rewrite the same; simulations step it. Everything that it does may be done
//! again: a start begins where marks say that something is left. Invariant: a partition is marked as erased only when no segment, no memory and
//! no journal file holds what its redactions up to there are about.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::sync::oneshot;

use super::Place;
use crate::{
    batch::{Flaw, HEADER_LEN, Kept, StoredRecords},
    engine::Engine,
    error::LogError,
    holds::Held,
    ids::Offset,
    journal::{file::Erasing, frame::Replacement},
    life::Blank,
    partition::{group::Switch, request::Request, streams::StreamKey},
    record::{Appended, Purpose},
    segment::{Fate, Segments, Source},
    topic_store::Partition,
};

/// Waits as long as reading so many bytes may take.
type Pace<'a> = &'a mut dyn FnMut(u64) -> Result<(), LogError>;
/// Waits for what was put in line, where that can be waited for.
type Settle<'a> = &'a mut dyn FnMut(&mut Held);

/// What it waits for where nothing is written any more.
const DAMAGE: &str = "the damage of the partition to be repaired";

/// Erases what was redacted.
#[derive(Debug, Default)]
pub(crate) struct Eraser {
    under_way: BTreeMap<Place, Erasure>,
}

/// What is left to be done in a partition.
#[derive(Debug)]
struct Erasure {
    partition: Arc<Partition>,
    /// Everything is meant that marks before this offset redact.
    to: Offset,
    /// Frames up to this one may hold it.
    frame: u64,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// What is meant must lie in sealed segments.
    Sealing,
    /// Segments that hold it are written anew.
    Writing(Targets),
    /// Files of those that were replaced, and what memory holds, go.
    Clearing,
    /// Journal files are filled with zeros.
    Zeroing,
    /// It is done, and a mark says so, if that is in line.
    Marking(Option<oneshot::Receiver<Result<Appended, LogError>>>),
}

/// What is to be removed from segments.
#[derive(Debug, Default)]
struct Targets {
    /// Events that become blanks.
    events: BTreeSet<Offset>,
    /// Snapshots, of which nothing stays.
    snapshots: BTreeSet<Offset>,
    /// What was written anew and is not in its place yet.
    in_line: Option<Source>,
}

/// What came of a step.
enum Step {
    /// There is more to do.
    GoesOn(Stage),
    /// Something else must happen first.
    Waits(Stage, &'static str),
    /// All is done.
    Ended,
}

impl Eraser {
    /// Goes on with every partition that has something to be erased, as far as it can. Whether there was something to do.
    ///
    /// # Errors
    /// What ends the log, or a full disk: then it may be called again.
    pub(crate) fn step(&mut self, engine: &Engine, pace: Pace<'_>, settle: Settle<'_>) -> Result<bool, LogError> {
        let mut any = false;
        for (place, begun) in engine.redactions.to_erase() {
            let mut erasure = self.under_way.remove(&place).unwrap_or(begun);
            if erasure.partition.is_gone() {
                // Its files go with the topic.
                engine.redactions.complete(place, Offset::new(u64::MAX));
                continue;
            }
            match erasure.step(engine, pace, settle) {
                Ok(has_moved) => any |= has_moved,
                Err(error) if engine.note_damage(&error) => engine.redactions.waits(place, Some(DAMAGE)),
                Err(error) => return Err(error),
            }
            if !matches!(erasure.stage, Stage::Sealing) {
                self.under_way.insert(place, erasure);
            }
        }
        self.under_way.retain(|place, erasure| !engine.redactions.is_erased(*place, erasure.to));
        Ok(any)
    }
}

impl Erasure {
    /// Goes on as far as it can; whether that was anywhere. What fails begins anew with the next call.
    fn step(&mut self, engine: &Engine, pace: Pace<'_>, settle: Settle<'_>) -> Result<bool, LogError> {
        let stage = std::mem::replace(&mut self.stage, Stage::Sealing);
        if self.partition.damage.get().is_some() {
            engine.redactions.waits(self.place(), Some(DAMAGE));
            return Ok(false);
        }
        let step = match stage {
            Stage::Sealing => self.seal(engine)?,
            Stage::Writing(targets) => self.write(engine, targets, pace, settle)?,
            Stage::Clearing => self.clear(engine)?,
            Stage::Zeroing => self.zero(engine, settle)?,
            Stage::Marking(answer) => self.mark(engine, answer)?,
        };
        match step {
            Step::GoesOn(stage) => {
                self.stage = stage;
                engine.redactions.waits(self.place(), None);
                Ok(true)
            }
            Step::Waits(stage, what) => {
                self.stage = stage;
                engine.redactions.waits(self.place(), Some(what));
                Ok(false)
            }
            Step::Ended => Ok(true),
        }
    }

    fn place(&self) -> Place {
        (self.partition.topic.id, self.partition.id)
    }

    /// Waits until all of it is in sealed segments, and finds out what that is.
    fn seal(&self, engine: &Engine) -> Result<Step, LogError> {
        let segments = engine.segments(&self.partition).filter(|segments| segments.sealed_to() >= self.to);
        let Some(segments) = segments else {
            engine.due.lock().insert(self.partition.index, Arc::clone(&self.partition));
            engine.tidy.raise();
            return Ok(Step::Waits(Stage::Sealing, "records to be copied into segments"));
        };
        let mut targets = Targets { events: engine.redactions.events_to(self.place(), self.to), ..Targets::default() };
        for (stream, before) in engine.redactions.streams_to(self.place(), self.to) {
            targets.snapshots.extend(segments.snapshots_before(stream.hash, before)?);
        }
        Ok(Step::GoesOn(Stage::Writing(targets)))
    }

    /// Writes the first segment anew that holds some of it, and has it switched in.
    fn write(&self, engine: &Engine, mut targets: Targets, pace: Pace<'_>, settle: Settle<'_>) -> Result<Step, LogError> {
        let Some(segments) = engine.segments(&self.partition) else { return Ok(Step::Ended) };
        if engine.holds.lock().is_waiting() {
            return Ok(Step::Waits(Stage::Writing(targets), "another switch of segments"));
        }
        if let Some(source) = targets.in_line.take()
            && !segments.has(std::slice::from_ref(&source))
        {
            targets.forget(&source);
        }
        let sources = segments.sources()?;
        let Some(source) = sources.into_iter().find(|source| targets.is_in(source)) else { return Ok(Step::GoesOn(Stage::Clearing)) };
        let layout = engine.layout(&self.partition);
        engine.reserve.admits_file(source.about.bytes, Purpose::Upkeep)?;
        let mut changes = false;
        let one = std::slice::from_ref(&source);
        let rewritten = segments.rewrite(one, layout, |batch| {
            pace(batch.len())?;
            let fate = targets.fate(&batch.bytes).map_err(|flaw| batch.damage(flaw))?;
            changes |= fate != Fate::Stays;
            Ok(fate)
        })?;
        let Some(rewritten) = rewritten.filter(|_| changes) else {
            // It was written anew before.
            segments.give_up()?;
            targets.forget(&source);
            return Ok(Step::GoesOn(Stage::Writing(targets)));
        };
        let mut held = engine.holds.lock();
        let by = Replacement::Rewritten(rewritten.rewrite, segments.cleaned());
        let may_go = segments.has(one) && engine.put_in_line(Switch { partition: Arc::clone(&self.partition), by }, &mut held)?;
        if !may_go {
            drop(held);
            segments.give_up()?;
            return Ok(Step::Waits(Stage::Writing(targets), "room in the line of appends"));
        }
        settle(&mut held);
        targets.in_line = Some(source);
        Ok(Step::GoesOn(Stage::Writing(targets)))
    }

    /// Waits until the files of segments that were replaced are deleted, and has memory let go of what it holds.
    fn clear(&self, engine: &Engine) -> Result<Step, LogError> {
        if let Some(segments) = engine.segments(&self.partition) {
            if is_left(engine, &segments) {
                return Ok(Step::Waits(Stage::Clearing, "readers and backups of segments that were replaced"));
            }
            segments.sync_folder()?;
        }
        if !engine.tail.let_go(self.frame) {
            engine.tidy.raise();
            return Ok(Step::Waits(Stage::Clearing, "records to be copied into segments"));
        }
        Ok(Step::GoesOn(Stage::Zeroing))
    }

    fn zero(&self, engine: &Engine, settle: Settle<'_>) -> Result<Step, LogError> {
        let waits = |what| Ok(Step::Waits(Stage::Zeroing, what));
        match engine.journal.erase_up_to(self.frame)? {
            Erasing::Done => Ok(Step::GoesOn(Stage::Marking(None))),
            Erasing::NeedsTidy => {
                engine.tidy.raise();
                waits("journal files that are in use")
            }
            Erasing::NeedsFrame => {
                let mut held = engine.holds.lock();
                if held.is_waiting() {
                    return waits("another switch of segments");
                }
                // A frame that changes nothing begins the next file.
                let by = Replacement::Nothing(engine.low(&self.partition));
                if !engine.put_in_line(Switch { partition: Arc::clone(&self.partition), by }, &mut held)? {
                    return waits("room in the line of appends");
                }
                settle(&mut held);
                Ok(Step::GoesOn(Stage::Zeroing))
            }
        }
    }

    fn mark(&self, engine: &Engine, answer: Option<oneshot::Receiver<Result<Appended, LogError>>>) -> Result<Step, LogError> {
        let waits = |answer, what| Ok(Step::Waits(Stage::Marking(answer), what));
        if engine.redactions.is_erased(self.place(), self.to) {
            tracing::info!(topic = %self.partition.topic.name, partition = %self.partition.id, to = %self.to, "what was redacted is erased");
            return Ok(Step::Ended);
        }
        if let Some(mut answer) = answer
            && matches!(answer.try_recv(), Err(oneshot::error::TryRecvError::Empty))
        {
            return waits(Some(answer), "the mark that says that it is done");
        }
        let (reply, answer) = oneshot::channel();
        let request = Request::erased(Arc::clone(&self.partition), self.to, &engine.hasher, reply)?;
        match engine.queue.push(request) {
            Ok(()) => waits(Some(answer), "the mark that says that it is done"),
            Err(LogError::Overloaded { .. } | LogError::Stopping) => waits(None, "room in the line of appends"),
            Err(error) => Err(error),
        }
    }
}

/// Whether files of replaced segments are left; brings it on that they go.
fn is_left(engine: &Engine, segments: &Segments) -> bool {
    if segments.awaits_checkpoint() {
        engine.tidy.raise();
    }
    let is_left = segments.has_replaced();
    if is_left {
        engine.upkeep.raise();
    }
    is_left
}

impl Targets {
    fn all(&self) -> impl Iterator<Item = &BTreeSet<Offset>> {
        [&self.events, &self.snapshots].into_iter()
    }

    fn is_in(&self, source: &Source) -> bool {
        self.all().any(|offsets| offsets.range(source.base()..source.about.end).next().is_some())
    }

    /// They are in this segment no more.
    fn forget(&mut self, source: &Source) {
        let stays = |offset: &Offset| !(source.base()..source.about.end).contains(offset);
        self.events.retain(stays);
        self.snapshots.retain(stays);
    }

    /// What becomes of a batch.
    fn fate(&self, batch: &[u8]) -> Result<Fate, Flaw> {
        let mut kept = Vec::new();
        for record in StoredRecords::from(batch, HEADER_LEN)? {
            let record = record?;
            kept.push(if self.snapshots.contains(&record.offset) {
                Kept::Nothing
            } else if self.events.contains(&record.offset) {
                Kept::Blank(Blank::Redacted)
            } else {
                Kept::Whole
            });
        }
        Fate::of(batch, &kept)
    }
}

impl super::Redactions {
    /// What is to be erased, by partition.
    fn to_erase(&self) -> Vec<(Place, Erasure)> {
        let pending = self.pending.read();
        let erasure = |(place, of): (&Place, &super::Pending)| {
            let to = of.streams.values().map(|stream| stream.mark.plus(1)).max()?;
            Some((*place, Erasure { partition: Arc::clone(&of.partition), to, frame: of.frame, stage: Stage::Sealing }))
        };
        pending.iter().filter_map(erasure).collect()
    }

    /// Whether nothing is left that marks before an offset redact.
    fn is_erased(&self, place: Place, to: Offset) -> bool {
        self.pending.read().get(&place).is_none_or(|of| of.streams.values().all(|stream| stream.first >= to))
    }

    fn waits(&self, place: Place, what: Option<&'static str>) {
        if let Some(of) = self.pending.write().get_mut(&place) {
            of.waits_for = what;
        }
    }

    fn events_to(&self, place: Place, to: Offset) -> BTreeSet<Offset> {
        let pending = self.pending.read();
        let events = pending.get(&place).into_iter().flat_map(|of| &of.events);
        events.filter(|(_, (_, mark))| *mark < to).map(|(offset, _)| *offset).collect()
    }

    /// Streams with redactions whose mark lies before an offset, each with where that is.
    fn streams_to(&self, place: Place, to: Offset) -> Vec<(StreamKey, Offset)> {
        let pending = self.pending.read();
        let streams = pending.get(&place).into_iter().flat_map(|of| &of.streams);
        streams.map(|(key, stream)| (*key, stream.mark.plus(1).min(to))).collect()
    }
}
