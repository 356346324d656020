//! A connection to a foldlog, cheap to clone, and what every call through it has in common: limits, time, repeats.
//!
//! A call is repeated only where that is safe: where nothing was sent or changed, or where the request has an id under which a
//! repeat gets the first answer again. Between attempts it waits, longer each time and never in step with others.

use std::{sync::Arc, time::Duration};

use foldlog_proto::v1::{
    admin_client::AdminClient, event_log_client::EventLogClient, groups_client::GroupsClient, query_client::QueryClient,
    topics_client::TopicsClient,
};
use tonic::transport::{Channel, Endpoint};

use crate::error::{Class, Error};

/// Where a client looks for a server unless told otherwise.
pub const DEFAULT_URL: &str = "http://127.0.0.1:7070";

/// Name of the environment variable that tells otherwise.
pub const URL_VARIABLE: &str = "FOLDLOG_URL";

/// Most bytes of one gRPC message, both ways: the server's limit.
const MAX_MESSAGE_BYTES: usize = 8 << 20;

/// What a server may send before we have taken it: per call, and for all calls together.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for one call with its repeats.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const ATTEMPTS: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(20);
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A connection to a foldlog.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    url: Arc<str>,
}

impl Client {
    /// Connects to the server at `url`, such as `http://127.0.0.1:7070`; `http://` may be left out. When the connection breaks later, the next
    /// call makes a new one.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `url` is none, [`Error::Unreachable`] if nobody answers there.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        let (endpoint, url) = endpoint(url)?;
        let channel = endpoint.connect().await.map_err(|source| Error::Unreachable { url: url.clone(), source: source.into() })?;
        Ok(Self { channel, url: url.into() })
    }

    /// A client of the server at `url` that connects with its first call.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `url` is none.
    pub fn lazy(url: &str) -> Result<Self, Error> {
        let (endpoint, url) = endpoint(url)?;
        Ok(Self { channel: endpoint.connect_lazy(), url: url.into() })
    }

    /// Connects to where `FOLDLOG_URL` says, or to [`DEFAULT_URL`].
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn from_env() -> Result<Self, Error> {
        match std::env::var(URL_VARIABLE) {
            Ok(url) if !url.is_empty() => Self::connect(&url).await,
            _ => Self::connect(DEFAULT_URL).await,
        }
    }

    /// The address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn log(&self) -> EventLogClient<Channel> {
        EventLogClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub(crate) fn topics(&self) -> TopicsClient<Channel> {
        TopicsClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub(crate) fn queries(&self) -> QueryClient<Channel> {
        QueryClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub(crate) fn groups(&self) -> GroupsClient<Channel> {
        GroupsClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub(crate) fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone())
    }

    pub(crate) fn error(&self, status: tonic::Status) -> Error {
        Error::from_status(status, &self.url)
    }
}

fn endpoint(url: &str) -> Result<(Endpoint, String), Error> {
    let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    if url.starts_with("https://") {
        return Err(Error::Invalid(format!("{url}: TLS is not offered yet; use http://")));
    }
    let endpoint = Endpoint::from_shared(url.clone()).ok().filter(|endpoint| is_server_address(endpoint.uri()));
    let Some(endpoint) = endpoint else {
        return Err(Error::Invalid(format!("{url:?} is not the address of a server; it should look like {DEFAULT_URL}")));
    };
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    Ok((endpoint, url))
}

fn is_server_address(uri: &tonic::codegen::http::Uri) -> bool {
    let Some(authority) = uri.authority() else { return false };
    let has_valid_port = authority.port_u16().is_some() || authority.as_str() == authority.host();
    uri.scheme_str() == Some("http") && has_valid_port && matches!(uri.path(), "" | "/") && uri.query().is_none()
}

/// Whether a request may be sent again when nobody knows what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It changes nothing, or carries an id.
    Safe,
    /// Only if it certainly had no effect.
    IfFailed,
}

impl Repeat {
    fn allows(self, error: &Error) -> bool {
        error.is_transient() && (self == Self::Safe || error.class() == Class::Failed)
    }
}

/// Calls until it succeeds, fails for good, or the attempts or the time are used up.
pub(crate) async fn with_retries<T, F>(repeat: Repeat, limit: Option<Duration>, mut call: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let limit = limit.unwrap_or(CALL_TIMEOUT);
    let attempts = async {
        let mut pauses = Pauses::default();
        loop {
            let error = match call().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if !repeat.allows(&error) {
                return Err(error);
            }
            let Some(pause) = pauses.next(error.retry_after()) else { return Err(error) };
            tokio::time::sleep(pause).await;
        }
    };
    tokio::time::timeout(limit, attempts).await.unwrap_or(Err(Error::Timeout { limit }))
}

/// How long to wait before the next attempt: random below a bound that doubles, so that those who collided part.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    taken: u32,
}

impl Pauses {
    /// The next pause, not below `at_least`; none when the attempts are used up.
    pub(crate) fn next(&mut self, at_least: Option<Duration>) -> Option<Duration> {
        self.taken += 1;
        if self.taken >= ATTEMPTS {
            return None;
        }
        let bound = FIRST_PAUSE.saturating_mul(1 << self.taken.min(16)).min(LONGEST_PAUSE);
        Some(bound.mul_f64(random_share()).max(at_least.unwrap_or_default().min(LONGEST_PAUSE)))
    }

    /// Forgets the attempts so far: something came of the last one.
    pub(crate) fn reset(&mut self) {
        self.taken = 0;
    }
}

/// Between 0 and 1.
fn random_share() -> f64 {
    let (high, _) = uuid::Uuid::new_v4().as_u64_pair();
    // The top 32 bits are all random; version and variant lie further down.
    f64::from(u32::try_from(high >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tonic::Status;

    use super::*;

    #[test]
    fn an_address_may_leave_out_the_scheme_and_nothing_else() {
        assert_eq!(endpoint("localhost:7070").unwrap().1, "http://localhost:7070");
        for bad in ["", "http://", "ftp://x:1", "http://x:1/path", "http://a b", "https://x:1", "http://x:99999999"] {
            assert!(matches!(endpoint(bad), Err(Error::Invalid(_))), "{bad}");
        }
    }

    #[tokio::test]
    async fn nobody_there_is_unreachable() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        assert!(matches!(Client::connect(&url).await, Err(Error::Unreachable { .. })));
        let lazy = Client::lazy(&url).unwrap();
        let error = lazy.log().get_head(foldlog_proto::v1::GetHeadRequest::default()).await.map_err(|status| lazy.error(status));
        assert!(matches!(error, Err(Error::Unreachable { .. })), "{error:?}");
    }

    #[test]
    fn only_what_is_safe_is_repeated() {
        let broken = Error::from_status(Status::unavailable("connection reset"), "http://x");
        assert!(Repeat::Safe.allows(&broken));
        assert!(!Repeat::IfFailed.allows(&broken));
        assert!(!Repeat::Safe.allows(&Error::from_status(Status::not_found("no"), "http://x")));
    }

    #[tokio::test]
    async fn what_succeeds_at_the_second_attempt_has_succeeded() {
        let calls = Cell::new(0);
        let outcome = with_retries(Repeat::Safe, None, || {
            calls.set(calls.get() + 1);
            let first = calls.get() == 1;
            async move { if first { Err(Error::from_status(Status::unavailable("connection reset"), "http://x")) } else { Ok(()) } }
        })
        .await;
        assert!(outcome.is_ok());
        assert_eq!(calls.get(), 2);
    }

    #[tokio::test]
    async fn a_call_without_an_answer_ends_at_its_limit() {
        let limit = Duration::from_millis(5);
        let outcome: Result<(), Error> = with_retries(Repeat::Safe, Some(limit), std::future::pending).await;
        assert!(matches!(outcome, Err(Error::Timeout { .. })));
    }

    #[test]
    fn pauses_grow_within_bounds_and_heed_the_server() {
        let mut pauses = Pauses::default();
        assert!(pauses.next(None).unwrap() <= FIRST_PAUSE * 2);
        assert!(pauses.next(Some(Duration::from_millis(700))).unwrap() >= Duration::from_millis(700));
        while let Some(pause) = pauses.next(Some(Duration::from_secs(3600))) {
            assert!(pause <= LONGEST_PAUSE);
        }
    }
}
