//! Reads backwards, and reads that begin at a time.

use super::{reads::fill, *};

pub(super) const CASES: &[Case] = &[
    Case { name: "partitions and streams are read backwards from any place", needs: Needs::Nothing, run: parts },
    Case { name: "several topics are read backwards in order of position", needs: Needs::Order, run: merged },
    Case { name: "backwards the end is where it was captured", needs: Needs::Order, run: captured_end },
    Case { name: "limits cut what is read backwards and lose nothing", needs: Needs::Nothing, run: limits },
    Case { name: "a backward start out of range is refused", needs: Needs::Nothing, run: out_of_range },
    Case { name: "a time is a place in every selection", needs: Needs::ServerTime, run: times },
];

/// What lies before a place, the newest first.
fn back(log: &dyn LogBackend, selection: Selection) -> Vec<Read> {
    read_back(log, selection, log.head().position, ReadLimits::default())
}

/// `records[..end]`, the newest first.
fn reversed(records: &[Read], end: usize) -> Vec<Read> {
    records[..end.min(records.len())].iter().rev().cloned().collect()
}

fn parts(subject: &mut dyn Subject) {
    let log = subject.log();
    fill(&*log);
    for (topic, count) in [("e", 3), ("r", 2)] {
        for number in 0..count {
            let all = read(&*log, partition(topic, number, 0));
            for end in [0, all.len().min(1), all.len() / 2, all.len().saturating_sub(1), all.len()] {
                let found = back(&*log, partition(topic, number, end as u64));
                assert_same(&found, &reversed(&all, end), &format!("{topic} {number} from {end}"));
                assert_eq!(found.len(), end);
            }
        }
    }
    for id in ["s1", "s2", "s3"] {
        let all = read(&*log, from_version("e", id, 1));
        for end in [0, 1, all.len() / 2, all.len(), all.len() + 1, all.len() + 9] {
            let found = back(&*log, from_version("e", id, end as u64 + 1));
            assert_same(&found, &reversed(&all, end), &format!("{id} from {end}"));
            assert_eq!(found.len(), end.min(all.len()), "a place past the end of a stream is its end");
        }
        assert!(back(&*log, from_version("e", id, 0)).is_empty(), "nothing lies before the first");
    }
    assert!(back(&*log, from_version("e", "nobody", 1)).is_empty() && back(&*log, from_version("e", "nobody", 7)).is_empty());
}

fn merged(subject: &mut dyn Subject) {
    let log = subject.log();
    let answers = fill(&*log);
    let all = read(&*log, Selection::All(Position::new(0)));
    let of_e = all.iter().filter(|record| record.topic == "e").cloned().collect::<Vec<_>>();
    let places = answers.iter().step_by(7).map(|answer| answer.first).chain([Position::new(0), Position::new(1), log.head().position]);
    for place in places {
        let end = usize::try_from(place.get()).expect("small");
        assert_same(&back(&*log, Selection::All(place)), &reversed(&all, end), "everything");
        assert_eq!(back(&*log, topics(&["r", "e"], place.get())).len(), end);
        let of_topic = of_e.partition_point(|record| record.position < place);
        assert_eq!(back(&*log, topics(&["e"], place.get())), reversed(&of_e, of_topic), "one topic from {place}");
    }
    create(&*log, "_foldlog.test", TopicKind::Events, 1);
    put(&*log, writes([events_of("_foldlog.test", "a", &["2"])]));
    assert_eq!(back(&*log, Selection::All(log.head().position)).len(), all.len(), "without foldlog's own topics");
    assert_eq!(values(&back(&*log, topics(&["_foldlog.test"], log.head().position.get()))), ["2"], "by name they are read");
}

fn captured_end(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "e", TopicKind::Events, 1);
    put(&*log, writes([events_of("e", "a", &["1", "2"])]));
    let captured = log.head().position;
    put(&*log, writes([events_of("e", "a", &["3"]), events_of("e", "b", &["4"])]));
    let end = log.head().position.get();
    for selection in [partition("e", 0, end), from_version("e", "a", 9), topics(&["e"], end), Selection::All(Position::new(end))] {
        let mut reader = log.backward_reader(selection.clone()).expect("in range");
        put(&*log, writes([events_of("e", "a", &["5"])]));
        let chunk = reader.read(captured, ReadLimits::default()).expect("the log is whole");
        let found: Vec<_> = chunk.runs.iter().flat_map(|run| records_of(run).into_iter().rev()).collect();
        assert_eq!(values(&found), ["2", "1"], "{selection:?}");
        let rest = reader.read(captured, ReadLimits::default()).expect("the log is whole");
        assert!(rest.runs.is_empty() && rest.scanned_to == Position::new(0), "{selection:?}");
    }
}

fn limits(subject: &mut dyn Subject) {
    let log = subject.log();
    fill(&*log);
    let until = log.head().position;
    let end_of = |topic: &str, number: u32| log.ends(&name(topic)).expect("it exists")[number as usize].get();
    let home = PartitionId::for_key(b"s1", 3).get();
    let mut selections = vec![partition("r", 1, end_of("r", 1)), from_version("e", "s1", 9), partition("e", home, end_of("e", home) - 1)];
    if log.capabilities().commit_order {
        selections.extend([topics(&["e", "r"], until.get()), topics(&["e"], until.get() - 3)]);
    }
    for selection in selections {
        let whole = back(&*log, selection.clone());
        assert!(whole.len() > 4, "{selection:?}");
        for (records, bytes) in [(1, 1 << 20), (5, 1 << 20), (8192, 1), (0, 0)] {
            let found = read_back(&*log, selection.clone(), until, ReadLimits { records, bytes });
            assert_same(&found, &whole, &format!("{selection:?}, {records} records, {bytes} bytes"));
            assert_eq!(found.len(), whole.len());
        }
    }
}

fn out_of_range(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "e", TopicKind::Events, 1);
    create(&*log, "r", TopicKind::Records, 1);
    put(&*log, writes([events_of("e", "a", &["1", "2"])]));
    let refused = |selection: Selection| log.backward_reader(selection).map(drop).expect_err("it does not exist");
    assert!(matches!(refused(partition("e", 0, 3)), LogError::OffsetOutOfRange { .. }));
    assert!(matches!(refused(partition("e", 1, 0)), LogError::UnknownPartition { .. }));
    assert!(matches!(refused(partition("none", 0, 0)), LogError::UnknownTopic { .. }));
    assert!(matches!(refused(from_version("r", "a", 1)), LogError::WrongKind { .. }));
    if log.capabilities().commit_order {
        assert!(matches!(refused(topics(&["e"], 3)), LogError::PositionOutOfRange { .. }));
        assert!(matches!(refused(topics(&["none"], 0)), LogError::UnknownTopic { .. }));
    }
}

fn times(subject: &mut dyn Subject) {
    let log = subject.log();
    fill(&*log);
    let end = log.head().position;
    let all = read(&*log, Selection::All(Position::new(0)));
    assert!(all.windows(2).all(|two| two[0].recorded_at <= two[1].recorded_at), "server time does not step back");
    let stamps = all.iter().map(|record| record.recorded_at.get()).collect::<std::collections::BTreeSet<_>>();
    let around = stamps.iter().flat_map(|stamp| [stamp - 1, *stamp, stamp + 1]);
    for time in around.chain([i64::MIN, i64::MAX]).map(Timestamp::new) {
        // The place given plays no part.
        for selection in
            [partition("e", 0, 99), from_version("e", "s1", 99), from_version("e", "s2", 1), topics(&["r"], 9999), Selection::All(end)]
        {
            let place = log.at_time(selection.clone(), time).expect("the log is whole");
            let newer = read(&*log, place.clone());
            let older = back(&*log, place);
            assert!(newer.iter().all(|record| record.recorded_at >= time), "{selection:?} from {time:?}");
            assert!(older.iter().all(|record| record.recorded_at < time), "{selection:?} from {time:?}");
            let whole = match selection {
                Selection::Partition(..) => read(&*log, partition("e", 0, 0)),
                Selection::Stream(_, id, _) => read(&*log, from_version("e", id.as_str(), 1)),
                Selection::Topics(..) => read(&*log, topics(&["r"], 0)),
                Selection::All(_) => all.clone(),
            };
            assert_eq!(older.iter().rev().chain(&newer).collect::<Vec<_>>(), whole.iter().collect::<Vec<_>>(), "each is on one side");
        }
    }
    assert!(matches!(log.at_time(topics(&["none"], 0), Timestamp::new(0)), Err(LogError::UnknownTopic { .. })));
    assert!(matches!(log.at_time(from_version("r", "a", 1), Timestamp::new(0)), Err(LogError::WrongKind { .. })));
    assert!(matches!(log.at_time(partition("r", 2, 0), Timestamp::new(0)), Err(LogError::UnknownPartition { .. })));
}
