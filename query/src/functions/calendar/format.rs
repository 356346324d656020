//! A moment, as the text that a pattern says.

use chrono::{Datelike as _, NaiveDate, NaiveTime, Timelike as _};

use super::{
    names,
    pattern::{Field, Item, Pattern, Style},
};

/// What there is to be written.
pub(super) struct Moment {
    pub(super) date: Option<NaiveDate>,
    pub(super) time: Option<NaiveTime>,
    pub(super) zone: Option<ZoneText>,
}

/// A zone at a moment.
pub(super) struct ZoneText {
    /// Seconds east of UTC.
    pub(super) offset: i32,
    /// As people call it, `PDT`.
    pub(super) name: String,
    /// `America/Los_Angeles`.
    pub(super) id: String,
}

impl Pattern {
    /// The text of a moment; none if it lacks a field that the pattern needs.
    pub(super) fn format(&self, moment: &Moment) -> Option<String> {
        let mut text = String::new();
        write_items(&self.items, moment, &mut text)?;
        Some(text)
    }
}

fn write_items(items: &[Item], moment: &Moment, text: &mut String) -> Option<()> {
    for item in items {
        match item {
            Item::Text(plain) => text.push_str(plain),
            Item::Field(field, count) => write_field(*field, *count, moment, text)?,
            Item::Optional(items) => {
                let before = text.len();
                if write_items(items, moment, text).is_none() {
                    text.truncate(before);
                }
            }
        }
    }
    Some(())
}

fn write_field(field: Field, count: usize, moment: &Moment, text: &mut String) -> Option<()> {
    match field.style(count) {
        Style::Zone => text.push_str(&zone_text(field, count, moment.zone.as_ref()?)),
        Style::Name => {
            let value = value_of(field, moment)?;
            let names = names::of(field, count);
            text.push_str(&names.into_iter().find(|(known, _)| *known == value)?.1);
        }
        Style::TwoDigits => text.push_str(&format!("{:02}", value_of(field, moment)?.rem_euclid(100))),
        Style::Fraction(digits) => {
            let nanos = format!("{:09}", moment.time?.nanosecond());
            text.push_str(nanos.get(..digits)?);
        }
        Style::Number(least, most) => {
            let value = value_of(field, moment)?;
            let digits = value.unsigned_abs().to_string();
            // A year of more digits than the pattern has letters says so by its sign.
            let is_long =
                least >= 4 && most == 19 && digits.len() > least && matches!(field, Field::Year | Field::YearOfEra | Field::WeekYear);
            text.push_str(if value < 0 {
                "-"
            } else if is_long {
                "+"
            } else {
                ""
            });
            text.push_str(&format!("{digits:0>least$}"));
        }
    }
    Some(())
}

/// The value of a field that is a number or a name.
pub(super) fn value_of(field: Field, moment: &Moment) -> Option<i64> {
    let date = || moment.date;
    let time = || moment.time;
    let year = || Some(i64::from(date()?.year()));
    Some(match field {
        Field::Era => i64::from(year()? > 0),
        Field::YearOfEra => year().map(|year| if year > 0 { year } else { 1 - year })?,
        Field::Year => year()?,
        Field::WeekYear => week_of(date()?).0,
        Field::Week => week_of(date()?).1,
        Field::Quarter => i64::from(date()?.month0() / 3 + 1),
        Field::Month => i64::from(date()?.month()),
        Field::DayOfYear => i64::from(date()?.ordinal()),
        Field::Day => i64::from(date()?.day()),
        Field::Weekday => i64::from(date()?.weekday().number_from_monday()),
        Field::WeekdayNumber => i64::from(date()?.weekday().number_from_sunday()),
        Field::HalfDay => i64::from(time()?.hour() / 12),
        Field::Hour => i64::from(time()?.hour()),
        Field::ClockHour => i64::from(if time()?.hour() == 0 { 24 } else { time()?.hour() }),
        Field::HourOfHalf => i64::from(time()?.hour() % 12),
        Field::ClockHourOfHalf => i64::from(if time()?.hour() % 12 == 0 { 12 } else { time()?.hour() % 12 }),
        Field::Minute => i64::from(time()?.minute()),
        Field::Second => i64::from(time()?.second()),
        Field::Nano | Field::Fraction => i64::from(time()?.nanosecond()),
        Field::MilliOfDay => nanos_of_day(time()?) / 1_000_000,
        Field::NanoOfDay => nanos_of_day(time()?),
        Field::ZoneId | Field::ZoneName | Field::OffsetOrZ | Field::Offset | Field::OffsetRfc => return None,
    })
}

fn nanos_of_day(time: NaiveTime) -> i64 {
    i64::from(time.num_seconds_from_midnight()) * 1_000_000_000 + i64::from(time.nanosecond())
}

/// Year and number of the week that a day is in: weeks begin on Sunday, and the first one has the year's first day.
fn week_of(date: NaiveDate) -> (i64, i64) {
    let days_to_saturday = 6 - i64::from(date.weekday().num_days_from_sunday());
    let last = date.checked_add_signed(chrono::TimeDelta::days(days_to_saturday)).unwrap_or(date);
    if last.year() > date.year() {
        return (i64::from(last.year()), 1);
    }
    (i64::from(date.year()), i64::from(last.ordinal0()) / 7 + 1)
}

fn zone_text(field: Field, count: usize, zone: &ZoneText) -> String {
    match (field, count) {
        (Field::ZoneId, _) => zone.id.clone(),
        (Field::ZoneName, _) => zone.name.clone(),
        (Field::OffsetOrZ, _) | (Field::OffsetRfc, 5) if zone.offset == 0 => "Z".to_owned(),
        (Field::OffsetRfc, 4) if zone.offset == 0 => "GMT".to_owned(),
        (Field::OffsetRfc, 4) => format!("GMT{}", offset_text(zone.offset, true, true)),
        (Field::OffsetRfc, 5) => offset_text(zone.offset, true, true),
        (Field::OffsetRfc, _) => offset_text(zone.offset, true, false),
        (_, 1) => offset_text(zone.offset, zone.offset % 3600 != 0, false),
        (_, 2 | 4) => offset_text(zone.offset, true, false),
        _ => offset_text(zone.offset, true, true),
    }
}

/// `+HH`, `+HHmm` or `+HH:mm`, with seconds if there are any.
pub(super) fn offset_text(offset: i32, minutes: bool, colon: bool) -> String {
    let (sign, seconds) = (if offset < 0 { '-' } else { '+' }, offset.unsigned_abs());
    let separator = if colon { ":" } else { "" };
    let mut text = format!("{sign}{:02}", seconds / 3600);
    if minutes {
        text.push_str(&format!("{separator}{:02}", seconds / 60 % 60));
    }
    if minutes && seconds % 60 != 0 {
        text.push_str(&format!("{separator}{:02}", seconds % 60));
    }
    text
}
