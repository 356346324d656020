//! Changes of streams' lives, redactions and snapshots.

use foldlog_log::{Beginning, Redacting, Snapshot, StreamChange, StreamId, StreamVersion, TopicName, Write};
use foldlog_proto::v1 as pb;

use super::{ANONYMOUS, append::Budget, proto_time, stream, text};
use crate::failure::Failure;

/// A change of a stream, or a snapshot of it.
pub(super) fn marking(
    topic: TopicName,
    write: pb::Write,
    budget: &mut Budget<'_>,
    field: impl Fn(&str) -> String,
) -> Result<Write, Failure> {
    use pb::stream_change::Change;
    if !write.events.is_empty() || write.key.is_some() || write.partition.is_some() {
        let rule = "beside a change or a snapshot stands the stream and nothing else: no events, no key, no partition";
        return Err(Failure::invalid(field("change"), rule));
    }
    let stream = stream(&write.stream, || field("stream"))?;
    let change = match (write.change, write.snapshot) {
        (Some(change), None) => change.change,
        (None, Some(snapshot)) => return snapshot_of(topic, stream, snapshot, budget, field),
        _ => return Err(Failure::invalid(field("change"), "a change or a snapshot, not both")),
    };
    let change = match change {
        Some(Change::TruncateBefore(0)) => return Err(Failure::invalid(field("change.truncate_before"), "versions begin at 1")),
        Some(Change::TruncateBefore(version)) => StreamChange::Truncate { before: StreamVersion::new(version) },
        Some(Change::Delete(_)) => StreamChange::Delete,
        Some(Change::Tombstone(_)) => StreamChange::Tombstone,
        Some(Change::DropSnapshots(_)) => StreamChange::DropSnapshots,
        Some(Change::Redact(redact)) => return redaction_of(topic, stream, redact, budget, field),
        None => return Err(Failure::invalid(field("change"), "truncate_before, delete, tombstone, drop_snapshots or redact is needed")),
    };
    Ok(Write::Change { topic, stream, change, by: ANONYMOUS.into() })
}

/// The versions of the events that are to be redacted one by one, as the log marks them.
fn redaction_of(
    topic: TopicName,
    stream: StreamId,
    given: pb::stream_change::Redact,
    budget: &mut Budget<'_>,
    field: impl Fn(&str) -> String,
) -> Result<Write, Failure> {
    let most = budget.limits.append_events;
    let mut versions = Vec::new();
    for pb::VersionRange { first, last } in given.versions {
        let last = if last == 0 { first } else { last };
        if first == 0 || last < first {
            return Err(Failure::invalid(
                field("change.redact.versions"),
                "versions begin at 1, and a range does not end before it begins",
            ));
        }
        if last - first >= (most - versions.len()) as u64 {
            let rule = format_args!("more than {most} events, the limit of one append");
            return Err(Failure::field("APPEND_TOO_LARGE", field("change.redact.versions"), rule));
        }
        versions.extend((first..=last).map(StreamVersion::new));
    }
    for _ in &versions {
        budget.take(stream.as_str().len() + given.by.len() + given.reason.len(), || field("change.redact"))?;
    }
    Ok(Write::Redact { topic, stream, versions, by: given.by.into(), reason: given.reason.into() })
}

/// What is left to be done of redactions, unless nothing is.
pub fn redaction(left: Redacting) -> Option<pb::Redaction> {
    let since = Some(proto_time(left.since?));
    Some(pb::Redaction { events: left.events, since, waits_for: left.waits_for.unwrap_or_default().to_owned() })
}

fn snapshot_of(
    topic: TopicName,
    stream: StreamId,
    given: pb::Snapshot,
    budget: &mut Budget<'_>,
    field: impl Fn(&str) -> String,
) -> Result<Write, Failure> {
    if given.version == 0 {
        return Err(Failure::invalid(field("snapshot.version"), "versions begin at 1"));
    }
    budget.take(given.data.len() + given.schema.len() + given.content_type.len(), || field("snapshot"))?;
    let version = StreamVersion::new(given.version);
    let snapshot = Snapshot { version, schema: text(given.schema), content_type: text(given.content_type), data: given.data };
    Ok(Write::Snapshot { topic, stream, snapshot, by: ANONYMOUS.into() })
}

/// A snapshot as clients see it.
pub fn snapshot(snapshot: Snapshot) -> pb::Snapshot {
    pb::Snapshot {
        version: snapshot.version.get(),
        schema: snapshot.schema.as_deref().unwrap_or_default().to_owned(),
        content_type: snapshot.content_type.as_deref().unwrap_or_default().to_owned(),
        data: snapshot.data,
    }
}

/// Where a stream begins.
pub const fn beginning(beginning: Beginning) -> pb::StreamBeginning {
    let Beginning { first, anew, retained } = beginning;
    pb::StreamBeginning { first_version: first.get(), anew_version: anew.get(), retained_version: retained.get() }
}
