//! What is read again after a restart, and which checkpoint is none: of another folder, another plan, another table, an older one.

use std::{sync::Arc, time::Duration};

use foldlog_log::{
    TopicKind,
    clock::SystemClock,
    testing::{Random, SimDisk},
};
use foldlog_query::{
    Checkpoints, Engine,
    plan::{Node, OperatorId},
    stream::pace::StepLimits,
    supervisor::Supervisor,
};

use super::{
    common::{PATIENCE, create, definition, everything_by_key, read_all, topic},
    setup::{
        STATE, STATEMENTS, VIEWS, checkpointed, checkpointed_over, config, declare, everything, folded_anew, in_files, in_pages,
        memory_log, on_disk, open, read, refusals, request, restarted, rows, some_facts, status,
    },
};

/// Two checkpoints, facts behind them, a crash: what is read again is what came behind.
async fn a_crash_costs_what_came_after_the_checkpoint(checkpoints: &Checkpoints) {
    let (log, mut random) = (memory_log(), Random::new(1));
    let engine = open(&log, checkpoints);
    declare(&engine).await;
    for _ in 0..2 {
        some_facts(log.as_ref(), &mut random, (3000, 900)).await;
        everything(&engine, log.as_ref()).await;
        engine.checkpoint();
    }
    let at = log.head().position;
    some_facts(log.as_ref(), &mut random, (7, 1200)).await;
    let shown = everything(&engine, log.as_ref()).await;
    assert!(shown[0].len() > 512, "the table has several pages");
    drop(engine);

    let engine = open(&log, checkpoints);
    assert_eq!(everything(&engine, log.as_ref()).await, shown);
    let tail = |topic: &str| read_all(log.as_ref(), &[topic]).iter().filter(|record| record.position >= at.get()).count() as u64;
    assert_eq!(read(&engine), [7, tail("totals"), tail("totals")]);
    assert_eq!(refusals(&engine), [None, None, None]);
    let outputs = read_all(log.as_ref(), &VIEWS).len();
    // And it goes on from there.
    some_facts(log.as_ref(), &mut random, (500, 1200)).await;
    let shown = everything(&engine, log.as_ref()).await;
    assert!(read_all(log.as_ref(), &VIEWS).len() > outputs);
    engine.checkpoint();
    drop(engine);
    let engine = open(&log, checkpoints);
    assert_eq!(everything(&engine, log.as_ref()).await, shown);
    assert_eq!(read(&engine), [0, 0, 0]);
    engine.stop().await;
    assert_eq!(folded_anew(&log).await, shown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_reads_again_what_came_after_its_checkpoint_in_pages() {
    let folder = tempfile::tempdir().unwrap();
    a_crash_costs_what_came_after_the_checkpoint(&in_pages(folder.path())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_reads_again_what_came_after_its_checkpoint_in_files() {
    a_crash_costs_what_came_after_the_checkpoint(&in_files(&SimDisk::new(1))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_stop_in_order_nothing_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let (log, mut random) = (memory_log(), Random::new(2));
    let engine = open(&log, &in_pages(folder.path()));
    declare(&engine).await;
    some_facts(log.as_ref(), &mut random, (400, 60)).await;
    let shown = everything(&engine, log.as_ref()).await;
    assert_eq!(status(&engine, "totals").checkpoint.newest, None, "nothing was due");
    engine.stop().await;
    drop(engine);
    let engine = open(&log, &in_pages(folder.path()));
    let told = status(&engine, "totals");
    assert!(told.checkpoint.newest.is_some_and(|(_, bytes)| bytes > 1000), "{told:?}");
    assert_eq!(everything(&engine, log.as_ref()).await, shown);
    assert_eq!(read(&engine), [0, 0, 0]);
    // Who folded nothing gets no other checkpoint.
    let before = status(&engine, "totals").checkpoint;
    engine.checkpoint();
    assert_eq!(status(&engine, "totals").checkpoint, before);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_is_taken_when_too_much_would_be_folded_again() {
    let (disk, log, mut random) = (SimDisk::new(3), memory_log(), Random::new(3));
    let engine = open(&log, &in_files(&disk).due_after(Duration::from_nanos(1)));
    declare(&engine).await;
    let mut newest = None;
    for _ in 0..3 {
        some_facts(log.as_ref(), &mut random, (50, 10)).await;
        everything(&engine, log.as_ref()).await;
        let deadline = std::iter::repeat_with(|| std::thread::sleep(Duration::from_millis(5))).take(2000);
        let taken = deadline.map(|()| status(&engine, "totals").checkpoint.newest).find(|taken| *taken > newest);
        newest = taken.expect("a checkpoint is taken without being asked for");
    }
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_of_another_folder_is_not_taken() {
    let (ours, theirs) = (SimDisk::new(7), SimDisk::new(8));
    let (log, shown) = checkpointed_over(on_disk(&ours), &ours, 7).await;
    checkpointed_over(on_disk(&theirs), &theirs, 8).await;
    let states = |disk: &SimDisk| disk.paths().into_iter().filter(|path| path.starts_with(STATE)).collect::<Vec<_>>();
    // Everything, or all but the list of what there is.
    for with_list in [true, false] {
        let mixed = ours.fork();
        for path in states(&theirs).into_iter().filter(|path| with_list || path.extension().is_some()) {
            mixed.overwrite(&path, theirs.bytes_of(&path).unwrap());
        }
        let refusals = restarted(&mixed, &log, &shown).await;
        let reason = "it belongs to another data folder, or to this one before it was restored";
        assert_eq!(refusals, vec![Some(reason.to_owned()); 3]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_that_is_older_than_the_last_one_is_not_taken() {
    let disk = SimDisk::new(9);
    let (log, _) = checkpointed(&disk, 9).await;
    let older = disk.fork();
    let engine = open(&log, &in_files(&disk));
    some_facts(log.as_ref(), &mut Random::new(10), (50, 40)).await;
    let shown = everything(&engine, log.as_ref()).await;
    engine.stop().await;
    for path in disk.paths().into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "state")) {
        disk.overwrite(&path, older.bytes_of(&path).unwrap());
    }
    let refusals = restarted(&disk, &log, &shown).await;
    assert_eq!(refusals, vec![Some("it is older than the last one that became durable".to_owned()); 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_table_leaves_nothing_to_one_that_takes_its_name() {
    let (disk, log, mut random) = (SimDisk::new(11), memory_log(), Random::new(11));
    let create = "CREATE TABLE counts AS SELECT k, COUNT(*) AS rows FROM facts GROUP BY k";
    let engine = open(&log, &in_files(&disk));
    engine.execute(request(STATEMENTS[0], None)).await.unwrap();
    engine.execute(request(create, None)).await.unwrap();
    some_facts(log.as_ref(), &mut random, (100, 10)).await;
    let read = |engine: &Engine| status(engine, "counts").rows_in;
    rows(&engine, "SELECT * FROM counts", Some(log.head().position)).await;
    engine.checkpoint();
    assert!(disk.paths().iter().any(|path| path.extension().is_some_and(|extension| extension == "state")));
    engine.execute(request("DROP TABLE counts", None)).await.unwrap();
    assert!(!disk.paths().iter().any(|path| path.extension().is_some_and(|extension| extension == "state")));
    engine.execute(request(create, None)).await.unwrap();
    let shown = rows(&engine, "SELECT * FROM counts", Some(log.head().position)).await;
    assert_eq!((read(&engine), shown.len()), (100, 10));
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_folds_anew_forgets_what_was_kept() {
    let (disk, log, mut random) = (SimDisk::new(12), memory_log(), Random::new(12));
    let engine = open(&log, &in_files(&disk));
    declare(&engine).await;
    some_facts(log.as_ref(), &mut random, (100, 10)).await;
    let shown = everything(&engine, log.as_ref()).await;
    engine.checkpoint();
    let kept = |disk: &SimDisk| disk.paths().iter().filter(|path| path.extension().is_some_and(|extension| extension == "state")).count();
    assert_eq!(kept(&disk), 3);
    // Data is about to be redacted: nothing that was made of it may be found by a start, from here on.
    engine.about_to_redact(topic("facts")).await.unwrap();
    assert_eq!(kept(&disk), 0);
    assert!(VIEWS.iter().all(|view| status(&engine, view).checkpoint.newest.is_none()), "nor is any told");
    some_facts(log.as_ref(), &mut random, (10, 10)).await;
    everything(&engine, log.as_ref()).await;
    engine.checkpoint();
    assert_eq!(kept(&disk), 0, "a checkpoint is taken of what is about to be redacted");
    engine.refold(topic("facts")).await.unwrap();
    let again = everything(&engine, log.as_ref()).await;
    assert_eq!(read(&engine)[0], 110);
    assert_ne!(again, shown);
    engine.checkpoint();
    assert_eq!(kept(&disk), 3);
    // If nothing was redacted, state is kept as before.
    engine.about_to_redact(topic("facts")).await.unwrap();
    engine.not_redacted(topic("facts")).await.unwrap();
    some_facts(log.as_ref(), &mut random, (10, 10)).await;
    everything(&engine, log.as_ref()).await;
    engine.checkpoint();
    assert_eq!(kept(&disk), 3);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_query_stands_still_where_its_checkpoint_is() {
    let (disk, log, mut random) = (SimDisk::new(13), memory_log(), Random::new(13));
    let engine = open(&log, &in_files(&disk));
    engine.execute(request(STATEMENTS[0], None)).await.unwrap();
    engine.execute(request("CREATE TABLE counts AS SELECT k, COUNT(*) AS rows FROM facts GROUP BY k", None)).await.unwrap();
    some_facts(log.as_ref(), &mut random, (100, 10)).await;
    let shown = rows(&engine, "SELECT * FROM counts", Some(log.head().position)).await;
    let id = status(&engine, "counts").id;
    engine.execute(request(&format!("PAUSE {id}"), None)).await.unwrap();
    some_facts(log.as_ref(), &mut random, (5, 10)).await;
    engine.stop().await;
    drop(engine);
    let engine = open(&log, &in_files(&disk));
    assert!(status(&engine, "counts").paused);
    assert_eq!(rows(&engine, "SELECT * FROM counts", None).await, shown);
    assert_eq!(status(&engine, "counts").rows_in, 0);
    engine.execute(request(&format!("RESUME {id}"), None)).await.unwrap();
    rows(&engine, "SELECT * FROM counts", Some(log.head().position)).await;
    assert_eq!(status(&engine, "counts").rows_in, 5);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_waits_for_the_checkpoint_of_who_reads() {
    let (disk, log, mut random) = (SimDisk::new(14), memory_log(), Random::new(14));
    let engine = open(&log, &in_files(&disk));
    engine.execute(request(STATEMENTS[0], None)).await.unwrap();
    engine.execute(request("CREATE TABLE counts AS SELECT k, COUNT(*) AS rows FROM facts GROUP BY k", None)).await.unwrap();
    let held = || log.holders(&topic("facts")).unwrap().into_iter().map(|holder| holder.from.get()).collect::<Vec<_>>();
    some_facts(log.as_ref(), &mut random, (100, 10)).await;
    let end = log.head().position;
    rows(&engine, "SELECT * FROM counts", Some(end)).await;
    assert_eq!(held(), [0]);
    engine.checkpoint();
    let from = held()[0];
    assert!(from > 0 && from >= end.get() - 1, "held from {from}, the log ends at {end}");
    drop(engine);
    let engine = open(&log, &in_files(&disk));
    assert_eq!(held(), [from]);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_upgrade_that_changes_a_plan_the_query_folds_anew() {
    let (disk, log, mut random) = (SimDisk::new(15), memory_log(), Random::new(15));
    create(log.as_ref(), "totals", TopicKind::Table, 1);
    // A build that plans the same statement with this fingerprint, and operators with these ids.
    let life = |fingerprint: u64, operator: u32| {
        let mut plan = everything_by_key("totals");
        plan.fingerprint = fingerprint;
        let [Node::Aggregate { id, .. }] = plan.nodes.as_mut_slice() else { panic!("the plan is one aggregate") };
        *id = OperatorId(operator);
        let (limits, checkpoints) = (StepLimits::default(), in_files(&disk));
        let supervisor =
            Supervisor::open_keeping(Arc::clone(&log), Arc::new(SystemClock::new()), &config(), limits, Some(&checkpoints)).unwrap();
        supervisor.start(&definition("totals"), &plan).unwrap();
        supervisor
    };
    let told = async |supervisor: &Supervisor| {
        let view = supervisor.view("totals").unwrap();
        view.wait(log.head().position, PATIENCE).await.unwrap();
        let rows: Vec<String> = view.pin().unwrap().scan().map(|batch| format!("{:?}", batch.unwrap())).collect();
        let status = supervisor.queries().remove(0);
        (rows, status.rows_in, status.checkpoint.set_aside)
    };
    some_facts(log.as_ref(), &mut random, (200, 20)).await;
    let before = life(1, 0);
    let (rows, ..) = told(&before).await;
    before.shut_down().await;
    let changed = Some("the plan of the query has changed since".to_owned());
    for (fingerprint, operator, expected) in
        [(1, 0, (0, None)), (2, 0, (200, changed.clone())), (2, 0, (0, None)), (2, 7, (200, changed)), (2, 7, (0, None))]
    {
        let after = life(fingerprint, operator);
        let (again, read, set_aside) = told(&after).await;
        assert_eq!((read, set_aside), expected, "fingerprint {fingerprint}, operator {operator}");
        assert_eq!(again, rows);
        after.shut_down().await;
    }
    assert_eq!(read_all(log.as_ref(), &["totals"]).len(), 20, "nothing is written again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_is_shown() {
    let (disk, log, mut random) = (SimDisk::new(17), memory_log(), Random::new(17));
    let engine = open(&log, &in_files(&disk));
    declare(&engine).await;
    some_facts(log.as_ref(), &mut random, (60, 20)).await;
    everything(&engine, log.as_ref()).await;
    let described = rows(&engine, "DESCRIBE sizes EXTENDED", None).await;
    assert!(!described.iter().any(|line| line.starts_with("checkpoint")), "{described:?}");
    engine.checkpoint();
    let position = status(&engine, "sizes").checkpoint.newest.unwrap().0;
    let described = rows(&engine, "DESCRIBE sizes EXTENDED", None).await;
    assert!(described.iter().any(|line| line.starts_with(&format!("checkpoint|below position {position}, "))), "{described:?}");
    let kept = described.iter().find(|line| line.starts_with("state|")).unwrap();
    assert!(kept.contains("groups: ") && kept.contains("copy: 20 rows, "), "{kept}");
    let queries = rows(&engine, "SHOW QUERIES EXTENDED", None).await;
    assert!(queries.iter().all(|line| line.contains("below position ")), "{queries:?}");
    let plan = rows(&engine, &format!("EXPLAIN {}", status(&engine, "totals").id), None).await;
    assert!(plan.iter().any(|line| line.starts_with("state of #") && line.contains("different values of column 1: ")), "{plan:?}");
    engine.stop().await;
}
