//! Damage in a segment: its partition is read-only, around the damage it is read, and everything else goes on.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use foldlog_log::{
    Append, Appended, EmbeddedLog, Expected, LogBackend, LogConfig, LogError, NewEvent, NewRecord, Offset, PartitionId, Position,
    Precondition, ReadLimits, Selection, Stepper, StreamHead, StreamId, StreamVersion, Timestamp, TopicKind, TopicSettings, Write,
    clock::ManualClock,
    disk::Disk,
    testing::{Random, SimDisk},
};
use futures::FutureExt;

fn config() -> LogConfig {
    LogConfig {
        first_journal_file_bytes: 64 << 10,
        journal_file_bytes: 64 << 10,
        tidy_bytes: 16 << 10,
        untidied_bytes: 256 << 10,
        tail_bytes: 0,
        segment_bytes: 4096,
        ..LogConfig::default()
    }
}

fn open(disk: &SimDisk) -> (EmbeddedLog, Stepper) {
    let clock = Arc::new(ManualClock::at(Timestamp::new(1000)));
    let mut draw = Random::new(3);
    let random = move || (u128::from(draw.next()) << 64) | u128::from(draw.next());
    EmbeddedLog::open_stepped(Arc::new(disk.clone()), clock, Path::new("/data"), config(), random).unwrap()
}

fn append(log: &EmbeddedLog, stepper: &mut Stepper, append: Append) -> Result<Appended, LogError> {
    let answer = log.append(append)?;
    stepper.commit()?;
    answer.now_or_never().unwrap()
}

/// Three records for a partition of topic `r`.
fn records(partition: u32, mark: u64) -> Append {
    let value = format!("{mark}:{}", "x".repeat(250));
    let record = NewRecord { value: Some(value.into()), ..NewRecord::default() };
    let write = Write::Records { topic: "r".parse().unwrap(), partition: Some(PartitionId::new(partition)), records: vec![record; 3] };
    Append { writes: vec![write], ..Append::default() }
}

fn event(stream: &str) -> Append {
    let event = NewEvent { kind: "E".into(), data: vec![b'x'; 900].into(), ..NewEvent::default() };
    let write = Write::Stream { topic: "e".parse().unwrap(), stream: stream.parse().unwrap(), events: vec![event] };
    Append { writes: vec![write], ..Append::default() }
}

/// Two partitions of records and one of events, in several segments each; returns the paths of the files of the partition of
/// records that will be damaged.
fn folder(disk: &SimDisk) -> Vec<PathBuf> {
    let (log, mut stepper) = open(disk);
    log.create_topic("r".parse().unwrap(), TopicSettings::new(TopicKind::Records, 2)).unwrap();
    log.create_topic("e".parse().unwrap(), TopicSettings::new(TopicKind::Events, 1)).unwrap();
    for round in 0..12 {
        append(&log, &mut stepper, records(0, round)).unwrap();
        append(&log, &mut stepper, records(1, round)).unwrap();
        append(&log, &mut stepper, event(&format!("s{}", round % 2))).unwrap();
        stepper.tidy().unwrap();
    }
    // These are in the journal only.
    append(&log, &mut stepper, records(0, 99)).unwrap();
    append(&log, &mut stepper, event("s1")).unwrap();
    stepper.seal().unwrap();
    let of_r = log.topic(&"r".parse().unwrap()).unwrap().id.to_string();
    disk.paths().into_iter().filter(|path| path.to_string_lossy().contains(&format!("{of_r}/00000/"))).collect()
}

/// Offsets that can be read of a partition from an offset on, and what ended it.
fn read(log: &EmbeddedLog, partition: u32, from: u64) -> (Vec<u64>, Option<String>) {
    let selection = Selection::Partition("r".parse().unwrap(), PartitionId::new(partition), Offset::new(from));
    read_all(log, selection, |offset, _| offset)
}

fn read_all(log: &EmbeddedLog, selection: Selection, each: impl Fn(u64, u64) -> u64) -> (Vec<u64>, Option<String>) {
    let mut reader = log.reader(selection).unwrap();
    let mut found = Vec::new();
    loop {
        match reader.read(log.head().position, ReadLimits::default()) {
            Ok(chunk) if chunk.runs.is_empty() => return (found, None),
            Ok(chunk) => {
                for run in &chunk.runs {
                    for place in 0..u64::from(run.count) {
                        found.push(each(run.first_offset.get() + place, run.first_position.get() + place));
                    }
                }
            }
            Err(error @ LogError::Corrupt { .. }) => return (found, Some(error.to_string())),
            Err(error) => panic!("{error}"),
        }
    }
}

fn base_of(path: &Path) -> u64 {
    path.file_stem().unwrap().to_string_lossy().parse().unwrap()
}

/// Partition 0 of `r` is read-only and says why; everything else takes appends, is tidied, and is read.
fn goes_on(log: &EmbeddedLog, stepper: &mut Stepper, file: &Path) {
    let refused = append(log, stepper, records(0, 0)).unwrap_err();
    let LogError::PartitionReadOnly { topic, partition, reason } = &refused else { panic!("{refused}") };
    assert_eq!((topic.as_str(), partition.get()), ("r", 0));
    assert!(reason.contains(&file.display().to_string()) && reason.contains("offsets from"), "{reason}");
    let mut both = records(1, 0);
    both.writes.extend(records(0, 0).writes);
    let end = log.head().position;
    assert!(matches!(append(log, stepper, both), Err(LogError::PartitionReadOnly { .. })));
    assert_eq!(log.head().position, end, "nothing of an append that touches it is written");

    let (of_one, checkpoints) = (log.ends(&"r".parse().unwrap()).unwrap()[1], log.metrics().checkpoints);
    for round in 0..200 {
        append(log, stepper, records(1, round)).unwrap();
        append(log, stepper, event("s0")).unwrap();
        if round % 10 == 0 {
            stepper.tidy().unwrap();
        }
    }
    stepper.tidy().unwrap();
    assert!(log.metrics().checkpoints >= checkpoints + 10);
    // Not even what was in the journal when the damage was found holds journal files back.
    assert!(log.metrics().untidied_bytes == 0 && log.metrics().journal_bytes < 512 << 10, "{:?}", log.metrics());
    let end = of_one.get() + 600;
    assert_eq!(read(log, 1, 0), ((0..end).collect(), None));
    assert!(log.failure().borrow().is_none());
}

#[test]
fn damage_in_a_segment_makes_its_partition_read_only_and_no_other() {
    let whole = SimDisk::new(1);
    let files = folder(&whole);
    let logs: Vec<_> = files.iter().filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    assert!(logs.len() > 2);
    for (place, file) in logs.iter().enumerate() {
        let (first, end) = (base_of(file), logs.get(place + 1).map_or(36, |next| base_of(next)));
        for extension in ["log", "runs"] {
            let disk = whole.fork();
            let path = file.with_extension(extension);
            let cut = disk.bytes_of(&path).unwrap();
            disk.overwrite(&path, cut[..cut.len() - 1].to_vec());
            let damaged = disk.bytes_of(&path).unwrap();
            for _ in 0..2 {
                let (log, mut stepper) = open(&disk);
                assert_eq!((log.report().damage.as_ref(), log.report().damaged.len()), (None, 1));
                // What is not damaged is read: before, behind, and what was in the journal only.
                let (before, report) = read(&log, 0, 0);
                assert_eq!(before, (0..first).collect::<Vec<_>>());
                let report = report.unwrap();
                assert!(report.contains(&path.display().to_string()), "{report}");
                assert!(report.contains(&format!("offsets from {first} to {end} (exclusive) of topic r partition 0")), "{report}");
                assert_eq!(read(&log, 0, end), ((end..39).collect(), None));
                let behind = Selection::Partition("r".parse().unwrap(), PartitionId::new(0), Offset::new(end));
                let (behind, _) = read_all(&log, behind, |_, position| position);
                assert_eq!(read_all(&log, Selection::All(Position::new(behind[0])), |_, position| position).1, None);
                // Everything in order of position is read up to there too.
                let (positions, report) = read_all(&log, Selection::All(Position::default()), |_, position| position);
                assert!(report.is_some() && positions.len() as u64 >= first, "{} {report:?}", positions.len());
                goes_on(&log, &mut stepper, &path);
                assert_eq!(read(&log, 0, end), ((end..39).collect(), None), "also when segments hold it");
            }
            assert_eq!(disk.bytes_of(&path).unwrap(), damaged, "the damaged file is left as it was");
        }
    }
}

#[test]
fn a_partition_whose_folder_is_gone_is_reported_and_goes_on_in_a_new_one() {
    let disk = SimDisk::new(2);
    let files = folder(&disk);
    for path in &files {
        disk.remove(path).unwrap();
    }
    let (log, mut stepper) = open(&disk);
    assert_eq!(read(&log, 0, 36), ((36..39).collect(), None));
    goes_on(&log, &mut stepper, &files[0].with_extension("log"));
    drop((log, stepper));
    let (log, _) = open(&disk.power_cut());
    assert_eq!(read(&log, 0, 36), ((36..39).collect(), None));
    assert!(read(&log, 0, 0).1.is_some() && log.report().damaged.len() == 1);
}

#[test]
fn damage_that_a_reader_meets_makes_the_partition_read_only() {
    let disk = SimDisk::new(3);
    let files = folder(&disk);
    let file = files.iter().find(|path| path.to_string_lossy().ends_with(".log") && base_of(path) > 0).unwrap();
    let mut bytes = disk.bytes_of(file).unwrap();
    bytes[200] ^= 1;
    disk.overwrite(file, bytes);
    let (log, mut stepper) = open(&disk);
    assert!(log.report().damaged.is_empty(), "a start does not read batches");
    append(&log, &mut stepper, records(0, 0)).unwrap();
    let (found, report) = read(&log, 0, 0);
    assert_eq!(found, (0..base_of(file)).collect::<Vec<_>>());
    assert!(report.unwrap().contains(&file.display().to_string()));
    goes_on(&log, &mut stepper, file);
    let behind = base_of(file) + 3;
    assert_eq!(read(&log, 0, behind), ((behind..42).collect(), None), "one batch is damaged, not what follows it");
}

#[test]
fn where_streams_of_a_damaged_partition_stand_is_not_guessed() {
    let whole = SimDisk::new(4);
    folder(&whole);
    let (log, _) = open(&whole);
    let of_e = log.topic(&"e".parse().unwrap()).unwrap().id.to_string();
    drop(log);
    let files: Vec<_> = whole.paths().into_iter().filter(|path| path.to_string_lossy().contains(&format!("{of_e}/00000/"))).collect();
    let log_of =
        |base: fn(&[&PathBuf]) -> PathBuf| base(&files.iter().filter(|path| path.to_string_lossy().ends_with(".log")).collect::<Vec<_>>());
    let newest = log_of(|logs| logs[logs.len() - 1].clone());
    assert!(base_of(&newest) > 4, "what lies before it knows an older head of s0");
    let disk = whole.fork();
    disk.remove(&newest).unwrap();
    let (log, mut stepper) = open(&disk);
    let (e, s0, s1): (_, StreamId, StreamId) = ("e".parse().unwrap(), "s0".parse().unwrap(), "s1".parse().unwrap());
    // The newest event of s1 is in the journal; that of s0 may have been in what is lost.
    assert_eq!(log.stream_head(&e, &s1).unwrap(), StreamHead::At(StreamVersion::new(7)));
    assert!(matches!(log.stream_head(&e, &s0), Err(LogError::Corrupt { .. })));
    let absent: StreamId = "never".parse().unwrap();
    assert!(matches!(log.stream_head(&e, &absent), Err(LogError::Corrupt { .. })));
    let (_, report) = read_all(&log, Selection::Stream(e.clone(), s0.clone(), StreamVersion::FIRST), |offset, _| offset);
    assert!(report.unwrap().contains(&newest.display().to_string()), "a stream that may go on does not just end");
    // A belief about it cannot be checked, so nothing may rest on it.
    let condition = Precondition::Stream { topic: e.clone(), stream: s0.clone(), expected: Expected::Absent };
    let believed = Append { preconditions: vec![condition], ..records(1, 0) };
    assert!(matches!(append(&log, &mut stepper, believed), Err(LogError::PartitionReadOnly { .. })));
}

#[test]
fn damage_in_the_journal_that_is_met_later_makes_the_folder_read_only() {
    let disk = SimDisk::new(5);
    folder(&disk);
    let (log, mut stepper) = open(&disk);
    append(&log, &mut stepper, records(0, 7)).unwrap();
    append(&log, &mut stepper, records(1, 7)).unwrap();
    // No memory holds them, so tidy reads them from their frames.
    for path in disk.paths().into_iter().filter(|path| path.to_string_lossy().ends_with(".journal")) {
        let mut bytes = disk.bytes_of(&path).unwrap();
        for at in (0..bytes.len()).step_by(4096).filter(|at| bytes[*at..].starts_with(b"FLJ\x01")).collect::<Vec<_>>() {
            bytes[at + 100] ^= 1;
        }
        disk.overwrite(&path, bytes);
    }
    stepper.tidy().unwrap();
    assert!(log.failure().borrow().is_none(), "the process goes on for readers");
    let refused = append(&log, &mut stepper, records(1, 8)).unwrap_err();
    assert!(matches!(&refused, LogError::ReadOnly { reason } if reason.contains(".journal, bytes ")), "{refused}");
    assert_eq!(read(&log, 1, 0).0, (0..36).collect::<Vec<_>>(), "what is in segments is read");
    let before = log.metrics().checkpoints;
    stepper.tidy().unwrap();
    assert_eq!(log.metrics().checkpoints, before);
}
