//! Power cuts at any time of a backup and of a restore, and damage in a backup.

use super::*;

#[test]
fn a_backup_that_is_cut_off_leaves_the_one_before() {
    let mut world = world(5);
    let mut log = world.open();
    create(&log);
    let mut units = append_all(&mut log, 0..12);
    log.back_up();
    units.extend(append_all(&mut log, 12..18));
    drop(log);
    let mut calls = 0;
    loop {
        let mut now = world.fork();
        let mut log = now.open();
        log.stepper.tidy().unwrap();
        let before = now.disk.changes();
        now.disk.arm(Fault::PowerOff { nth: calls });
        let done = log.stepper.back_up(Path::new(BACKUP)).is_ok();
        let changes = now.disk.changes() - before;
        drop(log);
        now.disk = now.disk.power_cut();
        now.restore(NEW, None).unwrap();
        let there = read(&now.open_at(NEW));
        let expected = [texts(&units[..12]), texts(&units)];
        assert!(expected.contains(&there) && (!done || there == expected[1]), "after {calls} calls of {changes}: {} texts", there.len());
        if done {
            assert!(calls > 20, "{calls}");
            break;
        }
        // Every site comes by often.
        calls += 5;
    }
}

#[test]
fn a_restore_that_is_cut_off_leaves_nothing_that_opens() {
    let mut world = world(6);
    let mut log = world.open();
    create(&log);
    let units = append_all(&mut log, 0..12);
    log.back_up();
    drop(log);
    let mut seen_refused = 0;
    // Every site comes by often.
    for calls in (0..).step_by(5) {
        let mut now = world.fork();
        now.disk.arm(Fault::PowerOff { nth: calls });
        let done = now.restore(NEW, None).is_ok();
        now.disk = now.disk.power_cut();
        let has_identity = now.disk.open(Path::new("/new/foldlog.json")).is_ok();
        if has_identity {
            assert_eq!(read(&now.open_at(NEW)), texts(&units), "{calls}");
        } else if now.disk.open(Path::new("/new/foldlog.restoring")).is_ok() {
            let refused = now.try_open(NEW).err().unwrap().to_string();
            assert!(refused.contains("the restore into /new was not finished"), "{refused}");
            seen_refused += 1;
        }
        if done {
            assert!(has_identity && calls > 20 && seen_refused > 5, "{calls}: {seen_refused}");
            break;
        }
    }
}

#[test]
fn damage_in_a_backup_is_found_before_the_folder_opens() {
    let mut world = world(7);
    let mut log = world.open();
    create(&log);
    append_all(&mut log, 0..16);
    log.back_up();
    drop(log);
    let kinds: BTreeSet<_> = ["log", "runs", "window", "json"].into();
    for kind in kinds {
        let files = world.files_in(BACKUP).into_iter().filter(|path| path.extension().is_some_and(|one| one == kind));
        for path in files.collect::<Vec<_>>() {
            let mut now = world.fork();
            let mut bytes = now.disk.bytes_of(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 4;
            now.disk.overwrite(&path, bytes);
            let refused = now.restore(NEW, None);
            let Err(LogError::Corrupt { file, .. }) = &refused else { panic!("{}: {refused:?}", path.display()) };
            assert!(*file == path, "{}: {refused:?}", path.display());
            assert!(now.disk.open(Path::new("/new/foldlog.json")).is_err());
        }
    }
}
