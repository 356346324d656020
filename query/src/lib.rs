//! SQL over the log of foldlog: streams and tables declared over topics, projections folded into views, pull and push.

pub mod answer;
pub mod changes;
pub mod error;
pub mod stream;
pub mod supervisor;

pub use answer::{Answer, Batches, ChangeOp, PushAnswer, PushItem, Request};
pub use error::{Place, QueryError};
