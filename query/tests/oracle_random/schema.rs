//! Streams and tables of a world, and their records as the oracle reads them.

use foldlog_log::testing::Random;

use super::{
    common::Stored,
    grammar::{Rules, chance, one_of},
    value::{Json, Type, Value, decode},
};

#[derive(Clone, Debug)]
pub struct Column {
    pub name: String,
    pub of: Type,
    pub key: bool,
}

/// A stream or table: declared, or made by a query.
#[derive(Clone, Debug)]
pub struct Source {
    pub name: String,
    pub topic: String,
    pub is_table: bool,
    /// Key columns first.
    pub columns: Vec<Column>,
    pub partitions: u32,
    pub rules: Rules,
    /// Whether its records may have no value.
    pub may_be_absent: bool,
    /// How many queries lie between it and what was declared.
    pub depth: u32,
    /// Whether its numbers are small, so that a sum that is taken back keeps its digits.
    pub is_tame: bool,
}

/// A record as a row.
#[derive(Clone, Debug)]
pub struct Row {
    pub position: u64,
    pub partition: u32,
    pub offset: u64,
    pub time: i64,
    /// Of all columns, keys first.
    pub values: Vec<Value>,
    /// Whether the record has no value.
    pub is_absent: bool,
}

/// How the key of a record is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFormat {
    None,
    /// As Kafka's own serialisers write one column.
    Plain,
    /// A JSON value.
    Value,
    /// A JSON object.
    Object,
}

impl Source {
    pub fn keys(&self) -> usize {
        self.columns.iter().filter(|column| column.key).count()
    }

    /// In `ksql` every source here is declared with JSON for keys, too.
    pub fn key_format(&self) -> KeyFormat {
        let is_plain = matches!(self.columns[0].of, Type::Text | Type::Int | Type::Long | Type::Double | Type::Bytes);
        match (self.keys(), self.rules) {
            (0, _) => KeyFormat::None,
            (1, Rules::Standard) if is_plain => KeyFormat::Plain,
            (1, _) => KeyFormat::Value,
            _ => KeyFormat::Object,
        }
    }

    /// The statement that declares it.
    pub fn declaration(&self) -> String {
        let kind = if self.is_table { "TABLE" } else { "STREAM" };
        let key = if self.is_table { " PRIMARY KEY" } else { " KEY" };
        let columns: Vec<String> =
            self.columns.iter().map(|column| format!("{} {}{}", column.name, column.of.sql(), if column.key { key } else { "" })).collect();
        let with = match self.rules {
            Rules::Standard => format!("topic = '{}'", self.topic),
            Rules::Ksql => format!("kafka_topic = '{}', format = 'JSON'", self.topic),
        };
        format!("CREATE {kind} {} ({}) WITH ({with})", self.name, columns.join(", "))
    }

    /// The row that a record is; none if it is left out.
    pub fn row(&self, record: &Stored) -> Option<Row> {
        let keys = self.keys();
        let mut values = self.key_values(record.key.as_deref())?;
        let json = record.value.as_deref().map(Json::parse);
        let is_absent = matches!(json, None | Some(Some(Json::Null)));
        if is_absent {
            values.extend(self.columns.iter().skip(keys).map(|_| Value::Null));
        } else {
            let object = json.flatten().filter(|json| matches!(json, Json::Object(_)))?;
            for column in self.columns.iter().skip(keys) {
                values.push(decode(object.field(&column.name), &column.of, self.rules).ok()?);
            }
        }
        let has_key = values.iter().take(keys).any(|value| !value.is_null());
        if self.is_table && !has_key {
            return None;
        }
        let Stored { position, partition, offset, timestamp: time, .. } = *record;
        Some(Row { position, partition, offset, time, values, is_absent })
    }

    fn key_values(&self, key: Option<&[u8]>) -> Option<Vec<Value>> {
        let columns: Vec<&Column> = self.columns.iter().filter(|column| column.key).collect();
        let Some(key) = key else { return Some(columns.iter().map(|_| Value::Null).collect()) };
        match self.key_format() {
            KeyFormat::None => Some(Vec::new()),
            KeyFormat::Plain => Some(vec![match columns[0].of {
                Type::Text => Value::Text(String::from_utf8(key.to_vec()).ok()?),
                Type::Bytes => Value::Bytes(key.to_vec()),
                Type::Int => Value::Whole(i32::from_be_bytes(key.try_into().ok()?).into()),
                Type::Long => Value::Whole(i64::from_be_bytes(key.try_into().ok()?)),
                _ => Value::Double(f64::from_be_bytes(key.try_into().ok()?)),
            }]),
            KeyFormat::Value => Some(vec![decode(Some(&Json::parse(key)?), &columns[0].of, self.rules).ok()?]),
            KeyFormat::Object => {
                let object = Json::parse(key)?;
                columns.iter().map(|column| decode(object.field(&column.name), &column.of, self.rules).ok()).collect()
            }
        }
    }
}

/// Types that a key may have.
const KEY_TYPES: [Type; 7] = [Type::Text, Type::Int, Type::Long, Type::Text, Type::Date, Type::Bool, Type::Double];

/// Any type; of nested ones one level, or two.
pub fn any_type(random: &mut Random, depth: u32) -> Type {
    match random.below(if depth == 0 { 22 } else { 28 }) {
        0..4 => Type::Int,
        4..8 => Type::Long,
        8..11 => Type::Double,
        11..13 => one_of(random, &DECIMALS).clone(),
        13..17 => Type::Text,
        17 => Type::Bool,
        18 => Type::Stamp,
        19 => Type::Date,
        20 => Type::Time,
        21 => Type::Bytes,
        22..25 => Type::List(Box::new(any_type(random, depth - 1))),
        25 => Type::Map(Box::new(any_type(random, depth - 1))),
        _ => Type::Struct((0..=random.below(2)).map(|at| (format!("f{at}"), any_type(random, depth - 1))).collect()),
    }
}

/// DECIMAL types that occur; few, so that columns of one meet.
pub const DECIMALS: [Type; 3] = [Type::Decimal(10, 2), Type::Decimal(6, 3), Type::Decimal(18, 4)];

/// A declared stream or table.
pub fn declared(random: &mut Random, name: &str, is_table: bool, rules: Rules) -> Source {
    let keys = if is_table { 1 + random.below(2) } else { random.below(3) };
    let mut columns: Vec<Column> =
        (0..keys).map(|at| Column { name: rules.name(&format!("k{at}")), of: one_of(random, &KEY_TYPES).clone(), key: true }).collect();
    // Numbers and texts there always are, for there is little to do without.
    for (at, of) in [Type::Long, Type::Text].into_iter().enumerate() {
        columns.push(Column { name: rules.name(&format!("a{at}")), of, key: false });
    }
    for at in 0..1 + random.below(5) {
        columns.push(Column { name: rules.name(&format!("b{at}")), of: any_type(random, 2), key: false });
    }
    let partitions = 1 + u32::try_from(random.below(4)).unwrap();
    let may_be_absent = is_table || chance(random, 30);
    Source {
        name: rules.name(name),
        topic: format!("{name}_topic"),
        is_table,
        columns,
        partitions,
        rules,
        may_be_absent,
        depth: 0,
        is_tame: is_table,
    }
}
