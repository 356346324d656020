//! Checkpoints in a page store (sled): what changed is put beside what is there, and a head makes it one.
//!
//! Keys are packed pages cut into pieces, never rows: rows would cost many times their size in memory. A page is put under the
//! number of its checkpoint, so that the one before stays whole until the new head is in; what was replaced goes after the
//! sync. sled's own flush is no sync: its files are synced here. Invariants: a head is the last thing of its checkpoint that is
//! put; nothing is removed before what replaces it is synced. Whatever it does with damaged files, panics included, ends here.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use foldlog_log::disk::Disk;
use parking_lot::{Mutex, RwLock};
use sled::{Batch, Config, Db, Mode};

use super::{Place, Saving, StateStore, StoreError, Visit, aside};

/// Name of the folder of sled's files.
const FOLDER: &str = "pages";
/// Longest piece of a page: what is longer sled would put into files of their own, which pile up.
const PIECE: usize = 48 << 10;
/// Bytes that are handed over at once: they wait in memory, and keep others out while they go in.
const BATCH: usize = 1 << 20;
/// Removals that are handed over at once.
const REMOVALS: usize = 512;
/// sled's cache. Pages are read once, at a start; it holds many times as much as it is told if that is too little.
const CACHE: u64 = 32 << 20;
/// How often opening is tried while the files are locked: the process before may be about to end.
const TRIES: u32 = 50;
const BETWEEN_TRIES: Duration = Duration::from_millis(100);
/// Checkpoints that were set aside and are kept.
const ASIDE: usize = 4;

/// First bytes of keys.
const HEAD: u8 = b'h';
const PAGE: u8 = b'p';
const SET_ASIDE: u8 = b's';

/// See the head of this file.
#[derive(Debug)]
pub struct PageStore {
    disk: Arc<dyn Disk>,
    /// Where sled's folder lies.
    parent: PathBuf,
    /// None while it is opened again, or if that failed.
    db: RwLock<Option<Db>>,
    /// Whether sled has failed: from then on it refuses everything, also when the disk has room again.
    has_failed: AtomicBool,
    index: Mutex<Index>,
}

/// What is known of the pages.
#[derive(Debug, Default)]
struct Index {
    owners: HashMap<String, Kept>,
    /// No instance has this number or a higher one.
    next: u64,
    /// What goes after the next sync.
    replaced: Vec<Vec<u8>>,
    /// Instances of which everything goes then.
    gone: Vec<u64>,
}

/// An owner's newest checkpoint.
#[derive(Clone, Debug)]
struct Kept {
    /// Number of a row of checkpoints, each of which builds on the one before.
    instance: u64,
    /// Number of the checkpoint among them.
    epoch: u64,
    /// The highest such number that was ever given: what was begun and not ended may have left pages.
    begun: u64,
    /// Where its pages are; none: they were neither read nor written since the store was opened, and nothing can build on them.
    pages: Option<Arc<BTreeMap<Place, Stored>>>,
}

/// A page as it lies there.
#[derive(Clone, Copy, Debug)]
struct Stored {
    epoch: u64,
    pieces: u16,
}

impl PageStore {
    /// Opens the page store in a folder, or makes it. What cannot be opened is set aside, for an empty one.
    ///
    /// # Errors
    /// What the disk says.
    pub fn open(disk: Arc<dyn Disk>, parent: &Path) -> Result<Self, StoreError> {
        let folder = parent.join(FOLDER);
        let (db, index) = match opened(&folder) {
            Ok(opened) => opened,
            Err(StoreError::Pages(sled::Error::Io(error))) if is_locked(&error) || !is_damage(&error) => {
                return Err(StoreError::io("open", &folder)(error));
            }
            Err(error) => {
                let aside = aside::set_aside(disk.as_ref(), parent, FOLDER)?;
                let error = super::chain(&error);
                tracing::error!(error, aside = %aside.display(), "checkpoints of queries are damaged and set aside: queries fold from the log");
                opened(&folder)?
            }
        };
        let (db, has_failed) = (RwLock::new(Some(db)), AtomicBool::new(false));
        Ok(Self { disk, parent: parent.to_owned(), db, has_failed, index: Mutex::new(index) })
    }

    fn kept(&self, owner: &str) -> Option<Kept> {
        self.index.lock().owners.get(owner).cloned()
    }

    /// Runs what needs sled, and remembers if it fails.
    fn with_db<T>(&self, call: impl FnOnce(&Db) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let db = self.db.read();
        let done = db.as_ref().ok_or(StoreError::Closed).and_then(|db| guarded(|| call(db)));
        if matches!(done, Err(StoreError::Pages(_) | StoreError::Closed)) {
            self.has_failed.store(true, Ordering::Release);
        }
        done
    }

    /// Opens sled again if it has failed. What was not synced may be gone: nothing builds on what was there.
    fn recover(&self) -> Result<(), StoreError> {
        if !self.has_failed.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut db = self.db.write();
        // Its files are locked until it is gone.
        guarded(|| {
            drop(db.take());
            Ok(())
        })?;
        let (again, index) = opened(&self.parent.join(FOLDER))?;
        tracing::info!("the page store failed, and was opened again");
        (*db, *self.index.lock()) = (Some(again), index);
        self.has_failed.store(false, Ordering::Release);
        Ok(())
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        self.with_db(|db| Ok(db.apply_batch(batch)?))
    }

    /// Syncs sled's files, and the names of all of them.
    fn sync_files(&self) -> Result<(), StoreError> {
        let folder = self.parent.join(FOLDER);
        for folder in [&folder.join("blobs"), &folder] {
            let entries = match self.disk.list(folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                listed => listed.map_err(StoreError::io("list", folder))?,
            };
            for entry in entries.into_iter().filter(|entry| !entry.is_folder) {
                let path = folder.join(&entry.name);
                match self.disk.open(&path) {
                    // What it has replaced meanwhile.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    opened => opened.and_then(|file| file.sync()).map_err(StoreError::io("sync", &path))?,
                }
            }
            self.disk.sync_folder(folder).map_err(StoreError::io("sync", folder))?;
        }
        self.disk.sync_folder(&self.parent).map_err(StoreError::io("sync", &self.parent))
    }

    /// Removes what was replaced. What of it survives a crash is passed over by readers, and removed with its instance.
    fn let_go(&self) -> Result<(), StoreError> {
        let (mut keys, gone) = {
            let mut index = self.index.lock();
            (std::mem::take(&mut index.replaced), std::mem::take(&mut index.gone))
        };
        self.with_db(|db| {
            for instance in gone {
                let all = db.scan_prefix(page_prefix(instance)).keys();
                keys.extend(all.map(|key| key.map(|key| key.to_vec())).collect::<Result<Vec<_>, _>>()?);
            }
            for some in keys.chunks(REMOVALS) {
                let mut batch = Batch::default();
                some.iter().for_each(|key| batch.remove(key.as_slice()));
                db.apply_batch(batch)?;
            }
            Ok(())
        })
    }
}

/// Sled, and what lies in it.
fn opened(folder: &Path) -> Result<(Db, Index), StoreError> {
    let db = open(folder)?;
    let index = guarded(|| Index::of(&db))?;
    Ok((db, index))
}

fn open(folder: &Path) -> Result<Db, StoreError> {
    let config = Config::default()
        .path(folder)
        .cache_capacity(CACHE)
        .mode(Mode::LowSpace)
        .use_compression(false)
        // It is flushed where it is synced.
        .flush_every_ms(None);
    let mut tries = 0;
    loop {
        match guarded(|| Ok(config.open()?)) {
            Err(StoreError::Pages(sled::Error::Io(error))) if is_locked(&error) && tries < TRIES => {
                tries += 1;
                std::thread::sleep(BETWEEN_TRIES);
            }
            opened => return opened,
        }
    }
}

fn is_locked(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.to_string().contains("lock")
}

/// Whether an error of the disk speaks of what lies on it, rather than of the disk.
fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other)
}

/// Runs what calls sled: over damaged files it may panic.
fn guarded<T>(call: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err(StoreError::Damaged("the page store met what it did not expect".to_owned())))
}

impl From<sled::Error> for StoreError {
    fn from(error: sled::Error) -> Self {
        Self::Pages(error)
    }
}

impl Index {
    /// Reads heads; pages become known when they are read.
    fn of(db: &Db) -> Result<Self, StoreError> {
        let mut index = Self::default();
        let mut known = Vec::new();
        for entry in db.scan_prefix([HEAD]) {
            let (key, value) = entry?;
            let owner = key.get(1..).and_then(|owner| std::str::from_utf8(owner).ok());
            let (Some(owner), Some((instance, epoch, _))) = (owner, head_of(&value)) else {
                return Err(StoreError::Damaged("a head in the page store is not what was written".to_owned()));
            };
            known.push(instance);
            index.owners.insert(owner.to_owned(), Kept { instance, epoch, begun: epoch, pages: None });
        }
        for entry in db.scan_prefix([SET_ASIDE]) {
            known.extend(head_of(&entry?.1).map(|(instance, ..)| instance));
        }
        // What belongs to nobody was begun and not ended.
        let mut from = 0;
        while let Some((key, _)) = db.range(page_prefix(from)..vec![PAGE + 1]).next().transpose()? {
            let Some(instance) = key.get(1..).and_then(|key| key.first_chunk()).map(|bytes| u64::from_be_bytes(*bytes)) else { break };
            if !known.contains(&instance) {
                index.gone.push(instance);
            }
            let Some(next) = instance.checked_add(1) else { break };
            from = next;
        }
        index.next = known.into_iter().map(|instance| instance.saturating_add(1)).fold(from, u64::max);
        Ok(index)
    }
}

fn page_prefix(instance: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(25);
    key.push(PAGE);
    key.extend_from_slice(&instance.to_be_bytes());
    key
}

fn piece_key(instance: u64, place: Place, epoch: u64, piece: u16) -> Vec<u8> {
    let mut key = page_prefix(instance);
    key.extend_from_slice(&place.table.to_be_bytes());
    key.extend_from_slice(&place.page.to_be_bytes());
    key.extend_from_slice(&epoch.to_be_bytes());
    key.extend_from_slice(&piece.to_be_bytes());
    key
}

/// What a key behind its instance says: place, checkpoint, piece.
fn piece_of(key: &[u8]) -> Option<(Place, u64, u16)> {
    let (table, key) = key.get(9..)?.split_first_chunk()?;
    let (page, key) = key.split_first_chunk()?;
    let (epoch, piece) = key.split_first_chunk()?;
    let place = Place { table: u16::from_be_bytes(*table), page: u32::from_be_bytes(*page) };
    Some((place, u64::from_be_bytes(*epoch), u16::from_be_bytes(piece.try_into().ok()?)))
}

fn head_key(owner: &str) -> Vec<u8> {
    [&[HEAD], owner.as_bytes()].concat()
}

/// Instance, number of the checkpoint, and what its owner said.
fn head_of(value: &[u8]) -> Option<(u64, u64, &[u8])> {
    let (instance, value) = value.split_first_chunk()?;
    let (epoch, head) = value.split_first_chunk()?;
    Some((u64::from_le_bytes(*instance), u64::from_le_bytes(*epoch), head))
}

impl StateStore for PageStore {
    fn is_incremental(&self) -> bool {
        true
    }

    fn head(&self, owner: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let value = self.with_db(|db| Ok(db.get(head_key(owner))?))?;
        let head = |value: &sled::IVec| head_of(value).map(|(.., head)| head.to_vec());
        let damaged = || StoreError::Damaged("its head is not what was written".to_owned());
        value.map(|value| head(&value).ok_or_else(damaged)).transpose()
    }

    fn pages(&self, owner: &str, visit: Visit<'_>) -> Result<(), StoreError> {
        let Some(kept) = self.kept(owner) else { return Ok(()) };
        let (mut pages, mut replaced, mut begun) = (BTreeMap::new(), Vec::new(), kept.begun);
        let mut newest: Option<(Place, u64, Vec<Vec<u8>>)> = None;
        let mut take = |found: Option<(Place, u64, Vec<Vec<u8>>)>| {
            let Some((place, epoch, pieces)) = found else { return Ok(()) };
            pages.insert(place, Stored { epoch, pieces: u16::try_from(pieces.len()).unwrap_or(u16::MAX) });
            visit(place, &pieces.concat())
        };
        self.with_db(|db| {
            for entry in db.scan_prefix(page_prefix(kept.instance)) {
                let (key, value) = entry?;
                let damaged = || StoreError::Damaged("a page has no place".to_owned());
                let (place, epoch, piece) = piece_of(&key).ok_or_else(damaged)?;
                if epoch > kept.epoch {
                    // Of a checkpoint that was begun and not ended.
                    begun = begun.max(epoch);
                    replaced.push(key.to_vec());
                    continue;
                }
                match &mut newest {
                    Some((of, at, pieces)) if (*of, *at) == (place, epoch) => pieces.push(value.to_vec()),
                    // An older one, which was replaced and not removed.
                    Some((of, at, pieces)) if *of == place => {
                        replaced.extend(
                            (0..pieces.len()).map(|piece| piece_key(kept.instance, place, *at, u16::try_from(piece).unwrap_or(u16::MAX))),
                        );
                        newest = Some((place, epoch, vec![value.to_vec()]));
                    }
                    _ => take(newest.replace((place, epoch, vec![value.to_vec()])))?,
                }
                if newest.as_ref().is_some_and(|(.., pieces)| pieces.len() != usize::from(piece) + 1) {
                    return Err(StoreError::Damaged("a piece of a page is missing".to_owned()));
                }
            }
            take(newest.take())
        })?;
        let mut index = self.index.lock();
        index.replaced.extend(replaced);
        if let Some(known) = index.owners.get_mut(owner) {
            (known.begun, known.pages) = (known.begun.max(begun), Some(Arc::new(pages)));
        }
        Ok(())
    }

    fn begin<'a>(&'a self, owner: &str, builds_on_last: bool) -> Result<Box<dyn Saving + 'a>, StoreError> {
        self.recover()?;
        let mut index = self.index.lock();
        let known = index.owners.get_mut(owner).filter(|kept| kept.pages.is_some());
        let kept = match (known, builds_on_last) {
            (Some(kept), true) => {
                kept.begun += 1;
                Kept { epoch: kept.begun, ..kept.clone() }
            }
            (None, true) => return Err(StoreError::NoBase),
            (_, false) => {
                let instance = index.next;
                index.next += 1;
                Kept { instance, epoch: 0, begun: 0, pages: Some(Arc::default()) }
            }
        };
        Ok(Box::new(Unfinished {
            store: self,
            owner: owner.to_owned(),
            kept,
            put: Vec::new(),
            batch: Batch::default(),
            bytes: 0,
            ended: false,
        }))
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.with_db(|db| Ok(db.flush()?))?;
        self.sync_files()?;
        self.let_go()
    }

    fn set_aside(&self, owner: &str) -> Result<(), StoreError> {
        let Some(kept) = self.index.lock().owners.remove(owner) else { return Ok(()) };
        let mut gone = Vec::new();
        self.with_db(|db| {
            let before: Vec<_> = db.scan_prefix([SET_ASIDE]).collect::<Result<_, _>>()?;
            let mut batch = Batch::default();
            for (key, value) in before.iter().take((before.len() + 1).saturating_sub(ASIDE)) {
                batch.remove(key);
                gone.extend(head_of(value).map(|(instance, ..)| instance));
            }
            if let Some(head) = db.get(head_key(owner))? {
                // Instances rise, so the oldest stands first.
                batch.insert([&[SET_ASIDE], kept.instance.to_be_bytes().as_slice(), owner.as_bytes()].concat(), head);
            }
            batch.remove(head_key(owner));
            Ok(db.apply_batch(batch)?)
        })?;
        self.index.lock().gone.extend(gone);
        Ok(())
    }

    fn remove(&self, owner: &str) -> Result<(), StoreError> {
        let removed = self.index.lock().owners.remove(owner);
        self.with_db(|db| Ok(db.remove(head_key(owner))?))?;
        self.index.lock().gone.extend(removed.map(|kept| kept.instance));
        Ok(())
    }

    fn keep_only(&self, owners: &BTreeSet<&str>) -> Result<bool, StoreError> {
        let others: Vec<String> = self.index.lock().owners.keys().filter(|owner| !owners.contains(owner.as_str())).cloned().collect();
        others.iter().try_for_each(|owner| self.remove(owner))?;
        Ok(!others.is_empty())
    }
}

/// A checkpoint that is being written.
struct Unfinished<'a> {
    store: &'a PageStore,
    owner: String,
    kept: Kept,
    put: Vec<(Place, Stored)>,
    batch: Batch,
    /// Of the batch.
    bytes: usize,
    ended: bool,
}

impl Saving for Unfinished<'_> {
    fn put(&mut self, place: Place, bytes: &[u8]) -> Result<(), StoreError> {
        let pieces = bytes.chunks(PIECE);
        let count = u16::try_from(pieces.len()).map_err(|_| StoreError::Damaged(format!("a page has {} bytes", bytes.len())))?;
        for (number, piece) in (0..count).zip(pieces) {
            self.batch.insert(piece_key(self.kept.instance, place, self.kept.epoch, number), piece);
            self.bytes += piece.len();
            if self.bytes >= BATCH {
                self.bytes = 0;
                self.store.apply(std::mem::take(&mut self.batch))?;
            }
        }
        self.put.push((place, Stored { epoch: self.kept.epoch, pieces: count }));
        Ok(())
    }

    fn commit(mut self: Box<Self>, head: &[u8]) -> Result<(), StoreError> {
        let store = self.store;
        store.apply(std::mem::take(&mut self.batch))?;
        let mut value = self.kept.instance.to_le_bytes().to_vec();
        value.extend_from_slice(&self.kept.epoch.to_le_bytes());
        value.extend_from_slice(head);
        store.with_db(|db| Ok(db.insert(head_key(&self.owner), value)?))?;
        self.ended = true;
        let mut index = store.index.lock();
        let before = index.owners.remove(&self.owner);
        if let Some(before) = before.filter(|before| before.instance != self.kept.instance) {
            index.gone.push(before.instance);
        }
        // Nobody else has the map, unless a reader does at this moment.
        let mut pages = self.kept.pages.take().unwrap_or_default();
        let known = Arc::make_mut(&mut pages);
        for (place, stored) in std::mem::take(&mut self.put) {
            if let Some(old) = known.insert(place, stored) {
                index.replaced.extend((0..old.pieces).map(|piece| piece_key(self.kept.instance, place, old.epoch, piece)));
            }
        }
        let kept = Kept { pages: Some(pages), ..self.kept.clone() };
        index.owners.insert(self.owner.clone(), kept);
        Ok(())
    }
}

impl Drop for Unfinished<'_> {
    /// What was put for nothing goes with the next sync.
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let instance = self.kept.instance;
        let keys = self
            .put
            .iter()
            .flat_map(|(place, stored)| (0..stored.pieces).map(move |piece| piece_key(instance, *place, stored.epoch, piece)));
        self.store.index.lock().replaced.extend(keys);
    }
}

#[cfg(test)]
mod tests {
    use foldlog_log::disk::RealDisk;

    use super::*;

    const FIRST: Place = Place { table: 0, page: 0 };
    const SECOND: Place = Place { table: 0, page: 1 };

    fn open(folder: &Path) -> PageStore {
        PageStore::open(Arc::new(RealDisk), folder).unwrap()
    }

    fn save(store: &PageStore, builds_on_last: bool, pages: &[(Place, &[u8])], head: &str) {
        let mut saving = store.begin("q", builds_on_last).unwrap();
        pages.iter().for_each(|(place, bytes)| saving.put(*place, bytes).unwrap());
        saving.commit(head.as_bytes()).unwrap();
    }

    /// Head and pages.
    type Found = (String, Vec<(Place, Vec<u8>)>);

    fn read(store: &PageStore) -> Option<Found> {
        let head = store.head("q").unwrap()?;
        let mut pages = Vec::new();
        let mut take = |place, bytes: &[u8]| {
            pages.push((place, bytes.to_vec()));
            Ok(())
        };
        store.pages("q", &mut take).unwrap();
        Some((String::from_utf8(head).unwrap(), pages))
    }

    fn keys(store: &PageStore) -> usize {
        store.with_db(|db| Ok(db.scan_prefix([PAGE]).count())).unwrap()
    }

    #[test]
    fn a_checkpoint_builds_on_the_one_before_and_what_it_replaced_goes_after_the_sync() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        assert_eq!(read(&store), None);
        assert!(matches!(store.begin("q", true), Err(StoreError::NoBase)));
        let long = vec![7; 3 * PIECE + 1];
        save(&store, false, &[(FIRST, b"one"), (SECOND, &long)], "a");
        store.sync().unwrap();
        assert_eq!(keys(&store), 5);
        save(&store, true, &[(SECOND, b"two")], "b");
        let expected = Some(("b".to_owned(), vec![(FIRST, b"one".to_vec()), (SECOND, b"two".to_vec())]));
        assert_eq!((read(&store), keys(&store)), (expected.clone(), 6));
        store.sync().unwrap();
        assert_eq!((read(&store), keys(&store)), (expected.clone(), 2));
        drop(store);
        let store = open(folder.path());
        assert_eq!(read(&store), expected);
        save(&store, false, &[(FIRST, b"anew")], "c");
        store.sync().unwrap();
        assert_eq!((read(&store), keys(&store)), (Some(("c".to_owned(), vec![(FIRST, b"anew".to_vec())])), 1));
        store.remove("q").unwrap();
        store.sync().unwrap();
        assert_eq!((read(&store), keys(&store)), (None, 0));
    }

    #[test]
    fn one_that_was_begun_and_not_ended_leaves_the_one_before_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        save(&store, false, &[(FIRST, b"one"), (SECOND, b"two")], "a");
        store.sync().unwrap();
        let expected = Some(("a".to_owned(), vec![(FIRST, b"one".to_vec()), (SECOND, b"two".to_vec())]));
        let mut begun = store.begin("q", true).unwrap();
        begun.put(SECOND, &vec![1; BATCH]).unwrap();
        assert!(keys(&store) > 2);
        // As a crash leaves it.
        std::mem::forget(begun);
        drop(store);
        let store = open(folder.path());
        assert_eq!(read(&store), expected);
        // One that is given up, and then another in the same place, which must not go with what the first has left.
        let mut begun = store.begin("q", true).unwrap();
        begun.put(FIRST, &vec![2; BATCH]).unwrap();
        drop(begun);
        save(&store, true, &[(FIRST, b"newest")], "b");
        store.sync().unwrap();
        let expected = Some(("b".to_owned(), vec![(FIRST, b"newest".to_vec()), (SECOND, b"two".to_vec())]));
        assert_eq!((read(&store), keys(&store)), (expected, 2));
    }

    #[test]
    fn after_a_failure_of_sled_it_is_opened_again_and_nothing_builds_on_what_may_be_gone() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        save(&store, false, &[(FIRST, b"one"), (SECOND, b"two")], "a");
        store.sync().unwrap();
        // What a checkpoint leaves that the failure cut off.
        let mut begun = store.begin("q", true).unwrap();
        begun.put(FIRST, &vec![1; BATCH]).unwrap();
        std::mem::forget(begun);
        store.has_failed.store(true, Ordering::Release);
        assert!(matches!(store.begin("q", true), Err(StoreError::NoBase)));
        assert!(!store.has_failed.load(Ordering::Acquire));
        save(&store, false, &[(SECOND, b"anew")], "b");
        store.sync().unwrap();
        let expected = Some(("b".to_owned(), vec![(SECOND, b"anew".to_vec())]));
        assert_eq!((read(&store), keys(&store)), (expected.clone(), 1));
        drop(store);
        assert_eq!(read(&open(folder.path())), expected);
    }

    #[test]
    fn what_belongs_to_none_of_the_owners_goes() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        save(&store, false, &[(FIRST, b"one")], "a");
        store.sync().unwrap();
        assert!(!store.keep_only(&BTreeSet::from(["other", "q"])).unwrap());
        assert!(read(&store).is_some());
        drop(store);
        let store = open(folder.path());
        assert!(store.keep_only(&BTreeSet::from(["other"])).unwrap());
        store.sync().unwrap();
        assert_eq!((read(&store), keys(&store)), (None, 0));
    }

    #[test]
    fn a_store_whose_heads_are_not_what_was_written_is_set_aside_for_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        save(&store, false, &[(FIRST, b"one")], "a");
        store.with_db(|db| Ok(db.insert(head_key("r"), b"short".as_slice())?)).unwrap();
        store.sync().unwrap();
        drop(store);
        let store = open(folder.path());
        assert_eq!((read(&store), keys(&store)), (None, 0));
        save(&store, false, &[(FIRST, b"two")], "b");
        assert!(read(&store).is_some());
        assert!(folder.path().join("pages.aside-0").is_dir());
    }

    #[test]
    fn only_the_newest_of_what_was_set_aside_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        for _ in 0..3 * ASIDE {
            save(&store, false, &[(FIRST, b"damaged")], "a");
            store.sync().unwrap();
            store.set_aside("q").unwrap();
            store.sync().unwrap();
            assert_eq!(read(&store), None);
        }
        assert_eq!((keys(&store), store.with_db(|db| Ok(db.scan_prefix([SET_ASIDE]).count())).unwrap()), (ASIDE, ASIDE));
    }
}
