//! What a topic is: its kind, its partitions, its incarnation.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    compaction::Compaction,
    durability::Durability,
    error::LogError,
    ids::{InvalidName, PartitionId, TopicId, TopicName},
    retention::Retention,
};

/// What a topic holds and how it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TopicKind {
    /// Streams of events with gapless versions; kept for ever unless told otherwise.
    Events,
    /// Plain records with an optional key, as Kafka has them.
    Records,
    /// The newest value of each key: a view's changelog, a lookup table.
    Table,
}

impl TopicKind {
    /// The kind as users write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Records => "records",
            Self::Table => "table",
        }
    }
}

impl fmt::Display for TopicKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for TopicKind {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        match text {
            "events" => Ok(Self::Events),
            "records" => Ok(Self::Records),
            "table" => Ok(Self::Table),
            _ => Err(InvalidName { what: "topic kind", given: text.chars().take(64).collect(), allowed: "events, records or table" }),
        }
    }
}

/// How the batches of a topic's segments are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// LZ4: fast, about half the size for events in JSON.
    Lz4,
    /// Zstandard: smaller, at about twice the price.
    Zstd,
}

impl Compression {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::None, Self::Lz4, Self::Zstd];

    /// The compression as users write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is chosen when a topic is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicSettings {
    /// Kind; never changes.
    pub kind: TopicKind,
    /// Number of partitions, 1 to 1,024.
    pub partitions: u32,
    /// How durable appends to it are when they are answered, if they ask for nothing.
    pub durability: Durability,
    /// How its batches are compressed where they lie for long.
    pub compression: Compression,
    /// How long it keeps its records.
    pub retention: Retention,
    /// When it is rid of what a newer record of the same key replaced. Only for topics of kind `table`.
    pub compaction: Compaction,
}

impl TopicSettings {
    /// Partitions of a topic whose creator did not say.
    pub const DEFAULT_PARTITIONS: u32 = 8;
    /// Most partitions of a topic.
    pub const MAX_PARTITIONS: u32 = 1024;

    /// Settings that say nothing beyond what every topic has.
    #[must_use]
    pub const fn new(kind: TopicKind, partitions: u32) -> Self {
        let (durability, compression) = (Durability::Synced, Compression::None);
        Self { kind, partitions, durability, compression, retention: Retention::FOR_EVER, compaction: Compaction::DEFAULT }
    }

    /// Whether the age of a record is a reason to be rid of it.
    pub(crate) fn is_rid_of_what_is_old(&self) -> bool {
        self.kind == TopicKind::Table || self.retention.time.is_some()
    }
}

/// What is to be altered of a topic; what is none stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicChanges {
    /// Number of partitions: no fewer than there are, and more only of topics of kind `records`.
    pub partitions: Option<u32>,
    /// How durable appends to it are when they are answered, if they ask for nothing.
    pub durability: Option<Durability>,
    /// How batches are compressed that are copied into segments from now on.
    pub compression: Option<Compression>,
    /// Retention by time; zero: age lets nothing go any more.
    pub retention_time: Option<Duration>,
    /// Retention by bytes; zero: their number lets nothing go any more.
    pub retention_bytes: Option<u64>,
    /// [`Compaction::delete_retention`], for tombstones that compaction leaves alone from now on.
    pub delete_retention: Option<Duration>,
    /// [`Compaction::min_lag`].
    pub min_lag: Option<Duration>,
    /// [`Compaction::max_lag`].
    pub max_lag: Option<Duration>,
    /// [`Compaction::dirty_percent`].
    pub dirty_percent: Option<u8>,
}

impl TopicChanges {
    /// What they make of settings. Whether those can be is for the log to check.
    ///
    /// # Errors
    /// [`LogError::Invalid`] if nothing is to be altered, or what cannot be.
    pub(crate) fn applied_to(&self, before: TopicSettings) -> Result<TopicSettings, LogError> {
        let invalid = |field: &str, reason| Err(LogError::Invalid { field: field.into(), reason });
        if *self == Self::default() {
            return invalid("changes", "nothing is to be altered; name a setting".into());
        }
        let partitions = self.partitions.unwrap_or(before.partitions);
        if partitions < before.partitions {
            let reason =
                format!("there are {} already, and none can be taken away: their records are read by partition", before.partitions);
            return invalid("partitions", reason);
        }
        if partitions > before.partitions && before.kind != TopicKind::Records {
            let what = if before.kind == TopicKind::Events { "a stream" } else { "a key" };
            let reason = format!(
                "their number decides where {what} lies; it can grow only in topics of kind records, this one is of kind {}",
                before.kind
            );
            return invalid("partitions", reason);
        }
        let Retention { time, bytes } = before.retention;
        let retention = Retention {
            time: self.retention_time.map_or(time, |time| (!time.is_zero()).then_some(time)),
            bytes: self.retention_bytes.map_or(bytes, |bytes| (bytes > 0).then_some(bytes)),
        };
        let compaction = Compaction {
            delete_retention: self.delete_retention.unwrap_or(before.compaction.delete_retention),
            min_lag: self.min_lag.unwrap_or(before.compaction.min_lag),
            max_lag: self.max_lag.unwrap_or(before.compaction.max_lag),
            dirty_percent: self.dirty_percent.unwrap_or(before.compaction.dirty_percent),
        };
        Ok(TopicSettings {
            kind: before.kind,
            partitions,
            durability: self.durability.unwrap_or(before.durability),
            compression: self.compression.unwrap_or(before.compression),
            retention,
            compaction,
        })
    }
}

/// A topic as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Name.
    pub name: TopicName,
    /// Incarnation: another one after the topic was deleted and created again.
    pub id: TopicId,
    /// What was chosen when it was created, or altered since.
    pub settings: TopicSettings,
}

impl PartitionId {
    /// Partition of a key (a stream's name, a record's key) among `partitions`: murmur2 as Kafka's Java clients use it, so
    /// that both agree.
    #[must_use]
    pub fn for_key(key: &[u8], partitions: u32) -> Self {
        Self::new((murmur2(key) & 0x7fff_ffff) % partitions)
    }
}

fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut hash = 0x9747_b28c_u32 ^ length;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (place, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * place);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_agrees_with_kafkas_own_test_vectors() {
        // UtilsTest.testMurmur2 of Apache Kafka.
        for (key, hash) in
            [("21", -973_932_308), ("foobar", -790_332_482), ("a-little-bit-long-string", -985_981_536), ("abc", 479_470_107)]
        {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }
}
