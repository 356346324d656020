//! Time zones: regions with their rules, and fixed offsets.

use chrono::{NaiveDateTime, Offset as _, TimeDelta, TimeZone as _, offset::LocalResult};
use chrono_tz::{OffsetName as _, Tz};

use super::format::offset_text;

/// A time zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Zone {
    /// A region with its rules.
    Region(Tz),
    /// Seconds east of UTC, and how it was written.
    Fixed(i32, String),
}

/// Farthest offset from UTC, as Java has it.
const MAX_OFFSET: i32 = 18 * 3600;

/// What people call the zones of a region.
const ABBREVIATIONS: [(&str, &str); 42] = [
    ("PST", "America/Los_Angeles"),
    ("PDT", "America/Los_Angeles"),
    ("PT", "America/Los_Angeles"),
    ("MST", "America/Denver"),
    ("MDT", "America/Denver"),
    ("MT", "America/Denver"),
    ("CST", "America/Chicago"),
    ("CDT", "America/Chicago"),
    ("CT", "America/Chicago"),
    ("EST", "America/New_York"),
    ("EDT", "America/New_York"),
    ("ET", "America/New_York"),
    ("AST", "America/Halifax"),
    ("ADT", "America/Halifax"),
    ("NST", "America/St_Johns"),
    ("NDT", "America/St_Johns"),
    ("AKST", "America/Anchorage"),
    ("AKDT", "America/Anchorage"),
    ("HST", "Pacific/Honolulu"),
    ("BRT", "America/Sao_Paulo"),
    ("ART", "America/Argentina/Buenos_Aires"),
    ("WET", "Europe/Lisbon"),
    ("WEST", "Europe/Lisbon"),
    ("BST", "Europe/London"),
    ("CET", "Europe/Paris"),
    ("CEST", "Europe/Paris"),
    ("EET", "Europe/Bucharest"),
    ("EEST", "Europe/Bucharest"),
    ("MSK", "Europe/Moscow"),
    ("SAST", "Africa/Johannesburg"),
    ("PKT", "Asia/Karachi"),
    ("IST", "Asia/Kolkata"),
    ("HKT", "Asia/Hong_Kong"),
    ("SGT", "Asia/Singapore"),
    ("JST", "Asia/Tokyo"),
    ("KST", "Asia/Seoul"),
    ("AWST", "Australia/Perth"),
    ("ACST", "Australia/Adelaide"),
    ("AEST", "Australia/Sydney"),
    ("AEDT", "Australia/Sydney"),
    ("NZST", "Pacific/Auckland"),
    ("NZDT", "Pacific/Auckland"),
];

impl Zone {
    /// Coordinated universal time.
    pub(crate) const UTC: Self = Self::Region(Tz::UTC);

    /// A zone by its id: a region, an offset, or an offset behind UTC, GMT or UT.
    pub(crate) fn parse(id: &str) -> Option<Self> {
        if id == "Z" || id.starts_with(['+', '-']) {
            return Self::fixed_as(offset_of(id)?, id);
        }
        for prefix in ["UTC", "GMT", "UT"] {
            if let Some(offset) = id.strip_prefix(prefix).filter(|rest| rest.starts_with(['+', '-'])) {
                return Self::fixed_as(offset_of(offset)?, id);
            }
        }
        if id == "UT" {
            return Self::fixed_as(0, id);
        }
        if id.len() > 64 { None } else { id.parse().ok().map(Self::Region) }
    }

    /// The same, or what people call it.
    pub(super) fn named(name: &str) -> Option<Self> {
        let upper = name.to_ascii_uppercase();
        let known = ABBREVIATIONS.iter().find(|(short, _)| *short == upper);
        match known {
            Some((_, region)) => region.parse().ok().map(Self::Region),
            None => Self::parse(name).or_else(|| Self::parse(&upper)),
        }
    }

    /// Whether it is UTC at all times.
    pub(crate) fn is_utc(&self) -> bool {
        matches!(self, Self::Region(Tz::UTC) | Self::Fixed(0, _))
    }

    /// A fixed number of seconds east of UTC.
    pub(super) fn fixed(offset: i32) -> Option<Self> {
        let id = if offset == 0 { "Z".to_owned() } else { offset_text(offset, true, true) };
        Self::fixed_as(offset, &id)
    }

    fn fixed_as(offset: i32, id: &str) -> Option<Self> {
        (offset.abs() <= MAX_OFFSET).then(|| Self::Fixed(offset, id.to_owned()))
    }

    /// Its id.
    pub(super) fn id(&self) -> String {
        match self {
            Self::Region(region) => region.name().to_owned(),
            Self::Fixed(_, id) => id.clone(),
        }
    }

    /// Seconds east of UTC at a moment, and what people call the zone then.
    pub(super) fn at(&self, utc: NaiveDateTime) -> (i32, String) {
        match self {
            Self::Fixed(offset, id) => (*offset, id.clone()),
            Self::Region(region) => {
                let offset = region.offset_from_utc_datetime(&utc);
                (offset.fix().local_minus_utc(), offset.abbreviation().unwrap_or(region.name()).to_owned())
            }
        }
    }

    /// The moment of a local time. One that clocks skip is as much later; of one that comes twice the first is meant.
    pub(crate) fn to_utc(&self, local: NaiveDateTime) -> Option<NaiveDateTime> {
        let offset = match self {
            Self::Fixed(offset, _) => *offset,
            Self::Region(region) => match region.offset_from_local_datetime(&local) {
                LocalResult::Single(offset) | LocalResult::Ambiguous(offset, _) => offset.fix().local_minus_utc(),
                LocalResult::None => self.at(local.checked_sub_signed(TimeDelta::days(1))?).0,
            },
        };
        local.checked_sub_signed(TimeDelta::seconds(i64::from(offset)))
    }

    /// The local time of a moment.
    pub(crate) fn to_local(&self, utc: NaiveDateTime) -> Option<NaiveDateTime> {
        utc.checked_add_signed(TimeDelta::seconds(i64::from(self.at(utc).0)))
    }
}

/// Seconds of `Z`, `+h`, `+hh`, `+hhmm`, `+hh:mm`, `+hhmmss` or `+hh:mm:ss`.
fn offset_of(text: &str) -> Option<i32> {
    if text == "Z" {
        return Some(0);
    }
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+')?),
    };
    let parts: Vec<&str> = if digits.contains(':') {
        let parts: Vec<&str> = digits.split(':').collect();
        if parts.iter().any(|part| part.len() != 2) {
            return None;
        }
        parts
    } else if digits.len() <= 2 {
        vec![digits]
    } else {
        let pairs: Option<Vec<&str>> = (0..digits.len()).step_by(2).map(|at| digits.get(at..at + 2)).collect();
        pairs?
    };
    if parts.len() > 3 || !parts.iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())) {
        return None;
    }
    let mut numbers = parts.iter().map(|part| part.parse::<i32>().ok());
    let (hours, minutes, seconds) = (numbers.next()??, numbers.next().unwrap_or(Some(0))?, numbers.next().unwrap_or(Some(0))?);
    (minutes < 60 && seconds < 60).then_some(sign * (hours * 3600 + minutes * 60 + seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_a_region_or_an_offset() {
        for (id, offset) in
            [("Z", 0), ("+1", 3600), ("-0330", -12_600), ("+05:30", 19_800), ("UTC+2", 7200), ("+010203", 3723), ("GMT", 0), ("UT", 0)]
        {
            let at = chrono::DateTime::from_timestamp(0, 0).unwrap().naive_utc();
            assert_eq!(Zone::parse(id).map(|zone| zone.at(at).0), Some(offset), "{id}");
        }
        for wrong in ["", "+", "+1:2:3:4", "+1:00", "+19:00", "+05:60", "Nowhere/Land", "PST", "+é1", "UTC+", "+123"] {
            assert_eq!(Zone::parse(wrong), None, "{wrong}");
        }
        assert_eq!(Zone::named("pst"), Zone::parse("America/Los_Angeles"));
        assert!(ABBREVIATIONS.iter().all(|(short, _)| Zone::named(short).is_some()));
    }
}
