//! Plain HTTP beside gRPC: is the server alive, is it ready, its numbers.

use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

use crate::app::App;

/// The routes; whatever else is asked for is not found.
pub fn routes(app: App) -> Router {
    Router::new().route("/healthz", get(|| async { "ok\n" })).route("/readyz", get(ready)).route("/metrics", get(metrics)).with_state(app)
}

/// What nobody answers: in the words of gRPC to those who speak it.
pub async fn unknown(request: Request) -> Response {
    let content_type = request.headers().get(header::CONTENT_TYPE).map(|value| value.as_bytes());
    if content_type.is_some_and(|value| value.starts_with(b"application/grpc")) {
        let unimplemented: tonic::codegen::http::Response<tonic::body::Body> =
            tonic::Status::unimplemented("there is no such method").into_http();
        unimplemented.map(axum::body::Body::new)
    } else {
        StatusCode::NOT_FOUND.into_response()
    }
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
