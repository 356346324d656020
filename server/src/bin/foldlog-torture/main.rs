//! foldlog-torture: kills a server over and over, at random moments and at exact system calls, and checks after each restart
//! that nothing acknowledged is lost, nothing is there twice, that views and outputs are the fold of the events, and that members of a consumer
//! group get everything, in order, and nothing again that they were done with. Meanwhile a table is compacted, what streams let go, old records and old events are
//! removed, topics come and go, and backups are taken and restored: what is left, and what is restored, must be what may be there.
//!
//! The server is the program `foldlog` beside this one, as a child process; the ledger of what was acknowledged lies outside
//! its data folder. Kills prove nothing about syncs (the page cache survives them): `log/tests/crash` does that.
#![expect(clippy::disallowed_methods, reason = "a program that torments a server from outside: none of its seams exist here")]
#![expect(clippy::disallowed_types, reason = "the same")]

#[path = "../child/mod.rs"]
mod child;

mod aged;
mod backups;
mod check;
mod churn;
mod client;
mod cycle;
mod deliveries;
mod given;
mod kill;
mod ledger;
mod line;
mod lives;
mod members;
mod random;
mod recent;
mod removals;
mod sessions;
mod table;
mod writer;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, ensure};
use clap::Parser;

use crate::{check::Verdict, cycle::Torture, removals::Gone};

/// Kills a foldlog server over and over and checks what is left.
#[derive(Debug, Parser)]
#[command(name = "foldlog-torture", version)]
struct Args {
    /// How often the server is killed and checked.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    cycles: u64,
    /// Seed of the load and of the kills.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Writers that append at the same time.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=64))]
    writers: u64,
    /// Folder for the data and the ledger; it must not exist. Without it a temporary one is used, and kept if a check fails.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Leave the sizes of journal files and segments at their defaults. Otherwise they are so small that each cycle fills, copies
    /// and recycles many.
    #[arg(long)]
    default_sizes: bool,
    /// Do not use strace even if it is there: no kills at exact system calls.
    #[arg(long)]
    no_strace: bool,
}

/// Sizes with which everything that happens to files happens in each cycle.
const SMALL_SIZES: &[(&str, &str)] = &[
    ("FOLDLOG_LOG_JOURNAL_FILE_BYTES", "1MiB"),
    ("FOLDLOG_LOG_FIRST_JOURNAL_FILE_BYTES", "256KiB"),
    ("FOLDLOG_LOG_TIDY_BYTES", "128KiB"),
    ("FOLDLOG_LOG_SEGMENT_BYTES", "64KiB"),
    ("FOLDLOG_LOG_TAIL_BYTES", "256KiB"),
    ("FOLDLOG_LOG_REMOVAL_PERCENT", "20"),
    // So slow that kills meet passes.
    ("FOLDLOG_LOG_COMPACTION_BYTES_PER_SECOND", "2MiB"),
];

/// After so many cycles the backup is restored.
const RESTORE_EVERY: u64 = 7;

/// What the run has shown so far; told in the last line.
#[derive(Debug, Default)]
struct Tally {
    cycles: u64,
    acked: u64,
    /// Acknowledgements of members that were confirmed.
    settled: u64,
    gone: Gone,
    /// Backups that were taken, and those that were restored.
    backed_up: (u64, u64),
    verdict: Verdict,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start a runtime").and_then(|runtime| {
        let mut tally = Tally::default();
        let outcome = runtime.block_on(torture(&args, &mut tally));
        outcome.map(|()| tally)
    });
    match outcome {
        Ok(tally) => {
            let clean = tally.verdict.is_clean();
            let Tally { cycles, acked, settled, gone, backed_up: (backups, restored), verdict } = tally;
            let Verdict { lost, repeated, gaps, view_mismatches, output_mismatches, told } = verdict;
            for objection in told {
                eprintln!("{objection}");
            }
            println!(
                "cycles={cycles} acked={acked} settled={settled} {gone} backups={backups} restored={restored} lost={lost} repeated={repeated} gaps={gaps} view_mismatches={view_mismatches} \
                 output_mismatches={output_mismatches}"
            );
            if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(failed) => {
            eprintln!("error: {failed:#}");
            ExitCode::FAILURE
        }
    }
}

async fn torture(args: &Args, tally: &mut Tally) -> anyhow::Result<()> {
    let folder = Folder::new(args.dir.clone())?;
    let strace = !args.no_strace && kill::has_strace();
    if !strace {
        eprintln!("NOTE: no strace ({}): the server is killed at random moments and at acknowledgements ONLY,", no_strace_why(args));
        eprintln!("NOTE: not at exact system calls. Install strace and allow tracing for the whole test.");
    }
    let outcome = run(args, &folder, strace, tally).await;
    if outcome.is_err() || !tally.verdict.is_clean() {
        eprintln!("data, ledger and the server's log are kept in {}", folder.keep().display());
    }
    outcome
}

async fn run(args: &Args, folder: &Folder, strace: bool, tally: &mut Tally) -> anyhow::Result<()> {
    let settings = if args.default_sizes { &[] } else { SMALL_SIZES };
    let mut torture = Torture::begin(folder.path(), settings, args.seed, args.writers, strace).await?;
    for number in 1..=args.cycles {
        let mut report = torture.cycle().await.with_context(|| format!("cycle {number} of seed {}", args.seed))?;
        eprintln!("cycle {number}: {report}");
        if number.is_multiple_of(RESTORE_EVERY) {
            report.verdict.add(torture.restore(None).await.with_context(|| format!("the backup of cycle {number}"))?);
        }
        tally.cycles = number;
        (tally.acked, tally.settled, tally.gone, tally.backed_up) =
            (torture.acked(), torture.settled(), torture.gone(), torture.backed_up());
        tally.verdict.add(report.verdict);
        if !tally.verdict.is_clean() {
            return Ok(());
        }
    }
    tally.verdict.add(torture.finish().await.context("the clean stop at the end")?);
    (tally.settled, tally.gone, tally.backed_up) = (torture.settled(), torture.gone(), torture.backed_up());
    eprintln!("{}", torture.kills());
    ensure!(
        args.default_sizes || !tally.verdict.is_clean() || (tally.gone.is_complete() && tally.backed_up.1 > 0),
        "not everything has happened that was to be shown: {}, {} backups restored",
        tally.gone,
        tally.backed_up.1
    );
    Ok(())
}

const fn no_strace_why(args: &Args) -> &'static str {
    if args.no_strace { "--no-strace was given" } else { "it is not installed, or may not trace" }
}

/// The working folder: removed at the end, unless it was named or a check failed.
enum Folder {
    Named(PathBuf),
    Temporary(tempfile::TempDir),
}

impl Folder {
    fn new(named: Option<PathBuf>) -> anyhow::Result<Self> {
        if let Some(path) = named {
            std::fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
            return Ok(Self::Named(path));
        }
        let folder = tempfile::Builder::new().prefix("foldlog-torture-").tempdir();
        Ok(Self::Temporary(folder.context("cannot create a temporary folder")?))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Named(path) => path,
            Self::Temporary(folder) => folder.path(),
        }
    }

    fn keep(self) -> PathBuf {
        match self {
            Self::Named(path) => path,
            Self::Temporary(folder) => folder.keep(),
        }
    }
}
