//! The program `foldlog`: reads the command line and hands over to the verb.

use std::process::ExitCode;

use clap::Parser as _;

use foldlog_server::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
