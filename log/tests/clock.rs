//! The wall clock jumps under a running log and between its starts: stamps never step back, and follow what is believed.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{path::Path, sync::Arc, time::Duration};

use foldlog_log::{
    Append, EmbeddedLog, LogBackend, LogConfig, NewEvent, Position, ReadLimits, Selection, Stepper, Timestamp, TopicKind, TopicSettings,
    Write, clock::ManualClock, testing::SimDisk,
};
use futures::FutureExt;

const NOON: i64 = 1_700_000_000_000;
const HOUR: Duration = Duration::from_secs(3600);
const HOUR_MS: i64 = 3_600_000;

fn open(disk: &SimDisk, clock: &Arc<ManualClock>) -> (EmbeddedLog, Stepper) {
    let mut drawn = 0;
    let random = move || {
        drawn += 1;
        drawn
    };
    let clock: Arc<ManualClock> = Arc::clone(clock);
    let (log, stepper) =
        EmbeddedLog::open_stepped(Arc::new(disk.clone()), clock, Path::new("/data"), LogConfig::default(), random).unwrap();
    log.create_topic("a".parse().unwrap(), TopicSettings::new(TopicKind::Events, 1)).unwrap();
    (log, stepper)
}

/// Appends an event; its stamp, in milliseconds after noon.
fn stamp(log: &EmbeddedLog, stepper: &mut Stepper) -> i64 {
    let event = NewEvent { kind: "E".into(), ..NewEvent::default() };
    let write = Write::Stream { topic: "a".parse().unwrap(), stream: "s".parse().unwrap(), events: vec![event] };
    let answer = log.append(Append { writes: vec![write], ..Append::default() }).unwrap();
    stepper.commit().unwrap();
    answer.now_or_never().unwrap().unwrap().recorded_at.get() - NOON
}

/// Stamps of all records, in milliseconds after noon.
fn stamps(log: &EmbeddedLog) -> Vec<i64> {
    let mut reader = log.reader(Selection::All(Position::default())).unwrap();
    let chunk = reader.read(log.head().position, ReadLimits::default()).unwrap();
    chunk.runs.iter().flat_map(|run| run.records().map(|_| run.recorded_at.get() - NOON).collect::<Vec<_>>()).collect()
}

#[test]
fn stamps_follow_no_jump_before_it_is_confirmed_and_never_step_back() {
    let disk = SimDisk::new(1);
    let clock = Arc::new(ManualClock::at(Timestamp::new(NOON)));
    let (log, mut stepper) = open(&disk, &clock);
    assert_eq!(stamp(&log, &mut stepper), 0);
    clock.set_wall(Timestamp::new(NOON + 1000 * HOUR_MS));
    clock.advance(HOUR);
    assert_eq!(stamp(&log, &mut stepper), HOUR_MS);
    assert!(!log.clock().unwrap().follows && !log.metrics().follows_clock);

    clock.set_wall(Timestamp::new(NOON + 10 * HOUR_MS));
    assert!(log.confirm_clock().unwrap().follows);
    assert_eq!(stamp(&log, &mut stepper), 10 * HOUR_MS);

    // Back, between two starts: it goes on by itself until that is confirmed, and then it waits.
    clock.set_wall(Timestamp::new(NOON));
    drop((log, stepper));
    let disk = disk.power_cut();
    let (log, mut stepper) = open(&disk, &clock);
    clock.advance(HOUR);
    assert_eq!(stamp(&log, &mut stepper), 11 * HOUR_MS);
    assert!(log.confirm_clock().unwrap().follows);
    clock.advance(HOUR);
    assert_eq!(stamp(&log, &mut stepper), 11 * HOUR_MS);
    drop((log, stepper));

    // Forward, between two starts: the server was stopped for so long.
    clock.set_wall(Timestamp::new(NOON + 100 * HOUR_MS));
    let (log, mut stepper) = open(&disk.power_cut(), &clock);
    assert_eq!(stamp(&log, &mut stepper), 100 * HOUR_MS);
    assert_eq!(stamps(&log), [0, HOUR_MS, 10 * HOUR_MS, 11 * HOUR_MS, 11 * HOUR_MS, 100 * HOUR_MS]);
}
