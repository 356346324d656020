//! CAST as the `ksql` dialect has it: Java's habits with texts and numbers, element by element within arrays, maps and structs.
//!
//! A value that cannot be cast is NULL, and its row is told; within an array, map or struct only that element is.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, ListArray, MapArray,
        StringArray, StructArray, Time32MillisecondArray, TimestampMillisecondArray, new_null_array,
    },
    datatypes::{
        DataType, Date32Type, Decimal128Type, Float64Type, Int32Type, Int64Type, Time32MillisecondType, TimeUnit, TimestampMillisecondType,
    },
};
use chrono::{DateTime, Datelike, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeZone, Utc};
use datafusion::common::{DataFusionError, Result};

use super::{nested::by_name, operator::digits};
use crate::{
    catalog::{timestamp_type, types::map_parts},
    functions::{types::common, written},
    plan::kernel::Kernel,
};

/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;

/// Whether there is such a cast.
pub(super) fn can_cast(from: &DataType, to: &DataType) -> bool {
    use DataType::{Boolean, Date32, Decimal128, Float64, Int32, Int64, List, Map, Null, Struct, Time32, Timestamp, Utf8};
    match (from, to) {
        (from, to) if from == to => true,
        (Null, _) => true,
        (Boolean | Date32 | Time32(_) | Timestamp(..), Utf8) => true,
        (Int32 | Int64 | Float64 | Decimal128(..), Int32 | Int64 | Float64 | Decimal128(..) | Utf8) => true,
        (Utf8, Boolean | Int32 | Int64 | Float64 | Decimal128(..) | Date32 | Time32(_) | Timestamp(..)) => true,
        (Timestamp(..), Date32 | Time32(_)) | (Date32, Timestamp(..)) => true,
        (List(_) | Map(..) | Struct(_), Utf8) => true,
        (List(from), List(to)) => can_cast(from.data_type(), to.data_type()),
        (Struct(from), Struct(to)) => to
            .iter()
            .all(|to| from.iter().find(|from| from.name() == to.name()).is_none_or(|from| can_cast(from.data_type(), to.data_type()))),
        (Map(..), Map(..)) => match (map_parts(from), map_parts(to)) {
            (Some((from_key, from_value)), Some((to_key, to_value))) => can_cast(from_key, to_key) && can_cast(from_value, to_value),
            _ => false,
        },
        _ => false,
    }
}

/// Whether a column takes a value of another type: numbers widen, a DECIMAL takes what it need not round, times take texts; and so
/// within nested values, whose structs may lack fields but have no others.
pub(super) fn can_assign(from: &DataType, to: &DataType) -> bool {
    use DataType::{Date32, Decimal128, List, Map, Struct, Time32, Timestamp, Utf8};
    match (from, to) {
        (Utf8, Date32 | Time32(_) | Timestamp(..)) => true,
        (from, Decimal128(_, to_scale)) => digits(from).is_some_and(|(_, scale)| scale <= *to_scale) || from.is_null(),
        (List(from), List(to)) => can_assign(from.data_type(), to.data_type()),
        (Map(..), Map(..)) => match (map_parts(from), map_parts(to)) {
            (Some((from_key, from_value)), Some((to_key, to_value))) => can_assign(from_key, to_key) && can_assign(from_value, to_value),
            _ => false,
        },
        (Struct(from), Struct(to)) => from.iter().all(|field| match to.find(field.name()) {
            Some((_, to)) => can_assign(field.data_type(), to.data_type()),
            None => false,
        }),
        (from, to) => common(from, to).as_ref() == Some(to),
    }
}

/// Casts to a type.
#[derive(Debug)]
pub(super) struct Cast(pub(super) DataType);

impl Kernel for Cast {
    fn compute(&self, operands: &[ArrayRef], rows: usize, failed: &mut Vec<usize>) -> Result<ArrayRef> {
        let [operand] = operands else { return Err(DataFusionError::Internal("a cast of nothing".to_owned())) };
        cast(operand, &self.0, &mut |row| {
            if row < rows {
                failed.push(row);
            }
        })
    }
}

/// Every value as a text or another number; `failed` is told each row whose value became NULL, also one within it.
pub(super) fn cast(array: &ArrayRef, to: &DataType, failed: &mut dyn FnMut(usize)) -> Result<ArrayRef> {
    let from = array.data_type();
    if from == to {
        return Ok(Arc::clone(array));
    }
    let rows = array.len();
    match (from, to) {
        (DataType::Null, _) => Ok(new_null_array(to, rows)),
        (_, DataType::Utf8) => {
            let text = |row: usize| array.is_valid(row).then(|| text_of(array, row, false));
            Ok(Arc::new((0..rows).map(text).collect::<StringArray>()))
        }
        (DataType::List(_), DataType::List(field)) => {
            let lists = array.as_list::<i32>();
            let parents = parents(lists.value_offsets());
            let values = cast(lists.values(), field.data_type(), &mut |at| tell(&parents, at, failed))?;
            Ok(Arc::new(ListArray::try_new(Arc::clone(field), lists.offsets().clone(), values, lists.nulls().cloned())?))
        }
        (DataType::Map(..), DataType::Map(entries, _)) => {
            let maps = array.as_map();
            let (DataType::Struct(fields), Some((key, value))) = (entries.data_type(), map_parts(to)) else { return unknown(from, to) };
            let parents = parents(maps.value_offsets());
            let keys = cast(maps.keys(), key, &mut |at| tell(&parents, at, failed))?;
            let values = cast(maps.values(), value, &mut |at| tell(&parents, at, failed))?;
            let made = StructArray::try_new(fields.clone(), vec![keys, values], None)?;
            Ok(Arc::new(MapArray::try_new(Arc::clone(entries), maps.offsets().clone(), made, maps.nulls().cloned(), false)?))
        }
        (DataType::Struct(_), DataType::Struct(fields)) => {
            by_name(array.as_struct(), fields, |column, data_type| cast(column, data_type, &mut *failed))
        }
        (DataType::Utf8, _) => of_text(array.as_string::<i32>(), to, failed),
        (DataType::Timestamp(..), DataType::Date32) => {
            let days = |ms: i64| i32::try_from(ms.div_euclid(DAY_MS)).ok();
            let values = array.as_primitive::<TimestampMillisecondType>();
            Ok(Arc::new(total(values.iter(), days, failed).collect::<Date32Array>()))
        }
        (DataType::Timestamp(..), DataType::Time32(_)) => {
            let ms = |ms: i64| i32::try_from(ms.rem_euclid(DAY_MS)).ok();
            let values = array.as_primitive::<TimestampMillisecondType>();
            Ok(Arc::new(total(values.iter(), ms, failed).collect::<Time32MillisecondArray>()))
        }
        (DataType::Date32, DataType::Timestamp(..)) => {
            let ms = |days: i32| i64::from(days).checked_mul(DAY_MS);
            let values = total(array.as_primitive::<Date32Type>().iter(), ms, failed).collect::<TimestampMillisecondArray>();
            Ok(Arc::new(values.with_data_type(timestamp_type())))
        }
        _ => of_number(array, to, failed),
    }
}

fn unknown<T>(from: &DataType, to: &DataType) -> Result<T> {
    Err(DataFusionError::Internal(format!("no cast from {from} to {to}")))
}

/// For each element the row that it stands in.
fn parents(offsets: &[i32]) -> Vec<usize> {
    let mut parents = vec![usize::MAX; usize::try_from(offsets.last().copied().unwrap_or(0)).unwrap_or(0)];
    for (row, window) in offsets.windows(2).enumerate() {
        let [start, end] = window else { continue };
        let range = usize::try_from(*start).unwrap_or(0)..usize::try_from(*end).unwrap_or(0);
        if let Some(elements) = parents.get_mut(range) {
            elements.fill(row);
        }
    }
    parents
}

fn tell(parents: &[usize], element: usize, failed: &mut dyn FnMut(usize)) {
    if let Some(row) = parents.get(element).filter(|row| **row != usize::MAX) {
        failed(*row);
    }
}

/// Values that may fail, row by row.
fn total<'a, T: 'a, U: 'a>(
    values: impl Iterator<Item = Option<T>> + 'a,
    cast: impl Fn(T) -> Option<U> + 'a,
    failed: &'a mut dyn FnMut(usize),
) -> impl Iterator<Item = Option<U>> + 'a {
    values.enumerate().map(move |(row, value)| {
        let given = cast(value?);
        if given.is_none() {
            failed(row);
        }
        given
    })
}

fn of_number(array: &ArrayRef, to: &DataType, failed: &mut dyn FnMut(usize)) -> Result<ArrayRef> {
    let (from, rows) = (array.data_type(), array.len());
    let scaled = |row: usize| match from {
        DataType::Int32 => (i128::from(array.as_primitive::<Int32Type>().value(row)), 0),
        DataType::Int64 => (i128::from(array.as_primitive::<Int64Type>().value(row)), 0),
        DataType::Decimal128(_, scale) => (array.as_primitive::<Decimal128Type>().value(row), *scale),
        _ => (0, 0),
    };
    let double = |row: usize| array.as_primitive::<Float64Type>().value(row);
    let is_double = *from == DataType::Float64;
    if !is_double && !matches!(from, DataType::Int32 | DataType::Int64 | DataType::Decimal128(..)) {
        return unknown(from, to);
    }
    let whole = |row: usize| {
        let (value, scale) = scaled(row);
        value / power(scale)
    };
    let each = (0..rows).map(|row| array.is_valid(row).then_some(row));
    #[expect(clippy::cast_possible_truncation, reason = "integers wrap and DOUBLE saturates, as in Java")]
    Ok(match to {
        DataType::Int32 => {
            let cast = |row| Some(if is_double { double(row) as i32 } else { whole(row) as i32 });
            Arc::new(total(each, cast, failed).collect::<Int32Array>())
        }
        DataType::Int64 => {
            let cast = |row| Some(if is_double { double(row) as i64 } else { whole(row) as i64 });
            Arc::new(total(each, cast, failed).collect::<Int64Array>())
        }
        DataType::Float64 => {
            let cast = |row| {
                if is_double {
                    return Some(double(row));
                }
                let (value, scale) = scaled(row);
                written::decimal(value, scale).parse::<f64>().ok()
            };
            Arc::new(total(each, cast, failed).collect::<Float64Array>())
        }
        DataType::Decimal128(precision, scale) => {
            let cast = |row| {
                if is_double {
                    return decimal_of(&written::double(double(row)), *precision, *scale);
                }
                let (value, given) = scaled(row);
                rescaled(value, given, *precision, *scale)
            };
            let values = total(each, cast, failed).collect::<Decimal128Array>();
            Arc::new(values.with_data_type(to.clone()))
        }
        _ => return unknown(from, to),
    })
}

fn of_text(texts: &StringArray, to: &DataType, failed: &mut dyn FnMut(usize)) -> Result<ArrayRef> {
    Ok(match to {
        DataType::Boolean => {
            Arc::new(total(texts.iter(), |text| Some(text.trim().eq_ignore_ascii_case("true")), failed).collect::<BooleanArray>())
        }
        DataType::Int32 => Arc::new(total(texts.iter(), |text| text.trim().parse().ok(), failed).collect::<Int32Array>()),
        DataType::Int64 => Arc::new(total(texts.iter(), |text| text.trim().parse().ok(), failed).collect::<Int64Array>()),
        DataType::Float64 => Arc::new(total(texts.iter(), |text| double_of(text.trim()), failed).collect::<Float64Array>()),
        DataType::Decimal128(precision, scale) => {
            let values = total(texts.iter(), |text| decimal_of(text.trim(), *precision, *scale), failed).collect::<Decimal128Array>();
            Arc::new(values.with_data_type(to.clone()))
        }
        DataType::Date32 => Arc::new(total(texts.iter(), date_of, failed).collect::<Date32Array>()),
        DataType::Time32(TimeUnit::Millisecond) => {
            let ms = |text: &str| time_of(text.trim()).and_then(|ms| i32::try_from(ms).ok());
            Arc::new(total(texts.iter(), ms, failed).collect::<Time32MillisecondArray>())
        }
        DataType::Timestamp(..) => {
            let values = total(texts.iter(), timestamp_of, failed).collect::<TimestampMillisecondArray>();
            Arc::new(values.with_data_type(to.clone()))
        }
        other => return unknown(&DataType::Utf8, other),
    })
}

/// A DOUBLE in Java's words: `1.5`, `1e3`, `NaN`, `Infinity`.
fn double_of(text: &str) -> Option<f64> {
    let unsigned = text.trim_start_matches(['+', '-']);
    match unsigned {
        "NaN" => return Some(f64::NAN),
        "Infinity" => return Some(if text.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY }),
        _ => {}
    }
    let number = text.strip_suffix(['d', 'D', 'f', 'F']).unwrap_or(text);
    number.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte)).then(|| number.parse().ok()).flatten()
}

/// The unscaled value of a decimal text, rounded half up to the scale; none if it is no number or has too many digits.
pub(super) fn decimal_of(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (sign, digits) = match mantissa.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{whole}{fraction}");
    if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let significant = all.trim_start_matches('0');
    if significant.is_empty() {
        return Some(0);
    }
    // The value is `significant * 10^power`; what lies beyond the scale decides how it is rounded.
    let power = exponent.checked_sub(i32::try_from(fraction.len()).ok()?)?.checked_add(i32::from(scale))?;
    let most = i32::from(precision);
    let length = i32::try_from(significant.len()).ok()?;
    if power.checked_add(length)? > most {
        return None;
    }
    let value: i128 = if power >= 0 {
        significant.parse::<i128>().ok()?.checked_mul(10_i128.checked_pow(u32::try_from(power).ok()?)?)?
    } else {
        let kept = length + power;
        let (head, rounding) = match usize::try_from(kept) {
            Ok(kept) => (significant.get(..kept)?, significant.as_bytes().get(kept).copied()),
            Err(_) => ("", None),
        };
        let head: i128 = if head.is_empty() { 0 } else { head.parse().ok()? };
        head + i128::from(rounding.is_some_and(|digit| digit >= b'5'))
    };
    fits(sign * value, precision)
}

fn fits(value: i128, precision: u8) -> Option<i128> {
    (value.unsigned_abs() < 10_u128.checked_pow(u32::from(precision))?).then_some(value)
}

/// An unscaled value in another scale, rounded half up.
fn rescaled(value: i128, from: i8, precision: u8, to: i8) -> Option<i128> {
    if to >= from {
        return fits(value.checked_mul(10_i128.checked_pow(u32::try_from(to - from).ok()?)?)?, precision);
    }
    let divisor = 10_i128.checked_pow(u32::try_from(from - to).ok()?)?;
    let (quotient, rest) = (value / divisor, value % divisor);
    let rounded = if rest.unsigned_abs() * 2 >= divisor.unsigned_abs() { quotient + value.signum() } else { quotient };
    fits(rounded, precision)
}

fn power(scale: i8) -> i128 {
    10_i128.checked_pow(u32::try_from(scale).unwrap_or(0)).unwrap_or(i128::MAX)
}

/// A value as Java writes it: `[1, 2]`, `{k=v}`, `Struct{F=1,G=2}`.
fn text_of(array: &ArrayRef, row: usize, is_within: bool) -> String {
    if array.is_null(row) {
        return "null".to_owned();
    }
    match array.data_type() {
        DataType::Boolean => array.as_boolean().value(row).to_string(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Float64 => written::double(array.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(_, scale) => written::decimal(array.as_primitive::<Decimal128Type>().value(row), *scale),
        DataType::Utf8 => array.as_string::<i32>().value(row).to_owned(),
        DataType::Date32 => date_text(array.as_primitive::<Date32Type>().value(row)),
        DataType::Time32(_) => time_text(array.as_primitive::<Time32MillisecondType>().value(row)),
        DataType::Timestamp(..) => timestamp_text(array.as_primitive::<TimestampMillisecondType>().value(row)),
        DataType::List(_) => {
            let values = array.as_list::<i32>().value(row);
            let each: Vec<String> = (0..values.len()).map(|at| text_of(&values, at, true)).collect();
            format!("[{}]", each.join(", "))
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            let [keys, values] = entries.columns() else { return String::new() };
            let entry = |at: usize| format!("{}={}", text_of(keys, at, true), text_of(values, at, true));
            let each: Vec<String> = (0..entries.len()).map(entry).collect();
            format!("{{{}}}", each.join(", "))
        }
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            let each = fields.iter().zip(columns).filter(|(_, column)| column.is_valid(row));
            let each: Vec<String> = each.map(|(field, column)| format!("{}={}", field.name(), text_of(column, row, true))).collect();
            format!("Struct{{{}}}", each.join(","))
        }
        other => format!("{other}{}", if is_within { "" } else { " value" }),
    }
}

fn date_text(days: i32) -> String {
    let date = chrono::NaiveDate::from_ymd_opt(1970, 1, 1).and_then(|epoch| epoch.checked_add_signed(chrono::Duration::days(days.into())));
    date.map_or_else(|| days.to_string(), |date| date.format("%Y-%m-%d").to_string())
}

fn time_text(ms: i32) -> String {
    let (ms, of_second) = (ms.rem_euclid(86_400_000), ms.rem_euclid(1_000));
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    match (seconds, of_second) {
        (0, 0) => format!("{hours:02}:{minutes:02}"),
        (_, 0) => format!("{hours:02}:{minutes:02}:{seconds:02}"),
        _ => format!("{hours:02}:{minutes:02}:{seconds:02}.{of_second:03}"),
    }
}

fn timestamp_text(ms: i64) -> String {
    DateTime::from_timestamp_millis(ms).map_or_else(|| ms.to_string(), |time| time.format("%Y-%m-%dT%H:%M:%S%.3f").to_string())
}

/// Days since 1970 of `yyyy-MM-dd`, `yyyy-MM` or `yyyy`.
pub(super) fn date_of(text: &str) -> Option<i32> {
    let date = partial_date(text.trim())?;
    i32::try_from(date.signed_duration_since(NaiveDate::from_ymd_opt(1970, 1, 1)?).num_days()).ok()
}

fn partial_date(text: &str) -> Option<NaiveDate> {
    let mut parts = text.split('-');
    let year = parts.next().filter(|year| year.len() == 4)?.parse().ok()?;
    let mut part = || match parts.next() {
        None => Some(1),
        Some(two) if two.len() <= 2 => two.parse().ok(),
        Some(_) => None,
    };
    let (month, day) = (part()?, part()?);
    if parts.next().is_some() { None } else { NaiveDate::from_ymd_opt(year, month, day) }
}

/// Milliseconds of the day of `HH:mm:ss.SSS`, of which the end may be left out.
pub(super) fn time_of(text: &str) -> Option<i64> {
    let (text, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut parts = text.split(':').map(|part| part.parse::<u32>().ok().filter(|_| part.len() <= 2));
    let (hours, minutes, seconds) = (parts.next()??, parts.next().unwrap_or(Some(0))?, parts.next().unwrap_or(Some(0))?);
    if parts.next().is_some() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) || fraction.len() > 9 {
        return None;
    }
    let ms: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    let time = NaiveTime::from_hms_opt(hours, minutes, seconds)?;
    Some(time.signed_duration_since(NaiveTime::MIN).num_milliseconds() + ms)
}

/// Milliseconds since 1970 of an ISO time of which the end may be left out, in UTC unless it ends with a zone.
pub(super) fn timestamp_of(text: &str) -> Option<i64> {
    let text = text.trim();
    let (date, rest) = match text.split_once('T') {
        Some((date, rest)) => (date, rest),
        None => (text, ""),
    };
    let zone_at = rest.find(['Z', '+', '-']).or_else(|| rest.find(|one: char| one.is_ascii_alphabetic()));
    let (time, zone) = zone_at.map_or((rest, ""), |at| rest.split_at(at));
    let date = partial_date(date)?;
    let ms = if time.is_empty() { 0 } else { time_of(time)? };
    let local = NaiveDateTime::new(date, NaiveTime::MIN).checked_add_signed(chrono::Duration::milliseconds(ms))?;
    if date.year() < 0 {
        return None;
    }
    let offset = match zone {
        "" | "Z" => Utc.fix(),
        named => match offset_of(named) {
            Some(offset) => offset,
            None => {
                let zone: chrono_tz::Tz = named.parse().ok()?;
                zone.from_local_datetime(&local).earliest()?.offset().fix()
            }
        },
    };
    Some(local.and_utc().timestamp_millis() - i64::from(offset.local_minus_utc()) * 1_000)
}

/// `+HH`, `+HHmm` or `+HH:mm`.
fn offset_of(text: &str) -> Option<FixedOffset> {
    let (sign, digits) = text.split_at_checked(1)?;
    let sign = match sign {
        "+" => 1,
        "-" => -1,
        _ => return None,
    };
    let digits = digits.replace(':', "");
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (hours, minutes) = match digits.len() {
        2 => (digits.parse::<i32>().ok()?, 0),
        4 => (digits.get(..2)?.parse().ok()?, digits.get(2..)?.parse().ok()?),
        _ => return None,
    };
    FixedOffset::east_opt(sign * (hours * 3_600 + minutes * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_of_texts_are_rounded_half_up() {
        for (text, expected) in [
            ("1.005", Some(101)),
            ("-1.005", Some(-101)),
            ("1.004", Some(100)),
            ("1e2", Some(10_000)),
            ("12345e-4", Some(123)),
            ("99999.99", None),
            ("0.000", Some(0)),
            ("", None),
            (".5", Some(50)),
            ("1.", Some(100)),
            ("1,5", None),
            ("0.001", Some(0)),
        ] {
            assert_eq!(decimal_of(text, 6, 2), expected, "{text}");
        }
        assert_eq!((rescaled(125, 2, 5, 1), rescaled(-125, 2, 5, 1), rescaled(99, 1, 2, 2)), (Some(13), Some(-13), None));
    }

    #[test]
    fn times_may_lack_their_end() {
        for (text, expected) in [
            ("1970-01-01T00:00:00.001", Some(1)),
            ("1970-01-01T01", Some(3_600_000)),
            ("1970-01-02", Some(DAY_MS)),
            ("1970", Some(0)),
            ("1970-02", Some(31 * DAY_MS)),
            ("1970-01-01T00:00:00+0100", Some(-3_600_000)),
            ("1970-01-01T02:00+02:00", Some(0)),
            ("1970-01-01T00:00Z", Some(0)),
            ("1970-13-01", None),
            ("70-01-01", None),
            ("x", None),
        ] {
            assert_eq!(timestamp_of(text), expected, "{text}");
        }
        assert_eq!((time_text(0), time_text(61_000), time_text(1)), ("00:00".to_owned(), "00:01:01".to_owned(), "00:00:00.001".to_owned()));
    }

    #[test]
    fn of_a_nested_value_only_the_element_that_fails_is_null() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("1"), Some("x"), None, Some(" 4 ")]));
        let field = Arc::new(arrow::datatypes::Field::new("item", DataType::Utf8, true));
        let lists: ArrayRef = Arc::new(ListArray::try_new(field, arrow::buffer::OffsetBuffer::from_lengths([2, 2]), texts, None).unwrap());
        let mut failed = Vec::new();
        let to = crate::catalog::types::array_of(DataType::Int32);
        let cast = Cast(to).compute(&[lists], 2, &mut failed).unwrap();
        let values = cast.as_list::<i32>().values().clone();
        assert_eq!(values.as_primitive::<Int32Type>().iter().collect::<Vec<_>>(), [Some(1), None, None, Some(4)]);
        assert_eq!(failed, [0]);
        assert_eq!(text_of(&cast, 1, false), "[null, 4]");
    }
}
