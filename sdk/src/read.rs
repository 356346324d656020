//! Reading the log: up to its end ([`Client::read`]), or on and on ([`Client::subscribe`]).

use std::{collections::VecDeque, time::Duration};

use foldlog_proto::v1::{self, read_request, subscribe_batch::Message, subscribe_request};
use futures::stream::{self, Stream};
use tonic::Streaming;

use crate::{
    client::{Client, Pauses, Repeat, with_retries},
    error::Error,
    event::{EventQuery, Recorded, Token, timestamp},
};

/// Which events, and from where (inclusive): with no number from the beginning, or backwards from the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// One stream of a topic, by version; 0 and 1 are its beginning.
    Stream {
        /// The topic.
        topic: String,
        /// The stream.
        stream: String,
        /// Version to begin with.
        from_version: Option<u64>,
    },
    /// One partition of a topic, by offset.
    Partition {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// Offset to begin with.
        from_offset: Option<u64>,
    },
    /// A topic, in position order.
    Topic {
        /// The topic.
        topic: String,
        /// Position to begin with.
        from_position: Option<u64>,
    },
    /// Every topic but foldlog's own, in position order.
    All {
        /// Position to begin with.
        from_position: Option<u64>,
    },
}

impl Source {
    /// A whole topic.
    #[must_use]
    pub fn topic(topic: impl Into<String>) -> Self {
        Self::Topic { topic: topic.into(), from_position: None }
    }

    /// A whole stream.
    #[must_use]
    pub fn stream(topic: impl Into<String>, stream: impl Into<String>) -> Self {
        Self::Stream { topic: topic.into(), stream: stream.into(), from_version: None }
    }

    /// A whole partition.
    #[must_use]
    pub fn partition(topic: impl Into<String>, partition: u32) -> Self {
        Self::Partition { topic: topic.into(), partition, from_offset: None }
    }

    /// Everything.
    #[must_use]
    pub const fn all() -> Self {
        Self::All { from_position: None }
    }
}

macro_rules! source_to_proto {
    ($($module:ident)*) => {$(
        impl From<Source> for $module::Source {
            fn from(source: Source) -> Self {
                match source {
                    Source::Stream { topic, stream, from_version } => Self::Stream(v1::StreamRange { topic, stream, from_version }),
                    Source::Partition { topic, partition, from_offset } => {
                        Self::Partition(v1::PartitionRange { topic, partition, from_offset })
                    }
                    Source::Topic { topic, from_position } => Self::Topic(v1::TopicRange { topic, from_position }),
                    Source::All { from_position } => Self::All(v1::AllRange { from_position }),
                }
            }
        }
    )*};
}
source_to_proto!(read_request subscribe_request);

impl Client {
    /// Begins a read up to the end that stands when it starts, or [backwards](Read::backwards).
    ///
    /// ```no_run
    /// # async fn example(client: foldlog_sdk::Client) -> Result<(), foldlog_sdk::Error> {
    /// use foldlog_sdk::Source;
    ///
    /// let mut reading = client.read(Source::stream("accounts", "account-1")).start().await?;
    /// while let Some(event) = reading.next().await? {
    ///     println!("{} {}", event.version, event.kind);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn read(&self, source: Source) -> Read {
        let request = v1::ReadRequest { source: Some(source.into()), ..v1::ReadRequest::default() };
        Read { client: self.clone(), request }
    }

    /// Begins a subscription: first what is there, then what is appended, without gap or duplicate.
    pub fn subscribe(&self, source: Source) -> Subscribe {
        Subscribe { client: self.clone(), source, filter: None, start: Start::Source }
    }
}

/// A read that is being put together.
#[derive(Clone, Debug)]
#[must_use = "nothing is read before `start`"]
pub struct Read {
    client: Client,
    request: v1::ReadRequest,
}

impl Read {
    /// Reads at most this many events.
    pub const fn limit(mut self, events: u64) -> Self {
        self.request.limit = events;
        self
    }

    /// Reads backwards, the newest first: from where the source says (inclusive), or from the end.
    ///
    /// ```no_run
    /// # async fn example(client: foldlog_sdk::Client) -> Result<(), foldlog_sdk::Error> {
    /// use foldlog_sdk::Source;
    ///
    /// let last_ten = client.read(Source::stream("accounts", "account-1")).backwards().limit(10).start().await?.collect().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn backwards(mut self) -> Self {
        self.request.set_direction(v1::Direction::Backwards);
        self
    }

    /// Reads only events that match `query`. For topics of kind `events`, and for everything, of which plain records are left out.
    ///
    /// What was decided on them is appended if nothing that matches came since:
    ///
    /// ```no_run
    /// # async fn example(client: foldlog_sdk::Client) -> Result<(), foldlog_sdk::Error> {
    /// use foldlog_sdk::{EventQuery, NewEvent, Source};
    ///
    /// let of_course = EventQuery::of(["Subscribed"], ["course:algebra"]);
    /// let mut reading = client.read(Source::topic("courses")).matching(of_course.clone()).start().await?;
    /// let mut subscribed = 0;
    /// while reading.next().await?.is_some() {
    ///     subscribed += 1;
    /// }
    /// if subscribed < 30 {
    ///     let event = NewEvent::new("Subscribed", "{}").tagged(["course:algebra", "student:ada"]);
    ///     client.append("courses").absent(of_course, reading.seen()).event("ada", event).send().await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn matching(mut self, query: EventQuery) -> Self {
        self.request.filter = Some(query.into_proto());
        self
    }

    /// Begins with the first event that the server recorded at this time or later, in milliseconds since 1970 UTC; backwards
    /// with the last one recorded at this time or before. For a source that says no number.
    pub fn from_time(mut self, ms: i64) -> Self {
        self.request.from_time = Some(timestamp(ms));
        self
    }

    /// Reflects at least what `token` stands for; waits for it at most `wait`, or 10 s.
    pub fn at_least(mut self, token: Token, wait: Option<Duration>) -> Self {
        self.request.at_least = Token::into_proto(Some(token));
        self.request.wait = wait.and_then(|wait| prost_types::Duration::try_from(wait).ok());
        self
    }

    /// Starts the read.
    ///
    /// # Errors
    /// If the topic does not exist or the place is beyond its end.
    pub async fn start(self) -> Result<Reading, Error> {
        let Self { client, request } = self;
        let is_backward = request.direction() == v1::Direction::Backwards;
        let started = with_retries(Repeat::Safe, None, || {
            let (mut log, request, client) = (client.log(), request.clone(), &client);
            async move { log.read(request).await.map_err(|status| client.error(status)) }
        });
        let batches = started.await?.into_inner();
        Ok(Reading { client, batches, events: VecDeque::new(), is_backward, end: None, seen: None, beginning: None })
    }
}

/// A read under way. Dropping it ends it.
#[derive(Debug)]
pub struct Reading {
    client: Client,
    batches: Streaming<v1::ReadBatch>,
    events: VecDeque<v1::RecordedEvent>,
    is_backward: bool,
    end: Option<Token>,
    seen: Option<u64>,
    beginning: Option<Beginning>,
}

/// Where a stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// Version of the first event that is read; those before are gone.
    pub first_version: u64,
    /// Version with which it began anew after it was deleted last; 1 if it never was. What is missing from here to `first_version` was
    /// truncated, or retention let go of it: whoever folds the stream needs a state of then.
    pub anew_version: u64,
    /// Version of the first event that retention has left, at most `first_version`; 1 if it let go of none.
    pub retained_version: u64,
}

impl Default for Beginning {
    fn default() -> Self {
        Self { first_version: 1, anew_version: 1, retained_version: 1 }
    }
}

impl Beginning {
    pub(crate) const fn from_proto(beginning: v1::StreamBeginning) -> Self {
        let v1::StreamBeginning { first_version, anew_version, retained_version } = beginning;
        Self { first_version, anew_version, retained_version }
    }
}

impl Reading {
    /// The next event; none at the end. Cancel-safe.
    ///
    /// # Errors
    /// If the connection breaks or stored bytes are damaged. What came before stands.
    pub async fn next(&mut self) -> Result<Option<Recorded>, Error> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Recorded::from_proto(event).map(Some);
            }
            if self.end.is_some() {
                return Ok(None);
            }
            let Some(batch) = self.batches.message().await.map_err(|status| self.client.error(status))? else {
                return Err(Error::Protocol("the read ended before its end".into()));
            };
            if batch.end {
                self.end = Some(Token::from_bytes(batch.head_token));
                self.seen = if self.is_backward { batch.head } else { batch.scanned_to }.checked_sub(1);
            }
            self.beginning = batch.beginning.map(Beginning::from_proto).or(self.beginning);
            self.events = batch.events.into();
        }
    }

    /// Of a stream whose first events are gone: where it begins, as of the newest message. Known once [`Self::next`] has returned.
    #[must_use]
    pub const fn beginning(&self) -> Option<Beginning> {
        self.beginning
    }

    /// All that is left.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn collect(mut self) -> Result<Vec<Recorded>, Error> {
        let mut all = Vec::new();
        while let Some(event) = self.next().await? {
            all.push(event);
        }
        Ok(all)
    }

    /// The end of the log that was read up to; known once [`Self::next`] has said that there is no more.
    #[must_use]
    pub const fn end(&self) -> Option<&Token> {
        self.end.as_ref()
    }

    /// Position up to which (inclusive) whatever could match is known: that of the newest event there was, or with a
    /// [limit](Read::limit) forwards that of the last one read. It is what [`Append::absent`](crate::Append::absent) takes as `after`. Known
    /// once [`Self::next`] has said that there is no more; none before, and of an empty log.
    #[must_use]
    pub const fn seen(&self) -> Option<u64> {
        self.seen
    }

    /// The events as a stream; it ends after the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Recorded, Error>> + Send {
        stream::try_unfold(self, |mut reading| async move { Ok(reading.next().await?.map(|event| (event, reading))) })
    }
}

/// Where a subscription begins.
#[derive(Clone, Debug)]
enum Start {
    /// Where the source says.
    Source,
    /// Right behind what a token stands for.
    After(Token),
    /// With what is appended from now on.
    Now,
    /// With what was recorded at a time or later.
    Time(i64),
}

/// A subscription that is being put together.
#[derive(Clone, Debug)]
#[must_use = "nothing is read before `start`"]
pub struct Subscribe {
    client: Client,
    source: Source,
    filter: Option<v1::EventQuery>,
    start: Start,
}

impl Subscribe {
    /// Goes on right behind what `token` stands for. For topics and everything.
    pub fn after(mut self, token: Token) -> Self {
        self.start = Start::After(token);
        self
    }

    /// Delivers only events that match `query`, and now and then [progress](Delivery::Progress) where none does. For topics of kind
    /// `events`, and for everything, of which plain records are left out.
    pub fn matching(mut self, query: EventQuery) -> Self {
        self.filter = Some(query.into_proto());
        self
    }

    /// Begins with what is appended from now on.
    pub fn from_now(mut self) -> Self {
        self.start = Start::Now;
        self
    }

    /// Begins with the first event that the server recorded at this time or later, in milliseconds since 1970 UTC.
    pub fn from_time(mut self, ms: i64) -> Self {
        self.start = Start::Time(ms);
        self
    }

    /// Starts the subscription.
    ///
    /// # Errors
    /// If the topic does not exist or the place is beyond its end.
    pub async fn start(self) -> Result<Subscription, Error> {
        let Self { client, source, filter, start } = self;
        let batches = with_retries(Repeat::Safe, None, || open(&client, &source, filter.as_ref(), &start)).await?;
        let (ready, pauses) = (Ready::default(), Pauses::default());
        Ok(Subscription { client, source, filter, start, batches: Some(batches), ready, pauses, token: None })
    }
}

async fn open(
    client: &Client,
    source: &Source,
    filter: Option<&v1::EventQuery>,
    start: &Start,
) -> Result<Streaming<v1::SubscribeBatch>, Error> {
    let start = match start {
        Start::Source => None,
        Start::After(token) => Some(subscribe_request::Start::After(token.as_bytes().clone())),
        Start::Now => Some(subscribe_request::Start::Now(subscribe_request::FromNow {})),
        Start::Time(ms) => Some(subscribe_request::Start::FromTime(timestamp(*ms))),
    };
    let (source, filter) = (Some(source.clone().into()), filter.cloned());
    let request = v1::SubscribeRequest { source, start, filter, ..v1::SubscribeRequest::default() };
    Ok(client.log().subscribe(request).await.map_err(|status| client.error(status))?.into_inner())
}

/// One message of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// An event.
    Event(Box<Recorded>),
    /// Everything selected below this position (exclusive) has been delivered.
    Progress(u64),
    /// As `Progress`, and what follows is live.
    CaughtUp(u64),
    /// We did not keep up and read from disk until the next `CaughtUp`; nothing is lost.
    FellBehind {
        /// Everything below this position (exclusive) was delivered.
        position: u64,
        /// Where the log ends.
        head: u64,
    },
}

/// A subscription under way. When the connection breaks it is made anew, a few times, and goes on behind the last event: still
/// without gap or duplicate. Dropping it ends it.
#[derive(Debug)]
pub struct Subscription {
    client: Client,
    source: Source,
    filter: Option<v1::EventQuery>,
    /// Where to begin again if the connection breaks: right behind what is in `ready`.
    start: Start,
    batches: Option<Streaming<v1::SubscribeBatch>>,
    ready: Ready,
    pauses: Pauses,
    token: Option<Token>,
}

/// The last message as far as it was not handed out: its events, then its note, then its token.
#[derive(Debug, Default)]
struct Ready {
    events: VecDeque<v1::RecordedEvent>,
    note: Option<Delivery>,
    token: Option<Token>,
}

impl Subscription {
    /// The next message; it waits for one as long as it takes. Cancel-safe.
    ///
    /// # Errors
    /// If the server ends the subscription, or the connection breaks and cannot be made anew in a few attempts. What came before
    /// stands; [`Self::token`] tells where to go on.
    pub async fn next(&mut self) -> Result<Delivery, Error> {
        loop {
            if let Some(event) = self.ready.events.pop_front() {
                if self.ready.events.is_empty() {
                    self.hand_out_token();
                }
                return Ok(Delivery::Event(Box::new(Recorded::from_proto(event)?)));
            }
            self.hand_out_token();
            if let Some(note) = self.ready.note.take() {
                return Ok(note);
            }
            if let Err(error) = self.receive().await {
                self.batches = None;
                self.prepare_to_go_on(error).await?;
            }
        }
    }

    /// The next event; notes in between are passed over. Cancel-safe.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn next_event(&mut self) -> Result<Recorded, Error> {
        loop {
            if let Delivery::Event(event) = self.next().await? {
                return Ok(*event);
            }
        }
    }

    /// A token right behind what was handed out, as of the last whole message from the server: what comes after it there is new or comes
    /// again. For topics and everything.
    #[must_use]
    pub const fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    /// The messages as a stream; it ends after the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Delivery, Error>> + Send {
        stream::try_unfold(self, |mut subscription| async move { Ok(Some((subscription.next().await?, subscription))) })
    }

    fn hand_out_token(&mut self) {
        if let Some(token) = self.ready.token.take() {
            self.token = Some(token);
        }
    }

    /// Receives one message into `ready`, connecting first if need be.
    async fn receive(&mut self) -> Result<(), Error> {
        let batches = match &mut self.batches {
            Some(batches) => batches,
            closed => closed.insert(open(&self.client, &self.source, self.filter.as_ref(), &self.start).await?),
        };
        let batch = batches.message().await.map_err(|status| self.client.error(status))?;
        let Some(message) = batch.and_then(|batch| batch.message) else {
            return Err(Error::from_status(tonic::Status::unavailable("the server ended the subscription"), self.client.url()));
        };
        self.pauses.reset();
        self.take(message);
        Ok(())
    }

    fn take(&mut self, message: Message) {
        let token = match message {
            Message::Events(batch) => {
                if let Some(last) = batch.events.last() {
                    self.move_behind(last);
                }
                self.ready.events = batch.events.into();
                batch.token
            }
            Message::Progress(progress) => {
                self.ready.note = Some(Delivery::Progress(progress.position));
                progress.token
            }
            Message::CaughtUp(caught_up) => {
                self.ready.note = Some(Delivery::CaughtUp(caught_up.position));
                caught_up.token
            }
            Message::FellBehind(v1::FellBehind { position, head }) => {
                self.ready.note = Some(Delivery::FellBehind { position, head });
                return;
            }
        };
        let is_merged = matches!(self.source, Source::Topic { .. } | Source::All { .. });
        if is_merged && !token.is_empty() {
            let token = Token::from_bytes(token);
            self.start = Start::After(token.clone());
            self.ready.token = Some(token);
        }
    }

    /// Streams and partitions go on by number; the rest by token, which also notices another folder.
    fn move_behind(&mut self, last: &v1::RecordedEvent) {
        match &mut self.source {
            Source::Stream { from_version, .. } => *from_version = Some(last.stream_version + 1),
            Source::Partition { from_offset, .. } => *from_offset = Some(last.offset + 1),
            Source::Topic { .. } | Source::All { .. } => return,
        }
        self.start = Start::Source;
    }

    /// Waits before the connection is made anew, if it may be.
    async fn prepare_to_go_on(&mut self, error: Error) -> Result<(), Error> {
        // Where "now" was is not known any more: beginning again could leave a gap.
        let place_is_known = !matches!(self.start, Start::Now);
        let Some(pause) = self.pauses.next(error.retry_after()).filter(|_| place_is_known && error.is_transient()) else {
            return Err(error);
        };
        tokio::time::sleep(pause).await;
        Ok(())
    }
}
