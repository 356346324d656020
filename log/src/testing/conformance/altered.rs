//! Topics altered while they are in use.

use super::*;
use crate::{
    durability::Durability,
    topic::{Topic, TopicChanges},
};

pub(super) const CASES: &[Case] = &[
    Case { name: "a topic is altered and goes on as it is from then on", needs: Needs::Nothing, run: goes_on_altered },
    Case { name: "what cannot be altered is refused with the reason", needs: Needs::Nothing, run: refusals },
    Case { name: "partitions are added under readers and writers", needs: Needs::Order, run: partitions_are_added },
    Case { name: "what was altered is so after a restart", needs: Needs::Restart, run: after_a_restart },
];

fn alter(log: &dyn LogBackend, topic: &str, changes: TopicChanges) -> Arc<Topic> {
    log.alter_topic(&name(topic), changes).expect("it can be altered")
}

fn more(partitions: u32) -> TopicChanges {
    TopicChanges { partitions: Some(partitions), ..TopicChanges::default() }
}

fn weaker() -> TopicChanges {
    TopicChanges { durability: Some(Durability::Written), compression: Some(Compression::Zstd), ..TopicChanges::default() }
}

fn goes_on_altered(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "e", TopicKind::Events, 2);
    let before = log.topic(&name("e")).expect("it exists");
    let first = put(&*log, writes([events_of("e", "s", &["1"])]));
    assert_eq!(first.durability, Durability::Synced);
    let altered = alter(&*log, "e", weaker());
    let settings = TopicSettings { durability: Durability::Written, compression: Compression::Zstd, ..before.settings };
    assert_eq!(*altered, Topic { settings, ..Topic::clone(&before) }, "nothing else is another");
    assert_eq!(log.topic(&name("e")).expect("it exists"), altered);
    assert!(log.topics().contains(&altered) && !log.topics().contains(&before));
    assert_eq!(alter(&*log, "e", weaker()), altered, "the same again is no error");
    assert_eq!(put(&*log, writes([events_of("e", "s", &["2"])])).durability, Durability::Written);
    let back = TopicChanges { durability: Some(Durability::Synced), ..TopicChanges::default() };
    assert_eq!(alter(&*log, "e", back).settings, TopicSettings { durability: Durability::Synced, ..settings });
    assert_eq!(put(&*log, writes([events_of("e", "s", &["3"])])).durability, Durability::Synced);
    assert_eq!(values(&read(&*log, from_version("e", "s", 1))), ["1", "2", "3"]);
    assert!(matches!(log.create_topic(name("e"), before.settings), Err(LogError::TopicExists { .. })));
}

fn refusals(subject: &mut dyn Subject) {
    let log = subject.log();
    for (topic, kind) in [("e", TopicKind::Events), ("t", TopicKind::Table), ("r", TopicKind::Records)] {
        create(&*log, topic, kind, 3);
    }
    let all = log.topics();
    let refused = |topic: &str, changes: TopicChanges, words: &str| match log.alter_topic(&name(topic), changes) {
        Err(LogError::Invalid { reason, .. }) => assert!(reason.contains(words), "{reason}"),
        other => panic!("{changes:?} of {topic}: {other:?}"),
    };
    refused("e", TopicChanges::default(), "nothing");
    refused("e", more(4), "a stream");
    refused("t", more(4), "a key");
    refused("r", more(2), "there are 3 already");
    refused("r", more(0), "there are 3 already");
    refused("r", more(TopicSettings::MAX_PARTITIONS + 1), "1");
    // One thing that is wrong leaves all as it is.
    refused("e", TopicChanges { partitions: Some(4), ..weaker() }, "a stream");
    assert!(matches!(log.alter_topic(&name("none"), weaker()), Err(LogError::UnknownTopic { .. })));
    for topic in ["e", "t", "r"] {
        assert_eq!(alter(&*log, topic, more(3)).settings.partitions, 3, "as many as there are");
    }
    assert_eq!(log.topics(), all);
}

fn partitions_are_added(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "r", TopicKind::Records, 1);
    let to = |partition: Option<u32>, key: &str, value: &str| {
        let partition = partition.map(PartitionId::new);
        writes([Write::Records { topic: name("r"), partition, records: vec![record(key, value)] }])
    };
    put(&*log, to(None, "k", "1"));
    assert!(append(&*log, to(Some(4), "k", "no")).is_err());
    let mut reader = log.reader(topics(&["r"], 0)).expect("it exists");
    let mut next = || {
        let mut found = Vec::new();
        loop {
            let chunk = reader.read(log.head().position, ReadLimits::default()).expect("the log is whole");
            if chunk.runs.is_empty() {
                return found;
            }
            let records = chunk.runs.iter().flat_map(records_of);
            found.extend(records.map(|read| (read.partition.get(), read.value.unwrap_or_default())));
        }
    };
    assert_eq!(next(), [(0, "1".to_owned())]);

    alter(&*log, "r", more(5));
    assert_eq!(log.ends(&name("r")).expect("it exists").iter().map(|end| end.get()).collect::<Vec<_>>(), [1, 0, 0, 0, 0]);
    assert_eq!(log.firsts(&name("r")).expect("it exists"), [Offset::new(0); 5]);
    put(&*log, to(Some(4), "k", "2"));
    // Keys that the reader's partition had may lie in another one now.
    let keyed = put(&*log, to(None, "some key", "3"));
    assert_eq!(keyed.ranges[0].partition, PartitionId::for_key(b"some key", 5));
    put(&*log, to(Some(0), "k", "4"));
    let expected = [(4, "2"), (keyed.ranges[0].partition.get(), "3"), (0, "4")].map(|(partition, value)| (partition, value.to_owned()));
    assert_eq!(next(), expected, "who reads the topic sees its new partitions");
    assert_eq!(values(&read(&*log, partition("r", 4, 0))), ["2"]);
    assert_eq!(values(&read_back(&*log, topics(&["r"], 4), log.head().position, ReadLimits::default())), ["4", "3", "2", "1"]);
}

fn after_a_restart(subject: &mut dyn Subject) {
    let log = subject.log();
    create(&*log, "r", TopicKind::Records, 2);
    create(&*log, "e", TopicKind::Events, 2);
    let fill = |log: &dyn LogBackend| {
        for number in 0..30 {
            let record = record(&format!("key {number}"), &format!("{number} {}", "x".repeat(300)));
            let records = Write::Records { topic: name("r"), partition: None, records: vec![record] };
            // So that what was answered can be read.
            let synced = Some(Durability::Synced);
            put(log, Append { durability: synced, ..writes([records, events_of("e", "s", &[&number.to_string()])]) });
        }
    };
    fill(&*log);
    alter(&*log, "r", TopicChanges { partitions: Some(4), ..weaker() });
    alter(&*log, "e", weaker());
    fill(&*log);
    let seen = |log: &dyn LogBackend| {
        let selections = (0..4).map(|number| partition("r", number, 0)).chain([from_version("e", "s", 1)]);
        (log.topics(), selections.map(|selection| read(log, selection)).collect::<Vec<_>>(), log.ends(&name("r")).expect("it exists"))
    };
    let before = seen(&*log);
    assert!(before.2.iter().all(|end| end.get() > 0), "{:?}", before.2);
    drop(log);
    assert!(subject.restart());
    let log = subject.log();
    assert!(seen(&*log) == before);
    fill(&*log);
    assert_eq!(alter(&*log, "r", more(9)).settings.partitions, 9);
    assert_eq!(log.ends(&name("r")).expect("it exists").iter().map(|end| end.get()).sum::<u64>(), 90);
}
