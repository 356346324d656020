//! The task of one group: brings it what members say, what the log holds and the time; writes what must be remembered; hands out deliveries.
//!
//! Spawned by [`super::Groups`], one a group, for as long as the group exists. It waits for nobody but the log: members take from their
//! [`Outbox`] when they please. Invariant: what [`Group::take_changes`] returns is written before the deliveries that belong to it leave, and
//! synced before a member is told that it settled something.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use foldlog_log::{Append, Durability, LogError, NewRecord, Position, Purpose, Write};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::warn;

use super::{
    Shared,
    command::Command,
    delivery::{Delivery, DeliveryRef, Now},
    fold::{self, Folded},
    group::Group,
    members::MemberId,
    outbox::{Note, Outbox},
    record::{Definition, Key},
    source::{Ahead, Source},
    status::Snapshot,
    tally::Tally,
};
use crate::failure::{Failure, Kind, chain};

/// Commands that are taken together.
const AT_ONCE: usize = 256;
/// Most records of one unit.
const UNIT: usize = 1_000;
/// Pause before a write is tried again for which there was no room.
const WRITE_AGAIN: Duration = Duration::from_millis(100);
/// A group without members looks at the log so often at most.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A member's side.
pub(super) struct Joined {
    /// As it called itself.
    pub(super) consumer: String,
    pub(super) outbox: Arc<Outbox>,
}

/// Something that is answered when it is synced.
enum Confirmation {
    Settled(MemberId, u64, Vec<DeliveryRef>),
    Count(u64, oneshot::Sender<Result<u64, Failure>>),
}

/// Whether a runner goes on.
enum Next {
    Again,
    Wait,
    End,
}

/// See the module.
pub struct Runner {
    pub(super) shared: Arc<Shared>,
    pub(super) definition: Definition,
    pub(super) source: Source,
    pub(super) group: Group,
    inbox: mpsc::Receiver<Command>,
    pub(super) joined: BTreeMap<MemberId, Joined>,
    next_member: u64,
    pub(super) ahead: Vec<Ahead>,
    /// What a filter leaves behind what the group knows, by partition.
    pub(super) tallies: Vec<Tally>,
    /// Ends of the partitions when they were last looked at.
    pub(super) ends: Vec<u64>,
    /// Partitions that could not be read: why, and when they are tried again.
    pub(super) failing: BTreeMap<usize, (String, Duration)>,
    /// Records that must be written before anything of `unsent` leaves.
    pub(super) unwritten: VecDeque<NewRecord>,
    unsent: Vec<Delivery>,
    unconfirmed: Vec<Confirmation>,
    confirming: VecDeque<(Position, Vec<Confirmation>)>,
    /// The end of what was written last.
    pub(super) written_to: Position,
    write_again_at: Option<Duration>,
    /// Until then it does not matter that the log moves.
    rests_until: Option<Duration>,
    pub(super) snapshot: Arc<Mutex<Snapshot>>,
}

impl Runner {
    /// A runner that goes on with what was folded.
    pub fn new(
        shared: Arc<Shared>,
        mut folded: Folded,
        partitions: u32,
        inbox: mpsc::Receiver<Command>,
        snapshot: Arc<Mutex<Snapshot>>,
    ) -> Self {
        let progress = folded.progress(partitions);
        // Leases of other lives of the server must not be taken for ours.
        let first_lease = random();
        let group = Group::new(folded.definition.config.clone(), progress, folded.parked, folded.lost, first_lease);
        let source =
            Source { log: Arc::clone(&shared.log), topic: folded.definition.topic.clone(), file_reads: Arc::clone(&shared.file_reads) };
        Self {
            ahead: (0..partitions).map(|_| Ahead::default()).collect(),
            tallies: Vec::new(),
            ends: Vec::new(),
            definition: folded.definition,
            written_to: shared.log.head().position,
            shared,
            source,
            group,
            inbox,
            joined: BTreeMap::new(),
            next_member: 1,
            failing: BTreeMap::new(),
            unwritten: VecDeque::new(),
            unsent: Vec::new(),
            unconfirmed: Vec::new(),
            confirming: VecDeque::new(),
            write_again_at: None,
            rests_until: None,
            snapshot,
        }
    }

    /// Runs until the group is deleted, the server drains, or the log ends.
    pub async fn run(mut self) {
        let mut durable = self.shared.log.durable();
        let drained = self.shared.tasks.drained();
        let mut drained = std::pin::pin!(drained);
        let mut commands = Vec::new();
        loop {
            let next = self.step(&mut durable).await;
            if matches!(next, Next::End) {
                return;
            }
            let (again, listens) = (matches!(next, Next::Again), self.listens());
            let pause = self.wake_at().map(|at| at.saturating_sub(self.shared.clock.monotonic()));
            // Every arm is cancel-safe.
            tokio::select! {
                biased;
                () = &mut drained => return self.drain().await,
                count = self.inbox.recv_many(&mut commands, AT_ONCE) => {
                    if count == 0 {
                        return;
                    }
                    for command in commands.drain(..) {
                        if self.obey(command).await {
                            return;
                        }
                    }
                }
                () = std::future::ready(()), if again => {}
                moved = durable.changed(), if listens => {
                    if moved.is_err() {
                        return self.end(&Failure::draining);
                    }
                    // Many groups, nobody in them, and a log that never stands still: only their numbers wait.
                    if self.joined.is_empty() && self.confirming.is_empty() {
                        self.rests_until = Some(self.shared.clock.monotonic() + LOOK_AGAIN);
                    }
                }
                () = sleep(pause) => {}
            }
        }
    }

    pub(super) fn now(&self) -> Now {
        Now { monotonic: self.shared.clock.monotonic(), wall: self.shared.clock.now() }
    }

    fn wake_at(&self) -> Option<Duration> {
        let looks_up = !self.group.unknown(1).is_empty();
        let is_missed = |partition: &usize| looks_up || self.group.wants(*partition).is_some();
        let failing = self.failing.iter().filter(|(partition, _)| is_missed(partition)).map(|(_, (_, at))| *at).min();
        self.group.wake_at().into_iter().chain(failing).chain(self.write_again_at).chain(self.rests_until).min()
    }

    /// Whether it matters that the log moves.
    fn listens(&self) -> bool {
        let reads = |partition: usize| !self.failing.contains_key(&partition) && self.group.wants(partition).is_some();
        let counts = self.definition.config.filter.is_some();
        let looks = self.rests_until.is_none() && (counts || (0..self.group.partitions()).any(reads));
        looks || !self.confirming.is_empty()
    }

    /// Obeys one command; tells whether it was the last.
    async fn obey(&mut self, command: Command) -> bool {
        let now = self.now();
        match command {
            Command::Join(consumer, credit, outbox, reply) => {
                let member = MemberId(self.next_member);
                self.next_member += 1;
                self.group.join(member, credit);
                self.joined.insert(member, Joined { consumer, outbox });
                self.rests_until = None;
                if reply.send(member).is_err() {
                    self.leave(member, true);
                }
            }
            Command::Grant(member, credit) => self.group.grant(member, credit),
            Command::Settle(member, refs, cumulative, verdict, sequence) => {
                let stale = self.group.settle(member, &refs, cumulative, &verdict, now);
                self.unconfirmed.push(Confirmation::Settled(member, sequence, stale));
            }
            Command::Extend(member, refs, sequence) => {
                let stale = self.group.extend(member, &refs, now);
                self.unconfirmed.push(Confirmation::Settled(member, sequence, stale));
            }
            Command::Gone(member, delivery) => self.gone(member, delivery, now),
            Command::Leave(member, hands_back) => self.leave(member, hands_back),
            Command::Status(reply) => {
                self.look_before_telling(now).await;
                drop(reply.send(self.status()));
            }
            Command::ListParked(after, limit, reply) => {
                let listed = self.group.list_parked(after, limit).map(|(at, parked)| (at, parked.clone())).collect();
                drop(reply.send(listed));
            }
            Command::Replay(places, reply) => {
                let count = self.group.replay(&places);
                self.unconfirmed.push(Confirmation::Count(count, reply));
            }
            Command::Discard(places, reply) => {
                let count = self.group.discard(&places);
                self.unconfirmed.push(Confirmation::Count(count, reply));
            }
            Command::Reset(topic_id, starts, reply) => {
                let outcome = self.reset(topic_id, &starts).await;
                drop(reply.send(outcome));
            }
            Command::Alter(changes, reply) => {
                let outcome = self.alter(changes).await;
                drop(reply.send(outcome));
            }
            Command::Delete(reply) => {
                let outcome = self.delete().await;
                let is_gone = outcome.is_ok();
                drop(reply.send(outcome));
                return is_gone;
            }
        }
        false
    }

    fn leave(&mut self, member: MemberId, hands_back: bool) {
        self.group.leave(member, hands_back, self.now());
        self.unsent.retain(|delivery| delivery.member != member);
        if let Some(joined) = self.joined.remove(&member) {
            joined.outbox.end(None);
        }
    }

    /// Does everything that can be done now.
    async fn step(&mut self, durable: &mut watch::Receiver<Position>) -> Next {
        let now = self.now();
        self.rests_until = self.rests_until.filter(|until| *until > now.monotonic);
        self.group.tick(now);
        self.confirm(*durable.borrow_and_update());
        for (member, partitions) in self.group.take_assignments() {
            for partition in &partitions {
                self.ahead[*partition as usize].live = false;
            }
            if let Some(joined) = self.joined.get(&member) {
                joined.outbox.assigned(partitions);
            }
        }
        for (member, partition, lost) in self.group.take_losses_to_tell() {
            if let Some(joined) = self.joined.get(&member) {
                joined.outbox.note(partition, Note::Lost { from: lost.from, end: lost.end, count: lost.count });
            }
        }
        let mut again = self.look_up_parked().await;
        again |= self.read_ahead(now).await;
        // What could not be written yet goes first.
        if self.unwritten.is_empty() {
            self.unsent.extend(self.group.deliver(now));
        }
        let outcome = self.remember(now).await;
        self.show();
        match outcome {
            Ok(()) if again => Next::Again,
            Ok(()) => Next::Wait,
            Err(failure) => self.broken(failure),
        }
    }

    /// Tells what is synced.
    fn confirm(&mut self, durable: Position) {
        while self.confirming.front().is_some_and(|(end, _)| *end <= durable) {
            for confirmation in self.confirming.pop_front().into_iter().flat_map(|(_, confirmations)| confirmations) {
                match confirmation {
                    Confirmation::Settled(member, sequence, stale) => {
                        if let Some(joined) = self.joined.get(&member) {
                            joined.outbox.settled(sequence, stale);
                        }
                    }
                    Confirmation::Count(count, reply) => drop(reply.send(Ok(count))),
                }
            }
        }
    }

    /// Writes what must be remembered; then deliveries leave.
    pub(super) async fn remember(&mut self, now: Now) -> Result<(), Failure> {
        if self.unwritten.is_empty() {
            let changes = self.group.take_changes();
            let records = changes.iter().map(|change| self.definition.change(change)).collect::<Result<Vec<_>, _>>();
            self.unwritten.extend(records.map_err(failed)?);
        }
        if self.write_again_at.is_some_and(|at| at > now.monotonic) {
            return Ok(());
        }
        self.write_again_at = None;
        while !self.unwritten.is_empty() {
            let count = self.unwritten.len().min(UNIT);
            let records: Vec<NewRecord> = self.unwritten.iter().take(count).cloned().collect();
            match self.shared.append(records, Durability::Written).await {
                Ok(end) => self.written_to = end,
                Err(error @ (LogError::Overloaded { .. } | LogError::DiskFull { .. })) => {
                    warn!(group = %self.definition.name, "a group waits for the log: {}", chain(&error));
                    self.write_again_at = Some(now.monotonic + WRITE_AGAIN);
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
            self.unwritten.drain(..count);
        }
        if !self.unconfirmed.is_empty() {
            self.confirming.push_back((self.written_to, std::mem::take(&mut self.unconfirmed)));
            self.confirm(self.shared.log.head().position);
        }
        for delivery in self.unsent.drain(..) {
            if let Some(joined) = self.joined.get(&delivery.member) {
                joined.outbox.deliver(delivery);
            }
        }
        Ok(())
    }

    /// What was said before the server drains is written; what was delivered and not settled counts as not delivered.
    async fn drain(mut self) {
        self.inbox.close();
        while let Some(command) = self.inbox.recv().await {
            if self.obey(command).await {
                return;
            }
        }
        let now = self.now();
        let members: Vec<MemberId> = self.joined.keys().copied().collect();
        members.into_iter().for_each(|member| self.group.leave(member, true, now));
        self.unsent.clear();
        self.write_again_at = None;
        let outcome = self.remember(now).await;
        let mut durable = self.shared.log.durable();
        // Fails when the log has stopped: then nothing is confirmed.
        if outcome.is_ok() && durable.wait_for(|end| *end >= self.written_to).await.is_ok() {
            self.confirm(self.written_to);
        }
        self.end(&Failure::draining);
    }

    /// Nothing can be remembered any more: better no delivery than one that is not counted.
    fn broken(&self, failure: Failure) -> Next {
        warn!(group = %self.definition.name, "a group ends: {failure}");
        self.end(&|| Failure::new(failure.kind, failure.reason, failure.message.clone()));
        Next::End
    }

    pub(super) fn end(&self, failure: &dyn Fn() -> Failure) {
        for joined in self.joined.values() {
            joined.outbox.end(Some(failure()));
        }
    }
}

/// A fault of ours.
pub(super) fn failed(reason: String) -> Failure {
    Failure::new(Kind::Internal, "GROUP_FAILED", reason)
}

async fn sleep(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}

/// A number that no other life of the server has drawn.
pub fn random() -> u64 {
    let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
    high ^ low
}

impl Shared {
    /// Appends to the groups' topic; ends when that is as durable as asked.
    ///
    /// # Errors
    /// Whatever the log says.
    pub async fn append(&self, records: Vec<NewRecord>, durability: Durability) -> Result<Position, LogError> {
        let write = Write::Records { topic: fold::topic()?, partition: None, records };
        let append = Append { writes: vec![write], durability: Some(durability), purpose: Purpose::Upkeep, ..Append::default() };
        Ok(self.log.append(append)?.await?.end)
    }

    /// Ends keys that nothing belongs to any more. If that is not done now, the next start does it.
    pub fn sweep(self: &Arc<Self>, keys: Vec<Key>) {
        if keys.is_empty() {
            return;
        }
        let shared = Arc::clone(self);
        self.tasks.spawn("sweep groups", async move {
            for keys in keys.chunks(UNIT) {
                let ended = shared.append(keys.iter().map(Key::end).collect(), Durability::Written).await;
                if let Err(error) = ended {
                    warn!("what is left of a group is removed at the next start: {}", chain(&error));
                    return;
                }
            }
        });
    }
}
