//! What the views must hold, and the comparison of an answer with it.
//!
//! The figures come from `server/demo/flights/expected`, written by a script that shares nothing with foldlog. Pure; called by
//! [`super::flights`]. Numbers are compared exactly: a view that is off by one minute, or by the last bit of an average, is wrong.

use std::collections::BTreeMap;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::Value;

/// Expected rows of a view or a query, for each number of days replayed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expected {
    /// Columns, in the order of the rows' values.
    pub columns: Vec<String>,
    days: BTreeMap<String, Vec<Vec<Value>>>,
}

/// How an answer compares with what was expected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    /// Rows compared.
    pub rows: usize,
    /// Figures compared.
    pub figures: usize,
    /// What differs, a sentence each.
    pub differences: Vec<String>,
}

macro_rules! expected {
    ($($name:ident)*) => {$(
        pub(super) fn $name() -> anyhow::Result<Expected> {
            const TEXT: &str = include_str!(concat!("../../../demo/flights/expected/", stringify!($name), ".json"));
            serde_json::from_str(TEXT).context(concat!("expected/", stringify!($name), ".json cannot be read"))
        }
    )*};
}
expected!(events delays_by_carrier airport_board worst_routes report);

impl Expected {
    /// The rows after the first `days` days.
    pub(super) fn rows(&self, days: usize) -> anyhow::Result<&[Vec<Value>]> {
        Ok(self.days.get(&days.to_string()).with_context(|| format!("nothing is expected of {days} days"))?)
    }

    /// Compares an answer, row by row and figure by figure. The order of the rows counts.
    pub(super) fn compare(&self, days: usize, columns: &[String], rows: &[Vec<Value>]) -> anyhow::Result<Comparison> {
        let expected = self.rows(days)?;
        let mut comparison = Comparison { rows: expected.len().min(rows.len()), ..Comparison::default() };
        if columns != self.columns {
            comparison.differences.push(format!("columns are {columns:?}, expected {:?}", self.columns));
            return Ok(comparison);
        }
        if rows.len() != expected.len() {
            comparison.differences.push(format!("there are {} rows, expected {}", rows.len(), expected.len()));
        }
        for (number, (row, wanted)) in rows.iter().zip(expected).enumerate() {
            comparison.figures += wanted.len();
            if row != wanted {
                let (row, wanted) = (Value::from(row.clone()), Value::from(wanted.clone()));
                comparison.differences.push(format!("row {} is {row}, expected {wanted}", number + 1));
            }
        }
        Ok(comparison)
    }
}

impl Comparison {
    /// Whether nothing differs and something was compared.
    pub(super) fn holds(&self) -> bool {
        self.differences.is_empty() && self.figures > 0
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn all() -> [Expected; 5] {
        [events().unwrap(), delays_by_carrier().unwrap(), airport_board().unwrap(), worst_routes().unwrap(), report().unwrap()]
    }

    #[test]
    fn the_expected_rows_equal_themselves_on_every_day() {
        for expected in all() {
            for days in 1..=7 {
                let rows = expected.rows(days).unwrap().to_vec();
                let comparison = expected.compare(days, &expected.columns, &rows).unwrap();
                assert!(comparison.holds(), "{comparison:?}");
                assert_eq!(comparison.figures, rows.len() * expected.columns.len());
            }
        }
    }

    /// FNV-1a of 64 bits, as `expected.py` has it.
    fn digest(content: &str) -> String {
        let digest = content.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |value, byte| (value ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        format!("{digest:016x}")
    }

    #[test]
    fn the_figures_are_those_of_the_flights_that_are_replayed() {
        macro_rules! files {
            ($($name:literal)*) => { BTreeMap::from([$(($name.to_owned(), digest(include_str!(concat!("../../../demo/flights/", $name))))),*]) };
        }
        let found = files!(
            "flights.csv" "carriers.csv" "expected/events.json" "expected/delays_by_carrier.json" "expected/airport_board.json"
            "expected/worst_routes.json" "expected/report.json"
        );
        let computed: BTreeMap<String, String> = serde_json::from_str(include_str!("../../../demo/flights/expected/digests.json")).unwrap();
        assert_eq!(found, computed, "run server/demo/flights/expected.py");
    }

    #[test]
    fn any_corrupted_figure_is_objected_to() {
        for expected in all() {
            let rows = expected.rows(7).unwrap();
            for row in 0..rows.len() {
                for column in 0..expected.columns.len() {
                    let mut corrupted = rows.to_vec();
                    corrupted[row][column] = match &corrupted[row][column] {
                        Value::Number(number) if number.is_f64() => json!(f64::from_bits(number.as_f64().unwrap().to_bits() + 1)),
                        Value::Number(number) => json!(number.as_i64().unwrap() + 1),
                        Value::Null => json!(0),
                        other => json!(format!("{other}?")),
                    };
                    let comparison = expected.compare(7, &expected.columns, &corrupted).unwrap();
                    assert_eq!(comparison.differences.len(), 1, "{comparison:?}");
                    assert!(!comparison.holds());
                }
            }
        }
    }

    #[test]
    fn a_missing_row_and_an_empty_answer_are_objected_to() {
        let expected = report().unwrap();
        let rows = expected.rows(7).unwrap();
        let all_but_one = rows.split_last().unwrap().1;
        assert!(!expected.compare(7, &expected.columns, all_but_one).unwrap().holds());
        assert!(!expected.compare(7, &expected.columns, &[]).unwrap().holds());
        assert!(!expected.compare(7, &["other".to_owned()], rows).unwrap().holds());
    }

    #[test]
    fn the_events_of_the_demo_are_those_expected() {
        for days in 1..=7 {
            let mut counted: BTreeMap<&str, u64> = BTreeMap::new();
            let replayed = super::super::data::events(days).unwrap();
            for event in &replayed {
                *counted.entry(event.kind).or_default() += 1;
            }
            let rows: Vec<Vec<Value>> = counted.into_iter().map(|(kind, count)| vec![json!(kind), json!(count)]).collect();
            let expected = events().unwrap();
            let comparison = expected.compare(days, &expected.columns, &rows).unwrap();
            assert!(comparison.holds(), "{comparison:?}");
        }
    }
}
