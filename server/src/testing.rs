//! A whole server inside of a test, on a free port.

use std::{path::Path, sync::Arc};

use foldlog_log::disk::Disk;

use crate::{
    cli,
    config::Config,
    server::{Server, ServerError},
};

/// A server over `data` that answers requests.
///
/// # Errors
/// Why it does not.
pub async fn serve(data: &Path) -> Result<Server, Arc<ServerError>> {
    serve_with(Config::local(data)).await
}

/// A server with this configuration that answers requests.
///
/// # Errors
/// Why it does not.
pub async fn serve_with(config: Config) -> Result<Server, Arc<ServerError>> {
    let server = Server::start(config).await?;
    server.ready().await?;
    Ok(server)
}

/// The URL of a server.
#[must_use]
pub fn url(server: &Server) -> String {
    format!("http://{}", server.address())
}

/// Serves on a disk as the verb `serve` does, to the end of the process's life; the exit code.
#[must_use]
pub fn serve_to_the_end(disk: Arc<dyn Disk>, config: Config) -> u8 {
    cli::told(cli::serve::run(&cli::serve::On::Given(disk), config, &mut cli::serve::Passing::default()))
}
