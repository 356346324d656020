//! Functions of numbers, but for rounding. DOUBLE follows IEEE; integers wrap, as Java's do.

use std::f64::consts::PI;

use super::{
    definition::{Definition, form},
    input::{Digits, Fault, Str},
};

/// Radius of the earth, in kilometres and in miles.
const EARTH_KM: f64 = 6371.0;
const EARTH_MILES: f64 = 3959.0;

macro_rules! of_double {
    ($name:literal, $about:literal, $compute:expr, $example:expr) => {
        Definition::new($name, $about, &[form("number DOUBLE -> DOUBLE", |input| input.map1::<f64, _>($compute))], &[$example])
    };
}

pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new(
        "abs",
        "The absolute value of a number.",
        &[
            form("number INT -> INT", |input| input.map1::<i32, _>(i32::wrapping_abs)),
            form("number BIGINT -> BIGINT", |input| input.map1::<i64, _>(i64::wrapping_abs)),
            form("number DECIMAL -> DECIMAL", |input| input.map1::<Digits, _>(|number| Digits(number.abs()))),
            form("number DOUBLE -> DOUBLE", |input| input.map1::<f64, _>(f64::abs)),
        ],
        &[("abs(-3)", "3")],
    )
    .only_ksql(),
    of_double!("acos", "The angle in radians whose cosine is the number.", f64::acos, ("acos(1)", "0.0")),
    of_double!("asin", "The angle in radians whose sine is the number.", f64::asin, ("asin(0)", "0.0")),
    of_double!("atan", "The angle in radians whose tangent is the number.", f64::atan, ("atan(0)", "0.0")),
    Definition::new(
        "atan2",
        "The angle in radians of the point (x, y).",
        &[form("y DOUBLE, x DOUBLE -> DOUBLE", |input| input.map2::<f64, f64, _>(f64::atan2))],
        &[("atan2(0, 1)", "0.0")],
    ),
    of_double!("cbrt", "The cube root of a number.", f64::cbrt, ("cbrt(27)", "3.0")),
    of_double!("cos", "The cosine of an angle in radians.", f64::cos, ("cos(0)", "1.0")),
    of_double!("cosh", "The hyperbolic cosine of a number.", f64::cosh, ("cosh(0)", "1.0")),
    of_double!("cot", "The cotangent of an angle in radians.", |angle: f64| 1.0 / angle.tan(), ("cot(0)", "inf")),
    of_double!("degrees", "An angle in radians as degrees.", f64::to_degrees, ("degrees(pi())", "180.0")),
    of_double!("exp", "Euler's number to the power of a number.", f64::exp, ("exp(0)", "1.0")),
    Definition::new(
        "geo_distance",
        "The distance of two places on earth along a great circle, in kilometres or, with the unit 'MI', in miles. Latitudes and longitudes are in degrees.",
        &[
            form("latitude1 DOUBLE, longitude1 DOUBLE, latitude2 DOUBLE, longitude2 DOUBLE -> DOUBLE", geo_distance),
            form("latitude1 DOUBLE, longitude1 DOUBLE, latitude2 DOUBLE, longitude2 DOUBLE, unit VARCHAR -> DOUBLE", geo_distance),
        ],
        &[("geo_distance(0, 0, 0, 0)", "0.0")],
    ),
    of_double!("ln", "The natural logarithm of a number.", f64::ln, ("ln(1)", "0.0")),
    Definition::new(
        "log",
        "The natural logarithm of a number, or its logarithm to a base.",
        &[
            form("number DOUBLE -> DOUBLE", |input| input.map1::<f64, _>(f64::ln)),
            form("base DOUBLE, number DOUBLE -> DOUBLE", |input| input.map2::<f64, f64, _>(logarithm)),
        ],
        &[("log(1)", "0.0"), ("log(2, 8)", "3.0")],
    )
    .only_ksql(),
    Definition::new(
        "pi",
        "The ratio of a circle's circumference to its diameter.",
        &[form("-> DOUBLE", |input| input.each(|_| PI))],
        &[("pi()", "3.141592653589793")],
    ),
    Definition::new(
        "power",
        "A number to the power of another.",
        &[form("base DOUBLE, exponent DOUBLE -> DOUBLE", |input| input.map2::<f64, f64, _>(f64::powf))],
        &[("power(2, 10)", "1024.0")],
    )
    .only_ksql(),
    of_double!("radians", "An angle in degrees as radians.", f64::to_radians, ("radians(0)", "0.0")),
    Definition::new(
        "sign",
        "-1, 0 or 1, as the number is negative, zero or positive; NULL of NaN.",
        &[
            form("number INT -> INT", |input| input.map1::<i32, _>(i32::signum)),
            form("number BIGINT -> INT", |input| input.map1::<i64, _>(|number| i32::from(number > 0) - i32::from(number < 0))),
            form("number DOUBLE -> INT", |input| {
                input.map1::<f64, _>(|number| (!number.is_nan()).then_some(i32::from(number > 0.0) - i32::from(number < 0.0)))
            }),
        ],
        &[("sign(-2.5)", "-1")],
    ),
    of_double!("sin", "The sine of an angle in radians.", f64::sin, ("sin(0)", "0.0")),
    of_double!("sinh", "The hyperbolic sine of a number.", f64::sinh, ("sinh(0)", "0.0")),
    of_double!("sqrt", "The square root of a number; NaN of a negative one.", f64::sqrt, ("sqrt(16)", "4.0")),
    of_double!("tan", "The tangent of an angle in radians.", f64::tan, ("tan(0)", "0.0")),
    of_double!("tanh", "The hyperbolic tangent of a number.", f64::tanh, ("tanh(0)", "0.0")),
];

/// NaN for what is no base or has no logarithm.
fn logarithm(base: f64, number: f64) -> f64 {
    if base <= 0.0 || base == 1.0 { f64::NAN } else { number.ln() / base.ln() }
}

fn geo_distance(input: &super::input::Input<'_>) -> datafusion::common::Result<arrow::array::ArrayRef> {
    let degrees = (0..4).map(|at| input.column::<f64>(at)).collect::<datafusion::common::Result<Vec<_>>>()?;
    let unit = if input.len() > 4 { Some(input.column::<Str>(4)?) } else { None };
    input.each(|row| {
        let given: Vec<f64> = degrees.iter().filter_map(|one| one.get(row)).collect();
        let [latitude1, longitude1, latitude2, longitude2] = given.as_slice() else { return Ok(None) };
        let unit = unit.as_ref().and_then(|unit| unit.get(row));
        let radius = radius(unit).ok_or(Fault)?;
        let is_place = |latitude: &f64, longitude: &f64| latitude.abs() <= 90.0 && longitude.abs() <= 180.0;
        if !is_place(latitude1, longitude1) || !is_place(latitude2, longitude2) {
            return Err(Fault);
        }
        Ok(Some(radius * central_angle(*latitude1, *longitude1, *latitude2, *longitude2)))
    })
}

/// The earth's radius in a unit; kilometres if there is none.
fn radius(unit: Option<&str>) -> Option<f64> {
    match unit.map(str::to_lowercase).as_deref() {
        None | Some("km" | "kilometer" | "kilometers" | "kilometre" | "kilometres") => Some(EARTH_KM),
        Some("mi" | "mile" | "miles") => Some(EARTH_MILES),
        Some(_) => None,
    }
}

/// The angle between two places, by the haversine formula.
fn central_angle(latitude1: f64, longitude1: f64, latitude2: f64, longitude2: f64) -> f64 {
    let half = |difference: f64| (difference.to_radians() / 2.0).sin().powi(2);
    let chord = half(latitude2 - latitude1) + half(longitude2 - longitude1) * latitude1.to_radians().cos() * latitude2.to_radians().cos();
    2.0 * chord.sqrt().asin()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_the_equator_is_a_quarter_of_its_length() {
        let quarter = EARTH_KM * central_angle(0.0, 0.0, 0.0, 90.0);
        assert!((quarter - EARTH_KM * PI / 2.0).abs() < 1e-9);
        assert_eq!(radius(Some("Miles")), Some(EARTH_MILES));
        assert_eq!(radius(Some("parsec")), None);
    }

    #[test]
    fn what_is_no_base_has_no_logarithm() {
        assert!(logarithm(1.0, 5.0).is_nan() && logarithm(-2.0, 5.0).is_nan() && logarithm(10.0, -1.0).is_nan());
        assert!((logarithm(10.0, 1000.0) - 3.0).abs() < 1e-12);
    }
}
