//! The life of a stream: what was truncated or deleted of it, which snapshots it has, and whether it may ever go on.
//!
//! A leaf. A [`StreamChange`] becomes a mark in the log, admission and readers ask what follows from them, key indexes keep it.
//! Invariant: a life only ever grows, so that marks may be put together in any order, any of them twice.

use crate::ids::{Offset, StreamHead, StreamVersion};

/// What becomes of a stream.
///
/// Its events can no longer be read by stream, at once; by partition, topic and position they can until they are physically removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamChange {
    /// Events before a version are gone; those from it on stay. At most the version after the newest, and never less than before.
    Truncate {
        /// Version of the first event that stays.
        before: StreamVersion,
    },
    /// All events are gone. Versions go on: the next event begins the stream anew, with the next version.
    Delete,
    /// All events are gone, and nothing is appended any more, ever.
    Tombstone,
    /// All snapshots that were put until now are gone; events stay.
    DropSnapshots,
}

/// Where a stream begins by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// Version of the first event that is read; those before are gone.
    pub first: StreamVersion,
    /// Version with which it began anew after it was deleted last; 1 if it never was. What is missing from here to `first` was truncated, or
    /// retention let go of it.
    pub anew: StreamVersion,
    /// Version of the first event that retention has left, at most `first`; 1 if it let go of none.
    pub retained: StreamVersion,
}

impl Default for Beginning {
    fn default() -> Self {
        Self { first: StreamVersion::FIRST, anew: StreamVersion::FIRST, retained: StreamVersion::FIRST }
    }
}

/// Where a stream stands and begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamState {
    /// Where it stands.
    pub head: StreamHead,
    /// Where it begins.
    pub beginning: Beginning,
}

/// What became of a stream, its events aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) beginning: Beginning,
    /// Nothing is appended any more.
    pub(crate) tombstoned: bool,
    /// Snapshots that lie before this offset are gone.
    pub(crate) snapshots_from: Offset,
    /// Bytes of what redactions before this offset are about are gone. Of a partition ([`NO_STREAM`]).
    pub(crate) erased_to: Offset,
}

/// In the place of a stream's name, in marks of a whole partition. No stream is named so.
pub(crate) const NO_STREAM: &[u8] = b"";

/// Kinds of marks, by their code in the log and in key indexes. What has none of these codes is somebody's of later.
mod code {
    pub(super) const TRUNCATED: u8 = 1;
    pub(super) const DELETED: u8 = 2;
    pub(super) const TOMBSTONED: u8 = 3;
    pub(super) const SNAPSHOTS_DROPPED: u8 = 4;
    pub(super) const SNAPSHOT: u8 = 5;
    pub(super) const REMOVED: u8 = 6;
    pub(super) const REDACTED: u8 = 7;
    pub(super) const REDACTION: u8 = 8;
    pub(super) const ERASED: u8 = 9;
}

/// Why nothing is left of an event but its stream, version, type, tags and times, in its place: it is a blank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blank {
    /// It was removed, and is read no more; what is left tells that it was there. In the log it is a mark.
    Removed,
    /// Its data was redacted; it is read as an event without data.
    Redacted,
}

impl Blank {
    /// What kind of blank, as the log has it.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Removed => code::REMOVED,
            Self::Redacted => code::REDACTED,
        }
    }

    /// The kind of a code; none if that is another mark's.
    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        match code {
            code::REMOVED => Some(Self::Removed),
            code::REDACTED => Some(Self::Redacted),
            _ => None,
        }
    }
}

/// What an append marks a stream with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marking {
    /// A change.
    Change(StreamChange),
    /// A snapshot as of a version.
    Snapshot(StreamVersion),
    /// The data of the event with a version is redacted.
    Redaction(StreamVersion),
    /// The bytes of what redactions below an offset of the partition are about are gone. Of no stream.
    Erased(Offset),
}

/// Why a stream takes no event, change or snapshot, whatever is believed of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Tombstoned,
    /// It ends before the version before which it was to be truncated.
    BeyondEnd(StreamVersion),
    /// It was never at that version, or deleted since.
    NoSuchState(StreamVersion),
    /// It has no event of that version.
    NoSuchEvent(StreamVersion),
}

/// Where a snapshot lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SnapshotAt {
    /// What it is a state as of. Of several as of one version the last counts.
    pub(crate) version: StreamVersion,
    pub(crate) offset: Offset,
}

/// A redaction of an event's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RedactionAt {
    /// Version of the event.
    pub(crate) version: StreamVersion,
    /// Where the mark lies that says so.
    pub(crate) offset: Offset,
}

/// What a mark says: a kind, and a version: that of the first event which it leaves, or which a snapshot is as of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    code: u8,
    version: StreamVersion,
}

/// Set in the version of a mark in a key index, which makes it higher than that of any event.
const MARK: u64 = 1 << 63;
/// Place of a mark's code in it.
const CODE_AT: u32 = 56;

impl Mark {
    /// The mark on a stream whose newest event has version `newest`.
    pub(crate) fn new(marking: Marking, newest: StreamVersion) -> Self {
        let (code, version) = match marking {
            Marking::Change(StreamChange::Truncate { before }) => (code::TRUNCATED, before),
            Marking::Change(StreamChange::Delete) => (code::DELETED, newest.plus(1)),
            Marking::Change(StreamChange::Tombstone) => (code::TOMBSTONED, newest.plus(1)),
            Marking::Change(StreamChange::DropSnapshots) => (code::SNAPSHOTS_DROPPED, newest),
            Marking::Snapshot(version) => (code::SNAPSHOT, version),
            Marking::Redaction(version) => (code::REDACTION, version),
            Marking::Erased(to) => (code::ERASED, StreamVersion::new(to.get())),
        };
        Self { code, version }
    }

    pub(crate) const fn of(code: u8, version: StreamVersion) -> Self {
        Self { code, version }
    }

    /// What kind of mark, as the log has it.
    pub(crate) const fn code(self) -> u8 {
        self.code
    }

    /// The change that it stands for; none if it is a snapshot, or this build does not know it.
    #[must_use]
    pub fn change(self) -> Option<StreamChange> {
        Some(match self.code {
            code::TRUNCATED => StreamChange::Truncate { before: self.version },
            code::DELETED => StreamChange::Delete,
            code::TOMBSTONED => StreamChange::Tombstone,
            code::SNAPSHOTS_DROPPED => StreamChange::DropSnapshots,
            _ => return None,
        })
    }

    /// What kind of mark, in words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self.code {
            code::TRUNCATED => "truncated",
            code::DELETED => "deleted",
            code::TOMBSTONED => "tombstoned",
            code::SNAPSHOTS_DROPPED => "snapshots dropped",
            code::SNAPSHOT => "snapshot",
            code::REMOVED => "removed event",
            code::REDACTION => "redaction",
            code::ERASED => "erased",
            _ => "unknown",
        }
    }

    /// Version of the first event that it leaves, or which a snapshot is as of.
    #[must_use]
    pub const fn version(self) -> StreamVersion {
        self.version
    }

    /// The snapshot that it is, where it lies; none if it is none.
    pub(crate) fn snapshot(self, offset: Offset) -> Option<SnapshotAt> {
        (self.code == code::SNAPSHOT).then_some(SnapshotAt { version: self.version, offset })
    }

    /// Version of the event that it is what is left of; none if it is none.
    pub(crate) fn removed(self) -> Option<StreamVersion> {
        (self.code == code::REMOVED).then_some(self.version)
    }

    /// Version of the event whose data it redacts; none if it redacts nothing.
    #[must_use]
    pub fn redacts(self) -> Option<StreamVersion> {
        (self.code == code::REDACTION).then_some(self.version)
    }

    /// The redaction that it is, where it lies; none if it is none.
    pub(crate) fn redaction(self, offset: Offset) -> Option<RedactionAt> {
        self.redacts().map(|version| RedactionAt { version, offset })
    }

    /// The version that it has in a key index.
    pub(crate) fn to_key(self) -> u64 {
        MARK | u64::from(self.code) << CODE_AT | self.version.get() & ((1 << CODE_AT) - 1)
    }

    /// The mark of a version in a key index; none if that is an event's.
    pub(crate) fn from_key(version: u64) -> Option<Self> {
        let [top, ..] = version.to_be_bytes();
        (version & MARK != 0).then_some(Self { code: top & 0x7f, version: StreamVersion::new(version & ((1 << CODE_AT) - 1)) })
    }

    /// Whether a version in a key index is a mark's.
    pub(crate) const fn is_key(version: u64) -> bool {
        version & MARK != 0
    }

    /// What a stream's life is told by it alone, where it lies at an offset.
    pub(crate) fn life(self, offset: Offset) -> Life {
        let mut life = Life::default();
        match self.code {
            code::TRUNCATED => life.beginning.first = self.version,
            code::DELETED | code::TOMBSTONED => (life.beginning.first, life.beginning.anew) = (self.version, self.version),
            // A state may tell what was redacted.
            code::SNAPSHOTS_DROPPED | code::REDACTION => life.snapshots_from = offset,
            code::ERASED => life.erased_to = Offset::new(self.version.get()),
            _ => {}
        }
        life.tombstoned = self.code == code::TOMBSTONED;
        life
    }
}

impl Life {
    /// What retention makes of a stream when it leaves events from a version on.
    pub(crate) fn retained(first: StreamVersion) -> Self {
        Self { beginning: Beginning { first, retained: first, ..Beginning::default() }, ..Self::default() }
    }

    /// Both together.
    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            beginning: Beginning {
                first: self.beginning.first.max(other.beginning.first),
                anew: self.beginning.anew.max(other.beginning.anew),
                retained: self.beginning.retained.max(other.beginning.retained),
            },
            tombstoned: self.tombstoned || other.tombstoned,
            snapshots_from: self.snapshots_from.max(other.snapshots_from),
            erased_to: self.erased_to.max(other.erased_to),
        }
    }

    /// Whether a snapshot is not gone.
    pub(crate) fn keeps(self, snapshot: SnapshotAt) -> bool {
        !self.tombstoned && snapshot.version >= self.beginning.anew && snapshot.offset >= self.snapshots_from
    }
}

/// Where a stream stands, and what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Version of the newest event it was ever given; 0: none.
    pub(crate) newest: StreamVersion,
    pub(crate) life: Life,
}

impl Standing {
    pub(crate) fn state(self) -> StreamState {
        StreamState { head: self.head(), beginning: self.life.beginning }
    }

    pub(crate) fn head(self) -> StreamHead {
        if self.life.tombstoned {
            StreamHead::Tombstoned
        } else if self.newest < StreamVersion::FIRST {
            StreamHead::Absent
        } else if self.newest < self.life.beginning.anew {
            StreamHead::Deleted(self.newest)
        } else {
            StreamHead::At(self.newest)
        }
    }

    /// Why it takes no event, or no such mark.
    pub(crate) fn refusal(self, marking: Option<Marking>) -> Option<Refusal> {
        match marking {
            Some(Marking::Change(StreamChange::Tombstone) | Marking::Erased(_)) => None,
            // Of a stream that is over, too: its events lie there.
            Some(Marking::Redaction(version)) => (version > self.newest).then_some(Refusal::NoSuchEvent(version)),
            _ if self.life.tombstoned => Some(Refusal::Tombstoned),
            Some(Marking::Change(StreamChange::Truncate { before })) if before > self.newest.plus(1) => Some(Refusal::BeyondEnd(before)),
            Some(Marking::Snapshot(version)) if version > self.newest || version < self.life.beginning.anew => {
                Some(Refusal::NoSuchState(version))
            }
            _ => None,
        }
    }

    /// The mark, at an offset, if that says anything new.
    pub(crate) fn mark(self, marking: Marking, offset: Offset) -> Option<Mark> {
        let is_absent = self.newest < StreamVersion::FIRST;
        let mark = Mark::new(marking, self.newest);
        match marking {
            Marking::Snapshot(_) | Marking::Redaction(_) | Marking::Erased(_) => Some(mark),
            Marking::Change(change) => {
                let changes = self.life.and(mark.life(offset)) != self.life;
                (changes && (change == StreamChange::Tombstone || !is_absent)).then_some(mark)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(newest: u64) -> Standing {
        Standing { newest: StreamVersion::new(newest), life: Life::default() }
    }

    fn after(standing: Standing, change: StreamChange) -> Standing {
        let mark = standing.mark(Marking::Change(change), Offset::new(9)).expect("it changes something");
        assert_eq!(Mark::from_key(mark.to_key()), Some(mark));
        assert!(Mark::is_key(mark.to_key()));
        assert_eq!(mark.change(), Some(change));
        Standing { life: standing.life.and(mark.life(Offset::new(9))), ..standing }
    }

    #[test]
    fn a_stream_goes_on_after_a_delete_and_never_after_a_tombstone() {
        let before = StreamVersion::new(3);
        let truncated = after(at(5), StreamChange::Truncate { before });
        assert_eq!(truncated.head(), StreamHead::At(StreamVersion::new(5)));
        assert_eq!(truncated.life.beginning, Beginning { first: before, ..Beginning::default() });
        let deleted = after(truncated, StreamChange::Delete);
        assert_eq!(deleted.head(), StreamHead::Deleted(StreamVersion::new(5)));
        let again = Standing { newest: StreamVersion::new(6), ..deleted };
        assert_eq!(again.head(), StreamHead::At(StreamVersion::new(6)));
        let anew = StreamVersion::new(6);
        assert_eq!(again.life.beginning, Beginning { first: anew, anew, ..Beginning::default() });
        assert_eq!(after(again, StreamChange::Tombstone).head(), StreamHead::Tombstoned);
        assert_eq!(after(at(0), StreamChange::Tombstone).head(), StreamHead::Tombstoned);
    }

    #[test]
    fn what_is_so_already_needs_no_mark() {
        let truncated = after(at(5), StreamChange::Truncate { before: StreamVersion::new(3) });
        for before in 1..=3 {
            let change = StreamChange::Truncate { before: StreamVersion::new(before) };
            assert_eq!(truncated.mark(Marking::Change(change), Offset::new(9)), None);
        }
        let deleted = Marking::Change(StreamChange::Delete);
        assert_eq!(at(0).mark(deleted, Offset::new(9)), None, "there is nothing to delete");
        for change in [StreamChange::Delete, StreamChange::Tombstone, StreamChange::DropSnapshots] {
            assert_eq!(after(truncated, change).mark(Marking::Change(change), Offset::new(9)), None, "{change:?}");
        }
    }

    #[test]
    fn snapshots_go_with_what_they_are_of() {
        let snapshot = |version, offset| SnapshotAt { version: StreamVersion::new(version), offset: Offset::new(offset) };
        let life = after(at(5), StreamChange::DropSnapshots).life;
        assert!(!life.keeps(snapshot(5, 8)) && life.keeps(snapshot(2, 10)));
        let life = after(at(5), StreamChange::Truncate { before: StreamVersion::new(6) }).life;
        assert!(life.keeps(snapshot(5, 8)), "whoever truncates goes on from it");
        let deleted = after(at(5), StreamChange::Delete);
        assert!(!deleted.life.keeps(snapshot(5, 10)) && deleted.life.keeps(snapshot(6, 10)));
        let refusal = |version| deleted.refusal(Some(Marking::Snapshot(StreamVersion::new(version))));
        assert_eq!(refusal(5), Some(Refusal::NoSuchState(StreamVersion::new(5))), "it is of what was deleted");
        assert_eq!(refusal(6), Some(Refusal::NoSuchState(StreamVersion::new(6))), "there is no such version yet");
        assert_eq!(Standing { newest: StreamVersion::new(6), ..deleted }.refusal(Some(Marking::Snapshot(StreamVersion::new(6)))), None);
    }

    #[test]
    fn a_stream_begins_where_retention_and_its_marks_have_both_left_something() {
        let (retained, before) = (Life::retained(StreamVersion::new(4)), StreamVersion::new(3));
        let truncated = after(at(9), StreamChange::Truncate { before }).life;
        assert_eq!((retained.and(truncated).beginning, truncated.and(retained)), (retained.beginning, retained.and(truncated)));
        let further = Life::retained(StreamVersion::new(2)).and(truncated).beginning;
        assert_eq!((further.first, further.retained, further.anew), (before, StreamVersion::new(2), StreamVersion::FIRST));
        assert!(retained.keeps(SnapshotAt { version: StreamVersion::new(2), offset: Offset::new(0) }), "whoever reads on needs it");
    }

    #[test]
    fn marks_count_in_any_order_and_unknown_ones_not_at_all() {
        let mark = |code, first| Mark::of(code, StreamVersion::new(first)).life(Offset::new(9));
        let (truncated, deleted) = (mark(code::TRUNCATED, 4), mark(code::DELETED, 6));
        assert_eq!(truncated.and(deleted), deleted.and(truncated));
        assert_eq!(deleted.and(deleted), deleted);
        assert_eq!(mark(99, 7), Life::default());
        assert_eq!(Mark::from_key(u64::MAX >> 1), None);
    }
}
