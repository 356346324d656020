//! A view that a persistent query keeps, pinned at one position for one query.
//!
//! A filter that names every key column with `=` or `IN` becomes lookups, exactly; anything else reads the view batch by batch.

use std::{collections::HashSet, sync::Arc};

use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::ScalarValue,
    error::Result,
    execution::TaskContext,
    logical_expr::{Expr, TableProviderFilterPushDown, TableType},
    physical_plan::ExecutionPlan,
};

use super::{Readable, Rows, filter, scan::ScanExec};
use crate::{
    error::QueryError,
    stream::{
        fold::ROWTIME,
        operator::codec::key_form,
        view::{Part, Pinned},
    },
};

/// Most keys that are looked up one by one; with more, the view is read and filtered.
const MAX_LOOKUPS: usize = 10_000;

/// A pinned view as a table.
#[derive(Debug)]
pub(crate) struct ViewTable {
    name: String,
    pinned: Arc<Pinned>,
    keys: usize,
    /// Places of the visible columns in the view.
    columns: Vec<usize>,
    schema: SchemaRef,
}

impl ViewTable {
    /// The view's declared columns, and `rowtime` only for a query whose text names it.
    pub(crate) fn new(name: &str, pinned: Arc<Pinned>, keys: usize, named: &HashSet<String>) -> Result<Self, QueryError> {
        let whole = pinned.schema();
        let last = whole.fields().len().saturating_sub(1);
        let is_hidden = |place: usize, name: &str| place == last && name == ROWTIME && !named.contains(name);
        let columns: Vec<usize> =
            whole.fields().iter().enumerate().filter(|(place, field)| !is_hidden(*place, field.name())).map(|(place, _)| place).collect();
        let schema = whole.project(&columns).map_err(|fault| QueryError::Execution(fault.to_string()))?;
        Ok(Self { name: name.to_owned(), pinned, keys, columns, schema: Arc::new(schema) })
    }

    /// Names of the columns that are no part of a `*`.
    pub(crate) fn hidden(&self) -> Vec<String> {
        let last = self.pinned.schema().fields().len().saturating_sub(1);
        let shows_rowtime =
            self.columns.contains(&last) && self.pinned.schema().fields().last().is_some_and(|field| field.name() == ROWTIME);
        shows_rowtime.then(|| ROWTIME.to_owned()).into_iter().collect()
    }

    /// The keys that the filters leave, if they name every key column; each as long as the key.
    fn lookups(&self, filters: &[&Expr]) -> Option<Vec<Vec<ScalarValue>>> {
        let mut keys: Vec<Vec<ScalarValue>> = vec![Vec::new()];
        if self.keys == 0 {
            return None;
        }
        for field in self.schema.fields().iter().take(self.keys) {
            let allowed = filters.iter().filter_map(|one| filter::values(one)).find(|(name, _)| name == field.name())?.1;
            if keys.len().saturating_mul(allowed.len()) > MAX_LOOKUPS {
                return None;
            }
            let mut distinct: Vec<ScalarValue> = Vec::new();
            let mut seen = HashSet::new();
            for value in allowed {
                if value.data_type() != *field.data_type() {
                    return None;
                }
                // Two zeros are one key.
                let value = match value {
                    ScalarValue::Float64(Some(double)) => ScalarValue::Float64(Some(key_form(*double))),
                    other => other.clone(),
                };
                // NULL equals nothing.
                if !value.is_null() && seen.insert(value.clone()) {
                    distinct.push(value);
                }
            }
            let with = |key: &Vec<ScalarValue>| {
                let key = key.clone();
                distinct.iter().map(move |value| key.iter().cloned().chain([value.clone()]).collect()).collect::<Vec<_>>()
            };
            keys = keys.iter().flat_map(with).collect();
        }
        Some(keys)
    }
}

#[async_trait]
impl TableProvider for ViewTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let found = self.lookups(filters).is_some();
        let is_key = |name: &str| self.schema.fields().iter().take(self.keys).any(|field| field.name() == name);
        // Never exact: what is pushed down may be rewritten afterwards into something that names no keys any more, and all rows are read.
        let of = |one: &&Expr| match filter::values(one) {
            Some((name, _)) if found && is_key(name) => TableProviderFilterPushDown::Inexact,
            _ => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(of).collect())
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let chosen: Vec<usize> = match projection {
            Some(places) => places.iter().filter_map(|place| self.columns.get(*place).copied()).collect(),
            None => self.columns.clone(),
        };
        let schema = Arc::new(self.pinned.schema().project(&chosen)?);
        let keys = self.lookups(&filters.iter().collect::<Vec<_>>());
        let how = keys.as_ref().map_or_else(|| "all rows".to_owned(), |keys| format!("lookup of {} keys", keys.len()));
        let label = format!("view {}, {how}, at position {}", self.name, self.pinned.position());
        let rows = ViewRows { pinned: Arc::clone(&self.pinned), keys, chosen };
        Ok(Arc::new(ScanExec::new(label, schema, Arc::new(rows))))
    }
}

#[derive(Debug)]
struct ViewRows {
    pinned: Arc<Pinned>,
    keys: Option<Vec<Vec<ScalarValue>>>,
    chosen: Vec<usize>,
}

impl ViewRows {
    fn project(&self, batch: &RecordBatch) -> Result<RecordBatch, QueryError> {
        batch.project(&self.chosen).map_err(|fault| QueryError::Execution(fault.to_string()))
    }
}

impl Readable for ViewRows {
    fn open(self: Arc<Self>, _: &TaskContext) -> Result<Vec<Part<Rows>>, QueryError> {
        let Some(keys) = self.keys.clone() else {
            let parts = self.pinned.parts().map(|part| match part {
                Part::AtHand(rows) => Ok(Part::AtHand(self.project(&rows)?)),
                Part::ToRead(rows) => {
                    let of = Arc::clone(&self);
                    Ok(Part::ToRead(Box::new(rows.map(move |batch| of.project(&batch?))) as Rows))
                }
            });
            return parts.collect();
        };
        let found = keys.into_iter().filter_map(move |key| match self.pinned.get(&key) {
            Ok(Some(batch)) => Some(self.project(&batch)),
            Ok(None) => None,
            Err(fault) => Some(Err(fault)),
        });
        Ok(vec![Part::ToRead(Box::new(found))])
    }
}
