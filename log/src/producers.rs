//! Producers: who appends in numbered order, which of their epochs counts, and what became of their newest units.
//!
//! Pure; a part of the [`Window`](crate::window::Window): admission asks and tells, frames carry the entries, the window file
//! keeps them. Invariants: the sequences of a producer are taken one by one, whether their unit wrote something or was refused;
//! an epoch is never given twice. Format: `log/FORMAT.md`, "Window of requests".

use std::collections::{BTreeMap, VecDeque};

use hashbrown::HashMap;

use crate::{
    codec::{Fields, Put},
    error::LogError,
    ids::{Position, ProducerEpoch, ProducerId, Sequence, Timestamp},
    inspect::Part,
    record::{ProducerAt, ProducerKey, Sequenced},
};

/// Units of one producer that are remembered, the newest: who goes on after a lost connection may send so many again.
pub(crate) const UNITS_REMEMBERED: u32 = 4096;
/// Most producers that are remembered.
const MAX_PRODUCERS: usize = 10_000;
/// Most bytes that all of them take in memory.
const MAX_BYTES: u64 = 32 << 20;
/// A producer that did nothing for so long is forgotten: a day, as Kafka has it.
const IDLE_MS: i64 = 24 * 3600 * 1000;

/// In place of a principal's length: what follows is a producer's entry. No principal is that long.
pub(crate) const MARK: u16 = u16::MAX;

/// In place of a number of records: no unit has so many.
const REFUSED: u32 = u32::MAX;

/// What became of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Position of its first record.
    pub(crate) first: Position,
    /// Its records; none if it was refused.
    pub(crate) records: Option<u32>,
    pub(crate) time: Timestamp,
}

/// Units of one producer and one epoch that follow each other; without any, the epoch begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: ProducerKey,
    pub(crate) epoch: ProducerEpoch,
    pub(crate) first: Sequence,
    pub(crate) time: Timestamp,
    /// First position and number of records of each; without a number it was refused.
    pub(crate) units: Vec<(Position, Option<u32>)>,
}

#[derive(Clone, Debug)]
struct Producer {
    epoch: ProducerEpoch,
    /// The sequence that comes next.
    next: Sequence,
    /// Of the units before `next`, in order.
    outcomes: VecDeque<Outcome>,
    /// When it did something last, and its place in the order of that.
    used: Timestamp,
    turn: u64,
}

impl Producer {
    fn bytes(&self, key: &ProducerKey) -> u64 {
        (self.outcomes.len() * size_of::<Outcome>() + key.principal.len() + 200) as u64
    }
}

/// What is said to a unit.
#[derive(Debug)]
pub(crate) enum Judged {
    /// It comes next.
    Next,
    /// It was judged before.
    Repeat(Outcome),
    /// It must be refused, and its sequence stays free.
    Refused(LogError),
}

/// All producers that are remembered.
#[derive(Debug, Default)]
pub(crate) struct Producers {
    known: HashMap<ProducerKey, Producer>,
    /// Those who did nothing for longest come first.
    order: BTreeMap<u64, ProducerKey>,
    turn: u64,
    bytes: u64,
    newest_epoch: ProducerEpoch,
}

impl Producers {
    /// Begins an epoch of a producer, which ends the one before; or goes on with the epoch that it has. What is returned beside
    /// must be kept, if anything.
    ///
    /// # Errors
    /// Only for one that goes on: [`LogError::UnknownProducer`], [`LogError::ProducerFenced`].
    pub(crate) fn open(
        &mut self,
        key: &ProducerKey,
        resume: Option<ProducerEpoch>,
        now: Timestamp,
    ) -> Result<(ProducerAt, Option<Entry>), LogError> {
        if let Some(epoch) = resume {
            return Ok((ProducerAt { epoch, next: self.of(key, epoch)?.next }, None));
        }
        let next = self.known.get(key).map_or(Sequence::FIRST, |producer| producer.next);
        // Rises with time too, so that it does even where the producer was forgotten.
        let epoch = self.newest_epoch.get().saturating_add(1).max(u64::try_from(now.get()).unwrap_or_default());
        let epoch = ProducerEpoch::new(epoch);
        let entry = Entry { key: key.clone(), epoch, first: next, time: now, units: Vec::new() };
        self.take_in(&entry);
        Ok((ProducerAt { epoch, next }, Some(entry)))
    }

    /// Whether a unit comes next.
    pub(crate) fn judge(&self, unit: &Sequenced) -> Judged {
        let producer = match self.of(&unit.key, unit.epoch) {
            Ok(producer) => producer,
            Err(error) => return Judged::Refused(error),
        };
        let Some(back) = producer.next.get().checked_sub(unit.sequence.get()) else {
            return Judged::Refused(LogError::OutOfOrderSequence { sequence: unit.sequence, next: producer.next });
        };
        if back == 0 {
            return Judged::Next;
        }
        let outcome = usize::try_from(back).ok().and_then(|back| producer.outcomes.len().checked_sub(back));
        match outcome.and_then(|place| producer.outcomes.get(place)) {
            Some(outcome) => Judged::Repeat(*outcome),
            None => Judged::Refused(LogError::OutcomeForgotten { sequence: unit.sequence, next: producer.next }),
        }
    }

    /// Takes the sequence of a unit that comes next.
    pub(crate) fn take(&mut self, unit: &Sequenced, outcome: Outcome) {
        if let Some(producer) = self.known.get_mut(&unit.key) {
            let before = producer.outcomes.len();
            producer.push(outcome);
            self.bytes += ((producer.outcomes.len() - before) * size_of::<Outcome>()) as u64;
            self.touch(&unit.key, outcome.time);
        }
    }

    /// Takes in an entry as a frame or the window file carries it.
    pub(crate) fn take_in(&mut self, entry: &Entry) {
        self.newest_epoch = self.newest_epoch.max(entry.epoch);
        let (key, turn) = (&entry.key, self.turn + 1);
        let producer = self.known.entry(key.clone()).or_insert_with(|| {
            self.turn = turn;
            self.order.insert(turn, key.clone());
            let fresh = Producer { epoch: entry.epoch, next: entry.first, outcomes: VecDeque::new(), used: entry.time, turn };
            self.bytes += fresh.bytes(key);
            fresh
        });
        self.bytes -= producer.bytes(key);
        producer.epoch = entry.epoch;
        if producer.next != entry.first {
            // It had been forgotten meanwhile.
            producer.outcomes.clear();
            producer.next = entry.first;
        }
        for (first, records) in &entry.units {
            producer.push(Outcome { first: *first, records: *records, time: entry.time });
        }
        self.bytes += producer.bytes(key);
        self.touch(key, entry.time);
    }

    /// Everything that is remembered, as entries that make it up again, those who did nothing for longest first.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry> {
        self.order.values().filter_map(|key| self.known.get_key_value(key)).flat_map(|(key, producer)| producer.entries(key))
    }

    /// Bytes that all of it takes, about.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    fn of(&self, key: &ProducerKey, epoch: ProducerEpoch) -> Result<&Producer, LogError> {
        let producer = self.known.get(key).ok_or(LogError::UnknownProducer { producer: key.id })?;
        if producer.epoch != epoch {
            return Err(LogError::ProducerFenced { producer: key.id, epoch, newest: producer.epoch });
        }
        Ok(producer)
    }

    /// Puts a producer last in the order, and forgets whoever is too much or too long ago.
    fn touch(&mut self, key: &ProducerKey, now: Timestamp) {
        if let Some(producer) = self.known.get_mut(key) {
            producer.used = now;
            if producer.turn != self.turn {
                self.order.remove(&producer.turn);
                self.turn += 1;
                producer.turn = self.turn;
                self.order.insert(self.turn, key.clone());
            }
        }
        while let Some(first) = self.order.first_entry().filter(|first| first.get() != key) {
            let idle = self.known.get(first.get()).map_or(0, |producer| now.get().saturating_sub(producer.used.get()));
            if self.order_is_within_bounds() && idle <= IDLE_MS {
                return;
            }
            self.forget_first();
        }
    }

    fn order_is_within_bounds(&self) -> bool {
        self.known.len() <= MAX_PRODUCERS && self.bytes <= MAX_BYTES
    }

    fn forget_first(&mut self) {
        if let Some((_, key)) = self.order.pop_first()
            && let Some(producer) = self.known.remove(&key)
        {
            self.bytes -= producer.bytes(&key);
        }
    }
}

impl Producer {
    fn push(&mut self, outcome: Outcome) {
        if self.outcomes.len() == UNITS_REMEMBERED as usize {
            self.outcomes.pop_front();
        }
        self.outcomes.push_back(outcome);
        self.next = self.next.plus(1);
    }

    /// One for all units of the same time; without units, one that says where it stands.
    fn entries(&self, key: &ProducerKey) -> Vec<Entry> {
        let mut first = Sequence::new(self.next.get() - self.outcomes.len() as u64);
        let none = Entry { key: key.clone(), epoch: self.epoch, first, time: self.used, units: Vec::new() };
        let mut entries: Vec<Entry> = Vec::new();
        for outcome in &self.outcomes {
            let unit = (outcome.first, outcome.records);
            match entries.last_mut() {
                Some(entry) if entry.time == outcome.time => entry.units.push(unit),
                _ => entries.push(Entry { first, time: outcome.time, units: vec![unit], ..none.clone() }),
            }
            first = first.plus(1);
        }
        // Says when it did something last, too.
        entries.push(Entry { first, ..none });
        entries
    }
}

impl Entry {
    /// Takes the unit behind those that are here, if it is the same producer's and comes next.
    pub(crate) fn extend(&mut self, unit: &Sequenced, outcome: Outcome) -> bool {
        let follows = self.first.get() + self.units.len() as u64 == unit.sequence.get();
        let same = follows && self.epoch == unit.epoch && self.key == unit.key && self.time == outcome.time;
        if same {
            self.units.push((outcome.first, outcome.records));
        }
        same
    }

    /// An entry of one unit.
    pub(crate) fn of(unit: &Sequenced, outcome: Outcome) -> Self {
        let units = vec![(outcome.first, outcome.records)];
        Self { key: unit.key.clone(), epoch: unit.epoch, first: unit.sequence, time: outcome.time, units }
    }

    /// Bytes that it takes without its units.
    pub(crate) fn fixed_len(key: &ProducerKey) -> usize {
        4 + 2 + 2 + key.principal.len() + 16 + 8 + 8 + 8 + 4
    }

    /// Bytes that a unit takes.
    pub(crate) const UNIT_LEN: usize = 8 + 4;

    /// Adds it to encoded entries of the window.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_len(Self::fixed_len(&self.key) - 4 + self.units.len() * Self::UNIT_LEN);
        out.put_u16(MARK);
        out.put_text(&self.key.principal);
        out.put(self.key.id.as_bytes());
        out.put_u64(self.epoch.get());
        out.put_i64(self.time.get());
        out.put_u64(self.first.get());
        out.put_len(self.units.len());
        for (first, records) in &self.units {
            out.put_u64(first.get());
            out.put_u32(records.unwrap_or(REFUSED));
        }
    }

    /// Adds to a part of a file what it says.
    pub(crate) fn tell(&self, part: Part) -> Part {
        part.with("producer", self.key.id.to_string())
            .with("principal", &*self.key.principal)
            .with("epoch", self.epoch.get())
            .with("sequence", self.first.get())
            .with("units", self.units.len())
            .with("refused", self.units.iter().filter(|(_, records)| records.is_none()).count())
            .with_some("position", self.units.first().map(|(first, _)| *first))
            .with("recorded_at", self.time)
    }

    /// Reads what follows the mark.
    pub(crate) fn decode(mut from: Fields<'_>) -> Option<Self> {
        let key = ProducerKey { principal: from.text()?.into(), id: ProducerId::new(from.bytes16()?) };
        let (epoch, time) = (ProducerEpoch::new(from.u64()?), Timestamp::new(from.i64()?));
        let first = Sequence::new(from.u64()?);
        let count = from.count(Self::UNIT_LEN)?;
        // A sequence beyond all numbers is not ours.
        first.get().checked_add(count as u64)?;
        let mut units = Vec::with_capacity(count);
        for _ in 0..count {
            let (first, records) = (Position::new(from.u64()?), from.u32()?);
            units.push((first, (records != REFUSED).then_some(records)));
        }
        from.0.is_empty().then_some(Self { key, epoch, first, time, units })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: u8) -> ProducerKey {
        ProducerKey { principal: "ann".into(), id: ProducerId::new([id; 16]) }
    }

    fn open(producers: &mut Producers, id: u8, now: i64) -> ProducerAt {
        producers.open(&key(id), None, Timestamp::new(now)).unwrap().0
    }

    fn unit(id: u8, at: ProducerAt, sequence: u64) -> Sequenced {
        Sequenced { key: key(id), epoch: at.epoch, sequence: Sequence::new(sequence) }
    }

    fn outcome(first: u64, time: i64) -> Outcome {
        Outcome { first: Position::new(first), records: (first != 20).then_some(2), time: Timestamp::new(time) }
    }

    /// Takes the next units of a producer.
    fn take(producers: &mut Producers, id: u8, at: ProducerAt, sequences: std::ops::Range<u64>, time: i64) {
        for sequence in sequences {
            let unit = unit(id, at, sequence);
            assert!(matches!(producers.judge(&unit), Judged::Next), "{sequence}");
            producers.take(&unit, outcome(10 * sequence, time));
        }
    }

    #[test]
    fn sequences_are_taken_in_order_and_repeats_get_their_outcome() {
        let mut producers = Producers::default();
        let at = open(&mut producers, 1, 5);
        assert_eq!((at.epoch.get(), at.next), (5, Sequence::FIRST));
        take(&mut producers, 1, at, 1..4, 6);
        assert!(matches!(producers.judge(&unit(1, at, 3)), Judged::Repeat(found) if found == outcome(30, 6)));
        assert!(matches!(producers.judge(&unit(1, at, 1)), Judged::Repeat(found) if found == outcome(10, 6)));
        let gap = producers.judge(&unit(1, at, 5));
        assert!(matches!(gap, Judged::Refused(LogError::OutOfOrderSequence { next, .. }) if next.get() == 4), "{gap:?}");
        assert!(matches!(producers.judge(&unit(2, at, 1)), Judged::Refused(LogError::UnknownProducer { .. })));
    }

    #[test]
    fn a_new_epoch_ends_the_one_before_and_goes_on_with_the_sequence() {
        let mut producers = Producers::default();
        let old = open(&mut producers, 1, 5);
        take(&mut producers, 1, old, 1..3, 6);
        let new = open(&mut producers, 1, 6);
        assert_eq!((new.epoch.get(), new.next.get()), (6, 3));
        assert!(open(&mut producers, 2, 0).epoch > new.epoch, "no epoch comes twice");
        assert!(matches!(producers.judge(&unit(1, old, 3)), Judged::Refused(LogError::ProducerFenced { .. })));
        assert!(matches!(producers.judge(&unit(1, new, 2)), Judged::Repeat(_)), "what it did before is known");
        assert!(matches!(producers.open(&key(1), Some(old.epoch), Timestamp::new(7)), Err(LogError::ProducerFenced { .. })));
        assert!(matches!(producers.open(&key(3), Some(old.epoch), Timestamp::new(7)), Err(LogError::UnknownProducer { .. })));
        let (resumed, entry) = producers.open(&key(1), Some(new.epoch), Timestamp::new(7)).unwrap();
        assert_eq!((resumed, entry), (new, None));
    }

    #[test]
    fn what_is_too_much_or_too_long_ago_is_forgotten() {
        let mut producers = Producers::default();
        let at = open(&mut producers, 1, 0);
        let many = u64::from(UNITS_REMEMBERED) + 3;
        take(&mut producers, 1, at, 1..many, 0);
        assert!(matches!(producers.judge(&unit(1, at, 3)), Judged::Repeat(_)));
        assert!(matches!(producers.judge(&unit(1, at, 2)), Judged::Refused(LogError::OutcomeForgotten { .. })));
        let bytes = producers.bytes();
        open(&mut producers, 2, IDLE_MS);
        assert!(matches!(producers.judge(&unit(1, at, many)), Judged::Next));
        open(&mut producers, 3, IDLE_MS + 1);
        assert!(matches!(producers.judge(&unit(1, at, many)), Judged::Refused(LogError::UnknownProducer { .. })));
        assert!(producers.bytes() < bytes);
        for id in 0..MAX_PRODUCERS as u128 {
            let key = ProducerKey { principal: "bob".into(), id: ProducerId::new(id.to_be_bytes()) };
            producers.open(&key, None, Timestamp::new(IDLE_MS + 1)).unwrap();
        }
        assert_eq!((producers.known.len(), producers.order.len()), (MAX_PRODUCERS, MAX_PRODUCERS));
        let first = producers.open(&key(3), Some(ProducerEpoch::new(1)), Timestamp::new(0));
        assert!(matches!(first, Err(LogError::UnknownProducer { .. })), "the oldest went");
        let counted: u64 = producers.known.iter().map(|(key, producer)| producer.bytes(key)).sum();
        assert_eq!(producers.bytes(), counted);
    }

    #[test]
    fn entries_make_up_the_same_again() {
        let mut producers = Producers::default();
        let (one, two) = (open(&mut producers, 1, 5), open(&mut producers, 2, 5));
        take(&mut producers, 1, one, 1..4, 6);
        take(&mut producers, 2, two, 1..2, 6);
        take(&mut producers, 1, one, 4..6, 7);
        open(&mut producers, 3, 8);
        let mut again = Producers::default();
        for entry in producers.entries() {
            let mut encoded = Vec::new();
            entry.encode(&mut encoded);
            let mut fields = Fields(&encoded);
            assert_eq!((fields.u32().unwrap() as usize, fields.u16().unwrap()), (encoded.len() - 4, MARK));
            let decoded = Entry::decode(fields).unwrap();
            assert_eq!(decoded, entry);
            again.take_in(&decoded);
        }
        assert_eq!(again.entries().collect::<Vec<_>>(), producers.entries().collect::<Vec<_>>());
        assert_eq!((again.bytes(), again.newest_epoch), (producers.bytes(), producers.newest_epoch));
        assert!(matches!(again.judge(&unit(1, one, 2)), Judged::Repeat(found) if found == outcome(20, 6)));
        assert!(matches!(again.judge(&unit(1, one, 6)), Judged::Next));
        assert!(matches!(again.judge(&unit(2, two, 2)), Judged::Next));
    }

    #[test]
    fn cut_entries_are_refused_and_never_panic() {
        let mut encoded = Vec::new();
        Entry::of(&unit(1, ProducerAt { epoch: ProducerEpoch::new(1), next: Sequence::FIRST }, 1), outcome(1, 2)).encode(&mut encoded);
        for length in 6..encoded.len() {
            assert!(Entry::decode(Fields(&encoded[6..length])).is_none(), "cut to {length}");
        }
    }
}
