//! What a kernel computes with: typed columns in, one value a row out, and a way to say which rows failed.
//!
//! What always holds: a kernel neither panics nor fails as a whole for what is in a row; values stay within the bounds of
//! `plan/growth`, so that no call makes much out of little.

use std::{borrow::Cow, cell::RefCell};

use arrow::{
    array::{
        Array, ArrayRef, BinaryArray, BinaryBuilder, BooleanArray, BooleanBuilder, Date32Array, Date32Builder, Decimal128Array,
        Decimal128Builder, Float64Array, Float64Builder, Int32Array, Int32Builder, Int64Array, Int64Builder, ListArray, ListBuilder,
        MapArray, MapBuilder, MapFieldNames, StringArray, StringBuilder, Time32MillisecondArray, Time32MillisecondBuilder,
        TimestampMillisecondArray, TimestampMillisecondBuilder, UInt32Array,
    },
    compute::{nullif, take},
    datatypes::DataType,
};
use datafusion::common::{DataFusionError, Result};
use hashbrown::HashMap;

use super::types;
use crate::plan::{MAX_BATCH_BYTES, MAX_VALUE_BYTES, sizes_of};

/// A row for which there is no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault;

/// What a row gives: a value, NULL, or a fault.
pub(crate) type Outcome<T> = std::result::Result<Option<T>, Fault>;

/// The arguments of a call, for a batch of rows.
pub(crate) struct Input<'a> {
    operands: &'a [Operand],
    rows: usize,
    returns: &'a DataType,
    failed: RefCell<&'a mut Vec<usize>>,
}

/// One argument.
pub(crate) struct Operand {
    array: ArrayRef,
    /// The array has one value, which all rows share.
    constant: bool,
}

impl Operand {
    /// One value a row.
    pub(crate) fn column(array: ArrayRef) -> Self {
        Self { array, constant: false }
    }

    /// The value of an array of one, for all rows.
    pub(crate) fn constant(array: ArrayRef) -> Self {
        Self { array, constant: true }
    }
}

impl<'a> Input<'a> {
    /// Arguments of which each column has as many values as there are rows.
    pub(crate) fn new(operands: &'a [Operand], rows: usize, returns: &'a DataType, failed: &'a mut Vec<usize>) -> Self {
        Self { operands, rows, returns, failed: RefCell::new(failed) }
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Number of arguments.
    pub(crate) fn len(&self) -> usize {
        self.operands.len()
    }

    /// Type of the result.
    pub(crate) fn returns(&self) -> &DataType {
        self.returns
    }

    /// Type of an argument.
    pub(crate) fn type_of(&self, at: usize) -> &DataType {
        self.operands.get(at).map_or(&DataType::Null, |operand| operand.array.data_type())
    }

    /// Says that a row failed.
    pub(crate) fn fail(&self, row: usize) {
        self.failed.borrow_mut().push(row);
    }

    /// The values of an argument.
    pub(crate) fn column<V: Value>(&self, at: usize) -> Result<Values<'_, V>> {
        let Some(operand) = self.operands.get(at) else { return internal(format!("a call without argument {at}")) };
        match operand.array.as_any().downcast_ref::<V::Array>() {
            Some(array) => Ok(Values { array, constant: operand.constant }),
            None => internal(format!("argument {at} is {}", operand.array.data_type())),
        }
    }

    /// The values of an argument from a place on.
    pub(crate) fn columns<V: Value>(&self, from: usize) -> Result<Vec<Values<'_, V>>> {
        (from..self.len()).map(|at| self.column(at)).collect()
    }

    /// An argument with a value for every row.
    pub(crate) fn array(&self, at: usize) -> Result<ArrayRef> {
        let Some(operand) = self.operands.get(at) else { return internal(format!("a call without argument {at}")) };
        if !operand.constant {
            return Ok(ArrayRef::clone(&operand.array));
        }
        Ok(take(&operand.array, &UInt32Array::from_value(0, self.rows), None)?)
    }

    /// An argument as arrays, one a row.
    pub(crate) fn lists(&self, at: usize) -> Result<ListArray> {
        let array = self.array(at)?;
        array.as_any().downcast_ref::<ListArray>().cloned().map_or_else(|| internal(format!("argument {at} is no array")), Ok)
    }

    /// An argument as maps, one a row.
    pub(crate) fn maps(&self, at: usize) -> Result<MapArray> {
        let array = self.array(at)?;
        array.as_any().downcast_ref::<MapArray>().cloned().map_or_else(|| internal(format!("argument {at} is no map")), Ok)
    }

    /// One value a row.
    pub(crate) fn each<G: Gives>(&self, mut compute: impl FnMut(usize) -> G) -> Result<ArrayRef> {
        let mut made = G::Value::builder(self.rows, self.returns);
        let mut bytes = 0_usize;
        for row in 0..self.rows {
            let value = compute(row).outcome().and_then(|value| match value {
                Some(value) if value.bytes() > MAX_VALUE_BYTES && value.bytes() > self.largest(row) => Err(Fault),
                other => Ok(other),
            });
            if let Ok(Some(value)) = &value {
                bytes = bytes.saturating_add(value.bytes());
                if bytes > MAX_BATCH_BYTES && self.rows > 1 {
                    return Err(too_much_at_once());
                }
            }
            if value.is_err() {
                self.fail(row);
            }
            G::Value::append(&mut made, value.ok().flatten());
        }
        Ok(G::Value::finish(made))
    }

    /// One value for each row whose argument is not NULL.
    pub(crate) fn map1<A: Value, G: Gives>(&self, compute: impl Fn(A::Of<'_>) -> G) -> Result<ArrayRef> {
        let a = self.column::<A>(0)?;
        self.each(|row| match a.get(row) {
            Some(a) => compute(a).outcome(),
            None => Ok(None),
        })
    }

    /// One value for each row of which no argument is NULL.
    pub(crate) fn map2<A: Value, B: Value, G: Gives>(&self, compute: impl Fn(A::Of<'_>, B::Of<'_>) -> G) -> Result<ArrayRef> {
        let (a, b) = (self.column::<A>(0)?, self.column::<B>(1)?);
        self.each(|row| match (a.get(row), b.get(row)) {
            (Some(a), Some(b)) => compute(a, b).outcome(),
            _ => Ok(None),
        })
    }

    /// One value for each row of which no argument is NULL.
    pub(crate) fn map3<A: Value, B: Value, C: Value, G: Gives>(
        &self,
        compute: impl Fn(A::Of<'_>, B::Of<'_>, C::Of<'_>) -> G,
    ) -> Result<ArrayRef> {
        let (a, b, c) = (self.column::<A>(0)?, self.column::<B>(1)?, self.column::<C>(2)?);
        self.each(|row| match (a.get(row), b.get(row), c.get(row)) {
            (Some(a), Some(b), Some(c)) => compute(a, b, c).outcome(),
            _ => Ok(None),
        })
    }

    /// Nulls the arrays or maps of a result that are too large, and says so.
    pub(crate) fn bounded(&self, made: ArrayRef) -> Result<ArrayRef> {
        if made.get_buffer_memory_size() <= MAX_VALUE_BYTES {
            return Ok(made);
        }
        let sizes = sizes_of(&made)?;
        let is_large = |(row, size): (usize, &usize)| Some(*size > MAX_VALUE_BYTES && *size > self.largest(row));
        let large: BooleanArray = sizes.iter().enumerate().map(is_large).collect();
        let left: usize = sizes.iter().zip(large.values()).filter(|(_, large)| !large).map(|(size, _)| *size).sum();
        if left > MAX_BATCH_BYTES && self.rows > 1 {
            return Err(too_much_at_once());
        }
        if large.true_count() == 0 {
            return Ok(made);
        }
        large.values().set_indices().for_each(|row| self.fail(row));
        Ok(nullif(&made, &large)?)
    }

    /// Bytes of the largest argument of a row, about.
    pub(crate) fn largest(&self, row: usize) -> usize {
        let size = |operand: &Operand| {
            let at = if operand.constant { 0 } else { row };
            sizes_of(&operand.array.slice(at, 1)).ok().and_then(|sizes| sizes.first().copied()).unwrap_or(0)
        };
        self.operands.iter().map(size).max().unwrap_or(0)
    }
}

pub(crate) fn internal<T>(what: String) -> Result<T> {
    Err(DataFusionError::Internal(what))
}

pub(crate) fn too_much_at_once() -> DataFusionError {
    DataFusionError::ResourcesExhausted(format!("an expression makes more than {MAX_BATCH_BYTES} bytes of one batch of rows"))
}

/// A text that stops growing where a value may not be larger.
#[derive(Default)]
pub(crate) struct Text {
    text: String,
}

impl Text {
    /// Appends.
    pub(crate) fn push(&mut self, more: &str, limit: usize) -> std::result::Result<(), Fault> {
        if self.text.len() + more.len() > limit {
            return Err(Fault);
        }
        self.text.push_str(more);
        Ok(())
    }

    /// What it has become.
    pub(crate) fn into_string(self) -> String {
        self.text
    }
}

/// The values of one argument.
pub(crate) struct Values<'a, V: Value> {
    array: &'a V::Array,
    constant: bool,
}

impl<'a, V: Value> Values<'a, V> {
    /// The value of a row; none if it is NULL.
    pub(crate) fn get(&self, row: usize) -> Option<V::Of<'a>> {
        let at = if self.constant { 0 } else { row };
        self.array.is_valid(at).then(|| V::read(self.array, at))
    }
}

/// A type of arguments.
pub(crate) trait Value {
    /// The Arrow array of such values.
    type Array: Array + 'static;
    /// One value.
    type Of<'a>;
    /// The value at a place that is not NULL.
    fn read(array: &Self::Array, at: usize) -> Self::Of<'_>;
}

/// Marks texts.
pub(crate) struct Str;
/// Marks bytes.
pub(crate) struct Bytes;

/// DATE: days since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Day(pub(crate) i32);
/// TIME: milliseconds of a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeOfDay(pub(crate) i32);
/// TIMESTAMP: milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment(pub(crate) i64);
/// DECIMAL: its digits, the point where the type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digits(pub(crate) i128);

macro_rules! values {
    ($($marker:ty, $array:ty, $of:ty, |$values:ident, $at:ident| $read:expr;)*) => {
        $(impl Value for $marker {
            type Array = $array;
            type Of<'a> = $of;
            fn read($values: &Self::Array, $at: usize) -> Self::Of<'_> {
                $read
            }
        })*
    };
}
values! {
    bool, BooleanArray, bool, |values, at| values.value(at);
    i32, Int32Array, i32, |values, at| values.value(at);
    i64, Int64Array, i64, |values, at| values.value(at);
    f64, Float64Array, f64, |values, at| values.value(at);
    Digits, Decimal128Array, i128, |values, at| values.value(at);
    Day, Date32Array, i32, |values, at| values.value(at);
    TimeOfDay, Time32MillisecondArray, i32, |values, at| values.value(at);
    Moment, TimestampMillisecondArray, i64, |values, at| values.value(at);
    Str, StringArray, &'a str, |values, at| values.value(at);
    Bytes, BinaryArray, &'a [u8], |values, at| values.value(at);
}

/// A type of results.
pub(crate) trait Made: Sized {
    /// What collects them.
    type Builder;
    /// For so many rows of a type.
    fn builder(rows: usize, returns: &DataType) -> Self::Builder;
    /// The next row's.
    fn append(builder: &mut Self::Builder, value: Option<Self>);
    /// All of them.
    fn finish(builder: Self::Builder) -> ArrayRef;
    /// What it takes, if that is not fixed.
    fn bytes(&self) -> usize {
        0
    }
}

macro_rules! made {
    ($($made:ty, $builder:ty, |$rows:ident, $returns:ident| $new:expr, |$value:ident| $append:expr, $bytes:expr;)*) => {
        $(impl Made for $made {
            type Builder = $builder;
            fn builder($rows: usize, $returns: &DataType) -> Self::Builder {
                $new
            }
            fn append(builder: &mut Self::Builder, value: Option<Self>) {
                builder.append_option(value.map(|$value| $append));
            }
            fn finish(mut builder: Self::Builder) -> ArrayRef {
                std::sync::Arc::new(builder.finish())
            }
            fn bytes(&self) -> usize {
                let $value = self;
                $bytes
            }
        })*
    };
}
made! {
    bool, BooleanBuilder, |rows, _type| BooleanBuilder::with_capacity(rows), |value| value, { let _ = value; 0 };
    i32, Int32Builder, |rows, _type| Int32Builder::with_capacity(rows), |value| value, { let _ = value; 0 };
    i64, Int64Builder, |rows, _type| Int64Builder::with_capacity(rows), |value| value, { let _ = value; 0 };
    f64, Float64Builder, |rows, _type| Float64Builder::with_capacity(rows), |value| value, { let _ = value; 0 };
    Day, Date32Builder, |rows, _type| Date32Builder::with_capacity(rows), |value| value.0, { let _ = value; 0 };
    TimeOfDay, Time32MillisecondBuilder, |rows, _type| Time32MillisecondBuilder::with_capacity(rows), |value| value.0, { let _ = value; 0 };
    Moment, TimestampMillisecondBuilder, |rows, returns| TimestampMillisecondBuilder::with_capacity(rows).with_data_type(returns.clone()), |value| value.0, { let _ = value; 0 };
    Digits, Decimal128Builder, |rows, returns| Decimal128Builder::with_capacity(rows).with_data_type(returns.clone()), |value| value.0, { let _ = value; 0 };
    String, StringBuilder, |rows, _type| StringBuilder::with_capacity(rows, 0), |value| value, value.len();
    Cow<'_, str>, StringBuilder, |rows, _type| StringBuilder::with_capacity(rows, 0), |value| value, value.len();
    &str, StringBuilder, |rows, _type| StringBuilder::with_capacity(rows, 0), |value| value, value.len();
    Vec<u8>, BinaryBuilder, |rows, _type| BinaryBuilder::with_capacity(rows, 0), |value| value, value.len();
    &[u8], BinaryBuilder, |rows, _type| BinaryBuilder::with_capacity(rows, 0), |value| value, value.len();
}

/// Bytes that an element of an array counts for, beside itself.
const ELEMENT: usize = 4;

macro_rules! made_lists {
    ($($element:ty, $builder:ty, $type:expr, |$value:ident| $size:expr;)*) => {
        $(impl Made for Vec<Option<$element>> {
            type Builder = ListBuilder<$builder>;
            fn builder(_rows: usize, _returns: &DataType) -> Self::Builder {
                ListBuilder::new(<$builder>::new()).with_field(types::element_field($type))
            }
            fn append(builder: &mut Self::Builder, value: Option<Self>) {
                builder.append_option(value);
            }
            fn finish(mut builder: Self::Builder) -> ArrayRef {
                std::sync::Arc::new(builder.finish())
            }
            fn bytes(&self) -> usize {
                self.iter().map(|$value| ELEMENT + $size).sum()
            }
        })*
    };
}
made_lists! {
    Cow<'_, str>, StringBuilder, DataType::Utf8, |value| value.as_ref().map_or(0, |text| text.len());
    &[u8], BinaryBuilder, DataType::Binary, |value| value.map_or(0, <[u8]>::len);
    i32, Int32Builder, DataType::Int32, |_value| 4;
    i64, Int64Builder, DataType::Int64, |_value| 8;
}

/// Texts by text: the entries of a map, each key once with its last value.
#[derive(Default)]
pub(crate) struct Pairs {
    entries: Vec<(String, Option<String>)>,
    places: HashMap<String, usize>,
}

impl Pairs {
    /// Puts an entry, in the place of one that has its key.
    pub(crate) fn put(&mut self, key: &str, value: Option<String>) {
        match self.places.get(key).and_then(|at| self.entries.get_mut(*at)) {
            Some(known) => known.1 = value,
            None => {
                self.places.insert(key.to_owned(), self.entries.len());
                self.entries.push((key.to_owned(), value));
            }
        }
    }
}

impl Made for Pairs {
    type Builder = MapBuilder<StringBuilder, StringBuilder>;

    fn builder(_rows: usize, _returns: &DataType) -> Self::Builder {
        let names = MapFieldNames { entry: "entries".to_owned(), key: "key".to_owned(), value: "value".to_owned() };
        MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new())
    }

    fn append(builder: &mut Self::Builder, value: Option<Self>) {
        let is_given = value.is_some();
        for (key, value) in value.into_iter().flat_map(|pairs| pairs.entries) {
            builder.keys().append_value(key);
            builder.values().append_option(value);
        }
        // It only fails if there are more keys than values.
        let appended = builder.append(is_given);
        debug_assert!(appended.is_ok());
    }

    fn finish(mut builder: Self::Builder) -> ArrayRef {
        std::sync::Arc::new(builder.finish())
    }

    fn bytes(&self) -> usize {
        self.entries.iter().map(|(key, value)| 2 * ELEMENT + key.len() + value.as_ref().map_or(0, String::len)).sum()
    }
}

/// What a kernel's closure may return.
pub(crate) trait Gives {
    /// The value.
    type Value: Made;
    /// The same as an outcome.
    fn outcome(self) -> Outcome<Self::Value>;
}

impl<T: Made> Gives for T {
    type Value = T;
    fn outcome(self) -> Outcome<T> {
        Ok(Some(self))
    }
}

impl<T: Made> Gives for Option<T> {
    type Value = T;
    fn outcome(self) -> Outcome<T> {
        Ok(self)
    }
}

impl<T: Made> Gives for std::result::Result<T, Fault> {
    type Value = T;
    fn outcome(self) -> Outcome<T> {
        self.map(Some)
    }
}

impl<T: Made> Gives for Outcome<T> {
    type Value = T;
    fn outcome(self) -> Outcome<T> {
        self
    }
}
