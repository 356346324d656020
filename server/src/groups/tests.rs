//! The state machine of a group against a plain model, over lives that end in the middle of anything.

use std::{collections::BTreeMap, time::Duration};

use foldlog_log::{EventQuery, Timestamp, testing::Random};

use super::{
    config::{GroupChanges, GroupConfig, OnExhausted, Ordering},
    delivery::{At, Change, Delivery, DeliveryRef, Known, Now, Verdict},
    group::Group,
    losses::Lost,
    members::{Credit, MemberId},
    parked::{Parked, ParkedState},
    progress::{Bucket, Changed, Progress},
};

/// What was written, as the log keeps it.
#[derive(Clone, Default)]
struct Disk {
    lows: BTreeMap<u32, u64>,
    buckets: BTreeMap<(u32, u64), Bucket>,
    parked: BTreeMap<At, Parked>,
    lost: BTreeMap<u32, Lost>,
}

impl Disk {
    fn write(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Progress(partition, Changed::Low(low)) => drop(self.lows.insert(partition, low)),
                Change::Progress(partition, Changed::Bucket(number, Some(bucket))) => {
                    drop(self.buckets.insert((partition, number), bucket))
                }
                Change::Progress(partition, Changed::Bucket(number, None)) => drop(self.buckets.remove(&(partition, number))),
                Change::Parked(at, Some(parked)) => drop(self.parked.insert(at, parked)),
                Change::Parked(at, None) => drop(self.parked.remove(&at)),
                Change::Lost(partition, lost) => drop(self.lost.insert(partition, lost)),
            }
        }
    }

    fn group(&self, config: GroupConfig, partitions: u32, first_lease: u64) -> Group {
        let restore = |partition| {
            let buckets = self.buckets.range((partition, 0)..=(partition, u64::MAX)).map(|((_, number), bucket)| (*number, bucket.clone()));
            Progress::restore(self.lows.get(&partition).copied().unwrap_or_default(), buckets)
        };
        Group::new(config, (0..partitions).map(restore).collect(), self.parked.clone(), self.lost.clone(), first_lease)
    }
}

/// What the model knows of an event.
#[derive(Clone, Debug, PartialEq)]
enum Event {
    /// To be delivered, so often delivered before, not before that time.
    Waits(u32, Duration),
    /// Delivered: to whom, under which lease, until when, after how many deliveries.
    Held(MemberId, u64, Duration, u32),
    Done,
    Parked,
    Blocks,
}

#[derive(Clone, Debug)]
struct Row {
    key: Option<u64>,
    /// Whether a filter means it.
    is_meant: bool,
    state: Event,
    /// It was parked, and was given back.
    replayed: bool,
}

struct World {
    random: Random,
    config: GroupConfig,
    partitions: u32,
    /// The log: none where nothing is for readers.
    log: Vec<Vec<Option<Row>>>,
    disk: Disk,
    group: Group,
    now: Duration,
    members: BTreeMap<MemberId, (u64, i64)>,
    next_member: u64,
    lives: u64,
    /// Where each partition begins, and how many offsets were lost.
    firsts: Vec<u64>,
    lost: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let config = GroupConfig {
            ordering: an_ordering(&mut random),
            on_exhausted: an_end(&mut random),
            max_attempts: 1 + u32::try_from(random.below(3)).unwrap(),
            ack_timeout: Duration::from_millis(1_000),
            backoff_first: Duration::from_millis(100),
            backoff_max: Duration::from_millis(400),
            max_in_flight: 1 + u32::try_from(random.below(20)).unwrap(),
            filter: None,
        };
        let partitions = 1 + u32::try_from(random.below(3)).unwrap();
        let disk = Disk::default();
        let group = disk.group(config.clone(), partitions, 0);
        let log = vec![Vec::new(); partitions as usize];
        Self {
            random,
            config,
            partitions,
            log,
            disk,
            group,
            now: Duration::ZERO,
            members: BTreeMap::new(),
            next_member: 1,
            lives: 0,
            firsts: vec![0; partitions as usize],
            lost: 0,
        }
    }

    fn time(&self) -> Now {
        Now { monotonic: self.now, wall: Timestamp::new(0) }
    }

    fn row(&mut self, at: At) -> &mut Row {
        self.log[at.0 as usize][usize::try_from(at.1).unwrap()].as_mut().unwrap()
    }

    fn rows(&self) -> impl Iterator<Item = (At, &Row)> {
        (0..).zip(&self.log).flat_map(|(partition, rows)| {
            (0..).zip(rows).filter_map(move |(offset, row)| row.as_ref().map(|row| ((partition, offset), row)))
        })
    }

    fn held(&self) -> Vec<(At, MemberId, u64)> {
        let held = |(at, row): (At, &Row)| match row.state {
            Event::Held(member, lease, ..) => Some((at, member, lease)),
            _ => None,
        };
        self.rows().filter_map(held).collect()
    }

    fn append(&mut self) {
        for _ in 0..self.random.below(30) {
            let partition = usize::try_from(self.random.below(self.partitions.into())).unwrap();
            let key = (!self.random.one_in(5)).then(|| self.random.below(4));
            let row = Row { key, is_meant: self.random.one_in(2), state: Event::Waits(0, Duration::ZERO), replayed: false };
            let row = (!self.random.one_in(8)).then_some(row);
            self.log[partition].push(row);
        }
    }

    fn learn(&mut self) {
        for partition in 0..self.log.len() {
            let Some((from, most)) = self.group.wants(partition) else { continue };
            let most = usize::try_from(self.random.below(most.into()) + 1).unwrap();
            let rows = (0_u64..).zip(&self.log[partition]).skip(usize::try_from(from).unwrap());
            let is_filtered = self.config.filter.is_some();
            let meant =
                rows.filter_map(|(offset, row)| row.as_ref().filter(|row| row.is_meant || !is_filtered).map(|row| known(offset, row)));
            let known = meant.take(most).collect::<Vec<_>>();
            let end = if known.len() < most { self.log[partition].len() as u64 } else { known.last().unwrap().offset + 1 };
            self.group.learn(partition, &known, end.max(from));
            let passed = usize::try_from(from).unwrap()..usize::try_from(self.group.next(partition)).unwrap();
            for row in self.log[partition][passed].iter_mut().flatten().filter(|row| is_filtered && !row.is_meant) {
                match row.state {
                    Event::Waits(..) if !row.replayed => row.state = Event::Done,
                    // Somebody has to say what becomes of it.
                    Event::Blocks => row.replayed = true,
                    _ => {}
                }
            }
        }
        for at in self.group.unknown(64) {
            let known = known(at.1, self.row(at));
            self.group.learn_parked(at, Some(&known));
        }
    }

    /// Retention removes the beginning of a partition.
    fn remove(&mut self) {
        let partition = usize::try_from(self.random.below(self.partitions.into())).unwrap();
        let (first, end) = (self.firsts[partition], self.log[partition].len() as u64);
        self.firsts[partition] = (first + self.random.below(12)).min(end);
        self.lose();
    }

    fn lose(&mut self) {
        for partition in 0..self.log.len() {
            let (first, progress) = (self.firsts[partition], self.group.progress(partition));
            for (offset, row) in (0..first).zip(&mut self.log[partition]) {
                let is_waited_for = match row {
                    Some(row) => matches!(row.state, Event::Waits(..) | Event::Blocks) && !row.replayed,
                    None => !progress.is_done(offset),
                };
                self.lost += u64::from(is_waited_for);
                if let Some(row) = row.as_mut().filter(|_| is_waited_for) {
                    row.state = Event::Done;
                }
            }
            self.group.lose(partition, first, Now::default());
        }
        assert_eq!(self.group.lost_in_all(), self.lost);
        self.group.take_losses_to_tell();
        self.disk.write(self.group.take_changes());
    }

    /// Delivers, writes what must be remembered, and checks what leaves.
    fn deliver(&mut self) -> Vec<Delivery> {
        self.lose();
        let deliveries = self.group.deliver(self.time());
        self.disk.write(self.group.take_changes());
        for delivery in &deliveries {
            self.check(delivery);
        }
        assert!(self.held().len() <= self.config.max_in_flight as usize, "too much in flight");
        assert_eq!(self.held().len(), self.group.in_flight());
        deliveries
    }

    fn check(&mut self, delivery: &Delivery) {
        let Delivery { member, delivery: DeliveryRef { at, lease }, attempt, replayed, until } = *delivery;
        let now = self.now;
        let row = self.row(at).clone();
        let Event::Waits(attempts, due) = row.state else { panic!("{at:?} is delivered although it is {row:?}") };
        assert!(due <= now, "{at:?} comes too early");
        assert_eq!((attempt, replayed), (attempts + 1, row.replayed), "{at:?}");
        let lane = |(other, one): &(At, &Row)| other.0 == at.0 && *other != at && self.is_one_lane(&row, one);
        for (other, one) in self.rows().filter(lane) {
            assert!(!matches!(one.state, Event::Held(..)), "{at:?} is delivered beside {other:?}");
            let is_ahead = other.1 < at.1;
            assert!(!is_ahead || matches!(one.state, Event::Done | Event::Parked), "{at:?} overtakes {other:?}, which is {one:?}");
        }
        let (events, bytes) = self.members.get_mut(&member).expect("a member that is there");
        assert!(*events > 0 && *bytes > 0, "no credit is left");
        (*events, *bytes) = (*events - 1, *bytes - 138);
        self.row(at).state = Event::Held(member, lease, until.monotonic, attempts + 1);
    }

    fn is_one_lane(&self, one: &Row, other: &Row) -> bool {
        match self.config.ordering {
            Ordering::PerStream => one.key.is_some() && one.key == other.key,
            Ordering::PerPartition => true,
            Ordering::None => false,
        }
    }

    /// What becomes of an event in the model.
    fn finish(&mut self, at: At, verdict: &Verdict) {
        let (config, now) = (self.config.clone(), self.now);
        let row = self.row(at);
        let Event::Held(.., attempts) = row.state else { panic!("{at:?} is not held") };
        row.state = match verdict {
            Verdict::Done | Verdict::Skip => Event::Done,
            Verdict::Park(_) => Event::Parked,
            Verdict::Block(_) => Event::Blocks,
            Verdict::HandBack => Event::Waits(attempts - 1, Duration::ZERO),
            Verdict::Retry(..) if attempts >= config.max_attempts => match config.on_exhausted {
                OnExhausted::Park => Event::Parked,
                OnExhausted::Skip => Event::Done,
                OnExhausted::BlockStream => Event::Blocks,
            },
            Verdict::Retry(delay, _) => Event::Waits(attempts, now + delay.unwrap_or(config.backoff(attempts))),
        };
        row.replayed &= matches!(row.state, Event::Waits(..) | Event::Blocks);
    }

    fn settle(&mut self) {
        let held = self.held();
        if held.is_empty() {
            return;
        }
        let (at, member, lease) = held[usize::try_from(self.random.below(held.len() as u64)).unwrap()];
        let why = || "why".to_owned();
        let verdict = match self.random.below(8) {
            0 => Verdict::Park(why()),
            1 => Verdict::Skip,
            2 => Verdict::Block(why()),
            3 => Verdict::Retry(None, why()),
            4 => Verdict::Retry(Some(Duration::from_millis(self.random.below(3_000))), why()),
            _ => Verdict::Done,
        };
        let named = DeliveryRef { at, lease };
        for wrong in [DeliveryRef { lease: lease.wrapping_add(1_000_000), ..named }, DeliveryRef { at: (at.0, at.1 + 1_000_000), lease }] {
            assert_eq!(self.group.settle(member, &[wrong], true, &verdict, self.time()), [wrong]);
        }
        assert_eq!(self.group.settle(MemberId(0), &[named], false, &verdict, self.time()), [named], "another's lease");
        let cumulative = self.random.one_in(3);
        assert_eq!(self.group.settle(member, &[named], cumulative, &verdict, self.time()), []);
        assert_eq!(self.group.settle(member, &[named], false, &verdict, self.time()), [named], "a lease ends once");
        let also =
            |(other, whose, _): &(At, MemberId, u64)| *other == at || (cumulative && *whose == member && other.0 == at.0 && other.1 < at.1);
        for (at, ..) in held.iter().filter(|one| also(one)) {
            self.finish(*at, &verdict);
        }
    }

    fn extend(&mut self) {
        if let Some((at, member, lease)) = self.held().first().copied() {
            assert_eq!(self.group.extend(member, &[DeliveryRef { at, lease }], self.time()), []);
            let until = self.now + self.config.ack_timeout;
            if let Event::Held(_, _, held_until, _) = &mut self.row(at).state {
                *held_until = until;
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.group.tick(self.time());
        for (at, ..) in self.held() {
            let Event::Held(_, _, until, _) = self.row(at).state else { continue };
            if until <= self.now {
                self.finish(at, &Verdict::Retry(None, String::new()));
            }
        }
        assert!(self.group.wake_at().is_none_or(|at| at > self.now), "what is due was done");
    }

    fn join(&mut self) {
        let id = MemberId(self.next_member);
        self.next_member += 1;
        let credit = Credit { events: self.random.below(10), bytes: i64::try_from(self.random.below(3_000)).unwrap() };
        self.group.join(id, credit);
        self.members.insert(id, (credit.events, credit.bytes));
    }

    fn leave(&mut self) {
        let Some(id) = self.members.keys().copied().nth(usize::try_from(self.random.below(4)).unwrap()) else { return };
        let hands_back = self.random.one_in(2);
        self.group.leave(id, hands_back, self.time());
        self.members.remove(&id);
        for (at, member, _) in self.held() {
            if member == id {
                let gone = Verdict::Retry(Some(Duration::ZERO), String::new());
                self.finish(at, if hands_back { &Verdict::HandBack } else { &gone });
            }
        }
    }

    fn grant(&mut self, more: Credit) {
        for (id, (events, bytes)) in &mut self.members {
            self.group.grant(*id, more);
            (*events, *bytes) = ((*events + more.events).min(Credit::MAX.events), (*bytes + more.bytes).min(Credit::MAX.bytes));
        }
    }

    fn replay(&mut self, discard: bool) {
        let parked: Vec<At> = self.rows().filter(|(_, row)| matches!(row.state, Event::Parked | Event::Blocks)).map(|(at, _)| at).collect();
        let some: Vec<At> = parked.into_iter().filter(|_| self.random.one_in(2)).collect();
        if some.is_empty() {
            return;
        }
        let count = if discard { self.group.discard(&some) } else { self.group.replay(&some) };
        assert_eq!(count, some.len() as u64);
        for at in some {
            let row = self.row(at);
            row.replayed |= row.state == Event::Parked;
            row.state = if discard { Event::Done } else { Event::Waits(0, Duration::ZERO) };
            row.replayed &= !discard;
        }
    }

    /// The process ends; what was not written is lost, and it was not shown to anybody.
    fn die(&mut self) {
        if self.random.one_in(2) {
            // Deliveries that never left: their changes were not written.
            let _unsent = self.group.deliver(self.time());
        } else {
            self.disk.write(self.group.take_changes());
        }
        self.lives += 1;
        self.group = self.disk.group(self.config.clone(), self.partitions, self.lives << 32);
        self.members.clear();
        for (at, ..) in self.held() {
            let now = self.now;
            let row = self.row(at);
            let Event::Held(.., attempts) = row.state else { continue };
            row.state = Event::Waits(attempts, now);
        }
    }

    fn alter(&mut self) {
        let mut changes = GroupChanges {
            max_attempts: Some(1 + u32::try_from(self.random.below(3)).unwrap()),
            ack_timeout: Some(Duration::from_millis(500 + self.random.below(1_000))),
            on_exhausted: Some(an_end(&mut self.random)),
            max_in_flight: Some(self.held().len() as u32 + 1 + u32::try_from(self.random.below(20)).unwrap()),
            ..GroupChanges::default()
        };
        if self.members.is_empty() {
            let filter = if self.random.one_in(2) { EventQuery::All } else { EventQuery::Items(vec![Default::default()]) };
            (changes.ordering, changes.filter) = (Some(an_ordering(&mut self.random)), Some(filter));
        }
        self.config = self.config.altered(changes);
        self.group.alter(self.config.clone());
    }

    fn step(&mut self) {
        match self.random.below(22) {
            20 => self.alter(),
            21 => self.remove(),
            0..=2 => self.append(),
            3..=5 => self.learn(),
            6..=9 => drop(self.deliver()),
            10..=13 => self.settle_and_write(),
            14 => self.extend(),
            15 => self.pass_some(),
            16 => self.join(),
            17 if self.random.one_in(2) => self.leave(),
            18 => self.put_back(),
            19 if self.random.one_in(4) => self.die_after_writing(),
            _ => self.grant(Credit { events: 5, bytes: 1_000 }),
        }
    }

    fn settle_and_write(&mut self) {
        self.settle();
        // Verdicts that are not written are not told; the model takes none of them back.
        self.disk.write(self.group.take_changes());
    }

    fn pass_some(&mut self) {
        let time = Duration::from_millis(self.random.below(700));
        self.pass(time);
        self.disk.write(self.group.take_changes());
    }

    fn put_back(&mut self) {
        let discard = self.random.one_in(3);
        self.replay(discard);
        self.disk.write(self.group.take_changes());
    }

    fn die_after_writing(&mut self) {
        self.disk.write(self.group.take_changes());
        // A pause is not remembered: after a start everything that waits may come.
        self.die();
        for rows in &mut self.log {
            for row in rows.iter_mut().flatten() {
                if let Event::Waits(_, due) = &mut row.state {
                    *due = Duration::ZERO;
                }
            }
        }
    }

    /// Everybody does what is asked of him, until nothing is left.
    fn finish_all(&mut self) {
        self.join();
        for round in 0.. {
            assert!(round < 10_000, "it does not come to an end");
            self.grant(Credit { events: 100, bytes: 100_000 });
            self.learn();
            for delivery in self.deliver() {
                assert_eq!(self.group.settle(delivery.member, &[delivery.delivery], false, &Verdict::Done, self.time()), []);
                self.finish(delivery.delivery.at, &Verdict::Done);
            }
            self.pass(Duration::from_millis(500));
            self.group.replay(&[]);
            let blocked: Vec<At> =
                self.rows().filter(|(_, row)| matches!(row.state, Event::Parked | Event::Blocks)).map(|(at, _)| at).collect();
            for at in blocked {
                let row = self.row(at);
                row.replayed |= row.state == Event::Parked;
                row.state = Event::Waits(0, Duration::ZERO);
            }
            if self.rows().all(|(_, row)| row.state == Event::Done) {
                break;
            }
        }
        self.learn();
        self.disk.write(self.group.take_changes());
        assert_eq!((self.group.parked(), self.group.in_flight()), (0, 0));
        let again = self.disk.group(self.config.clone(), self.partitions, 0);
        for (partition, rows) in self.log.iter().enumerate() {
            assert_eq!(self.group.progress(partition).low(), rows.len() as u64);
            assert_eq!(again.progress(partition).low(), rows.len() as u64, "as it was written");
        }
    }
}

fn an_ordering(random: &mut Random) -> Ordering {
    [Ordering::PerStream, Ordering::PerPartition, Ordering::None][usize::try_from(random.below(3)).unwrap()]
}

fn an_end(random: &mut Random) -> OnExhausted {
    [OnExhausted::Park, OnExhausted::Skip, OnExhausted::BlockStream][usize::try_from(random.below(3)).unwrap()]
}

fn known(offset: u64, row: &Row) -> Known {
    Known { offset, key: row.key, bytes: 10, recorded_at: Timestamp::new(0) }
}

#[test]
fn a_group_does_what_a_plain_model_says_over_many_lives() {
    for seed in 0..100 {
        let mut world = World::new(seed);
        let steps = std::panic::AssertUnwindSafe(|| {
            (0..300).for_each(|_| world.step());
            world.finish_all();
        });
        if let Err(failed) = std::panic::catch_unwind(steps) {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(failed);
        }
    }
}

fn group_of(config: GroupConfig, events: u64) -> Group {
    let mut group = Disk::default().group(config, 1, 7);
    let known: Vec<Known> =
        (0..events).map(|offset| Known { offset, key: Some(offset % 2), bytes: 1, recorded_at: Timestamp::new(5) }).collect();
    group.join(MemberId(1), Credit::MAX);
    group.learn(0, &known, events);
    group
}

fn at(ms: u64) -> Now {
    Now { monotonic: Duration::from_millis(ms), wall: Timestamp::new(0) }
}

#[test]
fn an_event_that_is_never_acknowledged_is_parked_after_its_last_attempt() {
    let config = GroupConfig { max_attempts: 3, ..GroupConfig::default() };
    let mut group = group_of(config, 1);
    let mut now = 0;
    for attempt in 1..=3 {
        let [delivery] = group.deliver(at(now))[..] else { panic!("one delivery") };
        assert_eq!((delivery.attempt, group.wake_at()), (attempt, Some(delivery.until.monotonic)));
        now += 30_000;
        group.tick(at(now));
        if attempt < 3 {
            assert_eq!(group.deliver(at(now)), [], "it pauses first");
            now = u64::try_from(group.wake_at().unwrap().as_millis()).unwrap();
            group.tick(at(now));
        }
    }
    let (place, parked) = group.list_parked(None, 10).next().unwrap();
    assert_eq!((place, parked.state, parked.attempts), ((0, 0), ParkedState::Parked, 3));
    assert_eq!((group.progress(0).low(), group.redeliveries()), (1, 2));
    assert!(group.list_parked(Some((0, 0)), 10).next().is_none());
}

#[test]
fn a_stream_that_blocks_waits_for_the_operator_and_others_go_on() {
    let mut group = group_of(GroupConfig::default(), 6);
    let deliveries = group.deliver(at(0));
    assert_eq!(deliveries.iter().map(|one| one.delivery.at.1).collect::<Vec<_>>(), [0, 1], "one of each stream");
    group.settle(MemberId(1), &[deliveries[0].delivery], false, &Verdict::Block("poison".to_owned()), at(0));
    group.settle(MemberId(1), &[deliveries[1].delivery], false, &Verdict::Done, at(0));
    let [third] = group.deliver(at(0))[..] else { panic!("the other stream alone") };
    assert_eq!((third.delivery.at, group.oldest()), ((0, 3), Some(Timestamp::new(5))));
    assert_eq!(group.discard(&[]), 1);
    let [second] = group.deliver(at(0))[..] else { panic!("the stream goes on") };
    assert_eq!((second.delivery.at, group.progress(0).low()), ((0, 2), 2));
}

#[test]
fn partitions_that_move_take_no_valid_lease_along() {
    let config = GroupConfig { ordering: Ordering::PerPartition, ..GroupConfig::default() };
    let mut group = Disk::default().group(config, 2, 0);
    group.join(MemberId(1), Credit::MAX);
    for partition in 0..2 {
        group.learn(partition, &[Known { offset: 0, key: None, bytes: 1, recorded_at: Timestamp::new(0) }], 1);
    }
    assert_eq!(group.deliver(at(0)).len(), 2);
    group.join(MemberId(2), Credit::MAX);
    assert_eq!(group.take_assignments(), [(MemberId(1), vec![0]), (MemberId(2), vec![1])]);
    assert_eq!(group.deliver(at(0)), [], "the first member still holds both");
    group.leave(MemberId(1), false, at(1));
    let again = group.deliver(at(1));
    assert!(again.iter().all(|one| one.member == MemberId(2) && one.attempt == 2) && again.len() == 2);
}

#[test]
fn what_was_removed_is_lost_once_but_for_what_a_member_holds() {
    let mut group = group_of(GroupConfig { max_in_flight: 2, ..GroupConfig::default() }, 10);
    let [first, second] = group.deliver(at(0))[..] else { panic!("one of each stream") };
    group.lose(0, 8, at(5));
    let lost = Lost { total: 6, from: 0, end: 8, count: 6, at: Timestamp::new(0), told: false };
    assert_eq!(group.lost(0), Some(&lost), "but for the two that are held");
    assert_eq!(group.take_changes().first(), Some(&Change::Lost(0, lost)));
    group.settle(MemberId(1), &[first.delivery], false, &Verdict::Done, at(6));
    group.settle(MemberId(1), &[second.delivery], false, &Verdict::Retry(Some(Duration::ZERO), String::new()), at(6));
    group.lose(0, 8, at(7));
    assert_eq!(group.lost(0).map(|lost| (lost.total, lost.count, group.progress(0).low())), Some((7, 7, 8)), "it cannot come again");
    assert_eq!(group.take_losses_to_tell().len(), 1);
    assert_eq!(group.take_losses_to_tell(), [], "once");
    group.lose(0, 9, at(8));
    assert_eq!(group.lost(0).map(|lost| (lost.total, lost.from, lost.end, lost.count, lost.told)), Some((8, 8, 9, 1, false)));
    let [next] = group.deliver(at(9))[..] else { panic!("what is left") };
    assert_eq!(next.delivery.at, (0, 9));
}

#[test]
fn what_lies_far_behind_an_event_that_is_held_is_lost_when_it_is_settled() {
    let mut group = group_of(GroupConfig::default(), 1);
    let [held] = group.deliver(at(0))[..] else { panic!("one event") };
    group.lose(0, 1 << 40, at(0));
    assert!(group.lost_in_all() < 1 << 20 && group.wants(0).is_none());
    group.settle(MemberId(1), &[held.delivery], false, &Verdict::Done, at(1));
    group.lose(0, 1 << 40, at(1));
    assert_eq!((group.lost_in_all(), group.next(0)), ((1 << 40) - 1, 1 << 40));
}
