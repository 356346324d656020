//! One writer to a topic of its own: one append after the other, until the server is gone, and the one that was not answered once more behind the kill.
//!
//! What is appended, and what follows from its acknowledgement, is a [`Script`]'s matter. Invariant: an append is kept before it is sent, under an id
//! of its own, and the next is made up when it was answered; so of all that may be in the log one append at most was not acknowledged.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use foldlog_proto::v1::{AppendRequest, AppendResponse, Durability};
use parking_lot::Mutex;
use prost::bytes::Bytes;
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::{child::event_log, random::Random};

/// Bytes of padding, so that segments fill.
const PADDING: usize = 2_000;

/// What a writer appends.
pub trait Script {
    /// The next append, which was not sent yet.
    fn next(&mut self, random: &mut Random) -> AppendRequest;
    /// The append that was made up last is acknowledged.
    fn acked(&mut self, answer: &AppendResponse);
}

/// A writer over all cycles.
#[derive(Debug)]
pub struct Line<S> {
    /// What it appends.
    pub script: S,
    number: u64,
    random: Random,
    asked: Option<AppendRequest>,
    acked: u64,
}

impl<S: Script> Line<S> {
    /// A writer with a number that no other has.
    pub fn new(number: u64, script: S, random: Random) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { script, number, random, asked: None, acked: 0 }))
    }

    fn ask(&mut self) -> AppendRequest {
        let Self { script, number, random, asked, acked } = self;
        let request = asked.get_or_insert_with(|| {
            let id = u128::from(*number) << 64 | u128::from(*acked);
            // Of what is killed, what was only written survives as well.
            let durability = if acked.is_multiple_of(2) { Durability::Written } else { Durability::Synced };
            AppendRequest { request_id: id.to_be_bytes().to_vec().into(), durability: durability.into(), ..script.next(random) }
        });
        request.clone()
    }

    fn answered(&mut self, answer: &AppendResponse) {
        self.asked = None;
        self.acked += 1;
        self.script.acked(answer);
    }
}

/// Appends until an answer stays out, and counts what is acknowledged.
pub async fn run<S: Script>(line: Arc<Mutex<Line<S>>>, channel: Channel, acked: watch::Sender<u64>) -> anyhow::Result<()> {
    loop {
        let request = line.lock().ask();
        let Ok(answer) = event_log(channel.clone()).append(request).await else { return Ok(()) };
        line.lock().answered(&answer.into_inner());
        acked.send_modify(|acked| *acked += 1);
    }
}

/// Sends again what was never answered, until there is an answer; whether there was something.
pub async fn ask_again<S: Script>(line: &Mutex<Line<S>>, channel: &Channel) -> anyhow::Result<bool> {
    let asked = line.lock().asked.clone();
    let Some(request) = asked else { return Ok(false) };
    let mut failed = None;
    for _ in 0..50 {
        match event_log(channel.clone()).append(request.clone()).await {
            Ok(answer) => {
                line.lock().answered(&answer.into_inner());
                return Ok(true);
            }
            Err(status) => failed = Some(status),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    failed.map_or(Ok(false), Err).with_context(|| format!("an append to {} gets no answer", request.topic))
}

/// A payload that says a number.
pub fn payload(number: u64) -> Bytes {
    format!("{number}:{}", "x".repeat(PADDING)).into()
}

/// What a payload says.
pub fn number_of(data: &[u8]) -> anyhow::Result<u64> {
    let text = std::str::from_utf8(data).context("a payload that is not text")?;
    let (number, padding) = text.split_once(':').context("not a payload of ours")?;
    anyhow::ensure!(padding.len() == PADDING, "a payload of {} bytes", padding.len());
    number.parse().context("not a number of ours")
}
