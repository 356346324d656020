//! An event whose payload is a piece of a journal (somebody stores a backup, or means harm) is an event and nothing else.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use foldlog_log::{
    Append, EmbeddedLog, LogBackend, LogConfig, NewEvent, Position, ReadLimits, Selection, Timestamp, TopicKind, TopicSettings, Write,
    clock::ManualClock,
    testing::{SimDisk, conformance::block_on},
};

const BLOCK: usize = 4096;

fn open(disk: &SimDisk) -> EmbeddedLog {
    let config = LogConfig { journal_file_bytes: 256 << 10, first_journal_file_bytes: 128 << 10, ..LogConfig::default() };
    let clock = Arc::new(ManualClock::at(Timestamp::new(1_000)));
    EmbeddedLog::open(Arc::new(disk.clone()), clock, Path::new("/data"), config).expect("it opens")
}

fn append(log: &EmbeddedLog, data: Vec<u8>) {
    let event = NewEvent { kind: "Stored".into(), data: Bytes::from(data), ..NewEvent::default() };
    let write = Write::Stream { topic: "t".parse().expect("a valid name"), stream: "s".parse().expect("a valid id"), events: vec![event] };
    let one = Append { writes: vec![write], ..Append::default() };
    block_on(log.append(one).expect("there is room")).expect("nothing speaks against it");
}

fn new_log() -> (SimDisk, EmbeddedLog) {
    let disk = SimDisk::new(1);
    let log = open(&disk);
    log.create_topic("t".parse().expect("a valid name"), TopicSettings::new(TopicKind::Events, 1)).expect("it is new");
    (disk, log)
}

/// A header of a format that does not exist yet, as whole as any.
fn newer_header() -> Vec<u8> {
    let mut header = b"FLJ\x01".to_vec();
    header.extend_from_slice(&2_u16.to_le_bytes());
    header.resize(92, 0);
    header.extend_from_slice(&crc32c::crc32c(&header).to_le_bytes());
    header
}

#[test]
fn a_payload_that_looks_like_a_newer_format_does_not_close_the_folder() {
    let disk = SimDisk::new(1);
    let config = LogConfig { journal_file_bytes: 128 << 10, first_journal_file_bytes: 128 << 10, ..LogConfig::default() };
    let open = |disk: &SimDisk, salt: u128| {
        let clock = Arc::new(ManualClock::at(Timestamp::new(1_000)));
        EmbeddedLog::open_stepped(Arc::new(disk.clone()), clock, Path::new("/data"), config.clone(), move || salt).expect("it opens")
    };
    let (log, mut stepper) = open(&disk, 1);
    log.create_topic("t".parse().expect("a valid name"), TopicSettings::new(TopicKind::Events, 1)).expect("it is new");
    let mut store = |data: Vec<u8>| {
        let event = NewEvent { kind: "Stored".into(), data: data.into(), ..NewEvent::default() };
        let write = Write::Stream { topic: "t".parse().expect("a name"), stream: "s".parse().expect("an id"), events: vec![event] };
        let answer = log.append(Append { writes: vec![write], ..Append::default() }).expect("there is room");
        stepper.commit().expect("the disk works");
        block_on(answer).expect("nothing speaks against it");
        stepper.tidy().expect("the disk works");
    };
    let marker = (0..3 * BLOCK).map(|place| u8::try_from(place % 251).expect("below 256")).collect::<Vec<_>>();
    store(marker.clone());
    let bytes = journal(&disk);
    let at = bytes.windows(64).position(|window| window == &marker[..64]).expect("it was written");
    let mut payload = vec![7; 3 * BLOCK];
    for begin in [BLOCK - at % BLOCK, 2 * BLOCK - at % BLOCK] {
        payload[begin..begin + 96].copy_from_slice(&newer_header());
    }
    // Some files' worth, so that files are used again.
    let lookalikes = || journal(&disk).chunks(BLOCK).filter(|block| block.starts_with(&newer_header())).count();
    let mut before = 0;
    while lookalikes() >= before {
        before = lookalikes() + 1;
        store(payload.clone());
    }
    // Frames of one block, behind which old payloads come to lie.
    for _ in 0..4 {
        store(vec![1]);
        let (log, _) = open(&disk.fork(), 2);
        assert_eq!(log.report().damage, None);
    }
}

/// All bytes of the journal of a log.
fn journal(disk: &SimDisk) -> Vec<u8> {
    let paths = disk.paths().into_iter().filter(|path| path.starts_with("/data/journal"));
    paths.flat_map(|path| disk.bytes_of(&path).expect("it is listed")).collect()
}

#[test]
fn a_payload_that_looks_like_a_later_frame_stays_a_payload() {
    // The last frame of another log, whose number is higher than any here.
    let (disk, log) = new_log();
    for _ in 0..20 {
        append(&log, vec![1; 10]);
    }
    log.stop();
    let frames = journal(&disk);
    let last = frames.chunks(BLOCK).rfind(|block| block.iter().any(|byte| *byte != 0)).expect("there are frames").to_vec();

    let (disk, log) = new_log();
    // Where a payload of this length begins within its block, from which follows where the lookalike must lie.
    let marker = (0..3 * BLOCK).map(|place| u8::try_from(place % 251).expect("below 256")).collect::<Vec<_>>();
    append(&log, marker.clone());
    let bytes = journal(&disk);
    let at = bytes.windows(64).position(|window| window == &marker[..64]).expect("it was written");
    let pad = BLOCK - at % BLOCK;
    let mut payload = vec![7; 3 * BLOCK];
    payload[pad..pad + BLOCK].copy_from_slice(&last);
    append(&log, payload.clone());
    assert!(journal(&disk).chunks(BLOCK).any(|block| block == last), "the lookalike lies where a frame could begin");
    log.stop();
    drop(log);
    let mut disk = disk;
    for _ in 0..3 {
        disk = disk.power_cut();
        let log = open(&disk);
        assert_eq!(log.report().damage, None);
        let mut reader = log.reader(Selection::All(Position::new(0))).expect("in range");
        let chunk = reader.read(log.head().position, ReadLimits::default()).expect("the log is whole");
        let records = chunk.runs.iter().flat_map(|run| run.records()).collect::<Result<Vec<_>, _>>().expect("whole records");
        assert_eq!(records.iter().map(|record| record.value).collect::<Vec<_>>(), [Some(&marker[..]), Some(&payload[..])]);
        log.stop();
    }
}
