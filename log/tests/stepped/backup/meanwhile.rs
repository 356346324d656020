//! What is redacted while a backup is taken.

use super::{
    super::room::{commit, redact, turn},
    *,
};

fn has(world: &Folder, folder: &str, text: &str) -> bool {
    let files = world.files_in(folder).into_iter().map(|path| world.disk.bytes_of(&path).unwrap());
    files.into_iter().any(|bytes| bytes.windows(text.len()).any(|part| part == text.as_bytes()))
}

#[test]
fn what_is_redacted_while_a_backup_is_taken_waits_for_it_and_is_in_no_later_one() {
    let mut world = world(32);
    let mut log = world.open();
    create(&log);
    let secret = append_all(&mut log, 100..130).remove(0).texts.remove(0);
    log.seal();
    let before = read(&log);
    let (opened, mut stepper) = (log.log, log.stepper);
    let left = || opened.redacting(&name("e"), None).unwrap();
    stepper
        .back_up_beside(Path::new(BACKUP), |stepper| {
            commit(&opened, stepper, Append { writes: vec![redact("e", "a0", &[1])], ..Append::default() }).unwrap();
            (0..20).for_each(|_| turn(stepper).unwrap());
            assert_eq!((left().events, left().waits_for), (1, Some("readers and backups of segments that were replaced")));
        })
        .unwrap();
    // It is as of a position before.
    world.restore(NEW, None).unwrap();
    let restored = world.open_at(NEW);
    assert_eq!(read(&restored), before);
    assert_eq!(restored.log.redacting(&name("e"), None).unwrap().since, None);
    drop(restored);

    (0..50).for_each(|_| turn(&mut stepper).unwrap());
    assert_eq!(left().since, None);
    assert!(!has(&world, DATA, &secret) && has(&world, BACKUP, &secret), "redaction reaches no backup");
    stepper.back_up(Path::new(BACKUP)).unwrap();
    assert!(!has(&world, BACKUP, &secret), "the next one takes its place");
    drop((opened, stepper));
    world.restore("/newer", None).unwrap();
    let after = before.iter().filter(|text| **text != secret).cloned().collect::<Vec<_>>();
    assert_eq!(read(&world.open_at("/newer")), after);
}
