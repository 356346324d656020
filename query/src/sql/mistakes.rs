//! What somebody may have meant whose statement cannot be read.
//!
//! Called by `sql/parser`: [`check`] before sqlparser, which takes some mistakes for something else; [`explained`] when a statement could
//! not be read. Guesses are added to what is said, never acted upon.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Word};

use super::tokens::{is_word, place_of, tokenize, unexpected};
use crate::{
    catalog::nearest,
    error::{Place, QueryError},
};

/// Words that begin a clause of a SELECT; a misspelt one is read as another name of what stands before it.
const CLAUSES: [&str; 12] =
    ["FROM", "WHERE", "GROUP", "HAVING", "ORDER", "LIMIT", "OFFSET", "PARTITION", "EMIT", "JOIN", "UNION", "WINDOW"];

/// Refuses what sqlparser would take for something else: FROM behind an operator or comma for a column, `&&` for an operator of arrays.
///
/// # Errors
/// [`QueryError::Syntax`] with the place.
pub(super) fn check(tokens: &[TokenWithSpan]) -> Result<(), QueryError> {
    // Whether a SELECT list stands here, within each pair of brackets.
    let mut in_list = vec![false];
    let mut before: Option<&Token> = None;
    for one in tokens.iter().filter(|one| !matches!(one.token, Token::Whitespace(_))) {
        match &one.token {
            Token::LParen => in_list.push(false),
            Token::RParen if in_list.len() > 1 => drop(in_list.pop()),
            Token::Overlap => {
                return Err(QueryError::Syntax { place: place_of(one.span.start), message: "&& is not known here; write AND".to_owned() });
            }
            token if is_word(token, "SELECT") => in_list.iter_mut().last().into_iter().for_each(|is| *is = true),
            token if is_word(token, "FROM") => {
                let is_end_of_list = in_list.iter_mut().last().is_some_and(std::mem::take);
                if is_end_of_list && before.is_some_and(wants_more) {
                    return Err(unexpected("an expression", Some(one), one.span.start));
                }
            }
            _ => {}
        }
        before = Some(&one.token);
    }
    Ok(())
}

/// Whether an expression must follow.
fn wants_more(token: &Token) -> bool {
    matches!(token, Token::Comma | Token::Plus | Token::Minus | Token::Div | Token::Mod | Token::StringConcat | Token::Eq | Token::Neq)
}

/// The error with what may have been meant, if that can be guessed from the words around its place.
pub(super) fn explained(error: QueryError, text: &str) -> QueryError {
    let QueryError::Syntax { place, message } = error else { return error };
    let tokens = tokenize(text).unwrap_or_default();
    let tokens: Vec<&TokenWithSpan> = tokens.iter().filter(|one| !matches!(one.token, Token::Whitespace(_))).collect();
    let guess = if message.contains("the end of the statement") { meant(&tokens, place) } else { None };
    QueryError::Syntax { place, message: guess.map_or(message.clone(), |guess| format!("{message}; {guess}")) }
}

/// What may have been meant by the words around the place at which a statement should have ended.
fn meant(tokens: &[&TokenWithSpan], place: Place) -> Option<String> {
    let at = tokens.iter().position(|one| place_of(one.span.start) == place)?;
    let word = |at: Option<usize>| match &tokens.get(at?)?.token {
        Token::Word(Word { value, quote_style: None, .. }) => Some(value.as_str()),
        _ => None,
    };
    let (found, before) = (word(Some(at)), word(at.checked_sub(1)));
    if before.is_some_and(|before| before.eq_ignore_ascii_case("EMIT")) {
        return Some("did you mean EMIT CHANGES?".to_owned());
    }
    let needs_by = |word: &&str| ["GROUP", "ORDER", "PARTITION"].iter().any(|clause| clause.eq_ignore_ascii_case(word));
    if let Some(clause) = found.filter(needs_by)
        && !word(Some(at + 1)).is_some_and(|next| next.eq_ignore_ascii_case("BY"))
    {
        return Some(format!("did you mean {} BY?", clause.to_uppercase()));
    }
    let has_case = tokens.iter().take(at).any(|one| is_word(&one.token, "CASE"));
    if has_case && found.is_some_and(|found| found.eq_ignore_ascii_case("WHEN")) {
        return Some("a CASE needs END".to_owned());
    }
    // Where the misspelt word was taken for a name, that is, without AS before it.
    let is_named = word(at.checked_sub(2)).is_some_and(|word| word.eq_ignore_ascii_case("AS"));
    [before.filter(|_| !is_named), found].into_iter().flatten().find_map(|word| {
        let near = nearest(word, CLAUSES.into_iter()).filter(|near| !near.eq_ignore_ascii_case(word))?;
        Some(format!("did you mean {near} for {word}?"))
    })
}

#[cfg(test)]
mod tests {
    use crate::sql::{Dialect, parse};

    fn told(text: &str) -> String {
        parse(text, Dialect::STANDARD).map_or_else(|error| error.to_string(), |_| "it can be read".to_owned())
    }

    #[test]
    fn a_misspelt_clause_is_told_by_its_name() {
        for (text, message) in [
            ("SELECT id FORM t", "line 1, column 16: expected the end of the statement, found t; did you mean FROM for FORM?"),
            ("SELECT id FROM t WERE a = 1", "line 1, column 23: expected the end of the statement, found a; did you mean WHERE for WERE?"),
            (
                "SELECT id FROM t x WERE a = 1",
                "line 1, column 20: expected the end of the statement, found WERE; did you mean WHERE for WERE?",
            ),
            (
                "SELECT id FROM t GRUOP BY id",
                "line 1, column 24: expected the end of the statement, found BY; did you mean GROUP for GRUOP?",
            ),
            ("SELECT id FROM t GROUP id", "line 1, column 18: expected the end of the statement, found GROUP; did you mean GROUP BY?"),
            (
                "SELECT id FROM t EMIT CHANGE",
                "line 1, column 23: expected the end of the statement, found CHANGE; did you mean EMIT CHANGES?",
            ),
            ("SELECT CASE a WHEN 1 THEN 2 FROM t", "line 1, column 15: expected the end of the statement, found WHEN; a CASE needs END"),
            // Nothing is guessed where the name was meant.
            ("SELECT id AS form t", "line 1, column 19: expected the end of the statement, found t"),
            ("SELECT id a b FROM t", "line 1, column 13: expected the end of the statement, found b"),
        ] {
            assert_eq!(told(text), message, "{text}");
        }
    }

    #[test]
    fn from_behind_what_wants_more_is_no_column() {
        let expected = |column: u32| format!("line 1, column {column}: expected an expression, found FROM");
        for (text, column) in [("SELECT 1 + FROM t", 12), ("SELECT id, FROM t", 12), ("SELECT a FROM (SELECT b || FROM t)", 28)] {
            assert_eq!(told(text), expected(column), "{text}");
        }
        for text in [
            "SELECT * FROM t",
            "SELECT EXTRACT(year FROM d), trim(',' FROM x) FROM t",
            "SELECT a, 'x' || ',' FROM t",
            "SELECT -\"from\", b FROM t",
        ] {
            assert_eq!(told(text), "it can be read", "{text}");
        }
        assert_eq!(told("SELECT a FROM t WHERE a && b"), "line 1, column 25: && is not known here; write AND");
    }
}
