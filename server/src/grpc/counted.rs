//! Appends are counted on the wire before they are decoded: an empty event takes two bytes there and hundreds in memory, so the
//! limit on a message's bytes alone would let one request take gigabytes.
//!
//! [`super::events`] decodes appends through [`Counted`], messages of sessions through [`CountedSession`]. Must know every repeated field of `AppendRequest`, however deep.

use foldlog_proto::{codec, v1 as pb};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use tonic::{
    Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder},
};

use crate::{app::App, config::Limits, failure::Failure};

/// Attributes and headers in one append: many for each of the most events there may be.
const MOST_NAMED: usize = 1 << 18;

type Appends = codec::Codec<pb::AppendResponse, pb::AppendRequest>;

/// See the module.
pub struct Counted(pub App);

/// Decodes what was counted.
pub struct CountedDecoder {
    app: App,
}

impl Codec for Counted {
    type Encode = pb::AppendResponse;
    type Decode = pb::AppendRequest;
    type Encoder = <Appends as Codec>::Encoder;
    type Decoder = CountedDecoder;

    fn encoder(&mut self) -> Self::Encoder {
        Appends::default().encoder()
    }

    fn decoder(&mut self) -> CountedDecoder {
        CountedDecoder { app: self.0.clone() }
    }
}

impl Decoder for CountedDecoder {
    type Item = pb::AppendRequest;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<pb::AppendRequest>, Status> {
        let message = codec::take(message);
        let mut counts = Counts::default();
        counts.request(&message);
        counts.check(&self.app.limits).map_err(|failure| self.app.refuse(failure))?;
        codec::decode(message).map(Some)
    }

    fn buffer_settings(&self) -> BufferSettings {
        codec::Decoder::<pb::AppendRequest>::default().buffer_settings()
    }
}

type Sessions = codec::Codec<pb::AppendSessionResponse, pb::AppendSessionRequest>;

/// The same for messages of sessions: what holds for an append holds for all of a message together.
pub struct CountedSession(pub App);

/// A message of a session.
#[derive(Debug)]
pub struct Arrived {
    /// The message.
    pub request: pb::AppendSessionRequest,
    /// Its bytes, as encoded.
    pub bytes: u64,
}

/// Decodes what was counted.
pub struct CountedSessionDecoder {
    app: App,
}

impl Codec for CountedSession {
    type Encode = pb::AppendSessionResponse;
    type Decode = Arrived;
    type Encoder = <Sessions as Codec>::Encoder;
    type Decoder = CountedSessionDecoder;

    fn encoder(&mut self) -> Self::Encoder {
        Sessions::default().encoder()
    }

    fn decoder(&mut self) -> CountedSessionDecoder {
        CountedSessionDecoder { app: self.0.clone() }
    }
}

impl Decoder for CountedSessionDecoder {
    type Item = Arrived;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Arrived>, Status> {
        let message = codec::take(message);
        let bytes = message.len() as u64;
        let mut counts = Counts::default();
        counts.session(&message);
        counts.check(&self.app.limits).map_err(|failure| self.app.refuse(failure))?;
        let request = codec::decode(message)?;
        Ok(Some(Arrived { request, bytes }))
    }
}

/// How often the repeated fields of an append occur.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    appends: usize,
    writes: usize,
    events: usize,
    named: usize,
    preconditions: usize,
}

impl Counts {
    fn session(&mut self, message: &[u8]) {
        for_each_message(message, |field, inner| {
            if field == 2 {
                for_each_message(inner, |field, append| {
                    if field == 2 {
                        self.appends += 1;
                        self.request(append);
                    }
                });
            }
        });
    }

    fn request(&mut self, message: &[u8]) {
        for_each_message(message, |field, inner| match field {
            4 => {
                self.writes += 1;
                self.write(inner);
            }
            5 => self.preconditions += 1,
            _ => {}
        });
    }

    fn write(&mut self, message: &[u8]) {
        for_each_message(message, |field, inner| {
            if field == 2 {
                self.events += 1;
                // Attributes and headers.
                for_each_message(inner, |field, _| self.named += usize::from(matches!(field, 7 | 13)));
            }
        });
    }

    fn check(&self, limits: &Limits) -> Result<(), Failure> {
        let most = limits.append_events;
        for (what, count, most) in [
            ("appends", self.appends, most),
            ("writes", self.writes, most),
            ("events", self.events, most),
            ("attributes and headers", self.named, MOST_NAMED),
            ("preconditions", self.preconditions, most),
        ] {
            if count > most {
                return Err(Failure::field(
                    "APPEND_TOO_LARGE",
                    "writes",
                    format_args!("{count} {what}; the limit of one append is {most}"),
                ));
            }
        }
        Ok(())
    }
}

/// Gives each field that may be a message to `each`, in order; ends where the bytes are malformed, which decoding will report.
fn for_each_message<'a>(mut message: &'a [u8], mut each: impl FnMut(u32, &'a [u8])) {
    // Asked first: that nothing is left is no error, which would cost an allocation.
    while !message.is_empty()
        && let Ok((field, wire_type)) = decode_key(&mut message)
    {
        if wire_type != WireType::LengthDelimited {
            if skip_field(wire_type, field, &mut message, DecodeContext::default()).is_err() {
                return;
            }
            continue;
        }
        let Some((inner, rest)) =
            decode_varint(&mut message).ok().and_then(|length| message.split_at_checked(usize::try_from(length).ok()?))
        else {
            return;
        };
        each(field, inner);
        message = rest;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use prost::Message as _;

    use super::*;

    fn counts(message: &[u8]) -> Counts {
        let mut counts = Counts::default();
        counts.request(message);
        counts
    }

    fn request() -> pb::AppendRequest {
        let event = pb::Event {
            data: Some(vec![0x22; 9].into()),
            attributes: BTreeMap::from([("a".into(), "b".into()), ("c".into(), String::new())]),
            time: Some(prost_types::Timestamp { seconds: 1, nanos: 2 }),
            headers: vec![pb::Header::default(); 3],
            ..Default::default()
        };
        let write = pb::Write { events: vec![event, pb::Event::default()], partition: Some(7), ..Default::default() };
        let preconditions = vec![pb::Precondition::default(); 4];
        pb::AppendRequest {
            topic: "t".into(),
            writes: vec![write, pb::Write::default()],
            preconditions,
            durability: 1,
            ..Default::default()
        }
    }

    #[test]
    fn everything_repeated_is_counted_and_nothing_else() {
        let counted = counts(&request().encode_to_vec());
        let of_one = Counts { appends: 0, writes: 2, events: 2, named: 5, preconditions: 4 };
        assert_eq!(counted, of_one);
        let appends = pb::SessionAppends { first_sequence: 7, appends: vec![request(), request()] };
        let message = pb::AppendSessionRequest { message: Some(pb::append_session_request::Message::Appends(appends)) };
        let mut of_session = Counts::default();
        of_session.session(&message.encode_to_vec());
        assert_eq!(of_session, Counts { appends: 2, writes: 4, events: 4, named: 10, preconditions: 8 });
    }

    #[test]
    fn cut_and_changed_messages_are_counted_without_a_panic() {
        let whole = request().encode_to_vec();
        for place in 0..whole.len() {
            counts(&whole[..place]);
            for bit in 0..8 {
                let mut changed = whole.clone();
                changed[place] ^= 1 << bit;
                counts(&changed);
            }
        }
    }

    #[test]
    fn the_limit_is_met_and_one_more_is_refused() {
        let limits = Limits::default();
        let most = Counts { appends: 10_000, writes: 10_000, events: 10_000, named: MOST_NAMED, preconditions: 10_000 };
        assert!(most.check(&limits).is_ok());
        for beyond in [
            Counts { appends: 10_001, ..Default::default() },
            Counts { writes: 10_001, ..Default::default() },
            Counts { events: 10_001, ..Default::default() },
            Counts { named: MOST_NAMED + 1, ..Default::default() },
            Counts { preconditions: 10_001, ..Default::default() },
        ] {
            assert_eq!(beyond.check(&limits).unwrap_err().reason, "APPEND_TOO_LARGE", "{beyond:?}");
        }
    }
}
