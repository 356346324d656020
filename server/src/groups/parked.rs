//! Events that a group put aside: references, never copies. Listed, given back, discarded.
//!
//! Pure: the part of [`Group`] that the operator sees. A parked event is done as far as its partition's progress goes; one that
//! blocks is not, and holds its lane.

use std::{collections::BTreeMap, ops::Bound};

use foldlog_log::Timestamp;
use serde::{Deserialize, Serialize};

use super::{delivery::At, group::Group};

/// Most events that a group puts aside; what would be the next stays in the group and is tried again.
pub const MAX_PARKED: usize = 10_000;
/// Most bytes of a reason.
pub const MAX_REASON: usize = 1_024;

/// Why an event is not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParkedState {
    /// It was put aside.
    Parked,
    /// It was put aside, and its lane waits.
    Blocking,
    /// It was given back, and is not settled yet.
    Replaying,
}

/// An event that was put aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parked {
    /// Why it is not delivered.
    pub state: ParkedState,
    /// How often it was delivered (since it was given back).
    pub attempts: u32,
    /// Why it was put aside.
    pub reason: String,
    /// When it was put aside.
    #[serde(rename = "at_ms", with = "millis")]
    pub at: Timestamp,
}

impl Group {
    /// Goes on with what was put aside before.
    pub(super) fn remember_parked(&mut self, parked: BTreeMap<At, Parked>) {
        self.parked = parked.into_iter().filter(|((partition, _), _)| (*partition as usize) < self.partitions.len()).collect();
        let mut twice = Vec::new();
        for (at, parked) in &self.parked {
            let is_done = self.partitions[at.0 as usize].progress.is_done(at.1);
            match parked.state {
                ParkedState::Parked => {}
                ParkedState::Blocking | ParkedState::Replaying if is_done => drop(self.unknown.insert(*at)),
                ParkedState::Blocking => {}
                // A reset went back behind it: it comes anyway.
                ParkedState::Replaying => twice.push(*at),
            }
        }
        twice.into_iter().for_each(|at| self.forget_parked(at));
    }

    /// Parked events behind one, at most so many.
    pub fn list_parked(&self, after: Option<At>, limit: usize) -> impl Iterator<Item = (At, &Parked)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.parked.range((from, Bound::Unbounded)).take(limit).map(|(at, parked)| (*at, parked))
    }

    /// How many are put aside.
    pub fn parked(&self) -> usize {
        self.parked.len()
    }

    /// Parked events whose key must be looked up, at most so many.
    pub fn unknown(&self, limit: usize) -> Vec<At> {
        self.unknown.iter().take(limit).copied().collect()
    }

    /// Gives parked events back; empty: all. Returns how many.
    pub fn replay(&mut self, places: &[At]) -> u64 {
        let mut count = 0;
        for at in self.named(places) {
            let Some(parked) = self.parked.get_mut(&at) else { continue };
            if parked.state == ParkedState::Replaying {
                continue;
            }
            count += 1;
            let partition = &mut self.partitions[at.0 as usize];
            if !partition.progress.is_done(at.1) {
                // It blocks as the event that it is, or a reset went back behind it: its own delivery is the replay.
                partition.progress.set_attempts(at.1, 0);
                self.release(at);
                self.forget_parked(at);
                continue;
            }
            (parked.state, parked.attempts) = (ParkedState::Replaying, 0);
            self.parked_changed.insert(at);
            if partition.pending.contains_key(&at.1) {
                self.release(at);
            } else {
                self.unknown.insert(at);
            }
        }
        count
    }

    /// Forgets parked events; empty: all. Those being delivered again stay. Returns how many.
    pub fn discard(&mut self, places: &[At]) -> u64 {
        let mut count = 0;
        for at in self.named(places) {
            let Some(parked) = self.parked.get(&at) else { continue };
            let is_blocking = parked.state == ParkedState::Blocking;
            let is_done = self.partitions[at.0 as usize].progress.is_done(at.1);
            if is_done && self.is_in_flight(at) {
                continue;
            }
            count += 1;
            if is_done || is_blocking {
                self.partitions[at.0 as usize].pending.remove(&at.1);
                self.complete(at, false);
            }
            self.forget_parked(at);
        }
        count
    }

    fn named(&self, places: &[At]) -> Vec<At> {
        if places.is_empty() { self.parked.keys().copied().collect() } else { places.to_vec() }
    }

    /// Whether there is room for another.
    pub(super) fn may_park(&self, at: At) -> bool {
        self.parked.len() < MAX_PARKED || self.parked.contains_key(&at)
    }

    pub(super) fn park(&mut self, at: At, mut parked: Parked) {
        parked.reason.truncate(parked.reason.floor_char_boundary(MAX_REASON));
        self.parked.insert(at, parked);
        self.parked_changed.insert(at);
    }

    pub(super) fn forget_parked(&mut self, at: At) {
        self.unknown.remove(&at);
        if self.parked.remove(&at).is_some() {
            self.parked_changed.insert(at);
        }
    }
}

/// Times as whole milliseconds.
pub(super) mod millis {
    use foldlog_log::Timestamp;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(time.get())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        i64::deserialize(deserializer).map(Timestamp::new)
    }
}
