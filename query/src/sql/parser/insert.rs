//! INSERT INTO and DELETE FROM.

use datafusion::sql::sqlparser::{ast::Expr, parser::Parser, tokenizer::Token};

use super::{
    super::{
        statement::{Delete, InsertSelect, InsertValues, Named, Statement},
        tokens::{is_word, place_of, syntax, unexpected},
    },
    StatementParser,
    options::{QUERY_ID, is_query_id},
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
        let query_id = if self.word("WITH") { Some(self.query_id()?) } else { None };
        let columns = self.names()?;
        if is_word(&self.parser.peek_token().token, "SELECT") {
            if !columns.is_empty() {
                let message = "the columns of INSERT INTO ... SELECT come from its SELECT list; leave the list of columns out".to_owned();
                return Err(QueryError::Invalid(message).at(|| columns.first().map(|column| column.place)));
            }
            let select = self.select()?;
            if select.limit.is_some() {
                return Err(QueryError::Invalid("a persistent query takes no LIMIT".to_owned()));
            }
            return Ok(Statement::InsertSelect(InsertSelect { name, query_id, select }));
        }
        if query_id.is_some() {
            let next = self.parser.peek_token();
            return Err(unexpected("SELECT after WITH (query_id = ...)", Some(&next), next.span.start));
        }
        self.expect_word("VALUES")?;
        Ok(Statement::InsertValues(InsertValues { name, columns, rows: self.rows()? }))
    }

    /// `(name, ...)`, if it stands there.
    pub(super) fn names(&mut self) -> Result<Vec<Named>, QueryError> {
        let mut names = Vec::new();
        if self.parser.consume_token(&Token::LParen) {
            loop {
                let place = self.place();
                names.push(Named { name: self.name()?, place });
                if !self.parser.consume_token(&Token::Comma) {
                    break;
                }
            }
            self.expect(&Token::RParen)?;
        }
        Ok(names)
    }

    /// `(value, ...), ...`.
    pub(super) fn rows(&mut self) -> Result<Vec<Vec<Expr>>, QueryError> {
        let mut rows = Vec::new();
        loop {
            self.expect(&Token::LParen)?;
            let at = place_of(self.parser.peek_token().span.start);
            let row = self.parser.parse_comma_separated(Parser::parse_expr).map_err(|error| syntax(&error, at))?;
            self.expect(&Token::RParen)?;
            rows.push(row);
            if !self.parser.consume_token(&Token::Comma) {
                return Ok(rows);
            }
        }
    }

    /// `(query_id = 'name')`.
    fn query_id(&mut self) -> Result<String, QueryError> {
        self.expect(&Token::LParen)?;
        self.expect_word("QUERY_ID")?;
        self.expect(&Token::Eq)?;
        let value = self.parser.next_token();
        let given = match value.token {
            Token::SingleQuotedString(text) => text,
            _ => return Err(unexpected("the id of the query in single quotes", Some(&value), value.span.start)),
        };
        if !is_query_id(&given) {
            let message = format!("the id of a query has {QUERY_ID}");
            return Err(QueryError::Syntax { place: place_of(value.span.start), message });
        }
        self.expect(&Token::RParen)?;
        Ok(given)
    }
}
