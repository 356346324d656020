//! `WITH (key = value, ...)`: each key known and given once, each value of the kind that its key takes.

use datafusion::sql::sqlparser::{ast, tokenizer::Token};

use super::{
    super::{
        dialect::Changelog,
        statement::Options,
        tokens::{place_of, shown, unexpected},
    },
    StatementParser,
};
use crate::{
    catalog,
    error::{Place, QueryError},
    sql::Dialect,
};

/// The keys that say something here; `topic` is also called `kafka_topic`.
const KEYS: [&str; 17] = [
    "topic",
    "kafka_topic",
    "partitions",
    "replicas",
    "retention_ms",
    "cleanup_policy",
    "format",
    "key_format",
    "value_format",
    "key_delimiter",
    "value_delimiter",
    "wrap_single_value",
    "timestamp",
    "timestamp_format",
    "changelog",
    "query_id",
    "sourced_by_connector",
];

/// Keys of ksqlDB that need what is not there, and what that is.
const REFUSED: [(&str, &str); 7] = [
    ("window_type", "the keys of windowed topics"),
    ("window_size", "the keys of windowed topics"),
    ("key_schema_id", "a registry of schemas"),
    ("value_schema_id", "a registry of schemas"),
    ("key_schema_full_name", "a registry of schemas"),
    ("value_schema_full_name", "a registry of schemas"),
    ("value_avro_schema_full_name", "a registry of schemas"),
];

impl StatementParser<'_> {
    pub(super) fn options(&mut self) -> Result<Options, QueryError> {
        self.expect(&Token::LParen)?;
        let mut options = Options::default();
        let mut seen: Vec<&str> = Vec::new();
        loop {
            let token = self.parser.next_token();
            let place = place_of(token.span.start);
            let wrong = |message: String| QueryError::Syntax { place, message };
            let written = match &token.token {
                Token::Word(word) => word.value.to_lowercase(),
                Token::SingleQuotedString(text) => text.to_lowercase(),
                _ => return Err(unexpected("a key of WITH", Some(&token), token.span.start)),
            };
            let Some(key) = KEYS.into_iter().find(|known| *known == written) else {
                if let Some((key, need)) = REFUSED.into_iter().find(|(refused, _)| *refused == written) {
                    let refused = QueryError::Unsupported(format!("{key} in WITH: there is no support for {need} yet"));
                    return Err(refused.at(|| Some(place)));
                }
                let hint = catalog::nearest(&written, KEYS.into_iter()).map(|near| format!("; did you mean {near}?"));
                let known = KEYS.join(", ");
                return Err(wrong(format!("WITH has no key {}{}; known are {known}", shown(Some(&token.token)), hint.unwrap_or_default())));
            };
            let canonical = if key == "kafka_topic" { "topic" } else { key };
            if seen.contains(&canonical) {
                return Err(wrong(format!("{key} is given twice")));
            }
            seen.push(canonical);
            options.places.insert(canonical, place);
            self.expect(&Token::Eq)?;
            let given = Given { key, text: self.option_value()?, place };
            set(&mut options, canonical, given, self.dialect)?;
            if !self.parser.consume_token(&Token::Comma) {
                break;
            }
        }
        self.expect(&Token::RParen)?;
        if let Some(format) = &options.format
            && (options.key_format.is_some() || options.value_format.is_some())
        {
            let refused = format!("format = '{format}' is that of keys and values; leave it, or key_format and value_format, out");
            return Err(QueryError::Invalid(refused).at(|| options.place("format")));
        }
        Ok(options)
    }

    /// A string, number or boolean, as text.
    fn option_value(&mut self) -> Result<String, QueryError> {
        let value = self.parser.next_token();
        match &value.token {
            Token::SingleQuotedString(text) | Token::Number(text, _) => Ok(text.clone()),
            Token::Word(word) if ["true", "false"].iter().any(|known| word.value.eq_ignore_ascii_case(known)) => {
                Ok(word.value.to_lowercase())
            }
            Token::Minus => match &self.parser.next_token().token {
                Token::Number(digits, _) => Ok(format!("-{digits}")),
                other => {
                    let message = format!("expected a number after -, found {}", shown(Some(other)));
                    Err(QueryError::Syntax { place: place_of(value.span.start), message })
                }
            },
            _ => Err(unexpected("a value in single quotes, a number, true or false", Some(&value), value.span.start)),
        }
    }
}

/// A value, and the key it was given for.
struct Given {
    key: &'static str,
    text: String,
    place: Place,
}

impl Given {
    fn wrong(&self, expected: &str) -> QueryError {
        QueryError::Syntax { place: self.place, message: format!("{} is {:?}, expected {expected}", self.key, self.text) }
    }

    fn number<T: std::str::FromStr>(&self, expected: &str) -> Result<T, QueryError> {
        self.text.parse().map_err(|_| self.wrong(expected))
    }

    fn boolean(&self) -> Result<bool, QueryError> {
        self.text.to_lowercase().parse().map_err(|_| self.wrong("true or false"))
    }
}

fn set(options: &mut Options, key: &str, given: Given, dialect: Dialect) -> Result<(), QueryError> {
    match key {
        "topic" => options.topic = Some(given.text),
        "partitions" => options.partitions = Some(given.number("a number from 1 to 1024")?),
        "replicas" => options.replicas = Some(given.number("a number")?),
        "retention_ms" => options.retention_ms = Some(given.number("a number of milliseconds, or -1 for ever")?),
        "cleanup_policy" => options.cleanup_policy = Some(given.text.to_lowercase()),
        "format" => options.format = Some(given.text.to_lowercase()),
        "key_format" => options.key_format = Some(given.text.to_lowercase()),
        "value_format" => options.value_format = Some(given.text.to_lowercase()),
        "key_delimiter" => options.key_delimiter = Some(given.text),
        "value_delimiter" => options.value_delimiter = Some(given.text),
        "wrap_single_value" => options.wrap_single_value = Some(given.boolean()?),
        "timestamp" => options.timestamp = Some(column_name(&given.text, dialect)),
        "timestamp_format" => options.timestamp_format = Some(given.text),
        "changelog" => {
            options.changelog = Some(match given.text.to_lowercase().as_str() {
                "every" => Changelog::Every,
                "coalesced" => Changelog::Coalesced,
                _ => return Err(given.wrong("'every' or 'coalesced'")),
            });
        }
        "query_id" if !is_query_id(&given.text) => return Err(given.wrong(QUERY_ID)),
        "query_id" => options.query_id = Some(given.text),
        // The last of the keys.
        _ => options.connector = Some(given.text),
    }
    Ok(())
}

/// What [`is_query_id`] wants.
pub(super) const QUERY_ID: &str = "1 to 128 letters, digits, _ and -";

/// Whether a query may be called so.
pub(super) fn is_query_id(given: &str) -> bool {
    (1..=128).contains(&given.len()) && given.chars().all(|one| one.is_ascii_alphanumeric() || "_-".contains(one))
}

/// The column that a text names: folded, unless it stands in quotes of its own.
fn column_name(text: &str, dialect: Dialect) -> String {
    for quote in ['"', '`'] {
        if let Some(inside) = text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return inside.to_owned();
        }
    }
    dialect.name(&ast::Ident::new(text))
}
