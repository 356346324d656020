//! Every byte of every small file, flipped, and every file cut to every length: the same answer as before, or an exact report;
//! and what goes on beside the damage.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use foldlog_log::{
    Append, EmbeddedLog, Identity, LogBackend, LogConfig, LogError, NewEvent, Offset, PartitionId, Position, ReadLimits, RequestId,
    RequestKey, Selection, Stepper, StreamVersion, Timestamp, TopicKind, TopicSettings, Write,
    clock::ManualClock,
    disk::Disk,
    testing::{Random, SimDisk},
};
use futures::FutureExt;

fn config() -> LogConfig {
    LogConfig { first_journal_file_bytes: 64 << 10, journal_file_bytes: 64 << 10, segment_bytes: 4096, ..LogConfig::default() }
}

fn open(disk: &SimDisk) -> Result<(EmbeddedLog, Stepper), LogError> {
    open_with(disk, config())
}

fn open_with(disk: &SimDisk, config: LogConfig) -> Result<(EmbeddedLog, Stepper), LogError> {
    let clock = Arc::new(ManualClock::at(Timestamp::new(1000)));
    let mut draw = Random::new(3);
    let random = move || (u128::from(draw.next()) << 64) | u128::from(draw.next());
    EmbeddedLog::open_stepped(Arc::new(disk.clone()), clock, Path::new("/data"), config, random)
}

fn append(log: &EmbeddedLog, stepper: &mut Stepper, unit: u8) {
    let event = NewEvent { kind: "E".into(), data: vec![unit; 300].into(), ..NewEvent::default() };
    let stream = format!("s{}", unit % 3).parse().unwrap();
    let key = RequestKey { principal: "me".into(), id: RequestId::new([unit; 16]) };
    let append = Append {
        writes: vec![Write::Stream { topic: "a".parse().unwrap(), stream, events: vec![event; 2] }],
        identity: Some(Identity { key, digest: unit.into(), first_attempt: None }),
        ..Append::default()
    };
    let answer = log.append(append).unwrap();
    stepper.commit().unwrap();
    answer.now_or_never().unwrap().unwrap();
}

/// A folder with segments, a window, frames behind the checkpoint, and a seal behind those.
fn folder() -> SimDisk {
    let disk = SimDisk::new(1);
    for start in 0..3 {
        let (log, mut stepper) = open(&disk).unwrap();
        log.create_topic("a".parse().unwrap(), TopicSettings::new(TopicKind::Events, 2)).unwrap();
        for unit in 0..8 {
            append(&log, &mut stepper, start * 10 + unit);
            if unit % 3 == 0 {
                stepper.tidy().unwrap();
            }
        }
        stepper.seal().unwrap();
        drop(log);
    }
    disk
}

/// Everything in the folder, or the report of damage.
fn answer(disk: &SimDisk) -> Result<Vec<(u64, Vec<u8>)>, String> {
    let (log, _) = open(disk).map_err(report)?;
    if let Some(damage) = log.report().damage.iter().chain(&log.report().damaged).next() {
        return Err(damage.clone());
    }
    let mut reader = log.reader(Selection::All(Position::new(0))).map_err(report)?;
    let mut found = Vec::new();
    loop {
        let chunk = reader.read(log.head().position, ReadLimits::default()).map_err(report)?;
        if chunk.runs.is_empty() {
            return Ok(found);
        }
        for run in &chunk.runs {
            for record in run.records() {
                let record = record.map_err(report)?;
                found.push((record.position.get(), record.value.unwrap().to_vec()));
            }
        }
    }
}

fn report(error: LogError) -> String {
    match error {
        LogError::Corrupt { .. } | LogError::Format { .. } => error.to_string(),
        // A file that is gone, by its name.
        LogError::Io { ref path, .. } => format!("{error}: {}", path.display()),
        error => panic!("not a report: {error:?}"),
    }
}

#[derive(Default, Debug)]
struct Outcomes {
    same: usize,
    reported: usize,
}

/// Damages a file in every way that `ways` gives, and holds each answer against the one before.
fn try_all(whole: &SimDisk, path: &Path, ways: impl Iterator<Item = (String, Vec<u8>)>) -> Outcomes {
    let expected = answer(&whole.fork()).unwrap();
    let mut outcomes = Outcomes::default();
    for (way, bytes) in ways {
        let disk = whole.fork();
        disk.overwrite(path, bytes);
        match answer(&disk) {
            Ok(found) => {
                assert_eq!(found.len(), expected.len(), "{} {way}: another number of records", path.display());
                assert!(found == expected, "{} {way}: other records", path.display());
                outcomes.same += 1;
            }
            Err(report) => {
                assert!(report.contains("/data"), "{} {way}: the report names no file: {report}", path.display());
                outcomes.reported += 1;
            }
        }
    }
    outcomes
}

fn flipped(bytes: &[u8], step: usize) -> impl Iterator<Item = (String, Vec<u8>)> {
    (0..bytes.len()).step_by(step).map(|place| {
        let mut flipped = bytes.to_vec();
        flipped[place] ^= 1 << (place % 8);
        (format!("with byte {place} flipped"), flipped)
    })
}

fn cut(bytes: &[u8], step: usize) -> impl Iterator<Item = (String, Vec<u8>)> {
    (0..bytes.len()).step_by(step).map(|length| (format!("cut to {length}"), bytes[..length].to_vec()))
}

fn paths(disk: &SimDisk, ends: &str) -> Vec<PathBuf> {
    disk.paths().into_iter().filter(|path| path.to_string_lossy().ends_with(ends)).collect()
}

#[test]
fn damage_to_a_manifest_is_reported() {
    let disk = folder();
    let manifests = paths(&disk, ".json");
    assert_eq!(manifests.len(), 2);
    for path in manifests {
        let bytes = disk.bytes_of(&path).unwrap();
        let outcomes = try_all(&disk, &path, flipped(&bytes, 1).chain(cut(&bytes, 1)));
        assert_eq!(outcomes.same, 0, "{}", path.display());
    }
}

#[test]
fn damage_to_a_checkpoint_is_reported_or_made_up_for() {
    let disk = folder();
    let mut sum = Outcomes::default();
    for path in ["/data/checkpoint.a", "/data/checkpoint.b"].map(PathBuf::from) {
        let bytes = disk.bytes_of(&path).unwrap();
        let outcomes = try_all(&disk, &path, flipped(&bytes, 1).chain(cut(&bytes, 1)));
        sum.same += outcomes.same;
        sum.reported += outcomes.reported;
    }
    // The older slot is not needed; without the newer one the older must do, and say so where it cannot.
    assert!(sum.same > 200, "{sum:?}");
}

#[test]
fn damage_to_the_window_of_request_ids_is_reported() {
    let disk = folder();
    let windows = paths(&disk, ".window");
    assert_eq!(windows.len(), 1);
    let bytes = disk.bytes_of(&windows[0]).unwrap();
    let outcomes = try_all(&disk, &windows[0], flipped(&bytes, 1).chain(cut(&bytes, 1)));
    assert_eq!(outcomes.same, 0, "{outcomes:?}");
}

#[test]
fn damage_to_the_journal_is_reported_where_it_matters() {
    let disk = folder();
    let mut sum = Outcomes::default();
    for path in paths(&disk, ".journal") {
        let bytes = disk.bytes_of(&path).unwrap();
        // Every byte of frames, and of a block behind them; what follows is zeros like those.
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| (last + 1).next_multiple_of(4096) + 4096);
        let used = &bytes[..used.min(bytes.len())];
        let places = used.iter().enumerate().filter(|(place, byte)| **byte != 0 || place % 4096 < 600 || place % 61 == 0);
        let flips = places.map(|(place, _)| {
            let mut flipped = bytes.clone();
            flipped[place] ^= 1 << (place % 8);
            (format!("with byte {place} flipped"), flipped)
        });
        let cuts = (0..used.len()).filter(|length| length % 4096 < 700 || length % 61 == 0);
        let cuts = cuts.map(|length| (format!("cut to {length}"), bytes[..length].to_vec()));
        let outcomes = try_all(&disk, &path, flips.chain(cuts));
        sum.same += outcomes.same;
        sum.reported += outcomes.reported;
    }
    println!("{sum:?}");
    // Most of it is padding or in segments already; two frames behind the checkpoint are not.
    assert!(sum.reported > 1000 && sum.same > 10_000, "{sum:?}");
}

#[test]
fn a_missing_file_is_reported_by_name() {
    let disk = folder();
    let expected = answer(&disk.fork()).unwrap();
    for path in disk.paths() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let derived = [".index", ".keys", ".keylog"].iter().any(|end| name.ends_with(end)) || name == "lock";
        let damaged = disk.fork();
        damaged.remove(&path).unwrap();
        match answer(&damaged) {
            Ok(found) => assert!(found == expected, "{} is missing, and other records are there", path.display()),
            Err(report) => {
                assert!(!derived, "{} can be made again, but: {report}", path.display());
                assert!(report.contains("/data"), "{report}");
            }
        }
    }
}

#[test]
fn a_damaged_journal_is_read_up_to_the_damage_and_written_no_more() {
    let disk = SimDisk::new(2);
    let (log, mut stepper) = open(&disk).unwrap();
    log.create_topic("a".parse().unwrap(), TopicSettings::new(TopicKind::Events, 2)).unwrap();
    for unit in 0..5 {
        append(&log, &mut stepper, unit);
    }
    drop((log, stepper));
    let path = PathBuf::from("/data/journal/000001.journal");
    let mut bytes = disk.bytes_of(&path).unwrap();
    // Frame 1 opens; frame 4 is the third unit.
    bytes[3 * 4096 + 200] ^= 1;
    disk.overwrite(&path, bytes.clone());
    let (log, _) = open(&disk.fork()).unwrap();
    let damage = log.report().damage.clone().unwrap();
    assert!(damage.contains("000001.journal, bytes 12288 to 16384") && damage.contains("frame 4"), "{damage}");
    assert_eq!(log.head().position, Position::new(4), "two units of two records lie before");
    let refused = log.append(Append::default());
    assert!(matches!(refused, Err(LogError::ReadOnly { .. })));
    drop(log);
    let again = open(&disk).unwrap().0;
    assert_eq!(again.report().damage.as_deref(), Some(damage.as_str()), "nothing was repaired in passing");
    assert_eq!(disk.bytes_of(&path).unwrap(), bytes);
}

#[test]
fn a_read_only_log_reports_what_rots_under_it() {
    let disk = SimDisk::new(2);
    let (log, mut stepper) = open(&disk).unwrap();
    log.create_topic("a".parse().unwrap(), TopicSettings::new(TopicKind::Events, 1)).unwrap();
    append(&log, &mut stepper, 0);
    stepper.tidy().unwrap();
    (1..6).for_each(|unit| append(&log, &mut stepper, unit));
    drop((log, stepper));
    let path = PathBuf::from("/data/journal/000001.journal");
    let flip = |place: usize| {
        let mut bytes = disk.bytes_of(&path).unwrap();
        bytes[place] ^= 1;
        disk.overwrite(&path, bytes);
    };
    flip(5 * 4096 + 200);
    // Nothing stays in memory, so that the second unit, in frame 3, is read from its frame.
    let (log, _) = open_with(&disk, LogConfig { tail_bytes: 0, ..config() }).unwrap();
    assert!(log.report().damage.is_some());
    flip(2 * 4096 + 200);
    for selection in [
        Selection::Partition("a".parse().unwrap(), PartitionId::new(0), Offset::new(2)),
        Selection::Stream("a".parse().unwrap(), "s1".parse().unwrap(), StreamVersion::FIRST),
        Selection::All(Position::new(2)),
    ] {
        let (mut reader, until) = (log.reader(selection.clone()).unwrap(), log.head().position);
        let (told, answer) = std::sync::mpsc::channel();
        std::thread::spawn(move || told.send(reader.read(until, ReadLimits::default())));
        let answer = answer.recv_timeout(Duration::from_secs(10)).unwrap_or_else(|_| panic!("{selection:?} is read for ever"));
        let Err(LogError::Corrupt { file, from, .. }) = answer else { panic!("{selection:?}: {answer:?}") };
        assert_eq!((file.as_path(), from), (path.as_path(), 2 * 4096), "{selection:?}");
    }
}

/// Every file of the folder.
fn bytes_of_all(disk: &SimDisk) -> Vec<(PathBuf, Vec<u8>)> {
    disk.paths().into_iter().map(|path| (path.clone(), disk.bytes_of(&path).unwrap())).collect()
}

#[test]
fn a_start_that_finds_the_journal_damaged_changes_nothing() {
    let disk = folder();
    // The journal's newest frames are damaged, and a start would have had much to do: tails of segments that no checkpoint
    // knows, segments that it does not know, indexes to be made again.
    let (log, mut stepper) = open(&disk).unwrap();
    for unit in 0..6 {
        append(&log, &mut stepper, 100 + unit);
    }
    drop((log, stepper));
    let (journal, bytes) = newest_frame(&disk, 2);
    disk.overwrite(&journal, bytes);
    for path in paths(&disk, ".runs").into_iter().chain(paths(&disk, ".log")).chain(paths(&disk, ".keylog")) {
        let mut bytes = disk.bytes_of(&path).unwrap();
        bytes.extend_from_slice(b"what a killed process copied");
        disk.overwrite(&path, bytes);
    }
    for path in paths(&disk, ".index").into_iter().chain(paths(&disk, ".keys")) {
        disk.overwrite(&path, b"rot".to_vec());
    }
    let stray = paths(&disk, ".log").pop().unwrap().with_file_name("00000000000000009999.log");
    let unfinished = "/data/topics/01234567-89ab-cdef-0123-456789abcdef.new";
    let strays = [stray, unfinished.into(), "/data/000099.window".into()];
    strays.iter().for_each(|stray| drop(Disk::create(&disk, stray).unwrap()));
    let before = bytes_of_all(&disk);
    let changes = disk.changes();
    let (log, mut stepper) = open(&disk).unwrap();
    assert!(log.report().damage.is_some());
    // Nor does what follows.
    let mut reader = log.reader(Selection::Stream("a".parse().unwrap(), "s0".parse().unwrap(), StreamVersion::FIRST)).unwrap();
    let _ = reader.read(log.head().position, ReadLimits::default());
    stepper.tidy().unwrap();
    drop((reader, log, stepper));
    assert!(bytes_of_all(&disk) == before, "a read-only start changed the folder");
    // Making sure that the folder is there is all it does.
    assert_eq!(disk.changes() - changes, 1);
    // With a whole journal the same folder is put in order.
    let (journal, bytes) = newest_frame(&disk, 2);
    disk.overwrite(&journal, bytes);
    assert_eq!(open(&disk).unwrap().0.report().damage, None);
    strays.iter().for_each(|stray| assert!(disk.bytes_of(stray).is_none(), "{}", stray.display()));
}

/// A journal file whose `nth` newest frame, counted from the last of the file, has a flipped byte.
fn newest_frame(disk: &SimDisk, nth: usize) -> (PathBuf, Vec<u8>) {
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes[8..16].try_into().unwrap());
    let mut frames = Vec::new();
    for path in paths(disk, ".journal") {
        let bytes = disk.bytes_of(&path).unwrap();
        for at in (0..bytes.len()).step_by(4096).filter(|at| bytes[*at..].starts_with(b"FLJ\x01")) {
            frames.push((number(&bytes[at..]), path.clone(), at));
        }
    }
    frames.sort();
    let (_, path, at) = frames[frames.len() - 1 - nth].clone();
    let mut bytes = disk.bytes_of(&path).unwrap();
    bytes[at + 100] ^= 1;
    (path, bytes)
}
