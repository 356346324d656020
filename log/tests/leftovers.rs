//! What a pass leaves in a folder when it is cut off is no damage: neither the doctor nor a look at the files says so.
//!
//! Compaction, removal, redaction and a backup are cut off at every call to the disk, by the power or by the end of the process.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use foldlog_log::{
    Append, Compaction, EmbeddedLog, LogBackend, LogConfig, LogError, NewEvent, NewRecord, PartitionId, Stepper, StreamChange,
    StreamVersion, Timestamp, TopicKind, TopicName, TopicSettings, Write,
    clock::ManualClock,
    disk::Disk,
    doctor::{Doctor, Finding, Health},
    testing::{Fault, SimDisk},
};
use futures::FutureExt;

const DATA: &str = "/data";
const BACKUP: &str = "/backup";
const NOW: Timestamp = Timestamp::new(1_700_000_000_000);
/// Longer than anything waits.
const LONG: Duration = Duration::from_secs(8 * 24 * 3600);

fn name(topic: &str) -> TopicName {
    topic.parse().unwrap()
}

fn config() -> LogConfig {
    LogConfig {
        first_journal_file_bytes: 64 << 10,
        journal_file_bytes: 64 << 10,
        tail_bytes: 0,
        segment_bytes: 4096,
        removal_percent: 1,
        ..LogConfig::default()
    }
}

fn open(disk: &SimDisk, clock: &Arc<ManualClock>, start: u128) -> (EmbeddedLog, Stepper) {
    let mut drawn = start << 64;
    let random = move || {
        drawn += 1;
        drawn
    };
    let (log, stepper) = EmbeddedLog::open_stepped(Arc::new(disk.clone()), clock.clone(), Path::new(DATA), config(), random).unwrap();
    assert_eq!((&log.report().damage, &log.report().damaged), (&None, &Vec::new()));
    log.allow_removal();
    (log, stepper)
}

fn write(log: &EmbeddedLog, stepper: &mut Stepper, write: Write) -> Result<(), LogError> {
    let answer = log.append(Append { writes: vec![write], ..Append::default() })?;
    stepper.commit()?;
    answer.now_or_never().unwrap().map(drop)
}

/// A table with keys that were replaced, and streams of which one was truncated.
fn fill(log: &EmbeddedLog, stepper: &mut Stepper) -> Result<(), LogError> {
    log.create_topic(name("t"), TopicSettings { compaction: Compaction::DEFAULT, ..TopicSettings::new(TopicKind::Table, 1) })?;
    log.create_topic(name("e"), TopicSettings::new(TopicKind::Events, 1))?;
    for number in 0..48 {
        let (key, value) = (format!("key{}", number % 7), vec![b'x'; 300]);
        let record = NewRecord { key: Some(key.into()), value: Some(value.clone().into()), ..NewRecord::default() };
        write(log, stepper, Write::Records { topic: name("t"), partition: Some(PartitionId::new(0)), records: vec![record] })?;
        let event = NewEvent { kind: "E".into(), data: value.into(), ..NewEvent::default() };
        write(log, stepper, Write::Stream { topic: name("e"), stream: format!("s{}", number % 2).parse().unwrap(), events: vec![event] })?;
        if number % 8 == 7 {
            stepper.tidy()?;
        }
    }
    Ok(())
}

fn change(log: &EmbeddedLog, stepper: &mut Stepper, stream: &str, change: StreamChange) -> Result<(), LogError> {
    write(log, stepper, Write::Change { topic: name("e"), stream: stream.parse().unwrap(), change, by: "ann".into() })
}

/// Everything that writes segments anew, and a backup.
fn passes(log: &EmbeddedLog, stepper: &mut Stepper, clock: &ManualClock) -> Result<(), LogError> {
    change(log, stepper, "s0", StreamChange::Truncate { before: StreamVersion::new(20) })?;
    stepper.tidy()?;
    clock.advance(LONG);
    stepper.upkeep()?;
    stepper.tidy()?;
    compact(stepper)?;
    stepper.back_up(Path::new(BACKUP))?;
    let versions = [20, 21].map(StreamVersion::new).into();
    let redact = Write::Redact { topic: name("e"), stream: "s1".parse().unwrap(), versions, by: "ann".into(), reason: "asked to".into() };
    write(log, stepper, redact)?;
    while log.redacting(&name("e"), None)?.since.is_some() {
        stepper.compact()?;
        stepper.commit()?;
        stepper.tidy()?;
        stepper.upkeep()?;
    }
    Ok(())
}

fn compact(stepper: &mut Stepper) -> Result<(), LogError> {
    let mut steps = 0;
    while stepper.compact()? {
        stepper.commit()?;
        stepper.tidy()?;
        stepper.upkeep()?;
        steps += 1;
        assert!(steps < 100, "it does not end");
    }
    Ok(())
}

fn findings(disk: &SimDisk) -> Vec<Finding> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let clock = Arc::new(ManualClock::at(Timestamp::new(NOW.get() + 30 * 24 * 3_600_000)));
    let doctor = Doctor { disk: Arc::clone(&disk), reading: disk, clock, config: &config(), connections: 1 };
    let mut found = Vec::new();
    doctor.examine(Path::new(DATA), &mut |finding| found.push(finding)).unwrap();
    found
}

fn files(disk: &SimDisk) -> BTreeSet<PathBuf> {
    disk.paths().into_iter().filter(|path| path.starts_with(DATA) && disk.bytes_of(path).is_some()).collect()
}

#[test]
fn what_a_pass_leaves_that_is_cut_off_is_no_damage() {
    let base = SimDisk::new(5);
    base.create_folder(Path::new(BACKUP)).unwrap();
    base.sync_folder(Path::new("/")).unwrap();
    let clock = Arc::new(ManualClock::at(NOW));
    let (log, mut stepper) = open(&base, &clock, 1);
    fill(&log, &mut stepper).unwrap();
    drop((log, stepper));
    let (mut cuts, mut left) = (0, 0);
    for nth in 0.. {
        let disk = base.kill().fork();
        let clock = Arc::new(ManualClock::at(NOW));
        let (log, mut stepper) = open(&disk, &clock, 2);
        disk.arm(Fault::PowerOff { nth });
        let done = passes(&log, &mut stepper, &clock);
        drop((log, stepper));
        let disk = if nth % 2 == 0 { disk.kill() } else { disk.power_cut() };
        let bad: Vec<_> = findings(&disk).into_iter().filter(|finding| finding.health == Health::Bad).collect();
        assert!(bad.is_empty(), "cut {nth}: {bad:?}");
        let before = files(&disk);
        // The next start removes it.
        drop(open(&disk, &clock, 3));
        left += before.difference(&files(&disk)).count();
        if done.is_ok() {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 100 && left > 50, "{cuts} {left}");
}
