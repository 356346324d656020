//! Functions of DATE, TIME and TIMESTAMP, and of texts that say one.

use std::{cell::RefCell, rc::Rc};

use arrow::array::ArrayRef;
use chrono::DateTime;
use datafusion::common::{Result, ScalarValue};

use super::{
    calendar::{Pattern, Zone},
    compiled::Compiled,
    definition::{Definition, form},
    input::{Day, Fault, Input, Made, Moment, Str, TimeOfDay},
};

/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;
/// The zone of a moment of which none is told.
const UTC: &str = "GMT";

pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new(
        "convert_tz",
        "A timestamp that is a local time in one zone as the local time in another.",
        &[form("timestamp TIMESTAMP, from VARCHAR, to VARCHAR -> TIMESTAMP", |input| {
            input.map3::<Moment, Str, Str, _>(|millis, from, to| convert(millis, &*zone(from)?, &*zone(to)?).map(Moment).ok_or(Fault))
        })],
        &[("convert_tz(from_unixtime(0), 'UTC', 'Asia/Tokyo')", "1970-01-01T09:00:00Z")],
    ),
    Definition::new(
        "dateadd",
        "A date so many units later.",
        &[form("unit UNIT, count INT, date DATE -> DATE", |input| add_to_date(input, 1))],
        &[("dateadd('DAYS', 3, from_days(0))", "1970-01-04")],
    ),
    Definition::new(
        "datesub",
        "A date so many units earlier.",
        &[form("unit UNIT, count INT, date DATE -> DATE", |input| add_to_date(input, -1))],
        &[("datesub('DAYS', 3, from_days(3))", "1970-01-01")],
    ),
    Definition::new(
        "datetostring",
        "A number of days since 1970 as text, by a pattern of Java's. FORMAT_DATE does this for a DATE.",
        &[form("days INT, pattern VARCHAR -> VARCHAR", |input| {
            input.map2::<i32, Str, _>(|days, pattern| compiled(pattern)?.format_date(days).ok_or(Fault))
        })],
        &[("datetostring(31, 'dd.MM.yyyy')", "01.02.1970")],
    ),
    Definition::new(
        "format_date",
        "A date as text, by a pattern of Java's.",
        &[form("date DATE, pattern VARCHAR -> VARCHAR", |input| {
            input.map2::<Day, Str, _>(|days, pattern| compiled(pattern)?.format_date(days).ok_or(Fault))
        })],
        &[("format_date(from_days(31), 'd MMMM yyyy')", "1 February 1970")],
    ),
    Definition::new(
        "format_time",
        "A time of day as text, by a pattern of Java's.",
        &[form("time TIME, pattern VARCHAR -> VARCHAR", |input| {
            input.map2::<TimeOfDay, Str, _>(|millis, pattern| compiled(pattern)?.format_time(millis).ok_or(Fault))
        })],
        &[("format_time(parse_time('13:05', 'HH:mm'), 'h:mm a')", "1:05 PM")],
    ),
    Definition::new(
        "format_timestamp",
        "A timestamp as text, by a pattern of Java's, in UTC unless a zone is given.",
        &[
            form("timestamp TIMESTAMP, pattern VARCHAR -> VARCHAR", |input| format_moment::<Moment>(input, |value| value)),
            form("timestamp TIMESTAMP, pattern VARCHAR, zone VARCHAR -> VARCHAR", |input| format_moment::<Moment>(input, |value| value)),
        ],
        &[("format_timestamp(from_unixtime(0), 'yyyy-MM-dd HH:mm zzz', 'Asia/Tokyo')", "1970-01-01 09:00 JST")],
    ),
    Definition::new(
        "from_days",
        "The date so many days after 1970-01-01.",
        &[form("days INT -> DATE", |input| input.map1::<i32, _>(Day))],
        &[("from_days(31)", "1970-02-01")],
    ),
    Definition::new(
        "from_unixtime",
        "The timestamp so many milliseconds after 1970-01-01T00:00Z.",
        &[form("milliseconds BIGINT -> TIMESTAMP", |input| input.map1::<i64, _>(Moment))],
        &[("from_unixtime(1000)", "1970-01-01T00:00:01Z")],
    )
    .only_ksql(),
    Definition::new(
        "parse_date",
        "The date that a text says by a pattern of Java's.",
        &[form("text VARCHAR, pattern VARCHAR -> DATE", |input| {
            input.map2::<Str, Str, _>(|text, pattern| compiled(pattern)?.parse_date(text).map(Day).ok_or(Fault))
        })],
        &[("parse_date('1.2.1970', 'd.M.yyyy')", "1970-02-01")],
    ),
    Definition::new(
        "parse_time",
        "The time of day that a text says by a pattern of Java's.",
        &[form("text VARCHAR, pattern VARCHAR -> TIME", |input| {
            input.map2::<Str, Str, _>(|text, pattern| compiled(pattern)?.parse_time(text).map(TimeOfDay).ok_or(Fault))
        })],
        &[("parse_time('1:05 PM', 'h:mm a')", "13:05:00")],
    ),
    Definition::new(
        "parse_timestamp",
        "The timestamp that a text says by a pattern of Java's, in UTC unless a zone is given or the text names one.",
        &[
            form("text VARCHAR, pattern VARCHAR -> TIMESTAMP", |input| parse_moment(input, Moment)),
            form("text VARCHAR, pattern VARCHAR, zone VARCHAR -> TIMESTAMP", |input| parse_moment(input, Moment)),
        ],
        &[("parse_timestamp('1970-01-01 09:00', 'yyyy-MM-dd HH:mm', 'Asia/Tokyo')", "1970-01-01T00:00:00Z")],
    ),
    Definition::new(
        "stringtodate",
        "The days since 1970 of the date that a text says by a pattern of Java's. PARSE_DATE gives a DATE.",
        &[form("text VARCHAR, pattern VARCHAR -> INT", |input| {
            input.map2::<Str, Str, _>(|text, pattern| compiled(pattern)?.parse_date(text).ok_or(Fault))
        })],
        &[("stringtodate('1.2.1970', 'd.M.yyyy')", "31")],
    ),
    Definition::new(
        "stringtotimestamp",
        "The milliseconds since 1970 of the moment that a text says by a pattern of Java's. PARSE_TIMESTAMP gives a TIMESTAMP.",
        &[
            form("text VARCHAR, pattern VARCHAR -> BIGINT", |input| parse_moment(input, |millis| millis)),
            form("text VARCHAR, pattern VARCHAR, zone VARCHAR -> BIGINT", |input| parse_moment(input, |millis| millis)),
        ],
        &[("stringtotimestamp('1970-01-01 00:00:01', 'yyyy-MM-dd HH:mm:ss')", "1000")],
    ),
    Definition::new(
        "timeadd",
        "A time of day so many units later; behind midnight the day begins again.",
        &[form("unit UNIT, count INT, time TIME -> TIME", |input| add_to_time(input, 1))],
        &[("timeadd('HOURS', 2, parse_time('23:00', 'HH:mm'))", "01:00:00")],
    ),
    Definition::new(
        "timestampadd",
        "A timestamp so many units later.",
        &[form("unit UNIT, count INT, timestamp TIMESTAMP -> TIMESTAMP", |input| add_to_moment(input, 1))],
        &[("timestampadd('SECONDS', 1, from_unixtime(0))", "1970-01-01T00:00:01Z")],
    ),
    Definition::new(
        "timestampsub",
        "A timestamp so many units earlier.",
        &[form("unit UNIT, count INT, timestamp TIMESTAMP -> TIMESTAMP", |input| add_to_moment(input, -1))],
        &[("timestampsub('SECONDS', 1, from_unixtime(1000))", "1970-01-01T00:00:00Z")],
    ),
    Definition::new(
        "timestamptostring",
        "A number of milliseconds since 1970 as text, by a pattern of Java's, in UTC unless a zone is given. FORMAT_TIMESTAMP does this for a TIMESTAMP.",
        &[
            form("milliseconds BIGINT, pattern VARCHAR -> VARCHAR", |input| format_moment::<i64>(input, |value| value)),
            form("milliseconds BIGINT, pattern VARCHAR, zone VARCHAR -> VARCHAR", |input| format_moment::<i64>(input, |value| value)),
        ],
        &[("timestamptostring(1000, 'HH:mm:ss')", "00:00:01")],
    ),
    Definition::new(
        "timesub",
        "A time of day so many units earlier; before midnight is the day's end.",
        &[form("unit UNIT, count INT, time TIME -> TIME", |input| add_to_time(input, -1))],
        &[("timesub('HOURS', 2, parse_time('01:00', 'HH:mm'))", "23:00:00")],
    ),
    Definition::new(
        "unix_date",
        "The days of a date since 1970-01-01; without one those of today: in a query that does not end, of the day when the server took the record.",
        &[
            form("-> INT", |input| input.each(|_| Err::<i32, Fault>(Fault))).not_repeatable(),
            form("date DATE -> INT", |input| input.map1::<Day, _>(|days| days)),
        ],
        &[("unix_date(from_days(31))", "31")],
    ),
    Definition::new(
        "unix_timestamp",
        "The milliseconds of a timestamp since 1970-01-01T00:00Z; without one those of now: when the query began or, in one that does not end, when the server took the record.",
        &[
            form("-> BIGINT", |input| input.each(|_| Err::<i64, Fault>(Fault))).not_repeatable(),
            form("timestamp TIMESTAMP -> BIGINT", |input| input.map1::<Moment, _>(|millis| millis)),
        ],
        &[("unix_timestamp(from_unixtime(1000))", "1000")],
    ),
];

/// The value of a call that means the time of the query, `UNIX_TIMESTAMP()` or `UNIX_DATE()`; none for any other.
///
/// Kernels have no clock: whoever plans a query puts this in place of the call.
#[must_use]
pub fn of_query(name: &str, arguments: usize, now_ms: i64) -> Option<ScalarValue> {
    match (name, arguments) {
        ("unix_timestamp", 0) => Some(ScalarValue::Int64(Some(now_ms))),
        ("unix_date", 0) => Some(ScalarValue::Int32(i32::try_from(now_ms.div_euclid(DAY_MS)).ok())),
        _ => None,
    }
}

thread_local! {
    static PATTERNS: RefCell<Compiled<Pattern>> = const { RefCell::new(Compiled::new()) };
    static ZONES: RefCell<Compiled<Zone>> = const { RefCell::new(Compiled::new()) };
}

fn compiled(pattern: &str) -> std::result::Result<Rc<Pattern>, Fault> {
    PATTERNS.with_borrow_mut(|patterns| patterns.get(pattern, |pattern| Pattern::compile(pattern).ok())).ok_or(Fault)
}

fn zone(id: &str) -> std::result::Result<Rc<Zone>, Fault> {
    ZONES.with_borrow_mut(|zones| zones.get(id, Zone::parse)).ok_or(Fault)
}

/// The zone of a row: the third argument, if there is one; none if that is NULL.
fn zones(input: &Input<'_>) -> Result<impl Fn(usize) -> std::result::Result<Option<Rc<Zone>>, Fault>> {
    let given = if input.len() > 2 { Some(input.column::<Str>(2)?) } else { None };
    Ok(move |row: usize| match &given {
        None => zone(UTC).map(Some),
        Some(given) => given.get(row).map(zone).transpose(),
    })
}

fn format_moment<V>(input: &Input<'_>, millis: impl Fn(i64) -> i64) -> Result<ArrayRef>
where
    V: for<'a> super::input::Value<Of<'a> = i64>,
{
    let (moment, pattern, zones) = (input.column::<V>(0)?, input.column::<Str>(1)?, zones(input)?);
    let last = RefCell::new(LastText::default());
    input.each(|row| {
        let (Some(moment), Some(pattern)) = (moment.get(row), pattern.get(row)) else { return Ok(None) };
        let Some(zone) = zones(row)? else { return Ok(None) };
        last.borrow_mut().get(pattern, millis(moment), &zone).map(Some).ok_or(Fault)
    })
}

/// The text of the row before: times that follow each other are mostly of one day, and of one minute.
#[derive(Default)]
struct LastText<'a> {
    pattern: &'a str,
    /// How long a text of the pattern holds in UTC, in milliseconds, and which of these times it was.
    holds: Option<(i64, i64)>,
    text: String,
}

impl<'a> LastText<'a> {
    fn get(&mut self, pattern: &'a str, millis: i64, zone: &Zone) -> Option<String> {
        if let Some((length, at)) = self.holds
            && self.pattern == pattern
            && zone.is_utc()
            && millis.div_euclid(length) == at
        {
            return Some(self.text.clone());
        }
        let compiled = compiled(pattern).ok()?;
        let text = compiled.format_timestamp(millis, zone)?;
        self.holds = compiled.holds_millis().filter(|_| zone.is_utc()).map(|length| (length, millis.div_euclid(length)));
        if self.holds.is_some() {
            (self.pattern, self.text) = (pattern, text.clone());
        }
        Some(text)
    }
}

fn parse_moment<T: Made>(input: &Input<'_>, made: impl Fn(i64) -> T) -> Result<ArrayRef> {
    let (text, pattern, zones) = (input.column::<Str>(0)?, input.column::<Str>(1)?, zones(input)?);
    input.each(|row| {
        let (Some(text), Some(pattern)) = (text.get(row), pattern.get(row)) else { return Ok(None) };
        let Some(zone) = zones(row)? else { return Ok(None) };
        compiled(pattern)?.parse_timestamp(text, &zone).map(|millis| Some(made(millis))).ok_or(Fault)
    })
}

fn convert(millis: i64, from: &Zone, to: &Zone) -> Option<i64> {
    let local = DateTime::from_timestamp_millis(millis)?.naive_utc();
    Some(to.to_local(from.to_utc(local)?)?.and_utc().timestamp_millis())
}

/// Milliseconds of so many units.
fn millis_of(unit: &str, count: i32) -> std::result::Result<i64, Fault> {
    let one = match unit.to_ascii_uppercase().as_str() {
        "MILLISECOND" | "MILLISECONDS" => 1,
        "SECOND" | "SECONDS" => 1000,
        "MINUTE" | "MINUTES" => 60_000,
        "HOUR" | "HOURS" => 3_600_000,
        "DAY" | "DAYS" => DAY_MS,
        _ => return Err(Fault),
    };
    Ok(one * i64::from(count))
}

fn add_to_date(input: &Input<'_>, sign: i64) -> Result<ArrayRef> {
    input.map3::<Str, i32, Day, _>(|unit, count, days| {
        let millis = i64::from(days) * DAY_MS + sign * millis_of(unit, count)?;
        i32::try_from(millis.div_euclid(DAY_MS)).map(Day).map_err(|_| Fault)
    })
}

fn add_to_time(input: &Input<'_>, sign: i64) -> Result<ArrayRef> {
    input.map3::<Str, i32, TimeOfDay, _>(|unit, count, time| {
        let millis = (i64::from(time) + sign * millis_of(unit, count)?).rem_euclid(DAY_MS);
        i32::try_from(millis).map(TimeOfDay).map_err(|_| Fault)
    })
}

fn add_to_moment(input: &Input<'_>, sign: i64) -> Result<ArrayRef> {
    input.map3::<Str, i32, Moment, _>(|unit, count, millis| millis.checked_add(sign * millis_of(unit, count)?).map(Moment).ok_or(Fault))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_the_row_before_is_taken_only_where_it_still_holds() {
        const HOUR: i64 = 3_600_000;
        let (utc, tokyo) = (Zone::parse("GMT").unwrap(), Zone::parse("Asia/Tokyo").unwrap());
        let mut last = LastText::default();
        let mut text = |pattern, millis, zone| last.get(pattern, millis, zone).unwrap();
        assert_eq!(text("yyyy-MM-dd", 0, &utc), "1970-01-01");
        assert_eq!(text("yyyy-MM-dd", 23 * HOUR, &utc), "1970-01-01");
        assert_eq!(text("yyyy-MM-dd", 23 * HOUR, &tokyo), "1970-01-02");
        assert_eq!(text("yyyy-MM-dd", 24 * HOUR, &utc), "1970-01-02");
        assert_eq!(text("HH", 24 * HOUR, &utc), "00");
        assert_eq!(text("HH:mm", 24 * HOUR + 1, &utc), "00:00");
        assert_eq!(text("yyyy-MM-dd", -1, &utc), "1969-12-31");
        assert_eq!(text("SSS", 7, &utc), "007");
        assert_eq!(text("SSS", 8, &utc), "008");
    }
}
