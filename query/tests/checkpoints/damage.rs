//! Damaged checkpoints are told, and change no answer.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use foldlog_log::{
    clock::SystemClock,
    disk::{Disk as _, RealDisk},
    testing::{Random, SimDisk},
};
use foldlog_query::Engine;

use super::setup::{
    STATE, VIEWS, checkpointed, checkpointed_over, config, copy_folder, declare, everything, in_files, in_pages, memory_log, on_disk, open,
    read, read_file, refusals, request, restarted, rows, some_facts, status, write_file,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_anywhere_in_a_file_is_told_and_the_answers_stay() {
    let disk = SimDisk::new(4);
    let (log, shown) = checkpointed(&disk, 4).await;
    let mut random = Random::new(40);
    for path in disk.paths().into_iter().filter(|path| path.starts_with(STATE)) {
        let bytes = disk.bytes_of(&path).unwrap();
        let length = bytes.len() as u64;
        for round in 0..10 {
            let damaged = disk.fork();
            let at = usize::try_from(random.below(length)).unwrap();
            if round < 7 {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << random.below(8);
                damaged.overwrite(&path, bytes);
            } else {
                damaged.overwrite(&path, bytes[..at].to_vec());
            }
            let refusals = restarted(&damaged, &log, &shown).await;
            assert!(refusals.iter().any(Option::is_some), "{} at {at}: nothing was said", path.display());
            let aside = damaged.paths().iter().filter(|path| path.to_string_lossy().contains(".aside-")).count();
            assert!((1..=4).contains(&aside), "{aside} files are set aside");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_anywhere_in_the_page_store_never_changes_an_answer() {
    let folder = tempfile::tempdir().unwrap();
    let (log, mut random) = (memory_log(), Random::new(5));
    let engine = open(&log, &in_pages(folder.path()));
    declare(&engine).await;
    for _ in 0..2 {
        some_facts(log.as_ref(), &mut random, (300, 40)).await;
        everything(&engine, log.as_ref()).await;
        engine.checkpoint();
    }
    let shown = everything(&engine, log.as_ref()).await;
    engine.stop().await;
    drop(engine);
    let state = folder.path().join("state");
    let files: Vec<PathBuf> = RealDisk
        .list(&state.join("pages"))
        .unwrap()
        .into_iter()
        .filter(|entry| !entry.is_folder)
        .map(|entry| PathBuf::from("pages").join(entry.name))
        .collect();
    assert!(!files.is_empty());
    let mut told = 0;
    for round in 0..24 {
        let other = tempfile::tempdir().unwrap();
        copy_folder(&RealDisk, &state, &other.path().join("state"));
        let path = other.path().join("state").join(&files[usize::try_from(random.below(files.len() as u64)).unwrap()]);
        let mut bytes = read_file(&RealDisk, &path);
        // What is written of the file lies at its beginning.
        let at = usize::try_from(random.below(bytes.len().min(1 << 17) as u64)).unwrap();
        if round % 4 == 3 {
            bytes.truncate(at)
        } else {
            bytes[at] ^= 1 << random.below(8)
        }
        write_file(&RealDisk, &path, &bytes);
        let engine = open(&log, &in_pages(other.path()));
        assert_eq!(everything(&engine, log.as_ref()).await, shown, "round {round}");
        told += usize::from(refusals(&engine).iter().any(Option::is_some));
        assert!(told > 0 || read(&engine).iter().sum::<u64>() == 0, "round {round}: something was folded again, and nothing said");
        engine.stop().await;
    }
    assert!(told > 0, "no damage was found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_store_that_lost_everything_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (log, mut random) = (memory_log(), Random::new(6));
    let engine = open(&log, &in_pages(folder.path()));
    declare(&engine).await;
    some_facts(log.as_ref(), &mut random, (100, 40)).await;
    let shown = everything(&engine, log.as_ref()).await;
    engine.stop().await;
    drop(engine);
    // As after a power cut that its own flush does not survive: it opens as an empty one.
    RealDisk.rename(&folder.path().join("state/pages"), &folder.path().join("lost")).unwrap();
    let engine = open(&log, &in_pages(folder.path()));
    assert_eq!(everything(&engine, log.as_ref()).await, shown);
    assert_eq!(refusals(&engine), vec![Some("it is gone".to_owned()); 3]);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_of_queries_that_are_over_goes_even_if_the_list_of_checkpoints_is_damaged() {
    let disk = SimDisk::new(9);
    let (log, mut shown) = checkpointed_over(on_disk(&disk), &disk, 9).await;
    let states = |disk: &SimDisk| disk.paths().into_iter().filter(|path| path.starts_with(STATE)).collect::<Vec<_>>();
    let of_sizes = |disk: &SimDisk| states(disk).iter().filter(|path| path.display().to_string().contains("sizes")).count();
    assert_eq!(of_sizes(&disk), 1);
    // A query that ends while nothing is kept, so that nobody removes what was.
    let engine = Engine::open(Arc::clone(&log), Arc::new(SystemClock::new()), config()).unwrap();
    engine.execute(request("DROP TABLE sizes", None)).await.unwrap();
    engine.stop().await;
    shown.truncate(2);
    for damaged in [false, true] {
        let disk = disk.fork();
        if damaged {
            disk.overwrite(&Path::new(STATE).join("checkpoints"), b"no list".to_vec());
        }
        let engine = open(&log, &in_files(&disk));
        assert_eq!(of_sizes(&disk), 0, "damaged: {damaged}");
        let end = log.head().position;
        for (view, shown) in VIEWS.iter().zip(&shown) {
            assert_eq!(rows(&engine, &format!("SELECT * FROM {view}"), Some(end)).await, *shown);
            let read = status(&engine, view).rows_in;
            assert_eq!(read > 0, damaged, "{view} has read {read} records");
        }
        engine.stop().await;
    }
}
