//! `WITH (key = value, ...)`: each key known and given once.

use datafusion::sql::sqlparser::{ast, tokenizer::Token};

use super::{
    super::{
        dialect::Changelog,
        statement::Options,
        tokens::{place_of, shown, unexpected},
    },
    StatementParser,
};
use crate::{catalog, error::QueryError};

const OPTION_KEYS: [&str; 7] = ["topic", "kafka_topic", "partitions", "value_format", "key_format", "timestamp", "changelog"];

impl StatementParser<'_> {
    pub(super) fn options(&mut self) -> Result<Options, QueryError> {
        self.expect(&Token::LParen)?;
        let mut options = Options::default();
        let mut seen: Vec<String> = Vec::new();
        loop {
            let token = self.parser.next_token();
            let place = place_of(token.span.start);
            let wrong = |message: String| QueryError::Syntax { place, message };
            let key = match &token.token {
                Token::Word(word) => word.value.to_lowercase(),
                Token::SingleQuotedString(text) => text.to_lowercase(),
                _ => return Err(unexpected("a key of WITH", Some(&token), token.span.start)),
            };
            if !OPTION_KEYS.contains(&key.as_str()) {
                let hint = catalog::nearest(&key, OPTION_KEYS.into_iter()).map(|near| format!("; did you mean {near}?"));
                let known = OPTION_KEYS.join(", ");
                return Err(wrong(format!("WITH has no key {}{}; known are {known}", shown(Some(&token.token)), hint.unwrap_or_default())));
            }
            let canonical = if key == "kafka_topic" { "topic".to_owned() } else { key.clone() };
            if seen.contains(&canonical) {
                return Err(wrong(format!("{key} is given twice")));
            }
            seen.push(canonical.clone());
            self.expect(&Token::Eq)?;
            let value = self.parser.next_token();
            let text = match &value.token {
                Token::SingleQuotedString(text) | Token::Number(text, _) => text.clone(),
                _ => return Err(unexpected("a value in single quotes or a number", Some(&value), value.span.start)),
            };
            match canonical.as_str() {
                "topic" => options.topic = Some(text),
                "partitions" => {
                    let partitions =
                        text.parse().map_err(|_| wrong(format!("partitions is {text:?}, expected a number from 1 to 1024")))?;
                    options.partitions = Some(partitions);
                }
                "value_format" => options.value_format = Some(text.to_lowercase()),
                "changelog" => {
                    options.changelog = Some(match text.to_lowercase().as_str() {
                        "every" => Changelog::Every,
                        "coalesced" => Changelog::Coalesced,
                        _ => return Err(wrong(format!("changelog is {text:?}, expected 'every' or 'coalesced'"))),
                    });
                }
                "key_format" => options.key_format = Some(text.to_lowercase()),
                _ => options.timestamp = Some(self.dialect.name(&ast::Ident::new(text))),
            }
            if !self.parser.consume_token(&Token::Comma) {
                break;
            }
        }
        self.expect(&Token::RParen)?;
        Ok(options)
    }
}
