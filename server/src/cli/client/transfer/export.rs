//! `foldlog topic export`.

use std::{
    io::{self, BufWriter, IsTerminal as _, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use foldlog_sdk::{Reading, Recorded, Source, TopicKind};
use indicatif::ProgressBar;

use super::{Format, columns, parquet, progress};
use crate::cli::{
    Failed,
    client::{Connection, Stop, event::exact_line},
    output::note,
};

/// Write all that a topic holds now, in the order of positions: to a file, which is there when all of it is, or to stdout
///
/// Left out are marks of streams' lives (truncated, deleted, tombstoned), snapshots, and events that were removed: of a stream what is
/// left is exported, and numbered from 1 when it is imported. Redacted events are marked as such, and have no data.
#[derive(Debug, clap::Args)]
pub struct Export {
    /// Topic
    topic: String,
    /// What it is written in [default: as the file's name ends, else jsonl]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// File; one that is there is replaced [default: stdout]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

impl Export {
    pub async fn run(self) -> Result<(), Stop> {
        let client = self.connection.open().await?;
        let description = client.describe_topic(&self.topic).await?;
        let format = self.format.or_else(|| self.output.as_deref().and_then(Format::of)).unwrap_or(Format::Jsonl);
        let kind = description.topic.kind;
        let most = description.ends.iter().sum::<u64>().saturating_sub(description.firsts.iter().sum());
        // Between rows on a terminal there is no place for it.
        let is_shown = self.output.is_some() || !io::stdout().is_terminal();
        let bar = if is_shown { progress(most, "{bar:40} {pos}/{len}  {eta} left") } else { ProgressBar::hidden() };
        let reading = client.read(Source::Topic { topic: self.topic.clone(), from_position: None }).start().await?;
        let count = match &self.output {
            None => {
                let (count, mut out) = write_all(reading, Sheet::new(format, kind, io::stdout())?, &bar).await?;
                out.flush()?;
                count
            }
            Some(path) => {
                let file = beside(path).map_err(Failed::Operation)?;
                let (count, file) = write_all(reading, Sheet::new(format, kind, file)?, &bar).await?;
                file.as_file().sync_all()?;
                file.persist(path)
                    .map_err(|failed| Failed::Operation(anyhow!(failed.error).context(format!("failed to write {}", path.display()))))?;
                count
            }
        };
        let what = if kind == TopicKind::Events { "events" } else { "records" };
        note(&format!("exported {count} {what} of topic {}", self.topic));
        Ok(())
    }
}

/// A file beside the one that is asked for, which it becomes when it is whole.
fn beside(path: &Path) -> anyhow::Result<tempfile::NamedTempFile> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = tempfile::Builder::new().prefix(".foldlog-export-").tempfile_in(folder);
    file.with_context(|| format!("failed to make a file in {}", folder.display()))
}

async fn write_all<W: Write + Send>(mut reading: Reading, mut sheet: Sheet<W>, bar: &ProgressBar) -> Result<(u64, W), Stop> {
    let mut count = 0;
    while let Some(event) = reading.next().await? {
        sheet.write(&event)?;
        count += 1;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok((count, sheet.finish()?))
}

/// What is written to.
enum Sheet<W: Write + Send> {
    Lines(BufWriter<W>),
    Csv(Box<csv::Writer<W>>, TopicKind),
    Parquet(Box<parquet::Writer<W>>),
}

impl<W: Write + Send> Sheet<W> {
    fn new(format: Format, kind: TopicKind, out: W) -> io::Result<Self> {
        Ok(match format {
            Format::Jsonl => Self::Lines(BufWriter::new(out)),
            Format::Csv => {
                let mut writer = csv::Writer::from_writer(out);
                writer.write_record(columns::names(kind))?;
                Self::Csv(Box::new(writer), kind)
            }
            Format::Parquet => Self::Parquet(Box::new(parquet::Writer::new(out, kind)?)),
        })
    }

    fn write(&mut self, event: &Recorded) -> io::Result<()> {
        match self {
            Self::Lines(out) => writeln!(out, "{}", exact_line(event)),
            Self::Csv(writer, kind) => Ok(writer.write_record(columns::cells(event, *kind))?),
            Self::Parquet(writer) => Ok(writer.write(event)?),
        }
    }

    fn finish(self) -> io::Result<W> {
        match self {
            Self::Lines(out) => out.into_inner().map_err(io::IntoInnerError::into_error),
            Self::Csv(writer, _) => writer.into_inner().map_err(|failed| io::Error::new(failed.error().kind(), failed.error().to_string())),
            Self::Parquet(writer) => Ok(writer.finish()?),
        }
    }
}
