//! Bounded queries: whole SQL over views, streams, tables and topics, read at one position and within budgets.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;
#[path = "common/shop.rs"]
mod shop;

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arrow::datatypes::DataType;
use foldlog_log::{EmbeddedLog, LogBackend, NewRecord, Position, TopicKind, clock::SystemClock, testing::MemoryLog};
use foldlog_query::{
    DialectKind, Engine, Place, QueryConfig, QueryError, Request, ScalarValue, Session, SessionChange,
    catalog::{CATALOG_TOPIC, Change, QueryDef, Source},
};
use shop::{Shop, in_time, lines_of, request, with_parameters};
use tokio::sync::watch;

async fn small_shop() -> Shop {
    let shop = Shop::open().await;
    shop.customer("ann", Some(r#"{"city":"Bonn"}"#)).await;
    shop.customer("bob", Some(r#"{"city":"Rome"}"#)).await;
    shop.order("ann", &[("tea", 3), ("pen", 4)]).await;
    shop.order("bob", &[("tea", 10)]).await;
    shop.order("cyd", &[("ink", 1)]).await;
    shop.order("ann", &[("tea", 5)]).await;
    shop
}

#[tokio::test(flavor = "multi_thread")]
async fn joins_ctes_subqueries_and_windows_work_over_views_tables_and_streams() {
    let shop = small_shop().await;
    let rows = shop
        .settled(
            "WITH rich AS (SELECT customer, total FROM totals WHERE total >= 10)
             SELECT r.customer, c.city, r.total, RANK() OVER (ORDER BY r.total DESC) AS place,
                    (SELECT COUNT(*) FROM orders o WHERE o.stream = r.customer) AS orders
             FROM rich r LEFT JOIN customers c ON c.name = r.customer ORDER BY r.total DESC",
        )
        .await;
    assert_eq!(rows, ["ann|Bonn|12|1|3", "bob|Rome|10|2|1"]);
    let rows = shop
        .settled("SELECT item, SUM(amount), MAX(rowtime) > TIMESTAMP '2000-01-01' FROM orders GROUP BY item ORDER BY 1 LIMIT 2 OFFSET 1")
        .await;
    assert_eq!(rows, ["pen|4|true", "tea|18|true"]);
    let rows = shop.settled("SELECT customer FROM totals WHERE n = 1 UNION ALL SELECT item FROM items WHERE total = 1 ORDER BY 1").await;
    assert_eq!(rows, ["bob", "cyd", "ink"]);
}

/// An engine whose catalog holds a query that cannot be started.
async fn engine_with_broken(source: Arc<Source>, sql: &str) -> Engine {
    let log = Arc::new(MemoryLog::new(Arc::new(SystemClock::new())));
    common::create(&*log, &source.name, source.topic_kind, 1);
    common::create(&*log, CATALOG_TOPIC, TopicKind::Records, 1);
    let query = Some(Arc::new(QueryDef { sql: sql.to_owned(), ..common::definition(&source.name) }));
    let value = Change::Create { source, query }.encode().unwrap();
    common::append(&*log, CATALOG_TOPIC, 0, vec![NewRecord { value: Some(value.into()), ..NewRecord::default() }]).await;
    Engine::open(log, Arc::new(SystemClock::new()), QueryConfig::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_whose_query_does_not_run_is_not_answered_from_its_topic() {
    let source = common::table("v", vec![common::column("k", DataType::Utf8, true), common::column("n", DataType::Int64, false)]);
    let engine = engine_with_broken(source, "CREATE TABLE v AS SELECT k, COUNT(*) AS n FROM nowhere GROUP BY k").await;
    let expected = "v cannot be read at a common position: its query does not run (SHOW QUERIES says why); retry later";
    for sql in ["SELECT * FROM v", "SELECT n FROM v WHERE k = 'a'"] {
        let fault = engine.execute(request(sql)).await.err().map(|fault| fault.to_string());
        assert_eq!(fault.as_deref(), Some(expected), "{sql}");
    }
    let fault = engine.push(request("SELECT * FROM v EMIT CHANGES")).await.err().map(|fault| fault.to_string());
    assert_eq!(fault.as_deref(), Some(expected));
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_folded_from_a_stream_whose_query_does_not_run() {
    // It would claim to have folded what never got there.
    let engine = engine_with_broken(common::copied("copy").1, "CREATE STREAM copy AS SELECT * FROM nowhere").await;
    let expected = "copy cannot be read at a common position: its query does not run (SHOW QUERIES says why); retry later";
    let counts = "SELECT k, COUNT(*) AS n FROM copy GROUP BY k";
    let fault = engine.execute(request(&format!("CREATE TABLE v AS {counts}"))).await.err().map(|fault| fault.to_string());
    assert_eq!(fault.as_deref(), Some(expected));
    let fault = engine.push(request(&format!("{counts} EMIT CHANGES"))).await.err().map(|fault| fault.to_string());
    assert_eq!(fault.as_deref(), Some(expected));
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_star_gives_what_was_declared_and_a_bare_topic_gives_all_it_has() {
    let shop = small_shop().await;
    assert_eq!(shop.settled("SELECT * FROM orders LIMIT 1").await, ["tea|3"]);
    assert_eq!(shop.settled("SELECT *, version, stream FROM orders WHERE stream = 'ann' LIMIT 2").await, ["tea|3|1|ann", "pen|4|2|ann"]);
    assert_eq!(shop.settled("SELECT * FROM totals WHERE customer = 'bob'").await, ["bob|1|10"]);
    assert_eq!(shop.settled("SELECT * FROM totals WHERE n > 1").await, ["ann|2|12"].map(|row| row.replace("|2|", "|3|")));
    shop.log.create_topic("raw.events".parse().unwrap(), foldlog_log::TopicSettings::new(foldlog_log::TopicKind::Records, 1)).unwrap();
    let record = foldlog_log::NewRecord { value: Some("no json".into()), ..foldlog_log::NewRecord::default() };
    common::append(&*shop.log, "raw.events", 0, vec![record]).await;
    assert_eq!(shop.settled("SELECT data, rowpartition, rowoffset FROM \"raw.events\"").await, ["no json|0|0"]);
    let refusal = shop.refusal("SELECT * FROM raw.events").await;
    assert_eq!(refusal, "stream or table raw.events does not exist; did you mean \"raw.events\" (quoted, if that is a topic)?");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_in_one_query_is_read_at_one_position() {
    let shop = std::sync::Arc::new(Shop::open().await);
    let writer = {
        let shop = std::sync::Arc::clone(&shop);
        async move {
            for number in 0..300_i64 {
                let item = format!("item{}", number % 7);
                shop.order(&format!("c{}", number % 11), &[(&item, 1), ("tea", number)]).await;
                tokio::task::yield_now().await;
            }
        }
    };
    let reader = async {
        let mut totals = Vec::new();
        while totals.last() != Some(&(300 + 300 * 299 / 2)) {
            let rows = shop
                .execute(
                    "SELECT COALESCE((SELECT SUM(total) FROM totals), 0), COALESCE((SELECT SUM(total) FROM items), 0),
                            COALESCE((SELECT SUM(amount) FROM orders), 0)",
                )
                .await;
            let sums: Vec<i64> = rows[0].split('|').map(|sum| sum.parse().unwrap()).collect();
            assert!(sums.iter().all(|sum| *sum == sums[0]), "after {} reads: {sums:?}", totals.len());
            totals.push(sums[0]);
        }
        totals
    };
    let (totals, ()) = tokio::join!(reader, writer);
    assert!(totals.is_sorted());
    totals.iter().for_each(|total| assert!(*total >= 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_queries_write_is_read_at_the_position_of_the_views_beside_it() {
    let shop = Shop::open().await;
    for statement in [
        "CREATE STREAM copies AS SELECT item, amount FROM orders",
        "CREATE STREAM again (item VARCHAR, amount BIGINT) WITH (topic = 'copies')",
        "CREATE TABLE copied AS SELECT item, COUNT(*) AS n FROM copies GROUP BY item",
        "CREATE TABLE copied_again AS SELECT item, COUNT(*) AS n FROM again GROUP BY item",
    ] {
        shop.execute(statement).await;
    }
    let counts = [
        "COUNT(*) FROM copies",
        "COUNT(*) FROM again",
        "COALESCE(SUM(n), 0) FROM copied",
        "COALESCE(SUM(n), 0) FROM copied_again",
        "COUNT(*) FROM orders",
    ];
    let pairs: Vec<(&str, &str)> =
        counts.iter().enumerate().flat_map(|(place, one)| counts[..place].iter().map(|other| (*one, *other))).collect();
    let over = AtomicBool::new(false);
    let (ends, mut appended) = watch::channel(Position::default());
    let writing = async {
        let mut ahead = VecDeque::new();
        while !over.load(Ordering::Acquire) {
            let end = shop.order("ann", &[("tea", 1), ("pen", 1), ("ink", 1)]).await.end;
            ends.send_replace(end);
            // The writer stays a few appends ahead, so that how long this takes does not depend on the machine.
            ahead.push_back(end);
            if ahead.len() > 8 {
                let lookup = request("SELECT n FROM copied_again WHERE item = 'tea'");
                drop(shop.ask(Request { at_least: ahead.pop_front(), ..lookup }).await.unwrap());
            }
        }
    };
    let reading = async {
        appended.changed().await.unwrap();
        for round in 0..4 {
            for (one, other) in &pairs {
                let token = (round % 2 == 1).then(|| *appended.borrow());
                let sql = format!("SELECT (SELECT {one}) AS one, (SELECT {other}) AS other");
                let answer = shop.ask(Request { at_least: token, ..request(&sql) }).await.unwrap();
                assert!(token.is_none_or(|token| answer.position >= token), "{sql}");
                let rows = lines_of(answer).await.unwrap();
                let (one, other) = rows[0].split_once('|').unwrap();
                assert_eq!(one, other, "{sql}, round {round}");
            }
        }
        over.store(true, Ordering::Release);
    };
    tokio::join!(writing, reading);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lookup_answers_as_the_plan_does() {
    let shop = small_shop().await;
    for columns in ["*", "total", "customer, n", "total AS sum, customer AS who"] {
        for key in ["ann", "bob", "nobody"] {
            let direct = format!("SELECT {columns} FROM totals WHERE customer = '{key}'");
            let planned = format!("SELECT {columns} FROM totals WHERE customer || '' = '{key}'");
            assert_eq!(shop.settled(&direct).await, shop.settled(&planned).await, "{direct}");
            assert!(shop.execute(&format!("EXPLAIN {direct}")).await[0].starts_with("Lookup: view totals"), "{direct}");
            assert!(!shop.execute(&format!("EXPLAIN {planned}")).await[0].starts_with("Lookup"), "{planned}");
        }
    }
    for (keys, rows) in [
        ("'bob', 'ann'", vec!["bob|10", "ann|12"]),
        ("'ann', 'nobody', 'ann'", vec!["ann|12"]),
        ("'nobody'", vec![]),
        ("'o''neil', 'ann'", vec!["ann|12"]),
    ] {
        let direct = format!("SELECT customer, total FROM totals WHERE customer IN ({keys})");
        // The first is parsed, the second is known.
        assert_eq!(shop.execute(&direct).await, rows, "{direct}");
        assert_eq!(shop.execute(&direct).await, rows, "{direct}");
        assert!(shop.execute(&format!("EXPLAIN {direct}")).await[0].starts_with("Lookup: view totals"), "{direct}");
    }
    for planned in
        ["customer NOT IN ('ann', 'cyd')", "customer IN ('bob', NULL)", "customer IN ('bob') AND n > 0", "customer IN ('bob', 'a' || 'b')"]
    {
        let planned = format!("SELECT customer, total FROM totals WHERE {planned}");
        assert_eq!(shop.execute(&planned).await, ["bob|10"], "{planned}");
        assert!(!shop.execute(&format!("EXPLAIN {planned}")).await[0].starts_with("Lookup"), "{planned}");
    }
    let answer =
        shop.ask(with_parameters("SELECT total, customer FROM totals WHERE $1 = customer", vec![ScalarValue::from("bob")])).await.unwrap();
    assert_eq!(answer.keys, [1]);
    assert_eq!(answer.schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>(), ["total", "customer"]);
    assert_eq!(lines_of(answer).await.unwrap(), ["10|bob"]);
    let refusal = shop.refusal("SELECT totl FROM totals WHERE customer = 'ann'").await;
    assert_eq!(refusal, "column totl does not exist; did you mean total?");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lookup_that_is_known_answers_as_the_first_one_did() {
    let shop = small_shop().await;
    shop.order("o'neil", &[("tea", 7)]).await;
    assert_eq!(shop.settled("SELECT n, total AS sum FROM totals WHERE customer = 'ann'").await, ["3|12"]);
    for (customer, rows) in
        [("bob", vec!["1|10"]), ("o''neil", vec!["1|7"]), ("nobody", vec![]), ("ann'' OR ''a''=''a", vec![]), ("", vec![])]
    {
        assert_eq!(shop.execute(&format!("SELECT n, total AS sum FROM totals WHERE customer = '{customer}'")).await, rows, "{customer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_lookup_waits_for_its_token_and_takes_parameters_of_any_type() {
    let shop = small_shop().await;
    let sql = "SELECT total FROM items WHERE item = $1";
    let text = |text: &str| ScalarValue::Utf8(Some(text.to_owned()));
    assert_eq!(shop.settled("SELECT total FROM items WHERE item = 'tea'").await, ["18"]);
    for number in 0..50 {
        let appended = shop.order("ann", &[("tea", 1)]).await;
        let asked = Request { at_least: Some(appended.end), ..with_parameters(sql, vec![text("tea")]) };
        let answer = shop.ask(asked).await.unwrap();
        assert!(answer.position >= appended.end);
        assert_eq!(lines_of(answer).await.unwrap(), [(19 + number).to_string()]);
    }
    // No key of the view's type: planned, which compares what it cannot look up.
    shop.order("ann", &[("007", 1), ("7", 2), ("true", 4)]).await;
    shop.settled("SELECT COUNT(*) FROM items").await;
    for odd in [ScalarValue::Null, ScalarValue::Utf8(None), ScalarValue::from(7_i64), ScalarValue::from(7.0), ScalarValue::from(true)] {
        let rows = async |sql| match shop.ask(with_parameters(sql, vec![odd.clone()])).await {
            Ok(answer) => lines_of(answer).await.map_err(|fault| fault.to_string()),
            Err(fault) => Err(fault.to_string()),
        };
        assert_eq!(rows(sql).await, rows("SELECT total FROM items WHERE item || '' = $1").await, "{odd:?}");
    }
    assert_eq!(lines_of(shop.ask(with_parameters(sql, vec![text("pen")])).await.unwrap()).await.unwrap(), ["4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_lookup_forgets_what_a_name_meant_before() {
    let shop = small_shop().await;
    let sql = "SELECT * FROM best WHERE item = 'tea'";
    for (create, row) in [
        ("CREATE TABLE best AS SELECT item, MAX(amount) AS most FROM orders GROUP BY item", "tea|10"),
        ("CREATE TABLE best AS SELECT item, MIN(amount) AS least, COUNT(*) AS n FROM orders GROUP BY item", "tea|3|3"),
    ] {
        shop.execute(create).await;
        for _ in 0..3 {
            assert_eq!(shop.settled(sql).await, [row]);
        }
        shop.execute("DROP TABLE best").await;
        // The topic of that name is still there, without columns.
        assert!(shop.refusal(sql).await.contains("item"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_a_view_become_lookups_and_filters_of_a_topic_narrow_the_read() {
    let shop = small_shop().await;
    let explained = |rows: Vec<String>| rows.join("\n");
    let plan = explained(shop.settled("EXPLAIN SELECT n FROM totals WHERE customer IN ('ann', 'cyd', 'ann', 'eve') AND n > 0").await);
    assert!(plan.contains("Scan: view totals, lookup of 3 keys"), "{plan}");
    assert_eq!(
        shop.settled("SELECT customer, n FROM totals WHERE customer IN ('ann', 'cyd', 'ann', 'eve') AND n > 0 ORDER BY 1").await,
        ["ann|3", "cyd|1"]
    );
    assert!(shop.settled("SELECT n FROM totals WHERE customer = 'ann' AND customer = 'bob' AND n > 0").await.is_empty());
    let plan = explained(shop.settled("EXPLAIN SELECT n FROM totals WHERE n > 2").await);
    assert!(plan.contains("Scan: view totals, all rows"), "{plan}");

    let plan = explained(shop.settled("EXPLAIN SELECT item FROM orders WHERE stream = 'ann' AND amount > 3").await);
    assert!(plan.contains("Scan: topic orders, stream \"ann\""), "{plan}");
    assert_eq!(shop.settled("SELECT item, version FROM orders WHERE stream = 'ann' AND amount > 3").await, ["pen|2", "tea|3"]);
    assert!(shop.settled("SELECT item FROM orders WHERE stream = 'no such'").await.is_empty());
    let all = shop.settled("SELECT position, item FROM orders").await;
    let middle: i64 = all[2].split('|').next().unwrap().parse().unwrap();
    let sql = format!("SELECT position, item FROM orders WHERE position >= {middle} AND position < {}", middle + 1);
    let plan = explained(shop.settled(&format!("EXPLAIN {sql}")).await);
    assert!(plan.contains(&format!("from position {middle}, up to position {}", middle + 1)), "{plan}");
    assert_eq!(shop.settled(&sql).await, all[2..3]);
    for partition in 0..3 {
        let whole = shop.settled(&format!("SELECT rowoffset, item FROM orders WHERE rowpartition = {partition}")).await;
        let later = shop.settled(&format!("SELECT rowoffset, item FROM orders WHERE rowpartition = {partition} AND rowoffset >= 1")).await;
        assert_eq!(later, whole.get(1..).unwrap_or_default());
    }
    assert!(shop.settled("SELECT item FROM orders WHERE rowpartition = 9").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn expressions_of_ksql_hide_neither_keys_nor_joins() {
    let shop = small_shop().await;
    shop.settled("SELECT 1").await;
    let ask = async |sql: &str| {
        let request = Request { session: Session::of(DialectKind::Ksql), ..request(sql) };
        lines_of(shop.ask(request).await.unwrap()).await.unwrap()
    };
    let keys = r#"SELECT "customer", "n" + 1 AS N FROM "totals" WHERE ("customer" IN ('ann', 'eve') OR "customer" = 'cyd') AND "n" + 1 > 0 ORDER BY N"#;
    let plan = ask(&format!("EXPLAIN {keys}")).await.join("\n");
    assert!(plan.contains("Scan: view totals, lookup of 3 keys"), "{plan}");
    assert_eq!(ask(keys).await, ["cyd|2", "ann|4"]);
    let places = r#"SELECT "item" FROM "orders" WHERE "position" >= 3 AND "position" < 4 AND ROWPARTITION + 0 >= 0 ORDER BY "item""#;
    let plan = ask(&format!("EXPLAIN {places}")).await.join("\n");
    assert!(plan.contains("from position 3, up to position 4"), "{plan}");
    let joined = r#"SELECT T."n" * 2, UCASE(C."city") FROM "totals" T JOIN "customers" C ON T."customer" = C."name" AND T."n" > 0 WHERE UCASE(C."city") <> 'X' ORDER BY T."n""#;
    let plan = ask(&format!("EXPLAIN {joined}")).await.join("\n");
    assert!(plan.contains("HashJoinExec"), "{plan}");
    assert_eq!(ask(joined).await, ["2|ROME", "6|BONN"]);
    let listed = r#"SELECT B."n" FROM "totals" A, "totals" B WHERE UCASE(A."customer") = UCASE(B."customer") AND A."customer" = 'cyd'"#;
    let plan = ask(&format!("EXPLAIN {listed}")).await.join("\n");
    assert!(plan.contains("HashJoinExec") && plan.contains("UCASE(_)"), "{plan}");
    assert_eq!(ask(listed).await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_table_is_the_newest_row_of_each_key() {
    let shop = small_shop().await;
    shop.customer("ann", Some(r#"{"city":"Oslo"}"#)).await;
    shop.customer("bob", None).await;
    shop.customer("dan", Some(r#"{"city":"Graz"}"#)).await;
    shop.customer("dan", Some("this is no JSON")).await;
    let rows = shop.settled("SELECT name, city FROM customers ORDER BY name").await;
    assert_eq!(rows, ["ann|Oslo", "dan|Graz"]);
    assert_eq!(shop.settled("SELECT COUNT(*) FROM customers WHERE name = 'bob'").await, ["0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_json_key_is_the_same_however_it_is_written() {
    let shop = Shop::open().await;
    shop.execute("CREATE TABLE stock (shop VARCHAR PRIMARY KEY, item BIGINT PRIMARY KEY, n BIGINT) WITH (topic = 'stock', partitions = 1)")
        .await;
    let record = |key: &'static str, value: Option<&'static str>| NewRecord {
        key: Some(key.into()),
        value: value.map(Into::into),
        ..NewRecord::default()
    };
    let records = vec![
        record(r#"{"shop":"a","item":1}"#, Some(r#"{"n":1}"#)),
        record(r#"{ "item": 1, "shop": "\u0061" }"#, Some(r#"{"n":2}"#)),
        record(r#"{"shop":"b","item":1}"#, Some(r#"{"n":3}"#)),
        record(r#"{"SHOP":"b","item":1,"more":[]}"#, None),
        record(r#"{"shop":"b","item":2}"#, Some(r#"{"n":4}"#)),
        // What cannot be read is NULL, in a key, too; and where nothing can there is no key.
        record(r#"{"shop":"c"}"#, Some(r#"{"n":5}"#)),
        record(r#"{"shop":"c","item":"x"}"#, Some(r#"{"n":6}"#)),
        record(r#"{"shop":null,"item":null}"#, Some(r#"{"n":7}"#)),
        record("no JSON", Some(r#"{"n":8}"#)),
    ];
    common::append(&*shop.log, "stock", 0, records).await;
    assert_eq!(shop.settled("SELECT shop, item, n FROM stock ORDER BY n").await, ["a|1|2", "b|2|4", "c|-|6"]);
    // A query that folds the table tells keys apart in the same way.
    shop.execute("CREATE TABLE folded AS SELECT shop, item, n FROM stock").await;
    assert_eq!(shop.settled("SELECT shop, item, n FROM folded ORDER BY n").await, ["a|1|2", "b|2|4", "c|-|6"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_with_the_token_of_an_append_sees_it() {
    let shop = Shop::open().await;
    for number in 1..=100_i64 {
        let appended = shop.order("ann", &[("tea", 1)]).await;
        for sql in ["SELECT n FROM totals WHERE customer = 'ann'", "SELECT MAX(n) FROM totals", "SELECT COUNT(*) FROM orders"] {
            let answer = shop.ask(Request { at_least: Some(appended.end), ..request(sql) }).await.unwrap();
            assert!(answer.position >= appended.end);
            assert_eq!(lines_of(answer).await.unwrap(), [number.to_string()], "{sql}");
        }
    }
    let wanted = shop.log.head().position.plus(1_000_000);
    let impatient = Request { at_least: Some(wanted), ..in_time("SELECT COUNT(*) FROM orders", Duration::from_millis(50)) };
    assert!(matches!(shop.ask(impatient).await, Err(QueryError::NotYet { wanted: asked, .. }) if asked == wanted));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_query_of_ours_is_refused() {
    let shop = small_shop().await;
    for sql in [
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "COPY totals TO 'file.csv'",
        "SELECT * FROM 'file.csv'",
        "SELECT * FROM \"/etc/passwd\"",
        "SELECT * FROM information_schema.tables",
        "SET datafusion.execution.batch_size = 1",
        "SELECT * INTO copied FROM totals",
        "SELECT repeat('x', 1000000000)",
        "SELECT space(1000000000)",
        "SELECT * FROM generate_series(1, 1000000000000)",
        "SELECT array_repeat(1, 1000000000)",
        "SELECT customer FROM totals WHERE nothing = 1",
        "SELECT SUM(customer) OVER (ROWS 1) FROM totals",
    ] {
        let refusal = shop.refusal(sql).await;
        assert!(!refusal.is_empty() && !refusal.contains("panic"), "{sql}: {refusal}");
    }
    for (sql, line, column) in [
        ("SELECT n,\n  totl FROM totals", 2, 3),
        ("SELECT n FROM total", 1, 15),
        ("SELECT uper(customer) FROM totals", 1, 8),
        ("DROP TABLE total", 1, 12),
    ] {
        let Err(QueryError::Unknown { place, .. }) = shop.ask(request(sql)).await else { panic!("{sql}") };
        assert_eq!(place, Some(Place { line, column }), "{sql}");
    }
    let refusal = shop.refusal("SELECT 1 FROM total").await;
    assert!(refusal.contains("did you mean totals?"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_stays_within_its_budgets() {
    let config = QueryConfig { max_answer_rows: 1_000, memory_mib: 16, max_running_queries: 1, ..QueryConfig::default() };
    let shop = Shop::with(config).await;
    for customer in 0..200 {
        shop.order(&format!("c{customer}"), &[("tea", 1); 5]).await;
    }
    assert_eq!(
        shop.refusal("SELECT a.item FROM orders a CROSS JOIN orders b").await,
        "the answer has more than 1000 rows; add a LIMIT or a filter"
    );
    let endless = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT COUNT(*) FROM r";
    let request = in_time(endless, Duration::from_millis(300));
    let slow = match shop.ask(request).await {
        Err(fault) => fault,
        Ok(answer) => lines_of(answer).await.unwrap_err(),
    };
    assert!(matches!(slow, QueryError::Timeout { limit_ms: 300, .. }), "{slow}");
    let greedy = shop.refusal("SELECT a.item, b.item FROM orders a CROSS JOIN orders b ORDER BY a.position + b.position").await;
    assert!(greedy.starts_with("the query needs more memory than queries may have"), "{greedy}");
    assert_eq!(shop.execute("SELECT COUNT(*) FROM orders").await, ["1000"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_drops_an_answer_ends_its_query() {
    let shop = Shop::with(QueryConfig { max_running_queries: 1, ..QueryConfig::default() }).await;
    for customer in 0..200 {
        shop.order(&format!("c{customer}"), &[("tea", 1); 10]).await;
    }
    let endless = "SELECT a.item FROM orders a CROSS JOIN orders b CROSS JOIN orders c";
    for _ in 0..5 {
        let answer = shop.ask(request(endless)).await.unwrap();
        // It holds the only place until it is dropped.
        let waiting = shop.ask(in_time("SELECT COUNT(*) FROM orders", Duration::from_millis(50))).await;
        assert!(matches!(waiting, Err(QueryError::Timeout { .. })));
        drop(answer);
        assert_eq!(shop.execute("SELECT COUNT(*) FROM orders").await, ["2000"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_go_on_to_what_a_query_of_ksql_writes_and_stay_in_standard() {
    let shop = Shop::open().await;
    let mut ksql = Session::default();
    for (name, value) in [("sql.dialect", "ksql"), ("auto.offset.reset", "earliest")] {
        ksql.apply(SessionChange::Set { name: name.to_owned(), value: value.to_owned() }).unwrap();
    }
    shop.execute("CREATE STREAM plain (v INT) WITH (topic = 'raw', partitions = 1)").await;
    shop.execute("CREATE STREAM plain_on AS SELECT v FROM plain").await;
    for sql in [
        "CREATE STREAM K (V INT, ALL_OF_THEM ARRAY<STRUCT<`KEY` STRING, `VALUE` BYTES>> HEADERS) WITH (KAFKA_TOPIC = 'raw', VALUE_FORMAT = 'JSON')",
        "CREATE STREAM H (V INT, LAST BYTES HEADER('h'), NONE BYTES HEADER('y')) WITH (KAFKA_TOPIC = 'raw', VALUE_FORMAT = 'JSON')",
        "CREATE STREAM K_ON AS SELECT V, ARRAY_LENGTH(ALL_OF_THEM) AS N FROM K",
        "CREATE STREAM H_ON AS SELECT V, FROM_BYTES(LAST, 'utf8') AS LAST, NONE IS NULL AS NONE FROM H",
    ] {
        shop.ask(Request { session: ksql.clone(), ..request(sql) }).await.unwrap();
    }
    let headers = vec![("h".into(), Some("one".into())), ("x".into(), None), ("h".into(), Some("two".into()))];
    let record = NewRecord { value: Some(r#"{"v":1,"V":1}"#.into()), headers, ..NewRecord::default() };
    common::append(&*shop.log, "raw", 0, vec![record]).await;
    assert_eq!(shop.settled("SELECT \"N\" FROM \"K_ON\"").await, ["3"]);
    assert_eq!(shop.settled("SELECT \"LAST\", \"NONE\" FROM \"H_ON\"").await, ["two|true"]);
    assert_eq!(shop.settled("SELECT v FROM plain_on").await, ["1"]);
    let names = |topic: &str| {
        let stored = common::read_all(&*shop.log, &[topic]);
        stored[0].headers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names("K_ON"), ["h", "x", "h"]);
    assert_eq!(names("H_ON"), ["h", "x", "h"]);
    assert!(names("plain_on").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_says_holds_where_a_session_is_silent_and_stays_with_the_query() {
    let config = QueryConfig { dialect: DialectKind::Ksql, collect_list_limit: 2, collect_set_limit: 1, ..QueryConfig::default() };
    let engine_of = |log: &Arc<EmbeddedLog>, config: &QueryConfig| {
        Engine::open(Arc::clone(log) as Arc<dyn LogBackend>, Arc::new(SystemClock::new()), config.clone()).unwrap()
    };
    let shop = Shop::open().await;
    shop.engine.stop().await;
    let engine = engine_of(&shop.log, &config);
    let ask = async |engine: &Engine, sql: &str| {
        lines_of(engine.execute(Request { at_least: Some(shop.log.head().position), ..request(sql) }).await.unwrap()).await.unwrap()
    };
    for sql in [
        "CREATE STREAM F (G STRING, V INT) WITH (KAFKA_TOPIC = 'f', VALUE_FORMAT = 'JSON', PARTITIONS = 1)",
        "CREATE TABLE L AS SELECT G, COLLECT_LIST(V) AS LIST, COLLECT_SET(V) AS SETS FROM F GROUP BY G",
        "INSERT INTO F VALUES ('a', 1), ('a', 2), ('a', 3)",
    ] {
        ask(&engine, sql).await;
    }
    assert_eq!(ask(&engine, "SELECT LIST, SETS FROM L WHERE G = 'a'").await, ["[1, 2]|[1]"]);
    engine.stop().await;
    // The server says something else; the query keeps what it was made with.
    let engine = engine_of(&shop.log, &QueryConfig::default());
    assert_eq!(ask(&engine, "SELECT \"LIST\", \"SETS\" FROM \"L\" WHERE \"G\" = 'a'").await, ["[1, 2]|[1]"]);
    engine.stop().await;
}
