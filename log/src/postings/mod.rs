//! Which events have which type and tags: what query conditions are answered from, and never a scan of the log.
//!
//! Each event is posted under its topic, its type, each tag, and each pair of type and tag. What was admitted of late is in
//! memory ([`Recent`]), the rest in files of sorted pages, each of a range of positions ([`set`]). So a condition "nothing since
//! I read" looks at memory alone, and one from the beginning at a page or two of each file whose filter does not deny the key.
//! Invariant: below a durable end that was captured before, a lookup misses nothing.

mod again;
mod filter;
pub(crate) mod inspect;
mod key;
mod lookup;
mod recent;
mod set;
mod table;

pub(crate) use again::complete;
pub(crate) use key::{Poster, Posting, Term, add_terms, term_of};
pub(crate) use recent::Recent;
pub(crate) use set::{FOLDER, Postings};
