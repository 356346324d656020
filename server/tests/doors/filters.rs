//! Reads and subscriptions filtered by types and tags: what matches, how far they have come, and what is no filter.

use std::time::Duration;

use foldlog_proto::v1::{self as pb, read_request, subscribe_batch::Message, subscribe_request};
use tokio::time::timeout;
use tonic::{Code, Streaming};

use crate::support::*;

fn query(types: &[&str], tags: &[&str]) -> pb::EventQuery {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    pb::EventQuery { items: vec![pb::event_query::Item { types: texts(types), tags: texts(tags) }], all: false }
}

/// Events with their numbers as payloads, in five streams; every tenth has a tag, every third another type.
async fn numbers(world: &mut World, range: std::ops::Range<u32>) {
    for first in range.clone().step_by(100) {
        let write = |number: u32| {
            let tags = if number.is_multiple_of(10) { vec!["ten".to_owned()] } else { Vec::new() };
            let kind = if number.is_multiple_of(3) { "Third" } else { "Said" };
            let event = pb::Event { r#type: kind.into(), tags, ..event(&number.to_string()) };
            pb::Write { stream: format!("s{}", number % 5), events: vec![event], ..Default::default() }
        };
        let writes = (first..(first + 100).min(range.end)).map(write).collect();
        world.log.append(pb::AppendRequest { topic: "t".into(), writes, ..Default::default() }).await.unwrap();
    }
}

async fn next(batches: &mut Streaming<pb::SubscribeBatch>) -> Message {
    timeout(LONG, batches.message()).await.unwrap().unwrap().unwrap().message.unwrap()
}

#[tokio::test]
async fn a_read_returns_what_matches_and_says_up_to_where() {
    let mut world = world().await;
    world.topic("t").await;
    world.topic_of("r", pb::TopicKind::Records).await;
    numbers(&mut world, 0..3000).await;
    let head = world.log.get_head(pb::GetHeadRequest::default()).await.unwrap().into_inner().position;
    let all = || read_request::Source::All(pb::AllRange::default());
    let of = |source, filter, direction: pb::Direction, limit| pb::ReadRequest {
        source: Some(source),
        filter: Some(filter),
        direction: direction.into(),
        limit,
        ..Default::default()
    };
    for source in [topic_from("t", 0), all()] {
        let found = world.read_with(of(source, query(&["Third"], &["ten"]), pb::Direction::Forwards, 0)).await.unwrap();
        assert_eq!(texts(&found), (0..3000).step_by(30).map(|number| number.to_string()).collect::<Vec<_>>());
    }
    let found = world.read_with(of(all(), query(&[], &["ten"]), pb::Direction::Backwards, 3)).await.unwrap();
    assert_eq!(texts(&found), ["2990", "2980", "2970"]);
    let found = world.read_with(of(stream_from("t", "s0", 2), query(&["Third"], &[]), pb::Direction::Forwards, 2)).await.unwrap();
    assert_eq!(texts(&found), ["15", "30"]);
    for (direction, limit, scanned_to) in
        [(pb::Direction::Forwards, 0, head), (pb::Direction::Forwards, 2, found[0].position + 16), (pb::Direction::Backwards, 0, 0)]
    {
        let filter = if limit == 0 { query(&[], &["none"]) } else { query(&["Third"], &["ten"]) };
        let mut batches = world.log.read(of(topic_from("t", 0), filter, direction, limit)).await.unwrap().into_inner();
        let mut last = pb::ReadBatch::default();
        while let Some(batch) = batches.message().await.unwrap() {
            last = batch;
        }
        assert_eq!((last.end, last.head, last.scanned_to), (true, head, scanned_to), "{direction:?}");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_subscription_says_how_far_it_has_come_where_nothing_matches() {
    let mut world = world().await;
    world.topic("t").await;
    numbers(&mut world, 0..300).await;
    let filtered = |tag: &str| pb::SubscribeRequest { filter: Some(query(&[], &[tag])), ..follow("t", 0) };
    let mut batches = world.log.subscribe(filtered("ten")).await.unwrap().into_inner();
    let mut found = Vec::new();
    let caught_up = loop {
        match next(&mut batches).await {
            Message::Events(batch) => found.extend(texts(&batch.events)),
            Message::CaughtUp(caught_up) => break caught_up,
            Message::Progress(_) | Message::FellBehind(_) => {}
        }
    };
    assert_eq!(found, (0..300).step_by(10).map(|number| number.to_string()).collect::<Vec<_>>());
    // What does not match is told as progress, once in a while, and is not looked at again by whoever resumes there.
    numbers(&mut world, 301..310).await;
    let progress = loop {
        match next(&mut batches).await {
            Message::Progress(progress) if progress.position > caught_up.position => break progress,
            Message::Progress(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(progress.position, caught_up.position + 9);
    numbers(&mut world, 310..320).await;
    let resumed = pb::SubscribeRequest { start: Some(subscribe_request::Start::After(progress.token)), ..filtered("ten") };
    for mut batches in [batches, world.log.subscribe(resumed).await.unwrap().into_inner()] {
        let Message::Events(batch) = next(&mut batches).await else { panic!("a match comes at once") };
        assert_eq!(texts(&batch.events), ["310"]);
        assert!(!batch.token.is_empty());
    }
    world.stop().await;
}

#[tokio::test]
async fn what_is_no_filter_is_refused_by_name() {
    let mut world = world().await;
    world.topic("t").await;
    world.topic_of("r", pb::TopicKind::Records).await;
    let partition = read_request::Source::Partition(pb::PartitionRange { topic: "r".into(), partition: 0, from_offset: None });
    let many = pb::EventQuery {
        items: (0..20_000).map(|n| pb::event_query::Item { types: vec![], tags: vec![format!("n{n}")] }).collect(),
        all: false,
    };
    for (source, filter, expected) in [
        (topic_from("t", 0), pb::EventQuery::default(), "INVALID_REQUEST"),
        (topic_from("t", 0), pb::EventQuery { all: true, ..query(&["A"], &[]) }, "INVALID_REQUEST"),
        (topic_from("t", 0), query(&[""], &[]), "INVALID_REQUEST"),
        (topic_from("t", 0), query(&[], &[""]), "INVALID_NAME"),
        (topic_from("t", 0), many, "INVALID_REQUEST"),
        (topic_from("r", 0), query(&["A"], &[]), "TOPIC_KIND_MISMATCH"),
        (partition, pb::EventQuery { all: true, items: vec![] }, "TOPIC_KIND_MISMATCH"),
    ] {
        let request = pb::ReadRequest { source: Some(source), filter: Some(filter.clone()), ..Default::default() };
        let status = world.read_with(request).await.unwrap_err();
        assert_eq!(reason(&status), expected, "{status:?}");
        let is_wrong_topic = expected == "TOPIC_KIND_MISMATCH";
        let names_it = is_wrong_topic || String::from_utf8_lossy(status.details()).contains("filter");
        assert!(names_it && matches!(status.code(), Code::InvalidArgument | Code::FailedPrecondition), "{status:?}");
        let follow = pb::SubscribeRequest { filter: Some(filter), ..follow(if is_wrong_topic { "r" } else { "t" }, 0) };
        assert_eq!(reason(&world.log.subscribe(follow).await.unwrap_err()), expected);
    }
    world.stop().await;
}

#[tokio::test]
async fn many_filtered_followers_are_live_while_others_write() {
    let mut world = world().await;
    world.topic("t").await;
    let mut followers = Vec::new();
    for _ in 0..20 {
        let request = pb::SubscribeRequest { filter: Some(query(&["Third"], &["ten"])), ..follow("t", 0) };
        let mut batches = world.log.subscribe(request).await.unwrap().into_inner();
        assert!(matches!(next(&mut batches).await, Message::CaughtUp(_)));
        followers.push(batches);
    }
    for round in 0..30 {
        numbers(&mut world, round * 30..(round + 1) * 30).await;
        for batches in &mut followers {
            let events = timeout(Duration::from_secs(10), async {
                loop {
                    match next(batches).await {
                        Message::Events(batch) => break batch.events,
                        Message::Progress(_) => {}
                        other => panic!("nobody is behind: {other:?}"),
                    }
                }
            });
            assert_eq!(texts(&events.await.unwrap()), [(round * 30).to_string()]);
        }
    }
    drop(followers);
    world.stop().await;
}
