//! What a group lost: records that retention removed before the group had done them. Counted once, kept, and told to a member.
//!
//! Pure: a part of [`Group`], told by [`super::runner`] where each partition begins now. What a member holds is not lost while it holds it; what was
//! replaced in a compacted table or went with its stream is no loss. Offsets are counted, some of which may never have been for readers.

use std::mem;

use foldlog_log::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    delivery::{At, Now},
    group::{Group, Partition},
    members::MemberId,
    parked::{ParkedState, millis},
    progress::WINDOW,
};

/// What a partition lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lost {
    /// Offsets that were lost since the group began, or was reset.
    pub total: u64,
    /// Between which offset (inclusive) the newest of them lie: those of which no member was told, or was told last.
    pub from: u64,
    /// And which (exclusive).
    pub end: u64,
    /// How many these are; others in between were done.
    pub count: u64,
    /// When that was found.
    #[serde(rename = "at_ms", with = "millis")]
    pub at: Timestamp,
    /// Whether a member was told.
    pub told: bool,
}

impl Group {
    /// A partition begins at `first` now: what lies below is not waited for any more.
    pub fn lose(&mut self, partition: usize, first: u64, now: Now) {
        let number = u32::try_from(partition).unwrap_or(u32::MAX);
        let Partition { progress, next, pending, flights, .. } = &mut self.partitions[partition];
        let low = progress.low();
        if first <= low {
            return;
        }
        let held: Vec<u64> = flights.range(low..first).filter(|(_, flight)| !flight.is_replayed()).map(|(offset, _)| *offset).collect();
        // What follows an event that is held is let go in parts, as it is taken in.
        let end = if held.is_empty() { first } else { first.min(low + WINDOW) };
        let count = (end - low) - progress.done_below(end) - held.iter().filter(|offset| **offset < end).count() as u64;
        // Those that block as the events that they are; one that is parked besides stays parked.
        let blocking = self.parked.range((number, low)..(number, end)).filter(|(_, parked)| parked.state == ParkedState::Blocking);
        let blocking: Vec<At> = blocking.map(|(at, _)| *at).filter(|at| !progress.is_done(at.1)).collect();
        if held.is_empty() {
            progress.jump(end);
        } else {
            (low..end).filter(|offset| held.binary_search(offset).is_err()).for_each(|offset| progress.complete(offset));
        }
        *next = (*next).max(end).max(progress.low());
        pending.retain(|offset, entry| *offset >= end || entry.replayed);
        blocking.into_iter().for_each(|at| self.forget_parked(at));
        if count > 0 {
            self.count_loss(number, low, end, count, now.wall);
        }
    }

    fn count_loss(&mut self, partition: u32, from: u64, end: u64, count: u64, at: Timestamp) {
        let before = self.lost.get(&partition).copied();
        let total = before.map_or(0, |before| before.total) + count;
        let lost = match before.filter(|before| !before.told) {
            Some(untold) => {
                Lost { total, from: untold.from.min(from), end: untold.end.max(end), count: untold.count + count, at, told: false }
            }
            None => Lost { total, from, end, count, at, told: false },
        };
        self.lost.insert(partition, lost);
        self.lost_changed.insert(partition);
    }

    /// What a partition lost.
    pub fn lost(&self, partition: u32) -> Option<&Lost> {
        self.lost.get(&partition)
    }

    /// Offsets that were lost in all partitions.
    pub fn lost_in_all(&self) -> u64 {
        self.lost.values().map(|lost| lost.total).sum()
    }

    /// Losses of which no member was told, and whose partition has one now.
    pub fn take_losses_to_tell(&mut self) -> Vec<(MemberId, u32, Lost)> {
        let mut tell = Vec::new();
        for (partition, lost) in self.lost.iter_mut().filter(|(_, lost)| !lost.told) {
            if let Some((member, _)) = self.members.owner(*partition as usize) {
                lost.told = true;
                self.lost_changed.insert(*partition);
                tell.push((member, *partition, *lost));
            }
        }
        tell
    }

    /// Losses to be written.
    pub(super) fn take_changed_losses(&mut self) -> Vec<(u32, Lost)> {
        mem::take(&mut self.lost_changed).into_iter().filter_map(|partition| Some((partition, *self.lost.get(&partition)?))).collect()
    }
}
