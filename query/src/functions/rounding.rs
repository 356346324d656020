//! CEIL, FLOOR, ROUND and TRUNC: a number keeps its type, but a DOUBLE without a number of places becomes a BIGINT.
//!
//! ROUND takes what lies half way up, toward positive infinity, as Java's `Math.round` does: -1.5 becomes -1. A DOUBLE is rounded by
//! the digits that it is written with, so that 1.005 to two places is 1.01.

use arrow::{array::ArrayRef, datatypes::DataType};
use datafusion::common::Result;

use super::{
    definition::{Definition, form},
    input::{Digits, Fault, Input},
    types::MAX_DIGITS,
};

pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new(
        "ceil",
        "The smallest whole number that is not below a number, in the number's type.",
        &[
            form("number INT -> INT", |input| input.map1::<i32, _>(|number| number)),
            form("number BIGINT -> BIGINT", |input| input.map1::<i64, _>(|number| number)),
            form("number DECIMAL -> DECIMAL", |input| whole(input, Way::Up)),
            form("number DOUBLE -> DOUBLE", |input| input.map1::<f64, _>(f64::ceil)),
        ],
        &[("ceil(1.2)", "2.0")],
    )
    .only_ksql(),
    Definition::new(
        "floor",
        "The greatest whole number that is not above a number, in the number's type.",
        &[
            form("number INT -> INT", |input| input.map1::<i32, _>(|number| number)),
            form("number BIGINT -> BIGINT", |input| input.map1::<i64, _>(|number| number)),
            form("number DECIMAL -> DECIMAL", |input| whole(input, Way::Down)),
            form("number DOUBLE -> DOUBLE", |input| input.map1::<f64, _>(f64::floor)),
        ],
        &[("floor(-1.2)", "-2.0")],
    )
    .only_ksql(),
    Definition::new(
        "round",
        "A number rounded to a whole one, or to so many places behind the point (before it, if negative); half way is up.",
        &[
            form("number INT -> INT", |input| input.map1::<i32, _>(|number| number)),
            form("number BIGINT -> BIGINT", |input| input.map1::<i64, _>(|number| number)),
            form("number DECIMAL -> DECIMAL", |input| to_integer(input, Way::Half)).returning(without_fraction),
            form("number DOUBLE -> BIGINT", |input| input.map1::<f64, _>(|number| saturated(half_up(number)))),
            form("number DECIMAL, places INT -> DECIMAL", |input| places(input, Way::Half)),
            form("number DOUBLE, places INT -> DOUBLE", |input| {
                input.map2::<f64, i32, _>(|number, places| of_double(number, places, Way::Half))
            }),
        ],
        &[("round(CAST(-1.5 AS DOUBLE))", "-1"), ("round(CAST(1.005 AS DOUBLE), 2)", "1.01")],
    )
    .only_ksql(),
    Definition::new(
        "trunc",
        "A number without its fraction, or without what is behind so many places of it.",
        &[
            form("number INT -> INT", |input| input.map1::<i32, _>(|number| number)),
            form("number BIGINT -> BIGINT", |input| input.map1::<i64, _>(|number| number)),
            form("number DECIMAL -> DECIMAL", |input| to_integer(input, Way::Zero)).returning(without_fraction),
            form("number DOUBLE -> BIGINT", |input| input.map1::<f64, _>(|number| saturated(number.trunc()))),
            form("number DECIMAL, places INT -> DECIMAL", |input| places(input, Way::Zero)),
            form("number DOUBLE, places INT -> DOUBLE", |input| {
                input.map2::<f64, i32, _>(|number, places| of_double(number, places, Way::Zero))
            }),
        ],
        &[("trunc(CAST(-1.7 AS DOUBLE))", "-1"), ("trunc(CAST(12345.678 AS DOUBLE), -2)", "12300.0")],
    )
    .only_ksql(),
];

/// Where a number goes that lies between two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Up,
    Down,
    Zero,
    /// To the nearer one, up if there is none.
    Half,
}

impl Way {
    /// The nearest multiples of `unit`, counted in units.
    fn count(self, number: i128, unit: i128) -> i128 {
        let (below, rest) = (number.div_euclid(unit), number.rem_euclid(unit));
        let is_above = match self {
            Self::Up => rest > 0,
            Self::Down => false,
            Self::Zero => number < 0 && rest > 0,
            Self::Half => rest >= unit - rest,
        };
        below + i128::from(is_above)
    }
}

/// The DECIMAL of the digits before the point.
fn without_fraction(given: &[DataType]) -> DataType {
    match given.first() {
        Some(DataType::Decimal128(digits, scale)) => {
            let whole = i16::from(*digits) - i16::from(*scale);
            DataType::Decimal128(u8::try_from(whole.clamp(1, i16::from(MAX_DIGITS))).unwrap_or(MAX_DIGITS), 0)
        }
        _ => DataType::Decimal128(10, 0),
    }
}

fn scale_of(data_type: &DataType) -> i32 {
    match data_type {
        DataType::Decimal128(_, scale) => i32::from(*scale),
        _ => 0,
    }
}

/// Whether a DECIMAL of this type can have these digits.
fn fitting(digits: i128, data_type: &DataType) -> Result<Digits, Fault> {
    let DataType::Decimal128(precision, _) = data_type else { return Err(Fault) };
    match 10_i128.checked_pow(u32::from(*precision)) {
        Some(limit) if digits.unsigned_abs() >= limit.unsigned_abs() => Err(Fault),
        _ => Ok(Digits(digits)),
    }
}

fn power_of_ten(exponent: i32) -> Option<i128> {
    u32::try_from(exponent).ok().and_then(|exponent| 10_i128.checked_pow(exponent))
}

/// To whole numbers of the same scale.
fn whole(input: &Input<'_>, way: Way) -> Result<ArrayRef> {
    let unit = power_of_ten(scale_of(input.type_of(0)).max(0)).unwrap_or(1);
    let returns = input.returns().clone();
    input.map1::<Digits, _>(|number| way.count(number, unit).checked_mul(unit).ok_or(Fault).and_then(|digits| fitting(digits, &returns)))
}

/// To whole numbers without a scale.
fn to_integer(input: &Input<'_>, way: Way) -> Result<ArrayRef> {
    let unit = power_of_ten(scale_of(input.type_of(0)).max(0)).unwrap_or(1);
    let returns = input.returns().clone();
    input.map1::<Digits, _>(|number| fitting(way.count(number, unit), &returns))
}

/// To so many places, of the same scale.
fn places(input: &Input<'_>, way: Way) -> Result<ArrayRef> {
    let scale = scale_of(input.type_of(0));
    let returns = input.returns().clone();
    input.map2::<Digits, i32, _>(|number, places| {
        if places >= scale {
            return Ok(Digits(number));
        }
        // A unit beyond all digits leaves nothing of any number.
        let Some(unit) = power_of_ten(scale.saturating_sub(places)) else { return Ok(Digits(0)) };
        way.count(number, unit).checked_mul(unit).ok_or(Fault).and_then(|digits| fitting(digits, &returns))
    })
}

/// The nearest whole number, the higher one half way. Adding a half and cutting would take the double below a half up.
fn half_up(number: f64) -> f64 {
    let below = number.floor();
    if number - below >= 0.5 { below + 1.0 } else { below }
}

/// As Java casts: what is too large is the largest, NaN is zero.
fn saturated(whole: f64) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "the cast saturates, as is wanted")]
    let whole = whole as i64;
    whole
}

/// A DOUBLE to so many places, by the digits that it is written with.
fn of_double(number: f64, places: i32, way: Way) -> std::result::Result<f64, Fault> {
    if !number.is_finite() {
        return Err(Fault);
    }
    let written = format!("{number:e}");
    let (mantissa, exponent) = written.split_once('e').ok_or(Fault)?;
    let exponent: i32 = exponent.parse().map_err(|_| Fault)?;
    let behind = mantissa.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    let digits: i128 = mantissa.replace('.', "").parse().map_err(|_| Fault)?;
    // The number is `digits` times ten to the power of `-scale`.
    let scale = i32::try_from(behind).map_err(|_| Fault)? - exponent;
    if places >= scale {
        return Ok(number);
    }
    let Some(unit) = power_of_ten(scale.saturating_sub(places)) else { return Ok(0.0) };
    format!("{}e{}", way.count(digits, unit), places.saturating_neg()).parse().map_err(|_| Fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_way_is_up_and_nothing_else_is() {
        let way = |number| Way::Half.count(number, 10);
        assert_eq!([way(15), way(-15), way(-16), way(14), way(-14), way(0)], [2, -1, -2, 1, -1, 0]);
        let zero = |number| Way::Zero.count(number, 10);
        assert_eq!([zero(19), zero(-19), zero(-20)], [1, -1, -2]);
        assert_eq!([Way::Up.count(-19, 10), Way::Up.count(11, 10), Way::Down.count(-11, 10)], [-1, 2, -2]);
    }

    #[test]
    fn a_double_is_rounded_by_its_digits() {
        let round = |number, places| of_double(number, places, Way::Half);
        assert_eq!(round(1.005, 2), Ok(1.01));
        assert_eq!(round(-1.005, 2), Ok(-1.0));
        assert_eq!(round(12345.678, -2), Ok(12300.0));
        assert_eq!(round(1e300, 2), Ok(1e300));
        assert_eq!(round(5e-324, 2), Ok(0.0));
        assert_eq!(round(1.5, i32::MAX), Ok(1.5));
        assert_eq!(round(1.5, i32::MIN), Ok(0.0));
        assert_eq!(round(f64::NAN, 1), Err(Fault));
        assert_eq!([half_up(0.499_999_999_999_999_94), half_up(-1.5), half_up(-0.5), half_up(2.5)], [0.0, -1.0, 0.0, 3.0]);
        assert_eq!([saturated(f64::NAN), saturated(f64::INFINITY), saturated(-7.0)], [0, i64::MAX, -7]);
    }
}
