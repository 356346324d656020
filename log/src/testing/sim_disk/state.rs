//! Files and folders of the simulated disk: what processes see, what lies on the platter, and what a power cut leaves.

use std::collections::BTreeMap;

use crate::testing::Random;

/// Unit in which a disk writes whole or not at all, mostly.
pub(super) const SECTOR: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    File(u64),
    Folder(u64),
}

#[derive(Clone, Default)]
pub(super) struct FolderState {
    /// As processes see it.
    pub(super) names: BTreeMap<String, Node>,
    /// As it is after a power cut in which nothing more is written.
    pub(super) durable: BTreeMap<String, Node>,
    /// Changes not synced yet, in order.
    pub(super) pending: Vec<Change>,
}

#[derive(Clone)]
pub(super) enum Change {
    Set(String, Node),
    Remove(String),
    /// A rename within one folder is one change: a journalling file system does it whole or not at all.
    Rename(String, String, Node),
}

#[derive(Clone, Default)]
pub(super) struct FileState {
    /// As processes see it.
    pub(super) bytes: Vec<u8>,
    /// What lies on the disk where that differs, by number of sector.
    pub(super) platter: BTreeMap<u64, OldSector>,
    pub(super) durable_len: usize,
}

#[derive(Clone)]
pub(super) struct OldSector {
    bytes: [u8; SECTOR],
    /// Whether a sync would write the new bytes; false after a failed one.
    is_dirty: bool,
}

impl FileState {
    fn sector(&self, number: usize) -> [u8; SECTOR] {
        let mut sector = [0; SECTOR];
        let from = number * SECTOR;
        if let Some(rest) = self.bytes.get(from..) {
            let length = rest.len().min(SECTOR);
            sector[..length].copy_from_slice(&rest[..length]);
        }
        sector
    }

    /// Remembers what the disk holds under bytes `from..end` before they change.
    fn touch(&mut self, from: usize, end: usize) {
        for number in from / SECTOR..end.div_ceil(SECTOR) {
            let before = self.sector(number);
            self.platter.entry(number as u64).or_insert(OldSector { bytes: before, is_dirty: true }).is_dirty = true;
        }
    }

    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        self.touch(offset.min(self.bytes.len()), end);
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[offset..end].copy_from_slice(bytes);
    }

    pub(super) fn set_len(&mut self, length: usize) {
        self.touch(length.min(self.bytes.len()), length.max(self.bytes.len()));
        self.bytes.resize(length, 0);
    }

    pub(super) fn sync(&mut self) {
        self.platter.retain(|_, sector| !sector.is_dirty);
        self.durable_len = self.bytes.len();
    }

    /// Some of what was to be written is, the rest is forgotten though it can still be read.
    pub(super) fn fail_sync(&mut self, random: &mut Random) {
        self.platter.retain(|_, sector| {
            let is_written = sector.is_dirty && random.one_in(2);
            sector.is_dirty = false;
            !is_written
        });
        if random.one_in(2) {
            self.durable_len = self.bytes.len();
        }
    }

    /// What is there when the power comes back.
    pub(super) fn cut(&self, random: &mut Random) -> Self {
        let (shorter, longer) = (self.durable_len.min(self.bytes.len()), self.durable_len.max(self.bytes.len()));
        let length = match random.below(3) {
            0 => self.durable_len,
            1 => self.bytes.len(),
            _ => shorter + usize::try_from(random.below((longer - shorter) as u64 + 1)).unwrap_or(0),
        };
        // Mostly nothing or everything is lost, the hard cases lie between.
        let lost_in_eight = random.below(9);
        let leaves_garbage = random.one_in(8);
        let mut bytes = self.bytes.clone();
        bytes.resize(length, 0);
        for (number, old) in &self.platter {
            let from = usize::try_from(*number).unwrap_or(usize::MAX).saturating_mul(SECTOR);
            if from >= length {
                continue;
            }
            let end = (from + SECTOR).min(length);
            let mut was = old.bytes;
            if leaves_garbage && from >= self.durable_len {
                was = std::array::from_fn(|_| random.next().to_le_bytes()[0]);
            }
            let lost = match old.is_dirty {
                false => 0..SECTOR,
                true if random.one_in(10) => torn(random),
                true if random.below(8) < lost_in_eight => 0..SECTOR,
                true => 0..0,
            };
            for place in 0..end - from {
                // Behind a cut that was lost nothing was written: the old bytes come back.
                if lost.contains(&place) || from + place >= self.bytes.len() {
                    bytes[from + place] = was[place];
                }
            }
        }
        Self { durable_len: bytes.len(), bytes, platter: BTreeMap::new() }
    }
}

/// The part of a sector that kept its old bytes.
fn torn(random: &mut Random) -> std::ops::Range<usize> {
    let cut = usize::try_from(random.below(SECTOR as u64)).unwrap_or(0);
    if random.one_in(2) { cut..SECTOR } else { 0..cut }
}

impl FolderState {
    pub(super) fn set(&mut self, name: &str, node: Node) {
        self.names.insert(name.to_owned(), node);
        self.pending.push(Change::Set(name.to_owned(), node));
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.names.remove(name);
        self.pending.push(Change::Remove(name.to_owned()));
    }

    pub(super) fn rename(&mut self, from: &str, to: &str, node: Node) {
        self.names.remove(from);
        self.names.insert(to.to_owned(), node);
        self.pending.push(Change::Rename(from.to_owned(), to.to_owned(), node));
    }

    pub(super) fn cut(&self, random: &mut Random) -> Self {
        let mut names = self.durable.clone();
        let lost_in_four = random.below(5);
        for change in &self.pending {
            if random.below(4) >= lost_in_four {
                change.apply(&mut names);
            }
        }
        Self { durable: names.clone(), names, pending: Vec::new() }
    }
}

impl Change {
    pub(super) fn apply(&self, names: &mut BTreeMap<String, Node>) {
        match self {
            Self::Set(name, node) => {
                names.insert(name.clone(), *node);
            }
            Self::Remove(name) => {
                names.remove(name);
            }
            Self::Rename(from, to, node) => {
                names.remove(from);
                names.insert(to.clone(), *node);
            }
        }
    }
}
