//! Filtered reads: what matches comes in order, in both directions, and nothing else.

use super::{
    queries::{item, parsed},
    *,
};
use crate::record::{EventQuery, QueryItem};

pub(super) const CASES: &[Case] = &[
    Case { name: "a filtered read returns what matches in every selection", needs: Needs::Order, run: every_selection },
    Case { name: "a filtered read tells how far it has come where nothing matches", needs: Needs::Order, run: progress },
    Case { name: "a filter sees what is appended while it reads", needs: Needs::Order, run: live },
    Case { name: "a filter that cannot be meant is refused", needs: Needs::Order, run: malformed },
    Case { name: "a filtered read returns the same after a restart", needs: Needs::Restart, run: after_a_restart },
];

/// Type and tags of the event with a number, which is its payload, too.
fn numbered(number: u64) -> NewEvent {
    let mut tags = vec![format!("tens{}", number / 10)];
    tags.extend((number.is_multiple_of(3)).then(|| "third".to_owned()));
    tags.extend((number % 500 == 17).then(|| "rare".to_owned()));
    // Thick for a while, then never again.
    tags.extend((1000..1300).contains(&number).then(|| "once".to_owned()));
    let tags = tags.iter().map(|tag| tag.parse().expect("a valid tag")).collect();
    NewEvent { kind: ["A", "B"][usize::from(number.is_multiple_of(4))].into(), tags, ..event(number.to_string()) }
}

/// Events of both topics and several streams, with records between them that are none. Returns how many events.
fn fill(log: &dyn LogBackend, numbers: std::ops::Range<u64>) {
    for first in numbers.clone().step_by(50) {
        let all = first..(first + 50).min(numbers.end);
        let write = |residue: u64| Write::Stream {
            topic: name(if residue == 4 { "f" } else { "e" }),
            stream: stream(&format!("s{residue}")),
            events: all.clone().filter(|number| number % 5 == residue).map(numbered).collect(),
        };
        put(log, writes((0..5).map(write).collect::<Vec<_>>()));
        put(log, writes([Write::Records { topic: name("r"), partition: None, records: vec![record("k", "A"), record("k", "third")] }]));
    }
}

fn start(log: &dyn LogBackend) {
    create(log, "e", TopicKind::Events, 3);
    create(log, "f", TopicKind::Events, 1);
    create(log, "r", TopicKind::Records, 1);
    fill(log, 0..3000);
}

type Matches = fn(u64, &NewEvent) -> bool;

/// Queries, and which events they mean, said in another way.
fn asked() -> Vec<(EventQuery, Matches)> {
    fn has(event: &NewEvent, tag: &str) -> bool {
        event.tags.iter().any(|own| own.as_str() == tag)
    }
    let of = |items: &[QueryItem]| EventQuery::Items(items.to_vec());
    vec![
        (EventQuery::All, |_, _| true),
        (of(&[item(&[], &[])]), |_, _| true),
        (of(&[item(&["A"], &[])]), |_, event| *event.kind == *"A"),
        (of(&[item(&["C"], &[])]), |_, _| false),
        (of(&[item(&[], &["rare"])]), |number, _| number % 500 == 17),
        (of(&[item(&["B"], &["rare"])]), |_, event| *event.kind == *"B" && has(event, "rare")),
        (of(&[item(&["A", "C"], &["third", "tens7"])]), |number, event| *event.kind == *"A" && has(event, "third") && number / 10 == 7),
        (of(&[item(&[], &["once"])]), |_, event| has(event, "once")),
        (of(&[item(&["B"], &["once"]), item(&[], &["rare"])]), |_, event| *event.kind == *"B" && has(event, "once") || has(event, "rare")),
        (of(&[item(&[], &["tens4"]), item(&[], &["tens299"]), item(&[], &["never"])]), |number, _| [4, 299].contains(&(number / 10))),
    ]
}

fn is_meant(matches: Matches, record: &Read) -> bool {
    let number = record.value.as_deref().filter(|_| record.version.is_some()).and_then(|value| value.parse().ok());
    number.is_some_and(|number| matches(number, &numbered(number)))
}

/// All that a filtered read returns down to the last record; what it tells on the way must lead there.
fn filtered(log: &dyn LogBackend, selection: &Selection, query: &EventQuery, backwards: bool, limits: ReadLimits) -> Vec<Read> {
    let until = log.head().position;
    let open = if backwards {
        log.filtered_backward_reader(selection.clone(), query.clone())
    } else {
        log.filtered_reader(selection.clone(), query.clone())
    };
    let mut reader = open.expect("the selection is in range");
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        let chunk = reader.read(until, limits).expect("the log is whole");
        let count: u32 = chunk.runs.iter().map(|run| run.count).sum();
        assert!(count <= limits.records, "{count} records for {limits:?}");
        for run in &chunk.runs {
            let mut records = records_of(run);
            if backwards {
                records.reverse();
            }
            found.extend(records);
        }
        let told = chunk.scanned_to;
        let last = found.last().map(|last: &Read| last.position);
        let is_told = if backwards { last.is_none_or(|last| told <= last) } else { last.is_none_or(|last| told > last) };
        assert!(is_told, "{told} says that {last:?} was not returned");
        let is_over = if backwards { told == Position::new(0) } else { told >= until };
        if is_over && count == 0 {
            return found;
        }
        let goes_on = before.is_none_or(|before| if backwards { told < before } else { told > before });
        assert!(count > 0 || goes_on, "an empty chunk that says nothing new: {before:?}, {told}");
        before = Some(told);
    }
}

fn check_all(log: &dyn LogBackend) {
    let all = [
        Selection::All(Position::new(0)),
        Selection::All(Position::new(1500)),
        topics(&["e"], 0),
        topics(&["f", "e"], 77),
        partition("e", 0, 0),
        partition("e", 1, 100),
        from_version("e", "s2", 1),
        from_version("e", "s2", 301),
    ];
    let many = ReadLimits::default();
    let few = ReadLimits { records: 3, bytes: 500 };
    for selection in all {
        let ahead = read(log, selection.clone());
        let behind = read_back(log, selection.clone(), log.head().position, many);
        for (query, matches) in asked() {
            for limits in [many, few] {
                for (unfiltered, backwards) in [(&ahead, false), (&behind, true)] {
                    let expected: Vec<_> = unfiltered.iter().filter(|record| is_meant(matches, record)).cloned().collect();
                    let found = filtered(log, &selection, &query, backwards, limits);
                    let what = format!("{query:?} of {selection:?}, {} {limits:?}", if backwards { "backwards" } else { "forwards" });
                    assert_same(&found, &expected, &what);
                    assert_eq!(found.len(), expected.len(), "{what}");
                }
            }
        }
    }
}

fn every_selection(subject: &mut dyn Subject) {
    let log = subject.log();
    start(&*log);
    check_all(&*log);
}

fn after_a_restart(subject: &mut dyn Subject) {
    start(&*subject.log());
    assert!(subject.restart());
    check_all(&*subject.log());
    fill(&*subject.log(), 3000..4100);
    check_all(&*subject.log());
}

fn progress(subject: &mut dyn Subject) {
    let log = subject.log();
    start(&*log);
    let end = log.head().position;
    for (tag, before) in [("never", 0), ("once", 1500)] {
        let query = EventQuery::Items(vec![item(&[], &[tag])]);
        let mut reader = log.filtered_reader(topics(&["e", "f"], before), query.clone()).expect("in range");
        let mut place = Position::new(before);
        while place < end {
            let chunk = reader.read(end, ReadLimits::default()).expect("the log is whole");
            assert!(chunk.runs.is_empty() && chunk.scanned_to > place, "nothing matches, and that is told");
            place = chunk.scanned_to;
        }
        let mut reader = log.filtered_backward_reader(topics(&["e", "f"], 1000), query).expect("in range");
        let mut place = Position::new(1000);
        while place > Position::new(0) {
            let chunk = reader.read(end, ReadLimits::default()).expect("the log is whole");
            assert!(chunk.runs.is_empty() && chunk.scanned_to < place, "nothing matches, and that is told");
            place = chunk.scanned_to;
        }
    }
}

fn live(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "e", TopicKind::Events, 2);
    let query = EventQuery::Items(vec![item(&["T"], &["mine"])]);
    let put_one = |topic: &str, tags: &[&str], number: u64| {
        let event = NewEvent { kind: "T".into(), tags: parsed(tags), ..event(number.to_string()) };
        put(&*log, writes([Write::Stream { topic: name(topic), stream: stream(&format!("s{}", number % 7)), events: vec![event] }]));
    };
    let mut readers = [Selection::All(Position::new(0)), topics(&["e"], 0), partition("e", 0, 0), partition("e", 1, 0)]
        .map(|selection| (log.filtered_reader(selection, query.clone()).expect("in range"), Vec::new()));
    for number in 0..300_u64 {
        if number == 150 {
            // Also topics that are made later are part of everything.
            create(&*log, "late", TopicKind::Events, 1);
        }
        let topic = if number > 150 && number.is_multiple_of(4) { "late" } else { "e" };
        put_one(topic, if number.is_multiple_of(3) { &["mine", "x"] } else { &["x"] }, number);
        if number.is_multiple_of(5) {
            let until = log.head().position;
            for (reader, found) in &mut readers {
                let mut place = Position::new(0);
                while place < until {
                    let chunk = reader.read(until, ReadLimits::default()).expect("the log is whole");
                    found.extend(chunk.runs.iter().flat_map(records_of).map(|record| (record.topic, record.value)));
                    place = chunk.scanned_to;
                }
            }
        }
    }
    let of = |number: u64| (if number > 150 && number.is_multiple_of(4) { "late" } else { "e" }.to_owned(), Some(number.to_string()));
    let expected: Vec<_> = (0..296_u64).filter(|number| number.is_multiple_of(3)).map(of).collect();
    let [everything, topic, mut first, second] = readers.map(|(_, found)| found);
    assert_eq!(everything, expected);
    assert!(topic.iter().eq(expected.iter().filter(|(topic, _)| topic == "e")));
    assert!(!first.is_empty() && !second.is_empty());
    first.extend(second);
    first.sort_by_key(|(_, value)| value.as_ref().and_then(|value| value.parse::<u64>().ok()));
    assert_eq!(first, topic, "both partitions together");
}

fn malformed(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "e", TopicKind::Events, 1);
    create(&*log, "r", TopicKind::Records, 1);
    put(&*log, writes([events_of("e", "s", &["1"])]));
    let everything = || Selection::All(Position::new(0));
    let of = |items: &[QueryItem]| EventQuery::Items(items.to_vec());
    let refused = [
        ("no item", everything(), of(&[])),
        ("a type without a name", everything(), of(&[item(&[""], &[])])),
        ("no topic", Selection::Topics(Vec::new(), Position::new(0)), EventQuery::All),
        ("an unknown topic", topics(&["e", "none"], 0), EventQuery::All),
        ("a topic without events", topics(&["e", "r"], 0), EventQuery::All),
        ("a partition without events", partition("r", 0, 0), EventQuery::All),
        ("a partition that does not exist", partition("e", 1, 0), EventQuery::All),
        ("a place beyond the end", Selection::All(Position::new(2)), EventQuery::All),
    ];
    for (what, selection, query) in refused {
        for opened in [log.filtered_reader(selection.clone(), query.clone()), log.filtered_backward_reader(selection, query)] {
            match opened.map(drop) {
                Err(
                    LogError::Invalid { .. }
                    | LogError::UnknownTopic { .. }
                    | LogError::WrongKind { .. }
                    | LogError::UnknownPartition { .. }
                    | LogError::PositionOutOfRange { .. },
                ) => {}
                other => panic!("{what} was not refused as such: {other:?}"),
            }
        }
    }
}
