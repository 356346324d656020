//! Query conditions: which events they are about, since when, and what a violated one says.

use super::*;
use crate::{
    durability::Durability,
    ids::Tag,
    record::{EventQuery, QueryAbsent, QueryItem, Scope},
};

pub(super) const CASES: &[Case] = &[
    Case { name: "a query condition is about types and tags", needs: Needs::AtomicFolder, run: types_and_tags },
    Case { name: "a query condition counts what came after its position", needs: Needs::AtomicFolder, run: after_a_position },
    Case { name: "a query condition reaches as far as it says", needs: Needs::AtomicFolder, run: scopes },
    Case { name: "a query condition sees the units before it", needs: Needs::AtomicFolder, run: units_before },
    Case { name: "a query condition that cannot be meant is refused", needs: Needs::AtomicFolder, run: malformed },
    Case { name: "a query condition judges the same after a restart", needs: Needs::Restart, run: after_a_restart },
];

fn tagged(topic: &str, kind: &str, tags: &[&str]) -> Append {
    let event = NewEvent { kind: kind.into(), tags: parsed(tags), ..NewEvent::default() };
    // Each type has a stream of its own, so that events lie in several partitions.
    writes([Write::Stream { topic: name(topic), stream: stream(kind), events: vec![event] }])
}

pub(super) fn parsed(tags: &[&str]) -> Vec<Tag> {
    tags.iter().map(|tag| tag.parse().expect("a valid tag")).collect()
}

pub(super) fn item(types: &[&str], tags: &[&str]) -> QueryItem {
    QueryItem { types: types.iter().map(|kind| (*kind).into()).collect(), tags: parsed(tags) }
}

fn absent(scope: &[&str], items: &[QueryItem], after: Option<u64>) -> Precondition {
    let scope = if scope.is_empty() { Scope::Everything } else { Scope::Topics(scope.iter().map(|topic| name(topic)).collect()) };
    let query = if items.is_empty() { EventQuery::All } else { EventQuery::Items(items.to_vec()) };
    Precondition::QueryAbsent(QueryAbsent { scope, query, after: after.map(Position::new) })
}

/// The first event that violates each condition, with the condition's place; writes nothing.
fn violated(log: &dyn LogBackend, preconditions: Vec<Precondition>) -> Vec<(usize, u64)> {
    match append(log, Append { preconditions, ..Append::default() }) {
        Ok(_) => Vec::new(),
        Err(LogError::Conflict { violations, seen }) => {
            assert!(seen <= log.head().position, "a verdict rests on what is durable");
            violations.iter().map(|violation| (violation.index, first(violation))).collect()
        }
        Err(error) => panic!("{error}"),
    }
}

fn first(violation: &Violation) -> u64 {
    let Found::Event { first } = violation.found else { panic!("not about a query: {violation:?}") };
    first.get()
}

fn types_and_tags(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "e", TopicKind::Events, 4);
    for (kind, tags) in [("A", &["x"][..]), ("B", &["x", "y"]), ("A", &["y"]), ("C", &[]), ("A", &["x", "y"])] {
        put(&*log, tagged("e", kind, tags));
    }
    let asked = |items: &[QueryItem]| violated(&*log, vec![absent(&["e"], items, None)]).first().map(|(_, first)| *first);
    assert_eq!(asked(&[]), Some(0), "every event");
    for (types, tags, expected) in [
        (&["A"][..], &[][..], Some(0)),
        (&["C"], &[], Some(3)),
        (&["D"], &[], None),
        (&["C", "B"], &[], Some(1)),
        (&[], &["y"], Some(1)),
        (&[], &["x", "y"], Some(1)),
        (&[], &["z"], None),
        (&[], &["x", "z"], None),
        (&["A"], &["y"], Some(2)),
        (&["A"], &["x", "y"], Some(4)),
        (&["C"], &["x"], None),
        (&["C", "A"], &["y", "x"], Some(4)),
        (&["D", "B"], &["y"], Some(1)),
    ] {
        assert_eq!(asked(&[item(types, tags)]), expected, "types {types:?}, tags {tags:?}");
    }
    assert_eq!(asked(&[item(&["D"], &[]), item(&["A"], &["y"]), item(&["C"], &[])]), Some(2), "any of the items");
    assert_eq!(asked(&[item(&[], &[])]), Some(0), "an item that asks for nothing is every event");
    // Among others, and all of them are reported.
    let several = vec![
        absent(&["e"], &[item(&["C"], &[])], None),
        expect("e", "A", Expected::Exists),
        absent(&["e"], &[item(&["D"], &[])], None),
        absent(&["e"], &[item(&[], &["y"])], Some(2)),
    ];
    assert_eq!(violated(&*log, several), [(0, 3), (3, 4)]);
    let mixed = vec![absent(&["e"], &[item(&["D"], &[])], None), expect("e", "A", Expected::Absent)];
    let Err(LogError::Conflict { violations, .. }) = append(&*log, Append { preconditions: mixed, ..Append::default() }) else {
        panic!("the stream has events")
    };
    assert_eq!((violations.len(), stands(&violations[0]).0), (1, "A"));
}

fn after_a_position(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "e", TopicKind::Events, 3);
    for number in 0..20 {
        put(&*log, tagged("e", "A", if number % 5 == 0 { &["x"] } else { &[] }));
    }
    let asked = |items: &[QueryItem], after| violated(&*log, vec![absent(&["e"], items, after)]).first().map(|(_, first)| *first);
    let x = [item(&[], &["x"])];
    let found = [None, Some(0), Some(4), Some(5), Some(14), Some(15), Some(19)].map(|after| asked(&x, after));
    assert_eq!(found, [Some(0), Some(5), Some(5), Some(10), Some(15), None, None]);
    assert_eq!([Some(18), Some(19)].map(|after| asked(&[], after)), [Some(19), None]);
    let guarded = Append { preconditions: vec![absent(&["e"], &x, Some(15))], ..tagged("e", "A", &["x"]) };
    assert_eq!(put(&*log, guarded.clone()).first.get(), 20);
    match append(&*log, guarded) {
        Err(LogError::Conflict { violations, .. }) => assert_eq!(first(&violations[0]), 20, "it was beaten by itself"),
        other => panic!("its own event matches: {other:?}"),
    }
    // Who is answered before the sync knows of positions that nobody can read yet.
    let written = put(&*log, Append { durability: Some(Durability::Written), ..tagged("e", "A", &["x"]) });
    assert_eq!(written.first.get(), 21);
    put(&*log, Append { preconditions: vec![absent(&["e"], &x, Some(21))], ..tagged("e", "A", &[]) });
    for beyond in [23, 24, u64::MAX] {
        match append(&*log, Append { preconditions: vec![absent(&["e"], &x, Some(beyond))], ..tagged("e", "A", &[]) }) {
            Err(LogError::PositionOutOfRange { asked, end }) => assert_eq!((asked.get(), end.get()), (beyond, 23)),
            other => panic!("nobody can have read position {beyond}: {other:?}"),
        }
    }
}

fn scopes(subject: &mut dyn Subject) {
    let log = subject.log();
    for topic in ["a", "b", "_foldlog.own"] {
        create(&*log, topic, TopicKind::Events, 2);
    }
    create(&*log, "r", TopicKind::Records, 1);
    put(&*log, writes([Write::Records { topic: name("r"), partition: None, records: vec![record("k", "v")] }]));
    put(&*log, tagged("_foldlog.own", "T", &["x"]));
    let x = [item(&["T"], &["x"])];
    assert_eq!(violated(&*log, vec![absent(&[], &x, None), absent(&[], &[], None)]), [], "neither records nor foldlog's own");
    put(&*log, tagged("b", "T", &["x"]));
    let ask = || vec![absent(&["a"], &x, None), absent(&["b"], &x, None), absent(&["a", "b"], &x, None), absent(&[], &x, None)];
    assert_eq!(violated(&*log, ask()), [(1, 2), (2, 2), (3, 2)]);
    // Also topics that are made later.
    create(&*log, "c", TopicKind::Events, 1);
    let before = absent(&[], &x, Some(2));
    assert_eq!(violated(&*log, vec![before.clone()]), []);
    put(&*log, tagged("c", "T", &["x"]));
    assert_eq!(violated(&*log, vec![before, absent(&["a", "b"], &x, Some(2))]), [(0, 3)]);
}

fn units_before(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "e", TopicKind::Events, 2);
    // In line together: each is judged behind those before it, durable or not.
    let claim = |tag: &str| Append { preconditions: vec![absent(&["e"], &[item(&[], &[tag])], None)], ..tagged("e", "Claimed", &[tag]) };
    let futures = ["a", "b", "a", "a", "b", "c"].map(|tag| log.append(claim(tag)).expect("there is room"));
    let answers = futures.map(block_on);
    let won = answers.iter().map(Result::is_ok).collect::<Vec<_>>();
    assert_eq!(won, [true, true, false, false, false, true]);
    for (place, of) in [(2, 0), (3, 0), (4, 1)] {
        let Err(LogError::Conflict { violations, .. }) = &answers[place] else { panic!("it lost") };
        assert_eq!(first(&violations[0]), of);
    }
}

fn malformed(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "e", TopicKind::Events, 1);
    create(&*log, "r", TopicKind::Records, 1);
    let of = |scope: Scope, items: Vec<QueryItem>| {
        Precondition::QueryAbsent(QueryAbsent { scope, query: EventQuery::Items(items), after: None })
    };
    let e = || Scope::Topics(vec![name("e")]);
    let refused = [
        ("no item", of(e(), Vec::new())),
        ("no topic", of(Scope::Topics(Vec::new()), vec![item(&["T"], &[])])),
        ("an unknown topic", absent(&["e", "none"], &[], None)),
        ("a topic without events", absent(&["r"], &[], None)),
        ("a type without a name", of(e(), vec![item(&[""], &[])])),
        ("a type with too long a name", of(e(), vec![item(&[&"t".repeat(256)], &[])])),
    ];
    for (what, condition) in refused {
        match append(&*log, Append { preconditions: vec![condition], ..tagged("e", "T", &[]) }) {
            Err(LogError::Invalid { .. } | LogError::UnknownTopic { .. } | LogError::WrongKind { .. }) => {}
            other => panic!("{what} was not refused as such: {other:?}"),
        }
    }
    assert_eq!(log.head().position, Position::new(0));
}

fn after_a_restart(subject: &mut dyn Subject) {
    create(&*subject.log(), "e", TopicKind::Events, 3);
    for round in 0..4_u64 {
        let log = subject.log();
        for number in round * 50..(round + 1) * 50 {
            put(&*log, tagged("e", if number % 2 == 0 { "A" } else { "B" }, &[&format!("n{number}"), "all"]));
        }
        assert!(subject.restart());
        let log = subject.log();
        let end = (round + 1) * 50;
        for number in (0..end).step_by(7) {
            let kind = if number % 2 == 0 { "A" } else { "B" };
            let (own, other) = (format!("n{number}"), if kind == "A" { "B" } else { "A" });
            let ask = vec![
                absent(&["e"], &[item(&[], &[&own])], None),
                absent(&["e"], &[item(&[kind], &["all", &own])], number.checked_sub(1)),
                absent(&["e"], &[item(&[other], &[&own])], None),
                absent(&[], &[item(&[], &[&own])], Some(number)),
                absent(&["e"], &[item(&[], &["all"])], number.checked_sub(1)),
            ];
            assert_eq!(violated(&*log, ask), [(0, number), (1, number), (4, number)]);
        }
        assert_eq!(violated(&*log, vec![absent(&["e"], &[], Some(end - 1)), absent(&["e"], &[item(&["A"], &[])], Some(end - 2))]), []);
    }
}
