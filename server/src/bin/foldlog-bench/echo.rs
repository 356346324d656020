//! The bare server that foldlog is measured against: tonic and the same messages, and nothing behind them.
//!
//! Runs as a child process of the bench (`foldlog-bench echo`). Every answer has the shape and size of foldlog's; no byte is kept.
//! With `--sync FILE` an append first writes 4 KiB there and syncs them, and subscribers are told of it: what gRPC and the device
//! leave to a log that does nothing of its own.

use std::{
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context as _;
use foldlog_proto::v1::{
    AppendRequest, AppendResponse, AppendSessionRequest, AppendSessionResponse, AppendedRange, CaughtUp, Column, ColumnType, ColumnValues,
    Event, EventBatch, GetHeadRequest, GetSnapshotRequest, GetSnapshotResponse, GetStreamRequest, Head, Integers, QueryBatch, QueryDone,
    QueryRequest, ReadBatch, ReadRequest, RecordedEvent, Rows, Schema, SessionAnswers, SessionOpened, StreamInfo, StreamVersion,
    SubscribeBatch, SubscribeRequest, Texts, append_session_request, append_session_response,
    column_values::Values,
    event_log_server::{EventLog, EventLogServer},
    query_batch,
    query_server::{Query, QueryServer},
    subscribe_batch,
};
use futures::{Stream, StreamExt as _, stream};
use prost::bytes::Bytes;
use prost_types::Timestamp;
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    disk::Blocks,
    load::{PAYLOAD, TOPIC, account},
};

/// Bytes of a token, about as long as foldlog's.
const TOKEN: &[u8] = &[7; 40];
/// Events of one message of a read.
const BATCH: u64 = 1_000;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Serves until the process is killed. `sync`: the file that each append writes and syncs.
pub async fn serve(address: SocketAddr, sync: Option<&Path>) -> anyhow::Result<()> {
    let disk = sync.map(Blocks::create).transpose()?.map(Mutex::new);
    let echo = Arc::new(Echo { disk, appended: watch::Sender::new(0) });
    let log = EventLogServer::from_arc(Arc::clone(&echo)).max_decoding_message_size(16 << 20).max_encoding_message_size(16 << 20);
    let server = tonic::transport::Server::builder();
    let server = server.tcp_nodelay(true).initial_connection_window_size(8 << 20).initial_stream_window_size(4 << 20);
    let mut server = server;
    server.add_service(log).add_service(QueryServer::from_arc(echo)).serve(address).await.context("the echo server failed")
}

struct Echo {
    disk: Option<Mutex<Blocks>>,
    /// Position of the newest append.
    appended: watch::Sender<u64>,
}

#[tonic::async_trait]
impl EventLog for Echo {
    type AppendSessionStream = Answers<AppendSessionResponse>;
    type ReadStream = Answers<ReadBatch>;
    type SubscribeStream = Answers<SubscribeBatch>;

    async fn append(&self, request: Request<AppendRequest>) -> Result<Response<AppendResponse>, Status> {
        let request = request.into_inner();
        if let Some(disk) = &self.disk {
            disk.lock().unwrap_or_else(PoisonError::into_inner).write_and_sync()?;
        }
        let mut position = 0;
        self.appended.send_modify(|newest| {
            *newest += 1;
            position = *newest;
        });
        let version =
            |write: &foldlog_proto::v1::Write| StreamVersion { topic: request.topic.clone(), stream: write.stream.clone(), version: 12 };
        Ok(Response::new(AppendResponse {
            first_position: position,
            last_position: position,
            ranges: vec![AppendedRange { topic: request.topic.clone(), partition: 3, first_offset: 100_000, last_offset: 100_000 }],
            versions: request.writes.iter().map(version).collect(),
            token: Bytes::from_static(TOKEN),
            recorded_at: Some(Timestamp { seconds: 1_360_058_400, nanos: 0 }),
            durability: 1,
            ..AppendResponse::default()
        }))
    }

    /// Answers each message at once.
    async fn append_session(
        &self,
        request: Request<Streaming<AppendSessionRequest>>,
    ) -> Result<Response<Self::AppendSessionStream>, Status> {
        let answer = |request: AppendSessionRequest| {
            let message = match request.message {
                Some(append_session_request::Message::Appends(appends)) => append_session_response::Message::Answers(SessionAnswers {
                    first_sequence: appends.first_sequence,
                    first_positions: (0..appends.appends.len() as u64).map(|place| 8_000_000 + place).collect(),
                    records: vec![100; appends.appends.len()],
                    token: Bytes::from_static(TOKEN),
                    durability: 1,
                    ..SessionAnswers::default()
                }),
                Some(append_session_request::Message::Open(_)) | None => append_session_response::Message::Opened(SessionOpened {
                    next_sequence: 1,
                    credit_bytes: 1 << 20,
                    credit_units: 4096,
                    ..SessionOpened::default()
                }),
            };
            AppendSessionResponse { message: Some(message) }
        };
        Ok(Response::new(request.into_inner().map(move |request| request.map(answer)).boxed()))
    }

    /// Streams as many events as the limit says, whole messages of them if it is more than one.
    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let limit = request.into_inner().limit;
        let events: Vec<RecordedEvent> = (0..limit.min(BATCH)).map(recorded).collect();
        let batches = limit.div_ceil(BATCH);
        let message = ReadBatch { events, ..ReadBatch::default() };
        Ok(Response::new(stream::iter((0..batches).map(move |_| Ok(message.clone()))).boxed()))
    }

    /// Streams an event for every append from now on.
    async fn subscribe(&self, _: Request<SubscribeRequest>) -> Result<Response<Self::SubscribeStream>, Status> {
        let mut newest = self.appended.subscribe();
        let sent = *newest.borrow_and_update();
        let caught_up = stream::once(async { Ok(subscribed(subscribe_batch::Message::CaughtUp(CaughtUp::default()))) });
        let live = stream::unfold((newest, sent), |(mut newest, sent)| async move {
            newest.changed().await.ok()?;
            let last = *newest.borrow_and_update();
            let events = (sent + 1..=last).map(|position| RecordedEvent { position, ..recorded(position) }).collect();
            let batch = EventBatch { events, token: Bytes::from_static(TOKEN) };
            Some((Ok(subscribed(subscribe_batch::Message::Events(batch))), (newest, last)))
        });
        Ok(Response::new(caught_up.chain(live).boxed()))
    }

    async fn get_stream(&self, _: Request<GetStreamRequest>) -> Result<Response<StreamInfo>, Status> {
        Err(Status::unimplemented("a bare echo"))
    }

    async fn get_snapshot(&self, _: Request<GetSnapshotRequest>) -> Result<Response<GetSnapshotResponse>, Status> {
        Err(Status::unimplemented("a bare echo"))
    }

    async fn get_head(&self, _: Request<GetHeadRequest>) -> Result<Response<Head>, Status> {
        Ok(Response::new(Head::default()))
    }
}

#[tonic::async_trait]
impl Query for Echo {
    type ExecuteStream = Answers<QueryBatch>;
    type PushStream = Answers<QueryBatch>;

    async fn execute(&self, _: Request<QueryRequest>) -> Result<Response<Self::ExecuteStream>, Status> {
        let messages = [query_batch::Message::Schema(schema()), query_batch::Message::Rows(row()), query_batch::Message::Done(done())];
        Ok(Response::new(stream::iter(messages.map(|message| Ok(QueryBatch { message: Some(message) }))).boxed()))
    }

    async fn push(&self, _: Request<QueryRequest>) -> Result<Response<Self::PushStream>, Status> {
        Err(Status::unimplemented("a bare echo"))
    }
}

const fn subscribed(message: subscribe_batch::Message) -> SubscribeBatch {
    SubscribeBatch { message: Some(message) }
}

fn recorded(number: u64) -> RecordedEvent {
    let time = Some(Timestamp { seconds: 1_360_058_400, nanos: 0 });
    RecordedEvent {
        event: Some(Event { r#type: "Measured".to_owned(), data: Some(Bytes::from_static(PAYLOAD)), time, ..Event::default() }),
        topic: TOPIC.to_owned(),
        partition: 3,
        offset: 1_000_000 + number,
        stream: account(number),
        stream_version: 100 + number,
        recorded_at: time,
        position: 8_000_000 + number,
        redacted: false,
        key: None,
    }
}

fn schema() -> Schema {
    let column = |name: &str, kind: ColumnType, sql_type: &str, key| Column {
        name: name.to_owned(),
        r#type: kind.into(),
        sql_type: sql_type.to_owned(),
        key,
    };
    let integer = |name| column(name, ColumnType::Bigint, "BIGINT", false);
    Schema {
        columns: vec![column("account", ColumnType::Varchar, "VARCHAR", true), integer("entries"), integer("total")],
        ..Schema::default()
    }
}

fn row() -> Rows {
    let integers = |number| ColumnValues { values: Some(Values::Integers(Integers { values: vec![number] })), ..ColumnValues::default() };
    let texts = ColumnValues { values: Some(Values::Texts(Texts { values: vec![account(7)] })), ..ColumnValues::default() };
    Rows { count: 1, columns: vec![texts, integers(100), integers(5_000)], ..Rows::default() }
}

fn done() -> QueryDone {
    QueryDone { position: 8_000_000, token: Bytes::from_static(TOKEN), ..QueryDone::default() }
}
