//! One run of a seed: operations by chance, each compared with what the model says of it.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use foldlog_log::{
    Compression, Durability, EmbeddedLog, LogBackend, LogConfig, LogError, Offset, Position, ProducerEpoch, ProducerId, ProducerKey,
    Sequence, Stepper, Timestamp, TopicChanges, TopicKind, Write,
    clock::{Clock, ManualClock},
    testing::{Random, SimDisk},
};
use futures::FutureExt;

use crate::model::{KEPT, Model, Stored, TOPICS, Verdict};

/// Partitions that `r` may come to have.
pub const MOST_PARTITIONS: usize = 5;

/// What was compared, to show that something was.
#[derive(Debug, Default)]
pub struct Seen {
    pub appends: u64,
    pub violations: u64,
    pub repeats: u64,
    pub written: u64,
    pub reused: u64,
    pub changes: u64,
    pub snapshots: u64,
    pub refused_changes: u64,
    pub units: u64,
    pub disordered: u64,
    pub restarts: u64,
    pub reads: u64,
    pub backward: u64,
    pub by_time: u64,
    pub filtered: u64,
    pub matching: u64,
    pub altered: u64,
    pub deleted: u64,
    pub removed: u64,
    pub retained: u64,
    pub below: u64,
    pub compacted: u64,
    pub restored: u64,
    pub let_go: u64,
    pub redacted: u64,
    pub erased: u64,
    pub records: u64,
}

pub struct Run {
    pub random: Random,
    pub disk: SimDisk,
    pub clock: Arc<ManualClock>,
    pub config: LogConfig,
    pub model: Model,
    pub next_id: u64,
    /// Oldest offset left of each partition of `r`, as last told.
    pub firsts: [u64; MOST_PARTITIONS],
    /// The same of the partition of `b`.
    pub first_event: u64,
    pub seen: Seen,
}

impl Run {
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let config = LogConfig {
            first_journal_file_bytes: 32 << 10,
            journal_file_bytes: 128 << 10,
            tail_bytes: random.below(3) * 4096,
            tidy_bytes: 16 << 10,
            untidied_bytes: 4 << 20,
            segment_bytes: 4096 + random.below(2) * 8192,
            near_positions: random.below(3) * 2,
            segment_age_ms: 1_000 + random.below(2) * 100_000,
            removal_percent: 1 + random.below(2) * 40,
            ..LogConfig::default()
        };
        let clock = Arc::new(ManualClock::at(Timestamp::new(1_700_000_000_000)));
        Self {
            random,
            disk: SimDisk::new(seed),
            clock,
            config,
            model: Model::default(),
            next_id: 0,
            firsts: [0; MOST_PARTITIONS],
            first_event: 0,
            seen: Seen::default(),
        }
    }

    fn open(&mut self) -> (EmbeddedLog, Stepper) {
        let mut draw = self.random.fork();
        let random = move || (u128::from(draw.next()) << 64) | u128::from(draw.next());
        let disk = Arc::new(self.disk.clone());
        let (log, stepper) = EmbeddedLog::open_stepped(disk, self.clock.clone(), Path::new("/data"), self.config.clone(), random).unwrap();
        assert_eq!((&log.report().damage, log.report().damaged.len()), (&None, 0));
        for (name, settings) in &self.model.topics {
            assert_eq!(log.create_topic(name.parse().unwrap(), *settings).unwrap().settings, *settings);
        }
        log.allow_removal();
        (log, stepper)
    }

    /// `backs_up`: whether what the log holds is also looked at in what is restored of backups.
    pub fn run(&mut self, backs_up: bool) {
        let (mut log, mut stepper) = self.open();
        for _ in 0..60 {
            self.clock.advance(Duration::from_millis(self.random.below(150)));
            match self.random.below(35) / 2 {
                17 if self.random.one_in(3) => self.delete(&log),
                17 => self.alter(&log),
                15 | 16 => {
                    if self.random.one_in(3) {
                        // What was written a while ago is sealed.
                        self.clock.advance(Duration::from_secs(1));
                        stepper.tidy().unwrap();
                        stepper.upkeep().unwrap();
                        stepper.commit().unwrap();
                        stepper.tidy().unwrap();
                    }
                    for _ in 0..self.random.below(6) {
                        stepper.compact().unwrap();
                        stepper.commit().unwrap();
                        self.look_at_erasure(&log);
                    }
                    if self.random.one_in(3) {
                        self.erase(&log, &mut stepper);
                    }
                }
                13 | 14 => {
                    stepper.upkeep().unwrap();
                    stepper.commit().unwrap();
                }
                0 => stepper.seal().unwrap(),
                1 | 2 => stepper.tidy().unwrap(),
                3 => {
                    if backs_up {
                        self.look_at_backup(&mut stepper);
                    }
                    drop((log, stepper));
                    // Everything was answered, so no way to end takes anything away.
                    self.disk = if self.random.one_in(2) { self.disk.kill() } else { self.disk.power_cut() };
                    (log, stepper) = self.open();
                    self.seen.restarts += 1;
                }
                4..7 => self.read(&log),
                7 => self.open_producer(&log, &mut stepper),
                _ => self.append(&log, &mut stepper),
            }
            self.look_at_removal(&log);
        }
        self.read(&log);
        self.look_at_compaction(&log);
        self.look_at_what_was_let_go(&log);
        self.look_at_ends(&log);
        if backs_up {
            self.look_at_backup(&mut stepper);
        }
    }

    /// Where partitions end, and how streams stand.
    pub fn look_at_ends(&self, log: &EmbeddedLog) {
        for (name, kind, _) in TOPICS {
            let ends: Vec<_> =
                (0..self.model.topics[name].partitions).map(|partition| Offset::new(self.model.end(name, partition))).collect();
            assert_eq!(log.ends(&name.parse().unwrap()).unwrap(), ends);
            for stream in (0..6).map(|number| format!("s{number}")).filter(|_| kind == TopicKind::Events) {
                let head = log.stream_head(&name.parse().unwrap(), &stream.parse().unwrap()).unwrap();
                assert_eq!(head, self.model.head(name, &stream), "{stream} of {name}");
                let beginning = log.stream_state(&name.parse().unwrap(), &stream.parse().unwrap()).unwrap().beginning;
                let life = self.model.life(name, &stream);
                assert_eq!((beginning.first.get(), beginning.anew.get()), (life.first, life.anew), "{stream} of {name}");
            }
        }
    }

    /// Alters a topic: how what is appended from now on lies, or where, or when it is answered.
    fn alter(&mut self, log: &EmbeddedLog) {
        let (name, kind, _) = TOPICS[self.random.below(4) as usize];
        let known = self.model.topics.get_mut(name).unwrap();
        let mut changes = TopicChanges::default();
        match self.random.below(3) {
            0 => {
                known.compression = Compression::ALL[self.random.below(3) as usize];
                changes.compression = Some(known.compression);
            }
            1 => {
                known.durability = [Durability::Synced, Durability::Written][self.random.below(2) as usize];
                changes.durability = Some(known.durability);
            }
            _ if kind != TopicKind::Records || known.partitions as usize == MOST_PARTITIONS => return,
            _ => {
                known.partitions += 1;
                changes.partitions = Some(known.partitions);
            }
        }
        assert_eq!(log.alter_topic(&name.parse().unwrap(), changes).unwrap().settings, *known);
        self.seen.altered += 1;
    }

    /// Deletes a topic, and makes another one of its name.
    fn delete(&mut self, log: &EmbeddedLog) {
        let (name, ..) = TOPICS[self.random.below(4) as usize];
        let before = log.topic(&name.parse().unwrap()).unwrap();
        log.delete_topic(&before.name).unwrap();
        assert!(matches!(log.ends(&before.name), Err(LogError::UnknownTopic { .. })));
        self.model.make_anew(name);
        assert_ne!(log.create_topic(before.name.clone(), self.model.topics[name]).unwrap().id, before.id);
        match name {
            "r" => self.firsts = [0; MOST_PARTITIONS],
            "b" => self.first_event = 0,
            _ => {}
        }
        self.seen.deleted += 1;
    }

    /// Lets what was redacted be erased, mostly to the end.
    fn erase(&mut self, log: &EmbeddedLog, stepper: &mut Stepper) {
        for _ in 0..4 + self.random.below(30) {
            let left = ["a", "b"].map(|topic| log.redacting(&topic.parse().unwrap(), None).unwrap());
            if left.iter().all(|left| left.since.is_none()) {
                return;
            }
            stepper.compact().unwrap();
            stepper.commit().unwrap();
            self.look_at_erasure(log);
            stepper.tidy().unwrap();
            stepper.upkeep().unwrap();
            stepper.commit().unwrap();
        }
    }

    /// Takes over the marks that say that what was redacted is erased.
    fn look_at_erasure(&mut self, log: &EmbeddedLog) {
        for (topic, ..) in TOPICS.into_iter().filter(|(_, kind, _)| *kind == TopicKind::Events) {
            for (partition, end) in (0..).zip(log.ends(&topic.parse().unwrap()).unwrap()) {
                if end.get() > self.model.end(topic, partition) {
                    assert_eq!(end.get(), self.model.end(topic, partition) + 1);
                    self.model.mark_erased(topic, partition, self.clock.now());
                    self.seen.erased += 1;
                }
            }
        }
        assert_eq!(log.head().position, Position::new(self.model.records.len() as u64));
    }

    /// What was removed stays removed, and was old enough.
    fn look_at_removal(&mut self, log: &EmbeddedLog) {
        let firsts = log.firsts(&"r".parse().unwrap()).unwrap();
        let first_event = log.firsts(&"b".parse().unwrap()).unwrap()[0];
        let of_records = self.firsts.iter_mut().zip(firsts).enumerate().map(|(partition, firsts)| ("r", partition, firsts));
        for (topic, partition, (before, first)) in of_records.chain([("b", 0, (&mut self.first_event, first_event))]) {
            assert!(*before <= first.get(), "offsets from {first} to {before} of {topic} are back");
            *before = first.get();
            let is_removed =
                |record: &&Stored| record.topic == topic && record.partition == partition as u32 && record.offset < first.get();
            // What its stream had let go before does not count.
            let was_left = |record: &&Stored| {
                let first = |stream: &str| self.model.life(topic, stream).first;
                topic == "r" || !record.is_mark && record.key.as_deref().is_some_and(|stream| record.version >= first(stream))
            };
            let removed = self.model.records.iter().filter(is_removed).filter(was_left);
            let newest = removed.map(|record| record.recorded_at).max();
            let kept_from = self.clock.now().get() - KEPT.time.unwrap().as_millis() as i64;
            assert!(newest.is_none_or(|newest| newest < kept_from), "{newest:?} is not before {kept_from}");
        }
        self.model.let_go(self.first_event);
    }

    /// Begins an epoch of one of three producers, or asks where it stands.
    fn open_producer(&mut self, log: &EmbeddedLog, stepper: &mut Stepper) {
        let id = ProducerId::new([self.random.below(3) as u8; 16]);
        let newest: Vec<u64> = self.model.producers.values().map(|producer| producer.epoch).collect();
        let known = self.model.producers.entry(id).or_default();
        let resume = (known.epoch > 0 && self.random.one_in(3)).then(|| ProducerEpoch::new(known.epoch));
        let opened = log.open_producer(ProducerKey { principal: "p".into(), id }, resume).unwrap();
        stepper.commit().unwrap();
        let at = opened.now_or_never().expect("it was committed").unwrap();
        match resume {
            Some(epoch) => assert_eq!(at.epoch, epoch),
            None => assert!(newest.iter().all(|epoch| at.epoch.get() > *epoch), "{} is not newer than {newest:?}", at.epoch),
        }
        known.epoch = at.epoch.get();
        assert_eq!(at.next, Sequence::new(known.units.len() as u64 + 1));
    }

    /// Some appends in line, then one commit: each is judged behind those before it.
    fn append(&mut self, log: &EmbeddedLog, stepper: &mut Stepper) {
        let (mut waiting, mut in_line) = (Vec::new(), BTreeMap::new());
        for _ in 0..=self.random.below(5) {
            let (mut append, id) = self.request();
            self.number(&mut append, &mut in_line);
            waiting.push((append.clone(), id, log.append(append).expect("it is well formed")));
        }
        stepper.commit().unwrap();
        for (append, id, answer) in waiting {
            let expected = self.model.judge(&append, id, self.clock.now());
            let found = match answer.now_or_never().expect("it was committed") {
                Ok(answer) => Verdict::Done(answer),
                Err(LogError::Conflict { violations, .. }) => Verdict::Violated(violations),
                Err(LogError::RequestIdReused { first, .. }) => Verdict::Reused(first),
                Err(LogError::Tombstoned { stream, .. }) => Verdict::Tombstoned(stream),
                Err(LogError::NoSuchState { stream, actual, .. }) => Verdict::NoSuchState(stream, actual),
                Err(LogError::NoSuchEvent { stream, actual, version }) => Verdict::NoSuchEvent(stream, actual, version),
                Err(LogError::TruncatedBeyondEnd { stream, actual, .. }) => Verdict::BeyondEnd(stream, actual),
                Err(LogError::OutOfOrderSequence { next, .. }) => Verdict::OutOfOrder(next.get()),
                Err(LogError::RefusedBefore { .. }) => Verdict::RefusedBefore,
                Err(LogError::ProducerFenced { newest, .. }) => Verdict::Fenced(newest.get()),
                Err(error) => panic!("{error}"),
            };
            assert_eq!(found, expected, "{append:?}");
            self.seen.appends += 1;
            match expected {
                Verdict::Done(answer) => {
                    self.seen.repeats += u64::from(answer.deduplicated);
                    self.seen.units += u64::from(append.sequenced.is_some());
                    self.seen.written += u64::from(answer.durability == Durability::Written);
                    self.seen.redacted += append.writes.iter().filter(|write| matches!(write, Write::Redact { .. })).count() as u64;
                    self.seen.changes += append.writes.iter().filter(|write| matches!(write, Write::Change { .. })).count() as u64;
                }
                Verdict::Violated(violations) => self.seen.violations += violations.len() as u64,
                Verdict::Reused(_) => self.seen.reused += 1,
                Verdict::Tombstoned(_) | Verdict::BeyondEnd(..) | Verdict::NoSuchState(..) | Verdict::NoSuchEvent(..) => {
                    self.seen.refused_changes += 1
                }
                Verdict::OutOfOrder(_) | Verdict::RefusedBefore | Verdict::Fenced(_) => self.seen.disordered += 1,
            }
        }
        assert_eq!(log.head().position, Position::new(self.model.records.len() as u64));
    }
}
