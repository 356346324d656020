//! What members of a consumer group were given and said, and whether that may be: pure, and shared by all members over all cycles.
//!
//! Called by [`crate::members`]. What was acknowledged and confirmed never comes again, counts of deliveries outlive the server, no event of a
//! stream overtakes another, no event is held by two members, and in the end every event was given to somebody.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::check::{Seen, Verdict};

/// How long a lease lasts, as the group is told.
pub const ACK_TIMEOUT_MS: i64 = 2_000;
/// How far the server's two ways of telling time may be apart within a lease.
const SLACK_MS: i64 = 100;

/// Partition and offset.
pub type At = (u32, u64);

/// A delivery as it came.
#[derive(Clone, Debug)]
pub struct Given {
    /// Where the event lies.
    pub at: At,
    /// Its stream.
    pub stream: String,
    /// Its version there.
    pub version: u64,
    /// Which delivery of it this is said to be.
    pub attempt: u32,
    /// When the lease ends, by the server's clock.
    pub until_ms: i64,
}

#[derive(Debug, Default)]
struct Event {
    attempt: u32,
    /// Somebody said so; whether the server heard it is not known.
    is_said_to_be_done: bool,
    /// And it was confirmed.
    is_done: bool,
    holder: Option<(u64, i64)>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Deliveries {
    events: HashMap<At, Event>,
    /// By stream, the newest version that was acknowledged.
    streams: HashMap<String, u64>,
    /// What members said and was not confirmed, by member: number of the message, and what it named.
    said: BTreeMap<u64, VecDeque<(u64, Vec<At>)>>,
    members: u64,
    confirmed: u64,
    verdict: Verdict,
}

impl Deliveries {
    /// Somebody joins; a number for it.
    pub fn join(&mut self) -> u64 {
        self.members += 1;
        self.members
    }

    /// Acknowledgements that were confirmed.
    pub const fn confirmed(&self) -> u64 {
        self.confirmed
    }

    /// What there is to object to since the last call.
    pub fn take_verdict(&mut self) -> Verdict {
        std::mem::take(&mut self.verdict)
    }

    /// A member is given an event.
    pub fn given(&mut self, member: u64, given: &Given) {
        let Given { at, stream, version, attempt, until_ms } = given;
        let event = self.events.entry(*at).or_default();
        if event.is_done {
            self.verdict.repeated(format!("member {member} is given {given:?}, which was acknowledged"));
        }
        if *attempt <= event.attempt {
            self.verdict.gap(format!("{given:?} was delivered {} times before", event.attempt));
        }
        let since = until_ms - ACK_TIMEOUT_MS;
        if let Some((holder, until)) = event.holder.filter(|(holder, until)| *holder != member && *until > since + SLACK_MS) {
            self.verdict.repeated(format!("member {member} is given {given:?}, which {holder} holds until {until}"));
        }
        let before = self.streams.get(stream).copied().unwrap_or_default();
        if *version > before + 1 {
            self.verdict.gap(format!("{given:?} overtakes version {}", before + 1));
        }
        (event.attempt, event.holder) = (*attempt, Some((member, *until_ms)));
    }

    /// A member says that events are done, in a message with this number.
    pub fn acknowledges(&mut self, member: u64, sequence: u64, all: &[Given]) {
        for given in all {
            self.gives_back(given);
            self.events.entry(given.at).or_default().is_said_to_be_done = true;
            let newest = self.streams.entry(given.stream.clone()).or_default();
            *newest = given.version.max(*newest);
        }
        self.said.entry(member).or_default().push_back((sequence, all.iter().map(|given| given.at).collect()));
    }

    /// A member says that it is not done with an event.
    pub fn gives_back(&mut self, given: &Given) {
        self.events.entry(given.at).or_default().holder = None;
    }

    /// What a member said up to this number is confirmed, but for deliveries whose lease had ended.
    pub fn confirms(&mut self, member: u64, sequence: u64, stale: &[At]) {
        let said = self.said.entry(member).or_default();
        while said.front().is_some_and(|(number, _)| *number <= sequence) {
            for at in said.pop_front().into_iter().flat_map(|(_, all)| all).filter(|at| !stale.contains(at)) {
                self.events.entry(at).or_default().is_done = true;
                self.confirmed += 1;
            }
        }
    }

    /// A member is gone: it holds nothing, and of what was not confirmed nobody knows.
    pub fn leaves(&mut self, member: u64) {
        self.said.remove(&member);
        for event in self.events.values_mut() {
            event.holder = event.holder.filter(|(holder, _)| *holder != member);
        }
    }

    /// Checks that every event was given to somebody who said that it is done.
    pub fn all(&self, events: &[Seen]) -> Verdict {
        let mut verdict = Verdict::default();
        for event in events {
            if !self.events.get(&(event.partition, event.offset)).is_some_and(|known| known.is_said_to_be_done) {
                verdict.lost(format!("no member was done with {event:?}, and the group says that nothing is left"));
            }
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(offset: u64, attempt: u32) -> Given {
        Given { at: (0, offset), stream: "s".to_owned(), version: offset + 1, attempt, until_ms: 10_000 }
    }

    /// Somebody who was given two events of a stream in order, and has acknowledged the first, which was confirmed.
    fn sample() -> Deliveries {
        let mut deliveries = Deliveries::default();
        let member = deliveries.join();
        deliveries.given(member, &given(0, 1));
        deliveries.acknowledges(member, 1, &[given(0, 1)]);
        deliveries.confirms(member, 1, &[]);
        deliveries.given(member, &given(1, 1));
        assert_eq!((deliveries.take_verdict(), deliveries.confirmed()), (Verdict::default(), 1));
        deliveries
    }

    #[test]
    fn what_comes_again_before_it_is_confirmed_is_no_objection() {
        let mut deliveries = sample();
        deliveries.acknowledges(1, 2, &[given(1, 1)]);
        deliveries.leaves(1);
        let other = deliveries.join();
        deliveries.given(other, &given(1, 2));
        deliveries.acknowledges(other, 1, &[given(1, 2)]);
        deliveries.confirms(other, 1, &[(0, 1)]);
        deliveries.given(other, &given(1, 3));
        assert_eq!(deliveries.take_verdict(), Verdict::default());
    }

    #[test]
    fn what_was_confirmed_and_comes_again_is_repeated() {
        let mut deliveries = sample();
        deliveries.given(1, &given(0, 2));
        assert_eq!(deliveries.take_verdict().repeated, 1);
    }

    #[test]
    fn a_count_that_was_forgotten_is_a_gap() {
        let mut deliveries = sample();
        deliveries.leaves(1);
        deliveries.given(2, &given(1, 1));
        assert_eq!(deliveries.take_verdict().gaps, 1);
    }

    #[test]
    fn an_event_that_overtakes_its_stream_is_a_gap() {
        let mut deliveries = sample();
        deliveries.given(1, &given(2, 1));
        assert_eq!(deliveries.take_verdict().gaps, 1);
    }

    #[test]
    fn an_event_that_two_hold_is_repeated_and_one_whose_lease_ended_is_not() {
        let mut deliveries = sample();
        deliveries.given(2, &Given { until_ms: 10_500, ..given(1, 2) });
        assert_eq!(deliveries.take_verdict().repeated, 1);
        deliveries.given(3, &Given { until_ms: 12_500, ..given(1, 3) });
        assert_eq!(deliveries.take_verdict(), Verdict::default());
    }

    #[test]
    fn an_event_that_nobody_was_done_with_is_lost() {
        let mut deliveries = sample();
        let event = |offset| Seen {
            position: offset,
            partition: 0,
            offset,
            stream: "s".to_owned(),
            version: offset + 1,
            op: 0,
            place: 0,
            amount: 1,
        };
        assert_eq!(deliveries.all(&[event(0)]), Verdict::default());
        assert_eq!(deliveries.all(&[event(0), event(1)]).lost, 1);
        deliveries.acknowledges(1, 2, &[given(1, 1)]);
        assert_eq!(deliveries.all(&[event(0), event(1)]), Verdict::default());
    }
}
