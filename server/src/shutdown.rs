//! How tasks begin and end: each is spawned by name through [`Tasks`], watches its token, and ends on it.

use std::future::Future;

use tokio::task::JoinHandle;
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFutureOwned},
    task::TaskTracker,
};
use tracing::{Instrument as _, debug_span};

/// The tasks of a server. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    draining: CancellationToken,
    tracker: TaskTracker,
}

impl Tasks {
    /// Spawns a task by name.
    pub fn spawn<T: Send + 'static>(&self, name: &'static str, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.tracker.spawn(task.instrument(debug_span!("task", name)))
    }

    /// Asks everything to come to its end.
    pub fn drain(&self) {
        self.draining.cancel();
        self.tracker.close();
    }

    /// Whether that was asked.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Ends when that is asked. Cancel-safe.
    pub fn drained(&self) -> WaitForCancellationFutureOwned {
        self.draining.clone().cancelled_owned()
    }
}
