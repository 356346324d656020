//! Redaction of events' data: which, by whom and why, and what is left to be done of it.

use std::{ops::RangeInclusive, time::Duration};

use foldlog_proto::v1;

use crate::{client::Client, error::Error, event::millis, topics::StreamInfo};

/// How long the server is asked to wait at once.
const ERASURE_WAIT: Duration = Duration::from_secs(10);

/// Which events of a stream lose their data, who wants it and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redaction {
    /// Versions of the events.
    pub versions: Vec<RangeInclusive<u64>>,
    /// Who wants it, for the record; 1 to 255 bytes.
    pub by: String,
    /// Why, for the record; up to 1,024 bytes. It is not redacted.
    pub reason: String,
}

impl Redaction {
    /// The redaction of these versions.
    #[must_use]
    pub fn of(versions: impl IntoIterator<Item = RangeInclusive<u64>>, by: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { versions: versions.into_iter().collect(), by: by.into(), reason: reason.into() }
    }

    pub(crate) fn into_proto(self) -> v1::StreamChange {
        let range = |range: RangeInclusive<u64>| v1::VersionRange { first: *range.start(), last: *range.end() };
        let redact =
            v1::stream_change::Redact { versions: self.versions.into_iter().map(range).collect(), by: self.by, reason: self.reason };
        v1::StreamChange { change: Some(v1::stream_change::Change::Redact(redact)) }
    }
}

/// Redacted events of which bytes are left in files. Nobody is shown them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redacting {
    /// How many.
    pub events: u64,
    /// When the oldest of these redactions was made, in milliseconds since 1970 UTC.
    pub since_ms: i64,
    /// What removing them waits for; empty: it is under way.
    pub waits_for: String,
}

impl Redacting {
    pub(crate) fn from_proto(left: v1::Redaction) -> Self {
        Self { events: left.events, since_ms: left.since.map(millis).unwrap_or_default(), waits_for: left.waits_for }
    }
}

impl Client {
    /// Waits until nothing is left in files of what was redacted in a stream, and tells how that stands.
    ///
    /// # Errors
    /// As [`Client::get_stream`]; if something is left after `timeout`, with what it waits for.
    pub async fn wait_erased(&self, topic: &str, stream: &str, timeout: Duration) -> Result<StreamInfo, Error> {
        let end = tokio::time::Instant::now() + timeout;
        loop {
            let left = end.saturating_duration_since(tokio::time::Instant::now());
            let wait = left.min(ERASURE_WAIT);
            let (topic, stream) = (topic.to_owned(), stream.to_owned());
            let seconds = i64::try_from(wait.as_secs()).unwrap_or_default();
            let wait = Some(prost_types::Duration { seconds, nanos: wait.subsec_nanos().cast_signed() });
            match self.stream_info(v1::GetStreamRequest { topic, stream, wait, erased: true, ..v1::GetStreamRequest::default() }).await {
                Err(error) if error.reason() == Some("ERASURE_WAIT_TIMEOUT") && left > ERASURE_WAIT => {}
                answer => return answer,
            }
        }
    }
}
