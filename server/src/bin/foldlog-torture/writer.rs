//! The load: several writers that append with expected versions, to streams of their own and to shared ones, until the server
//! is gone.
//!
//! A writer sends nothing that is not in the ledger, and goes on only when the answer is there too. Shared streams make them
//! collide, so that refusals happen as well.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::{
    client,
    ledger::{Ledger, State, StreamWrite},
    random::Random,
};

/// Streams that only one writer writes to.
const OWN: u64 = 6;
/// Streams that all write to.
const SHARED: u64 = 3;

/// What all writers share.
#[derive(Clone)]
pub struct Load {
    /// Connection to the server under load.
    pub channel: Channel,
    /// Where everything is written down.
    pub ledger: Arc<Mutex<Ledger>>,
    /// Operations acknowledged in this cycle.
    pub acked: watch::Sender<u64>,
}

/// One writer.
pub struct Writer {
    number: u64,
    random: Random,
    /// Versions of the writer's own streams.
    versions: HashMap<String, u64>,
}

impl Writer {
    /// Makes a writer; `versions` says where every stream stands.
    pub fn new(number: u64, random: Random, versions: &HashMap<String, u64>) -> Self {
        let own = (0..OWN).map(|stream| own_stream(number, stream));
        let versions = own.map(|stream| (stream.clone(), versions.get(&stream).copied().unwrap_or(0))).collect();
        Self { number, random, versions }
    }

    /// Appends until an answer stays out.
    pub async fn run(mut self, load: Load) -> anyhow::Result<()> {
        loop {
            let Some(writes) = self.next_writes(&load).await else { return Ok(()) };
            let id = load.ledger.lock().intend(writes.clone())?;
            let (state, _) = client::append(&load.channel, id, &writes).await;
            if state == State::Unknown {
                return Ok(());
            }
            load.ledger.lock().answered(id, state)?;
            if matches!(state, State::Acked { .. }) {
                for write in writes {
                    let version = write.base + write.amounts.len() as u64;
                    self.versions.entry(write.stream).and_modify(|at| *at = version);
                }
                load.acked.send_modify(|acked| *acked += 1);
            }
        }
    }

    /// One stream of its own, two of its own, or one of its own and a shared one.
    async fn next_writes(&mut self, load: &Load) -> Option<Vec<StreamWrite>> {
        let first = self.random.below(OWN);
        let mut writes = vec![self.own_write(first)];
        match self.random.below(4) {
            0 => writes.push(self.own_write((first + 1) % OWN)),
            1 => {
                let stream = format!("shared-{}", self.random.below(SHARED));
                let base = client::version(&load.channel, &stream).await.ok()?;
                let amounts = self.amounts();
                writes.push(StreamWrite { stream, base, amounts });
            }
            _ => {}
        }
        Some(writes)
    }

    fn own_write(&mut self, stream: u64) -> StreamWrite {
        let stream = own_stream(self.number, stream);
        let base = self.versions.get(&stream).copied().unwrap_or(0);
        StreamWrite { stream, base, amounts: self.amounts() }
    }

    fn amounts(&mut self) -> Vec<i64> {
        (0..=self.random.below(3)).map(|_| self.random.below(1_200).cast_signed() - 200).collect()
    }
}

fn own_stream(writer: u64, stream: u64) -> String {
    format!("writer-{writer}/{stream}")
}
