//! Stories about clients of a running server: the verbs of the command line, and programs that use the SDK.

#![allow(clippy::unwrap_used, reason = "tests")]

mod backup;
mod cli;
mod courses;
mod doctor;
mod groups;
mod inspect;
mod parameters;
mod proxy;
mod sdk;
mod session;
#[cfg(target_os = "linux")]
mod shell;
mod support;
mod tests_of_sql;
mod transfer;
