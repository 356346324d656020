//! How durable an append is when it is answered: asked for with a topic or an append, named in each answer.

use std::{fmt, str::FromStr};

use foldlog_proto::v1;

use crate::error::Error;

/// How durable an append is when it is answered. The weaker is the smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Durability {
    /// It survives the end of the server's process, and may be lost with the power. Read by nobody before it is synced, a moment later.
    Written,
    /// It survives the loss of power.
    Synced,
}

impl Durability {
    /// The level as users write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Synced => "synced",
        }
    }

    pub(crate) const fn to_proto(self) -> v1::Durability {
        match self {
            Self::Written => v1::Durability::Written,
            Self::Synced => v1::Durability::Synced,
        }
    }

    /// What an answer or a topic says.
    pub(crate) fn from_proto(given: i32) -> Result<Self, Error> {
        match v1::Durability::try_from(given) {
            Ok(v1::Durability::Written) => Ok(Self::Written),
            Ok(v1::Durability::Synced) => Ok(Self::Synced),
            Ok(v1::Durability::Unspecified) | Err(_) => Err(Error::Protocol(format!("a durability unknown here: {given}"))),
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Durability {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "written" => Ok(Self::Written),
            "synced" => Ok(Self::Synced),
            _ => Err(Error::Invalid(format!("{text:?} is no durability; there are synced and written"))),
        }
    }
}
