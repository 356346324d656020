//! `foldlog backup`.

use clap::Args;

use super::{Connection, Stop};
use crate::cli::output::{Head, OutputArgs, Record, text::time};

/// Write everything that is durable into a folder of the server's machine, new or empty or with the backup before in it
///
/// The server writes backups only where its setting `backups` allows it. What has not changed since the backup before is taken over; what
/// lies on the same file system is linked, so that a copy elsewhere is still due. `foldlog restore` brings it back.
#[derive(Debug, Args)]
pub struct Backup {
    /// The folder: its name below the server's folder of backups, or its whole path there
    #[arg(value_name = "DIR")]
    folder: String,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: OutputArgs,
}

impl Backup {
    pub async fn run(self) -> Result<(), Stop> {
        let taken = self.connection.open().await?.backup(&self.folder).await?;
        let heads = [
            Head::number("position"),
            Head::text("recorded_at"),
            Head::number("files"),
            Head::number("bytes"),
            Head::number("copied_bytes"),
            Head::number("linked_bytes"),
        ];
        let mut printer = self.output.stdout().printer(&heads);
        let recorded_at = time(taken.recorded_at_ms);
        let numbers = [taken.files, taken.bytes, taken.copied_bytes, taken.linked_bytes].map(Into::into);
        let cells = [taken.position.into(), recorded_at.as_str().into()].into_iter().chain(numbers).collect();
        printer.print(&Record { heads: &heads, cells })?;
        Ok(printer.finish()?)
    }
}
