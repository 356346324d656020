//! Producers: sequences, repeats, gaps, refusals, epochs, restarts.

use std::collections::VecDeque;

use super::*;
use crate::{
    backend::AppendFuture,
    ids::{ProducerEpoch, ProducerId, Sequence},
    record::{ProducerAt, ProducerKey, Sequenced},
};

pub(super) const CASES: &[Case] = &[
    Case { name: "units of a producer are taken one by one", needs: Needs::Nothing, run: one_by_one },
    Case { name: "a refused unit takes its sequence and stays refused", needs: Needs::Nothing, run: refused_units },
    Case { name: "a later epoch ends the earlier", needs: Needs::Nothing, run: fencing },
    Case { name: "appends behind each other end with the first that is malformed", needs: Needs::Nothing, run: behind_each_other },
    Case { name: "producers go on after restarts", needs: Needs::Restart, run: restarts },
];

fn key(principal: &str, id: u8) -> ProducerKey {
    ProducerKey { principal: principal.into(), id: ProducerId::new([id; 16]) }
}

fn open(log: &dyn LogBackend, key: ProducerKey, resume: Option<ProducerEpoch>) -> Result<ProducerAt, LogError> {
    block_on(log.open_producer(key, resume)?)
}

fn unit(id: u8, epoch: ProducerEpoch, sequence: u64, data: &[&str]) -> Append {
    let sequenced = Sequenced { key: key("ann", id), epoch, sequence: Sequence::new(sequence) };
    Append { sequenced: Some(sequenced), ..writes([events_of("e", "s", data)]) }
}

/// What a repeat of a unit is told.
fn again(first: &Appended) -> Appended {
    Appended { deduplicated: true, ranges: Vec::new(), versions: Vec::new(), ..first.clone() }
}

fn one_by_one(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "e", TopicKind::Events, 1);
    let ProducerAt { epoch, next } = open(&*log, key("ann", 1), None).expect("it may");
    assert_eq!(next, Sequence::FIRST);
    let first = put(&*log, unit(1, epoch, 1, &["a", "b"]));
    assert_eq!((first.end.get() - first.first.get(), first.deduplicated, first.versions[0].version.get()), (2, false, 2));
    // All in line at once: each is judged behind those before it.
    let line = [(2, "c"), (1, "a"), (4, "gap"), (3, "d"), (2, "c")];
    let line = line.map(|(sequence, data)| log.append(unit(1, epoch, sequence, &[data])).expect("it is well formed"));
    let [two, one_again, gap, three, two_again] = line.map(block_on);
    let two = two.expect("it comes next");
    assert_eq!(one_again.expect("a repeat"), again(&first));
    match gap {
        Err(LogError::OutOfOrderSequence { sequence, next }) => assert_eq!((sequence.get(), next.get()), (4, 3)),
        other => panic!("it does not come next: {other:?}"),
    }
    assert!(!three.expect("it comes next").deduplicated);
    assert_eq!(two_again.expect("a repeat"), again(&two));
    let other = open(&*log, key("bob", 1), None).expect("another one's producers mean nothing");
    assert_eq!(other.next, Sequence::FIRST);
    assert!(other.epoch > epoch, "no epoch is given twice");
    assert_eq!(values(&read(&*log, partition("e", 0, 0))), ["a", "b", "c", "d"]);
    match append(&*log, unit(2, epoch, 1, &["x"])) {
        Err(LogError::UnknownProducer { producer }) => assert_eq!(producer, ProducerId::new([2; 16])),
        other => panic!("it was never opened: {other:?}"),
    }
}

fn refused_units(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "e", TopicKind::Events, 1);
    let epoch = open(&*log, key("ann", 1), None).expect("it may").epoch;
    let guarded = |sequence, data: &'static str| {
        let preconditions = vec![expect("e", "s", Expected::Version(StreamVersion::new(1)))];
        Append { preconditions, ..unit(1, epoch, sequence, &[data]) }
    };
    assert!(matches!(append(&*log, guarded(1, "too early")), Err(LogError::Conflict { .. })));
    put(&*log, unit(1, epoch, 2, &["a"]));
    // What it believed holds by now, and its time is over all the same.
    match append(&*log, guarded(1, "too early")) {
        Err(LogError::RefusedBefore { sequence }) => assert_eq!(sequence, Sequence::FIRST),
        other => panic!("it was refused: {other:?}"),
    }
    // An empty unit takes its sequence, too.
    let empty = Append { writes: Vec::new(), ..unit(1, epoch, 3, &[]) };
    let nothing = put(&*log, empty.clone());
    assert_eq!(nothing.first, nothing.end);
    assert!(matches!(append(&*log, empty), Err(LogError::RefusedBefore { .. })));
    put(&*log, guarded(4, "b"));
    assert_eq!(values(&read(&*log, partition("e", 0, 0))), ["a", "b"]);
    let both = Append { writes: Vec::new(), ..guarded(5, "") };
    assert!(matches!(append(&*log, both), Err(LogError::Invalid { .. })), "beliefs alone are no unit");
}

fn fencing(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "e", TopicKind::Events, 1);
    let old = open(&*log, key("ann", 1), None).expect("it may");
    put(&*log, unit(1, old.epoch, 1, &["a"]));
    let resumed = open(&*log, key("ann", 1), Some(old.epoch)).expect("it is the newest");
    assert_eq!((resumed.epoch, resumed.next.get()), (old.epoch, 2));
    let new = open(&*log, key("ann", 1), None).expect("it may");
    assert!(new.epoch > old.epoch);
    assert_eq!(new.next.get(), 2, "sequences go on over epochs");
    for refused in [append(&*log, unit(1, old.epoch, 2, &["x"])).err(), open(&*log, key("ann", 1), Some(old.epoch)).err()] {
        match refused {
            Some(LogError::ProducerFenced { epoch, newest, .. }) => assert_eq!((epoch, newest), (old.epoch, new.epoch)),
            other => panic!("its epoch is over: {other:?}"),
        }
    }
    assert!(put(&*log, unit(1, new.epoch, 1, &["a"])).deduplicated, "what earlier epochs did is known");
    put(&*log, unit(1, new.epoch, 2, &["b"]));
    assert_eq!(values(&read(&*log, partition("e", 0, 0))), ["a", "b"]);
    assert!(matches!(open(&*log, key("ann", 9), Some(new.epoch)), Err(LogError::UnknownProducer { .. })));
}

fn behind_each_other(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "e", TopicKind::Events, 1);
    let epoch = open(&*log, key("ann", 1), None).expect("it may").epoch;
    let mut appends: VecDeque<_> = (1..=3).map(|sequence| unit(1, epoch, sequence, &["x"])).collect();
    appends[2].writes = vec![events_of("none", "s", &["x"])];
    appends.push_back(unit(1, epoch, 4, &["behind"]));
    let mut answers = log.append_all(&mut appends).expect("there is room");
    assert!(matches!(answers.pop(), Some(Err(LogError::UnknownTopic { .. }))), "nothing is in line behind it");
    assert_eq!(appends, [unit(1, epoch, 4, &["behind"])]);
    let first = |answer: Result<AppendFuture, LogError>| block_on(answer.expect("it is well formed")).expect("it comes next").first.get();
    assert_eq!(answers.into_iter().map(first).collect::<Vec<_>>(), [0, 1]);
    put(&*log, unit(1, epoch, 3, &["y"]));
    assert_eq!(values(&read(&*log, partition("e", 0, 0))), ["x", "x", "y"]);
}

fn restarts(subject: &mut dyn Subject) {
    create(&*subject.log(), "e", TopicKind::Events, 1);
    let mut epoch = open(&*subject.log(), key("ann", 1), None).expect("it may").epoch;
    let mut answers: Vec<Appended> = Vec::new();
    for round in 1..6 {
        let log = subject.log();
        for (sequence, answer) in (1..).zip(&answers) {
            assert_eq!(put(&*log, unit(1, epoch, sequence, &["x"])), again(answer), "round {round}");
        }
        let next = answers.len() as u64 + 1;
        let at = open(&*log, key("ann", 1), Some(epoch)).expect("nobody else has begun an epoch");
        assert_eq!(at, ProducerAt { epoch, next: Sequence::new(next) });
        let mut line = (next..next + 3).map(|sequence| unit(1, epoch, sequence, &["x"])).collect();
        let line = log.append_all(&mut line).expect("there is room");
        answers.extend(line.into_iter().map(|answer| block_on(answer.expect("it is well formed")).expect("it comes next")));
        if round % 2 == 0 {
            let newer = open(&*log, key("ann", 1), None).expect("it may").epoch;
            assert!(newer > epoch);
            epoch = newer;
        }
        drop(log);
        assert!(subject.restart());
    }
    assert_eq!(read(&*subject.log(), partition("e", 0, 0)).len(), answers.len());
}
