//! What a group knows of an event, makes of it, and hears of it: the values that go in and out of [`super::group`]. A leaf.

use std::time::Duration;

use foldlog_log::Timestamp;

use super::{losses::Lost, members::MemberId, parked::Parked, progress::Changed};

/// The time, in both ways of telling it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For leases and pauses.
    pub monotonic: Duration,
    /// For people.
    pub wall: Timestamp,
}

/// Where an event lies: partition and offset.
pub type At = (u32, u64);

/// What a group knows of an event before it is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its place.
    pub offset: u64,
    /// Hash of its stream or key, if it has one.
    pub key: Option<u64>,
    /// Bytes of key and payload.
    pub bytes: u32,
    /// The server's time of its append.
    pub recorded_at: Timestamp,
}

/// One delivery, as a member names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeliveryRef {
    /// Where the event lies.
    pub at: At,
    /// The lease that came with it.
    pub lease: u64,
}

/// A delivery to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// To whom.
    pub member: MemberId,
    /// Event and lease.
    pub delivery: DeliveryRef,
    /// Which delivery of the event it is, from 1.
    pub attempt: u32,
    /// When the lease ends.
    pub until: Now,
    /// Whether the event was parked before.
    pub replayed: bool,
}

/// What a member says about a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is done with it.
    Done,
    /// It counts as done, though it is not.
    Skip,
    /// It shall come again, after the group's pause or another one.
    Retry(Option<Duration>, String),
    /// It is put aside.
    Park(String),
    /// It is put aside, and its lane waits.
    Block(String),
    /// As if it had not been delivered.
    HandBack,
}

/// Something to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A partition's progress.
    Progress(u32, Changed),
    /// A parked event; none: it is parked no more.
    Parked(At, Option<Parked>),
    /// What a partition lost.
    Lost(u32, Lost),
}
