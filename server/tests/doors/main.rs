//! Stories about a whole server, told over its port: one file a story, one program for all of them because each links everything.

#![allow(clippy::unwrap_used, reason = "tests")]

mod altered;
mod append;
mod compaction;
mod deleted;
mod filters;
mod floods;
mod group_settings;
mod groups;
mod http;
mod limits;
mod lives;
mod pull;
mod push;
mod read;
mod redaction;
mod removal;
mod restart;
mod retention;
mod session;
mod subscribe;
mod support;
