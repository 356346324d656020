//! ASSERT VALUES, STREAM and TABLE: what files of tests say about the records that a stream or table got, and about how it was made.
//!
//! Called by whoever runs such files, one statement after the other; doors refuse these statements. Nothing sleeps: before records are looked at, every
//! query that writes them has folded all that was written before.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{datatypes::DataType, util::display::array_value_to_string};
use datafusion::common::ScalarValue;
use foldlog_log::{LogBackend, Position, ReadLimits, Selection, TopicName};

use super::{Core, Engine, create::declared_columns, substituted};
use crate::{
    answer::{Answer, Request},
    catalog::{Catalog, Source, SourceKind, WantedColumn, nearest, timestamp_type, type_name},
    codec::Decoder,
    error::QueryError,
    plan::Expressions,
    push::blocking,
    sql::{
        self, Dialect, DialectKind, Statement, place_of_expr,
        statement::{AssertRows, AssertSource, Named, Options},
    },
};

/// The keys of WITH that ASSERT STREAM and TABLE compare.
const LOOKED_AT: [&str; 9] =
    ["topic", "partitions", "format", "key_format", "value_format", "key_delimiter", "value_delimiter", "timestamp", "timestamp_format"];

/// How many records of each topic were asserted already.
#[derive(Clone, Debug, Default)]
pub struct Checks {
    seen: BTreeMap<TopicName, usize>,
}

/// What became of a statement of a file of tests.
pub enum Checked {
    /// It was executed.
    Executed(Box<Answer>),
    /// What it asserts holds.
    Held,
    /// What it asserts does not hold: what is different, in lines.
    Differs(String),
}

impl Engine {
    /// Executes a statement of a file of tests, or looks whether what it asserts holds.
    ///
    /// Each ASSERT VALUES is about the next records of its topic, behind those that were asserted before.
    ///
    /// # Errors
    /// As [`Engine::execute`]; [`QueryError::Invalid`] for an assertion that cannot be meant.
    pub async fn check(&self, request: Request, checks: &mut Checks) -> Result<Checked, QueryError> {
        let request = substituted(request)?;
        let text = request.sql.clone();
        let dialect = self.core.dialect(&request.session);
        let checked = match sql::parse(&text, dialect)? {
            Statement::AssertRows(assert) => self.check_rows(&assert, dialect, &request, checks).await,
            Statement::AssertSource(assert) => self.core.check_source(&assert),
            Statement::Push(_) | Statement::Print(_) => {
                let refused = "this does not end; what a topic holds is checked with ASSERT VALUES, NULL VALUES, STREAM or TABLE";
                Err(QueryError::Invalid(refused.to_owned()))
            }
            _ => return self.execute(request).await.map(|answer| Checked::Executed(Box::new(answer))),
        };
        checked.map_err(|error| sql::located(error, &text))
    }

    async fn check_rows(
        &self,
        assert: &AssertRows,
        dialect: Dialect,
        request: &Request,
        checks: &mut Checks,
    ) -> Result<Checked, QueryError> {
        let core = &self.core;
        let catalog = core.snapshot();
        let source = Arc::clone(catalog.source(&assert.name)?);
        let until = core.head();
        let writers = catalog.queries().filter(|query| query.sink == source.name);
        for query in writers {
            core.supervisor.wait(query.id.as_str(), until, core.timeout(request)).await?;
        }
        let columns = asserted_columns(&source, assert, dialect)?;
        let expected =
            assert.rows.iter().map(|row| core.expected(row, &columns, dialect, request, assert.is_null)).collect::<Result<Vec<_>, _>>()?;
        let (log, reading) = (Arc::clone(&core.log), Arc::clone(&source));
        let wanted: Vec<WantedColumn> = columns.iter().map(|column| column.wanted).collect();
        let records = blocking(move || Records::read(log.as_ref(), &reading, &wanted)).await?;
        let seen = checks.seen.entry(source.topic.clone()).or_default();
        for expected in &expected {
            let place = *seen;
            *seen += 1;
            if let Some(difference) = records.difference(&source.name, place, expected, &columns) {
                return Ok(Checked::Differs(difference));
            }
        }
        Ok(Checked::Held)
    }
}

/// A column that an assertion is about.
struct Asserted {
    name: String,
    wanted: WantedColumn,
    data_type: DataType,
}

/// The columns named, or those that a row has if none are.
fn asserted_columns(source: &Source, assert: &AssertRows, dialect: Dialect) -> Result<Vec<Asserted>, QueryError> {
    let declared = |place: usize| {
        let column = source.columns.get(place)?;
        Some(Asserted { name: column.name.clone(), wanted: WantedColumn::Declared(place), data_type: column.data_type.clone() })
    };
    if assert.columns.is_empty() {
        let is_meant = |place: &usize| {
            source.header(*place).is_none() && source.columns.get(*place).is_some_and(|column| !assert.is_null || column.key)
        };
        return Ok((0..source.columns.len()).filter(is_meant).filter_map(declared).collect());
    }
    let mut columns = Vec::new();
    for Named { name, place } in &assert.columns {
        // Columns that need no declaration are called so in both dialects.
        let wanted =
            source.column(name).or_else(|| source.column(&name.to_lowercase()).filter(|column| matches!(column, WantedColumn::Pseudo(_))));
        let column = match wanted {
            Some(WantedColumn::Declared(place)) => declared(place),
            Some(wanted @ WantedColumn::Pseudo(_)) => source.wanted_field(wanted).map(|field| Asserted {
                name: name.clone(),
                wanted,
                data_type: match (field.data_type(), dialect.kind) {
                    // In ksqlDB a time is its milliseconds.
                    (DataType::Timestamp(..), DialectKind::Ksql) => DataType::Int64,
                    (other, _) => other.clone(),
                },
            }),
            None => None,
        };
        let Some(column) = column else {
            let hint = nearest(name, source.columns.iter().map(|column| column.name.as_str()));
            return Err(QueryError::Unknown { what: "column", name: name.clone(), hint, place: Some(*place) });
        };
        columns.push(column);
    }
    Ok(columns)
}

/// What a record is to be.
struct Expected {
    values: Vec<ScalarValue>,
    is_null: bool,
}

impl Core {
    fn expected(
        &self,
        row: &[datafusion::sql::sqlparser::ast::Expr],
        columns: &[Asserted],
        dialect: Dialect,
        request: &Request,
        is_null: bool,
    ) -> Result<Expected, QueryError> {
        if row.len() != columns.len() {
            let names = columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ");
            let refused = QueryError::Invalid(format!("{} values for {} columns: {names}", row.len(), columns.len()));
            return Err(refused.at(|| row.get(columns.len()).or(row.first()).and_then(place_of_expr)));
        }
        let catalog = self.snapshot();
        let expressions: Expressions = self.expressions.of(dialect);
        let values = row.iter().zip(columns).map(|(written, column)| {
            let mut written = written.clone();
            self.expand_types(&catalog, dialect, &mut written)?;
            let value = expressions.constant(&written, &column.data_type, &request.parameters, self.now())?;
            // As the column of a record is.
            let is_time = matches!(column.wanted, WantedColumn::Pseudo(_)) && column.data_type == DataType::Int64;
            let is_rowtime = is_time && column.name.eq_ignore_ascii_case("rowtime");
            let data_type = if is_rowtime { timestamp_type() } else { column.data_type.clone() };
            value.cast_to(&data_type).map_err(|error| QueryError::Execution(error.to_string()))
        });
        Ok(Expected { values: values.collect::<Result<_, _>>()?, is_null })
    }

    fn check_source(&self, assert: &AssertSource) -> Result<Checked, QueryError> {
        let catalog = self.snapshot();
        let source = catalog.source(&assert.name)?;
        let differences = self.differences(&catalog, source, assert)?;
        if differences.is_empty() { Ok(Checked::Held) } else { Ok(Checked::Differs(differences.join("\n"))) }
    }

    /// In what a source is not as it is asserted.
    fn differences(&self, catalog: &Catalog, source: &Source, assert: &AssertSource) -> Result<Vec<String>, QueryError> {
        let mut differences = Vec::new();
        let name = &source.name;
        if source.kind != assert.kind {
            differences.push(format!("{name} is a {}, not a {}", source.kind, assert.kind));
            return Ok(differences);
        }
        if let Some(columns) = &assert.columns {
            let (columns, headers) = declared_columns(catalog, assert.kind, name, columns.clone())?;
            let told = Source { columns, headers, ..source.clone() };
            let (expected, found) = (column_list(&told), column_list(source));
            if expected != found {
                differences.push(format!("expected columns: {expected}\nfound columns:    {found}"));
            }
        }
        let Options {
            topic,
            format,
            key_format,
            value_format,
            key_delimiter,
            value_delimiter,
            timestamp,
            timestamp_format,
            partitions,
            ..
        } = assert.options.clone();
        if let Some((key, place)) = assert.options.places.iter().find(|(key, _)| !LOOKED_AT.contains(key)) {
            let (kind, known) = (source.kind.to_string().to_uppercase(), LOOKED_AT.join(", "));
            return Err(QueryError::Invalid(format!("ASSERT {kind} does not look at {key} of WITH, but at {known}")).at(|| Some(*place)));
        }
        let mut compare = |what: &str, expected: Option<String>, found: Option<String>| {
            if expected.is_some() && expected != found {
                let shown = |value: Option<String>| value.unwrap_or_else(|| "none".to_owned());
                differences.push(format!("{what}: expected {}, found {}", shown(expected), shown(found)));
            }
        };
        let partition_count = self.log.topic(&source.topic)?.settings.partitions;
        let delimiter = |format| match format {
            crate::catalog::Format::Delimited(delimiter) => Some(delimiter.to_string()),
            _ => None,
        };
        compare("topic", topic, Some(source.topic.to_string()));
        compare("partitions", partitions.map(|count| count.to_string()), Some(partition_count.to_string()));
        let has_key = source.columns.iter().any(|column| column.key);
        compare("key_format", key_format.or_else(|| format.clone().filter(|_| has_key)), Some(source.key_format.to_string()));
        compare("value_format", value_format.or(format), Some(source.value_format.to_string()));
        compare("key_delimiter", key_delimiter, delimiter(source.key_format));
        compare("value_delimiter", value_delimiter, delimiter(source.value_format));
        let time = source.timestamp.and_then(|place| source.columns.get(place)).map(|column| column.name.clone());
        compare("timestamp", timestamp, time);
        compare("timestamp_format", timestamp_format, source.timestamp_format.clone());
        Ok(differences)
    }
}

fn column_list(source: &Source) -> String {
    let column = |(place, column): (usize, &crate::catalog::Column)| {
        let mark = match (source.header(place), source.kind) {
            (Some(header), _) => header.name.as_ref().map_or(" HEADERS".to_owned(), |name| format!(" HEADER('{name}')")),
            (None, SourceKind::Stream) if column.key => " KEY".to_owned(),
            (None, SourceKind::Table) if column.key => " PRIMARY KEY".to_owned(),
            (None, _) => String::new(),
        };
        format!("{} {}{mark}", column.name, type_name(&column.data_type))
    };
    source.columns.iter().enumerate().map(column).collect::<Vec<_>>().join(", ")
}

/// A record as it was found.
#[derive(Clone, Debug, PartialEq)]
struct Found {
    values: Vec<ScalarValue>,
    is_null: bool,
}

/// Every record of a source that could be read, with the columns that are looked at.
struct Records {
    found: Vec<Found>,
    /// Records that could not be read.
    unread: u64,
}

impl Records {
    fn read(log: &dyn LogBackend, source: &Source, wanted: &[WantedColumn]) -> Result<Self, QueryError> {
        let until = log.head().position;
        let mut reader = log.reader(Selection::Topics(vec![source.topic.clone()], Position::default()))?;
        let mut decoder = Decoder::new(source, wanted)?;
        let mut records = Self { found: Vec::new(), unread: 0 };
        loop {
            let chunk = reader.read(until, ReadLimits::default())?;
            let decoded = decoder.decode(&chunk.runs)?;
            records.unread += decoded.bad.iter().filter(|bad| bad.column.is_none()).count() as u64;
            for row in 0..decoded.batch.num_rows() {
                let values = decoded.batch.columns().iter().map(|column| ScalarValue::try_from_array(column, row));
                let values = values.collect::<Result<_, _>>().map_err(|error| QueryError::Execution(error.to_string()))?;
                let is_null = decoded.value_null.as_ref().is_some_and(|null| null.value(row));
                records.found.push(Found { values, is_null });
            }
            if chunk.scanned_to >= until {
                return Ok(records);
            }
        }
    }

    /// In what the record at a place is not as expected, with the one that is most like it.
    fn difference(&self, name: &str, place: usize, expected: &Expected, columns: &[Asserted]) -> Option<String> {
        let wanted = Found { values: expected.values.clone(), is_null: expected.is_null };
        let found = self.found.get(place);
        if found == Some(&wanted) {
            return None;
        }
        let number = place + 1;
        let mut told = match found {
            None => format!("record {number} of {name} is missing: {}", self.there_are()),
            Some(found) if found.is_null != wanted.is_null => {
                let (has, needs) = if found.is_null { ("has no value", "one") } else { ("has a value", "none") };
                format!("record {number} of {name} {has}, expected was {needs}")
            }
            Some(found) => {
                let differs = columns.iter().zip(found.values.iter().zip(&wanted.values)).filter(|(_, (found, wanted))| found != wanted);
                let names: Vec<&str> = differs.map(|(column, _)| column.name.as_str()).collect();
                format!("record {number} of {name} differs in {}", names.join(", "))
            }
        };
        told.push_str(&format!("\nexpected: {}", shown(&wanted, columns)));
        if let Some(found) = found {
            told.push_str(&format!("\nfound:    {}", shown(found, columns)));
        }
        let like = |one: &Found| {
            let same = one.values.iter().zip(&wanted.values).filter(|(one, wanted)| one == wanted).count();
            same + usize::from(one.is_null == wanted.is_null)
        };
        let others = self.found.iter().enumerate().filter(|(other, _)| *other != place);
        // Of those that are as like as each other the first is named.
        let nearest = others.rev().max_by_key(|(_, one)| like(one));
        if let Some((other, nearest)) = nearest.filter(|(_, nearest)| like(nearest) > found.map_or(1, like)) {
            told.push_str(&format!("\nnearest:  {} (record {})", shown(nearest, columns), other + 1));
        }
        if self.unread > 0 {
            told.push_str(&format!("\n{} records of the topic could not be read", self.unread));
        }
        Some(told)
    }

    fn there_are(&self) -> String {
        match self.found.len() {
            0 => "there are none".to_owned(),
            1 => "there is 1".to_owned(),
            count => format!("there are {count}"),
        }
    }
}

fn shown(record: &Found, columns: &[Asserted]) -> String {
    let value = |value: &ScalarValue| match value {
        value if value.is_null() => "NULL".to_owned(),
        ScalarValue::Utf8(Some(text)) => format!("'{}'", text.replace('\'', "''")),
        value => value.to_array().and_then(|array| Ok(array_value_to_string(array.as_ref(), 0)?)).unwrap_or_else(|_| value.to_string()),
    };
    let each = columns.iter().zip(&record.values).map(|(column, one)| format!("{} = {}", column.name, value(one)));
    let each = each.collect::<Vec<_>>().join(", ");
    if record.is_null { format!("({each}), no value") } else { format!("({each})") }
}
