//! The journal: every group of units in one frame, one write and one sync, for all topics of the folder.
//!
//! [`frame`] is the bytes, [`file`](mod@file) where they lie, [`committer`] who decides and writes, [`turns`] on whose
//! thread, [`recovery`] what a start makes of what it finds.

pub(crate) mod committer;
pub(crate) mod file;
pub(crate) mod frame;
pub(crate) mod inspect;
pub(crate) mod queue;
pub(crate) mod recovery;
pub(crate) mod turns;
