//! Stories of what changes the files of a folder: compaction, removal, retention of events, redaction, lives of streams, backups.
//!
//! Appends, checkpoints, upkeep, passes and commits are stepped one by one on a simulated disk, so that the power can go between any two
//! of them, and at any call to the disk.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod backup;
mod compaction;
mod leftovers;
mod lives;
mod redaction;
mod removal;
mod retained_events;
mod room;
