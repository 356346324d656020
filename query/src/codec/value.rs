//! One value as text or JSON has it, as a value of one of our types.
//!
//! A value that does not fit is an error with the reason. Read exactly, nothing is rounded, cut or wrapped to make it fit;
//! read with coercion, text counts as the number that it spells, and integers take what is left of a number.

use arrow::{array::timezone::Tz, compute::kernels::cast_utils::string_to_datetime};
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use chrono::{NaiveDate, NaiveTime, Timelike as _};

use super::json::{Kind, Value, unescape};
use crate::catalog::Reading;

/// Why a value does not fit.
pub(super) type Reason = &'static str;

/// Milliseconds of a day.
const DAY_MS: i32 = 86_400_000;

/// Base64 as RFC 4648 has it, read with or without padding.
pub(super) const BASE64: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

pub(super) fn boolean(value: Value<'_>) -> Result<bool, Reason> {
    match value.kind {
        Kind::True => Ok(true),
        Kind::False => Ok(false),
        Kind::Null | Kind::Number | Kind::Plain | Kind::Escaped | Kind::Nested => Err("not a BOOLEAN"),
    }
}

pub(super) fn int32(value: Value<'_>, reading: Reading) -> Result<i32, Reason> {
    const OUT_OF_RANGE: Reason = "out of the range of INTEGER";
    match (reading, value.kind) {
        (Reading::Coerced, Kind::Number) =>
        {
            #[expect(clippy::cast_possible_truncation, reason = "what is left of the number is what counts")]
            integer(value, reading, "not an INTEGER").map(|wide| wide as i32)
        }
        (Reading::Exact | Reading::Coerced, _) => i32::try_from(integer(value, reading, "not an INTEGER")?).map_err(|_| OUT_OF_RANGE),
    }
}

pub(super) fn int64(value: Value<'_>, reading: Reading) -> Result<i64, Reason> {
    integer(value, reading, "not a BIGINT")
}

fn integer(value: Value<'_>, reading: Reading, wrong: Reason) -> Result<i64, Reason> {
    match (value.kind, reading) {
        (Kind::Number, Reading::Exact) => match value.raw.parse() {
            Ok(number) => Ok(number),
            // 1e3 and 2.0 are integers, written otherwise; 1.5 is none.
            Err(_) => i64::try_from(scaled(value.raw, 0)?).map_err(|_| "out of the range of BIGINT"),
        },
        (Kind::Number, Reading::Coerced) => match value.raw.parse() {
            Ok(number) => Ok(number),
            #[expect(clippy::cast_possible_truncation, reason = "what is left of the number is what counts")]
            Err(_) => digits(value.raw, 0, Fraction::Cut).map(|number| number as i64),
        },
        (Kind::Plain, Reading::Coerced) => value.raw.parse().map_err(|_| wrong),
        _ => Err(wrong),
    }
}

pub(super) fn double(value: Value<'_>, reading: Reading) -> Result<f64, Reason> {
    const WRONG: Reason = "not a DOUBLE";
    match value.kind {
        Kind::Number => {
            let number: f64 = value.raw.parse().map_err(|_| WRONG)?;
            if number.is_finite() || reading == Reading::Coerced { Ok(number) } else { Err("out of the range of DOUBLE") }
        }
        Kind::Plain => match (value.raw, reading) {
            // JSON has no numbers for these.
            ("NaN", _) => Ok(f64::NAN),
            ("Infinity" | "+Infinity", _) => Ok(f64::INFINITY),
            ("-Infinity", _) => Ok(f64::NEG_INFINITY),
            (text, Reading::Coerced) => number_text(text.trim()).ok_or(WRONG)?.parse().map_err(|_| WRONG),
            (_, Reading::Exact) => Err(WRONG),
        },
        Kind::Null | Kind::True | Kind::False | Kind::Escaped | Kind::Nested => Err(WRONG),
    }
}

/// The text if it is made as numbers are: Rust would also read `inf` and the like.
fn number_text(text: &str) -> Option<&str> {
    let is_made_so = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
    Some(text).filter(|_| is_made_so)
}

pub(super) fn decimal(value: Value<'_>, precision: u8, scale: i8) -> Result<i128, Reason> {
    if !matches!(value.kind, Kind::Number | Kind::Plain) {
        return Err("not a DECIMAL");
    }
    let number = scaled(value.raw, i32::from(scale))?;
    let fits = 10_u128.checked_pow(u32::from(precision)).is_none_or(|limit| number.unsigned_abs() < limit);
    if fits { Ok(number) } else { Err("has more digits than its DECIMAL") }
}

/// Milliseconds since 1970, as a number or as ISO 8601 writes them.
pub(super) fn timestamp(value: Value<'_>, reading: Reading) -> Result<i64, Reason> {
    match value.kind {
        Kind::Number => integer(value, reading, "not a TIMESTAMP"),
        Kind::Plain => {
            if let (Reading::Coerced, Ok(ms)) = (reading, value.raw.parse()) {
                return Ok(ms);
            }
            let utc: Tz = "+00:00".parse().map_err(|_| "no time zone")?;
            string_to_datetime(&utc, value.raw).map(|time| time.timestamp_millis()).map_err(|_| "not a TIMESTAMP as ISO 8601 writes it")
        }
        Kind::Null | Kind::True | Kind::False | Kind::Escaped | Kind::Nested => Err("not a TIMESTAMP"),
    }
}

/// Days since 1970, as a number or as ISO 8601 writes them.
pub(super) fn date(value: Value<'_>, reading: Reading) -> Result<i32, Reason> {
    let days = match value.kind {
        Kind::Number => integer(value, reading, "not a DATE")?,
        Kind::Plain => match (reading, value.raw.parse()) {
            (Reading::Coerced, Ok(days)) => days,
            _ => {
                let date = NaiveDate::parse_from_str(value.raw, "%Y-%m-%d").map_err(|_| "not a DATE as ISO 8601 writes it")?;
                date.signed_duration_since(NaiveDate::default()).num_days()
            }
        },
        Kind::Null | Kind::True | Kind::False | Kind::Escaped | Kind::Nested => return Err("not a DATE"),
    };
    i32::try_from(days).map_err(|_| "out of the range of DATE")
}

/// Milliseconds of the day, as a number or as ISO 8601 writes them.
pub(super) fn time(value: Value<'_>, reading: Reading) -> Result<i32, Reason> {
    let ms = match value.kind {
        Kind::Number => integer(value, reading, "not a TIME")?,
        Kind::Plain => match (reading, value.raw.parse()) {
            (Reading::Coerced, Ok(ms)) => ms,
            _ => {
                let parse = |pattern| NaiveTime::parse_from_str(value.raw, pattern);
                let time = parse("%H:%M:%S%.f").or_else(|_| parse("%H:%M")).map_err(|_| "not a TIME as ISO 8601 writes it")?;
                i64::from(time.num_seconds_from_midnight()) * 1_000 + i64::from(time.nanosecond() / 1_000_000)
            }
        },
        Kind::Null | Kind::True | Kind::False | Kind::Escaped | Kind::Nested => return Err("not a TIME"),
    };
    i32::try_from(ms).ok().filter(|ms| (0..DAY_MS).contains(ms)).ok_or("out of the range of TIME, which is 0 to 86399999 ms")
}

/// What Base64 stands for.
pub(super) fn bytes(value: Value<'_>) -> Result<Vec<u8>, Reason> {
    const WRONG: Reason = "not BYTES in Base64";
    match value.kind {
        Kind::Plain => BASE64.decode(value.raw).map_err(|_| WRONG),
        Kind::Escaped => BASE64.decode(unescape(value.raw).ok_or(WRONG)?).map_err(|_| WRONG),
        Kind::Null | Kind::True | Kind::False | Kind::Number | Kind::Nested => Err(WRONG),
    }
}

/// The number that `text` spells, times ten to the power of `scale`, exactly.
fn scaled(text: &str, scale: i32) -> Result<i128, Reason> {
    digits(text, scale, Fraction::Refused)
}

/// What happens to decimal places that a type does not have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fraction {
    Refused,
    Cut,
}

fn digits(text: &str, scale: i32, beyond: Fraction) -> Result<i128, Reason> {
    const NOT_A_NUMBER: Reason = "not a number";
    const TOO_FINE: Reason = "has more decimal places than its type";
    const TOO_LARGE: Reason = "out of range";
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
    if whole.len() + fraction.len() == 0 || !digits().all(|byte| byte.is_ascii_digit()) {
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
        } else if digit != 0 && beyond == Fraction::Refused {
            return Err(TOO_FINE);
        }
    }
    if let Ok(fill) = u32::try_from(shift) {
        number = 10_i128.checked_pow(fill).and_then(|power| number.checked_mul(power)).ok_or(TOO_LARGE)?;
    }
    Ok(if negative { -number } else { number })
}
