//! How values are distributed: sizes of groups, latency of syncs. Counted by powers of two, without a lock.
//!
//! The engine counts, whoever asks for its metrics gets a [`Distribution`].

use std::sync::atomic::{AtomicU64, Ordering};

/// Values since the start, counted by size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    /// Upper bounds (inclusive), ascending, and how many values lie above the bound before. The last bound is `u64::MAX`.
    pub buckets: Vec<(u64, u64)>,
    /// Sum of all values.
    pub sum: u64,
}

impl Distribution {
    /// How many values there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }
}

/// Counts values.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Logarithm of the first bound.
    first: u32,
    counts: Vec<AtomicU64>,
    sum: AtomicU64,
}

impl Tally {
    /// Counts with bounds from 2^`first` to 2^`last`, and what lies above.
    pub(crate) fn new(first: u32, last: u32) -> Self {
        Self { first, counts: (first..=last + 1).map(|_| AtomicU64::default()).collect(), sum: AtomicU64::default() }
    }

    pub(crate) fn add(&self, value: u64) {
        let bits = u64::BITS - value.saturating_sub(1).leading_zeros();
        let bucket = (bits.saturating_sub(self.first) as usize).min(self.counts.len() - 1);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    pub(crate) fn so_far(&self) -> Distribution {
        let last = self.counts.len() - 1;
        let bound = |place: usize, bits: u32| if place == last { u64::MAX } else { 1 << bits };
        let counted = self.counts.iter().enumerate().zip(self.first..);
        let buckets = counted.map(|((place, count), bits)| (bound(place, bits), count.load(Ordering::Relaxed))).collect();
        Distribution { buckets, sum: self.sum.load(Ordering::Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_counted_below_its_bound() {
        let tally = Tally::new(2, 4);
        for value in [0, 1, 4, 5, 8, 9, 16, 17, u64::from(u32::MAX)] {
            tally.add(value);
        }
        let counted = tally.so_far();
        assert_eq!(counted.buckets, [(4, 3), (8, 2), (16, 2), (u64::MAX, 2)]);
        assert_eq!((counted.count(), counted.sum), (9, 60 + u64::from(u32::MAX)));
    }
}
