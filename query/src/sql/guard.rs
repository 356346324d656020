//! Bounds on a statement's text and tokens, checked before anything is parsed.
//!
//! Called by `sql/parser` alone. What passes cannot overflow the stack of whoever parses, plans or drops the tree: depth and
//! length of every chain are bounded, whatever they are made of.

use datafusion::sql::sqlparser::{
    keywords::Keyword,
    tokenizer::{Token, TokenWithSpan},
};

use crate::error::QueryError;

/// Most bytes of one statement.
pub const MAX_STATEMENT_BYTES: usize = 256 << 10;
/// Most bytes of a script.
pub const MAX_SCRIPT_BYTES: usize = 4 << 20;
/// Most tokens of one statement, white space and comments not counted.
pub const MAX_TOKENS: usize = 20_000;
/// Most brackets, CASEs or prefix operators within each other.
pub const MAX_DEPTH: usize = 64;
/// Most operators in a row: `1 + 1 + ...`, `a AND b AND ...`, UNIONs.
pub const MAX_CHAIN: usize = 500;
/// Most items of one list.
pub const MAX_ITEMS: usize = 10_000;
/// Most bytes of one name.
pub const MAX_NAME_BYTES: usize = 1_024;

/// Checks a text before it is cut into tokens.
///
/// # Errors
/// [`QueryError::TooComplex`].
pub fn check_text(text: &str, most: usize) -> Result<(), QueryError> {
    if text.len() > most {
        return Err(QueryError::TooComplex(format!("{} bytes of text, allowed are {most}", text.len())));
    }
    if text.contains('\0') {
        return Err(QueryError::Invalid("the text contains a NUL character".to_owned()));
    }
    Ok(())
}

/// Checks the tokens of one statement before they are parsed.
///
/// # Errors
/// [`QueryError::TooComplex`] with the bound that is exceeded.
pub fn check_tokens(tokens: &[TokenWithSpan]) -> Result<(), QueryError> {
    let mut seen = 0;
    let mut prefixes = 0;
    let mut before: Option<&Token> = None;
    let mut frames = vec![Frame::new(Opened::Statement)];
    for token in tokens.iter().map(|one| &one.token).filter(|token| !matches!(token, Token::Whitespace(_) | Token::EOF)) {
        seen += 1;
        bound(seen, MAX_TOKENS, "tokens")?;
        prefixes = if is_prefix(token, before) { prefixes + 1 } else { 0 };
        bound(prefixes, MAX_DEPTH, "prefix operators in a row")?;
        if let Token::Word(word) = token {
            bound(word.value.len(), MAX_NAME_BYTES, "bytes in a name")?;
        }

        match token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                let continues = matches!(before, Some(Token::RParen | Token::RBracket)) || matches!(token, Token::LBracket);
                count_operator(&mut frames, continues)?;
                frames.push(Frame::new(Opened::Bracket));
            }
            Token::RParen | Token::RBracket | Token::RBrace => close(&mut frames, Opened::Bracket),
            Token::Lt if opens_type(before) => frames.push(Frame::new(Opened::Type)),
            Token::Gt => close_type(&mut frames, 1)?,
            Token::ShiftRight => close_type(&mut frames, 2)?,
            Token::Word(word) if word.keyword == Keyword::CASE => frames.push(Frame::new(Opened::Case)),
            Token::Word(word) if word.keyword == Keyword::END => close(&mut frames, Opened::Case),
            Token::Comma => {
                if let Some(frame) = frames.last_mut() {
                    frame.commas += 1;
                    frame.operators = 0;
                    // A list has an item more than commas.
                    bound(frame.commas + 1, MAX_ITEMS, "items in a list")?;
                }
            }
            Token::Word(word) if joins_queries(word.keyword) => {
                if let Some(frame) = frames.last_mut() {
                    frame.joined += 1;
                    bound(frame.joined, MAX_CHAIN, "joins and UNIONs in a row")?;
                }
            }
            Token::Word(word) if begins_clause(word.keyword) => {
                if let Some(frame) = frames.last_mut() {
                    frame.operators = 0;
                }
            }
            other => count_operator(&mut frames, is_operator(other))?,
        }
        bound(frames.len() - 1, MAX_DEPTH, "levels of nesting")?;
        before = Some(token);
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Opened {
    Statement,
    Bracket,
    Type,
    Case,
}

/// What stands between an opening and its end.
struct Frame {
    opened: Opened,
    /// Since the last comma or clause.
    operators: usize,
    /// Queries and tables joined to each other.
    joined: usize,
    commas: usize,
}

impl Frame {
    fn new(opened: Opened) -> Self {
        Self { opened, operators: 0, joined: 0, commas: 0 }
    }
}

fn bound(count: usize, most: usize, what: &str) -> Result<(), QueryError> {
    if count > most {
        return Err(QueryError::TooComplex(format!("more than {most} {what}")));
    }
    Ok(())
}

fn count_operator(frames: &mut [Frame], counts: bool) -> Result<(), QueryError> {
    if let Some(frame) = frames.last_mut().filter(|_| counts) {
        frame.operators += 1;
        bound(frame.operators, MAX_CHAIN, "operators in a row")?;
    }
    Ok(())
}

/// Ends the innermost frame if it was opened so; the parser reports what does not match.
fn close(frames: &mut Vec<Frame>, opened: Opened) {
    if frames.last().is_some_and(|frame| frame.opened == opened) {
        frames.pop();
    }
}

fn close_type(frames: &mut Vec<Frame>, count: usize) -> Result<(), QueryError> {
    if frames.last().is_some_and(|frame| frame.opened == Opened::Type) {
        for _ in 0..count {
            close(frames, Opened::Type);
        }
        return Ok(());
    }
    count_operator(frames, true)
}

fn opens_type(before: Option<&Token>) -> bool {
    matches!(before, Some(Token::Word(word)) if matches!(word.keyword, Keyword::ARRAY | Keyword::MAP | Keyword::STRUCT))
}

/// Whether the token stands before its operand, so that a row of them nests.
fn is_prefix(token: &Token, before: Option<&Token>) -> bool {
    match token {
        Token::Word(word) => matches!(word.keyword, Keyword::NOT | Keyword::EXPLAIN),
        Token::Minus | Token::Plus | Token::Tilde | Token::ExclamationMark | Token::AtSign => {
            before.is_none_or(|before| is_operator(before) || matches!(before, Token::LParen | Token::Comma | Token::LBracket))
        }
        _ => false,
    }
}

fn joins_queries(keyword: Keyword) -> bool {
    matches!(keyword, Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT | Keyword::MINUS | Keyword::JOIN)
}

/// Whether an expression ends here and another begins.
fn begins_clause(keyword: Keyword) -> bool {
    matches!(keyword, Keyword::FROM | Keyword::WHERE | Keyword::HAVING | Keyword::GROUP | Keyword::ORDER)
}

fn is_operator(token: &Token) -> bool {
    match token {
        Token::Word(word) => matches!(
            word.keyword,
            Keyword::AND
                | Keyword::OR
                | Keyword::XOR
                | Keyword::IS
                | Keyword::IN
                | Keyword::LIKE
                | Keyword::ILIKE
                | Keyword::RLIKE
                | Keyword::REGEXP
                | Keyword::SIMILAR
                | Keyword::BETWEEN
                | Keyword::COLLATE
                | Keyword::AT
                | Keyword::DIV
                | Keyword::NOTNULL
                | Keyword::OPERATOR
                | Keyword::OVERLAPS
                | Keyword::WHEN
        ),
        Token::Number(..)
        | Token::Char(_)
        | Token::EOF
        | Token::Whitespace(_)
        | Token::SemiColon
        | Token::Comma
        | Token::Placeholder(_)
        | Token::LParen
        | Token::RParen
        | Token::LBracket
        | Token::RBracket
        | Token::LBrace
        | Token::RBrace => false,
        other => !is_text(other),
    }
}

/// Whether the token is a string of whatever spelling.
fn is_text(token: &Token) -> bool {
    matches!(
        token,
        Token::SingleQuotedString(_)
            | Token::DoubleQuotedString(_)
            | Token::TripleSingleQuotedString(_)
            | Token::TripleDoubleQuotedString(_)
            | Token::DollarQuotedString(_)
            | Token::SingleQuotedByteStringLiteral(_)
            | Token::DoubleQuotedByteStringLiteral(_)
            | Token::TripleSingleQuotedByteStringLiteral(_)
            | Token::TripleDoubleQuotedByteStringLiteral(_)
            | Token::SingleQuotedRawStringLiteral(_)
            | Token::DoubleQuotedRawStringLiteral(_)
            | Token::TripleSingleQuotedRawStringLiteral(_)
            | Token::TripleDoubleQuotedRawStringLiteral(_)
            | Token::NationalStringLiteral(_)
            | Token::QuoteDelimitedStringLiteral(_)
            | Token::NationalQuoteDelimitedStringLiteral(_)
            | Token::EscapedStringLiteral(_)
            | Token::UnicodeStringLiteral(_)
            | Token::HexStringLiteral(_)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{Dialect, parse};

    fn refused(text: &str) {
        let verdict = parse(text, Dialect::STANDARD);
        assert!(matches!(verdict, Err(QueryError::TooComplex(_))), "{}: {verdict:?}", text.get(..40).unwrap_or(text));
    }

    #[test]
    fn chains_of_any_operator_are_refused_before_they_are_parsed() {
        for part in [" + 1", " AND 1", " || 'a'", "::int", " UNION ALL SELECT 1", " IS NULL", " = 1", "[1]", " COLLATE x", "->'a'", ".a"] {
            refused(&format!("SELECT 1{}", part.repeat(5_000)));
        }
        refused(&format!("SELECT 1{}", "+1".repeat(100_000)));
        refused(&format!("SELECT f{}", "(1)".repeat(5_000)));
        refused(&format!("SELECT * FROM a{}", " JOIN b ON 1 = 1".repeat(1_000)));
    }

    #[test]
    fn nesting_of_any_kind_is_refused_before_it_is_parsed() {
        for (open, middle, close) in [
            ("(", "1", ")"),
            ("CASE WHEN true THEN ", "1", " END"),
            ("(SELECT ", "1", ")"),
            ("NOT ", "true", ""),
            ("- ", "1", ""),
            ("~", "1", ""),
            ("[", "1", "]"),
            ("f(", "1", ")"),
        ] {
            let text = format!("SELECT {}{middle}{}", open.repeat(5_000), close.repeat(5_000));
            refused(&text);
        }
        refused(&format!("SELECT CAST(a AS {}int{})", "array<".repeat(5_000), ">".repeat(5_000)));
        refused(&format!("SELECT {}1", "(".repeat(5_000)));
        refused(&format!("{} SELECT 1", "EXPLAIN ".repeat(5_000)));
    }

    #[test]
    fn lists_and_texts_beyond_their_bounds_are_refused() {
        refused(&format!("SELECT 1 IN (1{})", ", 1".repeat(30_000)));
        refused(&format!("SELECT 1 IN ({})", "1,".repeat(10_001)));
        refused(&format!("SELECT '{}'", "x".repeat(MAX_STATEMENT_BYTES)));
        refused(&format!("SELECT {}", "x".repeat(MAX_NAME_BYTES + 1)));
        assert!(matches!(parse("SELECT 'a\0b'", Dialect::STANDARD), Err(QueryError::Invalid(_))));
    }

    #[test]
    fn what_stays_within_the_bounds_passes() {
        let sum = format!("SELECT 1{}", " + 1".repeat(MAX_CHAIN));
        let nested = format!("SELECT {}1{}", "(".repeat(MAX_DEPTH), ")".repeat(MAX_DEPTH));
        let cases = format!("SELECT {}1{}", "CASE WHEN true THEN ".repeat(MAX_DEPTH), " END".repeat(MAX_DEPTH));
        let list = format!("SELECT 1 IN (1{})", ", -1".repeat(6_000));
        // All the tokens that there may be.
        let longest = format!("SELECT 1{}", ", 1".repeat(MAX_ITEMS - 1));
        refused(&format!("{longest}, 1"));
        for text in
            [sum, nested, cases, list, longest, "SELECT a >> 2 < b, ARRAY<INT> FROM t".replace("ARRAY<INT>", "CAST(a AS ARRAY<INT>)")]
        {
            assert!(parse(&text, Dialect::STANDARD).is_ok(), "{:?}", parse(&text, Dialect::STANDARD));
        }
    }
}
