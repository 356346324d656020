//! What each sync of a backup and of a restore is for: one after the other is forgotten, and the power takes what was promised.

use foldlog_log::testing::SyncSite;

use super::*;

/// Lives tried at most until one fails.
const LIVES: u64 = 60;

const NEEDED: [&str; 20] = [
    "backup: sync of folder /backup",
    "backup: sync of folder /backup/files",
    "backup: sync of folder /backup/files/#-#-#-#-#",
    "backup: sync of folder /backup/files/#-#-#-#-#/#",
    "backup: sync of file /backup/files/#-#-#-#-#/#/#-#-#.new",
    "backup: sync of file /backup/files/#-#.new",
    "backup: sync of file /backup/foldlog-backup.new",
    "restore: sync of folder /",
    "restore: sync of folder /new",
    "restore: sync of folder /new/journal",
    "restore: sync of folder /new/topics",
    "restore: sync of folder /new/topics/#-#-#-#-#",
    "restore: sync of folder /new/topics/#-#-#-#-#/#",
    "restore: sync of file /new/#.window",
    "restore: sync of file /new/checkpoint.a",
    "restore: sync of file /new/foldlog.new",
    "restore: sync of file /new/journal/#.journal",
    "restore: sync of file /new/topics/#-#-#-#-#.json",
    "restore: sync of file /new/topics/#-#-#-#-#/#/#.log",
    "restore: sync of file /new/topics/#-#-#-#-#/#/#.runs",
];

/// Nothing lies in these that anybody reads: one is there by its name, the other for the next checkpoint.
const NOT_NEEDED: [&str; 2] = ["restore: sync of file /new/checkpoint.b", "restore: sync of file /new/foldlog.restoring"];

/// Takes a backup twice and restores it, each followed by a power cut. The places that synced, or what was not as it was promised.
fn live(seed: u64, forgets: Option<&SyncSite>) -> Result<Vec<SyncSite>, String> {
    let mut world = world(seed);
    let mut log = world.open();
    create(&log);
    let mut units = append_all(&mut log, 0..12);
    for numbers in [12..15, 15..18] {
        units.extend(append_all(&mut log, numbers));
        phase(&world, "backup", forgets);
        log.back_up();
        phase(&world, "", None);
    }
    world.crash(log, true);
    phase(&world, "restore", forgets);
    let restored = world.restore(NEW, None).map_err(|error| format!("restore: {error}"))?;
    let sites = world.disk.sync_sites();
    world.disk = world.disk.power_cut();
    let log = world.try_open(NEW).map_err(|error| format!("start: {error}"))?;
    if let Some(damage) = log.log.report().damage.iter().chain(&log.log.report().damaged).next() {
        return Err(format!("start: {damage}"));
    }
    let is_whole = try_read(&log).map_err(|error| format!("read: {error}"))? == texts(&units);
    if is_whole && log.log.head().epoch == restored.epoch { Ok(sites) } else { Err("read: something else".into()) }
}

/// Names what happens from now on, and has syncs forgotten there.
fn phase(world: &Folder, phase: &'static str, forgets: Option<&SyncSite>) {
    world.disk.set_phase(phase);
    forgets.into_iter().for_each(|site| world.disk.ignore_syncs_at(site.clone()));
}

#[test]
fn every_sync_of_a_backup_and_of_a_restore_that_is_taken_away_breaks_a_promise() {
    let sites: BTreeSet<_> = (0..5).flat_map(|seed| live(seed, None).expect("nothing is forgotten yet")).collect();
    // What a backup has tidy do first is needed as ever.
    let of_both = sites.iter().filter(|site| !site.phase.is_empty() && !site.path.starts_with(DATA));
    let (mut needed, mut not_needed) = (Vec::new(), Vec::new());
    for site in of_both {
        let failure = (0..LIVES).find_map(|seed| live(seed, Some(site)).err());
        println!("{site}: {failure:?}");
        if failure.is_some() { &mut needed } else { &mut not_needed }.push(site.to_string());
    }
    assert_eq!((needed, not_needed), (NEEDED.map(String::from).to_vec(), NOT_NEEDED.map(String::from).to_vec()));
}
