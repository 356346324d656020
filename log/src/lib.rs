//! The log of foldlog: durable partitions, streams with versions, one commit order.
//!
//! What it promises stands in [`backend`]; how bytes lie on disk in `log/FORMAT.md`.

pub mod backend;
pub mod batch;
pub mod clock;
pub mod disk;
pub mod error;
pub mod ids;
pub mod record;
pub mod segment;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod topic;

pub use backend::{AppendFuture, Capabilities, Head, LogBackend, LogReader, Span};
pub use batch::{EventView, RecordView};
pub use error::LogError;
pub use ids::{
    EventId, Expected, FolderId, InvalidName, Offset, PartitionId, Position, RequestId, StreamHead, StreamId, StreamVersion, Timestamp,
    TopicId, TopicName,
};
pub use record::{
    Append, Appended, AppendedRange, Chunk, Identity, NewEvent, NewRecord, Precondition, ReadLimits, RequestKey, Run, Selection, StreamAt,
    Violation, Write,
};
pub use topic::{Topic, TopicKind, TopicSettings};
