//! What is redacted while a backup is taken.

use foldlog_log::StreamVersion;

use super::*;

/// Every thread has its turn.
fn turn(stepper: &mut Stepper) {
    stepper.compact().unwrap();
    stepper.commit().unwrap();
    stepper.tidy().unwrap();
    stepper.upkeep().unwrap();
}

/// Seals what there is, however little.
fn seal(log: &mut Log) {
    log.stepper.tidy().unwrap();
    log.clock.advance(Duration::from_secs(8 * 24 * 3600));
    log.stepper.upkeep().unwrap();
    log.stepper.tidy().unwrap();
}

fn has(world: &World, folder: &str, text: &str) -> bool {
    let files = world.disk.paths().into_iter().filter(|path| path.starts_with(folder));
    files.map(|path| world.disk.bytes_of(&path).unwrap()).any(|bytes| bytes.windows(text.len()).any(|part| part == text.as_bytes()))
}

#[test]
fn what_is_redacted_while_a_backup_is_taken_waits_for_it_and_is_in_no_later_one() {
    let mut world = World::new(32);
    let mut log = world.open(DATA);
    log.create();
    let secret = log.append_all(100..130).remove(0).texts.remove(0);
    seal(&mut log);
    log.log.allow_removal();
    let before = log.texts();
    let (opened, mut stepper) = (log.log, log.stepper);
    let left = || opened.redacting(&name("e"), None).unwrap();
    stepper
        .back_up_beside(Path::new(BACKUP), |stepper| {
            let stream = "a0".parse().unwrap();
            let (versions, by, reason) = (vec![StreamVersion::FIRST], "ann".into(), "asked to".into());
            let writes = vec![Write::Redact { topic: name("e"), stream, versions, by, reason }];
            let answer = opened.append(Append { writes, ..Append::default() }).unwrap();
            stepper.commit().unwrap();
            answer.now_or_never().unwrap().unwrap();
            (0..20).for_each(|_| turn(stepper));
            assert_eq!((left().events, left().waits_for), (1, Some("readers and backups of segments that were replaced")));
        })
        .unwrap();
    // It is as of a position before.
    world.restore(NEW, None).unwrap();
    let restored = world.open(NEW);
    assert_eq!(restored.texts(), before);
    assert_eq!(restored.log.redacting(&name("e"), None).unwrap().since, None);
    drop(restored);

    (0..50).for_each(|_| turn(&mut stepper));
    assert_eq!(left().since, None);
    assert!(!has(&world, DATA, &secret) && has(&world, BACKUP, &secret), "redaction reaches no backup");
    stepper.back_up(Path::new(BACKUP)).unwrap();
    assert!(!has(&world, BACKUP, &secret), "the next one takes its place");
    drop((opened, stepper));
    world.restore("/newer", None).unwrap();
    let after = before.iter().filter(|text| **text != secret).cloned().collect::<Vec<_>>();
    assert_eq!(world.open("/newer").texts(), after);
}
