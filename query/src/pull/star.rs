//! What `*` stands for: the declared columns, and not those that every source has (`rowtime`, ...), which a query must name.
//!
//! A table shows such columns to DataFusion as soon as the query names them anywhere; here each `*` is written so that they are
//! no part of it. Pure; called by `pull/session` before planning.

use std::{collections::HashMap, ops::ControlFlow};

use datafusion::sql::sqlparser::ast::{
    ExceptSelectItem, Ident, JoinConstraint, JoinOperator, ObjectName, ObjectNamePart, Query, Select, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, TableFactor, VisitMut, VisitorMut, WildcardAdditionalOptions,
};

/// Columns of a table that are no part of its `*`, by the table's folded name.
pub(super) type Hidden = HashMap<String, Vec<String>>;

/// Takes hidden columns out of every `*` of a query.
pub(super) fn without_hidden(query: &mut Query, hidden: &Hidden) {
    struct Stars<'a>(&'a Hidden);
    impl VisitorMut for Stars<'_> {
        type Break = ();

        fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
            in_body(&mut query.body, self.0);
            ControlFlow::Continue(())
        }
    }
    if hidden.values().any(|names| !names.is_empty()) {
        let _: ControlFlow<()> = VisitMut::visit(query, &mut Stars(hidden));
    }
}

fn in_body(body: &mut SetExpr, hidden: &Hidden) {
    match body {
        SetExpr::Select(select) => in_select(select, hidden),
        SetExpr::SetOperation { left, right, .. } => {
            in_body(left, hidden);
            in_body(right, hidden);
        }
        _ => {}
    }
}

/// A relation of FROM.
struct Relation {
    name: Ident,
    /// What its `*` leaves out.
    without: Vec<Ident>,
    /// What the `*` of the whole FROM leaves out beyond that: columns of USING, which stand there once.
    shared: Vec<Ident>,
}

fn in_select(select: &mut Select, hidden: &Hidden) {
    let Some(relations) = relations(select, hidden) else { return };
    if relations.iter().all(|relation| relation.without.is_empty()) {
        return;
    }
    let mut items = Vec::with_capacity(select.projection.len());
    for mut item in std::mem::take(&mut select.projection) {
        match (&mut item, relations.as_slice()) {
            (SelectItem::Wildcard(options), [only]) => leave_out(options, &only.without),
            (SelectItem::Wildcard(options), _) => {
                for relation in &relations {
                    let mut options = options.clone();
                    leave_out(&mut options, &relation.without);
                    leave_out(&mut options, &relation.shared);
                    let name = ObjectName::from(vec![relation.name.clone()]);
                    items.push(SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options));
                }
                continue;
            }
            (SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options), _) => {
                let of =
                    |relation: &&Relation| matches!(&name.0[..], [ObjectNamePart::Identifier(ident)] if ident.value == relation.name.value);
                if let Some(relation) = relations.iter().find(of) {
                    leave_out(options, &relation.without);
                }
            }
            _ => {}
        }
        items.push(item);
    }
    select.projection = items;
}

/// The relations of FROM, in its order; none if one of them has no name.
fn relations(select: &Select, hidden: &Hidden) -> Option<Vec<Relation>> {
    let mut relations = Vec::new();
    for from in &select.from {
        relations.push(relation(&from.relation, Vec::new(), hidden)?);
        for join in &from.joins {
            relations.push(relation(&join.relation, shared(&join.join_operator), hidden)?);
        }
    }
    Some(relations)
}

fn relation(factor: &TableFactor, shared: Vec<Ident>, hidden: &Hidden) -> Option<Relation> {
    let (name, without) = match factor {
        TableFactor::Table { name, alias, .. } => {
            let ident = name.0.last()?.as_ident()?;
            let without = hidden.get(&ident.value).into_iter().flatten().map(|name| Ident::with_quote('"', name)).collect();
            (alias.as_ref().map_or(ident, |alias| &alias.name).clone(), without)
        }
        TableFactor::Derived { alias: Some(alias), .. } => (alias.name.clone(), Vec::new()),
        _ => return None,
    };
    Some(Relation { name, without, shared })
}

fn shared(operator: &JoinOperator) -> Vec<Ident> {
    let constraint = match operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint) => constraint,
        _ => return Vec::new(),
    };
    match constraint {
        JoinConstraint::Using(names) => names.iter().filter_map(|name| name.0.last()?.as_ident().cloned()).collect(),
        _ => Vec::new(),
    }
}

fn leave_out(options: &mut WildcardAdditionalOptions, names: &[Ident]) {
    match (&mut options.opt_except, names) {
        (_, []) => {}
        (Some(except), names) => except.additional_elements.extend(names.iter().cloned()),
        (none, [first, rest @ ..]) => {
            *none = Some(ExceptSelectItem { first_element: first.clone(), additional_elements: rest.to_vec() });
        }
    }
}
