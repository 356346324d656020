//! What the manifest of a topic says, and in which format.
//!
//! [`super::TopicStore`] writes and reads it. Invariant: a manifest has the oldest format in which it can be written, and never an older one than before.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    compaction::Compaction,
    durability::Durability,
    manifest,
    retention::Retention,
    topic::{Compression, Topic, TopicKind, TopicSettings},
};

/// Newest format of manifests. A manifest has the oldest in which it can be written, so that a build of that time reads it.
pub(crate) const FORMAT: u32 = 8;
/// Oldest format in which a manifest says that its topic was deleted.
const FORMAT_OF_DELETED: u32 = 5;

/// What a topic may hold that builds of before would pass over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    /// Lives of its streams may have been changed.
    pub(super) changes: bool,
    /// Events of it may be blank.
    pub(super) blanks: bool,
    /// Data of its events may have been redacted.
    pub(super) redactions: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub(super) format: u32,
    pub(super) name: String,
    pub(super) id: String,
    kind: TopicKind,
    partitions: u32,
    /// Since format 2.
    #[serde(default, skip_serializing_if = "is_default")]
    durability: Durability,
    /// Since format 2.
    #[serde(default, skip_serializing_if = "is_default")]
    compression: Compression,
    /// Whether lives of streams may have been changed. Since format 2.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) changes: bool,
    /// Since format 3.
    #[serde(default, skip_serializing_if = "is_default")]
    retention_ms: Option<u64>,
    /// Since format 3.
    #[serde(default, skip_serializing_if = "is_default")]
    retention_bytes: Option<u64>,
    /// Since format 4.
    #[serde(default, skip_serializing_if = "is_default")]
    compaction: Option<ManifestCompaction>,
    /// What is left of it waits to be removed. Since format 5.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) deleted: bool,
    /// Whether events may be blank. Since format 6.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) blanks: bool,
    /// Whether data of events may have been redacted. Since format 7.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) redactions: bool,
}

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestCompaction {
    delete_retention_ms: u64,
    min_lag_ms: u64,
    max_lag_ms: u64,
    dirty_percent: u8,
}

impl From<Compaction> for ManifestCompaction {
    fn from(settings: Compaction) -> Self {
        let Compaction { delete_retention, min_lag, max_lag, dirty_percent } = settings;
        let [delete_retention_ms, min_lag_ms, max_lag_ms] = [delete_retention, min_lag, max_lag].map(in_ms);
        Self { delete_retention_ms, min_lag_ms, max_lag_ms, dirty_percent }
    }
}

impl From<ManifestCompaction> for Compaction {
    fn from(written: ManifestCompaction) -> Self {
        let times = [written.delete_retention_ms, written.min_lag_ms, written.max_lag_ms].map(Duration::from_millis);
        let [delete_retention, min_lag, max_lag] = times;
        Self { delete_retention, min_lag, max_lag, dirty_percent: written.dirty_percent }
    }
}

fn in_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Manifest {
    /// `before` is the format that the topic's manifest has; 1 if it has none.
    pub(super) fn new(topic: &Topic, Contents { changes, blanks, redactions }: Contents, before: u32) -> Self {
        let TopicSettings { kind, partitions, durability, compression, retention, compaction } = topic.settings;
        let is_plain = topic.settings == TopicSettings::new(kind, partitions) && !changes;
        let format = match retention.is_for_ever() {
            // Builds that knew format 3 refuse a table with a retention.
            _ if compaction != Compaction::DEFAULT || kind == TopicKind::Table && !retention.is_for_ever() => 4,
            true if is_plain => 1,
            true => 2,
            false => 3,
        };
        let format = match (blanks, redactions) {
            // Builds that knew up to 7 refuse a retention of events.
            _ if kind == TopicKind::Events && !retention.is_for_ever() => 8,
            // Builds that knew less would show what is redacted.
            (_, true) => 7,
            (true, false) => 6,
            (false, false) => format,
        };
        let format = format.max(before);
        let (name, id) = (topic.name.as_str().into(), topic.id.to_string());
        let (retention_ms, retention_bytes) = (retention.time.map(in_ms), retention.bytes);
        let compaction = (compaction != Compaction::DEFAULT).then(|| compaction.into());
        Self {
            format,
            name,
            id,
            kind,
            partitions,
            durability,
            compression,
            changes,
            retention_ms,
            retention_bytes,
            compaction,
            deleted: false,
            blanks,
            redactions,
        }
    }

    /// The same of a topic that is deleted.
    pub(super) fn of_deleted(topic: &Topic, contents: Contents, before: u32) -> Self {
        Self { deleted: true, ..Self::new(topic, contents, before.max(FORMAT_OF_DELETED)) }
    }

    pub(super) fn settings(&self) -> TopicSettings {
        let &Self { kind, partitions, durability, compression, compaction, .. } = self;
        let retention = Retention { time: self.retention_ms.map(Duration::from_millis), bytes: self.retention_bytes };
        let compaction = compaction.map_or(Compaction::DEFAULT, Into::into);
        TopicSettings { kind, partitions, durability, compression, retention, compaction }
    }
}

/// Kind of the topic that a manifest is of; none if it is no whole manifest.
pub(crate) fn kind_in(manifest: &str) -> Option<TopicKind> {
    #[derive(Deserialize)]
    struct Kind {
        kind: TopicKind,
    }
    let Kind { kind } = serde_json::from_str(manifest::checked(manifest.as_bytes())?).ok()?;
    Some(kind)
}
