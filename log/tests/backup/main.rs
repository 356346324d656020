//! Backups of a running log, and what is restored of them: whole or cut, after power cuts at any time, and never a part of an append.
#![expect(clippy::unwrap_used, reason = "tests")]

mod compacted;
mod cut;
mod fault;
mod lives;
mod meanwhile;
mod take;
mod topics;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use foldlog_log::{
    Append, EmbeddedLog, EventQuery, Identity, LogBackend, LogConfig, LogError, NewEvent, NewRecord, Position, Precondition, QueryAbsent,
    ReadLimits, RequestId, RequestKey, Retention, Scope, Selection, Stepper, Timestamp, TopicKind, TopicName, TopicSettings, Write,
    backup::BackupReport,
    clock::{Clock, ManualClock},
    disk::Disk,
    restore::{GAP, Restored, Until, restore},
    testing::{Fault, Random, SimDisk},
};
use futures::FutureExt;

const DATA: &str = "/data";
const BACKUP: &str = "/backup";
const NEW: &str = "/new";
const NOW: i64 = 1_700_000_000_000;

struct World {
    disk: SimDisk,
    clock: Arc<ManualClock>,
    random: Random,
}

struct Log {
    log: EmbeddedLog,
    stepper: Stepper,
    clock: Arc<ManualClock>,
}

/// What was appended in one unit: its end, when, and the texts in it.
#[derive(Clone, Debug)]
struct Unit {
    end: Position,
    at: Timestamp,
    texts: Vec<String>,
}

fn name(topic: &str) -> TopicName {
    topic.parse().unwrap()
}

fn config() -> LogConfig {
    LogConfig {
        first_journal_file_bytes: 64 << 10,
        journal_file_bytes: 64 << 10,
        tail_bytes: 0,
        segment_bytes: 4096,
        ..LogConfig::default()
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let disk = SimDisk::new(seed);
        disk.create_folder(Path::new(BACKUP)).unwrap();
        disk.sync_folder(Path::new("/")).unwrap();
        Self { disk, clock: Arc::new(ManualClock::at(Timestamp::new(NOW))), random: Random::new(seed) }
    }

    fn open(&mut self, folder: &str) -> Log {
        let mut random = Random::new(self.random.next());
        let draw = move || (u128::from(random.next()) << 64) | u128::from(random.next());
        let disk = Arc::new(self.disk.clone());
        let (log, stepper) = EmbeddedLog::open_stepped(disk, self.clock.clone(), Path::new(folder), config(), draw).unwrap();
        assert_eq!((&log.report().damage, &log.report().damaged), (&None, &vec![]));
        Log { log, stepper, clock: self.clock.clone() }
    }

    fn restore(&mut self, folder: &str, until: Option<Until>) -> Result<Restored, LogError> {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let clock: Arc<dyn Clock> = self.clock.clone();
        let mut salt = 0;
        restore(&disk, &clock, Path::new(BACKUP), Path::new(folder), until, &config(), || {
            salt += 1;
            salt
        })
    }
}

impl Log {
    fn create(&self) {
        self.log.create_topic(name("e"), TopicSettings::new(TopicKind::Events, 2)).unwrap();
        self.log.create_topic(name("r"), TopicSettings::new(TopicKind::Records, 2)).unwrap();
    }

    /// One unit over two topics and several partitions; every third one in the same millisecond as the one before.
    fn append(&mut self, number: u64) -> Unit {
        if !number.is_multiple_of(3) {
            self.clock.advance(Duration::from_millis(1));
        }
        let texts: Vec<_> = (0..4).map(|part| format!("{number}-{part}-{}", "x".repeat(200))).collect();
        let event = |text: &String| NewEvent { kind: "E".into(), data: text.clone().into(), ..NewEvent::default() };
        let record = |text: &String| NewRecord { value: Some(text.clone().into()), key: Some(text.clone().into()), ..NewRecord::default() };
        let stream = |stream: String, text| Write::Stream { topic: name("e"), stream: stream.parse().unwrap(), events: vec![event(text)] };
        let writes = vec![
            stream(format!("a{}", number % 5), &texts[0]),
            Write::Records { topic: name("r"), partition: None, records: vec![record(&texts[1]), record(&texts[2])] },
            stream(format!("b{}", number % 3), &texts[3]),
        ];
        let answer = self.log.append(Append { writes, identity: Some(identity(number)), ..Append::default() }).unwrap();
        self.stepper.commit().unwrap();
        let answer = answer.now_or_never().unwrap().unwrap();
        Unit { end: answer.end, at: answer.recorded_at, texts }
    }

    fn append_all(&mut self, numbers: std::ops::Range<u64>) -> Vec<Unit> {
        numbers
            .map(|number| {
                if number.is_multiple_of(7) {
                    self.stepper.tidy().unwrap();
                }
                self.append(number)
            })
            .collect()
    }

    fn back_up(&mut self) -> BackupReport {
        self.stepper.back_up(Path::new(BACKUP)).unwrap()
    }

    /// Everything that is there, in order.
    fn texts(&self) -> Vec<String> {
        let end = self.log.head().position;
        let mut reader = self.log.reader(Selection::All(Position::default())).unwrap();
        let (mut texts, mut at) = (Vec::new(), Position::default());
        while at < end {
            let chunk = reader.read(end, ReadLimits::default()).unwrap();
            for run in &chunk.runs {
                texts.extend(run.records().filter_map(|record| Some(String::from_utf8(record.unwrap().value?.to_vec()).unwrap())));
            }
            at = chunk.scanned_to;
        }
        texts
    }

    fn refused(&mut self, append: Append) -> LogError {
        let refused = self.log.append(append).and_then(|answer| {
            self.stepper.commit().unwrap();
            answer.now_or_never().unwrap()
        });
        refused.unwrap_err()
    }
}

fn identity(number: u64) -> Identity {
    let key = RequestKey { principal: "p".into(), id: RequestId::new(u128::from(number).to_le_bytes()) };
    Identity { key, digest: number.into(), first_attempt: None }
}

fn texts(units: &[Unit]) -> Vec<String> {
    units.iter().flat_map(|unit| unit.texts.clone()).collect()
}
