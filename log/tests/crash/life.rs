//! One life of a data folder, and what must hold in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use foldlog_log::{
    Append, AppendFuture, Appended, Compression, Durability, EmbeddedLog, Expected, Identity, LogBackend, LogConfig, LogError, NewEvent,
    NewRecord, Position, Precondition, ReadLimits, RequestId, RequestKey, Selection, Stepper, StreamHead, StreamVersion, Timestamp,
    TopicKind, TopicSettings, Write,
    clock::ManualClock,
    testing::{Fault, Random, SimDisk, SyncSite},
};
use futures::FutureExt;

const FOLDER: &str = "/data";

/// A promise that did not hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// An acknowledged or shown record is not there, or another one is in its place.
    Lost(String),
    /// Some of a unit is there, and some is not.
    Torn(String),
    /// A unit that was gone after a start is back.
    Revived(String),
    /// A start refused the folder, or found damage where there was only a crash.
    Refused(String),
    /// Versions of a stream have a gap, or a head is wrong.
    Versions(String),
    /// A repeat did not get its first answer.
    Repeat(String),
    /// An answer is weaker than was asked.
    Weaker(String),
    /// A topic that was created is not there.
    Topic(String),
    /// Files stay that nobody knows any more.
    Left(String),
    /// A call of the disk failed under a read; a failure only if none was meant to.
    Read(String),
}

impl Failure {
    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Lost(_) => "lost",
            Self::Torn(_) => "torn",
            Self::Revived(_) => "revived",
            Self::Refused(_) => "refused",
            Self::Versions(_) => "versions",
            Self::Repeat(_) => "repeat",
            Self::Weaker(_) => "weaker",
            Self::Topic(_) => "topic",
            Self::Left(_) => "left",
            Self::Read(_) => "read",
        }
    }
}

/// What happened in lives, to show that something did.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub starts: u64,
    pub acknowledged: u64,
    pub cuts: u64,
    pub kills: u64,
    pub failed_calls: u64,
    pub full_disks: u64,
    pub unknown_kept: u64,
    pub unknown_gone: u64,
    pub checkpoints: u64,
    pub repeats: u64,
    pub conflicts: u64,
    /// Units that were answered as written and not shown before the end.
    pub written_kept: u64,
    pub written_gone: u64,
}

impl Seen {
    /// Adds another life's.
    pub fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.starts, other.starts),
            (&mut self.acknowledged, other.acknowledged),
            (&mut self.cuts, other.cuts),
            (&mut self.kills, other.kills),
            (&mut self.failed_calls, other.failed_calls),
            (&mut self.full_disks, other.full_disks),
            (&mut self.unknown_kept, other.unknown_kept),
            (&mut self.unknown_gone, other.unknown_gone),
            (&mut self.checkpoints, other.checkpoints),
            (&mut self.repeats, other.repeats),
            (&mut self.conflicts, other.conflicts),
            (&mut self.written_kept, other.written_kept),
            (&mut self.written_gone, other.written_gone),
        ];
        for (sum, more) in pairs {
            *sum += more;
        }
    }
}

/// A record as it was read: position, topic, partition, offset, key, value, version.
type Read = (u64, String, u32, u64, String, String, u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Answered as synced, or shown.
    Here,
    /// Answered as written: a kill leaves it there, a power cut may take it.
    Written,
    /// Answered as written before a power cut, and not looked for yet.
    Cut,
    /// Not answered before the crash, and not looked for yet.
    Unknown,
    /// Not there after a start.
    Gone,
}

/// A data folder, its disk, and everything that was promised.
pub struct Life {
    /// A place where syncs are forgotten.
    forgets: Option<SyncSite>,
    random: Random,
    disk: SimDisk,
    clock: Arc<ManualClock>,
    config: LogConfig,
    next_unit: u64,
    /// Records of each unit.
    sizes: BTreeMap<u64, usize>,
    fates: BTreeMap<u64, Fate>,
    /// Every record ever acknowledged or shown, by position.
    shown: BTreeMap<u64, Read>,
    topics: BTreeSet<String>,
    /// Whether something that can fail was arranged for this start.
    armed: bool,
    full: bool,
    /// Requests with an id that were answered.
    answered: Vec<(Append, Appended)>,
    /// What happened.
    pub seen: Seen,
}

impl Life {
    /// A folder that does not exist yet, on a disk on which power, calls and space fail, and maybe syncs at one place are
    /// forgotten.
    pub fn new(seed: u64, forgets: Option<SyncSite>) -> Self {
        let mut random = Random::new(seed ^ 0x5eed);
        let config = LogConfig {
            first_journal_file_bytes: 32 << 10,
            journal_file_bytes: 128 << 10,
            tail_bytes: random.below(3) * 4096,
            tidy_bytes: 16 << 10,
            untidied_bytes: 1 << 20,
            segment_bytes: 4096 + random.below(3) * 4096,
            reserve_bytes: seed % 2 * (32 << 10),
            reserve_percent: 0,
            ..LogConfig::default()
        };
        let disk = SimDisk::new(seed);
        if let Some(site) = &forgets {
            disk.ignore_syncs_at(site.clone());
        }
        Self {
            forgets,
            random,
            disk,
            clock: Arc::new(ManualClock::at(Timestamp::new(1_000_000))),
            config,
            next_unit: 0,
            sizes: BTreeMap::new(),
            fates: BTreeMap::new(),
            shown: BTreeMap::new(),
            topics: BTreeSet::new(),
            armed: false,
            full: false,
            answered: Vec::new(),
            seen: Seen::default(),
        }
    }

    /// Every place that synced.
    pub fn sync_sites(&self) -> Vec<SyncSite> {
        self.disk.sync_sites()
    }

    /// Lives a few starts long.
    pub fn run(&mut self) -> Result<(), Failure> {
        for _ in 0..4 + self.random.below(4) {
            self.arm();
            self.disk.set_phase("start");
            let opened = self.open();
            match opened {
                Ok((log, stepper)) => {
                    self.seen.starts += 1;
                    match self.check(&log).and_then(|()| self.live(&log, stepper)) {
                        Err(Failure::Read(_)) if self.is_struck() => {}
                        lived => lived?,
                    }
                }
                Err(error) => self.must_be_excused(&error)?,
            }
            self.crash();
        }
        // The last start meets no fault, so whatever was promised must be there.
        self.disk.set_phase("start");
        let (log, _) = self.open().map_err(|error| Failure::Refused(format!("{error}")))?;
        self.check(&log)
    }

    fn open(&mut self) -> Result<(EmbeddedLog, Stepper), LogError> {
        let mut draw = self.random.fork();
        // Ids without letters, so that places of the disk have the same name in every life.
        let random = move || ((u128::from(draw.next()) << 64) | u128::from(draw.next())) & (u128::MAX / 15 * 7);
        EmbeddedLog::open_stepped(Arc::new(self.disk.clone()), self.clock.clone(), Path::new(FOLDER), self.config.clone(), random)
    }

    /// Arranges what will go wrong until the next crash.
    fn arm(&mut self) {
        self.armed = true;
        self.full = false;
        let nth = if self.random.one_in(3) { self.random.below(40) } else { self.random.below(600) };
        match self.random.below(10) {
            0..4 => self.disk.arm(Fault::PowerOff { nth }),
            4..7 => self.disk.arm(Fault::Fail { kind: None, nth, errno: 5 }),
            7 => {
                self.full = true;
                self.seen.full_disks += 1;
                self.disk.set_capacity(self.disk.used() + self.random.below(200_000));
            }
            _ => self.armed = false,
        }
    }

    /// Whether what was arranged has happened.
    fn is_struck(&self) -> bool {
        self.full || (self.armed && (self.disk.is_off() || self.disk.is_disarmed()))
    }

    /// A start may fail when the disk does, not otherwise.
    fn must_be_excused(&self, error: &LogError) -> Result<(), Failure> {
        match error {
            LogError::Io { .. } | LogError::DiskFull { .. } if self.is_struck() => Ok(()),
            _ => Err(Failure::Refused(format!("{error:?}"))),
        }
    }

    fn crash(&mut self) {
        let struck = self.armed && !self.full && self.is_struck();
        if self.disk.is_off() || !self.random.one_in(3) {
            self.seen.cuts += 1;
            // What was only written may be gone, and whether it is must be looked for.
            self.fates.values_mut().filter(|fate| **fate == Fate::Written).for_each(|fate| *fate = Fate::Cut);
            let next = self.disk.power_cut();
            if let Some(site) = &self.forgets {
                next.ignore_syncs_at(site.clone());
            }
            self.disk = next;
        } else {
            self.seen.kills += 1;
            self.seen.failed_calls += u64::from(struck);
            self.disk = self.disk.kill();
        }
        self.disk.set_capacity(1 << 40);
    }

    /// Appends, seals, tidies and creates until something fails or enough was done.
    fn live(&mut self, log: &EmbeddedLog, mut stepper: Stepper) -> Result<(), Failure> {
        self.disk.set_phase("create");
        for (name, kind, partitions) in [("a", TopicKind::Events, 3), ("b", TopicKind::Events, 1), ("r", TopicKind::Records, 2)] {
            if !self.create(log, name, kind, partitions)? {
                return Ok(());
            }
        }
        for _ in 0..self.random.below(60) {
            self.clock.advance(Duration::from_millis(self.random.below(100)));
            let goes_on = match self.random.below(20) {
                0 | 1 => {
                    self.disk.set_phase("seal");
                    self.is_excused(stepper.seal())?
                }
                2 | 3 => {
                    self.disk.set_phase("tidy");
                    let before = log.metrics().checkpoints;
                    let tidied = stepper.tidy();
                    self.seen.checkpoints += log.metrics().checkpoints - before;
                    match tidied {
                        // A full disk is waited for.
                        Err(LogError::DiskFull { .. }) if self.full => true,
                        Err(LogError::Io { doing, source, .. }) if self.full && !doing.starts_with("sync") => {
                            assert_eq!(source.kind(), std::io::ErrorKind::StorageFull, "{doing}");
                            true
                        }
                        tidied => self.is_excused(tidied)?,
                    }
                }
                4 => {
                    self.disk.set_phase("create");
                    let name = format!("extra{}", self.random.below(1000));
                    self.create(log, &name, TopicKind::Table, 1)?
                }
                5 => self.repeat(log, &mut stepper)?,
                _ => self.append(log, &mut stepper)?,
            };
            if !goes_on {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether the log goes on; an error must have come from the disk.
    fn is_excused(&self, result: Result<(), LogError>) -> Result<bool, Failure> {
        match result {
            Ok(()) => Ok(true),
            Err(error) => self.must_be_excused(&error).map(|()| false),
        }
    }

    fn create(&mut self, log: &EmbeddedLog, name: &str, kind: TopicKind, partitions: u32) -> Result<bool, Failure> {
        // Tidy does what it can be killed in with batches of every sort.
        let compression = Compression::ALL[name.bytes().map(usize::from).sum::<usize>() % 3];
        match log.create_topic(name.parse().unwrap(), TopicSettings { compression, ..TopicSettings::new(kind, partitions) }) {
            Ok(_) => {
                self.topics.insert(name.into());
                Ok(true)
            }
            Err(LogError::ReadOnly { .. } | LogError::DiskFull { .. }) if self.full => Ok(false),
            Err(error) => self.must_be_excused(&error).map(|()| false),
        }
    }

    fn append(&mut self, log: &EmbeddedLog, stepper: &mut Stepper) -> Result<bool, Failure> {
        self.disk.set_phase("commit");
        let mut waiting: Vec<(u64, Append, AppendFuture)> = Vec::new();
        for _ in 0..=self.random.below(6) {
            let (unit, append) = self.unit();
            match log.append(append.clone()) {
                Ok(future) => waiting.push((unit, append, future)),
                Err(LogError::Overloaded { .. } | LogError::ReadOnly { .. } | LogError::Stopping) => {
                    self.fates.insert(unit, Fate::Gone);
                }
                Err(LogError::DiskFull { .. }) if self.full => {
                    self.fates.insert(unit, Fate::Gone);
                }
                Err(error) => panic!("{error}"),
            }
        }
        let head = log.stream_head(&"a".parse().unwrap(), &"s0".parse().unwrap()).unwrap();
        let mut wrong = self.unit();
        let expected = match head {
            StreamHead::At(_) => Expected::Absent,
            _ => Expected::Exists,
        };
        // Units before it may create the stream, but none removes it.
        if expected == Expected::Absent {
            let condition = Precondition::Stream { topic: "a".parse().unwrap(), stream: "s0".parse().unwrap(), expected };
            wrong.1.preconditions.push(condition);
            self.fates.insert(wrong.0, Fate::Gone);
            if let Ok(future) = log.append(wrong.1.clone()) {
                waiting.push((wrong.0, wrong.1, future));
            }
        } else {
            self.fates.insert(wrong.0, Fate::Gone);
        }
        let committed = stepper.commit();
        for (unit, append, future) in waiting {
            match future.now_or_never().expect("answered when the step is over") {
                Ok(answer) => {
                    if !append.preconditions.is_empty() {
                        return Err(Failure::Versions(format!("unit {unit} was let in against its expectation")));
                    }
                    let is_synced = answer.durability == Durability::Synced;
                    if !is_synced && append.durability == Some(Durability::Synced) {
                        return Err(Failure::Weaker(format!("unit {unit}")));
                    }
                    self.fates.insert(unit, if is_synced { Fate::Here } else { Fate::Written });
                    self.seen.acknowledged += 1;
                    // What a power cut took may be asked for anew, and is then another unit.
                    if committed.is_ok() && append.identity.is_some() {
                        self.answered.push((append, answer));
                    }
                }
                Err(LogError::Conflict { .. }) => self.seen.conflicts += 1,
                Err(LogError::DiskFull { .. }) if self.full => {
                    self.fates.insert(unit, Fate::Gone);
                }
                Err(LogError::Unknown) => {}
                Err(error) => panic!("{error}"),
            }
        }
        self.look(log)?;
        self.is_excused(committed)
    }

    /// Asks for something again that was answered.
    fn repeat(&mut self, log: &EmbeddedLog, stepper: &mut Stepper) -> Result<bool, Failure> {
        self.disk.set_phase("commit");
        if self.answered.is_empty() {
            return Ok(true);
        }
        let place = self.random.below(self.answered.len() as u64) as usize;
        let (append, answer) = self.answered[place].clone();
        let Ok(future) = log.append(append) else { return Ok(true) };
        let committed = stepper.commit();
        match future.now_or_never().expect("answered when the step is over") {
            Ok(again) if again == (Appended { deduplicated: true, durability: Durability::Synced, ..answer.clone() }) => {
                self.seen.repeats += 1
            }
            Err(LogError::Unknown) => {}
            Err(LogError::DiskFull { .. }) if self.full => {}
            other => return Err(Failure::Repeat(format!("{other:?} instead of {answer:?}"))),
        }
        self.is_excused(committed)
    }

    fn unit(&mut self) -> (u64, Append) {
        let unit = self.next_unit;
        self.next_unit += 1;
        let mut size = 0;
        let mut writes = Vec::new();
        for _ in 0..=self.random.below(3) {
            let count = 1 + self.random.below(3);
            size += count as usize;
            let length = if self.random.one_in(20) { 1500 } else { self.random.below(120) } as usize;
            let data = format!("{unit}:{}", "x".repeat(length));
            let topic = ["a", "a", "b", "r"][self.random.below(4) as usize];
            let stream = format!("s{}", self.random.below(6));
            let topic_name = topic.parse().unwrap();
            writes.push(if topic == "r" {
                let record = NewRecord { key: Some(stream.into()), value: Some(data.into()), ..NewRecord::default() };
                Write::Records { topic: topic_name, partition: None, records: vec![record; count as usize] }
            } else {
                let event = NewEvent { kind: "E".into(), data: data.into(), ..NewEvent::default() };
                Write::Stream { topic: topic_name, stream: stream.parse().unwrap(), events: vec![event; count as usize] }
            });
        }
        let identity = self.random.one_in(3).then(|| Identity {
            key: RequestKey { principal: "life".into(), id: RequestId::new(u128::from(unit).to_le_bytes()) },
            digest: unit.into(),
            first_attempt: None,
        });
        self.sizes.insert(unit, size);
        self.fates.insert(unit, Fate::Unknown);
        let durability = [None, Some(Durability::Written), Some(Durability::Synced)][unit as usize % 3];
        (unit, Append { writes, identity, durability, ..Append::default() })
    }

    /// Notes what is shown now; it must stay.
    fn look(&mut self, log: &EmbeddedLog) -> Result<(), Failure> {
        let from = self.shown.keys().next_back().map_or(0, |last| last + 1);
        for record in read(log, Selection::All(Position::new(from)), ReadLimits::default())? {
            self.fates.insert(unit_of(&record), Fate::Here);
            self.shown.insert(record.0, record);
        }
        Ok(())
    }

    /// Everything promised, after a start.
    fn check(&mut self, log: &EmbeddedLog) -> Result<(), Failure> {
        let report = log.report();
        if let Some(damage) = report.damage.iter().filter(|_| !self.full).chain(&report.damaged).next() {
            return Err(Failure::Refused(damage.clone()));
        }
        for topic in &self.topics {
            log.topic(&topic.parse().unwrap()).map_err(|error| Failure::Topic(error.to_string()))?;
        }
        let limits = ReadLimits { records: 1 + self.random.below(50) as u32, bytes: 1 + self.random.below(10_000) as u32 };
        let all = read(log, Selection::All(Position::new(0)), limits)?;
        let by_position: BTreeMap<u64, &Read> = all.iter().map(|record| (record.0, record)).collect();
        for (position, record) in &self.shown {
            if by_position.get(position) != Some(&record) {
                return Err(Failure::Lost(format!("{record:?}, there is {:?}", by_position.get(position))));
            }
        }
        let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
        for (place, record) in (0..).zip(&all) {
            if record.0 != place {
                return Err(Failure::Lost(format!("position {place} is missing, there is {record:?}")));
            }
            *counts.entry(unit_of(record)).or_default() += 1;
        }
        for (unit, count) in &counts {
            if self.sizes[unit] != *count {
                return Err(Failure::Torn(format!("unit {unit} has {count} of {} records", self.sizes[unit])));
            }
        }
        for (unit, fate) in &mut self.fates {
            match (*fate, counts.contains_key(unit)) {
                (Fate::Gone, true) => return Err(Failure::Revived(format!("unit {unit}"))),
                (Fate::Here | Fate::Written, false) => return Err(Failure::Lost(format!("unit {unit}"))),
                (Fate::Written | Fate::Cut, true) => {
                    self.seen.written_kept += 1;
                    *fate = Fate::Here;
                }
                (Fate::Cut, false) => {
                    self.seen.written_gone += 1;
                    *fate = Fate::Gone;
                }
                (Fate::Unknown, true) => {
                    self.seen.unknown_kept += 1;
                    *fate = Fate::Here;
                }
                (Fate::Unknown, false) => {
                    self.seen.unknown_gone += 1;
                    *fate = Fate::Gone;
                }
                _ => {}
            }
        }
        self.check_streams_and_partitions(log, &all, limits)?;
        self.shown = all.into_iter().map(|record| (record.0, record)).collect();
        Ok(())
    }

    fn check_streams_and_partitions(&mut self, log: &EmbeddedLog, all: &[Read], limits: ReadLimits) -> Result<(), Failure> {
        let mut streams: BTreeMap<(&str, &str), Vec<&Read>> = BTreeMap::new();
        let mut partitions: BTreeMap<(&str, u32), Vec<&Read>> = BTreeMap::new();
        for record in all {
            partitions.entry((&record.1, record.2)).or_default().push(record);
            if record.1 != "r" {
                streams.entry((&record.1, &record.4)).or_default().push(record);
            }
        }
        for ((topic, stream), records) in &streams {
            for (version, record) in (1..).zip(records) {
                if record.6 != version {
                    return Err(Failure::Versions(format!("{record:?} should have version {version}")));
                }
            }
            let (topic, stream) = (topic.parse().unwrap(), stream.parse().unwrap());
            let head = log.stream_head(&topic, &stream).map_err(|error| Failure::Lost(error.to_string()))?;
            if head != StreamHead::At(StreamVersion::new(records.len() as u64)) {
                return Err(Failure::Versions(format!("stream {stream} is {head}, it has {} events", records.len())));
            }
            let from = 1 + self.random.below(records.len() as u64);
            let found = read(log, Selection::Stream(topic, stream, StreamVersion::new(from)), limits)?;
            if !found.iter().eq(records[from as usize - 1..].iter().copied()) {
                return Err(Failure::Lost("a stream reads differently from the whole".into()));
            }
        }
        for ((topic, partition), records) in &partitions {
            if let Some((offset, record)) = (0..).zip(records).find(|(offset, record)| record.3 != *offset) {
                return Err(Failure::Lost(format!("offset {offset} is missing, there is {record:?}")));
            }
            let from = self.random.below(records.len() as u64);
            let selection =
                Selection::Partition(topic.parse().unwrap(), foldlog_log::PartitionId::new(*partition), foldlog_log::Offset::new(from));
            let found = read(log, selection, limits)?;
            if !found.iter().eq(records[from as usize..].iter().copied()) {
                let differs = format!("partition {partition} of {topic} from {from} reads differently: {found:?}, not {records:?}");
                return Err(Failure::Lost(differs));
            }
        }
        Ok(())
    }
}

fn unit_of(record: &Read) -> u64 {
    record.5.split(':').next().unwrap().parse().unwrap()
}

fn read(log: &EmbeddedLog, selection: Selection, limits: ReadLimits) -> Result<Vec<Read>, Failure> {
    let lost = |error: LogError| match error {
        LogError::Io { .. } => Failure::Read(format!("{error:?}")),
        error => Failure::Lost(format!("{error:?}")),
    };
    let mut reader = log.reader(selection).map_err(lost)?;
    let until = log.head().position;
    let mut found = Vec::new();
    loop {
        let chunk = reader.read(until, limits).map_err(lost)?;
        if chunk.runs.is_empty() {
            assert_eq!(chunk.scanned_to, until);
            return Ok(found);
        }
        for run in &chunk.runs {
            for record in run.records() {
                let record = record.map_err(lost)?;
                let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
                let version = record.event().map_or(0, |event| event.version.get());
                let place = (record.position.get(), run.topic.name.to_string(), run.partition.get(), record.offset.get());
                found.push((place.0, place.1, place.2, place.3, text(record.key), text(record.value), version));
            }
        }
    }
}
