//! How large the values are that an operation makes, told from its operands before it runs.
//!
//! Used by `operation`; [`bytes_of`] by whoever adds up what batches hold. What always holds: bounds depend on the row alone, so
//! that the same row has the same value in every cut into batches. A bound may be too high, by a factor that is small beside what
//! a row may need; it is never too low by more than such a factor.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, OffsetSizeTrait},
    buffer::OffsetBuffer,
    compute::take,
    datatypes::DataType,
};
use datafusion::{
    common::{Result, ScalarValue},
    logical_expr::Operator,
    physical_expr::{
        PhysicalExpr, ScalarFunctionExpr,
        expressions::{BinaryExpr, Column, Literal},
    },
};

/// Largest value that an operation makes of smaller ones.
pub(crate) const MAX_VALUE_BYTES: usize = 1 << 20;
/// Most bytes of values that an expression makes of one batch, unless the batch is a single row.
pub(crate) const MAX_BATCH_BYTES: usize = 64 << 20;
/// A row with a higher bound is not computed, and rows are computed together while their bounds are not above it.
pub(crate) const MAX_WORK_BYTES: usize = 64 << 20;

/// What one byte becomes at most in operations that are not named below.
const FACTOR: usize = 12;
/// What one byte of a format becomes at most: `%+` is a whole timestamp.
const FORMAT_FACTOR: usize = 32;
/// Bytes that a value of fixed size counts for.
const FIXED: usize = 16;
/// Bytes that an element counts for, beside itself.
const ELEMENT: usize = 4;

/// Functions whose time is the product of their arguments.
const COMPARING: [&str; 3] = ["levenshtein", "array_has_all", "array_has_any"];

/// The bound of an operation's values.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Growth {
    kind: Kind,
    arguments: Vec<Argument>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// All arguments after each other.
    Together,
    /// The second and later arguments with the first between them.
    Joined,
    /// The first argument with the third in place of each occurrence of the second.
    Replaced,
    /// The same for the matches of a pattern, or the first match; the replacement refers to the match so many times.
    Matched { references: Option<usize>, global: bool },
    /// Every group of a pattern, each at most the whole text.
    Captured,
    /// Elements of the first argument with others between or in place of them.
    Elements,
    /// Each byte becomes so many.
    Times(usize),
    /// The value is small, and comparing every byte of one argument with every byte of the other is what takes long.
    Compared,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Argument {
    Operand(usize),
    Literal(ScalarValue),
}

/// The bound of one row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    /// Bytes of its value, at most, or steps that it takes.
    pub(super) bytes: usize,
    /// Bytes of its largest operand: so large a value may be.
    pub(super) operand: usize,
}

impl Growth {
    /// The bound of an operation over columns and literals; none if its values have a fixed size and take no time.
    pub(super) fn of(operation: &dyn PhysicalExpr, data_type: &DataType) -> Option<Self> {
        let function = operation.downcast_ref::<ScalarFunctionExpr>().map(|function| function.fun().name());
        let is_compared = function.is_some_and(|name| COMPARING.contains(&name));
        if !is_compared && (data_type.is_primitive() || matches!(data_type, DataType::Boolean | DataType::Null)) {
            return None;
        }
        let argument = |child: &Arc<dyn PhysicalExpr>| match (child.downcast_ref::<Literal>(), child.downcast_ref::<Column>()) {
            (Some(literal), _) => Some(Argument::Literal(literal.value().clone())),
            (_, column) => column.map(|column| Argument::Operand(column.index())),
        };
        let arguments: Vec<Argument> = operation.children().into_iter().filter_map(argument).collect();
        let text = |place: usize| match arguments.get(place) {
            Some(Argument::Literal(value)) => value.try_as_str().flatten(),
            _ => None,
        };
        let kind = match function {
            _ if is_compared => Kind::Compared,
            Some("concat" | "make_array" | "array_concat" | "array_append" | "array_prepend") => Kind::Together,
            Some("concat_ws") => Kind::Joined,
            Some("replace") => Kind::Replaced,
            Some("regexp_replace") => Kind::Matched {
                references: text(2).map(|replacement| replacement.matches(['$', '\\']).count()),
                global: arguments.len() > 3 && text(3).is_none_or(|flags| flags.contains('g')),
            },
            Some("regexp_match") => Kind::Captured,
            Some("array_to_string" | "array_replace" | "array_replace_n" | "array_replace_all") => Kind::Elements,
            Some("to_char") => Kind::Times(FORMAT_FACTOR),
            None if is_concatenation(operation) => Kind::Together,
            _ => Kind::Times(FACTOR),
        };
        Some(Self { kind, arguments })
    }

    /// Why a row may have no value, beside what else can fail.
    pub(super) fn limit(&self) -> String {
        match self.kind {
            Kind::Compared => "or too long to be compared".to_owned(),
            _ => format!("or larger than {MAX_VALUE_BYTES} bytes"),
        }
    }

    /// The bound of each row.
    pub(super) fn bounds(&self, operands: &[ArrayRef], rows: usize) -> Result<Vec<Bound>> {
        let mut sizes = Vec::with_capacity(self.arguments.len());
        for argument in &self.arguments {
            sizes.push(match argument {
                Argument::Operand(place) => operands.get(*place).map(sizes_of).transpose()?.unwrap_or_default(),
                Argument::Literal(value) => vec![sizes_of(&value.to_array()?)?.first().copied().unwrap_or(0); rows],
            });
        }
        let mut of_row = Vec::with_capacity(sizes.len());
        let mut bounds = Vec::with_capacity(rows);
        for row in 0..rows {
            of_row.clear();
            of_row.extend(sizes.iter().map(|sizes| sizes.get(row).copied().unwrap_or(FIXED)));
            let mut bytes = self.most(&of_row);
            if bytes > MAX_WORK_BYTES && self.kind == Kind::Replaced {
                bytes = self.replaced(operands, row, &of_row)?;
            }
            bounds.push(Bound { bytes, operand: of_row.iter().copied().max().unwrap_or(0) });
        }
        Ok(bounds)
    }

    /// The bound for arguments of these sizes, whatever they contain.
    fn most(&self, sizes: &[usize]) -> usize {
        let all = sizes.iter().copied().fold(FIXED, usize::saturating_add);
        let at = |place: usize| sizes.get(place).copied().unwrap_or(0);
        let (first, third) = (at(0), at(2));
        let added = match self.kind {
            Kind::Together => ELEMENT * sizes.len(),
            Kind::Joined => first.saturating_mul(sizes.len()),
            Kind::Replaced => (first / at(1).max(1)).saturating_mul(third),
            Kind::Matched { references, global } => {
                let matches = if global { first + 1 } else { 1 };
                let referred = references.unwrap_or(third).saturating_mul(first);
                matches.saturating_mul(third).saturating_add(referred)
            }
            Kind::Captured => first.saturating_mul(at(1)),
            Kind::Elements => {
                let others = sizes.iter().skip(1).copied().fold(0, usize::saturating_add);
                all.saturating_mul(FACTOR).saturating_add((first / ELEMENT + 1).saturating_mul(others))
            }
            Kind::Times(factor) => all.saturating_mul(factor),
            // Work, not a value: the pairs alone.
            Kind::Compared => return all.max(first.saturating_mul(at(1))),
        };
        all.saturating_add(added)
    }

    /// What `replace` makes of a row, by counting what it replaces.
    fn replaced(&self, operands: &[ArrayRef], row: usize, sizes: &[usize]) -> Result<usize> {
        let value = |place: usize| match self.arguments.get(place) {
            Some(Argument::Literal(value)) => Ok(value.clone()),
            Some(Argument::Operand(place)) => operands.get(*place).map_or(Ok(ScalarValue::Null), |of| ScalarValue::try_from_array(of, row)),
            None => Ok(ScalarValue::Null),
        };
        let (text, from) = (value(0)?, value(1)?);
        let (Some(Some(text)), Some(Some(from))) = (text.try_as_str(), from.try_as_str()) else { return Ok(0) };
        let found = if from.is_empty() { 0 } else { text.matches(from).count() };
        Ok(text.len().saturating_add(found.saturating_mul(sizes.get(2).copied().unwrap_or(0))))
    }
}

fn is_concatenation(operation: &dyn PhysicalExpr) -> bool {
    operation.downcast_ref::<BinaryExpr>().is_some_and(|binary| *binary.op() == Operator::StringConcat)
}

/// Bytes of each value of a column, about; of texts exactly.
pub(crate) fn sizes_of(column: &ArrayRef) -> Result<Vec<usize>> {
    Ok(match column.data_type() {
        DataType::Utf8 => lengths(column.as_string::<i32>().offsets()).collect(),
        DataType::LargeUtf8 => lengths(column.as_string::<i64>().offsets()).collect(),
        DataType::Binary => lengths(column.as_binary::<i32>().offsets()).collect(),
        DataType::LargeBinary => lengths(column.as_binary::<i64>().offsets()).collect(),
        DataType::Utf8View => column.as_string_view().lengths().map(|length| length as usize).collect(),
        DataType::BinaryView => column.as_binary_view().lengths().map(|length| length as usize).collect(),
        DataType::List(_) => {
            let lists = column.as_list::<i32>();
            let elements = sizes_of(lists.values())?;
            let of_list = |range: &[i32]| {
                let (from, to) = (usize::try_from(range[0]).unwrap_or(0), usize::try_from(range[1]).unwrap_or(0));
                elements.get(from..to).unwrap_or_default().iter().map(|element| element + ELEMENT).sum()
            };
            lists.value_offsets().windows(2).map(of_list).collect()
        }
        other if other.is_nested() => {
            let row = |row: usize| Ok(take(column, &arrow::array::UInt64Array::from_value(row as u64, 1), None)?.get_array_memory_size());
            (0..column.len()).map(row).collect::<Result<_>>()?
        }
        _ => vec![FIXED; column.len()],
    })
}

fn lengths<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>) -> impl Iterator<Item = usize> {
    offsets.lengths()
}

/// Bytes of a column's values, about; of texts exactly.
pub(crate) fn bytes_of(column: &ArrayRef) -> usize {
    let Some(texts) = column.as_string_opt::<i32>() else { return column.len() * FIXED };
    match texts.value_offsets() {
        [first, .., last] => usize::try_from(last - first).unwrap_or(0),
        _ => 0,
    }
}
