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
    "A random DOUBLE from 0 (included) to 1 (excluded).",
    &[form("-> DOUBLE", |input| input.each(|_| unit(next()))).not_repeatable()],
    &[("random() < 1", "true")],
)];

pub(super) const UUID: &[Definition] = &[Definition::new(
    "uuid",
    "A random UUID, or the one that sixteen bytes are.",
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

/// The next number of this thread (splitmix64).
fn next() -> u64 {
    STATE.with(|state| {
        let stepped = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(stepped);
        let mixed = (stepped ^ (stepped >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}

/// The highest 53 bits as a fraction.
fn unit(bits: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
    let fraction = (bits >> 11) as f64;
    fraction / (1_u64 << 53) as f64
}

/// A UUID of version 4.
fn random_uuid(high: u64, low: u64) -> String {
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
}
