//! Choosing among values: what is not NULL, what differs, the greatest and the least.

use std::{cmp::Ordering, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray as _, BooleanArray, new_null_array},
    compute::{interleave, nullif},
    datatypes::Float64Type,
    row::{RowConverter, Rows, SortField},
};
use datafusion::common::Result;

use super::{
    definition::{Definition, form},
    input::Input,
};

pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new(
        "as_value",
        "The value itself: copies a key column into the value.",
        &[form("value T -> T", |input| input.array(0))],
        &[("as_value(7)", "7")],
    ),
    Definition::new(
        "coalesce",
        "The first value that is not NULL.",
        &[form("value T, more T... -> T", first_given)],
        &[("coalesce(NULL, 'a', 'b')", "a")],
    )
    .only_ksql(),
    Definition::new(
        "greatest",
        "The greatest of the values; NULLs are left out.",
        &[
            form("value INT, more INT... -> INT", |input| extreme(input, Ordering::Greater)),
            form("value BIGINT, more BIGINT... -> BIGINT", |input| extreme(input, Ordering::Greater)),
            form("value DECIMAL*, more DECIMAL*... -> DECIMAL*", |input| extreme(input, Ordering::Greater)),
            form("value DOUBLE, more DOUBLE... -> DOUBLE", |input| extreme(input, Ordering::Greater)),
            form("value VARCHAR, more VARCHAR... -> VARCHAR", |input| extreme(input, Ordering::Greater)),
            form("value BYTES, more BYTES... -> BYTES", |input| extreme(input, Ordering::Greater)),
            form("value DATE, more DATE... -> DATE", |input| extreme(input, Ordering::Greater)),
            form("value TIME, more TIME... -> TIME", |input| extreme(input, Ordering::Greater)),
            form("value TIMESTAMP, more TIMESTAMP... -> TIMESTAMP", |input| extreme(input, Ordering::Greater)),
        ],
        &[("greatest(3, NULL, 5)", "5")],
    )
    .only_ksql(),
    Definition::new(
        "ifnull",
        "The value, or another if it is NULL.",
        &[form("value T, otherwise T -> T", first_given)],
        &[("ifnull(NULL, 'a')", "a")],
    )
    .only_ksql(),
    Definition::new(
        "least",
        "The least of the values; NULLs are left out.",
        &[
            form("value INT, more INT... -> INT", |input| extreme(input, Ordering::Less)),
            form("value BIGINT, more BIGINT... -> BIGINT", |input| extreme(input, Ordering::Less)),
            form("value DECIMAL*, more DECIMAL*... -> DECIMAL*", |input| extreme(input, Ordering::Less)),
            form("value DOUBLE, more DOUBLE... -> DOUBLE", |input| extreme(input, Ordering::Less)),
            form("value VARCHAR, more VARCHAR... -> VARCHAR", |input| extreme(input, Ordering::Less)),
            form("value BYTES, more BYTES... -> BYTES", |input| extreme(input, Ordering::Less)),
            form("value DATE, more DATE... -> DATE", |input| extreme(input, Ordering::Less)),
            form("value TIME, more TIME... -> TIME", |input| extreme(input, Ordering::Less)),
            form("value TIMESTAMP, more TIMESTAMP... -> TIMESTAMP", |input| extreme(input, Ordering::Less)),
        ],
        &[("least(3, NULL, 5)", "3")],
    )
    .only_ksql(),
    Definition::new(
        "nullif",
        "The value, or NULL if it equals another.",
        &[form("value T, other T -> T", |input| {
            let (values, others) = (input.array(0)?, input.array(1)?);
            let converter = RowConverter::new(vec![SortField::new(values.data_type().clone())])?;
            let (left, right) =
                (converter.convert_columns(&[with_one_zero(&values)])?, converter.convert_columns(&[with_one_zero(&others)])?);
            let equal: BooleanArray = left.iter().zip(right.iter()).map(|(left, right)| Some(left == right)).collect();
            Ok(nullif(&values, &equal)?)
        })],
        &[("nullif(1, 1)", "NULL"), ("nullif(1, 2)", "1")],
    )
    .only_ksql(),
];

/// DOUBLE values with one zero and one NaN; others as they are.
fn with_one_zero(values: &ArrayRef) -> ArrayRef {
    match values.as_primitive_opt::<Float64Type>() {
        Some(doubles) => Arc::new(doubles.unary::<_, Float64Type>(|value| if value.is_nan() { f64::NAN } else { value + 0.0 })),
        None => Arc::clone(values),
    }
}

/// For each row the value of one of the arguments; none gives NULL.
fn chosen(input: &Input<'_>, arguments: &[ArrayRef], choose: impl Fn(usize) -> Option<usize>) -> Result<ArrayRef> {
    let missing = new_null_array(input.returns(), 1);
    let mut sources: Vec<&dyn Array> = arguments.iter().map(AsRef::as_ref).collect();
    sources.push(missing.as_ref());
    let places: Vec<(usize, usize)> =
        (0..input.rows()).map(|row| choose(row).map_or((arguments.len(), 0), |argument| (argument, row))).collect();
    Ok(interleave(&sources, &places)?)
}

fn arguments(input: &Input<'_>) -> Result<Vec<ArrayRef>> {
    (0..input.len()).map(|at| input.array(at)).collect()
}

fn first_given(input: &Input<'_>) -> Result<ArrayRef> {
    let arguments = arguments(input)?;
    chosen(input, &arguments, |row| arguments.iter().position(|one| one.is_valid(row)))
}

fn extreme(input: &Input<'_>, wanted: Ordering) -> Result<ArrayRef> {
    let arguments = arguments(input)?;
    let converter = RowConverter::new(vec![SortField::new(input.returns().clone())])?;
    let comparable = arguments.iter().map(|one| Ok(converter.convert_columns(&[Arc::clone(one)])?)).collect::<Result<Vec<Rows>>>()?;
    chosen(input, &arguments, |row| {
        let mut best: Option<(usize, arrow::row::Row<'_>)> = None;
        for (argument, rows) in comparable.iter().enumerate() {
            let value = rows.row(row);
            let is_given = arguments.get(argument).is_some_and(|one| one.is_valid(row));
            if is_given && best.is_none_or(|(_, best)| value.cmp(&best) == wanted) {
                best = Some((argument, value));
            }
        }
        best.map(|(argument, _)| argument)
    })
}
