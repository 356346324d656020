//! Text from strangers, made harmless for a terminal; bytes and times as text.
//!
//! Pure. What comes from a payload, a name or a message never reaches a terminal as a control sequence.

use std::fmt::Write as _;

/// Whether a terminal would act on the character, or show the text around it in another order than it stands.
pub const fn is_unsafe(c: char) -> bool {
    matches!(c,
        '\0'..='\x1f' | '\x7f'..='\u{9f}' // control characters, with those of eight bits
        | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' // direction
        | '\u{2028}' | '\u{2029}' | '\u{feff}')
}

/// The text with unsafe characters written as escapes.
#[must_use]
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_unsafe(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

/// Bytes that should be text: what is UTF-8 as by [`visible`], the rest as `\xff`.
#[must_use]
pub fn visible_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(&visible(chunk.valid()));
        for byte in chunk.invalid() {
            // Writing to a String does not fail.
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// Places that a text takes on a terminal: characters of East Asia and pictures take two, those that are set upon the one before none.
#[must_use]
pub fn width(text: &str) -> usize {
    let is_wide = |c: char| {
        matches!(c,
            '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{a4cf}' | '\u{ac00}'..='\u{d7a3}' | '\u{f900}'..='\u{faff}'
            | '\u{fe30}'..='\u{fe6f}' | '\u{ff00}'..='\u{ff60}' | '\u{ffe0}'..='\u{ffe6}' | '\u{1f300}'..='\u{1faff}'
            | '\u{20000}'..='\u{3fffd}')
    };
    let is_set_upon = |c: char| {
        matches!(c,
            '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{591}'..='\u{5bd}' | '\u{64b}'..='\u{65f}' | '\u{e31}' | '\u{e34}'..='\u{e3a}'
            | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}' | '\u{200b}'..='\u{200d}' | '\u{20d0}'..='\u{20ff}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{fe20}'..='\u{fe2f}' | '\u{e0100}'..='\u{e01ef}')
    };
    text.chars().map(|c| if is_wide(c) { 2 } else { usize::from(!is_set_upon(c)) }).sum()
}

/// JSON on one line: no space between tokens, unsafe characters within strings as `\u` escapes. Its meaning stays, numbers to the digit.
///
/// `json` must be valid JSON.
#[must_use]
pub fn one_line(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    for c in json.chars() {
        if !in_string {
            in_string = c == '"';
            if !matches!(c, ' ' | '\t' | '\r' | '\n') {
                out.push(c);
            }
            continue;
        }
        if is_unsafe(c) {
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
        in_string = escaped || c != '"';
        escaped = !escaped && c == '\\';
    }
    out
}

/// A string as JSON, safe to show.
#[must_use]
pub fn json_string(text: &str) -> String {
    one_line(&serde_json::Value::from(text).to_string())
}

const DAY_MS: i64 = 86_400_000;

/// Milliseconds since 1970 as RFC 3339 in UTC: `2013-01-01T10:15:00.000Z`.
#[must_use]
pub fn time(ms: i64) -> String {
    format!("{}T{}Z", date(ms.div_euclid(DAY_MS)), time_of_day(ms.rem_euclid(DAY_MS)))
}

/// Milliseconds since midnight: `10:15:00.000`.
#[must_use]
pub fn time_of_day(ms: i64) -> String {
    format!("{:02}:{:02}:{:02}.{:03}", ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000)
}

/// Days since 1970: `2013-01-01`.
#[must_use]
pub fn date(days: i64) -> String {
    // The year begins in March here, so that the leap day is its last; 400 years have 146,097 days.
    let shifted = days.saturating_add(719_468);
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Reads RFC 3339 (`2013-01-01T10:15:00Z`, with a fraction or an offset if wanted) as milliseconds since 1970; what lies below is cut.
#[must_use]
pub fn parse_time(text: &str) -> Option<i64> {
    let (date, rest) = text.split_once(['T', 't', ' '])?;
    let mut parts = date.splitn(3, '-').map(|part| number(part, 2..=4));
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let zone_at = rest.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = rest.split_at_checked(zone_at)?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut parts = clock.splitn(3, ':').map(|part| number(part, 2..=2));
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    let offset_minutes = match zone {
        "Z" | "z" => 0,
        _ => {
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            let (hours, minutes) = (number(hours, 2..=2)?, number(minutes, 2..=2)?);
            (hours < 24 && minutes < 60).then_some(())?;
            (hours * 60 + minutes) * if zone.starts_with('-') { -1 } else { 1 }
        }
    };
    let month_days = [31, if is_leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let last_day = *month_days.get(usize::try_from(month.checked_sub(1)?).ok()?)?;
    ((1..=last_day).contains(&day) && hour < 24 && minute < 60 && second < 60).then_some(())?;
    let before: i64 = month_days.iter().take(usize::try_from(month - 1).ok()?).sum();
    let years = year - 1;
    let days = years * 365 + years / 4 - years / 100 + years / 400 + before + day - 1 - 719_162;
    let millis = fraction.bytes().all(|digit| digit.is_ascii_digit()).then(|| format!("{fraction:0<3}"))?;
    let millis: i64 = millis.get(..3)?.parse().ok()?;
    Some(((days * 24 + hour) * 60 + minute - offset_minutes) * 60_000 + second * 1000 + millis)
}

const fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn number(digits: &str, length: std::ops::RangeInclusive<usize>) -> Option<i64> {
    let fits = length.contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit());
    fits.then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(visible("a\x1b[31mb\u{9b}2J\u{202e}c\n"), "a\\u{1b}[31mb\\u{9b}2J\\u{202e}c\\n");
        assert_eq!(visible("Zürich 東京 🛫"), "Zürich 東京 🛫");
        assert_eq!(visible_bytes(b"ok\xff\xfe\x1b"), "ok\\xff\\xfe\\u{1b}");
    }

    #[test]
    fn a_text_is_as_wide_as_it_is_shown() {
        for (text, places) in [("abc", 3), ("東京", 4), ("e\u{301}", 1), ("🛫", 2), ("", 0)] {
            assert_eq!(width(text), places, "{text}");
        }
    }

    #[test]
    fn json_keeps_its_meaning_on_one_line() {
        let json = "{ \"a b\" : [ 1.10 , 12345678901234567890123 ],\n\t\"q\\\" \\\\\": \"x y\u{9b}\" }";
        let line = one_line(json);
        assert_eq!(line, "{\"a b\":[1.10,12345678901234567890123],\"q\\\" \\\\\":\"x y\\u009b\"}");
        let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(parse(json), parse(&line));
    }

    #[test]
    fn times_are_written_and_read() {
        let known = [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_360_368_000_007, "2013-02-09T00:00:00.007Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
            (-62_135_596_800_000, "0001-01-01T00:00:00.000Z"),
        ];
        for (ms, text) in known {
            assert_eq!(time(ms), text);
            assert_eq!(parse_time(text), Some(ms), "{text}");
        }
        assert_eq!(parse_time("1970-01-01T01:00:00.1239+01:00"), Some(123));
        assert_eq!(parse_time("1969-12-31T23:00:00-01:00"), Some(0));
        let bad = ["", "2013-02-29T00:00:00Z", "2013-13-01T00:00:00Z", "2013-01-01", "2013-01-01T24:00:00Z", "2013-01-01T00:00:00", "x"];
        for text in bad {
            assert_eq!(parse_time(text), None, "{text}");
        }
        for text in ["2013-01-01T00:00:00.Z", "2013-01-01T00:00:00.éZ", "2013-01-01T00:00:00+é", "T+", "2013-00-01T00:00:00Z"] {
            let _ = parse_time(text);
        }
    }

    #[test]
    fn every_day_of_a_cycle_is_written_and_read() {
        for days in (-146_097..146_097).step_by(13) {
            assert_eq!(parse_time(&time(days * DAY_MS)), Some(days * DAY_MS));
        }
    }
}
