//! What is parsed, what is refused, and in which words.

use std::collections::BTreeMap;

use arrow::datatypes::DataType;

use super::*;
use crate::{
    catalog::SourceKind,
    sql::{
        split,
        statement::{ColumnMark, Emit, Options},
        types::TypeExpr,
    },
};

fn ok(text: &str) -> Statement {
    parse(text, Dialect::STANDARD).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn error(text: &str) -> String {
    match parse(text, Dialect::STANDARD) {
        Ok(statement) => panic!("{text}: parsed as {statement:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_source_keeps_its_columns_key_and_options() {
    let Statement::CreateSource(create) = ok(
        "CREATE STREAM IF NOT EXISTS Flights (id VARCHAR KEY, \"Delay\" INT, cost DECIMAL(10, 2)) WITH (kafka_topic = 'f.x', VALUE_FORMAT='JSON', partitions=4);",
    ) else {
        panic!("not a source")
    };
    assert_eq!((create.name.as_str(), create.kind, create.if_not_exists), ("flights", SourceKind::Stream, true));
    let columns: Vec<_> = create.columns.iter().map(|one| (one.name.as_str(), one.data_type.clone(), one.mark.clone())).collect();
    assert_eq!(
        columns,
        [
            ("id", TypeExpr::Known(DataType::Utf8), Some(ColumnMark::Key)),
            ("Delay", TypeExpr::Known(DataType::Int32), None),
            ("cost", TypeExpr::Known(DataType::Decimal128(10, 2)), None),
        ]
    );
    let options =
        Options { topic: Some("f.x".to_owned()), partitions: Some(4), value_format: Some("json".to_owned()), ..Options::default() };
    let place = |column| Place { line: 1, column };
    assert_eq!(create.options.places, BTreeMap::from([("topic", place(94)), ("value_format", place(115)), ("partitions", place(136))]));
    assert_eq!(Options { places: BTreeMap::new(), ..create.options }, options);
}

#[test]
fn emit_changes_makes_a_query_that_does_not_end() {
    let Statement::Push(select) = ok("SELECT * FROM t EMIT CHANGES LIMIT 3;") else { panic!("not a push") };
    assert_eq!((select.emit, select.limit, select.query.to_string()), (Some(Emit::Changes), Some(3), "SELECT * FROM t".to_owned()));
    let Statement::Push(select) = ok("select a from t where a = 'EMIT CHANGES' limit 2 emit changes") else { panic!("not a push") };
    assert_eq!((select.limit, select.query.limit_clause.is_none()), (Some(2), true));
    assert!(matches!(ok("SELECT emit FROM t emit"), Statement::Pull(_)), "EMIT alone is a name");
    assert!(matches!(ok("CREATE TABLE a AS SELECT k, count(*) FROM t GROUP BY k EMIT CHANGES"), Statement::CreateAs(_)));
}

#[test]
fn every_statement_is_known() {
    for text in [
        "SHOW STREAMS",
        "SELECT a, top, sort, view FROM t",
        "list tables",
        "SHOW QUERIES",
        "SHOW TOPICS",
        "LIST TYPES",
        "LIST ALL TOPICS EXTENDED",
        "SHOW STREAMS EXTENDED",
        "SHOW PROPERTIES",
        "DESCRIBE a EXTENDED",
        "CREATE OR REPLACE STREAM a (x INT) WITH (topic = 'a')",
        "CREATE SOURCE TABLE a (x INT PRIMARY KEY, h ARRAY<STRUCT<key STRING, value BYTES>> HEADERS)",
        "CREATE STREAM a (x BYTES HEADER('x'))",
        "ALTER STREAM a ADD COLUMN x INT, ADD y ARRAY<INT>",
        "DROP STREAM IF EXISTS a CASCADE DELETE TOPIC",
        "DELETE FROM a WHERE x = 1 AND y = 'b'",
        "ASSERT TOPIC a",
        "ASSERT NOT EXISTS TOPIC 'a.b' WITH (partitions = 1) TIMEOUT 10 SECONDS",
        "SHOW FUNCTIONS",
        "DESCRIBE FUNCTION replace",
        "DESCRIBE function",
        "DESCRIBE function EXTENDED",
        "CREATE TYPE IF NOT EXISTS a AS STRUCT<x INT, y ARRAY<INT>>",
        "DROP TYPE IF EXISTS a",
        "DESCRIBE \"a.b\"",
        "EXPLAIN SELECT 1",
        "EXPLAIN ctas_a_1",
        "TERMINATE ctas_a_1",
        "TERMINATE QUERY ctas_a_1",
        "TERMINATE ALL",
        "PAUSE ctas_a_1",
        "resume all",
        "DROP TABLE IF EXISTS a",
        "DROP STREAM a",
        "INSERT INTO a (x, y) VALUES (1, 'b'), (-2, NULL)",
        "INSERT INTO a VALUES (1)",
        "INSERT INTO a SELECT * FROM b",
        "INSERT INTO a WITH (QUERY_ID = 'mine') SELECT * FROM b PARTITION BY c EMIT CHANGES",
        "WITH x AS (SELECT 1) SELECT * FROM x",
        "SELECT sum(a) OVER (PARTITION BY b), rank() OVER session FROM t WINDOW session AS (PARTITION BY b ORDER BY c)",
        "(SELECT 1) UNION (SELECT 2)",
        "VALUES (1)",
        "EXPLAIN CREATE TABLE a AS SELECT k, count(*) FROM t GROUP BY k",
        "CREATE STREAM a AS SELECT * FROM t WHERE b IN (1) PARTITION BY k, upper(b) EMIT CHANGES",
    ] {
        ok(text);
    }
}

#[test]
fn an_error_tells_where_what_was_expected_and_what_is_near() {
    for (text, message) in [
        (
            "SELEC 1",
            "line 1, column 1: expected a statement (CREATE, ALTER, INSERT, DELETE, SELECT, WITH, VALUES, PRINT, DROP, SHOW, LIST, DESCRIBE, EXPLAIN, TERMINATE, PAUSE, RESUME, ASSERT, SET, UNSET, DEFINE, UNDEFINE), found SELEC; did you mean SELECT?",
        ),
        ("SELECT\n  a FROM", "line 2, column 9: expected identifier, found the end"),
        ("", "line 1, column 1: expected a statement, found the end"),
        ("SELECT 1 +", "line 1, column 11: expected an expression, found the end"),
        ("SELECT 'abc", "line 1, column 8: unterminated string literal"),
        ("CREATE STREAM s (a ARRAY<INT)", "line 1, column 29: expected >, found )"),
        (
            "CREATE STREAM s (a INT) WITH (kafka_topc='x')",
            "line 1, column 31: WITH has no key kafka_topc; did you mean kafka_topic?; known are topic, kafka_topic, partitions, replicas, retention_ms, cleanup_policy, format, key_format, value_format, key_delimiter, value_delimiter, wrap_single_value, timestamp, timestamp_format, changelog, query_id, sourced_by_connector",
        ),
        ("CREATE STREAM s (a INT) WITH (partitions='many')", "line 1, column 31: partitions is \"many\", expected a number from 1 to 1024"),
        (
            "CREATE STREAM s (a INT) WITH (topic=x)",
            "line 1, column 37: expected a value in single quotes, a number, true or false, found x",
        ),
        ("CREATE TABLE t WITH (changelog='all') AS SELECT 1", "line 1, column 22: changelog is \"all\", expected 'every' or 'coalesced'"),
        ("CREATE STREAM s (a INT) WITH (topic='x', kafka_topic='y')", "line 1, column 42: kafka_topic is given twice"),
        ("CREATE STREAM select (a INT)", "line 1, column 15: select is a word of SQL; write \"select\" to use it as a name"),
        ("CREATE STREAM s", "line 1, column 16: expected a list of columns, WITH or AS SELECT, found the end"),
        ("SELECT 1; SELECT 2", "line 1, column 9: expected the end: one statement at a time, except in a script"),
        (
            "SHOW STREAM",
            "line 1, column 6: expected STREAMS, TABLES, QUERIES, [ALL] TOPICS, TYPES, PROPERTIES, VARIABLES or FUNCTIONS, found STREAM; did you mean STREAMS?",
        ),
        (
            "SELECT * FROM t PARTITION BY k",
            "line 1, column 17: PARTITION BY belongs to a SELECT that does not end: CREATE STREAM ... AS, or EMIT CHANGES",
        ),
        ("SELECT * FROM t PARTITION BY EMIT CHANGES", "line 1, column 42: expected an expression, found the end"),
        (
            "CREATE STREAM a AS SELECT * FROM t PARTITION BY k WHERE x",
            "line 1, column 51: expected HAVING, EMIT or the end of the statement, found WHERE",
        ),
        (
            "CREATE TABLE t WITH (query_id='') AS SELECT 1",
            "line 1, column 22: query_id is \"\", expected 1 to 128 letters, digits, _ and -",
        ),
        ("INSERT INTO a WITH (query_id='a b') SELECT 1", "line 1, column 30: the id of a query has 1 to 128 letters, digits, _ and -"),
        ("INSERT INTO a WITH (query_id='a') VALUES (1)", "line 1, column 35: expected SELECT after WITH (query_id = ...), found VALUES"),
        ("INSERT INTO a (b) SELECT 1", "the columns of INSERT INTO ... SELECT come from its SELECT list; leave the list of columns out"),
        ("SHOW TABLES EMIT CHANGES", "line 1, column 13: EMIT CHANGES belongs to a SELECT"),
        ("SELECT 1 EMIT CHANGES LIMIT x", "line 1, column 29: expected a number of rows after LIMIT, found x"),
        (
            "CREATE TABLE a (x DECIMAL(40, 2))",
            "line 1, column 19: DECIMAL(40, 2) is out of range: the precision is 1 to 38, the scale 0 to the precision",
        ),
    ] {
        assert_eq!(error(text), message, "{text}");
    }
}

#[test]
fn what_we_do_not_have_is_refused_by_name() {
    for (text, name) in [
        ("COPY t TO 'x.csv'", "the statement COPY"),
        ("PREPARE p AS SELECT 1", "the statement PREPARE"),
        ("EXECUTE p", "the statement EXECUTE"),
        ("UPDATE t SET a = 1", "the statement UPDATE"),
        ("CREATE EXTERNAL TABLE t (a INT) LOCATION 'file:///x'", "CREATE EXTERNAL"),
        ("CREATE FUNCTION f() RETURN 1", "CREATE FUNCTION"),
        ("EXPLAIN ANALYZE SELECT 1", "EXPLAIN ANALYZE"),
        ("EXPLAIN COPY t TO 'x'", "the statement COPY"),
        ("SELECT 1 INTO t FROM u", "SELECT ... INTO"),
        ("CREATE STREAM a (b INT) WITH (window_type='SESSION')", "window_type in WITH"),
        ("CREATE STREAM a (b INT) WITH (value_schema_id=1)", "value_schema_id in WITH"),
        ("SELECT a FROM t EMIT FINAL", "EMIT FINAL"),
        ("CREATE TABLE a AS SELECT k, COUNT(*) FROM t WINDOW TUMBLING (SIZE 1 HOUR) GROUP BY k", "WINDOW TUMBLING at line 1, column 45"),
        ("SELECT * FROM t JOIN u WITHIN 1 HOUR ON t.k = u.k EMIT CHANGES", "WITHIN at line 1, column 24"),
        ("SELECT * FROM t JOIN u WITHIN (1 HOUR, 2 HOURS) ON t.k = u.k EMIT CHANGES", "WITHIN at line 1, column 24"),
    ] {
        let message = error(text);
        assert!(message.starts_with("not supported: ") && message.contains(name), "{text}: {message}");
    }
}

#[test]
fn a_script_is_split_at_its_own_semicolons_only() {
    let script = "-- first; no\r\nSELECT 'a;b'; ;\n  SELECT /* ; */ \"ö;\" FROM t  ;\nSHOW TABLES";
    let pieces = split(script).unwrap();
    let texts: Vec<_> = pieces.iter().map(|one| (one.text.as_str(), one.place.line, one.place.column)).collect();
    assert_eq!(texts, [("SELECT 'a;b'", 2, 1), ("SELECT /* ; */ \"ö;\" FROM t", 3, 3), ("SHOW TABLES", 4, 1)]);
    assert!(split("SELECT 'a").is_err());
    assert_eq!(split(" ;; -- nothing\n").unwrap(), []);
}

proptest::proptest! {
    #[test]
    fn no_text_panics_the_parser(text in "[ -~\\n\u{e4}]{0,80}", head in 0_usize..12) {
        let heads = ["", "CREATE STREAM a (", "SELECT ", "INSERT INTO a VALUES (", "EXPLAIN ", "DROP ", "CREATE TABLE b WITH (", "SELECT a FROM t EMIT ", "SHOW ", "WITH a AS (", "TERMINATE ", "DESCRIBE "];
        let text = format!("{}{text}", heads[head]);
        let _ = parse(&text, Dialect::STANDARD);
        let _ = split(&text);
    }
}
