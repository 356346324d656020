//! Verbs that are clients of a running server, through the SDK like any other program.
//!
//! Data goes to stdout, notes to stderr. Whoever closes our stdout has enough: that ends a verb quietly, as done.

use std::{future::Future, io};

use anyhow::anyhow;
use clap::Subcommand;
use foldlog_sdk::{Client, DEFAULT_URL, Error, Token, URL_VARIABLE};
use tonic::Code;

use super::{Failed, output::text::visible};

mod append;
mod backup;
mod clock;
mod event;
mod group;
mod lines;
mod read;
pub(in crate::cli) mod sql;
mod stream;
mod topic;
mod transfer;

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    #[command(subcommand)]
    Topic(topic::Topic),
    #[command(subcommand)]
    Group(group::Group),
    Append(append::Append),
    Read(read::Read),
    Tail(read::Tail),
    Stream(stream::Stream),
    Sql(sql::Sql),
    Clock(clock::Clock),
    Backup(backup::Backup),
}

impl Verb {
    /// Runs the verb to its end.
    ///
    /// # Errors
    /// Whatever failed, by exit code.
    pub fn run(self) -> Result<(), Failed> {
        let outcome = match self {
            Self::Topic(verb) => block_on(verb.run()),
            Self::Group(verb) => block_on(verb.run()),
            Self::Append(verb) => block_on(verb.run()),
            Self::Read(verb) => block_on(verb.run()),
            Self::Tail(verb) => block_on(verb.run()),
            Self::Stream(verb) => block_on(verb.run()),
            Self::Sql(verb) => block_on(verb.run()),
            Self::Clock(verb) => block_on(verb.run()),
            Self::Backup(verb) => block_on(verb.run()),
        };
        match outcome {
            Ok(()) | Err(Stop::OutputClosed) => Ok(()),
            Err(Stop::Failed(failed)) => Err(failed),
        }
    }
}

pub(super) fn block_on(verb: impl Future<Output = Result<(), Stop>>) -> Result<(), Stop> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failed::Operation(anyhow!(error).context("failed to start the runtime")))?;
    let outcome = runtime.block_on(verb);
    // Reads of a terminal cannot be interrupted; nobody waits for them.
    runtime.shutdown_background();
    outcome
}

/// Why a verb stops before its end.
#[derive(Debug)]
pub enum Stop {
    /// Nobody reads what it writes any more.
    OutputClosed,
    /// It failed.
    Failed(Failed),
}

impl From<Failed> for Stop {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}

/// From writing data.
impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::OutputClosed;
        }
        Self::Failed(Failed::Operation(anyhow!(error).context("failed to write the output")))
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(failed(error))
    }
}

/// Each error of the client by its exit code.
pub(super) fn failed(error: Error) -> Failed {
    let code = match &error {
        Error::Unreachable { .. } => Failed::Unreachable,
        Error::Conflict { .. } => Failed::Precondition,
        Error::Server(server) if server.reason == "ASSERTION_FAILED" => Failed::Precondition,
        Error::Invalid(_) => Failed::Usage,
        // As whatever ended it.
        Error::SessionEnded { source, .. } if matches!(**source, Error::Unreachable { .. }) => Failed::Unreachable,
        Error::Server(server) if server.code == Code::DataLoss || server.reason == "STORAGE_FAILED" => Failed::Storage,
        Error::Server(_) | Error::SessionEnded { .. } | Error::Timeout { .. } | Error::Codec(_) | Error::Protocol(_) => Failed::Operation,
    };
    let hint = match &error {
        Error::Unreachable { .. } => "; is it running? `foldlog dev` starts one, --url or FOLDLOG_URL says where it is",
        _ => "",
    };
    // Lines are for what we lay out ourselves.
    code(anyhow!("{}{hint}", visible(&causes(&error).replace('\n', " "))))
}

/// The error and its causes; a cause whose text stands there already is not told again.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let next_text = next.to_string();
        if !text.contains(&next_text) {
            text = format!("{text}: {next_text}");
        }
        cause = next.source();
    }
    text
}

/// Where the server is.
#[derive(Debug, clap::Args)]
pub struct Connection {
    /// Address of the server
    #[arg(long, env = URL_VARIABLE, default_value = DEFAULT_URL, value_name = "URL")]
    url: String,
}

impl Connection {
    async fn open(&self) -> Result<Client, Error> {
        Client::connect(if self.url.is_empty() { DEFAULT_URL } else { &self.url }).await
    }
}

/// A token as the command line shows it: hexadecimal.
fn show_token(token: &Token) -> String {
    token.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a token from the command line.
fn parse_token(text: &str) -> Result<Token, String> {
    let rule = || "a token is an even number of hexadecimal digits, as another command printed it".to_owned();
    if text.is_empty() || !text.len().is_multiple_of(2) || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(rule());
    }
    let byte = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(byte).collect();
    bytes.map(|bytes| Token::from_bytes(bytes.into())).ok_or_else(rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_command_line() {
        let token = Token::from_bytes(vec![0, 1, 0xab, 0xff].into());
        assert_eq!(parse_token(&show_token(&token)).unwrap(), token);
        for bad in ["", "a", "zz", "é1", "0x12"] {
            assert!(parse_token(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        assert!(matches!(Stop::from(io::Error::from(io::ErrorKind::BrokenPipe)), Stop::OutputClosed));
        assert!(matches!(Stop::from(io::Error::from(io::ErrorKind::StorageFull)), Stop::Failed(Failed::Operation(_))));
    }

    #[test]
    fn what_a_server_says_is_harmless_on_a_terminal() {
        let error = Error::Invalid("no \x1b[2J".into());
        let Failed::Usage(error) = failed(error) else { panic!("usage") };
        assert_eq!(error.to_string(), "no \\u{1b}[2J");
    }
}
