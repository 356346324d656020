//! Topics: made, altered, deleted, listed, described; and where streams and the log stand.

use std::{fmt, str::FromStr, time::Duration};

use foldlog_proto::v1;

use crate::{
    client::{Client, Repeat, with_retries},
    durability::Durability,
    error::Error,
    event::Token,
    read::Beginning,
    redaction::Redacting,
};

/// What a topic holds and how it is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TopicKind {
    /// Streams of events with gapless versions; kept for ever unless told otherwise.
    #[default]
    Events,
    /// Plain records with an optional key.
    Records,
    /// The newest value of each key.
    Table,
}

impl TopicKind {
    /// The kind as users write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Records => "records",
            Self::Table => "table",
        }
    }

    const fn to_proto(self) -> v1::TopicKind {
        match self {
            Self::Events => v1::TopicKind::Events,
            Self::Records => v1::TopicKind::Records,
            Self::Table => v1::TopicKind::Table,
        }
    }
}

impl fmt::Display for TopicKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for TopicKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "events" => Ok(Self::Events),
            "records" => Ok(Self::Records),
            "table" => Ok(Self::Table),
            _ => Err(Error::Invalid(format!("{text:?} is not a kind of topic; there are events, records and table"))),
        }
    }
}

/// How the batches of a topic are compressed where they lie for long. Readers do not see a difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// LZ4: fast, about half the size for events in JSON.
    Lz4,
    /// Zstandard: smaller, at about twice the price.
    Zstd,
}

impl Compression {
    /// The compression as users write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    const fn to_proto(self) -> v1::Compression {
        match self {
            Self::None => v1::Compression::None,
            Self::Lz4 => v1::Compression::Lz4,
            Self::Zstd => v1::Compression::Zstd,
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Compression {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "none" => Ok(Self::None),
            "lz4" => Ok(Self::Lz4),
            "zstd" => Ok(Self::Zstd),
            _ => Err(Error::Invalid(format!("{text:?} is not a compression; there are none, lz4 and zstd"))),
        }
    }
}

/// How long a topic keeps its records; with neither, for ever. Whole segments go, so that up to a quarter more is kept. Streams of a topic of kind
/// `events` begin behind what went, keep their versions and their newest snapshot, and query conditions find what they found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// What the server recorded longer ago may go: from one second to 100 years, in whole milliseconds.
    pub time: Option<Duration>,
    /// The newest so many bytes of batches stay in each partition, what is older may go: at least 16,384.
    pub bytes: Option<u64>,
}

impl Retention {
    fn to_proto(self) -> Option<v1::Retention> {
        let time = self.time.map(time_to_proto);
        (self != Self::default()).then_some(v1::Retention { time, bytes: self.bytes })
    }

    fn from_proto(retention: Option<v1::Retention>) -> Self {
        let Some(retention) = retention else { return Self::default() };
        Self { time: retention.time.and_then(|time| Duration::try_from(time).ok()), bytes: retention.bytes }
    }
}

fn time_to_proto(time: Duration) -> prost_types::Duration {
    // One that is too long for the wire is too long for a topic.
    prost_types::Duration::try_from(time).unwrap_or(prost_types::Duration { seconds: i64::MAX, nanos: 0 })
}

/// When a topic of kind `table` is rid of what a newer record of the same key replaced; what is left out has its default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compaction {
    /// For how long a record without a value, a tombstone, stays to be seen after what it deletes is gone. Default a day; up to 100 years,
    /// whole milliseconds, as all of these.
    pub delete_retention: Option<Duration>,
    /// What was recorded more recently stays, replaced or not. Default 0; at most `max_lag`.
    pub min_lag: Option<Duration>,
    /// What was replaced is gone about so long after it was recorded. Default 7 days; from one second to 100 years.
    pub max_lag: Option<Duration>,
    /// A partition is compacted once so many hundredths of its bytes have not been looked at. Default 50; from 1 to 100.
    pub dirty_percent: Option<u32>,
}

impl Compaction {
    fn to_proto(self) -> Option<v1::Compaction> {
        let Self { delete_retention, min_lag, max_lag, dirty_percent } = self;
        let [delete_retention, min_lag, max_lag] = [delete_retention, min_lag, max_lag].map(|time| time.map(time_to_proto));
        (self != Self::default()).then_some(v1::Compaction { delete_retention, min_lag, max_lag, dirty_percent })
    }

    fn from_proto(compaction: v1::Compaction) -> Self {
        let v1::Compaction { delete_retention, min_lag, max_lag, dirty_percent } = compaction;
        let times = [delete_retention, min_lag, max_lag].map(|time| time.and_then(|time| Duration::try_from(time).ok()));
        let [delete_retention, min_lag, max_lag] = times;
        Self { delete_retention, min_lag, max_lag, dirty_percent }
    }
}

/// How the compaction of a partition stands; in a topic of kind `events` the removal of what its streams let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionState {
    /// The partition.
    pub partition: u32,
    /// Below this offset no record is replaced by another one below it.
    pub cleaned_to: u64,
    /// Bytes of its segments.
    pub bytes: u64,
    /// Bytes of those that were never looked at; in a topic of kind `events` what may go, about.
    pub dirty_bytes: u64,
    /// Hundredths that a pass has done, while one is under way.
    pub percent: Option<u32>,
}

impl From<v1::CompactionState> for CompactionState {
    fn from(state: v1::CompactionState) -> Self {
        let v1::CompactionState { partition, cleaned_to, bytes, dirty_bytes, percent } = state;
        Self { partition, cleaned_to, bytes, dirty_bytes, percent }
    }
}

/// Somebody who needs records of a topic, so that neither retention nor compaction removes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Who: the id of a query.
    pub owner: String,
    /// Nothing at this position or behind it is removed.
    pub position: u64,
}

/// A topic as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Name.
    pub name: String,
    /// 16 bytes; another one after the topic was deleted and created again.
    pub id: Vec<u8>,
    /// Kind; never changes.
    pub kind: TopicKind,
    /// Number of partitions.
    pub partitions: u32,
    /// How durable appends are when answered, if they do not ask.
    pub durability: Durability,
    /// How its batches are compressed.
    pub compression: Compression,
    /// How long it keeps its records.
    pub retention: Retention,
    /// When it is rid of what was replaced; none for kinds other than `table`.
    pub compaction: Option<Compaction>,
}

/// What is chosen when a topic is created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicSettings {
    /// Kind.
    pub kind: TopicKind,
    /// Number of partitions; none: 8.
    pub partitions: Option<u32>,
    /// How durable appends are when answered, if they do not ask; none: synced.
    pub durability: Option<Durability>,
    /// How its batches are compressed.
    pub compression: Compression,
    /// How long it keeps its records.
    pub retention: Retention,
    /// When it is rid of what was replaced; only for kind `table`.
    pub compaction: Compaction,
}

/// What is to be altered of a topic; what is none stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicChanges {
    /// Number of partitions: no fewer than there are, and more only of topics of kind `records`, where a key may lie in another partition
    /// from then on.
    pub partitions: Option<u32>,
    /// How durable appends are when answered, if they do not ask.
    pub durability: Option<Durability>,
    /// How batches are compressed that come to lie for long from now on.
    pub compression: Option<Compression>,
    /// [`Retention::time`]; zero: age lets nothing go any more.
    pub retention_time: Option<Duration>,
    /// [`Retention::bytes`]; zero: they let nothing go any more.
    pub retention_bytes: Option<u64>,
    /// When a table is rid of what was replaced; what is none in it stays as it is.
    pub compaction: Compaction,
}

impl Topic {
    fn from_proto(topic: v1::Topic) -> Result<Self, Error> {
        let kind = match topic.kind() {
            v1::TopicKind::Events => TopicKind::Events,
            v1::TopicKind::Records => TopicKind::Records,
            v1::TopicKind::Table => TopicKind::Table,
            v1::TopicKind::Unspecified => return Err(Error::Protocol(format!("topic {} is of a kind unknown here", topic.name))),
        };
        let durability = Durability::from_proto(topic.durability)?;
        let compression = match topic.compression() {
            // A server of a time before there was any says nothing.
            v1::Compression::Unspecified | v1::Compression::None => Compression::None,
            v1::Compression::Lz4 => Compression::Lz4,
            v1::Compression::Zstd => Compression::Zstd,
        };
        let retention = Retention::from_proto(topic.retention);
        let compaction = topic.compaction.map(Compaction::from_proto);
        let (id, partitions) = (topic.id.to_vec(), topic.partitions);
        Ok(Self { name: topic.name, id, kind, partitions, durability, compression, retention, compaction })
    }
}

/// A topic, where it ends, and what may be appended to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDescription {
    /// The topic.
    pub topic: Topic,
    /// The next offset of each partition, in order.
    pub ends: Vec<u64>,
    /// The oldest offset left of each partition, in order; its end if nothing is.
    pub firsts: Vec<u64>,
    /// Who keeps retention and compaction from removing records, by owner.
    pub holders: Vec<Holder>,
    /// How compaction stands, by partition; for kind `events` where streams have let go of something; empty for kind `records`.
    pub compaction: Vec<CompactionState>,
    /// Whether compaction was told to pause.
    pub compaction_paused: bool,
    /// What is left of what was redacted in it; none: nothing.
    pub redacting: Option<Redacting>,
    /// Most bytes of one event.
    pub max_event_bytes: u64,
    /// Most bytes of the events of one append.
    pub max_append_bytes: u64,
    /// Most events of one append.
    pub max_append_events: u32,
    /// Most tags of one event.
    pub max_event_tags: u32,
    /// Most bytes of one tag.
    pub max_tag_bytes: u32,
}

/// Where a stream stands and begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamInfo {
    /// The topic.
    pub topic: String,
    /// The stream.
    pub stream: String,
    /// Its partition.
    pub partition: u32,
    /// Version of the newest event it was ever given; none if it has none, or is tombstoned.
    pub version: Option<u64>,
    /// Where it begins.
    pub beginning: Beginning,
    /// Whether it was deleted, and nothing was appended since.
    pub deleted: bool,
    /// Whether it was ended for good.
    pub tombstoned: bool,
    /// What is left of what was redacted in it; none: nothing.
    pub redacting: Option<Redacting>,
    /// The end of the log as of this answer.
    pub token: Token,
}

/// Where the log ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Reads and queries with it reflect everything below `position`.
    pub token: Token,
    /// Next position to be given.
    pub position: u64,
    /// The next offset of each of the topic's partitions, in order; empty if no topic was named.
    pub ends: Vec<u64>,
}

impl Client {
    /// Creates a topic, or finds that it exists with the same settings.
    ///
    /// # Errors
    /// If it exists with other settings, or the name is not allowed.
    pub async fn create_topic(&self, name: &str, kind: TopicKind, partitions: Option<u32>) -> Result<Topic, Error> {
        self.create_topic_with(name, TopicSettings { kind, partitions, ..TopicSettings::default() }).await
    }

    /// Creates a topic with settings, or finds that it exists with the same.
    ///
    /// # Errors
    /// If it exists with other settings, or the name is not allowed.
    pub async fn create_topic_with(&self, name: &str, settings: TopicSettings) -> Result<Topic, Error> {
        let TopicSettings { kind, partitions, durability, compression, retention, compaction } = settings;
        let request = v1::CreateTopicRequest {
            name: name.to_owned(),
            kind: kind.to_proto().into(),
            partitions,
            durability: durability.map_or(v1::Durability::Unspecified, Durability::to_proto).into(),
            compression: compression.to_proto().into(),
            retention: retention.to_proto(),
            compaction: compaction.to_proto(),
        };
        let answer = self.call(|| {
            let (mut topics, request) = (self.topics(), request.clone());
            async move { topics.create(request).await }
        });
        Topic::from_proto(answer.await?)
    }

    /// Alters a topic while it is in use: it goes on so with the next append.
    ///
    /// # Errors
    /// If it does not exist, or what is asked for cannot be; then nothing was altered.
    pub async fn alter_topic(&self, name: &str, changes: TopicChanges) -> Result<Topic, Error> {
        let request = v1::AlterTopicRequest {
            name: name.to_owned(),
            partitions: changes.partitions,
            durability: changes.durability.map_or(v1::Durability::Unspecified, Durability::to_proto).into(),
            compression: changes.compression.map_or(v1::Compression::Unspecified, Compression::to_proto).into(),
            retention_time: changes.retention_time.map(time_to_proto),
            retention_bytes: changes.retention_bytes,
            compaction: changes.compaction.to_proto(),
        };
        let answer = self.call(|| {
            let (mut topics, request) = (self.topics(), request.clone());
            async move { topics.alter(request).await }
        });
        Topic::from_proto(answer.await?)
    }

    /// Deletes a topic with all that it holds, for ever. Repeated when its answer is lost, so that it may find that there is none.
    ///
    /// # Errors
    /// If it does not exist, or a stream, a table or a query is made of it.
    pub async fn delete_topic(&self, name: &str) -> Result<(), Error> {
        let answer = self.call(|| {
            let (mut topics, name) = (self.topics(), name.to_owned());
            async move { topics.delete(v1::DeleteTopicRequest { name }).await }
        });
        answer.await.map(drop)
    }

    /// Lists topics by name; foldlog's own only with `include_system`.
    ///
    /// # Errors
    /// See [`Error::class`].
    pub async fn list_topics(&self, include_system: bool) -> Result<Vec<Topic>, Error> {
        let answer = self.call(|| {
            let mut topics = self.topics();
            async move { topics.list(v1::ListTopicsRequest { include_system }).await }
        });
        answer.await?.topics.into_iter().map(Topic::from_proto).collect()
    }

    /// Describes a topic.
    ///
    /// # Errors
    /// If it does not exist.
    pub async fn describe_topic(&self, name: &str) -> Result<TopicDescription, Error> {
        let answer = self.call(|| {
            let (mut topics, name) = (self.topics(), name.to_owned());
            async move { topics.describe(v1::DescribeTopicRequest { name }).await }
        });
        let answer = answer.await?;
        let topic = answer.topic.ok_or_else(|| Error::Protocol("a description without a topic".into()))?;
        let limits = answer.limits.unwrap_or_default();
        Ok(TopicDescription {
            topic: Topic::from_proto(topic)?,
            ends: answer.ends.into_iter().map(|end| end.offset).collect(),
            firsts: answer.firsts.into_iter().map(|first| first.offset).collect(),
            holders: answer.holders.into_iter().map(|one| Holder { owner: one.owner, position: one.position }).collect(),
            compaction: answer.compaction.into_iter().map(Into::into).collect(),
            compaction_paused: answer.compaction_paused,
            redacting: answer.redaction.map(Redacting::from_proto),
            max_event_bytes: limits.max_event_bytes,
            max_append_bytes: limits.max_append_bytes,
            max_append_events: limits.max_append_events,
            max_event_tags: limits.max_event_tags,
            max_tag_bytes: limits.max_tag_bytes,
        })
    }

    /// Has the compaction of all topics stop where it is, or go on from there. Not remembered over a restart.
    ///
    /// # Errors
    /// See [`Error::class`].
    pub async fn pause_compaction(&self, paused: bool) -> Result<(), Error> {
        let answer = self.call(|| {
            let mut topics = self.topics();
            async move { topics.pause_compaction(v1::PauseCompactionRequest { paused }).await }
        });
        answer.await.map(drop)
    }

    /// Tells where a stream stands and begins; with a token, at least as of that.
    ///
    /// # Errors
    /// If the topic does not exist or has no streams.
    pub async fn get_stream(&self, topic: &str, stream: &str, at_least: Option<Token>) -> Result<StreamInfo, Error> {
        let at_least = Token::into_proto(at_least);
        self.stream_info(v1::GetStreamRequest {
            topic: topic.to_owned(),
            stream: stream.to_owned(),
            at_least,
            ..v1::GetStreamRequest::default()
        })
        .await
    }

    pub(crate) async fn stream_info(&self, request: v1::GetStreamRequest) -> Result<StreamInfo, Error> {
        let answer = self.call(|| {
            let (mut log, request) = (self.log(), request.clone());
            async move { log.get_stream(request).await }
        });
        let info = answer.await?;
        Ok(StreamInfo {
            topic: info.topic,
            stream: info.stream,
            partition: info.partition,
            version: info.version,
            beginning: info.beginning.map_or_else(Beginning::default, Beginning::from_proto),
            deleted: info.deleted,
            tombstoned: info.tombstoned,
            redacting: info.redaction.map(Redacting::from_proto),
            token: Token::from_bytes(info.token),
        })
    }

    /// Tells where the log ends, and the partitions of `topic` if one is named.
    ///
    /// # Errors
    /// If the topic does not exist.
    pub async fn head(&self, topic: Option<&str>) -> Result<Head, Error> {
        let answer = self.call(|| {
            let (mut log, topic) = (self.log(), topic.unwrap_or_default().to_owned());
            async move { log.get_head(v1::GetHeadRequest { topic }).await }
        });
        let head = answer.await?;
        let ends = head.ends.into_iter().map(|end| end.offset).collect();
        Ok(Head { token: Token::from_bytes(head.token), position: head.position, ends })
    }

    /// Calls something that may be repeated without harm.
    pub(crate) async fn call<T, F>(&self, mut call: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let once = || {
            let answer = call();
            async { answer.await.map(tonic::Response::into_inner).map_err(|status| self.error(status)) }
        };
        with_retries(Repeat::Safe, None::<Duration>, once).await
    }
}
