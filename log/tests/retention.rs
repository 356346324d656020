//! Retention: what it lets go is removed in whole segments, whoever reads below is told, and whoever holds something keeps it.
//!
//! Upkeep, commits and checkpoints are stepped one by one on a simulated disk, so that the power can go between any two of them.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{path::Path, sync::Arc, time::Duration};

use foldlog_log::{
    Append, EmbeddedLog, LogBackend, LogConfig, LogError, LogReader, NewRecord, Offset, PartitionId, Position, ReadLimits, Retention,
    Selection, Stepper, Timestamp, TopicKind, TopicName, TopicSettings, Write, clock::ManualClock, testing::SimDisk,
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
    /// Of the tail in memory.
    memory: u64,
}

struct Log {
    log: EmbeddedLog,
    stepper: Stepper,
    clock: Arc<ManualClock>,
}

impl Folder {
    fn new(seed: u64) -> Self {
        Self { disk: SimDisk::new(seed), clock: Arc::new(ManualClock::at(NOW)), starts: 0, memory: 0 }
    }

    fn open(&mut self) -> Log {
        let config = LogConfig {
            first_journal_file_bytes: 32 << 10,
            journal_file_bytes: 128 << 10,
            tail_bytes: self.memory,
            segment_bytes: 8 << 10,
            ..LogConfig::default()
        };
        self.starts += 1;
        let mut drawn = u128::from(self.starts) << 64;
        let random = move || {
            drawn += 1;
            drawn
        };
        let disk = Arc::new(self.disk.clone());
        let (log, stepper) = EmbeddedLog::open_stepped(disk, self.clock.clone(), Path::new("/data"), config, random).unwrap();
        assert_eq!((&log.report().damage, log.report().damaged.len()), (&None, 0));
        Log { log, stepper, clock: self.clock.clone() }
    }

    /// Files of a kind, and their bytes.
    fn files(&self, extension: &str) -> (usize, usize) {
        let of_kind = self.disk.paths().into_iter().filter(|path| path.extension().is_some_and(|one| one == extension));
        of_kind.fold((0, 0), |(count, bytes), path| (count + 1, bytes + self.disk.bytes_of(&path).unwrap().len()))
    }
}

impl Log {
    fn create(&self, topic: &str, retention: Retention) {
        let settings = TopicSettings { retention, ..TopicSettings::new(TopicKind::Records, 1) };
        self.log.create_topic(name(topic), settings).unwrap();
    }

    /// Appends records of 500 bytes or so, a checkpoint behind every few.
    fn fill(&mut self, topic: &str, count: u64) {
        for number in 0..count {
            self.append(topic);
            if number % 5 == 4 {
                self.stepper.tidy().unwrap();
            }
        }
        self.stepper.tidy().unwrap();
    }

    fn append(&mut self, topic: &str) -> Offset {
        let end = self.log.ends(&name(topic)).unwrap()[0];
        let record = NewRecord { value: Some(format!("{end}:{}", "x".repeat(500)).into()), ..NewRecord::default() };
        let write = Write::Records { topic: name(topic), partition: None, records: vec![record] };
        let answer = self.log.append(Append { writes: vec![write], ..Append::default() }).unwrap();
        self.stepper.commit().unwrap();
        answer.now_or_never().unwrap().unwrap().ranges[0].first
    }

    /// Removes what may go, down to the files.
    fn remove(&mut self) {
        self.log.allow_removal();
        for _ in 0..2 {
            self.stepper.upkeep().unwrap();
            self.stepper.commit().unwrap();
            self.stepper.tidy().unwrap();
        }
        self.stepper.upkeep().unwrap();
    }

    fn first(&self, topic: &str) -> Offset {
        self.log.firsts(&name(topic)).unwrap()[0]
    }

    fn end(&self, topic: &str) -> Offset {
        self.log.ends(&name(topic)).unwrap()[0]
    }

    fn offsets(&self, reader: Result<Box<dyn LogReader>, LogError>) -> Vec<(String, u64)> {
        let mut reader = reader.unwrap();
        let mut found = Vec::new();
        loop {
            let chunk = reader.read(self.log.head().position, ReadLimits { records: 3, bytes: 2000 }).unwrap();
            if chunk.runs.is_empty() {
                return found;
            }
            for run in &chunk.runs {
                for record in run.records() {
                    let record = record.unwrap();
                    assert!(record.value.unwrap().starts_with(format!("{}:", record.offset).as_bytes()));
                    found.push((run.topic.name.to_string(), record.offset.get()));
                }
            }
        }
    }

    /// What is left of a topic, by every way of reading it.
    fn check(&self, topic: &str) {
        let (first, end) = (self.first(topic), self.end(topic));
        let left: Vec<_> = (first.get()..end.get()).map(|offset| (topic.to_owned(), offset)).collect();
        let backwards: Vec<_> = left.iter().rev().cloned().collect();
        let topics = |position| Selection::Topics(vec![name(topic)], Position::new(position));
        let head = self.log.head().position.get();
        assert_eq!(self.offsets(self.log.reader(partition(topic, first))), left);
        assert_eq!(self.offsets(self.log.reader(topics(0))), left);
        assert_eq!(self.offsets(self.log.backward_reader(partition(topic, end))), backwards);
        assert_eq!(self.offsets(self.log.backward_reader(topics(head))), backwards);
        let at_first = self.log.at_time(partition(topic, end), Timestamp::new(0)).unwrap();
        assert_eq!(at_first, partition(topic, first));
        if let Some(below) = first.get().checked_sub(1) {
            for reader in
                [self.log.reader(partition(topic, Offset::new(below))), self.log.backward_reader(partition(topic, Offset::new(0)))]
            {
                match reader.err() {
                    Some(LogError::OffsetOutOfRange { first: told, end: up_to, .. }) => assert_eq!((told, up_to), (first, end)),
                    other => panic!("{other:?}"),
                }
            }
            let Err(LogError::Removed { first: whole, .. }) = self.log.whole_from(&topics(0)) else { panic!("something was removed") };
            assert!(matches!(self.log.whole_from(&topics(whole.get() - 1)), Err(LogError::Removed { .. })));
            assert_eq!(self.offsets(self.log.reader(topics(whole.get()))), left);
            self.log.whole_from(&topics(whole.get())).unwrap();
        } else {
            self.log.whole_from(&topics(0)).unwrap();
        }
    }
}

fn name(topic: &str) -> TopicName {
    topic.parse().unwrap()
}

fn partition(topic: &str, from: Offset) -> Selection {
    Selection::Partition(name(topic), PartitionId::new(0), from)
}

fn by_bytes(bytes: u64) -> Retention {
    Retention { bytes: Some(bytes), ..Retention::FOR_EVER }
}

fn by_time(time: Duration) -> Retention {
    Retention { time: Some(time), ..Retention::FOR_EVER }
}

#[test]
fn the_newest_bytes_stay_and_the_files_of_the_rest_go() {
    let mut folder = Folder::new(1);
    let mut log = folder.open();
    log.create("r", by_bytes(32 << 10));
    log.create("kept", Retention::FOR_EVER);
    log.fill("r", 200);
    log.fill("kept", 50);
    log.check("r");
    let before = folder.files("log");
    log.stepper.upkeep().unwrap();
    log.stepper.commit().unwrap();
    assert_eq!(log.first("r"), Offset::new(0), "nobody has said yet that all who need something hold it");

    log.remove();
    let first = log.first("r");
    assert!(first > Offset::new(100) && first < Offset::new(150), "{first}");
    assert_eq!(log.first("kept"), Offset::new(0));
    let after = folder.files("log");
    let kept = folder.files("log").1 - 50 * 580;
    assert!(after.0 < before.0 && kept > 32 << 10 && kept < 48 << 10, "{before:?} {after:?}");
    assert_eq!((folder.files("runs").0, folder.files("index").0 + 2), (after.0, after.0));
    assert_eq!(log.log.metrics().deleted_segments as usize, before.0 - after.0);
    log.check("r");
    log.check("kept");
    // Everything there is, from the beginning: what is left.
    let all = log.offsets(log.log.reader(Selection::All(Position::new(0))));
    assert_eq!(all.len() as u64, 250 - first.get());

    log.fill("r", 100);
    log.remove();
    assert!(log.first("r") > first);
    log.check("r");
}

#[test]
fn what_is_too_old_goes_and_an_idle_topic_becomes_empty() {
    let mut folder = Folder::new(2);
    let mut log = folder.open();
    log.create("r", by_time(HOUR));
    for _ in 0..4 {
        log.fill("r", 10);
        log.clock.advance(HOUR / 2);
        log.remove();
        log.check("r");
    }
    // Those recorded an hour ago are not older than that. A segment is sealed after a quarter of an hour.
    assert_eq!(log.first("r"), Offset::new(20));
    assert_eq!(log.end("r"), Offset::new(40));
    for _ in 0..3 {
        log.clock.advance(HOUR / 2);
        log.remove();
    }
    assert_eq!((log.first("r"), log.end("r")), (Offset::new(40), Offset::new(40)));
    assert_eq!(folder.files("log"), (1, 0));
    log.check("r");
    drop(log);
    folder.disk = folder.disk.power_cut();
    let mut log = folder.open();
    assert_eq!((log.first("r"), log.append("r")), (Offset::new(40), Offset::new(40)));
    log.stepper.tidy().unwrap();
    log.check("r");
}

/// The power goes after each step of a removal, and after each call of the disk within them.
#[test]
fn a_removal_that_is_cut_off_is_done_or_not_begun() {
    let (mut done, mut not_begun, mut leftovers) = (0, 0, 0);
    for cut_after in 0..6 {
        for seed in 0..30 {
            let nth = [0, 1, 0, 1, 2, 3, 5, 7, 9, 11][seed as usize % 10];
            let mut folder = Folder::new(100 + seed);
            folder.memory = 4096 * (seed % 3);
            let mut log = folder.open();
            log.create("r", by_bytes(16 << 10));
            log.fill("r", 100);
            log.log.allow_removal();
            let steps: [Step; 5] = [Stepper::upkeep, Stepper::commit, Stepper::seal, Stepper::tidy, Stepper::upkeep];
            for (number, step) in steps.into_iter().enumerate() {
                if number == cut_after {
                    folder.disk.arm(foldlog_log::testing::Fault::PowerOff { nth });
                }
                if step(&mut log.stepper).is_err() {
                    break;
                }
            }
            let shown = log.first("r");
            drop(log);
            folder.disk = if seed % 4 == 0 { folder.disk.kill() } else { folder.disk.power_cut() };
            let files = folder.files("log").0;
            let mut log = folder.open();
            let first = log.first("r");
            assert!(first >= shown, "what was shown as removed is back: {first}, before {shown}");
            assert!(first == Offset::new(0) || first > Offset::new(60), "half a removal: {first}");
            log.check("r");
            (done, not_begun) = (done + u32::from(first.get() > 0), not_begun + u32::from(first.get() == 0));
            log.append("r");
            log.remove();
            log.check("r");
            let left = folder.files("log");
            assert!(left.0 < 8 && left.1 < 32 << 10, "{left:?}");
            leftovers += u32::from(files > left.0);
        }
    }
    assert!(done > 60 && not_begun > 5 && leftovers > 30, "{done} {not_begun} {leftovers}");
}

#[test]
fn what_somebody_holds_stays_until_they_let_go() {
    let mut folder = Folder::new(3);
    let mut log = folder.open();
    log.create("r", by_bytes(16 << 10));
    log.create("other", by_bytes(16 << 10));
    log.fill("r", 100);
    log.fill("other", 100);
    // Positions are offsets here: r has the first hundred.
    log.log.hold("query-1", &name("r"), Position::new(40)).unwrap();
    log.log.hold("query-2", &name("r"), Position::new(60)).unwrap();
    assert!(matches!(log.log.hold("query-1", &name("nowhere"), Position::new(0)), Err(LogError::UnknownTopic { .. })));
    log.remove();
    let first = log.first("r").get();
    assert!(first > 10 && first <= 40, "{first}");
    assert!(log.first("other").get() > 40);
    let owners = |log: &Log| log.log.holders(&name("r")).unwrap().into_iter().map(|one| one.owner).collect::<Vec<_>>();
    assert_eq!(owners(&log), ["query-1", "query-2"]);
    log.check("r");

    log.log.release("query-1");
    log.remove();
    let second = log.first("r").get();
    assert!(second > 40 && second <= 60 && owners(&log) == ["query-2"], "{second}");
    log.log.release("query-2");
    log.remove();
    assert!(log.first("r").get() > 60);
    log.check("r");
}

#[test]
fn a_reader_reads_the_segment_in_its_hand_and_then_is_told() {
    let mut folder = Folder::new(4);
    let mut log = folder.open();
    log.create("r", by_bytes(16 << 10));
    log.fill("r", 100);
    let mut of_partition = log.log.reader(partition("r", Offset::new(0))).unwrap();
    let mut of_topics = log.log.reader(Selection::Topics(vec![name("r")], Position::new(0))).unwrap();
    let mut of_all = log.log.reader(Selection::All(Position::new(0))).unwrap();
    let until = log.log.head().position;
    let one = ReadLimits { records: 1, bytes: 1 };
    for reader in [&mut of_partition, &mut of_topics, &mut of_all] {
        assert_eq!(reader.read(until, one).unwrap().runs[0].first_offset, Offset::new(0));
    }
    log.remove();
    let first = log.first("r");
    assert!(folder.disk.paths().contains(&first_log(&folder, 0)), "its readers have not come to its end");
    for (place, mut reader) in [of_partition, of_topics, of_all].into_iter().enumerate() {
        let mut next = 1;
        let told = loop {
            match reader.read(until, one) {
                Ok(chunk) => assert_eq!(chunk.runs[0].first_offset, Offset::new(next), "a jump"),
                Err(error) => break error,
            }
            next += 1;
        };
        assert!(next < first.get());
        match told {
            LogError::OffsetOutOfRange { asked, first: told, .. } if place == 0 => assert_eq!((asked, told), (Offset::new(next), first)),
            LogError::Removed { asked, first: whole } if place > 0 => {
                assert_eq!(asked, Position::new(next));
                log.log.whole_from(&Selection::All(whole)).unwrap();
            }
            other => panic!("{other}"),
        }
    }
    log.stepper.upkeep().unwrap();
    assert!(!folder.disk.paths().contains(&first_log(&folder, 0)), "nobody has it any more");
    log.check("r");
}

/// The `.log` of the segment that begins at an offset, of the only topic with records in segments.
fn first_log(folder: &Folder, base: u64) -> std::path::PathBuf {
    let any = folder.disk.paths().into_iter().find(|path| path.extension().is_some_and(|one| one == "log")).unwrap();
    any.with_file_name(format!("{base:020}.log"))
}

#[test]
fn a_reader_that_has_caught_up_keeps_no_file() {
    let mut folder = Folder::new(5);
    folder.memory = 8 << 10;
    let mut log = folder.open();
    log.create("r", by_bytes(16 << 10));
    log.fill("r", 100);
    let readers = [partition("r", Offset::new(0)), Selection::All(Position::new(0))].map(|selection| log.log.reader(selection).unwrap());
    let mut readers = readers.map(|mut reader| {
        let mut seen = 0;
        while seen < 100 {
            let chunk = reader.read(log.log.head().position, ReadLimits::default()).unwrap();
            seen += chunk.runs.iter().map(|run| u64::from(run.count)).sum::<u64>();
        }
        // There is nothing more, it finds out.
        assert!(reader.read(log.log.head().position, ReadLimits::default()).unwrap().runs.is_empty());
        reader
    });
    log.fill("r", 100);
    log.remove();
    let bases = folder.disk.paths().into_iter().filter(|path| path.extension().is_some_and(|one| one == "log")).count();
    assert!(bases < 8, "{bases} segments");
    // They go on behind what they have seen, or are told that it is gone.
    for reader in &mut readers {
        match reader.read(log.log.head().position, ReadLimits::default()) {
            Err(LogError::OffsetOutOfRange { .. } | LogError::Removed { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_is_removed_under_the_scrubber_is_no_damage() {
    let mut folder = Folder::new(8);
    let mut log = folder.open();
    log.create("r", by_bytes(16 << 10));
    log.fill("r", 5000);
    // It reads a mebibyte at a time.
    while log.stepper.scrub().unwrap() == Some(0) {}
    let first = log.first("r");
    log.remove();
    assert!(log.first("r") > first.plus(4000));
    while log.stepper.scrub().unwrap().is_some() {}
    while log.stepper.scrub().unwrap().is_some() {}
    let metrics = log.log.metrics();
    assert_eq!((metrics.scrub_passes, metrics.scrub_damages), (2, 0));
    assert!(metrics.scrubbed_bytes < 5000 * 500, "nothing was read of what is gone");
}

#[test]
fn a_nearly_full_disk_gets_space_from_retention() {
    let mut folder = Folder::new(9);
    let mut log = folder.open();
    log.create("r", by_bytes(16 << 10));
    log.fill("r", 300);
    // Half of the reserve, which is a tenth of the disk, is free.
    let total = folder.disk.used() + folder.disk.used() / 19;
    folder.disk.set_capacity(total);
    folder.clock.advance(Duration::from_secs(1));
    let record = || Write::Records { topic: name("r"), partition: None, records: vec![NewRecord::default()] };
    let refused = log.log.append(Append { writes: vec![record()], ..Append::default() });
    assert!(matches!(refused.err(), Some(LogError::DiskFull { .. })));
    log.remove();
    folder.clock.advance(Duration::from_secs(1));
    log.append("r");
}

#[test]
fn a_clock_that_jumps_removes_nothing() {
    let year = HOUR * 24 * 365;
    let mut folder = Folder::new(6);
    let mut log = folder.open();
    log.create("r", by_time(HOUR * 24 * 7));
    log.fill("r", 100);
    log.remove();
    folder.clock.set_wall(Timestamp::new(NOW.get() + i64::try_from(year.as_millis()).unwrap()));
    for _ in 0..20 {
        log.remove();
        assert_eq!(log.first("r"), Offset::new(0));
        folder.clock.advance(HOUR);
    }
    drop(log);
    // Neither does a start.
    let mut log = folder.open();
    log.remove();
    assert_eq!(log.first("r"), Offset::new(0));
    log.check("r");
    log.log.confirm_clock();
    log.remove();
    assert_eq!(log.first("r"), log.end("r"));
}

#[test]
fn slips_of_units_and_other_retentions_are_refused() {
    let mut folder = Folder::new(7);
    let log = folder.open();
    let slip = log.log.create_topic(name("t"), TopicSettings { retention: by_bytes(7), ..TopicSettings::new(TopicKind::Records, 1) });
    assert!(slip.unwrap_err().to_string().contains("16384"));
    log.create("t", by_bytes(1 << 20));
    let other = log.log.create_topic(name("t"), TopicSettings::new(TopicKind::Records, 1)).unwrap_err().to_string();
    assert!(other.contains("retention 1048576 bytes instead of for ever"), "{other}");
}
