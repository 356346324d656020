//! Restores to a time or a position, and what positions mean from then on.

use super::*;

#[test]
fn a_cut_lies_between_two_times_and_never_in_an_append() {
    let mut world = world(3);
    let mut log = world.open();
    create(&log);
    let units = append_all(&mut log, 0..24);
    log.back_up();
    drop(log);
    let mut folder = 0;
    let mut restored_to = |world: &mut Folder, until: Until, expected: &[Unit]| {
        folder += 1;
        let path = format!("/new-{folder}");
        let restored = world.restore(&path, Some(until)).unwrap();
        let mut log = world.open_at(&path);
        assert_eq!(read(&log), texts(expected), "{until:?}");
        assert_eq!(restored.position, expected.last().map_or(Position::default(), |unit| unit.end), "{until:?}");
        // Of a request that was cut off nothing is known: it takes effect.
        let number = expected.len() as u64;
        let unit = append(&mut log, number);
        assert!(read(&log).ends_with(&unit.texts));
    };
    for (place, unit) in units.iter().enumerate().step_by(11) {
        let by_time = units.partition_point(|other| other.at <= unit.at);
        restored_to(&mut world, Until::Time(unit.at), &units[..by_time]);
        // Within a unit, and at its end: where the next one has another time, just there.
        let before = units.partition_point(|other| other.at < unit.at);
        restored_to(&mut world, Until::Position(Position::new(unit.end.get() - 1)), &units[..before]);
        let Some(next) = units.get(place + 1) else { continue };
        let at_end = units.partition_point(|other| other.at < next.at);
        restored_to(&mut world, Until::Position(unit.end), &units[..at_end]);
    }
    restored_to(&mut world, Until::Time(Timestamp::new(NOW.get() - 1)), &[]);
    restored_to(&mut world, Until::Position(Position::new(0)), &[]);
    restored_to(&mut world, Until::Time(Timestamp::new(i64::MAX)), &units);
    restored_to(&mut world, Until::Position(units[23].end), &units);
    let behind = world.restore("/behind", Some(Until::Position(units[23].end.plus(1))));
    assert!(matches!(behind, Err(LogError::PositionOutOfRange { .. })), "{behind:?}");
}

#[test]
fn positions_that_a_restore_left_out_are_out_of_range_everywhere() {
    let mut world = world(4);
    let mut log = world.open();
    create(&log);
    let units = append_all(&mut log, 0..20);
    log.back_up();
    drop(log);
    let cut = world.restore(NEW, Some(Until::Time(units[10].at))).unwrap();
    let mut log = world.open_at(NEW);
    let condition = |after: u64| Append {
        writes: vec![Write::Stream {
            topic: name("e"),
            stream: "c".parse().unwrap(),
            events: vec![NewEvent { kind: "C".into(), ..NewEvent::default() }],
        }],
        preconditions: vec![Precondition::QueryAbsent(QueryAbsent {
            scope: Scope::Topics(vec![name("e")]),
            query: EventQuery::All,
            after: Some(Position::new(after)),
        })],
        ..Append::default()
    };
    let lost = |result: LogError| matches!(result, LogError::PositionLost { from, next, .. } if (from, next) == (cut.position, cut.next));
    for position in [cut.position.get() + 1, units[19].end.get(), cut.next.get() - 1] {
        assert!(lost(log.log.reader(Selection::All(Position::new(position))).err().unwrap()), "{position}");
        assert!(lost(log.log.backward_reader(Selection::All(Position::new(position))).err().unwrap()), "{position}");
    }
    for position in [cut.position.get(), units[19].end.get(), cut.next.get() - 2] {
        assert!(lost(log.append(condition(position)).unwrap_err()), "{position}");
    }
    assert!(matches!(log.append(condition(cut.next.get())).unwrap_err(), LogError::PositionOutOfRange { .. }));
    for place in [cut.next, cut.position] {
        log.log.reader(Selection::All(place)).unwrap();
        // What was read up to there.
        let answered = log.append(condition(place.get() - 1));
        assert!(answered.is_ok() || place == cut.position && matches!(answered, Err(LogError::Conflict { .. })), "{answered:?}");
    }
    // And after a restart, and a backup of that folder.
    drop(log);
    let mut log = world.open_at(NEW);
    assert!(lost(log.log.reader(Selection::All(units[19].end)).err().unwrap()));
    let other = log.stepper.back_up(Path::new(BACKUP)).unwrap_err();
    assert!(other.to_string().contains("from before a restore"), "{other}");
}
