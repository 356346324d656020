//! Table functions: calls in a SELECT list that make several rows of one.
//!
//! Called by `plan/select`: the calls are taken out of the expressions and become columns of a node that runs before the
//! projection. Several in one SELECT list run side by side; the shorter ones are filled up with NULL. Run by `stream/operator`.

use std::{fmt, sync::Arc};

use arrow::datatypes::{DataType, Field};
use datafusion::{
    common::{
        Column as ColumnName, DFSchema, DataFusionError, ScalarValue,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};

use super::{
    expression::{Expression, Expressions},
    fault,
};
use crate::{
    catalog::types::{array_of, type_name},
    error::{Place, QueryError},
};

/// What a table function makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TableFunction {
    /// A row for each element of an array.
    Explode,
    /// A row for each way to put NULL in place of elements of an array; NULLs stay.
    CubeExplode,
    /// Makes no row: numbers those that the others make of a record, from 0. Cannot be written.
    Number,
}

/// A table function as users know it.
#[derive(Debug)]
pub struct Described {
    /// Name, in lower case.
    pub name: &'static str,
    /// What it takes and gives.
    pub signature: &'static str,
    /// What it makes.
    pub description: &'static str,
    function: TableFunction,
}

/// Every table function, by name.
#[must_use]
pub fn all() -> &'static [Described] {
    &ALL
}

const ALL: [Described; 2] = [
    Described {
        name: "cube_explode",
        signature: "cube_explode(values ARRAY<any>) -> ARRAY<any>",
        description: "A row for each way to put NULL in place of elements of the array, at most 16 of them; elements that are NULL stay so.",
        function: TableFunction::CubeExplode,
    },
    Described {
        name: "explode",
        signature: "explode(values ARRAY<any>) -> any",
        description: "A row for each element of the array; none if it is NULL or empty.",
        function: TableFunction::Explode,
    },
];

impl fmt::Display for TableFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Explode => "explode",
            Self::CubeExplode => "cube_explode",
            Self::Number => "number",
        })
    }
}

impl TableFunction {
    fn named(name: &str) -> Option<Self> {
        ALL.iter().find(|one| one.name.eq_ignore_ascii_case(name)).map(|one| one.function)
    }

    /// Type of a row's value, of an argument of a type; none if it does not take that.
    fn gives(self, argument: &DataType) -> Option<DataType> {
        match (self, argument) {
            (Self::Explode, DataType::List(item)) => Some(item.data_type().clone()),
            (Self::CubeExplode, DataType::List(item)) => Some(array_of(item.data_type().clone())),
            (Self::Number, _) => Some(DataType::Int64),
            _ => None,
        }
    }
}

/// Whether a name is that of a table function.
pub(super) fn is_table_function(name: &str) -> bool {
    TableFunction::named(name).is_some()
}

/// Whether an expression calls a table function.
pub(super) fn has_table_function(expr: &Expr) -> bool {
    expr.exists(|expr| Ok(called(expr).is_some())).unwrap_or(false)
}

fn called(expr: &Expr) -> Option<(TableFunction, &[Expr])> {
    match expr {
        Expr::ScalarFunction(call) => Some((TableFunction::named(call.func.name())?, call.args.as_slice())),
        _ => None,
    }
}

/// The table functions of a SELECT list, taken out of it.
#[derive(Default)]
pub(super) struct Exploded {
    calls: Vec<(TableFunction, Expr)>,
    /// Where in the statement each of them first stands.
    places: Vec<Option<Place>>,
}

impl Exploded {
    /// The expression, which stands there in the statement, with columns in place of its calls.
    pub(super) fn take_out(&mut self, expr: Expr, stands: Option<Place>) -> Result<Expr, QueryError> {
        let mut refused = None;
        let replaced = expr.transform_down(|expr| {
            let Some((function, arguments)) = called(&expr) else { return Ok(Transformed::no(expr)) };
            let [argument] = arguments else {
                refused = Some(QueryError::Invalid(format!("{function} takes one argument, an ARRAY")));
                return Ok(Transformed::new(expr, false, TreeNodeRecursion::Stop));
            };
            if has_table_function(argument) {
                refused = Some(QueryError::Unsupported(format!("{function} of what a table function makes")));
                return Ok(Transformed::new(expr, false, TreeNodeRecursion::Stop));
            }
            let call = (function, argument.clone());
            // A call that is written twice is one: both columns have the same value in each row.
            let place = self.calls.iter().position(|known| *known == call).unwrap_or(self.calls.len());
            if place == self.calls.len() {
                self.calls.push(call);
                self.places.push(stands);
            }
            let column = Expr::Column(ColumnName::from_name(format!("exploded_{place}")));
            Ok(Transformed::new(column, true, TreeNodeRecursion::Jump))
        });
        match refused {
            Some(refused) => Err(refused.at(|| stands)),
            None => Ok(replaced.map_err(fault::of_planning)?.data),
        }
    }

    /// The number of each row among those that are made of the same record.
    pub(super) fn number(&mut self) -> Expr {
        let place = self.calls.len();
        self.calls.push((TableFunction::Number, Expr::Literal(ScalarValue::Null, None)));
        Expr::Column(ColumnName::from_name(format!("exploded_{place}")))
    }

    /// The calls over the columns of `input`, and the columns that they add; none if there is no call.
    pub(super) fn compiled(&self, input: &DFSchema, expressions: &Expressions) -> Result<Option<Compiled>, QueryError> {
        if self.calls.is_empty() {
            return Ok(None);
        }
        let mut compiled = Vec::new();
        let mut fields = Vec::new();
        for (place, (function, argument)) in self.calls.iter().enumerate() {
            let argument = expressions.compile(argument.clone(), input)?;
            let Some(gives) = function.gives(argument.data_type()) else {
                let given = type_name(argument.data_type());
                let refused = QueryError::Invalid(format!("{function} takes an ARRAY, it was given {given}"));
                return Err(refused.at(|| self.places.get(place).copied().flatten()));
            };
            fields.push(Field::new(format!("exploded_{place}"), gives, true));
            compiled.push((*function, argument));
        }
        Ok(Some(Compiled { calls: compiled, fields }))
    }
}

/// Table functions over the columns of their input.
pub(super) struct Compiled {
    /// Each with its argument.
    pub(super) calls: Vec<(TableFunction, Expression)>,
    /// The columns that they add.
    pub(super) fields: Vec<Field>,
}

/// The table functions as DataFusion's planner must know them to recognise a call; it never runs them.
pub(crate) fn known_to_datafusion() -> Vec<Arc<ScalarUDF>> {
    let named = |described: &Described| Named { function: described.function, signature: Signature::variadic_any(Volatility::Immutable) };
    ALL.iter().map(|described| Arc::new(ScalarUDF::new_from_impl(named(described)))).collect()
}

/// A name for DataFusion's planner.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Named {
    function: TableFunction,
    signature: Signature,
}

impl ScalarUDFImpl for Named {
    fn name(&self) -> &str {
        match self.function {
            TableFunction::Explode => "explode",
            TableFunction::CubeExplode => "cube_explode",
            TableFunction::Number => "number",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> datafusion::common::Result<DataType> {
        let wrong = || DataFusionError::Plan(format!("{} takes one ARRAY", self.function));
        types.first().and_then(|of| self.function.gives(of)).ok_or_else(wrong)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> datafusion::common::Result<ColumnarValue> {
        Err(DataFusionError::NotImplemented(format!("{} outside the SELECT list of a query that does not end", self.function)))
    }
}
