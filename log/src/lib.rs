//! The log of foldlog: durable partitions, streams with versions, one commit order.
//!
//! What it promises stands in [`backend`]; how bytes lie on disk in `log/FORMAT.md`.

pub mod backend;
pub mod backup;
pub mod batch;
pub(crate) mod checkpoint;
pub mod clock;
pub(crate) mod codec;
pub(crate) mod compaction;
pub mod config;
pub(crate) mod deleted;
pub mod disk;
pub mod distribution;
pub mod doctor;
pub mod durability;
pub mod embedded;
pub(crate) mod engine;
pub mod error;
pub(crate) mod holds;
pub mod ids;
pub mod inspect;
pub(crate) mod journal;
pub mod life;
pub mod manifest;
pub(crate) mod partition;
pub(crate) mod postings;
pub(crate) mod producers;
pub mod record;
pub(crate) mod redaction;
pub(crate) mod reserve;
pub mod restore;
pub(crate) mod retention;
pub(crate) mod scrub;
pub(crate) mod segment;
pub mod server_time;
pub(crate) mod stall;
pub(crate) mod start;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub(crate) mod tidy;
pub mod topic;
pub(crate) mod topic_store;
pub(crate) mod upkeep;
pub(crate) mod window;
pub(crate) mod window_file;

pub use backend::{AppendFuture, Capabilities, Head, LogBackend, LogReader, ProducerFuture, Span};
pub use batch::{EventView, MarkView, RecordView};
pub use compaction::{Compaction, CompactionState};
pub use config::LogConfig;
/// CRC-32C of bytes: the checksum of everything that foldlog keeps on disk.
pub use crc32c::crc32c as checksum;
pub use distribution::Distribution;
pub use durability::Durability;
pub use embedded::{EmbeddedLog, OpenReport, Stepper};
pub use engine::Metrics;
pub use error::LogError;
pub use holds::Holder;
pub use ids::{
    EventId, Expected, FolderId, InvalidName, Offset, PartitionId, Position, ProducerEpoch, ProducerId, RequestId, Sequence, StreamHead,
    StreamId, StreamVersion, Tag, Timestamp, TopicId, TopicName,
};
pub use life::{Beginning, Mark, StreamChange, StreamState};
pub use record::{
    Append, Appended, AppendedRange, Chunk, EventQuery, Found, Identity, NewEvent, NewRecord, Precondition, ProducerAt, ProducerKey,
    Purpose, QueryAbsent, QueryItem, ReadLimits, RequestKey, Run, Scope, Selection, Sequenced, Snapshot, StoredSnapshot, StreamAt,
    Violation, Write,
};
pub use redaction::Redacting;
pub use retention::{LowMark, Retention};
pub use server_time::ClockState;
pub use topic::{Compression, Topic, TopicChanges, TopicKind, TopicSettings};
