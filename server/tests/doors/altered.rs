//! Topics altered over gRPC, under subscribers, queries and writers that go on.

use crate::support::*;
use foldlog_proto::v1::{self as pb, query_batch, subscribe_batch};
use prost_types::Duration as Span;
use tokio::time::timeout;
use tonic::Code;

fn alter(name: &str) -> pb::AlterTopicRequest {
    pb::AlterTopicRequest { name: name.into(), ..Default::default() }
}

fn record(partition: u32, text: &str) -> pb::AppendRequest {
    let events = vec![pb::Event { data: Some(format!("{{\"n\":{text}}}").into()), ..Default::default() }];
    let write = pb::Write { partition: Some(partition), events, ..Default::default() };
    pb::AppendRequest { topic: "r".into(), writes: vec![write], ..Default::default() }
}

#[tokio::test]
async fn a_topic_is_altered_and_described_as_it_is_then() {
    let mut world = world().await;
    world.topic_of("r", pb::TopicKind::Records).await;
    let day = Span { seconds: 86_400, nanos: 0 };
    let changes = pb::AlterTopicRequest {
        partitions: Some(4),
        durability: pb::Durability::Written.into(),
        compression: pb::Compression::Lz4.into(),
        retention_time: Some(day),
        retention_bytes: Some(1 << 30),
        ..alter("r")
    };
    let altered = world.topics.alter(changes.clone()).await.unwrap().into_inner();
    assert_eq!((altered.partitions, altered.durability(), altered.compression()), (4, pb::Durability::Written, pb::Compression::Lz4));
    assert_eq!(altered.retention, Some(pb::Retention { time: Some(day), bytes: Some(1 << 30) }));
    assert_eq!(world.topics.alter(changes).await.unwrap().into_inner(), altered, "the same again is no error");
    let weak = world.log.append(record(3, "1")).await.unwrap().into_inner();
    assert_eq!(weak.durability(), pb::Durability::Written);
    // What is not named stays; zero is what a topic has that was told nothing.
    let lifted = pb::AlterTopicRequest { retention_time: Some(Span::default()), ..alter("r") };
    let lifted = world.topics.alter(lifted).await.unwrap().into_inner();
    assert_eq!(lifted, pb::Topic { retention: Some(pb::Retention { time: None, bytes: Some(1 << 30) }), ..altered.clone() });
    let kept = world.topics.alter(pb::AlterTopicRequest { retention_bytes: Some(0), ..alter("r") }).await.unwrap().into_inner();
    assert_eq!(kept, pb::Topic { retention: None, ..altered });
    let folder = world.stop().await;
    let mut world = world_over(folder, |_| {}).await;
    let described = world.topics.describe(pb::DescribeTopicRequest { name: "r".into() }).await.unwrap().into_inner();
    assert_eq!((described.topic, described.ends.len()), (Some(kept), 4));
    world.stop().await;
}

#[tokio::test]
async fn what_cannot_be_altered_is_refused_and_nothing_is_altered() {
    let mut world = world().await;
    world.topic("e").await;
    world.topic_of("t", pb::TopicKind::Table).await;
    world.topic_of("r", pb::TopicKind::Records).await;
    let second = Some(Span { seconds: 1, nanos: 0 });
    let refused = [
        (alter("e"), "nothing is to be altered"),
        (pb::AlterTopicRequest { partitions: Some(3), ..alter("e") }, "where a stream lies"),
        (pb::AlterTopicRequest { partitions: Some(3), ..alter("t") }, "where a key lies"),
        (pb::AlterTopicRequest { partitions: Some(1), ..alter("r") }, "there are 2 already"),
        (pb::AlterTopicRequest { partitions: Some(1025), ..alter("r") }, "1 to 1024"),
        (pb::AlterTopicRequest { compression: 9, ..alter("r") }, "no compression"),
        (pb::AlterTopicRequest { durability: 9, ..alter("r") }, "no durability"),
        (pb::AlterTopicRequest { retention_time: Some(Span { seconds: -1, nanos: 0 }), ..alter("r") }, "not negative"),
        (pb::AlterTopicRequest { retention_time: Some(Span { seconds: 0, nanos: 1 }), ..alter("r") }, "one second"),
        (pb::AlterTopicRequest { retention_time: second, retention_bytes: Some(3), ..alter("r") }, "16384"),
        (pb::AlterTopicRequest { retention_time: second, ..alter("_foldlog.catalog") }, "belong to foldlog itself"),
        (pb::AlterTopicRequest { retention_time: second, ..alter("no name") }, "name"),
    ];
    for (request, words) in refused {
        let status = world.topics.alter(request.clone()).await.unwrap_err();
        assert!(status.code() == Code::InvalidArgument && status.message().contains(words), "{request:?}: {status:?}");
    }
    let missing = world.topics.alter(pb::AlterTopicRequest { retention_time: second, ..alter("none") }).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    for topic in world.topics.list(pb::ListTopicsRequest::default()).await.unwrap().into_inner().topics {
        assert_eq!((topic.partitions, topic.durability(), topic.retention), (2, pb::Durability::Synced, None), "{}", topic.name);
    }
    world.stop().await;
}

#[tokio::test]
async fn whoever_follows_a_topic_gets_what_comes_into_partitions_that_were_added() {
    let mut world = world().await;
    world.topic_of("r", pb::TopicKind::Records).await;
    world.sql("CREATE STREAM numbers (n BIGINT) WITH (topic = 'r', value_format = 'json')").await.unwrap();
    world.sql("CREATE TABLE sums AS SELECT 'all' AS k, SUM(n) AS n FROM numbers GROUP BY 'all'").await.unwrap();
    let mut rows = world.query.push(statement("SELECT n FROM numbers EMIT CHANGES")).await.unwrap().into_inner();
    let mut events = world.log.subscribe(follow("r", 0)).await.unwrap().into_inner();

    world.log.append(record(0, "1")).await.unwrap();
    let no_such = world.log.append(record(2, "0")).await.unwrap_err();
    assert!(no_such.message().contains("2 partitions"), "{no_such:?}");
    world.topics.alter(pb::AlterTopicRequest { partitions: Some(3), ..alter("r") }).await.unwrap();
    let token = world.log.append(record(2, "20")).await.unwrap().into_inner().token;

    let (mut followed, mut pushed) = (Vec::new(), 0);
    while followed.len() < 2 {
        let batch = timeout(LONG, events.message()).await.unwrap().unwrap().unwrap();
        if let Some(subscribe_batch::Message::Events(batch)) = batch.message {
            followed.extend(batch.events.iter().map(|event| (event.partition, text(event))));
        }
    }
    assert_eq!(followed, [(0, "{\"n\":1}".to_owned()), (2, "{\"n\":20}".to_owned())]);
    while pushed < 2 {
        let batch = timeout(LONG, rows.message()).await.unwrap().unwrap().unwrap();
        if let Some(query_batch::Message::Rows(batch)) = batch.message {
            pushed += batch.count;
        }
    }
    let pull = pb::QueryRequest { at_least: token, ..statement("SELECT n FROM sums WHERE k = 'all'") };
    assert_eq!(world.answer(pull).await.unwrap().rows(), [[Cell::Integer(21)]]);
    drop((events, rows));
    world.stop().await;
}
