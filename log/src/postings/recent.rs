//! What was posted of late, in memory: admitted events, durable or not, that no table holds yet.
//!
//! The committer adds while it admits, lookups and admission ask, tidy takes away what tables hold. Sharded, so that no growth of a
//! map stalls appends. Invariant: at and above the floor nothing is missing; the floor moves before anything goes.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, Ordering},
};

use hashbrown::{HashMap, hash_map::Entry};
use parking_lot::RwLock;

use super::key::Posting;
use crate::ids::Position;

const SHARDS: usize = 256;
/// Bytes that a key and a span take, about, with what the maps around them need.
const KEY_BYTES: u64 = 96;
const SPAN_BYTES: u64 = 32;

/// Positions from `first` up to `end` (exclusive).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    first: u64,
    end: u64,
}

/// Where a key is posted, in order of position: most keys are those of one event, which then allocate nothing.
#[derive(Debug)]
struct Spans {
    first: Span,
    more: VecDeque<Span>,
}

type Shard = HashMap<u128, Spans>;

/// Postings at and above a floor.
#[derive(Debug)]
pub(crate) struct Recent {
    shards: Vec<RwLock<Shard>>,
    floor: AtomicU64,
    bytes: AtomicU64,
}

impl Recent {
    pub(super) fn new(floor: Position) -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        Self { shards, floor: AtomicU64::new(floor.get()), bytes: AtomicU64::new(0) }
    }

    fn shard(&self, key: u128) -> &RwLock<Shard> {
        // The lowest byte of a keyed hash is as good as any.
        &self.shards[(key & 0xff) as usize]
    }

    /// Adds a posting behind those of its key; its positions count from `base` on.
    pub(crate) fn add(&self, posting: &Posting, base: Position) {
        let span = Span { first: base.get() + posting.first, end: base.get() + posting.end() };
        let mut shard = self.shard(posting.key).write();
        let cost = match shard.entry(posting.key) {
            Entry::Vacant(vacant) => {
                vacant.insert(Spans { first: span, more: VecDeque::new() });
                KEY_BYTES
            }
            Entry::Occupied(occupied) => {
                let Spans { first, more } = occupied.into_mut();
                let last = more.back_mut().unwrap_or(first);
                if last.end == span.first {
                    last.end = span.end;
                    return;
                }
                more.push_back(span);
                SPAN_BYTES
            }
        };
        self.bytes.fetch_add(cost, Ordering::Relaxed);
    }

    /// The first position at or behind `at` that is posted under `key`, of those above the floor.
    pub(super) fn next(&self, key: u128, at: u64) -> Option<u64> {
        let shard = self.shard(key).read();
        let Spans { first, more } = shard.get(&key)?;
        let found = if first.end > at { Some(first) } else { more.get(more.partition_point(|span| span.end <= at)) };
        found.map(|span| span.first.max(at))
    }

    /// The last position before `before` that is posted under `key`, of those above the floor.
    pub(super) fn previous(&self, key: u128, before: u64) -> Option<u64> {
        let shard = self.shard(key).read();
        let Spans { first, more } = shard.get(&key)?;
        let behind = more.partition_point(|span| span.first < before);
        let found = behind.checked_sub(1).map_or(Some(first), |place| more.get(place));
        found.filter(|span| span.first < before).map(|span| span.end.min(before) - 1)
    }

    /// All postings below a position, of those above the floor, in the order of no key.
    pub(super) fn below(&self, end: Position) -> Vec<Posting> {
        let mut found = Vec::new();
        for shard in &self.shards {
            for (key, Spans { first, more }) in shard.read().iter() {
                let below = std::iter::once(first).chain(more).take_while(|span| span.first < end.get());
                found.extend(below.map(|span| {
                    // Memory holds fewer events than a number of 32 bits counts.
                    let count = u32::try_from(span.end.min(end.get()) - span.first).unwrap_or(u32::MAX);
                    Posting { key: *key, first: span.first, count }
                }));
            }
        }
        found
    }

    /// Position at and above which nothing is missing here. Read it after what it is asked for.
    pub(crate) fn floor(&self) -> Position {
        Position::new(self.floor.load(Ordering::SeqCst))
    }

    /// Lets go what tables hold: of these postings everything below a position.
    pub(super) fn forget(&self, postings: &[Posting], below: Position) {
        self.floor.store(below.get(), Ordering::SeqCst);
        for posting in postings {
            let mut shard = self.shard(posting.key).write();
            let Some(Spans { first, more }) = shard.get_mut(&posting.key) else { continue };
            let mut freed = 0;
            while first.end <= below.get()
                && let Some(next) = more.pop_front()
            {
                *first = next;
                freed += SPAN_BYTES;
            }
            if first.end > below.get() {
                first.first = first.first.max(below.get());
            } else {
                shard.remove(&posting.key);
                freed += KEY_BYTES;
            }
            self.bytes.fetch_sub(freed, Ordering::Relaxed);
        }
    }

    /// Bytes of memory that it takes, about.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(recent: &Recent, key: u128, first: u64, count: u32) {
        recent.add(&Posting { key, first: 0, count }, Position::new(first));
    }

    #[test]
    fn the_next_posting_is_found_until_tables_hold_it() {
        let recent = Recent::new(Position::new(5));
        add(&recent, 1, 5, 2);
        add(&recent, 1, 7, 1);
        add(&recent, 1, 20, 5);
        add(&recent, 2, 30, 1);
        let found = |at| recent.next(1, at);
        assert_eq!([found(0), found(7), found(8), found(22), found(25)], [Some(5), Some(7), Some(20), Some(22), None]);
        let before = |before| recent.previous(1, before);
        assert_eq!([before(5), before(7), before(20), before(22), before(99)], [None, Some(6), Some(7), Some(21), Some(24)]);
        let mut below = recent.below(Position::new(22));
        below.sort_unstable();
        assert_eq!(below, [Posting { key: 1, first: 5, count: 3 }, Posting { key: 1, first: 20, count: 2 }]);
        recent.forget(&[Posting { key: 1, first: 5, count: 3 }, Posting { key: 1, first: 20, count: 2 }], Position::new(22));
        assert_eq!((recent.floor(), found(0), recent.next(2, 0)), (Position::new(22), Some(22), Some(30)));
        recent.forget(&[Posting { key: 1, first: 22, count: 3 }, Posting { key: 2, first: 30, count: 1 }], Position::new(31));
        assert_eq!((found(0), recent.next(2, 0), recent.bytes()), (None, None, 0));
    }
}
