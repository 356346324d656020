//! What the columns of a query within another one are called: as those of an answer, for whoever reads it. Pure.

use datafusion::sql::sqlparser::ast::{Expr, Ident, SelectItem, SetExpr};

use crate::{
    plan::own_name,
    sql::{DialectKind, sugar},
};

/// Gives a name to what has none in the SELECT list that names the columns.
pub(super) fn give(body: &mut SetExpr) {
    let items = match body {
        SetExpr::Select(select) => &mut select.projection,
        SetExpr::SetOperation { left, .. } => return give(left),
        SetExpr::Query(query) => return give(&mut query.body),
        SetExpr::Values(_) | SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) | SetExpr::Table(_) => return,
    };
    let rules = DialectKind::Ksql.rules();
    let mut taken: Vec<String> = items.iter().filter_map(written).collect();
    for (at, item) in items.iter_mut().enumerate() {
        if written(item).is_some() {
            continue;
        }
        if let SelectItem::UnnamedExpr(expr) = item {
            let name = own_name(expr, at, &|name| taken.iter().any(|other| other == name), rules);
            if name != sugar::ALL_FIELDS {
                taken.push(name.clone());
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::with_quote('"', name) };
            }
        }
    }
}

/// The name that stands there: an alias, or that of a column.
fn written(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } | SelectItem::UnnamedExpr(Expr::Identifier(alias)) => Some(alias.value.clone()),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(idents)) => {
            idents.last().filter(|last| sugar::field(last).is_none()).map(|last| last.value.clone())
        }
        _ => None,
    }
}
