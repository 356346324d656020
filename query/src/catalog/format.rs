//! How the columns of a source lie in the bytes of its records.
//!
//! Chosen when a source is made, kept with it for ever: whoever reads it later, in whatever dialect, reads the same.

use std::{fmt, str::FromStr};

/// How the columns of a record's key, or of its value, are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// There are none; the bytes mean nothing to SQL.
    None,
    /// One column, as Kafka's own serialisers write it: text as UTF-8, numbers big-endian, bytes as they are.
    Kafka,
    /// A JSON object, one field a column.
    Json,
    /// One column, as a JSON value of its own.
    JsonValue,
    /// A line of values, one a column, quoted where they need it.
    Delimited(Delimiter),
}

impl Format {
    /// The format as users write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Kafka => "kafka",
            Self::Json | Self::JsonValue => "json",
            Self::Delimited(_) => "delimited",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The character between the values of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Delimiter(char);

impl Delimiter {
    /// The comma.
    pub const COMMA: Self = Self(',');

    /// The character itself.
    #[must_use]
    pub const fn get(self) -> char {
        self.0
    }

    /// The delimiter that is this character.
    ///
    /// # Errors
    /// In words, for characters that have another meaning in a line.
    pub fn new(character: char) -> Result<Self, String> {
        match character {
            '"' | '\n' | '\r' | '\0' => Err("a quote, NUL or the end of a line cannot be the delimiter".to_owned()),
            other => Ok(Self(other)),
        }
    }
}

impl FromStr for Delimiter {
    type Err = String;

    /// One character, or `TAB` or `SPACE`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut characters = text.chars();
        match (characters.next(), characters.next()) {
            _ if text.eq_ignore_ascii_case("tab") => Ok(Self('\t')),
            _ if text.eq_ignore_ascii_case("space") => Ok(Self(' ')),
            (Some(one), None) if !one.is_whitespace() => Self::new(one),
            (Some(_), None) | (None, _) => Err("a delimiter cannot be blank; write 'TAB' or 'SPACE'".to_owned()),
            (Some(_), Some(_)) => Err(format!("'{text}' is no delimiter, which is one character, 'TAB' or 'SPACE'")),
        }
    }
}

impl fmt::Display for Delimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            '\t' => f.write_str("TAB"),
            ' ' => f.write_str("SPACE"),
            other => write!(f, "{other}"),
        }
    }
}

/// How leniently values are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reading {
    /// A value of another type than its column's is NULL.
    #[default]
    Exact,
    /// As ksqlDB reads: text becomes a number, a fraction is cut; a value that still does not fit costs the whole record.
    Coerced,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delimiter_is_one_visible_character_or_named() {
        for (text, character) in [("|", '|'), ("tab", '\t'), ("SPACE", ' '), ("ä", 'ä')] {
            let delimiter: Delimiter = text.parse().unwrap();
            assert_eq!(delimiter.get(), character);
            assert_eq!(delimiter.to_string().parse(), Ok(delimiter));
        }
        for text in ["", " ", "\t", "\"", "\n", "||"] {
            assert!(text.parse::<Delimiter>().is_err(), "{text:?}");
        }
    }
}
