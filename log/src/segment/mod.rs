//! Segments: where records rest once they have left the journal, one series of them a partition.
//!
//! Tidy appends committed runs through [`Segments`], readers follow them with [`Reader`]. A segment is a `.log` (batches, nothing
//! else), its `.runs` (which offset is which position, where, since when: authoritative) and derived files that are made again
//! when they are missing or damaged. Nothing here is trusted beyond what the checkpoint's [`PartitionMark`] says.
//! Format: `log/FORMAT.md`, "Segments".

pub(crate) mod copy;
mod file;
pub(crate) mod inspect;
mod key_index;
mod offset_index;
mod part;
mod reader;
mod recovery;
mod removal;
mod rewrite;
mod runs;
mod set;
mod streams;
#[cfg(test)]
mod tests;
mod writer;

pub use file::OpenFiles;
pub(crate) use file::{fresh, is_file_of_segment, remove_if_there};
pub use key_index::StreamHasher;
pub(crate) use key_index::Stretch;
pub use reader::Reader;
pub(crate) use reader::WholeBatch;
pub use rewrite::Rewrite;
pub(crate) use rewrite::{Fate, Rewritten, Source};
pub use set::{Checkpointed, Layout, Segments, Size, Start};
pub(crate) use streams::StreamEntry;
pub use writer::PartitionMark;
