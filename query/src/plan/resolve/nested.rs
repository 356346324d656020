//! What is written with brackets and arrows: constructors of arrays, maps and structs, their elements, and whether two are equal.

use std::{cmp::Ordering, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, ListArray, MapArray, StructArray, UInt32Array, make_array, make_comparator, new_null_array,
    },
    buffer::{NullBuffer, OffsetBuffer},
    compute::{SortOptions, interleave, take},
    datatypes::{DataType, Field, Int32Type},
};
use datafusion::common::{DataFusionError, Result};

use crate::plan::kernel::Kernel;

fn wrong<T>(what: &str) -> Result<T> {
    Err(DataFusionError::Internal(format!("operands do not fit {what}")))
}

/// `ARRAY[a, b]`: as many elements as operands, in each row.
#[derive(Debug)]
pub(super) struct MakeArray(pub(super) Arc<Field>);

impl Kernel for MakeArray {
    fn compute(&self, operands: &[ArrayRef], rows: usize, _failed: &mut Vec<usize>) -> Result<ArrayRef> {
        let values = across(operands, rows, self.0.data_type())?;
        let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(operands.len(), rows));
        Ok(Arc::new(ListArray::try_new(Arc::clone(&self.0), offsets, values, None)?))
    }
}

/// The operands row by row: all of row 0, then all of row 1.
fn across(operands: &[ArrayRef], rows: usize, data_type: &DataType) -> Result<ArrayRef> {
    if operands.is_empty() || rows == 0 {
        return Ok(new_null_array(data_type, 0));
    }
    let arrays: Vec<&dyn Array> = operands.iter().map(AsRef::as_ref).collect();
    let places: Vec<(usize, usize)> = (0..rows).flat_map(|row| (0..operands.len()).map(move |operand| (operand, row))).collect();
    Ok(interleave(&arrays, &places)?)
}

/// `MAP(k := v)`: operands are keys and values in turn; of two equal keys the last counts, a NULL key makes the row fail.
#[derive(Debug)]
pub(super) struct MakeMap(pub(super) DataType);

impl Kernel for MakeMap {
    fn compute(&self, operands: &[ArrayRef], rows: usize, failed: &mut Vec<usize>) -> Result<ArrayRef> {
        let DataType::Map(entries, _) = &self.0 else { return wrong("a map") };
        let DataType::Struct(fields) = entries.data_type() else { return wrong("a map") };
        let [key_field, value_field] = fields.as_ref() else { return wrong("a map") };
        let (keys, values): (Vec<_>, Vec<_>) = operands.chunks(2).filter_map(|pair| Some((pair.first()?, pair.get(1)?))).unzip();
        let keys: Vec<ArrayRef> = keys.into_iter().cloned().collect();
        let values: Vec<ArrayRef> = values.into_iter().cloned().collect();
        let (mut taken, mut lengths) = (Vec::new(), Vec::with_capacity(rows));
        let mut valid = Vec::with_capacity(rows);
        for row in 0..rows {
            let has_null = keys.iter().any(|key| key.is_null(row));
            if has_null {
                failed.push(row);
            }
            valid.push(!has_null);
            let before = taken.len();
            if !has_null {
                for place in 0..keys.len() {
                    let same = |other: &usize| keys[*other].slice(row, 1).to_data() == keys[place].slice(row, 1).to_data();
                    if !(place + 1..keys.len()).any(|other| same(&other)) {
                        taken.push((place, row));
                    }
                }
            }
            lengths.push(taken.len() - before);
        }
        let gather = |arrays: &[ArrayRef], data_type: &DataType| -> Result<ArrayRef> {
            let arrays: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
            if taken.is_empty() { Ok(new_null_array(data_type, 0)) } else { Ok(interleave(&arrays, &taken)?) }
        };
        let (keys, values) = (gather(&keys, key_field.data_type())?, gather(&values, value_field.data_type())?);
        let entries_array = StructArray::try_new(fields.clone(), vec![keys, values], None)?;
        let nulls = NullBuffer::from(valid);
        let nulls = (nulls.null_count() > 0).then_some(nulls);
        Ok(Arc::new(MapArray::try_new(Arc::clone(entries), OffsetBuffer::from_lengths(lengths), entries_array, nulls, false)?))
    }
}

/// `STRUCT(f := v)`: one operand a field.
#[derive(Debug)]
pub(super) struct MakeStruct(pub(super) DataType);

impl Kernel for MakeStruct {
    fn compute(&self, operands: &[ArrayRef], rows: usize, _failed: &mut Vec<usize>) -> Result<ArrayRef> {
        let DataType::Struct(fields) = &self.0 else { return wrong("a struct") };
        if fields.is_empty() {
            return Ok(Arc::new(StructArray::new_empty_fields(rows, None)));
        }
        Ok(Arc::new(StructArray::try_new(fields.clone(), operands.to_vec(), None)?))
    }
}

/// `s->f`: NULL where the struct is.
#[derive(Debug)]
pub(super) struct GetField(pub(super) usize);

impl Kernel for GetField {
    fn compute(&self, operands: &[ArrayRef], _rows: usize, _failed: &mut Vec<usize>) -> Result<ArrayRef> {
        let Some(structs) = operands.first().and_then(|operand| operand.as_struct_opt()) else { return wrong("->") };
        let Some(column) = structs.columns().get(self.0) else { return wrong("->") };
        let nulls = NullBuffer::union(structs.nulls(), column.nulls());
        if nulls.as_ref().map(NullBuffer::null_count) == column.nulls().map(NullBuffer::null_count) {
            return Ok(Arc::clone(column));
        }
        let data = column.to_data().into_builder().nulls(nulls).build()?;
        Ok(make_array(data))
    }
}

/// `a[i]`: places count from 1, from the end if negative; NULL where there is no such place.
#[derive(Debug)]
pub(super) struct ElementAt;

impl Kernel for ElementAt {
    fn compute(&self, operands: &[ArrayRef], rows: usize, _failed: &mut Vec<usize>) -> Result<ArrayRef> {
        let [array, place] = operands else { return wrong("[]") };
        let Some(lists) = array.as_list_opt::<i32>() else { return wrong("[]") };
        let Some(places) = place.as_primitive_opt::<Int32Type>() else { return wrong("[]") };
        let offsets = lists.value_offsets();
        let index = |row: usize| {
            if lists.is_null(row) || places.is_null(row) {
                return None;
            }
            let (start, end) = (*offsets.get(row)?, *offsets.get(row + 1)?);
            let at = match places.value(row) {
                0 => return None,
                place if place > 0 => start.checked_add(place - 1)?,
                place => end.checked_add(place)?,
            };
            (start..end).contains(&at).then(|| u32::try_from(at).ok()).flatten()
        };
        let indices: UInt32Array = (0..rows).map(index).collect();
        Ok(take(lists.values(), &indices, None)?)
    }
}

/// `m[k]`: NULL where there is no such key.
#[derive(Debug)]
pub(super) struct ValueOf;

impl Kernel for ValueOf {
    fn compute(&self, operands: &[ArrayRef], rows: usize, _failed: &mut Vec<usize>) -> Result<ArrayRef> {
        let [map, key] = operands else { return wrong("[]") };
        let Some(maps) = map.as_map_opt() else { return wrong("[]") };
        let same = make_comparator(maps.keys(), key, SortOptions::default())?;
        let offsets = maps.value_offsets();
        let index = |row: usize| {
            if maps.is_null(row) || key.is_null(row) {
                return None;
            }
            let (start, end) = (usize::try_from(*offsets.get(row)?).ok()?, usize::try_from(*offsets.get(row + 1)?).ok()?);
            (start..end).find(|at| same(*at, row) == Ordering::Equal).and_then(|at| u32::try_from(at).ok())
        };
        let indices: UInt32Array = (0..rows).map(index).collect();
        Ok(take(maps.values(), &indices, None)?)
    }
}

/// Whether two nested values are equal; NULL if one of them is NULL as a whole, while NULLs within them equal each other.
#[derive(Debug)]
pub(super) struct NestedEqual;

impl Kernel for NestedEqual {
    fn compute(&self, operands: &[ArrayRef], rows: usize, _failed: &mut Vec<usize>) -> Result<ArrayRef> {
        let [left, right] = operands else { return wrong("=") };
        let (left, right) = (sorted_maps(left)?, sorted_maps(right)?);
        let compare = make_comparator(&left, &right, SortOptions::default())?;
        let equal = |row: usize| {
            let is_known = left.is_valid(row) && right.is_valid(row);
            is_known.then(|| compare(row, row) == Ordering::Equal)
        };
        Ok(Arc::new((0..rows).map(equal).collect::<BooleanArray>()))
    }
}

/// The same values with each map as an array of its entries by key: the order of entries means nothing.
fn sorted_maps(array: &ArrayRef) -> Result<ArrayRef> {
    match array.data_type() {
        DataType::Map(..) => {
            let Some(maps) = array.as_map_opt() else { return wrong("=") };
            let compare = make_comparator(maps.keys(), maps.keys(), SortOptions::default())?;
            let mut order: Vec<u32> = Vec::with_capacity(maps.entries().len());
            let mut lengths = Vec::with_capacity(maps.len());
            for window in maps.value_offsets().windows(2) {
                let [start, end] = window else { continue };
                let mut places: Vec<usize> = (usize::try_from(*start).unwrap_or(0)..usize::try_from(*end).unwrap_or(0)).collect();
                places.sort_by(|one, other| compare(*one, *other));
                lengths.push(places.len());
                order.extend(places.into_iter().filter_map(|place| u32::try_from(place).ok()));
            }
            let entries: ArrayRef = Arc::new(maps.entries().clone());
            let entries = take(&entries, &UInt32Array::from(order), None)?;
            let field = Arc::new(Field::new("item", entries.data_type().clone(), true));
            Ok(Arc::new(ListArray::try_new(field, OffsetBuffer::from_lengths(lengths), entries, maps.nulls().cloned())?))
        }
        DataType::List(_) => {
            let lists = array.as_list::<i32>();
            let values = sorted_maps(lists.values())?;
            let field = Arc::new(Field::new("item", values.data_type().clone(), true));
            Ok(Arc::new(ListArray::try_new(field, lists.offsets().clone(), values, lists.nulls().cloned())?))
        }
        DataType::Struct(fields) => {
            let structs = array.as_struct();
            let columns = structs.columns().iter().map(sorted_maps).collect::<Result<Vec<_>>>()?;
            let fields = fields.iter().zip(&columns).map(|(field, column)| Field::new(field.name(), column.data_type().clone(), true));
            Ok(Arc::new(StructArray::try_new(fields.collect(), columns, structs.nulls().cloned())?))
        }
        _ => Ok(Arc::clone(array)),
    }
}

/// A struct whose fields are those of another type by name, each cast by `cast`; what is missing is NULL.
pub(super) fn by_name(
    structs: &StructArray,
    to: &arrow::datatypes::Fields,
    mut cast: impl FnMut(&ArrayRef, &DataType) -> Result<ArrayRef>,
) -> Result<ArrayRef> {
    let mut columns = Vec::with_capacity(to.len());
    for field in to {
        columns.push(match structs.column_by_name(field.name()) {
            Some(column) => cast(column, field.data_type())?,
            None => new_null_array(field.data_type(), structs.len()),
        });
    }
    Ok(Arc::new(StructArray::try_new(to.clone(), columns, structs.nulls().cloned())?))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Array, StringArray, types::Int32Type as I32};

    use super::*;
    use crate::catalog::types::map_of;

    fn run(kernel: &dyn Kernel, operands: &[ArrayRef]) -> (ArrayRef, Vec<usize>) {
        let mut failed = Vec::new();
        (kernel.compute(operands, operands[0].len(), &mut failed).unwrap(), failed)
    }

    fn ints(values: Vec<Option<i32>>) -> ArrayRef {
        Arc::new(Int32Array::from(values))
    }

    #[test]
    fn places_of_an_array_count_from_one_and_from_the_end() {
        let list: ArrayRef = Arc::new(ListArray::from_iter_primitive::<I32, _, _>(vec![Some(vec![Some(7), Some(8), Some(9)]); 5]));
        let (got, _) = run(&ElementAt, &[list, ints(vec![Some(1), Some(-1), Some(0), Some(4), None])]);
        assert_eq!(got.as_primitive::<I32>().iter().collect::<Vec<_>>(), [Some(7), Some(9), None, None, None]);
    }

    #[test]
    fn of_two_equal_keys_the_last_counts_and_maps_are_equal_in_any_order() {
        let text = |one: &str| -> ArrayRef { Arc::new(StringArray::from(vec![one, one])) };
        let made = MakeMap(map_of(DataType::Utf8, DataType::Int32));
        let (left, _) = run(&made, &[text("a"), ints(vec![Some(1), None]), text("b"), ints(vec![Some(2), Some(3)])]);
        let (right, _) = run(
            &made,
            &[text("b"), ints(vec![Some(9), Some(3)]), text("b"), ints(vec![Some(2), Some(4)]), text("a"), ints(vec![Some(1), None])],
        );
        let (equal, _) = run(&NestedEqual, &[Arc::clone(&left), right]);
        assert_eq!(equal.as_boolean().iter().collect::<Vec<_>>(), [Some(true), Some(false)]);
        let (value, _) = run(&ValueOf, &[left, text("b")]);
        assert_eq!(value.as_primitive::<I32>().iter().collect::<Vec<_>>(), [Some(2), Some(3)]);
        let (null, failed) = run(&made, &[Arc::new(StringArray::from(vec![None, Some("x")])), ints(vec![Some(1), Some(2)])]);
        assert_eq!((null.is_null(0), null.is_null(1), failed), (true, false, vec![0]));
    }
}
