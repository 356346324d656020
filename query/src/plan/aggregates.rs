//! The aggregates of queries that do not end: what there is, what each takes and gives.
//!
//! One list for the planner (`plan/grouping`), SHOW FUNCTIONS and DESCRIBE FUNCTION. How values are folded stands in
//! `stream/operator`. Every example is run by `tests/statements.rs`.

use std::sync::Arc;

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType};
use datafusion::{
    common::{DataFusionError, ScalarValue},
    logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility, function::AccumulatorArgs},
};

use super::streaming::AggregateFunction::{self, self as Function};
use crate::{
    catalog::types::{array_of, kept_as, map_of, struct_of, type_name},
    error::QueryError,
    sql::dialect::{AggregateRules, CollectLimits},
};

/// Most keys of a HISTOGRAM.
const MOST_COUNTED: u32 = 1_000;
/// Most values that EARLIEST_BY_OFFSET, LATEST_BY_OFFSET, TOPK and TOPKDISTINCT can be asked for.
const MOST_ASKED: u32 = 10_000;

/// An aggregate as users know it.
#[derive(Debug, PartialEq, Eq)]
pub struct Aggregate {
    /// Name, in lower case.
    pub name: &'static str,
    /// Other names of it.
    pub aliases: &'static [&'static str],
    /// What it takes and gives, one line a form.
    pub signatures: &'static [&'static str],
    /// What it computes.
    pub description: &'static str,
    /// A call over the column `v` of the rows (1), (3), (3), or what it says there, and its result as text.
    pub example: (&'static str, &'static str),
    /// Whether the `ksql` dialect has it over tables.
    pub over_tables_in_ksql: bool,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Count,
    CountDistinct,
    Sum,
    Avg,
    Min,
    Max,
    SumList,
    Earliest,
    Latest,
    CollectList,
    CollectSet,
    TopK,
    TopKDistinct,
    Histogram,
    Attr,
    Correlation,
    StddevSamp,
    StddevSample,
    Variance,
}

/// Every aggregate, by name.
#[must_use]
pub fn all() -> &'static [Aggregate] {
    &ALL
}

const ALL: [Aggregate; 19] = [
    Aggregate {
        name: "attr",
        aliases: &[],
        signatures: &["attr(value any) -> any"],
        description: "The value that all rows of the group have; NULL if they have several. NULL is a value like another.",
        example: ("attr(v)", "NULL"),
        over_tables_in_ksql: true,
        kind: Kind::Attr,
    },
    Aggregate {
        name: "avg",
        aliases: &["mean"],
        signatures: &["avg(value number) -> DOUBLE"],
        description: "The mean of the values that are not NULL.",
        example: ("avg(v)", "2.3333333333333335"),
        over_tables_in_ksql: true,
        kind: Kind::Avg,
    },
    Aggregate {
        name: "collect_list",
        aliases: &[],
        signatures: &["collect_list(value any) -> ARRAY<any>"],
        description: "The values in the order of the rows, NULL included; the first 1,000 unless the setting ksql.functions.collect_list.limit says otherwise.",
        example: ("collect_list(v)", "[1, 3, 3]"),
        over_tables_in_ksql: true,
        kind: Kind::CollectList,
    },
    Aggregate {
        name: "collect_set",
        aliases: &[],
        signatures: &["collect_set(value any) -> ARRAY<any>"],
        description: "Each value once, NULL included, in the order in which they first came; the first 1,000 unless the setting ksql.functions.collect_set.limit says otherwise.",
        example: ("collect_set(v)", "[1, 3]"),
        over_tables_in_ksql: false,
        kind: Kind::CollectSet,
    },
    Aggregate {
        name: "correlation",
        aliases: &["corr"],
        signatures: &["correlation(x number, y number) -> DOUBLE"],
        description: "The correlation of Pearson of the rows in which both are not NULL.",
        example: ("correlation(v, v * 2)", "1.0"),
        over_tables_in_ksql: true,
        kind: Kind::Correlation,
    },
    Aggregate {
        name: "count",
        aliases: &[],
        signatures: &["count(*) -> BIGINT", "count(value any) -> BIGINT", "count(DISTINCT value any) -> BIGINT"],
        description: "The number of rows, or of those in which the value is not NULL.",
        example: ("count(*)", "3"),
        over_tables_in_ksql: true,
        kind: Kind::Count,
    },
    Aggregate {
        name: "count_distinct",
        aliases: &[],
        signatures: &["count_distinct(value any) -> BIGINT"],
        description: "The exact number of different values that are not NULL.",
        example: ("count_distinct(v)", "2"),
        over_tables_in_ksql: false,
        kind: Kind::CountDistinct,
    },
    Aggregate {
        name: "earliest_by_offset",
        aliases: &[],
        signatures: &[
            "earliest_by_offset(value any [, ignore_nulls BOOLEAN]) -> any",
            "earliest_by_offset(value any, n INT [, ignore_nulls BOOLEAN]) -> ARRAY<any>",
        ],
        description: "The value of the first row, or those of the first n; NULLs are passed over unless ignore_nulls is FALSE.",
        example: ("earliest_by_offset(v)", "1"),
        over_tables_in_ksql: false,
        kind: Kind::Earliest,
    },
    Aggregate {
        name: "histogram",
        aliases: &[],
        signatures: &["histogram(value VARCHAR) -> MAP<VARCHAR, BIGINT>"],
        description: "How often each value came; the first 1,000 different ones.",
        example: ("histogram(CAST(v AS VARCHAR))", "{1: 1, 3: 2}"),
        over_tables_in_ksql: true,
        kind: Kind::Histogram,
    },
    Aggregate {
        name: "latest_by_offset",
        aliases: &[],
        signatures: &[
            "latest_by_offset(value any [, ignore_nulls BOOLEAN]) -> any",
            "latest_by_offset(value any, n INT [, ignore_nulls BOOLEAN]) -> ARRAY<any>",
        ],
        description: "The value of the last row, or those of the last n; NULLs are passed over unless ignore_nulls is FALSE.",
        example: ("latest_by_offset(v, 2)", "[3, 3]"),
        over_tables_in_ksql: false,
        kind: Kind::Latest,
    },
    Aggregate {
        name: "max",
        aliases: &[],
        signatures: &["max(value any) -> any"],
        description: "The greatest value.",
        example: ("max(v)", "3"),
        over_tables_in_ksql: false,
        kind: Kind::Max,
    },
    Aggregate {
        name: "min",
        aliases: &[],
        signatures: &["min(value any) -> any"],
        description: "The smallest value.",
        example: ("min(v)", "1"),
        over_tables_in_ksql: false,
        kind: Kind::Min,
    },
    Aggregate {
        name: "stddev_samp",
        aliases: &["stddev"],
        signatures: &["stddev_samp(value number) -> DOUBLE"],
        description: "The standard deviation of a sample; in the ksql dialect its variance, as ksqlDB has it.",
        example: ("stddev_samp(v)", "1.1547005383792515"),
        over_tables_in_ksql: true,
        kind: Kind::StddevSamp,
    },
    Aggregate {
        name: "stddev_sample",
        aliases: &[],
        signatures: &["stddev_sample(value number) -> DOUBLE"],
        description: "The standard deviation of a sample.",
        example: ("stddev_sample(v)", "1.1547005383792515"),
        over_tables_in_ksql: true,
        kind: Kind::StddevSample,
    },
    Aggregate {
        name: "sum",
        aliases: &[],
        signatures: &["sum(value INT | BIGINT) -> BIGINT", "sum(value DOUBLE) -> DOUBLE", "sum(value DECIMAL(p, s)) -> DECIMAL(38, s)"],
        description: "The sum of the values that are not NULL.",
        example: ("sum(v)", "7"),
        over_tables_in_ksql: true,
        kind: Kind::Sum,
    },
    Aggregate {
        name: "sum_list",
        aliases: &[],
        signatures: &["sum_list(values ARRAY<number>) -> number"],
        description: "The sum of the elements of all arrays.",
        example: ("sum_list(make_array(v, 1))", "10"),
        over_tables_in_ksql: true,
        kind: Kind::SumList,
    },
    Aggregate {
        name: "topk",
        aliases: &[],
        signatures: &[
            "topk(value any, n INT) -> ARRAY<any>",
            "topk(value any, more any, ..., n INT) -> ARRAY<STRUCT<sort_col, col0, ...>>",
        ],
        description: "The n greatest values, the greatest first, and of equal ones the first to come; with more columns each with theirs.",
        example: ("topk(v, 2)", "[3, 3]"),
        over_tables_in_ksql: false,
        kind: Kind::TopK,
    },
    Aggregate {
        name: "topkdistinct",
        aliases: &[],
        signatures: &["topkdistinct(value any, n INT) -> ARRAY<any>"],
        description: "The n greatest different values, the greatest first.",
        example: ("topkdistinct(v, 2)", "[3, 1]"),
        over_tables_in_ksql: false,
        kind: Kind::TopKDistinct,
    },
    Aggregate {
        name: "var_samp",
        aliases: &["var", "var_sample"],
        signatures: &["var_samp(value number) -> DOUBLE"],
        description: "The variance of a sample.",
        example: ("var_samp(v)", "1.3333333333333333"),
        over_tables_in_ksql: true,
        kind: Kind::Variance,
    },
];

/// Looks an aggregate up by any of its names, whatever their case.
#[must_use]
pub fn find(name: &str) -> Option<&'static Aggregate> {
    let name = name.to_lowercase();
    ALL.iter().find(|one| one.name == name || one.aliases.contains(&name.as_str()))
}

/// An argument of a call as it was written.
#[derive(Clone, Copy, Debug)]
pub enum Argument<'a> {
    /// Something that is computed of each row.
    Value(&'a DataType),
    /// A literal of this type.
    Literal(&'a ScalarValue, &'a DataType),
}

impl Argument<'_> {
    fn data_type(&self) -> &DataType {
        match self {
            Self::Value(data_type) | Self::Literal(_, data_type) => data_type,
        }
    }
}

/// What is folded for a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The function with its settings.
    pub function: AggregateFunction,
    /// Types in which the first arguments are folded, one for each that is; the others are settings.
    pub types: Vec<DataType>,
    /// Type of the result.
    pub returns: DataType,
}

impl Aggregate {
    /// What a call folds; `over_table` if rows will be taken back.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] where arguments do not fit, with the forms that there are; [`QueryError::Unsupported`] over a table
    /// where the dialect refuses that.
    pub fn resolve(&self, arguments: &[Argument<'_>], over_table: bool, rules: AggregateRules) -> Result<Resolved, QueryError> {
        if over_table && rules == AggregateRules::Ksql && !self.over_tables_in_ksql {
            return Err(QueryError::Unsupported(format!("{} over a table in the ksql dialect, where it cannot take rows back", self.name)));
        }
        let call = Call { aggregate: self, arguments, rules };
        match self.kind {
            Kind::Count if arguments.is_empty() => {
                Ok(Resolved { function: Function::CountStar, types: Vec::new(), returns: DataType::Int64 })
            }
            Kind::Count => call.of_any(1, |_| (Function::Count, DataType::Int64)),
            Kind::CountDistinct => call.of_any(1, |_| (Function::CountDistinct, DataType::Int64)),
            Kind::Sum => call.sum(Function::Sum, call.only()?),
            Kind::SumList => match call.only()? {
                DataType::List(item) => {
                    let of_items = call.sum(Function::SumList, item.data_type())?;
                    let types = of_items.types.into_iter().map(array_of).collect();
                    Ok(Resolved { types, ..of_items })
                }
                other => Err(call.refused(other)),
            },
            Kind::Avg => {
                let summed = call.sum(Function::Avg, call.only()?)?;
                Ok(Resolved { returns: DataType::Float64, ..summed })
            }
            Kind::Min => call.of_any(1, |types| (Function::Min, first(types))),
            Kind::Max => call.of_any(1, |types| (Function::Max, first(types))),
            Kind::Earliest => call.by_offset(|count, nulls| Function::Earliest { count, nulls }),
            Kind::Latest => call.by_offset(|count, nulls| Function::Latest { count, nulls }),
            Kind::CollectList => {
                call.of_any(1, |types| (Function::CollectList { most: CollectLimits::DEFAULT.list }, array_of(first(types))))
            }
            Kind::CollectSet => call.of_any(1, |types| (Function::CollectSet { most: CollectLimits::DEFAULT.set }, array_of(first(types)))),
            Kind::TopK => call.top_k(),
            Kind::TopKDistinct => {
                let count = call.count_at_end()?;
                call.of_any_and(1, 1, |types| (Function::TopKDistinct { count }, array_of(first(types))))
            }
            Kind::Histogram => match call.only()? {
                DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => Ok(Resolved {
                    function: Function::Histogram { most: MOST_COUNTED },
                    types: vec![DataType::Utf8],
                    returns: map_of(DataType::Utf8, DataType::Int64),
                }),
                other => Err(call.refused(other)),
            },
            Kind::Attr => call.of_any(1, |types| (Function::Attr, first(types))),
            Kind::Correlation => {
                call.with(2)?;
                call.numbers(Function::Correlation)
            }
            Kind::StddevSamp if rules == AggregateRules::Ksql => call.deviation(Function::Variance),
            Kind::StddevSamp | Kind::StddevSample => call.deviation(Function::Deviation),
            Kind::Variance => call.deviation(Function::Variance),
        }
    }

    fn forms(&self) -> String {
        self.signatures.join(" or ")
    }
}

/// A call whose arguments are looked at.
struct Call<'a> {
    aggregate: &'a Aggregate,
    arguments: &'a [Argument<'a>],
    rules: AggregateRules,
}

impl Call<'_> {
    /// The call must have so many arguments.
    fn with(&self, count: usize) -> Result<(), QueryError> {
        if self.arguments.len() == count {
            return Ok(());
        }
        Err(QueryError::Invalid(format!(
            "{} has {} arguments here; it is {}",
            self.aggregate.name,
            self.arguments.len(),
            self.aggregate.forms()
        )))
    }

    /// The type of the only argument.
    fn only(&self) -> Result<&DataType, QueryError> {
        self.with(1)?;
        self.arguments.first().map(Argument::data_type).ok_or_else(|| QueryError::Invalid(self.aggregate.forms()))
    }

    fn refused(&self, given: &DataType) -> QueryError {
        QueryError::Invalid(format!("{} does not take {}; it is {}", self.aggregate.name, type_name(given), self.aggregate.forms()))
    }

    /// So many values of any type.
    fn of_any(&self, values: usize, of: impl FnOnce(&[DataType]) -> (AggregateFunction, DataType)) -> Result<Resolved, QueryError> {
        self.of_any_and(values, 0, of)
    }

    /// So many values of any type, and then settings.
    fn of_any_and(
        &self,
        values: usize,
        settings: usize,
        of: impl FnOnce(&[DataType]) -> (AggregateFunction, DataType),
    ) -> Result<Resolved, QueryError> {
        self.with(values + settings)?;
        let kept = |argument: &Argument<'_>| kept_as(argument.data_type()).ok_or_else(|| self.refused(argument.data_type()));
        let types = self.arguments.iter().take(values).map(kept).collect::<Result<Vec<_>, _>>()?;
        let (function, returns) = of(&types);
        Ok(Resolved { function, types, returns })
    }

    /// The sum of values of a type.
    fn sum(&self, function: AggregateFunction, of: &DataType) -> Result<Resolved, QueryError> {
        let narrow = self.rules == AggregateRules::Ksql;
        let (folded, returns) = match of {
            DataType::Int32 if narrow => (DataType::Int64, DataType::Int32),
            of if of.is_integer() => (DataType::Int64, DataType::Int64),
            DataType::Decimal128(precision, scale) if narrow => (of.clone(), DataType::Decimal128(*precision, *scale)),
            DataType::Decimal128(_, scale) => (of.clone(), DataType::Decimal128(DECIMAL128_MAX_PRECISION, *scale)),
            of if of.is_numeric() || of.is_null() => (DataType::Float64, DataType::Float64),
            other => return Err(self.refused(other)),
        };
        Ok(Resolved { function, types: vec![folded], returns })
    }

    /// Numbers, folded as DOUBLE.
    fn numbers(&self, function: AggregateFunction) -> Result<Resolved, QueryError> {
        let is_number = |of: &DataType| of.is_numeric() || of.is_null();
        if let Some(other) = self.arguments.iter().map(Argument::data_type).find(|of| !is_number(of)) {
            return Err(self.refused(other));
        }
        Ok(Resolved { function, types: vec![DataType::Float64; self.arguments.len()], returns: DataType::Float64 })
    }

    fn deviation(&self, function: AggregateFunction) -> Result<Resolved, QueryError> {
        self.with(1)?;
        self.numbers(function)
    }

    /// The literal at a place, as a number of values to keep.
    fn count_at(&self, place: usize) -> Result<u32, QueryError> {
        let wrong = |given: &dyn std::fmt::Display| {
            QueryError::Invalid(format!(
                "{}: the number of values is {given}, expected a literal from 1 to {MOST_ASKED}; it is {}",
                self.aggregate.name,
                self.aggregate.forms()
            ))
        };
        match self.arguments.get(place) {
            Some(Argument::Literal(value, _)) => {
                let count = value.cast_to(&DataType::Int64).ok().filter(|_| value.data_type().is_integer());
                match count {
                    Some(ScalarValue::Int64(Some(count))) => {
                        u32::try_from(count).ok().filter(|count| (1..=MOST_ASKED).contains(count)).ok_or_else(|| wrong(value))
                    }
                    _ => Err(wrong(value)),
                }
            }
            Some(Argument::Value(_)) => Err(wrong(&"no literal")),
            None => Err(wrong(&"missing")),
        }
    }

    fn count_at_end(&self) -> Result<u32, QueryError> {
        self.count_at(self.arguments.len().saturating_sub(1).max(1))
    }

    /// A value, then how many and whether NULLs are passed over, both of which may be left out.
    fn by_offset(&self, of: impl FnOnce(Option<u32>, bool) -> AggregateFunction) -> Result<Resolved, QueryError> {
        let ignores = |place: usize| match self.arguments.get(place) {
            Some(Argument::Literal(ScalarValue::Boolean(Some(ignores)), _)) => Some(*ignores),
            _ => None,
        };
        let (count, ignores, settings) = match (self.arguments.len(), ignores(1), ignores(2)) {
            (1, ..) => (None, true, 0),
            (2, Some(ignores), _) => (None, ignores, 1),
            (2, None, _) => (Some(self.count_at(1)?), true, 1),
            (3, _, Some(ignores)) => (Some(self.count_at(1)?), ignores, 2),
            _ => return Err(QueryError::Invalid(format!("{} is {}", self.aggregate.name, self.aggregate.forms()))),
        };
        let function = of(count, !ignores);
        self.of_any_and(1, settings, |types| {
            let of = first(types);
            (function, if count.is_some() { array_of(of) } else { of })
        })
    }

    fn top_k(&self) -> Result<Resolved, QueryError> {
        let count = self.count_at_end()?;
        let values = self.arguments.len().saturating_sub(1);
        self.of_any_and(values, 1, |types| {
            let item = match types {
                [one] => one.clone(),
                types => {
                    let name = |place: usize| if place == 0 { "sort_col".to_owned() } else { format!("col{}", place - 1) };
                    struct_of(types.iter().enumerate().map(|(place, of)| (name(place), of.clone())))
                }
            };
            (Function::TopK { count }, array_of(item))
        })
    }
}

fn first(types: &[DataType]) -> DataType {
    types.first().cloned().unwrap_or(DataType::Null)
}

/// Our aggregates as DataFusion's planner must know them to recognise a call; it never runs them.
pub(crate) fn known_to_datafusion() -> Vec<Arc<AggregateUDF>> {
    // Those that DataFusion has under the same name and that mean the same are left to it.
    let is_its = |one: &&Aggregate| matches!(one.name, "count" | "sum" | "min" | "max" | "avg");
    let named = ALL.iter().filter(|one| !is_its(one)).flat_map(|one| std::iter::once(&one.name).chain(one.aliases));
    named
        .map(|name| Arc::new(AggregateUDF::new_from_impl(Named { name, signature: Signature::variadic_any(Volatility::Immutable) })))
        .collect()
}

/// A name for DataFusion's planner.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Named {
    name: &'static str,
    signature: Signature,
}

impl AggregateUDFImpl for Named {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> datafusion::common::Result<DataType> {
        let arguments: Vec<Argument<'_>> = types.iter().map(Argument::Value).collect();
        // Settings are not known here; whoever plans the call resolves it again.
        let resolved = find(self.name).and_then(|one| one.resolve(&arguments, false, AggregateRules::Standard).ok());
        Ok(resolved.map_or_else(|| first(types), |resolved| resolved.returns))
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> datafusion::common::Result<Box<dyn Accumulator>> {
        Err(DataFusionError::NotImplemented(format!("{} in a query that ends", self.name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(name: &str, types: &[DataType], literals: &[ScalarValue], rules: AggregateRules) -> Result<Resolved, String> {
        let of_literals: Vec<DataType> = literals.iter().map(ScalarValue::data_type).collect();
        let values = types.iter().map(Argument::Value);
        let arguments: Vec<Argument<'_>> =
            values.chain(literals.iter().zip(&of_literals).map(|(value, of)| Argument::Literal(value, of))).collect();
        find(name).unwrap().resolve(&arguments, false, rules).map_err(|error| error.to_string())
    }

    fn returns(name: &str, types: &[DataType], literals: &[ScalarValue]) -> DataType {
        resolved(name, types, literals, AggregateRules::Standard).unwrap().returns
    }

    #[test]
    fn every_aggregate_has_one_name_and_says_what_it_is() {
        let mut names: Vec<&str> = ALL.iter().flat_map(|one| std::iter::once(one.name).chain(one.aliases.iter().copied())).collect();
        assert!(ALL.windows(2).all(|pair| pair[0].name < pair[1].name), "by name");
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
        for one in all() {
            assert!(one.signatures.iter().all(|form| form.starts_with(&format!("{}(", one.name))), "{}", one.name);
            assert!(one.description.ends_with('.') && one.example.0.starts_with(one.name), "{}", one.name);
        }
        assert_eq!(find("TopK").map(|one| one.name), Some("topk"));
        assert!(find("topp").is_none());
    }

    #[test]
    fn results_have_the_types_that_the_dialect_gives_them() {
        let int = || vec![DataType::Int32];
        assert_eq!(returns("sum", &int(), &[]), DataType::Int64);
        assert_eq!(resolved("sum", &int(), &[], AggregateRules::Ksql).unwrap().returns, DataType::Int32);
        assert_eq!(returns("sum", &[DataType::Decimal128(4, 1)], &[]), DataType::Decimal128(38, 1));
        assert_eq!(resolved("sum", &[DataType::Decimal128(4, 1)], &[], AggregateRules::Ksql).unwrap().returns, DataType::Decimal128(4, 1));
        assert_eq!(returns("latest_by_offset", &int(), &[]), DataType::Int32);
        assert_eq!(returns("latest_by_offset", &int(), &[ScalarValue::Boolean(Some(false))]), DataType::Int32);
        let two = [ScalarValue::Int64(Some(2)), ScalarValue::Boolean(Some(false))];
        assert_eq!(returns("earliest_by_offset", &int(), &two), array_of(DataType::Int32));
        assert_eq!(returns("topk", &int(), &two[..1]), array_of(DataType::Int32));
        let of_two = struct_of([("sort_col", DataType::Int32), ("col0", DataType::Utf8)]);
        assert_eq!(returns("topk", &[DataType::Int32, DataType::Utf8], &two[..1]), array_of(of_two));
        assert_eq!(returns("sum_list", &[array_of(DataType::Int64)], &[]), DataType::Int64);
        assert_eq!(resolved("stddev_samp", &int(), &[], AggregateRules::Ksql).unwrap().function, Function::Variance);
        assert_eq!(resolved("stddev_samp", &int(), &[], AggregateRules::Standard).unwrap().function, Function::Deviation);
    }

    #[test]
    fn what_does_not_fit_is_told_with_the_forms_that_there_are() {
        let of = |name: &str, types: &[DataType], literals: &[ScalarValue]| {
            resolved(name, types, literals, AggregateRules::Standard).unwrap_err()
        };
        assert_eq!(of("avg", &[DataType::Utf8], &[]), "avg does not take VARCHAR; it is avg(value number) -> DOUBLE");
        assert!(of("sum", &[], &[]).starts_with("sum has 0 arguments here; it is sum(value INT | BIGINT) -> BIGINT or "));
        assert!(
            of("topk", &[DataType::Int32], &[ScalarValue::Int64(Some(0))])
                .starts_with("topk: the number of values is 0, expected a literal")
        );
        assert!(of("topk", &[DataType::Int32, DataType::Int32], &[]).contains("is no literal"));
        assert!(of("topk", &[DataType::Int32], &[]).contains("is missing"));
        assert!(of("latest_by_offset", &vec![DataType::Int32; 4], &[]).starts_with("latest_by_offset is latest_by_offset(value any"));
        let one = [DataType::Int32];
        let arguments: Vec<Argument<'_>> = one.iter().map(Argument::Value).collect();
        assert!(find("min").unwrap().resolve(&arguments, true, AggregateRules::Ksql).is_err());
        assert!(find("min").unwrap().resolve(&arguments, true, AggregateRules::Standard).is_ok());
        assert!(find("sum").unwrap().resolve(&arguments, true, AggregateRules::Ksql).is_ok());
    }
}
