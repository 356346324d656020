//! Typed client of foldlog, and deciders.
//!
//! [`Client`] connects, appends, reads, subscribes and queries. [`Decider`] is the domain's side: events fold into a state, commands are
//! decided on it. [`Aggregates`] brings the two together, [`scenario`] tests a decider without a server.

pub mod admin;
pub mod aggregate;
pub mod append;
pub mod client;
pub mod codec;
pub mod consumer;
pub mod decider;
pub mod durability;
pub mod error;
pub mod event;
pub mod groups;
pub mod query;
pub mod read;
pub mod redaction;
pub mod scenario;
pub mod session;
pub mod snapshot;
pub mod topics;
pub mod value;

pub use admin::{Backup, Clock};
pub use aggregate::{Aggregates, ExecuteError, Executed, Loaded};
pub use append::{Append, Appended, AppendedRange, StreamAt, StreamChange};
pub use client::{Client, DEFAULT_URL, URL_VARIABLE};
pub use consumer::{Consume, Consumer, Delivered, Lost, Nack, Settler};
pub use decider::Decider;
pub use durability::Durability;
pub use error::{Class, Error, ServerError, Violation};
pub use event::{EventQuery, Expected, NewEvent, NewRecord, Recorded, Token};
pub use groups::{
    Group, GroupChanges, GroupLoss, GroupMember, GroupPartition, GroupPlace, GroupSettings, GroupStatus, OnExhausted, Ordering, Parked,
    ParkedState,
};
pub use query::{Answer, Changes, Done, Mark, Pushed, SqlSession};
pub use read::{Beginning, Delivery, Reading, Source, Subscription};
pub use redaction::{Redacting, Redaction};
pub use session::{AppendSession, Ticket, UnitAppended};
pub use snapshot::{Snapshot, StoredSnapshot};
pub use topics::{
    Compaction, CompactionState, Compression, Head, Holder, Retention, StreamInfo, Topic, TopicChanges, TopicDescription, TopicKind,
    TopicSettings,
};
pub use value::{Column, ColumnType, Columns, Row, Value};
