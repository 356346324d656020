//! Who needs records that retention would remove, and from where on.
//!
//! Queries hold what they would fold again after a restart; upkeep asks before it removes anything. Invariant: what is held when
//! [`Holds::lock`] is taken stays until the guard is gone.

use std::collections::BTreeMap;

use parking_lot::{Mutex, MutexGuard};

use tokio::sync::oneshot;

use crate::{
    error::LogError,
    ids::{Position, TopicName},
    record::Appended,
};

/// Somebody who needs what a topic has at a position and behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Who: the id of a query.
    pub owner: String,
    /// From where on (inclusive).
    pub from: Position,
}

/// Everything that is held.
#[derive(Debug, Default)]
pub(crate) struct Holds(Mutex<Held>);

/// What is held now.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// Whether all who need something have said so.
    is_complete: bool,
    by_topic: BTreeMap<TopicName, BTreeMap<String, Position>>,
    /// What will come of switches of segments that are in line for the committer.
    in_line: Vec<Answer>,
}

type Answer = oneshot::Receiver<Result<Appended, LogError>>;

impl Holds {
    /// Holds a topic for an owner, in place of what that held of it, if it `exists`. Waits while something is being removed or deleted.
    ///
    /// # Errors
    /// What `exists` says.
    pub(crate) fn hold(
        &self,
        owner: &str,
        topic: &TopicName,
        from: Position,
        exists: impl FnOnce() -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        let mut held = self.0.lock();
        exists()?;
        held.by_topic.entry(topic.clone()).or_default().insert(owner.to_owned(), from);
        Ok(())
    }

    /// Lets go of everything that an owner held.
    pub(crate) fn release(&self, owner: &str) {
        let by_topic = &mut self.0.lock().by_topic;
        by_topic.retain(|_, owners| {
            owners.remove(owner);
            !owners.is_empty()
        });
    }

    /// All who needed something when the log was opened hold it by now.
    pub(crate) fn complete(&self) {
        self.0.lock().is_complete = true;
    }

    /// Who holds a topic.
    pub(crate) fn holders(&self, topic: &TopicName) -> Vec<Holder> {
        let held = self.0.lock();
        let owners = held.by_topic.get(topic).into_iter().flatten();
        owners.map(|(owner, from)| Holder { owner: owner.clone(), from: *from }).collect()
    }

    /// Keeps everybody from holding anything new while something is removed.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock()
    }
}

impl Held {
    /// Whether anything may be removed at all.
    pub(crate) const fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// A switch is in line: until it is made nobody looks for more that may go.
    pub(crate) fn put_in_line(&mut self, answer: Answer) {
        self.in_line.push(answer);
    }

    /// Whether a switch is in line.
    pub(crate) fn is_waiting(&mut self) -> bool {
        self.in_line.retain_mut(|answer| matches!(answer.try_recv(), Err(oneshot::error::TryRecvError::Empty)));
        !self.in_line.is_empty()
    }

    /// Waits until all switches in line are made. Blocking.
    pub(crate) fn wait(&mut self) {
        for answer in self.in_line.drain(..) {
            // If nobody answers, the log has stopped, which the thread finds out by itself.
            let _ = answer.blocking_recv();
        }
    }

    /// Refuses to delete a topic that somebody holds.
    ///
    /// # Errors
    /// [`LogError::TopicInUse`].
    pub(crate) fn free(&self, topic: &TopicName) -> Result<(), LogError> {
        let owners: Vec<String> = self.by_topic.get(topic).into_iter().flatten().map(|(owner, _)| owner.clone()).collect();
        if owners.is_empty() { Ok(()) } else { Err(LogError::TopicInUse { topic: topic.clone(), owners }) }
    }

    /// From where on a topic is held; none if it is not.
    pub(crate) fn from(&self, topic: &TopicName) -> Option<Position> {
        self.by_topic.get(topic)?.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_place_counts_until_its_owner_lets_go() {
        let holds = Holds::default();
        let topic = |name: &str| name.parse::<TopicName>().unwrap();
        let (a, b) = (topic("a"), topic("b"));
        // One look at a time: who looks keeps everybody else out.
        let look = || {
            let held = holds.lock();
            (held.from(&a).map(Position::get), held.from(&b).map(Position::get), held.is_complete())
        };
        assert_eq!(look(), (None, None, false));
        for (owner, topic, from) in [("q1", &a, 7), ("q2", &a, 3), ("q2", &b, 1), ("q1", &a, 9)] {
            holds.hold(owner, topic, Position::new(from), || Ok(())).unwrap();
        }
        assert_eq!(look(), (Some(3), Some(1), false));
        let names = |topic| holds.holders(topic).into_iter().map(|holder| (holder.owner, holder.from.get())).collect::<Vec<_>>();
        assert_eq!(names(&a), [("q1".to_owned(), 9), ("q2".to_owned(), 3)]);
        holds.release("q2");
        assert_eq!((names(&a), names(&b)), (vec![("q1".to_owned(), 9)], vec![]));
        holds.release("q1");
        holds.complete();
        assert_eq!(look(), (None, None, true));
    }
}
