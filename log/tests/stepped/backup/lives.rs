//! Streams that are truncated while a backup is taken: what it has of them is what they were at its position.

use foldlog_log::{EmbeddedLog, StreamChange, StreamVersion};

use super::{
    super::room::{change, commit, of_stream, of_topic},
    *,
};

const EVENTS: u64 = 60;

/// A topic with one stream of events, most of them in segments that a checkpoint holds.
fn filled(log: &mut Log) {
    log.log.create_topic(name("s"), TopicSettings::new(TopicKind::Events, 1)).unwrap();
    for number in 0..EVENTS {
        let event = NewEvent { kind: "E".into(), data: format!("{number}-{}", "x".repeat(250)).into(), ..NewEvent::default() };
        log.write(Write::Stream { topic: name("s"), stream: "s".parse().unwrap(), events: vec![event] });
    }
    log.stepper.tidy().unwrap();
}

/// How many events of the topic are read.
fn left(log: &EmbeddedLog) -> u64 {
    let chunk = log.reader(of_topic("s", 0)).unwrap().read(log.head().position, ReadLimits::default()).unwrap();
    let records = chunk.runs.iter().flat_map(|run| run.records());
    records.filter(|record| record.as_ref().unwrap().mark().is_none()).count() as u64
}

#[test]
fn what_streams_let_go_behind_a_checkpoint_is_missing_from_no_backup() {
    let mut world = world(21);
    let mut log = world.open();
    filled(&mut log);
    let Log { log, mut stepper, .. } = log;
    let mut has_removed = false;
    let truncates = |stepper: &mut Stepper| {
        if std::mem::replace(&mut has_removed, true) {
            return;
        }
        let writes = vec![change("s", "s", StreamChange::Truncate { before: StreamVersion::new(EVENTS) })];
        commit(&log, stepper, Append { writes, ..Append::default() }).unwrap();
        while stepper.compact().unwrap() {
            stepper.commit().unwrap();
        }
        assert!(left(&log) < EVENTS / 2, "{}", left(&log));
    };
    stepper.back_up_amid(Path::new(BACKUP), truncates, |_| ()).unwrap();
    drop((log, stepper));

    world.restore(NEW, None).unwrap();
    let log = world.open_at(NEW);
    let state = log.log.stream_state(&name("s"), &"s".parse().unwrap()).unwrap();
    let first = state.beginning.first.get();
    let read = log.read(log.log.reader(of_stream("s", "s", 1)), Way::Forwards, ReadLimits::default(), |_, _| ()).len() as u64;
    // Whether it is truncated there or not yet, it has everything from its beginning on.
    assert_eq!((state.head.to_string(), read), (format!("at version {EVENTS}"), EVENTS + 1 - first));
}
