//! The log against a model that is nothing but lists and maps: random appends, reads and restarts, by seed.
//!
//! The model (`model`) knows no files, groups or segments. It says what each append is answered and what each selection holds, and the
//! log must say the same, in every order of commits, seals, checkpoints and starts (`driver`).
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod backups;
mod driver;
mod model;
mod reads;
mod requests;

use driver::{Run, Seen};

#[test]
fn the_log_answers_what_a_model_of_lists_answers() {
    let mut sum = Seen::default();
    for seed in 0..3_600 {
        let mut run = Run::new(seed);
        // A failure prints which seed it was.
        println!("seed {seed}");
        run.run(seed % 16 == 0);
        sum.appends += run.seen.appends;
        sum.violations += run.seen.violations;
        sum.repeats += run.seen.repeats;
        sum.written += run.seen.written;
        sum.reused += run.seen.reused;
        sum.changes += run.seen.changes;
        sum.snapshots += run.seen.snapshots;
        sum.refused_changes += run.seen.refused_changes;
        sum.units += run.seen.units;
        sum.disordered += run.seen.disordered;
        sum.restarts += run.seen.restarts;
        sum.reads += run.seen.reads;
        sum.backward += run.seen.backward;
        sum.by_time += run.seen.by_time;
        sum.filtered += run.seen.filtered;
        sum.matching += run.seen.matching;
        sum.altered += run.seen.altered;
        sum.deleted += run.seen.deleted;
        sum.removed += run.firsts.iter().sum::<u64>();
        sum.retained += run.first_event;
        sum.below += run.seen.below;
        sum.compacted += run.seen.compacted;
        sum.restored += run.seen.restored;
        sum.let_go += run.seen.let_go;
        sum.redacted += run.seen.redacted;
        sum.erased += run.seen.erased;
        sum.records += run.seen.records;
    }
    println!("{sum:?}");
    assert!(sum.removed > 25_000 && sum.below > 350 && sum.compacted > 10_000 && sum.let_go > 700, "{sum:?}");
    assert!(sum.retained > 5_000, "{sum:?}");
    assert!(
        sum.appends > 80_000 && sum.violations > 30_000 && sum.repeats > 4_000 && sum.reused > 2_000 && sum.written > 12_000,
        "{sum:?}"
    );
    assert!(sum.changes > 7_000 && sum.refused_changes > 7_000 && sum.snapshots > 2_000, "{sum:?}");
    assert!(sum.restarts > 6_000 && sum.reads > 20_000 && sum.records > 200_000 && sum.backward > 10_000 && sum.by_time > 7_000, "{sum:?}");
    assert!(sum.filtered > 6_000 && sum.matching > 30_000, "{sum:?}");
    assert!(sum.altered > 2_500 && sum.deleted > 1_500, "{sum:?}");
    assert!(sum.restored > 20_000, "{sum:?}");
    assert!(sum.redacted > 1_500 && sum.erased > 300, "{sum:?}");
    assert!(sum.units > 18_000 && sum.disordered > 12_000, "{sum:?}");
}
