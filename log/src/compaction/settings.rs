//! How a topic is compacted: what its creator chose.

use std::{fmt, time::Duration};

/// When a topic of kind `table` is rid of records that a newer one of the same key replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// For how long a record without a value, a tombstone, stays to be seen after what it deletes is gone: a reader that takes longer from the
    /// beginning may miss it. Default a day. Up to 100 years, whole milliseconds.
    pub delete_retention: Duration,
    /// What was recorded more recently stays, replaced or not. Default 0. At most `max_lag`, whole milliseconds.
    pub min_lag: Duration,
    /// What was replaced is gone about so long after it was recorded, however little there is to do. Default 7 days. From one second to
    /// 100 years, whole milliseconds.
    pub max_lag: Duration,
    /// A partition is compacted once so many hundredths of its bytes have not been looked at. Default 50. From 1 to 100.
    pub dirty_percent: u8,
}

const LEAST_MAX_LAG: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

impl Default for Compaction {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Display for Compaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { delete_retention, min_lag, max_lag, dirty_percent } = self;
        write!(f, "delete retention {delete_retention:?}, lag {min_lag:?} to {max_lag:?}, {dirty_percent} % dirty")
    }
}

impl Compaction {
    /// What a topic has whose creator did not say.
    pub const DEFAULT: Self = Self {
        delete_retention: Duration::from_secs(24 * 3600),
        min_lag: Duration::ZERO,
        max_lag: Duration::from_secs(7 * 24 * 3600),
        dirty_percent: 50,
    };

    /// What is wrong with it: the setting and its rule.
    pub(crate) fn fault(&self) -> Option<(&'static str, String)> {
        let is_time = |time: Duration, least| (least..=MOST).contains(&time) && time.subsec_nanos().is_multiple_of(1_000_000);
        if !is_time(self.delete_retention, Duration::ZERO) {
            return Some(("delete retention", "up to 100 years are allowed, in whole milliseconds".into()));
        }
        if !is_time(self.max_lag, LEAST_MAX_LAG) {
            return Some(("max lag", "from one second to 100 years are allowed, in whole milliseconds".into()));
        }
        if !is_time(self.min_lag, Duration::ZERO) || self.min_lag > self.max_lag {
            return Some(("min lag", format!("up to the max lag, {:?}, is allowed, in whole milliseconds", self.max_lag)));
        }
        if !(1..=100).contains(&self.dirty_percent) {
            return Some(("dirty percent", "from 1 to 100 are allowed".into()));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_units_are_refused() {
        let usual = Compaction::DEFAULT;
        let long = MOST + Duration::from_millis(1);
        for (settings, fault) in [
            (usual, None),
            (Compaction { delete_retention: Duration::ZERO, ..usual }, None),
            (Compaction { delete_retention: long, ..usual }, Some("delete retention")),
            (Compaction { max_lag: Duration::from_millis(999), ..usual }, Some("max lag")),
            (Compaction { max_lag: Duration::from_secs(1), min_lag: Duration::from_secs(1), ..usual }, None),
            (Compaction { max_lag: long, ..usual }, Some("max lag")),
            (Compaction { min_lag: usual.max_lag + Duration::from_millis(1), ..usual }, Some("min lag")),
            (Compaction { min_lag: Duration::from_micros(1), ..usual }, Some("min lag")),
            (Compaction { dirty_percent: 0, ..usual }, Some("dirty percent")),
            (Compaction { dirty_percent: 101, ..usual }, Some("dirty percent")),
        ] {
            assert_eq!(settings.fault().map(|(setting, _)| setting), fault, "{settings}");
        }
    }
}
