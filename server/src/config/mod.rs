//! The server's configuration: flags over environment over file over defaults, all faults reported at once.
//!
//! Every setting is one line of [`SETTINGS`]; a file, the environment (`FOLDLOG_` and the key in capitals, dots as `_`) and the
//! flags give it as text, and [`Config::resolve`] alone decides what that text means.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{self, PathBuf},
    time::Duration,
};

use foldlog_log::LogConfig;
use foldlog_query::QueryConfig;
use serde::Serialize;
use serde_json::{Map, Value};

mod given;

pub use given::{Faults, Given, Origin};

/// What the server runs on.
#[derive(Clone, Debug)]
pub struct Config {
    /// The data folder.
    pub data: PathBuf,
    /// Where gRPC and HTTP are served.
    pub listen: SocketAddr,
    /// Longest time for requests to end after a stop was asked for.
    pub drain: Duration,
    /// Threads that serve connections; file reads, folding and plans have their own.
    pub io_threads: usize,
    /// How much is told on stderr.
    pub log_level: LogLevel,
    /// How it is told.
    pub log_format: LogFormat,
    /// Limits of every door.
    pub limits: Limits,
    /// How the log is kept.
    pub log: LogConfig,
    /// What the query engine runs on.
    pub query: QueryConfig,
}

/// Limits on what clients may ask for.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Most bytes of one event. Fixed: what one server takes every other must take too, unless it is told to keep a smaller journal.
    pub event_bytes: usize,
    /// Most bytes of the events of one append. Fixed in the same way.
    pub append_bytes: usize,
    /// Most events of one append. Fixed.
    pub append_events: usize,
    /// Most bytes of one gRPC message, in both directions. Fixed.
    pub message_bytes: usize,
    /// Most connections.
    pub connections: usize,
    /// Most connections from one address other than loopback.
    pub connections_per_address: usize,
    /// Most requests being answered at once; streams count until they begin.
    pub requests: usize,
    /// Most reads, subscriptions, push queries and members of consumer groups open at once.
    pub streams: usize,
    /// Most append sessions open at once.
    pub sessions: usize,
    /// Most bytes that a session may have sent and not seen answered.
    pub session_bytes: usize,
    /// Longest time that a streaming reader may take nothing of what is there for it.
    pub idle_reader: Duration,
    /// Folder of this machine under which clients may have backups written; none: nowhere.
    pub backups: Option<PathBuf>,
    /// Longest time for a connection's first bytes to arrive. Fixed.
    pub arrival: Duration,
    /// Longest time for a request's message to arrive. Fixed: 8 MiB in it need 2 Mbit/s.
    pub message_arrival: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            event_bytes: 1 << 20,
            append_bytes: 4 << 20,
            append_events: 10_000,
            message_bytes: 8 << 20,
            connections: 10_000,
            connections_per_address: 500,
            requests: 8_192,
            streams: 10_000,
            sessions: 128,
            session_bytes: 1 << 20,
            idle_reader: Duration::from_secs(60),
            backups: None,
            arrival: Duration::from_secs(10),
            message_arrival: Duration::from_secs(30),
        }
    }
}

/// How much is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Someone must look.
    Error,
    /// Odd, and we went on.
    Warn,
    /// Changes of state.
    Info,
    /// Every request.
    Debug,
    /// Every batch.
    Trace,
}

/// How it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// One setting: its key in the file, its default as text, and what it is.
struct Setting {
    /// Key in the file; in the environment `FOLDLOG_` and this in capitals, dots as `_`.
    key: &'static str,
    /// Default, as one would write it.
    default: &'static str,
    /// Unit, bounds and why that default.
    doc: &'static str,
}

/// Every setting of the server itself; those of the log and of the query engine follow from their own types.
const SETTINGS: &[Setting] = &[
    Setting { key: "data", default: "foldlog-data", doc: "folder of the log; made if it does not exist" },
    Setting { key: "listen", default: "127.0.0.1:7070", doc: "address and port of gRPC and HTTP; port 0 takes a free one" },
    Setting {
        key: "insecure_public",
        default: "false",
        doc: "listen on more than loopback although there is neither TLS nor authentication yet",
    },
    Setting {
        key: "backups",
        default: "none",
        doc: "none or a folder of this machine: `foldlog backup` writes below it and nowhere else, for whoever may call is no more trusted than that",
    },
    Setting { key: "drain", default: "10s", doc: "0s to 10m: time for requests to end when the server stops" },
    Setting { key: "io_threads", default: "auto", doc: "auto or 1 to 1024: threads that serve connections; auto is one a core" },
    Setting { key: "log_level", default: "info", doc: "error, warn, info, debug or trace" },
    Setting { key: "log_format", default: "text", doc: "text or json" },
    Setting { key: "limits.connections", default: "10000", doc: "1 to 100000 connections" },
    Setting { key: "limits.connections_per_address", default: "500", doc: "1 to 100000 connections from one address; loopback is free" },
    Setting { key: "limits.requests", default: "8192", doc: "1 to 100000 requests being answered at once; the rest is refused fast" },
    Setting {
        key: "limits.streams",
        default: "10000",
        doc: "1 to 100000 reads, subscriptions, push queries and group members open at once",
    },
    Setting { key: "limits.sessions", default: "128", doc: "1 to 100000 append sessions open at once" },
    Setting { key: "limits.session_bytes", default: "1MiB", doc: "64KiB to 8MiB that a session may have sent and not seen answered" },
    Setting { key: "limits.idle_reader", default: "60s", doc: "1s to 1h: a streaming reader that takes nothing for so long is ended" },
];

/// Prefix of environment variables.
pub const ENV_PREFIX: &str = "FOLDLOG_";
/// File that is read if it exists and none is named.
pub const DEFAULT_FILE: &str = "foldlog.toml";

impl Config {
    /// Decides what was meant.
    ///
    /// # Errors
    /// Every fault, each with its origin, key and allowed range.
    pub fn resolve(mut given: Given) -> Result<Self, Faults> {
        let data = given.take("data", |text| (!text.is_empty()).then(|| PathBuf::from(text)));
        let listen = given.take("listen", address);
        let public = given.take("insecure_public", boolean);
        let backups = given.take("backups", folder_or_none);
        let drain = given.take("drain", |text| duration(text, 0, 600));
        let io_threads = given.take("io_threads", |text| match text {
            "auto" => Some(all_cores()),
            _ => count(text).filter(|threads| *threads <= 1_024),
        });
        let log_level = given.take("log_level", LogLevel::parse);
        let log_format = given.take("log_format", LogFormat::parse);
        let connections = given.take("limits.connections", count);
        let per_address = given.take("limits.connections_per_address", count);
        let requests = given.take("limits.requests", count);
        let streams = given.take("limits.streams", count);
        let sessions = given.take("limits.sessions", count);
        let session_bytes = given.take("limits.session_bytes", |text| {
            number(text).filter(|bytes| (64 << 10..=8 << 20).contains(bytes)).and_then(|bytes| usize::try_from(bytes).ok())
        });
        let idle_reader = given.take("limits.idle_reader", |text| duration(text, 1, 3600));
        if let (Some(listen), Some(false)) = (listen, public)
            && !listen.ip().is_loopback()
        {
            given.faults.push(format!(
                "listen = {listen} would be reachable by others, and there is neither TLS nor authentication yet: \
                 listen on 127.0.0.1, or say --insecure-public"
            ));
        }
        let log = given.section("log", LogConfig::validate);
        let query = given.section("query", QueryConfig::validate);
        let fixed = Limits::default();
        let most = log.as_ref().map_or(usize::MAX, |log| usize::try_from(log.append_limit()).unwrap_or(usize::MAX));
        let all = (|| {
            Some(Self {
                data: data?,
                listen: listen?,
                drain: drain?,
                io_threads: io_threads?,
                log_level: log_level?,
                log_format: log_format?,
                limits: Limits {
                    event_bytes: fixed.event_bytes.min(most),
                    append_bytes: fixed.append_bytes.min(most),
                    connections: connections?,
                    connections_per_address: per_address?,
                    requests: requests?,
                    streams: streams?,
                    sessions: sessions?,
                    session_bytes: session_bytes?,
                    idle_reader: idle_reader?,
                    backups: backups?,
                    ..fixed
                },
                log: log?,
                query: query?,
            })
        })();
        match all {
            Some(config) if given.faults.is_empty() => Ok(config),
            _ => Err(Faults(given.faults)),
        }
    }

    /// The defaults over a data folder that is there for a while only, on a free port of loopback.
    #[must_use]
    pub fn local(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            drain: Duration::from_secs(10),
            io_threads: all_cores(),
            log_level: LogLevel::Info,
            log_format: LogFormat::Text,
            limits: Limits::default(),
            log: LogConfig::default().without_reserve(),
            query: QueryConfig::default(),
        }
    }
}

impl LogLevel {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "error" => Self::Error,
            "warn" => Self::Warn,
            "info" => Self::Info,
            "debug" => Self::Debug,
            "trace" => Self::Trace,
            _ => return None,
        })
    }
}

impl LogFormat {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// The text for `--help`: every setting with its default.
#[must_use]
pub fn help() -> String {
    let mut text = format!(
        "Settings come from flags, then the environment ({ENV_PREFIX}...), then a file (--config or FOLDLOG_CONFIG; \
         {DEFAULT_FILE} in the current folder if it exists), then defaults. A flag, variable or key that does not exist is refused; \
         only what Kubernetes sets after a service named foldlog (FOLDLOG_SERVICE_HOST, FOLDLOG_PORT=tcp://... and the like) is passed over.\n"
    );
    for setting in SETTINGS {
        let Setting { key, default, doc } = setting;
        // Writing to a String cannot fail.
        let _ = write!(text, "\n  {key:<32} {doc} (default {default}; {})", env_name(key));
    }
    for (name, fields) in sections() {
        for (field, default) in fields {
            let key = format!("{name}.{field}");
            let _ = write!(text, "\n  {key:<32} (default {default}; {})", env_name(&key));
        }
    }
    text
}

/// The parts with types of their own, their fields and defaults.
fn sections() -> [(&'static str, Map<String, Value>); 2] {
    [("log", fields::<LogConfig>()), ("query", fields::<QueryConfig>())]
}

fn fields<T: Default + Serialize>() -> Map<String, Value> {
    match serde_json::to_value(T::default()) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) | Err(_) => Map::new(),
    }
}

/// Every key there is.
fn keys() -> Vec<String> {
    let ours = SETTINGS.iter().map(|setting| setting.key.to_owned());
    let theirs = sections().into_iter().flat_map(|(name, fields)| fields.into_iter().map(move |(field, _)| format!("{name}.{field}")));
    ours.chain(theirs).collect()
}

fn env_name(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.replace('.', "_").to_uppercase())
}

fn all_cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn address(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port.parse().ok()?)),
        None => text.parse().ok(),
    }
}

fn folder_or_none(text: &str) -> Option<Option<PathBuf>> {
    match text {
        "none" => Some(None),
        _ => path::absolute(text).ok().map(Some),
    }
}

fn boolean(text: &str) -> Option<bool> {
    text.parse().ok()
}

fn count(text: &str) -> Option<usize> {
    text.parse().ok().filter(|count| (1..=100_000).contains(count))
}

/// A whole number, plain or of KiB, MiB or GiB.
fn number(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor: u64 = match unit {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

pub(crate) fn duration(text: &str, least_s: u64, most_s: u64) -> Option<Duration> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    let number: u64 = number.parse().ok()?;
    let duration = match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.checked_mul(60)?),
        "h" => Duration::from_secs(number.checked_mul(3600)?),
        _ => return None,
    };
    (Duration::from_secs(least_s)..=Duration::from_secs(most_s)).contains(&duration).then_some(duration)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn resolve(text: &str) -> Result<Config, Faults> {
        let mut given = Given::default();
        given.text(Path::new("foldlog.toml"), text);
        Config::resolve(given)
    }

    #[test]
    fn every_default_is_valid() {
        let config = Config::resolve(Given::default()).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:7070");
        assert_eq!(config.limits.connections, Limits::default().connections);
        assert_eq!(config.limits.idle_reader, Limits::default().idle_reader);
        assert_eq!(config.limits.requests, Limits::default().requests);
        assert_eq!(config.limits.streams, Limits::default().streams);
        assert_eq!(config.limits.connections_per_address, Limits::default().connections_per_address);
    }

    #[test]
    fn flags_win_over_environment_over_file_over_defaults() {
        let mut given = Given::default();
        given.flag("listen", "--listen", Some("127.0.0.1:1".into()));
        let variables = [("FOLDLOG_LISTEN", "127.0.0.1:2"), ("FOLDLOG_DATA", "from-env"), ("PATH", "x")];
        given.environment(variables.into_iter().map(|(name, value)| (name.into(), value.into())));
        given.text(Path::new("f"), "listen = '127.0.0.1:3'\ndata = 'from-file'\ndrain = '3s'\nlog_level = 'debug'\n");
        let config = Config::resolve(given).unwrap();
        assert_eq!((config.listen.port(), config.data, config.drain), (1, PathBuf::from("from-env"), Duration::from_secs(3)));
        assert_eq!((config.log_level, config.log_format), (LogLevel::Debug, LogFormat::Text));
    }

    #[test]
    fn all_faults_are_reported_at_once_with_file_and_line() {
        let faults = resolve("\u{feff}lisen = '127.0.0.1:1'\r\ndrain = '1 fortnight'\r\n[limits]\r\nconnections = 0\r\nstreams = 1.5\r\n");
        let faults = faults.unwrap_err().0;
        assert_eq!(faults.len(), 4, "{faults:?}");
        assert!(faults.contains(&"foldlog.toml, line 1: unknown key lisen; did you mean listen?".to_owned()), "{faults:?}");
        assert!(faults.iter().any(|f| f.starts_with("foldlog.toml, line 2: drain cannot be \"1 fortnight\": 0s to 10m")), "{faults:?}");
        assert!(
            faults.iter().any(|f| f.starts_with("foldlog.toml, line 4: limits.connections cannot be \"0\": 1 to 100000")),
            "{faults:?}"
        );
        assert!(faults.iter().any(|f| f.starts_with("foldlog.toml, line 5: limits.streams takes")), "{faults:?}");
    }

    #[test]
    fn duplicate_keys_and_broken_syntax_name_their_line() {
        let faults = resolve("data = 'a'\ndata = 'b'\n").unwrap_err().0;
        assert!(faults.iter().any(|fault| fault.starts_with("foldlog.toml, line 2: ") && fault.contains("duplicate")), "{faults:?}");
        assert!(resolve("data = \n").unwrap_err().0[0].starts_with("foldlog.toml, line 1: "));
    }

    #[test]
    fn the_parts_take_numbers_within_their_own_bounds() {
        let config = resolve("[log]\ntail_bytes = '64MiB'\n[query]\nworkers = 3\n").unwrap();
        assert_eq!((config.log.tail_bytes, config.query.workers), (64 << 20, 3));
        let faults = resolve("[log]\ntail_bites = 1\ntidy_bytes = '1GB'\n[query]\nworkers = 0\n").unwrap_err().0;
        assert!(
            faults.contains(&"foldlog.toml, line 2: unknown key log.tail_bites; did you mean log.tail_bytes?".to_owned()),
            "{faults:?}"
        );
        assert!(faults.iter().any(|fault| fault.starts_with("foldlog.toml, line 3: log.tidy_bytes cannot be \"1GB\"")), "{faults:?}");
        assert!(faults.iter().any(|fault| fault.starts_with("query.workers")), "{faults:?}");
    }

    #[test]
    fn no_append_is_promised_that_a_small_journal_does_not_take() {
        let limits = |text| resolve(text).unwrap().limits;
        assert_eq!((limits("").event_bytes, limits("").append_bytes), (1 << 20, 4 << 20));
        let small = limits("[log]\njournal_file_bytes = '8MiB'\nfirst_journal_file_bytes = '1MiB'\n");
        assert_eq!((small.event_bytes, small.append_bytes), (1 << 20, (2 << 20) - (8 << 10)));
    }

    #[test]
    fn listening_for_others_has_to_be_said() {
        let faults = resolve("listen = '0.0.0.0:7070'").unwrap_err().0;
        assert!(faults[0].contains("--insecure-public") && faults[0].contains("127.0.0.1"), "{faults:?}");
        assert!(resolve("listen = '0.0.0.0:7070'\ninsecure_public = true").is_ok());
        assert!(resolve("listen = '[::1]:7070'").is_ok());
    }

    #[test]
    fn limits_are_refused_outside_of_their_range_and_with_units_that_are_none() {
        let wrong = "[limits]\nconnections = -1\nrequests = 100001\nstreams = '1k'\nidle_reader = '0s'\n[log]\ntail_bytes = '-1'\n";
        let faults = resolve(wrong).unwrap_err().0;
        for (key, range) in [
            ("limits.connections", "1 to 100000"),
            ("limits.requests", "1 to 100000"),
            ("limits.streams", "1 to 100000"),
            ("limits.idle_reader", "1s to 1h"),
            ("log.tail_bytes", "KiB, MiB, GiB"),
        ] {
            assert!(faults.iter().any(|fault| fault.contains(key) && fault.contains(range)), "{key}: {faults:?}");
        }
    }
}
