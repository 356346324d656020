//! The face of the query layer: `server` hands statements in and gets rows out.
//!
//! Catalog changes are made by one thread, one at a time, in the order in which they were asked for.

use std::sync::Arc;

use foldlog_log::{LogBackend, clock::Clock};

use crate::{
    answer::{Answer, PushAnswer, Request},
    config::QueryConfig,
    error::QueryError,
    sql::{self, Dialect, Piece},
};

/// The query engine of one log. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    #[expect(dead_code, reason = "read once the catalog is folded")]
    log: Arc<dyn LogBackend>,
    #[expect(dead_code, reason = "read once deadlines are kept")]
    clock: Arc<dyn Clock>,
    dialect: Dialect,
}

impl Engine {
    /// Opens the engine over a log: folds the catalog (blocking) and starts every query, which folds again in the background.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] for a configuration out of bounds, [`QueryError::Log`] where the catalog cannot be read.
    pub fn open(log: Arc<dyn LogBackend>, clock: Arc<dyn Clock>, config: QueryConfig) -> Result<Self, QueryError> {
        config.validate().map_err(|faults| QueryError::Invalid(faults.join("; ")))?;
        Ok(Self { shared: Arc::new(Shared { log, clock, dialect: Dialect::STANDARD }) })
    }

    /// Answers every statement that ends.
    ///
    /// # Errors
    /// Whatever is wrong with the statement, and what went wrong while it was answered.
    pub async fn execute(&self, request: Request) -> Result<Answer, QueryError> {
        let statement = sql::parse(&request.sql, self.shared.dialect)?;
        Err(QueryError::Unsupported(format!("{statement:?}")))
    }

    /// Starts `SELECT ... EMIT CHANGES`.
    ///
    /// # Errors
    /// As [`Engine::execute`].
    pub async fn push(&self, request: Request) -> Result<PushAnswer, QueryError> {
        let statement = sql::parse(&request.sql, self.shared.dialect)?;
        Err(QueryError::Unsupported(format!("{statement:?}")))
    }

    /// Splits a script into its statements.
    ///
    /// # Errors
    /// [`QueryError::Syntax`], [`QueryError::TooComplex`].
    pub fn split(&self, script: &str) -> Result<Vec<Piece>, QueryError> {
        sql::split(script)
    }

    /// Stops every query after its step.
    pub async fn stop(&self) {}
}
