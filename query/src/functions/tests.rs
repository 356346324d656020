//! What holds for all functions: their examples are true, and nothing that they are given makes one panic or lie about its type.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, new_null_array},
    datatypes::DataType,
    record_batch::{RecordBatch, RecordBatchOptions},
    util::display::{ArrayFormatter, FormatOptions},
};
use datafusion::{
    common::DFSchema,
    execution::{SessionState, SessionStateBuilder, SessionStateDefaults},
    logical_expr::simplify::SimplifyContext,
    optimizer::simplify_expressions::ExprSimplifier,
    physical_expr::create_physical_expr,
    prelude::SessionConfig,
    sql::sqlparser::{dialect::GenericDialect, parser::Parser},
};

use super::{
    all,
    call::{Argument, Registered},
    find,
    input::Operand,
    pattern::Coercion,
    udfs,
};

fn state() -> SessionState {
    let mut config = SessionConfig::new();
    config.options_mut().sql_parser.map_string_types_to_utf8view = false;
    let mut functions = SessionStateDefaults::default_scalar_functions();
    functions.extend(udfs(true));
    SessionStateBuilder::new()
        .with_config(config)
        .with_scalar_functions(functions)
        .with_expr_planners(SessionStateDefaults::default_expr_planners())
        .build()
}

/// The value of a call without columns, as text.
fn value_of(state: &SessionState, text: &str) -> Result<String, String> {
    let written = Parser::new(&GenericDialect {}).try_with_sql(text).unwrap().parse_expr().map_err(|fault| fault.to_string())?;
    let schema = DFSchema::empty();
    let with_alias = datafusion::sql::sqlparser::ast::ExprWithAlias { expr: written, alias: None };
    let expr = state.create_logical_expr_from_sql_expr(with_alias, &schema).map_err(|fault| fault.to_string())?;
    let context =
        SimplifyContext::builder().with_schema(Arc::new(schema.clone())).with_config_options(Arc::clone(state.config_options())).build();
    let coerced = ExprSimplifier::new(context).coerce(expr, &schema).map_err(|fault| fault.to_string())?;
    let physical = create_physical_expr(&coerced, &schema, &Default::default(), &Default::default()).map_err(|fault| fault.to_string())?;
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let one_row = RecordBatch::try_new_with_options(Arc::clone(schema.inner()), Vec::new(), &options).unwrap();
    let value = physical.evaluate(&one_row).and_then(|value| value.into_array(1)).map_err(|fault| fault.to_string())?;
    Ok(shown(&value, 0))
}

fn shown(values: &ArrayRef, row: usize) -> String {
    let options = FormatOptions::default().with_null("NULL");
    ArrayFormatter::try_new(values.as_ref(), &options).unwrap().value(row).to_string()
}

#[test]
fn every_example_is_true() {
    let state = state();
    let mut wrong = Vec::new();
    for function in all() {
        assert!(!function.examples().is_empty() && !function.about().is_empty(), "{} has no example", function.name());
        for (call, gives) in function.examples().iter().filter(|_| !function.takes_lambdas()) {
            // Quoted, so that the parser knows nothing of the name.
            let quoted = call.replacen(function.name(), &format!("\"{}\"", function.name()), 1);
            match value_of(&state, &quoted) {
                Ok(value) if value == *gives => {}
                other => wrong.push(format!("{call} gives {other:?}, not {gives}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A column of a type with values at its edges, and NULL.
fn edges(data_type: &DataType) -> ArrayRef {
    use arrow::array::{
        BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, ListArray, StringArray,
        Time32MillisecondArray, TimestampMillisecondArray,
    };
    let texts = [
        "",
        "a",
        "äöü",
        "2024-02-30",
        "😀\u{301}",
        "$.a[0]",
        "{\"a\":[1,null]}",
        "(a+)+\\1b",
        "yyyy-MM-dd'T'HH:mm:ss[X]",
        "+1:2:3:4",
        "DAYS",
        "http://[::1/%zz",
    ];
    match data_type {
        DataType::Boolean => Arc::new((0..12).map(|at| (at > 0).then_some(at % 2 == 0)).collect::<BooleanArray>()),
        DataType::Int32 => {
            let mut values = vec![None, Some(i32::MIN), Some(i32::MAX), Some(0), Some(-1)];
            values.resize(12, Some(1));
            Arc::new(Int32Array::from(values))
        }
        DataType::Int64 => {
            let mut values = vec![None, Some(i64::MIN), Some(i64::MAX), Some(0), Some(-1), Some(253_402_300_800_000), Some(1 << 53)];
            values.resize(12, Some(1));
            Arc::new(Int64Array::from(values))
        }
        DataType::Float64 => {
            let mut values =
                vec![None, Some(f64::NAN), Some(f64::INFINITY), Some(f64::NEG_INFINITY), Some(-0.0), Some(1e308), Some(5e-324)];
            values.resize(12, Some(-1.5));
            Arc::new(Float64Array::from(values))
        }
        DataType::Decimal128(precision, scale) => {
            let most = 10_i128.pow(u32::from(*precision)) - 1;
            let mut values = vec![None, Some(most), Some(-most), Some(0)];
            values.resize(12, Some(15));
            Arc::new(Decimal128Array::from(values).with_precision_and_scale(*precision, *scale).unwrap())
        }
        DataType::Utf8 => Arc::new(texts.iter().enumerate().map(|(at, text)| (at != 4).then_some(*text)).collect::<StringArray>()),
        DataType::Binary => {
            Arc::new(texts.iter().enumerate().map(|(at, text)| (at != 5).then_some(text.as_bytes())).collect::<BinaryArray>())
        }
        DataType::Date32 => {
            let mut values = vec![None, Some(i32::MIN), Some(i32::MAX), Some(0)];
            values.resize(12, Some(19_000));
            Arc::new(Date32Array::from(values))
        }
        DataType::Time32(_) => {
            let mut values = vec![None, Some(0), Some(86_399_999)];
            values.resize(12, Some(1));
            Arc::new(Time32MillisecondArray::from(values))
        }
        DataType::Timestamp(..) => {
            let mut values = vec![None, Some(i64::MIN), Some(i64::MAX), Some(0)];
            values.resize(12, Some(1_700_000_000_000));
            Arc::new(TimestampMillisecondArray::from(values).with_data_type(data_type.clone()))
        }
        DataType::List(field) => {
            let elements = edges(field.data_type());
            let offsets = arrow::buffer::OffsetBuffer::from_lengths([0, 1, 2, 3, 0, 1, 1, 1, 1, 1, 1, 0]);
            let nulls = (0..12).map(|at| at != 4).collect::<arrow::buffer::NullBuffer>();
            Arc::new(ListArray::try_new(Arc::clone(field), offsets, elements, Some(nulls)).unwrap())
        }
        DataType::Map(entries, _) => {
            let DataType::Struct(fields) = entries.data_type() else { panic!("a map of {entries}") };
            let keys: ArrayRef = Arc::new((0..12).map(|at| Some(format!("key {at}"))).collect::<StringArray>());
            let entry = arrow::array::StructArray::new(fields.clone(), vec![keys, edges(fields[1].data_type())], None);
            let offsets = arrow::buffer::OffsetBuffer::from_lengths([0, 1, 2, 3, 0, 1, 1, 1, 1, 1, 1, 0]);
            let nulls = (0..12).map(|at| at != 4).collect::<arrow::buffer::NullBuffer>();
            Arc::new(arrow::array::MapArray::try_new(Arc::clone(entries), offsets, entry, Some(nulls), false).unwrap())
        }
        other => new_null_array(other, 12),
    }
}

/// Types to put where a signature has a letter.
fn types_of(pattern: &super::pattern::Pattern, letter: &DataType) -> DataType {
    use super::pattern::Pattern;
    match pattern {
        Pattern::Any(_) => letter.clone(),
        Pattern::Array(element) => super::types::list_of(types_of(element, letter)),
        Pattern::Map(key, value) => super::types::map_of(types_of(key, &DataType::Utf8), types_of(value, letter)),
        Pattern::Decimal | Pattern::WidestDecimal => DataType::Decimal128(38, 2),
        other => other.filled(&Default::default()),
    }
}

#[test]
fn no_value_makes_a_function_panic_or_lie() {
    let letters = [DataType::Int32, DataType::Utf8, DataType::Float64, DataType::Decimal128(9, 3), super::types::list_of(DataType::Utf8)];
    for function in all().filter(|function| !function.takes_lambdas()) {
        for (place, letter) in (0..)
            .map_while(|place| function.form(place).map(|form| (place, form)))
            .flat_map(|(place, _)| letters.iter().map(move |letter| (place, letter)))
        {
            let form = function.form(place).unwrap();
            let types: Vec<DataType> = form.parameters.iter().map(|parameter| types_of(&parameter.pattern, letter)).collect();
            let arguments: Vec<Argument<'_>> = types.iter().map(Argument::Value).collect();
            let Ok(chosen) = function.choose(&arguments, Coercion::Narrowing) else { continue };
            let registered = Registered::named(function);
            let bound = registered.bind(&chosen.coerced).unwrap();
            let columns: Vec<ArrayRef> = chosen.coerced.iter().map(edges).collect();
            // Each argument turned by its own number of rows, so that edges meet edges.
            for turn in 0..12 {
                let turned = columns.iter().enumerate().map(|(at, column)| {
                    let places =
                        arrow::array::UInt32Array::from_iter_values((0..12).map(|row| (row + turn * u32::try_from(at).unwrap()) % 12));
                    Operand::column(arrow::compute::take(column, &places, None).unwrap())
                });
                let operands: Vec<Operand> = turned.collect();
                let mut failed = Vec::new();
                let values = registered
                    .compute(&bound, &operands, 12, &mut failed)
                    .unwrap_or_else(|fault| panic!("{}: {fault}", form.shown(function.name())));
                assert!(failed.iter().all(|row| values.is_null(*row)), "{}: {failed:?}", form.shown(function.name()));
            }
            // Constants alone are the same, and so is nothing at all.
            let constants: Vec<Operand> = columns.iter().map(|column| Operand::constant(column.slice(11, 1))).collect();
            let values = registered.compute(&bound, &constants, 3, &mut Vec::new()).unwrap();
            assert_eq!(values.len(), 3);
            let empty: Vec<Operand> = columns.iter().map(|column| Operand::column(column.slice(0, 0))).collect();
            assert_eq!(registered.compute(&bound, &empty, 0, &mut Vec::new()).unwrap().len(), 0);
        }
    }
}

#[test]
fn the_form_is_chosen_by_the_types_given() {
    let resolve = |name: &str, types: &[DataType]| {
        let arguments: Vec<Argument<'_>> = types.iter().map(Argument::Value).collect();
        let call = find(name).unwrap().resolve(&arguments).map_err(|fault| fault.to_string())?;
        Ok::<_, String>((call.coerced, call.returns))
    };
    use DataType::{Decimal128, Float64, Int32, Int64, Null, Utf8};
    assert_eq!(resolve("ABS", &[Int32]), Ok((vec![Int32], Int32)));
    assert_eq!(resolve("sqrt", &[Decimal128(5, 2)]), Ok((vec![Float64], Float64)));
    assert_eq!(resolve("greatest", &[Decimal128(9, 2), Decimal128(7, 6)]).unwrap().1, Decimal128(13, 6));
    assert_eq!(resolve("greatest", &[Int32, Null, Float64]), Ok((vec![Float64, Float64, Float64], Float64)));
    assert_eq!(resolve("coalesce", &[Null, Utf8]), Ok((vec![Utf8, Utf8], Utf8)));
    assert_eq!(resolve("round", &[Decimal128(33, 16)]).unwrap().1, Decimal128(17, 0));
    assert_eq!(resolve("substring", &[Utf8, Null]), Ok((vec![Utf8, Int32], Utf8)));
    assert!(resolve("greatest", &[Int32, Int64]).unwrap_err().starts_with("GREATEST(INTEGER, BIGINT) can be taken in more than one way"));
    assert!(resolve("greatest", &[Null, Null]).is_err());
    assert!(resolve("lpad", &[Utf8, Int64, Utf8]).is_err());
    assert!(find("lpad").unwrap().resolve_leniently(&[Argument::Value(&Utf8), Argument::Value(&Int64), Argument::Value(&Utf8)]).is_ok());
    let error = resolve("ucase", &[Int32, Int32]).unwrap_err();
    assert_eq!(error, "there is no UCASE(INTEGER, INTEGER); there are: UCASE(text VARCHAR) -> VARCHAR");
    assert!(find("nothing").is_none());
}
