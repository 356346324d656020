//! DataFusion's errors in our words.

use datafusion::common::{DataFusionError, SchemaError};

use crate::{catalog::nearest, error::QueryError};

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
            let ours = || of_our_functions(&message).unwrap_or_else(|| first_lines(&message));
            unknown_function(&message).unwrap_or_else(|| QueryError::Invalid(ours()))
        }
        DataFusionError::ResourcesExhausted(message) => QueryError::ResourceExhausted(first_lines(&message)),
        other => {
            let message = other.strip_backtrace();
            QueryError::Invalid(of_our_functions(&message).unwrap_or_else(|| first_lines(&message)))
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
    let hint = rest.split_once("Did you mean '").and_then(|(_, near)| nearest(name, near.split('\'').take(1)));
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
        other => QueryError::Invalid(first_lines(&other.to_string())),
    }
}

/// The message without the list of candidates and the trace that may follow it, its first letter small.
fn first_lines(message: &str) -> String {
    let message = message.split("\n\n").next().unwrap_or(message);
    let lines = message.lines().filter(|line| !line.trim_start().starts_with("Candidate")).map(str::trim).collect::<Vec<_>>();
    let text = lines.join(" ");
    let mut chars = text.chars();
    match chars.next() {
        Some(first) if chars.clone().next().is_some_and(char::is_lowercase) => first.to_lowercase().chain(chars).collect(),
        _ => text,
    }
}
