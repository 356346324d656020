//! Following over gRPC: from the past into the present without gap or duplicate, in bounded memory, to a defined end.

use std::time::Duration;

use crate::support::*;
use foldlog_proto::v1::{self as pb, subscribe_batch::Message, subscribe_request};
use tokio::time::timeout;
use tonic::{Code, Streaming};

async fn next(batches: &mut Streaming<pb::SubscribeBatch>) -> Message {
    timeout(LONG, batches.message()).await.unwrap().unwrap().unwrap().message.unwrap()
}

/// Takes messages until so many events have come; also tells how often the end was reached.
async fn take(batches: &mut Streaming<pb::SubscribeBatch>, count: usize) -> (Vec<pb::RecordedEvent>, usize) {
    let (mut events, mut caught_up) = (Vec::new(), 0);
    while events.len() < count {
        match next(batches).await {
            Message::Events(batch) => events.extend(batch.events),
            Message::CaughtUp(_) => caught_up += 1,
            Message::Progress(_) | Message::FellBehind(_) => {}
        }
    }
    (events, caught_up)
}

#[tokio::test]
async fn the_past_comes_first_then_caught_up_then_what_is_appended() {
    let mut world = world().await;
    world.topic("t").await;
    world.append("t", "a", &["1", "2"]).await;
    let mut batches = world.log.subscribe(follow("t", 0)).await.unwrap().into_inner();
    let Message::Events(past) = next(&mut batches).await else { panic!() };
    assert_eq!(texts(&past.events), ["1", "2"]);
    let Message::CaughtUp(caught_up) = next(&mut batches).await else { panic!() };
    let token = world.append("t", "b", &["3"]).await.token;
    let Message::Events(live) = next(&mut batches).await else { panic!() };
    assert_eq!(texts(&live.events), ["3"]);
    assert!(live.events[0].position >= caught_up.position);
    // Its own token names the topic, too; both say as much of the log.
    assert!(live.token.len() > token.len() && live.token[1..29] == token[1..29]);
    drop(batches);
    world.stop().await;
}

#[tokio::test]
async fn a_switch_to_live_under_a_running_writer_has_no_gap_and_no_duplicate() {
    const APPENDS: usize = 2_000;
    let mut world = world().await;
    world.topic("t").await;
    let mut writer = world.log.clone();
    let write = async {
        for n in 0..APPENDS {
            writer.append(request("t", &format!("s{}", n % 7), &[&n.to_string()])).await.unwrap();
        }
    };
    let follow_all = async {
        let mut seen = Vec::new();
        // Come and go: each subscription resumes right behind the last message of the one before.
        let mut resume = follow("t", 0);
        while seen.len() < APPENDS {
            let mut batches = world.log.subscribe(resume.clone()).await.unwrap().into_inner();
            let until = (seen.len() + 300).min(APPENDS);
            while seen.len() < until {
                if let Message::Events(batch) = next(&mut batches).await {
                    seen.extend(texts(&batch.events));
                    resume.start = Some(subscribe_request::Start::After(batch.token));
                }
            }
        }
        seen
    };
    let ((), seen) = tokio::join!(write, follow_all);
    assert_eq!(seen, (0..APPENDS).map(|n| n.to_string()).collect::<Vec<_>>());
    world.stop().await;
}

#[tokio::test]
async fn streams_partitions_and_everything_can_be_followed_from_now() {
    let mut world = world().await;
    world.topic("t").await;
    world.append("t", "a", &["old"]).await;
    let now = Some(subscribe_request::Start::Now(subscribe_request::FromNow {}));
    let stream = subscribe_request::Source::Stream(pb::StreamRange { topic: "t".into(), stream: "a".into(), from_version: Some(0) });
    let all = subscribe_request::Source::All(pb::AllRange::default());
    let mut followers = Vec::new();
    for source in [stream, all] {
        let request = pb::SubscribeRequest { source: Some(source), start: now.clone(), ..Default::default() };
        followers.push(world.log.subscribe(request).await.unwrap().into_inner());
    }
    let partition = world.append("t", "a", &["new"]).await.ranges[0].partition;
    for follower in &mut followers {
        assert_eq!(texts(&take(follower, 1).await.0), ["new"]);
    }
    let source = subscribe_request::Source::Partition(pb::PartitionRange { topic: "t".into(), partition, from_offset: Some(1) });
    let request = pb::SubscribeRequest { source: Some(source), ..Default::default() };
    let mut follower = world.log.subscribe(request.clone()).await.unwrap().into_inner();
    assert_eq!(texts(&take(&mut follower, 1).await.0), ["new"]);
    let token = world.log.get_head(pb::GetHeadRequest::default()).await.unwrap().into_inner().token;
    let request = pb::SubscribeRequest { start: Some(subscribe_request::Start::After(token)), ..request };
    let status = world.log.subscribe(request).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "INVALID_REQUEST"));
    drop((followers, follower));
    world.stop().await;
}

#[tokio::test]
async fn a_live_follower_of_a_stream_is_not_behind_because_others_write() {
    let mut world = world().await;
    world.topic("t").await;
    let source = subscribe_request::Source::Stream(pb::StreamRange { topic: "t".into(), stream: "a".into(), from_version: Some(0) });
    let request = pb::SubscribeRequest { source: Some(source), ..Default::default() };
    let mut batches = world.log.subscribe(request).await.unwrap().into_inner();
    assert!(matches!(next(&mut batches).await, Message::CaughtUp(_)));
    for round in 0..20 {
        world.append("t", &format!("other{round}"), &["x"]).await;
        world.append("t", "a", &["mine"]).await;
        let message = next(&mut batches).await;
        assert!(matches!(&message, Message::Events(batch) if batch.events.len() == 1), "{message:?}");
    }
    drop(batches);
    world.stop().await;
}

#[tokio::test]
async fn progress_is_told_over_events_that_were_not_selected() {
    let mut world = world().await;
    world.topic("quiet").await;
    world.topic("busy").await;
    let mut batches = world.log.subscribe(follow("quiet", 0)).await.unwrap().into_inner();
    assert!(matches!(next(&mut batches).await, Message::CaughtUp(_)));
    let end = world.append("busy", "s", &["1"]).await.last_position + 1;
    let Message::Progress(progress) = next(&mut batches).await else { panic!() };
    assert_eq!(progress.position, end);
    drop(batches);
    world.stop().await;
}

#[tokio::test]
async fn a_subscription_ends_with_its_position_when_the_server_drains() {
    let mut world = world().await;
    world.topic("t").await;
    let end = world.append("t", "s", &["1"]).await.last_position + 1;
    let mut batches = world.log.subscribe(follow("t", 0)).await.unwrap().into_inner();
    assert_eq!(take(&mut batches, 1).await.0.len(), 1);
    assert!(matches!(next(&mut batches).await, Message::CaughtUp(_)));
    let stopping = world.stop();
    let ending = async {
        let status = timeout(LONG, batches.message()).await.unwrap().unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "DRAINING"));
        assert_eq!(info(&status).metadata["position"], end.to_string());
    };
    tokio::join!(stopping, ending);
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_ended_and_told_where_to_resume() {
    let mut world = world_with(|config| config.limits.idle_reader = Duration::from_secs(1)).await;
    world.topic("t").await;
    let large = "x".repeat(200_000);
    for n in 0..100 {
        world.append("t", &format!("s{n}"), &[&large]).await;
    }
    let mut batches = world.log.subscribe(follow("t", 0)).await.unwrap().into_inner();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut resume = 0;
    let mut count = 0;
    let status = loop {
        match timeout(LONG, batches.message()).await.unwrap() {
            Ok(Some(batch)) => {
                if let Some(Message::Events(batch)) = batch.message {
                    count += batch.events.len();
                    resume = batch.events.last().unwrap().position + 1;
                }
            }
            Ok(None) => panic!("it does not end well"),
            Err(status) => break status,
        }
    };
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "SLOW_READER"));
    assert_eq!(info(&status).metadata["position"], resume.to_string());
    let mut rest = world.log.subscribe(follow("t", resume)).await.unwrap().into_inner();
    assert_eq!(take(&mut rest, 100 - count).await.0.len(), 100 - count, "nothing is lost and nothing comes twice");
    drop((batches, rest));
    world.stop().await;
}

#[tokio::test]
async fn a_subscriber_that_falls_behind_the_memory_is_told_and_misses_nothing() {
    const APPENDS: usize = 400;
    let mut world = world_with(|config| config.log.tail_bytes = 64 << 10).await;
    world.topic("t").await;
    let mut batches = world.log.subscribe(follow("t", 0)).await.unwrap().into_inner();
    assert!(matches!(next(&mut batches).await, Message::CaughtUp(_)));
    let large = "x".repeat(20_000);
    for n in 0..APPENDS {
        world.append("t", &format!("s{}", n % 5), &[&format!("{n} {large}")]).await;
    }
    let (mut seen, mut behind, mut caught_up) = (Vec::new(), 0, 0);
    while seen.len() < APPENDS || caught_up == 0 {
        match next(&mut batches).await {
            Message::Events(batch) => seen.extend(batch.events.iter().map(|event| text(event).split(' ').next().unwrap().to_owned())),
            Message::FellBehind(told) => {
                assert!(told.position < told.head);
                behind += 1;
            }
            Message::CaughtUp(_) => caught_up += 1,
            Message::Progress(_) => {}
        }
    }
    assert_eq!(seen, (0..APPENDS).map(|n| n.to_string()).collect::<Vec<_>>());
    assert!(behind >= 1, "8 MB do not fit into 64 KiB of memory and the transport's windows");
    drop(batches);
    world.stop().await;
}
