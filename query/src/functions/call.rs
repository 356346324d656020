//! Calls of our functions: resolved for the resolver of expressions, or by name for DataFusion's planner.
//!
//! [`Registered`] is what DataFusion holds of a call. `plan/operation` knows it and computes it with the rows that failed told;
//! whoever else evaluates it gets NULL there.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use arrow::{
    array::ArrayRef,
    datatypes::{DataType, Schema},
};
use datafusion::{
    common::{DataFusionError, Result, ScalarValue},
    logical_expr::{
        ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
        simplify::{ExprSimplifyResult, SimplifyContext},
    },
    physical_expr::{
        ScalarFunctionExpr,
        expressions::{Column, Literal},
    },
};

use super::{
    dates::of_query,
    definition::Body,
    input::{Input, Operand, internal},
    lambda::{Lambda, LambdaInput},
    pattern::Coercion,
    registry::{Chosen, Function},
};
use crate::error::QueryError;

/// What a call is given at one place.
#[derive(Clone, Copy, Debug)]
pub enum Argument<'a> {
    /// A value of a type; `Null` is the literal NULL.
    Value(&'a DataType),
    /// A lambda of so many parameters.
    Lambda {
        /// Number of its parameters.
        parameters: usize,
    },
}

/// A call, resolved.
#[derive(Debug)]
pub struct Call {
    /// What computes it.
    pub udf: Arc<ScalarUDF>,
    /// The type to which the caller casts each value argument.
    pub coerced: Vec<DataType>,
    /// Type of the result.
    pub returns: DataType,
}

impl Function {
    /// Chooses the form that a call of values means.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] if no form takes these types, or several do and nothing decides between them.
    pub fn resolve(&'static self, arguments: &[Argument<'_>]) -> Result<Call, QueryError> {
        Ok(self.call(self.choose(arguments, Coercion::Widening)?, Vec::new()))
    }

    /// The same where literals have no type but BIGINT: BIGINT fits INT, and of several forms the first is taken.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] if no form takes these types.
    pub fn resolve_leniently(&'static self, arguments: &[Argument<'_>]) -> Result<Call, QueryError> {
        Ok(self.call(self.choose(arguments, Coercion::Narrowing)?, Vec::new()))
    }

    pub(crate) fn call(&'static self, chosen: Chosen, lambdas: Vec<Lambda>) -> Call {
        let Chosen { place, coerced, returns, .. } = chosen;
        let bound = Bound { place, returns: returns.clone(), values: coerced.len(), lambdas: lambdas.into() };
        Call { udf: Arc::new(ScalarUDF::from(Registered::bound(self, bound))), coerced, returns }
    }
}

/// A function of ours, as DataFusion holds it.
pub(crate) struct Registered {
    function: &'static Function,
    /// The form, once it is chosen; else the types of the arguments choose it.
    bound: Option<Bound>,
    /// As EXPLAIN shows it, with its lambdas.
    name: String,
    signature: Signature,
}

/// A call over columns and literals, ready to be computed.
#[derive(Debug)]
pub(crate) struct Prepared {
    udf: Arc<ScalarUDF>,
    bound: Bound,
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

impl Prepared {
    /// Of a call whose arguments are columns of `operands` and literals.
    ///
    /// # Errors
    /// If it is no call of ours, or not of such arguments.
    pub(crate) fn of(call: &ScalarFunctionExpr, operands: &Schema) -> Result<Self> {
        let mut arguments = Vec::with_capacity(call.args().len());
        let mut types = Vec::with_capacity(call.args().len());
        for argument in call.args() {
            types.push(argument.data_type(operands)?);
            arguments.push(match (argument.downcast_ref::<Literal>(), argument.downcast_ref::<Column>()) {
                (Some(literal), _) => Place::Literal(literal.value().clone()),
                (None, Some(column)) => Place::Operand(column.index()),
                (None, None) => return internal(format!("{} of what is neither a column nor a literal", call.name())),
            });
        }
        let udf = Arc::new(call.fun().clone());
        let Some(registered) = udf.inner().downcast_ref::<Registered>() else {
            return internal(format!("{} is none of ours", call.name()));
        };
        let bound = registered.bind(&types)?;
        Ok(Self { udf, bound, arguments })
    }

    /// Whether it has the same value for the same arguments.
    pub(crate) fn is_repeatable(&self) -> bool {
        self.registered().is_none_or(|registered| registered.function.is_repeatable(self.arguments.len()))
            && self.bound.lambdas.iter().all(Lambda::is_repeatable)
    }

    fn registered(&self) -> Option<&Registered> {
        self.udf.inner().downcast_ref()
    }

    /// One value a row; those that failed are NULL and told.
    ///
    /// # Errors
    /// As [`Registered::compute`].
    pub(crate) fn compute(&self, operands: &[ArrayRef], rows: usize, failed: &mut Vec<usize>) -> Result<ArrayRef> {
        let operand = |place: &Place| match place {
            Place::Literal(value) => value.to_array().map(Operand::constant),
            Place::Operand(at) => match operands.get(*at) {
                Some(array) => Ok(Operand::column(Arc::clone(array))),
                None => internal(format!("a call without operand {at}")),
            },
        };
        let operands = self.arguments.iter().map(operand).collect::<Result<Vec<_>>>()?;
        match self.registered() {
            Some(registered) => registered.compute(&self.bound, &operands, rows, failed),
            None => internal(format!("{} is none of ours", self.udf.name())),
        }
    }
}

/// A chosen form.
#[derive(Clone, Debug)]
pub(crate) struct Bound {
    place: usize,
    returns: DataType,
    /// Number of value arguments; behind them stand what lambdas captured.
    values: usize,
    lambdas: Arc<[Lambda]>,
}

impl Registered {
    /// By name: the types of the arguments choose the form.
    pub(crate) fn named(function: &'static Function) -> Self {
        Self { function, bound: None, name: function.name().to_owned(), signature: Signature::user_defined(volatility(function)) }
    }

    fn bound(function: &'static Function, bound: Bound) -> Self {
        let mut name = function.name().to_owned();
        for lambda in bound.lambdas.iter() {
            name.push_str(&format!("[{lambda}]"));
        }
        Self { function, bound: Some(bound), name, signature: Signature::user_defined(volatility(function)) }
    }

    /// The function.
    pub(crate) fn function(&self) -> &'static Function {
        self.function
    }

    /// The form for arguments of these types, which are coerced already.
    ///
    /// # Errors
    /// If they fit none.
    pub(crate) fn bind(&self, types: &[DataType]) -> Result<Bound> {
        if let Some(bound) = &self.bound {
            return Ok(bound.clone());
        }
        let chosen = self.choose(types)?;
        Ok(Bound { place: chosen.place, returns: chosen.returns, values: types.len(), lambdas: Vec::new().into() })
    }

    fn choose(&self, types: &[DataType]) -> Result<Chosen> {
        let arguments: Vec<Argument<'_>> = types.iter().map(Argument::Value).collect();
        self.function.choose(&arguments, Coercion::Narrowing).map_err(|error| DataFusionError::Plan(error.to_string()))
    }

    /// Computes a form for so many rows; those that failed are NULL and told.
    ///
    /// # Errors
    /// [`DataFusionError::ResourcesExhausted`] if it makes too much of so many rows at once; else only of arguments that do not
    /// fit the form.
    pub(crate) fn compute(&self, bound: &Bound, operands: &[Operand], rows: usize, failed: &mut Vec<usize>) -> Result<ArrayRef> {
        let Some(form) = self.function.form(bound.place) else { return internal(format!("{} has no such form", self.name)) };
        let before = failed.len();
        let made = {
            let input = Input::new(operands, rows, &bound.returns, failed);
            let made = match form.body {
                Body::Kernel(kernel) => kernel(&input)?,
                Body::Lambda(body) => body(&LambdaInput { input: &input, lambdas: &bound.lambdas, values: bound.values })?,
            };
            if bound.returns.is_nested() { input.bounded(made)? } else { made }
        };
        if let Some(told) = failed.get_mut(before..) {
            told.sort_unstable();
        }
        if made.data_type() == &bound.returns && made.len() == rows {
            return Ok(made);
        }
        internal(format!("{} gave {} of {}", self.name, made.len(), made.data_type()))
    }
}

fn volatility(function: &Function) -> Volatility {
    let always = (0..4).all(|arguments| function.is_repeatable(arguments));
    if always { Volatility::Immutable } else { Volatility::Volatile }
}

impl ScalarUDFImpl for Registered {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        if self.bound.is_some() {
            return Ok(types.to_vec());
        }
        Ok(self.choose(types)?.coerced)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(self.bind(types)?.returns)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let types: Vec<DataType> = args.args.iter().map(ColumnarValue::data_type).collect();
        let bound = self.bind(&types)?;
        let is_constant = self.function.is_repeatable(types.len()) && args.args.iter().all(|one| matches!(one, ColumnarValue::Scalar(_)));
        let rows = if is_constant { 1 } else { args.number_rows };
        let operands = args.args.into_iter().map(|one| match one {
            ColumnarValue::Array(array) => Ok(Operand::column(array)),
            ColumnarValue::Scalar(value) => value.to_array().map(Operand::constant),
        });
        let values = self.compute(&bound, &operands.collect::<Result<Vec<_>>>()?, rows, &mut Vec::new())?;
        if is_constant { ScalarValue::try_from_array(&values, 0).map(ColumnarValue::Scalar) } else { Ok(ColumnarValue::Array(values)) }
    }

    fn simplify(&self, args: Vec<Expr>, context: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let now = context.query_execution_start_time().map(|now| now.timestamp_millis());
        let value = now.and_then(|now| of_query(self.function.name(), args.len(), now));
        Ok(match value {
            Some(value) => ExprSimplifyResult::Simplified(Expr::Literal(value, None)),
            None => ExprSimplifyResult::Original(args),
        })
    }
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl PartialEq for Registered {
    fn eq(&self, other: &Self) -> bool {
        let same_form = match (&self.bound, &other.bound) {
            (None, None) => true,
            (Some(left), Some(right)) => left.place == right.place && left.returns == right.returns && left.lambdas == right.lambdas,
            _ => false,
        };
        self.name == other.name && same_form
    }
}

impl Eq for Registered {}

impl Hash for Registered {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}
