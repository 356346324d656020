//! An expression of `ksql` as a function of DataFusion, made for one query.
//!
//! It is known by its pattern, the expression with marked numbers for what it is made of, so that two of one pattern compute the same
//! and DataFusion takes them for equal where their arguments are. What it means is known when the types of its arguments are.

use std::{
    fmt,
    fmt::Write as _,
    hash::{Hash, Hasher},
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arrow::{
    array::ArrayRef,
    datatypes::{DataType, Field},
    record_batch::{RecordBatch, RecordBatchOptions},
};
use datafusion::{
    common::{DFSchema, DataFusionError, Result, ScalarValue, TableReference},
    logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility},
    sql::sqlparser::ast::{self, Ident, VisitMut, VisitorMut},
};
use parking_lot::Mutex;

use super::{
    Meaning,
    leaves::{Leaves, MARK, marked, number},
};
use crate::{catalog::types::kept_as, error::QueryError, plan::Expression, pull::row_names};

/// Functions whose value is another one in each row.
const VARYING: [&str; 2] = ["random", "uuid"];

/// See the head of this file.
pub(super) struct Part {
    /// The pattern alone, by which DataFusion finds it.
    patterns: [String; 1],
    /// As EXPLAIN shows it, `_` for each argument.
    shown: String,
    /// The expression, its columns called as they were written.
    written: ast::Expr,
    /// Where each argument is found in it.
    columns: Vec<(Option<TableReference>, String)>,
    meaning: Arc<Meaning>,
    signature: Signature,
    /// For each list of types of arguments that was asked for.
    compiled: Mutex<Vec<Compiled>>,
    /// Whether it stands in several places of the query, `written` being one of them.
    is_shared: AtomicBool,
}

#[derive(Clone)]
struct Compiled {
    types: Vec<DataType>,
    expression: Arc<Expression>,
    schema: arrow::datatypes::SchemaRef,
}

impl Part {
    pub(super) fn new(pattern: &ast::Expr, leaves: &Leaves, meaning: &Arc<Meaning>) -> Self {
        let name = pattern.to_string();
        let shown = name.split(MARK).enumerate().map(|(at, piece)| if at % 2 == 0 { piece } else { "_" }).collect();
        let mut written = pattern.clone();
        let ambiguous = ambiguous(leaves);
        let columns = leaves.all.iter().enumerate().map(|(at, leaf)| match leaf.names() {
            Some(names) if !ambiguous => called(names),
            _ => (None, format!("{MARK}{at}{MARK}")),
        });
        let columns = columns.collect();
        if !ambiguous {
            let _: ControlFlow<()> = VisitMut::visit(&mut written, &mut AsWritten(leaves));
        }
        let volatility = if varies(&written) { Volatility::Volatile } else { Volatility::Immutable };
        let signature = if leaves.all.is_empty() { Signature::nullary(volatility) } else { Signature::user_defined(volatility) };
        let (meaning, compiled) = (Arc::clone(meaning), Mutex::new(Vec::new()));
        Self { patterns: [name], shown, written, columns, meaning, signature, compiled, is_shared: AtomicBool::new(false) }
    }

    /// The name under which DataFusion finds it.
    pub(super) fn pattern(&self) -> &str {
        let [pattern] = &self.patterns;
        pattern
    }

    /// Takes note that it stands in another place, too: whoever sees it fail must find out in which one.
    pub(super) fn stands_again(&self) {
        self.is_shared.store(true, Ordering::Relaxed);
    }

    fn compiled(&self, types: &[DataType]) -> Result<Compiled> {
        let mut compiled = self.compiled.lock();
        if let Some(known) = compiled.iter().find(|known| known.types == types) {
            return Ok(known.clone());
        }
        let fields = self.columns.iter().zip(types);
        let fields = fields.map(|((source, name), data_type)| (source.clone(), Arc::new(Field::new(name, data_type.clone(), true))));
        let schema = DFSchema::new_with_metadata(fields.collect(), std::collections::HashMap::new())?;
        let Meaning { expressions, parameters, now } = self.meaning.as_ref();
        let placed = |error: QueryError| if self.is_shared.load(Ordering::Relaxed) { error.without_place() } else { error };
        let expression = expressions.once(&self.written, &schema, parameters, *now).map_err(|error| external(placed(error)))?;
        let made = Compiled { types: types.to_vec(), expression: Arc::new(expression), schema: Arc::clone(schema.inner()) };
        compiled.push(made.clone());
        Ok(made)
    }
}

fn external(error: QueryError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// How the resolver finds a column.
fn called(names: &[Ident]) -> (Option<TableReference>, String) {
    let name = |ident: &Ident| row_names::shown(ident).map_or_else(|| ident.value.clone(), str::to_owned);
    match names {
        [source, column] => (Some(TableReference::bare(source.value.clone())), name(column)),
        _ => (None, names.last().map(name).unwrap_or_default()),
    }
}

/// Whether a name stands there with its source and without.
fn ambiguous(leaves: &Leaves) -> bool {
    let names = || leaves.all.iter().filter_map(|leaf| leaf.names());
    names().any(|one| one.len() == 1 && names().any(|other| other.len() > 1 && other.last() == one.last()))
}

/// Gives columns their names again.
struct AsWritten<'a>(&'a Leaves);

impl AsWritten<'_> {
    fn names(&self, ident: &Ident) -> Option<&[Ident]> {
        self.0.all.get(number(ident)?)?.names()
    }
}

impl VisitorMut for AsWritten<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<()> {
        match expr {
            ast::Expr::Identifier(ident) => match self.names(ident) {
                Some([one]) => *ident = one.clone(),
                Some(names) => *expr = ast::Expr::CompoundIdentifier(names.to_vec()),
                None => {}
            },
            ast::Expr::CompoundIdentifier(idents) => {
                if let Some(names) = idents.first().and_then(|first| self.names(first)).map(<[Ident]>::to_vec) {
                    idents.splice(..1, names);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

fn varies(expr: &ast::Expr) -> bool {
    ast::visit_expressions(expr, |expr| match expr {
        ast::Expr::Function(call) if VARYING.iter().any(|name| call.name.to_string().eq_ignore_ascii_case(name)) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    })
    .is_break()
}

impl ScalarUDFImpl for Part {
    fn name(&self) -> &str {
        &self.shown
    }

    fn aliases(&self) -> &[String] {
        &self.patterns
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// The expression over the names of the arguments: the same for all that are equal.
    fn schema_name(&self, arguments: &[Expr]) -> Result<String> {
        let mut name = String::new();
        for (at, piece) in self.pattern().split(MARK).enumerate() {
            let argument = if at % 2 == 0 { None } else { marked(piece) };
            match argument.and_then(|(at, is_named)| arguments.get(at).map(|argument| (argument, is_named))) {
                // Writing to a String does not fail. Tables show these columns in lower case, and may have others of that name.
                Some((argument, true)) => drop(write!(name, "{}", argument.schema_name().to_string().to_uppercase())),
                Some((argument, false)) => drop(write!(name, "{}", argument.schema_name())),
                None => name.push_str(piece),
            }
        }
        Ok(name)
    }

    /// The types that our SQL has.
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let kept = |one: &DataType| if one.is_null() { one.clone() } else { kept_as(one).unwrap_or_else(|| one.clone()) };
        Ok(types.iter().map(kept).collect())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(self.compiled(types)?.expression.data_type().clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_constant = self.signature.volatility == Volatility::Immutable
            && args.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if is_constant { 1 } else { args.number_rows };
        let arguments = args.args.into_iter().map(|argument| argument.into_array(rows)).collect::<Result<Vec<ArrayRef>>>()?;
        let types: Vec<DataType> = arguments.iter().map(|argument| argument.data_type().clone()).collect();
        let Compiled { expression, schema, .. } = self.compiled(&types)?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(schema, arguments, &options)?;
        let values = expression.evaluate(&batch).map_err(external)?.values;
        if is_constant { ScalarValue::try_from_array(&values, 0).map(ColumnarValue::Scalar) } else { Ok(ColumnarValue::Array(values)) }
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl PartialEq for Part {
    fn eq(&self, other: &Self) -> bool {
        self.patterns == other.patterns
    }
}

impl Eq for Part {}

impl Hash for Part {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.patterns.hash(state);
    }
}
