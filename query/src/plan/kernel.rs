//! Operations of our own as functions of DataFusion: what SQL writes with signs and brackets rather than by name.
//!
//! Made by `plan/resolve`, computed by `plan/operation`, which tells the rows that failed. What always holds: a kernel is total; its
//! name says everything that it is made of, so that two of one name and type do the same.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use arrow::{array::ArrayRef, datatypes::DataType};
use datafusion::{
    common::{DataFusionError, Result, ScalarValue},
    logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, expr::ScalarFunction},
    physical_expr::{
        ScalarFunctionExpr,
        expressions::{Column, Literal},
    },
};

/// Computes a value for every row of its operands; a row that fails is NULL and its number is added.
pub(crate) trait Kernel: fmt::Debug + Send + Sync {
    /// One value a row.
    ///
    /// # Errors
    /// Only of operands that do not fit the kernel.
    fn compute(&self, operands: &[ArrayRef], rows: usize, failed: &mut Vec<usize>) -> Result<ArrayRef>;

    /// What is said of a row that failed; none: that what it is called did.
    fn reason(&self) -> Option<String> {
        None
    }
}

/// A kernel with its name and type, as DataFusion holds it.
pub(crate) struct KernelFunction {
    name: String,
    returns: DataType,
    kernel: Arc<dyn Kernel>,
    signature: Signature,
}

/// The expression that applies a kernel.
pub(crate) fn apply(name: impl Into<String>, returns: DataType, kernel: impl Kernel + 'static, operands: Vec<Expr>) -> Expr {
    let signature = Signature::user_defined(Volatility::Immutable);
    let function = KernelFunction { name: name.into(), returns, kernel: Arc::new(kernel), signature };
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(ScalarUDF::from(function)), operands))
}

/// The type of an expression that applies a kernel; none of any other.
pub(crate) fn returns(expr: &Expr) -> Option<&DataType> {
    match expr {
        Expr::ScalarFunction(call) => call.func.inner().downcast_ref::<KernelFunction>().map(|function| &function.returns),
        _ => None,
    }
}

/// A kernel over columns and literals, ready to be computed.
#[derive(Debug)]
pub(crate) struct PreparedKernel {
    kernel: Arc<dyn Kernel>,
    arguments: Vec<Place>,
}

/// Where an argument comes from.
#[derive(Debug)]
enum Place {
    /// The operand of this number.
    Operand(usize),
    /// A literal.
    Literal(ScalarValue),
}

impl PreparedKernel {
    /// Of a call whose arguments are columns of its operands and literals; none if it calls no kernel.
    ///
    /// # Errors
    /// If its arguments are anything else.
    pub(crate) fn of(call: &ScalarFunctionExpr) -> Result<Option<Self>> {
        let Some(function) = call.fun().inner().downcast_ref::<KernelFunction>() else { return Ok(None) };
        let mut arguments = Vec::with_capacity(call.args().len());
        for argument in call.args() {
            arguments.push(match (argument.downcast_ref::<Literal>(), argument.downcast_ref::<Column>()) {
                (Some(literal), _) => Place::Literal(literal.value().clone()),
                (None, Some(column)) => Place::Operand(column.index()),
                (None, None) => return Err(DataFusionError::Internal(format!("{} of an expression", call.name()))),
            });
        }
        Ok(Some(Self { kernel: Arc::clone(&function.kernel), arguments }))
    }

    /// As [`Kernel::reason`].
    pub(crate) fn reason(&self) -> Option<String> {
        self.kernel.reason()
    }

    /// One value a row; those that failed are NULL and told.
    ///
    /// # Errors
    /// As [`Kernel::compute`].
    pub(crate) fn compute(&self, operands: &[ArrayRef], rows: usize, failed: &mut Vec<usize>) -> Result<ArrayRef> {
        let argument = |place: &Place| match place {
            Place::Literal(value) => value.to_array_of_size(rows),
            Place::Operand(at) => {
                operands.get(*at).cloned().ok_or_else(|| DataFusionError::Internal(format!("a kernel without operand {at}")))
            }
        };
        let arguments = self.arguments.iter().map(argument).collect::<Result<Vec<_>>>()?;
        // A row of which several elements fail is told once.
        let mut told = Vec::new();
        let values = self.kernel.compute(&arguments, rows, &mut told)?;
        told.sort_unstable();
        told.dedup();
        failed.append(&mut told);
        Ok(values)
    }
}

impl ScalarUDFImpl for KernelFunction {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(types.to_vec())
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(self.returns.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let operands = args.args.into_iter().map(|one| one.into_array(rows)).collect::<Result<Vec<_>>>()?;
        Ok(ColumnarValue::Array(self.kernel.compute(&operands, rows, &mut Vec::new())?))
    }
}

impl fmt::Debug for KernelFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl PartialEq for KernelFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.returns == other.returns
    }
}

impl Eq for KernelFunction {}

impl Hash for KernelFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}
