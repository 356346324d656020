//! Colours of what is typed, from the parser's own tokens.

use foldlog_query::sql::lexemes::{Lexeme, parts};
use nu_ansi_term::{Color, Style};
use reedline::{Highlighter, StyledText};

/// Longer texts stay as they are: each key would cost a reading of all of it.
const MAX_BYTES: usize = 64 << 10;

/// Colours SQL and commands.
pub struct Colours {
    /// Whether there are any.
    pub on: bool,
}

impl Highlighter for Colours {
    fn highlight(&self, line: &str, _cursor: usize) -> StyledText {
        let mut styled = StyledText::new();
        for (style, text) in coloured(line, self.on) {
            styled.push((style, text.to_owned()));
        }
        styled
    }
}

/// The parts of a line with their styles; put together they are the line.
fn coloured(line: &str, on: bool) -> Vec<(Style, &str)> {
    if !on || line.len() > MAX_BYTES {
        return vec![(Style::new(), line)];
    }
    if line.trim_start().starts_with('\\') {
        return vec![(Style::new().fg(Color::Cyan), line)];
    }
    parts(line).iter().map(|part| (style(part.lexeme), part.text)).collect()
}

fn style(lexeme: Lexeme) -> Style {
    let plain = Style::new();
    match lexeme {
        Lexeme::Keyword => plain.fg(Color::Blue).bold(),
        Lexeme::Text => plain.fg(Color::Green),
        Lexeme::Number => plain.fg(Color::Magenta),
        Lexeme::Comment => plain.dimmed(),
        Lexeme::QuotedName => plain.fg(Color::Yellow),
        Lexeme::Space | Lexeme::Name | Lexeme::Semicolon | Lexeme::Symbol => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_change_nothing_of_the_text() {
        for line in ["SELECT 'a", "\\d orders", "select \"ü\" /* x", "", "¡"] {
            for on in [true, false] {
                let whole: String = coloured(line, on).iter().map(|(_, text)| *text).collect();
                assert_eq!(whole, line);
            }
        }
        assert_eq!(coloured("SELECT 1", true)[0], (style(Lexeme::Keyword), "SELECT"));
        assert_eq!(coloured("SELECT 1", false), [(Style::new(), "SELECT 1")]);
    }
}
