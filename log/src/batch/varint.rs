//! Zig-zag variable-length numbers, as Kafka's record format has them, and the cursor that reads them.
//!
//! Used by everything that decodes bytes from outside: nothing here panics, allocates or reads past what it was given.
#![deny(clippy::indexing_slicing)]

/// Longest encoding of a 64-bit number.
pub(crate) const MAX_LONG: usize = 10;

/// Appends `number` in 1 to 10 bytes.
pub(crate) fn put_long(out: &mut Vec<u8>, number: i64) {
    let mut rest = zigzag(number);
    while rest >= 0x80 {
        out.push(low_byte(rest) | 0x80);
        rest >>= 7;
    }
    out.push(low_byte(rest));
}

/// Appends a plain (not zig-zag) number in 1 to 10 bytes.
pub(crate) fn put_unsigned(out: &mut Vec<u8>, number: u64) {
    let mut rest = number;
    while rest >= 0x80 {
        out.push(low_byte(rest) | 0x80);
        rest >>= 7;
    }
    out.push(low_byte(rest));
}

/// Bytes that [`put_long`] takes.
pub(crate) fn long_len(number: i64) -> usize {
    let bits = 64 - (zigzag(number) | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

const fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

const fn low_byte(number: u64) -> u8 {
    (number & 0x7f) as u8
}

/// A length or count as the format's signed number. Everything we encode is bounded far below 2^63.
pub(crate) fn size(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// Bytes still to be read; every read shortens it or says no.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*taken)
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    /// A plain number; none if it runs out or does not fit.
    pub(crate) fn unsigned(&mut self) -> Option<u64> {
        if let Some((first @ ..0x80, rest)) = self.rest.split_first() {
            self.rest = rest;
            return Some(u64::from(*first));
        }
        let mut number = 0_u64;
        for place in 0..MAX_LONG {
            let byte = self.byte()?;
            if place == MAX_LONG - 1 && byte > 1 {
                return None;
            }
            number |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    /// A zig-zag number of 64 bits.
    pub(crate) fn long(&mut self) -> Option<i64> {
        let raw = self.unsigned()?;
        Some((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed())
    }

    /// A zig-zag number that is a count: 0 to 2^31 - 1.
    pub(crate) fn count(&mut self) -> Option<usize> {
        let number = i32::try_from(self.long()?).ok()?;
        usize::try_from(number).ok()
    }

    /// A zig-zag length and as many bytes; length -1 means absent.
    pub(crate) fn nullable(&mut self) -> Option<Option<&'a [u8]>> {
        match self.long()? {
            -1 => Some(None),
            length => self.take(usize::try_from(length).ok()?).map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_of_number_comes_back() {
        let edges = (0..64).flat_map(|bit| [1_i64 << bit, (1_i64 << bit).wrapping_sub(1), (1_i64 << bit).wrapping_neg()]);
        for number in edges.chain([0, -1, i64::MIN, i64::MAX]) {
            let mut bytes = Vec::new();
            put_long(&mut bytes, number);
            assert_eq!(bytes.len(), long_len(number), "{number}");
            let mut cursor = Cursor::new(&bytes);
            assert_eq!(cursor.long(), Some(number));
            assert!(cursor.is_empty());
        }
    }

    #[test]
    fn numbers_that_run_out_or_overflow_are_refused() {
        assert_eq!(Cursor::new(&[]).long(), None);
        assert_eq!(Cursor::new(&[0x80; 9]).long(), None);
        assert_eq!(Cursor::new(&[0xff; 10]).long(), None, "ten bytes hold 70 bits");
        assert_eq!(Cursor::new(&[0x01]).count(), None, "a count is not negative");
        assert_eq!(Cursor::new(&[0x03, 0, 0]).nullable(), None, "-2 is no length");
    }
}
