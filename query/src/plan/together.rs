//! Expressions over the same batches: a part that stands in them several times is computed once.
//!
//! Made by whoever runs filters and projections. What was computed is known by the part and by the very rows that it was computed for, so
//! that nothing is computed that would not have been, however CASE and AND cut a batch on the way. What fails in such a part is told by
//! whoever comes to it first.

use std::{
    cell::RefCell,
    collections::HashMap,
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use arrow::{
    array::ArrayRef,
    datatypes::{DataType, Schema},
    record_batch::RecordBatch,
};
use datafusion::{
    common::{DataFusionError, Result},
    logical_expr::ColumnarValue,
    physical_expr::PhysicalExpr,
};

use super::{
    expression::{Evaluated, Expression},
    growth::{MAX_BATCH_BYTES, bytes_of},
    total::{Numbered, Part},
};
use crate::error::QueryError;

/// Expressions that are evaluated together.
#[derive(Clone, Debug)]
pub struct Together {
    expressions: Vec<Expression>,
    /// Whether there is anything that stands in them several times.
    shares: bool,
}

impl Together {
    /// These, in this order.
    #[must_use]
    pub fn new(mut expressions: Vec<Expression>) -> Self {
        let mut counts = HashMap::new();
        for expression in expressions.iter().filter(|expression| expression.is_shallow()) {
            count(expression.physical(), &mut counts);
        }
        counts.retain(|_, count| *count > 1);
        let shares = !counts.is_empty();
        if shares {
            let mut shared = counts.into_keys().enumerate().map(|(id, part)| (part, (id, None))).collect();
            for expression in expressions.iter_mut().filter(|expression| expression.is_shallow()) {
                // What cannot be put together again is computed where it stands.
                if let Ok(physical) = share(expression.physical(), &mut shared) {
                    *expression = expression.with_physical(physical);
                }
            }
        }
        Self { expressions, shares }
    }

    /// Evaluates every row of a batch and gives what each expression makes of it, in their order.
    ///
    /// # Errors
    /// Those of [`Expression::evaluate`], and those that `take` returns.
    pub fn evaluate(
        &self,
        batch: &RecordBatch,
        mut take: impl FnMut(Evaluated) -> std::result::Result<(), QueryError>,
    ) -> std::result::Result<(), QueryError> {
        let numbered = Numbered::of(batch, self.expressions.iter().any(Expression::can_fail))?;
        let _computed = self.shares.then(Scope::begin);
        self.expressions.iter().try_for_each(|expression| take(expression.evaluate_numbered(&numbered)?))
    }
}

type Counts = HashMap<Arc<dyn PhysicalExpr>, usize>;
/// Parts that stand in several places: the number of each, and what takes its place once that was made.
type SharedParts = HashMap<Arc<dyn PhysicalExpr>, (usize, Option<Arc<dyn PhysicalExpr>>)>;

/// Counts the parts of an expression that give the same for the same rows; whether all of it does.
fn count(expression: &Arc<dyn PhysicalExpr>, counts: &mut Counts) -> bool {
    // Each child is looked at, whatever the others are.
    let others = expression.children().into_iter().filter(|child| !count(child, counts)).count();
    let is_repeatable = others == 0 && expression.downcast_ref::<Part>().is_none_or(Part::is_repeatable);
    if !expression.is::<Part>() {
        return is_repeatable;
    }
    if is_repeatable {
        *counts.entry(Arc::clone(expression)).or_default() += 1;
    }
    is_repeatable
}

fn share(expression: &Arc<dyn PhysicalExpr>, parts: &mut SharedParts) -> Result<Arc<dyn PhysicalExpr>> {
    if let Some((_, Some(shared))) = parts.get(expression) {
        return Ok(Arc::clone(shared));
    }
    let children = expression.children().into_iter().map(|child| share(child, parts)).collect::<Result<Vec<_>>>()?;
    let with_shared = if children.is_empty() { Arc::clone(expression) } else { Arc::clone(expression).with_new_children(children)? };
    let Some((id, place)) = parts.get_mut(expression) else { return Ok(with_shared) };
    let shared: Arc<dyn PhysicalExpr> = Arc::new(Shared { id: *id, part: with_shared });
    *place = Some(Arc::clone(&shared));
    Ok(shared)
}

/// What a part gave.
struct Computed {
    id: usize,
    /// The numbers of the rows that it was computed for.
    rows: ArrayRef,
    values: ArrayRef,
}

/// What was computed of a batch so far; beyond [`MAX_BATCH_BYTES`] nothing more is remembered, and is computed again.
#[derive(Default)]
struct OfBatch {
    all: Vec<Computed>,
    bytes: usize,
}

impl OfBatch {
    fn remember(&mut self, computed: Computed) {
        self.bytes = self.bytes.saturating_add(bytes_of(&computed.values));
        if self.bytes <= MAX_BATCH_BYTES {
            self.all.push(computed);
        }
    }
}

thread_local! {
    /// Of the batch that this thread evaluates expressions over, if it evaluates several together.
    static COMPUTED: RefCell<Option<OfBatch>> = const { RefCell::new(None) };
}

/// As long as expressions are evaluated over one batch.
struct Scope {
    /// What was computed around it.
    outer: Option<OfBatch>,
}

impl Scope {
    fn begin() -> Self {
        Self { outer: COMPUTED.replace(Some(OfBatch::default())) }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        COMPUTED.set(self.outer.take());
    }
}

/// A part that stands in several places.
struct Shared {
    id: usize,
    part: Arc<dyn PhysicalExpr>,
}

impl PhysicalExpr for Shared {
    fn data_type(&self, input: &Schema) -> Result<DataType> {
        self.part.data_type(input)
    }

    fn nullable(&self, input: &Schema) -> Result<bool> {
        self.part.nullable(input)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let part = self.part.downcast_ref::<Part>().ok_or_else(|| DataFusionError::Internal("what is shared is no part".to_owned()))?;
        let rows = part.row_numbers(batch)?;
        let is_it = |known: &&Computed| known.id == self.id && Arc::ptr_eq(&known.rows, &rows);
        let known = COMPUTED.with_borrow(|of_batch| of_batch.as_ref()?.all.iter().find(is_it).map(|known| Arc::clone(&known.values)));
        if let Some(values) = known {
            return Ok(ColumnarValue::Array(values));
        }
        let values = self.part.evaluate(batch)?.into_array(batch.num_rows())?;
        COMPUTED.with_borrow_mut(|of_batch| {
            if let Some(of_batch) = of_batch {
                of_batch.remember(Computed { id: self.id, rows, values: Arc::clone(&values) });
            }
        });
        Ok(ColumnarValue::Array(values))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.part]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        // The same part over other places of its columns, as CASE makes them.
        let part = children.pop().ok_or_else(|| DataFusionError::Internal("what is shared has one child".to_owned()))?;
        Ok(Arc::new(Self { id: self.id, part }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.part.fmt_sql(f)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared({:?})", self.part)
    }
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.part.fmt(f)
    }
}

impl PartialEq for Shared {
    fn eq(&self, other: &Self) -> bool {
        *self.part == *other.part
    }
}

impl Eq for Shared {}

impl Hash for Shared {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.part.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{Array as _, AsArray as _, Int64Array, types::Int64Type},
        datatypes::Field,
    };
    use datafusion::{
        common::DFSchema,
        sql::sqlparser::{dialect::GenericDialect, parser::Parser},
    };

    use super::*;
    use crate::plan::Expressions;

    fn batch() -> RecordBatch {
        let schema = Schema::new(vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Int64, true)]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![Some(6), Some(1), None, Some(i64::MIN)])),
            Arc::new(Int64Array::from(vec![Some(2), Some(0), Some(0), Some(-1)])),
        ];
        RecordBatch::try_new(Arc::new(schema), columns).unwrap()
    }

    fn compiled(texts: &[&str]) -> Vec<Expression> {
        let schema = DFSchema::try_from(batch().schema().as_ref().clone()).unwrap();
        let expressions = Expressions::new();
        let compile = |text: &&str| {
            let written = Parser::new(&GenericDialect {}).try_with_sql(text).unwrap().parse_expr().unwrap();
            expressions.compile(expressions.resolve(&written, &schema, &[]).unwrap(), &schema).unwrap()
        };
        texts.iter().map(compile).collect()
    }

    fn integers(evaluated: &Evaluated) -> Vec<Option<i64>> {
        evaluated.values.as_primitive::<Int64Type>().iter().collect()
    }

    /// Each alone, and all together: values, and the rows that were told.
    fn both_ways(texts: &[&str]) -> (Vec<Evaluated>, Vec<Evaluated>) {
        let alone = compiled(texts).iter().map(|expression| expression.evaluate(&batch()).unwrap()).collect();
        let mut together = Vec::new();
        let all = Together::new(compiled(texts));
        assert!(all.shares);
        all.evaluate(&batch(), |evaluated| {
            together.push(evaluated);
            Ok(())
        })
        .unwrap();
        (alone, together)
    }

    #[test]
    fn what_stands_in_several_places_is_computed_and_told_once() {
        let (alone, together) = both_ways(&["a / b + 1", "a / b * 2", "a + 1"]);
        assert!(alone.iter().zip(&together).all(|(alone, together)| alone.values.to_data() == together.values.to_data()));
        assert_eq!(integers(&together[1]), [Some(6), None, None, None]);
        let told = |evaluated: &Evaluated| evaluated.errors.iter().map(|error| error.row).collect::<Vec<_>>();
        assert_eq!(alone.iter().map(told).collect::<Vec<_>>(), [vec![1, 3], vec![1, 3], vec![]]);
        assert_eq!(together.iter().map(told).collect::<Vec<_>>(), [vec![1, 3], vec![], vec![]]);
    }

    #[test]
    fn rows_that_case_leaves_out_are_not_computed_and_not_taken_for_others() {
        let (alone, together) =
            both_ways(&["CASE WHEN b <> 0 THEN a / b ELSE -1 END", "a / b", "CASE WHEN a > 1 THEN a / b ELSE a / b + 1 END"]);
        assert_eq!(integers(&together[0]), [Some(3), Some(-1), Some(-1), None]);
        assert_eq!(integers(&together[1]), [Some(3), None, None, None]);
        assert!(alone.iter().zip(&together).all(|(alone, together)| alone.values.to_data() == together.values.to_data()));
        // The division by zero is nowhere in the first, and told by the second.
        assert_eq!(together[0].errors.iter().map(|error| error.row).collect::<Vec<_>>(), [3]);
        assert!(together[1].errors.iter().any(|error| error.row == 1));
    }

    #[test]
    fn calls_of_chance_are_computed_each_by_itself() {
        let schema = DFSchema::try_from(batch().schema().as_ref().clone()).unwrap();
        let expressions = Expressions::new().asked_once();
        let compile = |text: &str| {
            let written = Parser::new(&GenericDialect {}).try_with_sql(text).unwrap().parse_expr().unwrap();
            expressions.compile(expressions.resolve(&written, &schema, &[]).unwrap(), &schema).unwrap()
        };
        for text in ["substring(uuid(), 1, 8)", "transform(ARRAY[1, 2], x => x + random())", "transform(ARRAY[a], x => x + random())"] {
            let all = Together::new(vec![compile(text), compile(text)]);
            let mut values = Vec::new();
            all.evaluate(&batch(), |evaluated| {
                values.push(evaluated.values.to_data());
                Ok(())
            })
            .unwrap();
            assert_ne!(values[0], values[1], "{text}");
        }
    }

    #[test]
    fn no_more_is_remembered_than_a_batch_may_have() {
        let mut of_batch = OfBatch::default();
        let values: ArrayRef = Arc::new(Int64Array::from(vec![0; MAX_BATCH_BYTES / 16]));
        for id in 0..5 {
            of_batch.remember(Computed { id, rows: Arc::clone(&values), values: Arc::clone(&values) });
        }
        assert!((1..=2).contains(&of_batch.all.len()), "{}", of_batch.all.len());
    }

    #[test]
    fn nothing_is_remembered_behind_a_batch() {
        let all = Together::new(compiled(&["a / b", "a / b"]));
        for rows in [4, 1, 3] {
            let mut lengths = Vec::new();
            all.evaluate(&batch().slice(0, rows), |evaluated| {
                lengths.push(evaluated.values.len());
                Ok(())
            })
            .unwrap();
            assert_eq!(lengths, [rows, rows]);
        }
        assert!(COMPUTED.with_borrow(Option::is_none));
        assert!(!Together::new(compiled(&["a / b", "a + b"])).shares);
    }
}
