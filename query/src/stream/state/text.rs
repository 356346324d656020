//! Texts of a table: an append-only store, and references to its parts that fit into a word of a row.
//!
//! Used by `stream/state` alone. Invariant: a reference that was given names the same bytes until the store is swept.

/// Longest text that a reference can name.
pub(crate) const MAX_TEXT: usize = (1 << 24) - 1;

/// Append-only store of texts; a reference is 40 bits of place and 24 bits of length.
#[derive(Debug, Default)]
pub(super) struct Text {
    pub(super) bytes: Vec<u8>,
    /// Bytes in use after the last sweep.
    pub(super) kept: usize,
}

impl Text {
    /// Stores a text, cut to what a reference can name (a record is shorter than that).
    pub(super) fn put(&mut self, text: &[u8]) -> u64 {
        let text = text.get(..MAX_TEXT).unwrap_or(text);
        let reference = ((self.bytes.len() as u64) << 24) | text.len() as u64;
        self.bytes.extend_from_slice(text);
        reference
    }

    /// The text that a reference names.
    pub(super) fn get(&self, reference: u64) -> &[u8] {
        let (start, length) = place_of(reference);
        self.bytes.get(start..start + length).unwrap_or_default()
    }
}

/// Where a text lies, and its length.
#[expect(clippy::cast_possible_truncation, reason = "40 and 24 bits; memory that holds them has a wider usize")]
pub(super) fn place_of(reference: u64) -> (usize, usize) {
    ((reference >> 24) as usize, (reference & MAX_TEXT as u64) as usize)
}
