//! PRINT: the records of a topic.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::{
    super::{
        statement::{Print, Statement},
        tokens::{is_word, unexpected},
    },
    StatementParser,
};
use crate::error::QueryError;

impl StatementParser<'_> {
    /// `PRINT topic [FROM BEGINNING] [INTERVAL | SAMPLE n] [LIMIT n]`.
    pub(super) fn print(&mut self) -> Result<Statement, QueryError> {
        self.parser.next_token();
        let topic = self.topic_name()?;
        let from_beginning = self.words(&["FROM", "BEGINNING"])?;
        let every = if self.word("INTERVAL") || self.word("SAMPLE") { self.count("a number of records above 0")? } else { 1 };
        let limit = if self.word("LIMIT") { Some(self.count("a number of records above 0")?) } else { None };
        let next = self.parser.peek_token();
        if !matches!(next.token, Token::EOF | Token::SemiColon) && !is_word(&next.token, "EMIT") {
            let left = match (from_beginning, every, limit) {
                (false, 1, None) => "FROM BEGINNING, INTERVAL, LIMIT or the end of the statement",
                (true, 1, None) => "INTERVAL, LIMIT or the end of the statement",
                (_, _, None) => "LIMIT or the end of the statement",
                (_, _, Some(_)) => "the end of the statement",
            };
            return Err(unexpected(left, Some(&next), next.span.start));
        }
        Ok(Statement::Print(Print { topic, from_beginning, every, limit }))
    }

    /// A whole number above 0.
    fn count(&mut self, wanted: &str) -> Result<u64, QueryError> {
        let next = self.parser.next_token();
        let count = match &next.token {
            Token::Number(digits, _) => digits.parse().ok().filter(|count| *count > 0),
            _ => None,
        };
        count.ok_or_else(|| unexpected(wanted, Some(&next), next.span.start))
    }
}
