//! Values as ksqlDB writes them: DOUBLE as Java does, and any value as JSON.

use std::fmt::Write as _;

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::{DataType, Date32Type, Decimal128Type, Float64Type, Int32Type, Int64Type, Time32MillisecondType, TimestampMillisecondType},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::DateTime;
use datafusion::common::Result;

use super::{
    calendar::{date_of, time_of},
    input::internal,
};

/// A DOUBLE as Java's `Double.toString` writes it: `1.0`, `1.0E10`, `NaN`, `-Infinity`.
pub(crate) fn double(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let size = number.abs();
    if size == 0.0 || (1e-3..1e7).contains(&size) {
        return format!("{number:?}");
    }
    // Of several texts that are read again the same, the nearest with two digits goes before the one with a single digit.
    let two = format!("{number:.1e}");
    let written = if two.parse() == Ok(number) { two } else { format!("{number:e}") };
    let (mantissa, exponent) = written.split_once('e').unwrap_or((&written, "0"));
    let point = if mantissa.contains('.') { "" } else { ".0" };
    format!("{mantissa}{point}E{exponent}")
}

/// A DECIMAL with all digits of its scale.
pub(crate) fn decimal(digits: i128, scale: i8) -> String {
    let Some(places) = usize::try_from(scale).ok().filter(|places| *places > 0) else {
        let zeros = "0".repeat(usize::from(scale.unsigned_abs()));
        return if digits == 0 { "0".to_owned() } else { format!("{digits}{zeros}") };
    };
    let (sign, all) = (if digits < 0 { "-" } else { "" }, format!("{:0>width$}", digits.unsigned_abs(), width = places + 1));
    let (whole, fraction) = all.split_at(all.len() - places);
    format!("{sign}{whole}.{fraction}")
}

/// Appends a value as JSON; keys of maps and names of fields in their order.
///
/// # Errors
/// For a type that our SQL does not have.
pub(super) fn json(values: &ArrayRef, at: usize, text: &mut String) -> Result<()> {
    if values.is_null(at) {
        text.push_str("null");
        return Ok(());
    }
    match values.data_type() {
        DataType::Boolean => text.push_str(if values.as_boolean().value(at) { "true" } else { "false" }),
        DataType::Int32 => push(text, values.as_primitive::<Int32Type>().value(at)),
        DataType::Int64 => push(text, values.as_primitive::<Int64Type>().value(at)),
        DataType::Float64 => {
            let number = values.as_primitive::<Float64Type>().value(at);
            if number.is_finite() { text.push_str(&double(number)) } else { quoted(&double(number), text) }
        }
        DataType::Decimal128(_, scale) => text.push_str(&decimal(values.as_primitive::<Decimal128Type>().value(at), *scale)),
        DataType::Utf8 => quoted(values.as_string::<i32>().value(at), text),
        DataType::Binary => quoted(&STANDARD.encode(values.as_binary::<i32>().value(at)), text),
        DataType::Date32 => match date_of(values.as_primitive::<Date32Type>().value(at)) {
            Some(date) => quoted(&date.to_string(), text),
            None => text.push_str("null"),
        },
        DataType::Time32(_) => match time_of(values.as_primitive::<Time32MillisecondType>().value(at)) {
            Some(time) => quoted(&time_text(time), text),
            None => text.push_str("null"),
        },
        DataType::Timestamp(..) => match DateTime::from_timestamp_millis(values.as_primitive::<TimestampMillisecondType>().value(at)) {
            Some(moment) => quoted(&moment.format("%Y-%m-%dT%H:%M:%S%.3f").to_string(), text),
            None => text.push_str("null"),
        },
        DataType::List(_) => {
            let elements = values.as_list::<i32>().value(at);
            text.push('[');
            for place in 0..elements.len() {
                text.push_str(if place > 0 { "," } else { "" });
                json(&elements, place, text)?;
            }
            text.push(']');
        }
        DataType::Map(..) => {
            let entries = values.as_map().value(at);
            let (keys, of_keys) = (entries.column(0), entries.column(1));
            let Some(names) = keys.as_string_opt::<i32>() else { return internal(format!("a map by {}", keys.data_type())) };
            let named = (0..names.len()).map(|place| (names.value(place).to_owned(), place)).collect();
            object(named, |place, text| json(of_keys, place, text), text)?;
        }
        DataType::Struct(fields) => {
            let columns = values.as_struct().columns();
            let named = fields.iter().enumerate().map(|(place, field)| (field.name().clone(), place)).collect();
            object(named, |place, text| columns.get(place).map_or(Ok(()), |column| json(column, at, text)), text)?;
        }
        other => return internal(format!("no JSON of {other}")),
    }
    Ok(())
}

fn object(mut named: Vec<(String, usize)>, mut value: impl FnMut(usize, &mut String) -> Result<()>, text: &mut String) -> Result<()> {
    named.sort();
    text.push('{');
    for (at, (name, place)) in named.into_iter().enumerate() {
        text.push_str(if at > 0 { "," } else { "" });
        quoted(&name, text);
        text.push(':');
        value(place, text)?;
    }
    text.push('}');
    Ok(())
}

fn push(text: &mut String, number: impl std::fmt::Display) {
    // Writing to a text does not fail.
    let _ = write!(text, "{number}");
}

/// A text in JSON's quotes.
pub(super) fn quoted(text: &str, to: &mut String) {
    to.push('"');
    for one in text.chars() {
        match one {
            '"' => to.push_str("\\\""),
            '\\' => to.push_str("\\\\"),
            '\n' => to.push_str("\\n"),
            '\r' => to.push_str("\\r"),
            '\t' => to.push_str("\\t"),
            '\u{8}' => to.push_str("\\b"),
            '\u{c}' => to.push_str("\\f"),
            control if u32::from(control) < 0x20 => {
                let _ = write!(to, "\\u{:04x}", u32::from(control));
            }
            other => to.push(other),
        }
    }
    to.push('"');
}

/// A time as short as it can be said: without seconds and milliseconds that are zero.
fn time_text(time: chrono::NaiveTime) -> String {
    use chrono::Timelike as _;
    let pattern = match (time.second(), time.nanosecond()) {
        (0, 0) => "%H:%M",
        (_, 0) => "%H:%M:%S",
        _ => "%H:%M:%S%.3f",
    };
    time.format(pattern).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_java_writes_them() {
        for (number, text) in [
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
            (1e7, "1.0E7"),
            (9_999_999.0, "9999999.0"),
            (1.5e-4, "1.5E-4"),
            (0.001, "0.001"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
            (1.234e300, "1.234E300"),
        ] {
            assert_eq!(double(number), text);
        }
        for (digits, scale, text) in [(150, 2, "1.50"), (-5, 2, "-0.05"), (0, 2, "0.00"), (7, 0, "7"), (7, -2, "700")] {
            assert_eq!(decimal(digits, scale), text);
        }
    }
}
