//! Stories of running queries beside the oracle, on plans made by hand: common positions, refusals of the log, listeners, bad rows and
//! budgets.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[path = "../common/mod.rs"]
mod common;
mod listeners;
mod positions;
mod refusals;
mod refusing;
mod running;
mod setup;
