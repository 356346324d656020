//! The command line: verbs, and what a verb's end means to the shell.
//!
//! `serve`, `dev` and `demo` start a server, `doctor` and `log` read files, `test` runs an engine; every other verb is a client through the SDK. A verb is one file here with a
//! `clap::Args` struct and `fn run(self) -> Result<(), Failed>`.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

mod client;
mod demo;
mod doctor;
mod log;
mod output;
mod restore;
pub(crate) mod serve;
mod shell;
mod signals;
mod test;

/// An event-sourcing application server with a SQL query layer.
#[derive(Debug, Parser)]
#[command(name = "foldlog", version = VERSION, propagate_version = true, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

/// The version, with the commit where it is known.
pub const VERSION: &str = env!("VERSION_AND_COMMIT");

const EXIT_CODES: &str = "Exit codes: 0 done, 1 the operation failed, 2 usage or configuration, 3 server not reachable, \
                          4 a precondition failed, 74 storage failure.";

#[derive(Debug, Subcommand)]
enum Verb {
    Serve(serve::Serve),
    Dev(serve::Dev),
    Demo(demo::Demo),
    Doctor(doctor::Doctor),
    Restore(restore::Restore),
    Test(test::Test),
    #[command(subcommand)]
    Log(log::Log),
    #[command(flatten)]
    Client(Box<client::Verb>),
}

impl Verb {
    fn run(self) -> Result<(), Failed> {
        match self {
            Self::Serve(verb) => verb.run(),
            Self::Dev(verb) => verb.run(),
            Self::Demo(verb) => verb.run(),
            Self::Doctor(verb) => verb.run(),
            Self::Restore(verb) => verb.run(),
            Self::Test(verb) => verb.run(),
            Self::Log(verb) => verb.run(),
            Self::Client(verb) => verb.run(),
        }
    }
}

/// Why a verb did not succeed, as its exit code says it.
#[derive(Debug)]
pub enum Failed {
    /// The operation failed (1).
    Operation(anyhow::Error),
    /// Wrong usage or configuration (2).
    Usage(anyhow::Error),
    /// The server cannot be reached (3).
    Unreachable(anyhow::Error),
    /// A precondition did not hold (4).
    Precondition(anyhow::Error),
    /// The storage failed (74, as `sysexits.h` calls `EX_IOERR`).
    Storage(anyhow::Error),
}

impl Failed {
    const fn code(&self) -> u8 {
        match self {
            Self::Operation(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
            Self::Precondition(_) => 4,
            Self::Storage(_) => 74,
        }
    }

    pub(crate) const fn error(&self) -> &anyhow::Error {
        match self {
            Self::Operation(error) | Self::Usage(error) | Self::Unreachable(error) | Self::Precondition(error) | Self::Storage(error) => {
                error
            }
        }
    }
}

impl Cli {
    /// Runs the verb to its end; what went wrong is told once, on stderr, with its causes.
    #[must_use]
    pub fn run(self) -> ExitCode {
        ExitCode::from(told(self.verb.run()))
    }
}

/// Tells how a verb ended, and gives its exit code.
pub(crate) fn told(ended: Result<(), Failed>) -> u8 {
    let Err(failed) = ended else { return 0 };
    // That nobody reads it is no reason to panic.
    let _ = writeln!(io::stderr(), "error: {:#}", failed.error());
    failed.code()
}
