//! DataFusion's errors in our words.

use datafusion::common::{DataFusionError, SchemaError};

use super::aggregates;
use crate::{catalog::nearest, error::QueryError, functions};

/// What a failure to plan means to whoever wrote the statement.
#[must_use]
pub fn of_planning(error: DataFusionError) -> QueryError {
    match error {
        DataFusionError::SchemaError(error, _) => of_schema(&error),
        DataFusionError::Diagnostic(_, inner) | DataFusionError::Context(_, inner) => of_planning(*inner),
        DataFusionError::Collection(errors) => match errors.into_iter().next() {
            Some(first) => of_planning(first),
            None => QueryError::Execution("no reason was given".to_owned()),
        },
        DataFusionError::NotImplemented(message) => QueryError::Unsupported(first_lines(&message)),
        DataFusionError::Plan(message) | DataFusionError::Configuration(message) => {
            let ours = || of_our_functions(&message).or_else(|| not_grouped(&message)).unwrap_or_else(|| first_lines(&message));
            unknown_function(&message).unwrap_or_else(|| QueryError::Invalid(ours()))
        }
        DataFusionError::ResourcesExhausted(message) => QueryError::ResourceExhausted(first_lines(&message)),
        other => {
            let message = other.strip_backtrace();
            QueryError::Invalid(of_our_functions(&message).or_else(|| no_fields(&message)).unwrap_or_else(|| first_lines(&message)))
        }
    }
}

/// What a function of ours says of its arguments, out of what DataFusion says around it.
fn of_our_functions(message: &str) -> Option<String> {
    let (_, ours) = message.split_once(" user-defined coercion failed with: Error during planning: ")?;
    Some(ours.split(". No function matches the given name").next().unwrap_or(ours).to_owned())
}

/// A function that does not exist; of what DataFusion holds for near, only what is.
fn unknown_function(message: &str) -> Option<QueryError> {
    let (name, rest) = message.strip_prefix("Invalid function '")?.split_once('\'')?;
    if name == "cast" {
        return Some(QueryError::Invalid("CAST is written CAST(value AS type)".to_owned()));
    }
    if functions::find(name).is_some_and(functions::Function::takes_lambdas) {
        let what = format!("{name} in a SELECT that ends, other than of columns and conditions over one source");
        return Some(QueryError::Unsupported(what));
    }
    let datafusions = rest.split_once("Did you mean '").and_then(|(_, near)| near.split('\'').next());
    let mut known: Vec<&str> = functions::all().map(functions::Function::name).collect();
    known.extend(aggregates::all().iter().map(|one| one.name).chain(datafusions));
    let hint = nearest(name, known.into_iter());
    Some(QueryError::Unknown { what: "function", name: name.to_owned(), hint, place: None })
}

fn of_schema(error: &SchemaError) -> QueryError {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => QueryError::Unknown {
            what: "column",
            name: field.flat_name().replace('"', ""),
            hint: nearest(&field.name, valid_fields.iter().map(|column| column.name.as_str())),
            place: None,
        },
        SchemaError::AmbiguousReference { field } => QueryError::Invalid(format!("column {} is ambiguous; write table.column", field.name)),
        SchemaError::DuplicateQualifiedField { qualifier, .. } => {
            let name = qualifier.to_string().replace('"', "");
            QueryError::Invalid(format!("two of the sources are called {name}; give one another name with AS"))
        }
        other => QueryError::Invalid(first_lines(&other.to_string())),
    }
}

/// A field that was asked of what has none.
fn no_fields(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("Cannot access field at argument 1: type ")?;
    let (given, _) = rest.split_once(" is not Struct")?;
    Some(format!("a field is taken of a STRUCT or MAP, not of {}", with_our_types(given)))
}

/// A column that stands beside aggregates, in the words of queries that do not end.
fn not_grouped(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("column \"")?;
    let (column, rest) = rest.split_once('"')?;
    let name = column.rsplit('.').next().unwrap_or(column);
    rest.contains("must appear in the GROUP BY clause").then(|| format!("column {name} must stand in GROUP BY or in an aggregate"))
}

/// Names of types as users write them, in place of Arrow's.
fn with_our_types(message: &str) -> String {
    const TYPES: [(&str, &str); 10] = [
        ("Utf8View", "VARCHAR"),
        ("LargeUtf8", "VARCHAR"),
        ("Utf8", "VARCHAR"),
        ("Int32", "INTEGER"),
        ("Int64", "BIGINT"),
        ("Float64", "DOUBLE"),
        ("Boolean", "BOOLEAN"),
        ("Date32", "DATE"),
        ("Decimal128", "DECIMAL"),
        ("Time32(ms)", "TIME"),
    ];
    TYPES.iter().fold(message.to_owned(), |message, (theirs, ours)| message.replace(theirs, ours))
}

/// The message without the list of candidates and the trace that may follow it, its first letter small.
fn first_lines(message: &str) -> String {
    let message = message.split("\n\n").next().unwrap_or(message);
    let lines = message.lines().filter(|line| !line.trim_start().starts_with("Candidate")).map(str::trim).collect::<Vec<_>>();
    let text = lines.join(" ");
    // What DataFusion holds for a fault of its own is one of the statement.
    let text = text.split(" This issue was likely caused by a bug").next().unwrap_or(&text).trim_end_matches('.');
    let text = text.rsplit_once("Internal error: ").map_or(text, |(_, text)| text).replace("Error during planning: ", "");
    let text = with_our_types(&text);
    let mut chars = text.chars();
    match chars.next() {
        Some(first) if chars.clone().next().is_some_and(char::is_lowercase) => first.to_lowercase().chain(chars).collect(),
        _ => text,
    }
}
