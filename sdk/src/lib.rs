//! Typed client of foldlog, and deciders. See [`Decider`] for the domain side and [`scenario`] for its tests.

pub mod codec;
pub mod decider;
pub mod scenario;

pub use decider::Decider;
