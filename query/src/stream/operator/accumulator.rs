//! What one aggregate keeps of a group, as words of the group's row, and how it becomes a column again.
//!
//! Integers are summed exactly in 128 bits, decimals in 192; DOUBLE is folded row by row in position order, so that every cut into
//! steps gives the same bits. Pure but for the table that it is handed.

use std::{cmp::Ordering, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, Decimal128Array, Float64Array, Int32Array, Int64Array, StringBuilder,
        types::{Decimal128Type, Float64Type, Int64Type},
    },
    buffer::NullBuffer,
    compute::cast,
    datatypes::{DECIMAL128_MAX_PRECISION, DataType},
};

use crate::{
    answer::ChangeOp,
    error::QueryError,
    plan::{AggregateCall, AggregateFunction, with_one_nan},
    sql::dialect::AggregateRules,
    stream::{
        operator::{chain::execution, moments},
        state::{HEADER, RowNumber, Table},
    },
};

/// One aggregate of a query: what it does with its words.
#[derive(Clone, Debug)]
pub(crate) struct Accumulator {
    kind: Kind,
    /// Place of the argument in the input.
    argument: Option<usize>,
    /// And of the second one.
    second: Option<usize>,
    /// Place of its FILTER.
    filter: Option<usize>,
    rules: AggregateRules,
    /// Place of the first word among the accumulators of a row.
    at: usize,
    /// Type of the result.
    data_type: DataType,
}

/// Words: the value (one word, two for 128 bits, three for 192), then the number of values folded, if there is a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Count,
    /// Different values, which `operator/distinct` counts.
    CountDistinct,
    Sum(Numbers),
    /// Sums the elements of arrays.
    SumList(Numbers),
    Avg(Numbers),
    Extreme(Values, Ordering),
    Variance,
    Deviation,
    Correlation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Numbers {
    Integer,
    Double,
    Decimal { scale: i8 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Values {
    Integer,
    Double,
    Decimal,
    Text,
}

/// Which rows of a batch are taken back.
pub(crate) trait Signs: Copy {
    /// Whether some may be.
    const CAN_TAKE_BACK: bool;

    /// Whether this row is.
    fn takes_back(self, row: usize) -> bool;
}

/// No row is: a stream only adds.
#[derive(Clone, Copy)]
pub(crate) struct OnlyAdds;

impl Signs for OnlyAdds {
    const CAN_TAKE_BACK: bool = false;

    fn takes_back(self, _: usize) -> bool {
        false
    }
}

impl Signs for &[ChangeOp] {
    const CAN_TAKE_BACK: bool = true;

    fn takes_back(self, row: usize) -> bool {
        self.get(row).is_some_and(|op| matches!(op, ChangeOp::UpdateBefore | ChangeOp::Delete))
    }
}

impl Accumulator {
    /// The accumulator of a call, with its first word at `at`.
    ///
    /// # Errors
    /// [`QueryError::Unsupported`] for an argument of a type that it cannot fold.
    pub(crate) fn new(call: &AggregateCall, at: usize) -> Result<Self, QueryError> {
        let refused = || QueryError::Unsupported(format!("{call} of {:?}", call.types));
        let of = call.types.first().unwrap_or(&DataType::Int64);
        let kind = match call.function {
            AggregateFunction::CountStar | AggregateFunction::Count => Kind::Count,
            AggregateFunction::CountDistinct => Kind::CountDistinct,
            AggregateFunction::Sum => Kind::Sum(numbers(of).ok_or_else(refused)?),
            AggregateFunction::SumList => match of {
                DataType::List(item) => Kind::SumList(numbers(item.data_type()).ok_or_else(refused)?),
                _ => return Err(refused()),
            },
            AggregateFunction::Avg => Kind::Avg(numbers(of).ok_or_else(refused)?),
            AggregateFunction::Min => Kind::Extreme(values(of).ok_or_else(refused)?, Ordering::Less),
            AggregateFunction::Max => Kind::Extreme(values(of).ok_or_else(refused)?, Ordering::Greater),
            AggregateFunction::Variance => Kind::Variance,
            AggregateFunction::Deviation => Kind::Deviation,
            AggregateFunction::Correlation => Kind::Correlation,
            AggregateFunction::Earliest { .. }
            | AggregateFunction::Latest { .. }
            | AggregateFunction::CollectList { .. }
            | AggregateFunction::CollectSet { .. }
            | AggregateFunction::TopK { .. }
            | AggregateFunction::TopKDistinct { .. }
            | AggregateFunction::Histogram { .. }
            | AggregateFunction::Attr => return Err(refused()),
        };
        let place = |argument: usize| call.arguments.get(argument).copied();
        let argument = if call.function == AggregateFunction::CountStar { None } else { place(0) };
        Ok(Self { kind, argument, second: place(1), filter: call.filter, rules: call.rules, at, data_type: call.data_type.clone() })
    }

    /// Number of words.
    pub(crate) fn words(&self) -> usize {
        match self.kind {
            Kind::Count | Kind::CountDistinct => 1,
            Kind::Sum(Numbers::Double) | Kind::SumList(Numbers::Double) | Kind::Avg(Numbers::Double) => 2,
            Kind::Extreme(Values::Integer | Values::Double | Values::Text, _) => 2,
            Kind::Sum(Numbers::Integer) | Kind::SumList(Numbers::Integer) | Kind::Avg(Numbers::Integer) => 3,
            Kind::Extreme(Values::Decimal, _) => 3,
            Kind::Sum(Numbers::Decimal { .. }) | Kind::SumList(Numbers::Decimal { .. }) | Kind::Avg(Numbers::Decimal { .. }) => 4,
            Kind::Variance | Kind::Deviation => moments::VARIANCE,
            Kind::Correlation => moments::CORRELATION,
        }
    }

    /// Place of its FILTER in the input.
    pub(crate) fn filter(&self) -> Option<usize> {
        self.filter
    }

    /// The word that refers to a text, counted from the row's beginning.
    pub(crate) fn text_word(&self) -> Option<usize> {
        matches!(self.kind, Kind::Extreme(Values::Text, _)).then_some(HEADER + self.at)
    }

    /// Folds a batch: value `i` of the argument belongs to group `groups[i]`, and is taken back instead if `signs` says so;
    /// only rows that are `wanted` are folded.
    ///
    /// # Errors
    /// [`QueryError::Execution`] if the argument is not what the plan says, which is a fault of ours.
    pub(crate) fn fold(
        &self,
        table: &mut Table,
        (groups, wanted): (&[RowNumber], Option<&NullBuffer>),
        columns: &[ArrayRef],
        signs: impl Signs,
    ) -> Result<(), QueryError> {
        let at = self.at;
        let Some(argument) = self.argument else {
            each_valid(wanted, groups, |group, row| count(&mut table.accumulators_mut(group)[at], signs.takes_back(row)));
            return Ok(());
        };
        let column = columns.get(argument).ok_or_else(|| execution("an aggregate's argument is missing"))?;
        let groups = (groups, wanted);
        match self.kind {
            Kind::Count => each_value(column, groups, |group, row| count(&mut table.accumulators_mut(group)[at], signs.takes_back(row))),
            Kind::CountDistinct => {}
            Kind::Sum(of) | Kind::Avg(of) => {
                let values = Summands::new(of, column)?;
                each_value(column, groups, |group, row| {
                    values.add(row, &mut table.accumulators_mut(group)[at..], signs.takes_back(row));
                });
            }
            Kind::SumList(of) => {
                let lists = column.as_list_opt::<i32>().ok_or_else(|| execution("not an ARRAY"))?;
                let elements = lists.values();
                let values = Summands::new(of, elements)?;
                each_value(column, groups, |group, row| {
                    let range = lists.value_offsets().get(row..row + 2).map_or(0..0, |ends| place(ends[0])..place(ends[1]));
                    for element in range.filter(|element| elements.is_valid(*element)) {
                        values.add(element, &mut table.accumulators_mut(group)[at..], signs.takes_back(row));
                    }
                });
            }
            Kind::Variance | Kind::Deviation => {
                let column = cast(column, &DataType::Float64).map_err(execution)?;
                let values = column.as_primitive::<Float64Type>().values();
                each_value(&column, groups, |group, row| {
                    let words = &mut table.accumulators_mut(group)[at..at + moments::VARIANCE];
                    moments::add(words, values[row], signs.takes_back(row));
                });
            }
            Kind::Correlation => {
                let second = self.second.and_then(|second| columns.get(second));
                let second = second.ok_or_else(|| execution("an aggregate's argument is missing"))?;
                let (first, second) = (cast(column, &DataType::Float64), cast(second, &DataType::Float64));
                let (first, second) = (first.map_err(execution)?, second.map_err(execution)?);
                let (x, y) = (first.as_primitive::<Float64Type>().values(), second.as_primitive::<Float64Type>().values());
                each_value(&first, groups, |group, row| {
                    if second.is_valid(row) {
                        let words = &mut table.accumulators_mut(group)[at..at + moments::CORRELATION];
                        moments::add_pair(words, (x[row], y[row]), signs.takes_back(row));
                    }
                });
            }
            Kind::Extreme(values, wanted) => self.extreme(values, wanted, table, groups, column)?,
        }
        Ok(())
    }

    /// Keeps the smallest or greatest value; that is never taken back.
    fn extreme(
        &self,
        values: Values,
        wanted: Ordering,
        table: &mut Table,
        groups: (&[RowNumber], Option<&NullBuffer>),
        column: &ArrayRef,
    ) -> Result<(), QueryError> {
        let at = self.at;
        match values {
            Values::Integer => {
                let column = cast(column, &DataType::Int64).map_err(execution)?;
                let values = column.as_primitive::<Int64Type>().values();
                each_value(&column, groups, |group, row| {
                    let words = &mut table.accumulators_mut(group)[at..at + 2];
                    if words[1] == 0 || values[row].cmp(&words[0].cast_signed()) == wanted {
                        words[0] = values[row].cast_unsigned();
                    }
                    words[1] = 1;
                });
            }
            Values::Double => {
                let column = cast(column, &DataType::Float64).map_err(execution)?;
                let values = column.as_primitive::<Float64Type>().values();
                each_value(&column, groups, |group, row| {
                    let words = &mut table.accumulators_mut(group)[at..at + 2];
                    if words[1] == 0 || values[row].total_cmp(&f64::from_bits(words[0])) == wanted {
                        words[0] = values[row].to_bits();
                    }
                    words[1] = 1;
                });
            }
            Values::Decimal => {
                let values = column.as_primitive_opt::<Decimal128Type>().ok_or_else(|| execution("not a DECIMAL"))?.values();
                each_value(column, groups, |group, row| {
                    let words = &mut table.accumulators_mut(group)[at..at + 3];
                    if words[2] == 0 || values[row].cmp(&wide(words)) == wanted {
                        set_wide(words, values[row]);
                    }
                    words[2] = 1;
                });
            }
            Values::Text => {
                let column = cast(column, &DataType::Utf8).map_err(execution)?;
                let values = column.as_string::<i32>();
                each_value(&column, groups, |group, row| {
                    let value = values.value(row).as_bytes();
                    let words = table.accumulators_mut(group);
                    let (reference, known) = (words[at], std::mem::replace(&mut words[at + 1], 1));
                    if known == 0 || value.cmp(table.text(reference)) == wanted {
                        table.put_text(group, at, value);
                    }
                });
            }
        }
        Ok(())
    }

    /// Some if there is a result; `count` is the place of the number of values.
    fn known(&self, words: &[u64], count: usize) -> Option<()> {
        (words[count] != 0 || self.rules == AggregateRules::Ksql).then_some(())
    }

    /// The results of rows, each given by its words (header included).
    ///
    /// # Errors
    /// As [`Accumulator::fold`].
    pub(crate) fn results(&self, table: &Table, rows: &[&[u64]]) -> Result<ArrayRef, QueryError> {
        let rows = rows.iter().map(|row| row.get(HEADER + self.at..).unwrap_or_default());
        let array: ArrayRef = match self.kind {
            Kind::Count | Kind::CountDistinct => Arc::new(Int64Array::from_iter_values(rows.map(|words| words[0].cast_signed()))),
            Kind::Sum(Numbers::Integer) | Kind::SumList(Numbers::Integer) if self.rules == AggregateRules::Ksql => {
                return Ok(wrapped(rows.map(wide), &self.data_type));
            }
            Kind::Sum(Numbers::Integer) | Kind::SumList(Numbers::Integer) => {
                Arc::new(rows.map(|words| known(words, 2).and_then(|()| i64::try_from(wide(words)).ok())).collect::<Int64Array>())
            }
            Kind::Sum(Numbers::Decimal { .. }) | Kind::SumList(Numbers::Decimal { .. }) => {
                let precision = match self.data_type {
                    DataType::Decimal128(precision, _) => precision,
                    _ => DECIMAL128_MAX_PRECISION,
                };
                let fits = |value: &i128| value.unsigned_abs() < 10_u128.pow(u32::from(precision));
                let sums = rows.map(|words| self.known(words, 3).and_then(|()| decimal_sum(words)).filter(fits));
                Arc::new(sums.collect::<Decimal128Array>().with_data_type(self.data_type.clone()))
            }
            Kind::Extreme(Values::Decimal, _) => {
                let values = rows.map(|words| known(words, 2).map(|()| wide(words))).collect::<Decimal128Array>();
                Arc::new(values.with_data_type(self.data_type.clone()))
            }
            Kind::Sum(Numbers::Double) | Kind::SumList(Numbers::Double) => {
                Arc::new(rows.map(|words| self.known(words, 1).map(|()| f64::from_bits(words[0]))).collect::<Float64Array>())
            }
            Kind::Extreme(Values::Double, _) => {
                Arc::new(rows.map(|words| known(words, 1).map(|()| f64::from_bits(words[0]))).collect::<Float64Array>())
            }
            Kind::Avg(Numbers::Double) => {
                Arc::new(rows.map(|words| self.mean(words, 1, || f64::from_bits(words[0]))).collect::<Float64Array>())
            }
            Kind::Avg(Numbers::Integer) => {
                Arc::new(rows.map(|words| self.mean(words, 2, || wide_as_double(wide(words)))).collect::<Float64Array>())
            }
            Kind::Avg(Numbers::Decimal { scale }) => {
                let unit = 10_f64.powi(i32::from(scale));
                let mean = |words: &[u64]| {
                    let sum = decimal_sum(words).map(|sum| wide_as_double(sum) / unit);
                    sum.and_then(|sum| self.mean(words, 3, || sum))
                };
                Arc::new(rows.map(mean).collect::<Float64Array>())
            }
            Kind::Extreme(Values::Integer, _) => {
                Arc::new(rows.map(|words| known(words, 1).map(|()| words[0].cast_signed())).collect::<Int64Array>())
            }
            Kind::Extreme(Values::Text, _) => {
                let mut texts = StringBuilder::new();
                for words in rows {
                    texts.append_option(known(words, 1).and_then(|()| std::str::from_utf8(table.text(words[0])).ok()));
                }
                Arc::new(texts.finish())
            }
            Kind::Variance => Arc::new(rows.map(|words| self.spread(words)).collect::<Float64Array>()),
            Kind::Deviation => Arc::new(rows.map(|words| self.spread(words).map(f64::sqrt)).collect::<Float64Array>()),
            Kind::Correlation => {
                let defined = |words: &[u64]| match (moments::correlation(words), self.rules) {
                    (None, AggregateRules::Ksql) => Some(f64::NAN),
                    (known, AggregateRules::Ksql) => known,
                    (known, AggregateRules::Standard) => known.filter(|known| !known.is_nan()),
                };
                Arc::new(rows.map(defined).collect::<Float64Array>())
            }
        };
        let array = with_one_nan(array);
        if array.data_type() == &self.data_type { Ok(array) } else { cast(&array, &self.data_type).map_err(execution) }
    }

    /// The mean of as many values as the word at `count` says.
    fn mean(&self, words: &[u64], count: usize, sum: impl FnOnce() -> f64) -> Option<f64> {
        match (words[count], self.rules) {
            (0, AggregateRules::Standard) => None,
            (0, AggregateRules::Ksql) => Some(0.0),
            (count, _) => Some(sum() / as_double(count)),
        }
    }

    fn spread(&self, words: &[u64]) -> Option<f64> {
        let nothing = (self.rules == AggregateRules::Ksql).then_some(0.0);
        moments::variance(words).1.or(nothing)
    }
}

/// The values of a column that is summed.
enum Summands<'a> {
    Integer(ArrayRef),
    Double(ArrayRef),
    Decimal(&'a [i128]),
}

impl<'a> Summands<'a> {
    fn new(of: Numbers, column: &'a ArrayRef) -> Result<Self, QueryError> {
        Ok(match of {
            Numbers::Integer => Self::Integer(cast(column, &DataType::Int64).map_err(execution)?),
            Numbers::Double => Self::Double(cast(column, &DataType::Float64).map_err(execution)?),
            Numbers::Decimal { .. } => {
                Self::Decimal(column.as_primitive_opt::<Decimal128Type>().ok_or_else(|| execution("not a DECIMAL"))?.values())
            }
        })
    }

    /// Adds the value of a row to the sum in these words.
    fn add(&self, row: usize, words: &mut [u64], takes_back: bool) {
        match self {
            Self::Integer(values) => add(words, values.as_primitive::<Int64Type>().value(row), takes_back),
            Self::Double(values) => add_double(words, values.as_primitive::<Float64Type>().value(row), takes_back),
            Self::Decimal(values) => add_decimal(words, values[row], takes_back),
        }
    }
}

/// Sums in as many bits as their type has.
#[expect(clippy::cast_possible_truncation, reason = "they wrap, as ksqlDB's do")]
fn wrapped(sums: impl Iterator<Item = i128>, data_type: &DataType) -> ArrayRef {
    match data_type {
        DataType::Int32 => Arc::new(Int32Array::from_iter_values(sums.map(|sum| sum as i32))),
        _ => Arc::new(Int64Array::from_iter_values(sums.map(|sum| sum as i64))),
    }
}

/// An offset into the values of arrays.
fn place(offset: i32) -> usize {
    usize::try_from(offset).unwrap_or_default()
}

/// Whether words hold the smallest and greatest values of a type.
pub(crate) fn is_extreme_of_words(data_type: &DataType) -> bool {
    values(data_type).is_some()
}

fn numbers(data_type: &DataType) -> Option<Numbers> {
    match data_type {
        _ if data_type.is_integer() => Some(Numbers::Integer),
        DataType::Float32 | DataType::Float64 => Some(Numbers::Double),
        DataType::Decimal128(_, scale) => Some(Numbers::Decimal { scale: *scale }),
        _ => None,
    }
}

fn values(data_type: &DataType) -> Option<Values> {
    match data_type {
        DataType::Boolean | DataType::Timestamp(..) | DataType::Date64 => Some(Values::Integer),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some(Values::Text),
        DataType::Decimal128(..) => Some(Values::Decimal),
        _ if data_type.is_integer() => Some(Values::Integer),
        DataType::Float32 | DataType::Float64 => Some(Values::Double),
        _ => None,
    }
}

/// Calls `with` for each value that is not NULL, of the rows that are wanted, in order.
fn each_value(column: &ArrayRef, (groups, wanted): (&[RowNumber], Option<&NullBuffer>), with: impl FnMut(RowNumber, usize)) {
    each_valid(NullBuffer::union(column.nulls(), wanted).as_ref(), groups, with);
}

/// The same for rows that are valid.
fn each_valid(valid: Option<&NullBuffer>, groups: &[RowNumber], mut with: impl FnMut(RowNumber, usize)) {
    match valid.filter(|valid| valid.null_count() > 0) {
        None => groups.iter().enumerate().for_each(|(row, group)| with(*group, row)),
        Some(valid) => valid.valid_indices().for_each(|row| with(groups[row], row)),
    }
}

/// Some if a value was folded; `count` is the place of the number of values.
fn known(words: &[u64], count: usize) -> Option<()> {
    (words[count] != 0).then_some(())
}

fn count(word: &mut u64, takes_back: bool) {
    *word = if takes_back { word.wrapping_sub(1) } else { word.wrapping_add(1) };
}

/// Adds to a sum of integers; 2^64 of them do not leave 128 bits.
fn add(words: &mut [u64], value: i64, takes_back: bool) {
    let value = if takes_back { -i128::from(value) } else { i128::from(value) };
    set_wide(words, wide(words).wrapping_add(value));
    count(&mut words[2], takes_back);
}

/// Adds to a sum of doubles. One that is taken back leaves its rounding; with the last one the sum is gone.
fn add_double(words: &mut [u64], value: f64, takes_back: bool) {
    let value = if takes_back { -value } else { value };
    count(&mut words[1], takes_back);
    words[0] = if takes_back && words[1] == 0 { 0 } else { (f64::from_bits(words[0]) + value).to_bits() };
}

/// Adds to a sum of decimals; 2^64 of them do not leave 192 bits. DECIMAL has 38 digits, so there is a negative of each.
fn add_decimal(words: &mut [u64], value: i128, takes_back: bool) {
    let value = if takes_back { value.wrapping_neg() } else { value };
    let (sum, carried) = wide(words).cast_unsigned().overflowing_add(value.cast_unsigned());
    set_wide(words, sum.cast_signed());
    words[2] = words[2].wrapping_add(sign(value)).wrapping_add(u64::from(carried));
    count(&mut words[3], takes_back);
}

/// The sum of decimals, if 128 bits hold it.
fn decimal_sum(words: &[u64]) -> Option<i128> {
    Some(wide(words)).filter(|sum| words[2] == sign(*sum))
}

/// The word above a number of 128 bits.
fn sign(value: i128) -> u64 {
    if value < 0 { u64::MAX } else { 0 }
}

#[expect(clippy::cast_possible_truncation, reason = "the two halves of a wide number")]
fn set_wide(words: &mut [u64], value: i128) {
    words[0] = value.cast_unsigned() as u64;
    words[1] = (value.cast_unsigned() >> 64) as u64;
}

fn wide(words: &[u64]) -> i128 {
    (u128::from(words[0]) | (u128::from(words[1]) << 64)).cast_signed()
}

#[expect(clippy::cast_precision_loss, reason = "AVG is a DOUBLE")]
fn wide_as_double(value: i128) -> f64 {
    value as f64
}

#[expect(clippy::cast_precision_loss, reason = "AVG is a DOUBLE")]
fn as_double(count: u64) -> f64 {
    count as f64
}
