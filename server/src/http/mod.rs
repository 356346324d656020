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
