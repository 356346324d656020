//! Parts of views as a scan gave them, in columns, for the next scan: as long as no step touches their rows, they are the same.
//!
//! Used by `stream/fold`, one [`Scanned`] a view over one [`Scans`] for all. Invariants: what is kept stays within its budget; a scan
//! never costs its own view what is kept of it, so that one that does not fit keeps what does, and of others the one that was scanned
//! longest ago goes first.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use arrow::record_batch::RecordBatch;
use parking_lot::Mutex;

use super::{
    state::{RowNumber, Version},
    view::SCAN_ROWS,
};

/// Memory for parts that are kept, in bytes.
pub(crate) const SCANNED_BYTES: usize = 96 << 20;

/// What is kept of all views.
pub(crate) struct Scans {
    budget: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    views: BTreeMap<u64, View>,
    /// Number of the next view, and of the next scan.
    next_view: u64,
    next_scan: u64,
    bytes: usize,
}

#[derive(Default)]
struct View {
    /// By the first row.
    parts: BTreeMap<RowNumber, Part>,
    bytes: usize,
    /// The newest scan that found or left something.
    used: u64,
}

struct Part {
    /// The row behind the last one.
    end: RowNumber,
    /// As of which it was read; no row of it had been touched since.
    version: Version,
    rows: RecordBatch,
    bytes: usize,
}

impl Scans {
    pub(crate) fn new(budget: usize) -> Arc<Self> {
        Arc::new(Self { budget, kept: Mutex::default() })
    }

    /// Memory that is taken, in bytes.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.kept.lock().bytes
    }
}

impl Kept {
    /// The view of a number, as one that is scanned now.
    fn view(&mut self, number: u64) -> &mut View {
        self.next_scan += 1;
        let view = self.views.entry(number).or_default();
        view.used = self.next_scan;
        view
    }

    fn remove(&mut self, number: u64) -> Option<View> {
        let view = self.views.remove(&number)?;
        self.bytes -= view.bytes;
        Some(view)
    }
}

/// What is kept of one view; forgotten with it.
pub(crate) struct Scanned {
    number: u64,
    scans: Arc<Scans>,
}

impl std::fmt::Debug for Scanned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scanned").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Drop for Scanned {
    fn drop(&mut self) {
        let gone = self.scans.kept.lock().remove(self.number);
        drop(gone);
    }
}

impl Scanned {
    /// Nothing yet, of one more view.
    pub(crate) fn new(scans: &Arc<Scans>) -> Self {
        let mut kept = scans.kept.lock();
        kept.next_view += 1;
        Self { number: kept.next_view, scans: Arc::clone(scans) }
    }

    /// Rows as a scan gives them at a version from `touched` on: the newest one in which a step touched one of them.
    pub(crate) fn find(&self, rows: &Range<RowNumber>, touched: Version) -> Option<RecordBatch> {
        let mut kept = self.scans.kept.lock();
        let part = kept.views.get(&self.number)?.parts.get(&rows.start)?;
        if part.end != rows.end || part.version < touched {
            return None;
        }
        let found = part.rows.clone();
        kept.view(self.number);
        Some(found)
    }

    /// Keeps what a scan gave of rows at a version, in place of what it gave before, if there is room.
    pub(crate) fn keep(&self, rows: Range<RowNumber>, version: Version, batch: &RecordBatch) {
        let bytes = batch.get_array_memory_size() + size_of::<Part>();
        let mut kept = self.scans.kept.lock();
        let view = kept.view(self.number);
        let mut replaced: Vec<Part> = view.parts.remove(&rows.start).into_iter().collect();
        if rows.len() < SCAN_ROWS {
            // The last one: the view has become shorter if there are others behind it.
            replaced.extend(view.parts.split_off(&rows.start).into_values());
        }
        let freed: usize = replaced.iter().map(|part| part.bytes).sum();
        view.bytes -= freed;
        let own = view.bytes;
        kept.bytes -= freed;
        let mut gone = Vec::new();
        while own + bytes <= self.scans.budget && kept.bytes + bytes > self.scans.budget {
            let others = kept.views.iter().filter(|(number, view)| **number != self.number && view.bytes > 0);
            let Some(oldest) = others.min_by_key(|(_, view)| view.used).map(|(number, _)| *number) else { break };
            gone.extend(kept.remove(oldest));
        }
        if kept.bytes + bytes > self.scans.budget {
            drop(kept);
            return;
        }
        let view = kept.view(self.number);
        view.parts.insert(rows.start, Part { end: rows.end, version, rows: batch.clone(), bytes });
        view.bytes += bytes;
        kept.bytes += bytes;
        // Freed when nobody waits for it.
        drop(kept);
        drop((gone, replaced));
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};

    use super::*;
    use crate::stream::state::Table;

    /// Versions 0 to 3.
    fn versions() -> [Version; 4] {
        let mut table = Table::new(0, Vec::new());
        let first = table.version();
        let mut next = || {
            table.begin();
            table.version()
        };
        [first, next(), next(), next()]
    }

    fn batch(rows: i64) -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
        RecordBatch::try_from_iter([("n", numbers)]).unwrap()
    }

    /// The rows of a part by its number.
    fn whole(part: RowNumber) -> Range<RowNumber> {
        let rows = RowNumber::try_from(SCAN_ROWS).unwrap();
        part * rows..(part + 1) * rows
    }

    fn bytes_of(rows: i64) -> usize {
        batch(rows).get_array_memory_size() + size_of::<Part>()
    }

    #[test]
    fn a_part_is_found_until_its_rows_are_touched() {
        let [_, first, second, third] = versions();
        let scanned = Scanned::new(&Scans::new(1 << 20));
        assert_eq!(scanned.find(&(0..10), first), None);
        scanned.keep(0..10, second, &batch(10));
        assert_eq!(scanned.find(&(0..10), first), Some(batch(10)));
        assert_eq!(scanned.find(&(0..10), second), Some(batch(10)));
        assert_eq!(scanned.find(&(0..10), third), None, "touched since");
        assert_eq!(scanned.find(&(0..11), first), None, "another row has come");
        assert_eq!(scanned.find(&(10..20), first), None);
        scanned.keep(0..11, third, &batch(9));
        assert_eq!(scanned.find(&(0..11), third), Some(batch(9)));
        assert_eq!(scanned.scans.bytes(), bytes_of(9), "one part in place of the other");
    }

    #[test]
    fn a_view_that_does_not_fit_keeps_what_does() {
        let [version, ..] = versions();
        let scans = Scans::new(2 * bytes_of(10));
        let (scanned, other) = (Scanned::new(&scans), Scanned::new(&scans));
        other.keep(0..10, version, &batch(10));
        scanned.keep(whole(0), version, &batch(1000));
        assert!(other.find(&(0..10), version).is_some(), "nothing goes for what does not fit");
        for part in 0..3 {
            scanned.keep(whole(part), version, &batch(10));
        }
        let found = [0, 1, 2].map(|part| scanned.find(&whole(part), version).is_some());
        assert_eq!(found, [true, true, false]);
    }

    #[test]
    fn a_view_that_became_shorter_keeps_nothing_of_what_lay_behind() {
        let [version, ..] = versions();
        let scanned = Scanned::new(&Scans::new(1 << 20));
        (0..3).for_each(|part| scanned.keep(whole(part), version, &batch(10)));
        scanned.keep(whole(1).start..whole(1).start + 5, version, &batch(5));
        assert_eq!(scanned.scans.bytes(), bytes_of(10) + bytes_of(5));
        assert!(scanned.find(&whole(0), version).is_some() && scanned.find(&whole(2), version).is_none());
    }

    #[test]
    fn what_was_scanned_longest_ago_makes_room_and_a_view_that_is_gone_keeps_nothing() {
        let [version, ..] = versions();
        let scans = Scans::new(2 * bytes_of(10));
        let [first, second, third] = [(); 3].map(|()| Scanned::new(&scans));
        first.keep(0..10, version, &batch(10));
        second.keep(0..10, version, &batch(10));
        assert!(first.find(&(0..10), version).is_some());
        third.keep(0..10, version, &batch(10));
        assert!(first.find(&(0..10), version).is_some() && second.find(&(0..10), version).is_none());
        assert_eq!(scans.bytes(), 2 * bytes_of(10));
        drop(first);
        assert_eq!(scans.bytes(), bytes_of(10));
        drop(third);
        assert_eq!(scans.bytes(), 0);
    }
}
