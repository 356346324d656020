//! Everything that can go wrong in a statement or a query, in words for the person who must act.

use foldlog_log::{LogError, Position, TopicName};

/// A place in the text of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

/// Error of the query layer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The text is not a statement that we know.
    #[error("line {}, column {}: {message}", place.line, place.column)]
    Syntax {
        /// Where.
        place: Place,
        /// What was found and what was expected.
        message: String,
    },
    /// The text exceeds a bound of `sql/guard.rs`.
    #[error("the statement is too complex: {0}")]
    TooComplex(String),
    /// The statement is well formed but means nothing here: an unknown name, a wrong type, a rule broken.
    #[error("{0}")]
    Invalid(String),
    /// A name is not known.
    #[error("{what} {name} does not exist{}", hint.as_ref().map(|h| format!("; did you mean {h}?")).unwrap_or_default())]
    Unknown {
        /// "stream", "table", "query", "column", "function".
        what: &'static str,
        /// The name.
        name: String,
        /// The nearest name that exists.
        hint: Option<String>,
        /// Where it stands in the statement, where that is known.
        place: Option<Place>,
    },
    /// The name is taken.
    #[error("{what} {name} exists already")]
    Exists {
        /// "stream", "table".
        what: &'static str,
        /// The name.
        name: String,
    },
    /// What ASSERT says does not hold.
    #[error("{0}")]
    Asserted(String),
    /// What is wrong stands at a place of the statement.
    #[error("{error}")]
    At {
        /// Where.
        place: Place,
        /// What.
        error: Box<Self>,
    },
    /// Others depend on what was to be dropped.
    #[error("{name} cannot be dropped: {dependants} read from it or write into it; terminate or drop them first")]
    InUse {
        /// What was to be dropped.
        name: String,
        /// Names of the dependants, separated by commas.
        dependants: String,
    },
    /// We do not do this (yet); nothing is weakened silently.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// A limit of time was hit.
    #[error("{what} took longer than {limit_ms} ms")]
    Timeout {
        /// "the query", "waiting for position 17".
        what: String,
        /// The limit.
        limit_ms: u64,
    },
    /// `at_least` was not reached in time; carries how far the view is.
    #[error("view {view} has applied everything below position {at}, {wanted} was asked for, and the time for waiting is over")]
    NotYet {
        /// The view.
        view: String,
        /// How far it is (exclusive).
        at: Position,
        /// What was asked for (exclusive).
        wanted: Position,
    },
    /// Views cannot be read at one position now.
    #[error("{view} cannot be read at a common position: {reason}; retry later")]
    NotAligned {
        /// The view.
        view: String,
        /// Why.
        reason: String,
    },
    /// The pinned snapshot was given up.
    #[error("the snapshot at position {at} was given up to make room; retry")]
    SnapshotTooOld {
        /// The pinned position.
        at: Position,
    },
    /// A view is being folded again.
    #[error("{view} is being folded: it has reached position {at} of {end}; retry later")]
    Folding {
        /// The view.
        view: String,
        /// How far it is (exclusive).
        at: Position,
        /// Where it must get to (exclusive).
        end: Position,
    },
    /// A budget of memory or rows was hit.
    #[error("{0}")]
    ResourceExhausted(String),
    /// A place in a topic that was deleted, given for another one.
    #[error("this token is of another topic, or of topic {topic} before it was deleted and created again")]
    TopicRecreated {
        /// The topic that there is.
        topic: TopicName,
    },
    /// A push query's client did not keep up.
    #[error("the reader took nothing for too long; resume from position {at}")]
    SlowReader {
        /// Where to resume (exclusive end of what was delivered).
        at: Position,
    },
    /// The engine is stopping.
    #[error("the query engine is shutting down")]
    Stopping,
    /// The log said no.
    #[error(transparent)]
    Log(#[from] LogError),
    /// DataFusion failed where it should not have.
    #[error("the query failed: {0}")]
    Execution(String),
}

impl QueryError {
    /// The same with where it stands in the statement, if it speaks of what stands there and does not know that yet.
    pub(crate) fn at(self, place: impl FnOnce() -> Option<Place>) -> Self {
        match self {
            Self::Invalid(_) | Self::Unsupported(_) => match place() {
                Some(place) => Self::At { place, error: Box::new(self) },
                None => self,
            },
            other => other,
        }
    }

    /// The same without its place.
    pub(crate) fn without_place(self) -> Self {
        match self {
            Self::At { error, .. } => error.without_place(),
            other => other,
        }
    }

    /// The error without its place.
    #[must_use]
    pub fn bare(&self) -> &Self {
        match self {
            Self::At { error, .. } => error.bare(),
            other => other,
        }
    }
}
