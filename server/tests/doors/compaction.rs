//! Compaction by key, over gRPC: settings are told, the newest record of each key is left, and how far it has come is shown.

use crate::{
    groups::{Member, said},
    support::*,
};
use foldlog_proto::v1::{self as pb, read_request::Source};
use prost_types::Duration;
use tonic::Code;

fn seconds(seconds: i64) -> Option<Duration> {
    Some(Duration { seconds, nanos: 0 })
}

fn asked(kind: pb::TopicKind, compaction: Option<pb::Compaction>) -> pb::CreateTopicRequest {
    pb::CreateTopicRequest { name: "t".into(), kind: kind.into(), partitions: Some(1), compaction, ..Default::default() }
}

async fn describe(world: &mut World, name: &str) -> pb::DescribeTopicResponse {
    world.topics.describe(pb::DescribeTopicRequest { name: name.into() }).await.unwrap().into_inner()
}

/// Appends about a KiB under one of ten keys.
async fn append(world: &mut World, number: u64) {
    let event = pb::Event { data: Some(format!("{number}:{}", "x".repeat(1000)).into()), ..Default::default() };
    let write = pb::Write { key: Some(format!("k{}", number % 10).into()), events: vec![event], ..Default::default() };
    world.log.append(pb::AppendRequest { topic: "t".into(), writes: vec![write], ..Default::default() }).await.unwrap();
}

#[tokio::test]
async fn tables_are_compacted_at_the_door() {
    let mut world = world_with(|config| {
        config.log.tidy_bytes = 16 << 10;
        config.log.tail_bytes = 0;
        config.log.segment_bytes = 32 << 10;
    })
    .await;
    let compaction = pb::Compaction { max_lag: seconds(3600), dirty_percent: Some(30), ..Default::default() };
    let made = world.topics.create(asked(pb::TopicKind::Table, Some(compaction))).await.unwrap().into_inner();
    let whole = pb::Compaction { delete_retention: seconds(86_400), min_lag: seconds(0), ..compaction };
    assert_eq!(made.compaction, Some(whole), "what is left out has its default");
    let mut appended = 0;
    while describe(&mut world, "t").await.compaction[0].cleaned_to < 200 {
        append(&mut world, appended).await;
        appended += 1;
        assert!(appended < 10_000, "nothing is compacted");
    }
    let read = world.read(Source::Partition(pb::PartitionRange { topic: "t".into(), partition: 0, from_offset: Some(0) })).await;
    assert!(read.is_sorted_by_key(|event| event.offset) && (read.len() as u64) < appended);
    for newest in appended - 10..appended {
        let found = read.iter().find(|event| event.offset == newest).unwrap();
        assert!(found.event.as_ref().unwrap().data.as_ref().unwrap().starts_with(format!("{newest}:").as_bytes()));
    }

    let changes = pb::Compaction { min_lag: seconds(60), ..Default::default() };
    let request = pb::AlterTopicRequest { name: "t".into(), compaction: Some(changes), ..Default::default() };
    let altered = world.topics.alter(request).await.unwrap().into_inner();
    assert_eq!(altered.compaction, Some(pb::Compaction { min_lag: seconds(60), ..whole }), "what is left out stays as it is");

    world.topics.pause_compaction(pb::PauseCompactionRequest { paused: true }).await.unwrap();
    assert!(describe(&mut world, "t").await.compaction_paused);
    world.topics.pause_compaction(pb::PauseCompactionRequest { paused: false }).await.unwrap();
    let described = describe(&mut world, "t").await;
    assert!(!described.compaction_paused && described.compaction[0].bytes > 0);
    let metrics = get(&world, "/metrics").await;
    for name in ["passes_total", "read_bytes_total", "freed_bytes_total", "dirty_bytes"] {
        assert!(metrics.contains(&format!("foldlog_log_compaction_{name} ")), "{name}");
    }
    world.stop().await;
}

/// A query leaves a record of how far it is with each of its steps, all under one key.
#[tokio::test]
async fn system_tables_are_compacted_and_a_restart_goes_on_with_what_is_left() {
    let mut world = world_with(|config| {
        config.log.tidy_bytes = 16 << 10;
        config.log.segment_bytes = 16 << 10;
    })
    .await;
    world.topic_of("r", pb::TopicKind::Records).await;
    world.sql("CREATE STREAM numbers (n BIGINT) WITH (topic = 'r', value_format = 'json')").await.unwrap();
    world.sql("CREATE TABLE sums AS SELECT 'all' AS k, SUM(n) AS n FROM numbers GROUP BY 'all'").await.unwrap();
    let mut sum = 0;
    while describe(&mut world, "_foldlog.progress").await.compaction[0].cleaned_to == 0 {
        assert_eq!(one_more(&mut world).await, sum + 1);
        sum += 1;
        assert!(sum < 10_000, "nothing is compacted");
    }
    let folder = world.stop().await;
    let mut world = world_over(folder, |config| config.log.segment_bytes = 16 << 10).await;
    assert_eq!(one_more(&mut world).await, sum + 1);
    world.stop().await;
}

/// A group leaves a record with each acknowledgement, most of them under keys that it has used before.
#[tokio::test]
async fn what_groups_remember_is_compacted_and_a_restart_knows_it_all() {
    let mut world = world_with(|config| {
        config.log.tidy_bytes = 16 << 10;
        config.log.segment_bytes = 16 << 10;
    })
    .await;
    world.topic("t").await;
    world.group("g", "t", pb::GroupSettings::default()).await;
    for text in ["parked", "held"] {
        world.append("t", text, &[text]).await;
    }
    let mut member = Member::join(&world, "g", 10_000).await;
    for delivered in member.take(2).await {
        let action = if said(&delivered) == "parked" { pb::NackAction::Park } else { pb::NackAction::Retry };
        member.nack(&delivered, action, "why").await;
    }
    let mut done = 0;
    while describe(&mut world, "_foldlog.offsets").await.compaction[0].cleaned_to == 0 {
        world.append("t", &format!("s{}", done % 5), &["next"]).await;
        let delivered = member.next().await;
        if said(&delivered) == "next" {
            assert_eq!(member.ack(&[delivered]).await, []);
        }
        done += 1;
        assert!(done < 10_000, "nothing is compacted");
    }
    while world.group_status("g").await.lag > 1 {
        let delivered = member.next().await;
        if said(&delivered) == "next" {
            assert_eq!(member.ack(&[delivered]).await, []);
        }
    }
    member.leave().await;
    let before = world.group_status("g").await;
    assert_eq!((before.lag, before.parked, before.member_count), (1, 1, 0));
    let parked = world.parked("g").await;

    let folder = world.stop().await;
    let mut world = world_over(folder, |config| config.log.segment_bytes = 16 << 10).await;
    let after = world.group_status("g").await;
    assert_eq!((&after.partitions, after.lag, after.group), (&before.partitions, 1, before.group));
    assert_eq!(world.parked("g").await, parked);
    let mut member = Member::join(&world, "g", 100).await;
    let held = member.next().await;
    assert_eq!((said(&held).as_str(), held.attempt), ("held", 2), "also how often it was delivered");
    assert_eq!(member.ack(&[held]).await, []);
    assert_eq!(world.group_status("g").await.lag, 0, "what was acknowledged does not come again");
    member.leave().await;
    world.stop().await;
}

/// Appends a 1, and waits for the sum with it.
async fn one_more(world: &mut World) -> i64 {
    let event = pb::Event { data: Some("{\"n\":1}".to_owned().into()), ..Default::default() };
    let write = pb::Write { partition: Some(0), events: vec![event], ..Default::default() };
    let request = pb::AppendRequest { topic: "r".into(), writes: vec![write], ..Default::default() };
    let token = world.log.append(request).await.unwrap().into_inner().token;
    let pull = pb::QueryRequest { at_least: token, ..statement("SELECT n FROM sums WHERE k = 'all'") };
    match world.answer(pull).await.unwrap().rows()[0][0] {
        Cell::Integer(sum) => sum,
        ref other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_no_table_is_not_compacted_by_key() {
    let mut world = world().await;
    let some = pb::Compaction { dirty_percent: Some(10), ..Default::default() };
    for (request, rule) in [
        (asked(pb::TopicKind::Events, Some(some)), "an event replaces none"),
        (asked(pb::TopicKind::Records, Some(some)), "of kind table"),
        (asked(pb::TopicKind::Table, Some(pb::Compaction { dirty_percent: Some(300), ..some })), "1 to 100"),
        (asked(pb::TopicKind::Table, Some(pb::Compaction { max_lag: seconds(0), ..some })), "one second"),
        (asked(pb::TopicKind::Table, Some(pb::Compaction { min_lag: seconds(-1), ..some })), "not negative"),
    ] {
        let status = world.topics.create(request).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "INVALID_REQUEST"));
        assert!(status.message().contains(rule), "{}", status.message());
    }
    let plain = world.topics.create(asked(pb::TopicKind::Events, None)).await.unwrap().into_inner();
    assert_eq!(plain.compaction, None);
    assert!(describe(&mut world, "t").await.compaction.is_empty());
    world.stop().await;
}
