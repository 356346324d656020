//! Rot is found by whoever looks for it, before somebody needs what it hit.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use foldlog_log::{
    Append, EmbeddedLog, LogBackend, LogConfig, LogError, NewEvent, NewRecord, PartitionId, Stepper, Timestamp, TopicKind, TopicSettings,
    Write,
    clock::{ManualClock, SystemClock},
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

fn append(log: &EmbeddedLog, stepper: &mut Stepper, write: Write) -> Result<(), LogError> {
    let answer = log.append(Append { writes: vec![write], ..Append::default() })?;
    stepper.commit()?;
    answer.now_or_never().unwrap().map(|_| ())
}

fn records(partition: u32) -> Write {
    let record = NewRecord { value: Some(vec![b'x'; 250].into()), ..NewRecord::default() };
    Write::Records { topic: "r".parse().unwrap(), partition: Some(PartitionId::new(partition)), records: vec![record; 3] }
}

fn event(stream: &str) -> Write {
    let event = NewEvent { kind: "E".into(), data: vec![b'x'; 900].into(), ..NewEvent::default() };
    Write::Stream { topic: "e".parse().unwrap(), stream: stream.parse().unwrap(), events: vec![event] }
}

/// Two partitions of records and one of events, in several segments each.
fn filled(disk: &SimDisk) -> (EmbeddedLog, Stepper) {
    let (log, mut stepper) = open(disk);
    log.create_topic("r".parse().unwrap(), TopicSettings::new(TopicKind::Records, 2)).unwrap();
    log.create_topic("e".parse().unwrap(), TopicSettings::new(TopicKind::Events, 1)).unwrap();
    for round in 0..12 {
        append(&log, &mut stepper, records(0)).unwrap();
        append(&log, &mut stepper, records(1)).unwrap();
        append(&log, &mut stepper, event(&format!("s{}", round % 2))).unwrap();
        stepper.tidy().unwrap();
    }
    (log, stepper)
}

/// Files of one kind, those of partition 0 of `r` if it has any of them.
fn files(log: &EmbeddedLog, disk: &SimDisk, kind: &str) -> Vec<PathBuf> {
    let of_r = format!("{}/00000/", log.topic(&"r".parse().unwrap()).unwrap().id);
    let of_kind = || disk.paths().into_iter().filter(|path| path.extension().is_some_and(|extension| extension == kind));
    let in_r: Vec<_> = of_kind().filter(|path| path.to_string_lossy().contains(&of_r)).collect();
    if in_r.is_empty() { of_kind().collect() } else { in_r }
}

/// Flips a bit of a file, from its end.
fn rot(disk: &SimDisk, path: &Path, from_end: usize) {
    let mut bytes = disk.bytes_of(path).unwrap();
    let at = bytes.len() - from_end;
    bytes[at] ^= 0x10;
    disk.overwrite(path, bytes);
}

/// Reads everything once.
fn scrub(stepper: &mut Stepper) {
    while stepper.scrub().unwrap().is_some() {}
}

#[test]
fn a_whole_folder_is_read_whole() {
    let disk = SimDisk::new(1);
    let (log, mut stepper) = filled(&disk);
    scrub(&mut stepper);
    let metrics = log.metrics();
    assert_eq!((metrics.scrub_passes, metrics.scrub_damages), (1, 0));
    assert!(metrics.scrubbed_bytes >= metrics.segment_bytes, "{metrics:?}");
    append(&log, &mut stepper, records(0)).unwrap();
}

#[test]
fn rot_in_segments_is_found_before_anybody_reads_it_and_makes_its_partition_read_only() {
    for kind in ["log", "runs"] {
        let disk = SimDisk::new(1);
        let (log, mut stepper) = filled(&disk);
        let sealed = files(&log, &disk, kind);
        // In two segments: the pass goes on behind the first damage.
        for path in &sealed[..2] {
            rot(&disk, path, 100);
        }
        append(&log, &mut stepper, records(0)).unwrap();
        scrub(&mut stepper);
        assert_eq!(log.metrics().scrub_damages, 2, "{kind}");
        let Err(LogError::PartitionReadOnly { reason, .. }) = append(&log, &mut stepper, records(0)) else { panic!("{kind}") };
        assert!(reason.contains(sealed[0].to_str().unwrap()), "{reason}");
        append(&log, &mut stepper, records(1)).unwrap();
    }
}

#[test]
fn what_can_be_made_again_is() {
    for kind in ["keys", "postings"] {
        let disk = SimDisk::new(1);
        let (log, mut stepper) = filled(&disk);
        let path = files(&log, &disk, kind).remove(0);
        rot(&disk, &path, 10);
        let rotten = disk.bytes_of(&path);
        scrub(&mut stepper);
        assert_eq!(log.metrics().scrub_damages, 0, "{kind}");
        assert_ne!(disk.bytes_of(&path), rotten, "{kind}");
        append(&log, &mut stepper, event("s0")).unwrap();
        drop((log, stepper));
        let (log, mut stepper) = open(&disk.power_cut());
        scrub(&mut stepper);
        assert_eq!((&log.report().damaged, log.metrics().scrub_damages), (&vec![], 0));
    }
}

#[test]
fn a_running_log_scrubs_itself_and_stops_at_once() {
    let disk = SimDisk::new(1);
    drop(filled(&disk));
    let config = LogConfig { scrub_bytes_per_second: 1 << 40, ..config() };
    let log = EmbeddedLog::open(Arc::new(disk), Arc::new(SystemClock::new()), Path::new("/data"), config).unwrap();
    while log.metrics().scrub_passes == 0 {
        thread::yield_now();
    }
    assert_eq!(log.metrics().scrub_damages, 0);
    log.stop();
}
