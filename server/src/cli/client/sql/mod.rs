//! `foldlog sql`: one statement or a script, stopping at the first error with its place; on a terminal, the shell.

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
    time::Duration,
};

use anyhow::anyhow;
use foldlog_query::Piece;
use foldlog_sdk::{Client, Error, SqlSession, Token, Value};

use super::{Connection, Stop, parse_token, show_token};
use crate::cli::{
    Failed,
    output::{OutputArgs, note},
    shell,
};

mod param;
pub(in crate::cli) mod rows;
pub(in crate::cli) mod script;

use param::parse_param;
use rows::{PrintedChange, PrintedRow, heads, heads_of_changes};
use script::{Script, is_push};

/// Execute SQL: a statement, a script from a file or stdin, or on a terminal what is typed (\? there tells more). A script stops at
/// the first error and says where it is
#[derive(Debug, clap::Args)]
pub struct Sql {
    /// Statements, separated by semicolons; without it and -f they are read from stdin
    #[arg(conflicts_with = "file")]
    statement: Option<String>,
    /// Read the statements from this file
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Token of an earlier command: reflect at least what it did
    #[arg(long, value_name = "TOKEN", value_parser = parse_token)]
    at_least: Option<Token>,
    /// Value of the next parameter, $1, $2, ..., of a single statement
    #[arg(short, long, value_name = "VALUE", value_parser = parse_param, long_help = param::HELP)]
    param: Vec<Value>,
    /// Longest time for waiting and computing a statement that ends, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// Tell on stderr the token of each answer, for --at-least
    #[arg(long)]
    show_token: bool,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: OutputArgs,
}

impl Sql {
    pub async fn run(self) -> Result<(), Stop> {
        if self.statement.is_none() && self.file.is_none() && io::stdin().is_terminal() && io::stdout().is_terminal() {
            let client = self.connection.open().await?;
            let timeout = Duration::from_secs(self.timeout);
            return shell::run(client, shell::Given { timeout, at_least: self.at_least, output: self.output }).await;
        }
        let script = self.script()?;
        let pieces = script.pieces()?;
        if pieces.is_empty() {
            return Err(Failed::Usage(anyhow!("{}: there is no statement", script.name())).into());
        }
        if !self.param.is_empty() && pieces.len() > 1 {
            return Err(Failed::Usage(anyhow!("--param is for a single statement, there are {}", pieces.len())).into());
        }
        let client = self.connection.open().await?;
        let mut session = SqlSession::new();
        for (number, piece) in pieces.iter().enumerate() {
            let outcome = match is_push(piece) {
                true => self.push(&client, &session, piece).await,
                false => self.execute(&client, &mut session, piece).await,
            };
            match outcome {
                Ok(()) => {}
                Err(Trouble::Stop(stop)) => return Err(stop),
                Err(Trouble::Statement(error)) => {
                    if number > 0 {
                        note(&format!("statements that took effect before: {number}; those after were not executed"));
                    }
                    return Err(script.failed_at(piece, error).into());
                }
            }
        }
        Ok(())
    }

    fn script(&self) -> Result<Script, Failed> {
        match (&self.statement, &self.file) {
            (Some(statement), _) => Ok(Script::statement(statement.clone())),
            (None, Some(path)) => Script::of_file(path),
            // Nothing else is under way yet that could wait for it.
            (None, None) => Script::of_stdin(),
        }
    }

    async fn execute(&self, client: &Client, session: &mut SqlSession, piece: &Piece) -> Result<(), Trouble> {
        let mut query = client.query(piece.text.as_str()).session(session).timeout(Duration::from_secs(self.timeout));
        if let Some(token) = &self.at_least {
            query = query.at_least(token.clone());
        }
        query = self.param.iter().fold(query, |query, value| query.bind(value.clone()));
        let mut answer = query.run().await?;
        let columns = answer.columns().clone();
        if !columns.is_empty() {
            let mut printer = self.output.stdout().printer(&heads(&columns));
            loop {
                match answer.next().await {
                    Ok(Some(row)) => printer.print(&PrintedRow(&row))?,
                    Ok(None) => break,
                    Err(error) => {
                        printer.finish()?;
                        return Err(error.into());
                    }
                }
            }
            printer.finish()?;
        }
        while answer.next().await?.is_some() {}
        if let Some(done) = answer.done() {
            session.apply(done);
            if !done.message.is_empty() {
                note(&done.message);
            }
            if self.show_token {
                note(&format!("token {}", show_token(&done.token)));
            }
        }
        Ok(())
    }

    /// Until the query ends, or Ctrl-C.
    async fn push(&self, client: &Client, session: &SqlSession, piece: &Piece) -> Result<(), Trouble> {
        let mut push = client.push(piece.text.as_str()).session(session);
        if let Some(token) = &self.at_least {
            push = push.at_least(token.clone());
        }
        push = self.param.iter().fold(push, |push, value| push.bind(value.clone()));
        let mut pushed = push.start().await?;
        let mut printer = self.output.stdout().printer(&heads_of_changes(pushed.columns()));
        // One listener all the way: an interrupt that comes while rows are printed is not lost.
        let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
        loop {
            // Both arms are cancel-safe.
            let changes = tokio::select! {
                biased;
                interrupted = &mut interrupt => {
                    interrupted.map_err(|error| Stop::from(Failed::Operation(anyhow!(error))))?;
                    break;
                }
                changes = pushed.next() => changes,
            };
            match changes {
                Ok(Some(changes)) => {
                    for (mark, row) in &changes.rows {
                        printer.print(&PrintedChange(*mark, row))?;
                    }
                    printer.flush()?;
                }
                Ok(None) => break,
                Err(error) => {
                    printer.finish()?;
                    return Err(error.into());
                }
            }
        }
        Ok(printer.finish()?)
    }
}

/// Why a statement did not succeed.
pub(in crate::cli) enum Trouble {
    /// By its own fault.
    Statement(Error),
    /// Nothing more can be done.
    Stop(Stop),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Statement(error)
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Stop(error.into())
    }
}

impl From<Stop> for Trouble {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}
