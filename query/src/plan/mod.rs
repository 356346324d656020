//! From statements to operators: streaming plans and their expressions. Called by `engine`, read by `stream`.

pub mod aggregates;
pub mod chance;
mod coercion;
pub mod expression;
pub mod fault;
mod grouping;
mod growth;
pub(crate) mod kernel;
mod naming;
mod operation;
mod resolve;
pub mod select;
pub mod streaming;
pub mod table_functions;
mod together;
mod total;
mod tree;
mod zeros;

pub use expression::{Evaluated, Expression, Expressions, RowError};
pub(crate) use growth::{MAX_BATCH_BYTES, MAX_VALUE_BYTES, MAX_WORK_BYTES, bytes_of, sizes_of};
pub(crate) use naming::own_name;
pub(crate) use operation::{Operation, with_one_nan};
pub(crate) use resolve::comparison;
pub(crate) use streaming::different_values;
pub use streaming::{AggregateCall, AggregateFunction, Node, OperatorId, Sink, SourceScan, StreamPlan};
pub use table_functions::TableFunction;
pub use together::Together;
pub(crate) use zeros::with_one_zero;
