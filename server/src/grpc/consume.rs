//! `Groups.Consume`: one member of a consumer group, from its first message to its last.
//!
//! What the member says goes to the group one by one; who says more than the group takes is not read any further. What the group has for
//! it is taken when the client has room, and only then are payloads read from the log. The membership ends with either half of the call.

use std::{collections::VecDeque, pin::Pin, sync::Arc};

use foldlog_log::Position;
use foldlog_proto::v1::{self as pb, consume_request as asked, consume_response as told};
use futures::{Stream, StreamExt as _, stream};
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Status, Streaming};

use super::{
    convert,
    groups::{misplaced, name},
    wire,
};
use crate::{
    app::{App, StreamPlace},
    failure::{Failure, Kind},
    groups::{
        Membership,
        delivery::{Delivery, DeliveryRef, Verdict},
        members::Credit,
        outbox::{Note, Told},
        parked::MAX_REASON,
        source::Lookup,
    },
    idle::Sent,
};

/// Bytes after which a message of events is full.
const MESSAGE_BYTES: usize = 1 << 20;
/// Most deliveries named in one message.
const NAMED: usize = 10_000;
const MAX_NAME: usize = 255;
const MAX_DELAY: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

type Messages = Pin<Box<dyn Stream<Item = Result<pb::ConsumeResponse, Status>> + Send>>;

/// Whether a path names this call: its request stays open, and need not arrive in time.
pub fn is_it(path: &str) -> bool {
    let method = path.strip_prefix('/').and_then(|path| path.strip_prefix(pb::groups_server::SERVICE_NAME));
    method == Some("/Consume")
}

impl Sent for pb::ConsumeResponse {
    fn sent_to(&self) -> Option<Position> {
        None
    }
}

/// Ends the stream when its client takes nothing for too long, and translates failures.
pub fn guarded(app: &App, messages: impl Stream<Item = Result<pb::ConsumeResponse, Failure>> + Send + 'static) -> Messages {
    let guarded = app.idle.guard(messages, Position::default(), |_| {
        let message = "the member took nothing for too long; what it has not acknowledged comes again";
        Failure::new(Kind::Exhausted, "SLOW_READER", message)
    });
    let app = app.clone();
    Box::pin(guarded.map(move |message| message.map_err(|failure| app.refuse(failure))))
}

/// The messages to a member; the first error is found before any message.
pub async fn consume(
    app: &App,
    mut incoming: Streaming<pb::ConsumeRequest>,
) -> Result<impl Stream<Item = Result<pb::ConsumeResponse, Failure>> + use<>, Failure> {
    let groups = &app.stage()?.groups;
    let within = app.limits.message_arrival;
    let late = |_| Failure::new(Kind::Timeout, "REQUEST_TIMEOUT", format!("nothing arrived within {} s", within.as_secs_f32()));
    let first = tokio::time::timeout(within, incoming.message()).await.map_err(late)?;
    let first = first.map_err(|status| misplaced(status.message()))?.and_then(|request| request.message);
    let Some(asked::Message::Open(open)) = first else { return Err(misplaced("open comes first")) };
    if open.consumer.len() > MAX_NAME {
        return Err(Failure::invalid("open.consumer", format_args!("up to {MAX_NAME} bytes")));
    }
    let place = app.stream_place()?;
    let (group, credit) = (name(&open.group)?, credit(open.credit.unwrap_or_default()));
    let (gone, groups) = (CancellationToken::new(), groups.clone());
    let guard = gone.clone().drop_guard();
    let (joined, joining) = oneshot::channel();
    // A task of its own: whoever breaks off while it joins is not in the group for ever.
    app.tasks.spawn("member", async move {
        match groups.join(&group, open.consumer, credit).await {
            Ok(membership) => {
                let membership = Arc::new(membership);
                if joined.send(Ok(Arc::clone(&membership))).is_ok() {
                    listen(membership, incoming, gone).await;
                } else {
                    membership.leave(true).await;
                }
            }
            Err(failure) => drop(joined.send(Err(failure))),
        }
    });
    let membership = joining.await.map_err(|_| Failure::draining())??;
    let lookup = Lookup::new(membership.source.clone());
    let member = Member { app: app.clone(), lookup, ready: VecDeque::new(), _gone: guard, _place: place, membership };
    Ok(stream::try_unfold(member, |mut member| async move { Ok(member.next().await?.map(|message| (message, member))) }))
}

/// Brings what the member says to its group, until one of both is over.
async fn listen(membership: Arc<Membership>, mut incoming: Streaming<pb::ConsumeRequest>, gone: CancellationToken) {
    let hands_back = loop {
        // Both arms are cancel-safe.
        let request = tokio::select! {
            biased;
            () = gone.cancelled() => break false,
            request = incoming.message() => request,
        };
        // Whoever breaks off has not said what became of its events.
        let Ok(Some(request)) = request else { break false };
        match say(&membership, request).await {
            Ok(true) => {}
            Ok(false) => break true,
            Err(failure) => {
                membership.outbox.end(Some(failure));
                break false;
            }
        }
    };
    membership.leave(hands_back).await;
}

/// Brings one message; tells whether more may come.
async fn say(membership: &Membership, request: pb::ConsumeRequest) -> Result<bool, Failure> {
    match request.message {
        Some(asked::Message::Credit(more)) => membership.grant(credit(more)).await?,
        Some(asked::Message::Ack(ack)) => {
            membership.settle(named(&ack.deliveries)?, ack.cumulative, Verdict::Done, ack.sequence).await?;
        }
        Some(asked::Message::Nack(nack)) => {
            let refs = named(&nack.deliveries)?;
            let sequence = nack.sequence;
            membership.settle(refs, false, verdict(nack)?, sequence).await?;
        }
        Some(asked::Message::Extend(extend)) => membership.extend(named(&extend.deliveries)?, extend.sequence).await?,
        Some(asked::Message::Leave(_)) => return Ok(false),
        Some(asked::Message::Open(_)) => return Err(misplaced("open comes once")),
        None => return Err(misplaced("a message without anything in it")),
    }
    Ok(true)
}

fn credit(given: asked::Credit) -> Credit {
    Credit { events: given.events.into(), bytes: i64::try_from(given.bytes).unwrap_or(i64::MAX) }
}

fn named(deliveries: &[pb::Delivery]) -> Result<Vec<DeliveryRef>, Failure> {
    if deliveries.len() > NAMED {
        return Err(Failure::invalid("deliveries", format_args!("at most {NAMED} are taken")));
    }
    let one = |delivery: &pb::Delivery| DeliveryRef { at: (delivery.partition, delivery.offset), lease: delivery.lease };
    Ok(deliveries.iter().map(one).collect())
}

fn verdict(nack: asked::Nack) -> Result<Verdict, Failure> {
    let action = pb::NackAction::try_from(nack.action);
    let reason = nack.reason;
    if reason.len() > MAX_REASON {
        return Err(Failure::invalid("nack.reason", format_args!("up to {MAX_REASON} bytes")));
    }
    Ok(match action {
        Ok(pb::NackAction::Unspecified | pb::NackAction::Retry) => {
            let delay = nack.delay.map(|delay| convert::duration(Some(delay), MAX_DELAY, MAX_DELAY, "nack.delay")).transpose()?;
            Verdict::Retry(delay, reason)
        }
        Ok(pb::NackAction::Park) => Verdict::Park(reason),
        Ok(pb::NackAction::Skip) => Verdict::Skip,
        Ok(pb::NackAction::BlockStream) => Verdict::Block(reason),
        Err(unknown) => return Err(Failure::invalid("nack.action", format_args!("{} is no action", unknown.0))),
    })
}

struct Member {
    app: App,
    membership: Arc<Membership>,
    lookup: Lookup,
    /// What was taken from the outbox and has not left.
    ready: VecDeque<Delivery>,
    /// Tells the listener that the client does not listen any more.
    _gone: DropGuard,
    _place: StreamPlace,
}

impl Member {
    async fn next(&mut self) -> Result<Option<pb::ConsumeResponse>, Failure> {
        loop {
            if let Some(events) = self.events().await? {
                return Ok(Some(message(told::Message::Deliveries(told::Deliveries { events }))));
            }
            let Some(next) = self.membership.outbox.next().await? else { return Ok(None) };
            let next = match next {
                Told::Deliveries(deliveries) => {
                    self.ready.extend(deliveries);
                    continue;
                }
                Told::Settled(sequence, stale) => {
                    let stale = stale.into_iter().map(proto_delivery).collect();
                    told::Message::Settled(told::Settled { sequence, stale })
                }
                Told::Assigned(partitions) => told::Message::Assigned(told::Assigned { partitions }),
                Told::Note(partition, Note::CaughtUp(offset)) => told::Message::CaughtUp(told::PartitionCaughtUp { partition, offset }),
                Told::Note(partition, Note::Lost { from, end, count }) => {
                    told::Message::Lost(told::PartitionLost { partition, from, end, count })
                }
                Told::Note(partition, Note::FellBehind(offset, end)) => {
                    told::Message::FellBehind(told::PartitionFellBehind { partition, offset, end })
                }
            };
            return Ok(Some(message(next)));
        }
    }

    /// As many events as fit into a message; none if none is ready.
    async fn events(&mut self) -> Result<Option<Vec<pb::Delivered>>, Failure> {
        let (mut events, mut bytes) = (Vec::new(), 0);
        while bytes < MESSAGE_BYTES
            && let Some(delivery) = self.ready.pop_front()
        {
            // It has become another's meanwhile, or soon will.
            if delivery.until.monotonic <= self.app.clock.monotonic() {
                continue;
            }
            let DeliveryRef { at, lease } = delivery.delivery;
            let of_partition = self.ready.iter().take_while(|next| next.delivery.at.0 == at.0);
            let last = of_partition.map(|next| next.delivery.at.1).max().unwrap_or(at.1);
            let ahead = u32::try_from(last.saturating_sub(at.1) + 1).unwrap_or(u32::MAX);
            let event = match self.lookup.run(at, ahead).await? {
                Some(run) => wire::recorded(&run)?.pop(),
                None => None,
            };
            let Some(event) = event else {
                self.membership.gone(delivery.delivery).await?;
                continue;
            };
            self.app.metrics.read_events.inc();
            let lease_until = Some(convert::proto_time(delivery.until.wall));
            let delivered =
                pb::Delivered { event: Some(event), attempt: delivery.attempt, lease, lease_until, replayed: delivery.replayed };
            bytes += prost::Message::encoded_len(&delivered);
            events.push(delivered);
        }
        if self.ready.is_empty() {
            self.lookup.rest();
        }
        Ok((!events.is_empty()).then_some(events))
    }
}

fn proto_delivery(delivery: DeliveryRef) -> pb::Delivery {
    pb::Delivery { partition: delivery.at.0, offset: delivery.at.1, lease: delivery.lease }
}

const fn message(message: told::Message) -> pb::ConsumeResponse {
    pb::ConsumeResponse { message: Some(message) }
}
