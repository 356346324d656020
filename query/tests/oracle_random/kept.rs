//! What a world keeps of its queries' state over restarts: checkpoints at any moment, cut off while they are written, older ones and
//! damaged ones; and how often a start went on from one.
//!
//! Asked by `drive`, which lets the world go on whatever becomes of them: they may cost folding, never an answer.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use foldlog_log::{
    Position,
    testing::{Fault, Random, SimDisk},
};
use foldlog_query::{Checkpoints, Engine};

use super::{
    check::Counts,
    grammar::{chance, one_of},
};

/// Where they lie.
const FOLDER: &str = "/data/state";
/// Calls that a checkpoint of all queries of a world makes, about.
const CALLS: u64 = 60;

/// The checkpoints of a world.
pub struct Keeping {
    /// When one is due.
    due: Duration,
    /// All of them, as they were at an earlier moment of this life, on a disk of their own.
    earlier: Option<SimDisk>,
    /// The newest of each query that runs.
    newest: BTreeMap<String, Position>,
    /// Where queries went on from one at the last start, if that is known.
    went_on: BTreeMap<String, Position>,
    /// What was damaged: the next start refuses something.
    damaged: Option<PathBuf>,
    /// Whether it surely does: no file is left of a query whose place another one took.
    must_refuse: bool,
    counts: Counts,
}

impl Keeping {
    pub fn new(random: &mut Random, must_refuse: bool) -> Self {
        // After every step, now and then, or when the world wants one.
        let due = *one_of(random, &[Duration::ZERO, Duration::from_millis(1), Duration::MAX, Duration::MAX, Duration::MAX]);
        Self {
            due,
            earlier: None,
            newest: BTreeMap::new(),
            went_on: BTreeMap::new(),
            damaged: None,
            must_refuse,
            counts: Counts::default(),
        }
    }

    /// How an engine keeps them that lives on this disk.
    pub fn checkpoints(&self, disk: &SimDisk) -> Checkpoints {
        Checkpoints::in_files(Arc::new(disk.clone()), PathBuf::from(FOLDER)).due_after(self.due)
    }

    /// Looks at an engine that has just started.
    pub fn begun(&mut self, engine: &Engine) -> Result<(), String> {
        self.newest.clear();
        for status in engine.queries() {
            self.counts.refused += usize::from(status.checkpoint.set_aside.is_some());
            if self.damaged.is_some() || status.checkpoint.set_aside.is_none() {
                self.newest.extend(status.checkpoint.newest.map(|(position, _)| (status.id, position)));
                continue;
            }
            return Err(format!("the checkpoint of {} was refused: {:?}", status.id, status.checkpoint.set_aside));
        }
        let damaged = self.damaged.take().filter(|_| engine.queries().iter().all(|status| status.checkpoint.set_aside.is_none()));
        if let Some(path) = damaged.filter(|_| self.must_refuse) {
            return Err(format!("{} was damaged, and nothing was said", path.display()));
        }
        // Else they may be newer ones by now.
        if self.due == Duration::MAX {
            self.went_on = self.newest.clone();
            self.counts.went_on += self.went_on.len();
        }
        Ok(())
    }

    /// Counts the checkpoints that were written since it last looked.
    pub fn look(&mut self, engine: &Engine) {
        for status in engine.queries() {
            let Some((position, _)) = status.checkpoint.newest else { continue };
            let before = self.newest.insert(status.id, position);
            self.counts.checkpoints += usize::from(before != Some(position));
        }
    }

    /// Takes one, or remembers those that there are, now and then.
    pub fn happen(&mut self, random: &mut Random, engine: &Engine, own: Option<&SimDisk>) {
        if chance(random, 20) {
            tokio::task::block_in_place(|| engine.checkpoint());
        }
        if let Some(own) = own.filter(|_| chance(random, 12)) {
            self.earlier = Some(own.fork());
        }
        self.look(engine);
    }

    /// Has the power go off amid a checkpoint, or soon after.
    pub fn cut_amid(&mut self, random: &mut Random, engine: &Engine, disk: &SimDisk) {
        disk.arm(Fault::PowerOff { nth: random.below(CALLS) });
        tokio::task::block_in_place(|| engine.checkpoint());
    }

    /// What the next life finds on a disk that has checkpoints alone: those of an earlier moment, as if the last ones had never been
    /// taken, or damaged ones.
    pub fn left(&mut self, random: &mut Random, own: &SimDisk) -> SimDisk {
        let earlier = self.earlier.take().filter(|_| chance(random, 60));
        let own = earlier.unwrap_or_else(|| own.clone()).power_cut();
        if chance(random, 30) {
            self.damage(random, &own);
        }
        own
    }

    /// Damages one of them, or the list of what there is.
    pub fn damage(&mut self, random: &mut Random, disk: &SimDisk) {
        let files: Vec<PathBuf> = disk.paths().into_iter().filter(|path| path.starts_with(FOLDER)).collect();
        let mut files: Vec<&PathBuf> = files.iter().filter(|path| is_state(path)).collect();
        if files.is_empty() {
            return;
        }
        let list = Path::new(FOLDER).join("checkpoints");
        files.push(&list);
        let path = *one_of(random, &files);
        let mut bytes = disk.bytes_of(path).unwrap_or_default();
        let at = usize::try_from(random.below(bytes.len() as u64)).unwrap();
        bytes[at] ^= 1 << random.below(8);
        disk.overwrite(path, bytes);
        self.damaged = Some(path.clone());
    }

    /// Queries that went on from a checkpoint at the last start, and where.
    pub fn went_on(&self) -> &BTreeMap<String, Position> {
        &self.went_on
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }
}

fn is_state(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "state")
}
