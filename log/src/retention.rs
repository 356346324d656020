//! How long a topic keeps its records, and which segments that lets go. Pure: no file, clock or lock.
//!
//! A topic's settings hold a [`Retention`]; [`crate::upkeep`] asks it. Invariants: whole segments go, the oldest first, and never
//! one behind which something must be kept. Of a topic of events they stay as long as something is derived from them.

use std::{fmt, time::Duration};

use crate::ids::{Offset, Position, Timestamp};

/// How long a topic keeps its records; left out, they are kept for ever. With both, what either lets go goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Records that the server recorded longer ago may go. From one second to 100 years, whole milliseconds.
    pub time: Option<Duration>,
    /// The newest so many bytes of batches stay in each partition, what is older may go. At least 16 KiB.
    pub bytes: Option<u64>,
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.time, self.bytes) {
            (None, None) => f.write_str("for ever"),
            (Some(time), None) => write!(f, "{time:?}"),
            (None, Some(bytes)) => write!(f, "{bytes} bytes"),
            (Some(time), Some(bytes)) => write!(f, "{time:?} and {bytes} bytes"),
        }
    }
}

/// A second, so that a slip of units does not empty a topic.
const LEAST_TIME: Duration = Duration::from_secs(1);
const MOST_TIME: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
const LEAST_BYTES: u64 = 16 << 10;
const MOST_BYTES: u64 = 1 << 60;
/// Segments are about so small a part of what is kept: what is kept too long is one of them.
const PARTS: u32 = 4;

impl Retention {
    /// Keeps everything.
    pub const FOR_EVER: Self = Self { time: None, bytes: None };

    /// Whether everything is kept.
    #[must_use]
    pub fn is_for_ever(&self) -> bool {
        *self == Self::FOR_EVER
    }

    /// What is wrong with it: the setting and its rule.
    pub(crate) fn fault(&self) -> Option<(&'static str, String)> {
        let is_whole = |time: &Duration| time.subsec_nanos().is_multiple_of(1_000_000);
        if self.time.is_some_and(|time| !(LEAST_TIME..=MOST_TIME).contains(&time) || !is_whole(&time)) {
            return Some(("retention time", "from one second to 100 years are allowed, in whole milliseconds".into()));
        }
        if self.bytes.is_some_and(|bytes| !(LEAST_BYTES..=MOST_BYTES).contains(&bytes)) {
            return Some(("retention bytes", format!("from {LEAST_BYTES} to {MOST_BYTES} are allowed")));
        }
        None
    }

    /// How long a `.log` may become before the next segment begins, where `usual` is what the folder has.
    pub(crate) fn segment_bytes(&self, usual: u64) -> u64 {
        self.bytes.map_or(usual, |bytes| usual.min(bytes / u64::from(PARTS)))
    }

    /// How old the first record of a segment may become before the next begins, where `usual` is what the folder has.
    pub(crate) fn segment_age(&self, usual: Duration) -> Duration {
        self.time.map_or(usual, |time| usual.min(time / PARTS))
    }

    /// How many of a partition's oldest segments go: of `sealed`, the oldest first, where all its segments have `bytes` of batches,
    /// and nothing at `held` or behind it may go. With no time, age is no reason.
    pub(crate) fn lets_go(&self, sealed: &[Sealed], mut bytes: u64, now: Option<Timestamp>, held: Option<Position>) -> usize {
        let oldest =
            self.time.zip(now).map(|(time, now)| now.get().saturating_sub_unsigned(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)));
        let goes = |segment: &&Sealed| {
            let is_held = held.is_some_and(|held| segment.end_position > held);
            let is_old = oldest.is_some_and(|oldest| segment.recorded_to.get() < oldest);
            let rest = bytes.saturating_sub(segment.bytes);
            let is_too_much = self.bytes.is_some_and(|most| rest >= most);
            bytes = rest;
            !is_held && (is_old || is_too_much)
        };
        sealed.iter().take_while(goes).count()
    }
}

/// A segment to which nothing is added any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sealed {
    /// Where the next one begins.
    pub(crate) end: Offset,
    /// All in it lies below.
    pub(crate) end_position: Position,
    /// Length of its `.log`.
    pub(crate) bytes: u64,
    /// All in it was recorded then or before.
    pub(crate) recorded_to: Timestamp,
}

/// From where on a partition has its records: those before were removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LowMark {
    /// The oldest offset left; the end if nothing is.
    pub offset: Offset,
    /// What was removed lies below; 0 if nothing was.
    pub position: Position,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Five segments of 100 bytes, recorded up to 10, 20, ... 50, with ten positions each.
    fn sealed() -> Vec<Sealed> {
        let segment = |place: u32| Sealed {
            end: Offset::new(u64::from(place) * 7),
            end_position: Position::new(u64::from(place) * 10),
            bytes: 100,
            recorded_to: Timestamp::new(i64::from(place) * 10),
        };
        (1..=5).map(segment).collect()
    }

    fn by(time_ms: Option<u64>, bytes: Option<u64>) -> Retention {
        Retention { time: time_ms.map(Duration::from_millis), bytes }
    }

    #[test]
    fn segments_go_when_all_in_them_is_older() {
        let retention = by(Some(100), None);
        for (now, gone) in [(110, 0), (111, 1), (130, 2), (131, 3), (10_000, 5), (i64::MAX, 5), (i64::MIN, 0)] {
            assert_eq!(retention.lets_go(&sealed(), 500, Some(Timestamp::new(now)), None), gone, "at {now}");
        }
        assert_eq!(retention.lets_go(&sealed(), 500, None, None), 0, "nobody knows how late it is");
    }

    #[test]
    fn segments_go_as_long_as_enough_is_left() {
        // The active one has 50 bytes.
        for (bytes, gone) in [(550, 0), (451, 0), (450, 1), (50, 5), (51, 4), (1000, 0)] {
            assert_eq!(by(None, Some(bytes)).lets_go(&sealed(), 550, Some(Timestamp::new(0)), None), gone, "{bytes} bytes");
        }
    }

    #[test]
    fn with_both_rules_either_lets_go_and_neither_keeps_all() {
        let both = by(Some(100), Some(250));
        assert_eq!(both.lets_go(&sealed(), 550, Some(Timestamp::new(111)), None), 3);
        assert_eq!(both.lets_go(&sealed(), 550, Some(Timestamp::new(145)), None), 4);
        assert_eq!(Retention::FOR_EVER.lets_go(&sealed(), 550, Some(Timestamp::new(i64::MAX)), None), 0);
    }

    #[test]
    fn nothing_goes_at_or_behind_what_is_held() {
        for (held, gone) in [(0, 0), (9, 0), (10, 1), (29, 2), (30, 3), (1000, 5)] {
            let held = Some(Position::new(held));
            assert_eq!(by(Some(1), Some(0)).lets_go(&sealed(), 550, Some(Timestamp::new(1000)), held), gone, "{held:?}");
        }
    }

    #[test]
    fn what_is_kept_is_in_several_segments() {
        let day = Duration::from_secs(86_400);
        let retention = by(Some(4000), Some(40_000));
        assert_eq!((retention.segment_age(day), retention.segment_bytes(1 << 20)), (Duration::from_secs(1), 10_000));
        assert_eq!((retention.segment_age(Duration::from_millis(5)), retention.segment_bytes(99)), (Duration::from_millis(5), 99));
        assert_eq!((Retention::FOR_EVER.segment_age(day), Retention::FOR_EVER.segment_bytes(7)), (day, 7));
    }

    #[test]
    fn slips_of_units_are_refused() {
        for (retention, fault) in [
            (by(Some(999), None), Some("retention time")),
            (by(Some(1000), None), None),
            (by(Some(u64::MAX), None), Some("retention time")),
            (Retention { time: Some(Duration::from_micros(1_000_001)), bytes: None }, Some("retention time")),
            (by(None, Some(16_383)), Some("retention bytes")),
            (by(None, Some(u64::MAX)), Some("retention bytes")),
            (by(None, Some(16_384)), None),
            (Retention::FOR_EVER, None),
        ] {
            assert_eq!(retention.fault().map(|(setting, _)| setting), fault, "{retention:?}");
        }
    }
}
