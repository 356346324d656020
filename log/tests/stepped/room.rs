//! What the stories share: a data folder on a simulated disk, a log that is open in it, and how both are stepped, read and cut off.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use foldlog_log::{
    Append, Appended, EmbeddedLog, EventQuery, LogBackend, LogConfig, LogError, LogReader, NewRecord, PartitionId, Position, Precondition,
    QueryAbsent, QueryItem, ReadLimits, RecordView, Run, Scope, Selection, Snapshot, Stepper, StreamChange, StreamVersion, Timestamp,
    TopicName, Write,
    backup::BackupReport,
    clock::{Clock, ManualClock},
    disk::Disk,
    restore::{Restored, Until, restore},
    testing::{Fault, SimDisk},
};
use futures::FutureExt;

pub const DATA: &str = "/data";
pub const BACKUP: &str = "/backup";
/// When every story begins.
pub const NOW: Timestamp = Timestamp::new(1_700_000_000_000);
pub const HOUR: Duration = Duration::from_secs(3600);
/// Longer than a segment waits to be sealed.
pub const LONG: Duration = Duration::from_secs(8 * 24 * 3600);
/// Few records at a time.
pub const SMALL: ReadLimits = ReadLimits { records: 3, bytes: 700 };

/// One of the things that are stepped.
pub type Step = fn(&mut Stepper) -> Result<(), LogError>;

/// A data folder, with a folder for backups beside it.
pub struct Folder {
    pub disk: SimDisk,
    pub clock: Arc<ManualClock>,
    pub config: LogConfig,
    /// Logs opened and folders restored, so that no two draw the same numbers.
    starts: u64,
}

/// A log that is open in a folder.
pub struct Log {
    pub log: EmbeddedLog,
    pub stepper: Stepper,
    pub clock: Arc<ManualClock>,
}

/// The way a reader goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Forwards,
    Backwards,
}

/// Small files, so that little is written to fill many, and nothing but the newest checkpoint's rest in memory.
pub fn config() -> LogConfig {
    LogConfig {
        first_journal_file_bytes: 32 << 10,
        journal_file_bytes: 128 << 10,
        tail_bytes: 0,
        segment_bytes: 8 << 10,
        ..LogConfig::default()
    }
}

impl Folder {
    pub fn new(seed: u64, config: LogConfig) -> Self {
        let disk = SimDisk::new(seed);
        disk.create_folder(Path::new(BACKUP)).unwrap();
        disk.sync_folder(Path::new("/")).unwrap();
        Self { disk, clock: Arc::new(ManualClock::at(NOW)), config, starts: 0 }
    }

    /// The same as it is now, on a disk of its own.
    pub fn fork(&self) -> Self {
        let clock = Arc::new(ManualClock::at(self.clock.now()));
        Self { disk: self.disk.fork(), clock, config: self.config.clone(), starts: self.starts }
    }

    /// Opens it, and finds no damage.
    pub fn open(&mut self) -> Log {
        self.open_at(DATA)
    }

    pub fn open_at(&mut self, folder: &str) -> Log {
        let log = self.try_open(folder).unwrap();
        assert_eq!((&log.log.report().damage, &log.log.report().damaged), (&None, &Vec::new()));
        log
    }

    pub fn try_open(&mut self, folder: &str) -> Result<Log, LogError> {
        let (disk, draws) = (Arc::new(self.disk.clone()), self.draws());
        let (log, stepper) = EmbeddedLog::open_stepped(disk, self.clock.clone(), Path::new(folder), self.config.clone(), draws)?;
        log.allow_removal();
        Ok(Log { log, stepper, clock: self.clock.clone() })
    }

    /// The same log when the power was cut and has come back.
    pub fn cut(&mut self, log: Log) -> Log {
        drop(log);
        self.disk = self.disk.power_cut();
        self.open()
    }

    /// Ends what is left of a log, by the power or by the end of the process alone.
    pub fn crash(&mut self, log: Log, by_power: bool) {
        drop(log);
        self.disk = if by_power { self.disk.power_cut() } else { self.disk.kill() };
    }

    /// Takes one step after the other, and has the power go from step `from` on, after `nth` calls that change something. Whether it went.
    pub fn step_until_cut(&self, log: &mut Log, steps: &[Step], from: usize, nth: u64) -> bool {
        steps.iter().enumerate().any(|(number, step)| {
            if number == from {
                self.disk.arm(Fault::PowerOff { nth });
            }
            step(&mut log.stepper).is_err()
        })
    }

    pub fn restore(&mut self, to: &str, until: Option<Until>) -> Result<Restored, LogError> {
        let (disk, clock): (Arc<dyn Disk>, Arc<dyn Clock>) = (Arc::new(self.disk.clone()), self.clock.clone());
        let salts = self.draws();
        restore(&disk, &clock, Path::new(BACKUP), Path::new(to), until, &self.config, salts)
    }

    fn draws(&mut self) -> impl FnMut() -> u128 + Send + use<> {
        self.starts += 1;
        let mut drawn = u128::from(self.starts) << 64;
        move || {
            drawn += 1;
            drawn
        }
    }

    /// Files with an extension in the data folder.
    pub fn files(&self, extension: &str) -> Vec<PathBuf> {
        self.files_in(DATA).into_iter().filter(|path| path.extension().is_some_and(|one| one == extension)).collect()
    }

    pub fn files_in(&self, folder: &str) -> Vec<PathBuf> {
        self.disk.paths().into_iter().filter(|path| path.starts_with(folder) && self.disk.bytes_of(path).is_some()).collect()
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> usize {
        self.files("log").iter().map(|path| self.disk.bytes_of(path).unwrap().len()).sum()
    }

    /// What lies in segments, one after the other.
    pub fn text(&self) -> Vec<u8> {
        self.files("log").iter().flat_map(|path| self.disk.bytes_of(path).unwrap()).collect()
    }

    /// Takes away everything that can be made again of segments.
    pub fn lose_what_is_derived(&self) {
        let derived = ["keys", "keylog", "index", "postings"].map(|extension| self.files(extension)).concat();
        assert!(derived.len() > 3);
        derived.iter().for_each(|path| self.disk.remove(path).unwrap());
    }
}

impl Log {
    /// Appends, and commits at once.
    pub fn append(&mut self, append: Append) -> Result<Appended, LogError> {
        commit(&self.log, &mut self.stepper, append)
    }

    pub fn try_write(&mut self, write: Write) -> Result<Appended, LogError> {
        self.append(Append { writes: vec![write], ..Append::default() })
    }

    pub fn write(&mut self, write: Write) -> Appended {
        self.try_write(write).unwrap()
    }

    /// Seals what there is, however little.
    pub fn seal(&mut self) {
        self.try_seal().unwrap();
    }

    pub fn try_seal(&mut self) -> Result<(), LogError> {
        self.stepper.tidy()?;
        self.clock.advance(LONG);
        self.stepper.upkeep()?;
        self.stepper.tidy()
    }

    /// Writes segments anew until nothing is due, down to the files. How many steps that took.
    pub fn compact(&mut self) -> usize {
        self.try_compact().unwrap()
    }

    pub fn try_compact(&mut self) -> Result<usize, LogError> {
        let mut steps = 0;
        while self.stepper.compact()? {
            self.stepper.commit()?;
            self.stepper.tidy()?;
            steps += 1;
            assert!(steps < 1_000, "it does not end");
        }
        self.stepper.tidy()?;
        self.stepper.upkeep()?;
        Ok(steps)
    }

    /// Lets each thread have its turn.
    pub fn turn(&mut self) -> Result<(), LogError> {
        turn(&mut self.stepper)
    }

    pub fn back_up(&mut self) -> BackupReport {
        self.stepper.back_up(Path::new(BACKUP)).unwrap()
    }

    /// Whether an event of a topic behind a position matches, as a condition sees it.
    pub fn finds(&mut self, topic: &TopicName, query: QueryItem, after: Option<Position>) -> bool {
        let asked = QueryAbsent { scope: Scope::Topics(vec![topic.clone()]), query: EventQuery::Items(vec![query]), after };
        match self.append(Append { preconditions: vec![Precondition::QueryAbsent(asked)], ..Append::default() }) {
            Ok(_) => false,
            Err(LogError::Conflict { .. }) => true,
            Err(error) => panic!("{error}"),
        }
    }

    /// What is made of each record that a reader returns, as it goes.
    pub fn read<T>(
        &self,
        reader: Result<Box<dyn LogReader>, LogError>,
        way: Way,
        limits: ReadLimits,
        of: impl Fn(&Run, RecordView<'_>) -> T,
    ) -> Vec<T> {
        let (mut reader, mut found, head) = (reader.unwrap(), Vec::new(), self.log.head().position);
        loop {
            let chunk = reader.read(head, limits).unwrap();
            for run in &chunk.runs {
                let from = found.len();
                found.extend(run.records().map(|record| of(run, record.unwrap())));
                if way == Way::Backwards {
                    found[from..].reverse();
                }
            }
            let is_over = if way == Way::Backwards { chunk.scanned_to.get() == 0 } else { chunk.scanned_to >= head };
            if chunk.runs.is_empty() && is_over {
                return found;
            }
        }
    }
}

/// Appends, and commits at once.
pub fn commit(log: &EmbeddedLog, stepper: &mut Stepper, append: Append) -> Result<Appended, LogError> {
    let answer = log.append(append)?;
    stepper.commit()?;
    answer.now_or_never().unwrap()
}

/// Lets each thread of a log have its turn.
pub fn turn(stepper: &mut Stepper) -> Result<(), LogError> {
    stepper.compact()?;
    stepper.commit()?;
    stepper.tidy()?;
    stepper.upkeep()
}

pub fn name(topic: &str) -> TopicName {
    topic.parse().unwrap()
}

/// A record of a topic's first partition.
pub fn record(topic: &str, key: &str, value: Option<String>) -> Write {
    let record = NewRecord { key: Some(key.to_owned().into()), value: value.map(Into::into), ..NewRecord::default() };
    Write::Records { topic: name(topic), partition: Some(PartitionId::new(0)), records: vec![record] }
}

pub fn change(topic: &str, stream: &str, change: StreamChange) -> Write {
    Write::Change { topic: name(topic), stream: stream.parse().unwrap(), change, by: "ann".into() }
}

pub fn snapshot(topic: &str, stream: &str, version: u64, data: Vec<u8>) -> Write {
    let snapshot = Snapshot { version: StreamVersion::new(version), schema: None, content_type: None, data: data.into() };
    Write::Snapshot { topic: name(topic), stream: stream.parse().unwrap(), snapshot, by: "ann".into() }
}

pub fn redact(topic: &str, stream: &str, versions: &[u64]) -> Write {
    let versions = versions.iter().copied().map(StreamVersion::new).collect();
    Write::Redact { topic: name(topic), stream: stream.parse().unwrap(), versions, by: "the officer".into(), reason: "asked to".into() }
}

pub fn of_partition(topic: &str, from: u64) -> Selection {
    Selection::Partition(name(topic), PartitionId::new(0), foldlog_log::Offset::new(from))
}

pub fn of_topic(topic: &str, from: u64) -> Selection {
    Selection::Topics(vec![name(topic)], Position::new(from))
}

pub fn of_stream(topic: &str, stream: &str, from: u64) -> Selection {
    Selection::Stream(name(topic), stream.parse().unwrap(), StreamVersion::new(from))
}
