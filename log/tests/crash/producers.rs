//! A producer that sends again after each crash what was not answered: every unit takes effect once, in order.

use std::{path::Path, sync::Arc, time::Duration};

use foldlog_log::{
    Append, Appended, EmbeddedLog, LogBackend, LogConfig, LogError, NewEvent, Position, ProducerEpoch, ProducerId, ProducerKey, ReadLimits,
    Selection, Sequence, Sequenced, Stepper, StreamVersion, Timestamp, TopicKind, TopicSettings, Write,
    clock::ManualClock,
    testing::{Fault, Random, SimDisk},
};
use futures::FutureExt;

/// What happened, to show that something did.
#[derive(Debug, Default)]
struct Seen {
    crashes: u64,
    answered: u64,
    sent_again: u64,
    repeats: u64,
    checkpoints: u64,
}

/// A producer and what it knows.
struct Producer {
    random: Random,
    disk: SimDisk,
    clock: Arc<ManualClock>,
    epoch: Option<ProducerEpoch>,
    /// Units that were sent.
    sent: u64,
    /// The answers, of the first units.
    answers: Vec<Appended>,
    seen: Seen,
}

fn key() -> ProducerKey {
    ProducerKey { principal: "ann".into(), id: ProducerId::new([1; 16]) }
}

/// Unit `number` is as many events as it says, in the same stream as all.
fn unit(epoch: ProducerEpoch, number: u64) -> Append {
    let event = |place: u64| NewEvent { kind: "Sent".into(), data: format!("{number}.{place}").into(), ..NewEvent::default() };
    let events = (0..=number % 3).map(event).collect();
    let write = Write::Stream { topic: "t".parse().unwrap(), stream: "s".parse().unwrap(), events };
    Append { writes: vec![write], sequenced: Some(Sequenced { key: key(), epoch, sequence: Sequence::new(number) }), ..Append::default() }
}

impl Producer {
    fn new(seed: u64) -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::new(1_000_000)));
        let (random, disk) = (Random::new(seed), SimDisk::new(seed));
        Self { random, disk, clock, epoch: None, sent: 0, answers: Vec::new(), seen: Seen::default() }
    }

    fn open(&mut self) -> Result<(EmbeddedLog, Stepper), LogError> {
        let config = LogConfig {
            first_journal_file_bytes: 32 << 10,
            journal_file_bytes: 128 << 10,
            tail_bytes: 0,
            tidy_bytes: 16 << 10,
            untidied_bytes: 4 << 20,
            ..LogConfig::default()
        };
        let mut draw = self.random.fork();
        let random = move || (u128::from(draw.next()) << 64) | u128::from(draw.next());
        EmbeddedLog::open_stepped(Arc::new(self.disk.clone()), self.clock.clone(), Path::new("/data"), config, random)
    }

    /// Until the disk fails, or enough was done. Nothing but the disk may fail.
    fn live(&mut self) -> Result<(), LogError> {
        let (log, mut stepper) = self.open()?;
        log.create_topic("t".parse().unwrap(), TopicSettings::new(TopicKind::Events, 1))?;
        // Now and then it is another process, which knows the producer's id alone.
        let resume = self.epoch.filter(|_| !self.random.one_in(4));
        // One that begins ends the epoch before it, also if nobody hears of that.
        self.epoch = resume;
        let opened = log.open_producer(key(), resume)?;
        stepper.commit()?;
        let at = opened.now_or_never().expect("it was committed")?;
        let answered = self.answers.len() as u64;
        assert!((answered + 1..=self.sent + 1).contains(&at.next.get()), "{answered} of {} units, and {at:?}", self.sent);
        self.epoch = Some(at.epoch);
        let mut again = self.sent;
        for _ in 0..20 {
            self.clock.advance(Duration::from_millis(self.random.below(50)));
            match self.random.below(6) {
                0 => stepper.seal()?,
                1 => {
                    stepper.tidy()?;
                    self.seen.checkpoints += 1;
                }
                _ => {
                    let from = self.answers.len() as u64 + 1;
                    let mut line = (from..from + 1 + self.random.below(6)).map(|number| unit(at.epoch, number)).collect();
                    let line = log.append_all(&mut line)?;
                    let sent = from + line.len() as u64 - 1;
                    self.seen.sent_again += sent.min(again).saturating_sub(from - 1);
                    self.sent = self.sent.max(sent);
                    stepper.commit()?;
                    for (number, answer) in (from..).zip(line) {
                        let answer = answer?.now_or_never().expect("it was committed")?;
                        assert_eq!(answer.deduplicated, number < at.next.get(), "unit {number}");
                        self.seen.repeats += u64::from(answer.deduplicated);
                        self.answers.push(answer);
                    }
                    again = again.max(self.sent);
                }
            }
        }
        Ok(())
    }

    fn run(&mut self) {
        for _ in 0..6 {
            match self.random.below(3) {
                0 => self.disk.arm(Fault::PowerOff { nth: self.random.below(150) }),
                1 => self.disk.arm(Fault::Fail { kind: None, nth: self.random.below(150), errno: 5 }),
                _ => {}
            }
            let armed = !self.disk.is_disarmed();
            if let Err(error) = self.live() {
                assert!(matches!(error, LogError::Io { .. } | LogError::Unknown) && armed, "{error}");
            }
            self.disk = if self.disk.is_off() || self.random.one_in(2) { self.disk.power_cut() } else { self.disk.kill() };
            self.seen.crashes += 1;
        }
        self.live().expect("nothing fails");
        self.check();
    }

    /// Every unit is there once, where its answer says.
    fn check(&mut self) {
        let (log, _stepper) = self.open().expect("nothing fails");
        let mut reader = log.reader(Selection::Stream("t".parse().unwrap(), "s".parse().unwrap(), StreamVersion::FIRST)).unwrap();
        let mut found = Vec::new();
        loop {
            let chunk = reader.read(log.head().position, ReadLimits::default()).unwrap();
            for record in chunk.runs.iter().flat_map(|run| run.records()) {
                let record = record.unwrap();
                found.push((record.position, String::from_utf8(record.value.unwrap().to_vec()).unwrap()));
            }
            if chunk.runs.is_empty() {
                break;
            }
        }
        let of_unit = |(number, answer): (u64, &Appended)| {
            let first = answer.first;
            (0..=number % 3).map(move |place| (Position::new(first.get() + place), format!("{number}.{place}"))).collect::<Vec<_>>()
        };
        let expected: Vec<_> = (1..).zip(&self.answers).flat_map(of_unit).collect();
        assert_eq!(found, expected);
        self.seen.answered = self.answers.len() as u64;
    }
}

#[test]
fn a_producer_that_sends_again_after_crashes_takes_effect_once() {
    let mut seen = Seen::default();
    for seed in 0..300 {
        let mut producer = Producer::new(seed);
        // A failure prints which seed it was.
        println!("seed {seed}");
        producer.run();
        seen.crashes += producer.seen.crashes;
        seen.answered += producer.seen.answered;
        seen.sent_again += producer.seen.sent_again;
        seen.repeats += producer.seen.repeats;
        seen.checkpoints += producer.seen.checkpoints;
    }
    println!("{seen:?}");
    assert!(seen.crashes > 1500 && seen.answered > 10_000 && seen.checkpoints > 1500, "{seen:?}");
    assert!(seen.sent_again > 200 && seen.repeats > 50, "{seen:?}");
}
