//! Commands of the shell itself: what begins with a backslash, and the three words that people type without one.
//!
//! Pure: from a line to what is meant, or why it means nothing.

use std::path::PathBuf;

use clap::ValueEnum as _;

use super::{help, show::Expanded};
use crate::cli::output::Format;

/// What a command asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `\q`: the shell ends.
    Quit,
    /// `\?`: the commands are told.
    Help,
    /// `\h [statement]`: the statements are told, or how one is written.
    HelpOn(String),
    /// `\d` and its kin: statements that are executed for it.
    Run(Vec<String>),
    /// `\timing [on | off]`; without a word it is the other one from now on.
    Timing(Option<bool>),
    /// `\x [on | off | auto]`.
    Expanded(Option<Expanded>),
    /// `\o [format]`; without one it is told.
    Output(Option<Format>),
    /// `\pager [on | off]`.
    Pager(Option<bool>),
    /// `\i FILE`: the statements of a file are executed.
    File(PathBuf),
}

/// The commands with what they take and do, in the order in which they are told.
pub const COMMANDS: [(&str, &str, &str); 14] = [
    ("\\d", "[NAME]", "list streams, tables and topics, or describe one"),
    ("\\d+", "[NAME]", "the same with everything that is known"),
    ("\\ds", "", "list streams"),
    ("\\dt", "", "list tables"),
    ("\\dq", "", "list queries"),
    ("\\df", "[NAME]", "list functions, or describe one"),
    ("\\i", "FILE", "execute the statements of a file"),
    ("\\o", "[FORMAT]", "write results as table, expanded, json, jsonl or csv"),
    ("\\x", "[on|off|auto]", "one column a line: always, never, or where a table is wider than the screen"),
    ("\\pager", "[on|off]", "show long results page by page ($PAGER, else our own)"),
    ("\\timing", "[on|off]", "tell how long each statement takes"),
    ("\\h", "[STATEMENT]", "how statements are written"),
    ("\\?", "", "this list"),
    ("\\q", "", "leave"),
];

/// The command on a line; none if it is SQL.
///
/// # Errors
/// What is wrong with it, and what would be right.
pub fn command(line: &str) -> Option<Result<Command, String>> {
    let line = line.trim();
    let bare = line.trim_end_matches(';').trim_end().to_ascii_lowercase();
    match bare.as_str() {
        "quit" | "exit" => return Some(Ok(Command::Quit)),
        "help" => return Some(Ok(Command::Help)),
        _ => {}
    }
    if !line.starts_with('\\') {
        return None;
    }
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    // A semicolon is what fingers are used to.
    let (word, rest) = (word.trim_end_matches(';'), rest.trim().trim_end_matches(';').trim_end());
    Some(understood(word, rest))
}

fn understood(word: &str, rest: &str) -> Result<Command, String> {
    let given = (!rest.is_empty()).then_some(rest);
    let run = |statement: &str| Command::Run(vec![statement.to_owned()]);
    let command = match (word, given) {
        ("\\q", None) => Command::Quit,
        ("\\?", None) => Command::Help,
        ("\\h", given) => Command::HelpOn(given.unwrap_or_default().to_owned()),
        ("\\d", None) => Command::Run(["SHOW STREAMS", "SHOW TABLES", "SHOW TOPICS"].map(str::to_owned).to_vec()),
        ("\\d", Some(name)) => run(&format!("DESCRIBE {name}")),
        ("\\d+", None) => {
            Command::Run(["SHOW STREAMS EXTENDED", "SHOW TABLES EXTENDED", "SHOW TOPICS EXTENDED"].map(str::to_owned).to_vec())
        }
        ("\\d+", Some(name)) => run(&format!("DESCRIBE {name} EXTENDED")),
        ("\\ds", None) => run("SHOW STREAMS"),
        ("\\dt", None) => run("SHOW TABLES"),
        ("\\dq", None) => run("SHOW QUERIES"),
        ("\\df", None) => run("SHOW FUNCTIONS"),
        ("\\df", Some(name)) => run(&format!("DESCRIBE FUNCTION {name}")),
        ("\\i", Some(path)) => Command::File(PathBuf::from(path.trim_matches('\''))),
        ("\\i", None) => return Err("\\i takes the name of a file".to_owned()),
        ("\\timing", given) => Command::Timing(on_or_off(word, given)?),
        ("\\pager", given) => Command::Pager(on_or_off(word, given)?),
        ("\\x", None) => Command::Expanded(None),
        ("\\x", Some(given)) => match given {
            "on" => Command::Expanded(Some(Expanded::On)),
            "off" => Command::Expanded(Some(Expanded::Off)),
            "auto" => Command::Expanded(Some(Expanded::Auto)),
            other => return Err(format!("\\x takes on, off or auto, not {other}")),
        },
        ("\\o", None) => Command::Output(None),
        ("\\o", Some(given)) => {
            let named: Vec<&str> = Format::value_variants().iter().map(|format| format.as_str()).collect();
            match Format::from_str(given, true) {
                Ok(format) => Command::Output(Some(format)),
                Err(_) => return Err(format!("\\o takes {}, not {given}", named.join(", "))),
            }
        }
        (known, Some(given)) if COMMANDS.iter().any(|(name, ..)| *name == known) => {
            return Err(format!("{known} takes nothing, not {given}"));
        }
        (other, _) => {
            let near = help::nearest(other, COMMANDS.iter().map(|(name, ..)| *name));
            let hint = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            return Err(format!("{other} is no command{hint} \\? lists them"));
        }
    };
    Ok(command)
}

fn on_or_off(word: &str, given: Option<&str>) -> Result<Option<bool>, String> {
    match given {
        None => Ok(None),
        Some("on") => Ok(Some(true)),
        Some("off") => Ok(Some(false)),
        Some(other) => Err(format!("{word} takes on or off, not {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_known_by_its_backslash() {
        let meant = |line: &str| command(line).map(|meant| meant.unwrap());
        assert_eq!(meant("SELECT 1;"), None);
        assert_eq!(meant(" \\q "), Some(Command::Quit));
        assert_eq!(meant("EXIT;"), Some(Command::Quit));
        assert_eq!(meant("\\d orders;"), Some(Command::Run(vec!["DESCRIBE orders".to_owned()])));
        assert_eq!(meant("\\df"), Some(Command::Run(vec!["SHOW FUNCTIONS".to_owned()])));
        assert_eq!(meant("\\timing"), Some(Command::Timing(None)));
        assert_eq!(meant("\\x auto"), Some(Command::Expanded(Some(Expanded::Auto))));
        assert_eq!(meant("\\o CSV"), Some(Command::Output(Some(Format::Csv))));
        assert_eq!(meant("\\h create stream"), Some(Command::HelpOn("create stream".to_owned())));
        assert_eq!(meant("\\i 'a b.sql'"), Some(Command::File(PathBuf::from("a b.sql"))));
    }

    #[test]
    fn what_is_none_says_what_would_be() {
        let refused = |line: &str| command(line).unwrap().unwrap_err();
        assert_eq!(refused("\\timin"), "\\timin is no command; did you mean \\timing? \\? lists them");
        assert_eq!(refused("\\timing yes"), "\\timing takes on or off, not yes");
        assert_eq!(refused("\\o xml"), "\\o takes table, expanded, json, jsonl, csv, not xml");
        assert_eq!(refused("\\ds x"), "\\ds takes nothing, not x");
        assert_eq!(refused("\\i"), "\\i takes the name of a file");
        assert!(refused("\\").starts_with("\\ is no command"));
    }

    #[test]
    fn every_command_that_is_told_is_understood() {
        for (name, takes, _) in COMMANDS {
            let argument = match takes {
                "FILE" => "x.sql",
                "[FORMAT]" => "csv",
                "" => "",
                _ => "on",
            };
            assert!(command(&format!("{name} {argument}")).unwrap().is_ok(), "{name} {argument}");
        }
    }
}
