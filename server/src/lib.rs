//! The foldlog server: one port for gRPC and HTTP over the log and the query engine, and the command line around it.

mod accept;
mod app;
mod append;
pub mod cli;
pub mod config;
mod descriptors;
mod failure;
mod groups;
mod grpc;
mod http;
mod idle;
mod numbers;
pub mod server;
mod shutdown;
mod telemetry;
pub mod testing;
mod token;

pub use config::Config;
pub use server::{Server, ServerError};
