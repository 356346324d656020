//! Whether a value is the expected one, by the type of its column where there is one.

use foldlog_query::arrow::datatypes::DataType;

use crate::json::Json;

/// Largest difference of two DOUBLE that are taken for equal.
const TOLERANCE: f64 = 1e-6;

/// What differs, if something does.
pub fn differ(expected: &Json, actual: &Json, data_type: Option<&DataType>) -> Option<String> {
    let said = || Some(format!("expected {expected}, got {actual}"));
    match (expected, actual) {
        (Json::Object(wanted), Json::Object(given)) => {
            if wanted.len() != given.len() {
                return said();
            }
            for (name, value) in wanted {
                let upper = name.to_uppercase();
                let found = given.iter().find(|(one, _)| one == name).or_else(|| given.iter().find(|(one, _)| *one == upper));
                let of_field = found.and_then(|(name, _)| type_of_field(data_type, name));
                let found = found.map_or(&Json::Null, |(_, value)| value);
                if let Some(difference) = differ(value, found, of_field) {
                    return Some(format!("{name}: {difference}"));
                }
            }
            None
        }
        (Json::List(wanted), Json::List(given)) => {
            if wanted.len() != given.len() {
                return said();
            }
            let element = match data_type {
                Some(DataType::List(field)) => Some(field.data_type()),
                _ => None,
            };
            let mut differences = wanted.iter().zip(given).filter_map(|(wanted, given)| differ(wanted, given, element));
            differences.next()
        }
        (Json::Number(wanted), Json::Number(given)) => {
            let is_whole = matches!(data_type, Some(DataType::Int32 | DataType::Int64)) && wanted.strip_suffix(".0") == Some(given);
            let equal = wanted == given || is_whole || (!is_exact(data_type) && is_close(wanted, given));
            if equal { None } else { said() }
        }
        // NaN and infinity have no number in JSON.
        (Json::Text(wanted), Json::Number(given)) | (Json::Number(given), Json::Text(wanted)) if wanted == given => None,
        _ if expected == actual => None,
        _ => said(),
    }
}

fn type_of_field<'a>(data_type: Option<&'a DataType>, name: &str) -> Option<&'a DataType> {
    match data_type? {
        DataType::Struct(fields) => fields.iter().find(|field| field.name().eq_ignore_ascii_case(name)).map(|field| field.data_type()),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(entry) => entry.get(1).map(|value| value.data_type()),
            _ => None,
        },
        _ => None,
    }
}

fn is_exact(data_type: Option<&DataType>) -> bool {
    matches!(data_type, Some(DataType::Int32 | DataType::Int64 | DataType::Decimal128(..)))
}

fn is_close(wanted: &str, given: &str) -> bool {
    match (wanted.parse::<f64>(), given.parse::<f64>()) {
        (Ok(wanted), Ok(given)) => (wanted - given).abs() <= TOLERANCE || wanted == given || (wanted.is_nan() && given.is_nan()),
        _ => false,
    }
}
