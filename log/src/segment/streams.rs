//! Where the events of one stream lie in a partition's segments.
//!
//! For readers of streams, which look up some hundreds of events at once and say where they were, so that each segment is looked
//! into once. Invariant: versions that may be lost are reported, and those around them found.

use hashbrown::HashMap;

use crate::{
    error::LogError,
    ids::{Offset, StreamVersion},
    life::{Mark, SnapshotAt},
};

use super::{
    key_index::Key,
    part::{Damage, Segment},
    rewrite::Source,
    set::Segments,
};

/// An entry of a key index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamEntry {
    /// Hash of the stream's name.
    pub(crate) stream: u128,
    /// The mark that it is; none if it is an event.
    pub(crate) mark: Option<Mark>,
    /// Version of the event.
    pub(crate) version: StreamVersion,
    pub(crate) offset: Offset,
}

impl Segments {
    /// Versions and offsets of a stream's events in here from a version (inclusive) on, in order, at most `most`. They must lie at
    /// `behind` or further; none if nobody knows, which costs a probe of each segment down to the one that holds the first.
    ///
    /// # Errors
    /// [`LogError::Corrupt`], [`LogError::Io`].
    pub fn stream(
        &self,
        stream: u128,
        from: StreamVersion,
        behind: Option<Offset>,
        most: usize,
    ) -> Result<Vec<(StreamVersion, Offset)>, LogError> {
        let behind = match behind {
            Some(behind) => behind,
            None => self.base_of(stream, from)?,
        };
        let list = self.list.read().clone();
        let mut gathered = Gathered::default();
        for segment in &list[list.partition_point(|segment| segment.end() <= behind)..] {
            let is_wanted = |key: &Key| key.version >= from.get();
            gathered.take(segment, |left| self.with_keys(segment, |keys| keys.look_up(stream, is_wanted, left)), most)?;
            if gathered.found.len() >= most {
                break;
            }
        }
        let first = from.get().max(1);
        gathered.following((0..).map(|place| first + place))
    }

    /// Versions and offsets of a stream's events in here before a version and below an offset, the newest first, at most `most`.
    ///
    /// # Errors
    /// [`LogError::Corrupt`], [`LogError::Io`].
    pub fn stream_before(
        &self,
        stream: u128,
        before: StreamVersion,
        below: Offset,
        most: usize,
    ) -> Result<Vec<(StreamVersion, Offset)>, LogError> {
        let list = self.list.read().clone();
        let mut gathered = Gathered::default();
        for segment in list[..list.partition_point(|segment| segment.id.base < below)].iter().rev() {
            let is_wanted = |key: &Key| key.version < before.get();
            gathered.take(segment, |left| self.with_keys(segment, |keys| keys.look_up_back(stream, is_wanted, left)), most)?;
            if gathered.found.len() >= most {
                break;
            }
        }
        gathered.following((1..before.get()).rev())
    }

    /// Folds the entries of a segment's key index: stream by stream, events by version, then marks, snapshots last. `begin` may be called again, if
    /// the index turns out to be damaged and is made again.
    ///
    /// # Errors
    /// [`LogError::Corrupt`], [`LogError::Io`].
    pub(crate) fn fold_entries<T>(
        &self,
        source: &Source,
        begin: impl Fn() -> T,
        take: impl Fn(&mut T, StreamEntry),
    ) -> Result<T, LogError> {
        self.with_keys(source.segment(), |keys| {
            let mut folded = begin();
            keys.for_each(|key| {
                let (mark, version) = (Mark::from_key(key.version), StreamVersion::new(key.version));
                take(&mut folded, StreamEntry { stream: key.stream, mark, version, offset: Offset::new(key.offset) });
            })?;
            Ok(folded)
        })
    }

    /// With which versions streams begin once all below an offset is let go of, by hash: of those that have or had events from another offset
    /// (inclusive) up to there. What is left of a removed event counts like the event. Blocking.
    ///
    /// # Errors
    /// [`LogError::Corrupt`], but for what was lost at the start; [`LogError::Io`].
    pub(crate) fn beginnings(&self, from: Offset, below: Offset) -> Result<HashMap<u128, StreamVersion>, LogError> {
        let list = self.list.read().clone();
        let mut beginnings: HashMap<u128, StreamVersion> = HashMap::new();
        for segment in list.iter().filter(|segment| segment.end() > from && segment.id.base < below && segment.damage().is_none()) {
            self.with_keys(segment, |keys| {
                keys.for_each(|key| {
                    let newest = Mark::from_key(key.version).map_or(Some(StreamVersion::new(key.version)), Mark::removed);
                    if let Some(newest) = newest.filter(|_| key.offset < below.get()) {
                        let first = beginnings.entry(key.stream).or_default();
                        *first = newest.plus(1).max(*first);
                    }
                })
            })?;
        }
        Ok(beginnings)
    }

    /// Version of a stream's first event in here at an offset or behind it; none if there is none.
    ///
    /// # Errors
    /// [`LogError::Corrupt`], also where damage may hold that event; [`LogError::Io`].
    pub fn version_at(&self, stream: u128, offset: Offset) -> Result<Option<StreamVersion>, LogError> {
        let list = self.list.read().clone();
        for segment in &list[list.partition_point(|segment| segment.end() <= offset)..] {
            if let Some(damage) = segment.damage() {
                return Err(damage.report());
            }
            let found = self.with_keys(segment, |keys| keys.look_up(stream, |key| key.offset >= offset.get(), 1))?;
            if let Some(first) = found.first() {
                return Ok(Some(StreamVersion::new(first.version)));
            }
        }
        Ok(None)
    }

    /// The newest snapshot of a stream in here as of a version or before that is kept.
    ///
    /// # Errors
    /// [`LogError::Corrupt`], also where damage may hold a newer one; [`LogError::Io`].
    pub(crate) fn snapshot(
        &self,
        stream: u128,
        at_most: StreamVersion,
        keeps: impl Fn(SnapshotAt) -> bool,
    ) -> Result<Option<SnapshotAt>, LogError> {
        let mut newest = None;
        for segment in self.list.read().clone().iter() {
            if let Some(damage) = segment.damage() {
                return Err(damage.report());
            }
            newest = newest.max(self.with_keys(segment, |keys| keys.snapshot(stream, at_most, &keeps))?);
        }
        Ok(newest)
    }

    /// Where snapshots of a stream lie that were put before an offset.
    ///
    /// # Errors
    /// [`LogError::Corrupt`], also where damage may hold some; [`LogError::Io`].
    pub(crate) fn snapshots_before(&self, stream: u128, before: Offset) -> Result<Vec<Offset>, LogError> {
        let mut all = Vec::new();
        let list = self.list.read().clone();
        for segment in &list[..list.partition_point(|segment| segment.id.base < before)] {
            if let Some(damage) = segment.damage() {
                return Err(damage.report());
            }
            all.append(&mut self.with_keys(segment, |keys| keys.snapshots(stream))?);
        }
        all.retain(|offset| *offset < before);
        Ok(all)
    }

    /// Base of the segment that holds a version of a stream; 0 if it may be a lost one.
    fn base_of(&self, stream: u128, version: StreamVersion) -> Result<Offset, LogError> {
        for segment in self.list.read().clone().iter().rev().filter(|segment| segment.damage().is_none()) {
            let found = self.with_keys(segment, |keys| keys.look_up(stream, |_| true, 1))?;
            // Versions have no gaps: what is older lies before.
            if found.first().is_some_and(|first| first.version <= version.get()) {
                return Ok(segment.id.base);
            }
        }
        Ok(Offset::default())
    }
}

/// What a lookup of a stream has found, segment by segment, and the first damage that it came by.
#[derive(Default)]
struct Gathered {
    found: Vec<(StreamVersion, Offset)>,
    lost: Option<Damage>,
}

impl Gathered {
    /// Takes what a segment has, up to `most` in all.
    fn take(&mut self, segment: &Segment, look_up: impl FnOnce(usize) -> Result<Vec<Key>, LogError>, most: usize) -> Result<(), LogError> {
        if let Some(damage) = segment.damage() {
            self.lost.get_or_insert(damage.clone());
            return Ok(());
        }
        let keys = look_up(most - self.found.len())?;
        self.found.extend(keys.into_iter().map(|key| (StreamVersion::new(key.version), Offset::new(key.offset))));
        Ok(())
    }

    /// What was found. What is lost may lie anywhere but between versions that follow each other: behind damage only these count.
    fn following(mut self, versions: impl Iterator<Item = u64>) -> Result<Vec<(StreamVersion, Offset)>, LogError> {
        let Some(damage) = self.lost else { return Ok(self.found) };
        let following = versions.zip(&self.found).take_while(|(expected, (version, _))| version.get() == *expected).count();
        self.found.truncate(following);
        if self.found.is_empty() { Err(damage.report()) } else { Ok(self.found) }
    }
}
