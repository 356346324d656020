//! Compaction by key, where there is any: who may ask for it, and what must be left while it happens.

use std::{collections::BTreeMap, time::Duration};

use super::{Case, Needs, Subject, block_on, name};
use crate::{
    compaction::Compaction,
    error::LogError,
    ids::{Offset, PartitionId},
    record::{Append, NewRecord, ReadLimits, Selection, Write},
    topic::{TopicKind, TopicSettings},
};

pub(super) const CASES: &[Case] = &[
    Case { name: "only tables may be compacted by key", needs: Needs::Nothing, run: only_tables },
    Case { name: "the newest record of each key of a table is left in its place", needs: Needs::Nothing, run: newest_are_left },
];

const OFTEN: Compaction =
    Compaction { delete_retention: Duration::ZERO, min_lag: Duration::ZERO, max_lag: Duration::from_secs(1), dirty_percent: 1 };

fn only_tables(subject: &mut dyn Subject) {
    let log = subject.log();
    let create = |topic, kind, compaction| log.create_topic(name(topic), TopicSettings { compaction, ..TopicSettings::new(kind, 2) });
    for kind in [TopicKind::Events, TopicKind::Records] {
        let Err(LogError::Invalid { field, .. }) = create("t", kind, OFTEN) else { panic!("a topic of kind {kind} is compacted by key") };
        assert_eq!(field, "compaction");
    }
    let table = create("t", TopicKind::Table, OFTEN);
    if !log.capabilities().compaction {
        assert!(matches!(table, Err(LogError::Invalid { field, .. }) if field == "compaction"));
        return;
    }
    table.expect("a table may be compacted");
    let wrong = Compaction { min_lag: Duration::from_secs(2), ..OFTEN };
    assert!(matches!(create("u", TopicKind::Table, wrong), Err(LogError::Invalid { .. })));
    assert!(matches!(create("t", TopicKind::Table, Compaction::DEFAULT), Err(LogError::TopicExists { .. })));
    let states = log.compaction(&name("t")).expect("the topic is there");
    assert_eq!(states.iter().map(|state| state.partition.get()).collect::<Vec<_>>(), [0, 1]);
    create("e", TopicKind::Events, Compaction::DEFAULT).expect("the topic is new");
    assert_eq!(log.compaction(&name("e")).expect("the topic is there"), []);
    assert!(matches!(log.compaction(&name("nowhere")), Err(LogError::UnknownTopic { .. })));
}

fn newest_are_left(subject: &mut dyn Subject) {
    let log = subject.log();
    let compaction = if log.capabilities().compaction { OFTEN } else { Compaction::DEFAULT };
    log.create_topic(name("t"), TopicSettings { compaction, ..TopicSettings::new(TopicKind::Table, 1) }).expect("the topic is new");
    let mut newest = BTreeMap::new();
    for number in 0..400_u64 {
        let (key, value) = (format!("k{}", number % 7), format!("{number}:{}", "x".repeat(100)));
        let record = NewRecord { key: Some(key.clone().into()), value: Some(value.clone().into()), ..NewRecord::default() };
        let write = Write::Records { topic: name("t"), partition: None, records: vec![record] };
        block_on(log.append(Append { writes: vec![write], ..Append::default() }).expect("there is room")).expect("it is admitted");
        newest.insert(key, (number, value));
        if number % 50 != 49 {
            continue;
        }
        let mut reader = log.reader(Selection::Partition(name("t"), PartitionId::new(0), Offset::default())).expect("in range");
        let (mut found, mut next) = (BTreeMap::new(), 0);
        loop {
            let chunk = reader.read(log.head().position, ReadLimits::default()).expect("it is whole");
            for record in chunk.runs.iter().flat_map(|run| run.records()) {
                let record = record.expect("it is whole");
                assert!(record.offset.get() >= next, "a step back");
                next = record.offset.get() + 1;
                let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
                found.insert(text(record.key), (record.offset.get(), text(record.value)));
            }
            if chunk.runs.is_empty() {
                break;
            }
        }
        assert_eq!(found, newest);
    }
}
