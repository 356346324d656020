//! Topics deleted over gRPC: who depends on one is named, who follows one is told, and another one of its name is a new one.

use crate::support::*;
use foldlog_proto::v1::{self as pb, group_place, query_batch::Message, subscribe_batch, subscribe_request::Start};
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};

async fn delete(world: &mut World, name: &str) -> Result<(), Status> {
    world.topics.delete(pb::DeleteTopicRequest { name: name.into() }).await.map(drop)
}

async fn next(batches: &mut Streaming<pb::SubscribeBatch>) -> Result<subscribe_batch::Message, Status> {
    let batch = timeout(LONG, batches.message()).await.unwrap()?;
    Ok(batch.and_then(|batch| batch.message).unwrap())
}

#[tokio::test]
async fn a_deleted_topic_is_gone_and_others_go_on() {
    let mut world = world().await;
    world.topic("gone").await;
    world.topic("kept").await;
    world.append("gone", "s", &["1", "2"]).await;
    world.append("kept", "s", &["3"]).await;
    let missing = delete(&mut world, "none").await.unwrap_err();
    assert_eq!((missing.code(), reason(&missing).as_str()), (Code::NotFound, "TOPIC_NOT_FOUND"));
    let system = delete(&mut world, "_foldlog.catalog").await.unwrap_err();
    assert_eq!(reason(&system), "RESERVED_NAME");
    delete(&mut world, "gone").await.unwrap();
    let listed = world.topics.list(pb::ListTopicsRequest::default()).await.unwrap().into_inner().topics;
    assert_eq!(listed.iter().map(|topic| topic.name.as_str()).collect::<Vec<_>>(), ["kept"]);
    let refused = world.append_refused(request("gone", "s", &["no"])).await;
    assert_eq!(reason(&refused), "TOPIC_NOT_FOUND");
    let refused = world.sql("SELECT data FROM gone").await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert_eq!(texts(&world.read(pb::read_request::Source::All(pb::AllRange::default())).await), ["3"]);
    let folder = world.stop().await;
    let mut world = world_over(folder, |_| {}).await;
    assert!(delete(&mut world, "gone").await.is_err());
    world.topic("gone").await;
    assert_eq!(world.append("gone", "s", &["anew"]).await.versions[0].version, 1);
    assert_eq!(texts(&world.read(topic_from("gone", 0)).await), ["anew"]);
    world.stop().await;
}

#[tokio::test]
async fn a_topic_that_something_is_made_of_is_not_deleted_and_what_is_named() {
    let mut world = world().await;
    world.topic("bank").await;
    world.topic("plain").await;
    world.sql("CREATE STREAM payments (account VARCHAR KEY, n BIGINT) WITH (topic = 'bank', value_format = 'json')").await.unwrap();
    world.sql("CREATE TABLE sums AS SELECT account, SUM(n) AS n FROM payments GROUP BY account").await.unwrap();
    world.sql("CREATE STREAM copies AS SELECT data FROM plain").await.unwrap();
    for (topic, named) in [("bank", "stream payments"), ("sums", "table sums"), ("plain", "query csas_copies"), ("copies", "stream copies")]
    {
        let refused = delete(&mut world, topic).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "IN_USE"), "{topic}: {refused:?}");
        assert!(refused.message().contains(named), "{topic}: {}", refused.message());
    }
    world.sql("DROP STREAM copies").await.unwrap();
    delete(&mut world, "plain").await.unwrap();
    delete(&mut world, "copies").await.unwrap();
    world.sql("DROP TABLE sums").await.unwrap();
    let refused = delete(&mut world, "bank").await.unwrap_err();
    assert!(refused.message().contains("stream payments"), "{}", refused.message());
    world.sql("DROP STREAM payments").await.unwrap();
    delete(&mut world, "bank").await.unwrap();
    delete(&mut world, "sums").await.unwrap();
    // The names are free for queries, too: the first generation again.
    world.topic("bank").await;
    world.sql("CREATE STREAM payments (account VARCHAR KEY, n BIGINT) WITH (topic = 'bank', value_format = 'json')").await.unwrap();
    world.sql("CREATE TABLE sums AS SELECT account, SUM(n) AS n FROM payments GROUP BY account").await.unwrap();
    let token = world.append("bank", "a", &["{\"n\":5}"]).await.token;
    let pull = pb::QueryRequest { at_least: token, ..statement("SELECT n FROM sums WHERE account = 'a'") };
    assert_eq!(world.answer(pull).await.unwrap().rows(), [[Cell::Integer(5)]]);
    let listed = world.topics.list(pb::ListTopicsRequest::default()).await.unwrap().into_inner().topics;
    assert_eq!(listed.iter().map(|topic| topic.name.as_str()).collect::<Vec<_>>(), ["bank", "sums"]);
    world.stop().await;
}

#[tokio::test]
async fn who_follows_a_deleted_topic_is_told_and_does_not_go_on_in_another_of_its_name() {
    let mut world = world().await;
    world.topic("gone").await;
    world.append("gone", "s", &["1"]).await;
    let mut batches = world.log.subscribe(follow("gone", 0)).await.unwrap().into_inner();
    let subscribe_batch::Message::Events(events) = next(&mut batches).await.unwrap() else { panic!("an event comes first") };
    while !matches!(next(&mut batches).await.unwrap(), subscribe_batch::Message::CaughtUp(_)) {}
    delete(&mut world, "gone").await.unwrap();
    world.topic("gone").await;
    // The log moves, which wakes whoever follows it.
    world.append("gone", "s", &["2"]).await;
    let told = next(&mut batches).await.unwrap_err();
    assert_eq!(reason(&told), "TOPIC_NOT_FOUND");
    let after = |token| pb::SubscribeRequest { start: Some(Start::After(token)), ..follow_from_start("gone") };
    let refused = world.log.subscribe(after(events.token)).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "TOPIC_RECREATED"));
    let mut batches = world.log.subscribe(follow("gone", 0)).await.unwrap().into_inner();
    let subscribe_batch::Message::Events(events) = next(&mut batches).await.unwrap() else { panic!("an event comes first") };
    assert_eq!(texts(&events.events), ["2"]);
    let token = world.append("gone", "s", &["3"]).await.token;
    let mut batches = world.log.subscribe(after(events.token)).await.unwrap().into_inner();
    let subscribe_batch::Message::Events(events) = next(&mut batches).await.unwrap() else { panic!("it goes on") };
    assert_eq!(texts(&events.events), ["3"]);
    world.append("gone", "s", &["4"]).await;
    let mut batches = world.log.subscribe(after(token)).await.unwrap().into_inner();
    let subscribe_batch::Message::Events(events) = next(&mut batches).await.unwrap() else { panic!("it goes on") };
    assert_eq!(texts(&events.events), ["4"], "an answer's token names no topic");
    drop(batches);
    world.stop().await;
}

#[tokio::test]
async fn a_push_query_over_a_deleted_topic_does_not_go_on_in_another_of_its_name() {
    let mut world = world().await;
    for (source, value) in [("gone", "data"), ("payments", "n")] {
        let declare = "CREATE STREAM payments (account VARCHAR KEY, n BIGINT) WITH (topic = 'gone', value_format = 'json')";
        let sql = format!("SELECT {value} FROM {source} EMIT CHANGES");
        world.topic("gone").await;
        world.sql(declare).await.unwrap();
        let mut messages = world.query.push(statement(&sql)).await.unwrap().into_inner();
        assert!(matches!(message(&mut messages).await.unwrap(), Message::Schema(_)));
        world.append("gone", "a", &["{\"n\":1}"]).await;
        let Message::Rows(rows) = message(&mut messages).await.unwrap() else { panic!("a row comes first") };
        // As long as it is the same topic, also declared anew.
        world.sql("DROP STREAM payments").await.unwrap();
        world.sql(declare).await.unwrap();
        world.append("gone", "a", &["{\"n\":2}"]).await;
        let resume = |token| pb::QueryRequest { resume: token, ..statement(&sql) };
        let mut again = world.query.push(resume(rows.resume.clone())).await.unwrap().into_inner();
        assert!(matches!(message(&mut again).await.unwrap(), Message::Schema(_)));
        let Message::Rows(second) = message(&mut again).await.unwrap() else { panic!("it goes on") };
        assert_eq!(second.count, 1);

        world.sql("DROP STREAM payments").await.unwrap();
        delete(&mut world, "gone").await.unwrap();
        world.topic("gone").await;
        world.sql(declare).await.unwrap();
        let token = world.append("gone", "a", &["{\"n\":3}"]).await.token;
        for token in [rows.resume, second.resume] {
            let refused = world.query.push(resume(token)).await.unwrap_err();
            assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "TOPIC_RECREATED"));
        }
        // Those that follow are told, and get nothing of the new one.
        for messages in [&mut messages, &mut again] {
            let told = loop {
                match message(messages).await {
                    Ok(Message::Rows(rows)) => assert_eq!(cells(&rows).len(), 1),
                    Ok(Message::Progress(_)) => {}
                    Ok(other) => panic!("{other:?}"),
                    Err(told) => break told,
                }
            };
            assert_eq!(reason(&told), "TOPIC_NOT_FOUND");
        }
        // An answer's token names no topic.
        world.append("gone", "a", &["{\"n\":4}"]).await;
        let mut messages = world.query.push(resume(token)).await.unwrap().into_inner();
        assert!(matches!(message(&mut messages).await.unwrap(), Message::Schema(_)));
        assert!(matches!(message(&mut messages).await.unwrap(), Message::Rows(rows) if rows.count == 1));
        drop((messages, again));
        world.sql("DROP STREAM payments").await.unwrap();
        delete(&mut world, "gone").await.unwrap();
    }
    world.stop().await;
}

async fn message(messages: &mut Streaming<pb::QueryBatch>) -> Result<Message, Status> {
    let batch = timeout(LONG, messages.message()).await.unwrap()?;
    Ok(batch.and_then(|batch| batch.message).unwrap())
}

fn follow_from_start(topic: &str) -> pb::SubscribeRequest {
    let source = pb::subscribe_request::Source::Topic(pb::TopicRange { topic: topic.into(), from_position: None });
    pb::SubscribeRequest { source: Some(source), ..Default::default() }
}

#[tokio::test]
async fn groups_of_a_deleted_topic_say_so_and_can_be_reset_or_deleted() {
    let mut world = world().await;
    world.topic("gone").await;
    world.append("gone", "s", &["1", "2"]).await;
    for group in ["a", "b"] {
        let request = pb::CreateGroupRequest { group: group.into(), topic: "gone".into(), ..Default::default() };
        world.groups.create(request).await.unwrap();
    }
    delete(&mut world, "gone").await.unwrap();
    for restarted in [false, true] {
        if restarted {
            let folder = world.stop().await;
            world = world_over(folder, |_| {}).await;
        }
        let status = world.groups.get(pb::GetGroupRequest { group: "a".into() }).await.unwrap().into_inner();
        assert_eq!((status.topic_deleted, status.lag, status.partitions.len()), (true, 0, 0), "restarted: {restarted}");
        let listed = world.groups.list(pb::ListGroupsRequest::default()).await.unwrap().into_inner().groups;
        assert!(listed.len() == 2 && listed.iter().all(|group| group.topic_deleted && group.lag == 0));
    }
    let to = Some(pb::GroupPlace { place: Some(group_place::Place::Beginning(Default::default())) });
    let reset = |group: &str| pb::ResetGroupRequest { group: group.into(), to };
    let refused = world.groups.reset(reset("a")).await.unwrap_err();
    assert_eq!(reason(&refused), "TOPIC_NOT_FOUND");
    world.groups.delete(pb::DeleteGroupRequest { group: "b".into() }).await.unwrap();
    world.topic("gone").await;
    world.append("gone", "s", &["anew"]).await;
    let status = world.groups.get(pb::GetGroupRequest { group: "a".into() }).await.unwrap().into_inner();
    assert!(status.topic_deleted, "another topic of the name is not its topic");
    let status = world.groups.reset(reset("a")).await.unwrap().into_inner();
    assert_eq!((status.topic_deleted, status.lag, status.partitions.len()), (false, 1, 2));
    world.stop().await;
}
