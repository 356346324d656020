//! `foldlog backup` of a server that runs, `foldlog restore`, and a server that goes on from there.

use std::path::Path;

use serde_json::Value;

use crate::support::{Ran, Server, foldlog, run};

fn restore(backup: &Path, data: &Path, more: &[&str]) -> Ran {
    let mut command = foldlog(&["restore", "-o", "jsonl", "--data"]);
    command.arg(data).arg(backup).args(more);
    run(command, "")
}

fn texts(server: &Server) -> Vec<String> {
    let read = server.rows(&["read", "orders"]);
    read.iter().map(|event| event["data"]["n"].to_string()).collect()
}

fn append(server: &Server, numbers: std::ops::Range<u32>) -> Value {
    let event = |n| format!("{{\"stream\":\"s{}\",\"type\":\"Placed\",\"data\":{{\"n\":{n}}}}}\n", n % 3);
    server.rows_with(&["append", "orders"], &numbers.map(event).collect::<String>()).remove(0)
}

#[test]
fn a_server_is_backed_up_and_goes_on_from_what_is_restored() {
    let unset = Server::start().run(&["backup", "daily"]);
    assert!(unset.code == Some(1) && unset.notes.contains("FOLDLOG_BACKUPS"), "{unset:?}");
    let backups = tempfile::tempdir().unwrap();
    let backup = backups.path().join("daily");
    let server = Server::over_with(tempfile::tempdir().unwrap(), &[("FOLDLOG_BACKUPS", backups.path().to_str().unwrap())]);
    server.rows(&["topic", "create", "orders"]);
    append(&server, 0..10);
    server.rows(&["sql", "CREATE STREAM o (n BIGINT) WITH (topic = 'orders', value_format = 'json')"]);
    server.rows(&["sql", "CREATE TABLE counted AS SELECT n, COUNT(*) AS times FROM o GROUP BY n"]);
    let taken = server.rows(&["backup", "daily"]).remove(0);
    assert!(taken["files"].as_u64().unwrap() > 0 && taken["copied_bytes"].as_u64().unwrap() > 0, "{taken}");
    append(&server, 10..20);
    let more = server.rows(&["backup", backup.to_str().unwrap()]).remove(0);
    assert!(more["position"].as_u64() > taken["position"].as_u64(), "{more}");
    for (folder, why) in [("/nowhere", "a folder below"), ("../daily", "a folder below"), ("no/where", "the folder around it")] {
        let refused = server.run(&["backup", folder]);
        assert!(refused.code == Some(1) && refused.notes.contains(why), "{refused:?}");
    }
    drop(server);

    let whole = tempfile::tempdir().unwrap();
    let restored = restore(&backup, whole.path(), &[]);
    assert_eq!(restored.code, Some(0), "{}", restored.notes);
    let server = Server::over(whole);
    assert_eq!(texts(&server).len(), 20);
    let rows = server.rows(&["sql", "SELECT n FROM counted WHERE times = 1"]);
    assert_eq!(rows.len(), 20, "queries go on, too");
    append(&server, 20..21);
    assert_eq!(texts(&server).len(), 21);
    drop(server);

    let part = tempfile::tempdir().unwrap();
    let position = taken["position"].to_string();
    assert_eq!(restore(&backup, part.path(), &["--until", &position]).code, Some(0));
    let server = Server::over(part);
    let left = texts(&server);
    assert!(left.len() <= 10, "{left:?}");
    let lost = server.run(&["read", "orders", "--from", &more["position"].to_string()]);
    assert!(lost.code == Some(1) && lost.notes.contains("taken away by a restore"), "{lost:?}");
    let data = server.data.path().to_owned();
    let again = restore(&backup, &data, &[]);
    assert_eq!(again.code, Some(2), "{}", again.notes);
    drop(server);

    let other = tempfile::tempdir().unwrap();
    assert_eq!(restore(other.path(), &other.path().join("new"), &[]).code, Some(2));
    assert_eq!(restore(&backup, &other.path().join("new"), &["--until", "yesterday"]).code, Some(2));
}
