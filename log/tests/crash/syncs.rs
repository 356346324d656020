//! Kills alone prove no sync. Each place that syncs is made to forget it, and lives must then show what it was for.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use foldlog_log::{
    EmbeddedLog, LogBackend, LogConfig, Timestamp, TopicKind, TopicName, TopicSettings,
    clock::ManualClock,
    testing::{CallKind, Fault, Random, SimDisk, SyncSite},
};

use super::{
    changes::Changes,
    life::{Failure, Life},
};

/// Lives tried at most until one fails.
const LIVES: u64 = 150;

/// Where a sync is, and the promise that breaks first without it.
const PROVEN: [(&str, &str); 21] = [
    ("commit: sync of folder /data/journal", "lost"),
    ("commit: sync of file /data/journal/#.journal", "lost"),
    ("create: sync of folder /data/topics", "topic"),
    ("create: sync of file /data/topics/#-#-#-#-#.new", "refused"),
    ("seal: sync of file /data/journal/#.journal", "refused"),
    ("start: sync of folder /", "topic"),
    ("start: sync of folder /data", "refused"),
    ("start: sync of folder /data/journal", "refused"),
    ("start: sync of file /data/checkpoint.a", "lost"),
    ("start: sync of file /data/checkpoint.b", "lost"),
    ("start: sync of file /data/foldlog.new", "refused"),
    ("start: sync of file /data/journal/#.journal", "refused"),
    ("tidy: sync of folder /data", "refused"),
    ("tidy: sync of folder /data/topics", "refused"),
    ("tidy: sync of folder /data/topics/#-#-#-#-#", "refused"),
    ("tidy: sync of folder /data/topics/#-#-#-#-#/#", "refused"),
    ("tidy: sync of file /data/#.window", "refused"),
    ("tidy: sync of file /data/checkpoint.a", "lost"),
    ("tidy: sync of file /data/checkpoint.b", "lost"),
    ("tidy: sync of file /data/topics/#-#-#-#-#/#/#.log", "refused"),
    ("tidy: sync of file /data/topics/#-#-#-#-#/#/#.runs", "refused"),
];

/// Syncs that another one makes up for, and why they are there nevertheless.
const MADE_UP_FOR: [&str; 13] = [
    // Derived files are made again when they are not whole; their syncs spare a start that work.
    "start: sync of file /data/topics/#-#-#-#-#/#/#.index",
    "start: sync of file /data/topics/#-#-#-#-#/#/#.keys",
    "start: sync of file /data/postings/#-#.postings",
    "start: sync of folder /data/postings",
    "tidy: sync of file /data/postings/#-#.postings",
    "tidy: sync of folder /data/postings",
    "tidy: sync of file /data/topics/#-#-#-#-#/#/#.index",
    "tidy: sync of file /data/topics/#-#-#-#-#/#/#.keylog",
    "tidy: sync of file /data/topics/#-#-#-#-#/#/#.keys",
    // A journal file is synced when it is made and again before its first frame; the first keeps the second short.
    "seal: sync of folder /data/journal",
    "tidy: sync of folder /data/journal",
    "tidy: sync of file /data/journal/#.journal",
    // Only after a start whose process died of this very sync, in the creation of a topic: see
    // `a_topic_whose_name_was_seen_stays`.
    "start: sync of folder /data/topics",
];

/// The same of syncs that only changes of topics make: compaction, removal, alteration, deletion.
const PROVEN_IN_CHANGES: [(&str, &str); 12] = [
    ("alter: sync of folder /data/topics", "topic"),
    ("alter: sync of file /data/topics/#-#-#-#-#.new", "refused"),
    ("compact: sync of folder /data/topics", "topic"),
    ("compact: sync of folder /data/topics/#-#-#-#-#/#", "refused"),
    ("compact: sync of file /data/topics/#-#-#-#-#.new", "refused"),
    ("compact: sync of file /data/topics/#-#-#-#-#/#/#.#.log", "refused"),
    ("compact: sync of file /data/topics/#-#-#-#-#/#/#.#.runs", "refused"),
    ("delete: sync of folder /data/topics", "topic"),
    ("delete: sync of file /data/topics/#-#-#-#-#.new", "refused"),
    ("mark: sync of folder /data/topics", "topic"),
    ("mark: sync of file /data/topics/#-#-#-#-#.new", "refused"),
    ("upkeep: sync of folder /data/topics", "left"),
];

/// Those that another one makes up for.
const MADE_UP_FOR_IN_CHANGES: [&str; 3] = [
    // Derived, and made again when they are not whole.
    "compact: sync of file /data/topics/#-#-#-#-#/#/#.#.index",
    "compact: sync of file /data/topics/#-#-#-#-#/#/#.#.keys",
    "start: sync of file /data/topics/#-#-#-#-#/#/#.#.index",
];

#[test]
fn every_sync_that_is_taken_away_breaks_a_promise() {
    let live = |seed, site| {
        let mut life = Life::new(seed, site);
        (life.run(), life.sync_sites())
    };
    assert_proven(&PROVEN, &MADE_UP_FOR, live);
}

#[test]
fn every_sync_of_a_change_that_is_taken_away_breaks_a_promise() {
    let live = |seed, site| {
        let mut life = Changes::new(seed, site);
        (life.run(), life.sync_sites())
    };
    let known: Vec<&str> = PROVEN.iter().map(|(site, _)| *site).chain(MADE_UP_FOR).chain(MADE_UP_FOR_IN_CHANGES).collect();
    assert_proven(&PROVEN_IN_CHANGES, &known, live);
}

/// That lives show what each sync is for, but for those that are known.
fn assert_proven(proven: &[(&str, &str)], known: &[&str], live: impl Fn(u64, Option<SyncSite>) -> (Result<(), Failure>, Vec<SyncSite>)) {
    let mut sites = BTreeSet::new();
    for seed in 0..40 {
        let (lived, found) = live(seed, None);
        lived.expect("nothing is forgotten yet");
        sites.extend(found);
    }
    let mut found = Vec::new();
    for site in sites.iter().filter(|site| !known.contains(&site.to_string().as_str())) {
        let failure = (0..LIVES).find_map(|seed| live(seed, Some(site.clone())).0.err());
        println!("{site}: {failure:?}");
        found.push((site.to_string(), failure.map_or("nothing", |failure| failure.name())));
    }
    let expected: Vec<_> = proven.iter().map(|(site, failure)| ((*site).to_string(), *failure)).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_sync_that_finds_no_space_ends_the_log_as_any_other_failed_sync() {
    for kind in [CallKind::Sync, CallKind::SyncFolder] {
        let disk = SimDisk::new(1);
        let clock = Arc::new(ManualClock::at(Timestamp::new(0)));
        let (log, _) = EmbeddedLog::open_stepped(Arc::new(disk.clone()), clock, Path::new("/data"), LogConfig::default(), || 7).unwrap();
        disk.arm(Fault::Fail { kind: Some(kind), nth: 0, errno: 28 });
        assert!(log.create_topic("a".parse().unwrap(), TopicSettings::new(TopicKind::Events, 1)).is_err());
        assert!(log.failure().borrow().is_some(), "{kind:?}: nobody knows whether the topic is durable");
    }
}

#[test]
fn a_topic_whose_name_was_seen_stays() {
    let open = |disk: &SimDisk| {
        let clock = Arc::new(ManualClock::at(Timestamp::new(0)));
        let mut draw = Random::new(7);
        let random = move || (u128::from(draw.next()) << 64) | u128::from(draw.next());
        EmbeddedLog::open_stepped(Arc::new(disk.clone()), clock, Path::new("/data"), LogConfig::default(), random)
    };
    let settings = TopicSettings::new(TopicKind::Events, 1);
    let name: TopicName = "a".parse().unwrap();
    let kept = |forgets: bool| {
        (0..20).all(|seed| {
            let disk = SimDisk::new(seed);
            let (log, _) = open(&disk).unwrap();
            // Its file was renamed; the sync of the folder fails, and the process ends.
            disk.arm(Fault::Fail { kind: Some(CallKind::SyncFolder), nth: 0, errno: 5 });
            assert!(log.create_topic(name.clone(), settings).is_err());
            assert!(log.failure().borrow().is_some());
            let disk = disk.kill();
            if forgets {
                disk.set_phase("start");
                let path = "/data/topics".into();
                disk.ignore_syncs_at(SyncSite { phase: "start", kind: CallKind::SyncFolder, path });
            }
            let (log, _) = open(&disk).unwrap();
            assert!(log.topic(&name).is_ok(), "its name is there, in the cache at least");
            let (log, _) = open(&disk.power_cut()).unwrap();
            log.topic(&name).is_ok()
        })
    };
    assert!(kept(false));
    assert!(!kept(true), "the sync at the start is what keeps it");
}
