//! What differs between the dialects of our SQL, flag by flag; read by the analyser, the codecs and the operators.
//!
//! Only the flags that something reads stand here. `standard` is the only dialect so far.

use datafusion::sql::sqlparser::ast::Ident;

/// The rules of one dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// How an identifier without quotes is folded.
    pub identifiers: FoldCase,
    /// What integer arithmetic does beyond its range.
    pub overflow: Overflow,
    /// Where a persistent query starts unless told.
    pub start: Start,
}

/// How an identifier without quotes is folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoldCase {
    /// To lower case.
    Lower,
}

/// What integer arithmetic does beyond its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// The result is NULL, and the row is reported.
    Null,
}

/// Where a persistent query starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the beginning of its sources.
    Earliest,
}

impl Dialect {
    /// SQL's own rules: identifiers fold to lower case, NULL is SQL's NULL.
    pub const STANDARD: Self = Self { identifiers: FoldCase::Lower, overflow: Overflow::Null, start: Start::Earliest };

    /// The name that an identifier stands for.
    #[must_use]
    pub fn name(&self, ident: &Ident) -> String {
        match (ident.quote_style, self.identifiers) {
            (Some(_), _) => ident.value.clone(),
            (None, FoldCase::Lower) => ident.value.to_lowercase(),
        }
    }
}

impl Default for Dialect {
    fn default() -> Self {
        Self::STANDARD
    }
}
