//! The prompt, with the dialect of the session where it is not the usual one, and the rules by which Enter ends an input.

use std::borrow::Cow;

use foldlog_query::sql::lexemes::is_ended;
use reedline::{Prompt, PromptEditMode, PromptHistorySearch, PromptHistorySearchStatus, ValidationResult, Validator};

use super::command::command;

/// Before the first line.
pub struct Name {
    /// The dialect, unless it is the server's own.
    pub dialect: Option<String>,
}

impl Name {
    /// The first line's prompt.
    pub fn first(&self) -> String {
        self.dialect.as_ref().map_or_else(|| "foldlog> ".to_owned(), |dialect| format!("{dialect}> "))
    }
}

/// Before the lines after the first.
pub const MORE: &str = "    ...> ";

impl Prompt for Name {
    fn render_prompt_left(&self) -> Cow<'_, str> {
        Cow::Owned(self.first())
    }

    fn render_prompt_right(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn render_prompt_indicator(&self, _mode: PromptEditMode) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn render_prompt_multiline_indicator(&self) -> Cow<'_, str> {
        Cow::Borrowed(MORE)
    }

    fn render_prompt_history_search_indicator(&self, search: PromptHistorySearch) -> Cow<'_, str> {
        let found = match search.status {
            PromptHistorySearchStatus::Passing => "",
            PromptHistorySearchStatus::Failing => "nothing ",
        };
        Cow::Owned(format!("({found}found for '{}') ", search.term))
    }
}

/// Enter ends what is whole, and begins a new line in what is not.
pub struct Whole;

impl Validator for Whole {
    fn validate(&self, line: &str) -> ValidationResult {
        if is_whole(line) { ValidationResult::Complete } else { ValidationResult::Incomplete }
    }
}

/// Whether an input can be obeyed: a command, statements up to a semicolon, or nothing.
#[must_use]
pub fn is_whole(input: &str) -> bool {
    input.trim().is_empty() || command(input).is_some() || is_ended(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_whole_at_its_semicolon_or_as_a_command() {
        for whole in ["", "  ", "\\d", "quit", "SELECT 1;", "SELECT\n1;", "A; B;"] {
            assert!(is_whole(whole), "{whole}");
        }
        for open in ["SELECT 1", "SELECT ';", "A; B", "quit now"] {
            assert!(!is_whole(open), "{open}");
        }
        assert_eq!(Name { dialect: Some("ksql".to_owned()) }.first(), "ksql> ");
    }
}
