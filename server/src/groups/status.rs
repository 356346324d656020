//! How far a group is: whole, for who asks, and in a few numbers that are always at hand.

use foldlog_log::{LogBackend, Timestamp, TopicId, TopicName};

use super::{losses::Lost, record::Definition};

/// How far a group is.
#[derive(Clone, Debug)]
pub struct Status {
    /// The group.
    pub definition: Definition,
    /// Members, in the order in which they joined.
    pub members: Vec<MemberStatus>,
    /// Partitions, in order.
    pub partitions: Vec<PartitionStatus>,
    /// When the oldest event that is not done was recorded.
    pub oldest: Option<Timestamp>,
    /// Deliveries that are not settled.
    pub in_flight: usize,
    /// Events that are put aside.
    pub parked: usize,
    /// Deliveries beyond each event's first, since the server started.
    pub redeliveries: u64,
    /// Offsets that were removed before they were done, since the group began or was reset.
    pub lost: u64,
    /// Whether its topic was deleted.
    pub topic_deleted: bool,
}

/// A member.
#[derive(Clone, Debug)]
pub struct MemberStatus {
    /// As it called itself.
    pub consumer: String,
    /// Its partitions.
    pub partitions: Vec<u32>,
    /// Deliveries that it has not settled.
    pub in_flight: usize,
}

/// A group's place in a partition.
#[derive(Clone, Debug)]
pub struct PartitionStatus {
    /// Everything below it is done.
    pub offset: u64,
    /// The next offset to be given.
    pub end: u64,
    /// Events that are not done.
    pub lag: u64,
    /// Why it cannot be read.
    pub error: Option<String>,
    /// What it lost.
    pub lost: Option<Lost>,
}

/// What a group shows without being asked.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Its topic.
    pub topic: TopicName,
    /// Incarnation of that.
    pub topic_id: TopicId,
    /// Events that are done, over all partitions.
    pub done: u64,
    /// As [`Status::oldest`].
    pub oldest: Option<Timestamp>,
    /// How many members.
    pub members: usize,
    /// As [`Status::in_flight`].
    pub in_flight: usize,
    /// As [`Status::parked`].
    pub parked: usize,
    /// As [`Status::redeliveries`].
    pub redeliveries: u64,
    /// As [`Status::lost`].
    pub lost: u64,
}

impl Snapshot {
    /// Whether its topic was deleted.
    pub fn topic_deleted(&self, log: &dyn LogBackend) -> bool {
        !log.topic(&self.topic).is_ok_and(|topic| topic.id == self.topic_id)
    }

    /// Events that are not done; none of a topic that was deleted.
    pub fn lag(&self, log: &dyn LogBackend) -> u64 {
        if self.topic_deleted(log) {
            return 0;
        }
        let ends = log.ends(&self.topic).unwrap_or_default();
        ends.iter().map(|end| end.get()).sum::<u64>().saturating_sub(self.done)
    }
}
