//! What a backup takes, into which folders, and that a log goes on from it.

use super::*;

#[test]
fn a_backup_of_a_running_log_is_restored_and_gone_on_with() {
    let mut world = world(1);
    let mut log = world.open();
    create(&log);
    let units = append_all(&mut log, 0..60);
    let report = log.back_up();
    assert_eq!((report.position, report.time), (units[59].end, units[59].at));
    // It goes on meanwhile.
    append_all(&mut log, 60..70);
    drop(log);

    let restored = world.restore(NEW, None).unwrap();
    assert_eq!((restored.position, restored.next), (report.position, report.position.plus(GAP)));
    let mut log = world.open_at(NEW);
    assert_eq!(read(&log), texts(&units));
    let head = log.log.head();
    assert_eq!((head.epoch, head.position), (restored.epoch, restored.next));
    assert!(head.epoch > 0);
    // A repeat is known, also one that was in the window file.
    let unit = &units[3];
    let write = Write::Stream {
        topic: name("e"),
        stream: "a3".parse().unwrap(),
        events: vec![NewEvent { kind: "E".into(), ..NewEvent::default() }],
    };
    let again = log.append(Append { writes: vec![write], identity: Some(identity(3)), ..Append::default() }).unwrap();
    assert!(again.deduplicated && again.end == unit.end);
    // Versions and positions go on.
    let more = append(&mut log, 1000);
    assert_eq!(more.end, restored.next.plus(4));
    let state = log.log.stream_state(&name("e"), &"a0".parse().unwrap()).unwrap();
    assert_eq!(state.head.to_string(), "at version 13");
    log.stepper.tidy().unwrap();
    assert_eq!(read(&log), texts(&[units, vec![more]].concat()));
}

#[test]
fn the_next_backup_takes_what_is_new() {
    let mut world = world(2);
    let mut log = world.open();
    create(&log);
    append_all(&mut log, 0..60);
    let first = log.back_up();
    assert!(first.linked_bytes > first.copied_bytes, "{first:?}");
    let again = log.back_up();
    assert_eq!((again.linked_bytes, again.copied_bytes, again.bytes), (0, 0, first.bytes));
    let units = append_all(&mut log, 60..70);
    let next = log.back_up();
    assert!(next.copied_bytes + next.linked_bytes < next.bytes / 2, "{next:?}");
    let files = world.files_in("/backup/files").len();
    assert_eq!(files as u64, next.files, "what is not named any more is gone");
    drop(log);
    world.restore(NEW, None).unwrap();
    assert!(read(&world.open_at(NEW)).ends_with(&texts(&units)));
}

#[test]
fn folders_that_are_not_meant_are_refused() {
    let mut world = world(8);
    let mut log = world.open();
    create(&log);
    append_all(&mut log, 0..3);
    let mut refused = |to: &str| log.stepper.back_up(Path::new(to)).unwrap_err().to_string();
    assert!(refused("/nowhere/at/all").contains("the folder around it, which you must make"));
    world.disk.create_folder(Path::new("/data/within")).unwrap();
    assert!(refused("/data/within").contains("lies within /data"));
    assert!(refused(DATA).contains("which is no part of a backup"));
    world.disk.create_folder(Path::new("/other")).unwrap();
    world.disk.create(Path::new("/other/letter.txt")).unwrap();
    assert!(refused("/other").contains("letter.txt"));
    let lock = world.disk.lock(Path::new(BACKUP), "another backup").unwrap();
    assert!(refused(BACKUP).contains("another backup"));
    drop(lock);
    log.back_up();
    drop(log);
    let mut other = world.open_at("/second");
    let foreign = other.stepper.back_up(Path::new(BACKUP)).unwrap_err().to_string();
    assert!(foreign.contains("another data folder"), "{foreign}");
    drop(other);
    assert!(world.restore(DATA, None).unwrap_err().to_string().contains("restore into an empty folder"));
    assert!(world.restore("/data/deep", None).unwrap_err().to_string().contains("lies within"));
    world.disk.remove(Path::new("/backup/foldlog-backup.json")).unwrap();
    assert!(world.restore(NEW, None).unwrap_err().to_string().contains("holds no whole backup"));
    assert!(!world.disk.paths().into_iter().any(|path| path.starts_with(NEW)));
}

#[test]
fn what_retention_removed_stays_removed_and_offsets_go_on() {
    let mut world = world(9);
    let mut log = world.open();
    let settings = TopicSettings {
        retention: Retention { bytes: Some(16 << 10), ..Retention::default() },
        ..TopicSettings::new(TopicKind::Records, 1)
    };
    log.log.create_topic(name("k"), settings).unwrap();
    for _ in 0..100 {
        let record = NewRecord { value: Some("x".repeat(500).into()), ..NewRecord::default() };
        let write = Write::Records { topic: name("k"), partition: None, records: vec![record] };
        log.write(write);
        log.stepper.tidy().unwrap();
    }
    for _ in 0..2 {
        log.stepper.upkeep().unwrap();
        log.stepper.commit().unwrap();
        log.stepper.tidy().unwrap();
    }
    let (firsts, ends) = (log.log.firsts(&name("k")).unwrap(), log.log.ends(&name("k")).unwrap());
    assert!(firsts[0].get() > 50);
    log.back_up();
    drop(log);
    world.restore(NEW, None).unwrap();
    let log = world.open_at(NEW);
    assert_eq!((log.log.firsts(&name("k")).unwrap(), log.log.ends(&name("k")).unwrap()), (firsts, ends));
    assert!(matches!(log.log.whole_from(&Selection::All(Position::default())), Err(LogError::Removed { .. })));
}
