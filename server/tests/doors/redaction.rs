//! Redaction, over gRPC: data is shown to nobody from the answer on, queries forget it, and it can be waited for until its bytes are gone.

use crate::support::*;
use foldlog_proto::v1::{
    self as pb,
    stream_change::{Change, Redact},
};
use tonic::Code;

const SECRET: &[u8] = b"a-secret-that-is-in-no-file-any-more";

fn redact(stream: &str, versions: &[(u64, u64)]) -> pb::AppendRequest {
    let versions = versions.iter().map(|(first, last)| pb::VersionRange { first: *first, last: *last }).collect();
    let change = Change::Redact(Redact { versions, by: "the officer".into(), reason: "asked to".into() });
    let change = Some(pb::StreamChange { change: Some(change) });
    let write = pb::Write { stream: stream.into(), change, ..pb::Write::default() };
    pb::AppendRequest { topic: "t".into(), writes: vec![write], ..pb::AppendRequest::default() }
}

fn said(stream: &str, who: &str, text: &str) -> pb::AppendRequest {
    let event = pb::Event {
        data: Some(format!("{{\"who\":\"{who}\",\"text\":\"{text}\",\"n\":1}}").into()),
        tags: vec!["tag".into()],
        attributes: [("about".to_owned(), text.to_owned())].into(),
        ..event("")
    };
    let write = pb::Write { stream: stream.into(), events: vec![event], ..pb::Write::default() };
    pb::AppendRequest { topic: "t".into(), writes: vec![write], ..pb::AppendRequest::default() }
}

async fn info(world: &mut World, erased: bool) -> pb::StreamInfo {
    let request = pb::GetStreamRequest { topic: "t".into(), stream: "s".into(), erased, ..pb::GetStreamRequest::default() };
    world.log.get_stream(request).await.unwrap().into_inner()
}

#[expect(clippy::disallowed_methods, reason = "what is in the files is what it is about")]
fn has_secret(folder: &std::path::Path) -> bool {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).any(|path| match path.is_dir() {
        true => has_secret(&path),
        false => std::fs::read(&path).unwrap().windows(SECRET.len()).any(|bytes| bytes == SECRET),
    })
}

#[tokio::test]
async fn redacted_data_is_shown_to_nobody_and_its_bytes_go() {
    let mut world = world().await;
    world.topic("t").await;
    world.sql("CREATE STREAM said (who VARCHAR, text VARCHAR, n BIGINT) WITH (topic = 't', value_format = 'json')").await.unwrap();
    world.sql("CREATE TABLE speakers AS SELECT who, SUM(n) AS n FROM said GROUP BY who").await.unwrap();
    let secret = std::str::from_utf8(SECRET).unwrap();
    world.log.append(said("s", "ann", "hello")).await.unwrap();
    world.log.append(said("s", "bob", secret)).await.unwrap();
    world.log.append(said("s", "ann", "again")).await.unwrap();
    let other = world.log.append(said("other", "eve", "hi")).await.unwrap().into_inner();
    let speakers = async |world: &mut World, token: &[u8]| {
        let pull = pb::QueryRequest { at_least: token.to_vec().into(), ..statement("SELECT who, n FROM speakers ORDER BY who") };
        let rows = world.answer(pull).await.unwrap().rows();
        rows.iter().map(|row| format!("{:?} {:?}", row[0], row[1])).collect::<Vec<_>>().join(", ")
    };
    assert!(speakers(&mut world, &other.token).await.contains("bob"));
    assert_eq!(info(&mut world, true).await.redaction, None, "there is nothing to wait for");

    let request = pb::AppendRequest { request_id: vec![7; 16].into(), ..redact("s", &[(2, 0)]) };
    let redacted = world.log.append(request.clone()).await.unwrap().into_inner();
    assert_eq!(redacted.versions[0].version, 3);
    for round in 0..2 {
        for source in [stream_from("t", "s", 1), topic_from("t", 0)] {
            let read = world.read(source).await;
            let one = read.iter().find(|event| event.stream_version == 2).unwrap();
            let event = one.event.as_ref().unwrap();
            assert!(one.redacted && event.data.is_none() && event.attributes.is_empty());
            assert_eq!(
                (event.tags.as_slice(), event.r#type.as_str()),
                (&["tag".to_owned()][..], read[0].event.as_ref().unwrap().r#type.as_str())
            );
            assert!(
                read.iter()
                    .filter(|other| other.stream_version != 2)
                    .all(|other| !other.redacted && other.event.as_ref().unwrap().data.is_some())
            );
        }
        let known = speakers(&mut world, &redacted.token).await;
        assert_eq!(known, "Text(\"ann\") Integer(2), Text(\"eve\") Integer(1)", "what is redacted has no value to be summed");
        let said = world.sql("SELECT text FROM said").await.unwrap().rows();
        assert!(said.len() >= 3 && said.iter().all(|row| !format!("{row:?}").contains(secret)), "{said:?}");
        assert_eq!(info(&mut world, true).await.redaction, None, "it was waited for");
        if round == 0 {
            let again = world.log.append(request.clone()).await.unwrap().into_inner();
            assert_eq!((again.deduplicated, again.first_position), (true, redacted.first_position));
            let described = world.topics.describe(pb::DescribeTopicRequest { name: "t".into() }).await.unwrap().into_inner();
            assert_eq!(described.redaction, None);
            assert!(get(&world, "/metrics").await.contains("foldlog_log_redactions_pending 0"));
            let folder = world.stop().await;
            assert!(!has_secret(folder.path()));
            world = world_over(folder, |_| {}).await;
        }
    }
    world.stop().await;
}

#[tokio::test]
async fn a_redaction_that_cannot_be_meant_is_refused_by_field() {
    let mut world = world().await;
    world.topic("t").await;
    world.topic_of("plain", pb::TopicKind::Table).await;
    world.append("t", "s", &["1", "2"]).await;
    let by_nobody = {
        let mut request = redact("s", &[(1, 0)]);
        if let Some(Change::Redact(redact)) = request.writes[0].change.as_mut().and_then(|change| change.change.as_mut()) {
            redact.by.clear();
        }
        request
    };
    for request in [redact("s", &[]), redact("s", &[(0, 0)]), redact("s", &[(2, 1)]), redact("s", &[(1, 2), (2, 0)]), by_nobody] {
        let refused = world.append_refused(request.clone()).await;
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, "INVALID_REQUEST"), "{request:?}: {refused:?}");
    }
    let large = world.append_refused(redact("s", &[(1, u64::MAX)])).await;
    assert_eq!((large.code(), reason(&large).as_str()), (Code::InvalidArgument, "APPEND_TOO_LARGE"));
    for (stream, last) in [("s", 3), ("none", 1)] {
        let beyond = world.append_refused(redact(stream, &[(1, last)])).await;
        assert_eq!((beyond.code(), reason(&beyond).as_str()), (Code::OutOfRange, "OUT_OF_RANGE"));
        assert!(beyond.message().contains("no event with version"), "{}", beyond.message());
    }
    let plain = world.append_refused(pb::AppendRequest { topic: "plain".into(), ..redact("s", &[(1, 0)]) }).await;
    assert_eq!((plain.code(), reason(&plain).as_str()), (Code::FailedPrecondition, "TOPIC_KIND_MISMATCH"));
    let mut stale = redact("s", &[(1, 0)]);
    stale.preconditions = vec![expect("s", pb::stream_state::Expect::Version(1))];
    assert_eq!(reason(&world.append_refused(stale).await), "STREAM_VERSION_CONFLICT");
    assert!(world.read(stream_from("t", "s", 1)).await.iter().all(|event| !event.redacted));
    world.stop().await;
}
