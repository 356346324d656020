//! When and how the server is killed: at a random moment, right at an acknowledgement, or at an exact system call.
//!
//! Exact system calls are strace's work: it delivers SIGKILL as the n-th call of a kind is entered, in the running server or in
//! one that is just starting. Without strace the other kinds remain, and the program says so loudly.

use std::{
    ffi::OsString,
    fmt,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;

use crate::{child::Server, random::Random};

/// How long an exact system call is waited for before the kill comes anyway.
const PATIENCE: Duration = Duration::from_secs(3);

/// Kinds of system calls at which the server is killed, as strace names them, and how far the counting may go; the more a kind
/// matters the more often it stands here.
const CALLS: &[(&str, u64)] = &[
    ("fdatasync", 10),
    ("fdatasync", 10),
    ("fdatasync", 3),
    ("pwrite64", 16),
    ("pwrite64", 16),
    ("pwrite64", 3),
    ("fsync", 4),
    ("fsync", 2),
    ("openat", 6),
    ("ftruncate", 2),
    ("rename,renameat,renameat2", 2),
    ("unlink,unlinkat", 2),
];

/// An exact system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    kinds: &'static str,
    /// Counted from 1, in each thread.
    nth: u64,
}

/// How one cycle ends its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// So long after the load has begun to show.
    After(Duration),
    /// As soon as so many more operations are acknowledged.
    Ack(u64),
    /// At a system call of the running server.
    Running(Call),
}

/// What one cycle does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How the loaded server is killed.
    pub moment: Moment,
    /// System calls at which the servers that recover from it are killed, one after the other.
    pub starts: [Option<Call>; 2],
}

impl Call {
    fn draw(random: &mut Random) -> Self {
        let kind = random.below(CALLS.len() as u64);
        let (kinds, most) = CALLS.get(usize::try_from(kind).unwrap_or(0)).copied().unwrap_or(("fdatasync", 1));
        Self { kinds, nth: 1 + random.below(most) }
    }

    fn flags(self, log: &Path) -> Vec<OsString> {
        let Self { kinds, nth } = self;
        let mut flags: Vec<OsString> = ["-f", "-qq", "-e", &format!("trace={kinds}")].map(OsString::from).into();
        flags.extend(["-e", &format!("inject={kinds}:signal=KILL:when={nth}"), "-o"].map(OsString::from));
        flags.push(log.into());
        flags
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} #{}", self.kinds.split(',').next().unwrap_or_default(), self.nth)
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::After(delay) => write!(f, "after {} ms", delay.as_millis()),
            Self::Ack(count) => write!(f, "at acknowledgement {count}"),
            Self::Running(call) => write!(f, "at {call}"),
        }
    }
}

impl Plan {
    /// Draws a plan; without `strace` no system call is aimed at.
    pub fn draw(random: &mut Random, strace: bool) -> Self {
        let moment = match random.below(if strace { 4 } else { 2 }) {
            0 => Moment::After(Duration::from_micros(random.below(300_000))),
            1 => Moment::Ack(1 + random.below(200)),
            _ => Moment::Running(Call::draw(random)),
        };
        let starts = [0, 1].map(|_| (strace && random.below(4) == 0).then(|| Call::draw(random)));
        Self { moment, starts }
    }
}

/// Whether strace is there and may trace.
pub fn has_strace() -> bool {
    let mut probe = Command::new("strace");
    probe.args(["-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "true"]).stdin(Stdio::null());
    probe.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Kills a running server at a system call, and tells whether the call was met.
pub async fn at_running(server: &mut Server, call: Call, log: &Path) -> anyhow::Result<bool> {
    let mut strace = Command::new("strace");
    strace.args(call.flags(log)).args(["-p", &server.pid().to_string()]);
    let mut strace = strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("cannot run strace")?;
    let met = server.end(PATIENCE).await;
    stop(&mut strace);
    let met = met?.is_some();
    server.kill()?;
    Ok(met)
}

/// What runs a server so that it is killed at a system call while it starts.
pub fn command_of_start(call: Call, log: &Path, foldlog: &Path) -> Vec<OsString> {
    let mut command = vec![OsString::from("strace")];
    command.extend(call.flags(log));
    command.push(foldlog.into());
    command
}

/// Waits for a server that was started so, and tells whether the call was met before it was ready; then it is killed anyway.
pub async fn at_start(server: &mut Server) -> anyhow::Result<bool> {
    let answered = server.answers(PATIENCE).await.is_ok();
    let met = server.ended()?.is_some();
    if !met {
        kill_children(server.pid())?;
        server.end(PATIENCE).await?;
    }
    server.kill()?;
    Ok(met && !answered)
}

/// Kills what strace runs; strace itself must not be killed first, or the server would outlive it.
fn kill_children(parent: u32) -> anyhow::Result<()> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let Ok(children) = std::fs::read_to_string(path) else { return Ok(()) };
    for child in children.split_whitespace() {
        signal("KILL", child)?;
    }
    Ok(())
}

/// Sends a signal by name.
pub fn signal(name: &str, pid: &str) -> anyhow::Result<()> {
    // The process may be gone already: that is what was wanted.
    Command::new("kill").args(["-s", name, pid]).stderr(Stdio::null()).status().context("cannot run kill")?;
    Ok(())
}

fn stop(strace: &mut Child) {
    let _already_gone = strace.kill();
    let _already_waited = strace.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_plans_and_all_kinds_of_them() {
        let draw = |seed| {
            let mut random = Random::new(seed);
            (0..200).map(|_| Plan::draw(&mut random, true)).collect::<Vec<_>>()
        };
        let plans = draw(7);
        assert_eq!(plans, draw(7));
        assert_ne!(plans, draw(8));
        assert!(plans.iter().any(|plan| matches!(plan.moment, Moment::After(_))));
        assert!(plans.iter().any(|plan| matches!(plan.moment, Moment::Ack(_))));
        assert!(plans.iter().any(|plan| matches!(plan.moment, Moment::Running(_))));
        assert!(plans.iter().any(|plan| plan.starts.iter().all(Option::is_some)));
    }

    #[test]
    fn without_strace_no_system_call_is_aimed_at() {
        let mut random = Random::new(1);
        for _ in 0..200 {
            let plan = Plan::draw(&mut random, false);
            assert!(!matches!(plan.moment, Moment::Running(_)) && plan.starts == [None, None]);
        }
    }
}
