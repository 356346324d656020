//! SHOW and EXPLAIN: what there is, and what a statement would do.

use datafusion::sql::sqlparser::{parser::Parser, tokenizer::Token};

use super::{
    super::{
        statement::{Explained, Show, Statement},
        tokens::{is_word, shown, unexpected},
    },
    REFUSED, STATEMENTS, StatementParser,
};
use crate::{
    catalog::{SourceKind, nearest},
    error::QueryError,
};

/// The error with the nearest of the words that might have stood there.
fn near<'a>(error: QueryError, found: &Token, words: impl Iterator<Item = &'a str>) -> QueryError {
    match (error, found) {
        (QueryError::Syntax { place, message }, Token::Word(word)) => {
            let hint = nearest(&word.value.to_uppercase(), words).map(|near| format!("; did you mean {near}?"));
            QueryError::Syntax { place, message: message + &hint.unwrap_or_default() }
        }
        (error, _) => error,
    }
}

impl StatementParser<'_> {
    pub(super) fn show(&mut self) -> Result<Statement, QueryError> {
        self.parser.next_token();
        let known = [
            ("STREAMS", Show::Streams),
            ("TABLES", Show::Tables),
            ("QUERIES", Show::Queries),
            ("TOPICS", Show::Topics),
            ("TYPES", Show::Types),
            ("PROPERTIES", Show::Properties),
            ("VARIABLES", Show::Variables),
            ("FUNCTIONS", Show::Functions),
        ];
        if self.words(&["ALL", "TOPICS"])? {
            return Ok(self.perhaps_extended(Show::AllTopics));
        }
        for (word, show) in known {
            if self.word(word) {
                return Ok(self.perhaps_extended(show));
            }
        }
        self.refuse_connectors()?;
        let next = self.parser.peek_token();
        let expected = "STREAMS, TABLES, QUERIES, [ALL] TOPICS, TYPES, PROPERTIES, VARIABLES or FUNCTIONS";
        Err(near(unexpected(expected, Some(&next), next.span.start), &next.token, known.iter().map(|(word, _)| *word)))
    }

    /// `[SOURCE | SINK] CONNECTORS`, `CONNECTOR ...`: what of ksqlDB is another program's.
    pub(super) fn refuse_connectors(&mut self) -> Result<(), QueryError> {
        let ahead = |at: usize, words: &[&str]| words.iter().any(|word| is_word(&self.parser.peek_nth_token_ref(at).token, word));
        let connector = ["CONNECTOR", "CONNECTORS"];
        if ahead(0, &connector) || (ahead(0, &["SOURCE", "SINK"]) && ahead(1, &connector)) {
            return Err(QueryError::Unsupported("connectors: they are Kafka Connect's; foldlog topic import reads files".to_owned()));
        }
        Ok(())
    }

    fn perhaps_extended(&mut self, show: Show) -> Statement {
        let can_be = matches!(show, Show::Streams | Show::Tables | Show::Queries | Show::Topics | Show::AllTopics);
        if can_be && self.word("EXTENDED") { Statement::ShowExtended(show) } else { Statement::Show(show) }
    }

    /// `DESCRIBE name [EXTENDED]`, `DESCRIBE STREAMS | TABLES [EXTENDED]` or `DESCRIBE FUNCTION name`. A source may be called `function`, too.
    pub(super) fn describe(&mut self) -> Result<Statement, QueryError> {
        self.parser.next_token();
        for (word, kind, show) in [("STREAMS", SourceKind::Stream, Show::Streams), ("TABLES", SourceKind::Table, Show::Tables)] {
            if self.word(word) {
                return Ok(if self.word("EXTENDED") { Statement::ShowExtended(show) } else { Statement::DescribeAll(kind) });
            }
        }
        let is_of = |parser: &Parser<'_>, what: &str| match &parser.peek_nth_token_ref(1).token {
            behind @ Token::Word(_) => is_word(&parser.peek_token_ref().token, what) && !is_word(behind, "EXTENDED"),
            _ => false,
        };
        if is_of(&self.parser, "CONNECTOR") {
            self.refuse_connectors()?;
        }
        if is_of(&self.parser, "FUNCTION") {
            self.parser.next_token();
            return Ok(Statement::DescribeFunction { name: self.function_name()? });
        }
        Ok(Statement::Describe { name: self.name()?, extended: self.word("EXTENDED") })
    }

    /// A name that may be a word of SQL, as `replace`.
    fn function_name(&mut self) -> Result<String, QueryError> {
        let next = self.parser.next_token();
        match next.token {
            Token::Word(word) => Ok(word.value),
            _ => Err(unexpected("the name of a function", Some(&next), next.span.start)),
        }
    }

    pub(super) fn explain(&mut self) -> Result<Statement, QueryError> {
        self.parser.next_token();
        let next = self.parser.peek_token();
        if is_word(&next.token, "ANALYZE") || is_word(&next.token, "VERBOSE") {
            return Err(QueryError::Unsupported(format!("EXPLAIN {}", shown(Some(&next.token)).to_uppercase())));
        }
        if is_word(&next.token, "EXPLAIN") {
            return Err(unexpected("a statement or the id of a query", Some(&next), next.span.start));
        }
        let starts = match &next.token {
            Token::LParen => true,
            Token::Word(word) if word.quote_style.is_none() => {
                let word = word.value.to_uppercase();
                STATEMENTS.contains(&word.as_str()) || REFUSED.contains(&word.as_str())
            }
            _ => false,
        };
        if starts {
            return Ok(Statement::Explain(Explained::Statement(Box::new(self.statement()?))));
        }
        Ok(Statement::Explain(Explained::Query(self.name()?)))
    }
}
