//! A plan as it is run: what goes before its state, and the state.

use std::sync::Arc;

use super::LEAST_UNDO;
use crate::{
    catalog::{Source, SourceKind},
    error::QueryError,
    plan::{Node, Sink, StreamPlan},
    sql::dialect::Changelog,
    stream::{
        fold::{Content, Fold},
        operator::{aggregate::Aggregation, chain::Chain, copy::Copy, newest::Newest},
        scanned::Scans,
    },
};

/// The parts of a plan as they are run.
pub(super) struct Shape {
    pub(super) source: Arc<Source>,
    pub(super) before: Chain,
    pub(super) fold: Option<Arc<Fold>>,
}

impl Shape {
    pub(super) fn of(plan: &StreamPlan, state_budget: usize, scans: Option<&Arc<Scans>>) -> Result<Self, QueryError> {
        let source = Arc::clone(&plan.source()?.source);
        let is_state = |node: &Node| matches!(node, Node::Aggregate { .. } | Node::Copy { .. } | Node::Newest { .. });
        let (before, rest) = plan.nodes.split_at(plan.nodes.iter().position(is_state).unwrap_or(plan.nodes.len()));
        let before = Chain::new(before)?;
        let (content, after) = match rest {
            [] => {
                return match plan.sink {
                    Sink::Stream(_) => Ok(Self { source, before, fold: None }),
                    Sink::Table(_) | Sink::Volatile => Err(QueryError::Unsupported("a table without GROUP BY".to_owned())),
                };
            }
            [Node::Newest { keys, schema, .. }, after @ ..] => {
                let tells_all = plan.changelog == Changelog::Every;
                (Content::Newest(Newest::new(*keys, schema, tells_all)?), Chain::new(after)?)
            }
            [Node::Copy { keys: of_source, schema: input, .. }, Node::Aggregate { keys, calls, having, schema, .. }, after @ ..] => {
                let content = Content::Groups(Aggregation::new(keys, calls, schema, true)?, Some(Copy::new(*of_source, input)?));
                (content, Chain::new(after)?.after_filter(having.clone()))
            }
            [Node::Aggregate { keys, calls, having, schema, .. }, after @ ..] => {
                let content = Content::Groups(Aggregation::new(keys, calls, schema, false)?, None);
                (content, Chain::new(after)?.after_filter(having.clone()))
            }
            [Node::Copy { .. } | Node::Filter { .. } | Node::Project { .. } | Node::Explode { .. }, ..] => {
                return Err(QueryError::Execution("a plan keeps rows for nobody".to_owned()));
            }
        };
        let before = if source.kind == SourceKind::Table { before.of_table() } else { before };
        let keys = plan.output.iter().take_while(|column| column.key).count();
        let undo_budget = LEAST_UNDO.max(state_budget / 4);
        let fold = Fold::new(content, after, &plan.schema(), keys, plan.changelog, undo_budget);
        let fold = fold.named(plan.tables()).keeping_scans(scans);
        Ok(Self { source, before, fold: Some(Arc::new(fold)) })
    }
}
