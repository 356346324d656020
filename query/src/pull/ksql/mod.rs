//! What a bounded query of `ksql` computes by the rules of its dialect: each of its expressions becomes one function, made for this query.
//!
//! Called by `pull/session` before planning. DataFusion reads, joins, groups and sorts, and sees of an expression only what it is made
//! of: columns, aggregates, window functions, subqueries. The expression itself is computed by our own operators, as in queries that
//! do not end. Left to DataFusion are plain columns and texts, places in ORDER BY, comparisons that must be true, by which it finds
//! rows and joins (`comparisons`), and expressions in forms that `ksql` does not have.

mod comparisons;
mod groups;
mod leaves;
mod names;
mod part;

use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc};

use datafusion::{
    common::ScalarValue,
    logical_expr::ScalarUDF,
    sql::sqlparser::ast::{
        BinaryOperator, Distinct, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, GroupByExpr,
        Ident, JoinConstraint, JoinOperator, ObjectName, OrderByKind, Query, Select, SelectItem, SetExpr, TableFactor, TableWithJoins,
        UnaryOperator, Value, VisitMut, VisitorMut,
    },
};
use foldlog_log::Timestamp;

use crate::{plan::Expressions, sql::sugar};
use groups::Groups;
use leaves::Leaves;
use part::Part;

pub(super) use comparisons::Comparisons;

/// What the expressions of a query mean.
pub(super) struct Meaning {
    /// Of the dialect.
    pub(super) expressions: Expressions,
    /// Values for `$1`, `$2`, ...
    pub(super) parameters: Vec<ScalarValue>,
    /// When the query began.
    pub(super) now: Timestamp,
}

/// Whether a function is one of these, which never fail by themselves.
pub(super) fn is_total(function: &ScalarUDF) -> bool {
    function.inner().is::<Part>()
}

/// Puts calls of functions in place of the expressions of a query, and gives those functions.
pub(super) fn take_out(query: &mut Query, meaning: Meaning) -> Vec<Arc<ScalarUDF>> {
    struct Queries(Parts);
    impl VisitorMut for Queries {
        type Break = ();

        fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
            query.with.iter_mut().flat_map(|with| &mut with.cte_tables).for_each(|cte| names::give(&mut cte.query.body));
            ControlFlow::Continue(())
        }

        fn pre_visit_table_factor(&mut self, relation: &mut TableFactor) -> ControlFlow<()> {
            if let TableFactor::Derived { subquery, .. } = relation {
                names::give(&mut subquery.body);
            }
            ControlFlow::Continue(())
        }

        /// Those within others come first.
        fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
            self.0.in_query(query);
            ControlFlow::Continue(())
        }
    }
    let mut queries = Queries(Parts { meaning: Arc::new(meaning), functions: BTreeMap::new() });
    let _: ControlFlow<()> = VisitMut::visit(query, &mut queries);
    queries.0.functions.into_values().collect()
}

/// The functions of one query.
struct Parts {
    meaning: Arc<Meaning>,
    /// By name, which says what each computes.
    functions: BTreeMap<String, Arc<ScalarUDF>>,
}

impl Parts {
    fn in_query(&mut self, query: &mut Query) {
        let groups = self.in_body(&mut query.body);
        if let Some(OrderByKind::Expressions(exprs)) = query.order_by.as_mut().map(|order| &mut order.kind) {
            exprs.iter_mut().for_each(|one| self.key(&mut one.expr, &groups));
        }
    }

    /// What stands behind the GROUP BY of a SELECT, as it is written.
    fn in_body(&mut self, body: &mut SetExpr) -> Groups {
        match body {
            SetExpr::Select(select) => self.in_select(select),
            SetExpr::SetOperation { left, right, .. } => {
                self.in_body(left);
                self.in_body(right);
                Groups::default()
            }
            SetExpr::Values(values) => {
                let none = Groups::default();
                values.rows.iter_mut().flat_map(|row| &mut row.content).for_each(|expr| self.argument(expr, &none));
                none
            }
            // Queries are visited by themselves, and the others have nothing to compute.
            SetExpr::Query(_) | SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) | SetExpr::Table(_) => {
                Groups::default()
            }
        }
    }

    fn in_select(&mut self, select: &mut Select) -> Groups {
        let (mut groups, none) = (Groups::default(), Groups::default());
        if let GroupByExpr::Expressions(by, _) = &mut select.group_by {
            for expr in by {
                self.group(expr, &select.projection, &mut groups);
            }
        }
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
                self.value(expr, &groups);
            }
        }
        if let Some(Distinct::On(exprs)) = &mut select.distinct {
            exprs.iter_mut().for_each(|expr| self.key(expr, &groups));
        }
        let mut arguments = Arguments { parts: self, groups: &groups, depth: 0 };
        let _: ControlFlow<()> = VisitMut::visit(&mut select.named_window, &mut arguments);
        select.from.iter_mut().for_each(|from| self.in_joins(from));
        if let Some(selection) = &mut select.selection {
            self.condition(selection, &none);
        }
        for condition in select.having.iter_mut().chain(&mut select.qualify) {
            self.condition(condition, &groups);
        }
        groups
    }

    fn in_joins(&mut self, from: &mut TableWithJoins) {
        let TableWithJoins { relation, joins } = from;
        for join in &mut *joins {
            if let Some(JoinConstraint::On(condition)) = constraint(&mut join.join_operator) {
                self.condition(condition, &Groups::default());
            }
        }
        for relation in std::iter::once(relation).chain(joins.iter_mut().map(|join| &mut join.relation)) {
            if let TableFactor::NestedJoin { table_with_joins, .. } = relation {
                self.in_joins(table_with_joins);
            }
        }
    }

    /// Something behind GROUP BY, which is a value of its own wherever it stands again.
    fn group(&mut self, expr: &mut Expr, items: &[SelectItem], groups: &mut Groups) {
        match expr {
            Expr::Rollup(sets) | Expr::Cube(sets) | Expr::GroupingSets(sets) => {
                sets.iter_mut().flatten().for_each(|expr| self.group(expr, items, groups));
            }
            expr => {
                let meant = groups::meant(expr, items);
                if !is_plain(meant) {
                    groups.insert(meant);
                }
                self.value(expr, &Groups::default());
            }
        }
    }

    /// What rows are ordered or told apart by; a number is a place in the SELECT list.
    fn key(&mut self, expr: &mut Expr, groups: &Groups) {
        if !is_number(expr) {
            self.value(expr, groups);
        }
    }

    /// What must be true. Comparisons stay, for DataFusion finds rows and joins by them: whether NULL or FALSE comes of them makes no
    /// difference here.
    fn condition(&mut self, expr: &mut Expr, groups: &Groups) {
        match expr {
            expr if groups.contain(expr) => self.value(expr, groups),
            Expr::Nested(inner) => self.condition(inner, groups),
            Expr::BinaryOp { left, op: BinaryOperator::And | BinaryOperator::Or, right } => {
                self.condition(left, groups);
                self.condition(right, groups);
            }
            Expr::BinaryOp { left, op, right } if is_comparison(op) && !is_null(left) && !is_null(right) => {
                self.value(left, groups);
                self.value(right, groups);
            }
            Expr::InList { expr, list, negated: false } if is_simple(expr) && list.iter().all(|one| is_simple(one) && !is_null(one)) => {
                list.iter_mut().for_each(|one| self.value(one, groups));
            }
            other => self.value(other, groups),
        }
    }

    /// An argument of what DataFusion computes, which wants some of them to be literals.
    fn argument(&mut self, expr: &mut Expr, groups: &Groups) {
        if !is_number(expr) {
            self.value(expr, groups);
        }
    }

    /// An expression. What stands in `groups` is a value of its own.
    fn value(&mut self, expr: &mut Expr, groups: &Groups) {
        while let Expr::Nested(inner) = expr {
            *expr = std::mem::replace(inner, Expr::value(Value::Null));
        }
        if is_plain(expr) {
            return;
        }
        let mut pattern = expr.clone();
        let Some(mut leaves) = Leaves::of(&mut pattern, groups, &self.meaning.expressions) else { return };
        for leaf in &mut leaves.all {
            self.within(leaf.argument_mut(), groups);
        }
        if let (Some(leaf), Expr::Identifier(_)) = (leaves.only(&pattern), &pattern) {
            *expr = leaf;
            return;
        }
        let part = Part::new(&pattern, &leaves, &self.meaning);
        let pattern = part.pattern().to_owned();
        let arguments = leaves.all.into_iter().map(leaves::Leaf::into_argument).collect();
        match self.functions.get(&pattern) {
            Some(known) => known.inner().downcast_ref::<Part>().into_iter().for_each(Part::stands_again),
            None => drop(self.functions.insert(pattern.clone(), Arc::new(ScalarUDF::from(part)))),
        }
        *expr = call(pattern, arguments);
    }

    /// The expressions within something that an expression is made of.
    fn within(&mut self, leaf: &mut Expr, groups: &Groups) {
        let (is_group, none) = (groups.contain(leaf), Groups::default());
        match leaf {
            // Subqueries were visited by themselves.
            Expr::InSubquery { expr, .. } => self.value(expr, groups),
            Expr::Function(function) if !is_group => {
                // A window function sees groups, an aggregate sees what is grouped.
                let groups = if function.over.is_some() { groups } else { &none };
                let mut arguments = Arguments { parts: self, groups, depth: 0 };
                let _: ControlFlow<()> = VisitMut::visit(function, &mut arguments);
            }
            // What is grouped by is the same function there and here.
            leaf if is_group => self.value(leaf, &none),
            _ => {}
        }
    }
}

/// Visits the arguments of a function that DataFusion computes, and not what stands within them.
struct Arguments<'a> {
    parts: &'a mut Parts,
    groups: &'a Groups,
    depth: usize,
}

impl VisitorMut for Arguments<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        self.depth += 1;
        if self.depth == 1 {
            self.parts.argument(expr, self.groups);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, _: &mut Expr) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }
}

fn call(name: String, arguments: Vec<Expr>) -> Expr {
    let args = arguments.into_iter().map(|argument| FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))).collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::with_quote('"', name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// What a join says of the rows that belong together.
pub(super) fn constraint(operator: &mut JoinOperator) -> Option<&mut JoinConstraint> {
    match operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint)
        | JoinOperator::CrossJoin(constraint)
        | JoinOperator::Semi(constraint)
        | JoinOperator::LeftSemi(constraint)
        | JoinOperator::RightSemi(constraint)
        | JoinOperator::Anti(constraint)
        | JoinOperator::LeftAnti(constraint)
        | JoinOperator::RightAnti(constraint)
        | JoinOperator::StraightJoin(constraint)
        | JoinOperator::AsOf { constraint, .. } => Some(constraint),
        JoinOperator::CrossApply
        | JoinOperator::OuterApply
        | JoinOperator::ArrayJoin
        | JoinOperator::LeftArrayJoin
        | JoinOperator::InnerArrayJoin => None,
    }
}

/// Whether an expression means the same in both dialects: a column, or a literal that is no number.
fn is_plain(expr: &Expr) -> bool {
    match expr {
        Expr::Identifier(_) | Expr::Wildcard(_) | Expr::QualifiedWildcard(..) => true,
        Expr::CompoundIdentifier(idents) => idents.iter().all(|ident| sugar::field(ident).is_none()),
        Expr::Value(value) => !matches!(value.value, Value::Number(..)),
        _ => false,
    }
}

fn is_number(expr: &Expr) -> bool {
    match expr {
        Expr::Value(value) => matches!(value.value, Value::Number(..)),
        Expr::UnaryOp { op: UnaryOperator::Minus | UnaryOperator::Plus, expr } => is_number(expr),
        _ => false,
    }
}

/// Whether DataFusion can find rows by it: a column or a literal.
fn is_simple(expr: &Expr) -> bool {
    is_plain(expr) || is_number(expr)
}

fn is_null(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(value) if matches!(value.value, Value::Null))
}

fn is_comparison(op: &BinaryOperator) -> bool {
    use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq)
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::{dialect::GenericDialect, parser::Parser};

    use super::*;
    use crate::sql::DialectKind;

    /// The query that is left, `#0`, `#1`, ... for marked numbers, behind the count of functions.
    fn taken_out(text: &str) -> String {
        let mut query = Parser::new(&GenericDialect {}).try_with_sql(text).unwrap().parse_query().unwrap();
        let expressions = Expressions::new().of(DialectKind::Ksql.rules());
        let meaning = Meaning { expressions, parameters: Vec::new(), now: Timestamp::new(0) };
        let made = take_out(&mut query, meaning).len();
        let left = format!("{made}: {query}");
        let pieces = left.split(leaves::MARK).enumerate();
        pieces.map(|(at, piece)| if at % 2 == 0 { piece.to_owned() } else { format!("#{piece}") }).collect()
    }

    #[test]
    fn an_expression_is_one_function_of_what_it_is_made_of() {
        for (text, told) in [
            ("SELECT A, 'x', T.B FROM T ORDER BY 1, B", "0: SELECT A, 'x', T.B FROM T ORDER BY 1, B"),
            ("SELECT A + B * 2 FROM T", "1: SELECT \"#0 + #1 * 2\"(A, B) FROM T"),
            ("SELECT A + 1, T.A + 1 FROM T", "1: SELECT \"#0 + 1\"(A), \"#0 + 1\"(T.A) FROM T"),
            ("SELECT A + 1, ROWTIME + 1 FROM T", "2: SELECT \"#0 + 1\"(A), \"#0n + 1\"(\"rowtime\") FROM T"),
            ("SELECT A + A + T.A FROM T", "1: SELECT \"#0 + #0 + #1\"(A, T.A) FROM T"),
            ("SELECT SUM(A + 1) / COUNT(*) FROM T", "2: SELECT \"#0 / #1\"(SUM(\"#0 + 1\"(A)), COUNT(*)) FROM T"),
            (
                "SELECT A + 1 AS X FROM T GROUP BY X HAVING (A + 1) * 2 > A",
                "2: SELECT \"#0 + 1\"(A) AS X FROM T GROUP BY X HAVING \"#0 * 2\"(\"#0 + 1\"(A)) > A",
            ),
            ("SELECT 1 AS X, A FROM T GROUP BY 1, A ORDER BY 1", "1: SELECT \"1\"() AS X, A FROM T GROUP BY \"1\"(), A ORDER BY 1"),
            ("SELECT SUM(A) FROM T HAVING COUNT(*) > 1", "1: SELECT SUM(A) FROM T HAVING COUNT(*) > \"1\"()"),
            (
                "SELECT UCASE(K) || 'x' FROM T GROUP BY UCASE(K) ORDER BY UCASE(K)",
                "2: SELECT \"#0 || 'x'\"(\"UCASE(#0)\"(K)) FROM T GROUP BY \"UCASE(#0)\"(K) ORDER BY \"UCASE(#0)\"(K)",
            ),
            (
                "SELECT A FROM T JOIN U ON T.A = U.B AND T.A + 1 = U.C WHERE A = 5 AND B + 1 > C ORDER BY A",
                "2: SELECT A FROM T JOIN U ON T.A = U.B AND \"#0 + 1\"(T.A) = U.C WHERE A = \"5\"() AND \"#0 + 1\"(B) > C ORDER BY A",
            ),
            ("SELECT (SELECT MAX(B) FROM U) + 1 FROM T", "1: SELECT \"#0 + 1\"((SELECT MAX(B) FROM U)) FROM T"),
            ("SELECT A + 1 IN (SELECT B + 2 FROM U) FROM T", "2: SELECT \"#0 + 1\"(A) IN (SELECT \"#0 + 2\"(B) FROM U) FROM T"),
            ("SELECT LAG(A + 1, 1) OVER (ORDER BY A) FROM T", "1: SELECT LAG(\"#0 + 1\"(A), 1) OVER (ORDER BY A) FROM T"),
            (
                "SELECT A FROM T WHERE (A IN (1, 2) OR A = 3) AND NOT B = 3",
                "4: SELECT A FROM T WHERE (A IN (\"1\"(), \"2\"()) OR A = \"3\"()) AND \"NOT #0 = 3\"(B)",
            ),
            // In a form that `ksql` does not have.
            ("SELECT A + EXTRACT(YEAR FROM B) FROM T", "0: SELECT A + EXTRACT(YEAR FROM B) FROM T"),
        ] {
            assert_eq!(taken_out(text), told, "{text}");
        }
    }
}
