//! The output of one statement: at once if it fits the screen, else through `$PAGER`, else page by page with a question between.
//!
//! What was asked for is enough as soon as nobody wants more: writing then fails as into a closed pipe, and whoever writes stops.

use std::{
    io::{self, Write},
    process::{Child, Command, Stdio},
};

use crate::cli::output::text;

/// How large the screen is, and what may be done with it.
#[derive(Clone, Debug)]
pub struct Screen {
    /// Lines.
    pub lines: usize,
    /// Columns.
    pub columns: usize,
    /// The program that shows long texts, as a command of the system's shell.
    pub pager: Option<String>,
    /// Whether long texts are paged at all.
    pub paged: bool,
}

/// What the user wants after a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Another one.
    More,
    /// No other one.
    Enough,
    /// Nothing of all that was asked for.
    Interrupt,
}

/// Asks for it.
pub type More = Box<dyn FnMut() -> io::Result<Wish>>;

/// A text on its way to the screen.
pub struct Pages<W: Write> {
    out: W,
    screen: Screen,
    more: More,
    /// What was written of a line that has no end yet.
    line: Vec<u8>,
    way: Way,
}

enum Way {
    /// It may still fit.
    Kept { text: Vec<u8>, lines: usize },
    /// It goes to the pager.
    Outside(Child),
    /// It goes to the screen, which has room for so many lines more before the question.
    Asked { room: usize },
    /// It goes to the screen, without any question.
    Straight,
    /// It goes nowhere: nobody wants more.
    Enough,
    /// Nor anything else.
    Interrupted,
}

impl<W: Write> Pages<W> {
    /// Nothing yet.
    pub fn new(out: W, screen: Screen, more: More) -> Self {
        let way = if screen.paged { Way::Kept { text: Vec::new(), lines: 0 } } else { Way::Straight };
        Self { out, screen, more, line: Vec::new(), way }
    }

    fn end_line(&mut self) -> io::Result<()> {
        let line = std::mem::take(&mut self.line);
        let lines = lines_of(&line, self.screen.columns);
        match &mut self.way {
            Way::Kept { text, lines: kept } => {
                text.extend_from_slice(&line);
                *kept += lines;
                // The prompt and the line before it need room, too.
                if *kept + 2 > self.screen.lines { self.overflow() } else { Ok(()) }
            }
            Way::Outside(pager) => match &mut pager.stdin {
                Some(stdin) => stdin.write_all(&line),
                None => Err(io::ErrorKind::BrokenPipe.into()),
            },
            Way::Asked { room } => {
                if *room < lines {
                    self.out.flush()?;
                    let over = match (self.more)()? {
                        Wish::More => None,
                        Wish::Enough => Some(Way::Enough),
                        Wish::Interrupt => Some(Way::Interrupted),
                    };
                    if let Some(over) = over {
                        self.way = over;
                        return Err(io::ErrorKind::BrokenPipe.into());
                    }
                    *room = self.screen.lines.saturating_sub(1).max(lines);
                }
                *room -= lines;
                self.out.write_all(&line)
            }
            Way::Straight => self.out.write_all(&line),
            Way::Enough | Way::Interrupted => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// It does not fit: hands what was kept to whoever shows it page by page.
    fn overflow(&mut self) -> io::Result<()> {
        let Way::Kept { text, .. } = &mut self.way else { return Ok(()) };
        let text = std::mem::take(text);
        match self.screen.pager.as_deref().map(start) {
            Some(Ok(mut pager)) => {
                let written = pager.stdin.as_mut().map_or(Ok(()), |stdin| stdin.write_all(&text));
                self.way = Way::Outside(pager);
                written
            }
            // Without a pager that starts we ask ourselves.
            Some(Err(_)) | None => {
                self.way = Way::Asked { room: self.screen.lines.saturating_sub(1) };
                for line in text.split_inclusive(|byte| *byte == b'\n') {
                    self.line = line.to_vec();
                    self.end_line()?;
                }
                Ok(())
            }
        }
    }

    /// Shows what was kept, or waits until the reader has left the pager. The last wish: more, if nobody was asked.
    ///
    /// # Errors
    /// If the screen is gone.
    pub fn end(mut self) -> io::Result<Wish> {
        if !self.line.is_empty() && !matches!(self.way, Way::Enough | Way::Interrupted) {
            self.end_line()?;
        }
        let wish = match self.way {
            Way::Kept { text, .. } => {
                self.out.write_all(&text)?;
                Wish::More
            }
            Way::Outside(mut pager) => {
                drop(pager.stdin.take());
                pager.wait()?;
                Wish::More
            }
            Way::Asked { .. } | Way::Straight => Wish::More,
            Way::Enough => Wish::Enough,
            Way::Interrupted => Wish::Interrupt,
        };
        self.out.flush()?;
        Ok(wish)
    }
}

impl<W: Write> Write for Pages<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                self.end_line()?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn start(pager: &str) -> io::Result<Child> {
    let mut command = if cfg!(windows) { Command::new("cmd") } else { Command::new("sh") };
    command.args([if cfg!(windows) { "/C" } else { "-c" }, pager]).stdin(Stdio::piped());
    // As others who start `less`: colours pass, wide lines are cut, a short text needs no key.
    if std::env::var_os("LESS").is_none() {
        command.env("LESS", "FRSX");
    }
    command.spawn()
}

/// Lines of the screen that a line takes; what colours it takes none.
fn lines_of(line: &[u8], columns: usize) -> usize {
    let line = String::from_utf8_lossy(line);
    let mut shown = String::with_capacity(line.len());
    let mut chars = line.trim_end_matches('\n').chars();
    while let Some(c) = chars.next() {
        if c == '\x1b' {
            chars.by_ref().find(char::is_ascii_alphabetic);
        } else {
            shown.push(c);
        }
    }
    text::width(&shown).div_ceil(columns.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, rc::Rc};

    use super::*;

    fn screen(pager: Option<&str>) -> Screen {
        Screen { lines: 5, columns: 10, pager: pager.map(str::to_owned), paged: true }
    }

    /// What is shown of lines, and how often it was asked; `pages` answers are yes.
    fn shown(lines: &[&str], pages: usize) -> (String, usize) {
        let asked = Rc::new(Cell::new(0));
        let counted = Rc::clone(&asked);
        let more = move || {
            counted.set(counted.get() + 1);
            Ok(if counted.get() <= pages { Wish::More } else { Wish::Enough })
        };
        let mut out = Vec::new();
        let mut text = Pages::new(&mut out, screen(None), Box::new(more));
        let written = lines.iter().try_for_each(|line| writeln!(text, "{line}"));
        if written.is_err() {
            assert!(writeln!(text, "what a buffer still has").is_err(), "it is not asked for again");
        }
        assert!(written.is_ok() || written.unwrap_err().kind() == io::ErrorKind::BrokenPipe);
        let wanted = if asked.get() <= pages { Wish::More } else { Wish::Enough };
        assert_eq!(text.end().unwrap(), wanted);
        (String::from_utf8(out).unwrap(), asked.get())
    }

    #[test]
    fn what_fits_is_shown_without_a_question() {
        assert_eq!(shown(&["1", "2", "3"], 0), ("1\n2\n3\n".to_owned(), 0));
        assert_eq!(shown(&["\x1b[1m1234567890\x1b[0m", "2", "3"], 0).1, 0);
        assert_eq!(shown(&[], 0), (String::new(), 0));
    }

    #[test]
    fn what_does_not_fit_is_asked_for_page_by_page() {
        assert_eq!(shown(&["1", "2", "3", "4", "5"], 0), ("1\n2\n3\n4\n".to_owned(), 1));
        assert_eq!(shown(&["1", "2", "3", "4", "5"], 1), ("1\n2\n3\n4\n5\n".to_owned(), 1));
        assert_eq!(shown(&["123456789012345", "3", "4", "5"], 0).0, "123456789012345\n3\n4\n", "a long line takes two");
    }

    #[test]
    fn an_interrupt_between_pages_ends_everything() {
        let mut text = Pages::new(Vec::new(), screen(None), Box::new(|| Ok(Wish::Interrupt)));
        let written = (0..9).try_for_each(|line| writeln!(text, "{line}"));
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(text.end().unwrap(), Wish::Interrupt);
    }

    #[test]
    #[cfg(unix)]
    fn a_pager_gets_what_does_not_fit_and_may_leave() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("read");
        let pager = format!("head -n 2 > {}", path.display());
        let mut text = Pages::new(Vec::new(), screen(Some(&pager)), Box::new(|| panic!("nobody asks")));
        // As much as no pipe holds: at some time the pager has left.
        let written = (0..100_000).try_for_each(|line| writeln!(text, "{line}"));
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        text.end().unwrap();
        let mut read = String::new();
        #[expect(clippy::disallowed_methods, reason = "what the pager wrote")]
        io::Read::read_to_string(&mut std::fs::File::open(path).unwrap(), &mut read).unwrap();
        assert_eq!(read, "0\n1\n");
    }
}
