//! Where inputs come from: the line editor, or plain lines on a terminal that cannot do what an editor needs.
//!
//! Lines are read on another thread: the shell's own answers questions about names meanwhile.

use std::{
    io::{self, BufRead as _, Write as _},
    path::PathBuf,
};

use foldlog_query::sql::lexemes::is_ended;
use nu_ansi_term::{Color, Style};
use reedline::{
    ColumnarMenu, DefaultHinter, Emacs, KeyCode, KeyModifiers, MenuBuilder as _, Reedline, ReedlineEvent, ReedlineMenu, Signal,
    default_emacs_keybindings,
};
use tokio::task::JoinHandle;

use super::{
    complete::Words,
    highlight::Colours,
    history,
    names::Asking,
    prompt::{MORE, Name, Whole, is_whole},
};

/// The menu of completions, as the editor knows it.
const MENU: &str = "words";

/// What the user did.
pub enum Typed {
    /// Entered this.
    Input(String),
    /// Gave up what stood on the line.
    Cancelled,
    /// Has enough.
    End,
}

/// Where inputs come from.
pub enum Input {
    /// The editor; none while it reads on its thread.
    Editor(Option<Box<Reedline>>),
    /// Lines as the terminal gives them.
    Plain {
        /// What was entered of an input that is not whole.
        begun: String,
        /// A line that is being waited for.
        reading: Option<JoinHandle<io::Result<Option<String>>>>,
    },
}

impl Input {
    /// What the terminal can do. The second is why the history is not kept, if it is not.
    pub fn of_terminal(asking: Asking, colour: bool) -> (Self, Option<String>) {
        if is_dumb() {
            return (Self::Plain { begun: String::new(), reading: None }, None);
        }
        let (editor, trouble) = editor(asking, colour);
        (Self::Editor(Some(Box::new(editor))), trouble)
    }

    /// The next input. Cancel-safe for plain lines; an editor that is given up stays on its thread.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub async fn next(&mut self, prompt: Name) -> io::Result<Typed> {
        match self {
            Self::Editor(editor) => {
                let Some(mut taken) = editor.take() else { return Ok(Typed::End) };
                let reading = tokio::task::spawn_blocking(move || {
                    let signal = taken.read_line(&prompt);
                    // Also what a kill would lose; that it cannot be kept was said at the start.
                    let _ = taken.sync_history();
                    (taken, signal)
                });
                let (taken, signal) = reading.await.map_err(io::Error::other)?;
                *editor = Some(taken);
                Ok(match signal.map_err(io::Error::other)? {
                    Signal::Success(input) => Typed::Input(input),
                    Signal::CtrlD => Typed::End,
                    Signal::CtrlC => Typed::Cancelled,
                    // Nothing here asks for these; the next line is as good.
                    _ => Typed::Cancelled,
                })
            }
            Self::Plain { begun, reading } => plain(begun, reading, &prompt).await,
        }
    }
}

/// Whether the terminal shows lines and nothing else.
pub fn is_dumb() -> bool {
    !cfg!(windows) && std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb")
}

async fn plain(begun: &mut String, reading: &mut Option<JoinHandle<io::Result<Option<String>>>>, prompt: &Name) -> io::Result<Typed> {
    loop {
        let shown = if begun.is_empty() { prompt.first() } else { MORE.to_owned() };
        let mut out = io::stdout();
        write!(out, "{shown}")?;
        out.flush()?;
        let line = reading.get_or_insert_with(|| tokio::task::spawn_blocking(line));
        let line = tokio::select! {
            biased;
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                begun.clear();
                writeln!(out)?;
                return Ok(Typed::Cancelled);
            }
            line = line => line,
        };
        *reading = None;
        match line.map_err(io::Error::other)?? {
            None => return Ok(Typed::End),
            Some(line) => begun.push_str(&line),
        }
        if is_whole(begun) || is_ended(begun) {
            return Ok(Typed::Input(std::mem::take(begun)));
        }
    }
}

fn line() -> io::Result<Option<String>> {
    let mut line = String::new();
    Ok((io::stdin().lock().read_line(&mut line)? > 0).then_some(line))
}

fn editor(asking: Asking, colour: bool) -> (Reedline, Option<String>) {
    let mut keys = default_emacs_keybindings();
    let complete = ReedlineEvent::UntilFound(vec![ReedlineEvent::Menu(MENU.to_owned()), ReedlineEvent::MenuNext]);
    keys.add_binding(KeyModifiers::NONE, KeyCode::Tab, complete);
    keys.add_binding(KeyModifiers::SHIFT, KeyCode::BackTab, ReedlineEvent::MenuPrevious);
    let menu = ColumnarMenu::default().with_name(MENU);
    let faint = if colour { Style::new().fg(Color::DarkGray) } else { Style::new() };
    let editor = Reedline::create()
        .with_edit_mode(Box::new(Emacs::new(keys)))
        .with_completer(Box::new(Words { asking }))
        .with_menu(ReedlineMenu::EngineCompleter(Box::new(menu)))
        .with_quick_completions(true)
        .with_partial_completions(true)
        .with_highlighter(Box::new(Colours { on: colour }))
        .with_validator(Box::new(Whole))
        .with_ansi_colors(colour)
        .use_bracketed_paste(true)
        // As other shells: what begins with a space is not remembered.
        .with_history_exclusion_prefix(Some(" ".to_owned()));
    let editor = if colour { editor.with_hinter(Box::new(DefaultHinter::default().with_style(faint))) } else { editor };
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let (history, trouble) = history::open(history::path(folder("XDG_STATE_HOME"), folder("HOME")).as_deref());
    let editor = match history {
        Some(history) => editor.with_history(Box::new(history)),
        None => editor,
    };
    (editor, trouble)
}
