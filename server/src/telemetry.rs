//! What the server tells about itself: lines on stderr, and numbers for `/metrics`.

use std::io::{self, IsTerminal as _};

use prometheus_client::{
    collector::Collector,
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};
use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, LogLevel};

/// Begins to write lines on stderr; only the first call in a process has an effect.
pub fn begin(level: LogLevel, format: LogFormat) {
    let ours = match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    // Libraries speak up only when something is odd, unless everything was asked for.
    let theirs = if level == LogLevel::Trace { "debug" } else { "warn" };
    let filter = if level == LogLevel::Error {
        "error".to_owned()
    } else {
        format!("{theirs},foldlog={ours},foldlog_log={ours},foldlog_query={ours},foldlog_server={ours}")
    };
    let lines = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(filter)).with_writer(io::stderr);
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    // An error means that lines are written already, which is what was wanted.
    let _already = match format {
        LogFormat::Text => lines.with_ansi(colour).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).try_init(),
    };
}

/// The reason of a refused request; a fixed set, so that no client can make up label values.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// As in `ErrorInfo`.
    pub reason: &'static str,
}

/// The numbers of the doors.
#[derive(Debug)]
pub struct Metrics {
    /// Appends that were acknowledged.
    pub appends: Counter,
    /// Events in them.
    pub appended_events: Counter,
    /// From request to answer.
    pub append_seconds: Histogram,
    /// Events sent to readers and subscribers.
    pub read_events: Counter,
    /// Statements executed.
    pub statements: Counter,
    /// Requests refused or failed.
    pub rejected: Family<Reason, Counter>,
    /// Open connections.
    pub connections: Gauge,
    /// Open reads, subscriptions, push queries and group members.
    pub streams: Gauge,
    /// Open append sessions.
    pub sessions: Gauge,
    /// 1 when requests are answered.
    pub ready: Gauge,
    registry: parking_lot::RwLock<Registry>,
}

impl Metrics {
    /// All at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("foldlog");
        let metrics = Self {
            appends: Counter::default(),
            appended_events: Counter::default(),
            append_seconds: Histogram::new(exponential_buckets(0.000_05, 2.0, 16)),
            read_events: Counter::default(),
            statements: Counter::default(),
            rejected: Family::default(),
            connections: Gauge::default(),
            streams: Gauge::default(),
            sessions: Gauge::default(),
            ready: Gauge::default(),
            registry: parking_lot::RwLock::new(Registry::default()),
        };
        registry.register("appends", "Appends acknowledged", metrics.appends.clone());
        registry.register("appended_events", "Events acknowledged", metrics.appended_events.clone());
        registry.register_with_unit("append", "From request to answer", Unit::Seconds, metrics.append_seconds.clone());
        registry.register("read_events", "Events sent to readers and subscribers", metrics.read_events.clone());
        registry.register("statements", "SQL statements executed", metrics.statements.clone());
        registry.register("rejected", "Requests refused or failed, by reason", metrics.rejected.clone());
        registry.register("connections", "Open connections", metrics.connections.clone());
        registry.register("streams", "Open reads, subscriptions, push queries and group members", metrics.streams.clone());
        registry.register("sessions", "Open append sessions", metrics.sessions.clone());
        registry.register("ready", "1 when requests are answered", metrics.ready.clone());
        *metrics.registry.write() = registry;
        metrics
    }

    /// Adds numbers that are collected when somebody asks.
    pub fn collect(&self, collector: impl Collector + 'static) {
        self.registry.write().register_collector(Box::new(collector));
    }

    /// Everything in the OpenMetrics text format.
    ///
    /// # Errors
    /// None in practice: a `String` takes every write.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry.read())?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
