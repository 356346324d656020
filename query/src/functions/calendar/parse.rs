//! A text, read by a pattern into fields, and the date, the time and the zone that the fields are.

use chrono::{Datelike as _, NaiveDate, NaiveTime};

use super::{
    format::{Moment, value_of},
    names,
    pattern::{Field, Item, Pattern, Style},
    zone::Zone,
};

/// The fields that a text had.
#[derive(Clone, Debug, Default)]
pub(super) struct Read {
    fields: Vec<(Field, i64)>,
    zone: Option<Zone>,
    /// Whether a number may have fewer digits than its field has letters.
    takes_short: bool,
}

impl Pattern {
    /// Reads a whole text; none if it does not say what the pattern says.
    pub(super) fn parse(&self, text: &str) -> Option<Read> {
        let mut read = Read::default();
        let rest = read_items(&self.items, text, &mut read)?;
        rest.is_empty().then_some(read)
    }

    /// Reads the front of a text, numbers with as few digits as they have.
    pub(super) fn parse_front(&self, text: &str) -> Option<Read> {
        let mut read = Read { takes_short: true, ..Read::default() };
        read_items(&self.items, text, &mut read)?;
        Some(read)
    }
}

/// Reads items from the front of a text and gives what is left of it.
fn read_items<'t>(items: &[Item], text: &'t str, read: &mut Read) -> Option<&'t str> {
    let mut rest = text;
    for (at, item) in items.iter().enumerate() {
        rest = match item {
            Item::Text(plain) => without_prefix(rest, plain)?,
            Item::Field(field, count) => read_field(*field, *count, reserved(items.get(at + 1..).unwrap_or_default()), rest, read)?,
            Item::Optional(items) => {
                let mut tried = read.clone();
                match read_items(items, rest, &mut tried) {
                    Some(left) => {
                        *read = tried;
                        left
                    }
                    None => rest,
                }
            }
        };
    }
    Some(rest)
}

/// Digits that the numbers of fixed width take which follow at once.
fn reserved(items: &[Item]) -> usize {
    let width = |item: &Item| match item {
        Item::Field(field, count) => match field.style(*count) {
            Style::Number(least, most) if least == most => Some(least),
            Style::TwoDigits => Some(2),
            Style::Fraction(digits) => Some(digits),
            Style::Number(..) | Style::Name | Style::Zone => None,
        },
        Item::Text(_) | Item::Optional(_) => None,
    };
    items.iter().map_while(width).sum()
}

/// What follows a prefix, whatever the case of its letters.
fn without_prefix<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let mut rest = text.chars();
    for wanted in prefix.chars() {
        let given = rest.next()?;
        if given != wanted && !given.to_lowercase().eq(wanted.to_lowercase()) {
            return None;
        }
    }
    Some(rest.as_str())
}

fn read_field<'t>(field: Field, count: usize, reserved: usize, text: &'t str, read: &mut Read) -> Option<&'t str> {
    let (value, rest) = match field.style(count) {
        Style::Zone => {
            let (zone, rest) = read_zone(field, count, text)?;
            if read.zone.as_ref().is_some_and(|known| *known != zone) {
                return None;
            }
            read.zone = Some(zone);
            return Some(rest);
        }
        Style::Name => {
            let mut known = names::of(field, count);
            // The longest first: of two names one may begin with the other.
            known.sort_by_key(|(_, name)| std::cmp::Reverse(name.len()));
            known.into_iter().find_map(|(value, name)| Some((value, without_prefix(text, &name)?)))?
        }
        Style::TwoDigits => {
            let (value, rest) = digits(text, 2, 2)?;
            (2000 + value, rest)
        }
        Style::Fraction(width) => {
            let (value, rest) = digits(text, width, width)?;
            (value * 10_i64.pow(u32::try_from(9_usize.saturating_sub(width)).ok()?), rest)
        }
        Style::Number(_, most) if read.takes_short && reserved == 0 => digits(text, 1, most)?,
        Style::Number(least, most) if least == most => digits(text, least, most)?,
        Style::Number(least, most) => signed(text, least, most, reserved)?,
    };
    read.set(field, value)?;
    Some(rest)
}

/// A number with its sign, of at most so many digits, leaving those that others need.
fn signed(text: &str, least: usize, most: usize, reserved: usize) -> Option<(i64, &str)> {
    let (sign, unsigned) = match text.strip_prefix('-') {
        Some(unsigned) => (-1, unsigned),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let given = unsigned.bytes().take_while(u8::is_ascii_digit).count();
    let width = given.saturating_sub(reserved).clamp(least.min(given), most);
    let (value, rest) = digits(unsigned, width.max(least), width.max(least))?;
    Some((sign * value, rest))
}

fn digits(text: &str, least: usize, most: usize) -> Option<(i64, &str)> {
    let given = text.bytes().take(most).take_while(u8::is_ascii_digit).count();
    if given < least || given == 0 {
        return None;
    }
    Some((text.get(..given)?.parse().ok()?, text.get(given..)?))
}

fn read_zone(field: Field, count: usize, text: &str) -> Option<(Zone, &str)> {
    if matches!(field, Field::ZoneId | Field::ZoneName) {
        let end = text.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || b"/_+-:".contains(byte)).count().min(64);
        return (1..=end).rev().find_map(|end| Some((Zone::named(text.get(..end)?)?, text.get(end..)?)));
    }
    let allows_z = matches!((field, count), (Field::OffsetOrZ, _) | (Field::OffsetRfc, 5));
    if let Some(rest) = without_prefix(text, "Z").filter(|_| allows_z) {
        return Some((Zone::fixed(0)?, rest));
    }
    let text = if matches!((field, count), (Field::OffsetRfc, 4)) {
        let rest = without_prefix(text, "GMT")?;
        if !rest.starts_with(['+', '-']) {
            return Some((Zone::fixed(0)?, rest));
        }
        rest
    } else {
        text
    };
    let (sign, rest) = match text.chars().next()? {
        '+' => (1, text.get(1..)?),
        '-' => (-1, text.get(1..)?),
        _ => return None,
    };
    let has_colon = match field {
        Field::OffsetRfc => count >= 4,
        _ => count == 3 || count == 5,
    };
    let part = |rest: &'_ str| -> Option<(i64, usize)> {
        let (skipped, behind) = if has_colon { (1, rest.strip_prefix(':')?) } else { (0, rest) };
        let (value, _) = digits(behind, 2, 2)?;
        (value < 60).then_some((value, skipped + 2))
    };
    let (hours, mut rest) = digits(rest, 2, 2)?;
    let mut seconds = hours * 3600;
    let needs_minutes = !(count == 1 && matches!(field, Field::Offset | Field::OffsetOrZ));
    match part(rest) {
        Some((minutes, taken)) => {
            seconds += minutes * 60;
            rest = rest.get(taken..)?;
            if let Some((more, taken)) = part(rest).filter(|_| count >= 4) {
                seconds += more;
                rest = rest.get(taken..)?;
            }
        }
        None if needs_minutes => return None,
        None => {}
    }
    Some((Zone::fixed(sign * i32::try_from(seconds).ok()?)?, rest))
}

impl Read {
    /// Sets a field; none if it has another value already.
    fn set(&mut self, field: Field, value: i64) -> Option<()> {
        match self.of(field) {
            Some(known) => (known == value).then_some(()),
            None => {
                self.fields.push((field, value));
                Some(())
            }
        }
    }

    fn of(&self, field: Field) -> Option<i64> {
        self.fields.iter().find(|(known, _)| *known == field).map(|(_, value)| *value)
    }

    fn part(&self, field: Field, default: u32) -> Option<u32> {
        self.of(field).map_or(Some(default), |value| u32::try_from(value).ok())
    }

    /// The zone that the text named.
    pub(super) fn zone(&self) -> Option<&Zone> {
        self.zone.as_ref()
    }

    /// The day; of what the text does not say that of 1970-01-01.
    pub(super) fn date(&self) -> Option<NaiveDate> {
        let era = self.of(Field::Era);
        let of_era = self.of(Field::YearOfEra).map(|year| match era {
            Some(0) => 1 - year,
            _ => year,
        });
        let year = self.of(Field::Year).or(of_era).or(self.of(Field::WeekYear)).unwrap_or(1970);
        let year = i32::try_from(year).ok()?;
        let date = if let Some(day) = self.of(Field::DayOfYear) {
            NaiveDate::from_yo_opt(year, u32::try_from(day).ok()?)?
        } else if let Some(week) = self.of(Field::Week).filter(|_| self.of(Field::Month).is_none()) {
            self.day_of_week(year, week)?
        } else {
            let (month, day) = (self.part(Field::Month, self.first_month()?)?, self.part(Field::Day, 1)?);
            if !(1..=31).contains(&day) {
                return None;
            }
            // A day that the month does not have is its last one.
            (0..4).find_map(|less| NaiveDate::from_ymd_opt(year, month, day.checked_sub(less)?))?
        };
        self.agrees(Some(date), None).then_some(date)
    }

    fn first_month(&self) -> Option<u32> {
        match self.of(Field::Quarter) {
            Some(quarter) => u32::try_from(quarter.checked_sub(1)?.checked_mul(3)?.checked_add(1)?).ok(),
            None => Some(1),
        }
    }

    /// A day by the number of its week, which begins on Sunday.
    fn day_of_week(&self, year: i32, week: i64) -> Option<NaiveDate> {
        if !(1..=53).contains(&week) {
            return None;
        }
        let first = NaiveDate::from_ymd_opt(year, 1, 1)?;
        let before = i64::from(first.weekday().num_days_from_sunday());
        let weekday =
            self.of(Field::WeekdayNumber).map(|number| number - 1).or(self.of(Field::Weekday).map(|number| number % 7)).unwrap_or(0);
        first.checked_add_signed(chrono::TimeDelta::days((week - 1) * 7 - before + weekday))
    }

    /// The time of day; none if the text does not say the hour.
    pub(super) fn time(&self) -> Option<NaiveTime> {
        let is_told = [Field::Hour, Field::ClockHour, Field::HourOfHalf, Field::ClockHourOfHalf, Field::MilliOfDay, Field::NanoOfDay];
        if is_told.into_iter().any(|field| self.of(field).is_some()) { self.time_or_midnight() } else { None }
    }

    /// The time of day; of what the text does not say, zero.
    pub(super) fn time_or_midnight(&self) -> Option<NaiveTime> {
        let whole = self.of(Field::NanoOfDay).or(self.of(Field::MilliOfDay).map(|millis| millis.saturating_mul(1_000_000)));
        let time = if let Some(nanos) = whole {
            let (seconds, nanos) = (nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000));
            NaiveTime::from_num_seconds_from_midnight_opt(u32::try_from(seconds).ok()?, u32::try_from(nanos).ok()?)?
        } else {
            let nanos = self.of(Field::Nano).or(self.of(Field::Fraction)).unwrap_or(0);
            let second = self.part(Field::Second, 0)?;
            NaiveTime::from_hms_nano_opt(
                self.hour()?,
                self.part(Field::Minute, 0)?,
                second,
                u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?,
            )?
        };
        self.agrees(None, Some(time)).then_some(time)
    }

    fn hour(&self) -> Option<u32> {
        let of_half = match (self.of(Field::HourOfHalf), self.of(Field::ClockHourOfHalf)) {
            (Some(hour), _) => Some((0..12).contains(&hour).then_some(hour)?),
            (None, Some(hour)) => Some((1..=12).contains(&hour).then_some(hour % 12)?),
            (None, None) => None,
        };
        let hour = match (self.of(Field::Hour), self.of(Field::ClockHour), of_half) {
            (Some(hour), ..) => hour,
            (None, Some(hour), _) => (1..=24).contains(&hour).then_some(hour % 24)?,
            // An hour of half a day says nothing without its half.
            (None, None, Some(hour)) => hour + 12 * self.of(Field::HalfDay)?,
            (None, None, None) => 0,
        };
        u32::try_from(hour).ok().filter(|hour| *hour < 24)
    }

    /// Whether all fields say this date or time.
    fn agrees(&self, date: Option<NaiveDate>, time: Option<NaiveTime>) -> bool {
        let moment = Moment { date, time, zone: None };
        self.fields.iter().all(|(field, value)| match field {
            // The last day stands for one that the month does not have.
            Field::Day => true,
            // Digits that were not written are not known.
            Field::Fraction | Field::Nano if self.of(Field::NanoOfDay).is_none() => true,
            field => value_of(*field, &moment).is_none_or(|known| known == *value),
        })
    }
}
