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
