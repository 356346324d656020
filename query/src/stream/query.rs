//! What others see of a running query: how far it is, its view, who listens, and what holds it at a position.
//!
//! Shared between the query's task, which publishes, and readers, the supervisor and queries downstream. Invariants: the
//! frontier never moves back; version, frontier and listeners change together under one lock, so whoever starts to listen
//! misses nothing and hears nothing twice.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

use foldlog_log::Position;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{oneshot, watch};

use crate::{
    answer::{ChangeOp, PushItem},
    changes::Listener,
    error::QueryError,
    stream::{fold::Fold, state::Version, view::Pinned, worker::Job},
    supervisor::{CheckpointStatus, QueryState, QueryStatus},
};

/// How many of its past units a query tells those downstream about; who lags by more sees its frontier move in larger steps.
const REMEMBERED_UNITS: usize = 4096;

/// How far a query is, as its readers see it.
#[derive(Clone, Debug)]
pub(crate) struct Reached {
    /// Everything of the root sources below this position is reflected.
    pub(crate) frontier: Position,
    /// Everything of its own sources below this position is folded and committed.
    pub(crate) folded: Position,
    /// What it is doing.
    pub(crate) state: QueryState,
}

/// Everything of the root sources below `frontier` shows in records below `end`.
#[derive(Clone, Copy, Debug)]
struct Reflected {
    frontier: Position,
    end: Position,
}

/// A running query.
pub(crate) struct Query {
    id: String,
    sink: String,
    /// The queries that write the source; more may come.
    upstream: RwLock<Vec<Arc<Query>>>,
    reads_processing_log: bool,
    fold: Option<Arc<Fold>>,
    control: Mutex<Control>,
    published: Mutex<Published>,
    /// Who waits for the view as it is at a position; until then nobody hears of changes.
    snapshot: Mutex<Option<Snapshot>>,
    /// Whether its topic holds what another query wrote, and not yet its own table.
    succeeding: AtomicBool,
    /// What it failed at and tries again.
    trouble: Mutex<Option<String>>,
    reached: watch::Sender<Reached>,
    /// How many wait for how far it, or one downstream, is.
    awaited: Arc<AtomicU32>,
    job: OnceLock<Weak<Job>>,
    checkpoint: Mutex<CheckpointStatus>,
    /// Records read.
    pub(crate) rows_in: AtomicU64,
    /// Rows written.
    pub(crate) rows_out: AtomicU64,
    /// Rows skipped and values nulled.
    pub(crate) bad_rows: AtomicU64,
}

/// A view that somebody waits for.
struct Snapshot {
    at: Position,
    waiting: oneshot::Sender<Pinned>,
}

/// What the task must obey.
#[derive(Default)]
struct Control {
    stopping: bool,
    /// Where it stands still until it is resumed, if it is paused.
    paused_at: Option<Position>,
    /// Announced root positions that no step may cross, by holder; none: it stands still until one is announced.
    holds: BTreeMap<u64, Option<Position>>,
    holders: u64,
    /// The position up to which its newest step may have read.
    reading: Position,
}

#[derive(Default)]
struct Published {
    listeners: Vec<Listener>,
    /// Oldest first, both numbers rise.
    reflected: VecDeque<Reflected>,
    downstream: Vec<Weak<Job>>,
}

impl Published {
    /// Gives each task downstream a turn.
    fn wake_downstream(&self) {
        self.downstream.iter().filter_map(Weak::upgrade).for_each(Job::schedule);
    }
}

impl Query {
    pub(crate) fn new(
        id: &str,
        sink: &str,
        upstream: Vec<Arc<Self>>,
        fold: Option<Arc<Fold>>,
        from: Position,
        state: QueryState,
        reads_processing_log: bool,
    ) -> Self {
        let reached = Reached { frontier: Position::default(), folded: from, state };
        Self {
            id: id.to_owned(),
            sink: sink.to_owned(),
            reads_processing_log: reads_processing_log || upstream.iter().any(|upstream| upstream.reads_processing_log),
            upstream: RwLock::new(upstream),
            fold,
            control: Mutex::new(Control { reading: from, ..Control::default() }),
            published: Mutex::default(),
            snapshot: Mutex::default(),
            succeeding: AtomicBool::new(false),
            trouble: Mutex::default(),
            reached: watch::Sender::new(reached),
            awaited: Arc::default(),
            job: OnceLock::new(),
            checkpoint: Mutex::default(),
            rows_in: AtomicU64::new(0),
            rows_out: AtomicU64::new(0),
            bad_rows: AtomicU64::new(0),
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn sink(&self) -> &str {
        &self.sink
    }

    /// Whether it reads the processing log, itself or through queries upstream: then it would feed itself if it wrote there.
    pub(crate) fn reads_processing_log(&self) -> bool {
        self.reads_processing_log
    }

    /// The queries upstream that still move; what a stopped one wrote is like any other topic.
    pub(crate) fn live_upstream(&self) -> Vec<Arc<Self>> {
        let upstream = self.upstream.read();
        upstream.iter().filter(|upstream| !matches!(upstream.state(), QueryState::Stopped)).map(Arc::clone).collect()
    }

    /// One more query writes the source from now on.
    pub(crate) fn add_upstream(&self, upstream: &Arc<Self>) {
        self.upstream.write().push(Arc::clone(upstream));
        if let Some(job) = self.job.get() {
            upstream.published.lock().downstream.push(Weak::clone(job));
        }
    }

    /// Its topic holds what another query wrote.
    pub(crate) fn succeeds(&self) {
        self.succeeding.store(true, Ordering::Release);
    }

    /// Its topic holds its own table.
    pub(crate) fn has_succeeded(&self) {
        self.succeeding.store(false, Ordering::Release);
        self.published.lock().wake_downstream();
    }

    pub(crate) fn is_succeeding(&self) -> bool {
        self.succeeding.load(Ordering::Acquire)
    }

    /// A task is given a turn whenever this query publishes a step, or ends.
    pub(crate) fn tells(&self, job: &Weak<Job>) {
        self.published.lock().downstream.push(Weak::clone(job));
    }

    /// Whether it was told to stand still, and everything that it read by then is committed, and all of the difference if it takes
    /// another one's place itself; one that has ended stands still, too.
    pub(crate) fn stands_still(&self) -> bool {
        let reached = self.reached.borrow().clone();
        let control = self.control.lock();
        match reached.state {
            QueryState::Failed(_) | QueryState::Stopped => true,
            QueryState::Running => control.paused_at.is_some() && reached.folded >= control.reading && !self.is_succeeding(),
            QueryState::Folding { .. } => false,
        }
    }

    pub(crate) fn fold(&self) -> Option<&Arc<Fold>> {
        self.fold.as_ref()
    }

    /// Ties the query to the job that runs it, and the job to what is upstream.
    pub(crate) fn attach(&self, job: &Weak<Job>) {
        // A query is attached once, when its task is made.
        drop(self.job.set(Weak::clone(job)));
        for upstream in self.upstream.read().iter() {
            let mut published = upstream.published.lock();
            published.downstream.retain(|job| job.strong_count() > 0);
            published.downstream.push(Weak::clone(job));
        }
    }

    /// Gives the task a turn.
    pub(crate) fn wake(&self) {
        if let Some(job) = self.job.get().and_then(Weak::upgrade) {
            job.schedule();
        }
    }

    pub(crate) fn reached(&self) -> watch::Receiver<Reached> {
        self.reached.subscribe()
    }

    /// How many wait for how far it is.
    pub(crate) fn awaited(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.awaited)
    }

    /// While the answer lives, its task and those that are upstream by now look whenever the durable end moves, even if nothing came
    /// for them.
    pub(crate) fn hurry(&self) -> Hurried {
        let mut hurried = Hurried(Vec::new());
        self.hurry_with(&mut hurried);
        hurried
    }

    fn hurry_with(&self, hurried: &mut Hurried) {
        if hurried.0.iter().any(|awaited| Arc::ptr_eq(awaited, &self.awaited)) {
            return;
        }
        self.awaited.fetch_add(1, Ordering::AcqRel);
        hurried.0.push(self.awaited());
        self.live_upstream().iter().for_each(|upstream| upstream.hurry_with(hurried));
        // Only now: what moved before was perhaps not told.
        self.wake();
    }

    pub(crate) fn frontier(&self) -> Position {
        self.reached.borrow().frontier
    }

    /// Everything of its own sources below this position is folded and committed.
    pub(crate) fn folded(&self) -> Position {
        self.reached.borrow().folded
    }

    pub(crate) fn state(&self) -> QueryState {
        self.reached.borrow().state.clone()
    }

    pub(crate) fn status(&self) -> QueryStatus {
        let reached = self.reached.borrow().clone();
        QueryStatus {
            id: self.id.clone(),
            sink: self.sink.clone(),
            state: reached.state,
            frontier: reached.frontier,
            rows_in: self.rows_in.load(Ordering::Relaxed),
            rows_out: self.rows_out.load(Ordering::Relaxed),
            bad_rows: self.bad_rows.load(Ordering::Relaxed),
            paused: self.control.lock().paused_at.is_some(),
            trouble: self.trouble.lock().clone(),
            kept: self.fold.as_ref().map_or_else(Vec::new, |fold| fold.kept()),
            checkpoint: self.checkpoint.lock().clone(),
        }
    }

    /// Says what the query failed at and will try again, or that it is over that.
    pub(crate) fn troubled(&self, reason: Option<&str>) {
        *self.trouble.lock() = reason.map(str::to_owned);
    }

    /// Gives what is folded, while nothing is published: what is kept meanwhile belongs to that.
    pub(crate) fn while_published<T>(&self, with: impl FnOnce(Position) -> T) -> T {
        let _nothing_is = self.published.lock();
        with(self.folded())
    }

    /// There is a durable checkpoint of so many bytes, of everything below `position`.
    pub(crate) fn saved(&self, position: Position, bytes: u64) {
        self.checkpoint.lock().newest = Some((position, bytes));
    }

    /// The checkpoint was removed.
    pub(crate) fn unsaved(&self) {
        self.checkpoint.lock().newest = None;
    }

    /// The checkpoint that was there when the query started cannot be gone on from.
    pub(crate) fn set_aside(&self, reason: String) {
        self.checkpoint.lock().set_aside = Some(reason);
    }

    /// Why the view cannot be read now, if it cannot.
    pub(crate) fn unreadable(&self) -> Option<QueryError> {
        let view = || self.sink.clone();
        match self.state() {
            QueryState::Running => None,
            QueryState::Folding { at, end } => Some(QueryError::Folding { view: view(), at, end }),
            QueryState::Failed(reason) => Some(QueryError::NotAligned { view: view(), reason: format!("its query stopped: {reason}") }),
            QueryState::Stopped => Some(QueryError::NotAligned { view: view(), reason: "its query was terminated".to_owned() }),
        }
    }

    /// Runs `with` while nothing is published: what it pins belongs to the frontier that it is given.
    pub(crate) fn at_frontier<T>(&self, with: impl FnOnce(Position, &mut Vec<Listener>) -> T) -> T {
        let mut published = self.published.lock();
        let frontier = self.frontier();
        with(frontier, &mut published.listeners)
    }

    /// Gives the view as it is once everything below `at` is folded; changes are told from then on.
    pub(crate) fn snapshot_at(&self, at: Position) -> oneshot::Receiver<Pinned> {
        let (waiting, given) = oneshot::channel();
        *self.snapshot.lock() = Some(Snapshot { at, waiting });
        self.give_snapshot(self.folded());
        given
    }

    /// Whether changes are told: not before the snapshot was given that somebody waits for.
    fn give_snapshot(&self, folded: Position) -> bool {
        let mut snapshot = self.snapshot.lock();
        if let (Some(due), Some(fold)) = (snapshot.take_if(|snapshot| snapshot.at <= folded), &self.fold) {
            // Nobody waiting any more is no failure.
            drop(due.waiting.send(Pinned::new(fold, folded)));
            return false;
        }
        snapshot.is_none()
    }

    /// Publishes a committed step: its version of the view, how far it got, and its changes to whoever listens.
    ///
    /// # Errors
    /// [`QueryError::Execution`] where the changes cannot be told, which is a fault of ours.
    pub(crate) fn publish(&self, step: &Committed) -> Result<(), QueryError> {
        let mut published = self.published.lock();
        published.listeners.retain(|listener| !listener.is_closed());
        let mut changes = None;
        let waits_for_snapshot = self.snapshot.lock().is_some();
        if let (Some(fold), Some((from, to))) = (&self.fold, step.versions) {
            if !published.listeners.is_empty() && !waits_for_snapshot {
                match fold.changes(from, to) {
                    Ok(of_step) => changes = Some(of_step).filter(|(rows, _)| rows.num_rows() > 0),
                    // More than can be told at once ends those who listen, not the query.
                    Err(QueryError::ResourceExhausted(reason)) => {
                        let told = std::mem::take(&mut published.listeners);
                        told.into_iter().for_each(|mut listener| listener.end(QueryError::ResourceExhausted(reason.clone())));
                    }
                    Err(fault) => return Err(fault),
                }
            }
            fold.commit(to);
        }
        let tells = self.give_snapshot(step.folded);
        // A reader that lags by more units than upstream remembers finds no frontier there; it never moves back.
        let frontier = self.frontier_after(step.folded).max(self.frontier());
        if tells {
            self.tell(&mut published, frontier, changes);
        }
        if !step.shows {
            // Nobody below learns of it before the topic holds it.
        } else if let Some(end) = step.unit_end {
            published.reflected.push_back(Reflected { frontier, end });
        } else if let Some(last) = published.reflected.back_mut() {
            last.frontier = last.frontier.max(frontier);
        } else {
            published.reflected.push_back(Reflected { frontier, end: Position::default() });
        }
        if published.reflected.len() > REMEMBERED_UNITS {
            published.reflected.pop_front();
        }
        self.reached.send_modify(|reached| {
            reached.frontier = reached.frontier.max(frontier);
            reached.folded = step.folded;
            reached.state = match reached.state {
                QueryState::Folding { end, .. } if step.folded < end => QueryState::Folding { at: step.folded, end },
                _ => QueryState::Running,
            };
        });
        published.wake_downstream();
        Ok(())
    }

    fn tell(&self, published: &mut Published, frontier: Position, changes: Option<(arrow::record_batch::RecordBatch, Vec<ChangeOp>)>) {
        match changes {
            Some((rows, ops)) => published
                .listeners
                .retain_mut(|listener| listener.offer(PushItem::Changes { rows: rows.clone(), ops: ops.clone(), position: frontier })),
            None => published.listeners.iter_mut().for_each(|listener| listener.progress(frontier)),
        }
    }

    /// The root frontier of a query that has folded its own sources up to `folded`; never beyond that, for not all that lies in
    /// them need be upstream's: a stream that a query writes can be inserted into.
    pub(crate) fn frontier_after(&self, folded: Position) -> Position {
        self.live_upstream().iter().map(|upstream| upstream.reflected_below(folded)).fold(folded, Position::min)
    }

    /// The greatest frontier that shows in this query's records below `end`.
    fn reflected_below(&self, end: Position) -> Position {
        let published = self.published.lock();
        let shown = published.reflected.iter().rev().find(|reflected| reflected.end <= end);
        shown.map_or(Position::default(), |reflected| reflected.frontier)
    }

    /// End of the records in which everything below `frontier` shows; none if that has not been reached.
    fn end_of(&self, frontier: Position) -> Option<Position> {
        let published = self.published.lock();
        published.reflected.iter().find(|reflected| reflected.frontier >= frontier).map(|reflected| reflected.end)
    }

    /// Where this query's records end that show everything below `frontier`; never before that position itself. Nothing else shows
    /// in them while the query is held there.
    pub(crate) fn shown_below(&self, frontier: Position) -> Position {
        self.end_of(frontier).map_or(frontier, |end| end.max(frontier))
    }

    /// Says, before the task runs, what its state reflects already.
    pub(crate) fn reflects(&self, frontier: Position) {
        self.reached.send_modify(|reached| reached.frontier = reached.frontier.max(frontier));
    }

    /// Says, before the task runs, what was committed before the last restart.
    pub(crate) fn recall(&self, frontier: Position, end: Position) {
        self.published.lock().reflected.push_back(Reflected { frontier, end });
    }

    /// Ends the query: readers and listeners are told why.
    pub(crate) fn end(&self, state: QueryState) {
        let mut published = self.published.lock();
        for mut listener in std::mem::take(&mut published.listeners) {
            listener.end(match &state {
                QueryState::Failed(reason) => QueryError::Execution(reason.clone()),
                _ => QueryError::Stopping,
            });
        }
        self.reached.send_modify(|reached| reached.state = state);
        published.wake_downstream();
    }

    /// Asks the task to end after its step.
    pub(crate) fn stop(&self) {
        self.control.lock().stopping = true;
        self.wake();
    }

    pub(crate) fn stopping(&self) -> bool {
        self.control.lock().stopping
    }

    /// Stops the task after its step, or where its state was before a restart, until [`Query::resume`].
    pub(crate) fn pause(&self) {
        let was_at = match self.state() {
            QueryState::Folding { end, .. } => end,
            QueryState::Running | QueryState::Failed(_) | QueryState::Stopped => Position::default(),
        };
        let mut control = self.control.lock();
        control.paused_at = Some(control.reading.max(was_at));
    }

    /// Lets the task go on.
    pub(crate) fn resume(&self) {
        self.control.lock().paused_at = None;
        self.wake();
    }

    /// How far the next step may read, given the durable end; that much counts as read from now on.
    pub(crate) fn read_up_to(&self, durable: Position) -> Position {
        let mut control = self.control.lock();
        // None is the least: who stands still goes before every announced position.
        let until = match control.holds.values().min() {
            None => durable,
            Some(None) => control.reading,
            Some(Some(announced)) => self.cut_at(*announced).min(durable),
        };
        let until = control.paused_at.map_or(until, |paused_at| until.min(paused_at.max(control.reading)));
        control.reading = control.reading.max(until);
        until
    }

    /// Where this query stops for an announced root position: there, or behind the last record in which its source shows
    /// what lies below. As long as the source has not got there, nothing beyond the position itself is known to belong to it.
    pub(crate) fn cut_at(&self, announced: Position) -> Position {
        self.live_upstream().iter().map(|upstream| upstream.shown_below(announced)).fold(announced, Position::max)
    }

    /// Stops the task where it is, until [`Hold::announce`] or until the hold is dropped.
    pub(crate) fn hold(self: &Arc<Self>) -> Hold {
        let mut control = self.control.lock();
        control.holders += 1;
        let holder = control.holders;
        control.holds.insert(holder, None);
        Hold { query: Arc::clone(self), holder }
    }
}

/// Queries for whose progress somebody waits.
pub(crate) struct Hurried(Vec<Arc<AtomicU32>>);

impl Drop for Hurried {
    fn drop(&mut self) {
        self.0.iter().for_each(|awaited| {
            awaited.fetch_sub(1, Ordering::AcqRel);
        });
    }
}

/// A step that has become durable.
pub(crate) struct Committed {
    /// Everything of the query's own sources below this position is folded.
    pub(crate) folded: Position,
    /// Versions of the view before and after, if it changed.
    pub(crate) versions: Option<(Version, Version)>,
    /// End of the unit that it wrote, if it wrote one.
    pub(crate) unit_end: Option<Position>,
    /// Whether what it writes shows all of it; not while it succeeds another query.
    pub(crate) shows: bool,
}

/// Keeps a task from reading beyond an announced position while it lives. Of several, the task obeys the lowest: whoever
/// announced that waits for nobody above.
pub(crate) struct Hold {
    query: Arc<Query>,
    holder: u64,
}

impl Hold {
    /// Lets the task reflect everything below `announced`, and nothing beyond.
    pub(crate) fn announce(&self, announced: Position) {
        self.query.control.lock().holds.insert(self.holder, Some(announced));
        self.query.wake();
    }

    pub(crate) fn query(&self) -> &Arc<Query> {
        &self.query
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.query.control.lock().holds.remove(&self.holder);
        self.query.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, task::Waker, time::Duration};

    use foldlog_log::clock::SystemClock;

    use super::*;
    use crate::stream::worker::{Pool, Turn, Work};

    fn query(upstream: Option<&Arc<Query>>) -> Arc<Query> {
        Arc::new(Query::new("q", "q", upstream.into_iter().cloned().collect(), None, Position::default(), QueryState::Running, false))
    }

    fn step(query: &Query, folded: u64, unit_end: Option<u64>) {
        query
            .publish(&Committed { folded: Position::new(folded), versions: None, unit_end: unit_end.map(Position::new), shows: true })
            .unwrap();
    }

    #[test]
    fn who_takes_a_place_itself_does_not_stand_still_before_it_has() {
        let woken = Arc::new(Mutex::new(0));
        let pool = Pool::start(1, Arc::new(SystemClock::new())).unwrap();
        let (told, heard) = mpsc::channel();
        let counts = Arc::clone(&woken);
        let job = pool.spawn(Count { woken: counts, told });
        heard.recv_timeout(Duration::from_secs(10)).unwrap();
        let before = query(None);
        before.succeeds();
        before.tells(&Arc::downgrade(&job));
        before.pause();
        assert!(!before.stands_still(), "its topic does not hold its table yet");
        before.has_succeeded();
        heard.recv_timeout(Duration::from_secs(10)).expect("whoever waits for it is woken");
        assert!(before.stands_still());
        assert_eq!(*woken.lock(), 2);
        pool.stop();
    }

    /// Counts its turns, and tells of each.
    struct Count {
        woken: Arc<Mutex<u32>>,
        told: mpsc::Sender<()>,
    }

    impl Work for Count {
        fn turn(&mut self, _: &Waker) -> Turn {
            *self.woken.lock() += 1;
            self.told.send(()).unwrap();
            Turn::Wait
        }

        fn panicked(&mut self, what: String) {
            panic!("{what}");
        }
    }

    #[test]
    fn a_frontier_reaches_no_further_than_what_is_folded() {
        let upstream = query(None);
        let query = query(Some(&upstream));
        step(&upstream, 3, Some(5));
        // Upstream goes on without output; something else was written into its sink at position 7.
        step(&upstream, 10, None);
        step(&query, 6, None);
        assert_eq!(query.frontier(), Position::new(6));
        step(&query, 10, None);
        assert_eq!(query.frontier(), Position::new(10));
    }

    struct Tells(mpsc::Sender<()>);

    impl Work for Tells {
        fn turn(&mut self, _: &Waker) -> Turn {
            self.0.send(()).unwrap();
            Turn::Wait
        }

        fn panicked(&mut self, what: String) {
            panic!("{what}");
        }
    }

    #[test]
    fn who_is_downstream_looks_again_when_a_query_has_ended() {
        let pool = Pool::start(1, Arc::new(SystemClock::new())).unwrap();
        let upstream = query(None);
        let (tells, told) = mpsc::channel();
        let job = pool.spawn(Tells(tells));
        query(Some(&upstream)).attach(&Arc::downgrade(&job));
        told.recv().unwrap();
        upstream.end(QueryState::Stopped);
        told.recv_timeout(Duration::from_secs(30)).expect("its frontier moves on without upstream");
        pool.stop();
    }

    #[test]
    fn a_frontier_never_moves_back_however_far_its_query_lags() {
        let upstream = query(None);
        let query = query(Some(&upstream));
        step(&upstream, 2, Some(3));
        step(&query, 3, Some(4));
        assert_eq!(query.frontier(), Position::new(2));
        for unit in 0..=REMEMBERED_UNITS as u64 {
            step(&upstream, 10 + 2 * unit, Some(11 + 2 * unit));
        }
        step(&query, 5, Some(6));
        assert_eq!(query.frontier(), Position::new(2));
        let reflected: Vec<Position> = query.published.lock().reflected.iter().map(|reflected| reflected.frontier).collect();
        assert_eq!(reflected, [Position::new(2); 2]);
    }
}
