//! Functions of arrays. Elements are compared as they are: NULL equals NULL, NaN equals NaN.
//!
//! Elements are never copied one by one: a kernel finds the places of those that it wants, and takes them at once.

use std::{cmp::Ordering, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, ListArray, UInt64Array, new_null_array},
    buffer::{NullBuffer, OffsetBuffer},
    compute::{concat, take},
    datatypes::Float64Type,
    row::{RowConverter, Rows, SortField},
    util::display::{ArrayFormatter, FormatOptions},
};
use datafusion::common::Result;
use hashbrown::HashSet;

use super::{
    definition::{Definition, form},
    input::{Fault, Input, Str},
    text::{count, joined},
    types,
    written::double,
};
use crate::plan::MAX_VALUE_BYTES;

/// Most elements that GENERATE_SERIES makes.
const MAX_SERIES: usize = MAX_VALUE_BYTES / 8;

pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new(
        "array_concat",
        "The elements of two arrays after each other; NULL counts as empty, unless both are.",
        &[form("left ARRAY<T>, right ARRAY<T> -> ARRAY<T>", |input| {
            two(input, |left, right, _| {
                let is_given = left.is_some() || right.is_some();
                is_given.then(|| [left, right].into_iter().flatten().flatten().collect())
            })
        })],
        &[("array_concat(ARRAY[1, 2], ARRAY[2, 3])", "[1, 2, 2, 3]")],
    )
    .only_ksql(),
    Definition::new(
        "array_contains",
        "Whether an array has an element that equals a value.",
        &[form("array ARRAY<T>, value T -> BOOLEAN", |input| {
            let found = search(input, |elements, places, wanted| places.into_iter().any(|place| elements.row(place) == wanted))?;
            Ok(Arc::new(found.into_iter().map(|one| Some(one == Some(true))).collect::<BooleanArray>()))
        })],
        &[("array_contains(ARRAY[1, 2], 2)", "true")],
    )
    .only_ksql(),
    Definition::new(
        "array_distinct",
        "The elements of an array, each once, where it comes first.",
        &[form("array ARRAY<T> -> ARRAY<T>", |input| one(input, |places, all| distinct(places, all, &HashSet::new())))],
        &[("array_distinct(ARRAY[2, 1, 2])", "[2, 1]")],
    )
    .only_ksql(),
    Definition::new(
        "array_except",
        "The elements of an array that another does not have, each once.",
        &[form("left ARRAY<T>, right ARRAY<T> -> ARRAY<T>", |input| {
            two(input, |left, right, all| {
                let without: HashSet<&[u8]> = right?.map(|place| all.row(place).data()).collect();
                Some(distinct(left?, all, &without))
            })
        })],
        &[("array_except(ARRAY[1, 2, 3, 1], ARRAY[2])", "[1, 3]")],
    )
    .only_ksql(),
    Definition::new(
        "array_intersect",
        "The elements of an array that another has too, each once.",
        &[form("left ARRAY<T>, right ARRAY<T> -> ARRAY<T>", |input| {
            two(input, |left, right, all| {
                let within: HashSet<&[u8]> = right?.map(|place| all.row(place).data()).collect();
                let mut places = distinct(left?, all, &HashSet::new());
                places.retain(|place| within.contains(all.row(*place).data()));
                Some(places)
            })
        })],
        &[("array_intersect(ARRAY[1, 2, 3], ARRAY[3, 1])", "[1, 3]")],
    )
    .only_ksql(),
    Definition::new(
        "array_join",
        "The elements of an array as text, with a delimiter between them (a comma, unless told; none, if NULL); NULL elements are written `null`.",
        &[form("array ARRAY<T> -> VARCHAR", join), form("array ARRAY<T>, delimiter VARCHAR -> VARCHAR", join)],
        &[("array_join(ARRAY[1, NULL, 3], '-')", "1-null-3")],
    )
    .only_ksql(),
    Definition::new(
        "array_length",
        "The number of elements of an array.",
        &[form("array ARRAY<T> -> INT", |input| {
            let lists = input.lists(0)?;
            input.each(|row| lists.is_valid(row).then(|| count(range(&lists, row).len())))
        })],
        &[("array_length(ARRAY[1, 2])", "2")],
    )
    .only_ksql(),
    Definition::new(
        "array_max",
        "The greatest element of an array; NULLs are left out.",
        &[form("array ARRAY<T> -> T", |input| extreme(input, Ordering::Greater))],
        &[("array_max(ARRAY[1, NULL, 3])", "3")],
    )
    .only_ksql(),
    Definition::new(
        "array_min",
        "The least element of an array; NULLs are left out.",
        &[form("array ARRAY<T> -> T", |input| extreme(input, Ordering::Less))],
        &[("array_min(ARRAY[1, NULL, 3])", "1")],
    )
    .only_ksql(),
    Definition::new(
        "array_remove",
        "The elements of an array that do not equal a value.",
        &[form("array ARRAY<T>, value T -> ARRAY<T>", |input| {
            let kept = search(input, |elements, places, unwanted| places.into_iter().filter(|place| elements.row(*place) != unwanted).collect::<Vec<_>>())?;
            taken(input.lists(0)?.values(), kept)
        })],
        &[("array_remove(ARRAY[1, 2, 1], 1)", "[2]")],
    )
    .only_ksql(),
    Definition::new(
        "array_sort",
        "The elements of an array in order, 'ASC' or 'DESC'; NULLs come last.",
        &[form("array ARRAY<T> -> ARRAY<T>", sort), form("array ARRAY<T>, direction VARCHAR -> ARRAY<T>", sort)],
        &[("array_sort(ARRAY[2, NULL, 3], 'DESC')", "[3, 2, NULL]")],
    )
    .only_ksql(),
    Definition::new(
        "array_union",
        "The elements of two arrays, each once.",
        &[form("left ARRAY<T>, right ARRAY<T> -> ARRAY<T>", |input| two(input, |left, right, all| Some(distinct(left?.chain(right?), all, &HashSet::new()))))],
        &[("array_union(ARRAY[1, 2], ARRAY[2, 3])", "[1, 2, 3]")],
    )
    .only_ksql(),
    Definition::new(
        "generate_series",
        "The numbers from one to another, both included, by a step that is 1 (or -1, if they fall) unless told.",
        &[
            form("from INT, to INT -> ARRAY<INT>", series_of_int),
            form("from INT, to INT, step INT -> ARRAY<INT>", series_of_int),
            form("from BIGINT, to BIGINT -> ARRAY<BIGINT>", series_of_bigint),
            form("from BIGINT, to BIGINT, step INT -> ARRAY<BIGINT>", series_of_bigint),
        ],
        &[("generate_series(1, 7, 3)", "[1, 4, 7]")],
    ),
    Definition::new(
        "slice",
        "The elements of an array from one place to another, both included, the first at 1; NULL if they are not all there.",
        &[form("array ARRAY<T>, from INT, to INT -> ARRAY<T>", |input| {
            let (from, to) = (input.column::<i32>(1)?, input.column::<i32>(2)?);
            let lists = input.lists(0)?;
            let part = |row: usize| {
                let places = lists.is_valid(row).then(|| range(&lists, row))?;
                let begin = from.get(row).map_or(Some(0), |from| usize::try_from(i64::from(from) - 1).ok())?;
                let end = to.get(row).map_or(Some(places.len()), |to| usize::try_from(to).ok())?;
                (begin <= end && end <= places.len()).then(|| (places.start + begin..places.start + end).collect())
            };
            taken(lists.values(), (0..input.rows()).map(part).collect())
        })],
        &[("slice(ARRAY[1, 2, 3], 2, 3)", "[2, 3]")],
    ),
];

/// Places of a row's elements among those of all rows.
type Range = std::ops::Range<usize>;

/// Where a row's elements lie.
pub(super) fn range(lists: &ListArray, row: usize) -> Range {
    match lists.value_offsets().get(row..row + 2) {
        Some([from, to]) => usize::try_from(*from).unwrap_or(0)..usize::try_from(*to).unwrap_or(0),
        _ => 0..0,
    }
}

/// The elements in a form that is compared as bytes, in their order.
pub(super) fn comparable(elements: &ArrayRef) -> Result<Rows> {
    let converter = RowConverter::new(vec![SortField::new(elements.data_type().clone())])?;
    Ok(converter.convert_columns(&[Arc::clone(elements)])?)
}

/// Arrays of these elements; none is NULL.
pub(super) fn taken(elements: &ArrayRef, places: Vec<Option<Vec<usize>>>) -> Result<ArrayRef> {
    let nulls: NullBuffer = places.iter().map(Option::is_some).collect();
    let offsets = OffsetBuffer::from_lengths(places.iter().map(|one| one.as_ref().map_or(0, Vec::len)));
    let places = UInt64Array::from_iter_values(places.into_iter().flatten().flatten().map(|place| place as u64));
    let elements = take(elements, &places, None)?;
    let field = types::element_field(elements.data_type().clone());
    Ok(Arc::new(ListArray::try_new(field, offsets, elements, Some(nulls))?))
}

/// An array made of places of the elements of one.
fn one(input: &Input<'_>, choose: impl Fn(Range, &Rows) -> Vec<usize>) -> Result<ArrayRef> {
    let lists = input.lists(0)?;
    let all = comparable(lists.values())?;
    let places = (0..input.rows()).map(|row| lists.is_valid(row).then(|| choose(range(&lists, row), &all)));
    taken(lists.values(), places.collect())
}

/// An array made of places of the elements of two, those of the second behind those of the first.
fn two(input: &Input<'_>, choose: impl Fn(Option<Range>, Option<Range>, &Rows) -> Option<Vec<usize>>) -> Result<ArrayRef> {
    let (left, right) = (input.lists(0)?, input.lists(1)?);
    let behind = left.values().len();
    let elements = concat(&[left.values().as_ref(), right.values().as_ref()])?;
    let all = comparable(&elements)?;
    let places = (0..input.rows()).map(|row| {
        let shifted = |places: Range| places.start + behind..places.end + behind;
        choose(left.is_valid(row).then(|| range(&left, row)), right.is_valid(row).then(|| shifted(range(&right, row))), &all)
    });
    taken(&elements, places.collect())
}

/// What is found of a value among the elements of an array; none for an array that is NULL.
fn search<T>(input: &Input<'_>, find: impl Fn(&Rows, Range, arrow::row::Row<'_>) -> T) -> Result<Vec<Option<T>>> {
    let (lists, values) = (input.lists(0)?, input.array(1)?);
    let converter = RowConverter::new(vec![SortField::new(values.data_type().clone())])?;
    let (elements, values) = (converter.convert_columns(&[Arc::clone(lists.values())])?, converter.convert_columns(&[values])?);
    let found = |row: usize| lists.is_valid(row).then(|| find(&elements, range(&lists, row), values.row(row)));
    Ok((0..input.rows()).map(found).collect())
}

/// The places of elements that come for the first time and are not among others.
fn distinct<'a>(places: impl Iterator<Item = usize>, all: &'a Rows, without: &HashSet<&'a [u8]>) -> Vec<usize> {
    let mut seen: HashSet<&[u8]> = HashSet::new();
    places.filter(|place| !without.contains(all.row(*place).data()) && seen.insert(all.row(*place).data())).collect()
}

fn extreme(input: &Input<'_>, wanted: Ordering) -> Result<ArrayRef> {
    let lists = input.lists(0)?;
    let (elements, all) = (lists.values(), comparable(lists.values())?);
    let nulls = elements.logical_nulls();
    let is_given = |place: &usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(*place));
    let place = |row: usize| {
        let given = lists.is_valid(row).then(|| range(&lists, row))?.filter(is_given);
        let better = |best: usize, place: usize| if all.row(place).cmp(&all.row(best)) == wanted { place } else { best };
        given.reduce(better).map(|place| place as u64)
    };
    Ok(take(elements, &(0..input.rows()).map(place).collect::<UInt64Array>(), None)?)
}

fn sort(input: &Input<'_>) -> Result<ArrayRef> {
    let direction = if input.len() > 1 { Some(input.column::<Str>(1)?) } else { None };
    let lists = input.lists(0)?;
    let (elements, all) = (lists.values(), comparable(lists.values())?);
    let nulls = elements.logical_nulls();
    let is_null = |place: &usize| nulls.as_ref().is_some_and(|nulls| nulls.is_null(*place));
    let sorted = |row: usize| {
        let falls = match &direction {
            None => false,
            Some(direction) => match direction.get(row)?.to_ascii_uppercase().as_str() {
                "ASC" | "ASCENDING" => false,
                "DESC" | "DESCENDING" => true,
                _ => return None,
            },
        };
        let (missing, mut given): (Vec<usize>, Vec<usize>) = lists.is_valid(row).then(|| range(&lists, row))?.partition(is_null);
        given.sort_by(|left, right| {
            let order = all.row(*left).cmp(&all.row(*right));
            if falls { order.reverse() } else { order }
        });
        given.extend(missing);
        Some(given)
    };
    taken(elements, (0..input.rows()).map(sorted).collect())
}

fn join(input: &Input<'_>) -> Result<ArrayRef> {
    let delimiter = if input.len() > 1 { Some(input.column::<Str>(1)?) } else { None };
    let lists = input.lists(0)?;
    let elements = lists.values();
    if elements.data_type().is_nested() {
        (0..input.rows()).filter(|row| lists.is_valid(*row)).for_each(|row| input.fail(row));
        return Ok(new_null_array(input.returns(), input.rows()));
    }
    let texts = element_texts(elements)?;
    input.each(|row| {
        if !lists.is_valid(row) {
            return Ok(None);
        }
        let delimiter = delimiter.as_ref().map_or(Some(","), |delimiter| delimiter.get(row)).unwrap_or("");
        joined(range(&lists, row).map(|place| texts.get(place).and_then(Option::as_deref).unwrap_or("null")), delimiter).map(Some)
    })
}

/// Elements as Java writes them.
fn element_texts(elements: &ArrayRef) -> Result<Vec<Option<String>>> {
    if let Some(texts) = elements.as_string_opt::<i32>() {
        return Ok(texts.iter().map(|text| text.map(str::to_owned)).collect());
    }
    if let Some(numbers) = elements.as_primitive_opt::<Float64Type>() {
        return Ok(numbers.iter().map(|number| number.map(double)).collect());
    }
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(elements.as_ref(), &options)?;
    Ok((0..elements.len()).map(|place| elements.is_valid(place).then(|| formatter.value(place).to_string())).collect())
}

fn series_of_int(input: &Input<'_>) -> Result<ArrayRef> {
    let numbers = input.columns::<i32>(0)?;
    input.each(|row| {
        let given: Option<Vec<i64>> = numbers.iter().map(|one| one.get(row).map(i64::from)).collect();
        let Some(given) = given else { return Ok(None) };
        let whole = |number: i64| i32::try_from(number).map(Some).map_err(|_| Fault);
        series(&given)?.map(whole).collect::<std::result::Result<Vec<_>, Fault>>().map(Some)
    })
}

fn series_of_bigint(input: &Input<'_>) -> Result<ArrayRef> {
    let (from, to) = (input.column::<i64>(0)?, input.column::<i64>(1)?);
    let step = if input.len() > 2 { Some(input.column::<i32>(2)?) } else { None };
    input.each(|row| {
        let (Some(from), Some(to)) = (from.get(row), to.get(row)) else { return Ok(None) };
        let mut given = vec![from, to];
        if let Some(step) = &step {
            let Some(step) = step.get(row) else { return Ok(None) };
            given.push(i64::from(step));
        }
        Ok(Some(series(&given)?.map(Some).collect::<Vec<_>>()))
    })
}

/// From, to and perhaps the step.
fn series(given: &[i64]) -> std::result::Result<impl Iterator<Item = i64>, Fault> {
    let (from, to) = match given {
        [from, to, ..] => (i128::from(*from), i128::from(*to)),
        _ => return Err(Fault),
    };
    let step = given.get(2).map_or(if to >= from { 1 } else { -1 }, |step| i128::from(*step));
    if step == 0 || (to - from) * step < 0 {
        return Err(Fault);
    }
    let count = usize::try_from((to - from) / step + 1).map_err(|_| Fault)?;
    if count > MAX_SERIES {
        return Err(Fault);
    }
    Ok((0..count).map_while(move |at| i64::try_from(from + step * i128::try_from(at).ok()?).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(given: &[i64]) -> Option<Vec<i64>> {
        series(given).ok().map(Iterator::collect)
    }

    #[test]
    fn a_series_rises_or_falls_and_never_grows_too_long() {
        assert_eq!(made(&[1, 3]), Some(vec![1, 2, 3]));
        assert_eq!(made(&[3, 1]), Some(vec![3, 2, 1]));
        assert_eq!(made(&[9, 0, -4]), Some(vec![9, 5, 1]));
        assert_eq!(made(&[5, 5, -1]), Some(vec![5]));
        assert_eq!(made(&[1, 3, 0]), None);
        assert_eq!(made(&[1, 3, -1]), None);
        assert_eq!(made(&[0, i64::MAX]), None);
        assert_eq!(made(&[i64::MAX - 1, i64::MAX, 2]), Some(vec![i64::MAX - 1]));
        assert_eq!(made(&[i64::MIN, i64::MAX, i64::from(i32::MAX)]), None);
    }
}
