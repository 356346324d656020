//! `foldlog clock [confirm]`.

use clap::{Args, Subcommand};
use foldlog_sdk::Clock as SdkClock;

use super::{Connection, Stop};
use crate::cli::output::{Cell, Head, OutputArgs, Record, text::time};

/// Show how the server's time stands to the wall clock of its machine
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Clock {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    show: Show,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Believe a wall clock that is over an hour off: the server's time goes there at once, or stands still until it has caught up
    Confirm(Show),
}

#[derive(Debug, Args)]
struct Show {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: OutputArgs,
}

impl Clock {
    pub async fn run(self) -> Result<(), Stop> {
        match self.verb {
            None => print(self.show.connection.open().await?.clock().await?, self.show.output),
            Some(Verb::Confirm(show)) => print(show.connection.open().await?.confirm_clock().await?, show.output),
        }
    }
}

fn print(clock: SdkClock, output: OutputArgs) -> Result<(), Stop> {
    let heads =
        [Head::text("server_time"), Head::text("wall_time"), Head::text("follows"), Head::number("off_for_s"), Head::text("removes")];
    let mut printer = output.stdout().printer(&heads);
    let (server, wall) = (time(clock.server_time_ms), time(clock.wall_time_ms));
    let (follows, removes) = (Cell::Boolean(clock.follows), Cell::Boolean(clock.removes));
    let cells = vec![server.as_str().into(), wall.as_str().into(), follows, clock.off_for.as_secs().into(), removes];
    printer.print(&Record { heads: &heads, cells })?;
    Ok(printer.finish()?)
}
