//! Stories of steps: where they end, who reads meanwhile, and what a restart folds again.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use arrow::array::{AsArray as _, types::Int64Type};
use common::{PATIENCE, SteppingClock, append, copied, counted, create, definition, facts, json, read_all};
use foldlog_log::{
    LogBackend, NewRecord, Position, ReadLimits, Timestamp, TopicKind,
    clock::{Clock, ManualClock, SystemClock},
    testing::MemoryLog,
};
use foldlog_query::{
    PushItem, QueryConfig, QueryError, Request, Session,
    catalog::QueryDef,
    plan::{Sink, StreamPlan},
    push::Push,
    stream::{pace::StepLimits, view::Pinned},
    supervisor::Supervisor,
};
use futures::StreamExt as _;
use parking_lot::Mutex;
use serde_json::json as value;

/// A log with this many facts about ten keys.
async fn log_of(count: i64) -> Arc<MemoryLog> {
    let log = Arc::new(MemoryLog::new(Arc::new(SystemClock::new())));
    create(log.as_ref(), "facts", TopicKind::Records, 2);
    create(log.as_ref(), "by_key", TopicKind::Table, 1);
    append_facts(&log, count).await;
    log
}

async fn append_facts(log: &Arc<MemoryLog>, count: i64) {
    for start in (0..count).step_by(500) {
        let records: Vec<NewRecord> =
            (start..count.min(start + 500)).map(|n| json(&value!({ "k": format!("k{}", n % 10), "n": n }))).collect();
        append(log.as_ref(), "facts", u32::try_from(start / 500 % 2).unwrap(), records).await;
    }
}

fn open(log: &Arc<MemoryLog>, clock: Arc<dyn Clock>, limits: StepLimits) -> Supervisor {
    let config = QueryConfig { workers: 2, ..QueryConfig::default() };
    Supervisor::open_with(Arc::clone(log) as Arc<dyn LogBackend>, clock, &config, limits).unwrap()
}

/// Folds everything there is; gives the units that the query wrote, and the rows that it counted.
async fn fold(count: i64, clock: Arc<dyn Clock>, limits: StepLimits) -> (usize, i64) {
    let log = log_of(count).await;
    let supervisor = open(&log, clock, limits);
    supervisor.start(&definition("by_key"), &counted("by_key", facts(), 0)).unwrap();
    let view = supervisor.view("by_key").unwrap();
    view.wait(log.head().position, PATIENCE).await.unwrap();
    let rows = rows_counted(&view.pin().unwrap());
    (read_all(log.as_ref(), &["_foldlog.progress"]).len(), rows)
}

fn rows_counted(pinned: &Pinned) -> i64 {
    let of = |batch: &arrow::record_batch::RecordBatch| batch.column(1).as_primitive::<Int64Type>().values().iter().sum::<i64>();
    pinned.scan().map(|batch| of(&batch.unwrap())).sum()
}

#[tokio::test]
async fn a_step_ends_when_its_time_is_over() {
    let time = Duration::from_millis(5);
    let limits = StepLimits { look: 100, time, time_alone: time, ..StepLimits::default() };
    let (units, rows) = fold(5000, Arc::new(ManualClock::at(Timestamp::new(0))), limits).await;
    assert_eq!((units, rows), (1, 5000), "in no time everything is one step");
    // The third look finds 5 ms gone.
    let (units, rows) = fold(5000, Arc::new(SteppingClock::new(Duration::from_millis(2))), limits).await;
    assert_eq!(rows, 5000);
    assert!(units >= 5000 / 300, "{units} units");
    // Every look does, and yet it goes on.
    let (units, rows) = fold(5000, Arc::new(SteppingClock::new(Duration::from_secs(1))), limits).await;
    assert_eq!((units, rows), (50, 5000));
}

#[tokio::test]
async fn a_table_that_is_behind_makes_one_step_of_several_readings() {
    let still: Arc<dyn Clock> = Arc::new(ManualClock::at(Timestamp::new(0)));
    let read = ReadLimits { records: 100, ..ReadLimits::default() };
    let limits = StepLimits { read, look: 64, ..StepLimits::default() };
    let (units, rows) = fold(5000, Arc::clone(&still), limits).await;
    // Of 50 readings; where the next one is still being decoded, a step does not wait for it.
    assert!((1..=10).contains(&units) && rows == 5000, "{units} units, {rows} rows");
    // No step is longer than it may be, whatever it is made of.
    let (units, rows) = fold(5000, Arc::clone(&still), StepLimits { rows: 320, ..limits }).await;
    assert_eq!(rows, 5000);
    assert!((5000_usize.div_ceil(320 + 64)..=5000 / 100).contains(&units), "{units} units");
}

/// A clock that does something at every look of a worker.
struct Watched(Mutex<Box<dyn FnMut() + Send>>);

impl Clock for Watched {
    fn now(&self) -> Timestamp {
        Timestamp::new(0)
    }

    fn monotonic(&self) -> Duration {
        let is_worker = std::thread::current().name().is_some_and(|name| name.starts_with("fold-"));
        if is_worker && let Some(mut watch) = self.0.try_lock() {
            watch();
        }
        Duration::ZERO
    }
}

#[tokio::test]
async fn readers_see_the_committed_view_in_the_middle_of_a_step() {
    let log = log_of(5000).await;
    let (ask, asked) = mpsc::channel();
    let (answer, answered) = mpsc::channel();
    let clock = Watched(Mutex::new(Box::new(move || {
        if ask.send(()).is_ok() {
            answered.recv_timeout(PATIENCE).expect("a reader waits for a whole step");
        }
    })));
    let supervisor = open(&log, Arc::new(clock), StepLimits { look: 100, ..StepLimits::default() });
    supervisor.start(&definition("by_key"), &counted("by_key", facts(), 0)).unwrap();
    let view = supervisor.view("by_key").unwrap();
    let reader = std::thread::spawn({
        let view = Arc::clone(&view);
        move || {
            let mut seen = Vec::new();
            while asked.recv().is_ok() {
                let rows = rows_counted(&view.pin().unwrap());
                seen.push(rows);
                answer.send(()).unwrap();
                if rows >= 5000 {
                    break;
                }
            }
            seen
        }
    });
    view.wait(log.head().position, PATIENCE).await.unwrap();
    // Another step, so that the reader sees the first one whole.
    append_facts(&log, 1).await;
    let seen = reader.join().unwrap();
    assert!(seen.iter().filter(|rows| **rows == 0).count() >= 40, "{seen:?}");
    // The second step may be there by then, whole.
    assert!(seen.iter().all(|rows| [0, 5000, 5001].contains(rows)), "{seen:?}");
    drop(view);
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_reader_that_holds_too_much_is_given_up_before_the_query_is() {
    let log = log_of(0).await;
    let config = QueryConfig { workers: 1, state_mib: 1, ..QueryConfig::default() };
    let supervisor = Supervisor::open(Arc::clone(&log) as Arc<dyn LogBackend>, Arc::new(SystemClock::new()), &config).unwrap();
    supervisor.start(&definition("by_key"), &counted("by_key", facts(), 0)).unwrap();
    let view = supervisor.view("by_key").unwrap();
    let each_key = || async {
        for start in (0..14_000).step_by(1000) {
            let records = (start..start + 1000).map(|n| json(&value!({ "k": format!("k{n}") }))).collect();
            append(log.as_ref(), "facts", 0, records).await;
        }
        view.wait(log.head().position, PATIENCE).await.unwrap();
    };
    each_key().await;
    let pinned = view.pin().unwrap();
    assert_eq!(rows_counted(&pinned), 14_000);
    // Rows of all keys as they were, beside the rows themselves, are more than the budget.
    each_key().await;
    let old = pinned.scan().find_map(Result::err);
    assert!(matches!(old, Some(QueryError::SnapshotTooOld { .. })), "{old:?}");
    assert_eq!(rows_counted(&view.pin().unwrap()), 28_000);
    supervisor.shut_down().await;
}

#[tokio::test]
async fn push_queries_over_a_stream_share_what_they_decode() {
    let log = log_of(2000).await;
    let supervisor = open(&log, Arc::new(SystemClock::new()), StepLimits::default());
    let backend = Arc::clone(&log) as Arc<dyn LogBackend>;
    let push = Push::new(backend, supervisor.clone(), &QueryConfig::default());
    let plan = StreamPlan { sink: Sink::Volatile, ..copied("copy").0 };
    let request = Request {
        sql: String::new(),
        parameters: Vec::new(),
        at_least: None,
        resume: Some(Position::default().into()),
        timeout: PATIENCE,
        session: Session::default(),
    };
    let mut answers = Vec::new();
    for _ in 0..10 {
        answers.push(push.start(plan.clone(), Some(3000), &request).await.unwrap());
    }
    append_facts(&log, 1000).await;
    let counts = answers.into_iter().map(|answer| async {
        let rows = answer.items.map(|item| match item.unwrap() {
            PushItem::Changes { rows, .. } => rows.num_rows(),
            PushItem::Progress(_) => 0,
        });
        rows.fold(0, |sum, rows| async move { sum + rows }).await
    });
    let counts = tokio::time::timeout(PATIENCE, futures::future::join_all(counts)).await.unwrap();
    assert_eq!(counts, [3000; 10]);
    assert_eq!(supervisor.decoded(), 3000);
    supervisor.shut_down().await;
}

#[tokio::test]
async fn a_restart_reads_each_record_from_the_start_once_and_writes_nothing_again() {
    let log = log_of(1000).await;
    let definition = QueryDef { start: Position::new(500), ..definition("by_key") };
    let mut wrote = None;
    for _life in 0..3 {
        let supervisor = open(&log, Arc::new(SystemClock::new()), StepLimits { look: 64, ..StepLimits::default() });
        supervisor.start(&definition, &counted("by_key", facts(), 0)).unwrap();
        let view = supervisor.view("by_key").unwrap();
        view.wait(log.head().position, PATIENCE).await.unwrap();
        let records = read_all(log.as_ref(), &["facts"]).iter().filter(|record| record.position >= 500).count() as u64;
        assert_eq!(rows_counted(&view.pin().unwrap()), i64::try_from(records).unwrap());
        let status = supervisor.queries().remove(0);
        assert_eq!((status.rows_in, supervisor.decoded()), (records, records));
        supervisor.shut_down().await;
        let written = read_all(log.as_ref(), &["by_key"]).len();
        if let Some((rows_out, head, before)) = wrote {
            assert_eq!((status.rows_out, log.head().position, written), (rows_out, head, before));
        }
        wrote = Some((0, log.head().position, written));
    }
    assert!(wrote.unwrap().2 > 0);
}

#[tokio::test]
async fn a_query_tells_how_far_it_is_before_it_ends() {
    let log = log_of(0).await;
    // Without a key they are in no group, and nothing is written.
    append(log.as_ref(), "facts", 0, (0..3).map(|n| json(&value!({ "n": n }))).collect()).await;
    let told = || read_all(log.as_ref(), &["_foldlog.progress"]).len();
    for before in [0, 1] {
        let supervisor = open(&log, Arc::new(ManualClock::at(Timestamp::new(0))), StepLimits::default());
        supervisor.start(&definition("by_key"), &counted("by_key", facts(), 0)).unwrap();
        supervisor.view("by_key").unwrap().wait(log.head().position, PATIENCE).await.unwrap();
        assert_eq!(told(), before);
        supervisor.shut_down().await;
        assert_eq!(told(), 1);
    }
}
