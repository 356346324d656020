//! Stopping and starting over the same folder: what was acknowledged is there, and one server holds a folder.

use crate::support::*;
use foldlog_proto::v1::{
    self as pb,
    stream_state::{Absent, Expect},
};
use foldlog_server::{Config, Server, ServerError};

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let mut world = world().await;
    world.topic("t").await;
    let mut append = request("t", "a", &["1", "2"]);
    append.request_id = vec![3; 16].into();
    append.preconditions = vec![expect("a", Expect::Absent(Absent {}))];
    let first = world.log.append(append.clone()).await.unwrap().into_inner();
    let before = world.read(topic_from("t", 0)).await;

    let folder = world.stop().await;
    let mut world = world_over(folder, |_| {}).await;
    assert_eq!(world.read(topic_from("t", 0)).await, before);
    let again = world.log.append(append).await.unwrap().into_inner();
    assert_eq!(again, pb::AppendResponse { deduplicated: true, ..first.clone() }, "the window of request ids survives");
    let waited = pb::ReadRequest { source: Some(stream_from("t", "a", 1)), at_least: first.token, ..Default::default() };
    assert_eq!(world.read_with(waited).await.unwrap().len(), 2, "tokens survive");
    let next = world.append("t", "a", &["3"]).await;
    assert_eq!(next.versions[0].version, 3);
    assert!(next.first_position > first.last_position);
    world.stop().await;
}

#[tokio::test]
async fn compressed_topics_are_read_and_queried_as_all_others() {
    let mut world = world().await;
    let topics = [("none", pb::Compression::None), ("lz4", pb::Compression::Lz4), ("zstd", pb::Compression::Zstd)];
    let payload = |n: i32| format!("{{\"n\": {n}, \"text\": \"{}\"}}", "again and ".repeat(40));
    for (name, compression) in topics {
        let topic = pb::CreateTopicRequest { name: name.into(), compression: compression.into(), ..Default::default() };
        world.topics.create(topic).await.unwrap();
        for n in 0..10 {
            world.append(name, &format!("s{}", n % 2), &[&payload(n), &payload(n)]).await;
        }
    }
    // A stop copies everything into segments, and what a start serves of them is read from there.
    let folder = world.stop().await;
    let bytes = |name| bytes_of_segments(&folder.path().join("data/topics"), name);
    assert!(bytes("lz4") * 2 < bytes("none") && bytes("zstd") * 2 < bytes("none"));
    let mut world = world_over(folder, |_| {}).await;
    for (name, compression) in topics {
        let described = world.topics.describe(pb::DescribeTopicRequest { name: name.into() }).await.unwrap().into_inner();
        assert_eq!(described.topic.unwrap().compression(), compression);
        let all: Vec<_> = (0..10).flat_map(|n| [payload(n), payload(n)]).collect();
        assert_eq!(texts(&world.read(topic_from(name, 0)).await), all, "{name}");
        let odd: Vec<_> = (0..10).filter(|n| n % 2 == 1).flat_map(|n| [payload(n), payload(n)]).collect();
        assert_eq!(texts(&world.read(stream_from(name, "s1", 4)).await), odd[3..], "{name}");
        let mut followed = world.log.subscribe(follow(name, 0)).await.unwrap().into_inner();
        let mut found = Vec::new();
        while found.len() < all.len() {
            let message = tokio::time::timeout(LONG, followed.message()).await.unwrap().unwrap().unwrap();
            if let Some(pb::subscribe_batch::Message::Events(batch)) = message.message {
                found.extend(texts(&batch.events));
            }
        }
        assert_eq!(found, all, "{name}");
        world
            .sql(&format!("CREATE STREAM of_{name} (id VARCHAR KEY, n BIGINT) WITH (topic = '{name}', value_format = 'json')"))
            .await
            .unwrap();
        let answer = world.sql(&format!("SELECT COUNT(*), SUM(n) FROM of_{name}")).await.unwrap();
        assert_eq!(answer.rows(), [[Cell::Integer(20), Cell::Integer(90)]], "{name}");
    }
    let sink = pb::CreateTopicRequest {
        name: "times".into(),
        kind: pb::TopicKind::Table.into(),
        partitions: Some(2),
        compression: pb::Compression::Zstd.into(),
        ..Default::default()
    };
    world.topics.create(sink.clone()).await.unwrap();
    world.sql("CREATE TABLE times WITH (partitions = 2) AS SELECT id, COUNT(*) AS n FROM of_lz4 GROUP BY id").await.unwrap();
    let described = world.topics.describe(pb::DescribeTopicRequest { name: sink.name }).await.unwrap().into_inner();
    assert_eq!(described.topic.unwrap().compression(), pb::Compression::Zstd, "an empty topic is written to as it is");
    world.stop().await;
}

/// Bytes of the batches of a topic's segments, found by its manifest.
#[expect(clippy::disallowed_methods, reason = "a test looks at what lies there")]
fn bytes_of_segments(topics: &std::path::Path, name: &str) -> u64 {
    let manifest = files(topics).into_iter().filter(|path| path.is_file()).find(|path| {
        let text = String::from_utf8(std::fs::read(path).unwrap()).unwrap();
        text.contains(&format!("\"name\":\"{name}\""))
    });
    let logs = files(&manifest.unwrap().with_extension("")).into_iter().flat_map(|partition| files(&partition));
    logs.filter(|path| path.extension().is_some_and(|extension| extension == "log")).map(|path| path.metadata().unwrap().len()).sum()
}

#[expect(clippy::disallowed_methods, reason = "a test looks at what lies there")]
fn files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test]
async fn a_second_server_on_the_same_folder_is_refused_by_name() {
    let world = world().await;
    let second = Server::start(Config::local(world.folder.path().join("data"))).await.unwrap();
    let error = second.ready().await.unwrap_err();
    assert!(matches!(&*error, ServerError::Log(foldlog_log::LogError::Locked { .. })), "{error:?}");
    assert!(second.stop().await.is_err());
    world.stop().await;
}

#[tokio::test]
async fn an_address_that_is_taken_is_named_and_nothing_is_started() {
    let world = world().await;
    let folder = tempfile::TempDir::new().unwrap();
    let config = Config { listen: world.server.address(), ..Config::local(folder.path().join("data")) };
    let Err(error) = Server::start(config).await else { panic!("two servers on one port") };
    assert!(error.to_string().contains(&world.server.address().to_string()), "{error}");
    assert!(!folder.path().join("data").exists());
    world.stop().await;
}
