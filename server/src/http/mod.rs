//! Plain HTTP beside gRPC: is the server alive, is it ready, its numbers; and under which names it answers at all.

use std::net::IpAddr;

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header, uri::Authority},
    response::{IntoResponse, Response},
    routing::get,
};

use crate::app::App;

/// Why a request for another machine is refused.
pub const FOREIGN_HOST: &str = "this server listens on loopback and answers to localhost, 127.0.0.1 and [::1] only";

/// The routes; whatever else is asked for is not found.
pub fn routes(app: App) -> Router {
    Router::new().route("/healthz", get(|| async { "ok\n" })).route("/readyz", get(ready)).route("/metrics", get(metrics)).with_state(app)
}

/// What nobody answers: in the words of gRPC to those who speak it.
pub async fn unknown(request: Request) -> Response {
    if is_grpc(request.headers()) {
        let unimplemented: tonic::codegen::http::Response<tonic::body::Body> =
            tonic::Status::unimplemented("there is no such method").into_http();
        unimplemented.map(axum::body::Body::new)
    } else {
        StatusCode::NOT_FOUND.into_response()
    }
}

/// Whether who asks speaks gRPC, and has to be answered in it.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// Whether a request names this machine as its host, or none. On loopback nobody else is asked for, except by a page of a foreign name
/// that was made to lead here, to read through somebody's browser what only this machine may see.
pub fn asks_for_this_machine<B>(request: &axum::http::Request<B>) -> bool {
    let header = request.headers().get(header::HOST);
    let in_header = match header.map(|host| host.to_str().ok()?.parse::<Authority>().ok()) {
        Some(None) => return false,
        Some(named) => named,
        None => None,
    };
    [request.uri().authority(), in_header.as_ref()].into_iter().flatten().all(|named| is_this_machine(named.host()))
}

fn is_this_machine(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host);
    host == "localhost" || host.ends_with(".localhost") || address.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// The answer to who asks for somebody else.
pub fn foreign_host() -> Response {
    (StatusCode::FORBIDDEN, format!("{FOREIGN_HOST}\n")).into_response()
}

/// One word, so that a stranger learns nothing.
async fn ready(State(app): State<App>) -> (StatusCode, &'static str) {
    if app.tasks.is_draining() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else if app.is_ready() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "starting\n")
    }
}

async fn metrics(State(app): State<App>) -> Response {
    match app.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::body::{Body, to_bytes};
    use foldlog_log::{Timestamp, clock::ManualClock};
    use tower::ServiceExt as _;

    use super::*;
    use crate::{config::Limits, shutdown::Tasks};

    async fn get(app: &App, path: &str) -> (u16, String) {
        let response = routes(app.clone()).oneshot(Request::builder().uri(path).body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        (status, String::from_utf8(to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap())
    }

    #[test]
    fn names_of_this_machine_are_told_from_others() {
        let asks = |uri: &str, host: Option<&str>| {
            let request = Request::builder().uri(uri);
            let request = if let Some(host) = host { request.header(header::HOST, host) } else { request };
            asks_for_this_machine(&request.body(()).unwrap())
        };
        for ours in ["localhost", "LocalHost:7070", "127.0.0.1:7070", "127.9.9.9", "[::1]:7070", "db.localhost", "localhost."] {
            assert!(asks("/", Some(ours)), "{ours}");
            assert!(asks(&format!("http://{ours}/"), None), "{ours}");
        }
        for other in
            ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1:7070", "notlocalhost", "", "a b", "[::2]"]
        {
            assert!(!asks("/", Some(other)), "{other}");
            assert!(!asks("http://localhost/", Some(other)), "{other}");
        }
        assert!(!asks("http://evil.example/", Some("localhost")));
        assert!(asks("/", None), "older clients than HTTP/1.1 name nobody");
    }

    #[tokio::test]
    async fn a_server_that_recovers_or_drains_is_alive_but_not_ready() {
        let app = App::new(Arc::new(ManualClock::at(Timestamp::new(0))), Limits::default(), Tasks::default());
        assert_eq!(get(&app, "/healthz").await, (200, "ok\n".into()));
        assert_eq!(get(&app, "/readyz").await, (503, "starting\n".into()));
        assert!(get(&app, "/metrics").await.1.contains("foldlog_ready 0\n"));
        app.tasks.drain();
        assert_eq!(get(&app, "/readyz").await, (503, "draining\n".into()));
        assert_eq!(get(&app, "/healthz").await.0, 200);
    }
}
