//! How deliveries of a group end: settled, too late, or with their member.

use std::time::Duration;

use super::{
    config::OnExhausted,
    delivery::{At, DeliveryRef, Now, Verdict},
    group::{Due, Entry, Group},
    members::MemberId,
    parked::{Parked, ParkedState},
};

const TOO_LATE: &str = "not acknowledged in time";
const MEMBER_GONE: &str = "the member's connection ended";

impl Group {
    /// A member is gone, with its leases. One that says so hands its events back; of one that breaks off each counts as tried.
    pub fn leave(&mut self, member: MemberId, hands_back: bool, now: Now) {
        for partition in 0..self.partitions.len() {
            let flights = self.partitions[partition].flights.iter();
            let its: Vec<u64> = flights.filter(|(_, flight)| flight.member == member).map(|(offset, _)| *offset).collect();
            for offset in its {
                let verdict = if hands_back { Verdict::HandBack } else { Verdict::Retry(Some(Duration::ZERO), MEMBER_GONE.to_owned()) };
                self.finish(partition, offset, verdict, now);
            }
        }
        self.members.leave(member);
    }

    /// A member settles deliveries, with `cumulative` also its earlier ones in their partitions. Returns those whose lease has ended, of
    /// which nothing is changed.
    pub fn settle(&mut self, member: MemberId, refs: &[DeliveryRef], cumulative: bool, verdict: &Verdict, now: Now) -> Vec<DeliveryRef> {
        let mut stale = Vec::new();
        for named in refs {
            let Some((partition, _)) = self.held(member, *named) else {
                stale.push(*named);
                continue;
            };
            let offset = named.at.1;
            if cumulative {
                let earlier = self.partitions[partition].flights.range(..offset);
                let its: Vec<u64> = earlier.filter(|(_, flight)| flight.member == member).map(|(offset, _)| *offset).collect();
                its.into_iter().for_each(|offset| self.finish(partition, offset, verdict.clone(), now));
            }
            self.finish(partition, offset, verdict.clone(), now);
        }
        stale
    }

    /// A member needs more time. Returns deliveries whose lease has ended.
    pub fn extend(&mut self, member: MemberId, refs: &[DeliveryRef], now: Now) -> Vec<DeliveryRef> {
        let until = now.monotonic + self.config.ack_timeout;
        let mut stale = Vec::new();
        for named in refs {
            let Some((partition, before)) = self.held(member, *named) else {
                stale.push(*named);
                continue;
            };
            self.leases.remove(&(before, named.at));
            self.leases.insert((until, named.at));
            if let Some(flight) = self.partitions[partition].flights.get_mut(&named.at.1) {
                flight.until = until;
            }
        }
        stale
    }

    /// The partition of a delivery whose lease is valid, and until when it is.
    fn held(&self, member: MemberId, named: DeliveryRef) -> Option<(usize, Duration)> {
        let partition = named.at.0 as usize;
        let flight = self.partitions.get(partition)?.flights.get(&named.at.1)?;
        (flight.member == member && flight.lease == named.lease).then_some((partition, flight.until))
    }

    /// Ends leases whose time is over.
    pub fn tick(&mut self, now: Now) {
        while let Some((_, (partition, offset))) = self.leases.first().copied().filter(|(until, _)| *until <= now.monotonic) {
            self.finish(partition as usize, offset, Verdict::Retry(None, TOO_LATE.to_owned()), now);
        }
        while self.waiting.first().is_some_and(|(due, _)| *due <= now.monotonic) {
            self.waiting.pop_first();
        }
    }

    /// Ends a delivery.
    fn finish(&mut self, partition: usize, offset: u64, verdict: Verdict, now: Now) {
        let held = &mut self.partitions[partition];
        let Some(flight) = held.flights.remove(&offset) else { return };
        let at = (u32::try_from(partition).unwrap_or(u32::MAX), offset);
        held.busy.remove(&flight.entry.lane);
        self.leases.remove(&(flight.until, at));
        self.in_flight -= 1;
        if let Some(member) = self.members.get_mut(flight.member) {
            member.in_flight -= 1;
        }
        let attempts = self.attempts(at, flight.entry.replayed);
        match verdict {
            Verdict::Done | Verdict::Skip => self.complete(at, flight.entry.replayed),
            Verdict::Park(reason) => self.put_aside(at, flight.entry, ParkedState::Parked, reason, now),
            Verdict::Block(reason) => self.put_aside(at, flight.entry, ParkedState::Blocking, reason, now),
            Verdict::HandBack => {
                self.set_attempts(at, flight.entry.replayed, attempts.saturating_sub(1));
                self.wait(at, flight.entry, Due::Now);
            }
            Verdict::Retry(_, reason) if attempts >= self.config.max_attempts => match self.config.on_exhausted {
                OnExhausted::Park => self.put_aside(at, flight.entry, ParkedState::Parked, reason, now),
                OnExhausted::BlockStream => self.put_aside(at, flight.entry, ParkedState::Blocking, reason, now),
                OnExhausted::Skip => self.complete(at, flight.entry.replayed),
            },
            Verdict::Retry(delay, _) => {
                let due = now.monotonic + delay.unwrap_or_else(|| self.config.backoff(attempts));
                self.wait(at, flight.entry, Due::At(due));
            }
        }
    }

    /// An event is done.
    pub(super) fn complete(&mut self, at: At, replayed: bool) {
        if replayed {
            self.forget_parked(at);
        } else {
            self.partitions[at.0 as usize].progress.complete(at.1);
        }
    }

    fn put_aside(&mut self, at: At, entry: Entry, state: ParkedState, reason: String, now: Now) {
        if !self.may_park(at) {
            // Nothing is lost: it stays with the group until there is room.
            return self.wait(at, entry, Due::At(now.monotonic + self.config.backoff_max));
        }
        let attempts = self.attempts(at, entry.replayed);
        self.park(at, Parked { state, attempts, reason, at: now.wall });
        if state == ParkedState::Blocking {
            self.wait(at, entry, Due::Never);
        } else if !entry.replayed {
            self.complete(at, false);
        }
    }

    fn wait(&mut self, at: At, entry: Entry, due: Due) {
        if let Due::At(due) = due {
            self.waiting.insert((due, at));
        }
        self.partitions[at.0 as usize].pending.insert(at.1, Entry { due, ..entry });
    }
}
