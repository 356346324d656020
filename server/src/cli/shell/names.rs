//! Names that can be completed: what the server has now, fetched while somebody types.
//!
//! The line editor asks from its own thread and waits a moment; the shell's task answers. Who gets no answer goes on with what was
//! known before.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, mpsc},
    time::Duration,
};

use foldlog_log::clock::{Clock as _, SystemClock};
use foldlog_sdk::{Client, Error, SqlSession, Value};
use tokio::sync::mpsc as asks;

/// Longest time for which a key waits for names.
const PATIENCE: Duration = Duration::from_millis(400);

/// For so long names are taken as they were: several keys in a row ask once.
const FRESH: Duration = Duration::from_secs(2);

/// What there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Whether names fold to upper case, as in the dialect `ksql`.
    pub upper: bool,
    /// Streams and tables.
    pub sources: Vec<String>,
    /// Topics.
    pub topics: Vec<String>,
    /// Ids of queries.
    pub queries: Vec<String>,
    /// Types with a name.
    pub types: Vec<String>,
    /// Functions and aggregates.
    pub functions: Vec<String>,
    /// Settings of a session.
    pub settings: Vec<String>,
    /// Columns, by the name of what has them.
    pub columns: BTreeMap<String, Vec<String>>,
}

impl Names {
    /// The streams, tables and topics that a text may mean by a word.
    #[must_use]
    pub fn meant(&self, word: &str) -> Option<&str> {
        let mut all = self.sources.iter().chain(&self.topics);
        all.find(|name| name.eq_ignore_ascii_case(word)).map(String::as_str)
    }
}

/// One key's question.
pub struct Ask {
    /// Words of the text, of which some may name what has columns.
    words: Vec<String>,
    reply: mpsc::SyncSender<Arc<Names>>,
}

/// The editor's end.
pub struct Asking {
    asks: asks::Sender<Ask>,
    known: Arc<Names>,
}

/// The task's end.
pub struct Answering {
    asks: asks::Receiver<Ask>,
    clock: SystemClock,
    known: Arc<Names>,
    fetched: Option<Duration>,
}

/// The two ends.
#[must_use]
pub fn channel() -> (Asking, Answering) {
    let (sender, receiver) = asks::channel(1);
    let known = Arc::<Names>::default();
    let answering = Answering { asks: receiver, clock: SystemClock::new(), known: Arc::clone(&known), fetched: None };
    (Asking { asks: sender, known }, answering)
}

impl Asking {
    /// The names for a text with these words, as fresh as they come in time.
    pub fn names(&mut self, words: Vec<String>) -> Arc<Names> {
        let (reply, answered) = mpsc::sync_channel(1);
        if self.asks.try_send(Ask { words, reply }).is_ok()
            && let Ok(names) = answered.recv_timeout(PATIENCE)
        {
            self.known = names;
        }
        Arc::clone(&self.known)
    }
}

impl Answering {
    /// Answers until it is dropped. Cancel-safe: a question that is lost is asked again with the next key.
    pub async fn serve(&mut self, client: &Client, session: &SqlSession) -> Infallible {
        loop {
            let Some(Ask { words, reply }) = self.asks.recv().await else { std::future::pending().await };
            // A server that does not answer leaves the names as they were.
            if let Ok(Ok(names)) = tokio::time::timeout(PATIENCE, self.refreshed(client, session, &words)).await {
                self.known = Arc::new(names);
                self.fetched = Some(self.clock.monotonic());
            }
            drop(reply.try_send(Arc::clone(&self.known)));
        }
    }

    /// Has the next question ask the server: a statement may have changed what there is.
    pub fn expire(&mut self) {
        self.fetched = None;
    }

    async fn refreshed(&self, client: &Client, session: &SqlSession, words: &[String]) -> Result<Names, Error> {
        let now = self.clock.monotonic();
        let mut names = (*self.known).clone();
        if self.fetched.is_none_or(|fetched| now.saturating_sub(fetched) > FRESH) {
            names.upper = session.setting("sql.dialect") == Some("ksql");
            names.sources = first_column(client, session, "SHOW STREAMS").await?;
            names.sources.extend(first_column(client, session, "SHOW TABLES").await?);
            names.topics = first_column(client, session, "SHOW TOPICS").await?;
            names.queries = first_column(client, session, "SHOW QUERIES").await?;
            names.types = first_column(client, session, "SHOW TYPES").await?;
            names.columns.clear();
        }
        if names.functions.is_empty() {
            names.functions = first_column(client, session, "SHOW FUNCTIONS").await?;
            names.settings = first_column(client, session, "SHOW PROPERTIES").await?;
        }
        for word in words {
            let unknown = names.meant(word).filter(|name| !names.columns.contains_key(*name)).map(str::to_owned);
            let Some(name) = unknown else { continue };
            let columns = first_column(client, session, &format!("DESCRIBE \"{}\"", name.replace('"', "\"\""))).await?;
            names.columns.insert(name, columns);
        }
        Ok(names)
    }
}

async fn first_column(client: &Client, session: &SqlSession, sql: &str) -> Result<Vec<String>, Error> {
    let mut answer = client.query(sql).session(session).timeout(PATIENCE).run().await?;
    let mut names = Vec::new();
    while let Some(row) = answer.next().await? {
        if let Some(Value::Text(name)) = row.values().first() {
            names.push(name.clone());
        }
    }
    Ok(names)
}
