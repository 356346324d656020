//! What is restored of a backup, against the same model: whatever was altered, deleted, removed and compacted before.

use std::{path::Path, sync::Arc};

use foldlog_log::{
    EmbeddedLog, LogBackend, Position, ReadLimits, Selection, Stepper,
    clock::Clock,
    disk::Disk,
    restore::{GAP, restore},
};

use crate::{
    driver::Run,
    model::{GONE, Stored},
    reads::read_all,
};

const BACKUP: &str = "/backup";
const RESTORED: &str = "/restored";

impl Run {
    /// Backs up what there is, on top of the backup before, and restores that, on a disk that nothing else sees.
    pub fn look_at_backup(&mut self, stepper: &mut Stepper) {
        stepper.back_up(Path::new(BACKUP)).unwrap();
        let end = self.model.records.len() as u64;
        let (disk, clock): (Arc<dyn Disk>, Arc<dyn Clock>) = (Arc::new(self.disk.fork()), self.clock.clone());
        let restored = restore(&disk, &clock, Path::new(BACKUP), Path::new(RESTORED), None, &self.config, || 1).unwrap();
        assert_eq!((restored.position.get(), restored.next.get()), (end, end + GAP));

        let mut drawn = 1;
        let random = move || {
            drawn += 1;
            drawn
        };
        let (log, _stepper) = EmbeddedLog::open_stepped(disk, clock, Path::new(RESTORED), self.config.clone(), random).unwrap();
        assert_eq!((&log.report().damage, log.report().damaged.len()), (&None, 0));
        self.look_at_ends(&log);
        let first = Position::default();
        let found = read_all(log.reader(Selection::All(first)).unwrap(), log.head().position, ReadLimits::default(), false);
        let newest = self.model.newest_of_keys();
        let known: Vec<&Stored> = self.model.records.iter().filter(|record| !record.is_mark && record.topic != GONE).collect();
        let place = |record: &Stored| known.binary_search_by_key(&record.position, |known| known.position);
        assert!(found.iter().all(|record| place(record).is_ok_and(|place| known[place] == record)), "{found:?}");
        let left: Vec<&Stored> = found.iter().filter(|record| self.is_left(record, &newest)).collect();
        let expected: Vec<&Stored> = known.into_iter().filter(|record| self.is_left(record, &newest)).collect();
        assert_eq!(left, expected);
        self.seen.restored += found.len() as u64;
    }
}
