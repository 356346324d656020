//! `foldlog topic export` and `import`: what comes out goes in again, to the byte, once.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Ran, Server};

/// What only the log decides, and so is new in another topic.
const DECIDED: [&str; 4] = ["topic", "position", "offset", "recorded_at"];

fn append(server: &Server, topic: &str, lines: &[Value]) {
    let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
    server.rows_with(&["append", topic], &lines);
}

/// Everything of a topic, to the byte, but for what the log decided.
fn all(server: &Server, topic: &str) -> Vec<Value> {
    let mut rows = server.rows(&["topic", "export", topic]);
    for row in &mut rows {
        let row = row.as_object_mut().unwrap();
        for name in DECIDED {
            assert!(row.remove(name).is_some(), "{name}");
        }
    }
    rows
}

/// The same by partition: records of several partitions have no order among them that an import keeps.
fn by_partition(server: &Server, topic: &str) -> Vec<Value> {
    let mut rows = all(server, topic);
    rows.sort_by_key(|row| row["partition"].as_u64());
    rows
}

#[expect(clippy::disallowed_methods, reason = "files of the user")]
fn file(folder: &Path, name: &str, content: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

#[expect(clippy::disallowed_methods, reason = "a file of the user")]
fn content(path: &str) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn refused(ran: &Ran, parts: &[&str]) {
    assert!(ran.code == Some(1) && parts.iter().all(|part| ran.notes.contains(part)), "{parts:?}: {ran:?}");
}

#[test]
fn events_come_back_to_the_byte_with_their_versions() {
    let (server, folder) = (Server::start(), tempfile::tempdir().unwrap());
    server.rows(&["topic", "create", "from"]);
    let full = json!({
        "stream": "b", "type": "Full", "data_text": "{ \"spaced\" :\n 1.10 }", "time": "2013-02-09T00:00:00.007Z", "content_type": "application/json",
        "schema": "s", "event_id": "07070707-0707-0707-0707-070707070707", "correlation_id_base64": "/wA=", "causation_id": "order,\"1\"",
        "tags": ["owner:7", "a\"b"], "attributes": { "k": "v\n" }, "traceparent": "00-1", "tracestate": "x=y"
    });
    let mut lines = vec![full];
    for (number, data) in ["plain, \"quoted\"\r\ntext\r\n", "", " edge ", "null", "=1+1", "[1, 2]"].into_iter().enumerate() {
        lines.push(json!({ "stream": format!("s{}", number % 2), "type": "T", "data_text": data, "time": number as i64 - 3 }));
    }
    lines.push(json!({ "stream": "s0", "type": "Bytes", "data_base64": "//4A", "time": 253_402_300_799_999_i64 }));
    lines.push(json!({ "stream": "s1", "type": "Json", "data": { "n": 1 } }));
    append(&server, "from", &lines);
    let before = all(&server, "from");
    assert_eq!(before.len(), lines.len());
    assert_eq!((&before[0]["data_text"], &before[8]["data"]), (&lines[0]["data_text"], &json!({ "n": 1 })));
    for format in ["jsonl", "csv", "parquet"] {
        let path = folder.path().join(format!("events.{format}"));
        let path = path.to_str().unwrap();
        let exported = server.run(&["topic", "export", "from", "--output", path]);
        // No progress bar where nobody sees it.
        assert_eq!((exported.code, exported.data.as_str(), exported.notes.as_str()), (Some(0), "", "exported 9 events of topic from\n"));
        server.rows(&["topic", "create", format]);
        let imported = server.rows(&["topic", "import", format, path]).remove(0);
        assert_eq!((&imported["rows"], &imported["already_there"]), (&json!(9), &json!(0)));
        assert_eq!(all(&server, format), before, "{format}");
        // Nothing is appended twice, unless that is asked for; nor is another topic taken for this one.
        let again = server.rows(&["topic", "import", format, path]).remove(0);
        assert_eq!((&again["rows"], &again["already_there"]), (&json!(9), &json!(9)));
        assert_eq!(all(&server, format).len(), 9);
        assert_eq!(server.rows(&["topic", "import", format, path, "--again"])[0]["already_there"], 0);
        assert_eq!(all(&server, format).len(), 18);
        server.run(&["topic", "delete", format, "--yes"]);
        server.rows(&["topic", "create", format]);
        assert_eq!(server.rows(&["topic", "import", format, path])[0]["already_there"], 0);
        assert_eq!(all(&server, format), before, "{format}");
    }
}

#[test]
fn what_is_redacted_keeps_its_place_and_comes_without_data() {
    let (server, folder) = (Server::start(), tempfile::tempdir().unwrap());
    server.rows(&["topic", "create", "from"]);
    let event = |number: i64| json!({ "stream": "s", "type": format!("T{number}"), "data_text": format!("secret {number}"), "schema": "v1", "tags": ["a"], "time": number });
    append(&server, "from", &[1, 2, 3, 4].map(event));
    server.rows(&["stream", "redact", "from", "s", "2-3", "--by", "ann", "--reason", "asked to"]);
    let mut expected = all(&server, "from");
    assert_eq!((&expected[1]["redacted"], expected[1].get("data_text"), &expected[1]["version"]), (&json!(true), None, &json!(2)));
    for row in &mut expected[1..3] {
        let row = row.as_object_mut().unwrap();
        row.remove("redacted");
        row.insert("data".into(), Value::Null);
    }
    for format in ["jsonl", "csv", "parquet"] {
        let path = folder.path().join(format!("events.{format}"));
        let path = path.to_str().unwrap();
        assert_eq!(server.run(&["topic", "export", "from", "--output", path]).notes, "exported 4 events of topic from\n");
        server.rows(&["topic", "create", format]);
        let imported = server.rows(&["topic", "import", format, path]).remove(0);
        assert_eq!((&imported["rows"], &imported["redacted"]), (&json!(4), &json!(2)), "{format}");
        assert_eq!(all(&server, format), expected, "{format}");
    }
    // What is not imported must say what it is to be.
    let line = server.run(&["topic", "export", "from"]).data.lines().nth(1).unwrap().to_owned();
    let appended = server.run_with(&["append", "from"], &line);
    assert!(appended.code != Some(0) && appended.notes.contains("its data was redacted"), "{appended:?}");
    let both = line.replace("\"redacted\":true", "\"redacted\":true,\"data\":1");
    let path = file(folder.path(), "both.jsonl", &format!("{line}\n{both}\n"));
    refused(&server.run(&["topic", "import", "from", &path]), &["both.jsonl, line 2", "an event that is redacted", "nothing was appended"]);
    assert_eq!(all(&server, "from").len(), 4);
}

#[test]
fn records_come_back_to_the_byte_in_their_partitions() {
    let (server, folder) = (Server::start(), tempfile::tempdir().unwrap());
    let rows = [
        json!({ "partition": 2, "key": "k", "value": { "a": 1 }, "time": 5 }),
        json!({ "partition": 0, "key": "k", "value": null, "time": "2013-01-01T00:00:00.000Z", "headers_base64": [["h", null], ["h", "AA=="], ["", ""]] }),
        json!({ "partition": 1, "key": "", "value_text": "", "time": 6 }),
        json!({ "partition": 1, "value_text": "null", "time": 7 }),
        json!({ "partition": 1, "key_base64": "/w==", "value_base64": "/v8=", "time": 8 }),
        json!({ "partition": 1, "key": "a,b\n", "value_text": "x\ny", "time": 9 }),
    ];
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let first = file(folder.path(), "rows.ndjson", &lines);
    let create = |topic: &str| server.rows(&["topic", "create", topic, "--kind", "records", "--partitions", "3"]);
    create("from");
    assert_eq!(server.rows(&["topic", "import", "from", &first])[0]["rows"], 6);
    let before = by_partition(&server, "from");
    assert_eq!(before.iter().map(|row| row["partition"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 1, 1, 1, 2]);
    assert_eq!((&before[0]["value"], &before[1]["key"], before[2].get("key")), (&Value::Null, &json!(""), None));
    assert_eq!(
        (&before[1]["value_text"], &before[2]["value_text"], &before[3]["value_base64"]),
        (&json!(""), &json!("null"), &json!("/v8="))
    );
    for format in ["jsonl", "csv", "parquet"] {
        let mut path = folder.path().join(format!("records.{format}")).to_str().unwrap().to_owned();
        if format == "parquet" {
            assert_eq!(server.run(&["topic", "export", "from", "--output", &path]).code, Some(0));
        } else {
            // To stdout as to a file.
            let exported = server.run(&["topic", "export", "from", "--format", format]);
            path = file(folder.path(), &format!("records.{format}"), &exported.data);
        }
        create(format);
        server.rows(&["topic", "import", format, &path]);
        assert_eq!(by_partition(&server, format), before, "{format}");
    }
    // One partition is too few for what the file says, unless keys decide.
    server.rows(&["topic", "create", "one", "--kind", "records", "--partitions", "1"]);
    refused(&server.run(&["topic", "import", "one", &first]), &["rows.ndjson, line 1", "partition 2", "--by-key", "nothing was appended"]);
    assert_eq!(server.rows(&["topic", "import", "one", &first, "--by-key"])[0]["rows"], 6);
    server.rows(&["topic", "create", "table", "--kind", "table", "--partitions", "3"]);
    refused(&server.run(&["topic", "import", "table", &first]), &["line 4", "key", "nothing was appended"]);
}

#[test]
fn a_file_that_is_wrong_is_named_with_its_line_and_nothing_of_it_is_appended() {
    let (server, folder) = (Server::start(), tempfile::tempdir().unwrap());
    server.rows(&["topic", "create", "e"]);
    server.rows(&["topic", "create", "r", "--kind", "records"]);
    let good = "{\"stream\":\"s\",\"type\":\"T\",\"data\":1}\n";
    let cases = [
        ("e", "a.jsonl", format!("{good}\n{{\"stream\":\"s\",\"type\":\"T\",}}\n"), &["a.jsonl, line 3", "column 26"][..]),
        ("e", "b.jsonl", format!("{good}{{\"stream\":\"s\",\"type\":\"T\",\"data\":1,\"sort\":2}}"), &["line 2", "\"sort\" is not known"]),
        ("e", "c.csv", "stream,type,data,data_is\ns,T,x,\ns,T,\"y\n\n\",\ns,T,%,base64\n".into(), &["c.csv, line 6", "data_base64"]),
        ("e", "d.csv", "stream,type,data\ns,T,x\ns,T\n".into(), &["line 3", "2 columns", "header has 3"]),
        ("e", "f.csv", "stream,type,data,data\n".into(), &["line 1", "\"data\" stands there twice"]),
        ("r", "g.csv", "key,value\nk,v\n\"k\",v,w\n".into(), &["line 3", "3 columns"]),
        ("r", "k.parquet", "PAR1 and no more PAR1".into(), &["k.parquet", "Parquet"]),
        ("r", "h.csv", "key,value,colour\nk,v,red\n".into(), &["line 2", "\"colour\" is not known"]),
    ];
    for (topic, name, content, parts) in cases {
        let path = file(folder.path(), name, &content);
        let ran = server.run(&["topic", "import", topic, &path]);
        refused(&ran, parts);
        assert!(ran.notes.contains("nothing was appended"), "{ran:?}");
    }
    refused(&server.run(&["topic", "import", "e", "/nowhere.csv"]), &["/nowhere.csv: No such file"]);
    let unsaid = server.run(&["topic", "import", "e", &file(folder.path(), "i.txt", good)]);
    assert!(unsaid.code == Some(2) && unsaid.notes.contains("--format"), "{unsaid:?}");
    assert!(all(&server, "e").is_empty() && all(&server, "r").is_empty());
    // What an export cannot finish leaves the file as it was.
    let kept = file(folder.path(), "kept.csv", "kept");
    assert_eq!(server.run(&["topic", "export", "nowhere", "--output", &kept]).code, Some(1));
    assert_eq!(content(&kept), "kept");
    // A plain table of somebody else's is taken as it is.
    let plain = file(folder.path(), "plain.csv", "\u{feff}value,key\n\"a\nb\",k\n,\n");
    assert_eq!(server.rows(&["topic", "import", "r", &plain])[0]["rows"], 2);
    let rows = all(&server, "r");
    let of = |key: Option<&str>| rows.iter().find(|row| row.get("key").and_then(Value::as_str) == key).unwrap()["value_text"].clone();
    assert_eq!((of(Some("k")), of(None)), (json!("a\nb"), json!("")));
}
