//! Topics deleted: their files go when nothing names them any more and nobody reads them, whenever the power goes.
//!
//! Upkeep, commits and checkpoints are stepped one by one on a simulated disk, so that it can go between any two of their calls.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{path::Path, sync::Arc};

use foldlog_log::{
    Append, EmbeddedLog, Identity, LogBackend, LogConfig, LogError, NewEvent, Offset, Position, ReadLimits, RequestId, RequestKey,
    Selection, Stepper, StreamHead, StreamVersion, Timestamp, TopicKind, TopicName, TopicSettings, Write,
    clock::ManualClock,
    testing::{CallKind, Fault, SimDisk},
};
use futures::FutureExt;

type Step = fn(&mut Stepper) -> Result<(), LogError>;

struct Log {
    log: EmbeddedLog,
    stepper: Stepper,
    disk: SimDisk,
}

fn open(disk: &SimDisk, tail_bytes: u64) -> Log {
    let config = LogConfig {
        first_journal_file_bytes: 32 << 10,
        journal_file_bytes: 128 << 10,
        tail_bytes,
        segment_bytes: 8 << 10,
        ..LogConfig::default()
    };
    let mut drawn = disk.paths().len() as u128 + 1;
    let random = move || {
        drawn += 1;
        drawn << 32
    };
    let clock = Arc::new(ManualClock::at(Timestamp::new(1_700_000_000_000)));
    let (log, stepper) = EmbeddedLog::open_stepped(Arc::new(disk.clone()), clock, Path::new("/data"), config, random).unwrap();
    assert_eq!((&log.report().damage, log.report().damaged.len()), (&None, 0));
    Log { log, stepper, disk: disk.clone() }
}

/// Two topics, one to be deleted, filled by so many units.
fn filled(disk: &SimDisk, tail_bytes: u64, units: u64) -> Log {
    let mut log = open(disk, tail_bytes);
    log.create("gone");
    log.create("kept");
    log.fill(0, units);
    log
}

fn name(topic: &str) -> TopicName {
    topic.parse().unwrap()
}

impl Log {
    fn create(&self, topic: &str) {
        self.log.create_topic(name(topic), TopicSettings::new(TopicKind::Events, 2)).unwrap();
    }

    fn append(&mut self, topics: &[&str], number: u64) -> Result<Position, LogError> {
        let event = || NewEvent { kind: "Happened".into(), data: "x".repeat(300).into(), ..NewEvent::default() };
        let stream = format!("s{}", number % 5);
        let writes =
            topics.iter().map(|topic| Write::Stream { topic: name(topic), stream: stream.parse().unwrap(), events: vec![event()] });
        let key = RequestKey { principal: "ann".into(), id: RequestId::new(u128::from(number).to_le_bytes()) };
        let identity = Some(Identity { key, digest: number.into(), first_attempt: None });
        let answer = self.log.append(Append { writes: writes.collect(), identity, ..Append::default() })?;
        self.stepper.commit()?;
        answer.now_or_never().unwrap().map(|answer| answer.end)
    }

    /// Fills both topics, some units in both; a checkpoint now and then.
    fn fill(&mut self, from: u64, count: u64) {
        for number in from..from + count {
            let topics: &[&str] = [&["gone"][..], &["kept"], &["gone", "kept"]][number as usize % 3];
            self.append(topics, number).unwrap();
            if number % 10 == 9 {
                self.stepper.tidy().unwrap();
            }
        }
    }

    /// Deletes what is left of deleted topics.
    fn bring_out(&mut self) {
        let steps: [Step; 5] = [Stepper::upkeep, Stepper::commit, Stepper::upkeep, Stepper::tidy, Stepper::upkeep];
        steps.into_iter().for_each(|step| step(&mut self.stepper).unwrap());
    }

    /// Files and manifests of topics.
    fn left(&self) -> Vec<String> {
        let paths = self.disk.paths().into_iter().filter(|path| path.starts_with("/data/topics"));
        paths.map(|path| path.strip_prefix("/data/topics").unwrap().display().to_string()).collect()
    }

    fn folders(&self) -> usize {
        use foldlog_log::disk::Disk;
        self.disk.list(Path::new("/data/topics")).unwrap().iter().filter(|entry| entry.is_folder).count()
    }

    fn count(&self, selection: Selection) -> u64 {
        let mut reader = self.log.reader(selection).unwrap();
        let mut found = 0;
        loop {
            let chunk = reader.read(self.log.head().position, ReadLimits::default()).unwrap();
            if chunk.runs.is_empty() {
                return found;
            }
            found += chunk.runs.iter().map(|run| u64::from(run.count)).sum::<u64>();
        }
    }

    fn count_of(&self, topic: &str) -> u64 {
        self.count(Selection::Topics(vec![name(topic)], Position::new(0)))
    }

    fn has(&self, topic: &str) -> bool {
        self.log.topic(&name(topic)).is_ok()
    }
}

#[test]
fn what_a_deleted_topic_left_goes_with_its_manifest_last() {
    let mut log = filled(&SimDisk::new(1), 0, 100);
    log.stepper.tidy().unwrap();
    let id = log.log.topic(&name("gone")).unwrap().id.to_string();
    let of_gone = |log: &Log| log.left().into_iter().filter(|path| path.starts_with(&id)).count();
    assert!(of_gone(&log) > 5);
    log.log.delete_topic(&name("gone")).unwrap();
    assert!(of_gone(&log) > 5 && log.folders() == 2);
    log.bring_out();
    assert_eq!((of_gone(&log), log.folders()), (0, 1));
    assert_eq!(log.count(Selection::All(Position::new(0))), 66);
    // Neither its streams nor its offsets are there for another of its name.
    log.create("gone");
    assert_eq!(log.log.stream_head(&name("gone"), &"s0".parse().unwrap()).unwrap(), StreamHead::Absent);
    log.fill(100, 30);
    assert_eq!((log.count_of("gone"), log.count_of("kept")), (20, 86));
    let state = log.log.stream_head(&name("gone"), &"s0".parse().unwrap()).unwrap();
    assert_eq!(state, StreamHead::At(StreamVersion::new(4)));
    let disk = log.disk.kill();
    drop(log);
    let log = open(&disk, 0);
    assert_eq!((log.count_of("gone"), log.count_of("kept")), (20, 86));
}

#[test]
fn what_is_none_of_ours_stays_in_the_folder_of_a_deleted_topic() {
    use foldlog_log::disk::Disk;
    let mut log = filled(&SimDisk::new(1), 0, 60);
    log.stepper.tidy().unwrap();
    let id = log.log.topic(&name("gone")).unwrap().id.to_string();
    let notes = [format!("{id}/00000/notes.txt"), format!("{id}/notes.txt")];
    for path in &notes {
        log.disk.create(&Path::new("/data/topics").join(path)).unwrap();
    }
    log.log.delete_topic(&name("gone")).unwrap();
    log.bring_out();
    let left: Vec<_> = log.left().into_iter().filter(|path| path.starts_with(&id)).collect();
    assert_eq!(left, notes, "and the manifest is gone");
    let disk = log.disk.power_cut();
    drop(log);
    let log = open(&disk, 0);
    assert_eq!(log.count(Selection::All(Position::new(0))), 40);
}

/// The power goes at each call of the disk between the deletion and the end of what is left.
#[test]
fn a_deletion_that_is_cut_off_is_done_or_not_begun() {
    let (mut done, mut not_begun, mut in_between) = (0, 0, 0);
    for nth in 0..45 {
        for seed in 0..4 {
            let disk = SimDisk::new(seed);
            let mut log = filled(&disk, 4096 * (seed % 3), 35);
            disk.arm(Fault::PowerOff { nth });
            let mut answered = log.log.delete_topic(&name("gone")).is_ok();
            let mut written = 0;
            if answered && nth % 2 == 0 {
                written = u64::from(log.append(&["kept"], 1000).is_ok());
            }
            let steps: [Step; 6] = [Stepper::upkeep, Stepper::commit, Stepper::upkeep, Stepper::tidy, Stepper::upkeep, Stepper::upkeep];
            for step in steps {
                if !answered || step(&mut log.stepper).is_err() {
                    break;
                }
            }
            let before = log.log.head().position;
            drop(log);
            let disk = if seed == 3 { disk.kill() } else { disk.power_cut() };
            let mut log = open(&disk, 4096 * (seed % 3));
            assert!(!(answered && log.has("gone")), "what was answered is undone");
            answered = !log.has("gone");
            assert!(log.log.head().position >= before, "positions are not given again");
            let kept = log.count_of("kept");
            assert!(kept == 23 || kept == 23 + 1, "{kept} instead of 23, {written} behind");
            if !answered {
                not_begun += 1;
                assert_eq!(log.count_of("gone"), 23);
                log.log.delete_topic(&name("gone")).unwrap();
            } else {
                done += 1;
                in_between += u32::from(log.folders() == 2);
            }
            assert_eq!(log.count(Selection::All(Position::new(0))), kept);
            // The id is remembered, whatever became of the topic.
            let again = log.append(&["kept"], 1);
            assert!(matches!(again, Ok(end) if end < log.log.head().position), "{again:?}");
            log.create("gone");
            log.append(&["gone", "kept"], 2000).unwrap();
            log.bring_out();
            let manifests = log.left().iter().filter(|path| path.ends_with(".json")).count();
            assert_eq!((log.folders(), manifests), (2, 2), "of the other topic and the new one: {:?}", log.left());
            log.stepper.tidy().unwrap();
            let disk = log.disk.power_cut();
            drop(log);
            let log = open(&disk, 0);
            assert_eq!((log.count_of("gone"), log.count_of("kept")), (1, kept + 1));
        }
    }
    assert!(done > 60 && not_begun > 8 && in_between > 20, "{done} {not_begun} {in_between}");
}

#[test]
fn who_has_its_segments_in_hand_keeps_its_files_until_they_let_go() {
    let mut log = filled(&SimDisk::new(1), 0, 60);
    log.stepper.tidy().unwrap();
    let mut reader = log.log.reader(Selection::All(Position::new(0))).unwrap();
    let one = ReadLimits { records: 1, bytes: 1 };
    reader.read(log.log.head().position, one).unwrap();
    log.log.delete_topic(&name("gone")).unwrap();
    log.bring_out();
    assert_eq!(log.folders(), 2, "somebody reads everything");
    let mut kept = 0;
    loop {
        let chunk = reader.read(log.log.head().position, one).unwrap();
        if chunk.runs.is_empty() {
            break;
        }
        kept += 1;
    }
    assert_eq!(kept, 40);
    drop(reader);
    log.bring_out();
    assert_eq!(log.folders(), 1);
}

/// What was in line when a topic was deleted is refused, and what was admitted before goes with it.
#[test]
fn what_is_in_line_for_a_deleted_topic_is_refused() {
    let mut log = filled(&SimDisk::new(1), 0, 3);
    let event = NewEvent { kind: "Happened".into(), ..NewEvent::default() };
    let write = |topic: &str| Write::Stream { topic: name(topic), stream: "s".parse().unwrap(), events: vec![event.clone()] };
    let both = log.log.append(Append { writes: vec![write("kept"), write("gone")], ..Append::default() }).unwrap();
    log.log.delete_topic(&name("gone")).unwrap();
    log.stepper.commit().unwrap();
    assert!(matches!(both.now_or_never().unwrap(), Err(LogError::UnknownTopic { .. })));
    assert_eq!(log.log.stream_head(&name("kept"), &"s".parse().unwrap()).unwrap(), StreamHead::Absent, "a unit is whole or not there");
    let repeat = log.append(&["gone"], 0);
    assert!(matches!(repeat, Err(LogError::UnknownTopic { .. })), "{repeat:?}");
}

#[test]
fn a_deletion_that_cannot_be_written_ends_the_log_or_changes_nothing() {
    for (kind, errno) in [(CallKind::Write, 28), (CallKind::Sync, 5), (CallKind::Rename, 5)] {
        let log = filled(&SimDisk::new(1), 0, 3);
        log.disk.arm(Fault::Fail { kind: Some(kind), nth: 0, errno });
        assert!(log.log.delete_topic(&name("gone")).is_err());
        assert_eq!((log.has("gone"), log.log.failure().borrow().is_some()), (true, errno == 5));
        if errno == 28 {
            assert_eq!(log.count_of("gone"), 2);
            log.log.delete_topic(&name("gone")).unwrap();
        }
    }
}

/// Rot in what nobody needs any more is nobody's damage.
#[test]
fn damage_to_a_deleted_topic_is_none() {
    let mut log = filled(&SimDisk::new(1), 0, 60);
    log.stepper.tidy().unwrap();
    let id = log.log.topic(&name("gone")).unwrap().id.to_string();
    log.log.delete_topic(&name("gone")).unwrap();
    let disk = log.disk.kill();
    drop(log);
    for path in disk.paths().into_iter().filter(|path| path.starts_with(Path::new("/data/topics").join(&id))) {
        disk.overwrite(&path, b"rot".to_vec());
    }
    let mut log = open(&disk, 0);
    assert_eq!(log.count(Selection::All(Position::new(0))), 40);
    log.bring_out();
    assert_eq!((log.folders(), log.log.ends(&name("kept")).unwrap().iter().map(|end: &Offset| end.get()).sum::<u64>()), (1, 40));
}
