//! What a column without AS is called.
//!
//! Called for the SELECT list of every query: `plan/select` for those that do not end, `pull/names` for those that do. Pure.

use datafusion::sql::sqlparser::ast;

use crate::sql::{Dialect, DialectKind, sugar};

/// The name of a column without AS: that of the column, field or function, else a number in the order of the list. `before` says how many
/// columns stand before it, `is_taken` which names others have.
pub(crate) fn own_name(expr: &ast::Expr, before: usize, is_taken: &dyn Fn(&str) -> bool, dialect: Dialect) -> String {
    let last = |ident: &ast::Ident| sugar::field(ident).map_or_else(|| dialect.name(ident), str::to_owned);
    match (expr, dialect.kind) {
        (ast::Expr::Identifier(ident), _) => dialect.name(ident),
        (ast::Expr::CompoundIdentifier(idents), DialectKind::Standard) => idents.last().map_or_else(String::new, last),
        (ast::Expr::CompoundIdentifier(idents), DialectKind::Ksql) => {
            let name = idents.last().map_or_else(String::new, last);
            let is_field = idents.last().is_some_and(|ident| sugar::field(ident).is_some());
            if is_field { unique(&name, is_taken) } else { name }
        }
        (ast::Expr::CompoundFieldAccess { access_chain, .. }, DialectKind::Ksql) => match access_chain.last() {
            Some(ast::AccessExpr::Dot(ast::Expr::Identifier(ident))) => unique(&last(ident), is_taken),
            _ => numbered(is_taken),
        },
        (ast::Expr::Nested(expr), _) => own_name(expr, before, is_taken, dialect),
        (ast::Expr::Function(call), DialectKind::Standard) => call.name.to_string().to_lowercase(),
        (ast::Expr::Cast { expr, .. }, DialectKind::Standard) => own_name(expr, before, is_taken, dialect),
        (_, DialectKind::Standard) => format!("column_{}", before + 1),
        (_, DialectKind::Ksql) => numbered(is_taken),
    }
}

/// `KSQL_COL_n`, with the first number that names no other column.
pub(super) fn numbered(is_taken: &dyn Fn(&str) -> bool) -> String {
    let mut names = (0..).map(|number| format!("KSQL_COL_{number}"));
    names.find(|name| !is_taken(name)).unwrap_or_default()
}

/// The name of a field, with the first number that makes it that of no other column.
fn unique(name: &str, is_taken: &dyn Fn(&str) -> bool) -> String {
    let mut names = std::iter::once(name.to_owned()).chain((1..).map(|number| format!("{name}_{number}")));
    names.find(|name| !is_taken(name)).unwrap_or_default()
}
