//! The signals that ask a foreground verb to end. Whoever makes something that has to be removed listens first.

use std::io;

/// SIGTERM and Ctrl-C, from the moment it is made: one that comes while nobody waits is not lost.
pub(super) struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(windows)]
    interrupt: tokio::signal::windows::CtrlC,
}

impl Signals {
    /// Begins to listen.
    ///
    /// # Errors
    /// What the operating system says.
    #[cfg(unix)]
    pub(super) fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Begins to listen.
    ///
    /// # Errors
    /// What the operating system says.
    #[cfg(windows)]
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { interrupt: tokio::signal::windows::ctrl_c()? })
    }

    /// Ends with the next signal. Cancel-safe.
    #[cfg(unix)]
    pub(super) async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Ends with the next signal. Cancel-safe.
    #[cfg(windows)]
    pub(super) async fn stop(&mut self) {
        self.interrupt.recv().await;
    }
}
