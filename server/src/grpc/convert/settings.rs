//! Topics and their settings.

use std::time::Duration;

use bytes::Bytes;
use foldlog_log::{Compaction, Compression, Retention, Topic, TopicChanges, TopicKind, TopicSettings};
use foldlog_proto::v1 as pb;

use super::proto_durability;
use crate::failure::Failure;

/// How long records are kept; its bounds are for the log to check.
pub fn retention(given: Option<pb::Retention>) -> Result<Retention, Failure> {
    let Some(given) = given else { return Ok(Retention::FOR_EVER) };
    let time = given.time.map(Duration::try_from).transpose();
    let time = time.map_err(|_| Failure::invalid("retention.time", "a duration that is not negative"))?;
    Ok(Retention { time, bytes: given.bytes })
}

fn proto_retention(retention: Retention) -> Option<pb::Retention> {
    let time = retention.time.and_then(|time| prost_types::Duration::try_from(time).ok());
    (!retention.is_for_ever()).then_some(pb::Retention { time, bytes: retention.bytes })
}

/// When a topic is rid of what was replaced; bounds are for the log to check.
pub fn compaction(given: Option<pb::Compaction>) -> Result<Compaction, Failure> {
    let (asked, usual) = (compaction_changes(given.unwrap_or_default())?, Compaction::DEFAULT);
    Ok(Compaction {
        delete_retention: asked.delete_retention.unwrap_or(usual.delete_retention),
        min_lag: asked.min_lag.unwrap_or(usual.min_lag),
        max_lag: asked.max_lag.unwrap_or(usual.max_lag),
        dirty_percent: asked.dirty_percent.unwrap_or(usual.dirty_percent),
    })
}

/// What is said of compaction.
pub fn compaction_changes(given: pb::Compaction) -> Result<TopicChanges, Failure> {
    let time = |given: Option<prost_types::Duration>, field| {
        let time = given.map(Duration::try_from).transpose();
        time.map_err(|_| Failure::invalid(field, "a duration that is not negative"))
    };
    Ok(TopicChanges {
        delete_retention: time(given.delete_retention, "compaction.delete_retention")?,
        min_lag: time(given.min_lag, "compaction.min_lag")?,
        max_lag: time(given.max_lag, "compaction.max_lag")?,
        // What is too large for the log's type is too large for the log.
        dirty_percent: given.dirty_percent.map(|percent| u8::try_from(percent).unwrap_or(u8::MAX)),
        ..TopicChanges::default()
    })
}

fn proto_compaction(settings: &TopicSettings) -> Option<pb::Compaction> {
    let Compaction { delete_retention, min_lag, max_lag, dirty_percent } = settings.compaction;
    let time = |time| prost_types::Duration::try_from(time).ok();
    (settings.kind == TopicKind::Table).then_some(pb::Compaction {
        delete_retention: time(delete_retention),
        min_lag: time(min_lag),
        max_lag: time(max_lag),
        dirty_percent: Some(dirty_percent.into()),
    })
}

/// A topic as clients see it.
pub fn proto_topic(topic: &Topic) -> pb::Topic {
    pb::Topic {
        name: topic.name.as_str().to_owned(),
        id: Bytes::copy_from_slice(topic.id.as_bytes()),
        kind: match topic.settings.kind {
            TopicKind::Events => pb::TopicKind::Events,
            TopicKind::Records => pb::TopicKind::Records,
            TopicKind::Table => pb::TopicKind::Table,
        }
        .into(),
        partitions: topic.settings.partitions,
        durability: proto_durability(topic.settings.durability).into(),
        compression: match topic.settings.compression {
            Compression::None => pb::Compression::None,
            Compression::Lz4 => pb::Compression::Lz4,
            Compression::Zstd => pb::Compression::Zstd,
        }
        .into(),
        retention: proto_retention(topic.settings.retention),
        compaction: proto_compaction(&topic.settings),
    }
}
