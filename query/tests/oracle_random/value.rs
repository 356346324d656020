//! The oracle's own values and types, and JSON as it reads them: nothing of the engine is used.
//!
//! Whole numbers, dates (days), times and timestamps (milliseconds) are all [`Value::Whole`]; a DECIMAL is its unscaled number.
//! Which of them a value is, only its [`Type`] says.

use std::cmp::Ordering;

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::grammar::Rules;

/// A type of our SQL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    Bool,
    Int,
    Long,
    Double,
    Decimal(u8, u8),
    Text,
    Bytes,
    Date,
    Time,
    Stamp,
    List(Box<Type>),
    Map(Box<Type>),
    Struct(Vec<(String, Type)>),
}

/// A value; its type stands beside it.
#[derive(Clone, Debug)]
pub enum Value {
    Null,
    Bool(bool),
    Whole(i64),
    Double(f64),
    Decimal(i128),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
    Struct(Vec<Value>),
}

impl Type {
    /// As SQL writes it.
    pub fn sql(&self) -> String {
        match self {
            Self::Bool => "BOOLEAN".to_owned(),
            Self::Int => "INTEGER".to_owned(),
            Self::Long => "BIGINT".to_owned(),
            Self::Double => "DOUBLE".to_owned(),
            Self::Decimal(precision, scale) => format!("DECIMAL({precision}, {scale})"),
            Self::Text => "VARCHAR".to_owned(),
            Self::Bytes => "BYTES".to_owned(),
            Self::Date => "DATE".to_owned(),
            Self::Time => "TIME".to_owned(),
            Self::Stamp => "TIMESTAMP".to_owned(),
            Self::List(item) => format!("ARRAY<{}>", item.sql()),
            Self::Map(item) => format!("MAP<VARCHAR, {}>", item.sql()),
            Self::Struct(fields) => {
                let each: Vec<String> = fields.iter().map(|(name, of)| format!("{name} {}", of.sql())).collect();
                format!("STRUCT<{}>", each.join(", "))
            }
        }
    }

    pub fn is_nested(&self) -> bool {
        matches!(self, Self::List(_) | Self::Map(_) | Self::Struct(_))
    }

    pub fn is_number(&self) -> bool {
        matches!(self, Self::Int | Self::Long | Self::Double | Self::Decimal(..))
    }

    /// Whether `<` and the like take it, in every dialect.
    pub fn has_order(&self) -> bool {
        !self.is_nested() && !matches!(self, Self::Bool | Self::Bytes)
    }
}

impl Value {
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    pub fn is_true(&self) -> bool {
        matches!(self, Self::Bool(true))
    }

    pub fn whole(&self) -> Option<i64> {
        if let Self::Whole(value) = self { Some(*value) } else { None }
    }

    pub fn text(&self) -> Option<&str> {
        if let Self::Text(value) = self { Some(value) } else { None }
    }

    /// As a DOUBLE, if it is a number of this type.
    pub fn number(&self, of: &Type) -> Option<f64> {
        match (self, of) {
            (Self::Whole(value), _) => Some(*value as f64),
            (Self::Double(value), _) => Some(*value),
            // By its digits, so that it is the nearest DOUBLE.
            (Self::Decimal(_), Type::Decimal(..)) => spelled(self, of).parse().ok(),
            _ => None,
        }
    }

    /// Whether both are the same to whoever looks at them: NULL is NULL, NaN is NaN, `-0.0` is not `0.0`.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(left), Self::Bool(right)) => left == right,
            (Self::Whole(left), Self::Whole(right)) => left == right,
            (Self::Double(left), Self::Double(right)) => left.to_bits() == right.to_bits() || (left.is_nan() && right.is_nan()),
            (Self::Decimal(left), Self::Decimal(right)) => left == right,
            (Self::Text(left), Self::Text(right)) => left == right,
            (Self::Bytes(left), Self::Bytes(right)) => left == right,
            (Self::List(left), Self::List(right)) | (Self::Struct(left), Self::Struct(right)) => {
                left.len() == right.len() && left.iter().zip(right).all(|(left, right)| left.is_same(right))
            }
            (Self::Map(left), Self::Map(right)) => {
                left.len() == right.len() && left.iter().zip(right).all(|(left, right)| left.0 == right.0 && left.1.is_same(&right.1))
            }
            _ => false,
        }
    }

    /// Whether `=` holds of two values that are not NULL: as [`Value::is_same`], but there is one zero.
    pub fn equals(&self, other: &Self) -> bool {
        self.with_one_zero().is_same(&other.with_one_zero())
    }

    /// The same with `0.0` for `-0.0`, alone or within, and the entries of maps by their keys.
    pub fn with_one_zero(&self) -> Self {
        match self {
            Self::Double(value) if *value == 0.0 => Self::Double(0.0),
            Self::List(items) => Self::List(items.iter().map(Self::with_one_zero).collect()),
            Self::Struct(items) => Self::Struct(items.iter().map(Self::with_one_zero).collect()),
            Self::Map(entries) => {
                let mut entries: Vec<_> = entries.iter().map(|(key, value)| (key.clone(), value.with_one_zero())).collect();
                entries.sort_by(|left, right| left.0.cmp(&right.0));
                Self::Map(entries)
            }
            other => other.clone(),
        }
    }

    /// Which of two values of one type is greater: NaN above all, `-0.0` below `0.0`, texts by their bytes.
    pub fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Bool(left), Self::Bool(right)) => left.cmp(right),
            (Self::Whole(left), Self::Whole(right)) => left.cmp(right),
            (Self::Double(left), Self::Double(right)) => match (left.is_nan(), right.is_nan()) {
                (true, true) => Ordering::Equal,
                (true, false) => Ordering::Greater,
                (false, true) => Ordering::Less,
                (false, false) => left.total_cmp(right),
            },
            (Self::Decimal(left), Self::Decimal(right)) => left.cmp(right),
            (Self::Text(left), Self::Text(right)) => left.as_bytes().cmp(right.as_bytes()),
            (Self::Bytes(left), Self::Bytes(right)) => left.cmp(right),
            (left, right) => panic!("{left:?} and {right:?} have no order"),
        }
    }

    /// As `<` and `=` see two numbers or texts: there is one zero.
    pub fn compare(&self, other: &Self) -> Ordering {
        self.with_one_zero().order(&other.with_one_zero())
    }
}

/// The digits of a DECIMAL.
pub fn spelled(value: &Value, of: &Type) -> String {
    let (Value::Decimal(value), Type::Decimal(_, scale)) = (value, of) else { return format!("{value:?}") };
    let digits = format!("{:0>width$}", value.unsigned_abs(), width = usize::from(*scale) + 1);
    let (whole, fraction) = digits.split_at(digits.len() - usize::from(*scale));
    let sign = if *value < 0 { "-" } else { "" };
    if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

/// JSON as it is written, numbers as their digits.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// The JSON that these bytes are; none if they are none.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (value, rest) = parse(text.trim_start())?;
        rest.trim().is_empty().then_some(value)
    }

    /// The field of an object: by its name, or else by its name in another case.
    pub fn field(&self, name: &str) -> Option<&Self> {
        let Self::Object(fields) = self else { return None };
        let exactly = fields.iter().rev().find(|field| field.0 == name);
        exactly.or_else(|| fields.iter().rev().find(|field| field.0.eq_ignore_ascii_case(name))).map(|field| &field.1)
    }
}

fn parse(text: &str) -> Option<(Json, &str)> {
    for (word, value) in [("null", Json::Null), ("true", Json::Bool(true)), ("false", Json::Bool(false))] {
        if let Some(rest) = text.strip_prefix(word) {
            return Some((value, rest));
        }
    }
    match text.chars().next()? {
        '"' => parse_text(&text[1..]).map(|(text, rest)| (Json::Text(text), rest)),
        '[' => {
            let (mut items, mut rest) = (Vec::new(), text[1..].trim_start());
            while !rest.starts_with(']') {
                let (item, behind) = parse(rest)?;
                items.push(item);
                rest = between(behind, ']')?;
            }
            Some((Json::List(items), &rest[1..]))
        }
        '{' => {
            let (mut fields, mut rest) = (Vec::new(), text[1..].trim_start());
            while !rest.starts_with('}') {
                let (name, behind) = parse_text(rest.strip_prefix('"')?)?;
                let (value, behind) = parse(behind.trim_start().strip_prefix(':')?.trim_start())?;
                fields.push((name, value));
                rest = between(behind, '}')?;
            }
            Some((Json::Object(fields), &rest[1..]))
        }
        _ => {
            let end = text.find(|one: char| !(one.is_ascii_digit() || "+-.eE".contains(one))).unwrap_or(text.len());
            (end > 0).then(|| (Json::Number(text[..end].to_owned()), &text[end..]))
        }
    }
}

/// What follows a comma, or the end.
fn between(rest: &str, end: char) -> Option<&str> {
    let rest = rest.trim_start();
    if rest.starts_with(end) { Some(rest) } else { rest.strip_prefix(',').map(str::trim_start) }
}

fn parse_text(mut rest: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    loop {
        let at = rest.find(['"', '\\'])?;
        text.push_str(&rest[..at]);
        if rest[at..].starts_with('"') {
            return Some((text, &rest[at + 1..]));
        }
        let mut escaped = rest[at + 1..].chars();
        let one = escaped.next()?;
        rest = escaped.as_str();
        match one {
            'n' => text.push('\n'),
            't' => text.push('\t'),
            'r' => text.push('\r'),
            'u' => {
                text.push(char::from_u32(u32::from_str_radix(rest.get(..4)?, 16).ok()?)?);
                rest = &rest[4..];
            }
            other => text.push(other),
        }
    }
}

/// A value does not fit, and the rules say that the record is lost with it.
#[derive(Debug)]
pub struct Lost;

/// What a column of this type holds of a field; in `standard` what does not fit is NULL.
pub fn decode(json: Option<&Json>, of: &Type, rules: Rules) -> Result<Value, Lost> {
    let Some(json) = json.filter(|json| **json != Json::Null) else { return Ok(Value::Null) };
    match (decode_given(json, of, rules)?, rules) {
        (Some(value), _) => Ok(value),
        (None, Rules::Standard) => Ok(Value::Null),
        (None, Rules::Ksql) => Err(Lost),
    }
}

fn decode_given(json: &Json, of: &Type, rules: Rules) -> Result<Option<Value>, Lost> {
    let is_ksql = rules == Rules::Ksql;
    let within = |json: &Json, of: &Type| decode(Some(json), of, rules);
    Ok(match (of, json) {
        (Type::Bool, Json::Bool(value)) => Some(Value::Bool(*value)),
        (Type::Int, Json::Number(digits)) if is_ksql => whole_part(digits).map(|value| Value::Whole(i64::from(value as i32))),
        (Type::Long, Json::Number(digits)) if is_ksql => whole_part(digits).map(|value| Value::Whole(value as i64)),
        (Type::Int, Json::Text(digits)) if is_ksql => digits.parse::<i32>().ok().map(|value| Value::Whole(value.into())),
        (Type::Long, Json::Text(digits)) if is_ksql => digits.parse().ok().map(Value::Whole),
        (Type::Int, Json::Number(digits)) => digits.parse::<i32>().ok().map(|value| Value::Whole(value.into())),
        (Type::Long | Type::Stamp, Json::Number(digits)) => digits.parse().ok().map(Value::Whole),
        (Type::Date | Type::Time, Json::Number(digits)) => digits.parse().ok().map(Value::Whole),
        (Type::Double, Json::Number(digits)) => digits.parse().ok().filter(|value: &f64| is_ksql || value.is_finite()).map(Value::Double),
        (Type::Double, Json::Text(word)) => match word.as_str() {
            "NaN" => Some(Value::Double(f64::NAN)),
            "Infinity" => Some(Value::Double(f64::INFINITY)),
            "-Infinity" => Some(Value::Double(f64::NEG_INFINITY)),
            digits if is_ksql && digits.starts_with(|one: char| one.is_ascii_digit() || one == '-') => {
                digits.parse().ok().map(Value::Double)
            }
            _ => None,
        },
        (Type::Decimal(precision, scale), Json::Number(digits) | Json::Text(digits)) => exact_decimal(digits, *precision, *scale),
        // A text may be anything, as it is written.
        (Type::Text, Json::Text(text) | Json::Number(text)) => Some(Value::Text(text.clone())),
        (Type::Text, Json::Bool(value)) => Some(Value::Text(value.to_string())),
        (Type::Bytes, Json::Text(text)) => BASE64_STANDARD.decode(text).ok().map(Value::Bytes),
        (Type::List(item), Json::List(items)) => Some(Value::List(items.iter().map(|one| within(one, item)).collect::<Result<_, _>>()?)),
        (Type::Map(item), Json::Object(fields)) => {
            let entries = fields.iter().map(|(name, value)| Ok((name.clone(), within(value, item)?)));
            Some(Value::Map(entries.collect::<Result<_, _>>()?))
        }
        (Type::Struct(fields), Json::Object(_)) => {
            let each = fields.iter().map(|(name, of)| decode(json.field(name), of, rules));
            Some(Value::Struct(each.collect::<Result<_, _>>()?))
        }
        _ => None,
    })
}

/// A number without its fraction.
fn whole_part(digits: &str) -> Option<i128> {
    digits.split(['.', 'e', 'E']).next()?.parse().ok()
}

/// The DECIMAL that these digits are, if it has no more places.
pub fn exact_decimal(digits: &str, precision: u8, scale: u8) -> Option<Value> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction = fraction.trim_end_matches('0');
    let is_digits = !whole.is_empty() && whole.trim_start_matches('-').bytes().chain(fraction.bytes()).all(|one| one.is_ascii_digit());
    if !is_digits || fraction.len() > usize::from(scale) {
        return None;
    }
    let value: i128 = format!("{whole}{fraction:0<width$}", width = usize::from(scale)).parse().ok()?;
    (value.unsigned_abs() < 10_u128.pow(precision.into())).then_some(Value::Decimal(value))
}
