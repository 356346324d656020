//! What is kept of queries over restarts: read when they start, written by `stream/checkpoint/keeper` while they run.

use std::{collections::BTreeSet, sync::Arc};

use foldlog_log::{LogError, TopicName};

use super::{Supervisor, shape::Shape};
use crate::{
    catalog::QueryDef,
    error::QueryError,
    plan::StreamPlan,
    stream::{
        checkpoint::{Identity, Saved, debt::Debt, keeper::Registered},
        fold::Fold,
        query::Query,
    },
};

impl Supervisor {
    /// Reads what was kept of a query's state into its fold, which is empty.
    pub(super) fn restore(&self, def: &QueryDef, plan: &StreamPlan, shape: &Shape) -> Result<Restored, QueryError> {
        let inner = &self.inner;
        let (Some(keeper), Some(fold)) = (&inner.keeper, &shape.fold) else { return Ok(Restored::default()) };
        let sources = plan.sources.iter().map(|scan| inner.log.topic(&scan.source.topic).map(|topic| topic.id));
        let sources = sources.collect::<Result<Vec<_>, _>>()?;
        let tables = fold.names().to_vec();
        let identity = Identity::new(&inner.log.head(), def.id.as_str(), (def.start, plan.fingerprint), &sources, tables);
        let (saved, set_aside) = match keeper.restore(&identity, fold) {
            Ok(saved) => (saved, None),
            Err(reason) => (None, Some(reason)),
        };
        Ok(Restored { identity: Some(identity), saved, set_aside })
    }

    /// Has the state of a query kept over restarts from now on, and holds what it would fold again.
    pub(super) fn keep(&self, query: &Arc<Query>, fold: Option<&Arc<Fold>>, reads: &TopicName, restored: Restored) -> Option<Arc<Debt>> {
        let (keeper, fold) = (self.inner.keeper.as_ref()?, fold?);
        let Restored { identity, saved, set_aside } = restored;
        if let Some(saved) = &saved {
            query.saved(saved.position, saved.bytes());
            // A topic that is not there any more holds nothing.
            drop(self.inner.log.hold(query.id(), reads, saved.position));
        }
        if let Some(reason) = set_aside {
            query.set_aside(reason);
        }
        let (query, fold, reads) = (Arc::clone(query), Arc::clone(fold), vec![reads.clone()]);
        let registered = Registered { identity: identity?, query, fold, reads, saved };
        Some(Arc::clone(&keeper.register(registered).debt))
    }

    /// Writes checkpoints of all queries that folded something since theirs (blocking).
    pub fn checkpoint(&self) {
        if let Some(keeper) = &self.inner.keeper {
            keeper.save_all();
        }
    }

    /// Removes the checkpoints of all but these queries, which are all there are (blocking).
    pub(crate) fn keep_only(&self, queries: &BTreeSet<&str>) {
        if let Some(keeper) = &self.inner.keeper {
            keeper.forget_all_but(queries);
        }
    }

    /// Removes the checkpoints of queries, and takes none until they are allowed or started again (blocking).
    pub(crate) fn bar_checkpoints(&self, queries: &[String]) {
        if let Some(keeper) = &self.inner.keeper {
            keeper.bar(queries);
        }
    }

    /// Takes checkpoints of queries again.
    pub(crate) fn allow_checkpoints(&self, queries: &[String]) {
        if let Some(keeper) = &self.inner.keeper {
            keeper.allow(queries);
        }
    }
}

/// What was kept of a query's state.
#[derive(Default)]
pub(super) struct Restored {
    /// Whose it is; none: nothing is kept.
    pub(super) identity: Option<Identity>,
    pub(super) saved: Option<Saved>,
    /// Why what was there cannot be gone on from.
    pub(super) set_aside: Option<String>,
}

impl Restored {
    /// Says what a fold from the beginning misses, if something of it was removed.
    pub(super) fn note(&mut self, whole: Result<(), LogError>) {
        let Err(missing) = whole else { return };
        tracing::warn!(%missing, "a query folds again what is left");
        let before = self.set_aside.take().map(|reason| format!("{reason}; "));
        self.set_aside = Some(format!("{}{missing}", before.unwrap_or_default()));
    }
}
