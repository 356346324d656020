//! What the columns of an answer are called: as in queries that do not end, and not as DataFusion shows their expressions.
//!
//! Called by `pull` when a query was planned. Pure.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::sql::sqlparser::ast::{Query, SelectItem, SetExpr};

use crate::{
    plan::{fault, own_name},
    sql::DialectKind,
};

/// The schema of an answer with the names that its query gives its columns. Two may have the same.
pub(super) fn given(schema: &SchemaRef, query: &Query, dialect: DialectKind) -> SchemaRef {
    let (rules, items) = (dialect.rules(), items(&query.body));
    let count = schema.fields().len();
    let mut names: Vec<String> = schema.fields().iter().map(|field| fault::in_our_words(field.name())).collect();
    for (item, at) in items.iter().zip(places(items, count)) {
        if let (SelectItem::UnnamedExpr(expr), Some(at)) = (item, at) {
            let is_taken = |name: &str| names.iter().take(at).any(|other| other == name);
            let own = own_name(expr, at, &is_taken, rules);
            names.iter_mut().skip(at).take(1).for_each(|name| name.clone_from(&own));
        }
    }
    let named = |(field, name): (&Arc<Field>, String)| Field::clone(field).with_name(name);
    Arc::new(Schema::new(schema.fields().iter().zip(names).map(named).collect::<Vec<_>>()))
}

/// The SELECT list that names the columns of a query: that of its first SELECT.
fn items(body: &SetExpr) -> &[SelectItem] {
    match body {
        SetExpr::Select(select) => &select.projection,
        SetExpr::SetOperation { left, .. } => items(left),
        SetExpr::Query(query) => items(&query.body),
        _ => &[],
    }
}

/// Which of so many columns each item is; none for a `*`, and for what stands between two of them.
fn places(items: &[SelectItem], count: usize) -> Vec<Option<usize>> {
    let is_star = |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
    let first = items.iter().position(is_star);
    let last = items.iter().rposition(is_star);
    let place = |at: usize| match (first, last) {
        (Some(first), Some(last)) if at >= first => (at > last).then(|| count.checked_sub(items.len() - at)).flatten(),
        _ => Some(at),
    };
    (0..items.len()).map(place).collect()
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;
    use datafusion::sql::sqlparser::{dialect::GenericDialect, parser::Parser};

    use super::*;

    /// The names of an answer whose columns DataFusion calls so.
    fn named(text: &str, theirs: &[&str], dialect: DialectKind) -> Vec<String> {
        let query = Parser::new(&GenericDialect {}).try_with_sql(text).unwrap().parse_query().unwrap();
        let fields = theirs.iter().map(|name| Field::new(*name, DataType::Int64, true)).collect::<Vec<_>>();
        given(&Arc::new(Schema::new(fields)), &query, dialect).fields().iter().map(|field| field.name().clone()).collect()
    }

    #[test]
    fn a_column_is_called_as_in_queries_that_do_not_end() {
        let standard = |text, theirs: &[&str]| named(text, theirs, DialectKind::Standard);
        let theirs = ["Int64(1)", "t.a + Int64(1)", "sum(t.b)", "t.a", "n", "CAST(t.a AS Utf8)"];
        assert_eq!(
            standard("SELECT 1, a + 1, SUM(b), t.a, b AS n, CAST(a AS VARCHAR) FROM t", &theirs),
            ["column_1", "column_2", "sum", "a", "n", "a"]
        );
        assert_eq!(named("SELECT 1, 2, \"A\" FROM t", &["x", "y", "A"], DialectKind::Ksql), ["KSQL_COL_0", "KSQL_COL_1", "A"]);
        assert_eq!(standard("WITH x AS (SELECT 1) (SELECT 2 UNION ALL SELECT 3 AS b)", &["Int64(2)"]), ["column_1"]);
    }

    #[test]
    fn a_star_stands_for_what_is_left() {
        let theirs = ["Int64(1)", "a", "b", "Int64(2)"];
        let of = |text| named(text, &theirs, DialectKind::Standard);
        assert_eq!(of("SELECT 1, *, 2 FROM t"), ["column_1", "a", "b", "column_4"]);
        assert_eq!(of("SELECT 1, t.*, u.*, 2 FROM t, u"), ["column_1", "a", "b", "column_4"]);
        // Nobody knows which one stands between them.
        assert_eq!(
            named("SELECT t.*, 1 + 1, u.* FROM t, u", &["a", "Int64(1) + Int64(1)", "b"], DialectKind::Standard),
            ["a", "1 + 1", "b"]
        );
    }
}
