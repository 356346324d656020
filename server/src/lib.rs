//! The foldlog server: one port for gRPC and HTTP over the log and the query engine, and the command line around it.

pub mod cli;
