//! Reading over gRPC: each source, its order, its captured end, and tokens.

use std::time::Duration;

use crate::support::*;
use foldlog_proto::v1::{self as pb, read_request::Source};
use tonic::Code;

#[tokio::test]
async fn each_source_has_its_own_order_and_start() {
    let mut world = world().await;
    world.topic("one").await;
    world.topic("two").await;
    let mut starts = Vec::new();
    for n in 0..30 {
        let (topic, stream) = (if n % 3 == 0 { "two" } else { "one" }, format!("s{}", n % 5));
        starts.push(world.append(topic, &stream, &[&n.to_string()]).await.first_position);
    }
    let numbers = |events: &[pb::RecordedEvent]| events.iter().map(|event| text(event).parse::<usize>().unwrap()).collect::<Vec<_>>();
    let all = world.read(Source::All(pb::AllRange { from_position: Some(0) })).await;
    assert_eq!(numbers(&all), (0..30).collect::<Vec<_>>(), "everything comes in the order of the appends");
    let later = world.read(Source::All(pb::AllRange { from_position: Some(starts[10]) })).await;
    assert_eq!(numbers(&later), (10..30).collect::<Vec<_>>());
    assert_eq!(numbers(&world.read(topic_from("two", starts[10])).await), [12, 15, 18, 21, 24, 27]);
    let partition = world.read(Source::Partition(pb::PartitionRange { topic: "one".into(), partition: 1, from_offset: Some(0) })).await;
    assert_eq!(partition.iter().map(|event| event.offset).collect::<Vec<_>>(), (0..partition.len() as u64).collect::<Vec<_>>());
    assert!(partition.iter().all(|event| event.partition == 1 && event.topic == "one"));
    let stream = world.read(stream_from("one", "s1", 2)).await;
    assert_eq!(numbers(&stream), [11, 16, 26]);
    assert_eq!(stream.iter().map(|event| event.stream_version).collect::<Vec<_>>(), [2, 3, 4]);
    assert!(world.read(stream_from("one", "nobody", 1)).await.is_empty());
    world.stop().await;
}

/// A read backwards of a source.
fn backwards(source: Source) -> pb::ReadRequest {
    pb::ReadRequest { source: Some(source), direction: pb::Direction::Backwards.into(), ..Default::default() }
}

#[tokio::test]
async fn each_source_is_read_backwards_from_its_end_or_from_a_place() {
    let mut world = world().await;
    world.topic("one").await;
    world.topic("two").await;
    for n in 0..30 {
        let (topic, stream) = (if n % 3 == 0 { "two" } else { "one" }, format!("s{}", n % 5));
        world.append(topic, &stream, &[&n.to_string()]).await;
    }
    let all = world.read(Source::All(pb::AllRange::default())).await;
    let partition = pb::PartitionRange { topic: "one".into(), partition: 1, from_offset: None };
    let stream = pb::StreamRange { topic: "one".into(), stream: "s1".into(), from_version: None };
    let topic = pb::TopicRange { topic: "two".into(), from_position: None };
    for source in [Source::All(pb::AllRange::default()), Source::Partition(partition), Source::Stream(stream), Source::Topic(topic)] {
        let mut forwards = world.read(source.clone()).await;
        assert!(forwards.len() > 3, "{source:?}");
        forwards.reverse();
        assert_eq!(world.read_with(backwards(source.clone())).await.unwrap(), forwards);
        let newest = pb::ReadRequest { limit: 2, max_batch_events: 1, ..backwards(source) };
        assert_eq!(world.read_with(newest).await.unwrap(), forwards[..2], "the newest two come first");
    }
    // The place given is the first that comes.
    let from = all[12].clone();
    let older: Vec<_> = all[..=12].iter().rev().cloned().collect();
    assert_eq!(world.read_with(backwards(Source::All(pb::AllRange { from_position: Some(from.position) }))).await.unwrap(), older);
    let in_stream = world.read_with(backwards(stream_from("one", "s1", 2))).await.unwrap();
    assert_eq!(in_stream.iter().map(|event| event.stream_version).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(
        world.read_with(backwards(stream_from("one", "s1", u64::MAX))).await.unwrap().len(),
        4,
        "past the end of a stream is its end"
    );
    assert_eq!(world.read_with(backwards(topic_from("one", 30))).await.unwrap().len(), 20, "the end itself is a place");
    let status = world.read_with(backwards(topic_from("one", 31))).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::OutOfRange, "OUT_OF_RANGE"));
    let status = world.read_with(pb::ReadRequest { direction: 9, ..backwards(topic_from("one", 0)) }).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "INVALID_REQUEST"));
    world.stop().await;
}

#[tokio::test]
async fn large_units_are_read_backwards_in_messages_of_bounded_size() {
    let mut world = world().await;
    world.topics.create(pb::CreateTopicRequest { name: "t".into(), partitions: Some(1), ..Default::default() }).await.unwrap();
    for n in 0..4 {
        let texts: Vec<String> = (0..7).map(|m| format!("{}{}", n * 7 + m, "x".repeat(100_000))).collect();
        world.append("t", "s", &texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    let mut batches = world.log.read(backwards(topic_from("t", 28))).await.unwrap().into_inner();
    let (mut offsets, mut last) = (Vec::new(), u64::MAX);
    while let Some(batch) = batches.message().await.unwrap() {
        assert!(batch.events.len() <= 2 && batch.scanned_to <= last, "{} at {}", batch.events.len(), batch.scanned_to);
        assert_eq!((batch.end, batch.scanned_to == 0), (batch.end, batch.end), "0 is reached at the end");
        last = batch.scanned_to;
        offsets.extend(batch.events.iter().map(|event| event.offset));
    }
    assert_eq!(offsets, (0..28).rev().collect::<Vec<_>>());
    world.stop().await;
}

#[tokio::test]
async fn a_read_and_a_subscription_begin_at_a_time() {
    let mut world = world().await;
    world.topic("t").await;
    let mut times = std::collections::BTreeSet::new();
    // The clock of the server is the real one: it moves while we append.
    while times.len() < 3 {
        let at = world.append("t", &format!("s{}", times.len()), &["x"]).await.recorded_at.unwrap();
        times.insert((at.seconds, at.nanos));
    }
    let all = world.read(topic_from("t", 0)).await;
    let middle = *times.iter().nth(1).unwrap();
    let from_time = Some(prost_types::Timestamp { seconds: middle.0, nanos: middle.1 });
    let at = |event: &pb::RecordedEvent| event.recorded_at.map(|at| (at.seconds, at.nanos)).unwrap();
    let source = || Source::Topic(pb::TopicRange { topic: "t".into(), from_position: None });
    let forwards = pb::ReadRequest { source: Some(source()), from_time, ..Default::default() };
    let newer: Vec<_> = all.iter().filter(|event| at(event) >= middle).cloned().collect();
    assert_eq!(world.read_with(forwards.clone()).await.unwrap(), newer);
    let older: Vec<_> = all.iter().rev().filter(|event| at(event) <= middle).cloned().collect();
    assert_eq!(world.read_with(pb::ReadRequest { from_time, ..backwards(source()) }).await.unwrap(), older);
    let streams = pb::StreamRange { topic: "t".into(), stream: "s2".into(), from_version: None };
    let of_stream = pb::ReadRequest { source: Some(Source::Stream(streams)), ..forwards.clone() };
    assert!(world.read_with(of_stream).await.unwrap().iter().all(|event| at(event) >= middle && event.stream == "s2"));

    let mut follow = follow("t", 0);
    follow.start = from_time.map(pb::subscribe_request::Start::FromTime);
    let mut batches = world.log.subscribe(follow).await.unwrap().into_inner();
    let first = tokio::time::timeout(LONG, batches.message()).await.unwrap().unwrap().unwrap();
    let Some(pb::subscribe_batch::Message::Events(first)) = first.message else { panic!("events come first: {first:?}") };
    assert_eq!(first.events[0], newer[0]);
    drop(batches);

    let late = pb::ReadRequest { from_time: Some(prost_types::Timestamp { seconds: 4_000_000_000, nanos: 0 }), ..forwards.clone() };
    assert!(world.read_with(late).await.unwrap().is_empty(), "nothing is so new");
    let both = pb::ReadRequest { source: Some(topic_from("t", 0)), ..forwards.clone() };
    assert_eq!(reason(&world.read_with(both).await.unwrap_err()), "INVALID_REQUEST");
    let bad = pb::ReadRequest { from_time: Some(prost_types::Timestamp { seconds: 0, nanos: -1 }), ..forwards };
    assert_eq!(reason(&world.read_with(bad).await.unwrap_err()), "INVALID_REQUEST");
    world.stop().await;
}

#[tokio::test]
async fn a_read_is_cut_into_messages_and_ends_at_its_limit() {
    let mut world = world().await;
    world.topic("t").await;
    for n in 0..10 {
        let texts: Vec<String> = (0..50).map(|m| format!("{}", n * 50 + m)).collect();
        world.append("t", &format!("s{n}"), &texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    let request = pb::ReadRequest { source: Some(topic_from("t", 0)), limit: 123, max_batch_events: 20, ..Default::default() };
    let mut batches = world.log.read(request.clone()).await.unwrap().into_inner();
    let mut sizes = Vec::new();
    while let Some(batch) = batches.message().await.unwrap() {
        assert_eq!((batch.end, batch.head_token.is_empty()), (batch.end, !batch.end), "the end and its token come together");
        sizes.push(batch.events.len());
    }
    assert!(sizes.iter().all(|size| *size <= 20) && sizes.iter().sum::<usize>() == 123, "{sizes:?}");
    let events = world.read_with(request).await.unwrap();
    assert_eq!(texts(&events), (0..123).map(|n| n.to_string()).collect::<Vec<_>>());
    let narrow = pb::ReadRequest { source: Some(topic_from("t", 0)), max_batch_bytes: 1, ..Default::default() };
    assert_eq!(world.read_with(narrow).await.unwrap().len(), 500, "the first event comes whatever its size");
    world.stop().await;
}

#[tokio::test]
async fn what_was_committed_together_is_read_in_messages_of_bounded_size() {
    let mut world = world_with(|config| config.log.journal_file_bytes = 128 << 20).await;
    let request_of = |name: &str| pb::CreateTopicRequest { name: name.into(), kind: 0, partitions: Some(1), ..Default::default() };
    world.topics.create(request_of("t")).await.unwrap();
    let large = "x".repeat(1_000_000);
    let appends = (0..12).map(|n| {
        let mut log = world.log.clone();
        let append = request("t", &format!("s{n}"), &[&large, &large, &large]);
        async move { log.append(append).await.unwrap().into_inner() }
    });
    let appended = futures::future::join_all(appends.collect::<Vec<_>>()).await;
    assert_eq!(appended.len(), 12);
    for max_batch_bytes in [0, 4 << 20] {
        let request = pb::ReadRequest { source: Some(topic_from("t", 0)), max_batch_bytes, ..Default::default() };
        let events = world.read_with(request).await.unwrap();
        assert_eq!(events.iter().map(|event| event.offset).collect::<Vec<_>>(), (0..36).collect::<Vec<_>>());
        assert!(events.iter().all(|event| text(event) == large));
    }
    let mut batches = world.log.subscribe(follow("t", 0)).await.unwrap().into_inner();
    let mut count = 0;
    while count < 36 {
        let batch = tokio::time::timeout(LONG, batches.message()).await.unwrap().unwrap().unwrap();
        if let Some(pb::subscribe_batch::Message::Events(batch)) = batch.message {
            assert!(batch.events.iter().all(|event| event.offset >= count));
            count += batch.events.len() as u64;
        }
    }
    drop(batches);
    world.stop().await;
}

#[tokio::test]
async fn tokens_make_reads_wait_and_foreign_or_forged_ones_are_refused() {
    let mut world = world().await;
    world.topic("t").await;
    let token = world.append("t", "s", &["1"]).await.token;
    let read = |at_least: prost::bytes::Bytes| pb::ReadRequest {
        source: Some(topic_from("t", 0)),
        at_least,
        wait: Some(Duration::from_millis(50).try_into().unwrap()),
        ..Default::default()
    };
    assert_eq!(world.read_with(read(token.clone())).await.unwrap().len(), 1);
    let head = world.log.get_head(pb::GetHeadRequest { topic: "t".into() }).await.unwrap().into_inner();
    assert_eq!(head.ends.iter().map(|end| end.offset).sum::<u64>(), 1);
    assert_eq!(head.token, token);

    let mut other = crate::support::world().await;
    let status = other.read_with(read(token.clone())).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "FOREIGN_TOKEN"));
    other.stop().await;

    let mut forged = token.to_vec();
    forged[25] ^= 1;
    let status = world.read_with(read(forged.into())).await.unwrap_err();
    assert_eq!(reason(&status), "INVALID_TOKEN");
    world.stop().await;
}

#[tokio::test]
async fn a_stream_is_told_with_its_version_and_partition() {
    let mut world = world().await;
    world.topic("t").await;
    let appended = world.append("t", "s", &["1", "2"]).await;
    let ask = |stream: &str| pb::GetStreamRequest {
        topic: "t".into(),
        stream: stream.into(),
        at_least: appended.token.clone(),
        ..Default::default()
    };
    let info = world.log.get_stream(ask("s")).await.unwrap().into_inner();
    assert_eq!((info.version, info.partition), (Some(2), appended.ranges[0].partition));
    assert_eq!(world.log.get_stream(ask("nobody")).await.unwrap().into_inner().version, None);
    world.stop().await;
}

#[tokio::test]
async fn what_does_not_exist_is_named() {
    let mut world = world().await;
    world.topic("t").await;
    let mut refused = async |source: Option<Source>| {
        let status = world.read_with(pb::ReadRequest { source, ..Default::default() }).await.unwrap_err();
        (status.code(), reason(&status))
    };
    assert_eq!(refused(None).await, (Code::InvalidArgument, "INVALID_REQUEST".into()));
    assert_eq!(refused(Some(topic_from("no", 0))).await, (Code::NotFound, "TOPIC_NOT_FOUND".into()));
    let partition = |partition, from_offset| {
        Some(Source::Partition(pb::PartitionRange { topic: "t".into(), partition, from_offset: Some(from_offset) }))
    };
    assert_eq!(refused(partition(2, 0)).await, (Code::NotFound, "PARTITION_NOT_FOUND".into()));
    assert_eq!(refused(partition(u32::MAX, 0)).await, (Code::NotFound, "PARTITION_NOT_FOUND".into()));
    assert_eq!(refused(partition(0, 1)).await, (Code::OutOfRange, "OUT_OF_RANGE".into()));
    assert_eq!(refused(Some(topic_from("t", 1 << 60))).await, (Code::OutOfRange, "OUT_OF_RANGE".into()));
    world.stop().await;
}

#[tokio::test]
async fn topics_are_created_once_listed_and_described() {
    let mut world = world().await;
    world.topic("b").await;
    world.topic_of("a", pb::TopicKind::Table).await;
    let again = pb::CreateTopicRequest { name: "b".into(), kind: 0, partitions: Some(2), ..Default::default() };
    world.topics.create(again.clone()).await.unwrap();
    let status = world.topics.create(pb::CreateTopicRequest { partitions: Some(3), ..again }).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::AlreadyExists, "TOPIC_EXISTS"));
    for (name, partitions) in [("..", 1), ("", 1), ("x/y", 1), ("_foldlog.x", 1), ("ok", 0), ("ok", 1_025), ("ok", u32::MAX)] {
        let request = pb::CreateTopicRequest { name: name.into(), kind: 0, partitions: Some(partitions), ..Default::default() };
        assert_eq!(world.topics.create(request).await.unwrap_err().code(), Code::InvalidArgument, "{name} {partitions}");
    }
    let unknown = pb::CreateTopicRequest { name: "ok".into(), compression: 9, ..Default::default() };
    let status = world.topics.create(unknown).await.unwrap_err();
    assert_eq!((status.code(), status.message().contains("compression")), (Code::InvalidArgument, true), "{status}");
    let list = world.topics.list(pb::ListTopicsRequest::default()).await.unwrap().into_inner().topics;
    assert_eq!(
        list.iter().map(|topic| (topic.name.as_str(), topic.kind())).collect::<Vec<_>>(),
        [("a", pb::TopicKind::Table), ("b", pb::TopicKind::Events)]
    );
    world.append("b", "s", &["1"]).await;
    let described = world.topics.describe(pb::DescribeTopicRequest { name: "b".into() }).await.unwrap().into_inner();
    assert_eq!(described.ends.iter().map(|end| end.offset).sum::<u64>(), 1);
    assert_eq!((described.limits.unwrap().max_event_bytes, described.topic.unwrap().partitions), (1 << 20, 2));
    world.stop().await;
}
