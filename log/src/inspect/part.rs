//! A part of a file as it is told.

use bytes::Bytes;

use crate::ids::{Offset, Position, StreamVersion, Timestamp};

/// Some bytes of a file, and what they say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// First byte.
    pub from: u64,
    /// Byte behind the last (exclusive). Of what is missing it may lie behind the end of the file.
    pub end: u64,
    /// What it is.
    pub name: &'static str,
    /// What it says, in order, by name.
    pub facts: Vec<(&'static str, Fact)>,
    /// What is wrong with it.
    pub damage: Option<String>,
    /// Whether it lies within the last part that does not. If that one is compressed or delta-coded its bytes are that one's.
    pub is_inner: bool,
}

/// One thing that a part says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A number, a count, a place.
    Number(u64),
    /// A time.
    Time(Timestamp),
    /// Text.
    Text(String),
    /// Any number of texts.
    List(Vec<String>),
    /// Text that is JSON.
    Json(String),
    /// Bytes of a user's: a key, a payload.
    Bytes(Bytes),
}

impl Part {
    pub(crate) const fn new(name: &'static str, from: u64, end: u64) -> Self {
        Self { from, end, name, facts: Vec::new(), damage: None, is_inner: false }
    }

    pub(crate) fn with(mut self, name: &'static str, fact: impl Into<Fact>) -> Self {
        self.facts.push((name, fact.into()));
        self
    }

    pub(crate) fn with_some(self, name: &'static str, fact: Option<impl Into<Fact>>) -> Self {
        match fact {
            Some(fact) => self.with(name, fact),
            None => self,
        }
    }

    /// With texts, unless there are none.
    pub(crate) fn with_list(self, name: &'static str, texts: impl Iterator<Item = String>) -> Self {
        let texts = texts.collect::<Vec<_>>();
        if texts.is_empty() { self } else { self.with(name, texts) }
    }

    /// With what is wrong with it; the first thing counts.
    pub(crate) fn damaged(mut self, what: impl Into<String>) -> Self {
        self.damage.get_or_insert_with(|| what.into());
        self
    }

    /// Damaged unless `is_whole`.
    pub(crate) fn checked(self, is_whole: bool, what: &str) -> Self {
        if is_whole { self } else { self.damaged(what) }
    }

    pub(crate) const fn inner(mut self) -> Self {
        self.is_inner = true;
        self
    }
}

impl From<u64> for Fact {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<u32> for Fact {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<usize> for Fact {
    fn from(number: usize) -> Self {
        Self::Number(number as u64)
    }
}

impl From<Offset> for Fact {
    fn from(offset: Offset) -> Self {
        Self::Number(offset.get())
    }
}

impl From<Position> for Fact {
    fn from(position: Position) -> Self {
        Self::Number(position.get())
    }
}

impl From<StreamVersion> for Fact {
    fn from(version: StreamVersion) -> Self {
        Self::Number(version.get())
    }
}

impl From<Timestamp> for Fact {
    fn from(time: Timestamp) -> Self {
        Self::Time(time)
    }
}

impl From<String> for Fact {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Fact {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Vec<String>> for Fact {
    fn from(texts: Vec<String>) -> Self {
        Self::List(texts)
    }
}

/// Bytes of a user's.
impl From<&[u8]> for Fact {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(Bytes::copy_from_slice(bytes))
    }
}
