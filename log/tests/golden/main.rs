//! Data folders committed beside this file, of format version 1 and with what came later: today's log writes the same bytes, and
//! opens what was written.
//!
//! `v1` is format version 1; the topics of the others have manifests of format 2: in `manifest-v2` for their durability, in `v2-lz4`
//! and `v2-zstd` because they are compressed. `restored` says so in its identity, which has format 2. `retained` has a manifest of format 8.
//!
//! When the first test fails the format has changed: raise its version and keep the old folder. `FOLDLOG_WRITE_GOLDEN=1` writes
//! the folders anew.

mod formats;
mod producers;
mod removed;
mod restored;
mod streams;

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

/// A copy of a golden folder, which may be written to as long as the first part is there.
fn copied(golden: &Path) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let data = folder.path().join("data");
    for path in listed(&RealDisk, golden) {
        let to = data.join(&path);
        RealDisk.create_folder(to.parent().expect("it lies in the folder")).expect("it can be made");
        let bytes = read_file(&RealDisk, &golden.join(&path)).expect("it is listed");
        RealDisk.create(&to).expect("it is new").write_at(0, &bytes).expect("there is room");
    }
    (folder, data)
}

/// Versions of the format of both checkpoints.
fn formats_of_checkpoints(data: &Path) -> [u8; 2] {
    ["checkpoint.a", "checkpoint.b"].map(|slot| read_file(&RealDisk, &data.join(slot)).expect("it is there")[4])
}
