//! Dates and times as text, by the patterns of Java's `DateTimeFormatter` (US English).
//!
//! A [`Pattern`] is compiled once and formats or reads any number of values; [`Zone`] is a region's rules or a fixed offset. Nothing
//! here fails for good: what cannot be said by a pattern or read by it is none, and whoever asked tells the row. Reading is
//! case-insensitive and smart, as ksqlDB's: a day that its month does not have is the month's last, fields that a pattern does not
//! have are those of 1970-01-01T00:00, and fields that contradict each other are refused.

mod format;
mod names;
mod parse;
mod pattern;
mod zone;

pub(crate) use pattern::Pattern;
pub(crate) use zone::Zone;

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta};

/// Days from the beginning of the common era to 1970-01-01, in chrono's count.
const EPOCH_DAY: i32 = 719_163;
/// Longest text that is read.
const MAX_TEXT_BYTES: usize = 512;

impl Pattern {
    /// A moment in a zone, as text; none if the pattern has a field that no moment has, or the moment is beyond all calendars.
    pub(crate) fn format_timestamp(&self, millis: i64, zone: &Zone) -> Option<String> {
        let utc = DateTime::from_timestamp_millis(millis)?.naive_utc();
        let (offset, name) = zone.at(utc);
        let local = utc.checked_add_signed(TimeDelta::seconds(i64::from(offset)))?;
        self.format(&format::Moment {
            date: Some(local.date()),
            time: Some(local.time()),
            zone: Some(format::ZoneText { offset, name, id: zone.id() }),
        })
    }

    /// A day, as text.
    pub(crate) fn format_date(&self, days: i32) -> Option<String> {
        self.format(&format::Moment { date: Some(date_of(days)?), time: None, zone: None })
    }

    /// A time of day in milliseconds, as text.
    pub(crate) fn format_time(&self, millis: i32) -> Option<String> {
        self.format(&format::Moment { date: None, time: Some(time_of(millis)?), zone: None })
    }

    /// The moment that a text names, in a zone unless it names one itself.
    pub(crate) fn parse_timestamp(&self, text: &str, zone: &Zone) -> Option<i64> {
        let read = self.read(text)?;
        let local = read.date()?.and_time(read.time_or_midnight()?);
        let zone = read.zone().unwrap_or(zone);
        Some(zone.to_utc(local)?.and_utc().timestamp_millis())
    }

    /// The day that a text names at its front, since 1970. Numbers may have fewer digits than the pattern has letters, and what
    /// follows is not looked at: ksqlDB reads dates by an older class of Java's than times.
    pub(crate) fn parse_date(&self, text: &str) -> Option<i32> {
        if text.len() > MAX_TEXT_BYTES { None } else { days_of(self.parse_front(text)?.date()?) }
    }

    /// The time of day that a text names, in milliseconds.
    pub(crate) fn parse_time(&self, text: &str) -> Option<i32> {
        millis_of(self.read(text)?.time()?)
    }

    fn read(&self, text: &str) -> Option<parse::Read> {
        if text.len() > MAX_TEXT_BYTES { None } else { self.parse(text) }
    }
}

/// The day of a number of days since 1970.
pub(crate) fn date_of(days: i32) -> Option<NaiveDate> {
    NaiveDate::from_num_days_from_ce_opt(days.checked_add(EPOCH_DAY)?)
}

/// Days since 1970.
pub(crate) fn days_of(date: NaiveDate) -> Option<i32> {
    use chrono::Datelike as _;
    date.num_days_from_ce().checked_sub(EPOCH_DAY)
}

/// The time of a number of milliseconds of a day.
pub(crate) fn time_of(millis: i32) -> Option<NaiveTime> {
    let millis = u32::try_from(millis).ok()?;
    NaiveTime::from_num_seconds_from_midnight_opt(millis / 1000, millis % 1000 * 1_000_000)
}

fn millis_of(time: NaiveTime) -> Option<i32> {
    use chrono::Timelike as _;
    i32::try_from(time.num_seconds_from_midnight() * 1000 + time.nanosecond() / 1_000_000).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn utc() -> Zone {
        Zone::parse("UTC").unwrap()
    }

    fn formatted(pattern: &str, millis: i64, zone: &str) -> String {
        Pattern::compile(pattern).unwrap().format_timestamp(millis, &Zone::parse(zone).unwrap()).unwrap()
    }

    fn parsed(pattern: &str, text: &str) -> Option<i64> {
        Pattern::compile(pattern).unwrap().parse_timestamp(text, &utc())
    }

    /// 2013-03-05T14:07:09.012Z, a Tuesday.
    const MOMENT: i64 = 1_362_492_429_012;

    #[test]
    fn a_text_holds_as_long_as_its_pattern_says() {
        for (pattern, length) in [("yyyy-MM-dd", 86_400_000), ("E w Q 'at' HH[:mm]", 60_000), ("h a", 3_600_000), ("", 86_400_000)] {
            let holds = Pattern::compile(pattern).unwrap().holds_millis();
            assert_eq!(holds, Some(length), "{pattern}");
            for edge in [MOMENT.div_euclid(length) * length, -3 * length] {
                let text = formatted(pattern, edge, "UTC");
                assert_eq!(text, formatted(pattern, edge + length - 1, "UTC"), "{pattern}");
            }
        }
        for pattern in ["HH:mm:ss.SSS", "yyyy z", "N"] {
            assert_eq!(Pattern::compile(pattern).unwrap().holds_millis(), None, "{pattern}");
        }
    }

    #[test]
    fn every_letter_says_its_field() {
        for (pattern, text) in [
            ("yyyy-MM-dd'T'HH:mm:ss.SSSX", "2013-03-05T14:07:09.012Z"),
            ("yy y u M MMM MMMM d D", "13 2013 2013 3 Mar March 5 64"),
            ("E EEEE e Q QQQ w Y", "Tue Tuesday 3 1 Q1 10 2013"),
            ("h K k H a", "2 2 14 14 PM"),
            ("hh KK kk HH", "02 02 14 14"),
            ("m mm s ss S SS SSSSSS", "7 07 9 09 0 01 012000"),
            ("n A N", "12000000 50829012 50829012000000"),
            ("G GGGG", "AD Anno Domini"),
            ("VV z X XX XXX x xxx Z ZZZZZ", "UTC UTC Z Z Z +00 +00:00 +0000 Z"),
            ("'o''clock' [yyyy]''", "o'clock 2013'"),
        ] {
            assert_eq!(formatted(pattern, MOMENT, "UTC"), text, "{pattern}");
        }
        assert_eq!(formatted("HH:mm z XXX VV", MOMENT, "America/New_York"), "09:07 EST -05:00 America/New_York");
        assert_eq!(formatted("HH:mm z x", MOMENT, "+05:30"), "19:37 +05:30 +0530");
        assert_eq!(Pattern::compile("yyyy HH").unwrap().format_date(0), None);
        assert_eq!(Pattern::compile("yyyy[ HH]").unwrap().format_date(0).as_deref(), Some("1970"));
        assert_eq!(Pattern::compile("HH.mm").unwrap().format_time(86_399_999).as_deref(), Some("23.59"));
    }

    #[test]
    fn a_text_is_read_as_it_is_written() {
        for (pattern, text, millis) in [
            ("yyyy-MM-dd'T'HH:mm:ss.SSSX", "2013-03-05T14:07:09.012Z", Some(MOMENT)),
            ("yyyyMMddHHmmssSSS", "20130305140709012", Some(MOMENT)),
            ("d MMM yy h:mm a", "5 mAR 13 2:07 pM", Some(1_362_492_420_000)),
            ("yyyy-DDD", "2013-064", Some(1_362_441_600_000)),
            ("yyyy-MM-dd[ HH:mm]", "2013-03-05", Some(1_362_441_600_000)),
            ("yyyy-MM-dd[ HH:mm]", "2013-03-05 01:00", Some(1_362_445_200_000)),
            ("yyyy-MM-dd HH:mm z", "2013-03-05 09:07 EST", Some(1_362_492_420_000)),
            ("yyyy-MM-dd HH:mm VV", "2013-03-05 15:07 Europe/Paris", Some(1_362_492_420_000)),
            ("yyyy-MM-dd HH:mm xxx", "2013-03-05 15:07 +01:00", Some(1_362_492_420_000)),
            ("EEE yyyy-MM-dd", "Tue 2013-03-05", Some(1_362_441_600_000)),
            ("EEE yyyy-MM-dd", "Wed 2013-03-05", None),
            ("yyyy-MM-dd", "2013-02-31", Some(1_362_009_600_000)),
            ("yyyy-MM-dd", "2013-02-32", None),
            ("yyyy-MM-dd", "2013-13-01", None),
            ("yyyy-MM-dd", "2013-03-05 ", None),
            ("yyyy-MM-dd", "2013-3-5", None),
            ("y-M-d", "2013-3-5", Some(1_362_441_600_000)),
            ("HH", "24", None),
            ("hh", "11", None),
            ("yyyy-MM-dd HH:mm VV", "2013-03-05 15:07 +1:2:3:4", None),
            ("HH:mm", "13:05", Some(47_100_000)),
        ] {
            assert_eq!(parsed(pattern, text), millis, "{pattern}: {text}");
        }
        assert_eq!(parsed("yyyy", &"2".repeat(10_000)), None);
        for (pattern, text, days) in [
            ("yyyy-MM-dd", "1970-01-02", Some(1)),
            ("yyyy-MM-dd", "1970-1-2 and more", Some(1)),
            ("yyyyMMdd", "19700102", Some(1)),
            ("MMM-yyyy", "fEB-1970", Some(31)),
            ("yyyy-MM-dd", "1970", None),
        ] {
            assert_eq!(Pattern::compile(pattern).unwrap().parse_date(text), days, "{pattern}: {text}");
        }
    }

    #[test]
    fn a_local_time_that_clocks_skip_or_repeat_is_one_moment() {
        let pattern = Pattern::compile("yyyy-MM-dd HH:mm").unwrap();
        let paris = Zone::parse("Europe/Paris").unwrap();
        // 02:30 is skipped on 2024-03-31 and read as 03:30; it comes twice on 2024-10-27, and the first is taken.
        assert_eq!(pattern.parse_timestamp("2024-03-31 02:30", &paris), Some(1_711_848_600_000));
        assert_eq!(pattern.parse_timestamp("2024-10-27 02:30", &paris), Some(1_729_989_000_000));
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_its_reason() {
        for (pattern, reason) in [
            ("yyyy-MM-dd'T", "a quote is not closed"),
            ("ddd", "too many letters d"),
            ("yyyy]", "] without ["),
            ("b", "b is no letter of a pattern"),
            ("V", "V must be written twice"),
            ("{", "{ is reserved"),
        ] {
            assert_eq!(Pattern::compile(pattern).err().as_deref(), Some(reason), "{pattern}");
        }
        assert!(Pattern::compile(&"y-".repeat(1000)).is_err() && Pattern::compile(&"[".repeat(100)).is_err());
    }

    proptest! {
        // In zones whose clocks never went back: a time that came twice is read as the first.
        #[test]
        fn reading_undoes_formatting(millis in -62_000_000_000_000_i64..253_000_000_000_000, zone in prop::sample::select(vec!["UTC", "Etc/GMT+5", "-03:30"])) {
            let zone = Zone::parse(zone).unwrap();
            for pattern in ["yyyy-MM-dd'T'HH:mm:ss.SSSXXX", "yyyyMMddHHmmssSSSxx", "d MMMM uuuu G hh:mm:ss a SSS VV", "EEEE D y A xxx", "yyyy-MM-dd HH:mm:ss.SSS z"] {
                let compiled = Pattern::compile(pattern).unwrap();
                let text = compiled.format_timestamp(millis, &zone).unwrap();
                prop_assert_eq!(compiled.parse_timestamp(&text, &zone), Some(millis), "{}: {}", pattern, text);
            }
        }

        #[test]
        fn no_pattern_and_no_text_panics(pattern in "[yuMLdDEeahHKkmsSnANzZXxVGQw'\\[\\] :.-]{0,12}", text in "\\PC{0,24}", millis in any::<i64>(), days in any::<i32>()) {
            if let Ok(compiled) = Pattern::compile(&pattern) {
                let _ = compiled.parse_timestamp(&text, &utc());
                let _ = compiled.format_date(days);
                if let Some(text) = compiled.format_timestamp(millis, &utc()) {
                    let _ = compiled.parse_timestamp(&text, &utc());
                }
            }
            let _ = Zone::parse(&text);
        }
    }
}
