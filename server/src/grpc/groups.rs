//! The service `Groups`: thin. [`super::consume`] answers its stream.

use std::{pin::Pin, time::Duration};

use foldlog_log::Position;
use foldlog_proto::v1::{self as pb, group_place, groups_server};
use futures::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::{consume, convert, wire};
use crate::{
    app::App,
    failure::{Failure, Kind},
    groups::{
        config::{GroupChanges, GroupConfig, GroupName, OnExhausted, Ordering, Place},
        delivery::At,
        parked::{Parked, ParkedState},
        record::Definition,
        source::Lookup,
        status::{self, Snapshot},
    },
};

const MOST_PARKED: usize = 1_000;
/// Bytes of events after which a list of parked ones ends.
const LIST_BYTES: usize = 2 << 20;
const HOUR: Duration = Duration::from_secs(3600);

/// Answers the calls of `Groups`.
pub struct Groups(pub App);

type Messages = Pin<Box<dyn Stream<Item = Result<pb::ConsumeResponse, Status>> + Send>>;

#[tonic::async_trait]
impl groups_server::Groups for Groups {
    type ConsumeStream = Messages;

    async fn create(&self, request: Request<pb::CreateGroupRequest>) -> Result<Response<pb::Group>, Status> {
        self.answer(create(&self.0, request.into_inner()).await)
    }

    async fn list(&self, request: Request<pb::ListGroupsRequest>) -> Result<Response<pb::ListGroupsResponse>, Status> {
        self.answer(list(&self.0, &request.into_inner()))
    }

    async fn get(&self, request: Request<pb::GetGroupRequest>) -> Result<Response<pb::GroupStatus>, Status> {
        self.answer(get(&self.0, &request.into_inner()).await)
    }

    async fn alter(&self, request: Request<pb::AlterGroupRequest>) -> Result<Response<pb::GroupStatus>, Status> {
        self.answer(alter(&self.0, request.into_inner()).await)
    }

    async fn delete(&self, request: Request<pb::DeleteGroupRequest>) -> Result<Response<pb::DeleteGroupResponse>, Status> {
        self.answer(delete(&self.0, &request.into_inner()).await)
    }

    async fn reset(&self, request: Request<pb::ResetGroupRequest>) -> Result<Response<pb::GroupStatus>, Status> {
        self.answer(reset(&self.0, request.into_inner()).await)
    }

    async fn consume(&self, request: Request<Streaming<pb::ConsumeRequest>>) -> Result<Response<Messages>, Status> {
        let messages = Box::pin(consume::consume(&self.0, request.into_inner())).await;
        self.answer(messages.map(|messages| consume::guarded(&self.0, messages)))
    }

    async fn list_parked(&self, request: Request<pb::ListParkedRequest>) -> Result<Response<pb::ListParkedResponse>, Status> {
        self.answer(list_parked(&self.0, request.into_inner()).await)
    }

    async fn replay_parked(&self, request: Request<pb::ReplayParkedRequest>) -> Result<Response<pb::ReplayParkedResponse>, Status> {
        let request = request.into_inner();
        let count = async { self.0.stage()?.groups.replay(&name(&request.group)?, places(&request.places)?).await };
        self.answer(count.await.map(|count| pb::ReplayParkedResponse { count }))
    }

    async fn discard_parked(&self, request: Request<pb::DiscardParkedRequest>) -> Result<Response<pb::DiscardParkedResponse>, Status> {
        let request = request.into_inner();
        let count = async { self.0.stage()?.groups.discard(&name(&request.group)?, places(&request.places)?).await };
        self.answer(count.await.map(|count| pb::DiscardParkedResponse { count }))
    }
}

impl Groups {
    fn answer<T>(&self, answer: Result<T, Failure>) -> Result<Response<T>, Status> {
        answer.map(Response::new).map_err(|failure| self.0.refuse(failure))
    }
}

async fn create(app: &App, request: pb::CreateGroupRequest) -> Result<pb::Group, Failure> {
    let groups = &app.stage()?.groups;
    let topic = convert::user_topic(&request.topic, || "topic".to_owned())?;
    let config = GroupConfig::default().altered(changes(request.settings.unwrap_or_default())?);
    let definition = groups.create(name(&request.group)?, topic, config, place(request.start, "start")?).await?;
    Ok(proto_group(&definition))
}

fn list(app: &App, request: &pb::ListGroupsRequest) -> Result<pb::ListGroupsResponse, Failure> {
    let stage = app.stage()?;
    let listed = stage.groups.list();
    let of_topic = listed.iter().filter(|(definition, _)| request.topic.is_empty() || definition.topic.as_str() == request.topic);
    let status = |(definition, shown): &(Definition, Snapshot)| pb::GroupStatus {
        group: Some(proto_group(definition)),
        lag: shown.lag(&*stage.log),
        oldest_unacknowledged: shown.oldest.map(convert::proto_time),
        in_flight: shown.in_flight as u64,
        parked: shown.parked as u64,
        redeliveries: shown.redeliveries,
        lost: shown.lost,
        member_count: u32::try_from(shown.members).unwrap_or(u32::MAX),
        topic_deleted: shown.topic_deleted(&*stage.log),
        ..pb::GroupStatus::default()
    };
    Ok(pb::ListGroupsResponse { groups: of_topic.map(status).collect() })
}

async fn get(app: &App, request: &pb::GetGroupRequest) -> Result<pb::GroupStatus, Failure> {
    Ok(proto_status(app.stage()?.groups.status(&name(&request.group)?).await?))
}

async fn alter(app: &App, request: pb::AlterGroupRequest) -> Result<pb::GroupStatus, Failure> {
    let groups = &app.stage()?.groups;
    let changes = changes(request.settings.unwrap_or_default())?;
    Ok(proto_status(groups.alter(&name(&request.group)?, changes).await?))
}

async fn delete(app: &App, request: &pb::DeleteGroupRequest) -> Result<pb::DeleteGroupResponse, Failure> {
    app.stage()?.groups.delete(&name(&request.group)?).await?;
    Ok(pb::DeleteGroupResponse {})
}

async fn reset(app: &App, request: pb::ResetGroupRequest) -> Result<pb::GroupStatus, Failure> {
    let to = request.to.filter(|to| to.place.is_some()).ok_or_else(|| Failure::invalid("to", "is required"))?;
    let to = place(Some(to), "to")?;
    Ok(proto_status(app.stage()?.groups.reset(&name(&request.group)?, to).await?))
}

async fn list_parked(app: &App, request: pb::ListParkedRequest) -> Result<pb::ListParkedResponse, Failure> {
    let groups = &app.stage()?.groups;
    let limit = match request.limit as usize {
        0 => MOST_PARKED,
        limit => limit.min(MOST_PARKED),
    };
    let after = request.after.map(|place| (place.partition, place.offset));
    let (listed, source) = groups.list_parked(&name(&request.group)?, after, limit + 1).await?;
    let mut lookup = source.map(Lookup::new);
    let (mut events, mut bytes) = (Vec::new(), 0);
    let more = listed.len() > limit;
    let count = listed.len().min(limit);
    for (at, parked) in listed.into_iter().take(limit) {
        if bytes >= LIST_BYTES {
            break;
        }
        let found = match &mut lookup {
            Some(lookup) => lookup.run(at, 1).await?,
            None => None,
        };
        let event = found.map(|run| wire::recorded(&run)).transpose()?.and_then(|mut events| events.pop());
        let event = proto_parked(at, parked, event);
        bytes += prost::Message::encoded_len(&event);
        events.push(event);
    }
    Ok(pb::ListParkedResponse { more: more || events.len() < count, events })
}

/// The name of a group.
pub fn name(given: &str) -> Result<GroupName, Failure> {
    given.parse().map_err(|error| Failure::name("group", &error))
}

fn places(given: &[pb::ParkedPlace]) -> Result<Vec<At>, Failure> {
    if given.len() > crate::groups::parked::MAX_PARKED {
        return Err(Failure::invalid("places", format_args!("at most {} are taken", crate::groups::parked::MAX_PARKED)));
    }
    Ok(given.iter().map(|place| (place.partition, place.offset)).collect())
}

fn place(given: Option<pb::GroupPlace>, field: &str) -> Result<Place, Failure> {
    use group_place::Place as Given;
    Ok(match given.and_then(|given| given.place) {
        None | Some(Given::Beginning(_)) => Place::Beginning,
        Some(Given::End(_)) => Place::End,
        Some(Given::Position(position)) => Place::Position(Position::new(position)),
        Some(Given::Time(time)) => Place::Time(convert::time(time, || format!("{field}.time"))?),
    })
}

/// What settings say; none where they say nothing.
fn changes(given: pb::GroupSettings) -> Result<GroupChanges, Failure> {
    let unknown = |field: &str, number: i32| Failure::invalid(field.to_owned(), format_args!("{number} is none"));
    let ordering = match pb::Ordering::try_from(given.ordering) {
        Ok(pb::Ordering::Unspecified) => None,
        Ok(pb::Ordering::PerStream) => Some(Ordering::PerStream),
        Ok(pb::Ordering::PerPartition) => Some(Ordering::PerPartition),
        Ok(pb::Ordering::None) => Some(Ordering::None),
        Err(error) => return Err(unknown("settings.ordering", error.0)),
    };
    let on_exhausted = match pb::OnExhausted::try_from(given.on_exhausted) {
        Ok(pb::OnExhausted::Unspecified) => None,
        Ok(pb::OnExhausted::Park) => Some(OnExhausted::Park),
        Ok(pb::OnExhausted::Skip) => Some(OnExhausted::Skip),
        Ok(pb::OnExhausted::BlockStream) => Some(OnExhausted::BlockStream),
        Err(error) => return Err(unknown("settings.on_exhausted", error.0)),
    };
    let duration = |given: Option<prost_types::Duration>, most: Duration, field: &str| {
        given.map(|given| convert::duration(Some(given), most, most, field)).transpose()
    };
    let filter = given.filter.map(|filter| convert::event_query(filter, |part| format!("settings.filter.{part}")));
    let changes = GroupChanges {
        ordering,
        on_exhausted,
        max_attempts: given.max_attempts,
        backoff_first: duration(given.backoff_first, HOUR, "settings.backoff_first")?,
        backoff_max: duration(given.backoff_max, 24 * HOUR, "settings.backoff_max")?,
        ack_timeout: duration(given.ack_timeout, 12 * HOUR, "settings.ack_timeout")?,
        max_in_flight: given.max_in_flight,
        filter: filter.transpose()?,
    };
    match GroupConfig::default().altered(changes.clone()).faults().first() {
        None => Ok(changes),
        Some((field, rule)) => Err(Failure::invalid(format!("settings.{field}"), rule)),
    }
}

fn proto_group(definition: &Definition) -> pb::Group {
    let config = &definition.config;
    let duration = |duration: Duration| prost_types::Duration::try_from(duration).ok();
    let settings = pb::GroupSettings {
        ordering: match config.ordering {
            Ordering::PerStream => pb::Ordering::PerStream,
            Ordering::PerPartition => pb::Ordering::PerPartition,
            Ordering::None => pb::Ordering::None,
        }
        .into(),
        max_attempts: Some(config.max_attempts),
        backoff_first: duration(config.backoff_first),
        backoff_max: duration(config.backoff_max),
        ack_timeout: duration(config.ack_timeout),
        on_exhausted: match config.on_exhausted {
            OnExhausted::Park => pb::OnExhausted::Park,
            OnExhausted::Skip => pb::OnExhausted::Skip,
            OnExhausted::BlockStream => pb::OnExhausted::BlockStream,
        }
        .into(),
        max_in_flight: Some(config.max_in_flight),
        filter: config.filter.as_ref().map(convert::proto_query),
    };
    pb::Group { group: definition.name.to_string(), topic: definition.topic.to_string(), settings: Some(settings) }
}

fn proto_status(status: status::Status) -> pb::GroupStatus {
    let group = proto_group(&status.definition);
    let lag = status.partitions.iter().map(|partition| partition.lag).sum();
    let member_count = u32::try_from(status.members.len()).unwrap_or(u32::MAX);
    let members = status.members.into_iter().map(|member| pb::GroupMember {
        consumer: member.consumer,
        partitions: member.partitions,
        in_flight: member.in_flight as u64,
    });
    let partitions = (0..).zip(status.partitions).map(|(number, partition)| pb::GroupPartition {
        partition: number,
        offset: partition.offset,
        end: partition.end,
        lag: partition.lag,
        error: partition.error.unwrap_or_default(),
        lost: partition.lost.map(|lost| pb::GroupLoss {
            total: lost.total,
            from: lost.from,
            end: lost.end,
            count: lost.count,
            found_at: Some(convert::proto_time(lost.at)),
        }),
    });
    pb::GroupStatus {
        group: Some(group),
        members: members.collect(),
        partitions: partitions.collect(),
        lag,
        oldest_unacknowledged: status.oldest.map(convert::proto_time),
        in_flight: status.in_flight as u64,
        parked: status.parked as u64,
        redeliveries: status.redeliveries,
        lost: status.lost,
        member_count,
        topic_deleted: status.topic_deleted,
    }
}

fn proto_parked(at: At, parked: Parked, event: Option<pb::RecordedEvent>) -> pb::ParkedEvent {
    pb::ParkedEvent {
        event,
        place: Some(pb::ParkedPlace { partition: at.0, offset: at.1 }),
        state: match parked.state {
            ParkedState::Parked => pb::ParkedState::Parked,
            ParkedState::Blocking => pb::ParkedState::Blocking,
            ParkedState::Replaying => pb::ParkedState::Replaying,
        }
        .into(),
        attempts: parked.attempts,
        reason: parked.reason,
        parked_at: Some(convert::proto_time(parked.at)),
    }
}

/// What a client sends where the order of things is another.
pub fn misplaced(message: &str) -> Failure {
    Failure::new(Kind::Invalid, "INVALID_REQUEST", message)
}
