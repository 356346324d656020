//! What tests of the log and of the crates above it need: a disk that loses power and fails on demand, and the suite every
//! backend must pass.

pub mod conformance;
pub mod memory_log;
pub mod random;
pub mod sim_disk;

pub use memory_log::MemoryLog;
pub use random::Random;
pub use sim_disk::{CallKind, Fault, SimDisk, SyncSite};
