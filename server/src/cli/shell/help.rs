//! What the shell tells about itself and about SQL: the commands, and how each statement is written.

use super::command::COMMANDS;

/// How statements are written, by the words with which they begin.
const STATEMENTS: [(&str, &[&str]); 25] = [
    (
        "CREATE STREAM",
        &[
            "CREATE [OR REPLACE] [SOURCE] STREAM [IF NOT EXISTS] name (column type [KEY | HEADERS | HEADER('name')], ...)\n  WITH (topic = '...', partitions = n, format = '...', timestamp = '...', ...)",
            "CREATE [OR REPLACE] STREAM [IF NOT EXISTS] name [WITH (...)] AS SELECT ... FROM source [WHERE ...] [PARTITION BY ...]",
        ],
    ),
    (
        "CREATE TABLE",
        &[
            "CREATE [OR REPLACE] [SOURCE] TABLE [IF NOT EXISTS] name (column type [PRIMARY KEY], ...) WITH (topic = '...', partitions = n, ...)",
            "CREATE [OR REPLACE] TABLE [IF NOT EXISTS] name [WITH (...)] AS SELECT ... FROM source [WHERE ...] GROUP BY ... [HAVING ...]",
        ],
    ),
    ("CREATE TYPE", &["CREATE TYPE [IF NOT EXISTS] name AS type"]),
    ("INSERT", &["INSERT INTO name [(column, ...)] VALUES (value, ...), ...", "INSERT INTO stream [WITH (query_id = '...')] SELECT ..."]),
    ("DELETE", &["DELETE FROM table WHERE key = value [AND ...]"]),
    (
        "SELECT",
        &[
            "SELECT ... FROM ... [WHERE ...] [GROUP BY ...] [HAVING ...] [ORDER BY ...] [LIMIT n]",
            "SELECT ... FROM source [WHERE ...] [GROUP BY ...] EMIT CHANGES [LIMIT n]",
        ],
    ),
    ("WITH", &["WITH name AS (SELECT ...), ... SELECT ..."]),
    ("VALUES", &["VALUES (value, ...), ..."]),
    ("PRINT", &["PRINT topic [FROM BEGINNING] [INTERVAL n] [LIMIT n]: records as they are, until Ctrl-C"]),
    ("ALTER", &["ALTER STREAM | TABLE name ADD [COLUMN] column type, ..."]),
    ("DROP", &["DROP STREAM | TABLE [IF EXISTS] name [CASCADE] [DELETE TOPIC]", "DROP TYPE [IF EXISTS] name"]),
    ("SHOW", &["SHOW STREAMS | TABLES | QUERIES | [ALL] TOPICS [EXTENDED]", "SHOW FUNCTIONS | TYPES | PROPERTIES | VARIABLES"]),
    ("LIST", &["LIST is SHOW"]),
    ("DESCRIBE", &["DESCRIBE name [EXTENDED]", "DESCRIBE FUNCTION name"]),
    ("EXPLAIN", &["EXPLAIN statement", "EXPLAIN query"]),
    ("TERMINATE", &["TERMINATE query | ALL"]),
    ("PAUSE", &["PAUSE query | ALL"]),
    ("RESUME", &["RESUME query | ALL"]),
    ("ASSERT", &["ASSERT [NOT EXISTS] TOPIC name [WITH (partitions = n)] [TIMEOUT n SECONDS]"]),
    ("SET", &["SET 'setting' = 'value'"]),
    ("UNSET", &["UNSET 'setting'"]),
    ("DEFINE", &["DEFINE name = 'value', then ${name} stands for it"]),
    ("UNDEFINE", &["UNDEFINE name"]),
    ("PARTITION BY", &["CREATE STREAM name AS SELECT key, ... FROM stream PARTITION BY key"]),
    ("EMIT CHANGES", &["SELECT ... EMIT CHANGES [LIMIT n]: every change as it comes, until Ctrl-C"]),
];

/// The commands.
#[must_use]
pub fn commands() -> String {
    let mut told =
        String::from("SQL ends with a semicolon. Tab completes, Alt-Enter begins a new line, Ctrl-C ends a query or clears the line.\n");
    for (name, takes, does) in COMMANDS {
        told.push_str(&format!("  {:<22}{does}\n", format!("{name} {takes}")));
    }
    told
}

/// How the statements that begin with these words are written; without words, which there are.
///
/// # Errors
/// That there is none, with the nearest.
pub fn statements(words: &str) -> Result<String, String> {
    let wanted = words.split_whitespace().collect::<Vec<_>>().join(" ").to_uppercase();
    if wanted.is_empty() {
        let names: Vec<&str> = STATEMENTS.iter().map(|(name, _)| *name).collect();
        return Ok(format!("{}\n\\h STATEMENT tells how it is written.\n", names.join(", ")));
    }
    let begins = |name: &str| name == wanted || name.strip_prefix(wanted.as_str()).is_some_and(|rest| rest.starts_with(' '));
    let mut told = String::new();
    for (_, forms) in STATEMENTS.iter().filter(|(name, _)| begins(name)) {
        for form in *forms {
            told.push_str(&format!("{form}\n"));
        }
    }
    if told.is_empty() {
        let near = nearest(&wanted, STATEMENTS.iter().map(|(name, _)| *name)).map(|near| format!("; did you mean {near}?"));
        return Err(format!("there is no statement {wanted}{} \\h lists them", near.unwrap_or_default()));
    }
    Ok(told)
}

/// The name that is most like what was written, if one is alike.
#[must_use]
pub fn nearest<'a>(written: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |name: &str| strsim::damerau_levenshtein(&written.to_lowercase(), &name.to_lowercase());
    let most = written.chars().count().div_ceil(3).max(1);
    names.map(|name| (likeness(name), name)).min().filter(|(far, _)| *far <= most).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_statement_of_the_language_is_told() {
        for word in foldlog_query::sql::parser::STATEMENTS {
            assert!(statements(word).is_ok(), "{word}");
        }
    }

    #[test]
    fn the_words_of_a_statement_may_be_its_first_alone() {
        assert_eq!(statements("create").unwrap().lines().count(), 6);
        assert_eq!(statements(" create  type ").unwrap(), "CREATE TYPE [IF NOT EXISTS] name AS type\n");
        assert!(statements("").unwrap().contains("DESCRIBE"));
        assert_eq!(statements("selct").unwrap_err(), "there is no statement SELCT; did you mean SELECT? \\h lists them");
        assert_eq!(statements("zzz").unwrap_err(), "there is no statement ZZZ \\h lists them");
    }
}
