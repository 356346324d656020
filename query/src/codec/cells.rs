//! One column being written: its values as JSON, as text of a line, or as Kafka's own serialisers write them.
//!
//! A number is written so that reading it gives the same number.

use std::io::Write as _;

use arrow::{
    array::{
        Array, ArrayRef, AsArray as _, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array,
        ListArray, MapArray, StringArray, StructArray, Time32MillisecondArray, TimestampMillisecondArray,
    },
    datatypes::{
        DataType, Date32Type, Decimal128Type, Float64Type, Int32Type, Int64Type, Time32MillisecondType, TimeUnit, TimestampMillisecondType,
    },
};
use base64::Engine as _;

use super::value::BASE64;
use crate::error::QueryError;

/// A column whose type is known.
pub(super) enum Cells<'a> {
    Bool(&'a BooleanArray),
    Int32(&'a Int32Array),
    Int64(&'a Int64Array),
    Float64(&'a Float64Array),
    Utf8(&'a StringArray),
    Binary(&'a BinaryArray),
    Date(&'a Date32Array),
    Time(&'a Time32MillisecondArray),
    Timestamp(&'a TimestampMillisecondArray),
    Decimal(&'a Decimal128Array),
    List(&'a ListArray, Box<Cells<'a>>),
    Map(&'a MapArray, Box<Cells<'a>>, Box<Cells<'a>>),
    Struct(&'a StructArray, Vec<(String, Cells<'a>)>),
}

impl<'a> Cells<'a> {
    pub(super) fn new(array: &'a ArrayRef) -> Result<Self, QueryError> {
        Ok(match array.data_type() {
            DataType::Boolean => Self::Bool(array.as_boolean()),
            DataType::Int32 => Self::Int32(array.as_primitive::<Int32Type>()),
            DataType::Int64 => Self::Int64(array.as_primitive::<Int64Type>()),
            DataType::Float64 => Self::Float64(array.as_primitive::<Float64Type>()),
            DataType::Utf8 => Self::Utf8(array.as_string::<i32>()),
            DataType::Binary => Self::Binary(array.as_binary::<i32>()),
            DataType::Date32 => Self::Date(array.as_primitive::<Date32Type>()),
            DataType::Time32(TimeUnit::Millisecond) => Self::Time(array.as_primitive::<Time32MillisecondType>()),
            DataType::Timestamp(TimeUnit::Millisecond, _) => Self::Timestamp(array.as_primitive::<TimestampMillisecondType>()),
            DataType::Decimal128(..) => Self::Decimal(array.as_primitive::<Decimal128Type>()),
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                Self::List(list, Box::new(Self::new(list.values())?))
            }
            DataType::Map(..) => {
                let map = array.as_map();
                Self::Map(map, Box::new(Self::new(map.keys())?), Box::new(Self::new(map.values())?))
            }
            DataType::Struct(fields) => {
                let children = fields.iter().zip(array.as_struct().columns());
                let cells = children.map(|(field, child)| Ok((format!("{}:", quoted(field.name())), Self::new(child)?)));
                Self::Struct(array.as_struct(), cells.collect::<Result<_, QueryError>>()?)
            }
            other => return Err(QueryError::Unsupported(format!("values of type {other} in records"))),
        })
    }

    pub(super) fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Bool(array) => array.is_null(row),
            Self::Int32(array) => array.is_null(row),
            Self::Int64(array) => array.is_null(row),
            Self::Float64(array) => array.is_null(row),
            Self::Utf8(array) => array.is_null(row),
            Self::Binary(array) => array.is_null(row),
            Self::Date(array) => array.is_null(row),
            Self::Time(array) => array.is_null(row),
            Self::Timestamp(array) => array.is_null(row),
            Self::Decimal(array) => array.is_null(row),
            Self::List(array, _) => array.is_null(row),
            Self::Map(array, ..) => array.is_null(row),
            Self::Struct(array, _) => array.is_null(row),
        }
    }

    /// Appends a value as JSON: nested as deep as its type is.
    pub(super) fn json(&self, row: usize, json: &mut Vec<u8>) {
        if self.is_null(row) {
            json.extend_from_slice(b"null");
            return;
        }
        match self {
            Self::Bool(array) => json.extend_from_slice(if array.value(row) { b"true" } else { b"false" }),
            Self::Int32(array) => write_integer(array.value(row).into(), json),
            Self::Int64(array) => write_integer(array.value(row), json),
            Self::Float64(array) => write_double(array.value(row), json),
            Self::Utf8(array) => write_quoted(array.value(row), json),
            Self::Binary(array) => {
                json.push(b'"');
                json.extend_from_slice(BASE64.encode(array.value(row)).as_bytes());
                json.push(b'"');
            }
            Self::Date(array) => write_integer(array.value(row).into(), json),
            Self::Time(array) => write_integer(array.value(row).into(), json),
            Self::Timestamp(array) => write_integer(array.value(row), json),
            Self::Decimal(array) => json.extend_from_slice(array.value_as_string(row).as_bytes()),
            Self::List(array, items) => {
                json.push(b'[');
                for (place, item) in range(array.value_offsets(), row).enumerate() {
                    separate(place, json);
                    items.json(item, json);
                }
                json.push(b']');
            }
            Self::Map(array, keys, values) => {
                json.push(b'{');
                for (place, entry) in range(array.value_offsets(), row).enumerate() {
                    separate(place, json);
                    write_quoted(&keys.text(entry), json);
                    json.push(b':');
                    values.json(entry, json);
                }
                json.push(b'}');
            }
            Self::Struct(_, fields) => {
                json.push(b'{');
                for (place, (name, field)) in fields.iter().enumerate() {
                    separate(place, json);
                    json.extend_from_slice(name.as_bytes());
                    field.json(row, json);
                }
                json.push(b'}');
            }
        }
    }

    /// A value as JSON.
    pub(super) fn json_text(&self, row: usize) -> String {
        let mut json = Vec::new();
        self.json(row, &mut json);
        String::from_utf8(json).expect("JSON is made of text alone")
    }

    /// A value as text of a line, or as the key of a map; empty for NULL.
    pub(super) fn text(&self, row: usize) -> String {
        if self.is_null(row) {
            return String::new();
        }
        match self {
            Self::Utf8(array) => array.value(row).to_owned(),
            Self::Float64(array) => double_text(array.value(row)),
            Self::Binary(array) => BASE64.encode(array.value(row)),
            Self::Bool(_) | Self::Int32(_) | Self::Int64(_) | Self::Date(_) | Self::Time(_) | Self::Timestamp(_) | Self::Decimal(_) => {
                self.json_text(row)
            }
            // No line and no key of a map has them; a source with such columns cannot be declared.
            Self::List(..) | Self::Map(..) | Self::Struct(..) => self.json_text(row),
        }
    }

    /// Appends a value as Kafka's own serialisers write it, which have no NULL.
    pub(super) fn bytes(&self, row: usize, bytes: &mut Vec<u8>) {
        match self {
            Self::Bool(array) => bytes.push(u8::from(array.value(row))),
            Self::Int32(array) => bytes.extend_from_slice(&array.value(row).to_be_bytes()),
            Self::Int64(array) => bytes.extend_from_slice(&array.value(row).to_be_bytes()),
            Self::Timestamp(array) => bytes.extend_from_slice(&array.value(row).to_be_bytes()),
            Self::Float64(array) => bytes.extend_from_slice(&array.value(row).to_be_bytes()),
            Self::Utf8(array) => bytes.extend_from_slice(array.value(row).as_bytes()),
            Self::Binary(array) => bytes.extend_from_slice(array.value(row)),
            // Kafka has no serialisers for these; a source with such columns cannot be declared.
            Self::Decimal(_) | Self::Date(_) | Self::Time(_) | Self::List(..) | Self::Map(..) | Self::Struct(..) => {
                bytes.extend_from_slice(self.text(row).as_bytes());
            }
        }
    }
}

fn separate(place: usize, json: &mut Vec<u8>) {
    if place > 0 {
        json.push(b',');
    }
}

/// Places of the items of a list.
fn range(offsets: &[i32], row: usize) -> std::ops::Range<usize> {
    let at = |row: usize| offsets.get(row).and_then(|offset| usize::try_from(*offset).ok()).unwrap_or_default();
    at(row)..at(row + 1)
}

/// Appends a text as JSON has it, in quotes.
pub(super) fn write_quoted(text: &str, json: &mut Vec<u8>) {
    // Mostly nothing in a text needs an escape.
    let is_plain = text.bytes().fold(true, |plain, byte| plain & (byte >= 0x20) & (byte != b'"') & (byte != b'\\'));
    if is_plain {
        json.reserve(text.len() + 2);
        json.push(b'"');
        json.extend_from_slice(text.as_bytes());
        json.push(b'"');
    } else {
        serde_json::to_writer(json, text).expect("a Vec takes whatever is written to it");
    }
}

/// A text as JSON has it, in quotes.
pub(super) fn quoted(text: &str) -> String {
    let mut json = Vec::new();
    write_quoted(text, &mut json);
    String::from_utf8(json).expect("JSON is made of text alone")
}

/// Appends a number in digits.
fn write_integer(number: i64, json: &mut Vec<u8>) {
    // i64::MIN has 19 of them and a sign.
    let mut digits = [0; 20];
    let (mut rest, mut first) = (number.unsigned_abs(), digits.len());
    loop {
        first -= 1;
        let digit = b'0' + (rest % 10) as u8;
        digits[first] = digit;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        first -= 1;
        digits[first] = b'-';
    }
    json.extend_from_slice(&digits[first..]);
}

/// Appends a DOUBLE so that reading it gives the same one.
fn write_double(number: f64, json: &mut Vec<u8>) {
    // JSON has no numbers for these: they stand as text, which is read back.
    if number.is_nan() {
        json.extend_from_slice(b"\"NaN\"");
    } else if number.is_infinite() {
        json.extend_from_slice(if number > 0.0 { b"\"Infinity\"" } else { b"\"-Infinity\"" });
    } else {
        write!(json, "{number:?}").expect("a Vec takes whatever is written to it");
    }
}

/// A DOUBLE as Java writes it: `10.0`, `1.0E10`, `NaN`.
fn double_text(number: f64) -> String {
    let size = number.abs();
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "Infinity".to_owned() } else { "-Infinity".to_owned() };
    }
    if size == 0.0 || (1e-3..1e7).contains(&size) {
        return format!("{number:?}");
    }
    let text = format!("{number:E}");
    match text.split_once('E') {
        // Java writes two digits at least, those that are nearest.
        Some((mantissa, _)) if !mantissa.contains('.') => format!("{number:.1E}"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_written_in_digits() {
        for number in [0, 7, -1, 10, 1_234_567_890, i64::MAX, i64::MIN] {
            let mut json = Vec::new();
            write_integer(number, &mut json);
            assert_eq!(json, number.to_string().as_bytes());
        }
    }

    #[test]
    fn texts_are_quoted_as_json_has_them() {
        for text in ["", "plain", "ä€😀", "a\"b", "back\\slash", "line\nfeed", "\u{1}", "\u{7f}"] {
            assert_eq!(quoted(text), serde_json::to_string(text).unwrap());
        }
    }

    #[test]
    fn doubles_are_written_as_java_writes_them() {
        for (number, text) in [
            (10.0, "10.0"),
            (-0.0, "-0.0"),
            (0.001, "0.001"),
            (1e7, "1.0E7"),
            (9_999_999.5, "9999999.5"),
            (1.25e-5, "1.25E-5"),
            (-1e300, "-1.0E300"),
            (5e-324, "4.9E-324"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(double_text(number), text);
        }
    }
}
