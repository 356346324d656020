//! `foldlog log inspect` on the files of a server that runs, and on damaged ones.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{Ran, Server, foldlog, run};

fn inspect(file: &Path, more: &[&str]) -> Ran {
    let mut command = foldlog(&["log", "inspect"]);
    command.arg(file).args(more);
    run(command, "")
}

fn parts(ran: &Ran) -> Vec<Value> {
    ran.data.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The files of the log; the state of queries is kept in a folder beside it, which may be deleted at any time.
#[expect(clippy::disallowed_methods, reason = "a test looks at what lies there")]
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| !path.ends_with("state"));
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn with_events() -> Server {
    let server = Server::start();
    server.rows(&["topic", "create", "orders", "--compression", "zstd"]);
    let event = |n| format!("{{\"stream\":\"s{}\",\"type\":\"Placed\",\"data\":{{\"n\":{n}}},\"tags\":[\"t\"]}}\n", n % 2);
    server.rows_with(&["append", "orders"], &(0..20).map(event).collect::<String>());
    server.rows(&["stream", "truncate", "orders", "s1", "--before", "3"]);
    server
}

#[test]
fn every_file_of_a_running_server_can_be_looked_at() {
    let server = with_events();
    let mut records = Vec::new();
    for file in files(server.data.path()) {
        let ran = inspect(&file, &["--records", "-o", "jsonl"]);
        assert_eq!((ran.code, ran.notes.as_str()), (Some(0), ""), "{}", file.display());
        let parts = parts(&ran);
        assert!(!parts.is_empty() && parts.iter().all(|part| part.get("damage").is_none()), "{}", file.display());
        records.extend(parts.into_iter().filter(|part| part["part"] == "record" && part["type"] == "Placed"));
        let table = inspect(&file, &["-o", "table"]);
        assert!(table.code == Some(0) && table.data.lines().next().unwrap().contains(" part "), "{}", table.data);
    }
    records.sort_by_key(|record| record["value"].to_string());
    records.dedup_by_key(|record| record["value"].to_string());
    assert_eq!(records.len(), 20);
    assert_eq!((&records[0]["key"], &records[0]["version"], &records[0]["tags"][0]), (&"s0".into(), &1.into(), &"t".into()));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test damages what lies there")]
fn damage_is_told_with_file_and_bytes_and_exit_code_1() {
    let server = with_events();
    let journal = files(server.data.path()).into_iter().find(|file| file.extension().is_some_and(|end| end == "journal")).unwrap();
    let whole = parts(&inspect(&journal, &["--records"]));
    let mark = whole.iter().find(|part| part["mark"] == "truncated").unwrap();
    assert_eq!((&mark["key"], &mark["mark_version"]), (&"s1".into(), &3.into()));
    let frame = whole.iter().find(|part| part["part"] == "frame" && part["kind"] == "group").unwrap();
    let (from, end) = (frame["from"].as_u64().unwrap(), frame["end"].as_u64().unwrap());
    // The file alone, as somebody sent it.
    let copy = server.data.path().join("sent");
    let mut bytes = std::fs::read(&journal).unwrap();
    bytes[usize::try_from(end).unwrap() - 1] ^= 1;
    std::fs::write(&copy, bytes).unwrap();
    let ran = inspect(&copy, &[]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.notes.contains(&format!("damage in {}, bytes {from} to {end}: the frame's body", copy.display())), "{}", ran.notes);
    let damaged = parts(&ran).into_iter().filter(|part| part.get("damage").is_some()).collect::<Vec<_>>();
    assert!(damaged.len() == 1 && damaged[0]["from"] == from, "{damaged:?}");
    assert!(parts(&ran).len() < whole.len(), "records are shown where they are asked for");
}

#[test]
fn what_is_no_file_of_ours_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let missing = inspect(&folder.path().join("none"), &[]);
    assert!(missing.code == Some(1) && missing.notes.contains("failed to open"), "{}", missing.notes);
    let other = inspect(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml").as_path(), &[]);
    assert!(other.code == Some(2) && other.notes.contains("neither its name nor its first bytes"), "{}", other.notes);
}
