//! A running server: listens at once, recovers behind closed doors, answers, drains, ends.
//!
//! The only place where the implementations behind the seams are chosen and joined.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use foldlog_log::{
    EmbeddedLog, LogBackend as _, LogError,
    clock::{Clock, SystemClock},
    disk::{Disk, RealDisk},
};
use foldlog_query::{Checkpoints, Engine, QueryError};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tonic::transport::Server as Http2;
use tonic_health::{ServingStatus, server::HealthReporter};
use tracing::{error, info, warn};

use crate::{
    accept,
    app::App,
    config::{Config, Limits},
    descriptors,
    failure::chain,
    groups::Groups,
    grpc::{self, Door},
    numbers::Numbers,
    shutdown::Tasks,
};

/// Pings that find connections whose other end is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
const HEADER_LIST_BYTES: u32 = 16 << 10;
/// Streams that a client opened and reset at once and that are not yet cleaned up; more end the connection.
const PENDING_RESETS: usize = 20;
/// Streams that we reset because of what the client sent; more end the connection.
const LOCAL_RESETS: usize = 256;
const STREAMS_PER_CONNECTION: u32 = 1_024;
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// Within the data folder: the state of queries, which can be folded from the log again.
const STATE_FOLDER: &str = "state";

/// How the state of queries is kept in a folder.
type Keep = fn(Arc<dyn Disk>, PathBuf) -> Checkpoints;

/// Why a server did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address cannot be listened on.
    #[error("failed to listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The log could not be opened, or it failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The query engine could not be opened.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The embedded descriptors cannot be read.
    #[error("failed to set up gRPC")]
    Grpc(#[source] tonic_reflection::server::Error),
    /// The log stopped: what it was doing is told here.
    #[error("the storage failed: {0}")]
    Storage(String),
}

/// How far a server has come.
#[derive(Clone, Debug)]
enum Stage {
    Recovering,
    Ready,
    Failed(Arc<ServerError>),
}

/// A running server. Dropping it abandons it as a crash would; [`Server::stop`] ends it well.
pub struct Server {
    app: App,
    address: SocketAddr,
    drain: Duration,
    stage: watch::Receiver<Stage>,
    serving: JoinHandle<()>,
    open: Arc<OnceLock<Opened>>,
}

struct Opened {
    log: Arc<EmbeddedLog>,
    engine: Engine,
    groups: Groups,
}

impl Server {
    /// Listens, and begins to recover the log; requests are refused with NOT_READY until that is done.
    ///
    /// # Errors
    /// [`ServerError::Listen`]. What goes wrong later is told by [`Server::ready`] and [`Server::failed`].
    pub async fn start(config: Config) -> Result<Self, ServerError> {
        Self::start_with(Arc::new(RealDisk), Checkpoints::in_pages, config).await
    }

    /// The same on a disk of one's own.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn start_on(disk: Arc<dyn Disk>, config: Config) -> Result<Self, ServerError> {
        Self::start_with(disk, Checkpoints::in_files, config).await
    }

    async fn start_with(disk: Arc<dyn Disk>, keep: Keep, config: Config) -> Result<Self, ServerError> {
        let refused = |source| ServerError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let tasks = Tasks::default();
        let limits = Limits { connections: descriptors::connections(config.limits.connections), ..config.limits.clone() };
        let app = App::new(Arc::clone(&clock), limits, tasks.clone());
        let (door, health) = grpc::door(&app, address).map_err(ServerError::Grpc)?;
        let (told, stage) = watch::channel(Stage::Recovering);
        let open = Arc::new(OnceLock::new());
        let server = Self {
            serving: tasks.spawn("serve", serve(listener, app.clone(), door)),
            app: app.clone(),
            address,
            drain: config.drain,
            stage,
            open: Arc::clone(&open),
        };
        let watched = app.clone();
        tasks.spawn("idle readers", async move {
            tokio::select! {
                () = watched.tasks.drained() => {}
                () = watched.idle.watch() => {}
            }
        });
        tasks.spawn("open", async move {
            let its = app.clone();
            let opening = tokio::task::spawn_blocking(move || self::open(disk, keep, &config, clock, &its)).await;
            let opened = match opening {
                Ok(opened) => opened,
                Err(panic) => Err(ServerError::Storage(panic.to_string())),
            };
            let ended = match opened {
                Ok(opened) => {
                    app.open(opened.log.clone(), opened.engine.clone(), opened.groups.clone());
                    serving(&health, ServingStatus::Serving).await;
                    info!("ready");
                    let numbers = Numbers::new(Arc::clone(&opened.log), opened.engine.clone(), opened.groups.clone(), app.load());
                    app.metrics.collect(numbers);
                    let failure = opened.log.failure();
                    open.get_or_init(|| opened);
                    told.send_replace(Stage::Ready);
                    failed_or_drained(&app, failure).await
                }
                Err(error) => Some(error),
            };
            serving(&health, ServingStatus::NotServing).await;
            if let Some(error) = ended {
                told.send_replace(Stage::Failed(Arc::new(error)));
            }
        });
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until requests are answered.
    ///
    /// # Errors
    /// Why they never will be.
    pub async fn ready(&self) -> Result<(), Arc<ServerError>> {
        let mut stage = self.stage.clone();
        let stage = stage.wait_for(|stage| !matches!(stage, Stage::Recovering)).await;
        match stage.as_deref() {
            Ok(Stage::Failed(error)) => Err(Arc::clone(error)),
            Ok(Stage::Recovering | Stage::Ready) => Ok(()),
            Err(_) => Err(Arc::new(ServerError::Storage("the server ended while it recovered".to_owned()))),
        }
    }

    /// Ends when the server cannot go on, with the reason. Cancel-safe. Needs no thread of the runtime, all of which a disk may hold.
    pub async fn failed(&self) -> Arc<ServerError> {
        let mut stage = self.stage.clone();
        loop {
            if let Stage::Failed(error) = &*stage.borrow_and_update() {
                return Arc::clone(error);
            }
            let changed = async { stage.changed().await.is_err() };
            let failed = async {
                match self.open.get() {
                    Some(opened) => failed(opened.log.failure()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                error = failed => return Arc::new(error),
                is_over = changed => {
                    if is_over {
                        return std::future::pending().await;
                    }
                }
            }
        }
    }

    /// Refuses new requests, lets running ones end, stops the queries after their step, syncs, and closes the folder.
    /// Tells whether every request had ended in time.
    ///
    /// # Errors
    /// [`ServerError::Storage`] if the log failed before or meanwhile.
    pub async fn stop(self) -> Result<bool, Arc<ServerError>> {
        let Self { app, drain, serving, open, stage, .. } = self;
        app.tasks.drain();
        let in_time = tokio::time::timeout(drain, serving).await.is_ok();
        if !in_time {
            warn!(drain_ms = drain.as_millis(), "some requests did not end in time");
        }
        if let Some(opened) = open.get() {
            let log = Arc::clone(&opened.log);
            let stopped = async {
                opened.engine.stop().await;
                if tokio::task::spawn_blocking(move || log.stop()).await.is_err() {
                    warn!("the log did not stop as it should");
                }
            };
            tokio::select! {
                biased;
                () = stopped => {}
                error = stalled(opened.log.failure()) => {
                    std::mem::forget(open);
                    return Err(Arc::new(error));
                }
            }
            if let Some(reason) = opened.log.failure().borrow().as_ref() {
                return Err(Arc::new(ServerError::Storage(chain(reason))));
            }
        }
        match &*stage.borrow() {
            Stage::Failed(error) => Err(Arc::clone(error)),
            Stage::Recovering | Stage::Ready => Ok(in_time),
        }
    }
}

/// Opens the folder: blocking, and long after a crash.
fn open(disk: Arc<dyn Disk>, keep: Keep, config: &Config, clock: Arc<dyn Clock>, app: &App) -> Result<Opened, ServerError> {
    let checkpoints = keep(Arc::clone(&disk), config.data.join(STATE_FOLDER)).leaving(config.log.reserve_bytes, config.log.reserve_percent);
    let log = Arc::new(EmbeddedLog::open(disk, Arc::clone(&clock), &config.data, config.log.clone())?);
    let report = log.report();
    if let Some(damage) = &report.damage {
        error!("the log is read-only: {damage}");
    }
    for damage in &report.damaged {
        error!("a partition is read-only: {damage}");
    }
    info!(data = %config.data.display(), frames = report.frames, records = report.records, position = log.head().position.get(), "log is open");
    let engine = Engine::open_keeping(log.clone(), Arc::clone(&clock), config.query.clone(), Some(&checkpoints))?;
    let groups = Groups::open(log.clone(), clock, app.tasks.clone(), Arc::clone(&app.file_reads))?;
    // Every query holds by now what it would fold again.
    log.allow_removal();
    Ok(Opened { log, engine, groups })
}

/// Waits for the server to drain, or the log to fail: then why.
async fn failed_or_drained(app: &App, failure: watch::Receiver<Option<Arc<LogError>>>) -> Option<ServerError> {
    tokio::select! {
        biased;
        () = app.tasks.drained() => None,
        failed = failed(failure) => Some(failed),
    }
}

/// Ends when the log fails, with the reason.
async fn failed(failure: watch::Receiver<Option<Arc<LogError>>>) -> ServerError {
    failed_by(failure, |_| true).await
}

/// The same over a disk that stalls alone: then what is left to do may wait for it for ever.
async fn stalled(failure: watch::Receiver<Option<Arc<LogError>>>) -> ServerError {
    failed_by(failure, |reason| matches!(reason, LogError::Stalled { .. })).await
}

async fn failed_by(mut failure: watch::Receiver<Option<Arc<LogError>>>, is_meant: impl Fn(&LogError) -> bool) -> ServerError {
    let reason = failure.wait_for(|reason| reason.as_deref().is_some_and(&is_meant)).await.ok().and_then(|reason| reason.clone());
    match reason {
        Some(reason) => ServerError::Storage(chain(&*reason)),
        None => std::future::pending().await,
    }
}

async fn serving(health: &HealthReporter, status: ServingStatus) {
    use foldlog_proto::v1::{admin_server, event_log_server, groups_server, query_server, topics_server};
    let services = [
        "",
        event_log_server::SERVICE_NAME,
        topics_server::SERVICE_NAME,
        query_server::SERVICE_NAME,
        groups_server::SERVICE_NAME,
        admin_server::SERVICE_NAME,
    ];
    for service in services {
        health.set_service_status(service, status).await;
    }
}

async fn serve(listener: TcpListener, app: App, door: Door) {
    let served = Http2::builder()
        .accept_http1(true)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .http2_max_header_list_size(HEADER_LIST_BYTES)
        .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS))
        .http2_max_local_error_reset_streams(Some(LOCAL_RESETS))
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .serve_with_incoming_shutdown(door, accept::connections(listener, app.clone()), app.tasks.drained())
        .await;
    if let Err(error) = served {
        warn!(%error, "serving ended");
    }
}
