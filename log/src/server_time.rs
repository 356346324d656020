//! Server time: what records are stamped with and ages are counted in.
//!
//! It advances by the monotonic clock and is drawn to the wall clock, no faster than half of what has passed, so that a wrong reading
//! moves it little. A wall clock that is over an hour off is not followed before an operator confirms it or it was as far off for a day.
//! The committer and upkeep read it, whoever operates the server asks and confirms. Invariants: it never steps back, and nothing is
//! removed because of its age by a clock that may be wrong.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;

use crate::{clock::Clock, ids::Timestamp};

/// What is further off is a jump.
pub(crate) const LEEWAY: Duration = Duration::from_secs(3600);
const JUMP: i128 = nanos(LEEWAY);
/// After so long a jump that stays is believed.
const BELIEVED_AFTER: Duration = Duration::from_secs(24 * 3600);
/// What two readings of clocks that agree may differ by over that time.
const AGREES: i128 = nanos(Duration::from_secs(60));
/// Longest time that a start takes a server to have been stopped.
const STOPPED: i128 = nanos(Duration::from_secs(30 * 24 * 3600));
/// A clock that stands before it was not set.
pub(crate) const YEAR_2020: Timestamp = Timestamp::new(1_577_836_800_000);
const MS: i128 = 1_000_000;

/// How the server's time stands to the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockState {
    /// The server's time.
    pub server: Timestamp,
    /// What the wall clock shows.
    pub wall: Timestamp,
    /// Whether the wall clock is followed: slowly while it is ahead or behind, by standing still while a confirmed one is far behind.
    pub follows: bool,
    /// For how long a wall clock that is not followed has been as far off as it is.
    pub off_for: Duration,
    /// Whether records are removed because of their age: not while the wall clock is not followed, and not in the day after a start that
    /// found it over an hour from the newest record, unless it was confirmed.
    pub removes: bool,
}

/// The clock of one open folder.
#[derive(Debug)]
pub(crate) struct ServerTime {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Server time at the last reading, in nanoseconds since 1970.
    time: i128,
    /// When that was, of the monotonic clock.
    read_at: Duration,
    /// A jump that is not followed.
    jump: Option<Jump>,
    /// Far behind stands a wall clock that was believed: the time waits for it.
    waits: bool,
    /// When the start was, if it found the wall clock so far from the newest record that nothing may go because of its age.
    doubted_since: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Jump {
    /// How far ahead the wall clock is.
    by: i128,
    since: Duration,
}

impl ServerTime {
    /// A clock that goes on from `newest`, the time of the newest record; none: there is no record.
    pub(crate) fn new(clock: Arc<dyn Clock>, newest: Option<Timestamp>) -> Self {
        let wall = nanos_of(clock.now());
        let time = match newest.map(nanos_of) {
            // The time for which a server was stopped is no jump.
            Some(newest) if !(newest..=newest + STOPPED).contains(&wall) => newest,
            _ => wall,
        };
        let read_at = clock.monotonic();
        let is_far = newest.is_some_and(|newest| (nanos_of(newest) - wall).abs() > JUMP);
        let state = State { time, read_at, jump: None, waits: false, doubted_since: is_far.then_some(read_at) };
        Self { clock, state: Mutex::new(state) }
    }

    /// The time now.
    pub(crate) fn now(&self) -> Timestamp {
        let mut state = self.state.lock();
        state.read(nanos_of(self.clock.now()), self.clock.monotonic());
        timestamp(state.time)
    }

    /// The time by which records may go because of their age; none while that is in doubt. While the time waits for the wall clock, it is
    /// what that shows.
    pub(crate) fn for_removal(&self) -> Option<Timestamp> {
        let wall = nanos_of(self.clock.now());
        let mut state = self.state.lock();
        state.read(wall, self.clock.monotonic());
        state.removes().then(|| timestamp(state.time.min(wall)))
    }

    /// How it stands.
    pub(crate) fn state(&self) -> ClockState {
        let (wall, now) = (self.clock.now(), self.clock.monotonic());
        let mut state = self.state.lock();
        state.read(nanos_of(wall), now);
        ClockState {
            server: timestamp(state.time),
            wall,
            follows: state.jump.is_none(),
            off_for: state.jump.map_or(Duration::ZERO, |jump| now.saturating_sub(jump.since)),
            removes: state.removes(),
        }
    }

    /// Believes the wall clock, however far off it is.
    pub(crate) fn confirm(&self) {
        let (wall, now) = (nanos_of(self.clock.now()), self.clock.monotonic());
        let mut state = self.state.lock();
        state.read(wall, now);
        state.doubted_since = None;
        if state.jump.is_some() {
            state.believe(wall);
        }
    }
}

impl State {
    fn read(&mut self, wall: i128, now: Duration) {
        let passed = nanos(now.saturating_sub(self.read_at));
        self.read_at = now;
        if self.doubted_since.is_some_and(|since| now.saturating_sub(since) >= BELIEVED_AFTER) {
            self.doubted_since = None;
        }
        if std::mem::take(&mut self.waits) {
            if wall < self.time {
                self.waits = true;
                return;
            }
            // It went on meanwhile, and has caught up.
            if wall - self.time <= passed {
                self.time = wall;
                return;
            }
        }
        let by_itself = self.time + passed;
        let ahead = wall - by_itself;
        let was_never_set = self.time < nanos_of(YEAR_2020) && ahead > 0;
        if ahead.abs() <= JUMP || was_never_set {
            if self.jump.take().is_some() {
                tracing::info!("the wall clock and the server's time agree again");
            }
            self.time = if was_never_set { wall } else { by_itself + ahead.clamp(-passed / 2, passed / 2) };
            return;
        }
        self.time = by_itself;
        match self.jump {
            Some(jump) if (jump.by - ahead).abs() > AGREES => self.jump = Some(Jump { by: ahead, since: now }),
            Some(jump) if now.saturating_sub(jump.since) >= BELIEVED_AFTER => self.believe(wall),
            Some(_) => {}
            None => {
                self.jump = Some(Jump { by: ahead, since: now });
                tracing::warn!(
                    ahead_s = ahead / (1000 * MS),
                    "the wall clock is over an hour off and not followed: confirm it (foldlog clock confirm), or let it be so for 24 hours"
                );
            }
        }
    }

    /// Whether records may go because of their age.
    fn removes(&self) -> bool {
        self.jump.is_none() && self.doubted_since.is_none() && self.time >= nanos_of(YEAR_2020)
    }

    fn believe(&mut self, wall: i128) {
        tracing::info!(ahead_s = (wall - self.time) / (1000 * MS), "the wall clock is followed");
        self.jump = None;
        self.waits = wall < self.time;
        self.time = self.time.max(wall);
    }
}

const fn nanos(time: Duration) -> i128 {
    time.as_nanos().cast_signed()
}

fn nanos_of(time: Timestamp) -> i128 {
    i128::from(time.get()) * MS
}

fn timestamp(nanos: i128) -> Timestamp {
    Timestamp::new(i64::try_from(nanos.div_euclid(MS)).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    const NOON: i64 = 1_700_000_000_000;
    const HOUR: Duration = Duration::from_secs(3600);
    const HOUR_MS: i64 = 3_600_000;

    fn at(newest: Option<i64>) -> (Arc<ManualClock>, ServerTime) {
        let clock = Arc::new(ManualClock::at(Timestamp::new(NOON)));
        (Arc::clone(&clock), ServerTime::new(clock, newest.map(Timestamp::new)))
    }

    /// How far the time is from noon, in milliseconds.
    fn now(time: &ServerTime) -> i64 {
        time.now().get() - NOON
    }

    #[test]
    fn it_goes_with_a_clock_that_goes_well() {
        let (clock, time) = at(None);
        for passed in [0, 1, 1000, 1, 10_000_000] {
            clock.advance(Duration::from_millis(passed));
            assert_eq!(time.now(), clock.now());
        }
        assert!(time.state().follows);
    }

    #[test]
    fn a_clock_that_is_a_little_off_is_followed_slowly_and_never_back() {
        for off in [-HOUR_MS / 2, HOUR_MS / 2] {
            let (clock, time) = at(None);
            clock.set_wall(Timestamp::new(NOON + off));
            assert_eq!(now(&time), 0);
            clock.advance(Duration::from_secs(60));
            assert_eq!(now(&time), 60_000 + off.signum() * 30_000);
            assert!(time.state().follows);
            clock.advance(HOUR);
            assert_eq!(time.now(), clock.now(), "an hour makes up for half of one");
        }
    }

    #[test]
    fn one_wrong_reading_changes_nothing() {
        let (clock, time) = at(None);
        for wrong in [-400 * 24 * HOUR_MS, 400 * 24 * HOUR_MS] {
            clock.advance(HOUR);
            let right = clock.now();
            clock.set_wall(Timestamp::new(right.get() + wrong));
            assert_eq!(time.now(), right);
            assert!(!time.state().follows);
            assert_eq!(time.for_removal(), None);
            clock.set_wall(right);
            assert_eq!(time.now(), right);
            assert!(time.state().follows);
            assert_eq!(time.for_removal(), Some(right));
        }
    }

    #[test]
    fn a_jump_is_followed_when_it_is_confirmed() {
        let (clock, time) = at(None);
        clock.set_wall(Timestamp::new(NOON + 2 * HOUR_MS));
        clock.advance(HOUR);
        assert_eq!(now(&time), HOUR_MS);
        time.confirm();
        assert_eq!(now(&time), 3 * HOUR_MS);

        clock.set_wall(Timestamp::new(NOON));
        clock.advance(HOUR);
        assert_eq!(now(&time), 4 * HOUR_MS);
        time.confirm();
        // It waits for it, as it cannot go back. What is old is so by what was confirmed.
        for waited in 1..=3 {
            clock.advance(HOUR);
            assert_eq!((now(&time), clock.now().get() - NOON), (4 * HOUR_MS, (1 + waited) * HOUR_MS));
            assert_eq!(time.for_removal(), Some(clock.now()));
        }
        clock.advance(HOUR);
        assert_eq!(now(&time), 5 * HOUR_MS);
        time.confirm();
        assert_eq!(now(&time), 5 * HOUR_MS, "there is nothing to confirm");
    }

    #[test]
    fn a_jump_is_followed_after_a_day_in_which_it_stayed() {
        let (clock, time) = at(None);
        clock.set_wall(Timestamp::new(NOON + 2 * HOUR_MS));
        for _ in 0..20 {
            clock.advance(HOUR);
            assert!(time.now() < clock.now());
        }
        // It was not steady: the day begins anew.
        clock.set_wall(Timestamp::new(clock.now().get() + HOUR_MS));
        assert!(time.now() < clock.now());
        for hours in 1..24 {
            clock.advance(HOUR);
            assert!(time.now() < clock.now(), "{hours}");
            assert_eq!(time.state().off_for, HOUR * hours);
        }
        clock.advance(HOUR);
        assert_eq!(time.now(), clock.now());
    }

    #[test]
    fn a_start_follows_time_in_which_the_server_was_stopped_and_no_jump() {
        let day = 24 * HOUR_MS;
        for (newest, follows) in [(0, true), (-1, true), (-30 * day, true), (-30 * day - 1, false), (HOUR_MS, true), (HOUR_MS + 1, false)] {
            let (clock, time) = at(Some(NOON + newest));
            let is_behind = newest > 0;
            assert_eq!(now(&time), if follows && !is_behind { 0 } else { newest }, "{newest}");
            assert_eq!(time.state().follows, follows, "{newest}");
            clock.advance(HOUR);
            assert!(now(&time) >= newest);
        }
    }

    #[test]
    fn a_start_far_from_the_newest_record_removes_nothing_for_a_day_or_before_it_is_confirmed() {
        for newest in [-HOUR_MS - 1, HOUR_MS + 1, -40 * 24 * HOUR_MS] {
            let (clock, time) = at(Some(NOON + newest));
            for _ in 0..24 {
                assert_eq!(time.for_removal(), None, "{newest}");
                clock.advance(HOUR);
            }
            assert_eq!(time.for_removal().map(|to| to <= clock.now()), Some(true), "{newest}");

            let (clock, time) = at(Some(NOON + newest));
            assert_eq!(time.for_removal(), None, "{newest}");
            time.confirm();
            assert_eq!(time.for_removal(), Some(clock.now()), "{newest}");
        }
        for newest in [-HOUR_MS, HOUR_MS] {
            assert!(at(Some(NOON + newest)).1.for_removal().is_some());
        }
    }

    #[test]
    fn a_clock_that_was_never_set_is_set_at_once() {
        let clock = Arc::new(ManualClock::at(Timestamp::new(5_000)));
        let time = ServerTime::new(clock.clone(), None);
        assert_eq!(time.for_removal(), None);
        clock.set_wall(Timestamp::new(NOON));
        assert_eq!(now(&time), 0);
        assert_eq!(time.for_removal(), Some(Timestamp::new(NOON)));
    }
}
