//! Streams and tables of a world, and their records as the oracle reads them.

use foldlog_log::testing::Random;

use super::{
    common::Stored,
    format::{Content, Format},
    grammar::{Rules, chance, one_of},
    value::{Json, Type, Value, decode},
};

#[derive(Clone, Debug)]
pub struct Column {
    pub name: String,
    pub of: Type,
    pub key: bool,
    /// Of which headers of the record it is made, if it is.
    pub header: Option<Header>,
}

/// What a column shows of the headers of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    All,
    /// The last one of this name.
    Named(&'static str),
}

impl Column {
    pub fn new(rules: Rules, name: &str, of: Type, key: bool) -> Self {
        Self { name: rules.name(name), of, key, header: None }
    }

    fn declaration(&self, is_table: bool) -> String {
        let rest = match (self.header, self.key) {
            (Some(Header::All), _) => " HEADERS".to_owned(),
            (Some(Header::Named(name)), _) => format!(" HEADER('{name}')"),
            (None, true) if is_table => " PRIMARY KEY".to_owned(),
            (None, true) => " KEY".to_owned(),
            (None, false) => String::new(),
        };
        format!("{} {}{rest}", self.name, self.of.sql())
    }
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
    pub format: Format,
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
        let columns: Vec<String> = self.columns.iter().map(|column| column.declaration(self.is_table)).collect();
        let format = self.format.options();
        let with = match self.rules {
            Rules::Standard if self.format == Format::Json => format!("topic = '{}'", self.topic),
            Rules::Standard => format!("topic = '{}', {format}", self.topic),
            Rules::Ksql => format!("kafka_topic = '{}', key_format = 'JSON', {format}", self.topic),
        };
        format!("CREATE {kind} {} ({}) WITH ({with})", self.name, columns.join(", "))
    }

    /// The row that a record is; none if it is left out.
    pub fn row(&self, record: &Stored) -> Option<Row> {
        let keys = self.keys();
        let mut values = self.key_values(record.key.as_deref())?;
        let columns = self.value_columns();
        let content = self.format.read(record.value.as_deref(), &columns, self.rules)?;
        let is_absent = matches!(content, Content::Absent);
        match content {
            Content::Absent => values.extend(columns.iter().map(|_| Value::Null)),
            Content::Values(read) => values.extend(read),
        }
        values.extend(self.columns.iter().filter_map(|column| column.header).map(|header| of_headers(header, &record.headers)));
        let has_key = values.iter().take(keys).any(|value| !value.is_null());
        if self.is_table && !has_key {
            return None;
        }
        let Stored { position, partition, offset, timestamp: time, .. } = *record;
        Some(Row { position, partition, offset, time, values, is_absent })
    }

    /// Whether a row whose columns are NULL is written as none.
    pub fn hides_null(&self) -> bool {
        self.format != Format::Json && self.value_columns().len() == 1
    }

    /// The columns that lie in the value.
    pub fn value_columns(&self) -> Vec<&Column> {
        self.columns.iter().filter(|column| !column.key && column.header.is_none()).collect()
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

fn of_headers(header: Header, headers: &[(String, Option<Vec<u8>>)]) -> Value {
    let value = |value: &Option<Vec<u8>>| value.clone().map_or(Value::Null, Value::Bytes);
    match header {
        Header::All => {
            Value::List(headers.iter().map(|(name, bytes)| Value::Struct(vec![Value::Text(name.clone()), value(bytes)])).collect())
        }
        Header::Named(wanted) => headers.iter().rev().find(|(name, _)| name == wanted).map_or(Value::Null, |(_, bytes)| value(bytes)),
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

fn flat_type(random: &mut Random) -> Type {
    loop {
        let of = any_type(random, 0);
        if !of.is_nested() {
            return of;
        }
    }
}

/// DECIMAL types that occur; few, so that columns of one meet.
pub const DECIMALS: [Type; 3] = [Type::Decimal(10, 2), Type::Decimal(6, 3), Type::Decimal(18, 4)];

/// A declared stream or table.
pub fn declared(random: &mut Random, name: &str, is_table: bool, rules: Rules) -> Source {
    let keys = if is_table { 1 + random.below(2) } else { random.below(3) };
    let key = |random: &mut Random, at: u64| Column::new(rules, &format!("k{at}"), one_of(random, &KEY_TYPES).clone(), true);
    let mut columns: Vec<Column> = (0..keys).map(|at| key(random, at)).collect();
    if chance(random, 15) {
        // Little enough for any format.
        let of = one_of(random, &[Type::Long, Type::Text, Type::Int, Type::Double, Type::Bytes]).clone();
        columns.push(Column::new(rules, "a0", of, false));
    } else {
        // Numbers and texts there mostly are, for there is little to do without.
        columns.extend([("a0", Type::Long), ("a1", Type::Text)].map(|(name, of)| Column::new(rules, name, of, false)));
        let is_flat = chance(random, 30);
        for at in 0..1 + random.below(5) {
            let of = if is_flat { flat_type(random) } else { any_type(random, 2) };
            columns.push(Column::new(rules, &format!("b{at}"), of, false));
        }
    }
    let format = Format::any(random, &columns.iter().filter(|column| !column.key).collect::<Vec<_>>());
    if !is_table && chance(random, 30) {
        let all = Type::List(Box::new(Type::Struct(vec![(rules.name("key"), Type::Text), (rules.name("value"), Type::Bytes)])));
        let (header, of) = if random.one_in(2) { (Header::All, all) } else { (Header::Named("x"), Type::Bytes) };
        columns.push(Column { header: Some(header), ..Column::new(rules, "h0", of, false) });
    }
    let partitions = 1 + u32::try_from(random.below(4)).unwrap();
    let may_be_absent = is_table || chance(random, 30);
    Source {
        name: rules.name(name),
        topic: format!("{name}_topic"),
        is_table,
        columns,
        partitions,
        format,
        rules,
        may_be_absent,
        depth: 0,
        is_tame: is_table,
    }
}
