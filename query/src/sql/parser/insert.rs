//! INSERT INTO and DELETE FROM.

use datafusion::sql::sqlparser::{parser::Parser, tokenizer::Token};

use super::{
    super::{
        statement::{Delete, InsertValues, Statement},
        tokens::{is_word, place_of, syntax},
    },
    StatementParser,
};
use crate::error::QueryError;

impl StatementParser<'_> {
    /// `DELETE FROM table WHERE ...`.
    pub(super) fn delete(&mut self) -> Result<Statement, QueryError> {
        self.parser.next_token();
        self.expect_word("FROM")?;
        let name = self.name()?;
        self.expect_word("WHERE")?;
        let at = place_of(self.parser.peek_token().span.start);
        let selection = self.parser.parse_expr().map_err(|error| syntax(&error, at))?;
        Ok(Statement::Delete(Delete { name, selection }))
    }

    pub(super) fn insert(&mut self) -> Result<Statement, QueryError> {
        self.parser.next_token();
        self.expect_word("INTO")?;
        let name = self.name()?;
        let mut columns = Vec::new();
        if self.parser.consume_token(&Token::LParen) {
            loop {
                columns.push(self.name()?);
                if !self.parser.consume_token(&Token::Comma) {
                    break;
                }
            }
            self.expect(&Token::RParen)?;
        }
        if is_word(&self.parser.peek_token().token, "SELECT") {
            return Err(QueryError::Unsupported("INSERT INTO ... SELECT; use CREATE STREAM ... AS SELECT".to_owned()));
        }
        self.expect_word("VALUES")?;
        let mut rows = Vec::new();
        loop {
            self.expect(&Token::LParen)?;
            let at = place_of(self.parser.peek_token().span.start);
            let row = self.parser.parse_comma_separated(Parser::parse_expr).map_err(|error| syntax(&error, at))?;
            self.expect(&Token::RParen)?;
            rows.push(row);
            if !self.parser.consume_token(&Token::Comma) {
                break;
            }
        }
        Ok(Statement::InsertValues(InsertValues { name, columns, rows }))
    }
}
