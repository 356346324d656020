//! What differs between the dialects of our SQL, flag by flag; read by the analyser, the codecs and the operators.
//!
//! Only the flags that something reads stand here. A statement's dialect is that of its session; a query and a source keep the
//! one in which they were made, for whoever reads them later.

use std::{fmt, str::FromStr};

use datafusion::sql::sqlparser::ast::Ident;
use serde::{Deserialize, Serialize};

/// The rules of one dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// Which one.
    pub kind: DialectKind,
    /// How an identifier without quotes is folded.
    pub identifiers: FoldCase,
    /// What integer arithmetic does beyond its range.
    pub overflow: Overflow,
    /// What a comparison with NULL gives.
    pub null_comparison: NullComparison,
    /// Where a query that does not end starts unless told.
    pub start: Start,
    /// What a table's query writes of a step unless told (`WITH (changelog = ...)`).
    pub changelog: Changelog,
    /// Whether a query's SELECT list must have every key column of its result, once, and something beside.
    pub strict_keys: bool,
    /// What aggregates give where the dialects differ.
    pub aggregates: AggregateRules,
    /// Whether a number in GROUP BY is a place of the SELECT list, rather than a constant.
    pub group_by_places: bool,
    /// How many values COLLECT_LIST and COLLECT_SET show; a session or the server may say otherwise.
    pub collected: CollectLimits,
}

/// How many values the aggregates that collect them show: the first so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CollectLimits {
    /// Of COLLECT_LIST.
    pub list: u32,
    /// Of COLLECT_SET.
    pub set: u32,
}

impl CollectLimits {
    /// ksqlDB's, unless told.
    pub const DEFAULT: Self = Self { list: 1_000, set: 1_000 };
}

impl Default for CollectLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What aggregates give where the dialects differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AggregateRules {
    /// SQL's: nothing is NULL, sums have room, every aggregate takes back its own row's value.
    #[default]
    Standard,
    /// ksqlDB's: SUM and AVG start at 0, SUM keeps its argument's type and wraps, STDDEV_SAMP is the variance, what is taken back is
    /// the first equal value, and what cannot take values back is refused over tables.
    Ksql,
}

/// What a query that makes a table writes of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Changelog {
    /// The change of each record, also if it changed nothing.
    Every,
    /// Each row that is another than before, once.
    Coalesced,
}

/// The names of the dialects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DialectKind {
    /// SQL's own rules.
    #[default]
    Standard,
    /// What scripts written for ksqlDB rely on.
    Ksql,
}

impl DialectKind {
    /// The name as users write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Ksql => "ksql",
        }
    }

    /// Its rules.
    #[must_use]
    pub const fn rules(self) -> Dialect {
        match self {
            Self::Standard => Dialect::STANDARD,
            Self::Ksql => Dialect::KSQL,
        }
    }
}

impl fmt::Display for DialectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for DialectKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = [Self::Standard, Self::Ksql].into_iter().find(|kind| kind.as_str().eq_ignore_ascii_case(text));
        known.ok_or_else(|| format!("there is no dialect {text}; there are standard and ksql"))
    }
}

/// How an identifier without quotes is folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoldCase {
    /// To lower case.
    Lower,
    /// To upper case.
    Upper,
}

/// What integer arithmetic does beyond its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// The result is NULL, and the row is reported.
    Null,
    /// It wraps around.
    Wrap,
}

/// What a comparison with NULL gives, but for IS DISTINCT FROM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NullComparison {
    /// NULL.
    Null,
    /// FALSE.
    False,
}

/// Where a query that does not end starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the beginning of its sources.
    Earliest,
    /// At what is appended from now on.
    Latest,
}

impl Dialect {
    /// SQL's own rules: identifiers fold to lower case, NULL is SQL's NULL.
    pub const STANDARD: Self = Self {
        kind: DialectKind::Standard,
        identifiers: FoldCase::Lower,
        overflow: Overflow::Null,
        null_comparison: NullComparison::Null,
        start: Start::Earliest,
        changelog: Changelog::Coalesced,
        strict_keys: false,
        aggregates: AggregateRules::Standard,
        group_by_places: true,
        collected: CollectLimits::DEFAULT,
    };

    /// ksqlDB's rules: identifiers fold to upper case, a comparison with NULL is FALSE, integers wrap.
    pub const KSQL: Self = Self {
        kind: DialectKind::Ksql,
        identifiers: FoldCase::Upper,
        overflow: Overflow::Wrap,
        null_comparison: NullComparison::False,
        start: Start::Latest,
        changelog: Changelog::Every,
        strict_keys: true,
        aggregates: AggregateRules::Ksql,
        group_by_places: false,
        collected: CollectLimits::DEFAULT,
    };

    /// The name that an identifier stands for.
    #[must_use]
    pub fn name(&self, ident: &Ident) -> String {
        if ident.quote_style.is_some() { ident.value.clone() } else { self.fold(&ident.value) }
    }

    /// A name without quotes, folded.
    #[must_use]
    pub fn fold(&self, name: &str) -> String {
        match self.identifiers {
            FoldCase::Lower => name.to_lowercase(),
            FoldCase::Upper => name.to_uppercase(),
        }
    }
}

impl Default for Dialect {
    fn default() -> Self {
        Self::STANDARD
    }
}
