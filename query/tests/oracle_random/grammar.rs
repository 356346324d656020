//! Random expressions of a type, and how SQL writes them in each dialect.
//!
//! Only what the documents settle is written: where a rule is open (how a text that is nearly a number is read, say), the
//! grammar has no such call.

use foldlog_log::testing::Random;

use super::{
    schema::{Column, DECIMALS},
    value::{Type, Value, spelled},
};

/// By which rules a statement is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    Standard,
    Ksql,
}

impl Rules {
    /// A name without quotes as it is kept.
    pub fn name(self, name: &str) -> String {
        match self {
            Self::Standard => name.to_lowercase(),
            Self::Ksql => name.to_uppercase(),
        }
    }
}

pub fn one_of<'a, T>(random: &mut Random, of: &'a [T]) -> &'a T {
    &of[usize::try_from(random.below(of.len() as u64)).unwrap()]
}

/// True in so many of a hundred.
pub fn chance(random: &mut Random, percent: u64) -> bool {
    random.below(100) < percent
}

/// An expression with its type.
#[derive(Clone, Debug)]
pub struct Expr {
    pub of: Type,
    pub node: Node,
}

#[derive(Clone, Debug)]
pub enum Node {
    Column(usize, String),
    RowTime,
    RowPartition,
    RowOffset,
    Literal(Value),
    Arithmetic(char, Box<Expr>, Box<Expr>),
    Negate(Box<Expr>),
    Compare(&'static str, Box<Expr>, Box<Expr>),
    Distinct(Box<Expr>, Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Not(Box<Expr>),
    IsNull(Box<Expr>),
    In(Box<Expr>, Vec<Expr>, bool),
    Between(Box<Expr>, Box<Expr>, Box<Expr>),
    Like(Box<Expr>, String, bool),
    Case(Vec<(Expr, Expr)>, Option<Box<Expr>>),
    /// `CASE value WHEN ... THEN ...`
    CaseOf(Box<Expr>, Vec<(Expr, Expr)>, Option<Box<Expr>>),
    Cast(Box<Expr>),
    Call(&'static str, Vec<Expr>),
    /// An element of an array, from 1, or of a map.
    Element(Box<Expr>, Box<Expr>),
    Field(Box<Expr>, usize, String),
    /// `STRUCT(name := value, ...)`
    Struct(Vec<(String, Expr)>),
    /// `MAP('key' := value, ...)`
    Map(Vec<(String, Expr)>),
    Lambda(Lambda),
    /// The result of an aggregate of the query.
    Result(usize),
}

/// A call with a lambda for the elements of an array.
#[derive(Clone, Debug)]
pub struct Lambda {
    pub name: &'static str,
    pub list: Box<Expr>,
    /// Of REDUCE.
    pub state: Option<Box<Expr>>,
    /// Its parameters stand behind the columns of the source.
    pub body: Box<Expr>,
    parameters: Vec<String>,
}

impl Expr {
    fn new(of: Type, node: Node) -> Self {
        Self { of, node }
    }

    pub fn column(place: usize, column: &Column) -> Self {
        Self::new(column.of.clone(), Node::Column(place, column.name.clone()))
    }

    /// As SQL, the results of aggregates as they are written.
    pub fn sql(&self, rules: Rules, calls: &[String]) -> String {
        let of = |one: &Self| one.sql(rules, calls);
        let each = |all: &[Self]| all.iter().map(of).collect::<Vec<_>>().join(", ");
        let cases = |cases: &[(Self, Self)], last: &Option<Box<Self>>| {
            let cases: String = cases.iter().map(|(when, then)| format!(" WHEN {} THEN {}", of(when), of(then))).collect();
            format!("{cases}{} END", last.as_ref().map(|last| format!(" ELSE {}", of(last))).unwrap_or_default())
        };
        match &self.node {
            Node::Column(_, name) => name.clone(),
            Node::RowTime => "ROWTIME".to_owned(),
            Node::RowPartition => "ROWPARTITION".to_owned(),
            Node::RowOffset => "ROWOFFSET".to_owned(),
            Node::Literal(value) => literal(value, &self.of, rules),
            Node::Arithmetic(sign, left, right) => format!("({} {sign} {})", of(left), of(right)),
            Node::Negate(one) => format!("(- {})", of(one)),
            Node::Compare(sign, left, right) => format!("({} {sign} {})", of(left), of(right)),
            Node::Distinct(left, right) => format!("({} IS DISTINCT FROM {})", of(left), of(right)),
            Node::And(left, right) => format!("({} AND {})", of(left), of(right)),
            Node::Or(left, right) => format!("({} OR {})", of(left), of(right)),
            Node::Not(one) => format!("(NOT {})", of(one)),
            Node::IsNull(one) => format!("({} IS NULL)", of(one)),
            Node::In(one, list, negated) => format!("({} {}IN ({}))", of(one), if *negated { "NOT " } else { "" }, each(list)),
            Node::Between(one, low, high) => format!("({} BETWEEN {} AND {})", of(one), of(low), of(high)),
            Node::Like(one, pattern, negated) => format!("({} {}LIKE '{pattern}')", of(one), if *negated { "NOT " } else { "" }),
            Node::Case(all, last) => format!("CASE{}", cases(all, last)),
            Node::CaseOf(one, all, last) => format!("CASE {}{}", of(one), cases(all, last)),
            Node::Cast(one) => format!("CAST({} AS {})", of(one), self.of.sql()),
            Node::Call("||", arguments) => format!("({} || {})", of(&arguments[0]), of(&arguments[1])),
            Node::Call("MAKE_ARRAY", arguments) => format!("ARRAY[{}]", each(arguments)),
            Node::Call(name, arguments) => format!("{name}({})", each(arguments)),
            Node::Element(one, at) => format!("{}[{}]", of(one), of(at)),
            Node::Field(one, _, name) => format!("{}->{name}", of(one)),
            Node::Struct(fields) => {
                let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name} := {}", of(value))).collect();
                format!("STRUCT({})", fields.join(", "))
            }
            Node::Map(entries) => {
                let entries: Vec<String> = entries.iter().map(|(key, value)| format!("'{key}' := {}", of(value))).collect();
                format!("MAP({})", entries.join(", "))
            }
            Node::Lambda(Lambda { name, list, state, body, parameters }) => {
                let state = state.as_ref().map(|state| format!(", {}", of(state))).unwrap_or_default();
                format!("{name}({}{state}, ({}) => {})", of(list), parameters.join(", "), of(body))
            }
            Node::Result(call) => calls[*call].clone(),
        }
    }

    /// Whether a column of the source is in it.
    pub fn has_column(&self) -> bool {
        let any = |all: &[&Self]| all.iter().any(|one| one.has_column());
        match &self.node {
            Node::Column(..) => true,
            Node::RowTime | Node::RowPartition | Node::RowOffset | Node::Literal(_) | Node::Result(_) => false,
            Node::Arithmetic(_, left, right)
            | Node::Compare(_, left, right)
            | Node::Distinct(left, right)
            | Node::And(left, right)
            | Node::Or(left, right)
            | Node::Element(left, right) => any(&[left, right]),
            Node::Negate(one) | Node::Not(one) | Node::IsNull(one) | Node::Cast(one) | Node::Like(one, ..) | Node::Field(one, ..) => {
                one.has_column()
            }
            Node::In(one, ..) | Node::CaseOf(one, ..) => one.has_column(),
            Node::Between(one, low, high) => any(&[one, low, high]),
            Node::Case(all, _) => all.iter().any(|(when, then)| when.has_column() || then.has_column()),
            Node::Call(_, arguments) => arguments.iter().any(Self::has_column),
            Node::Struct(parts) | Node::Map(parts) => parts.iter().any(|(_, part)| part.has_column()),
            Node::Lambda(lambda) => lambda.list.has_column(),
        }
    }
}

fn literal(value: &Value, of: &Type, rules: Rules) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    match (value, of) {
        (Value::Null, _) => format!("CAST(NULL AS {})", of.sql()),
        (Value::Bool(value), _) => value.to_string(),
        (Value::Whole(value), Type::Int) if rules == Rules::Standard => format!("CAST({value} AS INTEGER)"),
        (Value::Whole(value), Type::Long) if rules == Rules::Ksql => format!("CAST({value} AS BIGINT)"),
        (Value::Whole(value), _) => value.to_string(),
        (Value::Double(value), _) => format!("{value:e}"),
        (Value::Decimal(_), of) => format!("CAST('{}' AS {})", spelled(value, of), of.sql()),
        (Value::Text(text), _) => quoted(text),
        (other, of) => panic!("{other:?} of {of:?} has no literal"),
    }
}

/// Writes expressions over the columns of a source.
pub struct Writer<'a> {
    pub random: &'a mut Random,
    pub columns: &'a [Column],
    pub rules: Rules,
}

/// Types that expressions compute; of others there are only columns.
const COMPUTED: [Type; 8] = [Type::Int, Type::Long, Type::Long, Type::Double, Type::Decimal(10, 2), Type::Text, Type::Text, Type::Bool];
const COMPARISONS: [&str; 6] = ["=", "<>", "<", "<=", ">", ">="];
const PATTERNS: [&str; 6] = ["a%", "%b", "_", "%", "a_c", "%1%"];

impl Writer<'_> {
    fn pick<'b, T>(&mut self, of: &'b [T]) -> &'b T {
        one_of(self.random, of)
    }

    fn is_ksql(&self) -> bool {
        self.rules == Rules::Ksql
    }

    /// A type that an expression may be asked for.
    pub fn computed_type(&mut self) -> Type {
        if chance(self.random, 55) {
            let of = self.columns.iter().map(|column| column.of.clone()).collect::<Vec<_>>();
            return self.pick(&of).clone();
        }
        self.pick(&COMPUTED).clone()
    }

    /// An expression of a type, at most so deep.
    pub fn expression(&mut self, of: &Type, depth: u32) -> Expr {
        if depth == 0 || chance(self.random, 25) {
            return self.leaf(of);
        }
        let depth = depth - 1;
        match self.random.below(14) {
            0 => self.case(of, depth),
            1 => self.case_of(of, depth),
            2 => {
                let name = *self.pick(&["COALESCE", "IFNULL"]);
                self.call(of, name, &[of, of], depth)
            }
            6 if self.is_ksql() && chance(self.random, 30) => self.of_list(of, depth),
            // Over nested values the engine's `=` is another matter.
            3 if of.has_order() => self.call(of, "NULLIF", &[of, of], depth),
            4 if matches!(of, Type::Int | Type::Long | Type::Text | Type::Date) => {
                let name = *self.pick(&["GREATEST", "LEAST"]);
                self.call(of, name, &[of, of], depth)
            }
            5 => self.taken_out(of, depth).unwrap_or_else(|| self.leaf(of)),
            _ => match of {
                Type::Int => self.int(depth),
                Type::Long => self.long(depth),
                Type::Double => self.double(depth),
                Type::Decimal(..) => self.decimal(of, depth),
                Type::Text => self.text(depth),
                Type::Bool => self.truth(depth),
                Type::List(item) => self.list(of, item, depth),
                Type::Map(item) => {
                    let keys = ["x", "y"].into_iter().filter(|_| self.random.one_in(2)).chain(["z"]).collect::<Vec<_>>();
                    let entries = keys.into_iter().map(|key| (key.to_owned(), self.expression(item, depth.min(1)))).collect();
                    Expr::new(of.clone(), Node::Map(entries))
                }
                Type::Struct(fields) => {
                    let fields = fields.iter().map(|(name, of)| (name.clone(), self.expression(of, depth.min(1)))).collect();
                    Expr::new(of.clone(), Node::Struct(fields))
                }
                _ => self.leaf(of),
            },
        }
    }

    /// A column of a type, if there is one, or a literal.
    pub fn leaf(&mut self, of: &Type) -> Expr {
        let fitting: Vec<usize> = (0..self.columns.len()).filter(|place| self.columns[*place].of == *of).collect();
        if !fitting.is_empty() && !chance(self.random, 20) {
            let place = *self.pick(&fitting);
            return Expr::column(place, &self.columns[place]);
        }
        match of {
            Type::Int if chance(self.random, 15) => return Expr::new(Type::Int, Node::RowPartition),
            Type::Long if chance(self.random, 8) => return Expr::new(Type::Long, Node::RowOffset),
            Type::Long if self.is_ksql() && chance(self.random, 8) => return Expr::new(Type::Long, Node::RowTime),
            Type::Stamp if !self.is_ksql() => return Expr::new(Type::Stamp, Node::RowTime),
            _ => {}
        }
        let value = if chance(self.random, 8) { Value::Null } else { self.literal(of) };
        Expr::new(of.clone(), Node::Literal(value))
    }

    fn literal(&mut self, of: &Type) -> Value {
        match of {
            Type::Bool => Value::Bool(self.random.one_in(2)),
            Type::Int => Value::Whole(*self.pick(&[0, 1, 2, 3, -1, 7, i64::from(i32::MAX), 1 - i64::from(i32::MAX)])),
            Type::Long => Value::Whole(*self.pick(&[0, 1, 2, 3, -1, 5_000_000_000, i64::MAX, 1 - i64::MAX])),
            Type::Double => Value::Double(*self.pick(&[0.0, 1.0, 0.5, -2.0, 1e10])),
            Type::Decimal(..) => Value::Decimal(*self.pick(&[0, 1, 250, -125, 4000])),
            Type::Text => Value::Text((*self.pick(&["", "a", "b", "12", "it's", "é", "abc"])).to_owned()),
            // The others have no literal that means the same in both dialects.
            _ => Value::Null,
        }
    }

    fn call(&mut self, of: &Type, name: &'static str, arguments: &[&Type], depth: u32) -> Expr {
        let arguments = arguments.iter().map(|of| self.expression(of, depth)).collect();
        Expr::new(of.clone(), Node::Call(name, arguments))
    }

    fn case(&mut self, of: &Type, depth: u32) -> Expr {
        let count = 1 + self.random.below(2);
        let cases = (0..count).map(|_| (self.truth(depth), self.expression(of, depth))).collect();
        let last = if chance(self.random, 70) { Some(Box::new(self.expression(of, depth))) } else { None };
        Expr::new(of.clone(), Node::Case(cases, last))
    }

    fn case_of(&mut self, of: &Type, depth: u32) -> Expr {
        let tested = self.pick(&[Type::Long, Type::Text, Type::Int, Type::Double]).clone();
        let value = self.expression(&tested, depth);
        let count = 1 + self.random.below(2);
        let cases = (0..count).map(|_| (self.expression(&tested, 0), self.expression(of, depth))).collect();
        let last = if chance(self.random, 70) { Some(Box::new(self.expression(of, depth))) } else { None };
        Expr::new(of.clone(), Node::CaseOf(Box::new(value), cases, last))
    }

    /// A part of a column that has parts of this type.
    fn taken_out(&mut self, of: &Type, depth: u32) -> Option<Expr> {
        let mut parts = Vec::new();
        for (place, column) in self.columns.iter().enumerate() {
            let whole = || Box::new(Expr::column(place, column));
            match &column.of {
                Type::List(item) if **item == *of => {
                    let at = Expr::new(
                        if self.is_ksql() { Type::Int } else { Type::Long },
                        Node::Literal(Value::Whole(self.random.below(5).cast_signed() - 2)),
                    );
                    parts.push(Node::Element(whole(), Box::new(at)));
                }
                Type::Map(item) if **item == *of => {
                    let key = (*one_of(self.random, &["x", "y", "none"])).to_owned();
                    parts.push(Node::Element(whole(), Box::new(Expr::new(Type::Text, Node::Literal(Value::Text(key))))));
                }
                Type::Struct(fields) => {
                    let fitting = fields.iter().enumerate().filter(|(_, field)| field.1 == *of);
                    parts.extend(fitting.map(|(at, field)| Node::Field(whole(), at, field.0.clone())));
                }
                _ => {}
            }
        }
        let _ = depth;
        if parts.is_empty() { None } else { Some(Expr::new(of.clone(), self.pick(&parts).clone())) }
    }

    fn arithmetic(&mut self, of: &Type, left: &Type, right: &Type, depth: u32) -> Expr {
        let sign = *self.pick(&['+', '-', '*', '/', '%']);
        let (left, right) = (self.expression(left, depth), self.expression(right, depth));
        Expr::new(of.clone(), Node::Arithmetic(sign, Box::new(left), Box::new(right)))
    }

    fn cast(&mut self, from: &Type, to: &Type, depth: u32) -> Expr {
        let one = self.expression(from, depth);
        Expr::new(to.clone(), Node::Cast(Box::new(one)))
    }

    fn int(&mut self, depth: u32) -> Expr {
        let of = Type::Int;
        match self.random.below(10) {
            0 => Expr::new(of.clone(), Node::Negate(Box::new(self.expression(&of, depth)))),
            1 => self.cast(&Type::Long, &of, depth),
            2 => self.cast(&Type::Double, &of, depth),
            3 => self.cast(&Type::Text, &of, depth),
            4 => self.call(&of, "LEN", &[&Type::Text], depth),
            5 => self.call(&of, "FIELD", &[&Type::Text, &Type::Text, &Type::Text], depth),
            6 => {
                let from = self.pick(&[Type::Int, Type::Long]).clone();
                self.call(&of, "SIGN", &[&from], depth)
            }
            7 if self.is_ksql() => self.call(&of, "INSTR", &[&Type::Text, &Type::Text], depth),
            7 => self.call(&of, "ABS", &[&of], depth),
            _ => self.arithmetic(&of, &of, &of, depth),
        }
    }

    fn long(&mut self, depth: u32) -> Expr {
        let of = Type::Long;
        match self.random.below(10) {
            0 => Expr::new(of.clone(), Node::Negate(Box::new(self.expression(&of, depth)))),
            1 => self.cast(&Type::Int, &of, depth),
            2 => self.cast(&Type::Double, &of, depth),
            3 => self.cast(&Type::Text, &of, depth),
            4 => self.call(&of, "ABS", &[&of], depth),
            5 => self.arithmetic(&of, &of, &Type::Int, depth),
            6 => self.arithmetic(&of, &Type::Int, &of, depth),
            _ => self.arithmetic(&of, &of, &of, depth),
        }
    }

    fn double(&mut self, depth: u32) -> Expr {
        let of = Type::Double;
        match self.random.below(9) {
            0 => Expr::new(of.clone(), Node::Negate(Box::new(self.expression(&of, depth)))),
            1 => self.cast(&Type::Int, &of, depth),
            2 => self.cast(&Type::Long, &of, depth),
            3 => self.call(&of, "SQRT", &[&of], depth),
            4 => self.call(&of, "ABS", &[&of], depth),
            5 => self.arithmetic(&of, &of, &Type::Long, depth),
            _ => self.arithmetic(&of, &of, &of, depth),
        }
    }

    fn decimal(&mut self, of: &Type, depth: u32) -> Expr {
        let to = of;
        match self.random.below(6) {
            0 => self.cast(&Type::Int, of, depth),
            1 => Expr::new(of.clone(), Node::Negate(Box::new(self.expression(of, depth)))),
            2 => {
                let from = self.pick(&DECIMALS).clone();
                Expr::new(of.clone(), Node::Cast(Box::new(self.leaf(&from))))
            }
            _ => {
                // What comes of two DECIMAL has more digits than any column here; a cast brings it back.
                let sign = *self.pick(if self.is_ksql() { &['+', '-', '*', '/'] } else { &['+', '-', '*', '*'] });
                // A quotient of two long ones would have more than 38 digits.
                let of = if sign == '/' { &DECIMALS[..2] } else { &DECIMALS[..] };
                let types = [self.pick(of).clone(), self.pick(of).clone()];
                let made = decimal_of(sign, &types[0], &types[1]);
                let (left, right) = (self.expression(&types[0], depth), self.expression(&types[1], depth));
                let made = Expr::new(made, Node::Arithmetic(sign, Box::new(left), Box::new(right)));
                Expr::new(to.clone(), Node::Cast(Box::new(made)))
            }
        }
    }

    fn text(&mut self, depth: u32) -> Expr {
        let (of, long) = (Type::Text, Type::Long);
        let small = Expr::new(Type::Int, Node::Literal(Value::Whole(self.random.below(6).cast_signed())));
        match self.random.below(13) {
            0 => self.call(&of, "UCASE", &[&of], depth),
            1 => self.call(&of, "LCASE", &[&of], depth),
            2 => self.call(&of, "CONCAT", &[&of, &of], depth),
            3 => self.call(&of, "||", &[&of, &of], depth),
            4 => self.cast(&long, &of, depth),
            5 => self.cast(&Type::Bool, &of, depth),
            6 => self.cast(&DECIMALS[0], &of, depth),
            7 => {
                let name = *self.pick(&["LPAD", "RPAD"]);
                let padding = Expr::new(Type::Text, Node::Literal(Value::Text((*self.pick(&["*", "xy"])).to_owned())));
                Expr::new(of.clone(), Node::Call(name, vec![self.expression(&of, depth), small, padding]))
            }
            8 if self.is_ksql() => self.call(&of, "TRIM", &[&of], depth),
            9 if self.is_ksql() => {
                let place = Expr::new(Type::Int, Node::Literal(Value::Whole(self.random.below(7).cast_signed() - 3)));
                Expr::new(of.clone(), Node::Call("SUBSTRING", vec![self.expression(&of, depth), place, small]))
            }
            10 => {
                let old = Expr::new(Type::Text, Node::Literal(Value::Text((*self.pick(&["a", "b", "X"])).to_owned())));
                Expr::new(of.clone(), Node::Call("REPLACE", vec![self.expression(&of, depth), old, self.expression(&of, depth)]))
            }
            11 => Expr::new(of.clone(), Node::Call("ELT", vec![small, self.expression(&of, depth), self.expression(&of, depth)])),
            12 if self.is_ksql() => {
                let (left, right) = (self.expression(&of, depth), self.expression(&of, depth));
                Expr::new(of, Node::Arithmetic('+', Box::new(left), Box::new(right)))
            }
            _ => self.leaf(&of),
        }
    }

    fn list(&mut self, of: &Type, item: &Type, depth: u32) -> Expr {
        let is_plain = matches!(item, Type::Int | Type::Long | Type::Double | Type::Text | Type::Bool);
        match self.random.below(if self.is_ksql() { 8 } else { 3 }) {
            0 if *item == Type::Text => self.call(of, "SPLIT", &[&Type::Text, &Type::Text], 0),
            0 | 1 if is_plain => {
                let items = (0..1 + self.random.below(3)).map(|_| self.expression(item, depth)).collect();
                Expr::new(of.clone(), Node::Call("MAKE_ARRAY", items))
            }
            3 if is_plain => {
                let name = *self.pick(&["ARRAY_CONCAT", "ARRAY_UNION", "ARRAY_EXCEPT", "ARRAY_INTERSECT"]);
                self.call(of, name, &[of, of], depth.min(1))
            }
            4 if is_plain => self.call(of, "ARRAY_DISTINCT", &[of], depth),
            5 => {
                let [from, to] =
                    [0, 1].map(|least| Expr::new(Type::Int, Node::Literal(Value::Whole(least + self.random.below(3).cast_signed()))));
                let list = self.expression(of, depth.min(1));
                Expr::new(of.clone(), Node::Call("SLICE", vec![list, from, to]))
            }
            6 if is_counted(item) => {
                let from = self.pick(&[Type::Int, Type::Long, Type::Double, Type::Text]).clone();
                self.lambda("TRANSFORM", of, &from, depth)
            }
            7 => self.lambda("FILTER", of, item, depth),
            _ => self.leaf(of),
        }
    }

    /// Something that an array has.
    fn of_list(&mut self, of: &Type, depth: u32) -> Expr {
        let inner = self.pick(&[Type::Int, Type::Long, Type::Text, Type::Double]).clone();
        let list = |of: &Type| Type::List(Box::new(of.clone()));
        match of {
            Type::Bool => self.call(of, "ARRAY_CONTAINS", &[&list(&inner), &inner], depth.min(1)),
            Type::Int if self.random.one_in(2) => self.call(of, "ARRAY_LENGTH", &[&list(&inner)], depth),
            of if is_counted(of) && self.random.one_in(2) => self.lambda("REDUCE", of, &inner, depth),
            Type::Int | Type::Long | Type::Double | Type::Text => {
                let name = *self.pick(&["ARRAY_MAX", "ARRAY_MIN"]);
                self.call(of, name, &[&list(of)], depth)
            }
            _ => self.leaf(of),
        }
    }

    /// A lambda over a list of `item` that gives a value of a type.
    fn lambda(&mut self, name: &'static str, of: &Type, item: &Type, depth: u32) -> Expr {
        let list = Box::new(self.expression(&Type::List(Box::new(item.clone())), depth.min(1)));
        let is_reduce = name == "REDUCE";
        let makes = match of {
            Type::List(made) if !is_reduce => made,
            of => of,
        };
        let state = is_reduce.then(|| Box::new(Expr::new(of.clone(), Node::Literal(self.literal(of)))));
        let mut columns = self.columns.to_vec();
        let mut parameters = Vec::new();
        for (parameter, of) in is_reduce.then_some(("state9", of)).into_iter().chain([("x9", item)]) {
            columns.push(Column::new(self.rules, parameter, of.clone(), false));
            parameters.push(self.rules.name(parameter));
        }
        let mut within = Writer { random: self.random, columns: &columns, rules: self.rules };
        let body = if name == "FILTER" { within.kept(2) } else { within.made(makes, 2) };
        Expr::new(of.clone(), Node::Lambda(Lambda { name, list, state, body: Box::new(body), parameters }))
    }

    /// The body of a lambda that makes something: of what it has it is settled what fails.
    fn made(&mut self, of: &Type, depth: u32) -> Expr {
        if depth == 0 || chance(self.random, 20) {
            return self.within(of);
        }
        let depth = depth - 1;
        if *of == Type::Text {
            let name = *self.pick(&["CONCAT", "UCASE", "LCASE"]);
            let arguments = (0..if name == "CONCAT" { 2 } else { 1 }).map(|_| self.made(of, depth)).collect();
            return Expr::new(of.clone(), Node::Call(name, arguments));
        }
        let sign = *self.pick(&['+', '-', '*', '/', '%']);
        let (left, right) = (self.made(of, depth), self.made(of, depth));
        Expr::new(of.clone(), Node::Arithmetic(sign, Box::new(left), Box::new(right)))
    }

    /// The body of a lambda that says what stays.
    fn kept(&mut self, depth: u32) -> Expr {
        let of = |node| Expr::new(Type::Bool, node);
        let one = self.pick(&[Type::Int, Type::Long, Type::Double, Type::Text]).clone();
        match self.random.below(if depth == 0 { 3 } else { 5 }) {
            0 => {
                let place = self.columns.len() - 1;
                of(Node::Not(Box::new(of(Node::IsNull(Box::new(Expr::column(place, &self.columns[place])))))))
            }
            3 => of(Node::And(Box::new(self.kept(depth - 1)), Box::new(self.kept(depth - 1)))),
            4 => of(Node::Or(Box::new(self.kept(depth - 1)), Box::new(self.kept(depth - 1)))),
            _ => {
                let sign = *self.pick(&COMPARISONS);
                of(Node::Compare(sign, Box::new(self.made(&one, depth)), Box::new(self.made(&one, 0))))
            }
        }
    }

    /// A parameter of a lambda, if one has the type, or a leaf.
    fn within(&mut self, of: &Type) -> Expr {
        let fitting = (0..self.columns.len()).rev().take(2).find(|place| self.columns[*place].of == *of);
        match fitting.filter(|_| chance(self.random, 65)) {
            Some(place) => Expr::column(place, &self.columns[place]),
            None => Expr::new(of.clone(), Node::Literal(self.literal(of))),
        }
    }

    /// A BOOLEAN.
    pub fn truth(&mut self, depth: u32) -> Expr {
        let of = |node| Expr::new(Type::Bool, node);
        let some = [Type::Int, Type::Long, Type::Double, Type::Text, DECIMALS[0].clone(), Type::Date, Type::Stamp];
        if depth == 0 {
            let place = self.random.below(self.columns.len() as u64);
            let column = Expr::column(usize::try_from(place).unwrap(), &self.columns[usize::try_from(place).unwrap()]);
            return of(Node::IsNull(Box::new(column)));
        }
        let inner = depth - 1;
        let one = self.pick(&some).clone();
        match self.random.below(12) {
            0 => of(Node::And(Box::new(self.truth(inner)), Box::new(self.truth(inner)))),
            1 => of(Node::Or(Box::new(self.truth(inner)), Box::new(self.truth(inner)))),
            2 => of(Node::Not(Box::new(self.truth(inner)))),
            3 => {
                let any = self.computed_type();
                of(Node::IsNull(Box::new(self.expression(&any, inner))))
            }
            4 => of(Node::Distinct(Box::new(self.expression(&one, inner)), Box::new(self.expression(&one, inner)))),
            5 => {
                let one = self.pick(&some[..4]).clone();
                let list = (0..1 + self.random.below(3)).map(|_| self.expression(&one, inner.min(1))).collect();
                of(Node::In(Box::new(self.expression(&one, inner)), list, chance(self.random, 30)))
            }
            6 => {
                let parts = [self.expression(&one, inner), self.expression(&one, inner), self.expression(&one, inner)].map(Box::new);
                let [value, low, high] = parts;
                of(Node::Between(value, low, high))
            }
            7 => {
                let pattern = (*self.pick(&PATTERNS)).to_owned();
                of(Node::Like(Box::new(self.expression(&Type::Text, inner)), pattern, chance(self.random, 30)))
            }
            8 => self.leaf(&Type::Bool),
            _ => {
                let numbers = [Type::Int, Type::Long, Type::Double];
                let (left, right) = if one.is_number() && !matches!(one, Type::Decimal(..)) {
                    (self.pick(&numbers).clone(), self.pick(&numbers).clone())
                } else {
                    (one.clone(), one)
                };
                let sign = *self.pick(&COMPARISONS);
                of(Node::Compare(sign, Box::new(self.expression(&left, inner)), Box::new(self.expression(&right, inner))))
            }
        }
    }
}

fn is_counted(of: &Type) -> bool {
    matches!(of, Type::Int | Type::Long | Type::Double | Type::Text)
}

/// The type of what two DECIMAL make, small enough that both dialects agree on it.
pub fn decimal_of(sign: char, left: &Type, right: &Type) -> Type {
    let (Type::Decimal(p1, s1), Type::Decimal(p2, s2)) = (left, right) else { panic!("{left:?} {sign} {right:?}") };
    match sign {
        '*' => Type::Decimal(p1 + p2 + 1, s1 + s2),
        '/' => {
            let scale = (s1 + p2 + 1).max(6);
            Type::Decimal(p1 - s1 + s2 + scale, scale)
        }
        _ => {
            let scale = *s1.max(s2);
            Type::Decimal((p1 - s1).max(p2 - s2) + scale + 1, scale)
        }
    }
}
