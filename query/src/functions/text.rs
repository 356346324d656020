//! Functions of texts. Lengths and places are in characters, and the first character is at 1.

use std::borrow::Cow;

use arrow::array::ArrayRef;
use datafusion::common::Result;
use md5::{Digest as _, Md5};

use super::{
    definition::{Definition, form},
    input::{Bytes, Fault, Input, Str, Text},
};
use crate::plan::{MAX_VALUE_BYTES, MAX_WORK_BYTES};

pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new(
        "chr",
        "The character of a Unicode code point, given as a number or as `\\uXXXX`; NULL if there is none.",
        &[
            form("code INT -> VARCHAR", |input| input.map1::<i32, _>(|code| u32::try_from(code).ok().and_then(char::from_u32).map(String::from))),
            form("code VARCHAR -> VARCHAR", |input| input.map1::<Str, _>(from_escapes)),
        ],
        &[("chr(75)", "K"), ("chr('\\u004b')", "K")],
    ),
    Definition::new(
        "concat",
        "Texts, or bytes, after each other; NULL counts as empty.",
        &[form("text VARCHAR, more VARCHAR... -> VARCHAR", concat), form("bytes BYTES, more BYTES... -> BYTES", concat_bytes)],
        &[("concat('a', NULL, 'b')", "ab")],
    )
    .only_ksql(),
    Definition::new(
        "concat_ws",
        "Texts, or bytes, with a separator between them; NULLs are left out.",
        &[
            form("separator VARCHAR, text VARCHAR, more VARCHAR... -> VARCHAR", concat_ws),
            form("separator BYTES, bytes BYTES, more BYTES... -> BYTES", concat_ws_bytes),
        ],
        &[("concat_ws(', ', 'a', NULL, 'b')", "a, b")],
    )
    .only_ksql(),
    Definition::new(
        "elt",
        "The text at a place among those given, the first at 1; NULL if there is none.",
        &[form("place INT, texts VARCHAR... -> VARCHAR", |input| {
            let (place, texts) = (input.column::<i32>(0)?, input.columns::<Str>(1)?);
            input.each(|row| {
                let at = usize::try_from(place.get(row)?).ok()?.checked_sub(1)?;
                texts.get(at)?.get(row)
            })
        })],
        &[("elt(2, 'a', 'b')", "b")],
    ),
    Definition::new(
        "field",
        "The place of a text among those that follow it, the first at 1; 0 if it is not there.",
        &[form("text VARCHAR, texts VARCHAR... -> INT", |input| {
            let (text, texts) = (input.column::<Str>(0)?, input.columns::<Str>(1)?);
            input.each(|row| {
                let wanted = text.get(row);
                let found = texts.iter().position(|one| wanted.is_some() && one.get(row) == wanted);
                found.and_then(|at| i32::try_from(at + 1).ok()).unwrap_or(0)
            })
        })],
        &[("field('b', 'a', 'b')", "2")],
    ),
    Definition::new(
        "initcap",
        "A text with the first letter of each word a capital and all others small; words are what white space separates.",
        &[form("text VARCHAR -> VARCHAR", |input| input.map1::<Str, _>(initcap))],
        &[("initcap('the quick-brown FOX')", "The Quick-brown Fox")],
    )
    .only_ksql(),
    Definition::new(
        "instr",
        "The place at which a text contains another, 0 if it does not: from a place on, backward from the end if that is negative, and of so many occurrences the last.",
        &[
            form("text VARCHAR, part VARCHAR -> INT", instr),
            form("text VARCHAR, part VARCHAR, from INT -> INT", instr),
            form("text VARCHAR, part VARCHAR, from INT, occurrence INT -> INT", instr),
        ],
        &[("instr('corporate floor', 'or', 3, 2)", "14"), ("instr('corporate floor', 'or', -3)", "5")],
    )
    .only_ksql(),
    Definition::new(
        "lcase",
        "A text in small letters.",
        &[form("text VARCHAR -> VARCHAR", |input| input.map1::<Str, _>(str::to_lowercase))],
        &[("lcase('Ab')", "ab")],
    ),
    Definition::new(
        "len",
        "The number of characters of a text, or of bytes.",
        &[
            form("text VARCHAR -> INT", |input| input.map1::<Str, _>(|text| count(text.chars().count()))),
            form("bytes BYTES -> INT", |input| input.map1::<Bytes, _>(|bytes| count(bytes.len()))),
        ],
        &[("len('abc')", "3")],
    ),
    Definition::new(
        "lpad",
        "A text, or bytes, padded at the left to a length, or cut to it; NULL if the length is negative or the padding empty.",
        &[
            form("text VARCHAR, length INT, padding VARCHAR -> VARCHAR", |input| {
                input.map3::<Str, i32, Str, _>(|text, length, padding| pad(text, length, padding, Side::Left))
            }),
            form("bytes BYTES, length INT, padding BYTES -> BYTES", |input| {
                input.map3::<Bytes, i32, Bytes, _>(|bytes, length, padding| pad_bytes(bytes, length, padding, Side::Left))
            }),
        ],
        &[("lpad('7', 3, '0')", "007")],
    ),
    Definition::new(
        "md5",
        "The MD5 digest of a text, in hexadecimal digits.",
        &[form("text VARCHAR -> VARCHAR", |input| input.map1::<Str, _>(|text| hex(&Md5::digest(text.as_bytes()))))],
        &[("md5('')", "d41d8cd98f00b204e9800998ecf8427e")],
    ),
    Definition::new(
        "replace",
        "A text with each occurrence of another replaced.",
        &[form("text VARCHAR, old VARCHAR, new VARCHAR -> VARCHAR", |input| input.map3::<Str, Str, Str, _>(replace))],
        &[("replace('foo', 'o', 'e')", "fee")],
    )
    .only_ksql(),
    Definition::new(
        "rpad",
        "A text, or bytes, padded at the right to a length, or cut to it; NULL if the length is negative or the padding empty.",
        &[
            form("text VARCHAR, length INT, padding VARCHAR -> VARCHAR", |input| {
                input.map3::<Str, i32, Str, _>(|text, length, padding| pad(text, length, padding, Side::Right))
            }),
            form("bytes BYTES, length INT, padding BYTES -> BYTES", |input| {
                input.map3::<Bytes, i32, Bytes, _>(|bytes, length, padding| pad_bytes(bytes, length, padding, Side::Right))
            }),
        ],
        &[("rpad('7', 3, '0')", "700")],
    ),
    Definition::new(
        "split",
        "The parts of a text, or of bytes, between the occurrences of a delimiter; an empty one separates every character.",
        &[
            form("text VARCHAR, delimiter VARCHAR -> ARRAY<VARCHAR>", |input| {
                let (text, delimiter) = (input.column::<Str>(0)?, input.column::<Str>(1)?);
                input.each(|row| Some(split(text.get(row)?, delimiter.get(row)?)))
            }),
            form("bytes BYTES, delimiter BYTES -> ARRAY<BYTES>", |input| {
                let (bytes, delimiter) = (input.column::<Bytes>(0)?, input.column::<Bytes>(1)?);
                input.each(|row| match (bytes.get(row), delimiter.get(row)) {
                    (Some(bytes), Some(delimiter)) => split_bytes(bytes, delimiter).map(Some),
                    _ => Ok(None),
                })
            }),
        ],
        &[("split('a.b', '.')", "[a, b]")],
    ),
    Definition::new(
        "substring",
        "A text, or bytes, from a place on, at most so long; a negative place counts from the end.",
        &[
            form("text VARCHAR, from INT -> VARCHAR", |input| {
                let (text, from) = (input.column::<Str>(0)?, input.column::<i32>(1)?);
                input.each(|row| Some(part(text.get(row)?, from.get(row)?, i32::MAX)))
            }),
            form("text VARCHAR, from INT, length INT -> VARCHAR", |input| {
                let (text, from, length) = (input.column::<Str>(0)?, input.column::<i32>(1)?, input.column::<i32>(2)?);
                input.each(|row| Some(part(text.get(row)?, from.get(row)?, length.get(row)?)))
            }),
            form("bytes BYTES, from INT -> BYTES", |input| {
                let (bytes, from) = (input.column::<Bytes>(0)?, input.column::<i32>(1)?);
                input.each(|row| Some(part_of_bytes(bytes.get(row)?, from.get(row)?, i32::MAX)))
            }),
            form("bytes BYTES, from INT, length INT -> BYTES", |input| {
                let (bytes, from, length) = (input.column::<Bytes>(0)?, input.column::<i32>(1)?, input.column::<i32>(2)?);
                input.each(|row| Some(part_of_bytes(bytes.get(row)?, from.get(row)?, length.get(row)?)))
            }),
        ],
        &[("substring('stream', 2, 3)", "tre"), ("substring('stream', -2)", "am")],
    )
    .only_ksql(),
    Definition::new(
        "trim",
        "A text without the white space and control characters at its ends.",
        &[form("text VARCHAR -> VARCHAR", |input| {
            let text = input.column::<Str>(0)?;
            input.each(|row| text.get(row).map(|text| text.trim_matches(|one| one <= ' ')))
        })],
        &[("trim('  a b ')", "a b")],
    )
    .only_ksql(),
    Definition::new(
        "ucase",
        "A text in capital letters.",
        &[form("text VARCHAR -> VARCHAR", |input| input.map1::<Str, _>(str::to_uppercase))],
        &[("ucase('Ab')", "AB")],
    ),
];

/// At which end padding goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

pub(super) fn count(length: usize) -> i32 {
    i32::try_from(length).unwrap_or(i32::MAX)
}

/// Bytes in hexadecimal digits, two a byte, in small letters.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a text does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// One character from `\uXXXX`, or from two of them that are a surrogate pair.
fn from_escapes(text: &str) -> Option<String> {
    let units = text.strip_prefix("\\u")?.split("\\u");
    let units: Option<Vec<u16>> = units.map(|unit| if unit.len() == 4 { u16::from_str_radix(unit, 16).ok() } else { None }).collect();
    let decoded = String::from_utf16(&units?).ok()?;
    (decoded.chars().count() == 1).then_some(decoded)
}

fn concat(input: &Input<'_>) -> Result<ArrayRef> {
    let texts = input.columns::<Str>(0)?;
    input.each(|row| {
        let mut all = Text::default();
        let given = texts.iter().filter_map(|one| one.get(row));
        let limit = MAX_VALUE_BYTES.max(given.clone().map(str::len).max().unwrap_or(0));
        for text in given {
            all.push(text, limit)?;
        }
        Ok(all.into_string())
    })
}

fn concat_bytes(input: &Input<'_>) -> Result<ArrayRef> {
    let parts = input.columns::<Bytes>(0)?;
    input.each(|row| {
        let given = parts.iter().filter_map(|one| one.get(row));
        joined_bytes(given, &[])
    })
}

fn concat_ws(input: &Input<'_>) -> Result<ArrayRef> {
    let (separator, texts) = (input.column::<Str>(0)?, input.columns::<Str>(1)?);
    input.each(|row| {
        let Some(separator) = separator.get(row) else { return Ok(None) };
        joined(texts.iter().filter_map(|one| one.get(row)), separator).map(Some)
    })
}

fn concat_ws_bytes(input: &Input<'_>) -> Result<ArrayRef> {
    let (separator, parts) = (input.column::<Bytes>(0)?, input.columns::<Bytes>(1)?);
    input.each(|row| {
        let Some(separator) = separator.get(row) else { return Ok(None) };
        joined_bytes(parts.iter().filter_map(|one| one.get(row)), separator).map(Some)
    })
}

/// Texts with a separator between them.
pub(super) fn joined<'a>(texts: impl Iterator<Item = &'a str> + Clone, separator: &str) -> std::result::Result<String, Fault> {
    let limit = MAX_VALUE_BYTES.max(texts.clone().map(str::len).max().unwrap_or(0));
    let mut all = Text::default();
    for (at, text) in texts.enumerate() {
        if at > 0 {
            all.push(separator, limit)?;
        }
        all.push(text, limit)?;
    }
    Ok(all.into_string())
}

fn joined_bytes<'a>(parts: impl Iterator<Item = &'a [u8]> + Clone, separator: &[u8]) -> std::result::Result<Vec<u8>, Fault> {
    let limit = MAX_VALUE_BYTES.max(parts.clone().map(<[u8]>::len).max().unwrap_or(0));
    let mut all = Vec::new();
    for (at, part) in parts.enumerate() {
        if at > 0 {
            all.extend_from_slice(separator);
        }
        all.extend_from_slice(part);
        if all.len() > limit {
            return Err(Fault);
        }
    }
    Ok(all)
}

fn initcap(text: &str) -> String {
    let mut made = String::with_capacity(text.len());
    let mut begins = true;
    for one in text.chars() {
        if begins {
            made.extend(one.to_uppercase());
        } else {
            made.extend(one.to_lowercase());
        }
        begins = one.is_whitespace();
    }
    made
}

fn instr(input: &Input<'_>) -> Result<ArrayRef> {
    let (text, part) = (input.column::<Str>(0)?, input.column::<Str>(1)?);
    let numbers = input.columns::<i32>(2)?;
    let number = |at: usize, row: usize| match numbers.get(at) {
        Some(column) => column.get(row),
        None => Some(1),
    };
    input.each(|row| match (text.get(row), part.get(row), number(0, row), number(1, row)) {
        (Some(text), Some(part), Some(from), Some(occurrence)) => place_of(text, part, from, occurrence),
        _ => Ok(0),
    })
}

/// Where a part occurs for the n-th time, from a place on or, if that is negative, from there back; 0 if it does not.
fn place_of(text: &str, part: &str, from: i32, occurrence: i32) -> std::result::Result<i32, Fault> {
    let Some(times) = usize::try_from(occurrence).ok().filter(|times| *times > 0 && from != 0) else { return Ok(0) };
    // Each search looks at the whole part first.
    if times.min(text.len()).saturating_mul(part.len()) > MAX_WORK_BYTES {
        return Err(Fault);
    }
    let distance = usize::try_from(from.unsigned_abs()).unwrap_or(usize::MAX);
    let found = if from > 0 {
        let starts = text.char_indices().map(|(at, _)| at).chain([text.len()]);
        starts.clone().nth(distance - 1).and_then(|start| occurrence_behind(text, part, start, times))
    } else {
        let before = text.chars().count().checked_sub(distance);
        before.and_then(|place| text.char_indices().nth(place)).and_then(|(at, _)| occurrence_before(text, part, at, times))
    };
    Ok(found.and_then(|at| text.get(..at)).map_or(0, |before| count(before.chars().count() + 1)))
}

/// Where the n-th occurrence begins that does not begin before `start`; occurrences may overlap.
fn occurrence_behind(text: &str, part: &str, start: usize, times: usize) -> Option<usize> {
    let mut start = start;
    for _ in 1..times {
        let at = start + text.get(start..)?.find(part)?;
        start = at + text.get(at..)?.chars().next()?.len_utf8();
    }
    Some(start + text.get(start..)?.find(part)?)
}

/// Where the n-th occurrence from the back begins that does not begin behind `last`.
fn occurrence_before(text: &str, part: &str, last: usize, times: usize) -> Option<usize> {
    let mut last = last;
    for _ in 1..times {
        let at = text.get(..boundary(text, last + part.len()))?.rfind(part)?;
        last = text.get(..at)?.char_indices().next_back()?.0;
    }
    text.get(..boundary(text, last + part.len()))?.rfind(part)
}

/// The last end of a character that is not behind a place.
fn boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn pad(text: &str, length: i32, padding: &str, side: Side) -> std::result::Result<Option<String>, Fault> {
    let Ok(length) = usize::try_from(length) else { return Ok(None) };
    if padding.is_empty() {
        return Ok(None);
    }
    if length > MAX_VALUE_BYTES.max(text.len()) {
        return Err(Fault);
    }
    let kept: String = text.chars().take(length).collect();
    let missing = length - kept.chars().count();
    let filler: String = padding.chars().cycle().take(missing).collect();
    Ok(Some(match side {
        Side::Left => filler + &kept,
        Side::Right => kept + &filler,
    }))
}

fn pad_bytes(bytes: &[u8], length: i32, padding: &[u8], side: Side) -> std::result::Result<Option<Vec<u8>>, Fault> {
    let Ok(length) = usize::try_from(length) else { return Ok(None) };
    if padding.is_empty() {
        return Ok(None);
    }
    if length > MAX_VALUE_BYTES.max(bytes.len()) {
        return Err(Fault);
    }
    let kept = bytes.iter().take(length);
    let filler = padding.iter().cycle().take(length.saturating_sub(bytes.len()));
    Ok(Some(match side {
        Side::Left => filler.chain(kept).copied().collect(),
        Side::Right => kept.chain(filler).copied().collect(),
    }))
}

/// Counts first: what it makes is not made if it is too large.
fn replace(text: &str, old: &str, new: &str) -> std::result::Result<String, Fault> {
    if new.len() > old.len() {
        let found = text.matches(old).count();
        let made = text.len().saturating_add(found.saturating_mul(new.len() - old.len()));
        if made > MAX_VALUE_BYTES.max(text.len()) {
            return Err(Fault);
        }
    }
    Ok(text.replace(old, new))
}

fn split<'a>(text: &'a str, delimiter: &str) -> Vec<Option<Cow<'a, str>>> {
    // One byte is found many times faster than a text.
    if let [byte] = delimiter.as_bytes() {
        return text.split(char::from(*byte)).map(|part| Some(Cow::Borrowed(part))).collect();
    }
    if !delimiter.is_empty() {
        return text.split(delimiter).map(|part| Some(Cow::Borrowed(part))).collect();
    }
    if text.is_empty() {
        return vec![Some(Cow::Borrowed(""))];
    }
    text.split_inclusive(|_| true).map(|part| Some(Cow::Borrowed(part))).collect()
}

fn split_bytes<'a>(bytes: &'a [u8], delimiter: &[u8]) -> std::result::Result<Vec<Option<&'a [u8]>>, Fault> {
    if delimiter.is_empty() {
        return Ok(if bytes.is_empty() { vec![Some(bytes)] } else { bytes.chunks(1).map(Some).collect() });
    }
    if bytes.len().saturating_mul(delimiter.len()) > MAX_WORK_BYTES {
        return Err(Fault);
    }
    let mut parts = Vec::new();
    let (mut begin, mut at) = (0, 0);
    while let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= delimiter.len()) {
        if rest.starts_with(delimiter) {
            parts.push(bytes.get(begin..at));
            at += delimiter.len();
            begin = at;
        } else {
            at += 1;
        }
    }
    parts.push(bytes.get(begin..));
    Ok(parts)
}

/// The range of a part: it begins at 1, or counts from the end; it never leaves what there is.
fn range_of(total: usize, from: i32, length: i32) -> std::ops::Range<usize> {
    let total = i64::try_from(total).unwrap_or(i64::MAX);
    let begin = if from < 0 { (total + i64::from(from)).max(0) } else { (i64::from(from) - 1).clamp(0, total) };
    let end = (begin + i64::from(length)).clamp(begin, total);
    usize::try_from(begin).unwrap_or(0)..usize::try_from(end).unwrap_or(0)
}

fn part(text: &str, from: i32, length: i32) -> &str {
    let range = range_of(text.chars().count(), from, length);
    let byte = |place: usize| text.char_indices().nth(place).map_or(text.len(), |(at, _)| at);
    text.get(byte(range.start)..byte(range.end)).unwrap_or("")
}

fn part_of_bytes(bytes: &[u8], from: i32, length: i32) -> &[u8] {
    bytes.get(range_of(bytes.len(), from, length)).unwrap_or(&[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_found_forward_and_backward() {
        let place = |text: &str, part: &str, from, occurrence| place_of(text, part, from, occurrence).unwrap();
        let text = "corporate floor";
        assert_eq!([place(text, "or", 1, 1), place(text, "or", 3, 1), place(text, "or", 3, 2), place(text, "or", 3, 3)], [2, 5, 14, 0]);
        assert_eq!(
            [place(text, "or", -1, 1), place(text, "or", -3, 1), place(text, "or", -3, 2), place(text, "or", -16, 1)],
            [14, 5, 2, 0]
        );
        assert_eq!([place(text, "or", 0, 1), place(text, "or", 1, 0), place("äöü", "ü", 1, 1), place("", "x", -1, 1)], [0, 0, 3, 0]);
        assert_eq!(
            [place("x", "x", i32::MIN, 1), place("aaa", "aa", 1, 2), place("aaa", "aa", -1, 2), place("aé", "aaa", -1, 1)],
            [0, 2, 1, 0]
        );
        assert_eq!(place_of(&"a".repeat(1 << 20), &"a".repeat(1 << 19), 1, 1 << 19), Err(Fault));
    }

    #[test]
    fn a_part_of_a_text_never_leaves_it() {
        assert_eq!(
            [part("hélas", 2, 2), part("hélas", -2, 9), part("hélas", 0, 2), part("hélas", 9, 1), part("hélas", 2, -1)],
            ["él", "as", "hé", "", ""]
        );
        assert_eq!(part("hélas", i32::MIN, i32::MAX), "hélas");
        assert_eq!(part_of_bytes(b"abc", -2, 1), b"b");
    }

    #[test]
    fn padding_is_bounded_before_it_is_made() {
        assert_eq!(pad("foo", 7, "Bar", Side::Left), Ok(Some("BarBfoo".to_owned())));
        assert_eq!(pad("foo", 2, "Bar", Side::Right), Ok(Some("fo".to_owned())));
        assert_eq!(pad("foo", -1, "Bar", Side::Right), Ok(None));
        assert_eq!(pad("foo", 5, "", Side::Right), Ok(None));
        assert_eq!(pad("foo", i32::MAX, "x", Side::Right), Err(Fault));
        assert_eq!(pad_bytes(b"ab", 5, b"xy", Side::Left), Ok(Some(b"xyxab".to_vec())));
        assert_eq!(replace(&"a".repeat(1 << 20), "a", "bb"), Err(Fault));
        assert_eq!(replace("abc", "", "-"), Ok("-a-b-c-".to_owned()));
    }

    #[test]
    fn a_text_is_split_into_parts_or_characters() {
        let parts = |text: &'static str, delimiter: &str| split(text, delimiter).into_iter().flatten().collect::<Vec<_>>();
        assert_eq!(parts("a..b", "."), ["a", "", "b"]);
        assert_eq!(parts("äb", ""), ["ä", "b"]);
        assert_eq!(parts("", ""), [""]);
        let bytes: Vec<&[u8]> = split_bytes(b"a::b:", b"::").unwrap().into_iter().flatten().collect();
        assert_eq!(bytes, [&b"a"[..], b"b:"]);
        assert_eq!(split_bytes(b"", b":"), Ok(vec![Some(&b""[..])]));
    }

    #[test]
    fn a_code_point_is_one_character() {
        assert_eq!(from_escapes("\\ud83d\\ude00").as_deref(), Some("😀"));
        for wrong in ["75", "\\u00", "\\u00zz", "\\ud83d", "\\u0041\\u0042", ""] {
            assert_eq!(from_escapes(wrong), None, "{wrong}");
        }
        assert_eq!(initcap("the  qUICK\tbrown-fox"), "The  Quick\tBrown-fox");
    }
}
