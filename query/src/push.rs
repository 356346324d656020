//! Queries that do not end: over streams and topics every record from now on, over views a snapshot and then every change.
//!
//! Called by `engine` with a plan. What always holds: changes arrive in position order, each once, and every message says
//! where to go on; nothing is read ahead of the client but two steps, or what a
//! listener's bounds allow; dropping the answer ends the query.
//!
//! Over a stream the client's own polling takes what any reader of the same columns has decoded, or decodes it for all, in
//! place where the records are still in memory: between an append and its row lie one wake-up and no other thread. While it is behind the
//! workers decode two steps ahead.

use std::{pin::Pin, sync::Arc, time::Duration};

use arrow::{
    array::{BooleanArray, UInt32Array},
    buffer::BooleanBuffer,
    compute::take_record_batch,
    record_batch::RecordBatch,
};
use foldlog_log::{LogBackend, Position, ReadLimits, Selection, TopicId};
use futures::{Stream, stream};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::Instant,
};

use crate::{
    answer::{ChangeOp, PushAnswer, PushItem, Request},
    catalog::{Pseudo, Source, SourceKind, WantedColumn},
    changes::ChangeListener,
    config::QueryConfig,
    error::QueryError,
    plan::StreamPlan,
    print::{self, Printing},
    sql::statement::Print,
    stream::{
        change::ChangeBatch,
        operator::chain::{Chain, execution},
        source::AheadIntake,
        view::{Pinned, View},
    },
    supervisor::Supervisor,
};

/// How much of the log one message is made from: little enough that it holds no other task up.
const LIMITS: ReadLimits = ReadLimits { records: 2048, bytes: 1 << 20 };

/// How much of a view's snapshot is copied for a client, so that a view that is no larger is not held at its pace.
const SPOOLED_BYTES: usize = 4 << 20;

/// How often a client learns that nothing passed its filter, at most.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

type Items = Pin<Box<dyn Stream<Item = Result<PushItem, QueryError>> + Send>>;

/// Starts queries that do not end. Cheap to clone.
#[derive(Clone)]
pub struct Push {
    log: Arc<dyn LogBackend>,
    supervisor: Supervisor,
    running: Arc<Semaphore>,
}

impl Push {
    /// Over this log and these views.
    #[must_use]
    pub fn new(log: Arc<dyn LogBackend>, supervisor: Supervisor, config: &QueryConfig) -> Self {
        Self { log, supervisor, running: Arc::new(Semaphore::new(config.max_push_queries as usize)) }
    }

    /// Starts a query that ends after `limit` rows, if there is a limit.
    ///
    /// It goes on behind `request.resume`. Over a view that means a new snapshot, whose rows replace those of the same key; a
    /// query that folds can only be started again.
    ///
    /// # Errors
    /// [`QueryError::ResourceExhausted`] when too many are running, [`QueryError::NotYet`], [`QueryError::Folding`],
    /// [`QueryError::Unsupported`], and what the log says to the place where it should begin.
    pub async fn start(&self, plan: StreamPlan, limit: Option<u64>, request: &Request) -> Result<PushAnswer, QueryError> {
        let permit = self.permit()?;
        let schema = plan.schema();
        let keys = plan.output.iter().enumerate().filter(|(_, column)| column.key).map(|(place, _)| place).collect();
        let (topic, items) = if plan.is_stateful() {
            (None, self.fold(plan, request).await?)
        } else {
            self.pass_on(plan, limit.unwrap_or(u64::MAX), request).await?
        };
        Ok(PushAnswer { schema, keys, topic, items: limited(items, limit, permit) })
    }

    /// Prints a topic: from its first record on, from the next one on, or behind `request.resume`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub(crate) async fn print(&self, printing: Printing, print: &Print, request: &Request) -> Result<PushAnswer, QueryError> {
        let permit = self.permit()?;
        let schema = printing.schema();
        let resume = request.resume.filter(|resume| resume.position > Position::default());
        if resume.and_then(|resume| resume.topic).is_some_and(|of| of != printing.topic().id) {
            return Err(QueryError::TopicRecreated { topic: printing.topic().name.clone() });
        }
        let first = if print.from_beginning || request.resume.is_some() { Position::default() } else { self.log.head().position };
        let from = resume.map_or(first, |resume| resume.position);
        let selection = Selection::Topics(vec![printing.topic().name.clone()], from);
        if resume.is_some() {
            self.log.whole_from(&selection)?;
        }
        let log = Arc::clone(&self.log);
        let reader = blocking(move || Ok(log.reader(selection)?)).await?;
        let following = print::Following::new(printing, reader, from, self.log.durable());
        let topic = Some(following.incarnation());
        let items = stream::unfold(Some(following), |following| async {
            let mut following = following?;
            match Box::pin(following.next()).await {
                Ok(item) => Some((Ok(item), Some(following))),
                Err(fault) => Some((Err(fault), None)),
            }
        });
        Ok(PushAnswer { schema, keys: Vec::new(), topic, items: limited(Box::pin(items), print.limit, permit) })
    }

    fn permit(&self) -> Result<OwnedSemaphorePermit, QueryError> {
        let full = |_| QueryError::ResourceExhausted("too many push queries are running; retry later".to_owned());
        Arc::clone(&self.running).try_acquire_owned().map_err(full)
    }

    /// Folds for this client alone.
    async fn fold(&self, plan: StreamPlan, request: &Request) -> Result<Items, QueryError> {
        let over_table = plan.sources.iter().any(|scan| scan.source.kind == SourceKind::Table);
        let from = match request.resume.map(|resume| resume.position) {
            // What a table has now is in its records from the first one on.
            None if over_table => Position::default(),
            None => self.log.head().position,
            Some(start) if start == Position::default() => start,
            Some(_) => {
                let reason = "a push query with GROUP BY cannot go on where it ended, its state is gone; start it again";
                return Err(QueryError::Unsupported(reason.to_owned()));
            }
        };
        let supervisor = self.supervisor.clone();
        // The state's rows end with their row time, which was not asked for.
        let places: Vec<usize> = (0..plan.output.len()).collect();
        let listener = blocking(move || supervisor.volatile(&plan, from)).await?;
        let watching = Watching { listener, snapshot: None, chain: Chain::default(), places };
        Ok(watching.into_items())
    }

    /// The topic whose records these are, if it is no view, and what becomes of them.
    async fn pass_on(&self, plan: StreamPlan, limit: u64, request: &Request) -> Result<(Option<TopicId>, Items), QueryError> {
        let [scan] = &plan.sources[..] else {
            return Err(QueryError::Unsupported("a push query over several sources".to_owned()));
        };
        let chain = Chain::new(&plan.nodes)?;
        let source = Arc::clone(&scan.source);
        if let Some(view) = self.supervisor.view_of(&source)? {
            return Ok((None, self.follow_view(&view, &source, &scan.wanted, chain, request).await?));
        }
        let resume = request.resume.map(|resume| resume.position);
        if let Some(resume) = resume.filter(|resume| *resume > Position::default()) {
            self.log.whole_from(&Selection::Topics(vec![source.topic.clone()], resume))?;
        }
        let from = resume.unwrap_or(self.log.head().position);
        let (supervisor, scan) = (self.supervisor.clone(), scan.clone());
        let intake = blocking(move || supervisor.reads(&scan, from, LIMITS)).await?;
        let topic = intake.incarnation();
        if request.resume.and_then(|resume| resume.topic).is_some_and(|of| of != topic) {
            return Err(QueryError::TopicRecreated { topic: source.topic.clone() });
        }
        let following = Following { intake, chain, at: from, left: limit, durable: self.log.durable(), told: Instant::now() };
        let items = stream::unfold(Some(following), |following| async {
            let mut following = following?;
            match Box::pin(following.next()).await {
                Ok(item) => Some((Ok(item), Some(following))),
                Err(fault) => Some((Err(fault), None)),
            }
        });
        Ok((Some(topic), Box::pin(items)))
    }

    async fn follow_view(
        &self,
        view: &View,
        source: &Source,
        wanted: &[WantedColumn],
        chain: Chain,
        request: &Request,
    ) -> Result<Items, QueryError> {
        if let Some(at_least) = request.at_least {
            view.wait(at_least, request.timeout).await?;
        }
        let places = wanted.iter().map(|one| place_in_view(view, source, *one)).collect::<Result<Vec<_>, _>>()?;
        let mut listener = self.supervisor.listen(view)?;
        let pinned = listener.take_snapshot();
        let snapshot = blocking(move || pinned.map(Snapshot::spooled).transpose()).await?;
        let watching = Watching { listener, snapshot, chain, places };
        Ok(watching.into_items())
    }
}

/// Runs what may block on a file away from the threads that serve.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, QueryError> + Send + 'static) -> Result<T, QueryError> {
    tokio::task::spawn_blocking(work).await.map_err(|fault| QueryError::Execution(format!("it ended early: {fault}")))?
}

/// Place of a wanted column among those of a view.
fn place_in_view(view: &View, source: &Source, wanted: WantedColumn) -> Result<usize, QueryError> {
    let name = match wanted {
        WantedColumn::Declared(place) => source.columns.get(place).map(|column| column.name.as_str()),
        WantedColumn::Pseudo(Pseudo::RowTime) => Some(Pseudo::RowTime.name()),
        WantedColumn::Pseudo(Pseudo::RecordedAt | Pseudo::Record | Pseudo::HasValue) => {
            let view = view.name();
            return Err(QueryError::Invalid(format!(
                "functions of the time and of chance are of records; {view} is a view, whose rows have none: use rowtime, or compute them in its query"
            )));
        }
        WantedColumn::Pseudo(other) => {
            let (name, view) = (other.name(), view.name());
            return Err(QueryError::Invalid(format!("{name} is a column of records; {view} is a view and has rowtime alone")));
        }
    };
    let unknown = || QueryError::Invalid(format!("view {} has no such column", view.name()));
    let name = name.ok_or_else(unknown)?;
    view.schema().index_of(name).map_err(|_| unknown())
}

/// A stream or topic being followed.
struct Following {
    intake: AheadIntake,
    chain: Chain,
    /// Everything below it was delivered.
    at: Position,
    /// Rows that are still wanted.
    left: u64,
    durable: watch::Receiver<Position>,
    told: Instant,
}

impl Following {
    async fn next(&mut self) -> Result<PushItem, QueryError> {
        loop {
            let until = *self.durable.borrow_and_update();
            if self.at >= until {
                self.durable.changed().await.map_err(|_| QueryError::Stopping)?;
                continue;
            }
            let taken = self.intake.next(until).await?;
            self.at = taken.scanned_to;
            if let Some(passed) = self.rows(taken.rows)? {
                self.told = Instant::now();
                let rows = self.wanted(passed);
                let ops = vec![ChangeOp::Insert; rows.num_rows()];
                return Ok(PushItem::Changes { rows, ops, position: self.at });
            }
            if self.told.elapsed() >= PROGRESS_EVERY {
                self.told = Instant::now();
                return Ok(PushItem::Progress(self.at));
            }
            // However much of the log is in memory, other tasks have their turn after each part of it.
            tokio::task::yield_now().await;
        }
    }

    /// The rows that pass, if any do.
    fn rows(&self, rows: ChangeBatch) -> Result<Option<ChangeBatch>, QueryError> {
        if rows.is_empty() {
            return Ok(None);
        }
        // What became NULL is nobody's but this client's; only queries that write keep a log of it.
        let output = self.chain.run(rows, &mut Vec::new())?;
        Ok((!output.is_empty()).then_some(output))
    }

    /// The rows up to the limit; where it cuts, what follows was not delivered.
    fn wanted(&mut self, passed: ChangeBatch) -> RecordBatch {
        let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(passed.len());
        if let Some(next) = passed.positions.get(count) {
            self.at = Position::new(*next);
        }
        self.left -= count as u64;
        passed.rows.slice(0, count)
    }
}

type SnapshotRows = Box<dyn Iterator<Item = Result<RecordBatch, QueryError>> + Send>;

/// What is left of a view's snapshot.
struct Snapshot {
    /// Holds the pin as long as it has to read.
    rows: SnapshotRows,
    position: Position,
}

impl Snapshot {
    /// Copies the first [`SPOOLED_BYTES`] of a view; one that is no larger is not pinned any more. What is left of a larger one
    /// is read at the client's pace, and ends with SNAPSHOT_TOO_OLD if it holds more than the state's budget.
    fn spooled(pinned: Pinned) -> Result<Self, QueryError> {
        let (mut scan, position) = (pinned.scan(), pinned.position());
        drop(pinned);
        let (mut copied, mut bytes) = (Vec::new(), 0);
        while bytes < SPOOLED_BYTES {
            let Some(rows) = scan.next().transpose()? else {
                return Ok(Self { rows: Box::new(copied.into_iter()), position });
            };
            bytes += rows.get_array_memory_size();
            copied.push(Ok(rows));
        }
        Ok(Self { rows: Box::new(copied.into_iter().chain(scan)), position })
    }
}

/// A view, or what is folded for this client alone, being followed.
struct Watching {
    listener: ChangeListener,
    snapshot: Option<Snapshot>,
    chain: Chain,
    places: Vec<usize>,
}

impl Watching {
    fn into_items(self) -> Items {
        Box::pin(stream::unfold(Some(self), |watching| async {
            let mut watching = watching?;
            match watching.next().await? {
                Ok(item) => Some((Ok(item), Some(watching))),
                Err(fault) => Some((Err(fault), None)),
            }
        }))
    }

    /// The next message; none when the query behind the view has ended.
    async fn next(&mut self) -> Option<Result<PushItem, QueryError>> {
        if let Some(pinned) = self.listener.coming_snapshot().await {
            match blocking(move || Snapshot::spooled(pinned)).await {
                Ok(snapshot) => self.snapshot = Some(snapshot),
                Err(fault) => return Some(Err(fault)),
            }
        }
        if let Some(item) = self.next_of_snapshot().transpose() {
            return Some(item);
        }
        let (rows, ops, position) = match self.listener.next().await? {
            Ok(PushItem::Changes { rows, ops, position }) => (rows, ops, position),
            other => return Some(other),
        };
        let item = self.passing(&rows, &ops, position);
        Some(item.map(|item| item.unwrap_or(PushItem::Progress(position))))
    }

    /// Rows of the snapshot that pass; at its end the news that it is complete.
    fn next_of_snapshot(&mut self) -> Result<Option<PushItem>, QueryError> {
        let Some(mut snapshot) = self.snapshot.take() else { return Ok(None) };
        while let Some(rows) = snapshot.rows.next().transpose()? {
            let ops = vec![ChangeOp::Insert; rows.num_rows()];
            if let Some(item) = self.passing(&rows, &ops, snapshot.position)? {
                self.snapshot = Some(snapshot);
                return Ok(Some(item));
            }
        }
        Ok(Some(PushItem::Progress(snapshot.position)))
    }

    fn passing(&self, rows: &RecordBatch, ops: &[ChangeOp], position: Position) -> Result<Option<PushItem>, QueryError> {
        let rows = rows.project(&self.places).map_err(execution)?;
        let (rows, kept) = self.chain.run_all(rows)?;
        let Some(kept) = kept else { return Ok(Some(PushItem::Changes { rows, ops: ops.to_vec(), position })) };
        let (places, ops) = filtered(ops, &kept);
        if ops.is_empty() {
            return Ok(None);
        }
        let rows = take_record_batch(&rows, &UInt32Array::from(places)).map_err(execution)?;
        Ok(Some(PushItem::Changes { rows, ops, position }))
    }
}

/// What changes mean to whoever sees only the rows that are `kept`: an update of which one side is left is an insert or a delete.
fn filtered(ops: &[ChangeOp], kept: &BooleanBuffer) -> (Vec<u32>, Vec<ChangeOp>) {
    let kept = BooleanArray::new(kept.clone(), None);
    let is_kept = |place: usize| place < ops.len() && kept.value(place);
    let mut places = Vec::new();
    let mut marks = Vec::new();
    for (place, op) in ops.iter().enumerate() {
        if !is_kept(place) {
            continue;
        }
        let is_pair = |before: Option<usize>, mark| before.is_some_and(|at| ops.get(at) == Some(&mark) && is_kept(at));
        marks.push(match op {
            ChangeOp::UpdateBefore if !is_pair(Some(place + 1), ChangeOp::UpdateAfter) => ChangeOp::Delete,
            ChangeOp::UpdateAfter if !is_pair(place.checked_sub(1), ChangeOp::UpdateBefore) => ChangeOp::Insert,
            op => *op,
        });
        places.push(u32::try_from(place).unwrap_or(u32::MAX));
    }
    (places, marks)
}

/// Ends after `limit` rows, cutting the last message to fit; gives the permit back at the end.
fn limited(items: Items, limit: Option<u64>, permit: OwnedSemaphorePermit) -> Items {
    let left = limit.unwrap_or(u64::MAX);
    Box::pin(stream::unfold((items, left, permit), |(mut items, mut left, permit)| async move {
        if left == 0 {
            return None;
        }
        let mut item = futures::StreamExt::next(&mut items).await?;
        if let Ok(PushItem::Changes { rows, ops, .. }) = &mut item {
            let taken = within_limit(ops, left);
            left = left.saturating_sub(ops.iter().take(taken).filter(|op| counts(**op)).count() as u64);
            *rows = rows.slice(0, taken);
            ops.truncate(taken);
        }
        Some((item, (items, left, permit)))
    }))
}

/// How many of these rows, from the first on, belong to `limit` changes: both sides of an update are one.
fn within_limit(ops: &[ChangeOp], limit: u64) -> usize {
    let mut counted = 0;
    let is_within = |op: &&ChangeOp| {
        counted += u64::from(counts(**op));
        counted <= limit && (counted < limit || counts(**op))
    };
    ops.iter().take_while(is_within).count()
}

fn counts(op: ChangeOp) -> bool {
    op != ChangeOp::UpdateBefore
}

#[cfg(test)]
mod tests {
    use super::*;
    use ChangeOp::{Delete, Insert, UpdateAfter, UpdateBefore};

    #[test]
    fn an_update_is_one_change_of_a_limit() {
        let ops = [Insert, UpdateBefore, UpdateAfter, Delete, UpdateBefore, UpdateAfter];
        let taken: Vec<usize> = (0..6).map(|limit| within_limit(&ops, limit)).collect();
        assert_eq!(taken, [0, 1, 3, 4, 6, 6]);
    }

    #[test]
    fn an_update_of_which_one_side_passes_is_an_insert_or_a_delete() {
        let ops = [Insert, UpdateBefore, UpdateAfter, UpdateBefore, UpdateAfter, UpdateBefore, UpdateAfter, Delete];
        let kept = BooleanBuffer::from(vec![true, true, true, true, false, false, true, false]);
        let (places, marks) = filtered(&ops, &kept);
        assert_eq!(places, [0, 1, 2, 3, 6]);
        assert_eq!(marks, [Insert, UpdateBefore, UpdateAfter, Delete, Insert]);
    }
}
