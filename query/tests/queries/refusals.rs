//! The log refuses what queries write, or cannot be read: they try again, or stop with the reason, and nothing is lost.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use foldlog_log::{LogBackend, Position, TopicKind};
use foldlog_query::{
    QueryConfig, processing_log,
    supervisor::{QueryState, Supervisor},
};
use serde_json::{Value, json as value};

use super::{
    common::{PATIENCE, SteppingClock, append, copied, create, read_all},
    refusing::Refusing,
    setup::{fact, start, supervisor},
};

#[tokio::test]
async fn a_unit_that_the_log_refuses_waits_and_is_written_once_in_order() {
    let log = Refusing::new(5, 0);
    create(log.as_ref(), "facts", TopicKind::Records, 1);
    let supervisor = supervisor(&log);
    let (plan, _) = copied("copy");
    start(&supervisor, log.as_ref(), "copy", &plan);
    let mut end = Position::default();
    for n in 0..20 {
        end = append(log.as_ref(), "facts", 0, vec![fact("k", n)]).await.end;
    }
    supervisor.wait("copy", end, PATIENCE).await.unwrap();
    let numbers: Vec<i64> = read_all(log.as_ref(), &["copy"])
        .iter()
        .map(|record| serde_json::from_slice::<Value>(record.value.as_ref().unwrap()).unwrap()["n"].as_i64().unwrap())
        .collect();
    assert_eq!(numbers, (0..20).collect::<Vec<_>>());
    assert_eq!(log.refusals.load(Ordering::Acquire), 0);
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_query_that_cannot_read_tries_again_and_misses_nothing() {
    let log = Refusing::new(0, 3);
    create(log.as_ref(), "facts", TopicKind::Records, 1);
    let supervisor = supervisor(&log);
    let (plan, _) = copied("copy");
    start(&supervisor, log.as_ref(), "copy", &plan);
    let end = append(log.as_ref(), "facts", 0, (0..20).map(|n| fact("k", n)).collect()).await.end;
    while supervisor.queries()[0].trouble.is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(supervisor.queries()[0].state, QueryState::Running, "it is not given up");
    supervisor.wait("copy", end, PATIENCE).await.unwrap();
    assert_eq!(read_all(log.as_ref(), &["copy"]).len(), 20);
    assert_eq!(supervisor.queries()[0].trouble, None);
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_query_that_fails_again_and_again_stops_with_its_reason_and_others_go_on() {
    let log = Refusing::new(0, u32::MAX);
    create(log.as_ref(), "facts", TopicKind::Records, 1);
    // Time flies, so that nobody waits between the trials.
    let clock = Arc::new(SteppingClock::new(Duration::from_secs(60)));
    let shared: Arc<dyn LogBackend> = Arc::<Refusing>::clone(&log);
    let supervisor = Supervisor::open(shared, clock, &QueryConfig { workers: 1, ..QueryConfig::default() }).unwrap();
    let (plan, _) = copied("copy");
    start(&supervisor, log.as_ref(), "copy", &plan);
    let end = append(log.as_ref(), "facts", 0, vec![fact("k", 1)]).await.end;
    let failure = supervisor.wait("copy", end, PATIENCE).await.unwrap_err();
    assert!(failure.to_string().contains("a cable is loose (it was tried 9 times)"), "{failure}");
    let states: Vec<QueryState> = supervisor.queries().into_iter().map(|status| status.state).collect();
    assert!(matches!(states.as_slice(), [QueryState::Failed(reason)] if reason.contains("a cable")), "{states:?}");
    let tried = u32::MAX - log.failing_reads.swap(0, Ordering::AcqRel);
    assert_eq!(tried, 9);
    let told = read_all(log.as_ref(), &[processing_log::TOPIC]);
    let told: Value = serde_json::from_slice(told[0].value.as_ref().unwrap()).unwrap();
    assert_eq!((&told["query"], &told["what"]), (&value!("copy"), &value!("stopped")));

    let (plan, _) = copied("other");
    start(&supervisor, log.as_ref(), "other", &plan);
    supervisor.wait("other", end, PATIENCE).await.unwrap();
    assert_eq!(read_all(log.as_ref(), &["other"]).len(), 1);
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_query_whose_unit_the_log_refuses_stops_and_writes_it_after_the_next_start() {
    let log = Refusing::new(u32::MAX, 0);
    create(log.as_ref(), "facts", TopicKind::Records, 1);
    let (plan, _) = copied("copy");
    let first = supervisor(&log);
    start(&first, log.as_ref(), "copy", &plan);
    let end = append(log.as_ref(), "facts", 0, vec![fact("k", 1), fact("k", 2)]).await.end;
    while log.refusals.load(Ordering::Acquire) == u32::MAX {
        tokio::task::yield_now().await;
    }
    tokio::time::timeout(PATIENCE, first.shut_down()).await.expect("it waits for a log that has no room");
    log.refusals.store(0, Ordering::Release);
    let second = supervisor(&log);
    start(&second, log.as_ref(), "copy", &plan);
    second.wait("copy", end, PATIENCE).await.unwrap();
    assert_eq!(read_all(log.as_ref(), &["copy"]).len(), 2);
    second.shut_down().await;
}
