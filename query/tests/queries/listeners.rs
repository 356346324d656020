//! Listeners: rows that HAVING lets go, and push queries with state, at the pace of who listens.

use std::collections::BTreeMap;

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::Schema,
};
use datafusion::{
    common::DFSchema,
    prelude::{col, lit},
};
use foldlog_log::{LogBackend, Position, testing::Random};
use foldlog_query::{
    ChangeOp, PushItem,
    plan::{Node, Sink, StreamPlan, expression::Expressions},
};
use serde_json::Value;

use super::{
    common::{PATIENCE, append, counted, facts, read_all},
    setup::{column_of, fact, memory_log, start, summed, supervisor},
};

#[tokio::test]
async fn a_row_that_having_lets_go_is_deleted_for_listeners_and_in_the_sink() {
    let log = memory_log();
    let supervisor = supervisor(&log);
    let mut plan = summed("positive");
    let Some(Node::Aggregate { having, schema, .. }) = plan.nodes.first_mut() else { panic!("a plan that groups") };
    let df_schema = DFSchema::try_from(Schema::clone(schema)).unwrap();
    *having = Some(Expressions::new().compile(col("rows").gt(lit(0_i64)), &df_schema).unwrap());
    start(&supervisor, log.as_ref(), "positive", &plan);
    let view = supervisor.view("positive").unwrap();
    let mut listener = supervisor.listen(&view).unwrap();
    let (mut model, mut heard) = (BTreeMap::<String, i64>::new(), BTreeMap::<String, i64>::new());
    let mut random = Random::new(11);
    for _ in 0..60 {
        let given: Vec<(String, i64)> = (0..3).map(|_| (format!("k{}", random.below(5)), random.below(21).cast_signed() - 10)).collect();
        for (key, n) in &given {
            *model.entry(key.clone()).or_default() += n;
        }
        let appended = append(log.as_ref(), "facts", 0, given.iter().map(|(key, n)| fact(key, *n)).collect()).await;
        let expected: BTreeMap<String, i64> = model.iter().filter(|(_, sum)| **sum > 0).map(|(key, sum)| (key.clone(), *sum)).collect();
        loop {
            let reached = match listener.next().await.unwrap().unwrap() {
                PushItem::Progress(position) => position,
                PushItem::Changes { rows, ops, position } => {
                    hear(&rows, &ops, &mut heard);
                    position
                }
            };
            if reached >= appended.end {
                break;
            }
        }
        assert_eq!(heard, expected);
        let scanned: BTreeMap<String, i64> = view.pin().unwrap().scan().flat_map(|batch| key_and_rows(&batch.unwrap())).collect();
        assert_eq!(scanned, expected);
        let mut written = BTreeMap::new();
        for record in read_all(log.as_ref(), &["positive"]) {
            let key = String::from_utf8(record.key.unwrap()).unwrap();
            match record.value {
                None => assert!(written.remove(&key).is_some(), "a tombstone for {key}, which is not there"),
                Some(bytes) => drop(written.insert(key, serde_json::from_slice::<Value>(&bytes).unwrap()["rows"].as_i64().unwrap())),
            }
        }
        assert_eq!(written, expected);
    }
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_push_query_with_state_folds_for_its_listener_and_writes_nothing() {
    let log = memory_log();
    for n in 0..500 {
        append(log.as_ref(), "facts", 0, vec![fact(&format!("k{}", n % 10), n)]).await;
    }
    let supervisor = supervisor(&log);
    let before = log.head().position;
    let plan = StreamPlan { sink: Sink::Volatile, ..counted("push", facts(), 0) };
    let mut listener = supervisor.volatile(&plan, Position::default()).unwrap();
    assert!(listener.take_snapshot().is_none());
    let mut heard = BTreeMap::new();
    loop {
        match listener.next().await.unwrap().unwrap() {
            PushItem::Progress(position) if position >= before => break,
            PushItem::Progress(_) => {}
            PushItem::Changes { rows, ops, position } => {
                hear(&rows, &ops, &mut heard);
                if position >= before {
                    break;
                }
            }
        }
    }
    assert_eq!(heard, (0..10).map(|key| (format!("k{key}"), 50)).collect());
    assert_eq!(log.head().position, before, "nothing was written");
    drop(listener);
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_listener_that_takes_nothing_stops_its_own_push_query_and_nothing_else() {
    let log = memory_log();
    let supervisor = supervisor(&log);
    start(&supervisor, log.as_ref(), "by_key", &counted("by_key", facts(), 0));
    let plan = StreamPlan { sink: Sink::Volatile, ..counted("push", facts(), 0) };
    let mut stalled = supervisor.volatile(&plan, Position::default()).unwrap();
    let view = supervisor.view("by_key").unwrap();
    let mut end = Position::default();
    for n in 0..3000 {
        end = append(log.as_ref(), "facts", 0, vec![fact("k", n)]).await.end;
        view.wait(end, PATIENCE).await.unwrap();
    }
    // It was never told that it is too slow: its query waited, and goes on when it listens.
    let mut heard = BTreeMap::new();
    loop {
        match tokio::time::timeout(PATIENCE, stalled.next()).await.unwrap().unwrap().unwrap() {
            PushItem::Changes { rows, ops, position } => {
                hear(&rows, &ops, &mut heard);
                if position >= end {
                    break;
                }
            }
            PushItem::Progress(position) if position >= end => break,
            PushItem::Progress(_) => {}
        }
    }
    assert_eq!(heard, BTreeMap::from([("k".to_owned(), 3000)]));
    supervisor.shut_down().await;
}

fn key_and_rows(batch: &RecordBatch) -> Vec<(String, i64)> {
    let keys = batch.column(0).as_string::<i32>();
    keys.iter().map(|key| key.unwrap().to_owned()).zip(column_of(batch, "rows")).collect()
}

fn hear(rows: &RecordBatch, ops: &[ChangeOp], heard: &mut BTreeMap<String, i64>) {
    for ((key, count), op) in key_and_rows(rows).into_iter().zip(ops) {
        match op {
            ChangeOp::Insert | ChangeOp::UpdateAfter => assert_eq!(heard.insert(key, count), None, "{op:?}"),
            ChangeOp::UpdateBefore | ChangeOp::Delete => assert_eq!(heard.remove(&key), Some(count), "{op:?}"),
        }
    }
}
