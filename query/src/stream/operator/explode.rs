//! Table functions: several rows of one, the columns of which are repeated.
//!
//! Run by `operator/chain`. Rows keep their order; those of one row have its position and time.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array, ListArray, UInt32Array, UInt32Builder, new_null_array},
    buffer::OffsetBuffer,
    compute::take,
    datatypes::SchemaRef,
};

use crate::{
    error::QueryError,
    plan::{Expression, MAX_BATCH_BYTES, RowError, TableFunction, sizes_of},
    stream::{
        change::ChangeBatch,
        operator::chain::{batch, execution},
    },
};

/// Elements of an array of which CUBE_EXPLODE makes rows: as many as give 65,536.
const MOST_CUBED: usize = 16;
/// What a row takes beside the columns that are read.
const BYTES_BESIDE: usize = 16;

/// What a call makes of each row of a batch.
struct Rows {
    /// The values of all rows, one behind the other.
    values: ArrayRef,
    offsets: OffsetBuffer<i32>,
}

/// Runs table functions side by side; what fails, or makes too much of a single row, makes no row and is told. Columns of the input
/// that are not among those that are read come out as NULL.
///
/// # Errors
/// [`QueryError::ResourceExhausted`] if they make too much of so many rows, never of a single one; [`QueryError::Execution`]
/// where columns do not fit the plan, which is a fault of ours.
pub(crate) fn run(
    (reads, calls): (&[usize], &[(TableFunction, Expression)]),
    schema: &SchemaRef,
    input: &ChangeBatch,
    tell: &mut dyn FnMut(&[RowError]),
) -> Result<ChangeBatch, QueryError> {
    let mut made = Vec::with_capacity(calls.len());
    for (function, argument) in calls {
        let evaluated = argument.evaluate(&input.rows)?;
        tell(&evaluated.errors);
        let lists = || evaluated.values.as_list_opt::<i32>().ok_or_else(|| execution("a table function's argument is no ARRAY"));
        made.push(match function {
            TableFunction::Explode => Some(exploded(lists()?)),
            TableFunction::CubeExplode => Some(cubed(lists()?, tell)?),
            TableFunction::Number => None,
        });
    }
    let count = |rows: &Rows, row: usize| rows.offsets.get(row..row + 2).map_or(0, |ends| length(ends[1] - ends[0]));
    let mut longest: Vec<usize> =
        (0..input.len()).map(|row| made.iter().flatten().map(|rows| count(rows, row)).max().unwrap_or(0)).collect();
    // A record without a value has nothing of which rows could be made.
    for row in input.value_null.iter().flat_map(|null| null.set_indices()) {
        if let Some(rows) = longest.get_mut(row) {
            *rows = 0;
        }
    }
    let is_read = |place: &usize| reads.contains(place) || schema.fields().get(*place).is_some_and(|field| !field.is_nullable());
    let mut bytes_of_row = vec![BYTES_BESIDE; input.len()];
    for (_, column) in input.rows.columns().iter().enumerate().filter(|(place, _)| is_read(place)) {
        bytes_of_row.iter_mut().zip(sizes_of(column).map_err(execution)?).for_each(|(sum, size)| *sum += size);
    }
    let bytes = longest.iter().zip(&bytes_of_row).fold(0_usize, |sum, (rows, bytes)| sum.saturating_add(rows.saturating_mul(*bytes)));
    if bytes > MAX_BATCH_BYTES && input.len() > 1 {
        return Err(QueryError::ResourceExhausted(format!("more than {MAX_BATCH_BYTES} bytes are made of one batch of rows")));
    }
    if bytes > MAX_BATCH_BYTES {
        let rows = longest.iter().sum::<usize>();
        tell(&[RowError {
            row: 0,
            reason: format!("{rows} rows with the columns beside them would have more than {MAX_BATCH_BYTES} bytes"),
        }]);
        longest.iter_mut().for_each(|rows| *rows = 0);
    }
    let total: usize = longest.iter().sum();

    let repeated: Vec<usize> = longest.iter().enumerate().flat_map(|(row, times)| std::iter::repeat_n(row, *times)).collect();
    let places = UInt32Array::from_iter_values(repeated.iter().map(|row| u32::try_from(*row).unwrap_or(u32::MAX)));
    let repeat = |(place, column): (usize, &ArrayRef)| match is_read(&place) {
        true => take(column, &places, None).map_err(execution),
        false => Ok(new_null_array(column.data_type(), total)),
    };
    let mut columns = input.rows.columns().iter().enumerate().map(repeat).collect::<Result<Vec<_>, _>>()?;
    for rows in &made {
        columns.push(match rows {
            Some(rows) => filled_up(rows, &longest)?,
            None => numbers(&longest),
        });
    }
    Ok(ChangeBatch {
        rows: batch(schema, columns, total)?,
        ops: None,
        rowtime: repeated.iter().filter_map(|row| input.rowtime.get(*row).copied()).collect(),
        positions: repeated.iter().filter_map(|row| input.positions.get(*row).copied()).collect(),
        value_null: None,
    })
}

/// One value for each of the rows that all calls together make of each row: NULL behind the last of this call.
fn filled_up(rows: &Rows, longest: &[usize]) -> Result<ArrayRef, QueryError> {
    let mut places = UInt32Builder::with_capacity(longest.iter().sum());
    for (row, times) in longest.iter().enumerate() {
        let (start, end) = rows.offsets.get(row..row + 2).map_or((0, 0), |ends| (ends[0], ends[1]));
        for time in 0..*times {
            let place = i32::try_from(time).ok().map(|time| start + time).filter(|place| *place < end);
            places.append_option(place.and_then(|place| u32::try_from(place).ok()));
        }
    }
    take(&rows.values, &places.finish(), None).map_err(execution)
}

/// The number of each row among those of the same row, from 0.
fn numbers(longest: &[usize]) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(longest.iter().flat_map(|times| (0..).take(*times))))
}

/// The elements of each array.
fn exploded(lists: &ListArray) -> Rows {
    let mut places = UInt32Builder::new();
    let mut lengths = Vec::with_capacity(lists.len());
    for row in 0..lists.len() {
        let range = elements(lists, row);
        lengths.push(range.len());
        range.for_each(|element| places.append_value(u32::try_from(element).unwrap_or(u32::MAX)));
    }
    let places = places.finish();
    let values = take(lists.values(), &places, None).unwrap_or_else(|_| arrow::array::new_null_array(&lists.value_type(), places.len()));
    Rows { values, offsets: OffsetBuffer::from_lengths(lengths) }
}

/// The places of a row's elements; none of an array that is NULL.
fn elements(lists: &ListArray, row: usize) -> std::ops::Range<usize> {
    match lists.value_offsets().get(row..row + 2) {
        Some(ends) if lists.is_valid(row) => length(ends[0])..length(ends[1]),
        _ => 0..0,
    }
}

/// For each array every choice of its elements, NULL in place of the others: the first element is the last to come, and the last
/// changes from row to row.
fn cubed(lists: &ListArray, tell: &mut dyn FnMut(&[RowError])) -> Result<Rows, QueryError> {
    let mut places = UInt32Builder::new();
    let (mut rows, mut widths) = (Vec::with_capacity(lists.len()), Vec::new());
    let (sizes, mut bytes) = (sizes_of(lists.values()).map_err(execution)?, 0_usize);
    for row in 0..lists.len() {
        let range = elements(lists, row);
        let there: Vec<usize> = range.clone().filter(|element| lists.values().is_valid(*element)).collect();
        if there.len() > MOST_CUBED {
            tell(&[RowError { row, reason: format!("cube_explode takes arrays of at most {MOST_CUBED} values") }]);
            rows.push(0);
            continue;
        }
        let choices = if lists.is_valid(row) { 1_usize << there.len() } else { 0 };
        // Each element is in half of the choices.
        let of_row = choices / 2 * (range.len() * BYTES_BESIDE + sizes.get(range.clone()).unwrap_or_default().iter().sum::<usize>());
        bytes = bytes.saturating_add(of_row);
        if bytes > MAX_BATCH_BYTES && lists.len() > 1 {
            return Err(QueryError::ResourceExhausted(format!("more than {MAX_BATCH_BYTES} bytes are made of one batch of rows")));
        }
        if bytes > MAX_BATCH_BYTES {
            tell(&[RowError { row, reason: format!("{choices} choices of these values would have more than {MAX_BATCH_BYTES} bytes") }]);
            rows.push(0);
            continue;
        }
        for choice in 0..choices {
            for element in range.clone() {
                let bit = there.iter().position(|known| *known == element).map(|place| there.len() - 1 - place);
                let is_chosen = bit.is_some_and(|bit| choice >> bit & 1 == 1);
                places.append_option(is_chosen.then(|| u32::try_from(element).ok()).flatten());
            }
            widths.push(range.len());
        }
        rows.push(choices);
    }
    let arrow::datatypes::DataType::List(item) = lists.data_type() else { return Err(execution("not an ARRAY")) };
    let values = take(lists.values(), &places.finish(), None).map_err(execution)?;
    let values = ListArray::try_new(Arc::clone(item), OffsetBuffer::from_lengths(widths), values, None).map_err(execution)?;
    Ok(Rows { values: Arc::new(values), offsets: OffsetBuffer::from_lengths(rows) })
}

fn length(offset: i32) -> usize {
    usize::try_from(offset).unwrap_or_default()
}
