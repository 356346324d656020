//! Tests of a [`Decider`] in three words and without a server: *given* what happened, *when* this is asked, *then* that happens.
//!
//! Every event that passes is also encoded and decoded as on its way through the log, so a scenario that holds here does not fail
//! later on an event that cannot be stored. The functions panic where the scenario does not hold: they are assertions.

use std::fmt::Debug;

use crate::{codec, decider::Decider};

/// Starts from what happened before; `[]` for nothing.
///
/// # Panics
/// If an event does not survive encoding and decoding.
#[track_caller]
pub fn given<D: Decider>(events: impl IntoIterator<Item = D::Event>) -> Given<D> {
    let mut state = D::default();
    for event in events {
        state.evolve(&stored(&event));
    }
    Given { state }
}

/// A state to decide on.
#[derive(Debug)]
#[must_use]
pub struct Given<D> {
    state: D,
}

impl<D: Decider> Given<D> {
    /// Decides about `command`.
    pub fn when(self, command: &D::Command) -> When<D> {
        let decided = self.state.decide(command);
        When { state: self.state, decided }
    }
}

/// A decision to judge.
#[derive(Debug)]
#[must_use = "say what should have happened: then, then_nothing or then_refused"]
pub struct When<D: Decider> {
    state: D,
    decided: Result<Vec<D::Event>, D::Refusal>,
}

impl<D: Decider> When<D>
where
    D::Event: Debug + PartialEq,
    D::Refusal: Debug,
{
    /// Exactly these events happen; returns the state after them.
    ///
    /// # Panics
    /// If the command was refused or something else happens.
    #[track_caller]
    pub fn then(self, expected: impl IntoIterator<Item = D::Event>) -> D {
        let Self { mut state, decided } = self;
        let expected: Vec<_> = expected.into_iter().collect();
        match decided {
            Ok(events) => assert_eq!(events, expected, "other events happen (left) than expected (right)"),
            Err(refusal) => panic!("the command was refused: {refusal:?}; expected {expected:?}"),
        }
        for event in &expected {
            let event_back = stored(event);
            assert_eq!(&event_back, event, "the event changes on its way through the log (left)");
            state.evolve(&event_back);
        }
        state
    }

    /// The command is accepted and nothing happens; returns the state.
    ///
    /// # Panics
    /// If the command was refused or something happens.
    #[track_caller]
    pub fn then_nothing(self) -> D {
        self.then([])
    }

    /// The command is refused with `expected`.
    ///
    /// # Panics
    /// If it was accepted, or refused for another reason.
    #[track_caller]
    pub fn then_refused(self, expected: D::Refusal)
    where
        D::Refusal: PartialEq,
    {
        match self.decided {
            Err(refusal) => assert_eq!(refusal, expected, "refused for another reason (left) than expected (right)"),
            Ok(events) => panic!("the command was accepted: {events:?}; expected the refusal {expected:?}"),
        }
    }
}

/// The event as it comes back from the log.
#[track_caller]
#[expect(clippy::expect_used, reason = "a scenario is an assertion: an event that cannot be stored fails the test that made it")]
fn stored<E: serde::Serialize + serde::de::DeserializeOwned>(event: &E) -> E {
    let (kind, data) = codec::encode(event).expect("the event cannot be stored");
    codec::decode(&kind, &data).expect("the stored event cannot be read back")
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Counted {
        Up { by: u32 },
        Forgetful(#[serde(skip)] u32),
    }

    #[derive(Debug, PartialEq)]
    struct TooMuch;

    #[derive(Debug, Default, PartialEq)]
    struct Counter(u32);

    impl Decider for Counter {
        type Command = u32;
        type Event = Counted;
        type Refusal = TooMuch;

        fn evolve(&mut self, event: &Counted) {
            match event {
                Counted::Up { by } | Counted::Forgetful(by) => self.0 += by,
            }
        }

        fn decide(&self, command: &u32) -> Result<Vec<Counted>, TooMuch> {
            match command {
                0 => Ok(vec![]),
                99 => Ok(vec![Counted::Forgetful(99)]),
                by if self.0 + by > 10 => Err(TooMuch),
                by => Ok(vec![Counted::Up { by: *by }]),
            }
        }
    }

    #[test]
    fn a_scenario_that_holds_returns_the_state() {
        assert_eq!(given::<Counter>([Counted::Up { by: 2 }]).when(&3).then([Counted::Up { by: 3 }]), Counter(5));
        assert_eq!(given::<Counter>([Counted::Up { by: 2 }]).when(&0).then_nothing(), Counter(2));
        given::<Counter>([Counted::Up { by: 9 }]).when(&2).then_refused(TooMuch);
    }

    #[test]
    #[should_panic(expected = "other events happen")]
    fn other_events_fail_the_scenario() {
        given::<Counter>([]).when(&3).then([Counted::Up { by: 4 }]);
    }

    #[test]
    #[should_panic(expected = "the command was refused: TooMuch")]
    fn a_refusal_fails_a_scenario_that_expects_events() {
        given::<Counter>([]).when(&11).then([Counted::Up { by: 11 }]);
    }

    #[test]
    #[should_panic(expected = "the command was accepted")]
    fn acceptance_fails_a_scenario_that_expects_a_refusal() {
        given::<Counter>([]).when(&3).then_refused(TooMuch);
    }

    #[test]
    #[should_panic(expected = "changes on its way through the log")]
    fn an_event_that_the_log_would_change_fails_the_scenario() {
        given::<Counter>([]).when(&99).then([Counted::Forgetful(99)]);
    }
}
