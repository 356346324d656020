//! The story of queries that take each other's place, at any moment and with starts in between: what is read, what lies in the
//! topic, and what is made of it are the newest query's.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;
#[path = "common/shop.rs"]
mod shop;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use common::read_all;
use foldlog_log::{
    LogBackend, Position,
    clock::SystemClock,
    testing::{MemoryLog, Random},
};
use foldlog_query::{Engine, QueryConfig, Request};
use shop::{lines_of, request};

/// An engine over a log that outlives it.
struct Lives {
    log: Arc<MemoryLog>,
    engine: Engine,
}

impl Lives {
    fn open(log: &Arc<MemoryLog>) -> Engine {
        let backend: Arc<dyn LogBackend> = Arc::<MemoryLog>::clone(log);
        Engine::open(backend, Arc::new(SystemClock::new()), QueryConfig { workers: 2, ..QueryConfig::default() }).unwrap()
    }

    async fn run(&self, sql: &str) -> Position {
        self.engine.execute(request(sql)).await.unwrap_or_else(|fault| panic!("{sql}: {fault}")).position
    }

    async fn read(&self, sql: &str, at_least: Position) -> Vec<String> {
        let asked = Request { at_least: Some(at_least), ..request(sql) };
        lines_of(self.engine.execute(asked).await.unwrap_or_else(|fault| panic!("{sql}: {fault}"))).await.unwrap()
    }

    async fn restart(&mut self) {
        self.engine.stop().await;
        self.engine = Self::open(&self.log);
    }
}

/// What a table of counts holds: pages by number of hits that took longer than `least`.
fn counts(hits: &[(u64, i64)], least: i64) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    for (page, _) in hits.iter().filter(|(_, ms)| *ms > least) {
        *counts.entry(format!("p{page}")).or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whenever_a_table_is_replaced_all_that_is_seen_of_it_is_the_new_one() {
    let mut compared = 0;
    for seed in 0..12 {
        let mut random = Random::new(seed);
        let log = Arc::new(MemoryLog::new(Arc::new(SystemClock::new())));
        let mut lives = Lives { engine: Lives::open(&log), log };
        lives.run("CREATE STREAM hits (page VARCHAR, ms BIGINT) WITH (partitions = 3)").await;
        lives.run("CREATE TABLE pages AS SELECT page, COUNT(*) AS n FROM hits WHERE ms > 0 GROUP BY page").await;
        lives.run("CREATE TABLE busy AS SELECT page, n FROM pages WHERE n > 2").await;
        let (mut hits, mut least, mut seen) = (Vec::new(), 0, Position::default());
        for _ in 0..14 {
            match random.below(5) {
                0 | 1 => {
                    let new: Vec<(u64, i64)> =
                        (0..=random.below(40)).map(|_| (random.below(30), random.below(100).cast_signed())).collect();
                    let rows: Vec<String> = new.iter().map(|(page, ms)| format!("('p{page}', {ms})")).collect();
                    seen = lives.run(&format!("INSERT INTO hits VALUES {}", rows.join(", "))).await;
                    hits.extend(new);
                }
                2 | 3 => {
                    least = random.below(100).cast_signed();
                    let select = format!("SELECT page, COUNT(*) AS n FROM hits WHERE ms > {least} GROUP BY page");
                    seen = lives.run(&format!("CREATE OR REPLACE TABLE pages AS {select}")).await;
                }
                _ => lives.restart().await,
            }
            if random.below(3) == 0 {
                let expected = counts(&hits, least);
                let rows: Vec<String> = expected.iter().map(|(page, n)| format!("{page}|{n}")).collect();
                assert_eq!(lives.read("SELECT page, n FROM pages ORDER BY page", seen).await, rows, "seed {seed}");
                compared += rows.len();
            }
        }
        let expected = counts(&hits, least);
        let busy: Vec<String> = expected.iter().filter(|(_, n)| **n > 2).map(|(page, n)| format!("{page}|{n}")).collect();
        assert_eq!(lives.read("SELECT page, n FROM busy ORDER BY page", seen).await, busy, "seed {seed}");
        let mut written = BTreeMap::new();
        for record in read_all(lives.log.as_ref(), &["pages"]) {
            let key = String::from_utf8(record.key.unwrap()).unwrap();
            let value = record.value.map(|value| serde_json::from_slice::<serde_json::Value>(&value).unwrap()["n"].as_i64().unwrap());
            // A count that is as it was may have another time.
            let told = (value, record.timestamp);
            assert_ne!(written.insert(key.clone(), told), Some(told), "seed {seed}: {key} was told again");
        }
        let written: BTreeMap<String, i64> = written.into_iter().filter_map(|(key, (n, _))| Some((key, n?))).collect();
        assert_eq!(written, expected, "seed {seed}");
        compared += written.len();
        lives.engine.stop().await;
    }
    assert!(compared > 500, "{compared} rows were compared");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_query_at_the_moment_of_a_swap_is_answered() {
    let log = Arc::new(MemoryLog::new(Arc::new(SystemClock::new())));
    let lives = Lives { engine: Lives::open(&log), log };
    lives.run("CREATE STREAM hits (page VARCHAR, ms BIGINT) WITH (partitions = 1)").await;
    lives.run("INSERT INTO hits VALUES ('p1', 1), ('p2', 2)").await;
    lives.run("CREATE TABLE pages AS SELECT page, COUNT(*) AS n FROM hits WHERE ms > 0 GROUP BY page").await;
    let is_over = AtomicBool::new(false);
    let ask = async |sql: &str| {
        let mut answers = 0;
        while !is_over.load(Ordering::Relaxed) {
            let seen = lives.run("SELECT 1 AS one").await;
            // With and without something that was seen.
            let at_least = Some(seen).filter(|_| answers % 2 == 0);
            let answer = lives.engine.execute(Request { at_least, ..request(sql) }).await;
            let lines = lines_of(answer.unwrap_or_else(|fault| panic!("{sql}, after {answers} answers: {fault}"))).await;
            assert_eq!(lines.unwrap_or_else(|fault| panic!("{sql}: {fault}")).len(), 1, "{sql}");
            answers += 1;
        }
        answers
    };
    let follow = async {
        let mut answers = 0;
        while !is_over.load(Ordering::Relaxed) {
            let sql = "SELECT * FROM pages EMIT CHANGES";
            drop(lives.engine.push(request(sql)).await.unwrap_or_else(|fault| panic!("{sql}, after {answers} answers: {fault}")));
            answers += 1;
            tokio::task::yield_now().await;
        }
        answers
    };
    let replace = async {
        for round in 0..150 {
            lives
                .run(&format!("CREATE OR REPLACE TABLE pages AS SELECT page, COUNT(*) AS n FROM hits WHERE ms > -{round} GROUP BY page"))
                .await;
        }
        is_over.store(true, Ordering::Relaxed);
    };
    let (by_key, all, joined, followed, ()) = tokio::join!(
        ask("SELECT n FROM pages WHERE page = 'p1'"),
        ask("SELECT COUNT(*) AS pages FROM pages WHERE n > 0"),
        ask("SELECT COUNT(*) AS both FROM pages JOIN hits ON pages.page = hits.page"),
        follow,
        replace,
    );
    assert!([by_key, all, joined, followed].iter().all(|answers| *answers > 10), "{by_key}, {all}, {joined} and {followed} answers");
}
