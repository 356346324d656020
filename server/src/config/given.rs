//! What was given, by whom: flags, environment, file. As text, with the place of each value; what is no setting is refused here.
//!
//! Called by the verbs that start a server, and by [`super::Config::resolve`], which says what the text means.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    io::Read as _,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use toml::de::{DeTable, DeValue};

use super::{ENV_PREFIX, SETTINGS, env_name, fields, keys, number};

/// Variables with that prefix that others than the server read.
const NOT_FOR_THE_SERVER: [&str; 2] = ["FOLDLOG_URL", "FOLDLOG_CONFIG"];
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
    pub(super) faults: Vec<String>,
}

impl Given {
    /// Adds a flag, if it was given.
    pub fn flag(&mut self, key: &'static str, flag: &'static str, value: Option<String>) {
        if let Some(value) = value {
            self.add(key, value, Origin::Flag(flag));
        }
    }

    /// Adds the environment. A variable that begins like ours and is none is a fault, unless an orchestrator made it up
    /// ([`is_service_link`]).
    pub fn environment(&mut self, variables: impl Iterator<Item = (OsString, OsString)>) {
        let keys = keys();
        for (name, value) in variables {
            // What is no text cannot begin like ours and be meant for us.
            let Ok(name) = name.into_string() else { continue };
            let Some(rest) = name.strip_prefix(ENV_PREFIX) else { continue };
            match (keys.iter().find(|key| env_name(key) == name), value.into_string()) {
                (Some(key), Ok(value)) => self.add(key, value, Origin::Env(name)),
                (Some(_), Err(_)) => self.faults.push(format!("environment variable {name} is not UTF-8")),
                (None, _) if NOT_FOR_THE_SERVER.contains(&name.as_str()) => {}
                (None, Ok(value)) if is_service_link(rest, &value) => {}
                (None, _) => {
                    let hint = nearest(&keys, &rest.to_lowercase(), |key| key.replace('.', "_"));
                    let hint = hint.map(|key| format!("; did you mean {}?", env_name(key))).unwrap_or_default();
                    self.faults.push(format!("environment variable {name} is no setting of foldlog{hint}"));
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

    /// Adds what the environment and the file say: the one that is named, or else the default one if it is there.
    pub fn surroundings(&mut self, file: Option<&Path>) {
        self.environment(std::env::vars_os());
        match file {
            Some(path) => self.file(path, true),
            None => self.file(super::DEFAULT_FILE.as_ref(), false),
        }
    }

    fn add(&mut self, key: &str, value: String, origin: Origin) {
        self.values.entry(key.to_owned()).or_insert((value, origin));
    }

    /// The settings of a part that has a type of its own: numbers, over the part's defaults.
    pub(super) fn section<T: Default + Serialize + DeserializeOwned>(
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

    pub(super) fn take<T>(&mut self, key: &'static str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let setting = SETTINGS.iter().find(|setting| setting.key == key)?;
        let (value, origin) = self.values.remove(key).unwrap_or_else(|| (setting.default.to_owned(), Origin::Default));
        let parsed = parse(&value);
        if parsed.is_none() {
            self.faults.push(format!("{origin}: {key} cannot be {value:?}: {}", setting.doc));
        }
        parsed
    }
}

fn nearest<'a>(keys: &'a [String], given: &str, shown: impl Fn(&str) -> String) -> Option<&'a str> {
    let scored = keys.iter().map(|key| (strsim::jaro_winkler(given, &shown(key)), key.as_str()));
    scored.filter(|(score, _)| *score > 0.8).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, key)| key)
}

/// Whether Kubernetes sets such a variable (without our prefix) for a service named `foldlog` or `foldlog-x`: `[X_]SERVICE_HOST`,
/// `[X_]SERVICE_PORT[_NAME]`, and `[X_]PORT[_7070_TCP[_PROTO|_PORT|_ADDR]]`. A bare `PORT` is one only with a URL as its value:
/// otherwise somebody meant `listen`.
fn is_service_link(rest: &str, value: &str) -> bool {
    let shape = format!("_{rest}");
    if shape.ends_with("_SERVICE_HOST") || shape.ends_with("_SERVICE_PORT") || shape.contains("_SERVICE_PORT_") {
        return true;
    }
    if shape.ends_with("_PORT") && value.contains("://") {
        return true;
    }
    let protocol = shape.split_once("_PORT_").and_then(|(_, place)| place.split_once('_')).filter(|(port, _)| port.parse::<u16>().is_ok());
    protocol.is_some_and(|(_, rest)| ["TCP", "UDP", "SCTP"].iter().any(|name| rest.starts_with(name)))
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

#[cfg(test)]
mod tests {
    use super::{super::Config, *};

    fn from_environment(variables: &[(&str, &str)]) -> Given {
        let mut given = Given::default();
        given.environment(variables.iter().map(|(name, value)| (name.into(), value.into())));
        given
    }

    #[test]
    fn a_strange_variable_is_refused_with_a_suggestion() {
        let variables = [("FOLDLOG_LISTN", "x"), ("FOLDLOG_PORT", "7070"), ("FOLDLOG_URL", "http://x"), ("OTHER_LISTN", "x")];
        let faults = Config::resolve(from_environment(&variables)).unwrap_err().0;
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert_eq!(faults[0], "environment variable FOLDLOG_LISTN is no setting of foldlog; did you mean FOLDLOG_LISTEN?");
        assert!(faults[1].starts_with("environment variable FOLDLOG_PORT is no setting of foldlog"), "{faults:?}");
    }

    #[test]
    fn what_an_orchestrator_sets_after_a_service_of_our_name_is_passed_over() {
        let variables = [
            ("FOLDLOG_SERVICE_HOST", "10.0.0.1"),
            ("FOLDLOG_SERVICE_PORT", "7070"),
            ("FOLDLOG_SERVICE_PORT_GRPC", "7070"),
            ("FOLDLOG_PORT", "tcp://10.0.0.1:7070"),
            ("FOLDLOG_PORT_7070_TCP", "tcp://10.0.0.1:7070"),
            ("FOLDLOG_PORT_7070_TCP_PROTO", "tcp"),
            ("FOLDLOG_PORT_7070_TCP_PORT", "7070"),
            ("FOLDLOG_PORT_7070_TCP_ADDR", "10.0.0.1"),
            ("FOLDLOG_EU_SERVICE_HOST", "10.0.0.1"),
            ("FOLDLOG_EU_PORT_7070_TCP", "tcp://10.0.0.1:7070"),
        ];
        let config = Config::resolve(from_environment(&variables)).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:7070", "none of them is a setting");
    }
}
