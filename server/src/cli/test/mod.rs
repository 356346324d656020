//! `foldlog test`: files of SQL tests, each test against an engine of its own within this process.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::anyhow;
use foldlog_log::clock::{Clock as _, SystemClock};
use foldlog_query::{DialectKind, Place};

use super::{
    Failed,
    client::{Stop, block_on, sql::script::Script},
    output::{Cell, Head, OutputArgs, Record, text::visible},
};

mod file;
mod run;

use file::{Case, File};
use run::{Broken, Rules, run};

/// Run tests of SQL: statements, INSERTs and ASSERTs from files, each test in an engine of its own
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Test {
    /// Files of tests
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Only tests whose name contains this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// The rules by which statements are read, standard or ksql; a file may SET 'sql.dialect' itself
    #[arg(long, value_name = "DIALECT", default_value = "standard")]
    dialect: DialectKind,
    /// Longest time for a statement, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    #[command(flatten)]
    output: OutputArgs,
}

const HELP: &str = "\
A file has tests that begin with a line of their own; what stands before the first is executed before each:

  --@test: deposits are summed
  CREATE STREAM moves (account VARCHAR, amount BIGINT) WITH (partitions = 1);
  CREATE TABLE balances AS SELECT account, SUM(amount) AS balance FROM moves GROUP BY account;
  INSERT INTO moves (rowtime, account, amount) VALUES (TIMESTAMP '1970-01-01 00:00:01', 'ann', 5);
  ASSERT VALUES balances (account, balance) VALUES ('ann', 5);

  --@test: a table cannot be inserted into
  --@expected.error: SQL_INVALID
  --@expected.message: written by query
  ...

ASSERT VALUES name [(columns)] VALUES (...), ...     the next records of its topic, in order
ASSERT NULL VALUES name [(columns)] KEY (...), ...   the next records, which have no value
ASSERT STREAM | TABLE name [(columns)] [WITH (...)]  how it was made; only what is told is looked at
ASSERT [NOT EXISTS] TOPIC name

The error that is expected is that of the test's last statement. No time is waited: before records are looked at, every query has folded all that was
written. Records without a ROWTIME are of 1970.";

/// A test with what became of it.
struct Outcome<'a> {
    file: &'a str,
    name: &'a str,
    place: Place,
    broken: Option<Broken>,
    /// The line in which something within a statement is wrong.
    marked: Option<String>,
    took: Duration,
}

impl Test {
    /// Runs the tests.
    ///
    /// # Errors
    /// [`Failed::Usage`] for a file that is none of tests, before anything is run; [`Failed::Operation`] if a test fails.
    pub fn run(self) -> Result<(), Failed> {
        match block_on(self.tell()) {
            Ok(()) | Err(Stop::OutputClosed) => Ok(()),
            Err(Stop::Failed(failed)) => Err(failed),
        }
    }

    async fn tell(self) -> Result<(), Stop> {
        let files = self.files.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
        let rules = Rules { dialect: self.dialect, timeout: Duration::from_secs(self.timeout) };
        let mut report = Report::new(self.output);
        let is_wanted = |name: &str| self.filter.as_ref().is_none_or(|part| name.contains(part.as_str()));
        let clock = SystemClock::new();
        for (script, file) in &files {
            let path = script.name();
            for case in &file.cases {
                let name = name_of(path, case);
                if !is_wanted(name) {
                    continue;
                }
                let started = clock.monotonic();
                let broken = run(&file.setup, case, rules).await?;
                let took = clock.monotonic().saturating_sub(started);
                let is_within = |broken: &&Broken| file.setup.iter().chain(&case.pieces).all(|piece| piece.place != broken.place);
                let marked = broken.as_ref().filter(is_within).and_then(|broken| script.marked(broken.place));
                report.add(Outcome { file: path, name, place: case.place, broken, marked, took })?;
            }
        }
        report.end(files.len())
    }
}

/// The tests of a file, with its text.
fn read(path: &Path) -> Result<(Script, File), Failed> {
    let script = Script::of_file(path)?;
    let file = File::parse(script.text()).map_err(|fault| Failed::Usage(anyhow!("{}", script.at(fault.place, &fault.message))))?;
    Ok((script, file))
}

fn name_of<'a>(path: &'a str, case: &'a Case) -> &'a str {
    case.name.as_deref().unwrap_or_else(|| path.rsplit(['/', '\\']).next().unwrap_or(path))
}

/// What is told, as the tests end.
struct Report {
    way: Way,
    passed: u64,
    failed: u64,
}

enum Way {
    /// For people.
    Lines,
    /// As `-o` says.
    Items(Box<super::output::Printer<io::Stdout>>),
}

fn heads() -> [Head; 7] {
    [
        Head::text("file"),
        Head::text("test"),
        Head::text("outcome"),
        Head::number("line"),
        Head::number("column"),
        Head::text("message"),
        Head::number("ms"),
    ]
}

impl Report {
    fn new(output: OutputArgs) -> Self {
        let way = if output.output.is_some() { Way::Items(Box::new(output.stdout().printer(&heads()))) } else { Way::Lines };
        Self { way, passed: 0, failed: 0 }
    }

    fn add(&mut self, outcome: Outcome<'_>) -> io::Result<()> {
        let count = if outcome.broken.is_none() { &mut self.passed } else { &mut self.failed };
        *count += 1;
        match &mut self.way {
            Way::Lines => {
                let mut out = io::stdout();
                out.write_all(lines_of(&outcome).as_bytes())?;
                out.flush()
            }
            Way::Items(printer) => {
                printer.print(&Record { heads: &heads(), cells: cells_of(&outcome) })?;
                printer.flush()
            }
        }
    }

    fn end(self, files: usize) -> Result<(), Stop> {
        let Self { way, passed, failed } = self;
        if let Way::Items(printer) = way {
            printer.finish()?;
        } else {
            let in_files = if files == 1 { "1 file".to_owned() } else { format!("{files} files") };
            writeln!(io::stdout(), "{passed} passed, {failed} failed in {in_files}")?;
        }
        match (passed, failed) {
            (0, 0) => Err(Failed::Usage(anyhow!("no test has such a name")).into()),
            (_, 0) => Ok(()),
            (..) => Err(Failed::Operation(anyhow!("tests failed: {failed} of {}", passed + failed)).into()),
        }
    }
}

/// `ok` or `FAIL` with the place; what was different below, indented.
fn lines_of(outcome: &Outcome<'_>) -> String {
    let Outcome { file, name, broken, marked, took, .. } = outcome;
    let name = visible(name);
    match broken {
        None => format!("ok    {file}: {name} ({} ms)\n", took.as_millis()),
        Some(Broken { place, message }) => {
            let mut lines = format!("FAIL  {file}:{}:{}: {name}\n", place.line, place.column);
            for line in message.lines().chain(marked.iter().flat_map(|marked| marked.lines())) {
                lines.push_str(&format!("      {}\n", visible(line)));
            }
            lines
        }
    }
}

fn cells_of(outcome: &Outcome<'_>) -> Vec<Cell> {
    let place = outcome.broken.as_ref().map_or(outcome.place, |broken| broken.place);
    let message = outcome.broken.as_ref().map_or(Cell::Null, |broken| broken.message.as_str().into());
    let ms = u64::try_from(outcome.took.as_millis()).unwrap_or(u64::MAX);
    let said = if outcome.broken.is_none() { "passed" } else { "failed" };
    vec![
        outcome.file.into(),
        outcome.name.into(),
        said.into(),
        u64::from(place.line).into(),
        u64::from(place.column).into(),
        message,
        ms.into(),
    ]
}
