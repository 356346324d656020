//! What was asked of the server and what it answered, kept outside its reach: in memory, and in a file of one line an entry.
//!
//! Written by the writers, read by the checks. An operation enters the ledger before it is sent; its answer enters, and is
//! synced to the file, before the writer goes on. Invariant: an operation's content never changes once it is here.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::Write as _,
    path::Path,
};

use anyhow::Context as _;

/// Number of an operation, from 0, never given twice.
pub type OpId = u64;

/// Whether an operation asks to be answered before it is synced.
pub const fn asks_for_written(id: OpId) -> bool {
    id.is_multiple_of(2)
}

/// Events for one stream, on top of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamWrite {
    /// The stream.
    pub stream: String,
    /// Version that the stream must have; 0: it must not exist.
    pub base: u64,
    /// One event each.
    pub amounts: Vec<i64>,
}

/// One append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// What it writes, in order.
    pub writes: Vec<StreamWrite>,
    /// What is known of it.
    pub state: State,
}

/// Under which number an operation was sent over a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sent {
    /// Its producer's number.
    pub writer: u64,
    /// The producer's epoch.
    pub epoch: u64,
    /// Its sequence.
    pub sequence: u64,
}

/// What is known of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It may have been done or not: no answer came yet.
    Unknown,
    /// It was acknowledged: its events lie at these positions, both ends inclusive.
    Acked {
        /// Position of the first event.
        first: u64,
        /// Position of the last event.
        last: u64,
    },
    /// It was refused: nothing of it may ever be read.
    Refused,
}

impl Op {
    /// Its events in the order of their positions: stream, version and amount.
    pub fn events(&self) -> impl Iterator<Item = (&str, u64, i64)> {
        self.writes
            .iter()
            .flat_map(|write| write.amounts.iter().zip(write.base + 1..).map(|(amount, version)| (write.stream.as_str(), version, *amount)))
    }
}

/// All operations.
pub struct Ledger {
    file: File,
    ops: BTreeMap<OpId, Op>,
    /// Of those that went over sessions.
    sent: BTreeMap<OpId, Sent>,
    next: OpId,
    acked: u64,
}

impl Ledger {
    /// Begins a ledger in a file that must not exist.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new().create_new(true).write(true).open(path);
        let file = file.with_context(|| format!("cannot create the ledger {}", path.display()))?;
        Ok(Self { file, ops: BTreeMap::new(), sent: BTreeMap::new(), next: 0, acked: 0 })
    }

    /// Enters an operation that is about to be sent.
    pub fn intend(&mut self, writes: Vec<StreamWrite>) -> anyhow::Result<OpId> {
        let id = self.next;
        self.next += 1;
        let mut line = format!("try {id}");
        for write in &writes {
            line.push_str(&format!(" {}@{}{:?}", write.stream, write.base, write.amounts).replace(", ", ","));
        }
        self.line(&line)?;
        self.ops.insert(id, Op { writes, state: State::Unknown });
        Ok(id)
    }

    /// Enters an operation that is about to be sent over a session.
    pub fn intend_in_session(&mut self, writes: Vec<StreamWrite>, sent: Sent) -> anyhow::Result<OpId> {
        let id = self.intend(writes)?;
        self.line(&format!("unit {id} {sent:?}"))?;
        self.sent.insert(id, sent);
        Ok(id)
    }

    /// Enters an operation's answer and syncs the file.
    pub fn answered(&mut self, id: OpId, state: State) -> anyhow::Result<()> {
        let op = self.ops.get_mut(&id).with_context(|| format!("operation {id} is not in the ledger"))?;
        op.state = state;
        match state {
            State::Acked { first, last } => {
                self.acked += 1;
                self.line(&format!("ack {id} {first} {last}"))?;
            }
            State::Refused => self.line(&format!("refused {id}"))?,
            State::Unknown => self.line(&format!("unknown {id}"))?,
        }
        self.file.sync_data().context("cannot sync the ledger")
    }

    /// All operations by number.
    pub const fn ops(&self) -> &BTreeMap<OpId, Op> {
        &self.ops
    }

    /// Operations without an answer that went over sessions, in the order of their sequences, a list for each writer.
    pub fn unknown_of_sessions(&self) -> Vec<Vec<(Sent, OpId, Vec<StreamWrite>)>> {
        let mut of_writer: BTreeMap<u64, Vec<_>> = BTreeMap::new();
        for (id, op) in self.ops.iter().filter(|(_, op)| op.state == State::Unknown) {
            if let Some(sent) = self.sent.get(id) {
                of_writer.entry(sent.writer).or_default().push((*sent, *id, op.writes.clone()));
            }
        }
        of_writer.into_values().collect()
    }

    /// Other operations without an answer, oldest first.
    pub fn unknown(&self) -> Vec<(OpId, Vec<StreamWrite>)> {
        let unknown = self.ops.iter().filter(|(id, op)| op.state == State::Unknown && !self.sent.contains_key(id));
        unknown.map(|(id, op)| (*id, op.writes.clone())).collect()
    }

    /// Position after the last that was acknowledged.
    pub fn acked_end(&self) -> u64 {
        let ends = self.ops.values().map(|op| if let State::Acked { last, .. } = op.state { last + 1 } else { 0 });
        ends.max().unwrap_or_default()
    }

    /// Position behind the last that was acknowledged as synced.
    pub fn synced_end(&self) -> u64 {
        let synced = self.ops.iter().filter(|(id, _)| !asks_for_written(**id));
        let ends = synced.map(|(_, op)| if let State::Acked { last, .. } = op.state { last + 1 } else { 0 });
        ends.max().unwrap_or_default()
    }

    /// All operations as a log knows them that ends at a position.
    pub fn ops_then(&self, end: u64) -> BTreeMap<OpId, Op> {
        let mut ops = self.ops.clone();
        for op in ops.values_mut() {
            if matches!(op.state, State::Acked { first, .. } if first >= end) {
                op.state = State::Refused;
            }
        }
        ops
    }

    /// The last operation below a position that went over no session.
    pub fn last_below(&self, end: u64) -> Option<(OpId, Op)> {
        let is_one = |id: &OpId, op: &Op| matches!(op.state, State::Acked { last, .. } if last < end) && !self.sent.contains_key(id);
        self.ops.iter().rev().find(|(id, op)| is_one(id, op)).map(|(id, op)| (*id, op.clone()))
    }

    /// How many operations were acknowledged.
    pub const fn acked(&self) -> u64 {
        self.acked
    }

    fn line(&mut self, text: &str) -> anyhow::Result<()> {
        self.file.write_all(format!("{text}\n").as_bytes()).context("cannot write the ledger")
    }
}
