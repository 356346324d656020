//! The server's configuration: flags over environment over file over defaults, all faults reported at once.
//!
//! Every setting is one line of [`SETTINGS`]; a file, the environment (`FOLDLOG_` and the key in capitals, dots as `_`) and the
//! flags give it as text, and [`Config::resolve`] alone decides what that text means.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    io::Read as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use foldlog_log::LogConfig;
use foldlog_query::QueryConfig;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use toml::de::{DeTable, DeValue};

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
    /// Most bytes of one event. Fixed: what one server takes every other must take too.
    pub event_bytes: usize,
    /// Most bytes of the events of one append. Fixed.
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
    /// Most reads, subscriptions and push queries open at once.
    pub streams: usize,
    /// Longest time that a streaming reader may take nothing of what is there for it.
    pub idle_reader: Duration,
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
            idle_reader: Duration::from_secs(60),
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
    Setting { key: "drain", default: "10s", doc: "0s to 10m: time for requests to end when the server stops" },
    Setting { key: "io_threads", default: "auto", doc: "auto or 1 to 1024: threads that serve connections; auto is one a core" },
    Setting { key: "log_level", default: "info", doc: "error, warn, info, debug or trace" },
    Setting { key: "log_format", default: "text", doc: "text or json" },
    Setting { key: "limits.connections", default: "10000", doc: "1 to 100000 connections" },
    Setting { key: "limits.connections_per_address", default: "500", doc: "1 to 100000 connections from one address; loopback is free" },
    Setting { key: "limits.requests", default: "8192", doc: "1 to 100000 requests being answered at once; the rest is refused fast" },
    Setting { key: "limits.streams", default: "10000", doc: "1 to 100000 reads, subscriptions and push queries open at once" },
    Setting { key: "limits.idle_reader", default: "60s", doc: "1s to 1h: a streaming reader that takes nothing for so long is ended" },
];

/// Prefix of environment variables.
pub const ENV_PREFIX: &str = "FOLDLOG_";
/// File that is read if it exists and none is named.
pub const DEFAULT_FILE: &str = "foldlog.toml";
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// On the command line, as this flag.
    Flag(&'static str),
    /// In the environment.
    Env(String),
    /// In a file, at a line (from 1).
    File(PathBuf, usize),
    /// Nowhere.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => f.write_str(flag),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::File(path, line) => write!(f, "{}, line {line}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Everything wrong with a configuration.
#[derive(Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<String>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            [one] => f.write_str(one),
            many => {
                write!(f, "{} faults in the configuration", many.len())?;
                many.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
            }
        }
    }
}

impl std::error::Error for Faults {}

/// Values as given, each with its origin; what is added first wins.
#[derive(Debug, Default)]
pub struct Given {
    values: BTreeMap<String, (String, Origin)>,
    faults: Vec<String>,
    warnings: Vec<String>,
}

impl Given {
    /// Adds a flag, if it was given.
    pub fn flag(&mut self, key: &'static str, flag: &'static str, value: Option<String>) {
        if let Some(value) = value {
            self.add(key, value, Origin::Flag(flag));
        }
    }

    /// Adds the environment. A variable that is no setting is only warned about: others than us name variables after services.
    pub fn environment(&mut self, variables: impl Iterator<Item = (String, String)>) {
        const CLIENTS: [&str; 2] = ["FOLDLOG_URL", "FOLDLOG_CONFIG"];
        let keys = keys();
        for (name, value) in variables {
            let Some(rest) = name.strip_prefix(ENV_PREFIX) else { continue };
            match keys.iter().find(|key| env_name(key) == name) {
                Some(key) => self.add(key, value, Origin::Env(name)),
                None if CLIENTS.contains(&name.as_str()) => {}
                None => {
                    let hint = nearest(&keys, &rest.to_lowercase(), |key| key.replace('.', "_"));
                    let hint = hint.map(|key| format!("; did you mean {}?", env_name(key))).unwrap_or_default();
                    self.warnings.push(format!("environment variable {name} is no setting of foldlog and is ignored{hint}"));
                }
            }
        }
    }

    /// Adds the text of a file.
    pub fn text(&mut self, path: &Path, text: &str) {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let line = |at: usize| text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1;
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let at = error.span().map_or(1, |span| line(span.start));
            self.faults.push(format!("{}, line {at}: {}", path.display(), error.message()));
        }
        self.table(path, "", table.get_ref(), &line, &keys());
    }

    fn table(&mut self, path: &Path, prefix: &str, table: &DeTable<'_>, line: &dyn Fn(usize) -> usize, keys: &[String]) {
        for (name, value) in table {
            let at = line(name.span().start);
            let key = format!("{prefix}{}", name.get_ref());
            let section = format!("{key}.");
            if let DeValue::Table(inner) = value.get_ref()
                && keys.iter().any(|key| key.starts_with(&section))
            {
                self.table(path, &section, inner, line, keys);
                continue;
            }
            if !keys.contains(&key) {
                let hint = nearest(keys, &key, ToOwned::to_owned).map(|key| format!("; did you mean {key}?")).unwrap_or_default();
                self.faults.push(format!("{}, line {at}: unknown key {key}{hint}", path.display()));
                continue;
            }
            let value = match value.get_ref() {
                DeValue::String(text) => text.to_string(),
                DeValue::Integer(number) => number.to_string(),
                DeValue::Boolean(yes) => yes.to_string(),
                DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
                    let fault = format!("{}, line {at}: {key} takes a text, a number or true/false", path.display());
                    self.faults.push(fault);
                    continue;
                }
            };
            self.add(&key, value, Origin::File(path.to_owned(), at));
        }
    }

    /// Adds the file at `path`; one that is missing is a fault only if it was named.
    pub fn file(&mut self, path: &Path, named: bool) {
        match read(path) {
            Ok(text) => self.text(path, &text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !named => {}
            Err(error) => self.faults.push(format!("failed to read the configuration file {}: {error}", path.display())),
        }
    }

    /// What was odd but no fault.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn add(&mut self, key: &str, value: String, origin: Origin) {
        self.values.entry(key.to_owned()).or_insert((value, origin));
    }

    /// The settings of a part that has a type of its own: numbers, over the part's defaults.
    fn section<T: Default + Serialize + DeserializeOwned>(
        &mut self,
        name: &str,
        validate: impl Fn(&T) -> Result<(), Vec<String>>,
    ) -> Option<T> {
        let mut fields = fields::<T>();
        for (field, value) in &mut fields {
            let Some((text, origin)) = self.values.remove(&format!("{name}.{field}")) else { continue };
            match number(&text) {
                Some(number) => *value = number.into(),
                None => self.faults.push(format!("{origin}: {name}.{field} cannot be {text:?}: a whole number, or with KiB, MiB, GiB")),
            }
        }
        match serde_json::from_value::<T>(Value::Object(fields)) {
            Ok(section) => match validate(&section) {
                Ok(()) => Some(section),
                Err(faults) => {
                    let named = |fault: String| if fault.starts_with(name) { fault } else { format!("{name}.{fault}") };
                    self.faults.extend(faults.into_iter().map(named));
                    None
                }
            },
            Err(error) => {
                self.faults.push(format!("{name}: {error}"));
                None
            }
        }
    }

    fn take<T>(&mut self, key: &'static str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let setting = SETTINGS.iter().find(|setting| setting.key == key)?;
        let (value, origin) = self.values.remove(key).unwrap_or_else(|| (setting.default.to_owned(), Origin::Default));
        let parsed = parse(&value);
        if parsed.is_none() {
            self.faults.push(format!("{origin}: {key} cannot be {value:?}: {}", setting.doc));
        }
        parsed
    }
}

impl Config {
    /// Decides what was meant.
    ///
    /// # Errors
    /// Every fault, each with its origin, key and allowed range.
    pub fn resolve(mut given: Given) -> Result<Self, Faults> {
        let data = given.take("data", |text| (!text.is_empty()).then(|| PathBuf::from(text)));
        let listen = given.take("listen", address);
        let public = given.take("insecure_public", boolean);
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
        let all = (|| {
            Some(Self {
                data: data?,
                listen: listen?,
                drain: drain?,
                io_threads: io_threads?,
                log_level: log_level?,
                log_format: log_format?,
                limits: Limits {
                    connections: connections?,
                    connections_per_address: per_address?,
                    requests: requests?,
                    streams: streams?,
                    idle_reader: idle_reader?,
                    ..Limits::default()
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

    /// The defaults over a data folder, on a free port of loopback.
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
            log: LogConfig::default(),
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
         {DEFAULT_FILE} in the current folder if it exists), then defaults:\n"
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

fn nearest<'a>(keys: &'a [String], given: &str, shown: impl Fn(&str) -> String) -> Option<&'a str> {
    let scored = keys.iter().map(|key| (strsim::jaro_winkler(given, &shown(key)), key.as_str()));
    scored.filter(|(score, _)| *score > 0.8).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, key)| key)
}

#[expect(clippy::disallowed_methods, reason = "the configuration is no part of the log, and is read once before anything runs")]
fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(std::io::Error::other("it is larger than 1 MiB"));
    }
    Ok(text)
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

fn duration(text: &str, least_s: u64, most_s: u64) -> Option<Duration> {
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
        given.environment(variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
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
    fn listening_for_others_has_to_be_said() {
        let faults = resolve("listen = '0.0.0.0:7070'").unwrap_err().0;
        assert!(faults[0].contains("--insecure-public") && faults[0].contains("127.0.0.1"), "{faults:?}");
        assert!(resolve("listen = '0.0.0.0:7070'\ninsecure_public = true").is_ok());
        assert!(resolve("listen = '[::1]:7070'").is_ok());
    }

    #[test]
    fn a_strange_variable_is_warned_about_with_a_suggestion() {
        let mut given = Given::default();
        let variables = [("FOLDLOG_LISTN", "x"), ("FOLDLOG_URL", "http://x"), ("FOLDLOG_PORT_7070_TCP", "tcp://x")];
        given.environment(variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(given.warnings().len(), 2);
        assert!(given.warnings()[0].ends_with("did you mean FOLDLOG_LISTEN?"), "{:?}", given.warnings());
        assert!(Config::resolve(given).is_ok());
    }
}
