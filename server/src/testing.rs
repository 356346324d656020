//! A whole server inside of a test, on a free port.

use std::path::Path;

use crate::{
    config::Config,
    server::{Server, ServerError},
};

/// A server over `data` that answers requests.
///
/// # Errors
/// Why it does not.
pub async fn serve(data: &Path) -> Result<Server, std::sync::Arc<ServerError>> {
    serve_with(Config::local(data)).await
}

/// A server with this configuration that answers requests.
///
/// # Errors
/// Why it does not.
pub async fn serve_with(config: Config) -> Result<Server, std::sync::Arc<ServerError>> {
    let server = Server::start(config).await?;
    server.ready().await?;
    Ok(server)
}

/// The URL of a server.
#[must_use]
pub fn url(server: &Server) -> String {
    format!("http://{}", server.address())
}
