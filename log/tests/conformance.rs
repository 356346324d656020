//! Every backend against the contract of `LogBackend`.

use std::sync::Arc;

use foldlog_log::{
    LogBackend, Timestamp,
    clock::ManualClock,
    testing::{
        MemoryLog,
        conformance::{Subject, check},
    },
};

struct InMemory(MemoryLog);

impl Subject for InMemory {
    fn log(&self) -> Arc<dyn LogBackend> {
        Arc::new(self.0.clone())
    }

    fn restart(&mut self) -> bool {
        false
    }
}

#[test]
fn the_log_in_memory_keeps_the_contract_but_for_restarts() {
    let left_out = check(|| InMemory(MemoryLog::new(Arc::new(ManualClock::at(Timestamp::new(1_000))))));
    assert_eq!(left_out, ["everything is there after a restart", "versions, offsets, positions and repeats go on after a restart"]);
}
