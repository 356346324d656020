//! Random records of a declared stream or table, as bytes: few different keys and values, and among them the odd ones.

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use foldlog_log::{NewRecord, Timestamp, testing::Random};

use super::{
    format::Format,
    grammar::{chance, one_of},
    schema::{KeyFormat, Source},
    value::{Json, Type},
};

/// What a field may be, as JSON, of which a record takes one.
#[derive(Clone, Debug)]
pub struct Pools {
    columns: Vec<Vec<String>>,
}

impl Pools {
    pub fn new(random: &mut Random, source: &Source) -> Self {
        let pool = |column: &super::schema::Column| {
            let count = if column.key { 2 + random.below(5) } else { 2 + random.below(7) };
            (0..count).map(|_| json(random, &column.of, source.is_tame || column.key)).collect()
        };
        Self { columns: source.columns.iter().map(pool).collect() }
    }

    /// The next record.
    pub fn record(&self, random: &mut Random, source: &Source) -> NewRecord {
        // Few times, so that many are equal, and not in order.
        let time = one_of(random, &[0, 5, 5, 1_000, 86_400_000, 1_600_000_000_000]) + random.below(3).cast_signed();
        let key = self.key(random, source);
        let value = match random.below(25) {
            0..3 if source.may_be_absent => None,
            3 if source.format == Format::Bare => Some(b"{\"a0\": 1".to_vec()),
            3 => Some(one_of(random, &["{\"a0\": 1", "[1]", "", "no thing", "{\"a0\":1}}"]).as_bytes().to_vec()),
            4 if source.may_be_absent && source.format == Format::Json => Some(b"null".to_vec()),
            _ => match source.format {
                Format::Json => Some(self.object(random, source).into_bytes()),
                Format::Bare => Some(self.field(random, source, 0).unwrap_or_else(|| "null".to_owned()).into_bytes()),
                Format::Delimited(delimiter) => Some(self.line(random, source, delimiter).into_bytes()),
                Format::Kafka => self
                    .field(random, source, 0)
                    .or_else(|| self.field(random, source, 0))
                    .map(|json| plain(&source.value_columns()[0].of, &json)),
            },
        };
        let header = |random: &mut Random| {
            let value = one_of(random, &["", "v", "\0\u{7f}"]);
            (Arc::from(*one_of(random, &["x", "y"])), (!chance(random, 20)).then(|| Bytes::from_static(value.as_bytes())))
        };
        let headers = (0..if chance(random, 40) { 1 + random.below(2) } else { 0 }).map(|_| header(random)).collect();
        let (key, value) = (key.map(Bytes::from), value.map(Bytes::from));
        NewRecord { key, value, headers, time: Some(Timestamp::new(time)) }
    }

    /// A value of a column in the value, as JSON; none for NULL.
    fn field(&self, random: &mut Random, source: &Source, place: usize) -> Option<String> {
        let pool = &self.columns[source.keys() + place];
        (!chance(random, 10)).then(|| one_of(random, pool).clone())
    }

    fn line(&self, random: &mut Random, source: &Source, delimiter: char) -> String {
        let mut cells = Vec::new();
        for (place, column) in source.value_columns().into_iter().enumerate() {
            let given = if chance(random, 4) { Some(misfit(&column.of).to_owned()) } else { self.field(random, source, place) };
            let text = match given.as_deref().map(|json| Json::parse(json.as_bytes())) {
                Some(Some(Json::Text(text) | Json::Number(text))) => text,
                Some(Some(Json::Bool(value))) => value.to_string(),
                _ => String::new(),
            };
            let is_quoted = text.contains([delimiter, '"', '\n']) || chance(random, 15);
            cells.push(if is_quoted { format!("\"{}\"", text.replace('"', "\"\"")) } else { text });
        }
        if chance(random, 4) {
            cells.push("more".to_owned());
        }
        cells.join(&delimiter.to_string())
    }

    fn object(&self, random: &mut Random, source: &Source) -> String {
        let mut fields = Vec::new();
        for (column, pool) in source.columns.iter().zip(&self.columns).filter(|(column, _)| !column.key && column.header.is_none()) {
            let name = if chance(random, 10) { swapped(&column.name) } else { column.name.clone() };
            let value = match random.below(20) {
                0 => continue,
                1 | 2 => "null".to_owned(),
                3 if chance(random, 40) => misfit(&column.of).to_owned(),
                _ => one_of(random, pool).clone(),
            };
            fields.push(format!("\"{name}\": {value}"));
        }
        if chance(random, 10) {
            fields.push("\"stranger\": [1, {\"a0\": 2}]".to_owned());
        }
        format!("{{{}}}", fields.join(", "))
    }

    fn key(&self, random: &mut Random, source: &Source) -> Option<Vec<u8>> {
        let columns = source.columns.iter().zip(&self.columns).filter(|(column, _)| column.key);
        let picked: Vec<(&str, &Type, &String)> =
            columns.map(|(column, pool)| (column.name.as_str(), &column.of, one_of(random, pool))).collect();
        let is_missing = chance(random, 5);
        match source.key_format() {
            // What nobody reads may be anything.
            KeyFormat::None => chance(random, 20).then(|| b"key".to_vec()),
            KeyFormat::Value | KeyFormat::Plain if is_missing => None,
            KeyFormat::Plain => Some(plain(picked[0].1, picked[0].2)),
            KeyFormat::Value => Some(picked[0].2.clone().into_bytes()),
            KeyFormat::Object => {
                let null =
                    |random: &mut Random, json: &String| if is_missing || chance(random, 5) { "null".to_owned() } else { json.clone() };
                let fields: Vec<String> = picked.iter().map(|(name, _, json)| format!("\"{name}\":{}", null(random, json))).collect();
                Some(format!("{{{}}}", fields.join(",")).into_bytes())
            }
        }
    }
}

fn plain(of: &Type, json: &str) -> Vec<u8> {
    match of {
        Type::Int => json.parse::<i32>().unwrap().to_be_bytes().to_vec(),
        Type::Long => json.parse::<i64>().unwrap().to_be_bytes().to_vec(),
        Type::Double => json.trim_matches('"').parse::<f64>().unwrap().to_be_bytes().to_vec(),
        Type::Bytes => BASE64_STANDARD.decode(json.trim_matches('"')).unwrap(),
        _ => json.trim_matches('"').as_bytes().to_vec(),
    }
}

fn swapped(name: &str) -> String {
    if name.chars().any(char::is_lowercase) { name.to_uppercase() } else { name.to_lowercase() }
}

/// JSON of no value of a type, by either rules.
fn misfit(of: &Type) -> &'static str {
    match of {
        Type::Bool => "7",
        Type::List(_) => "{\"x\": 1}",
        Type::Text => "-1.50",
        Type::Map(_) | Type::Struct(_) => "[1]",
        _ => "\"none of it\"",
    }
}

/// A value of a type, as JSON; `tame`: nothing extreme.
pub fn json(random: &mut Random, of: &Type, tame: bool) -> String {
    let wild = !tame && chance(random, 18);
    match of {
        Type::Bool => random.one_in(2).to_string(),
        Type::Int if wild => one_of(random, &[i32::MAX, i32::MIN, i32::MAX - 1]).to_string(),
        Type::Long if wild => one_of(random, &[i64::MAX, i64::MIN, 9_007_199_254_740_993]).to_string(),
        Type::Int | Type::Long => (random.below(14).cast_signed() - 4).to_string(),
        Type::Double if wild => (*one_of(random, &["1e308", "-1e308", "\"NaN\"", "\"Infinity\"", "-0.0", "1e-310"])).to_owned(),
        Type::Double if !tame && chance(random, 10) => "-0.0".to_owned(),
        Type::Double => one_of(random, &["0.0", "1.5", "-2.5", "0.1", "3.0", "1000000.25", "0.3333333333333333"]).to_string(),
        Type::Decimal(precision, scale) => {
            let most = if wild { 10_i128.pow((*precision).into()) - 1 } else { i128::from(random.below(2000)) };
            let value = if random.one_in(3) { -most } else { most };
            super::value::spelled(&super::value::Value::Decimal(value), &Type::Decimal(*precision, *scale))
        }
        Type::Text => {
            let texts = ["", "a", "b", "ab", "Abc", "12", "-7", "1.5", "x,y", "é", "a b", "true", "99999999999", "aXbXc"];
            format!("\"{}\"", one_of(random, &texts))
        }
        Type::Bytes => format!("\"{}\"", BASE64_STANDARD.encode([[1_u8, 2], [0, 255]][usize::from(random.one_in(2))])),
        Type::Date => one_of(random, &["0", "1", "19000", "-1"]).to_string(),
        Type::Time => one_of(random, &["0", "3600000", "86399999"]).to_string(),
        Type::Stamp => one_of(random, &["0", "1", "86400000", "1600000000000"]).to_string(),
        Type::List(item) => {
            let items: Vec<String> = (0..random.below(4)).map(|_| nullable(random, item, tame)).collect();
            format!("[{}]", items.join(", "))
        }
        Type::Map(item) => {
            let entries: Vec<String> = ["x", "y", "z"].iter().filter(|_| random.one_in(2)).map(|key| (*key).to_owned()).collect();
            let entries: Vec<String> = entries.iter().map(|key| format!("\"{key}\": {}", nullable(random, item, tame))).collect();
            format!("{{{}}}", entries.join(", "))
        }
        Type::Struct(fields) => {
            let each: Vec<String> = fields.iter().map(|(name, of)| format!("\"{name}\": {}", nullable(random, of, tame))).collect();
            format!("{{{}}}", each.join(", "))
        }
    }
}

fn nullable(random: &mut Random, of: &Type, tame: bool) -> String {
    if chance(random, 12) { "null".to_owned() } else { json(random, of, tame) }
}
