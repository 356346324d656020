//! Checkpoints of query state: a restart goes on from the newest one, and from nothing that is not exactly that.
//!
//! Every story compares what views show after a restart with what an engine without checkpoints folds from the same log, and
//! counts the records that were read again. The toy that must fail here is a restart that folds everything again.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arrow::util::display::array_value_to_string;
use common::{PATIENCE, append, create, definition, everything_by_key, json, read_all, topic};
use foldlog_log::{
    EmbeddedLog, LogBackend, LogConfig, Position, TopicKind,
    clock::SystemClock,
    disk::{Disk, RealDisk},
    testing::{Fault, MemoryLog, Random, SimDisk},
};
use foldlog_query::{
    Checkpoints, Engine, QueryConfig, Request, Session,
    plan::{Node, OperatorId},
    stream::pace::StepLimits,
    supervisor::{QueryStatus, Supervisor},
};
use futures::TryStreamExt as _;
use serde_json::json as value;

/// Groups with words, texts, lists and counted values; the newest rows of a table; groups of a table, which keep a copy of it.
const STATEMENTS: [&str; 4] = [
    "CREATE STREAM facts (k VARCHAR, n BIGINT, s VARCHAR) WITH (topic = 'facts', value_format = 'json')",
    "CREATE TABLE totals AS SELECT k, COUNT(*) AS rows, SUM(n) AS total, MIN(s) AS low, COUNT(DISTINCT n) AS different, \
     COLLECT_LIST(n) AS list FROM facts GROUP BY k",
    "CREATE TABLE rich AS SELECT k, total, low FROM totals WHERE total > 60",
    "CREATE TABLE sizes AS SELECT rows, COUNT(*) AS keys, MAX(total) AS most, COLLECT_SET(low) AS lows FROM totals GROUP BY rows",
];
const VIEWS: [&str; 3] = ["totals", "rich", "sizes"];
/// Where checkpoints lie on simulated disks.
const STATE: &str = "/data/state";

fn request(sql: &str, at_least: Option<Position>) -> Request {
    Request { sql: sql.to_owned(), parameters: Vec::new(), at_least, resume: None, timeout: PATIENCE, session: Session::default() }
}

async fn rows(engine: &Engine, sql: &str, at_least: Option<Position>) -> Vec<String> {
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
async fn everything(engine: &Engine, log: &dyn LogBackend) -> Vec<Vec<String>> {
    let mut shown = Vec::new();
    let end = log.head().position;
    for view in VIEWS {
        shown.push(rows(engine, &format!("SELECT * FROM {view}"), Some(end)).await);
    }
    shown
}

/// What an engine shows that folds the log from its beginning.
async fn folded_anew(log: &Arc<dyn LogBackend>) -> Vec<Vec<String>> {
    let engine = Engine::open(Arc::clone(log), Arc::new(SystemClock::new()), config()).unwrap();
    let shown = everything(&engine, log.as_ref()).await;
    engine.stop().await;
    shown
}

fn config() -> QueryConfig {
    QueryConfig { workers: 2, ..QueryConfig::default() }
}

/// No checkpoint but where the story asks for one, or stops in order.
const NEVER: Duration = Duration::MAX;

fn in_files(disk: &SimDisk) -> Checkpoints {
    Checkpoints::in_files(Arc::new(disk.clone()), PathBuf::from(STATE)).due_after(NEVER)
}

fn in_pages(folder: &Path) -> Checkpoints {
    Checkpoints::in_pages(Arc::new(RealDisk), folder.join("state")).due_after(NEVER)
}

fn open(log: &Arc<dyn LogBackend>, checkpoints: &Checkpoints) -> Engine {
    Engine::open_keeping(Arc::clone(log), Arc::new(SystemClock::new()), config(), Some(checkpoints)).unwrap()
}

fn memory_log() -> Arc<dyn LogBackend> {
    let log: Arc<dyn LogBackend> = Arc::new(MemoryLog::new(Arc::new(SystemClock::new())));
    create(log.as_ref(), "facts", TopicKind::Records, 1);
    log
}

async fn declare(engine: &Engine) {
    for statement in STATEMENTS {
        engine.execute(request(statement, None)).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}

/// Facts of some of `keys` keys.
async fn some_facts(log: &dyn LogBackend, random: &mut Random, (count, keys): (u64, u64)) {
    let mut records = Vec::new();
    for _ in 0..count {
        let (k, n) = (format!("key{:04}", random.below(keys)), random.below(30));
        records.push(json(&value!({ "k": k, "n": n, "s": format!("text {}", random.below(1000)) })));
    }
    append(log, "facts", 0, records).await;
}

fn status(engine: &Engine, sink: &str) -> QueryStatus {
    engine.queries().into_iter().find(|status| status.sink == sink).unwrap()
}

/// Records read since the start, by view.
fn read(engine: &Engine) -> Vec<u64> {
    VIEWS.iter().map(|view| status(engine, view).rows_in).collect()
}

/// Why checkpoints were set aside, by view.
fn refusals(engine: &Engine) -> Vec<Option<String>> {
    VIEWS.iter().map(|view| status(engine, view).checkpoint.set_aside).collect()
}

fn read_file(disk: &dyn Disk, path: &Path) -> Vec<u8> {
    let file = disk.open(path).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    assert_eq!(file.read_at(0, &mut bytes).unwrap(), bytes.len());
    bytes
}

fn write_file(disk: &dyn Disk, path: &Path, bytes: &[u8]) {
    let file = disk.open(path).or_else(|_| disk.create(path)).unwrap();
    file.set_len(0).unwrap();
    file.write_at(0, bytes).unwrap();
}

fn copy_folder(disk: &dyn Disk, from: &Path, to: &Path) {
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

/// Two checkpoints, facts behind them, a crash: what is read again is what came behind.
async fn a_crash_costs_what_came_after_the_checkpoint(checkpoints: &Checkpoints) {
    let (log, mut random) = (memory_log(), Random::new(1));
    let engine = open(&log, checkpoints);
    declare(&engine).await;
    for _ in 0..2 {
        some_facts(log.as_ref(), &mut random, (3000, 900)).await;
        everything(&engine, log.as_ref()).await;
        engine.checkpoint();
    }
    let at = log.head().position;
    some_facts(log.as_ref(), &mut random, (7, 1200)).await;
    let shown = everything(&engine, log.as_ref()).await;
    assert!(shown[0].len() > 512, "the table has several pages");
    drop(engine);

    let engine = open(&log, checkpoints);
    assert_eq!(everything(&engine, log.as_ref()).await, shown);
    let tail = |topic: &str| read_all(log.as_ref(), &[topic]).iter().filter(|record| record.position >= at.get()).count() as u64;
    assert_eq!(read(&engine), [7, tail("totals"), tail("totals")]);
    assert_eq!(refusals(&engine), [None, None, None]);
    let outputs = read_all(log.as_ref(), &VIEWS).len();
    // And it goes on from there.
    some_facts(log.as_ref(), &mut random, (500, 1200)).await;
    let shown = everything(&engine, log.as_ref()).await;
    assert!(read_all(log.as_ref(), &VIEWS).len() > outputs);
    engine.checkpoint();
    drop(engine);
    let engine = open(&log, checkpoints);
    assert_eq!(everything(&engine, log.as_ref()).await, shown);
    assert_eq!(read(&engine), [0, 0, 0]);
    engine.stop().await;
    assert_eq!(folded_anew(&log).await, shown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_reads_again_what_came_after_its_checkpoint_in_pages() {
    let folder = tempfile::tempdir().unwrap();
    a_crash_costs_what_came_after_the_checkpoint(&in_pages(folder.path())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_reads_again_what_came_after_its_checkpoint_in_files() {
    a_crash_costs_what_came_after_the_checkpoint(&in_files(&SimDisk::new(1))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_stop_in_order_nothing_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let (log, mut random) = (memory_log(), Random::new(2));
    let engine = open(&log, &in_pages(folder.path()));
    declare(&engine).await;
    some_facts(log.as_ref(), &mut random, (400, 60)).await;
    let shown = everything(&engine, log.as_ref()).await;
    assert_eq!(status(&engine, "totals").checkpoint.newest, None, "nothing was due");
    engine.stop().await;
    drop(engine);
    let engine = open(&log, &in_pages(folder.path()));
    let told = status(&engine, "totals");
    assert!(told.checkpoint.newest.is_some_and(|(_, bytes)| bytes > 1000), "{told:?}");
    assert_eq!(everything(&engine, log.as_ref()).await, shown);
    assert_eq!(read(&engine), [0, 0, 0]);
    // Who folded nothing gets no other checkpoint.
    let before = status(&engine, "totals").checkpoint;
    engine.checkpoint();
    assert_eq!(status(&engine, "totals").checkpoint, before);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_is_taken_when_too_much_would_be_folded_again() {
    let (disk, log, mut random) = (SimDisk::new(3), memory_log(), Random::new(3));
    let engine = open(&log, &in_files(&disk).due_after(Duration::from_nanos(1)));
    declare(&engine).await;
    let mut newest = None;
    for _ in 0..3 {
        some_facts(log.as_ref(), &mut random, (50, 10)).await;
        everything(&engine, log.as_ref()).await;
        let deadline = std::iter::repeat_with(|| std::thread::sleep(Duration::from_millis(5))).take(2000);
        let taken = deadline.map(|()| status(&engine, "totals").checkpoint.newest).find(|taken| *taken > newest);
        newest = taken.expect("a checkpoint is taken without being asked for");
    }
    engine.stop().await;
}

/// A world with a checkpoint of everything, and what its views show.
async fn checkpointed(disk: &SimDisk, seed: u64) -> (Arc<dyn LogBackend>, Vec<Vec<String>>) {
    checkpointed_over(memory_log(), disk, seed).await
}

async fn checkpointed_over(log: Arc<dyn LogBackend>, disk: &SimDisk, seed: u64) -> (Arc<dyn LogBackend>, Vec<Vec<String>>) {
    let mut random = Random::new(seed);
    let engine = open(&log, &in_files(disk));
    declare(&engine).await;
    some_facts(log.as_ref(), &mut random, (300, 40)).await;
    let shown = everything(&engine, log.as_ref()).await;
    engine.stop().await;
    (log, shown)
}

/// Restarts over a disk; gives why checkpoints were set aside.
async fn restarted(disk: &SimDisk, log: &Arc<dyn LogBackend>, shown: &[Vec<String>]) -> Vec<Option<String>> {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_anywhere_in_a_file_is_told_and_the_answers_stay() {
    let disk = SimDisk::new(4);
    let (log, shown) = checkpointed(&disk, 4).await;
    let mut random = Random::new(40);
    for path in disk.paths().into_iter().filter(|path| path.starts_with(STATE)) {
        let bytes = disk.bytes_of(&path).unwrap();
        let length = bytes.len() as u64;
        for round in 0..10 {
            let damaged = disk.fork();
            let at = usize::try_from(random.below(length)).unwrap();
            if round < 7 {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << random.below(8);
                damaged.overwrite(&path, bytes);
            } else {
                damaged.overwrite(&path, bytes[..at].to_vec());
            }
            let refusals = restarted(&damaged, &log, &shown).await;
            assert!(refusals.iter().any(Option::is_some), "{} at {at}: nothing was said", path.display());
            let aside = damaged.paths().iter().filter(|path| path.to_string_lossy().contains(".aside-")).count();
            assert!((1..=4).contains(&aside), "{aside} files are set aside");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_anywhere_in_the_page_store_never_changes_an_answer() {
    let folder = tempfile::tempdir().unwrap();
    let (log, mut random) = (memory_log(), Random::new(5));
    let engine = open(&log, &in_pages(folder.path()));
    declare(&engine).await;
    for _ in 0..2 {
        some_facts(log.as_ref(), &mut random, (300, 40)).await;
        everything(&engine, log.as_ref()).await;
        engine.checkpoint();
    }
    let shown = everything(&engine, log.as_ref()).await;
    engine.stop().await;
    drop(engine);
    let state = folder.path().join("state");
    let files: Vec<PathBuf> = RealDisk
        .list(&state.join("pages"))
        .unwrap()
        .into_iter()
        .filter(|entry| !entry.is_folder)
        .map(|entry| PathBuf::from("pages").join(entry.name))
        .collect();
    assert!(!files.is_empty());
    let mut told = 0;
    for round in 0..24 {
        let other = tempfile::tempdir().unwrap();
        copy_folder(&RealDisk, &state, &other.path().join("state"));
        let path = other.path().join("state").join(&files[usize::try_from(random.below(files.len() as u64)).unwrap()]);
        let mut bytes = read_file(&RealDisk, &path);
        // What is written of the file lies at its beginning.
        let at = usize::try_from(random.below(bytes.len().min(1 << 17) as u64)).unwrap();
        if round % 4 == 3 {
            bytes.truncate(at)
        } else {
            bytes[at] ^= 1 << random.below(8)
        }
        write_file(&RealDisk, &path, &bytes);
        let engine = open(&log, &in_pages(other.path()));
        assert_eq!(everything(&engine, log.as_ref()).await, shown, "round {round}");
        told += usize::from(refusals(&engine).iter().any(Option::is_some));
        assert!(told > 0 || read(&engine).iter().sum::<u64>() == 0, "round {round}: something was folded again, and nothing said");
        engine.stop().await;
    }
    assert!(told > 0, "no damage was found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_store_that_lost_everything_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (log, mut random) = (memory_log(), Random::new(6));
    let engine = open(&log, &in_pages(folder.path()));
    declare(&engine).await;
    some_facts(log.as_ref(), &mut random, (100, 40)).await;
    let shown = everything(&engine, log.as_ref()).await;
    engine.stop().await;
    drop(engine);
    // As after a power cut that its own flush does not survive: it opens as an empty one.
    RealDisk.rename(&folder.path().join("state/pages"), &folder.path().join("lost")).unwrap();
    let engine = open(&log, &in_pages(folder.path()));
    assert_eq!(everything(&engine, log.as_ref()).await, shown);
    assert_eq!(refusals(&engine), vec![Some("it is gone".to_owned()); 3]);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_of_queries_that_are_over_goes_even_if_the_list_of_checkpoints_is_damaged() {
    let disk = SimDisk::new(9);
    let (log, mut shown) = checkpointed_over(on_disk(&disk), &disk, 9).await;
    let states = |disk: &SimDisk| disk.paths().into_iter().filter(|path| path.starts_with(STATE)).collect::<Vec<_>>();
    let of_sizes = |disk: &SimDisk| states(disk).iter().filter(|path| path.display().to_string().contains("sizes")).count();
    assert_eq!(of_sizes(&disk), 1);
    // A query that ends while nothing is kept, so that nobody removes what was.
    let engine = Engine::open(Arc::clone(&log), Arc::new(SystemClock::new()), config()).unwrap();
    engine.execute(request("DROP TABLE sizes", None)).await.unwrap();
    engine.stop().await;
    shown.truncate(2);
    for damaged in [false, true] {
        let disk = disk.fork();
        if damaged {
            disk.overwrite(&Path::new(STATE).join("checkpoints"), b"no list".to_vec());
        }
        let engine = open(&log, &in_files(&disk));
        assert_eq!(of_sizes(&disk), 0, "damaged: {damaged}");
        let end = log.head().position;
        for (view, shown) in VIEWS.iter().zip(&shown) {
            assert_eq!(rows(&engine, &format!("SELECT * FROM {view}"), Some(end)).await, *shown);
            let read = status(&engine, view).rows_in;
            assert_eq!(read > 0, damaged, "{view} has read {read} records");
        }
        engine.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_of_another_folder_is_not_taken() {
    let (ours, theirs) = (SimDisk::new(7), SimDisk::new(8));
    let (log, shown) = checkpointed_over(on_disk(&ours), &ours, 7).await;
    checkpointed_over(on_disk(&theirs), &theirs, 8).await;
    let states = |disk: &SimDisk| disk.paths().into_iter().filter(|path| path.starts_with(STATE)).collect::<Vec<_>>();
    // Everything, or all but the list of what there is.
    for with_list in [true, false] {
        let mixed = ours.fork();
        for path in states(&theirs).into_iter().filter(|path| with_list || path.extension().is_some()) {
            mixed.overwrite(&path, theirs.bytes_of(&path).unwrap());
        }
        let refusals = restarted(&mixed, &log, &shown).await;
        let reason = "it belongs to another data folder, or to this one before it was restored";
        assert_eq!(refusals, vec![Some(reason.to_owned()); 3]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_that_is_older_than_the_last_one_is_not_taken() {
    let disk = SimDisk::new(9);
    let (log, _) = checkpointed(&disk, 9).await;
    let older = disk.fork();
    let engine = open(&log, &in_files(&disk));
    some_facts(log.as_ref(), &mut Random::new(10), (50, 40)).await;
    let shown = everything(&engine, log.as_ref()).await;
    engine.stop().await;
    for path in disk.paths().into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "state")) {
        disk.overwrite(&path, older.bytes_of(&path).unwrap());
    }
    let refusals = restarted(&disk, &log, &shown).await;
    assert_eq!(refusals, vec![Some("it is older than the last one that became durable".to_owned()); 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_table_leaves_nothing_to_one_that_takes_its_name() {
    let (disk, log, mut random) = (SimDisk::new(11), memory_log(), Random::new(11));
    let create = "CREATE TABLE counts AS SELECT k, COUNT(*) AS rows FROM facts GROUP BY k";
    let engine = open(&log, &in_files(&disk));
    engine.execute(request(STATEMENTS[0], None)).await.unwrap();
    engine.execute(request(create, None)).await.unwrap();
    some_facts(log.as_ref(), &mut random, (100, 10)).await;
    let read = |engine: &Engine| status(engine, "counts").rows_in;
    rows(&engine, "SELECT * FROM counts", Some(log.head().position)).await;
    engine.checkpoint();
    assert!(disk.paths().iter().any(|path| path.extension().is_some_and(|extension| extension == "state")));
    engine.execute(request("DROP TABLE counts", None)).await.unwrap();
    assert!(!disk.paths().iter().any(|path| path.extension().is_some_and(|extension| extension == "state")));
    engine.execute(request(create, None)).await.unwrap();
    let shown = rows(&engine, "SELECT * FROM counts", Some(log.head().position)).await;
    assert_eq!((read(&engine), shown.len()), (100, 10));
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_folds_anew_forgets_what_was_kept() {
    let (disk, log, mut random) = (SimDisk::new(12), memory_log(), Random::new(12));
    let engine = open(&log, &in_files(&disk));
    declare(&engine).await;
    some_facts(log.as_ref(), &mut random, (100, 10)).await;
    let shown = everything(&engine, log.as_ref()).await;
    engine.checkpoint();
    let kept = |disk: &SimDisk| disk.paths().iter().filter(|path| path.extension().is_some_and(|extension| extension == "state")).count();
    assert_eq!(kept(&disk), 3);
    // Data is about to be redacted: nothing that was made of it may be found by a start, from here on.
    engine.about_to_redact(topic("facts")).await.unwrap();
    assert_eq!(kept(&disk), 0);
    assert!(VIEWS.iter().all(|view| status(&engine, view).checkpoint.newest.is_none()), "nor is any told");
    some_facts(log.as_ref(), &mut random, (10, 10)).await;
    everything(&engine, log.as_ref()).await;
    engine.checkpoint();
    assert_eq!(kept(&disk), 0, "a checkpoint is taken of what is about to be redacted");
    engine.refold(topic("facts")).await.unwrap();
    let again = everything(&engine, log.as_ref()).await;
    assert_eq!(read(&engine)[0], 110);
    assert_ne!(again, shown);
    engine.checkpoint();
    assert_eq!(kept(&disk), 3);
    // If nothing was redacted, state is kept as before.
    engine.about_to_redact(topic("facts")).await.unwrap();
    engine.not_redacted(topic("facts")).await.unwrap();
    some_facts(log.as_ref(), &mut random, (10, 10)).await;
    everything(&engine, log.as_ref()).await;
    engine.checkpoint();
    assert_eq!(kept(&disk), 3);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_query_stands_still_where_its_checkpoint_is() {
    let (disk, log, mut random) = (SimDisk::new(13), memory_log(), Random::new(13));
    let engine = open(&log, &in_files(&disk));
    engine.execute(request(STATEMENTS[0], None)).await.unwrap();
    engine.execute(request("CREATE TABLE counts AS SELECT k, COUNT(*) AS rows FROM facts GROUP BY k", None)).await.unwrap();
    some_facts(log.as_ref(), &mut random, (100, 10)).await;
    let shown = rows(&engine, "SELECT * FROM counts", Some(log.head().position)).await;
    let id = status(&engine, "counts").id;
    engine.execute(request(&format!("PAUSE {id}"), None)).await.unwrap();
    some_facts(log.as_ref(), &mut random, (5, 10)).await;
    engine.stop().await;
    drop(engine);
    let engine = open(&log, &in_files(&disk));
    assert!(status(&engine, "counts").paused);
    assert_eq!(rows(&engine, "SELECT * FROM counts", None).await, shown);
    assert_eq!(status(&engine, "counts").rows_in, 0);
    engine.execute(request(&format!("RESUME {id}"), None)).await.unwrap();
    rows(&engine, "SELECT * FROM counts", Some(log.head().position)).await;
    assert_eq!(status(&engine, "counts").rows_in, 5);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_waits_for_the_checkpoint_of_who_reads() {
    let (disk, log, mut random) = (SimDisk::new(14), memory_log(), Random::new(14));
    let engine = open(&log, &in_files(&disk));
    engine.execute(request(STATEMENTS[0], None)).await.unwrap();
    engine.execute(request("CREATE TABLE counts AS SELECT k, COUNT(*) AS rows FROM facts GROUP BY k", None)).await.unwrap();
    let held = || log.holders(&topic("facts")).unwrap().into_iter().map(|holder| holder.from.get()).collect::<Vec<_>>();
    some_facts(log.as_ref(), &mut random, (100, 10)).await;
    let end = log.head().position;
    rows(&engine, "SELECT * FROM counts", Some(end)).await;
    assert_eq!(held(), [0]);
    engine.checkpoint();
    let from = held()[0];
    assert!(from > 0 && from >= end.get() - 1, "held from {from}, the log ends at {end}");
    drop(engine);
    let engine = open(&log, &in_files(&disk));
    assert_eq!(held(), [from]);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_upgrade_that_changes_a_plan_the_query_folds_anew() {
    let (disk, log, mut random) = (SimDisk::new(15), memory_log(), Random::new(15));
    create(log.as_ref(), "totals", TopicKind::Table, 1);
    // A build that plans the same statement with this fingerprint, and operators with these ids.
    let life = |fingerprint: u64, operator: u32| {
        let mut plan = everything_by_key("totals");
        plan.fingerprint = fingerprint;
        let [Node::Aggregate { id, .. }] = plan.nodes.as_mut_slice() else { panic!("the plan is one aggregate") };
        *id = OperatorId(operator);
        let (limits, checkpoints) = (StepLimits::default(), in_files(&disk));
        let supervisor =
            Supervisor::open_keeping(Arc::clone(&log), Arc::new(SystemClock::new()), &config(), limits, Some(&checkpoints)).unwrap();
        supervisor.start(&definition("totals"), &plan).unwrap();
        supervisor
    };
    let told = async |supervisor: &Supervisor| {
        let view = supervisor.view("totals").unwrap();
        view.wait(log.head().position, PATIENCE).await.unwrap();
        let rows: Vec<String> = view.pin().unwrap().scan().map(|batch| format!("{:?}", batch.unwrap())).collect();
        let status = supervisor.queries().remove(0);
        (rows, status.rows_in, status.checkpoint.set_aside)
    };
    some_facts(log.as_ref(), &mut random, (200, 20)).await;
    let before = life(1, 0);
    let (rows, ..) = told(&before).await;
    before.shut_down().await;
    let changed = Some("the plan of the query has changed since".to_owned());
    for (fingerprint, operator, expected) in
        [(1, 0, (0, None)), (2, 0, (200, changed.clone())), (2, 0, (0, None)), (2, 7, (200, changed)), (2, 7, (0, None))]
    {
        let after = life(fingerprint, operator);
        let (again, read, set_aside) = told(&after).await;
        assert_eq!((read, set_aside), expected, "fingerprint {fingerprint}, operator {operator}");
        assert_eq!(again, rows);
        after.shut_down().await;
    }
    assert_eq!(read_all(log.as_ref(), &["totals"]).len(), 20, "nothing is written again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_costs_a_checkpoint_and_nothing_else() {
    const NO_SPACE: i32 = 28;
    let mut failures = 0;
    for nth in 0.. {
        let (disk, log, mut random) = (SimDisk::new(16), memory_log(), Random::new(16));
        let engine = open(&log, &in_files(&disk));
        declare(&engine).await;
        some_facts(log.as_ref(), &mut random, (60, 20)).await;
        everything(&engine, log.as_ref()).await;
        disk.arm(Fault::Fail { kind: None, nth, errno: NO_SPACE });
        engine.checkpoint();
        let was_hit = disk.is_disarmed();
        // But for the list of checkpoints, which is small and written anew.
        let is_left = |path: &PathBuf| {
            path.starts_with(STATE) && path.extension().is_some_and(|end| end == "new") && !path.ends_with("checkpoints.new")
        };
        let left: Vec<PathBuf> = disk.paths().into_iter().filter(is_left).collect();
        assert!(left.is_empty(), "call {nth}: {left:?} are left on a disk that may be full");
        some_facts(log.as_ref(), &mut random, (60, 20)).await;
        let shown = everything(&engine, log.as_ref()).await;
        engine.stop().await;
        drop(engine);
        let engine = open(&log, &in_files(&disk));
        assert_eq!(everything(&engine, log.as_ref()).await, shown, "call {nth}");
        if !was_hit {
            // It hits the last checkpoints, or the start.
            engine.stop().await;
            break;
        }
        assert_eq!((read(&engine), refusals(&engine)), (vec![0; 3], vec![None; 3]), "call {nth}");
        engine.stop().await;
        failures += 1;
    }
    assert!(failures > 8, "a checkpoint makes {failures} calls");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_leaves_alone_what_the_log_keeps() {
    let (disk, log, mut random) = (SimDisk::new(18), memory_log(), Random::new(18));
    let how = in_files(&disk).leaving(0, 50);
    let engine = open(&log, &how);
    declare(&engine).await;
    some_facts(log.as_ref(), &mut random, (60, 20)).await;
    let shown = everything(&engine, log.as_ref()).await;
    let files = || disk.paths().into_iter().filter(|path| path.starts_with(STATE)).collect::<Vec<_>>();
    let used: usize = disk.paths().iter().filter_map(|path| disk.bytes_of(path)).map(|bytes| bytes.len()).sum();
    // A third of the disk is free, and half of it is to be.
    disk.set_capacity(used as u64 * 3 / 2);
    engine.checkpoint();
    assert_eq!(files(), [Path::new(STATE).join("checkpoints")]);
    assert!(status(&engine, "sizes").checkpoint.newest.is_none());
    disk.set_capacity(1 << 30);
    engine.stop().await;
    drop(engine);
    assert_eq!(files().len(), 4);
    let engine = open(&log, &how);
    assert_eq!((everything(&engine, log.as_ref()).await, read(&engine)), (shown, vec![0; 3]));
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_is_shown() {
    let (disk, log, mut random) = (SimDisk::new(17), memory_log(), Random::new(17));
    let engine = open(&log, &in_files(&disk));
    declare(&engine).await;
    some_facts(log.as_ref(), &mut random, (60, 20)).await;
    everything(&engine, log.as_ref()).await;
    let described = rows(&engine, "DESCRIBE sizes EXTENDED", None).await;
    assert!(!described.iter().any(|line| line.starts_with("checkpoint")), "{described:?}");
    engine.checkpoint();
    let position = status(&engine, "sizes").checkpoint.newest.unwrap().0;
    let described = rows(&engine, "DESCRIBE sizes EXTENDED", None).await;
    assert!(described.iter().any(|line| line.starts_with(&format!("checkpoint|below position {position}, "))), "{described:?}");
    let kept = described.iter().find(|line| line.starts_with("state|")).unwrap();
    assert!(kept.contains("groups: ") && kept.contains("copy: 20 rows, "), "{kept}");
    let queries = rows(&engine, "SHOW QUERIES EXTENDED", None).await;
    assert!(queries.iter().all(|line| line.contains("below position ")), "{queries:?}");
    let plan = rows(&engine, &format!("EXPLAIN {}", status(&engine, "totals").id), None).await;
    assert!(plan.iter().any(|line| line.starts_with("state of #") && line.contains("different values of column 1: ")), "{plan:?}");
    engine.stop().await;
}

// ---- power cuts: log and checkpoints on one disk ----

fn on_disk(disk: &SimDisk) -> Arc<dyn LogBackend> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let log = EmbeddedLog::open(disk, Arc::new(SystemClock::new()), Path::new("/data"), LogConfig::default()).unwrap();
    if log.topic(&topic("facts")).is_err() {
        create(&log, "facts", TopicKind::Records, 1);
    }
    Arc::new(log)
}

/// A checkpoint, more facts, and a second checkpoint, before which `arm` may spoil the disk. Gives the disk and what views showed.
async fn two_checkpoints(seed: u64, arm: impl Fn(&SimDisk)) -> (SimDisk, Vec<Vec<String>>) {
    let disk = SimDisk::new(seed);
    disk.set_phase("before");
    let log = on_disk(&disk);
    let engine = open(&log, &in_files(&disk));
    declare(&engine).await;
    let mut random = Random::new(seed);
    some_facts(log.as_ref(), &mut random, (60, 20)).await;
    everything(&engine, log.as_ref()).await;
    engine.checkpoint();
    some_facts(log.as_ref(), &mut random, (60, 20)).await;
    let shown = everything(&engine, log.as_ref()).await;
    disk.set_phase("checkpoint");
    arm(&disk);
    engine.checkpoint();
    (disk, shown)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_at_any_call_of_a_checkpoint_changes_no_answer() {
    let mut cuts = 0;
    for nth in 0.. {
        let (disk, shown) = two_checkpoints(100 + nth, |disk| disk.arm(Fault::PowerOff { nth })).await;
        let was_cut = disk.is_off();
        let disk = disk.power_cut();
        let log = on_disk(&disk);
        let engine = open(&log, &in_files(&disk));
        assert_eq!(everything(&engine, log.as_ref()).await, shown, "cut at call {nth}");
        let read = read(&engine);
        assert!(read.iter().all(|read| *read < 120), "cut at call {nth}: the first checkpoint was lost, too: {read:?}");
        engine.stop().await;
        if !was_cut {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 8, "a checkpoint made {cuts} calls that change something");
}

/// Whether a checkpoint that was said to be durable is gone on from after a power cut.
async fn survives(seed: u64, arm: impl Fn(&SimDisk)) -> bool {
    let (disk, shown) = two_checkpoints(seed, arm).await;
    let disk = disk.power_cut();
    let log = on_disk(&disk);
    let engine = open(&log, &in_files(&disk));
    assert_eq!(everything(&engine, log.as_ref()).await, shown);
    let is_whole = read(&engine)[0] == 0 && refusals(&engine).iter().all(Option::is_none);
    engine.stop().await;
    is_whole
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_sync_of_a_checkpoint_can_be_left_out() {
    for seed in 200..206 {
        assert!(survives(seed, |_| {}).await, "seed {seed}: a checkpoint that was said to be durable is gone");
    }
    let (disk, _) = two_checkpoints(200, |_| {}).await;
    let sites: Vec<_> = disk.sync_sites().into_iter().filter(|site| site.phase == "checkpoint" && site.path.contains("state")).collect();
    assert!(sites.len() >= 3, "{sites:?}");
    for site in sites {
        let mut is_missed = false;
        for seed in 300..330 {
            if !survives(seed, |disk| disk.ignore_syncs_at(site.clone())).await {
                is_missed = true;
                break;
            }
        }
        assert!(is_missed, "nobody misses the {site}");
    }
}
