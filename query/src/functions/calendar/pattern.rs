//! A pattern's text, compiled into the fields that it names.

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    pub(super) items: Vec<Item>,
}

impl Pattern {
    /// How long a text of this pattern holds in UTC: the milliseconds of its finest field. None if that is shorter than a second,
    /// or a zone.
    pub(crate) fn holds_millis(&self) -> Option<i64> {
        finest(&self.items)
    }
}

fn finest(items: &[Item]) -> Option<i64> {
    let mut finest = DAY_MS;
    for item in items {
        let of_item = match item {
            Item::Text(_) => DAY_MS,
            Item::Optional(items) => self::finest(items)?,
            Item::Field(field, _) => field.holds_millis()?,
        };
        finest = finest.min(of_item);
    }
    Some(finest)
}

/// A part of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// Text that stands as it is.
    Text(String),
    /// A field, by its letter and the number of letters.
    Field(Field, usize),
    /// What may be missing.
    Optional(Vec<Self>),
}

/// What a letter stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Era,
    YearOfEra,
    Year,
    WeekYear,
    Quarter,
    Month,
    Week,
    DayOfYear,
    Day,
    Weekday,
    /// The day of the week as a number, Sunday first.
    WeekdayNumber,
    HalfDay,
    /// 0 to 23.
    Hour,
    /// 1 to 24.
    ClockHour,
    /// 0 to 11.
    HourOfHalf,
    /// 1 to 12.
    ClockHourOfHalf,
    Minute,
    Second,
    Fraction,
    Nano,
    MilliOfDay,
    NanoOfDay,
    ZoneId,
    ZoneName,
    /// With Z for zero.
    OffsetOrZ,
    Offset,
    OffsetRfc,
}

impl Field {
    /// How long a value of this field holds in UTC, or a whole number of times that.
    fn holds_millis(self) -> Option<i64> {
        match self {
            Self::Era
            | Self::YearOfEra
            | Self::Year
            | Self::WeekYear
            | Self::Quarter
            | Self::Month
            | Self::Week
            | Self::DayOfYear
            | Self::Day
            | Self::Weekday
            | Self::WeekdayNumber => Some(DAY_MS),
            Self::HalfDay | Self::Hour | Self::ClockHour | Self::HourOfHalf | Self::ClockHourOfHalf => Some(3_600_000),
            Self::Minute => Some(60_000),
            Self::Second => Some(1_000),
            Self::Fraction | Self::Nano | Self::MilliOfDay | Self::NanoOfDay => None,
            Self::ZoneId | Self::ZoneName | Self::OffsetOrZ | Self::Offset | Self::OffsetRfc => None,
        }
    }
}

/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;
/// Longest pattern.
const MAX_BYTES: usize = 256;
/// Most optional parts within each other.
const MAX_DEPTH: usize = 8;

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn compile(text: &str) -> Result<Self, String> {
        if text.len() > MAX_BYTES {
            return Err(format!("a pattern has at most {MAX_BYTES} bytes"));
        }
        // The innermost open part last.
        let mut open: Vec<Vec<Item>> = vec![Vec::new()];
        let mut rest = text.chars().peekable();
        while let Some(one) = rest.next() {
            let item = match one {
                '\'' => Item::Text(quoted(&mut rest)?),
                '[' if open.len() > MAX_DEPTH => return Err(format!("more than {MAX_DEPTH} optional parts within each other")),
                '[' => {
                    open.push(Vec::new());
                    continue;
                }
                ']' => match open.pop() {
                    Some(part) if !open.is_empty() => Item::Optional(part),
                    _ => return Err("] without [".to_owned()),
                },
                '{' | '}' | '#' => return Err(format!("{one} is reserved")),
                letter if letter.is_ascii_alphabetic() => {
                    let mut count = 1;
                    while rest.next_if_eq(&letter).is_some() {
                        count += 1;
                    }
                    Item::Field(field(letter, count)?, count)
                }
                other => Item::Text(other.to_string()),
            };
            if let Some(part) = open.last_mut() {
                part.push(item);
            }
        }
        // What was opened and not closed ends with the pattern.
        while open.len() > 1 {
            if let (Some(part), Some(outer)) = (open.pop(), open.last_mut()) {
                outer.push(Item::Optional(part));
            }
        }
        Ok(Self { items: open.pop().unwrap_or_default() })
    }
}

/// What stands behind a quote, up to the next; two quotes are one.
fn quoted(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<String, String> {
    let mut text = String::new();
    loop {
        match rest.next() {
            Some('\'') if rest.next_if_eq(&'\'').is_some() => text.push('\''),
            Some('\'') if text.is_empty() => return Ok("'".to_owned()),
            Some('\'') => return Ok(text),
            Some(other) => text.push(other),
            None => return Err("a quote is not closed".to_owned()),
        }
    }
}

fn field(letter: char, count: usize) -> Result<Field, String> {
    let (field, most) = match letter {
        'G' => (Field::Era, 5),
        'y' => (Field::YearOfEra, 19),
        'u' => (Field::Year, 19),
        'Y' => (Field::WeekYear, 19),
        'Q' | 'q' => (Field::Quarter, 5),
        'M' | 'L' => (Field::Month, 5),
        'w' => (Field::Week, 2),
        'D' => (Field::DayOfYear, 3),
        'd' => (Field::Day, 2),
        'E' => (Field::Weekday, 5),
        'e' | 'c' if count > 2 => (Field::Weekday, 5),
        'e' | 'c' => (Field::WeekdayNumber, 2),
        'a' => (Field::HalfDay, 1),
        'H' => (Field::Hour, 2),
        'k' => (Field::ClockHour, 2),
        'K' => (Field::HourOfHalf, 2),
        'h' => (Field::ClockHourOfHalf, 2),
        'm' => (Field::Minute, 2),
        's' => (Field::Second, 2),
        'S' => (Field::Fraction, 9),
        'n' => (Field::Nano, 19),
        'A' => (Field::MilliOfDay, 19),
        'N' => (Field::NanoOfDay, 19),
        'V' if count == 2 => (Field::ZoneId, 2),
        'V' => return Err("V must be written twice".to_owned()),
        'z' => (Field::ZoneName, 4),
        'X' => (Field::OffsetOrZ, 5),
        'x' => (Field::Offset, 5),
        'Z' => (Field::OffsetRfc, 5),
        other => return Err(format!("{other} is no letter of a pattern")),
    };
    if count > most { Err(format!("too many letters {letter}")) } else { Ok(field) }
}

/// How the value of a field is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Digits, at least and at most so many.
    Number(usize, usize),
    /// The last two digits of a year from 2000 to 2099.
    TwoDigits,
    /// So many digits behind the point.
    Fraction(usize),
    /// A name.
    Name,
    /// A zone or an offset.
    Zone,
}

impl Field {
    /// The style of so many letters.
    pub(super) fn style(self, count: usize) -> Style {
        match self {
            Self::Era | Self::Weekday | Self::HalfDay => Style::Name,
            Self::Month | Self::Quarter if count > 2 => Style::Name,
            Self::YearOfEra | Self::Year | Self::WeekYear if count == 2 => Style::TwoDigits,
            Self::YearOfEra | Self::Year | Self::WeekYear | Self::Nano | Self::MilliOfDay | Self::NanoOfDay => Style::Number(count, 19),
            Self::Fraction => Style::Fraction(count),
            Self::ZoneId | Self::ZoneName | Self::OffsetOrZ | Self::Offset | Self::OffsetRfc => Style::Zone,
            Self::DayOfYear if count == 2 => Style::Number(2, 3),
            Self::Quarter
            | Self::Month
            | Self::Week
            | Self::DayOfYear
            | Self::Day
            | Self::WeekdayNumber
            | Self::Hour
            | Self::ClockHour
            | Self::HourOfHalf
            | Self::ClockHourOfHalf
            | Self::Minute
            | Self::Second => Style::Number(count, if count == 1 { 19 } else { count }),
        }
    }
}
