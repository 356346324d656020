//! `foldlog doctor`: how a data folder and the machine under it are. Needs no server, and minds none.

use std::{io, path::PathBuf, sync::Arc};

use anyhow::anyhow;
use clap::Args;
use foldlog_log::{
    LogError,
    clock::SystemClock,
    disk::{ReadOnlyDisk, RealDisk},
    doctor::{self, Finding, Health},
};

use super::{
    Failed,
    output::{Head, OutputArgs, Record},
};
use crate::config::{Config, Given};

/// Look at a data folder: its lock, free space, syncs, the clock, limits, what a start would find, and every checksum
///
/// No file of the folder is changed. Exit code 1 if something is bad, 0 with notices at most.
#[derive(Debug, Args)]
pub struct Doctor {
    /// The data folder
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Configuration file of its server
    #[arg(long, value_name = "FILE", env = "FOLDLOG_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

impl Doctor {
    pub fn run(self) -> Result<(), Failed> {
        let mut given = Given::default();
        given.flag("data", "--data", self.data);
        given.surroundings(self.config.as_deref());
        let config = Config::resolve(given).map_err(|faults| Failed::Usage(faults.into()))?;
        let doctor = doctor::Doctor {
            disk: Arc::new(RealDisk),
            reading: Arc::new(ReadOnlyDisk),
            clock: Arc::new(SystemClock::new()),
            config: &config.log,
            connections: config.limits.connections as u64,
        };
        let heads = [Head::text("check"), Head::text("health"), Head::text("finding")];
        let mut printer = self.output.stdout().printer(&heads);
        let (mut printed, mut bad) = (Ok(()), 0_u64);
        let examined = doctor.examine(&config.data, &mut |Finding { check, health, what }| {
            bad += u64::from(health == Health::Bad);
            // Nobody may be reading any more; the exit code counts all the same.
            if printed.is_ok() {
                printed = printer.print(&Record { heads: &heads, cells: vec![check.into(), word(health).into(), what.as_str().into()] });
            }
        });
        match printed.and_then(|()| printer.finish()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                return Err(Failed::Operation(anyhow!(error).context("failed to write the output")));
            }
            _ => {}
        }
        examined.map_err(|error| match error {
            LogError::Invalid { .. } => Failed::Usage(anyhow!(error)),
            error => Failed::Operation(anyhow!(error)),
        })?;
        if bad == 0 { Ok(()) } else { Err(Failed::Operation(anyhow!("{bad} findings are bad"))) }
    }
}

const fn word(health: Health) -> &'static str {
    match health {
        Health::Good => "good",
        Health::Notice => "notice",
        Health::Bad => "bad",
    }
}
