//! Members of a consumer group over the torture's events: they join, acknowledge, forget, give back and die, until the server is gone.
//!
//! The SDK is left out on purpose: it joins anew by itself, and here everything that was given and said must be written down
//! ([`crate::deliveries`]).

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use foldlog_proto::v1::{
    self as pb, ConsumeRequest, ConsumeResponse, CreateGroupRequest, GetGroupRequest, GroupSettings, NackAction, consume_request as say,
    consume_response::Message, groups_client::GroupsClient,
};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tonic::{Status, Streaming, transport::Channel};

use crate::{
    deliveries::{ACK_TIMEOUT_MS, Deliveries, Given},
    random::Random,
};

const GROUP: &str = "workers";
/// Members at the same time.
pub const MEMBERS: u64 = 3;
const CREDIT: u32 = 200;

/// How members behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Some forget events, give them back, or die.
    Careless,
    /// All do their work.
    Careful,
}

/// Creates the group.
pub async fn prepare(channel: &Channel, topic: &str) -> anyhow::Result<()> {
    let duration = |ms: i64| prost_types::Duration { seconds: ms / 1_000, nanos: (ms % 1_000) as i32 * 1_000_000 };
    let settings = GroupSettings {
        max_attempts: Some(1_000),
        backoff_first: Some(duration(10)),
        backoff_max: Some(duration(100)),
        ack_timeout: Some(duration(ACK_TIMEOUT_MS)),
        ..GroupSettings::default()
    };
    let request = CreateGroupRequest { group: GROUP.to_owned(), topic: topic.to_owned(), settings: Some(settings), start: None };
    GroupsClient::new(channel.clone()).create(request).await.context("cannot create the group")?;
    Ok(())
}

/// What members share.
#[derive(Clone)]
pub struct Shared {
    /// Connection to the server.
    pub channel: Channel,
    /// Where everything is written down.
    pub deliveries: Arc<Mutex<Deliveries>>,
    /// Acknowledgements confirmed so far.
    pub confirmed: watch::Sender<u64>,
}

struct Member {
    number: u64,
    shared: Shared,
    line: mpsc::Sender<ConsumeRequest>,
    answers: Streaming<ConsumeResponse>,
    sequence: u64,
}

/// A member, and another one in its place whenever it dies; until the server is gone.
pub async fn run(shared: Shared, manner: Manner, mut random: Random) -> anyhow::Result<()> {
    loop {
        let Ok(mut member) = Member::join(shared.clone()).await else { return Ok(()) };
        let lived = member.live(manner, &mut random).await;
        // Before the server can know of it, so that nobody is given anything too early.
        shared.deliveries.lock().leaves(member.number);
        if lived.is_err() {
            return Ok(());
        }
    }
}

impl Member {
    async fn join(shared: Shared) -> Result<Self, Status> {
        let (line, receiver) = mpsc::channel(16);
        let credit = Some(say::Credit { events: CREDIT, bytes: 16 << 20 });
        let open = say::Open { group: GROUP.to_owned(), consumer: String::new(), credit };
        let gone = |_| Status::unavailable("the membership is over");
        line.try_send(ConsumeRequest { message: Some(say::Message::Open(open)) }).map_err(gone)?;
        let requests = futures::stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
        let mut groups = GroupsClient::new(shared.channel.clone()).max_decoding_message_size(16 << 20);
        let answers = groups.consume(requests).await?.into_inner();
        let number = shared.deliveries.lock().join();
        Ok(Self { number, shared, line, answers, sequence: 0 })
    }

    /// Until it dies, or the server.
    async fn live(&mut self, manner: Manner, random: &mut Random) -> Result<(), Status> {
        loop {
            let message = self.answers.message().await?.and_then(|answer| answer.message);
            match message.ok_or_else(|| Status::unavailable("the server ended the membership"))? {
                Message::Deliveries(deliveries) => self.take(deliveries.events, manner, random).await?,
                Message::Settled(settled) => {
                    let stale: Vec<_> = settled.stale.iter().map(|stale| (stale.partition, stale.offset)).collect();
                    let confirmed = {
                        let mut deliveries = self.shared.deliveries.lock();
                        deliveries.confirms(self.number, settled.sequence, &stale);
                        deliveries.confirmed()
                    };
                    self.shared.confirmed.send_replace(confirmed);
                }
                Message::Assigned(_) | Message::CaughtUp(_) | Message::FellBehind(_) | Message::Lost(_) => {}
            }
            if manner == Manner::Careless && random.below(60) == 0 {
                return Ok(());
            }
        }
    }

    async fn take(&mut self, events: Vec<pb::Delivered>, manner: Manner, random: &mut Random) -> Result<(), Status> {
        let count = u32::try_from(events.len()).unwrap_or(CREDIT);
        let (mut done, mut named) = (Vec::new(), Vec::new());
        for delivered in events {
            let Some((given, delivery)) = read(delivered) else { return Err(Status::internal("a delivery without an event")) };
            self.shared.deliveries.lock().given(self.number, &given);
            match random.below(40) {
                // Forgotten: its lease ends.
                0 if manner == Manner::Careless => {}
                1 if manner == Manner::Careless => {
                    self.shared.deliveries.lock().gives_back(&given);
                    self.sequence += 1;
                    let (deliveries, sequence) = (vec![delivery], self.sequence);
                    let nack = say::Nack { deliveries, action: NackAction::Retry.into(), sequence, ..say::Nack::default() };
                    self.say(say::Message::Nack(nack)).await?;
                }
                _ => {
                    done.push(given);
                    named.push(delivery);
                }
            }
        }
        self.sequence += 1;
        self.shared.deliveries.lock().acknowledges(self.number, self.sequence, &done);
        self.say(say::Message::Ack(say::Ack { deliveries: named, cumulative: false, sequence: self.sequence })).await?;
        self.say(say::Message::Credit(say::Credit { events: count, bytes: 16 << 20 })).await
    }

    async fn say(&self, message: say::Message) -> Result<(), Status> {
        let sent = self.line.send(ConsumeRequest { message: Some(message) }).await;
        sent.map_err(|_| Status::unavailable("the membership is over"))
    }
}

fn read(delivered: pb::Delivered) -> Option<(Given, pb::Delivery)> {
    let event = delivered.event?;
    let until = delivered.lease_until?;
    let at = (event.partition, event.offset);
    let until_ms = until.seconds * 1_000 + i64::from(until.nanos) / 1_000_000;
    let given = Given { at, stream: event.stream, version: event.stream_version, attempt: delivered.attempt, until_ms };
    Some((given, pb::Delivery { partition: at.0, offset: at.1, lease: delivered.lease }))
}

/// Has careful members do all that is left.
pub async fn drain(shared: &Shared, patience: Duration, mut random: Random) -> anyhow::Result<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..MEMBERS {
        tasks.spawn(run(shared.clone(), Manner::Careful, random.split()));
    }
    let mut confirmed = shared.confirmed.subscribe();
    let mut groups = GroupsClient::new(shared.channel.clone());
    loop {
        let status = groups.get(GetGroupRequest { group: GROUP.to_owned() }).await.context("cannot read the group")?.into_inner();
        if status.lag == 0 {
            return Ok(());
        }
        if tokio::time::timeout(patience, confirmed.changed()).await.is_err() {
            bail!("the group stands still, with this left to do: {status:?}");
        }
    }
}
