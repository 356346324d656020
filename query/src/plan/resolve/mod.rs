//! What the expressions of a statement mean in the `ksql` dialect: typed step by step, with every conversion written out.
//!
//! Called by `plan/expression`. Literals are as narrow as they can be, conversions widen, a comparison with NULL is FALSE, and what
//! is computed has Java's habits. Nothing is left to DataFusion's coercion: what an expression means must not change with a
//! library. Pure: it reads the schema that it is given and nothing else.

mod arithmetic;
mod call;
mod cast;
pub(crate) mod comparison;
mod constructor;
pub(super) mod lambda;
mod nested;
mod operator;

use arrow::datatypes::DataType;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use datafusion::{
    common::{Column, DFSchema, ScalarValue},
    logical_expr::{Case, Expr},
    sql::sqlparser::ast::{self, AccessExpr, Subscript, Value},
};

use super::{expression::Expressions, kernel::apply};
use crate::{
    catalog::{
        nearest, type_name,
        types::{map_parts, timestamp_type},
    },
    error::QueryError,
    functions::types::{MAX_DIGITS, common},
    sql::{Dialect, place_of_expr, sugar, types::of_cast},
};

/// Pseudo columns that have a name in this dialect, and the names under which a source gives them.
const PSEUDO: [(&str, &str); 3] = [("ROWTIME", "rowtime"), ("ROWPARTITION", "rowpartition"), ("ROWOFFSET", "rowoffset")];

/// Gives expressions their meaning among the columns of a schema.
pub(super) struct Resolver<'a> {
    pub(super) expressions: &'a Expressions,
    pub(super) dialect: Dialect,
    pub(super) schema: &'a DFSchema,
    pub(super) parameters: &'a [ScalarValue],
    /// Whether this is the body of a lambda: there, arithmetic with NULL is a failure, which takes the whole call with it.
    pub(super) in_lambda: bool,
}

/// An expression with its type; `Null` is the type of the literal NULL alone.
#[derive(Clone, Debug)]
pub(super) struct Typed {
    pub(super) expr: Expr,
    pub(super) data_type: DataType,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(expressions: &'a Expressions, dialect: Dialect, schema: &'a DFSchema, parameters: &'a [ScalarValue]) -> Self {
        Self { expressions, dialect, schema, parameters, in_lambda: false }
    }

    /// The meaning of an expression.
    ///
    /// # Errors
    /// [`QueryError::Unknown`] for a name, [`QueryError::Invalid`] for types that do not fit, [`QueryError::Unsupported`].
    pub(super) fn resolve(&self, written: &ast::Expr) -> Result<Typed, QueryError> {
        self.resolve_here(written).map_err(|error| error.at(|| place_of_expr(written)))
    }

    fn resolve_here(&self, written: &ast::Expr) -> Result<Typed, QueryError> {
        match written {
            ast::Expr::Nested(inner) => self.resolve(inner),
            ast::Expr::Value(value) => self.value(&value.value),
            ast::Expr::Identifier(ident) => self.column(std::slice::from_ref(ident)),
            ast::Expr::CompoundIdentifier(idents) => self.column(idents),
            ast::Expr::CompoundFieldAccess { root, access_chain } => {
                let mut at = self.resolve(root)?;
                for access in access_chain {
                    at = self.access(at, access)?;
                }
                Ok(at)
            }
            ast::Expr::UnaryOp { op, expr } => self.unary(*op, expr),
            ast::Expr::BinaryOp { left, op, right } => self.binary(left, op, right),
            ast::Expr::IsNull(inner) => Ok(boolean(Expr::IsNull(Box::new(self.resolve(inner)?.expr)))),
            ast::Expr::IsNotNull(inner) => Ok(boolean(Expr::IsNotNull(Box::new(self.resolve(inner)?.expr)))),
            ast::Expr::IsTrue(inner) => Ok(boolean(Expr::IsTrue(Box::new(self.condition(inner, "IS TRUE")?)))),
            ast::Expr::IsFalse(inner) => Ok(boolean(Expr::IsFalse(Box::new(self.condition(inner, "IS FALSE")?)))),
            ast::Expr::IsNotTrue(inner) => Ok(boolean(Expr::IsNotTrue(Box::new(self.condition(inner, "IS NOT TRUE")?)))),
            ast::Expr::IsNotFalse(inner) => Ok(boolean(Expr::IsNotFalse(Box::new(self.condition(inner, "IS NOT FALSE")?)))),
            ast::Expr::IsDistinctFrom(left, right) => self.distinct(left, right, true),
            ast::Expr::IsNotDistinctFrom(left, right) => self.distinct(left, right, false),
            ast::Expr::Between { expr, negated, low, high } => self.between(expr, *negated, low, high),
            ast::Expr::InList { expr, list, negated } => self.in_list(expr, list, *negated),
            ast::Expr::Like { negated, any: false, expr, pattern, escape_char } => {
                self.like(expr, pattern, escape_char.as_ref().map(|escape| &escape.value), *negated)
            }
            ast::Expr::Case { operand, conditions, else_result, .. } => self.case(operand.as_deref(), conditions, else_result.as_deref()),
            ast::Expr::Cast { kind: ast::CastKind::Cast | ast::CastKind::DoubleColon, expr, data_type, format: None, .. } => {
                let data_type = of_cast(data_type, self.dialect, &|_| None)?;
                self.resolve(expr)?.cast_to(&data_type)
            }
            ast::Expr::Array(array) => self.array(&array.elem),
            ast::Expr::Function(call) => self.call(call),
            // sqlparser has a syntax of its own for these functions.
            ast::Expr::Ceil { expr, .. } => self.call_named("CEIL", &[expr]),
            ast::Expr::Floor { expr, .. } => self.call_named("FLOOR", &[expr]),
            ast::Expr::Trim { expr, trim_where: None, trim_what: None, trim_characters: None } => self.call_named("TRIM", &[expr]),
            ast::Expr::Substring { expr, substring_from: Some(from), substring_for, .. } => {
                let mut arguments: Vec<&ast::Expr> = vec![expr, from];
                arguments.extend(substring_for.as_deref());
                self.call_named("SUBSTRING", &arguments)
            }
            ast::Expr::Position { .. } | ast::Expr::Extract { .. } | ast::Expr::Overlay { .. } => {
                Err(QueryError::Unsupported(format!("{written} in the dialect {}", self.dialect.kind)))
            }
            ast::Expr::TypedString(typed) => {
                let data_type = of_cast(&typed.data_type, self.dialect, &|_| None)?;
                self.value(&typed.value.value)?.cast_to(&data_type)
            }
            ast::Expr::Subquery(_) | ast::Expr::Exists { .. } | ast::Expr::InSubquery { .. } => {
                Err(QueryError::Unsupported("a subquery in a query that does not end".to_owned()))
            }
            other => Err(QueryError::Unsupported(format!("{other}, in the dialect {}", self.dialect.kind))),
        }
    }

    /// The meaning of an expression as a value of a column: in the column's type, or in one that widens to it.
    ///
    /// # Errors
    /// As [`Resolver::resolve`]; [`QueryError::Invalid`] for a value that the column does not take.
    pub(super) fn resolve_as(&self, written: &ast::Expr, to: &DataType) -> Result<Typed, QueryError> {
        let given = self.resolve(written)?;
        if given.data_type == *to {
            return Ok(given);
        }
        if let (DataType::Binary, Expr::Literal(ScalarValue::Utf8(Some(text)), _)) = (to, &given.expr) {
            let bytes = BASE64_STANDARD.decode(text).ok();
            let refused = || QueryError::Invalid(format!("{written} is no Base64, as which a column of BYTES takes a text; use TO_BYTES"));
            return bytes.map(|bytes| literal(ScalarValue::Binary(Some(bytes)))).ok_or_else(refused);
        }
        if cast::can_assign(&given.data_type, to) {
            return given.cast_to(to);
        }
        let (given, to) = (type_name(&given.data_type), type_name(to));
        Err(QueryError::Invalid(format!("{written} is {given}, the column is {to}")))
    }

    /// A BOOLEAN.
    pub(super) fn condition(&self, written: &ast::Expr, clause: &str) -> Result<Expr, QueryError> {
        let resolved = self.resolve(written)?;
        match resolved.data_type {
            DataType::Boolean | DataType::Null => Ok(resolved.cast_to(&DataType::Boolean)?.expr),
            other => Err(QueryError::Invalid(format!("{clause} takes a BOOLEAN, {written} is {}", type_name(&other)))),
        }
    }

    fn value(&self, value: &Value) -> Result<Typed, QueryError> {
        match value {
            Value::Null => Ok(Typed { expr: Expr::Literal(ScalarValue::Null, None), data_type: DataType::Null }),
            Value::Boolean(value) => Ok(literal(ScalarValue::Boolean(Some(*value)))),
            Value::Number(digits, _) => number(digits, false),
            Value::SingleQuotedString(text) => Ok(literal(ScalarValue::Utf8(Some(text.clone())))),
            Value::Placeholder(id) => {
                let place = id.trim_start_matches('$').parse::<usize>().ok().and_then(|number| number.checked_sub(1));
                let given = place.and_then(|place| self.parameters.get(place));
                given.map(|value| literal(value.clone())).ok_or_else(|| QueryError::Invalid(format!("parameter {id} has no value")))
            }
            other => Err(QueryError::Unsupported(format!("the literal {other}"))),
        }
    }

    /// A column, perhaps with its source before it and fields of it behind.
    fn column(&self, idents: &[ast::Ident]) -> Result<Typed, QueryError> {
        let plain = idents.iter().position(|ident| sugar::field(ident).is_some()).unwrap_or(idents.len());
        let (names, fields) = idents.split_at(plain);
        let (mut at, behind) = match names {
            [name] => (self.named(None, &name.value)?, &names[1..]),
            [first, second, behind @ ..] => match self.named(Some(&first.value), &second.value) {
                Ok(found) => (found, behind),
                Err(unknown) => match self.named(None, &first.value) {
                    Ok(found) => (found, &names[1..]),
                    Err(_) => return Err(unknown),
                },
            },
            [] => return Err(QueryError::Invalid("a name is missing".to_owned())),
        };
        for field in behind.iter().chain(fields) {
            at = at.field(sugar::field(field).unwrap_or(&field.value))?;
        }
        Ok(at)
    }

    fn named(&self, source: Option<&str>, name: &str) -> Result<Typed, QueryError> {
        let of_source = |qualifier: &str| source.is_none_or(|source| source == qualifier);
        let find = |name: &str| {
            let fields = self.schema.iter().filter(|(qualifier, field)| {
                field.name() == name && qualifier.map_or(source.is_none(), |qualifier| of_source(qualifier.table()))
            });
            fields.map(|(qualifier, field)| (Column::new(qualifier.cloned(), field.name()), field.data_type().clone())).collect::<Vec<_>>()
        };
        let mut found = find(name);
        if found.is_empty()
            && let Some((_, given)) = PSEUDO.iter().find(|(known, _)| *known == name)
        {
            found = find(given);
        }
        // What a SELECT list calls something has no source before it, and gives way to columns.
        if found.len() > 1 {
            found.retain(|(column, _)| column.relation.is_some());
        }
        match found.as_slice() {
            [(column, data_type)] => {
                let expr = Expr::Column(column.clone());
                if name == "ROWTIME" && *data_type == timestamp_type() {
                    let expr = datafusion::logical_expr::cast(expr, DataType::Int64);
                    return Ok(Typed { expr, data_type: DataType::Int64 });
                }
                Ok(Typed { expr, data_type: data_type.clone() })
            }
            [] => {
                let shown = source.map_or_else(|| name.to_owned(), |source| format!("{source}.{name}"));
                let names = self.schema.fields().iter().map(|field| field.name().as_str());
                Err(QueryError::Unknown { what: "column", name: shown, hint: nearest(name, names), place: None })
            }
            _ => Err(QueryError::Invalid(format!("column {name} is ambiguous; write source.{name}"))),
        }
    }

    fn access(&self, at: Typed, access: &AccessExpr) -> Result<Typed, QueryError> {
        match access {
            AccessExpr::Dot(ast::Expr::Identifier(ident)) => at.field(sugar::field(ident).unwrap_or(&ident.value)),
            AccessExpr::Subscript(Subscript::Index { index }) => {
                let index = self.resolve(index)?;
                match (&at.data_type, map_parts(&at.data_type)) {
                    (DataType::List(item), _) => {
                        let data_type = item.data_type().clone();
                        if !matches!(index.data_type, DataType::Int32 | DataType::Int64) {
                            return Err(QueryError::Invalid(format!("a place in an array is INT, not {}", type_name(&index.data_type))));
                        }
                        let index = index.cast_to(&DataType::Int32)?;
                        let expr = apply("element_at", data_type.clone(), nested::ElementAt, vec![at.expr, index.expr]);
                        Ok(Typed { expr, data_type })
                    }
                    (_, Some((key, value))) => {
                        let (key, data_type) = (key.clone(), value.clone());
                        let index = index
                            .widened_to(&key)
                            .ok_or_else(|| QueryError::Invalid(format!("the key of this map is {}", type_name(&key))))?;
                        let expr = apply("value_of", data_type.clone(), nested::ValueOf, vec![at.expr, index.expr]);
                        Ok(Typed { expr, data_type })
                    }
                    (other, None) => Err(QueryError::Invalid(format!("[] takes an ARRAY or MAP, not {}", type_name(other)))),
                }
            }
            other => Err(QueryError::Unsupported(format!("the access {other}"))),
        }
    }

    fn case(&self, operand: Option<&ast::Expr>, conditions: &[ast::CaseWhen], otherwise: Option<&ast::Expr>) -> Result<Typed, QueryError> {
        let mut when = Vec::with_capacity(conditions.len());
        let mut results = Vec::with_capacity(conditions.len() + 1);
        for one in conditions {
            when.push(match operand {
                None => self.condition(&one.condition, "WHEN")?,
                Some(operand) => {
                    let (left, right) = (self.resolve(operand)?, self.resolve(&one.condition)?);
                    self.compare(left, &ast::BinaryOperator::Eq, right)?.expr
                }
            });
            results.push(&one.result);
        }
        let has_else = otherwise.is_some();
        results.extend(otherwise);
        let (mut results, data_type) = self.alike_as_written(&results, "the results of CASE")?;
        if data_type.is_null() {
            return Err(QueryError::Invalid("every result of CASE is NULL: its type is not known; CAST one".to_owned()));
        }
        let otherwise = if has_else { results.pop() } else { None };
        let when_then = when.into_iter().zip(results).map(|(when, then)| (Box::new(when), Box::new(then))).collect();
        let expr = Expr::Case(Case { expr: None, when_then_expr: when_then, else_expr: otherwise.map(Box::new) });
        Ok(Typed { expr, data_type })
    }
}

/// A literal with its type.
pub(super) fn literal(value: ScalarValue) -> Typed {
    Typed { data_type: value.data_type(), expr: Expr::Literal(value, None) }
}

pub(super) fn boolean(expr: Expr) -> Typed {
    Typed { expr, data_type: DataType::Boolean }
}

/// A number as it is written: INT or BIGINT, DECIMAL with a point, DOUBLE with an exponent.
pub(super) fn number(digits: &str, negative: bool) -> Result<Typed, QueryError> {
    let signed = if negative { format!("-{digits}") } else { digits.to_owned() };
    let invalid = |what: &str| Err(QueryError::Invalid(format!("{signed} is {what}")));
    if digits.contains(['e', 'E']) {
        return match signed.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(literal(ScalarValue::Float64(Some(value)))),
            _ => invalid("out of the range of DOUBLE"),
        };
    }
    if let Some((whole, fraction)) = digits.split_once('.') {
        let whole = whole.trim_start_matches('0');
        // The zero before the point is a digit as well, unless there is no room for it.
        let zero = usize::from(whole.is_empty() && fraction.len() < usize::from(MAX_DIGITS));
        let precision = u8::try_from(whole.len() + zero + fraction.len()).unwrap_or(u8::MAX);
        let scale = i8::try_from(fraction.len()).unwrap_or(i8::MAX);
        let value = if precision <= MAX_DIGITS { cast::decimal_of(&signed, precision, scale) } else { None };
        return match value {
            Some(value) => Ok(literal(ScalarValue::Decimal128(Some(value), precision, scale))),
            None => invalid("longer than DECIMAL(38, s)"),
        };
    }
    match (signed.parse::<i32>(), signed.parse::<i64>()) {
        (Ok(value), _) => Ok(literal(ScalarValue::Int32(Some(value)))),
        (_, Ok(value)) => Ok(literal(ScalarValue::Int64(Some(value)))),
        _ => invalid("out of the range of BIGINT"),
    }
}

impl Typed {
    /// What an explicit CAST makes of it.
    fn cast_to(self, to: &DataType) -> Result<Self, QueryError> {
        if self.data_type == *to {
            return Ok(self);
        }
        if !cast::can_cast(&self.data_type, to) {
            return Err(QueryError::Invalid(format!("there is no cast from {} to {}", type_name(&self.data_type), type_name(to))));
        }
        if self.data_type.is_null() {
            let null = ScalarValue::try_from(to).map_err(super::fault::of_planning)?;
            return Ok(literal(null));
        }
        Ok(self.converted(to))
    }

    fn converted(self, to: &DataType) -> Self {
        let name = format!("cast as {}", type_name(to));
        Self { expr: apply(name, to.clone(), cast::Cast(to.clone()), vec![self.expr]), data_type: to.clone() }
    }

    /// The same value in a type that holds all of its type's; none if that does not.
    pub(super) fn widened_to(self, to: &DataType) -> Option<Self> {
        if self.data_type == *to {
            return Some(self);
        }
        if self.data_type.is_null() {
            return ScalarValue::try_from(to).ok().map(literal);
        }
        (common(&self.data_type, to).as_ref() == Some(to)).then(|| self.converted(to))
    }

    /// A literal text as a value of a type that is none of text; none for everything else.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] if the text is no such value.
    fn constant_as(&self, to: &DataType) -> Result<Option<Self>, QueryError> {
        let Expr::Literal(ScalarValue::Utf8(Some(text)), _) = &self.expr else { return Ok(None) };
        let value = match to {
            DataType::Utf8 => return Ok(None),
            DataType::Boolean => truth(text).map(|value| ScalarValue::Boolean(Some(value))),
            DataType::Decimal128(precision, scale) => {
                cast::decimal_of(text.trim(), *precision, *scale).map(|value| ScalarValue::Decimal128(Some(value), *precision, *scale))
            }
            other => ScalarValue::Utf8(Some(text.trim().to_owned())).cast_to(other).ok(),
        };
        match value {
            Some(value) => Ok(Some(literal(value))),
            None => Err(QueryError::Invalid(format!("'{text}' is no {}", type_name(to)))),
        }
    }

    /// The type of the number that a literal text is.
    fn literal_as_number(&self) -> Option<DataType> {
        let Expr::Literal(ScalarValue::Utf8(Some(text)), _) = &self.expr else { return None };
        let text = text.trim();
        let (digits, negative) = text.strip_prefix('-').map_or((text, false), |digits| (digits, true));
        number(digits, negative).ok().map(|number| number.data_type)
    }

    /// Whether it is a literal that a list of texts may hold.
    fn can_be_text(&self) -> bool {
        matches!(self.expr, Expr::Literal(..))
    }

    /// A field of a struct.
    fn field(self, name: &str) -> Result<Self, QueryError> {
        let DataType::Struct(fields) = &self.data_type else {
            return Err(QueryError::Invalid(format!("-> takes a STRUCT, not {}", type_name(&self.data_type))));
        };
        let Some((place, field)) = fields.find(name) else {
            let hint = nearest(name, fields.iter().map(|field| field.name().as_str()));
            return Err(QueryError::Unknown { what: "field", name: name.to_owned(), hint, place: None });
        };
        let data_type = field.data_type().clone();
        let expr = apply(format!("field {name} {place}"), data_type.clone(), nested::GetField(place), vec![self.expr]);
        Ok(Self { expr, data_type })
    }
}

/// The BOOLEAN that a text begins: `true`, `yes`, `false`, `no`, of which the end may be left out.
fn truth(text: &str) -> Option<bool> {
    let text = text.trim().to_lowercase();
    let begins = |word: &str| !text.is_empty() && word.starts_with(&text);
    match (begins("true") || begins("yes"), begins("false") || begins("no")) {
        (true, _) => Some(true),
        (false, true) => Some(false),
        (false, false) => None,
    }
}
