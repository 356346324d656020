//! Consumer groups, for every door: members share the events of a topic, and what they do not acknowledge comes again.
//!
//! [`group`] decides (pure), [`runner`] acts, one task a group; what must be remembered are records of `_foldlog.offsets` ([`record`]), folded
//! again at a start. Memory: a group knows at most 16,384 events ahead of its deliveries and 10,000 parked ones, by reference, and
//! 8 KiB of bits a partition; there are at most [`MAX_GROUPS`] groups.

mod command;
pub mod config;
pub mod delivery;
mod fold;
pub mod group;
pub mod losses;
mod manage;
pub mod members;
pub mod outbox;
pub mod parked;
mod place;
mod progress;
mod reading;
pub mod record;
mod runner;
mod settle;
pub mod source;
pub mod status;
mod tally;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use foldlog_log::{EventQuery, LogBackend, LogError, Position, Selection, Timestamp, Topic, TopicName, clock::Clock};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot};

use self::{
    command::Command,
    config::{GroupChanges, GroupConfig, GroupName, Place},
    delivery::{At, DeliveryRef, Verdict},
    fold::Folded,
    members::{Credit, MemberId},
    outbox::Outbox,
    parked::Parked,
    record::Definition,
    runner::{Runner, random},
    source::Source,
    status::{Snapshot, Status},
};
use crate::{
    failure::{Failure, Kind},
    shutdown::Tasks,
};

/// Most groups of a server.
pub const MAX_GROUPS: usize = 1_000;
/// Commands in line for one group; who brings more waits.
const INBOX: usize = 256;

/// All groups. Cheap to clone.
#[derive(Clone)]
pub struct Groups {
    shared: Arc<Shared>,
}

/// What the runners share.
pub struct Shared {
    log: Arc<dyn LogBackend>,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
    file_reads: Arc<Semaphore>,
    groups: Mutex<BTreeMap<GroupName, Handle>>,
    /// Groups are made one at a time.
    making: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Handle {
    /// The group as it was created; its generation may be older than the runner's.
    definition: Definition,
    inbox: mpsc::Sender<Command>,
    snapshot: Arc<Mutex<Snapshot>>,
}

/// One member's side of a group.
pub struct Membership {
    member: MemberId,
    inbox: mpsc::Sender<Command>,
    /// What the group has for it.
    pub outbox: Arc<Outbox>,
    /// Where its events are.
    pub source: Source,
}

impl Groups {
    /// Folds what groups remember (blocking), and starts them.
    ///
    /// # Errors
    /// As [`fold::fold`].
    pub fn open(log: Arc<dyn LogBackend>, clock: Arc<dyn Clock>, tasks: Tasks, file_reads: Arc<Semaphore>) -> Result<Self, LogError> {
        let (folded, gone) = fold::fold(&*log)?;
        let shared = Shared { log, clock, tasks, file_reads, groups: Mutex::default(), making: tokio::sync::Mutex::default() };
        let groups = Self { shared: Arc::new(shared) };
        for group in folded {
            // One whose topic was deleted says so, and can be reset or deleted.
            let partitions = groups.shared.log.topic(&group.definition.topic).map_or(0, |topic| topic.settings.partitions);
            let partitions = partitions.max(group.partitions());
            groups.start(group, partitions);
        }
        groups.shared.sweep(gone);
        Ok(groups)
    }

    fn start(&self, folded: Folded, partitions: u32) {
        let (sender, inbox) = mpsc::channel(INBOX);
        let topic_name = folded.definition.topic.clone();
        let topic_id = folded.definition.topic_id;
        let snapshot =
            Snapshot { topic: topic_name, topic_id, done: 0, oldest: None, members: 0, in_flight: 0, parked: 0, redeliveries: 0, lost: 0 };
        let snapshot = Arc::new(Mutex::new(snapshot));
        let definition = folded.definition.clone();
        let runner = Runner::new(Arc::clone(&self.shared), folded, partitions, inbox, Arc::clone(&snapshot));
        self.shared.groups.lock().insert(definition.name.clone(), Handle { definition, inbox: sender, snapshot });
        self.shared.tasks.spawn("group", runner.run());
    }

    /// Creates a group, or finds that it exists with the same settings.
    ///
    /// # Errors
    /// GROUP_EXISTS with other settings, TOPIC_NOT_FOUND, RESERVED_NAME for topics of foldlog itself, GROUP_LIMIT.
    pub async fn create(&self, name: GroupName, topic: TopicName, config: GroupConfig, start: Place) -> Result<Definition, Failure> {
        if topic.is_system() {
            return Err(Failure::field("RESERVED_NAME", "topic", "topics named _foldlog.* belong to foldlog itself"));
        }
        let _one_at_a_time = self.shared.making.lock().await;
        if let Some(handle) = self.shared.groups.lock().get(&name) {
            let existing = &handle.definition;
            if existing.topic == topic && existing.config == config {
                return Ok(existing.clone());
            }
            let message = format!("group {name} exists, over topic {} or with other settings than these", existing.topic);
            return Err(Failure::new(Kind::Exists, "GROUP_EXISTS", message));
        }
        if self.shared.groups.lock().len() >= MAX_GROUPS {
            let message = format!("there are {MAX_GROUPS} groups, which is the limit; delete one first");
            return Err(Failure::new(Kind::Exhausted, "GROUP_LIMIT", message));
        }
        let topic = self.shared.log.topic(&topic)?;
        self.check_filter(&topic, config.filter.as_ref()).await?;
        let log = Arc::clone(&self.shared.log);
        blocking(move || fold::create_topic(&*log)).await?;
        let starts = self.starts(&topic, start).await?;
        let definition = Definition {
            name,
            id: random(),
            generation: random(),
            topic: topic.name.clone(),
            topic_id: topic.id,
            config,
            created_at: self.shared.clock.now(),
        };
        let mut records = vec![definition.record().map_err(|reason| Failure::new(Kind::Internal, "GROUP_FAILED", reason))?];
        records.extend((0..).zip(&starts).map(|(partition, start)| definition.low(partition, *start)));
        self.shared.append(records, foldlog_log::Durability::Synced).await?;
        self.start(Folded::new(definition.clone(), &starts), topic.settings.partitions);
        Ok(definition)
    }

    /// Moves a group without members to another place.
    ///
    /// # Errors
    /// GROUP_NOT_FOUND, GROUP_IN_USE.
    pub async fn reset(&self, name: &GroupName, to: Place) -> Result<Status, Failure> {
        let handle = self.handle(name)?;
        let topic = self.shared.log.topic(&handle.definition.topic)?;
        // The topic may be another one than it was.
        self.check_filter(&topic, handle.definition.config.filter.as_ref()).await?;
        let starts = self.starts(&topic, to).await?;
        ask(&handle.inbox, |reply| Command::Reset(topic.id, starts, reply)).await??;
        if let Some(handle) = self.shared.groups.lock().get_mut(name) {
            handle.definition.topic_id = topic.id;
        }
        self.status(name).await
    }

    /// Alters a group; what it is to do is done so from the next delivery on.
    ///
    /// # Errors
    /// GROUP_NOT_FOUND; GROUP_IN_USE for what is fixed while it has members.
    pub async fn alter(&self, name: &GroupName, changes: GroupChanges) -> Result<Status, Failure> {
        let _one_at_a_time = self.shared.making.lock().await;
        let handle = self.handle(name)?;
        if let Some(filter) = &changes.filter {
            let topic = self.shared.log.topic(&handle.definition.topic)?;
            self.check_filter(&topic, Some(filter)).await?;
        }
        let config = ask(&handle.inbox, |reply| Command::Alter(changes, reply)).await??;
        if let Some(handle) = self.shared.groups.lock().get_mut(name) {
            handle.definition.config = config;
        }
        self.status(name).await
    }

    /// Deletes a group without members.
    ///
    /// # Errors
    /// GROUP_NOT_FOUND, GROUP_IN_USE.
    pub async fn delete(&self, name: &GroupName) -> Result<(), Failure> {
        let _one_at_a_time = self.shared.making.lock().await;
        let handle = self.handle(name)?;
        ask(&handle.inbox, Command::Delete).await??;
        self.shared.groups.lock().remove(name);
        Ok(())
    }

    /// How far a group is.
    ///
    /// # Errors
    /// GROUP_NOT_FOUND.
    pub async fn status(&self, name: &GroupName) -> Result<Status, Failure> {
        ask(&self.handle(name)?.inbox, Command::Status).await?
    }

    /// The wall clock's time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// All groups by name, with what they show.
    #[must_use]
    pub fn list(&self) -> Vec<(Definition, Snapshot)> {
        let groups = self.shared.groups.lock();
        groups.values().map(|handle| (handle.definition.clone(), handle.snapshot.lock().clone())).collect()
    }

    /// Parked events behind one, at most so many, and where they are to be read; nowhere if their topic was deleted.
    ///
    /// # Errors
    /// GROUP_NOT_FOUND.
    pub async fn list_parked(
        &self,
        name: &GroupName,
        after: Option<At>,
        limit: usize,
    ) -> Result<(Vec<(At, Parked)>, Option<Source>), Failure> {
        let handle = self.handle(name)?;
        let listed = ask(&handle.inbox, |reply| Command::ListParked(after, limit, reply)).await?;
        let Definition { topic, topic_id, .. } = handle.definition;
        let is_there = self.shared.log.topic(&topic).is_ok_and(|topic| topic.id == topic_id);
        Ok((listed, is_there.then(|| self.source(topic))))
    }

    /// Gives parked events back; empty: all.
    ///
    /// # Errors
    /// GROUP_NOT_FOUND.
    pub async fn replay(&self, name: &GroupName, places: Vec<At>) -> Result<u64, Failure> {
        ask(&self.handle(name)?.inbox, |reply| Command::Replay(places, reply)).await?
    }

    /// Forgets parked events; empty: all.
    ///
    /// # Errors
    /// GROUP_NOT_FOUND.
    pub async fn discard(&self, name: &GroupName, places: Vec<At>) -> Result<u64, Failure> {
        ask(&self.handle(name)?.inbox, |reply| Command::Discard(places, reply)).await?
    }

    /// Joins a group. The member is in it until it [leaves](Membership::leave).
    ///
    /// # Errors
    /// GROUP_NOT_FOUND; TOPIC_RECREATED when the group's place belongs to a topic that was deleted.
    pub async fn join(&self, name: &GroupName, consumer: String, credit: Credit) -> Result<Membership, Failure> {
        let handle = self.handle(name)?;
        let topic = self.shared.log.topic(&handle.definition.topic)?;
        if topic.id != handle.definition.topic_id {
            let message =
                format!("topic {} was deleted and created again since group {name} read it; delete the group or reset it", topic.name);
            return Err(Failure::new(Kind::Precondition, "TOPIC_RECREATED", message));
        }
        let outbox = Arc::new(Outbox::default());
        let its = Arc::clone(&outbox);
        let member = ask(&handle.inbox, |reply| Command::Join(consumer, credit, its, reply)).await?;
        Ok(Membership { member, inbox: handle.inbox, outbox, source: self.source(topic.name.clone()) })
    }

    fn source(&self, topic: TopicName) -> Source {
        Source { log: Arc::clone(&self.shared.log), topic, file_reads: Arc::clone(&self.shared.file_reads) }
    }

    fn handle(&self, name: &GroupName) -> Result<Handle, Failure> {
        self.shared.groups.lock().get(name).cloned().ok_or_else(|| {
            let message = format!("group {name} does not exist; create it first: foldlog group create {name} TOPIC");
            Failure::new(Kind::NotFound, "GROUP_NOT_FOUND", message)
        })
    }

    /// Refuses a filter that cannot be meant, or not of this topic.
    async fn check_filter(&self, topic: &Arc<Topic>, filter: Option<&EventQuery>) -> Result<(), Failure> {
        let Some(query) = filter.cloned() else { return Ok(()) };
        let (log, name) = (Arc::clone(&self.shared.log), topic.name.clone());
        let opened = blocking(move || Ok(log.filtered_reader(Selection::Topics(vec![name], Position::new(0)), query).map(drop))).await?;
        opened.map_err(|error| match error {
            LogError::Invalid { field, reason } if field == "query" => Failure::invalid("settings.filter", reason),
            other => other.into(),
        })
    }

    async fn starts(&self, topic: &Arc<Topic>, place: Place) -> Result<Vec<u64>, Failure> {
        let (log, topic) = (Arc::clone(&self.shared.log), Arc::clone(topic));
        blocking(move || place::starts(&*log, &topic, place)).await
    }
}

impl Membership {
    /// The member takes more.
    ///
    /// # Errors
    /// When the group has ended.
    pub async fn grant(&self, more: Credit) -> Result<(), Failure> {
        self.tell(Command::Grant(self.member, more)).await
    }

    /// The member settles deliveries, with `cumulative` also its earlier ones in their partitions.
    ///
    /// # Errors
    /// When the group has ended.
    pub async fn settle(&self, refs: Vec<DeliveryRef>, cumulative: bool, verdict: Verdict, sequence: u64) -> Result<(), Failure> {
        self.tell(Command::Settle(self.member, refs, cumulative, verdict, sequence)).await
    }

    /// The member needs more time.
    ///
    /// # Errors
    /// When the group has ended.
    pub async fn extend(&self, refs: Vec<DeliveryRef>, sequence: u64) -> Result<(), Failure> {
        self.tell(Command::Extend(self.member, refs, sequence)).await
    }

    /// A delivered event is not in the log any more.
    ///
    /// # Errors
    /// When the group has ended.
    pub async fn gone(&self, delivery: DeliveryRef) -> Result<(), Failure> {
        self.tell(Command::Gone(self.member, delivery)).await
    }

    /// The member leaves; `hands_back`: what it has not settled counts as not delivered.
    pub async fn leave(&self, hands_back: bool) {
        // A group that has ended has no members.
        drop(self.tell(Command::Leave(self.member, hands_back)).await);
    }

    async fn tell(&self, command: Command) -> Result<(), Failure> {
        self.inbox.send(command).await.map_err(|_| ended())
    }
}

async fn ask<T>(inbox: &mpsc::Sender<Command>, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Failure> {
    let (reply, answer) = oneshot::channel();
    inbox.send(command(reply)).await.map_err(|_| ended())?;
    answer.await.map_err(|_| ended())
}

/// The runner is gone: with the server, with the log, or because nothing could be written.
fn ended() -> Failure {
    Failure::new(Kind::Unavailable, "GROUP_ENDED", "the group has ended, or the server is shutting down; the server's log tells why")
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, LogError> + Send + 'static) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|_| Failure::new(Kind::Unknown, "OUTCOME_UNKNOWN", "the work was interrupted"))??)
}
