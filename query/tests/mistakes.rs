//! Whatever is wrong with an expression is told in the words of our SQL, with its place, in every kind of query.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use std::sync::Arc;

use common::PATIENCE;
use foldlog_log::{LogBackend, clock::SystemClock, testing::MemoryLog};
use foldlog_query::{Engine, QueryConfig, QueryError, Request, Session};

/// Expressions over [`SOURCE`], most of them mistaken.
const EXPRESSIONS: &str = r"
a + t; t + 1; ar + 1; -t; -ar; NOT a; a AND o; o AND t; a / ar; a % t; a | t; ts + 1; now() + 1; unix_timestamp() + t; x + t
t LIKE 1; a LIKE 'x'; ar = t; ar = m; st = 1; m = 'x'; ts > 5; o = 1; o > t; a BETWEEN ar AND 1; a IN ('x', ar); ar IN (1)
ar[t]; m[1]; m[ar]; st->nope; t->p; st->p->q; st->q[1]; ai[1]->p; ai[1]->q; struct(a := 1)->a; struct(a := 1)->b
abs(t); abs(a, a); abs(); substring(a, 1); substr(ar, 1); len(ar); array_length(t); upper(ar); upper(a); round(t); round(a, t); greatest(ar, 1)
concat(ar, t); nullif(a, ar); coalesce(a, ar); ifnull(t, m); split(a, ','); encode(a, 'hex', 'ascii'); regexp_like(a, 'x'); map_keys(ar); entries(m, 'x')
date_trunc('day', a); extract(year FROM t); from_unixtime(t); timestamptostring(a, 1); parse_timestamp(a, a); current_date + 1; ts - ts; ts + INTERVAL '1 day'
cast(ar AS INT); cast(m AS ARRAY<INT>); cast(st AS VARCHAR); cast(a AS nope); cast(t AS STRUCT<a INT>); cast(ar AS MAP<VARCHAR, INT>); x::nope; cast(1 AS DECIMAL(3, 5))
CASE WHEN o THEN 1 ELSE ar END; CASE a WHEN ar THEN 1 END; CASE WHEN a THEN 1 END; ARRAY[1, ar]; ARRAY[1, 'x']; map('a' := 1, 'b' := ar)
transform(ar, z => z + 1); transform(t, z => z); filter(ar, z => 1); reduce(ar, 0, (u, v) => u + v)
sum(t); sum(ar); avg(m); sum(a, b); count(*) + t; sum(sum(a)); collect_list(a, b); topk(a); topk(a, t); sum(t) OVER (); rank(); lag(a, t) OVER ()
explode(t); explode(ar); EXISTS (SELECT 1); (SELECT 1, 2); a IN (SELECT t FROM s); a = (SELECT t, a FROM s); ROW(1, 2); x'zz'; nope; s.nope; z.a; nope()
cast(x AS DECIMAL(38, 38)) * cast(x AS DECIMAL(38, 38)); 1; 'it'; X'00ff'; a IN (1, 2); a + 1.5; interval '1 day'
";

const SOURCE: &str =
    "CREATE STREAM s (a INT, b BIGINT, d DOUBLE, x DECIMAL(10, 2), t VARCHAR, o BOOLEAN, y BYTES, da DATE, ti TIME, ts TIMESTAMP,
    ar ARRAY<VARCHAR>, ai ARRAY<STRUCT<p INT>>, m MAP<VARCHAR, INT>, st STRUCT<p INT, q ARRAY<BIGINT>>)
    WITH (kafka_topic = 's', partitions = 1, value_format = 'json')";

/// What DataFusion, Arrow and Rust call things.
const THEIRS: [&str; 22] = [
    "Utf8",
    "Int8",
    "Int32",
    "Int64",
    "UInt",
    "Float",
    "Boolean(",
    "List(",
    "Map(",
    "Struct(",
    "Timestamp(",
    "Decimal1",
    "Decimal2",
    "Date32",
    "Time32",
    "Interval",
    "Duration(",
    "Field",
    "DataType",
    "Some(",
    "Span",
    "Signature",
];

fn request(sql: &str) -> Request {
    Request { sql: sql.to_owned(), parameters: Vec::new(), at_least: None, resume: None, timeout: PATIENCE, session: Session::default() }
}

fn has_place(error: &QueryError) -> bool {
    matches!(error, QueryError::Syntax { .. } | QueryError::At { .. } | QueryError::Unknown { place: Some(_), .. })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_are_told_in_our_words_and_with_their_place() {
    let mut wrong = Vec::new();
    let mut told = 0;
    for dialect in ["standard", "ksql"] {
        let log = Arc::new(MemoryLog::new(Arc::new(SystemClock::new()))) as Arc<dyn LogBackend>;
        let config = QueryConfig { dialect: dialect.parse().unwrap(), ..QueryConfig::default() };
        let engine = Engine::open(log, Arc::new(SystemClock::new()), config).unwrap();
        engine.execute(request(SOURCE)).await.unwrap();
        for expression in EXPRESSIONS.split([';', '\n']).map(str::trim).filter(|one| !one.is_empty()) {
            let pull = format!("SELECT {expression} FROM s");
            let push = format!("SELECT {expression} FROM s EMIT CHANGES LIMIT 0");
            let where_ = format!("SELECT a FROM s WHERE ({expression}) IS NULL");
            for (sql, answer) in [
                (&pull, engine.execute(request(&pull)).await.map(|answer| answer.schema)),
                (&push, engine.push(request(&push)).await.map(|answer| answer.schema)),
                (&where_, engine.execute(request(&where_)).await.map(|answer| answer.schema)),
            ] {
                let words = match &answer {
                    Ok(schema) => schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>().join(", "),
                    Err(error) => {
                        told += 1;
                        if !has_place(error) {
                            wrong.push(format!("{dialect}: no place: {sql}: {error}"));
                        }
                        error.to_string()
                    }
                };
                if let Some(theirs) = THEIRS.iter().find(|theirs| words.contains(**theirs)) {
                    wrong.push(format!("{dialect}: {theirs}: {sql}: {words}"));
                }
            }
        }
        engine.stop().await;
    }
    assert!(wrong.is_empty(), "{} of {told}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(told > 400, "only {told} mistakes were told: the list tests nothing");
}
