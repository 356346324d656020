//! The reserve of the disk: space that appends leave to what must go on when there is hardly any.
//!
//! The face asks [`Reserve::admits`] before every append, the journal before it makes a file. The figures are those of the last look at
//! the disk, which is at most a second old while anybody asks, so service returns by itself. Invariant: no lock is held over a look.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{clock::Clock, config::LogConfig, disk::Disk, error::LogError, record::Purpose};

/// How old a look may be.
const LOOK_AFTER: Duration = Duration::from_secs(1);
/// The reserve in bytes takes no larger share of a disk than one in so many.
const SMALLEST_SHARE: u64 = 10;
/// Part of the reserve that nothing but acknowledged records, on their way into segments, may use.
const LAST_PART: u64 = 4;

/// The reserve of one data folder.
#[derive(Debug)]
pub(crate) struct Reserve {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    folder: PathBuf,
    bytes: u64,
    percent: u64,
    /// When the next look is due, in nanoseconds of the monotonic clock.
    due: AtomicU64,
    free: AtomicU64,
    kept: AtomicU64,
    is_told: AtomicBool,
}

impl Reserve {
    pub(crate) fn new(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, folder: &Path, config: &LogConfig) -> Self {
        Self {
            disk,
            clock,
            folder: folder.to_owned(),
            bytes: config.reserve_bytes,
            percent: config.reserve_percent,
            due: AtomicU64::new(0),
            free: AtomicU64::new(u64::MAX),
            kept: AtomicU64::new(0),
            is_told: AtomicBool::new(false),
        }
    }

    /// Refuses what would use space that is kept for something else.
    ///
    /// # Errors
    /// [`LogError::DiskFull`].
    pub(crate) fn admits(&self, purpose: Purpose) -> Result<(), LogError> {
        self.look_if_due();
        self.leaves(0, purpose)
    }

    /// The same for a file of `length` bytes that is about to be made, after another look.
    ///
    /// # Errors
    /// [`LogError::DiskFull`].
    pub(crate) fn admits_file(&self, length: u64, purpose: Purpose) -> Result<(), LogError> {
        self.look();
        self.leaves(length, purpose)
    }

    /// Whether a spare file of `length` bytes would leave the reserve alone, as of the last look.
    pub(crate) fn has_spare(&self, length: u64) -> bool {
        self.leaves(length, Purpose::Data).is_ok()
    }

    /// Bytes that are free, where the system tells, and those that are kept.
    pub(crate) fn figures(&self) -> (Option<u64>, u64) {
        self.look_if_due();
        let free = self.free.load(Ordering::Relaxed);
        ((free != u64::MAX).then_some(free), self.kept.load(Ordering::Relaxed))
    }

    fn leaves(&self, length: u64, purpose: Purpose) -> Result<(), LogError> {
        let (free, kept) = (self.free.load(Ordering::Relaxed), self.kept.load(Ordering::Relaxed));
        let mark = match purpose {
            Purpose::Data => kept,
            Purpose::Upkeep => kept / LAST_PART,
        };
        if free.saturating_sub(length) >= mark {
            return Ok(());
        }
        let for_file = if length > 0 { format!(" for a file of {length}") } else { String::new() };
        Err(LogError::DiskFull {
            what: format!("{free} bytes are free{for_file}, {mark} are kept (log.reserve_bytes, log.reserve_percent)"),
        })
    }

    fn look_if_due(&self) {
        let due = self.due.load(Ordering::Relaxed);
        let now = nanos(self.clock.monotonic());
        // Whoever moves it looks; the others go by the last look meanwhile.
        let next = now.saturating_add(nanos(LOOK_AFTER));
        if now >= due && self.due.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.look();
        }
    }

    fn look(&self) {
        // A system that does not tell keeps nothing back; a disk that is really full still says so.
        let Ok(space) = self.disk.space(&self.folder) else { return };
        let share = |percent: u64| space.total / 100 * percent;
        let kept = self.bytes.min(space.total / SMALLEST_SHARE).max(share(self.percent));
        self.free.store(space.free, Ordering::Relaxed);
        self.kept.store(kept, Ordering::Relaxed);
        let is_low = space.free < kept;
        if self.is_told.swap(is_low, Ordering::Relaxed) != is_low {
            match is_low {
                true => {
                    tracing::warn!(free = space.free, kept, "the disk is full up to the reserve: appends are refused until there is space")
                }
                false => tracing::info!(free = space.free, kept, "there is space again: appends are taken"),
            }
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::ManualClock, ids::Timestamp, testing::SimDisk};

    const KIB: u64 = 1 << 10;

    fn reserve(config: &LogConfig) -> (SimDisk, Arc<ManualClock>, Reserve) {
        let (disk, clock) = (SimDisk::new(1), Arc::new(ManualClock::at(Timestamp::new(0))));
        let reserve = Reserve::new(Arc::new(disk.clone()), clock.clone(), Path::new("/"), config);
        (disk, clock, reserve)
    }

    #[test]
    fn the_reserve_is_a_gibibyte_or_two_percent_and_of_a_small_disk_a_tenth() {
        let (disk, clock, reserve) = reserve(&LogConfig::default());
        for (total, kept) in [(100, 10), (10 << 20, 1 << 20), (30 << 20, 1 << 20), (100 << 20, 2 << 20)] {
            disk.set_capacity(total * KIB);
            clock.advance(LOOK_AFTER);
            let (free, found) = reserve.figures();
            assert_eq!(free, Some(total * KIB));
            assert!(found.abs_diff(kept * KIB) <= kept * KIB / 50, "{found} of {total} KiB");
        }
    }

    #[test]
    fn upkeep_goes_on_to_a_quarter_and_files_are_counted_before_they_are_made() {
        let config = LogConfig { reserve_bytes: 8 * KIB, reserve_percent: 0, ..LogConfig::default() };
        let (disk, _, reserve) = reserve(&config);
        for (free, data, upkeep) in [(200, true, true), (7, false, true), (2, false, true), (1, false, false)] {
            // What is used stays out of it: the share of a tenth must not matter.
            disk.set_capacity(200 * KIB);
            let file = disk.create(Path::new("/f")).or_else(|_| disk.open(Path::new("/f"))).unwrap();
            file.set_len((200 - free) * KIB).unwrap();
            assert_eq!(reserve.admits_file(0, Purpose::Data).is_ok(), data, "{free}");
            assert_eq!(reserve.admits_file(0, Purpose::Upkeep).is_ok(), upkeep, "{free}");
            assert_eq!(reserve.admits_file(190 * KIB, Purpose::Data).is_ok(), free == 200);
        }
    }

    #[test]
    fn the_disk_is_looked_at_once_a_second_and_service_returns() {
        let (disk, clock, reserve) = reserve(&LogConfig::default());
        reserve.admits(Purpose::Data).unwrap();
        let file = disk.create(Path::new("/f")).unwrap();
        disk.set_capacity(1);
        file.set_len(1).unwrap();
        reserve.admits(Purpose::Data).unwrap();
        clock.advance(LOOK_AFTER);
        disk.set_capacity(100);
        file.set_len(99).unwrap();
        assert!(
            matches!(reserve.admits(Purpose::Data), Err(LogError::DiskFull { what }) if what.starts_with("1 bytes are free, 10 are kept"))
        );
        file.set_len(0).unwrap();
        assert!(reserve.admits(Purpose::Data).is_err());
        clock.advance(LOOK_AFTER);
        reserve.admits(Purpose::Data).unwrap();
    }
}
