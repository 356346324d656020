//! Several threads at once: one winner, whole units for every reader, from catching up to live without gap or duplicate.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use super::*;

pub(super) const CASES: &[Case] = &[
    Case { name: "of racing appends with one belief exactly one wins", needs: Needs::Nothing, run: one_winner },
    Case { name: "every reader sees whole units", needs: Needs::AtomicFolder, run: whole_units },
    Case { name: "subscriptions catch up and go live without gap or duplicate", needs: Needs::Order, run: subscriptions },
];

fn one_winner(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "e", TopicKind::Events, 1);
    for round in 1..=5_u64 {
        let expected = if round == 1 { Expected::Absent } else { Expected::Version(StreamVersion::new(round - 1)) };
        let race = |racer: u32| {
            let one =
                Append { preconditions: vec![expect("e", "s", expected)], ..writes([events_of("e", "s", &[&format!("{round}.{racer}")])]) };
            append(&*log, one)
        };
        let results = std::thread::scope(|scope| {
            let racers = (0..8).map(|racer| scope.spawn(move || race(racer))).collect::<Vec<_>>();
            racers.into_iter().map(|racer| racer.join().expect("it does not panic")).collect::<Vec<_>>()
        });
        let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1, "round {round}");
        for result in lost {
            let Err(LogError::Conflict { violations, seen }) = result else { panic!("not a conflict: {result:?}") };
            assert_eq!(stands(&violations[0]).1.to_string(), format!("at version {round}"));
            assert!(seen <= log.head().position, "the event that beat it is durable");
        }
    }
    assert_eq!(read(&*log, from_version("e", "s", 1)).len(), 5);
}

const UNITS: u64 = 300;

/// Each unit writes its number to three topics.
fn write_units(log: &dyn LogBackend) {
    let mut waiting = Vec::new();
    for number in 0..UNITS {
        let data = number.to_string();
        let id = format!("s{}", number % 5);
        let plain = Write::Records { topic: name("c"), partition: None, records: vec![record(&data, &data)] };
        let unit = writes([events_of("a", &id, &[&data]), plain, events_of("b", &id, &[&data])]);
        waiting.push(log.append(unit).expect("there is room"));
        if number % 16 == 0 {
            waiting.drain(..).for_each(|future| drop(block_on(future).expect("nothing speaks against it")));
        }
    }
    waiting.into_iter().for_each(|future| drop(block_on(future).expect("nothing speaks against it")));
}

fn create_three(log: &dyn LogBackend) {
    create(log, "a", TopicKind::Events, 3);
    create(log, "b", TopicKind::Events, 2);
    create(log, "c", TopicKind::Records, 2);
}

fn whole_units(subject: &mut dyn Subject) {
    let log = subject.log();
    create_three(&*log);
    let is_done = AtomicBool::new(false);
    let check = || {
        let head = log.head().position;
        let of = |selection| read_until(&*log, selection, head, ReadLimits::default());
        let all = of(topics(&["a", "b", "c"], 0));
        assert_eq!(all.len() as u64, head.get(), "everything below the end can be read");
        for (place, unit) in all.chunks(3).enumerate() {
            let is_whole = unit.len() == 3 && unit.iter().all(|record| record.value == Some(place.to_string()));
            assert!(is_whole, "unit {place} at end {head}: {unit:?}");
        }
        for topic in ["a", "b", "c"] {
            assert_eq!(of(topics(&[topic], 0)).len() * 3, all.len(), "{topic} alone ends where the unit does");
        }
        let by_partition: usize = (0..3).map(|number| of(partition("a", number, 0)).len()).sum();
        let by_stream: usize = (0..5).map(|number| of(from_version("a", &format!("s{number}"), 1)).len()).sum();
        assert_eq!((by_partition * 3, by_stream * 3), (all.len(), all.len()), "partitions and streams too");
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_done.load(Ordering::SeqCst) {
                    check();
                }
            });
        }
        // Readers stop also when the writer panics.
        let result = catch_unwind(AssertUnwindSafe(|| write_units(&*log)));
        is_done.store(true, Ordering::SeqCst);
        result.unwrap_or_else(|panic| resume_unwind(panic));
    });
    check();
    assert_eq!(log.head().position.get(), 3 * UNITS);
}

/// Follows a selection by wake-up until it has seen `count` records.
fn follow(
    log: &dyn LogBackend,
    mut durable: watch::Receiver<Position>,
    selection: Selection,
    count: usize,
    limits: ReadLimits,
) -> Vec<Read> {
    let mut reader = log.reader(selection).expect("in range");
    let mut found = Vec::new();
    let mut before = Position::new(0);
    while found.len() < count {
        let until = *durable.borrow_and_update();
        assert!(until >= before, "the end never moves back");
        before = until;
        loop {
            let chunk = reader.read(until, limits).expect("the log is whole");
            if chunk.runs.is_empty() {
                break;
            }
            found.extend(chunk.runs.iter().flat_map(records_of));
        }
        if found.len() < count {
            block_on(durable.changed()).expect("the log runs");
        }
    }
    found
}

fn subscriptions(subject: &mut dyn Subject) {
    let log = subject.log();
    create_three(&*log);
    put(&*log, writes([events_of("a", "s0", &["before"])]));
    let of_a = usize::try_from(UNITS).expect("small") + 1;
    let of_s3 = of_a / 5;
    let one_by_one = ReadLimits { records: 1, bytes: 1 };
    // From before anything is written, so that those who follow have to be woken, whenever they have their turn.
    let [first, second, third] = [log.durable(), log.durable(), log.durable()];
    let (everything, late, one_topic, one_stream) = std::thread::scope(|scope| {
        let everything = scope.spawn(|| follow(&*log, first, Selection::All(Position::new(0)), 3 * (of_a - 1) + 1, ReadLimits::default()));
        let one_topic = scope.spawn(|| follow(&*log, second, topics(&["a"], 0), of_a, one_by_one));
        let one_stream = scope.spawn(|| follow(&*log, third, from_version("b", "s3", 1), of_s3, ReadLimits::default()));
        let writer = scope.spawn(|| write_units(&*log));
        let late = scope.spawn(|| follow(&*log, log.durable(), topics(&["a", "b", "c"], 0), 3 * (of_a - 1) + 1, one_by_one));
        writer.join().expect("it does not panic");
        let join = |handle: std::thread::ScopedJoinHandle<'_, Vec<Read>>| handle.join().expect("it does not panic");
        (join(everything), join(late), join(one_topic), join(one_stream))
    });
    assert_eq!(everything, read(&*log, Selection::All(Position::new(0))), "what was followed is what is there");
    assert_eq!(late, everything);
    assert_eq!(one_topic, read(&*log, topics(&["a"], 0)));
    assert_eq!(one_stream, read(&*log, from_version("b", "s3", 1)));
}
