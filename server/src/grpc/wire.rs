//! Events from the log straight into the bytes of `ReadBatch` and `SubscribeBatch`, without building the messages in between:
//! a read moves millions of events a second, and each message would cost half a dozen allocations an event.
//!
//! Must stay what `proto/foldlog/v1` says; the tests decode with the generated types and compare.

use std::marker::PhantomData;

use bytes::BufMut;
use foldlog_log::{Chunk, EventView, LogError, Position, RecordView, Run, Timestamp};
use foldlog_proto::v1 as pb;
use prost::{
    Message,
    bytes::Bytes,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len},
};
use tonic::{
    Status,
    codec::{BufferSettings, Codec, Decoder, EncodeBuf, Encoder},
};
use tonic_prost::ProstCodec;

use super::{
    convert::{TRACEPARENT, TRACESTATE, beginning},
    source::Direction,
    status::status,
};
use crate::failure::{Failure, Kind};

/// A message of a read or a subscription.
pub enum Outgoing {
    /// A `ReadBatch`.
    Read {
        /// The events.
        chunk: Chunk,
        /// In which order they go.
        direction: Direction,
        /// In the last message.
        last: Option<End>,
    },
    /// A `SubscribeBatch` with events.
    Events {
        /// The events.
        chunk: Chunk,
        /// To go on behind them.
        token: Bytes,
    },
    /// Any other `SubscribeBatch`.
    Note(pb::subscribe_batch::Message, Position),
}

/// The end that was captured when a read began.
pub struct End {
    /// Its token.
    pub token: Bytes,
    /// Its position (exclusive).
    pub position: Position,
}

impl Outgoing {
    /// Everything below this position (exclusive) has been sent with this message; of a read backwards everything from it on.
    pub const fn position(&self) -> Position {
        match self {
            Self::Read { chunk, .. } | Self::Events { chunk, .. } => chunk.scanned_to,
            Self::Note(_, position) => *position,
        }
    }
}

/// Codec of a streaming call: requests by prost, answers by hand.
#[derive(Default)]
pub struct Wire<D>(PhantomData<D>);

impl<D: Message + Default + Send + 'static> Codec for Wire<D> {
    type Encode = Outgoing;
    type Decode = D;
    type Encoder = WireEncoder;
    type Decoder = <ProstCodec<pb::ReadBatch, D> as Codec>::Decoder;

    fn encoder(&mut self) -> WireEncoder {
        WireEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<pb::ReadBatch, D>::raw_decoder(BufferSettings::default())
    }
}

const _: fn() = || {
    fn is_decoder<T: Decoder>() {}
    is_decoder::<<Wire<pb::ReadRequest> as Codec>::Decoder>();
};

/// See [`Wire`].
#[derive(Default)]
pub struct WireEncoder {
    events: Vec<u8>,
    event: EventEncoder,
}

impl Encoder for WireEncoder {
    type Item = Outgoing;
    type Error = Status;

    fn encode(&mut self, item: Outgoing, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        match item {
            Outgoing::Read { chunk, direction, last } => {
                buf.reserve(stored_bytes(&chunk));
                self.event.put_all(&chunk, direction, buf)?;
                put_bytes(2, last.as_ref().map_or(&[], |last| &last.token), buf);
                put_number(3, chunk.scanned_to.get(), buf);
                put_number(4, u64::from(last.is_some()), buf);
                if let Some(beginning) = chunk.beginning.map(beginning) {
                    put_message_key(5, beginning.encoded_len(), buf);
                    beginning.encode(buf).map_err(|error| Status::internal(error.to_string()))?;
                }
                put_number(6, last.map_or(0, |last| last.position.get()), buf);
            }
            Outgoing::Events { chunk, token } => {
                self.events.clear();
                self.events.reserve(stored_bytes(&chunk));
                self.event.put_all(&chunk, Direction::Forwards, &mut self.events)?;
                put_bytes(2, &token, &mut self.events);
                put_message_key(1, self.events.len(), buf);
                buf.put_slice(&self.events);
            }
            Outgoing::Note(message, _) => {
                pb::SubscribeBatch { message: Some(message) }.encode(buf).map_err(|error| Status::internal(error.to_string()))?;
            }
        }
        Ok(())
    }
}

/// A guess at the size of the encoded events, from above in most cases.
fn stored_bytes(chunk: &Chunk) -> usize {
    let records: usize = chunk.runs.iter().map(|run| run.count as usize).sum();
    let shared: usize = chunk.runs.iter().map(|run| run.batch.len()).sum();
    (records * 96 + shared).min(1 << 20)
}

/// The records of a run as messages, for whoever puts them into messages of its own.
///
/// # Errors
/// LOG_CORRUPT where bytes are not what the checksum promised.
pub fn recorded(run: &Run) -> Result<Vec<pb::RecordedEvent>, Failure> {
    let (mut encoder, mut bytes) = (EventEncoder::default(), Vec::new());
    encoder.begin(run);
    for record in run.records() {
        encoder.put(&record?, &mut bytes);
    }
    let fault = |error: prost::DecodeError| Failure::new(Kind::Internal, "READ_FAILED", error.to_string());
    Ok(pb::ReadBatch::decode(Bytes::from(bytes)).map_err(fault)?.events)
}

/// Encodes one event after the other as `RecordedEvent`, field 1 of whatever holds it. Each is put together apart and leaves in one piece: the
/// transport's buffer takes long for the many small ones.
#[derive(Default)]
struct EventEncoder {
    /// What all events of a run have in common, as fields.
    of_run: Vec<u8>,
    one: Vec<u8>,
}

impl EventEncoder {
    fn put_all(&mut self, chunk: &Chunk, direction: Direction, buf: &mut impl BufMut) -> Result<(), Status> {
        let damaged = |error: LogError| status(error.into(), None);
        for run in &chunk.runs {
            self.begin(run);
            match direction {
                Direction::Forwards => {
                    for record in run.records() {
                        self.put(&record.map_err(damaged)?, buf);
                    }
                }
                Direction::Backwards => {
                    let records = run.records().collect::<Result<Vec<_>, _>>().map_err(damaged)?;
                    for record in records.iter().rev() {
                        self.put(record, buf);
                    }
                }
            }
        }
        Ok(())
    }

    /// The records that follow are of this run.
    fn begin(&mut self, run: &Run) {
        let fields = &mut self.of_run;
        fields.clear();
        put_bytes(2, run.topic.name.as_str().as_bytes(), fields);
        put_number(3, u64::from(run.partition.get()), fields);
        put_message_key(7, time_len(run.recorded_at), fields);
        put_time(run.recorded_at, fields);
    }

    fn put(&mut self, record: &RecordView<'_>, buf: &mut impl BufMut) {
        let event = record.event();
        let inner = event_len(record, event.as_ref());
        let key = record.key.unwrap_or_default();
        let stream = if event.is_some() { key } else { &[] };
        let plain_key = if event.is_some() { None } else { record.key };
        let version = event.as_ref().map_or(0, |event| event.version.get());
        let redacted = event.as_ref().map_or(0, |event| u64::from(event.is_redacted));
        let length = message_len(1, inner)
            + self.of_run.len()
            + number_len(4, record.offset.get())
            + bytes_len(5, stream)
            + number_len(6, version)
            + number_len(8, record.position.get())
            + number_len(9, redacted)
            + plain_key.map_or(0, |key| message_len(10, key.len()));
        let one = &mut self.one;
        one.clear();
        put_message_key(1, length, one);
        put_message_key(1, inner, one);
        put_inner(record, event.as_ref(), one);
        one.put_slice(&self.of_run);
        put_number(4, record.offset.get(), one);
        put_bytes(5, stream, one);
        put_number(6, version, one);
        put_number(8, record.position.get(), one);
        put_number(9, redacted, one);
        if let Some(key) = plain_key {
            put_present(10, key, one);
        }
        buf.put_slice(one);
    }
}

fn event_len(record: &RecordView<'_>, event: Option<&EventView<'_>>) -> usize {
    let mut length = record.value.map_or(0, |data| message_len(3, data.len())) + message_len(8, time_len(record.timestamp));
    let Some(event) = event else {
        for (name, value) in record.headers() {
            length += message_len(13, header_len(name, value));
        }
        return length;
    };
    length += event.event_id.map_or(0, |id| bytes_len(1, id.as_bytes()))
        + bytes_len(2, event.kind.as_bytes())
        + bytes_len(4, event.content_type.unwrap_or_default().as_bytes())
        + bytes_len(5, event.schema.unwrap_or_default().as_bytes())
        + bytes_len(9, event.correlation_id.unwrap_or_default())
        + bytes_len(10, event.causation_id.unwrap_or_default());
    for tag in event.tags() {
        length += message_len(6, tag.len());
    }
    for (name, value) in event.attributes() {
        length += match name {
            TRACEPARENT => bytes_len(11, value.as_bytes()),
            TRACESTATE => bytes_len(12, value.as_bytes()),
            _ => message_len(7, entry_len(name, value)),
        };
    }
    length
}

fn put_inner(record: &RecordView<'_>, event: Option<&EventView<'_>>, buf: &mut Vec<u8>) {
    if let Some(event) = event {
        put_bytes(1, event.event_id.as_ref().map_or(&[], |id| id.as_bytes().as_slice()), buf);
        put_bytes(2, event.kind.as_bytes(), buf);
    }
    if let Some(data) = record.value {
        put_present(3, data, buf);
    }
    put_message_key(8, time_len(record.timestamp), buf);
    put_time(record.timestamp, buf);
    let Some(event) = event else {
        for (name, value) in record.headers() {
            put_message_key(13, header_len(name, value), buf);
            put_bytes(1, name.as_bytes(), buf);
            if let Some(value) = value {
                put_present(2, value, buf);
            }
        }
        return;
    };
    put_bytes(4, event.content_type.unwrap_or_default().as_bytes(), buf);
    put_bytes(5, event.schema.unwrap_or_default().as_bytes(), buf);
    put_bytes(9, event.correlation_id.unwrap_or_default(), buf);
    put_bytes(10, event.causation_id.unwrap_or_default(), buf);
    for tag in event.tags() {
        put_present(6, tag.as_bytes(), buf);
    }
    for (name, value) in event.attributes() {
        match name {
            TRACEPARENT => put_bytes(11, value.as_bytes(), buf),
            TRACESTATE => put_bytes(12, value.as_bytes(), buf),
            _ => {
                put_message_key(7, entry_len(name, value), buf);
                put_present(1, name.as_bytes(), buf);
                put_present(2, value.as_bytes(), buf);
            }
        }
    }
}

fn header_len(name: &str, value: Option<&[u8]>) -> usize {
    bytes_len(1, name.as_bytes()) + value.map_or(0, |value| message_len(2, value.len()))
}

fn entry_len(name: &str, value: &str) -> usize {
    message_len(1, name.len()) + message_len(2, value.len())
}

/// Seconds and nanoseconds of a `google.protobuf.Timestamp`.
fn seconds_and_nanos(time: Timestamp) -> (u64, u64) {
    // A negative number of seconds travels as its two's complement, as int64 does.
    (time.get().div_euclid(1000).cast_unsigned(), time.get().rem_euclid(1000).cast_unsigned() * 1_000_000)
}

fn time_len(time: Timestamp) -> usize {
    let (seconds, nanos) = seconds_and_nanos(time);
    number_len(1, seconds) + number_len(2, nanos)
}

fn put_time(time: Timestamp, buf: &mut Vec<u8>) {
    let (seconds, nanos) = seconds_and_nanos(time);
    put_number(1, seconds, buf);
    put_number(2, nanos, buf);
}

// The four shapes of proto3 fields that occur here. Numbers and bytes at their default are left out.

fn number_len(tag: u32, number: u64) -> usize {
    if number == 0 { 0 } else { key_len(tag) + encoded_len_varint(number) }
}

fn put_number(tag: u32, number: u64, buf: &mut impl BufMut) {
    if number != 0 {
        encode_key(tag, WireType::Varint, buf);
        encode_varint(number, buf);
    }
}

fn bytes_len(tag: u32, bytes: &[u8]) -> usize {
    if bytes.is_empty() { 0 } else { message_len(tag, bytes.len()) }
}

fn put_bytes(tag: u32, bytes: &[u8], buf: &mut impl BufMut) {
    if !bytes.is_empty() {
        put_present(tag, bytes, buf);
    }
}

/// Length of a field of `length` bytes with its key, present even when empty.
fn message_len(tag: u32, length: usize) -> usize {
    key_len(tag) + encoded_len_varint(length as u64) + length
}

fn put_message_key(tag: u32, length: usize, buf: &mut impl BufMut) {
    encode_key(tag, WireType::LengthDelimited, buf);
    encode_varint(length as u64, buf);
}

fn put_present(tag: u32, bytes: &[u8], buf: &mut impl BufMut) {
    put_message_key(tag, bytes.len(), buf);
    buf.put_slice(bytes);
}
