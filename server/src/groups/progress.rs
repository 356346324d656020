//! What a group has done with one partition: a low mark below which everything is done, and bits above it.
//!
//! Pure. Called by [`super::group`]. Kept in buckets of 1,024 offsets: one that changed is written again whole, one that lies below
//! the mark is no longer needed. Invariant: the record at the low mark is never done.

use std::collections::{BTreeMap, BTreeSet};

/// Offsets of one bucket.
pub const BUCKET: u64 = 1_024;
/// How far above its low mark a partition's deliveries may run; what lies beyond waits for the oldest.
pub const WINDOW: u64 = 64 * BUCKET;

/// One bucket as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Places within the bucket that are done, in order.
    pub done: Vec<u16>,
    /// Deliveries of those that are not: place and count, in order.
    pub attempts: Vec<(u16, u32)>,
}

/// A part of the progress that is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// The low mark, when it has reached another bucket.
    Low(u64),
    /// A bucket by its number; none: it lies below the low mark.
    Bucket(u64, Option<Bucket>),
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    low: u64,
    done: BTreeMap<u64, [u64; BUCKET as usize / 64]>,
    attempts: BTreeMap<u64, u32>,
    /// Buckets that were written and are needed.
    written: BTreeSet<u64>,
    changed: BTreeSet<u64>,
    low_written: u64,
}

impl Progress {
    /// The progress that was written: a low mark and buckets.
    pub fn restore(low: u64, buckets: impl IntoIterator<Item = (u64, Bucket)>) -> Self {
        let mut progress = Self { low, low_written: low, ..Self::default() };
        for (number, bucket) in buckets {
            progress.written.insert(number);
            let at = |place: u16| number.saturating_mul(BUCKET).saturating_add(u64::from(place));
            for place in bucket.done {
                progress.set(at(place));
            }
            let left = bucket.attempts.iter().map(|(place, count)| (at(*place), *count));
            progress.attempts.extend(left);
        }
        progress.rise();
        progress.attempts = progress.attempts.split_off(&progress.low);
        progress
    }

    /// Everything below it is done.
    pub const fn low(&self) -> u64 {
        self.low
    }

    /// Whether an offset is done.
    pub fn is_done(&self, offset: u64) -> bool {
        offset < self.low || self.done.get(&(offset / BUCKET)).is_some_and(|bits| bits[word(offset)] & bit(offset) != 0)
    }

    /// Deliveries of an offset that is not done.
    pub fn attempts(&self, offset: u64) -> u32 {
        self.attempts.get(&offset).copied().unwrap_or_default()
    }

    /// Sets how often an offset was delivered; nothing for one that is done.
    pub fn set_attempts(&mut self, offset: u64, attempts: u32) {
        if self.is_done(offset) {
            return;
        }
        match attempts {
            0 => self.attempts.remove(&offset),
            _ => self.attempts.insert(offset, attempts),
        };
        self.changed.insert(offset / BUCKET);
    }

    /// An offset is done.
    pub fn complete(&mut self, offset: u64) {
        if self.is_done(offset) {
            return;
        }
        self.attempts.remove(&offset);
        self.changed.insert(offset / BUCKET);
        self.set(offset);
        self.rise();
    }

    /// Nothing below `offset` is left to do.
    pub fn jump(&mut self, offset: u64) {
        if offset > self.low {
            self.low = offset;
            self.attempts = self.attempts.split_off(&offset);
            self.changed.insert(offset / BUCKET);
            self.rise();
        }
    }

    /// Offsets from the low mark on that are done.
    pub fn done_above_low(&self) -> u64 {
        self.done_below(u64::MAX)
    }

    /// Offsets from the low mark up to `end` (exclusive) that are done.
    pub fn done_below(&self, end: u64) -> u64 {
        let bits = self.done.iter().flat_map(|(number, bits)| bits.iter().enumerate().map(move |(at, word)| (*number, at as u64, *word)));
        let above = |(number, at, word): (u64, u64, u64)| {
            let first = number * BUCKET + at * 64;
            // Bits from the low mark's place in the word up to that of the end.
            let (from, end) = (self.low.saturating_sub(first).min(64), end.saturating_sub(first).min(64));
            let up_to = |place: u64| if place == 64 { u64::MAX } else { (1 << place) - 1 };
            u64::from((word & up_to(end) & !up_to(from)).count_ones())
        };
        bits.map(above).sum()
    }

    /// Buckets that were written and are still there.
    pub fn written(&self) -> impl Iterator<Item = u64> {
        self.written.iter().copied()
    }

    /// What was changed since the last call, to be written in this order.
    pub fn take_changed(&mut self) -> Vec<Changed> {
        let first = self.low / BUCKET;
        let mut parts = Vec::new();
        if first > self.low_written / BUCKET {
            parts.push(Changed::Low(self.low));
            self.low_written = self.low;
            let needed = self.written.split_off(&first);
            parts.extend(std::mem::replace(&mut self.written, needed).into_iter().map(|number| Changed::Bucket(number, None)));
        }
        for number in std::mem::take(&mut self.changed) {
            let bucket = self.bucket(number);
            let says_nothing = bucket == Bucket::default() && !self.written.contains(&number);
            if number < first || says_nothing {
                continue;
            }
            self.written.insert(number);
            parts.push(Changed::Bucket(number, Some(bucket)));
        }
        parts
    }

    fn bucket(&self, number: u64) -> Bucket {
        let first = number * BUCKET;
        let place = |offset: u64| u16::try_from(offset - first).unwrap_or(u16::MAX);
        let range = first..first + BUCKET;
        Bucket {
            done: range.clone().filter(|offset| self.is_done(*offset)).map(place).collect(),
            attempts: self.attempts.range(range).map(|(offset, count)| (place(*offset), *count)).collect(),
        }
    }

    fn set(&mut self, offset: u64) {
        if offset >= self.low {
            self.done.entry(offset / BUCKET).or_default()[word(offset)] |= bit(offset);
        }
    }

    /// Moves the low mark over what is done.
    fn rise(&mut self) {
        while self.done.get(&(self.low / BUCKET)).is_some_and(|bits| bits[word(self.low)] & bit(self.low) != 0) {
            self.low += 1;
        }
        self.done = self.done.split_off(&(self.low / BUCKET));
    }
}

const fn word(offset: u64) -> usize {
    (offset % BUCKET / 64) as usize
}

const fn bit(offset: u64) -> u64 {
    1 << (offset % 64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// What is written, as a log would keep it.
    #[derive(Default)]
    struct Disk {
        low: u64,
        buckets: BTreeMap<u64, Bucket>,
    }

    impl Disk {
        fn write(&mut self, changed: Vec<Changed>) {
            for part in changed {
                match part {
                    Changed::Low(low) => self.low = low,
                    Changed::Bucket(number, Some(bucket)) => drop(self.buckets.insert(number, bucket)),
                    Changed::Bucket(number, None) => drop(self.buckets.remove(&number)),
                }
            }
        }

        fn restore(&self) -> Progress {
            Progress::restore(self.low, self.buckets.clone())
        }
    }

    #[test]
    fn the_low_mark_rises_over_what_is_done_and_what_was_written_is_restored() {
        let (mut progress, mut disk) = (Progress::default(), Disk::default());
        progress.set_attempts(0, 3);
        for offset in [1, 2, 1_500] {
            progress.complete(offset);
        }
        disk.write(progress.take_changed());
        let restored = disk.restore();
        assert_eq!((restored.low(), restored.attempts(0), restored.is_done(1_500), restored.done_above_low()), (0, 3, true, 3));
        progress.complete(0);
        assert_eq!((progress.low(), progress.attempts(0)), (3, 0));
        (3..1_500).for_each(|offset| progress.complete(offset));
        assert_eq!(progress.low(), 1_501);
        disk.write(progress.take_changed());
        assert_eq!((disk.low, disk.buckets.keys().copied().collect::<Vec<_>>()), (1_501, vec![1]), "what is complete is gone");
        assert_eq!(disk.restore().low(), 1_501);
    }

    #[test]
    fn a_start_in_the_middle_of_a_bucket_is_kept_without_anything_written() {
        let mut progress = Progress::restore(1_100, []);
        assert!(progress.is_done(1_099) && !progress.is_done(1_100));
        progress.complete(1_100);
        let mut disk = Disk { low: 1_100, ..Disk::default() };
        disk.write(progress.take_changed());
        assert_eq!(disk.restore().low(), 1_101);
    }

    #[test]
    fn what_is_not_there_any_more_is_jumped_over_however_much_it_is() {
        let (mut progress, mut disk) = (Progress::default(), Disk::default());
        progress.set_attempts(5, 2);
        disk.write(progress.take_changed());
        progress.jump(1 << 40);
        progress.complete((1 << 40) + 1);
        disk.write(progress.take_changed());
        let restored = disk.restore();
        assert_eq!((restored.low(), restored.attempts(5), restored.done_above_low()), (1 << 40, 0, 1));
        assert_eq!(disk.buckets.len(), 1);
    }

    #[test]
    fn any_order_of_steps_is_restored_as_it_was() {
        let mut random = foldlog_log::testing::Random::new(7);
        for _ in 0..200 {
            let (mut progress, mut disk) = (Progress::default(), Disk::default());
            let mut done = std::collections::BTreeSet::new();
            for _ in 0..300 {
                let offset = progress.low() + random.below(3_000);
                if random.below(3) == 0 {
                    progress.set_attempts(offset, 1 + u32::try_from(random.below(9)).unwrap());
                } else {
                    progress.complete(offset);
                    done.insert(offset);
                }
                if random.below(4) == 0 {
                    disk.write(progress.take_changed());
                    let restored = disk.restore();
                    assert_eq!((restored.low(), &restored.attempts), (progress.low(), &progress.attempts));
                    assert_eq!(restored.done_above_low(), progress.done_above_low());
                    let end = progress.low() + random.below(2_000);
                    assert_eq!(progress.done_below(end), done.range(progress.low()..end).count() as u64);
                    assert!(done.iter().all(|offset| restored.is_done(*offset)));
                    assert!((0..progress.low()).all(|offset| done.contains(&offset)));
                }
            }
        }
    }
}
