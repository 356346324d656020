//! Checkpoints of query state: a restart goes on from the newest one, and from nothing that is not exactly that.
//!
//! Every story compares what views show after a restart with what an engine without checkpoints folds from the same log, and
//! counts the records that were read again. The toy that must fail here is a restart that folds everything again.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[path = "../common/mod.rs"]
mod common;
mod damage;
mod disks;
mod restarts;
mod setup;
