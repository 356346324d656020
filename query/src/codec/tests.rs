//! Decoding against hand-written expectations and against `serde_json`; encoding undone by decoding.

use std::sync::Arc;

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{DataType, Float64Type, Int64Type, TimestampMillisecondType},
    util::display::array_value_to_string,
};
use bytes::Bytes;
use foldlog_log::{
    NewEvent, NewRecord, Offset, PartitionId, Position, Run, StreamVersion, Timestamp, Topic, TopicId, TopicKind, TopicSettings,
    batch::{BatchBuilder, Encoded},
};
use proptest::prelude::*;
use serde::de::IgnoredAny;

use super::*;
use crate::catalog::{
    Column, Delimiter, Format, HeaderColumn, SourceKind, timestamp_type,
    types::{array_of, headers_type, map_of, struct_of, time_type},
};

fn column(name: &str, data_type: DataType) -> Column {
    Column { name: name.to_owned(), data_type, key: false }
}

fn key(name: &str, data_type: DataType) -> Column {
    Column { key: true, ..column(name, data_type) }
}

fn source(kind: TopicKind, key_format: Format, columns: Vec<Column>) -> Source {
    Source {
        name: "s".to_owned(),
        kind: SourceKind::Stream,
        topic: "t".parse().unwrap(),
        topic_kind: kind,
        columns,
        key_format,
        value_format: Format::Json,
        reading: Reading::Exact,
        headers: Vec::new(),
        timestamp: None,
        timestamp_format: None,
        read_only: false,
        query: None,
        sql: String::new(),
    }
}

fn values(columns: &[(&str, DataType)]) -> Source {
    let columns = columns.iter().map(|(name, data_type)| column(name, data_type.clone())).collect();
    source(TopicKind::Records, Format::None, columns)
}

fn run_of(kind: TopicKind, records: &Encoded) -> Run {
    let settings = TopicSettings::new(kind, 3);
    let topic = Arc::new(Topic { name: "t".parse().unwrap(), id: TopicId::new([7; 16]), settings });
    let mut builder = BatchBuilder::new(Offset::new(40));
    let start = builder.push(records, StreamVersion::new(5), Timestamp::new(1_000));
    let (partition, first_offset, first_position) = (PartitionId::new(2), Offset::new(40), Position::new(900));
    let (count, recorded_at) = (records.count(), Timestamp::new(1_000));
    Run { topic, partition, first_offset, first_position, count, recorded_at, batch: builder.finish(1), start }
}

/// Key and value of a record.
type KeyAndValue<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

fn records(all: &[KeyAndValue<'_>]) -> Run {
    let mut encoded = Encoded::default();
    for (key, value) in all {
        let bytes = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
        let record = NewRecord { key: key.map(bytes), value: value.map(bytes), ..NewRecord::default() };
        encoded.push_record(&record).unwrap();
    }
    run_of(TopicKind::Records, &encoded)
}

fn decode_all(source: &Source, run: Run) -> Decoded {
    let wanted: Vec<WantedColumn> = (0..source.columns.len()).map(WantedColumn::Declared).collect();
    Decoder::new(source, &wanted).unwrap().decode(&[run]).unwrap()
}

fn decode_values(columns: &[(&str, DataType)], payloads: &[&str]) -> Decoded {
    let all: Vec<_> = payloads.iter().map(|payload| (None, Some(payload.as_bytes()))).collect();
    decode_all(&values(columns), records(&all))
}

/// Each row as text, columns separated by `|`, NULL as `-`.
fn lines(batch: &RecordBatch) -> Vec<String> {
    let cell = |column: &arrow::array::ArrayRef, row| {
        if column.is_null(row) { "-".to_owned() } else { array_value_to_string(column, row).unwrap() }
    };
    (0..batch.num_rows()).map(|row| batch.columns().iter().map(|column| cell(column, row)).collect::<Vec<_>>().join("|")).collect()
}

fn reasons(decoded: &Decoded) -> Vec<String> {
    let column = |bad: &BadInput| bad.column.clone().unwrap_or_else(|| "row".to_owned());
    decoded.bad.iter().map(|bad| format!("{} {}: {}", bad.offset, column(bad), bad.reason)).collect()
}

#[test]
fn the_wanted_fields_come_in_the_order_asked_for_and_the_rest_is_only_checked() {
    let source = values(&[("id", DataType::Int64), ("name", DataType::Utf8), ("price", DataType::Float64), ("ok", DataType::Boolean)]);
    let payloads: [&str; 3] = [
        r#"{"id":1,"name":"a","price":1.5,"ok":true,"more":{"x":[1,{"y":"}"}]}}"#,
        r#" { "price" : -2e3 , "name":"b\"\u00e9\ud83d\ude00\n", "id":2, "ok":false } "#,
        r#"{"id":null,"name":"c"}"#,
    ];
    let all: Vec<_> = payloads.iter().map(|payload| (None, Some(payload.as_bytes()))).collect();
    let wanted = [WantedColumn::Declared(2), WantedColumn::Declared(1), WantedColumn::Declared(0), WantedColumn::Declared(3)];
    let decoded = Decoder::new(&source, &wanted).unwrap().decode(&[records(&all)]).unwrap();
    assert_eq!(lines(&decoded.batch), ["1.5|a|1|true", "-2000.0|b\"é😀\n|2|false", "-|c|-|-"]);
    assert_eq!(decoded.positions, [900, 901, 902]);
    assert_eq!((decoded.bad_count, decoded.rowtime), (0, vec![1_000; 3]));
}

#[test]
fn numbers_are_exact_or_null() {
    let columns = [("a", DataType::Int64), ("b", DataType::Int32), ("c", DataType::Float64), ("d", DataType::Decimal128(10, 2))];
    let payloads = [
        r#"{"a":9007199254740993,"b":-2147483648,"c":0.1,"d":12345678.90}"#,
        r#"{"a":9223372036854775807,"b":2147483648,"c":1e400,"d":"0.07"}"#,
        r#"{"a":9223372036854775808,"b":1.0,"c":-0.0,"d":1e7}"#,
        r#"{"a":1.5,"b":1e3,"c":4,"d":1.005}"#,
        r#"{"a":"1","b":true,"c":"2","d":123456789}"#,
        r#"{"a":-0,"b":0e99999999999,"c":5e-324,"d":-1200e-2}"#,
        r#"{"a":100e-2,"b":1e99999999999,"c":123456789012345678901234567890,"d":[1]}"#,
    ];
    let decoded = decode_values(&columns, &payloads);
    let expected = [
        "9007199254740993|-2147483648|0.1|12345678.90",
        "9223372036854775807|-|-|0.07",
        "-|1|-0.0|10000000.00",
        "-|1000|4.0|-",
        "-|-|-|-",
        "0|0|5e-324|-12.00",
        "1|-|1.2345678901234568e29|-",
    ];
    assert_eq!(lines(&decoded.batch), expected);
    let expected = [
        "41 b: out of the range of INTEGER",
        "41 c: out of the range of DOUBLE",
        "42 a: out of the range of BIGINT",
        "43 a: has more decimal places than its type",
        "43 d: has more decimal places than its type",
        "44 a: not a BIGINT",
        "44 b: not an INTEGER",
        "44 c: not a DOUBLE",
        "44 d: has more digits than its DECIMAL",
        "46 b: out of range",
        "46 d: not a DECIMAL",
    ];
    assert_eq!(reasons(&decoded), expected);
}

#[test]
fn times_are_milliseconds_or_iso_8601() {
    let payloads =
        [r#"{"t":1357034400000}"#, r#"{"t":"2013-01-01T05:00:00-05:00"}"#, r#"{"t":"2013-01-01 10:00:00.250"}"#, r#"{"t":"soon"}"#];
    let decoded = decode_values(&[("t", timestamp_type())], &payloads);
    let times = decoded.batch.column(0).as_primitive::<TimestampMillisecondType>();
    assert_eq!(times.iter().collect::<Vec<_>>(), [Some(1_357_034_400_000), Some(1_357_034_400_000), Some(1_357_034_400_250), None]);
    assert_eq!(reasons(&decoded), ["43 t: not a TIMESTAMP as ISO 8601 writes it"]);
}

#[test]
fn varchar_takes_any_value_as_it_is_written() {
    let payloads = [r#"{"v":"x"}"#, r#"{"v":{"a": [1]}}"#, r#"{"v":1.50}"#, r#"{"v":true}"#, r#"{"v":"\ud800"}"#, r#"{"v":""}"#];
    let decoded = decode_values(&[("v", DataType::Utf8)], &payloads);
    assert_eq!(lines(&decoded.batch), ["x", r#"{"a": [1]}"#, "1.50", "true", "-", ""]);
    assert_eq!(reasons(&decoded), ["44 v: half of a surrogate pair in a string"]);
}

#[test]
fn of_fields_with_one_name_the_last_counts_and_exact_spelling_is_preferred() {
    let payloads = [r#"{"a":1,"a":2}"#, r#"{"A":1}"#, r#"{"a":1,"A":2}"#, r#"{"A":1,"a":2,"A":3}"#, r#"{"\u0061":7}"#, r#"{"ä":1}"#];
    let decoded = decode_values(&[("a", DataType::Int64)], &payloads);
    assert_eq!(lines(&decoded.batch), ["2", "1", "1", "2", "7", "-"]);
}

#[test]
fn a_payload_that_is_no_object_is_left_out_and_told() {
    let deep = |levels: usize| format!(r#"{{"a":1,"b":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
    let (deepest, too_deep) = (deep(127), deep(128));
    let payloads =
        ["", "{", "[]", "7", r#"{"a":1}x"#, r#"{"a":01}"#, r#"{"a":1,}"#, "{\"b\":\"\u{1}\"}", r#"{"a":1}"#, &deepest, &too_deep];
    let decoded = decode_values(&[("a", DataType::Int64)], &payloads);
    assert_eq!(decoded.positions, [908, 909]);
    let expected = [
        "40 row: not a JSON object: empty at byte 0",
        "41 row: not a JSON object: expected a field name at byte 1",
        "42 row: not a JSON object: expected { at byte 0",
        "43 row: not a JSON object: expected { at byte 0",
        "44 row: not a JSON object: something follows it at byte 7",
        "45 row: not a JSON object: expected , or } at byte 6",
        "46 row: not a JSON object: expected a field name at byte 7",
        "47 row: not a JSON object: control character in a string at byte 6",
        "50 row: not a JSON object: nested too deep at byte 139",
    ];
    assert_eq!(reasons(&decoded), expected);
}

#[test]
fn faults_beyond_the_told_ones_are_counted() {
    let payloads = vec!["no"; 1_000];
    let decoded = decode_values(&[("a", DataType::Int64)], &payloads);
    assert_eq!((decoded.batch.num_rows(), decoded.bad.len(), decoded.bad_count), (0, TOLD_FAULTS, 1_000));
}

#[test]
fn null_values_and_null_keys_are_marked() {
    let source = source(TopicKind::Table, Format::Kafka, vec![key("k", DataType::Utf8), column("v", DataType::Int64)]);
    let run = records(&[(Some(b"a"), Some(b"{\"v\":1}")), (Some(b"a"), None), (None, Some(b"{\"v\":2}")), (Some(b"\xff"), Some(b"null"))]);
    let decoded = decode_all(&source, run);
    assert_eq!(lines(&decoded.batch), ["a|1", "a|-", "-|2", "-|-"]);
    let bits = |buffer: Option<BooleanBuffer>| buffer.unwrap().iter().collect::<Vec<_>>();
    assert_eq!(bits(decoded.value_null.clone()), [false, true, false, true]);
    assert_eq!(bits(decoded.key_null.clone()), [false, false, true, false]);
    assert_eq!(reasons(&decoded), ["43 k: not UTF-8"]);
    let all_there = decode_all(&source, records(&[(Some(b"a"), Some(b"{}"))]));
    assert!(all_there.value_null.is_none() && all_there.key_null.is_none());
}

#[test]
fn what_every_event_has_needs_no_declaration() {
    let mut encoded = Encoded::default();
    let stream = "acct-1".parse().unwrap();
    for data in ["{\"n\":1}", "not json"] {
        let event = NewEvent { kind: "Opened".into(), data: Bytes::from(data), time: Some(Timestamp::new(77)), ..NewEvent::default() };
        encoded.push_event(&stream, &event).unwrap();
    }
    let bare = source(TopicKind::Events, Format::None, Vec::new());
    let wanted: Vec<_> = Pseudo::of(TopicKind::Events).iter().copied().map(WantedColumn::Pseudo).collect();
    let decoded = Decoder::new(&bare, &wanted).unwrap().decode(&[run_of(TopicKind::Events, &encoded)]).unwrap();
    let time = "1970-01-01T00:00:00.077Z";
    let expected = [format!("acct-1|5|Opened|{{\"n\":1}}|900|{time}|2|40"), format!("acct-1|6|Opened|not json|901|{time}|2|41")];
    assert_eq!(lines(&decoded.batch), expected);
}

#[test]
fn a_column_may_say_when_a_record_happened() {
    let timed = Source { timestamp: Some(1), ..values(&[("n", DataType::Int64), ("at", timestamp_type())]) };
    let payloads = [r#"{"n":1,"at":55}"#, r#"{"n":2}"#, r#"{"n":3,"at":true}"#];
    let all: Vec<_> = payloads.iter().map(|payload| (None, Some(payload.as_bytes()))).collect();
    let decoded = Decoder::new(&timed, &[WantedColumn::Declared(0)]).unwrap().decode(&[records(&all)]).unwrap();
    assert_eq!(decoded.rowtime, [55, 1_000, 1_000]);
    assert_eq!(reasons(&decoded), ["42 at: not a TIMESTAMP"]);
}

#[test]
fn no_column_wanted_still_counts_the_rows() {
    let source = values(&[("a", DataType::Int64)]);
    let run = records(&[(None, Some(b"{}")), (None, Some(b"x")), (None, Some(b"{}"))]);
    let decoded = Decoder::new(&source, &[]).unwrap().decode(&[run]).unwrap();
    assert_eq!((decoded.batch.num_rows(), decoded.batch.num_columns(), decoded.bad_count), (2, 0, 1));
}

/// A value of JSON as it is written.
fn value_text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<i32>().prop_map(|number| number.to_string()),
        any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(|number| format!("{number:?}")),
        (-1_000_i32..1_000, 0_u8..5).prop_map(|(number, exponent)| format!("{number}e{exponent}")),
        any::<String>().prop_map(|text| serde_json::Value::from(text).to_string()),
        "[a-z\"\\\\]{0,12}".prop_map(|text| serde_json::Value::from(text).to_string()),
        Just("{\"x\":[1,\"]\",{}],\"a\":2}".to_owned()),
        Just("[[],{\"a\":null}]".to_owned()),
    ]
}

fn fields() -> impl Strategy<Value = Vec<(String, String)>> {
    let name = prop_oneof![Just("a"), Just("b"), Just("c"), Just("d"), Just("other"), Just("aa")];
    prop::collection::vec((name.prop_map(str::to_owned), value_text()), 0..8)
}

fn object(fields: &[(String, String)], space: &str) -> String {
    let each = fields.iter().map(|(name, value)| format!("{space}\"{name}\"{space}:{space}{value}{space}"));
    format!("{space}{{{}}}{space}", each.collect::<Vec<_>>().join(","))
}

static TYPED: [(&str, DataType); 4] = [("a", DataType::Int64), ("b", DataType::Float64), ("c", DataType::Utf8), ("d", DataType::Boolean)];

proptest! {
    #[test]
    fn values_agree_with_serde_json(fields in fields(), space in prop_oneof![Just(""), Just(" "), Just("\n\t ")]) {
        let text = object(&fields, space);
        let decoded = decode_values(&TYPED, &[&text]);
        prop_assert_eq!(decoded.batch.num_rows(), 1, "{}", text);
        let last = |name: &str| fields.iter().rev().find(|(field, _)| field == name);
        let value = |name| last(name).map(|(_, text)| (text, serde_json::from_str::<serde_json::Value>(text).unwrap()));
        let is_whole = |number: f64| number.fract() == 0.0 && number.abs() < 9e15;
        #[expect(clippy::cast_possible_truncation, reason = "whole and small")]
        let a = value("a").and_then(|(_, value)| value.as_i64().or(value.as_f64().filter(|f| is_whole(*f)).map(|f| f as i64)));
        let column = decoded.batch.column(0).as_primitive::<Int64Type>();
        // Beyond 2^53 a float that is whole may or may not fit; either is exact.
        if value("a").is_none_or(|(_, value)| value.is_i64() || value.as_f64().is_none_or(|f| f.abs() < 9e15)) {
            prop_assert_eq!(column.is_valid(0).then(|| column.value(0)), a, "{}", text);
        }
        let b = value("b").and_then(|(_, value)| value.as_f64());
        let column = decoded.batch.column(1).as_primitive::<Float64Type>();
        prop_assert_eq!(column.is_valid(0).then(|| column.value(0).to_bits()), b.map(f64::to_bits), "{}", text);
        let c = value("c").and_then(|(text, value)| match value {
            serde_json::Value::Null => None,
            serde_json::Value::String(string) => Some(string),
            _ => Some(text.clone()),
        });
        let column = decoded.batch.column(2).as_string::<i32>();
        prop_assert_eq!(column.is_valid(0).then(|| column.value(0).to_owned()), c, "{}", text);
        let d = value("d").and_then(|(_, value)| value.as_bool());
        let column = decoded.batch.column(3).as_boolean();
        prop_assert_eq!(column.is_valid(0).then(|| column.value(0)), d, "{}", text);
    }

    #[test]
    fn the_verdict_on_damaged_text_agrees_with_serde_json(
        fields in fields(),
        at in any::<prop::sample::Index>(),
        byte in prop_oneof![any::<u8>(), prop::sample::select(b"{}[]\",:\\u0-+.eE tfn".to_vec())],
        cut in any::<bool>(),
    ) {
        let mut bytes = object(&fields, "").into_bytes();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        let is_json = std::str::from_utf8(&bytes).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
        let is_row = is_json && (bytes.trim_ascii_start().first() == Some(&b'{') || bytes.trim_ascii() == b"null");
        let decoded = decode_all(&values(&TYPED), records(&[(None, Some(&bytes))]));
        prop_assert_eq!(decoded.batch.num_rows() == 1, is_row, "{}", String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn decoding_undoes_encoding(rows in prop::collection::vec(typed_row(), 0..20), key_format in prop::sample::select(vec![Format::Kafka, Format::Json])) {
        let source = Arc::new(source(TopicKind::Table, key_format, vec![
            key("k", DataType::Int64),
            column("i", DataType::Int32),
            column("f", DataType::Float64),
            column("t\"ä", DataType::Utf8),
            column("b", DataType::Boolean),
            column("m", DataType::Decimal128(20, 3)),
            column("at", timestamp_type()),
        ]));
        let batch = batch_of(&source, &rows);
        let encoder = Encoder::new(Arc::clone(&source));
        let encoded = encoder.rows(&batch).unwrap();
        let bytes: Vec<_> = (0..rows.len()).map(|row| (encoded.key(row), encoded.value(row))).collect();
        let all: Vec<_> = bytes.iter().map(|(key, value)| (key.as_deref(), value.as_deref())).collect();
        if all.is_empty() {
            return Ok(());
        }
        let decoded = decode_all(&source, records(&all));
        prop_assert_eq!(decoded.bad_count, 0, "{:?}", decoded.bad);
        prop_assert_eq!(decoded.batch, batch);
    }
}

type TypedRow = (i64, Option<i32>, Option<f64>, Option<String>, Option<bool>, Option<i64>, Option<i64>);

fn typed_row() -> impl Strategy<Value = TypedRow> {
    let double = prop::option::of(any::<f64>().prop_map(|number| if number.is_nan() { f64::NAN } else { number }));
    (any::<i64>(), any::<Option<i32>>(), double, any::<Option<String>>(), any::<Option<bool>>(), any::<Option<i64>>(), any::<Option<i64>>())
}

fn batch_of(source: &Source, rows: &[TypedRow]) -> RecordBatch {
    use arrow::array::{BooleanArray, Decimal128Array, Float64Array, Int32Array, Int64Array, StringArray, TimestampMillisecondArray};
    let decimals: Decimal128Array = rows.iter().map(|row| row.5.map(i128::from)).collect();
    let times: TimestampMillisecondArray = rows.iter().map(|row| row.6).collect();
    let columns: Vec<arrow::array::ArrayRef> = vec![
        Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| row.1).collect::<Int32Array>()),
        Arc::new(rows.iter().map(|row| row.2).collect::<Float64Array>()),
        Arc::new(rows.iter().map(|row| row.3.as_deref()).collect::<StringArray>()),
        Arc::new(rows.iter().map(|row| row.4).collect::<BooleanArray>()),
        Arc::new(decimals.with_precision_and_scale(20, 3).unwrap()),
        Arc::new(times.with_timezone("+00:00")),
    ];
    RecordBatch::try_new(crate::catalog::schema_of(&source.columns), columns).unwrap()
}

#[test]
fn keys_are_written_as_kafkas_serialisers_write_them() {
    let decode = |data_type: DataType, bytes: &[u8]| {
        let source = source(TopicKind::Records, Format::Kafka, vec![key("k", data_type)]);
        let decoded = decode_all(&source, records(&[(Some(bytes), Some(b"{}"))]));
        (array_value_to_string(decoded.batch.column(0), 0).unwrap(), decoded.bad_count)
    };
    let is = |text: &str| (text.to_owned(), 0);
    assert_eq!(decode(DataType::Int32, &[0, 0, 1, 0]), is("256"));
    assert_eq!(decode(DataType::Int64, &[255; 8]), is("-1"));
    assert_eq!(decode(DataType::Float64, &1.5_f64.to_be_bytes()), is("1.5"));
    assert_eq!(decode(DataType::Utf8, "é".as_bytes()), is("é"));
    assert_eq!(decode(DataType::Decimal128(5, 2), b"1.25"), is("1.25"));
    assert_eq!(decode(DataType::Int64, &[1, 2]), (String::new(), 1));
}

/// `STRUCT<id INTEGER, tags ARRAY<VARCHAR>, prices MAP<VARCHAR, DECIMAL(10, 2)>>`.
fn order() -> DataType {
    let prices = map_of(DataType::Utf8, DataType::Decimal128(10, 2));
    struct_of([("id", DataType::Int32), ("tags", array_of(DataType::Utf8)), ("prices", prices)])
}

fn nested(payloads: &[&str]) -> (Vec<String>, Vec<String>) {
    let decoded = decode_values(&[("v", array_of(order()))], payloads);
    let json = (0..decoded.batch.num_rows()).map(|row| json_of(decoded.batch.column(0), row).unwrap()).collect();
    (json, reasons(&decoded))
}

#[test]
fn nested_values_are_read_as_deep_as_their_type_and_written_the_same() {
    let (json, reasons) = nested(&[
        r#"{"v":[{"id":1,"tags":["a","b\u00e9",null],"prices":{"x":1.5,"y":null}},null,{}]}"#,
        r#"{"v":[]}"#,
        r#"{"v":null}"#,
        r#"{"v": [ { "ID" : 2 , "other": [ { "id" : 9 } ] , "prices" : { } } ] }"#,
    ]);
    let expected = [
        r#"[{"id":1,"tags":["a","bé",null],"prices":{"x":1.50,"y":null}},null,{"id":null,"tags":null,"prices":null}]"#,
        "[]",
        "null",
        r#"[{"id":2,"tags":null,"prices":{}}]"#,
    ];
    assert_eq!((json, reasons), (expected.map(str::to_owned).to_vec(), Vec::new()));
}

#[test]
fn in_a_nested_value_only_the_innermost_part_that_does_not_fit_is_null() {
    let (json, reasons) =
        nested(&[r#"{"v":[{"id":"x","tags":7,"prices":{"a":1,"a":2,"b":"?"}}]}"#, r#"{"v":{"id":1}}"#, r#"{"v":[[1],{"id":3}]}"#]);
    let expected = [r#"[{"id":null,"tags":null,"prices":{"a":2.00,"b":null}}]"#, "null", r#"[null,{"id":3,"tags":null,"prices":null}]"#];
    assert_eq!(json, expected);
    assert_eq!(reasons, ["40 v: not an INTEGER", "41 v: not an ARRAY", "42 v: not a STRUCT"]);
}

#[test]
fn much_out_of_little_is_refused() {
    let wide = struct_of((0..1_000).map(|n| (format!("f{n}"), DataType::Int64)));
    let few = format!(r#"{{"v":[{}{{}}]}}"#, "{},".repeat(2));
    let many = format!(r#"{{"v":[{}{{}}]}}"#, "{},".repeat(5_000));
    let decoded = decode_values(&[("v", array_of(wide))], &[&few, &many]);
    let lists = decoded.batch.column(0).as_list::<i32>();
    assert_eq!((lists.value(0).len(), lists.is_null(1)), (3, true));
    assert_eq!(reasons(&decoded), ["41 v: has too many parts for so few bytes"]);
}

#[test]
fn a_value_may_make_sixteen_parts_a_byte_and_4096() {
    // An empty struct is one part of its list, and makes as many as it has fields.
    let of = |fields: usize| struct_of((0..fields).map(|n| (format!("f{n}"), DataType::Int64)));
    let payload = r#"{"v":[{}]}"#;
    let most = payload.len() * 16 + 4_096;
    for (fields, fits) in [(most - 1, true), (most, false)] {
        let decoded = decode_values(&[("v", array_of(of(fields)))], &[payload]);
        let list = decoded.batch.column(0).as_list::<i32>().value(0);
        assert_eq!((list.len(), list.is_valid(0)), (1, fits), "{fields} fields");
        let told: &[&str] = if fits { &[] } else { &["40 v: has too many parts for so few bytes"] };
        assert_eq!(reasons(&decoded), told);
    }
}

#[test]
fn bytes_dates_and_times_have_numbers_and_iso_8601() {
    let columns = [("b", DataType::Binary), ("d", DataType::Date32), ("t", time_type())];
    let payloads = [
        r#"{"b":"AAH/","d":1,"t":3661001}"#,
        r#"{"b":"AA","d":"2013-01-31","t":"01:01:01.001"}"#,
        r#"{"b":"\/w==","d":-1,"t":"23:59"}"#,
        r#"{"b":"?","d":"soon","t":86400000}"#,
        r#"{"b":7,"d":1e20,"t":"24:00"}"#,
    ];
    let decoded = decode_values(&columns, &payloads);
    let expected = ["0001ff|1970-01-02|01:01:01.001", "00|2013-01-31|01:01:01.001", "ff|1969-12-31|23:59:00", "-|-|-", "-|-|-"];
    assert_eq!(lines(&decoded.batch), expected);
    let expected = [
        "43 b: not BYTES in Base64",
        "43 d: not a DATE as ISO 8601 writes it",
        "43 t: out of the range of TIME, which is 0 to 86399999 ms",
        "44 b: not BYTES in Base64",
        "44 d: out of the range of BIGINT",
        "44 t: not a TIME as ISO 8601 writes it",
    ];
    assert_eq!(reasons(&decoded), expected);
}

#[test]
fn what_json_has_no_numbers_for_is_text() {
    let decoded = decode_values(&[("x", DataType::Float64)], &[r#"{"x":"NaN"}"#, r#"{"x":"-Infinity"}"#, r#"{"x":"Infinity"}"#]);
    assert_eq!(lines(&decoded.batch), ["NaN", "-inf", "inf"]);
    let written: Vec<_> = (0..3).map(|row| json_of(decoded.batch.column(0), row).unwrap()).collect();
    assert_eq!(written, ["\"NaN\"", "\"-Infinity\"", "\"Infinity\""]);
}

#[test]
fn read_with_coercion_text_is_the_number_it_spells_and_what_does_not_fit_costs_the_record() {
    let columns = [("a", DataType::Int64), ("b", DataType::Int32), ("c", DataType::Float64), ("d", DataType::Decimal128(6, 2))];
    let source = Source { reading: Reading::Coerced, ..values(&columns) };
    let payloads = [
        r#"{"a":"9007199254740993","b":"-7","c":"1.5","d":"2.5"}"#,
        r#"{"a":1.9,"b":4294967297,"c":1e400,"d":3}"#,
        r#"{"a":"x","b":1}"#,
        r#"{"a":1,"b":true}"#,
        r#"{"A":5}"#,
        r#"{"a":1,"d":0.001}"#,
    ];
    let all: Vec<_> = payloads.iter().map(|payload| (None, Some(payload.as_bytes()))).collect();
    let decoded = decode_all(&source, records(&all));
    assert_eq!(lines(&decoded.batch), ["9007199254740993|-7|1.5|2.50", "1|1|inf|3.00", "5|-|-|-"]);
    assert_eq!(decoded.positions, [900, 901, 904]);
    let expected = ["42 row: a: not a BIGINT", "43 row: b: not an INTEGER", "45 row: d: has more decimal places than its type"];
    assert_eq!(reasons(&decoded), expected);
    // Whether a record counts does not depend on the columns that are wanted.
    let decoded = Decoder::new(&source, &[WantedColumn::Declared(2)]).unwrap().decode(&[records(&all)]).unwrap();
    assert_eq!((decoded.positions, decoded.bad_count), (vec![900, 901, 904], 3));
}

/// What a key and value of one column each become, and what is read back.
fn both_ways(format: Format, data_type: &DataType, json: &str) -> (Option<Bytes>, String) {
    let parsed = decode_values(&[("v", data_type.clone())], &[&format!(r#"{{"v":{json}}}"#)]);
    let mut source = source(TopicKind::Records, format, vec![key("k", data_type.clone()), column("v", data_type.clone())]);
    source.value_format = format;
    let source = Arc::new(source);
    let one = parsed.batch.column(0);
    let batch = RecordBatch::try_new(crate::catalog::schema_of(&source.columns), vec![Arc::clone(one), Arc::clone(one)]).unwrap();
    let encoder = Encoder::new(Arc::clone(&source));
    let encoded = encoder.rows(&batch).unwrap();
    let (key, value) = (encoded.key(0), encoded.value(0));
    assert_eq!(key, value);
    let decoded = decode_all(&source, records(&[(key.as_deref(), value.as_deref())]));
    assert_eq!((&decoded.batch, decoded.bad_count), (&batch, 0), "{json}");
    (value, lines(&decoded.batch).remove(0))
}

#[test]
fn a_single_column_needs_no_object_around_it() {
    let text = |given: (Option<Bytes>, String)| given.0.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let json = |data_type: DataType, json: &str| text(both_ways(Format::JsonValue, &data_type, json));
    assert_eq!(json(DataType::Int64, "9007199254740993").as_deref(), Some("9007199254740993"));
    assert_eq!(json(DataType::Utf8, r#""a\"b""#).as_deref(), Some(r#""a\"b""#));
    assert_eq!(json(array_of(DataType::Boolean), "[true,null]").as_deref(), Some("[true,null]"));
    assert_eq!(json(DataType::Utf8, "null"), None);

    let comma = Format::Delimited(Delimiter::COMMA);
    let line = |data_type: DataType, json: &str| text(both_ways(comma, &data_type, json));
    assert_eq!(line(DataType::Utf8, r#""a,b""#).as_deref(), Some("\"a,b\""));
    assert_eq!(line(DataType::Float64, "1e10").as_deref(), Some("1.0E10"));
    assert_eq!(line(DataType::Decimal128(6, 2), "-1.5").as_deref(), Some("\"-1.50\""));
    assert_eq!(line(DataType::Date32, "\"1970-01-11\"").as_deref(), Some("10"));
    assert_eq!(line(DataType::Binary, "\"AAE=\"").as_deref(), Some("AAE="));
    assert_eq!(line(DataType::Int32, "null"), None);

    let kafka = |data_type: DataType, json: &str| both_ways(Format::Kafka, &data_type, json).0.map(|bytes| bytes.to_vec());
    assert_eq!(kafka(DataType::Int32, "256"), Some(vec![0, 0, 1, 0]));
    assert_eq!(kafka(DataType::Binary, "\"AAE=\""), Some(vec![0, 1]));
    assert_eq!(kafka(DataType::Utf8, "\"\""), Some(Vec::new()));
    assert_eq!(kafka(DataType::Float64, "null"), None);
}

#[test]
fn a_line_has_a_value_for_each_column_and_an_empty_one_is_null() {
    let columns = [("a", DataType::Int32), ("b", DataType::Utf8), ("c", DataType::Boolean), ("d", DataType::Float64)];
    let source = Source { value_format: Format::Delimited("|".parse().unwrap()), ..values(&columns) };
    let payloads = ["1|x y|true|1.5", " 2 ||FALSE|NaN", "3|\"a|b\"|yes|", "4|c", "", "x|d|true|-1e3", "\"5", "+6|e||0"];
    let all: Vec<_> = payloads.iter().map(|payload| (None, Some(payload.as_bytes()))).collect();
    let wanted: Vec<_> = [3, 1, 0, 2].map(WantedColumn::Declared).to_vec();
    let decoded = Decoder::new(&source, &wanted).unwrap().decode(&[records(&all)]).unwrap();
    assert_eq!(lines(&decoded.batch), ["1.5|x y|1|true", "NaN|-|2|false", "-|a|b|3|-", "-1000.0|d|-|true", "0.0|e|6|-"]);
    let expected = [
        "42 c: not a BOOLEAN",
        "43 row: 2 values in the line, 4 columns are declared",
        "44 row: the line is empty",
        "45 a: not a number",
        "46 row: a quoted value does not end",
    ];
    assert_eq!(reasons(&decoded), expected);
}

#[test]
fn headers_are_columns_that_are_only_read() {
    let mut source = values(&[("a", DataType::Int64), ("all", headers_type()), ("h", DataType::Binary)]);
    source.headers = vec![HeaderColumn { place: 1, name: None }, HeaderColumn { place: 2, name: Some("h".to_owned()) }];
    let mut encoded = Encoded::default();
    let headers = vec![("h".into(), Some(Bytes::from_static(b"1"))), ("x".into(), None), ("h".into(), Some(Bytes::from_static(b"2")))];
    let value = Some(Bytes::from_static(b"{\"a\":1,\"h\":\"no\"}"));
    encoded.push_record(&NewRecord { value: value.clone(), headers, ..NewRecord::default() }).unwrap();
    encoded.push_record(&NewRecord { value, ..NewRecord::default() }).unwrap();
    let source = Arc::new(source);
    let decoded = decode_all(&source, run_of(TopicKind::Records, &encoded));
    let all: Vec<_> = (0..2).map(|row| json_of(decoded.batch.column(1), row).unwrap()).collect();
    assert_eq!(all, [r#"[{"KEY":"h","VALUE":"MQ=="},{"KEY":"x","VALUE":null},{"KEY":"h","VALUE":"Mg=="}]"#, "[]"]);
    let h = decoded.batch.column(2).as_binary::<i32>();
    assert_eq!((h.value(0), h.is_null(1), decoded.bad_count), (&b"2"[..], true, 0));
    let encoder = Encoder::new(Arc::clone(&source));
    let written = encoder.rows(&decoded.batch).unwrap().value(0);
    // Only sources of the ksql dialect hand them on to what is written of a record.
    assert!(decoded.carried.headers.is_empty());
    let carrying = Source { reading: Reading::Coerced, ..source.as_ref().clone() };
    let carried = decode_all(&carrying, run_of(TopicKind::Records, &encoded)).carried.headers;
    let names = |position: u64| carried.get(&position).map(|all| all.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>());
    assert_eq!((names(900), names(901)), (Some(vec!["h".to_owned(), "x".to_owned(), "h".to_owned()]), None));
    assert_eq!(written.as_deref(), Some(&b"{\"a\":1}"[..]));
}

/// Every kind of column that is not nested, and one that is.
fn all_types() -> Vec<(&'static str, DataType)> {
    vec![
        ("a", DataType::Int32),
        ("b", DataType::Boolean),
        ("c", DataType::Float64),
        ("d", DataType::Decimal128(20, 3)),
        ("e", DataType::Utf8),
        ("f", DataType::Binary),
        ("g", DataType::Date32),
        ("h", time_type()),
        ("i", timestamp_type()),
        ("j", array_of(order())),
    ]
}

/// JSON that is often, and often not, of one of these types.
fn loose_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        value_text(),
        Just("\"NaN\"".to_owned()),
        Just("\"AAE=\"".to_owned()),
        Just("\"2013-01-31\"".to_owned()),
        Just("\"23:59:59.999\"".to_owned()),
        (0_i64..86_400_000).prop_map(|ms| ms.to_string()),
        (-99_999_i64..99_999, 0_u8..4).prop_map(|(number, places)| format!("{number}.{places:03}")),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let name = prop_oneof![Just("id"), Just("tags"), Just("prices"), Just("x"), Just("ID")];
        let fields = prop::collection::vec((name, inner.clone()), 0..4);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            fields.prop_map(|fields| {
                let each = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect::<Vec<_>>();
                format!("{{{}}}", each.join(", "))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn what_was_read_is_written_and_read_again_the_same(
        values in prop::collection::vec(loose_json(), 10),
        lists in prop::collection::vec(loose_json(), 0..3),
        reading in prop::sample::select(vec![Reading::Exact, Reading::Coerced]),
    ) {
        let columns = all_types();
        let mut texts = values;
        if let Some(last) = texts.last_mut() {
            *last = format!("[{}]", lists.join(","));
        }
        let fields: Vec<_> = columns.iter().zip(&texts).map(|((name, _), value)| ((*name).to_owned(), value.clone())).collect();
        let mut source = self::values(&columns);
        source.reading = reading;
        let source = Arc::new(source);
        let first = decode_all(&source, records(&[(None, Some(object(&fields, "").as_bytes()))]));
        let encoder = Encoder::new(Arc::clone(&source));
        let encoded = encoder.rows(&first.batch).unwrap();
        for row in 0..first.batch.num_rows() {
            let value = encoded.value(row);
            let again = decode_all(&source, records(&[(None, value.as_deref())]));
            prop_assert_eq!(again.bad_count, 0, "{:?}", again.bad);
            prop_assert_eq!(&again.batch, &first.batch.slice(row, 1), "{:?}", value);
        }
    }

    #[test]
    fn no_bytes_panic_whatever_their_format(
        key in prop::option::of(prop::collection::vec(any::<u8>(), 0..12)),
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            loose_json().prop_map(String::into_bytes),
            "[a-z0-9,\"\n .-]{0,40}".prop_map(String::into_bytes),
        ],
        column in 0_usize..10,
        reading in prop::sample::select(vec![Reading::Exact, Reading::Coerced]),
        format in prop::sample::select(vec![Format::Json, Format::JsonValue, Format::Kafka, Format::Delimited(Delimiter::COMMA)]),
    ) {
        let (_, data_type) = all_types().swap_remove(column);
        let mut source = source(TopicKind::Records, format, vec![key_column(&data_type), self::column("v", data_type)]);
        (source.value_format, source.reading) = (format, reading);
        let decoded = decode_all(&source, records(&[(key.as_deref(), Some(&bytes))]));
        prop_assert!(decoded.batch.num_rows() <= 1);
        prop_assert!(decoded.batch.num_rows() == 1 || decoded.bad_count > 0);
    }
}

fn key_column(data_type: &DataType) -> Column {
    key("k", data_type.clone())
}
