//! The SQL shell on a terminal: what is typed, what is shown, and what Ctrl-C ends. The terminal is made by `script` of util-linux.

use std::{
    io::{Read as _, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use foldlog_log::clock::{Clock as _, SystemClock};

use crate::{proxy::Proxy, support::Server};

/// Longest time until something is shown.
const PATIENCE: Duration = Duration::from_secs(60);

/// A shell in a terminal of its own.
struct Terminal {
    child: Child,
    keys: Arc<Mutex<ChildStdin>>,
    screen: Arc<Mutex<Vec<u8>>>,
    /// What was seen already, in bytes of what is shown.
    seen: usize,
    state: tempfile::TempDir,
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _already_waited = self.child.wait();
    }
}

impl Terminal {
    fn open(url: &str, term: &str) -> Self {
        let state = tempfile::tempdir().unwrap();
        let shell = format!("stty rows 24 cols 80; exec {} sql", env!("CARGO_BIN_EXE_foldlog"));
        let mut command = Command::new("script");
        command.args(["--quiet", "--flush", "--return", "--command", &shell, "/dev/null"]);
        command.env("FOLDLOG_URL", url).env("TERM", term).env("XDG_STATE_HOME", state.path()).env_remove("PAGER").env("NO_COLOR", "1");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let keys = Arc::new(Mutex::new(child.stdin.take().unwrap()));
        let screen = Arc::new(Mutex::new(Vec::new()));
        let mut out = child.stdout.take().unwrap();
        let (answers, shown) = (Arc::clone(&keys), Arc::clone(&screen));
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count) = out.read(&mut bytes) {
                if count == 0 {
                    break;
                }
                let mut screen = shown.lock().unwrap();
                // Where the question for the cursor's place may have come in two parts.
                let from = screen.len().saturating_sub(3);
                screen.extend_from_slice(&bytes[..count]);
                let asked = screen[from..].windows(4).filter(|part| part == b"\x1b[6n").count();
                drop(screen);
                for _ in 0..asked {
                    let _closed = answers.lock().unwrap().write_all(b"\x1b[1;1R");
                }
            }
        });
        let mut terminal = Self { child, keys, screen, seen: 0, state };
        terminal.shows("\\? for help");
        terminal.shows("foldlog> ");
        terminal
    }

    fn types(&self, text: &str) {
        let mut keys = self.keys.lock().unwrap();
        keys.write_all(text.as_bytes()).unwrap();
        keys.flush().unwrap();
    }

    /// Waits until a text is shown behind what was seen.
    fn shows(&mut self, text: &str) {
        let clock = SystemClock::new();
        loop {
            let shown = plain(&self.screen.lock().unwrap());
            if let Some(at) = shown.get(self.seen..).and_then(|new| new.find(text)) {
                self.seen += at + text.len();
                return;
            }
            assert!(clock.monotonic() < PATIENCE, "no {text:?} in {:?}", shown.get(self.seen..));
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn ends(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

/// What is shown, without colours and moves of the cursor.
fn plain(screen: &[u8]) -> String {
    let text = String::from_utf8_lossy(screen);
    let mut plain = String::new();
    let mut chars = text.chars().filter(|c| *c != '\r');
    while let Some(c) = chars.next() {
        if c != '\x1b' {
            plain.push(c);
        } else if chars.next() == Some('[') {
            chars.by_ref().find(|c| c.is_ascii_alphabetic());
        }
    }
    plain
}

#[test]
fn a_shell_keeps_its_session_and_ctrl_c_ends_a_query_alone() {
    let server = Server::start();
    let mut shell = Terminal::open(&server.url, "xterm-256color");
    shell.types("CREATE STREAM s (k VARCHAR, number INT) WITH (partitions = 1);\r");
    shell.shows("stream s created over topic s");
    shell.shows("foldlog> ");
    shell.types("INSERT INTO s -- ;\r");
    shell.shows("...> ");
    shell.types("VALUES ('a;', 1), ('b', 2);\r");
    shell.shows("2 rows inserted into s");
    shell.shows("foldlog> ");
    shell.types("SELECT k, number FROM s ORDER BY number;\r");
    shell.shows("a;        1\nb         2\n(2 rows)");
    shell.shows("foldlog> ");
    shell.types("SELECT k,\r");
    shell.types("  numbr FROM s;\r");
    shell.shows("error: column numbr does not exist; did you mean number?\n2 |   numbr FROM s;\n  |   ^");
    shell.shows("foldlog> ");
    shell.types("DEFINE name = 's';\r");
    shell.shows("${name} stands for s");
    shell.shows("foldlog> ");
    shell.types("\\timing\r");
    shell.shows("timing is on");
    shell.shows("foldlog> ");
    shell.types("SELECT COUNT(*) AS many FROM ${name};\r");
    shell.shows("(1 row)\ntook ");
    shell.shows("foldlog> ");

    shell.types("SELECT k FROM s EMIT CHANGES;\r");
    // Until the query has begun, what is inserted is not its own.
    let insert = ["sql", "INSERT INTO s VALUES ('later', 3)"];
    let clock = SystemClock::new();
    while !plain(&shell.screen.lock().unwrap()).contains("later") {
        assert!(clock.monotonic() < PATIENCE);
        assert_eq!(server.run(&insert).code, Some(0));
    }
    shell.shows("+I");
    shell.types("\x03");
    shell.shows("change");
    shell.shows("foldlog> ");
    shell.types("PRINT s FROM BEGINNING LIMIT 1;\r");
    shell.shows("{\"k\":\"a;\",\"number\":1}");
    shell.shows("(1 change)");
    shell.shows("foldlog> ");
    shell.types("SELECT 'given up'");
    shell.shows("given up'");
    shell.types("\x03");
    shell.shows("foldlog> ");
    shell.types("\\x on\r");
    shell.shows("expanded display is on");
    shell.shows("foldlog> ");
    shell.types("\\pager off\r");
    shell.shows("the pager is off");
    shell.shows("foldlog> ");
    shell.types("\\d s\r");
    shell.shows("── row 1 ──\ncolumn  k\n");
    shell.shows("foldlog> ");
    shell.types("SET 'sql.dialect' = 'ksql';\r");
    shell.shows("ksql> ");
    shell.types("\\timng\r");
    shell.shows("error: \\timng is no command; did you mean \\timing?");
    shell.shows("ksql> ");
    shell.types("exit\r");
    let state = std::mem::replace(&mut shell.state, tempfile::tempdir().unwrap());
    assert_eq!(shell.ends(), Some(0));
    let history = state.path().join("foldlog/sql_history");
    let mode = std::os::unix::fs::PermissionsExt::mode(&history.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn tab_completes_from_what_the_server_has() {
    let server = Server::start();
    assert_eq!(server.run(&["sql", "CREATE STREAM measurements (station VARCHAR) WITH (partitions = 1)"]).code, Some(0));
    let mut shell = Terminal::open(&server.url, "xterm-256color");
    shell.types("SELECT COUNT(*) FROM meas\t;\r");
    shell.shows("(1 row)");
    shell.types("DESCRIBE meas\t;\r");
    shell.shows("station");
    shell.types("\x04");
    assert_eq!(shell.ends(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_gone_ends_a_statement_and_not_the_shell() {
    let server = Server::start();
    let proxy = Proxy::to(&server.url).await;
    let mut shell = Terminal::open(&proxy.url, "dumb");
    shell.types("DEFINE n = '7';\n");
    shell.shows("${n} stands for 7");
    proxy.lead_to("http://127.0.0.1:1");
    proxy.cut();
    shell.types("SELECT ${n} + 1 AS sum;\n");
    shell.shows("error: ");
    shell.shows("the session is kept; the next statement connects again");
    shell.shows("foldlog> ");
    proxy.lead_to(&server.url);
    shell.types("SELECT ${n} + 35 AS sum;\n");
    shell.shows("42\n(1 row)");
    // Also one that goes on.
    shell.types("CREATE STREAM s (a INT) WITH (partitions = 1);\n");
    shell.shows("stream s created");
    shell.types("INSERT INTO s VALUES (77); SET 'auto.offset.reset' = 'earliest'; SELECT a FROM s EMIT CHANGES;\n");
    shell.shows(" 77\n");
    proxy.cut();
    shell.shows("(1 change)\nerror: the connection to foldlog at ");
    shell.shows("the session is kept; the next statement connects again");
    shell.shows("foldlog> ");
    shell.types("SELECT 1\n");
    shell.shows("...> ");
    shell.types("\x03");
    shell.shows("foldlog> ");
    shell.types("\\q\n");
    assert_eq!(shell.ends(), Some(0));
}

#[test]
fn a_key_turns_a_page_and_ctrl_c_there_ends_all_that_was_asked_for() {
    let server = Server::start();
    let mut shell = Terminal::open(&server.url, "xterm-256color");
    let rows: Vec<String> = (1..=100).map(|n| format!("({n})")).collect();
    let statement = format!("VALUES {};", rows.join(", "));
    shell.types(&format!("{statement}\r"));
    shell.shows(" 21\n");
    shell.shows("-- more: any key; no more: q --");
    // Of a key that sends several bytes no one is taken for the next key.
    shell.types("\x1b[6~");
    shell.shows(" 44\n");
    shell.shows("-- more");
    shell.types("q");
    shell.shows("foldlog> ");
    shell.types(&format!("{statement} SELECT 'not asked any more';\r"));
    shell.shows("-- more");
    shell.types("\x03");
    shell.shows("interrupted\n1 statement behind it not executed\n");
    shell.shows("foldlog> ");
    shell.types("\\q\r");
    assert_eq!(shell.ends(), Some(0));
}

#[test]
fn long_results_are_shown_page_by_page() {
    let server = Server::start();
    let mut shell = Terminal::open(&server.url, "dumb");
    let rows: Vec<String> = (1..=100).map(|n| format!("({n})")).collect();
    let statement = format!("VALUES {};\n", rows.join(", "));
    shell.types(&statement);
    shell.shows(" 21\n");
    shell.shows("-- more: Enter; no more: q, Enter --");
    shell.types("\n");
    shell.shows(" 44\n");
    shell.shows("-- more");
    shell.types("q\n");
    shell.shows("foldlog> ");
    shell.types("\\pager off\n");
    shell.types(&statement);
    shell.shows(" 100\n(100 rows)");
    shell.types("\\q\n");
    assert_eq!(shell.ends(), Some(0));
}
