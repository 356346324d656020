//! How much of the SQL that is written for ksqlDB runs here unchanged: cases of statements, records that go in and records that
//! must come out, measured from a file that is no part of this project.
//!
//! The file is that of `FOLDLOG_QTT`, else `../shared/qtt/cases.jsonl` beside the project; without either there is nothing to
//! measure, and the test says so. `FOLDLOG_QTT_FAILURES=path` writes each case that fails with its reason, `FOLDLOG_QTT_ONLY=text`
//! runs only those cases whose id has that text in it. The cases that pass are listed in `qtt/passing.txt`: one of them that fails
//! is a failed test, and the list only grows (`FOLDLOG_QTT_RECORD=1` writes what passes into it).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "the cases and their lists are files of the test itself")]

#[path = "qtt/case.rs"]
mod case;
#[path = "qtt/compare.rs"]
mod compare;
#[path = "qtt/json.rs"]
mod json;
#[path = "qtt/wire.rs"]
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fmt,
    io::Write as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use case::Case;

/// Ids of the cases that passed before, one a line.
const PASSING: &str = include_str!("qtt/passing.txt");

/// Cases that passed of those that were run.
#[derive(Clone, Copy, Default)]
struct Score {
    passed: usize,
    run: usize,
}

impl Score {
    fn count(&mut self, passed: bool) {
        self.passed += usize::from(passed);
        self.run += 1;
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.passed, self.run)
    }
}

/// The file with the cases; none if there is none.
fn cases_file() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    match env::var_os("FOLDLOG_QTT") {
        Some(path) => Some(path.into()),
        None => {
            let file = beside.join("qtt/cases.jsonl");
            let is_missing = beside.is_dir() && env::var("CI").is_ok_and(|ci| ci == "true") && !file.is_file();
            assert!(!is_missing, "{} is missing", file.display());
            file.is_file().then_some(file)
        }
    }
}

#[test]
fn cases_that_passed_still_pass() {
    let Some(file) = cases_file() else {
        println!("qtt: no cases: set FOLDLOG_QTT to their file");
        return;
    };
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let only = env::var("FOLDLOG_QTT_ONLY").unwrap_or_default();
    let cases: Vec<Case> = text.lines().filter(|line| !line.trim().is_empty()).map(|line| Case::parse(line).unwrap()).collect();
    let cases: Arc<Vec<Case>> = Arc::new(cases.into_iter().filter(|case| case.id().contains(&only)).collect());
    let outcomes = run_all(&cases);

    let mut tiers: BTreeMap<&str, [Score; 2]> = BTreeMap::new();
    let (mut positive, mut negative, mut derived) = (Score::default(), Score::default(), Score::default());
    let (mut within, mut within_serving, mut later) = ([Score::default(); 2], [Score::default(); 2], 0);
    for (case, outcome) in cases.iter().zip(&outcomes) {
        let (passed, side) = (outcome.is_ok(), usize::from(case.is_negative()));
        tiers.entry(case.tier()).or_default()[side].count(passed);
        let all = if case.is_derived() {
            &mut derived
        } else if case.is_negative() {
            &mut negative
        } else {
            &mut positive
        };
        all.count(passed);
        match (case.needs_window_or_stream_join(), case.tier().starts_with("t6")) {
            (true, _) => later += 1,
            (false, true) => within_serving[side].count(passed),
            (false, false) => within[side].count(passed),
        }
    }
    for (tier, [positive, negative]) in &tiers {
        println!("qtt: {tier} positive {positive} negative {negative}");
    }
    println!("qtt: without windows and joins: t0, t1, t2, derived: positive {} negative {}", within[0], within[1]);
    println!("qtt: without windows and joins: t6: positive {} negative {}", within_serving[0], within_serving[1]);
    println!("qtt: {later} cases need a window or a join");
    println!("qtt: positive {positive} negative {negative} derived {derived}");

    let failing: BTreeMap<&str, &String> =
        cases.iter().zip(&outcomes).filter_map(|(case, outcome)| Some((case.id(), outcome.as_ref().err()?))).collect();
    if let Some(path) = env::var_os("FOLDLOG_QTT_FAILURES") {
        let mut out = std::fs::File::create(path).unwrap();
        for (case, outcome) in cases.iter().zip(&outcomes) {
            if let Err(why) = outcome {
                writeln!(out, "{}\t{}\t{}", case.tier(), case.id(), why.replace('\n', " ")).unwrap();
            }
        }
    }
    let passed: BTreeSet<&str> = cases.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_ok()).map(|(case, _)| case.id()).collect();
    let known: BTreeSet<&str> = PASSING.lines().collect();
    if env::var_os("FOLDLOG_QTT_RECORD").is_some() {
        let all: Vec<&str> = known.union(&passed).copied().collect();
        let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/qtt/passing.txt");
        std::fs::write(list, all.join("\n") + "\n").unwrap();
    }
    let lost: Vec<String> = known.iter().filter_map(|id| Some(format!("{id}: {}", failing.get(id)?))).collect();
    assert!(lost.is_empty(), "{} cases that passed before fail:\n{}", lost.len(), lost.join("\n"));
}

type Outcome = Result<(), String>;

/// The outcome of each case, in their order; a case that panics has failed.
fn run_all(cases: &Arc<Vec<Case>>) -> Vec<Outcome> {
    let next = Arc::new(AtomicUsize::new(0));
    let outcomes: Arc<Mutex<Vec<Option<Outcome>>>> = Arc::new(Mutex::new(vec![None; cases.len()]));
    let workers: Vec<_> = (0..std::thread::available_parallelism().map_or(1, usize::from))
        .map(|_| {
            let (cases, next, outcomes) = (Arc::clone(cases), Arc::clone(&next), Arc::clone(&outcomes));
            std::thread::spawn(move || {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(place) else { return };
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    let run = std::panic::AssertUnwindSafe(|| runtime.block_on(case.run()));
                    let outcome = std::panic::catch_unwind(run).unwrap_or_else(|_| Err("it panicked".to_owned()));
                    outcomes.lock().unwrap()[place] = Some(outcome);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    let mut outcomes = outcomes.lock().unwrap();
    outcomes.iter_mut().map(|outcome| outcome.take().unwrap_or_else(|| Err("it was not run".to_owned()))).collect()
}
