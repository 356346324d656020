//! Names and numbers of the log: every id is a type of its own, parsed once at the edge.
//!
//! A leaf: imports nothing of ours. A value that exists is valid.

use std::{fmt, str::FromStr, sync::Arc};

/// Why a name or an id was refused; `Display` says what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {given:?} is not valid: {allowed}")]
pub struct InvalidName {
    /// What was being named, as a user calls it ("topic name").
    pub what: &'static str,
    /// What was given, cut to 64 characters.
    pub given: String,
    /// The rule it broke.
    pub allowed: &'static str,
}

impl InvalidName {
    fn new(what: &'static str, given: &str, allowed: &'static str) -> Self {
        Self { what, given: given.chars().take(64).collect(), allowed }
    }
}

/// Name of a topic: 1 to 249 bytes of `[A-Za-z0-9._-]`, not `.` or `..` (Kafka's rule, so every door agrees).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName(Arc<str>);

impl TopicName {
    /// Prefix of the topics that foldlog keeps for itself.
    pub const SYSTEM_PREFIX: &'static str = "_foldlog.";

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether foldlog keeps this topic for itself: reads of everything leave it out, users do not write to it.
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.0.starts_with(Self::SYSTEM_PREFIX)
    }
}

impl FromStr for TopicName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let fits = (1..=249).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
            && text != "."
            && text != "..";
        if !fits {
            return Err(InvalidName::new("topic name", text, "1 to 249 characters of A-Z a-z 0-9 . _ -, and not . or .."));
        }
        Ok(Self(text.into()))
    }
}

/// Name of a stream (an account, an order): 1 to 1,024 bytes of UTF-8 without control characters.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(Arc<str>);

impl StreamId {
    /// The name as text; its bytes are the key of the stream's records.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for StreamId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if !(1..=1024).contains(&text.len()) || text.chars().any(char::is_control) {
            return Err(InvalidName::new("stream id", text, "1 to 1,024 bytes of UTF-8 without control characters"));
        }
        Ok(Self(text.into()))
    }
}

/// A mark on events that conditions and reads ask for ("course:42"): 1 to 256 bytes of UTF-8 without control characters.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

impl Tag {
    /// Most bytes of a tag.
    pub const MAX_LEN: usize = 256;

    /// The tag as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if !(1..=Self::MAX_LEN).contains(&text.len()) || text.chars().any(char::is_control) {
            return Err(InvalidName::new("tag", text, "1 to 256 bytes of UTF-8 without control characters"));
        }
        Ok(Self(text.into()))
    }
}

macro_rules! text_name {
    ($($name:ident)*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    )*};
}
text_name!(TopicName StreamId Tag);

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name($inner);

        impl $name {
            /// Wraps the bare number.
            #[must_use]
            pub const fn new(number: $inner) -> Self {
                Self(number)
            }

            /// The bare number.
            #[must_use]
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// Number of a partition within its topic, from 0.
    PartitionId(u32)
}
number! {
    /// Place of a record in its partition, dense from 0. The end of a partition is the next offset to be written.
    Offset(u64)
}
number! {
    /// Place of a record in the folder's commit order, whatever its topic and partition, dense from 0.
    /// The end of the log is the next position to be given. Format: `log/FORMAT.md`, "Positions".
    Position(u64)
}
number! {
    /// Version of an event in its stream: the first event has version 1, so a stream's version is the number of events
    /// it was ever given.
    StreamVersion(u64)
}
number! {
    /// Which life of a producer: a later one ends those before. Rises over the whole folder, with gaps.
    ProducerEpoch(u64)
}
number! {
    /// Number of a unit of its producer, from 1, without gaps and over all epochs.
    Sequence(u64)
}
number! {
    /// Milliseconds since 1970-01-01 UTC; may be negative.
    Timestamp(i64)
}

impl Offset {
    /// The offset `count` records further.
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0 + count)
    }
}

impl Position {
    /// The position `count` records further.
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0 + count)
    }
}

impl Sequence {
    /// That of a producer's first unit.
    pub const FIRST: Self = Self(1);

    /// The sequence `count` units further.
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0 + count)
    }
}

impl StreamVersion {
    /// Version of a stream's first event.
    pub const FIRST: Self = Self(1);

    /// The version `count` events further.
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0 + count)
    }
}

macro_rules! uuid_like {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Wraps 16 bytes.
            #[must_use]
            pub const fn new(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The 16 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                uuid::Uuid::from_bytes(self.0).fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

uuid_like! {
    /// Id of an event, given by its producer.
    EventId
}
uuid_like! {
    /// Id of a request, given by its caller, under which a repeat gets the first answer again.
    RequestId
}
uuid_like! {
    /// Id of a producer, chosen by itself: drawn at random, or always the same for one that goes on after its process has ended.
    ProducerId
}
uuid_like! {
    /// Id of a topic's incarnation: a topic deleted and created again has another one.
    TopicId
}
uuid_like! {
    /// Id of a data folder, drawn when it is made.
    FolderId
}

/// Where a stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamHead {
    /// No event was ever appended.
    Absent,
    /// The version of its newest event.
    At(StreamVersion),
    /// It was deleted, and nothing was appended since; the next event gets the version after this one.
    Deleted(StreamVersion),
    /// It was ended for good: nothing is appended any more.
    Tombstoned,
}

impl StreamHead {
    /// Version of the newest event it was ever given; none if it has none, or was ended for good.
    #[must_use]
    pub const fn version(self) -> Option<StreamVersion> {
        match self {
            Self::At(version) | Self::Deleted(version) => Some(version),
            Self::Absent | Self::Tombstoned => None,
        }
    }
}

impl fmt::Display for StreamHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("absent"),
            Self::At(version) => write!(f, "at version {version}"),
            Self::Deleted(version) => write!(f, "deleted at version {version}"),
            Self::Tombstoned => f.write_str("tombstoned"),
        }
    }
}

/// What an appender believes about a stream before its events join it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// No belief.
    Any,
    /// The stream has no event: it never had one, or was deleted and nothing was appended since.
    Absent,
    /// The stream has at least one event, and was not deleted since.
    Exists,
    /// The newest event it was ever given has exactly this version, also if it was deleted since.
    Version(StreamVersion),
    /// The stream was deleted, and nothing was appended since.
    Deleted,
}

impl Expected {
    /// Whether a stream that stands at `head` is what was expected.
    #[must_use]
    pub fn holds(self, head: StreamHead) -> bool {
        match (self, head) {
            (Self::Any, _)
            | (Self::Absent, StreamHead::Absent | StreamHead::Deleted(_))
            | (Self::Exists, StreamHead::At(_))
            | (Self::Deleted, StreamHead::Deleted(_)) => true,
            (Self::Version(expected), StreamHead::At(actual) | StreamHead::Deleted(actual)) => expected == actual,
            _ => false,
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Absent => f.write_str("absent"),
            Self::Exists => f.write_str("exists"),
            Self::Version(version) => write!(f, "version {version}"),
            Self::Deleted => f.write_str("deleted"),
        }
    }
}
