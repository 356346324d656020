//! HTTP beside gRPC: what it serves, and what becomes of requests that are none.

use std::time::Duration;

use crate::support::*;

#[tokio::test]
async fn health_readiness_and_numbers_are_served_beside_grpc() {
    let mut world = world().await;
    world.topic("t").await;
    world.append("t", "s", &["1", "2"]).await;
    assert!(get(&world, "/healthz").await.ends_with("\r\n\r\nok\n"));
    assert!(get(&world, "/readyz").await.starts_with("HTTP/1.1 200"));
    let _not_found = world.append_refused(request("nowhere", "s", &["1"])).await;
    let mut metrics = get(&world, "/metrics").await;
    // What follows the log looks at the append a moment later.
    while !metrics.lines().any(|line| line == "foldlog_queries_waiting 0.0") {
        metrics = get(&world, "/metrics").await;
    }
    for line in [
        "foldlog_appends_total 1",
        "foldlog_appended_events_total 2",
        "foldlog_rejected_total{reason=\"TOPIC_NOT_FOUND\"} 1",
        "foldlog_ready 1",
        "foldlog_log_unsynced_bytes 0.0",
        "foldlog_log_unsynced_age_seconds 0.0",
        "foldlog_log_clock_off 0.0",
        "foldlog_requests_under_way 1.0",
        "foldlog_file_reads_under_way 0.0",
        "foldlog_log_queued 0.0",
        "foldlog_log_queued_bytes 0.0",
        "foldlog_log_segments 0.0",
        "foldlog_log_segment_bytes 0.0",
        "foldlog_log_window_requests 0.0",
        "foldlog_log_window_bytes 0.0",
        "foldlog_log_group_units_bucket{le=\"+Inf\"} 1",
        "foldlog_log_group_bytes_bucket{le=\"4096.0\"} 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in {metrics}");
    }
    world.sql("CREATE STREAM said (n BIGINT) WITH (topic = 't', value_format = 'json')").await.unwrap();
    world.sql("CREATE TABLE counted AS SELECT n, COUNT(*) AS many FROM said GROUP BY n").await.unwrap();
    let is_lag = |line: &&str| line.starts_with("foldlog_query_lag_records{query=");
    // Its own progress is in the log, too, and it sees it a moment later.
    while !get(&world, "/metrics").await.lines().find(is_lag).is_some_and(|line| line.ends_with("} 0")) {}
    assert!(metrics.contains("foldlog_log_sync_duration_seconds_bucket{le=\"0.000016\"}"), "{metrics}");
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
        "POST /healthz HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        "GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: a\r\n folded\r\n\r\n",
    ] {
        let answer = raw(&world, smuggled.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.1 405"), "{smuggled}: {answer}");
    }
    // Its body is never read; what matters is that the connection ends.
    raw(&world, b"GET /healthz HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n").await;
    let large = format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    let answer = raw(&world, large.as_bytes()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert!(get(&world, "/healthz").await.starts_with("HTTP/1.1 200"), "others go on");
    world.stop().await;
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let world = world_with(|config| config.limits.arrival = Duration::from_millis(200)).await;
    for silent in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n\r\nSM"] {
        assert_eq!(raw(&world, silent).await, "", "{silent:?}");
    }
    assert!(!raw(&world, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await.contains(" 200 "), "garbage is not served");
    world.stop().await;
}

#[tokio::test]
async fn a_message_that_does_not_arrive_is_given_up() {
    let world = world_with(|config| config.limits.message_arrival = Duration::from_millis(200)).await;
    let slow = "POST /foldlog.v1.EventLog/Append HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 100\r\n\r\n\0";
    let answer = raw(&world, slow.as_bytes()).await;
    assert!(answer.contains("grpc-status: 4") && answer.contains("grpc-status-details-bin"), "{answer}");
    world.stop().await;
}

#[tokio::test]
async fn on_loopback_only_names_of_this_machine_are_answered() {
    let world = world().await;
    for path in ["/healthz", "/metrics", "/foldlog.v1.EventLog/GetHead"] {
        let foreign = format!("GET {path} HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n");
        let answer = raw(&world, foreign.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 403") && !answer.contains("evil"), "{answer}");
    }
    let call =
        b"POST /foldlog.v1.EventLog/GetHead HTTP/1.1\r\nhost: evil.example\r\ncontent-type: application/grpc\r\nconnection: close\r\n\r\n";
    let answer = raw(&world, call).await;
    assert!(answer.contains("grpc-status: 7") && answer.contains("localhost"), "{answer}");
    assert_eq!(world.server_metric("foldlog_rejected_total{reason=\"FOREIGN_HOST\"}").await, 4);
    let by_address = format!("GET /healthz HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", world.server.address());
    assert!(raw(&world, by_address.as_bytes()).await.starts_with("HTTP/1.1 200"));
    world.stop().await;
}

#[tokio::test]
async fn a_body_that_nobody_asked_for_is_not_read() {
    let world = world().await;
    let head = "POST /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 1073741824\r\n\r\n";
    let answer = raw(&world, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    world.stop().await;
}

#[tokio::test]
async fn a_body_of_two_lengths_never_becomes_a_second_request() {
    let world = world().await;
    let both = "POST /nowhere HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n\
                0\r\n\r\nGET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let answer = raw(&world, both.as_bytes()).await;
    assert!(!answer.contains("ok\n"), "{answer}");
    world.stop().await;
}

#[tokio::test]
async fn names_that_clients_make_up_do_not_become_numbers() {
    let mut world = world().await;
    for n in 0..100 {
        world.append_refused(request(&format!("made-up-{n}"), "s", &["1"])).await;
    }
    let metrics = get(&world, "/metrics").await;
    assert!(!metrics.contains("made-up"), "{metrics}");
    assert_eq!(world.server_metric("foldlog_rejected_total{reason=\"TOPIC_NOT_FOUND\"}").await, 100);
    world.stop().await;
}

#[tokio::test]
async fn strangers_learn_one_word_about_health() {
    let world = world().await;
    for (path, word) in [("/healthz", "ok\n"), ("/readyz", "ready\n")] {
        let answer = get(&world, path).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, word);
        assert!(!head.to_lowercase().contains("server:") && !head.contains(env!("CARGO_PKG_VERSION")), "{head}");
    }
    world.stop().await;
}
