//! One column being built: values as JSON, keys and pseudo columns have them, into an Arrow array.
//!
//! A value that does not fit is NULL and gives the reason; nothing is rounded, cut or wrapped to make it fit.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, BooleanBuilder, Decimal128Builder, Float64Builder, Int32Builder, Int64Builder, StringBuilder,
        TimestampMillisecondBuilder, timezone::Tz,
    },
    compute::kernels::cast_utils::string_to_datetime,
    datatypes::{DataType, TimeUnit},
};
use foldlog_log::{PartitionId, RecordView};

use super::json::{Kind, Value, unescape};
use crate::{catalog::Pseudo, error::QueryError};

pub(super) enum Builder {
    Bool(BooleanBuilder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float64(Float64Builder),
    Utf8(StringBuilder),
    Timestamp(TimestampMillisecondBuilder),
    Decimal(Decimal128Builder, u8, i8),
}

impl Builder {
    pub(super) fn new(data_type: &DataType, rows: usize) -> Result<Self, QueryError> {
        Ok(match data_type {
            DataType::Boolean => Self::Bool(BooleanBuilder::with_capacity(rows)),
            DataType::Int32 => Self::Int32(Int32Builder::with_capacity(rows)),
            DataType::Int64 => Self::Int64(Int64Builder::with_capacity(rows)),
            DataType::Float64 => Self::Float64(Float64Builder::with_capacity(rows)),
            DataType::Utf8 => Self::Utf8(StringBuilder::with_capacity(rows, rows * 12)),
            DataType::Timestamp(TimeUnit::Millisecond, _) => {
                Self::Timestamp(TimestampMillisecondBuilder::with_capacity(rows).with_data_type(data_type.clone()))
            }
            DataType::Decimal128(precision, scale) => {
                Self::Decimal(Decimal128Builder::with_capacity(rows).with_data_type(data_type.clone()), *precision, *scale)
            }
            other => return Err(QueryError::Unsupported(format!("values of type {other} in JSON"))),
        })
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Bool(builder) => Arc::new(builder.finish()),
            Self::Int32(builder) => Arc::new(builder.finish()),
            Self::Int64(builder) => Arc::new(builder.finish()),
            Self::Float64(builder) => Arc::new(builder.finish()),
            Self::Utf8(builder) => Arc::new(builder.finish()),
            Self::Timestamp(builder) => Arc::new(builder.finish()),
            Self::Decimal(builder, ..) => Arc::new(builder.finish()),
        }
    }

    pub(super) fn append_null(&mut self) {
        match self {
            Self::Bool(builder) => builder.append_null(),
            Self::Int32(builder) => builder.append_null(),
            Self::Int64(builder) => builder.append_null(),
            Self::Float64(builder) => builder.append_null(),
            Self::Utf8(builder) => builder.append_null(),
            Self::Timestamp(builder) => builder.append_null(),
            Self::Decimal(builder, ..) => builder.append_null(),
        }
    }

    /// Appends a field's value; absent and `null` are NULL.
    pub(super) fn append_json(&mut self, value: Option<Value<'_>>) -> Result<(), &'static str> {
        let Some(value) = value.filter(|value| value.kind != Kind::Null) else {
            self.append_null();
            return Ok(());
        };
        let done = self.append_some(value);
        if done.is_err() {
            self.append_null();
        }
        done
    }

    fn append_some(&mut self, value: Value<'_>) -> Result<(), &'static str> {
        match self {
            Self::Bool(builder) => builder.append_value(match value.kind {
                Kind::True => true,
                Kind::False => false,
                _ => return Err("not a BOOLEAN"),
            }),
            Self::Int32(builder) => {
                let wide = integer(value, "not an INTEGER")?;
                builder.append_value(i32::try_from(wide).map_err(|_| "out of the range of INTEGER")?);
            }
            Self::Int64(builder) => builder.append_value(integer(value, "not a BIGINT")?),
            Self::Float64(builder) => builder.append_value(double(value)?),
            Self::Utf8(builder) => match value.kind {
                Kind::Escaped => builder.append_value(unescape(value.raw).ok_or("half of a surrogate pair in a string")?),
                _ => builder.append_value(value.raw),
            },
            Self::Timestamp(builder) => builder.append_value(timestamp(value)?),
            Self::Decimal(builder, precision, scale) => builder.append_value(decimal(value, *precision, *scale)?),
        }
        Ok(())
    }

    /// Appends a key that carries this column alone, as Kafka's own serialisers write it.
    pub(super) fn append_key(&mut self, key: Option<&[u8]>) -> Result<(), &'static str> {
        let Some(bytes) = key else {
            self.append_null();
            return Ok(());
        };
        let done = self.append_key_bytes(bytes);
        if done.is_err() {
            self.append_null();
        }
        done
    }

    fn append_key_bytes(&mut self, bytes: &[u8]) -> Result<(), &'static str> {
        match self {
            Self::Bool(builder) => match bytes {
                [0] => builder.append_value(false),
                [1] => builder.append_value(true),
                _ => return Err("the key is not one byte, 0 or 1"),
            },
            Self::Int32(builder) => builder.append_value(i32::from_be_bytes(bytes.try_into().map_err(|_| "the key is not 4 bytes")?)),
            Self::Int64(builder) => builder.append_value(i64::from_be_bytes(bytes.try_into().map_err(|_| "the key is not 8 bytes")?)),
            Self::Timestamp(builder) => builder.append_value(i64::from_be_bytes(bytes.try_into().map_err(|_| "the key is not 8 bytes")?)),
            Self::Float64(builder) => builder.append_value(f64::from_be_bytes(bytes.try_into().map_err(|_| "the key is not 8 bytes")?)),
            Self::Utf8(builder) => builder.append_value(std::str::from_utf8(bytes).map_err(|_| "the key is not UTF-8")?),
            Self::Decimal(builder, precision, scale) => {
                let raw = std::str::from_utf8(bytes).map_err(|_| "the key is not UTF-8")?;
                builder.append_value(decimal(Value { kind: Kind::Plain, raw }, *precision, *scale)?);
            }
        }
        Ok(())
    }

    /// Appends a column that every record has.
    pub(super) fn append_pseudo(
        &mut self,
        pseudo: Pseudo,
        record: &RecordView<'_>,
        partition: PartitionId,
        rowtime: i64,
    ) -> Result<(), &'static str> {
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        match (self, pseudo) {
            (Self::Utf8(builder), Pseudo::Stream) => builder.append_option(record.key.and_then(|key| std::str::from_utf8(key).ok())),
            (Self::Utf8(builder), Pseudo::Type) => builder.append_option(record.event().map(|event| event.kind)),
            (Self::Utf8(builder), Pseudo::Data) => {
                let text = record.value.map(std::str::from_utf8).transpose();
                builder.append_option(*text.as_ref().unwrap_or(&None));
                return text.map(|_| ()).map_err(|_| "the payload is not UTF-8");
            }
            (Self::Int64(builder), Pseudo::Version) => builder.append_option(record.event().map(|event| number(event.version.get()))),
            (Self::Int64(builder), Pseudo::Position) => builder.append_value(number(record.position.get())),
            (Self::Int64(builder), Pseudo::RowOffset) => builder.append_value(number(record.offset.get())),
            (Self::Int32(builder), Pseudo::RowPartition) => builder.append_value(i32::try_from(partition.get()).unwrap_or(i32::MAX)),
            (Self::Timestamp(builder), Pseudo::RowTime) => builder.append_value(rowtime),
            (other, _) => other.append_null(),
        }
        Ok(())
    }
}

/// Milliseconds of a column that says when a record happened; none for NULL.
pub(super) fn time_of(value: Option<Value<'_>>, data_type: &DataType) -> Result<Option<i64>, &'static str> {
    match value.filter(|value| value.kind != Kind::Null) {
        None => Ok(None),
        Some(value) if matches!(data_type, DataType::Int64 | DataType::Int32) => integer(value, "not a BIGINT").map(Some),
        Some(value) => timestamp(value).map(Some),
    }
}

fn integer(value: Value<'_>, wrong: &'static str) -> Result<i64, &'static str> {
    if value.kind != Kind::Number {
        return Err(wrong);
    }
    match value.raw.parse() {
        Ok(number) => Ok(number),
        // 1e3 and 2.0 are integers, written otherwise; 1.5 is none.
        Err(_) => i64::try_from(scaled(value.raw, 0)?).map_err(|_| "out of the range of BIGINT"),
    }
}

fn double(value: Value<'_>) -> Result<f64, &'static str> {
    if value.kind != Kind::Number {
        return Err("not a DOUBLE");
    }
    let number: f64 = value.raw.parse().map_err(|_| "not a DOUBLE")?;
    if number.is_finite() { Ok(number) } else { Err("out of the range of DOUBLE") }
}

fn timestamp(value: Value<'_>) -> Result<i64, &'static str> {
    match value.kind {
        Kind::Number => integer(value, "not a TIMESTAMP"),
        Kind::Plain => {
            let utc: Tz = "+00:00".parse().map_err(|_| "no time zone")?;
            string_to_datetime(&utc, value.raw).map(|time| time.timestamp_millis()).map_err(|_| "not a TIMESTAMP as ISO 8601 writes it")
        }
        _ => Err("not a TIMESTAMP"),
    }
}

fn decimal(value: Value<'_>, precision: u8, scale: i8) -> Result<i128, &'static str> {
    if !matches!(value.kind, Kind::Number | Kind::Plain) {
        return Err("not a DECIMAL");
    }
    let number = scaled(value.raw, i32::from(scale))?;
    let fits = 10_u128.checked_pow(u32::from(precision)).is_none_or(|limit| number.unsigned_abs() < limit);
    if fits { Ok(number) } else { Err("has more digits than its DECIMAL") }
}

/// The number that `text` spells, times ten to the power of `scale`, exactly.
fn scaled(text: &str, scale: i32) -> Result<i128, &'static str> {
    const NOT_A_NUMBER: &str = "not a number";
    const TOO_FINE: &str = "has more decimal places than its type";
    const TOO_LARGE: &str = "out of range";
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        // An exponent of more than nine digits cannot be represented here unless the mantissa is zero.
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map(|e| e.clamp(-1_000_000_000, 1_000_000_000)).ok()),
        None => (text, Some(0)),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = || whole.bytes().chain(fraction.bytes());
    if whole.is_empty() || !digits().all(|byte| byte.is_ascii_digit()) {
        return Err(NOT_A_NUMBER);
    }
    if digits().all(|byte| byte == b'0') {
        return Ok(0);
    }
    let exponent = exponent.ok_or(TOO_LARGE)?;
    let places = i64::try_from(fraction.len()).map_err(|_| TOO_FINE)?;
    // Digits beyond the last place of the result must be zeros; missing ones are filled up.
    let shift = i64::from(exponent) + i64::from(scale) - places;
    let cut = usize::try_from(-shift).unwrap_or(0);
    let count = whole.len() + fraction.len();
    let kept = count.saturating_sub(cut);
    let mut number: i128 = 0;
    for (place, byte) in digits().enumerate() {
        let digit = i128::from(byte - b'0');
        if place < kept {
            number = number.checked_mul(10).and_then(|number| number.checked_add(digit)).ok_or(TOO_LARGE)?;
        } else if digit != 0 {
            return Err(TOO_FINE);
        }
    }
    if let Ok(fill) = u32::try_from(shift) {
        number = 10_i128.checked_pow(fill).and_then(|power| number.checked_mul(power)).ok_or(TOO_LARGE)?;
    }
    Ok(if negative { -number } else { number })
}
