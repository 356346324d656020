//! Which settings a topic may have, and in what two topics differ. Pure.

use crate::{
    compaction::Compaction,
    error::LogError,
    topic::{Topic, TopicKind, TopicSettings},
};

/// Refuses settings that no topic may have.
///
/// # Errors
/// [`LogError::Invalid`].
pub(super) fn check(name: &str, settings: TopicSettings) -> Result<(), LogError> {
    let invalid = |field: &str, reason| Err(LogError::Invalid { field: field.into(), reason });
    if !(1..=TopicSettings::MAX_PARTITIONS).contains(&settings.partitions) {
        let reason = format!("{} partitions were asked for, 1 to {} are allowed", settings.partitions, TopicSettings::MAX_PARTITIONS);
        return invalid("partitions", reason);
    }
    if let Some((setting, reason)) = settings.retention.fault().or(settings.compaction.fault()) {
        return invalid(setting, reason);
    }
    let kept = match settings.kind {
        _ if settings.compaction == Compaction::DEFAULT => return Ok(()),
        TopicKind::Table => return Ok(()),
        TopicKind::Events => "an event replaces none before it, what is true now follows from all of them",
        TopicKind::Records => "they say what happened, not how something stands; a topic of kind table has the newest record of each key",
    };
    invalid("compaction", format!("topic {name} is of kind {}, which is not compacted by key: {kept}", settings.kind))
}

/// The refusal to create a topic that is there with other settings.
pub(super) fn exists(topic: &Topic, asked: TopicSettings) -> LogError {
    let mut differences = Vec::new();
    if topic.settings.kind != asked.kind {
        differences.push(format!("kind {} instead of {}", topic.settings.kind, asked.kind));
    }
    if topic.settings.partitions != asked.partitions {
        differences.push(format!("{} partitions instead of {}", topic.settings.partitions, asked.partitions));
    }
    if topic.settings.durability != asked.durability {
        differences.push(format!("durability {} instead of {}", topic.settings.durability, asked.durability));
    }
    if topic.settings.compression != asked.compression {
        differences.push(format!("compression {} instead of {}", topic.settings.compression, asked.compression));
    }
    if topic.settings.retention != asked.retention {
        differences.push(format!("retention {} instead of {}", topic.settings.retention, asked.retention));
    }
    if topic.settings.compaction != asked.compaction {
        differences.push(format!("{} instead of {}", topic.settings.compaction, asked.compaction));
    }
    LogError::TopicExists { topic: topic.name.clone(), difference: differences.join(" and ") }
}
