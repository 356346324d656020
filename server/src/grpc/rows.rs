//! Arrow batches of the query engine to the typed columns of `foldlog.v1`.

use std::fmt::Write as _;

use foldlog_proto::v1 as pb;
use foldlog_query::{
    ChangeOp, ScalarValue,
    arrow::{
        array::{Array, ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, cast::AsArray},
        compute::{CastOptions, cast_with_options},
        datatypes::{DataType, Field, Schema, TimeUnit},
        error::ArrowError,
        ipc::writer::StreamWriter,
        util::display::{ArrayFormatter, FormatOptions},
    },
    catalog::type_name,
};

use crate::failure::{Failure, Kind};

/// Milliseconds of a day.
const DAY_MS: i32 = 86_400_000;

/// Larger messages are split: clients need not take more at once.
const MESSAGE_BYTES: usize = 2 << 20;

/// How rows travel, and what that needs from one batch to the next.
pub enum Encoding {
    /// Typed columns.
    Columns(Vec<pb::ColumnType>),
    /// An Arrow IPC stream.
    Arrow(Box<StreamWriter<Vec<u8>>>),
}

impl Encoding {
    /// The encoding that was asked for, and the schema message that comes first.
    pub fn begin(asked: i32, schema: &Schema, keys: &[usize]) -> Result<(Self, pb::Schema), Failure> {
        let column = |(place, field): (usize, &std::sync::Arc<Field>)| pb::Column {
            name: field.name().clone(),
            r#type: column_type(field.data_type()).into(),
            sql_type: type_name(field.data_type()),
            key: keys.contains(&place),
        };
        let columns: Vec<_> = schema.fields().iter().enumerate().map(column).collect();
        match pb::RowEncoding::try_from(asked) {
            Ok(pb::RowEncoding::Unspecified | pb::RowEncoding::Columns) => {
                let types = schema.fields().iter().map(|field| column_type(field.data_type())).collect();
                Ok((Self::Columns(types), pb::Schema { columns, arrow_ipc: Default::default() }))
            }
            Ok(pb::RowEncoding::ArrowIpc) => {
                let mut writer = StreamWriter::try_new(Vec::new(), schema).map_err(failed)?;
                let arrow_ipc = std::mem::take(writer.get_mut()).into();
                Ok((Self::Arrow(Box::new(writer)), pb::Schema { columns, arrow_ipc }))
            }
            Err(unknown) => Err(Failure::invalid("encoding", format_args!("{} is no encoding", unknown.0))),
        }
    }

    /// The messages of a batch; `marks` has one byte a row, or none.
    pub fn rows(&mut self, batch: &RecordBatch, marks: &[u8]) -> Result<Vec<pb::Rows>, Failure> {
        let mut messages = Vec::new();
        let mut left = vec![(0, batch.num_rows())];
        while let Some((from, count)) = left.pop() {
            let slice = batch.slice(from, count);
            let mut rows = pb::Rows {
                count: u32::try_from(count).map_err(|_| Failure::new(Kind::Internal, "QUERY_FAILED", "a batch has too many rows"))?,
                marks: prost::bytes::Bytes::copy_from_slice(marks.get(from..from + count).unwrap_or_default()),
                ..Default::default()
            };
            if count > 1 && bytes(&slice) > MESSAGE_BYTES {
                left.push((from + count / 2, count - count / 2));
                left.push((from, count / 2));
                continue;
            }
            match self {
                Self::Columns(types) => {
                    let columns = slice.columns().iter().zip(types.iter());
                    rows.columns = columns.map(|(array, kind)| values(array, *kind)).collect::<Result<_, _>>().map_err(failed)?;
                }
                Self::Arrow(writer) => {
                    writer.write(&slice).map_err(failed)?;
                    rows.arrow_ipc = std::mem::take(writer.get_mut()).into();
                }
            }
            messages.push(rows);
        }
        Ok(messages)
    }
}

/// Bytes that these rows themselves take, whatever they share with others.
fn bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(usize::MAX / 1024)).sum()
}

/// The marks of changed rows as they travel.
pub fn marks(ops: &[ChangeOp]) -> Vec<u8> {
    let mark = |op: &ChangeOp| match op {
        ChangeOp::Insert => pb::ChangeMark::Insert as u8,
        ChangeOp::UpdateBefore => pb::ChangeMark::UpdateBefore as u8,
        ChangeOp::UpdateAfter => pb::ChangeMark::UpdateAfter as u8,
        ChangeOp::Delete => pb::ChangeMark::Delete as u8,
    };
    ops.iter().map(mark).collect()
}

/// A parameter of a statement.
pub fn parameter(value: pb::Value, place: usize) -> Result<ScalarValue, Failure> {
    use pb::value::Kind;
    Ok(match value.kind {
        None => ScalarValue::Null,
        Some(Kind::Boolean(yes)) => ScalarValue::Boolean(Some(yes)),
        Some(Kind::Integer(number)) => ScalarValue::Int64(Some(number)),
        Some(Kind::Double(number)) => ScalarValue::Float64(Some(number)),
        Some(Kind::Text(text)) => ScalarValue::Utf8(Some(text)),
        Some(Kind::Binary(bytes)) => ScalarValue::Binary(Some(bytes.to_vec())),
        Some(Kind::TimestampMs(ms)) => ScalarValue::TimestampMillisecond(Some(ms), Some("UTC".into())),
        Some(Kind::Date(days)) => {
            let days =
                i32::try_from(days).map_err(|_| Failure::invalid(format!("parameters[{place}].date"), "days since 1970, up to 2^31"))?;
            ScalarValue::Date32(Some(days))
        }
        Some(Kind::TimeMs(ms)) => {
            let ms = i32::try_from(ms).ok().filter(|ms| (0..DAY_MS).contains(ms));
            let rule = "milliseconds since midnight, less than 86400000";
            ScalarValue::Time32Millisecond(Some(ms.ok_or_else(|| Failure::invalid(format!("parameters[{place}].time_ms"), rule))?))
        }
        Some(Kind::Decimal(text)) => {
            let invalid = || Failure::invalid(format!("parameters[{place}].decimal"), "up to 38 digits with an optional point and sign");
            let (number, scale) = decimal(&text).ok_or_else(invalid)?;
            ScalarValue::Decimal128(Some(number), 38, scale)
        }
        Some(Kind::Nested(nested)) => {
            let read = foldlog_query::codec::nested_value(&nested.sql_type, nested.json.as_bytes());
            read.map_err(|fault| Failure::invalid(format!("parameters[{place}].nested"), fault))?
        }
    })
}

/// The digits of a decimal number and how many of them stand behind the point.
fn decimal(text: &str) -> Option<(i128, i8)> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let only_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || whole.len() + fraction.len() > 38 || !only_digits(whole) || !only_digits(fraction) {
        return None;
    }
    let number: i128 = format!("{whole}{fraction}").parse().ok()?;
    Some((if text.starts_with('-') { -number } else { number }, i8::try_from(fraction.len()).ok()?))
}

fn failed(error: ArrowError) -> Failure {
    Failure::new(Kind::Internal, "QUERY_FAILED", format!("the answer could not be encoded: {error}"))
}

fn column_type(data_type: &DataType) -> pb::ColumnType {
    match data_type {
        DataType::Boolean => pb::ColumnType::Boolean,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => pb::ColumnType::Integer,
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => pb::ColumnType::Bigint,
        DataType::Float16 | DataType::Float32 | DataType::Float64 => pb::ColumnType::Double,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => pb::ColumnType::Bytes,
        DataType::Timestamp(_, _) => pb::ColumnType::Timestamp,
        DataType::Date32 | DataType::Date64 => pb::ColumnType::Date,
        DataType::Time32(_) | DataType::Time64(_) => pb::ColumnType::Time,
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => pb::ColumnType::Decimal,
        DataType::Dictionary(_, values) => column_type(values),
        DataType::RunEndEncoded(_, values) => column_type(values.data_type()),
        DataType::List(_)
        | DataType::LargeList(_)
        | DataType::FixedSizeList(..)
        | DataType::ListView(_)
        | DataType::LargeListView(_)
        | DataType::Struct(_)
        | DataType::Map(..)
        | DataType::Union(..) => pb::ColumnType::Json,
        DataType::Null | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Duration(_) | DataType::Interval(_) => {
            pb::ColumnType::Varchar
        }
    }
}

fn values(array: &ArrayRef, kind: pb::ColumnType) -> Result<pb::ColumnValues, ArrowError> {
    use pb::column_values::Values;
    let values = match kind {
        pb::ColumnType::Boolean => Values::Booleans(pb::Booleans { values: booleans(to(array, &DataType::Boolean)?.as_boolean()) }),
        pb::ColumnType::Integer | pb::ColumnType::Bigint => integers(&to(array, &DataType::Int64)?),
        pb::ColumnType::Timestamp => {
            let zone = match array.data_type() {
                DataType::Timestamp(_, zone) => zone.clone(),
                _ => None,
            };
            integers(&to(&to(array, &DataType::Timestamp(TimeUnit::Millisecond, zone))?, &DataType::Int64)?)
        }
        pb::ColumnType::Date => integers(&to(&to(&to(array, &DataType::Date32)?, &DataType::Int32)?, &DataType::Int64)?),
        pb::ColumnType::Time => {
            let ms = to(array, &DataType::Time32(TimeUnit::Millisecond))?;
            integers(&to(&to(&ms, &DataType::Int32)?, &DataType::Int64)?)
        }
        pb::ColumnType::Double => Values::Doubles(pb::Doubles { values: doubles(&to(array, &DataType::Float64)?) }),
        pb::ColumnType::Bytes => Values::Binaries(pb::Binaries { values: binaries(&to(array, &DataType::Binary)?) }),
        pb::ColumnType::Json => Values::Texts(pb::Texts { values: json_texts(array)? }),
        pb::ColumnType::Unspecified | pb::ColumnType::Varchar | pb::ColumnType::Decimal => {
            Values::Texts(pb::Texts { values: texts(&to(array, &DataType::Utf8)?) })
        }
    };
    Ok(pb::ColumnValues { nulls: nulls(array), values: Some(values) })
}

/// The array as another type; a value that does not fit is an error, never a NULL.
fn to(array: &ArrayRef, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
    if array.data_type() == data_type {
        return Ok(array.clone());
    }
    cast_with_options(array, data_type, &CastOptions { safe: false, ..CastOptions::default() })
}

fn nulls(array: &ArrayRef) -> prost::bytes::Bytes {
    let Some(nulls) = array.logical_nulls().filter(|nulls| nulls.null_count() > 0) else { return prost::bytes::Bytes::new() };
    let mut bits = vec![0_u8; array.len().div_ceil(8)];
    for row in (0..array.len()).filter(|row| nulls.is_null(*row)) {
        if let Some(byte) = bits.get_mut(row / 8) {
            *byte |= 1 << (row % 8);
        }
    }
    bits.into()
}

fn booleans(array: &BooleanArray) -> Vec<bool> {
    array.iter().map(Option::unwrap_or_default).collect()
}

fn integers(array: &ArrayRef) -> pb::column_values::Values {
    let array: &Int64Array = array.as_primitive();
    let values = if array.null_count() == 0 { array.values().to_vec() } else { array.iter().map(Option::unwrap_or_default).collect() };
    pb::column_values::Values::Integers(pb::Integers { values })
}

fn doubles(array: &ArrayRef) -> Vec<f64> {
    let array: &Float64Array = array.as_primitive();
    array.iter().map(Option::unwrap_or_default).collect()
}

fn texts(array: &ArrayRef) -> Vec<String> {
    let array: &StringArray = array.as_string();
    array.iter().map(|text| text.unwrap_or_default().to_owned()).collect()
}

fn binaries(array: &ArrayRef) -> Vec<prost::bytes::Bytes> {
    let array: &BinaryArray = array.as_binary();
    array.iter().map(|bytes| prost::bytes::Bytes::copy_from_slice(bytes.unwrap_or_default())).collect()
}

fn json_texts(array: &ArrayRef) -> Result<Vec<String>, ArrowError> {
    let mut texts = Vec::with_capacity(array.len());
    for row in 0..array.len() {
        let mut text = String::new();
        if !array.is_null(row) {
            json(array, row, &mut text)?;
        }
        texts.push(text);
    }
    Ok(texts)
}

/// Writes one value as JSON; nested types only come from declared schemas, so the recursion is as shallow as they are.
fn json(array: &ArrayRef, row: usize, out: &mut String) -> Result<(), ArrowError> {
    if array.is_null(row) {
        out.push_str("null");
        return Ok(());
    }
    match array.data_type() {
        DataType::List(_) => json_list(&array.as_list::<i32>().value(row), out),
        DataType::LargeList(_) => json_list(&array.as_list::<i64>().value(row), out),
        DataType::FixedSizeList(..) => json_list(&array.as_fixed_size_list().value(row), out),
        DataType::Struct(fields) => {
            out.push('{');
            for (place, (field, column)) in fields.iter().zip(array.as_struct().columns()).enumerate() {
                out.push_str(if place == 0 { "" } else { "," });
                json_string(field.name(), out);
                out.push(':');
                json(column, row, out)?;
            }
            out.push('}');
            Ok(())
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            let [keys, values] = entries.columns() else {
                return Err(ArrowError::InvalidArgumentError("a map without keys and values".to_owned()));
            };
            let keys = to(keys, &DataType::Utf8)?;
            out.push('{');
            for (place, key) in keys.as_string::<i32>().iter().enumerate() {
                out.push_str(if place == 0 { "" } else { "," });
                json_string(key.unwrap_or_default(), out);
                out.push(':');
                json(values, place, out)?;
            }
            out.push('}');
            Ok(())
        }
        scalar => json_scalar(array, row, scalar, out),
    }
}

fn json_list(items: &ArrayRef, out: &mut String) -> Result<(), ArrowError> {
    out.push('[');
    for place in 0..items.len() {
        out.push_str(if place == 0 { "" } else { "," });
        json(items, place, out)?;
    }
    out.push(']');
    Ok(())
}

fn json_scalar(array: &ArrayRef, row: usize, data_type: &DataType, out: &mut String) -> Result<(), ArrowError> {
    let formatter = ArrayFormatter::try_new(array.as_ref(), &FormatOptions::default())?;
    let text = formatter.value(row).try_to_string()?;
    let number = data_type.is_numeric() && text.parse::<f64>().is_ok_and(f64::is_finite);
    if number || matches!(data_type, DataType::Boolean) {
        out.push_str(&text);
    } else {
        json_string(&text, out);
    }
    Ok(())
}

fn json_string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use foldlog_query::arrow::{
        array::{Decimal128Array, Int32Array, ListArray, StructArray, TimestampMicrosecondArray, UInt64Array},
        datatypes::Int32Type,
    };

    use super::*;

    fn column(array: ArrayRef) -> pb::ColumnValues {
        let kind = column_type(array.data_type());
        values(&array, kind).unwrap()
    }

    #[test]
    fn nulls_are_bits_and_leave_a_zero_in_place() {
        let got = column(Arc::new(Int32Array::from(vec![Some(1), None, Some(-3), None, None, None, None, None, None])));
        assert_eq!(got.nulls.as_ref(), [0b1111_1010, 0b1]);
        let Some(pb::column_values::Values::Integers(integers)) = got.values else { panic!("{got:?}") };
        assert_eq!(integers.values, [1, 0, -3, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn decimals_stay_exact_and_times_become_milliseconds() {
        let decimals = Decimal128Array::from(vec![Some(-12_345_678_901_234_567_890_i128), None]).with_precision_and_scale(30, 3).unwrap();
        let Some(pb::column_values::Values::Texts(texts)) = column(Arc::new(decimals)).values else { panic!() };
        assert_eq!(texts.values, ["-12345678901234567.890", ""]);
        let times = TimestampMicrosecondArray::from(vec![1_500_000]).with_timezone("UTC");
        let Some(pb::column_values::Values::Integers(integers)) = column(Arc::new(times)).values else { panic!() };
        assert_eq!(integers.values, [1_500]);
    }

    #[test]
    fn a_number_too_large_for_bigint_is_an_error_and_not_a_null() {
        let array: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX]));
        assert!(values(&array, pb::ColumnType::Bigint).is_err());
    }

    #[test]
    fn nested_values_are_json() {
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None]);
        let names = StringArray::from(vec!["a\"\n", "b"]);
        let fields = vec![
            (Arc::new(Field::new("l", list.data_type().clone(), true)), Arc::new(list) as ArrayRef),
            (Arc::new(Field::new("n", DataType::Utf8, true)), Arc::new(names) as ArrayRef),
        ];
        let Some(pb::column_values::Values::Texts(texts)) = column(Arc::new(StructArray::from(fields))).values else { panic!() };
        assert_eq!(texts.values, [r#"{"l":[1,null],"n":"a\"\u000a"}"#, r#"{"l":null,"n":"b"}"#]);
    }

    #[test]
    fn large_batches_are_split_and_keep_their_order_and_marks() {
        let schema = Schema::new(vec![Field::new("t", DataType::Utf8, false)]);
        let texts: Vec<String> = (0..9).map(|n| format!("{n}{}", "x".repeat(1 << 20))).collect();
        let batch = RecordBatch::try_new(Arc::new(schema.clone()), vec![Arc::new(StringArray::from(texts))]).unwrap();
        let (mut encoding, _) = Encoding::begin(0, &schema, &[]).unwrap();
        let messages = encoding.rows(&batch, &[1, 2, 3, 4, 1, 2, 3, 4, 1]).unwrap();
        assert!(messages.len() > 3);
        let marks: Vec<u8> = messages.iter().flat_map(|rows| rows.marks.to_vec()).collect();
        assert_eq!(marks, [1, 2, 3, 4, 1, 2, 3, 4, 1]);
        let firsts = messages.iter().flat_map(|rows| match rows.columns[0].values.as_ref() {
            Some(pb::column_values::Values::Texts(texts)) => texts.values.iter().map(|t| t[..1].to_owned()).collect::<Vec<_>>(),
            _ => Vec::new(),
        });
        assert_eq!(firsts.collect::<String>(), "012345678");
    }

    #[test]
    fn decimal_parameters_are_exact() {
        assert_eq!(decimal("-12.50"), Some((-1250, 2)));
        assert_eq!(decimal("7"), Some((7, 0)));
        for bad in ["", ".", "-", "1e5", "1.2.3", "1_000", &"9".repeat(39)] {
            assert_eq!(decimal(bad), None, "{bad}");
        }
    }
}
