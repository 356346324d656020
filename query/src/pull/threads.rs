//! The threads on which bounded queries are planned and run.

use std::{io, sync::mpsc, thread};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::oneshot,
};

use crate::error::QueryError;

/// Stack of the threads that plan: nesting within the bounds of `sql/guard` never overflows it.
const STACK_BYTES: usize = 16 << 20;

/// Ends them when it is dropped, wherever that is.
#[derive(Debug)]
pub(super) struct Threads {
    queries: Handle,
    /// Dropped, it tells the thread that owns the others.
    _end: oneshot::Sender<()>,
}

impl Threads {
    /// So many threads, and four times as many for what blocks.
    ///
    /// # Errors
    /// [`QueryError::Execution`] if there are no threads to be had.
    pub(super) fn start(cores: usize) -> Result<Self, QueryError> {
        let (end, ended) = oneshot::channel::<()>();
        let (handed, queries) = mpsc::sync_channel(1);
        // A thread of its own joins them: whoever drops the last query may be one of them, or may not wait. And to let go of a thread
        // while it ends may crash: glibc reads of its stack, which is unmapped by then (fault 19951 of glibc).
        let own = move || match runtime(cores) {
            Ok(runtime) => {
                drop(handed.send(Ok(runtime.handle().clone())));
                let _: Result<(), _> = runtime.block_on(ended);
            }
            Err(fault) => drop(handed.send(Err(fault))),
        };
        let started = thread::Builder::new().name("foldlog-pulls".to_owned()).spawn(own);
        let queries = started.and_then(|_| queries.recv().unwrap_or_else(|fault| Err(io::Error::other(fault))));
        let queries = queries.map_err(|fault| QueryError::Execution(format!("no threads for queries: {fault}")))?;
        Ok(Self { queries, _end: end })
    }

    /// Runs something on them, until its end or theirs.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        drop(self.queries.spawn(work));
    }
}

fn runtime(cores: usize) -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .thread_name("foldlog-pull")
        .worker_threads(cores)
        .max_blocking_threads(4 * cores)
        .thread_stack_size(STACK_BYTES)
        .enable_time()
        .build()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_runs_on_them_ends_with_their_owner() {
        for _ in 0..200 {
            let threads = Threads::start(4).unwrap();
            let (begun, begins) = oneshot::channel();
            let (held, ends) = oneshot::channel::<()>();
            threads.spawn(async move {
                let _held = held;
                begun.send(()).unwrap();
                tokio::time::sleep(Duration::from_secs(3600)).await;
            });
            begins.await.unwrap();
            drop(threads);
            assert!(ends.await.is_err(), "what still ran is dropped");
        }
    }
}
