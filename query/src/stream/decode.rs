//! Decoded chunks of topics, shared by the tasks that read the same columns of them.
//!
//! Asked by the sources of tasks. Whoever comes first to a position decodes what begins there, others take the same chunk.
//! Who stands where nothing is kept (new, paused, far behind) decodes for itself, and joins the others where it meets them.
//! Reading and decoding are two: as soon as records were read, another worker may read what follows, and decode beside this one.
//! Invariants: what is kept stays within its budget, the oldest goes first, whoever still wants it; nobody waits but for a
//! chunk that another worker is decoding at that moment; what a chunk gives does not depend on who decoded it.

use std::{
    collections::{BTreeMap, VecDeque, btree_map::Entry},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::Waker,
};

use bytes::Bytes;
use foldlog_log::{Chunk, LogBackend, LogError, LogReader, Position, ReadLimits, Selection, TopicId, TopicName};
use parking_lot::Mutex;

use crate::{
    catalog::{Source, WantedColumn},
    codec::{BadInput, Carried, Decoder},
    error::QueryError,
    plan::SourceScan,
    stream::change::ChangeBatch,
};

/// Memory for chunks that are kept, in bytes.
pub(crate) const KEPT_BYTES: usize = 64 << 20;
/// What a chunk takes beside its rows, in bytes.
const CHUNK_BYTES: usize = 1024;

/// Every record of a source from one position up to another, decoded.
pub(crate) struct Decoded {
    /// The first position that is covered.
    from: Position,
    /// Every record of the source from there up to here (exclusive) is covered.
    pub(crate) to: Position,
    /// Those that could be decoded.
    pub(crate) rows: ChangeBatch,
    /// Number of records.
    pub(crate) records: u64,
    /// What they hand on to what is written of them.
    pub(crate) carried: Arc<Carried>,
    /// The first faults.
    pub(crate) bad: Vec<BadInput>,
    /// Number of all faults.
    pub(crate) bad_count: u64,
}

impl Decoded {
    fn bytes(&self) -> usize {
        let faults: usize = self.bad.iter().map(|bad| size_of_val(bad) + bad.reason.len()).sum();
        // Row time and position were made room for before it was known which records can be decoded.
        let marks = usize::try_from(self.records).unwrap_or(usize::MAX).saturating_mul(2 * 8);
        CHUNK_BYTES + self.rows.rows.get_array_memory_size() + marks + faults + bytes_of(&self.carried)
    }

    /// What this chunk gives to a reader at `at` that may read to `until`, `most` rows at most; none if it cannot be cut there.
    fn part(self: &Arc<Self>, at: Position, until: Position, most: usize) -> Option<Arc<Self>> {
        let start = self.rows.positions.partition_point(|position| *position < at.get());
        let end = self.rows.positions.partition_point(|position| *position < until.get());
        let (end, to) = match self.rows.positions.get(start.saturating_add(most)) {
            Some(next) if start + most < end => (start + most, Position::new(*next)),
            _ => (end, self.to.min(until)),
        };
        if at == self.from && to == self.to {
            return Some(Arc::clone(self));
        }
        if self.bad_count > self.bad.len() as u64 {
            // Nobody knows where the faults lie that were only counted.
            return None;
        }
        let bad: Vec<BadInput> = self.bad.iter().filter(|bad| (at..to).contains(&bad.position)).cloned().collect();
        let skipped = bad.iter().filter(|bad| bad.column.is_none()).count();
        let bad_count = bad.len() as u64;
        let rows = self.rows.slice(start, end - start);
        let carried = Arc::clone(&self.carried);
        Some(Arc::new(Self { from: at, to, records: (rows.len() + skipped) as u64, carried, rows, bad, bad_count }))
    }
}

/// About what it takes in memory.
fn bytes_of(carried: &Carried) -> usize {
    const ENTRY: usize = 64;
    let headers = carried.headers.values().flatten();
    let texts: usize = headers.map(|(name, value)| ENTRY + name.len() + value.as_ref().map_or(0, Bytes::len)).sum();
    texts + (carried.headers.len() + carried.without_key.len()) * ENTRY
}

/// What is asked for at a position.
pub(crate) enum Given {
    /// Rows, from there on.
    Chunk(Arc<Decoded>),
    /// Records from there on, which the asker is to decode; until then others wait for it.
    Read(Undecoded),
    /// Another worker decodes it; the waker is woken when it is there.
    Wait,
    /// It lies in files, which the asker does not want to wait for.
    InFiles,
}

/// All chunks that are kept. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Decoding {
    shared: Arc<Shared>,
}

struct Shared {
    log: Arc<dyn LogBackend>,
    budget: usize,
    /// Records decoded.
    records: AtomicU64,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    lanes: Vec<(u64, Key, Weak<Lane>)>,
    next_lane: u64,
    /// By lane and first position.
    chunks: BTreeMap<(u64, Position), Arc<Decoded>>,
    /// The keys of `chunks`, oldest first.
    order: VecDeque<(u64, Position)>,
    bytes: usize,
    /// What is being decoded, by lane and first position, and who waits for it.
    under_way: BTreeMap<(u64, Position), Vec<Waker>>,
}

/// Readers with the same key can share what they decode.
#[derive(PartialEq)]
struct Key {
    topic: TopicId,
    /// Without its names and statement: what is said about the bytes of its records.
    source: Source,
    wanted: Vec<WantedColumn>,
}

impl Decoding {
    pub(crate) fn new(log: Arc<dyn LogBackend>, budget: usize) -> Self {
        Self { shared: Arc::new(Shared { log, budget, records: AtomicU64::new(0), kept: Mutex::default() }) }
    }

    /// Records decoded so far.
    pub(crate) fn records(&self) -> u64 {
        self.shared.records.load(Ordering::Relaxed)
    }

    /// Lets go of everything that is kept.
    pub(crate) fn forget(&self) {
        let mut kept = self.shared.kept.lock();
        kept.chunks.clear();
        kept.order.clear();
        kept.bytes = 0;
    }

    /// The lane for the readers of these columns, whose first reader starts at `from`.
    ///
    /// # Errors
    /// [`QueryError::Log`] if the topic does not exist, or if nothing can be read from `from`; those of [`Decoder::new`].
    pub(crate) fn lane(&self, scan: &SourceScan, from: Position) -> Result<Arc<Lane>, QueryError> {
        let source = &scan.source;
        let incarnation = self.shared.log.topic(&source.topic)?.id;
        let key = Key {
            topic: incarnation,
            source: Source { name: String::new(), query: None, sql: String::new(), ..source.as_ref().clone() },
            wanted: scan.wanted.clone(),
        };
        // Says what is wrong before anything runs, to the one who asks.
        let cursor = Cursor::open(self.shared.log.as_ref(), scan, incarnation, from)?;
        let mut kept = self.shared.kept.lock();
        kept.lanes.retain(|(_, _, lane)| lane.strong_count() > 0);
        let known = kept.lanes.iter().find(|(_, known, _)| *known == key).and_then(|(_, _, lane)| lane.upgrade());
        if let Some(lane) = known {
            return Ok(lane);
        }
        kept.next_lane += 1;
        let id = kept.next_lane;
        let (cursors, decoders) = (Mutex::new(vec![cursor]), Mutex::new(vec![Decoder::new(&scan.source, &scan.wanted)?]));
        let lane = Arc::new(Lane { id, scan: scan.clone(), incarnation, cursors, decoders, shared: Arc::clone(&self.shared) });
        kept.lanes.push((id, key, Arc::downgrade(&lane)));
        Ok(lane)
    }
}

/// What readers of the same columns of the same source share.
pub(crate) struct Lane {
    id: u64,
    scan: SourceScan,
    /// Of the topic: another one of its name is not read.
    pub(crate) incarnation: TopicId,
    /// Where reading can go on without opening anything; no more than there are readers.
    cursors: Mutex<Vec<Cursor>>,
    /// What knows how records look, by now; no more than there were at work at once.
    decoders: Mutex<Vec<Decoder>>,
    shared: Arc<Shared>,
}

impl Drop for Lane {
    fn drop(&mut self) {
        let mut kept = self.shared.kept.lock();
        kept.order.retain(|(lane, _)| *lane != self.id);
        let mut gone = kept.chunks.split_off(&(self.id, Position::default()));
        let mut later = gone.split_off(&(self.id + 1, Position::default()));
        kept.chunks.append(&mut later);
        kept.bytes -= gone.values().map(|chunk| chunk.bytes()).sum::<usize>();
    }
}

impl Lane {
    pub(crate) fn topic(&self) -> &TopicName {
        &self.scan.source.topic
    }

    /// What lies from `at` on, below `until`, which is durable and above `at`; no more than `limits`. Blocks on files.
    ///
    /// # Errors
    /// [`QueryError::Log`] where the log cannot be read.
    pub(crate) fn read(self: &Arc<Self>, at: Position, until: Position, limits: ReadLimits, waker: &Waker) -> Result<Given, QueryError> {
        self.give(at, until, limits, waker, true)
    }

    /// As [`Lane::read`], without blocking.
    ///
    /// # Errors
    /// As [`Lane::read`].
    pub(crate) fn read_from_memory(
        self: &Arc<Self>,
        at: Position,
        until: Position,
        limits: ReadLimits,
        waker: &Waker,
    ) -> Result<Given, QueryError> {
        self.give(at, until, limits, waker, false)
    }

    fn give(
        self: &Arc<Self>,
        at: Position,
        until: Position,
        limits: ReadLimits,
        waker: &Waker,
        may_block: bool,
    ) -> Result<Given, QueryError> {
        let here = (self.id, at);
        let until = {
            let mut kept = self.shared.kept.lock();
            if let Some((_, chunk)) = kept.chunks.range((self.id, Position::default())..=here).next_back()
                && chunk.to > at
                && let Some(part) = chunk.part(at, until, limits.records as usize)
            {
                return Ok(Given::Chunk(part));
            }
            if let Some(waiting) = kept.under_way.get_mut(&here) {
                waiting.push(waker.clone());
                return Ok(Given::Wait);
            }
            kept.under_way.insert(here, Vec::new());
            // What begins later need not be decoded again.
            let later = (self.id, Position::new(at.get() + 1).min(until))..(self.id, until);
            let chunk = kept.chunks.range(later.clone()).next().map(|(key, _)| key.1);
            let coming = kept.under_way.range(later).next().map(|(key, _)| key.1);
            chunk.into_iter().chain(coming).fold(until, Position::min)
        };
        let under_way = UnderWay { lane: Arc::clone(self), at };
        let Some(chunk) = self.read_on(at, until, limits, may_block)? else { return Ok(Given::InFiles) };
        Ok(Given::Read(Undecoded { under_way, chunk }))
    }

    /// None if that would block and must not.
    fn read_on(self: &Arc<Self>, at: Position, until: Position, limits: ReadLimits, may_block: bool) -> Result<Option<Chunk>, QueryError> {
        let parked = {
            let mut cursors = self.cursors.lock();
            let fits = |cursor: &Cursor| cursor.at == at && (may_block || cursor.reader.in_memory());
            cursors.iter().position(fits).map(|place| cursors.remove(place))
        };
        let mut cursor = match parked {
            Some(cursor) => cursor,
            None if !may_block => return Ok(None),
            None => Cursor::open(self.shared.log.as_ref(), &self.scan, self.incarnation, at)?,
        };
        let chunk = cursor.reader.read(until, limits)?;
        cursor.at = chunk.scanned_to;
        let mut cursors = self.cursors.lock();
        cursors.push(cursor);
        // What is being decoded holds the lane, too, which makes no difference worth counting.
        if cursors.len() > Arc::strong_count(self) {
            cursors.remove(0);
        }
        Ok(Some(chunk))
    }

    fn decode(&self, from: Position, chunk: &Chunk) -> Result<Decoded, QueryError> {
        let parked = self.decoders.lock().pop();
        let mut decoder = parked.map_or_else(|| Decoder::new(&self.scan.source, &self.scan.wanted), Ok)?;
        let decoded = decoder.decode(&chunk.runs)?;
        self.decoders.lock().push(decoder);
        let records = chunk.runs.iter().map(|run| u64::from(run.count)).sum();
        self.shared.records.fetch_add(records, Ordering::Relaxed);
        let rows = ChangeBatch {
            rows: decoded.batch,
            ops: None,
            rowtime: decoded.rowtime,
            positions: decoded.positions,
            value_null: decoded.value_null,
        };
        let carried = Arc::new(decoded.carried);
        Ok(Decoded { from, to: chunk.scanned_to, rows, records, carried, bad: decoded.bad, bad_count: decoded.bad_count })
    }

    /// Keeps a chunk for others, and lets go what is oldest.
    fn keep(&self, chunk: &Arc<Decoded>) {
        let (key, mut gone) = ((self.id, chunk.from), Vec::new());
        let mut kept = self.shared.kept.lock();
        if let Entry::Vacant(place) = kept.chunks.entry(key) {
            place.insert(Arc::clone(chunk));
            kept.order.push_back(key);
            kept.bytes += chunk.bytes();
        }
        while kept.bytes > self.shared.budget
            && let Some(oldest) = kept.order.pop_front()
        {
            let chunk = kept.chunks.remove(&oldest);
            kept.bytes -= chunk.as_ref().map_or(0, |chunk| chunk.bytes());
            gone.extend(chunk);
        }
        drop(kept);
        drop(gone);
    }
}

/// Records that were read and are to be decoded.
pub(crate) struct Undecoded {
    under_way: UnderWay,
    chunk: Chunk,
}

impl Undecoded {
    /// Every record of the source up to here (exclusive) is covered.
    pub(crate) const fn to(&self) -> Position {
        self.chunk.scanned_to
    }

    /// Decodes them, for all who want them.
    ///
    /// # Errors
    /// Those of [`Decoder::decode`].
    pub(crate) fn decode(self) -> Result<Arc<Decoded>, QueryError> {
        let lane = &self.under_way.lane;
        let decoded = Arc::new(lane.decode(self.under_way.at, &self.chunk)?);
        lane.keep(&decoded);
        Ok(decoded)
    }
}

/// While a chunk is decoded; at the end, however it comes, whoever waits looks again.
struct UnderWay {
    lane: Arc<Lane>,
    at: Position,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let waiting = self.lane.shared.kept.lock().under_way.remove(&(self.lane.id, self.at));
        waiting.into_iter().flatten().for_each(Waker::wake);
    }
}

/// A place in a topic from which reading goes on.
struct Cursor {
    reader: Box<dyn LogReader>,
    at: Position,
}

impl Cursor {
    fn open(log: &dyn LogBackend, scan: &SourceScan, incarnation: TopicId, at: Position) -> Result<Self, QueryError> {
        let topic = &scan.source.topic;
        let reader = log.reader(Selection::Topics(vec![topic.clone()], at))?;
        // Asked after it was opened: one that was deleted never comes back.
        if log.topic(topic)?.id != incarnation {
            return Err(LogError::UnknownTopic { topic: topic.clone() }.into());
        }
        Ok(Self { reader, at })
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicU32, task::Wake};

    use arrow::{
        array::{AsArray as _, types::Int64Type},
        datatypes::DataType,
    };
    use foldlog_log::{Append, NewRecord, PartitionId, TopicKind, TopicSettings, Write, clock::SystemClock, testing::MemoryLog};

    use super::*;
    use crate::catalog::Column;

    const LIMITS: ReadLimits = ReadLimits { records: 10, bytes: 1 << 20 };

    /// A log with the records `{"n": 0}` to `{"n": <count - 1>}` in one topic, each its own append.
    async fn log_of(count: i64, value_of: impl Fn(i64) -> String) -> (Arc<dyn LogBackend>, SourceScan) {
        let log: Arc<dyn LogBackend> = Arc::new(MemoryLog::new(Arc::new(SystemClock::new())));
        let name: TopicName = "facts".parse().unwrap();
        let topic = log.create_topic(name.clone(), TopicSettings::new(TopicKind::Records, 1)).unwrap();
        for n in 0..count {
            let record = NewRecord { value: Some(value_of(n).into()), ..NewRecord::default() };
            let write = Write::Records { topic: name.clone(), partition: Some(PartitionId::new(0)), records: vec![record] };
            log.append(Append { writes: vec![write], ..Append::default() }).unwrap().await.unwrap();
        }
        let columns = vec![Column { name: "n".to_owned(), data_type: DataType::Int64, key: false }];
        let source = Arc::new(Source { columns, ..Source::of_topic(&topic) });
        (log, SourceScan { source, wanted: vec![WantedColumn::Declared(0)] })
    }

    fn number(n: i64) -> String {
        format!(r#"{{"n":{n}}}"#)
    }

    #[derive(Default)]
    struct Woken(AtomicU32);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn chunk(lane: &Arc<Lane>, at: Position, until: Position, limits: ReadLimits) -> Arc<Decoded> {
        match lane.read(at, until, limits, Waker::noop()).unwrap() {
            Given::Chunk(chunk) => chunk,
            Given::Read(records) => records.decode().unwrap(),
            Given::Wait | Given::InFiles => panic!("nobody else decodes"),
        }
    }

    /// Everything from `at` to `until`: the numbers, and how many faults were met.
    fn read(lane: &Arc<Lane>, mut at: Position, until: Position, limits: ReadLimits) -> (Vec<i64>, u64, u64) {
        let (mut numbers, mut records, mut faults) = (Vec::new(), 0, 0);
        while at < until {
            let chunk = chunk(lane, at, until, limits);
            assert!(chunk.to > at, "{} is not after {at}", chunk.to);
            numbers.extend(chunk.rows.rows.column(0).as_primitive::<Int64Type>().values());
            records += chunk.records;
            faults += chunk.bad_count;
            at = chunk.to;
        }
        (numbers, records, faults)
    }

    #[tokio::test]
    async fn many_readers_share_one_decode_wherever_they_cut() {
        let (log, scan) = log_of(100, number).await;
        let end = log.head().position;
        let decoding = Decoding::new(log, KEPT_BYTES);
        let readers = [10, 3, 7, 100, 1].map(|records| (records, decoding.lane(&scan, Position::default()).unwrap()));
        for (records, lane) in &readers {
            let given = read(lane, Position::default(), end, ReadLimits { records: *records, ..LIMITS });
            assert_eq!(given, ((0..100).collect(), 100, 0), "{records} a step");
        }
        assert_eq!(decoding.records(), 100);
    }

    #[tokio::test]
    async fn what_is_kept_stays_within_its_budget_and_goes_with_its_readers() {
        let (log, scan) = log_of(200, number).await;
        let end = log.head().position;
        let budget = 8 * CHUNK_BYTES;
        let decoding = Decoding::new(log, budget);
        let lane = decoding.lane(&scan, Position::default()).unwrap();
        let mut at = Position::default();
        while at < end {
            at = chunk(&lane, at, end, LIMITS).to;
            let kept = decoding.shared.kept.lock();
            let bytes: usize = kept.chunks.values().map(|chunk| chunk.bytes()).sum();
            assert_eq!(kept.bytes, bytes);
            assert!(bytes <= budget && !kept.chunks.is_empty(), "{bytes}");
            assert_eq!(kept.order.len(), kept.chunks.len());
        }
        drop(lane);
        let kept = decoding.shared.kept.lock();
        assert_eq!((kept.bytes, kept.chunks.len(), kept.order.len()), (0, 0, 0));
    }

    #[tokio::test]
    async fn a_reader_far_behind_reads_for_itself_and_joins_later() {
        let (log, scan) = log_of(100, number).await;
        let end = log.head().position;
        let decoding = Decoding::new(log, KEPT_BYTES);
        let ahead = decoding.lane(&scan, Position::default()).unwrap();
        let behind = decoding.lane(&scan, Position::default()).unwrap();
        // The first half is gone from what is kept, or was never there.
        let half = Position::new(end.get() / 2);
        let (second, _, _) = read(&ahead, half, end, LIMITS);
        let before = decoding.records();
        assert_eq!(before, second.len() as u64);
        let (all, records, _) = read(&behind, Position::default(), end, LIMITS);
        assert_eq!((all, records), ((0..100).collect(), 100));
        assert_eq!(decoding.records(), 100, "the second half was decoded again");
    }

    #[tokio::test]
    async fn who_comes_while_it_is_decoded_is_woken_when_it_is_there() {
        let (log, scan) = log_of(5, number).await;
        let end = log.head().position;
        let decoding = Decoding::new(log, KEPT_BYTES);
        let lane = decoding.lane(&scan, Position::default()).unwrap();
        let at = Position::default();
        let Given::Read(records) = lane.read(at, end, LIMITS, Waker::noop()).unwrap() else { panic!("nobody decoded it") };
        let woken = Arc::new(Woken::default());
        let waits = lane.read(at, end, LIMITS, &Waker::from(Arc::clone(&woken))).unwrap();
        assert!(matches!(waits, Given::Wait));
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        records.decode().unwrap();
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert_eq!(read(&lane, at, end, LIMITS).0, [0, 1, 2, 3, 4]);
    }

    #[tokio::test]
    async fn every_fault_is_told_once_to_each_reader_however_chunks_are_cut() {
        // More faults in a chunk than are told one by one, and few.
        for bad_one_in in [2, 50] {
            let (log, scan) = log_of(400, |n| if n % bad_one_in == 0 { "no json".to_owned() } else { number(n) }).await;
            let end = log.head().position;
            let decoding = Decoding::new(log, KEPT_BYTES);
            let lane = decoding.lane(&scan, Position::default()).unwrap();
            let expected: Vec<i64> = (0..400).filter(|n| n % bad_one_in != 0).collect();
            for records in [400, 30, 1, 7] {
                let given = read(&lane, Position::default(), end, ReadLimits { records, ..LIMITS });
                assert_eq!(given, (expected.clone(), 400, 400 - expected.len() as u64), "{records} a step");
            }
        }
    }

    #[tokio::test]
    async fn other_columns_are_another_lane() {
        let (log, scan) = log_of(3, number).await;
        let decoding = Decoding::new(log, KEPT_BYTES);
        let none = SourceScan { wanted: Vec::new(), ..scan.clone() };
        let lanes = [&scan, &scan, &none].map(|scan| decoding.lane(scan, Position::default()).unwrap());
        assert!(Arc::ptr_eq(&lanes[0], &lanes[1]));
        assert!(!Arc::ptr_eq(&lanes[0], &lanes[2]));
    }
}
