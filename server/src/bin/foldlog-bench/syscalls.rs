//! How often the server syncs at 256 appends in flight, as strace counts it.

use std::{ffi::OsString, fmt, path::Path, process::Command};

use anyhow::{Context as _, bail};

use crate::{
    bench::{Bench, PATIENCE},
    load,
    report::{Bound, Report},
};

const CALLS: &str = "fdatasync,fsync,sync_file_range,pwrite64,pwritev,pwritev2,write";

/// Measures; without strace it says that it cannot.
pub async fn goals(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    if !Command::new("strace").arg("-V").output().is_ok_and(|output| output.status.success()) {
        report.note("NOTE: no strace: system calls are not counted");
        return Ok(());
    }
    let many = counted(bench, "strace-256", 8, 256).await?;
    let what = format!("fdatasync calls an append at 256 in flight; {many}");
    report.goal("SYNCS", Bound::Ratio(1.0 / many.appends_a_sync()?, 0.05), None, &what);
    // The other way round: an append that is answered alone has had a sync of its own.
    let one = counted(bench, "strace-1", 1, 1).await?;
    report.goal("SYNC-EACH", Bound::Ratio(one.appends_a_sync()?, 1.0), None, &format!("appends a fdatasync call at 1 in flight; {one}"));
    Ok(())
}

/// What strace counted while appends were made.
struct Counted {
    appends: usize,
    calls: Vec<(String, u64)>,
}

impl Counted {
    #[expect(clippy::cast_precision_loss, reason = "counts of calls")]
    fn appends_a_sync(&self) -> anyhow::Result<f64> {
        match count(&self.calls, "fdatasync") {
            None | Some(0) => bail!("strace counted no sync at all"),
            Some(syncs) => Ok(self.appends as f64 / syncs as f64),
        }
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} appends:", self.appends)?;
        self.calls.iter().try_for_each(|(call, count)| write!(f, " {call} {count}"))
    }
}

async fn counted(bench: &Bench, name: &str, connections: usize, in_flight: usize) -> anyhow::Result<Counted> {
    let summary = bench.folder.join(format!("{name}.summary"));
    let mut command: Vec<OsString> =
        ["strace", "-f", "--seccomp-bpf", "-qq", "-c", "-e", &format!("trace={CALLS}"), "-o"].map(OsString::from).into();
    command.push(summary.clone().into());
    let mut subject = bench.subject(name, command).await?;
    let measured = load::appends(&subject.server.url(), connections, in_flight, 1, bench.time).await?;
    stop(subject.server.pid())?;
    subject.server.end(PATIENCE).await?.context("the server does not stop")?;
    Ok(Counted { appends: measured.calls(), calls: counts(&summary)? })
}

/// Asks the server that strace runs to stop.
fn stop(strace: u32) -> anyhow::Result<()> {
    let path = format!("/proc/{strace}/task/{strace}/children");
    let children = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    for child in children.split_whitespace() {
        Command::new("kill").args(["-s", "TERM", child]).status().context("cannot run kill")?;
    }
    Ok(())
}

/// Calls by name, from strace's summary: the second last number of a line counts them, the last word names them.
fn counts(summary: &Path) -> anyhow::Result<Vec<(String, u64)>> {
    let text = std::fs::read_to_string(summary).context("strace wrote no summary")?;
    Ok(text.lines().filter_map(line).collect())
}

/// `% time, seconds, usecs/call, calls, [errors], name`.
fn line(line: &str) -> Option<(String, u64)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [share, _, _, calls, .., name] = words.as_slice() else { return None };
    share.parse::<f64>().ok()?;
    (*name != "total").then_some(())?;
    Some(((*name).to_owned(), calls.parse().ok()?))
}

fn count(counts: &[(String, u64)], call: &str) -> Option<u64> {
    counts.iter().find(|(name, _)| name == call).map(|(_, count)| *count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_read_by_its_columns() {
        let table = "% time     seconds  usecs/call     calls    errors syscall\n\
                     ------ ----------- ----------- --------- --------- ----------------\n\
                      98.20    1.234567          12      1234           fdatasync\n\
                       1.80    0.012345           3        99         2 write\n\
                     ------ ----------- ----------- --------- --------- ----------------\n\
                     100.00    1.246912                  1333         2 total\n";
        let counts: Vec<_> = table.lines().filter_map(line).collect();
        assert_eq!(counts, [("fdatasync".to_owned(), 1234), ("write".to_owned(), 99)]);
        assert_eq!(count(&counts, "fsync"), None);
    }
}
