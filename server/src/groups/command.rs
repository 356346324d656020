//! What a group's task is asked, by members and operators.

use std::sync::Arc;

use foldlog_log::TopicId;
use tokio::sync::oneshot;

use super::{
    config::{GroupChanges, GroupConfig},
    delivery::{At, DeliveryRef, Verdict},
    members::{Credit, MemberId},
    outbox::Outbox,
    parked::Parked,
    status::Status,
};
use crate::failure::Failure;

/// What a runner is asked.
#[derive(Debug)]
pub enum Command {
    /// Somebody joins.
    Join(String, Credit, Arc<Outbox>, oneshot::Sender<MemberId>),
    /// A member takes more.
    Grant(MemberId, Credit),
    /// A member settles deliveries; `true`: and its earlier ones.
    Settle(MemberId, Vec<DeliveryRef>, bool, Verdict, u64),
    /// A member needs more time.
    Extend(MemberId, Vec<DeliveryRef>, u64),
    /// A delivered event is not in the log any more.
    Gone(MemberId, DeliveryRef),
    /// A member is gone; `true`: it says so itself.
    Leave(MemberId, bool),
    /// How far it is.
    Status(oneshot::Sender<Result<Status, Failure>>),
    /// Parked events behind one, at most so many.
    ListParked(Option<At>, usize, oneshot::Sender<Vec<(At, Parked)>>),
    /// Gives parked events back.
    Replay(Vec<At>, oneshot::Sender<Result<u64, Failure>>),
    /// Forgets parked events.
    Discard(Vec<At>, oneshot::Sender<Result<u64, Failure>>),
    /// Moves to other offsets, of this incarnation of the topic.
    Reset(TopicId, Vec<u64>, oneshot::Sender<Result<(), Failure>>),
    /// Goes on under other settings.
    Alter(GroupChanges, oneshot::Sender<Result<GroupConfig, Failure>>),
    /// Ends the group.
    Delete(oneshot::Sender<Result<(), Failure>>),
}
