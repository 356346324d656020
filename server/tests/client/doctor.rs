//! `foldlog doctor` on the folder of a server that runs, of one that was killed, and on a damaged one.

use std::path::Path;

use serde_json::Value;

use crate::support::{Ran, Server, foldlog, run};

fn doctor(folder: &Path) -> Ran {
    let mut command = foldlog(&["doctor", "-o", "jsonl", "--data"]);
    command.arg(folder);
    run(command, "")
}

fn findings(ran: &Ran) -> Vec<Value> {
    ran.data.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn checks(findings: &[Value], health: &str) -> Vec<String> {
    findings.iter().filter(|finding| finding["health"] == health).map(|finding| finding["check"].as_str().unwrap().to_owned()).collect()
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test damages what lies there")]
fn a_folder_is_looked_at_beside_its_server_and_without_and_damage_is_exit_code_1() {
    let mut server = Server::start();
    server.rows(&["topic", "create", "orders"]);
    server.rows_with(&["append", "orders"], "{\"stream\":\"s\",\"type\":\"Placed\",\"data\":{}}\n");
    let ran = doctor(server.data.path());
    assert_eq!((ran.code, ran.notes.as_str()), (Some(0), ""));
    let found = findings(&ran);
    assert_eq!(checks(&found, "bad"), Vec::<String>::new());
    assert!(found[0]["check"] == "lock" && found[0]["finding"].as_str().unwrap().contains("has the folder open"), "{}", found[0]);

    let data = std::mem::replace(&mut server.data, tempfile::tempdir().unwrap());
    drop(server);
    let ran = doctor(data.path());
    let found = findings(&ran);
    assert_eq!((ran.code, checks(&found, "bad").len()), (Some(0), 0), "{}", ran.data);
    assert!(["lock", "space", "clock", "start", "files"].iter().all(|check| checks(&found, "good").iter().any(|good| good == check)));

    let manifest = data.path().join("foldlog.json");
    let mut bytes = std::fs::read(&manifest).unwrap();
    bytes[3] ^= 1;
    std::fs::write(&manifest, bytes).unwrap();
    let ran = doctor(data.path());
    assert_eq!(ran.code, Some(1));
    assert_eq!(checks(&findings(&ran), "bad"), ["start", "files"]);
    assert!(ran.notes.contains("2 findings are bad"), "{}", ran.notes);

    let empty = tempfile::tempdir().unwrap();
    let ran = doctor(empty.path());
    assert!(ran.code == Some(2) && ran.notes.contains("is no data folder"), "{}", ran.notes);
}
