//! Functions whose answer depends on more than their arguments: NOW, RANDOM, UUID and the like.
//!
//! In a query that does not end they are functions of the record: the time is that at which the server took it, and what is random is
//! drawn from the query, the record's position and the place of the call, so that folding again gives the same. In a
//! statement that is answered once they are what anybody expects. Called by `plan/select` for each expression that it resolves, and by
//! `plan/expression`, which compiles nothing that was left out here.

use std::{cell::Cell, sync::Arc};

use arrow::{
    array::{Array as _, ArrayRef, AsArray as _, Float64Array, Int64Array, StringArray},
    datatypes::{DataType, Int64Type},
};
use datafusion::{
    common::{
        Column as ColumnName, DataFusionError, ScalarValue, TableReference,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    logical_expr::{Expr, Volatility, cast, expr::ScalarFunction},
};
use foldlog_log::Timestamp;

use super::{
    fault,
    kernel::{Kernel, KernelFunction, apply},
};
use crate::{
    catalog::{Pseudo, Source, WantedColumn, timestamp_type, types::time_type},
    error::QueryError,
    functions::{
        Registered,
        chance::{drawn, random_uuid, unit},
    },
};

/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;

/// Whose values such functions have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chance {
    /// Of each record that is read; what is random is drawn from this seed.
    OfRecord {
        /// Of the query, the same whenever it is planned.
        seed: u64,
    },
    /// Of a statement that is answered once.
    OfQuery {
        /// When that is.
        now: Timestamp,
    },
}

/// A function whose value is another each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Varying {
    Now,
    Today,
    TimeOfDay,
    UnixTimestamp,
    UnixDate,
    Drawn(Draw),
}

/// What is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Draw {
    Random,
    Uuid,
}

impl Chance {
    /// That of the query with this id, or with this text.
    #[must_use]
    pub fn of_query_named(name: &str) -> Self {
        let words: Vec<u64> = name.bytes().map(u64::from).collect();
        Self::OfRecord { seed: drawn(0, &words) }
    }

    /// The expression with the time in it, where the statement is answered once; random values are drawn as it is computed.
    pub(super) fn given(self, expr: Expr) -> Result<Expr, QueryError> {
        let Self::OfQuery { now } = self else { return Ok(expr) };
        let replaced = expr.transform_down(|expr| match Varying::of(&expr).and_then(|varying| varying.at(now)) {
            Some(value) => Ok(Transformed::new(Expr::Literal(value, None), true, TreeNodeRecursion::Jump)),
            None => Ok(Transformed::no(expr)),
        });
        Ok(replaced.map_err(fault::of_planning)?.data)
    }
}

impl Varying {
    /// The function that an expression calls, if it is one of these.
    fn of(expr: &Expr) -> Option<Self> {
        let Expr::ScalarFunction(call) = expr else { return None };
        if !call.args.is_empty() {
            return None;
        }
        Some(match call.func.name() {
            "now" => Self::Now,
            "current_date" => Self::Today,
            "current_time" => Self::TimeOfDay,
            "unix_timestamp" => Self::UnixTimestamp,
            "unix_date" => Self::UnixDate,
            "random" => Self::Drawn(Draw::Random),
            "uuid" => Self::Drawn(Draw::Uuid),
            _ => return None,
        })
    }

    /// Its value at a moment; none for what is drawn.
    fn at(self, now: Timestamp) -> Option<ScalarValue> {
        let (ms, day) = (now.get(), i32::try_from(now.get().div_euclid(DAY_MS)).ok());
        match self {
            Self::Now => Some(ScalarValue::TimestampMillisecond(Some(ms), zone())),
            Self::Today => Some(ScalarValue::Date32(day)),
            Self::TimeOfDay => Some(ScalarValue::Time32Millisecond(i32::try_from(ms.rem_euclid(DAY_MS)).ok())),
            Self::UnixTimestamp => Some(ScalarValue::Int64(Some(ms))),
            Self::UnixDate => Some(ScalarValue::Int32(day)),
            Self::Drawn(_) => None,
        }
    }
}

/// The zone of every TIMESTAMP.
fn zone() -> Option<Arc<str>> {
    match timestamp_type() {
        DataType::Timestamp(_, zone) => zone,
        _ => None,
    }
}

/// Gives the calls of one SELECT their meaning, each in its turn: its number tells it from the others.
pub(super) struct Calls<'a> {
    of: Chance,
    source: &'a Source,
    alias: &'a str,
    numbered: Cell<u64>,
}

impl<'a> Calls<'a> {
    /// Over the records of a source, which the statement calls `alias`.
    pub(super) fn new(of: Chance, source: &'a Source, alias: &'a str) -> Self {
        Self { of, source, alias, numbered: Cell::new(0) }
    }

    /// Does something without counting the calls in it: what is resolved anew is the same call.
    pub(super) fn again<T>(&self, resolve: impl FnOnce() -> T) -> T {
        let before = self.numbered.get();
        let resolved = resolve();
        self.numbered.set(before);
        resolved
    }

    /// The expression as it is computed of a record.
    pub(super) fn given(&self, expr: Expr) -> Result<Expr, QueryError> {
        let Chance::OfRecord { seed } = self.of else { return self.of.given(expr) };
        let replaced = expr.transform_down(|expr| match Varying::of(&expr) {
            Some(varying) => Ok(Transformed::new(self.of_record(varying, seed)?, true, TreeNodeRecursion::Jump)),
            None => Ok(Transformed::no(expr)),
        });
        Ok(replaced.map_err(fault::of_planning)?.data)
    }

    fn of_record(&self, varying: Varying, seed: u64) -> Result<Expr, DataFusionError> {
        let now = || self.column(Pseudo::RecordedAt);
        Ok(match varying {
            Varying::Now => now()?,
            Varying::Today => cast(now()?, DataType::Date32),
            Varying::TimeOfDay => cast(now()?, time_type()),
            Varying::UnixTimestamp => cast(now()?, DataType::Int64),
            Varying::UnixDate => cast(cast(now()?, DataType::Date32), DataType::Int32),
            Varying::Drawn(draw) => {
                let number = self.numbered.get() + 1;
                self.numbered.set(number);
                draw.call(seed, number, self.column(Pseudo::Record)?)
            }
        })
    }

    /// A column without a name.
    pub(super) fn column(&self, pseudo: Pseudo) -> Result<Expr, DataFusionError> {
        let field = self.source.wanted_field(WantedColumn::Pseudo(pseudo));
        let field = field.ok_or_else(|| DataFusionError::Internal(format!("{} has no {}", self.source.name, pseudo.name())))?;
        Ok(Expr::Column(ColumnName::new(Some(TableReference::bare(self.alias)), field.name())))
    }
}

impl Draw {
    const fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Uuid => "uuid",
        }
    }

    /// The call of a number in its query, for a record.
    fn call(self, seed: u64, number: u64, record: Expr) -> Expr {
        let returns = match self {
            Self::Random => DataType::Float64,
            Self::Uuid => DataType::Utf8,
        };
        apply(format!("{}#{number}", self.name()), returns, OfRecord { draw: self, seed: drawn(seed, &[number]) }, vec![record])
    }
}

/// Draws a value for each record, or for each row that is made of one.
#[derive(Debug)]
struct OfRecord {
    draw: Draw,
    /// Of the call.
    seed: u64,
}

impl Kernel for OfRecord {
    fn compute(&self, operands: &[ArrayRef], rows: usize, _: &mut Vec<usize>) -> Result<ArrayRef, DataFusionError> {
        let mut columns: Vec<&Int64Array> = Vec::with_capacity(operands.len());
        for operand in operands {
            let numbers = operand.as_primitive_opt::<Int64Type>().filter(|numbers| numbers.len() == rows);
            columns.push(numbers.ok_or_else(|| DataFusionError::Internal(format!("{} of {}", self.draw.name(), operand.data_type())))?);
        }
        let drawn_of = |row: usize, nth: u64| {
            let words: Vec<u64> = columns.iter().map(|column| column.value(row).cast_unsigned()).chain([nth]).collect();
            drawn(self.seed, &words)
        };
        Ok(match self.draw {
            Draw::Random => Arc::new(Float64Array::from_iter_values((0..rows).map(|row| unit(drawn_of(row, 0))))),
            Draw::Uuid => Arc::new(StringArray::from_iter_values((0..rows).map(|row| random_uuid(drawn_of(row, 0), drawn_of(row, 1))))),
        })
    }
}

/// Whether an expression draws something of a record.
pub(super) fn draws(expr: &Expr) -> bool {
    expr.exists(|expr| Ok(drawing(expr).is_some())).unwrap_or(false)
}

/// The expression where it is computed of the rows that are made of a record: each has a value of its own, by its number there.
pub(super) fn of_each_row(expr: Expr, number: &Expr) -> Result<Expr, QueryError> {
    let replaced = expr.transform_up(|expr| match drawing(&expr) {
        Some(call) => {
            let arguments = call.args.iter().chain([number]).cloned().collect();
            Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(&call.func), arguments))))
        }
        None => Ok(Transformed::no(expr)),
    });
    Ok(replaced.map_err(fault::of_planning)?.data)
}

/// The call of [`OfRecord`] that an expression is.
fn drawing(expr: &Expr) -> Option<&ScalarFunction> {
    let Expr::ScalarFunction(call) = expr else { return None };
    let is_kernel = call.func.inner().downcast_ref::<KernelFunction>().is_some();
    let (name, _) = call.func.name().split_once('#')?;
    (is_kernel && [Draw::Random, Draw::Uuid].iter().any(|draw| draw.name() == name)).then_some(call)
}

/// Refuses what got here without a meaning: the body of a lambda knows no record.
///
/// # Errors
/// [`QueryError::Unsupported`].
pub(super) fn check(expr: &Expr, once: bool) -> Result<(), QueryError> {
    let mut refused = None;
    let walked = expr.apply(|expr| {
        let Expr::ScalarFunction(call) = expr else { return Ok(TreeNodeRecursion::Continue) };
        let ours = call.func.inner().downcast_ref::<Registered>();
        let varies = match ours {
            Some(ours) => !ours.function().is_repeatable(call.args.len()),
            None => Varying::of(expr).is_some() || call.func.signature().volatility == Volatility::Volatile,
        };
        let is_drawn = matches!(Varying::of(expr), Some(Varying::Drawn(_)));
        if varies && !(once && is_drawn) {
            refused = Some(call.func.name().to_owned());
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    walked.map_err(fault::of_planning)?;
    let why = |name| format!("{name}() here: its value is that of a record, which is not known; compute it in a query before");
    refused.map_or(Ok(()), |name| Err(QueryError::Unsupported(why(name))))
}
