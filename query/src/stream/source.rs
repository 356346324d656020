//! Where a task's rows come from: records of its source in position order, decoded.
//!
//! Read by one task, or by one push query. Records are read one step after the other, and decoded by several workers at once: a line
//! has the steps in their order. Invariant: what is returned covers every record of the source below `scanned_to`, once.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{Arc, OnceLock, Weak},
    task::{Context, Poll, Waker},
};

use foldlog_log::{Position, ReadLimits, TopicId, TopicName};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    codec::{BadInput, Carried},
    error::QueryError,
    plan::SourceScan,
    processing_log::Fault,
    stream::{
        change::ChangeBatch,
        decode::{Decoded, Decoding, Given, Lane, Undecoded},
        worker::{Job, Pool, Turn, Work},
    },
};

/// What one step takes in.
pub(crate) struct Taken {
    /// The rows.
    pub(crate) rows: ChangeBatch,
    /// Records read, those that could not be decoded included.
    pub(crate) records: u64,
    /// What they hand on to what is written of them.
    pub(crate) carried: Arc<Carried>,
    /// What could not be decoded; the first few.
    pub(crate) faults: Vec<Fault>,
    /// Number of all faults.
    pub(crate) fault_count: u64,
    /// Every record of the source below this position has been taken.
    pub(crate) scanned_to: Position,
}

impl Taken {
    /// Cuts off and returns what lies below `until`, if something lies above; faults that were only counted go with that.
    pub(crate) fn split_below(&mut self, until: Position) -> Option<Self> {
        if self.scanned_to <= until {
            return None;
        }
        let at = self.rows.positions.partition_point(|position| *position < until.get());
        let (first, later): (Vec<Fault>, Vec<Fault>) =
            std::mem::take(&mut self.faults).into_iter().partition(|fault| fault.position < until.get());
        let skipped = later.iter().filter(|fault| fault.what == SKIPPED).count();
        let later_records = self.records.min((self.rows.len() - at + skipped) as u64);
        let later_faults = later.len() as u64;
        let below = Self {
            rows: self.rows.slice(0, at),
            records: self.records - later_records,
            carried: Arc::clone(&self.carried),
            faults: first,
            fault_count: self.fault_count - later_faults,
            scanned_to: until,
        };
        self.rows = self.rows.slice(at, self.rows.len() - at);
        (self.records, self.faults, self.fault_count) = (later_records, later, later_faults);
        Some(below)
    }
}

/// Gives a task its rows.
pub(crate) trait Intake: Send {
    /// The next rows below `until`, which is durable; at most a step's worth. None: they are being decoded, and the task, whose
    /// waker this is, is woken when they are there. Blocks on files.
    ///
    /// # Errors
    /// [`QueryError::Log`] where the log cannot be read.
    fn take(&mut self, until: Position, waker: &Waker) -> Result<Option<Taken>, QueryError>;
}

/// What happened to a record that could not be decoded.
const SKIPPED: &str = "skipped";

/// Most steps that are read and not taken yet, for a task, and for one of many readers.
const AHEAD_OF_TASK: usize = 4;
const AHEAD_OF_READER: usize = 2;

/// Reads and decodes for one reader: in place while it keeps up, on the workers, too, when there is more than a step to read.
pub(crate) struct AheadIntake {
    shared: Arc<Shared>,
    _jobs: Vec<Arc<Job>>,
    /// Says when the workers have stopped.
    stopped: watch::Receiver<bool>,
}

struct Shared {
    lane: Arc<Lane>,
    limits: ReadLimits,
    /// Most steps in line.
    room: usize,
    /// How far the source was read; held while a step is read, which takes its place in line before this is let go. Nobody waits for it.
    read_to: Mutex<Position>,
    line: Mutex<Line>,
    /// They decode ahead.
    jobs: OnceLock<Vec<Weak<Job>>>,
}

/// What was read and is not taken yet, in order.
#[derive(Default)]
struct Line {
    steps: VecDeque<Step>,
    /// Number of the next step.
    next: u64,
    /// How far to read ahead; durable.
    goal: Position,
    /// Whoever waits for the first step.
    awaited: Option<Waker>,
    /// Where reading goes on, if a step failed.
    rewound_to: Option<Position>,
}

struct Step {
    number: u64,
    from: Position,
    /// None while it is being decoded.
    taken: Option<Result<Taken, QueryError>>,
}

impl Line {
    /// Whether somebody should read on from a position, where there is room for so many steps.
    fn has_room(&self, at: Position, room: usize) -> bool {
        let failed = self.steps.iter().any(|step| matches!(step.taken, Some(Err(_))));
        self.steps.len() < room && at < self.goal && !failed
    }

    fn push(&mut self, from: Position, taken: Option<Result<Taken, QueryError>>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.steps.push_back(Step { number, from, taken });
        number
    }

    /// Whether the first step was decoded, or failed.
    fn has_first(&self) -> bool {
        self.steps.front().is_some_and(|step| step.taken.is_some())
    }

    /// The first step, cut at `until`.
    fn first(&mut self, until: Position) -> First {
        let Some(first) = self.steps.front_mut() else { return First::Missing };
        match &mut first.taken {
            None => First::Coming,
            Some(Err(_)) => First::Failed,
            Some(Ok(taken)) => match taken.split_below(until) {
                Some(below) => First::There(Box::new(below)),
                None => {
                    self.steps.pop_front().and_then(|first| first.taken?.ok()).map_or(First::Missing, |taken| First::There(Box::new(taken)))
                }
            },
        }
    }
}

/// What the first step in line is.
enum First {
    There(Box<Taken>),
    /// It is being decoded.
    Coming,
    Failed,
    Missing,
}

/// What came of reading on.
enum Next {
    /// A step has its place in line; if it is to be decoded, by whoever read it.
    Begun(Option<Begun>),
    /// Another worker reads at this moment.
    Busy,
    /// There is no room in line or nothing to read, it lies in files where that is not meant, or another worker decodes it for another
    /// task, and wakes then.
    Nothing,
}

/// A step that was read, has its place in line, and is to be decoded.
struct Begun {
    number: u64,
    records: Undecoded,
}

impl Shared {
    /// Reads what comes next, unless that is none of this worker's business now. Blocks on files.
    fn read(&self, waker: &Waker) -> Next {
        self.read_with(waker, Lane::read)
    }

    /// As [`Shared::read`], without blocking.
    fn read_from_memory(&self, waker: &Waker) -> Next {
        self.read_with(waker, Lane::read_from_memory)
    }

    fn read_with(
        &self,
        waker: &Waker,
        read: impl FnOnce(&Arc<Lane>, Position, Position, ReadLimits, &Waker) -> Result<Given, QueryError>,
    ) -> Next {
        let Some(mut read_to) = self.read_to.try_lock() else { return Next::Busy };
        let (from, goal) = {
            let mut line = self.line.lock();
            if let Some(rewound_to) = line.rewound_to.take() {
                *read_to = rewound_to;
            }
            if !line.has_room(*read_to, self.room) {
                return Next::Nothing;
            }
            (*read_to, line.goal)
        };
        let (taken, records) = match read(&self.lane, from, goal, self.limits, waker) {
            Ok(Given::Wait | Given::InFiles) => return Next::Nothing,
            Ok(Given::Chunk(chunk)) => {
                *read_to = chunk.to;
                (Some(Ok(self.taken(&chunk))), None)
            }
            Ok(Given::Read(records)) => {
                *read_to = records.to();
                (None, Some(records))
            }
            Err(fault) => (Some(Err(fault)), None),
        };
        let mut line = self.line.lock();
        if line.rewound_to.is_some() {
            // What lies before it failed meanwhile, and is read again first.
            return Next::Nothing;
        }
        let number = line.push(from, taken);
        Next::Begun(records.map(|records| Begun { number, records }))
    }

    /// Has the workers read on.
    fn wake_jobs(&self) {
        self.jobs.get().into_iter().flatten().filter_map(Weak::upgrade).for_each(Job::schedule);
    }

    /// Decodes a step that was read, for its place in line.
    fn decode(&self, step: Begun) {
        let taken = step.records.decode().map(|chunk| self.taken(&chunk));
        // One that was given up is nobody's any more.
        if let Some(place) = self.line.lock().steps.iter_mut().find(|known| known.number == step.number) {
            place.taken = Some(taken);
        }
    }

    fn taken(&self, chunk: &Decoded) -> Taken {
        Taken {
            rows: chunk.rows.clone(),
            records: chunk.records,
            carried: Arc::clone(&chunk.carried),
            faults: chunk.bad.iter().map(|bad| fault(self.lane.topic(), bad.clone())).collect(),
            fault_count: chunk.bad_count,
            scanned_to: chunk.to,
        }
    }

    /// Why the first step failed; reading goes on from there.
    fn fault(&self) -> Option<QueryError> {
        let mut line = self.line.lock();
        let failed = line.steps.pop_front()?;
        line.steps.clear();
        line.rewound_to = Some(failed.from);
        failed.taken?.err()
    }

    /// The first step, cut at `until`, up to which all may be read.
    fn first(&self, until: Position) -> First {
        let mut line = self.line.lock();
        line.awaited = None;
        line.goal = line.goal.max(until);
        line.first(until)
    }

    /// Leaves word for when the first step is there; false if it is by now.
    fn waits(&self, waker: &Waker) -> bool {
        let mut line = self.line.lock();
        let is_there = line.has_first();
        if !is_there {
            line.awaited = Some(waker.clone());
        }
        !is_there
    }

    /// Wakes whoever waits for the first step, if it is there.
    fn tell(&self) {
        let mut line = self.line.lock();
        let awaited = if line.has_first() { line.awaited.take() } else { None };
        drop(line);
        if let Some(waker) = awaited {
            waker.wake();
        }
    }
}

impl AheadIntake {
    /// Reads a source from `from` (inclusive) on, for the task of a query.
    ///
    /// # Errors
    /// Those of [`Decoding::lane`].
    pub(crate) fn of_task(
        decoding: &Decoding,
        pool: &Pool,
        scan: &SourceScan,
        from: Position,
        limits: ReadLimits,
    ) -> Result<Self, QueryError> {
        // The task decodes, too.
        Ok(Self::new(decoding.lane(scan, from)?, pool, (pool.workers().saturating_sub(1), AHEAD_OF_TASK), from, limits))
    }

    /// The same for a reader that must not block: [`AheadIntake::poll_take`].
    ///
    /// # Errors
    /// As [`AheadIntake::of_task`].
    pub(crate) fn of_reader(
        decoding: &Decoding,
        pool: &Pool,
        scan: &SourceScan,
        from: Position,
        limits: ReadLimits,
    ) -> Result<Self, QueryError> {
        Ok(Self::new(decoding.lane(scan, from)?, pool, (pool.workers(), AHEAD_OF_READER), from, limits))
    }

    fn new(lane: Arc<Lane>, pool: &Pool, (others, room): (usize, usize), from: Position, limits: ReadLimits) -> Self {
        let (read_to, line, jobs) = (Mutex::new(from), Mutex::default(), OnceLock::new());
        let shared = Arc::new(Shared { lane, limits, room, read_to, line, jobs });
        let others = others.clamp(1, room);
        let jobs: Vec<Arc<Job>> = (0..others).map(|_| pool.spawn(Ahead { shared: Arc::clone(&shared) })).collect();
        shared.jobs.get_or_init(|| jobs.iter().map(Arc::downgrade).collect());
        Self { shared, _jobs: jobs, stopped: pool.stopped() }
    }

    /// Of the topic: another one of its name is not read.
    pub(crate) fn incarnation(&self) -> TopicId {
        self.shared.lane.incarnation
    }

    /// A step that was read by the one who wants it: decoded here, while others go on with what follows.
    fn decode(&self, step: Begun, until: Position) {
        if step.records.to() < until {
            self.shared.wake_jobs();
        }
        self.shared.decode(step);
    }

    fn taken(&self, taken: Taken, until: Position) -> Taken {
        if taken.scanned_to < until {
            self.shared.wake_jobs();
        }
        taken
    }

    /// As [`Intake::take`], without blocking: what lies in files, and what follows while the reader is behind, is read and decoded by
    /// the workers; what is in memory in place, so that between an append and its rows lies no other thread.
    ///
    /// # Errors
    /// As [`Intake::take`]; [`QueryError::Stopping`] if there are no workers any more.
    pub(crate) async fn next(&mut self, until: Position) -> Result<Taken, QueryError> {
        let mut stopped = self.stopped.clone();
        tokio::select! {
            biased;
            taken = poll_fn(|context| self.poll_take(until, context)) => taken,
            _ = stopped.wait_for(|stopped| *stopped) => Err(QueryError::Stopping),
        }
    }

    fn poll_take(&self, until: Position, context: &Context<'_>) -> Poll<Result<Taken, QueryError>> {
        let waker = context.waker();
        loop {
            match self.shared.first(until) {
                First::There(taken) => return Poll::Ready(Ok(self.taken(*taken, until))),
                First::Failed => {
                    if let Some(fault) = self.shared.fault() {
                        return Poll::Ready(Err(fault));
                    }
                    continue;
                }
                First::Coming => {}
                First::Missing => {
                    if let Next::Begun(step) = self.shared.read_from_memory(waker) {
                        step.into_iter().for_each(|step| self.decode(step, until));
                        continue;
                    }
                }
            }
            if self.shared.waits(waker) {
                self.shared.wake_jobs();
                return Poll::Pending;
            }
        }
    }
}

impl Intake for AheadIntake {
    fn take(&mut self, until: Position, waker: &Waker) -> Result<Option<Taken>, QueryError> {
        loop {
            let next = match self.shared.first(until) {
                First::There(taken) => return Ok(Some(self.taken(*taken, until))),
                First::Failed => match self.shared.fault() {
                    Some(fault) => return Err(fault),
                    None => continue,
                },
                // While others decode what comes first, this worker decodes what follows.
                First::Coming | First::Missing => self.shared.read(waker),
            };
            match next {
                Next::Begun(step) => step.into_iter().for_each(|step| self.decode(step, until)),
                Next::Busy | Next::Nothing if !self.shared.waits(waker) => {}
                // Whoever reads may not know yet how far to read.
                Next::Busy => {
                    self.shared.wake_jobs();
                    return Ok(None);
                }
                Next::Nothing => return Ok(None),
            }
        }
    }
}

/// A job that decodes ahead.
struct Ahead {
    shared: Arc<Shared>,
}

impl Work for Ahead {
    fn turn(&mut self, waker: &Waker) -> Turn {
        let turn = match self.shared.read(waker) {
            // Whoever reads wakes this one then.
            Next::Busy | Next::Nothing => Turn::Wait,
            Next::Begun(step) => {
                self.shared.wake_jobs();
                if let Some(step) = step {
                    self.shared.decode(step);
                }
                Turn::Again
            }
        };
        self.shared.tell();
        turn
    }

    fn panicked(&mut self, what: String) {
        let mut line = self.shared.line.lock();
        let from = line.steps.front().map_or(line.goal, |first| first.from);
        line.steps.clear();
        let fault = QueryError::Execution(format!("a fault in foldlog while decoding: {what}"));
        line.push(from, Some(Err(fault)));
        drop(line);
        self.shared.tell();
    }
}

/// What could not be decoded, as the processing log tells it.
pub(crate) fn fault(topic: &TopicName, bad: BadInput) -> Fault {
    let (what, reason) = match bad.column {
        Some(column) => ("nulled", format!("{column}: {}", bad.reason)),
        None => (SKIPPED, bad.reason.into_owned()),
    };
    Fault {
        what,
        topic: Some(topic.to_string()),
        partition: Some(bad.partition.get()),
        offset: Some(bad.offset.get()),
        position: bad.position.get(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc,
        task::{Poll, Wake},
        time::Duration,
    };

    use arrow::{
        array::{AsArray as _, types::Int64Type},
        datatypes::DataType,
    };
    use foldlog_log::{
        Append, LogBackend, NewRecord, PartitionId, TopicKind, TopicSettings, Write, clock::SystemClock, testing::MemoryLog,
    };

    use super::*;
    use crate::{
        catalog::{Column, Source, WantedColumn},
        stream::decode::KEPT_BYTES,
    };

    const LIMITS: ReadLimits = ReadLimits { records: 10, bytes: 1 << 20 };
    const RECORDS: i64 = 2_000;

    /// A log with the records `{"n": 0}` and so on in one topic, and what reads them.
    async fn numbers() -> (Arc<dyn LogBackend>, SourceScan) {
        let log: Arc<dyn LogBackend> = Arc::new(MemoryLog::new(Arc::new(SystemClock::new())));
        let name: TopicName = "facts".parse().unwrap();
        let topic = log.create_topic(name.clone(), TopicSettings::new(TopicKind::Records, 1)).unwrap();
        for n in 0..RECORDS {
            let record = NewRecord { value: Some(format!(r#"{{"n":{n}}}"#).into()), ..NewRecord::default() };
            let write = Write::Records { topic: name.clone(), partition: Some(PartitionId::new(0)), records: vec![record] };
            log.append(Append { writes: vec![write], ..Append::default() }).unwrap().await.unwrap();
        }
        let columns = vec![Column { name: "n".to_owned(), data_type: DataType::Int64, key: false }];
        let source = Arc::new(Source { columns, ..Source::of_topic(&topic) });
        (log, SourceScan { source, wanted: vec![WantedColumn::Declared(0)] })
    }

    struct Bell(mpsc::Sender<()>);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.send(()).ok();
        }
    }

    fn of(taken: &Taken) -> Vec<i64> {
        taken.rows.rows.column(0).as_primitive::<Int64Type>().values().to_vec()
    }

    /// Everything up to `until`, waiting where others decode.
    fn take_all(intake: &mut AheadIntake, until: Position) -> Vec<i64> {
        let (bell, rung) = mpsc::channel();
        let waker = Waker::from(Arc::new(Bell(bell)));
        let (mut all, mut to) = (Vec::new(), Position::default());
        while to < until {
            match intake.take(until, &waker).unwrap() {
                Some(taken) => {
                    assert!(taken.scanned_to > to && taken.records == taken.rows.len() as u64);
                    to = taken.scanned_to;
                    all.extend(of(&taken));
                }
                None => rung.recv_timeout(Duration::from_secs(60)).expect("it is told when rows are there"),
            }
        }
        all
    }

    #[tokio::test]
    async fn rows_come_once_and_in_order_whoever_decodes_them() {
        let (log, scan) = numbers().await;
        let end = log.head().position;
        for workers in [1, 2, 5] {
            let pool = Pool::start(workers, Arc::new(SystemClock::new())).unwrap();
            let decoding = Decoding::new(Arc::clone(&log), KEPT_BYTES);
            let mut intakes: Vec<_> =
                (0..2).map(|_| AheadIntake::of_task(&decoding, &pool, &scan, Position::default(), LIMITS).unwrap()).collect();
            // Two readers of the same columns, who take turns at decoding.
            let all: Vec<_> = std::thread::scope(|scope| {
                let readers: Vec<_> = intakes.iter_mut().map(|intake| scope.spawn(move || take_all(intake, end))).collect();
                readers.into_iter().map(|reader| reader.join().unwrap()).collect()
            });
            assert!(all.iter().all(|all| *all == (0..RECORDS).collect::<Vec<_>>()), "{workers} workers");
            pool.stop();
        }
    }

    #[tokio::test]
    async fn a_reader_that_must_not_block_gets_the_same() {
        let (log, scan) = numbers().await;
        let end = log.head().position;
        let pool = Pool::start(2, Arc::new(SystemClock::new())).unwrap();
        let decoding = Decoding::new(log, KEPT_BYTES);
        let mut intake = AheadIntake::of_reader(&decoding, &pool, &scan, Position::default(), LIMITS).unwrap();
        let (mut all, mut to) = (Vec::new(), Position::default());
        // It may read a little further each time.
        for part in 1..=10 {
            let until = Position::new(end.get() * part / 10);
            while to < until {
                let taken = intake.next(until).await.unwrap();
                assert!(taken.scanned_to > to && taken.scanned_to <= until);
                to = taken.scanned_to;
                all.extend(of(&taken));
            }
        }
        assert_eq!(all, (0..RECORDS).collect::<Vec<_>>());
        pool.stop();
    }

    #[tokio::test]
    async fn what_failed_is_read_again_with_all_that_follows() {
        let (log, scan) = numbers().await;
        let end = log.head().position;
        let pool = Pool::start(1, Arc::new(SystemClock::new())).unwrap();
        // Nobody else reads on: the reader alone does, and what it began is decoded when this test says so.
        pool.stop();
        let decoding = Decoding::new(log, KEPT_BYTES);
        let mut intake = AheadIntake::of_task(&decoding, &pool, &scan, Position::default(), LIMITS).unwrap();
        let first = intake.take(end, Waker::noop()).unwrap().unwrap();
        let begin = || match intake.shared.read(Waker::noop()) {
            Next::Begun(Some(step)) => step,
            _ => panic!("there is more to read"),
        };
        let (second, third) = (begin(), begin());
        drop(second);
        let fault = QueryError::Execution("the disk is gone".to_owned());
        intake.shared.line.lock().steps.front_mut().unwrap().taken = Some(Err(fault));
        let told = intake.take(end, Waker::noop()).map(|taken| taken.map(|taken| of(&taken)));
        assert!(matches!(told, Err(QueryError::Execution(_))), "{told:?}");
        // It comes late, for a place in line that is gone.
        intake.shared.decode(third);
        assert!(intake.shared.line.lock().steps.is_empty());
        let mut all = of(&first);
        let mut to = first.scanned_to;
        while to < end {
            let taken = intake.take(end, Waker::noop()).unwrap().expect("nobody else decodes");
            to = taken.scanned_to;
            all.extend(of(&taken));
        }
        assert_eq!(all, (0..RECORDS).collect::<Vec<_>>());
        assert!(matches!(intake.poll_take(end, &Context::from_waker(Waker::noop())), Poll::Pending));
        // Without workers nothing will come any more.
        assert!(matches!(intake.next(end).await, Err(QueryError::Stopping)));
    }
}
