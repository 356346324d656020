//! What a domain decides: a state folded from events, and commands that become events or are refused.
//!
//! Pure: no input or output, no clock, no randomness; what a decision needs of these stands in the command. So the same type runs
//! in a unit test ([`crate::scenario`]) and against a server ([`crate::aggregate`]), where a decision that lost a race is simply
//! made again on what really happened.

use serde::{Serialize, de::DeserializeOwned};

/// A state that events build up and that decides about commands. `Default` is the state before the first event.
///
/// ```
/// use foldlog_sdk::{Decider, scenario::given};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// enum Switched { On, Off }
///
/// #[derive(Default)]
/// struct Lamp { lit: bool }
///
/// impl Decider for Lamp {
///     type Command = bool;
///     type Event = Switched;
///     type Refusal = std::convert::Infallible;
///
///     fn evolve(&mut self, event: &Switched) {
///         self.lit = *event == Switched::On;
///     }
///
///     fn decide(&self, wanted: &bool) -> Result<Vec<Switched>, Self::Refusal> {
///         Ok(match (self.lit, wanted) {
///             (false, true) => vec![Switched::On],
///             (true, false) => vec![Switched::Off],
///             _ => vec![],
///         })
///     }
/// }
///
/// given::<Lamp>([Switched::On]).when(&false).then([Switched::Off]);
/// given::<Lamp>([Switched::On]).when(&true).then_nothing();
/// ```
pub trait Decider: Default {
    /// What is asked for.
    type Command;
    /// What happened: an enum in serde's default form, see [`crate::codec`].
    type Event: Serialize + DeserializeOwned;
    /// Why a command is refused, in the domain's words.
    type Refusal;

    /// Folds one event into the state. Events are facts: this neither fails nor refuses.
    fn evolve(&mut self, event: &Self::Event);

    /// What happens because of `command`, in order; nothing, if it changes nothing.
    ///
    /// # Errors
    /// The refusal; then nothing happens.
    fn decide(&self, command: &Self::Command) -> Result<Vec<Self::Event>, Self::Refusal>;
}
