//! Whether the wall clock may be believed when something is removed because it is old.
//!
//! Upkeep asks once a pass. A clock that jumps, or stands elsewhere than the log's newest stamp says at a start, is not believed until
//! it has run steadily for a day: one wrong reading must not empty a topic. Pure: readings are given.

use std::time::Duration;

use crate::ids::Timestamp;

/// What clocks may differ by.
const LEEWAY: Duration = Duration::from_secs(3600);
/// For how long a clock must run steadily to be believed again.
const PROBATION: Duration = Duration::from_secs(24 * 3600);
/// A clock that stands before it was not set.
const YEAR_2020: Timestamp = Timestamp::new(1_577_836_800_000);

/// The judge of one clock.
#[derive(Debug)]
pub(crate) struct Steady {
    /// The readings before: of the wall clock and of the monotonic one.
    before: (Timestamp, Duration),
    /// When it was last caught, of the monotonic clock.
    doubted: Option<Duration>,
}

impl Steady {
    /// Begins at these readings; `newest` is the newest stamp in the log, if it has any.
    pub(crate) fn new(wall: Timestamp, monotonic: Duration, newest: Option<Timestamp>) -> Self {
        let jumped = newest.is_some_and(|newest| difference(wall, newest) > LEEWAY);
        Self { before: (wall, monotonic), doubted: jumped.then_some(monotonic) }
    }

    /// Takes readings; the time if it is believed.
    pub(crate) fn believed(&mut self, wall: Timestamp, monotonic: Duration) -> Option<Timestamp> {
        let (before, then) = std::mem::replace(&mut self.before, (wall, monotonic));
        let passed = i64::try_from(monotonic.saturating_sub(then).as_millis()).unwrap_or(i64::MAX);
        let expected = Timestamp::new(before.get().saturating_add(passed));
        if difference(wall, expected) > LEEWAY {
            tracing::warn!(%wall, %expected, "the clock has jumped: nothing is removed because of its age for a day");
            self.doubted = Some(monotonic);
        }
        if self.doubted.is_some_and(|since| monotonic.saturating_sub(since) >= PROBATION) {
            self.doubted = None;
        }
        (self.doubted.is_none() && wall >= YEAR_2020).then_some(wall)
    }
}

fn difference(one: Timestamp, other: Timestamp) -> Duration {
    Duration::from_millis(one.get().abs_diff(other.get()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;
    const DAY: u64 = 24 * HOUR;
    const NOW: i64 = 1_700_000_000_000;

    fn wall(after_ms: i64) -> Timestamp {
        Timestamp::new(NOW + after_ms)
    }

    #[test]
    fn a_steady_clock_is_believed() {
        let mut steady = Steady::new(wall(0), Duration::ZERO, Some(wall(-1000)));
        for hour in 0..100_u64 {
            // A few minutes each time are what slewing takes.
            let drift = if hour.is_multiple_of(2) { 300_000 } else { -300_000 };
            let now = wall(i64::try_from(hour * HOUR).unwrap() + drift);
            assert_eq!(steady.believed(now, Duration::from_millis(hour * HOUR)), Some(now));
        }
    }

    #[test]
    fn a_jump_in_either_direction_is_not_believed_for_a_day() {
        for jump in [-3 * 86_400_000, 365 * 86_400_000] {
            let mut steady = Steady::new(wall(0), Duration::ZERO, None);
            assert!(steady.believed(wall(10), Duration::from_millis(10)).is_some());
            for ms in [20, HOUR, DAY] {
                assert_eq!(steady.believed(wall(jump + i64::try_from(ms).unwrap()), Duration::from_millis(ms)), None, "{jump}, {ms}");
            }
            assert!(steady.believed(wall(jump + 86_400_020), Duration::from_millis(DAY + 20)).is_some());
            // The way back is a jump, too.
            assert_eq!(steady.believed(wall(86_400_021), Duration::from_millis(DAY + 21)), None);
        }
    }

    #[test]
    fn a_start_far_from_the_newest_stamp_is_not_believed_for_a_day() {
        for newest in [wall(-3_600_001), wall(3_600_001)] {
            let mut steady = Steady::new(wall(0), Duration::ZERO, Some(newest));
            assert_eq!(steady.believed(wall(1), Duration::from_millis(1)), None);
            assert!(steady.believed(wall(86_400_000), Duration::from_millis(DAY)).is_some());
        }
    }

    #[test]
    fn a_clock_that_was_never_set_is_not_believed() {
        let mut steady = Steady::new(Timestamp::new(0), Duration::ZERO, None);
        assert_eq!(steady.believed(Timestamp::new(0), Duration::ZERO), None);
        let late = Duration::from_millis(400 * DAY);
        assert_eq!(steady.believed(Timestamp::new(i64::try_from(400 * DAY).unwrap()), late), None);
    }
}
