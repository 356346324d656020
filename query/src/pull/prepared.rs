//! The short way of a query that names one view and values for each of its key columns: no plan, no threads, and from the second
//! time on no parser either.
//!
//! Called by `pull` and, before a statement is parsed, by `engine`. What always holds: what a remembered lookup does not answer
//! (a value of another type, a view that is gone or cannot be read now) goes the long way, which alone reports errors. A name
//! means another view only after the one that it meant is gone.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use arrow::{compute::concat_batches, datatypes::SchemaRef, record_batch::RecordBatch};
use datafusion::{common::ScalarValue, error::DataFusionError, sql::sqlparser::ast};
use parking_lot::RwLock;
use tokio::time::Instant;

use super::{
    Pull, left,
    lookup::{self, Key, KeyMaker},
    session,
    shape::Shape,
};
use crate::{
    answer::{Answer, Batches, Request},
    catalog::Catalog,
    error::QueryError,
    sql::DialectKind,
    stream::view::View,
};

/// Bytes of several rows that are answered in one piece.
const MOST_BYTES: usize = 4 << 20;

/// Lookups that are remembered; one more, and all are forgotten.
const MOST: usize = 512;

/// Lookups by the shape of their statement.
#[derive(Default)]
pub(super) struct PreparedLookups {
    by_shape: RwLock<HashMap<(DialectKind, String), Arc<Prepared>>>,
}

/// A lookup in a view that lacks nothing but its values.
struct Prepared {
    /// Not kept alive by us.
    view: Weak<View>,
    key: KeyMaker,
    /// Columns of the view that are asked for, as the answer names them.
    places: Vec<usize>,
    schema: SchemaRef,
    /// Places of key columns in the answer.
    keys: Vec<usize>,
    /// How many parameters the statement has.
    parameters: usize,
}

impl PreparedLookups {
    fn find(&self, dialect: DialectKind, shape: String) -> Option<Arc<Prepared>> {
        self.by_shape.read().get(&(dialect, shape)).cloned()
    }

    fn remember(&self, dialect: DialectKind, shape: Shape, prepared: Arc<Prepared>) {
        let mut by_shape = self.by_shape.write();
        if by_shape.len() >= MOST {
            by_shape.clear();
        }
        by_shape.insert((dialect, shape.text), prepared);
    }
}

impl Prepared {
    /// The answer, read from the view as it is now; none if the rows are too large to be put together at once.
    fn answer(&self, view: &View, keys: &[Key]) -> Result<Option<Answer>, QueryError> {
        let (found, position) = view.get(keys)?;
        let bytes: usize = found.iter().map(RecordBatch::get_array_memory_size).sum();
        let rows = match found.as_slice() {
            [] => None,
            [row] => Some(self.named(row)?),
            _ if bytes > MOST_BYTES => return Ok(None),
            rows => Some(self.named(&concat_batches(&view.schema(), rows).map_err(|fault| session::query_error(fault.into()))?)?),
        };
        Ok(Some(Answer {
            schema: Arc::clone(&self.schema),
            keys: self.keys.clone(),
            batches: Batches::AtHand(rows),
            position,
            done: None,
            session: None,
        }))
    }

    /// The columns that are asked for, under the names of the answer.
    fn named(&self, row: &RecordBatch) -> Result<RecordBatch, QueryError> {
        let columns = self.places.iter().map(|place| Arc::clone(row.column(*place))).collect();
        RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(|fault| session::query_error(DataFusionError::from(fault)))
    }
}

impl Pull {
    /// Answers a statement without parsing it, if one of its shape was answered before and the view can answer at once; none for
    /// any other.
    pub(crate) fn answer_prepared(&self, dialect: DialectKind, request: &Request) -> Option<Answer> {
        let Shape { text, literals } = Shape::of(&request.sql)?;
        let prepared = self.shared.prepared.find(dialect, text)?;
        if prepared.parameters != request.parameters.len() {
            return None;
        }
        let view = prepared.view.upgrade()?;
        if request.at_least.is_some_and(|wanted| view.frontier() < wanted) {
            return None;
        }
        let keys = prepared.key.keys(&literals, &request.parameters)?;
        prepared.answer(&view, &keys).ok().flatten()
    }

    /// Answers a lookup without planning it, and remembers it; none for any other query.
    pub(super) async fn look_up(
        &self,
        catalog: &Catalog,
        query: &ast::Query,
        dialect: DialectKind,
        request: &Request,
        deadline: Instant,
    ) -> Result<Option<Answer>, QueryError> {
        let Some((view, prepared, literals)) = self.prepare(catalog, query) else { return Ok(None) };
        let Some(keys) = prepared.key.keys(&literals, &request.parameters) else { return Ok(None) };
        if let Some(at_least) = request.at_least {
            view.wait(at_least, left(deadline)).await?;
        }
        let Some(answer) = prepared.answer(&view, &keys)? else { return Ok(None) };
        let prepared = Prepared { parameters: request.parameters.len(), ..prepared };
        if let Some(shape) = Shape::of(&request.sql).filter(|shape| shape.literals == literals) {
            self.shared.prepared.remember(dialect, shape, Arc::new(prepared));
        }
        Ok(Some(answer))
    }

    /// The view in which a query looks keys up, if that is all it does.
    pub(super) fn view_to_look_up(&self, catalog: &Catalog, query: &ast::Query, request: &Request) -> Option<Arc<View>> {
        let (view, prepared, literals) = self.prepare(catalog, query)?;
        prepared.key.keys(&literals, &request.parameters)?;
        Some(view)
    }

    fn prepare(&self, catalog: &Catalog, query: &ast::Query) -> Option<(Arc<View>, Prepared, Vec<ScalarValue>)> {
        let lookup = lookup::recognise(query)?;
        let source = catalog.source(lookup.table()).ok()?;
        let view = self.shared.supervisor.view_of(source).ok().flatten()?;
        let schema = view.schema();
        let key = lookup.key(&schema, view.keys())?;
        let (places, schema) = lookup.columns(&schema)?;
        let keys = places.iter().enumerate().filter(|(_, place)| **place < view.keys()).map(|(at, _)| at).collect();
        let prepared = Prepared { view: Arc::downgrade(&view), key, places, schema, keys, parameters: 0 };
        Some((view, prepared, lookup.literals().to_vec()))
    }
}
