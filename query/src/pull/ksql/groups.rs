//! What rows are grouped by: known again wherever it stands in the SELECT list, HAVING and ORDER BY. Pure.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Select, TableFactor, VisitMut, VisitorMut};

/// The expressions behind a GROUP BY that are more than columns.
#[derive(Default)]
pub(super) struct Groups {
    texts: Vec<String>,
    /// What the only relation is called: its columns are the same with and without it.
    source: Option<String>,
}

impl Groups {
    /// None yet, of a SELECT.
    pub(super) fn of(select: &Select) -> Self {
        let source = match select.from.as_slice() {
            [only] if only.joins.is_empty() => match &only.relation {
                TableFactor::Table { alias: Some(alias), .. } | TableFactor::Derived { alias: Some(alias), .. } => {
                    Some(alias.name.value.clone())
                }
                TableFactor::Table { name, .. } => name.0.last().and_then(|part| part.as_ident()).map(|ident| ident.value.clone()),
                _ => None,
            },
            _ => None,
        };
        Self { texts: Vec::new(), source }
    }

    pub(super) fn insert(&mut self, expr: &Expr) {
        self.texts.push(self.text(expr));
    }

    pub(super) fn contain(&self, expr: &Expr) -> bool {
        !self.texts.is_empty() && self.texts.contains(&self.text(expr))
    }

    fn text(&self, expr: &Expr) -> String {
        let Some(source) = &self.source else { return expr.to_string() };
        let mut bare = expr.clone();
        let _: ControlFlow<()> = VisitMut::visit(&mut bare, &mut WithoutSource(source));
        bare.to_string()
    }
}

struct WithoutSource<'a>(&'a str);

impl VisitorMut for WithoutSource<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::CompoundIdentifier(idents) = expr
            && idents.first().is_some_and(|first| first.value == self.0)
        {
            idents.drain(..1);
            if let [one] = idents.as_slice() {
                *expr = Expr::Identifier(one.clone());
            }
        }
        ControlFlow::Continue(())
    }
}
