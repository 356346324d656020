//! foldlog-bench: measures foldlog against the limits of the machine it runs on, in one run, and says which goals are met.
//!
//! F0 is the device's own write and sync, E0 a bare tonic server with the same messages; both are measured here and now, so that
//! a goal is a ratio and not a number of another machine. foldlog is the program beside this one, as a child process.
#![expect(clippy::disallowed_methods, reason = "a program that measures a server from outside: none of its seams exist here")]
#![expect(clippy::disallowed_types, reason = "the same")]

#[path = "../child/mod.rs"]
mod child;

mod adhoc;
mod appends;
mod bench;
mod beside;
mod disk;
mod echo;
mod encoded;
mod fanout;
mod flat;
mod folders;
mod grid;
mod inside;
mod load;
mod lookups;
mod many;
mod nexmark;
mod peers;
mod queries;
mod records;
mod report;
mod restart;
mod sessions;
mod state;
mod streams;
mod sums;
mod syscalls;
mod turns;
mod views;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::{bench::Bench, report::Report};

/// Measures foldlog against the limits of the machine.
#[derive(Debug, Parser)]
#[command(name = "foldlog-bench", version)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Measure everything and say which goals are met.
    Goals(Goals),
    /// Measure foldlog beside other servers, whose drivers start and measure them.
    Peers(Peers),
    /// Serve the bare echo that foldlog is compared with.
    #[command(hide = true)]
    Echo {
        /// Address and port.
        #[arg(long)]
        listen: SocketAddr,
        /// Write 4 KiB to this file and sync them before an append is answered.
        #[arg(long)]
        sync: Option<PathBuf>,
    },
}

#[derive(Debug, clap::Args)]
struct Goals {
    /// Folder on the device to measure, for the data; without it, beside this program.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Seconds that each loop runs.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// How often each loop runs; the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=99))]
    repeats: u8,
    /// Measure only these goals, by name and separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "GOALS", value_parser = clap::builder::PossibleValuesParser::new(names()))]
    only: Vec<String>,
}

#[derive(Debug, clap::Args)]
struct Peers {
    /// Folder of the drivers; what they need of their peers, their own words say.
    #[arg(long)]
    drivers: PathBuf,
    /// Folder on the device to measure, for the data; without it, beside this program.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Seconds that each of foldlog's loops runs.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Only these, in this order and separated by commas.
    #[arg(long, value_delimiter = ',')]
    only: Vec<peers::Peer>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start a runtime").and_then(|runtime| {
        runtime.block_on(async {
            match args.verb {
                Verb::Goals(goals) => measure(goals).await,
                Verb::Peers(peers) => beside_peers(peers).await,
                Verb::Echo { listen, sync } => echo::serve(listen, sync.as_deref()).await.map(|()| true),
            }
        })
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failed) => {
            eprintln!("error: {failed:#}");
            ExitCode::FAILURE
        }
    }
}

/// Every goal.
fn names() -> Vec<&'static str> {
    let appends = [inside::NAMES.as_slice(), &appends::NAMES, &sessions::NAMES, &beside::NAMES, &grid::NAMES];
    let others = [
        queries::NAMES.as_slice(),
        &["G14"],
        &nexmark::NAMES,
        &many::NAMES,
        &fanout::NAMES,
        &sums::NAMES,
        &state::NAMES,
        &flat::NAMES,
        &restart::NAMES,
        &views::NAMES,
        &["SYNCS", "SYNC-EACH"],
    ];
    [appends.concat(), others.concat()].concat()
}

async fn beside_peers(asked: Peers) -> anyhow::Result<bool> {
    let bench = Bench::of(asked.dir.as_deref(), asked.seconds, 1).await?;
    let mut report = Report::of(Vec::new());
    report.unoptimised();
    let peers = if asked.only.is_empty() { peers::ALL.as_slice() } else { &asked.only };
    peers::goals(&bench, &asked.drivers, peers, &mut report).await?;
    Ok(report.end())
}

async fn measure(goals: Goals) -> anyhow::Result<bool> {
    let bench = Bench::of(goals.dir.as_deref(), goals.seconds, goals.repeats.into()).await?;
    let mut report = Report::of(goals.only);
    report.unoptimised();
    if report.wants_any(&inside::NAMES)
        && let Err(failed) = inside::goals(&bench, &mut report).await
    {
        report.failed("INSIDE", &failed);
    }
    if report.wants_any(&appends::NAMES)
        && let Err(failed) = appends::goals(&bench, &mut report).await
    {
        report.failed("APPENDS", &failed);
    }
    if report.wants_any(&sessions::NAMES)
        && let Err(failed) = sessions::goals(&bench, &mut report).await
    {
        report.failed("SESSIONS", &failed);
    }
    if report.wants_any(&beside::NAMES)
        && let Err(failed) = beside::goals(&bench, &mut report).await
    {
        report.failed("BESIDE", &failed);
    }
    if report.wants_any(&grid::NAMES)
        && let Err(failed) = grid::goals(&bench, &mut report).await
    {
        report.failed("GRID", &failed);
    }
    if report.wants_any(&queries::NAMES)
        && let Err(failed) = queries::goals(&bench, &mut report).await
    {
        report.failed("QUERIES", &failed);
    }
    if report.wants_any(&["G14"])
        && let Err(failed) = lookups::goals(&bench, &mut report).await
    {
        report.failed("G14", &failed);
    }
    if report.wants_any(&nexmark::NAMES)
        && let Err(failed) = nexmark::goals(&bench, &mut report).await
    {
        report.failed("NEXMARK", &failed);
    }
    if report.wants_any(&many::NAMES)
        && let Err(failed) = many::goals(&bench, &mut report).await
    {
        report.failed("MANY", &failed);
    }
    if report.wants_any(&fanout::NAMES)
        && let Err(failed) = fanout::goals(&bench, &mut report).await
    {
        report.failed("FANOUT", &failed);
    }
    if report.wants_any(&sums::NAMES)
        && let Err(failed) = sums::goals(&bench, &mut report).await
    {
        report.failed("G20k", &failed);
    }
    if report.wants_any(&state::NAMES)
        && let Err(failed) = state::goals(&bench, &mut report).await
    {
        report.failed("STATE", &failed);
    }
    if report.wants_any(&flat::NAMES)
        && let Err(failed) = flat::goals(&bench, &mut report).await
    {
        report.failed("FLAT", &failed);
    }
    if report.wants_any(&restart::NAMES)
        && let Err(failed) = restart::goals(&bench, &mut report).await
    {
        report.failed("RESTART", &failed);
    }
    if report.wants_any(&views::NAMES)
        && let Err(failed) = views::goals(&bench, &mut report).await
    {
        report.failed("VIEWS", &failed);
    }
    if report.wants_any(&["SYNCS", "SYNC-EACH"])
        && let Err(failed) = syscalls::goals(&bench, &mut report).await
    {
        report.failed("SYNCS", &failed);
    }
    Ok(report.end())
}
