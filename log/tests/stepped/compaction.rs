//! Compaction by key: what a newer record replaced goes, the newest stays where it is, and so do tombstones for as long as asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use foldlog_log::{
    Append, Compaction, Compression, EmbeddedLog, LogBackend, LogConfig, LogError, LogReader, Offset, Position, ReadLimits, Retention,
    Selection, Stepper, TopicKind, TopicSettings,
    clock::SystemClock,
    disk::RealDisk,
    testing::{CallKind, Fault, Random, conformance::block_on},
};

use super::room::{DATA, Folder, HOUR, Log, SMALL, Step, Way, config, name, of_partition, of_topic, record};

/// A folder with a table `t`.
struct Table {
    folder: Folder,
    /// Every record that it was ever given, by offset: its key, whether it has a value, and its position.
    given: Vec<(String, bool, u64)>,
}

impl Table {
    fn new(seed: u64) -> Self {
        Self { folder: Folder::new(seed, config()), given: Vec::new() }
    }

    fn create(&mut self, settings: TopicSettings) -> Log {
        let log = self.folder.open();
        log.log.create_topic(name("t"), settings).unwrap();
        log
    }

    fn append(&mut self, log: &mut Log, key: &str, has_value: bool) {
        let value = has_value.then(|| format!("{}:{}", self.given.len(), "x".repeat(100)));
        let answer = log.write(record("t", key, value));
        assert_eq!(answer.ranges[0].first.get(), self.given.len() as u64);
        self.given.push((key.to_owned(), has_value, answer.first.get()));
    }

    /// Appends records of a few keys by chance, a checkpoint behind every few.
    fn fill(&mut self, log: &mut Log, seed: u64, count: u64, keys: u64) {
        let mut random = Random::new(seed);
        for number in 0..count {
            let is_deleted = random.one_in(8);
            self.append(log, &format!("key{}", random.below(keys)), !is_deleted);
            if number % 7 == 6 {
                log.stepper.tidy().unwrap();
            }
        }
        log.stepper.tidy().unwrap();
    }

    /// Offsets that must be there: the newest of each key that has a value.
    fn newest(&self) -> BTreeSet<u64> {
        let newest: BTreeMap<_, _> = (0..).zip(&self.given).map(|(offset, (key, has_value, _))| (key, (offset, *has_value))).collect();
        newest.into_values().filter(|(_, has_value)| *has_value).map(|(offset, _)| offset).collect()
    }

    /// Offsets that a reader returns, each of which must be as it was given.
    fn read(&self, log: &Log, reader: Result<Box<dyn LogReader>, LogError>, way: Way, limits: ReadLimits) -> Vec<u64> {
        log.read(reader, way, limits, |_, record| {
            let (key, has_value, position) = &self.given[record.offset.get() as usize];
            let value = has_value.then(|| format!("{}:{}", record.offset, "x".repeat(100)).into_bytes());
            assert_eq!((record.key, record.value), (Some(key.as_bytes()), value.as_deref()));
            assert_eq!(record.position.get(), *position);
            record.offset.get()
        })
    }

    /// What is left, by every way of reading it, which must all agree.
    fn left(&self, log: &Log) -> Vec<u64> {
        let (end, head) = (self.given.len() as u64, log.log.head().position);
        let many = ReadLimits::default();
        let forwards = |selection, limits| self.read(log, log.log.reader(selection), Way::Forwards, limits);
        let backwards = |selection, limits| self.read(log, log.log.backward_reader(selection), Way::Backwards, limits);
        let all = forwards(of_partition("t", 0), many);
        let reversed: Vec<_> = all.iter().rev().copied().collect();
        for selection in [of_partition("t", 0), of_topic("t", 0), Selection::All(Position::new(0))] {
            assert_eq!(forwards(selection, SMALL), all);
        }
        for selection in [of_partition("t", end), of_topic("t", head.get())] {
            assert_eq!(backwards(selection, SMALL), reversed);
        }
        for from in (0..=end).step_by(1 + end as usize / 11) {
            let behind: Vec<_> = all.iter().copied().filter(|offset| *offset >= from).collect();
            let before: Vec<_> = reversed.iter().copied().filter(|offset| *offset < from).collect();
            let position = self.given.get(from as usize).map_or(head.get(), |(.., position)| *position);
            for selection in [of_partition("t", from), of_topic("t", position)] {
                assert_eq!(forwards(selection.clone(), many), behind, "from {from}");
                assert_eq!(backwards(selection, many), before, "before {from}");
            }
        }
        assert!(self.newest().iter().all(|offset| all.binary_search(offset).is_ok()), "a newest record is gone: {all:?}");
        all
    }
}

fn settings() -> TopicSettings {
    TopicSettings::new(TopicKind::Table, 1)
}

#[test]
fn the_newest_record_of_each_key_stays_where_it_is() {
    for (seed, compression) in [(1, Compression::None), (2, Compression::Lz4), (3, Compression::Zstd)] {
        let mut table = Table::new(seed);
        let mut log = table.create(TopicSettings { compression, ..settings() });
        table.fill(&mut log, seed, 700, 20);
        assert_eq!(table.left(&log).len(), 700);
        let before = table.folder.bytes();
        assert!(log.compact() >= 2);
        let some = table.left(&log).len();
        assert!(some < 250 && table.folder.bytes() * 2 < before, "{some} records, {} bytes of {before}", table.folder.bytes());
        // What is active is left alone until it is sealed.
        log.seal();
        log.compact();
        let left = table.left(&log);
        assert!(left.len() <= 20, "{left:?}");
        let state = log.log.compaction(&name("t")).unwrap()[0];
        assert_eq!((state.cleaned_to, state.dirty_bytes, state.percent), (Offset::new(700), 0, None));
        assert!(log.log.metrics().compaction_passes >= 2 && log.log.metrics().compaction_freed_bytes as usize > before / 2);
        assert_eq!(table.folder.files("log").len(), table.folder.files("runs").len());

        log = table.folder.cut(log);
        assert_eq!(table.left(&log), left);
        table.fill(&mut log, seed + 10, 100, 20);
        table.left(&log);
        log.seal();
        log.compact();
        assert!(table.left(&log).len() <= 20);
    }
}

#[test]
fn a_tombstone_is_seen_for_as_long_as_asked_and_then_goes() {
    let mut table = Table::new(4);
    let mut log = table.create(TopicSettings { compaction: Compaction { delete_retention: HOUR, ..Compaction::DEFAULT }, ..settings() });
    table.append(&mut log, "a", true);
    table.append(&mut log, "b", true);
    table.append(&mut log, "a", false);
    log.seal();
    log.compact();
    assert_eq!(table.left(&log), [1, 2], "what is deleted is gone, that it is stays");
    log.clock.advance(HOUR - Duration::from_millis(1));
    assert_eq!(log.compact(), 0, "nothing is due");
    log.clock.advance(Duration::from_millis(1));
    assert!(log.compact() > 0);
    assert_eq!(table.left(&log), [1]);
    table.append(&mut log, "b", false);
    log.seal();
    log.compact();
    log.clock.advance(HOUR);
    log.compact();
    assert_eq!(table.left(&log), [0; 0], "a table that is empty");
    table.append(&mut log, "c", true);
    assert_eq!(table.left(&log), [4]);
    log = table.folder.cut(log);
    assert_eq!(table.left(&log), [4]);
}

/// The power goes after each step of a pass, and after each call of the disk within them.
#[test]
fn a_pass_that_is_cut_off_leaves_old_or_new() {
    let (mut cut, mut compacted, mut untouched) = (0, 0, 0);
    for cut_after in 0..10 {
        for seed in 0..10 {
            let mut table = Table::new(100 + seed);
            let mut log = table.create(settings());
            table.fill(&mut log, seed, 150, 10);
            let before = table.left(&log);
            let compact: Step = |stepper| stepper.compact().map(drop);
            let steps = [
                compact,
                compact,
                Stepper::commit,
                Stepper::upkeep,
                compact,
                Stepper::tidy,
                Stepper::commit,
                Stepper::seal,
                Stepper::tidy,
                Stepper::upkeep,
            ];
            let nth = [0, 1, 2, 3, 4, 5, 7, 9, 11, 14][seed as usize];
            cut += u32::from(table.folder.step_until_cut(&mut log, &steps, cut_after, nth));
            table.folder.crash(log, seed % 4 > 0);
            let log = table.folder.open();
            let left = table.left(&log);
            assert!(left.iter().all(|offset| before.contains(offset)));
            // What the first start found is still there at the next.
            table.folder.crash(log, false);
            let mut log = table.folder.open();
            assert_eq!(table.left(&log), left);
            (compacted, untouched) = (compacted + u32::from(left.len() < before.len()), untouched + u32::from(left.len() == before.len()));
            for round in 0..2 {
                table.fill(&mut log, seed + round, 40, 10);
                log.seal();
                log.compact();
                let left = table.left(&log);
                assert!(left.len() <= 10, "{left:?}");
            }
            // What the first pass made small, the second made one.
            let files = table.folder.files("log");
            assert!(files.len() <= 3 && files.len() == table.folder.files("runs").len(), "leftovers: {files:?}");
        }
    }
    assert!(cut > 40 && compacted > 30 && untouched > 10, "{cut} {compacted} {untouched}");
}

#[test]
fn more_keys_than_fit_into_memory_take_several_passes() {
    let mut table = Table::new(5);
    table.folder.config.compaction_memory_bytes = 64 << 10;
    let mut log = table.create(settings());
    // Each key has a kilobyte: some forty fit.
    for round in 0..2 {
        for key in 0..200 {
            table.append(&mut log, &format!("{key:01000}"), round == 0 || key % 10 > 0);
            if key % 7 == 0 {
                log.stepper.tidy().unwrap();
            }
        }
    }
    log.seal();
    let mut sizes = vec![table.left(&log).len()];
    while log.stepper.compact().unwrap() {
        let passes = log.log.metrics().compaction_passes;
        log.stepper.commit().unwrap();
        log.stepper.tidy().unwrap();
        if passes as usize == sizes.len() {
            sizes.push(table.left(&log).len());
        }
    }
    assert!(log.log.metrics().compaction_passes >= 4, "{sizes:?}");
    assert!(sizes.windows(2).all(|pair| pair[0] >= pair[1]), "{sizes:?}");
    assert_eq!(table.left(&log), (200..400).collect::<Vec<_>>(), "one record of each key");
}

#[test]
fn what_somebody_holds_is_left_alone() {
    let mut table = Table::new(6);
    let mut log = table.create(settings());
    table.fill(&mut log, 6, 300, 10);
    log.seal();
    let positions: Vec<_> = table.given.iter().map(|(.., position)| *position).collect();
    log.log.hold("query-1", &name("t"), Position::new(positions[150])).unwrap();
    log.compact();
    let left = table.left(&log);
    assert!(left.iter().filter(|offset| **offset >= 150).count() == 150, "{left:?}");
    assert!(left.len() < 250, "what lies before is compacted");

    // Somebody who comes while a pass is under way holds what is not switched yet.
    log.log.release("query-1");
    assert!(log.stepper.compact().unwrap());
    log.log.hold("query-2", &name("t"), Position::new(0)).unwrap();
    while log.stepper.compact().unwrap() {
        log.stepper.commit().unwrap();
    }
    assert_eq!(table.left(&log), left);
    log.log.release("query-2");
    log.compact();
    assert!(table.left(&log).len() <= 10);
}

#[test]
fn readers_read_on_across_a_switch() {
    let mut table = Table::new(7);
    let mut log = table.create(settings());
    table.fill(&mut log, 7, 400, 10);
    log.seal();
    let until = log.log.head().position;
    let one = ReadLimits { records: 1, bytes: 1 };
    let mut forwards = [of_partition("t", 0), of_topic("t", 0)].map(|selection| log.log.reader(selection).unwrap());
    let mut backwards = log.log.backward_reader(of_partition("t", 400)).unwrap();
    for reader in &mut forwards {
        assert_eq!(reader.read(until, one).unwrap().runs[0].first_offset, Offset::new(0));
    }
    assert_eq!(backwards.read(until, one).unwrap().runs[0].first_offset, Offset::new(399));
    log.compact();
    let newest = table.newest();
    for reader in forwards {
        let found = table.read(&log, Ok(reader), Way::Forwards, one);
        assert!(found.is_sorted() && found.len() < 399 && newest.iter().all(|offset| found.contains(offset)), "{found:?}");
    }
    let found = table.read(&log, Ok(backwards), Way::Backwards, one);
    assert!(found.iter().rev().is_sorted() && found.len() < 399 && newest.iter().all(|offset| *offset == 399 || found.contains(offset)));
    log.stepper.upkeep().unwrap();
    let files = table.folder.files("log");
    let old: Vec<_> = files.iter().filter(|path| path.file_stem().is_some_and(|stem| stem.len() == 20)).collect();
    assert_eq!(old.len(), 1, "nobody has what was replaced any more: {files:?}");
}

#[test]
fn a_table_may_have_a_retention_too() {
    let mut table = Table::new(8);
    let retention = Retention { bytes: Some(32 << 10), ..Retention::FOR_EVER };
    let mut log = table.create(TopicSettings { retention, ..settings() });
    for round in 0..4 {
        table.fill(&mut log, round, 300, 1000);
        for _ in 0..3 {
            log.compact();
            log.stepper.commit().unwrap();
            log.stepper.tidy().unwrap();
        }
        assert!(table.folder.bytes() < 64 << 10, "{}", table.folder.bytes());
    }
    let first = log.log.firsts(&name("t")).unwrap()[0];
    assert!(first > Offset::new(500), "{first}");
    assert!(matches!(log.log.reader(of_partition("t", 0)), Err(LogError::OffsetOutOfRange { .. })));
    let found = table.read(&log, log.log.reader(of_partition("t", first.get())), Way::Forwards, ReadLimits::default());
    let newest: Vec<_> = table.newest().into_iter().filter(|offset| *offset >= first.get()).collect();
    assert!(newest.iter().all(|offset| found.contains(offset)) && found.len() < 1200 - first.get() as usize);
}

#[test]
fn lags_say_when_something_is_compacted() {
    let compaction = Compaction { min_lag: HOUR, max_lag: 4 * HOUR, dirty_percent: 90, ..Compaction::DEFAULT };
    let mut table = Table::new(9);
    let mut log = table.create(TopicSettings { compaction, ..settings() });
    table.fill(&mut log, 9, 300, 10);
    assert_eq!(log.compact(), 0, "it is too recent");
    log.clock.advance(HOUR);
    assert!(log.compact() > 0);
    let some = table.left(&log).len();
    assert!(some < 100, "{some}");
    for _ in 0..3 {
        // Little is dirty, and the segment is not full.
        table.append(&mut log, "key1", true);
    }
    log.stepper.tidy().unwrap();
    log.clock.advance(2 * HOUR);
    assert_eq!(log.compact(), 0);
    log.clock.advance(2 * HOUR);
    for _ in 0..3 {
        log.compact();
    }
    assert!(table.left(&log).len() <= 10, "{:?}", table.left(&log));
}

#[test]
fn a_full_disk_is_waited_for() {
    let mut waited = 0;
    for nth in 0..12 {
        let mut table = Table::new(10 + nth);
        let mut log = table.create(settings());
        table.fill(&mut log, nth, 300, 10);
        log.seal();
        let before = table.left(&log);
        table.folder.disk.arm(Fault::Fail { kind: Some(CallKind::Write), nth, errno: 28 });
        let is_whole = loop {
            match log.stepper.compact() {
                Ok(true) if log.stepper.commit().is_ok() => {}
                // The journal had no room for a file, which ends the log.
                Ok(true) => break false,
                Ok(false) => break true,
                Err(LogError::Io { source, .. }) => {
                    assert_eq!(source.raw_os_error(), Some(28));
                    waited += 1;
                    assert!(table.left(&log).iter().all(|offset| before.contains(offset)));
                }
                Err(error) => panic!("{error}"),
            }
        };
        if is_whole && table.folder.disk.is_disarmed() {
            log.compact();
            assert!(table.left(&log).len() <= 10);
        }
    }
    assert!(waited > 4, "{waited}");
}

#[test]
fn damage_to_what_was_written_anew_is_reported() {
    let mut table = Table::new(11);
    let mut log = table.create(settings());
    table.fill(&mut log, 11, 300, 10);
    log.seal();
    log.compact();
    drop(log);
    let mut reported = 0;
    for extension in ["log", "runs", "index"] {
        let path = table.folder.files(extension).into_iter().find(|path| path.file_stem().is_some_and(|stem| stem.len() > 20)).unwrap();
        let bytes = table.folder.disk.bytes_of(&path).unwrap();
        for place in (0..bytes.len()).step_by(5) {
            let (mut folder, mut damaged) = (table.folder.fork(), bytes.clone());
            damaged[place] ^= 0x10;
            folder.disk.overwrite(&path, damaged);
            let log = folder.try_open(DATA).unwrap().log;
            let mut reader = log.reader(of_partition("t", 0)).unwrap();
            let told = loop {
                match reader.read(log.head().position, ReadLimits::default()) {
                    Ok(chunk) if chunk.runs.is_empty() => break false,
                    Ok(chunk) => {
                        for record in chunk.runs.iter().flat_map(|run| run.records()) {
                            let record = record.unwrap();
                            assert_eq!(record.key, Some(table.given[record.offset.get() as usize].0.as_bytes()));
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
    let mut folder = Folder::new(12, config());
    let log = folder.open();
    let compaction = Compaction { dirty_percent: 10, ..Compaction::DEFAULT };
    for (kind, told) in [(TopicKind::Events, "an event replaces none"), (TopicKind::Records, "table")] {
        let refused = log.log.create_topic(name("x"), TopicSettings { compaction, ..TopicSettings::new(kind, 1) });
        let Err(LogError::Invalid { field, reason }) = refused else { panic!("{refused:?}") };
        assert_eq!(field, "compaction");
        assert!(reason.contains(told), "{reason}");
    }
    let wrong = TopicSettings { compaction: Compaction { dirty_percent: 0, ..compaction }, ..settings() };
    assert!(matches!(log.log.create_topic(name("x"), wrong), Err(LogError::Invalid { field, .. }) if field == "dirty percent"));
    log.log.create_topic(name("x"), TopicSettings { compaction, ..settings() }).unwrap();
    drop(log);
    let log = folder.open();
    assert_eq!(log.log.topic(&name("x")).unwrap().settings.compaction, compaction);
    log.log.create_topic(name("e"), TopicSettings::new(TopicKind::Events, 1)).unwrap();
    assert_eq!(log.log.compaction(&name("e")).unwrap(), []);
}

/// Threads and the clock of the system: nothing is stepped, and nobody waits for anything but appends.
#[test]
fn a_table_is_compacted_while_it_is_written_and_can_be_paused() {
    let config = LogConfig { tidy_bytes: 4096, compaction_bytes_per_second: 1 << 40, ..config() };
    let folder = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(Arc::new(RealDisk), Arc::new(SystemClock::new()), &folder.path().join("data"), config).unwrap();
    log.create_topic(name("t"), settings()).unwrap();
    log.allow_removal();
    let mut appended = 0;
    let mut append = || {
        let write = record("t", &format!("key{}", appended % 10), Some("x".repeat(1000)));
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
    let mut reader = log.reader(of_partition("t", 0)).unwrap();
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
