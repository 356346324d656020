//! What an expression is made of: columns, and what DataFusion computes within it. Pure.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgOperator, FunctionArguments, Ident, UnaryOperator,
    Value, VisitMut, VisitorMut,
};

use super::groups::Groups;
use crate::{plan::Expressions, pull::row_names, sql::sugar};

/// Stands around the number of a leaf in a pattern; no statement contains it.
pub(super) const MARK: char = '\0';
/// Follows the number of a column of every record, whose meaning hangs on its name.
const NAMED: char = 'n';

/// Something that an expression is made of.
pub(super) struct Leaf {
    /// As a column is written: with its source before it, perhaps. None of something that DataFusion computes.
    names: Option<Vec<Ident>>,
    /// What the function gets.
    argument: Expr,
}

impl Leaf {
    pub(super) fn into_argument(self) -> Expr {
        self.argument
    }

    pub(super) fn argument_mut(&mut self) -> &mut Expr {
        &mut self.argument
    }

    /// The names of a column.
    pub(super) fn names(&self) -> Option<&[Ident]> {
        self.names.as_deref()
    }
}

/// Everything that an expression is made of.
#[derive(Default)]
pub(super) struct Leaves {
    /// In the order of their numbers.
    pub(super) all: Vec<Leaf>,
}

impl Leaves {
    /// Puts marked numbers in place of what an expression is made of, and gives that. None if it has a form that `ksql` does not have.
    pub(super) fn of(expr: &mut Expr, groups: &Groups, expressions: &Expressions) -> Option<Self> {
        let mut finder = Finder { leaves: Self::default(), groups, expressions, bound: Vec::new(), held: Vec::new() };
        VisitMut::visit(expr, &mut finder).is_continue().then_some(finder.leaves)
    }

    /// What it is made of, if that is one thing alone.
    pub(super) fn only(&mut self, pattern: &Expr) -> Option<Expr> {
        let Expr::Identifier(ident) = pattern else { return None };
        if number(ident) == Some(0) && self.all.len() == 1 { self.all.pop().map(Leaf::into_argument) } else { None }
    }

    fn column(&mut self, names: &[Ident]) -> Ident {
        let at = self.all.iter().position(|leaf| leaf.names.as_deref() == Some(names));
        let at = at.unwrap_or_else(|| {
            let mut shown = names.to_vec();
            // A time is one here, and milliseconds where the expression says so.
            if let Some(last) = shown.last_mut()
                && let Some(name) = row_names::shown(last)
            {
                *last = Ident::with_quote('"', name);
            }
            let argument = match shown.as_slice() {
                [one] => Expr::Identifier(one.clone()),
                _ => Expr::CompoundIdentifier(shown.clone()),
            };
            self.all.push(Leaf { names: Some(names.to_vec()), argument });
            self.all.len() - 1
        });
        placeholder(at, names.last().is_some_and(|last| row_names::shown(last).is_some()))
    }

    fn computed(&mut self, argument: Expr) -> Ident {
        self.all.push(Leaf { names: None, argument });
        placeholder(self.all.len() - 1, false)
    }
}

fn placeholder(at: usize, is_named: bool) -> Ident {
    let named = if is_named { NAMED.to_string() } else { String::new() };
    Ident::new(format!("{MARK}{at}{named}{MARK}"))
}

/// The number of a leaf, of the name that stands for it.
pub(super) fn number(ident: &Ident) -> Option<usize> {
    let between = ident.value.strip_prefix(MARK)?.strip_suffix(MARK)?;
    if ident.quote_style.is_some() { None } else { marked(between).map(|(at, _)| at) }
}

/// The number between two marks, and whether it is of a column of every record.
pub(super) fn marked(between: &str) -> Option<(usize, bool)> {
    let digits = between.strip_suffix(NAMED);
    digits.unwrap_or(between).parse().ok().map(|at| (at, digits.is_some()))
}

/// Finds leaves; ends early at a form that `ksql` does not have.
struct Finder<'a> {
    leaves: Leaves,
    groups: &'a Groups,
    expressions: &'a Expressions,
    /// Parameters of the lambdas around.
    bound: Vec<String>,
    /// Bodies of lambdas that were looked into already, until their call has been.
    held: Vec<Vec<Expr>>,
}

impl Finder<'_> {
    /// The columns in the name, if it is one.
    fn column(&mut self, idents: &mut Vec<Ident>) -> ControlFlow<()> {
        let plain = idents.iter().position(|ident| sugar::field(ident).is_some()).unwrap_or(idents.len());
        let Some(first) = idents.first() else { return ControlFlow::Continue(()) };
        if self.bound.contains(&first.value) || number(first).is_some() {
            return ControlFlow::Continue(());
        }
        if plain == 0 || plain > 2 {
            return ControlFlow::Break(());
        }
        let names: Vec<Ident> = idents.drain(..plain).collect();
        idents.insert(0, self.leaves.column(&names));
        ControlFlow::Continue(())
    }

    /// Looks into the bodies of the lambdas of a call, each with its parameters.
    fn lambdas(&mut self, call: &mut Function) -> ControlFlow<()> {
        let mut bodies = Vec::new();
        for (parameters, body) in lambdas(call) {
            let mut body = std::mem::replace(body, Expr::value(Value::Null));
            let count = self.bound.len();
            self.bound.extend(parameters);
            VisitMut::visit(&mut body, self)?;
            self.bound.truncate(count);
            bodies.push(body);
        }
        self.held.push(bodies);
        ControlFlow::Continue(())
    }

    /// Whether a call is computed by DataFusion: an aggregate or window function.
    fn is_foreign(&self, call: &Function) -> bool {
        let is_bare = call.over.is_none() && call.filter.is_none() && call.null_treatment.is_none() && call.within_group.is_empty();
        !is_bare || !self.expressions.is_scalar(&call.name.to_string())
    }
}

impl VisitorMut for Finder<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let is_group = self.groups.contain(expr);
        let is_foreign = match &*expr {
            Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => true,
            Expr::Function(call) => self.is_foreign(call),
            _ => false,
        };
        if is_group || is_foreign {
            if !self.bound.is_empty() {
                return ControlFlow::Break(());
            }
            let argument = std::mem::replace(expr, Expr::value(Value::Null));
            *expr = Expr::Identifier(self.leaves.computed(argument));
            return ControlFlow::Continue(());
        }
        match expr {
            Expr::Identifier(ident) => {
                let mut idents = vec![ident.clone()];
                self.column(&mut idents)?;
                idents.into_iter().for_each(|one| *ident = one);
            }
            Expr::CompoundIdentifier(idents) => {
                self.column(idents)?;
                if let [one] = idents.as_slice() {
                    *expr = Expr::Identifier(one.clone());
                }
            }
            Expr::Function(call) => self.lambdas(call)?,
            other if !is_known(other) => return ControlFlow::Break(()),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Function(call) = expr {
            let bodies = self.held.pop().unwrap_or_default();
            for ((_, place), body) in lambdas(call).into_iter().zip(bodies) {
                *place = body;
            }
        }
        ControlFlow::Continue(())
    }
}

/// The lambdas among the arguments of a call: parameters and body.
fn lambdas(call: &mut Function) -> Vec<(Vec<String>, &mut Expr)> {
    let FunctionArguments::List(list) = &mut call.args else { return Vec::new() };
    let mut found = Vec::new();
    for argument in &mut list.args {
        if let FunctionArg::Named { name, arg: FunctionArgExpr::Expr(body), operator: FunctionArgOperator::RightArrow } = argument {
            found.push((sugar::parameters(name), body));
        }
    }
    found
}

/// Whether `plan/resolve` knows the form.
fn is_known(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(_)
        | Expr::Value(_)
        | Expr::CompoundFieldAccess { .. }
        | Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::IsTrue(_)
        | Expr::IsFalse(_)
        | Expr::IsNotTrue(_)
        | Expr::IsNotFalse(_)
        | Expr::IsDistinctFrom(..)
        | Expr::IsNotDistinctFrom(..)
        | Expr::Between { .. }
        | Expr::InList { .. }
        | Expr::Like { any: false, .. }
        | Expr::Case { .. }
        | Expr::Cast { kind: CastKind::Cast | CastKind::DoubleColon, format: None, .. }
        | Expr::Array(_)
        | Expr::Ceil { .. }
        | Expr::Floor { .. }
        | Expr::Trim { trim_where: None, trim_what: None, trim_characters: None, .. }
        | Expr::Substring { substring_from: Some(_), .. }
        | Expr::TypedString(_) => true,
        Expr::UnaryOp { op, .. } => matches!(op, UnaryOperator::Plus | UnaryOperator::Minus | UnaryOperator::Not),
        Expr::BinaryOp { op, .. } => {
            use BinaryOperator::{And, Divide, Eq, Gt, GtEq, Lt, LtEq, Minus, Modulo, Multiply, NotEq, Or, Plus, StringConcat};
            matches!(op, Plus | Minus | Multiply | Divide | Modulo | StringConcat | And | Or | Eq | NotEq | Lt | LtEq | Gt | GtEq)
        }
        _ => false,
    }
}
