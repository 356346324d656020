//! Values of parameters as the command line writes them: a number, `true`, `false`, `null` or text; or the type before a colon.
//!
//! Pure. A value never becomes a part of the statement's text.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use foldlog_sdk::Value;

use crate::cli::output::text::parse_time;

const DAY_MS: i64 = 86_400_000;

/// How values are written.
pub const HELP: &str = "Value of the next parameter, $1, $2, ..., of a single statement: a number, true, false, null or text, or \
                        TYPE:VALUE with boolean, bigint, double, decimal, text, bytes (Base64), date, time or timestamp, or a type as \
                        'array<int>' before JSON";

/// Reads a value.
///
/// # Errors
/// What a value of its type looks like.
pub fn parse_param(text: &str) -> Result<Value, String> {
    match text.split_once(':') {
        Some((name, value)) => typed(name, value).unwrap_or_else(|| Ok(Value::Text(text.to_owned()))),
        None => Ok(plain(text)),
    }
}

/// A value that says nothing about its type.
fn plain(text: &str) -> Value {
    match text {
        "true" => Value::Boolean(true),
        "false" => Value::Boolean(false),
        "null" => Value::Null,
        _ => match text.parse() {
            Ok(number) => Value::Integer(number),
            Err(_) if is_decimal(text) => Value::Decimal(text.to_owned()),
            Err(_) => Value::Text(text.to_owned()),
        },
    }
}

/// A value behind the name of its type; none if that is no name of a type.
fn typed(name: &str, value: &str) -> Option<Result<Value, String>> {
    let read = |given: Option<Value>, like: &str| given.ok_or_else(|| format!("{value:?} is no {name}, which is like {like}"));
    Some(match name {
        "text" => Ok(Value::Text(value.to_owned())),
        "boolean" => read(value.parse().ok().map(Value::Boolean), "true"),
        "bigint" => read(value.parse().ok().map(Value::Integer), "-42"),
        "double" => read(value.parse().ok().map(Value::Double), "1.5e3"),
        "decimal" => read(is_decimal(value).then(|| Value::Decimal(value.to_owned())), "12.50"),
        "bytes" => read(BASE64_STANDARD.decode(value).ok().map(|bytes| Value::Binary(bytes.into())), "AAH/ (Base64)"),
        "date" => read(parse_time(&format!("{value}T00:00:00Z")).map(|ms| Value::Date(ms.div_euclid(DAY_MS))), "2013-02-09"),
        "time" => read(parse_time(&format!("1970-01-01T{value}Z")).map(Value::TimeMs), "10:15:00"),
        "timestamp" => read(parse_time(value).map(Value::TimestampMs), "2013-02-09T10:15:00Z"),
        // The server knows its types.
        nested if is_nested(nested) => Ok(Value::Nested { sql_type: nested.to_owned(), json: value.to_owned() }),
        _ => return None,
    })
}

/// Whether it is written like `array<...>`, `map<...>` or `struct<...>`.
fn is_nested(name: &str) -> bool {
    let begins = |kind: &str| name.get(..kind.len()).is_some_and(|start| start.eq_ignore_ascii_case(kind));
    name.ends_with('>') && ["array<", "map<", "struct<"].into_iter().any(begins)
}

/// Whether it is a number with digits, perhaps a sign and a point.
fn is_decimal(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    !whole.is_empty() && all(whole) && all(fraction) && (1..=38).contains(&(whole.len() + fraction.len())) && !digits.ends_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_the_type_that_it_looks_like_or_says() {
        let read = |text: &str| parse_param(text).unwrap();
        assert_eq!(read("42"), Value::Integer(42));
        assert_eq!(read("-1.50"), Value::Decimal("-1.50".to_owned()));
        assert_eq!(read("true"), Value::Boolean(true));
        assert_eq!(read("null"), Value::Null);
        assert_eq!(read("ann"), Value::Text("ann".to_owned()));
        assert_eq!(read(""), Value::Text(String::new()));
        assert_eq!(read("text:42"), Value::Text("42".to_owned()));
        assert_eq!(read("order:42"), Value::Text("order:42".to_owned()), "no type of that name");
        assert_eq!(read("1.2.3"), Value::Text("1.2.3".to_owned()));
        assert_eq!(read("double:1e3"), Value::Double(1000.0));
        assert_eq!(read("bytes:AAH/"), Value::Binary(vec![0, 1, 0xff].into()));
        assert_eq!(read("date:1970-01-02"), Value::Date(1));
        assert_eq!(read("time:00:00:01.5"), Value::TimeMs(1_500));
        assert_eq!(read("timestamp:1970-01-01T00:00:01Z"), Value::TimestampMs(1_000));
        let nested = |sql_type: &str, json: &str| Value::Nested { sql_type: sql_type.to_owned(), json: json.to_owned() };
        assert_eq!(read("array<int>:[1, 2]"), nested("array<int>", "[1, 2]"));
        assert_eq!(read("MAP<VARCHAR, INT>:{\"a\":1}"), nested("MAP<VARCHAR, INT>", "{\"a\":1}"));
        assert_eq!(read("a<b>:c"), Value::Text("a<b>:c".to_owned()));
        assert_eq!(read("decimal:5"), Value::Decimal("5".to_owned()));
    }

    #[test]
    fn what_does_not_fit_its_type_is_refused() {
        assert_eq!(parse_param("bigint:x").unwrap_err(), "\"x\" is no bigint, which is like -42");
        for bad in ["boolean:yes", "double:", "decimal:1e3", "bytes:*", "date:2013-02-30", "time:25:00:00", "timestamp:now"] {
            assert!(parse_param(bad).is_err(), "{bad}");
        }
    }
}
