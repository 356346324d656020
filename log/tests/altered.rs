//! Topics altered in use: what is on disk is what was or what was asked for, and what was laid down before stays readable.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{path::Path, sync::Arc, time::Duration};

use foldlog_log::{
    Append, Compression, Durability, EmbeddedLog, LogBackend, LogConfig, LogError, NewRecord, Offset, PartitionId, Position, ReadLimits,
    Retention, Selection, Stepper, Timestamp, Topic, TopicChanges, TopicKind, TopicName, TopicSettings, Write,
    clock::ManualClock,
    testing::{CallKind, Fault, SimDisk},
};
use futures::FutureExt;

const DATA: &str = "/data";

fn open(disk: &SimDisk) -> (EmbeddedLog, Stepper, Arc<ManualClock>) {
    let config = LogConfig {
        first_journal_file_bytes: 32 << 10,
        journal_file_bytes: 128 << 10,
        tail_bytes: 0,
        segment_bytes: 64 << 10,
        ..LogConfig::default()
    };
    let mut drawn = disk.paths().len() as u128 + 1;
    let random = move || {
        drawn += 1;
        drawn << 32
    };
    let clock = Arc::new(ManualClock::at(Timestamp::new(1_700_000_000_000)));
    let (log, stepper) = EmbeddedLog::open_stepped(Arc::new(disk.clone()), clock.clone(), Path::new(DATA), config, random).unwrap();
    assert_eq!((&log.report().damage, log.report().damaged.len()), (&None, 0));
    log.allow_removal();
    (log, stepper, clock)
}

fn name() -> TopicName {
    "r".parse().unwrap()
}

fn fill(log: &EmbeddedLog, stepper: &mut Stepper, count: u64) {
    for number in 0..count {
        let record = NewRecord { value: Some(format!("{number}: {}", "x".repeat(500)).into()), ..NewRecord::default() };
        let partition = Some(PartitionId::new((number % u64::from(log.topic(&name()).unwrap().settings.partitions)) as u32));
        let write = Write::Records { topic: name(), partition, records: vec![record] };
        let answer = log.append(Append { writes: vec![write], ..Append::default() }).unwrap();
        stepper.commit().unwrap();
        answer.now_or_never().unwrap().unwrap();
    }
    stepper.tidy().unwrap();
}

/// Removes what may go, down to the files.
fn remove(stepper: &mut Stepper) {
    for _ in 0..2 {
        stepper.upkeep().unwrap();
        stepper.commit().unwrap();
        stepper.tidy().unwrap();
    }
    stepper.upkeep().unwrap();
}

/// Records of the topic as they are read.
fn count(log: &EmbeddedLog) -> u64 {
    let mut reader = log.reader(Selection::Topics(vec![name()], Position::new(0))).unwrap();
    let mut count = 0;
    loop {
        let chunk = reader.read(log.head().position, ReadLimits::default()).unwrap();
        if chunk.runs.is_empty() {
            return count;
        }
        for record in chunk.runs.iter().flat_map(|run| run.records()) {
            assert!(record.unwrap().value.is_some());
            count += 1;
        }
    }
}

fn changes() -> TopicChanges {
    TopicChanges {
        partitions: Some(3),
        durability: Some(Durability::Written),
        compression: Some(Compression::Lz4),
        retention_time: Some(Duration::from_secs(60)),
        retention_bytes: Some(1 << 20),
        ..TopicChanges::default()
    }
}

fn manifest(disk: &SimDisk) -> String {
    let of_topic = |path: &std::path::PathBuf| path.parent().is_some_and(|parent| parent.ends_with("topics"));
    let path = disk.paths().into_iter().find(of_topic).unwrap();
    String::from_utf8(disk.bytes_of(&path).unwrap()).unwrap()
}

#[test]
fn an_alteration_that_is_cut_off_is_done_or_not_begun() {
    let (mut done, mut not_begun) = (0, 0);
    for nth in 0..8 {
        for seed in 0..6 {
            let disk = SimDisk::new(seed);
            let (log, mut stepper, _) = open(&disk);
            let before = TopicSettings::new(TopicKind::Records, 1);
            let topic = log.create_topic(name(), before).unwrap();
            fill(&log, &mut stepper, 5);
            disk.arm(Fault::PowerOff { nth });
            let altered = log.alter_topic(&name(), changes()).is_ok();
            drop((log, stepper));
            let disk = if seed == 0 { disk.kill() } else { disk.power_cut() };
            let (log, mut stepper, _) = open(&disk);
            let now = log.topic(&name()).unwrap();
            assert_eq!((&now.name, now.id), (&topic.name, topic.id));
            let is_done = now.settings != before;
            assert!(is_done || !altered, "what was answered is gone");
            assert!(!is_done || now.settings.partitions == 3 && now.settings.retention.bytes == Some(1 << 20), "{now:?}");
            assert!(disk.paths().iter().all(|path| path.extension().is_none_or(|extension| extension != "new")), "it is tidied up");
            (done, not_begun) = (done + u32::from(is_done), not_begun + u32::from(!is_done));
            fill(&log, &mut stepper, 6);
            assert_eq!(count(&log), 11);
            assert_eq!(log.alter_topic(&name(), changes()).unwrap().settings.durability, Durability::Written);
        }
    }
    assert!(done > 15 && not_begun > 10, "{done} {not_begun}");
}

#[test]
fn an_alteration_that_cannot_be_written_ends_the_log_or_changes_nothing() {
    for (kind, errno) in [(CallKind::Write, 28), (CallKind::Write, 5), (CallKind::Sync, 5), (CallKind::Rename, 5)] {
        let disk = SimDisk::new(1);
        let (log, _stepper, _) = open(&disk);
        let before = log.create_topic(name(), TopicSettings::new(TopicKind::Records, 1)).unwrap();
        disk.arm(Fault::Fail { kind: Some(kind), nth: 0, errno });
        let refused = log.alter_topic(&name(), changes()).unwrap_err();
        assert_eq!(matches!(refused, LogError::DiskFull { .. }), errno == 28, "{refused:?}");
        assert_eq!(log.topic(&name()).unwrap(), before);
        // Nobody knows what reached the disk.
        assert_eq!(log.failure().borrow().is_some(), errno == 5);
        if errno == 28 {
            assert_eq!(log.alter_topic(&name(), changes()).unwrap().settings.partitions, 3, "there is room again");
        }
    }
}

#[test]
fn a_manifest_keeps_the_format_that_what_was_written_needs() {
    let disk = SimDisk::new(1);
    let (log, mut stepper, _) = open(&disk);
    log.create_topic(name(), TopicSettings::new(TopicKind::Records, 1)).unwrap();
    assert!(manifest(&disk).contains("\"format\":1,"));
    let alter = |changes| log.alter_topic(&name(), changes).unwrap();
    let compression = |compression| TopicChanges { compression: Some(compression), ..TopicChanges::default() };
    alter(compression(Compression::Zstd));
    assert!(manifest(&disk).contains("\"format\":2,"));
    fill(&log, &mut stepper, 20);
    alter(compression(Compression::None));
    // Its segments still hold batches that older programs would take for damage.
    assert!(manifest(&disk).contains("\"format\":2,") && !manifest(&disk).contains("zstd"));
    alter(TopicChanges { retention_time: Some(Duration::from_secs(60)), ..TopicChanges::default() });
    alter(TopicChanges { retention_time: Some(Duration::ZERO), ..TopicChanges::default() });
    assert!(manifest(&disk).contains("\"format\":3,") && !manifest(&disk).contains("retention"));
    fill(&log, &mut stepper, 20);
    drop((log, stepper));
    let (log, ..) = open(&disk.kill());
    assert_eq!(count(&log), 40);
    assert_eq!(log.topic(&name()).unwrap().settings, TopicSettings::new(TopicKind::Records, 1));
    log.alter_topic(&name(), TopicChanges { durability: Some(Durability::Written), ..TopicChanges::default() }).unwrap();
    assert!(manifest(&disk).contains("\"format\":3,"), "also after a restart");
}

#[test]
fn batches_are_compressed_as_the_topic_is_when_they_are_laid_down() {
    let disk = SimDisk::new(1);
    let (log, mut stepper, _) = open(&disk);
    log.create_topic(name(), TopicSettings::new(TopicKind::Records, 1)).unwrap();
    let mut lengths = vec![0];
    for compression in [Compression::None, Compression::Zstd, Compression::Lz4, Compression::None] {
        log.alter_topic(&name(), TopicChanges { compression: Some(compression), ..TopicChanges::default() }).unwrap();
        fill(&log, &mut stepper, 20);
        let logs = disk.paths().into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "log"));
        lengths.push(logs.map(|path| disk.bytes_of(&path).unwrap().len()).sum());
    }
    let grown: Vec<usize> = lengths.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(grown[0] > 10_000 && grown[1] < 4_000 && grown[2] < 4_000 && grown[3] > 10_000, "{grown:?}");
    drop((log, stepper));
    assert_eq!(count(&open(&disk.kill()).0), 80);
}

#[test]
fn retention_can_be_set_and_lifted_while_the_topic_is_in_use() {
    let disk = SimDisk::new(1);
    let (log, mut stepper, clock) = open(&disk);
    log.create_topic(name(), TopicSettings::new(TopicKind::Records, 1)).unwrap();
    let first = || log.firsts(&name()).unwrap()[0];
    // One segment holds it all.
    fill(&log, &mut stepper, 100);
    let bytes = |bytes| TopicChanges { retention_bytes: Some(bytes), ..TopicChanges::default() };
    log.alter_topic(&name(), bytes(16 << 10)).unwrap();
    for _ in 0..10 {
        fill(&log, &mut stepper, 10);
    }
    remove(&mut stepper);
    let gone = first();
    assert!(gone > Offset::new(150) && gone < Offset::new(180), "segments are smaller now: {gone}");
    let hour = TopicChanges { retention_bytes: Some(0), retention_time: Some(Duration::from_secs(3600)), ..TopicChanges::default() };
    let altered: Arc<Topic> = log.alter_topic(&name(), hour).unwrap();
    assert_eq!(altered.settings.retention, Retention { time: Some(Duration::from_secs(3600)), bytes: None });
    fill(&log, &mut stepper, 60);
    remove(&mut stepper);
    assert_eq!(first(), gone, "bytes are no reason any more");
    log.alter_topic(&name(), TopicChanges { retention_time: Some(Duration::ZERO), ..TopicChanges::default() }).unwrap();
    clock.advance(Duration::from_secs(7200));
    remove(&mut stepper);
    assert_eq!(first(), gone, "nor is age");
    log.alter_topic(&name(), hour).unwrap();
    remove(&mut stepper);
    assert!(first() > gone);
    assert_eq!(count(&log), 260 - first().get());
    let slip = TopicChanges { retention_time: Some(Duration::from_millis(1)), ..TopicChanges::default() };
    assert!(log.alter_topic(&name(), slip).unwrap_err().to_string().contains("one second"));
}

#[test]
fn every_kind_is_given_a_retention_and_tables_alone_are_compacted_by_key() {
    let (log, ..) = open(&SimDisk::new(1));
    let of_kind = |kind: TopicKind| -> TopicName { kind.as_str().parse().unwrap() };
    let day = Some(Duration::from_secs(86_400));
    let retention = TopicChanges { retention_time: day, ..TopicChanges::default() };
    let compaction = TopicChanges { max_lag: day, ..TopicChanges::default() };
    for kind in [TopicKind::Events, TopicKind::Records, TopicKind::Table] {
        log.create_topic(of_kind(kind), TopicSettings::new(kind, 1)).unwrap();
    }
    for (kind, changes, words) in
        [(TopicKind::Events, compaction, "not compacted by key"), (TopicKind::Records, compaction, "not compacted by key")]
    {
        let error = log.alter_topic(&of_kind(kind), changes).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert_eq!(log.topic(&of_kind(kind)).unwrap().settings, TopicSettings::new(kind, 1));
    }
    for kind in [TopicKind::Events, TopicKind::Records, TopicKind::Table] {
        let altered = log.alter_topic(&of_kind(kind), retention).unwrap().settings;
        assert_eq!(altered, TopicSettings { retention: altered.retention, ..TopicSettings::new(kind, 1) });
        assert_eq!(altered.retention.time, day);
    }
    let altered = log.alter_topic(&of_kind(TopicKind::Table), compaction).unwrap().settings;
    assert_eq!((altered.retention.time, Some(altered.compaction.max_lag)), (day, day));
}

/// A stream is changed for the first time, and its topic altered, by two threads at once: the manifest says both.
#[test]
fn an_alteration_and_a_first_change_of_a_stream_do_not_undo_each_other() {
    let disk = SimDisk::new(1);
    let (log, _stepper, _) = open(&disk);
    log.create_topic(name(), TopicSettings::new(TopicKind::Events, 1)).unwrap();
    let delete =
        Write::Change { topic: name(), stream: "s".parse().unwrap(), change: foldlog_log::StreamChange::Delete, by: "somebody".into() };
    let deleted = Append { writes: vec![delete], ..Append::default() };
    std::thread::scope(|scope| {
        scope.spawn(|| drop(log.append(deleted)));
        let zstd = TopicChanges { compression: Some(Compression::Zstd), ..TopicChanges::default() };
        log.alter_topic(&name(), zstd).unwrap();
    });
    let manifest = manifest(&disk);
    assert!(manifest.contains("\"changes\":true") && manifest.contains("\"zstd\""), "{manifest}");
}
