//! Topics that are made, altered and deleted before and after a backup.

use foldlog_log::{Compression, TopicChanges};

use super::*;

fn names(log: &Log) -> Vec<String> {
    log.log.topics().iter().map(|topic| topic.name.to_string()).collect()
}

#[test]
fn topics_are_restored_as_they_were_when_the_backup_was_taken() {
    let mut world = world(21);
    let mut log = world.open();
    create(&log);
    let mut units = append_all(&mut log, 0..8);
    log.stepper.tidy().unwrap();
    // Deleted, and still named by the checkpoint and by the window of requests; another one has its name.
    log.log.delete_topic(&name("e")).unwrap();
    log.log.create_topic(name("e"), TopicSettings::new(TopicKind::Events, 2)).unwrap();
    let changes = TopicChanges { partitions: Some(3), compression: Some(Compression::Zstd), ..TopicChanges::default() };
    log.log.alter_topic(&name("r"), changes).unwrap();
    units.extend(append_all(&mut log, 8..12));
    log.back_up();
    let settings = log.log.topics().iter().find(|topic| topic.name == name("r")).unwrap().settings;
    // Afterwards: in no backup.
    log.log.delete_topic(&name("r")).unwrap();
    log.log.create_topic(name("later"), TopicSettings::new(TopicKind::Records, 1)).unwrap();
    drop(log);

    world.restore(NEW, None).unwrap();
    let mut log = world.open_at(NEW);
    assert_eq!(names(&log), ["e", "r"]);
    assert_eq!(log.log.topics().iter().find(|topic| topic.name == name("r")).unwrap().settings, settings);
    // Of the first eight units what they wrote to the topic that stayed.
    let expected = units.iter().enumerate().flat_map(|(number, unit)| {
        unit.texts.iter().enumerate().filter(move |(place, _)| number >= 8 || matches!(place, 1 | 2)).map(|(_, text)| text.clone())
    });
    assert_eq!(read(&log), expected.collect::<Vec<_>>());
    let more = append(&mut log, 100);
    assert!(read(&log).ends_with(&more.texts));
    assert!(!world.disk.paths().iter().any(|path| path.starts_with(NEW) && path.extension().is_some_and(|one| one == "restoring")));
}
