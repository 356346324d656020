//! Common positions: views that are read together, tokens of appends through chains of queries, and those that are not reached.

use std::{
    collections::VecDeque,
    sync::Arc,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use foldlog_log::{LogBackend, NewRecord, Position, TopicKind, testing::Random};
use foldlog_query::{
    QueryError,
    catalog::Source,
    plan::{SourceScan, StreamPlan},
    stream::view::View,
    supervisor::Supervisor,
};
use serde_json::json as value;

use super::{
    common::{PATIENCE, append, copied, counted, create, facts, json},
    refusing::Refusing,
    setup::{fact, memory_log, start, sum_of_rows, supervisor},
};

/// Two views of the facts, and one of a stream that copies them.
fn three_views(supervisor: &Supervisor, log: &dyn LogBackend) -> Vec<Arc<View>> {
    start(supervisor, log, "by_key", &counted("by_key", facts(), 0));
    start(supervisor, log, "by_text", &counted("by_text", facts(), 3));
    let (plan, copy) = copied("copy");
    start(supervisor, log, "copy", &plan);
    start(supervisor, log, "by_copy", &counted("by_copy", copy, 0));
    ["by_key", "by_text", "by_copy"].iter().map(|name| supervisor.view(name).unwrap()).collect()
}

#[tokio::test]
async fn views_of_one_source_and_a_view_downstream_are_pinned_at_one_position() {
    let log = memory_log();
    let supervisor = supervisor(&log);
    let views = three_views(&supervisor, log.as_ref());

    let over = AtomicBool::new(false);
    let writing = async {
        let (mut written, mut ahead) = (Vec::new(), VecDeque::new());
        let mut random = Random::new(3);
        while !over.load(Ordering::Acquire) {
            let count = 1 + random.below(40);
            let records = (0..count).map(|n| fact(&format!("k{}", random.below(9)), n.cast_signed())).collect();
            let appended = append(log.as_ref(), "facts", u32::try_from(random.below(3)).unwrap(), records).await;
            written.extend(appended.first.get()..appended.end.get());
            // The writer stays a few appends ahead, so that how long this takes does not depend on the machine.
            ahead.push_back(appended.end);
            if ahead.len() > 8 {
                views[2].wait(ahead.pop_front().unwrap(), PATIENCE).await.unwrap();
            }
        }
        written
    };
    let reading = async {
        let mut seen = Vec::new();
        for _ in 0..40 {
            let pins = supervisor.pin_together(&views, None, PATIENCE).await.unwrap();
            let positions: Vec<u64> = pins.iter().map(|pin| pin.position().get()).collect();
            assert!(positions.iter().all(|at| *at == positions[0]), "{positions:?}");
            seen.push((positions[0], pins.iter().map(sum_of_rows).collect::<Vec<_>>()));
        }
        over.store(true, Ordering::Release);
        seen
    };
    let (written, seen) = tokio::join!(writing, reading);
    for (at, sums) in seen {
        let expected = written.iter().filter(|position| **position < at).count() as i64;
        assert_eq!(sums, [expected; 3], "at {at}");
    }
    // Nothing holds the queries any more.
    let end = log.head().position;
    for view in &views {
        view.wait(end, PATIENCE).await.unwrap();
    }
    supervisor.shut_down().await;
}

#[tokio::test]
async fn many_joined_reads_at_once_do_not_wait_for_each_other_under_a_writer_that_never_stops() {
    const READERS: usize = 8;
    let log = memory_log();
    let supervisor = supervisor(&log);
    let views = three_views(&supervisor, log.as_ref());
    let over = AtomicBool::new(false);
    let writing = async {
        let mut written = Vec::new();
        while !over.load(Ordering::Acquire) {
            let records = (0..20).map(|n| fact(&format!("k{}", n % 9), n)).collect();
            let appended = append(log.as_ref(), "facts", u32::try_from(written.len() % 3).unwrap(), records).await;
            written.extend(appended.first.get()..appended.end.get());
            tokio::task::yield_now().await;
        }
        written
    };
    let read = |reader: usize| {
        let (supervisor, mut views) = (&supervisor, views.clone());
        views.rotate_left(reader % 3);
        async move {
            let mut seen = Vec::new();
            for _ in 0..10 {
                let pins = supervisor.pin_together(&views[..2 + reader % 2], None, PATIENCE).await.unwrap();
                assert!(pins.iter().all(|pin| pin.position() == pins[0].position()));
                seen.push((pins[0].position().get(), pins.iter().map(sum_of_rows).collect::<Vec<_>>()));
            }
            seen
        }
    };
    let reading = async {
        let seen = futures::future::join_all((0..READERS).map(read)).await;
        over.store(true, Ordering::Release);
        seen
    };
    let (written, seen) = tokio::join!(writing, reading);
    let below = |at: u64| i64::try_from(written.partition_point(|position| *position < at)).unwrap();
    for (at, sums) in seen.into_iter().flatten() {
        assert!(sums.iter().all(|sum| *sum == below(at)), "{sums:?} at {at}, where {} facts lie", below(at));
    }
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_token_of_an_append_holds_through_a_chain_of_queries() {
    let log = memory_log();
    let supervisor = supervisor(&log);
    let (plan, copy) = copied("copy");
    start(&supervisor, log.as_ref(), "copy", &plan);
    start(&supervisor, log.as_ref(), "by_copy", &counted("by_copy", copy, 0));
    let view = supervisor.view("by_copy").unwrap();
    for count in 1..=50 {
        let appended = append(log.as_ref(), "facts", 0, vec![fact("k", count)]).await;
        view.wait(appended.end, PATIENCE).await.unwrap();
        assert_eq!(sum_of_rows(&view.pin().unwrap()), count);
    }
    // Something else is appended: the frontier of the chain follows without any record.
    create(log.as_ref(), "noise", TopicKind::Records, 1);
    let appended = append(log.as_ref(), "noise", 0, vec![fact("k", 0)]).await;
    view.wait(appended.end, PATIENCE).await.unwrap();
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_chain_waits_after_a_restart_for_what_its_first_query_had_not_written() {
    let log = Refusing::new(0, 0);
    create(log.as_ref(), "facts", TopicKind::Records, 1);
    let end = append(log.as_ref(), "facts", 0, vec![fact("k", 1)]).await.end;
    // The second query had read that far when the first one had not written yet what follows from the fact.
    create(log.as_ref(), "_foldlog.progress", TopicKind::Table, 1);
    let progress = value!({ "position": end.get(), "start": 0, "fingerprint": 1 });
    append(log.as_ref(), "_foldlog.progress", 0, vec![NewRecord { key: Some("second".into()), ..json(&progress) }]).await;
    log.refusals.store(5, Ordering::Release);
    let supervisor = supervisor(&log);
    let (plan, first) = copied("first");
    start(&supervisor, log.as_ref(), "first", &plan);
    let (plan, second) = copied("second");
    let plan = StreamPlan { sources: vec![SourceScan { source: first, ..plan.sources[0].clone() }], ..plan };
    start(&supervisor, log.as_ref(), "second", &plan);
    start(&supervisor, log.as_ref(), "third", &counted("third", second, 0));
    let view = supervisor.view("third").unwrap();
    view.wait(end, PATIENCE).await.unwrap();
    assert_eq!(sum_of_rows(&view.pin().unwrap()), 1);
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_token_holds_through_a_topic_that_was_declared_again() {
    let log = Refusing::new(5, 0);
    create(log.as_ref(), "facts", TopicKind::Records, 1);
    let end = append(log.as_ref(), "facts", 0, vec![fact("k", 1)]).await.end;
    let supervisor = supervisor(&log);
    let (plan, first) = copied("first");
    start(&supervisor, log.as_ref(), "first", &plan);
    let again = Arc::new(Source { name: "again".to_owned(), query: None, ..Source::clone(&first) });
    start(&supervisor, log.as_ref(), "second", &counted("second", again, 0));
    let view = supervisor.view("second").unwrap();
    view.wait(end, PATIENCE).await.unwrap();
    assert_eq!(sum_of_rows(&view.pin().unwrap()), 1);
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_position_that_is_not_reached_in_time_is_named() {
    let log = memory_log();
    let supervisor = supervisor(&log);
    start(&supervisor, log.as_ref(), "by_key", &counted("by_key", facts(), 0));
    let view = supervisor.view("by_key").unwrap();
    let wanted = Position::new(1_000_000);
    let error = view.wait(wanted, Duration::from_millis(20)).await.unwrap_err();
    assert!(matches!(error, QueryError::NotYet { wanted: asked, .. } if asked == wanted), "{error}");
    supervisor.stop("by_key").await;
    assert!(supervisor.view("by_key").is_none());
    assert!(view.pin().is_err(), "a view that was terminated is not read");
    supervisor.shut_down().await;
}
