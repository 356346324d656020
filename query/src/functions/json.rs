//! Functions of texts that are JSON. A number keeps its digits as they are written; what follows the first value is not looked at.

use std::borrow::Cow;

use arrow::{
    array::{Array as _, ArrayRef, AsArray},
    datatypes::{DataType, Decimal128Type, Float64Type, Int32Type, Int64Type},
};
use datafusion::common::Result;
use serde::{
    Deserialize, Deserializer as _,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    definition::{Definition, form},
    input::{Fault, Input, Pairs, Str, Text},
    text::count,
    written::{self, quoted},
};
use crate::plan::MAX_VALUE_BYTES;

/// Most steps of a path: each looks at all that is left of the text.
const MAX_STEPS: usize = 128;

pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new(
        "extractjsonfield",
        "What lies at a path, such as `$.items[0].name`, of a text that is JSON; NULL if nothing does.",
        &[form("json VARCHAR, path VARCHAR -> VARCHAR", |input| input.map2::<Str, Str, _>(extract))],
        &[("extractjsonfield('{\"a\": [1, {\"b\": \"c\"}]}', '$.a[1].b')", "c")],
    ),
    Definition::new(
        "is_json_string",
        "Whether a text is JSON; false of NULL.",
        &[form("text VARCHAR -> BOOLEAN", |input| {
            let text = input.column::<Str>(0)?;
            input.each(|row| text.get(row).is_some_and(|text| value(text).is_some()))
        })],
        &[("is_json_string('[1, 2]')", "true")],
    ),
    Definition::new(
        "json_array_contains",
        "Whether a text is a JSON array that has a value.",
        &[form("json VARCHAR, value T -> BOOLEAN", contains)],
        &[("json_array_contains('[1, 2]', 2)", "true")],
    ),
    Definition::new(
        "json_array_length",
        "The number of elements of a JSON array; NULL if the text is none.",
        &[form("json VARCHAR -> INT", |input| {
            input.map1::<Str, _>(|text| Ok::<Option<i32>, Fault>(elements(value(text).ok_or(Fault)?).map(|all| count(all.len()))))
        })],
        &[("json_array_length('[1, [2, 3]]')", "2")],
    ),
    Definition::new(
        "json_concat",
        "JSON texts made one: objects are merged, a later value of a key replacing an earlier one, all else becomes one array.",
        &[form("json VARCHAR, more VARCHAR... -> VARCHAR", concat)],
        &[("json_concat('{\"a\": 1}', '{\"b\": 2}')", "{\"a\":1,\"b\":2}"), ("json_concat('[1]', '2')", "[1,2]")],
    ),
    Definition::new(
        "json_items",
        "The elements of a JSON array, each as JSON; NULL if the text is none.",
        &[form("json VARCHAR -> ARRAY<VARCHAR>", |input| {
            input.map1::<Str, _>(|text| {
                let all = elements(value(text).ok_or(Fault)?);
                Ok::<_, Fault>(
                    all.map(|all| all.into_iter().map(|one| Some(Cow::Owned(compact(one)))).collect::<Vec<Option<Cow<'_, str>>>>()),
                )
            })
        })],
        &[("json_items('[1, {\"a\": 2}]')", "[1, {\"a\":2}]")],
    ),
    Definition::new(
        "json_keys",
        "The keys of a JSON object; NULL if the text is none.",
        &[form("json VARCHAR -> ARRAY<VARCHAR>", |input| {
            input.map1::<Str, _>(|text| {
                let all = fields(value(text).ok_or(Fault)?);
                Ok::<_, Fault>(all.map(|all| all.into_iter().map(|(key, _)| Some(Cow::Owned(key))).collect::<Vec<Option<Cow<'_, str>>>>()))
            })
        })],
        &[("json_keys('{\"a\": 1, \"b\": 2}')", "[a, b]")],
    ),
    Definition::new(
        "json_records",
        "The fields of a JSON object as a map of texts; NULL if the text is none.",
        &[form("json VARCHAR -> MAP<VARCHAR, VARCHAR>", |input| {
            input.map1::<Str, _>(|text| {
                let Some(all) = fields(value(text).ok_or(Fault)?) else { return Ok(None) };
                let mut pairs = Pairs::default();
                for (key, one) in all {
                    pairs.put(&key, plain(one));
                }
                Ok::<Option<Pairs>, Fault>(Some(pairs))
            })
        })],
        &[("json_records('{\"a\": 1, \"b\": \"c\"}')", "{a: 1, b: c}")],
    ),
    Definition::new(
        "to_json_string",
        "A value as JSON; keys of maps and fields of structs in their order.",
        &[form("value T -> VARCHAR", to_json)],
        &[("to_json_string(ARRAY['a', NULL])", "[\"a\",null]")],
    ),
];

/// The first JSON value of a text, as it is written.
fn value(text: &str) -> Option<&str> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let raw = <&RawValue>::deserialize(&mut reader).ok()?;
    Some(raw.get())
}

/// The elements of a JSON array, as they are written; none of another value.
fn elements(json: &str) -> Option<Vec<&str>> {
    struct Elements;
    impl<'de> Visitor<'de> for Elements {
        type Value = Vec<&'de str>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut given: A) -> std::result::Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some(one) = given.next_element::<&RawValue>()? {
                all.push(one.get());
            }
            Ok(all)
        }
    }
    if json.starts_with('[') { serde_json::Deserializer::from_str(json).deserialize_seq(Elements).ok() } else { None }
}

/// The fields of a JSON object, each key once with its last value; none of another value.
fn fields(json: &str) -> Option<Vec<(String, &str)>> {
    struct Fields;
    impl<'de> Visitor<'de> for Fields {
        type Value = Vec<(String, &'de str)>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut given: A) -> std::result::Result<Self::Value, A::Error> {
            let mut all: Vec<(String, &str)> = Vec::new();
            let mut places = hashbrown::HashMap::new();
            while let Some((key, one)) = given.next_entry::<String, &RawValue>()? {
                match places.get(&key).and_then(|at: &usize| all.get_mut(*at)) {
                    Some(known) => known.1 = one.get(),
                    None => {
                        places.insert(key.clone(), all.len());
                        all.push((key, one.get()));
                    }
                }
            }
            Ok(all)
        }
    }
    if json.starts_with('{') { serde_json::Deserializer::from_str(json).deserialize_map(Fields).ok() } else { None }
}

/// JSON without the white space between its tokens.
fn compact(json: &str) -> String {
    let mut made = String::with_capacity(json.len());
    let (mut quotes, mut escaped) = (false, false);
    for one in json.chars() {
        if quotes || !one.is_ascii_whitespace() {
            made.push(one);
        }
        if one == '"' && !escaped {
            quotes = !quotes;
        }
        escaped = quotes && one == '\\' && !escaped;
    }
    made
}

/// A JSON value as text: a string without its quotes, all else as JSON; none of null.
fn plain(json: &str) -> Option<String> {
    if json == "null" {
        return None;
    }
    if json.starts_with('"') { serde_json::from_str(json).ok() } else { Some(compact(json)) }
}

/// A step of a path.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Field(String),
    Element(Option<usize>),
}

/// `$`, then `.name`, `[0]`, `['name']` or `["name"]`.
fn steps(path: &str) -> Option<Vec<Step>> {
    let mut rest = path.strip_prefix('$')?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(named) = rest.strip_prefix('.') {
            let end = named.find(['.', '[']).unwrap_or(named.len());
            if end == 0 {
                return None;
            }
            steps.push(Step::Field(named.get(..end)?.to_owned()));
            rest = named.get(end..)?;
            continue;
        }
        let inside = rest.strip_prefix('[')?;
        if let Some(quote) = inside.chars().next().filter(|first| ['\'', '"'].contains(first)) {
            let named = inside.get(1..)?;
            let end = named.find(quote)?;
            steps.push(Step::Field(named.get(..end)?.to_owned()));
            rest = named.get(end + 1..)?.strip_prefix(']')?;
        } else {
            let end = inside.find(']')?;
            let number: i64 = inside.get(..end)?.trim().parse().ok()?;
            // There is nothing before the first element.
            steps.push(Step::Element(usize::try_from(number).ok()));
            rest = inside.get(end + 1..)?;
        }
    }
    Some(steps)
}

fn extract(json: &str, path: &str) -> std::result::Result<Option<String>, Fault> {
    let mut at = value(json).ok_or(Fault)?;
    let steps = steps(path).filter(|steps| steps.len() <= MAX_STEPS).ok_or(Fault)?;
    for step in steps {
        let next = match step {
            Step::Field(name) => fields(at).and_then(|all| all.into_iter().find(|(key, _)| *key == name)).map(|(_, one)| one),
            Step::Element(place) => elements(at).and_then(|all| place.and_then(|place| all.get(place).copied())),
        };
        let Some(next) = next else { return Ok(None) };
        at = next;
    }
    Ok(plain(at))
}

/// What an element of a JSON array is compared with.
enum Sought<'a> {
    Null,
    Boolean(bool),
    Whole(i128),
    Fraction(f64),
    Text(&'a str),
}

impl Sought<'_> {
    /// Whether a JSON value is this: whole numbers equal whole ones, fractions those written with a point or an exponent.
    fn is(&self, json: &str) -> bool {
        let is_fraction = || json.contains(['.', 'e', 'E']) && !json.starts_with('"');
        match self {
            Self::Null => json == "null",
            Self::Boolean(wanted) => json == if *wanted { "true" } else { "false" },
            Self::Whole(wanted) => json.parse() == Ok(*wanted),
            Self::Fraction(wanted) => is_fraction() && json.parse() == Ok(*wanted),
            Self::Text(wanted) => json.starts_with('"') && serde_json::from_str::<String>(json).is_ok_and(|text| text == *wanted),
        }
    }
}

fn contains(input: &Input<'_>) -> Result<ArrayRef> {
    let (json, values) = (input.column::<Str>(0)?, input.array(1)?);
    let sought = |row: usize| {
        if values.is_null(row) {
            return Some(Sought::Null);
        }
        Some(match values.data_type() {
            DataType::Boolean => Sought::Boolean(values.as_boolean().value(row)),
            DataType::Int32 => Sought::Whole(i128::from(values.as_primitive::<Int32Type>().value(row))),
            DataType::Int64 => Sought::Whole(i128::from(values.as_primitive::<Int64Type>().value(row))),
            DataType::Float64 => Sought::Fraction(values.as_primitive::<Float64Type>().value(row)),
            DataType::Decimal128(_, scale) => {
                Sought::Fraction(written::decimal(values.as_primitive::<Decimal128Type>().value(row), *scale).parse().ok()?)
            }
            DataType::Utf8 => Sought::Text(values.as_string::<i32>().value(row)),
            _ => return None,
        })
    };
    input.each(|row| {
        let Some(json) = json.get(row) else { return Ok(false) };
        let sought = sought(row).ok_or(Fault)?;
        let all = value(json).and_then(elements);
        Ok(all.is_some_and(|all| all.into_iter().any(|one| sought.is(one))))
    })
}

fn concat(input: &Input<'_>) -> Result<ArrayRef> {
    let texts = input.columns::<Str>(0)?;
    input.each(|row| {
        let given: Option<Vec<&str>> = texts.iter().map(|one| one.get(row)).collect();
        let Some(given) = given else { return Ok(None) };
        let values: Option<Vec<&str>> = given.iter().map(|text| value(text)).collect();
        let values = values.ok_or(Fault)?;
        let limit = MAX_VALUE_BYTES.max(given.iter().map(|text| text.len()).max().unwrap_or(0));
        if values.iter().all(|one| one.starts_with('{')) { merged(&values, limit) } else { appended(&values, limit) }.map(Some)
    })
}

fn merged(objects: &[&str], limit: usize) -> std::result::Result<String, Fault> {
    let mut all: Vec<(String, &str)> = Vec::new();
    let mut places = hashbrown::HashMap::new();
    for object in objects {
        for (key, one) in fields(object).ok_or(Fault)? {
            match places.get(&key).and_then(|at: &usize| all.get_mut(*at)) {
                Some(known) => known.1 = one,
                None => {
                    places.insert(key.clone(), all.len());
                    all.push((key, one));
                }
            }
        }
    }
    let mut made = Text::default();
    for (at, (key, one)) in all.into_iter().enumerate() {
        made.push(if at > 0 { "," } else { "{" }, limit)?;
        let mut name = String::new();
        quoted(&key, &mut name);
        made.push(&name, limit)?;
        made.push(":", limit)?;
        made.push(&compact(one), limit)?;
    }
    let made = made.into_string();
    Ok(if made.is_empty() { "{}".to_owned() } else { made + "}" })
}

fn appended(values: &[&str], limit: usize) -> std::result::Result<String, Fault> {
    let mut made = Text::default();
    let mut is_first = true;
    for one in values {
        for element in elements(one).unwrap_or_else(|| vec![one]) {
            made.push(if is_first { "[" } else { "," }, limit)?;
            made.push(&compact(element), limit)?;
            is_first = false;
        }
    }
    let made = made.into_string();
    Ok(if made.is_empty() { "[]".to_owned() } else { made + "]" })
}

fn to_json(input: &Input<'_>) -> Result<ArrayRef> {
    let values = input.array(0)?;
    let mut texts = Vec::with_capacity(input.rows());
    for row in 0..input.rows() {
        let mut text = String::new();
        written::json(&values, row, &mut text)?;
        texts.push(text);
    }
    let mut texts = texts.into_iter();
    input.each(|_| texts.next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_to_a_value_as_it_is_written() {
        let json = "{ \"a\": [1.50, {\"b c\": \"x\\ny\"}, null, 1e400], \"@t\": true, \"a\\u0062\": {\"k\": [ 1 , 2 ]} } }";
        for (path, text) in [
            ("$.a[0]", Some("1.50")),
            ("$.a[1]['b c']", Some("x\ny")),
            ("$.a[2]", None),
            ("$.a[3]", Some("1e400")),
            ("$.a[-1]", None),
            ("$.a[9]", None),
            ("$.@t", Some("true")),
            ("$.ab", Some("{\"k\":[1,2]}")),
            ("$[\"ab\"].k[1]", Some("2")),
            ("$.none.more", None),
        ] {
            assert_eq!(extract(json, path), Ok(text.map(str::to_owned)), "{path}");
        }
        for wrong in ["a", "$a", "$.", "$[", "$[x]", "$['a'", "$.a..b", ""] {
            assert_eq!(extract(json, wrong), Err(Fault), "{wrong}");
        }
        assert_eq!(extract("not json", "$.a"), Err(Fault));
        assert_eq!(extract(&"[".repeat(100_000), "$[0]"), Err(Fault));
    }

    #[test]
    fn json_texts_become_one() {
        assert_eq!(merged(&["{\"a\": 1, \"b\": \"x y\"}", "{}", "{\"a\": [ 2 ]}"], 100), Ok("{\"a\":[2],\"b\":\"x y\"}".to_owned()));
        assert_eq!(merged(&["{}"], 100), Ok("{}".to_owned()));
        assert_eq!(appended(&["[1, 2]", "\"x\"", "{\"a\": 1}", "[]"], 100), Ok("[1,2,\"x\",{\"a\":1}]".to_owned()));
        assert_eq!(appended(&["[]"], 100), Ok("[]".to_owned()));
        assert_eq!(merged(&["{\"a\": 1}"], 3), Err(Fault));
    }
}
