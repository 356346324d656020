//! Values of several columns as bytes, and back: keys, and rows that are kept whole.
//!
//! Used by the operators with state. Invariants: equal values, and only those, have equal bytes; bytes stand in the order of the
//! values (NULL first); what is decoded is what was encoded.

use std::sync::{Arc, OnceLock};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, ListArray, MapArray,
        StringArray, StructArray, UInt32Array, new_null_array,
        types::{Float64Type, Int32Type},
    },
    buffer::OffsetBuffer,
    compute::take,
    datatypes::{DataType, Field, Fields},
    row::{RowConverter, SortField},
};
use foldlog_log::checksum;

use crate::{error::QueryError, stream::operator::chain::execution};

/// Turns values of these types into bytes.
#[derive(Debug)]
pub(crate) struct RowCodec {
    types: Vec<DataType>,
    converter: RowConverter,
}

/// The rows of a batch as bytes.
pub(crate) enum Encoded {
    /// Of no column: every row is the same.
    Nothing,
    Rows(arrow::row::Rows),
}

impl Encoded {
    /// The bytes of a row.
    pub(crate) fn get(&self, row: usize) -> &[u8] {
        match self {
            Self::Nothing => &[],
            Self::Rows(rows) => rows.row(row).data(),
        }
    }
}

impl RowCodec {
    /// A codec for columns of these types.
    ///
    /// # Errors
    /// [`QueryError::Unsupported`] for a type without such bytes.
    pub(crate) fn new(types: Vec<DataType>) -> Result<Self, QueryError> {
        let fields: Vec<SortField> = types.iter().cloned().map(SortField::new).collect();
        if !RowConverter::supports_fields(&fields) {
            return Err(QueryError::Unsupported(format!("keeping values of the types {types:?}")));
        }
        Ok(Self { converter: RowConverter::new(fields).map_err(execution)?, types })
    }

    /// Types of the columns.
    pub(crate) fn types(&self) -> &[DataType] {
        &self.types
    }

    /// The rows of columns as bytes.
    ///
    /// # Errors
    /// [`QueryError::Execution`] where columns do not fit, which is a fault of ours.
    pub(crate) fn encode(&self, columns: &[ArrayRef]) -> Result<Encoded, QueryError> {
        if self.types.is_empty() {
            return Ok(Encoded::Nothing);
        }
        if columns.len() != self.types.len() || columns.iter().zip(&self.types).any(|(column, of)| column.data_type() != of) {
            let given: Vec<_> = columns.iter().map(|column| column.data_type()).collect();
            return Err(execution(format!("columns {given:?} were given for {:?}", self.types)));
        }
        Ok(Encoded::Rows(self.converter.convert_columns(columns).map_err(execution)?))
    }

    /// As [`RowCodec::encode`], in the form in which values are keys: one zero, one NaN, maps in the order of their keys.
    ///
    /// # Errors
    /// As [`RowCodec::encode`].
    pub(crate) fn encode_keys(&self, columns: &[ArrayRef]) -> Result<Encoded, QueryError> {
        self.encode(&columns.iter().map(canonical).collect::<Vec<_>>())
    }

    /// The columns of rows that [`RowCodec::encode`] gave.
    ///
    /// # Errors
    /// [`QueryError::Execution`] for other bytes, which is a fault of ours.
    pub(crate) fn decode<'a>(&self, rows: impl Iterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>, QueryError> {
        if self.types.is_empty() {
            return Ok(Vec::new());
        }
        let parser = self.converter.parser();
        self.converter.convert_rows(rows.map(|row| parser.parse(row))).map_err(execution)
    }

    /// The bytes of a row of nothing but NULL.
    ///
    /// # Errors
    /// As [`RowCodec::encode`].
    pub(crate) fn nulls(&self) -> Result<Vec<u8>, QueryError> {
        let columns: Vec<ArrayRef> = self.types.iter().map(|of| new_null_array(of, 1)).collect();
        Ok(self.encode(&columns)?.get(0).to_vec())
    }
}

/// A checksum over how this build encodes values of all kinds: what was kept under another one cannot be read here.
pub(crate) fn probe() -> u32 {
    static PROBE: OnceLock<u32> = OnceLock::new();
    *PROBE.get_or_init(|| {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(-5), None, Some(i64::MAX)]));
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a longer text than a block of thirty-two bytes"), Some(""), None]));
        let doubles: ArrayRef = Arc::new(Float64Array::from(vec![Some(-1.5), Some(f64::NAN), None]));
        let flags: ArrayRef = Arc::new(BooleanArray::from(vec![Some(true), Some(false), None]));
        let decimals: ArrayRef = Arc::new(Decimal128Array::from(vec![Some(-12), None, Some(1 << 70)]));
        let bytes: ArrayRef = Arc::new(BinaryArray::from_opt_vec(vec![Some(&[0, 255]), None, Some(&[])]));
        let dates: ArrayRef = Arc::new(Date32Array::from(vec![Some(-1), None, Some(20_000)]));
        let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![])]));
        let fields = Fields::from(vec![Field::new("n", DataType::Int64, true), Field::new("l", lists.data_type().clone(), true)]);
        let structs: ArrayRef = Arc::new(StructArray::new(fields, vec![Arc::clone(&numbers), Arc::clone(&lists)], None));
        let columns = [numbers, texts, doubles, flags, decimals, bytes, dates, lists, structs];
        let codec = RowCodec::new(columns.iter().map(|column| column.data_type().clone()).collect());
        let encoded = codec.and_then(|codec| codec.encode_keys(&columns));
        // What fails here fails for every query, and is told there.
        encoded.map_or(0, |rows| (0..3).fold(0, |sum, row| checksum(&[&u32::to_le_bytes(sum), rows.get(row)].concat())))
    })
}

/// The one form of a DOUBLE that is a key: 0 for -0, one NaN.
pub(crate) fn key_form(value: f64) -> f64 {
    if value.is_nan() { f64::NAN } else { value + 0.0 }
}

fn canonical(column: &ArrayRef) -> ArrayRef {
    if let Some(doubles) = column.as_primitive_opt::<Float64Type>() {
        return Arc::new(doubles.unary::<_, Float64Type>(key_form));
    }
    column.as_map_opt().and_then(sorted).map_or_else(|| Arc::clone(column), |map| Arc::new(map))
}

/// Maps with their entries in the order of their keys: two with the same entries are one.
fn sorted(maps: &MapArray) -> Option<MapArray> {
    let keys = maps.keys();
    let order = RowConverter::new(vec![SortField::new(keys.data_type().clone())])
        .and_then(|order| order.convert_columns(&[Arc::clone(keys)]))
        .ok()?;
    let mut places: Vec<u32> = Vec::with_capacity(keys.len());
    let mut lengths = Vec::with_capacity(maps.len());
    for ends in maps.value_offsets().windows(2) {
        let range = usize::try_from(*ends.first()?).ok()?..usize::try_from(*ends.last()?).ok()?;
        lengths.push(range.len());
        let mut entries: Vec<usize> = range.collect();
        entries.sort_by(|one, other| order.row(*one).cmp(&order.row(*other)));
        places.extend(entries.into_iter().filter_map(|place| u32::try_from(place).ok()));
    }
    let entries = take(maps.entries(), &UInt32Array::from(places), None).ok()?;
    let DataType::Map(field, is_sorted) = maps.data_type() else { return None };
    let offsets = OffsetBuffer::from_lengths(lengths);
    MapArray::try_new(Arc::clone(field), offsets, entries.as_struct_opt()?.clone(), maps.nulls().cloned(), *is_sorted).ok()
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array, StringArray};

    use super::*;

    fn columns() -> Vec<ArrayRef> {
        vec![
            Arc::new(Int64Array::from(vec![Some(1), None, Some(-1)])),
            Arc::new(StringArray::from(vec![Some("é"), Some(""), None])),
            Arc::new(Float64Array::from(vec![Some(-0.0), Some(f64::NAN), Some(1e300)])),
        ]
    }

    fn codec() -> RowCodec {
        RowCodec::new(vec![DataType::Int64, DataType::Utf8, DataType::Float64]).unwrap()
    }

    #[test]
    fn what_is_decoded_is_what_was_encoded() {
        let rows = codec().encode(&columns()).unwrap();
        let decoded = codec().decode([2, 0].into_iter().map(|row| rows.get(row))).unwrap();
        for (column, all) in decoded.iter().zip(columns()) {
            assert_eq!(
                (column.slice(0, 1).to_data(), column.slice(1, 1).to_data()),
                (all.slice(2, 1).to_data(), all.slice(0, 1).to_data())
            );
        }
        assert!(codec().decode([codec().nulls().unwrap().as_slice()].into_iter()).unwrap().iter().all(|column| column.null_count() == 1));
        assert!(RowCodec::new(Vec::new()).unwrap().decode(std::iter::once(&[][..])).unwrap().is_empty());
    }

    #[test]
    fn two_zeros_are_one_key_and_two_values() {
        let one = RowCodec::new(vec![DataType::Float64]).unwrap();
        let zeros: Vec<ArrayRef> = vec![Arc::new(Float64Array::from(vec![0.0, -0.0]))];
        let (keys, values) = (one.encode_keys(&zeros).unwrap(), one.encode(&zeros).unwrap());
        assert_eq!(keys.get(0), keys.get(1));
        assert_ne!(values.get(0), values.get(1));
    }

    #[test]
    fn columns_of_other_types_are_an_error_and_no_panic() {
        assert!(codec().encode(&columns()[..2]).is_err());
        let mut swapped = columns();
        swapped.swap(0, 1);
        assert!(codec().encode(&swapped).is_err());
    }
}
