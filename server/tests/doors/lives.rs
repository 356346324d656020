//! What becomes of streams, over gRPC: truncated, deleted, tombstoned, and what readers and writers are told.

use crate::support::*;
use foldlog_proto::v1::{
    self as pb,
    stream_change::{Change, Delete, DropSnapshots, Tombstone},
    stream_state::{Absent, Deleted, Exists, Expect},
    subscribe_batch::Message,
    subscribe_request,
};
use tokio::time::timeout;
use tonic::Code;

pub fn change(topic: &str, stream: &str, change: Change) -> pb::AppendRequest {
    let change = Some(pb::StreamChange { change: Some(change) });
    let write = pb::Write { stream: stream.into(), change, ..pb::Write::default() };
    pb::AppendRequest { topic: topic.into(), writes: vec![write], ..pb::AppendRequest::default() }
}

async fn info(world: &mut World, stream: &str) -> pb::StreamInfo {
    let request = pb::GetStreamRequest { topic: "t".into(), stream: stream.into(), ..pb::GetStreamRequest::default() };
    world.log.get_stream(request).await.unwrap().into_inner()
}

/// Version, first version, version with which it began anew, whether it is deleted or tombstoned.
async fn told(world: &mut World, stream: &str) -> (Option<u64>, u64, u64, bool, bool) {
    let info = info(world, stream).await;
    let beginning = info.beginning.unwrap();
    (info.version, beginning.first_version, beginning.anew_version, info.deleted, info.tombstoned)
}

/// The first message of a read of a stream.
async fn first_batch(world: &mut World, stream: &str) -> pb::ReadBatch {
    let request = pb::ReadRequest { source: Some(stream_from("t", stream, 1)), ..pb::ReadRequest::default() };
    world.log.read(request).await.unwrap().into_inner().message().await.unwrap().unwrap()
}

#[tokio::test]
async fn streams_are_truncated_deleted_and_tombstoned_at_the_door() {
    let mut world = world().await;
    world.topic("t").await;
    for stream in ["cut", "gone", "over"] {
        world.append("t", stream, &["1", "2", "3"]).await;
    }
    let cut = world.log.append(change("t", "cut", Change::TruncateBefore(3))).await.unwrap().into_inner();
    assert_eq!((cut.versions[0].version, cut.ranges.len(), cut.first_position, cut.last_position), (3, 1, 9, 9));
    world.log.append(change("t", "gone", Change::Delete(Delete {}))).await.unwrap();
    let request = pb::AppendRequest { request_id: vec![7; 16].into(), ..change("t", "over", Change::Tombstone(Tombstone {})) };
    let over = world.log.append(request.clone()).await.unwrap().into_inner();
    let again = world.log.append(request).await.unwrap().into_inner();
    assert_eq!((again.deduplicated, again.first_position), (true, over.first_position));

    // What is said is said after a restart, too.
    for round in 0..2 {
        assert_eq!(told(&mut world, "cut").await, (Some(3), 3, 1, false, false));
        assert_eq!(told(&mut world, "gone").await, (Some(3), 4, 4, true, false));
        assert_eq!(told(&mut world, "over").await, (None, 4, 4, false, true));
        assert_eq!(told(&mut world, "never").await, (None, 1, 1, false, false));
        assert_eq!(texts(&world.read(stream_from("t", "cut", 1)).await), ["3"]);
        let batch = first_batch(&mut world, "cut").await;
        assert_eq!(batch.beginning, Some(pb::StreamBeginning { first_version: 3, anew_version: 1, retained_version: 1 }));
        assert!(world.read(stream_from("t", "gone", 1)).await.is_empty() && world.read(stream_from("t", "over", 1)).await.is_empty());
        let refused = world.append_refused(self::request("t", "over", &["4"])).await;
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "STREAM_TOMBSTONED"));
        assert_eq!(world.read(topic_from("t", 0)).await.len(), 9, "by topic all is read, and no mark");
        if round == 0 {
            world = world_over(world.stop().await, |_| {}).await;
        }
    }
    assert_eq!(world.sql("SELECT COUNT(*) FROM t").await.unwrap().rows(), world.sql("SELECT 9").await.unwrap().rows());

    // A deleted stream takes what is believed rightly of it, and goes on.
    let mut again = self::request("t", "gone", &["4"]);
    again.preconditions = vec![expect("gone", Expect::Exists(Exists {}))];
    let refused = world.append_refused(again.clone()).await;
    assert_eq!(reason(&refused), "STREAM_VERSION_CONFLICT");
    assert!(refused.message().contains("deleted at version 3"), "{}", refused.message());
    again.preconditions =
        vec![expect("gone", Expect::Absent(Absent {})), expect("gone", Expect::Deleted(Deleted {})), expect("gone", Expect::Version(3))];
    assert_eq!(world.log.append(again).await.unwrap().into_inner().versions[0].version, 4);
    assert_eq!(told(&mut world, "gone").await, (Some(4), 4, 4, false, false));
    let batch = first_batch(&mut world, "gone").await;
    assert_eq!((texts(&batch.events), batch.beginning.unwrap().anew_version), (vec!["4".to_owned()], 4));
    world.stop().await;
}

#[tokio::test]
async fn a_subscription_of_a_stream_goes_on_behind_what_becomes_of_it() {
    let mut world = world().await;
    world.topic("t").await;
    world.append("t", "s", &["1", "2"]).await;
    let source = match stream_from("t", "s", 1) {
        pb::read_request::Source::Stream(range) => subscribe_request::Source::Stream(range),
        other => panic!("{other:?}"),
    };
    let request = pb::SubscribeRequest { source: Some(source), ..pb::SubscribeRequest::default() };
    let mut batches = world.log.subscribe(request).await.unwrap().into_inner();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        if let Some(Message::Events(batch)) = timeout(LONG, batches.message()).await.unwrap().unwrap().unwrap().message {
            seen.extend(batch.events);
        }
    }
    world.log.append(change("t", "s", Change::Delete(Delete {}))).await.unwrap();
    world.append("t", "other", &["x"]).await;
    world.append("t", "s", &["3"]).await;
    while seen.len() < 3 {
        if let Some(Message::Events(batch)) = timeout(LONG, batches.message()).await.unwrap().unwrap().unwrap().message {
            seen.extend(batch.events);
        }
    }
    assert_eq!(seen.iter().map(|event| (event.stream_version, text(event))).collect::<Vec<_>>()[2], (3, "3".to_owned()));
    drop(batches);
    world.stop().await;
}

pub fn put(stream: &str, version: u64, schema: &str, data: &str) -> pb::AppendRequest {
    let snapshot = pb::Snapshot { version, schema: schema.into(), content_type: "text/plain".into(), data: data.to_owned().into() };
    let write = pb::Write { stream: stream.into(), snapshot: Some(snapshot), ..pb::Write::default() };
    pb::AppendRequest { topic: "t".into(), writes: vec![write], ..pb::AppendRequest::default() }
}

#[tokio::test]
async fn snapshots_are_put_found_as_of_a_version_and_go_with_their_stream() {
    let mut world = world().await;
    world.topic("t").await;
    world.append("t", "s", &["1", "2", "3"]).await;
    let found = async |world: &mut World, at_most: Option<u64>| {
        let request = pb::GetSnapshotRequest { topic: "t".into(), stream: "s".into(), at_most_version: at_most, ..Default::default() };
        let answer = world.log.get_snapshot(request).await.unwrap().into_inner();
        assert_eq!(answer.snapshot.is_some(), answer.recorded_at.is_some());
        answer.snapshot.map(|found| (found.version, found.schema, found.content_type, found.data))
    };
    let is = |version: u64, data: &'static str| Some((version, "v1".to_owned(), "text/plain".to_owned(), data.into()));
    assert_eq!(found(&mut world, None).await, None);
    let first = world.log.append(put("s", 1, "v1", "one")).await.unwrap().into_inner();
    world.log.append(put("s", 3, "v1", "three")).await.unwrap();
    let request = pb::GetSnapshotRequest { topic: "t".into(), stream: "s".into(), at_least: first.token, ..Default::default() };
    assert_eq!(world.log.get_snapshot(request).await.unwrap().into_inner().snapshot.unwrap().version, 3);
    for round in 0..2 {
        assert_eq!(found(&mut world, None).await, is(3, "three"));
        assert_eq!(found(&mut world, Some(2)).await, is(1, "one"));
        assert_eq!(world.read(topic_from("t", 0)).await.len(), 3);
        if round == 0 {
            world = world_over(world.stop().await, |_| {}).await;
        }
    }
    let beyond = world.append_refused(put("s", 4, "v1", "x")).await;
    assert_eq!((beyond.code(), reason(&beyond).as_str()), (Code::OutOfRange, "OUT_OF_RANGE"));
    let large = world.append_refused(put("s", 3, "v1", &"x".repeat((1 << 20) + 1))).await;
    assert_eq!((large.code(), reason(&large).as_str()), (Code::InvalidArgument, "EVENT_TOO_LARGE"));
    for invalid in [put("s", 0, "v1", "x"), put("", 1, "v1", "x")] {
        assert_eq!(world.append_refused(invalid).await.code(), Code::InvalidArgument);
    }
    let zero = pb::GetSnapshotRequest { topic: "t".into(), stream: "s".into(), at_most_version: Some(0), ..Default::default() };
    assert_eq!(world.log.get_snapshot(zero).await.unwrap_err().code(), Code::InvalidArgument);
    world.log.append(change("t", "s", Change::DropSnapshots(DropSnapshots {}))).await.unwrap();
    assert_eq!(found(&mut world, None).await, None);
    world.log.append(put("s", 2, "v1", "two")).await.unwrap();
    assert_eq!(found(&mut world, None).await, is(2, "two"));
    world.log.append(change("t", "s", Change::Delete(Delete {}))).await.unwrap();
    assert_eq!(found(&mut world, None).await, None);
    world.stop().await;
}

#[tokio::test]
async fn a_change_that_cannot_be_meant_is_refused_by_field() {
    let mut world = world().await;
    world.topic("t").await;
    world.topic_of("plain", pb::TopicKind::Records).await;
    world.append("t", "s", &["1"]).await;
    let with = |edit: fn(&mut pb::Write)| {
        let mut request = change("t", "s", Change::Delete(Delete {}));
        edit(&mut request.writes[0]);
        request
    };
    let invalid = [
        with(|write| write.events.push(event("x"))),
        with(|write| write.key = Some("k".into())),
        with(|write| write.partition = Some(0)),
        with(|write| write.change = Some(pb::StreamChange { change: None })),
        with(|write| write.stream.clear()),
        change("t", "s", Change::TruncateBefore(0)),
        pb::AppendRequest {
            writes: [change("t", "s", Change::Delete(Delete {})).writes, request("t", "s", &["x"]).writes].concat(),
            ..request("t", "s", &[])
        },
        change("_foldlog.catalog", "s", Change::Delete(Delete {})),
    ];
    for request in invalid {
        let refused = world.append_refused(request.clone()).await;
        assert_eq!(refused.code(), Code::InvalidArgument, "{request:?}: {refused:?}");
    }
    let beyond = world.append_refused(change("t", "s", Change::TruncateBefore(3))).await;
    assert_eq!((beyond.code(), reason(&beyond).as_str()), (Code::OutOfRange, "OUT_OF_RANGE"));
    let plain = world.append_refused(change("plain", "s", Change::Delete(Delete {}))).await;
    assert_eq!((plain.code(), reason(&plain).as_str()), (Code::FailedPrecondition, "TOPIC_KIND_MISMATCH"));
    assert_eq!(told(&mut world, "s").await, (Some(1), 1, 1, false, false));
    world.stop().await;
}
