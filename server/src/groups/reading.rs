//! How a group's task comes to know what lies in its topic: read ahead, passed over, counted, or found to be gone. A part of [`Runner`].

use std::time::Duration;

use foldlog_log::Offset;
use tracing::warn;

use super::{
    delivery::{DeliveryRef, Now, Verdict},
    members::MemberId,
    outbox::Note,
    runner::Runner,
    source::Ahead,
    tally::Tally,
};
use crate::failure::{Failure, Kind};

/// Parked events that are looked up in one step.
const LOOKED_UP: usize = 64;
/// Steps in which the log is looked at before it is told how far a group is.
const LOOKS: usize = 8;
/// Pause before a partition is read again that could not be read.
const READ_AGAIN: Duration = Duration::from_secs(5);

impl Runner {
    /// Looks up what is known of parked events but their key; tells whether there is more.
    pub(super) async fn look_up_parked(&mut self) -> bool {
        if !self.group.unknown(1).is_empty() && !self.is_of_its_topic() {
            return false;
        }
        for at in self.group.unknown(LOOKED_UP) {
            match self.source.known(at).await {
                Ok(known) => self.group.learn_parked(at, known.as_ref()),
                Err(failure) => {
                    self.fails(at.0 as usize, &failure);
                    return false;
                }
            }
        }
        !self.group.unknown(1).is_empty()
    }

    /// Reads what the group has room for; tells whether there may be more.
    pub(super) async fn read_ahead(&mut self, now: Now) -> bool {
        let Some(ends) = self.shared.log.ends(&self.definition.topic).ok().filter(|_| self.is_of_its_topic()) else {
            let name = &self.definition.topic;
            self.end(&|| Failure::new(Kind::NotFound, "TOPIC_NOT_FOUND", format!("topic {name} was deleted")));
            return false;
        };
        self.group.grow(ends.len());
        self.ahead.resize_with(ends.len().max(self.ahead.len()), Ahead::default);
        self.tallies.resize_with(self.ahead.len(), Tally::default);
        self.ends = ends.iter().map(|end| end.get()).collect();
        let mut again = self.lose_what_is_gone(now);
        for (partition, end) in ends.into_iter().map(Offset::get).enumerate() {
            if self.failing.get(&partition).is_some_and(|(_, at)| *at > now.monotonic) {
                continue;
            }
            let outcome = match self.group.wants(partition) {
                Some((from, most)) if from < end => self.read(partition, from, end, most).await,
                wanted => {
                    if wanted.is_some() {
                        self.caught_up(partition, end);
                    }
                    self.count(partition, end).await
                }
            };
            match outcome {
                Ok(more) => again |= more,
                Err(failure) => self.fails(partition, &failure),
            }
        }
        again
    }

    async fn read(&mut self, partition: usize, from: u64, end: u64, most: u32) -> Result<bool, Failure> {
        let number = u32::try_from(partition).unwrap_or(u32::MAX);
        let owner = self.group.members().owner(partition).and_then(|(member, _)| self.joined.get(&member));
        let ahead = &mut self.ahead[partition];
        if ahead.falls_behind()
            && let Some(joined) = owner
        {
            joined.outbox.note(number, Note::FellBehind(from, end));
        }
        let has_owner = owner.is_some();
        let filter = self.definition.config.filter.as_ref();
        let read = ahead.read(&self.source, filter, number, (from, end), most).await?;
        if !has_owner && read.end > from {
            ahead.rest();
        }
        self.failing.remove(&partition);
        if read.is_removed {
            // Counted in the next step, by where the partition begins.
            return Ok(true);
        }
        self.group.learn(partition, &read.known, read.end);
        let (next, progress) = (self.group.next(partition), self.group.progress(partition));
        let learnt = read.known.iter().filter(|known| known.offset < next && !progress.is_done(known.offset));
        self.tallies[partition].pass(next, learnt.count() as u64);
        Ok(true)
    }

    /// Of what came a moment ago it is known at once whether a filter means it; of much that came it is found out by and by.
    pub(super) async fn look_before_telling(&mut self, now: Now) {
        let is_filtered = self.definition.config.filter.is_some();
        self.lose_what_is_gone(now);
        for _ in 0..LOOKS {
            if !is_filtered || !self.read_ahead(now).await {
                return;
            }
        }
    }

    /// Counts what a filter leaves where the group does not read on; tells whether there may be more.
    async fn count(&mut self, partition: usize, end: u64) -> Result<bool, Failure> {
        let Some(filter) = &self.definition.config.filter else { return Ok(false) };
        let tally = &mut self.tallies[partition];
        tally.pass(self.group.next(partition), 0);
        let (number, progress) = (u32::try_from(partition).unwrap_or(u32::MAX), self.group.progress(partition));
        tally.count(&self.source, filter, number, end, |offset| progress.is_done(offset)).await
    }

    /// Events of a partition that are not done.
    pub(super) fn lag(&self, partition: usize, end: u64) -> u64 {
        let progress = self.group.progress(partition);
        match self.tallies.get(partition).filter(|_| self.definition.config.filter.is_some()) {
            Some(tally) => self.group.undone(partition) + tally.ahead(end),
            None => end.saturating_sub(progress.low()).saturating_sub(progress.done_above_low()),
        }
    }

    /// Looks where the partitions begin, and counts what went before it was done; tells whether there is a loss to be told.
    fn lose_what_is_gone(&mut self, now: Now) -> bool {
        let firsts = if self.is_of_its_topic() { self.shared.log.firsts(&self.definition.topic) } else { return false };
        let before = self.group.lost_in_all();
        for (partition, first) in firsts.unwrap_or_default().into_iter().map(Offset::get).enumerate().take(self.group.partitions()) {
            self.group.lose(partition, first, now);
        }
        let lost = self.group.lost_in_all() - before;
        if lost > 0 {
            warn!(group = %self.definition.name, lost, "records were removed before a group had done them");
        }
        lost > 0
    }

    /// A member could not be given what was delivered to it.
    pub(super) fn gone(&mut self, member: MemberId, delivery: DeliveryRef, now: Now) {
        let (partition, offset) = delivery.at;
        let firsts = self.shared.log.firsts(&self.definition.topic).unwrap_or_default();
        let is_removed = firsts.get(partition as usize).is_some_and(|first| offset < first.get());
        let is_done = partition as usize >= self.group.partitions() || self.group.progress(partition as usize).is_done(offset);
        // Handed back it is found to be lost. A parked event is done already, and one that went with its stream is nobody's any more.
        let verdict = if is_removed && !is_done { Verdict::HandBack } else { Verdict::Done };
        drop(self.group.settle(member, &[delivery], false, &verdict, now));
    }

    fn caught_up(&mut self, partition: usize, end: u64) {
        let Some(joined) = self.group.members().owner(partition).and_then(|(member, _)| self.joined.get(&member)) else { return };
        if !std::mem::replace(&mut self.ahead[partition].live, true) {
            joined.outbox.note(u32::try_from(partition).unwrap_or(u32::MAX), Note::CaughtUp(end));
        }
    }

    /// A partition cannot be read: others go on.
    fn fails(&mut self, partition: usize, failure: &Failure) {
        let at = self.shared.clock.monotonic() + READ_AGAIN;
        if self.failing.insert(partition, (failure.message.clone(), at)).is_none() {
            warn!(group = %self.definition.name, partition, "a group cannot read: {failure}");
        }
    }
}
