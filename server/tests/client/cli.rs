//! The client verbs as a shell sees them: the program itself against a server that is the program itself.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::support::{Server, foldlog, run};

const THREE: &str = r#"{"stream":"UA1","type":"Departed","data":{"delay": 1.10},"time":"2013-02-09T00:00:00Z","tags":["a \"b\"","ü"],"attributes":{"a":"b"}}
{"stream":"AA2","type":"Departed","data_base64":"/xtbMko="}

{"stream":"UA1","type":"Arrived","data_text":"\u001b[2J"}
"#;

fn with_three() -> Server {
    let server = Server::start();
    server.rows(&["topic", "create", "flights"]);
    server.rows_with(&["append", "flights"], THREE);
    server
}

#[test]
fn topics_are_created_listed_and_described() {
    let server = Server::start();
    assert_eq!(
        server.rows(&["topic", "create", "b"]),
        [json!({
            "name": "b", "kind": "events", "partitions": 8, "durability": "synced", "compression": "none", "retention_ms": null,
            "retention_bytes": null,
        })]
    );
    let table = ["topic", "create", "a", "--kind", "table", "--partitions", "2"];
    assert_eq!(server.rows(&table), server.rows(&table), "again is no error");
    let listed = server.rows(&["topic", "list"]);
    assert_eq!(listed.iter().map(|topic| topic["name"].as_str().unwrap()).collect::<Vec<_>>(), ["a", "b"]);
    server.rows_with(&["append", "b"], THREE);
    let described = server.rows(&["topic", "describe", "b"]);
    assert_eq!((&described[0]["max_event_tags"], &described[0]["max_tag_bytes"]), (&json!(64), &json!(256)));
    assert_eq!((&described[0]["records"], described[0]["ends"].as_array().unwrap().len()), (&json!(3), 8));
    let other = server.run(&["topic", "create", "b", "--partitions", "3"]);
    assert_eq!((other.code, other.data.as_str()), (Some(1), ""));
    assert!(other.notes.contains("b exists already"), "{}", other.notes);
}

#[test]
fn the_clock_is_shown_and_confirmed() {
    let server = Server::start();
    for verb in [&["clock"][..], &["clock", "confirm"]] {
        let shown = server.rows(verb);
        assert_eq!((&shown[0]["follows"], &shown[0]["off_for_s"], &shown[0]["removes"]), (&json!(true), &json!(0), &json!(true)));
        assert_eq!(shown[0]["server_time"].as_str().unwrap()[..13], shown[0]["wall_time"].as_str().unwrap()[..13]);
    }
    assert_eq!(server.run(&["clock", "set"]).code, Some(2));
}

#[test]
fn a_table_is_compacted_as_it_is_told() {
    let server = Server::start();
    server.rows(&["topic", "create", "t", "--kind", "table", "--partitions", "1", "--max-lag", "1h", "--dirty-percent", "30"]);
    let settings = |server: &Server| server.rows(&["topic", "describe", "t"])[0]["compaction"].clone();
    let mut expected = json!({ "delete_retention_ms": 86_400_000, "min_lag_ms": 0, "max_lag_ms": 3_600_000, "dirty_percent": 30 });
    assert_eq!(settings(&server), expected);
    server.rows(&["topic", "alter", "t", "--delete-retention", "2d"]);
    expected["delete_retention_ms"] = json!(172_800_000);
    assert_eq!(settings(&server), expected);
    let compacted = |server: &Server| server.rows(&["topic", "describe", "t"])[0]["compacted"].clone();
    assert_eq!(compacted(&server), json!([{ "to": 0, "bytes": 0, "dirty_bytes": 0 }]));
    assert_eq!(server.run(&["topic", "compaction", "pause"]).code, Some(0));
    assert_eq!(compacted(&server)[0]["paused"], json!(true));
    assert_eq!(server.run(&["topic", "compaction", "resume"]).code, Some(0));
    assert_eq!(compacted(&server)[0].get("paused"), None);
    assert_eq!(server.run(&["topic", "compaction", "stop"]).code, Some(2));
    let refused = server.run(&["topic", "create", "e", "--max-lag", "1h"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.notes.contains("an event replaces none"), "{}", refused.notes);
}

#[test]
fn a_topic_is_altered_while_it_is_in_use() {
    let server = Server::start();
    server.rows(&["topic", "create", "r", "--kind", "records", "--partitions", "2", "--retention-bytes", "1GiB"]);
    let altered = server.rows(&[
        "topic",
        "alter",
        "r",
        "--partitions",
        "3",
        "--retention-time",
        "7d",
        "--retention-bytes",
        "none",
        "--compression",
        "zstd",
        "--durability",
        "written",
    ]);
    let expected = json!({
        "name": "r", "kind": "records", "partitions": 3, "durability": "written", "compression": "zstd", "retention_ms": 604_800_000,
        "retention_bytes": null,
    });
    assert_eq!(altered, [expected]);
    let described = server.rows(&["topic", "describe", "r"]);
    assert_eq!((&described[0]["retention_ms"], described[0]["ends"].as_array().unwrap().len()), (&json!(604_800_000), 3));
    let nothing = server.run(&["topic", "alter", "r"]);
    assert!(nothing.code == Some(2) && nothing.notes.contains("--partitions"), "{}", nothing.notes);
    let slip = server.run(&["topic", "alter", "r", "--retention-time", "never"]);
    assert!(slip.code == Some(2) && slip.notes.contains("like 7d"), "{}", slip.notes);
    let fewer = server.run(&["topic", "alter", "r", "--partitions", "2"]);
    assert!(fewer.code == Some(1) && fewer.notes.contains("there are 3 already"), "{}", fewer.notes);
}

#[test]
fn a_topic_is_deleted_when_that_is_really_meant() {
    let server = with_three();
    let unsure = server.run(&["topic", "delete", "flights"]);
    assert!(unsure.code == Some(2) && unsure.notes.contains("--yes"), "{}", unsure.notes);
    server.rows(&["group", "create", "mail", "flights"]);
    server.rows(&["sql", "CREATE STREAM planes (n BIGINT) WITH (topic = 'flights', value_format = 'json')"]);
    let used = server.run(&["topic", "delete", "flights", "--yes"]);
    assert!(used.code == Some(1) && used.notes.contains("stream planes"), "{}", used.notes);
    server.rows(&["sql", "DROP STREAM planes"]);
    let deleted = server.run(&["topic", "delete", "flights", "--yes"]);
    assert!(deleted.code == Some(0) && deleted.notes.contains("topic flights is deleted"), "{}", deleted.notes);
    assert!(server.rows(&["topic", "list"]).is_empty());
    assert_eq!(server.rows(&["group", "show", "mail"])[0]["topic_deleted"], json!(true));
    let again = server.run(&["topic", "delete", "flights", "--yes"]);
    assert!(again.code == Some(1) && again.notes.contains("does not exist"), "{}", again.notes);
}

#[test]
fn a_script_has_a_session_of_its_own() {
    let server = Server::start();
    let script = "DEFINE name = 'planes'; SET 'sql.dialect' = 'ksql';
        CREATE STREAM ${name} (Id INT KEY, n INT) WITH (kafka_topic = 'planes', partitions = 1, value_format = 'JSON');
        INSERT INTO ${name} VALUES (1, 2147483647);
        SELECT id, n + 1 AS wraps FROM ${NAME};";
    assert_eq!(server.rows_with(&["sql"], script), [json!({"ID": 1, "WRAPS": -2_147_483_648})]);
    let after = server.run(&["sql", "SELECT id FROM ${name}"]);
    assert!(after.code == Some(1) && after.notes.contains("variable name does not exist"), "{}", after.notes);
    assert_eq!(server.rows(&["sql", "SELECT \"ID\" AS id FROM \"PLANES\""]), [json!({"id": 1})]);
}

#[test]
fn durability_is_asked_for_by_topic_or_append_and_named() {
    let server = Server::start();
    let weak = server.rows(&["topic", "create", "weak", "--durability", "written"]);
    assert_eq!(weak[0]["durability"], "written");
    assert_eq!(server.rows(&["topic", "describe", "weak"])[0]["durability"], "written");
    assert_eq!(server.rows_with(&["append", "weak"], THREE)[0]["durability"], "written");
    assert_eq!(server.rows_with(&["append", "weak", "--durability", "synced"], THREE)[0]["durability"], "synced");
    server.rows(&["topic", "create", "strong"]);
    assert_eq!(server.rows_with(&["append", "strong"], THREE)[0]["durability"], "synced");
    assert_eq!(server.rows_with(&["append", "strong", "--durability", "written"], THREE)[0]["durability"], "written");
    let unknown = server.run_with(&["append", "strong", "--durability", "maybe"], THREE);
    assert_eq!(unknown.code, Some(2));
    assert!(unknown.notes.contains("synced and written"), "{}", unknown.notes);
}

#[test]
fn a_topic_says_how_it_is_compressed() {
    let server = Server::start();
    for compression in ["none", "lz4", "zstd"] {
        let made = server.rows(&["topic", "create", compression, "--compression", compression]);
        assert_eq!(made[0]["compression"], compression);
        assert_eq!(server.rows(&["topic", "describe", compression])[0]["compression"], compression);
    }
    let other = server.run(&["topic", "create", "lz4"]);
    assert_eq!(other.code, Some(1));
    assert!(other.notes.contains("compression lz4 instead of none"), "{}", other.notes);
    let unknown = server.run(&["topic", "create", "x", "--compression", "gzip"]);
    assert_eq!(unknown.code, Some(2));
    assert!(unknown.notes.contains("there are none, lz4 and zstd"), "{}", unknown.notes);
}

#[test]
fn a_stream_is_shown_truncated_deleted_and_tombstoned() {
    let server = with_three();
    let row = |state: &str, version: Value, first: u64, anew: u64| json!({ "topic": "flights", "stream": "UA1", "state": state, "version": version, "first_version": first, "anew_version": anew, "retained_version": 1, "redacting": null });
    let verb = |verb: &str, rest: &[&str]| {
        let mut rows = server.rows(&[&["stream", verb, "flights", "UA1"], rest].concat());
        assert!(rows[0].as_object_mut().unwrap().remove("partition").is_some());
        rows.remove(0)
    };
    assert_eq!(verb("show", &[]), row("live", json!(2), 1, 1));
    assert_eq!(verb("truncate", &["--before", "2"]), row("live", json!(2), 2, 1));
    assert_eq!(server.rows(&["stream", "flights", "UA1"]).len(), 1);
    let read = server.run(&["stream", "flights", "UA1"]);
    assert!(read.notes.contains("events before version 2 are gone"), "{}", read.notes);
    let stale = server.run(&["stream", "delete", "flights", "UA1", "--expect", "1"]);
    assert_eq!((stale.code, stale.data.as_str()), (Some(4), ""));
    assert_eq!(verb("delete", &["--expect", "2"]), row("deleted", json!(2), 3, 3));
    let again = server.run(&["stream", "delete", "flights", "UA1", "--expect", "deleted"]);
    assert!(again.code == Some(0) && again.notes.contains("nothing was to be changed"), "{}", again.notes);
    let departed = "{\"stream\":\"UA1\",\"type\":\"Departed\",\"data\":1}\n";
    server.rows_with(&["append", "flights", "--stream", "UA1", "--expect", "absent"], departed);
    assert_eq!(verb("show", &[]), row("live", json!(3), 3, 3));
    assert_eq!(verb("tombstone", &[]), row("tombstoned", Value::Null, 4, 4));
    let refused = server.run_with(&["append", "flights"], departed);
    assert_eq!(refused.code, Some(1));
    assert!(refused.notes.contains("stream UA1 of topic flights is tombstoned"), "{}", refused.notes);
    let read = server.run(&["stream", "flights", "UA1"]);
    assert!(read.code == Some(1) && read.notes.contains("is tombstoned"), "{}", read.notes);
    for wrong in [&["stream", "truncate", "flights", "UA1"][..], &["stream", "truncate", "flights", "UA1", "--before", "0"], &["stream"]] {
        assert_eq!(server.run(wrong).code, Some(2), "{wrong:?}");
    }
    assert_eq!(server.rows(&["read", "flights"]).len(), 4, "by topic all is read");
}

#[test]
fn data_is_redacted_and_waited_for() {
    let server = with_three();
    let redact = |rest: &[&str]| server.run(&[&["stream", "redact", "flights", "UA1"], rest].concat());
    let rows = server.rows(&["stream", "redact", "flights", "UA1", "1", "--by", "ann", "--reason", "asked to", "--wait"]);
    assert_eq!((&rows[0]["version"], &rows[0]["redacting"]), (&json!(2), &Value::Null));
    let read = server.rows(&["stream", "flights", "UA1"]);
    assert_eq!((&read[0]["redacted"], read[0].get("data"), &read[0]["type"]), (&json!(true), None, &json!("Departed")));
    assert!(read[1].get("redacted").is_none());
    assert_eq!(server.rows(&["topic", "describe", "flights"])[0]["redacting"], Value::Null);
    let beyond = redact(&["1-3", "--by", "ann"]);
    assert!(beyond.code == Some(1) && beyond.notes.contains("no event with version 3"), "{}", beyond.notes);
    assert_eq!(redact(&["1", "--by", "ann", "--expect", "1"]).code, Some(4));
    for wrong in [&["1"][..], &["--by", "ann"], &["0", "--by", "ann"], &["3-1", "--by", "ann"], &["x", "--by", "ann"]] {
        assert_eq!(redact(wrong).code, Some(2), "{wrong:?}");
    }
}

#[test]
fn snapshots_are_put_shown_and_dropped() {
    let server = with_three();
    let put = ["stream", "put-snapshot", "flights", "UA1", "--as-of", "2", "--schema", "flight.v1"];
    let rows = server.rows_with(&put, "{\"delay\": 1.10}");
    assert_eq!((&rows[0]["version"], &rows[0]["schema"], &rows[0]["data"]), (&json!(2), &json!("flight.v1"), &json!({ "delay": 1.10 })));
    assert_eq!(server.rows(&["stream", "snapshot", "flights", "UA1"]), rows);
    let older = server.run(&["stream", "snapshot", "flights", "UA1", "--at-most", "1"]);
    assert!(older.code == Some(1) && older.notes.contains("no such snapshot"), "{}", older.notes);
    let beyond = server.run_with(&["stream", "put-snapshot", "flights", "UA1", "--as-of", "3"], "{}");
    assert!(beyond.code == Some(1) && beyond.notes.contains("no state as of version 3"), "{}", beyond.notes);
    assert_eq!(server.rows(&["stream", "drop-snapshots", "flights", "UA1"])[0]["state"], "live");
    assert_eq!(server.run(&["stream", "snapshot", "flights", "UA1"]).code, Some(1));
}

#[test]
fn what_read_writes_append_takes() {
    let server = with_three();
    let text = server.run(&["read", "flights", "-o", "jsonl"]).data;
    server.rows(&["topic", "create", "copy"]);
    let appended = server.rows_with(&["append", "copy"], &text);
    assert_eq!(appended[0]["events"], 3);
    let (mut original, mut copy) = (server.rows(&["read", "flights"]), server.rows(&["read", "copy"]));
    assert_eq!(original[0]["data"], json!({ "delay": 1.10 }));
    assert_eq!((&original[0]["tags"], &original[1]["tags"]), (&json!(["a \"b\"", "ü"]), &Value::Null));
    assert_eq!(original[1]["data_base64"], "/xtbMko=");
    for row in original.iter_mut().chain(&mut copy) {
        for place in ["topic", "position", "recorded_at"] {
            assert!(row.as_object_mut().unwrap().remove(place).is_some());
        }
    }
    assert_eq!(original, copy);
}

#[test]
fn records_and_tombstones_go_both_ways() {
    let server = Server::start();
    server.rows(&["topic", "create", "names", "--kind", "table"]);
    let lines = "{\"key\":\"UA\",\"value\":{\"name\":\"United\"}}\n{\"key_base64\":\"/w==\",\"value_text\":\"null\"}\n{\"key\":\"UA\",\"value\":null}\n";
    server.rows_with(&["append", "names"], lines);
    let rows = server.rows(&["read", "names"]);
    assert_eq!(rows.len(), 3);
    assert_eq!(rows.iter().filter(|row| row.get("value") == Some(&Value::Null)).count(), 1);
    let text = server.run(&["read", "names"]).data;
    assert_eq!(server.rows_with(&["append", "names"], &text)[0]["events"], 3);
    let unkeyed = server.run_with(&["append", "names"], "{\"value\":1}\n");
    assert_eq!(unkeyed.code, Some(1), "{}", unkeyed.notes);
}

#[test]
fn parts_of_a_topic_are_read_by_their_own_numbers() {
    let server = with_three();
    let versions = |rows: Vec<Value>| rows.iter().map(|row| row["version"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(versions(server.rows(&["read", "flights", "--stream", "UA1", "--from", "2"])), [2]);
    assert_eq!(versions(server.rows(&["stream", "flights", "UA1"])), [1, 2]);
    assert_eq!(server.rows(&["read", "flights", "--from", "1", "--limit", "1"])[0]["position"], 1);
    let partition = server.rows(&["read", "flights", "--stream", "AA2"])[0]["partition"].to_string();
    let rows = server.rows(&["read", "flights", "--partition", &partition, "--from", "0"]);
    assert!(rows.iter().any(|row| row["stream"] == "AA2"));
    assert_eq!(server.rows(&["read", "--all"]).len(), 3);
}

#[test]
fn events_are_read_backwards_and_from_a_time() {
    let server = with_three();
    let positions = |arguments: &[&str]| server.rows(arguments).iter().map(|row| row["position"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(positions(&["read", "flights", "--backward"]), [2, 1, 0]);
    assert_eq!(positions(&["read", "flights", "--backward", "--from", "1"]), [1, 0]);
    assert_eq!(positions(&["read", "--all", "--backward", "--limit", "1"]), [2]);
    let versions = |arguments: &[&str]| server.rows(arguments).iter().map(|row| row["version"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(versions(&["stream", "flights", "UA1", "--backward"]), [2, 1]);
    assert_eq!(versions(&["stream", "flights", "UA1", "--last", "1"]), [2]);
    assert_eq!(versions(&["stream", "flights", "UA1", "--last", "9"]), [1, 2]);

    let recorded = server.rows(&["read", "flights"])[0]["recorded_at"].as_str().unwrap().to_owned();
    assert_eq!(positions(&["read", "flights", "--from-time", &recorded]), [0, 1, 2]);
    assert_eq!(positions(&["read", "flights", "--from-time", "2000-01-01T00:00:00Z", "--backward"]), [0_u64; 0]);
    assert_eq!(positions(&["tail", "flights", "--from-time", &recorded, "--limit", "2"]), [0, 1]);
    for usage in [&["--from", "1", "--from-time", &recorded][..], &["--from-time", "yesterday"]] {
        let refused = server.run(&[&["read", "flights"], usage].concat());
        assert_eq!(refused.code, Some(2), "{}", refused.notes);
    }
    assert_eq!(server.run(&["stream", "flights", "UA1", "--last", "1", "--backward"]).code, Some(2));
}

#[test]
fn events_are_read_by_type_and_tag() {
    let server = with_three();
    let positions = |arguments: &[&str]| server.rows(arguments).iter().map(|row| row["position"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(positions(&["read", "flights", "--type", "Departed"]), [0, 1]);
    assert_eq!(positions(&["read", "flights", "--type", "Departed", "--type", "Arrived", "--backward"]), [2, 1, 0]);
    assert_eq!(positions(&["read", "--all", "--tag", "ü", "--tag", "a \"b\""]), [0]);
    assert_eq!(positions(&["read", "flights", "--tag", "ü", "--type", "Arrived"]), [0_u64; 0]);
    assert_eq!(positions(&["stream", "flights", "UA1", "--type", "Arrived"]), [2]);
    assert_eq!(positions(&["tail", "flights", "--from", "0", "--type", "Arrived", "--limit", "1"]), [2]);
    // What it says goes into an append.
    let read = server.run(&["read", "flights", "--tag", "gate:7"]);
    assert!(read.notes.contains("up to position 2"), "{}", read.notes);
    let append = ["append", "flights", "--none-tagged", "gate:7", "--after", "2"];
    let line = r#"{"stream":"UA1","type":"Moved","data":{},"tags":["gate:7"]}"#;
    assert_eq!(server.run_with(&append, line).code, Some(0));
    assert_eq!(server.run_with(&append, line).code, Some(4), "it has one now");

    server.rows(&["topic", "create", "prices", "--kind", "records"]);
    assert_ne!(server.run(&["read", "prices", "--type", "X"]).code, Some(0), "records have no types");
    assert_eq!(server.run(&["stream", "flights", "UA1", "--last", "1", "--type", "X"]).code, Some(2));
}

#[test]
fn every_format_is_well_formed_and_harmless() {
    let server = with_three();
    let json: Value = serde_json::from_str(&server.run(&["read", "flights", "-o", "json"]).data).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 3);
    let csv = server.run(&["read", "flights", "-o", "csv"]).data;
    assert!(csv.starts_with("position,stream,version,type,time,data\n"), "{csv}");
    assert!(csv.contains("\"{\"\"delay\"\":1.10}\"") && csv.contains(",/xtbMko=\n"), "{csv}");
    let table = server.run(&["read", "flights", "-o", "table"]).data;
    assert!(table.contains("\\xff\\u{1b}[2J") && !table.contains('\x1b'), "{table}");
    assert_eq!(table.lines().count(), 5, "{table}");
}

#[test]
fn exit_codes_tell_what_happened() {
    let help = run(foldlog(&["--help"]), "");
    assert!(help.data.contains("Exit codes") && help.data.contains("74"), "{}", help.data);

    let server = with_three();
    let event = "{\"type\":\"X\",\"data\":1}\n";
    let stale = server.run_with(&["append", "flights", "--stream", "UA1", "--expect", "1"], event);
    assert_eq!((stale.code, stale.data.as_str()), (Some(4), ""));
    assert!(stale.notes.contains("UA1 is at version 2, expected version 1"), "{}", stale.notes);
    let right = server.run_with(&["append", "flights", "--stream", "UA1", "--expect", "2"], event);
    assert_eq!(right.code, Some(0), "{}", right.notes);

    let tagged = "{\"stream\":\"UA1\",\"type\":\"X\",\"data\":1,\"tags\":[\"gate:7\"]}\n";
    let once = ["append", "flights", "--none-of-type", "X", "--none-tagged", "gate:7"];
    assert_eq!(server.run_with(&once, tagged).code, Some(0));
    let again = server.run_with(&once, tagged);
    assert_eq!((again.code, again.data.as_str()), (Some(4), ""));
    assert!(again.notes.contains("the event at position 4 matches"), "{}", again.notes);
    assert_eq!(server.run_with(&[&once[..], &["--after", "4"]].concat(), tagged).code, Some(0));
    assert_eq!(server.run_with(&["append", "flights", "--after", "4"], tagged).code, Some(2));

    let missing = server.run(&["read", "nowhere"]);
    assert_eq!(missing.code, Some(1));
    assert!(missing.notes.contains("foldlog topic create nowhere"), "{}", missing.notes);

    for usage in [&["read"][..], &["read", "flights", "--url", "ftp://x"], &["append", "flights", "--expect", "7"], &["nonsense"]] {
        assert_eq!(server.run(usage).code, Some(2), "{usage:?}");
    }

    let url = server.url.clone();
    drop(server);
    let gone = run(foldlog(&["topic", "list", "--url", &url]), "");
    assert_eq!(gone.code, Some(3));
    assert!(gone.notes.contains(&url) && gone.notes.contains("foldlog dev"), "{}", gone.notes);
}

#[test]
fn a_bad_line_keeps_what_came_before_unless_all_is_one() {
    let server = with_three();
    let lines = "{\"stream\":\"S\",\"type\":\"X\",\"data\":1}\n{\"stream\":\"S\",\"typ\":\"X\",\"data\":1}\n{\"stream\":\"S\",\"type\":\"X\",\"data\":1}\n";
    let atomic = server.run_with(&["append", "flights", "--atomic"], lines);
    assert_eq!(atomic.code, Some(1));
    assert!(atomic.notes.contains("line 2: there is no \"type\""), "{}", atomic.notes);
    assert_eq!(server.run(&["stream", "flights", "S"]).code, Some(1), "nothing was appended");
    let ran = server.run_with(&["append", "flights"], lines);
    assert_eq!(ran.code, Some(1));
    assert!(ran.notes.contains("appended before it: 1, after it: nothing"), "{}", ran.notes);
    assert_eq!(server.rows(&["stream", "flights", "S"]).len(), 1);
}

#[test]
fn many_lines_arrive_in_order() {
    let server = Server::start();
    server.rows(&["topic", "create", "many"]);
    let lines: String = (0..5_000).map(|n| format!("{{\"stream\":\"S{}\",\"type\":\"X\",\"data\":{n}}}\n", n % 7)).collect();
    let appended = server.rows_with(&["append", "many"], &lines);
    assert_eq!(appended[0]["events"], 5_000);
    let read = server.rows(&["read", "many", "--at-least", appended[0]["token"].as_str().unwrap()]);
    assert_eq!(read.iter().map(|row| row["data"].as_u64().unwrap()).collect::<Vec<_>>(), (0..5_000).collect::<Vec<_>>());
}

#[test]
fn a_closed_pipe_is_the_end_and_no_error() {
    let server = Server::start();
    server.rows(&["topic", "create", "many"]);
    let lines: String = (0..5_000).map(|n| format!("{{\"stream\":\"S\",\"type\":\"X\",\"data\":{n}}}\n")).collect();
    server.rows_with(&["append", "many"], &lines);
    for verb in [&["read", "many"][..], &["read", "many", "-o", "table"], &["tail", "many", "--from", "0"]] {
        let mut child = server.command(verb).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::with_capacity(64, child.stdout.take().unwrap());
        out.read_line(&mut String::new()).unwrap();
        drop(out);
        let mut notes = String::new();
        child.stderr.take().unwrap().read_to_string(&mut notes).unwrap();
        assert_eq!((child.wait().unwrap().code(), notes.as_str()), (Some(0), ""), "{verb:?}");
    }
}

#[cfg(unix)]
#[test]
fn tail_follows_until_it_is_interrupted() {
    let server = with_three();
    let mut tail = server.command(&["tail", "flights", "--from", "0"]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(tail.stdout.take().unwrap());
    let mut next = || {
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        serde_json::from_str::<Value>(&line).unwrap()["position"].as_u64().unwrap()
    };
    assert_eq!([next(), next(), next()], [0, 1, 2]);
    server.rows_with(&["append", "flights"], THREE);
    assert_eq!([next(), next(), next()], [3, 4, 5]);
    assert!(Command::new("kill").args(["-INT", &tail.id().to_string()]).status().unwrap().success());
    assert_eq!(tail.wait().unwrap().code(), Some(0));
    let limited = server.rows(&["tail", "flights", "--from", "4", "--limit", "2"]);
    assert_eq!(limited.len(), 2);
}

#[test]
fn a_token_that_is_none_is_refused() {
    let server = with_three();
    assert_eq!(server.run(&["read", "flights", "--at-least", "xyz"]).code, Some(2));
    let forged = server.run(&["read", "flights", "--at-least", &"ab".repeat(33)]);
    assert_eq!(forged.code, Some(1));
    assert!(forged.notes.contains("not a token"), "{}", forged.notes);
}

const DELAYS: &str =
    "CREATE STREAM flights (flight VARCHAR KEY, carrier VARCHAR, delay BIGINT) WITH (topic = 'flights', value_format = 'json');
CREATE TABLE delays AS SELECT carrier, COUNT(*) AS n, SUM(delay) AS total FROM flights GROUP BY carrier;
";

/// A view of delays over some flights, and a token of the last one.
fn with_delays() -> (Server, String) {
    let server = Server::start();
    server.rows(&["topic", "create", "flights"]);
    assert_eq!(server.rows_with(&["sql"], DELAYS), Vec::<Value>::new());
    let lines = r#"{"stream":"f1","type":"Arrived","data":{"carrier":"UA","delay":5}}
{"stream":"f2","type":"Arrived","data":{"carrier":"AA","delay":-2}}
{"stream":"f3","type":"Arrived","data":{"carrier":"UA","delay":7}}
"#;
    let token = server.rows_with(&["append", "flights"], lines)[0]["token"].as_str().unwrap().to_owned();
    (server, token)
}

#[test]
fn a_view_answers_what_was_appended() {
    let (server, token) = with_delays();
    let query = ["sql", "SELECT carrier, n, total FROM delays ORDER BY carrier", "--at-least", &token];
    let expected = [json!({ "carrier": "AA", "n": 1, "total": -2 }), json!({ "carrier": "UA", "n": 2, "total": 12 })];
    assert_eq!(server.rows(&query), expected);
    let table = server.run(&[&query[..], &["-o", "table"]].concat()).data;
    let lines: Vec<_> = table.lines().map(str::trim_end).collect();
    assert_eq!((lines[0], lines[3]), ("carrier   n   total", "UA        2      12"), "{table}");
}

#[test]
fn a_script_stops_at_its_first_error_and_says_where() {
    let (server, _) = with_delays();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.sql");
    let path = file.to_str().unwrap();
    write(&file, "SELECT 1 AS one;\n-- a comment; with a semicolon\n  SELEC 2;\nSELECT 3 AS three;\n");
    let ran = server.run(&["sql", "-f", path]);
    assert_eq!((ran.code, ran.data.as_str()), (Some(1), "{\"one\":1}\n"));
    assert!(ran.notes.contains(&format!("{path}:3:3: ")) && ran.notes.contains("\n3 |   SELEC 2;\n  |   ^"), "{}", ran.notes);
    assert!(ran.notes.contains("took effect before: 1"), "{}", ran.notes);
    write(&file, "SELECT 'no end");
    assert!(server.run(&["sql", "-f", path]).notes.contains(&format!("{path}:1:8: ")));
    for usage in [&["sql", "-f", "no such file"][..], &["sql", " ; -- nothing"], &["sql", "SELECT 1", "-f", path]] {
        assert_eq!(server.run(usage).code, Some(2), "{usage:?}");
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's own file")]
fn write(file: &std::path::Path, text: &str) {
    std::fs::write(file, text).unwrap();
}

#[cfg(unix)]
#[test]
fn a_push_query_streams_until_it_is_interrupted() {
    let (server, token) = with_delays();
    let push = ["sql", "SELECT carrier, n FROM delays WHERE carrier = 'UA' EMIT CHANGES", "--at-least", &token];
    let mut child = server.command(&push).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut next = || {
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        serde_json::from_str::<Value>(&line).unwrap()
    };
    assert_eq!(next(), json!({ "change": "+I", "row": { "carrier": "UA", "n": 2 } }));
    server.rows_with(&["append", "flights"], r#"{"stream":"f4","type":"Arrived","data":{"carrier":"UA","delay":1}}"#);
    assert_eq!(next(), json!({ "change": "-U", "row": { "carrier": "UA", "n": 2 } }));
    assert_eq!(next(), json!({ "change": "+U", "row": { "carrier": "UA", "n": 3 } }));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let limited = server.rows(&["sql", "SELECT carrier FROM delays EMIT CHANGES LIMIT 2"]);
    assert_eq!(limited.len(), 2);
}
