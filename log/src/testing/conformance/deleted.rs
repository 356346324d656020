//! Topics deleted: nobody finds them any more, all others go on, and their names are free.

use super::*;
use crate::{backend::LogReader, record::EventQuery};

pub(super) const CASES: &[Case] = &[
    Case { name: "a deleted topic is gone and another one takes its name", needs: Needs::Nothing, run: gone },
    Case { name: "who reads a topic that is deleted is told, who reads everything goes on", needs: Needs::Order, run: readers },
    Case { name: "a topic that somebody holds is not deleted", needs: Needs::Order, run: held },
    Case { name: "a deleted topic stays deleted after restarts", needs: Needs::Restart, run: restarts },
];

fn is_unknown<T>(result: Result<T, LogError>) -> bool {
    matches!(result, Err(LogError::UnknownTopic { topic }) if topic.as_str() == "gone")
}

fn fill(log: &dyn LogBackend, topic: &str, count: u64) {
    for number in 0..count {
        put(log, writes([events_of(topic, &format!("s{}", number % 3), &[&format!("{topic} {number} {}", "x".repeat(200))])]));
    }
}

fn gone(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "gone", TopicKind::Events, 2);
    create(&*log, "kept", TopicKind::Events, 2);
    assert!(matches!(log.delete_topic(&name("none")), Err(LogError::UnknownTopic { .. })));
    let first = log.topic(&name("gone")).expect("it exists");
    fill(&*log, "gone", 9);
    fill(&*log, "kept", 9);
    put(&*log, writes([events_of("gone", "s0", &["both"]), events_of("kept", "s0", &["both"])]));
    log.delete_topic(&name("gone")).expect("nobody needs it");
    let names = |log: &dyn LogBackend| {
        log.topics().iter().map(|topic| topic.name.to_string()).filter(|name| !name.starts_with('_')).collect::<Vec<_>>()
    };
    assert_eq!(names(&*log), ["kept"]);
    assert!(is_unknown(log.topic(&name("gone"))) && is_unknown(log.delete_topic(&name("gone"))));
    assert!(is_unknown(log.ends(&name("gone"))) && is_unknown(log.stream_head(&name("gone"), &stream("s0"))));
    assert!(is_unknown(append(&*log, writes([events_of("gone", "s0", &["no"])]))));
    let belief = Append { preconditions: vec![expect("gone", "s0", Expected::Exists)], ..writes([events_of("kept", "s9", &["no"])]) };
    assert!(is_unknown(append(&*log, belief)));
    for selection in [partition("gone", 0, 0), from_version("gone", "s0", 1), topics(&["kept", "gone"], 0)] {
        assert!(is_unknown(log.reader(selection.clone())) && is_unknown(log.backward_reader(selection)));
    }
    assert_eq!(read(&*log, topics(&["kept"], 0)).len(), 10);

    // The name is free, and nothing is left of what had it.
    create(&*log, "gone", TopicKind::Events, 3);
    assert_ne!(log.topic(&name("gone")).expect("it is new").id, first.id);
    assert_eq!(log.ends(&name("gone")).expect("it is new"), [Offset::new(0); 3]);
    assert_eq!(log.stream_head(&name("gone"), &stream("s0")).expect("it has streams"), StreamHead::Absent);
    assert_eq!(read(&*log, from_version("gone", "s0", 1)), []);
    let again = put(&*log, writes([events_of("gone", "s0", &["anew"])]));
    assert_eq!(again.versions[0].version, StreamVersion::FIRST);
    assert_eq!(values(&read(&*log, topics(&["gone"], 0))), ["anew"]);
    log.delete_topic(&name("gone")).expect("nobody needs it");
    assert_eq!(names(&*log), ["kept"]);
}

fn readers(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "gone", TopicKind::Events, 2);
    create(&*log, "kept", TopicKind::Events, 2);
    for _ in 0..10 {
        fill(&*log, "gone", 5);
        fill(&*log, "kept", 5);
    }
    let few = ReadLimits { records: 3, bytes: 1 << 20 };
    let of_gone = [partition("gone", 0, 0), from_version("gone", "s0", 1), topics(&["kept", "gone"], 0)];
    let mut told: Vec<_> = of_gone.iter().cloned().map(|selection| log.reader(selection).expect("it exists")).collect();
    told.push(log.backward_reader(topics(&["gone"], 100)).expect("it exists"));
    told.push(log.filtered_reader(topics(&["gone"], 0), EventQuery::All).expect("it exists"));
    let mut all = log.reader(Selection::All(Position::new(0))).expect("it exists");
    let mut back = log.backward_reader(Selection::All(Position::new(100))).expect("it exists");
    let until = log.head().position;
    for reader in told.iter_mut().chain([&mut all]) {
        assert!(!reader.read(until, few).expect("the log is whole").runs.is_empty());
    }
    let had: u32 = back.read(until, few).expect("the log is whole").runs.iter().map(|run| run.count).sum();
    assert!((1..4).contains(&had));
    log.delete_topic(&name("gone")).expect("nobody needs it");
    for reader in &mut told {
        assert!(is_unknown(reader.read(until, few)));
    }
    let rest = |reader: &mut Box<dyn LogReader>| {
        let mut found = 0;
        loop {
            let chunk = reader.read(until, few).expect("the log is whole");
            if chunk.runs.is_empty() {
                return found;
            }
            assert!(chunk.runs.iter().all(|run| run.topic.name.as_str() == "kept"), "nothing of it comes any more");
            found += chunk.runs.iter().map(|run| run.count).sum::<u32>();
        }
    };
    // The first three were of the other topic; backwards, of this one.
    assert_eq!((rest(&mut all), rest(&mut back) + had), (50, 50));
    create(&*log, "gone", TopicKind::Events, 2);
    for reader in &mut told {
        assert!(is_unknown(reader.read(until, few)), "another topic of its name is not gone on with");
    }
    fill(&*log, "gone", 3);
    assert_eq!(read(&*log, Selection::All(Position::new(0))).len(), 53);
    let matching = log.filtered_reader(Selection::All(Position::new(0)), EventQuery::All).expect("it exists");
    assert_eq!(count(matching, log.head().position), 53);
    assert_eq!(count(log.backward_reader(Selection::All(log.head().position)).expect("it exists"), log.head().position), 53);
}

fn count(mut reader: Box<dyn LogReader>, until: Position) -> u32 {
    let mut found = 0;
    loop {
        let chunk = reader.read(until, ReadLimits::default()).expect("the log is whole");
        let count: u32 = chunk.runs.iter().map(|run| run.count).sum();
        found += count;
        if count == 0 && (chunk.scanned_to >= until || chunk.scanned_to == Position::new(0)) {
            return found;
        }
    }
}

fn held(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "gone", TopicKind::Events, 2);
    log.hold("query-1", &name("gone"), Position::new(0)).expect("it exists");
    log.hold("query-2", &name("gone"), Position::new(0)).expect("it exists");
    match log.delete_topic(&name("gone")) {
        Err(LogError::TopicInUse { owners, .. }) => assert_eq!(owners, ["query-1", "query-2"]),
        other => panic!("{other:?}"),
    }
    log.release("query-1");
    assert!(matches!(log.delete_topic(&name("gone")), Err(LogError::TopicInUse { .. })));
    log.release("query-2");
    log.delete_topic(&name("gone")).expect("nobody needs it");
    assert!(is_unknown(log.hold("query-1", &name("gone"), Position::new(0))));
}

fn restarts(subject: &mut dyn Subject) {
    for round in 0..4 {
        let log = subject.log();
        create(&*log, "gone", TopicKind::Events, 2);
        if round == 0 {
            create(&*log, "kept", TopicKind::Events, 2);
        }
        fill(&*log, "gone", 30);
        fill(&*log, "kept", 30);
        log.delete_topic(&name("gone")).expect("nobody needs it");
        if round % 2 == 0 {
            fill(&*log, "kept", 10);
        }
        let before = (log.topics(), log.head(), read(&*log, Selection::All(Position::new(0))));
        drop(log);
        assert!(subject.restart());
        let log = subject.log();
        assert!((log.topics(), log.head(), read(&*log, Selection::All(Position::new(0)))) == before, "round {round}");
        assert!(is_unknown(log.topic(&name("gone"))));
    }
}
