//! What a pass leaves in a folder when it is cut off is no damage: neither the doctor nor a look at the files says so.
//!
//! Compaction, removal, redaction and a backup are cut off at every call to the disk, by the power or by the end of the process.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use foldlog_log::{
    Compaction, LogBackend, LogConfig, LogError, NewEvent, StreamChange, StreamVersion, TopicKind, TopicSettings, Write,
    clock::{Clock, ManualClock},
    disk::Disk,
    doctor::{Doctor, Finding, Health},
    testing::Fault,
};

use super::room::{BACKUP, DATA, Folder, Log, change, config, name, record, redact};

/// A table with keys that were replaced, and streams.
fn filled() -> Folder {
    let config =
        LogConfig { first_journal_file_bytes: 64 << 10, journal_file_bytes: 64 << 10, segment_bytes: 4096, removal_percent: 1, ..config() };
    let mut folder = Folder::new(5, config);
    let mut log = folder.open();
    let table = TopicSettings { compaction: Compaction::DEFAULT, ..TopicSettings::new(TopicKind::Table, 1) };
    log.log.create_topic(name("t"), table).unwrap();
    log.log.create_topic(name("e"), TopicSettings::new(TopicKind::Events, 1)).unwrap();
    for number in 0..48 {
        log.write(record("t", &format!("key{}", number % 7), Some("x".repeat(300))));
        let event = NewEvent { kind: "E".into(), data: vec![b'x'; 300].into(), ..NewEvent::default() };
        log.write(Write::Stream { topic: name("e"), stream: format!("s{}", number % 2).parse().unwrap(), events: vec![event] });
        if number % 8 == 7 {
            log.stepper.tidy().unwrap();
        }
    }
    folder
}

/// Everything that writes segments anew, and a backup.
fn passes(log: &mut Log) -> Result<(), LogError> {
    log.try_write(change("e", "s0", StreamChange::Truncate { before: StreamVersion::new(20) }))?;
    log.try_seal()?;
    log.try_compact()?;
    log.stepper.back_up(Path::new(BACKUP))?;
    log.try_write(redact("e", "s1", &[20, 21]))?;
    while log.log.redacting(&name("e"), None)?.since.is_some() {
        log.turn()?;
    }
    Ok(())
}

/// What the doctor says of the folder a month later.
fn findings(folder: &Folder) -> Vec<Finding> {
    let disk: Arc<dyn Disk> = Arc::new(folder.disk.clone());
    let clock = Arc::new(ManualClock::at(folder.clock.now()));
    clock.advance(Duration::from_secs(30 * 24 * 3600));
    let doctor = Doctor { disk: Arc::clone(&disk), reading: disk, clock, config: &folder.config, connections: 1 };
    let mut found = Vec::new();
    doctor.examine(Path::new(DATA), &mut |finding| found.push(finding)).unwrap();
    found
}

#[test]
fn what_a_pass_leaves_that_is_cut_off_is_no_damage() {
    let base = filled();
    let (mut cuts, mut left) = (0, 0);
    for nth in 0.. {
        let mut folder = base.fork();
        let mut log = folder.open();
        folder.disk.arm(Fault::PowerOff { nth });
        let done = passes(&mut log);
        folder.crash(log, nth % 2 > 0);
        let bad: Vec<_> = findings(&folder).into_iter().filter(|finding| finding.health == Health::Bad).map(|bad| bad.what).collect();
        assert!(bad.is_empty(), "cut {nth}: {bad:?}");
        let before: BTreeSet<_> = folder.files_in(DATA).into_iter().collect();
        // The next start removes it.
        drop(folder.open());
        left += before.difference(&folder.files_in(DATA).into_iter().collect()).count();
        if done.is_ok() {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 100 && left > 50, "{cuts} {left}");
}
