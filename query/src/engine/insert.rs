//! INSERT INTO ... VALUES: rows as records, one unit. Called on the catalog's thread alone.

use std::sync::Arc;

use arrow::{datatypes::DataType, record_batch::RecordBatch};
use datafusion::common::ScalarValue;
use foldlog_log::{NewRecord, Timestamp, TopicKind, Write};

use super::{Core, done};
use crate::{
    answer::{Answer, Request},
    catalog::{Source, SourceKind, nearest, schema_of, timestamp_type},
    codec::Encoder,
    error::QueryError,
    sql::{
        Dialect, DialectKind, place_of_expr,
        statement::{InsertValues, Named},
    },
};

/// Where a written value goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Column(usize),
    RowTime,
}

impl Core {
    pub(super) fn insert(&self, insert: &InsertValues, request: &Request) -> Result<Answer, QueryError> {
        let catalog = self.snapshot();
        let (dialect, parameters) = (self.dialect(&request.session), request.parameters.as_slice());
        let expressions = self.expressions.of(dialect);
        let source = Arc::clone(catalog.source(&insert.name)?);
        check_writable(&source)?;
        let targets = targets(&source, dialect, &insert.columns)?;

        let mut columns: Vec<Vec<ScalarValue>> = vec![Vec::with_capacity(insert.rows.len()); source.columns.len()];
        let rowtime_type = match dialect.kind {
            DialectKind::Standard => timestamp_type(),
            DialectKind::Ksql => DataType::Int64,
        };
        let mut times = Vec::with_capacity(insert.rows.len());
        let now = self.now();
        for (number, row) in insert.rows.iter().enumerate() {
            if row.len() != targets.len() {
                let (given, wanted) = (row.len(), targets.len());
                let counted = |count: usize, what: &str| if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") };
                let (given, columns) = (counted(given, "value"), counted(wanted, "column"));
                let refused = QueryError::Invalid(format!("row {} has {given} for {columns}", number + 1));
                // At the first that is too much, or where the row begins.
                return Err(refused.at(|| row.get(wanted).or(row.first()).and_then(place_of_expr)));
            }
            for (place, (values, column)) in columns.iter_mut().zip(&source.columns).enumerate() {
                let written = targets.iter().position(|target| *target == Target::Column(place)).and_then(|at| row.get(at));
                let value = match written {
                    Some(written) => {
                        let mut written = written.clone();
                        self.expand_types(&catalog, dialect, &mut written)?;
                        expressions
                            .constant(&written, &column.data_type, parameters, now)
                            .map_err(|error| in_row(number, &column.name, error))?
                    }
                    None => null(&column.data_type)?,
                };
                if value.is_null() && column.key && source.kind == SourceKind::Table {
                    let refused = QueryError::Invalid(format!("row {}: key column {} of a table cannot be NULL", number + 1, column.name));
                    return Err(refused.at(|| written.or(row.first()).and_then(place_of_expr)));
                }
                values.push(value);
            }
            let time = targets.iter().position(|target| *target == Target::RowTime).and_then(|at| row.get(at));
            let time = time.map(|written| expressions.constant(written, &rowtime_type, parameters, now)).transpose()?;
            times.push(match time {
                Some(ScalarValue::TimestampMillisecond(Some(ms), _) | ScalarValue::Int64(Some(ms))) => Some(Timestamp::new(ms)),
                _ => None,
            });
        }

        let arrays = columns.into_iter().map(ScalarValue::iter_to_array).collect::<Result<Vec<_>, _>>();
        let arrays = arrays.map_err(|error| QueryError::Execution(error.to_string()))?;
        let batch = RecordBatch::try_new(schema_of(&source.columns), arrays).map_err(|error| QueryError::Execution(error.to_string()))?;
        let encoder = Encoder::new(Arc::clone(&source));
        let encoded = encoder.rows(&batch)?;
        let record = |(row, time)| NewRecord { key: encoded.key(row), value: encoded.value(row), headers: Vec::new(), time };
        let records: Vec<NewRecord> = times.into_iter().enumerate().map(record).collect();
        let count = records.len();
        let appended = self.append(Write::Records { topic: source.topic.clone(), partition: None, records })?;
        let rows = if count == 1 { "1 row".to_owned() } else { format!("{count} rows") };
        Ok(done(appended.end, format!("{rows} inserted into {}", source.name)))
    }
}

pub(super) fn check_writable(source: &Source) -> Result<(), QueryError> {
    let name = &source.name;
    if let (Some(query), SourceKind::Table) = (&source.query, source.kind) {
        return Err(QueryError::Invalid(format!("table {name} is written by query {query}; insert into what it reads")));
    }
    if source.read_only {
        return Err(QueryError::Invalid(format!("{name} is a SOURCE: it is only read")));
    }
    if source.topic_kind == TopicKind::Events {
        return Err(QueryError::Unsupported(format!(
            "INSERT INTO {name}: topic {} holds events, which have a stream and a type; append them with foldlog append",
            source.topic
        )));
    }
    if source.topic.is_system() {
        return Err(QueryError::Invalid(format!("topic {} is foldlog's own", source.topic)));
    }
    Ok(())
}

fn targets(source: &Source, dialect: Dialect, named: &[Named]) -> Result<Vec<Target>, QueryError> {
    let header = |name: &str| QueryError::Invalid(format!("column {name} is a header of the record, which is only read"));
    if named.is_empty() {
        if let Some(column) = source.headers.first().and_then(|header| source.columns.get(header.place)) {
            return Err(header(&column.name));
        }
        return Ok((0..source.columns.len()).map(Target::Column).collect());
    }
    let mut targets = Vec::new();
    for Named { name, place } in named {
        let here = || Some(*place);
        let target = match source.columns.iter().position(|column| column.name == *name) {
            Some(at) if source.header(at).is_some() => return Err(header(name).at(here)),
            Some(at) => Target::Column(at),
            None if *name == dialect.fold("rowtime") => Target::RowTime,
            None => {
                let hint = nearest(name, source.columns.iter().map(|column| column.name.as_str()));
                return Err(QueryError::Unknown { what: "column", name: name.clone(), hint, place: here() });
            }
        };
        if targets.contains(&target) {
            return Err(QueryError::Invalid(format!("column {name} is named twice")).at(here));
        }
        targets.push(target);
    }
    Ok(targets)
}

pub(super) fn null(data_type: &DataType) -> Result<ScalarValue, QueryError> {
    ScalarValue::try_from(data_type).map_err(|error| QueryError::Execution(error.to_string()))
}

fn in_row(number: usize, column: &str, error: QueryError) -> QueryError {
    match error {
        QueryError::At { place, error } => QueryError::At { place, error: Box::new(in_row(number, column, *error)) },
        QueryError::Invalid(message) => QueryError::Invalid(format!("row {}, column {column}: {message}", number + 1)),
        other => other,
    }
}
