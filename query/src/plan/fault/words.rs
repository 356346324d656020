//! Arrow's names of types and DataFusion's way to show literals, as users write both.
//!
//! Called by `plan/fault` for every text of DataFusion's that reaches a user. Pure.

use arrow::datatypes::DataType;

use crate::catalog::type_name;

/// Names of literals of text, as DataFusion shows them: `Utf8("x")`.
const TEXTS: [&str; 3] = ["Utf8", "LargeUtf8", "Utf8View"];

/// Kinds of types, where what stands in brackets behind them is only for Rust's eyes.
const KINDS: [(&[&str], &str); 7] = [
    (&["List", "LargeList", "FixedSizeList", "ListView", "LargeListView"], "ARRAY"),
    (&["Map"], "MAP"),
    (&["Struct"], "STRUCT"),
    (&["Timestamp"], "TIMESTAMP"),
    (&["Time32", "Time64"], "TIME"),
    (&["Decimal32", "Decimal64", "Decimal128", "Decimal256"], "DECIMAL"),
    (&["Duration", "Interval", "IntervalMonthDayNano", "IntervalDayTime", "IntervalYearMonth"], "INTERVAL"),
];

/// A text with the types of our SQL in place of Arrow's (`List(Int64)` is `ARRAY<BIGINT>`), and with literals as they are written
/// (`Int64(1)` is `1`, `Utf8("x")` is `'x'`). What stands in single quotes is somebody's text, and stays.
#[must_use]
pub fn in_our_words(text: &str) -> String {
    let mut said = String::with_capacity(text.len());
    let mut rest = text;
    // Whether a name could begin here.
    let mut at_boundary = true;
    while let Some(first) = rest.chars().next() {
        if at_boundary && first.is_ascii_uppercase() {
            let (word, behind) = rest.split_at(rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len()));
            let (whole, behind_whole) = match in_brackets(behind) {
                Some(inner) => rest.split_at(word.len() + inner.len() + 2),
                None => (word, behind),
            };
            match ours(word, whole) {
                Some(ours) => {
                    said.push_str(&ours);
                    rest = behind_whole;
                }
                None => {
                    said.push_str(word);
                    rest = behind;
                }
            }
            at_boundary = false;
            continue;
        }
        at_boundary = !(first.is_alphanumeric() || first == '_');
        said.push(first);
        rest = rest.get(first.len_utf8()..).unwrap_or_default();
    }
    said
}

/// What a name, or a name with what stands in brackets behind it, is in our words.
fn ours(word: &str, whole: &str) -> Option<String> {
    if let Ok(data_type) = whole.parse::<DataType>() {
        return Some(type_name(&data_type));
    }
    let value = whole.strip_prefix(word)?.strip_prefix('(')?.strip_suffix(')')?;
    if let Some((_, ours)) = KINDS.iter().find(|(theirs, _)| theirs.contains(&word)) {
        return Some((*ours).to_owned());
    }
    let data_type: DataType = word.parse().ok()?;
    if value == "NULL" {
        return Some("NULL".to_owned());
    }
    if TEXTS.contains(&word) {
        let text = value.strip_prefix('"')?.strip_suffix('"')?;
        return Some(format!("'{}'", text.replace('\'', "''")));
    }
    (data_type.is_numeric() || data_type == DataType::Boolean).then(|| value.to_owned())
}

/// What stands between the bracket with which a text begins and the one that closes it; brackets in double quotes do not count.
fn in_brackets(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('(')?;
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for (at, c) in inner.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' => depth += 1,
            ')' if depth == 0 => return inner.get(..at),
            ')' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{Field, IntervalUnit, TimeUnit};

    use super::*;
    use crate::catalog::types::{array_of, map_of, struct_of, time_type, timestamp_type};

    #[test]
    fn every_type_is_written_as_users_write_it() {
        let field = |data_type| Arc::new(Field::new("item", data_type, false));
        for data_type in [
            DataType::Int8,
            DataType::Int32,
            DataType::UInt64,
            DataType::Float32,
            DataType::Utf8,
            DataType::Utf8View,
            DataType::Binary,
            DataType::Boolean,
            DataType::Date32,
            DataType::Null,
            DataType::Decimal128(10, 2),
            DataType::Decimal256(50, 2),
            DataType::Timestamp(TimeUnit::Nanosecond, None),
            DataType::Duration(TimeUnit::Millisecond),
            DataType::Interval(IntervalUnit::MonthDayNano),
            DataType::LargeList(field(DataType::Int64)),
            DataType::FixedSizeList(field(DataType::Int64), 3),
            timestamp_type(),
            time_type(),
            array_of(map_of(DataType::Utf8, struct_of([("a b", DataType::Int32), ("c", array_of(DataType::Binary))]))),
        ] {
            let ours = type_name(&data_type);
            assert_eq!(in_our_words(&format!("it is {data_type}, no other")), format!("it is {ours}, no other"));
            for words in [ours, in_our_words(&format!("{data_type:?}"))] {
                let theirs = ["Int", "Utf", "Float", "List", "Struct", "Map", "Decimal", "Timestamp", "Field"];
                assert!(!theirs.iter().any(|theirs| words.contains(theirs)), "{words}");
            }
        }
        assert_eq!(
            in_our_words("List(non-null Map(\"entries\": non-null Struct(\"key\": non-null Utf8, \"value\": Int32), unsorted))"),
            "ARRAY<MAP<VARCHAR, INTEGER>>"
        );
    }

    #[test]
    fn literals_are_as_they_are_written_and_names_stay() {
        for (theirs, ours) in [
            ("s.a IN Int64(1), Utf8(\"it's (x\")", "s.a IN 1, 'it''s (x'"),
            ("s.x + Float64(1.5) > Boolean(true) OR Int64(NULL) IS NULL", "s.x + 1.5 > true OR NULL IS NULL"),
            // What only looks like one of them.
            ("MyUtf8(1) and my_Int64, Int645 or Listing(x)", "MyUtf8(1) and my_Int64, Int645 or Listing(x)"),
            ("an unclosed List(Int64", "an unclosed List(BIGINT"),
            ("é(Utf8) ü", "é(VARCHAR) ü"),
        ] {
            assert_eq!(in_our_words(theirs), ours);
        }
    }
}
