//! CREATE and DROP: streams and tables, declared or made by a query.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::{
    super::{
        statement::{ColumnDef, CreateAs, CreateSource, DropSource, KeyMark, Options, Statement},
        tokens::{is_word, place_of, unexpected},
        types::parse_type,
    },
    StatementParser,
};
use crate::{catalog::SourceKind, error::QueryError};

impl StatementParser<'_> {
    pub(super) fn create(&mut self) -> Result<Statement, QueryError> {
        self.parser.next_token();
        let next = self.parser.peek_token();
        if self.word("TYPE") {
            return self.create_type();
        }
        for refused in ["OR", "SOURCE", "EXTERNAL", "FUNCTION", "DATABASE", "SCHEMA", "VIEW", "INDEX", "UNBOUNDED"] {
            if is_word(&next.token, refused) {
                let hint = if refused == "VIEW" { "; use CREATE TABLE ... AS SELECT" } else { "" };
                let name = if refused == "OR" { "OR REPLACE" } else { refused };
                return Err(QueryError::Unsupported(format!("CREATE {name}{hint}")));
            }
        }
        let kind = self.kind()?;
        let if_not_exists = self.words(&["IF", "NOT", "EXISTS"])?;
        let name = self.name()?;
        let columns = if self.parser.peek_token().token == Token::LParen { Some(self.columns()?) } else { None };
        let options = if self.word("WITH") { self.options()? } else { Options::default() };
        let is_select = self.word("AS");
        match (columns, is_select) {
            (None, true) => {
                let select = self.select()?;
                if select.limit.is_some() {
                    return Err(QueryError::Invalid("a persistent query takes no LIMIT".to_owned()));
                }
                Ok(Statement::CreateAs(CreateAs { kind, name, if_not_exists, options, select }))
            }
            (Some(_), true) => Err(QueryError::Invalid(format!("columns of {name} come from its SELECT; leave the list of columns out"))),
            (Some(columns), false) => Ok(Statement::CreateSource(CreateSource { kind, name, if_not_exists, columns, options })),
            (None, false) => {
                let next = self.parser.peek_token();
                Err(unexpected("a list of columns, WITH or AS SELECT", Some(&next), next.span.start))
            }
        }
    }

    fn create_type(&mut self) -> Result<Statement, QueryError> {
        let if_not_exists = self.words(&["IF", "NOT", "EXISTS"])?;
        let name = self.name()?;
        self.expect_word("AS")?;
        let data_type = parse_type(&mut self.parser, self.dialect)?;
        Ok(Statement::CreateType { name, if_not_exists, data_type })
    }

    pub(super) fn kind(&mut self) -> Result<SourceKind, QueryError> {
        if self.word("STREAM") {
            Ok(SourceKind::Stream)
        } else if self.word("TABLE") {
            Ok(SourceKind::Table)
        } else {
            let next = self.parser.peek_token();
            Err(unexpected("STREAM or TABLE", Some(&next), next.span.start))
        }
    }

    pub(super) fn columns(&mut self) -> Result<Vec<ColumnDef>, QueryError> {
        self.expect(&Token::LParen)?;
        let mut columns = Vec::new();
        loop {
            columns.push(self.column()?);
            if !self.parser.consume_token(&Token::Comma) {
                break;
            }
        }
        self.expect(&Token::RParen)?;
        Ok(columns)
    }

    pub(super) fn column(&mut self) -> Result<ColumnDef, QueryError> {
        let place = place_of(self.parser.peek_token().span.start);
        let name = self.name()?;
        let data_type = parse_type(&mut self.parser, self.dialect)?;
        let key = if self.words(&["PRIMARY", "KEY"])? {
            Some(KeyMark::PrimaryKey)
        } else if self.word("KEY") {
            Some(KeyMark::Key)
        } else {
            None
        };
        Ok(ColumnDef { name, data_type, key, place })
    }

    pub(super) fn drop(&mut self) -> Result<Statement, QueryError> {
        self.parser.next_token();
        if self.word("TYPE") {
            let if_exists = self.words(&["IF", "EXISTS"])?;
            return Ok(Statement::DropType { name: self.name()?, if_exists });
        }
        let kind = self.kind()?;
        let if_exists = self.words(&["IF", "EXISTS"])?;
        let name = self.name()?;
        if self.word("CASCADE") {
            return Err(QueryError::Unsupported("DROP ... CASCADE; drop what depends on it first".to_owned()));
        }
        if self.words(&["DELETE", "TOPIC"])? {
            return Err(QueryError::Unsupported("DROP ... DELETE TOPIC; topics are kept".to_owned()));
        }
        Ok(Statement::Drop(DropSource { kind, name, if_exists }))
    }
}
