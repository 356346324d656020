//! What groups remember, folded from `_foldlog.offsets` when a server starts.
//!
//! Called by [`super::Groups::open`]. Only the newest value of each key is held; what is older goes with compaction.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use foldlog_log::{LogBackend, LogError, Position, ReadLimits, Selection, TopicKind, TopicName, TopicSettings};

use super::{
    config::GroupName,
    delivery::At,
    losses::Lost,
    parked::Parked,
    progress::{Bucket, Progress},
    record::{self, Definition, Key, OFFSETS_TOPIC},
};

/// A group with all that it remembers.
#[derive(Debug)]
pub struct Folded {
    /// The group.
    pub definition: Definition,
    /// Low marks by partition; others begin at 0.
    pub lows: HashMap<u32, u64>,
    /// Buckets by partition and number.
    pub buckets: BTreeMap<(u32, u64), Bucket>,
    /// What it put aside.
    pub parked: BTreeMap<At, Parked>,
    /// What it lost, by partition.
    pub lost: BTreeMap<u32, Lost>,
}

impl Folded {
    /// A group that begins at these offsets.
    pub fn new(definition: Definition, starts: &[u64]) -> Self {
        let lows = (0..).zip(starts.iter().copied()).collect();
        Self { definition, lows, buckets: BTreeMap::new(), parked: BTreeMap::new(), lost: BTreeMap::new() }
    }

    /// How many partitions it is known to have begun with, or to have done something in.
    pub fn partitions(&self) -> u32 {
        let buckets = self.buckets.keys().map(|(partition, _)| *partition);
        self.lows.keys().copied().chain(buckets).max().map_or(0, |last| last + 1)
    }

    /// The progress of so many partitions.
    pub fn progress(&mut self, partitions: u32) -> Vec<Progress> {
        let mut by_partition: BTreeMap<u32, Vec<(u64, Bucket)>> = BTreeMap::new();
        for ((partition, number), bucket) in std::mem::take(&mut self.buckets) {
            by_partition.entry(partition).or_default().push((number, bucket));
        }
        let low = |partition| self.lows.get(&partition).copied().unwrap_or_default();
        (0..partitions).map(|number| Progress::restore(low(number), by_partition.remove(&number).unwrap_or_default())).collect()
    }
}

/// The name of the topic.
///
/// # Errors
/// None: it is a name.
pub fn topic() -> Result<TopicName, LogError> {
    Ok(OFFSETS_TOPIC.parse()?)
}

/// Makes the topic if there is none (blocking).
///
/// # Errors
/// As [`LogBackend::create_topic`].
pub fn create_topic(log: &dyn LogBackend) -> Result<(), LogError> {
    log.create_topic(topic()?, TopicSettings::new(TopicKind::Table, 1)).map(drop)
}

/// Folds the topic up to the durable end (blocking), if there is one. Also returns keys of groups and generations that are gone.
///
/// # Errors
/// Where it cannot be read, or holds what this version does not understand: then by key.
pub fn fold(log: &dyn LogBackend) -> Result<(Vec<Folded>, Vec<Key>), LogError> {
    let name = topic()?;
    if matches!(log.topic(&name), Err(LogError::UnknownTopic { .. })) {
        return Ok((Vec::new(), Vec::new()));
    }
    let end = log.head().position;
    let mut reader = log.reader(Selection::Topics(vec![name], Position::new(0)))?;
    let mut live: BTreeMap<Bytes, Bytes> = BTreeMap::new();
    loop {
        let chunk = reader.read(end, ReadLimits::default())?;
        for run in &chunk.runs {
            for record in run.records() {
                let record = record?;
                let key = Bytes::copy_from_slice(record.key.unwrap_or_default());
                match record.value {
                    Some(value) => live.insert(key, Bytes::copy_from_slice(value)),
                    None => live.remove(&key),
                };
            }
        }
        if chunk.scanned_to >= end {
            return groups(live);
        }
    }
}

fn groups(live: BTreeMap<Bytes, Bytes>) -> Result<(Vec<Folded>, Vec<Key>), LogError> {
    let mut groups: BTreeMap<GroupName, Folded> = BTreeMap::new();
    let mut parts = Vec::new();
    for (key, value) in live {
        match Key::decode(&key) {
            Some(Key::Group(name)) => {
                let definition = Definition::decode(name.clone(), &value).map_err(|reason| not_understood(&key, reason))?;
                groups.insert(name, Folded::new(definition, &[]));
            }
            Some(part) => parts.push((part, value)),
            None => return Err(not_understood(&key, "there is no such kind of key".to_owned())),
        }
    }
    let mut gone = Vec::new();
    for (part, value) in parts {
        if !belongs(&groups, &part) {
            gone.push(part);
            continue;
        }
        let taken = take(&mut groups, &part, &value);
        taken.ok_or_else(|| not_understood(&part.encode(), "its value is none of such a key".to_owned()))?;
    }
    Ok((groups.into_values().collect(), gone))
}

fn belongs(groups: &BTreeMap<GroupName, Folded>, part: &Key) -> bool {
    let definition = |name| groups.get(name).map(|group| &group.definition);
    match part {
        Key::Group(_) => true,
        Key::Low(name, generation, _) | Key::Bucket(name, generation, ..) | Key::Lost(name, generation, _) => {
            definition(name).is_some_and(|definition| definition.generation == *generation)
        }
        Key::Parked(name, id, _) => definition(name).is_some_and(|definition| definition.id == *id),
    }
}

fn take(groups: &mut BTreeMap<GroupName, Folded>, part: &Key, value: &[u8]) -> Option<()> {
    match part {
        Key::Group(_) => {}
        Key::Low(name, _, partition) => drop(groups.get_mut(name)?.lows.insert(*partition, record::decode_low(value)?)),
        Key::Bucket(name, _, partition, number) => {
            drop(groups.get_mut(name)?.buckets.insert((*partition, *number), record::decode(value)?));
        }
        Key::Lost(name, _, partition) => drop(groups.get_mut(name)?.lost.insert(*partition, record::decode_lost(value)?)),
        Key::Parked(name, _, at) => drop(groups.get_mut(name)?.parked.insert(*at, record::decode_parked(value)?)),
    }
    Some(())
}

fn not_understood(key: &[u8], reason: String) -> LogError {
    let field = format!("{OFFSETS_TOPIC}, key {}", String::from_utf8_lossy(key));
    LogError::Invalid { field, reason: format!("this version does not understand it: {reason}") }
}
