//! The one thread that takes checkpoints of all queries, and what it knows of each.
//!
//! The supervisor registers a query when it starts, asks for what can be gone on from, and says when the query is over; tasks
//! ask through their [`Debt`]. Invariants: one checkpoint is written at a time; what was said to be over is never written
//! again once that call has returned; retention is let go on only up to a checkpoint that is durable and named in the manifest.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use foldlog_log::{Head, LogBackend, Position, TopicName, clock::Clock};
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::{Identity, Pinned, Refused, Saved, debt::Debt, restore, save};
use crate::{
    error::QueryError,
    store::{
        Checkpoints, StateStore, StoreError, chain,
        manifest::{Found, Manifest},
    },
    stream::{fold::Fold, query::Query},
    supervisor::QueryState,
};

/// How long a query waits for its next checkpoint when one could not be written.
const AFTER_FAILURE: Duration = Duration::from_secs(30);
/// How long a stop may take over checkpoints. A query that gets none folds a little more at the next start.
const AT_STOP: Duration = Duration::from_secs(10);

/// Keeps the checkpoints of a folder.
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    log: Arc<dyn LogBackend>,
    clock: Arc<dyn Clock>,
    how: Checkpoints,
    /// None when the thread has ended: then somebody else may open it.
    store: Mutex<Option<Arc<dyn StateStore>>>,
    /// Which checkpoints are durable, as the file says.
    manifest: Mutex<Manifest>,
    /// Why none of those that were found can be believed.
    distrust: Option<String>,
    kept: Mutex<BTreeMap<String, Arc<Kept>>>,
    queue: Mutex<Queue>,
    filled: Condvar,
    /// No checkpoint is begun or gone on with any more.
    abandoned: AtomicBool,
}

#[derive(Default)]
struct Queue {
    due: VecDeque<Arc<Kept>>,
    asked: VecDeque<Asked>,
    has_ended: bool,
}

/// Ends the queue with the thread, however that ends, so that nobody waits for it.
struct Ending<'a>(&'a Shared);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store.lock().take();
        let mut queue = self.0.queue.lock();
        queue.has_ended = true;
        queue.asked.clear();
        queue.due.clear();
    }
}

/// What the thread is to do besides.
enum Asked {
    /// Remove the checkpoints of queries that are over.
    Remove(Vec<String>, mpsc::Sender<()>),
    /// Remove those of a query that is over, and let go of what it holds.
    Dismiss(String),
    /// Remove those of all queries but these.
    KeepOnly(Vec<String>, mpsc::Sender<()>),
    /// Write those of all queries that folded something, now, and say when it is done.
    All(mpsc::Sender<()>),
    /// The same within a time, say when it is done, and end.
    End(oneshot::Sender<()>),
}

/// A query with state.
pub(crate) struct Kept {
    identity: Identity,
    query: Arc<Query>,
    fold: Arc<Fold>,
    /// Where it reads.
    reads: Vec<TopicName>,
    pub(crate) debt: Arc<Debt>,
    newest: Mutex<Newest>,
    is_over: AtomicBool,
}

/// What its next checkpoint goes on from.
#[derive(Default)]
struct Newest {
    saved: Option<Saved>,
    /// No checkpoint before this time.
    not_before: Duration,
}

/// What a query is registered with.
pub(crate) struct Registered {
    pub(crate) identity: Identity,
    pub(crate) query: Arc<Query>,
    pub(crate) fold: Arc<Fold>,
    pub(crate) reads: Vec<TopicName>,
    pub(crate) saved: Option<Saved>,
}

impl Keeper {
    /// Opens the store and starts the thread (blocking).
    ///
    /// # Errors
    /// [`QueryError::Execution`] if there is no store or no thread.
    pub(crate) fn open(how: &Checkpoints, log: Arc<dyn LogBackend>, clock: Arc<dyn Clock>) -> Result<Self, QueryError> {
        let failed = |error: &dyn std::error::Error| QueryError::Execution(format!("no checkpoints: {}", chain(error)));
        let store = how.open().map_err(|error| failed(&error))?;
        let (manifest, distrust) = manifest_of(how, &log.head()).map_err(|error| failed(&error))?;
        let shared = Arc::new(Shared {
            log,
            clock,
            how: how.clone(),
            store: Mutex::new(Some(store)),
            manifest: Mutex::new(manifest),
            distrust,
            kept: Mutex::default(),
            queue: Mutex::default(),
            filled: Condvar::new(),
            abandoned: AtomicBool::new(false),
        });
        let its = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("checkpoints".to_owned()).spawn(move || its.run()).map_err(|error| failed(&error))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Reads the newest checkpoint of a query into its fold, which is empty (blocking). One that cannot be gone on from is set
    /// aside, and why is given.
    pub(crate) fn restore(&self, identity: &Identity, fold: &Fold) -> Result<Option<Saved>, String> {
        let shared = &self.shared;
        let store = shared.store().map_err(|error| error.to_string())?;
        let at_least = shared.manifest.lock().owners.get(&identity.query).copied();
        let durable = shared.log.head().position;
        let restored = match &shared.distrust {
            Some(reason) if at_least.is_some() || has_head(store.as_ref(), &identity.query) => Err(Refused(reason.clone())),
            Some(_) | None => restore(store.as_ref(), identity, fold, (durable, at_least)),
        };
        restored.map_err(|Refused(reason)| {
            tracing::warn!(query = identity.query, reason, "a checkpoint is set aside; the query folds from the log");
            let gone = store.set_aside(&identity.query).and_then(|()| store.sync());
            let forgotten = gone.and_then(|()| shared.tell_manifest(|owners| owners.retain(|owner, _| *owner != identity.query)));
            if let Err(error) = forgotten {
                tracing::warn!(query = identity.query, error = chain(&error), "a checkpoint could not be set aside");
            }
            reason
        })
    }

    /// Takes checkpoints of a query from now on.
    pub(crate) fn register(&self, registered: Registered) -> Arc<Kept> {
        let Registered { identity, query, fold, reads, saved } = registered;
        let kept = Arc::new_cyclic(|kept: &std::sync::Weak<Kept>| {
            let (kept, shared) = (std::sync::Weak::clone(kept), Arc::downgrade(&self.shared));
            let ask = move || {
                if let (Some(kept), Some(shared)) = (kept.upgrade(), shared.upgrade()) {
                    shared.queue.lock().due.push_back(kept);
                    shared.filled.notify_one();
                }
            };
            Kept {
                debt: Debt::new(self.shared.how.debt, Box::new(ask)),
                identity,
                query,
                fold,
                reads,
                newest: Mutex::new(Newest { saved, not_before: Duration::ZERO }),
                is_over: AtomicBool::new(false),
            }
        });
        self.shared.kept.lock().insert(kept.identity.query.clone(), Arc::clone(&kept));
        kept
    }

    /// Ends the checkpoints of a query: what it has is removed before this returns (blocking).
    pub(crate) fn forget(&self, query: &str) {
        self.bar(&[query.to_owned()]);
        self.shared.kept.lock().remove(query);
    }

    /// Ends the checkpoints of a query that holds nothing any more, soon: whoever says so must not wait.
    pub(crate) fn dismiss(&self, query: &str) {
        if let Some(kept) = self.shared.kept.lock().remove(query) {
            kept.is_over.store(true, Ordering::Release);
        }
        // What does not get there is removed by the next start, and holds nothing then.
        self.ask(Asked::Dismiss(query.to_owned()));
        self.shared.log.release(query);
    }

    /// Removes the checkpoints of queries, before this returns, and takes none until [`Keeper::allow`] (blocking).
    pub(crate) fn bar(&self, queries: &[String]) {
        let of = |kept: &BTreeMap<String, Arc<Kept>>| queries.iter().filter_map(|query| kept.get(query)).cloned().collect::<Vec<_>>();
        of(&self.shared.kept.lock()).iter().for_each(|kept| kept.is_over.store(true, Ordering::Release));
        let (told, heard) = mpsc::channel();
        if self.ask(Asked::Remove(queries.to_vec(), told)) {
            // It answers, or ends and drops what it was asked.
            let _ = heard.recv();
        } else {
            self.shared.remove(queries);
        }
    }

    /// Takes checkpoints of queries again.
    pub(crate) fn allow(&self, queries: &[String]) {
        let kept = self.shared.kept.lock();
        queries.iter().filter_map(|query| kept.get(query)).for_each(|kept| kept.is_over.store(false, Ordering::Release));
    }

    /// Removes the checkpoints of all but these queries, which are all there are (blocking).
    pub(crate) fn forget_all_but(&self, queries: &BTreeSet<&str>) {
        let (told, heard) = mpsc::channel();
        if self.ask(Asked::KeepOnly(queries.iter().map(|&query| query.to_owned()).collect(), told)) {
            // It answers, or ends and drops what it was asked.
            let _ = heard.recv();
        }
    }

    /// Writes checkpoints of all queries that folded something since theirs (blocking).
    pub(crate) fn save_all(&self) {
        let (told, heard) = mpsc::channel();
        if self.ask(Asked::All(told)) {
            let _ = heard.recv();
        }
    }

    /// Writes the last checkpoints of queries that have ended, as many as there is time for, and ends.
    pub(crate) async fn end(&self) {
        let (told, heard) = oneshot::channel();
        if self.ask(Asked::End(told)) {
            // It answers, or has ended.
            drop(heard.await);
        }
        self.join();
    }

    /// Gives whether there is a thread that will do it.
    fn ask(&self, asked: Asked) -> bool {
        let mut queue = self.shared.queue.lock();
        if queue.has_ended {
            return false;
        }
        queue.asked.push_back(asked);
        self.shared.filled.notify_one();
        true
    }

    fn join(&self) {
        if let Some(thread) = self.thread.lock().take() {
            // Its panic has been printed.
            drop(thread.join());
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.shared.abandoned.store(true, Ordering::Release);
        self.ask(Asked::End(oneshot::channel().0));
        self.join();
    }
}

/// What the manifest says, and why nothing that is found may be believed, if so.
fn manifest_of(how: &Checkpoints, head: &Head) -> Result<(Manifest, Option<String>), foldlog_log::LogError> {
    let (disk, folder) = (how.disk.as_ref(), how.folder.as_path());
    let distrust = match Manifest::read(disk, folder, head) {
        Found::Ours(manifest) => return Ok((manifest, None)),
        // Checkpoints without it were put there by somebody else, or it was lost.
        Found::Nothing => "the list of checkpoints is missing".to_owned(),
        Found::Unusable(reason) => {
            tracing::warn!(reason, folder = %folder.display(), "the list of checkpoints cannot be used; queries fold from the log");
            reason
        }
    };
    let manifest = Manifest::empty(head);
    manifest.write(disk, folder)?;
    Ok((manifest, Some(distrust)))
}

fn has_head(store: &dyn StateStore, owner: &str) -> bool {
    !matches!(store.head(owner), Ok(None))
}

impl Shared {
    fn run(&self) {
        let _ending = Ending(self);
        loop {
            let (asked, due) = self.next();
            match (asked, due) {
                (Some(Asked::Remove(owners, told)), _) => {
                    self.remove(&owners);
                    let _ = told.send(());
                }
                (Some(Asked::Dismiss(owner)), _) => {
                    // A checkpoint that was under way may have held it again.
                    self.log.release(&owner);
                    self.remove(&[owner]);
                }
                (Some(Asked::KeepOnly(queries, told)), _) => {
                    self.keep_only(&queries);
                    let _ = told.send(());
                }
                (Some(Asked::All(told)), _) => {
                    self.save_all(None);
                    let _ = told.send(());
                }
                (Some(Asked::End(told)), _) => {
                    self.save_all(Some(self.clock.monotonic() + AT_STOP));
                    let _ = told.send(());
                    return;
                }
                (None, Some(kept)) => self.save_one(&kept),
                (None, None) => {}
            }
        }
    }

    fn store(&self) -> Result<Arc<dyn StateStore>, StoreError> {
        self.store.lock().clone().ok_or(StoreError::Closed)
    }

    fn next(&self) -> (Option<Asked>, Option<Arc<Kept>>) {
        let mut queue = self.queue.lock();
        loop {
            if let Some(asked) = queue.asked.pop_front() {
                return (Some(asked), None);
            }
            if let Some(due) = queue.due.pop_front() {
                return (None, Some(due));
            }
            self.filled.wait(&mut queue);
        }
    }

    fn save_one(&self, kept: &Kept) {
        if let Some(saved) = self.write(kept, None) {
            self.make_durable(vec![(kept, saved)]);
        }
    }

    /// Writes checkpoints of all that folded something, those first that would lose most.
    fn save_all(&self, until: Option<Duration>) {
        let mut kept: Vec<Arc<Kept>> = self.kept.lock().values().cloned().collect();
        kept.sort_by_key(|kept| std::cmp::Reverse(kept.debt.get()));
        let mut written = Vec::new();
        for kept in &kept {
            if until.is_some_and(|until| self.clock.monotonic() >= until) {
                tracing::warn!("no time for the last checkpoints of all queries; they fold more at the next start");
                break;
            }
            written.extend(self.write(kept, until).map(|saved| (kept.as_ref(), saved)));
        }
        if !written.is_empty() {
            self.make_durable(written);
        }
    }

    /// Writes a checkpoint of what the query has committed, unless nothing was folded since the last one.
    fn write(&self, kept: &Kept, until: Option<Duration>) -> Option<Written> {
        let mut newest = kept.newest.lock();
        let debt = kept.debt.get();
        let is_wanted = || {
            let is_late = until.is_some_and(|until| self.clock.monotonic() >= until);
            !is_late && !kept.is_over.load(Ordering::Acquire) && !self.abandoned.load(Ordering::Acquire)
        };
        let too_early = until.is_none() && self.clock.monotonic() < newest.not_before;
        if too_early || !is_wanted() || matches!(kept.query.state(), QueryState::Failed(_)) {
            // The next step asks again.
            kept.debt.settle(0);
            return None;
        }
        let bytes: u64 = kept.fold.kept().iter().map(|kept| kept.bytes).sum();
        // The store needs room for what it replaces beside.
        if !self.how.has_room(bytes.saturating_mul(2)) {
            tracing::warn!(query = kept.identity.query, "the disk has no room for a checkpoint; it is tried again later");
            newest.not_before = self.clock.monotonic() + AFTER_FAILURE;
            kept.debt.settle(0);
            return None;
        }
        let pinned = kept.query.while_published(|folded| Pinned::new(&kept.fold, folded));
        let base = newest.saved.as_ref();
        if debt == 0 || base.is_some_and(|base| base.position == pinned.position()) {
            kept.debt.settle(debt);
            return None;
        }
        let number = base.map_or(0, |base| base.number).max(self.number_of(&kept.identity.query)) + 1;
        let written = self.store().and_then(|store| save(store.as_ref(), &kept.identity, pinned, (base, number), is_wanted));
        match written {
            Ok(Some(saved)) => return Some(Written { saved, debt }),
            Ok(None) => {}
            Err(error) => self.failed(kept, &mut newest, &error),
        }
        kept.debt.settle(0);
        None
    }

    /// The number of the checkpoint of a query that is durable.
    fn number_of(&self, query: &str) -> u64 {
        self.manifest.lock().owners.get(query).copied().unwrap_or(0)
    }

    fn failed(&self, kept: &Kept, newest: &mut Newest, error: &StoreError) {
        tracing::warn!(query = kept.identity.query, error = chain(error), "a checkpoint could not be written; it is tried again later");
        // What became of it is not known: the next one is whole.
        newest.saved = None;
        newest.not_before = self.clock.monotonic() + AFTER_FAILURE;
    }

    /// Syncs what was written, names it in the manifest, and lets retention go on.
    fn make_durable(&self, written: Vec<(&Kept, Written)>) {
        let named = self.store().and_then(|store| store.sync()).and_then(|()| {
            self.tell_manifest(|owners| {
                for (kept, Written { saved, .. }) in &written {
                    owners.insert(kept.identity.query.clone(), saved.number);
                }
            })
        });
        for (kept, Written { saved, debt }) in written {
            let mut newest = kept.newest.lock();
            if let Err(error) = &named {
                self.failed(kept, &mut newest, error);
                kept.debt.settle(0);
                continue;
            }
            self.hold(kept, saved.position);
            kept.query.saved(saved.position, saved.bytes());
            newest.saved = Some(saved);
            kept.debt.settle(debt);
        }
    }

    /// From its checkpoint on a query needs what it reads, and nothing before.
    fn hold(&self, kept: &Kept, from: Position) {
        for topic in &kept.reads {
            if let Err(error) = self.log.hold(&kept.identity.query, topic, from) {
                tracing::debug!(query = kept.identity.query, %topic, %error, "a topic is not held");
            }
        }
    }

    fn tell_manifest(&self, change: impl FnOnce(&mut BTreeMap<String, u64>)) -> Result<(), StoreError> {
        let mut manifest = self.manifest.lock();
        let mut changed = manifest.clone();
        change(&mut changed.owners);
        if changed != *manifest {
            let not_written = |error: foldlog_log::LogError| StoreError::Damaged(chain(&error));
            changed.write(self.how.disk.as_ref(), &self.how.folder).map_err(not_written)?;
            *manifest = changed;
        }
        Ok(())
    }

    /// Removes the checkpoints of all but some, also of those that the manifest does not name: it may have been lost.
    fn keep_only(&self, queries: &[String]) {
        let kept: BTreeSet<&str> = queries.iter().map(String::as_str).collect();
        let removed = self.store().and_then(|store| if store.keep_only(&kept)? { store.sync() } else { Ok(()) });
        let removed = removed.and_then(|()| self.tell_manifest(|all| all.retain(|owner, _| kept.contains(owner.as_str()))));
        if let Err(error) = removed {
            tracing::warn!(error = chain(&error), "checkpoints of queries that are over could not be removed");
        }
    }

    /// Removes checkpoints. They go before the manifest lets go of them: one that it does not name might be believed.
    fn remove(&self, owners: &[String]) {
        for kept in owners.iter().filter_map(|owner| self.kept.lock().get(owner).cloned()) {
            kept.newest.lock().saved = None;
            kept.query.unsaved();
        }
        let removed = self.store().and_then(|store| {
            owners.iter().try_for_each(|owner| store.remove(owner))?;
            store.sync()
        });
        let removed = removed.and_then(|()| self.tell_manifest(|all| all.retain(|owner, _| !owners.contains(owner))));
        if let Err(error) = removed {
            tracing::warn!(queries = owners.join(", "), error = chain(&error), "checkpoints could not be removed");
        }
    }
}

/// A checkpoint that is not synced yet, and the debt that it settles.
struct Written {
    saved: Saved,
    debt: u64,
}
