//! The program itself in the foreground: what it prints, how it ends, and with which exit code.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, ChildStdout, Command, Output, Stdio},
};

use tempfile::TempDir;

/// A child that does not outlive its test.
struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _already_waited = self.child.wait();
    }
}

fn foldlog(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_foldlog"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FOLDLOG_")) {
        command.env_remove(name);
    }
    // Whatever the disk of the machine has.
    command.envs([("FOLDLOG_LOG_RESERVE_BYTES", "0"), ("FOLDLOG_LOG_RESERVE_PERCENT", "0")]);
    command
}

impl Running {
    fn start(arguments: &[&str]) -> Self {
        Self::of(&mut foldlog(arguments))
    }

    fn of(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Reads the two lines that say where it listens and that it answers.
    fn ready(&mut self) -> String {
        let line = self.line();
        let Some(address) = line.strip_prefix("listening on http://").map(str::to_owned) else {
            let mut told = String::new();
            self.child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
            panic!("{line:?}, and then {:?}: {told}", self.child.wait());
        };
        assert_eq!(self.line(), "ready");
        address
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Reads stderr until it says that.
    fn notes(&mut self, words: &str) {
        let mut noted = Vec::new();
        let mut byte = [0];
        while !String::from_utf8_lossy(&noted).contains(words) {
            self.child.stderr.as_mut().unwrap().read_exact(&mut byte).unwrap();
            noted.push(byte[0]);
        }
    }

    /// Reads stdout until a line says that.
    fn says(&mut self, words: &str) {
        let mut line = self.line();
        while !line.contains(words) {
            assert!(!line.is_empty(), "it ended");
            line = self.line();
        }
    }

    /// Waits for the end; the exit code, if it was not a signal, and what was told.
    fn end(mut self) -> (Option<i32>, String) {
        let mut told = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        (self.child.wait().unwrap().code(), told)
    }
}

fn text(folder: &TempDir) -> &str {
    folder.path().to_str().unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn serve_answers_drains_on_a_signal_and_exits_with_0() {
    for signal in ["-TERM", "-INT"] {
        let folder = TempDir::new().unwrap();
        let mut server = Running::start(&["serve", "--data", text(&folder), "--listen", "127.0.0.1:0"]);
        let address = server.ready();
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        server.signal(signal);
        let (code, told) = server.end();
        assert_eq!(code, Some(0), "{told}");
    }
}

#[tokio::test]
async fn a_killed_server_loses_nothing_that_it_acknowledged() {
    use foldlog_proto::v1::{self as pb, event_log_client::EventLogClient, topics_client::TopicsClient};
    let folder = TempDir::new().unwrap();
    let start = || Running::start(&["serve", "--data", text(&folder), "--listen", "127.0.0.1:0"]);
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let mut server = start();
        let url = format!("http://{}", server.ready());
        if round == 0 {
            let topic = pb::CreateTopicRequest { name: "t".into(), ..Default::default() };
            TopicsClient::connect(url.clone()).await.unwrap().create(topic).await.unwrap();
        }
        let mut log = EventLogClient::connect(url).await.unwrap();
        let source = pb::read_request::Source::Topic(pb::TopicRange { topic: "t".into(), from_position: Some(0) });
        let mut batches = log.read(pb::ReadRequest { source: Some(source), ..Default::default() }).await.unwrap().into_inner();
        let mut found = Vec::new();
        while let Some(batch) = batches.message().await.unwrap() {
            found.extend(batch.events.into_iter().map(|event| (event.position, event.event.unwrap().data.unwrap_or_default())));
        }
        assert_eq!(found, acknowledged, "after {round} kills");
        for n in 0..50 {
            let data = prost::bytes::Bytes::from(format!("{round}:{n}"));
            let event = pb::Event { r#type: "T".into(), data: Some(data.clone()), ..Default::default() };
            let write = pb::Write { topic: "t".into(), stream: format!("s{}", n % 3), events: vec![event], ..Default::default() };
            // A kill takes nothing of what was only written either.
            let durability = if n % 2 == 0 { pb::Durability::Synced } else { pb::Durability::Written };
            let request = pb::AppendRequest { writes: vec![write], durability: durability.into(), ..Default::default() };
            let answer = log.append(request).await.unwrap().into_inner();
            assert_eq!(answer.durability(), durability);
            acknowledged.push((answer.first_position, data));
        }
        server.signal("-KILL");
        assert_eq!(server.end().0, None, "it did not end by itself");
    }
}

#[test]
fn a_second_interrupt_forces_the_end() {
    let folder = TempDir::new().unwrap();
    let mut server = Running::start(&["serve", "--data", text(&folder), "--listen", "127.0.0.1:0"]);
    let address = server.ready();
    let _stuck = stuck(&address);
    server.signal("-INT");
    server.notes("stopping");
    server.signal("-INT");
    let (code, told) = server.end();
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("stopped by force"), "{told}");
}

/// A request that never ends, and so keeps its server draining; it has been taken up when this returns.
fn stuck(address: &str) -> TcpStream {
    let mut stuck = TcpStream::connect(address).unwrap();
    let head = b"POST /foldlog.v1.EventLog/Append HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\nexpect: 100-continue\r\n\r\n";
    stuck.write_all(head).unwrap();
    let mut go_on = [0; 12];
    stuck.read_exact(&mut go_on).unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100");
    stuck
}

#[test]
fn a_forced_end_removes_the_temporary_folder_too() {
    let temporary = TempDir::new().unwrap();
    let mut command = foldlog(&["dev", "--listen", "127.0.0.1:0"]);
    let mut server = Running::of(command.env("TMPDIR", temporary.path()));
    let _stuck = stuck(&server.ready());
    assert_eq!(entries(temporary.path()), 1);
    server.signal("-TERM");
    server.notes("stopping");
    server.signal("-TERM");
    let (code, told) = server.end();
    assert_eq!(code, Some(1), "{told}");
    assert_eq!(entries(temporary.path()), 0);
}

#[test]
fn a_demo_that_is_interrupted_ends_well_and_removes_its_folder() {
    for signal in ["-TERM", "-INT"] {
        let temporary = TempDir::new().unwrap();
        let mut command = foldlog(&["demo", "flights", "--days", "7", "--speed", "21000"]);
        let mut demo = Running::of(command.env("TMPDIR", temporary.path()));
        demo.says("A server is up");
        assert_eq!(entries(temporary.path()), 1);
        demo.signal(signal);
        let (code, told) = demo.end();
        assert_eq!(code, Some(0), "{told}");
        assert!(told.contains("interrupted"), "{told}");
        assert_eq!(entries(temporary.path()), 0);
    }
}

#[test]
fn dev_takes_another_port_if_its_own_is_taken_and_removes_its_folder() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let temporary = TempDir::new().unwrap();
    let mut command = foldlog(&["dev", "--listen", &address]);
    let mut server = Running::of(command.env("TMPDIR", temporary.path()));
    assert_ne!(server.ready(), address);
    assert_eq!(entries(temporary.path()), 1);
    server.signal("-INT");
    let (code, told) = server.end();
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains(&address), "the port that is taken is named: {told}");
    assert_eq!(entries(temporary.path()), 0);
}

#[expect(clippy::disallowed_methods, reason = "this test looks at the folder from outside")]
fn entries(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[test]
fn faults_of_configuration_exit_with_2_and_are_all_told() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("f.toml");
    #[expect(clippy::disallowed_methods, reason = "this test writes a configuration")]
    std::fs::write(&file, "lisen = 'x'\ndrain = 7\n").unwrap();
    let output = foldlog(&["serve", "--config", file.to_str().unwrap(), "--listen", "0.0.0.0:0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    for part in ["line 1: unknown key lisen; did you mean listen?", "line 2: drain cannot be \"7\"", "--insecure-public"] {
        assert!(told(&output).contains(part), "{part} is not in {}", told(&output));
    }
    assert_eq!(foldlog(&["serve", "--frobnicate"]).output().unwrap().status.code(), Some(2));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = foldlog(&["serve", "--data", text(&folder), "--listen", &address]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(told(&output).contains(&address), "{}", told(&output));
}

#[test]
fn variables_and_files_that_are_not_understood_are_refused() {
    use std::os::unix::ffi::OsStrExt as _;
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let serve = || foldlog(&["serve", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()]);
    let output = serve().env("FOLDLOG_LISTN", "x").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(told(&output).contains("FOLDLOG_LISTN is no setting of foldlog; did you mean FOLDLOG_LISTEN?"), "{}", told(&output));
    let output = serve().env("FOLDLOG_LOG_LEVEL", std::ffi::OsStr::from_bytes(b"\xff")).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(told(&output).contains("FOLDLOG_LOG_LEVEL is not UTF-8"), "{}", told(&output));
    for (content, why) in [(&b"data = '\xff'\n"[..], "UTF-8"), (&[b'#'; (1 << 20) + 1], "1 MiB")] {
        let file = folder.path().join("f.toml");
        #[expect(clippy::disallowed_methods, reason = "this test writes a configuration")]
        std::fs::write(&file, content).unwrap();
        let output = serve().arg("--config").arg(&file).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(told(&output).contains("f.toml") && told(&output).contains(why), "{}", told(&output));
    }
    assert!(!data.exists(), "nothing was started");
    let mut server = Running::of(serve().env("FOLDLOG_PORT", "tcp://10.0.0.1:7070").env("FOLDLOG_SERVICE_HOST", "10.0.0.1"));
    server.ready();
}

#[test]
fn without_file_descriptors_for_more_connections_it_serves_those_it_has() {
    let folder = TempDir::new().unwrap();
    let mut few = Command::new("sh");
    few.args([
        "-c",
        "ulimit -n 128 && exec \"$0\" \"$@\"",
        env!("CARGO_BIN_EXE_foldlog"),
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--data",
        text(&folder),
    ]);
    let mut server = Running::of(few.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let address = server.ready();
    let ask = |mut stream: &TcpStream| -> std::io::Result<()> {
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"ready\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            answer.push(byte[0]);
        }
        Ok(())
    };
    let first = TcpStream::connect(&address).unwrap();
    ask(&first).unwrap();
    // More than there can be: the rest is refused, before it takes what the log needs.
    let crowd: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(&address).unwrap()).collect();
    let refused = crowd.iter().filter(|stream| ask(stream).is_err()).count();
    assert_eq!(refused, 200 - 63, "of all connections 64 are served");
    ask(&first).unwrap();
    drop(crowd);
    // The server learns one by one that they are gone.
    assert!((0..10_000).any(|_| ask(&TcpStream::connect(&address).unwrap()).is_ok()), "their places are free again");
    server.signal("-TERM");
    let (code, told) = server.end();
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("at most 64 connections"), "{told}");
}

#[test]
fn a_folder_that_cannot_be_used_exits_with_its_own_code() {
    let folder = TempDir::new().unwrap();
    let mut first = Running::start(&["serve", "--data", text(&folder), "--listen", "127.0.0.1:0"]);
    first.ready();
    let second = foldlog(&["serve", "--data", text(&folder), "--listen", "127.0.0.1:0"]).output().unwrap();
    assert_eq!(second.status.code(), Some(2), "{}", told(&second));
    assert!(told(&second).contains("in use"), "{}", told(&second));
    let beside = TempDir::new().unwrap();
    let file = beside.path().join("a-file");
    #[expect(clippy::disallowed_methods, reason = "this test puts a file in the way")]
    std::fs::write(&file, "x").unwrap();
    let output = foldlog(&["serve", "--data", file.to_str().unwrap(), "--listen", "127.0.0.1:0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(74), "{}", told(&output));
    assert!(told(&output).contains("a-file"), "{}", told(&output));
}

#[test]
fn help_and_version_tell_what_one_needs() {
    let version = foldlog(&["--version"]).output().unwrap();
    assert!(String::from_utf8_lossy(&version.stdout).starts_with("foldlog 0."));
    let help = foldlog(&["serve", "--help"]).output().unwrap();
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    for part in ["foldlog-data", "foldlog.toml", "FOLDLOG_LISTEN", "limits.idle_reader", "query.workers"] {
        assert!(help.contains(part), "{part} is not in {help}");
    }
    let exit_codes = foldlog(&["--help"]).output().unwrap();
    assert!(String::from_utf8_lossy(&exit_codes.stdout).contains("74"));
}

#[test]
fn the_state_of_queries_is_kept_in_pages_and_a_start_goes_on_from_it() {
    let folder = TempDir::new().unwrap();
    let serve = ["serve", "--data", text(&folder), "--listen", "127.0.0.1:0"];
    let sql = |address: &str, statement: &str| {
        let output = foldlog(&["sql", "--url", &format!("http://{address}"), "-o", "jsonl", statement]).output().unwrap();
        assert!(output.status.success(), "{statement}: {}", told(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let mut running = Running::start(&serve);
    let address = running.ready();
    sql(&address, "CREATE STREAM hits (page VARCHAR) WITH (partitions = 1)");
    sql(&address, "CREATE TABLE pages AS SELECT page, COUNT(*) AS n FROM hits GROUP BY page");
    sql(&address, "INSERT INTO hits VALUES ('a'), ('b'), ('a')");
    assert_eq!(sql(&address, "SELECT n FROM pages WHERE page = 'a'"), "{\"n\":2}\n");
    running.signal("-TERM");
    assert_eq!(running.end().0, Some(0));
    let state = folder.path().join("state");
    assert!(state.join("checkpoints").is_file() && state.join("pages").is_dir());
    assert_eq!(entries(&state), 2, "something else is kept, too");
    let mut running = Running::start(&serve);
    let address = running.ready();
    assert_eq!(sql(&address, "SELECT n FROM pages WHERE page = 'a'"), "{\"n\":2}\n");
    let queries = sql(&address, "SHOW QUERIES");
    assert!(queries.contains("\"rows_in\":0"), "records were folded again: {queries}");
}
