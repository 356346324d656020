//! The statement parser: hand-written heads around sqlparser's queries, expressions and types.
//!
//! Called by `engine`. `EMIT CHANGES` is cut off the tokens before sqlparser sees them, for it would take EMIT for an alias.

use datafusion::sql::sqlparser::{
    ast::{self, Expr, Value},
    dialect::GenericDialect,
    keywords::Keyword,
    parser::Parser,
    tokenizer::Token,
};

use super::{
    Dialect, guard,
    statement::{ColumnDef, CreateAs, CreateSource, DropSource, Explained, InsertValues, KeyMark, Options, Select, Show, Statement},
    tokens::{Tail, cut_emit, end_of, is_word, place_of, refuse_clauses, shown, syntax, tokenize, unexpected},
    types::column_type,
};
use crate::{
    catalog::{self, SourceKind},
    error::QueryError,
};

/// Depth to which sqlparser may recurse; the guard's nesting stays well below it.
const PARSER_DEPTH: usize = 4 * guard::MAX_DEPTH;

const STATEMENTS: [&str; 11] = ["CREATE", "INSERT", "SELECT", "WITH", "VALUES", "DROP", "SHOW", "LIST", "DESCRIBE", "EXPLAIN", "TERMINATE"];

/// Statements of SQL or of ksqlDB that we know and refuse by name.
const REFUSED: [&str; 36] = [
    "ALTER",
    "ANALYZE",
    "ASSERT",
    "ATTACH",
    "BEGIN",
    "CALL",
    "COMMIT",
    "COPY",
    "DEALLOCATE",
    "DECLARE",
    "DEFINE",
    "DELETE",
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
    "PAUSE",
    "PRAGMA",
    "PREPARE",
    "PRINT",
    "RESET",
    "RESUME",
    "REVOKE",
    "ROLLBACK",
    "SET",
    "TRUNCATE",
    "UPDATE",
    "USE",
];

const OPTION_KEYS: [&str; 6] = ["topic", "kafka_topic", "partitions", "value_format", "key_format", "timestamp"];

/// Parses exactly one statement; a semicolon at its end is allowed.
///
/// # Errors
/// [`QueryError::Syntax`] with the place, [`QueryError::TooComplex`], [`QueryError::Unsupported`] for statements that we know and do
/// not have.
pub fn parse(text: &str, dialect: Dialect) -> Result<Statement, QueryError> {
    guard::check_text(text, guard::MAX_STATEMENT_BYTES)?;
    let tokens = tokenize(text)?;
    guard::check_tokens(&tokens)?;
    let (tokens, tail) = cut_emit(tokens, end_of(text))?;
    refuse_clauses(&tokens)?;
    let parser = Parser::new(&GenericDialect {}).with_recursion_limit(PARSER_DEPTH).with_tokens_with_locations(tokens);
    let mut statement = StatementParser { parser, dialect, tail };
    let parsed = statement.statement()?;
    statement.end()?;
    Ok(parsed)
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
            "DESCRIBE" => {
                self.parser.next_token();
                Ok(Statement::Describe { name: self.name()? })
            }
            "EXPLAIN" => self.explain(),
            "TERMINATE" => {
                self.parser.next_token();
                self.word("QUERY");
                Ok(Statement::Terminate { query: self.name()? })
            }
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
        let mut limit = tail.limit;
        if let Some(clause) = query.limit_clause.take() {
            let written = match &clause {
                ast::LimitClause::LimitOffset { limit: Some(Expr::Value(value)), offset: None, limit_by } if limit_by.is_empty() => {
                    match &value.value {
                        Value::Number(digits, _) => digits.parse::<u64>().ok(),
                        _ => None,
                    }
                }
                _ => None,
            };
            match (written, limit) {
                (Some(written), None) => limit = Some(written),
                _ => return Err(QueryError::Invalid("a query that does not end takes one LIMIT with a number, and no OFFSET".to_owned())),
            }
        }
        Ok(Select { query, emit: tail.emit.map(|(emit, _)| emit), limit })
    }

    fn create(&mut self) -> Result<Statement, QueryError> {
        self.parser.next_token();
        let next = self.parser.peek_token();
        for refused in ["OR", "SOURCE", "EXTERNAL", "TYPE", "FUNCTION", "DATABASE", "SCHEMA", "VIEW", "INDEX", "UNBOUNDED"] {
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

    fn kind(&mut self) -> Result<SourceKind, QueryError> {
        if self.word("STREAM") {
            Ok(SourceKind::Stream)
        } else if self.word("TABLE") {
            Ok(SourceKind::Table)
        } else {
            let next = self.parser.peek_token();
            Err(unexpected("STREAM or TABLE", Some(&next), next.span.start))
        }
    }

    fn columns(&mut self) -> Result<Vec<ColumnDef>, QueryError> {
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

    fn column(&mut self) -> Result<ColumnDef, QueryError> {
        let place = place_of(self.parser.peek_token().span.start);
        let name = self.name()?;
        let at = place_of(self.parser.peek_token().span.start);
        let data_type = self.parser.parse_data_type().map_err(|error| syntax(&error, at))?;
        let data_type = column_type(&data_type).map_err(|message| QueryError::Syntax { place: at, message })?;
        let key = if self.words(&["PRIMARY", "KEY"])? {
            Some(KeyMark::PrimaryKey)
        } else if self.word("KEY") {
            Some(KeyMark::Key)
        } else {
            None
        };
        Ok(ColumnDef { name, data_type, key, place })
    }

    fn options(&mut self) -> Result<Options, QueryError> {
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

    fn insert(&mut self) -> Result<Statement, QueryError> {
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

    fn drop(&mut self) -> Result<Statement, QueryError> {
        self.parser.next_token();
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

    fn show(&mut self) -> Result<Statement, QueryError> {
        self.parser.next_token();
        let known = [("STREAMS", Show::Streams), ("TABLES", Show::Tables), ("QUERIES", Show::Queries), ("TOPICS", Show::Topics)];
        for (word, show) in known {
            if self.word(word) {
                return Ok(Statement::Show(show));
            }
        }
        let next = self.parser.peek_token();
        Err(unexpected("STREAMS, TABLES, QUERIES or TOPICS", Some(&next), next.span.start))
    }

    fn explain(&mut self) -> Result<Statement, QueryError> {
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
mod tests {
    use arrow::datatypes::DataType;

    use super::*;
    use crate::sql::{split, statement::Emit};

    fn ok(text: &str) -> Statement {
        parse(text, Dialect::STANDARD).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn error(text: &str) -> String {
        match parse(text, Dialect::STANDARD) {
            Ok(statement) => panic!("{text}: parsed as {statement:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_source_keeps_its_columns_key_and_options() {
        let Statement::CreateSource(create) = ok(
            "CREATE STREAM IF NOT EXISTS Flights (id VARCHAR KEY, \"Delay\" INT, cost DECIMAL(10, 2)) WITH (kafka_topic = 'f.x', VALUE_FORMAT='JSON', partitions=4);",
        ) else {
            panic!("not a source")
        };
        assert_eq!((create.name.as_str(), create.kind, create.if_not_exists), ("flights", SourceKind::Stream, true));
        let columns: Vec<_> = create.columns.iter().map(|one| (one.name.as_str(), one.data_type.clone(), one.key)).collect();
        assert_eq!(
            columns,
            [("id", DataType::Utf8, Some(KeyMark::Key)), ("Delay", DataType::Int32, None), ("cost", DataType::Decimal128(10, 2), None),]
        );
        let options =
            Options { topic: Some("f.x".to_owned()), partitions: Some(4), value_format: Some("json".to_owned()), ..Options::default() };
        assert_eq!(create.options, options);
    }

    #[test]
    fn emit_changes_makes_a_query_that_does_not_end() {
        let Statement::Push(select) = ok("SELECT * FROM t EMIT CHANGES LIMIT 3;") else { panic!("not a push") };
        assert_eq!((select.emit, select.limit, select.query.to_string()), (Some(Emit::Changes), Some(3), "SELECT * FROM t".to_owned()));
        let Statement::Push(select) = ok("select a from t where a = 'EMIT CHANGES' limit 2 emit changes") else { panic!("not a push") };
        assert_eq!((select.limit, select.query.limit_clause.is_none()), (Some(2), true));
        assert!(matches!(ok("SELECT emit FROM t emit"), Statement::Pull(_)), "EMIT alone is a name");
        assert!(matches!(ok("CREATE TABLE a AS SELECT k, count(*) FROM t GROUP BY k EMIT CHANGES"), Statement::CreateAs(_)));
    }

    #[test]
    fn every_statement_is_known() {
        for text in [
            "SHOW STREAMS",
            "list tables",
            "SHOW QUERIES",
            "SHOW TOPICS",
            "DESCRIBE \"a.b\"",
            "EXPLAIN SELECT 1",
            "EXPLAIN ctas_a_1",
            "TERMINATE ctas_a_1",
            "TERMINATE QUERY ctas_a_1",
            "DROP TABLE IF EXISTS a",
            "DROP STREAM a",
            "INSERT INTO a (x, y) VALUES (1, 'b'), (-2, NULL)",
            "INSERT INTO a VALUES (1)",
            "WITH x AS (SELECT 1) SELECT * FROM x",
            "SELECT sum(a) OVER (PARTITION BY b), rank() OVER session FROM t WINDOW session AS (PARTITION BY b ORDER BY c)",
            "(SELECT 1) UNION (SELECT 2)",
            "VALUES (1)",
            "EXPLAIN CREATE TABLE a AS SELECT k, count(*) FROM t GROUP BY k",
        ] {
            ok(text);
        }
    }

    #[test]
    fn an_error_tells_where_what_was_expected_and_what_is_near() {
        for (text, message) in [
            (
                "SELEC 1",
                "line 1, column 1: expected a statement (CREATE, INSERT, SELECT, WITH, VALUES, DROP, SHOW, LIST, DESCRIBE, EXPLAIN, TERMINATE), found SELEC; did you mean SELECT?",
            ),
            ("SELECT\n  a FROM", "line 2, column 9: expected identifier, found the end"),
            ("", "line 1, column 1: expected a statement, found the end"),
            ("SELECT 1 +", "line 1, column 11: expected an expression, found the end"),
            ("SELECT 'abc", "line 1, column 8: unterminated string literal"),
            (
                "CREATE STREAM s (a INTT)",
                "line 1, column 20: there is no type INTT; known are BOOLEAN, INT, BIGINT, DOUBLE, DECIMAL(p, s), VARCHAR, TIMESTAMP",
            ),
            (
                "CREATE STREAM s (a INT) WITH (kafka_topc='x')",
                "line 1, column 31: WITH has no key kafka_topc; did you mean kafka_topic?; known are topic, kafka_topic, partitions, value_format, key_format, timestamp",
            ),
            ("CREATE STREAM s (a INT) WITH (topic='x', kafka_topic='y')", "line 1, column 42: kafka_topic is given twice"),
            ("CREATE STREAM select (a INT)", "line 1, column 15: select is a word of SQL; write \"select\" to use it as a name"),
            ("CREATE STREAM s", "line 1, column 16: expected a list of columns, WITH or AS SELECT, found the end"),
            ("SELECT 1; SELECT 2", "line 1, column 9: expected the end: one statement at a time, except in a script"),
            ("SHOW STREAM", "line 1, column 6: expected STREAMS, TABLES, QUERIES or TOPICS, found STREAM"),
            ("SHOW TABLES EMIT CHANGES", "line 1, column 13: EMIT CHANGES belongs to a SELECT"),
            ("SELECT 1 EMIT CHANGES LIMIT x", "line 1, column 29: expected a number of rows after LIMIT, found x"),
            (
                "CREATE TABLE a (x DECIMAL(40, 2))",
                "line 1, column 19: DECIMAL(40, 2) is out of range: the precision is 1 to 38, the scale 0 to the precision",
            ),
        ] {
            assert_eq!(error(text), message, "{text}");
        }
    }

    #[test]
    fn what_we_do_not_have_is_refused_by_name() {
        for (text, name) in [
            ("COPY t TO 'x.csv'", "the statement COPY"),
            ("SET datafusion.a = 1", "the statement SET"),
            ("PREPARE p AS SELECT 1", "the statement PREPARE"),
            ("EXECUTE p", "the statement EXECUTE"),
            ("UPDATE t SET a = 1", "the statement UPDATE"),
            ("DELETE FROM t", "the statement DELETE"),
            ("CREATE EXTERNAL TABLE t (a INT) LOCATION 'file:///x'", "CREATE EXTERNAL"),
            ("CREATE FUNCTION f() RETURN 1", "CREATE FUNCTION"),
            ("EXPLAIN ANALYZE SELECT 1", "EXPLAIN ANALYZE"),
            ("EXPLAIN COPY t TO 'x'", "the statement COPY"),
            ("SELECT 1 INTO t FROM u", "SELECT ... INTO"),
            ("DROP TABLE a CASCADE", "CASCADE"),
            ("DROP TABLE a DELETE TOPIC", "DELETE TOPIC"),
            ("CREATE OR REPLACE TABLE a AS SELECT 1", "OR REPLACE"),
            ("INSERT INTO a SELECT 1", "INSERT INTO ... SELECT"),
            ("SELECT a FROM t EMIT FINAL", "EMIT FINAL"),
            (
                "CREATE TABLE a AS SELECT k, COUNT(*) FROM t WINDOW TUMBLING (SIZE 1 HOUR) GROUP BY k",
                "WINDOW TUMBLING at line 1, column 45",
            ),
            ("CREATE STREAM a AS SELECT * FROM t PARTITION BY k", "PARTITION BY at line 1, column 36"),
            ("SELECT * FROM t JOIN u WITHIN 1 HOUR ON t.k = u.k EMIT CHANGES", "WITHIN at line 1, column 24"),
            ("SELECT * FROM t JOIN u WITHIN (1 HOUR, 2 HOURS) ON t.k = u.k EMIT CHANGES", "WITHIN at line 1, column 24"),
        ] {
            let message = error(text);
            assert!(message.starts_with("not supported: ") && message.contains(name), "{text}: {message}");
        }
    }

    #[test]
    fn a_script_is_split_at_its_own_semicolons_only() {
        let script = "-- first; no\r\nSELECT 'a;b'; ;\n  SELECT /* ; */ \"ö;\" FROM t  ;\nSHOW TABLES";
        let pieces = split(script).unwrap();
        let texts: Vec<_> = pieces.iter().map(|one| (one.text.as_str(), one.place.line, one.place.column)).collect();
        assert_eq!(texts, [("SELECT 'a;b'", 2, 1), ("SELECT /* ; */ \"ö;\" FROM t", 3, 3), ("SHOW TABLES", 4, 1)]);
        assert!(split("SELECT 'a").is_err());
        assert_eq!(split(" ;; -- nothing\n").unwrap(), []);
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics_the_parser(text in "[ -~\\n\u{e4}]{0,80}", head in 0_usize..12) {
            let heads = ["", "CREATE STREAM a (", "SELECT ", "INSERT INTO a VALUES (", "EXPLAIN ", "DROP ", "CREATE TABLE b WITH (", "SELECT a FROM t EMIT ", "SHOW ", "WITH a AS (", "TERMINATE ", "DESCRIBE "];
            let text = format!("{}{text}", heads[head]);
            let _ = parse(&text, Dialect::STANDARD);
            let _ = split(&text);
        }
    }
}
