//! How a log is kept: sizes, budgets and intervals. A leaf; the server nests [`LogConfig`] in its own configuration.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Size of a block of the journal: frames begin on multiples of it.
pub const BLOCK: u64 = 4096;
/// Most bytes of a group.
pub(crate) const MAX_GROUP_BYTES: u64 = 16 << 20;

/// What the log runs on. Sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Size of a journal file. Default 64 MiB: large enough that files change rarely, small enough to be zero-filled in the
    /// background. From 64 KiB to 1 GiB, a multiple of 4,096.
    pub journal_file_bytes: u64,
    /// Size of the journal's first file. Default 16 MiB, so that a new folder is ready at once. From 32 KiB to
    /// `journal_file_bytes`, a multiple of 4,096.
    pub first_journal_file_bytes: u64,
    /// Largest encoded group of units that share a sync. Default 16 MiB. From 16 KiB to 16 MiB, for all of it may be one batch;
    /// cut to a quarter of `journal_file_bytes`.
    pub group_bytes: u64,
    /// Most bytes of encoded requests waiting for the committer; more are refused. Default 64 MiB. At least 4 KiB.
    pub queue_bytes: u64,
    /// Most requests waiting for the committer; more are refused. Default 65,536. At least 1.
    pub queue_requests: usize,
    /// The newest records up to this many bytes are read from memory. Default 256 MiB. Any value.
    pub tail_bytes: u64,
    /// Bytes of journal, and of what is kept in memory of types and tags meanwhile, after which they are copied into segments.
    /// Default 32 MiB. At least 4 KiB.
    pub tidy_bytes: u64,
    /// The same, not yet in segments, over which appends are refused. Default 512 MiB. More than `tidy_bytes`.
    pub untidied_bytes: u64,
    /// Size after which a segment is closed and the next begun. Default 128 MiB. From 4 KiB to 1 GiB.
    pub segment_bytes: u64,
    /// Milliseconds after its first record at which a segment is closed and the next begun, however small it is. Default 7 days: as
    /// old as what a consumer may have missed over a week. A topic with a retention by time takes a quarter of that if it is shorter.
    /// From 1 s to 100 years.
    pub segment_age_ms: u64,
    /// Most bytes of memory that compaction takes for keys: those of what was not looked at yet are held with where their newest records lie,
    /// 20 to 40 bytes beside each key. More keys than fit take several passes. Default 128 MiB. From 64 KiB to 1 TiB.
    pub compaction_memory_bytes: u64,
    /// Most bytes of segments that compaction and removal read in a second, and so at most as many that it writes. Default 32 MiB: little beside what a
    /// disk does for appends. From 64 KiB to 1 TiB.
    pub compaction_bytes_per_second: u64,
    /// A segment is rid of events of streams that were truncated or deleted once they are so many hundredths of it. Default 50, so that they take no
    /// more than what is left. From 1 to 100.
    pub removal_percent: u64,
    /// Hours after which it is rid of them however few they are. Default 168, a week. From 0 to 876,000.
    pub removal_after_hours: u64,
    /// Milliseconds of quiet after which the last group is made provably durable. Default 50. At least 1.
    pub seal_after_ms: u64,
    /// Milliseconds after which a sync that has not ended is told, and counted as slow. Default 1,000. At least 1.
    pub stall_warn_ms: u64,
    /// Milliseconds after which a sync that has not ended ends the process: whoever waits is better told so than held. Default 20,000.
    /// More than `stall_warn_ms`, or 0: never.
    pub stall_fatal_ms: u64,
    /// Positions that a filtered read rather reads through than goes past: after a match that far away or nearer it reads on for a while before it
    /// asks for the next; where eight times as many are left, it does not ask. Default 128, which cost about as much as to ask and to open
    /// segments elsewhere. Any value.
    pub near_positions: u64,
    /// Most bytes of memory that filters of postings take: of each file of postings they tell ten bits a type, tag or pair of both, so
    /// that it is not asked for what it does not hold. Over that, files of the oldest events do without, and a condition or a filtered read
    /// that goes back to them reads a page of each. Default 256 MiB, enough for 200 million. Any value.
    pub filter_bytes: u64,
    /// Bytes of the disk that appends leave free, so that segments, compaction, deletes and the places of consumers go on when it is full;
    /// those leave a quarter. Default 1 GiB; of a disk under 10 GiB it is a tenth. 0 to 1 TiB.
    pub reserve_bytes: u64,
    /// The same in percent of the disk, if that is more. Default 2. 0 to 50; nothing is kept with both at 0.
    pub reserve_percent: u64,
    /// Bytes a second that the scrubber reads of what rests in files, to find rot early. Default 8 MiB, which disturbs no disk and reads a
    /// terabyte in a day and a half. 0 to 1 TiB; 0: nothing is scrubbed.
    pub scrub_bytes_per_second: u64,
    /// Hours between its passes. Default 168, a week. 1 to 8,760.
    pub scrub_every_hours: u64,
    /// Most request ids remembered. Default 1,000,000. At least 1.
    pub window_requests: usize,
    /// Most bytes of remembered answers. Default 128 MiB. At least 4 KiB.
    pub window_bytes: u64,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            journal_file_bytes: 64 << 20,
            first_journal_file_bytes: 16 << 20,
            group_bytes: MAX_GROUP_BYTES,
            queue_bytes: 64 << 20,
            queue_requests: 65_536,
            tail_bytes: 256 << 20,
            tidy_bytes: 32 << 20,
            untidied_bytes: 512 << 20,
            segment_bytes: 128 << 20,
            segment_age_ms: 7 * 24 * 3_600_000,
            compaction_memory_bytes: 128 << 20,
            compaction_bytes_per_second: 32 << 20,
            removal_percent: 50,
            removal_after_hours: 168,
            seal_after_ms: 50,
            stall_warn_ms: 1_000,
            stall_fatal_ms: 20_000,
            near_positions: 128,
            filter_bytes: 256 << 20,
            reserve_bytes: 1 << 30,
            reserve_percent: 2,
            scrub_bytes_per_second: 8 << 20,
            scrub_every_hours: 168,
            window_requests: 1_000_000,
            window_bytes: 128 << 20,
        }
    }
}

impl LogConfig {
    /// The same with nothing kept of the disk: for a folder that is there for a while only.
    #[must_use]
    pub fn without_reserve(self) -> Self {
        Self { reserve_bytes: 0, reserve_percent: 0, ..self }
    }

    /// Checks every field; each fault names the key and what is allowed.
    ///
    /// # Errors
    /// All faults at once.
    pub fn validate(&self) -> Result<(), Vec<String>> {
        let mut faults = Vec::new();
        let mut within = |key: &str, value: u64, from: u64, to: u64| {
            if !(from..=to).contains(&value) {
                faults.push(format!("{key} is {value}, allowed is {from} to {to}"));
            }
        };
        within("journal_file_bytes", self.journal_file_bytes, 64 << 10, 1 << 30);
        within("first_journal_file_bytes", self.first_journal_file_bytes, 32 << 10, self.journal_file_bytes);
        within("group_bytes", self.group_bytes, 4 * BLOCK, MAX_GROUP_BYTES);
        within("queue_bytes", self.queue_bytes, BLOCK, 1 << 40);
        within("queue_requests", self.queue_requests as u64, 1, 1 << 30);
        within("tidy_bytes", self.tidy_bytes, BLOCK, 1 << 40);
        within("untidied_bytes", self.untidied_bytes, self.tidy_bytes.saturating_add(1), 1 << 40);
        within("segment_bytes", self.segment_bytes, BLOCK, 1 << 30);
        within("segment_age_ms", self.segment_age_ms, 1000, 100 * 365 * 24 * 3_600_000);
        within("compaction_memory_bytes", self.compaction_memory_bytes, 64 << 10, 1 << 40);
        within("compaction_bytes_per_second", self.compaction_bytes_per_second, 64 << 10, 1 << 40);
        within("removal_percent", self.removal_percent, 1, 100);
        within("removal_after_hours", self.removal_after_hours, 0, 876_000);
        within("seal_after_ms", self.seal_after_ms, 1, 60_000);
        within("stall_warn_ms", self.stall_warn_ms, 1, 3_600_000);
        if self.stall_fatal_ms > 0 {
            within("stall_fatal_ms", self.stall_fatal_ms, self.stall_warn_ms.saturating_add(1), 86_400_000);
        }
        within("reserve_bytes", self.reserve_bytes, 0, 1 << 40);
        within("reserve_percent", self.reserve_percent, 0, 50);
        within("scrub_bytes_per_second", self.scrub_bytes_per_second, 0, 1 << 40);
        within("scrub_every_hours", self.scrub_every_hours, 1, 8_760);
        within("window_requests", self.window_requests as u64, 1, 1 << 30);
        within("window_bytes", self.window_bytes, BLOCK, 1 << 40);
        for (key, value) in [("journal_file_bytes", self.journal_file_bytes), ("first_journal_file_bytes", self.first_journal_file_bytes)] {
            if !value.is_multiple_of(BLOCK) {
                faults.push(format!("{key} is {value}, it must be a multiple of {BLOCK}"));
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    /// Largest group that fits into every journal file but the first, with room for its header and tables.
    #[must_use]
    pub fn group_limit(&self) -> u64 {
        self.group_bytes.min(self.journal_file_bytes / 4)
    }

    /// Largest encoded append: a group must have room for its frame.
    #[must_use]
    pub fn append_limit(&self) -> u64 {
        self.group_limit().saturating_sub(2 * BLOCK)
    }

    /// Age at which a segment is closed.
    #[must_use]
    pub const fn segment_age(&self) -> Duration {
        Duration::from_millis(self.segment_age_ms)
    }

    /// Quiet after which a seal frame is written.
    #[must_use]
    pub const fn seal_after(&self) -> Duration {
        Duration::from_millis(self.seal_after_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        assert_eq!(LogConfig::default().validate(), Ok(()));
    }

    #[test]
    fn every_fault_is_named() {
        let config = LogConfig {
            journal_file_bytes: 1,
            group_bytes: 17 << 20,
            segment_bytes: 0,
            untidied_bytes: 1,
            stall_fatal_ms: 1_000,
            ..LogConfig::default()
        };
        let faults = config.validate().unwrap_err().join("\n");
        for key in ["journal_file_bytes", "group_bytes", "segment_bytes", "untidied_bytes", "stall_fatal_ms"] {
            assert!(faults.contains(key), "{key} is not in {faults}");
        }
    }
}
