//! A folder that was restored from a backup.

use super::*;

/// A folder that was restored from a backup.
fn write_restored() -> SimDisk {
    let disk = write(Compression::None, 1);
    let mut drawn = 100;
    let random = move || {
        drawn += 1;
        drawn
    };
    let disk = disk.kill();
    let backup = Path::new("/backup");
    disk.create_folder(backup).expect("no fault");
    let (log, mut stepper) =
        EmbeddedLog::open_stepped(Arc::new(disk.clone()), clock(), Path::new(DATA), config(), random).expect("it opens");
    stepper.back_up(backup).expect("there is room");
    drop((log, stepper));
    let other = SimDisk::new(1);
    for path in listed(&disk, backup) {
        let to = backup.join(&path);
        other.create_folder(to.parent().expect("it lies in the folder")).expect("no fault");
        let bytes = disk.bytes_of(&to).expect("it is listed");
        other.create(&to).expect("it is new").write_at(0, &bytes).expect("there is room");
    }
    let shared: Arc<dyn Disk> = Arc::new(other.clone());
    let timed: Arc<dyn Clock> = clock();
    restore(&shared, &timed, backup, Path::new(DATA), None, &config(), || 77).expect("the backup is whole");
    other
}

#[test]
fn a_folder_that_was_restored_has_an_identity_of_version_2() {
    let golden = golden("restored");
    compare(&write_restored(), &golden);
    let (_folder, data) = copied(&golden);
    let log = EmbeddedLog::open(Arc::new(RealDisk), clock(), &data, config()).expect("it opens");
    // Forty units of three records.
    assert_eq!((log.head().epoch, log.head().position.get()), (1_357_000_000, 120 + GAP));
    assert!(block_on(log.append(event(1)).expect("there is room")).expect("it is remembered").deduplicated);
    let lost = log.reader(Selection::All(Position::new(121))).err();
    assert!(matches!(lost, Some(LogError::PositionLost { .. })), "{lost:?}");
    log.stop();
}
