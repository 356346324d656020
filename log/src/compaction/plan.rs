//! Which partitions a pass is due for, and how far it goes. Pure: no file, clock or lock.
//!
//! Invariant: nothing at or behind what somebody holds, and nothing more recent than the topic says, is part of a plan.

use std::time::Duration;

use super::settings::Compaction;
use crate::ids::{Offset, Position, Timestamp};

/// A sealed segment as a plan sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Where the next one begins.
    pub(crate) end: Offset,
    /// All in it lies below.
    pub(crate) end_position: Position,
    /// Length of its `.log`.
    pub(crate) bytes: u64,
    /// All in it was recorded then or later.
    pub(crate) recorded_from: Timestamp,
    /// All in it was recorded then or before.
    pub(crate) recorded_to: Timestamp,
}

/// How far a partition is compacted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cleaned {
    /// Below, no record is replaced by another one below.
    pub(crate) to: Offset,
    /// From when on the last of the tombstones below may go; 0 if there are none.
    pub(crate) horizon: Timestamp,
}

/// How a partition stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// How many segments, from the oldest on, a pass may take.
    pub(super) count: usize,
    /// Bytes of those that were never part of a pass.
    pub(super) dirty: u64,
    /// Whether a pass is due.
    pub(super) is_due: bool,
}

/// How a partition stands with these sealed segments, the oldest first.
pub(super) fn standing(
    settings: &Compaction,
    candidates: &[Candidate],
    cleaned: Cleaned,
    now: Timestamp,
    held: Option<Position>,
) -> Standing {
    let before = |lag: Duration| now.get().saturating_sub_unsigned(u64::try_from(lag.as_millis()).unwrap_or(u64::MAX));
    let may_go = |one: &&Candidate| held.is_none_or(|held| one.end_position <= held) && one.recorded_to.get() <= before(settings.min_lag);
    let taken = candidates.iter().take_while(may_go);
    let (mut count, mut bytes, mut dirty, mut is_late, mut end) = (0, 0_u64, 0, false, Offset::default());
    for one in taken {
        let is_dirty = one.end > cleaned.to;
        (count, end) = (count + 1, one.end);
        bytes += one.bytes;
        dirty += if is_dirty { one.bytes } else { 0 };
        is_late |= is_dirty && one.recorded_from.get() <= before(settings.max_lag);
    }
    let is_dirty = dirty > 0 && u128::from(dirty) * 100 >= u128::from(bytes) * u128::from(settings.dirty_percent);
    // If some of it must be left alone, so must be tombstones in there.
    let has_waited = count > 0 && end >= cleaned.to && cleaned.horizon > Timestamp::default() && cleaned.horizon <= now;
    Standing { count, dirty, is_due: is_dirty || is_late || has_waited }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000_000;

    /// Four segments of ten records and 100 bytes, each recorded within a second.
    fn candidates() -> Vec<Candidate> {
        let one = |place: u32| Candidate {
            end: Offset::new(u64::from(place + 1) * 10),
            end_position: Position::new(u64::from(place + 1) * 100),
            bytes: 100,
            recorded_from: Timestamp::new(i64::from(place) * 1000),
            recorded_to: Timestamp::new(i64::from(place) * 1000 + 999),
        };
        (0..4).map(one).collect()
    }

    fn stands(settings: Compaction, cleaned_to: u64, now: i64, held: Option<u64>) -> (usize, u64, bool) {
        let cleaned = Cleaned { to: Offset::new(cleaned_to), horizon: Timestamp::default() };
        let found = standing(&settings, &candidates(), cleaned, Timestamp::new(now), held.map(Position::new));
        (found.count, found.dirty, found.is_due)
    }

    #[test]
    fn a_pass_is_due_when_enough_is_dirty() {
        let lazy = Compaction { max_lag: Duration::from_secs(10_000), ..Compaction::DEFAULT };
        for (cleaned_to, dirty, is_due) in
            [(0, 400, true), (10, 300, true), (15, 300, true), (20, 200, true), (30, 100, false), (40, 0, false)]
        {
            assert_eq!(stands(lazy, cleaned_to, NOW, None), (4, dirty, is_due), "cleaned to {cleaned_to}");
        }
        assert!(stands(Compaction { dirty_percent: 25, ..lazy }, 30, NOW, None).2);
        assert!(!stands(Compaction { dirty_percent: 100, ..lazy }, 10, NOW, None).2);
    }

    #[test]
    fn a_pass_is_due_when_something_dirty_is_old() {
        let settings = Compaction { max_lag: Duration::from_secs(100), ..Compaction::DEFAULT };
        // The last segment begins at 3,000.
        assert_eq!(stands(settings, 30, 102_999, None), (4, 100, false));
        assert_eq!(stands(settings, 30, 103_000, None), (4, 100, true));
        assert_eq!(stands(settings, 40, NOW, None), (4, 0, false));
    }

    #[test]
    fn a_pass_is_due_when_the_last_tombstones_may_go() {
        let cleaned = |horizon| Cleaned { to: Offset::new(40), horizon: Timestamp::new(horizon) };
        let is_due = |horizon, held: Option<u64>| {
            standing(&Compaction::DEFAULT, &candidates(), cleaned(horizon), Timestamp::new(NOW), held.map(Position::new)).is_due
        };
        assert_eq!((is_due(0, None), is_due(NOW, None), is_due(NOW + 1, None)), (false, true, false));
        assert_eq!((is_due(NOW, Some(399)), is_due(NOW, Some(400))), (false, true));
        assert!(!standing(&Compaction::DEFAULT, &[], cleaned(1), Timestamp::new(NOW), None).is_due);
    }

    #[test]
    fn what_is_recent_or_held_is_left_alone() {
        let settings = Compaction { min_lag: Duration::from_secs(2), ..Compaction::DEFAULT };
        for (now, count) in [(2_998, 0), (2_999, 1), (3_998, 1), (4_000, 2), (10_000, 4), (i64::MIN, 0)] {
            assert_eq!(stands(settings, 0, now, None).0, count, "at {now}");
        }
        for (held, count) in [(0, 0), (99, 0), (100, 1), (399, 3), (400, 4)] {
            assert_eq!(stands(Compaction::DEFAULT, 0, NOW, Some(held)).0, count, "held from {held}");
        }
    }
}
