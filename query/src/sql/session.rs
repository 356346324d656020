//! What a client's session carries from statement to statement: settings (SET) and variables (DEFINE).
//!
//! The client keeps it and sends it along with every request; the engine holds no session. `engine` reads the settings,
//! `sql/parser` gets the text in which [`Session::substitute`] has put the variables.

use std::{borrow::Cow, collections::BTreeMap};

use super::dialect::{CollectLimits, Dialect, DialectKind, Start};
use crate::{catalog::nearest, error::QueryError};

/// Most settings and most variables of a session.
const MOST: usize = 256;
/// Longest value of a setting or variable, in bytes.
const MAX_VALUE: usize = 4 << 10;

/// Settings and variables of one client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    settings: BTreeMap<String, String>,
    variables: BTreeMap<String, String>,
}

/// What a statement changes of the session of the client who sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionChange {
    /// `SET 'name' = 'value'`.
    Set {
        /// Name of the setting.
        name: String,
        /// Its value.
        value: String,
    },
    /// `UNSET 'name'`.
    Unset {
        /// Name of the setting.
        name: String,
    },
    /// `DEFINE name = 'value'`.
    Define {
        /// Name of the variable.
        name: String,
        /// Its value.
        value: String,
    },
    /// `UNDEFINE name`.
    Undefine {
        /// Name of the variable.
        name: String,
    },
}

/// A setting that a session may change.
#[derive(Debug)]
pub struct Setting {
    /// Name.
    pub name: &'static str,
    /// Which values it takes.
    pub takes: Takes,
    /// What holds if it is not set.
    pub default: &'static str,
    /// What it does, in a sentence.
    pub about: &'static str,
}

/// Which values a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// One of these, whatever their case.
    OneOf(&'static [&'static str]),
    /// `true` or `false`.
    Boolean,
    /// A whole number of 0 or more.
    Number,
    /// Any text.
    Text,
}

/// Every setting that does something.
pub const SETTINGS: [Setting; 9] = [
    Setting {
        name: "sql.dialect",
        takes: Takes::OneOf(&["standard", "ksql"]),
        default: "standard",
        about: "the rules by which statements are read",
    },
    Setting {
        name: AUTO_OFFSET_RESET,
        takes: Takes::OneOf(&["earliest", "latest"]),
        default: "earliest (standard), latest (ksql)",
        about: "where a query that does not end starts",
    },
    Setting {
        name: DEFAULT_KEY_FORMAT,
        takes: Takes::Text,
        default: "kafka",
        about: "the key format of a stream or table whose WITH names none",
    },
    Setting {
        name: DEFAULT_VALUE_FORMAT,
        takes: Takes::Text,
        default: "json (standard), none (ksql)",
        about: "the value format of a stream or table whose WITH names none",
    },
    Setting {
        name: WRAP_SINGLE_VALUES,
        takes: Takes::Boolean,
        default: "true",
        about: "whether a single value column is written as an object with one field, if WITH does not say",
    },
    Setting {
        name: OUTPUT_TOPIC_PREFIX,
        takes: Takes::Text,
        default: "",
        about: "begins the name of a topic that a query writes, if WITH does not name it",
    },
    Setting {
        name: COLLECT_LIST_LIMIT,
        takes: Takes::Number,
        default: "1000",
        about: "how many values COLLECT_LIST of a query that is made shows, unless the server's query.collect_list_limit says otherwise",
    },
    Setting {
        name: COLLECT_SET_LIMIT,
        takes: Takes::Number,
        default: "1000",
        about: "how many values COLLECT_SET of a query that is made shows, unless the server's query.collect_set_limit says otherwise",
    },
    Setting {
        name: "ksql.variable.substitution.enable",
        takes: Takes::Boolean,
        default: "true",
        about: "whether ${name} in a statement becomes the variable's value",
    },
];

/// Where a query that does not end starts.
pub const AUTO_OFFSET_RESET: &str = "auto.offset.reset";
/// The key format where WITH names none.
pub const DEFAULT_KEY_FORMAT: &str = "ksql.persistence.default.format.key";
/// The value format where WITH names none.
pub const DEFAULT_VALUE_FORMAT: &str = "ksql.persistence.default.format.value";
/// Whether a single value column is wrapped where WITH does not say.
pub const WRAP_SINGLE_VALUES: &str = "ksql.persistence.wrap.single.values";
/// How many values COLLECT_LIST shows.
pub const COLLECT_LIST_LIMIT: &str = "ksql.functions.collect_list.limit";
/// How many values COLLECT_SET shows.
pub const COLLECT_SET_LIMIT: &str = "ksql.functions.collect_set.limit";
/// What begins the name of a query's topic.
pub const OUTPUT_TOPIC_PREFIX: &str = "ksql.output.topic.name.prefix";

/// Beginnings of names that scripts for ksqlDB set, and that mean nothing here.
const FOREIGN: [&str; 3] = ["ksql.", "cache.max.bytes.buffering", "processing.guarantee"];
/// What may stand before a setting that Kafka Streams knows, too.
const STREAMS_PREFIX: &str = "ksql.streams.";

impl Setting {
    /// The value as it is kept, or why it is none.
    fn checked(&self, value: &str) -> Result<String, QueryError> {
        let expected = match self.takes {
            Takes::Text => return Ok(value.to_owned()),
            Takes::OneOf(values) => match values.iter().find(|one| one.eq_ignore_ascii_case(value)) {
                Some(one) => return Ok((*one).to_owned()),
                None => values.join(" or "),
            },
            Takes::Boolean => match value.parse::<bool>() {
                Ok(given) => return Ok(given.to_string()),
                Err(_) => "true or false".to_owned(),
            },
            Takes::Number => match value.parse::<u64>() {
                Ok(given) => return Ok(given.to_string()),
                Err(_) => "a whole number".to_owned(),
            },
        };
        Err(QueryError::Invalid(format!("{} takes {expected}, not '{value}'", self.name)))
    }
}

impl Session {
    /// A session without variables whose statements have the rules of a dialect.
    #[must_use]
    pub fn of(dialect: DialectKind) -> Self {
        Self { settings: BTreeMap::from([("sql.dialect".to_owned(), dialect.as_str().to_owned())]), variables: BTreeMap::new() }
    }

    /// Applies what a statement changed.
    ///
    /// # Errors
    /// [`QueryError::Unknown`] for a setting or variable that there is none, [`QueryError::Invalid`] for a value it does not take.
    pub fn apply(&mut self, change: SessionChange) -> Result<(), QueryError> {
        match change {
            SessionChange::Set { name, value } => {
                bounded("setting", &name, &value, &self.settings)?;
                let value = match setting(&name)? {
                    Some(setting) => setting.checked(&value)?,
                    None => value,
                };
                self.settings.insert(canonical(&name).to_owned(), value);
            }
            SessionChange::Unset { name } => {
                setting(&name)?;
                self.settings.remove(canonical(&name));
            }
            SessionChange::Define { name, value } => {
                check_variable(&name)?;
                bounded("variable", &name, &value, &self.variables)?;
                self.variables.insert(name.to_lowercase(), value);
            }
            SessionChange::Undefine { name } => {
                if self.variables.remove(&name.to_lowercase()).is_none() {
                    return Err(self.unknown_variable(&name));
                }
            }
        }
        Ok(())
    }

    /// The value of a setting, if the session has one.
    #[must_use]
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }

    /// Whether a setting of `true` or `false` is on.
    #[must_use]
    pub fn is_on(&self, name: &str, default: bool) -> bool {
        self.setting(name).map_or(default, |value| value == "true")
    }

    /// All settings of the session, by name.
    pub fn settings(&self) -> impl Iterator<Item = (&str, &str)> {
        self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// All variables of the session, by name; their case means nothing.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The rules of its statements, where `default` are the server's dialect and limits.
    #[must_use]
    pub fn dialect(&self, (default, limits): (DialectKind, CollectLimits)) -> Dialect {
        let kind = self.setting("sql.dialect").and_then(|name| name.parse().ok()).unwrap_or(default);
        let mut dialect: Dialect = DialectKind::rules(kind);
        let limit = |name: &str, default: u32| {
            self.setting(name).and_then(|most| most.parse::<u64>().ok()).map_or(default, |most| u32::try_from(most).unwrap_or(u32::MAX))
        };
        dialect.collected = CollectLimits { list: limit(COLLECT_LIST_LIMIT, limits.list), set: limit(COLLECT_SET_LIMIT, limits.set) };
        match self.setting(AUTO_OFFSET_RESET) {
            Some("earliest") => dialect.start = Start::Earliest,
            Some("latest") => dialect.start = Start::Latest,
            _ => {}
        }
        dialect
    }

    /// The text with the values of variables in place of `${name}`.
    ///
    /// # Errors
    /// [`QueryError::Unknown`] for a variable that is not defined.
    pub fn substitute<'a>(&self, text: &'a str) -> Result<Cow<'a, str>, QueryError> {
        if !text.contains("${") || !self.is_on("ksql.variable.substitution.enable", true) {
            return Ok(Cow::Borrowed(text));
        }
        let mut given = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            given.push_str(before);
            let name = after.split_once('}').filter(|(name, _)| is_variable(name));
            let Some((name, after)) = name else {
                given.push_str("${");
                rest = after;
                continue;
            };
            given.push_str(self.variables.get(&name.to_lowercase()).ok_or_else(|| self.unknown_variable(name))?);
            rest = after;
        }
        given.push_str(rest);
        Ok(Cow::Owned(given))
    }

    fn unknown_variable(&self, name: &str) -> QueryError {
        let hint = nearest(name, self.variables.keys().map(String::as_str));
        QueryError::Unknown { what: "variable", name: name.to_owned(), hint, place: None }
    }
}

/// The setting of a name; none for one that means nothing here and that scripts for ksqlDB set.
fn setting(name: &str) -> Result<Option<&'static Setting>, QueryError> {
    let meant = canonical(name);
    if let Some(setting) = SETTINGS.iter().find(|setting| setting.name == meant) {
        return Ok(Some(setting));
    }
    if FOREIGN.iter().any(|foreign| name.starts_with(foreign)) {
        return Ok(None);
    }
    let hint = nearest(name, SETTINGS.iter().map(|setting| setting.name));
    Err(QueryError::Unknown { what: "setting", name: name.to_owned(), hint, place: None })
}

/// The name under which a setting is kept.
fn canonical(name: &str) -> &str {
    match name.strip_prefix(STREAMS_PREFIX) {
        Some(AUTO_OFFSET_RESET) => AUTO_OFFSET_RESET,
        _ => name,
    }
}

/// Refuses what is no name for a variable.
pub(super) fn check_variable(name: &str) -> Result<(), QueryError> {
    if is_variable(name) {
        return Ok(());
    }
    Err(QueryError::Invalid(format!("{name} is no name for a variable: it begins with a letter or _ and has letters, digits and _")))
}

fn is_variable(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && chars.all(|one| one.is_ascii_alphanumeric() || one == '_')
}

fn bounded(what: &str, name: &str, value: &str, known: &BTreeMap<String, String>) -> Result<(), QueryError> {
    if name.len() + value.len() > MAX_VALUE {
        return Err(QueryError::Invalid(format!("a {what} may have {MAX_VALUE} bytes, {} were given", name.len() + value.len())));
    }
    if known.len() >= MOST && !known.contains_key(name) {
        return Err(QueryError::ResourceExhausted(format!("a session may have {MOST} {what}s")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(session: &mut Session, name: &str, value: &str) -> Result<(), String> {
        let change = SessionChange::Set { name: name.to_owned(), value: value.to_owned() };
        session.apply(change).map_err(|error| error.to_string())
    }

    #[test]
    fn a_setting_takes_its_values_and_no_other() {
        let mut session = Session::default();
        set(&mut session, "sql.dialect", "KSQL").unwrap();
        set(&mut session, "ksql.streams.auto.offset.reset", "earliest").unwrap();
        let server = (DialectKind::Standard, CollectLimits { list: 7, set: 8 });
        set(&mut session, "ksql.functions.collect_set.limit", "3").unwrap();
        let dialect = session.dialect(server);
        assert_eq!((dialect.kind, dialect.start), (DialectKind::Ksql, Start::Earliest));
        assert_eq!(dialect.collected, CollectLimits { list: 7, set: 3 });
        assert_eq!(set(&mut session, "sql.dialect", "pg").unwrap_err(), "sql.dialect takes standard or ksql, not 'pg'");
        assert!(set(&mut session, "sql.dialct", "ksql").unwrap_err().contains("did you mean sql.dialect?"));
        set(&mut session, "ksql.streams.num.stream.threads", "4").unwrap();
        session.apply(SessionChange::Unset { name: "sql.dialect".to_owned() }).unwrap();
        assert_eq!(session.dialect(server).kind, DialectKind::Standard);
    }

    #[test]
    fn a_variable_stands_for_its_value_wherever_it_is_named() {
        let mut session = Session::default();
        let define = |session: &mut Session, name: &str, value: &str| {
            session.apply(SessionChange::Define { name: name.to_owned(), value: value.to_owned() })
        };
        define(&mut session, "topic", "orders").unwrap();
        define(&mut session, "n", "3").unwrap();
        let text = session.substitute("CREATE STREAM s_${N} (a INT) WITH (kafka_topic = '${topic}.${n}') -- $ {n} ${").unwrap();
        assert_eq!(text, "CREATE STREAM s_3 (a INT) WITH (kafka_topic = 'orders.3') -- $ {n} ${");
        assert!(session.substitute("SELECT ${topik}").unwrap_err().to_string().contains("did you mean topic?"));
        assert!(define(&mut session, "1a", "x").is_err());
        assert!(define(&mut session, "big", &"x".repeat(MAX_VALUE)).is_err());
        set(&mut session, "ksql.variable.substitution.enable", "false").unwrap();
        assert_eq!(session.substitute("${topic}").unwrap(), "${topic}");
    }
}
