//! Deleted topics on their way out.
//!
//! First the manifest says, durably, that a topic was deleted, and nobody finds it any more ([`crate::embedded`]); upkeep and tidy bring it on
//! from there, a start those that it finds. Invariant: what is left of a topic stays as long as the durable checkpoint or a frame behind it
//! names it, or somebody reads it; its manifest goes last.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{
    engine::Engine, error::LogError, ids::TopicId, partition::request::Request, record::Appended, segment::Segments, topic::Topic,
    topic_store::TopicEntry,
};

type Barrier = oneshot::Receiver<Result<Appended, LogError>>;

/// Deleted topics of which something is left.
#[derive(Debug, Default)]
pub(crate) struct Deleted(Mutex<Vec<Leaving>>);

#[derive(Debug)]
struct Leaving {
    entry: Arc<TopicEntry>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Appends that were admitted before may be on their way; here is what waits behind them, if it is in line.
    Closing(Option<Barrier>),
    /// No frame to come names it.
    Closed,
    /// Neither the durable checkpoint nor a frame behind it names it.
    Unnamed,
    /// Nobody finds its segments any more; who has them in hand reads on.
    Hidden(Vec<Arc<Segments>>),
}

impl Deleted {
    /// What a start finds: no append is on its way.
    pub(crate) fn found(topics: Vec<Arc<TopicEntry>>) -> Self {
        Self(Mutex::new(topics.into_iter().map(|entry| Leaving { entry, stage: Stage::Closed }).collect()))
    }

    /// A topic was deleted just now.
    pub(crate) fn add(&self, entry: Arc<TopicEntry>) {
        self.0.lock().push(Leaving { entry, stage: Stage::Closing(None) });
    }

    /// Topics that no frame to come names.
    pub(crate) fn closed(&self) -> Vec<TopicId> {
        let leaving = self.0.lock();
        leaving.iter().filter(|one| matches!(one.stage, Stage::Closed)).map(|one| one.entry.topic.id).collect()
    }

    /// Neither the durable checkpoint nor a frame behind it names these, which were closed.
    pub(crate) fn unnamed(&self, topics: &[TopicId]) {
        for one in self.0.lock().iter_mut().filter(|one| topics.contains(&one.entry.topic.id)) {
            one.stage = Stage::Unnamed;
        }
    }

    /// Waits until what is in line behind appends is answered; whether any topic was brought on by that. For upkeep's thread.
    pub(crate) fn wait_for_appends(&self) -> bool {
        let waiting: Vec<_> = self.0.lock().iter_mut().filter_map(Leaving::take_barrier).collect();
        let mut any = false;
        for (topic, barrier) in waiting {
            // If nobody answers, the log has stopped, which the thread finds out by itself.
            let is_closed = matches!(barrier.blocking_recv(), Ok(Ok(_)));
            for one in self.0.lock().iter_mut().filter(|one| is_closed && one.entry.topic.id == topic) {
                one.stage = Stage::Closed;
                any = true;
            }
        }
        any
    }
}

impl Leaving {
    fn take_barrier(&mut self) -> Option<(TopicId, Barrier)> {
        let Stage::Closing(barrier) = &mut self.stage else { return None };
        Some((self.entry.topic.id, barrier.take()?))
    }

    /// Goes on as far as it can in memory.
    fn step(&mut self, engine: &Engine) -> Result<(), LogError> {
        match &mut self.stage {
            Stage::Closing(barrier) => match barrier.as_mut().map(oneshot::Receiver::try_recv) {
                None => *barrier = engine.behind_appends()?,
                Some(Ok(Ok(_))) => self.stage = Stage::Closed,
                Some(Err(oneshot::error::TryRecvError::Empty)) => {}
                // There was no room for it: the next pass tries again.
                Some(_) => *barrier = None,
            },
            Stage::Unnamed => self.stage = Stage::Hidden(self.hide(engine)),
            Stage::Closed | Stage::Hidden(_) => {}
        }
        Ok(())
    }

    /// Whether nothing but its files is left.
    fn is_out(&self) -> bool {
        matches!(&self.stage, Stage::Hidden(segments) if segments.iter().all(|segments| Arc::strong_count(segments) == 1))
    }

    /// Takes its segments and streams out of memory.
    fn hide(&self, engine: &Engine) -> Vec<Arc<Segments>> {
        let indexes: Vec<usize> = self.entry.partitions.iter().map(|partition| partition.index).collect();
        let streams: Vec<u32> = indexes.iter().filter_map(|index| u32::try_from(*index).ok()).collect();
        engine.streams.forget_all_of(&streams);
        let (mut all, mut due) = (engine.segments.write(), engine.due.lock());
        indexes
            .into_iter()
            .filter_map(|index| {
                due.remove(&index);
                all.get_mut(index)?.take()
            })
            .collect()
    }
}

impl Engine {
    /// Puts something in line behind all appends that are there, which is answered when those are durable; none: there is no room now.
    fn behind_appends(&self) -> Result<Option<Barrier>, LogError> {
        let (reply, answer) = oneshot::channel();
        match self.queue.push(Request::barrier(reply)) {
            Ok(()) => Ok(Some(answer)),
            Err(LogError::Overloaded { .. } | LogError::Stopping) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Brings deleted topics on; whether tidy must write a checkpoint without one. For upkeep alone; blocking.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub(crate) fn bring_out_deleted(&self) -> Result<bool, LogError> {
        let (calls_tidy, out) = {
            let mut leaving = self.deleted.0.lock();
            leaving.iter_mut().try_for_each(|one| one.step(self))?;
            let out: Vec<_> = leaving.extract_if(.., |one| one.is_out()).collect();
            (leaving.iter().any(|one| matches!(one.stage, Stage::Closed)), out)
        };
        let mut out = out.into_iter();
        while let Some(one) = out.next() {
            let Topic { name, id, .. } = &*one.entry.topic;
            if let Err(error) = self.topics.forget(&one.entry, |path| self.files.forget(path)) {
                self.deleted.0.lock().extend([one].into_iter().chain(out));
                return Err(error);
            }
            tracing::info!(topic = %name, %id, "what a deleted topic left is removed");
        }
        Ok(calls_tidy)
    }
}
