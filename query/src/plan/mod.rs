//! From statements to operators: streaming plans and their expressions. Called by `engine`, read by `stream`.

pub mod expression;
pub mod streaming;

pub use expression::{Evaluated, Expression, RowError};
pub use streaming::{AggregateCall, AggregateFunction, Node, OperatorId, Sink, SourceScan, StreamPlan};
