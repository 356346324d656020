//! Formats of values as the oracle reads them: JSON objects, lines of values between delimiters, single values as Kafka's own
//! serialisers write them. Written anew, as `SEMANTICS.md` has them.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use foldlog_log::testing::Random;

use super::{
    grammar::{Rules, chance, one_of},
    schema::Column,
    value::{Json, Lost, Type, Value, decode, exact_decimal},
};

/// How the values of a source's records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    /// A JSON value of its own, where there is one column.
    Bare,
    Delimited(char),
    Kafka,
}

/// What a record's value is.
pub enum Content {
    /// There is none.
    Absent,
    Values(Vec<Value>),
}

const DELIMITERS: [(char, &str); 4] = [(',', ","), ('|', "|"), ('\t', "TAB"), (';', ";")];

impl Format {
    /// One that can hold such columns.
    pub fn any(random: &mut Random, values: &[&Column]) -> Self {
        let is_flat = values.iter().all(|column| !column.of.is_nested());
        match values {
            [one] if is_kafkas(&one.of) && chance(random, 30) => Self::Kafka,
            [_] if chance(random, 25) => Self::Bare,
            _ if is_flat && chance(random, 25) => Self::Delimited(one_of(random, &DELIMITERS).0),
            _ => Self::Json,
        }
    }

    /// What WITH says of it.
    pub fn options(self) -> String {
        let name = |delimiter: char| DELIMITERS.iter().find(|one| one.0 == delimiter).map_or("", |one| one.1);
        match self {
            Self::Json => "value_format = 'JSON'".to_owned(),
            Self::Bare => "value_format = 'JSON', wrap_single_value = false".to_owned(),
            Self::Delimited(delimiter) => format!("value_format = 'DELIMITED', value_delimiter = '{}'", name(delimiter)),
            Self::Kafka => "value_format = 'kafka'".to_owned(),
        }
    }

    /// The values of such columns; none if the record is left out.
    pub fn read(self, bytes: Option<&[u8]>, columns: &[&Column], rules: Rules) -> Option<Content> {
        let Some(bytes) = bytes else { return Some(Content::Absent) };
        let values = match self {
            Self::Json => {
                let json = Json::parse(bytes);
                if json == Some(Json::Null) {
                    return Some(Content::Absent);
                }
                let object = json.filter(|json| matches!(json, Json::Object(_)))?;
                columns.iter().map(|column| decode(object.field(&column.name), &column.of, rules)).collect::<Result<_, _>>().ok()?
            }
            Self::Bare => vec![decode(Some(&Json::parse(bytes)?), &columns[0].of, rules).ok()?],
            Self::Delimited(delimiter) => {
                let cells = split(std::str::from_utf8(bytes).ok()?, delimiter)?;
                if cells.len() != columns.len() {
                    return None;
                }
                cells.iter().zip(columns).map(|(cell, column)| of_cell(cell, &column.of, rules)).collect::<Result<_, _>>().ok()?
            }
            Self::Kafka => vec![of_bytes(bytes, &columns[0].of, rules).ok()?],
        };
        Some(Content::Values(values))
    }

    /// What is read again of values that are written; none if nothing is.
    pub fn read_again(self, values: &[Value]) -> Option<Vec<Value>> {
        let again = |value: &Value| match value {
            Value::Text(text) if text.trim().is_empty() => Value::Null,
            Value::Bytes(bytes) if bytes.is_empty() => Value::Null,
            other => other.clone(),
        };
        match (self, values) {
            (Self::Kafka | Self::Delimited(_) | Self::Bare, [Value::Null]) => None,
            (Self::Delimited(_), values) => Some(values.iter().map(again).collect()),
            (Self::Json | Self::Bare | Self::Kafka, values) => Some(values.to_vec()),
        }
    }
}

fn is_kafkas(of: &Type) -> bool {
    matches!(of, Type::Text | Type::Int | Type::Long | Type::Double | Type::Bytes)
}

/// The values of the first line that is not empty; what stands in quotes has quotes doubled.
fn split(text: &str, delimiter: char) -> Option<Vec<String>> {
    let mut rest = text.trim_start_matches(['\n', '\r']);
    if rest.is_empty() {
        return None;
    }
    let mut cells = Vec::new();
    loop {
        let cell = if let Some(mut quoted) = rest.strip_prefix('"') {
            let mut cell = String::new();
            loop {
                let (before, behind) = quoted.split_once('"')?;
                cell.push_str(before);
                match behind.strip_prefix('"') {
                    Some(behind) => {
                        cell.push('"');
                        quoted = behind;
                    }
                    None => {
                        rest = behind;
                        break cell;
                    }
                }
            }
        } else {
            let end = rest.find([delimiter, '\n', '\r']).unwrap_or(rest.len());
            let cell = rest[..end].to_owned();
            rest = &rest[end..];
            cell
        };
        cells.push(cell);
        if rest.is_empty() || rest.starts_with(['\n', '\r']) {
            return Some(cells);
        }
        rest = rest.strip_prefix(delimiter)?;
    }
}

/// A value of a line. An empty one is NULL; numbers stand as they are, whatever the dialect.
fn of_cell(cell: &str, of: &Type, rules: Rules) -> Result<Value, Lost> {
    let text = cell.trim();
    if text.is_empty() {
        return Ok(Value::Null);
    }
    let given = match of {
        Type::Text => Some(Value::Text(cell.to_owned())),
        Type::Bool => match text.to_lowercase().as_str() {
            "true" => Some(Value::Bool(true)),
            "false" => Some(Value::Bool(false)),
            _ => (rules == Rules::Ksql).then_some(Value::Bool(false)),
        },
        Type::Int => text.parse::<i32>().ok().map(|value| Value::Whole(value.into())),
        Type::Long | Type::Stamp | Type::Date | Type::Time => text.parse().ok().map(Value::Whole),
        Type::Double => match text {
            "NaN" => Some(Value::Double(f64::NAN)),
            "Infinity" => Some(Value::Double(f64::INFINITY)),
            "-Infinity" => Some(Value::Double(f64::NEG_INFINITY)),
            digits if digits.starts_with(|one: char| one.is_ascii_digit() || one == '-') => digits.parse().ok().map(Value::Double),
            _ => None,
        },
        Type::Decimal(precision, scale) => exact_decimal(text, *precision, *scale),
        Type::Bytes => BASE64_STANDARD.decode(text).ok().map(Value::Bytes),
        Type::List(_) | Type::Map(_) | Type::Struct(_) => panic!("a line has no {of:?}"),
    };
    fits(given, rules)
}

/// A whole value as Kafka's own serialisers write it.
fn of_bytes(bytes: &[u8], of: &Type, rules: Rules) -> Result<Value, Lost> {
    let given = match of {
        Type::Text => match (std::str::from_utf8(bytes), rules) {
            (Ok(text), _) => Some(Value::Text(text.to_owned())),
            (Err(_), Rules::Ksql) => Some(Value::Text(String::from_utf8_lossy(bytes).into_owned())),
            (Err(_), Rules::Standard) => None,
        },
        Type::Int => bytes.try_into().ok().map(|bytes| Value::Whole(i32::from_be_bytes(bytes).into())),
        Type::Long => bytes.try_into().ok().map(|bytes| Value::Whole(i64::from_be_bytes(bytes))),
        Type::Double => bytes.try_into().ok().map(|bytes| Value::Double(f64::from_be_bytes(bytes))),
        Type::Bytes => Some(Value::Bytes(bytes.to_vec())),
        other => panic!("Kafka has no {other:?}"),
    };
    fits(given, rules)
}

fn fits(given: Option<Value>, rules: Rules) -> Result<Value, Lost> {
    match (given, rules) {
        (Some(value), _) => Ok(value),
        (None, Rules::Standard) => Ok(Value::Null),
        (None, Rules::Ksql) => Err(Lost),
    }
}
