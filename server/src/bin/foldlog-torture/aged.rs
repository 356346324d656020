//! Events of which the newest bytes are kept, so that streams lose their beginnings all the time.
//!
//! Whatever retention does: of each partition there is a whole end, it is as long as asked for, versions of streams go on, and a stream begins behind
//! what is gone and says so.

use std::collections::BTreeMap;

use foldlog_proto::v1::{
    AppendRequest, AppendResponse, Event, Precondition, StreamState, Write, precondition,
    stream_state::{Absent, Expect},
};

use crate::{
    check::Verdict,
    given::{Given, Row},
    line::{Script, payload},
    lives::Told,
    random::Random,
    recent,
};

/// The topic.
pub const TOPIC: &str = "aged";
/// Partitions.
pub const PARTITIONS: u32 = 2;
const STREAMS: u64 = 12;
/// Most events of an append.
const MOST: u64 = 6;

/// See the module.
#[derive(Debug, Default)]
pub struct Aged {
    /// What was acknowledged.
    pub given: Given,
    versions: BTreeMap<String, u64>,
    asked: Option<(String, Vec<u64>)>,
    numbers: u64,
}

impl Script for Aged {
    fn next(&mut self, random: &mut Random) -> AppendRequest {
        // Few events go to the first ones, which lose all they have.
        let stream = format!("aged-{}", random.below(STREAMS).max(random.below(STREAMS)));
        let count = 1 + random.below(MOST);
        let numbers: Vec<u64> = (self.numbers..self.numbers + count).collect();
        self.numbers += count;
        let event = |number: &u64| Event { r#type: "Aged".to_owned(), data: Some(payload(*number)), ..Event::default() };
        let events = numbers.iter().map(event).collect();
        let expect = self.versions.get(&stream).map_or(Expect::Absent(Absent {}), |version| Expect::Version(*version));
        let state = StreamState { stream: stream.clone(), expect: Some(expect), ..StreamState::default() };
        self.asked = Some((stream.clone(), numbers));
        AppendRequest {
            topic: TOPIC.to_owned(),
            writes: vec![Write { stream, events, ..Write::default() }],
            preconditions: vec![Precondition { kind: Some(precondition::Kind::Stream(state)) }],
            ..AppendRequest::default()
        }
    }

    fn acked(&mut self, answer: &AppendResponse) {
        let Some((name, numbers)) = self.asked.take() else { return };
        let first = self.given.place(answer, numbers.len() as u64);
        let version = self.versions.entry(name.clone()).or_default();
        for (place, number) in (0..).zip(numbers) {
            *version += 1;
            let (position, offset) = (first.position + place, first.offset + place);
            self.given.put(Row {
                position,
                partition: first.partition,
                offset,
                name: name.clone(),
                version: *version,
                number: Some(number),
            });
        }
    }
}

impl Aged {
    /// Streams that had an event before a position, and the version of the newest.
    pub fn streams(&self, end: u64) -> BTreeMap<String, u64> {
        self.given.below(end).map(|row| (row.name.clone(), row.version)).collect()
    }

    /// Checks what was read of the topic, and then what is told of each stream and what was read of it, of a log that ends at a position.
    pub fn check(&self, read: &[Row], streams: &[Told], end: u64) -> Verdict {
        let mut verdict = recent::check(&self.given, read, end);
        let is_kept = recent::kept(&self.given, end);
        for (name, newest) in self.streams(end) {
            let Some((info, rows)) = streams.iter().find(|(info, _)| info.stream == name) else {
                verdict.lost(format!("nothing is told of stream {name}"));
                continue;
            };
            let of_stream = |row: &&Row| row.name == name;
            let all: Vec<&Row> = self.given.below(end).filter(of_stream).collect();
            // Meanwhile more may have gone.
            let least = read.iter().find(of_stream).map_or(newest + 1, |row| row.version);
            let begins = info.beginning.map(|beginning| (beginning.first_version, beginning.retained_version)).unwrap_or_default();
            if info.version != Some(newest) || begins.0 != begins.1 || begins.0 < least {
                verdict.lost(format!("stream {name} has events {least} to {newest}, and this is told of it: {info:?}"));
            }
            if !all.iter().copied().rev().take(rows.len()).eq(rows.iter().rev()) {
                verdict.repeated(format!("what is read of stream {name} is not how it ends: {rows:?}"));
            }
            let must = all.iter().filter(|row| is_kept(row)).count();
            if rows.len() < must || rows.len() as u64 > newest + 1 - begins.0 {
                verdict.lost(format!("of stream {name} {} events are read, from {begins:?} to {newest}; {must} are kept", rows.len()));
            }
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foldlog_proto::v1::{StreamBeginning, StreamInfo};

    /// A hundred events of two streams in a partition, of which the first forty are gone.
    fn sample() -> (Aged, Vec<Row>, Vec<Told>) {
        let name = |offset| if offset % 4 == 0 { "a" } else { "b" }.to_owned();
        let version = |offset| if offset % 4 == 0 { offset / 4 + 1 } else { offset - offset / 4 };
        let row =
            |offset| Row { position: 7 + offset, partition: 1, offset, name: name(offset), version: version(offset), number: Some(offset) };
        let mut aged = Aged::default();
        (0..100).for_each(|offset| aged.given.put(row(offset)));
        let read: Vec<Row> = (40..100).map(row).collect();
        let told = |stream: &str, newest, first_version| {
            let beginning = Some(StreamBeginning { first_version, anew_version: 1, retained_version: first_version });
            let info = StreamInfo { stream: stream.to_owned(), version: Some(newest), beginning, ..StreamInfo::default() };
            (info, read.iter().filter(|row| row.name == stream).cloned().collect())
        };
        let streams = vec![told("a", 25, 11), told("b", 75, 31)];
        (aged, read, streams)
    }

    #[test]
    fn streams_lose_their_beginnings_and_nothing_else() {
        let (aged, read, mut streams) = sample();
        assert_eq!(aged.check(&read, &streams, 999), Verdict::default());
        // One more went between the reads.
        streams[0].1.remove(0);
        streams[0].0.beginning = Some(StreamBeginning { first_version: 12, anew_version: 1, retained_version: 12 });
        assert_eq!(aged.check(&read, &streams, 999), Verdict::default());
    }

    #[test]
    fn a_stream_that_is_told_or_read_otherwise_is_objected_to() {
        let corrupt: [fn(&mut Told); 6] = [
            |told| told.0.version = Some(74),
            |told| told.0.beginning = Some(StreamBeginning { first_version: 30, anew_version: 1, retained_version: 30 }),
            |told| told.0.beginning = Some(StreamBeginning { first_version: 31, anew_version: 1, retained_version: 1 }),
            |told| drop(told.1.pop()),
            |told| drop(told.1.remove(20)),
            |told| drop(told.1.drain(..35)),
        ];
        for (number, corrupt) in corrupt.into_iter().enumerate() {
            let (aged, read, mut streams) = sample();
            corrupt(&mut streams[1]);
            assert!(!aged.check(&read, &streams, 999).is_clean(), "{number}");
        }
        let (aged, read, streams) = sample();
        assert_eq!(aged.check(&read, &streams[1..], 999).lost, 1);
        assert!(!aged.check(&read[20..], &streams, 999).is_clean(), "what was read before was there");
    }
}
