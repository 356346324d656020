//! Power cuts, failing calls and forgotten syncs, by seed, on a simulated disk.
//!
//! Each seed is a life of a data folder: random units, seals, checkpoints and new topics, ended by a power cut, a kill or a
//! failing call, and begun again. After every start all that was acknowledged or shown must be there, whole and in place.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod changes;
mod life;
mod producers;
mod syncs;

use changes::Changes;
use life::Life;

#[test]
fn a_thousand_lives_lose_nothing_that_was_acknowledged() {
    let mut seen = life::Seen::default();
    for seed in 0..1000 {
        let mut life = Life::new(seed, None);
        if let Err(failure) = life.run() {
            panic!("seed {seed}: {failure:?}");
        }
        seen.add(&life.seen);
    }
    println!("{seen:?}");
    // A life in which nothing happens proves nothing.
    assert!(seen.starts > 4000 && seen.acknowledged > 50_000, "{seen:?}");
    assert!(seen.cuts > 1000 && seen.kills > 300 && seen.failed_calls > 300 && seen.full_disks > 50, "{seen:?}");
    assert!(
        seen.unknown_kept > 50
            && seen.unknown_gone > 500
            && seen.written_kept > 20
            && seen.written_gone > 50
            && seen.checkpoints > 3000
            && seen.repeats > 1000,
        "{seen:?}"
    );
}

#[test]
fn what_is_removed_stays_removed_and_everything_else_is_there_in_lives_full_of_changes() {
    let mut seen = changes::Seen::default();
    for seed in 0..600 {
        let mut life = Changes::new(seed, None);
        if let Err(failure) = life.run() {
            panic!("seed {seed}: {failure:?}");
        }
        seen.add(&life.seen);
    }
    println!("{seen:?}");
    assert!(seen.crashes > 1000 && seen.acknowledged > 20_000 && seen.removed > 300 && seen.let_go > 300, "{seen:?}");
    assert!(seen.compacted > 300 && seen.altered > 500 && seen.deleted > 200 && seen.marked > 200, "{seen:?}");
}
