//! Appending over gRPC: what is answered, what is refused, and that a refusal writes nothing.

use std::collections::BTreeMap;

use crate::support::*;
use foldlog_proto::v1::{
    self as pb,
    stream_state::{Absent, Exists, Expect},
};
use prost::Message as _;
use tonic::Code;

#[tokio::test]
async fn an_append_is_answered_with_its_places_and_is_readable_at_once() {
    let mut world = world().await;
    world.topic("bank").await;
    let first = world.append("bank", "a", &["1", "2"]).await;
    let second = world.append("bank", "a", &["3"]).await;
    assert_eq!(first.last_position, first.first_position + 1);
    assert!(second.first_position > first.last_position);
    assert_eq!((first.versions[0].version, second.versions[0].version), (2, 3));
    assert_eq!(first.ranges[0].last_offset - first.ranges[0].first_offset, 1);
    assert_eq!(second.ranges[0].first_offset, first.ranges[0].last_offset + 1);
    assert!(!first.deduplicated && first.recorded_at.is_some() && first.durability() == pb::Durability::Synced);
    let events = world.read(stream_from("bank", "a", 1)).await;
    assert_eq!(texts(&events), ["1", "2", "3"]);
    assert_eq!(events.iter().map(|event| event.stream_version).collect::<Vec<_>>(), [1, 2, 3]);
    world.stop().await;
}

#[tokio::test]
async fn an_answer_names_how_durable_it_is_and_is_never_weaker_than_asked() {
    use pb::Durability::{Synced, Unspecified, Written};
    let mut world = world().await;
    world.topic("strong").await;
    let weak = pb::CreateTopicRequest { name: "weak".into(), durability: Written.into(), ..Default::default() };
    assert_eq!(world.topics.create(weak.clone()).await.unwrap().into_inner().durability(), Written);
    let refused = world.topics.create(pb::CreateTopicRequest { durability: Unspecified.into(), ..weak }).await.unwrap_err();
    assert_eq!(reason(&refused), "TOPIC_EXISTS");
    assert!(refused.message().contains("durability written instead of synced"), "{}", refused.message());
    let unknown = pb::CreateTopicRequest { name: "other".into(), durability: 9, ..Default::default() };
    assert_eq!(world.topics.create(unknown).await.unwrap_err().code(), Code::InvalidArgument);

    let folder = world.stop().await;
    let mut world = world_over(folder, |_| {}).await;
    let both = || pb::AppendRequest {
        writes: [request("strong", "a", &["1"]), request("weak", "a", &["1"])]
            .into_iter()
            .flat_map(|one| one.writes.into_iter().map(move |write| pb::Write { topic: one.topic.clone(), ..write }))
            .collect(),
        ..Default::default()
    };
    let (strong, weak) = (|| request("strong", "a", &["1"]), || request("weak", "a", &["1"]));
    let cases = [
        (strong(), Unspecified, Synced),
        (strong(), Written, Written),
        (weak(), Unspecified, Written),
        (weak(), Synced, Synced),
        (both(), Unspecified, Synced),
        (both(), Written, Written),
    ];
    for (place, (append, asked, named)) in (1..).zip(cases) {
        let append = pb::AppendRequest { durability: asked.into(), request_id: vec![place; 16].into(), ..append };
        let answer = world.log.append(append.clone()).await.unwrap().into_inner();
        assert_eq!(answer.durability(), named, "case {place}, which asks for {asked:?}");
        let read = pb::ReadRequest { source: Some(topic_from("weak", 0)), at_least: answer.token.clone(), ..Default::default() };
        world.read_with(read).await.unwrap();
        // A repeat, whatever it asks for, is answered when its first attempt is synced.
        let repeat = pb::AppendRequest { durability: Written.into(), ..append };
        let first = pb::AppendResponse { deduplicated: true, durability: Synced.into(), ..answer };
        assert_eq!(world.log.append(repeat).await.unwrap().into_inner(), first);
    }
    assert_eq!(world.read(topic_from("weak", 0)).await.len(), 4);
    world.stop().await;
}

#[tokio::test]
async fn every_field_of_an_event_comes_back_as_it_went_in() {
    let mut world = world().await;
    world.topic("bank").await;
    let event = pb::Event {
        event_id: vec![7; 16].into(),
        r#type: "Opened".into(),
        data: Some(vec![0, 255, 1].into()),
        content_type: "application/octet-stream".into(),
        schema: "account.v1".into(),
        tags: vec!["owner:zoë".into(), "a".into(), "t".repeat(256)],
        attributes: BTreeMap::from([("channel".to_owned(), "web".to_owned()), ("empty".to_owned(), String::new())]),
        time: Some(prost_types::Timestamp { seconds: -2, nanos: 5_000_000 }),
        correlation_id: vec![1; 16].into(),
        causation_id: vec![2, 3].into(),
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
        tracestate: "a=b".into(),
        headers: Vec::new(),
    };
    let write = pb::Write { stream: "ä/1".into(), events: vec![event.clone()], ..Default::default() };
    let append = pb::AppendRequest { topic: "bank".into(), writes: vec![write], ..Default::default() };
    let answer = world.log.append(append).await.unwrap().into_inner();
    let events = world.read(topic_from("bank", 0)).await;
    let [recorded] = &*events else { panic!("{events:?}") };
    assert_eq!(recorded.event.as_ref(), Some(&event));
    assert_eq!((recorded.topic.as_str(), recorded.stream.as_str(), recorded.stream_version), ("bank", "ä/1", 1));
    assert_eq!((recorded.position, recorded.partition), (answer.first_position, answer.ranges[0].partition));
    assert_eq!((recorded.recorded_at, recorded.key.as_ref()), (answer.recorded_at, None));
    world.stop().await;
}

#[tokio::test]
async fn records_keep_keys_headers_and_tombstones() {
    let mut world = world().await;
    world.topic_of("plain", pb::TopicKind::Records).await;
    world.topic_of("table", pb::TopicKind::Table).await;
    let header = |name: &str, value: Option<&[u8]>| pb::Header { name: name.into(), value: value.map(|v| v.to_vec().into()) };
    let headers = vec![header("h", Some(&[0xff])), header("h", None), header("h", Some(&[]))];
    let record = |data: Option<&str>| pb::Event { data: data.map(|d| d.to_owned().into()), ..Default::default() };
    let writes = vec![
        pb::Write {
            topic: "plain".into(),
            events: vec![pb::Event { headers: headers.clone(), ..record(Some("v")) }],
            ..Default::default()
        },
        pb::Write { topic: "plain".into(), key: Some("".into()), partition: Some(1), events: vec![record(None)], ..Default::default() },
        pb::Write { topic: "table".into(), key: Some("k".into()), events: vec![record(Some("1")), record(None)], ..Default::default() },
    ];
    world.log.append(pb::AppendRequest { writes, ..Default::default() }).await.unwrap();
    let plain = world.read(topic_from("plain", 0)).await;
    let inner = |event: &pb::RecordedEvent| event.event.clone().unwrap();
    assert_eq!((inner(&plain[0]).headers, plain[0].key.clone()), (headers, None));
    assert_eq!((inner(&plain[1]).data, plain[1].key.clone(), plain[1].partition), (None, Some("".into()), 1));
    let table = world.read(topic_from("table", 0)).await;
    assert_eq!(table.iter().map(|event| inner(event).data).collect::<Vec<_>>(), [Some("1".into()), None]);
    assert!(table.iter().all(|event| event.key == Some("k".into()) && event.stream.is_empty() && event.stream_version == 0));
    world.stop().await;
}

#[tokio::test]
async fn a_violated_precondition_writes_nothing_anywhere_and_all_are_named() {
    let mut world = world().await;
    world.topic("bank").await;
    world.topic("audit").await;
    world.append("bank", "a", &["1"]).await;
    let mut append = request("bank", "a", &["secret payload"]);
    append.writes.push(pb::Write {
        topic: "audit".into(),
        stream: "log".into(),
        events: vec![event("secret payload")],
        ..Default::default()
    });
    append.preconditions = vec![
        expect("a", Expect::Version(1)),
        expect("a", Expect::Version(5)),
        expect("a", Expect::Absent(Absent {})),
        expect("b", Expect::Exists(Exists {})),
        expect("b", Expect::Absent(Absent {})),
    ];
    let status = world.log.append(append.clone()).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Aborted, "STREAM_VERSION_CONFLICT"));
    assert_eq!(info(&status).metadata["outcome"], "failed");
    let detail = details(&status).into_iter().nth(1).unwrap();
    assert!(detail.type_url.ends_with("foldlog.v1.PreconditionViolations"));
    let violations = pb::PreconditionViolations::decode(&*detail.value).unwrap().violations;
    let seen: Vec<_> = violations.iter().map(|violation| (violation.index, violation.actual_version)).collect();
    assert_eq!(seen, [(1, Some(1)), (2, Some(1)), (3, None)]);
    assert!(!format!("{status:?}").contains("secret"), "no payload leaks");
    assert!(world.read(topic_from("audit", 0)).await.is_empty());
    append.preconditions = vec![expect("a", Expect::Version(1)), expect("b", Expect::Absent(Absent {}))];
    world.log.append(append).await.unwrap();
    assert_eq!(world.read(topic_from("audit", 0)).await.len(), 1);
    world.stop().await;
}

#[tokio::test]
async fn of_many_racing_appends_with_one_expected_version_exactly_one_wins() {
    let mut world = world().await;
    world.topic("bank").await;
    world.append("bank", "a", &["0"]).await;
    let racers: Vec<_> = (0..200)
        .map(|n| {
            let mut log = world.log.clone();
            let mut append = request("bank", "a", &[&n.to_string()]);
            append.preconditions = vec![expect("a", Expect::Version(1))];
            async move { log.append(append).await }
        })
        .collect();
    let outcomes = futures::future::join_all(racers).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert!(outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).all(|status| status.code() == Code::Aborted));
    assert_eq!(world.read(stream_from("bank", "a", 1)).await.len(), 2);
    world.stop().await;
}

#[tokio::test]
async fn a_repeat_gets_the_first_answer_and_another_request_under_its_id_is_refused() {
    let mut world = world().await;
    world.topic("bank").await;
    let mut append = request("bank", "a", &["1"]);
    append.request_id = vec![9; 16].into();
    append.preconditions = vec![expect("a", Expect::Absent(Absent {}))];
    let first = world.log.append(append.clone()).await.unwrap().into_inner();
    let again = world.log.append(append.clone()).await.unwrap().into_inner();
    assert_eq!(again, pb::AppendResponse { deduplicated: true, ..first });
    append.writes[0].events[0].data = Some("2".into());
    let status = world.log.append(append).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::AlreadyExists, "REQUEST_ID_REUSED"));
    assert_eq!(world.read(topic_from("bank", 0)).await.len(), 1);
    world.stop().await;
}

#[tokio::test]
async fn what_cannot_be_appended_is_refused_by_name() {
    let mut world = world().await;
    world.topic("bank").await;
    world.topic_of("plain", pb::TopicKind::Records).await;
    let mut refused = async |append: pb::AppendRequest| {
        let status = world.log.append(append).await.unwrap_err();
        (status.code(), reason(&status), status.message().to_owned())
    };
    let (code, why, message) = refused(request("nowhere", "a", &["1"])).await;
    assert_eq!((code, why.as_str()), (Code::NotFound, "TOPIC_NOT_FOUND"));
    assert!(message.contains("foldlog topic create nowhere"), "{message}");
    let unknown = pb::AppendRequest { durability: 77, ..request("bank", "a", &["1"]) };
    assert_eq!(refused(unknown).await.0, Code::InvalidArgument);
    assert_eq!(refused(request("_foldlog.catalog", "a", &["1"])).await.1, "RESERVED_NAME");
    assert_eq!(refused(request("plain", "a", &["1"])).await.1, "TOPIC_KIND_MISMATCH");
    let large = "x".repeat(1 << 20);
    let (code, why, message) = refused(request("bank", "a", &[&large])).await;
    assert_eq!((code, why.as_str()), (Code::InvalidArgument, "EVENT_TOO_LARGE"));
    assert!(message.contains("1048576"), "{message}");
    let huge = "x".repeat(9 << 20);
    let status = world.log.append(request("bank", "a", &[&huge])).await.unwrap_err();
    assert!(matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted), "{status:?}");
    let message = status.message().to_owned();
    assert!(message.contains("8388608"), "{message}");
    assert!(world.read(topic_from("bank", 0)).await.is_empty());
    world.stop().await;
}

fn absent(items: &[(&[&str], &[&str])], after: Option<u64>) -> pb::Precondition {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let items = items.iter().map(|(types, tags)| pb::event_query::Item { types: texts(types), tags: texts(tags) }).collect();
    let query = pb::EventQueryAbsent { query: Some(pb::EventQuery { items, all: false }), after, ..Default::default() };
    pb::Precondition { kind: Some(pb::precondition::Kind::Query(query)) }
}

#[tokio::test]
async fn an_append_that_a_query_forbids_is_told_the_first_event_that_matches() {
    let mut world = world().await;
    world.topic("courses").await;
    let subscribe = |student: &str, preconditions: Vec<pb::Precondition>| {
        let tags = vec!["course:1".to_owned(), format!("student:{student}")];
        let event = pb::Event { r#type: "Subscribed".into(), data: Some("{}".into()), tags, ..Default::default() };
        let write = pb::Write { stream: student.into(), events: vec![event], ..Default::default() };
        pb::AppendRequest { topic: "courses".into(), writes: vec![write], preconditions, ..Default::default() }
    };
    let once = |student: &str| absent(&[(&["Subscribed"], &["course:1", student])], None);
    let first = world.log.append(subscribe("a", vec![once("student:a")])).await.unwrap().into_inner();
    world.log.append(subscribe("b", vec![once("student:b")])).await.unwrap();
    let status = world.log.append(subscribe("a", vec![once("student:a"), once("student:c")])).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Aborted, "QUERY_CONDITION_FAILED"));
    let details = tonic_types::pb::Status::decode(status.details()).unwrap().details;
    let detail = details.iter().find(|detail| detail.type_url.ends_with("PreconditionViolations")).unwrap();
    let told = pb::PreconditionViolations::decode(&*detail.value).unwrap();
    let [violation] = &*told.violations else { panic!("{told:?}") };
    assert_eq!((violation.index, violation.first_conflicting_position), (0, Some(first.first_position)));
    assert!(violation.expected.is_none() && !told.token.is_empty());
    // Decided on everything up to the newest event: nothing has come since.
    let newest = first.first_position + 1;
    world.log.append(subscribe("c", vec![absent(&[(&[], &["course:1"])], Some(newest))])).await.unwrap();
    let late = world.log.append(subscribe("d", vec![absent(&[(&[], &["course:1"])], Some(newest))])).await.unwrap_err();
    assert_eq!(reason(&late), "QUERY_CONDITION_FAILED");
    let ahead = world.log.append(subscribe("d", vec![absent(&[(&[], &["x"])], Some(newest + 9))])).await.unwrap_err();
    assert_eq!(ahead.code(), Code::OutOfRange);
    for (kind, what) in [
        (pb::EventQueryAbsent::default(), "a query without items"),
        (pb::EventQueryAbsent { topics: vec!["courses".into()], all_topics: true, ..Default::default() }, "topics and all of them"),
    ] {
        let given = pb::Precondition { kind: Some(pb::precondition::Kind::Query(kind)) };
        let status = world.log.append(subscribe("d", vec![given])).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "INVALID_REQUEST"), "{what}");
    }
    assert_eq!(world.read(topic_from("courses", 0)).await.len(), 3);
    world.stop().await;
}
