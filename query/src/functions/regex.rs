//! Regular expressions with Java's habits: look-around, back references, `\Q..\E`, `\p{Alpha}`, replacements with `$1`.
//!
//! `\d`, `\w` and `\s` are of ASCII, and a dot is no line's end, as in Java. A search that goes back too often fails its row, so
//! that no pattern holds a query up; a pattern that is none fails every row that has it.

use std::{borrow::Cow, cell::RefCell, rc::Rc};

use arrow::array::ArrayRef;
use datafusion::common::Result;
use fancy_regex::{Captures, Regex, RegexBuilder};

use super::{
    compiled::Compiled,
    definition::{Definition, form},
    input::{Fault, Input, Str, Text},
};
use crate::plan::MAX_VALUE_BYTES;

/// Longest pattern.
const MAX_PATTERN_BYTES: usize = 8 << 10;
/// Largest automaton of a pattern, in bytes.
const MAX_AUTOMATON: usize = 1 << 20;
/// Most times that a search goes back before it is given up.
const MAX_STEPS: usize = 100_000;

pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new(
        "regexp_extract",
        "What a pattern matches first in a text, or a group of it; NULL if nothing does.",
        &[form("pattern VARCHAR, text VARCHAR -> VARCHAR", extract), form("pattern VARCHAR, text VARCHAR, part INT -> VARCHAR", extract)],
        &[("regexp_extract('(\\w+) (\\w+)', 'hello world', 2)", "world")],
    ),
    Definition::new(
        "regexp_extract_all",
        "Everything that a pattern matches in a text, or a group of each match.",
        &[
            form("pattern VARCHAR, text VARCHAR -> ARRAY<VARCHAR>", extract_all),
            form("pattern VARCHAR, text VARCHAR, part INT -> ARRAY<VARCHAR>", extract_all),
        ],
        &[("regexp_extract_all('[0-9]+', 'a1b22')", "[1, 22]")],
    ),
    Definition::new(
        "regexp_replace",
        "A text with everything that a pattern matches replaced; `$1` in the replacement is the first group.",
        &[form("text VARCHAR, pattern VARCHAR, replacement VARCHAR -> VARCHAR", replace)],
        &[("regexp_replace('2024-01', '(\\d+)-(\\d+)', '$2/$1')", "01/2024")],
    )
    .only_ksql(),
    Definition::new(
        "regexp_split_to_array",
        "The parts of a text between the matches of a pattern.",
        &[form("text VARCHAR, pattern VARCHAR -> ARRAY<VARCHAR>", split)],
        &[("regexp_split_to_array('a1b22c', '[0-9]+')", "[a, b, c]")],
    ),
];

thread_local! {
    static PATTERNS: RefCell<Compiled<Regex>> = const { RefCell::new(Compiled::new()) };
}

fn compiled(pattern: &str) -> std::result::Result<Rc<Regex>, Fault> {
    PATTERNS.with_borrow_mut(|patterns| patterns.get(pattern, compile)).ok_or(Fault)
}

fn compile(pattern: &str) -> Option<Regex> {
    if pattern.len() > MAX_PATTERN_BYTES {
        return None;
    }
    let mut builder = RegexBuilder::new(&translated(pattern)?);
    builder.backtrack_limit(MAX_STEPS).delegate_size_limit(MAX_AUTOMATON).delegate_dfa_size_limit(MAX_AUTOMATON);
    builder.build().ok()
}

/// A pattern of Java's in the words of ours; none if it says what ours cannot.
fn translated(pattern: &str) -> Option<String> {
    let mut made = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern.chars().peekable();
    // Brackets within brackets.
    let mut class = 0_usize;
    let dot = if pattern.contains("(?s") { "." } else { "[^\\n\\r\\u{85}\\u{2028}\\u{2029}]" };
    while let Some(one) = rest.next() {
        match one {
            '\\' => match rest.next()? {
                'Q' => {
                    let mut quoted: String = rest.by_ref().collect();
                    let behind = quoted.find("\\E").map(|end| {
                        let behind = quoted.get(end + 2..).unwrap_or("").to_owned();
                        quoted.truncate(end);
                        behind
                    });
                    made.push_str(&fancy_regex::escape(&quoted));
                    // What follows is a pattern again.
                    return Some(match behind {
                        Some(behind) if class == 0 => made + &translated(&behind)?,
                        Some(_) => return None,
                        None => made,
                    });
                }
                'd' => made.push_str(if class > 0 { "0-9" } else { "[0-9]" }),
                'w' => made.push_str(if class > 0 { "A-Za-z0-9_" } else { "[A-Za-z0-9_]" }),
                's' => made.push_str(if class > 0 { " \\t\\n\\x0B\\f\\r" } else { "[ \\t\\n\\x0B\\f\\r]" }),
                'h' => made.push_str(if class > 0 { " \\t\\u{A0}" } else { "[ \\t\\u{A0}]" }),
                'D' => made.push_str("[^0-9]"),
                'W' => made.push_str("[^A-Za-z0-9_]"),
                'S' => made.push_str("[^ \\t\\n\\x0B\\f\\r]"),
                'R' => made.push_str("(?:\\r\\n|[\\n\\x0B\\f\\r\\u{85}\\u{2028}\\u{2029}])"),
                'Z' => made.push_str("(?=\\n?\\z)"),
                'e' => made.push_str("\\x1B"),
                'u' => {
                    let digits: String = rest.by_ref().take(4).collect();
                    made.push_str(&format!("\\u{{{digits}}}"));
                }
                '0' => {
                    let mut code = 0;
                    while let Some(digit) = rest.next_if(|next| code < 32 && next.is_digit(8)) {
                        code = code * 8 + digit.to_digit(8)?;
                    }
                    made.push_str(&format!("\\u{{{code:x}}}"));
                }
                kind @ ('p' | 'P') => made.push_str(&property(kind, &mut rest)?),
                other => {
                    made.push('\\');
                    made.push(other);
                }
            },
            '[' => {
                class += 1;
                made.push('[');
                if let Some(not) = rest.next_if_eq(&'^') {
                    made.push(not);
                }
            }
            ']' if class > 0 => {
                class -= 1;
                made.push(']');
            }
            '.' if class == 0 => made.push_str(dot),
            other => made.push(other),
        }
    }
    Some(made)
}

/// `\p{...}` by Java's names.
fn property(kind: char, rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<String> {
    let name: String = match rest.next()? {
        '{' => rest.take_while(|next| *next != '}').collect(),
        letter => letter.to_string(),
    };
    let posix = match name.as_str() {
        "Lower" => "lower",
        "Upper" => "upper",
        "ASCII" => "ascii",
        "Alpha" => "alpha",
        "Digit" => "digit",
        "Alnum" => "alnum",
        "Punct" => "punct",
        "Graph" => "graph",
        "Print" => "print",
        "Blank" => "blank",
        "Cntrl" => "cntrl",
        "XDigit" => "xdigit",
        "Space" => "space",
        other => {
            let other = other.strip_prefix("Is").unwrap_or(other);
            return Some(format!("\\{kind}{{{other}}}"));
        }
    };
    Some(if kind == 'p' { format!("[[:{posix}:]]") } else { format!("[[:^{posix}:]]") })
}

/// Which group is wanted of a row; the whole match unless told.
enum Wanted {
    Group(usize),
    Null,
}

fn wanted(input: &Input<'_>) -> Result<impl Fn(usize) -> std::result::Result<Wanted, Fault>> {
    let groups = if input.len() > 2 { Some(input.column::<i32>(2)?) } else { None };
    Ok(move |row: usize| match &groups {
        None => Ok(Wanted::Group(0)),
        Some(groups) => match groups.get(row) {
            Some(group) => usize::try_from(group).map(Wanted::Group).map_err(|_| Fault),
            None => Ok(Wanted::Null),
        },
    })
}

fn extract(input: &Input<'_>) -> Result<ArrayRef> {
    let (pattern, text, wanted) = (input.column::<Str>(0)?, input.column::<Str>(1)?, wanted(input)?);
    input.each(|row| {
        let (Some(pattern), Some(text), Wanted::Group(group)) = (pattern.get(row), text.get(row), wanted(row)?) else { return Ok(None) };
        let found = compiled(pattern)?.captures(text).map_err(|_| Fault)?;
        Ok(found.and_then(|found| found.get(group)).map(|part| part.as_str()))
    })
}

fn extract_all(input: &Input<'_>) -> Result<ArrayRef> {
    let (pattern, text, wanted) = (input.column::<Str>(0)?, input.column::<Str>(1)?, wanted(input)?);
    input.each(|row| {
        let (Some(pattern), Some(text), Wanted::Group(group)) = (pattern.get(row), text.get(row), wanted(row)?) else { return Ok(None) };
        let regex = compiled(pattern)?;
        if group >= regex.captures_len() {
            return Ok(None);
        }
        let mut all = Vec::new();
        for found in regex.captures_iter(text) {
            all.push(found.map_err(|_| Fault)?.get(group).map(|part| Cow::Borrowed(part.as_str())));
        }
        Ok(Some(all))
    })
}

fn replace(input: &Input<'_>) -> Result<ArrayRef> {
    let (text, pattern, replacement) = (input.column::<Str>(0)?, input.column::<Str>(1)?, input.column::<Str>(2)?);
    input.each(|row| match (text.get(row), pattern.get(row), replacement.get(row)) {
        (Some(text), Some(pattern), Some(replacement)) => replaced(text, &*compiled(pattern)?, replacement).map(Some),
        _ => Ok(None),
    })
}

fn replaced(text: &str, regex: &Regex, replacement: &str) -> std::result::Result<String, Fault> {
    let pieces = pieces(replacement, regex)?;
    let limit = MAX_VALUE_BYTES.max(text.len());
    let (mut made, mut behind) = (Text::default(), 0);
    for found in regex.captures_iter(text) {
        let found = found.map_err(|_| Fault)?;
        let whole = found.get(0).ok_or(Fault)?;
        made.push(text.get(behind..whole.start()).unwrap_or(""), limit)?;
        for piece in &pieces {
            made.push(piece.of(&found), limit)?;
        }
        behind = whole.end();
    }
    made.push(text.get(behind..).unwrap_or(""), limit)?;
    Ok(made.into_string())
}

/// A part of a replacement.
enum Piece {
    Text(String),
    Group(usize),
}

impl Piece {
    fn of<'t>(&'t self, found: &Captures<'t>) -> &'t str {
        match self {
            Self::Text(text) => text,
            Self::Group(group) => found.get(*group).map_or("", |part| part.as_str()),
        }
    }
}

/// A replacement, read: `$1` and `${name}` are groups, a backslash takes the next character as it is.
fn pieces(replacement: &str, regex: &Regex) -> std::result::Result<Vec<Piece>, Fault> {
    let groups = regex.captures_len();
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = replacement.chars().peekable();
    while let Some(one) = rest.next() {
        match one {
            '\\' => plain.push(rest.next().ok_or(Fault)?),
            '$' => {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
                if rest.next_if_eq(&'{').is_some() {
                    let name: String = rest.by_ref().take_while(|next| *next != '}').collect();
                    let place = regex.capture_names().position(|known| known == Some(name.as_str()));
                    pieces.push(Piece::Group(place.ok_or(Fault)?));
                    continue;
                }
                let first = rest.next().and_then(|digit| digit.to_digit(10)).ok_or(Fault)?;
                let mut group = usize::try_from(first).map_err(|_| Fault)?;
                // More digits belong to the number while there is such a group.
                while let Some(digit) = rest.peek().and_then(|next| next.to_digit(10)).and_then(|digit| usize::try_from(digit).ok()) {
                    if group * 10 + digit >= groups {
                        break;
                    }
                    group = group * 10 + digit;
                    rest.next();
                }
                if group >= groups {
                    return Err(Fault);
                }
                pieces.push(Piece::Group(group));
            }
            other => plain.push(other),
        }
    }
    pieces.push(Piece::Text(plain));
    Ok(pieces)
}

fn split(input: &Input<'_>) -> Result<ArrayRef> {
    let (text, pattern) = (input.column::<Str>(0)?, input.column::<Str>(1)?);
    input.each(|row| {
        let (Some(text), Some(pattern)) = (text.get(row), pattern.get(row)) else { return Ok(None) };
        parts(text, &*compiled(pattern)?).map(Some)
    })
}

/// The parts between matches. Of a pattern that matches nothing at all Java leaves out an empty part at the front and those at
/// the back, so that such a pattern splits a text into its characters.
fn parts<'t>(text: &'t str, regex: &Regex) -> std::result::Result<Vec<Option<Cow<'t, str>>>, Fault> {
    let matches_nothing = regex.is_match("").map_err(|_| Fault)?;
    let (mut parts, mut behind) = (Vec::new(), 0);
    for found in regex.find_iter(text) {
        let found = found.map_err(|_| Fault)?;
        if matches_nothing && found.end() == 0 || found.start() == found.end() && found.start() == text.len() {
            continue;
        }
        parts.push(text.get(behind..found.start()).unwrap_or(""));
        behind = found.end();
    }
    parts.push(text.get(behind..).unwrap_or(""));
    while matches_nothing && parts.len() > 1 && parts.last().is_some_and(|last| last.is_empty()) {
        parts.pop();
    }
    Ok(parts.into_iter().map(|part| Some(Cow::Borrowed(part))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> Option<String> {
        compile(pattern)?.find(text).ok()?.map(|found| found.as_str().to_owned())
    }

    #[test]
    fn patterns_mean_what_they_mean_in_java() {
        for (pattern, text, found) in [
            ("\\d+", "٣12", Some("12")),
            ("[\\d\\s]+", "a1 2b", Some("1 2")),
            ("[^\\w]", "ab-c", Some("-")),
            ("a.c", "a\rc abc", Some("abc")),
            ("(?s)a.c", "a\rc", Some("a\rc")),
            ("\\Qa.c\\E+", "abc a.cc", Some("a.cc")),
            ("\\p{Upper}\\p{Lower}+", "the Fox", Some("Fox")),
            ("\\p{IsGreek}", "aλ", Some("λ")),
            ("(\\w)\\1", "abba", Some("bb")),
            ("(?<=\\$)[0-9]+", "EUR 5 $7", Some("7")),
            ("\\u0041", "A", Some("A")),
            ("[a-z&&[^b]]+", "bac", Some("ac")),
            ("end\\Z", "the end\n", Some("end")),
        ] {
            assert_eq!(matches(pattern, text).as_deref(), found, "{pattern}");
        }
    }

    #[test]
    fn what_takes_too_long_or_is_no_pattern_is_given_up() {
        let nested = compile("(a+)+\\1b").unwrap();
        assert!(nested.find(&"a".repeat(60)).is_err());
        for wrong in ["(", "[a", "\\", "(a{1000}){1000}", &"a".repeat(8_193), "\\p{NoSuch}"] {
            assert!(compile(wrong).is_none(), "{}", &wrong[..wrong.len().min(20)]);
        }
        assert!(compile(&"a".repeat(8_192)).is_some());
    }

    #[test]
    fn a_replacement_names_groups() {
        let regex = compile("(?<first>\\w)(\\w)").unwrap();
        assert_eq!(replaced("abcd", &regex, "$2$1"), Ok("badc".to_owned()));
        assert_eq!(replaced("ab", &regex, "${first}\\$$11"), Ok("a$a1".to_owned()));
        for wrong in ["$3", "$", "\\", "${no}", "$x"] {
            assert_eq!(replaced("ab", &regex, wrong), Err(Fault), "{wrong}");
        }
        assert_eq!(replaced(&"ab".repeat(1000), &regex, &"x".repeat(10_000)), Err(Fault));
    }

    #[test]
    fn a_text_is_split_as_java_splits_it() {
        let split =
            |text: &'static str, pattern: &str| parts(text, &compile(pattern).unwrap()).unwrap().into_iter().flatten().collect::<Vec<_>>();
        assert_eq!(split("aabcda", "(ab|cd)"), ["a", "", "a"]);
        assert_eq!(split(",a,,", ","), ["", "a", "", ""]);
        assert_eq!(split("abc", ""), ["a", "b", "c"]);
        assert_eq!(split("abc", "x*"), ["a", "b", "c"]);
        assert_eq!(split("", "x"), [""]);
    }
}
