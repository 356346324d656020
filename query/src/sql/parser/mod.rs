//! The statement parser: hand-written heads around sqlparser's queries, expressions and types.
//!
//! Called by `engine`. `EMIT CHANGES` is cut off the tokens before sqlparser sees them, for it would take EMIT for an alias.

mod assert;
mod create;
mod insert;
mod options;
mod print;
mod session;
mod show;

use datafusion::sql::sqlparser::{
    ast::{self, Expr, Value},
    dialect::GenericDialect,
    keywords::Keyword,
    parser::Parser,
    tokenizer::{Token, TokenWithSpan},
};

use super::{
    Dialect, DialectKind, guard, mistakes,
    statement::{Explained, QueryAction, Select, Statement},
    sugar,
    tokens::{
        Tail, as_written, cut_emit, cut_partition, end_of, fold, is_word, place_of, refuse_clauses, shown, syntax, tokenize, unexpected,
    },
    types::quote_types,
};
use crate::{
    catalog,
    error::{Place, QueryError},
    stack::with_stack,
};

/// Depth to which sqlparser may recurse; the guard's nesting stays well below it.
const PARSER_DEPTH: usize = 4 * guard::MAX_DEPTH;

/// Words with which a statement begins.
pub const STATEMENTS: [&str; 21] = [
    "CREATE",
    "ALTER",
    "INSERT",
    "DELETE",
    "SELECT",
    "WITH",
    "VALUES",
    "PRINT",
    "DROP",
    "SHOW",
    "LIST",
    "DESCRIBE",
    "EXPLAIN",
    "TERMINATE",
    "PAUSE",
    "RESUME",
    "ASSERT",
    "SET",
    "UNSET",
    "DEFINE",
    "UNDEFINE",
];

/// Statements of SQL or of ksqlDB that we know and refuse by name.
const REFUSED: [&str; 29] = [
    "ANALYZE",
    "ATTACH",
    "BEGIN",
    "CALL",
    "COMMIT",
    "COPY",
    "DEALLOCATE",
    "DECLARE",
    "DETACH",
    "DO",
    "EXECUTE",
    "EXPORT",
    "FETCH",
    "GRANT",
    "IMPORT",
    "INSTALL",
    "KILL",
    "LISTEN",
    "LOAD",
    "MERGE",
    "PRAGMA",
    "PREPARE",
    "RESET",
    "REVOKE",
    "ROLLBACK",
    "RUN",
    "TRUNCATE",
    "UPDATE",
    "USE",
];

/// Parses exactly one statement; a semicolon at its end is allowed.
///
/// # Errors
/// [`QueryError::Syntax`] with the place, [`QueryError::TooComplex`], [`QueryError::Unsupported`] for statements that we know and do
/// not have.
pub fn parse(text: &str, dialect: Dialect) -> Result<Statement, QueryError> {
    guard::check_text(text, guard::MAX_STATEMENT_BYTES)?;
    let tokens = tokenize(text)?;
    guard::check_tokens(&tokens)?;
    with_stack(|| parse_tokens(fold(tokens, dialect), text, dialect)).map_err(|error| mistakes::explained(as_written(error, text), text))
}

fn parse_tokens(tokens: Vec<TokenWithSpan>, text: &str, dialect: Dialect) -> Result<Statement, QueryError> {
    let (tokens, mut tail) = cut_emit(tokens, end_of(text))?;
    refuse_clauses(&tokens)?;
    mistakes::check(&tokens)?;
    let tokens = cut_partition(tokens, &mut tail);
    if let Some((_, partition)) = &mut tail.partition {
        *partition = sugar::rewrite(quote_types(std::mem::take(partition), dialect)?);
    }
    let tokens = sugar::rewrite(quote_types(tokens, dialect)?);
    let parser = Parser::new(&GenericDialect {}).with_recursion_limit(PARSER_DEPTH).with_tokens_with_locations(tokens);
    let mut statement = StatementParser { parser, dialect, tail };
    let mut parsed = statement.statement()?;
    statement.end()?;
    if dialect.kind == DialectKind::Standard {
        lower(&mut parsed);
    }
    Ok(parsed)
}

/// Takes LIMIT off a query.
///
/// # Errors
/// [`QueryError::Invalid`] if it is more than a number of rows.
pub fn take_limit(query: &mut ast::Query) -> Result<Option<u64>, QueryError> {
    match query.limit_clause.take() {
        None => Ok(None),
        Some(ast::LimitClause::LimitOffset { limit: Some(Expr::Value(value)), offset: None, limit_by }) if limit_by.is_empty() => {
            match &value.value {
                Value::Number(digits, _) => digits.parse().map(Some).map_err(|_| no_such_limit()),
                _ => Err(no_such_limit()),
            }
        }
        Some(_) => Err(no_such_limit()),
    }
}

fn no_such_limit() -> QueryError {
    QueryError::Invalid("a query that does not end takes one LIMIT with a number, and no OFFSET".to_owned())
}

/// Leaves nothing in the expressions of a statement that DataFusion's planner does not know.
fn lower(statement: &mut Statement) {
    match statement {
        Statement::CreateAs(create) => lower_select(&mut create.select),
        Statement::InsertSelect(insert) => lower_select(&mut insert.select),
        Statement::Push(select) => lower_select(select),
        Statement::Pull(query) => sugar::lower(query.as_mut()),
        Statement::Explain(Explained::Statement(explained)) => lower(explained),
        Statement::InsertValues(insert) => insert.rows.iter_mut().flatten().for_each(sugar::lower),
        Statement::AssertRows(assert) => assert.rows.iter_mut().flatten().for_each(sugar::lower),
        Statement::Delete(delete) => sugar::lower(&mut delete.selection),
        // No expression of theirs is planned.
        Statement::CreateSource(_)
        | Statement::Print(_)
        | Statement::Alter(_)
        | Statement::AssertTopic(_)
        | Statement::AssertSource(_)
        | Statement::Drop(_)
        | Statement::CreateType { .. }
        | Statement::DropType { .. }
        | Statement::Show(_)
        | Statement::ShowExtended(_)
        | Statement::Describe { .. }
        | Statement::DescribeAll(_)
        | Statement::DescribeFunction { .. }
        | Statement::Explain(_)
        | Statement::Session { .. }
        | Statement::ChangeQueries { .. } => {}
    }
}

fn lower_select(select: &mut Select) {
    sugar::lower(select.query.as_mut());
    select.partition_by.iter_mut().flatten().for_each(sugar::lower);
}

struct StatementParser<'a> {
    parser: Parser<'a>,
    dialect: Dialect,
    tail: Tail,
}

impl StatementParser<'_> {
    fn statement(&mut self) -> Result<Statement, QueryError> {
        let first = self.parser.peek_token();
        let word = match &first.token {
            Token::Word(word) if word.quote_style.is_none() => word.value.to_uppercase(),
            Token::LParen => "SELECT".to_owned(),
            _ => return Err(unexpected("a statement", Some(&first), first.span.start)),
        };
        match word.as_str() {
            "SELECT" | "WITH" | "VALUES" => self.query(),
            "CREATE" => self.create(),
            "INSERT" => self.insert(),
            "DROP" => self.drop(),
            "SHOW" | "LIST" => self.show(),
            "DESCRIBE" => self.describe(),
            "ALTER" => self.alter(),
            "DELETE" => self.delete(),
            "ASSERT" => self.assert(),
            "PRINT" => self.print(),
            "EXPLAIN" => self.explain(),
            "TERMINATE" => self.change_queries(QueryAction::Terminate),
            "PAUSE" => self.change_queries(QueryAction::Pause),
            "RESUME" => self.change_queries(QueryAction::Resume),
            "SET" | "UNSET" | "DEFINE" | "UNDEFINE" => self.session(&word),
            "UPDATE" => Err(QueryError::Unsupported("the statement UPDATE; INSERT a row with the same key, which replaces it".to_owned())),
            other if REFUSED.contains(&other) => Err(QueryError::Unsupported(format!("the statement {other}"))),
            other => {
                let hint = catalog::nearest(other, STATEMENTS.into_iter()).map(|near| format!("; did you mean {near}?"));
                let message = format!(
                    "expected a statement ({}), found {}{}",
                    STATEMENTS.join(", "),
                    shown(Some(&first.token)),
                    hint.unwrap_or_default()
                );
                Err(QueryError::Syntax { place: place_of(first.span.start), message })
            }
        }
    }

    fn change_queries(&mut self, action: QueryAction) -> Result<Statement, QueryError> {
        self.parser.next_token();
        if self.word("ALL") {
            return Ok(Statement::ChangeQueries { action, query: None });
        }
        self.word("QUERY");
        Ok(Statement::ChangeQueries { action, query: Some(self.name()?) })
    }

    /// Checks that nothing is left.
    fn end(&mut self) -> Result<(), QueryError> {
        let next = self.parser.peek_token();
        match next.token {
            Token::EOF => {}
            Token::SemiColon => {
                let message = "expected the end: one statement at a time, except in a script".to_owned();
                return Err(QueryError::Syntax { place: place_of(next.span.start), message });
            }
            _ => return Err(unexpected("the end of the statement", Some(&next), next.span.start)),
        }
        if let Some((place, _)) = self.tail.partition {
            let message = "PARTITION BY belongs to a SELECT that does not end: CREATE STREAM ... AS, or EMIT CHANGES".to_owned();
            return Err(QueryError::Syntax { place, message });
        }
        match self.tail.emit {
            Some((_, place)) => Err(QueryError::Syntax { place, message: "EMIT CHANGES belongs to a SELECT".to_owned() }),
            None => Ok(()),
        }
    }

    fn query(&mut self) -> Result<Statement, QueryError> {
        if self.tail.emit.is_some() {
            return Ok(Statement::Push(self.select()?));
        }
        Ok(Statement::Pull(self.bare_query()?))
    }

    fn bare_query(&mut self) -> Result<Box<ast::Query>, QueryError> {
        let at = place_of(self.parser.peek_token().span.start);
        let query = self.parser.parse_query().map_err(|error| syntax(&error, at))?;
        if let Some(lock) = query.locks.first() {
            return Err(QueryError::Unsupported(format!("{lock}: nothing that is read is ever locked")));
        }
        if let ast::SetExpr::Select(select) = query.body.as_ref()
            && select.into.is_some()
        {
            return Err(QueryError::Unsupported("SELECT ... INTO; use CREATE TABLE ... AS SELECT".to_owned()));
        }
        Ok(query)
    }

    /// A query whose EMIT and LIMIT are taken off.
    fn select(&mut self) -> Result<Select, QueryError> {
        let mut query = self.bare_query()?;
        let tail = std::mem::take(&mut self.tail);
        let limit = match (take_limit(&mut query)?, tail.limit) {
            (None, limit) | (limit, None) => limit,
            (Some(_), Some(_)) => return Err(no_such_limit()),
        };
        let partition_by = tail.partition.map(|(place, tokens)| partition_by(place, tokens)).transpose()?;
        Ok(Select { query, partition_by, emit: tail.emit.map(|(emit, _)| emit), limit })
    }

    /// A name, with dots if it is quoted or written so; folded.
    fn name(&mut self) -> Result<String, QueryError> {
        let next = self.parser.peek_token();
        match &next.token {
            Token::Word(word) if word.quote_style.is_some() || !is_reserved(word.keyword) => {
                let ident = self.parser.parse_identifier().map_err(|error| syntax(&error, place_of(next.span.start)))?;
                if ident.value.is_empty() {
                    return Err(QueryError::Syntax { place: place_of(next.span.start), message: "a name cannot be empty".to_owned() });
                }
                Ok(self.dialect.name(&ident))
            }
            Token::Word(word) => {
                let message = format!("{} is a word of SQL; write \"{}\" to use it as a name", word.value, word.value.to_lowercase());
                Err(QueryError::Syntax { place: place_of(next.span.start), message })
            }
            _ => Err(unexpected("a name", Some(&next), next.span.start)),
        }
    }

    /// Where what comes next stands.
    fn place(&self) -> Place {
        place_of(self.parser.peek_token_ref().span.start)
    }

    fn word(&mut self, text: &str) -> bool {
        let matches = is_word(&self.parser.peek_token_ref().token, text);
        if matches {
            self.parser.next_token();
        }
        matches
    }

    /// Whether the words stand here; if the first does, the others must.
    fn words(&mut self, words: &[&str]) -> Result<bool, QueryError> {
        let Some((first, rest)) = words.split_first() else { return Ok(true) };
        if !self.word(first) {
            return Ok(false);
        }
        for word in rest {
            self.expect_word(word)?;
        }
        Ok(true)
    }

    fn expect_word(&mut self, text: &str) -> Result<(), QueryError> {
        if self.word(text) {
            return Ok(());
        }
        let next = self.parser.peek_token();
        Err(unexpected(text, Some(&next), next.span.start))
    }

    fn expect(&mut self, token: &Token) -> Result<(), QueryError> {
        if self.parser.consume_token(token) {
            return Ok(());
        }
        let next = self.parser.peek_token();
        Err(unexpected(&token.to_string(), Some(&next), next.span.start))
    }
}

/// The expressions behind PARTITION BY.
fn partition_by(place: Place, tokens: Vec<TokenWithSpan>) -> Result<Vec<Expr>, QueryError> {
    let mut parser = Parser::new(&GenericDialect {}).with_recursion_limit(PARSER_DEPTH).with_tokens_with_locations(tokens);
    let written = parser.parse_comma_separated(Parser::parse_expr).map_err(|error| syntax(&error, place))?;
    let next = parser.peek_token();
    match next.token {
        Token::EOF => Ok(written),
        _ => Err(unexpected("HAVING, EMIT or the end of the statement", Some(&next), next.span.start)),
    }
}

/// Words that would make a statement unreadable as bare names.
fn is_reserved(keyword: Keyword) -> bool {
    matches!(
        keyword,
        Keyword::SELECT
            | Keyword::FROM
            | Keyword::WHERE
            | Keyword::GROUP
            | Keyword::HAVING
            | Keyword::ORDER
            | Keyword::LIMIT
            | Keyword::WITH
            | Keyword::AS
            | Keyword::ON
            | Keyword::JOIN
            | Keyword::UNION
            | Keyword::CASE
            | Keyword::WHEN
            | Keyword::THEN
            | Keyword::ELSE
            | Keyword::AND
            | Keyword::OR
            | Keyword::NOT
            | Keyword::NULL
            | Keyword::TRUE
            | Keyword::FALSE
            | Keyword::VALUES
            | Keyword::INTO
    )
}

#[cfg(test)]
mod tests;
