//! Running queries: bad rows, budgets, restarts, and how much is decoded.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::{common::DFSchema, logical_expr::cast, prelude::col};
use foldlog_log::{LogBackend, NewRecord, Position};
use foldlog_query::{
    QueryConfig,
    catalog::{QueryId, Source, WantedColumn},
    plan::expression::Expressions,
    plan::{Node, OperatorId, Sink, SourceScan, StreamPlan},
    processing_log,
    sql::dialect::Changelog,
    supervisor::QueryState,
};
use serde_json::{Value, json as value};

use super::{
    common::{PATIENCE, append, column, copied, counted, facts, json, read_all, topic},
    setup::{fact, memory_log, start, sum_of_rows, summed, supervisor, supervisor_with},
};

#[tokio::test]
async fn a_chain_over_the_processing_log_writes_nothing_there() {
    let log = memory_log();
    let supervisor = supervisor(&log);
    let source = |name: &str, topic_name: &str| Source {
        name: name.to_owned(),
        topic: topic(topic_name),
        columns: vec![column("reason", DataType::Utf8, false)],
        ..Source::clone(&facts())
    };
    let over = |from: Source, to: &str, nodes: Vec<Node>, data_type: DataType| {
        let output = vec![column("reason", data_type, false)];
        let sink = Source { columns: output.clone(), query: Some(QueryId::new(to)), ..source(to, to) };
        let scan = SourceScan { source: Arc::new(from), wanted: vec![WantedColumn::Declared(0)] };
        let (sources, sink_to) = (vec![scan], Sink::Stream(Arc::new(sink.clone())));
        let plan = StreamPlan { sources, nodes, sink: sink_to, output, changelog: Changelog::Coalesced, fingerprint: 1 };
        start(&supervisor, log.as_ref(), to, &plan);
        sink
    };
    let first = over(source("faults", processing_log::TOPIC), "first", Vec::new(), DataType::Utf8);
    let schema = Arc::new(Schema::new(vec![Field::new("reason", DataType::Int64, true)]));
    let text = DFSchema::try_from(Schema::new(vec![Field::new("reason", DataType::Utf8, true)])).unwrap();
    let number = Expressions::new().compile(cast(col("reason"), DataType::Int64), &text).unwrap();
    let cast_to_number = Node::Project { id: OperatorId(0), expressions: vec![number], schema };
    over(first, "second", vec![cast_to_number], DataType::Int64);
    let end = append(log.as_ref(), processing_log::TOPIC, 0, vec![json(&value!({ "reason": "no number" }))]).await.end;
    supervisor.wait("second", end, PATIENCE).await.unwrap();
    assert_eq!(read_all(log.as_ref(), &["second"]).len(), 1);
    assert_eq!(read_all(log.as_ref(), &[processing_log::TOPIC]).len(), 1);
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_stream_continues_after_a_restart_without_repeating_or_losing() {
    let log = memory_log();
    let mut expected = 0;
    for life in 0..6 {
        let supervisor = supervisor(&log);
        let (plan, _) = copied("copy");
        start(&supervisor, log.as_ref(), "copy", &plan);
        let mut end = Position::default();
        for _ in 0..10 {
            end = append(log.as_ref(), "facts", 1, vec![fact("k", expected), NewRecord::default()]).await.end;
            expected += 1;
        }
        // One life in two is cut off with appends that it has not seen.
        if life % 2 == 0 {
            supervisor.wait("copy", end, PATIENCE).await.unwrap();
            supervisor.shut_down().await;
        }
    }
    let supervisor = supervisor(&log);
    let (plan, _) = copied("copy");
    start(&supervisor, log.as_ref(), "copy", &plan);
    supervisor.wait("copy", log.head().position, PATIENCE).await.unwrap();
    let records = read_all(log.as_ref(), &["copy"]);
    let numbers: Vec<Option<i64>> =
        records.iter().map(|record| serde_json::from_slice::<Value>(record.value.as_ref()?).unwrap()["n"].as_i64()).collect();
    // A record without a value passes a projection as one without a value.
    assert_eq!(numbers, (0..expected).flat_map(|n| [Some(n), None]).collect::<Vec<_>>());
    supervisor.shut_down().await;
}

#[tokio::test]
async fn bad_rows_are_recorded_once_and_the_query_goes_on() {
    let log = memory_log();
    let plan = summed("by_key");
    for life in 0..2 {
        let supervisor = supervisor(&log);
        start(&supervisor, log.as_ref(), "by_key", &plan);
        if life == 0 {
            append(
                log.as_ref(),
                "facts",
                2,
                vec![fact("k", 1), json(&value!([1])), json(&value!({ "k": "k", "n": "seven" })), fact("k", 2)],
            )
            .await;
        }
        let view = supervisor.view("by_key").unwrap();
        view.wait(log.head().position, PATIENCE).await.unwrap();
        assert_eq!(sum_of_rows(&view.pin().unwrap()), 3);
        supervisor.shut_down().await;
    }
    let faults: Vec<Value> = read_all(log.as_ref(), &["_foldlog.processing_log"])
        .iter()
        .map(|record| serde_json::from_slice(record.value.as_ref().unwrap()).unwrap())
        .collect();
    let told: Vec<(&str, u64, u64)> = faults
        .iter()
        .map(|fault| (fault["what"].as_str().unwrap(), fault["partition"].as_u64().unwrap(), fault["offset"].as_u64().unwrap()))
        .collect();
    assert_eq!(told, [("skipped", 2, 1), ("nulled", 2, 2)], "{faults:?}");
    assert!(faults.iter().all(|fault| fault["query"] == "by_key" && fault["topic"] == "facts"));
}

#[tokio::test]
async fn a_query_over_its_state_budget_stops_with_the_reason_and_others_go_on() {
    let log = memory_log();
    let supervisor = supervisor_with(&log, &QueryConfig { workers: 1, state_mib: 1, ..QueryConfig::default() });
    start(&supervisor, log.as_ref(), "by_key", &counted("by_key", facts(), 0));
    start(&supervisor, log.as_ref(), "by_text", &counted("by_text", facts(), 3));
    for round in 0..40 {
        let records = (0..1000).map(|n| fact(&format!("key {round} {n}"), n)).collect();
        append(log.as_ref(), "facts", 0, records).await;
    }
    let end = log.head().position;
    supervisor.view("by_text").unwrap().wait(end, PATIENCE).await.unwrap();
    let failure = supervisor.view("by_key").unwrap().wait(end, PATIENCE).await.unwrap_err();
    assert!(failure.to_string().contains("query.state_mib"), "{failure}");
    let states: Vec<QueryState> = supervisor.queries().into_iter().map(|status| status.state).collect();
    assert!(matches!(states.as_slice(), [QueryState::Failed(_), QueryState::Running]), "{states:?}");
    supervisor.shut_down().await;
}

#[test]
fn schema_of_a_view_is_its_columns_and_the_row_time() {
    let log = memory_log();
    let supervisor = supervisor(&log);
    start(&supervisor, log.as_ref(), "by_key", &counted("by_key", facts(), 0));
    let view = supervisor.view("by_key").unwrap();
    let schema = view.schema();
    let names: Vec<&str> = schema.fields().iter().map(|field: &Arc<Field>| field.name().as_str()).collect();
    assert_eq!(names, ["key", "rows", "rowtime"]);
    assert_eq!(view.keys(), 1);
    assert_eq!(topic("by_key").as_str(), view.name());
}

#[tokio::test]
async fn twenty_queries_over_one_topic_decode_each_record_once() {
    const APPENDS: i64 = 300;
    let log = memory_log();
    let supervisor = supervisor(&log);
    let names: Vec<String> = (0..20).map(|n| format!("sum{n}")).collect();
    for name in &names {
        start(&supervisor, log.as_ref(), name, &summed(name));
    }
    let mut expected = 0;
    for n in 0..APPENDS {
        let records: Vec<NewRecord> = (0..=n % 5).map(|m| fact(&format!("k{m}"), n + m)).collect();
        expected += (0..=n % 5).map(|m| n + m).sum::<i64>();
        append(log.as_ref(), "facts", u32::try_from(n % 3).unwrap(), records).await;
    }
    let records = (0..APPENDS).map(|n| u64::try_from(1 + n % 5).unwrap()).sum::<u64>();
    let end = log.head().position;
    for name in &names {
        let view = supervisor.view(name).unwrap();
        view.wait(end, PATIENCE).await.unwrap();
        assert_eq!(sum_of_rows(&view.pin().unwrap()), expected, "{name}");
    }
    assert!(supervisor.queries().iter().all(|query| query.rows_in == records));
    assert_eq!(supervisor.decoded(), records);
    supervisor.shut_down().await;
}
