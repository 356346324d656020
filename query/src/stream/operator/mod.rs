//! Operators of a query's chain: what one step does to its rows.
//!
//! `task` builds them from a plan and runs them; readers of a view run the part behind the state again on what they read.

pub(crate) mod accumulator;
pub(crate) mod aggregate;
pub(crate) mod chain;
pub(crate) mod changed;
pub(crate) mod codec;
pub(crate) mod copy;
pub(crate) mod distinct;
pub(crate) mod explode;
pub(crate) mod moments;
pub(crate) mod newest;
pub(crate) mod packed;
pub(crate) mod sink;
