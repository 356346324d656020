//! The simulated disk does what it says: loses, tears, forgets, and keeps what was synced.

use super::{state::SECTOR, *};

fn disk_with(seed: u64, content: &[u8]) -> (SimDisk, Arc<dyn DiskFile>) {
    let disk = SimDisk::new(seed);
    disk.create_folder(Path::new("/d")).expect("no fault");
    let file = disk.create(Path::new("/d/f1")).expect("no fault");
    file.write_at(0, content).expect("no fault");
    file.sync().expect("no fault");
    disk.sync_folder(Path::new("/d")).expect("no fault");
    disk.sync_folder(Path::new("/")).expect("no fault");
    (disk, file)
}

fn after(disk: &SimDisk) -> Option<Vec<u8>> {
    disk.power_cut().bytes_of(Path::new("/d/f1"))
}

#[test]
fn what_was_synced_survives_every_cut() {
    for seed in 0..200 {
        let (disk, _) = disk_with(seed, &[7; 2000]);
        assert_eq!(after(&disk), Some(vec![7; 2000]), "seed {seed}");
    }
}

#[test]
fn unsynced_sectors_are_lost_kept_and_torn_each_on_its_own() {
    let (mut lost, mut kept, mut torn, mut mixed) = (0, 0, 0, 0);
    for seed in 0..400 {
        let (disk, file) = disk_with(seed, &[1; 4 * SECTOR]);
        file.write_at(0, &[2; 4 * SECTOR]).expect("no fault");
        let bytes = after(&disk).expect("its name was synced");
        assert_eq!(bytes.len(), 4 * SECTOR);
        let whole = |byte: u8| bytes.chunks(SECTOR).filter(|sector| sector.iter().all(|b| *b == byte)).count();
        assert!(bytes.iter().all(|byte| matches!(byte, 1 | 2)));
        lost += usize::from(whole(1) == 4);
        kept += usize::from(whole(2) == 4);
        torn += usize::from(whole(1) + whole(2) < 4);
        mixed += usize::from(whole(1) > 0 && whole(2) > 0);
    }
    assert!([lost, kept, torn, mixed].iter().all(|seen| *seen > 20), "{lost} {kept} {torn} {mixed}");
}

#[test]
fn unsynced_length_may_be_lost_and_a_lost_cut_brings_old_bytes_back() {
    let (mut grown, mut old, mut reverted) = (0, 0, 0);
    for seed in 0..200 {
        let (disk, file) = disk_with(seed, &[1; 100]);
        file.write_at(100, &[2; 5000]).expect("no fault");
        match after(&disk).expect("its name was synced").len() {
            5100 => grown += 1,
            100 => old += 1,
            _ => {}
        }
        let (disk, file) = disk_with(seed, &[1; 5000]);
        file.set_len(10).expect("no fault");
        reverted += usize::from(after(&disk) == Some(vec![1; 5000]));
        let (disk, file) = disk_with(seed, &[1; 5000]);
        file.set_len(10).expect("no fault");
        file.sync().expect("no fault");
        assert_eq!(after(&disk), Some(vec![1; 10]));
    }
    assert!(grown > 20 && old > 20 && reverted > 20, "{grown} {old} {reverted}");
}

#[test]
fn a_failed_sync_can_be_read_until_the_power_goes_and_no_later_sync_saves_it() {
    let (mut survived, mut gone) = (0, 0);
    for seed in 0..200 {
        let (disk, file) = disk_with(seed, &[1; SECTOR]);
        file.write_at(0, &[2; SECTOR]).expect("no fault");
        disk.arm(Fault::Fail { kind: Some(CallKind::Sync), nth: 0, errno: 5 });
        assert_eq!(file.sync().expect_err("armed").raw_os_error(), Some(5));
        let next = disk.kill();
        assert_eq!(next.bytes_of(Path::new("/d/f1")), Some(vec![2; SECTOR]), "the cache shows it");
        assert!(file.sync().is_err(), "the dead process's file");
        next.open(Path::new("/d/f1")).expect("no fault").sync().expect("says that it did");
        match after(&next) {
            Some(bytes) if bytes == [1; SECTOR] => gone += 1,
            Some(bytes) if bytes == [2; SECTOR] => survived += 1,
            other => panic!("seed {seed}: {other:?}"),
        }
        let again = next.fork();
        let file = again.open(Path::new("/d/f1")).expect("no fault");
        file.write_at(0, &[3; SECTOR]).expect("no fault");
        file.sync().expect("no fault");
        assert_eq!(after(&again), Some(vec![3; SECTOR]), "rewritten and synced is durable");
    }
    assert!(survived > 20 && gone > 20, "{survived} {gone}");
}

#[test]
fn names_need_a_sync_of_their_folder() {
    let (mut renamed, mut not, mut removed, mut still) = (0, 0, 0, 0);
    for seed in 0..200 {
        let (disk, _) = disk_with(seed, b"x");
        disk.rename(Path::new("/d/f1"), Path::new("/d/g")).expect("no fault");
        let next = disk.power_cut();
        match (next.bytes_of(Path::new("/d/f1")), next.bytes_of(Path::new("/d/g"))) {
            (Some(_), None) => not += 1,
            (None, Some(_)) => renamed += 1,
            other => panic!("half a rename: {other:?}"),
        }
        let (disk, _) = disk_with(seed, b"x");
        disk.remove(Path::new("/d/f1")).expect("no fault");
        if after(&disk).is_some() {
            still += 1
        } else {
            removed += 1
        }
        let (disk, _) = disk_with(seed, b"x");
        disk.remove(Path::new("/d/f1")).expect("no fault");
        disk.sync_folder(Path::new("/d")).expect("no fault");
        assert_eq!(after(&disk), None);
    }
    assert!([renamed, not, removed, still].iter().all(|seen| *seen > 20));
}

#[test]
fn every_call_can_fail_and_the_power_can_go_at_every_change() {
    let work = |disk: &SimDisk| -> io::Result<()> {
        disk.create_folder(Path::new("/a/b"))?;
        let _lock = disk.lock(Path::new("/a"), "us")?;
        let file = disk.create(Path::new("/a/b/1"))?;
        file.write_at(0, b"hello")?;
        file.sync()?;
        disk.sync_folder(Path::new("/a/b"))?;
        disk.rename(Path::new("/a/b/1"), Path::new("/a/b/2"))?;
        file.set_len(3)?;
        disk.list(Path::new("/a/b"))?;
        file.read_at(0, &mut [0; 3])?;
        disk.remove(Path::new("/a/b/2"))
    };
    let calm = SimDisk::new(0);
    work(&calm).expect("no fault");
    assert_eq!((calm.changes(), calm.count(CallKind::Write)), (8, 1));
    for nth in 0..11 {
        let disk = SimDisk::new(nth);
        disk.arm(Fault::Fail { kind: None, nth, errno: 28 });
        assert_eq!(work(&disk).expect_err("armed").raw_os_error(), Some(28), "call {nth}");
        assert!(disk.is_disarmed());
    }
    for nth in 0..8 {
        let disk = SimDisk::new(nth);
        disk.arm(Fault::PowerOff { nth });
        work(&disk).expect_err("armed");
        assert!(disk.is_off() && disk.list(Path::new("/")).is_err());
        assert!(disk.power_cut().list(Path::new("/")).is_ok());
    }
}

#[test]
fn a_forgotten_sync_is_named_and_does_nothing() {
    let (disk, file) = disk_with(0, &[1; SECTOR]);
    disk.set_phase("at rest");
    file.sync().expect("no fault");
    let mut names = disk.sync_sites().iter().map(ToString::to_string).collect::<Vec<_>>();
    names.sort();
    assert_eq!(names, [": sync of file /d/f#", ": sync of folder /", ": sync of folder /d", "at rest: sync of file /d/f#"]);
    let site = disk.sync_sites().into_iter().find(|site| site.phase == "at rest").expect("seen above");
    let mut lost = 0;
    for _ in 0..50 {
        let disk = disk.fork();
        disk.ignore_syncs_at(site.clone());
        let file = disk.open(Path::new("/d/f1")).expect("no fault");
        file.write_at(0, &[2; SECTOR]).expect("no fault");
        file.sync().expect("claims to have synced");
        lost += usize::from(after(&disk) != Some(vec![2; SECTOR]));
    }
    assert!(lost > 5, "{lost}");
}

#[test]
fn a_full_disk_refuses_to_grow_and_lets_overwrite() {
    let (disk, file) = disk_with(0, &[1; 100]);
    disk.set_capacity(150);
    assert_eq!(file.write_at(100, &[1; 51]).expect_err("full").raw_os_error(), Some(28));
    assert_eq!(file.set_len(151).expect_err("full").raw_os_error(), Some(28));
    file.write_at(0, &[2; 150]).expect("it fits");
    assert_eq!(disk.used(), 150);
    disk.remove(Path::new("/d/f1")).expect("it is there");
    assert_eq!(disk.used(), 0, "it has no name any more");
}
