//! Data folders committed beside this file, of format version 1 and with what came later: today's log writes the same bytes, and
//! opens what was written.
//!
//! `v1` is format version 1; the topics of the others have manifests of format 2: in `manifest-v2` for their durability, in `v2-lz4`
//! and `v2-zstd` because they are compressed. `restored` says so in its identity, which has format 2.
//!
//! When the first test fails the format has changed: raise its version and keep the old folder. `FOLDLOG_WRITE_GOLDEN=1` writes
//! the folders anew.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use foldlog_log::{
    Append, Compaction, Compression, Durability, EmbeddedLog, EventId, EventQuery, Expected, Identity, LogBackend, LogConfig, LogError,
    NewEvent, NewRecord, Offset, Position, Precondition, ProducerEpoch, ProducerId, ProducerKey, QueryAbsent, QueryItem, ReadLimits,
    RequestId, RequestKey, Retention, Scope, Selection, Sequence, Sequenced, Snapshot, Stepper, StreamChange, StreamHead, StreamId,
    StreamVersion, Timestamp, TopicKind, TopicName, TopicSettings, Write,
    clock::{Clock, ManualClock, SystemClock},
    disk::{Disk, RealDisk},
    restore::{GAP, restore},
    testing::{SimDisk, conformance::block_on},
};

const DATA: &str = "/data";

fn golden(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(version)
}

fn config() -> LogConfig {
    LogConfig { journal_file_bytes: 64 << 10, first_journal_file_bytes: 32 << 10, segment_bytes: 4 << 10, ..LogConfig::default() }
        .without_reserve()
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(Timestamp::new(1_357_000_000_000)))
}

fn event(number: u64) -> Append {
    let event = NewEvent {
        kind: "Deposited".into(),
        data: Bytes::from(format!("{{\"amount\":{number}}}")),
        content_type: number.is_multiple_of(5).then(|| "application/vnd.bank+json".into()),
        event_id: number.is_multiple_of(2).then(|| EventId::new([7; 16])),
        correlation_id: number.is_multiple_of(3).then(|| Bytes::from_static(b"order-1")),
        causation_id: number.is_multiple_of(7).then(|| Bytes::from_static(b"request-1")),
        schema: number.is_multiple_of(4).then(|| "deposit".into()),
        tags: Vec::new(),
        attributes: if number.is_multiple_of(6) { vec![("region".into(), "north".into())] } else { Vec::new() },
        time: (number % 2 == 1).then(|| Timestamp::new(1_356_999_000_000 + i64::try_from(number).expect("small"))),
    };
    let stream = format!("account-{}", number % 3).parse().expect("a valid id");
    let write = Write::Stream { topic: "accounts".parse().expect("a valid name"), stream, events: vec![event.clone(), event] };
    let record = NewRecord {
        key: Some(Bytes::from(format!("k{number}"))),
        value: (!number.is_multiple_of(3)).then(|| Bytes::from_static(b"v")),
        headers: vec![("h".into(), None)],
        time: None,
    };
    let plain = Write::Records { topic: "plain".parse().expect("a valid name"), partition: None, records: vec![record] };
    let key = RequestKey { principal: "ann".into(), id: RequestId::new([u8::try_from(number).expect("small"); 16]) };
    Append { writes: vec![write, plain], identity: Some(Identity { key, digest: number.into(), first_attempt: None }), ..Append::default() }
}

/// A new folder, stepped by hand, whose ids and salts are the same each time.
fn open_new() -> (SimDisk, EmbeddedLog, Stepper) {
    let disk = SimDisk::new(1);
    let mut drawn = 0;
    let random = move || {
        drawn += 1;
        drawn
    };
    let (log, stepper) = EmbeddedLog::open_stepped(Arc::new(disk.clone()), clock(), Path::new(DATA), config(), random).expect("it opens");
    (disk, log, stepper)
}

/// Writes a folder whose topics are compressed: forty units, so many in a group, most of them in segments, some in the
/// journal alone.
fn write(compression: Compression, group: u64) -> SimDisk {
    let (disk, log, mut stepper) = open_new();
    let topics = [("accounts", TopicKind::Events, 2), ("plain", TopicKind::Records, 1)];
    for (topic, kind, partitions) in topics {
        let settings = TopicSettings { compression, ..TopicSettings::new(kind, partitions) };
        log.create_topic(topic.parse().expect("a valid name"), settings).expect("it is new");
    }
    for first in (0..40).step_by(usize::try_from(group).expect("small")) {
        let units = first..(first + group).min(40);
        let answers: Vec<_> = units.clone().map(|number| log.append(event(number)).expect("there is room")).collect();
        stepper.commit().expect("no fault");
        answers.into_iter().for_each(|answer| drop(block_on(answer).expect("nothing speaks against it")));
        if units.end % 6 == 0 {
            stepper.tidy().expect("no fault");
        }
    }
    stepper.seal().expect("no fault");
    disk
}

/// Every file below a folder, relative to it.
fn files(disk: &dyn Disk, folder: &Path, below: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in disk.list(&folder.join(below))? {
        let path = below.join(&entry.name);
        if entry.is_folder { files(disk, folder, &path, found)? } else { found.push(path) }
    }
    Ok(())
}

fn read_file(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path)?;
    let mut bytes = vec![0; usize::try_from(file.len()?).expect("small")];
    file.read_at(0, &mut bytes)?;
    Ok(bytes)
}

fn listed(disk: &dyn Disk, folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    files(disk, folder, Path::new(""), &mut found).expect("it can be listed");
    found
}

/// Holds every file of a folder that is written now against the golden one.
fn compare(disk: &SimDisk, golden: &Path) {
    keep(disk, golden);
    assert_eq!(listed(disk, Path::new(DATA)), listed(&RealDisk, golden));
    for path in listed(disk, Path::new(DATA)) {
        let (today, then) = (disk.bytes_of(&Path::new(DATA).join(&path)), read_file(&RealDisk, &golden.join(&path)).expect("it is listed"));
        let today = today.expect("it is listed");
        let same = today.iter().zip(&then).take_while(|(one, other)| one == other).count();
        assert!(today == then, "{} differs from byte {same} on", path.display());
    }
}

/// Writes a golden folder anew, if that was asked for.
fn keep(disk: &SimDisk, golden: &Path) {
    if std::env::var_os("FOLDLOG_WRITE_GOLDEN").is_none() {
        return;
    }
    for path in listed(disk, Path::new(DATA)) {
        let to = golden.join(&path);
        RealDisk.create_folder(to.parent().expect("it lies in the folder")).expect("it can be made");
        let file = RealDisk.create(&to).expect("remove the old folder first");
        file.write_at(0, &disk.bytes_of(&Path::new(DATA).join(&path)).expect("it is listed")).expect("there is room");
    }
}

/// Copies a golden folder to where it may be written to.
fn copy(golden: &Path, data: &Path) {
    for path in listed(&RealDisk, golden) {
        let to = data.join(&path);
        RealDisk.create_folder(to.parent().expect("it lies in the folder")).expect("it can be made");
        let bytes = read_file(&RealDisk, &golden.join(&path)).expect("it is listed");
        RealDisk.create(&to).expect("it is new").write_at(0, &bytes).expect("there is room");
    }
}

#[test]
fn what_is_written_today_is_format_version_1() {
    let golden = golden("v1");
    compare(&write(Compression::None, 1), &golden);
    for kind in ["log", "runs", "index", "keys", "keylog", "journal"] {
        let is_there = |path: &PathBuf| path.extension().is_some_and(|extension| extension == kind);
        assert!(listed(&RealDisk, &golden).iter().any(is_there), "the folder has a .{kind}");
    }
}

/// A topic whose manifest needs version 2, and one unit.
fn write_manifest_2() -> SimDisk {
    let (disk, log, mut stepper) = open_new();
    log.create_topic("written".parse().expect("a valid name"), manifest_2_settings()).expect("it is new");
    let answer = log.append(to_manifest_2()).expect("there is room");
    stepper.commit().expect("no fault");
    assert_eq!(block_on(answer).expect("nothing speaks against it").durability, Durability::Written);
    stepper.seal().expect("no fault");
    disk
}

fn manifest_2_settings() -> TopicSettings {
    TopicSettings { durability: Durability::Written, ..TopicSettings::new(TopicKind::Records, 1) }
}

fn to_manifest_2() -> Append {
    let record = NewRecord { value: Some(Bytes::from_static(b"v")), ..NewRecord::default() };
    let write = Write::Records { topic: "written".parse().expect("a valid name"), partition: None, records: vec![record] };
    Append { writes: vec![write], ..Append::default() }
}

#[test]
fn a_topic_with_a_durability_of_its_own_has_a_manifest_of_version_2() {
    let golden = golden("manifest-v2");
    compare(&write_manifest_2(), &golden);
    let folder = tempfile::tempdir().expect("a folder for the test");
    let data = folder.path().join("data");
    copy(&golden, &data);
    let log = EmbeddedLog::open(Arc::new(RealDisk), clock(), &data, config()).expect("it opens");
    assert_eq!(log.topic(&"written".parse().expect("a valid name")).expect("it is there").settings, manifest_2_settings());
    let answer = block_on(log.append(to_manifest_2()).expect("there is room")).expect("nothing speaks against it");
    assert_eq!((answer.durability, answer.first), (Durability::Written, Position::new(1)));
    log.stop();
}

/// Streams that were truncated, deleted and tombstoned, and snapshots, half of them in segments.
fn write_marks() -> SimDisk {
    let (disk, log, mut stepper) = open_new();
    log.create_topic("accounts".parse().expect("a valid name"), TopicSettings::new(TopicKind::Events, 2)).expect("it is new");
    let topic = || "accounts".parse().expect("a valid name");
    let stream = |number: u64| format!("account-{number}").parse().expect("a valid id");
    let event = NewEvent { kind: "Deposited".into(), data: Bytes::from_static(b"{}"), ..NewEvent::default() };
    let change = |number, change| Write::Change { topic: topic(), stream: stream(number), change, by: "ann".into() };
    let snapshot = |number, version| {
        let (schema, content_type) = (Some("account.v1".into()), (version == 1).then(|| "text/plain".into()));
        let snapshot =
            Snapshot { version: StreamVersion::new(version), schema, content_type, data: Bytes::from(format!("as of {version}")) };
        Write::Snapshot { topic: topic(), stream: stream(number), snapshot, by: String::new().into() }
    };
    for half in 0..2_u64 {
        let events = |number| Write::Stream { topic: topic(), stream: stream(number), events: vec![event.clone(); 3] };
        let of_half = |number: u64| half * 5 + number;
        let units = [
            (0..5).map(|number| events(of_half(number))).collect(),
            vec![snapshot(of_half(0), 3), snapshot(of_half(3), 2)],
            vec![snapshot(of_half(0), 1), change(of_half(3), StreamChange::DropSnapshots)],
            vec![change(of_half(0), StreamChange::Truncate { before: StreamVersion::new(3) }), change(of_half(1), StreamChange::Delete)],
            vec![events(of_half(1)), change(of_half(2), StreamChange::Tombstone), change(of_half(4), StreamChange::Delete)],
        ];
        for writes in units {
            let answer = log.append(Append { writes, ..Append::default() }).expect("there is room");
            stepper.commit().expect("no fault");
            block_on(answer).expect("nothing speaks against it");
        }
        if half == 0 {
            stepper.tidy().expect("no fault");
        }
    }
    stepper.seal().expect("no fault");
    disk
}

#[test]
fn a_folder_with_marks_says_what_became_of_its_streams() {
    let golden = golden("v2-marks");
    compare(&write_marks(), &golden);
    let folder = tempfile::tempdir().expect("a folder for the test");
    let data = folder.path().join("data");
    copy(&golden, &data);
    let log = EmbeddedLog::open(Arc::new(RealDisk), clock(), &data, config()).expect("it opens");
    let topic = "accounts".parse().expect("a valid name");
    for number in 0..10_u64 {
        let stream = format!("account-{number}").parse().expect("a valid id");
        let state = log.stream_state(&topic, &stream).expect("it has streams");
        let version = StreamVersion::new;
        let (head, first, anew) = match number % 5 {
            0 => (StreamHead::At(version(3)), 3, 1),
            1 => (StreamHead::At(version(6)), 4, 4),
            2 => (StreamHead::Tombstoned, 4, 4),
            3 => (StreamHead::At(version(3)), 1, 1),
            _ => (StreamHead::Deleted(version(3)), 4, 4),
        };
        assert_eq!((state.head, state.beginning.first.get(), state.beginning.anew.get()), (head, first, anew), "{stream}");
        let found =
            |at_most| log.snapshot(&topic, &stream, version(at_most)).expect("it is whole").map(|found| found.snapshot.version.get());
        assert_eq!((found(2), found(9)), if number % 5 == 0 { (Some(1), Some(3)) } else { (None, None) }, "{stream}");
    }
    log.stop();
}

#[test]
fn compressed_topics_have_manifests_of_format_2() {
    for (compression, version, codec) in [(Compression::Lz4, "v2-lz4", 3), (Compression::Zstd, "v2-zstd", 4)] {
        let disk = write(compression, 6);
        keep(&disk, &golden(version));
        compare_compressed(&disk, version, codec);
    }
}

fn compare_compressed(disk: &SimDisk, version: &str, codec: u8) {
    // How well the libraries compress may change; what says that they did, and the journal, may not.
    let mut codecs = BTreeSet::new();
    for path in listed(&RealDisk, &golden(version)) {
        let is_manifest = path.starts_with("topics") && path.extension().is_some_and(|extension| extension == "json");
        let (today, then) = (disk.bytes_of(&Path::new(DATA).join(&path)), read_file(&RealDisk, &golden(version).join(&path)));
        let (today, then) = (today.expect("it is written"), then.expect("it is listed"));
        if is_manifest || path.starts_with("journal") {
            assert!(today == then, "{} differs", path.display());
        }
        assert!(!is_manifest || today.starts_with(b"{\"format\":2,"));
        if path.extension().is_some_and(|extension| extension == "log") {
            codecs.extend([today[22], then[22]]);
        }
    }
    assert_eq!(codecs, BTreeSet::from([0, codec]), "batches that begin its segments are compressed, and small ones are not");
}

#[test]
fn a_folder_of_version_1_is_read_and_goes_on() {
    is_read_and_goes_on("v1");
}

#[test]
fn a_folder_of_version_2_is_read_and_goes_on() {
    ["v2-lz4", "v2-zstd"].into_iter().for_each(is_read_and_goes_on);
}

fn is_read_and_goes_on(version: &str) {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let data = folder.path().join("data");
    copy(&golden(version), &data);
    for round in 0..3 {
        let log = EmbeddedLog::open(Arc::new(RealDisk), clock(), &data, config()).expect("it opens");
        assert_eq!(log.report().damage, None);
        for number in 0..40 + round {
            let answer = block_on(log.append(event(number)).expect("there is room")).expect("nothing speaks against it");
            assert!(answer.deduplicated, "request {number} is remembered");
        }
        let one = block_on(log.append(event(40 + round)).expect("there is room")).expect("nothing speaks against it");
        assert_eq!(one.first.get(), 3 * (40 + round));
        let mut reader = log.reader(Selection::All(Position::new(0))).expect("in range");
        let mut values = Vec::new();
        loop {
            let chunk = reader.read(log.head().position, ReadLimits::default()).expect("the log is whole");
            for record in chunk.runs.iter().flat_map(|run| run.records()) {
                let record = record.expect("whole records");
                values.push((record.value.map(<[u8]>::to_vec), record.event().map(|event| event.kind.to_owned())));
            }
            if chunk.runs.is_empty() {
                break;
            }
        }
        let unit = |number: u64| {
            let event = (Some(format!("{{\"amount\":{number}}}").into_bytes()), Some("Deposited".to_owned()));
            [event.clone(), event, ((!number.is_multiple_of(3)).then(|| b"v".to_vec()), None)]
        };
        assert_eq!(values, (0..=40 + round).flat_map(unit).collect::<Vec<_>>());
        log.stop();
    }
}

/// A topic with a retention: what was removed once is in the checkpoint, what was removed again only in the journal.
fn write_retention() -> SimDisk {
    let (disk, log, mut stepper) = open_new();
    log.create_topic(kept(), retention_settings()).expect("it is new");
    log.allow_removal();
    for round in 0..2 {
        for number in 0..60 {
            let answer = log.append(to_kept()).expect("there is room");
            stepper.commit().expect("no fault");
            block_on(answer).expect("nothing speaks against it");
            if number % 6 == 5 {
                stepper.tidy().expect("no fault");
            }
        }
        stepper.upkeep().expect("no fault");
        stepper.commit().expect("no fault");
        if round == 0 {
            stepper.tidy().expect("no fault");
        }
    }
    assert_eq!(log.firsts(&kept()).expect("it is there"), KEPT_FROM);
    stepper.seal().expect("no fault");
    disk
}

const KEPT_FROM: [Offset; 1] = [Offset::new(80)];

fn kept() -> TopicName {
    "kept".parse().expect("a valid name")
}

fn retention_settings() -> TopicSettings {
    let retention = Retention { bytes: Some(16 << 10), ..Retention::FOR_EVER };
    TopicSettings { retention, ..TopicSettings::new(TopicKind::Records, 1) }
}

fn to_kept() -> Append {
    let record = NewRecord { value: Some(vec![b'v'; 400].into()), ..NewRecord::default() };
    Append { writes: vec![Write::Records { topic: kept(), partition: None, records: vec![record] }], ..Append::default() }
}

#[test]
fn a_topic_with_a_retention_has_a_manifest_of_version_3_and_frames_and_checkpoints_of_version_2() {
    let golden = golden("manifest-v3");
    compare(&write_retention(), &golden);
    let folder = tempfile::tempdir().expect("a folder for the test");
    let data = folder.path().join("data");
    copy(&golden, &data);
    let formats = ["checkpoint.a", "checkpoint.b"].map(|slot| read_file(&RealDisk, &data.join(slot)).expect("it is there")[4]);
    assert!(formats.contains(&2), "{formats:?}");
    for _ in 0..2 {
        let log = EmbeddedLog::open(Arc::new(RealDisk), clock(), &data, config()).expect("it opens");
        assert_eq!(log.topic(&kept()).expect("it is there").settings, retention_settings());
        assert_eq!(log.firsts(&kept()).expect("it is there"), KEPT_FROM);
        let answer = block_on(log.append(to_kept()).expect("there is room")).expect("nothing speaks against it");
        let mut reader = log.reader(Selection::Topics(vec![kept()], Position::new(0))).expect("in range");
        let mut next = KEPT_FROM[0];
        while next <= answer.ranges[0].last {
            let chunk = reader.read(log.head().position, ReadLimits::default()).expect("the log is whole");
            for run in chunk.runs {
                assert_eq!(run.first_offset, next);
                next = next.plus(run.count.into());
            }
        }
        log.stop();
    }
}

/// A table that was compacted: what was switched in once is in the checkpoint, what was again only in the journal.
fn write_compaction() -> SimDisk {
    let disk = SimDisk::new(1);
    let clock = Arc::new(ManualClock::at(Timestamp::new(1_700_000_000_000)));
    let mut drawn = 0;
    let random = move || {
        drawn += 1;
        drawn
    };
    let opened = EmbeddedLog::open_stepped(Arc::new(disk.clone()), clock.clone(), Path::new(DATA), config(), random);
    let (log, mut stepper) = opened.expect("it opens");
    log.create_topic(kept(), compaction_settings()).expect("it is new");
    log.allow_removal();
    for round in 0..2 {
        for number in 0..60 {
            let answer = log.append(to_table(round * 60 + number)).expect("there is room");
            stepper.commit().expect("no fault");
            block_on(answer).expect("nothing speaks against it");
            if number % 6 == 5 {
                stepper.tidy().expect("no fault");
            }
        }
        clock.advance(Duration::from_secs(60));
        while stepper.compact().expect("no fault") {
            stepper.commit().expect("no fault");
        }
        if round == 0 {
            stepper.tidy().expect("no fault");
        }
    }
    stepper.seal().expect("no fault");
    disk
}

fn compaction_settings() -> TopicSettings {
    let compaction = Compaction { max_lag: Duration::from_secs(30), ..Compaction::DEFAULT };
    TopicSettings { compaction, ..TopicSettings::new(TopicKind::Table, 1) }
}

/// A record of one of ten keys, of which one is deleted each time.
fn to_table(number: u64) -> Append {
    let value = (!number.is_multiple_of(10)).then(|| Bytes::from(format!("{number}:{}", "v".repeat(400))));
    let record = NewRecord { key: Some(format!("k{}", number % 10).into()), value, ..NewRecord::default() };
    Append { writes: vec![Write::Records { topic: kept(), partition: None, records: vec![record] }], ..Append::default() }
}

#[test]
fn a_compacted_table_has_a_manifest_and_frames_of_version_4_and_checkpoints_of_version_3() {
    let golden = golden("compaction");
    compare(&write_compaction(), &golden);
    let folder = tempfile::tempdir().expect("a folder for the test");
    let data = folder.path().join("data");
    copy(&golden, &data);
    let formats = ["checkpoint.a", "checkpoint.b"].map(|slot| read_file(&RealDisk, &data.join(slot)).expect("it is there")[4]);
    assert!(formats.contains(&3), "{formats:?}");
    for round in 0..2 {
        let log = EmbeddedLog::open(Arc::new(RealDisk), clock(), &data, config()).expect("it opens");
        assert_eq!(log.topic(&kept()).expect("it is there").settings, compaction_settings());
        let answer = block_on(log.append(to_table(120 + round)).expect("there is room")).expect("nothing speaks against it");
        assert_eq!(answer.ranges[0].last, Offset::new(120 + round));
        let mut reader = log.reader(Selection::Topics(vec![kept()], Position::new(0))).expect("in range");
        let mut offsets = Vec::new();
        while offsets.last() != Some(&(120 + round)) {
            let chunk = reader.read(log.head().position, ReadLimits::default()).expect("the log is whole");
            for record in chunk.runs.iter().flat_map(|run| run.records()) {
                let record = record.expect("whole records");
                let number = record.offset.get();
                assert_eq!(record.key, Some(format!("k{}", number % 10).as_bytes()));
                assert_eq!(record.value.is_some(), !number.is_multiple_of(10));
                offsets.push(number);
            }
        }
        assert!(offsets.len() < 60 && (110..120).all(|number| offsets.contains(&number)), "{offsets:?}");
        log.stop();
    }
}

/// Streams that let go of what they had, which was removed: once it is in the checkpoint, once only in the journal.
fn write_blanks() -> SimDisk {
    let disk = SimDisk::new(1);
    let clock = Arc::new(ManualClock::at(Timestamp::new(1_700_000_000_000)));
    let mut drawn = 0;
    let random = move || {
        drawn += 1;
        drawn
    };
    let opened =
        EmbeddedLog::open_stepped(Arc::new(disk.clone()), clock, Path::new(DATA), LogConfig { removal_percent: 30, ..config() }, random);
    let (log, mut stepper) = opened.expect("it opens");
    log.create_topic(kept(), TopicSettings::new(TopicKind::Events, 1)).expect("it is new");
    log.allow_removal();
    for round in 0..2 {
        for number in 0..60 {
            let answer = log.append(to_stream(round * 60 + number)).expect("there is room");
            stepper.commit().expect("no fault");
            block_on(answer).expect("nothing speaks against it");
            if number % 20 == 19 {
                stepper.tidy().expect("no fault");
            }
        }
        // All of one stream goes, and the first events of another.
        for (number, change) in [(0, StreamChange::Delete), (1, StreamChange::Truncate { before: StreamVersion::new(10 + round * 10) })] {
            let writes = vec![Write::Change { topic: kept(), stream: of_number(number), change, by: "ann".into() }];
            let answer = log.append(Append { writes, ..Append::default() }).expect("there is room");
            stepper.commit().expect("no fault");
            block_on(answer).expect("nothing speaks against it");
        }
        stepper.tidy().expect("no fault");
        while stepper.compact().expect("no fault") {
            stepper.commit().expect("no fault");
        }
        if round == 0 {
            stepper.tidy().expect("no fault");
            stepper.upkeep().expect("no fault");
        }
    }
    stepper.seal().expect("no fault");
    disk
}

fn of_number(number: u64) -> StreamId {
    format!("s{}", number % 3).parse().expect("a valid id")
}

/// An event of one of three streams, each fourth of a type of its own.
fn to_stream(number: u64) -> Append {
    let kind = if number.is_multiple_of(4) { format!("Only{number}").into() } else { "Usual".into() };
    let event = NewEvent {
        kind,
        data: Bytes::from(format!("{number}:{}", "v".repeat(200))),
        tags: vec![format!("of:{}", number % 2).parse().expect("a tag")],
        ..NewEvent::default()
    };
    Append { writes: vec![Write::Stream { topic: kept(), stream: of_number(number), events: vec![event] }], ..Append::default() }
}

#[test]
fn a_folder_with_blanks_has_a_manifest_of_version_6_and_says_what_is_gone() {
    let golden = golden("blanks");
    compare(&write_blanks(), &golden);
    let folder = tempfile::tempdir().expect("a folder for the test");
    let data = folder.path().join("data");
    copy(&golden, &data);
    for round in 0..2 {
        let log = EmbeddedLog::open(Arc::new(RealDisk), clock(), &data, config()).expect("it opens");
        let id = log.topic(&kept()).expect("it is there").id;
        let manifest = read_file(&RealDisk, &data.join("topics").join(format!("{id}.json"))).expect("it is there");
        assert!(String::from_utf8(manifest).expect("text").contains("\"format\":6,"));
        let (head, version) = (log.head().position, StreamVersion::new);
        let states = [0, 1, 2].map(|number| log.stream_state(&kept(), &of_number(number)).expect("it has streams"));
        assert_eq!(states.map(|state| state.beginning.first), [version(41), version(20), version(1)]);
        assert_eq!(
            states[..2].iter().map(|state| state.head).collect::<Vec<_>>(),
            [StreamHead::Deleted(version(40)), StreamHead::At(version(40))]
        );
        // An event that was removed is still one that happened.
        for (kind, happened) in [("Only0", true), ("Only36", true), ("Usual", true), ("Never", false)] {
            let item = QueryItem { types: vec![kind.into()], tags: vec!["of:0".parse().expect("a tag")] };
            let asked = QueryAbsent { scope: Scope::Topics(vec![kept()]), query: EventQuery::Items(vec![item]), after: None };
            let append = Append { preconditions: vec![Precondition::QueryAbsent(asked)], ..Append::default() };
            let answer = block_on(log.append(append).expect("there is room"));
            assert_eq!(matches!(answer, Err(LogError::Conflict { .. })), happened, "{kind}");
        }
        block_on(log.append(to_stream(122)).expect("there is room")).expect("nothing speaks against it");
        let mut reader = log.reader(Selection::Topics(vec![kept()], Position::new(0))).expect("in range");
        let (mut numbers, mut next) = (Vec::new(), Position::new(0));
        while next < head {
            let chunk = reader.read(head, ReadLimits::default()).expect("the log is whole");
            next = chunk.scanned_to;
            for record in chunk.runs.iter().flat_map(|run| run.records()) {
                let record = record.expect("whole records");
                let text = String::from_utf8_lossy(record.value.expect("an event")).into_owned();
                numbers.push(text.split(':').next().and_then(|number| number.parse::<u64>().ok()).expect("a number"));
            }
        }
        let is_left = |number: &u64| number % 3 == 2 || number % 3 == 1 && number / 3 + 1 >= 20;
        assert!((0..120).filter(is_left).all(|number| numbers.contains(&number)) && numbers.len() < 95 + round, "{numbers:?}");
        log.stop();
    }
}

fn producer() -> ProducerKey {
    ProducerKey { principal: "ann".into(), id: ProducerId::new([9; 16]) }
}

/// Unit `number` of the producer; the third one is refused.
fn unit(epoch: ProducerEpoch, number: u64) -> Append {
    let (topic, stream): (TopicName, StreamId) = ("accounts".parse().expect("a valid name"), "account-1".parse().expect("a valid id"));
    let never = Precondition::Stream { topic: topic.clone(), stream: stream.clone(), expected: Expected::Absent };
    let event = NewEvent { kind: "Deposited".into(), data: Bytes::from(number.to_string()), ..NewEvent::default() };
    Append {
        writes: vec![Write::Stream { topic, stream, events: vec![event] }],
        preconditions: if number == 3 { vec![never] } else { Vec::new() },
        sequenced: Some(Sequenced { key: producer(), epoch, sequence: Sequence::new(number) }),
        ..Append::default()
    }
}

/// Requests with ids and units of a producer, some in the window file, some in the journal alone: frames need version 3, the file version 2.
fn write_producers() -> SimDisk {
    let disk = SimDisk::new(1);
    let mut drawn = 0;
    let random = move || {
        drawn += 1;
        drawn
    };
    let (log, mut stepper) =
        EmbeddedLog::open_stepped(Arc::new(disk.clone()), clock(), Path::new(DATA), config(), random).expect("it opens");
    for (topic, kind, partitions) in [("accounts", TopicKind::Events, 2), ("plain", TopicKind::Records, 1)] {
        log.create_topic(topic.parse().expect("a valid name"), TopicSettings::new(kind, partitions)).expect("it is new");
    }
    let answer = log.append(event(1)).expect("there is room");
    stepper.commit().expect("no fault");
    block_on(answer).expect("nothing speaks against it");
    let opened = log.open_producer(producer(), None).expect("there is room");
    stepper.commit().expect("no fault");
    let epoch = block_on(opened).expect("nothing speaks against it").epoch;
    for number in 1..=5 {
        let answer = log.append(unit(epoch, number)).expect("there is room");
        stepper.commit().expect("no fault");
        assert_eq!(block_on(answer).is_ok(), number != 3);
        if number == 4 {
            stepper.tidy().expect("no fault");
        }
    }
    stepper.seal().expect("no fault");
    disk
}

#[test]
fn what_producers_did_is_kept_in_frames_of_version_3_and_a_window_file_of_version_2() {
    let golden = golden("producers");
    compare(&write_producers(), &golden);
    let folder = tempfile::tempdir().expect("a folder for the test");
    let data = folder.path().join("data");
    copy(&golden, &data);
    let log = EmbeddedLog::open(Arc::new(RealDisk), clock(), &data, config()).expect("it opens");
    assert!(block_on(log.append(event(1)).expect("there is room")).expect("it is remembered").deduplicated);
    // As the folder has it.
    let epoch = ProducerEpoch::new(1_357_000_000_000);
    let opened = block_on(log.open_producer(producer(), Some(epoch)).expect("there is room")).expect("it is the newest");
    assert_eq!(opened.next, Sequence::new(6));
    for (number, position) in [(1, Some(3)), (2, Some(4)), (3, None), (4, Some(5)), (5, Some(6)), (6, Some(7))] {
        match (block_on(log.append(unit(epoch, number)).expect("there is room")), position) {
            (Ok(answer), Some(position)) => assert_eq!((answer.first.get(), answer.deduplicated), (position, number < 6)),
            (Err(LogError::RefusedBefore { .. }), None) => {}
            other => panic!("unit {number}: {other:?}"),
        }
    }
    log.stop();
}

/// A topic that was deleted with records in segments and in the journal, beside one that stays: its manifest needs version 5.
fn write_deleted() -> SimDisk {
    let (disk, log, mut stepper) = open_new();
    let topics: [TopicName; 2] = ["gone", "kept"].map(|topic| topic.parse().expect("a valid name"));
    for topic in &topics {
        log.create_topic(topic.clone(), TopicSettings::new(TopicKind::Events, 1)).expect("it is new");
    }
    for number in 0..4_u64 {
        let event = NewEvent { kind: "Deposited".into(), data: Bytes::from(number.to_string()), ..NewEvent::default() };
        let write = |topic: &TopicName| Write::Stream {
            topic: topic.clone(),
            stream: "account-1".parse().expect("a valid id"),
            events: vec![event.clone()],
        };
        let answer = log.append(Append { writes: topics.iter().map(write).collect(), ..Append::default() }).expect("there is room");
        stepper.commit().expect("no fault");
        block_on(answer).expect("nothing speaks against it");
        if number == 1 {
            stepper.tidy().expect("no fault");
        }
    }
    log.delete_topic(&topics[0]).expect("nobody needs it");
    stepper.seal().expect("no fault");
    disk
}

#[test]
fn a_deleted_topic_has_a_manifest_of_version_5_until_nothing_names_it() {
    let golden = golden("deleted");
    compare(&write_deleted(), &golden);
    let folder = tempfile::tempdir().expect("a folder for the test");
    let data = folder.path().join("data");
    copy(&golden, &data);
    for round in 0..2 {
        let log = EmbeddedLog::open(Arc::new(RealDisk), clock(), &data, config()).expect("it opens");
        let names: Vec<String> = log.topics().iter().map(|topic| topic.name.to_string()).collect();
        assert_eq!(names, ["kept"], "round {round}");
        let mut reader = log.reader(Selection::All(Position::new(0))).expect("in range");
        let mut positions = Vec::new();
        while positions.len() < 4 {
            let chunk = reader.read(log.head().position, ReadLimits::default()).expect("the log is whole");
            positions.extend(chunk.runs.iter().map(|run| run.first_position.get()));
        }
        assert_eq!(positions, [1, 3, 5, 7]);
        log.stop();
    }
}

/// A folder that was restored from a backup.
fn write_restored() -> SimDisk {
    let disk = write(Compression::None, 1);
    let mut drawn = 100;
    let random = move || {
        drawn += 1;
        drawn
    };
    let disk = disk.kill();
    let backup = Path::new("/backup");
    disk.create_folder(backup).expect("no fault");
    let (log, mut stepper) =
        EmbeddedLog::open_stepped(Arc::new(disk.clone()), clock(), Path::new(DATA), config(), random).expect("it opens");
    stepper.back_up(backup).expect("there is room");
    drop((log, stepper));
    let other = SimDisk::new(1);
    for path in listed(&disk, backup) {
        let to = backup.join(&path);
        other.create_folder(to.parent().expect("it lies in the folder")).expect("no fault");
        let bytes = disk.bytes_of(&to).expect("it is listed");
        other.create(&to).expect("it is new").write_at(0, &bytes).expect("there is room");
    }
    let shared: Arc<dyn Disk> = Arc::new(other.clone());
    let timed: Arc<dyn Clock> = clock();
    restore(&shared, &timed, backup, Path::new(DATA), None, &config(), || 77).expect("the backup is whole");
    other
}

#[test]
fn a_folder_that_was_restored_has_an_identity_of_version_2() {
    let golden = golden("restored");
    compare(&write_restored(), &golden);
    let folder = tempfile::tempdir().expect("a folder for the test");
    let data = folder.path().join("data");
    copy(&golden, &data);
    let log = EmbeddedLog::open(Arc::new(RealDisk), clock(), &data, config()).expect("it opens");
    // Forty units of three records.
    assert_eq!((log.head().epoch, log.head().position.get()), (1_357_000_000, 120 + GAP));
    assert!(block_on(log.append(event(1)).expect("there is room")).expect("it is remembered").deduplicated);
    let lost = log.reader(Selection::All(Position::new(121))).err();
    assert!(matches!(lost, Some(LogError::PositionLost { .. })), "{lost:?}");
    log.stop();
}

/// Writes a folder in which data was redacted twice: the first time to the end, the second time it was only said.
fn write_redacted() -> SimDisk {
    let (disk, log, mut stepper) = open_new();
    log.create_topic(told(), TopicSettings::new(TopicKind::Events, 1)).expect("it is new");
    log.allow_removal();
    let put = |write: Write, stepper: &mut Stepper| {
        let answer = log.append(Append { writes: vec![write], ..Append::default() }).expect("there is room");
        stepper.commit().expect("no fault");
        block_on(answer).expect("nothing speaks against it");
    };
    for number in 1..=20 {
        let tags = vec![format!("n:{number}").parse().expect("a valid tag")];
        let event = NewEvent { kind: "Said".into(), data: Bytes::from(format!("secret {number}")), tags, ..NewEvent::default() };
        put(Write::Stream { topic: told(), stream: teller(), events: vec![event] }, &mut stepper);
    }
    let redact = |versions: &[u64]| Write::Redact {
        topic: told(),
        stream: teller(),
        versions: versions.iter().copied().map(StreamVersion::new).collect(),
        by: "ann".into(),
        reason: "asked to".into(),
    };
    put(redact(&[3, 4]), &mut stepper);
    for _ in 0..12 {
        stepper.compact().expect("no fault");
        stepper.commit().expect("no fault");
        stepper.tidy().expect("no fault");
        stepper.upkeep().expect("no fault");
    }
    assert_eq!(log.redacting(&told(), None).expect("it is there").since, None);
    put(redact(&[20]), &mut stepper);
    stepper.seal().expect("no fault");
    disk
}

fn told() -> TopicName {
    "told".parse().expect("a valid name")
}

fn teller() -> StreamId {
    "teller".parse().expect("a valid id")
}

#[test]
fn a_topic_with_redactions_has_a_manifest_of_version_7_and_shows_nothing() {
    let golden = golden("redacted");
    compare(&write_redacted(), &golden);
    let folder = tempfile::tempdir().expect("a folder for the test");
    let data = folder.path().join("data");
    copy(&golden, &data);
    for round in 0..2 {
        let log = EmbeddedLog::open(Arc::new(RealDisk), Arc::new(SystemClock::new()), &data, config()).expect("it opens");
        log.allow_removal();
        let mut completed = log.redacted();
        while log.redacting(&told(), None).expect("it is there").since.is_some() {
            assert_eq!(round, 0, "what was done stays done");
            block_on(completed.changed()).expect("the log goes on");
        }
        let mut reader = log.reader(Selection::Stream(told(), teller(), StreamVersion::FIRST)).expect("it is there");
        let mut values = Vec::new();
        while values.len() < 20 {
            let chunk = reader.read(log.head().position, ReadLimits::default()).expect("the log is whole");
            let records = chunk.runs.iter().flat_map(|run| run.records());
            values.extend(records.map(|record| record.expect("a record").value.map(|value| String::from_utf8_lossy(value).into_owned())));
        }
        let expected = (1..=20).map(|number| (![3, 4, 20].contains(&number)).then(|| format!("secret {number}")));
        assert_eq!(values, expected.collect::<Vec<_>>(), "round {round}");
        log.stop();
    }
}
