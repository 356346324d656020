//! Statements made to hurt, at every door of the engine: each gets an answer or a clear error, and the engine goes on.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{sync::Arc, time::Duration};

use foldlog_log::{
    LogBackend, Timestamp,
    clock::{Clock, ManualClock},
    testing::MemoryLog,
};
use foldlog_query::{DialectKind, Engine, QueryConfig, QueryError, Request, Session};
use futures::StreamExt as _;

fn engine() -> Engine {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(Timestamp::new(0)));
    let log: Arc<dyn LogBackend> = Arc::new(MemoryLog::new(Arc::clone(&clock)));
    Engine::open(log, clock, QueryConfig { workers: 1, ..QueryConfig::default() }).unwrap()
}

fn request(sql: &str) -> Request {
    Request {
        sql: sql.to_owned(),
        parameters: Vec::new(),
        at_least: None,
        resume: None,
        timeout: Duration::from_secs(30),
        session: Session::default(),
    }
}

async fn run(engine: &Engine, sql: &str) -> Result<usize, QueryError> {
    let mut batches = engine.execute(request(sql)).await?.batches;
    let mut rows = 0;
    while let Some(batch) = batches.next().await {
        rows += batch?.num_rows();
    }
    Ok(rows)
}

async fn ok(engine: &Engine, sql: &str) -> usize {
    run(engine, sql).await.unwrap_or_else(|error| panic!("{}: {error}", sql.get(..200).unwrap_or(sql)))
}

async fn with_stream() -> Engine {
    let engine = engine();
    ok(&engine, "CREATE STREAM s (a INT, b VARCHAR) WITH (partitions = 1)").await;
    engine
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_complex_is_said_at_every_door() {
    let engine = with_stream().await;
    let parts = [
        "1".to_owned() + &" + 1".repeat(100_000),
        "1".to_owned() + &"::int".repeat(100_000),
        "true".to_owned() + &" AND true".repeat(100_000),
        "'a'".to_owned() + &" || 'a'".repeat(30_000),
        "(".repeat(100_000) + "1" + &")".repeat(100_000),
        "NOT ".repeat(60_000) + "true",
        "- ".repeat(100_000) + "1",
        "[".repeat(100_000),
        "CASE WHEN true THEN ".repeat(10_000) + "1" + &" END".repeat(10_000),
        "a IN (1".to_owned() + &", 1".repeat(1_000_000) + ")",
        "CAST(a AS ".to_owned() + &"array<".repeat(5_000) + "int" + &">".repeat(5_000) + ")",
    ];
    for part in parts {
        let start = part.get(..20).unwrap_or_default().to_owned();
        for sql in [
            format!("SELECT {part}"),
            format!("CREATE STREAM t AS SELECT {part} AS x FROM s"),
            format!("INSERT INTO s VALUES ({part}, 'b')"),
        ] {
            assert!(matches!(run(&engine, &sql).await, Err(QueryError::TooComplex(_))), "{start}");
        }
        let push = engine.push(request(&format!("SELECT {part} AS x FROM s EMIT CHANGES"))).await;
        assert!(matches!(push.err(), Some(QueryError::TooComplex(_))), "{start}");
        assert!(matches!(engine.split(&"x;".repeat(3_000_000)), Err(QueryError::TooComplex(_))));
    }
    for sql in ["INSERT INTO s VALUES (1, 'b')".to_owned(), "VALUES (1, 'b')".to_owned()] {
        let many = sql + &", (1, 'b')".repeat(1_000_000);
        assert!(matches!(run(&engine, &many).await, Err(QueryError::TooComplex(_))), "a million rows");
    }
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_bounds_allow_is_planned_and_folded_without_overflowing_a_stack() {
    let engine = with_stream().await;
    let sum = "a".to_owned() + &" + 1".repeat(499);
    let all = "a > 0".to_owned() + &" AND a > 0".repeat(240);
    let nested = "(".repeat(60) + "a" + &" + 1)".repeat(60);
    let cases = "CASE WHEN a > 0 THEN ".repeat(60) + "a / 0" + &" ELSE a END".repeat(60);
    ok(&engine, &format!("CREATE STREAM deep AS SELECT {sum} AS x, {nested} AS y, {cases} AS z FROM s WHERE {all}")).await;
    ok(&engine, "INSERT INTO s VALUES (1, 'b'), (0, 'c')").await;
    ok(&engine, &format!("INSERT INTO s VALUES (1{}, 'd')", " + 1".repeat(499))).await;
    assert_eq!(ok(&engine, &format!("SELECT {sum} AS x, {nested} AS y FROM s WHERE {all}")).await, 2);
    assert!(engine.push(request(&format!("SELECT {sum} AS x FROM s WHERE {all} EMIT CHANGES"))).await.is_ok());
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doors_of_datafusion_are_shut() {
    let engine = with_stream().await;
    for sql in [
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 'file:///etc/passwd'",
        "COPY s TO '/tmp/x.csv'",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM \"file:///etc/passwd\"",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SET datafusion.execution.batch_size = 1",
        "SHOW ALL",
        "CREATE FUNCTION f(INT) RETURNS INT RETURN $1",
        "PREPARE p AS SELECT 1",
        "EXECUTE p",
        "EXPLAIN ANALYZE SELECT 1",
        "EXPLAIN COPY s TO 'x'",
        "SELECT 1; DROP STREAM s",
        "SELECT * FROM information_schema.tables",
        "WITH x AS (INSERT INTO s VALUES (1, 'b') RETURNING a) SELECT * FROM x",
        "SELECT * FROM s FOR UPDATE",
    ] {
        let error = run(&engine, sql).await.err().unwrap_or_else(|| panic!("{sql} was done"));
        let is_refusal = matches!(
            error.bare(),
            QueryError::Syntax { .. } | QueryError::Invalid(_) | QueryError::Unknown { .. } | QueryError::Unsupported(_)
        );
        assert!(is_refusal, "{sql}: {error:?}");
        assert!(!error.to_string().contains("root:"), "{sql}");
    }
    assert_eq!(ok(&engine, "SHOW STREAMS").await, 1);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_names_and_many_columns_have_a_defined_result() {
    let engine = engine();
    let columns: Vec<String> = (0..1_000).map(|n| format!("c{n} INT")).collect();
    ok(&engine, &format!("CREATE STREAM wide ({}) WITH (partitions = 1)", columns.join(", "))).await;
    assert_eq!(ok(&engine, "DESCRIBE wide").await, 1_005);
    let error = run(&engine, &format!("CREATE STREAM wider ({}, x INT) WITH (partitions = 1)", columns.join(", "))).await.unwrap_err();
    assert_eq!(error.to_string(), "wider has 1001 columns, allowed are 1000");
    let long = "x".repeat(65_536);
    assert!(matches!(run(&engine, &format!("CREATE STREAM {long} (a INT) WITH (partitions = 1)")).await, Err(QueryError::TooComplex(_))));
    assert!(matches!(run(&engine, "SELECT 'a\0b'").await, Err(QueryError::Invalid(_))));
    let error = run(&engine, "CREATE STREAM \"p\u{430}ge\" (a INT) WITH (partitions = 1)").await.unwrap_err();
    assert_eq!(error.to_string(), "p\u{430}ge is no name for a topic; name one with WITH (topic = '...')");
    ok(&engine, "CREATE STREAM \"p\u{430}ge\" (\"a b\" INT, \"A B\" INT) WITH (topic = 'page', partitions = 1)").await;
    ok(&engine, "INSERT INTO \"p\u{430}ge\" VALUES (1, 2)").await;
    assert_eq!(ok(&engine, "SELECT \"A B\" FROM \"p\u{430}ge\" WHERE \"a b\" = 1").await, 1);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_over_queries_end_at_a_depth() {
    let engine = engine();
    ok(&engine, "CREATE STREAM s0 (a INT) WITH (partitions = 1)").await;
    for level in 1..=32 {
        ok(&engine, &format!("CREATE STREAM s{level} AS SELECT a FROM s{}", level - 1)).await;
    }
    let error = run(&engine, "CREATE STREAM s33 AS SELECT a FROM s32").await.unwrap_err();
    assert_eq!(error.to_string(), "s32 is fed by 32 queries in a row, more are not allowed");
    let inserted = engine.execute(request("INSERT INTO s0 VALUES (7)")).await.unwrap().position;
    let mut rows = engine.execute(Request { at_least: Some(inserted), ..request("SELECT a FROM s32") }).await.unwrap().batches;
    assert_eq!(rows.next().await.unwrap().unwrap().num_rows(), 1);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_stop_every_change_is_refused() {
    let engine = with_stream().await;
    engine.stop().await;
    assert!(matches!(run(&engine, "INSERT INTO s VALUES (1, 'b')").await, Err(QueryError::Stopping)));
    assert!(matches!(run(&engine, "DROP STREAM s").await, Err(QueryError::Stopping)));
}

/// A thousand rows, and an engine with little memory for queries.
async fn small_engine() -> Engine {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(Timestamp::new(0)));
    let log: Arc<dyn LogBackend> = Arc::new(MemoryLog::new(Arc::clone(&clock)));
    let config = QueryConfig { workers: 1, memory_mib: 16, max_running_queries: 2, ..QueryConfig::default() };
    let engine = Engine::open(log, clock, config).unwrap();
    ok(&engine, "CREATE STREAM s (a INT, b VARCHAR) WITH (partitions = 1)").await;
    let rows: Vec<String> = (0..1_000).map(|n| format!("({n}, 'text number {n}')")).collect();
    ok(&engine, &format!("INSERT INTO s VALUES {}", rows.join(", "))).await;
    engine
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_needs_too_much_memory_is_refused_and_the_next_is_answered() {
    let engine = small_engine().await;
    for sql in [
        "SELECT x.a FROM s x CROSS JOIN s y CROSS JOIN s z CROSS JOIN s w ORDER BY x.b || y.b || z.b || w.b",
        "SELECT x.a * 1000 + y.a AS k, MAX(x.b) AS m, COUNT(*) AS n FROM s x CROSS JOIN s y GROUP BY x.a * 1000 + y.a",
        "SELECT x.b, ROW_NUMBER() OVER (PARTITION BY x.b ORDER BY y.b) FROM s x CROSS JOIN s y",
    ] {
        let error = run(&engine, sql).await.unwrap_err();
        assert!(matches!(error, QueryError::ResourceExhausted(_)), "{sql}: {error}");
        assert_eq!(ok(&engine, "SELECT a FROM s WHERE a < 10").await, 10);
    }
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_takes_too_long_is_ended_in_time() {
    let engine = small_engine().await;
    for sql in [
        "SELECT COUNT(*) FROM s x CROSS JOIN s y CROSS JOIN s z CROSS JOIN s w WHERE x.a + y.a + z.a + w.a < 0",
        "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT COUNT(*) FROM r",
        "WITH RECURSIVE r(n) AS (SELECT a FROM s UNION SELECT n + 1 FROM r) SELECT SUM(n) FROM r",
    ] {
        let limit = Duration::from_millis(300);
        let error = tokio::time::timeout(Duration::from_secs(20), async {
            let mut batches = engine.execute(Request { timeout: limit, ..request(sql) }).await?.batches;
            while let Some(batch) = batches.next().await {
                batch?;
            }
            Ok::<(), QueryError>(())
        });
        let error = error.await.unwrap_or_else(|_| panic!("{sql} was not ended")).unwrap_err();
        assert!(matches!(error, QueryError::Timeout { limit_ms: 300, .. } | QueryError::ResourceExhausted(_)), "{sql}: {error}");
        assert_eq!(ok(&engine, "SELECT a FROM s WHERE a < 10").await, 10);
    }
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patterns_cost_what_their_text_costs() {
    let engine = small_engine().await;
    // Beyond the engine's bound for one pattern: a value that failed, in a query and in what is folded.
    let greedy = "regexp_like(b, '((a{1000}){1000}){1000}')";
    assert_eq!(ok(&engine, &format!("SELECT {greedy} AS x FROM s WHERE a < 4 AND {greedy} IS NULL")).await, 4);
    ok(&engine, "CREATE STREAM matched AS SELECT regexp_like(b, '(' || b) AS x FROM s WHERE a < 3").await;
    let inserted = engine.execute(request("INSERT INTO s VALUES (1, 'again')")).await.unwrap().position;
    let mut batches =
        engine.execute(Request { at_least: Some(inserted), ..request("SELECT x FROM matched WHERE x IS NULL") }).await.unwrap().batches;
    assert_eq!(batches.next().await.unwrap().unwrap().num_rows(), 4);
    // Linear in the text, however often the pattern could be tried.
    assert_eq!(ok(&engine, "SELECT a FROM s WHERE regexp_like(b, '(t|te|x)*(n|nu)*(.*)*$') AND a < 10").await, 11);
    let like = "%t".repeat(10_000);
    assert_eq!(ok(&engine, &format!("SELECT a FROM s WHERE b LIKE '{like}'")).await, 0);
    let pattern = "(a|b)".repeat(200_000);
    assert!(matches!(run(&engine, &format!("SELECT regexp_like(b, '{pattern}') FROM s")).await, Err(QueryError::TooComplex(_))));
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_queries_at_once_the_excess_is_refused_at_once_and_the_rest_is_answered() {
    let engine = small_engine().await;
    let slow = "SELECT COUNT(*) AS n FROM s x CROSS JOIN s y";
    let all = futures::future::join_all((0..200).map(|_| run(&engine, slow))).await;
    let (answered, refused): (Vec<_>, Vec<_>) = all.into_iter().partition(Result::is_ok);
    // Two may run, and four may wait for each of them.
    assert!(answered.len() >= 10 && !refused.is_empty(), "{} answered", answered.len());
    assert!(refused.iter().all(|one| matches!(one, Err(QueryError::ResourceExhausted(_)))));
    assert_eq!(ok(&engine, slow).await, 1);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_stands_twice_is_refused_everywhere() {
    let engine = with_stream().await;
    for sql in [
        "SELECT a AS x, b AS x FROM s",
        "SELECT *, a FROM s",
        "CREATE STREAM t AS SELECT a AS x, b AS x FROM s",
        "CREATE STREAM t AS SELECT *, a FROM s",
    ] {
        let error = run(&engine, sql).await.unwrap_err();
        assert!(matches!(error.bare(), QueryError::Invalid(_)), "{sql}: {error:?}");
    }
    let push = engine.push(request("SELECT *, a FROM s EMIT CHANGES")).await.err();
    assert!(matches!(push.as_ref().map(QueryError::bare), Some(QueryError::Invalid(_))), "{push:?}");
    engine.stop().await;
}

/// One item, and so many more.
fn list(more: usize) -> String {
    format!("1{}", ", 1".repeat(more))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_may_be_as_large_as_its_bounds_and_no_larger() {
    let engine = engine();
    // What there may be most of, one more of it, and what is said of that.
    let text = |bytes: usize| format!("SELECT '{}'", "x".repeat(bytes - "SELECT ''".len()));
    // SELECT 1 IN ( 1 ... ) , 2 IN ( 1 ... ): twelve tokens and two for each further item.
    let tokens = |more: usize| format!("SELECT 1 IN ({}), 2 IN ({})", list(more), list(more));
    let brackets = |depth: usize| format!("SELECT {}1{}", "(".repeat(depth), ")".repeat(depth));
    let chain = |operators: usize| format!("SELECT true{}", " AND true".repeat(operators));
    let name = |bytes: usize| format!("SELECT 1 AS {}", "x".repeat(bytes));
    for (most, more, told) in [
        (text(256 << 10), text((256 << 10) + 1), "262145 bytes of text, allowed are 262144"),
        (tokens(4_997), format!("{} x", tokens(4_997)), "more than 20000 tokens"),
        (brackets(64), brackets(65), "more than 64 levels of nesting"),
        (chain(500), chain(501), "more than 500 operators in a row"),
        (name(1_024), name(1_025), "more than 1024 bytes in a name"),
    ] {
        assert_eq!(ok(&engine, &most).await, 1, "{told}");
        let error = run(&engine, &more).await.unwrap_err();
        assert!(matches!(&error, QueryError::TooComplex(reason) if reason == told), "{error:?}, expected: {told}");
    }
    let nested =
        |depth: usize| format!("CREATE STREAM s{depth} (a {}INT{}) WITH (partitions = 1)", "ARRAY<".repeat(depth), ">".repeat(depth));
    ok(&engine, &nested(63)).await;
    ok(&engine, "INSERT INTO s63 VALUES (NULL)").await;
    assert_eq!(ok(&engine, "SELECT a FROM s63").await, 1);
    // 63 arrays and what lies in the innermost one are 64 levels.
    let error = run(&engine, &nested(64)).await.unwrap_err();
    assert_eq!(error.to_string(), "the statement is too complex: more than 64 levels of nesting");
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_longest_chains_are_planned_while_somebody_waits() {
    let engine = with_stream().await;
    let chains: Vec<String> = (0..8).map(|of| format!("\"a\"{} AS c{of}", " + \"a\"".repeat(480 + of))).collect();
    let plain = format!("SELECT {} FROM \"s\"", chains.join(", "));
    let filtered =
        format!("SELECT \"a\" FROM \"s\" WHERE UPPER(CAST(\"a\" + 1{} AS VARCHAR)) > 'x' ORDER BY \"a\"", " + \"a\"".repeat(490));
    let numbers = (0..9_000).map(|number| number.to_string()).collect::<Vec<_>>().join(", ");
    // Literals, and what must be widened first.
    let listed =
        format!("SELECT \"a\" FROM \"s\" WHERE \"a\" + 1 IN ({numbers}) OR \"a\" IN (7e0, {}) ORDER BY \"a\"", "\"a\", ".repeat(99) + "8");
    let statements = [&plain, &filtered, &listed];
    for (dialect, statement) in [DialectKind::Standard, DialectKind::Ksql].into_iter().flat_map(|one| statements.map(|text| (one, text))) {
        // Where there is no function of that name.
        let statement = if dialect == DialectKind::Ksql { statement.replace("UPPER", "UCASE") } else { statement.clone() };
        let request = Request { session: Session::of(dialect), ..request(&statement) };
        let planned = tokio::time::timeout(Duration::from_secs(60), engine.execute(request)).await;
        assert!(matches!(planned, Ok(Ok(_))), "planning took too long in {dialect}, and cannot be interrupted");
    }
    engine.stop().await;
}
