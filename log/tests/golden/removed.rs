//! What retention, compaction, removal and the deletion of topics left.

use super::*;

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
    let (_folder, data) = copied(&golden);
    let formats = formats_of_checkpoints(&data);
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
    let (_folder, data) = copied(&golden);
    let formats = formats_of_checkpoints(&data);
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
    let (_folder, data) = copied(&golden);
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
    let (_folder, data) = copied(&golden);
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

/// A topic of events that keeps them for a while: what it let go of once was removed and is in the checkpoint, the rest only in the journal.
fn write_retained() -> SimDisk {
    let (disk, log, mut stepper) = open_new();
    log.create_topic(kept(), TopicSettings { kind: TopicKind::Events, ..retention_settings() }).expect("it is new");
    log.allow_removal();
    for round in 0..2 {
        for number in 0..60 {
            let event = NewEvent { kind: "Said".into(), data: vec![b'v'; 400].into(), ..NewEvent::default() };
            let write = Write::Stream { topic: kept(), stream: of_number(number), events: vec![event] };
            let answer = log.append(Append { writes: vec![write], ..Append::default() }).expect("there is room");
            stepper.commit().expect("no fault");
            block_on(answer).expect("nothing speaks against it");
            if number % 6 == 5 {
                stepper.tidy().expect("no fault");
            }
        }
        stepper.upkeep().expect("no fault");
        stepper.commit().expect("no fault");
        if round == 0 {
            stepper.upkeep().expect("no fault");
            while stepper.compact().expect("no fault") {
                stepper.commit().expect("no fault");
            }
            stepper.tidy().expect("no fault");
            stepper.upkeep().expect("no fault");
        }
    }
    stepper.seal().expect("no fault");
    disk
}

#[test]
fn a_topic_of_events_with_a_retention_has_a_manifest_of_version_8_and_begins_behind_what_went() {
    let golden = golden("retained");
    compare(&write_retained(), &golden);
    let (_folder, data) = copied(&golden);
    for round in 0..2 {
        let log = EmbeddedLog::open(Arc::new(RealDisk), clock(), &data, config()).expect("it opens");
        let first = log.firsts(&kept()).expect("it is there")[0].get();
        assert!(first > 70 && first < 90, "{first}");
        for number in 0..3 {
            let state = log.stream_state(&kept(), &of_number(number)).expect("it is there");
            let before = (first + 2 - number) / 3;
            assert_eq!((state.beginning.first.get(), state.beginning.retained.get()), (before + 1, before + 1), "round {round}");
            assert_eq!(state.head, StreamHead::At(StreamVersion::new(40)));
            let mut reader = log.reader(Selection::Stream(kept(), of_number(number), StreamVersion::FIRST)).expect("it is there");
            let mut left = 40 - before;
            while left > 0 {
                let chunk = reader.read(log.head().position, ReadLimits::default()).expect("the log is whole");
                left -= chunk.runs.iter().map(|run| u64::from(run.count)).sum::<u64>();
            }
        }
        log.stop();
    }
}
