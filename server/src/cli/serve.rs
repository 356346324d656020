//! The verbs `serve` and `dev`: a server in the foreground, until a signal or the storage ends it.
//!
//! On stdout stand two lines for programs: `listening on URL` at once and `ready` when requests are answered. Everything else
//! goes to stderr.

use std::{io::Write as _, net::SocketAddr, path::PathBuf, process, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow};
use clap::Args;
use foldlog_log::disk::Disk;
use tempfile::TempDir;
use tracing::{info, warn};

use super::{Failed, signals::Signals};
use crate::{
    config::{self, Config, Given},
    failure::chain,
    server::{Server, ServerError},
    telemetry,
};

/// How long the threads are waited for that a process has begun, at its end. To let go of one while it ends may crash (fault 19951 of glibc).
pub(crate) const LAST_WAIT: Duration = Duration::from_secs(1);

/// Serve a data folder.
#[derive(Debug, Args)]
#[command(after_long_help = config::help())]
pub struct Serve {
    /// Folder of the log; made if it does not exist.
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Address and port of gRPC and HTTP.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Listen on more than loopback although there is neither TLS nor authentication yet.
    #[arg(long)]
    insecure_public: bool,
    /// Configuration file.
    #[arg(long, value_name = "FILE", env = "FOLDLOG_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    told: Told,
}

/// Serve a temporary folder, removed at the end: for trying things out.
#[derive(Debug, Args)]
pub struct Dev {
    /// Address and port; if taken, another port is used and named.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7070")]
    listen: String,
    #[command(flatten)]
    told: Told,
}

/// What is told on stderr.
#[derive(Debug, Args)]
struct Told {
    /// error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// text or json.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

impl Told {
    fn give(self, given: &mut Given) {
        given.flag("log_level", "--log-level", self.log_level);
        given.flag("log_format", "--log-format", self.log_format);
    }
}

impl Serve {
    /// Serves until it is told to stop.
    ///
    /// # Errors
    /// Faults in the configuration, an address that is taken, a folder that cannot be opened, storage that fails.
    pub fn run(self) -> Result<(), Failed> {
        let mut given = Given::default();
        given.flag("data", "--data", self.data);
        given.flag("listen", "--listen", self.listen);
        given.flag("insecure_public", "--insecure-public", self.insecure_public.then(|| "true".to_owned()));
        self.told.give(&mut given);
        given.surroundings(self.config.as_deref());
        let config = Config::resolve(given).map_err(|faults| Failed::Usage(faults.into()))?;
        telemetry::begin(config.log_level, config.log_format);
        run(&On::Machine, config, &mut Passing::default())
    }
}

impl Dev {
    /// Serves until it is told to stop.
    ///
    /// # Errors
    /// As [`Serve::run`].
    pub fn run(self) -> Result<(), Failed> {
        let folder = tempfile::Builder::new().prefix("foldlog-dev-").tempdir().context("failed to make a temporary folder");
        let folder = folder.map_err(Failed::Storage)?;
        let mut given = Given::default();
        given.flag("data", "the temporary folder", folder.path().to_str().map(ToOwned::to_owned));
        given.flag("listen", "--listen", Some(self.listen));
        // What is gone in a while need not be kept from filling the disk.
        for key in ["log.reserve_bytes", "log.reserve_percent"] {
            given.flag(key, "the temporary folder", Some("0".to_owned()));
        }
        self.told.give(&mut given);
        let config = Config::resolve(given).map_err(|faults| Failed::Usage(faults.into()))?;
        telemetry::begin(config.log_level, config.log_format);
        let mut passing = Passing { fallback: Some(SocketAddr::new(config.listen.ip(), 0)), folder: Some(folder) };
        let served = run(&On::Machine, config, &mut passing);
        if let Some(Err(error)) = passing.folder.map(TempDir::close) {
            warn!(%error, "the temporary folder could not be removed");
        }
        served
    }
}

/// What a server has that is there for a while only.
#[derive(Default)]
pub(crate) struct Passing {
    /// Listened on if the configured address is taken.
    fallback: Option<SocketAddr>,
    /// Removed at the end, also at a forced one.
    folder: Option<TempDir>,
}

/// The disk of a server's folder.
pub(crate) enum On {
    /// The machine's own.
    Machine,
    /// One that behaves as somebody wants to see it.
    Given(Arc<dyn Disk>),
}

impl On {
    async fn start(&self, config: Config) -> Result<Server, ServerError> {
        match self {
            Self::Machine => Server::start(config).await,
            Self::Given(disk) => Server::start_on(Arc::clone(disk), config).await,
        }
    }
}

/// Serves on a runtime of its own.
pub(crate) fn run(on: &On, config: Config, passing: &mut Passing) -> Result<(), Failed> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(config.io_threads).enable_all().thread_name("foldlog-io").build();
    let runtime = runtime.context("failed to start the runtime").map_err(Failed::Operation)?;
    let served = runtime.block_on(serve(on, config, passing));
    // After a good end nothing is left to wait for but the threads; after a bad one a read of a broken disk may never return.
    runtime.shutdown_timeout(LAST_WAIT);
    served
}

/// Serves until a signal comes or the storage fails.
async fn serve(on: &On, config: Config, passing: &mut Passing) -> Result<(), Failed> {
    let mut signals = Signals::new().context("failed to listen for signals").map_err(Failed::Operation)?;
    let server = match (on.start(config.clone()).await, passing.fallback) {
        (Err(ServerError::Listen { source, .. }), Some(listen)) if source.kind() == std::io::ErrorKind::AddrInUse => {
            warn!(address = %config.listen, "the address is taken, another port is used");
            on.start(Config { listen, ..config }).await
        }
        (started, _) => started,
    };
    let server = server.map_err(|error| failed(&error))?;
    say(&format!("listening on http://{}", server.address()));
    info!(version = super::VERSION, "foldlog listens on http://{}", server.address());
    tokio::select! {
        biased;
        error = server.failed() => return Err(storage_failed(server, &error)),
        () = signals.stop() => {}
        ready = server.ready() => {
            ready.map_err(|error| failed(&error))?;
            say("ready");
            tokio::select! {
                biased;
                error = server.failed() => return Err(storage_failed(server, &error)),
                () = signals.stop() => {}
            }
        }
    }
    info!("stopping: requests may end; interrupt again to force it");
    tokio::select! {
        biased;
        () = signals.stop() => {
            warn!("stopped by force");
            // Not by returning: that would wait for what does not end.
            drop(passing.folder.take());
            process::exit(1);
        }
        stopped = server.stop() => {
            let in_time = stopped.map_err(|error| failed(&error))?;
            info!(in_time, "stopped");
            Ok(())
        }
    }
}

/// Gives the answers to those who wait (that their outcome is unknown) a moment to leave.
fn storage_failed(server: Server, error: &ServerError) -> Failed {
    // On this thread: those of the runtime may all wait for a disk that does not answer, and so may whoever takes the server apart.
    std::thread::sleep(Duration::from_millis(100));
    std::mem::forget(server);
    failed(error)
}

/// A line for programs. Nobody may be reading.
fn say(line: &str) {
    let mut out = std::io::stdout();
    let _gone = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn failed(error: &ServerError) -> Failed {
    use foldlog_log::LogError;
    use foldlog_query::QueryError;
    let told = anyhow!(chain(error));
    match error {
        ServerError::Listen { .. } => Failed::Usage(told),
        ServerError::Log(log) | ServerError::Query(QueryError::Log(log)) => match log {
            LogError::Locked { .. } | LogError::Format { .. } | LogError::Invalid { .. } | LogError::InvalidName(_) => Failed::Usage(told),
            _ => Failed::Storage(told),
        },
        ServerError::Storage(_) => Failed::Storage(told),
        ServerError::Query(_) | ServerError::Grpc(_) => Failed::Operation(told),
    }
}
