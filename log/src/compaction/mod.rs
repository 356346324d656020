//! Compaction by key: of a topic of kind `table` the newest record of each key stays, and what it replaces goes.
//!
//! A [`pass`] over a partition reads what came since the one before ([`keys`] remembers where the newest record of each key
//! lies), then writes sealed segments anew without what was replaced ([`judge`] decides, record by record) and has each switched in by
//! an entry of a frame. [`plan`] says when. Invariants: offsets and positions stay what they were; the newest record of a key
//! stays, a tombstone for as long as the topic says; nothing that somebody holds goes.

mod judge;
mod keys;
mod pass;
mod plan;
mod settings;
mod throttle;

pub(crate) use pass::{Compactor, run};
pub(crate) use plan::{Candidate, Cleaned};
pub use settings::Compaction;
pub(crate) use throttle::Compacting;
pub use throttle::CompactionState;
