//! Stories of views that are scanned again and again while they change: what nothing touched is not read anew, and no reader sees what
//! belongs to another position.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{AsArray as _, types::Int64Type},
    record_batch::RecordBatch,
};
use common::{PATIENCE, append, counted, create, definition, facts, json};
use foldlog_log::{LogBackend, NewRecord, TopicKind, clock::SystemClock, testing::MemoryLog};
use foldlog_query::{
    QueryConfig,
    stream::view::{Pinned, View},
    supervisor::Supervisor,
};
use serde_json::json as value;

/// Keys of the view: three parts of a scan, the last of them not full.
const KEYS: i64 = 20_000;

/// How often each key came.
type Counts = BTreeMap<String, i64>;

struct Stage {
    log: Arc<MemoryLog>,
    supervisor: Supervisor,
    view: Arc<View>,
    counts: Counts,
}

impl Stage {
    async fn new() -> Self {
        let log = Arc::new(MemoryLog::new(Arc::new(SystemClock::new())));
        create(log.as_ref(), "facts", TopicKind::Records, 1);
        create(log.as_ref(), "by_key", TopicKind::Table, 1);
        let config = QueryConfig { workers: 2, ..QueryConfig::default() };
        let backend = Arc::clone(&log) as Arc<dyn LogBackend>;
        let supervisor = Supervisor::open(backend, Arc::new(SystemClock::new()), &config).unwrap();
        supervisor.start(&definition("by_key"), &counted("by_key", facts(), 0)).unwrap();
        let view = supervisor.view("by_key").unwrap();
        let mut stage = Self { log, supervisor, view, counts: Counts::new() };
        stage.comes(0..KEYS).await;
        stage
    }

    /// One more record of each of these keys.
    async fn comes(&mut self, keys: impl IntoIterator<Item = i64>) {
        let keys: Vec<String> = keys.into_iter().map(|number| format!("k{number}")).collect();
        for part in keys.chunks(1000) {
            let records: Vec<NewRecord> = part.iter().map(|key| json(&value!({ "k": key, "n": 1 }))).collect();
            append(self.log.as_ref(), "facts", 0, records).await;
        }
        keys.into_iter().for_each(|key| *self.counts.entry(key).or_default() += 1);
        self.view.wait(self.log.head().position, PATIENCE).await.unwrap();
    }

    fn pinned(&self) -> (Pinned, Counts) {
        (self.view.pin().unwrap(), self.counts.clone())
    }
}

fn batches(pinned: &Pinned) -> Vec<RecordBatch> {
    pinned.scan().map(Result::unwrap).collect()
}

fn counts(pinned: &Pinned) -> Counts {
    let of = |batch: &RecordBatch| {
        let counts = batch.column(1).as_primitive::<Int64Type>().values().to_vec();
        let keys: Vec<String> = batch.column(0).as_string::<i32>().iter().map(|key| key.unwrap().to_owned()).collect();
        keys.into_iter().zip(counts).collect::<Vec<_>>()
    };
    batches(pinned).iter().flat_map(of).collect()
}

/// Which parts of two scans are one and the same in memory.
fn shared(one: &Pinned, other: &Pinned) -> Vec<bool> {
    let columns = |pinned: &Pinned| batches(pinned).iter().map(|batch| Arc::clone(batch.column(0))).collect::<Vec<_>>();
    columns(one).iter().zip(&columns(other)).map(|(one, other)| Arc::ptr_eq(one, other)).collect()
}

#[tokio::test]
async fn what_nothing_touched_is_not_read_again() {
    let mut stage = Stage::new().await;
    let before = stage.view.pin().unwrap();
    assert_eq!(shared(&before, &before), [true; 3], "as the scan before left it");
    stage.comes([9000]).await;
    let (after, expected) = stage.pinned();
    assert_eq!(shared(&before, &after), [true, false, true], "a row of the second part has changed");
    assert_eq!(counts(&after), expected);
    stage.comes([KEYS]).await;
    let (longer, expected) = stage.pinned();
    assert_eq!(shared(&after, &longer), [true, true, false], "the last part has one more row");
    assert_eq!(counts(&longer), expected);
    stage.supervisor.shut_down().await;
}

#[tokio::test]
async fn each_reader_scans_the_view_of_its_own_position() {
    let mut stage = Stage::new().await;
    let mut readers: Vec<(Pinned, Counts)> = Vec::new();
    for round in 0..40_i64 {
        // In some rounds a part is untouched, in some all are touched, and now and then new keys come.
        let new = if round % 5 == 4 { KEYS + round..KEYS + round + 3 } else { 0..0 };
        stage.comes((0..round % 4).map(|part| part * 8192 + round * 31 % 3000).chain(new)).await;
        readers.push(stage.pinned());
        // The oldest first or last, so that what one has left meets readers of older positions and of newer ones.
        for place in 0..readers.len() {
            let place = if round % 2 == 0 { place } else { readers.len() - 1 - place };
            let (pinned, expected) = &readers[place];
            assert!(counts(pinned) == *expected, "round {round}: the reader at {} sees another position", pinned.position());
        }
        if readers.len() > 6 {
            readers.remove(usize::try_from(round % 6).unwrap());
        }
    }
    stage.supervisor.shut_down().await;
}
