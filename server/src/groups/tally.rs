//! How many events a filtered group has in a partition behind those that it knows: counted, for of all that lies there few may be its own.
//!
//! Called by [`super::runner`], and only where the group does not read on by itself: it has no member, or enough to do.

use foldlog_log::EventQuery;

use super::source::{Ahead, Source};
use crate::failure::Failure;

/// Events that are counted in one step.
const AT_ONCE: u32 = 1_000;

/// See the module.
#[derive(Default)]
pub struct Tally {
    ahead: Ahead,
    /// The offset up to which was counted, from the first of which the group knows nothing.
    to: u64,
    count: u64,
}

impl Tally {
    /// The group has come to know everything below `next`; `learnt` events of it are not done.
    pub fn pass(&mut self, next: u64, learnt: u64) {
        if next >= self.to {
            *self = Self { to: next, ..Self::default() };
        } else {
            self.count = self.count.saturating_sub(learnt);
        }
    }

    /// How many there are up to `end`; what was not counted yet is taken for the group's.
    pub const fn ahead(&self, end: u64) -> u64 {
        self.count + end.saturating_sub(self.to)
    }

    /// Counts some more up to `end`, but for those that `is_done` knows; tells whether there may be more. Not cancel-safe.
    ///
    /// # Errors
    /// As [`Ahead::read`].
    pub async fn count(
        &mut self,
        source: &Source,
        filter: &EventQuery,
        partition: u32,
        end: u64,
        is_done: impl Fn(u64) -> bool,
    ) -> Result<bool, Failure> {
        if self.to >= end {
            self.ahead.rest();
            return Ok(false);
        }
        let read = self.ahead.read(source, Some(filter), partition, (self.to, end), AT_ONCE).await?;
        self.count += read.known.iter().filter(|known| !is_done(known.offset)).count() as u64;
        self.to = read.end;
        Ok(true)
    }
}
