//! Reads: what is selected, in which order, from where to where.

use super::*;

pub(super) const CASES: &[Case] = &[
    Case { name: "an empty log reads as empty", needs: Needs::Nothing, run: empty },
    Case { name: "a partition is read from any offset", needs: Needs::Nothing, run: partitions },
    Case { name: "a stream is read from any version", needs: Needs::Nothing, run: streams },
    Case { name: "several topics merge in order of position", needs: Needs::Order, run: merged },
    Case { name: "foldlog's own topics are left out of everything", needs: Needs::Order, run: system_topics },
    Case { name: "the end is where it was captured", needs: Needs::Order, run: captured_end },
    Case { name: "limits cut and lose nothing", needs: Needs::Nothing, run: limits },
    Case { name: "compressed topics are read as all others", needs: Needs::ServerTime, run: compressed },
    Case { name: "a start out of range is refused", needs: Needs::Nothing, run: out_of_range },
];

/// Two topics with three streams, appended in 60 units of up to three writes.
pub(super) fn fill(log: &dyn LogBackend) -> Vec<Appended> {
    create(log, "e", TopicKind::Events, 3);
    create(log, "r", TopicKind::Records, 2);
    let unit = |number: u64| {
        let mut all = Vec::new();
        for place in 0..=number % 3 {
            let data = format!("{number}.{place}");
            all.push(match (number + place) % 4 {
                0 => Write::Records { topic: name("r"), partition: None, records: vec![record(&data, &data), record("k", &data)] },
                other => events_of("e", &format!("s{other}"), &[&data]),
            });
        }
        writes(all)
    };
    (0..60).map(|number| put(log, unit(number))).collect()
}

fn empty(subject: &mut dyn Subject) {
    let log = subject.log();
    assert_eq!(log.head().position, Position::new(0));
    create(&*log, "e", TopicKind::Events, 2);
    create(&*log, "r", TopicKind::Records, 2);
    let end = log.head().position;
    for selection in
        [partition("e", 1, 0), partition("r", 0, 0), from_version("e", "s", 1), from_version("e", "s", 7), topics(&["e", "r"], 0)]
    {
        let mut reader = log.reader(selection.clone()).expect("the start is in range");
        for _ in 0..2 {
            let chunk = reader.read(end, ReadLimits::default()).expect("the log is whole");
            assert!(chunk.runs.is_empty() && chunk.scanned_to == end, "{selection:?}");
        }
    }
}

fn partitions(subject: &mut dyn Subject) {
    let log = subject.log();
    let answers = fill(&*log);
    let mut total = 0;
    for (topic, count) in [("e", 3), ("r", 2)] {
        let ends = log.ends(&name(topic)).expect("it exists");
        assert_eq!(ends.len(), count as usize);
        for number in 0..count {
            let all = read(&*log, partition(topic, number, 0));
            let offsets = all.iter().map(|record| record.offset.get()).collect::<Vec<_>>();
            let end = ends[number as usize].get();
            assert_eq!(offsets, (0..end).collect::<Vec<_>>(), "{topic} {number} has no gaps");
            assert!(all.iter().all(|record| record.topic == topic && record.partition == PartitionId::new(number)));
            for from in [end.min(1), end / 2, end.saturating_sub(1), end] {
                assert_eq!(read(&*log, partition(topic, number, from)), all[usize::try_from(from).expect("small")..], "from {from}");
            }
            total += end;
        }
    }
    let last = answers.last().expect("there are some");
    assert!(!log.capabilities().commit_order || last.end == Position::new(total), "every record has a position");
}

fn streams(subject: &mut dyn Subject) {
    let log = subject.log();
    fill(&*log);
    for id in ["s1", "s2", "s3"] {
        let all = read(&*log, from_version("e", id, 1));
        let versions = all.iter().filter_map(|record| record.version).map(StreamVersion::get).collect::<Vec<_>>();
        assert_eq!(versions, (1..=all.len() as u64).collect::<Vec<_>>(), "{id} has no gaps");
        assert!(all.iter().all(|record| record.key.as_deref() == Some(id)) && all.len() > 10, "{id}");
        assert!(all.windows(2).all(|two| two[0].position < two[1].position || !log.capabilities().commit_order));
        for from in [0, 1, all.len() / 2, all.len(), all.len() + 1, all.len() + 9] {
            let expected = &all[from.saturating_sub(1).min(all.len())..];
            assert_eq!(read(&*log, from_version("e", id, from as u64)), expected, "{id} from {from}");
        }
    }
    assert!(read(&*log, from_version("e", "nobody", 1)).is_empty());
}

fn merged(subject: &mut dyn Subject) {
    let log = subject.log();
    let answers = fill(&*log);
    let all = read(&*log, Selection::All(Position::new(0)));
    let positions = all.iter().map(|record| record.position.get()).collect::<Vec<_>>();
    assert_eq!(positions, (0..log.head().position.get()).collect::<Vec<_>>(), "dense, in order of commit");
    assert_same(&read(&*log, topics(&["e", "r"], 0)), &all, "by name");
    assert_eq!(read(&*log, topics(&["r", "e"], 0)), all, "the order of names does not matter");
    let of = |topic: &str| all.iter().filter(|record| record.topic == topic).cloned().collect::<Vec<_>>();
    for topic in ["e", "r"] {
        assert_eq!(read(&*log, topics(&[topic], 0)), of(topic));
    }
    for answer in answers.iter().step_by(7) {
        let from = answer.first.get();
        assert_eq!(read(&*log, Selection::All(answer.first)), all[usize::try_from(from).expect("small")..]);
        let expected = of("e").into_iter().filter(|record| record.position >= answer.first).collect::<Vec<_>>();
        assert_eq!(read(&*log, topics(&["e"], from)), expected);
    }
    // Within a unit positions follow the order given.
    let unit = &answers[11];
    let of_unit = all.iter().filter(|record| (unit.first..unit.end).contains(&record.position));
    assert_eq!(of_unit.filter_map(|record| record.value.as_deref()).collect::<Vec<_>>(), ["11.0", "11.1", "11.1", "11.2"]);
}

fn system_topics(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "e", TopicKind::Events, 1);
    create(&*log, "_foldlog.test", TopicKind::Events, 1);
    put(&*log, writes([events_of("e", "a", &["1"]), events_of("_foldlog.test", "a", &["2"]), events_of("e", "a", &["3"])]));
    assert_eq!(values(&read(&*log, Selection::All(Position::new(0)))), ["1", "3"]);
    assert_eq!(values(&read(&*log, topics(&["e", "_foldlog.test"], 0))), ["1", "2", "3"], "by name they are read");
    // Topics made later are part of everything.
    let mut reader = log.reader(Selection::All(log.head().position)).expect("the end is in range");
    create(&*log, "later", TopicKind::Events, 1);
    put(&*log, writes([events_of("later", "a", &["4"])]));
    let chunk = reader.read(log.head().position, ReadLimits::default()).expect("the log is whole");
    assert_eq!(values(&chunk.runs.iter().flat_map(records_of).collect::<Vec<_>>()), ["4"]);
}

fn compressed(subject: &mut dyn Subject) {
    for round in 0..2 {
        let log = subject.log();
        for compression in Compression::ALL {
            for (prefix, kind) in [("e", TopicKind::Events), ("r", TopicKind::Records)] {
                let settings = TopicSettings { compression, ..TopicSettings::new(kind, 2) };
                let topic = log.create_topic(name(&format!("{prefix}-{compression}")), settings).expect("it is new, or the same");
                assert_eq!(topic.settings, settings);
            }
        }
        let names = Compression::ALL.map(|compression| format!("e-{compression}"));
        let expected = |unit: u64| format!("{unit} {}", "compresses well ".repeat(usize::try_from(unit % 7 * 9).expect("small")));
        for unit in round * 60..(round + 1) * 60 {
            for compression in Compression::ALL {
                let data = expected(unit);
                let event = events_of(&format!("e-{compression}"), &format!("s{}", unit % 3), &[&data, &data]);
                let plain = Write::Records { topic: name(&format!("r-{compression}")), partition: None, records: vec![record("k", &data)] };
                put(&*log, writes([event, plain]));
            }
        }
        let units = || 0..(round + 1) * 60;
        let doubled = units().flat_map(|unit| [expected(unit), expected(unit)]);
        let names = names.each_ref().map(String::as_str);
        let all = read(&*log, topics(&names, 0));
        assert_newest_first(&*log, topics(&names, log.head().position.get()), &all);
        let middle = all.get(all.len() / 2).expect("units were appended").recorded_at;
        let place = log.at_time(topics(&names, 0), middle).expect("the log is whole");
        let is_older = |record: &&Read| record.recorded_at < middle;
        assert_newest_first(&*log, place.clone(), &all.iter().filter(is_older).cloned().collect::<Vec<_>>());
        let newer = all.iter().filter(|record| !is_older(record)).cloned().collect::<Vec<_>>();
        assert_same(&read(&*log, place), &newer, "from a time");
        for topic in names {
            let of_topic = all.iter().filter(|record| record.topic == *topic).filter_map(|record| record.value.clone());
            assert!(of_topic.eq(doubled.clone()), "topic {topic}");
            let of_stream = units().filter(|unit| unit % 3 == 1).flat_map(|unit| [expected(unit), expected(unit)]);
            let found = read(&*log, from_version(topic, "s1", 4));
            assert!(values(&found).into_iter().eq(of_stream.skip(3)), "a stream of {topic}");
            assert_newest_first(&*log, from_version(topic, "s1", u64::MAX), &read(&*log, from_version(topic, "s1", 1)));
        }
        for compression in Compression::ALL {
            let topic = format!("r-{compression}");
            let place = PartitionId::for_key(b"k", 2).get();
            let found = read(&*log, partition(&topic, place, 5));
            assert!(values(&found).into_iter().eq(units().skip(5).map(expected)), "a partition of {topic}");
            assert_newest_first(&*log, partition(&topic, place, 5), &read(&*log, partition(&topic, place, 0))[..5]);
        }
        if !subject.restart() {
            return;
        }
    }
}

/// Holds what lies before a selection's place against `records`, the oldest of which comes first.
fn assert_newest_first(log: &dyn LogBackend, selection: Selection, records: &[Read]) {
    let found = read_back(log, selection, log.head().position, ReadLimits::default());
    assert_same(&found, &records.iter().rev().cloned().collect::<Vec<_>>(), "backwards");
}

fn captured_end(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "e", TopicKind::Events, 2);
    put(&*log, writes([events_of("e", "a", &["1"]), events_of("e", "b", &["2"])]));
    let captured = log.head().position;
    let selections = [
        Selection::All(Position::new(0)),
        topics(&["e"], 0),
        from_version("e", "a", 1),
        partition("e", PartitionId::for_key(b"a", 2).get(), 0),
    ];
    let mut readers = selections.map(|selection| log.reader(selection).expect("in range"));
    put(&*log, writes([events_of("e", "a", &["3"]), events_of("e", "b", &["4"])]));
    for reader in &mut readers {
        let mut old = Vec::new();
        for _ in 0..4 {
            let chunk = reader.read(captured, ReadLimits::default()).expect("the log is whole");
            old.extend(chunk.runs.iter().flat_map(records_of));
        }
        assert!(values(&old).contains(&"1") && !values(&old).contains(&"3") && !values(&old).contains(&"4"), "{old:?}");
        let mut new = Vec::new();
        for _ in 0..4 {
            let chunk = reader.read(log.head().position, ReadLimits::default()).expect("the log is whole");
            new.extend(chunk.runs.iter().flat_map(records_of));
        }
        assert!(values(&new).contains(&"3") && !values(&new).contains(&"1"), "it goes on where it was: {new:?}");
    }
}

fn limits(subject: &mut dyn Subject) {
    let log = subject.log();
    fill(&*log);
    let end = log.head().position;
    let selections = [topics(&["e", "r"], 0), topics(&["e"], 0), partition("e", 0, 2), partition("r", 1, 0), from_version("e", "s1", 3)];
    for selection in selections {
        let whole = read(&*log, selection.clone());
        for limits in [
            ReadLimits { records: 1, bytes: 1 << 20 },
            ReadLimits { records: 5, bytes: 1 << 20 },
            ReadLimits { records: 8192, bytes: 1 },
            ReadLimits { records: 0, bytes: 0 },
        ] {
            let mut reader = log.reader(selection.clone()).expect("in range");
            let mut found = Vec::new();
            loop {
                let chunk = reader.read(end, limits).expect("the log is whole");
                let count: u32 = chunk.runs.iter().map(|run| run.count).sum();
                assert!(count <= limits.records.max(1), "{count} records for {limits:?}");
                found.extend(chunk.runs.iter().flat_map(records_of));
                let below = whole.iter().filter(|record| record.position < chunk.scanned_to).count();
                assert!(found.len() >= below, "{selection:?} {limits:?} claims to be at {} too early", chunk.scanned_to);
                if chunk.runs.is_empty() {
                    break;
                }
            }
            assert_same(&found, &whole, &format!("{selection:?} {limits:?}"));
        }
    }
}

fn out_of_range(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "e", TopicKind::Events, 1);
    create(&*log, "r", TopicKind::Records, 1);
    put(&*log, writes([events_of("e", "a", &["1", "2"])]));
    match log.reader(partition("e", 0, 3)).map(drop) {
        Err(LogError::OffsetOutOfRange { asked, first, end, .. }) => {
            assert_eq!((asked, first, end), (Offset::new(3), Offset::new(0), Offset::new(2)));
        }
        other => panic!("offset 3 does not exist: {other:?}"),
    }
    assert!(matches!(log.reader(partition("e", 1, 0)).map(drop), Err(LogError::UnknownPartition { .. })));
    assert!(matches!(log.reader(partition("none", 0, 0)).map(drop), Err(LogError::UnknownTopic { .. })));
    assert!(matches!(log.reader(topics(&["e", "none"], 0)).map(drop), Err(LogError::UnknownTopic { .. })));
    assert!(matches!(log.reader(from_version("r", "a", 1)).map(drop), Err(LogError::WrongKind { .. })));
    if log.capabilities().commit_order {
        for selection in [Selection::All(Position::new(3)), topics(&["e"], 3)] {
            match log.reader(selection).map(drop) {
                Err(LogError::PositionOutOfRange { asked, end }) => assert_eq!((asked.get(), end.get()), (3, 2)),
                other => panic!("position 3 does not exist: {other:?}"),
            }
        }
    }
}
