//! The verb `demo`: foldlog's whole path on real data, in one command.

mod check;
mod data;
mod expected;
mod flights;
mod replay;
mod watch;

use clap::{Args, Subcommand};

use super::Failed;

/// Show foldlog on real data.
#[derive(Debug, Args)]
pub struct Demo {
    #[command(subcommand)]
    story: Story,
}

#[derive(Debug, Subcommand)]
enum Story {
    Flights(flights::Flights),
}

impl Demo {
    /// Tells the story to its end.
    ///
    /// # Errors
    /// What failed on the way, and any figure that is not what it must be.
    pub fn run(self) -> Result<(), Failed> {
        match self.story {
            Story::Flights(flights) => flights.run(),
        }
    }
}
