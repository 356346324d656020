//! Bad calls: each gets an answer with a reason, nothing is written, and everyone else goes on.

use crate::support::*;
use foldlog_proto::v1 as pb;
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::timeout};
use tonic::{Code, Status, codegen::http::uri::PathAndQuery};

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

/// Calls a method with a message as it is, and takes the status of the refusal.
async fn refused_raw(world: &World, path: &'static str, body: Vec<u8>) -> Status {
    let channel = tonic::transport::Channel::from_shared(foldlog_server::testing::url(&world.server)).unwrap().connect().await.unwrap();
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    match grpc.server_streaming(tonic::Request::new(body.into()), PathAndQuery::from_static(path), RawBytes).await {
        Err(status) => status,
        Ok(mut stream) => stream.get_mut().message().await.unwrap_err(),
    }
}

#[tokio::test]
async fn garbage_in_a_message_is_refused_with_a_reason() {
    let world = world().await;
    let varint_without_end = [&[0x0a][..], &[0xff; 10], &[0x01]].concat();
    // Groups are long gone from the language, but any unknown field may be one, in another, in another.
    let deep = [0x7b; 100_000].to_vec();
    for path in ["/foldlog.v1.EventLog/Append", "/foldlog.v1.EventLog/Read", "/foldlog.v1.Query/Execute", "/foldlog.v1.Topics/Create"] {
        for body in [vec![0x0f, 0x01], vec![0x0a, 0x05, 0x61], vec![0x08, 0x01], varint_without_end.clone(), deep.clone()] {
            let status = refused_raw(&world, path, body).await;
            assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "MALFORMED_MESSAGE"), "{path}: {status:?}");
            assert_eq!(info(&status).metadata["outcome"], "failed");
        }
    }
    assert_eq!(world.server_metric("foldlog_rejected_total{reason=\"MALFORMED_MESSAGE\"}").await, 20);
    world.stop().await;
}

#[tokio::test]
async fn what_is_not_there_is_unimplemented() {
    let mut world = world().await;
    let status = refused_raw(&world, "/foldlog.v1.EventLog/Nothing", Vec::new()).await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unimplemented, "NOT_SUPPORTED"));
    let status = refused_raw(&world, "/foldlog.v9.Nobody/Nothing", Vec::new()).await;
    assert_eq!(status.code(), Code::Unimplemented);
    world.topic("t").await;
    let mut encoded = tonic::Request::new(request("t", "s", &["1"]));
    encoded.metadata_mut().insert("grpc-encoding", "br".parse().unwrap());
    let status = world.log.append(encoded).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unimplemented, "NOT_SUPPORTED"));
    let understood = status.metadata().get("grpc-accept-encoding").unwrap();
    assert!(understood.to_str().unwrap().contains("gzip"), "{status:?}");
    assert!(world.read(topic_from("t", 0)).await.is_empty());
    world.stop().await;
}

#[tokio::test]
async fn lengths_and_flags_that_lie_are_refused_before_the_message_comes() {
    let world = world().await;
    let post = |prefix: [u8; 5]| {
        let head = "POST /foldlog.v1.EventLog/Append HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/grpc\r\nconnection: close\r\n\
                    content-length: 1000000000\r\n\r\n";
        [head.as_bytes(), &prefix].concat()
    };
    // 8 MiB and one byte are announced, none of them is sent.
    let too_large = raw(&world, &post([0, 0, 0x80, 0, 1])).await;
    assert!(too_large.contains("grpc-status: 8") && too_large.contains("8388608"), "{too_large}");
    let compressed_with_nothing = raw(&world, &post([1, 0, 0, 0, 1])).await;
    assert!(compressed_with_nothing.contains("grpc-status: 3"), "{compressed_with_nothing}");
    let no_such_flag = raw(&world, &post([7, 0, 0, 0, 1])).await;
    assert!(no_such_flag.contains("grpc-status: 3"), "{no_such_flag}");
    world.stop().await;
}

#[tokio::test]
async fn numbers_at_their_ends_are_refused_by_name() {
    use pb::stream_state::Expect;
    let mut world = world().await;
    world.topic("t").await;
    world.topic_of("plain", pb::TopicKind::Records).await;
    for partition in [2, 1 << 31, u32::MAX] {
        let source = pb::read_request::Source::Partition(pb::PartitionRange { topic: "t".into(), partition, from_offset: Some(0) });
        let status = world.read_with(pb::ReadRequest { source: Some(source), ..Default::default() }).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "PARTITION_NOT_FOUND"), "{partition}");
        let record = pb::Event { data: Some("x".into()), ..Default::default() };
        let write = pb::Write { topic: "plain".into(), partition: Some(partition), events: vec![record], ..Default::default() };
        let status = world.append_refused(pb::AppendRequest { writes: vec![write], ..Default::default() }).await;
        assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "PARTITION_NOT_FOUND"), "{partition}");
    }
    for (version, code) in [(0, Code::InvalidArgument), (u64::MAX, Code::Aborted)] {
        let mut append = request("t", "s", &["1"]);
        append.preconditions = vec![expect("s", Expect::Version(version))];
        assert_eq!(world.append_refused(append).await.code(), code, "{version}");
    }
    let nothing_in_it = pb::Event { r#type: "Said".into(), ..Default::default() };
    let write = pb::Write { topic: "t".into(), stream: "s".into(), events: vec![nothing_in_it], ..Default::default() };
    world.log.append(pb::AppendRequest { writes: vec![write], ..Default::default() }).await.unwrap();
    assert_eq!(world.read(topic_from("t", 0)).await.len(), 1, "an event without a payload is one");
    world.stop().await;
}

#[tokio::test]
async fn an_append_that_its_client_gave_up_is_in_the_log_or_not_and_nothing_between() {
    let mut world = world().await;
    world.topic("t").await;
    let mut acknowledged = Vec::new();
    for n in 0..200_u8 {
        let mut append = request("t", "s", &[&n.to_string(), "and its other half"]);
        append.request_id = vec![n; 16].into();
        let mut hurried = tonic::Request::new(append.clone());
        hurried.set_timeout(std::time::Duration::from_micros(u64::from(n) * 20));
        match world.log.append(hurried).await {
            Ok(answer) => acknowledged.push(answer.into_inner().first_position),
            // No details: whoever gives up does not know. Asking again under the same id tells.
            Err(status) => {
                assert!(matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded), "{status:?}");
                acknowledged.push(world.log.append(append).await.unwrap().into_inner().first_position);
            }
        }
    }
    let events = world.read(topic_from("t", 0)).await;
    let firsts: Vec<u64> = events.iter().step_by(2).map(|event| event.position).collect();
    assert_eq!(firsts, acknowledged, "each once, whole, where its answer says");
    assert_eq!(events.len(), 400);
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
    for service in ["", "foldlog.v1.EventLog", "foldlog.v1.Topics", "foldlog.v1.Query", "foldlog.v1.Admin"] {
        let answer = health.check(HealthCheckRequest { service: service.into() }).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    let ask = ServerReflectionRequest { host: String::new(), message_request: Some(MessageRequest::ListServices(String::new())) };
    let mut answers = ServerReflectionClient::new(channel).server_reflection_info(tokio_stream::once(ask)).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) = answers.message().await.unwrap().unwrap().message_response else { panic!() };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    for name in ["foldlog.v1.EventLog", "foldlog.v1.Topics", "foldlog.v1.Query", "foldlog.v1.Admin", "grpc.health.v1.Health"] {
        assert!(names.iter().any(|found| found == name), "{name} is not in {names:?}");
    }
    drop(answers);
    world.stop().await;
}
