//! The codec of generated clients and services, and of whoever routes calls by hand: prost's, but for how a message is decoded.
//!
//! tonic hands out a window of the buffer that it reads into, in which every step forward is bookkeeping; a buffer that holds
//! the message alone is passed through twice as fast. It is a part of the same memory, as payloads are parts of it.

use std::marker::PhantomData;

use prost::{
    Message,
    bytes::{Buf as _, Bytes},
};
use tonic::{
    Status,
    codec::{BufferSettings, DecodeBuf},
};
use tonic_prost::ProstEncoder;

/// Room for a message before its length is known: for that of a small call. Larger ones make theirs.
const ROOM: usize = 1 << 10;
/// Messages of a stream that are ready leave together up to here; tonic's own choice.
const TOGETHER: usize = 32 << 10;

/// Encodes `T` and decodes `U`.
#[derive(Clone, Debug)]
pub struct Codec<T, U>(PhantomData<(T, U)>);

/// Decodes messages, each from a buffer of its own.
#[derive(Clone, Debug)]
pub struct Decoder<U>(PhantomData<U>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<U> Default for Decoder<U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = Decoder<U>;

    fn encoder(&mut self) -> ProstEncoder<T> {
        ProstEncoder::new(BufferSettings::new(ROOM, TOGETHER))
    }

    fn decoder(&mut self) -> Decoder<U> {
        Decoder::default()
    }
}

impl<U: Message + Default> tonic::codec::Decoder for Decoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        decode(take(message)).map(Some)
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(ROOM, TOGETHER)
    }
}

/// The bytes of a whole message, for decoders that look at them first.
pub fn take(message: &mut DecodeBuf<'_>) -> Bytes {
    message.copy_to_bytes(message.remaining())
}

/// The message that these bytes are.
///
/// # Errors
/// INTERNAL if they are none, as gRPC has it.
pub fn decode<M: Message + Default>(message: Bytes) -> Result<M, Status> {
    M::decode(message).map_err(|error| Status::internal(error.to_string()))
}
