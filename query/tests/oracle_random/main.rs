//! The oracle on random schemas, data and queries: whatever the grammar writes, at every commit the log holds what a plain
//! evaluation of the same records gives.
//!
//! A case is a query; a world has several, over streams and tables of random columns in either dialect, through restarts and
//! power cuts, in steps of any size. The evaluation shares nothing with the engine: values, JSON, arithmetic, comparison and
//! aggregates are written anew here, from `SEMANTICS.md`. A failure prints the number of its world, what differed, and the smallest
//! script for which it still does; `FOLDLOG_ORACLE_SEED=n` runs that world alone, `FOLDLOG_ORACLE_WORLDS=n` so many of them
//! (`CI=true`: 2,000 cases).
//!
//! `schema`, `format`, `data`, `grammar` and `query` make what is to be tested, `world` puts it together, `evaluate` (with `expression` and
//! `aggregate`) says what must come out, `drive` lets it happen, restarts from checkpoints (`kept`) included, `check` compares, `shrink` makes a failure small.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod aggregate;
mod check;
#[path = "../common/mod.rs"]
mod common;
mod data;
mod drive;
mod evaluate;
mod expression;
mod format;
mod grammar;
mod kept;
mod query;
mod schema;
mod shrink;
mod value;
mod world;

use check::Counts;
use drive::run;
use world::World;

/// Worlds that fail before the rest is not looked at any more.
const FAILURES: usize = 12;
/// Cases that CI runs at least.
const CASES: usize = 2_000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_asked_the_log_holds_what_a_plain_evaluation_gives_at_every_commit() {
    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    let alone = number("FOLDLOG_ORACLE_SEED");
    let worlds = number("FOLDLOG_ORACLE_WORLDS").unwrap_or(if in_ci { 200 } else { 25 });
    let first = alone.unwrap_or(1);
    let (mut counts, mut failures) = (Counts::default(), Vec::new());
    for seed in first..first + if alone.is_some() { 1 } else { worlds } {
        let world = World::new(seed);
        match run(&world).await {
            Ok(found) => counts += found,
            Err(failure) => failures.push((world, failure)),
        }
        if failures.len() >= FAILURES {
            break;
        }
    }
    if !failures.is_empty() {
        let mut reports = Vec::new();
        for (world, failure) in failures {
            reports.push(shrink::report(&world, failure).await);
        }
        panic!("{}", reports.join("\n\n"));
    }
    println!("{counts:?}");
    assert!(counts.commits > counts.cases && counts.rows > counts.cases, "too little was compared: {counts:?}");
    if alone.is_some() {
        return;
    }
    let Counts { cases, checkpoints, went_on, refused, removed, .. } = counts;
    assert!(checkpoints > cases / 4 && went_on > cases / 20, "too little was kept over restarts: {counts:?}");
    assert!(!in_ci || refused > 0 && removed > 0, "nothing that was damaged or compacted was met: {counts:?}");
    assert!(!in_ci || cases >= CASES, "only {cases} cases");
}
