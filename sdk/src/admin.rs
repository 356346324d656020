//! What whoever operates a server asks of it.

use std::time::Duration;

use foldlog_proto::v1;

use crate::{client::Client, error::Error, event::millis};

/// How the time with which a server stamps records stands to the wall clock of its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Server time, in milliseconds since 1970.
    pub server_time_ms: i64,
    /// Wall clock, in milliseconds since 1970.
    pub wall_time_ms: i64,
    /// Whether the wall clock is followed. If not, it is over an hour off, and was not confirmed.
    pub follows: bool,
    /// For how long it has been as far off as it is; after 24 hours it is followed.
    pub off_for: Duration,
    /// Whether records are removed because of their age: not while the wall clock is not followed, and not in the day after a start that
    /// found it over an hour from the newest record, unless it was confirmed since.
    pub removes: bool,
}

impl Client {
    /// Tells how the server's time stands.
    ///
    /// # Errors
    /// See [`Error::class`].
    pub async fn clock(&self) -> Result<Clock, Error> {
        let answer = self.call(|| {
            let mut admin = self.admin();
            async move { admin.get_clock(v1::GetClockRequest {}).await }
        });
        Ok(Clock::from_proto(&answer.await?))
    }

    /// Believes a wall clock that is not followed because it is over an hour off: the server's time goes there at once, or stands
    /// still until the wall clock has caught up.
    ///
    /// # Errors
    /// See [`Error::class`].
    pub async fn confirm_clock(&self) -> Result<Clock, Error> {
        let answer = self.call(|| {
            let mut admin = self.admin();
            async move { admin.confirm_clock(v1::ConfirmClockRequest {}).await }
        });
        Ok(Clock::from_proto(&answer.await?))
    }
}

/// What a backup took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Everything below this position is in it.
    pub position: u64,
    /// Server time of the newest record in it, in milliseconds since 1970.
    pub recorded_at_ms: i64,
    /// Files that it consists of.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Bytes that were copied this time.
    pub copied_bytes: u64,
    /// Bytes that only got another name this time, because they lie on the same file system.
    pub linked_bytes: u64,
}

impl Client {
    /// Writes everything that is durable into a folder of the server's machine, below the one that the server's setting `backups` names: a
    /// new one, or one that is empty or holds a backup of the same server, of which what has not changed is taken over. Takes as long as it
    /// takes, and is not tried again.
    ///
    /// # Errors
    /// See [`Error::class`].
    pub async fn backup(&self, folder: &str) -> Result<Backup, Error> {
        let request = v1::BackupRequest { folder: folder.to_owned() };
        let taken = self.admin().backup(request).await.map_err(|status| self.error(status))?.into_inner();
        Ok(Backup {
            position: taken.position,
            recorded_at_ms: taken.recorded_at.map(millis).unwrap_or_default(),
            files: taken.files,
            bytes: taken.bytes,
            copied_bytes: taken.copied_bytes,
            linked_bytes: taken.linked_bytes,
        })
    }
}

impl Clock {
    fn from_proto(clock: &v1::Clock) -> Self {
        let off_for = clock.off_for.and_then(|off_for| Duration::try_from(off_for).ok());
        Self {
            server_time_ms: clock.server_time.map(millis).unwrap_or_default(),
            wall_time_ms: clock.wall_time.map(millis).unwrap_or_default(),
            follows: clock.follows,
            off_for: off_for.unwrap_or_default(),
            removes: clock.removes,
        }
    }
}
