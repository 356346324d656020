//! What an expression is for a row, by the rules as `SEMANTICS.md` has them: a part that fails is NULL.

use std::cmp::Ordering;

use super::{
    grammar::{Expr, Lambda, Node, Rules},
    schema::Row,
    value::{Type, Value, spelled},
};

/// A row, the rules, and the results of aggregates where there are some.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub row: Option<&'a Row>,
    pub results: &'a [Value],
    pub rules: Rules,
}

impl Context<'_> {
    fn is_ksql(&self) -> bool {
        self.rules == Rules::Ksql
    }

    /// The value of an expression.
    pub fn value(&self, expr: &Expr) -> Value {
        let row = || self.row.expect("an expression over columns has a row");
        match &expr.node {
            Node::Column(place, _) => row().values[*place].clone(),
            Node::RowTime => Value::Whole(row().time),
            Node::RowPartition => Value::Whole(row().partition.into()),
            Node::RowOffset => Value::Whole(row().offset.cast_signed()),
            Node::Literal(value) => value.clone(),
            Node::Result(call) => self.results[*call].clone(),
            Node::Arithmetic(sign, left, right) => self.arithmetic(*sign, left, right, &expr.of),
            Node::Negate(one) => self.negated(&self.value(one), &expr.of),
            Node::Cast(one) => self.cast(&self.value(one), &one.of, &expr.of),
            Node::Case(cases, last) => {
                let then = cases.iter().find(|(when, _)| self.value(when).is_true()).map(|(_, then)| then);
                then.or(last.as_deref()).map_or(Value::Null, |then| self.value(then))
            }
            Node::CaseOf(one, cases, last) => {
                let value = self.value(one);
                let then = cases.iter().find(|(when, _)| self.compared("=", &value, &one.of, &self.value(when), &when.of).is_true());
                then.map(|(_, then)| then).or(last.as_deref()).map_or(Value::Null, |then| self.value(then))
            }
            Node::Call(name, arguments) => self.call(name, arguments, &expr.of).unwrap_or(Value::Null),
            Node::Element(one, at) => element(&self.value(one), &self.value(at)),
            Node::Field(one, at, _) => match self.value(one) {
                Value::Struct(fields) => fields[*at].clone(),
                _ => Value::Null,
            },
            Node::Struct(fields) => Value::Struct(fields.iter().map(|(_, field)| self.value(field)).collect()),
            Node::Map(entries) => Value::Map(entries.iter().map(|(key, value)| (key.clone(), self.value(value))).collect()),
            Node::Lambda(lambda) => self.lambda(lambda).unwrap_or(Value::Null),
            _ => self.truth(expr).map_or(Value::Null, Value::Bool),
        }
    }

    /// The three truths of SQL; none is NULL.
    fn truth(&self, expr: &Expr) -> Option<bool> {
        let of = |one: &Expr| match self.value(one) {
            Value::Bool(value) => Some(value),
            _ => None,
        };
        let equals = |left: &Expr, right: &Expr| match self.compared("=", &self.value(left), &left.of, &self.value(right), &right.of) {
            Value::Bool(value) => Some(value),
            _ => None,
        };
        match &expr.node {
            Node::And(left, right) => and(of(left), of(right)),
            Node::Or(left, right) => and(of(left).map(|one| !one), of(right).map(|one| !one)).map(|both| !both),
            Node::Not(one) => of(one).map(|one| !one),
            Node::IsNull(one) => Some(self.value(one).is_null()),
            Node::Compare(sign, left, right) => match self.compared(sign, &self.value(left), &left.of, &self.value(right), &right.of) {
                Value::Bool(value) => Some(value),
                _ => None,
            },
            Node::Distinct(left, right) => {
                let (left, right) = (self.value(left), self.value(right));
                Some(if left.is_null() || right.is_null() { left.is_null() != right.is_null() } else { !left.equals(&right) })
            }
            Node::In(one, list, negated) => {
                let mut found = Some(false);
                for item in list {
                    found = and(found.map(|one| !one), equals(one, item).map(|one| !one)).map(|both| !both);
                }
                found.map(|found| found != *negated)
            }
            Node::Between(one, low, high) => {
                let value = self.value(one);
                let side = |sign, other: &Expr| match self.compared(sign, &value, &one.of, &self.value(other), &other.of) {
                    Value::Bool(value) => Some(value),
                    _ => None,
                };
                and(side(">=", low), side("<=", high))
            }
            Node::Like(one, pattern, negated) => match self.value(one) {
                Value::Text(text) => Some(is_like(&text, pattern) != *negated),
                _ if self.is_ksql() => Some(*negated),
                _ => None,
            },
            other => panic!("{other:?} is no truth"),
        }
    }

    /// A comparison: with NULL it is NULL, or FALSE in `ksql`.
    fn compared(&self, sign: &str, left: &Value, left_of: &Type, right: &Value, right_of: &Type) -> Value {
        if left.is_null() || right.is_null() {
            return if self.is_ksql() { Value::Bool(false) } else { Value::Null };
        }
        let order = if left_of == right_of || matches!((left_of, right_of), (Type::Int | Type::Long, Type::Int | Type::Long)) {
            left.compare(right)
        } else {
            let double = |value: &Value, of: &Type| Value::Double(value.number(of).expect("numbers alone are compared across types"));
            double(left, left_of).compare(&double(right, right_of))
        };
        Value::Bool(match sign {
            "=" => order == Ordering::Equal,
            "<>" => order != Ordering::Equal,
            "<" => order == Ordering::Less,
            "<=" => order != Ordering::Greater,
            ">" => order == Ordering::Greater,
            _ => order != Ordering::Less,
        })
    }

    /// A call with a lambda; none if the body fails for an element.
    fn lambda(&self, lambda: &Lambda) -> Option<Value> {
        let row = self.row.expect("a lambda has a row");
        let with = |parameters: &[&Value]| {
            let values = row.values.iter().chain(parameters.iter().copied()).cloned().collect();
            let row = Row { values, ..row.clone() };
            let context = Context { row: Some(&row), ..*self };
            context.unfailing(&lambda.body)
        };
        let list = self.value(&lambda.list);
        let state = lambda.state.as_ref().map(|state| self.value(state));
        let Value::List(items) = list else { return state };
        if let Some(mut state) = state {
            for item in &items {
                state = with(&[&state, item])?;
            }
            return Some(state);
        }
        let made = items.iter().map(|item| with(&[item])).collect::<Option<Vec<Value>>>()?;
        if lambda.name == "TRANSFORM" {
            return Some(Value::List(made));
        }
        Some(Value::List(items.into_iter().zip(made).filter(|(_, keeps)| keeps.is_true()).map(|(item, _)| item).collect()))
    }

    /// The value of the body of a lambda; none if arithmetic fails anywhere in it.
    fn unfailing(&self, expr: &Expr) -> Option<Value> {
        let parts: Vec<&Expr> = match &expr.node {
            Node::Arithmetic(_, left, right) | Node::Compare(_, left, right) | Node::And(left, right) | Node::Or(left, right) => {
                vec![left, right]
            }
            Node::Not(one) | Node::IsNull(one) => vec![one],
            Node::Call(_, arguments) => arguments.iter().collect(),
            Node::Column(..) | Node::Literal(_) => Vec::new(),
            other => panic!("no lambda has {other:?}"),
        };
        for part in parts {
            self.unfailing(part)?;
        }
        let value = self.value(expr);
        let has_failed = value.is_null() && matches!(expr.node, Node::Arithmetic(..));
        (!has_failed).then_some(value)
    }

    fn arithmetic(&self, sign: char, left: &Expr, right: &Expr, of: &Type) -> Value {
        let (one, other) = (self.value(left), self.value(right));
        if one.is_null() || other.is_null() {
            return Value::Null;
        }
        match of {
            Type::Text => Value::Text(format!("{}{}", one.text().unwrap_or(""), other.text().unwrap_or(""))),
            Type::Int | Type::Long => {
                let wide = [&one, &other].map(|value| i128::from(value.whole().expect("an integer")));
                self.in_range(whole_arithmetic(sign, wide[0], wide[1]), of)
            }
            Type::Double => {
                let [one, other] = [one.number(&left.of), other.number(&right.of)].map(|value| value.expect("a number"));
                self.double_arithmetic(sign, one, other)
            }
            Type::Decimal(precision, scale) => {
                let (Value::Decimal(one), Value::Decimal(other)) = (one, other) else { panic!("no DECIMAL") };
                let (Type::Decimal(_, s1), Type::Decimal(_, s2)) = (&left.of, &right.of) else { panic!("no DECIMAL") };
                let aligned = [one * ten(scale.saturating_sub(*s1)), other * ten(scale.saturating_sub(*s2))];
                let value = match sign {
                    '+' => Some(aligned[0] + aligned[1]),
                    '-' => Some(aligned[0] - aligned[1]),
                    '*' => Some(one * other),
                    // Exact, or NULL.
                    _ => (other != 0)
                        .then(|| (one * ten(scale + s2 - s1), other))
                        .filter(|(one, other)| one % other == 0)
                        .map(|(one, other)| one / other),
                };
                value.filter(|value| value.unsigned_abs() < ten(*precision).unsigned_abs()).map_or(Value::Null, Value::Decimal)
            }
            other => panic!("no arithmetic gives {other:?}"),
        }
    }

    fn double_arithmetic(&self, sign: char, one: f64, other: f64) -> Value {
        let is_division = matches!(sign, '/' | '%');
        if is_division && other == 0.0 && !self.is_ksql() {
            return Value::Null;
        }
        Value::Double(match sign {
            '+' => one + other,
            '-' => one - other,
            '*' => one * other,
            '/' => one / other,
            _ => one % other,
        })
    }

    /// An integer that may lie beyond its range: NULL, or what is left of it in `ksql`.
    fn in_range(&self, value: Option<i128>, of: &Type) -> Value {
        let Some(value) = value else { return Value::Null };
        let (fits, rest) = match of {
            Type::Int => (i32::try_from(value).is_ok(), i64::from(value as i32)),
            _ => (i64::try_from(value).is_ok(), value as i64),
        };
        if fits || self.is_ksql() { Value::Whole(rest) } else { Value::Null }
    }

    fn negated(&self, value: &Value, of: &Type) -> Value {
        match value {
            Value::Whole(value) => self.in_range(Some(-i128::from(*value)), of),
            Value::Double(value) => Value::Double(-value),
            Value::Decimal(value) => Value::Decimal(-value),
            other => other.clone(),
        }
    }

    fn cast(&self, value: &Value, from: &Type, to: &Type) -> Value {
        match (value, to) {
            (Value::Null, _) => Value::Null,
            (Value::Whole(value), Type::Int | Type::Long) => self.in_range(Some((*value).into()), to),
            (Value::Double(value), Type::Int | Type::Long) => self.whole_of(*value, to),
            (value, Type::Double) => value.number(from).map_or(Value::Null, Value::Double),
            (Value::Text(text), Type::Int) => text.parse::<i32>().map_or(Value::Null, |value| Value::Whole(value.into())),
            (Value::Text(text), Type::Long) => text.parse().map_or(Value::Null, Value::Whole),
            (Value::Whole(value), Type::Text) => Value::Text(value.to_string()),
            (Value::Bool(value), Type::Text) => Value::Text(value.to_string()),
            (value @ Value::Decimal(_), Type::Text) => Value::Text(spelled(value, from)),
            (Value::Whole(value), Type::Decimal(precision, scale)) => scaled(i128::from(*value), 0, *precision, *scale),
            (Value::Decimal(value), Type::Decimal(precision, scale)) => {
                let Type::Decimal(_, given) = from else { panic!("no DECIMAL") };
                scaled(*value, *given, *precision, *scale)
            }
            (value, to) => panic!("no cast of {value:?} to {to:?}"),
        }
    }

    /// A DOUBLE without its fraction: beyond the range NULL, in `ksql` the nearest that there is.
    fn whole_of(&self, value: f64, of: &Type) -> Value {
        let (least, beyond) = if *of == Type::Int { (-2_147_483_648.0, 2_147_483_648.0) } else { (-(2.0_f64.powi(63)), 2.0_f64.powi(63)) };
        let cut = value.trunc();
        let is_within = cut >= least && cut < beyond;
        if !self.is_ksql() && !is_within {
            return Value::Null;
        }
        Value::Whole(if *of == Type::Int { i64::from(value as i32) } else { value as i64 })
    }

    fn call(&self, name: &str, arguments: &[Expr], of: &Type) -> Option<Value> {
        let values: Vec<Value> = arguments.iter().map(|argument| self.value(argument)).collect();
        let text = |at: usize| values[at].text();
        let count = |count: usize| Value::Whole(count as i64);
        let items = |at: usize| if let Value::List(items) = &values[at] { Some(items) } else { None };
        Some(match name {
            "COALESCE" | "IFNULL" => values.iter().find(|value| !value.is_null())?.clone(),
            "NULLIF" => {
                let is_equal = !values[0].is_null() && !values[1].is_null() && values[0].equals(&values[1]);
                if is_equal { Value::Null } else { values[0].clone() }
            }
            "GREATEST" => values.iter().filter(|value| !value.is_null()).max_by(|left, right| left.order(right))?.clone(),
            "LEAST" => values.iter().filter(|value| !value.is_null()).min_by(|left, right| left.order(right))?.clone(),
            "LEN" => count(text(0)?.chars().count()),
            "FIELD" => {
                let found = text(0).and_then(|wanted| values[1..].iter().position(|one| one.text() == Some(wanted)));
                count(found.map_or(0, |at| at + 1))
            }
            "SIGN" => Value::Whole(values[0].whole()?.signum()),
            "INSTR" => {
                // NULL is not there.
                let (Some(whole), Some(part)) = (text(0), text(1)) else { return Some(count(0)) };
                count(whole.find(part).map_or(0, |at| whole[..at].chars().count() + 1))
            }
            "ABS" => match &values[0] {
                Value::Whole(value) => self.in_range(Some(i128::from(*value).abs()), of),
                Value::Double(value) => Value::Double(value.abs()),
                _ => return None,
            },
            "SQRT" => Value::Double(values[0].number(&Type::Double)?.sqrt()),
            "UCASE" => Value::Text(text(0)?.to_uppercase()),
            "LCASE" => Value::Text(text(0)?.to_lowercase()),
            "||" if !self.is_ksql() => Value::Text(format!("{}{}", text(0)?, text(1)?)),
            "CONCAT" | "||" => Value::Text(values.iter().filter_map(Value::text).collect()),
            "LPAD" | "RPAD" => Value::Text(padded(text(0)?, values[1].whole()?, text(2)?, name == "LPAD")),
            "TRIM" => Value::Text(text(0)?.trim_matches(|one| one <= ' ').to_owned()),
            "SUBSTRING" => Value::Text(part(text(0)?, values[1].whole()?, values[2].whole()?)),
            "REPLACE" => Value::Text(text(0)?.replace(text(1)?, text(2)?)),
            "ELT" => usize::try_from(values[0].whole()?).ok().filter(|at| *at > 0).and_then(|at| values.get(at))?.clone(),
            "SPLIT" => {
                let (whole, delimiter) = (text(0)?, text(1)?);
                let parts: Vec<String> = if delimiter.is_empty() {
                    whole.chars().map(String::from).collect()
                } else {
                    whole.split(delimiter).map(str::to_owned).collect()
                };
                Value::List(parts.into_iter().map(Value::Text).collect())
            }
            "MAKE_ARRAY" => Value::List(values),
            "ARRAY_LENGTH" => count(items(0)?.len()),
            // No array has nothing.
            "ARRAY_CONTAINS" => Value::Bool(items(0).is_some_and(|items| has(items, &values[1]))),
            "ARRAY_MAX" => items(0)?.iter().filter(|item| !item.is_null()).max_by(|left, right| left.order(right))?.clone(),
            "ARRAY_MIN" => items(0)?.iter().filter(|item| !item.is_null()).min_by(|left, right| left.order(right))?.clone(),
            "ARRAY_CONCAT" if items(0).is_none() && items(1).is_none() => return None,
            "ARRAY_CONCAT" => Value::List([0, 1].into_iter().filter_map(items).flatten().cloned().collect()),
            "ARRAY_DISTINCT" => Value::List(once(items(0)?.iter())),
            "ARRAY_UNION" => Value::List(once(items(0)?.iter().chain(items(1)?))),
            "ARRAY_EXCEPT" => {
                let other = items(1)?;
                Value::List(once(items(0)?.iter().filter(|item| !has(other, item))))
            }
            "ARRAY_INTERSECT" => {
                let other = items(1)?;
                Value::List(once(items(0)?.iter().filter(|item| has(other, item))))
            }
            "SLICE" => {
                let (from, to) = (usize::try_from(values[1].whole()?).ok()?.checked_sub(1)?, usize::try_from(values[2].whole()?).ok()?);
                Value::List(items(0)?.get(from..to)?.to_vec())
            }
            other => panic!("there is no {other}"),
        })
    }
}

/// Whether one of the items is the same; NULL is NULL.
fn has(items: &[Value], wanted: &Value) -> bool {
    items.iter().any(|item| item.equals(wanted))
}

/// Each item where it first comes.
fn once<'a>(items: impl Iterator<Item = &'a Value>) -> Vec<Value> {
    let mut found: Vec<Value> = Vec::new();
    for item in items {
        if !has(&found, item) {
            found.push(item.clone());
        }
    }
    found
}

fn and(left: Option<bool>, right: Option<bool>) -> Option<bool> {
    match (left, right) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

fn whole_arithmetic(sign: char, one: i128, other: i128) -> Option<i128> {
    match sign {
        '+' => Some(one + other),
        '-' => Some(one - other),
        '*' => Some(one * other),
        '/' => (other != 0).then(|| one / other),
        _ => (other != 0).then(|| one % other),
    }
}

fn ten(power: u8) -> i128 {
    10_i128.pow(power.into())
}

/// A number with another number of places, rounded half away from zero; NULL if it has too many digits then.
fn scaled(value: i128, from: u8, precision: u8, to: u8) -> Value {
    let value = if to >= from {
        value * ten(to - from)
    } else {
        let divisor = ten(from - to);
        (value.abs() + divisor / 2) / divisor * value.signum()
    };
    if value.unsigned_abs() < ten(precision).unsigned_abs() { Value::Decimal(value) } else { Value::Null }
}

/// `%` is any text, `_` any character.
fn is_like(text: &str, pattern: &str) -> bool {
    match pattern.chars().next() {
        None => text.is_empty(),
        Some('%') => {
            let rest = &pattern[1..];
            text.char_indices().map(|(at, _)| at).chain([text.len()]).any(|at| is_like(&text[at..], rest))
        }
        Some(one) => {
            let mut chars = text.chars();
            chars.next().is_some_and(|first| (one == '_' || first == one) && is_like(chars.as_str(), &pattern[one.len_utf8()..]))
        }
    }
}

fn padded(text: &str, length: i64, padding: &str, left: bool) -> String {
    let length = usize::try_from(length).unwrap();
    let given = text.chars().count();
    if given >= length {
        return text.chars().take(length).collect();
    }
    let fill: String = padding.chars().cycle().take(length - given).collect();
    if left { format!("{fill}{text}") } else { format!("{text}{fill}") }
}

/// So many characters from a place on, the first at 1; a negative place counts from the end, 0 is 1.
fn part(text: &str, from: i64, length: i64) -> String {
    let chars: Vec<char> = text.chars().collect();
    let all = chars.len() as i64;
    let start = if from < 0 { (all + from).max(0) } else { (from - 1).max(0) };
    let end = (start + length).min(all);
    chars.iter().take(usize::try_from(end).unwrap()).skip(usize::try_from(start).unwrap()).collect()
}

/// An element of an array, from 1, or from the end if the place is negative; of a map that of a key.
fn element(value: &Value, at: &Value) -> Value {
    let found = match (value, at) {
        (Value::List(items), Value::Whole(at)) if *at > 0 => items.get(usize::try_from(*at - 1).unwrap()),
        (Value::List(items), Value::Whole(at)) if *at < 0 => {
            items.len().checked_sub(usize::try_from(-at).unwrap()).and_then(|at| items.get(at))
        }
        (Value::Map(entries), Value::Text(key)) => entries.iter().find(|entry| entry.0 == *key).map(|entry| &entry.1),
        _ => None,
    };
    found.cloned().unwrap_or(Value::Null)
}
