//! Scalar functions: one registry of what they are called, what they take, what they compute and what is said of them.
//!
//! Each family has a file whose `FUNCTIONS` are data; [`find`] is asked by the resolver of expressions, [`all`] by SHOW and
//! DESCRIBE, and [`udfs`] gives the same functions to DataFusion's planner. What always holds: a kernel is total. Where a row has
//! no value it gives NULL and tells the row, and no call makes much out of little.

mod arrays;
mod bytes;
pub(crate) mod calendar;
mod call;
pub(crate) mod chance;
mod choice;
mod compiled;
mod dates;
mod definition;
mod input;
mod json;
mod lambda;
mod maps;
mod masks;
mod math;
mod pattern;
mod regex;
mod registry;
mod rounding;
mod text;
pub(crate) mod types;
pub(crate) mod units;
mod urls;
pub(crate) mod written;

pub use call::{Argument, Call};
pub(crate) use call::{Prepared, Registered};
pub use dates::of_query;
pub use definition::{Family, Scope};
pub use lambda::LambdaBody;
pub use registry::{Function, all, find, udfs};
pub use units::is_unit;

#[cfg(test)]
mod tests;
