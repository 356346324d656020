//! TRANSFORM, FILTER and REDUCE: functions of arrays and maps that call a lambda for each element.
//!
//! The resolver asks [`Function::lambda_parameters`] for the types of each lambda's parameters, compiles the bodies over batches
//! of parameters and captured columns, and calls [`Function::with_lambdas`]. A body is evaluated over the elements of all rows
//! at once; where it fails for one element, the whole row fails.

use std::{collections::HashSet, fmt, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, UInt32Array, UInt64Array, new_null_array},
    compute::{cast, interleave, take},
    datatypes::{DataType, Field, Schema},
    record_batch::{RecordBatch, RecordBatchOptions},
};
use datafusion::common::{DataFusionError, Result};

use super::{
    arrays::{comparable, range, taken},
    call::{Argument, Call},
    definition::{Definition, lambda_form},
    input::{Input, internal},
    maps::{entry_range, maps_of},
    pattern::{Coercion, Pattern},
    registry::{Chosen, Function},
};
use crate::{catalog::type_name, error::QueryError, plan::Expression};

pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new(
        "filter",
        "The elements of an array, or the entries of a map, for which a lambda is true.",
        &[
            lambda_form("array ARRAY<T>, keep (T) => BOOLEAN -> ARRAY<T>", filter_array),
            lambda_form("map MAP<K, V>, keep (K, V) => BOOLEAN -> MAP<K, V>", filter_map),
        ],
        &[("filter(ARRAY[3, 6, 10], x => x > 5)", "[6, 10]")],
    ),
    Definition::new(
        "reduce",
        "What a lambda makes of a state and each element of an array, or each entry of a map, in their order; the state itself, if that is NULL.",
        &[
            lambda_form("array ARRAY<T>, state S, step (S, T) => S -> S", reduce_array),
            lambda_form("map MAP<K, V>, state S, step (S, K, V) => S -> S", reduce_map),
        ],
        &[("reduce(ARRAY[1, 2, 3], 10, (s, x) => s + x)", "16")],
    ),
    Definition::new(
        "transform",
        "What a lambda makes of each element of an array, or two lambdas of the keys and the values of a map.",
        &[
            lambda_form("array ARRAY<T>, make (T) => U -> ARRAY<U>", transform_array),
            lambda_form("map MAP<K, V>, key (K, V) => L, value (K, V) => U -> MAP<L, U>", transform_map),
        ],
        &[("transform(ARRAY[1, 2, 3], x => x * 2)", "[2, 4, 6]")],
    ),
];

/// Computes a call with lambdas.
pub(crate) type Body = fn(&LambdaInput<'_, '_>) -> Result<ArrayRef>;

/// A lambda, compiled.
#[derive(Clone, Debug, PartialEq)]
pub struct LambdaBody {
    /// Its body, over a batch of its parameters and then the captured columns.
    pub body: Expression,
    /// Number of its parameters.
    pub parameters: usize,
    /// Number of captured columns; the lambdas of a call share them.
    pub captured: usize,
}

/// A lambda of a resolved call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Lambda {
    body: LambdaBody,
    /// The type that the call takes its values in.
    gives: DataType,
}

impl fmt::Display for Lambda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} => {}", self.body.parameters, self.body.captured, self.body.body)
    }
}

/// The arguments of a call with lambdas.
pub(crate) struct LambdaInput<'a, 'i> {
    /// The value arguments, then the captured columns.
    pub(crate) input: &'a Input<'i>,
    /// The lambdas, as they stand in the call.
    pub(crate) lambdas: &'a [Lambda],
    /// Number of value arguments.
    pub(crate) values: usize,
}

impl Function {
    /// The types of the parameters of each lambda of a call.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] if no form of the function takes these arguments.
    pub fn lambda_parameters(&self, arguments: &[Argument<'_>]) -> Result<Vec<Vec<DataType>>, QueryError> {
        let chosen = self.choose(arguments, Coercion::Widening)?;
        let parameters = |pattern: &Pattern| match pattern {
            Pattern::Lambda(parameters, _) => Some(parameters.iter().map(|one| one.filled(&chosen.bound)).collect()),
            _ => None,
        };
        let form = self.form(chosen.place);
        Ok(form.into_iter().flat_map(|form| &form.parameters).filter_map(|parameter| parameters(&parameter.pattern)).collect())
    }

    /// Chooses the form that a call with lambdas means. The result's udf takes the value arguments, cast to `coerced`, and then the
    /// captured columns of all lambdas, each once.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] if a lambda gives what the form cannot take.
    pub fn with_lambdas(&'static self, arguments: &[Argument<'_>], bodies: Vec<LambdaBody>) -> Result<Call, QueryError> {
        let Chosen { place, mut bound, .. } = self.choose(arguments, Coercion::Widening)?;
        let Some(form) = self.form(place) else { return Err(QueryError::Execution(format!("{} has no form {place}", self.name()))) };
        let patterns = || form.parameters.iter().map(|parameter| &parameter.pattern);
        let lambda_patterns: Vec<&Pattern> = patterns().filter(|pattern| matches!(pattern, Pattern::Lambda(..))).collect();
        if lambda_patterns.len() != bodies.len() {
            return Err(QueryError::Execution(format!("{} lambdas for {} of {}", bodies.len(), lambda_patterns.len(), self.name())));
        }
        let mut lambdas = Vec::with_capacity(bodies.len());
        for (pattern, body) in lambda_patterns.into_iter().zip(bodies) {
            let before = pattern.known(&bound);
            let fits = pattern.returned(body.body.data_type(), &mut bound);
            let gives = pattern.filled(&bound);
            let wanted = before.filter(|before| !fits || *before != gives);
            if wanted.is_some() || !fits {
                let (given, wanted) = (type_name(body.body.data_type()), type_name(&wanted.unwrap_or(gives)));
                let message =
                    format!("a lambda of {} gives {given} where {wanted} is wanted; CAST one to the other", self.name().to_uppercase());
                return Err(QueryError::Invalid(message));
            }
            lambdas.push(Lambda { body, gives });
        }
        let values = patterns().zip(arguments).filter(|(pattern, _)| !matches!(pattern, Pattern::Lambda(..)));
        let coerced = values.map(|(pattern, argument)| pattern.coerced(&argument.canonical(), &bound)).collect();
        let returns = form.returns.filled(&bound);
        Ok(self.call(Chosen { place, coerced, returns, bound }, lambdas))
    }
}

impl Lambda {
    /// Whether it gives the same for the same parameters and columns.
    pub(super) fn is_repeatable(&self) -> bool {
        self.body.body.is_repeatable()
    }
}

impl LambdaInput<'_, '_> {
    fn lambda(&self, at: usize) -> Result<&Lambda> {
        self.lambdas.get(at).map_or_else(|| internal(format!("a call without lambda {at}")), Ok)
    }

    /// Evaluates a lambda for elements, each of a row; tells the rows of those for which it fails.
    fn evaluate(&self, at: usize, parameters: Vec<ArrayRef>, rows: &[usize], failed: &mut HashSet<usize>) -> Result<ArrayRef> {
        let lambda = self.lambda(at)?;
        let of_row = UInt64Array::from_iter_values(rows.iter().map(|row| *row as u64));
        let mut columns = parameters;
        for captured in self.values..self.input.len() {
            columns.push(take(&self.input.array(captured)?, &of_row, None)?);
        }
        let fields = columns.iter().enumerate().map(|(at, column)| Field::new(format!("column_{at}"), column.data_type().clone(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let batch = RecordBatch::try_new_with_options(schema, columns, &options)?;
        let evaluated = lambda.body.body.evaluate(&batch).map_err(|error| match error {
            QueryError::ResourceExhausted(reason) => DataFusionError::ResourcesExhausted(reason),
            other => DataFusionError::Execution(other.to_string()),
        })?;
        failed.extend(evaluated.errors.iter().filter_map(|error| rows.get(error.row).copied()));
        if evaluated.values.data_type() == &lambda.gives { Ok(evaluated.values) } else { Ok(cast(&evaluated.values, &lambda.gives)?) }
    }

    fn tell(&self, failed: &HashSet<usize>) {
        failed.iter().for_each(|row| self.input.fail(*row));
    }
}

/// Which elements there are, each with its row.
struct Elements {
    places: UInt64Array,
    rows: Vec<usize>,
    /// Elements of each row; none if the array or map is NULL.
    lengths: Vec<Option<usize>>,
}

impl Elements {
    fn of(rows: usize, range: impl Fn(usize) -> Option<std::ops::Range<usize>>) -> Self {
        let ranges: Vec<Option<std::ops::Range<usize>>> = (0..rows).map(range).collect();
        let of_row =
            |(row, range): (usize, &Option<std::ops::Range<usize>>)| range.clone().into_iter().flatten().map(move |place| (place, row));
        let (places, rows): (Vec<usize>, Vec<usize>) = ranges.iter().enumerate().flat_map(of_row).unzip();
        Self {
            places: UInt64Array::from_iter_values(places.into_iter().map(|place| place as u64)),
            rows,
            lengths: ranges.into_iter().map(|range| range.map(|range| range.len())).collect(),
        }
    }

    /// The elements of each row by their numbers among all; none where the row has failed or is NULL.
    fn numbers(&self, failed: &HashSet<usize>, keep: impl Fn(usize) -> bool) -> Vec<Option<Vec<usize>>> {
        let mut next = 0;
        let numbers = |(row, length): (usize, &Option<usize>)| {
            let length = (*length)?;
            let all = next..next + length;
            next += length;
            (!failed.contains(&row)).then(|| all.filter(|number| keep(*number)).collect())
        };
        self.lengths.iter().enumerate().map(numbers).collect()
    }
}

fn transform_array(call: &LambdaInput<'_, '_>) -> Result<ArrayRef> {
    let lists = call.input.lists(0)?;
    let elements = Elements::of(call.input.rows(), |row| lists.is_valid(row).then(|| range(&lists, row)));
    let mut failed = HashSet::new();
    let made = call.evaluate(0, vec![take(lists.values(), &elements.places, None)?], &elements.rows, &mut failed)?;
    call.tell(&failed);
    taken(&made, elements.numbers(&failed, |_| true))
}

fn filter_array(call: &LambdaInput<'_, '_>) -> Result<ArrayRef> {
    let lists = call.input.lists(0)?;
    let elements = Elements::of(call.input.rows(), |row| lists.is_valid(row).then(|| range(&lists, row)));
    let given = take(lists.values(), &elements.places, None)?;
    let mut failed = HashSet::new();
    let kept = call.evaluate(0, vec![Arc::clone(&given)], &elements.rows, &mut failed)?;
    call.tell(&failed);
    let kept = kept.as_boolean();
    taken(&given, elements.numbers(&failed, |number| kept.is_valid(number) && kept.value(number)))
}

fn transform_map(call: &LambdaInput<'_, '_>) -> Result<ArrayRef> {
    let maps = call.input.maps(0)?;
    let elements = Elements::of(call.input.rows(), |row| maps.is_valid(row).then(|| entry_range(&maps, row)));
    let given = vec![take(maps.keys(), &elements.places, None)?, take(maps.values(), &elements.places, None)?];
    let mut failed = HashSet::new();
    let keys = call.evaluate(0, given.clone(), &elements.rows, &mut failed)?;
    let values = call.evaluate(1, given, &elements.rows, &mut failed)?;
    // A map has each key once, and none that is NULL.
    let (comparable, mut seen) = (comparable(&keys)?, HashSet::new());
    for (number, row) in elements.rows.iter().enumerate() {
        if keys.is_null(number) || !seen.insert((*row, comparable.row(number))) {
            failed.insert(*row);
        }
    }
    call.tell(&failed);
    mapped(&keys, &values, &elements.numbers(&failed, |_| true))
}

fn filter_map(call: &LambdaInput<'_, '_>) -> Result<ArrayRef> {
    let maps = call.input.maps(0)?;
    let elements = Elements::of(call.input.rows(), |row| maps.is_valid(row).then(|| entry_range(&maps, row)));
    let (keys, values) = (take(maps.keys(), &elements.places, None)?, take(maps.values(), &elements.places, None)?);
    let mut failed = HashSet::new();
    let kept = call.evaluate(0, vec![Arc::clone(&keys), Arc::clone(&values)], &elements.rows, &mut failed)?;
    call.tell(&failed);
    let kept = kept.as_boolean();
    mapped(&keys, &values, &elements.numbers(&failed, |number| kept.is_valid(number) && kept.value(number)))
}

/// Maps of entries by their numbers.
fn mapped(keys: &ArrayRef, values: &ArrayRef, numbers: &[Option<Vec<usize>>]) -> Result<ArrayRef> {
    let lengths: Vec<Option<usize>> = numbers.iter().map(|one| one.as_ref().map(Vec::len)).collect();
    let places = UInt64Array::from_iter_values(numbers.iter().flatten().flatten().map(|number| *number as u64));
    maps_of(take(keys, &places, None)?, take(values, &places, None)?, &lengths)
}

fn reduce_array(call: &LambdaInput<'_, '_>) -> Result<ArrayRef> {
    let lists = call.input.lists(0)?;
    reduce(call, |row| lists.is_valid(row).then(|| range(&lists, row)), &[Arc::clone(lists.values())])
}

fn reduce_map(call: &LambdaInput<'_, '_>) -> Result<ArrayRef> {
    let maps = call.input.maps(0)?;
    reduce(call, |row| maps.is_valid(row).then(|| entry_range(&maps, row)), &[Arc::clone(maps.keys()), Arc::clone(maps.values())])
}

/// Folds the n-th elements of all rows that have so many at once, n after n.
fn reduce(call: &LambdaInput<'_, '_>, range: impl Fn(usize) -> Option<std::ops::Range<usize>>, elements: &[ArrayRef]) -> Result<ArrayRef> {
    let rows = call.input.rows();
    let initial = call.input.array(1)?;
    let missing = new_null_array(call.input.returns(), 1);
    // Where the value of each row lies: in which of the finished states, at which place.
    let mut finished: Vec<ArrayRef> = vec![missing, Arc::clone(&initial)];
    let mut places: Vec<(usize, usize)> = (0..rows).map(|row| (1, row)).collect();
    let mut failed = HashSet::new();
    // Rows that have more elements, each with its next one and the end, beside their states.
    let mut open: Vec<(usize, std::ops::Range<usize>)> = (0..rows)
        .filter(|row| initial.is_valid(*row))
        .filter_map(|row| range(row).filter(|range| !range.is_empty()).map(|range| (row, range)))
        .collect();
    let mut state = take(&initial, &UInt32Array::from_iter_values(open.iter().filter_map(|(row, _)| u32::try_from(*row).ok())), None)?;
    while !open.is_empty() {
        let at = UInt64Array::from_iter_values(open.iter().map(|(_, range)| range.start as u64));
        let mut parameters = vec![state];
        for column in elements {
            parameters.push(take(column, &at, None)?);
        }
        let of_row: Vec<usize> = open.iter().map(|(row, _)| *row).collect();
        let made = call.evaluate(0, parameters, &of_row, &mut failed)?;
        let mut going_on = Vec::new();
        let mut left = Vec::new();
        for (place, (row, range)) in open.into_iter().enumerate() {
            let range = range.start + 1..range.end;
            if failed.contains(&row) {
                if let Some(value) = places.get_mut(row) {
                    *value = (0, 0);
                }
            } else if range.is_empty() {
                if let Some(value) = places.get_mut(row) {
                    *value = (finished.len(), place);
                }
            } else {
                going_on.push(place as u64);
                left.push((row, range));
            }
        }
        state = take(&made, &UInt64Array::from(going_on), None)?;
        if places.iter().any(|(source, _)| *source == finished.len()) {
            finished.push(made);
        }
        open = left;
    }
    call.tell(&failed);
    let sources: Vec<&dyn Array> = finished.iter().map(AsRef::as_ref).collect();
    Ok(interleave(&sources, &places)?)
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{Int64Array, MapArray, StringArray, StructArray},
        buffer::{NullBuffer, OffsetBuffer},
        datatypes::Int64Type,
        util::display::{ArrayFormatter, FormatOptions},
    };
    use datafusion::{
        common::DFSchema,
        sql::sqlparser::{dialect::GenericDialect, parser::Parser},
    };

    use super::{
        super::{call::Registered, find, input::Operand, types},
        *,
    };
    use crate::plan::Expressions;

    /// Parameters and body of a lambda.
    type Written<'a> = (&'a [&'a str], &'a str);

    fn lists(given: &[Option<&[Option<i64>]>]) -> ArrayRef {
        let given = given.iter().map(|list| list.map(<[Option<i64>]>::to_vec));
        let made = arrow::array::ListArray::from_iter_primitive::<Int64Type, _, _>(given);
        cast(&made, &types::list_of(DataType::Int64)).unwrap()
    }

    /// `{a: 1, b: 2}`, `{a: 3}` and NULL.
    fn maps() -> ArrayRef {
        let DataType::Map(field, _) = types::map_of(DataType::Utf8, DataType::Int64) else { panic!("a map") };
        let DataType::Struct(fields) = field.data_type() else { panic!("entries") };
        let columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from(vec!["a", "b", "a"])), Arc::new(Int64Array::from(vec![1, 2, 3]))];
        let entries = StructArray::new(fields.clone(), columns, None);
        let nulls = NullBuffer::from(vec![true, true, false]);
        Arc::new(MapArray::new(Arc::clone(&field), OffsetBuffer::from_lengths([2, 1, 0]), entries, Some(nulls), false))
    }

    fn resolved(name: &str, values: &[ArrayRef], lambdas: &[Written<'_>], captured: &[(&str, ArrayRef)]) -> Result<Call, QueryError> {
        let function = find(name).unwrap();
        let types: Vec<DataType> = values.iter().map(|one| one.data_type().clone()).collect();
        let mut arguments: Vec<Argument<'_>> = types.iter().map(Argument::Value).collect();
        arguments.extend(lambdas.iter().map(|(parameters, _)| Argument::Lambda { parameters: parameters.len() }));
        let expressions = Expressions::new();
        let mut bodies = Vec::new();
        for ((names, body), types) in lambdas.iter().zip(function.lambda_parameters(&arguments)?) {
            let parameters = names.iter().zip(types).map(|(name, data_type)| Field::new(*name, data_type, true));
            let behind = captured.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true));
            let schema = DFSchema::try_from(Schema::new(parameters.chain(behind).collect::<Vec<_>>())).unwrap();
            let written = Parser::new(&GenericDialect {}).try_with_sql(body).unwrap().parse_expr().unwrap();
            let body = expressions.compile(expressions.resolve(&written, &schema, &[])?, &schema)?;
            bodies.push(LambdaBody { body, parameters: names.len(), captured: captured.len() });
        }
        function.with_lambdas(&arguments, bodies)
    }

    /// The values as text, and the rows that failed.
    fn computed(name: &str, values: &[ArrayRef], lambdas: &[Written<'_>], captured: &[(&str, ArrayRef)]) -> (Vec<String>, Vec<usize>) {
        let call = resolved(name, values, lambdas, captured).unwrap();
        let registered = call.udf.inner().downcast_ref::<Registered>().unwrap();
        let operands: Vec<Operand> =
            values.iter().chain(captured.iter().map(|(_, column)| column)).map(|one| Operand::column(Arc::clone(one))).collect();
        let (rows, mut failed) = (values[0].len(), Vec::new());
        let made = registered.compute(&registered.bind(&[]).unwrap(), &operands, rows, &mut failed).unwrap();
        assert_eq!(made.data_type(), &call.returns);
        let options = FormatOptions::default().with_null("NULL");
        let shown = ArrayFormatter::try_new(made.as_ref(), &options).unwrap();
        ((0..rows).map(|row| shown.value(row).to_string()).collect(), failed)
    }

    #[test]
    fn a_lambda_is_called_for_each_element() {
        let given = lists(&[Some(&[Some(1), Some(2)]), None, Some(&[]), Some(&[Some(3), None])]);
        let (values, failed) = computed("transform", &[Arc::clone(&given)], &[(&["x"], "x * 2")], &[]);
        assert_eq!((values, failed), (vec!["[2, 4]".into(), "NULL".into(), "[]".into(), "[6, NULL]".into()], vec![]));
        let (values, _) = computed("filter", &[Arc::clone(&given)], &[(&["x"], "x > 1")], &[]);
        assert_eq!(values, ["[2]", "NULL", "[]", "[3]"]);
        let by: ArrayRef = Arc::new(Int64Array::from(vec![Some(10), Some(20), Some(30), Some(40)]));
        let (values, _) = computed("transform", &[given], &[(&["x"], "x + c")], &[("c", by)]);
        assert_eq!(values, ["[11, 12]", "NULL", "[]", "[43, NULL]"]);
    }

    #[test]
    fn an_element_that_fails_fails_its_row_alone() {
        let given = lists(&[Some(&[Some(1), Some(0)]), Some(&[Some(5)])]);
        let (values, failed) = computed("transform", &[Arc::clone(&given)], &[(&["x"], "10 / x")], &[]);
        assert_eq!((values, failed), (vec!["NULL".into(), "[2]".into()], vec![0]));
        let state: ArrayRef = Arc::new(Int64Array::from(vec![100, 100]));
        let (values, failed) = computed("reduce", &[given, state], &[(&["s", "x"], "s / x")], &[]);
        assert_eq!((values, failed), (vec!["NULL".into(), "20".into()], vec![0]));
    }

    #[test]
    fn a_state_goes_through_the_elements_in_their_order() {
        let given = lists(&[Some(&[Some(1), Some(2), Some(3)]), None, Some(&[]), Some(&[Some(4)]), Some(&[Some(5), Some(6)])]);
        let state: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(2), Some(3), None, Some(5)]));
        let (values, failed) = computed("reduce", &[given, state], &[(&["s", "x"], "s * 10 + x")], &[]);
        assert_eq!((values, failed), (vec!["1123".into(), "2".into(), "3".into(), "NULL".into(), "556".into()], vec![]));
        let state: ArrayRef = Arc::new(StringArray::from(vec!["", "-", "x"]));
        let (values, _) = computed("reduce", &[maps(), state], &[(&["s", "k", "v"], "s || k || v")], &[]);
        assert_eq!(values, ["a1b2", "-a3", "x"]);
    }

    #[test]
    fn maps_keep_each_key_once() {
        let (values, failed) = computed("transform", &[maps()], &[(&["k", "v"], "upper(k)"), (&["k", "v"], "v + 1")], &[]);
        assert_eq!((values, failed), (vec!["{A: 2, B: 3}".into(), "{A: 4}".into(), "NULL".into()], vec![]));
        let (values, failed) = computed("transform", &[maps()], &[(&["k", "v"], "'same'"), (&["k", "v"], "v")], &[]);
        assert_eq!((values, failed), (vec!["NULL".into(), "{same: 3}".into(), "NULL".into()], vec![0]));
        let (values, _) = computed("filter", &[maps()], &[(&["k", "v"], "v < 2 OR k = 'b'")], &[]);
        assert_eq!(values, ["{a: 1, b: 2}", "{}", "NULL"]);
    }

    #[test]
    fn a_lambda_that_gives_something_else_is_refused() {
        let (given, state): (ArrayRef, ArrayRef) = (lists(&[None]), Arc::new(Int64Array::from(vec![1])));
        let refused =
            |name: &str, values: &[ArrayRef], lambda: Written<'_>| resolved(name, values, &[lambda], &[]).unwrap_err().to_string();
        assert_eq!(
            refused("filter", &[Arc::clone(&given)], (&["x"], "x + 1")),
            "a lambda of FILTER gives BIGINT where BOOLEAN is wanted; CAST one to the other"
        );
        assert_eq!(
            refused("reduce", &[Arc::clone(&given), Arc::clone(&state)], (&["s", "x"], "s * 1.5")),
            "a lambda of REDUCE gives DOUBLE where BIGINT is wanted; CAST one to the other"
        );
        assert!(refused("transform", &[state], (&["x"], "x")).starts_with("there is no TRANSFORM(BIGINT, a lambda of 1); there are:"));
        assert!(refused("filter", &[given], (&["x", "y"], "x > y")).starts_with("there is no FILTER(ARRAY<BIGINT>, a lambda of 2)"));
    }
}
