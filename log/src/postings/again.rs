//! Postings made again from segments: at a start those that no file holds, and those of a file that turns out to be damaged.

use std::{path::Path, sync::Arc};

use tracing::info;

use super::{
    key::{Posting, postings_of},
    set::Postings,
};
use crate::{
    engine::Engine,
    error::LogError,
    ids::Position,
    segment::{Segments, Start, StreamHasher},
    topic::TopicKind,
};

/// Positions of which postings are made at once: as many as fit into memory, whatever tags their events have.
const POSITIONS: u64 = 65_536;

/// Makes what files lack up to a checkpoint, of segments by the index of their partition. What lies in segments that are damaged is passed
/// over, for nothing rests on postings of their topics then; damage that was not known yet is told to `damaged`. The next start tries
/// again.
///
/// # Errors
/// [`LogError::Io`].
pub(crate) fn complete(
    postings: &Postings,
    segments: &[Option<Arc<Segments>>],
    hasher: &StreamHasher,
    checkpointed: Position,
    mut damaged: impl FnMut(usize, LogError),
) -> Result<(), LogError> {
    let mut from = postings.covered();
    if from == checkpointed {
        return Ok(());
    }
    let all = segments.iter().enumerate().filter_map(|(index, segments)| Some((index, segments.as_ref()?)));
    let (mut whole, known): (Vec<_>, Vec<_>) = all.partition(|(_, segments)| segments.damage().is_none());
    if !known.is_empty() {
        postings.lacks_something();
    }
    info!(%from, end = %checkpointed, "making postings again");
    while from < checkpointed {
        let end = from.plus(POSITIONS).min(checkpointed);
        let mut made = Vec::new();
        let (mut place, mut next) = (0, checkpointed);
        while let Some((index, segments)) = whole.get(place).copied() {
            match collect(segments, hasher, from, end, &mut made) {
                Ok(behind) => {
                    place += 1;
                    next = next.min(behind.unwrap_or(checkpointed));
                }
                Err(error @ LogError::Corrupt { .. }) => {
                    postings.lacks_something();
                    damaged(index, error);
                    whole.swap_remove(place);
                }
                Err(error) => return Err(error),
            }
        }
        // A restore leaves out far more positions than anybody can step through.
        from = end.max(next);
        postings.add(made, from)?;
        postings.checkpointed()?;
    }
    Ok(())
}

/// Adds postings of a partition's events from a position (inclusive) to another (exclusive); where the next one lies, if there is one.
fn collect(
    segments: &Arc<Segments>,
    hasher: &StreamHasher,
    from: Position,
    end: Position,
    into: &mut Vec<Posting>,
) -> Result<Option<Position>, LogError> {
    if segments.topic().settings.kind != TopicKind::Events {
        return Ok(None);
    }
    // What retention let go of is asked about as before.
    let mut reader = segments.reader_of_all(Start::Position(from), true)?;
    while reader.peek()?.is_some_and(|position| position < end) {
        let Some(run) = reader.next_run(u32::MAX)? else { break };
        let is_cut = run.first_position.plus(run.count.into()) > end;
        let cut = |mut posting: Posting| {
            let count = end.get().saturating_sub(posting.first).min(posting.count.into());
            posting.count = u32::try_from(count).unwrap_or(posting.count);
            posting
        };
        into.extend(postings_of(&run, hasher)?.into_iter().map(cut).filter(|posting| posting.count > 0));
        if is_cut {
            return Ok(Some(end));
        }
    }
    reader.peek()
}

impl Engine {
    /// Looks something up in postings, and makes a file again that turns out to be damaged. May read files.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] if what must be made again cannot be; [`LogError::Io`].
    pub(crate) fn ask_postings<T>(&self, look_up: impl Fn(&Postings) -> Result<T, LogError>) -> Result<T, LogError> {
        let mut mended = Vec::new();
        loop {
            match look_up(&self.postings) {
                Err(LogError::Corrupt { file, .. }) if !mended.contains(&file) => {
                    self.mend_postings(&file)?;
                    mended.push(file);
                }
                answer => return answer,
            }
        }
    }

    /// Reads all files of postings; those that are damaged are made again. Returns their bytes.
    ///
    /// # Errors
    /// As [`Engine::mend_postings`].
    pub(crate) fn check_postings(&self) -> Result<u64, LogError> {
        let mut bytes = 0;
        for table in self.postings.tables_from(Position::default()) {
            match table.check() {
                Err(LogError::Corrupt { file, .. }) => self.mend_postings(&file)?,
                checked => bytes += checked?,
            }
        }
        Ok(bytes)
    }

    /// Makes a damaged file of postings again.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] if segments are damaged, too; [`LogError::Io`].
    fn mend_postings(&self, damaged: &Path) -> Result<(), LogError> {
        self.postings.mend(damaged, |from, end| {
            let (mut made, mut is_whole) = (Vec::new(), true);
            for partition in self.topics.partitions() {
                let Some(segments) = self.segments(&partition) else { continue };
                if partition.damage.get().is_some() {
                    is_whole = false;
                    continue;
                }
                collect(&segments, &self.hasher, from, end, &mut made).inspect_err(|error| {
                    self.note_damage(error);
                })?;
            }
            Ok((made, is_whole))
        })
    }
}
