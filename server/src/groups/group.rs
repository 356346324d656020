//! One consumer group as a state machine: what is delivered to whom, what became of it, and what must be remembered.
//!
//! Pure: no clock, no file, no task; [`super::runner`] brings the events' places, what members say, and the time. What
//! [`Group::take_changes`] returns must be in the log before the deliveries that were made since the last call leave. Invariants: an event
//! has at most one valid lease; of a lane (a stream, a partition) at most one event is in flight, and none before those ahead of it are
//! done or parked; what is done is delivered no more.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::Duration,
};

use foldlog_log::Timestamp;

use super::{
    config::{GroupConfig, Ordering},
    delivery::{At, Change, Delivery, DeliveryRef, Known, Now},
    losses::Lost,
    members::{Credit, MemberId, Members},
    parked::{Parked, ParkedState},
    progress::{Progress, WINDOW},
};

/// Places that a group knows ahead of its deliveries, over all partitions.
const KNOWN: usize = 16_384;
/// But so many in each partition.
const KNOWN_AT_LEAST: usize = 64;
/// What a delivery weighs beyond key and payload.
const OVERHEAD_BYTES: i64 = 128;

/// What is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Lane {
    Whole,
    Key(u64),
    Alone(u64),
}

/// When an event may be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Now,
    At(Duration),
    Never,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) lane: Lane,
    pub(super) bytes: u32,
    pub(super) recorded_at: Timestamp,
    pub(super) due: Due,
    /// Its progress is that of a parked event.
    pub(super) replayed: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    pub(super) entry: Entry,
    pub(super) member: MemberId,
    pub(super) lease: u64,
    pub(super) until: Duration,
}

impl Flight {
    /// Whether it is of a parked event.
    pub(super) const fn is_replayed(&self) -> bool {
        self.entry.replayed
    }
}

#[derive(Debug)]
pub(super) struct Partition {
    pub(super) progress: Progress,
    /// The first offset of which nothing is known.
    pub(super) next: u64,
    pub(super) pending: BTreeMap<u64, Entry>,
    pub(super) flights: BTreeMap<u64, Flight>,
    pub(super) busy: HashSet<Lane>,
}

impl Partition {
    fn of(progress: Progress) -> Self {
        let next = progress.low();
        Self { progress, next, pending: BTreeMap::new(), flights: BTreeMap::new(), busy: HashSet::new() }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Group {
    pub(super) config: GroupConfig,
    pub(super) partitions: Vec<Partition>,
    pub(super) members: Members,
    pub(super) parked: BTreeMap<At, Parked>,
    pub(super) parked_changed: BTreeSet<At>,
    /// Parked events that are to be delivered, or hold their lane, and whose lane must be looked up.
    pub(super) unknown: BTreeSet<At>,
    /// What was removed before it was done, by partition.
    pub(super) lost: BTreeMap<u32, Lost>,
    pub(super) lost_changed: BTreeSet<u32>,
    pub(super) leases: BTreeSet<(Duration, At)>,
    pub(super) waiting: BTreeSet<(Duration, At)>,
    next_lease: u64,
    pub(super) in_flight: usize,
    redeliveries: u64,
    /// The partition that comes first in the next round.
    turn: usize,
}

impl Group {
    /// A group that goes on with what was remembered. Leases are numbered from `first_lease`, which no earlier run has used.
    pub fn new(
        config: GroupConfig,
        progress: Vec<Progress>,
        parked: BTreeMap<At, Parked>,
        lost: BTreeMap<u32, Lost>,
        first_lease: u64,
    ) -> Self {
        let partitions: Vec<Partition> = progress.into_iter().map(Partition::of).collect();
        let mut group = Self {
            members: Members::of(partitions.len()),
            config,
            partitions,
            parked: BTreeMap::new(),
            parked_changed: BTreeSet::new(),
            unknown: BTreeSet::new(),
            lost,
            lost_changed: BTreeSet::new(),
            leases: BTreeSet::new(),
            waiting: BTreeSet::new(),
            next_lease: first_lease,
            in_flight: 0,
            redeliveries: 0,
            turn: 0,
        };
        group.remember_parked(parked);
        group
    }

    /// The topic has got more partitions; new ones begin at their beginning.
    pub fn grow(&mut self, partitions: usize) {
        while self.partitions.len() < partitions {
            self.partitions.push(Partition::of(Progress::default()));
        }
        self.members.grow(partitions);
    }

    /// Goes on under other settings. Where they [differ in what is fixed](GroupConfig::differs_in_what_is_fixed) nobody may be in it, and what
    /// it knew of is learnt anew; what it had passed over by then stays so.
    pub fn alter(&mut self, config: GroupConfig) {
        let begins_anew = config.differs_in_what_is_fixed(&self.config).is_some();
        self.config = config;
        if begins_anew {
            for Partition { progress, next, pending, .. } in &mut self.partitions {
                pending.clear();
                *next = progress.low();
            }
            self.unknown.clear();
            let parked = std::mem::take(&mut self.parked);
            self.remember_parked(parked);
        }
    }

    /// The first offset of a partition of which nothing is known.
    pub fn next(&self, partition: usize) -> u64 {
        self.partitions[partition].next
    }

    /// Events of a partition that are known and not done.
    pub fn undone(&self, partition: usize) -> u64 {
        let Partition { progress, next, .. } = &self.partitions[partition];
        (next - progress.low()).saturating_sub(progress.done_below(*next))
    }

    /// The number of the next lease.
    pub const fn next_lease(&self) -> u64 {
        self.next_lease
    }

    /// Who is in it.
    pub const fn members(&self) -> &Members {
        &self.members
    }

    /// Partitions.
    pub const fn partitions(&self) -> usize {
        self.partitions.len()
    }

    /// Deliveries that are not settled.
    pub const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Deliveries beyond each event's first.
    pub const fn redeliveries(&self) -> u64 {
        self.redeliveries
    }

    /// What a partition has done.
    pub fn progress(&self, partition: usize) -> &Progress {
        &self.partitions[partition].progress
    }

    /// When the oldest event that is not done was recorded, as far as that is known.
    pub fn oldest(&self) -> Option<Timestamp> {
        let oldest = |partition: &Partition| {
            let low = partition.progress.low();
            let flight = partition.flights.get(&low).map(|flight| flight.entry.recorded_at);
            flight.or_else(|| partition.pending.get(&low).map(|entry| entry.recorded_at))
        };
        self.partitions.iter().filter_map(oldest).min()
    }

    /// A member joins.
    pub fn join(&mut self, member: MemberId, credit: Credit) {
        self.members.join(member, credit);
    }

    /// A member takes more.
    pub fn grant(&mut self, member: MemberId, more: Credit) {
        self.members.grant(member, more);
    }

    /// Members whose partitions changed since the last call.
    pub fn take_assignments(&mut self) -> Vec<(MemberId, Vec<u32>)> {
        self.members.take_untold()
    }

    /// When `tick` and `deliver` have something to do next, if nothing else happens.
    pub fn wake_at(&self) -> Option<Duration> {
        let lease = self.leases.first().map(|(until, _)| *until);
        let due = self.waiting.first().map(|(due, _)| *due);
        lease.into_iter().chain(due).min()
    }

    /// From which offset on more of a partition could be used, and how many events.
    pub fn wants(&self, partition: usize) -> Option<(u64, u32)> {
        let Partition { progress, next, pending, .. } = &self.partitions[partition];
        // Without anybody to deliver to, one is known: the oldest that is not done.
        let takes = self.members.owner(partition).is_some_and(|(_, member)| member.takes());
        let most = if takes { (KNOWN / self.partitions.len()).max(KNOWN_AT_LEAST) } else { 1 };
        let room = most.saturating_sub(pending.len());
        // Not for a single place: each read costs more than what it brings.
        let is_worth_it = room > most / 4 && *next < progress.low() + WINDOW;
        is_worth_it.then(|| (*next, u32::try_from(room).unwrap_or(u32::MAX)))
    }

    /// Tells what lies in a partition from where it was wanted up to `end`; what is not among `known` is not there any more, or was never for
    /// readers. What is too far ahead of the oldest event is wanted again later.
    pub fn learn(&mut self, partition: usize, known: &[Known], end: u64) {
        for event in known {
            if !self.pass_over(partition, event.offset) {
                return;
            }
            let at = (u32::try_from(partition).unwrap_or(u32::MAX), event.offset);
            let holds = self.parked.get(&at).is_some_and(|parked| parked.state == ParkedState::Blocking);
            let entry = self.entry(event, if holds { Due::Never } else { Due::Now }, false);
            let Partition { progress, next, pending, .. } = &mut self.partitions[partition];
            if event.offset >= *next {
                *next = event.offset + 1;
                if !progress.is_done(event.offset) {
                    pending.insert(event.offset, entry);
                }
            }
        }
        self.pass_over(partition, end);
    }

    /// Nothing lies between the next offset and `offset`; tells whether that is near enough to be taken in.
    fn pass_over(&mut self, partition: usize, offset: u64) -> bool {
        let Partition { progress, next, .. } = &mut self.partitions[partition];
        let from = *next;
        if from >= offset {
            return true;
        }
        let reach = if progress.low() == from {
            progress.jump(offset);
            *next = offset.max(progress.low());
            offset
        } else {
            let reach = offset.min(progress.low() + WINDOW);
            (from..reach).for_each(|gone| progress.complete(gone));
            *next = reach.max(from);
            reach
        };
        // One that blocks its lane and is not meant any more, or not there: who put it aside must say what becomes of it.
        let number = u32::try_from(partition).unwrap_or(u32::MAX);
        let parked = self.parked.range((number, from)..(number, reach.max(from)));
        self.unknown.extend(parked.filter(|(_, parked)| parked.state == ParkedState::Blocking).map(|(at, _)| *at));
        reach == offset
    }

    /// Tells what was looked up of a parked event; none: it is not there any more.
    pub fn learn_parked(&mut self, at: At, known: Option<&Known>) {
        if !self.unknown.remove(&at) {
            return;
        }
        let (Some(known), Some(parked)) = (known, self.parked.get(&at)) else {
            self.forget_parked(at);
            return;
        };
        let entry = self.entry(known, if parked.state == ParkedState::Blocking { Due::Never } else { Due::Now }, true);
        self.partitions[at.0 as usize].pending.insert(at.1, entry);
    }

    fn entry(&self, known: &Known, due: Due, replayed: bool) -> Entry {
        let lane = match (self.config.ordering, known.key) {
            (Ordering::PerPartition, _) => Lane::Whole,
            (Ordering::PerStream, Some(key)) => Lane::Key(key),
            (Ordering::PerStream, None) | (Ordering::None, _) => Lane::Alone(known.offset),
        };
        Entry { lane, bytes: known.bytes, recorded_at: known.recorded_at, due, replayed }
    }

    /// Everything that may be delivered now. Each leaves only after [`Group::take_changes`] was written.
    pub fn deliver(&mut self, now: Now) -> Vec<Delivery> {
        let mut deliveries = Vec::new();
        let count = self.partitions.len();
        for step in 0..count {
            self.deliver_from((self.turn + step) % count, now, &mut deliveries);
        }
        self.turn = (self.turn + 1) % count.max(1);
        deliveries
    }

    fn deliver_from(&mut self, partition: usize, now: Now, deliveries: &mut Vec<Delivery>) {
        let Some((member, owner)) = self.members.owner(partition) else { return };
        let number = u32::try_from(partition).unwrap_or(u32::MAX);
        if self.unknown.range((number, 0)..=(number, u64::MAX)).next().is_some() {
            // Nobody knows yet what these hold back.
            return;
        }
        let mut credit = owner.credit;
        let mut room = (self.config.max_in_flight as usize).saturating_sub(self.in_flight);
        let Partition { pending, busy, .. } = &self.partitions[partition];
        let mut held = HashSet::new();
        let mut picked = Vec::new();
        for (offset, entry) in pending {
            if room == 0 || credit.events == 0 || credit.bytes <= 0 {
                break;
            }
            // Whether it goes or waits, what is ordered behind it waits.
            if busy.contains(&entry.lane) || !held.insert(entry.lane) {
                continue;
            }
            let is_due = match entry.due {
                Due::Now => true,
                Due::At(due) => due <= now.monotonic,
                Due::Never => false,
            };
            if is_due {
                picked.push(*offset);
                (room, credit.events) = (room - 1, credit.events - 1);
                credit.bytes -= i64::from(entry.bytes) + OVERHEAD_BYTES;
            }
        }
        if let Some(member) = self.members.get_mut(member) {
            member.credit = credit;
            member.in_flight += picked.len();
        }
        for offset in picked {
            deliveries.extend(self.send(partition, offset, member, now));
        }
    }

    fn send(&mut self, partition: usize, offset: u64, member: MemberId, now: Now) -> Option<Delivery> {
        let at = (u32::try_from(partition).unwrap_or(u32::MAX), offset);
        let entry = self.partitions[partition].pending.remove(&offset)?;
        let attempt = self.attempts(at, entry.replayed) + 1;
        self.set_attempts(at, entry.replayed, attempt);
        self.redeliveries += u64::from(attempt > 1);
        self.in_flight += 1;
        let (lease, until) = (self.next_lease, now.monotonic + self.config.ack_timeout);
        self.next_lease = self.next_lease.wrapping_add(1);
        self.leases.insert((until, at));
        let Partition { flights, busy, .. } = &mut self.partitions[partition];
        busy.insert(entry.lane);
        flights.insert(offset, Flight { entry, member, lease, until });
        let timeout_ms = i64::try_from(self.config.ack_timeout.as_millis()).unwrap_or(i64::MAX);
        let until = Now { monotonic: until, wall: Timestamp::new(now.wall.get().saturating_add(timeout_ms)) };
        Some(Delivery { member, delivery: DeliveryRef { at, lease }, attempt, until, replayed: entry.replayed })
    }

    pub(super) fn attempts(&self, at: At, replayed: bool) -> u32 {
        if replayed {
            return self.parked.get(&at).map_or(0, |parked| parked.attempts);
        }
        self.partitions[at.0 as usize].progress.attempts(at.1)
    }

    pub(super) fn set_attempts(&mut self, at: At, replayed: bool, attempts: u32) {
        if !replayed {
            self.partitions[at.0 as usize].progress.set_attempts(at.1, attempts);
        } else if let Some(parked) = self.parked.get_mut(&at) {
            parked.attempts = attempts;
            self.parked_changed.insert(at);
        }
    }

    /// A pending event may be delivered at once.
    pub(super) fn release(&mut self, at: At) {
        if let Some(entry) = self.partitions[at.0 as usize].pending.get_mut(&at.1) {
            entry.due = Due::Now;
        }
    }

    /// Whether an event was delivered and is not settled.
    pub(super) fn is_in_flight(&self, at: At) -> bool {
        self.partitions[at.0 as usize].flights.contains_key(&at.1)
    }

    /// What must be written, in this order: what is put aside comes before that it is done.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let parked = std::mem::take(&mut self.parked_changed).into_iter();
        let mut changes: Vec<Change> = parked.map(|at| Change::Parked(at, self.parked.get(&at).cloned())).collect();
        changes.extend(self.take_changed_losses().into_iter().map(|(partition, lost)| Change::Lost(partition, lost)));
        for (number, partition) in (0..).zip(&mut self.partitions) {
            changes.extend(partition.progress.take_changed().into_iter().map(|changed| Change::Progress(number, changed)));
        }
        changes
    }
}
