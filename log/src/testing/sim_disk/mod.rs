//! A disk in memory that loses power, tears writes and fails any call, the same way for the same seed.
//!
//! What was not synced may be lost, sector by sector and name by name, each on its own. What a failed sync left behind can be
//! read until the power goes and is not durable, nor does a later sync make it so: that is how page caches behave.
//! Used by the crash tests of the log and of what stands on it.

mod state;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use state::{FileState, FolderState, Node};

use super::Random;
use crate::disk::{Disk, DiskFile, Entry, Space};

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the call of the same name in `Disk` or `DiskFile`")]
pub enum CallKind {
    Open,
    Create,
    CreateFolder,
    Rename,
    Link,
    Remove,
    List,
    SyncFolder,
    Lock,
    Read,
    Write,
    Sync,
    SetLen,
    Len,
}

/// A place where something is synced: kind of call, and path with every number and checksum in it as `#`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SyncSite {
    /// What the test called the time at which it happened; see [`SimDisk::set_phase`].
    pub phase: &'static str,
    /// [`CallKind::Sync`] or [`CallKind::SyncFolder`].
    pub kind: CallKind,
    /// The file or folder, numbers replaced.
    pub path: String,
}

impl fmt::Display for SyncSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.kind == CallKind::SyncFolder { "folder" } else { "file" };
        write!(f, "{}: sync of {what} {}", self.phase, self.path)
    }
}

/// Something that will go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The `nth` call from now on (0 is the next) of a kind, or of any, fails with an error number of the system (5 is EIO, 28
    /// ENOSPC). A failing write leaves some of its bytes behind.
    Fail {
        /// Which kind; none counts all calls.
        kind: Option<CallKind>,
        /// How many go well before.
        nth: u64,
        /// `errno`.
        errno: i32,
    },
    /// The power goes at the `nth` call that changes something: it and all later calls fail, and a write leaves some of its
    /// bytes in the cache. Take [`SimDisk::power_cut`] then.
    PowerOff {
        /// How many go well before.
        nth: u64,
    },
}

/// The disk. Clones share it.
#[derive(Clone)]
pub struct SimDisk {
    shared: Arc<Mutex<Shared>>,
    /// The process that this handle belongs to.
    process: u64,
}

struct Shared {
    files: BTreeMap<u64, FileState>,
    folders: BTreeMap<u64, FolderState>,
    next_id: u64,
    random: Random,
    /// The process whose calls are answered.
    process: u64,
    locks: BTreeMap<u64, String>,
    faults: Vec<Fault>,
    is_off: bool,
    counts: BTreeMap<CallKind, u64>,
    capacity: u64,
    phase: &'static str,
    sites: BTreeSet<SyncSite>,
    ignored: Option<SyncSite>,
}

const ROOT: u64 = 0;

impl SimDisk {
    /// An empty disk with room for a terabyte.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let shared = Shared {
            files: BTreeMap::new(),
            folders: BTreeMap::from([(ROOT, FolderState::default())]),
            next_id: ROOT + 1,
            random: Random::new(seed),
            process: 0,
            locks: BTreeMap::new(),
            faults: Vec::new(),
            is_off: false,
            counts: BTreeMap::new(),
            capacity: 1 << 40,
            phase: "",
            sites: BTreeSet::new(),
            ignored: None,
        };
        Self { shared: Arc::new(Mutex::new(shared)), process: 0 }
    }

    /// Cuts the power: returns the disk as the next boot finds it, and answers nothing any more on this one.
    ///
    /// Faults, the ignored sync site and counts are not carried over; the capacity and the sites seen are.
    #[must_use]
    pub fn power_cut(&self) -> Self {
        let mut shared = self.shared.lock();
        shared.is_off = true;
        let mut random = shared.random.fork();
        let files = shared.files.iter().map(|(id, file)| (*id, file.cut(&mut random))).collect();
        let folders = shared.folders.iter().map(|(id, folder)| (*id, folder.cut(&mut random))).collect();
        let next = shared.copy(files, folders, random);
        Self { shared: Arc::new(Mutex::new(next)), process: 0 }
    }

    /// Kills the process: the cache stays as it is, what the dead process still holds open fails, its locks are free.
    /// Returns the next process' view of the same disk.
    #[must_use]
    pub fn kill(&self) -> Self {
        let mut shared = self.shared.lock();
        shared.process += 1;
        shared.locks.clear();
        shared.faults.clear();
        shared.is_off = false;
        Self { shared: self.shared.clone(), process: shared.process }
    }

    /// An independent copy of the disk as it is, cache included, for trying several things from one state.
    #[must_use]
    pub fn fork(&self) -> Self {
        let mut shared = self.shared.lock();
        let random = shared.random.fork();
        let next = shared.copy(shared.files.clone(), shared.folders.clone(), random);
        Self { shared: Arc::new(Mutex::new(next)), process: 0 }
    }

    /// Arms a fault.
    pub fn arm(&self, fault: Fault) {
        self.shared.lock().faults.push(fault);
    }

    /// Whether an armed [`Fault::PowerOff`] has happened.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.shared.lock().is_off
    }

    /// Whether every armed fault has happened.
    #[must_use]
    pub fn is_disarmed(&self) -> bool {
        self.shared.lock().faults.is_empty()
    }

    /// Sets how many bytes all files may have together; a write beyond fails with ENOSPC.
    pub fn set_capacity(&self, bytes: u64) {
        self.shared.lock().capacity = bytes;
    }

    /// Bytes of all files that have a name; of one with several once.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.shared.lock().used()
    }

    /// How many calls of a kind were made.
    #[must_use]
    pub fn count(&self, kind: CallKind) -> u64 {
        self.shared.lock().counts.get(&kind).copied().unwrap_or(0)
    }

    /// How many calls were made that change something, so that a test can put a fault at each.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.shared.lock().counts.iter().filter(|(kind, _)| kind.changes()).map(|(_, count)| count).sum()
    }

    /// Names what happens from now on, to tell apart syncs of the same file at different times.
    pub fn set_phase(&self, phase: &'static str) {
        self.shared.lock().phase = phase;
    }

    /// Every place that has synced something so far.
    #[must_use]
    pub fn sync_sites(&self) -> Vec<SyncSite> {
        self.shared.lock().sites.iter().cloned().collect()
    }

    /// From now on syncs at this place do nothing and say that they did, as if the call had been forgotten.
    pub fn ignore_syncs_at(&self, site: SyncSite) {
        self.shared.lock().ignored = Some(site);
    }

    /// Every file's path, as processes see it.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        let shared = self.shared.lock();
        let mut paths = Vec::new();
        let mut open = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, id)) = open.pop() {
            for (name, node) in shared.folders.get(&id).into_iter().flat_map(|folder| &folder.names) {
                match node {
                    Node::File(_) => paths.push(path.join(name)),
                    Node::Folder(id) => open.push((path.join(name), *id)),
                }
            }
        }
        paths.sort();
        paths
    }

    /// A file's bytes as processes see them; none if there is no such file.
    #[must_use]
    pub fn bytes_of(&self, path: &Path) -> Option<Vec<u8>> {
        let shared = self.shared.lock();
        let file = shared.file(path).ok()?;
        shared.files.get(&file).map(|file| file.bytes.clone())
    }

    /// Replaces a file's bytes behind the back of whoever uses it, durably: rot.
    ///
    /// # Panics
    /// If there is no such file: the test is wrong.
    pub fn overwrite(&self, path: &Path, bytes: Vec<u8>) {
        let mut shared = self.shared.lock();
        let id = shared.file(path).expect("a test damages a file that exists");
        shared.files.insert(id, FileState { durable_len: bytes.len(), bytes, platter: BTreeMap::new() });
    }

    fn call<T>(
        &self,
        kind: CallKind,
        mut partly: impl FnMut(&mut Shared, &mut Random),
        wholly: impl FnOnce(&mut Shared) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut shared = self.shared.lock();
        if let Err(error) = shared.enter(self.process, kind) {
            let mut random = shared.random.fork();
            if error.is_first {
                partly(&mut shared, &mut random);
            }
            return Err(io::Error::from_raw_os_error(error.errno));
        }
        wholly(&mut shared)
    }

    fn plain<T>(&self, kind: CallKind, wholly: impl FnOnce(&mut Shared) -> io::Result<T>) -> io::Result<T> {
        self.call(kind, |_, _| {}, wholly)
    }
}

impl CallKind {
    const fn changes(self) -> bool {
        !matches!(self, Self::Open | Self::List | Self::Lock | Self::Read | Self::Len)
    }
}

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

struct Refusal {
    errno: i32,
    /// Whether the call is the one that failed, not one after it.
    is_first: bool,
}

impl Shared {
    fn copy(&self, files: BTreeMap<u64, FileState>, folders: BTreeMap<u64, FolderState>, random: Random) -> Self {
        Self {
            files,
            folders,
            next_id: self.next_id,
            random,
            process: 0,
            locks: BTreeMap::new(),
            faults: Vec::new(),
            is_off: false,
            counts: BTreeMap::new(),
            capacity: self.capacity,
            phase: self.phase,
            sites: self.sites.clone(),
            ignored: None,
        }
    }

    fn enter(&mut self, process: u64, kind: CallKind) -> Result<(), Refusal> {
        if self.is_off || process != self.process {
            return Err(Refusal { errno: EIO, is_first: false });
        }
        *self.counts.entry(kind).or_default() += 1;
        let mut hit = None;
        for (place, fault) in self.faults.iter_mut().enumerate() {
            let (counts, nth) = match fault {
                Fault::Fail { kind: only, nth, .. } => (only.is_none_or(|only| only == kind), nth),
                Fault::PowerOff { nth } => (kind.changes(), nth),
            };
            match (counts, *nth) {
                (true, 0) => hit = hit.or(Some(place)),
                (true, _) => *nth -= 1,
                (false, _) => {}
            }
        }
        match hit.map(|place| self.faults.remove(place)) {
            None => Ok(()),
            Some(Fault::Fail { errno, .. }) => Err(Refusal { errno, is_first: true }),
            Some(Fault::PowerOff { .. }) => {
                self.is_off = true;
                Err(Refusal { errno: EIO, is_first: true })
            }
        }
    }

    fn used(&self) -> u64 {
        let nodes = self.folders.values().flat_map(|folder| folder.names.values());
        let named: BTreeSet<u64> = nodes.filter_map(|node| if let Node::File(id) = node { Some(*id) } else { None }).collect();
        named.iter().filter_map(|id| self.files.get(id)).map(|file| file.bytes.len() as u64).sum()
    }

    fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    fn node(&self, path: &Path) -> io::Result<Node> {
        let mut node = Node::Folder(ROOT);
        for part in path.components() {
            let name = match part {
                Component::Normal(name) => name.to_string_lossy(),
                Component::RootDir | Component::CurDir => continue,
                _ => return Err(io::ErrorKind::InvalidInput.into()),
            };
            let Node::Folder(id) = node else { return Err(io::ErrorKind::NotADirectory.into()) };
            node = *self.folders.get(&id).and_then(|folder| folder.names.get(&*name)).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(node)
    }

    fn file(&self, path: &Path) -> io::Result<u64> {
        match self.node(path)? {
            Node::File(id) => Ok(id),
            Node::Folder(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn folder(&self, path: &Path) -> io::Result<u64> {
        match self.node(path)? {
            Node::Folder(id) => Ok(id),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn folder_mut(&mut self, path: &Path) -> io::Result<&mut FolderState> {
        let id = self.folder(path)?;
        self.folders.get_mut(&id).ok_or(io::ErrorKind::NotFound.into())
    }

    /// The folder that a path's last name lies in, and that name.
    fn parent(&mut self, path: &Path) -> io::Result<(&mut FolderState, String)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy().into_owned();
        let folder = self.folder_mut(path.parent().unwrap_or(Path::new("/")))?;
        Ok((folder, name))
    }

    fn file_mut(&mut self, id: u64) -> io::Result<&mut FileState> {
        self.files.get_mut(&id).ok_or(io::ErrorKind::NotFound.into())
    }

    /// Notes a sync, and says whether it is the forgotten one.
    fn ignores(&mut self, kind: CallKind, path: &Path) -> bool {
        let site = SyncSite { phase: self.phase, kind, path: without_numbers(path) };
        let ignored = self.ignored.as_ref() == Some(&site);
        self.sites.insert(site);
        ignored
    }

    fn check_space(&self, id: u64, end: u64) -> io::Result<()> {
        let have = self.files.get(&id).map_or(0, |file| file.bytes.len() as u64);
        let grows = end.saturating_sub(have);
        if grows > 0 && self.used() + grows > self.capacity {
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        Ok(())
    }
}

/// A path with `#` for every number, and for every checksum, which has 8 hexadecimal digits.
fn without_numbers(path: &Path) -> String {
    let mut out = String::new();
    for part in path.to_string_lossy().split_inclusive(['/', '-', '.']) {
        let name = part.trim_end_matches(['/', '-', '.']);
        let is_checksum = name.len() == 8 && name.bytes().all(|letter| letter.is_ascii_hexdigit());
        for letter in part.chars() {
            match letter.is_ascii_digit() || is_checksum && letter.is_ascii_hexdigit() {
                true if out.ends_with('#') => {}
                true => out.push('#'),
                false => out.push(letter),
            }
        }
    }
    out
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDisk").field("process", &self.process).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    id: u64,
    path: PathBuf,
}

fn place(offset: u64) -> io::Result<usize> {
    // Far beyond what a test keeps in memory; a wrong offset must not take the machine down.
    usize::try_from(offset).ok().filter(|offset| *offset < 1 << 32).ok_or(io::ErrorKind::FileTooLarge.into())
}

impl DiskFile for SimFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.disk.plain(CallKind::Read, |shared| {
            let file = shared.file_mut(self.id)?;
            let rest = file.bytes.get(place(offset)?..).unwrap_or_default();
            let length = rest.len().min(buffer.len());
            buffer[..length].copy_from_slice(&rest[..length]);
            Ok(length)
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let from = place(offset)?;
        let partly = |shared: &mut Shared, random: &mut Random| {
            let length = usize::try_from(random.below(bytes.len() as u64 + 1)).unwrap_or(0);
            if let Some(file) = shared.files.get_mut(&self.id) {
                file.write(from, &bytes[..length]);
            }
        };
        self.disk.call(CallKind::Write, partly, |shared| {
            shared.check_space(self.id, offset + bytes.len() as u64)?;
            shared.file_mut(self.id)?.write(from, bytes);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        let partly = |shared: &mut Shared, random: &mut Random| {
            // With the power gone the sync was on its way; what it wrote is decided by the cut.
            if !shared.is_off
                && let Some(file) = shared.files.get_mut(&self.id)
            {
                file.fail_sync(random);
            }
        };
        self.disk.call(CallKind::Sync, partly, |shared| {
            if !shared.ignores(CallKind::Sync, &self.path) {
                shared.file_mut(self.id)?.sync();
            }
            Ok(())
        })
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let to = place(length)?;
        self.disk.plain(CallKind::SetLen, |shared| {
            shared.check_space(self.id, length)?;
            shared.file_mut(self.id)?.set_len(to);
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.disk.plain(CallKind::Len, |shared| Ok(shared.file_mut(self.id)?.bytes.len() as u64))
    }
}

/// Frees the lock when it is dropped, if its process still lives.
struct SimLock {
    disk: SimDisk,
    folder: u64,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut shared = self.disk.shared.lock();
        if shared.process == self.disk.process {
            shared.locks.remove(&self.folder);
        }
    }
}

impl SimDisk {
    fn handle(&self, id: u64, path: &Path) -> Arc<dyn DiskFile> {
        Arc::new(SimFile { disk: self.clone(), id, path: path.to_owned() })
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.plain(CallKind::Open, |shared| shared.file(path)).map(|id| self.handle(id, path))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let id = self.plain(CallKind::Create, |shared| {
            let id = shared.take_id();
            let (folder, name) = shared.parent(path)?;
            if folder.names.contains_key(&name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            folder.set(&name, Node::File(id));
            shared.files.insert(id, FileState::default());
            Ok(id)
        })?;
        Ok(self.handle(id, path))
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.plain(CallKind::CreateFolder, |shared| {
            let mut above = PathBuf::from("/");
            for part in path.components() {
                let Component::Normal(name) = part else { continue };
                let next = above.join(name);
                match shared.node(&next) {
                    Ok(Node::Folder(_)) => {}
                    Ok(Node::File(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
                    Err(_) => {
                        let id = shared.take_id();
                        shared.folders.insert(id, FolderState::default());
                        shared.folder_mut(&above)?.set(&name.to_string_lossy(), Node::Folder(id));
                    }
                }
                above = next;
            }
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.plain(CallKind::Rename, |shared| {
            let node = shared.node(from)?;
            let (source, target) = (from.parent(), to.parent());
            let (folder, new_name) = shared.parent(to)?;
            let old_name = from.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy().into_owned();
            if source == target {
                folder.rename(&old_name, &new_name, node);
            } else {
                folder.set(&new_name, node);
                shared.parent(from)?.0.remove(&old_name);
            }
            Ok(())
        })
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.plain(CallKind::Link, |shared| {
            let node = shared.node(from)?;
            let (folder, name) = shared.parent(to)?;
            if folder.names.contains_key(&*name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            folder.set(&name, node);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.plain(CallKind::Remove, |shared| {
            shared.file(path)?;
            let (folder, name) = shared.parent(path)?;
            folder.remove(&name);
            Ok(())
        })
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.plain(CallKind::Remove, |shared| {
            if !shared.folder_mut(path)?.names.is_empty() {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            let (folder, name) = shared.parent(path)?;
            folder.remove(&name);
            Ok(())
        })
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>> {
        self.plain(CallKind::List, |shared| {
            let names = &shared.folder_mut(folder)?.names;
            Ok(names.iter().map(|(name, node)| Entry { name: name.clone(), is_folder: matches!(node, Node::Folder(_)) }).collect())
        })
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.plain(CallKind::SyncFolder, |shared| {
            if !shared.ignores(CallKind::SyncFolder, folder) {
                let folder = shared.folder_mut(folder)?;
                for change in folder.pending.drain(..) {
                    change.apply(&mut folder.durable);
                }
            }
            Ok(())
        })
    }

    fn space(&self, _folder: &Path) -> io::Result<Space> {
        // Not a call that can fail or be counted: nothing depends on when it is made.
        let shared = self.shared.lock();
        Ok(Space { total: shared.capacity, free: shared.capacity.saturating_sub(shared.used()) })
    }

    fn lock(&self, folder: &Path, owner: &str) -> io::Result<Box<dyn Send + Sync>> {
        let folder = self.plain(CallKind::Lock, |shared| {
            let folder = shared.folder(folder)?;
            if let Some(holder) = shared.locks.get(&folder) {
                return Err(io::Error::new(io::ErrorKind::WouldBlock, holder.clone()));
            }
            shared.locks.insert(folder, owner.to_owned());
            Ok(folder)
        })?;
        Ok(Box::new(SimLock { disk: self.clone(), folder }))
    }
}

#[cfg(test)]
mod tests;
