//! The demo, as a user runs it: one day of flights, through the program itself.

use std::{
    io,
    process::{Command, Output},
};

fn demo(arguments: &[&str]) -> io::Result<Output> {
    Command::new(env!("CARGO_BIN_EXE_foldlog")).args(["demo", "flights"]).args(arguments).output()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn one_day_of_flights_is_replayed_and_every_figure_checked() {
    let output = demo(&["--days", "1", "--speed", "max"]).unwrap();
    let (told, noted) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{told}\n{noted}");
    for words in ["896 flights from New York", "2672 events in ", "figures equal those of the independent script.", "JetBlue Airways"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    // No terminal, no progress bar and no colours.
    assert!(!told.contains('\u{1b}') && !noted.contains('\u{1b}'), "{told}\n{noted}");
}

#[test]
fn a_folder_that_holds_flights_already_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let arguments = ["--days", "1", "--speed", "max", "--data", data.to_str().unwrap()];
    let first = demo(&arguments).unwrap();
    assert!(first.status.success(), "{}", text(&first.stderr));
    let second = demo(&arguments).unwrap();
    assert_eq!(second.status.code(), Some(2));
    assert!(text(&second.stderr).contains("the folder holds flights already"), "{}", text(&second.stderr));
}

#[test]
fn a_speed_that_is_none_is_wrong_usage() {
    let output = demo(&["--speed", "0"]).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("must be max or a whole number from 1"), "{}", text(&output.stderr));
}
