//! What operators do to a group: look at it, move it, end it. The other part of [`Runner`].

use std::collections::BTreeMap;

use foldlog_log::{Durability, TopicId};
use tracing::info;

use super::{
    config::{GroupChanges, GroupConfig},
    group::Group,
    members::{Member, MemberId},
    progress::Progress,
    record::{Definition, Key},
    runner::{Runner, failed, random},
    source::Ahead,
    status::{MemberStatus, PartitionStatus, Snapshot, Status},
    tally::Tally,
};
use crate::failure::{Failure, Kind};

impl Runner {
    /// Puts the numbers in view.
    pub(super) fn show(&self) {
        let mut done = 0;
        for partition in 0..self.group.partitions() {
            let progress = self.group.progress(partition);
            done += match self.ends.get(partition).filter(|_| self.definition.config.filter.is_some()) {
                // What is not meant counts as done, wherever it lies.
                Some(end) => end.saturating_sub(self.lag(partition, *end)),
                None => progress.low() + progress.done_above_low(),
            };
        }
        *self.snapshot.lock() = Snapshot {
            topic: self.definition.topic.clone(),
            topic_id: self.definition.topic_id,
            done,
            oldest: self.group.oldest(),
            members: self.group.members().len(),
            in_flight: self.group.in_flight(),
            parked: self.group.parked(),
            redeliveries: self.group.redeliveries(),
            lost: self.group.lost_in_all(),
        };
    }

    /// How far the group is.
    pub(super) fn status(&self) -> Result<Status, Failure> {
        // Of a topic that was deleted nothing is left to do.
        let ends = if self.is_of_its_topic() { self.shared.log.ends(&self.definition.topic)? } else { Vec::new() };
        let mut partitions = Vec::new();
        for (partition, end) in ends.into_iter().enumerate().take(self.group.partitions()) {
            let progress: &Progress = self.group.progress(partition);
            let lag = self.lag(partition, end.get());
            let error = self.failing.get(&partition).map(|(reason, _)| reason.clone());
            let lost = self.group.lost(u32::try_from(partition).unwrap_or(u32::MAX)).copied();
            partitions.push(PartitionStatus { offset: progress.low(), end: end.get(), lag, error, lost });
        }
        let member = |(id, member): (MemberId, &Member)| MemberStatus {
            consumer: self.joined.get(&id).map(|joined| joined.consumer.clone()).unwrap_or_default(),
            partitions: member.partitions.clone(),
            in_flight: member.in_flight,
        };
        Ok(Status {
            definition: self.definition.clone(),
            members: self.group.members().iter().map(member).collect(),
            partitions,
            oldest: self.group.oldest(),
            in_flight: self.group.in_flight(),
            parked: self.group.parked(),
            redeliveries: self.group.redeliveries(),
            lost: self.group.lost_in_all(),
            topic_deleted: !self.is_of_its_topic(),
        })
    }

    /// Whether its topic is there, and no other of its name.
    pub(super) fn is_of_its_topic(&self) -> bool {
        self.shared.log.topic(&self.definition.topic).is_ok_and(|topic| topic.id == self.definition.topic_id)
    }

    fn without_members(&self) -> Result<(), Failure> {
        match self.group.members().len() {
            0 => Ok(()),
            count => {
                let message = format!("group {} has members ({count}); stop them first", self.definition.name);
                Err(Failure::new(Kind::Precondition, "GROUP_IN_USE", message))
            }
        }
    }

    /// Goes on under other settings, and returns them.
    pub(super) async fn alter(&mut self, changes: GroupChanges) -> Result<GroupConfig, Failure> {
        let config = self.definition.config.altered(changes);
        if config == self.definition.config {
            return Ok(config);
        }
        let fixed = config.differs_in_what_is_fixed(&self.definition.config);
        if let Some(setting) = fixed {
            self.without_members().map_err(|failure| Failure { message: format!("{setting}: {}", failure.message), ..failure })?;
        }
        let definition = Definition { config, ..self.definition.clone() };
        let record = definition.record().map_err(failed)?;
        self.written_to = self.shared.append(vec![record], Durability::Synced).await?;
        self.definition = definition;
        self.group.alter(self.definition.config.clone());
        if fixed.is_some() {
            self.forget_what_was_read();
        }
        info!(group = %self.definition.name, "a group was altered");
        Ok(self.definition.config.clone())
    }

    /// Reads from files and memory anew.
    fn forget_what_was_read(&mut self) {
        self.ahead.iter_mut().for_each(|ahead| *ahead = Ahead::default());
        self.tallies.iter_mut().for_each(|tally| *tally = Tally::default());
        self.failing.clear();
    }

    /// Begins anew at these offsets, under keys of another generation.
    pub(super) async fn reset(&mut self, topic_id: TopicId, starts: &[u64]) -> Result<(), Failure> {
        self.without_members()?;
        let mut old = self.progress_keys();
        let is_another = topic_id != self.definition.topic_id;
        if is_another {
            old.extend(self.parked_keys());
        }
        // What was put aside was of the topic that was deleted, and goes with the group's id.
        let id = if is_another { random() } else { self.definition.id };
        let definition = Definition { id, generation: random(), topic_id, ..self.definition.clone() };
        let mut records = vec![definition.record().map_err(failed)?];
        records.extend((0..).zip(starts).map(|(partition, start)| definition.low(partition, *start)));
        // What is parked stays, and must be written before the group begins anew.
        self.remember(self.now()).await?;
        if !self.unwritten.is_empty() {
            return Err(Failure::new(Kind::Exhausted, "OVERLOADED", "the log takes nothing; retry later"));
        }
        self.written_to = self.shared.append(records, Durability::Synced).await?;
        self.definition = definition;
        let progress = starts.iter().map(|start| Progress::restore(*start, [])).collect();
        let mut parked = std::mem::take(&mut self.group.parked);
        if is_another {
            parked.clear();
        }
        self.group = Group::new(self.definition.config.clone(), progress, parked, BTreeMap::new(), self.group.next_lease());
        self.ahead.resize_with(starts.len(), Ahead::default);
        self.forget_what_was_read();
        self.shared.sweep(old);
        info!(group = %self.definition.name, "a group was reset");
        Ok(())
    }

    /// Ends the group and all that it kept.
    pub(super) async fn delete(&mut self) -> Result<(), Failure> {
        self.without_members()?;
        self.shared.append(vec![Key::Group(self.definition.name.clone()).end()], Durability::Synced).await?;
        let mut old = self.progress_keys();
        old.extend(self.parked_keys());
        self.shared.sweep(old);
        info!(group = %self.definition.name, "a group was deleted");
        Ok(())
    }

    /// Keys of what is put aside.
    fn parked_keys(&self) -> impl Iterator<Item = Key> {
        self.group.parked.keys().map(|at| Key::Parked(self.definition.name.clone(), self.definition.id, *at))
    }

    /// Keys of what is written of the progress.
    fn progress_keys(&self) -> Vec<Key> {
        let Definition { name, generation, .. } = &self.definition;
        let mut keys = Vec::new();
        for partition in 0..self.group.partitions() {
            let number = u32::try_from(partition).unwrap_or(u32::MAX);
            keys.push(Key::Low(name.clone(), *generation, number));
            keys.extend(self.group.lost(number).map(|_| Key::Lost(name.clone(), *generation, number)));
            let written = self.group.progress(partition).written();
            keys.extend(written.map(|bucket| Key::Bucket(name.clone(), *generation, number, bucket)));
        }
        keys
    }
}
