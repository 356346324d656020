//! A foldlog server as a child process of a tool: started, asked whether it answers, killed.
//!
//! Used by foldlog-torture and foldlog-bench. Whatever happens to the tool, the child ends with it: dropping it kills it.

use std::{
    ffi::OsString,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use foldlog_proto::v1::{GetHeadRequest, event_log_client::EventLogClient};
use tonic::transport::{Channel, Endpoint};

/// Largest message that a tool takes or sends.
const MESSAGE_BYTES: usize = 16 << 20;

/// How to start a server.
pub struct Start {
    /// The program and its arguments before `serve`: foldlog itself, or strace and foldlog.
    pub command: Vec<OsString>,
    /// Settings, by the names of their environment variables.
    pub settings: &'static [(&'static str, &'static str)],
    /// Folder under which it writes backups, if it may.
    pub backups: Option<PathBuf>,
    /// Its data folder.
    pub data: PathBuf,
    /// Where its stderr is appended to.
    pub log: PathBuf,
}

/// A running server. Dropping it kills it.
pub struct Server {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

/// Path of the program `foldlog` beside this one.
pub fn foldlog() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell where this program lies")?;
    let path = own.with_file_name(format!("foldlog{}", std::env::consts::EXE_SUFFIX));
    if !path.is_file() {
        bail!("there is no {}; build it first (cargo build --release)", path.display());
    }
    Ok(path)
}

impl Server {
    /// Starts a server on a free port; it may not answer yet.
    pub fn start(start: &Start) -> anyhow::Result<Self> {
        let address = free_address()?;
        let log = fs::OpenOptions::new().create(true).append(true).open(&start.log).context("cannot write the server's log")?;
        let (program, first) = start.command.split_first().context("no program to start")?;
        let child = Command::new(program)
            .args(first)
            // Its folder is gone when the tool ends.
            .envs([("FOLDLOG_LOG_RESERVE_BYTES", "0"), ("FOLDLOG_LOG_RESERVE_PERCENT", "0")])
            .envs(start.settings.iter().copied())
            .envs(start.backups.iter().map(|folder| ("FOLDLOG_BACKUPS", folder)))
            .arg("serve")
            .arg("--data")
            .arg(&start.data)
            .args(["--listen", &address.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", Path::new(program).display()))?;
        Ok(Self { child, address, log: start.log.clone() })
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits until it answers, and returns a connection.
    pub async fn answers(&mut self, within: Duration) -> anyhow::Result<Channel> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.ended()? {
                bail!("the server ended ({status}) before it answered:\n{}", self.last_words());
            }
            let failed = match first_answer(&self.url()).await {
                Ok(channel) => return Ok(channel),
                Err(failed) => failed,
            };
            if Instant::now() > deadline {
                let words = self.last_words();
                return Err(failed.context(format!("the server does not answer after {within:?}:\n{words}")));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.child.try_wait().context("cannot ask for the child's state")
    }

    /// Waits for its end.
    pub async fn end(&mut self, within: Duration) -> anyhow::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + within;
        loop {
            let status = self.ended()?;
            if status.is_some() || Instant::now() > deadline {
                return Ok(status);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Process id of the server, or of the strace that runs it.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        // A child that ended by itself meanwhile is no error.
        self.child.kill().context("cannot kill the server")?;
        self.child.wait().context("cannot wait for the server")?;
        Ok(())
    }

    /// The end of what it said on stderr.
    pub fn last_words(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines.iter().skip(lines.len().saturating_sub(20)).copied().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _already_waited = self.child.wait();
    }
}

/// Opens a connection to a server that listens.
pub async fn connect(url: &str) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(url.to_owned()).context("not an address")?;
    let endpoint = endpoint.tcp_nodelay(true).connect_timeout(Duration::from_secs(2));
    let endpoint = endpoint.initial_connection_window_size(8 << 20).initial_stream_window_size(4 << 20);
    endpoint.connect().await.with_context(|| format!("cannot connect to {url}"))
}

/// The log's client over a connection, with room for the largest messages.
pub fn event_log(channel: Channel) -> EventLogClient<Channel> {
    EventLogClient::new(channel).max_decoding_message_size(MESSAGE_BYTES).max_encoding_message_size(MESSAGE_BYTES)
}

/// An address on loopback that is free now.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    listener.local_addr().context("a listener without an address")
}

async fn first_answer(url: &str) -> anyhow::Result<Channel> {
    let channel = connect(url).await?;
    event_log(channel.clone()).get_head(GetHeadRequest::default()).await.context("the server is not ready")?;
    Ok(channel)
}
