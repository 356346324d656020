//! The week of flights as events: what the CSV files of `server/demo/flights` say, in the order in which it happened.
//!
//! Pure; the files are part of the program. Called by [`super::flights`] alone. What is known and what is inferred stands in
//! `server/demo/flights/README.md`, "Events". Invariants: times never step back, and the versions of one flight have no gaps.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use serde_json::json;

const FLIGHTS: &str = include_str!("../../../demo/flights/flights.csv");
const CARRIERS: &str = include_str!("../../../demo/flights/carriers.csv");

/// How long before its departure a flight counts as scheduled.
const SCHEDULED_AHEAD_MS: i64 = 2 * 60 * MINUTE_MS;
const MINUTE_MS: i64 = 60 * 1000;

/// Something that happened to a flight.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FlightEvent {
    /// When, in milliseconds since 1970, UTC.
    pub time_ms: i64,
    /// The flight: `DAY/CARRIER-FLIGHT/ORIGIN`.
    pub stream: String,
    /// Version it takes in its stream, from 1.
    pub version: u64,
    /// What happened.
    pub kind: &'static str,
    /// Day of the flight in New York.
    pub day: String,
    /// Payload, JSON.
    pub data: Bytes,
}

/// Everything that happened to the flights of the first `days` days, in order.
pub(super) fn events(days: usize) -> anyhow::Result<Vec<FlightEvent>> {
    let flights = rows(FLIGHTS)?.map(|row| Flight::parse(&row?)).collect::<anyhow::Result<Vec<_>>>()?;
    let all_days: BTreeSet<&str> = flights.iter().map(|flight| flight.day.as_str()).collect();
    let wanted: BTreeSet<&str> = all_days.into_iter().take(days).collect();
    let mut events: Vec<FlightEvent> =
        flights.iter().filter(|flight| wanted.contains(flight.day.as_str())).flat_map(Flight::events).collect();
    // Stable, so that at one minute the order is that of the file, and a flight's own events keep theirs.
    events.sort_by_key(|event| event.time_ms);
    Ok(events)
}

/// Codes and names of the carriers.
pub(super) fn carriers() -> anyhow::Result<Vec<(String, String)>> {
    rows(CARRIERS)?.map(|row| row.and_then(|row| Ok((row.text("carrier")?.to_owned(), row.text("name")?.to_owned())))).collect()
}

struct Flight {
    day: String,
    carrier: String,
    number: i64,
    tail: String,
    origin: String,
    dest: String,
    distance: i64,
    departure_ms: i64,
    departure_delay: Option<i64>,
    arrival_ms: i64,
    arrival_delay: Option<i64>,
    air_time: Option<i64>,
}

impl Flight {
    fn parse(row: &Row<'_>) -> anyhow::Result<Self> {
        Ok(Self {
            day: row.text("day")?.to_owned(),
            carrier: row.text("carrier")?.to_owned(),
            number: row.number("flight")?.context("a flight has a number")?,
            tail: row.text("tail")?.to_owned(),
            origin: row.text("origin")?.to_owned(),
            dest: row.text("dest")?.to_owned(),
            distance: row.number("distance")?.context("a flight has a distance")?,
            departure_ms: minute_of(row.text("scheduled_departure")?)?,
            departure_delay: row.number("departure_delay")?,
            arrival_ms: minute_of(row.text("scheduled_arrival")?)?,
            arrival_delay: row.number("arrival_delay")?,
            air_time: row.number("air_time")?,
        })
    }

    fn stream(&self) -> String {
        format!("{}/{}-{}/{}", self.day, self.carrier, self.number, self.origin)
    }

    fn events(&self) -> Vec<FlightEvent> {
        let mut story = vec![(self.departure_ms - SCHEDULED_AHEAD_MS, "FlightScheduled", self.schedule())];
        match (self.departure_delay, self.arrival_delay, self.air_time) {
            (None, ..) => story.push((self.departure_ms, "FlightCancelled", json!({}))),
            (Some(wait), Some(delay), Some(air_time)) => {
                story.push((self.departure_ms + wait * MINUTE_MS, "FlightDeparted", json!({ "delay": wait })));
                let landing = json!({ "delay": delay, "air_time": air_time, "distance": self.distance });
                story.push((self.arrival_ms + delay * MINUTE_MS, "FlightArrived", landing));
            }
            // It left and was never timed in the air: inferred to have been diverted, noticed when it was due.
            (Some(wait), ..) => {
                story.push((self.departure_ms + wait * MINUTE_MS, "FlightDeparted", json!({ "delay": wait })));
                story.push((self.arrival_ms + wait.max(0) * MINUTE_MS, "FlightDiverted", json!({})));
            }
        }
        story.into_iter().zip(1..).map(|((time_ms, kind, facts), version)| self.event(time_ms, version, kind, facts)).collect()
    }

    fn schedule(&self) -> serde_json::Value {
        let mut facts = json!({
            "number": self.number,
            "distance": self.distance,
            "scheduled_departure": self.departure_ms,
            "scheduled_arrival": self.arrival_ms,
        });
        if !self.tail.is_empty() {
            facts["tail"] = json!(self.tail);
        }
        facts
    }

    fn event(&self, time_ms: i64, version: u64, kind: &'static str, mut facts: serde_json::Value) -> FlightEvent {
        for (name, value) in [("day", &self.day), ("carrier", &self.carrier), ("origin", &self.origin), ("dest", &self.dest)] {
            facts[name] = json!(value);
        }
        FlightEvent { time_ms, stream: self.stream(), version, kind, day: self.day.clone(), data: Bytes::from(facts.to_string()) }
    }
}

/// One line of a CSV file, its fields by name. No field of these files holds a comma or a quote.
struct Row<'a> {
    line: usize,
    fields: Vec<(&'a str, &'a str)>,
}

fn rows(text: &str) -> anyhow::Result<impl Iterator<Item = anyhow::Result<Row<'_>>>> {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().context("the CSV file is empty")?.split(',').collect();
    Ok(lines.zip(2..).map(move |(text, line)| {
        let values: Vec<&str> = text.split(',').collect();
        ensure!(values.len() == names.len(), "line {line} has {} fields, the header {}", values.len(), names.len());
        Ok(Row { line, fields: names.iter().copied().zip(values).collect() })
    }))
}

impl<'a> Row<'a> {
    fn text(&self, name: &str) -> anyhow::Result<&'a str> {
        let field = self.fields.iter().find(|(field, _)| *field == name);
        Ok(field.with_context(|| format!("line {} has no field {name}", self.line))?.1)
    }

    /// None where the field is empty.
    fn number(&self, name: &str) -> anyhow::Result<Option<i64>> {
        let text = self.text(name)?;
        if text.is_empty() {
            return Ok(None);
        }
        Ok(Some(text.parse().with_context(|| format!("line {}: {name} is {text:?}, not a number", self.line))?))
    }
}

/// `2013-02-05T10:00Z` in milliseconds since 1970.
fn minute_of(text: &str) -> anyhow::Result<i64> {
    let fits = text.len() == 17 && text.is_ascii() && text.ends_with('Z');
    let number = |from: usize, to: usize| text.get(from..to).and_then(|digits| digits.parse::<i64>().ok());
    let (true, Some(year), Some(month), Some(day), Some(hour), Some(minute)) =
        (fits, number(0, 4), number(5, 7), number(8, 10), number(11, 13), number(14, 16))
    else {
        bail!("{text:?} is not a time like 2013-02-05T10:00Z");
    };
    ensure!((1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60, "{text:?} is not a time");
    // Days of the Gregorian calendar since 1970, with years that begin in March so that the leap day comes last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (153 * month + 2) / 5 + day - 1 - 719_468;
    Ok(((days * 24 + hour) * 60 + minute) * MINUTE_MS)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn times_are_read_as_utc() {
        assert_eq!(minute_of("1970-01-01T00:00Z").unwrap(), 0);
        assert_eq!(minute_of("2013-02-05T10:00Z").unwrap(), 1_360_058_400_000);
        assert_eq!(minute_of("2000-02-29T23:59Z").unwrap(), 951_868_740_000);
        for wrong in ["", "2013-02-05 10:00", "2013-13-05T10:00Z", "2013-02-05T24:00Z", "2013-02-0éT10:00"] {
            assert!(minute_of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_week_is_in_order_and_every_flight_is_a_whole_story() {
        let events = events(7).unwrap();
        assert_eq!(events.len(), 17_311);
        assert!(events.is_sorted_by_key(|event| event.time_ms));
        let mut stories: HashMap<&str, Vec<&str>> = HashMap::new();
        for event in &events {
            let story = stories.entry(&event.stream).or_default();
            story.push(event.kind);
            assert_eq!(story.len() as u64, event.version, "{event:?}");
        }
        assert_eq!(stories.len(), 6_101);
        for (flight, story) in stories {
            let whole = matches!(
                story.as_slice(),
                ["FlightScheduled", "FlightCancelled"] | ["FlightScheduled", "FlightDeparted", "FlightArrived" | "FlightDiverted"]
            );
            assert!(whole, "{flight}: {story:?}");
        }
    }

    #[test]
    fn a_flight_that_lands_after_midnight_lands_on_the_next_day() {
        let flights: Vec<Flight> = rows(FLIGHTS).unwrap().map(|row| Flight::parse(&row.unwrap()).unwrap()).collect();
        assert!(flights.iter().all(|flight| flight.arrival_ms > flight.departure_ms));
        let day = 24 * 60 * MINUTE_MS;
        assert!(flights.iter().any(|flight| flight.arrival_ms / day > flight.departure_ms / day));
    }

    #[test]
    fn fewer_days_are_the_beginning_of_the_week() {
        let one = events(1).unwrap();
        assert_eq!(one.len(), 2_672);
        assert!(one.iter().all(|event| event.day == "2013-02-05"));
    }

    #[test]
    fn every_carrier_has_a_name() {
        let carriers = carriers().unwrap();
        assert_eq!(carriers.len(), 15);
        assert!(carriers.contains(&("B6".to_owned(), "JetBlue Airways".to_owned())));
    }

    #[test]
    fn a_short_line_is_refused_with_its_number() {
        let failed = rows("a,b\n1\n").unwrap().next().unwrap().map(|_| ()).unwrap_err();
        assert_eq!(failed.to_string(), "line 2 has 1 fields, the header 2");
    }
}
