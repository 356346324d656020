//! What asked for no more than its write is answered while the disk still syncs it, and shown to nobody before that is over.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    time::Duration,
};

use foldlog_log::{
    Append, AppendFuture, Appended, Durability, EmbeddedLog, Expected, Identity, LogBackend, LogConfig, LogError, NewEvent, Position,
    Precondition, ReadLimits, RequestId, RequestKey, Selection, StreamHead, StreamVersion, Timestamp, TopicKind, TopicSettings, Write,
    clock::ManualClock,
    disk::{Disk, DiskFile, Entry},
    testing::{CallKind, Fault, SimDisk, conformance::block_on},
};
use futures::FutureExt;
use parking_lot::Mutex;

const DATA: &str = "/data";

/// A disk whose syncs of files wait, once [`Gate::shut`] was called, until they are let through.
#[derive(Debug)]
struct Gate {
    disk: SimDisk,
    /// Says that a sync has come, and waits for its pass.
    shut: Mutex<Option<(mpsc::Sender<()>, mpsc::Receiver<()>)>>,
}

/// What the other side of a shut gate holds: which syncs came, and passes for them.
struct Keeper {
    came: mpsc::Receiver<()>,
    passes: mpsc::Sender<()>,
}

impl Keeper {
    /// Waits until a sync has come.
    fn wait(&self) {
        self.came.recv_timeout(Duration::from_secs(60)).unwrap();
    }
}

impl Gate {
    fn shut(&self) -> Keeper {
        let (says, came) = mpsc::channel();
        let (passes, waits) = mpsc::channel();
        *self.shut.lock() = Some((says, waits));
        Keeper { came, passes }
    }

    fn pass(&self) {
        let shut = self.shut.lock();
        if let Some((says, waits)) = &*shut
            && says.send(()).is_ok()
        {
            // A keeper that has gone lets everything through.
            let _ = waits.recv();
        }
    }
}

#[derive(Debug)]
struct Gated(Arc<Gate>);

#[derive(Debug)]
struct GatedFile(Arc<Gate>, Arc<dyn DiskFile>);

impl DiskFile for GatedFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.1.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.1.write_at(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.pass();
        self.1.sync()
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.1.set_len(length)
    }

    fn len(&self) -> io::Result<u64> {
        self.1.len()
    }
}

impl Disk for Gated {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(GatedFile(Arc::clone(&self.0), self.0.disk.open(path)?)))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(GatedFile(Arc::clone(&self.0), self.0.disk.create(path)?)))
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.0.disk.create_folder(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.disk.remove(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.0.disk.remove_folder(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>> {
        self.0.disk.list(folder)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.0.disk.sync_folder(folder)
    }

    fn lock(&self, folder: &Path, owner: &str) -> io::Result<Box<dyn Send + Sync>> {
        self.0.disk.lock(folder, owner)
    }
}

/// A topic of each level.
fn create_topics(log: &EmbeddedLog) {
    for (name, durability) in [("synced", Durability::Synced), ("written", Durability::Written)] {
        let settings = TopicSettings { durability, ..TopicSettings::new(TopicKind::Events, 1) };
        log.create_topic(name.parse().unwrap(), settings).unwrap();
    }
}

fn append(topic: &str, durability: Option<Durability>) -> Append {
    let event = NewEvent { kind: "E".into(), data: "1".into(), ..NewEvent::default() };
    let write = Write::Stream { topic: topic.parse().unwrap(), stream: "s".parse().unwrap(), events: vec![event] };
    Append { writes: vec![write], durability, ..Append::default() }
}

fn believing(topic: &str, expected: Expected) -> Append {
    let condition = Precondition::Stream { topic: topic.parse().unwrap(), stream: "s".parse().unwrap(), expected };
    Append { preconditions: vec![condition], ..append(topic, Some(Durability::Written)) }
}

fn identified(id: u8) -> Append {
    let key = RequestKey { principal: "me".into(), id: RequestId::new([id; 16]) };
    Append { identity: Some(Identity { key, digest: 1, first_attempt: None }), ..append("written", None) }
}

fn records(log: &EmbeddedLog) -> u32 {
    let mut reader = log.reader(Selection::All(Position::new(0))).unwrap();
    reader.read(log.head().position, ReadLimits::default()).unwrap().runs.iter().map(|run| run.count).sum()
}

fn now(answer: AppendFuture) -> Appended {
    answer.now_or_never().expect("it is answered").unwrap()
}

#[test]
fn what_asks_for_its_write_is_answered_before_the_sync_and_shown_after_it() {
    let gate = Arc::new(Gate { disk: SimDisk::new(1), shut: Mutex::default() });
    let clock = Arc::new(ManualClock::at(Timestamp::new(1000)));
    let log = EmbeddedLog::open(Arc::new(Gated(Arc::clone(&gate))), clock.clone(), Path::new(DATA), LogConfig::default()).unwrap();
    create_topics(&log);
    assert_eq!((log.metrics().unsynced_bytes, log.metrics().unsynced_age), (0, Duration::ZERO));

    let keeper = gate.shut();
    let by_topic = log.append(identified(1)).unwrap();
    keeper.wait();
    let by_topic = now(by_topic);
    assert_eq!((by_topic.durability, by_topic.end), (Durability::Written, Position::new(1)));
    assert_eq!((log.head().position, records(&log)), (Position::new(0), 0), "readers see what is synced");
    let head = |topic: &str| log.stream_head(&topic.parse().unwrap(), &"s".parse().unwrap()).unwrap();
    assert_eq!(head("written"), StreamHead::Absent);
    clock.advance(Duration::from_secs(3));
    let metrics = log.metrics();
    assert!(metrics.unsynced_bytes >= 4096, "{metrics:?}");
    assert_eq!(metrics.unsynced_age, Duration::from_secs(3));

    // Verdicts on what is written and not synced wait for the sync, whatever they were asked for.
    let conflict = log.append(believing("written", Expected::Absent)).unwrap();
    let repeat = log.append(Append { durability: Some(Durability::Written), ..identified(1) }).unwrap();
    let synced = log.append(append("synced", None)).unwrap();
    let by_call = log.append(append("synced", Some(Durability::Written))).unwrap();
    keeper.passes.send(()).unwrap();
    keeper.wait();
    assert_eq!(now(by_call).durability, Durability::Written);
    assert!([conflict, repeat, synced].into_iter().all(|answer| answer.now_or_never().is_none()), "their group is not synced");
    assert_eq!((log.head().position, records(&log)), (by_topic.end, 1));

    let at = |version| StreamHead::At(StreamVersion::new(version));
    let mut end = log.durable();
    drop(keeper);
    block_on(end.wait_for(|end| end.get() == 3)).unwrap();
    assert_eq!((records(&log), head("synced"), head("written")), (3, at(2), at(1)));
    assert_eq!((log.metrics().unsynced_bytes, log.metrics().unsynced_age), (0, Duration::ZERO));
    log.stop();
}

#[test]
fn the_answer_to_a_repeat_is_synced_and_otherwise_the_first() {
    let gate = Arc::new(Gate { disk: SimDisk::new(1), shut: Mutex::default() });
    let clock = Arc::new(ManualClock::at(Timestamp::new(1000)));
    let log = EmbeddedLog::open(Arc::new(Gated(Arc::clone(&gate))), clock, Path::new(DATA), LogConfig::default()).unwrap();
    create_topics(&log);
    let keeper = gate.shut();
    let first = log.append(identified(1)).unwrap();
    keeper.wait();
    let first = now(first);
    let conflict = log.append(believing("written", Expected::Absent)).unwrap();
    let repeat = log.append(identified(1)).unwrap();
    let stronger = log.append(append("written", Some(Durability::Synced))).unwrap();
    drop(keeper);
    assert!(matches!(block_on(conflict), Err(LogError::Conflict { .. })));
    assert_eq!(block_on(repeat).unwrap(), Appended { deduplicated: true, durability: Durability::Synced, ..first });
    let stronger = block_on(stronger).unwrap();
    assert_eq!((stronger.durability, log.head().position), (Durability::Synced, stronger.end));
    log.stop();
}

fn open_stepped(disk: &SimDisk) -> (EmbeddedLog, foldlog_log::Stepper) {
    let mut drawn = 0;
    let random = move || {
        drawn += 1;
        drawn
    };
    let clock = Arc::new(ManualClock::at(Timestamp::new(1000)));
    EmbeddedLog::open_stepped(Arc::new(disk.clone()), clock, &PathBuf::from(DATA), LogConfig::default(), random).unwrap()
}

/// Appends one of each level in one group, of which the write or the sync fails; says who was answered.
fn fail(disk: &SimDisk, fault: Fault) -> [Result<Appended, LogError>; 2] {
    let (log, mut stepper) = open_stepped(disk);
    create_topics(&log);
    let answers = ["written", "synced"].map(|topic| log.append(append(topic, None)).unwrap());
    disk.arm(fault);
    assert!(stepper.commit().is_err());
    assert_eq!(log.head().position, Position::new(0));
    answers.map(|answer| answer.now_or_never().unwrap())
}

#[test]
fn what_was_answered_as_written_survives_every_kill_and_a_power_cut_may_take_it() {
    let mut kept_by_cuts = 0;
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        let [written, synced] = fail(&disk, Fault::Fail { kind: Some(CallKind::Sync), nth: 0, errno: 5 });
        assert_eq!(written.unwrap().durability, Durability::Written);
        assert!(matches!(synced, Err(LogError::Unknown)));
        let (log, _) = open_stepped(&disk.fork().power_cut());
        kept_by_cuts += u64::from(records(&log) == 2);
        let (log, _) = open_stepped(&disk.kill());
        assert_eq!(records(&log), 2);
    }
    assert!((1..40).contains(&kept_by_cuts), "{kept_by_cuts}");
}

#[test]
fn what_is_not_written_is_answered_to_nobody() {
    let answers = fail(&SimDisk::new(1), Fault::Fail { kind: Some(CallKind::Write), nth: 0, errno: 5 });
    assert!(answers.iter().all(|answer| matches!(answer, Err(LogError::Unknown))), "{answers:?}");
}
