//! What the lives of streams let go: how much of it lies in segments, and what becomes of each record when those are written anew. Pure but for
//! what it is told of streams and of what came later.
//!
//! A [`super::pass`] asks. Invariants: nothing that a stream still has is touched; of what goes, a blank of the newest event of each stream stays,
//! of the last one that retention let go of, and of each event behind which none has its type and its tags, so that where streams stand and begin and
//! what conditions find is derived again as it was.

use std::collections::HashMap;

use crate::{
    batch::{EventView, Kept, StoredRecord},
    error::LogError,
    ids::{Offset, StreamVersion},
    life::{Blank, Life, Mark, SnapshotAt},
    segment::StreamEntry,
};

/// What a segment has, and how much of it may go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// Events, marks and blanks.
    pub(super) records: u64,
    /// Those of them that may go.
    pub(super) let_go: u64,
    /// Whether some of them might have gone long ago, or are events that retention let go of with all around them.
    pub(super) is_late: bool,
}

impl Counted {
    /// Bytes that this is of so many, if all are of one size.
    pub(super) fn bytes(self, of: u64) -> u64 {
        u64::try_from(u128::from(of) * u128::from(self.let_go) / u128::from(self.records.max(1))).unwrap_or(of)
    }

    /// Whether it is worth its while to write the segment anew.
    pub(super) fn is_due(self, percent: u64) -> bool {
        self.let_go > 0 && (self.is_late || self.let_go.saturating_mul(100) >= self.records.saturating_mul(percent))
    }
}

/// What streams were told long ago, as far as it was seen: segments are looked at from the newest to the oldest, for marks lie behind what they let go.
#[derive(Clone, Debug, Default)]
pub(super) struct LongAgo(HashMap<u128, Life>);

/// What a stream rests on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rest {
    pub(super) life: Life,
    /// Retention has let go of its snapshots that lie before this offset: at most where the newest lies.
    pub(super) snapshots_from: Offset,
}

impl Rest {
    fn keeps(&self, at: SnapshotAt) -> bool {
        self.life.keeps(at) && at.offset >= self.snapshots_from
    }
}

/// Counts what a segment has, entry by entry of its key index.
#[derive(Debug)]
pub(super) struct Count<L> {
    /// What a stream rests on by its hash, as it is now.
    rest_of: L,
    /// Marks below this offset were made long ago.
    aged: Offset,
    long_ago: LongAgo,
    /// Whether retention has let go of everything in the segment: no event in it will ever be worth more, so one is enough.
    is_below: bool,
    counted: Counted,
    stream: Option<(u128, Rest)>,
    /// Version of the first event of the stream that may go.
    first: Option<u64>,
}

impl<L: Fn(u128) -> Rest> Count<L> {
    pub(super) const fn new(rest_of: L, aged: Offset, long_ago: LongAgo, is_below: bool) -> Self {
        let counted = Counted { records: 0, let_go: 0, is_late: false };
        Self { rest_of, aged, long_ago, is_below, counted, stream: None, first: None }
    }

    /// The next entry: streams come one after the other, events of each before its marks, snapshots last.
    pub(super) fn take(&mut self, entry: StreamEntry) {
        let rest = match self.stream {
            Some((stream, rest)) if stream == entry.stream => rest,
            _ => {
                self.end_stream();
                let rest = (self.rest_of)(entry.stream);
                self.stream = Some((entry.stream, rest));
                rest
            }
        };
        self.counted.records += 1;
        let Some(mark) = entry.mark else {
            if entry.version < rest.life.beginning.first {
                self.counted.let_go += 1;
                self.counted.is_late |= self.is_below;
                self.first.get_or_insert(entry.version.get());
            }
            return;
        };
        self.counted.let_go += u64::from(!is_needed(mark, entry.offset, &rest));
        if let Some(at) = mark.snapshot(entry.offset) {
            self.counted.is_late |= self.long_ago.0.get(&entry.stream).is_some_and(|told| !told.keeps(at));
        }
        let told = mark.life(entry.offset);
        if entry.offset < self.aged && told != Life::default() {
            let known = self.long_ago.0.entry(entry.stream).or_default();
            *known = known.and(told);
        }
    }

    fn end_stream(&mut self) {
        if let (Some((stream, _)), Some(first)) = (self.stream, self.first.take()) {
            self.counted.is_late |= self.long_ago.0.get(&stream).is_some_and(|told| first < told.beginning.first.get());
        }
    }

    /// What there is, and what is known for the segment before.
    pub(super) fn finish(mut self) -> (Counted, LongAgo) {
        self.end_stream();
        (self.counted, self.long_ago)
    }
}

/// What is kept of a record of a topic of events whose stream is at a version and rests on so much. Whether an event is followed by one of its type with all of its tags
/// is asked of events that may go alone.
///
/// # Errors
/// What `is_followed` returns.
pub(super) fn kept(
    record: &StoredRecord<'_>,
    newest: StreamVersion,
    rest: &Rest,
    is_followed: impl FnOnce(&EventView<'_>) -> Result<bool, LogError>,
) -> Result<Kept, LogError> {
    if let Some(mark) = record.mark().filter(|mark| mark.removed().is_none()) {
        return Ok(if is_needed(mark, record.offset, rest) { Kept::Whole } else { Kept::Nothing });
    }
    let beginning = &rest.life.beginning;
    let Some(event) = record.posted() else { return Ok(Kept::Whole) };
    let is_removed = record.blank() == Some(Blank::Removed);
    if !is_removed && event.version >= beginning.first {
        return Ok(Kept::Whole);
    }
    // No mark says with which version retention lets a stream begin.
    let is_last = event.version == newest || event.version.plus(1) == beginning.retained || !is_followed(&event)?;
    Ok(if is_last { Kept::Blank(Blank::Removed) } else { Kept::Nothing })
}

/// Whether a stream's life would be another without a mark, or its snapshots.
fn is_needed(mark: Mark, offset: Offset, rest: &Rest) -> bool {
    if let Some(at) = mark.snapshot(offset) {
        return rest.keeps(at);
    }
    let life = &rest.life;
    if mark.redacts().is_some() {
        // A start has the bytes removed of what it says, if they are not all gone.
        return true;
    }
    let told = mark.life(offset);
    let (first, anew) = (told.beginning.first, told.beginning.anew);
    // What says nothing to this build may say something to another.
    told == Life::default()
        || told.tombstoned
        || first > StreamVersion::FIRST && first >= life.beginning.first
        || anew > StreamVersion::FIRST && anew >= life.beginning.anew
        || told.snapshots_from > Offset::default() && told.snapshots_from >= life.snapshots_from
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        batch::{BatchBuilder, Encoded, HEADER_LEN, StoredRecords, retain},
        ids::Timestamp,
        life::{Beginning, Marking, Standing, StreamChange},
        record::NewEvent,
    };

    fn standing(newest: u64, first: u64, anew: u64) -> Standing {
        let beginning = Beginning { first: StreamVersion::new(first), anew: StreamVersion::new(anew), ..Beginning::default() };
        Standing { newest: StreamVersion::new(newest), life: Life { beginning, ..Life::default() } }
    }

    fn rest(life: Life) -> Rest {
        Rest { life, ..Rest::default() }
    }

    /// Events of versions 1 to 6, each of its own type.
    fn events() -> Vec<u8> {
        let mut encoded = Encoded::default();
        for version in 1..=6 {
            let event = NewEvent { kind: format!("Kind{version}").into(), data: "data".into(), ..NewEvent::default() };
            encoded.push_event(&"s".parse().expect("a name"), &event).expect("within limits");
        }
        let mut builder = BatchBuilder::new(Offset::new(10));
        builder.push(&encoded, StreamVersion::FIRST, Timestamp::new(5));
        builder.finish(1).to_vec()
    }

    /// What is kept of each record, if only events of these types are followed.
    fn kept_of(batch: &[u8], standing: &Standing, followed: &[&str]) -> Vec<Kept> {
        let records = StoredRecords::from(batch, HEADER_LEN).expect("a batch");
        let rest = rest(standing.life);
        let kept = |record| kept(&record, standing.newest, &rest, |event| Ok(followed.contains(&event.kind))).expect("nothing fails");
        records.map(|record| kept(record.expect("a record"))).collect()
    }

    #[test]
    fn of_what_is_let_go_stays_a_trace_of_the_newest_and_of_what_nothing_follows() {
        const BLANK: Kept = Kept::Blank(Blank::Removed);
        let (batch, all) = (events(), ["Kind1", "Kind2", "Kind3", "Kind4", "Kind5", "Kind6"]);
        assert_eq!(kept_of(&batch, &standing(6, 1, 1), &all), [Kept::Whole; 6]);
        let expected = [Kept::Nothing, Kept::Nothing, Kept::Nothing, Kept::Whole, Kept::Whole, Kept::Whole];
        assert_eq!(kept_of(&batch, &standing(6, 4, 1), &all), expected);
        let expected = [Kept::Nothing, BLANK, Kept::Nothing, Kept::Whole, Kept::Whole, Kept::Whole];
        assert_eq!(kept_of(&batch, &standing(6, 4, 1), &["Kind1", "Kind3"]), expected);
        let expected = [Kept::Nothing, Kept::Nothing, Kept::Nothing, Kept::Nothing, Kept::Nothing, BLANK];
        assert_eq!(kept_of(&batch, &standing(6, 7, 7), &all), expected, "a deleted stream");
        assert_eq!(kept_of(&batch, &standing(9, 10, 10), &all), [Kept::Nothing; 6]);
    }

    #[test]
    fn of_what_retention_let_go_of_the_last_event_of_a_stream_leaves_a_blank() {
        let (batch, all) = (events(), ["Kind1", "Kind2", "Kind3", "Kind4", "Kind5", "Kind6"]);
        let retained = |first| Standing { newest: StreamVersion::new(9), life: Life::retained(StreamVersion::new(first)) };
        let kept = kept_of(&batch, &retained(4), &all);
        assert_eq!(kept[..3], [Kept::Nothing, Kept::Nothing, Kept::Blank(Blank::Removed)]);
        assert_eq!(kept[3..], [Kept::Whole; 3]);
        // It goes when another one says more.
        let blanks = retain(&batch, None, |_| Kept::Blank(Blank::Removed)).expect("a batch").expect("blanks are left");
        let kept = kept_of(&blanks, &retained(6), &all);
        assert!((0..6).all(|place| (kept[place] == Kept::Blank(Blank::Removed)) == (place == 4)), "{kept:?}");
    }

    #[test]
    fn a_blank_goes_when_it_is_needed_no_more() {
        let blanks = retain(&events(), None, |_| Kept::Blank(Blank::Removed)).expect("a batch").expect("blanks are left");
        let kept = kept_of(&blanks, &standing(6, 7, 7), &["Kind1", "Kind6"]);
        assert!(kept[0] == Kept::Nothing && kept[1..].iter().all(|kept| *kept == Kept::Blank(Blank::Removed)));
        assert_eq!(kept_of(&blanks, &standing(7, 8, 8), &["Kind1", "Kind6"])[5], Kept::Nothing);
        // Its stream began anew before it: that it was removed counts.
        assert_eq!(kept_of(&blanks, &standing(9, 1, 1), &["Kind1"])[0], Kept::Nothing);
        let redacted = retain(&events(), None, |_| Kept::Blank(Blank::Redacted)).expect("a batch").expect("blanks are left");
        assert_eq!(kept_of(&redacted, &standing(6, 1, 1), &["Kind1"]), [Kept::Whole; 6], "they are still read");
    }

    #[test]
    fn marks_stay_as_long_as_something_rests_on_them() {
        let newest = StreamVersion::new(9);
        let of = |marking| Mark::new(marking, newest);
        let truncated = |before| of(Marking::Change(StreamChange::Truncate { before: StreamVersion::new(before) }));
        let [deleted, tombstoned, dropped] =
            [StreamChange::Delete, StreamChange::Tombstone, StreamChange::DropSnapshots].map(|change| of(Marking::Change(change)));
        let needs = |mark, offset, life: Life| is_needed(mark, Offset::new(offset), &rest(life));
        let life = standing(9, 5, 1).life;
        assert!(needs(truncated(5), 3, life) && !needs(truncated(4), 3, life));
        let life = standing(9, 10, 10).life;
        assert!(needs(deleted, 3, life) && !needs(truncated(5), 3, life) && needs(tombstoned, 3, life));
        assert!(needs(deleted, 3, standing(12, 12, 10).life), "it began anew there");
        assert!(!needs(deleted, 3, standing(12, 12, 12).life));
        let life = Life { snapshots_from: Offset::new(7), ..Life::default() };
        assert!(needs(dropped, 7, life) && !needs(dropped, 6, life));
        let snapshot = of(Marking::Snapshot(newest));
        assert!(needs(snapshot, 8, life) && !needs(snapshot, 6, life));
        assert!(needs(Mark::of(99, newest), 3, life), "nobody knows what it is for");
        let retained = Rest { snapshots_from: Offset::new(7), ..Rest::default() };
        assert!(is_needed(snapshot, Offset::new(7), &retained) && !is_needed(snapshot, Offset::new(6), &retained));
        assert!(is_needed(dropped, Offset::new(6), &retained), "it may say something of others");
        let life = Life::retained(StreamVersion::new(6));
        assert!(needs(truncated(6), 3, life) && !needs(truncated(5), 3, life), "what is left of the event before says more");
    }

    #[test]
    fn what_may_go_is_counted_and_whether_it_has_been_so_for_long() {
        let entry =
            |stream, version, offset, mark| StreamEntry { stream, mark, version: StreamVersion::new(version), offset: Offset::new(offset) };
        let truncated = Mark::new(Marking::Change(StreamChange::Truncate { before: StreamVersion::new(4) }), StreamVersion::new(6));
        let entries = (1..=6).map(|version| entry(1, version, version, None)).chain([entry(1, 0, 20, Some(truncated))]);
        let entries: Vec<_> = entries.chain((1..=3).map(|version| entry(2, version, 10 + version, None))).collect();
        let count_of = |aged, is_below| {
            let life = |stream| rest(if stream == 1 { standing(6, 4, 1).life } else { Life::default() });
            let mut count = Count::new(life, Offset::new(aged), LongAgo::default(), is_below);
            entries.iter().for_each(|entry| count.take(*entry));
            count.finish().0
        };
        let count = |aged| count_of(aged, false);
        assert_eq!(count(20), Counted { records: 10, let_go: 3, is_late: false });
        assert_eq!(count_of(20, true), Counted { records: 10, let_go: 3, is_late: true }, "retention let go of the rest, which is blank");
        assert_eq!(count(21), Counted { records: 10, let_go: 3, is_late: true });
        assert_eq!(count(20).bytes(1_000), 300);
        assert!(count(20).is_due(30) && !count(20).is_due(31) && count(21).is_due(100));
        assert!(!Counted::default().is_due(1));

        // The mark lies in a newer segment, which is looked at before.
        let life = Life { snapshots_from: Offset::new(30), ..standing(6, 4, 1).life };
        let mut newer = Count::new(|_| rest(life), Offset::new(50), LongAgo::default(), false);
        newer.take(entry(1, 0, 20, Some(truncated)));
        let (_, long_ago) = newer.finish();
        let mut older = Count::new(|_| rest(life), Offset::new(50), long_ago, false);
        older.take(entry(1, 3, 3, None));
        let snapshot = Mark::new(Marking::Snapshot(StreamVersion::new(6)), StreamVersion::new(6));
        let at = SnapshotAt { version: StreamVersion::new(6), offset: Offset::new(29) };
        assert_eq!(snapshot.snapshot(at.offset), Some(at));
        older.take(entry(1, 0, 29, Some(snapshot)));
        assert_eq!(older.finish().0, Counted { records: 2, let_go: 2, is_late: true });
    }
}
