//! What the torture asks of the server, over the plain generated client: appends, reads, the view.
//!
//! The SDK is left out on purpose: it retries by itself, and here every attempt must be in the ledger.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail, ensure};
use foldlog_proto::v1::{
    AppendRequest, CreateTopicRequest, Durability, Event, GetHeadRequest, GetStreamRequest, Precondition, QueryRequest, ReadRequest,
    RecordedEvent, Rows, StreamState, SubscribeRequest, TopicRange, Write, column_values::Values, precondition, query_batch,
    query_client::QueryClient, read_request, stream_state, subscribe_batch, subscribe_request, topics_client::TopicsClient,
};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;
use tonic::{Code, transport::Channel};

use crate::{
    check::{Balance, LARGE, Output, Seen, ViewAt},
    child::event_log,
    ledger::{OpId, State, StreamWrite, asks_for_written},
};

/// The topic that everything is made of.
pub const EVENTS: &str = "entries";
const OUTPUTS: &str = "large";

/// What the payloads of events and outputs say.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    op: OpId,
    place: u64,
    amount: i64,
}

/// Creates the topic, the stream over it, the view and the query with an output topic.
pub async fn prepare(channel: &Channel) -> anyhow::Result<()> {
    let topic = CreateTopicRequest { name: EVENTS.to_owned(), partitions: Some(4), ..CreateTopicRequest::default() };
    TopicsClient::new(channel.clone()).create(topic).await.context("cannot create the topic")?;
    let source = format!(
        "CREATE STREAM {EVENTS} (account VARCHAR KEY, op BIGINT, place BIGINT, amount BIGINT) \
         WITH (kafka_topic = '{EVENTS}', value_format = 'json')"
    );
    let view = format!(
        "CREATE TABLE balances AS SELECT account, COUNT(*) AS entries, SUM(amount) AS total, MIN(amount) AS low, MAX(amount) AS high \
         FROM {EVENTS} GROUP BY account"
    );
    let output = format!("CREATE STREAM {OUTPUTS} AS SELECT account, op, place, amount FROM {EVENTS} WHERE amount >= {LARGE}");
    for statement in [source, view, output] {
        query(channel, &statement, Vec::new()).await.with_context(|| format!("this failed: {statement}"))?;
    }
    Ok(())
}

/// Appends an operation; what the server's silence or error leaves open is [`State::Unknown`], with the reason.
pub async fn append(channel: &Channel, id: OpId, writes: &[StreamWrite]) -> (State, Option<tonic::Status>) {
    match event_log(channel.clone()).append(append_request(id, writes)).await {
        Ok(answer) => {
            let answer = answer.into_inner();
            (State::Acked { first: answer.first_position, last: answer.last_position }, None)
        }
        Err(status) if status.code() == Code::Aborted => (State::Refused, None),
        Err(status) => (State::Unknown, Some(status)),
    }
}

/// The same as a unit of a session: its sequence takes the place of the id.
pub fn unit_request(id: OpId, writes: &[StreamWrite]) -> AppendRequest {
    AppendRequest { request_id: prost::bytes::Bytes::new(), ..append_request(id, writes) }
}

fn append_request(id: OpId, writes: &[StreamWrite]) -> AppendRequest {
    let mut places = 0..;
    let event = |(amount, place): (&i64, u64)| Event {
        r#type: "Entered".to_owned(),
        data: Some(json!({ "op": id, "place": place, "amount": amount }).to_string().into()),
        ..Event::default()
    };
    let written = writes.iter().map(|write| Write {
        stream: write.stream.clone(),
        events: write.amounts.iter().zip(places.by_ref()).map(event).collect(),
        ..Write::default()
    });
    let expected = writes.iter().map(|write| {
        let expect = match write.base {
            0 => stream_state::Expect::Absent(stream_state::Absent {}),
            version => stream_state::Expect::Version(version),
        };
        let state = StreamState { stream: write.stream.clone(), expect: Some(expect), ..StreamState::default() };
        Precondition { kind: Some(precondition::Kind::Stream(state)) }
    });
    AppendRequest {
        topic: EVENTS.to_owned(),
        request_id: u128::from(id).to_be_bytes().to_vec().into(),
        writes: written.collect(),
        preconditions: expected.collect(),
        // Of what is killed, what was only written survives as well.
        durability: if asks_for_written(id) { Durability::Written.into() } else { Durability::Synced.into() },
        ..AppendRequest::default()
    }
}

/// Version of a stream; 0 if it has no event.
pub async fn version(channel: &Channel, stream: &str) -> Result<u64, tonic::Status> {
    let request = GetStreamRequest { topic: EVENTS.to_owned(), stream: stream.to_owned(), ..GetStreamRequest::default() };
    Ok(event_log(channel.clone()).get_stream(request).await?.into_inner().version.unwrap_or(0))
}

/// All events, in position order.
pub async fn events(channel: &Channel) -> anyhow::Result<Vec<Seen>> {
    read(channel, EVENTS).await?.into_iter().map(seen).collect()
}

/// All records of the output topic, in position order.
pub async fn outputs(channel: &Channel) -> anyhow::Result<Vec<Output>> {
    read(channel, OUTPUTS).await?.into_iter().map(output).collect()
}

async fn read(channel: &Channel, topic: &str) -> anyhow::Result<Vec<RecordedEvent>> {
    let range = TopicRange { topic: topic.to_owned(), from_position: Some(0) };
    let request = ReadRequest { source: Some(read_request::Source::Topic(range)), ..ReadRequest::default() };
    let mut batches = event_log(channel.clone()).read(request).await.context("cannot read")?.into_inner();
    let (mut records, mut ended) = (Vec::new(), false);
    while let Some(batch) = batches.message().await.context("the read broke off")? {
        ended = batch.end;
        records.extend(batch.events);
    }
    ensure!(ended, "the read of {topic} ended without saying so");
    Ok(records)
}

fn payload(record: &RecordedEvent) -> anyhow::Result<Payload> {
    let data = record.event.as_ref().and_then(|event| event.data.as_ref()).context("a record without a payload")?;
    serde_json::from_slice(data).with_context(|| format!("not a payload of ours: {}", String::from_utf8_lossy(data)))
}

fn seen(record: RecordedEvent) -> anyhow::Result<Seen> {
    let Payload { op, place, amount } = payload(&record)?;
    let RecordedEvent { position, partition, offset, stream, stream_version: version, .. } = record;
    Ok(Seen { position, partition, offset, stream, version, op, place, amount })
}

fn output(record: RecordedEvent) -> anyhow::Result<Output> {
    let Payload { op, place, amount } = payload(&record)?;
    let key = record.key.context("a record of the output topic without a key")?;
    let account = String::from_utf8(key.to_vec()).context("a key that is not text")?;
    Ok(Output { position: record.position, account, op, place, amount })
}

/// Follows the output topic from its beginning or `from` and keeps what it is shown, until the server is gone.
pub async fn follow_outputs(channel: Channel, from: u64, shown: watch::Sender<Vec<Output>>) -> anyhow::Result<()> {
    let range = TopicRange { topic: OUTPUTS.to_owned(), from_position: Some(from) };
    let request = SubscribeRequest { source: Some(subscribe_request::Source::Topic(range)), ..SubscribeRequest::default() };
    let Ok(batches) = event_log(channel).subscribe(request).await else { return Ok(()) };
    let mut batches = batches.into_inner();
    while let Ok(Some(batch)) = batches.message().await {
        if let Some(subscribe_batch::Message::Events(batch)) = batch.message {
            let new = batch.events.into_iter().map(output).collect::<anyhow::Result<Vec<_>>>()?;
            shown.send_modify(|all| all.extend(new));
        }
    }
    Ok(())
}

/// The end of the log: a token, and the position.
pub async fn head(channel: &Channel) -> anyhow::Result<(prost::bytes::Bytes, u64)> {
    let head = event_log(channel.clone()).get_head(GetHeadRequest::default()).await.context("cannot read the head")?.into_inner();
    Ok((head.token, head.position))
}

/// The view, as it is at or after a token (empty: now).
pub async fn view(channel: &Channel, at_least: prost::bytes::Bytes) -> anyhow::Result<ViewAt> {
    let request =
        QueryRequest { sql: "SELECT account, entries, total, low, high FROM balances".to_owned(), at_least, ..QueryRequest::default() };
    let (rows, position) = execute(channel, request).await?;
    let mut view = ViewAt { position, ..ViewAt::default() };
    for rows in rows {
        add_rows(&mut view.rows, &rows)?;
    }
    Ok(view)
}

async fn query(channel: &Channel, sql: &str, at_least: Vec<u8>) -> anyhow::Result<u64> {
    let request = QueryRequest { sql: sql.to_owned(), at_least: at_least.into(), ..QueryRequest::default() };
    Ok(execute(channel, request).await?.1)
}

async fn execute(channel: &Channel, request: QueryRequest) -> anyhow::Result<(Vec<Rows>, u64)> {
    let client = QueryClient::new(channel.clone());
    let mut client = client.max_decoding_message_size(16 << 20);
    let mut batches = client.execute(request).await?.into_inner();
    let mut all = Vec::new();
    while let Some(batch) = batches.message().await? {
        match batch.message {
            Some(query_batch::Message::Rows(rows)) => all.push(rows),
            Some(query_batch::Message::Done(done)) => return Ok((all, done.position)),
            _ => {}
        }
    }
    bail!("the answer ended without saying so")
}

fn add_rows(view: &mut BTreeMap<String, Balance>, rows: &Rows) -> anyhow::Result<()> {
    let [accounts, entries, totals, lows, highs] = rows.columns.as_slice() else {
        bail!("the view has {} columns", rows.columns.len());
    };
    let Some(Values::Texts(accounts)) = &accounts.values else { bail!("account is not text") };
    let integers = |column: &foldlog_proto::v1::ColumnValues| match &column.values {
        Some(Values::Integers(integers)) => Ok(integers.values.clone()),
        other => bail!("not a column of integers: {other:?}"),
    };
    let (entries, totals, lows, highs) = (integers(entries)?, integers(totals)?, integers(lows)?, integers(highs)?);
    for (row, account) in accounts.values.iter().enumerate() {
        let at = |column: &[i64]| column.get(row).copied().context("a column is too short");
        let balance = Balance { entries: at(&entries)?, total: at(&totals)?, low: at(&lows)?, high: at(&highs)? };
        ensure!(view.insert(account.clone(), balance).is_none(), "{account} stands in the view twice");
    }
    Ok(())
}
