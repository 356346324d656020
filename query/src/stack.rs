//! Stack for what recurses as deep as a statement is nested.

/// Stack for reading and planning; what the guard lets through needs a quarter of it in a build without optimisation.
const STACK_OF_PLANNING: usize = 64 << 20;

/// Runs a part of reading or planning, whose depth the statement decides, where there is stack enough.
pub(crate) fn with_stack<T>(work: impl FnOnce() -> T) -> T {
    stacker::maybe_grow(STACK_OF_PLANNING / 2, STACK_OF_PLANNING, work)
}
