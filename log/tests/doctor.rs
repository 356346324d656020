//! The doctor finds what is wrong with a folder, changes nothing, and minds a server that has it open.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use foldlog_log::{
    Append, EmbeddedLog, LogBackend, LogConfig, LogError, NewEvent, Stepper, Timestamp, TopicKind, TopicSettings, Write,
    clock::ManualClock,
    disk::Disk,
    doctor::{Doctor, Finding, Health},
    testing::SimDisk,
};
use futures::FutureExt;

const DATA: &str = "/data";
const NOON: i64 = 1_700_000_000_000;

fn config() -> LogConfig {
    LogConfig {
        first_journal_file_bytes: 64 << 10,
        journal_file_bytes: 64 << 10,
        segment_bytes: 4096,
        tidy_bytes: 16 << 10,
        ..LogConfig::default()
    }
}

/// A folder with events in several segments and in the journal, and who writes to it.
fn filled() -> (SimDisk, EmbeddedLog, Stepper) {
    let disk = SimDisk::new(1);
    let mut drawn = 0;
    let random = move || {
        drawn += 1;
        drawn
    };
    let clock = Arc::new(ManualClock::at(Timestamp::new(NOON)));
    let (log, mut stepper) = EmbeddedLog::open_stepped(Arc::new(disk.clone()), clock, Path::new(DATA), config(), random).unwrap();
    log.create_topic("a".parse().unwrap(), TopicSettings::new(TopicKind::Events, 2)).unwrap();
    for round in 0..24 {
        let event = NewEvent { kind: "E".into(), data: vec![b'x'; 900].into(), ..NewEvent::default() };
        let write = Write::Stream { topic: "a".parse().unwrap(), stream: format!("s{}", round % 4).parse().unwrap(), events: vec![event] };
        let answer = log.append(Append { writes: vec![write], ..Append::default() }).unwrap();
        stepper.commit().unwrap();
        answer.now_or_never().unwrap().unwrap();
        if round % 5 == 0 {
            stepper.tidy().unwrap();
        }
    }
    (disk, log, stepper)
}

fn examine(disk: &SimDisk, clock: ManualClock, connections: u64) -> Result<Vec<Finding>, LogError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let doctor = Doctor { disk: Arc::clone(&disk), reading: disk, clock: Arc::new(clock), config: &config(), connections };
    let mut found = Vec::new();
    doctor.examine(Path::new(DATA), &mut |finding| found.push(finding))?;
    Ok(found)
}

fn findings(disk: &SimDisk) -> Vec<Finding> {
    examine(disk, ManualClock::at(Timestamp::new(NOON)), 1).unwrap()
}

fn bad(found: &[Finding]) -> Vec<(&str, &str)> {
    found.iter().filter(|finding| finding.health == Health::Bad).map(|finding| (finding.check, finding.what.as_str())).collect()
}

fn content(disk: &SimDisk) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let paths = disk.paths().into_iter().filter(|path| !path.ends_with("lock"));
    paths.map(|path| (path.clone(), disk.bytes_of(&path))).collect()
}

#[test]
fn a_folder_in_good_health_is_good_in_every_respect_and_stays_as_it_is() {
    let (disk, log, stepper) = filled();
    drop((log, stepper));
    let disk = disk.power_cut();
    let before = content(&disk);
    let found = findings(&disk);
    assert_eq!(bad(&found), []);
    let checks: Vec<_> = found.iter().map(|finding| finding.check).collect();
    assert_eq!(checks[..6], ["lock", "space", "sync", "clock", "open files", "start"]);
    assert!(found.iter().all(|finding| finding.health == Health::Good), "{found:?}");
    assert!(found.iter().any(|finding| finding.what.starts_with("topic a: ")), "{found:?}");
    assert!(found[5].what.contains("a start would read"), "{}", found[5].what);
    assert_eq!(content(&disk), before);
}

#[test]
fn beside_a_server_what_would_disturb_it_is_left_out_and_said() {
    let (disk, log, _stepper) = filled();
    let before = content(&disk);
    let found = findings(&disk);
    assert_eq!(bad(&found), []);
    assert_eq!((found[0].check, found[0].health), ("lock", Health::Notice));
    assert!(found[0].what.contains("process ") && found[0].what.contains("syncs are not measured"), "{}", found[0].what);
    assert!(found.iter().all(|finding| finding.check != "sync" && finding.check != "start"));
    assert_eq!(content(&disk), before);
    drop(log);
}

/// Blocks of a journal file in which frames begin, and their numbers.
fn frames(bytes: &[u8]) -> impl Iterator<Item = (usize, u64)> {
    let blocks = bytes.chunks(4096).enumerate().filter(|(_, block)| block.starts_with(b"FLJ\x01"));
    blocks.map(|(place, block)| (place * 4096, u64::from_le_bytes(block[8..16].try_into().unwrap())))
}

/// A byte of the newest frame but one, which the newest proves to have been durable.
fn proved(bytes: &[u8]) -> usize {
    let newest = frames(bytes).map(|(_, number)| number).max().unwrap();
    frames(bytes).find(|(_, number)| *number == newest - 1).unwrap().0 + 200
}

#[test]
fn every_damaged_or_missing_file_is_named() {
    // A slot of the checkpoint may be what a crash has cut short, and there is another one.
    for (kind, health) in ["log", "runs", "index", "keys", "keylog", "journal", "postings", "json"]
        .map(|kind| (kind, Health::Bad))
        .into_iter()
        .chain([("b", Health::Notice)])
    {
        let (disk, log, stepper) = filled();
        drop((log, stepper));
        let disk = disk.kill();
        let mut of_kind: Vec<_> = disk.paths().into_iter().filter(|path| path.extension().is_some_and(|one| one == kind)).collect();
        of_kind.sort_by_key(|path| frames(&disk.bytes_of(path).unwrap()).map(|(_, number)| number).max());
        let path = of_kind.pop().unwrap();
        let mut bytes = disk.bytes_of(&path).unwrap();
        let at = if kind == "journal" { proved(&bytes) } else { bytes.len() / 2 };
        bytes[at] ^= 0x10;
        disk.overwrite(&path, bytes);
        let found = findings(&disk);
        let is_named = |finding: &Finding| finding.health == health && finding.what.contains(path.to_str().unwrap());
        assert!(found.iter().any(is_named), "{kind}: {found:?}");
    }
    // A whole segment, which no other file names.
    let (disk, log, stepper) = filled();
    drop((log, stepper));
    let disk = disk.kill();
    let mut segments = disk.paths().into_iter().filter(|path| path.to_string_lossy().contains("/00000000000000000000."));
    let partition = segments.find(|path| path.extension().is_some_and(|one| one == "log")).unwrap();
    for kind in ["log", "runs", "index", "keys"] {
        disk.remove(&partition.with_extension(kind)).unwrap();
    }
    let found = findings(&disk);
    assert!(bad(&found).iter().any(|(check, what)| *check == "start" && what.contains("the segment is missing")), "{found:?}");
}

fn files_allowed(found: &[Finding]) -> &Finding {
    found.iter().find(|finding| finding.check == "open files").unwrap()
}

#[test]
fn full_disks_wrong_clocks_and_low_limits_are_told() {
    let (disk, log, stepper) = filled();
    drop((log, stepper));
    let disk = disk.power_cut();
    let year_1971 = ManualClock::at(Timestamp::new(31_536_000_000));
    let found = examine(&disk, year_1971, 1).unwrap();
    assert!(bad(&found)[0].0 == "clock" && bad(&found)[0].1.contains("was not set"), "{found:?}");
    let behind = ManualClock::at(Timestamp::new(NOON - 7_200_000));
    let found = examine(&disk, behind, 1).unwrap();
    assert!(bad(&found)[0].1.contains("7200 seconds behind"), "{found:?}");
    assert!(files_allowed(&found).what.contains("does not tell"), "{found:?}");
    disk.create_folder(Path::new("/proc/self")).unwrap();
    let limits = disk.create(Path::new("/proc/self/limits")).unwrap();
    limits.write_at(0, b"Limit          Soft Limit  Hard Limit  Units\nMax open files 1024        524288      files\n").unwrap();
    for (connections, health) in [(448, Health::Good), (449, Health::Notice)] {
        let found = examine(&disk, ManualClock::at(Timestamp::new(NOON)), connections).unwrap();
        assert_eq!(files_allowed(&found).health, health, "{found:?}");
        assert!(files_allowed(&found).what.starts_with("1024 are allowed"), "{found:?}");
    }

    disk.set_capacity(disk.used() + 100);
    let found = findings(&disk);
    let refused: Vec<_> = bad(&found).into_iter().map(|(check, _)| check).collect();
    assert_eq!(refused, ["space", "sync"], "{found:?}");
    assert!(bad(&found)[0].1.contains("appends are refused: ") && bad(&found)[0].1.contains("100 bytes are free"), "{found:?}");
}

#[test]
fn what_is_no_data_folder_is_refused() {
    let disk = SimDisk::new(1);
    disk.create_folder(Path::new(DATA)).unwrap();
    let refused = examine(&disk, ManualClock::at(Timestamp::new(NOON)), 1).unwrap_err();
    assert!(refused.to_string().contains("/data is no data folder"), "{refused}");
    assert_eq!(disk.paths(), Vec::<PathBuf>::new());
}
