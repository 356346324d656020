//! What rows are grouped by: known again wherever it stands in the SELECT list, HAVING and ORDER BY. Pure.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Ident, SelectItem, VisitMut, VisitorMut};

use crate::sql::sugar;

/// The expressions behind a GROUP BY that are more than columns, as texts without the sources of columns: who holds another one for it
/// has it computed by itself, to the same value.
#[derive(Default)]
pub(super) struct Groups {
    texts: Vec<String>,
}

impl Groups {
    pub(super) fn insert(&mut self, expr: &Expr) {
        self.texts.push(text(expr));
    }

    pub(super) fn contain(&self, expr: &Expr) -> bool {
        !self.texts.is_empty() && self.texts.contains(&text(expr))
    }
}

/// What is meant by something behind GROUP BY: the alias of an item of the SELECT list is that item.
pub(super) fn meant<'a>(expr: &'a Expr, items: &'a [SelectItem]) -> &'a Expr {
    let item = match expr {
        Expr::Nested(inner) => return meant(inner, items),
        Expr::Identifier(name) => items.iter().find(|item| alias(item).is_some_and(|alias| alias.value == name.value)),
        _ => None,
    };
    match item {
        Some(SelectItem::UnnamedExpr(meant) | SelectItem::ExprWithAlias { expr: meant, .. }) => meant,
        _ => expr,
    }
}

fn alias(item: &SelectItem) -> Option<&Ident> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(alias),
        _ => None,
    }
}

fn text(expr: &Expr) -> String {
    if let Expr::Nested(inner) = expr {
        return text(inner);
    }
    let mut bare = expr.clone();
    let _: ControlFlow<()> = VisitMut::visit(&mut bare, &mut WithoutSources);
    bare.to_string()
}

struct WithoutSources;

impl VisitorMut for WithoutSources {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::CompoundIdentifier(idents) = expr
            && idents.get(1).is_some_and(|second| sugar::field(second).is_none())
        {
            idents.drain(..1);
            if let [one] = idents.as_slice() {
                *expr = Expr::Identifier(one.clone());
            }
        }
        ControlFlow::Continue(())
    }
}
