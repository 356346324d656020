//! The service `EventLog`. Routed by hand, because reads and subscriptions encode their messages straight from the log
//! ([`super::wire`]) and the generated service would insist on building them first.

use foldlog_log::{Offset, PartitionId, Position, StreamHead, StreamState, StreamVersion};
use foldlog_proto::{codec::Codec, v1 as pb};
use futures::{Stream, StreamExt as _};
use tonic::{
    Request, Response, Status,
    body::Body,
    codec::{CompressionEncoding, EnabledCompressionEncodings},
    codegen::http,
    server::Grpc,
};
use tower::service_fn;

use super::{
    convert,
    counted::{Counted, CountedSession},
    reading, session,
    status::status,
    wire::{Outgoing, Wire},
};
use crate::{
    app::App,
    failure::{Failure, Kind},
};

/// A method of the service.
#[derive(Clone, Copy, Debug)]
pub enum Method {
    /// `Append`.
    Append,
    /// `AppendSession`.
    AppendSession,
    /// `Read`.
    Read,
    /// `Subscribe`.
    Subscribe,
    /// `GetStream`.
    GetStream,
    /// `GetSnapshot`.
    GetSnapshot,
    /// `GetHead`.
    GetHead,
}

impl Method {
    /// The method that a path names, if it is one of this service.
    pub fn of(path: &str) -> Option<Self> {
        Some(match path.strip_prefix('/')?.strip_prefix(pb::event_log_server::SERVICE_NAME)?.strip_prefix('/')? {
            "Append" => Self::Append,
            "AppendSession" => Self::AppendSession,
            "Read" => Self::Read,
            "Subscribe" => Self::Subscribe,
            "GetStream" => Self::GetStream,
            "GetSnapshot" => Self::GetSnapshot,
            "GetHead" => Self::GetHead,
            _ => return None,
        })
    }

    /// Answers a call.
    pub async fn call(self, app: App, request: http::Request<Body>) -> http::Response<Body> {
        let max = app.limits.message_bytes;
        match self {
            Self::Append => {
                let answer = |request: Request<pb::AppendRequest>| unary(app.clone(), request, append);
                grpc(Counted(app.clone()), max).unary(service_fn(answer), request).await
            }
            Self::AppendSession => {
                let answer = |request| session::append_session(app.clone(), request);
                grpc(CountedSession(app.clone()), max).streaming(service_fn(answer), request).await
            }
            Self::Read => {
                let answer = |request: Request<pb::ReadRequest>| read(app.clone(), request);
                grpc(Wire::default(), max).server_streaming(service_fn(answer), request).await
            }
            Self::Subscribe => {
                let answer = |request: Request<pb::SubscribeRequest>| subscribe(app.clone(), request);
                grpc(Wire::default(), max).server_streaming(service_fn(answer), request).await
            }
            Self::GetStream => {
                let answer = |request: Request<pb::GetStreamRequest>| unary(app.clone(), request, get_stream);
                grpc(Codec::default(), max).unary(service_fn(answer), request).await
            }
            Self::GetSnapshot => {
                let answer = |request: Request<pb::GetSnapshotRequest>| unary(app.clone(), request, get_snapshot);
                grpc(Codec::default(), max).unary(service_fn(answer), request).await
            }
            Self::GetHead => {
                let answer = |request: Request<pb::GetHeadRequest>| unary(app.clone(), request, get_head);
                grpc(Codec::default(), max).unary(service_fn(answer), request).await
            }
        }
    }
}

/// A codec with the limits and the compression that every method has.
fn grpc<C: tonic::codec::Codec>(codec: C, max_message_bytes: usize) -> Grpc<C> {
    let mut gzip = EnabledCompressionEncodings::default();
    gzip.enable(CompressionEncoding::Gzip);
    Grpc::new(codec).apply_compression_config(gzip, gzip).apply_max_message_size_config(Some(max_message_bytes), Some(max_message_bytes))
}

async fn unary<A, B, F>(app: App, request: Request<A>, answer: impl FnOnce(App, A) -> F) -> Result<Response<B>, Status>
where
    F: Future<Output = Result<B, Failure>>,
{
    answer(app.clone(), request.into_inner()).await.map(Response::new).map_err(|failure| app.refuse(failure))
}

async fn append(app: App, request: pb::AppendRequest) -> Result<pb::AppendResponse, Failure> {
    let tokens = app.stage()?.tokens;
    let append = convert::append(request, &tokens, &app.limits)?;
    Ok(convert::appended(app.append(append).await?, &tokens))
}

type Messages = std::pin::Pin<Box<dyn Stream<Item = Result<Outgoing, Status>> + Send>>;

async fn read(app: App, request: Request<pb::ReadRequest>) -> Result<Response<Messages>, Status> {
    match reading::read(&app, request.into_inner()).await {
        Ok(messages) => Ok(Response::new(guarded(&app, messages, Position::default()))),
        Err(failure) => Err(app.refuse(failure)),
    }
}

async fn subscribe(app: App, request: Request<pb::SubscribeRequest>) -> Result<Response<Messages>, Status> {
    match reading::subscribe(&app, request.into_inner()).await {
        Ok((messages, from)) => Ok(Response::new(guarded(&app, messages, from))),
        Err(failure) => Err(app.refuse(failure)),
    }
}

/// Ends the stream when its client takes nothing for too long, and translates failures.
fn guarded(app: &App, messages: impl Stream<Item = Result<Outgoing, Failure>> + Send + 'static, from: Position) -> Messages {
    let guarded = app.idle.guard(messages, from, Failure::slow_reader);
    let app = app.clone();
    Box::pin(guarded.map(move |message| message.map_err(|failure| app.refuse(failure))))
}

async fn get_stream(app: App, request: pb::GetStreamRequest) -> Result<pb::StreamInfo, Failure> {
    let stage = app.stage()?;
    let name = convert::topic(&request.topic, || "topic".to_owned())?;
    let stream = request.stream.parse().map_err(|error| Failure::name("stream", &error))?;
    let at_least = stage.tokens.read("at_least", &request.at_least)?;
    let wait = convert::duration(request.wait, reading::DEFAULT_WAIT, reading::MAX_WAIT, "wait")?;
    let position = stage.reached(at_least, wait).await?;
    let topic = stage.log.topic(&name)?;
    if request.erased {
        stage.erased(&name, &stream, wait).await?;
    }
    let redaction = convert::redaction(stage.log.redacting(&name, Some(&stream))?);
    let StreamState { head, beginning } = reading::stream_state(stage, &name, &stream).await?;
    Ok(pb::StreamInfo {
        partition: PartitionId::for_key(stream.as_str().as_bytes(), topic.settings.partitions).get(),
        topic: request.topic,
        stream: request.stream,
        version: head.version().map(StreamVersion::get),
        beginning: Some(convert::beginning(beginning)),
        deleted: matches!(head, StreamHead::Deleted(_)),
        tombstoned: head == StreamHead::Tombstoned,
        redaction,
        // The end as it was before the look: the answer reflects at least that.
        token: stage.tokens.make(position),
    })
}

async fn get_snapshot(app: App, request: pb::GetSnapshotRequest) -> Result<pb::GetSnapshotResponse, Failure> {
    let stage = app.stage()?;
    let name = convert::topic(&request.topic, || "topic".to_owned())?;
    let stream = convert::stream(&request.stream, || "stream".to_owned())?;
    let at_most = match request.at_most_version {
        Some(0) => return Err(Failure::invalid("at_most_version", "versions begin at 1")),
        at_most => StreamVersion::new(at_most.unwrap_or(u64::MAX)),
    };
    let at_least = stage.tokens.read("at_least", &request.at_least)?;
    let wait = convert::duration(request.wait, reading::DEFAULT_WAIT, reading::MAX_WAIT, "wait")?;
    let position = stage.reached(at_least, wait).await?;
    let found = reading::snapshot(&app, stage, name, stream, at_most).await?;
    Ok(pb::GetSnapshotResponse {
        recorded_at: found.as_ref().map(|found| convert::proto_time(found.recorded_at)),
        snapshot: found.map(|found| convert::snapshot(found.snapshot)),
        // The end as it was before the look: the answer reflects at least that.
        token: stage.tokens.make(position),
    })
}

async fn get_head(app: App, request: pb::GetHeadRequest) -> Result<pb::Head, Failure> {
    let stage = app.stage()?;
    // Ends first: whatever they show lies below the position that is taken after them.
    let ends = match request.topic.as_str() {
        "" => Vec::new(),
        name => numbered(stage.log.ends(&convert::topic(name, || "topic".to_owned())?)?),
    };
    let position = stage.log.head().position;
    Ok(pb::Head { token: stage.tokens.make(position), position: position.get(), ends })
}

/// An offset of each partition, in order.
pub fn numbered(offsets: Vec<Offset>) -> Vec<pb::PartitionEnd> {
    (0..).zip(offsets).map(|(partition, offset)| pb::PartitionEnd { partition, offset: offset.get() }).collect()
}

impl App {
    /// The status of a failed request; counts and tells it.
    pub fn refuse(&self, failure: Failure) -> Status {
        self.metrics.rejected.get_or_create(&crate::telemetry::Reason { reason: failure.reason }).inc();
        if failure.may_have_happened() || failure.kind == Kind::Corrupt {
            tracing::error!(reason = failure.reason, "request failed: {failure}");
        } else {
            tracing::debug!(reason = failure.reason, "request refused: {failure}");
        }
        status(failure, self.tokens())
    }
}
