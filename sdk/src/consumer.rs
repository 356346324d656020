//! A member of a consumer group: [`Client::consume`] joins, [`Consumer::next`] brings events, each is acknowledged when it is dealt with.
//!
//! Credit is given back by itself, as events are settled. When the connection breaks the member joins anew; its leases have ended then, and what
//! it has not acknowledged comes again, to it or to another member.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use foldlog_proto::v1::{self, consume_request as say, consume_response::Message};
use futures::stream;
use tokio::sync::mpsc;
use tonic::Streaming;

use crate::{
    client::{Client, Pauses, Repeat, with_retries},
    error::Error,
    event::{Recorded, millis},
};

const CREDIT_EVENTS: u32 = 100;
const CREDIT_BYTES: u64 = 8 << 20;
/// Messages to the server in line; who says more waits.
const IN_LINE: usize = 64;
/// Losses that are kept for who does not ask for them.
const LOST: usize = 1_000;
/// How a delivery is weighed by the server, beyond key and payload.
const OVERHEAD_BYTES: u64 = 128;

/// An event that was delivered to this member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The event.
    pub event: Recorded,
    /// Which delivery of it this is, from 1.
    pub attempt: u32,
    /// When the lease ends by the server's clock, in milliseconds since 1970 UTC.
    pub lease_until_ms: i64,
    /// Whether it was parked before.
    pub replayed: bool,
    lease: u64,
    connection: u64,
}

impl Delivered {
    const fn reference(&self) -> v1::Delivery {
        v1::Delivery { partition: self.event.partition, offset: self.event.offset, lease: self.lease }
    }

    fn bytes(&self) -> u64 {
        let length = |bytes: Option<&bytes::Bytes>| bytes.map_or(0, bytes::Bytes::len) as u64;
        let stream = self.event.stream.as_ref().map_or(0, String::len) as u64;
        length(self.event.key.as_ref()) + stream + length(self.event.data.as_ref()) + OVERHEAD_BYTES
    }
}

/// What retention removed of a partition before the group had done it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The partition.
    pub partition: u32,
    /// It lay from this offset on.
    pub from: u64,
    /// And before this one.
    pub end: u64,
    /// How many offsets; what else lies between was done.
    pub count: u64,
}

/// What shall become of an event that could not be dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nack {
    /// It comes again after the group's pause, or after this one, unless its attempts are used up.
    Retry(Option<Duration>),
    /// It is put aside, to be replayed or discarded; what follows goes on.
    Park,
    /// It counts as done.
    Skip,
    /// It is put aside, and what is ordered behind it waits.
    BlockStream,
}

impl Client {
    /// Begins to join a consumer group.
    ///
    /// ```no_run
    /// # async fn example(client: foldlog_sdk::Client) -> Result<(), foldlog_sdk::Error> {
    /// use foldlog_sdk::Nack;
    ///
    /// let mut consumer = client.consume("mail").start().await?;
    /// loop {
    ///     let delivered = consumer.next().await?;
    ///     match send_mail(&delivered.event).await {
    ///         Ok(()) => consumer.ack(&delivered).await?,
    ///         Err(reason) => consumer.nack(&delivered, Nack::Retry(None), &reason).await?,
    ///     }
    /// }
    /// # }
    /// # async fn send_mail(_: &foldlog_sdk::Recorded) -> Result<(), String> { Ok(()) }
    /// ```
    pub fn consume(&self, group: impl Into<String>) -> Consume {
        let credit = say::Credit { events: CREDIT_EVENTS, bytes: CREDIT_BYTES };
        let open = say::Open { group: group.into(), consumer: String::new(), credit: Some(credit) };
        Consume { client: self.clone(), open }
    }
}

/// A membership that is being put together.
#[derive(Clone, Debug)]
#[must_use = "nobody joins before `start`"]
pub struct Consume {
    client: Client,
    open: say::Open,
}

impl Consume {
    /// How the member calls itself, for those who look at the group.
    pub fn named(mut self, consumer: impl Into<String>) -> Self {
        self.open.consumer = consumer.into();
        self
    }

    /// At most so many events (and bytes of them) are delivered ahead of their settlement. Default: 100 events, 8 MiB.
    pub const fn credit(mut self, events: u32, bytes: u64) -> Self {
        self.open.credit = Some(say::Credit { events, bytes });
        self
    }

    /// Joins.
    ///
    /// # Errors
    /// If the group does not exist.
    pub async fn start(self) -> Result<Consumer, Error> {
        let Self { client, open } = self;
        let line = with_retries(Repeat::Safe, None, || join(&client, &open)).await?;
        let settler = Settler { line: Arc::default() };
        let mut consumer = Consumer {
            client,
            open,
            settler,
            answers: None,
            connections: 0,
            ready: VecDeque::new(),
            settled: 0,
            stale: Vec::new(),
            partitions: Vec::new(),
            lost: Vec::new(),
            pauses: Pauses::default(),
        };
        consumer.connected(line);
        Ok(consumer)
    }
}

type Joined = (mpsc::Sender<v1::ConsumeRequest>, Streaming<v1::ConsumeResponse>);

async fn join(client: &Client, open: &say::Open) -> Result<Joined, Error> {
    let (sender, receiver) = mpsc::channel(IN_LINE);
    let first = v1::ConsumeRequest { message: Some(say::Message::Open(open.clone())) };
    let line = stream::unfold((Some(first), receiver), |(first, mut receiver)| async move {
        let next = match first {
            Some(first) => first,
            None => receiver.recv().await?,
        };
        Some((next, (None, receiver)))
    });
    let answers = client.groups().consume(line).await.map_err(|status| client.error(status))?;
    Ok((sender, answers.into_inner()))
}

/// The line to the server while there is one, and what was said on it.
#[derive(Debug)]
struct Line {
    connection: u64,
    sender: mpsc::Sender<v1::ConsumeRequest>,
    /// Number of the last message that is answered.
    said: u64,
    /// What was delivered and is not settled, by place: its weight.
    held: BTreeMap<(u32, u64), u64>,
    /// Settled and not yet given back.
    credit: say::Credit,
    /// Credit is given back in parts of this many events or bytes.
    part: say::Credit,
}

/// What a message settles.
#[derive(Clone, Copy)]
enum Settled {
    Nothing,
    This,
    UpToThis,
}

impl Line {
    /// What is settled may be sent again.
    fn free(&mut self, delivered: &Delivered, settled: Settled) {
        let at = (delivered.event.partition, delivered.event.offset);
        let first = match settled {
            Settled::Nothing => return,
            Settled::This => at,
            Settled::UpToThis => (at.0, 0),
        };
        let freed: Vec<((u32, u64), u64)> = self.held.range(first..=at).map(|(at, bytes)| (*at, *bytes)).collect();
        for (at, bytes) in freed {
            self.held.remove(&at);
            self.credit.events += 1;
            self.credit.bytes += bytes;
        }
    }
}

/// Settles deliveries of a [`Consumer`]; cheap to clone, for tasks that deal with events side by side.
#[derive(Clone, Debug)]
pub struct Settler {
    line: Arc<Mutex<Option<Line>>>,
}

impl Settler {
    /// The event is done. It is so for good when the server has synced that ([`Consumer::flush`] waits for it); until then, and if the connection
    /// has broken since it was delivered, it may come again.
    ///
    /// # Errors
    /// None at present.
    pub async fn ack(&self, delivered: &Delivered) -> Result<(), Error> {
        let deliveries = vec![delivered.reference()];
        let ack = move |sequence| say::Message::Ack(say::Ack { deliveries, cumulative: false, sequence });
        self.say(delivered, Settled::This, ack).await;
        Ok(())
    }

    /// The event is done, and so is every earlier one of its partition that this member holds.
    ///
    /// # Errors
    /// None at present.
    pub async fn ack_up_to(&self, delivered: &Delivered) -> Result<(), Error> {
        let deliveries = vec![delivered.reference()];
        let ack = move |sequence| say::Message::Ack(say::Ack { deliveries, cumulative: true, sequence });
        self.say(delivered, Settled::UpToThis, ack).await;
        Ok(())
    }

    /// The event is not done: what shall become of it, and why.
    ///
    /// # Errors
    /// If the pause is not one.
    pub async fn nack(&self, delivered: &Delivered, nack: Nack, reason: &str) -> Result<(), Error> {
        let (action, delay) = match nack {
            Nack::Retry(delay) => (v1::NackAction::Retry, delay),
            Nack::Park => (v1::NackAction::Park, None),
            Nack::Skip => (v1::NackAction::Skip, None),
            Nack::BlockStream => (v1::NackAction::BlockStream, None),
        };
        let delay = delay.map(prost_types::Duration::try_from).transpose();
        let delay = delay.map_err(|_| Error::Invalid("the pause is too long".to_owned()))?;
        let (deliveries, reason) = (vec![delivered.reference()], reason.to_owned());
        let nack = move |sequence| say::Message::Nack(say::Nack { deliveries, action: action.into(), reason, delay, sequence });
        self.say(delivered, Settled::This, nack).await;
        Ok(())
    }

    /// The event takes longer: the time for its acknowledgement begins anew.
    ///
    /// # Errors
    /// None at present.
    pub async fn extend(&self, delivered: &Delivered) -> Result<(), Error> {
        let deliveries = vec![delivered.reference()];
        self.say(delivered, Settled::Nothing, move |sequence| say::Message::Extend(say::Extend { deliveries, sequence })).await;
        Ok(())
    }

    /// Says something of a delivery, if the connection on which it came is still there.
    async fn say(&self, delivered: &Delivered, settled: Settled, message: impl FnOnce(u64) -> say::Message) {
        let its_line = |line: &mut Line| (line.connection == delivered.connection).then(|| line.sender.clone());
        let Some(sender) = self.with(its_line).flatten() else { return };
        // Room for the message and for the credit that may follow it. A closed line has ended all leases.
        let Ok(mut room) = sender.reserve_many(2).await else { return };
        let mut said = |message| {
            if let Some(place) = room.next() {
                place.send(v1::ConsumeRequest { message: Some(message) });
            }
        };
        // The number is drawn when there is room: what has a lower one was said before.
        self.with(|line| {
            line.said += 1;
            said(message(line.said));
            line.free(delivered, settled);
            if line.credit.events >= line.part.events || line.credit.bytes >= line.part.bytes {
                said(say::Message::Credit(std::mem::take(&mut line.credit)));
            }
        });
    }

    /// Remembers what a delivery weighs.
    fn hold(&self, delivered: &Delivered) {
        self.with(|line| line.held.insert((delivered.event.partition, delivered.event.offset), delivered.bytes()));
    }

    fn with<T>(&self, change: impl FnOnce(&mut Line) -> T) -> Option<T> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(change)
    }
}

/// A member of a consumer group. Dropping it breaks off: what it holds comes again and counts as tried; [`Consumer::close`] hands it back.
#[derive(Debug)]
pub struct Consumer {
    client: Client,
    open: say::Open,
    settler: Settler,
    answers: Option<Streaming<v1::ConsumeResponse>>,
    connections: u64,
    ready: VecDeque<v1::Delivered>,
    settled: u64,
    stale: Vec<(u32, u64)>,
    partitions: Vec<u32>,
    lost: Vec<Lost>,
    pauses: Pauses,
}

impl Consumer {
    /// The next event, as soon as there is one. Joins anew when the connection breaks. Cancel-safe.
    ///
    /// # Errors
    /// If the server ends the membership, or the connection cannot be made anew in a few attempts.
    pub async fn next(&mut self) -> Result<Delivered, Error> {
        loop {
            if let Some(delivered) = self.ready.pop_front() {
                return self.delivered(delivered);
            }
            if let Err(error) = self.receive().await {
                self.disconnected();
                let pause = self.pauses.next(error.retry_after()).filter(|_| error.is_transient());
                let Some(pause) = pause else { return Err(error) };
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// See [`Settler::ack`].
    ///
    /// # Errors
    /// None at present.
    pub async fn ack(&self, delivered: &Delivered) -> Result<(), Error> {
        self.settler.ack(delivered).await
    }

    /// See [`Settler::nack`].
    ///
    /// # Errors
    /// If the pause is not one.
    pub async fn nack(&self, delivered: &Delivered, nack: Nack, reason: &str) -> Result<(), Error> {
        self.settler.nack(delivered, nack, reason).await
    }

    /// See [`Settler::extend`].
    ///
    /// # Errors
    /// None at present.
    pub async fn extend(&self, delivered: &Delivered) -> Result<(), Error> {
        self.settler.extend(delivered).await
    }

    /// See [`Settler::ack_up_to`].
    ///
    /// # Errors
    /// None at present.
    pub async fn ack_up_to(&self, delivered: &Delivered) -> Result<(), Error> {
        self.settler.ack_up_to(delivered).await
    }

    /// Settles from elsewhere, while this one waits for events.
    #[must_use]
    pub fn settler(&self) -> Settler {
        self.settler.clone()
    }

    /// The member's partitions, as far as it was told.
    #[must_use]
    pub fn partitions(&self) -> &[u32] {
        &self.partitions
    }

    /// What this member was told to be lost since the last call. Each loss is told to one member, once.
    pub fn take_lost(&mut self) -> Vec<Lost> {
        std::mem::take(&mut self.lost)
    }

    /// Waits until everything that was settled is synced. Returns partition and offset of events whose lease had ended before: they come, or came,
    /// again.
    ///
    /// # Errors
    /// If the connection breaks: then what was not confirmed may come again.
    pub async fn flush(&mut self) -> Result<Vec<(u32, u64)>, Error> {
        while self.settler.with(|line| line.said).is_some_and(|said| said > self.settled) {
            if let Err(error) = self.receive().await {
                self.disconnected();
                return Err(error);
            }
        }
        Ok(std::mem::take(&mut self.stale))
    }

    /// Waits until everything that was settled is synced, hands back what was not, and leaves.
    ///
    /// # Errors
    /// As [`Consumer::flush`].
    pub async fn close(mut self) -> Result<Vec<(u32, u64)>, Error> {
        let stale = self.flush().await?;
        let Some(sender) = self.settler.with(|line| line.sender.clone()) else { return Ok(stale) };
        let leave = v1::ConsumeRequest { message: Some(say::Message::Leave(say::Leave {})) };
        if sender.send(leave).await.is_ok()
            && let Some(answers) = &mut self.answers
        {
            // The server ends its half when the member is out.
            while let Ok(Some(_)) = answers.message().await {}
        }
        Ok(stale)
    }

    fn delivered(&self, delivered: v1::Delivered) -> Result<Delivered, Error> {
        let event = delivered.event.ok_or_else(|| Error::Protocol("a delivery without an event".into()))?;
        let delivered = Delivered {
            event: Recorded::from_proto(event)?,
            attempt: delivered.attempt,
            lease_until_ms: delivered.lease_until.map(millis).unwrap_or_default(),
            replayed: delivered.replayed,
            lease: delivered.lease,
            connection: self.connections,
        };
        self.settler.hold(&delivered);
        Ok(delivered)
    }

    fn connected(&mut self, (sender, answers): Joined) {
        self.connections += 1;
        self.settled = 0;
        self.answers = Some(answers);
        let whole = self.open.credit.unwrap_or_default();
        let part = say::Credit { events: (whole.events / 2).max(1), bytes: (whole.bytes / 2).max(1) };
        let line = Line { connection: self.connections, sender, said: 0, held: BTreeMap::new(), credit: say::Credit::default(), part };
        *self.settler.line.lock().unwrap_or_else(PoisonError::into_inner) = Some(line);
    }

    fn disconnected(&mut self) {
        self.answers = None;
        self.ready.clear();
        self.partitions.clear();
        *self.settler.line.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Receives one message, joining first if need be.
    async fn receive(&mut self) -> Result<(), Error> {
        if self.answers.is_none() {
            let joined = join(&self.client, &self.open).await?;
            self.connected(joined);
        }
        let Some(answers) = &mut self.answers else { return Ok(()) };
        let answer = answers.message().await.map_err(|status| self.client.error(status))?;
        let Some(message) = answer.and_then(|answer| answer.message) else {
            return Err(Error::from_status(tonic::Status::unavailable("the server ended the membership"), self.client.url()));
        };
        self.pauses.reset();
        match message {
            Message::Deliveries(deliveries) => self.ready.extend(deliveries.events),
            Message::Settled(settled) => {
                self.settled = self.settled.max(settled.sequence);
                self.stale.extend(settled.stale.iter().map(|stale| (stale.partition, stale.offset)));
            }
            Message::Assigned(assigned) => self.partitions = assigned.partitions,
            Message::Lost(v1::consume_response::PartitionLost { partition, from, end, count }) => {
                self.lost.truncate(LOST - 1);
                self.lost.push(Lost { partition, from, end, count });
            }
            // How the group reads is told for those who look; nothing is lost either way.
            Message::CaughtUp(_) | Message::FellBehind(_) => {}
        }
        Ok(())
    }
}
