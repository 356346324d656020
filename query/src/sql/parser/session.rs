//! SET, UNSET, DEFINE and UNDEFINE.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::StatementParser;
use crate::{
    error::QueryError,
    sql::{
        session::{SessionChange, check_variable},
        statement::Statement,
        tokens::unexpected,
    },
};

impl StatementParser<'_> {
    /// `SET 'name' = 'value'`, `UNSET 'name'`, `DEFINE name = 'value'`, `UNDEFINE name`.
    pub(super) fn session(&mut self, verb: &str) -> Result<Statement, QueryError> {
        self.parser.next_token();
        let is_setting = verb.ends_with("SET");
        let mut place = self.place();
        let name = if is_setting { self.text("the name of a setting in quotes")? } else { self.as_is("the name of a variable")? };
        let change = match verb {
            "UNSET" => SessionChange::Unset { name },
            "UNDEFINE" => SessionChange::Undefine { name },
            _ => {
                if !is_setting {
                    check_variable(&name).map_err(|error| error.at(|| Some(place)))?;
                }
                self.expect(&Token::Eq)?;
                place = self.place();
                let value = self.text("a value in quotes")?;
                if is_setting { SessionChange::Set { name, value } } else { SessionChange::Define { name, value } }
            }
        };
        Ok(Statement::Session { change, place })
    }

    /// A string in quotes.
    pub(super) fn text(&mut self, wanted: &str) -> Result<String, QueryError> {
        let next = self.parser.next_token();
        match next.token {
            Token::SingleQuotedString(text) => Ok(text),
            _ => Err(unexpected(wanted, Some(&next), next.span.start)),
        }
    }

    /// A word; the case of a variable's name means nothing.
    fn as_is(&mut self, wanted: &str) -> Result<String, QueryError> {
        let next = self.parser.next_token();
        match next.token {
            Token::Word(word) => Ok(word.value.to_lowercase()),
            _ => Err(unexpected(wanted, Some(&next), next.span.start)),
        }
    }
}
