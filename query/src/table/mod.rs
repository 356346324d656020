//! What a bounded query can read, as DataFusion tables: topics (and the streams over them), declared tables, views.
//!
//! Made for one query by `pull`, each over what was fixed when the query was planned: a topic ends at a captured position, a
//! view is pinned. Nothing here is shared between queries, nothing is unbounded.

mod filter;
mod scan;
mod topic;
mod view;

use std::{collections::HashSet, sync::Arc};

use foldlog_log::TopicKind;

use crate::{
    catalog::{Pseudo, Source, WantedColumn},
    stream::view::Part,
};

pub(crate) use topic::TopicTable;
pub(crate) use view::ViewTable;

/// Columns of a source that one query sees: the declared ones, and of the others those that its text names, so that
/// `SELECT *` gives what was declared. A topic that nobody declared shows all it has.
pub(crate) fn visible(source: &Source, named: &HashSet<String>) -> Vec<WantedColumn> {
    let is_declared = |pseudo: &Pseudo| source.columns.iter().any(|column| column.name == pseudo.name());
    let wanted = |pseudo: &Pseudo| (source.columns.is_empty() || named.contains(pseudo.name())) && !is_declared(pseudo);
    let kind: TopicKind = source.topic_kind;
    let declared = (0..source.columns.len()).map(WantedColumn::Declared);
    declared.chain(Pseudo::of(kind).iter().copied().filter(wanted).map(WantedColumn::Pseudo)).collect()
}

/// Turns an error of ours into DataFusion's, from which `pull` takes it out again.
pub(crate) fn external(error: crate::error::QueryError) -> datafusion::error::DataFusionError {
    datafusion::error::DataFusionError::External(Box::new(error))
}

/// Rows that are read when a plan runs.
pub(crate) type Rows = Box<dyn Iterator<Item = Result<arrow::record_batch::RecordBatch, crate::error::QueryError>> + Send>;

/// Something that can be read from its beginning, as often as a plan wants.
pub(crate) trait Readable: std::fmt::Debug + Send + Sync + 'static {
    /// Begins to read: parts in the order of their rows, each of which may be read on a thread of its own; blocks on files while one is
    /// iterated. Memory beyond a batch of each is taken from `context`.
    fn open(self: Arc<Self>, context: &datafusion::execution::TaskContext) -> Result<Vec<Part<Rows>>, crate::error::QueryError>;
}
