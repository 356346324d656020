//! Messages of append sessions that leave as bytes, so that encoding them does not take the processor from what is measured: events that
//! are alike are encoded once, as a driver of a peer does.

use foldlog_proto::v1::{
    AppendRequest, AppendSessionRequest, AppendSessionResponse, Precondition, SessionAppends, SessionOpen, Write, append_session_request,
};
use prost::{
    Message,
    bytes::{BufMut as _, Bytes, BytesMut},
    encoding::{WireType, encode_key, encode_varint},
};
use tonic::{
    Status,
    codec::{BufferSettings, Codec, EncodeBuf, Encoder},
};
use tonic_prost::ProstCodec;

type Prost = ProstCodec<AppendSessionRequest, AppendSessionResponse>;

/// Sends bytes as they are, decodes answers as ever.
#[derive(Default)]
pub struct Sessions;

impl Codec for Sessions {
    type Encode = Bytes;
    type Decode = AppendSessionResponse;
    type Encoder = AsTheyAre;
    type Decoder = <Prost as Codec>::Decoder;

    fn encoder(&mut self) -> AsTheyAre {
        AsTheyAre
    }

    fn decoder(&mut self) -> Self::Decoder {
        Prost::raw_decoder(BufferSettings::default())
    }
}

/// See [`Sessions`].
pub struct AsTheyAre;

impl Encoder for AsTheyAre {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(message);
        Ok(())
    }
}

/// The message that opens a session.
pub fn open() -> Bytes {
    let open = append_session_request::Message::Open(SessionOpen::default());
    AppendSessionRequest { message: Some(open) }.encode_to_vec().into()
}

/// Collects the units of a message.
pub struct Units {
    body: BytesMut,
    /// The events of a write, each with its key and length.
    events: Bytes,
}

impl Units {
    /// Units of `count` events that are all `event`.
    pub fn of(event: &foldlog_proto::v1::Event, count: usize) -> Self {
        let write = Write { events: vec![event.clone(); count], ..Write::default() };
        Self { body: BytesMut::new(), events: write.encode_to_vec().into() }
    }

    /// Adds a unit that appends the events to a stream.
    pub fn push(&mut self, topic: &str, stream: String, precondition: Precondition) {
        let write = Write { stream, ..Write::default() };
        let head = AppendRequest { topic: topic.to_owned(), preconditions: vec![precondition], ..AppendRequest::default() };
        let of_write = write.encoded_len() + self.events.len();
        let of_head = head.encoded_len();
        let length = of_head + 1 + prost::length_delimiter_len(of_write) + of_write;
        // Each is the field of the one before: appends of the message, writes of the append.
        encode_key(2, WireType::LengthDelimited, &mut self.body);
        encode_varint(length as u64, &mut self.body);
        self.body.put_slice(&head.encode_to_vec());
        encode_key(4, WireType::LengthDelimited, &mut self.body);
        encode_varint(of_write as u64, &mut self.body);
        self.body.put_slice(&write.encode_to_vec());
        self.body.put_slice(&self.events);
    }

    /// The message of what was pushed.
    pub fn message(&mut self, first_sequence: u64) -> Bytes {
        let head = SessionAppends { first_sequence, appends: Vec::new() }.encode_to_vec();
        let mut message = BytesMut::with_capacity(self.body.len() + head.len() + 8);
        encode_key(2, WireType::LengthDelimited, &mut message);
        encode_varint((head.len() + self.body.len()) as u64, &mut message);
        message.put_slice(&head);
        message.put_slice(&self.body);
        self.body.clear();
        message.freeze()
    }
}

#[cfg(test)]
mod tests {
    use foldlog_proto::v1::Event;

    use super::*;

    #[test]
    fn what_is_encoded_by_hand_is_the_message_that_is_meant() {
        let event = Event { r#type: "Measured".to_owned(), ..Event::default() };
        let mut units = Units::of(&event, 3);
        for stream in ["a", "b"] {
            units.push("measured", stream.to_owned(), Precondition::default());
        }
        let unit = |stream: &str| AppendRequest {
            topic: "measured".to_owned(),
            writes: vec![Write { stream: stream.to_owned(), events: vec![event.clone(); 3], ..Write::default() }],
            preconditions: vec![Precondition::default()],
            ..AppendRequest::default()
        };
        let appends = SessionAppends { first_sequence: 300, appends: vec![unit("a"), unit("b")] };
        let expected = AppendSessionRequest { message: Some(append_session_request::Message::Appends(appends)) };
        assert_eq!(AppendSessionRequest::decode(units.message(300)), Ok(expected));
    }
}
