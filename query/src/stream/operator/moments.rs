//! Means and spreads in words: variance of one column, correlation of two. Each word is the bits of a DOUBLE.
//!
//! Used by `operator/accumulator`. Folded row by row in position order (by updates of the squared distances, which do not lose small spreads
//! around large means), and taken back by the same steps the other way round; with the last row all words are 0 again.

/// Words of a variance: rows, their sum, sum of squared distances from their mean.
pub(crate) const VARIANCE: usize = 3;
/// Words of a correlation: rows, two means, two sums of squared distances, sum of the products of distances.
pub(crate) const CORRELATION: usize = 6;

/// Adds a value to a variance, or takes it back.
pub(crate) fn add(words: &mut [u64], value: f64, takes_back: bool) {
    let [rows, sum, squares] = read(words);
    let (left, sign) = counted(rows, takes_back);
    if left <= 0.0 {
        return words.iter_mut().for_each(|word| *word = 0);
    }
    let after = sum + sign * value;
    // With and without the value, whichever has it.
    let (more, of_more) = if takes_back { (rows, sum) } else { (left, after) };
    let distance = more * value - of_more;
    let step = if more > 1.0 { distance * distance / (more * (more - 1.0)) } else { 0.0 };
    write(words, [left, after, squares + sign * step]);
}

/// Adds a pair to a correlation, or takes it back.
pub(crate) fn add_pair(words: &mut [u64], (x, y): (f64, f64), takes_back: bool) {
    let [rows, mean_x, mean_y, squares_x, squares_y, products] = read(words);
    let (rows, sign) = counted(rows, takes_back);
    if rows <= 0.0 {
        return words.iter_mut().for_each(|word| *word = 0);
    }
    let (from_x, from_y) = (x - mean_x, y - mean_y);
    let (after_x, after_y) = (mean_x + sign * from_x / rows, mean_y + sign * from_y / rows);
    let squares_x = squares_x + sign * from_x * (x - after_x);
    let squares_y = squares_y + sign * from_y * (y - after_y);
    write(words, [rows, after_x, after_y, squares_x, squares_y, products + sign * from_x * (y - after_y)]);
}

/// Number of rows, and the variance of a sample; none of fewer than two.
pub(crate) fn variance(words: &[u64]) -> (f64, Option<f64>) {
    let [rows, _, squares] = read(words);
    (rows, (rows > 1.0).then(|| squares.max(0.0) / (rows - 1.0)))
}

/// The correlation; NaN where it is not defined, none of no rows.
pub(crate) fn correlation(words: &[u64]) -> Option<f64> {
    let [rows, _, _, squares_x, squares_y, products] = read(words);
    if rows <= 0.0 {
        return None;
    }
    let spread = (squares_x * squares_y).sqrt();
    Some(if spread > 0.0 { (products / spread).clamp(-1.0, 1.0) } else { f64::NAN })
}

fn counted(rows: f64, takes_back: bool) -> (f64, f64) {
    if takes_back { (rows - 1.0, -1.0) } else { (rows + 1.0, 1.0) }
}

fn read<const N: usize>(words: &[u64]) -> [f64; N] {
    std::array::from_fn(|place| words.get(place).map_or(0.0, |word| f64::from_bits(*word)))
}

fn write<const N: usize>(words: &mut [u64], values: [f64; N]) {
    words.iter_mut().zip(values).for_each(|(word, value)| *word = value.to_bits());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain_variance(values: &[f64]) -> f64 {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (values.len() as f64 - 1.0)
    }

    proptest! {
        #[test]
        fn what_is_taken_back_is_as_if_it_had_never_come(values in prop::collection::vec((-1e6_f64..1e6, any::<bool>()), 2..60)) {
            let (mut words, mut pairs) = ([0; VARIANCE], [0; CORRELATION]);
            for (value, _) in &values {
                add(&mut words, *value, false);
                add_pair(&mut pairs, (*value, -2.0 * value), false);
            }
            for (value, _) in values.iter().filter(|(_, stays)| !stays) {
                add(&mut words, *value, true);
                add_pair(&mut pairs, (*value, -2.0 * value), true);
            }
            let left: Vec<f64> = values.iter().filter(|(_, stays)| *stays).map(|(value, _)| *value).collect();
            let (rows, spread) = variance(&words);
            prop_assert_eq!(rows, left.len() as f64);
            match spread {
                Some(spread) => prop_assert!((spread - plain_variance(&left)).abs() <= 1e-6 * 1e12, "{} {}", spread, plain_variance(&left)),
                None => prop_assert!(left.len() < 2),
            }
            if left.is_empty() {
                prop_assert_eq!((words, pairs), ([0; VARIANCE], [0; CORRELATION]));
            }
            if let Some(correlation) = correlation(&pairs) && !correlation.is_nan() {
                prop_assert!((-1.0..=1.0).contains(&correlation));
            }
        }
    }

    #[test]
    fn small_spreads_around_large_means_are_kept() {
        let mut words = [0; VARIANCE];
        [1e9 + 1.0, 1e9 + 2.0, 1e9 + 3.0].into_iter().for_each(|value| add(&mut words, value, false));
        assert_eq!(variance(&words), (3.0, Some(1.0)));
    }

    #[test]
    fn a_correlation_of_one_row_or_of_one_value_is_not_defined() {
        let mut words = [0; CORRELATION];
        assert_eq!(correlation(&words), None);
        add_pair(&mut words, (1.0, 2.0), false);
        assert!(correlation(&words).unwrap().is_nan());
        add_pair(&mut words, (1.0, 5.0), false);
        assert!(correlation(&words).unwrap().is_nan());
        add_pair(&mut words, (2.0, 7.0), false);
        assert!(correlation(&words).unwrap() > 0.0);
    }
}
