//! Retention, over gRPC: what it removed is told to whoever reads below, and what a query needs stays.

use crate::{groups::Member, support::*};
use foldlog_proto::v1::{self as pb, read_request::Source, subscribe_request};
use tonic::{Code, Status};

/// A server whose segments are small and written at once.
async fn small() -> World {
    world_with(|config| {
        config.log.tidy_bytes = 16 << 10;
        config.log.tail_bytes = 0;
    })
    .await
}

async fn create(world: &mut World, name: &str) {
    create_of(world, name, pb::TopicKind::Records).await;
}

async fn create_of(world: &mut World, name: &str, kind: pb::TopicKind) {
    let retention = Some(pb::Retention { bytes: Some(32 << 10), ..Default::default() });
    let request = pb::CreateTopicRequest { name: name.into(), kind: kind.into(), partitions: Some(1), retention, ..Default::default() };
    let made = world.topics.create(request).await.unwrap().into_inner();
    assert_eq!(made.retention, retention);
}

async fn describe(world: &mut World, name: &str) -> pb::DescribeTopicResponse {
    world.topics.describe(pb::DescribeTopicRequest { name: name.into() }).await.unwrap().into_inner()
}

/// Appends about a KiB, and returns where the topic begins then.
async fn append(world: &mut World, name: &str) -> u64 {
    let event = pb::Event { data: Some(format!("{{\"n\":1,\"pad\":\"{}\"}}", "x".repeat(1000)).into()), ..Default::default() };
    let write = pb::Write { partition: Some(0), events: vec![event], ..Default::default() };
    let request = pb::AppendRequest { topic: name.into(), writes: vec![write], ..Default::default() };
    world.log.append(request).await.unwrap();
    describe(world, name).await.firsts[0].offset
}

fn partition(topic: &str, from_offset: Option<u64>) -> Source {
    Source::Partition(pb::PartitionRange { topic: topic.into(), partition: 0, from_offset })
}

#[tokio::test]
async fn what_retention_removed_is_told_and_what_a_query_needs_stays() {
    let mut world = small().await;
    create(&mut world, "held").await;
    create(&mut world, "r").await;
    world.sql("CREATE STREAM held (n BIGINT) WITH (value_format = 'json')").await.unwrap();
    world.sql("CREATE TABLE sums AS SELECT 'all' AS k, SUM(n) AS n FROM held GROUP BY 'all'").await.unwrap();
    let start = world.log.get_head(pb::GetHeadRequest::default()).await.unwrap().into_inner().token;
    // Both get as much, and upkeep looks at both after each checkpoint.
    let mut appended = 0;
    while append(&mut world, "r").await < 20 {
        append(&mut world, "held").await;
        appended += 1;
        assert!(appended < 10_000, "retention removes nothing");
    }
    let first = describe(&mut world, "r").await.firsts[0].offset;
    let held = describe(&mut world, "held").await;
    assert_eq!((held.firsts[0].offset, held.holders.len(), held.holders[0].position), (0, 1, 0));
    assert!(held.holders[0].owner.starts_with("ctas_sums"), "{held:?}");
    assert!(describe(&mut world, "r").await.holders.is_empty());

    for below in [0, first - 1] {
        let request = pb::ReadRequest { source: Some(partition("r", Some(below))), ..Default::default() };
        let status = world.read_with(request).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::OutOfRange, "OUT_OF_RANGE"));
    }
    let left = world.read(partition("r", None)).await;
    assert!(left[0].offset >= first, "the beginning is what is left");
    assert_eq!(left.last().unwrap().offset, describe(&mut world, "r").await.ends[0].offset - 1);
    let resumed = pb::SubscribeRequest { start: Some(subscribe_request::Start::After(start.clone())), ..follow("r", 0) };
    let status = world.log.subscribe(resumed).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::OutOfRange, "OUT_OF_RANGE"));
    // Where it says, nothing is missing, unless more was removed meanwhile.
    let whole = |status: &Status| info(status).metadata["position"].parse::<u64>().unwrap();
    let mut from = whole(&status);
    let read = loop {
        match world.read_with(pb::ReadRequest { source: Some(topic_from("r", from)), ..Default::default() }).await {
            Ok(read) => break read,
            Err(status) => from = whole(&status),
        }
    };
    assert!(!read.is_empty());
    let all = pb::SubscribeRequest { start: Some(subscribe_request::Start::After(start)), ..follow("held", 0) };
    world.log.subscribe(all).await.unwrap();
    let rows = world.sql("SELECT COUNT(*) AS n FROM r WHERE rowpartition = 0").await.unwrap().rows();
    assert!(!rows.is_empty(), "a filter is over what is left");

    // The next start holds what came behind the query's checkpoint, and when the query is gone nobody does.
    let folder = world.stop().await;
    let mut world = world_over(folder, |config| config.log.tidy_bytes = 16 << 10).await;
    let again = describe(&mut world, "held").await.holders;
    assert_eq!((again.len(), &again[0].owner), (1, &held.holders[0].owner));
    assert!(again[0].position > held.holders[0].position, "{again:?}");
    assert_eq!(describe(&mut world, "held").await.topic.unwrap().retention.unwrap().bytes, Some(32 << 10));
    let mut appended = 0;
    while append(&mut world, "held").await == 0 {
        appended += 1;
        assert!(appended < 10_000, "nothing holds what lies before the checkpoint");
    }
    let replace = "CREATE OR REPLACE TABLE sums AS SELECT 'all' AS k, SUM(n) AS n FROM held WHERE n > 0 GROUP BY 'all'";
    let refused = world.sql(replace).await.unwrap_err();
    assert!(refused.message().starts_with("sums cannot be folded anew: "), "{refused:?}");
    assert!(!world.sql("SELECT n FROM sums").await.unwrap().rows().is_empty());
    world.sql("DROP TABLE sums").await.unwrap();
    assert!(describe(&mut world, "held").await.holders.is_empty());
    let metrics = get(&world, "/metrics").await;
    assert!(metrics.contains("foldlog_log_deleted_segments_total ") && metrics.contains("foldlog_log_deleted_bytes_total "));
    world.stop().await;
}

#[tokio::test]
async fn events_that_retention_let_go_of_are_told_by_stream_and_to_groups() {
    let mut world = small().await;
    create_of(&mut world, "e", pb::TopicKind::Events).await;
    world.group("g", "e", pb::GroupSettings::default()).await;
    let padded = format!("\"{}\"", "x".repeat(1000));
    let mut appended: u64 = 0;
    while describe(&mut world, "e").await.firsts[0].offset < 20 {
        world.append("e", ["odd", "even"][appended as usize % 2], &[&padded]).await;
        appended += 1;
        assert!(appended < 10_000, "retention lets nothing go");
    }
    keep(&mut world, "e").await;
    let first = describe(&mut world, "e").await.firsts[0].offset;
    let mut world = world_over(world.stop().await, |_| {}).await;
    assert_eq!(describe(&mut world, "e").await.firsts[0].offset, first, "also after a restart");
    for (stream, gone, all) in [("odd", first.div_ceil(2), appended.div_ceil(2)), ("even", first / 2, appended / 2)] {
        let request = pb::ReadRequest { source: Some(stream_from("e", stream, 1)), ..Default::default() };
        let batch = world.log.read(request).await.unwrap().into_inner().message().await.unwrap().unwrap();
        let beginning = pb::StreamBeginning { first_version: gone + 1, anew_version: 1, retained_version: gone + 1 };
        assert_eq!((batch.beginning, batch.events[0].stream_version), (Some(beginning), gone + 1), "{stream}");
        let info = world.log.get_stream(pb::GetStreamRequest { topic: "e".into(), stream: stream.into(), ..Default::default() }).await;
        let info = info.unwrap().into_inner();
        assert_eq!((info.version, info.beginning), (Some(all), Some(beginning)), "{stream}");
    }
    let request = pb::ReadRequest { source: Some(partition("e", Some(first - 1))), ..Default::default() };
    let status = world.read_with(request).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::OutOfRange, "OUT_OF_RANGE"));
    assert_eq!(world.read(partition("e", None)).await[0].offset, first, "the beginning is what is left");
    let mut member = Member::join(&world, "g", 1).await;
    assert_eq!(member.next().await.event.unwrap().offset, first);
    let told: Vec<(u64, u64, u64)> = member.lost.iter().map(|lost| (lost.from, lost.end, lost.count)).collect();
    assert_eq!(told, [(0, first, first)]);
    member.leave().await;
    world.stop().await;
}

#[tokio::test]
async fn a_retention_that_cannot_be_is_refused_with_its_rule() {
    let mut world = world().await;
    let asked = |kind: pb::TopicKind, retention| pb::CreateTopicRequest {
        name: "t".into(),
        kind: kind.into(),
        retention: Some(retention),
        ..Default::default()
    };
    let time = |seconds, nanos| pb::Retention { time: Some(prost_types::Duration { seconds, nanos }), bytes: None };
    for (request, rule) in [
        (asked(pb::TopicKind::Events, time(0, 1_000_000)), "one second"),
        (asked(pb::TopicKind::Records, time(0, 1_000_000)), "one second"),
        (asked(pb::TopicKind::Records, time(-1, 0)), "not negative"),
        (asked(pb::TopicKind::Records, time(i64::MAX, 0)), "100 years"),
        (asked(pb::TopicKind::Records, pb::Retention { time: None, bytes: Some(1) }), "16384"),
    ] {
        let status = world.topics.create(request).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "INVALID_REQUEST"));
        assert!(status.message().contains(rule), "{}", status.message());
    }
    world.stop().await;
}

/// Retention removes nothing more from a topic.
async fn keep(world: &mut World, name: &str) {
    let request = pb::AlterTopicRequest { name: name.into(), retention_bytes: Some(0), ..Default::default() };
    world.topics.alter(request).await.unwrap();
}

#[tokio::test]
async fn what_a_group_had_not_done_when_it_was_removed_is_told_once_and_kept() {
    let mut world = small().await;
    create(&mut world, "r").await;
    for _ in 0..3 {
        append(&mut world, "r").await;
    }
    world.group("g", "r", pb::GroupSettings::default()).await;
    world.group("idle", "r", pb::GroupSettings::default()).await;
    let mut member = Member::join(&world, "g", 3).await;
    let came = member.take(3).await;
    assert_eq!(member.ack(&came[..2]).await, []);
    let mut appended = 0;
    while append(&mut world, "r").await < 20 {
        appended += 1;
        assert!(appended < 10_000, "retention removes nothing");
    }
    keep(&mut world, "r").await;
    assert_eq!(member.ack(&came[2..]).await, [], "what it holds is not lost");
    member.more(100).await;
    let next = member.next().await;
    let first = describe(&mut world, "r").await.firsts[0].offset;
    assert_eq!(next.event.as_ref().unwrap().offset, first);
    let told: u64 = member.lost.iter().map(|lost| lost.count).sum();
    assert_eq!((told, member.lost[0].from <= 3, member.lost.last().unwrap().end), (first - 3, true, first), "{:?}", member.lost);
    let status = world.group_status("g").await;
    assert_eq!((status.lost, status.partitions[0].lost.as_ref().unwrap().total), (told, told));
    member.leave().await;

    let folder = world.stop().await;
    let mut world = world_over(folder, |_| {}).await;
    assert_eq!(world.group_status("g").await.lost, told, "also after a restart");
    let mut member = Member::join(&world, "g", 10).await;
    member.next().await;
    assert_eq!(member.lost, [], "and told to nobody else");
    member.leave().await;
    let mut member = Member::join(&world, "idle", 10).await;
    assert_eq!(member.next().await.event.unwrap().offset, first);
    let told: Vec<(u64, u64, u64)> = member.lost.iter().map(|lost| (lost.from, lost.end, lost.count)).collect();
    assert_eq!(told, [(0, first, first)], "a member that comes later is told what was lost before");
    member.leave().await;
    let metrics = get(&world, "/metrics").await;
    let line = format!("foldlog_group_lost_total{{group=\"idle\"}} {first}.0");
    assert!(metrics.lines().any(|found| found == line), "{line} is not in {metrics}");

    // A group that begins now lost nothing, nor did one that is moved.
    world.group("new", "r", pb::GroupSettings::default()).await;
    assert_eq!(world.group_status("new").await.lost, 0);
    world.stop().await;
}
