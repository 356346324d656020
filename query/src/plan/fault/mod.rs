//! DataFusion's errors in our words.
//!
//! Called wherever something of DataFusion's plans or computes what a user wrote. Invariant: no name of a type of Arrow's, nor the way
//! in which Rust shows a value, gets through to a user; [`words`] is the one place that knows them.

mod words;

use datafusion::common::{DataFusionError, SchemaError};

use super::{aggregates, table_functions};
use crate::{catalog::nearest, error::QueryError, functions};

pub use words::in_our_words;

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
        DataFusionError::External(inner) => match inner.downcast::<QueryError>() {
            Ok(ours) => *ours,
            Err(other) => QueryError::Invalid(first_lines(&other.to_string())),
        },
        DataFusionError::ResourcesExhausted(message) => QueryError::ResourceExhausted(first_lines(&message)),
        DataFusionError::NotImplemented(message) => explained(&message).unwrap_or_else(|| QueryError::Unsupported(first_lines(&message))),
        DataFusionError::Plan(message) | DataFusionError::Configuration(message) => {
            explained(&message).unwrap_or_else(|| QueryError::Invalid(first_lines(&message)))
        }
        other => {
            let message = other.strip_backtrace();
            explained(&message).unwrap_or_else(|| QueryError::Invalid(first_lines(&message)))
        }
    }
}

/// What a message means that we have words of our own for.
fn explained(message: &str) -> Option<QueryError> {
    if let Some(inner) = of_our_functions(message) {
        return Some(explained(inner).unwrap_or_else(|| QueryError::Invalid(first_lines(inner))));
    }
    if let Some(unknown) = unknown_function(message).or_else(|| subquery(message)) {
        return Some(unknown);
    }
    let message = in_our_words(message);
    let call = no_such_call(&message);
    let message = without_kind(&message);
    call.or_else(|| not_grouped(message))
        .or_else(|| no_condition(message))
        .or_else(|| wrong_arguments(message))
        .or_else(|| types_that_do_not_fit(message))
        .or_else(|| no_fields(message))
        .map(QueryError::Invalid)
}

/// What a function says itself of its arguments, as all of ours do, out of what DataFusion says around it.
fn of_our_functions(message: &str) -> Option<&str> {
    let (_, ours) = message.split_once(" user-defined coercion failed with: Error during planning: ")?;
    Some(ours.split(". No function matches the given name").next().unwrap_or(ours))
}

/// A function that does not exist, or not there; of what DataFusion holds for near, only what is.
fn unknown_function(message: &str) -> Option<QueryError> {
    let (name, rest) = message.strip_prefix("Invalid function '")?.split_once('\'')?;
    if name == "cast" {
        return Some(QueryError::Invalid("CAST is written CAST(value AS type)".to_owned()));
    }
    if functions::find(name).is_some_and(functions::Function::takes_lambdas) {
        let what = format!("{name} in a SELECT that ends, other than of columns and conditions over one source");
        return Some(QueryError::Unsupported(what));
    }
    let is_name = |one: &str| one.eq_ignore_ascii_case(name);
    if aggregates::all().iter().any(|one| is_name(one.name)) || table_functions::all().iter().any(|one| is_name(one.name)) {
        return Some(QueryError::Unsupported(format!("{name} in a query that ends; a query that does not end has it")));
    }
    let datafusions = rest.split_once("Did you mean '").and_then(|(_, near)| near.split('\'').next());
    let mut known: Vec<&str> = functions::all().map(functions::Function::name).collect();
    known.extend(aggregates::all().iter().map(|one| one.name).chain(datafusions));
    let hint = nearest(name, known.into_iter());
    Some(QueryError::Unknown { what: "function", name: name.to_owned(), hint, place: None })
}

/// A subquery where none can be.
fn subquery(message: &str) -> Option<QueryError> {
    let (_, expression) = message.split_once("hysical plan does not support logical expression ")?;
    let what = expression.split(['(', ' ']).next().unwrap_or(expression);
    let what = match what {
        "Exists" => "EXISTS (SELECT ...) other than as a condition of WHERE",
        "InSubquery" => "IN (SELECT ...) other than as a condition of WHERE",
        "ScalarSubquery" | "OuterReferenceColumn" => "such a subquery here",
        "WindowFunction" => "OVER (...) in WHERE, GROUP BY or HAVING",
        _ => "such an expression here",
    };
    Some(QueryError::Unsupported(what.to_owned()))
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
    Some(format!("a field is taken of a STRUCT or MAP, not of {given}"))
}

/// A column that stands beside aggregates, in the words of queries that do not end.
fn not_grouped(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("column \"")?;
    let (column, rest) = rest.split_once('"')?;
    let name = column.rsplit('.').next().unwrap_or(column);
    rest.contains("must appear in the GROUP BY clause").then(|| format!("column {name} must stand in GROUP BY or in an aggregate"))
}

/// A condition of another type.
fn no_condition(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("annot create filter with non-boolean predicate ")?;
    let (_, given) = rest.rsplit_once(" returning ")?;
    Some(format!("WHERE and HAVING must be BOOLEAN, it is {given}"))
}

/// A call with arguments that no form of the function takes.
fn no_such_call(message: &str) -> Option<String> {
    let (call, name) = if let Some((_, rest)) = message.split_once("No function matches the given name and argument types '") {
        let (call, _) = rest.split_once('\'')?;
        (call.to_owned(), call.split_once('(')?.0.to_owned())
    } else if let Some((_, rest)) = message.split_once("ailed to coerce arguments to satisfy a call to '") {
        let (name, rest) = rest.split_once('\'')?;
        let (_, rest) = rest.split_once("coercion from ")?;
        let (types, _) = rest.split_once(" to the signature ")?;
        (format!("{name}({types})"), name.to_owned())
    } else {
        return None;
    };
    if name == "array_element" {
        return Some("a place in an array is INT, and the key of a map has the type of its keys".to_owned());
    }
    Some(format!("there is no {call}{}", described(&name)))
}

/// Where more is told of a function.
fn described(name: &str) -> String {
    functions::find(name).map_or_else(String::new, |_| format!("; DESCRIBE FUNCTION {name} tells what it takes"))
}

/// A call whose arguments are too many, too few or of other types than its function takes.
fn wrong_arguments(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("Function '")?;
    let (name, rest) = rest.split_once('\'')?;
    let is_about_arguments = [" requires ", " expects ", " failed to match any signature"].iter().any(|what| rest.starts_with(what));
    if !is_about_arguments {
        return None;
    }
    let count = rest.strip_prefix(" expects ").and_then(|rest| rest.split_once(" arguments but received "));
    let given = rest.split_once("(DataType: ").and_then(|(_, rest)| rest.split_once(").").or_else(|| rest.rsplit_once(')')));
    let wrong = match (count, given) {
        (Some((wanted, _)), _) => format!("takes {wanted} arguments"),
        (None, Some((given, _))) => format!("does not take {given}"),
        (None, None) => "does not take these arguments".to_owned(),
    };
    Some(format!("{name} {wrong}{}", described(name)))
}

/// Operands, results or elements of types that do not go together; the message has our types already.
fn types_that_do_not_fit(message: &str) -> Option<String> {
    /// The text between two others, with nothing before.
    fn within<'a>(message: &'a str, before: &str, behind: &str) -> Option<&'a str> {
        message.strip_prefix(before)?.split_once(behind).map(|(within, _)| within)
    }
    /// Two operands and what stands between them: the only word there that is no type.
    fn operands(text: &str) -> Option<(&str, &str, &str)> {
        const OPERATORS: [&str; 22] = [
            "IS NOT DISTINCT FROM",
            "IS DISTINCT FROM",
            "AND",
            "OR",
            "+",
            "-",
            "*",
            "/",
            "%",
            "=",
            "!=",
            "<=",
            ">=",
            "<",
            ">",
            "||",
            "|",
            "&",
            "<<",
            ">>",
            "BIT_XOR",
            "~",
        ];
        OPERATORS.iter().find_map(|operator| {
            let (left, right) = text.split_once(&format!(" {operator} "))?;
            Some((left, *operator, right))
        })
    }
    if let Some(of) = within(message, "Cannot coerce arithmetic expression ", " to valid types") {
        let (left, operator, right) = operands(of)?;
        return Some(format!("{operator} does not take {left} and {right}"));
    }
    if let Some((of, _)) = message.strip_prefix("Cannot get result type for decimal operation ").and_then(|of| of.split_once(": ")) {
        let (left, operator, right) = operands(of)?;
        return Some(format!("{operator} of {left} and {right} has more digits than a DECIMAL; CAST one of them to fewer"));
    }
    if let Some(of) = message.strip_prefix("Cannot infer common argument type for comparison operation ") {
        let (left, operator, right) = operands(of)?;
        return Some(format!("{operator} cannot compare: {left} and {right}"));
    }
    if let Some(of) = message.strip_prefix("Cannot infer common argument type for logical boolean operation ") {
        let (left, operator, right) = operands(of)?;
        return Some(format!("{operator} takes BOOLEAN, not {left} and {right}"));
    }
    if let Some(of) = message
        .strip_prefix("Cannot infer common string type for string concat operation ")
        .or_else(|| message.strip_prefix("Cannot infer common type for bitwise operation "))
    {
        let (left, operator, right) = operands(of)?;
        return Some(format!("{operator} does not take {left} and {right}"));
    }
    if let Some(of) = within(message, "There isn't a common type to coerce ", " in LIKE expression") {
        return Some(format!("LIKE takes texts, not {of}"));
    }
    if let Some(of) = within(message, "Failed to coerce types ", " in BETWEEN expression") {
        return Some(format!("BETWEEN cannot compare: {of}"));
    }
    if let Some((value, list)) = message.strip_prefix("Can not find compatible types to compare ").and_then(|of| of.split_once(" with [")) {
        return Some(format!("IN cannot compare: {value} with {}", list.trim_end_matches(['.', ']'])));
    }
    if let Some(of) = message.strip_prefix("Failed to unify argument types of ").and_then(|of| of.split_once(": [")) {
        return Some(format!("elements are of different types: {}", of.1.trim_end_matches(['.', ']'])));
    }
    if let Some(of) = message.strip_prefix("Failed to coerce then (").or_else(|| message.strip_prefix("Failed to coerce else (")) {
        let (first, rest) = of.split_once(") and ")?;
        let (_, rest) = rest.split_once(" (")?;
        let (second, _) = rest.split_once(") to common types")?;
        return Some(format!("the results of CASE are of different types: {first} and {second}"));
    }
    if let Some(of) = message.strip_prefix("Failed to coerce case (") {
        let (value, rest) = of.split_once(") and when (")?;
        let (other, _) = rest.split_once(") to common types")?;
        return Some(format!("CASE cannot compare: {value} and {other}"));
    }
    if let Some((from, to)) = message.strip_prefix("Unsupported CAST from ").and_then(|of| of.split_once(" to ")) {
        return Some(format!("there is no cast from {from} to {}", to.trim_end_matches('.')));
    }
    if let Some((from, to)) = message.strip_prefix("Cannot automatically convert ").and_then(|of| of.split_once(" to ")) {
        return Some(format!("{from} is given where {} is wanted; CAST one to the other", to.trim_end_matches('.')));
    }
    if message.starts_with("Aggregate functions are not allowed in the WHERE clause") {
        return Some("WHERE cannot contain an aggregate; use HAVING".to_owned());
    }
    if message.starts_with("Aggregate function calls cannot be nested") {
        return Some("an aggregate cannot contain an aggregate".to_owned());
    }
    None
}

/// The message without what DataFusion says of its kind.
fn without_kind(message: &str) -> &str {
    const KINDS: [&str; 4] = ["Error during planning: ", "Internal error: ", "Execution error: ", "External error: "];
    let mut message = message.trim_start();
    while let Some(rest) = KINDS.iter().find_map(|kind| message.strip_prefix(kind)) {
        message = rest;
    }
    // What DataFusion holds for a fault of its own is one of the statement.
    let bug = ["\nThis issue was likely caused by a bug", " This issue was likely caused by a bug"];
    bug.iter().find_map(|bug| message.split_once(bug)).map_or(message, |(message, _)| message)
}

/// The message without the list of candidates and the trace that may follow it, its first letter small.
fn first_lines(message: &str) -> String {
    let message = in_our_words(message);
    let message = message.split("\n\n").next().unwrap_or(&message);
    let lines = message.lines().filter(|line| !line.trim_start().starts_with("Candidate")).map(str::trim).collect::<Vec<_>>();
    let text = lines.join(" ");
    let text = text.rsplit_once("Internal error: ").map_or(text.as_str(), |(_, text)| text);
    let text = without_kind(text).trim_end_matches('.').replace("Error during planning: ", "");
    let mut chars = text.chars();
    match chars.next() {
        Some(first) if chars.clone().next().is_some_and(char::is_lowercase) => first.to_lowercase().chain(chars).collect(),
        _ => text,
    }
}
