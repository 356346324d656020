//! ROWTIME, ROWPARTITION and ROWOFFSET of `ksql` for DataFusion, to which tables show them in lower case; ROWTIME is milliseconds there.
//!
//! Called by `pull/session` before planning. Pure. Names in quotes are left as they are.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, DataType, Expr, Ident, Query, Select, SelectItem, SetExpr, Value, VisitMut, VisitorMut,
};

use crate::catalog::Pseudo;

/// The name that tables show, of one that `ksql` folded; none for other names.
pub(super) fn shown(ident: &Ident) -> Option<&'static str> {
    let is_called = |pseudo: &Pseudo| ident.quote_style.is_none() && ident.value == pseudo.name().to_uppercase();
    Pseudo::FOLDED.into_iter().find(is_called).map(Pseudo::name)
}

/// Writes these names in a query as its tables have them.
pub(super) fn lower(query: &mut Query) {
    struct Names;
    impl VisitorMut for Names {
        type Break = ();

        fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
            in_body(&mut query.body);
            ControlFlow::Continue(())
        }

        fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            // A time is compared with a text as one.
            match expr {
                Expr::BinaryOp { left, op, right } if is_comparison(op) => {
                    if is_text(right) {
                        rename(left);
                    } else if is_text(left) {
                        rename(right);
                    }
                }
                Expr::Between { expr, low, high, .. } if is_text(low) || is_text(high) => {
                    rename(expr);
                }
                _ => {}
            }
            ControlFlow::Continue(())
        }

        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if rename(expr) == Some(Pseudo::RowTime.name()) {
                let inner = std::mem::replace(expr, Expr::value(Value::Null));
                let data_type = DataType::BigInt(None);
                *expr = Expr::Cast { kind: CastKind::Cast, expr: Box::new(inner), data_type, array: false, format: None };
            }
            ControlFlow::Continue(())
        }
    }
    let _: ControlFlow<()> = VisitMut::visit(query, &mut Names);
}

fn in_body(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => in_select(select),
        SetExpr::SetOperation { left, right, .. } => {
            in_body(left);
            in_body(right);
        }
        _ => {}
    }
}

/// Gives such a column its name, for whoever reads this SELECT.
fn in_select(select: &mut Select) {
    for item in &mut select.projection {
        match item {
            SelectItem::UnnamedExpr(expr) => {
                if let Some(name) = last(expr).and_then(shown) {
                    *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::with_quote('"', name) };
                }
            }
            SelectItem::ExprWithAlias { alias, .. } => {
                if let Some(name) = shown(alias) {
                    *alias = Ident::with_quote('"', name);
                }
            }
            _ => {}
        }
    }
}

/// Renames such a column; tells its name.
fn rename(expr: &mut Expr) -> Option<&'static str> {
    let ident = last_mut(expr)?;
    let name = shown(ident)?;
    *ident = Ident::with_quote('"', name);
    Some(name)
}

fn last(expr: &Expr) -> Option<&Ident> {
    match expr {
        Expr::Identifier(ident) => Some(ident),
        Expr::CompoundIdentifier(parts) => parts.last(),
        _ => None,
    }
}

fn last_mut(expr: &mut Expr) -> Option<&mut Ident> {
    match expr {
        Expr::Identifier(ident) => Some(ident),
        Expr::CompoundIdentifier(parts) => parts.last_mut(),
        _ => None,
    }
}

fn is_text(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(value) if matches!(value.value, Value::SingleQuotedString(_)))
}

fn is_comparison(op: &BinaryOperator) -> bool {
    use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq)
}
