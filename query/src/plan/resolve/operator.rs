//! Signs and words between operands: arithmetic, comparison, logic, LIKE, IN, BETWEEN.

use arrow::datatypes::DataType;
use datafusion::{
    common::ScalarValue,
    logical_expr::{BinaryExpr, Case, Expr, Like, Operator, expr::InList},
    sql::sqlparser::ast::{self, BinaryOperator, UnaryOperator, Value},
};

use super::{
    Resolver, Typed,
    arithmetic::{Arithmetic, Negate, Operation, decimal_result},
    boolean, cast, literal, nested, number,
};
use crate::{
    catalog::{
        type_name,
        types::{is_nested, timestamp_type},
    },
    error::QueryError,
    functions::types::common,
    plan::kernel::apply,
};

impl Resolver<'_> {
    pub(super) fn unary(&self, op: UnaryOperator, written: &ast::Expr) -> Result<Typed, QueryError> {
        match (op, written) {
            (UnaryOperator::Minus, ast::Expr::Value(ast::ValueWithSpan { value: Value::Number(digits, _), .. })) => number(digits, true),
            (UnaryOperator::Minus, _) => {
                let operand = self.resolve(written)?;
                if !is_number(&operand.data_type) {
                    return Err(QueryError::Invalid(format!("- takes a number, not {}", type_name(&operand.data_type))));
                }
                Ok(Typed { expr: apply("-", operand.data_type.clone(), Negate, vec![operand.expr]), data_type: operand.data_type })
            }
            (UnaryOperator::Plus, _) => self.resolve(written),
            (UnaryOperator::Not, _) => Ok(boolean(Expr::Not(Box::new(self.condition(written, "NOT")?)))),
            (other, _) => Err(self.no_operator(&other)),
        }
    }

    fn no_operator(&self, operator: &dyn std::fmt::Display) -> QueryError {
        QueryError::Unsupported(format!("the operator {operator} in the dialect {}", self.dialect.kind))
    }

    pub(super) fn binary(&self, left: &ast::Expr, op: &BinaryOperator, right: &ast::Expr) -> Result<Typed, QueryError> {
        let operation = match op {
            BinaryOperator::Plus => Operation::Add,
            BinaryOperator::Minus => Operation::Subtract,
            BinaryOperator::Multiply => Operation::Multiply,
            BinaryOperator::Divide => Operation::Divide,
            BinaryOperator::Modulo => Operation::Modulo,
            BinaryOperator::And | BinaryOperator::Or => {
                let (word, op) = if *op == BinaryOperator::And { ("AND", Operator::And) } else { ("OR", Operator::Or) };
                let (left, right) = (self.condition(left, word)?, self.condition(right, word)?);
                return Ok(boolean(binary(left, op, right)));
            }
            BinaryOperator::StringConcat => return self.call_typed("CONCAT", vec![self.resolve(left)?, self.resolve(right)?]),
            BinaryOperator::Eq
            | BinaryOperator::NotEq
            | BinaryOperator::Lt
            | BinaryOperator::LtEq
            | BinaryOperator::Gt
            | BinaryOperator::GtEq => return self.compare(self.resolve(left)?, op, self.resolve(right)?),
            other => return Err(self.no_operator(other)),
        };
        self.arithmetic(operation, self.resolve(left)?, self.resolve(right)?)
    }

    fn arithmetic(&self, operation: Operation, left: Typed, right: Typed) -> Result<Typed, QueryError> {
        let refused = |what: &str| {
            let (sign, left, right) = (operation.sign(), type_name(&left.data_type), type_name(&right.data_type));
            QueryError::Invalid(format!("{sign} {what}, not {left} and {right}"))
        };
        if operation == Operation::Add && left.data_type == DataType::Utf8 && right.data_type == DataType::Utf8 {
            let given = |one: &Typed| Expr::IsNotNull(Box::new(one.expr.clone()));
            let both = binary(given(&left), Operator::And, given(&right));
            return Ok(only_if(both, self.call_typed("CONCAT", vec![left, right])?));
        }
        if left.data_type.is_null() || right.data_type.is_null() {
            return Err(QueryError::Invalid(format!(
                "{} of NULL is never anything else; CAST the NULL if that is meant",
                operation.sign()
            )));
        }
        let Some(of) = common(&left.data_type, &right.data_type).filter(is_number) else { return Err(refused("takes numbers")) };
        let decimals = (digits(&left.data_type), digits(&right.data_type));
        let (to, returns) = match (&of, decimals) {
            (DataType::Decimal128(..), (Some(one), Some(other))) => {
                let Some((precision, scale)) = decimal_result(operation, one, other) else {
                    return Err(refused("would need more than 38 digits"));
                };
                let as_decimal = |(precision, scale)| DataType::Decimal128(precision, scale);
                ((as_decimal(one), as_decimal(other)), DataType::Decimal128(precision, scale))
            }
            _ => ((of.clone(), of.clone()), of),
        };
        let (left, right) = (left.converted_to(&to.0), right.converted_to(&to.1));
        let kernel = Arithmetic { operation, returns: returns.clone(), null_fails: self.in_lambda };
        let name = if self.in_lambda { format!("{} of no NULL", operation.sign()) } else { operation.sign().to_owned() };
        Ok(Typed { expr: apply(name, returns.clone(), kernel, vec![left.expr, right.expr]), data_type: returns })
    }

    /// A comparison; what is NULL equals nothing, and is less than nothing.
    pub(super) fn compare(&self, left: Typed, op: &BinaryOperator, right: Typed) -> Result<Typed, QueryError> {
        let refused = |what: &str| {
            let (left, right) = (type_name(&left.data_type), type_name(&right.data_type));
            QueryError::Invalid(format!("{op} {what}: {left} and {right}"))
        };
        if left.data_type.is_null() || right.data_type.is_null() {
            return Err(QueryError::Invalid(format!("{op} NULL is never true; write IS NULL or IS NOT NULL")));
        }
        let is_equality = matches!(op, BinaryOperator::Eq | BinaryOperator::NotEq);
        let Some((left, right)) = comparable(left.clone(), right.clone())? else { return Err(refused("cannot compare")) };
        if (is_nested(&left.data_type) || left.data_type == DataType::Boolean) && !is_equality {
            return Err(refused("takes values that have an order"));
        }
        let compared = if is_nested(&left.data_type) {
            let equal = equal(left, right);
            if *op == BinaryOperator::Eq { equal } else { Expr::Not(Box::new(equal)) }
        } else {
            let op = match op {
                BinaryOperator::Eq => Operator::Eq,
                BinaryOperator::NotEq => Operator::NotEq,
                BinaryOperator::Lt => Operator::Lt,
                BinaryOperator::LtEq => Operator::LtEq,
                BinaryOperator::Gt => Operator::Gt,
                BinaryOperator::GtEq => Operator::GtEq,
                other => return Err(self.no_operator(other)),
            };
            binary(left.expr, op, right.expr)
        };
        Ok(boolean(Expr::IsTrue(Box::new(compared))))
    }

    pub(super) fn distinct(&self, left: &ast::Expr, right: &ast::Expr, is_distinct: bool) -> Result<Typed, QueryError> {
        let (left, right) = (self.resolve(left)?, self.resolve(right)?);
        let (shown_left, shown_right) = (type_name(&left.data_type), type_name(&right.data_type));
        let Some((left, right)) = comparable(left, right)? else {
            return Err(QueryError::Invalid(format!("IS DISTINCT FROM cannot compare: {shown_left} and {shown_right}")));
        };
        if !is_nested(&left.data_type) {
            let op = if is_distinct { Operator::IsDistinctFrom } else { Operator::IsNotDistinctFrom };
            return Ok(boolean(binary(left.expr, op, right.expr)));
        }
        let is_null = |one: &Typed| Expr::IsNull(Box::new(one.expr.clone()));
        let both_null = binary(is_null(&left), Operator::And, is_null(&right));
        let same = binary(both_null, Operator::Or, Expr::IsTrue(Box::new(equal(left, right))));
        Ok(boolean(if is_distinct { Expr::Not(Box::new(same)) } else { same }))
    }

    pub(super) fn between(&self, written: &ast::Expr, negated: bool, low: &ast::Expr, high: &ast::Expr) -> Result<Typed, QueryError> {
        let value = self.resolve(written)?;
        let from = self.compare(value.clone(), &BinaryOperator::GtEq, self.resolve(low)?)?;
        let to = self.compare(value, &BinaryOperator::LtEq, self.resolve(high)?)?;
        Ok(boolean(negated_if(negated, binary(from.expr, Operator::And, to.expr))))
    }

    pub(super) fn in_list(&self, written: &ast::Expr, list: &[ast::Expr], negated: bool) -> Result<Typed, QueryError> {
        let value = self.resolve(written)?;
        let mut all = vec![(value, written)];
        for element in list {
            let resolved = self.resolve(element)?;
            if !resolved.data_type.is_null() {
                all.push((resolved, element));
            }
        }
        let mut found = literal(ScalarValue::Boolean(Some(false))).expr;
        if all.len() > 1 {
            // One type for the list and what is looked for in it.
            let (mut exprs, of) = self.alike(all, "the elements of IN")?;
            let value = exprs.remove(0);
            found = if !is_nested(&of) && exprs.iter().all(|element| matches!(element, Expr::Literal(..))) {
                Expr::IsTrue(Box::new(Expr::InList(InList { expr: Box::new(value), list: exprs, negated: false })))
            } else {
                let typed = |expr| Typed { expr, data_type: of.clone() };
                let equal = |element| Ok(self.compare(typed(value.clone()), &BinaryOperator::Eq, typed(element))?.expr);
                any_of(exprs.into_iter().map(equal).collect::<Result<Vec<_>, QueryError>>()?)
            };
        }
        Ok(boolean(negated_if(negated, found)))
    }

    pub(super) fn like(
        &self,
        written: &ast::Expr,
        pattern: &ast::Expr,
        escape: Option<&Value>,
        negated: bool,
    ) -> Result<Typed, QueryError> {
        let (value, pattern) = (self.resolve(written)?, self.resolve(pattern)?);
        for one in [&value, &pattern] {
            if one.data_type != DataType::Utf8 {
                return Err(QueryError::Invalid(format!("LIKE takes texts, not {}", type_name(&one.data_type))));
            }
        }
        let escape = match escape {
            None => None,
            Some(Value::SingleQuotedString(text)) => {
                let mut chars = text.chars();
                match (chars.next(), chars.next()) {
                    (Some(one), None) => Some(one),
                    _ => return Err(QueryError::Invalid(format!("ESCAPE takes one character, not '{text}'"))),
                }
            }
            Some(other) => return Err(QueryError::Invalid(format!("ESCAPE takes one character in quotes, not {other}"))),
        };
        let pattern = match (escape, pattern.expr) {
            (escape, Expr::Literal(ScalarValue::Utf8(Some(text)), _)) => literal(ScalarValue::Utf8(Some(backslashed(&text, escape)))).expr,
            (None, other) => other,
            (Some(_), _) => return Err(QueryError::Unsupported("ESCAPE with a pattern that is no literal".to_owned())),
        };
        let like = Expr::Like(Like {
            negated: false,
            expr: Box::new(value.expr),
            pattern: Box::new(pattern),
            escape_char: None,
            case_insensitive: false,
        });
        Ok(boolean(negated_if(negated, Expr::IsTrue(Box::new(like)))))
    }
}

/// A pattern with a backslash before what stands for itself, which is what DataFusion's LIKE reads.
fn backslashed(pattern: &str, escape: Option<char>) -> String {
    let mut text = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(one) = chars.next() {
        match one {
            one if Some(one) == escape => {
                text.push('\\');
                text.extend(chars.next());
            }
            '\\' => text.push_str("\\\\"),
            other => text.push(other),
        }
    }
    text
}

/// Both in one type in which they can be compared; none if there is none.
pub(super) fn comparable(left: Typed, right: Typed) -> Result<Option<(Typed, Typed)>, QueryError> {
    if is_time(&right.data_type) && left.is_text_literal()
        || left.data_type == DataType::Int64 && left.is_rowtime() && right.is_text_literal()
    {
        return comparable_time(left, right);
    }
    if is_time(&left.data_type) && right.is_text_literal() || right.is_rowtime() && left.is_text_literal() {
        return comparable_time(left, right);
    }
    let of = match (&left.data_type, &right.data_type) {
        (DataType::Date32, moment @ DataType::Timestamp(..)) | (moment @ DataType::Timestamp(..), DataType::Date32) => {
            let moment = moment.clone();
            return Ok(Some((left.converted_to(&moment), right.converted_to(&moment))));
        }
        (left, right) => common(left, right),
    };
    let Some(of) = of else { return Ok(None) };
    Ok(left.widened_to(&of).zip(right.widened_to(&of)))
}

/// A time and a text that is one.
fn comparable_time(left: Typed, right: Typed) -> Result<Option<(Typed, Typed)>, QueryError> {
    let of = if left.is_text_literal() { right.data_type.clone() } else { left.data_type.clone() };
    let moment = |one: Typed| -> Result<Typed, QueryError> {
        let Expr::Literal(ScalarValue::Utf8(Some(text)), _) = &one.expr else { return Ok(one) };
        let value = match &of {
            DataType::Int64 => cast::timestamp_of(text).map(|ms| ScalarValue::Int64(Some(ms))),
            other if *other == timestamp_type() => {
                cast::timestamp_of(text).map(|ms| ScalarValue::TimestampMillisecond(Some(ms), Some("+00:00".into())))
            }
            DataType::Date32 => cast::date_of(text).map(|days| ScalarValue::Date32(Some(days))),
            _ => cast::time_of(text).and_then(|ms| i32::try_from(ms).ok()).map(|ms| ScalarValue::Time32Millisecond(Some(ms))),
        };
        value.map(literal).ok_or_else(|| QueryError::Invalid(format!("'{text}' is no {}", type_name(&of))))
    };
    Ok(Some((moment(left)?, moment(right)?)))
}

fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Date32 | DataType::Time32(_) | DataType::Timestamp(..))
}

impl Typed {
    fn is_text_literal(&self) -> bool {
        matches!(self.expr, Expr::Literal(ScalarValue::Utf8(Some(_)), _))
    }

    /// Whether it is the row time, which may be compared with a text.
    fn is_rowtime(&self) -> bool {
        match &self.expr {
            Expr::Cast(cast) => matches!(cast.expr.as_ref(), Expr::Column(column) if column.name == "rowtime"),
            _ => false,
        }
    }

    /// In another type of numbers.
    pub(super) fn converted_to(self, to: &DataType) -> Self {
        match self.data_type {
            DataType::Null => ScalarValue::try_from(to).map_or(self, literal),
            ref given if given == to => self,
            _ => self.converted(to),
        }
    }
}

/// Digits of a number that is exact.
pub(super) fn digits(data_type: &DataType) -> Option<(u8, i8)> {
    match data_type {
        DataType::Int32 => Some((10, 0)),
        DataType::Int64 => Some((19, 0)),
        DataType::Decimal128(precision, scale) => Some((*precision, *scale)),
        _ => None,
    }
}

fn is_number(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Int32 | DataType::Int64 | DataType::Float64 | DataType::Decimal128(..))
}

pub(super) fn equal(left: Typed, right: Typed) -> Expr {
    apply("=", DataType::Boolean, nested::NestedEqual, vec![left.expr, right.expr])
}

pub(super) fn binary(left: Expr, op: Operator, right: Expr) -> Expr {
    Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
}

/// Whether one of several conditions is true; no deeper than it must be, for there may be thousands.
fn any_of(mut conditions: Vec<Expr>) -> Expr {
    if conditions.len() > 1 {
        let behind = conditions.split_off(conditions.len() / 2);
        return binary(any_of(conditions), Operator::Or, any_of(behind));
    }
    conditions.pop().unwrap_or_else(|| literal(ScalarValue::Boolean(Some(false))).expr)
}

fn negated_if(negated: bool, expr: Expr) -> Expr {
    if negated { Expr::Not(Box::new(expr)) } else { expr }
}

/// A value where a condition is true, else NULL.
fn only_if(condition: Expr, value: Typed) -> Typed {
    let when_then = vec![(Box::new(condition), Box::new(value.expr))];
    Typed { expr: Expr::Case(Case { expr: None, when_then_expr: when_then, else_expr: None }), data_type: value.data_type }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_escape_character_of_a_pattern_escapes() {
        assert_eq!(backslashed("a!%b\\c", Some('!')), "a\\%b\\\\c");
        assert_eq!(backslashed("a!%", None), "a!%");
        assert_eq!(backslashed("a!", Some('!')), "a\\");
    }
}
