//! A checkpoint: the tables of one query as they were at one committed position, in sealed pages, under a head that says whose
//! they are.
//!
//! Written and read by `stream/checkpoint/keeper`. Whatever is not exactly what this build, this data folder and this plan wrote
//! is refused with the reason; then the query folds from the log. Invariant: a checkpoint that is read gives the tables, the rows
//! and their order as they were written, or nothing.

pub(crate) mod debt;
pub(crate) mod keeper;

use foldlog_log::{FolderId, Head as LogHead, Position, TopicId, checksum};
use serde::{Deserialize, Serialize};

use crate::{
    store::{Place, StateStore, StoreError, chain},
    stream::{
        fold::Fold,
        operator::codec,
        state::{Version, pages_of},
    },
};

/// What the words of rows and the bytes of their texts mean. It rises whenever an operator keeps something else or otherwise, so
/// that no build takes the state of another for its own.
const FORMAT: u32 = 2;
/// Pages that are looked at while readers of the state's lock wait.
const PAGES_AT_ONCE: usize = 8;
/// Rows for which room is made before they are there.
const RESERVED_ROWS: usize = 1 << 20;
/// Checksum, owner, table, page: before the rows of each page.
const SEAL: usize = 4 + 8 + 2 + 4;

/// Whose state it is. Any difference makes a checkpoint another query's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    folder: String,
    /// A restored folder has another one.
    folder_epoch: u32,
    pub(crate) query: String,
    start: u64,
    fingerprint: u64,
    /// Incarnations of the topics that it reads.
    sources: Vec<String>,
    /// What each table is, with the operator that keeps it.
    tables: Vec<String>,
}

impl Identity {
    pub(crate) fn new(log: &LogHead, query: &str, (start, fingerprint): (Position, u64), sources: &[TopicId], tables: Vec<String>) -> Self {
        let folder: &FolderId = &log.folder;
        Self {
            folder: folder.to_string(),
            folder_epoch: log.epoch,
            query: query.to_owned(),
            start: start.get(),
            fingerprint,
            sources: sources.iter().map(ToString::to_string).collect(),
            tables,
        }
    }

    /// In what a checkpoint of another one differs, in words; none: it is this one's.
    fn difference(&self, other: &Self) -> Option<&'static str> {
        if self.folder != other.folder || self.folder_epoch != other.folder_epoch {
            return Some("it belongs to another data folder, or to this one before it was restored");
        }
        if self.query != other.query || self.start != other.start {
            return Some("it belongs to another query");
        }
        if self.sources != other.sources {
            return Some("a topic that the query reads was deleted and created again since");
        }
        if self.fingerprint != other.fingerprint || self.tables != other.tables {
            return Some("the plan of the query has changed since");
        }
        None
    }

    /// Stands in every page, so that none is taken for another query's.
    fn tag(&self) -> u64 {
        let text = format!("{} {} {} {}", self.query, self.start, self.folder, self.fingerprint);
        u64::from(checksum(text.as_bytes())) << 32 | u64::from(checksum(text.chars().rev().collect::<String>().as_bytes()))
    }
}

/// What the head of a checkpoint says, as JSON behind a checksum.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    format: u32,
    /// How this build encodes values.
    encoding: u32,
    identity: Identity,
    /// Number of the checkpoint, rising, and never that of another one of this query.
    number: u64,
    /// Everything of the sources below this position is folded.
    position: u64,
    /// Rows of each table.
    rows: Vec<u64>,
    /// Over the seals of all pages: one that is missing or older shows.
    digest: u64,
}

/// What every head says, whatever its format.
#[derive(Deserialize)]
struct Versioned {
    format: u32,
    encoding: u32,
}

/// A checkpoint as it lies in a store, and what the next one needs to build on it.
#[derive(Clone, Debug)]
pub(crate) struct Saved {
    /// Its number.
    pub(crate) number: u64,
    /// Everything of the sources below this position is folded in it.
    pub(crate) position: Position,
    /// Its version in the tables of this process.
    version: Version,
    /// Of each page of each table.
    seals: Vec<Vec<Seal>>,
}

/// Checksum of a page, and its length.
#[derive(Clone, Copy, Debug, Default)]
struct Seal {
    check: u32,
    length: u32,
}

impl Saved {
    /// Bytes of all its pages.
    pub(crate) fn bytes(&self) -> u64 {
        self.seals.iter().flatten().map(|seal| u64::from(seal.length)).sum()
    }

    fn digest(&self) -> u64 {
        let mut digest = 0_u64;
        for (table, seals) in self.seals.iter().enumerate() {
            for (page, seal) in seals.iter().enumerate() {
                let place = (table as u64) << 32 | page as u64;
                // As splitmix64 scatters a counter: pages that change places change the sum.
                let mut mixed = place.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (u64::from(seal.check) << 32 | u64::from(seal.length));
                mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                digest = digest.wrapping_add(mixed ^ (mixed >> 31));
            }
        }
        digest
    }
}

/// Why there is no checkpoint to go on from, though there should be.
#[derive(Debug)]
pub(crate) struct Refused(pub(crate) String);

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self(chain(&error))
    }
}

/// A version of a fold that is kept while it is written, and how far it is.
pub(crate) struct Pinned<'a> {
    fold: &'a Fold,
    version: Version,
    position: Position,
}

impl<'a> Pinned<'a> {
    /// Keeps the committed version, which reflects everything below `position`: no step may be committed meanwhile.
    pub(crate) fn new(fold: &'a Fold, position: Position) -> Self {
        Self { fold, version: fold.keep(), position }
    }

    pub(crate) fn position(&self) -> Position {
        self.position
    }
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        self.fold.let_go();
    }
}

/// Writes a checkpoint: what changed since `base`, if the store can build on that, else everything. None if `is_wanted` says no
/// on the way. It is the newest one from then on, and durable with the next sync.
///
/// # Errors
/// What the store says.
pub(crate) fn save(
    store: &dyn StateStore,
    identity: &Identity,
    pinned: Pinned<'_>,
    (base, number): (Option<&Saved>, u64),
    is_wanted: impl Fn() -> bool,
) -> Result<Option<Saved>, StoreError> {
    let base = base.filter(|_| store.is_incremental());
    let mut saving = store.begin(&identity.query, base.is_some())?;
    let (fold, version, tag) = (pinned.fold, pinned.version, identity.tag());
    let mut saved = Saved { number, position: pinned.position, version, seals: base.map_or_else(Vec::new, |base| base.seals.clone()) };
    saved.seals.resize_with(fold.tables(), Vec::new);
    let mut rows = Vec::with_capacity(saved.seals.len());
    let mut bytes = Vec::new();
    for (number, seals) in saved.seals.iter_mut().enumerate() {
        let (count, changed) =
            fold.look(number, |table| (table.rows_at(version), table.pages_changed(base.map(|base| base.version), version)));
        rows.push(count as u64);
        seals.resize(pages_of(count), Seal::default());
        let table = u16::try_from(number).map_err(|_| StoreError::Damaged("a query has too many tables".to_owned()))?;
        for some in changed.chunks(PAGES_AT_ONCE) {
            if !is_wanted() {
                return Ok(None);
            }
            bytes.clear();
            let mut ends = Vec::with_capacity(some.len());
            fold.look(number, |of| {
                for page in some {
                    begin_page(tag, Place { table, page: *page }, &mut bytes);
                    of.write_page(*page, version, &mut bytes);
                    ends.push(bytes.len());
                }
            });
            let mut start = 0;
            for (page, end) in some.iter().zip(ends) {
                let place = Place { table, page: *page };
                let Some(page) = bytes.get_mut(start..end) else { break };
                let seal = seal(page);
                if let Some(of_page) = seals.get_mut(place.page as usize) {
                    *of_page = seal;
                }
                saving.put(place, page)?;
                start = end;
            }
            // Those who fold come first.
            std::thread::yield_now();
        }
    }
    drop(pinned);
    let head = Head {
        format: FORMAT,
        encoding: codec::probe(),
        identity: identity.clone(),
        number,
        position: saved.position.get(),
        rows,
        digest: saved.digest(),
    };
    saving.commit(&encoded(&head)?)?;
    Ok(Some(saved))
}

fn begin_page(tag: u64, place: Place, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&tag.to_le_bytes());
    out.extend_from_slice(&place.table.to_le_bytes());
    out.extend_from_slice(&place.page.to_le_bytes());
}

/// Puts its checksum in front of a page.
fn seal(page: &mut [u8]) -> Seal {
    let length = u32::try_from(page.len()).unwrap_or(u32::MAX);
    let check = page.get(4..).map_or(0, checksum);
    if let Some(first) = page.first_chunk_mut() {
        *first = check.to_le_bytes();
    }
    Seal { check, length }
}

/// The rows of a sealed page, and its seal; none if it is not whole, or not this one.
fn opened(tag: u64, place: Place, page: &[u8]) -> Option<(Seal, &[u8])> {
    let (check, rest) = page.split_first_chunk()?;
    let check = u32::from_le_bytes(*check);
    let mut begun = Vec::with_capacity(SEAL);
    begin_page(tag, place, &mut begun);
    let rows = page.get(SEAL..).filter(|_| page.get(4..SEAL) == begun.get(4..SEAL))?;
    (checksum(rest) == check).then(|| (Seal { check, length: u32::try_from(page.len()).unwrap_or(u32::MAX) }, rows))
}

fn encoded(head: &Head) -> Result<Vec<u8>, StoreError> {
    let text = serde_json::to_vec(head).map_err(|error| StoreError::Damaged(error.to_string()))?;
    Ok([checksum(&text).to_le_bytes().as_slice(), &text].concat())
}

fn decoded(bytes: &[u8]) -> Result<Head, Refused> {
    let damaged = || Refused("its head is not what its checksum promised".to_owned());
    let (check, text) = bytes.split_first_chunk().ok_or_else(damaged)?;
    if checksum(text) != u32::from_le_bytes(*check) {
        return Err(damaged());
    }
    let unreadable = |error: serde_json::Error| Refused(format!("its head cannot be read: {error}"));
    let Versioned { format, encoding } = serde_json::from_slice(text).map_err(unreadable)?;
    if format != FORMAT || encoding != codec::probe() {
        return Err(Refused("another version of foldlog wrote it, which keeps state otherwise".to_owned()));
    }
    serde_json::from_slice(text).map_err(unreadable)
}

/// Reads the newest checkpoint of a query into its fold, which is empty, and stays so if there is none or it is refused.
///
/// `durable` is the end of the log, `at_least` the number of the checkpoint that was the last to become durable.
///
/// # Errors
/// [`Refused`], with the reason.
pub(crate) fn restore(
    store: &dyn StateStore,
    identity: &Identity,
    fold: &Fold,
    (durable, at_least): (Position, Option<u64>),
) -> Result<Option<Saved>, Refused> {
    let Some(head) = store.head(&identity.query)? else {
        return match at_least {
            None => Ok(None),
            Some(_) => Err(Refused("it is gone".to_owned())),
        };
    };
    let head = decoded(&head)?;
    if let Some(difference) = identity.difference(&head.identity) {
        return Err(Refused(difference.to_owned()));
    }
    if at_least.is_some_and(|at_least| head.number < at_least) {
        return Err(Refused("it is older than the last one that became durable".to_owned()));
    }
    if head.position > durable.get() {
        return Err(Refused(format!("it is of position {}, the log ends at {durable}", head.position)));
    }
    match read_pages(store, identity, fold, &head) {
        Ok(saved) => Ok(Some(saved)),
        Err(refused) => {
            fold.clear();
            Err(refused)
        }
    }
}

fn read_pages(store: &dyn StateStore, identity: &Identity, fold: &Fold, head: &Head) -> Result<Saved, Refused> {
    let damaged = |what: &str| StoreError::Damaged(what.to_owned());
    let rows: Vec<usize> = head.rows.iter().map(|rows| usize::try_from(*rows).unwrap_or(usize::MAX)).collect();
    if rows.len() != fold.tables() || rows.iter().any(|rows| u32::try_from(*rows).is_err()) {
        return Err(Refused("its head does not fit its tables".to_owned()));
    }
    let mut saved = Saved {
        number: head.number,
        position: Position::new(head.position),
        version: Version::default(),
        seals: rows.iter().map(|_| Vec::new()).collect(),
    };
    for (number, rows) in rows.iter().enumerate() {
        fold.look_mut(number, |table| table.reserve((*rows).min(RESERVED_ROWS)));
    }
    let tag = identity.tag();
    store.pages(&identity.query, &mut |place, page| {
        let number = usize::from(place.table);
        let (Some(seals), Some(rows)) = (saved.seals.get_mut(number), rows.get(number)) else {
            return Err(damaged("it has a page of no table"));
        };
        // What a table had before it became smaller, and was not removed.
        if place.page as usize >= pages_of(*rows) {
            return Ok(());
        }
        let (seal, in_page) = opened(tag, place, page).ok_or_else(|| damaged("a page is not what its checksum promised"))?;
        if seals.len() != place.page as usize {
            return Err(damaged("a page is missing"));
        }
        seals.push(seal);
        fold.look_mut(number, |table| table.read_page(in_page)).ok_or_else(|| damaged("a page cannot be read"))
    })?;
    let whole = rows.iter().enumerate().all(|(number, rows)| fold.look_mut(number, |table| table.has_read(*rows)));
    if !whole || saved.digest() != head.digest {
        return Err(Refused("pages are missing, or older than its head".to_owned()));
    }
    Ok(saved)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(query: &str) -> Identity {
        Identity {
            folder: "f".to_owned(),
            folder_epoch: 0,
            query: query.to_owned(),
            start: 0,
            fingerprint: 1,
            sources: vec!["s".to_owned()],
            tables: vec!["#0 groups".to_owned()],
        }
    }

    fn head() -> Head {
        Head { format: FORMAT, encoding: codec::probe(), identity: identity("q"), number: 3, position: 9, rows: vec![2], digest: 5 }
    }

    #[test]
    fn the_head_of_another_build_is_refused_whatever_else_it_says() {
        let head = head();
        assert_eq!(decoded(&encoded(&head).unwrap()).unwrap().number, 3);
        for other in [Head { format: FORMAT + 1, ..self::head() }, Head { encoding: codec::probe() ^ 1, ..self::head() }] {
            let Refused(reason) = decoded(&encoded(&other).unwrap()).unwrap_err();
            assert_eq!(reason, "another version of foldlog wrote it, which keeps state otherwise");
        }
        // One that has nothing else that is known here.
        let text = br#"{"format":2,"encoding":0,"pages":[]}"#;
        let Refused(reason) = decoded(&[checksum(text).to_le_bytes().as_slice(), text].concat()).unwrap_err();
        assert!(reason.starts_with("another version"), "{reason}");
        let whole = encoded(&head).unwrap();
        assert!((0..whole.len()).all(|end| decoded(&whole[..end]).is_err()));
    }

    #[test]
    fn every_difference_of_an_identity_is_told() {
        let own = identity("q");
        assert_eq!(own.difference(&own), None);
        let others = [
            Identity { folder: "g".to_owned(), ..own.clone() },
            Identity { folder_epoch: 1, ..own.clone() },
            identity("p"),
            Identity { start: 1, ..own.clone() },
            Identity { fingerprint: 2, ..own.clone() },
            Identity { sources: vec!["t".to_owned()], ..own.clone() },
            Identity { tables: vec!["#1 groups".to_owned()], ..own.clone() },
        ];
        assert!(others.iter().all(|other| own.difference(other).is_some()));
        assert_ne!(own.tag(), identity("p").tag());
    }

    #[test]
    fn a_page_is_opened_in_its_own_place_alone_and_only_whole() {
        let (place, mut page) = (Place { table: 1, page: 7 }, Vec::new());
        begin_page(5, place, &mut page);
        page.extend_from_slice(b"rows");
        let check = seal(&mut page).check;
        assert_eq!(opened(5, place, &page).map(|(seal, rows)| (seal.check, rows)), Some((check, b"rows".as_slice())));
        assert!(opened(6, place, &page).is_none() && opened(5, Place { page: 8, ..place }, &page).is_none());
        for at in 0..page.len() {
            let mut damaged = page.clone();
            damaged[at] ^= 1;
            assert!(opened(5, place, &damaged).is_none() && opened(5, place, &page[..at]).is_none(), "at {at}");
        }
    }
}
