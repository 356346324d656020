//! The service `Topics`: thin.

use std::{sync::Arc, time::Duration};

use foldlog_log::{CompactionState, Compression, NewEvent, Tag, TopicChanges, TopicKind, TopicSettings};
use foldlog_proto::v1::{self as pb, topics_server};
use tonic::{Request, Response, Status};

use super::{convert, events};
use crate::{
    app::App,
    failure::{Failure, Kind},
};

/// Answers the calls of `Topics`.
pub struct Topics(pub App);

#[tonic::async_trait]
impl topics_server::Topics for Topics {
    async fn create(&self, request: Request<pb::CreateTopicRequest>) -> Result<Response<pb::Topic>, Status> {
        self.answer(create(&self.0, request.into_inner()).await)
    }

    async fn alter(&self, request: Request<pb::AlterTopicRequest>) -> Result<Response<pb::Topic>, Status> {
        self.answer(alter(&self.0, request.into_inner()).await)
    }

    async fn delete(&self, request: Request<pb::DeleteTopicRequest>) -> Result<Response<pb::DeleteTopicResponse>, Status> {
        self.answer(delete(&self.0, &request.into_inner()).await)
    }

    async fn list(&self, request: Request<pb::ListTopicsRequest>) -> Result<Response<pb::ListTopicsResponse>, Status> {
        self.answer(list(&self.0, &request.into_inner()))
    }

    async fn describe(&self, request: Request<pb::DescribeTopicRequest>) -> Result<Response<pb::DescribeTopicResponse>, Status> {
        self.answer(describe(&self.0, &request.into_inner()))
    }

    async fn pause_compaction(
        &self,
        request: Request<pb::PauseCompactionRequest>,
    ) -> Result<Response<pb::PauseCompactionResponse>, Status> {
        self.answer(self.0.stage().map(|stage| {
            stage.log.pause_compaction(request.into_inner().paused);
            pb::PauseCompactionResponse {}
        }))
    }
}

impl Topics {
    fn answer<T>(&self, answer: Result<T, Failure>) -> Result<Response<T>, Status> {
        answer.map(Response::new).map_err(|failure| self.0.refuse(failure))
    }
}

async fn create(app: &App, request: pb::CreateTopicRequest) -> Result<pb::Topic, Failure> {
    let stage = app.stage()?;
    let name = convert::user_topic(&request.name, || "name".to_owned())?;
    let kind = match pb::TopicKind::try_from(request.kind) {
        Ok(pb::TopicKind::Unspecified | pb::TopicKind::Events) => TopicKind::Events,
        Ok(pb::TopicKind::Records) => TopicKind::Records,
        Ok(pb::TopicKind::Table) => TopicKind::Table,
        Err(unknown) => return Err(Failure::invalid("kind", format_args!("{} is no kind of topic", unknown.0))),
    };
    let compression = compression(request.compression)?.unwrap_or_default();
    let partitions = request.partitions.unwrap_or(TopicSettings::DEFAULT_PARTITIONS);
    if !(1..=TopicSettings::MAX_PARTITIONS).contains(&partitions) {
        return Err(Failure::invalid("partitions", format_args!("1 to {}", TopicSettings::MAX_PARTITIONS)));
    }
    let durability = convert::durability(request.durability)?.unwrap_or_default();
    let retention = convert::retention(request.retention)?;
    let compaction = convert::compaction(request.compaction)?;
    let settings = TopicSettings { kind, partitions, durability, compression, retention, compaction };
    let log = Arc::clone(&stage.log);
    let created = tokio::task::spawn_blocking(move || log.create_topic(name, settings)).await;
    let topic = created.map_err(|_| Failure::new(Kind::Unknown, "OUTCOME_UNKNOWN", "the creation was interrupted"))??;
    Ok(convert::proto_topic(&topic))
}

/// None: unspecified.
fn compression(given: i32) -> Result<Option<Compression>, Failure> {
    match pb::Compression::try_from(given) {
        Ok(pb::Compression::Unspecified) => Ok(None),
        Ok(pb::Compression::None) => Ok(Some(Compression::None)),
        Ok(pb::Compression::Lz4) => Ok(Some(Compression::Lz4)),
        Ok(pb::Compression::Zstd) => Ok(Some(Compression::Zstd)),
        Err(unknown) => Err(Failure::invalid("compression", format_args!("{} is no compression", unknown.0))),
    }
}

async fn alter(app: &App, request: pb::AlterTopicRequest) -> Result<pb::Topic, Failure> {
    let stage = app.stage()?;
    let name = convert::user_topic(&request.name, || "name".to_owned())?;
    let retention_time = request.retention_time.map(Duration::try_from).transpose();
    let changes = TopicChanges {
        partitions: request.partitions,
        durability: convert::durability(request.durability)?,
        compression: compression(request.compression)?,
        retention_time: retention_time.map_err(|_| Failure::invalid("retention_time", "a duration that is not negative"))?,
        retention_bytes: request.retention_bytes,
        ..convert::compaction_changes(request.compaction.unwrap_or_default())?
    };
    let log = Arc::clone(&stage.log);
    let altered = tokio::task::spawn_blocking(move || log.alter_topic(&name, changes)).await;
    let topic = altered.map_err(|_| Failure::new(Kind::Unknown, "OUTCOME_UNKNOWN", "the alteration was interrupted"))??;
    Ok(convert::proto_topic(&topic))
}

async fn delete(app: &App, request: &pb::DeleteTopicRequest) -> Result<pb::DeleteTopicResponse, Failure> {
    let name = convert::user_topic(&request.name, || "name".to_owned())?;
    app.stage()?.engine.delete_topic(name).await?;
    Ok(pb::DeleteTopicResponse {})
}

fn list(app: &App, request: &pb::ListTopicsRequest) -> Result<pb::ListTopicsResponse, Failure> {
    let topics = app.stage()?.log.topics();
    let shown = topics.iter().filter(|topic| request.include_system || !topic.name.is_system());
    Ok(pb::ListTopicsResponse { topics: shown.map(|topic| convert::proto_topic(topic)).collect() })
}

fn describe(app: &App, request: &pb::DescribeTopicRequest) -> Result<pb::DescribeTopicResponse, Failure> {
    let stage = app.stage()?;
    let topic = stage.log.topic(&convert::topic(&request.name, || "name".to_owned())?)?;
    let holders = stage.log.holders(&topic.name)?;
    let compaction = stage.log.compaction(&topic.name)?;
    let redaction = convert::redaction(stage.log.redacting(&topic.name, None)?);
    let limits = &app.limits;
    Ok(pb::DescribeTopicResponse {
        topic: Some(convert::proto_topic(&topic)),
        ends: events::numbered(stage.log.ends(&topic.name)?),
        firsts: events::numbered(stage.log.firsts(&topic.name)?),
        holders: holders.into_iter().map(|one| pb::Holder { owner: one.owner, position: one.from.get() }).collect(),
        compaction: compaction.into_iter().map(compaction_state).collect(),
        compaction_paused: stage.log.is_compaction_paused(),
        redaction,
        limits: Some(pb::Limits {
            max_event_bytes: limits.event_bytes as u64,
            max_append_bytes: limits.append_bytes as u64,
            max_append_events: u32::try_from(limits.append_events).unwrap_or(u32::MAX),
            max_message_bytes: limits.message_bytes as u64,
            max_event_tags: u32::try_from(NewEvent::MAX_TAGS).unwrap_or(u32::MAX),
            max_tag_bytes: u32::try_from(Tag::MAX_LEN).unwrap_or(u32::MAX),
        }),
    })
}

fn compaction_state(state: CompactionState) -> pb::CompactionState {
    pb::CompactionState {
        partition: state.partition.get(),
        cleaned_to: state.cleaned_to.get(),
        bytes: state.bytes,
        dirty_bytes: state.dirty_bytes,
        percent: state.percent.map(Into::into),
    }
}
