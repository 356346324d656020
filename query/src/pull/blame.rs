//! Which part of a query it is that cannot be planned: DataFusion says what is wrong, and mostly not where.
//!
//! Called by `pull/session` when planning failed. Parts of the query are planned alone over the same tables: the one that is at fault
//! fails as the whole did, and the innermost such part is where the mistake stands. Nothing is run, and it ends after a bounded number
//! of attempts and a bounded time.

use std::{ops::ControlFlow, time::Duration};

use datafusion::{
    common::ScalarValue,
    execution::SessionState,
    sql::sqlparser::ast::{
        Cte, Expr, GroupByExpr, JoinConstraint, OrderByKind, Query, Select, SelectItem, SetExpr, Value, Visit, Visitor, With,
        helpers::attached_token::AttachedToken,
    },
};
use tokio::time::Instant;

use super::{ksql, session::physical};
use crate::{
    error::{Place, QueryError},
    sql::place_of_expr,
    stack::with_stack,
};

/// Most parts that are planned.
const MOST_ATTEMPTS: usize = 64;
/// Longest time for all of them.
const LONGEST: Duration = Duration::from_millis(250);

/// Where in a query stands what fails with `error`, if that can be found.
pub(super) async fn place_of(query: &Query, error: &QueryError, state: &SessionState, parameters: &[ScalarValue]) -> Option<Place> {
    let mut attempts = Attempts { state, parameters, wanted: error.to_string(), began: Instant::now(), made: 0 };
    for part in with_stack(|| parts(query)) {
        let nothing = Expr::value(Value::Boolean(true));
        for (expr, stands) in &part.exprs {
            if !attempts.fails_alike(&part.probe(expr, *stands)).await {
                continue;
            }
            if attempts.fails_alike(&part.probe(&nothing, Stands::Listed)).await {
                // What it reads is at fault.
                break;
            }
            for inner in with_stack(|| innermost_first(expr)) {
                if attempts.fails_alike(&part.probe(&inner, *stands)).await {
                    return place_of_expr(&inner).or_else(|| place_of_expr(expr));
                }
            }
            return place_of_expr(expr);
        }
    }
    None
}

/// Plans parts until it has taken too long.
struct Attempts<'a> {
    state: &'a SessionState,
    parameters: &'a [ScalarValue],
    /// How the whole fails.
    wanted: String,
    began: Instant,
    made: usize,
}

impl Attempts<'_> {
    /// Whether a part fails as the whole does.
    async fn fails_alike(&mut self, probe: &Query) -> bool {
        self.made += 1;
        if self.made > MOST_ATTEMPTS || self.began.elapsed() > LONGEST {
            return false;
        }
        physical(self.state, probe, self.parameters).await.is_err_and(|error| error.to_string() == self.wanted)
    }
}

/// Where an expression is put to be planned alone.
#[derive(Clone, Copy)]
enum Stands {
    /// In the SELECT list.
    Listed,
    /// Behind WHERE, where less is allowed.
    Condition,
}

/// A SELECT within a query, and the expressions that stand in it.
struct Part {
    with: Option<With>,
    select: Select,
    exprs: Vec<(Expr, Stands)>,
}

impl Part {
    /// A query of one expression over the same tables and groups.
    fn probe(&self, expr: &Expr, stands: Stands) -> Query {
        let (listed, selection) = match stands {
            Stands::Listed => (expr.clone(), None),
            Stands::Condition => (Expr::value(Value::Boolean(true)), Some(expr.clone())),
        };
        let select = Select { projection: vec![SelectItem::UnnamedExpr(listed)], selection, ..self.select.clone() };
        let mut query = bare(SetExpr::Select(Box::new(select)));
        query.with.clone_from(&self.with);
        query
    }
}

/// Every SELECT of a query, those before that others read.
fn parts(query: &Query) -> Vec<Part> {
    let mut parts = Vec::new();
    enter_query(query, &[], &mut parts);
    parts
}

/// Enters the SELECTs of a query within which some CTEs are known.
fn enter_query(query: &Query, outer: &[Cte], parts: &mut Vec<Part>) {
    if parts.len() >= MOST_ATTEMPTS {
        return;
    }
    let mut known = outer.to_vec();
    for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
        enter_query(&cte.query, &known, parts);
        known.push(cte.clone());
    }
    let order = match query.order_by.as_ref().map(|order| &order.kind) {
        Some(OrderByKind::Expressions(exprs)) => exprs.iter().map(|one| one.expr.clone()).collect(),
        Some(OrderByKind::All(_)) | None => Vec::new(),
    };
    enter_body(&query.body, &known, order, parts);
}

fn enter_body(body: &SetExpr, known: &[Cte], order: Vec<Expr>, parts: &mut Vec<Part>) {
    match body {
        SetExpr::Select(select) => {
            let mut inner = Inner { known, depth: 0, parts };
            let _: ControlFlow<()> = select.visit(&mut inner);
            parts.extend(part(select, known, order));
        }
        SetExpr::Query(query) => enter_query(query, known, parts),
        SetExpr::SetOperation { left, right, .. } => {
            enter_body(left, known, Vec::new(), parts);
            enter_body(right, known, Vec::new(), parts);
        }
        // They have no expressions over columns.
        SetExpr::Values(_) | SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) | SetExpr::Table(_) => {}
    }
}

/// Enters the queries that stand in a SELECT; those within these are entered with them.
struct Inner<'a> {
    known: &'a [Cte],
    depth: usize,
    parts: &'a mut Vec<Part>,
}

impl Visitor for Inner<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if self.depth == 0 {
            enter_query(query, self.known, self.parts);
        }
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }
}

/// A SELECT as one part, and, if it has groups, its conditions of rows as another one without them.
fn part(select: &Select, known: &[Cte], order: Vec<Expr>) -> Vec<Part> {
    let with = Some(known).filter(|known| !known.is_empty()).map(|known| With {
        with_token: AttachedToken::empty(),
        recursive: false,
        cte_tables: known.to_vec(),
    });
    let mut over = select.clone();
    over.distinct = None;
    let mut rows: Vec<(Expr, Stands)> = Vec::new();
    for join in over.from.iter_mut().flat_map(|from| &mut from.joins) {
        if let Some(JoinConstraint::On(condition)) = ksql::constraint(&mut join.join_operator) {
            rows.push((std::mem::replace(condition, Expr::value(Value::Boolean(true))), Stands::Listed));
        }
    }
    let condition = over.selection.take();
    rows.extend(condition.iter().flat_map(|condition| [(condition.clone(), Stands::Listed), (condition.clone(), Stands::Condition)]));
    let listed = over.projection.drain(..).filter_map(|item| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
        _ => None,
    });
    let listed = listed.chain(over.having.take()).chain(order).map(|expr| (expr, Stands::Listed)).collect::<Vec<_>>();
    let by = std::mem::replace(&mut over.group_by, GroupByExpr::Expressions(Vec::new(), Vec::new()));
    match by {
        GroupByExpr::Expressions(by, modifiers) if by.is_empty() && modifiers.is_empty() => {
            rows.extend(listed);
            vec![Part { with, select: over, exprs: rows }]
        }
        by => {
            if let GroupByExpr::Expressions(exprs, _) = &by {
                rows.extend(exprs.iter().map(|expr| (expr.clone(), Stands::Listed)));
            }
            let grouped = Select { group_by: by, ..over.clone() };
            vec![Part { with: with.clone(), select: over, exprs: rows }, Part { with, select: grouped, exprs: listed }]
        }
    }
}

/// The expressions within an expression that can fail, each behind those within it; without the whole.
fn innermost_first(expr: &Expr) -> Vec<Expr> {
    struct Within(Vec<Expr>);
    impl Visitor for Within {
        type Break = ();

        fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            if !matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Value(_)) {
                self.0.push(expr.clone());
            }
            ControlFlow::Continue(())
        }
    }
    let mut within = Within(Vec::new());
    let _: ControlFlow<()> = expr.visit(&mut within);
    within.0.pop();
    within.0
}

/// A query of nothing but a body.
fn bare(body: SetExpr) -> Query {
    Query {
        with: None,
        body: Box::new(body),
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks: Vec::new(),
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators: Vec::new(),
    }
}
