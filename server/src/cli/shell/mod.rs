//! `foldlog sql` on a terminal: a shell that keeps a session, until Ctrl-D or `\q`.
//!
//! One input after the other: a command of the shell, or statements, which end at the first error or at Ctrl-C. A server that goes away
//! ends a statement, not the shell: session and display stay, the next statement connects again.

use std::{
    future::Future,
    io::{self, Write as _},
    pin::Pin,
    time::Duration,
};

use foldlog_log::clock::{Clock as _, SystemClock};
use foldlog_query::Piece;
use foldlog_sdk::{Class, Client, Error, SqlSession, Token};

use super::{
    Failed,
    client::{
        Stop,
        sql::{
            Trouble,
            rows::{PrintedChange, heads_of_changes},
            script::{Script, is_push},
        },
    },
    output::{Format, Item as _, OutputArgs, Target, may_colour, note, text::visible},
};

mod answer;
mod ask;
mod command;
mod complete;
mod help;
mod highlight;
mod history;
mod input;
mod names;
mod pager;
mod prompt;
mod show;

use answer::Over;
use command::{Command, command};
use input::{Input, Typed};
use pager::Screen;
use show::{Display, Expanded, counted, is_for_people, took};

/// Lines and columns of a screen that does not say how large it is.
const USUAL: (usize, usize) = (24, 80);

/// What the command line said.
pub struct Given {
    /// Longest time for a statement that ends.
    pub timeout: Duration,
    /// What every answer must reflect.
    pub at_least: Option<Token>,
    /// How results are written.
    pub output: OutputArgs,
}

/// Runs the shell to its end.
///
/// # Errors
/// If the terminal is gone.
pub async fn run(client: Client, given: Given) -> Result<(), Stop> {
    ask::restore_at_a_signal();
    let display =
        Display { format: given.output.output.unwrap_or(Format::Table), expanded: Expanded::Auto, timing: false, colour: may_colour() };
    let (asking, mut answering) = names::channel();
    let (mut input, trouble) = Input::of_terminal(asking, display.colour);
    println(&format!("foldlog {} at {}. \\? for help, \\q to leave.", super::VERSION, visible(client.url())))?;
    if let Some(trouble) = trouble {
        note(&trouble);
    }
    let mut shell = Shell { client, session: SqlSession::new(), given, display, paged: true, clock: SystemClock::new() };
    loop {
        let prompt = prompt::Name { dialect: shell.session.setting("sql.dialect").map(visible) };
        let typed = tokio::select! {
            typed = input.next(prompt) => typed?,
            never = answering.serve(&shell.client, &shell.session) => match never {},
        };
        match typed {
            Typed::End => return Ok(()),
            Typed::Cancelled => {}
            Typed::Input(text) => {
                if shell.obey(text).await? == Flow::End {
                    return Ok(());
                }
                answering.expire();
            }
        }
    }
}

/// Whether the shell goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    On,
    End,
}

struct Shell {
    client: Client,
    session: SqlSession,
    given: Given,
    display: Display,
    paged: bool,
    clock: SystemClock,
}

impl Shell {
    /// Does what an input says; what is wrong with it is told and is no end.
    async fn obey(&mut self, text: String) -> Result<Flow, Stop> {
        match command(&text) {
            None => self.told(Script::typed(text)).await?,
            Some(Err(wrong)) => note(&format!("error: {wrong}")),
            Some(Ok(Command::Quit)) => return Ok(Flow::End),
            Some(Ok(command)) => self.command(command).await?,
        }
        Ok(Flow::On)
    }

    async fn command(&mut self, command: Command) -> Result<(), Stop> {
        match command {
            // Ended above.
            Command::Quit => {}
            Command::Help => print(&help::commands())?,
            Command::HelpOn(words) => match help::statements(&words) {
                Ok(told) => print(&told)?,
                Err(wrong) => note(&format!("error: {wrong}")),
            },
            Command::Run(statements) => self.told(Script::typed(statements.join(";\n"))).await?,
            Command::File(path) => match Script::of_file(&path) {
                Ok(script) => self.told(script).await?,
                Err(failed) => tell(&failed),
            },
            Command::Timing(on) => {
                self.display.timing = on.unwrap_or(!self.display.timing);
                println(&format!("timing is {}", on_or_off(self.display.timing)))?;
            }
            Command::Pager(on) => {
                self.paged = on.unwrap_or(!self.paged);
                println(&format!("the pager is {}", on_or_off(self.paged)))?;
            }
            Command::Expanded(to) => {
                let other = if self.display.expanded == Expanded::On { Expanded::Auto } else { Expanded::On };
                self.display.expanded = to.unwrap_or(other);
                println(&format!("expanded display is {}", self.display.expanded.as_str()))?;
            }
            Command::Output(format) => {
                self.display.format = format.unwrap_or(self.display.format);
                println(&format!("results are written as {}", self.display.format.as_str()))?;
            }
        }
        Ok(())
    }

    /// Executes statements up to the first that fails, and tells why it did.
    async fn told(&mut self, script: Script) -> Result<(), Stop> {
        let pieces = match script.pieces() {
            Ok(pieces) => pieces,
            Err(failed) => {
                tell(&failed);
                return Ok(());
            }
        };
        let mut interrupt = Interrupt::new();
        let count = pieces.len();
        for (number, piece) in pieces.iter().enumerate() {
            let started = self.clock.monotonic();
            let outcome = match is_push(piece) {
                true => self.push(piece, &mut interrupt).await,
                false => self.execute(piece, &mut interrupt).await,
            };
            let ended = match outcome {
                Ok(ended) => ended,
                Err(Trouble::Stop(stop)) => return Err(stop),
                Err(Trouble::Statement(error)) => {
                    let (hint, unknown) = (self.hint(&error), error.class() == Class::Unknown && !reads(piece));
                    tell(&script.failed_at(piece, error));
                    if unknown {
                        note("nobody knows whether the statement took effect");
                    }
                    if let Some(hint) = hint {
                        note(&hint);
                    }
                    Ended::Failed
                }
            };
            if self.display.timing {
                println(&format!("took {}", took(self.clock.monotonic().saturating_sub(started))))?;
            }
            if ended == Ended::Whole {
                continue;
            }
            if number + 1 < count {
                note(&format!("{} behind it not executed", counted((count - number - 1) as u64, "statement")));
            }
            break;
        }
        Ok(())
    }

    /// What to do about a server that is not there.
    fn hint(&self, error: &Error) -> Option<String> {
        let is_lost = matches!(error, Error::Server(_)) && error.reason().is_none() && error.is_transient();
        let is_gone = is_lost || matches!(error, Error::Unreachable { .. });
        is_gone.then(|| "the session is kept; the next statement connects again".to_owned())
    }

    fn screen(&self) -> Screen {
        let (lines, columns) = screen_size().unwrap_or(USUAL);
        let pager = std::env::var("PAGER").ok().filter(|pager| !pager.trim().is_empty());
        Screen { lines, columns, pager, paged: self.paged }
    }

    async fn execute(&mut self, piece: &Piece, interrupt: &mut Interrupt) -> Result<Ended, Trouble> {
        let mut query = self.client.query(piece.text.as_str()).session(&self.session).timeout(self.given.timeout);
        if let Some(token) = &self.given.at_least {
            query = query.at_least(token.clone());
        }
        let Some(answer) = interrupt.or(query.run()).await? else {
            let effect = if reads(piece) { "" } else { "; it may still take effect" };
            note(&format!("interrupted{effect}"));
            return Ok(Ended::Interrupted);
        };
        let mut answer = answer?;
        if !answer.columns().is_empty() {
            match answer::show(&mut answer, interrupt, &self.display, self.screen(), Box::new(ask::more)).await? {
                Over::End => {}
                Over::Enough => return Ok(Ended::Whole),
                Over::Interrupted => {
                    note("interrupted");
                    return Ok(Ended::Interrupted);
                }
                Over::Failed(error) => return Err(error.into()),
            }
        }
        while answer.next().await?.is_some() {}
        if let Some(done) = answer.done() {
            self.session.apply(done);
            if !done.message.is_empty() {
                println(&visible(&done.message))?;
            }
        }
        Ok(Ended::Whole)
    }

    /// Shows changes as they come, until the query ends or Ctrl-C.
    async fn push(&self, piece: &Piece, interrupt: &mut Interrupt) -> Result<Ended, Trouble> {
        let mut push = self.client.push(piece.text.as_str()).session(&self.session);
        if let Some(token) = &self.given.at_least {
            push = push.at_least(token.clone());
        }
        let Some(pushed) = interrupt.or(push.start()).await? else { return Ok(Ended::Interrupted) };
        let mut pushed = pushed?;
        let heads = heads_of_changes(pushed.columns());
        let mut printer = None;
        let mut count = 0;
        let ended = loop {
            let changes = match interrupt.or(pushed.next()).await? {
                None => break Ok(Ended::Interrupted),
                Some(Ok(None)) => break Ok(Ended::Whole),
                Some(Ok(Some(changes))) => changes,
                Some(Err(error)) => break Err(error),
            };
            if changes.rows.is_empty() {
                continue;
            }
            let printer = printer.get_or_insert_with(|| {
                // What comes first says how wide it is; nothing that goes on for ever is paged.
                let cells: Vec<_> = changes.rows.iter().map(|(mark, row)| PrintedChange(*mark, row).cells()).collect();
                let screen = Screen { paged: false, ..self.screen() };
                let (format, width) = self.display.layout(&heads, &cells, &screen);
                Target::terminal(io::stdout(), format, self.display.colour, width).printer(&heads)
            });
            for (mark, row) in &changes.rows {
                count += 1;
                printer.print(&PrintedChange(*mark, row))?;
            }
            printer.flush()?;
        };
        if let Some(printer) = printer {
            printer.finish()?;
        }
        if is_for_people(self.display.format) {
            println(&format!("({})", counted(count, "change")))?;
        }
        Ok(ended?)
    }
}

/// How a statement ended that did not fail, or that did and was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Whole,
    Interrupted,
    Failed,
}

/// Ctrl-C, from the moment it is made: one that comes while rows are printed is not lost.
struct Interrupt(Pin<Box<dyn Future<Output = io::Result<()>>>>);

impl Interrupt {
    fn new() -> Self {
        Self(Box::pin(tokio::signal::ctrl_c()))
    }

    /// What the work gives; none if the user does not want it any more, which drops it. Not to be asked again after that.
    async fn or<T>(&mut self, work: impl Future<Output = T>) -> Result<Option<T>, Stop> {
        tokio::select! {
            biased;
            interrupted = &mut self.0 => {
                interrupted?;
                Ok(None)
            }
            done = work => Ok(Some(done)),
        }
    }
}

/// Whether a statement changes nothing.
fn reads(piece: &Piece) -> bool {
    let word = piece.text.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    matches!(word.as_str(), "SELECT" | "WITH" | "VALUES" | "SHOW" | "LIST" | "DESCRIBE" | "EXPLAIN" | "PRINT" | "ASSERT")
}

/// Lines and columns of the terminal, as it says.
fn screen_size() -> Option<(usize, usize)> {
    let said = ask::stty(&["size"])?;
    let (lines, columns) = said.trim().split_once(' ')?;
    // A terminal that does not know says zero.
    let known = |text: &str| text.parse().ok().filter(|count| *count > 1);
    Some((known(lines)?, known(columns)?))
}

const fn on_or_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

fn tell(failed: &Failed) {
    // That nobody reads it is no reason to end.
    let _ = writeln!(io::stderr(), "error: {:#}", failed.error());
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn println(text: &str) -> io::Result<()> {
    print(&format!("{text}\n"))
}
