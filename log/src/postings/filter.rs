//! Says of most keys that a table does not hold that it does not: a Bloom filter of ten bits a key, wrong about one in a hundred.

const BITS_A_KEY: usize = 10;
const PROBES: u64 = 7;

/// Bits in bytes; without any, everything may be held.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter(Box<[u8]>);

impl Filter {
    /// A filter of `keys`, which are hashes already.
    pub(super) fn of(keys: impl ExactSizeIterator<Item = u128>) -> Self {
        let mut bits = vec![0_u8; (keys.len() * BITS_A_KEY).div_ceil(8)].into_boxed_slice();
        for key in keys {
            for (byte, bit) in probes(key, bits.len()) {
                if let Some(byte) = bits.get_mut(byte) {
                    *byte |= bit;
                }
            }
        }
        Self(bits)
    }

    /// One whose bytes were stored.
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// False: the table does not hold the key.
    pub(super) fn may_hold(&self, key: u128) -> bool {
        probes(key, self.0.len()).all(|(byte, bit)| self.0.get(byte).is_none_or(|held| held & bit != 0))
    }
}

/// Byte and bit of each place that a key marks.
fn probes(key: u128, bytes: usize) -> impl Iterator<Item = (usize, u8)> {
    let bits = (bytes as u64 * 8).max(1);
    let (start, step) = ((key >> 64) as u64, (key & u128::from(u64::MAX)) as u64 | 1);
    (0..PROBES).map(move |probe| {
        let bit = start.wrapping_add(probe.wrapping_mul(step)) % bits;
        (usize::try_from(bit / 8).unwrap_or(0), 1 << (bit % 8))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ids::FolderId, segment::StreamHasher};

    #[test]
    fn what_is_held_is_never_denied_and_what_is_not_mostly() {
        let hasher = StreamHasher::new(FolderId::new([3; 16]));
        let key = |number: u32| hasher.hash(&number.to_le_bytes());
        let keys = (0..10_000).map(key).collect::<Vec<_>>();
        let filter = Filter::from_bytes(Filter::of(keys.iter().copied()).as_bytes());
        assert!(keys.iter().all(|key| filter.may_hold(*key)));
        let wrong = (10_000..20_000).filter(|number| filter.may_hold(key(*number))).count();
        assert!(wrong < 200, "{wrong} of 10,000");
    }
}
