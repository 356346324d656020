//! What is done to tokens before and after sqlparser sees them: places, splitting, EMIT, errors in our words.

use datafusion::sql::sqlparser::{
    ast::{self, Spanned as _},
    dialect::GenericDialect,
    parser::ParserError,
    tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer, Word},
};

use super::{
    Dialect, guard,
    statement::{Emit, Piece},
};
use crate::error::{Place, QueryError};

/// Splits a script at its semicolons, those in quotes and comments left alone; empty statements are dropped.
///
/// # Errors
/// [`QueryError::Syntax`] for a quote or comment without end, [`QueryError::TooComplex`].
pub fn split(script: &str) -> Result<Vec<Piece>, QueryError> {
    guard::check_text(script, guard::MAX_SCRIPT_BYTES)?;
    let tokens = tokenize(script)?;
    let lines: Vec<usize> = std::iter::once(0).chain(script.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let byte_of = |location: Location| {
        let line = usize::try_from(location.line).ok()?.checked_sub(1)?;
        let rest = script.get(*lines.get(line)?..)?;
        let column = usize::try_from(location.column).ok()?.checked_sub(1)?;
        Some(lines.get(line)? + rest.char_indices().nth(column).map_or(rest.len(), |(at, _)| at))
    };

    let mut pieces = Vec::new();
    let meaning = tokens.iter().filter(|one| !matches!(one.token, Token::Whitespace(_))).collect::<Vec<_>>();
    for part in meaning.split(|one| one.token == Token::SemiColon) {
        let (Some(first), Some(last)) = (part.first(), part.last()) else { continue };
        let text = byte_of(first.span.start).zip(byte_of(last.span.end)).and_then(|(from, end)| script.get(from..end));
        let Some(text) = text else { continue };
        pieces.push(Piece { text: text.to_owned(), place: place_of(first.span.start) });
    }
    Ok(pieces)
}

pub(super) fn tokenize(text: &str) -> Result<Vec<TokenWithSpan>, QueryError> {
    Tokenizer::new(&GenericDialect {}, text)
        .tokenize_with_location()
        .map_err(|error| QueryError::Syntax { place: place_of(error.location), message: lower_first(&error.message) })
}

/// Folds every word without quotes as a dialect does: whatever reads the tokens, or what is parsed from them, takes names as they
/// are.
pub(super) fn fold(mut tokens: Vec<TokenWithSpan>, dialect: Dialect) -> Vec<TokenWithSpan> {
    for one in &mut tokens {
        if let Token::Word(Word { value, quote_style: None, .. }) = &mut one.token {
            *value = dialect.fold(value);
        }
    }
    tokens
}

/// A syntax error with the word at its place as the user wrote it, not as it was folded.
pub(super) fn as_written(error: QueryError, text: &str) -> QueryError {
    let QueryError::Syntax { place, message } = error else { return error };
    let tokens = tokenize(text).unwrap_or_default();
    let at = |one: &&TokenWithSpan| place_of(one.span.start) == place;
    let message = match tokens.iter().find(at).map(|one| &one.token) {
        Some(Token::Word(Word { value, quote_style: None, .. })) => {
            let words = message.split(' ').map(|word| {
                let bare = word.trim_end_matches([';', ',']);
                if bare.eq_ignore_ascii_case(value) { word.replace(bare, value) } else { word.to_owned() }
            });
            words.collect::<Vec<_>>().join(" ")
        }
        _ => message,
    };
    QueryError::Syntax { place, message }
}

pub(super) fn place_of(location: Location) -> Place {
    let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX).max(1);
    Place { line: number(location.line), column: number(location.column) }
}

/// Where an expression begins in its statement; none of one that was made.
pub(crate) fn place_of_expr(expr: &ast::Expr) -> Option<Place> {
    Some(expr.span().start).filter(|start| start.line > 0).map(place_of)
}

/// An error that names what does not exist, or exists already, with the place where that name stands in the statement; others as they are.
#[must_use]
pub fn located(error: QueryError, text: &str) -> QueryError {
    match error {
        QueryError::Unknown { what, name, hint, place } => {
            let place = place.or_else(|| place_of_name(text, &name));
            let hint = hint.or_else(|| place.filter(|_| what == "column").and_then(|place| as_text(text, place)));
            QueryError::Unknown { what, name, hint, place }
        }
        QueryError::Exists { what, name } => {
            let place = place_of_name(text, &name);
            let error = QueryError::Exists { what, name };
            match place {
                Some(place) => QueryError::At { place, error: Box::new(error) },
                None => error,
            }
        }
        other => other,
    }
}

/// What a name in double quotes is as a text, which its writer may have meant.
fn as_text(text: &str, place: Place) -> Option<String> {
    let tokens = tokenize(text).ok()?;
    match &tokens.iter().find(|one| place_of(one.span.start) == place)?.token {
        Token::Word(Word { value, quote_style: Some('"'), .. }) => Some(format!("the text '{}'", value.replace('\'', "''"))),
        _ => None,
    }
}

/// Where a name, perhaps of several parts, first stands as a whole and is not given there by AS; else where a text is that name, as in
/// SET and WITH.
fn place_of_name(text: &str, name: &str) -> Option<Place> {
    let tokens = tokenize(text).ok()?;
    let tokens: Vec<_> = tokens.iter().filter(|one| !matches!(one.token, Token::Whitespace(_))).collect();
    let mut rest = &tokens[..];
    let mut given = false;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let Token::Word(word) = &first.token else {
            given = false;
            continue;
        };
        let mut whole = word.value.clone();
        while let [dot, next, after @ ..] = rest
            && let (Token::Period, Token::Word(part)) = (&dot.token, &next.token)
        {
            whole = format!("{whole}.{}", part.value);
            rest = after;
        }
        if !given && whole.eq_ignore_ascii_case(name) {
            return Some(place_of(first.span.start));
        }
        given = is_word(&first.token, "AS");
    }
    let is_text = |one: &&&TokenWithSpan| matches!(&one.token, Token::SingleQuotedString(text) if text.eq_ignore_ascii_case(name));
    tokens.iter().find(is_text).map(|one| place_of(one.span.start))
}

pub(super) fn end_of(text: &str) -> Location {
    let text = text.trim_end();
    let line = text.matches('\n').count() + 1;
    let column = text.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Location { line: u64::try_from(line).unwrap_or(u64::MAX), column: u64::try_from(column).unwrap_or(u64::MAX) }
}

pub(super) fn lower_first(message: &str) -> String {
    let mut chars = message.chars();
    match chars.next() {
        Some(first) if chars.clone().next().is_some_and(char::is_lowercase) => first.to_lowercase().chain(chars).collect(),
        _ => message.to_owned(),
    }
}

/// What stood at a query's end and is not sqlparser's.
#[derive(Clone, Default)]
pub(super) struct Tail {
    /// What stands behind PARTITION BY, with an end.
    pub(super) partition: Option<(Place, Vec<TokenWithSpan>)>,
    pub(super) emit: Option<(Emit, Place)>,
    pub(super) limit: Option<u64>,
}

/// Takes `EMIT CHANGES [LIMIT n]` off the end of the tokens, and puts an end with a place behind what is left.
pub(super) fn cut_emit(mut tokens: Vec<TokenWithSpan>, end: Location) -> Result<(Vec<TokenWithSpan>, Tail), QueryError> {
    tokens.retain(|one| !matches!(one.token, Token::Whitespace(_)));
    while tokens.last().is_some_and(|one| one.token == Token::SemiColon) {
        tokens.pop();
    }
    let mut tail = Tail::default();
    let is = |token: Option<&TokenWithSpan>, text: &str| token.is_some_and(|one| is_word(&one.token, text));
    let at = (0..tokens.len())
        .rev()
        .find(|at| is(tokens.get(*at), "EMIT") && (is(tokens.get(at + 1), "CHANGES") || is(tokens.get(at + 1), "FINAL")));
    if let Some(at) = at {
        let cut = tokens.split_off(at);
        let place = cut.first().map_or(Place { line: 1, column: 1 }, |one| place_of(one.span.start));
        let mut rest = cut.get(1..).unwrap_or_default().iter();
        if is(rest.next(), "FINAL") {
            return Err(QueryError::Unsupported("EMIT FINAL: there are no windows yet; use EMIT CHANGES".to_owned()));
        }
        tail.emit = Some((Emit::Changes, place));
        match rest.next() {
            None => {}
            Some(one) if is_word(&one.token, "LIMIT") => match rest.next() {
                Some(TokenWithSpan { token: Token::Number(digits, _), .. }) if digits.parse::<u64>().is_ok() => {
                    tail.limit = digits.parse().ok();
                }
                other => return Err(unexpected("a number of rows after LIMIT", other, end)),
            },
            other => return Err(unexpected("LIMIT or the end of the statement after EMIT CHANGES", other, end)),
        }
        if let Some(extra) = rest.next() {
            return Err(unexpected("the end of the statement", Some(extra), end));
        }
    }
    tokens.push(TokenWithSpan { token: Token::EOF, span: Span::new(end, end) });
    Ok((tokens, tail))
}

/// Takes `PARTITION BY ...` of a query out of its tokens, with an end behind it; one within brackets is that of a window function.
pub(super) fn cut_partition(mut tokens: Vec<TokenWithSpan>, tail: &mut Tail) -> Vec<TokenWithSpan> {
    let is = |tokens: &[TokenWithSpan], at: usize, text: &str| tokens.get(at).is_some_and(|one| is_word(&one.token, text));
    let mut depth = 0_usize;
    let mut found = None;
    for (at, one) in tokens.iter().enumerate() {
        match &one.token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            _ if depth > 0 => {}
            token => match found {
                None if is_word(token, "PARTITION") && is(&tokens, at + 1, "BY") => found = Some((at, tokens.len())),
                Some((start, end)) if at < end && (*token == Token::EOF || is_word(token, "HAVING") || is_word(token, "LIMIT")) => {
                    found = Some((start, at));
                }
                _ => {}
            },
        }
    }
    let Some((start, end)) = found else { return tokens };
    let behind = tokens.get(end).map_or(Span::empty(), |one| one.span);
    let mut cut: Vec<TokenWithSpan> = tokens.drain(start..end).collect();
    let place = cut.first().map_or(Place { line: 1, column: 1 }, |one| place_of(one.span.start));
    cut.drain(..2);
    cut.push(TokenWithSpan { token: Token::EOF, span: behind });
    tail.partition = Some((place, cut));
    tokens
}

/// Refuses by name the clauses of ksqlDB that are not there yet: sqlparser would take them for something else.
pub(super) fn refuse_clauses(tokens: &[TokenWithSpan]) -> Result<(), QueryError> {
    for (at, one) in tokens.iter().enumerate() {
        let next = |ahead: usize| tokens.get(at + ahead).map(|one| &one.token);
        let next_is = |text: &str| next(1).is_some_and(|token| is_word(token, text));
        let window = ["TUMBLING", "HOPPING", "SESSION"].into_iter().find(|kind| next_is(kind) && next(2) == Some(&Token::LParen));
        let clause = match &one.token {
            token if is_word(token, "WINDOW") => window.map(|kind| format!("WINDOW {kind}")),
            token if is_word(token, "WITHIN") && matches!(next(1), Some(Token::LParen | Token::Number(..))) => Some("WITHIN".to_owned()),
            _ => None,
        };
        if let Some(clause) = clause {
            let place = place_of(one.span.start);
            return Err(QueryError::Unsupported(format!("{clause} at line {}, column {}", place.line, place.column)));
        }
    }
    Ok(())
}

pub(super) fn is_word(token: &Token, text: &str) -> bool {
    matches!(token, Token::Word(Word { value, quote_style: None, .. }) if value.eq_ignore_ascii_case(text))
}

pub(super) fn unexpected(wanted: &str, found: Option<&TokenWithSpan>, end: Location) -> QueryError {
    let place = found.map_or(end, |one| one.span.start);
    QueryError::Syntax { place: place_of(place), message: format!("expected {wanted}, found {}", shown(found.map(|one| &one.token))) }
}

pub(super) fn shown(token: Option<&Token>) -> String {
    match token {
        None | Some(Token::EOF) => "the end".to_owned(),
        Some(token) => {
            let text = token.to_string();
            if text.chars().count() > 64 { text.chars().take(64).chain("...".chars()).collect() } else { text }
        }
    }
}

/// Turns sqlparser's "... at Line: 1, Column: 5" into a place and a message.
pub(super) fn syntax(error: &ParserError, fallback: Place) -> QueryError {
    let message = match error {
        ParserError::RecursionLimitExceeded => return QueryError::TooComplex("it is nested too deeply".to_owned()),
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
    };
    let (text, place) = match message.rsplit_once(" at Line: ") {
        Some((text, place)) => {
            let mut numbers = place.split(", Column: ").map(str::parse::<u32>);
            match (numbers.next(), numbers.next()) {
                (Some(Ok(line)), Some(Ok(column))) => (text, Place { line, column }),
                _ => (message.as_str(), fallback),
            }
        }
        None => (message.as_str(), fallback),
    };
    let text = text.replacen("Expected: ", "expected ", 1).replacen(", found: ", ", found ", 1);
    let text = match text.strip_suffix("found EOF") {
        Some(start) => format!("{start}found the end"),
        None => text,
    };
    QueryError::Syntax { place, message: lower_first(&text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_where_it_stands_as_a_whole() {
        let found = |text: &str, name: &str| place_of_name(text, name).map(|place| (place.line, place.column));
        assert_eq!(found("SELECT a,\n  t.Totl FROM t", "t.totl"), Some((2, 3)));
        assert_eq!(found("SELECT t.id FROM t", "t"), Some((1, 18)));
        assert_eq!(found("SELECT 'x', a AS x FROM t WHERE x > 1", "x"), Some((1, 33)));
        assert_eq!(found("SELECT * FROM \"raw.events\"", "raw.events"), Some((1, 15)));
        assert_eq!(found("SET 'sql.dialct' = 'ksql'", "sql.dialct"), Some((1, 5)));
        assert_eq!(found("SELECT 'x', x FROM t", "x"), Some((1, 13)));
        assert_eq!(found("SELECT xy, x.y, y.x FROM t -- x", "x"), None);
        assert_eq!(found("SELECT 'x", "x"), None);
    }
}
