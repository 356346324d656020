//! The question between two pages: by one key where the terminal gives single keys, else by a line.
//!
//! Asks while nothing else reads the terminal. What was set of it is as before when the answer is there.

use std::{
    io::{self, Read as _, Write as _},
    process::{Command, Stdio},
};

use super::{input::is_dumb, pager::Wish};

/// Longest that a key sends: what is left of it must not answer the next question.
const LONGEST_KEY: usize = 16;

/// Asks whether another page is wanted.
///
/// # Errors
/// If the terminal is gone.
pub fn more() -> io::Result<Wish> {
    let keys = if is_dumb() { None } else { SingleKeys::begin() };
    keys.map_or_else(by_line, |keys| by_key(&keys))
}

fn by_key(keys: &SingleKeys) -> io::Result<Wish> {
    let mut out = io::stdout();
    write!(out, "-- more: any key; no more: q -- ")?;
    out.flush()?;
    let mut key = [0; LONGEST_KEY];
    let count = keys.terminal().read(&mut key)?;
    write!(out, "\r\x1b[2K")?;
    out.flush()?;
    Ok(meant(key.get(..count).unwrap_or_default()))
}

fn by_line() -> io::Result<Wish> {
    let mut out = io::stdout();
    write!(out, "-- more: Enter; no more: q, Enter -- ")?;
    out.flush()?;
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer)?;
    Ok(if read > 0 && !answer.trim().eq_ignore_ascii_case("q") { Wish::More } else { Wish::Enough })
}

/// What a key means, by what it sends; nothing comes from a terminal that is gone.
fn meant(key: &[u8]) -> Wish {
    match key {
        // Ctrl-C.
        [3, ..] => Wish::Interrupt,
        // Ctrl-D, and Escape by itself: other keys send more behind it.
        [] | [b'q' | b'Q' | 4, ..] | [0x1b] => Wish::Enough,
        _ => Wish::More,
    }
}

/// A terminal that gives each key at once, and Ctrl-C as a key, until this is dropped.
struct SingleKeys {
    terminal: std::fs::File,
    /// What `stty` sets it back to.
    before: String,
}

impl SingleKeys {
    /// None where that cannot be had.
    fn begin() -> Option<Self> {
        #[expect(clippy::disallowed_methods, reason = "the user's terminal: stdin would take more than one key")]
        let terminal = std::fs::File::open("/dev/tty").ok()?;
        let before = stty(&["-g"])?.trim().to_owned();
        let keys = Self { terminal, before };
        stty(&["-icanon", "-echo", "-isig", "min", "1", "time", "0"])?;
        Some(keys)
    }

    const fn terminal(&self) -> &std::fs::File {
        &self.terminal
    }
}

impl Drop for SingleKeys {
    fn drop(&mut self) {
        // The editor sets what it needs by itself.
        let _ = stty(&[&self.before]);
    }
}

/// Has a signal that asks the shell to end leave the terminal as it is now: nothing that sets it back is run then. Heard on a thread of
/// its own, for the question waits on that of the shell.
#[cfg(unix)]
pub fn restore_at_a_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Some(before) = stty(&["-g"]) else { return };
    let end = async move {
        let (mut terminate, mut hangup) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
        let number = tokio::select! {
            _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
            _ = hangup.recv() => SignalKind::hangup().as_raw_value(),
        };
        // Where the terminal is gone there is nothing to set.
        let _ = stty(&[before.trim()]);
        // As shells tell of a program that a signal ended.
        std::process::exit(128 + number)
    };
    let listen = || -> io::Result<()> { tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(end) };
    // Without it a signal ends the shell all the same.
    let _ = std::thread::Builder::new().name("signals".to_owned()).spawn(listen);
}

/// There are no such signals.
#[cfg(not(unix))]
pub fn restore_at_a_signal() {}

/// What `stty` says; none if there is none, or it does not do that.
pub fn stty(arguments: &[&str]) -> Option<String> {
    let said = Command::new("stty").args(arguments).stdin(Stdio::inherit()).stderr(Stdio::null()).output().ok()?;
    if said.status.success() { String::from_utf8(said.stdout).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_wish() {
        for key in [&b" "[..], b"\r", b"\n", b"\x1b[6~", b"x"] {
            assert_eq!(meant(key), Wish::More, "{key:?}");
        }
        for key in [&b"q"[..], b"Q", b"\x1b", b"\x04", b""] {
            assert_eq!(meant(key), Wish::Enough, "{key:?}");
        }
        assert_eq!(meant(b"\x03"), Wish::Interrupt);
    }
}
