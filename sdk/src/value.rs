//! Values, columns and rows of SQL answers, and rows as values of the program's own types.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use foldlog_proto::v1::{self, column_values::Values, value::Kind};
use serde::de::{self, DeserializeOwned, IntoDeserializer, Visitor, value::MapDeserializer};

use crate::{codec::CodecError, error::Error};

/// One typed value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// NULL.
    Null,
    /// BOOLEAN.
    Boolean(bool),
    /// INTEGER, BIGINT.
    Integer(i64),
    /// DOUBLE.
    Double(f64),
    /// VARCHAR.
    Text(String),
    /// BYTES.
    Binary(Bytes),
    /// TIMESTAMP: milliseconds since 1970, UTC.
    TimestampMs(i64),
    /// DATE: days since 1970.
    Date(i64),
    /// TIME: milliseconds since midnight.
    TimeMs(i64),
    /// DECIMAL, as exact text.
    Decimal(String),
    /// JSON text: arrays, maps, structs. Never a parameter, for it does not say of which type it is; [`Value::Nested`] does.
    Json(String),
    /// ARRAY, MAP or STRUCT with its type. Only a parameter: rows have [`Value::Json`].
    Nested {
        /// The type as SQL writes it: `ARRAY<VARCHAR>`.
        sql_type: String,
        /// The value as JSON.
        json: String,
    },
}

impl Value {
    /// As a parameter of a statement.
    pub(crate) fn into_parameter(self) -> Result<v1::Value, Error> {
        let kind = match self {
            Self::Null => None,
            Self::Boolean(value) => Some(Kind::Boolean(value)),
            Self::Integer(value) => Some(Kind::Integer(value)),
            Self::Double(value) => Some(Kind::Double(value)),
            Self::Text(value) => Some(Kind::Text(value)),
            Self::Binary(value) => Some(Kind::Binary(value)),
            Self::TimestampMs(value) => Some(Kind::TimestampMs(value)),
            Self::Decimal(value) => Some(Kind::Decimal(value)),
            Self::Date(value) => Some(Kind::Date(value)),
            Self::TimeMs(value) => Some(Kind::TimeMs(value)),
            Self::Nested { sql_type, json } => Some(Kind::Nested(v1::NestedValue { sql_type, json })),
            Self::Json(_) => {
                return Err(Error::Invalid(format!("{self:?} cannot be a parameter: its type is not known; use Value::Nested")));
            }
        };
        Ok(v1::Value { kind })
    }
}

macro_rules! value_from {
    ($($type:ty => $variant:ident;)*) => {$(
        impl From<$type> for Value {
            fn from(value: $type) -> Self {
                Self::$variant(value.into())
            }
        }
    )*};
}
value_from! {
    bool => Boolean;
    i32 => Integer;
    u32 => Integer;
    i64 => Integer;
    f64 => Double;
    &str => Text;
    String => Text;
    Bytes => Binary;
    Vec<u8> => Binary;
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ColumnType {
    /// BOOLEAN.
    Boolean,
    /// INTEGER.
    Integer,
    /// BIGINT.
    Bigint,
    /// DOUBLE.
    Double,
    /// VARCHAR.
    Varchar,
    /// BYTES.
    Bytes,
    /// TIMESTAMP.
    Timestamp,
    /// DATE.
    Date,
    /// TIME.
    Time,
    /// DECIMAL.
    Decimal,
    /// Arrays, maps, structs, as JSON text.
    Json,
}

impl ColumnType {
    /// Whether its values are numbers.
    #[must_use]
    pub const fn is_numeric(self) -> bool {
        matches!(self, Self::Integer | Self::Bigint | Self::Double | Self::Decimal)
    }
}

/// One column of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Name.
    pub name: String,
    /// Type.
    pub column_type: ColumnType,
    /// The type as SQL writes it.
    pub sql_type: String,
    /// Whether it belongs to the rows' key.
    pub key: bool,
}

/// The columns of an answer; all its rows share them.
pub type Columns = Arc<[Column]>;

pub(crate) fn columns(schema: v1::Schema) -> Result<Columns, Error> {
    schema.columns.into_iter().map(column).collect()
}

fn column(column: v1::Column) -> Result<Column, Error> {
    let column_type = match column.r#type() {
        v1::ColumnType::Boolean => ColumnType::Boolean,
        v1::ColumnType::Integer => ColumnType::Integer,
        v1::ColumnType::Bigint => ColumnType::Bigint,
        v1::ColumnType::Double => ColumnType::Double,
        v1::ColumnType::Varchar => ColumnType::Varchar,
        v1::ColumnType::Bytes => ColumnType::Bytes,
        v1::ColumnType::Timestamp => ColumnType::Timestamp,
        v1::ColumnType::Date => ColumnType::Date,
        v1::ColumnType::Time => ColumnType::Time,
        v1::ColumnType::Decimal => ColumnType::Decimal,
        v1::ColumnType::Json => ColumnType::Json,
        v1::ColumnType::Unspecified => return Err(Error::Protocol(format!("column {} is of a type unknown here", column.name))),
    };
    Ok(Column { name: column.name, column_type, sql_type: column.sql_type, key: column.key })
}

/// One row of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    columns: Columns,
    values: Vec<Value>,
}

impl Row {
    /// The columns.
    #[must_use]
    pub const fn columns(&self) -> &Columns {
        &self.columns
    }

    /// The values, one for each column.
    #[must_use]
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// The value of a column by name; none if there is no such column.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        let place = self.columns.iter().position(|column| column.name == name)?;
        self.values.get(place)
    }

    /// The row as a struct whose fields are called as the columns, or a tuple of the values in order, or the value itself if there is
    /// only one column.
    ///
    /// # Errors
    /// If the row does not fit; the message names the column or field.
    pub fn to<T: DeserializeOwned>(&self) -> Result<T, Error> {
        T::deserialize(RowDeserializer(self)).map_err(|error| Error::Codec(error.within("a row of the answer")))
    }
}

/// Turns columns of values into rows.
pub(crate) fn rows(columns: &Columns, batch: v1::Rows) -> Result<Vec<Row>, Error> {
    let count = batch.count as usize;
    if batch.columns.len() != columns.len() {
        return Err(Error::Protocol(format!("{} columns of values, {} in the schema", batch.columns.len(), columns.len())));
    }
    let mut taken =
        columns.iter().zip(batch.columns).map(|(column, values)| column_values(column, values, count)).collect::<Result<Vec<_>, _>>()?;
    let row = |_| Row { columns: columns.clone(), values: taken.iter_mut().map(|values| values.next().unwrap_or(Value::Null)).collect() };
    Ok((0..count).map(row).collect())
}

fn column_values(column: &Column, given: v1::ColumnValues, count: usize) -> Result<std::vec::IntoIter<Value>, Error> {
    use ColumnType as Type;
    let mut values: Vec<Value> = match (column.column_type, given.values) {
        (Type::Boolean, Some(Values::Booleans(list))) => list.values.into_iter().map(Value::Boolean).collect(),
        (Type::Integer | Type::Bigint, Some(Values::Integers(list))) => list.values.into_iter().map(Value::Integer).collect(),
        (Type::Timestamp, Some(Values::Integers(list))) => list.values.into_iter().map(Value::TimestampMs).collect(),
        (Type::Date, Some(Values::Integers(list))) => list.values.into_iter().map(Value::Date).collect(),
        (Type::Time, Some(Values::Integers(list))) => list.values.into_iter().map(Value::TimeMs).collect(),
        (Type::Double, Some(Values::Doubles(list))) => list.values.into_iter().map(Value::Double).collect(),
        (Type::Varchar, Some(Values::Texts(list))) => list.values.into_iter().map(Value::Text).collect(),
        (Type::Decimal, Some(Values::Texts(list))) => list.values.into_iter().map(Value::Decimal).collect(),
        (Type::Json, Some(Values::Texts(list))) => list.values.into_iter().map(Value::Json).collect(),
        (Type::Bytes, Some(Values::Binaries(list))) => list.values.into_iter().map(Value::Binary).collect(),
        (_, None) if count == 0 => Vec::new(),
        (_, _) => return Err(Error::Protocol(format!("values of column {} are not of its type", column.name))),
    };
    if values.len() != count {
        return Err(Error::Protocol(format!("column {} has {} values for {count} rows", column.name, values.len())));
    }
    if !given.nulls.is_empty() {
        for (place, value) in values.iter_mut().enumerate() {
            let Some(bits) = given.nulls.get(place / 8) else {
                return Err(Error::Protocol(format!("column {} does not say which of its values are NULL", column.name)));
            };
            if bits >> (place % 8) & 1 == 1 {
                *value = Value::Null;
            }
        }
    }
    Ok(values.into_iter())
}

struct RowDeserializer<'a>(&'a Row);

impl<'a> RowDeserializer<'a> {
    fn only_value(&self) -> Result<ValueDeserializer<'a>, CodecError> {
        let Row { columns, values } = self.0;
        match (&**columns, values.as_slice()) {
            ([column], [value]) => Ok(ValueDeserializer { column: &column.name, value }),
            _ => Err(de::Error::custom(format!("{} columns do not fit into one value", columns.len()))),
        }
    }

    fn pairs(&self) -> impl Iterator<Item = (&'a str, ValueDeserializer<'a>)> + use<'a> {
        let Row { columns, values } = self.0;
        columns.iter().zip(values).map(|(column, value)| (column.name.as_str(), ValueDeserializer { column: &column.name, value }))
    }
}

macro_rules! by_the_only_value {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
            self.only_value()?.$method(visitor)
        }
    )*};
}

impl<'de> de::Deserializer<'de> for RowDeserializer<'_> {
    type Error = CodecError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        self.deserialize_map(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_map(MapDeserializer::new(self.pairs()))
    }

    fn deserialize_struct<V: Visitor<'de>>(self, _: &'static str, _: &'static [&'static str], visitor: V) -> Result<V::Value, CodecError> {
        self.deserialize_map(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_seq(de::value::SeqDeserializer::new(self.pairs().map(|(_, value)| value)))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, fields: usize, visitor: V) -> Result<V::Value, CodecError> {
        if fields != self.0.values.len() {
            return Err(de::Error::custom(format!("{} columns do not fit into {fields} fields", self.0.values.len())));
        }
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(self, _: &'static str, fields: usize, visitor: V) -> Result<V::Value, CodecError> {
        self.deserialize_tuple(fields, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        self.only_value()?.deserialize_enum(name, variants, visitor)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_unit()
    }

    by_the_only_value! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16 deserialize_u32
        deserialize_u64 deserialize_f32 deserialize_f64 deserialize_char deserialize_str deserialize_string deserialize_bytes
        deserialize_byte_buf deserialize_option deserialize_unit deserialize_identifier
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_unit()
    }
}

/// One value as serde sees it: numbers as numbers, JSON as what it says, the rest as text or bytes.
#[derive(Clone, Copy)]
struct ValueDeserializer<'a> {
    column: &'a str,
    value: &'a Value,
}

impl<'a> IntoDeserializer<'_, CodecError> for ValueDeserializer<'a> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl ValueDeserializer<'_> {
    fn in_column<T>(self, outcome: Result<T, impl fmt::Display>) -> Result<T, CodecError> {
        outcome.map_err(|error| de::Error::custom(format!("column {}: {error}", self.column)))
    }
}

impl<'de> de::Deserializer<'de> for ValueDeserializer<'_> {
    type Error = CodecError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        let outcome: Result<V::Value, CodecError> = match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Boolean(value) => visitor.visit_bool(*value),
            Value::Integer(value) | Value::TimestampMs(value) | Value::Date(value) | Value::TimeMs(value) => visitor.visit_i64(*value),
            Value::Double(value) => visitor.visit_f64(*value),
            Value::Text(value) | Value::Decimal(value) => visitor.visit_str(value),
            Value::Binary(value) => visitor.visit_bytes(value),
            Value::Json(text) | Value::Nested { json: text, .. } => {
                let json: serde_json::Value = self.in_column(serde_json::from_str(text))?;
                de::Deserializer::deserialize_any(json, visitor).map_err(CodecError::from)
            }
        };
        self.in_column(outcome)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CodecError> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, CodecError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CodecError> {
        match self.value {
            Value::Text(text) => self.in_column::<V::Value>(visitor.visit_enum(de::value::StrDeserializer::<CodecError>::new(text))),
            Value::Json(text) | Value::Nested { json: text, .. } => {
                let json: serde_json::Value = self.in_column(serde_json::from_str(text))?;
                self.in_column(de::Deserializer::deserialize_enum(json, name, variants, visitor))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct
        map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    fn sample() -> Vec<Row> {
        let column = |name: &str, column_type: v1::ColumnType| v1::Column {
            name: name.into(),
            r#type: column_type.into(),
            sql_type: String::new(),
            key: name == "carrier",
        };
        let schema = v1::Schema {
            columns: vec![
                column("carrier", v1::ColumnType::Varchar),
                column("flights", v1::ColumnType::Bigint),
                column("delay", v1::ColumnType::Double),
                column("airports", v1::ColumnType::Json),
            ],
            arrow_ipc: Bytes::new(),
        };
        let list = |values, nulls: &'static [u8]| v1::ColumnValues { nulls: Bytes::from_static(nulls), values: Some(values) };
        let batch = v1::Rows {
            count: 2,
            columns: vec![
                list(Values::Texts(v1::Texts { values: vec!["AA".into(), "UA".into()] }), &[]),
                list(Values::Integers(v1::Integers { values: vec![3, i64::MIN] }), &[0]),
                list(Values::Doubles(v1::Doubles { values: vec![1.5, 0.0] }), &[0b10]),
                list(Values::Texts(v1::Texts { values: vec![r#"["JFK"]"#.into(), String::new()] }), &[0b10]),
            ],
            ..v1::Rows::default()
        };
        rows(&columns(schema).unwrap(), batch).unwrap()
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Delays {
        carrier: String,
        flights: i64,
        delay: Option<f64>,
        airports: Option<Vec<String>>,
    }

    #[test]
    fn columns_become_rows_and_rows_become_structs() {
        let rows = sample();
        assert_eq!(rows[1].values(), [Value::Text("UA".into()), Value::Integer(i64::MIN), Value::Null, Value::Null]);
        assert_eq!(rows[0].get("delay"), Some(&Value::Double(1.5)));
        assert_eq!(rows[0].get("nothing"), None);
        let typed: Delays = rows[0].to().unwrap();
        assert_eq!(typed, Delays { carrier: "AA".into(), flights: 3, delay: Some(1.5), airports: Some(vec!["JFK".into()]) });
        let typed: Delays = rows[1].to().unwrap();
        assert_eq!((typed.delay, typed.airports), (None, None));
        let tuple: (String, i64, Option<f64>, serde_json::Value) = rows[1].to().unwrap();
        assert_eq!(tuple.1, i64::MIN);
        let map: BTreeMap<String, serde_json::Value> = rows[0].to().unwrap();
        assert_eq!(map["airports"][0], "JFK");
    }

    #[test]
    fn a_row_that_does_not_fit_names_the_column() {
        #[derive(Debug, Deserialize)]
        struct Wrong {
            #[expect(dead_code, reason = "never read: it cannot be made")]
            carrier: u8,
        }
        let error = sample()[0].to::<Wrong>().unwrap_err().to_string();
        assert!(error.contains("column carrier"), "{error}");
        let error = sample()[0].to::<(String,)>().unwrap_err().to_string();
        assert!(error.contains("4 columns do not fit into 1 fields"), "{error}");
        assert!(sample()[0].to::<i64>().is_err());
    }

    #[test]
    fn one_column_is_the_value_itself() {
        let schema = v1::Schema {
            columns: vec![v1::Column { name: "n".into(), r#type: v1::ColumnType::Bigint.into(), ..v1::Column::default() }],
            arrow_ipc: Bytes::new(),
        };
        let values = v1::ColumnValues { nulls: Bytes::new(), values: Some(Values::Integers(v1::Integers { values: vec![42] })) };
        let batch = v1::Rows { count: 1, columns: vec![values], ..v1::Rows::default() };
        let rows = rows(&columns(schema).unwrap(), batch).unwrap();
        assert_eq!(rows[0].to::<i64>().unwrap(), 42);
        assert_eq!(rows[0].to::<Option<u8>>().unwrap(), Some(42));
        assert_eq!(rows[0].to::<(i32,)>().unwrap(), (42,));
    }

    #[test]
    fn a_batch_that_contradicts_its_schema_is_refused() {
        let columns: Columns = [Column { name: "n".into(), column_type: ColumnType::Bigint, sql_type: String::new(), key: false }].into();
        let batch = |count, values, nulls: &'static [u8]| v1::Rows {
            count,
            columns: vec![v1::ColumnValues { nulls: Bytes::from_static(nulls), values }],
            ..v1::Rows::default()
        };
        let integers = |count| Some(Values::Integers(v1::Integers { values: vec![1; count] }));
        assert!(rows(&columns, batch(2, integers(1), &[])).is_err());
        assert!(rows(&columns, batch(9, integers(9), &[0])).is_err());
        assert!(rows(&columns, batch(1, Some(Values::Texts(v1::Texts { values: vec!["x".into()] })), &[])).is_err());
        assert!(rows(&columns, batch(u32::MAX, None, &[])).is_err());
        assert!(rows(&columns, v1::Rows { count: 1, ..v1::Rows::default() }).is_err());
        assert_eq!(rows(&columns, batch(0, None, &[])).unwrap(), []);
    }
}
