//! SUM, AVG, MIN and MAX of bounded queries, with the values and types that they have in views.
//!
//! Each is put together from aggregates of DataFusion: integers are summed as DECIMAL(38, 0) and decimals in 256 bits, so that
//! nothing wraps, and the sum is NULL where the result's type cannot hold it; a mean is the exact sum by the count; DOUBLE is
//! added row by row, and ordered as it is compared, NaN last. Registered by `pull/session`.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array},
    compute::cast,
    datatypes::{
        DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Decimal128Type, Decimal256Type, Field, FieldRef, Float64Type,
        Int64Type,
    },
};
use datafusion::{
    common::{DataFusionError, Result, ScalarValue},
    execution::SessionStateDefaults,
    functions_aggregate::count::count_udaf,
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, Signature, Volatility,
        function::{AccumulatorArgs, StateFieldsArgs},
        utils::AggregateOrderSensitivity,
    },
};

use crate::{catalog::type_name, plan::with_one_nan};

/// DataFusion's aggregates, those that views have too replaced by ours.
pub(super) fn functions() -> Vec<Arc<AggregateUDF>> {
    let mut functions = SessionStateDefaults::default_aggregate_functions();
    for function in &mut functions {
        let kind = match function.name() {
            "sum" => Kind::Sum,
            "avg" => Kind::Avg,
            "min" | "max" => Kind::Extreme,
            _ => continue,
        };
        *function = Arc::new(AggregateUDF::from(Exact {
            kind,
            given: Arc::clone(function),
            signature: Signature::user_defined(Volatility::Immutable),
        }));
    }
    functions
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Sum,
    Avg,
    Extreme,
}

/// An aggregate of DataFusion with our values and types.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Exact {
    kind: Kind,
    given: Arc<AggregateUDF>,
    signature: Signature,
}

/// How an aggregate of one type is put together.
struct Recipe {
    parts: Vec<Part>,
    finish: Finish,
    data_type: DataType,
}

/// An aggregate of DataFusion; each keeps one column of state.
struct Part {
    function: Arc<AggregateUDF>,
    prepare: Prepare,
    takes: DataType,
    gives: DataType,
}

/// What becomes of an argument first.
#[derive(Clone, Debug)]
enum Prepare {
    Keep,
    Cast(DataType),
    /// DOUBLE to the integer of the same rank in its total order.
    Rank,
}

/// What becomes of the parts' results.
#[derive(Clone, Debug)]
enum Finish {
    Keep,
    /// NULL where it does not fit.
    Cast(DataType),
    Unrank,
    /// Sum by count.
    Mean,
}

impl Exact {
    /// None for a type that only bounded queries fold: then it is as DataFusion has it.
    fn recipe(&self, argument: &DataType) -> Option<Recipe> {
        use DataType::{Decimal128, Decimal256, Float64, Int64};
        if self.kind == Kind::Extreme {
            let rank = Part { function: Arc::clone(&self.given), prepare: Prepare::Rank, takes: Int64, gives: Int64 };
            return (*argument == Float64).then(|| Recipe { parts: vec![rank], finish: Finish::Unrank, data_type: Float64 });
        }
        let (wide, sum) = match argument {
            Int64 => (Decimal128(DECIMAL128_MAX_PRECISION, 0), Int64),
            Decimal128(_, scale) => (Decimal256(DECIMAL256_MAX_PRECISION, *scale), Decimal128(DECIMAL128_MAX_PRECISION, *scale)),
            Float64 => (Float64, Float64),
            _ => return None,
        };
        let prepare = if wide == *argument { Prepare::Keep } else { Prepare::Cast(wide.clone()) };
        let mut parts =
            vec![Part { function: datafusion::functions_aggregate::sum::sum_udaf(), prepare, takes: wide.clone(), gives: wide.clone() }];
        if self.kind == Kind::Sum {
            let finish = if wide == sum { Finish::Keep } else { Finish::Cast(sum.clone()) };
            return Some(Recipe { parts, finish, data_type: sum });
        }
        parts.push(Part { function: count_udaf(), prepare: Prepare::Keep, takes: argument.clone(), gives: Int64 });
        Some(Recipe { parts, finish: Finish::Mean, data_type: Float64 })
    }

    fn recipe_of(&self, args: &AccumulatorArgs<'_>) -> Option<Recipe> {
        self.recipe(args.expr_fields.first()?.data_type())
    }

    fn several(&self, args: &AccumulatorArgs<'_>, recipe: &Recipe, sliding: bool) -> Result<Box<dyn Accumulator>> {
        let mut parts: Vec<(Prepare, Box<dyn Accumulator>)> = Vec::new();
        for part in &recipe.parts {
            let accumulator = part.with(args, |args| {
                if sliding {
                    part.function.create_sliding_accumulator(args)
                } else if part.takes == DataType::Float64 && part.gives == DataType::Float64 && !args.is_distinct {
                    Ok(Box::new(RowByRow::default()) as Box<dyn Accumulator>)
                } else {
                    part.function.accumulator(args)
                }
            })?;
            parts.push((part.prepare.clone(), accumulator));
        }
        Ok(Box::new(Several { parts, finish: recipe.finish.clone() }))
    }
}

impl Part {
    /// Calls `make` with the arguments as this part takes them.
    fn with<T>(&self, args: &AccumulatorArgs<'_>, make: impl FnOnce(AccumulatorArgs<'_>) -> T) -> T {
        let takes: [FieldRef; 1] = [Arc::new(Field::new(args.name, self.takes.clone(), true))];
        make(AccumulatorArgs {
            return_field: Arc::new(Field::new(args.name, self.gives.clone(), true)),
            schema: args.schema,
            ignore_nulls: args.ignore_nulls,
            order_bys: args.order_bys,
            is_reversed: args.is_reversed,
            name: args.name,
            is_distinct: args.is_distinct,
            exprs: args.exprs,
            expr_fields: &takes,
        })
    }
}

impl AggregateUDFImpl for Exact {
    fn name(&self) -> &str {
        self.given.name()
    }

    fn aliases(&self) -> &[String] {
        self.given.aliases()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        use DataType::{Decimal32, Decimal64, Decimal128, Duration, Float64, Int64, Interval, Null};
        let [argument] = given else { return Err(DataFusionError::Plan(format!("{} takes one argument", self.name()))) };
        let folded = match argument {
            of if of.is_floating() => Float64,
            of if self.kind == Kind::Extreme => return self.given.coerce_types(std::slice::from_ref(of)),
            Null => Float64,
            of if of.is_integer() => Int64,
            Decimal32(precision, scale) | Decimal64(precision, scale) => Decimal128(*precision, *scale),
            Decimal128(..) | Duration(_) | Interval(_) => argument.clone(),
            other => return Err(DataFusionError::Plan(format!("{} does not take {}", self.name(), type_name(other)))),
        };
        Ok(vec![folded])
    }

    fn return_type(&self, given: &[DataType]) -> Result<DataType> {
        match given.first().and_then(|argument| self.recipe(argument)) {
            Some(recipe) => Ok(recipe.data_type),
            None => self.given.return_type(given),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        match self.recipe_of(&args) {
            Some(recipe) => self.several(&args, &recipe, false),
            None => self.given.accumulator(args),
        }
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        match self.recipe_of(&args) {
            Some(recipe) => self.several(&args, &recipe, true),
            None => self.given.create_sliding_accumulator(args),
        }
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        match self.recipe_of(&args) {
            Some(recipe) => recipe.parts.iter().all(|part| part.with(&args, |args| part.function.groups_accumulator_supported(args))),
            None => self.given.groups_accumulator_supported(args),
        }
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        let Some(recipe) = self.recipe_of(&args) else { return self.given.create_groups_accumulator(args) };
        let parts = recipe
            .parts
            .iter()
            .map(|part| Ok((part.prepare.clone(), part.with(&args, |args| part.function.create_groups_accumulator(args))?)));
        Ok(Box::new(Groups { parts: parts.collect::<Result<_>>()?, finish: recipe.finish }))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let Some(recipe) = args.input_fields.first().and_then(|field| self.recipe(field.data_type())) else {
            return self.given.state_fields(args);
        };
        let mut fields = Vec::new();
        for part in &recipe.parts {
            let takes: [FieldRef; 1] = [Arc::new(Field::new(args.name, part.takes.clone(), true))];
            fields.extend(part.function.state_fields(StateFieldsArgs {
                name: args.name,
                input_fields: &takes,
                return_field: Arc::new(Field::new(args.name, part.gives.clone(), true)),
                ordering_fields: args.ordering_fields,
                is_distinct: args.is_distinct,
            })?);
        }
        Ok(fields)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }
}

impl Prepare {
    fn apply(&self, values: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        let Some(column) = values.first() else { return Ok(Vec::new()) };
        Ok(vec![match self {
            Self::Keep => Arc::clone(column),
            Self::Cast(data_type) => cast(column, data_type)?,
            Self::Rank => {
                Arc::new(column.as_primitive::<Float64Type>().unary::<_, Int64Type>(|value| swap_order(value.to_bits().cast_signed())))
            }
        }])
    }
}

/// From the bits of a DOUBLE to its rank in the total order, and back.
fn swap_order(bits: i64) -> i64 {
    bits ^ ((bits >> 63).cast_unsigned() >> 1).cast_signed()
}

impl Finish {
    fn apply(&self, results: &[ArrayRef]) -> Result<ArrayRef> {
        let [first, rest @ ..] = results else { return Err(DataFusionError::Internal("an aggregate of no parts".to_owned())) };
        // What infinities of both signs make has a sign of its own.
        Ok(with_one_nan(match (self, rest) {
            (Self::Cast(data_type), _) => cast(first, data_type)?,
            (Self::Unrank, _) => {
                Arc::new(first.as_primitive::<Int64Type>().unary::<_, Float64Type>(|rank| f64::from_bits(swap_order(rank).cast_unsigned())))
            }
            (Self::Mean, [count]) => Arc::new(mean(first, count.as_primitive::<Int64Type>())?),
            (Self::Keep | Self::Mean, _) => Arc::clone(first),
        }))
    }
}

#[expect(clippy::cast_precision_loss, reason = "AVG is a DOUBLE")]
fn mean(sums: &ArrayRef, counts: &Int64Array) -> Result<Float64Array> {
    let sums: Float64Array = match sums.data_type() {
        DataType::Float64 => sums.as_primitive::<Float64Type>().clone(),
        DataType::Decimal128(_, scale) => {
            let unit = 10_f64.powi(i32::from(*scale));
            sums.as_primitive::<Decimal128Type>().unary(|sum| sum as f64 / unit)
        }
        DataType::Decimal256(_, scale) => {
            let unit = 10_f64.powi(i32::from(*scale));
            sums.as_primitive::<Decimal256Type>().unary_opt(|sum| sum.to_i128().map(|sum| sum as f64 / unit))
        }
        other => return Err(DataFusionError::Internal(format!("a sum of {other}"))),
    };
    let of = |(sum, count): (Option<f64>, Option<i64>)| Some(sum? / count.filter(|count| *count > 0)? as f64);
    Ok(sums.iter().zip(counts).map(of).collect())
}

/// The aggregates of one group.
#[derive(Debug)]
struct Several {
    parts: Vec<(Prepare, Box<dyn Accumulator>)>,
    finish: Finish,
}

impl Accumulator for Several {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.parts.iter_mut().try_for_each(|(prepare, part)| part.update_batch(&prepare.apply(values)?))
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.parts.iter_mut().try_for_each(|(prepare, part)| part.retract_batch(&prepare.apply(values)?))
    }

    fn supports_retract_batch(&self) -> bool {
        self.parts.iter().all(|(_, part)| part.supports_retract_batch())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let results = self.parts.iter_mut().map(|(_, part)| part.evaluate()?.to_array()).collect::<Result<Vec<_>>>()?;
        ScalarValue::try_from_array(&self.finish.apply(&results)?, 0)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let states = self.parts.iter_mut().map(|(_, part)| part.state()).collect::<Result<Vec<_>>>()?;
        Ok(states.concat())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.parts.iter_mut().zip(states.chunks(1)).try_for_each(|((_, part), state)| part.merge_batch(state))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.parts.iter().map(|(_, part)| part.size()).sum::<usize>()
    }
}

/// The aggregates of many groups.
struct Groups {
    parts: Vec<(Prepare, Box<dyn GroupsAccumulator>)>,
    finish: Finish,
}

impl GroupsAccumulator for Groups {
    fn update_batch(&mut self, values: &[ArrayRef], groups: &[usize], filter: Option<&BooleanArray>, total: usize) -> Result<()> {
        self.parts.iter_mut().try_for_each(|(prepare, part)| part.update_batch(&prepare.apply(values)?, groups, filter, total))
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let results = self.parts.iter_mut().map(|(_, part)| part.evaluate(emit_to)).collect::<Result<Vec<_>>>()?;
        self.finish.apply(&results)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let states = self.parts.iter_mut().map(|(_, part)| part.state(emit_to)).collect::<Result<Vec<_>>>()?;
        Ok(states.concat())
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.parts.iter_mut().zip(states.chunks(1)).try_for_each(|((_, part), state)| part.merge_batch(state, groups, total))
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let states = self.parts.iter().map(|(prepare, part)| part.convert_to_state(&prepare.apply(values)?, filter));
        Ok(states.collect::<Result<Vec<_>>>()?.concat())
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.parts.iter().map(|(_, part)| part.size()).sum::<usize>()
    }
}

/// A sum of DOUBLE in the order of its rows: other orders have other last digits.
#[derive(Debug, Default)]
struct RowByRow {
    sum: Option<f64>,
}

impl Accumulator for RowByRow {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let Some(values) = values.first().and_then(|values| values.as_primitive_opt::<Float64Type>()) else {
            return Err(DataFusionError::Internal("a sum of no DOUBLE".to_owned()));
        };
        for value in values.iter().flatten() {
            self.sum = Some(self.sum.unwrap_or(0.0) + value);
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64(self.sum))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Float64(self.sum)])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}
