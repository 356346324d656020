//! DELETE FROM table WHERE key = ...: a record without a value. Called on the catalog's thread alone.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::{
    common::ScalarValue,
    sql::sqlparser::ast::{BinaryOperator, Expr},
};
use foldlog_log::{NewRecord, Write};

use super::{Core, done, insert};
use crate::{
    answer::{Answer, Request},
    catalog::{Source, SourceKind, nearest, schema_of},
    codec::Encoder,
    error::QueryError,
    sql::{Dialect, statement::Delete},
};

impl Core {
    pub(super) fn delete(&self, delete: &Delete, request: &Request) -> Result<Answer, QueryError> {
        let catalog = self.snapshot();
        let source = Arc::clone(catalog.source(&delete.name)?);
        insert::check_writable(&source)?;
        if source.kind != SourceKind::Table {
            return Err(QueryError::Invalid(format!("{} is a stream: its records are facts, and nothing deletes them", source.name)));
        }
        let dialect = self.dialect(&request.session);
        let expressions = self.expressions.of(dialect);
        let mut given: Vec<Option<&Expr>> = vec![None; source.key_count()];
        key_of(&source, dialect, &delete.selection, &mut given)?;

        let mut values = Vec::with_capacity(source.columns.len());
        for (place, column) in source.columns.iter().enumerate() {
            let written = given.get(place).copied().flatten();
            let value = match written {
                Some(written) => {
                    let mut written = written.clone();
                    self.expand_types(&catalog, dialect, &mut written)?;
                    expressions.constant(&written, &column.data_type, &request.parameters, self.now())?
                }
                None if column.key => return Err(no_key(&source)),
                None => insert::null(&column.data_type)?,
            };
            if column.key && value.is_null() {
                return Err(QueryError::Invalid(format!("key column {} of a table is never NULL", column.name)));
            }
            values.push(value);
        }
        let arrays = values.into_iter().map(|value| ScalarValue::iter_to_array([value])).collect::<Result<Vec<_>, _>>();
        let arrays = arrays.map_err(|error| QueryError::Execution(error.to_string()))?;
        let batch = RecordBatch::try_new(schema_of(&source.columns), arrays).map_err(|error| QueryError::Execution(error.to_string()))?;
        let encoder = Encoder::new(Arc::clone(&source));
        let record = NewRecord { key: encoder.rows(&batch)?.key(0), ..NewRecord::default() };
        let appended = self.append(Write::Records { topic: source.topic.clone(), partition: None, records: vec![record] })?;
        Ok(done(appended.end, format!("a key deleted from {}", source.name)))
    }
}

/// Notes what each key column must equal.
fn key_of<'a>(source: &Source, dialect: Dialect, selection: &'a Expr, given: &mut [Option<&'a Expr>]) -> Result<(), QueryError> {
    match selection {
        Expr::Nested(inner) => key_of(source, dialect, inner, given),
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            key_of(source, dialect, left, given)?;
            key_of(source, dialect, right, given)
        }
        Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => {
            let (name, value) = match (left.as_ref(), right.as_ref()) {
                (Expr::Identifier(name), value) | (value, Expr::Identifier(name)) => (dialect.name(name), value),
                _ => return Err(no_key(source)),
            };
            let place = source.columns.iter().position(|column| column.name == name);
            match place {
                None => {
                    let hint = nearest(&name, source.columns.iter().map(|column| column.name.as_str()));
                    Err(QueryError::Unknown { what: "column", name, hint, place: None })
                }
                Some(place) => match given.get_mut(place) {
                    Some(slot @ None) => {
                        *slot = Some(value);
                        Ok(())
                    }
                    Some(Some(_)) => Err(QueryError::Invalid(format!("key column {name} is given twice"))),
                    None => Err(no_key(source)),
                },
            }
        }
        _ => Err(no_key(source)),
    }
}

fn no_key(source: &Source) -> QueryError {
    let keys: Vec<String> = source.columns.iter().filter(|column| column.key).map(|column| format!("{} = ...", column.name)).collect();
    QueryError::Invalid(format!("DELETE takes away one key of {}: WHERE {}", source.name, keys.join(" AND ")))
}
