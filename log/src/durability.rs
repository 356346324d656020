//! How durable an append is when it is answered: what topics have, appends may ask for, and answers name.
//!
//! Invariant: an answer is never weaker than what was asked, or, if nothing was, than the strongest of the topics written.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::ids::InvalidName;

/// How durable an append is when it is answered. The weaker is the smaller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Handed to the system: it survives the end of the process, and may be lost when the kernel or the power fails within the next sync.
    Written,
    /// Synced: it survives the loss of power.
    #[default]
    Synced,
}

impl Durability {
    /// What an append is answered with that asked for `asked`, and writes to topics with `topics`. One that writes nothing
    /// rests on what others wrote, and is answered when that is synced.
    pub(crate) fn of(asked: Option<Self>, topics: impl IntoIterator<Item = Self>) -> Self {
        match topics.into_iter().max() {
            Some(strongest) => asked.unwrap_or(strongest),
            None => Self::Synced,
        }
    }

    /// The level as users write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Synced => "synced",
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Durability {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        match text {
            "written" => Ok(Self::Written),
            "synced" => Ok(Self::Synced),
            _ => Err(InvalidName { what: "durability", given: text.chars().take(64).collect(), allowed: "synced or written" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Durability::{self, Synced, Written};

    #[test]
    fn who_asks_decides_and_else_the_strongest_topic() {
        assert_eq!(Durability::of(None, [Written, Synced, Written]), Synced);
        assert_eq!(Durability::of(None, [Written, Written]), Written);
        assert_eq!(Durability::of(Some(Written), [Synced]), Written);
        assert_eq!(Durability::of(Some(Synced), [Written]), Synced);
        assert_eq!(Durability::of(None, []), Synced);
        assert_eq!(Durability::of(Some(Written), []), Synced);
    }
}
