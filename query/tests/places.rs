//! Errors of a statement say where in its text what is wrong stands.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use std::sync::Arc;

use common::PATIENCE;
use foldlog_log::{LogBackend, clock::SystemClock, testing::MemoryLog};
use foldlog_query::{Engine, Place, QueryConfig, QueryError, Request, Session};

fn request(sql: &str) -> Request {
    Request { sql: sql.to_owned(), parameters: Vec::new(), at_least: None, resume: None, timeout: PATIENCE, session: Session::default() }
}

fn place_of(error: &QueryError) -> Option<Place> {
    match error {
        QueryError::Syntax { place, .. } | QueryError::At { place, .. } => Some(*place),
        QueryError::Unknown { place, .. } => *place,
        _ => None,
    }
}

/// What stands at a place.
fn text_at(sql: &str, place: Place) -> String {
    let line = sql.lines().nth(place.line as usize - 1).unwrap();
    line.chars().skip(place.column as usize - 1).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_points_at_what_is_wrong() {
    // The statement, and what of it begins where the error is: in `standard`, and in `ksql`, which types each part by itself.
    let cases = [
        ("CREATE STREAM t AS SELECT a, b + 1 AS c FROM s", "b + 1", "b + 1"),
        ("CREATE STREAM t AS SELECT a\nFROM s\nWHERE a + 1", "a + 1", "a + 1"),
        ("CREATE STREAM t AS SELECT a, ABS(b) AS c FROM s", "ABS(b)", "ABS(b)"),
        ("CREATE TABLE t AS SELECT a, SUM(b) AS c FROM s GROUP BY a", "SUM(b)", "SUM(b)"),
        ("CREATE TABLE t AS SELECT a, b, COUNT(*) AS c FROM s GROUP BY a", "b, COUNT", "b, COUNT"),
        ("CREATE TABLE t AS SELECT a, COUNT(*) AS c FROM s GROUP BY a HAVING SUM(b) > 1", "SUM(b)", "SUM(b)"),
        ("CREATE STREAM t AS SELECT a, (1 + ABS(a + b)) AS c FROM s", "1 + ABS", "a + b"),
        ("CREATE STREAM t AS SELECT a, d FROM s", "d FROM", "d FROM"),
        ("CREATE STREAM t AS SELECT a a a FROM s", "a FROM", "a FROM"),
        ("INSERT INTO s (a, b) VALUES (1, true), (1 + true, true)", "1 + true", "1 + true"),
        // Queries that end: what DataFusion plans by itself, its parts within joins, groups, CTEs and subqueries, too.
        ("SELECT a, (1 + abs(a + b)) AS c FROM s", "a + b", "a + b"),
        ("SELECT a FROM s\nWHERE a = 1 AND\n  a + b > 1", "a + b", "a + b"),
        ("SELECT a, SUM(a + b) FROM s GROUP BY a", "a + b", "a + b"),
        ("SELECT a, COUNT(*) FROM s GROUP BY a HAVING COUNT(*) > 1 AND NOT a", "a", "a"),
        ("SELECT x.a FROM s AS x JOIN s AS y ON x.a = y.a AND x.a = y.b", "x.a = y.b", "x.a = y.b"),
        ("WITH w AS (SELECT a, a + b AS c FROM s) SELECT * FROM w", "a + b", "a + b"),
        ("WITH w AS (SELECT a, b AS c FROM s) SELECT a - c FROM w", "a - c", "a - c"),
        ("SELECT a FROM (SELECT a, abs(b) AS c FROM s) AS t WHERE a > 1", "abs(b)", "abs(b)"),
        ("SELECT 1 AS one UNION ALL SELECT a + b FROM s", "a + b", "a + b"),
        ("SELECT a FROM s ORDER BY a + b", "a + b", "a + b"),
        ("SELECT a FROM s WHERE SUM(a) > 1", "SUM(a)", "SUM(a)"),
        // The same expression of another column has no mistake in it.
        ("SELECT a - 1, b - 1 FROM s ORDER BY a", "b - 1", "b - 1"),
    ];
    let mut wrong = Vec::new();
    for dialect in ["standard", "ksql"] {
        let log = Arc::new(MemoryLog::new(Arc::new(SystemClock::new()))) as Arc<dyn LogBackend>;
        let config = QueryConfig { dialect: dialect.parse().unwrap(), ..QueryConfig::default() };
        let engine = Engine::open(log, Arc::new(SystemClock::new()), config).unwrap();
        engine
            .execute(request("CREATE STREAM s (a INT, b BOOLEAN) WITH (kafka_topic = 's', partitions = 1, value_format = 'json')"))
            .await
            .unwrap();
        for (sql, standard, ksql) in cases {
            let wanted = if dialect == "ksql" { ksql } else { standard };
            let told = engine.execute(request(sql)).await.err();
            let place = told.as_ref().and_then(place_of).map(|place| text_at(sql, place));
            if !place.as_ref().is_some_and(|text| text.starts_with(wanted)) {
                wrong.push(format!("{dialect}: {sql}: {place:?} of {:?}", told.map(|error| error.to_string())));
            }
        }
        engine.stop().await;
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_with_set_and_lists_say_is_pointed_at() {
    let cases = [
        ("CREATE STREAM s (a INT) WITH (topic = 's')", "s (a"),
        ("CREATE STREAM n (a INT) WITH (topic = 'n', partitions = 1, value_format = 'jsn')", "value_format = 'jsn'"),
        ("CREATE STREAM n (a INT) WITH (topic = 'n', partitions = 1, format = 'avro')", "format = 'avro'"),
        ("CREATE STREAM n (a INT) WITH (topic = 'n', partitions = 1, format = 'json', key_format = 'json')", "format = 'json', key"),
        ("CREATE STREAM n (a INT) WITH (topic = 'n', partitions = 1, value_delimiter = ';')", "value_delimiter = ';'"),
        ("CREATE STREAM n (a INT, b INT) WITH (topic = 'n', partitions = 1, wrap_single_value = true)", "wrap_single_value"),
        ("CREATE STREAM n (a INT, b INT) WITH (topic = 'n', partitions = 1, value_format = 'kafka')", "value_format = 'kafka'"),
        ("CREATE STREAM n (a INT) WITH (topic = 'n', partitions = 1, timestamp = 'nope')", "'nope'"),
        ("CREATE STREAM n (a INT) WITH (topic = 'n', partitions = 1, timestamp = 'a')", "timestamp = 'a'"),
        ("CREATE STREAM n (a VARCHAR) WITH (topic = 'n', partitions = 1, timestamp = 'a', timestamp_format = 'bb')", "timestamp_format"),
        ("CREATE STREAM n (a INT) WITH (topic = 'n', partitions = 1, replicas = 3)", "replicas = 3"),
        ("CREATE STREAM n (a INT) WITH (topic = 'n', partitions = 1, cleanup_policy = 'compact')", "cleanup_policy"),
        ("CREATE STREAM n (a INT) WITH (topic = 'n', partitions = 1, changelog = 'every')", "changelog"),
        ("CREATE STREAM n (a INT) WITH (topic = 'n', partitions = 1, window_type = 'SESSION')", "window_type"),
        ("CREATE STREAM n (a INT) WITH (topic = 's', partitions = 7)", "partitions = 7"),
        ("CREATE STREAM n (a INT) WITH (topic = 'n')", "topic = 'n'"),
        ("ASSERT TOPIC s WITH (format = 'json')", "format = 'json'"),
        ("SET 'sql.dialct' = 'ksql'", "'sql.dialct'"),
        ("SET 'sql.dialect' =\n  'pg'", "'pg'"),
        ("UNSET 'sql.dialct'", "'sql.dialct'"),
        ("DEFINE \"1a\" = 'x'", "\"1a\""),
        ("UNDEFINE nobody", "nobody"),
        ("CREATE TYPE t AS INT", "t AS"),
        ("INSERT INTO s VALUES (1, true), (2)", "2)"),
        ("INSERT INTO s VALUES (1, true), (2, true, 3)", "3)"),
        ("INSERT INTO s (a, b, a) VALUES (1, true, 1)", "a) VALUES"),
        ("INSERT INTO s (a, c) VALUES (1, true)", "c) VALUES"),
        ("INSERT INTO s (a) SELECT a FROM s", "a) SELECT"),
        ("INSERT INTO k VALUES (1, 1), (NULL, 2)", "NULL, 2"),
    ];
    let log = Arc::new(MemoryLog::new(Arc::new(SystemClock::new()))) as Arc<dyn LogBackend>;
    let engine = Engine::open(log, Arc::new(SystemClock::new()), QueryConfig::default()).unwrap();
    for made in [
        "CREATE STREAM s (a INT, b BOOLEAN) WITH (topic = 's', partitions = 1)",
        "CREATE TABLE k (id INT PRIMARY KEY, v INT) WITH (topic = 'k', partitions = 1)",
        "CREATE TYPE t AS BIGINT",
    ] {
        engine.execute(request(made)).await.unwrap();
    }
    let mut wrong = Vec::new();
    for (sql, wanted) in cases {
        let told = engine.execute(request(sql)).await.err();
        let place = told.as_ref().and_then(place_of).map(|place| text_at(sql, place));
        if !place.as_ref().is_some_and(|text| text.starts_with(wanted)) {
            wrong.push(format!("{sql}: {place:?} of {:?}", told.map(|error| error.to_string())));
        }
    }
    engine.stop().await;
    assert!(wrong.is_empty(), "{wrong:#?}");
}
