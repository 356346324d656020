//! A disk runs full: what may still be written is, the rest is refused without harm, and service returns without a restart.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{path::Path, sync::Arc, time::Duration};

use foldlog_log::{
    Append, EmbeddedLog, LogBackend, LogConfig, LogError, NewEvent, Position, Purpose, ReadLimits, Selection, Stepper, Timestamp,
    TopicKind, TopicSettings, Write, clock::ManualClock, disk::Disk, testing::SimDisk,
};
use futures::FutureExt;

const SECOND: Duration = Duration::from_secs(1);
const RESERVE: u64 = 64 << 10;

struct Folder {
    disk: SimDisk,
    clock: Arc<ManualClock>,
    config: LogConfig,
}

impl Folder {
    /// A folder on a disk of which `reserve_bytes` are kept.
    fn new(reserve_bytes: u64) -> Self {
        let config = LogConfig {
            first_journal_file_bytes: 64 << 10,
            journal_file_bytes: 64 << 10,
            reserve_bytes,
            reserve_percent: 0,
            ..LogConfig::default()
        };
        let disk = SimDisk::new(1);
        // No reserve takes more than a tenth of a disk.
        disk.create(Path::new("/filler")).unwrap().set_len(10 * RESERVE).unwrap();
        Self { disk, clock: Arc::new(ManualClock::at(Timestamp::new(1000))), config }
    }

    fn open(&self) -> (EmbeddedLog, Stepper) {
        let mut drawn = 0;
        let random = move || {
            drawn += 1;
            drawn
        };
        let folder = Path::new("/data");
        EmbeddedLog::open_stepped(Arc::new(self.disk.clone()), self.clock.clone(), folder, self.config.clone(), random).unwrap()
    }

    /// From the next look on that much is free.
    fn set_free(&self, bytes: u64) {
        self.disk.set_capacity(self.disk.used() + bytes);
        self.clock.advance(SECOND);
    }
}

fn append(log: &EmbeddedLog, stepper: &mut Stepper, purpose: Purpose) -> Result<(), LogError> {
    let event = NewEvent { kind: "E".into(), data: vec![b'x'; 3000].into(), ..NewEvent::default() };
    let write = Write::Stream { topic: "a".parse().unwrap(), stream: "s".parse().unwrap(), events: vec![event] };
    let answer = log.append(Append { writes: vec![write], purpose, ..Append::default() })?;
    stepper.commit().unwrap();
    answer.now_or_never().unwrap().map(|_| ())
}

fn create(log: &EmbeddedLog, name: &str) -> Result<(), LogError> {
    log.create_topic(name.parse().unwrap(), TopicSettings::new(TopicKind::Events, 1)).map(|_| ())
}

fn count(log: &EmbeddedLog) -> usize {
    let mut reader = log.reader(Selection::All(Position::default())).unwrap();
    let end = log.head().position;
    let (mut records, mut at) = (0, Position::default());
    while at < end {
        let chunk = reader.read(end, ReadLimits::default()).unwrap();
        records += chunk.runs.iter().map(|run| run.records().count()).sum::<usize>();
        at = chunk.scanned_to;
    }
    records
}

/// Appends until the journal has no room and no space for a file.
fn fill(log: &EmbeddedLog, stepper: &mut Stepper, purpose: Purpose) -> usize {
    for _ in 0..1000 {
        match append(log, stepper, purpose) {
            Ok(()) => {}
            Err(LogError::DiskFull { .. }) => return count(log),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("nothing was refused");
}

#[test]
fn appends_stop_at_the_reserve_and_upkeep_at_a_quarter_of_it() {
    let folder = Folder::new(RESERVE);
    let (log, mut stepper) = folder.open();
    create(&log, "a").unwrap();
    for (free, takes_data, takes_upkeep) in
        [(RESERVE * 3, true, true), (RESERVE - 1, false, true), (RESERVE / 4, false, true), (RESERVE / 4 - 1, false, false)]
    {
        folder.set_free(free);
        let before = count(&log);
        assert_eq!(append(&log, &mut stepper, Purpose::Data).is_ok(), takes_data, "{free}");
        assert_eq!(append(&log, &mut stepper, Purpose::Upkeep).is_ok(), takes_upkeep, "{free}");
        assert_eq!(count(&log), before + usize::from(takes_data) + usize::from(takes_upkeep));
        create(&log, "a").unwrap();
        assert_eq!(create(&log, &format!("with-{free}")).is_ok(), takes_data, "{free}");
        assert_eq!(create(&log, &format!("_foldlog.with-{free}")).is_ok(), takes_upkeep, "{free}");
    }
    // Without a restart, at the next look.
    folder.set_free(RESERVE * 3);
    append(&log, &mut stepper, Purpose::Data).unwrap();
}

#[test]
fn no_journal_file_takes_what_is_kept_but_for_upkeep() {
    let folder = Folder::new(RESERVE);
    let (log, mut stepper) = folder.open();
    create(&log, "a").unwrap();
    let files = folder.config.journal_file_bytes;
    folder.set_free(RESERVE + files - 1);
    let taken = fill(&log, &mut stepper, Purpose::Data);
    assert!(taken > 3, "as much as the files have that there are");
    append(&log, &mut stepper, Purpose::Upkeep).unwrap();
    assert_eq!(count(&log), taken + 1);

    // Segments are written all the same, and give journal files back.
    stepper.tidy().unwrap();
    folder.set_free(RESERVE * 3);
    append(&log, &mut stepper, Purpose::Data).unwrap();
}

#[test]
fn a_start_on_a_full_disk_is_read_and_takes_appends_once_there_is_space() {
    for reserve in [0, RESERVE] {
        let mut folder = Folder::new(reserve);
        let (log, mut stepper) = folder.open();
        create(&log, "a").unwrap();
        folder.set_free(0);
        // Each frame takes a whole block; the last ones are seals.
        let records = match reserve {
            0 => fill(&log, &mut stepper, Purpose::Data),
            _ => count(&log),
        };
        drop((log, stepper));

        folder.disk = folder.disk.kill();
        let (log, mut stepper) = folder.open();
        assert_eq!((log.report().damage.as_deref(), count(&log)), (None, records));
        assert!(matches!(append(&log, &mut stepper, Purpose::Data), Err(LogError::DiskFull { .. })));
        create(&log, "a").unwrap();
        stepper.seal().unwrap();
        folder.set_free(RESERVE * 3);
        append(&log, &mut stepper, Purpose::Data).unwrap();
        stepper.tidy().unwrap();
        append(&log, &mut stepper, Purpose::Data).unwrap();
        assert_eq!(count(&log), records + 2);
        drop((log, stepper));

        folder.disk = folder.disk.power_cut();
        assert_eq!(count(&folder.open().0), records + 2);
    }
}
