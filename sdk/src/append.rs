//! Appends: one unit of events and beliefs, sent once in effect, however often on the wire.

use std::time::Duration;

use bytes::Bytes;
use foldlog_proto::v1;

use crate::{
    client::{Client, Repeat, with_retries},
    durability::Durability,
    error::Error,
    event::{EventQuery, Expected, NewEvent, NewRecord, Token, millis},
    redaction::Redaction,
    snapshot::Snapshot,
};

impl Client {
    /// Begins an append; `topic` is meant wherever no other is named.
    ///
    /// ```no_run
    /// # async fn example(client: foldlog_sdk::Client) -> Result<(), foldlog_sdk::Error> {
    /// use foldlog_sdk::{Expected, NewEvent};
    ///
    /// let opened = NewEvent::json("Opened", &serde_json::json!({ "owner": "someone" }))?;
    /// let appended = client.append("accounts").expect("account-1", Expected::Absent).event("account-1", opened).send().await?;
    /// println!("version {}", appended.versions[0].version);
    /// # Ok(())
    /// # }
    /// ```
    pub fn append(&self, topic: impl Into<String>) -> Append {
        let request_id = Bytes::copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        let request = v1::AppendRequest { topic: topic.into(), request_id, ..v1::AppendRequest::default() };
        Append { client: self.clone(), request, timeout: None }
    }
}

/// An append that is being put together: all of it becomes readable, or nothing.
#[derive(Clone, Debug)]
#[must_use = "nothing is appended before `send`"]
pub struct Append {
    client: Client,
    request: v1::AppendRequest,
    timeout: Option<Duration>,
}

impl Append {
    /// Adds an event to a stream.
    pub fn event(self, stream: impl Into<String>, event: NewEvent) -> Self {
        self.events(stream, [event])
    }

    /// Adds events to a stream, in order.
    pub fn events(self, stream: impl Into<String>, events: impl IntoIterator<Item = NewEvent>) -> Self {
        self.events_in(String::new(), stream, events)
    }

    /// Adds events to a stream of another topic, in order.
    pub fn events_in(mut self, topic: impl Into<String>, stream: impl Into<String>, events: impl IntoIterator<Item = NewEvent>) -> Self {
        let events = events.into_iter().map(NewEvent::into_proto).collect();
        self.request.writes.push(v1::Write { stream: stream.into(), events, topic: topic.into(), ..v1::Write::default() });
        self
    }

    /// Truncates, deletes or tombstones a stream. The append must not write to it otherwise.
    ///
    /// ```no_run
    /// # async fn example(client: foldlog_sdk::Client) -> Result<(), foldlog_sdk::Error> {
    /// use foldlog_sdk::{Expected, StreamChange};
    ///
    /// client.append("accounts").expect("account-1", Expected::Version(7)).change("account-1", StreamChange::Delete).send().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn change(self, stream: impl Into<String>, change: StreamChange) -> Self {
        self.change_in(String::new(), stream, change)
    }

    /// Truncates, deletes or tombstones a stream of another topic.
    pub fn change_in(mut self, topic: impl Into<String>, stream: impl Into<String>, change: StreamChange) -> Self {
        let change = Some(change.to_proto());
        self.request.writes.push(v1::Write { stream: stream.into(), topic: topic.into(), change, ..v1::Write::default() });
        self
    }

    /// Redacts data of a stream's events: from the answer on it is read by nobody, the stream's snapshots are gone, and queries that read
    /// the topic fold anew. Bytes go afterwards ([`Client::wait_erased`]). The append must not write to the stream otherwise.
    ///
    /// ```no_run
    /// # async fn example(client: foldlog_sdk::Client) -> Result<(), foldlog_sdk::Error> {
    /// use foldlog_sdk::Redaction;
    ///
    /// let redaction = Redaction::of([2..=2, 5..=7], "the data protection officer", "asked to");
    /// client.append("accounts").redact("account-1", redaction).send().await?;
    /// client.wait_erased("accounts", "account-1", std::time::Duration::from_secs(600)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn redact(self, stream: impl Into<String>, redaction: Redaction) -> Self {
        self.redact_in(String::new(), stream, redaction)
    }

    /// Redacts data of events of another topic.
    pub fn redact_in(mut self, topic: impl Into<String>, stream: impl Into<String>, redaction: Redaction) -> Self {
        let change = Some(redaction.into_proto());
        self.request.writes.push(v1::Write { stream: stream.into(), topic: topic.into(), change, ..v1::Write::default() });
        self
    }

    /// Puts a snapshot of a stream. The append must not write to it otherwise.
    pub fn snapshot(self, stream: impl Into<String>, snapshot: Snapshot) -> Self {
        self.snapshot_in(String::new(), stream, snapshot)
    }

    /// Puts a snapshot of a stream of another topic.
    pub fn snapshot_in(mut self, topic: impl Into<String>, stream: impl Into<String>, snapshot: Snapshot) -> Self {
        let snapshot = Some(snapshot.into_proto());
        self.request.writes.push(v1::Write { stream: stream.into(), topic: topic.into(), snapshot, ..v1::Write::default() });
        self
    }

    /// Adds a record, to a topic of kind `records` or `table`.
    pub fn record(self, record: NewRecord) -> Self {
        self.record_in(String::new(), record)
    }

    /// Adds a record to another topic of kind `records` or `table`.
    pub fn record_in(mut self, topic: impl Into<String>, record: NewRecord) -> Self {
        self.request.writes.push(record.into_proto(topic.into()));
        self
    }

    /// Requires a stream to stand at `expected`; it need not be written to. All such beliefs must hold, else nothing is written.
    pub fn expect(self, stream: impl Into<String>, expected: Expected) -> Self {
        self.expect_in(String::new(), stream, expected)
    }

    /// Requires a stream of another topic to stand at `expected`.
    pub fn expect_in(mut self, topic: impl Into<String>, stream: impl Into<String>, expected: Expected) -> Self {
        let state = v1::StreamState { stream: stream.into(), topic: topic.into(), expect: Some(expected.to_proto()) };
        self.request.preconditions.push(v1::Precondition { kind: Some(v1::precondition::Kind::Stream(state)) });
        self
    }

    /// Requires that no event of the append's topic matches `query`, or none behind position `after`: that of the newest event the
    /// appender knew of when it decided, whether that one matched or not, as [`Reading::seen`](crate::Reading::seen) tells it.
    pub fn absent(self, query: EventQuery, after: Option<u64>) -> Self {
        self.absent_in::<String>([], query, after)
    }

    /// Requires it of several topics.
    pub fn absent_in<T: Into<String>>(mut self, topics: impl IntoIterator<Item = T>, query: EventQuery, after: Option<u64>) -> Self {
        let topics = topics.into_iter().map(Into::into).collect();
        let absent = v1::EventQueryAbsent { query: Some(query.into_proto()), after, topics, all_topics: false };
        self.request.preconditions.push(v1::Precondition { kind: Some(v1::precondition::Kind::Query(absent)) });
        self
    }

    /// Requires it of every topic of kind `events`.
    pub fn absent_everywhere(mut self, query: EventQuery, after: Option<u64>) -> Self {
        let absent = v1::EventQueryAbsent { query: Some(query.into_proto()), after, topics: Vec::new(), all_topics: true };
        self.request.preconditions.push(v1::Precondition { kind: Some(v1::precondition::Kind::Query(absent)) });
        self
    }

    /// Gives the id under which a repeat is recognised, also by another process. Without this call it is drawn at random.
    pub fn request_id(mut self, id: [u8; 16]) -> Self {
        self.request.request_id = Bytes::copy_from_slice(&id);
        self
    }

    /// Does without an id. Then nothing protects from a second effect, and what may have had one is not sent again.
    pub fn without_request_id(mut self) -> Self {
        self.request.request_id = Bytes::new();
        self
    }

    /// On a repeat by another process: a token obtained before the first attempt. A request whose id the server may have forgotten is
    /// then refused.
    pub fn first_attempt(mut self, token: Token) -> Self {
        self.request.first_attempt_token = token.as_bytes().clone();
        self
    }

    /// Asks for an answer that is at least so durable, whatever the topics say. [`Durability::Written`] is answered sooner.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.request.durability = durability.to_proto().into();
        self
    }

    /// Longest time to wait for the answer, with repeats; 30 s unless given.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Number of events and records so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.request.writes.iter().map(|write| write.events.len()).sum()
    }

    /// Whether there is nothing to append yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.request.writes.is_empty()
    }

    /// Appends: when this returns, it is as durable as [`Appended::durability`] says, which is synced unless the append or its topics
    /// ask for less. What is synced is readable.
    ///
    /// # Errors
    /// [`Error::Conflict`] if a belief does not hold; else see [`Error::class`].
    pub async fn send(self) -> Result<Appended, Error> {
        let Self { client, request, timeout } = self;
        let repeat = if request.request_id.is_empty() { Repeat::IfFailed } else { Repeat::Safe };
        let answer = with_retries(repeat, timeout, || {
            let (mut log, request) = (client.log(), request.clone());
            let client = &client;
            async move { log.append(request).await.map_err(|status| client.error(status)) }
        });
        match answer.await {
            Ok(response) => Appended::from_proto(response.into_inner()),
            Err(error) => Err(name_topics(error, &request)),
        }
    }

    /// As a unit of a session: its sequence takes the place of an id.
    pub(crate) fn into_unit(mut self) -> v1::AppendRequest {
        self.request.request_id = Bytes::new();
        self.request.first_attempt_token = Bytes::new();
        self.request
    }
}

/// Names the topics of preconditions that did not hold.
pub(crate) fn name_topics(mut error: Error, request: &v1::AppendRequest) -> Error {
    if let Error::Conflict { violations, .. } = &mut error {
        for violation in violations {
            violation.topic = topic_of(request, violation.index);
        }
    }
    error
}

/// What becomes of a stream. Its events can no longer be read by stream, at once; by partition, topic and everything they can until they
/// are physically removed. Where it is so already, nothing is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamChange {
    /// Events before this version are gone, those from it on stay; at most the version after the newest.
    TruncateBefore(u64),
    /// All events are gone. The next one begins the stream anew, with the next version.
    Delete,
    /// All events are gone, and no append to the stream is taken any more. Final.
    Tombstone,
    /// All snapshots that were put until now are gone; events stay.
    DropSnapshots,
}

impl StreamChange {
    fn to_proto(self) -> v1::StreamChange {
        use v1::stream_change::{Change, Delete, DropSnapshots, Tombstone};
        let change = match self {
            Self::TruncateBefore(version) => Change::TruncateBefore(version),
            Self::Delete => Change::Delete(Delete {}),
            Self::Tombstone => Change::Tombstone(Tombstone {}),
            Self::DropSnapshots => Change::DropSnapshots(DropSnapshots {}),
        };
        v1::StreamChange { change: Some(change) }
    }
}

fn topic_of(request: &v1::AppendRequest, precondition: usize) -> String {
    let named = request.preconditions.get(precondition).and_then(|precondition| match precondition.kind.as_ref()? {
        v1::precondition::Kind::Stream(state) => Some(&state.topic),
        v1::precondition::Kind::Query(query) => query.topics.first(),
    });
    named.filter(|topic| !topic.is_empty()).unwrap_or(&request.topic).clone()
}

/// The answer to an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Position of the first event.
    pub first_position: u64,
    /// Position of the last event (inclusive).
    pub last_position: u64,
    /// Where each partition's events went, in the order first written.
    pub ranges: Vec<AppendedRange>,
    /// Where each stream stands now, in the order first written.
    pub versions: Vec<StreamAt>,
    /// Reads and queries with it reflect this append.
    pub token: Token,
    /// Whether this is the answer to an earlier request with the same id.
    pub deduplicated: bool,
    /// The server's time, in milliseconds since 1970 UTC.
    pub recorded_at_ms: i64,
    /// How durable it is; that of a repeat is always synced.
    pub durability: Durability,
}

/// Where the events of one partition went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendedRange {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// Offset of the first event.
    pub first_offset: u64,
    /// Offset of the last event (inclusive).
    pub last_offset: u64,
}

/// Where a stream stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamAt {
    /// The topic.
    pub topic: String,
    /// The stream.
    pub stream: String,
    /// Version of its newest event.
    pub version: u64,
}

impl Appended {
    fn from_proto(response: v1::AppendResponse) -> Result<Self, Error> {
        let range = |range: v1::AppendedRange| AppendedRange {
            topic: range.topic,
            partition: range.partition,
            first_offset: range.first_offset,
            last_offset: range.last_offset,
        };
        let version = |at: v1::StreamVersion| StreamAt { topic: at.topic, stream: at.stream, version: at.version };
        Ok(Self {
            first_position: response.first_position,
            last_position: response.last_position,
            ranges: response.ranges.into_iter().map(range).collect(),
            versions: response.versions.into_iter().map(version).collect(),
            token: Token::from_bytes(response.token),
            deduplicated: response.deduplicated,
            recorded_at_ms: response.recorded_at.map(millis).unwrap_or_default(),
            durability: Durability::from_proto(response.durability)?,
        })
    }
}
