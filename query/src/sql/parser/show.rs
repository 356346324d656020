//! SHOW and EXPLAIN: what there is, and what a statement would do.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::{
    super::{
        statement::{Explained, Show, Statement},
        tokens::{is_word, shown, unexpected},
    },
    REFUSED, STATEMENTS, StatementParser,
};
use crate::error::QueryError;

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
        let next = self.parser.peek_token();
        Err(unexpected("STREAMS, TABLES, QUERIES, [ALL] TOPICS, TYPES, PROPERTIES, VARIABLES or FUNCTIONS", Some(&next), next.span.start))
    }

    fn perhaps_extended(&mut self, show: Show) -> Statement {
        let can_be = matches!(show, Show::Streams | Show::Tables | Show::Queries | Show::Topics | Show::AllTopics);
        if can_be && self.word("EXTENDED") { Statement::ShowExtended(show) } else { Statement::Show(show) }
    }

    /// `DESCRIBE name [EXTENDED]` or `DESCRIBE FUNCTION name`. A source may be called `function`, too.
    pub(super) fn describe(&mut self) -> Result<Statement, QueryError> {
        self.parser.next_token();
        let of_function = match &self.parser.peek_nth_token(1).token {
            behind @ Token::Word(_) => is_word(&self.parser.peek_token_ref().token, "FUNCTION") && !is_word(behind, "EXTENDED"),
            _ => false,
        };
        if of_function {
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
