//! Tables that are compacted, before a backup and while one is taken: what is restored of them, whole and cut.

use super::{
    super::room::{of_partition, record},
    *,
};

/// A record: offset, position, when, and its text (none: a tombstone).
type Left = (u64, u64, i64, Option<String>);

fn table(log: &Log) {
    log.log.create_topic(name("t"), TopicSettings::new(TopicKind::Table, 1)).unwrap();
}

fn put(log: &mut Log, key: u64, value: Option<String>) {
    log.clock.advance(Duration::from_millis(1));
    log.write(record("t", &format!("key{key}"), value));
}

/// Records of 12 keys, each a unit of its own, a checkpoint behind every few.
fn fill(log: &mut Log, numbers: std::ops::Range<u64>) {
    let mut random = Random::new(numbers.start);
    for number in numbers {
        let value = (!random.one_in(9)).then(|| format!("{number}-{}", "x".repeat(150)));
        put(log, random.below(12), value);
        if number % 9 == 8 {
            log.stepper.tidy().unwrap();
        }
    }
}

/// Seals what there is, and compacts until nothing is due.
fn compact(log: &mut Log) {
    log.seal();
    log.compact();
}

fn left(log: &Log) -> Vec<Left> {
    log.read(log.log.reader(of_partition("t", 0)), Way::Forwards, ReadLimits::default(), |run, record| {
        let value = record.value.map(|value| String::from_utf8(value.to_vec()).unwrap());
        (record.offset.get(), record.position.get(), run.recorded_at.get(), value)
    })
}

fn files(world: &Folder, folder: &str, extension: &str) -> usize {
    world.files_in(folder).iter().filter(|path| path.extension().is_some_and(|one| one == extension)).count()
}

#[test]
fn a_compacted_table_is_restored_as_it_was_and_goes_on() {
    let mut world = world(11);
    let mut log = world.open();
    table(&log);
    fill(&mut log, 0..200);
    let first = log.back_up();
    compact(&mut log);
    fill(&mut log, 200..210);
    // The segments of then are gone, and so they are from the next backup, which links those that took their place.
    let next = log.back_up();
    assert!(next.bytes < first.bytes / 2 && next.linked_bytes > 0, "{first:?} {next:?}");
    assert_eq!(files(&world, "/backup/files", "log") + files(&world, "/backup/files", "runs"), next.files as usize);
    let (before, ends) = (left(&log), log.log.ends(&name("t")).unwrap());
    assert!(before.len() < 100, "{}", before.len());
    drop(log);

    let restored = world.restore(NEW, None).unwrap();
    assert_eq!(restored.thinned, Vec::<String>::new());
    let mut log = world.open_at(NEW);
    assert_eq!((left(&log), log.log.ends(&name("t")).unwrap()), (before.clone(), ends));
    // It is known how far it is compacted, and goes on from there.
    assert!(!log.stepper.compact().unwrap(), "nothing is new but what is appended to");
    fill(&mut log, 210..400);
    compact(&mut log);
    let (after, newest) = (left(&log), before.len());
    assert!(after.len() < newest + 60, "{} of {newest} and 190", after.len());
    drop(log);
    assert_eq!(left(&world.open_at(NEW)), after);
}

#[test]
fn a_cut_within_a_compacted_segment_leaves_what_was_there_and_says_what_may_be_missing() {
    let mut world = world(12);
    let mut log = world.open();
    table(&log);
    fill(&mut log, 0..150);
    compact(&mut log);
    fill(&mut log, 150..200);
    log.back_up();
    let before = left(&log);
    drop(log);
    let compacted = before.iter().filter(|(offset, ..)| *offset < 150).count();
    assert!((5..60).contains(&compacted) && before.len() > compacted, "{before:?}");
    // Of the segment that was written anew nothing, one record, a part, all; then a part of what came later, and everything.
    let places = [None, Some(0), Some(compacted / 2), Some(compacted - 1), Some(compacted + 20), Some(before.len() - 1)];
    for (number, place) in places.into_iter().enumerate() {
        let folder = format!("/new-{number}");
        let until = place.map_or(before[0].2 - 1, |place| before[place].2);
        let restored = world.restore(&folder, Some(Until::Time(Timestamp::new(until)))).unwrap();
        let mut log = world.open_at(&folder);
        let mut expected: Vec<_> = before.iter().filter(|(_, _, at, _)| *at <= until).cloned().collect();
        assert_eq!(left(&log), expected, "{place:?}");
        let is_whole = until == before[before.len() - 1].2;
        assert_eq!(restored.thinned.is_empty(), is_whole, "{place:?}: {restored:?}");
        // It goes on right behind, and is compacted like any other.
        put(&mut log, 1, Some("new".into()));
        let ends = log.log.ends(&name("t")).unwrap();
        let last = left(&log).pop().unwrap();
        assert_eq!((last.0, last.1, last.3.as_deref()), (ends[0].get() - 1, restored.next.get(), Some("new")));
        expected.push(last);
        assert_eq!(left(&log), expected);
        fill(&mut log, 1000..1060);
        compact(&mut log);
        let after = left(&log);
        assert!(after.len() < 60, "{}", after.len());
        drop(log);
        assert_eq!(left(&world.open_at(&folder)), after);
    }
    // A position at which nothing is left any more is a cut like any other.
    let hole = before.windows(2).position(|two| two[0].1 + 1 < two[1].1 && two[0].2 < two[1].2).unwrap();
    let asked = Position::new(before[hole].1 + 1);
    let restored = world.restore("/hole", Some(Until::Position(asked))).unwrap();
    assert_eq!((restored.position, left(&world.open_at("/hole"))), (asked, before[..=hole].to_vec()));
}

#[test]
fn what_is_compacted_or_deleted_while_a_backup_is_taken_stays_until_it_is() {
    let mut world = world(13);
    let mut log = world.open();
    table(&log);
    create(&log);
    let units = append_all(&mut log, 0..10);
    fill(&mut log, 0..120);
    let (before, logs) = (left(&log), files(&world, DATA, "log"));
    let Log { log: opened, mut stepper, clock } = log;
    stepper
        .back_up_beside(Path::new(BACKUP), |stepper| {
            opened.delete_topic(&name("e")).unwrap();
            clock.advance(LONG);
            for _ in 0..3 {
                stepper.upkeep().unwrap();
                stepper.commit().unwrap();
                stepper.tidy().unwrap();
                while stepper.compact().unwrap() {
                    stepper.commit().unwrap();
                }
            }
            assert!(files(&world, DATA, "log") > logs, "what it has in hand stays, beside what took its place");
        })
        .unwrap();
    for _ in 0..3 {
        stepper.upkeep().unwrap();
        stepper.tidy().unwrap();
    }
    assert!(files(&world, DATA, "log") < logs);
    drop((opened, stepper));
    world.restore(NEW, None).unwrap();
    let log = world.open_at(NEW);
    assert_eq!(left(&log), before);
    let there: BTreeSet<_> = read(&log).into_iter().collect();
    assert!(texts(&units).iter().all(|text| there.contains(text)));
}
