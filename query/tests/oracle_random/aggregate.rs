//! What the aggregates give for the rows of a group: computed anew from all of them, never kept.

use super::{
    grammar::{Expr, Rules, Writer, chance, one_of},
    schema::DECIMALS,
    value::{Type, Value},
};

/// An aggregate with what it is called with.
#[derive(Clone, Debug)]
pub struct Call {
    pub function: Function,
    pub arguments: Vec<Expr>,
    pub filter: Option<Expr>,
    pub of: Type,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Function {
    CountStar,
    Count,
    CountDistinct,
    Sum,
    SumList,
    Avg,
    Min,
    Max,
    /// The first ones or the last ones, how many of them, and whether NULL is one.
    ByOffset {
        latest: bool,
        count: Option<usize>,
        nulls: bool,
    },
    CollectList,
    CollectSet,
    TopK(usize),
    TopKDistinct(usize),
    Histogram,
    Attr,
    Correlation,
    /// A spread, and whether its root is taken.
    Spread {
        name: &'static str,
        is_root: bool,
    },
}

/// What a row of a result has in a column.
#[derive(Clone, Debug)]
pub enum Cell {
    Exactly(Value),
    /// The same with whichever zero.
    WithOneZero(Value),
    /// A map in any order.
    Unordered(Vec<(String, Value)>),
    /// A DOUBLE that may be so far off: it depends on the order in which rounded numbers are added.
    Near(f64, f64),
    /// What the documents leave open.
    Anything,
}

impl Cell {
    /// The value, where it is settled.
    pub fn value(&self) -> Option<&Value> {
        match self {
            Self::Exactly(value) | Self::WithOneZero(value) => Some(value),
            Self::Unordered(_) | Self::Near(..) | Self::Anything => None,
        }
    }

    pub fn allows(&self, found: &Value) -> bool {
        match (self, found) {
            (Self::Anything, _) => true,
            (Self::Exactly(value), found) => value.is_same(found),
            (Self::WithOneZero(value), found) => value.equals(found),
            (Self::Unordered(entries), Value::Map(found)) => {
                let is_there = |entry: &(String, Value)| found.iter().any(|one| one.0 == entry.0 && one.1.is_same(&entry.1));
                entries.len() == found.len() && entries.iter().all(is_there)
            }
            (Self::Unordered(_), _) => false,
            (Self::Near(value, off), Value::Double(found)) => (value - found).abs() <= *off,
            (Self::Near(..), _) => false,
        }
    }
}

/// What happened to a group: a row came, or one was taken back.
#[derive(Clone, Debug)]
pub struct Event {
    pub adds: bool,
    /// Which row: a taken one has the number that it came with.
    pub row: u64,
    /// Of each call its arguments; none where its filter leaves the row out.
    pub arguments: Vec<Option<Vec<Value>>>,
}

impl Call {
    /// As SQL.
    pub fn sql(&self, rules: Rules) -> String {
        let mut arguments: Vec<String> = self.arguments.iter().map(|argument| argument.sql(rules, &[])).collect();
        let name = match &self.function {
            Function::CountStar => {
                arguments.push("*".to_owned());
                "COUNT"
            }
            Function::Count => "COUNT",
            Function::CountDistinct => "COUNT_DISTINCT",
            Function::Sum => "SUM",
            Function::SumList => "SUM_LIST",
            Function::Avg => "AVG",
            Function::Min => "MIN",
            Function::Max => "MAX",
            Function::ByOffset { latest, count, nulls } => {
                arguments.extend(count.map(|count| count.to_string()));
                arguments.extend(nulls.then(|| "FALSE".to_owned()));
                if *latest { "LATEST_BY_OFFSET" } else { "EARLIEST_BY_OFFSET" }
            }
            Function::CollectList => "COLLECT_LIST",
            Function::CollectSet => "COLLECT_SET",
            Function::TopK(count) => {
                arguments.push(count.to_string());
                "TOPK"
            }
            Function::TopKDistinct(count) => {
                arguments.push(count.to_string());
                "TOPKDISTINCT"
            }
            Function::Histogram => "HISTOGRAM",
            Function::Attr => "ATTR",
            Function::Correlation => "CORRELATION",
            Function::Spread { name, .. } => *name,
        };
        let filter = self.filter.as_ref().map(|filter| format!(" FILTER (WHERE {})", filter.sql(rules, &[]))).unwrap_or_default();
        format!("{name}({}){filter}", arguments.join(", "))
    }

    /// Whether an expression or HAVING may compute with it: what is exact, and a number.
    pub fn is_plain(&self) -> bool {
        matches!(self.function, Function::CountStar | Function::Count | Function::CountDistinct)
    }

    /// The result for a group.
    pub fn result(&self, place: usize, events: &[Event], rules: Rules, over_table: bool) -> Cell {
        let taken_by_value = rules == Rules::Ksql && self.function == Function::CollectList;
        let mut rows: Vec<(u64, &Vec<Value>)> = Vec::new();
        let mut has_taken = false;
        for event in events {
            let Some(arguments) = &event.arguments[place] else { continue };
            if event.adds {
                rows.push((event.row, arguments));
                continue;
            }
            has_taken = true;
            // A row takes itself back; a list of ksqlDB the first value that is equal.
            let own = |(row, given): &(u64, &Vec<Value>)| if taken_by_value { given[0].is_same(&arguments[0]) } else { *row == event.row };
            let at = rows.iter().position(own).expect("what is taken back has come");
            rows.remove(at);
        }
        let all: Vec<&Vec<Value>> = rows.into_iter().map(|(_, arguments)| arguments).collect();
        let given = || all.iter().map(|arguments| &arguments[0]).filter(|value| !value.is_null());
        let exactly = |value: Option<Value>| Cell::Exactly(value.unwrap_or(Value::Null));
        // Values that are told apart are shown with the one zero that there is.
        let told_apart = |value: Option<Value>| Cell::WithOneZero(value.unwrap_or(Value::Null));
        // Over a table values are kept, and of those there is one zero.
        let extreme = |value: Option<Value>| if over_table { told_apart(value) } else { exactly(value) };
        match &self.function {
            Function::CountStar => exactly(Some(Value::Whole(all.len() as i64))),
            Function::Count => exactly(Some(Value::Whole(given().count() as i64))),
            Function::CountDistinct => exactly(Some(Value::Whole(different(given()).len() as i64))),
            Function::Sum | Function::Avg => {
                let seen: Vec<f64> = numbers_ever(events, place, &self.arguments[0].of);
                let values: Vec<Value> = given().cloned().collect();
                self.summed(&values, &self.arguments[0].of, rules, has_taken.then_some(&seen))
            }
            Function::SumList => {
                let Type::List(item) = &self.arguments[0].of else { panic!("no list") };
                let items = given().flat_map(|list| if let Value::List(items) = list { items.clone() } else { Vec::new() });
                let items: Vec<Value> = items.filter(|value| !value.is_null()).collect();
                if has_taken && **item == Type::Double {
                    return Cell::Anything;
                }
                self.summed(&items, item, rules, None)
            }
            Function::Min => extreme(given().min_by(|left, right| left.order(right)).cloned()),
            Function::Max => extreme(given().max_by(|left, right| left.order(right)).cloned()),
            Function::ByOffset { latest, count, nulls } => {
                let mut kept: Vec<Value> =
                    all.iter().map(|arguments| arguments[0].clone()).filter(|value| *nulls || !value.is_null()).collect();
                let most = count.unwrap_or(1).min(kept.len());
                let kept = if *latest { kept.split_off(kept.len() - most) } else { kept[..most].to_vec() };
                told_apart(if count.is_some() { Some(Value::List(kept)) } else { kept.into_iter().next() })
            }
            Function::CollectList => told_apart(Some(Value::List(all.iter().map(|arguments| arguments[0].clone()).collect()))),
            Function::CollectSet => {
                told_apart(Some(Value::List(different(all.iter().map(|arguments| &arguments[0])).into_iter().cloned().collect())))
            }
            Function::TopK(count) => {
                let mut kept: Vec<&Vec<Value>> = all.into_iter().filter(|arguments| !arguments[0].is_null()).collect();
                // Stable: of equal ones the first to come.
                kept.sort_by(|left, right| right[0].compare(&left[0]));
                let item =
                    |arguments: &Vec<Value>| if arguments.len() == 1 { arguments[0].clone() } else { Value::Struct(arguments.clone()) };
                told_apart(Some(Value::List(kept.into_iter().take(*count).map(item).collect())))
            }
            Function::TopKDistinct(count) => {
                let mut kept: Vec<Value> = different(given()).into_iter().cloned().collect();
                kept.sort_by(|left, right| right.order(left));
                kept.truncate(*count);
                told_apart(Some(Value::List(kept)))
            }
            Function::Histogram => {
                let mut counts: Vec<(String, i64)> = Vec::new();
                for text in given().filter_map(Value::text) {
                    match counts.iter_mut().find(|one| one.0 == text) {
                        Some(one) => one.1 += 1,
                        None => counts.push((text.to_owned(), 1)),
                    }
                }
                Cell::Unordered(counts.into_iter().map(|(text, count)| (text, Value::Whole(count))).collect())
            }
            Function::Attr => {
                let kinds = different(all.iter().map(|arguments| &arguments[0]));
                told_apart(if kinds.len() == 1 { kinds.first().map(|value| (*value).clone()) } else { None })
            }
            Function::Correlation => self.correlation(&all, rules, has_taken),
            Function::Spread { is_root, name } => self.spread(&given().cloned().collect::<Vec<_>>(), *is_root, name, rules, events, place),
        }
    }

    /// The sum of values that are not NULL, or their mean. `seen`: all that was ever added, if something was taken back.
    fn summed(&self, values: &[Value], of: &Type, rules: Rules, seen: Option<&Vec<f64>>) -> Cell {
        let is_mean = self.function == Function::Avg;
        let is_ksql = rules == Rules::Ksql;
        if values.is_empty() {
            return Cell::Exactly(match &self.of {
                _ if !is_ksql => Value::Null,
                Type::Double => Value::Double(0.0),
                Type::Decimal(..) => Value::Decimal(0),
                _ => Value::Whole(0),
            });
        }
        let count = values.len() as f64;
        match of {
            Type::Double => {
                let sum = values.iter().filter_map(|value| value.number(of)).fold(0.0, |sum, value| sum + value);
                let sum = if is_mean { sum / count } else { sum };
                let Some(seen) = seen else { return Cell::Exactly(Value::Double(sum)) };
                near(sum, seen, 1)
            }
            Type::Decimal(..) if is_mean => {
                let sum: i128 = values.iter().map(unscaled).sum();
                let Type::Decimal(_, scale) = of else { panic!("no DECIMAL") };
                let mean = sum as f64 / 10_f64.powi((*scale).into()) / count;
                Cell::Near(mean, mean.abs() * 1e-14)
            }
            Type::Decimal(..) => {
                let Type::Decimal(precision, _) = &self.of else { panic!("no DECIMAL") };
                let sum: i128 = values.iter().map(unscaled).sum();
                if sum.unsigned_abs() < 10_u128.pow((*precision).into()) {
                    return Cell::Exactly(Value::Decimal(sum));
                }
                Cell::Anything
            }
            _ => {
                let sum: i128 = values.iter().filter_map(Value::whole).map(i128::from).sum();
                if is_mean {
                    return Cell::Exactly(Value::Double(sum as f64 / count));
                }
                Cell::Exactly(match self.of {
                    Type::Int => Value::Whole(i64::from(sum as i32)),
                    _ if is_ksql => Value::Whole(sum as i64),
                    _ => i64::try_from(sum).map_or(Value::Null, Value::Whole),
                })
            }
        }
    }

    fn correlation(&self, all: &[&Vec<Value>], rules: Rules, has_taken: bool) -> Cell {
        let number = |arguments: &Vec<Value>, at: usize| arguments[at].number(&self.arguments[at].of);
        let pairs: Vec<(f64, f64)> = all.iter().filter_map(|one| number(one, 0).zip(number(one, 1))).collect();
        if pairs.iter().any(|(x, y)| x.abs() > 1e9 || y.abs() > 1e9 || !x.is_finite() || !y.is_finite()) {
            return Cell::Anything;
        }
        let count = pairs.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>() / count;
        let (x, y) = (mean(|pair| pair.0), mean(|pair| pair.1));
        let products: f64 = pairs.iter().map(|pair| (pair.0 - x) * (pair.1 - y)).sum();
        let squares = [pairs.iter().map(|pair| (pair.0 - x).powi(2)).sum::<f64>(), pairs.iter().map(|pair| (pair.1 - y).powi(2)).sum()];
        let is_flat = pairs.iter().all(|pair| pair.0 == pairs[0].0) || pairs.iter().all(|pair| pair.1 == pairs[0].1);
        match (pairs.is_empty() || is_flat, rules) {
            // What was taken back leaves its rounding, until there is nothing.
            (true, Rules::Standard) if has_taken && !pairs.is_empty() => Cell::Anything,
            (true, Rules::Standard) => Cell::Exactly(Value::Null),
            (true, Rules::Ksql) => Cell::Anything,
            // A spread that is next to nothing beside the numbers is a matter of rounding.
            (false, _) if squares.iter().any(|square| *square < 1e-6) => Cell::Anything,
            (false, _) => Cell::Near(products / (squares[0].sqrt() * squares[1].sqrt()), 1e-6),
        }
    }

    fn spread(&self, values: &[Value], is_root: bool, name: &str, rules: Rules, events: &[Event], place: usize) -> Cell {
        let of = &self.arguments[0].of;
        let seen = numbers_ever(events, place, of);
        if seen.iter().any(|value| !value.is_finite() || value.abs() > 1e9) {
            return Cell::Anything;
        }
        let numbers: Vec<f64> = values.iter().filter_map(|value| value.number(of)).collect();
        if numbers.len() < 2 {
            return match (rules, name) {
                (Rules::Standard, _) => Cell::Exactly(Value::Null),
                (Rules::Ksql, "STDDEV_SAMP") => Cell::Exactly(Value::Double(0.0)),
                (Rules::Ksql, _) => Cell::Anything,
            };
        }
        let mean = numbers.iter().sum::<f64>() / numbers.len() as f64;
        let variance = numbers.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (numbers.len() as f64 - 1.0);
        let most = seen.iter().fold(1.0, |most: f64, value| most.max(value.abs()));
        let off = 1e-11 * most * most;
        let is_root = is_root && !(rules == Rules::Ksql && name == "STDDEV_SAMP");
        if is_root { Cell::Near(variance.sqrt(), off.sqrt() + variance.sqrt() * 1e-9) } else { Cell::Near(variance, off + variance * 1e-9) }
    }
}

/// Every number that was ever added to a group for a call.
fn numbers_ever(events: &[Event], place: usize, of: &Type) -> Vec<f64> {
    let arguments = events.iter().filter(|event| event.adds).filter_map(|event| event.arguments[place].as_ref());
    arguments.filter_map(|arguments| arguments[0].number(of)).collect()
}

/// A sum of DOUBLE from which some was taken back.
fn near(value: f64, seen: &[f64], times: u32) -> Cell {
    let most = seen.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
    // What has once been infinite has no way back, and the documents leave open where rounding ends.
    if !most.is_finite() || seen.iter().any(|value| value.is_nan()) || most > 1e15 {
        return Cell::Anything;
    }
    Cell::Near(value, most * 1e-12 * f64::from(times) * (seen.len() as f64 + 1.0))
}

fn unscaled(value: &Value) -> i128 {
    if let Value::Decimal(value) = value { *value } else { panic!("{value:?} is no DECIMAL") }
}

/// Each value once, where it first comes; there is one zero.
fn different<'a>(values: impl Iterator<Item = &'a Value>) -> Vec<&'a Value> {
    let mut found: Vec<&Value> = Vec::new();
    for value in values {
        if !found.iter().any(|one| one.equals(value)) {
            found.push(value);
        }
    }
    found
}

/// A random aggregate over the columns of a source.
pub fn any_call(writer: &mut Writer<'_>, over_table: bool, is_tame: bool) -> Call {
    let rules = writer.rules;
    let is_ksql = rules == Rules::Ksql;
    let keeps_few = is_ksql && over_table;
    let numbers = [Type::Int, Type::Long, Type::Double, DECIMALS[2].clone()];
    let ordered = [Type::Int, Type::Long, Type::Double, Type::Text, DECIMALS[0].clone(), Type::Date];
    let number = one_of(writer.random, &numbers).clone();
    let ordered = one_of(writer.random, &ordered).clone();
    let any = writer.computed_type();
    // What is taken back must not have been endless.
    let depth = if over_table && !is_tame { 0 } else { 1 };
    let count = 1 + usize::try_from(writer.random.below(4)).unwrap();
    let list = |of: &Type| Type::List(Box::new(of.clone()));
    let summed = |of: &Type| match of {
        Type::Int if is_ksql => Type::Int,
        Type::Int | Type::Long => Type::Long,
        Type::Decimal(precision, scale) => Type::Decimal(if is_ksql { *precision } else { 38 }, *scale),
        other => other.clone(),
    };
    let plain = |function, argument: Expr, of: Type| Call { function, arguments: vec![argument], filter: None, of };
    let mut call = match writer.random.below(20) {
        0 | 1 => Call { function: Function::CountStar, arguments: Vec::new(), filter: None, of: Type::Long },
        2 => plain(Function::Count, writer.expression(&any, 1), Type::Long),
        3 if !keeps_few => plain(Function::CountDistinct, writer.expression(&ordered, 1), Type::Long),
        4 | 5 => plain(Function::Sum, writer.expression(&number, depth), summed(&number)),
        6 => plain(Function::Avg, writer.expression(&number, depth), Type::Double),
        7 if !keeps_few => plain(Function::Min, writer.expression(&ordered, 1), ordered),
        8 if !keeps_few => plain(Function::Max, writer.expression(&ordered, 1), ordered),
        9 | 10 if !keeps_few => {
            let (latest, has_count, nulls) = (chance(writer.random, 50), chance(writer.random, 50), chance(writer.random, 40));
            let function = Function::ByOffset { latest, count: has_count.then_some(count), nulls };
            plain(function, writer.expression(&any, 1), if has_count { list(&any) } else { any })
        }
        11 => plain(Function::CollectList, writer.expression(&any, 1), list(&any)),
        12 if !keeps_few => plain(Function::CollectSet, writer.expression(&ordered, 1), list(&ordered)),
        13 if !keeps_few => plain(Function::TopK(count), writer.expression(&ordered, 1), list(&ordered)),
        14 if !keeps_few => {
            let name = |name: &str| rules.name(name);
            let fields = vec![(name("sort_col"), ordered.clone()), (name("col0"), Type::Text)];
            let arguments = vec![writer.expression(&ordered, 1), writer.expression(&Type::Text, 1)];
            Call { function: Function::TopK(count), arguments, filter: None, of: list(&Type::Struct(fields)) }
        }
        15 if !keeps_few => plain(Function::TopKDistinct(count), writer.expression(&ordered, 1), list(&ordered)),
        16 => plain(Function::Histogram, writer.expression(&Type::Text, 1), Type::Map(Box::new(Type::Long))),
        17 => plain(Function::Attr, writer.expression(&ordered, 1), ordered),
        18 => {
            let arguments = vec![writer.leaf(&Type::Double), writer.leaf(&Type::Double)];
            Call { function: Function::Correlation, arguments, filter: None, of: Type::Double }
        }
        19 => {
            let name = *one_of(writer.random, &["STDDEV_SAMP", "STDDEV_SAMPLE", "VAR_SAMP"]);
            let number = one_of(writer.random, &numbers[..3]).clone();
            plain(Function::Spread { name, is_root: name != "VAR_SAMP" }, writer.leaf(&number), Type::Double)
        }
        _ => {
            let lists: Vec<usize> = (0..writer.columns.len())
                .filter(|place| matches!(&writer.columns[*place].of, Type::List(item) if matches!(**item, Type::Int | Type::Long | Type::Double)))
                .collect();
            match lists.first() {
                Some(place) => {
                    let argument = Expr::column(*place, &writer.columns[*place]);
                    let Type::List(item) = argument.of.clone() else { panic!("no list") };
                    plain(Function::SumList, argument, summed(&item))
                }
                None => Call { function: Function::CountStar, arguments: Vec::new(), filter: None, of: Type::Long },
            }
        }
    };
    if !is_ksql && chance(writer.random, 20) {
        call.filter = Some(writer.truth(1));
    }
    call
}
