//! What the stories share: the program itself, as a server and as a verb.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdout, Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

/// A server that does not outlive its test.
pub struct Server {
    child: Child,
    out: BufReader<ChildStdout>,
    /// Where it is.
    pub url: String,
    /// Where its files are.
    pub data: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _already_waited = self.child.wait();
    }
}

impl Server {
    /// Starts one over a new folder and waits until it answers.
    pub fn start() -> Self {
        Self::over(tempfile::tempdir().unwrap())
    }

    /// Kills it, as `kill -9` does, and starts another one over the same folder.
    pub fn killed_and_started(mut self) -> Self {
        let data = std::mem::replace(&mut self.data, tempfile::tempdir().unwrap());
        drop(self);
        Self::over(data)
    }

    /// Starts one over a folder that is there.
    pub fn over(data: TempDir) -> Self {
        Self::over_with(data, &[])
    }

    /// The same with settings of its own, as the environment has them.
    pub fn over_with(data: TempDir, settings: &[(&str, &str)]) -> Self {
        let mut command = foldlog(&["serve", "--listen", "127.0.0.1:0", "--log-level", "error", "--data"]);
        command.envs(settings.iter().copied());
        let mut child = command.arg(data.path()).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut server = Self { child, out, url: String::new(), data };
        server.url = server.line().strip_prefix("listening on ").unwrap().to_owned();
        assert_eq!(server.line(), "ready");
        server
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// A verb that is told where this server is.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = foldlog(arguments);
        command.env("FOLDLOG_URL", &self.url);
        command
    }

    /// Runs a verb.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, "")
    }

    /// Runs a verb on an input.
    pub fn run_with(&self, arguments: &[&str], input: &str) -> Ran {
        run(self.command(arguments), input)
    }

    /// Runs what must succeed; its JSON lines.
    pub fn rows(&self, arguments: &[&str]) -> Vec<Value> {
        self.rows_with(arguments, "")
    }

    /// Runs on an input what must succeed; its JSON lines.
    pub fn rows_with(&self, arguments: &[&str], input: &str) -> Vec<Value> {
        let ran = self.run_with(arguments, input);
        assert_eq!(ran.code, Some(0), "{arguments:?}: {}", ran.notes);
        ran.data.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// The program, without what the environment says to it.
pub fn foldlog(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_foldlog"));
    command.args(arguments);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FOLDLOG_")) {
        command.env_remove(name);
    }
    // Whatever the disk of the machine has.
    command.envs([("FOLDLOG_LOG_RESERVE_BYTES", "0"), ("FOLDLOG_LOG_RESERVE_PERCENT", "0")]);
    command
}

/// What a verb left behind.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code.
    pub code: Option<i32>,
    /// What stood on stdout.
    pub data: String,
    /// What stood on stderr.
    pub notes: String,
}

/// Runs a verb on an input.
pub fn run(mut command: Command, input: &str) -> Ran {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A verb that fails early does not read its input.
    let _unread = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    Ran { code: output.status.code(), data: String::from_utf8(output.stdout).unwrap(), notes: String::from_utf8(output.stderr).unwrap() }
}
