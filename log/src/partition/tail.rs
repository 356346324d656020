//! The tail: the durable end of the log, and its newest groups in memory.
//!
//! The committer pushes each group after its sync; readers look up and wait; tidy says what segments hold. Invariants: the end
//! never moves back, a group is visible whole, and every record that no segment holds is found here, in memory or by the
//! place of its frame.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::group::Group;
use crate::ids::{Offset, Position, Timestamp};

#[derive(Debug, Default)]
struct State {
    /// By position, without holes, up to the end.
    groups: VecDeque<Arc<Group>>,
    /// Number of the frame of the first of `groups`, counted as pushed; places in `slices` are relative to it.
    dropped: u64,
    /// For each partition: which group (counted as pushed), which slice, from which offset.
    slices: Vec<VecDeque<(u64, u32, Offset)>>,
    ends: Vec<Offset>,
    /// Memory held by loaded groups, and how many of the first groups are not loaded.
    memory: u64,
    unloaded: usize,
    /// Everything below is in segments.
    tidied: Position,
    tidied_frame: u64,
    untidied_bytes: u64,
}

/// Where in the log a time begins, as far as the tail knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Since<T> {
    /// Here: all before it is older.
    Here(T),
    /// Here, unless segments hold something as new, which then comes first.
    HereOrBefore(T),
}

/// The newest records of a folder.
#[derive(Debug)]
pub(crate) struct Tail {
    state: RwLock<State>,
    /// The durable end, and who is woken when it moves; nobody once the log has stopped.
    end: AtomicU64,
    durable: Mutex<Option<watch::Sender<Position>>>,
    budget: u64,
}

impl Tail {
    /// A tail that begins where segments end.
    pub(crate) fn new(begin: Position, tidied_frame: u64, ends: Vec<Offset>, budget: u64) -> Self {
        let slices = ends.iter().map(|_| VecDeque::new()).collect();
        let state = State { ends, slices, tidied: begin, tidied_frame, ..State::default() };
        Self { state: RwLock::new(state), end: AtomicU64::new(begin.get()), durable: Mutex::new(Some(watch::Sender::new(begin))), budget }
    }

    /// Shows a group to readers: it is durable now. Whoever waits for the end is woken by [`Tail::tell`].
    pub(crate) fn push(&self, group: Arc<Group>) {
        let end = group.end;
        let mut state = self.state.write();
        state.memory += group.memory();
        state.untidied_bytes += group.place.length;
        let at = state.dropped + state.groups.len() as u64;
        for (slice, place) in group.slices.iter().zip(0..) {
            let index = slice.partition.index;
            if state.ends.len() <= index {
                state.ends.resize(index + 1, Offset::default());
                state.slices.resize_with(index + 1, VecDeque::new);
            }
            state.ends[index] = slice.end();
            state.slices[index].push_back((at, place, slice.base));
        }
        // One that was unloaded comes while all before it are: a start reads them so.
        state.unloaded += usize::from(!group.loaded);
        state.groups.push_back(group);
        state.shrink(self.budget);
        // Before anybody sees the partitions' ends: what lies before one of them lies below the end.
        self.end.fetch_max(end.get(), Ordering::AcqRel);
    }

    /// Wakes whoever waits for the end, if it has moved since the last time.
    pub(crate) fn tell(&self) {
        if let Some(durable) = &*self.durable.lock() {
            let end = self.end();
            durable.send_if_modified(|shown| {
                let moved = end > *shown;
                *shown = end.max(*shown);
                moved
            });
        }
    }

    /// The end will not move any more: whoever waits for it is told.
    pub(crate) fn close(&self) {
        self.durable.lock().take();
    }

    /// Segments hold everything up to `frame`, below `position`, and are synced and checkpointed.
    pub(crate) fn tidied(&self, position: Position, frame: u64) {
        let mut state = self.state.write();
        let freed: u64 =
            state.groups.iter().filter(|group| group.number > state.tidied_frame && group.number <= frame).map(|g| g.place.length).sum();
        state.untidied_bytes -= freed;
        state.tidied = position;
        state.tidied_frame = frame;
        state.shrink(self.budget);
    }

    /// Lets go of what memory holds of frames up to `frame`. False: segments do not hold all of that yet.
    pub(crate) fn let_go(&self, frame: u64) -> bool {
        let mut state = self.state.write();
        if state.tidied_frame < frame {
            return false;
        }
        while state.groups.get(state.unloaded).is_some_and(|group| group.number <= frame) {
            state.unload();
        }
        state.shrink(self.budget);
        true
    }

    /// The durable end.
    pub(crate) fn end(&self) -> Position {
        Position::new(self.end.load(Ordering::Acquire))
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Position> {
        match &*self.durable.lock() {
            Some(durable) => durable.subscribe(),
            None => watch::channel(self.end()).1,
        }
    }

    /// Next offset to become readable in a partition.
    pub(crate) fn end_of(&self, partition: usize) -> Offset {
        self.state.read().ends.get(partition).copied().unwrap_or_default()
    }

    /// Server time of the oldest group with records that segments do not hold yet.
    pub(crate) fn untidied_since(&self) -> Option<Timestamp> {
        let state = self.state.read();
        let first = state.groups.partition_point(|group| group.number <= state.tidied_frame);
        state.groups.range(first..).find(|group| !group.slices.is_empty()).map(|group| group.time)
    }

    /// Bytes of memory that the groups take which are kept there.
    pub(crate) fn memory(&self) -> u64 {
        self.state.read().memory
    }

    /// Bytes of journal that segments do not hold yet.
    pub(crate) fn untidied_bytes(&self) -> u64 {
        self.state.read().untidied_bytes
    }

    /// Groups from the one that holds `from` on, about `bytes` of them; none: segments hold `from`, or nothing does yet.
    pub(crate) fn groups_from(&self, from: Position, bytes: u64) -> Vec<Arc<Group>> {
        let state = self.state.read();
        if state.groups.front().is_none_or(|first| from < first.first) {
            return Vec::new();
        }
        let first = state.groups.partition_point(|group| group.end <= from);
        take_bytes(state.groups.range(first..), bytes)
    }

    /// Groups that hold the partition's records from `from` on, with the place of its slice, about `bytes` of them.
    pub(crate) fn slices_from(&self, partition: usize, from: Offset, bytes: u64) -> Vec<(Arc<Group>, u32)> {
        let state = self.state.read();
        let Some(slices) = state.slices.get(partition) else { return Vec::new() };
        if slices.front().is_none_or(|(_, _, base)| from < *base) || from >= state.ends[partition] {
            return Vec::new();
        }
        let first = slices.partition_point(|(_, _, base)| *base <= from) - 1;
        state.take_slices(slices.range(first..), bytes)
    }

    /// Groups that hold records below `before`, the newest first, about `bytes` of them; none: segments hold what is there.
    pub(crate) fn groups_before(&self, before: Position, bytes: u64) -> Vec<Arc<Group>> {
        let state = self.state.read();
        let end = state.groups.partition_point(|group| group.first < before);
        take_bytes(state.groups.range(..end).rev(), bytes)
    }

    /// Groups that hold the partition's records below `before`, the newest first, with the place of its slice, about `bytes`
    /// of them; none: segments hold what is there.
    pub(crate) fn slices_before(&self, partition: usize, before: Offset, bytes: u64) -> Vec<(Arc<Group>, u32)> {
        let state = self.state.read();
        let Some(slices) = state.slices.get(partition) else { return Vec::new() };
        let end = slices.partition_point(|(_, _, base)| *base < before);
        state.take_slices(slices.range(..end).rev(), bytes)
    }

    /// The first position whose group has `time` or a later one.
    pub(crate) fn position_at(&self, time: Timestamp) -> Since<Position> {
        let state = self.state.read();
        let older = state.groups.partition_point(|group| group.time < time);
        let end = || state.groups.back().map_or_else(|| self.end(), |last| last.end);
        let place = state.groups.get(older).map_or_else(end, |group| group.first);
        if older > 0 { Since::Here(place) } else { Since::HereOrBefore(place) }
    }

    /// The first offset of a partition whose group has `time` or a later one.
    pub(crate) fn offset_at(&self, partition: usize, time: Timestamp) -> Since<Offset> {
        let state = self.state.read();
        let end = state.ends.get(partition).copied().unwrap_or_default();
        let place = state.slices.get(partition).map_or(end, |slices| {
            let older = slices.partition_point(|(at, ..)| state.group(*at).time < time);
            slices.get(older).map_or(end, |(_, _, base)| *base)
        });
        let begins_here = state.groups.front().is_some_and(|first| first.time < time);
        if begins_here { Since::Here(place) } else { Since::HereOrBefore(place) }
    }

    /// Whether reading a partition from `from` on begins in memory, or there is nothing to read.
    pub(crate) fn holds_offset(&self, partition: usize, from: Offset) -> bool {
        let state = self.state.read();
        let Some(slices) = state.slices.get(partition) else { return true };
        if from >= state.ends[partition] {
            return true;
        }
        let behind = slices.partition_point(|(_, _, base)| *base <= from);
        let Some((at, ..)) = behind.checked_sub(1).and_then(|place| slices.get(place)) else { return false };
        at - state.dropped >= state.unloaded as u64
    }

    /// Whether reading everything from `from` on begins in memory, or there is nothing to read.
    pub(crate) fn holds_position(&self, from: Position) -> bool {
        let state = self.state.read();
        match state.groups.get(state.unloaded) {
            Some(first) => from >= first.first,
            None => from >= self.end(),
        }
    }

    /// Number of the newest frame; that of the last one in segments if there is none behind it.
    pub(crate) fn last_frame(&self) -> u64 {
        let state = self.state.read();
        state.groups.back().map_or(state.tidied_frame, |group| group.number)
    }

    /// Groups of frames above `frame` up to `until`, about `bytes` of them.
    pub(crate) fn groups_after(&self, frame: u64, until: u64, bytes: u64) -> Vec<Arc<Group>> {
        let state = self.state.read();
        let first = state.groups.partition_point(|group| group.number <= frame);
        take_bytes(state.groups.range(first..).take_while(|group| group.number <= until), bytes)
    }

    /// Position below which segments hold everything.
    pub(crate) fn tidied_to(&self) -> Position {
        self.state.read().tidied
    }
}

impl State {
    /// A group by its number as pushed.
    fn group(&self, at: u64) -> &Arc<Group> {
        &self.groups[usize::try_from(at - self.dropped).unwrap_or(0)]
    }

    fn take_slices<'a>(&self, slices: impl Iterator<Item = &'a (u64, u32, Offset)>, bytes: u64) -> Vec<(Arc<Group>, u32)> {
        let mut taken = Vec::new();
        let mut sum = 0;
        for (at, slice, _) in slices {
            let group = self.group(*at);
            taken.push((Arc::clone(group), *slice));
            sum += if group.loaded { group.slices[*slice as usize].batch.len() as u64 } else { group.place.length };
            if sum >= bytes {
                break;
            }
        }
        taken
    }

    /// Keeps memory within the budget: the oldest groups go, or leave their place if no segment holds them yet.
    fn shrink(&mut self, budget: u64) {
        while self.memory > budget && self.unloaded < self.groups.len() {
            self.unload();
        }
        while self.unloaded > 0 && self.groups.front().is_some_and(|group| group.number <= self.tidied_frame) {
            let Some(group) = self.groups.pop_front() else { return };
            self.unloaded -= 1;
            for slice in &group.slices {
                self.slices[slice.partition.index].pop_front();
            }
            self.dropped += 1;
        }
    }
}

impl State {
    /// Lets go of the batches of the oldest group that has them.
    fn unload(&mut self) {
        let group = &mut self.groups[self.unloaded];
        self.memory -= group.memory();
        *group = Arc::new(group.unloaded());
        self.unloaded += 1;
    }
}

fn take_bytes<'a>(groups: impl Iterator<Item = &'a Arc<Group>>, bytes: u64) -> Vec<Arc<Group>> {
    let mut taken = Vec::new();
    let mut sum = 0;
    for group in groups {
        taken.push(Arc::clone(group));
        sum += group.place.length;
        if sum >= bytes {
            break;
        }
    }
    taken
}
