//! Kafka's own reader of segments finds in ours what was appended, and nothing else. `run`, beside this file, fetches it.

mod dump;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use dump::{Dumped, Record, dump};
use foldlog_log::{
    Append, Appended, Compression, EmbeddedLog, LogBackend, LogConfig, NewEvent, NewRecord, Offset, PartitionId, ReadLimits, Selection,
    Stepper, StreamChange, StreamVersion, Timestamp, TopicKind, TopicName, TopicSettings, Write,
    clock::ManualClock,
    disk::{Disk, RealDisk},
    testing::{Random, conformance::block_on},
};

const UNITS: u64 = 1_500;
const NOW: Timestamp = Timestamp::new(1_357_000_000_000);
const TOPICS: [(&str, TopicKind); 2] = [("accounts", TopicKind::Events), ("plain", TopicKind::Records)];

/// What was acknowledged, by topic and partition, in order of offset.
type Told = BTreeMap<(String, PartitionId), Vec<Record>>;

fn event(number: u64, random: &mut Random) -> NewEvent {
    NewEvent {
        kind: match random.below(40) {
            // Nothing follows it that is of its type.
            0 => format!("Only{number}").into(),
            1..20 => "Deposited".into(),
            _ => "Withdrawn".into(),
        },
        data: data(number, random),
        tags: (0..random.below(3)).map(|tag| format!("tag-{tag}").parse().expect("a valid tag")).collect(),
        time: time(number, random),
        ..NewEvent::default()
    }
}

fn record(number: u64, random: &mut Random) -> NewRecord {
    NewRecord {
        key: (!random.one_in(5)).then(|| Bytes::from(format!("key-{}", random.below(20)))),
        value: (!random.one_in(5)).then(|| data(number, random)),
        headers: (0..random.below(3)).map(|header| (format!("h{header}").into(), Some(Bytes::from_static(b"v")))).collect(),
        time: time(number, random),
    }
}

fn data(number: u64, random: &mut Random) -> Bytes {
    let length = usize::try_from(random.below(300)).expect("small");
    Bytes::from(format!("{{\"number\":{number},\"text\":\"{}\"}}", "x".repeat(length)))
}

fn time(number: u64, random: &mut Random) -> Option<Timestamp> {
    random.one_in(3).then(|| Timestamp::new(1_356_000_000_000 + i64::try_from(number).expect("small")))
}

/// Appends a unit of events and records, and notes what was acknowledged.
fn append(log: &EmbeddedLog, number: u64, random: &mut Random, told: &mut Told, commit: impl FnOnce()) {
    let events = (0..=random.below(20)).map(|_| event(number, random)).collect::<Vec<_>>();
    let records = (0..=random.below(5)).map(|_| record(number, random)).collect::<Vec<_>>();
    let stream = format!("account-{}", random.below(10));
    let shown = |key: Option<String>, value: Option<&Bytes>, time: Option<Timestamp>, headers: Vec<String>| Record {
        offset: 0,
        time: time.unwrap_or(NOW).get(),
        key,
        value: value.map(text),
        headers,
    };
    let mut shown = [
        events.iter().map(|one| shown(Some(stream.clone()), Some(&one.data), one.time, vec!["f".into()])).collect::<Vec<_>>(),
        records
            .iter()
            .map(|one| {
                let headers = one.headers.iter().map(|(name, _)| name.to_string()).collect();
                shown(one.key.as_ref().map(text), one.value.as_ref(), one.time, headers)
            })
            .collect(),
    ]
    .into_iter();
    let [accounts, plain] = TOPICS.map(|(name, _)| name.parse().expect("a valid name"));
    let writes = vec![
        Write::Stream { topic: accounts, stream: stream.parse().expect("a valid id"), events },
        Write::Records { topic: plain, partition: Some(PartitionId::new(u32::from(random.one_in(2)))), records },
    ];
    let answer = log.append(Append { writes, ..Append::default() }).expect("there is room");
    commit();
    let Appended { ranges, .. } = block_on(answer).expect("nothing speaks against it");
    for range in ranges {
        let records = told.entry((range.topic.to_string(), range.partition)).or_default();
        records.extend(
            (range.first.get()..=range.last.get())
                .zip(shown.next().expect("a range a write"))
                .map(|(offset, record)| Record { offset, ..record }),
        );
    }
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8(bytes.to_vec()).expect("the test writes text")
}

/// The segments of a partition, in order.
fn segments(log: &EmbeddedLog, topic: &str, partition: PartitionId) -> Vec<PathBuf> {
    let topic = log.topic(&topic.parse().expect("a valid name")).expect("it is there");
    let folder = log.folder().join("topics").join(topic.id.to_string()).join(format!("{:05}", partition.get()));
    let mut found = RealDisk.list(&folder).expect("it is there").iter().map(|entry| folder.join(&entry.name)).collect::<Vec<_>>();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    found.sort();
    found
}

#[test]
#[ignore = "needs Java and Kafka's tools: log/tests/kafka/run"]
fn kafkas_tool_finds_what_was_appended_and_sees_one_flipped_byte() {
    for compression in Compression::ALL {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let (log, _, told) = written(folder.path(), compression);
        let (mut records, mut files, mut batches) = (0, 0, BTreeMap::new());
        for ((topic, partition), expected) in &told {
            let paths = segments(&log, topic, *partition);
            let dumped = dump(&paths);
            assert_eq!(dumped.keys().collect::<Vec<_>>(), paths.iter().collect::<Vec<_>>());
            for (path, one) in &dumped {
                assert_eq!(one.faults, Vec::<String>::new(), "{}", path.display());
                one.codecs.iter().for_each(|codec| *batches.entry(codec.clone()).or_insert(0) += 1);
            }
            let found = dumped.values().flat_map(|one| &one.records).collect::<Vec<_>>();
            assert!(found.into_iter().eq(expected), "{topic}/{partition} holds what was appended");
            (records, files) = (records + expected.len(), files + paths.len());
        }
        assert!(files > 2 * told.len() && records > 10_000, "{records} records in {files} segments of {} partitions", told.len());
        println!("Kafka's tool found {records} records in batches {batches:?}, {files} segments, {} partitions, as appended", told.len());
        let compressed = batches.remove(compression.as_str()).unwrap_or(0);
        // What is small stays as it is.
        assert!(compressed > 1_000 && batches.keys().all(|codec| codec == "none"), "{compressed} with {compression}, and {batches:?}");

        sees_a_flipped_byte(&segments(&log, "accounts", PartitionId::new(0))[0]);
    }
}

#[test]
#[ignore = "needs Java and Kafka's tools: log/tests/kafka/run"]
fn kafkas_tool_reads_what_compaction_left() {
    for compression in Compression::ALL {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let log = compacted(folder.path(), compression);
        let paths = segments(&log, "table", PartitionId::new(0));
        let dumped = dump(&paths);
        finds_holes_alone(&dumped);
        let found = dumped.values().flat_map(|one| &one.records).collect::<Vec<_>>();
        let mut reader = log.reader(Selection::Partition(name("table"), PartitionId::new(0), Offset::default())).expect("in range");
        let mut expected = Vec::new();
        loop {
            let chunk = reader.read(log.head().position, ReadLimits::default()).expect("it is whole");
            for record in chunk.runs.iter().flat_map(|run| run.records()) {
                let record = record.expect("it is whole");
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("the test writes text");
                let (offset, time) = (record.offset.get(), record.timestamp.get());
                expected.push(Record { offset, time, key: record.key.map(text), value: record.value.map(text), headers: Vec::new() });
            }
            if chunk.runs.is_empty() {
                break;
            }
        }
        assert!(found.into_iter().eq(&expected), "what a reader finds");
        let (left, end) = (expected.len() as u64, log.ends(&name("table")).expect("it is there")[0].get());
        let tombstones = expected.iter().filter(|record| record.value.is_none()).count();
        assert!(left < end / 2 && tombstones > 10, "{left} of {end}, {tombstones} tombstones");
        println!("Kafka's tool found {left} records that compaction left of {end}, {tombstones} tombstones among them");
    }
}

#[test]
#[ignore = "needs Java and Kafka's tools: log/tests/kafka/run"]
fn kafkas_tool_reads_what_streams_that_were_deleted_left() {
    for compression in Compression::ALL {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let (log, mut stepper, told) = written(folder.path(), compression);
        let [accounts, _] = TOPICS.map(|(topic, _)| name(topic));
        for number in 0..5 {
            let (stream, change) = (format!("account-{number}").parse().expect("a valid id"), StreamChange::Delete);
            let writes = vec![Write::Change { topic: accounts.clone(), stream, change, by: "ann".into() }];
            let answer = log.append(Append { writes, ..Append::default() }).expect("there is room");
            stepper.commit().expect("no fault");
            block_on(answer).expect("nothing speaks against it");
        }
        stepper.tidy().expect("no fault");
        log.allow_removal();
        while stepper.compact().expect("no fault") {
            stepper.commit().expect("no fault");
        }
        stepper.tidy().expect("no fault");
        stepper.upkeep().expect("no fault");
        let (mut whole, mut blanks, mut given, mut anew) = (0, 0, 0, Vec::new());
        for partition in [0, 1].map(PartitionId::new) {
            let paths = segments(&log, "accounts", partition);
            let dumped = dump(&paths);
            finds_holes_alone(&dumped);
            let known = &told[&("accounts".to_owned(), partition)];
            let lives = |record: &&Record| ["5", "6", "7", "8", "9"].iter().any(|number| record.key == Some(format!("account-{number}")));
            let mut living = known.iter().filter(lives);
            given += known.len();
            for record in dumped.values().flat_map(|one| &one.records) {
                match usize::try_from(record.offset).ok().and_then(|offset| known.get(offset)) {
                    Some(appended) if record.value.is_some() => {
                        assert_eq!(record, appended);
                        assert!(!lives(&record) || living.next() == Some(record), "what lives is there, in order");
                        whole += 1;
                    }
                    Some(appended) => {
                        assert_eq!(*record, Record { value: None, ..appended.clone() });
                        assert!(!lives(&record));
                        blanks += 1;
                    }
                    // The marks lie behind.
                    None => assert_eq!(record.value, None),
                }
            }
            assert_eq!(living.next(), None, "what lives is there");
            anew.extend(written_anew(&paths).cloned());
        }
        sees_a_flipped_byte(anew.first().expect("some were written anew"));
        assert!(whole * 4 < given * 3 && whole * 3 > given && blanks >= 5, "{whole} and {blanks} blanks of {given}");
        println!("Kafka's tool found {whole} events and {blanks} blanks of {given}");
    }
}

#[test]
#[ignore = "needs Java and Kafka's tools: log/tests/kafka/run"]
fn kafkas_tool_reads_what_redaction_left() {
    for compression in Compression::ALL {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let (log, mut stepper, told) = written(folder.path(), compression);
        log.allow_removal();
        let redacted = |version: u64| version.is_multiple_of(7);
        for number in 0..10 {
            let stream = format!("account-{number}");
            let events = told.values().flatten().filter(|record| record.key.as_ref() == Some(&stream)).count() as u64;
            let versions = (1..=events).filter(|version| redacted(*version)).map(StreamVersion::new).collect();
            let (topic, stream) = (name("accounts"), stream.parse().expect("a valid id"));
            let writes = vec![Write::Redact { topic, stream, versions, by: "ann".into(), reason: "asked to".into() }];
            let answer = log.append(Append { writes, ..Append::default() }).expect("there is room");
            stepper.commit().expect("no fault");
            block_on(answer).expect("nothing speaks against it");
        }
        while log.redacting(&name("accounts"), None).expect("it is there").since.is_some() {
            stepper.compact().expect("no fault");
            stepper.commit().expect("no fault");
            stepper.tidy().expect("no fault");
            stepper.upkeep().expect("no fault");
        }
        let (mut blanks, mut marks) = (0, 0);
        for partition in [0, 1].map(PartitionId::new) {
            let paths = segments(&log, "accounts", partition);
            let dumped = dump(&paths);
            let mut found = dumped.values().flat_map(|one| &one.records);
            let mut versions = BTreeMap::new();
            for appended in &told[&("accounts".to_owned(), partition)] {
                let version = versions.entry(&appended.key).or_insert(0);
                *version += 1;
                let value = appended.value.clone().filter(|_| !redacted(*version));
                blanks += usize::from(value.is_none());
                assert_eq!(found.next(), Some(&Record { value, ..appended.clone() }), "everything but the data of what was redacted");
            }
            // Of redactions, and that they are complete.
            marks += found.inspect(|mark| assert_eq!(mark.value, None)).count();
            assert_eq!(dumped.values().flat_map(|one| &one.faults).collect::<Vec<_>>(), [""; 0]);
            sees_a_flipped_byte(written_anew(&paths).expect("there are redacted events in all partitions"));
        }
        assert!(blanks > 2_000 && marks > blanks, "{blanks} and {marks} marks");
        println!(
            "Kafka's tool found {blanks} redacted events without data in batches of {compression}, all others whole, and {marks} marks"
        );
    }
}

/// One of the segments that has a generation.
fn written_anew(segments: &[PathBuf]) -> Option<&PathBuf> {
    let is_anew = |path: &&PathBuf| path.file_stem().is_some_and(|name| name.to_string_lossy().contains('.'));
    segments.iter().find(is_anew)
}

/// That offsets have holes is all that the tool has to say.
fn finds_holes_alone(dumped: &BTreeMap<PathBuf, Dumped>) {
    let is_hole = |line: &str| line.starts_with("Non-consecutive offsets in ") || line.contains(" is followed by ");
    let faults = dumped.values().flat_map(|one| &one.faults).collect::<Vec<_>>();
    assert!(faults.iter().all(|line| is_hole(line)), "{faults:?}");
}

fn name(topic: &str) -> TopicName {
    topic.parse().expect("a valid name")
}

/// A table that was compacted.
fn compacted(folder: &Path, compression: Compression) -> EmbeddedLog {
    let config = LogConfig { segment_bytes: 64 << 10, tail_bytes: 0, ..LogConfig::default() }.without_reserve();
    let clock = Arc::new(ManualClock::at(Timestamp::new(1_700_000_000_000)));
    let opened = EmbeddedLog::open_stepped(Arc::new(RealDisk), clock, &folder.join("data"), config, || 7);
    let (log, mut stepper) = opened.expect("it opens");
    let settings = TopicSettings { compression, ..TopicSettings::new(TopicKind::Table, 1) };
    log.create_topic(name("table"), settings).expect("it is new");
    log.allow_removal();
    let mut random = Random::new(11);
    for number in 0..2_000 {
        let key = |random: &mut Random| Some(Bytes::from(format!("key-{}", random.below(300))));
        let value = |random: &mut Random| (!random.one_in(6)).then(|| data(number, random));
        let mut record =
            || NewRecord { key: key(&mut random), value: value(&mut random), headers: Vec::new(), time: time(number, &mut random) };
        let records = (0..4).map(|_| record()).collect();
        let write = Write::Records { topic: name("table"), partition: None, records };
        let answer = log.append(Append { writes: vec![write], ..Append::default() }).expect("there is room");
        stepper.commit().expect("no fault");
        block_on(answer).expect("nothing speaks against it");
        if number % 10 == 9 {
            stepper.tidy().expect("no fault");
        }
    }
    while stepper.compact().expect("no fault") {
        stepper.commit().expect("no fault");
    }
    stepper.tidy().expect("no fault");
    stepper.upkeep().expect("no fault");
    log
}

/// A log with everything in segments, and what was acknowledged.
fn written(folder: &Path, compression: Compression) -> (EmbeddedLog, Stepper, Told) {
    let segment_bytes = if compression == Compression::None { 256 << 10 } else { 64 << 10 };
    let config = LogConfig { segment_bytes, ..LogConfig::default() }.without_reserve();
    let mut random = Random::new(7);
    let mut salt = random.fork();
    let salt = move || u128::from(salt.next());
    let clock = Arc::new(ManualClock::at(NOW));
    let (log, mut stepper) = EmbeddedLog::open_stepped(Arc::new(RealDisk), clock, &folder.join("data"), config, salt).expect("it opens");
    for (name, kind) in TOPICS {
        let settings = TopicSettings { compression, ..TopicSettings::new(kind, 2) };
        log.create_topic(name.parse().expect("a valid name"), settings).expect("it is new");
    }
    let mut told = Told::new();
    for number in 0..UNITS {
        append(&log, number, &mut random, &mut told, || stepper.commit().expect("no fault"));
    }
    stepper.tidy().expect("no fault");
    (log, stepper, told)
}

/// The tool calls a copy invalid that has one byte flipped in its first batch, and no other batch.
fn sees_a_flipped_byte(segment: &Path) {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let file = RealDisk.open(segment).expect("it is there");
    let mut bytes = vec![0; usize::try_from(file.len().expect("it is there")).expect("small")];
    file.read_at(0, &mut bytes).expect("it can be read");
    let length = u32::from_be_bytes(bytes[8..12].try_into().expect("a length"));
    bytes[12 + length as usize - 1] ^= 1;
    let copy = folder.path().join(segment.file_name().expect("it has a name"));
    RealDisk.create(&copy).expect("it is new").write_at(0, &bytes).expect("there is room");
    let faults = &dump(std::slice::from_ref(&copy))[&copy].faults;
    assert_eq!(faults.iter().filter(|line| line.ends_with("isvalid: false")).count(), 1, "a flipped byte is seen: {faults:?}");
}
