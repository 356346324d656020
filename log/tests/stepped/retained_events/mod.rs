//! Retention of events, where it is told: what it lets go of is read by nobody from one moment on, streams begin behind it, and everything else
//! stays what it was: versions, newest snapshots, what conditions find. The bytes go afterwards.

mod world;

use std::time::Duration;

use foldlog_log::{
    EventQuery, LogBackend, LogError, Offset, Position, ReadLimits, Retention, Stepper, StreamChange, StreamVersion, TopicChanges,
    restore::Until, testing::Random,
};

use super::room::{HOUR, SMALL, Step, Way, name, of_partition, of_stream, of_topic, redact};
use world::{Given, STREAMS, World, end_of, first_of, let_go, read, remove};

fn some_bytes() -> Retention {
    Retention { bytes: Some(16 << 10), time: None }
}

#[test]
fn what_retention_lets_go_of_is_read_by_nobody_and_everything_else_stands() {
    for seed in 0..6 {
        let mut world = World::new(seed);
        let mut log = world.create(some_bytes());
        world.fill(&mut log, seed, 700);
        world.check(&mut log);
        assert_eq!(first_of(&log), 0);
        let bytes = world.folder.bytes();
        let_go(&mut log);
        let first = first_of(&log);
        assert!(first > 200 && first + 80 < end_of(&log), "{first} of {}", end_of(&log));
        // At once, while all of its bytes are there.
        assert_eq!(world.folder.bytes(), bytes);
        world.check(&mut log);
        log.stepper.upkeep().unwrap();
        world.check(&mut log);

        assert!(remove(&mut log) > 0);
        world.check(&mut log);
        let left = world.in_files();
        assert!(left.iter().all(|offset| *offset >= first), "{left:?} from {first}");
        assert!(world.folder.bytes() < 40 << 10 && world.folder.bytes() * 2 < bytes, "{} of {bytes}", world.folder.bytes());
        assert_eq!(remove(&mut log), 0, "nothing is left to be removed");

        // Also when everything that is derived is derived again.
        for is_derived in [false, true] {
            world.folder.crash(log, true);
            if is_derived {
                world.folder.lose_what_is_derived();
            }
            log = world.folder.open();
            assert_eq!(first_of(&log), first);
            world.check(&mut log);
        }
        world.fill(&mut log, seed + 10, 400);
        let_go(&mut log);
        assert!(first_of(&log) > first);
        world.check(&mut log);
        remove(&mut log);
        world.check(&mut log);
        assert!(world.folder.bytes() < 40 << 10, "blanks are not heaped up: {}", world.folder.bytes());
        // Scrubbing reads what is left of what is gone, too.
        while log.stepper.scrub().unwrap().is_some() {}
        assert_eq!(log.log.metrics().scrub_damages, 0);
    }
}

/// The power goes after each step, and after each call of the disk within them.
#[test]
fn a_removal_that_is_cut_off_is_done_or_not_begun() {
    let (mut cut, mut done, mut not_begun, mut smaller) = (0, 0, 0, 0);
    for cut_after in 0..10 {
        for seed in 0..9 {
            let mut world = World::new(100 + 10 * cut_after as u64 + seed);
            let mut log = world.create(some_bytes());
            world.fill(&mut log, seed, 300);
            let bytes = world.folder.bytes();
            let compact: Step = |stepper| stepper.compact().map(drop);
            let steps = [
                Stepper::upkeep,
                Stepper::commit,
                Stepper::upkeep,
                compact,
                compact,
                Stepper::commit,
                Stepper::tidy,
                Stepper::upkeep,
                compact,
                Stepper::commit,
            ];
            cut += u32::from(world.folder.step_until_cut(&mut log, &steps, cut_after, [0, 1, 1, 1, 2, 3, 1, 7, 11][seed as usize]));
            let shown = first_of(&log);
            world.folder.crash(log, seed % 4 > 0);
            log = world.folder.open();
            let first = first_of(&log);
            assert!(first >= shown, "what was shown as gone is back: {first}, before {shown}");
            assert!(first == 0 || first > 50, "half a removal: {first}");
            world.check_reads(&log);
            (done, not_begun) = (done + u32::from(first > 0), not_begun + u32::from(first == 0));
            smaller += u32::from(world.folder.bytes() < bytes);
            let_go(&mut log);
            remove(&mut log);
            if seed < 2 {
                world.check_conditions(&mut log);
            }
            world.check_reads(&log);
            assert!(world.in_files().iter().all(|offset| *offset >= first_of(&log)));
        }
    }
    assert!(cut > 20 && done > 40 && not_begun > 1 && smaller > 10, "{cut} {done} {not_begun} {smaller}");
}

#[test]
fn events_go_by_age_and_an_idle_stream_keeps_its_version() {
    let mut world = World::new(1);
    let mut log = world.create(Retention { time: Some(HOUR), bytes: None });
    let mut random = Random::new(1);
    for number in 0..40 {
        world.append(&mut log, &format!("s{}", number % 4), &mut random);
    }
    log.stepper.tidy().unwrap();
    for _ in 0..4 {
        let_go(&mut log);
        world.check(&mut log);
        assert_eq!(first_of(&log), 0, "it is not that old");
        log.stepper.tidy().unwrap();
        world.folder.clock.advance(HOUR / 4);
    }
    world.folder.clock.advance(HOUR / 4);
    let_go(&mut log);
    assert_eq!((first_of(&log), end_of(&log)), (40, 40));
    world.check(&mut log);
    remove(&mut log);
    world.check(&mut log);
    log = world.folder.cut(log);
    world.check(&mut log);
    world.append(&mut log, "s1", &mut random);
    assert_eq!(world.given.last().unwrap().version, 11);
    world.check(&mut log);
}

#[test]
fn what_somebody_holds_stays_until_they_let_go() {
    let mut world = World::new(3);
    let mut log = world.create(some_bytes());
    world.fill(&mut log, 3, 400);
    // Positions are offsets here.
    log.log.hold("query-1", &name("e"), Position::new(150)).unwrap();
    let_go(&mut log);
    let first = first_of(&log);
    assert!(first > 50 && first <= 150, "{first}");
    remove(&mut log);
    world.check(&mut log);
    assert!(world.in_files().contains(&world.given.iter().find(|given| given.offset >= 150).unwrap().offset));
    log.log.release("query-1");
    let_go(&mut log);
    assert!(first_of(&log) > 150);
    world.check(&mut log);
}

#[test]
fn who_reads_is_told_or_goes_on_where_a_stream_begins_by_now() {
    let mut world = World::new(3);
    let mut log = world.create(Retention::FOR_EVER);
    let mut random = Random::new(4);
    for _ in 0..300 {
        world.append(&mut log, "s1", &mut random);
    }
    log.stepper.tidy().unwrap();
    let (one, until) = (ReadLimits { records: 1, bytes: 1 }, log.log.head().position);
    let mut forwards = log.log.reader(of_stream("e", "s1", 1)).unwrap();
    let mut backwards = log.log.backward_reader(of_stream("e", "s1", 1 << 40)).unwrap();
    let told = [
        log.log.reader(of_partition("e", 0)),
        log.log.filtered_reader(of_partition("e", 0), EventQuery::All),
        log.log.reader(of_topic("e", 0)),
        log.log.filtered_reader(of_topic("e", 0), EventQuery::All),
    ];
    let mut told = told.map(Result::unwrap);
    for reader in &mut told {
        assert_eq!(reader.read(until, one).unwrap().runs[0].first_offset, Offset::new(0));
    }
    for number in 0..3 {
        assert_eq!(forwards.read(until, one).unwrap().runs[0].first_offset, Offset::new(number));
        assert_eq!(backwards.read(until, one).unwrap().runs[0].first_offset, Offset::new(299 - number));
    }
    let changes = TopicChanges { retention_bytes: Some(16 << 10), ..TopicChanges::default() };
    log.log.alter_topic(&name("e"), changes).unwrap();
    let_go(&mut log);
    let first = first_of(&log);
    assert!(first > 50);
    let rest = |reader, way| log.read(Ok(reader), way, SMALL, |_, record| record.offset.get());
    assert_eq!(rest(forwards, Way::Forwards), (first..300).collect::<Vec<_>>());
    assert_eq!(rest(backwards, Way::Backwards), (first..297).rev().collect::<Vec<_>>());
    for (place, mut reader) in told.into_iter().enumerate() {
        let mut next = 1;
        let error = loop {
            match reader.read(until, one) {
                Ok(chunk) => chunk.runs.iter().for_each(|run| {
                    assert_eq!(run.first_offset, Offset::new(next), "a jump");
                    next += 1;
                }),
                Err(error) => break error,
            }
        };
        match error {
            LogError::OffsetOutOfRange { first: told, .. } if place < 2 => assert_eq!(told.get(), first),
            LogError::Removed { first: whole, .. } if place >= 2 => log.log.whole_from(&of_topic("e", whole.get())).unwrap(),
            other => panic!("{place}: {other}"),
        }
    }

    // Lifted, nothing more goes, and what has gone does not come back.
    log.log.alter_topic(&name("e"), TopicChanges { retention_bytes: Some(0), ..TopicChanges::default() }).unwrap();
    world.fill(&mut log, 5, 300);
    let_go(&mut log);
    assert_eq!(first_of(&log), first);
    remove(&mut log);
    log = world.folder.cut(log);
    assert_eq!((first_of(&log), log.log.topic(&name("e")).unwrap().settings.retention), (first, Retention::FOR_EVER));
    world.check(&mut log);
}

/// Events that retention let go of are redacted like all that are gone: what is left of their bytes goes, and a reader sees none of it.
#[test]
fn what_is_gone_is_redacted_truncated_and_deleted_like_anything_else() {
    let mut world = World::new(6);
    let mut log = world.create(some_bytes());
    world.fill(&mut log, 6, 400);
    let_go(&mut log);
    let first = first_of(&log);
    let gone: Vec<Given> = world.given.iter().filter(|given| given.offset < first).take(4).cloned().collect();
    for given in &gone {
        log.write(redact("e", &given.stream, &[given.version]));
        // A redaction drops the snapshots before it.
        world.snapshots.remove(&given.stream);
    }
    log.stepper.tidy().unwrap();
    world.change(&mut log, "s7", StreamChange::Truncate { before: StreamVersion::new(2) });
    world.check(&mut log);
    for _ in 0..200 {
        remove(&mut log);
    }
    assert_eq!(log.log.redacting(&name("e"), None).unwrap().events, 0);
    assert!(world.in_files().iter().all(|offset| *offset >= first));
    for stream in ["s5", "s6"] {
        world.change(&mut log, stream, StreamChange::Delete);
    }
    world.check(&mut log);
    log = world.folder.cut(log);
    world.check(&mut log);
}

#[test]
fn what_retention_let_go_of_stays_gone_in_what_is_restored() {
    for is_removed in [false, true] {
        let mut world = World::new(7);
        let mut log = world.create(some_bytes());
        let mut ends = Vec::new();
        for round in 0..8 {
            world.fill(&mut log, 70 + round, 60);
            ends.push(log.log.head().position);
            world.folder.clock.advance(Duration::from_secs(1));
        }
        let_go(&mut log);
        let first = first_of(&log);
        if is_removed {
            remove(&mut log);
        }
        log.stepper.tidy().unwrap();
        world.check(&mut log);
        log.back_up();
        drop(log);
        world.folder.restore("/whole", None).unwrap();
        let mut log = world.folder.open_at("/whole");
        assert_eq!(first_of(&log), first);
        world.check(&mut log);
        drop(log);

        // Cut within what is gone: then nothing is left to be read. Streams go on with the versions that they had, but for what a later event
        // replaced that is cut off: that is told.
        let cut = ends.iter().rfind(|end| end.get() < first).unwrap();
        let told = world.folder.restore("/cut", Some(Until::Position(*cut))).unwrap();
        assert!(*cut <= told.position && told.position.get() <= first, "{told:?}");
        assert_eq!(told.thinned, if is_removed { vec!["e".to_owned()] } else { Vec::new() });
        let log = world.folder.open_at("/cut");
        assert!(first_of(&log) == end_of(&log) && first_of(&log) <= cut.get(), "{} {} {cut}", first_of(&log), end_of(&log));
        assert!(read(&log, log.log.reader(of_topic("e", 0)), Way::Forwards).is_empty());
        for stream in (0..STREAMS).map(|number| format!("s{number}")) {
            let state = log.log.stream_state(&name("e"), &stream.parse().unwrap()).unwrap();
            let before = world.given.iter().rev().find(|given| given.stream == stream && given.position < cut.get());
            let next = before.map_or(1, |before| before.version + 1);
            assert!(state.beginning.first.get() >= next || is_removed, "{stream}: {state:?}, {next}");
            assert!(read(&log, log.log.reader(of_stream("e", &stream, 1)), Way::Forwards).is_empty());
        }
    }
}
