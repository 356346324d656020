//! Disks that fail, are full, or lose their power, with log and checkpoints on them.

use std::path::{Path, PathBuf};

use foldlog_log::testing::{Fault, Random, SimDisk};

use super::setup::{STATE, declare, everything, in_files, memory_log, on_disk, open, read, refusals, some_facts, status};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_costs_a_checkpoint_and_nothing_else() {
    const NO_SPACE: i32 = 28;
    let mut failures = 0;
    for nth in 0.. {
        let (disk, log, mut random) = (SimDisk::new(16), memory_log(), Random::new(16));
        let engine = open(&log, &in_files(&disk));
        declare(&engine).await;
        some_facts(log.as_ref(), &mut random, (60, 20)).await;
        everything(&engine, log.as_ref()).await;
        disk.arm(Fault::Fail { kind: None, nth, errno: NO_SPACE });
        engine.checkpoint();
        let was_hit = disk.is_disarmed();
        // But for the list of checkpoints, which is small and written anew.
        let is_left = |path: &PathBuf| {
            path.starts_with(STATE) && path.extension().is_some_and(|end| end == "new") && !path.ends_with("checkpoints.new")
        };
        let left: Vec<PathBuf> = disk.paths().into_iter().filter(is_left).collect();
        assert!(left.is_empty(), "call {nth}: {left:?} are left on a disk that may be full");
        some_facts(log.as_ref(), &mut random, (60, 20)).await;
        let shown = everything(&engine, log.as_ref()).await;
        engine.stop().await;
        drop(engine);
        let engine = open(&log, &in_files(&disk));
        assert_eq!(everything(&engine, log.as_ref()).await, shown, "call {nth}");
        if !was_hit {
            // It hits the last checkpoints, or the start.
            engine.stop().await;
            break;
        }
        assert_eq!((read(&engine), refusals(&engine)), (vec![0; 3], vec![None; 3]), "call {nth}");
        engine.stop().await;
        failures += 1;
    }
    assert!(failures > 8, "a checkpoint makes {failures} calls");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_leaves_alone_what_the_log_keeps() {
    let (disk, log, mut random) = (SimDisk::new(18), memory_log(), Random::new(18));
    let how = in_files(&disk).leaving(0, 50);
    let engine = open(&log, &how);
    declare(&engine).await;
    some_facts(log.as_ref(), &mut random, (60, 20)).await;
    let shown = everything(&engine, log.as_ref()).await;
    let files = || disk.paths().into_iter().filter(|path| path.starts_with(STATE)).collect::<Vec<_>>();
    let used: usize = disk.paths().iter().filter_map(|path| disk.bytes_of(path)).map(|bytes| bytes.len()).sum();
    // A third of the disk is free, and half of it is to be.
    disk.set_capacity(used as u64 * 3 / 2);
    engine.checkpoint();
    assert_eq!(files(), [Path::new(STATE).join("checkpoints")]);
    assert!(status(&engine, "sizes").checkpoint.newest.is_none());
    disk.set_capacity(1 << 30);
    engine.stop().await;
    drop(engine);
    assert_eq!(files().len(), 4);
    let engine = open(&log, &how);
    assert_eq!((everything(&engine, log.as_ref()).await, read(&engine)), (shown, vec![0; 3]));
    engine.stop().await;
}

/// A checkpoint, more facts, and a second checkpoint, before which `arm` may spoil the disk. Gives the disk and what views showed.
async fn two_checkpoints(seed: u64, arm: impl Fn(&SimDisk)) -> (SimDisk, Vec<Vec<String>>) {
    let disk = SimDisk::new(seed);
    disk.set_phase("before");
    let log = on_disk(&disk);
    let engine = open(&log, &in_files(&disk));
    declare(&engine).await;
    let mut random = Random::new(seed);
    some_facts(log.as_ref(), &mut random, (60, 20)).await;
    everything(&engine, log.as_ref()).await;
    engine.checkpoint();
    some_facts(log.as_ref(), &mut random, (60, 20)).await;
    let shown = everything(&engine, log.as_ref()).await;
    disk.set_phase("checkpoint");
    arm(&disk);
    engine.checkpoint();
    (disk, shown)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_at_any_call_of_a_checkpoint_changes_no_answer() {
    let mut cuts = 0;
    for nth in 0.. {
        let (disk, shown) = two_checkpoints(100 + nth, |disk| disk.arm(Fault::PowerOff { nth })).await;
        let was_cut = disk.is_off();
        let disk = disk.power_cut();
        let log = on_disk(&disk);
        let engine = open(&log, &in_files(&disk));
        assert_eq!(everything(&engine, log.as_ref()).await, shown, "cut at call {nth}");
        let read = read(&engine);
        assert!(read.iter().all(|read| *read < 120), "cut at call {nth}: the first checkpoint was lost, too: {read:?}");
        engine.stop().await;
        if !was_cut {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 8, "a checkpoint made {cuts} calls that change something");
}

/// Whether a checkpoint that was said to be durable is gone on from after a power cut.
async fn survives(seed: u64, arm: impl Fn(&SimDisk)) -> bool {
    let (disk, shown) = two_checkpoints(seed, arm).await;
    let disk = disk.power_cut();
    let log = on_disk(&disk);
    let engine = open(&log, &in_files(&disk));
    assert_eq!(everything(&engine, log.as_ref()).await, shown);
    let is_whole = read(&engine)[0] == 0 && refusals(&engine).iter().all(Option::is_none);
    engine.stop().await;
    is_whole
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_sync_of_a_checkpoint_can_be_left_out() {
    for seed in 200..206 {
        assert!(survives(seed, |_| {}).await, "seed {seed}: a checkpoint that was said to be durable is gone");
    }
    let (disk, _) = two_checkpoints(200, |_| {}).await;
    let sites: Vec<_> = disk.sync_sites().into_iter().filter(|site| site.phase == "checkpoint" && site.path.contains("state")).collect();
    assert!(sites.len() >= 3, "{sites:?}");
    for site in sites {
        let mut is_missed = false;
        for seed in 300..330 {
            if !survives(seed, |disk| disk.ignore_syncs_at(site.clone())).await {
                is_missed = true;
                break;
            }
        }
        assert!(is_missed, "nobody misses the {site}");
    }
}
