//! Engines with checkpoints over logs of their own, and what their views show.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arrow::util::display::array_value_to_string;
use foldlog_log::{
    EmbeddedLog, LogBackend, LogConfig, Position, TopicKind,
    clock::SystemClock,
    disk::{Disk, RealDisk},
    testing::{MemoryLog, Random, SimDisk},
};
use foldlog_query::{Checkpoints, Engine, QueryConfig, Request, Session, supervisor::QueryStatus};
use futures::TryStreamExt as _;
use serde_json::json as value;

use super::common::{PATIENCE, append, create, json, topic};

pub const STATEMENTS: [&str; 4] = [
    "CREATE STREAM facts (k VARCHAR, n BIGINT, s VARCHAR) WITH (topic = 'facts', value_format = 'json')",
    "CREATE TABLE totals AS SELECT k, COUNT(*) AS rows, SUM(n) AS total, MIN(s) AS low, COUNT(DISTINCT n) AS different, \
     COLLECT_LIST(n) AS list FROM facts GROUP BY k",
    "CREATE TABLE rich AS SELECT k, total, low FROM totals WHERE total > 60",
    "CREATE TABLE sizes AS SELECT rows, COUNT(*) AS keys, MAX(total) AS most, COLLECT_SET(low) AS lows FROM totals GROUP BY rows",
];
pub const VIEWS: [&str; 3] = ["totals", "rich", "sizes"];
/// Where checkpoints lie on simulated disks.
pub const STATE: &str = "/data/state";

pub fn request(sql: &str, at_least: Option<Position>) -> Request {
    Request { sql: sql.to_owned(), parameters: Vec::new(), at_least, resume: None, timeout: PATIENCE, session: Session::default() }
}

pub async fn rows(engine: &Engine, sql: &str, at_least: Option<Position>) -> Vec<String> {
    let answer = engine.execute(request(sql, at_least)).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let batches: Vec<_> = answer.batches.try_collect().await.unwrap();
    let mut rows = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let values = batch.columns().iter().map(|column| array_value_to_string(column, row).unwrap());
            rows.push(values.collect::<Vec<_>>().join("|"));
        }
    }
    rows
}

/// What every view shows, rows in its order, once everything that is in the log now is reflected.
pub async fn everything(engine: &Engine, log: &dyn LogBackend) -> Vec<Vec<String>> {
    let mut shown = Vec::new();
    let end = log.head().position;
    for view in VIEWS {
        shown.push(rows(engine, &format!("SELECT * FROM {view}"), Some(end)).await);
    }
    shown
}

/// What an engine shows that folds the log from its beginning.
pub async fn folded_anew(log: &Arc<dyn LogBackend>) -> Vec<Vec<String>> {
    let engine = Engine::open(Arc::clone(log), Arc::new(SystemClock::new()), config()).unwrap();
    let shown = everything(&engine, log.as_ref()).await;
    engine.stop().await;
    shown
}

pub fn config() -> QueryConfig {
    QueryConfig { workers: 2, ..QueryConfig::default() }
}

/// No checkpoint but where the story asks for one, or stops in order.
pub const NEVER: Duration = Duration::MAX;

pub fn in_files(disk: &SimDisk) -> Checkpoints {
    Checkpoints::in_files(Arc::new(disk.clone()), PathBuf::from(STATE)).due_after(NEVER)
}

pub fn in_pages(folder: &Path) -> Checkpoints {
    Checkpoints::in_pages(Arc::new(RealDisk), folder.join("state")).due_after(NEVER)
}

pub fn open(log: &Arc<dyn LogBackend>, checkpoints: &Checkpoints) -> Engine {
    Engine::open_keeping(Arc::clone(log), Arc::new(SystemClock::new()), config(), Some(checkpoints)).unwrap()
}

pub fn memory_log() -> Arc<dyn LogBackend> {
    let log: Arc<dyn LogBackend> = Arc::new(MemoryLog::new(Arc::new(SystemClock::new())));
    create(log.as_ref(), "facts", TopicKind::Records, 1);
    log
}

pub async fn declare(engine: &Engine) {
    for statement in STATEMENTS {
        engine.execute(request(statement, None)).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}

/// Facts of some of `keys` keys.
pub async fn some_facts(log: &dyn LogBackend, random: &mut Random, (count, keys): (u64, u64)) {
    let mut records = Vec::new();
    for _ in 0..count {
        let (k, n) = (format!("key{:04}", random.below(keys)), random.below(30));
        records.push(json(&value!({ "k": k, "n": n, "s": format!("text {}", random.below(1000)) })));
    }
    append(log, "facts", 0, records).await;
}

pub fn status(engine: &Engine, sink: &str) -> QueryStatus {
    engine.queries().into_iter().find(|status| status.sink == sink).unwrap()
}

/// Records read since the start, by view.
pub fn read(engine: &Engine) -> Vec<u64> {
    VIEWS.iter().map(|view| status(engine, view).rows_in).collect()
}

/// Why checkpoints were set aside, by view.
pub fn refusals(engine: &Engine) -> Vec<Option<String>> {
    VIEWS.iter().map(|view| status(engine, view).checkpoint.set_aside).collect()
}

pub fn read_file(disk: &dyn Disk, path: &Path) -> Vec<u8> {
    let file = disk.open(path).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    assert_eq!(file.read_at(0, &mut bytes).unwrap(), bytes.len());
    bytes
}

pub fn write_file(disk: &dyn Disk, path: &Path, bytes: &[u8]) {
    let file = disk.open(path).or_else(|_| disk.create(path)).unwrap();
    file.set_len(0).unwrap();
    file.write_at(0, bytes).unwrap();
}

pub fn copy_folder(disk: &dyn Disk, from: &Path, to: &Path) {
    disk.create_folder(to).unwrap();
    for entry in disk.list(from).unwrap() {
        let (from, to) = (from.join(&entry.name), to.join(&entry.name));
        if entry.is_folder {
            copy_folder(disk, &from, &to);
        } else {
            write_file(disk, &to, &read_file(disk, &from));
        }
    }
}

/// A world with a checkpoint of everything, and what its views show.
pub async fn checkpointed(disk: &SimDisk, seed: u64) -> (Arc<dyn LogBackend>, Vec<Vec<String>>) {
    checkpointed_over(memory_log(), disk, seed).await
}

pub async fn checkpointed_over(log: Arc<dyn LogBackend>, disk: &SimDisk, seed: u64) -> (Arc<dyn LogBackend>, Vec<Vec<String>>) {
    let mut random = Random::new(seed);
    let engine = open(&log, &in_files(disk));
    declare(&engine).await;
    some_facts(log.as_ref(), &mut random, (300, 40)).await;
    let shown = everything(&engine, log.as_ref()).await;
    engine.stop().await;
    (log, shown)
}

/// Restarts over a disk; gives why checkpoints were set aside.
pub async fn restarted(disk: &SimDisk, log: &Arc<dyn LogBackend>, shown: &[Vec<String>]) -> Vec<Option<String>> {
    let engine = open(log, &in_files(disk));
    assert_eq!(everything(&engine, log.as_ref()).await, shown);
    let refusals = refusals(&engine);
    engine.stop().await;
    drop(engine);
    // What was set aside is not met again, and its successor is good.
    let engine = open(log, &in_files(disk));
    assert_eq!(everything(&engine, log.as_ref()).await, shown);
    assert_eq!((read(&engine), self::refusals(&engine)), (vec![0; 3], vec![None; 3]));
    engine.stop().await;
    refusals
}

/// A log on a simulated disk.
pub fn on_disk(disk: &SimDisk) -> Arc<dyn LogBackend> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let log = EmbeddedLog::open(disk, Arc::new(SystemClock::new()), Path::new("/data"), LogConfig::default()).unwrap();
    if log.topic(&topic("facts")).is_err() {
        create(&log, "facts", TopicKind::Records, 1);
    }
    Arc::new(log)
}
