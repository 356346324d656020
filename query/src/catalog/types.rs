//! The types that our SQL has: how Arrow carries them, and how they are written.
//!
//! Every column of a source and of a result has one of them. Invariant: [`type_named`] gives back the type that
//! [`type_name`] wrote, which is what the catalog's journal relies on.

use std::{fmt, fmt::Write as _, sync::Arc};

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};

/// Deepest nesting of a type.
pub const MAX_TYPE_DEPTH: usize = 64;

/// The type of TIMESTAMP: milliseconds, UTC.
#[must_use]
pub fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("+00:00".into()))
}

/// The type of TIME: milliseconds of the day.
#[must_use]
pub const fn time_type() -> DataType {
    DataType::Time32(TimeUnit::Millisecond)
}

/// The type of `ARRAY<element>`.
#[must_use]
pub fn array_of(element: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", element, true)))
}

/// The type of `MAP<key, value>`; keys are never NULL.
#[must_use]
pub fn map_of(key: DataType, value: DataType) -> DataType {
    let entries = Fields::from(vec![Field::new("key", key, false), Field::new("value", value, true)]);
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries), false)), false)
}

/// The type of `STRUCT<name type, ...>`, its fields in the order given.
#[must_use]
pub fn struct_of<N: Into<String>>(fields: impl IntoIterator<Item = (N, DataType)>) -> DataType {
    DataType::Struct(fields.into_iter().map(|(name, data_type)| Field::new(name, data_type, true)).collect())
}

/// The type of a record's headers: `ARRAY<STRUCT<KEY VARCHAR, VALUE BYTES>>`.
#[must_use]
pub fn headers_type() -> DataType {
    array_of(struct_of([("KEY", DataType::Utf8), ("VALUE", DataType::Binary)]))
}

/// Types of a map's keys and values; none for another type.
#[must_use]
pub fn map_parts(data_type: &DataType) -> Option<(&DataType, &DataType)> {
    let DataType::Map(entries, _) = data_type else { return None };
    let DataType::Struct(fields) = entries.data_type() else { return None };
    match fields.as_ref() {
        [key, value] => Some((key.data_type(), value.data_type())),
        _ => None,
    }
}

/// Whether values of the type are made of other values.
#[must_use]
pub const fn is_nested(data_type: &DataType) -> bool {
    matches!(data_type, DataType::List(_) | DataType::Map(..) | DataType::Struct(_))
}

/// The type in which a result of this type is kept, or none if there is no such type in our SQL.
#[must_use]
pub fn kept_as(data_type: &DataType) -> Option<DataType> {
    match data_type {
        DataType::Boolean
        | DataType::Int32
        | DataType::Int64
        | DataType::Float64
        | DataType::Utf8
        | DataType::Decimal128(..)
        | DataType::Binary
        | DataType::Date32 => Some(data_type.clone()),
        DataType::Int8 | DataType::Int16 | DataType::UInt8 | DataType::UInt16 => Some(DataType::Int32),
        DataType::UInt32 | DataType::UInt64 => Some(DataType::Int64),
        DataType::Float16 | DataType::Float32 => Some(DataType::Float64),
        DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => Some(DataType::Utf8),
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => Some(DataType::Binary),
        DataType::Timestamp(..) | DataType::Date64 => Some(timestamp_type()),
        DataType::Time32(_) | DataType::Time64(_) => Some(time_type()),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => kept_as(item.data_type()).map(array_of),
        DataType::Map(..) => {
            let (key, value) = map_parts(data_type)?;
            Some(map_of(kept_as(key)?, kept_as(value)?))
        }
        DataType::Struct(fields) => {
            let fields = fields.iter().map(|field| Some((field.name().clone(), kept_as(field.data_type())?)));
            fields.collect::<Option<Vec<_>>>().map(struct_of)
        }
        DataType::Duration(_)
        | DataType::Interval(_)
        | DataType::ListView(_)
        | DataType::LargeListView(_)
        | DataType::Union(..)
        | DataType::Dictionary(..)
        | DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal256(..)
        | DataType::RunEndEncoded(..) => None,
    }
}

/// A type as users write it; names of fields that are not plain lower case stand in quotes. One that our SQL does not have is written
/// as the one that [`kept_as`] gives for it, or by a word that nobody can take for another type.
#[must_use]
pub fn type_name(data_type: &DataType) -> String {
    TypeText(data_type).to_string()
}

struct TypeText<'a>(&'a DataType);

impl fmt::Display for TypeText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            DataType::Boolean => f.write_str("BOOLEAN"),
            DataType::Int32 => f.write_str("INTEGER"),
            DataType::Int64 => f.write_str("BIGINT"),
            DataType::Float64 => f.write_str("DOUBLE"),
            DataType::Utf8 => f.write_str("VARCHAR"),
            DataType::Binary => f.write_str("BYTES"),
            DataType::Date32 => f.write_str("DATE"),
            DataType::Time32(TimeUnit::Millisecond) => f.write_str("TIME"),
            DataType::Timestamp(..) => f.write_str("TIMESTAMP"),
            DataType::Decimal128(precision, scale) => write!(f, "DECIMAL({precision}, {scale})"),
            DataType::List(item) => write!(f, "ARRAY<{}>", TypeText(item.data_type())),
            DataType::Struct(fields) => {
                f.write_str("STRUCT<")?;
                for (place, field) in fields.iter().enumerate() {
                    f.write_str(if place == 0 { "" } else { ", " })?;
                    write_name(f, field.name())?;
                    write!(f, " {}", TypeText(field.data_type()))?;
                }
                f.write_char('>')
            }
            DataType::Null => f.write_str("NULL"),
            DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) | DataType::Decimal256(precision, scale) => {
                write!(f, "DECIMAL({precision}, {scale})")
            }
            DataType::LargeList(item) | DataType::FixedSizeList(item, _) | DataType::ListView(item) | DataType::LargeListView(item) => {
                write!(f, "ARRAY<{}>", TypeText(item.data_type()))
            }
            DataType::Duration(_) | DataType::Interval(_) => f.write_str("INTERVAL"),
            DataType::Dictionary(_, value) => TypeText(value).fmt(f),
            DataType::RunEndEncoded(_, value) => TypeText(value.data_type()).fmt(f),
            DataType::Union(..) => f.write_str("UNION"),
            other => match (map_parts(other), kept_as(other)) {
                (Some((key, value)), _) => write!(f, "MAP<{}, {}>", TypeText(key), TypeText(value)),
                (None, Some(kept)) if kept != *other => TypeText(&kept).fmt(f),
                (None, _) => f.write_str("UNKNOWN"),
            },
        }
    }
}

fn write_name(f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
    if is_plain(name) { f.write_str(name) } else { write!(f, "\"{}\"", name.replace('"', "\"\"")) }
}

fn is_plain(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// The type that [`type_name`] names so.
#[must_use]
pub fn type_named(text: &str) -> Option<DataType> {
    let mut rest = Rest(text);
    let data_type = rest.data_type(MAX_TYPE_DEPTH)?;
    rest.0.is_empty().then_some(data_type)
}

/// What is not read yet of a type's name.
struct Rest<'a>(&'a str);

impl Rest<'_> {
    fn take(&mut self, text: &str) -> bool {
        match self.0.strip_prefix(text) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, text: &str) -> Option<()> {
        self.take(text).then_some(())
    }

    fn data_type(&mut self, depth: usize) -> Option<DataType> {
        let deeper = depth.checked_sub(1)?;
        let simple = [
            ("BOOLEAN", DataType::Boolean),
            ("INTEGER", DataType::Int32),
            ("BIGINT", DataType::Int64),
            ("DOUBLE", DataType::Float64),
            ("VARCHAR", DataType::Utf8),
            ("BYTES", DataType::Binary),
            ("DATE", DataType::Date32),
            ("TIMESTAMP", timestamp_type()),
            ("TIME", time_type()),
        ];
        for (name, data_type) in simple {
            if self.take(name) {
                return Some(data_type);
            }
        }
        if self.take("DECIMAL(") {
            let (inside, rest) = self.0.split_once(')')?;
            self.0 = rest;
            let (precision, scale) = inside.split_once(", ")?;
            return Some(DataType::Decimal128(precision.parse().ok()?, scale.parse().ok()?));
        }
        if self.take("ARRAY<") {
            let item = self.data_type(deeper)?;
            self.expect(">")?;
            return Some(array_of(item));
        }
        if self.take("MAP<") {
            let key = self.data_type(deeper)?;
            self.expect(", ")?;
            let value = self.data_type(deeper)?;
            self.expect(">")?;
            return Some(map_of(key, value));
        }
        self.expect("STRUCT<")?;
        let mut fields = Vec::new();
        while !self.take(">") {
            if !fields.is_empty() {
                self.expect(", ")?;
            }
            let name = self.name()?;
            self.expect(" ")?;
            fields.push((name, self.data_type(deeper)?));
        }
        Some(struct_of(fields))
    }

    fn name(&mut self) -> Option<String> {
        if !self.take("\"") {
            let (name, _) = self.0.split_once(' ')?;
            self.0 = self.0.get(name.len()..)?;
            return Some(name.to_owned());
        }
        let mut name = String::new();
        loop {
            let (part, rest) = self.0.split_once('"')?;
            name.push_str(part);
            self.0 = rest;
            if !self.take("\"") {
                return Some(name);
            }
            name.push('"');
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Any type that our SQL has.
    fn any_type() -> impl Strategy<Value = DataType> {
        let simple = prop::sample::select(vec![
            DataType::Boolean,
            DataType::Int32,
            DataType::Int64,
            DataType::Float64,
            DataType::Utf8,
            DataType::Binary,
            DataType::Date32,
            time_type(),
            timestamp_type(),
            DataType::Decimal128(38, 0),
            DataType::Decimal128(10, 2),
        ]);
        simple.prop_recursive(5, 40, 4, |inner| {
            let fields = prop::collection::vec((".{0,6}", inner.clone()), 0..4);
            prop_oneof![
                inner.clone().prop_map(array_of),
                (inner.clone(), inner).prop_map(|(key, value)| map_of(key, value)),
                fields.prop_map(struct_of),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_name_of_a_type_names_it(data_type in any_type()) {
            prop_assert_eq!(type_named(&type_name(&data_type)), Some(data_type.clone()));
            prop_assert_eq!(kept_as(&data_type), Some(data_type));
        }

        #[test]
        fn no_text_panics(text in "(ARRAY<|MAP<|STRUCT<|\"|>|, |DECIMAL\\(|[0-9]|\\)|INTEGER|a |.){0,12}") {
            let _ = type_named(&text);
        }
    }

    #[test]
    fn types_are_named_as_users_write_them() {
        let item = struct_of([("id", DataType::Int32), ("Price", DataType::Decimal128(10, 2))]);
        assert_eq!(type_name(&map_of(DataType::Utf8, array_of(item))), "MAP<VARCHAR, ARRAY<STRUCT<id INTEGER, \"Price\" DECIMAL(10, 2)>>>");
        assert_eq!(type_name(&struct_of::<String>([])), "STRUCT<>");
        assert_eq!(type_named("ARRAY<INTEGER> "), None);
        assert_eq!(type_named(&format!("{}INTEGER{}", "ARRAY<".repeat(100), ">".repeat(100))), None);
    }
}
