//! Compaction by key: of a topic of kind `table` the newest record of each key stays, and what it replaces goes. And physical removal: what
//! streams of a topic of kind `events` let go when they were truncated or deleted goes, but for blanks that tell what was there.
//!
//! A [`pass`] over a partition of a table reads what came since the one before ([`keys`] remembers where the newest record of each key
//! lies), then writes sealed segments anew without what was replaced ([`judge`] decides, record by record) and has each switched in by
//! an entry of a frame. [`plan`] says when. Over a topic of events it writes those anew in which enough may go: [`removal`] looks into key
//! indexes for them, [`lives`] counts and decides. Invariants: offsets and positions stay what they were; the newest record of a key
//! stays, a tombstone for as long as the topic says; nothing that somebody holds goes.

mod judge;
mod keys;
mod lives;
mod pass;
mod plan;
mod removal;
mod settings;
mod throttle;

pub(crate) use pass::{Compactor, run};
pub(crate) use plan::{Candidate, Cleaned};
pub use settings::Compaction;
pub(crate) use throttle::Compacting;
pub use throttle::CompactionState;
