//! The checkpoint: up to which frame everything lies in segments, and what a start must believe. Two slots, written in turn.
//!
//! A start and tidy write it, recovery reads it. Invariant: the slot not being written is whole, and nothing that it refers to
//! is recycled, truncated or deleted before the other one is synced. Format: `log/FORMAT.md`, "Checkpoint".

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    codec::{Fields, Put},
    compaction::Cleaned,
    disk::{Disk, DiskFile},
    error::LogError,
    ids::{FolderId, Offset, PartitionId, Position, Timestamp, TopicId},
    segment::{PartitionMark, Rewrite},
};

const MAGIC: [u8; 4] = *b"FLCK";
/// Newest version.
pub(crate) const FORMAT: u32 = 3;
/// Version of checkpoints under which nothing was compacted.
const FORMAT_BEFORE_COMPACTION: u32 = 2;
/// Version of checkpoints under which nothing was removed: programs from before anything was read them.
const FORMAT_BEFORE_REMOVAL: u32 = 1;
const HEADER_LEN: usize = 16;
pub(crate) const NAMES: [&str; 2] = ["checkpoint.a", "checkpoint.b"];
/// Largest slot that is read.
const MAX_LEN: u64 = 256 << 20;

/// What segments hold of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CheckpointedPartition {
    pub(crate) topic: TopicId,
    pub(crate) partition: PartitionId,
    pub(crate) mark: PartitionMark,
    /// What was removed lies below; 0 if nothing was.
    pub(crate) removed: Position,
    /// Segments that compaction wrote, by base offset.
    pub(crate) rewritten: Vec<Rewrite>,
    /// How far it is compacted.
    pub(crate) cleaned: Cleaned,
}

/// Which window file goes with a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WindowMark {
    /// Number in the file's name; 0: there is none.
    pub(crate) file: u64,
    pub(crate) length: u64,
    pub(crate) crc: u32,
}

/// Everything a start must know before it reads the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// Rises with every write; the slot with the higher one counts.
    pub(crate) sequence: u64,
    pub(crate) folder: FolderId,
    /// Changed by a restore only.
    pub(crate) epoch: u32,
    /// Number of the start that wrote it.
    pub(crate) start: u32,
    /// Last frame that this start recovered: it and all before count as durable.
    pub(crate) recovered: u64,
    /// Salt of this start's frames.
    pub(crate) salt: u128,
    /// Last frame whose records lie in segments.
    pub(crate) frame: u64,
    pub(crate) frame_crc: u32,
    /// Where that frame ends.
    pub(crate) file: u32,
    pub(crate) file_end: u64,
    /// Position after that frame.
    pub(crate) next: Position,
    /// Server time of that frame.
    pub(crate) time: Timestamp,
    pub(crate) window: WindowMark,
    pub(crate) partitions: Vec<CheckpointedPartition>,
    /// Journal files that were synced at their full length: number and length. One that is missing or shorter is damage.
    pub(crate) files: Vec<(u32, u64)>,
}

impl Checkpoint {
    fn encode(&self) -> Vec<u8> {
        let any = |is_so: fn(&CheckpointedPartition) -> bool| self.partitions.iter().any(is_so);
        let format = match any(|partition| partition.removed > Position::default()) {
            _ if any(|partition| !partition.rewritten.is_empty() || partition.cleaned != Cleaned::default()) => FORMAT,
            true => FORMAT_BEFORE_COMPACTION,
            false => FORMAT_BEFORE_REMOVAL,
        };
        let mut body = Vec::new();
        body.put_u64(self.sequence);
        body.put(self.folder.as_bytes());
        body.put_u32(self.epoch);
        body.put_u32(self.start);
        body.put_u64(self.recovered);
        body.put_u128(self.salt);
        body.put_u64(self.frame);
        body.put_u32(self.frame_crc);
        body.put_u32(self.file);
        body.put_u64(self.file_end);
        body.put_u64(self.next.get());
        body.put_i64(self.time.get());
        body.put_u64(self.window.file);
        body.put_u64(self.window.length);
        body.put_u32(self.window.crc);
        body.put_len(self.partitions.len());
        for partition in &self.partitions {
            body.put(partition.topic.as_bytes());
            body.put_u32(partition.partition.get());
            partition.mark.encode(&mut body);
            if format > FORMAT_BEFORE_REMOVAL {
                body.put_u64(partition.removed.get());
            }
            if format > FORMAT_BEFORE_COMPACTION {
                partition.encode_compaction(&mut body);
            }
        }
        body.put_len(self.files.len());
        for (number, length) in &self.files {
            body.put_u32(*number);
            body.put_u64(*length);
        }
        let mut out = Vec::with_capacity(HEADER_LEN + body.len());
        out.put(&MAGIC);
        out.put_u32(format);
        out.put_len(body.len());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&out), &body);
        out.put_u32(crc);
        out.put(&body);
        out
    }

    /// Reads a slot; none if it is not whole, the format's number if it is of another one.
    fn decode(bytes: &[u8]) -> Option<Result<Self, u32>> {
        let mut header = Fields(bytes);
        if header.take(4)? != MAGIC {
            return None;
        }
        let (format, length, crc) = (header.u32()?, header.u32()?, header.u32()?);
        let body = header.take(usize::try_from(length).ok()?)?;
        if crc32c::crc32c_append(crc32c::crc32c(&bytes[..HEADER_LEN - 4]), body) != crc {
            return None;
        }
        if !(FORMAT_BEFORE_REMOVAL..=FORMAT).contains(&format) {
            return Some(Err(format));
        }
        Self::fields(Fields(body), format).map(Ok)
    }

    fn fields(mut from: Fields<'_>, format: u32) -> Option<Self> {
        let least = match format {
            FORMAT_BEFORE_REMOVAL => 0,
            FORMAT_BEFORE_COMPACTION => 8,
            _ => 8 + COMPACTION_FIXED,
        };
        let mut checkpoint = Self {
            sequence: from.u64()?,
            folder: FolderId::new(from.bytes16()?),
            epoch: from.u32()?,
            start: from.u32()?,
            recovered: from.u64()?,
            salt: from.u128()?,
            frame: from.u64()?,
            frame_crc: from.u32()?,
            file: from.u32()?,
            file_end: from.u64()?,
            next: Position::new(from.u64()?),
            time: Timestamp::new(from.i64()?),
            window: WindowMark { file: from.u64()?, length: from.u64()?, crc: from.u32()? },
            partitions: Vec::new(),
            files: Vec::new(),
        };
        for _ in 0..from.count(20 + PartitionMark::ENCODED_LEN + least)? {
            let (topic, partition) = (from.topic_id()?, PartitionId::new(from.u32()?));
            let mark = PartitionMark::decode(from.take(PartitionMark::ENCODED_LEN)?)?;
            let removed = Position::new(if format > FORMAT_BEFORE_REMOVAL { from.u64()? } else { 0 });
            let (rewritten, cleaned) = if format > FORMAT_BEFORE_COMPACTION { compaction(&mut from)? } else { Default::default() };
            checkpoint.partitions.push(CheckpointedPartition { topic, partition, mark, removed, rewritten, cleaned });
        }
        for _ in 0..from.count(12)? {
            checkpoint.files.push((from.u32()?, from.u64()?));
        }
        from.0.is_empty().then_some(checkpoint)
    }
}

/// Bytes of what is said of a partition's compaction, without the segments.
const COMPACTION_FIXED: usize = 8 + 8 + 4;
/// Bytes of each of those.
const REWRITE_LEN: usize = 8 + 8 + 4;

impl CheckpointedPartition {
    fn encode_compaction(&self, out: &mut Vec<u8>) {
        out.put_u64(self.cleaned.to.get());
        out.put_i64(self.cleaned.horizon.get());
        out.put_len(self.rewritten.len());
        for rewrite in &self.rewritten {
            out.put_u64(rewrite.base.get());
            out.put_u64(rewrite.end.get());
            out.put_u32(rewrite.generation);
        }
    }
}

fn compaction(from: &mut Fields<'_>) -> Option<(Vec<Rewrite>, Cleaned)> {
    let cleaned = Cleaned { to: Offset::new(from.u64()?), horizon: Timestamp::new(from.i64()?) };
    let mut rewritten: Vec<Rewrite> = Vec::new();
    for _ in 0..from.count(REWRITE_LEN)? {
        let rewrite = Rewrite { base: Offset::new(from.u64()?), end: Offset::new(from.u64()?), generation: from.u32()? };
        let follows = rewritten.last().is_none_or(|before| before.end <= rewrite.base);
        (follows && rewrite.base < rewrite.end && rewrite.generation > 0).then_some(())?;
        rewritten.push(rewrite);
    }
    Some((rewritten, cleaned))
}

/// The two slots.
#[derive(Debug)]
pub(crate) struct Slots {
    files: [Arc<dyn DiskFile>; 2],
    paths: [PathBuf; 2],
    /// The one that holds the newest checkpoint.
    newest: usize,
    sequence: u64,
}

impl Slots {
    /// Makes both slots of a new folder; the caller syncs the folder.
    pub(crate) fn create(disk: &dyn Disk, folder: &Path, first: &Checkpoint) -> Result<(), LogError> {
        for (place, name) in NAMES.iter().enumerate() {
            let path = folder.join(name);
            let file = match disk.create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => disk.open(&path),
                made => made,
            };
            let file = file.map_err(|source| LogError::io("create", &path, source))?;
            let bytes = if place == 0 { first.encode() } else { Vec::new() };
            let write = || {
                file.set_len(0)?;
                file.write_at(0, &bytes)?;
                file.sync()
            };
            write().map_err(|source| LogError::io("write", &path, source))?;
        }
        Ok(())
    }

    /// Opens both slots and reads the newer one that is whole.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] if neither is, [`LogError::Format`] if the newer one is of another format.
    pub(crate) fn open(disk: &dyn Disk, folder: &Path) -> Result<(Self, Checkpoint), LogError> {
        let paths = NAMES.map(|name| folder.join(name));
        let open = |path: &PathBuf| disk.open(path).map_err(|source| LogError::io("open", path, source));
        let files = [open(&paths[0])?, open(&paths[1])?];
        let mut newest: Option<(usize, Checkpoint)> = None;
        for (place, (file, path)) in files.iter().zip(&paths).enumerate() {
            let bytes = read_all(file.as_ref(), path)?;
            match Checkpoint::decode(&bytes) {
                Some(Ok(checkpoint)) if newest.as_ref().is_none_or(|(_, other)| other.sequence < checkpoint.sequence) => {
                    newest = Some((place, checkpoint));
                }
                Some(Ok(_)) => {}
                Some(Err(found)) => return Err(LogError::Format { file: path.clone(), found, supported: FORMAT }),
                None => {}
            }
        }
        let Some((place, checkpoint)) = newest else {
            let end = files[0].len().unwrap_or(0);
            let what = format!("neither this checkpoint nor {} is whole, so where the log begins is unknown", NAMES[1]);
            return Err(LogError::Corrupt { file: paths[0].clone(), from: 0, end, what });
        };
        let sequence = checkpoint.sequence;
        Ok((Self { files, paths, newest: place, sequence }, checkpoint))
    }

    /// Writes the newest checkpoint again with the same bytes: what was read may have been in the page cache only.
    pub(crate) fn rewrite(&self, checkpoint: &Checkpoint) -> Result<(), LogError> {
        self.put(self.newest, checkpoint)
    }

    /// Writes a checkpoint into the older slot, gives it the next sequence, and syncs it.
    pub(crate) fn write(&mut self, checkpoint: &mut Checkpoint) -> Result<(), LogError> {
        checkpoint.sequence = self.sequence + 1;
        let place = 1 - self.newest;
        self.put(place, checkpoint)?;
        self.sequence += 1;
        self.newest = place;
        Ok(())
    }

    fn put(&self, place: usize, checkpoint: &Checkpoint) -> Result<(), LogError> {
        let (file, path) = (&self.files[place], &self.paths[place]);
        let bytes = checkpoint.encode();
        file.write_at(0, &bytes).map_err(|source| LogError::full_or_io("write the checkpoint", path, source))?;
        file.sync().map_err(|source| LogError::io("sync the checkpoint", path, source))
    }
}

/// The newest checkpoint that is whole, for whoever only looks; none if there is none that this build reads.
pub(crate) fn newest(disk: &dyn Disk, folder: &Path) -> Option<Checkpoint> {
    let slots = NAMES.iter().filter_map(|name| {
        let path = folder.join(name);
        let bytes = read_all(&*disk.open(&path).ok()?, &path).ok()?;
        Checkpoint::decode(&bytes)?.ok()
    });
    slots.max_by_key(|checkpoint| checkpoint.sequence)
}

/// What lies in a slot, and how many bytes that takes; none if it is not whole, the format's number if it is of another one.
pub(crate) fn decode(slot: &[u8]) -> Option<(Result<Checkpoint, u32>, usize)> {
    let checkpoint = Checkpoint::decode(slot)?;
    let mut header = Fields(slot);
    header.take(HEADER_LEN - 8)?;
    Some((checkpoint, HEADER_LEN + usize::try_from(header.u32()?).ok()?))
}

fn read_all(file: &dyn DiskFile, path: &Path) -> Result<Vec<u8>, LogError> {
    let read = || -> io::Result<_> {
        let length = file.len()?.min(MAX_LEN);
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        let read = file.read_at(0, &mut bytes)?;
        bytes.truncate(read);
        Ok(bytes)
    };
    read().map_err(|source| LogError::io("read", path, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(removed: u64, rewritten: u32) -> Checkpoint {
        let removed = Position::new(removed);
        let offset = crate::ids::Offset::new;
        let mark = PartitionMark { first: offset(5), active: offset(9), end: offset(12), log_len: 100, runs_len: 20, chain: 7 };
        Checkpoint {
            sequence: 4,
            folder: FolderId::new([1; 16]),
            epoch: 0,
            start: 3,
            recovered: 17,
            salt: 42,
            frame: 15,
            frame_crc: 8,
            file: 2,
            file_end: 8192,
            next: Position::new(77),
            time: Timestamp::new(1000),
            window: WindowMark { file: 1, length: 10, crc: 3 },
            partitions: vec![CheckpointedPartition {
                topic: TopicId::new([2; 16]),
                partition: PartitionId::new(1),
                mark,
                removed,
                rewritten: (1..=rewritten)
                    .map(|place| Rewrite { base: offset(place.into()), end: offset(u64::from(place) + 1), generation: place })
                    .collect(),
                cleaned: Cleaned { to: offset(rewritten.into()), horizon: Timestamp::new(rewritten.into()) },
            }],
            files: vec![(1, 65536), (2, 4096)],
        }
    }

    #[test]
    fn decode_undoes_encode_and_notices_every_flipped_byte() {
        for (removed, rewritten, format) in [(0, 0, 1), (50, 0, 2), (0, 1, 3), (50, 2, 3)] {
            let mut bytes = sample(removed, rewritten).encode();
            assert_eq!(bytes[4], format);
            assert_eq!(Checkpoint::decode(&bytes), Some(Ok(sample(removed, rewritten))));
            for place in 0..bytes.len() {
                bytes[place] ^= 4;
                assert_eq!(Checkpoint::decode(&bytes), None, "byte {place}");
                bytes[place] ^= 4;
                assert_eq!(Checkpoint::decode(&bytes[..place]), None, "cut to {place}");
            }
        }
    }
}
