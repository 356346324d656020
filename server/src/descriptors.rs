//! How many connections the file descriptors of the process allow: the log must never find that they have taken its last one, for it
//! ends the process when it cannot open a file that it needs.
//!
//! Called once, when a server starts.

use std::io::{self, Read as _};

use tracing::info;

/// Descriptors that are kept for everything else: segments, journal, runtime. Half of them if there are few.
const RESERVE: usize = 512;
/// Where Linux tells the limits of a process. Elsewhere nothing is known, and nothing cut.
const LIMITS: &str = "/proc/self/limits";
/// A page of text; the file is one.
const MAX_BYTES: u64 = 64 << 10;

/// As many connections as wanted, or as many as there are descriptors for.
pub fn connections(wanted: usize) -> usize {
    let Some(files) = read().ok().and_then(|limits| open_files(&limits)) else { return wanted };
    let connections = wanted.min(left_of(files));
    if connections < wanted {
        info!("at most {connections} connections instead of {wanted}: the process may open {files} files (ulimit -n)");
    }
    connections
}

const fn left_of(files: usize) -> usize {
    let reserve = if files / 2 < RESERVE { files / 2 } else { RESERVE };
    files - reserve
}

/// The soft limit on open files; none if there is no limit, or none is told.
fn open_files(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[expect(clippy::disallowed_methods, reason = "not a file of the log, and read before there is one")]
fn read() -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(LIMITS)?.take(MAX_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_keeps_its_share_of_the_descriptors() {
        let told = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max processes             95788                95788                processes \n\
                    Max open files            1024                 1048576              files     \n";
        assert_eq!(open_files(told), Some(1024));
        assert_eq!(open_files("Max open files            unlimited            unlimited            files"), None);
        assert_eq!(open_files("nothing of the kind"), None);
        assert_eq!([0, 1, 64, 128, 1024, 65_536].map(left_of), [0, 1, 32, 64, 512, 65_024]);
    }
}
