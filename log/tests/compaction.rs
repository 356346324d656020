//! Compaction by key: what a newer record replaced goes, the newest stays where it is, and so do tombstones for as long as asked.
//!
//! Appends, checkpoints, passes and commits are stepped one by one on a simulated disk, so that the power can go between any two of them.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use foldlog_log::{
    Append, Compaction, Compression, EmbeddedLog, LogBackend, LogConfig, LogError, LogReader, NewRecord, Offset, PartitionId, Position,
    ReadLimits, Retention, Selection, Stepper, Timestamp, TopicKind, TopicName, TopicSettings, Write,
    clock::{ManualClock, SystemClock},
    disk::RealDisk,
    testing::{Fault, Random, SimDisk, conformance::block_on},
};
use futures::FutureExt;

const NOW: Timestamp = Timestamp::new(1_700_000_000_000);
const HOUR: Duration = Duration::from_secs(3600);

/// One of the things that are stepped.
type Step = fn(&mut Stepper) -> Result<(), LogError>;

struct Folder {
    disk: SimDisk,
    clock: Arc<ManualClock>,
    starts: u64,
    config: LogConfig,
}

struct Log {
    log: EmbeddedLog,
    stepper: Stepper,
    clock: Arc<ManualClock>,
    /// Every record that `t` was ever given, by offset: its key, whether it has a value, and its position.
    given: Vec<(String, bool, u64)>,
}

impl Folder {
    fn new(seed: u64) -> Self {
        let config = LogConfig {
            first_journal_file_bytes: 32 << 10,
            journal_file_bytes: 128 << 10,
            tail_bytes: 0,
            segment_bytes: 8 << 10,
            ..LogConfig::default()
        };
        Self { disk: SimDisk::new(seed), clock: Arc::new(ManualClock::at(NOW)), starts: 0, config }
    }

    fn open(&mut self) -> Log {
        self.starts += 1;
        let mut drawn = u128::from(self.starts) << 64;
        let random = move || {
            drawn += 1;
            drawn
        };
        let (disk, clock) = (Arc::new(self.disk.clone()), Arc::clone(&self.clock));
        let (log, stepper) = EmbeddedLog::open_stepped(disk, clock.clone(), Path::new("/data"), self.config.clone(), random).unwrap();
        assert_eq!((&log.report().damage, &log.report().damaged), (&None, &Vec::new()));
        log.allow_removal();
        Log { log, stepper, clock, given: Vec::new() }
    }

    /// What an open log with the topic `t` is.
    fn open_table(&mut self, settings: TopicSettings) -> Log {
        let log = self.open();
        log.log.create_topic(name("t"), settings).unwrap();
        log
    }

    fn files(&self, extension: &str) -> Vec<PathBuf> {
        self.disk.paths().into_iter().filter(|path| path.extension().is_some_and(|one| one == extension)).collect()
    }

    fn bytes(&self) -> usize {
        self.files("log").iter().map(|path| self.disk.bytes_of(path).unwrap().len()).sum()
    }
}

impl Log {
    fn append(&mut self, key: &str, has_value: bool) {
        let value = has_value.then(|| format!("{}:{}", self.given.len(), "x".repeat(100)).into());
        let record = NewRecord { key: Some(key.to_owned().into()), value, ..NewRecord::default() };
        let write = Write::Records { topic: name("t"), partition: Some(PartitionId::new(0)), records: vec![record] };
        let answer = self.log.append(Append { writes: vec![write], ..Append::default() }).unwrap();
        self.stepper.commit().unwrap();
        let answer = answer.now_or_never().unwrap().unwrap();
        assert_eq!(answer.ranges[0].first.get(), self.given.len() as u64);
        self.given.push((key.to_owned(), has_value, answer.first.get()));
    }

    /// Appends records of a few keys by chance, a checkpoint behind every few.
    fn fill(&mut self, seed: u64, count: u64, keys: u64) {
        let mut random = Random::new(seed);
        for number in 0..count {
            let is_deleted = random.one_in(8);
            self.append(&format!("key{}", random.below(keys)), !is_deleted);
            if number % 7 == 6 {
                self.stepper.tidy().unwrap();
            }
        }
        self.stepper.tidy().unwrap();
    }

    /// Seals what there is, however little.
    fn seal(&mut self) {
        self.stepper.tidy().unwrap();
        self.clock.advance(Duration::from_secs(8 * 24 * 3600));
        self.stepper.upkeep().unwrap();
        self.stepper.tidy().unwrap();
    }

    /// Compacts until nothing is due, down to the files. How many steps that took.
    fn compact(&mut self) -> usize {
        let mut steps = 0;
        while self.stepper.compact().unwrap() {
            self.stepper.commit().unwrap();
            steps += 1;
        }
        self.stepper.tidy().unwrap();
        self.stepper.upkeep().unwrap();
        steps
    }

    /// Offsets that must be there: the newest of each key that has a value.
    fn newest(&self) -> BTreeSet<u64> {
        let newest: BTreeMap<_, _> = (0..).zip(&self.given).map(|(offset, (key, has_value, _))| (key, (offset, *has_value))).collect();
        newest.into_values().filter(|(_, has_value)| *has_value).map(|(offset, _)| offset).collect()
    }

    /// Offsets that a reader of `t` returns, each of which must be as it was given.
    fn read(&self, reader: Result<Box<dyn LogReader>, LogError>, limits: ReadLimits) -> Vec<u64> {
        let (mut reader, mut found) = (reader.unwrap(), Vec::new());
        let backwards = |before: &[u64], more: &mut Vec<u64>| {
            if before.last().zip(more.first()).is_some_and(|(before, more)| before > more) {
                more.reverse();
            }
        };
        loop {
            let chunk = reader.read(self.log.head().position, limits).unwrap();
            if chunk.runs.is_empty() {
                return found;
            }
            for run in &chunk.runs {
                let mut more = Vec::new();
                for record in run.records() {
                    let record = record.unwrap();
                    let (key, has_value, position) = &self.given[record.offset.get() as usize];
                    let value = has_value.then(|| format!("{}:{}", record.offset, "x".repeat(100)).into_bytes());
                    assert_eq!((record.key, record.value), (Some(key.as_bytes()), value.as_deref()));
                    assert_eq!(record.position.get(), *position);
                    more.push(record.offset.get());
                }
                backwards(&found, &mut more);
                found.extend(more);
            }
        }
    }

    /// What is left of `t`, by every way of reading it, which must all agree.
    fn left(&self) -> Vec<u64> {
        let (end, head) = (self.given.len() as u64, self.log.head().position);
        let small = ReadLimits { records: 3, bytes: 700 };
        let all = self.read(self.log.reader(partition(0)), ReadLimits::default());
        let topics = |position| Selection::Topics(vec![name("t")], Position::new(position));
        let reversed: Vec<_> = all.iter().rev().copied().collect();
        assert_eq!(self.read(self.log.reader(partition(0)), small), all);
        assert_eq!(self.read(self.log.reader(topics(0)), small), all);
        assert_eq!(self.read(self.log.reader(Selection::All(Position::new(0))), small), all);
        assert_eq!(self.read(self.log.backward_reader(partition(end)), small), reversed);
        assert_eq!(self.read(self.log.backward_reader(topics(head.get())), small), reversed);
        for from in (0..=end).step_by(1 + end as usize / 11) {
            let behind: Vec<_> = all.iter().copied().filter(|offset| *offset >= from).collect();
            let before: Vec<_> = reversed.iter().copied().filter(|offset| *offset < from).collect();
            assert_eq!(self.read(self.log.reader(partition(from)), ReadLimits::default()), behind, "from {from}");
            assert_eq!(self.read(self.log.backward_reader(partition(from)), ReadLimits::default()), before, "before {from}");
            let position = self.given.get(from as usize).map_or(head.get(), |(.., position)| *position);
            assert_eq!(self.read(self.log.reader(topics(position)), ReadLimits::default()), behind, "from position {position}");
            assert_eq!(self.read(self.log.backward_reader(topics(position)), ReadLimits::default()), before, "before {position}");
        }
        assert!(self.newest().iter().all(|offset| all.binary_search(offset).is_ok()), "a newest record is gone: {all:?}");
        all
    }
}

fn name(topic: &str) -> TopicName {
    topic.parse().unwrap()
}

fn partition(from: u64) -> Selection {
    Selection::Partition(name("t"), PartitionId::new(0), Offset::new(from))
}

fn table() -> TopicSettings {
    TopicSettings::new(TopicKind::Table, 1)
}

#[test]
fn the_newest_record_of_each_key_stays_where_it_is() {
    for (seed, compression) in [(1, Compression::None), (2, Compression::Lz4), (3, Compression::Zstd)] {
        let mut folder = Folder::new(seed);
        let mut log = folder.open_table(TopicSettings { compression, ..table() });
        log.fill(seed, 700, 20);
        assert_eq!(log.left().len(), 700);
        let before = folder.bytes();
        assert!(log.compact() >= 2);
        let some = log.left().len();
        assert!(some < 250 && folder.bytes() * 2 < before, "{some} records, {} bytes of {before}", folder.bytes());
        // What is active is left alone until it is sealed.
        log.seal();
        log.compact();
        let left = log.left();
        assert!(left.len() <= 20, "{left:?}");
        let state = log.log.compaction(&name("t")).unwrap()[0];
        assert_eq!((state.cleaned_to, state.dirty_bytes, state.percent), (Offset::new(700), 0, None));
        assert!(log.log.metrics().compaction_passes >= 2 && log.log.metrics().compaction_freed_bytes as usize > before / 2);
        assert_eq!(folder.files("log").len(), folder.files("runs").len());

        let given = std::mem::take(&mut log.given);
        drop(log);
        folder.disk = folder.disk.power_cut();
        let mut log = folder.open();
        log.given = given;
        assert_eq!(log.left(), left);
        log.fill(seed + 10, 100, 20);
        log.left();
        log.seal();
        log.compact();
        assert!(log.left().len() <= 20);
    }
}

#[test]
fn a_tombstone_is_seen_for_as_long_as_asked_and_then_goes() {
    let mut folder = Folder::new(4);
    let mut log = folder.open_table(TopicSettings { compaction: Compaction { delete_retention: HOUR, ..Compaction::DEFAULT }, ..table() });
    log.append("a", true);
    log.append("b", true);
    log.append("a", false);
    log.seal();
    log.compact();
    assert_eq!(log.left(), [1, 2], "what is deleted is gone, that it is stays");
    log.clock.advance(HOUR - Duration::from_millis(1));
    assert_eq!(log.compact(), 0, "nothing is due");
    log.clock.advance(Duration::from_millis(1));
    assert!(log.compact() > 0);
    assert_eq!(log.left(), [1]);
    log.append("b", false);
    log.seal();
    log.compact();
    log.clock.advance(HOUR);
    log.compact();
    assert_eq!(log.left(), [0; 0], "a table that is empty");
    log.append("c", true);
    assert_eq!(log.left(), [4]);
    let given = log.given.clone();
    drop(log);
    folder.disk = folder.disk.power_cut();
    let mut log = folder.open();
    log.given = given;
    assert_eq!(log.left(), [4]);
}

/// The power goes after each step of a pass, and after each call of the disk within them.
#[test]
fn a_pass_that_is_cut_off_leaves_old_or_new() {
    let (mut cut, mut compacted, mut untouched) = (0, 0, 0);
    for cut_after in 0..10 {
        for seed in 0..10 {
            let mut folder = Folder::new(100 + seed);
            let mut log = folder.open_table(table());
            log.fill(seed, 150, 10);
            let before = log.left();
            let steps: [Step; 10] = [
                |stepper| stepper.compact().map(drop),
                |stepper| stepper.compact().map(drop),
                Stepper::commit,
                Stepper::upkeep,
                |stepper| stepper.compact().map(drop),
                Stepper::tidy,
                Stepper::commit,
                Stepper::seal,
                Stepper::tidy,
                Stepper::upkeep,
            ];
            for (number, step) in steps.into_iter().enumerate() {
                if number == cut_after {
                    folder.disk.arm(Fault::PowerOff { nth: [0, 1, 2, 3, 4, 5, 7, 9, 11, 14][seed as usize] });
                }
                if step(&mut log.stepper).is_err() {
                    cut += 1;
                    break;
                }
            }
            let given = std::mem::take(&mut log.given);
            drop(log);
            folder.disk = if seed % 4 == 0 { folder.disk.kill() } else { folder.disk.power_cut() };
            let mut log = folder.open();
            log.given = given;
            let left = log.left();
            assert!(left.iter().all(|offset| before.contains(offset)));
            // What the first start found is still there at the next.
            let given = std::mem::take(&mut log.given);
            drop(log);
            folder.disk = folder.disk.kill();
            let mut log = folder.open();
            log.given = given;
            assert_eq!(log.left(), left);
            (compacted, untouched) = (compacted + u32::from(left.len() < before.len()), untouched + u32::from(left.len() == before.len()));
            for round in 0..2 {
                log.fill(seed + round, 40, 10);
                log.seal();
                log.compact();
                let left = log.left();
                assert!(left.len() <= 10, "{left:?}");
            }
            // What the first pass made small, the second made one.
            let files = folder.files("log");
            assert!(files.len() <= 3 && files.len() == folder.files("runs").len(), "leftovers: {files:?}");
        }
    }
    assert!(cut > 40 && compacted > 30 && untouched > 10, "{cut} {compacted} {untouched}");
}

#[test]
fn more_keys_than_fit_into_memory_take_several_passes() {
    let mut folder = Folder::new(5);
    folder.config.compaction_memory_bytes = 64 << 10;
    let mut log = folder.open_table(table());
    // Each key has a kilobyte: some forty fit.
    for round in 0..2 {
        for key in 0..200 {
            log.append(&format!("{key:01000}"), round == 0 || key % 10 > 0);
            if key % 7 == 0 {
                log.stepper.tidy().unwrap();
            }
        }
    }
    log.seal();
    let mut sizes = vec![log.left().len()];
    while log.stepper.compact().unwrap() {
        let passes = log.log.metrics().compaction_passes;
        log.stepper.commit().unwrap();
        log.stepper.tidy().unwrap();
        if passes as usize == sizes.len() {
            sizes.push(log.left().len());
        }
    }
    assert!(log.log.metrics().compaction_passes >= 4, "{sizes:?}");
    assert!(sizes.windows(2).all(|pair| pair[0] >= pair[1]), "{sizes:?}");
    assert_eq!(log.left(), (200..400).collect::<Vec<_>>(), "one record of each key");
}

#[test]
fn what_somebody_holds_is_left_alone() {
    let mut folder = Folder::new(6);
    let mut log = folder.open_table(table());
    log.fill(6, 300, 10);
    log.seal();
    let positions: Vec<_> = log.given.iter().map(|(.., position)| *position).collect();
    log.log.hold("query-1", &name("t"), Position::new(positions[150])).unwrap();
    log.compact();
    let left = log.left();
    assert!(left.iter().filter(|offset| **offset >= 150).count() == 150, "{left:?}");
    assert!(left.len() < 250, "what lies before is compacted");

    // Somebody who comes while a pass is under way holds what is not switched yet.
    log.log.release("query-1");
    assert!(log.stepper.compact().unwrap());
    log.log.hold("query-2", &name("t"), Position::new(0)).unwrap();
    while log.stepper.compact().unwrap() {
        log.stepper.commit().unwrap();
    }
    assert_eq!(log.left(), left);
    log.log.release("query-2");
    log.compact();
    assert!(log.left().len() <= 10);
}

#[test]
fn readers_read_on_across_a_switch() {
    let mut folder = Folder::new(7);
    let mut log = folder.open_table(table());
    log.fill(7, 400, 10);
    log.seal();
    let until = log.log.head().position;
    let one = ReadLimits { records: 1, bytes: 1 };
    let topics = Selection::Topics(vec![name("t")], Position::new(0));
    let mut forwards = [log.log.reader(partition(0)).unwrap(), log.log.reader(topics).unwrap()];
    let mut backwards = log.log.backward_reader(partition(400)).unwrap();
    for reader in &mut forwards {
        assert_eq!(reader.read(until, one).unwrap().runs[0].first_offset, Offset::new(0));
    }
    assert_eq!(backwards.read(until, one).unwrap().runs[0].first_offset, Offset::new(399));
    log.compact();
    let newest = log.newest();
    for reader in forwards {
        let found = log.read(Ok(reader), one);
        assert!(found.is_sorted() && found.len() < 399 && newest.iter().all(|offset| found.contains(offset)), "{found:?}");
    }
    let found = log.read(Ok(backwards), one);
    assert!(found.iter().rev().is_sorted() && found.len() < 399 && newest.iter().all(|offset| *offset == 399 || found.contains(offset)));
    log.stepper.upkeep().unwrap();
    let files = folder.files("log");
    let old: Vec<_> = files.iter().filter(|path| path.file_stem().is_some_and(|stem| stem.len() == 20)).collect();
    assert_eq!(old.len(), 1, "nobody has what was replaced any more: {files:?}");
}

#[test]
fn a_table_may_have_a_retention_too() {
    let mut folder = Folder::new(8);
    let retention = Retention { bytes: Some(32 << 10), ..Retention::FOR_EVER };
    let mut log = folder.open_table(TopicSettings { retention, ..table() });
    for round in 0..4 {
        log.fill(round, 300, 1000);
        for _ in 0..3 {
            log.compact();
            log.stepper.commit().unwrap();
            log.stepper.tidy().unwrap();
        }
        assert!(folder.bytes() < 64 << 10, "{}", folder.bytes());
    }
    let first = log.log.firsts(&name("t")).unwrap()[0];
    assert!(first > Offset::new(500), "{first}");
    assert!(matches!(log.log.reader(partition(0)), Err(LogError::OffsetOutOfRange { .. })));
    let found = log.read(log.log.reader(partition(first.get())), ReadLimits::default());
    let newest: Vec<_> = log.newest().into_iter().filter(|offset| *offset >= first.get()).collect();
    assert!(newest.iter().all(|offset| found.contains(offset)) && found.len() < 1200 - first.get() as usize);
}

#[test]
fn lags_say_when_something_is_compacted() {
    let compaction = Compaction { min_lag: HOUR, max_lag: 4 * HOUR, dirty_percent: 90, ..Compaction::DEFAULT };
    let mut folder = Folder::new(9);
    let mut log = folder.open_table(TopicSettings { compaction, ..table() });
    log.fill(9, 300, 10);
    assert_eq!(log.compact(), 0, "it is too recent");
    log.clock.advance(HOUR);
    assert!(log.compact() > 0);
    let some = log.left().len();
    assert!(some < 100, "{some}");
    for _ in 0..3 {
        // Little is dirty, and the segment is not full.
        log.append("key1", true);
    }
    log.stepper.tidy().unwrap();
    log.clock.advance(2 * HOUR);
    assert_eq!(log.compact(), 0);
    log.clock.advance(2 * HOUR);
    for _ in 0..3 {
        log.compact();
    }
    assert!(log.left().len() <= 10, "{:?}", log.left());
}

#[test]
fn a_full_disk_is_waited_for() {
    let mut waited = 0;
    for nth in 0..12 {
        let mut folder = Folder::new(10 + nth);
        let mut log = folder.open_table(table());
        log.fill(nth, 300, 10);
        log.seal();
        let before = log.left();
        folder.disk.arm(Fault::Fail { kind: Some(foldlog_log::testing::CallKind::Write), nth, errno: 28 });
        let is_whole = loop {
            match log.stepper.compact() {
                Ok(true) if log.stepper.commit().is_ok() => {}
                // The journal had no room for a file, which ends the log.
                Ok(true) => break false,
                Ok(false) => break true,
                Err(LogError::Io { source, .. }) => {
                    assert_eq!(source.raw_os_error(), Some(28));
                    waited += 1;
                    assert!(log.left().iter().all(|offset| before.contains(offset)));
                }
                Err(error) => panic!("{error}"),
            }
        };
        if is_whole && folder.disk.is_disarmed() {
            log.compact();
            assert!(log.left().len() <= 10);
        }
    }
    assert!(waited > 4, "{waited}");
}

#[test]
fn damage_to_what_was_written_anew_is_reported() {
    let mut folder = Folder::new(11);
    let mut log = folder.open_table(table());
    log.fill(11, 300, 10);
    log.seal();
    log.compact();
    let given = log.given.clone();
    drop(log);
    let whole = folder.disk.kill();
    let mut reported = 0;
    for extension in ["log", "runs", "index"] {
        let path = folder.files(extension).into_iter().find(|path| path.file_stem().is_some_and(|stem| stem.len() > 20)).unwrap();
        let bytes = whole.bytes_of(&path).unwrap();
        for place in (0..bytes.len()).step_by(5) {
            let (disk, mut damaged) = (whole.fork(), bytes.clone());
            damaged[place] ^= 0x10;
            disk.overwrite(&path, damaged);
            let (disk, clock) = (Arc::new(disk), Arc::clone(&folder.clock));
            let (log, _stepper) = EmbeddedLog::open_stepped(disk, clock, Path::new("/data"), folder.config.clone(), || 7).unwrap();
            let mut reader = log.reader(partition(0)).unwrap();
            let told = loop {
                match reader.read(log.head().position, ReadLimits::default()) {
                    Ok(chunk) if chunk.runs.is_empty() => break false,
                    Ok(chunk) => {
                        for record in chunk.runs.iter().flat_map(|run| run.records()) {
                            let record = record.unwrap();
                            assert_eq!(record.key, Some(given[record.offset.get() as usize].0.as_bytes()));
                        }
                    }
                    Err(LogError::Corrupt { file, .. }) => {
                        assert_eq!(file, path);
                        break true;
                    }
                    Err(error) => panic!("{error}"),
                }
            };
            assert_eq!(told, extension != "index", "{} byte {place}", path.display());
            reported += u32::from(told);
        }
    }
    assert!(reported > 20, "{reported}");
}

#[test]
fn only_tables_are_compacted_by_key() {
    let mut folder = Folder::new(12);
    let log = folder.open();
    let compaction = Compaction { dirty_percent: 10, ..Compaction::DEFAULT };
    for (kind, told) in [(TopicKind::Events, "an event replaces none"), (TopicKind::Records, "table")] {
        let refused = log.log.create_topic(name("x"), TopicSettings { compaction, ..TopicSettings::new(kind, 1) });
        let Err(LogError::Invalid { field, reason }) = refused else { panic!("{refused:?}") };
        assert_eq!(field, "compaction");
        assert!(reason.contains(told), "{reason}");
    }
    let wrong = TopicSettings { compaction: Compaction { dirty_percent: 0, ..compaction }, ..table() };
    assert!(matches!(log.log.create_topic(name("x"), wrong), Err(LogError::Invalid { field, .. }) if field == "dirty percent"));
    log.log.create_topic(name("x"), TopicSettings { compaction, ..table() }).unwrap();
    drop(log);
    let log = folder.open();
    assert_eq!(log.log.topic(&name("x")).unwrap().settings.compaction, compaction);
    log.log.create_topic(name("e"), TopicSettings::new(TopicKind::Events, 1)).unwrap();
    assert_eq!(log.log.compaction(&name("e")).unwrap(), []);
}

/// Threads and the clock of the system: nothing is stepped, and nobody waits for anything but appends.
#[test]
fn a_table_is_compacted_while_it_is_written_and_can_be_paused() {
    let config = LogConfig { tidy_bytes: 4096, segment_bytes: 8 << 10, compaction_bytes_per_second: 1 << 40, ..Folder::new(13).config };
    let folder = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(Arc::new(RealDisk), Arc::new(SystemClock::new()), &folder.path().join("data"), config).unwrap();
    log.create_topic(name("t"), table()).unwrap();
    log.allow_removal();
    let mut appended = 0;
    let mut append = || {
        let record =
            NewRecord { key: Some(format!("key{}", appended % 10).into()), value: Some(vec![b'x'; 1000].into()), ..NewRecord::default() };
        let write = Write::Records { topic: name("t"), partition: None, records: vec![record] };
        block_on(log.append(Append { writes: vec![write], ..Append::default() }).unwrap()).unwrap();
        appended += 1;
        assert!(appended < 100_000, "nothing is compacted");
    };
    let passes = || log.metrics().compaction_passes;
    while passes() < 3 {
        append();
    }
    log.pause_compaction(true);
    let paused_at = passes();
    (0..300).for_each(|_| append());
    assert!(log.is_compaction_paused() && passes() <= paused_at + 1, "the pass that was under way may have been at its end");
    log.pause_compaction(false);
    while passes() < paused_at + 3 {
        append();
    }
    let mut reader = log.reader(partition(0)).unwrap();
    let (mut left, mut newest) = (0, BTreeMap::new());
    loop {
        let chunk = reader.read(log.head().position, ReadLimits::default()).unwrap();
        for record in chunk.runs.iter().flat_map(|run| run.records()) {
            let record = record.unwrap();
            newest.insert(record.key.unwrap().to_vec(), record.offset.get());
            left += 1;
        }
        if chunk.runs.is_empty() {
            break;
        }
    }
    let end = log.ends(&name("t")).unwrap()[0].get();
    assert_eq!(newest.into_values().collect::<BTreeSet<_>>(), (end - 10..end).collect());
    assert!(left < end, "{left} of {end}");
    log.stop();
}
