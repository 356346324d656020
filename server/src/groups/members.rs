//! Who is in a group, what each may still be sent, and which partitions are whose.
//!
//! Pure. Called by [`super::group`]. Invariant: while there is a member, each partition has exactly one owner, and the shares
//! differ by one at most. A change moves as few partitions as that needs.

use std::collections::BTreeMap;

/// A member as the group knows it; rises with each that joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u64);

/// What a member may be sent, or takes in addition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credit {
    /// Events.
    pub events: u64,
    /// Bytes; below zero after an event that was larger than what was left.
    pub bytes: i64,
}

impl Credit {
    /// The most that may be open at once.
    pub const MAX: Self = Self { events: 10_000, bytes: 64 << 20 };

    fn plus(self, more: Self) -> Self {
        let events = self.events.saturating_add(more.events).min(Self::MAX.events);
        let bytes = self.bytes.saturating_add(more.bytes.max(0)).min(Self::MAX.bytes);
        Self { events, bytes }
    }
}

/// A member.
#[derive(Clone, Debug)]
pub struct Member {
    /// What it may still be sent.
    pub credit: Credit,
    /// Deliveries that it has not settled.
    pub in_flight: usize,
    /// Its partitions, in order.
    pub partitions: Vec<u32>,
    /// Whether it knows them.
    told: bool,
}

impl Member {
    /// Whether it may be sent anything.
    pub const fn takes(&self) -> bool {
        self.credit.events > 0 && self.credit.bytes > 0
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Members {
    members: BTreeMap<MemberId, Member>,
    owners: Vec<Option<MemberId>>,
}

impl Members {
    /// Nobody, for so many partitions.
    pub fn of(partitions: usize) -> Self {
        Self { members: BTreeMap::new(), owners: vec![None; partitions] }
    }

    /// Adds a member; some partitions become its own.
    pub fn join(&mut self, id: MemberId, credit: Credit) {
        let credit = Credit::default().plus(credit);
        self.members.insert(id, Member { credit, in_flight: 0, partitions: Vec::new(), told: false });
        self.share_out();
    }

    /// Removes a member; its partitions become others'.
    pub fn leave(&mut self, id: MemberId) {
        if self.members.remove(&id).is_some() {
            self.share_out();
        }
    }

    /// There are more partitions.
    pub fn grow(&mut self, partitions: usize) {
        if partitions > self.owners.len() {
            self.owners.resize(partitions, None);
            self.share_out();
        }
    }

    /// A member takes more.
    pub fn grant(&mut self, id: MemberId, more: Credit) {
        if let Some(member) = self.members.get_mut(&id) {
            member.credit = member.credit.plus(more);
        }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// All, in the order in which they joined.
    pub fn iter(&self) -> impl Iterator<Item = (MemberId, &Member)> {
        self.members.iter().map(|(id, member)| (*id, member))
    }

    /// A member.
    pub fn get_mut(&mut self, id: MemberId) -> Option<&mut Member> {
        self.members.get_mut(&id)
    }

    /// Whose a partition is.
    pub fn owner(&self, partition: usize) -> Option<(MemberId, &Member)> {
        let id = (*self.owners.get(partition)?)?;
        self.members.get(&id).map(|member| (id, member))
    }

    /// Members whose partitions changed since the last call, with all that are theirs now.
    pub fn take_untold(&mut self) -> Vec<(MemberId, Vec<u32>)> {
        let untold = self.members.iter_mut().filter(|(_, member)| !member.told);
        untold
            .map(|(id, member)| {
                member.told = true;
                (*id, member.partitions.clone())
            })
            .collect()
    }

    fn share_out(&mut self) {
        let count = self.members.len();
        if count == 0 {
            self.owners.fill(None);
            return;
        }
        let (share, extra) = (self.owners.len() / count, self.owners.len() % count);
        // Who has one more than others keeps it as long as there is one to spare.
        let mut had: Vec<(usize, MemberId)> = self.members.iter().map(|(id, member)| (member.partitions.len(), *id)).collect();
        had.sort_by(|(a, first), (b, second)| b.cmp(a).then(first.cmp(second)));
        let mut room: BTreeMap<MemberId, usize> =
            had.into_iter().enumerate().map(|(place, (_, id))| (id, share + usize::from(place < extra))).collect();
        let mut free = Vec::new();
        for (partition, owner) in self.owners.iter().enumerate() {
            match owner.and_then(|id| room.get_mut(&id)).filter(|left| **left > 0) {
                Some(left) => *left -= 1,
                None => free.push(partition),
            }
        }
        let mut takers = room.into_iter().flat_map(|(id, left)| std::iter::repeat_n(id, left));
        for partition in free {
            self.owners[partition] = takers.next();
        }
        let mut shares: BTreeMap<MemberId, Vec<u32>> = BTreeMap::new();
        for (partition, owner) in (0..).zip(&self.owners) {
            shares.entry(owner.unwrap_or(MemberId(0))).or_default().push(partition);
        }
        for (id, member) in &mut self.members {
            let partitions = shares.remove(id).unwrap_or_default();
            member.told &= member.partitions == partitions;
            member.partitions = partitions;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(members: &Members) -> Vec<Vec<u32>> {
        members.iter().map(|(_, member)| member.partitions.clone()).collect()
    }

    #[test]
    fn partitions_are_shared_evenly_and_move_no_more_than_they_must() {
        let mut members = Members::of(5);
        members.join(MemberId(1), Credit::default());
        assert_eq!(members.take_untold(), [(MemberId(1), vec![0, 1, 2, 3, 4])]);
        members.join(MemberId(2), Credit::default());
        assert_eq!(shares(&members), [vec![0, 1, 2], vec![3, 4]]);
        members.join(MemberId(3), Credit::default());
        assert_eq!(shares(&members), [vec![0, 1], vec![3, 4], vec![2]]);
        assert_eq!(members.take_untold().len(), 3);
        members.leave(MemberId(1));
        assert_eq!(shares(&members), [vec![0, 3, 4], vec![1, 2]]);
        for id in 4..=9 {
            members.join(MemberId(id), Credit::default());
        }
        let mut counts: Vec<usize> = shares(&members).iter().map(Vec::len).collect();
        counts.sort_unstable();
        assert_eq!(counts, [0, 0, 0, 1, 1, 1, 1, 1], "more members than partitions: some have none");
        (2..=9).for_each(|id| members.leave(MemberId(id)));
        assert!(members.owner(0).is_none());
    }

    #[test]
    fn who_keeps_its_partitions_is_not_told_again() {
        let mut members = Members::of(2);
        members.join(MemberId(1), Credit::default());
        members.join(MemberId(2), Credit::default());
        members.take_untold();
        members.join(MemberId(3), Credit::default());
        assert_eq!(members.take_untold(), [(MemberId(3), vec![])]);
    }

    #[test]
    fn credit_is_cut_at_its_bound_and_a_debt_is_paid_back_first() {
        let mut members = Members::of(1);
        members.join(MemberId(1), Credit { events: u64::MAX, bytes: i64::MAX });
        assert_eq!(members.get_mut(MemberId(1)).unwrap().credit, Credit::MAX);
        members.get_mut(MemberId(1)).unwrap().credit.bytes = -5;
        members.grant(MemberId(1), Credit { events: 0, bytes: 5 });
        assert!(!members.owner(0).unwrap().1.takes());
        members.grant(MemberId(1), Credit { events: 0, bytes: 1 });
        assert!(members.owner(0).unwrap().1.takes());
    }
}
