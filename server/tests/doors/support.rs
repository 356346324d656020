//! What the stories about the server share: a server over a temporary folder, and clients of it.
use std::time::Duration;

use foldlog_proto::v1::{
    self as pb, event_log_client::EventLogClient, groups_client::GroupsClient, query_client::QueryClient, read_request, subscribe_request,
    topics_client::TopicsClient,
};
use foldlog_server::{Config, Server, testing};
use prost::Message as _;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tonic::{Status, transport::Channel};
use tonic_types::pb as rpc;

/// Longer than anything takes here; a story that hits it has failed.
pub const LONG: Duration = Duration::from_secs(30);

/// A server and clients of it.
pub struct World {
    pub server: Server,
    pub log: EventLogClient<Channel>,
    pub topics: TopicsClient<Channel>,
    pub query: QueryClient<Channel>,
    pub groups: GroupsClient<Channel>,
    pub folder: TempDir,
}

/// A server over a new folder.
pub async fn world() -> World {
    world_with(|_| {}).await
}

/// The same with a configuration of its own.
pub async fn world_with(change: impl FnOnce(&mut Config)) -> World {
    world_over(TempDir::new().unwrap(), change).await
}

/// A server over a folder that exists.
pub async fn world_over(folder: TempDir, change: impl FnOnce(&mut Config)) -> World {
    let mut config = Config::local(folder.path().join("data"));
    // Small files: a test makes a folder and writes little.
    config.log.journal_file_bytes = 4 << 20;
    config.log.first_journal_file_bytes = 1 << 20;
    change(&mut config);
    let server = testing::serve_with(config).await.unwrap();
    let channel = Channel::from_shared(testing::url(&server)).unwrap().connect().await.unwrap();
    World {
        log: EventLogClient::new(channel.clone()).max_decoding_message_size(8 << 20),
        topics: TopicsClient::new(channel.clone()),
        groups: GroupsClient::new(channel.clone()),
        query: QueryClient::new(channel).max_decoding_message_size(8 << 20),
        server,
        folder,
    }
}

impl World {
    /// Creates an `events` topic with two partitions.
    pub async fn topic(&mut self, name: &str) {
        self.topic_of(name, pb::TopicKind::Events).await;
    }

    /// Creates a topic of a kind.
    pub async fn topic_of(&mut self, name: &str, kind: pb::TopicKind) {
        let request = pb::CreateTopicRequest { name: name.into(), kind: kind.into(), partitions: Some(2), ..Default::default() };
        self.topics.create(request).await.unwrap();
    }

    /// Appends events of one stream, each with its text as payload.
    pub async fn append(&mut self, topic: &str, stream: &str, texts: &[&str]) -> pb::AppendResponse {
        self.log.append(request(topic, stream, texts)).await.unwrap().into_inner()
    }

    /// An append that must be refused.
    pub async fn append_refused(&mut self, append: pb::AppendRequest) -> Status {
        self.log.append(append).await.unwrap_err()
    }

    /// Reads everything that a source has.
    pub async fn read(&mut self, source: read_request::Source) -> Vec<pb::RecordedEvent> {
        self.read_with(pb::ReadRequest { source: Some(source), ..Default::default() }).await.unwrap()
    }

    /// Reads to the end and checks that there is one.
    pub async fn read_with(&mut self, request: pb::ReadRequest) -> Result<Vec<pb::RecordedEvent>, Status> {
        let mut batches = self.log.read(request).await?.into_inner();
        let mut events = Vec::new();
        let mut ended = false;
        while let Some(batch) = batches.message().await? {
            assert!(!ended, "nothing comes after the end");
            ended = batch.end;
            events.extend(batch.events);
        }
        assert!(ended, "a read says where it ended");
        Ok(events)
    }

    /// Stops the server; the folder stays.
    pub async fn stop(self) -> TempDir {
        drop((self.log, self.topics, self.query, self.groups));
        assert!(self.server.stop().await.unwrap(), "every request ended in time");
        self.folder
    }
}

/// An append of events of one stream, each with its text as payload.
pub fn request(topic: &str, stream: &str, texts: &[&str]) -> pb::AppendRequest {
    let events = texts.iter().map(|text| event(text)).collect();
    let write = pb::Write { stream: stream.into(), events, ..Default::default() };
    pb::AppendRequest { topic: topic.into(), writes: vec![write], ..Default::default() }
}

/// An event with a text as payload.
pub fn event(text: &str) -> pb::Event {
    pb::Event { r#type: "Said".into(), data: Some(text.to_owned().into()), ..Default::default() }
}

/// A belief about a stream.
pub fn expect(stream: &str, expect: pb::stream_state::Expect) -> pb::Precondition {
    let state = pb::StreamState { stream: stream.into(), expect: Some(expect), topic: String::new() };
    pb::Precondition { kind: Some(pb::precondition::Kind::Stream(state)) }
}

/// The payload of an event as text.
pub fn text(event: &pb::RecordedEvent) -> String {
    String::from_utf8(event.event.as_ref().unwrap().data.clone().unwrap_or_default().to_vec()).unwrap()
}

/// The payloads of events as texts.
pub fn texts(events: &[pb::RecordedEvent]) -> Vec<String> {
    events.iter().map(text).collect()
}

/// A topic from its beginning, to read.
pub fn topic_from(topic: &str, from_position: u64) -> read_request::Source {
    read_request::Source::Topic(pb::TopicRange { topic: topic.into(), from_position: Some(from_position) })
}

/// A stream from its beginning, to read.
pub fn stream_from(topic: &str, stream: &str, from_version: u64) -> read_request::Source {
    read_request::Source::Stream(pb::StreamRange { topic: topic.into(), stream: stream.into(), from_version: Some(from_version) })
}

/// A topic from a position, to follow.
pub fn follow(topic: &str, from_position: u64) -> pb::SubscribeRequest {
    let source = subscribe_request::Source::Topic(pb::TopicRange { topic: topic.into(), from_position: Some(from_position) });
    pb::SubscribeRequest { source: Some(source), ..Default::default() }
}

/// The reason in a status: its first detail.
pub fn reason(status: &Status) -> String {
    info(status).reason
}

/// The first detail of a status.
pub fn info(status: &Status) -> rpc::ErrorInfo {
    let first = details(status).into_iter().next().unwrap_or_else(|| panic!("no detail in {status:?}"));
    assert!(first.type_url.ends_with("google.rpc.ErrorInfo"), "{}", first.type_url);
    let info = rpc::ErrorInfo::decode(&*first.value).unwrap();
    assert_eq!(info.domain, "foldlog");
    info
}

/// All details of a status.
pub fn details(status: &Status) -> Vec<prost_types::Any> {
    rpc::Status::decode(status.details()).unwrap().details
}

/// One value of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    Null,
    Boolean(bool),
    Integer(i64),
    Double(f64),
    Text(String),
    Binary(Vec<u8>),
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub schema: pb::Schema,
    pub batches: Vec<pb::Rows>,
    pub done: pb::QueryDone,
}

impl Answer {
    /// All rows.
    pub fn rows(&self) -> Vec<Vec<Cell>> {
        self.batches.iter().flat_map(cells).collect()
    }
}

/// A statement without anything else.
pub fn statement(sql: &str) -> pb::QueryRequest {
    pb::QueryRequest { sql: sql.into(), ..Default::default() }
}

/// The rows of a message.
pub fn cells(rows: &pb::Rows) -> Vec<Vec<Cell>> {
    let cell = |column: &pb::ColumnValues, row: usize| {
        use pb::column_values::Values;
        if column.nulls.get(row / 8).is_some_and(|byte| byte >> (row % 8) & 1 == 1) {
            return Cell::Null;
        }
        match column.values.as_ref().unwrap() {
            Values::Booleans(list) => Cell::Boolean(list.values[row]),
            Values::Integers(list) => Cell::Integer(list.values[row]),
            Values::Doubles(list) => Cell::Double(list.values[row]),
            Values::Texts(list) => Cell::Text(list.values[row].clone()),
            Values::Binaries(list) => Cell::Binary(list.values[row].to_vec()),
        }
    };
    (0..rows.count as usize).map(|row| rows.columns.iter().map(|column| cell(column, row)).collect()).collect()
}

impl World {
    /// Executes a statement.
    pub async fn sql(&mut self, sql: &str) -> Result<Answer, Status> {
        self.answer(statement(sql)).await
    }

    /// Executes a statement and takes its whole answer.
    pub async fn answer(&mut self, request: pb::QueryRequest) -> Result<Answer, Status> {
        use pb::query_batch::Message;
        let mut messages = self.query.execute(request).await?.into_inner();
        let Some(Message::Schema(schema)) = messages.message().await?.and_then(|message| message.message) else {
            panic!("the schema comes first")
        };
        let mut batches = Vec::new();
        let mut done = None;
        while let Some(message) = messages.message().await? {
            match message.message.unwrap() {
                Message::Rows(rows) => batches.push(rows),
                Message::Done(last) => done = Some(last),
                other => panic!("{other:?} in an answer that ends"),
            }
        }
        Ok(Answer { schema, batches, done: done.unwrap() })
    }
}

/// Sends bytes and returns what comes back until the other side ends.
pub async fn raw(world: &World, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(world.server.address()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let _reset_is_an_end_too = timeout(LONG, stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

pub async fn get(world: &World, path: &str) -> String {
    raw(world, format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes()).await
}

impl World {
    /// A number of the server, by its name and labels; 0 if it is not told.
    pub async fn server_metric(&self, name: &str) -> u64 {
        let metrics = get(self, "/metrics").await;
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.map_or(0, |value| value.trim().parse().unwrap())
    }
}
