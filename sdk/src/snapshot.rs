//! Snapshots: states that somebody folded from streams, kept by the server for whoever folds them next.

use bytes::Bytes;
use foldlog_proto::v1;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    client::Client,
    codec::CodecError,
    error::Error,
    event::{Token, millis},
};

/// A state as of a version of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Version of the last event that was folded.
    pub version: u64,
    /// Name of its schema, so that a reader can ignore one it does not know; empty: none.
    pub schema: String,
    /// Media type; empty means `application/json`.
    pub content_type: String,
    /// The state.
    pub data: Bytes,
}

/// A snapshot as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSnapshot {
    /// What was put.
    pub snapshot: Snapshot,
    /// The server's time when it was put, in milliseconds since 1970 UTC.
    pub recorded_at_ms: i64,
}

impl Snapshot {
    /// A state in JSON.
    ///
    /// # Errors
    /// If it cannot be written as JSON.
    pub fn json<T: Serialize + ?Sized>(version: u64, schema: impl Into<String>, state: &T) -> Result<Self, Error> {
        let data = serde_json::to_vec(state).map_err(CodecError::from)?.into();
        Ok(Self { version, schema: schema.into(), content_type: String::new(), data })
    }

    /// The state, from JSON.
    ///
    /// # Errors
    /// If it is no such state.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let decoded = serde_json::from_slice(&self.data).map_err(CodecError::from);
        decoded.map_err(|error| Error::Codec(error.within(&format!("the snapshot as of version {}", self.version))))
    }

    pub(crate) fn into_proto(self) -> v1::Snapshot {
        v1::Snapshot { version: self.version, schema: self.schema, content_type: self.content_type, data: self.data }
    }
}

impl Client {
    /// The newest snapshot of a stream as of a version or before, or of any; with a token, at least as of that.
    /// [`Append::snapshot`](crate::Append::snapshot) puts one.
    ///
    /// # Errors
    /// If the topic does not exist or has no streams.
    pub async fn get_snapshot(
        &self,
        topic: &str,
        stream: &str,
        at_most: Option<u64>,
        at_least: Option<Token>,
    ) -> Result<Option<StoredSnapshot>, Error> {
        let request = v1::GetSnapshotRequest {
            topic: topic.to_owned(),
            stream: stream.to_owned(),
            at_most_version: at_most,
            at_least: Token::into_proto(at_least),
            wait: None,
        };
        let answer = self.call(|| {
            let (mut log, request) = (self.log(), request.clone());
            async move { log.get_snapshot(request).await }
        });
        let answer = answer.await?;
        let recorded_at_ms = answer.recorded_at.map(millis).unwrap_or_default();
        Ok(answer.snapshot.map(|found| {
            let v1::Snapshot { version, schema, content_type, data } = found;
            StoredSnapshot { snapshot: Snapshot { version, schema, content_type, data }, recorded_at_ms }
        }))
    }
}
