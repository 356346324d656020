//! The topics of a folder: their manifests on disk, their partitions in memory.
//!
//! [`crate::embedded`] creates, alters, deletes and looks them up, recovery finds partitions by id. Invariant: a topic that was returned is
//! durable, and one that was deleted is so durably; a partition's index never changes and is given to no other while the process runs.

mod contents;
mod settings;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};

use crate::{
    disk::{Disk, Entry},
    error::LogError,
    ids::{PartitionId, TopicId, TopicName},
    manifest, segment,
    topic::{Topic, TopicChanges, TopicSettings},
};

use contents::{Contents, Manifest};
use settings::{check, exists};

pub(crate) use contents::{FORMAT, kind_in};

/// Folder of topics within the data folder.
pub(crate) const FOLDER: &str = "topics";

/// One partition of a topic.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) topic: Arc<Topic>,
    pub(crate) id: PartitionId,
    /// Dense over all partitions of the folder, for tables in memory; another one after each start.
    pub(crate) index: usize,
    /// The report of damage to its segments, because of which it can be read only. Shared with what it was before it was altered.
    pub(crate) damage: Arc<OnceLock<String>>,
    /// Whether the topic was deleted; shared by all that it was and is.
    gone: Arc<AtomicBool>,
}

impl Partition {
    /// Whether its topic was deleted: nobody reads or writes it any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Refuses what would go on with it once its topic was deleted.
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`].
    pub(crate) fn present(&self) -> Result<(), LogError> {
        if self.is_gone() { Err(LogError::UnknownTopic { topic: self.topic.name.clone() }) } else { Ok(()) }
    }

    /// Refuses what would be appended to it, or rests on what is in it, once it is damaged.
    ///
    /// # Errors
    /// [`LogError::PartitionReadOnly`].
    pub(crate) fn writable(&self) -> Result<(), LogError> {
        let Some(reason) = self.damage.get() else { return Ok(()) };
        Err(LogError::PartitionReadOnly { topic: self.topic.name.clone(), partition: self.id, reason: reason.clone() })
    }
}

/// A topic with its partitions.
#[derive(Debug)]
pub(crate) struct TopicEntry {
    pub(crate) topic: Arc<Topic>,
    pub(crate) partitions: Vec<Arc<Partition>>,
    /// What may be in its segments that not every build knows; durable before it is.
    contents: RwLock<Contents>,
    /// Of its manifest. Never falls: what was written under settings of then is still there.
    format: AtomicU32,
    /// Whether it was deleted.
    gone: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct State {
    by_name: BTreeMap<TopicName, Arc<TopicEntry>>,
    /// With deleted ones, as long as the journal or a checkpoint may name them.
    by_id: HashMap<TopicId, Arc<TopicEntry>>,
    /// By index, with those of deleted topics.
    partitions: Vec<Arc<Partition>>,
    /// Topics made and deleted so far.
    changes: u64,
}

/// All topics of a folder.
#[derive(Debug)]
pub(crate) struct TopicStore {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    /// Manifests are written one at a time.
    writing: Mutex<()>,
    state: RwLock<State>,
}

impl TopicStore {
    /// Reads every manifest.
    ///
    /// # Errors
    /// [`LogError::Corrupt`], [`LogError::Format`].
    pub(crate) fn open(disk: Arc<dyn Disk>, data: &Path) -> Result<Self, LogError> {
        let folder = data.join(FOLDER);
        let entries = disk.list(&folder).map_err(|source| LogError::io("list", &folder, source))?;
        let store = Self { disk, folder, writing: Mutex::new(()), state: RwLock::default() };
        for entry in entries {
            let path = store.folder.join(&entry.name);
            if entry.is_folder || !entry.name.ends_with(".json") {
                continue;
            }
            let Some(manifest) = manifest::read::<Manifest>(store.disk.as_ref(), &path, FORMAT)? else { continue };
            let corrupt = |what: &str| LogError::Corrupt { file: path.clone(), from: 0, end: 0, what: what.into() };
            if entry.name != format!("{}.json", manifest.id) {
                return Err(corrupt("it is the manifest of another topic"));
            }
            let settings = manifest.settings();
            check(&manifest.name, settings)?;
            let (Ok(name), Ok(id)) = (TopicName::from_str(&manifest.name), uuid::Uuid::parse_str(&manifest.id)) else {
                return Err(corrupt("its name or id is none"));
            };
            if !manifest.deleted && store.state.read().by_name.contains_key(&name) {
                return Err(corrupt("another topic has its name"));
            }
            store.add(Topic { name, id: TopicId::new(*id.as_bytes()), settings }, &manifest);
        }
        Ok(store)
    }

    /// Removes what topics whose creation was not finished left behind: nothing refers to it, nor ever will.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub(crate) fn settle(&self) -> Result<(), LogError> {
        let entries = self.disk.list(&self.folder).map_err(|source| LogError::io("list", &self.folder, source))?;
        for entry in entries.iter().filter(|entry| !entry.is_folder) {
            let stem = entry.name.strip_suffix(manifest::UNFINISHED).and_then(|name| name.strip_suffix('.'));
            if stem.is_some_and(|stem| uuid::Uuid::parse_str(stem).is_ok_and(|id| id.to_string() == stem)) {
                let path = self.folder.join(&entry.name);
                self.disk.remove(&path).map_err(|source| LogError::io("remove", &path, source))?;
            }
        }
        Ok(())
    }

    /// Whether a folder that has no identity holds topics, so that it was not left behind by an unfinished creation.
    pub(crate) fn holds_any(disk: &dyn Disk, data: &Path) -> bool {
        disk.list(&data.join(FOLDER)).is_ok_and(|entries| entries.iter().any(|entry| entry.name.ends_with(".json")))
    }

    /// Creates a topic durably, or returns the one there is.
    ///
    /// # Errors
    /// [`LogError::TopicExists`], [`LogError::Invalid`], [`LogError::Io`].
    pub(crate) fn create(&self, name: TopicName, settings: TopicSettings, id: TopicId) -> Result<Arc<TopicEntry>, LogError> {
        check(name.as_str(), settings)?;
        let _writing = self.writing.lock();
        if let Ok(entry) = self.get(&name) {
            return if entry.topic.settings == settings { Ok(entry) } else { Err(exists(&entry.topic, settings)) };
        }
        let topic = Topic { name, id, settings };
        let manifest = Manifest::new(&topic, Contents::default(), 1);
        self.write(&manifest)?;
        Ok(self.add(topic, &manifest))
    }

    /// Alters a topic durably. Whoever has it in hand goes on with it as it was.
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`], [`LogError::Invalid`], [`LogError::Io`].
    pub(crate) fn alter(&self, name: &TopicName, changes: &TopicChanges) -> Result<Arc<TopicEntry>, LogError> {
        let _writing = self.writing.lock();
        let before = self.get(name)?;
        let settings = changes.applied_to(before.topic.settings)?;
        check(name.as_str(), settings)?;
        if settings == before.topic.settings {
            return Ok(before);
        }
        let topic = Topic { settings, ..Topic::clone(&before.topic) };
        let manifest = Manifest::new(&topic, *before.contents.read(), before.format.load(Ordering::Acquire));
        self.write(&manifest)?;
        Ok(self.put(topic, &manifest, Some(&before)))
    }

    /// Deletes a topic durably: nobody finds it any more. Its manifest stays, for the journal and the checkpoint may name it, until
    /// [`TopicStore::forget`].
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`], [`LogError::Io`].
    pub(crate) fn delete(&self, name: &TopicName) -> Result<Arc<TopicEntry>, LogError> {
        let _writing = self.writing.lock();
        let entry = self.get(name)?;
        self.write(&Manifest::of_deleted(&entry.topic, *entry.contents.read(), entry.format.load(Ordering::Acquire)))?;
        let mut state = self.state.write();
        entry.gone.store(true, Ordering::Release);
        state.by_name.remove(name);
        state.changes += 1;
        drop(state);
        Ok(entry)
    }

    /// Removes what is left of a deleted topic that neither the journal nor a checkpoint names and nobody reads: its files, each of which
    /// `forget` lets go of, then its manifest. What is none of ours stays. May be called again. Blocking.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub(crate) fn forget(&self, entry: &TopicEntry, forget: impl Fn(&Path)) -> Result<(), LogError> {
        let folder = self.folder.join(entry.topic.id.to_string());
        for part in self.names_in(&folder)?.into_iter().filter(|part| part.is_folder).map(|part| folder.join(part.name)) {
            for file in self.names_in(&part)?.into_iter().filter(|file| segment::is_file_of_segment(&file.name)) {
                let path = part.join(file.name);
                forget(&path);
                self.disk.remove(&path).map_err(|source| LogError::io("remove", &path, source))?;
            }
            self.remove_if_empty(&part)?;
        }
        self.remove_if_empty(&folder)?;
        let sync = || self.disk.sync_folder(&self.folder).map_err(|source| LogError::io("sync", &self.folder, source));
        // Else files could come back whose topic nobody knows.
        sync()?;
        let manifest = self.folder.join(format!("{}.json", entry.topic.id));
        match self.disk.remove(&manifest) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.map_err(|source| LogError::io("remove", &manifest, source))?,
        }
        sync()?;
        self.state.write().by_id.remove(&entry.topic.id);
        Ok(())
    }

    fn names_in(&self, folder: &Path) -> Result<Vec<Entry>, LogError> {
        match self.disk.list(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            listed => listed.map_err(|source| LogError::io("list", folder, source)),
        }
    }

    /// Removes a folder; one in which something is left has its names made durable.
    fn remove_if_empty(&self, folder: &Path) -> Result<(), LogError> {
        use io::ErrorKind::{DirectoryNotEmpty, NotFound};
        match self.disk.remove_folder(folder) {
            Err(error) if error.kind() == NotFound => Ok(()),
            Err(error) if error.kind() == DirectoryNotEmpty => {
                self.disk.sync_folder(folder).map_err(|source| LogError::io("sync", folder, source))
            }
            removed => removed.map_err(|source| LogError::io("remove", folder, source)),
        }
    }

    fn write(&self, manifest: &Manifest) -> Result<(), LogError> {
        manifest::write(self.disk.as_ref(), &self.folder.join(format!("{}.json", manifest.id)), manifest)
    }

    /// Lets lives of a topic's streams be changed: its manifest says so from the first time on, durably, so that no build that would
    /// pass over the marks opens the folder.
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`], [`LogError::Io`].
    pub(crate) fn admit_changes(&self, name: &TopicName) -> Result<(), LogError> {
        self.admit(name, |contents| contents.changes = true)
    }

    /// Lets events of a topic be blank, in the same way.
    ///
    /// # Errors
    /// As [`TopicStore::admit_changes`].
    pub(crate) fn admit_blanks(&self, name: &TopicName) -> Result<(), LogError> {
        self.admit(name, |contents| contents.blanks = true)
    }

    /// Lets data of a topic's events be redacted, in the same way: no build opens the folder that would show it.
    ///
    /// # Errors
    /// As [`TopicStore::admit_changes`].
    pub(crate) fn admit_redactions(&self, name: &TopicName) -> Result<(), LogError> {
        self.admit(name, |contents| (contents.changes, contents.redactions) = (true, true))
    }

    fn admit(&self, name: &TopicName, admit: impl Fn(&mut Contents)) -> Result<(), LogError> {
        let admitted = |entry: &TopicEntry| {
            let before = *entry.contents.read();
            let mut contents = before;
            admit(&mut contents);
            (contents != before).then_some(contents)
        };
        if admitted(&*self.get(name)?).is_none() {
            return Ok(());
        }
        let _writing = self.writing.lock();
        let entry = self.get(name)?;
        if let Some(contents) = admitted(&entry) {
            let manifest = Manifest::new(&entry.topic, contents, entry.format.load(Ordering::Acquire));
            self.write(&manifest)?;
            entry.format.store(manifest.format, Ordering::Release);
            *entry.contents.write() = contents;
        }
        Ok(())
    }

    fn add(&self, topic: Topic, manifest: &Manifest) -> Arc<TopicEntry> {
        self.put(topic, manifest, None)
    }

    /// Puts a topic in place of what it was, if it was there, with the partitions that it had.
    fn put(&self, topic: Topic, manifest: &Manifest, before: Option<&TopicEntry>) -> Arc<TopicEntry> {
        let topic = Arc::new(topic);
        let gone = before.map_or_else(|| Arc::new(AtomicBool::new(manifest.deleted)), |before| Arc::clone(&before.gone));
        let before = before.map_or(&[][..], |before| &before.partitions);
        let mut state = self.state.write();
        let mut partitions = Vec::new();
        for id in 0..topic.settings.partitions {
            let known = before.get(partitions.len());
            let (index, damage) =
                known.map_or_else(|| (state.partitions.len(), Arc::default()), |known| (known.index, Arc::clone(&known.damage)));
            let partition =
                Arc::new(Partition { topic: Arc::clone(&topic), id: PartitionId::new(id), index, damage, gone: Arc::clone(&gone) });
            match state.partitions.get_mut(index) {
                Some(place) => *place = Arc::clone(&partition),
                None => state.partitions.push(Arc::clone(&partition)),
            }
            partitions.push(partition);
        }
        let contents = RwLock::new(Contents { changes: manifest.changes, blanks: manifest.blanks, redactions: manifest.redactions });
        let format = manifest.format.into();
        let entry = Arc::new(TopicEntry { topic: Arc::clone(&topic), partitions, contents, format, gone });
        if !manifest.deleted {
            state.by_name.insert(topic.name.clone(), Arc::clone(&entry));
        }
        state.changes += 1;
        state.by_id.insert(topic.id, Arc::clone(&entry));
        entry
    }

    pub(crate) fn get(&self, name: &TopicName) -> Result<Arc<TopicEntry>, LogError> {
        self.state.read().by_name.get(name).cloned().ok_or_else(|| LogError::UnknownTopic { topic: name.clone() })
    }

    /// A partition as it is now.
    pub(crate) fn partition(&self, topic: TopicId, partition: PartitionId) -> Option<Arc<Partition>> {
        let state = self.state.read();
        state.by_id.get(&topic)?.partitions.get(usize::try_from(partition.get()).ok()?).cloned()
    }

    /// The report that a topic which the log knows has no manifest.
    pub(crate) fn missing(&self, topic: TopicId) -> LogError {
        let file = self.folder.join(format!("{}.json", topic));
        let what = "this topic's manifest is missing, but the log holds records of it".into();
        LogError::Corrupt { file, from: 0, end: 0, what }
    }

    /// Name of the topic with `id`; none if it was deleted.
    pub(crate) fn name_of(&self, id: TopicId) -> Option<TopicName> {
        self.state.read().by_id.get(&id).filter(|entry| !entry.is_gone()).map(|entry| entry.topic.name.clone())
    }

    /// How many topics were made and deleted so far.
    pub(crate) fn changes(&self) -> u64 {
        self.state.read().changes
    }

    /// All topics by name.
    pub(crate) fn all(&self) -> Vec<Arc<TopicEntry>> {
        self.state.read().by_name.values().cloned().collect()
    }

    /// What a topic's manifest says as long as it is not altered or deleted.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub(crate) fn manifest_of(&self, entry: &TopicEntry) -> Result<String, LogError> {
        let manifest = Manifest::new(&entry.topic, *entry.contents.read(), entry.format.load(Ordering::Acquire));
        manifest::encode(&manifest).map_err(|error| LogError::io("encode", &self.folder, io::Error::other(error)))
    }

    /// All partitions of topics that are there.
    pub(crate) fn partitions(&self) -> Vec<Arc<Partition>> {
        self.state.read().partitions.iter().filter(|partition| !partition.is_gone()).cloned().collect()
    }

    /// All partitions by index, with those of deleted topics.
    pub(crate) fn by_index(&self) -> Vec<Arc<Partition>> {
        self.state.read().partitions.clone()
    }

    /// Topics that were deleted and of which something is left.
    pub(crate) fn deleted(&self) -> Vec<Arc<TopicEntry>> {
        self.state.read().by_id.values().filter(|entry| entry.is_gone()).cloned().collect()
    }

    /// Folder of a topic's segments.
    pub(crate) fn segments_of(&self, partition: &Partition) -> PathBuf {
        self.folder.join(partition.topic.id.to_string()).join(format!("{:05}", partition.id.get()))
    }
}

impl TopicEntry {
    /// Whether it was deleted.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// The partition with `id`.
    ///
    /// # Errors
    /// [`LogError::UnknownPartition`].
    pub(crate) fn partition(&self, id: PartitionId) -> Result<&Arc<Partition>, LogError> {
        let found = usize::try_from(id.get()).ok().and_then(|place| self.partitions.get(place));
        found.ok_or_else(|| LogError::UnknownPartition {
            topic: self.topic.name.clone(),
            partition: id,
            partitions: self.topic.settings.partitions,
        })
    }

    /// The partition of a key.
    pub(crate) fn partition_for(&self, key: &[u8]) -> &Arc<Partition> {
        let id = PartitionId::for_key(key, self.topic.settings.partitions);
        &self.partitions[id.get() as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        compaction::Compaction,
        durability::Durability,
        retention::Retention,
        testing::{CallKind, Fault, SimDisk},
        topic::{Compression, TopicKind},
    };

    fn leftovers(disk: &SimDisk) -> usize {
        disk.paths().iter().filter(|path| path.extension().is_some_and(|extension| extension == manifest::UNFINISHED)).count()
    }

    #[test]
    fn settings_beyond_format_1_are_kept_in_format_2_and_a_newer_one_is_refused_by_name() {
        let (disk, data) = (SimDisk::new(1), Path::new("/data"));
        disk.create_folder(&data.join(FOLDER)).unwrap();
        let store = TopicStore::open(Arc::new(disk.clone()), data).unwrap();
        let plain = TopicSettings::new(TopicKind::Events, 1);
        let written = TopicSettings { durability: Durability::Written, ..plain };
        let compressed = TopicSettings { compression: Compression::Zstd, ..plain };
        let retention = Retention { time: Some(Duration::from_millis(1500)), bytes: Some(1 << 20) };
        let removed = TopicSettings { retention, ..TopicSettings::new(TopicKind::Records, 1) };
        let table = TopicSettings::new(TopicKind::Table, 1);
        let compaction = Compaction { max_lag: Duration::from_millis(1500), dirty_percent: 7, ..Compaction::DEFAULT };
        let (compacted, both) = (TopicSettings { compaction, ..table }, TopicSettings { retention, ..table });
        let events = TopicSettings { retention, ..plain };
        let all = [(plain, 1), (written, 2), (compressed, 2), (removed, 3), (compacted, 4), (both, 4), (table, 1), (events, 8)];
        for (number, (settings, format)) in (1..).zip(all) {
            let id = TopicId::new([number; 16]);
            store.create(format!("t{number}").parse().unwrap(), settings, id).unwrap();
            let text = disk.bytes_of(&data.join(FOLDER).join(format!("{id}.json"))).unwrap();
            assert!(String::from_utf8(text).unwrap().contains(&format!("\"format\":{format},")));
        }
        let again = TopicStore::open(Arc::new(disk.clone()), data).unwrap();
        assert_eq!(again.all().iter().map(|entry| entry.topic.settings).collect::<Vec<_>>(), all.map(|(settings, _)| settings));

        let path = data.join(FOLDER).join("next.json");
        manifest::write(&disk, &path, &serde_json::json!({ "format": FORMAT + 1, "unheard_of": true })).unwrap();
        match TopicStore::open(Arc::new(disk), data) {
            Err(LogError::Format { file, found: 9, supported: 8 }) => assert_eq!(file, path),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_topic_that_was_not_finished_leaves_nothing_behind() {
        let data = Path::new("/data");
        let settings = TopicSettings::new(TopicKind::Events, 1);
        for (kind, is_crash) in [(CallKind::Write, false), (CallKind::Sync, true), (CallKind::Rename, true)] {
            let disk = SimDisk::new(1);
            disk.create_folder(&data.join(FOLDER)).unwrap();
            let store = TopicStore::open(Arc::new(disk.clone()), data).unwrap();
            disk.arm(Fault::Fail { kind: Some(kind), nth: 0, errno: if is_crash { 5 } else { 28 } });
            assert!(store.create("t".parse().unwrap(), settings, TopicId::new([7; 16])).is_err());
            assert_eq!(leftovers(&disk), usize::from(is_crash), "{kind:?}");
            disk.create(&data.join(FOLDER).join("notes.new")).unwrap();

            let store = TopicStore::open(Arc::new(disk.clone()), data).unwrap();
            store.settle().unwrap();
            assert_eq!(leftovers(&disk), 1, "what is none of ours stays");
            assert!(store.all().is_empty());
        }
    }
}
