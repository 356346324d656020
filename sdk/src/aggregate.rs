//! Deciders against a server: load the stream, decide, append what was decided where the stream still is; if somebody was
//! faster, load what they did and decide again.
//!
//! The append's precondition is the safety: no event is ever written that was decided on another state than the stream's.

use std::{marker::PhantomData, num::NonZeroU64};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    append::Appended,
    client::{Client, Pauses},
    decider::Decider,
    error::Error,
    event::{Expected, NewEvent, Token},
    read::{Beginning, Source},
    snapshot::Snapshot,
};

impl Client {
    /// The aggregates of a topic whose streams `D` decides about.
    #[must_use]
    pub fn aggregates<D: Decider>(&self, topic: impl Into<String>) -> Aggregates<D> {
        Aggregates { client: self.clone(), topic: topic.into(), snapshots: None, decider: PhantomData }
    }
}

/// The aggregates of a topic: one stream each.
#[derive(Debug)]
pub struct Aggregates<D> {
    client: Client,
    topic: String,
    snapshots: Option<Snapshots<D>>,
    decider: PhantomData<fn() -> D>,
}

/// How states become snapshots and back.
#[derive(Debug)]
struct Snapshots<D> {
    schema: String,
    /// Put after so many events.
    every: u64,
    encode: fn(u64, &str, &D) -> Result<Snapshot, Error>,
    decode: fn(&Snapshot) -> Result<D, Error>,
}

impl<D> Clone for Snapshots<D> {
    fn clone(&self) -> Self {
        Self { schema: self.schema.clone(), ..*self }
    }
}

impl<D> Clone for Aggregates<D> {
    fn clone(&self) -> Self {
        let snapshots = self.snapshots.clone();
        Self { client: self.client.clone(), topic: self.topic.clone(), snapshots, decider: PhantomData }
    }
}

/// A state and where its stream stood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded<D> {
    /// Folded from every event up to `version`, or since the stream was deleted.
    pub state: D,
    /// Version of the newest event folded; none: no event.
    pub version: Option<u64>,
}

/// What became of a command that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executed<D, E> {
    /// What happened; empty if the command changed nothing.
    pub events: Vec<E>,
    /// The state after it.
    pub after: Loaded<D>,
    /// The append's answer; none if nothing was to be appended.
    pub appended: Option<Appended>,
    /// How often was decided: more than once if others were faster.
    pub decisions: u32,
}

impl<D, E> Executed<D, E> {
    /// Queries with it reflect what happened; none if nothing was appended.
    #[must_use]
    pub fn token(&self) -> Option<&Token> {
        self.appended.as_ref().map(|appended| &appended.token)
    }
}

/// Why a command did not take effect, or may not have.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError<R> {
    /// The domain refuses it, in its own words.
    #[error("the command was refused: {0}")]
    Refused(R),
    /// The log could not be read or written; see [`Error::class`]. [`Error::Conflict`]: others were faster every time.
    #[error(transparent)]
    Log(#[from] Error),
}

impl<D: Decider + Serialize + DeserializeOwned> Aggregates<D> {
    /// Folds streams from their newest snapshots, and puts one whenever a command has taken a stream past another `every` events.
    ///
    /// `schema` names what a state looks like: give it another name when that changes, and snapshots of the old one are ignored.
    #[must_use]
    pub fn with_snapshots(self, schema: impl Into<String>, every: NonZeroU64) -> Self {
        let snapshots = Snapshots {
            schema: schema.into(),
            every: every.get(),
            encode: |version, schema, state| Snapshot::json(version, schema, state),
            decode: |snapshot| snapshot.decode(),
        };
        Self { snapshots: Some(snapshots), ..self }
    }
}

impl<D: Decider> Aggregates<D> {
    /// Folds a stream from its beginning, or from a snapshot if it has one that is known; one that was deleted from where it began anew.
    ///
    /// # Errors
    /// If it cannot be read, was truncated behind its snapshot, or holds an event that `D` does not know.
    pub async fn load(&self, stream: &str) -> Result<Loaded<D>, Error> {
        let mut loaded = self.begin(stream).await?;
        self.catch_up(stream, &mut loaded).await?;
        Ok(loaded)
    }

    /// Loads, decides and appends; decides again, a few times, when somebody else appended in between.
    ///
    /// # Errors
    /// [`ExecuteError::Refused`] if the domain says no, on the newest state; else see [`ExecuteError`].
    pub async fn execute(&self, stream: &str, command: &D::Command) -> Result<Executed<D, D::Event>, ExecuteError<D::Refusal>> {
        let mut loaded = self.begin(stream).await?;
        let mut pauses = Pauses::default();
        let mut decisions = 0;
        loop {
            self.catch_up(stream, &mut loaded).await?;
            decisions += 1;
            let events = loaded.state.decide(command).map_err(ExecuteError::Refused)?;
            if events.is_empty() {
                return Ok(Executed { events, after: loaded, appended: None, decisions });
            }
            match self.append(stream, loaded.version, &events).await {
                Ok(appended) => {
                    events.iter().for_each(|event| loaded.state.evolve(event));
                    // Of a stream that was deleted it is not the number of events that were folded.
                    loaded.version = appended.versions.first().map(|at| at.version);
                    self.put_snapshot(stream, &loaded, events.len() as u64).await;
                    return Ok(Executed { events, after: loaded, appended: Some(appended), decisions });
                }
                Err(conflict @ Error::Conflict { .. }) => {
                    let Some(pause) = pauses.next(None) else { return Err(conflict.into()) };
                    tokio::time::sleep(pause).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The state that folding begins with.
    async fn begin(&self, stream: &str) -> Result<Loaded<D>, Error> {
        let nothing = || Loaded { state: D::default(), version: None };
        let Some(snapshots) = &self.snapshots else { return Ok(nothing()) };
        let found = self.client.get_snapshot(&self.topic, stream, None, None).await?.map(|found| found.snapshot);
        let Some(known) = found.filter(|found| found.schema == snapshots.schema) else { return Ok(nothing()) };
        Ok(Loaded { state: (snapshots.decode)(&known)?, version: Some(known.version) })
    }

    /// Puts a snapshot if one is due after the last `appended` events.
    async fn put_snapshot(&self, stream: &str, loaded: &Loaded<D>, appended: u64) {
        let (Some(snapshots), Some(version)) = (&self.snapshots, loaded.version) else { return };
        if version / snapshots.every == version.saturating_sub(appended) / snapshots.every {
            return;
        }
        // One that is not put costs the next who folds the stream time, and nothing else.
        if let Ok(snapshot) = (snapshots.encode)(version, &snapshots.schema, &loaded.state) {
            let _ = self.client.append(self.topic.as_str()).snapshot(stream, snapshot).send().await;
        }
    }

    async fn append(&self, stream: &str, version: Option<u64>, events: &[D::Event]) -> Result<Appended, Error> {
        let events = events.iter().map(NewEvent::typed).collect::<Result<Vec<_>, _>>()?;
        self.client.append(self.topic.as_str()).expect(stream, Expected::seen(version)).events(stream, events).send().await
    }

    /// Folds what was appended since.
    async fn catch_up(&self, stream: &str, loaded: &mut Loaded<D>) -> Result<(), Error> {
        let mut next = loaded.version.unwrap_or(0) + 1;
        let source = Source::Stream { topic: self.topic.clone(), stream: stream.to_owned(), from_version: Some(next) };
        let mut reading = self.client.read(source).start().await?;
        loop {
            let event = reading.next().await?;
            if let Some(beginning) = reading.beginning() {
                if beginning.anew_version >= next {
                    // Whatever was folded is gone.
                    *loaded = Loaded { state: D::default(), version: None };
                    next = beginning.anew_version;
                }
                if beginning.first_version > next {
                    return Err(incomplete(stream, &beginning));
                }
            }
            let Some(event) = event else { return Ok(()) };
            if event.version != next {
                return Err(incomplete(stream, &Beginning { first_version: event.version, ..Beginning::default() }));
            }
            loaded.state.evolve(&event.decode()?);
            loaded.version = Some(event.version);
            next += 1;
        }
    }
}

fn incomplete(stream: &str, beginning: &Beginning) -> Error {
    let first = beginning.first_version;
    let what = if beginning.retained_version == first {
        format!("retention has let go of stream {stream} before version {first}")
    } else {
        format!("stream {stream} was truncated before version {first}")
    };
    Error::Invalid(format!("{what}: its state cannot be folded from what is left"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_folds_a_stream_that_retention_has_shortened_is_told() {
        let told = |first_version, retained_version| {
            incomplete("UA1", &Beginning { first_version, retained_version, ..Beginning::default() }).to_string()
        };
        assert!(told(7, 7).contains("retention has let go of stream UA1 before version 7"), "{}", told(7, 7));
        assert!(told(7, 5).contains("truncated before version 7"), "{}", told(7, 5));
    }
}
