//! One life of a data folder whose topics are compacted, rid of what is old, altered and deleted, and what must hold in it.
//!
//! Appends go one by one, so that of at most one nobody knows at a crash what became of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use foldlog_log::{
    Append, Compaction, Compression, EmbeddedLog, LogBackend, LogConfig, LogError, NewEvent, NewRecord, Position, ReadLimits, Retention,
    Selection, Stepper, StreamChange, StreamHead, StreamVersion, Timestamp, TopicChanges, TopicKind, TopicName, TopicSettings, Write,
    clock::ManualClock,
    testing::{Fault, Random, SimDisk, SyncSite},
};
use futures::FutureExt;

use super::life::Failure;

const FOLDER: &str = "/data";
/// Compacted.
const TABLE: &str = "t";
/// Rid of what is old.
const RECORDS: &str = "r";
/// Events, rid of what is old: versions of their streams go on.
const EVENTS: &str = "e";
/// Events, created and deleted.
const EXTRA: [&str; 3] = ["a", "b", "c"];
const KEYS: u64 = 8;

/// What happened in lives, to show that something did.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub acknowledged: u64,
    pub removed: u64,
    /// Of topics of events.
    pub let_go: u64,
    pub compacted: u64,
    pub altered: u64,
    pub deleted: u64,
    pub marked: u64,
    pub crashes: u64,
}

impl Seen {
    /// Adds another life's.
    pub fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.removed += other.removed;
        self.let_go += other.let_go;
        self.compacted += other.compacted;
        self.altered += other.altered;
        self.deleted += other.deleted;
        self.marked += other.marked;
        self.crashes += other.crashes;
    }
}

/// A record: topic, offset, key, value.
type Record = (String, u64, String, Option<String>);

/// What is asked of the log, and may be done or not when it does not answer.
#[derive(Clone, Debug)]
enum Asked {
    Append(Record),
    Create(String),
    Delete(String),
    Alter(TopicSettings),
    /// The end of a stream, which a mark at this offset says.
    Mark(String, String, u64),
}

/// A data folder, its disk, and everything that was promised.
pub struct Changes {
    forgets: Option<SyncSite>,
    random: Random,
    disk: SimDisk,
    clock: Arc<ManualClock>,
    config: LogConfig,
    /// By topic and offset, what was acknowledged or shown.
    given: BTreeMap<(String, u64), Record>,
    /// By topic, the offset after the last that was given.
    ends: BTreeMap<String, u64>,
    topics: BTreeSet<String>,
    /// Streams that were ended, and the offset of the mark: nobody needs what lies before it.
    ended: BTreeMap<(String, String), u64>,
    /// Topics with marks, whose manifests say so.
    marked: BTreeSet<String>,
    settings: Option<TopicSettings>,
    /// Where topics began when that was seen last.
    firsts: BTreeMap<String, u64>,
    /// What was not answered before the crash.
    unknown: Option<Asked>,
    numbers: u64,
    armed: bool,
    /// What happened.
    pub seen: Seen,
}

impl Changes {
    /// A folder that does not exist yet, on a disk on which power and calls fail, and maybe syncs at one place are forgotten.
    pub fn new(seed: u64, forgets: Option<SyncSite>) -> Self {
        let config = LogConfig {
            first_journal_file_bytes: 32 << 10,
            journal_file_bytes: 128 << 10,
            tail_bytes: 0,
            tidy_bytes: 16 << 10,
            segment_bytes: 4 << 10,
            reserve_bytes: 0,
            reserve_percent: 0,
            ..LogConfig::default()
        };
        let disk = SimDisk::new(seed);
        if let Some(site) = &forgets {
            disk.ignore_syncs_at(site.clone());
        }
        Self {
            forgets,
            random: Random::new(seed ^ 0xc4a2),
            disk,
            clock: Arc::new(ManualClock::at(Timestamp::new(1_700_000_000_000))),
            config,
            given: BTreeMap::new(),
            ends: BTreeMap::new(),
            topics: BTreeSet::new(),
            ended: BTreeMap::new(),
            marked: BTreeSet::new(),
            settings: None,
            firsts: BTreeMap::new(),
            unknown: None,
            numbers: 0,
            armed: false,
            seen: Seen::default(),
        }
    }

    /// Every place that synced.
    pub fn sync_sites(&self) -> Vec<SyncSite> {
        self.disk.sync_sites()
    }

    /// Lives a few starts long.
    pub fn run(&mut self) -> Result<(), Failure> {
        for _ in 0..3 + self.random.below(3) {
            self.arm();
            self.disk.set_phase("start");
            match self.open() {
                Ok((log, stepper)) => match self.check(&log).and_then(|()| self.live(&log, stepper)) {
                    Err(Failure::Read(_)) if self.is_struck() => {}
                    lived => lived?,
                },
                Err(error) => self.must_be_excused(&error)?,
            }
            self.crash();
        }
        self.armed = false;
        self.disk.set_phase("start");
        let (log, mut stepper) = self.open().map_err(|error| Failure::Refused(format!("{error}")))?;
        self.check(&log)?;
        for _ in 0..3 {
            self.settle(&mut stepper).map_err(|error| Failure::Refused(format!("{error}")))?;
        }
        self.look_at_the_beginning(&log)?;
        self.nothing_is_left()
    }

    fn open(&mut self) -> Result<(EmbeddedLog, Stepper), LogError> {
        let mut draw = self.random.fork();
        // Ids without letters, so that places of the disk have the same name in every life.
        let random = move || ((u128::from(draw.next()) << 64) | u128::from(draw.next())) & (u128::MAX / 15 * 7);
        let disk = Arc::new(self.disk.clone());
        let (log, stepper) = EmbeddedLog::open_stepped(disk, self.clock.clone(), Path::new(FOLDER), self.config.clone(), random)?;
        log.allow_removal();
        Ok((log, stepper))
    }

    fn arm(&mut self) {
        self.armed = true;
        let most = if self.random.one_in(3) { 60 } else { 900 };
        let nth = self.random.below(most);
        match self.random.below(8) {
            0..4 => self.disk.arm(Fault::PowerOff { nth }),
            4..7 => self.disk.arm(Fault::Fail { kind: None, nth, errno: 5 }),
            _ => self.armed = false,
        }
    }

    fn is_struck(&self) -> bool {
        self.armed && (self.disk.is_off() || self.disk.is_disarmed())
    }

    fn must_be_excused(&self, error: &LogError) -> Result<(), Failure> {
        match error {
            LogError::Io { .. } if self.is_struck() => Ok(()),
            _ => Err(Failure::Refused(format!("{error:?}"))),
        }
    }

    fn crash(&mut self) {
        self.seen.crashes += 1;
        if !self.disk.is_off() && self.random.one_in(3) {
            self.disk = self.disk.kill();
            return;
        }
        self.disk = self.disk.power_cut();
        if let Some(site) = &self.forgets {
            self.disk.ignore_syncs_at(site.clone());
        }
    }

    fn live(&mut self, log: &EmbeddedLog, mut stepper: Stepper) -> Result<(), Failure> {
        for topic in [TABLE, RECORDS, EVENTS] {
            if !self.topics.contains(topic) && !self.create(log, topic)? {
                return Ok(());
            }
        }
        for _ in 0..self.random.below(300) {
            self.clock.advance(Duration::from_secs(self.random.below(60)));
            let goes_on = match self.random.below(40) {
                0..4 => self.stepped("tidy", || stepper.tidy())?,
                4 => self.stepped("seal", || stepper.seal())?,
                5..8 => self.stepped("upkeep", || stepper.upkeep())? && self.stepped("commit", || stepper.commit())?,
                8..12 => {
                    let mut has_done = false;
                    let compacts = || stepper.compact().map(|done| has_done = done);
                    let goes_on = self.stepped("compact", compacts)? && self.stepped("commit", || stepper.commit())?;
                    self.seen.compacted += u64::from(has_done);
                    goes_on
                }
                12 => self.alter(log)?,
                13 => self.create_or_delete(log)?,
                14 => self.mark(log, &mut stepper)?,
                _ => self.append(log, &mut stepper)?,
            };
            if !goes_on {
                return Ok(());
            }
            self.look_at_the_beginning(log)?;
        }
        Ok(())
    }

    /// Takes a step; whether the log goes on. An error must have come from the disk.
    fn stepped(&mut self, phase: &'static str, mut step: impl FnMut() -> Result<(), LogError>) -> Result<bool, Failure> {
        self.disk.set_phase(phase);
        match step() {
            Ok(()) => Ok(true),
            Err(error) => self.must_be_excused(&error).map(|()| false),
        }
    }

    /// Lets every thread have its turns until nothing is due.
    fn settle(&self, stepper: &mut Stepper) -> Result<(), LogError> {
        let mut goes_on = true;
        while goes_on {
            self.disk.set_phase("upkeep");
            stepper.upkeep()?;
            self.disk.set_phase("commit");
            stepper.commit()?;
            self.disk.set_phase("tidy");
            stepper.tidy()?;
            self.disk.set_phase("compact");
            goes_on = stepper.compact()?;
        }
        stepper.upkeep()
    }

    fn append(&mut self, log: &EmbeddedLog, stepper: &mut Stepper) -> Result<bool, Failure> {
        let topics: Vec<String> = self.topics.iter().cloned().collect();
        let topic = match self.random.below(14) {
            0..4 => TABLE.to_owned(),
            4..9 => RECORDS.to_owned(),
            9..12 => EVENTS.to_owned(),
            _ => topics[self.random.below(topics.len() as u64) as usize].clone(),
        };
        self.numbers += 1;
        let key = format!("key{}", self.random.below(KEYS));
        let value = (topic != TABLE || !self.random.one_in(8)).then(|| format!("<{}>{}", self.numbers, "x".repeat(500)));
        let write = if is_of_events(&topic) {
            let event = NewEvent { kind: "E".into(), data: value.clone().unwrap_or_default().into(), ..NewEvent::default() };
            Write::Stream { topic: name(&topic), stream: key.parse().unwrap(), events: vec![event] }
        } else {
            let record = NewRecord { key: Some(key.clone().into()), value: value.clone().map(Into::into), ..NewRecord::default() };
            Write::Records { topic: name(&topic), partition: None, records: vec![record] }
        };
        let Ok(answer) = log.append(Append { writes: vec![write], ..Append::default() }) else { return Ok(!self.is_struck()) };
        let goes_on = self.stepped("commit", || stepper.commit())?;
        let record = (topic.clone(), self.ends.get(&topic).copied().unwrap_or_default(), key, value);
        match answer.now_or_never().expect("answered when the step is over") {
            Ok(answer) if answer.ranges[0].first.get() == record.1 => {
                self.seen.acknowledged += 1;
                self.note(record);
            }
            Ok(answer) => return Err(Failure::Lost(format!("{record:?} got offset {}", answer.ranges[0].first))),
            Err(LogError::Unknown) => self.unknown = Some(Asked::Append(record)),
            Err(error) => panic!("{error}"),
        }
        Ok(goes_on)
    }

    /// Ends a stream.
    fn mark(&mut self, log: &EmbeddedLog, stepper: &mut Stepper) -> Result<bool, Failure> {
        let Some((topic, _, key, _)) = self.given.values().find(|record| is_of_events(&record.0) && !self.is_ended(record)).cloned() else {
            return Ok(true);
        };
        let change = Write::Change { topic: name(&topic), stream: key.parse().unwrap(), change: StreamChange::Delete, by: "life".into() };
        let append = Append { writes: vec![change], ..Append::default() };
        // The manifest is written before the first mark is in line.
        let mut answer = None;
        let goes_on = self.stepped("mark", || log.append(append.clone()).map(|future| answer = Some(future)))?;
        let Some(answer) = answer.filter(|_| goes_on) else { return Ok(false) };
        let goes_on = self.stepped("commit", || stepper.commit())?;
        let is_done = answer.now_or_never().expect("answered when the step is over").is_ok();
        self.seen.marked += u64::from(is_done);
        let offset = self.ends[&topic];
        self.done(is_done, Asked::Mark(topic, key, offset));
        Ok(goes_on)
    }

    fn is_ended(&self, record: &Record) -> bool {
        self.ended.get(&(record.0.clone(), record.2.clone())).is_some_and(|mark| record.1 < *mark)
    }

    fn note(&mut self, record: Record) {
        self.ends.insert(record.0.clone(), record.1 + 1);
        self.given.insert((record.0.clone(), record.1), record);
    }

    fn create(&mut self, log: &EmbeddedLog, topic: &str) -> Result<bool, Failure> {
        let kind = match topic {
            TABLE => TopicKind::Table,
            RECORDS => TopicKind::Records,
            _ => TopicKind::Events,
        };
        let compaction =
            Compaction { delete_retention: Duration::from_secs(60), max_lag: Duration::from_secs(3600), ..Compaction::default() };
        let bytes = (matches!(topic, RECORDS | EVENTS)).then_some(16 << 10);
        let compaction = if kind == TopicKind::Table { compaction } else { Compaction::default() };
        let settings = TopicSettings { compaction, retention: Retention { bytes, time: None }, ..TopicSettings::new(kind, 1) };
        let goes_on = self.stepped("create", || log.create_topic(name(topic), settings).map(drop))?;
        if topic == RECORDS && goes_on {
            self.settings = Some(settings);
        }
        self.done(goes_on, Asked::Create(topic.into()));
        Ok(goes_on)
    }

    /// What is done is promised; of what was not answered nobody knows.
    fn done(&mut self, is_done: bool, asked: Asked) {
        if !is_done {
            self.unknown = Some(asked);
            return;
        }
        match asked {
            Asked::Append(record) => self.note(record),
            Asked::Create(topic) => drop(self.topics.insert(topic)),
            Asked::Mark(topic, key, offset) => {
                self.ended.insert((topic.clone(), key), offset);
                self.ends.insert(topic.clone(), offset + 1);
                self.marked.insert(topic);
            }
            Asked::Delete(topic) => {
                self.topics.remove(&topic);
                self.marked.remove(&topic);
                self.ended.retain(|(of, _), _| *of != topic);
                self.given.retain(|(of, _), _| *of != topic);
                self.ends.remove(&topic);
            }
            Asked::Alter(settings) => self.settings = Some(settings),
        }
    }

    fn create_or_delete(&mut self, log: &EmbeddedLog) -> Result<bool, Failure> {
        let topic = EXTRA[self.random.below(EXTRA.len() as u64) as usize];
        if !self.topics.contains(topic) {
            return self.create(log, topic);
        }
        let goes_on = self.stepped("delete", || log.delete_topic(&name(topic)))?;
        self.seen.deleted += u64::from(goes_on);
        self.done(goes_on, Asked::Delete(topic.into()));
        Ok(goes_on)
    }

    fn alter(&mut self, log: &EmbeddedLog) -> Result<bool, Failure> {
        let Some(settings) = self.settings else { return Ok(true) };
        let changes = TopicChanges {
            compression: Some(Compression::ALL[self.random.below(3) as usize]),
            retention_bytes: Some((16 << 10) + self.random.below(3) * 4096),
            ..TopicChanges::default()
        };
        let retention = Retention { bytes: changes.retention_bytes, time: None };
        let asked = TopicSettings { compression: changes.compression.unwrap_or_default(), retention, ..settings };
        let goes_on = self.stepped("alter", || log.alter_topic(&name(RECORDS), changes).map(drop))?;
        self.seen.altered += u64::from(goes_on);
        self.done(goes_on, Asked::Alter(asked));
        Ok(goes_on)
    }

    /// What was removed stays removed.
    fn look_at_the_beginning(&mut self, log: &EmbeddedLog) -> Result<(), Failure> {
        for topic in [RECORDS, EVENTS].into_iter().filter(|topic| self.topics.contains(*topic)) {
            let first = log.firsts(&name(topic)).map_err(|error| Failure::Topic(error.to_string()))?[0].get();
            let before = self.firsts.insert(topic.to_owned(), first).unwrap_or_default();
            if first < before {
                return Err(Failure::Revived(format!("records of {topic} from {first} on, though they were removed up to {before}")));
            }
            let removed = if topic == RECORDS { &mut self.seen.removed } else { &mut self.seen.let_go };
            *removed += u64::from(first > before);
        }
        Ok(())
    }

    fn first(&self, topic: &str) -> u64 {
        self.firsts.get(topic).copied().unwrap_or_default()
    }

    /// Everything promised, after a start.
    fn check(&mut self, log: &EmbeddedLog) -> Result<(), Failure> {
        let report = log.report();
        if let Some(damage) = report.damage.iter().chain(&report.damaged).next() {
            return Err(Failure::Refused(damage.clone()));
        }
        self.learn(log)?;
        let there: BTreeSet<String> = log.topics().iter().map(|topic| topic.name.to_string()).collect();
        if there != self.topics {
            return Err(Failure::Topic(format!("there are {there:?}, there should be {:?}", self.topics)));
        }
        self.look_at_the_beginning(log)?;
        for topic in self.topics.clone() {
            let settings = log.topic(&name(&topic)).map_err(|error| Failure::Topic(error.to_string()))?.settings;
            if topic == RECORDS && Some(settings) != self.settings {
                return Err(Failure::Topic(format!("{topic} is {settings:?}, and was altered to {:?}", self.settings)));
            }
            self.check_records(&topic, &read(log, &topic)?)?;
            if is_of_events(&topic) {
                self.check_streams(log, &topic)?;
            }
        }
        self.manifests_say_what_older_builds_must_know(log)
    }

    /// That there are marks, and segments that were written anew in topics of events.
    fn manifests_say_what_older_builds_must_know(&self, log: &EmbeddedLog) -> Result<(), Failure> {
        let paths = self.disk.paths();
        for topic in self.topics.iter().filter(|topic| is_of_events(topic)) {
            let is_marked = self.marked.contains(topic);
            let topic = log.topic(&name(topic)).map_err(|error| Failure::Topic(error.to_string()))?;
            let manifest = Path::new(FOLDER).join("topics").join(format!("{}.json", topic.id));
            let text = String::from_utf8_lossy(&self.disk.bytes_of(&manifest).unwrap_or_default()).into_owned();
            let folder = manifest.with_extension("");
            let is_anew =
                |path: &PathBuf| path.starts_with(&folder) && path.file_name().is_some_and(|name| name.to_string_lossy().len() > 30);
            for (is_so, says) in [(is_marked, "\"changes\":true"), (paths.iter().any(is_anew), "\"blanks\":true")] {
                if is_so && !text.contains(says) {
                    return Err(Failure::Topic(format!("{} does not say {says}", topic.name)));
                }
            }
        }
        Ok(())
    }

    /// Finds out what became of what was not answered.
    fn learn(&mut self, log: &EmbeddedLog) -> Result<(), Failure> {
        let Some(asked) = self.unknown.clone() else { return Ok(()) };
        let is_done = match &asked {
            Asked::Append(record) => self.topics.contains(&record.0) && read(log, &record.0)?.iter().any(|found| found.1 == record.1),
            Asked::Create(topic) => log.topic(&name(topic)).is_ok(),
            Asked::Delete(topic) => log.topic(&name(topic)).is_err(),
            Asked::Mark(topic, key, _) => {
                let head = log.stream_head(&name(topic), &key.parse().unwrap());
                !matches!(head.map_err(|error| Failure::Lost(error.to_string()))?, StreamHead::At(_))
            }
            Asked::Alter(settings) => log.topic(&name(RECORDS)).is_ok_and(|topic| topic.settings == *settings),
        };
        self.unknown = None;
        if is_done {
            if let Asked::Create(topic) = &asked
                && topic == RECORDS
            {
                self.settings = log.topic(&name(topic)).ok().map(|topic| topic.settings);
            }
            self.done(true, asked);
        }
        Ok(())
    }

    /// Every record is as it was given; of the table the newest of each key is there, of others everything that was not removed.
    fn check_records(&self, topic: &str, found: &[Record]) -> Result<(), Failure> {
        let given: Vec<&Record> =
            self.given.range((topic.to_owned(), 0)..=(topic.to_owned(), u64::MAX)).map(|(_, record)| record).collect();
        let by_offset: BTreeMap<u64, &Record> = found.iter().map(|record| (record.1, record)).collect();
        for record in found {
            if self.given.get(&(record.0.clone(), record.1)) != Some(record) {
                return Err(Failure::Revived(format!("{record:?} is not what was given")));
            }
        }
        let newest: BTreeMap<&str, u64> = given.iter().map(|record| (&*record.2, record.1)).collect();
        for record in given {
            let must_be_there = match topic {
                TABLE => newest.get(&*record.2) == Some(&record.1) && record.3.is_some(),
                RECORDS => record.1 >= self.first(topic),
                _ => record.1 >= self.first(topic) && !self.is_ended(record),
            };
            if must_be_there && !by_offset.contains_key(&record.1) {
                return Err(Failure::Lost(format!("{record:?}, the topic begins at {}", self.first(topic))));
            }
            // What was removed to let go of an older value must not bring that back.
            let older = by_offset.values().filter(|other| topic == TABLE && other.2 == record.2).map(|other| other.1).max();
            if topic == TABLE
                && newest.get(&*record.2) == Some(&record.1)
                && record.3.is_none()
                && older.is_some_and(|older| older < record.1)
            {
                return Err(Failure::Revived(format!("{} of {:?}, which was deleted", older.unwrap_or_default(), record.2)));
            }
        }
        Ok(())
    }

    /// Streams stand where they stood, and begin behind what is gone.
    fn check_streams(&self, log: &EmbeddedLog, topic: &str) -> Result<(), Failure> {
        // Events of each stream: all, those that retention let go of, and those that its end did.
        let mut given: BTreeMap<&str, [u64; 3]> = BTreeMap::new();
        for record in self.given.values().filter(|record| record.0 == topic) {
            let is_of = [true, record.1 < self.first(topic), self.is_ended(record)];
            let counts = given.entry(&record.2).or_default();
            counts.iter_mut().zip(is_of).for_each(|(count, is_one)| *count += u64::from(is_one));
        }
        for (key, [all, retained, ended]) in given {
            let state = log.stream_state(&name(topic), &key.parse().unwrap()).map_err(|error| Failure::Lost(format!("{error:?}")))?;
            let [newest, first] = [all, 1 + retained.max(ended)].map(StreamVersion::new);
            let told = (state.head.version(), state.beginning.first, state.beginning.retained == first);
            // Where its end says more, nothing need be left that says how far retention came.
            if told.0 != Some(newest) || told.1 != first || retained > ended && !told.2 {
                return Err(Failure::Versions(format!("{key} of {topic} has {all} events, without {retained} and {ended}: {state:?}")));
            }
        }
        Ok(())
    }

    /// Nothing of a topic or of an event that is gone takes space for ever.
    fn nothing_is_left(&self) -> Result<(), Failure> {
        let paths = self.disk.paths();
        let of_segments = paths.iter().filter(|path| path.extension().is_some_and(|one| one == "log"));
        let text: Vec<u8> = of_segments.flat_map(|path| self.disk.bytes_of(path).unwrap_or_default()).collect();
        let gone = self.given.values().filter(|record| record.0 == EVENTS && record.1 < self.first(&record.0));
        for (topic, offset, _, value) in gone {
            let value = value.as_ref().expect("an event has data").as_bytes();
            if text.windows(value.len()).any(|bytes| bytes == value) {
                return Err(Failure::Left(format!("the data of event {offset} of {topic}, which begins at {}", self.first(topic))));
            }
        }
        let folder = Path::new(FOLDER).join("topics");
        for path in &paths {
            let Some(topic) =
                path.strip_prefix(&folder).ok().filter(|rest| rest.components().count() > 1).and_then(|rest| rest.iter().next())
            else {
                continue;
            };
            let manifest = folder.join(format!("{}.json", topic.to_string_lossy()));
            if !paths.contains(&manifest) {
                return Err(Failure::Left(format!("{}, and no topic", path.display())));
            }
        }
        Ok(())
    }
}

fn is_of_events(topic: &str) -> bool {
    topic == EVENTS || EXTRA.contains(&topic)
}

fn name(topic: &str) -> TopicName {
    topic.parse().unwrap()
}

fn read(log: &EmbeddedLog, topic: &str) -> Result<Vec<Record>, Failure> {
    let lost = |error: LogError| match error {
        LogError::Io { .. } => Failure::Read(format!("{error:?}")),
        error => Failure::Lost(format!("{error:?}")),
    };
    let mut reader = log.reader(Selection::Topics(vec![name(topic)], Position::new(0))).map_err(lost)?;
    let until = log.head().position;
    let mut found = Vec::new();
    loop {
        let chunk = reader.read(until, ReadLimits::default()).map_err(lost)?;
        if chunk.runs.is_empty() {
            return Ok(found);
        }
        for run in &chunk.runs {
            for record in run.records() {
                let record = record.map_err(lost)?;
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                found.push((topic.to_owned(), record.offset.get(), text(record.key.unwrap()), record.value.map(text)));
            }
        }
    }
}
