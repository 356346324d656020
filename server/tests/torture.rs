//! The torture, in short: a few cycles of kills, so that the program that runs hundreds of them keeps working.
#![cfg(unix)]

use std::process::Command;

#[test]
fn three_cycles_of_kills_lose_and_repeat_nothing() {
    let output = Command::new(env!("CARGO_BIN_EXE_foldlog-torture")).args(["--cycles", "3", "--seed", "3"]).output().unwrap();
    let (told, noted) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}\n{noted}");
    let last = told.lines().last().unwrap_or_default();
    assert!(last.starts_with("cycles=3 acked="), "{last}");
    for counted in ["acked", "settled", "compacted", "removed", "expired", "retained", "altered", "deleted", "backups", "restored"] {
        assert!(last.contains(&format!(" {counted}=")) && !last.contains(&format!(" {counted}=0 ")), "{counted}: {last}");
    }
    assert!(last.ends_with(" lost=0 repeated=0 gaps=0 view_mismatches=0 output_mismatches=0"), "{last}");
}
