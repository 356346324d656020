//! The replay: events are appended in the order in which they happened, at their pace, each on top of the version it expects.
//!
//! What falls due together goes into one append, which is one unit however many flights it touches. One append is under way at
//! a time, so that the order in the log is the order of the week.

use std::{collections::HashSet, time::Duration};

use anyhow::Context as _;
use foldlog_sdk::{Client, Error, Expected, NewEvent, Token};
use tokio::time::Instant;

use super::{
    Failed,
    data::FlightEvent,
    flights::{Speed, TOPIC},
    watch::{Shown, Watched},
};

/// Most events of one append.
const BATCH: usize = 500;
/// What falls due within so long is appended together.
const TICK: Duration = Duration::from_millis(5);

/// An append that was answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// When it was sent.
    pub at: Instant,
    /// How long the answer took.
    pub answered_after: Duration,
    /// Position of its last event.
    pub last: u64,
}

/// What the replay has done.
pub(super) struct Replayed {
    events: usize,
    took: Duration,
    sent: Vec<Sent>,
    /// Everything appended can be read with it.
    pub token: Option<Token>,
    /// Position after the last event.
    pub end: u64,
}

/// Appends all events.
pub(super) async fn run(client: &Client, events: &[FlightEvent], speed: Speed, watched: &Watched) -> Result<Replayed, Failed> {
    let began = Instant::now();
    let mut replayed = Replayed { events: events.len(), took: Duration::ZERO, sent: Vec::new(), token: None, end: 0 };
    let mut rest = events;
    while let Some(first) = rest.first() {
        if let Speed::Times(times) = speed {
            tokio::time::sleep_until(began + due(events, first, times)).await;
        }
        let count = rest.iter().take(BATCH).take_while(|event| is_due(events, event, speed, began.elapsed() + TICK)).count().max(1);
        let (now, later) = rest.split_at(count);
        let at = Instant::now();
        let appended = append(client, now).await?;
        replayed.sent.push(Sent { at, answered_after: at.elapsed(), last: appended.last_position });
        replayed.end = appended.last_position + 1;
        replayed.token = Some(appended.token);
        watched.progress(events.len() - later.len(), events.len(), now);
        rest = later;
    }
    replayed.took = began.elapsed();
    Ok(replayed)
}

/// When an event is due after the beginning of the replay.
fn due(events: &[FlightEvent], event: &FlightEvent, times: u32) -> Duration {
    let begin = events.first().map_or(0, |first| first.time_ms);
    Duration::from_millis(u64::try_from(event.time_ms - begin).unwrap_or(0)) / times
}

fn is_due(events: &[FlightEvent], event: &FlightEvent, speed: Speed, elapsed: Duration) -> bool {
    match speed {
        Speed::Max => true,
        Speed::Times(times) => due(events, event, times) <= elapsed,
    }
}

async fn append(client: &Client, events: &[FlightEvent]) -> Result<foldlog_sdk::Appended, Failed> {
    let mut append = client.append(TOPIC);
    let mut met = HashSet::new();
    for event in events {
        // A flight's later events of one append stand on its earlier ones; only the first can expect something of the log.
        if met.insert(event.stream.as_str()) {
            append = append.expect(&event.stream, expected(event));
        }
        let new = NewEvent { time_ms: Some(event.time_ms), ..NewEvent::new(event.kind, event.data.clone()) };
        append = append.event(&event.stream, new);
    }
    append.send().await.map_err(|error| match error {
        Error::Conflict { .. } => Failed::Precondition(error.into()),
        other => Failed::Operation(anyhow::Error::from(other).context("an append failed")),
    })
}

const fn expected(event: &FlightEvent) -> Expected {
    match event.version {
        0 | 1 => Expected::Absent,
        version => Expected::Version(version - 1),
    }
}

impl Replayed {
    /// Events a second, and the time from an append to the view that showed it, in words.
    pub(super) fn told(&self, shown: &[Shown]) -> anyhow::Result<String> {
        let answers = quantiles(self.sent.iter().map(|sent| sent.answered_after).collect()).context("nothing was appended")?;
        let views = quantiles(to_view(&self.sent, shown)).context("the view showed nothing")?;
        let seconds = self.took.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a count of events")]
        let rate = self.events as f64 / seconds;
        Ok(format!(
            "{} events in {} appends, in {seconds:.1} s: {rate:.0} events/s. Append answered after {answers} ms, \
             in the view and pushed back after {views} ms (p50 / p99).",
            self.events,
            self.sent.len()
        ))
    }
}

/// For each append the time until the view was pushed with it. Both are in the order of time and of positions.
fn to_view(sent: &[Sent], shown: &[Shown]) -> Vec<Duration> {
    let mut shown = shown.iter().peekable();
    let mut times = Vec::with_capacity(sent.len());
    for append in sent {
        while shown.next_if(|shown| shown.position <= append.last).is_some() {}
        let Some(first) = shown.peek() else { break };
        times.push(first.at.duration_since(append.at));
    }
    times
}

/// Half of the times are at most the first, 99 of 100 at most the second.
fn quantiles(mut times: Vec<Duration>) -> Option<String> {
    times.sort_unstable();
    let at = |percent: usize| times.get((times.len().checked_sub(1)?) * percent / 100);
    let ms = |time: &Duration| format!("{:.1}", time.as_secs_f64() * 1e3);
    Some(format!("{} / {}", ms(at(50)?), ms(at(99)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::data;

    #[test]
    fn the_default_speed_takes_about_half_a_minute() {
        let events = data::events(7).unwrap();
        let took = due(&events, events.last().unwrap(), 21_000);
        assert!((25..35).contains(&took.as_secs()), "{took:?}");
    }

    #[tokio::test]
    async fn an_append_is_in_the_view_with_the_first_push_behind_it() {
        let start = Instant::now();
        let ms = Duration::from_millis;
        let sent = |at, last| Sent { at: start + ms(at), answered_after: ms(1), last };
        let shown = |at, position| Shown { at: start + ms(at), position };
        let times = to_view(&[sent(0, 9), sent(10, 19), sent(20, 20)], &[shown(1, 5), shown(3, 10), shown(17, 21)]);
        assert_eq!(times, [ms(3), ms(7), ms(0)]);
        assert_eq!(to_view(&[sent(0, 9)], &[shown(1, 9)]), []);
    }

    #[test]
    fn quantiles_of_nothing_are_nothing() {
        assert_eq!(quantiles(Vec::new()), None);
        assert_eq!(quantiles(vec![Duration::from_millis(2)]).unwrap(), "2.0 / 2.0");
    }
}
