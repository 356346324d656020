//! ASSERT: TOPIC for scripts and migrations; VALUES, STREAM and TABLE for files of tests.

use std::time::Duration;

use datafusion::sql::sqlparser::tokenizer::Token;

use super::{
    super::{
        statement::{AssertRows, AssertSource, AssertTopic, Statement},
        tokens::{is_word, unexpected},
    },
    StatementParser,
};
use crate::error::QueryError;

impl StatementParser<'_> {
    /// `ASSERT [NOT EXISTS] TOPIC name [WITH (partitions = n, replicas = n)] [TIMEOUT n unit]`.
    pub(super) fn assert(&mut self) -> Result<Statement, QueryError> {
        self.parser.next_token();
        let exists = !self.words(&["NOT", "EXISTS"])?;
        let next = self.parser.peek_token();
        if is_word(&next.token, "SCHEMA") {
            return Err(QueryError::Unsupported("ASSERT SCHEMA: there is no registry of schemas".to_owned()));
        }
        if exists {
            if self.word("VALUES") {
                return self.assert_rows(false);
            }
            if self.words(&["NULL", "VALUES"])? {
                return self.assert_rows(true);
            }
            if is_word(&next.token, "STREAM") || is_word(&next.token, "TABLE") {
                return self.assert_source();
            }
        }
        if !is_word(&next.token, "TOPIC") {
            return Err(unexpected("TOPIC, VALUES, NULL VALUES, STREAM or TABLE", Some(&next), next.span.start));
        }
        self.expect_word("TOPIC")?;
        let name = self.topic_name()?;
        let options = if self.word("WITH") { self.options()? } else { Default::default() };
        if let Some((_, place)) = options.places.iter().find(|(key, _)| !["partitions", "replicas"].contains(key)) {
            let refused = QueryError::Invalid("WITH of ASSERT TOPIC takes partitions and replicas alone".to_owned());
            return Err(refused.at(|| Some(*place)));
        }
        let timeout = if self.word("TIMEOUT") { self.duration()? } else { Duration::from_secs(1) };
        let (partitions, replicas) = (options.partitions, options.replicas);
        Ok(Statement::AssertTopic(AssertTopic { name, exists, partitions, replicas, timeout }))
    }

    /// `name [(columns)] VALUES (...), ...`, or with KEY for records without a value.
    fn assert_rows(&mut self, is_null: bool) -> Result<Statement, QueryError> {
        let name = self.name()?;
        let columns = self.names()?;
        // The word of ksqlDB is KEY; VALUES says it as well.
        if !(is_null && self.word("KEY")) {
            self.expect_word("VALUES")?;
        }
        Ok(Statement::AssertRows(AssertRows { name, columns, rows: self.rows()?, is_null }))
    }

    /// `STREAM | TABLE name [(columns)] [WITH (...)]`.
    fn assert_source(&mut self) -> Result<Statement, QueryError> {
        let kind = self.kind()?;
        let name = self.name()?;
        let columns = if self.parser.peek_token_ref().token == Token::LParen { Some(self.columns()?) } else { None };
        let options = if self.word("WITH") { self.options()? } else { Default::default() };
        Ok(Statement::AssertSource(AssertSource { kind, name, columns, options }))
    }

    /// The name of a topic: in quotes, or as it is written, for names of topics keep their case.
    pub(super) fn topic_name(&mut self) -> Result<String, QueryError> {
        match &self.parser.peek_token().token {
            Token::SingleQuotedString(text) => {
                self.parser.next_token();
                Ok(text.clone())
            }
            _ => self.name(),
        }
    }

    /// `10 SECONDS`.
    fn duration(&mut self) -> Result<Duration, QueryError> {
        let number = self.parser.next_token();
        let count: Option<u64> = match &number.token {
            Token::Number(digits, _) => digits.parse().ok(),
            _ => None,
        };
        let count = count.ok_or_else(|| unexpected("a number", Some(&number), number.span.start))?;
        let unit = self.parser.next_token();
        let ms = [("MILLISECOND", 1), ("SECOND", 1_000), ("MINUTE", 60_000), ("HOUR", 3_600_000), ("DAY", 86_400_000)];
        let ms = ms.into_iter().find(|(name, _)| is_word(&unit.token, name) || is_word(&unit.token, &format!("{name}S")));
        let (_, ms) = ms.ok_or_else(|| unexpected("MILLISECONDS, SECONDS, MINUTES, HOURS or DAYS", Some(&unit), unit.span.start))?;
        Ok(Duration::from_millis(count.saturating_mul(ms)))
    }
}
