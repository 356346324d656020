//! Partitions: who may append, where streams stand, the newest records in memory, and reading.

pub(crate) mod admission;
pub(crate) mod asked;
pub(crate) mod backward;
pub(crate) mod below;
pub(crate) mod condition;
pub(crate) mod cursor;
pub(crate) mod filtered;
pub(crate) mod group;
pub(crate) mod output;
pub(crate) mod reader;
pub(crate) mod request;
pub(crate) mod snapshot;
pub(crate) mod streams;
pub(crate) mod tail;
