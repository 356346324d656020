//! `demo flights`: a week of flights becomes events, events become views, SQL answers over both, and every figure is checked.
//!
//! Starts a server in this process and is its client, through the SDK and over gRPC like any other. What is told goes to stdout;
//! the progress bar, on a terminal only, to stderr.

use std::{
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process,
    str::FromStr,
};

use anyhow::{Context as _, anyhow};
use clap::Args;
use foldlog_sdk::{Client, TopicKind};
use tempfile::TempDir;

use super::{
    super::{serve::LAST_WAIT, signals::Signals},
    Failed, check,
    data::{self, FlightEvent},
    replay, watch,
};
use crate::{
    Config, Server, ServerError,
    config::{LogFormat, LogLevel},
    telemetry,
};

const VIEWS: &str = include_str!("../../../demo/flights/views.sql");
/// Topic of the events; `views.sql` names it too.
pub(super) const TOPIC: &str = "flights";
/// Where the server listens with `--serve`, if nobody else does.
const PORT: u16 = 7070;

/// Replay a week of flights from New York: events, views over them, and every figure checked.
///
/// 6,101 flights of 5 to 11 February 2013, in the middle of them a snowstorm; public records of the US Bureau of Transportation
/// Statistics. The figures were computed by an independent script.
#[derive(Debug, Args)]
pub struct Flights {
    /// How many times as fast as it happened, or `max`; the default takes about 30 seconds for the week.
    #[arg(long, default_value = "21000", value_name = "max|N")]
    speed: Speed,
    /// How many days to replay, from the first.
    #[arg(long, default_value_t = 7, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=7))]
    days: u8,
    /// Keep the server up afterwards, and tell what to try.
    #[arg(long)]
    serve: bool,
    /// Folder to keep the data in; without it a temporary one is used and removed.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// How fast the flights are replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speed {
    /// As fast as the server takes them.
    Max,
    /// So many times as fast as it happened.
    Times(u32),
}

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "max" => Ok(Self::Max),
            Ok(times @ 1..) => Ok(Self::Times(times)),
            _ => Err("must be max or a whole number from 1".to_owned()),
        }
    }
}

impl Flights {
    /// Runs the demo.
    ///
    /// # Errors
    /// [`Failed::Operation`] also when a figure is not what it must be.
    pub(super) fn run(self) -> Result<(), Failed> {
        telemetry::begin(LogLevel::Warn, LogFormat::Text);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("foldlog-io").build();
        let runtime = runtime.context("failed to start the runtime").map_err(Failed::Operation)?;
        let told = runtime.block_on(Box::pin(self.tell()));
        // After an interruption a read may still be under way; nobody waits long for it.
        runtime.shutdown_timeout(LAST_WAIT);
        told
    }

    async fn tell(self) -> Result<(), Failed> {
        // Before there is a folder that somebody has to remove.
        let mut signals = Signals::new().context("failed to listen for signals").map_err(Failed::Operation)?;
        let events = data::events(self.days.into()).map_err(Failed::Operation)?;
        let folder = Folder::new(self.data.clone())?;
        let server = start(&folder, self.serve).await?;
        let url = format!("http://{}", server.address());
        let told = tokio::select! {
            biased;
            () = signals.stop() => Ok(Replayed::Interrupted),
            told = self.replay(&url, &events) => told.map(|()| Replayed::Whole),
        };
        if matches!(told, Ok(Replayed::Whole)) && self.serve {
            say(&next_commands(&url));
            tokio::select! {
                biased;
                () = signals.stop() => {}
                error = server.failed() => return Err(Failed::Storage(anyhow!(error))),
            }
        }
        tokio::select! {
            biased;
            () = signals.stop() => {
                drop(folder);
                process::exit(1);
            }
            stopped = server.stop() => stopped.map_err(|error| Failed::Storage(anyhow!(error)))?,
        };
        if let Replayed::Interrupted = told? {
            // Not checked, and so not said on stdout.
            let _gone = writeln!(io::stderr(), "interrupted; the figures were not checked");
        }
        if let Folder::Named(folder) = folder {
            say(&format!("The data is kept; see it again with: foldlog serve --data {}", folder.display()));
        }
        Ok(())
    }

    async fn replay(&self, url: &str, events: &[FlightEvent]) -> Result<(), Failed> {
        let client = Client::connect(url).await.context("cannot connect to the server that was just started").map_err(Failed::Operation)?;
        let flights = events.iter().filter(|event| event.version == 1).count();
        say(&format!("{flights} flights from New York, {} days of February 2013: {} events.", self.days, events.len()));
        say(&format!("A server is up at {url}. Streams and views are made by SQL."));
        prepare(&client).await?;
        let watched = watch::start(&client).await.map_err(Failed::Operation)?;
        let replayed = replay::run(&client, events, self.speed, &watched).await?;
        let shown = watched.stop_after(replayed.end).await.map_err(Failed::Operation)?;
        say(&replayed.told(&shown).map_err(Failed::Operation)?);
        let token = replayed.token.context("nothing was replayed").map_err(Failed::Operation)?;
        let checked = check::all(&client, self.days.into(), &token).await.map_err(Failed::Operation)?;
        say(&checked.report);
        say(&checked.verdict.map_err(Failed::Operation)?);
        Ok(())
    }
}

/// Tells something on stdout; a reader that has gone away is no reason to stop.
pub(super) fn say(text: &str) {
    let _gone = writeln!(io::stdout(), "{text}");
}

/// How far the replay came.
enum Replayed {
    Whole,
    Interrupted,
}

enum Folder {
    Named(PathBuf),
    Temporary(TempDir),
}

impl Folder {
    fn new(named: Option<PathBuf>) -> Result<Self, Failed> {
        if let Some(folder) = named {
            return Ok(Self::Named(folder));
        }
        let folder = tempfile::Builder::new().prefix("foldlog-demo-").tempdir().context("failed to make a temporary folder");
        Ok(Self::Temporary(folder.map_err(Failed::Storage)?))
    }

    fn path(&self) -> PathBuf {
        match self {
            Self::Named(folder) => folder.clone(),
            Self::Temporary(folder) => folder.path().to_owned(),
        }
    }
}

async fn start(folder: &Folder, on_the_usual_port: bool) -> Result<Server, Failed> {
    let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
    let any = Config::local(folder.path());
    let config = if on_the_usual_port { Config { listen: usual, ..any.clone() } } else { any.clone() };
    let started = match Server::start(config).await {
        Err(ServerError::Listen { .. }) if on_the_usual_port => Server::start(any).await,
        other => other,
    };
    let server = started.context("the server does not start").map_err(Failed::Operation)?;
    server.ready().await.map_err(|error| Failed::Storage(anyhow!(error).context("the server does not become ready")))?;
    Ok(server)
}

/// Makes the topic, the streams and views of `views.sql`, and the table of carriers.
async fn prepare(client: &Client) -> Result<(), Failed> {
    let topics = client.list_topics(false).await.context("cannot list the topics").map_err(Failed::Operation)?;
    if topics.iter().any(|topic| topic.name == TOPIC) {
        return Err(Failed::Usage(anyhow!("the folder holds flights already; name one that does not exist yet")));
    }
    client.create_topic(TOPIC, TopicKind::Events, None).await.context("cannot create the topic").map_err(Failed::Operation)?;
    for statement in statements(VIEWS) {
        execute(client, statement).await?;
    }
    let carriers = data::carriers().map_err(Failed::Operation)?;
    let rows = carriers.iter().map(|(code, name)| format!("({}, {})", quoted(code), quoted(name)));
    execute(client, &format!("INSERT INTO carriers (carrier, name) VALUES {}", rows.collect::<Vec<_>>().join(", "))).await
}

async fn execute(client: &Client, statement: &str) -> Result<(), Failed> {
    let first_line = statement.lines().find(|line| !line.starts_with("--") && !line.is_empty()).unwrap_or(statement);
    let done = client.query(statement).execute().await.with_context(|| format!("failed to execute {first_line} ..."));
    let done = done.map_err(Failed::Operation)?;
    say(&format!("  {}", done.message));
    Ok(())
}

/// The statements of `views.sql`: each ends with a semicolon at the end of a line, and nothing else does.
fn statements(script: &str) -> impl Iterator<Item = &str> {
    script.split_inclusive(";\n").map(|statement| statement.trim().trim_end_matches(';')).filter(|statement| !statement.is_empty())
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn next_commands(url: &str) -> String {
    let target = if url.ends_with(&format!(":{PORT}")) { String::new() } else { format!(" --url {url}") };
    let commands = [
        "sql \"SELECT * FROM airport_board ORDER BY cancelled DESC LIMIT 5\"",
        "sql \"SELECT origin, dest, average_delay FROM worst_routes WHERE landed > 20 ORDER BY average_delay DESC LIMIT 10\"",
        "sql \"SELECT type, COUNT(*) FROM flights GROUP BY type\"",
        "sql \"SELECT * FROM delays_by_carrier EMIT CHANGES\"",
        "stream flights 2013-02-08/B6-41/JFK",
        "topic list",
    ];
    let lines: Vec<String> = commands.iter().map(|command| format!("  foldlog {command}{target}")).collect();
    format!("\nThe server stays up at {url} until Ctrl-C. Try, in another terminal:\n{}", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_is_max_or_a_whole_number() {
        assert_eq!("max".parse(), Ok(Speed::Max));
        assert_eq!("100".parse(), Ok(Speed::Times(100)));
        for wrong in ["", "0", "-1", "fast", "1.5"] {
            assert!(wrong.parse::<Speed>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_script_has_six_statements() {
        let statements: Vec<&str> = statements(VIEWS).collect();
        assert_eq!(statements.len(), 6);
        assert!(statements.iter().all(|statement| statement.contains("CREATE ") && !statement.ends_with(';')));
    }

    #[test]
    fn text_is_quoted_for_sql() {
        assert_eq!(quoted("O'Hare"), "'O''Hare'");
    }

    #[test]
    fn the_flight_in_the_commands_to_try_is_one_of_the_week() {
        let events = data::events(7).unwrap();
        assert!(events.iter().any(|event| next_commands("").contains(&event.stream)));
    }
}
