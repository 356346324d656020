//! Kills alone prove no sync. Each place that syncs is made to forget it, and lives must then show what it was for.

use std::collections::BTreeMap;

use foldlog_log::testing::{CallKind, SyncSite};

use super::life::Life;

/// Lives tried at most until one fails.
const LIVES: u64 = 150;

#[test]
fn every_sync_that_is_taken_away_breaks_a_promise() {
    let mut sites: BTreeMap<(CallKind, String), ()> = BTreeMap::new();
    for seed in 0..40 {
        let mut life = Life::new(seed, None);
        life.run().expect("nothing is forgotten yet");
        sites.extend(life.sync_sites().into_iter().map(|site| ((site.kind, site.path), ())));
    }
    let mut found = Vec::new();
    for (kind, path) in sites.into_keys() {
        let failed = (0..LIVES).find_map(|seed| {
            let site = SyncSite { phase: "", kind, path: path.clone() };
            let failure = Life::new(seed, Some(site)).run().err()?;
            Some((seed, failure))
        });
        println!("{kind:?} {path}: {failed:?}");
        found.push((kind, path, failed.map_or("nothing", |(_, failure)| failure.name())));
    }
}
