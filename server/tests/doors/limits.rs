//! Bad input at the port: it gets an answer, or its connection ends, and everyone else goes on.

use std::time::Duration;

use crate::support::*;
use foldlog_proto::v1 as pb;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tonic::Code;

/// Sends bytes and returns what comes back until the other side ends.
async fn raw(world: &World, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(world.server.address()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let _reset_is_an_end_too = timeout(LONG, stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

async fn get(world: &World, path: &str) -> String {
    raw(world, format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes()).await
}

#[tokio::test]
async fn health_readiness_and_numbers_are_served_beside_grpc() {
    let mut world = world().await;
    world.topic("t").await;
    world.append("t", "s", &["1", "2"]).await;
    assert!(get(&world, "/healthz").await.ends_with("\r\n\r\nok\n"));
    assert!(get(&world, "/readyz").await.starts_with("HTTP/1.1 200"));
    let _not_found = world.append_refused(request("nowhere", "s", &["1"])).await;
    let metrics = get(&world, "/metrics").await;
    for line in [
        "foldlog_appends_total 1",
        "foldlog_appended_events_total 2",
        "foldlog_rejected_total{reason=\"TOPIC_NOT_FOUND\"} 1",
        "foldlog_ready 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in {metrics}");
    }
    world.stop().await;
}

#[tokio::test]
async fn strange_paths_and_requests_are_refused() {
    let world = world().await;
    for path in ["/../config", "/%2e%2e/config", "//", "/\\", "/nothing"] {
        let answer = get(&world, path).await;
        assert!(answer.starts_with("HTTP/1.1 404") || answer.starts_with("HTTP/1.1 400"), "{path}: {answer}");
    }
    for smuggled in [
        "POST /healthz HTTP/1.1\r\nhost: l\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        "GET /healthz HTTP/1.1\r\nhost: l\r\nx: a\r\n folded\r\n\r\n",
    ] {
        let answer = raw(&world, smuggled.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.1 405"), "{smuggled}: {answer}");
    }
    // Its body is never read; what matters is that the connection ends.
    raw(&world, b"GET /healthz HTTP/1.1\r\nhost: l\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n").await;
    let large = format!("GET /healthz HTTP/1.1\r\nhost: l\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    let answer = raw(&world, large.as_bytes()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert!(get(&world, "/healthz").await.starts_with("HTTP/1.1 200"), "others go on");
    world.stop().await;
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let world = world_with(|config| config.limits.arrival = Duration::from_millis(200)).await;
    assert_eq!(raw(&world, b"").await, "");
    assert!(!raw(&world, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await.contains(" 200 "), "garbage is not served");
    world.stop().await;
}

#[tokio::test]
async fn a_message_that_does_not_arrive_is_given_up() {
    let world = world_with(|config| config.limits.message_arrival = Duration::from_millis(200)).await;
    let slow = "POST /foldlog.v1.EventLog/Append HTTP/1.1\r\nhost: l\r\nconnection: close\r\ncontent-length: 100\r\n\r\n\0";
    let answer = raw(&world, slow.as_bytes()).await;
    assert!(answer.contains("grpc-status: 4"), "{answer}");
    world.stop().await;
}

#[tokio::test]
async fn a_message_that_unpacks_too_large_is_refused() {
    let mut world = world().await;
    world.topic("t").await;
    let mut log = world.log.clone().send_compressed(tonic::codec::CompressionEncoding::Gzip);
    log.append(request("t", "s", &["small"])).await.unwrap();
    let bomb = "0".repeat(64 << 20);
    let status = log.append(request("t", "s", &[&bomb])).await.unwrap_err();
    assert!(matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted), "{status:?}");
    assert_eq!(world.append("t", "s", &["after"]).await.versions[0].version, 2);
    world.stop().await;
}

#[tokio::test]
async fn a_small_message_that_would_take_gigabytes_is_refused_before_it_is_decoded() {
    let mut world = world().await;
    world.topic("t").await;
    let mut log = world.log.clone().send_compressed(tonic::codec::CompressionEncoding::Gzip);
    // Two bytes each on the wire; a decoded event takes some 300.
    let write = pb::Write { stream: "s".into(), events: vec![pb::Event::default(); 10_001], ..Default::default() };
    let status = log.append(pb::AppendRequest { topic: "t".into(), writes: vec![write], ..Default::default() }).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "APPEND_TOO_LARGE"), "{status:?}");
    assert_eq!(world.append("t", "s", &["after"]).await.versions[0].version, 1);
    world.stop().await;
}

#[tokio::test]
async fn a_query_takes_large_parameters_within_its_limit() {
    let mut world = world().await;
    world.topic("t").await;
    let asked = |bytes: usize| pb::QueryRequest {
        sql: "SELECT version FROM t WHERE stream = $1".into(),
        parameters: vec![pb::Value { kind: Some(pb::value::Kind::Text("x".repeat(bytes))) }],
        ..Default::default()
    };
    world.query.execute(asked(1 << 20)).await.unwrap();
    let status = world.query.execute(asked(2 << 20)).await.unwrap_err();
    assert!(matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted), "{status:?}");
    world.stop().await;
}

#[tokio::test]
async fn requests_and_streams_beyond_the_limit_are_refused_fast() {
    let mut world = world_with(|config| config.limits.streams = 2).await;
    world.topic("t").await;
    let one = world.log.subscribe(follow("t", 0)).await.unwrap();
    let two = world.log.subscribe(follow("t", 0)).await.unwrap();
    let status = world.log.subscribe(follow("t", 0)).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "OVERLOADED"));
    assert!(details(&status)[1].type_url.ends_with("RetryInfo"));
    drop((one, two));
    let again = async {
        while world.log.subscribe(follow("t", 0)).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, again).await.unwrap();
    world.stop().await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_refused_and_the_others_go_on() {
    let mut world = world_with(|config| config.limits.connections = 2).await;
    let idle = TcpStream::connect(world.server.address()).await.unwrap();
    let mut refused = TcpStream::connect(world.server.address()).await.unwrap();
    let mut byte = [0];
    let read = timeout(LONG, refused.read(&mut byte)).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    world.topic("t").await;
    drop(idle);
    world.stop().await;
}

#[tokio::test]
async fn garbage_in_a_message_is_an_error_and_unknown_methods_are_unimplemented() {
    use prost::bytes::Bytes;
    use tonic::codegen::http::uri::PathAndQuery;
    let world = world().await;
    let channel = tonic::transport::Channel::from_shared(foldlog_server::testing::url(&world.server)).unwrap().connect().await.unwrap();
    let mut grpc = tonic::client::Grpc::new(channel);
    // StreamState nested as deep as the recursion limit forbids, a wrong wire type, a varint without end.
    for (body, method) in [
        (vec![0x0f, 0x01], "Append"),
        (vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], "Append"),
        (vec![0x0a, 0x05, 0x61], "Read"),
    ] {
        grpc.ready().await.unwrap();
        let path = PathAndQuery::try_from(format!("/foldlog.v1.EventLog/{method}")).unwrap();
        let answer = grpc.server_streaming(tonic::Request::new(Bytes::from(body)), path, RawBytes).await;
        let status = match answer {
            Err(status) => status,
            Ok(mut stream) => stream.get_mut().message().await.unwrap_err(),
        };
        assert!(matches!(status.code(), Code::Internal | Code::InvalidArgument), "{status:?}");
    }
    grpc.ready().await.unwrap();
    let path = PathAndQuery::from_static("/foldlog.v1.EventLog/Nothing");
    let status = grpc.unary(tonic::Request::new(Bytes::new()), path, RawBytes).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    world.stop().await;
}

/// A codec that sends what it is given.
#[derive(Clone, Copy)]
struct RawBytes;

impl tonic::codec::Codec for RawBytes {
    type Encode = prost::bytes::Bytes;
    type Decode = pb::Head;
    type Encoder = Self;
    type Decoder = <tonic_prost::ProstCodec<pb::Head, pb::Head> as tonic::codec::Codec>::Decoder;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self::Decoder {
        tonic_prost::ProstCodec::<pb::Head, pb::Head>::raw_decoder(tonic::codec::BufferSettings::default())
    }
}

impl tonic::codec::Encoder for RawBytes {
    type Item = prost::bytes::Bytes;
    type Error = tonic::Status;

    fn encode(&mut self, item: prost::bytes::Bytes, buf: &mut tonic::codec::EncodeBuf<'_>) -> Result<(), tonic::Status> {
        use prost::bytes::BufMut as _;
        buf.put(item);
        Ok(())
    }
}

#[tokio::test]
async fn reflection_and_health_are_there_for_tools() {
    use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient, server_reflection_request::MessageRequest,
        server_reflection_response::MessageResponse,
    };
    let world = world().await;
    let channel = tonic::transport::Channel::from_shared(foldlog_server::testing::url(&world.server)).unwrap().connect().await.unwrap();
    let mut health = HealthClient::new(channel.clone());
    for service in ["", "foldlog.v1.EventLog", "foldlog.v1.Topics", "foldlog.v1.Query"] {
        let answer = health.check(HealthCheckRequest { service: service.into() }).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    let ask = ServerReflectionRequest { host: String::new(), message_request: Some(MessageRequest::ListServices(String::new())) };
    let mut answers = ServerReflectionClient::new(channel).server_reflection_info(tokio_stream::once(ask)).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) = answers.message().await.unwrap().unwrap().message_response else { panic!() };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    for name in ["foldlog.v1.EventLog", "foldlog.v1.Topics", "foldlog.v1.Query", "grpc.health.v1.Health"] {
        assert!(names.iter().any(|found| found == name), "{name} is not in {names:?}");
    }
    drop(answers);
    world.stop().await;
}
