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
