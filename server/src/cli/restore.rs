//! `foldlog restore`: a data folder from a backup. Needs no server; the new folder must have none.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    sync::Arc,
};

use anyhow::anyhow;
use clap::Args;
use foldlog_log::{
    LogError, Position, Timestamp,
    clock::{Clock, SystemClock},
    disk::{Disk, RealDisk},
    restore::{Until, restore},
};

use super::{
    Failed,
    output::{Head, OutputArgs, Record, text::parse_time},
};
use crate::config::{Config, Given};

/// Restore a backup into a new data folder, and read everything back
///
/// The folder has an epoch of its own: tokens from before are refused, and positions go on 2^40 above the cut. Of a table that was
/// compacted a cut cannot bring back what a record behind it had replaced by then: such tables are named.
#[derive(Debug, Args)]
pub struct Restore {
    /// Folder of the backup
    #[arg(value_name = "BACKUP")]
    backup: PathBuf,
    /// The new data folder, not there yet or empty
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Restore no more than what lies below a position, or was recorded by the server at a time or before (2026-11-21T17:30:00Z); never a
    /// part of an append
    #[arg(long, value_name = "POSITION|TIME", value_parser = until)]
    until: Option<Until>,
    /// Configuration file of its server
    #[arg(long, value_name = "FILE", env = "FOLDLOG_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

fn until(given: &str) -> Result<Until, String> {
    if let Ok(position) = given.parse() {
        return Ok(Until::Position(Position::new(position)));
    }
    let time = parse_time(given).ok_or("neither a position (a number) nor a time (2026-11-21T17:30:00Z)")?;
    Ok(Until::Time(Timestamp::new(time)))
}

impl Restore {
    pub fn run(self) -> Result<(), Failed> {
        let mut given = Given::default();
        given.flag("data", "--data", self.data);
        given.surroundings(self.config.as_deref());
        let config = Config::resolve(given).map_err(|faults| Failed::Usage(faults.into()))?;
        let (disk, clock): (Arc<dyn Disk>, Arc<dyn Clock>) = (Arc::new(RealDisk), Arc::new(SystemClock::new()));
        let random = || uuid::Uuid::new_v4().as_u128();
        let restored = restore(&disk, &clock, &self.backup, &config.data, self.until, &config.log, random).map_err(failed)?;
        let heads = [Head::number("position"), Head::number("next_position"), Head::number("epoch"), Head::number("bytes")];
        let mut printer = self.output.stdout().printer(&heads);
        let numbers = [restored.position.get(), restored.next.get(), restored.epoch.into(), restored.bytes];
        let printed = printer.print(&Record { heads: &heads, cells: numbers.map(Into::into).into() }).and_then(|()| printer.finish());
        for topic in &restored.thinned {
            let what = "was compacted with what lies behind the cut: of its records below the cut some may be missing";
            // That nobody reads it is no reason to fail.
            let _ = writeln!(io::stderr(), "note: topic {topic} {what}");
        }
        printed.map_err(|error| Failed::Operation(anyhow!(error).context("failed to write the output")))
    }
}

fn failed(error: LogError) -> Failed {
    match error {
        LogError::Invalid { .. } | LogError::Locked { .. } | LogError::Format { .. } | LogError::PositionOutOfRange { .. } => {
            Failed::Usage(anyhow!(error))
        }
        LogError::Corrupt { .. } => Failed::Storage(anyhow!(error)),
        error => Failed::Operation(anyhow!(error)),
    }
}
