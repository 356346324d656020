//! The files of a segment as parts.
//!
//! A `.log` is held against the `.runs` beside it, which has a checksum of each batch's header, and both against the checkpoint of
//! the folder, which says how long those of the active segment are: behind that, a server may be writing this very moment.
#![deny(clippy::indexing_slicing)]

use std::{cmp::Ordering, path::Path};

use super::{
    file::{HEADER_LEN, Kind, SegmentId},
    key_index::{self, Key, PAGE, TABLE_HEAD, TableHead},
    runs::{self, BlockHead, BlockKind, HEAD_LEN, StoredRun},
    writer::{PartitionMark, header_check},
};
use crate::{
    batch::{self, BatchHeader, HEADER_LEN as BATCH_HEADER_LEN},
    checkpoint,
    disk::Disk,
    error::LogError,
    ids::{Offset, PartitionId, TopicId},
    inspect::{Part, Stop, Teller, Told},
    life::Mark,
};

const BEHIND: &str = "behind what the checkpoint says: no part of the log yet, or what a crash left";

/// What the checkpoint says of a segment.
#[derive(Clone, Copy, Debug)]
enum Standing {
    /// Nothing, or it was not found.
    Unknown,
    Sealed,
    Active(PartitionMark),
    /// It was not there at the checkpoint.
    Later,
}

impl Standing {
    fn of(teller: &Teller<'_>) -> Self {
        Self::find(&*teller.disk, teller.path).unwrap_or(Self::Unknown)
    }

    fn find(disk: &dyn Disk, path: &Path) -> Option<Self> {
        let place = Place::of(path)?;
        let checkpoint = checkpoint::newest(disk, path.ancestors().nth(4)?)?;
        let known = checkpoint.partitions.iter().find(|known| (known.topic, known.partition) == (place.topic, place.partition));
        let Some(known) = known else { return Some(Self::Later) };
        let in_place = known.rewritten.iter().find(|one| one.base <= place.base && place.base < one.end);
        match place.generation.cmp(&in_place.map_or(0, |one| one.generation)) {
            // It was replaced.
            Ordering::Less => return Some(Self::Unknown),
            // It is to replace others.
            Ordering::Greater => return Some(Self::Later),
            Ordering::Equal => {}
        }
        Some(match place.base {
            base if base == known.mark.active => Self::Active(known.mark),
            base if base > known.mark.active => Self::Later,
            base if base >= known.mark.first => Self::Sealed,
            _ => Self::Unknown,
        })
    }

    /// Whether a start asks a file of this kind. One that it does not ask is just being written, or was left by a crash, whole or not.
    fn counts(self, kind: Kind) -> bool {
        match self {
            Self::Unknown => true,
            Self::Sealed => !matches!(kind, Kind::KeyLog),
            // At a checkpoint that found nothing in the segment there were no keys.
            Self::Active(mark) if kind == Kind::KeyLog => mark.end > mark.active,
            Self::Active(_) => !matches!(kind, Kind::Index | Kind::Keys),
            Self::Later => false,
        }
    }

    /// How much of `.log` and `.runs` counts; none: all of it.
    const fn lengths(self) -> Option<(u64, u64)> {
        match self {
            Self::Unknown | Self::Sealed => None,
            Self::Active(mark) => Some((mark.log_len, mark.runs_len)),
            Self::Later => Some((0, 0)),
        }
    }
}

/// Whose a file is, by its path.
struct Place {
    topic: TopicId,
    partition: PartitionId,
    base: Offset,
    generation: u32,
}

impl Place {
    fn of(path: &Path) -> Option<Self> {
        let (base, generation, _) = Kind::parse(path.file_name()?.to_str()?)?;
        let partition = path.parent()?;
        let topic = partition.parent()?.file_name()?.to_str()?;
        Some(Self {
            topic: TopicId::new(*uuid::Uuid::parse_str(topic).ok()?.as_bytes()),
            partition: PartitionId::new(partition.file_name()?.to_str()?.parse().ok()?),
            base,
            generation,
        })
    }
}

/// What `.runs` says of the batches of a segment, as far as it is whole.
struct Vouched {
    /// One run of each batch.
    batches: Vec<StoredRun>,
    end: u64,
    is_sealed: bool,
}

impl Vouched {
    fn beside(teller: &Teller<'_>, limit: u64) -> Option<Self> {
        let file = teller.disk.open(&teller.path.with_extension(Kind::Runs.extension())).ok()?;
        let mut bytes = vec![0; usize::try_from(file.len().ok()?.min(limit)).ok()?];
        file.read_at(0, &mut bytes).ok()?;
        let mut found = Self { batches: Vec::new(), end: 0, is_sealed: false };
        let mut rest = bytes.get(HEADER_LEN..)?;
        while let Some((head, runs, behind)) = take_block(rest) {
            for run in runs {
                if found.batches.last().is_none_or(|last| last.batch_at != run.batch_at) {
                    found.batches.push(run);
                }
            }
            (found.end, found.is_sealed, rest) = (head.log_end, head.kind == BlockKind::Seal, behind);
        }
        Some(found)
    }

    fn at(&self, at: u64) -> Option<&StoredRun> {
        self.batches.binary_search_by_key(&at, |run| run.batch_at).ok().and_then(|place| self.batches.get(place))
    }

    /// Where the next batch lies that is known, behind `at`.
    fn behind(&self, at: u64) -> Option<u64> {
        let place = self.batches.partition_point(|run| run.batch_at <= at);
        self.batches.get(place).map(|run| run.batch_at)
    }
}

/// A whole block of `.runs`, its runs, and what follows.
fn take_block(bytes: &[u8]) -> Option<(BlockHead, Vec<StoredRun>, &[u8])> {
    let head = BlockHead::decode(bytes)?;
    let (block, behind) = bytes.split_at_checked(usize::try_from(head.block_len()).ok()?)?;
    let runs = runs::check(block).then(|| runs::decode(block)).flatten()?;
    Some((head, runs, behind))
}

/// Tells a `.log`.
pub(crate) fn log(teller: &mut Teller<'_>) -> Told {
    let standing = Standing::of(teller);
    let (limit, limit_of_runs) = standing.lengths().unwrap_or((teller.length, u64::MAX));
    let vouched = Vouched::beside(teller, limit_of_runs);
    if vouched.is_none() {
        let note = "no .runs lies beside it, which alone has checksums of the first 21 bytes of batches";
        teller.tell(Part::new("log", 0, 0).with("note", note))?;
    }
    let mut at = 0;
    while at < limit.min(teller.length) {
        at = tell_batch(teller, at, limit.min(teller.length), vouched.as_ref())?;
    }
    let end = vouched.as_ref().filter(|vouched| vouched.is_sealed).map_or(limit, |vouched| vouched.end);
    teller.tell_missing(end.max(limit), "what lies beside it")?;
    if matches!(standing, Standing::Sealed) && vouched.as_ref().is_some_and(|vouched| !vouched.is_sealed) {
        teller
            .tell(Part::new("seal", limit, limit).damaged("the segment is not the last one, and its .runs are not sealed, or not whole"))?;
    }
    teller.tell_behind(limit, BEHIND)
}

/// Tells the batch at a place; returns where the next one is to be looked for.
fn tell_batch(teller: &mut Teller<'_>, at: u64, end: u64, vouched: Option<&Vouched>) -> Result<u64, Stop> {
    let known = vouched.and_then(|vouched| vouched.at(at));
    let next = vouched.and_then(|vouched| vouched.behind(at)).filter(|next| *next <= end).unwrap_or(end);
    let header = BatchHeader::parse(&teller.read(at, BATCH_HEADER_LEN as u64)?).map(|header| at + header.length as u64);
    let batch_end = match header {
        Err(flaw) => {
            teller.tell(Part::new("batch", at, next).damaged(flaw.to_string()))?;
            return Ok(next);
        }
        Ok(batch_end) if batch_end > end => {
            teller.tell(Part::new("batch", at, next).damaged("the batch runs past the end of the file"))?;
            return Ok(next);
        }
        Ok(batch_end) => known.map_or(batch_end, |known| (at + u64::from(known.batch_len)).min(end)),
    };
    let bytes = teller.read(at, batch_end - at)?;
    let (part, records) = batch::inspect::tell(&bytes, at);
    let is_known = known.map_or_else(
        || vouched.is_none_or(|vouched| !vouched.is_sealed && at >= vouched.end),
        |known| header_check(&bytes) == known.batch_check,
    );
    teller.tell(part.checked(is_known, "this is another batch than the one that was written here, as .runs has it"))?;
    if teller.is_deep() {
        records.into_iter().try_for_each(|record| teller.tell(record))?;
    }
    Ok(batch_end)
}

/// Tells a file that no start asks, whole or not; one of a newer format is refused as everywhere.
fn tell_left(teller: &mut Teller<'_>, kind: Kind) -> Told {
    let bytes = teller.read(0, HEADER_LEN as u64)?;
    let id = bytes.first_chunk().and_then(|bytes| SegmentId::of_header(bytes, teller.path));
    match id.map(|id| id.check_header(kind, &bytes)) {
        Some(Err(error @ LogError::Format { .. })) => Err(error.into()),
        _ => teller.tell_behind(0, BEHIND),
    }
}

/// Tells the header that the files beside `.log` begin with; returns it, unless the file ends within it.
fn tell_header(teller: &mut Teller<'_>, kind: Kind) -> Result<Option<[u8; HEADER_LEN]>, Stop> {
    let bytes = teller.read(0, HEADER_LEN as u64)?;
    let part = Part::new(kind.extension(), 0, bytes.len() as u64);
    let Some(id) = bytes.first_chunk().and_then(|bytes| SegmentId::of_header(bytes, teller.path)) else {
        teller.tell(part.damaged("the file ends within its header"))?;
        return Ok(None);
    };
    let flaw = match id.check_header(kind, &bytes) {
        Err(error @ LogError::Format { .. }) => return Err(error.into()),
        Err(LogError::Corrupt { what, .. }) => Some(what),
        Err(other) => Some(other.to_string()),
        Ok(()) => None,
    };
    let is_here =
        Place::of(teller.path).is_none_or(|place| (place.topic, place.partition, place.base) == (id.topic, id.partition, id.base));
    let part = part.with("topic", id.topic.to_string()).with("partition", id.partition.get()).with("base", id.base);
    let part = flaw.into_iter().fold(part, Part::damaged);
    teller.tell(part.checked(is_here, "the file belongs to another segment, partition or topic"))?;
    Ok(bytes.first_chunk().copied())
}

/// Tells a `.runs`.
pub(crate) fn runs(teller: &mut Teller<'_>) -> Told {
    let standing = Standing::of(teller);
    if !standing.counts(Kind::Runs) {
        return tell_left(teller, Kind::Runs);
    }
    let limit = standing.lengths().map_or(teller.length, |(_, runs)| runs);
    let Some(header) = tell_header(teller, Kind::Runs)? else { return Ok(()) };
    let (mut at, mut chain, mut is_sealed) = (HEADER_LEN as u64, crc32c::crc32c(&header), false);
    let end = limit.min(teller.length);
    while at < end {
        let head = BlockHead::decode(&teller.read(at, HEAD_LEN as u64)?).filter(|head| at + head.block_len() <= end);
        let Some(head) = head else {
            teller.tell(Part::new("block", at, end).damaged("the head of a block of runs is damaged, or cut short"))?;
            break;
        };
        let block = teller.read(at, head.block_len())?;
        let decoded = runs::check(&block).then(|| runs::decode(&block)).flatten();
        let part = tell_head(&head, at, at + head.block_len());
        let part = part.checked(decoded.is_some(), "a block of runs is not what its checksum promised");
        teller.tell(part.checked(head.chain == chain, "the block does not follow the one before it, or the file's header"))?;
        if teller.is_deep() {
            decoded.into_iter().flatten().try_for_each(|run| teller.tell(tell_run(&run, at, at + head.block_len())))?;
        }
        (chain, is_sealed, at) = (head.checksum, head.kind == BlockKind::Seal, at + head.block_len());
    }
    match standing {
        Standing::Sealed if !is_sealed => {
            teller.tell(Part::new("seal", end, end).damaged("the segment is sealed, and this file is not"))?
        }
        Standing::Active(mark) if teller.length >= limit && at == limit && chain != mark.chain => {
            teller.tell(Part::new("block", end, end).damaged("the last block is another one than the checkpoint says"))?;
        }
        _ => {}
    }
    teller.tell_missing(limit, "the checkpoint")?;
    teller.tell_behind(limit.max(HEADER_LEN as u64), BEHIND)
}

fn tell_head(head: &BlockHead, from: u64, end: u64) -> Part {
    let name = match head.kind {
        BlockKind::Runs => "runs",
        BlockKind::Seal => "seal",
    };
    Part::new(name, from, end)
        .with("runs", u64::from(head.count))
        .with("offset", head.base_offset)
        .with("offset_end", head.end_offset)
        .with("position", head.first_position)
        .with("position_end", head.end_position)
        .with("log_from", head.log_from)
        .with("log_end", head.log_end)
        .with("recorded_at", head.recorded_at)
        .with("max_time", head.max_timestamp)
}

fn tell_run(run: &StoredRun, from: u64, end: u64) -> Part {
    Part::new("run", from, end)
        .with("offset", run.first_offset)
        .with("records", run.count)
        .with("position", run.first_position)
        .with("recorded_at", run.recorded_at)
        .with("log_from", run.batch_at)
        .with("log_end", run.batch_at + u64::from(run.batch_len))
        .inner()
}

/// Tells an `.index`: one checksum over all of it, at its end.
pub(crate) fn index(teller: &mut Teller<'_>) -> Told {
    if !Standing::of(teller).counts(Kind::Index) {
        return tell_left(teller, Kind::Index);
    }
    let bytes = teller.whole()?;
    let checked = bytes.split_last_chunk::<4>().filter(|(rest, crc)| crc32c::crc32c(rest) == u32::from_be_bytes(**crc));
    let Some((checked, _)) = checked else {
        let what = "the index is not what its checksum promised; delete the file, it is made again";
        return teller.tell(Part::new("index", 0, teller.length).damaged(what));
    };
    tell_header(teller, Kind::Index)?;
    let (heads, behind) = checked.get(HEADER_LEN..).unwrap_or_default().as_chunks::<HEAD_LEN>();
    let mut at = HEADER_LEN as u64;
    for head in heads {
        let end = at + HEAD_LEN as u64;
        let part = BlockHead::decode(head).map(|head| tell_head(&head, at, end));
        teller.tell(part.unwrap_or_else(|| Part::new("runs", at, end).damaged("the head of a block is none")))?;
        at = end;
    }
    let part = Part::new("checksum", at, teller.length);
    teller.tell(part.checked(behind.is_empty() && at + 4 == teller.length, "the index ends within the head of a block"))
}

/// Tells a `.keys`: one table.
pub(crate) fn keys(teller: &mut Teller<'_>) -> Told {
    if !Standing::of(teller).counts(Kind::Keys) {
        return tell_left(teller, Kind::Keys);
    }
    if tell_header(teller, Kind::Keys)?.is_none() {
        return Ok(());
    }
    let (at, _) = tell_table(teller, HEADER_LEN as u64)?;
    if at < teller.length {
        return teller.tell(Part::new("behind", at, teller.length).damaged("bytes lie behind the key index"));
    }
    Ok(())
}

/// Tells a `.keylog`: a table for each checkpoint.
pub(crate) fn key_log(teller: &mut Teller<'_>) -> Told {
    let standing = Standing::of(teller);
    if !standing.counts(Kind::KeyLog) {
        return tell_left(teller, Kind::KeyLog);
    }
    let counts_to = if let Standing::Active(mark) = standing { Some(mark.end) } else { None };
    if tell_header(teller, Kind::KeyLog)?.is_none() {
        return Ok(());
    }
    let (mut at, mut covers) = (HEADER_LEN as u64, Offset::default());
    // What lies behind the table of the checkpoint may be one that a crash cut short.
    while at < teller.length && counts_to.is_none_or(|end| covers < end) {
        (at, covers) = tell_table(teller, at)?;
    }
    teller.tell_behind(at, BEHIND)
}

/// Tells a table of the key index; returns where it ends, and the offset up to which it has everything.
fn tell_table(teller: &mut Teller<'_>, at: u64) -> Result<(u64, Offset), Stop> {
    let fences = TableHead::fence_count(&teller.read(at, TABLE_HEAD as u64)?).unwrap_or_default();
    let head = TableHead::decode(&teller.read(at, TABLE_HEAD as u64 + u64::from(fences) * 8)?);
    let whole = head.filter(|head| at + (head.pages_at + head.pages_len) as u64 <= teller.length);
    let Some(head) = whole else {
        let what = "a table of the key index is not what its checksum promised, or cut short; delete the file, it is made again";
        teller.tell(Part::new("table", at, teller.length).damaged(what))?;
        return Ok((teller.length, Offset::default()));
    };
    let (pages_at, end) = (at + head.pages_at as u64, at + (head.pages_at + head.pages_len) as u64);
    teller.tell(Part::new("table", at, pages_at).with("covers", head.covers).with("pages", fences))?;
    let mut at = pages_at;
    while at < end {
        let page = teller.read(at, (PAGE as u64).min(end - at))?;
        tell_page(teller, &page, at)?;
        at += page.len() as u64;
    }
    Ok((end, head.covers))
}

fn tell_page(teller: &mut Teller<'_>, page: &[u8], at: u64) -> Told {
    let end = at + page.len() as u64;
    let mut keys = Vec::new();
    let is_whole = key_index::is_whole(page) && key_index::try_visit(page, None, &mut |key| keys.push(key)).is_some();
    let what = "a page of the key index is not what its checksum promised; delete the file, it is made again";
    teller.tell(Part::new("page", at, end).with("events", keys.len()).checked(is_whole, what))?;
    if !teller.is_deep() {
        return Ok(());
    }
    let follows = |one: &Key, next: &Key| one.stream == next.stream && one.version.checked_add(1) == Some(next.version);
    let spans = keys.chunk_by(|one, next| Mark::from_key(one.version).is_none() && follows(one, next));
    spans.filter_map(|span| Some((span.first()?, span.last()?))).try_for_each(|(first, last): (&Key, &Key)| {
        let part = Part::new("stream", at, end).with("hash", format!("{:032x}", first.stream)).with("offset", first.offset).inner();
        teller.tell(match Mark::from_key(first.version) {
            Some(mark) => part.with("mark", mark.as_str()).with("mark_version", mark.version()),
            None => part.with("last_offset", last.offset).with("version", first.version).with("last_version", last.version),
        })
    })
}
