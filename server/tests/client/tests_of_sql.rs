//! `foldlog test`: files of SQL tests, as a shell sees them.

use serde_json::{Value, json};

use crate::support::{Ran, foldlog, run};

/// Runs the tests of a text, from a file of this name.
fn tested(name: &str, text: &str, more: &[&str]) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    write(&path, text);
    let mut command = foldlog(&["test"]);
    command.args(more).arg(name).current_dir(folder.path());
    run(command, "")
}

#[expect(clippy::disallowed_methods, reason = "a file of tests is the user's")]
fn write(path: &std::path::Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

#[test]
fn the_example_passes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/sql/accounts.sql");
    let ran = run(foldlog(&["test", path]), "");
    assert_eq!(ran.code, Some(0), "{}{}", ran.data, ran.notes);
    assert!(ran.data.ends_with("4 passed, 0 failed in 1 file\n"), "{}", ran.data);
}

const SETUP: &str = "CREATE STREAM s (k VARCHAR KEY, v INT) WITH (partitions = 1);
CREATE TABLE t AS SELECT k, SUM(v) AS total FROM s GROUP BY k;
";

#[test]
fn what_differs_is_told_with_its_place_and_the_nearest_record() {
    let text = SETUP.to_owned()
        + "--@test: wrong
INSERT INTO s VALUES ('a', 1);
INSERT INTO s VALUES ('b', 2);
  ASSERT VALUES t VALUES ('a', 1), ('a', 2);
--@test: missing
ASSERT VALUES t (k) VALUES ('a');
--@test: right
INSERT INTO s VALUES ('a', 1);
ASSERT VALUES t (total) VALUES (1);
";
    let ran = tested("a.sql", &text, &[]);
    assert_eq!(ran.code, Some(1), "{}{}", ran.data, ran.notes);
    let told = ran.data.split(" ms)").next().unwrap();
    let expected = "FAIL  a.sql:6:3: wrong
      record 2 of t differs in k
      expected: (k = 'a', total = 2)
      found:    (k = 'b', total = 2)
FAIL  a.sql:8:1: missing
      record 1 of t is missing: there are none
      expected: (k = 'a')
ok    a.sql: right (";
    assert!(told.starts_with(expected), "{told}");
    assert_eq!(ran.notes, "error: tests failed: 2 of 3\n");
}

#[test]
fn the_record_that_was_meant_is_named() {
    let text = SETUP.to_owned() + "INSERT INTO s VALUES ('a', 1), ('b', 2), ('c', 3);\nASSERT VALUES s VALUES ('c', 3);\n";
    let ran = tested("b.sql", &text, &[]);
    let expected = "FAIL  b.sql:4:1: b.sql
      record 1 of s differs in k, v
      expected: (k = 'c', v = 3)
      found:    (k = 'a', v = 1)
      nearest:  (k = 'c', v = 3) (record 3)
0 passed, 1 failed in 1 file
";
    assert_eq!((ran.code, ran.data.as_str()), (Some(1), expected));
}

#[test]
fn what_does_not_end_is_refused_with_what_to_write() {
    for text in ["SELECT * FROM s EMIT CHANGES", "PRINT s"] {
        let ran = tested("p.sql", &format!("{SETUP}{text};\n"), &[]);
        let expected = "FAIL  p.sql:3:1: p.sql
      this does not end; what a topic holds is checked with ASSERT VALUES, NULL VALUES, STREAM or TABLE
0 passed, 1 failed in 1 file
";
        assert_eq!((ran.code, ran.data.as_str()), (Some(1), expected), "{text}: {}", ran.notes);
    }
}

#[test]
fn how_a_source_was_made_is_compared() {
    let text = SETUP.to_owned()
        + "--@test: columns
ASSERT TABLE t (k VARCHAR PRIMARY KEY, total INT);
--@test: settings
ASSERT STREAM s WITH (topic = 'x', partitions = 2, value_format = 'json');
--@test: kind
ASSERT STREAM t;
--@test: name
ASSERT STREAM nothing;
";
    let ran = tested("c.sql", &text, &[]);
    let expected = "FAIL  c.sql:4:1: columns
      expected columns: k VARCHAR PRIMARY KEY, total INTEGER
      found columns:    k VARCHAR PRIMARY KEY, total BIGINT
FAIL  c.sql:6:1: settings
      topic: expected x, found s
      partitions: expected 2, found 1
FAIL  c.sql:8:1: kind
      t is a table, not a stream
FAIL  c.sql:10:15: name
      stream or table nothing does not exist
      10 | ASSERT STREAM nothing;
         |               ^
0 passed, 4 failed in 1 file
";
    assert_eq!((ran.code, ran.data.as_str()), (Some(1), expected), "{}", ran.notes);
}

#[test]
fn errors_are_expected_by_reason_and_message() {
    let text = "--@test: as expected
--@expected.error: NAME_NOT_FOUND
--@expected.message: did you mean
CREATE STREAM source (a INT) WITH (partitions = 1);
SELECT a FROM sorce;
--@test: another
--@expected.error: SQL_SYNTAX
SELECT a FROM nowhere;
--@test: none
--@expected.message: no
VALUES (1);
--@test: with more behind it
--@expected.message: does not exist
SELECT a FROM nowhere;
VALUES (1);
";
    let ran = tested("d.sql", text, &["--output", "jsonl"]);
    assert_eq!(ran.code, Some(1), "{}", ran.notes);
    let rows: Vec<Value> = ran.data.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> = rows.iter().map(|row| (row["outcome"].as_str().unwrap(), row["line"].as_u64().unwrap())).collect();
    assert_eq!(told, [("passed", 1), ("failed", 8), ("failed", 11), ("failed", 14)], "{}", ran.data);
    assert_eq!(rows[0]["message"], json!(null));
    let message = |row: usize| rows[row]["message"].as_str().unwrap().to_owned();
    assert!(message(1).starts_with("failed in another way than expected as SQL_SYNTAX\nreason:  NAME_NOT_FOUND"), "{}", message(1));
    assert_eq!(message(2), "succeeded; expected was that it fails with a message that contains: no");
    assert!(message(3).contains("not executed: 1"), "{}", message(3));
}

#[test]
fn a_script_for_ksqldb_runs_in_its_dialect() {
    let text = "--@test: a filter
CREATE STREAM input (ID INT KEY, col1 INT) WITH (kafka_topic='input', value_format='JSON', partitions=1);
CREATE STREAM output AS SELECT * FROM input WHERE col1 > 1;
INSERT INTO input (rowtime, id, col1) VALUES (10, 1, 1);
INSERT INTO input (rowtime, id, col1) VALUES (20, 1, 2);
ASSERT VALUES output (rowtime, id, col1) VALUES (20, 1, 2);
ASSERT STREAM output (id INT KEY, col1 INT) WITH (kafka_topic='OUTPUT', value_format='JSON');
";
    let ran = tested("e.sql", text, &["--dialect", "ksql"]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.data, ran.notes);
}

#[test]
fn what_is_no_file_of_tests_is_refused_before_anything_runs() {
    for (text, told) in [
        ("", "f.sql:1:1: there is no test"),
        ("--@test: a\nSELECT 'x;", "f.sql:2:8: "),
        ("--@tests: a\nVALUES (1);", "f.sql:1:1: --@tests is no directive"),
    ] {
        let ran = tested("f.sql", text, &[]);
        assert_eq!((ran.code, ran.data.as_str()), (Some(2), ""), "{text}");
        assert!(ran.notes.starts_with(&format!("error: {told}")), "{}", ran.notes);
    }
    let missing = run(foldlog(&["test", "no/such/file.sql"]), "");
    assert!(missing.code == Some(2) && missing.notes.contains("no/such/file.sql"), "{}", missing.notes);
    assert_eq!(tested("f.sql", "VALUES (1);", &["--filter", "other"]).code, Some(2));
}

#[test]
fn each_test_has_a_world_of_its_own_in_which_time_stands_still_at_1970() {
    let text = SETUP.to_owned()
        + "--@test: the first
INSERT INTO s VALUES ('a', 1);
INSERT INTO s (k, v, rowtime) VALUES ('b', 2, TIMESTAMP '2013-01-01 00:00:00');
CREATE STREAM stamped AS SELECT v, unix_timestamp() AS at FROM s;
ASSERT VALUES s (v, rowtime) VALUES (1, TIMESTAMP '1970-01-01 00:00:00');
ASSERT VALUES s (v, rowtime) VALUES (2, TIMESTAMP '2013-01-01 00:00:00');
ASSERT VALUES stamped VALUES (1, 0), (2, 0);
--@test: the second knows nothing of it
ASSERT NOT EXISTS TOPIC stamped;
INSERT INTO s VALUES ('a', 10);
ASSERT VALUES s VALUES ('a', 10);
ASSERT VALUES t VALUES ('a', 10);
--@test: a record is asserted once
INSERT INTO s VALUES ('a', 10);
ASSERT VALUES s VALUES ('a', 10);
ASSERT VALUES s VALUES ('a', 10);
";
    let ran = tested("g.sql", &text, &[]);
    assert_eq!(ran.code, Some(1), "{}", ran.notes);
    let expected = "      record 2 of s is missing: there is 1\n      expected: (k = 'a', v = 10)\n";
    assert!(ran.data.contains(expected) && ran.data.ends_with("2 passed, 1 failed in 1 file\n"), "{}", ran.data);
}

#[test]
fn formats_delimiters_and_times_of_a_source_are_compared() {
    let text = "CREATE STREAM s (k VARCHAR KEY, l INT KEY, v INT, at BIGINT) WITH (partitions = 1, key_format = 'delimited', key_delimiter = ';', value_format = 'delimited', timestamp = 'at');
--@test: as it is
ASSERT STREAM s (k VARCHAR KEY, l INT KEY, v INT, at BIGINT) WITH (key_format = 'delimited', key_delimiter = ';', value_format = 'delimited', timestamp = 'at');
--@test: otherwise
ASSERT STREAM s WITH (key_delimiter = 'TAB', value_delimiter = '|', timestamp = 'v');
--@test: in another format
ASSERT STREAM s WITH (key_format = 'json', value_format = 'json');
--@test: in another order
ASSERT STREAM s (l INT KEY, k VARCHAR KEY, v INT, at BIGINT);
";
    let ran = tested("h.sql", text, &[]);
    assert!(ran.data.ends_with("1 passed, 3 failed in 1 file\n"), "{}{}", ran.data, ran.notes);
    for told in [
        "h.sql:5:1: otherwise",
        "key_delimiter: ",
        "value_delimiter: ",
        "timestamp: expected v, found at",
        "key_format: ",
        "value_format: ",
        "expected columns: ",
    ] {
        assert!(ran.data.contains(told), "{told}: {}", ran.data);
    }
}
