//! What two statements share that differ in nothing but their literals.
//!
//! Pure; called by `prepared` before anything is parsed. Knows just enough of the language to be sure where a literal begins and
//! ends: a text with anything else in it (comments, other quotes, operators, escapes) has no shape and is parsed. What holds:
//! texts of one shape are cut by the parser into the same tokens, but for the values of their literals.

use datafusion::common::ScalarValue;

/// Longer texts have no shape: with fewer bytes than this, none of the bounds of `sql/guard` is exceeded that another text of the
/// same shape respects.
const MAX_BYTES: usize = 4096;

/// A statement in two parts.
#[derive(Debug, PartialEq)]
pub(super) struct Shape {
    /// The text with `'` for each string and `0` for each number.
    pub(super) text: String,
    /// Their values, in the order of the text: VARCHAR or BIGINT.
    pub(super) literals: Vec<ScalarValue>,
}

impl Shape {
    /// Cuts a statement; none if it has anything in it that is not plain.
    pub(super) fn of(statement: &str) -> Option<Self> {
        if statement.len() > MAX_BYTES {
            return None;
        }
        let mut shape = Self { text: String::with_capacity(statement.len()), literals: Vec::with_capacity(2) };
        let mut rest = statement;
        while let Some(first) = rest.bytes().next() {
            let length = match first {
                b'\'' => shape.string(rest)?,
                b'0'..=b'9' => shape.number(rest)?,
                b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'$' => shape.word(rest)?,
                b' ' | b'\t' | b'\r' | b'\n' | b',' | b'=' | b'*' | b'(' | b')' | b';' => {
                    shape.text.push(char::from(first));
                    1
                }
                _ => return None,
            };
            rest = rest.get(length..)?;
        }
        Some(shape)
    }

    /// Takes a string up to its closing quote; a quote within is written twice.
    fn string(&mut self, text: &str) -> Option<usize> {
        let mut value = String::new();
        let mut length = 1;
        loop {
            let (part, after) = text.get(length..)?.split_once('\'')?;
            // How a backslash is read depends on the dialect, and a NUL is refused wherever it stands.
            if part.contains(['\\', '\0']) {
                return None;
            }
            value.push_str(part);
            length += part.len() + 1;
            if !after.starts_with('\'') {
                break;
            }
            value.push('\'');
            length += 1;
        }
        self.text.push('\'');
        self.literals.push(ScalarValue::Utf8(Some(value)));
        Some(length)
    }

    /// Takes digits that are a number of their own.
    fn number(&mut self, text: &str) -> Option<usize> {
        let length = text.bytes().take_while(u8::is_ascii_digit).count();
        let value = text.get(..length)?.parse().ok()?;
        if text.as_bytes().get(length).copied().is_some_and(|next| is_in_word(next) || next == b'\'') {
            return None;
        }
        self.text.push('0');
        self.literals.push(ScalarValue::Int64(Some(value)));
        Some(length)
    }

    /// Takes a name, a keyword or a parameter; one that belongs to the string behind it has a meaning of its own.
    fn word(&mut self, text: &str) -> Option<usize> {
        let word = text.get(..text.bytes().take_while(|byte| is_in_word(*byte)).count())?;
        let is_parameter = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
        let is_plain = word.strip_prefix('$').map_or(!word.contains('$'), is_parameter);
        if !is_plain || text.as_bytes().get(word.len()) == Some(&b'\'') {
            return None;
        }
        self.text.push_str(word);
        Some(word.len())
    }
}

const fn is_in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$')
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::{
        dialect::GenericDialect,
        tokenizer::{Token, Tokenizer},
    };
    use proptest::prelude::*;

    use super::*;

    /// What the parser sees of a text: its tokens with literals blanked out, and the values of those.
    fn parsed(text: &str) -> Option<(Vec<Token>, Vec<ScalarValue>)> {
        let mut tokens = Tokenizer::new(&GenericDialect {}, text).tokenize().ok()?;
        let mut literals = Vec::new();
        for token in &mut tokens {
            match token {
                Token::SingleQuotedString(value) => literals.push(ScalarValue::Utf8(Some(std::mem::take(value)))),
                Token::Number(digits, _) => literals.push(ScalarValue::Int64(std::mem::take(digits).parse().ok())),
                _ => {}
            }
        }
        Some((tokens, literals))
    }

    #[test]
    fn texts_that_differ_in_their_literals_have_one_shape() {
        let shape = |text: &str| Shape::of(text).unwrap_or_else(|| panic!("{text}"));
        let one = shape("SELECT a, b FROM t WHERE k = 'x' AND n = 7;");
        assert_eq!(one.text, "SELECT a, b FROM t WHERE k = ' AND n = 0;");
        let other = shape("SELECT a, b FROM t WHERE k = 'it''s AND n = 8' AND n = 0042;");
        assert_eq!(one.text, other.text);
        let text = |value: &str| ScalarValue::Utf8(Some(value.to_owned()));
        assert_eq!(one.literals, [text("x"), ScalarValue::Int64(Some(7))]);
        assert_eq!(other.literals, [text("it's AND n = 8"), ScalarValue::Int64(Some(42))]);
        assert_ne!(one.text, shape("SELECT a, b FROM t WHERE k = 3 AND n = 7;").text);
        assert_eq!(shape("k = $1").literals, []);
    }

    #[test]
    fn what_is_not_plain_has_no_shape() {
        for text in [
            "k = 'a' -- b",
            "k = /* ' */ 'a'",
            "k = \"a\"",
            "k = N'a'",
            "k = E'a'",
            "k = 'a\\'b'",
            "k = 'a",
            "k = 1.5",
            "k = 1e5",
            "k = 0x1f",
            "k = -1",
            "k = $$a$$",
            "k = $a$a$a$",
            "t.k = 1",
            "k = 99999999999999999999",
            "k = 'a\0'",
            "é = 1",
            "k = 1'a'",
        ] {
            assert_eq!(Shape::of(text), None, "{text}");
        }
        assert_eq!(Shape::of(&format!("k = '{}'", "x".repeat(MAX_BYTES))), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn texts_of_one_shape_have_the_same_tokens(
            parts in prop::collection::vec(
                prop::sample::select(vec!["'", "''", "1", "0", "a", "k", "$", "$1", " ", "=", "\\", "-", "\"", ".", "e", "x", "N", "\n", "é", "/*", ";", "'b'"]), 0..14
            ),
            instead in "[a-z']{0,3}",
            number in 0_i64..1_000,
        ) {
            let text = parts.concat();
            if let Some(shape) = Shape::of(&text) {
                let (tokens, literals) = parsed(&text).expect("what has a shape has tokens");
                prop_assert_eq!(&shape.literals, &literals);
                let string = format!("'{}'", instead.replace('\'', "''"));
                let mut other = String::new();
                // A zero in a name is no literal.
                let mut before = ' ';
                for c in shape.text.chars() {
                    match c {
                        '\'' => other.push_str(&string),
                        '0' if !before.is_ascii_alphanumeric() && before != '$' => other.push_str(&number.to_string()),
                        c => other.push(c),
                    }
                    before = c;
                }
                prop_assert_eq!(&Shape::of(&other).expect("the same shape").text, &shape.text);
                prop_assert_eq!(parsed(&other).expect("the same tokens").0, tokens);
            }
        }
    }
}
