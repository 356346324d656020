//! What a persistent query, or a push query with state, does: sources, a chain of operators with stable ids, a sink.
//!
//! Made by `engine` from a statement and a catalog, run by `stream`. The same statement over the same catalog gives the same
//! plan: the state of a running query must survive a restart.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};

use crate::{
    catalog::{Column, Source, WantedColumn},
    plan::expression::Expression,
};

/// Number of an operator in its plan, given in plan order from 0; its state belongs to this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OperatorId(pub u32);

/// A source and the columns of it that the plan uses.
#[derive(Clone, Debug)]
pub struct SourceScan {
    /// The source.
    pub source: Arc<Source>,
    /// Columns of the first operator's input, in their order; may be empty (`COUNT(*)`).
    pub wanted: Vec<WantedColumn>,
}

impl SourceScan {
    /// Schema of the batches that the first operator gets.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        self.source.wanted_schema(&self.wanted)
    }
}

/// One operator; each takes the columns that the one before it gives.
#[derive(Clone, Debug)]
pub enum Node {
    /// Keeps the rows for which the predicate is true.
    Filter {
        /// Id.
        id: OperatorId,
        /// BOOLEAN over the input.
        predicate: Expression,
    },
    /// Computes columns. Does not change rows, keys or times.
    Project {
        /// Id.
        id: OperatorId,
        /// One expression over the input a column of `schema`.
        expressions: Vec<Expression>,
        /// Names and types of the output.
        schema: SchemaRef,
    },
    /// Folds rows by key; gives changes of a table: key columns, then one column a call.
    Aggregate {
        /// Id.
        id: OperatorId,
        /// Places of the key columns in the input; empty: one group, which exists from the first row on.
        keys: Vec<usize>,
        /// What is folded, in the order of the output.
        calls: Vec<AggregateCall>,
        /// BOOLEAN over `schema`: rows for which it is not true are not part of the table.
        having: Option<Expression>,
        /// Names and types of the output: keys, then calls.
        schema: SchemaRef,
    },
}

/// One aggregate of an [`Node::Aggregate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AggregateCall {
    /// What is computed.
    pub function: AggregateFunction,
    /// Place of the argument in the input; none for `COUNT(*)` alone.
    pub argument: Option<usize>,
    /// Type of the argument (of the result for `COUNT(*)`).
    pub input_type: DataType,
    /// Type of the result.
    pub data_type: DataType,
}

/// What an aggregate computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AggregateFunction {
    /// Number of rows: BIGINT.
    CountStar,
    /// Number of values that are not NULL: BIGINT.
    Count,
    /// Sum: BIGINT of integers (NULL once it left the range), DOUBLE of DOUBLE, DECIMAL(38, s) of DECIMAL(p, s).
    Sum,
    /// Smallest value, of the argument's type.
    Min,
    /// Greatest value, of the argument's type.
    Max,
    /// Mean: DOUBLE.
    Avg,
}

/// Where the results go.
#[derive(Clone, Debug)]
pub enum Sink {
    /// A `records` topic: every result is a record.
    Stream(Arc<Source>),
    /// A `table` topic, and the view that pull queries read.
    Table(Arc<Source>),
    /// Only to whoever asked: a push query; writes nothing.
    Volatile,
}

/// What a query does.
#[derive(Clone, Debug)]
pub struct StreamPlan {
    /// What is read; exactly one so far.
    pub sources: Vec<SourceScan>,
    /// The chain of operators from source to sink.
    pub nodes: Vec<Node>,
    /// Where the results go.
    pub sink: Sink,
    /// Columns of the results; for a sink with a topic those of the key come first, as in its [`Source`].
    pub output: Vec<Column>,
    /// Which plan state belongs to; another plan gives another number.
    pub fingerprint: u64,
}

impl StreamPlan {
    /// Schema of the results.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        crate::catalog::schema_of(&self.output)
    }

    /// Whether the plan keeps state (folds rows) or passes them on one by one.
    #[must_use]
    pub fn is_stateful(&self) -> bool {
        self.nodes.iter().any(|node| matches!(node, Node::Aggregate { .. }))
    }
}
