//! How large the values of a batch are, for whoever adds up what batches hold.

use arrow::array::{Array, ArrayRef, AsArray};

/// Bytes that a value of fixed size counts for.
const FIXED: usize = 16;

/// Bytes of a column's values, about; of texts exactly.
pub(crate) fn bytes_of(column: &ArrayRef) -> usize {
    let Some(texts) = column.as_string_opt::<i32>() else { return column.len() * FIXED };
    match texts.value_offsets() {
        [first, .., last] => usize::try_from(last - first).unwrap_or(0),
        _ => 0,
    }
}
