//! What a group has for one member and the member has not taken: references and small notes, bounded by the member's credit.
//!
//! Between [`super::runner`], which never waits for a member, and the door, which takes when its client has room.

use std::collections::{BTreeMap, VecDeque};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::delivery::{Delivery, DeliveryRef};
use crate::failure::{Failure, Kind};

/// Deliveries that are taken at once.
const AT_ONCE: usize = 1_000;
/// Ended leases that a member may have named without listening to what became of them.
const STALE: usize = 10_000;

/// What a member is told.
#[derive(Debug)]
pub enum Told {
    /// Events to deliver.
    Deliveries(Vec<Delivery>),
    /// Everything that the member said up to this number is durable; these leases had ended.
    Settled(u64, Vec<DeliveryRef>),
    /// Its partitions.
    Assigned(Vec<u32>),
    /// How the group reads a partition.
    Note(u32, Note),
}

/// How a group reads a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// Everything up to this offset was read.
    CaughtUp(u64),
    /// It reads from disk, at this offset, towards this end.
    FellBehind(u64, u64),
    /// Records were removed before the group had done them.
    Lost {
        /// The first of them lies here or behind.
        from: u64,
        /// The last of them lies before it.
        end: u64,
        /// How many offsets these are.
        count: u64,
    },
}

/// See the module.
#[derive(Debug, Default)]
pub struct Outbox {
    state: Mutex<State>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct State {
    deliveries: VecDeque<Delivery>,
    settled: Option<u64>,
    stale: Vec<DeliveryRef>,
    assigned: Option<Vec<u32>>,
    /// By partition: what it lost, that the group fell behind, that it caught up, as far as these are so and in this order.
    notes: BTreeMap<u32, Vec<Note>>,
    ended: Option<Failure>,
    over: bool,
}

impl Outbox {
    /// Puts deliveries in line.
    pub fn deliver(&self, delivery: Delivery) {
        self.state.lock().deliveries.push_back(delivery);
        self.filled.notify_one();
    }

    /// Everything up to `sequence` is durable.
    pub fn settled(&self, sequence: u64, mut stale: Vec<DeliveryRef>) {
        let mut state = self.state.lock();
        state.settled = state.settled.max(Some(sequence));
        state.stale.append(&mut stale);
        if state.stale.len() > STALE {
            state.stale.clear();
            let message = "the member settles deliveries and does not listen to what becomes of them";
            state.ended.get_or_insert(Failure::new(Kind::Exhausted, "SLOW_READER", message));
        }
        drop(state);
        self.filled.notify_one();
    }

    /// The member's partitions changed.
    pub fn assigned(&self, partitions: Vec<u32>) {
        self.state.lock().assigned = Some(partitions);
        self.filled.notify_one();
    }

    /// A partition is read in another way.
    pub fn note(&self, partition: u32, note: Note) {
        let mut state = self.state.lock();
        let notes = state.notes.entry(partition).or_default();
        if let Note::Lost { from, end, count } = note {
            // What is not taken is told together.
            let merged = match notes.first() {
                Some(Note::Lost { from: first, end: last, count: before }) => {
                    let merged = Note::Lost { from: from.min(*first), end: end.max(*last), count: count + before };
                    notes.remove(0);
                    merged
                }
                _ => note,
            };
            notes.insert(0, merged);
        } else {
            // Of how it is read the newest counts; that it caught up says nothing against having fallen behind before.
            let stays = |before: &Note| matches!((before, note), (Note::Lost { .. }, _) | (Note::FellBehind(..), Note::CaughtUp(_)));
            notes.retain(stays);
            notes.push(note);
        }
        drop(state);
        self.filled.notify_one();
    }

    /// The membership ends: well, or with a failure, which comes at once.
    pub fn end(&self, failure: Option<Failure>) {
        let mut state = self.state.lock();
        if state.ended.is_none() {
            state.ended = failure;
        }
        state.over = true;
        drop(state);
        self.filled.notify_one();
    }

    /// What comes next; none at the end. Cancel-safe.
    ///
    /// # Errors
    /// Why the membership ended.
    pub async fn next(&self) -> Result<Option<Told>, Failure> {
        loop {
            {
                let mut state = self.state.lock();
                if let Some(told) = state.take() {
                    return Ok(Some(told));
                }
                if let Some(failure) = state.ended.take() {
                    state.over = true;
                    return Err(failure);
                }
                if state.over {
                    return Ok(None);
                }
            }
            self.filled.notified().await;
        }
    }
}

impl State {
    fn take(&mut self) -> Option<Told> {
        if let Some(assigned) = self.assigned.take() {
            return Some(Told::Assigned(assigned));
        }
        if let Some(sequence) = self.settled.take() {
            return Some(Told::Settled(sequence, std::mem::take(&mut self.stale)));
        }
        if self.over || self.ended.is_some() {
            return None;
        }
        if let Some(mut notes) = self.notes.first_entry() {
            let (partition, note) = (*notes.key(), notes.get_mut().remove(0));
            if notes.get().is_empty() {
                notes.remove();
            }
            return Some(Told::Note(partition, note));
        }
        let count = self.deliveries.len().min(AT_ONCE);
        (count > 0).then(|| Told::Deliveries(self.deliveries.drain(..count).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_member_that_comes_late_hears_what_still_matters_and_then_the_end() {
        let outbox = Outbox::default();
        outbox.note(0, Note::CaughtUp(1));
        outbox.note(0, Note::FellBehind(2, 9));
        outbox.note(0, Note::Lost { from: 1, end: 2, count: 1 });
        outbox.note(0, Note::CaughtUp(9));
        outbox.note(0, Note::Lost { from: 3, end: 5, count: 2 });
        outbox.settled(1, Vec::new());
        outbox.settled(3, Vec::new());
        outbox.assigned(vec![0]);
        let mut told = Vec::new();
        for _ in 0..5 {
            told.push(format!("{:?}", outbox.next().await.unwrap().unwrap()));
        }
        let lost = "Note(0, Lost { from: 1, end: 5, count: 3 })";
        assert_eq!(told, ["Assigned([0])", "Settled(3, [])", lost, "Note(0, FellBehind(2, 9))", "Note(0, CaughtUp(9))"]);
        outbox.end(Some(Failure::draining()));
        assert_eq!(outbox.next().await.unwrap_err().reason, "DRAINING");
        assert!(outbox.next().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn who_settles_without_listening_is_ended() {
        let outbox = Outbox::default();
        let stale = DeliveryRef { at: (0, 0), lease: 0 };
        for sequence in 0..=STALE as u64 {
            outbox.settled(sequence, vec![stale]);
        }
        assert!(matches!(outbox.next().await, Ok(Some(Told::Settled(..)))));
        assert_eq!(outbox.next().await.unwrap_err().reason, "SLOW_READER");
    }
}
