//! Files of tests: which tests a text holds, which statements each has, and which error it expects.
//!
//! Pure. Directives are comments that begin with `--@`, as in the files of ksqlDB: `--@test: name` begins a test, `--@expected.error: reason`
//! and `--@expected.message: part of it` say how its last statement fails. What stands before the first test is executed before each.

use foldlog_query::{
    Piece, Place, QueryError,
    sql::{
        lexemes::{Lexeme, parts},
        split,
    },
};

/// The tests of one file.
#[derive(Debug, PartialEq, Eq)]
pub struct File {
    /// What each test begins with.
    pub setup: Vec<Piece>,
    /// The tests, in order.
    pub cases: Vec<Case>,
}

/// One test.
#[derive(Debug, PartialEq, Eq)]
pub struct Case {
    /// Name; none for a file without directives.
    pub name: Option<String>,
    /// Where it begins.
    pub place: Place,
    /// How its last statement fails, if it is to.
    pub failure: Option<ExpectedFailure>,
    /// Its statements, with their places in the file.
    pub pieces: Vec<Piece>,
}

/// How a statement is to fail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpectedFailure {
    /// The reason, or the class that ksqlDB has for it.
    pub error: Option<String>,
    /// A part of the message.
    pub message: Option<String>,
}

/// What is wrong with a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub place: Place,
    /// What.
    pub message: String,
}

enum Directive {
    Test(String),
    Error(String),
    Message(String),
}

const KNOWN: [&str; 3] = ["test", "expected.error", "expected.message"];

impl File {
    /// Reads a file.
    ///
    /// # Errors
    /// What is no directive or no statement, or stands where it means nothing.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let mut file = Self { setup: Vec::new(), cases: Vec::new() };
        let mut begins = 0;
        for (start, directive) in directives(text)? {
            let place = place_of(text, start);
            match directive {
                Directive::Test(name) => {
                    file.end_part(text, begins, start)?;
                    if file.cases.iter().any(|case| case.name.as_deref() == Some(name.as_str())) {
                        return Err(Fault { place, message: format!("there is a test {name} already") });
                    }
                    file.cases.push(Case { name: Some(name), place, failure: None, pieces: Vec::new() });
                    begins = start;
                }
                Directive::Error(error) => file.expected(place)?.error = Some(error),
                Directive::Message(message) => file.expected(place)?.message = Some(message),
            }
        }
        file.end_part(text, begins, text.len())?;
        if file.cases.is_empty() && !file.setup.is_empty() {
            let place = Place { line: 1, column: 1 };
            file.cases.push(Case { name: None, place, failure: None, pieces: std::mem::take(&mut file.setup) });
        }
        match file.cases.iter().find(|case| case.pieces.is_empty()) {
            Some(case) => Err(Fault { place: case.place, message: "a test without statements".to_owned() }),
            None if file.cases.is_empty() => Err(Fault { place: Place { line: 1, column: 1 }, message: "there is no test".to_owned() }),
            None => Ok(file),
        }
    }

    /// Gives the statements between two places to the test, or to what each begins with.
    fn end_part(&mut self, text: &str, begins: usize, end: usize) -> Result<(), Fault> {
        // As many empty lines as stand before it, so that places are those of the file.
        let before = text.get(..begins).unwrap_or_default();
        let part = "\n".repeat(before.matches('\n').count()) + text.get(begins..end).unwrap_or_default();
        let pieces = split(&part).map_err(|error| match error {
            QueryError::Syntax { place, message } => Fault { place, message },
            other => Fault { place: place_of(text, begins), message: other.to_string() },
        })?;
        match self.cases.last_mut() {
            Some(case) => case.pieces = pieces,
            None => self.setup = pieces,
        }
        Ok(())
    }

    fn expected(&mut self, place: Place) -> Result<&mut ExpectedFailure, Fault> {
        let outside = || Fault { place, message: "an expected failure belongs behind the --@test that it is about".to_owned() };
        Ok(self.cases.last_mut().ok_or_else(outside)?.failure.get_or_insert_default())
    }
}

/// The directives with the bytes at which they begin.
fn directives(text: &str) -> Result<Vec<(usize, Directive)>, Fault> {
    let mut found = Vec::new();
    let comments = parts(text).into_iter().filter(|part| part.lexeme == Lexeme::Comment);
    for part in comments {
        let Some(told) = part.text.strip_prefix("--@") else { continue };
        let (name, value) = told.split_once(':').unwrap_or((told, ""));
        let (name, value) = (name.trim(), value.trim().to_owned());
        let fault = |message: String| Err(Fault { place: place_of(text, part.start), message });
        let directive = match name {
            "test" => Directive::Test(value.clone()),
            "expected.error" => Directive::Error(value.clone()),
            "expected.message" => Directive::Message(value.clone()),
            other => {
                return fault(format!("--@{other} is no directive; there are {}", KNOWN.map(|known| format!("--@{known}")).join(", ")));
            }
        };
        if value.is_empty() {
            return fault(format!("--@{name}: something must stand behind the colon"));
        }
        found.push((part.start, directive));
    }
    Ok(found)
}

fn place_of(text: &str, at: usize) -> Place {
    let before = text.get(..at).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Place { line: number(line), column: number(column) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(line: u32, column: u32) -> Place {
        Place { line, column }
    }

    #[test]
    fn a_file_has_a_setup_and_tests() {
        let text = "SET 'a' = 'b';\n--@test: one\nSELECT 1;\n  SELECT '--@test: x';\n\n--@test: two: 2\n--@expected.error: SQL_SYNTAX\n--@expected.message: found b\nSELECT a\n b c;\n";
        let file = File::parse(text).unwrap();
        assert_eq!(file.setup, [Piece { text: "SET 'a' = 'b'".to_owned(), place: place(1, 1) }]);
        let [one, two] = &file.cases[..] else { panic!("{file:?}") };
        assert_eq!((one.name.as_deref(), one.place, &one.failure), (Some("one"), place(2, 1), &None));
        assert_eq!(one.pieces[1], Piece { text: "SELECT '--@test: x'".to_owned(), place: place(4, 3) });
        let expected = ExpectedFailure { error: Some("SQL_SYNTAX".to_owned()), message: Some("found b".to_owned()) };
        assert_eq!((two.name.as_deref(), &two.failure), (Some("two: 2"), &Some(expected)));
        assert_eq!(two.pieces, [Piece { text: "SELECT a\n b c".to_owned(), place: place(9, 1) }]);
    }

    #[test]
    fn a_file_without_directives_is_one_test() {
        let file = File::parse("SELECT 1;").unwrap();
        assert_eq!((file.setup.len(), file.cases.len(), file.cases[0].name.clone()), (0, 1, None));
    }

    #[test]
    fn what_is_no_test_is_told_with_its_place() {
        let fault = |text: &str| File::parse(text).map_err(|fault| (fault.place.line, fault.place.column, fault.message)).unwrap_err();
        assert_eq!(fault(""), (1, 1, "there is no test".to_owned()));
        assert_eq!(fault("\n --@tset: a").1, 2);
        assert!(fault("--@tset: a").2.contains("--@tset is no directive; there are --@test,"));
        assert_eq!(fault("--@test:\nSELECT 1;").2, "--@test: something must stand behind the colon");
        assert_eq!(fault("--@test: a\n--@test: b\nSELECT 1;"), (1, 1, "a test without statements".to_owned()));
        assert_eq!(fault("--@test: a\nSELECT 1;\n--@test: a\nSELECT 1;"), (3, 1, "there is a test a already".to_owned()));
        assert_eq!(fault("--@expected.error: X\nSELECT 1;").0, 1);
        assert_eq!(fault("--@test: a\nSELECT 'x;").0, 2);
    }
}
