//! Makes a world that fails small: one query, and as few records as still show it.

use super::{
    drive::{Failure, run},
    world::World,
};

/// Runs that a failure may cost.
const TRIES: usize = 120;

/// What to tell of a failure.
pub async fn report(world: &World, failure: Failure) -> String {
    let first = format!("FOLDLOG_ORACLE_SEED={}: {}", world.seed, failure.what);
    let (small, failure) = smallest(world.clone(), failure).await;
    format!("{first}\n\nit also fails so: {}\n\n{}", failure.what, small.script())
}

async fn smallest(mut world: World, mut failure: Failure) -> (World, Failure) {
    let mut tries = TRIES;
    if let Some(id) = failure.query.clone() {
        // One query alone goes another course: several are tried.
        for course in 0..8 {
            let alone = World { course: world.seed + course, ..world.with_only(&id) };
            if let Err(again) = run(&alone).await {
                (world, failure) = (alone, again);
                break;
            }
        }
    }
    // Whole batches first, many at once, then records.
    let mut size = world.batches.len();
    while size > 0 && tries > 0 {
        let mut at = 0;
        while at < world.batches.len() && tries > 0 {
            let mut less = world.clone();
            let end = (at + size).min(less.batches.len());
            less.batches.drain(at..end);
            tries -= 1;
            match run(&less).await {
                Err(again) => (world, failure) = (less, again),
                Ok(_) => at += size,
            }
        }
        size /= 2;
    }
    let mut batch = 0;
    while batch < world.batches.len() && tries > 0 {
        let mut at = 0;
        while world.batches[batch].records.len() > 1 && at < world.batches[batch].records.len() && tries > 0 {
            let mut less = world.clone();
            less.batches[batch].records.remove(at);
            tries -= 1;
            match run(&less).await {
                Err(again) => (world, failure) = (less, again),
                Ok(_) => at += 1,
            }
        }
        batch += 1;
    }
    (world, failure)
}
