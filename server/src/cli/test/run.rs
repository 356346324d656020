//! One test, in a world of its own: a log in a temporary folder, an engine over it, a clock that stands at 1970.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow};
use foldlog_log::{
    EmbeddedLog, LogConfig, Position, Timestamp,
    clock::{Clock, ManualClock},
    disk::RealDisk,
};
use foldlog_query::{
    DialectKind, Engine, Piece, Place, QueryConfig, QueryError, Request, Session,
    engine::check::{Checked, Checks},
};
use futures::StreamExt as _;
use tempfile::TempDir;

use super::file::{Case, ExpectedFailure};
use crate::{
    cli::Failed,
    failure::{Detail, Failure},
};

/// Files of a log that lives for one test: small, so that it is there at once.
const JOURNAL_BYTES: u64 = 16 << 20;
const FIRST_JOURNAL_BYTES: u64 = 1 << 20;

/// What is told instead of an error's reason where an assertion did not hold.
const ASSERTION: &str = "ASSERTION_FAILED";

/// Why a test failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Where, in the file.
    pub place: Place,
    /// What was different, in lines.
    pub message: String,
}

/// What every test of a run has.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The rules by which statements are read, unless a file says otherwise.
    pub dialect: DialectKind,
    /// Longest time for a statement.
    pub timeout: Duration,
}

/// Runs a test behind its file's setup.
///
/// # Errors
/// If its world cannot be made.
pub async fn run(setup: &[Piece], case: &Case, rules: Rules) -> Result<Option<Broken>, Failed> {
    let world = World::new(rules).map_err(Failed::Operation)?;
    let broken = world.tell(setup, case).await;
    Ok(broken)
}

struct World {
    engine: Engine,
    log: Arc<EmbeddedLog>,
    rules: Rules,
    /// Removed at the end.
    _folder: TempDir,
}

/// An error, as far as a test can expect it.
struct Error {
    reason: &'static str,
    place: Place,
    message: String,
}

/// How far a test has come.
struct Told {
    session: Session,
    checks: Checks,
    /// End of what it has written.
    seen: Option<Position>,
}

impl World {
    fn new(rules: Rules) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("failed to make a folder for a test")?;
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(Timestamp::new(0)));
        let config = LogConfig { journal_file_bytes: JOURNAL_BYTES, first_journal_file_bytes: FIRST_JOURNAL_BYTES, ..LogConfig::default() };
        let config = config.without_reserve();
        let log =
            EmbeddedLog::open(Arc::new(RealDisk), Arc::clone(&clock), folder.path(), config).context("failed to open a log for a test")?;
        let log = Arc::new(log);
        let engine = Engine::open(Arc::clone(&log) as _, clock, QueryConfig { workers: 2, ..QueryConfig::default() })
            .map_err(|error| anyhow!(error).context("failed to open an engine for a test"))?;
        Ok(Self { engine, log, rules, _folder: folder })
    }

    async fn tell(self, setup: &[Piece], case: &Case) -> Option<Broken> {
        let mut told = Told { session: Session::of(self.rules.dialect), checks: Checks::default(), seen: None };
        let mut broken = None;
        for (number, piece) in setup.iter().chain(&case.pieces).enumerate() {
            let Err(error) = self.step(piece, &mut told).await else { continue };
            let behind = (setup.len() + case.pieces.len()).saturating_sub(number + 1);
            broken = Some(judged(error, case.failure.as_ref().filter(|_| number >= setup.len()), behind));
            break;
        }
        self.engine.stop().await;
        self.log.stop();
        match (broken, &case.failure, case.pieces.last()) {
            (Some(broken), ..) => broken,
            (None, Some(failure), Some(last)) => {
                Some(Broken { place: last.place, message: format!("succeeded; expected was that it fails{}", described(failure)) })
            }
            (None, ..) => None,
        }
    }

    async fn step(&self, piece: &Piece, told: &mut Told) -> Result<(), Error> {
        let request = Request {
            sql: piece.text.clone(),
            parameters: Vec::new(),
            at_least: told.seen,
            resume: None,
            timeout: self.rules.timeout,
            session: told.session.clone(),
        };
        let failed = |error: QueryError| Error::of(error, piece.place);
        match self.engine.check(request, &mut told.checks).await.map_err(failed)? {
            Checked::Held => Ok(()),
            Checked::Differs(message) => Err(Error { reason: ASSERTION, place: piece.place, message }),
            Checked::Executed(answer) => {
                told.seen = Some(answer.position).max(told.seen);
                let mut batches = answer.batches;
                while let Some(batch) = batches.next().await {
                    batch.map_err(failed)?;
                }
                if let Some(change) = answer.session {
                    told.session.apply(change).map_err(failed)?;
                }
                Ok(())
            }
        }
    }
}

impl Error {
    fn of(error: QueryError, statement: Place) -> Self {
        let failure = Failure::from(error);
        let within = match &failure.detail {
            Detail::Field(field) => field.strip_prefix("sql:").and_then(|place| place.split_once(':')),
            _ => None,
        };
        let within = within.and_then(|(line, column)| Some(Place { line: line.parse().ok()?, column: column.parse().ok()? }));
        let message = match within {
            Some(Place { line, column }) => {
                failure.message.strip_prefix(&format!("line {line}, column {column}: ")).unwrap_or(&failure.message)
            }
            None => &failure.message,
        };
        let place = within.map_or(statement, |within| Place {
            line: statement.line.saturating_add(within.line.saturating_sub(1)),
            column: if within.line == 1 { statement.column.saturating_add(within.column.saturating_sub(1)) } else { within.column },
        });
        Self { reason: failure.reason, place, message: message.to_owned() }
    }
}

/// What an error means to a test that expects this one; none if it is the one.
fn judged(error: Error, expected: Option<&ExpectedFailure>, behind: usize) -> Option<Broken> {
    let Error { reason, place, message } = error;
    let Some(expected) = expected else { return Some(Broken { place, message }) };
    let is_reason = match &expected.error {
        None => true,
        // A class of ksqlDB tells an assertion from everything else, and no more.
        Some(class) if class.contains('.') => class.ends_with("AssertionError") == (reason == ASSERTION),
        Some(wanted) => wanted.eq_ignore_ascii_case(reason),
    };
    let is_message = expected.message.as_ref().is_none_or(|wanted| message.contains(wanted.as_str()));
    if !is_reason || !is_message {
        let message = format!("failed in another way than expected{}\nreason:  {reason}\nmessage: {message}", described(expected));
        return Some(Broken { place, message });
    }
    (behind > 0)
        .then(|| Broken { place, message: format!("failed as expected, with statements behind it that were not executed: {behind}") })
}

fn described(expected: &ExpectedFailure) -> String {
    let error = expected.error.as_ref().map(|error| format!(" as {error}"));
    let message = expected.message.as_ref().map(|message| format!(" with a message that contains: {message}"));
    error.unwrap_or_default() + &message.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(error: Option<&str>, message: Option<&str>, reason: &'static str, behind: usize) -> Option<String> {
        let expected = ExpectedFailure { error: error.map(str::to_owned), message: message.map(str::to_owned) };
        let place = Place { line: 1, column: 1 };
        let error = Error { reason, place, message: "no such thing".to_owned() };
        judged(error, Some(&expected), behind).map(|broken| broken.message)
    }

    #[test]
    fn an_error_is_expected_by_its_reason_and_a_part_of_its_message() {
        assert_eq!(outcome(Some("sql_invalid"), Some("such"), "SQL_INVALID", 0), None);
        assert_eq!(outcome(None, Some("no"), "SQL_SYNTAX", 0), None);
        assert_eq!(outcome(Some("io.confluent.ksql.util.KsqlException"), None, "SQL_SYNTAX", 0), None);
        assert!(outcome(Some("io.confluent.ksql.util.KsqlException"), None, ASSERTION, 0).is_some());
        assert_eq!(outcome(Some("java.lang.AssertionError"), None, ASSERTION, 0), None);
        let other = outcome(Some("SQL_SYNTAX"), None, "SQL_INVALID", 0).unwrap();
        assert_eq!(other, "failed in another way than expected as SQL_SYNTAX\nreason:  SQL_INVALID\nmessage: no such thing");
        assert!(outcome(None, Some("other"), "SQL_INVALID", 0).is_some());
        assert!(outcome(None, None, "SQL_INVALID", 2).unwrap().ends_with("not executed: 2"));
    }
}
