//! Bare units of time in calls: `DATEADD(DAYS, 3, d)` names no column `days`.
//!
//! DataFusion's planner would look for one, so that a statement is rewritten before it is planned there. The functions take the
//! unit as text.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Value, VisitMut, visit_expressions_mut,
};

use super::find;

const UNITS: [&str; 10] = ["MILLISECOND", "MILLISECONDS", "SECOND", "SECONDS", "MINUTE", "MINUTES", "HOUR", "HOURS", "DAY", "DAYS"];

/// Whether a bare word is a unit of time.
#[must_use]
pub fn is_unit(word: &str) -> bool {
    UNITS.iter().any(|unit| unit.eq_ignore_ascii_case(word))
}

/// Turns the bare units among the arguments of our functions into text.
pub(crate) fn as_texts(statement: &mut impl VisitMut) {
    let _: ControlFlow<()> = visit_expressions_mut(statement, |expr| {
        if let Expr::Function(call) = expr {
            of_call(call);
        }
        ControlFlow::Continue(())
    });
}

fn of_call(call: &mut ast::Function) {
    let Some(function) = find(&call.name.to_string()) else { return };
    let FunctionArguments::List(list) = &mut call.args else { return };
    for (_, argument) in list.args.iter_mut().enumerate().filter(|(at, _)| function.takes_unit(*at)) {
        let FunctionArg::Unnamed(FunctionArgExpr::Expr(given)) = argument else { continue };
        if let Expr::Identifier(word) = given
            && word.quote_style.is_none()
            && is_unit(&word.value)
        {
            let unit = Value::SingleQuotedString(word.value.to_uppercase());
            *given = Expr::Value(unit.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::{dialect::GenericDialect, parser::Parser};

    use super::*;

    #[test]
    fn only_the_unit_of_a_call_becomes_text() {
        let mut written =
            Parser::new(&GenericDialect {}).try_with_sql("dateadd(days, Hours, timeadd(\"days\", 1, days))").unwrap().parse_expr().unwrap();
        as_texts(&mut written);
        assert_eq!(written.to_string(), "dateadd('DAYS', Hours, timeadd(\"days\", 1, days))");
        assert!(is_unit("Minutes") && !is_unit("weeks"));
    }
}
