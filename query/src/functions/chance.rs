//! Functions whose value is another each time: RANDOM and UUID.

use std::{
    cell::Cell,
    hash::{BuildHasher as _, RandomState},
};

use super::{
    definition::{Definition, form},
    input::{Bytes, Fault},
    text::hex,
};

pub(super) const RANDOM: &[Definition] = &[Definition::new(
    "random",
    "A random DOUBLE from 0 (included) to 1 (excluded); in a query that does not end the same for a record whenever it is folded.",
    &[form("-> DOUBLE", |input| input.each(|_| unit(next()))).not_repeatable()],
    &[("random() < 1", "true")],
)];

pub(super) const UUID: &[Definition] = &[Definition::new(
    "uuid",
    "A random UUID, or the one that sixteen bytes are; a random one stays that of its record, like RANDOM.",
    &[
        form("-> VARCHAR", |input| input.each(|_| random_uuid(next(), next()))).not_repeatable(),
        form("bytes BYTES -> VARCHAR", |input| {
            input.map1::<Bytes, _>(|bytes| <[u8; 16]>::try_from(bytes).map(|bytes| uuid_text(&bytes)).map_err(|_| Fault))
        }),
    ],
    &[("uuid(to_bytes('000102030405060708090a0b0c0d0e0f', 'hex'))", "00010203-0405-0607-0809-0a0b0c0d0e0f")],
)];

thread_local! {
    /// State of this thread's generator, from the system's randomness.
    static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0_u64));
}

/// What splitmix64 goes on by.
const STRIDE: u64 = 0x9e37_79b9_7f4a_7c15;

/// The next number of this thread (splitmix64).
fn next() -> u64 {
    STATE.with(|state| {
        let stepped = state.get().wrapping_add(STRIDE);
        state.set(stepped);
        mixed(stepped)
    })
}

fn mixed(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// A number that a seed and words give, whenever and in whatever build they are asked: queries that fold again rely on it.
#[must_use]
pub(crate) fn drawn(seed: u64, words: &[u64]) -> u64 {
    words.iter().fold(mixed(seed.wrapping_add(STRIDE)), |state, word| mixed(state.wrapping_add(STRIDE) ^ mixed(word.wrapping_add(STRIDE))))
}

/// The highest 53 bits as a fraction.
#[must_use]
pub(crate) fn unit(bits: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
    let fraction = (bits >> 11) as f64;
    fraction / (1_u64 << 53) as f64
}

/// A UUID of version 4.
#[must_use]
pub(crate) fn random_uuid(high: u64, low: u64) -> String {
    let bits = (u128::from(high) << 64 | u128::from(low)) & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    uuid_text(&bits.to_be_bytes())
}

fn uuid_text(bytes: &[u8; 16]) -> String {
    let digits = hex(bytes);
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or("");
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_values_are_of_their_form_and_differ() {
        assert_eq!(random_uuid(u64::MAX, u64::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(random_uuid(0, 0), "00000000-0000-4000-8000-000000000000");
        assert_eq!((unit(0), unit(u64::MAX) < 1.0), (0.0, true));
        assert_ne!(next(), next());
    }

    #[test]
    fn what_is_drawn_is_the_same_in_every_build_and_differs_with_each_word() {
        assert_eq!(drawn(1, &[2, 3]), 0x57ff_3bac_093b_3797);
        let all: std::collections::BTreeSet<u64> =
            (0..100).flat_map(|seed| (0..100).map(move |word| drawn(seed, &[word]))).chain([drawn(0, &[]), drawn(0, &[0, 0])]).collect();
        assert_eq!(all.len(), 10_002);
    }

    #[test]
    fn what_is_drawn_is_spread_evenly() {
        let mut tenths = [0_u32; 10];
        for position in 0..10_000 {
            let tenth = (unit(drawn(7, &[position])) * 10.0).floor();
            tenths.iter_mut().zip(0..).filter(|(_, place)| f64::from(*place) == tenth).for_each(|(count, _)| *count += 1);
        }
        // 1,000 of each are expected; four times the standard deviation is 120.
        assert!(tenths.iter().all(|count| (880..1120).contains(count)), "{tenths:?}");
    }
}
