//! Parameters of a statement, `$1`, `$2`, ...: as many as it names must be given, and no more.
//!
//! Called by `engine` before a statement is planned. Values are never put into the text: they reach expressions as they are.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::tokens::{place_of, tokenize};
use crate::error::QueryError;

/// Most parameters of a statement.
const MOST: usize = 10_000;

/// Checks that a statement has as many values as it names parameters; one that starts a query that `goes_on` takes none.
///
/// # Errors
/// [`QueryError::Invalid`] for another number, [`QueryError::Syntax`] for a parameter that is written in another way.
pub fn check_parameters(text: &str, given: usize, goes_on: bool) -> Result<(), QueryError> {
    if given == 0 && !text.contains(['$', '?', ':', '@']) {
        return Ok(());
    }
    let mut highest = 0;
    for one in tokenize(text)? {
        let Token::Placeholder(id) = &one.token else { continue };
        let number = id.strip_prefix('$').and_then(|digits| digits.parse::<usize>().ok()).filter(|number| (1..=MOST).contains(number));
        let Some(number) = number else {
            let message = format!("expected a parameter as $1, $2, ..., found {id}");
            return Err(QueryError::Syntax { place: place_of(one.span.start), message });
        };
        highest = highest.max(number);
    }
    let values = |count: usize| if count == 1 { "1 value".to_owned() } else { format!("{count} values") };
    if goes_on && highest + given > 0 {
        let reason = "a query that goes on is kept as it is written and takes no parameters; write its values, or DEFINE them";
        return Err(QueryError::Invalid(reason.to_owned()));
    }
    match (highest, given) {
        (highest, given) if highest == given => Ok(()),
        (0, given) => Err(QueryError::Invalid(format!("the statement has no parameters, {} given", values(given)))),
        (highest, given) => Err(QueryError::Invalid(format!("the statement has parameters up to ${highest}, {} given", values(given)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_values_as_parameters() {
        let told = |text: &str, given: usize| check_parameters(text, given, false).map_err(|error| error.to_string());
        assert_eq!(told("SELECT 1", 0), Ok(()));
        assert_eq!(told("SELECT $1, '$3', $2, $1 -- $4", 2), Ok(()));
        assert_eq!(told("SELECT $2", 1).unwrap_err(), "the statement has parameters up to $2, 1 value given");
        assert_eq!(told("SELECT $1", 0).unwrap_err(), "the statement has parameters up to $1, 0 values given");
        assert_eq!(told("SELECT 1", 3).unwrap_err(), "the statement has no parameters, 3 values given");
        assert_eq!(told("SELECT ?", 1).unwrap_err(), "line 1, column 8: expected a parameter as $1, $2, ..., found ?");
        assert_eq!(told("SELECT\n $0", 1).unwrap_err(), "line 2, column 2: expected a parameter as $1, $2, ..., found $0");
        assert!(check_parameters("CREATE STREAM t AS SELECT 1 FROM s", 0, true).is_ok());
        assert!(check_parameters("CREATE STREAM t AS SELECT $1 FROM s", 0, true).unwrap_err().to_string().contains("takes no parameters"));
        assert!(told("SELECT $99999999999999999999", 1).unwrap_err().contains("expected a parameter"));
    }
}
