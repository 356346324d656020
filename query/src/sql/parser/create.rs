//! CREATE and DROP: streams and tables, declared or made by a query.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::{
    super::{
        statement::{AlterSource, ColumnDef, ColumnMark, CreateAs, CreateSource, DropSource, Options, Statement},
        tokens::{is_word, place_of, shown, unexpected},
        types::parse_type,
    },
    StatementParser,
};
use crate::{
    catalog::{SourceKind, nearest},
    error::QueryError,
};

impl StatementParser<'_> {
    pub(super) fn create(&mut self) -> Result<Statement, QueryError> {
        self.parser.next_token();
        let next = self.parser.peek_token();
        if self.word("TYPE") {
            return self.create_type();
        }
        for refused in ["EXTERNAL", "FUNCTION", "DATABASE", "SCHEMA", "VIEW", "INDEX", "UNBOUNDED"] {
            if is_word(&next.token, refused) {
                let hint = if refused == "VIEW" { "; use CREATE TABLE ... AS SELECT" } else { "" };
                return Err(QueryError::Unsupported(format!("CREATE {refused}{hint}")));
            }
        }
        self.refuse_connectors()?;
        let or_replace = self.words(&["OR", "REPLACE"])?;
        let read_only = self.word("SOURCE");
        let kind = self.kind()?;
        let if_not_exists = self.words(&["IF", "NOT", "EXISTS"])?;
        let name = self.name()?;
        let columns = if self.parser.peek_token().token == Token::LParen { Some(self.columns()?) } else { None };
        let options = if self.word("WITH") { self.options()? } else { Options::default() };
        let is_select = self.word("AS");
        match (columns, is_select) {
            (None, true) if read_only => {
                Err(QueryError::Invalid(format!("{name} is written by its query, so it is no SOURCE; leave that word out")))
            }
            (None, true) => {
                let select = self.select()?;
                if select.limit.is_some() {
                    return Err(QueryError::Invalid("a persistent query takes no LIMIT".to_owned()));
                }
                Ok(Statement::CreateAs(CreateAs { kind, name, if_not_exists, or_replace, options, select }))
            }
            (Some(_), true) => Err(QueryError::Invalid(format!("columns of {name} come from its SELECT; leave the list of columns out"))),
            (Some(columns), false) => {
                Ok(Statement::CreateSource(CreateSource { kind, name, if_not_exists, or_replace, read_only, columns, options }))
            }
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
            let near = match &next.token {
                Token::Word(word) => nearest(&word.value.to_uppercase(), ["STREAM", "TABLE"].into_iter()),
                _ => None,
            };
            let hint = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            let message = format!("expected STREAM or TABLE, found {}{hint}", shown(Some(&next.token)));
            Err(QueryError::Syntax { place: place_of(next.span.start), message })
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
        let mark = if self.words(&["PRIMARY", "KEY"])? {
            Some(ColumnMark::PrimaryKey)
        } else if self.word("KEY") {
            Some(ColumnMark::Key)
        } else if self.word("HEADERS") {
            Some(ColumnMark::Headers)
        } else if self.word("HEADER") {
            self.expect(&Token::LParen)?;
            let name = self.text("the name of a header in quotes")?;
            self.expect(&Token::RParen)?;
            Some(ColumnMark::Header(name))
        } else {
            None
        };
        Ok(ColumnDef { name, data_type, mark, place })
    }

    pub(super) fn alter(&mut self) -> Result<Statement, QueryError> {
        self.parser.next_token();
        if is_word(&self.parser.peek_token_ref().token, "SYSTEM") {
            return Err(QueryError::Unsupported(
                "ALTER SYSTEM; the server's configuration says what holds for all (foldlog serve --help)".to_owned(),
            ));
        }
        let kind = self.kind()?;
        let name = self.name()?;
        let mut columns = Vec::new();
        loop {
            self.expect_word("ADD")?;
            self.word("COLUMN");
            columns.push(self.column()?);
            if !self.parser.consume_token(&Token::Comma) {
                return Ok(Statement::Alter(AlterSource { kind, name, columns }));
            }
        }
    }

    pub(super) fn drop(&mut self) -> Result<Statement, QueryError> {
        self.parser.next_token();
        self.refuse_connectors()?;
        if self.word("TYPE") {
            let if_exists = self.words(&["IF", "EXISTS"])?;
            return Ok(Statement::DropType { name: self.name()?, if_exists });
        }
        let kind = self.kind()?;
        let if_exists = self.words(&["IF", "EXISTS"])?;
        let name = self.name()?;
        let cascade = self.word("CASCADE");
        let delete_topic = self.words(&["DELETE", "TOPIC"])?;
        Ok(Statement::Drop(DropSource { kind, name, if_exists, cascade, delete_topic }))
    }
}
