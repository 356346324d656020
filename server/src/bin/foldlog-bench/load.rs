//! The messages that are measured, and the loops that send them: so many in flight over so many connections, each sent as soon
//! as the one before is answered.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use foldlog_proto::v1::{AppendRequest, Event, Write, event_log_client::EventLogClient};
use prost::bytes::Bytes;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::child::{connect, event_log};

/// Topic of what is appended.
pub const TOPIC: &str = "measured";
/// Payload of an event, 100 bytes of JSON.
pub const PAYLOAD: &[u8] = br#"{"amount":125,"currency":"EUR","reference":"2013-02-08/B6-1273/JFK","channel":"counter","teller":17}"#;
/// Streams over which appends are spread.
pub const STREAMS: u64 = 10_000;

const _: () = assert!(PAYLOAD.len() == 100);

/// Name of a stream.
pub fn account(number: u64) -> String {
    format!("account-{:08}", number % STREAMS)
}

/// An append of `events` events to one stream, without preconditions.
pub fn append(stream: u64, events: usize) -> AppendRequest {
    let event = Event { r#type: "Measured".to_owned(), data: Some(Bytes::from_static(PAYLOAD)), ..Event::default() };
    let write = Write { stream: account(stream), events: vec![event; events], ..Write::default() };
    AppendRequest { topic: TOPIC.to_owned(), writes: vec![write], ..AppendRequest::default() }
}

/// Accounts named in the payloads of [`entries`].
pub const ACCOUNTS: u64 = 10_000;

/// An append of `events` events to one stream whose payloads name changing accounts: 200 bytes of JSON each, of which a query
/// wants two fields.
pub fn entries(number: u64, events: u64) -> AppendRequest {
    let event = |place: u64| {
        let entry = number.wrapping_mul(events) + place;
        // A large odd step visits all accounts in an order that looks like none.
        let account = entry.wrapping_mul(7_919) % ACCOUNTS;
        let data = format!(
            "{{\"account\":\"account-{account:08}\",\"amount\":{},\"currency\":\"EUR\",\"reference\":\"2013-02-08/B6-41/JFK\",\
             \"channel\":\"counter\",\"teller\":17,\"note\":\"a payload of about two hundred bytes, as events have\",\"entry\":{entry}}}",
            entry % 1_000
        );
        Event { r#type: "Measured".to_owned(), data: Some(data.into()), ..Event::default() }
    };
    // Few streams, so that all of them are there from the beginning: what grows is the log alone.
    let write = Write { stream: account(number % 16), events: (0..events).map(event).collect(), ..Write::default() };
    AppendRequest { topic: TOPIC.to_owned(), writes: vec![write], ..AppendRequest::default() }
}

/// Events of one append while data is loaded.
const FILL_BATCH: u64 = 500;
/// Connections that load.
const FILLERS: usize = 4;

/// Appends the events `from..to` of [`entries`] (counted in whole appends), several appends at once.
pub async fn fill(url: &str, from: u64, to: u64) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let mut fillers = JoinSet::new();
    for (filler, mut client) in (0..).zip(connections(url, FILLERS).await?) {
        fillers.spawn(async move {
            for number in (from / FILL_BATCH..to / FILL_BATCH).filter(|number| number % FILLERS as u64 == filler) {
                client.append(entries(number, FILL_BATCH)).await.context("an append failed")?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(filler) = fillers.join_next().await {
        filler.context("a loader failed")??;
    }
    Ok(began.elapsed())
}

/// What a loop measured.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Time of each call, sorted.
    sorted: Vec<Duration>,
    /// How long the loop ran.
    wall: Duration,
}

impl Measured {
    /// Takes the times of calls and how long all of them took.
    pub fn new(mut times: Vec<Duration>, wall: Duration) -> anyhow::Result<Self> {
        anyhow::ensure!(!times.is_empty(), "nothing was measured");
        times.sort_unstable();
        Ok(Self { sorted: times, wall })
    }

    /// Calls a second.
    #[expect(clippy::cast_precision_loss, reason = "a count of calls")]
    pub fn rate(&self) -> f64 {
        self.sorted.len() as f64 / self.wall.as_secs_f64()
    }

    /// How many calls.
    pub const fn calls(&self) -> usize {
        self.sorted.len()
    }

    /// Time within which half of the calls were answered, in microseconds.
    pub fn p50(&self) -> f64 {
        self.quantile(50)
    }

    /// Time within which 99 of 100 calls were answered, in microseconds.
    pub fn p99(&self) -> f64 {
        self.quantile(99)
    }

    fn quantile(&self, percent: usize) -> f64 {
        let place = (self.sorted.len() - 1) * percent / 100;
        self.sorted.get(place).map_or(0.0, |time| time.as_secs_f64() * 1e6)
    }
}

/// Opens connections to a server.
pub async fn connections(url: &str, count: usize) -> anyhow::Result<Vec<EventLogClient<Channel>>> {
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        clients.push(event_log(connect(url).await?));
    }
    Ok(clients)
}

/// Sends appends of `events` events for so long, `in_flight` at once, spread over connections.
pub async fn appends(url: &str, connected: usize, in_flight: usize, events: usize, time: Duration) -> anyhow::Result<Measured> {
    let clients = connections(url, connected).await?;
    closed_loop(in_flight, time, move |worker, call| {
        let client = clients.get(worker % clients.len()).cloned();
        let stream = worker as u64 * 1_009 + call;
        async move {
            let mut client = client.context("no connection")?;
            client.append(append(stream, events)).await.context("an append failed")?;
            Ok(())
        }
    })
    .await
}

/// Calls for so long, `in_flight` at once; the call is given the number of its worker and its own among the worker's.
pub async fn closed_loop<F, C>(in_flight: usize, time: Duration, call: F) -> anyhow::Result<Measured>
where
    F: Fn(usize, u64) -> C + Clone + Send + 'static,
    C: Future<Output = anyhow::Result<()>> + Send,
{
    let began = Instant::now();
    let mut workers = JoinSet::new();
    for worker in 0..in_flight {
        let call = call.clone();
        workers.spawn(async move {
            let mut times = Vec::new();
            for number in 0.. {
                let sent = Instant::now();
                call(worker, number).await?;
                times.push(sent.elapsed());
                if began.elapsed() >= time {
                    break;
                }
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(worker) = workers.join_next().await {
        times.extend(worker.context("a worker failed")??);
    }
    Measured::new(times, began.elapsed())
}

/// The middle one of several figures.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_rate_are_those_of_the_calls() {
        let times = (1..=100).rev().map(Duration::from_micros).collect();
        let measured = Measured::new(times, Duration::from_secs(2)).unwrap();
        assert!((measured.p50() - 50.0).abs() < 1e-6 && (measured.p99() - 99.0).abs() < 1e-6);
        assert!((measured.rate() - 50.0).abs() < 1e-9);
        assert!(Measured::new(Vec::new(), Duration::ZERO).is_err());
    }

    #[test]
    fn payloads_are_json_of_about_200_bytes() {
        for number in [0, 1, 99_999] {
            for event in &entries(number, 10).writes[0].events {
                let data = event.data.as_ref().unwrap();
                assert!((190..230).contains(&data.len()), "{}", data.len());
                let json: serde_json::Value = serde_json::from_slice(data).unwrap();
                assert!(json["account"].is_string() && json["amount"].is_u64());
            }
        }
    }

    #[test]
    fn the_median_is_the_middle_one() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
    }
}
