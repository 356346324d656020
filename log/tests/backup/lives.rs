//! Streams that are truncated while a backup is taken: what it has of them is what they were at its position.

use foldlog_log::{Offset, PartitionId, StreamChange, StreamVersion};

use super::*;

const EVENTS: u64 = 60;

/// A topic with one stream of events, most of them in segments that a checkpoint holds.
fn filled(log: &mut Log) {
    log.log.create_topic(name("s"), TopicSettings::new(TopicKind::Events, 1)).unwrap();
    log.log.allow_removal();
    for number in 0..EVENTS {
        let event = NewEvent { kind: "E".into(), data: format!("{number}-{}", "x".repeat(250)).into(), ..NewEvent::default() };
        commit(log, Write::Stream { topic: name("s"), stream: "s".parse().unwrap(), events: vec![event] });
    }
    log.stepper.tidy().unwrap();
}

fn commit(log: &mut Log, write: Write) {
    let answer = log.log.append(Append { writes: vec![write], ..Append::default() }).unwrap();
    log.stepper.commit().unwrap();
    answer.now_or_never().unwrap().unwrap();
}

/// How many events of the topic are read.
fn left(log: &EmbeddedLog) -> u64 {
    let selection = Selection::Partition(name("s"), PartitionId::new(0), Offset::new(0));
    let (mut reader, mut left) = (log.reader(selection).unwrap(), 0);
    loop {
        let chunk = reader.read(log.head().position, ReadLimits::default()).unwrap();
        if chunk.runs.is_empty() {
            return left;
        }
        left += chunk
            .runs
            .iter()
            .map(|run| run.records().filter(|record| record.as_ref().unwrap().mark().is_none()).count() as u64)
            .sum::<u64>();
    }
}

#[test]
fn what_streams_let_go_behind_a_checkpoint_is_missing_from_no_backup() {
    let mut world = World::new(21);
    let mut log = world.open(DATA);
    filled(&mut log);
    let Log { log, mut stepper, .. } = log;
    let mut has_removed = false;
    let truncates = |stepper: &mut Stepper| {
        if std::mem::replace(&mut has_removed, true) {
            return;
        }
        let change = StreamChange::Truncate { before: StreamVersion::new(EVENTS) };
        let write = Write::Change { topic: name("s"), stream: "s".parse().unwrap(), change, by: "ann".into() };
        let answer = log.append(Append { writes: vec![write], ..Append::default() }).unwrap();
        stepper.commit().unwrap();
        answer.now_or_never().unwrap().unwrap();
        while stepper.compact().unwrap() {
            stepper.commit().unwrap();
        }
        assert!(left(&log) < EVENTS / 2, "{}", left(&log));
    };
    stepper.back_up_amid(Path::new(BACKUP), truncates, |_| ()).unwrap();
    drop((log, stepper));

    world.restore(NEW, None).unwrap();
    let log = world.open(NEW);
    let state = log.log.stream_state(&name("s"), &"s".parse().unwrap()).unwrap();
    let first = state.beginning.first.get();
    let selection = Selection::Stream(name("s"), "s".parse().unwrap(), StreamVersion::FIRST);
    let chunk = log.log.reader(selection).unwrap().read(log.log.head().position, ReadLimits::default()).unwrap();
    let read: u64 = chunk.runs.iter().map(|run| u64::from(run.count)).sum();
    // Whether it is truncated there or not yet, it has everything from its beginning on.
    assert_eq!((state.head.to_string(), read), (format!("at version {EVENTS}"), EVENTS + 1 - first));
}
