//! What all measurements share: the folder, foldlog and the echo as child processes, the figures of disk and echo.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use foldlog_proto::v1::{
    CreateTopicRequest, GetHeadRequest, Head, QueryRequest, Rows, column_values::Values, query_batch, query_client::QueryClient,
    topics_client::TopicsClient,
};
use prost::bytes::Bytes;
use tempfile::TempDir;
use tonic::transport::Channel;

use crate::{
    child::{self, Server, Start},
    load::TOPIC,
};

/// How long a server may take to answer.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Settings of a run.
pub struct Bench {
    /// Folder for everything, on the device that is measured.
    pub folder: PathBuf,
    /// How long each loop runs.
    pub time: Duration,
    /// How often each loop runs; the median counts.
    pub repeats: usize,
    /// The bare server.
    pub echo: Echo,
    /// The bare server that writes and syncs before it answers.
    pub durable: Echo,
    /// The folder goes with it.
    _kept: TempDir,
}

/// The echo as a child process. Dropping it kills it.
pub struct Echo {
    child: Child,
    /// Where it listens.
    pub url: String,
}

/// A foldlog under measurement.
pub struct Subject {
    /// The child process.
    pub server: Server,
    /// A connection to it.
    pub channel: Channel,
    /// Its data folder.
    pub data: PathBuf,
}

impl Bench {
    /// A run in a new folder within `dir` or beside this program, with its echoes started.
    pub async fn of(dir: Option<&Path>, seconds: u64, repeats: usize) -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("cannot tell where this program lies")?;
        let beside = own.parent().context("this program lies nowhere")?;
        let folder = tempfile::Builder::new().prefix("foldlog-bench-").tempdir_in(dir.unwrap_or(beside));
        let folder = folder.context("cannot create a folder for the data")?;
        Ok(Self {
            folder: folder.path().to_owned(),
            time: Duration::from_secs(seconds),
            repeats,
            echo: Echo::start(None).await?,
            durable: Echo::start(Some(&folder.path().join("echo"))).await?,
            _kept: folder,
        })
    }

    /// Starts a foldlog over a new folder. `prefix` is what runs it: nothing, or strace and its flags.
    pub async fn subject(&self, name: &str, prefix: Vec<std::ffi::OsString>) -> anyhow::Result<Subject> {
        let subject = self.start(name, prefix).await?;
        let topic = CreateTopicRequest { name: TOPIC.to_owned(), ..CreateTopicRequest::default() };
        TopicsClient::new(subject.channel.clone()).create(topic).await.context("cannot create the topic")?;
        Ok(subject)
    }

    /// Starts a foldlog over the folder of this name, as it is.
    pub async fn start(&self, name: &str, prefix: Vec<std::ffi::OsString>) -> anyhow::Result<Subject> {
        self.start_with(name, prefix, &[]).await
    }

    /// Starts a foldlog with settings over the folder of this name, as it is.
    pub async fn start_with(
        &self,
        name: &str,
        prefix: Vec<std::ffi::OsString>,
        settings: &'static [(&'static str, &'static str)],
    ) -> anyhow::Result<Subject> {
        let data = self.folder.join(name);
        let mut command = prefix;
        command.push(child::foldlog()?.into());
        let mut server =
            Server::start(&Start { command, settings, backups: None, data: data.clone(), log: self.folder.join(format!("{name}.log")) })?;
        let channel = server.answers(PATIENCE).await?;
        Ok(Subject { server, channel, data })
    }
}

/// What it took a query to come to the end.
pub struct Run {
    /// Its id.
    pub query: String,
    /// From the statement to the last durable unit.
    pub seconds: f64,
    /// Of the server meanwhile.
    pub processor_seconds: f64,
}

/// A query as `SHOW QUERIES` tells it.
struct Status {
    id: String,
    state: String,
    frontier: u64,
}

impl Status {
    /// The one that writes `sink`.
    fn of(rows: &Rows, sink: &str) -> Option<Self> {
        let texts = |column: usize| match &rows.columns.get(column)?.values {
            Some(Values::Texts(texts)) => Some(&texts.values),
            _ => None,
        };
        let place = texts(1)?.iter().position(|named| named == sink)?;
        let frontier = match &rows.columns.get(3)?.values {
            Some(Values::Integers(numbers)) => u64::try_from(*numbers.values.get(place)?).ok()?,
            _ => return None,
        };
        Some(Self { id: texts(0)?.get(place)?.clone(), state: texts(2)?.get(place)?.clone(), frontier })
    }
}

impl Subject {
    /// Makes the stream over the measured topic.
    pub async fn declare(&self) -> anyhow::Result<()> {
        let sql = format!(
            "CREATE STREAM {TOPIC} (stream_name VARCHAR KEY, account VARCHAR, amount BIGINT) \
             WITH (kafka_topic = '{TOPIC}', value_format = 'json')"
        );
        self.sql(&sql).await?;
        Ok(())
    }

    /// Makes the view of totals.
    pub async fn create_view(&self) -> anyhow::Result<()> {
        let sql = format!("CREATE TABLE totals AS SELECT account, COUNT(*) AS entries, SUM(amount) AS total FROM {TOPIC} GROUP BY account");
        self.sql(&sql).await?;
        Ok(())
    }

    /// Executes a statement and returns its rows.
    pub async fn sql(&self, sql: &str) -> anyhow::Result<Vec<Rows>> {
        let request = QueryRequest { sql: sql.to_owned(), ..QueryRequest::default() };
        execute(self.channel.clone(), request).await.with_context(|| format!("this failed: {sql}"))
    }

    /// Waits until the view reflects everything below the log's end of now; tells how long that took.
    pub async fn view_caught_up(&self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let head = self.head().await?;
        self.view_reflects(head.token).await?;
        Ok(began.elapsed())
    }

    async fn view_reflects(&self, token: Bytes) -> anyhow::Result<()> {
        let sql = "SELECT entries FROM totals WHERE account = 'account-00000001'".to_owned();
        let timeout = prost_types::Duration { seconds: 300, nanos: 0 };
        let request = QueryRequest { sql, at_least: token, timeout: Some(timeout), ..QueryRequest::default() };
        execute(self.channel.clone(), request).await.context("the view does not catch up")?;
        Ok(())
    }

    /// Makes a query that writes `sink`, and waits until everything that was in the log before is reflected and durable.
    pub async fn run(&self, sql: &str, sink: &str) -> anyhow::Result<Run> {
        let head = self.head().await?.position;
        let (began, before) = (Instant::now(), self.cpu()?);
        self.sql(sql).await?;
        let query = loop {
            let queries = self.sql("SHOW QUERIES").await?;
            let status = queries.iter().find_map(|rows| Status::of(rows, sink)).with_context(|| format!("no query writes {sink}"))?;
            anyhow::ensure!(status.state == "running" || status.state.starts_with("folding"), "the query is {}", status.state);
            if status.frontier >= head {
                break status.id;
            }
            anyhow::ensure!(began.elapsed() < PATIENCE, "the query is at {} of {head}", status.frontier);
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        let (seconds, processor_seconds) = (began.elapsed().as_secs_f64(), self.cpu()?.saturating_sub(before).as_secs_f64());
        Ok(Run { query, seconds, processor_seconds })
    }

    /// How far the query is that is least far; no position if there is none.
    pub async fn least_frontier(&self) -> anyhow::Result<u64> {
        let queries = self.sql("SHOW QUERIES").await?;
        let frontiers = queries.iter().flat_map(|rows| match rows.columns.get(3).and_then(|column| column.values.as_ref()) {
            Some(Values::Integers(numbers)) => numbers.values.as_slice(),
            _ => &[],
        });
        Ok(frontiers.min().and_then(|least| u64::try_from(*least).ok()).unwrap_or_default())
    }

    /// The end of the log.
    pub async fn head(&self) -> anyhow::Result<Head> {
        Ok(child::event_log(self.channel.clone()).get_head(GetHeadRequest::default()).await?.into_inner())
    }

    /// Waits until the server has come to rest: what it left to write would disturb the next measurement.
    pub async fn at_rest(&self) -> anyhow::Result<()> {
        for _ in 0..80 {
            let before = self.cpu()?;
            tokio::time::sleep(Duration::from_millis(250)).await;
            if self.cpu()?.saturating_sub(before) <= Duration::from_millis(10) {
                break;
            }
        }
        Ok(())
    }

    /// Memory that the server holds, in bytes.
    pub fn memory(&self) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/status", self.server.pid());
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS is no number")?;
        Ok(kib << 10)
    }

    /// Processor time of the server so far.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        processor_time(self.server.pid())
    }

    /// Threads that the server has.
    pub fn threads(&self) -> anyhow::Result<usize> {
        let path = format!("/proc/{}/task", self.server.pid());
        Ok(std::fs::read_dir(&path).with_context(|| format!("cannot list {path}"))?.count())
    }

    /// A number that the server tells whoever watches it.
    pub async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let url = self.server.url();
        let address = url.trim_start_matches("http://");
        let mut stream = tokio::net::TcpStream::connect(address).await.context("cannot connect")?;
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let text = String::from_utf8_lossy(&answer);
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start_matches("_total").trim().parse().ok());
        value.with_context(|| format!("{name} is not among the server's numbers"))
    }
}

fn processor_time(pid: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // The name of the program may hold anything; what follows its closing bracket does not.
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |place: usize| fields.get(place).and_then(|field| field.parse::<u64>().ok()).context("a short stat file");
    // Linux counts these in hundredths of a second, whatever the kernel's own tick.
    Ok(Duration::from_millis(10 * (ticks(11)? + ticks(12)?)))
}

/// Executes a statement and returns its rows.
pub async fn execute(channel: Channel, request: QueryRequest) -> anyhow::Result<Vec<Rows>> {
    let mut client = QueryClient::new(channel).max_decoding_message_size(16 << 20);
    let mut batches = client.execute(request).await?.into_inner();
    let (mut all, mut done) = (Vec::new(), false);
    while let Some(batch) = batches.message().await? {
        match batch.message {
            Some(query_batch::Message::Rows(rows)) => all.push(rows),
            Some(query_batch::Message::Done(_)) => done = true,
            _ => {}
        }
    }
    anyhow::ensure!(done, "the answer ended without saying so");
    Ok(all)
}

impl Echo {
    /// Starts the echo server and waits until it answers.
    pub async fn start(sync: Option<&Path>) -> anyhow::Result<Self> {
        let address = child::free_address()?;
        let own = std::env::current_exe().context("cannot tell where this program lies")?;
        let mut command = Command::new(own);
        command.args(["echo", "--listen", &address.to_string()]).stdin(Stdio::null());
        if let Some(file) = sync {
            command.arg("--sync").arg(file);
        }
        let echo = Self { child: command.spawn().context("cannot start the echo")?, url: format!("http://{address}") };
        let began = Instant::now();
        while child::connect(&echo.url).await.is_err() {
            anyhow::ensure!(began.elapsed() < PATIENCE, "the echo does not answer");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(echo)
    }

    /// Processor time of the echo so far.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        processor_time(self.child.id())
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _already_waited = self.child.wait();
    }
}
