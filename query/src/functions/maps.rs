//! Functions of maps. A map keeps the order in which its keys came; where a key comes twice, its last value counts.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, ListArray, MapArray, StructArray, UInt64Array},
    buffer::{NullBuffer, OffsetBuffer},
    compute::{concat, take},
    datatypes::{DataType, Fields},
};
use datafusion::common::Result;
use hashbrown::HashMap;

use super::{
    arrays::{comparable, range, taken},
    definition::{Definition, form},
    input::{Input, Pairs, Str, internal},
    types,
};

pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new(
        "as_map",
        "The map of an array of keys and one of values, as long as the shorter of them.",
        &[form("keys ARRAY<VARCHAR>, values ARRAY<V> -> MAP<VARCHAR, V>", as_map)],
        &[("as_map(ARRAY['a', 'b'], ARRAY[1, 2])", "{a: 1, b: 2}")],
    ),
    Definition::new(
        "entries",
        "The entries of a map as structs of K and V, by their keys if the flag is true.",
        &[form("map MAP<VARCHAR, V>, sorted BOOLEAN -> ARRAY<STRUCT<K VARCHAR, V V>>", entries)],
        &[("entries(as_map(ARRAY['b', 'a'], ARRAY[1, 2]), true)", "[{K: a, V: 2}, {K: b, V: 1}]")],
    ),
    Definition::new(
        "map_keys",
        "The keys of a map.",
        &[form("map MAP<K, V> -> ARRAY<K>", |input| {
            let maps = input.maps(0)?;
            list_of(&maps, Arc::clone(maps.keys()))
        })],
        &[("map_keys(as_map(ARRAY['a', 'b'], ARRAY[1, 2]))", "[a, b]")],
    )
    .only_ksql(),
    Definition::new(
        "map_union",
        "The entries of two maps; of a key that both have, the second's value. NULL counts as empty, unless both are.",
        &[form("left MAP<VARCHAR, V>, right MAP<VARCHAR, V> -> MAP<VARCHAR, V>", union)],
        &[("map_union(as_map(ARRAY['a'], ARRAY[1]), as_map(ARRAY['a', 'b'], ARRAY[2, 3]))", "{a: 2, b: 3}")],
    ),
    Definition::new(
        "map_values",
        "The values of a map.",
        &[form("map MAP<K, V> -> ARRAY<V>", |input| {
            let maps = input.maps(0)?;
            list_of(&maps, Arc::clone(maps.values()))
        })],
        &[("map_values(as_map(ARRAY['a', 'b'], ARRAY[1, 2]))", "[1, 2]")],
    )
    .only_ksql(),
    Definition::new(
        "split_to_map",
        "The map of a text: its entries lie between occurrences of one delimiter, key and value of each on the sides of another.",
        &[form("text VARCHAR, entries VARCHAR, pair VARCHAR -> MAP<VARCHAR, VARCHAR>", |input| input.map3::<Str, Str, Str, _>(split))],
        &[("split_to_map('a=1&b=2', '&', '=')", "{a: 1, b: 2}")],
    ),
];

/// Places of a row's entries among those of all rows.
pub(super) fn entry_range(maps: &MapArray, row: usize) -> std::ops::Range<usize> {
    match maps.value_offsets().get(row..row + 2) {
        Some([from, to]) => usize::try_from(*from).unwrap_or(0)..usize::try_from(*to).unwrap_or(0),
        _ => 0..0,
    }
}

/// Maps of these keys and values, as many entries a row as `lengths` says; none is NULL.
pub(super) fn maps_of(keys: ArrayRef, values: ArrayRef, lengths: &[Option<usize>]) -> Result<ArrayRef> {
    let field = types::entries_field(keys.data_type().clone(), values.data_type().clone());
    let DataType::Struct(fields) = field.data_type() else { return internal("a map without entries".to_owned()) };
    let entries = StructArray::try_new(fields.clone(), vec![keys, values], None)?;
    let nulls: NullBuffer = lengths.iter().map(Option::is_some).collect();
    let offsets = OffsetBuffer::from_lengths(lengths.iter().map(|length| length.unwrap_or(0)));
    Ok(Arc::new(MapArray::try_new(field, offsets, entries, Some(nulls), false)?))
}

/// Keeps of each key the last place at which it comes, where it came first.
fn last_of_each<'a>(places: impl Iterator<Item = (usize, usize)>, keys: &'a [Option<&'a str>]) -> Vec<(usize, usize)> {
    let mut kept: Vec<(usize, usize)> = Vec::new();
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for place in places {
        let Some(Some(key)) = keys.get(place.0) else { continue };
        match seen.get(key).and_then(|at| kept.get_mut(*at)) {
            Some(known) => *known = place,
            None => {
                seen.insert(key, kept.len());
                kept.push(place);
            }
        }
    }
    kept
}

/// Maps made of places of keys and places of values.
fn chosen(keys: &ArrayRef, values: &ArrayRef, places: Vec<Option<Vec<(usize, usize)>>>) -> Result<ArrayRef> {
    let lengths: Vec<Option<usize>> = places.iter().map(|one| one.as_ref().map(Vec::len)).collect();
    let of_key = UInt64Array::from_iter_values(places.iter().flatten().flatten().map(|place| place.0 as u64));
    let of_value = UInt64Array::from_iter_values(places.iter().flatten().flatten().map(|place| place.1 as u64));
    maps_of(take(keys, &of_key, None)?, take(values, &of_value, None)?, &lengths)
}

fn as_map(input: &Input<'_>) -> Result<ArrayRef> {
    let (keys, values) = (input.lists(0)?, input.lists(1)?);
    let texts: Vec<Option<&str>> = keys.values().as_string::<i32>().iter().collect();
    let map = |row: usize| {
        if !keys.is_valid(row) || !values.is_valid(row) {
            return None;
        }
        if range(&keys, row).zip(range(&values, row)).any(|(key, _)| texts.get(key).is_none_or(Option::is_none)) {
            // There is no key that is NULL.
            input.fail(row);
            return None;
        }
        Some(last_of_each(range(&keys, row).zip(range(&values, row)), &texts))
    };
    let places = (0..input.rows()).map(map).collect();
    chosen(keys.values(), values.values(), places)
}

fn union(input: &Input<'_>) -> Result<ArrayRef> {
    let (left, right) = (input.maps(0)?, input.maps(1)?);
    let keys = concat(&[left.keys().as_ref(), right.keys().as_ref()])?;
    let values = concat(&[left.values().as_ref(), right.values().as_ref()])?;
    let behind = left.keys().len();
    let texts: Vec<Option<&str>> = keys.as_string::<i32>().iter().collect();
    let map = |row: usize| {
        let first = left.is_valid(row).then(|| entry_range(&left, row));
        let second = right.is_valid(row).then(|| entry_range(&right, row)).map(|places| places.start + behind..places.end + behind);
        let is_given = first.is_some() || second.is_some();
        is_given.then(|| last_of_each(first.into_iter().flatten().chain(second.into_iter().flatten()).map(|place| (place, place)), &texts))
    };
    let places = (0..input.rows()).map(map).collect();
    chosen(&keys, &values, places)
}

/// Arrays of a map's keys or values.
fn list_of(maps: &MapArray, elements: ArrayRef) -> Result<ArrayRef> {
    let field = types::element_field(elements.data_type().clone());
    Ok(Arc::new(ListArray::try_new(field, maps.offsets().clone(), elements, maps.nulls().cloned())?))
}

fn entries(input: &Input<'_>) -> Result<ArrayRef> {
    let (maps, sorted) = (input.maps(0)?, input.column::<bool>(1)?);
    let order = comparable(maps.keys())?;
    let DataType::List(field) = input.returns() else { return internal("ENTRIES without an array".to_owned()) };
    let DataType::Struct(fields) = field.data_type() else { return internal("ENTRIES without a struct".to_owned()) };
    let fields: Fields = fields.clone();
    let structs: ArrayRef = Arc::new(StructArray::try_new(fields, vec![Arc::clone(maps.keys()), Arc::clone(maps.values())], None)?);
    let places = |row: usize| {
        let sorted = sorted.get(row)?;
        let mut places: Vec<usize> = maps.is_valid(row).then(|| entry_range(&maps, row))?.collect();
        if sorted {
            places.sort_by(|left, right| order.row(*left).cmp(&order.row(*right)));
        }
        Some(places)
    };
    taken(&structs, (0..input.rows()).map(places).collect())
}

fn split(text: &str, entries: &str, pair: &str) -> Option<Pairs> {
    if entries.is_empty() || pair.is_empty() {
        return None;
    }
    let mut made = Pairs::default();
    for entry in text.split(entries) {
        let mut sides = entry.split(pair);
        if let (Some(key), Some(value)) = (sides.next(), sides.next()) {
            made.put(key, Some(value.to_owned()));
        }
    }
    Some(made)
}
