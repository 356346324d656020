//! The gRPC door: routes calls to their service, sheds load before anything is decoded, and shares its port with HTTP.
//!
//! Every call of ours is answered in our own words: what tonic refuses before any of our code sees it gets a reason here.

mod admin;
mod arriving;
mod consume;
pub mod convert;
mod counted;
pub mod events;
mod groups;
mod queries;
mod reading;
mod rows;
mod session;
mod source;
pub mod status;
mod topics;
mod wire;

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::response::IntoResponse as _;
use foldlog_proto::v1::{
    DESCRIPTORS, admin_server::AdminServer, groups_server::GroupsServer, query_server::QueryServer, topics_server::TopicsServer,
};
use tonic::{
    Code, Status,
    body::Body,
    codec::CompressionEncoding::Gzip,
    codegen::http::{Request, Response},
    service::Routes,
};
use tonic_health::server::HealthReporter;
use tower::{Service, ServiceExt as _};

use self::arriving::Arriving;
use crate::{
    app::{App, overloaded},
    failure::{Failure, Kind},
    http,
};

/// Most bytes of a statement with its parameters: a NULL takes two bytes on the wire and forty when it is decoded.
const QUERY_BYTES: usize = 2 << 20;
/// Most bytes of a message of a consumer group: a delivery takes two bytes on the wire and many more when it is decoded.
const GROUPS_BYTES: usize = 1 << 20;
/// Path of every method of ours.
const OURS: &str = "/foldlog.v1.";

/// Everything behind the port.
#[derive(Clone)]
pub struct Door {
    app: App,
    queries: QueryServer<queries::Queries>,
    routes: axum::Router,
    /// Only those who ask for this machine are answered.
    loopback: bool,
}

/// The door at an address, and the switch that tells health checks whether we answer.
///
/// # Errors
/// If the embedded descriptors cannot be read, which a test rules out.
pub fn door(app: &App, address: SocketAddr) -> Result<(Door, HealthReporter), tonic_reflection::server::Error> {
    let (health, health_service) = tonic_health::server::health_reporter();
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let max = app.limits.message_bytes;
    macro_rules! bounded {
        ($service:expr) => {
            $service.max_decoding_message_size(max).max_encoding_message_size(max).accept_compressed(Gzip).send_compressed(Gzip)
        };
    }
    let routes = Routes::new(bounded!(TopicsServer::new(topics::Topics(app.clone()))))
        .add_service(bounded!(GroupsServer::new(groups::Groups(app.clone()))).max_decoding_message_size(GROUPS_BYTES))
        .add_service(bounded!(AdminServer::new(admin::Admin(app.clone()))))
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .into_axum_router()
        .merge(http::routes(app.clone()))
        .fallback(http::unknown);
    let queries = bounded!(QueryServer::new(queries::Queries(app.clone()))).max_decoding_message_size(QUERY_BYTES);
    Ok((Door { app: app.clone(), queries, routes: routes.with_state(()), loopback: address.ip().is_loopback() }, health))
}

impl Service<Request<Body>> for Door {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if self.loopback && !http::asks_for_this_machine(&request) {
            let refused = self.app.refuse(Failure::new(Kind::Denied, "FOREIGN_HOST", http::FOREIGN_HOST));
            let grpc = http::is_grpc(request.headers());
            let answer = if grpc { refused.into_http() } else { http::foreign_host().map(Body::new) };
            return Box::pin(std::future::ready(Ok(answer)));
        }
        let Ok(place) = Arc::clone(&self.app.requests).try_acquire_owned() else {
            let message = format!("{} requests are being answered, which is the limit; retry later", self.app.limits.requests);
            let refused = self.app.refuse(overloaded(message)).into_http();
            return Box::pin(std::future::ready(Ok(refused)));
        };
        let ours = request.uri().path().starts_with(OURS);
        let method = events::Method::of(request.uri().path());
        // What members of groups and sessions send comes when it comes.
        let is_open_ended = matches!(method, Some(events::Method::AppendSession)) || consume::is_it(request.uri().path());
        let arrives = ours && !is_open_ended;
        let request = if arrives { request.map(|body| Arriving::within(self.app.limits.message_arrival, body)) } else { request };
        let app = self.app.clone();
        if let Some(method) = method {
            return Box::pin(async move {
                let response = method.call(app.clone(), request).await;
                drop(place);
                Ok(in_our_words(&app, response))
            });
        }
        if queries::is_ours(request.uri().path()) {
            let answered = self.queries.call(request);
            return Box::pin(async move {
                let response = answered.await;
                drop(place);
                response.map(|response| in_our_words(&app, response))
            });
        }
        let routes = self.routes.clone();
        Box::pin(async move {
            let response = match routes.oneshot(request.map(axum::body::Body::new)).await {
                Ok(response) => response.map(Body::new),
                Err(never) => never.into_response().map(Body::new),
            };
            drop(place);
            Ok(if ours { in_our_words(&app, response) } else { response })
        })
    }
}

/// What our own code refuses has details. A refusal without them is tonic's: the call never reached us, so nothing happened.
fn in_our_words(app: &App, response: Response<Body>) -> Response<Body> {
    let told = Status::from_header_map(response.headers()).and_then(|status| status_in_our_words(app, &status));
    told.map_or(response, Status::into_http)
}

/// The same for a status alone; none if it may stay.
fn status_in_our_words(app: &App, status: &Status) -> Option<Status> {
    if status.code() == Code::Ok || !status.details().is_empty() {
        return None;
    }
    let (kind, reason) = match status.code() {
        Code::OutOfRange | Code::ResourceExhausted => (Kind::Exhausted, "MESSAGE_TOO_LARGE"),
        Code::Unimplemented => (Kind::Unsupported, "NOT_SUPPORTED"),
        Code::Internal => (Kind::Invalid, "MALFORMED_MESSAGE"),
        _ => return None,
    };
    let mut told = app.refuse(Failure::new(kind, reason, status.message()));
    // Which encodings are understood, for example.
    *told.metadata_mut() = status.metadata().clone();
    Some(told)
}
