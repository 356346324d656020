//! How answers are shown: in which layout, and what is told behind them.

use std::time::Duration;

use crate::cli::output::{Cell, Format, Head, natural_width};

use super::pager::Screen;

/// When rows are shown one column a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expanded {
    /// Always.
    On,
    /// Never: wide tables are folded.
    Off,
    /// Where a table is wider than the screen and no pager scrolls it.
    Auto,
}

impl Expanded {
    /// As `\x` names it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Auto => "auto",
        }
    }
}

/// What the user chose.
#[derive(Clone, Debug)]
pub struct Display {
    /// Format of results.
    pub format: Format,
    /// Whether a table is expanded.
    pub expanded: Expanded,
    /// Whether it is told how long a statement took.
    pub timing: bool,
    /// Whether there are colours.
    pub colour: bool,
}

impl Display {
    /// The layout for these rows, and the columns into which a table is folded, if it is.
    #[must_use]
    pub fn layout(&self, heads: &[Head], rows: &[Vec<Cell>], screen: &Screen) -> (Format, Option<u16>) {
        let folded = (Format::Table, u16::try_from(screen.columns).ok());
        match (self.format, self.expanded) {
            (Format::Table, Expanded::On) => (Format::Expanded, None),
            (Format::Table, Expanded::Off) => folded,
            (Format::Table, Expanded::Auto) if natural_width(heads, rows) <= screen.columns => folded,
            (Format::Table, Expanded::Auto) if screen.paged && screen.pager.is_some() => (Format::Table, None),
            (Format::Table, Expanded::Auto) => (Format::Expanded, None),
            (other @ (Format::Expanded | Format::Json | Format::Jsonl | Format::Csv), _) => (other, None),
        }
    }
}

/// Whether people read it: then the number of rows is told behind it.
#[must_use]
pub const fn is_for_people(format: Format) -> bool {
    match format {
        Format::Table | Format::Expanded => true,
        Format::Json | Format::Jsonl | Format::Csv => false,
    }
}

/// `1 row`, `3 rows`.
#[must_use]
pub fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// How long something took, in the unit that fits.
#[must_use]
pub fn took(time: Duration) -> String {
    match time.as_micros() {
        us @ 0..10_000 => format!("{}.{:03} ms", us / 1000, us % 1000),
        us @ 10_000..10_000_000 => format!("{} ms", us / 1000),
        us => format!("{}.{} s", us / 1_000_000, us / 100_000 % 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_too_wide_is_expanded_unless_a_pager_scrolls_it() {
        let heads = [Head::text("name")];
        let (narrow, wide) = (vec![vec!["x".into()]], vec![vec!["x".repeat(30).as_str().into()]]);
        let display = |expanded| Display { format: Format::Table, expanded, timing: false, colour: false };
        let screen = |pager: Option<&str>| Screen { lines: 9, columns: 20, pager: pager.map(str::to_owned), paged: true };
        assert_eq!(display(Expanded::Auto).layout(&heads, &narrow, &screen(None)), (Format::Table, Some(20)));
        assert_eq!(display(Expanded::Auto).layout(&heads, &wide, &screen(None)), (Format::Expanded, None));
        assert_eq!(display(Expanded::Auto).layout(&heads, &wide, &screen(Some("less"))), (Format::Table, None));
        assert_eq!(display(Expanded::Off).layout(&heads, &wide, &screen(None)), (Format::Table, Some(20)));
        assert_eq!(display(Expanded::On).layout(&heads, &narrow, &screen(None)), (Format::Expanded, None));
        let csv = Display { format: Format::Csv, ..display(Expanded::On) };
        assert_eq!(csv.layout(&heads, &wide, &screen(None)), (Format::Csv, None));
    }

    #[test]
    fn times_are_told_in_the_unit_that_fits() {
        assert_eq!(took(Duration::from_micros(1_234)), "1.234 ms");
        assert_eq!(took(Duration::from_micros(123_456)), "123 ms");
        assert_eq!(took(Duration::from_millis(12_345)), "12.3 s");
        assert_eq!((counted(1, "row"), counted(0, "row")), ("1 row".to_owned(), "0 rows".to_owned()));
    }
}
