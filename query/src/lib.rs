//! SQL over the log of foldlog: streams and tables declared over topics, projections folded into views, pull and push.

pub mod answer;
pub mod catalog;
pub mod changes;
pub mod codec;
pub mod config;
pub mod engine;
pub mod error;
pub mod functions;
pub mod plan;
mod print;
pub mod processing_log;
pub mod pull;
pub mod push;
pub mod sql;
mod stack;
pub mod store;
pub mod stream;
pub mod supervisor;
mod table;

// What crosses the face: doors name these types without owning Arrow or DataFusion.
pub use arrow;
pub use datafusion::common::ScalarValue;

pub use answer::{Answer, Batches, ChangeOp, PushAnswer, PushItem, Request, Resume};
pub use config::QueryConfig;
pub use engine::Engine;
pub use error::{Place, QueryError};
pub use sql::{DialectKind, Piece, Session, SessionChange};
pub use store::Checkpoints;
