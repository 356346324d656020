//! May this append join the log, and where? Admission decides in order, each request seeing those before it.
//!
//! Pure: no file, clock or channel; the committer calls [`Admission::admit`] once a request and acts on what it returns.
//! Invariants: versions of a stream and offsets of a partition have no gaps; a request that is refused changes nothing.

use std::sync::Arc;

use hashbrown::HashMap;

use super::{
    condition::Judged,
    group::{Group, Slice, SliceRun, Switch, order_of},
    request::{PreparedCondition, PreparedWrite, ProducerStep, Request},
    streams::{StreamKey, StreamMark, StreamSpan, Streams},
};
use crate::{
    batch::BatchBuilder,
    durability::Durability,
    error::LogError,
    ids::{Offset, Position, StreamVersion, Timestamp},
    journal::{
        file::FramePlace,
        frame::{FrameBody, FrameRun, FrameSlice, FrameSwitch, table_len},
    },
    life::Standing,
    postings::Recent,
    producers::{self, Judged as UnitJudged, Outcome},
    record::{Appended, AppendedRange, Found, Sequenced, StreamAt, Violation},
    topic_store::{Partition, TopicStore},
    window::{Seen, Window},
};

/// The judge: everything that was admitted, durable or not.
#[derive(Debug)]
pub(crate) struct Admission {
    next_position: Position,
    /// Next offset of each partition, by its index.
    next_offsets: Vec<Offset>,
    /// Streams written or changed by groups that are not durable yet, with the group that did so last.
    pending: HashMap<StreamKey, (Standing, u64)>,
}

/// What admission decides by.
#[derive(Debug)]
pub(crate) struct Known<'a> {
    pub(crate) streams: &'a Streams,
    pub(crate) topics: &'a TopicStore,
    /// Events are posted here as they are admitted.
    pub(crate) recent: &'a Recent,
}

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It is part of the group; the answer may leave when the group is as durable as it says.
    Admitted(Appended),
    /// Nothing was written; the answer may leave when everything admitted so far is durable.
    Settled(Result<Appended, LogError>),
    /// A query was last looked up so long ago that memory does not hold all that came since: look again.
    TooOld,
}

impl Admission {
    pub(crate) fn new(next_position: Position, next_offsets: Vec<Offset>) -> Self {
        Self { next_position, next_offsets, pending: HashMap::new() }
    }

    /// Position that the next record gets.
    pub(crate) fn next_position(&self) -> Position {
        self.next_position
    }

    /// Judges a request and, if it may, places it in `group`.
    pub(crate) fn admit(&mut self, request: &Request, group: &mut OpenGroup, known: &Known<'_>, window: &mut Window) -> Verdict {
        let topics = known.topics;
        if let Some(identity) = &request.identity {
            let name = |id| topics.name_of(id);
            match window.look_up(identity, name) {
                Seen::New => {}
                Seen::Repeat(answer) => return Verdict::Settled(Ok(answer)),
                Seen::Refused(error) => return Verdict::Settled(Err(error)),
            }
        }
        let unit = match &request.producer {
            None => None,
            Some(ProducerStep::Open { key, resume, stands }) => {
                return match window.producers.open(key, *resume, group.time) {
                    Ok((at, entry)) => {
                        stands.get_or_init(|| at);
                        let answer = self.nothing_written(group.time);
                        if entry.map(|entry| group.keep(entry)).is_some() {
                            Verdict::Admitted(answer)
                        } else {
                            Verdict::Settled(Ok(answer))
                        }
                    }
                    Err(error) => Verdict::Settled(Err(error)),
                };
            }
            Some(ProducerStep::Unit(unit)) => match window.producers.judge(unit) {
                UnitJudged::Next => Some(unit),
                UnitJudged::Repeat(outcome) => return Verdict::Settled(answer_of(unit, outcome)),
                UnitJudged::Refused(error) => return Verdict::Settled(Err(error)),
            },
        };
        let mut take = |outcome: Outcome, group: &mut OpenGroup| {
            if let Some(unit) = unit {
                window.producers.take(unit, outcome);
                group.take(unit, outcome);
            }
        };
        let Some(refusal) = self.refusal(request, known) else { return Verdict::TooOld };
        if let Some(error) = refusal {
            take(Outcome { first: self.next_position, records: None, time: group.time }, group);
            return Verdict::Settled(Err(error));
        }
        let first = self.next_position;
        let mut answer = Appended { durability: request.durability, ..self.nothing_written(group.time) };
        for write in &request.writes {
            self.place(write, group, known, &mut answer);
        }
        answer.end = self.next_position;
        // One that is empty has only its sequence taken.
        let records = (!request.writes.is_empty()).then(|| u32::try_from(answer.end.get() - first.get()).unwrap_or(u32::MAX));
        take(Outcome { first, records, time: group.time }, group);
        if let Some(identity) = &request.identity {
            let id = |name: &_| topics.get(name).ok().map(|entry| entry.topic.id);
            group.entries.extend(window.remember(identity, &answer, id));
        }
        group.switches.extend(request.switch.clone());
        if answer.end == first && request.identity.is_none() && request.switch.is_none() {
            // Beliefs alone, and they hold, or changes to what is so already: nothing to write.
            answer.durability = Durability::Synced;
            if unit.is_none() {
                return Verdict::Settled(Ok(answer));
            }
        }
        Verdict::Admitted(answer)
    }

    fn nothing_written(&self, time: Timestamp) -> Appended {
        let (first, end) = (self.next_position, self.next_position);
        let (ranges, versions) = (Vec::new(), Vec::new());
        Appended { first, end, ranges, versions, recorded_at: time, deduplicated: false, durability: Durability::Synced }
    }

    /// Why the request must be refused, if it must; none if that cannot be told from memory.
    fn refusal(&self, request: &Request, known: &Known<'_>) -> Option<Option<LogError>> {
        let end = self.next_position;
        if let Some(asked) = request.queries().find_map(|query| query.out_of_range(end)) {
            return Some(Some(LogError::PositionOutOfRange { asked, end }));
        }
        if let Some(error) = request.writes.iter().find_map(|write| write.partition.present().err()) {
            return Some(Some(error));
        }
        if let Some(error) = self.refused(request, known.streams) {
            return Some(Some(error));
        }
        let violations = self.violations(request, known)?;
        Some((!violations.is_empty()).then_some(LogError::Conflict { violations, seen: end }))
    }

    /// Why a stream that it writes to takes no such write, whatever is believed.
    fn refused(&self, request: &Request, streams: &Streams) -> Option<LogError> {
        if !streams.has_tombstones() && request.marked().next().is_none() {
            return None;
        }
        request.writes.iter().find_map(|write| {
            let stream = write.stream.as_ref()?;
            let standing = self.standing(&stream.key, streams);
            let (refusal, id) = (standing.refusal(write.marking)?, stream.id.as_ref()?);
            Some(LogError::refused(refusal, &write.partition.topic.name, id, standing.head()))
        })
    }

    /// Every condition that does not hold; none if that cannot be told from memory.
    fn violations(&self, request: &Request, known: &Known<'_>) -> Option<Vec<Violation>> {
        let mut violations = Vec::new();
        for (index, condition) in request.conditions.iter().enumerate() {
            let found = match condition {
                PreparedCondition::Stream { key, stream, expected } => {
                    let actual = self.standing(key, known.streams).head();
                    (!expected.holds(actual)).then(|| Found::Stream { stream: stream.clone(), expected: *expected, actual })
                }
                PreparedCondition::Query(query) => match query.judge(known.recent, known.topics) {
                    Judged::TooOld => return None,
                    Judged::Holds => None,
                    Judged::Violated(first) => Some(Found::Event { first }),
                },
            };
            violations.extend(found.map(|found| Violation { index, found }));
        }
        Some(violations)
    }

    fn standing(&self, key: &StreamKey, streams: &Streams) -> Standing {
        match self.pending.get(key) {
            Some((standing, _)) => *standing,
            None => streams.standing(key),
        }
    }

    fn place(&mut self, write: &PreparedWrite, group: &mut OpenGroup, known: &Known<'_>, answer: &mut Appended) {
        let index = write.partition.index;
        if self.next_offsets.len() <= index {
            self.next_offsets.resize(index + 1, Offset::default());
        }
        let count = write.records.count();
        let mut standing = write.stream.as_ref().map_or_else(Standing::default, |stream| self.standing(&stream.key, known.streams));
        let offset = self.next_offsets[index];
        let mark = write.marking.map(|marking| standing.mark(marking, offset));
        let first_version = match mark {
            None => standing.newest.plus(1),
            Some(Some(mark)) => mark.version(),
            // It is so already.
            Some(None) => return,
        };
        let start = group.push(write, offset, self.next_position, first_version);
        for posting in &write.postings {
            known.recent.add(posting, self.next_position);
        }
        self.next_offsets[index] = offset.plus(u64::from(count));
        self.next_position = self.next_position.plus(u64::from(count));
        extend_range(answer, &write.partition, offset, count);
        if let Some(stream) = &write.stream {
            if let Some(mark) = mark.flatten() {
                let life = mark.life(offset);
                if life.tombstoned {
                    known.streams.expect_tombstones();
                }
                standing.life = standing.life.and(life);
                group.marks.push(StreamMark { event: write.event, ..StreamMark::of(stream.key, mark, offset) });
            } else {
                let span = StreamSpan { key: stream.key, first_version, offset, count, start };
                standing.newest = span.last_version();
                group.spans.push(span);
            }
            self.pending.insert(stream.key, (standing, group.number));
            let (newest, topic) = (standing.newest, &write.partition.topic.name);
            let Some(id) = &stream.id else { return };
            match answer.versions.iter_mut().rev().find(|at| at.stream == *id && at.topic == *topic) {
                Some(at) => at.version = newest,
                None if newest < StreamVersion::FIRST => {}
                None => answer.versions.push(StreamAt { topic: topic.clone(), stream: id.clone(), version: newest }),
            }
        }
    }

    /// A group is durable: its streams stand in [`Streams`] now.
    pub(crate) fn retire(&mut self, number: u64, streams: impl IntoIterator<Item = StreamKey>) {
        for key in streams {
            if self.pending.get(&key).is_some_and(|(_, group)| *group == number) {
                self.pending.remove(&key);
            }
        }
    }
}

/// What a unit is told that was judged before.
pub(crate) fn answer_of(unit: &Sequenced, outcome: Outcome) -> Result<Appended, LogError> {
    let Some(records) = outcome.records else { return Err(LogError::RefusedBefore { sequence: unit.sequence }) };
    Ok(Appended {
        first: outcome.first,
        end: outcome.first.plus(records.into()),
        ranges: Vec::new(),
        versions: Vec::new(),
        recorded_at: outcome.time,
        deduplicated: true,
        // It leaves only when everything before it is.
        durability: Durability::Synced,
    })
}

fn extend_range(answer: &mut Appended, partition: &Partition, offset: Offset, count: u32) {
    let last = Offset::new(offset.get() + u64::from(count) - 1);
    match answer.ranges.iter_mut().find(|range| range.partition == partition.id && range.topic == partition.topic.name) {
        Some(range) => range.last = last,
        None => answer.ranges.push(AppendedRange { topic: partition.topic.name.clone(), partition: partition.id, first: offset, last }),
    }
}

#[derive(Debug)]
struct OpenSlice {
    partition: Arc<Partition>,
    base: Offset,
    builder: BatchBuilder,
    runs: Vec<SliceRun>,
    /// Whether the last record is a mark: marks have runs of their own.
    ends_in_mark: bool,
}

/// A group that still takes units.
#[derive(Debug)]
pub(crate) struct OpenGroup {
    /// Number that its frame will have.
    pub(crate) number: u64,
    pub(crate) time: Timestamp,
    first: Position,
    /// Bytes that a batch is likely to take.
    batch_bytes: usize,
    slices: Vec<OpenSlice>,
    /// Place in `slices` by index of the partition.
    by_partition: HashMap<usize, usize>,
    runs: usize,
    spans: Vec<StreamSpan>,
    marks: Vec<StreamMark>,
    entries: Vec<u8>,
    switches: Vec<Switch>,
    /// What producers did, to be encoded behind the entries, and the bytes that it takes there.
    producers: Vec<producers::Entry>,
    producer_bytes: usize,
}

impl OpenGroup {
    pub(crate) fn new(number: u64, first: Position, time: Timestamp) -> Self {
        Self {
            number,
            time,
            first,
            batch_bytes: 0,
            slices: Vec::new(),
            by_partition: HashMap::new(),
            runs: 0,
            spans: Vec::new(),
            marks: Vec::new(),
            entries: Vec::new(),
            switches: Vec::new(),
            producers: Vec::new(),
            producer_bytes: 0,
        }
    }

    /// The same with batches likely to take so many bytes each.
    pub(crate) fn with_batches_of(self, bytes: usize) -> Self {
        Self { batch_bytes: bytes, ..self }
    }

    /// Bytes of its batches, on the average.
    pub(crate) fn mean_batch(&self) -> usize {
        self.batch_bytes_so_far().checked_div(self.slices.len()).unwrap_or(0)
    }

    fn batch_bytes_so_far(&self) -> usize {
        self.slices.iter().map(|slice| slice.builder.encoded_len()).sum()
    }

    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.slices.is_empty() && self.entries.is_empty() && self.switches.is_empty() && self.producers.is_empty()
    }

    /// Bytes that its frame takes so far, about.
    pub(crate) fn bytes(&self) -> u64 {
        let entries = self.entries.len() + self.producer_bytes;
        (self.batch_bytes_so_far() + table_len(self.slices.len(), self.runs) + entries + self.switches.len() * 64 + 128) as u64
    }

    /// Keeps what became of a unit.
    fn take(&mut self, unit: &Sequenced, outcome: Outcome) {
        if self.producers.last_mut().is_some_and(|last| last.extend(unit, outcome)) {
            self.producer_bytes += producers::Entry::UNIT_LEN;
        } else {
            self.keep(producers::Entry::of(unit, outcome));
        }
    }

    fn keep(&mut self, entry: producers::Entry) {
        self.producer_bytes += producers::Entry::fixed_len(&entry.key) + entry.units.len() * producers::Entry::UNIT_LEN;
        self.producers.push(entry);
    }

    fn push(&mut self, write: &PreparedWrite, offset: Offset, position: Position, first_version: StreamVersion) -> u32 {
        let count = write.records.count();
        let place = *self.by_partition.entry(write.partition.index).or_insert_with(|| {
            let partition = Arc::clone(&write.partition);
            let builder = BatchBuilder::with_capacity(offset, self.batch_bytes);
            self.slices.push(OpenSlice { partition, base: offset, builder, runs: Vec::new(), ends_in_mark: false });
            self.slices.len() - 1
        });
        let slice = &mut self.slices[place];
        let start = slice.builder.push(&write.records, first_version, self.time);
        let is_mark = write.marking.is_some();
        let follows_mark = std::mem::replace(&mut slice.ends_in_mark, is_mark);
        match slice.runs.last_mut() {
            Some(run) if !is_mark && !follows_mark && run.end_position() == position => run.count += count,
            _ => {
                slice.runs.push(SliceRun { first_offset: offset, first_position: position, count, start });
                self.runs += 1;
            }
        }
        start
    }

    /// Finishes the batches; the place of the frame is not known yet.
    pub(crate) fn close(self, epoch: i32, end: Position) -> (Group, FrameBody) {
        let mut slices = Vec::with_capacity(self.slices.len());
        let mut frame_slices = Vec::with_capacity(self.slices.len());
        for slice in self.slices {
            let count = slice.builder.count();
            let batch = slice.builder.finish(epoch);
            let delta = |run: &SliceRun| u32::try_from(run.first_position.get() - self.first.get()).unwrap_or(u32::MAX);
            frame_slices.push(FrameSlice {
                topic: slice.partition.topic.id,
                partition: slice.partition.id,
                base: slice.base,
                count,
                runs: slice.runs.iter().map(|run| FrameRun { count: run.count, position_delta: delta(run), start: run.start }).collect(),
                batch: batch.clone(),
            });
            slices.push(Slice { partition: slice.partition, base: slice.base, count, runs: slice.runs, batch });
        }
        let mut entries = self.entries;
        self.producers.iter().for_each(|entry| entry.encode(&mut entries));
        let entries = bytes::Bytes::from(entries);
        let group = Group {
            number: self.number,
            frame_crc: 0,
            place: FramePlace::default(),
            first: self.first,
            end,
            time: self.time,
            order: order_of(&slices),
            slices,
            spans: self.spans.into(),
            marks: self.marks,
            entries: entries.clone(),
            switches: self.switches,
            loaded: true,
        };
        let frame_switch =
            |switch: &Switch| FrameSwitch { topic: switch.partition.topic.id, partition: switch.partition.id, by: switch.by };
        let switches = group.switches.iter().map(frame_switch).collect();
        (group, FrameBody { slices: frame_slices, entries, switches })
    }
}
