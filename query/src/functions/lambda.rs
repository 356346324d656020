//! TRANSFORM, FILTER and REDUCE: functions of arrays and maps that call a lambda for each element.
//!
//! The resolver asks [`Function::lambda_parameters`] for the types of each lambda's parameters, compiles the bodies over batches
//! of parameters and captured columns, and calls [`Function::with_lambdas`]. A body is evaluated over the elements of all rows
//! at once; where it fails for one element, the whole row fails.

use std::fmt;

use arrow::array::ArrayRef;
use datafusion::common::Result;

use super::input::Input;
use crate::plan::Expression;

/// Computes a call with lambdas.
pub(crate) type Body = fn(&LambdaInput<'_, '_>) -> Result<ArrayRef>;

/// A lambda, compiled.
#[derive(Clone, Debug)]
pub struct LambdaBody {
    /// Its body, over a batch of its parameters and then the captured columns.
    pub body: Expression,
    /// Number of its parameters.
    pub parameters: usize,
    /// Number of captured columns; the lambdas of a call share them.
    pub captured: usize,
}

impl fmt::Display for LambdaBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} => {}", self.parameters, self.body)
    }
}

/// The arguments of a call with lambdas.
pub(crate) struct LambdaInput<'a, 'i> {
    /// The value arguments, then the captured columns.
    pub(crate) input: &'a Input<'i>,
    /// The lambdas, as they stand in the call.
    pub(crate) bodies: &'a [LambdaBody],
    /// Number of value arguments.
    pub(crate) values: usize,
}
