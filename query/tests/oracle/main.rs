//! The oracle: at every commit what a query made equals a plain evaluation of the same prefix of its source.
//!
//! The plain sides share nothing with the engine: they read the payloads with `serde_json` and compute every row anew for every
//! commit. Commits are found in the log, where each unit of a query ends with its progress, and heard through listeners and pins.
//! Random data, partitions, step sizes, changelogs and restarts, which go on from checkpoints, come from a seed, which a failure
//! prints. `groups` folds a stream, `tables` makes tables of a table; `engine` drives both. Random queries are those of
//! `oracle_random`.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[path = "../common/mod.rs"]
mod common;
mod engine;
mod groups;
mod tables;
