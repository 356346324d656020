//! Floods of HTTP/2 frames, written by hand: each ends its own connection or is held back by it, and everyone else goes on.

use std::io;

use crate::support::*;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, split},
    net::TcpStream,
    time::timeout,
};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

const PROTOCOL_ERROR: u32 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;

/// What is sent before anything else: the preface and empty settings.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A header as HPACK spells one that is in no table: both lengths below 127.
fn header(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        bytes.push(u8::try_from(text.len()).unwrap());
        bytes.extend(text.bytes());
    }
    bytes
}

/// The header block of a call whose message is still to come.
fn call() -> Vec<u8> {
    let path = "/foldlog.v1.EventLog/Append";
    let headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    headers.into_iter().flat_map(|(name, value)| header(name, value)).collect()
}

/// How a connection ended.
#[derive(Debug, Default)]
struct Ended {
    /// Error code of the last GOAWAY, if one came.
    goaway: Option<u32>,
    /// Frames that came, by kind.
    frames: [usize; 10],
    /// Streams that were answered with headers: the first bytes of each block.
    answers: Vec<Vec<u8>>,
}

/// Sends a flood while it reads what comes back, until the other side ends the connection.
async fn flood(world: &World, bytes: Vec<u8>) -> Ended {
    flood_until(world, bytes, |_| false).await
}

/// The same, until enough has come back.
async fn flood_until(world: &World, bytes: Vec<u8>, enough: impl Fn(&Ended) -> bool) -> Ended {
    let (mut from, mut to) = split(TcpStream::connect(world.server.address()).await.unwrap());
    let mut ended = Ended::default();
    let reading = async { while !enough(&ended) && read_frame(&mut from, &mut ended).await.is_ok() {} };
    let writing = async {
        let _closed_early = to.write_all(HELLO).await;
        let _closed_early = to.write_all(&bytes).await;
        std::future::pending::<()>().await;
    };
    let until_it_ends = async {
        tokio::select! {
            () = reading => {}
            () = writing => {}
        }
    };
    timeout(LONG, until_it_ends).await.unwrap();
    ended
}

async fn read_frame(from: &mut (impl tokio::io::AsyncRead + Unpin), ended: &mut Ended) -> io::Result<()> {
    let mut head = [0; 9];
    from.read_exact(&mut head).await?;
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    from.read_exact(&mut payload).await?;
    ended.frames[usize::from(head[3])] += 1;
    match head[3] {
        GOAWAY => ended.goaway = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap())),
        HEADERS => ended.answers.push(payload),
        _ => {}
    }
    Ok(())
}

/// Others go on: over a connection of their own they are answered.
async fn others_go_on(world: &mut World) {
    timeout(LONG, world.append("t", "s", &["one more"])).await.unwrap();
}

async fn with_topic() -> World {
    let mut world = world().await;
    world.topic("t").await;
    world
}

#[tokio::test]
async fn streams_that_are_opened_and_reset_at_once_end_their_connection() {
    let mut world = with_topic().await;
    let rapid = (0..100_000).flat_map(|n| {
        let stream = 2 * n + 1;
        [frame(HEADERS, END_HEADERS, stream, &call()), frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
    });
    let ended = flood(&world, rapid.collect()).await;
    assert_eq!(ended.goaway, Some(ENHANCE_YOUR_CALM), "{ended:?}");
    others_go_on(&mut world).await;
    world.stop().await;
}

#[tokio::test]
async fn streams_that_must_be_reset_end_their_connection() {
    let mut world = with_topic().await;
    // Without method and path each is an error of its stream alone.
    let wrong = (0..900).flat_map(|n| frame(HEADERS, END_HEADERS, 2 * n + 1, &header("name", "value")));
    let ended = flood(&world, wrong.chain(frame(PING, 0, 1, &[0; 8])).collect()).await;
    assert_eq!(ended.goaway, Some(ENHANCE_YOUR_CALM), "{ended:?}");
    others_go_on(&mut world).await;
    world.stop().await;
}

#[tokio::test]
async fn headers_without_end_end_their_connection() {
    let mut world = with_topic().await;
    let mut endless = frame(HEADERS, 0, 1, &call());
    for _ in 0..100_000 {
        endless.extend(frame(CONTINUATION, 0, 1, &header("a", "b")));
    }
    let ended = flood(&world, endless).await;
    assert_eq!(ended.goaway, Some(ENHANCE_YOUR_CALM), "{ended:?}");
    let empty = [frame(HEADERS, 0, 1, &call()), frame(CONTINUATION, 0, 1, &[]).repeat(100_000)].concat();
    let ended = flood(&world, empty).await;
    assert_eq!(ended.goaway, Some(ENHANCE_YOUR_CALM), "{ended:?}");
    others_go_on(&mut world).await;
    world.stop().await;
}

#[tokio::test]
async fn headers_that_are_too_many_or_unpack_too_large_are_refused() {
    let mut world = with_topic().await;
    let cut = |stream: u32, block: &[u8]| {
        let mut parts = block.chunks(16_384).peekable();
        let mut frames = Vec::new();
        let mut kind = HEADERS;
        while let Some(part) = parts.next() {
            frames.extend(frame(kind, if parts.peek().is_none() { END_HEADERS } else { 0 }, stream, part));
            kind = CONTINUATION;
        }
        frames
    };
    let many = [call(), header("name", "value").repeat(2_000)].concat();
    // A header of 4 KB goes into the table once, and is then named 10,000 times by one byte each.
    let large = [&[0x40, 1, b'x', 0x7f, 0x80 + 33, 0x1e][..], &[b'y'; 4_000], &[0xbe; 10_000]].concat();
    // 431 as Huffman codes spell it.
    let status_431 = [0x83, 0x69, 0x90, 0xff];
    for block in [many, [call(), large].concat()] {
        let ended = flood_until(&world, cut(1, &block), |ended| !ended.answers.is_empty()).await;
        let refused = ended.answers.iter().any(|answer| answer.windows(4).any(|four| four == status_431));
        assert!(refused || ended.goaway == Some(ENHANCE_YOUR_CALM), "{ended:?}");
    }
    others_go_on(&mut world).await;
    world.stop().await;
}

#[tokio::test]
async fn messages_of_empty_frames_end_their_connection() {
    let mut world = with_topic().await;
    let open = frame(HEADERS, END_HEADERS, 1, &call());
    let ended = flood(&world, [open, frame(DATA, 0, 1, &[]).repeat(500_000)].concat()).await;
    assert_eq!(ended.goaway, Some(ENHANCE_YOUR_CALM), "{ended:?}");
    others_go_on(&mut world).await;
    world.stop().await;
}

#[tokio::test]
async fn windows_that_open_too_far_end_their_connection() {
    let mut world = with_topic().await;
    let ended = flood(&world, frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes()).repeat(2)).await;
    assert!(ended.goaway.is_some_and(|code| code != 0), "{ended:?}");
    let ended =
        flood(&world, [frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()).repeat(100_000), frame(PING, 0, 1, &[0; 8])].concat()).await;
    assert_eq!(ended.goaway, Some(PROTOCOL_ERROR), "one byte at a time is read to its end: {ended:?}");
    others_go_on(&mut world).await;
    world.stop().await;
}

#[tokio::test]
async fn who_asks_and_never_listens_is_not_read_any_further() {
    let mut world = with_topic().await;
    for asking in [frame(PING, 0, 0, &[7; 8]), frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9])] {
        let mut deaf = TcpStream::connect(world.server.address()).await.unwrap();
        deaf.write_all(HELLO).await.unwrap();
        let chunk = asking.repeat(10_000);
        let mut sent = 0;
        // Answers fill the buffers on the way; then nothing more is taken, and so nothing more is kept.
        while let Ok(written) = timeout(std::time::Duration::from_millis(500), deaf.write(&chunk[sent % asking.len()..])).await {
            sent += written.unwrap();
            assert!(sent < 1 << 30, "everything is taken");
        }
        others_go_on(&mut world).await;
    }
    world.stop().await;
}

#[tokio::test]
async fn who_asks_and_listens_is_answered_each_time() {
    let mut world = with_topic().await;
    let asking = [frame(PING, 0, 0, &[7; 8]), frame(SETTINGS, 0, 0, &[])].concat().repeat(50_000);
    let ended = flood(&world, [asking, frame(PING, ACK, 1, &[0; 8])].concat()).await;
    assert_eq!((ended.frames[usize::from(PING)], ended.goaway), (50_000, Some(PROTOCOL_ERROR)), "{ended:?}");
    assert!(ended.frames[usize::from(SETTINGS)] > 50_000, "{ended:?}");
    others_go_on(&mut world).await;
    world.stop().await;
}
