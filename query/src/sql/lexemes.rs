//! What each part of a text is, for whoever shows or completes it while it is typed: the parser's own tokens, also of a text that is
//! not finished.
//!
//! Called by the SQL shell. Pure. The lexemes of a text put together are that text, whatever it is.

use datafusion::sql::sqlparser::{
    dialect::GenericDialect,
    tokenizer::{Token, TokenWithSpan, Tokenizer, Whitespace, Word},
};

/// What a part of a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lexeme {
    /// White space.
    Space,
    /// A comment.
    Comment,
    /// A word of [`KEYWORDS`].
    Keyword,
    /// Another word.
    Name,
    /// A name in quotes.
    QuotedName,
    /// A string.
    Text,
    /// A number.
    Number,
    /// The end of a statement.
    Semicolon,
    /// An operator, bracket or comma.
    Symbol,
}

/// A part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// What it is.
    pub lexeme: Lexeme,
    /// Its text.
    pub text: &'a str,
    /// Where it begins, in bytes.
    pub start: usize,
    /// Whether a quote or comment in it has no end yet.
    pub unfinished: bool,
}

/// Words of the language, in upper case. A name may be one of most of them, too.
pub const KEYWORDS: [&str; 136] = [
    "ADD",
    "ALL",
    "ALTER",
    "AND",
    "ARRAY",
    "AS",
    "ASC",
    "ASSERT",
    "BEGINNING",
    "BETWEEN",
    "BIGINT",
    "BOOLEAN",
    "BY",
    "BYTES",
    "CASCADE",
    "CASE",
    "CAST",
    "CHANGES",
    "COLUMN",
    "CREATE",
    "CROSS",
    "DATE",
    "DAY",
    "DAYS",
    "DECIMAL",
    "DEFINE",
    "DELETE",
    "DESC",
    "DESCRIBE",
    "DISTINCT",
    "DOUBLE",
    "DROP",
    "ELSE",
    "EMIT",
    "END",
    "ESCAPE",
    "EXCEPT",
    "EXISTS",
    "EXPLAIN",
    "EXTENDED",
    "FALSE",
    "FILTER",
    "FINAL",
    "FROM",
    "FULL",
    "FUNCTION",
    "FUNCTIONS",
    "GRACE",
    "GROUP",
    "HAVING",
    "HEADER",
    "HEADERS",
    "HOUR",
    "HOURS",
    "IF",
    "IN",
    "INNER",
    "INSERT",
    "INT",
    "INTEGER",
    "INTERSECT",
    "INTERVAL",
    "INTO",
    "IS",
    "JOIN",
    "KEY",
    "LATERAL",
    "LEFT",
    "LIKE",
    "LIMIT",
    "LIST",
    "MAP",
    "MILLISECONDS",
    "MINUTE",
    "MINUTES",
    "NOT",
    "NULL",
    "NULLS",
    "OFFSET",
    "ON",
    "OR",
    "ORDER",
    "OUTER",
    "OVER",
    "PARTITION",
    "PARTITIONS",
    "PAUSE",
    "PERIOD",
    "PRIMARY",
    "PRINT",
    "PROPERTIES",
    "QUERIES",
    "QUERY",
    "RECURSIVE",
    "REPLACE",
    "RESUME",
    "RIGHT",
    "ROW",
    "ROWS",
    "SECOND",
    "SECONDS",
    "SELECT",
    "SET",
    "SHOW",
    "SMALLINT",
    "SOURCE",
    "STREAM",
    "STREAMS",
    "STRING",
    "STRUCT",
    "TABLE",
    "TABLES",
    "TERMINATE",
    "THEN",
    "TIME",
    "TIMEOUT",
    "TIMESTAMP",
    "TO",
    "TOPIC",
    "TOPICS",
    "TRUE",
    "TYPE",
    "TYPES",
    "UNDEFINE",
    "UNION",
    "UNSET",
    "USING",
    "VALUES",
    "VARCHAR",
    "VARIABLES",
    "VIEW",
    "WHEN",
    "WHERE",
    "WINDOW",
    "WITH",
    "WITHIN",
];

/// The parts of a text, in order. What follows a quote or comment that has no end belongs to it.
#[must_use]
pub fn parts(text: &str) -> Vec<Part<'_>> {
    let mut tokens = Vec::new();
    let ended = Tokenizer::new(&GenericDialect {}, text).tokenize_with_location_into_buf(&mut tokens).is_ok();
    let starts = starts(text, &tokens);
    let ends = starts.iter().skip(1).copied().chain([if ended { text.len() } else { end_of_last(text, &starts, &tokens) }]);
    let mut parts = Vec::with_capacity(tokens.len() + 1);
    for ((token, start), end) in tokens.iter().zip(&starts).zip(ends) {
        let Some(text) = text.get(*start..end) else { continue };
        parts.push(Part { lexeme: of_token(&token.token), text, start: *start, unfinished: is_open_comment(&token.token, text) });
    }
    let start = parts.last().map_or(0, |last| last.start + last.text.len());
    if let Some(rest) = text.get(start..).filter(|rest| !rest.is_empty()) {
        parts.push(Part { lexeme: of_open(rest), text: rest, start, unfinished: true });
    }
    parts
}

/// Whether the text has come to the end of a statement: a semicolon with nothing but space and comments behind it.
#[must_use]
pub fn is_ended(text: &str) -> bool {
    let parts = parts(text);
    let is_said = |part: &&Part<'_>| part.unfinished || !matches!(part.lexeme, Lexeme::Space | Lexeme::Comment);
    parts.iter().rev().find(is_said).is_some_and(|last| last.lexeme == Lexeme::Semicolon && !last.unfinished)
}

/// Where each token begins, in bytes: the tokenizer counts lines and characters.
fn starts(text: &str, tokens: &[TokenWithSpan]) -> Vec<usize> {
    let mut starts = Vec::with_capacity(tokens.len());
    let mut chars = text.char_indices();
    let (mut line, mut column, mut at) = (1, 1, 0);
    for token in tokens {
        let wanted = token.span.start;
        while (line, column) < (wanted.line, wanted.column) {
            let Some((place, c)) = chars.next() else { break };
            at = place + c.len_utf8();
            (line, column) = if c == '\n' { (line + 1, 1) } else { (line, column + 1) };
        }
        starts.push(at);
    }
    starts
}

/// Where the last whole token ends, if something behind it has no end.
fn end_of_last(text: &str, starts: &[usize], tokens: &[TokenWithSpan]) -> usize {
    let (Some(start), Some(token)) = (starts.last(), tokens.last()) else { return 0 };
    let (from, to) = (token.span.start, token.span.end);
    let (mut line, mut column) = (from.line, from.column);
    let rest = text.get(*start..).unwrap_or_default();
    for (place, c) in rest.char_indices() {
        if (line, column) >= (to.line, to.column) {
            return start + place;
        }
        (line, column) = if c == '\n' { (line + 1, 1) } else { (line, column + 1) };
    }
    text.len()
}

fn of_token(token: &Token) -> Lexeme {
    match token {
        Token::Whitespace(Whitespace::SingleLineComment { .. } | Whitespace::MultiLineComment(_)) => Lexeme::Comment,
        Token::Whitespace(_) => Lexeme::Space,
        Token::SemiColon => Lexeme::Semicolon,
        Token::Number(..) => Lexeme::Number,
        Token::Word(Word { quote_style: Some(_), .. }) => Lexeme::QuotedName,
        Token::Word(word) if is_keyword(&word.value) => Lexeme::Keyword,
        Token::Word(_) => Lexeme::Name,
        Token::SingleQuotedString(_)
        | Token::DollarQuotedString(_)
        | Token::NationalStringLiteral(_)
        | Token::EscapedStringLiteral(_)
        | Token::UnicodeStringLiteral(_)
        | Token::HexStringLiteral(_) => Lexeme::Text,
        _ => Lexeme::Symbol,
    }
}

/// A comment to the line's end that has none may still go on; it hides nothing.
fn is_open_comment(token: &Token, text: &str) -> bool {
    matches!(token, Token::Whitespace(Whitespace::MultiLineComment(_))) && !text.ends_with("*/")
}

/// What begins there and has no end.
fn of_open(rest: &str) -> Lexeme {
    match rest.as_bytes() {
        [b'"' | b'`', ..] => Lexeme::QuotedName,
        [b'/', b'*', ..] => Lexeme::Comment,
        _ => Lexeme::Text,
    }
}

fn is_keyword(word: &str) -> bool {
    let word = word.to_ascii_uppercase();
    KEYWORDS.binary_search(&word.as_str()).is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Lexeme::*, *};

    fn told(text: &str) -> Vec<(Lexeme, &str)> {
        parts(text).iter().filter(|part| part.lexeme != Space).map(|part| (part.lexeme, part.text)).collect()
    }

    #[test]
    fn the_words_of_the_language_are_in_order() {
        assert!(KEYWORDS.is_sorted());
        assert!(crate::sql::parser::STATEMENTS.iter().all(|word| is_keyword(word)));
    }

    #[test]
    fn each_part_is_what_it_is() {
        let text = "select A, \"b c\", 'ü;' -- now\nfrom t\n where x>=1.5; /* ; */";
        let expected = [
            (Keyword, "select"),
            (Name, "A"),
            (Symbol, ","),
            (QuotedName, "\"b c\""),
            (Symbol, ","),
            (Text, "'ü;'"),
            (Comment, "-- now\n"),
            (Keyword, "from"),
            (Name, "t"),
            (Keyword, "where"),
            (Name, "x"),
            (Symbol, ">="),
            (Number, "1.5"),
            (Semicolon, ";"),
            (Comment, "/* ; */"),
        ];
        assert_eq!(told(text), expected);
    }

    #[test]
    fn what_is_not_finished_goes_to_the_end() {
        assert_eq!(told("SELECT 'a; b"), [(Keyword, "SELECT"), (Text, "'a; b")]);
        assert_eq!(told("x \"y;\nz"), [(Name, "x"), (QuotedName, "\"y;\nz")]);
        assert_eq!(told("1 /* a; 'b"), [(Number, "1"), (Comment, "/* a; 'b")]);
        assert_eq!(told("'"), [(Text, "'")]);
    }

    #[test]
    fn a_statement_ends_at_its_semicolon_alone() {
        for ended in ["SELECT 1;", "SELECT 1; -- done", "SELECT ';';\n/* x */ ", ";"] {
            assert!(is_ended(ended), "{ended}");
        }
        for open in
            ["", "SELECT 1", "SELECT ';", "SELECT 1 -- ;", "SELECT \"a;", "SELECT 1 /* ;", "SELECT 1; /* ;", "a; b", "SELECT 'a;\n';b"]
        {
            assert!(!is_ended(open), "{open}");
        }
    }

    proptest! {
        #[test]
        fn the_parts_put_together_are_the_text(text in "[a-z'\"`;/*\\- \\n$0-9.ü{}\\\\]{0,40}") {
            let parts = parts(&text);
            let whole: String = parts.iter().map(|part| part.text).collect();
            prop_assert_eq!(whole, text);
        }
    }
}
