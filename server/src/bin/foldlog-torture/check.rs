//! Whether what can be read is what was acknowledged: pure, over what was read and the ledger.
//!
//! Shares nothing with foldlog: plain loops over plain values. Each check counts what it objects to and tells the first few; the
//! tests at the end corrupt one thing each and expect the objection.

use std::collections::{BTreeMap, HashMap};

use crate::ledger::{Op, OpId, State};

/// Amounts from here on are copied to the output topic by the query.
pub const LARGE: i64 = 800;

/// An event as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Position.
    pub position: u64,
    /// Partition.
    pub partition: u32,
    /// Offset in the partition.
    pub offset: u64,
    /// Stream.
    pub stream: String,
    /// Version in the stream.
    pub version: u64,
    /// The operation that wrote it, as its payload says.
    pub op: OpId,
    /// Its place among the events of the operation, as its payload says.
    pub place: u64,
    /// Its amount.
    pub amount: i64,
}

/// A record of the output topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Position.
    pub position: u64,
    /// Key: the stream it came from.
    pub account: String,
    /// As in the event.
    pub op: OpId,
    /// As in the event.
    pub place: u64,
    /// As in the event.
    pub amount: i64,
}

/// One row of the view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// COUNT.
    pub entries: i64,
    /// SUM.
    pub total: i64,
    /// MIN.
    pub low: i64,
    /// MAX.
    pub high: i64,
}

/// A view as it was answered: everything below the position is in it, nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ViewAt {
    /// Exclusive end.
    pub position: u64,
    /// Rows by account.
    pub rows: BTreeMap<String, Balance>,
}

/// What the checks object to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Acknowledged events that are not where they were acknowledged, and records shown to a reader that are gone.
    pub lost: u64,
    /// Events read twice, of refused operations, or that nobody wrote.
    pub repeated: u64,
    /// Holes in versions, offsets, or operations; positions that step back.
    pub gaps: u64,
    /// Rows of the view that are not the fold of the events.
    pub view_mismatches: u64,
    /// Records of the output topic that are not the copy of the events.
    pub output_mismatches: u64,
    /// The first few objections in words.
    pub told: Vec<String>,
}

impl Verdict {
    /// Whether nothing was objected to.
    pub const fn is_clean(&self) -> bool {
        self.lost + self.repeated + self.gaps + self.view_mismatches + self.output_mismatches == 0
    }

    /// Adds another verdict.
    pub fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.gaps += other.gaps;
        self.view_mismatches += other.view_mismatches;
        self.output_mismatches += other.output_mismatches;
        for told in other.told {
            self.tell(told);
        }
    }

    fn tell(&mut self, what: String) {
        if self.told.len() < 20 {
            self.told.push(what);
        }
    }

    /// Objects to something that is missing.
    pub fn lost(&mut self, what: String) {
        self.lost += 1;
        self.tell(format!("lost: {what}"));
    }

    /// Objects to something that is there twice, or should not be there.
    pub fn repeated(&mut self, what: String) {
        self.repeated += 1;
        self.tell(format!("repeated: {what}"));
    }

    /// Objects to something that is out of order.
    pub fn gap(&mut self, what: String) {
        self.gaps += 1;
        self.tell(format!("gap: {what}"));
    }
}

/// Checks the events of the topic, read in position order, against the ledger. No operation may be unknown any more.
pub fn events(ops: &BTreeMap<OpId, Op>, events: &[Seen]) -> Verdict {
    let mut verdict = Verdict::default();
    order(&mut verdict, events);
    let mut read: HashMap<(OpId, u64), &Seen> = HashMap::with_capacity(events.len());
    for event in events {
        if read.insert((event.op, event.place), event).is_some() {
            verdict.repeated(format!("event {} of operation {} is read again at {event:?}", event.place, event.op));
        }
        let written = ops.get(&event.op).filter(|op| op.state != State::Refused);
        let place = usize::try_from(event.place).unwrap_or(usize::MAX);
        let wanted = written.and_then(|op| op.events().nth(place));
        if wanted != Some((&event.stream, event.version, event.amount)) {
            verdict.repeated(format!("nobody wrote {event:?}, or it was refused"));
        }
    }
    for (id, op) in ops {
        operation(&mut verdict, *id, op, &read);
    }
    verdict
}

fn operation(verdict: &mut Verdict, id: OpId, op: &Op, read: &HashMap<(OpId, u64), &Seen>) {
    let count = op.events().count() as u64;
    let there = (0..count).filter(|place| read.contains_key(&(id, *place))).count() as u64;
    match op.state {
        State::Acked { first, last } => {
            for place in 0..count {
                let at = read.get(&(id, place)).map(|event| event.position);
                if at != Some(first + place) || last + 1 - first != count {
                    verdict.lost(format!("event {place} of operation {id}, acknowledged at {first}..={last}, is at {at:?}"));
                }
            }
        }
        State::Unknown | State::Refused if there != 0 && there != count => {
            verdict.gap(format!("operation {id} is there in part: {there} of {count} events"));
        }
        State::Unknown | State::Refused => {}
    }
}

fn order(verdict: &mut Verdict, events: &[Seen]) {
    let mut versions: HashMap<&str, u64> = HashMap::new();
    let mut offsets: HashMap<u32, u64> = HashMap::new();
    let mut position = None;
    for event in events {
        let version = versions.entry(&event.stream).or_default();
        *version += 1;
        if event.version != *version {
            verdict.gap(format!("{event:?} follows version {} of its stream", *version - 1));
            *version = event.version;
        }
        let offset = offsets.entry(event.partition).or_default();
        if event.offset != *offset {
            verdict.gap(format!("{event:?} stands where offset {offset} belongs"));
        }
        *offset = event.offset + 1;
        if position >= Some(event.position) {
            verdict.gap(format!("{event:?} follows position {position:?}"));
        }
        position = Some(event.position);
    }
}

/// Checks a view against the fold of the events below its position.
pub fn view(events: &[Seen], view: &ViewAt) -> Verdict {
    let mut verdict = Verdict::default();
    let mut folded: BTreeMap<&str, Balance> = BTreeMap::new();
    for event in events.iter().filter(|event| event.position < view.position) {
        let row = folded.entry(&event.stream).or_insert(Balance { low: i64::MAX, high: i64::MIN, ..Balance::default() });
        row.entries += 1;
        row.total += event.amount;
        row.low = row.low.min(event.amount);
        row.high = row.high.max(event.amount);
    }
    let accounts = folded.keys().copied().chain(view.rows.keys().map(String::as_str));
    let accounts: std::collections::BTreeSet<&str> = accounts.collect();
    for account in accounts {
        let (wanted, row) = (folded.get(account), view.rows.get(account));
        if wanted != row {
            verdict.view_mismatches += 1;
            verdict.tell(format!("view at {}: {account} is {row:?}, its events fold to {wanted:?}", view.position));
        }
    }
    verdict
}

/// Checks the output topic, read in position order, against the events it was made from. All of them must have been seen.
pub fn output(events: &[Seen], outputs: &[Output]) -> Verdict {
    let mut verdict = Verdict::default();
    let wanted: Vec<&Seen> = events.iter().filter(|event| event.amount >= LARGE).collect();
    if wanted.len() != outputs.len() {
        verdict.output_mismatches += wanted.len().abs_diff(outputs.len()) as u64;
        verdict.tell(format!("the output topic has {} records, its input makes {}", outputs.len(), wanted.len()));
    }
    for (event, output) in wanted.iter().zip(outputs) {
        let same = (event.op, event.place, event.amount, event.stream.as_str())
            == (output.op, output.place, output.amount, output.account.as_str());
        if !same || output.position <= event.position {
            verdict.output_mismatches += 1;
            verdict.tell(format!("the output topic has {output:?} where {event:?} belongs"));
        }
    }
    verdict
}

/// Checks that what a reader was shown before the kill is still there and the same.
pub fn shown(before: &[Output], outputs: &[Output]) -> Verdict {
    let mut verdict = Verdict::default();
    let now: HashMap<u64, &Output> = outputs.iter().map(|output| (output.position, output)).collect();
    for output in before {
        if now.get(&output.position) != Some(&output) {
            verdict.lost(format!("a reader was shown {output:?}, now there is {:?}", now.get(&output.position)));
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::StreamWrite;

    fn write(stream: &str, base: u64, amounts: &[i64]) -> StreamWrite {
        StreamWrite { stream: stream.to_owned(), base, amounts: amounts.to_vec() }
    }

    fn sample() -> (BTreeMap<OpId, Op>, Vec<Seen>) {
        let ops = BTreeMap::from([
            (0, Op { writes: vec![write("a", 0, &[10, 900]), write("b", 0, &[-5])], state: State::Acked { first: 3, last: 5 } }),
            (1, Op { writes: vec![write("a", 1, &[7])], state: State::Refused }),
            (2, Op { writes: vec![write("a", 2, &[850])], state: State::Acked { first: 8, last: 8 } }),
        ]);
        let seen = |position, partition, offset, stream: &str, version, op, place, amount| Seen {
            position,
            partition,
            offset,
            stream: stream.to_owned(),
            version,
            op,
            place,
            amount,
        };
        let events = vec![
            seen(3, 1, 0, "a", 1, 0, 0, 10),
            seen(4, 1, 1, "a", 2, 0, 1, 900),
            seen(5, 0, 0, "b", 1, 0, 2, -5),
            seen(8, 1, 2, "a", 3, 2, 0, 850),
        ];
        (ops, events)
    }

    fn copies() -> Vec<Output> {
        let output = |position, op, place, amount| Output { position, account: "a".to_owned(), op, place, amount };
        vec![output(6, 0, 1, 900), output(9, 2, 0, 850)]
    }

    fn folded() -> ViewAt {
        let rows =
            [("a", Balance { entries: 3, total: 1760, low: 10, high: 900 }), ("b", Balance { entries: 1, total: -5, low: -5, high: -5 })];
        ViewAt { position: 9, rows: rows.map(|(account, row)| (account.to_owned(), row)).into() }
    }

    #[test]
    fn what_was_acknowledged_and_is_there_is_clean() {
        let (ops, read) = sample();
        for verdict in [events(&ops, &read), view(&read, &folded()), output(&read, &copies()), shown(&copies(), &copies())] {
            assert_eq!(verdict, Verdict::default());
        }
    }

    #[test]
    fn an_acknowledged_event_that_is_missing_is_lost() {
        for missing in 0..4 {
            let (ops, mut read) = sample();
            read.remove(missing);
            let verdict = events(&ops, &read);
            assert!(verdict.lost > 0, "{missing}: {verdict:?}");
        }
    }

    #[test]
    fn an_event_at_another_position_is_lost() {
        let (ops, mut read) = sample();
        read[3].position = 7;
        assert_eq!(events(&ops, &read).lost, 1);
    }

    #[test]
    fn an_event_read_twice_is_repeated() {
        let (ops, mut read) = sample();
        read.push(Seen { position: 10, offset: 3, version: 4, ..read[3].clone() });
        assert!(events(&ops, &read).repeated > 0);
    }

    #[test]
    fn an_event_of_a_refused_operation_is_objected_to() {
        let (mut ops, read) = sample();
        ops.get_mut(&2).unwrap().state = State::Refused;
        assert_eq!(events(&ops, &read).repeated, 1);
    }

    #[test]
    fn an_event_with_another_amount_is_objected_to() {
        let (ops, mut read) = sample();
        read[1].amount += 1;
        assert_eq!(events(&ops, &read).repeated, 1);
    }

    #[test]
    fn holes_in_versions_and_offsets_and_steps_back_are_gaps() {
        let (ops, read) = sample();
        for corrupt in
            [|read: &mut Vec<Seen>| read[3].version = 4, |read: &mut Vec<Seen>| read[3].offset = 3, |read: &mut Vec<Seen>| read.swap(2, 3)]
        {
            let mut read = read.clone();
            corrupt(&mut read);
            assert!(events(&ops, &read).gaps > 0);
        }
    }

    #[test]
    fn half_an_operation_is_a_gap() {
        let (mut ops, mut read) = sample();
        ops.get_mut(&0).unwrap().state = State::Unknown;
        read.remove(2);
        assert!(events(&ops, &read).gaps > 0);
    }

    #[test]
    fn a_view_that_is_off_by_anything_is_a_mismatch() {
        let (_, read) = sample();
        for corrupt in [
            |view: &mut ViewAt| view.rows.get_mut("a").unwrap().total += 1,
            |view: &mut ViewAt| view.rows.get_mut("b").unwrap().high = 0,
            |view: &mut ViewAt| view.rows.retain(|account, _| account != "b"),
            |view: &mut ViewAt| view.position = 8,
        ] {
            let mut folded = folded();
            corrupt(&mut folded);
            assert_eq!(view(&read, &folded).view_mismatches, 1);
        }
    }

    #[test]
    fn an_output_that_is_missing_repeated_or_other_is_a_mismatch() {
        let (_, read) = sample();
        for corrupt in [
            |outputs: &mut Vec<Output>| outputs.truncate(1),
            |outputs: &mut Vec<Output>| outputs.push(Output { position: 12, ..outputs[1].clone() }),
            |outputs: &mut Vec<Output>| outputs[0].amount = 901,
            |outputs: &mut Vec<Output>| outputs[0].account = "b".to_owned(),
        ] {
            let mut outputs = copies();
            corrupt(&mut outputs);
            assert!(output(&read, &outputs).output_mismatches > 0);
            assert!(output(&read, &copies()).is_clean());
        }
    }

    #[test]
    fn what_was_shown_and_is_gone_is_lost() {
        assert_eq!(shown(&copies(), &copies()[..1]).lost, 1);
    }
}
