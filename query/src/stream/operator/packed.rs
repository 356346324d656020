//! Aggregates that keep values of their group: lists, sets, first and last, greatest, counts by value.
//!
//! Called by `operator/aggregate`. What a group keeps lies as one blob in its table, with undo like any text; a batch unpacks the
//! blobs of the groups that it touches once, and packs those that changed. Invariants: elements stand in the order that their kind
//! says; where rows are taken back every element of the group is kept, and what is beyond the number asked for is only not shown.

use std::{cmp::Ordering, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, Int64Array, ListArray, MapArray, StructArray},
    buffer::OffsetBuffer,
    datatypes::{DataType, Field},
};
use hashbrown::HashMap;

use crate::{
    error::QueryError,
    plan::{AggregateCall, AggregateFunction},
    sql::dialect::AggregateRules,
    stream::{
        operator::{accumulator::Signs, aggregate::true_rows, chain::execution, codec::RowCodec},
        state::{HEADER, MAX_TEXT, RowNumber, Table},
    },
};

/// An aggregate whose group keeps values.
#[derive(Debug)]
pub(crate) struct Packed {
    kind: Kind,
    /// Places of the arguments in the input.
    arguments: Vec<usize>,
    /// Place of a BOOLEAN: only rows for which it is true are folded.
    filter: Option<usize>,
    /// The first argument, in bytes that have its order; then the others.
    sort: RowCodec,
    others: RowCodec,
    /// Place of the word that names the blob, among the accumulators.
    at: usize,
    takes_back: bool,
    /// Whether what is taken back is the first equal value, rather than that of the row.
    takes_first_equal: bool,
    data_type: DataType,
}

/// What is kept, in which order, and how it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// In the order of the rows; the first `most`.
    List { most: usize },
    /// Each value once, in the order in which they first came; the first `most`.
    Set { most: usize },
    /// The first `most` of the rows.
    Earliest { most: usize, nulls: bool, one: bool },
    /// The last `most` of the rows.
    Latest { most: usize, nulls: bool, one: bool },
    /// The first `most` in the order of the values; of equal ones the first to come.
    Top { most: usize, from: Ordering, distinct: bool, one: bool },
    /// The value of all rows. An element's id is the number of rows that have it.
    Attr,
    /// Numbers of rows by value, of the first `most`. An element's id is that number.
    Histogram { most: usize },
}

/// One value that a group keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Element {
    /// The position of its row, or the number of rows that have it.
    id: u64,
    sort: Vec<u8>,
    others: Vec<u8>,
}

impl Element {
    fn has(&self, sort: &[u8], others: &[u8]) -> bool {
        self.sort == sort && self.others == others
    }
}

/// A row's values as bytes.
#[derive(Clone, Copy)]
struct Given<'a> {
    position: u64,
    is_null: bool,
    sort: &'a [u8],
    others: &'a [u8],
}

impl Given<'_> {
    fn element(&self, id: u64) -> Element {
        Element { id, sort: self.sort.to_vec(), others: self.others.to_vec() }
    }
}

impl Packed {
    /// The aggregate of a call, with its word at `at`; whether it will have to take values back. None if words hold it.
    ///
    /// # Errors
    /// [`QueryError::Unsupported`] for a type that cannot be kept.
    pub(crate) fn new(call: &AggregateCall, at: usize, takes_back: bool) -> Result<Option<Self>, QueryError> {
        let many = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        let of_words = |first: Option<&DataType>| first.is_none_or(super::accumulator::is_extreme_of_words) && !takes_back;
        let kind = match call.function {
            AggregateFunction::CollectList { most } => Kind::List { most: many(most) },
            AggregateFunction::CollectSet { most } => Kind::Set { most: many(most) },
            AggregateFunction::Earliest { count, nulls } => Kind::Earliest { most: count.map_or(1, many), nulls, one: count.is_none() },
            AggregateFunction::Latest { count, nulls } => Kind::Latest { most: count.map_or(1, many), nulls, one: count.is_none() },
            AggregateFunction::TopK { count } => Kind::Top { most: many(count), from: Ordering::Greater, distinct: false, one: false },
            AggregateFunction::TopKDistinct { count } => {
                Kind::Top { most: many(count), from: Ordering::Greater, distinct: true, one: false }
            }
            AggregateFunction::Attr => Kind::Attr,
            AggregateFunction::Histogram { most } => Kind::Histogram { most: many(most) },
            AggregateFunction::Min | AggregateFunction::Max if of_words(call.types.first()) => return Ok(None),
            AggregateFunction::Min => Kind::Top { most: 1, from: Ordering::Less, distinct: false, one: true },
            AggregateFunction::Max => Kind::Top { most: 1, from: Ordering::Greater, distinct: false, one: true },
            AggregateFunction::CountStar
            | AggregateFunction::Count
            | AggregateFunction::CountDistinct
            | AggregateFunction::Sum
            | AggregateFunction::SumList
            | AggregateFunction::Avg
            | AggregateFunction::Correlation
            | AggregateFunction::Variance
            | AggregateFunction::Deviation => return Ok(None),
        };
        let (first, others) = call.types.split_first().ok_or_else(|| execution("an aggregate of values without an argument"))?;
        Ok(Some(Self {
            kind,
            arguments: call.arguments.clone(),
            filter: call.filter,
            sort: RowCodec::new(vec![first.clone()])?,
            others: RowCodec::new(others.to_vec())?,
            at,
            takes_back,
            takes_first_equal: call.rules == AggregateRules::Ksql,
            data_type: call.data_type.clone(),
        }))
    }

    /// The word that refers to the blob, counted from the row's beginning.
    pub(crate) fn text_word(&self) -> usize {
        HEADER + self.at
    }

    /// Folds a batch: row `i` belongs to group `groups[i]` and came with the record at `positions[i]`.
    ///
    /// # Errors
    /// [`QueryError::ResourceExhausted`] for a group that keeps too much; [`QueryError::Execution`] if arguments are not what the
    /// plan says, which is a fault of ours.
    pub(crate) fn fold(
        &self,
        table: &mut Table,
        (groups, positions): (&[RowNumber], &[u64]),
        columns: &[ArrayRef],
        signs: impl Signs,
    ) -> Result<(), QueryError> {
        let argument = |place: &usize| columns.get(*place).cloned().ok_or_else(|| execution("an aggregate's argument is missing"));
        let arguments = self.arguments.iter().map(argument).collect::<Result<Vec<_>, _>>()?;
        let (first, others) = arguments.split_first().ok_or_else(|| execution("an aggregate's argument is missing"))?;
        let (sort, others) = (self.sort.encode_keys(std::slice::from_ref(first))?, self.others.encode(others)?);
        let nulls = first.logical_nulls();
        let wanted = self.filter.map(|place| true_rows(columns.get(place))).transpose()?;

        let mut places: HashMap<RowNumber, usize> = HashMap::new();
        let mut touched: Vec<(RowNumber, Vec<Element>, bool)> = Vec::new();
        for (row, group) in groups.iter().enumerate() {
            if wanted.as_ref().is_some_and(|wanted| wanted.is_null(row)) {
                continue;
            }
            let given = Given {
                position: positions.get(row).copied().unwrap_or_default(),
                is_null: nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)),
                sort: sort.get(row),
                others: others.get(row),
            };
            if given.is_null && !self.keeps_nulls() {
                continue;
            }
            let place = *places.entry(*group).or_insert_with(|| {
                let word = table.accumulators_mut(*group).get(self.at).copied().unwrap_or_default();
                touched.push((*group, unpack(table.text(word)), false));
                touched.len() - 1
            });
            if let Some((_, elements, changed)) = touched.get_mut(place) {
                *changed |= if signs.takes_back(row) { self.take_back(elements, given) } else { self.add(elements, given) };
            }
        }
        for (group, elements, _) in touched.into_iter().filter(|(_, _, changed)| *changed) {
            let blob = pack(&elements);
            if blob.len() > MAX_TEXT {
                return Err(QueryError::ResourceExhausted(format!(
                    "a group keeps {} bytes of values for one aggregate, {MAX_TEXT} are allowed",
                    blob.len()
                )));
            }
            table.put_text(group, self.at, &blob);
        }
        Ok(())
    }

    fn keeps_nulls(&self) -> bool {
        match self.kind {
            Kind::List { .. } | Kind::Set { .. } | Kind::Attr => true,
            Kind::Earliest { nulls, .. } | Kind::Latest { nulls, .. } => nulls,
            Kind::Top { .. } | Kind::Histogram { .. } => false,
        }
    }

    /// Adds a row's values; says whether that changed what is kept.
    fn add(&self, elements: &mut Vec<Element>, given: Given<'_>) -> bool {
        let is_there = |elements: &[Element]| elements.iter().any(|element| element.has(given.sort, given.others));
        match self.kind {
            Kind::List { most } | Kind::Earliest { most, .. } => {
                // The first equal value is taken back whatever is kept: then no more is kept than is shown.
                let keeps_all = self.takes_back && !self.takes_first_equal;
                let has_room = keeps_all || elements.len() < most;
                if has_room {
                    elements.push(given.element(given.position));
                }
                has_room
            }
            Kind::Set { most } => {
                let is_new = self.takes_back || (elements.len() < most && !is_there(elements));
                if is_new {
                    elements.push(given.element(given.position));
                }
                is_new
            }
            Kind::Latest { most, .. } => {
                elements.push(given.element(given.position));
                if !self.takes_back && elements.len() > most {
                    elements.remove(0);
                }
                true
            }
            Kind::Top { most, from, distinct, .. } => {
                if distinct && !self.takes_back && is_there(elements) {
                    return false;
                }
                let place = elements.partition_point(|element| sorts_before(element, given, from));
                if place >= most && !self.takes_back {
                    return false;
                }
                elements.insert(place, given.element(given.position));
                if !self.takes_back {
                    elements.truncate(most);
                }
                true
            }
            Kind::Attr | Kind::Histogram { .. } => {
                if let Some(known) = elements.iter_mut().find(|element| element.has(given.sort, given.others)) {
                    known.id = known.id.saturating_add(1);
                    return true;
                }
                let most = match self.kind {
                    Kind::Histogram { most } => most,
                    // Two are enough to know that there is more than one.
                    _ if !self.takes_back => 2,
                    _ => usize::MAX,
                };
                let has_room = elements.len() < most;
                if has_room {
                    elements.push(given.element(1));
                }
                has_room
            }
        }
    }

    /// Takes a row's values back; says whether that changed what is kept.
    fn take_back(&self, elements: &mut Vec<Element>, given: Given<'_>) -> bool {
        let equal = |element: &Element| element.has(given.sort, given.others);
        let place = match self.kind {
            Kind::Attr | Kind::Histogram { .. } => {
                let Some(place) = elements.iter().position(equal) else { return false };
                if let Some(element) = elements.get_mut(place)
                    && element.id > 1
                {
                    element.id -= 1;
                    return true;
                }
                Some(place)
            }
            _ if self.takes_first_equal => elements.iter().position(equal),
            Kind::Top { from, .. } => {
                let place = elements.partition_point(|element| sorts_before(element, given, from));
                elements.get(place).is_some_and(equal).then_some(place)
            }
            Kind::List { .. } | Kind::Set { .. } | Kind::Earliest { .. } | Kind::Latest { .. } => {
                elements.binary_search_by_key(&given.position, |element| element.id).ok()
            }
        };
        if let Some(place) = place {
            elements.remove(place);
        }
        place.is_some()
    }

    /// The results of rows, each given by its words (header included).
    ///
    /// # Errors
    /// [`QueryError::Execution`] for a blob that is not what it should be, which is a fault of ours.
    pub(crate) fn results(&self, table: &Table, rows: &[&[u64]]) -> Result<ArrayRef, QueryError> {
        let blob = |words: &&[u64]| table.text(words.get(HEADER + self.at).copied().unwrap_or_default());
        let mut shown: Vec<Vec<Element>> = rows.iter().map(|words| self.shown(unpack(blob(words)))).collect();
        let shows_one = match self.kind {
            Kind::Earliest { one, .. } | Kind::Latest { one, .. } | Kind::Top { one, .. } => one,
            Kind::Attr => true,
            Kind::List { .. } | Kind::Set { .. } | Kind::Histogram { .. } => false,
        };
        if shows_one {
            let nothing = Element { id: 0, sort: self.sort.nulls()?, others: Vec::new() };
            shown.iter_mut().filter(|elements| elements.is_empty()).for_each(|elements| elements.push(nothing.clone()));
        }
        let all = || shown.iter().flatten();
        let mut columns = self.sort.decode(all().map(|element| element.sort.as_slice()))?;
        columns.extend(self.others.decode(all().map(|element| element.others.as_slice()))?);
        let offsets = OffsetBuffer::from_lengths(shown.iter().map(Vec::len));
        if let Kind::Histogram { .. } = self.kind {
            columns.push(Arc::new(all().map(|element| i64::try_from(element.id).ok()).collect::<Int64Array>()));
            return self.map(offsets, columns);
        }
        if shows_one {
            return columns.into_iter().next().ok_or_else(|| execution("an aggregate of values without a value"));
        }
        self.list(offsets, columns)
    }

    fn list(&self, offsets: OffsetBuffer<i32>, mut columns: Vec<ArrayRef>) -> Result<ArrayRef, QueryError> {
        let DataType::List(item) = &self.data_type else { return Err(self.mistyped()) };
        let values: ArrayRef = match (item.data_type(), columns.len()) {
            (DataType::Struct(fields), 2..) => Arc::new(StructArray::try_new(fields.clone(), columns, None).map_err(execution)?),
            _ => columns.pop().ok_or_else(|| self.mistyped())?,
        };
        Ok(Arc::new(ListArray::try_new(Arc::clone(item), offsets, values, None).map_err(execution)?))
    }

    fn map(&self, offsets: OffsetBuffer<i32>, columns: Vec<ArrayRef>) -> Result<ArrayRef, QueryError> {
        let DataType::Map(entries, sorted) = &self.data_type else { return Err(self.mistyped()) };
        let DataType::Struct(fields) = Field::data_type(entries) else { return Err(self.mistyped()) };
        let pairs = StructArray::try_new(fields.clone(), columns, None).map_err(execution)?;
        Ok(Arc::new(MapArray::try_new(Arc::clone(entries), offsets, pairs, None, *sorted).map_err(execution)?))
    }

    fn mistyped(&self) -> QueryError {
        execution(format!("an aggregate of values gives no {}", self.data_type))
    }

    /// What of the elements is part of the result.
    fn shown(&self, mut elements: Vec<Element>) -> Vec<Element> {
        match self.kind {
            Kind::List { most } | Kind::Earliest { most, .. } => elements.truncate(most),
            Kind::Latest { most, .. } => drop(elements.drain(..elements.len().saturating_sub(most))),
            Kind::Set { most } | Kind::Top { most, distinct: true, .. } => {
                let mut seen = hashbrown::HashSet::new();
                elements.retain(|element| seen.insert(element.sort.clone()));
                elements.truncate(most);
            }
            Kind::Top { most, .. } => elements.truncate(most),
            Kind::Attr if elements.len() > 1 => elements.clear(),
            Kind::Attr | Kind::Histogram { .. } => {}
        }
        elements
    }
}

/// Whether an element comes before a row's value in the order of values; of equal ones the first to come is first.
fn sorts_before(element: &Element, given: Given<'_>, from: Ordering) -> bool {
    match element.sort.as_slice().cmp(given.sort) {
        Ordering::Equal => element.id < given.position,
        other => other == from,
    }
}

/// Each element: its id, the lengths of its two parts, the parts.
fn pack(elements: &[Element]) -> Vec<u8> {
    let bytes = elements.iter().map(|element| 16 + element.sort.len() + element.others.len()).sum();
    let mut blob = Vec::with_capacity(bytes);
    for element in elements {
        blob.extend_from_slice(&element.id.to_le_bytes());
        for part in [&element.sort, &element.others] {
            blob.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
        }
        blob.extend_from_slice(&element.sort);
        blob.extend_from_slice(&element.others);
    }
    blob
}

fn unpack(mut blob: &[u8]) -> Vec<Element> {
    let mut elements = Vec::new();
    while let Some((id, rest)) = blob.split_first_chunk::<8>()
        && let Some((sort, rest)) = rest.split_first_chunk::<4>()
        && let Some((others, rest)) = rest.split_first_chunk::<4>()
    {
        let length = |bytes: &[u8; 4]| usize::try_from(u32::from_le_bytes(*bytes)).unwrap_or(usize::MAX);
        let Some((sort, rest)) = rest.split_at_checked(length(sort)) else { break };
        let Some((others, rest)) = rest.split_at_checked(length(others)) else { break };
        elements.push(Element { id: u64::from_le_bytes(*id), sort: sort.to_vec(), others: others.to_vec() });
        blob = rest;
    }
    elements
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unpacked_is_what_was_packed_and_no_bytes_panic() {
        let element = |id, sort: &[u8], others: &[u8]| Element { id, sort: sort.to_vec(), others: others.to_vec() };
        let elements = vec![element(7, b"abc", b""), element(u64::MAX, b"", b"x"), element(0, b"", b"")];
        let blob = pack(&elements);
        assert_eq!(unpack(&blob), elements);
        for end in 0..blob.len() {
            assert!(unpack(&blob[..end]).len() < 3);
        }
        assert!(unpack(&[0xff; 40]).is_empty());
    }
}
