//! TERMINATE, PAUSE and RESUME: what is done to queries that run. Called on the catalog's thread alone.

use std::sync::Arc;

use super::{Core, done};
use crate::{
    answer::Answer,
    catalog::{Catalog, Change, QueryDef},
    error::QueryError,
    sql::statement::QueryAction,
};

impl Core {
    /// Does it to one query, or to all: ends those first that read what others write.
    pub(super) fn change_queries(&self, action: QueryAction, id: Option<&str>) -> Result<Answer, QueryError> {
        let catalog = self.snapshot();
        let chosen: Vec<Arc<QueryDef>> = match id {
            Some(id) => vec![Arc::clone(catalog.query(id)?)],
            None => catalog.queries().rev().cloned().collect(),
        };
        let (mut end, mut told) = (self.head(), Vec::new());
        for query in &chosen {
            let is_paused = catalog.is_paused(&query.id);
            let change = match action {
                QueryAction::Terminate => {
                    check_nobody_reads(&self.snapshot(), query)?;
                    told.push(format!("query {} ended; {} stays as it is", query.id, query.sink));
                    Change::Terminate { query: query.id.clone() }
                }
                QueryAction::Pause if is_paused => {
                    told.push(format!("query {} is paused already", query.id));
                    continue;
                }
                QueryAction::Pause => {
                    told.push(format!("query {} paused", query.id));
                    Change::Pause { query: query.id.clone() }
                }
                QueryAction::Resume if !is_paused => {
                    told.push(format!("query {} is not paused", query.id));
                    continue;
                }
                QueryAction::Resume => {
                    told.push(format!("query {} goes on", query.id));
                    Change::Resume { query: query.id.clone() }
                }
            };
            end = self.commit(&change)?;
            match action {
                QueryAction::Terminate => self.end_query(&query.id),
                QueryAction::Pause => self.supervisor.pause(query.id.as_str()),
                QueryAction::Resume => self.supervisor.resume(query.id.as_str()),
            }
        }
        let what = if told.is_empty() { "there are no queries".to_owned() } else { told.join("; ") };
        Ok(done(end, what))
    }
}

/// A query that made what others read cannot end before them.
fn check_nobody_reads(catalog: &Catalog, query: &QueryDef) -> Result<(), QueryError> {
    // A stream that was there before the query does without it.
    let made_it = catalog.source(&query.sink).is_ok_and(|sink| sink.query.as_ref() == Some(&query.id));
    let readers: Vec<&str> = catalog.dependants(&query.sink).filter(|_| made_it).map(|query| query.id.as_str()).collect();
    if readers.is_empty() {
        return Ok(());
    }
    Err(QueryError::InUse { name: format!("what query {} writes, {},", query.id, query.sink), dependants: readers.join(", ") })
}
