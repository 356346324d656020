//! Stories of rows that are small and make large ones: queries go on, and write what they would have written in small steps.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use std::sync::Arc;

use common::{PATIENCE, append, json, read_all};
use foldlog_log::{
    EmbeddedLog, LogBackend, LogConfig, NewRecord, Timestamp,
    clock::{Clock, ManualClock},
    disk::RealDisk,
};
use foldlog_query::{Engine, PushItem, QueryConfig, QueryError, Request, Session, arrow::array::AsArray as _};
use futures::StreamExt as _;
use serde_json::{Value, json as value};

/// An engine over a log in a folder, with the limits that a real one has.
struct Place {
    folder: tempfile::TempDir,
    config: LogConfig,
    log: Arc<EmbeddedLog>,
    engine: Engine,
}

impl Place {
    fn new() -> Self {
        Self::with(LogConfig::default())
    }

    fn with(config: LogConfig) -> Self {
        Self::open(tempfile::tempdir().unwrap(), config)
    }

    fn open(folder: tempfile::TempDir, config: LogConfig) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(Timestamp::new(0)));
        let log =
            Arc::new(EmbeddedLog::open(Arc::new(RealDisk), Arc::clone(&clock), folder.path(), config.clone().without_reserve()).unwrap());
        let backend = Arc::clone(&log) as Arc<dyn LogBackend>;
        let engine = Engine::open(backend, clock, QueryConfig { workers: 1, ..QueryConfig::default() }).unwrap();
        Self { folder, config, log, engine }
    }

    async fn reopen(self) -> Self {
        self.engine.stop().await;
        self.log.stop();
        Self::open(self.folder, self.config)
    }

    /// The first column of the answer, as texts, once everything in the log shows in it.
    async fn run(&self, sql: &str) -> Result<Vec<String>, QueryError> {
        let request = Request { sql: sql.to_owned(), at_least: Some(self.log.head().position), ..request() };
        let mut batches = self.engine.execute(request).await?.batches;
        let mut rows = Vec::new();
        while let Some(batch) = batches.next().await {
            let texts = arrow::compute::cast(batch?.column(0), &arrow::datatypes::DataType::Utf8).unwrap();
            rows.extend(texts.as_string::<i32>().iter().map(|text| text.unwrap_or("NULL").to_owned()));
        }
        Ok(rows)
    }

    async fn ok(&self, sql: &str) -> Vec<String> {
        self.run(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Numbers of rows in the messages of a push query that ends.
    async fn heard(&self, sql: &str) -> Vec<usize> {
        let items = self.engine.push(Request { sql: sql.to_owned(), ..request() }).await.unwrap().items;
        let rows = |item: Result<PushItem, QueryError>| match item.unwrap() {
            PushItem::Changes { rows, .. } => rows.num_rows(),
            PushItem::Progress(_) => 0,
        };
        items.map(rows).collect().await
    }

    /// What a topic holds: keys, and values as JSON.
    fn written(&self, topic: &str) -> Vec<(Option<String>, Value)> {
        let texts = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let rows = read_all(self.log.as_ref(), &[topic]).into_iter();
        rows.map(|row| (row.key.map(texts), serde_json::from_slice(&row.value.unwrap()).unwrap())).collect()
    }
}

fn request() -> Request {
    Request { sql: String::new(), parameters: Vec::new(), at_least: None, resume: None, timeout: PATIENCE, session: Session::default() }
}

fn rows(numbers: impl Iterator<Item = usize>, text: impl Fn(usize) -> String) -> Vec<NewRecord> {
    numbers.map(|n| json(&value!({ "k": format!("k{n:03}"), "n": n, "s": text(n) }))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_rows_that_touch_many_large_groups_are_folded_in_several_units() {
    let place = Place::new();
    place.ok("CREATE STREAM facts (k VARCHAR, n BIGINT, s VARCHAR) WITH (partitions = 1)").await;
    place.ok("CREATE TABLE largest WITH (partitions = 1) AS SELECT k, MAX(s) AS s, COUNT(*) AS n FROM facts GROUP BY k").await;
    let large = |n: usize| format!("x{n}").repeat(30_000);
    for start in (0..200).step_by(50) {
        append(place.log.as_ref(), "facts", 0, rows(start..start + 50, large)).await;
    }
    place.ok("SELECT n FROM largest").await;
    let heard = place.heard("SELECT s FROM largest EMIT CHANGES LIMIT 200").await;
    assert!(heard.len() > 3 && heard.iter().all(|rows| *rows <= (4 << 20) / 60_000), "{heard:?} rows of 60 KB at once");
    // New groups among the old ones are taken back with them.
    append(place.log.as_ref(), "facts", 0, rows((0..250).rev(), |_| "a".to_owned())).await;
    let total = "SELECT SUM(n) || ' ' || SUM(length(s)) FROM largest";
    let bytes = (0..200).map(|n| large(n).len()).sum::<usize>() + 50;
    assert_eq!(place.ok(total).await, [format!("450 {bytes}")]);
    let row = |n: usize, count: usize| {
        let s = if n < 200 { large(n) } else { "a".to_owned() };
        (Some(format!("k{n:03}")), value!({ "S": s, "N": count }))
    };
    let lower = |(key, value): (Option<String>, Value)| {
        let fields = value.as_object().unwrap().iter().map(|(name, value)| (name.to_uppercase(), value.clone())).collect();
        (key, Value::Object(fields))
    };
    let expected: Vec<_> = (0..200).map(|n| row(n, 1)).chain((0..250).rev().map(|n| row(n, if n < 200 { 2 } else { 1 }))).collect();
    let written = place.written("largest").into_iter().map(lower).collect::<Vec<_>>();
    assert!(written == expected, "{} rows instead of {}", written.len(), expected.len());

    let place = place.reopen().await;
    assert_eq!(place.ok(total).await, [format!("450 {bytes}")]);
    append(place.log.as_ref(), "facts", 0, rows(0..250, |_| "a".to_owned())).await;
    assert_eq!(place.ok(total).await, [format!("700 {bytes}")]);
    let keys: Vec<_> = place.written("largest").into_iter().skip(450).map(|(key, _)| key.unwrap()).collect();
    assert_eq!(keys, (0..250).map(|n| format!("k{n:03}")).collect::<Vec<_>>());
    place.engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_rows_that_become_large_ones_are_written_in_several_units() {
    let small = LogConfig { first_journal_file_bytes: 1 << 20, journal_file_bytes: 8 << 20, ..LogConfig::default() };
    for config in [LogConfig::default(), small] {
        written_in_several_units(Place::with(config)).await;
    }
}

async fn written_in_several_units(place: Place) {
    place.ok("CREATE STREAM facts (k VARCHAR, n BIGINT, s VARCHAR) WITH (partitions = 1)").await;
    let longer = "b".repeat(1000);
    place.ok(&format!("CREATE STREAM long WITH (partitions = 1) AS SELECT n, replace(s, 'a', '{longer}') AS s FROM facts")).await;
    let mut expected = Vec::new();
    let mut place = place;
    for start in [0, 300] {
        append(place.log.as_ref(), "facts", 0, rows(start..start + 300, |_| "a".repeat(100))).await;
        expected.extend((start..start + 300).map(|n| (n.to_string(), 100_000)));
        assert_eq!(place.ok("SELECT COUNT(*) FROM long").await, [(start + 300).to_string()]);
        let size = |(_, value): (_, Value)| {
            let field =
                |name: &str| value.as_object().unwrap().iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).unwrap().1.clone();
            (field("n").to_string(), field("s").as_str().unwrap().len())
        };
        let written: Vec<_> = place.written("long").into_iter().map(size).collect();
        assert_eq!(written, expected);
        place = place.reopen().await;
    }
    place.engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_grows_too_large_is_null_in_views_and_pull_queries_alike() {
    let place = Place::new();
    place.ok("CREATE STREAM facts (k VARCHAR, n BIGINT, s VARCHAR) WITH (partitions = 1)").await;
    // What comes of 10 letters, and whether 600,000 are too many.
    let parts = [
        ("s || s", 20, true),
        ("concat(s, 'b', s)", 21, true),
        ("concat_ws(s, s, s)", 30, true),
        ("replace(s, 'a', s)", 100, true),
        ("replace(s, 'b', s)", 10, false),
        ("replace(s, 'aaaa', 'bbbbb')", 12, false),
        ("regexp_replace(s, 'a', s, 'g')", 100, true),
        ("regexp_replace(s, '(a*)', '\\1\\1\\1')", 30, true),
        ("regexp_replace(s, 'a', 'bb')", 11, false),
        ("replace(replace(upper(s), 'A', 'bb'), 'b', s)", 200, true),
        ("lower(s)", 10, false),
        ("COALESCE(s || s, '')", 20, true),
    ];
    let columns: Vec<_> = parts.iter().enumerate().map(|(at, (part, ..))| format!("length({part}) AS x{at}")).collect();
    place.ok(&format!("CREATE STREAM sizes WITH (partitions = 1) AS SELECT {} FROM facts", columns.join(", "))).await;
    append(place.log.as_ref(), "facts", 0, rows(0..2, |n| "a".repeat([10, 600_000][n]))).await;
    for (at, (part, small, too_large)) in parts.into_iter().enumerate() {
        let [first, second] = <[String; 2]>::try_from(place.ok(&format!("SELECT x{at} FROM sizes")).await).unwrap();
        assert_eq!(first, small.to_string(), "{part}");
        let is_empty = ["NULL", "0"].contains(&second.as_str());
        assert_eq!(is_empty, too_large, "{part}: {second}");
        assert_eq!(place.ok(&format!("SELECT length({part}) FROM facts")).await, [first, second], "{part}");
    }
    let said: Vec<String> = place.written("_foldlog.processing_log").into_iter().map(|(_, value)| value.to_string()).collect();
    for reason in ["the result of || is out of range, or larger than 1048576 bytes", "replace failed, or larger than 1048576 bytes"] {
        assert!(said.iter().any(|one| one.contains(reason)), "{said:?}");
    }
    // Large as it came, and no larger.
    append(place.log.as_ref(), "facts", 0, rows(2..3, |_| "A".repeat(2_000_000))).await;
    assert_eq!(place.ok("SELECT length(lower(s)) FROM facts WHERE n = 2").await, ["2000000"]);
    // Of constants alone.
    let longest = "a".repeat(100_000);
    assert_eq!(place.ok(&format!("SELECT replace('{longest}', 'a', '{longest}')")).await, ["NULL"]);
    place.engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_compare_too_much_is_null() {
    let place = Place::new();
    place.ok("CREATE STREAM facts (k VARCHAR, n BIGINT, s VARCHAR) WITH (partitions = 1)").await;
    let overlap = "array_has_any(string_to_array(s, '-'), string_to_array(s || 'b', '-'))";
    let columns = format!("levenshtein(s, s || 'b') AS far, {overlap} AS overlap");
    place.ok(&format!("CREATE STREAM compared WITH (partitions = 1) AS SELECT {columns} FROM facts")).await;
    append(place.log.as_ref(), "facts", 0, rows(0..2, |n| "a-".repeat([5, 10_000][n]))).await;
    for (column, small) in [("far", "1"), ("overlap", "true")] {
        assert_eq!(place.ok(&format!("SELECT {column} FROM compared")).await, [small, "NULL"]);
        assert_eq!(place.ok(&format!("SELECT {column} FROM (SELECT {columns} FROM facts)")).await, [small, "NULL"]);
    }
    let said: Vec<String> = place.written("_foldlog.processing_log").into_iter().map(|(_, value)| value.to_string()).collect();
    assert!(said.iter().any(|one| one.contains("levenshtein failed, or too long to be compared")), "{said:?}");
    place.engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_are_too_much_together_are_refused_to_a_pull_query_and_cut_by_a_view() {
    let place = Place::new();
    place.ok("CREATE STREAM facts (k VARCHAR, n BIGINT, s VARCHAR) WITH (partitions = 1)").await;
    let size = format!("length(replace(s, 'a', '{}'))", "b".repeat(1000));
    place.ok(&format!("CREATE TABLE sizes WITH (partitions = 1) AS SELECT k, MIN({size}) AS s FROM facts GROUP BY k")).await;
    append(place.log.as_ref(), "facts", 0, rows(0..2000, |_| "a".repeat(100))).await;
    assert_eq!(place.ok("SELECT COUNT(*) || ' ' || SUM(s) FROM sizes").await, ["2000 200000000"]);
    let refused = place.run(&format!("SELECT MIN({size}) FROM facts")).await;
    assert!(matches!(refused, Err(QueryError::ResourceExhausted(_))), "{refused:?}");
    assert_eq!(place.ok(&format!("SELECT MIN({size}) FROM facts WHERE n < 10")).await, ["100000"]);
    place.engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_of_large_rows_is_read_in_parts_that_there_is_room_for() {
    let place = Place::new();
    place.ok("CREATE STREAM facts (k VARCHAR, n BIGINT, s VARCHAR) WITH (partitions = 1)").await;
    let longer = "b".repeat(1000);
    place
        .ok(&format!("CREATE TABLE long WITH (partitions = 1) AS SELECT k, replace(MAX(s), 'a', '{longer}') AS s FROM facts GROUP BY k"))
        .await;
    append(place.log.as_ref(), "facts", 0, rows(0..700, |_| "a".repeat(100))).await;
    assert_eq!(place.ok("SELECT COUNT(s) FROM long").await, ["700"]);
    let heard = place.heard("SELECT s FROM long EMIT CHANGES LIMIT 700").await;
    assert_eq!(heard.iter().sum::<usize>(), 700);
    assert!(heard.iter().all(|rows| *rows <= 640), "{heard:?} rows of 100 KB at once");
    // All are folded in one step after a restart.
    let place = place.reopen().await;
    assert_eq!(place.ok("SELECT length(s) FROM long WHERE k = 'k007'").await, ["100000"]);
    place.engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_is_too_much_to_be_told_at_once_ends_its_listeners_and_not_its_query() {
    let place = Place::new();
    place.ok("CREATE STREAM facts (k VARCHAR, n BIGINT, s VARCHAR) WITH (partitions = 1)").await;
    let size = format!("length(replace(MAX(s), 'a', '{}'))", "b".repeat(50));
    place.ok(&format!("CREATE TABLE sizes WITH (partitions = 1) AS SELECT k, {size} AS size, COUNT(*) AS n FROM facts GROUP BY k")).await;
    for start in (0..700).step_by(350) {
        append(place.log.as_ref(), "facts", 0, rows(start..start + 350, |_| "a".repeat(2000))).await;
    }
    let total = "SELECT SUM(n) || ' ' || SUM(size) FROM sizes";
    assert_eq!(place.ok(total).await, ["700 70000000"]);
    let mut items = place.engine.push(Request { sql: "SELECT n FROM sizes EMIT CHANGES".to_owned(), ..request() }).await.unwrap().items;
    // Small rows that touch all groups: what is written is made of some of them at a time.
    append(place.log.as_ref(), "facts", 0, rows(0..700, |_| "a".to_owned())).await;
    let ended = loop {
        if let Err(fault) = items.next().await.unwrap() {
            break fault;
        }
    };
    assert!(matches!(ended, QueryError::ResourceExhausted(_)), "{ended}");
    assert_eq!(place.ok(total).await, ["1400 70000000"]);
    place.engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aggregates_that_collect_values_stay_within_the_memory_of_queries() {
    let place = Place::new();
    place.ok("CREATE STREAM facts (k VARCHAR, n BIGINT, s VARCHAR) WITH (partitions = 1)").await;
    append(place.log.as_ref(), "facts", 0, rows(0..3, |n| n.to_string())).await;
    assert_eq!(place.ok("SELECT string_agg(s, ', ' ORDER BY n DESC) FROM facts").await, ["2, 1, 0"]);
    assert_eq!(place.ok("SELECT array_to_string(array_agg(s ORDER BY n), '-') FROM facts").await, ["0-1-2"]);
    let long = "-".repeat(65);
    for expression in [
        format!("string_agg(s, '{long}')"),
        format!("string_agg(s, '{long}' || 'a')"),
        "string_agg(s, ',') OVER (ORDER BY n)".to_owned(),
        "array_agg(s) OVER (ORDER BY n)".to_owned(),
    ] {
        let refused = place.run(&format!("SELECT {expression} FROM facts")).await;
        assert!(matches!(refused.as_ref().map_err(QueryError::bare), Err(QueryError::Unsupported(_))), "{expression}: {refused:?}");
    }
    place.engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_results_are_written_in_as_many_units_as_they_need() {
    let place = Place::new();
    place.ok("CREATE STREAM facts (k VARCHAR, list ARRAY<INT>) WITH (partitions = 1)").await;
    place.ok("CREATE STREAM items WITH (partitions = 1) AS SELECT k, EXPLODE(list) AS item FROM facts").await;
    place.ok("CREATE TABLE keys WITH (partitions = 1) AS SELECT k, COUNT(*) AS n FROM facts GROUP BY k").await;
    let row = |key: &str, count: usize| json(&value!({ "k": key, "list": vec![7; count] }));
    // Together more records than a unit holds, and one row that makes too many for itself.
    append(place.log.as_ref(), "facts", 0, (0..5).map(|n| row(&format!("k{n}"), 60_000)).collect()).await;
    append(place.log.as_ref(), "facts", 0, vec![row("long", 300_000), row("short", 2)]).await;
    assert_eq!(
        place.ok("SELECT k || ' ' || COUNT(*) FROM items GROUP BY k ORDER BY k").await,
        ["k0 60000", "k1 60000", "k2 60000", "k3 60000", "k4 60000", "short 2"]
    );
    let said = || place.written("_foldlog.processing_log").into_iter().map(|(_, value)| value.to_string()).collect::<Vec<_>>();
    assert!(said().len() == 1 && said()[0].contains("the row makes 300000 records of "), "{:?}", said());
    // A step that takes no time has as many groups as it reads.
    for start in (0..150_000).step_by(10_000) {
        append(place.log.as_ref(), "facts", 0, (start..start + 10_000).map(|n| row(&n.to_string(), 1)).collect()).await;
    }
    assert_eq!(place.ok("SELECT CAST(SUM(n) AS VARCHAR) || ' of ' || COUNT(*) FROM keys").await, ["150007 of 150007"]);
    assert_eq!(place.ok("SELECT COUNT(*) FROM items").await, ["450002"]);
    // Little input whose rows would have gigabytes, with what stands beside them.
    place.ok("CREATE STREAM wide WITH (partitions = 1) AS SELECT k, EXPLODE(list) AS item, list FROM facts").await;
    place.ok("CREATE STREAM texts (list ARRAY<VARCHAR>) WITH (partitions = 1)").await;
    place.ok("CREATE STREAM cubes WITH (partitions = 1) AS SELECT CUBE_EXPLODE(list) AS some FROM texts").await;
    append(place.log.as_ref(), "texts", 0, vec![json(&value!({ "list": vec!["x".repeat(60_000); 16] })), json(&value!({ "list": ["y"] }))])
        .await;
    assert_eq!(place.ok("SELECT COUNT(*) FROM cubes").await, ["2"]);
    assert_eq!(place.ok("SELECT COUNT(*) FROM wide WHERE k = 'short' OR k = '7'").await, ["3"]);
    assert!(said().iter().any(|one| one.contains("65536 choices of these values would have more than")), "{:?}", said());
    assert!(said().iter().any(|one| one.contains("60000 rows with the columns beside them would have more than")), "{:?}", said());
    place.engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_there_is_just_room_for_is_made() {
    let place = Place::new();
    place.ok("CREATE STREAM facts (k VARCHAR, n BIGINT, s VARCHAR) WITH (partitions = 1)").await;
    place.ok("CREATE STREAM doubled WITH (partitions = 1) AS SELECT n, length(s || s) AS size FROM facts").await;
    // Two halves of 1 MiB, and one byte more in each.
    append(place.log.as_ref(), "facts", 0, rows(0..2, |n| "a".repeat((1 << 19) + n))).await;
    assert_eq!(place.ok("SELECT size FROM doubled ORDER BY n").await, ["1048576", "NULL"]);
    assert_eq!(place.ok("SELECT length(s || s) FROM facts ORDER BY n").await, ["1048576", "NULL"]);
    // 64 Mi pairs of bytes, and 8 Ki more.
    let far = |one: usize, other: usize| format!("SELECT levenshtein('{}', '{}')", "a".repeat(one), "b".repeat(other));
    assert_eq!(place.ok(&far(8_192, 8_192)).await, ["8192"]);
    assert_eq!(place.ok(&far(8_192, 8_193)).await, ["NULL"]);
    // A delimiter of 64 bytes; another test has one of 65.
    let delimiter = "-".repeat(64);
    assert_eq!(place.ok(&format!("SELECT length(string_agg(k, '{delimiter}')) FROM facts")).await, ["72"]);
    place.engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_no_record_has_room_for_is_not_written_and_told() {
    let place = Place::new();
    place.ok("CREATE STREAM facts (k VARCHAR, n BIGINT, s VARCHAR) WITH (partitions = 1)").await;
    place.ok("CREATE STREAM twice WITH (partitions = 1) AS SELECT n, s AS a, s AS b FROM facts").await;
    place.ok("CREATE TABLE largest WITH (partitions = 1) AS SELECT k, MAX(s) AS a, MIN(s) AS b FROM facts GROUP BY k").await;
    // Together below and above 4 MiB.
    for (n, size) in [(0, 2_000_000), (1, 2_200_000), (2, 5)] {
        append(place.log.as_ref(), "facts", 0, rows(n..n + 1, |_| "a".repeat(size))).await;
    }
    assert_eq!(place.ok("SELECT n || ' ' || length(a) FROM twice").await, ["0 2000000", "2 5"]);
    assert_eq!(place.ok("SELECT k || ' ' || length(a) FROM largest ORDER BY k").await, ["k000 2000000", "k001 2200000", "k002 5"]);
    let written: Vec<_> = place.written("largest").into_iter().map(|(key, _)| key.unwrap()).collect();
    assert_eq!(written, ["k000", "k002"]);
    let said: Vec<String> = place.written("_foldlog.processing_log").into_iter().map(|(_, value)| value.to_string()).collect();
    assert_eq!(said.iter().filter(|one| one.contains("bytes, a record may have 4194304; it was not written")).count(), 2, "{said:?}");
    place.engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_may_make_as_many_records_as_an_append_has_room_for() {
    let place = Place::new();
    place.ok("CREATE STREAM facts (k VARCHAR, list ARRAY<INT>) WITH (partitions = 1)").await;
    place.ok("CREATE STREAM items WITH (partitions = 1) AS SELECT k, EXPLODE(list) AS item FROM facts").await;
    let row = |key: &str, count: usize| json(&value!({ "k": key, "list": vec![7; count] }));
    append(place.log.as_ref(), "facts", 0, vec![row("all", 262_080), row("more", 262_081), row("one", 1)]).await;
    let counts = place.ok("SELECT k || ' ' || COUNT(*) FROM items GROUP BY k ORDER BY k").await;
    let said: Vec<String> = place.written("_foldlog.processing_log").into_iter().map(|(_, value)| value.to_string()).collect();
    assert_eq!(counts, ["all 262080", "one 1"], "{said:?}");
    assert!(said.len() == 1 && said[0].contains("the row makes 262081 records of "), "{said:?}");
    place.engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_keeps_more_than_there_is_room_for_stops_its_query() {
    let place = Place::new();
    place.ok("CREATE STREAM facts (k VARCHAR, n BIGINT, s VARCHAR) WITH (partitions = 1)").await;
    place.ok("CREATE TABLE lists WITH (partitions = 1) AS SELECT n % 1 AS all, COLLECT_LIST(s) AS list FROM facts GROUP BY n % 1").await;
    place.ok("CREATE TABLE counts WITH (partitions = 1) AS SELECT n % 1 AS all, COUNT(*) AS n FROM facts GROUP BY n % 1").await;
    // 16,000,000 bytes fit, and with them 1,000,000 more do not.
    for start in (0..160).step_by(40) {
        append(place.log.as_ref(), "facts", 0, rows(start..start + 40, |_| "a".repeat(100_000))).await;
    }
    assert_eq!(place.ok("SELECT cardinality(list) FROM lists").await, ["160"]);
    append(place.log.as_ref(), "facts", 0, rows(160..170, |_| "a".repeat(100_000))).await;
    let stopped = place.run("SELECT cardinality(list) FROM lists").await.unwrap_err().to_string();
    assert!(stopped.contains("bytes of values for one aggregate, 16777215 are allowed"), "{stopped}");
    assert_eq!(place.ok("SELECT n FROM counts").await, ["170"]);
    place.engine.stop().await;
}
