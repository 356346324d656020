//! Consumer groups from outside: created, listed, shown, moved, deleted; and the events that they put aside.
//!
//! [`crate::consumer`] is the side of a member.

use std::{str::FromStr, time::Duration};

use foldlog_proto::v1::{self, group_place::Place};

use crate::{
    client::{Client, Repeat, with_retries},
    error::Error,
    event::{EventQuery, Recorded, millis, timestamp},
};

/// Which events wait for which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Ordering {
    /// The events of a stream (records of a key) one after the other; streams in parallel.
    #[default]
    PerStream,
    /// The events of a partition one after the other.
    PerPartition,
    /// None waits for another.
    None,
}

impl FromStr for Ordering {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        [Self::PerStream, Self::PerPartition, Self::None]
            .into_iter()
            .find(|one| one.as_str() == text)
            .ok_or_else(|| Error::Invalid(format!("{text:?} is no order; there are per-stream, per-partition and none")))
    }
}

impl Ordering {
    /// The order as users write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PerStream => "per-stream",
            Self::PerPartition => "per-partition",
            Self::None => "none",
        }
    }
}

/// What becomes of an event whose attempts are used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnExhausted {
    /// It is put aside; what follows goes on.
    #[default]
    Park,
    /// It counts as done.
    Skip,
    /// It is put aside, and what is ordered behind it waits.
    BlockStream,
}

impl FromStr for OnExhausted {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        [Self::Park, Self::Skip, Self::BlockStream]
            .into_iter()
            .find(|one| one.as_str() == text)
            .ok_or_else(|| Error::Invalid(format!("{text:?} is not to be done; there are park, skip and block-stream")))
    }
}

impl OnExhausted {
    /// What becomes of it, as users write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Park => "park",
            Self::Skip => "skip",
            Self::BlockStream => "block-stream",
        }
    }
}

/// How a group delivers; what is none takes the server's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupSettings {
    /// Order.
    pub ordering: Ordering,
    /// Deliveries of an event before it counts as exhausted; none: 10.
    pub max_attempts: Option<u32>,
    /// Pause before the second attempt, which doubles with each; none: 1 s.
    pub backoff_first: Option<Duration>,
    /// Longest such pause; none: 60 s.
    pub backoff_max: Option<Duration>,
    /// How long a delivery may stay unacknowledged; none: 30 s.
    pub ack_timeout: Option<Duration>,
    /// What becomes of an event whose attempts are used up.
    pub on_exhausted: OnExhausted,
    /// Most deliveries that are not acknowledged, over all members; none: 1,000.
    pub max_in_flight: Option<u32>,
    /// Which events are the group's, of a topic of kind `events`; the others count as done. None: every event.
    pub filter: Option<EventQuery>,
}

/// What to alter of a group; what is none stays as it is. Ordering and filter can be altered while it has no member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupChanges {
    /// [`GroupSettings::ordering`].
    pub ordering: Option<Ordering>,
    /// [`GroupSettings::max_attempts`].
    pub max_attempts: Option<u32>,
    /// [`GroupSettings::backoff_first`].
    pub backoff_first: Option<Duration>,
    /// [`GroupSettings::backoff_max`].
    pub backoff_max: Option<Duration>,
    /// [`GroupSettings::ack_timeout`].
    pub ack_timeout: Option<Duration>,
    /// [`GroupSettings::on_exhausted`].
    pub on_exhausted: Option<OnExhausted>,
    /// [`GroupSettings::max_in_flight`].
    pub max_in_flight: Option<u32>,
    /// [`GroupSettings::filter`]; [`EventQuery::all`] lifts it. The group goes on from where it is: what it has passed over stays so.
    pub filter: Option<EventQuery>,
}

impl From<GroupSettings> for GroupChanges {
    fn from(settings: GroupSettings) -> Self {
        let GroupSettings { ordering, max_attempts, backoff_first, backoff_max, ack_timeout, on_exhausted, max_in_flight, filter } =
            settings;
        let (ordering, on_exhausted) = (Some(ordering), Some(on_exhausted));
        Self { ordering, max_attempts, backoff_first, backoff_max, ack_timeout, on_exhausted, max_in_flight, filter }
    }
}

/// Where a group begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupPlace {
    /// With the first event there is.
    #[default]
    Beginning,
    /// With what is appended from now on.
    End,
    /// With the first event at this position or behind it.
    Position(u64),
    /// With the first event recorded by the server at this time or later, in milliseconds since 1970 UTC.
    Time(i64),
}

/// A group as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Name.
    pub name: String,
    /// The topic.
    pub topic: String,
    /// How it delivers, every value given.
    pub settings: GroupSettings,
}

/// How far a group is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStatus {
    /// The group.
    pub group: Group,
    /// Members, in the order in which they joined. Empty in a list.
    pub members: Vec<GroupMember>,
    /// Partitions, in order. Empty in a list.
    pub partitions: Vec<GroupPartition>,
    /// Events that are not done.
    pub lag: u64,
    /// The server's time of the oldest event that is not done, in milliseconds since 1970 UTC.
    pub oldest_unacknowledged_ms: Option<i64>,
    /// Deliveries that are not acknowledged.
    pub in_flight: u64,
    /// Events that are put aside.
    pub parked: u64,
    /// Deliveries of an event beyond its first, since the server started.
    pub redeliveries: u64,
    /// How many members there are.
    pub member_count: u32,
    /// Offsets that retention removed before they were done, since the group was created or reset.
    pub lost: u64,
    /// Whether its topic was deleted, also if another one has its name now.
    pub topic_deleted: bool,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// As it called itself.
    pub consumer: String,
    /// Its partitions.
    pub partitions: Vec<u32>,
    /// Deliveries that it has not acknowledged.
    pub in_flight: u64,
}

/// A group's place in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPartition {
    /// Everything below this offset is done.
    pub offset: u64,
    /// The next offset to be given.
    pub end: u64,
    /// Events from `offset` on that are not done.
    pub lag: u64,
    /// Why it cannot be read, if that is so.
    pub error: Option<String>,
    /// What retention removed of it before it was done.
    pub lost: Option<GroupLoss>,
}

/// What a group lost of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupLoss {
    /// How many offsets, since the group was created or reset.
    pub total: u64,
    /// The newest of them, of which no member was told yet or was told last, lie from here on.
    pub from: u64,
    /// And before here.
    pub end: u64,
    /// How many these are; what else lies between was done.
    pub count: u64,
    /// When it was found, in milliseconds since 1970 UTC.
    pub found_at_ms: i64,
}

/// Why a parked event is not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParkedState {
    /// It was put aside.
    Parked,
    /// It was put aside, and what is ordered behind it waits.
    Blocking,
    /// It was given back, and is not acknowledged yet.
    Replaying,
}

impl ParkedState {
    /// The state as users read it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Parked => "parked",
            Self::Blocking => "blocking",
            Self::Replaying => "replaying",
        }
    }
}

/// An event that a group put aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
    /// The event; none if it is not in the log any more.
    pub event: Option<Recorded>,
    /// Why it is not delivered.
    pub state: ParkedState,
    /// How often it was delivered.
    pub attempts: u32,
    /// Why it was put aside.
    pub reason: String,
    /// When it was put aside, in milliseconds since 1970 UTC.
    pub parked_at_ms: i64,
}

impl Client {
    /// Creates a group over a topic that begins at `start`, or finds that it exists with the same settings.
    ///
    /// # Errors
    /// If it exists with other settings, or the topic does not exist.
    pub async fn create_group(&self, name: &str, topic: &str, settings: GroupSettings, start: GroupPlace) -> Result<Group, Error> {
        let (group, topic, settings) = (name.to_owned(), topic.to_owned(), Some(GroupChanges::from(settings).into_proto()?));
        let request = v1::CreateGroupRequest { group, topic, settings, start: Some(start.to_proto()) };
        let answer = self.group_call(Repeat::Safe, || {
            let (mut groups, request) = (self.groups(), request.clone());
            async move { groups.create(request).await }
        });
        Group::from_proto(answer.await?)
    }

    /// Lists groups by name, of all topics or of one.
    ///
    /// # Errors
    /// See [`Error::class`].
    pub async fn list_groups(&self, topic: Option<&str>) -> Result<Vec<GroupStatus>, Error> {
        let answer = self.group_call(Repeat::Safe, || {
            let (mut groups, topic) = (self.groups(), topic.unwrap_or_default().to_owned());
            async move { groups.list(v1::ListGroupsRequest { topic }).await }
        });
        answer.await?.groups.into_iter().map(GroupStatus::from_proto).collect()
    }

    /// Tells how far a group is.
    ///
    /// # Errors
    /// If it does not exist.
    pub async fn group(&self, name: &str) -> Result<GroupStatus, Error> {
        let answer = self.group_call(Repeat::Safe, || {
            let (mut groups, group) = (self.groups(), name.to_owned());
            async move { groups.get(v1::GetGroupRequest { group }).await }
        });
        GroupStatus::from_proto(answer.await?)
    }

    /// Moves a group without members to another place; parked events stay parked.
    ///
    /// # Errors
    /// If it does not exist, or has members.
    pub async fn reset_group(&self, name: &str, to: GroupPlace) -> Result<GroupStatus, Error> {
        let answer = self.group_call(Repeat::Safe, || {
            let (mut groups, group) = (self.groups(), name.to_owned());
            async move { groups.reset(v1::ResetGroupRequest { group, to: Some(to.to_proto()) }).await }
        });
        GroupStatus::from_proto(answer.await?)
    }

    /// Alters a group; what it is to do is done so from the next delivery on.
    ///
    /// # Errors
    /// If it does not exist, a value is out of range, or ordering or filter is to change while it has members.
    pub async fn alter_group(&self, name: &str, changes: GroupChanges) -> Result<GroupStatus, Error> {
        let request = v1::AlterGroupRequest { group: name.to_owned(), settings: Some(changes.into_proto()?) };
        let answer = self.group_call(Repeat::Safe, || {
            let (mut groups, request) = (self.groups(), request.clone());
            async move { groups.alter(request).await }
        });
        GroupStatus::from_proto(answer.await?)
    }

    /// Deletes a group without members, with everything that it kept.
    ///
    /// # Errors
    /// If it does not exist, or has members.
    pub async fn delete_group(&self, name: &str) -> Result<(), Error> {
        let answer = self.group_call(Repeat::IfFailed, || {
            let (mut groups, group) = (self.groups(), name.to_owned());
            async move { groups.delete(v1::DeleteGroupRequest { group }).await }
        });
        answer.await.map(drop)
    }

    /// Lists the events that a group put aside, by partition and offset, at most so many.
    ///
    /// # Errors
    /// If the group does not exist.
    pub async fn list_parked(&self, group: &str, limit: Option<usize>) -> Result<Vec<Parked>, Error> {
        let limit = limit.unwrap_or(usize::MAX);
        let mut parked: Vec<Parked> = Vec::new();
        loop {
            let after = parked.last().map(|last| v1::ParkedPlace { partition: last.partition, offset: last.offset });
            let left = u32::try_from((limit - parked.len()).min(1_000)).unwrap_or(1_000);
            let request = v1::ListParkedRequest { group: group.to_owned(), limit: left, after };
            let answer = self.group_call(Repeat::Safe, || {
                let (mut groups, request) = (self.groups(), request.clone());
                async move { groups.list_parked(request).await }
            });
            let answer = answer.await?;
            let is_last = !answer.more || answer.events.is_empty();
            for event in answer.events {
                parked.push(Parked::from_proto(event)?);
            }
            if is_last || parked.len() >= limit {
                return Ok(parked);
            }
        }
    }

    /// Gives parked events back to their group, all or those at a partition and offset; returns how many.
    ///
    /// # Errors
    /// If the group does not exist.
    pub async fn replay_parked(&self, group: &str, places: Option<&[(u32, u64)]>) -> Result<u64, Error> {
        let Some(places) = named(places) else { return Ok(0) };
        let answer = self.group_call(Repeat::IfFailed, || {
            let (mut groups, request) = (self.groups(), v1::ReplayParkedRequest { group: group.to_owned(), places: places.clone() });
            async move { groups.replay_parked(request).await }
        });
        Ok(answer.await?.count)
    }

    /// Forgets parked events, all or those at a partition and offset; returns how many.
    ///
    /// # Errors
    /// If the group does not exist.
    pub async fn discard_parked(&self, group: &str, places: Option<&[(u32, u64)]>) -> Result<u64, Error> {
        let Some(places) = named(places) else { return Ok(0) };
        let answer = self.group_call(Repeat::IfFailed, || {
            let (mut groups, request) = (self.groups(), v1::DiscardParkedRequest { group: group.to_owned(), places: places.clone() });
            async move { groups.discard_parked(request).await }
        });
        Ok(answer.await?.count)
    }

    async fn group_call<T, F>(&self, repeat: Repeat, mut call: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let once = || {
            let answer = call();
            async { answer.await.map(tonic::Response::into_inner).map_err(|status| self.error(status)) }
        };
        with_retries(repeat, None, once).await
    }
}

/// Places as they travel; none where nothing is named, which to the server would mean all.
fn named(places: Option<&[(u32, u64)]>) -> Option<Vec<v1::ParkedPlace>> {
    let Some(places) = places else { return Some(Vec::new()) };
    let place = |(partition, offset): &(u32, u64)| v1::ParkedPlace { partition: *partition, offset: *offset };
    (!places.is_empty()).then(|| places.iter().map(place).collect())
}

impl GroupPlace {
    fn to_proto(self) -> v1::GroupPlace {
        let place = match self {
            Self::Beginning => Place::Beginning(v1::group_place::Beginning {}),
            Self::End => Place::End(v1::group_place::End {}),
            Self::Position(position) => Place::Position(position),
            Self::Time(ms) => Place::Time(timestamp(ms)),
        };
        v1::GroupPlace { place: Some(place) }
    }
}

impl GroupChanges {
    fn into_proto(self) -> Result<v1::GroupSettings, Error> {
        let duration = |given: Option<Duration>| {
            let given = given.map(prost_types::Duration::try_from).transpose();
            given.map_err(|_| Error::Invalid("a duration is too long".to_owned()))
        };
        let ordering = match self.ordering {
            None => v1::Ordering::Unspecified,
            Some(Ordering::PerStream) => v1::Ordering::PerStream,
            Some(Ordering::PerPartition) => v1::Ordering::PerPartition,
            Some(Ordering::None) => v1::Ordering::None,
        };
        let on_exhausted = match self.on_exhausted {
            None => v1::OnExhausted::Unspecified,
            Some(OnExhausted::Park) => v1::OnExhausted::Park,
            Some(OnExhausted::Skip) => v1::OnExhausted::Skip,
            Some(OnExhausted::BlockStream) => v1::OnExhausted::BlockStream,
        };
        Ok(v1::GroupSettings {
            ordering: ordering.into(),
            max_attempts: self.max_attempts,
            backoff_first: duration(self.backoff_first)?,
            backoff_max: duration(self.backoff_max)?,
            ack_timeout: duration(self.ack_timeout)?,
            on_exhausted: on_exhausted.into(),
            max_in_flight: self.max_in_flight,
            filter: self.filter.map(EventQuery::into_proto),
        })
    }
}

impl GroupSettings {
    fn from_proto(settings: v1::GroupSettings) -> Result<Self, Error> {
        let unknown = |what: &str| Error::Protocol(format!("a group with {what} that is unknown here"));
        let duration = |given: Option<prost_types::Duration>| given.and_then(|given| Duration::try_from(given).ok());
        Ok(Self {
            ordering: match settings.ordering() {
                v1::Ordering::PerStream => Ordering::PerStream,
                v1::Ordering::PerPartition => Ordering::PerPartition,
                v1::Ordering::None => Ordering::None,
                v1::Ordering::Unspecified => return Err(unknown("an order")),
            },
            on_exhausted: match settings.on_exhausted() {
                v1::OnExhausted::Park => OnExhausted::Park,
                v1::OnExhausted::Skip => OnExhausted::Skip,
                v1::OnExhausted::BlockStream => OnExhausted::BlockStream,
                v1::OnExhausted::Unspecified => return Err(unknown("an end of attempts")),
            },
            max_attempts: settings.max_attempts,
            backoff_first: duration(settings.backoff_first),
            backoff_max: duration(settings.backoff_max),
            ack_timeout: duration(settings.ack_timeout),
            max_in_flight: settings.max_in_flight,
            filter: settings.filter.map(EventQuery::from_proto),
        })
    }
}

impl Group {
    fn from_proto(group: v1::Group) -> Result<Self, Error> {
        let settings = GroupSettings::from_proto(group.settings.unwrap_or_default())?;
        Ok(Self { name: group.group, topic: group.topic, settings })
    }
}

impl GroupStatus {
    fn from_proto(status: v1::GroupStatus) -> Result<Self, Error> {
        let group = status.group.ok_or_else(|| Error::Protocol("a group without a name".into()))?;
        let member =
            |member: v1::GroupMember| GroupMember { consumer: member.consumer, partitions: member.partitions, in_flight: member.in_flight };
        let partition = |partition: v1::GroupPartition| GroupPartition {
            offset: partition.offset,
            end: partition.end,
            lag: partition.lag,
            error: (!partition.error.is_empty()).then_some(partition.error),
            lost: partition.lost.map(|lost| GroupLoss {
                total: lost.total,
                from: lost.from,
                end: lost.end,
                count: lost.count,
                found_at_ms: lost.found_at.map(millis).unwrap_or_default(),
            }),
        };
        Ok(Self {
            group: Group::from_proto(group)?,
            members: status.members.into_iter().map(member).collect(),
            partitions: status.partitions.into_iter().map(partition).collect(),
            lag: status.lag,
            oldest_unacknowledged_ms: status.oldest_unacknowledged.map(millis),
            in_flight: status.in_flight,
            parked: status.parked,
            redeliveries: status.redeliveries,
            member_count: status.member_count,
            lost: status.lost,
            topic_deleted: status.topic_deleted,
        })
    }
}

impl Parked {
    fn from_proto(parked: v1::ParkedEvent) -> Result<Self, Error> {
        let state = match parked.state() {
            v1::ParkedState::Parked => ParkedState::Parked,
            v1::ParkedState::Blocking => ParkedState::Blocking,
            v1::ParkedState::Replaying => ParkedState::Replaying,
            v1::ParkedState::Unspecified => return Err(Error::Protocol("a parked event in a state that is unknown here".into())),
        };
        let place = parked.place.ok_or_else(|| Error::Protocol("a parked event without a place".into()))?;
        Ok(Self {
            partition: place.partition,
            offset: place.offset,
            event: parked.event.map(Recorded::from_proto).transpose()?,
            state,
            attempts: parked.attempts,
            reason: parked.reason,
            parked_at_ms: parked.parked_at.map(millis).unwrap_or_default(),
        })
    }
}
