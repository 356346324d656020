//! Physical removal, over gRPC: what streams let go leaves the files, and whatever is told, read and judged of them is as it was.

use std::path::Path;

use crate::{
    lives::{change, put},
    support::*,
};
use foldlog_proto::v1::{
    self as pb,
    stream_change::{Change, Delete, Tombstone},
    stream_state::{Absent, Deleted, Expect},
};
use tonic::Code;

const EVENTS: u64 = 40;
const STREAMS: [&str; 4] = ["cut", "gone", "over", "kept"];

/// What must be the same before and after.
#[derive(Debug, PartialEq)]
struct Facts {
    told: Vec<pb::StreamInfo>,
    read: Vec<Vec<String>>,
    snapshots: Vec<Option<pb::Snapshot>>,
    /// Whether something matches, by type, tag and place.
    found: Vec<bool>,
}

impl Facts {
    async fn of(world: &mut World) -> Self {
        let (mut told, mut read, mut snapshots, mut found) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for stream in STREAMS {
            let (topic, stream_id) = ("t".to_owned(), stream.to_owned());
            let request = pb::GetStreamRequest { topic: topic.clone(), stream: stream_id.clone(), ..Default::default() };
            // The token says as of when.
            told.push(pb::StreamInfo { token: Default::default(), ..world.log.get_stream(request).await.unwrap().into_inner() });
            read.push(texts(&world.read(stream_from("t", stream, 1)).await));
            let request = pb::GetSnapshotRequest { topic, stream: stream_id, ..Default::default() };
            snapshots.push(world.log.get_snapshot(request).await.unwrap().into_inner().snapshot);
            for kind in ["Even", "Odd", "Never"] {
                for after in [None, Some(0), Some(100), Some(EVENTS * 4 - 3), Some(EVENTS * 4)] {
                    found.push(finds(world, kind, stream, after).await);
                }
            }
        }
        Self { told, read, snapshots, found }
    }
}

/// Whether a condition meets an event of a type with a tag.
async fn finds(world: &mut World, kind: &str, tag: &str, after: Option<u64>) -> bool {
    let items = vec![pb::event_query::Item { types: vec![kind.to_owned()], tags: vec![tag.to_owned()] }];
    let query = pb::EventQueryAbsent { query: Some(pb::EventQuery { items, all: false }), after, ..Default::default() };
    let preconditions = vec![pb::Precondition { kind: Some(pb::precondition::Kind::Query(query)) }];
    match world.log.append(pb::AppendRequest { preconditions, ..request("t", "probe", &["?"]) }).await {
        Ok(_) => false,
        Err(status) if reason(&status) == "QUERY_CONDITION_FAILED" => true,
        Err(status) => panic!("{status:?}"),
    }
}

/// An event of a KiB, with its stream as a tag.
fn numbered(stream: &str, number: u64) -> pb::AppendRequest {
    let stays = stream == "kept" || stream == "cut" && number + 2 > EVENTS;
    let text = format!("{}:{stream}:{number}:{}", if stays { "it-stays" } else { "it-goes" }, "x".repeat(1000));
    let kind = if number.is_multiple_of(2) { "Even" } else { "Odd" };
    let event = pb::Event { r#type: kind.into(), tags: vec![stream.to_owned()], ..event(&text) };
    let write = pb::Write { stream: stream.to_owned(), events: vec![event], ..Default::default() };
    pb::AppendRequest { topic: "t".into(), writes: vec![write], ..Default::default() }
}

/// Whether a text lies in a segment.
#[expect(clippy::disallowed_methods, reason = "what is in the files is what it is about")]
fn is_in_segments(folder: &Path, text: &str) -> bool {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).any(|path| match path.is_dir() {
        true => is_in_segments(&path, text),
        // A file may be removed meanwhile.
        false if path.extension().is_some_and(|one| one == "log") => {
            std::fs::read(&path).unwrap_or_default().windows(text.len()).any(|bytes| bytes == text.as_bytes())
        }
        false => false,
    })
}

#[tokio::test]
async fn what_streams_let_go_leaves_the_files_and_all_answers_stay_the_same() {
    let mut world = world_with(|config| {
        config.log.tidy_bytes = 16 << 10;
        config.log.tail_bytes = 0;
        config.log.segment_bytes = 32 << 10;
        config.log.removal_percent = 1;
    })
    .await;
    world.topics.pause_compaction(pb::PauseCompactionRequest { paused: true }).await.unwrap();
    let request =
        pb::CreateTopicRequest { name: "t".into(), kind: pb::TopicKind::Events.into(), partitions: Some(1), ..Default::default() };
    world.topics.create(request).await.unwrap();
    for number in 1..=EVENTS {
        for stream in STREAMS {
            world.log.append(numbered(stream, number)).await.unwrap();
        }
    }
    world.log.append(put("kept", EVENTS, "v1", "all of it")).await.unwrap();
    world.log.append(put("cut", EVENTS, "v1", "the most of it")).await.unwrap();
    world.log.append(change("t", "cut", Change::TruncateBefore(EVENTS - 1))).await.unwrap();
    world.log.append(change("t", "gone", Change::Delete(Delete {}))).await.unwrap();
    world.log.append(change("t", "over", Change::Tombstone(Tombstone {}))).await.unwrap();
    let before = Facts::of(&mut world).await;
    let numbers: Vec<_> = before.read.iter().map(Vec::len).collect();
    assert_eq!(numbers, [2, 0, 0, EVENTS as usize]);
    assert_eq!(before.snapshots.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, false, true]);
    assert!(before.found.contains(&true) && before.found.contains(&false));
    assert!(is_in_segments(world.folder.path(), "it-goes:over:1:"), "it is gone for its readers alone");

    world.topics.pause_compaction(pb::PauseCompactionRequest { paused: false }).await.unwrap();
    let mut appended = 0;
    while is_in_segments(world.folder.path(), "it-goes") {
        world.append("t", "filler", &[&"y".repeat(1000)]).await;
        appended += 1;
        assert!(appended < 10_000, "nothing is removed");
    }
    for round in 0..2 {
        assert_eq!(Facts::of(&mut world).await, before);
        let left: Vec<_> = texts(&world.read(topic_from("t", 0)).await).into_iter().filter(|text| text.starts_with("it-")).collect();
        assert_eq!(left.len() as u64, EVENTS + 2, "what streams have, and nothing else");
        assert!(left.iter().all(|text| text.starts_with("it-stays")));
        if round == 0 {
            world = world_over(world.stop().await, |_| {}).await;
        }
    }
    let refused = world.append_refused(self::request("t", "over", &["more"])).await;
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "STREAM_TOMBSTONED"));
    let mut more = self::request("t", "gone", &["more"]);
    more.preconditions = vec![
        expect("gone", Expect::Absent(Absent {})),
        expect("gone", Expect::Deleted(Deleted {})),
        expect("gone", Expect::Version(EVENTS)),
    ];
    assert_eq!(world.log.append(more).await.unwrap().into_inner().versions[0].version, EVENTS + 1);
    world.stop().await;
}
