//! Types as signatures name them: read from text, matched against what a call was given, and filled in.
//!
//! A signature is written as users read it, `array ARRAY<T>, value T -> BOOLEAN`; a single capital letter stands for any type,
//! the same wherever it occurs in the signature. `DECIMAL*` stands for one DECIMAL that holds all of those given, `F...` for any
//! number of arguments, `UNIT` for a bare unit of time, and `(T) => U` for a lambda.

use std::{fmt, iter::Peekable, str::Chars};

use arrow::datatypes::DataType;

use super::types;

/// A type with holes in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// A type without parameters.
    Plain(Plain),
    /// Any DECIMAL, each argument its own.
    Decimal,
    /// The narrowest DECIMAL that holds every argument of this pattern.
    WidestDecimal,
    /// A bare unit of time, which reaches the function as text.
    Unit,
    /// Any type, the same for each letter.
    Any(char),
    /// An array.
    Array(Box<Self>),
    /// A map.
    Map(Box<Self>, Box<Self>),
    /// A struct; only results have one.
    Struct(Vec<(String, Self)>),
    /// A lambda of parameters of these types.
    Lambda(Vec<Self>, Box<Self>),
}

/// A type without parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plain {
    Boolean,
    Int,
    BigInt,
    Double,
    Text,
    Bytes,
    Date,
    Time,
    Timestamp,
}

/// How the types given may differ from those of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Coercion {
    /// Not at all; only NULL fits anything.
    Exact,
    /// INT to BIGINT to DECIMAL to DOUBLE, and text to DATE, TIME and TIMESTAMP.
    Widening,
    /// Also BIGINT to INT, where a literal has no other type.
    Narrowing,
}

/// What the letters of a signature stand for in one call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bindings {
    letters: Vec<(char, DataType)>,
    decimal: Option<DataType>,
}

impl Plain {
    const ALL: [(Self, &'static str); 9] = [
        (Self::Boolean, "BOOLEAN"),
        (Self::Int, "INT"),
        (Self::BigInt, "BIGINT"),
        (Self::Double, "DOUBLE"),
        (Self::Text, "VARCHAR"),
        (Self::Bytes, "BYTES"),
        (Self::Date, "DATE"),
        (Self::Time, "TIME"),
        (Self::Timestamp, "TIMESTAMP"),
    ];

    fn data_type(self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::Int => DataType::Int32,
            Self::BigInt => DataType::Int64,
            Self::Double => DataType::Float64,
            Self::Text => DataType::Utf8,
            Self::Bytes => DataType::Binary,
            Self::Date => DataType::Date32,
            Self::Time => types::time(),
            Self::Timestamp => types::timestamp(),
        }
    }
}

impl Bindings {
    fn of(&self, letter: char) -> Option<&DataType> {
        self.letters.iter().find(|(bound, _)| *bound == letter).map(|(_, data_type)| data_type)
    }

    fn bind(&mut self, letter: char, data_type: DataType) {
        match self.letters.iter_mut().find(|(bound, _)| *bound == letter) {
            Some((_, bound)) => *bound = data_type,
            None => self.letters.push((letter, data_type)),
        }
    }
}

impl Pattern {
    /// Whether a value of a type may be given here; letters are bound on the way. NULL fits everything.
    pub(crate) fn fits(&self, given: &DataType, coercion: Coercion, bound: &mut Bindings) -> bool {
        if given.is_null() {
            return !matches!(self, Self::Lambda(..));
        }
        match (self, given) {
            (Self::Plain(plain), _) => converts(given, &plain.data_type(), coercion),
            (Self::Unit, _) => given == &DataType::Utf8,
            (Self::Decimal, _) => as_decimal(given, coercion).is_some(),
            (Self::WidestDecimal, _) => {
                let Some(decimal) = as_decimal(given, coercion) else { return false };
                bound.decimal = match &bound.decimal {
                    None => Some(decimal),
                    Some(other) => types::wider_decimal(other, &decimal),
                };
                bound.decimal.is_some()
            }
            (Self::Any(letter), _) => {
                let merged = match bound.of(*letter) {
                    None => Some(given.clone()),
                    Some(other) if other == given => return true,
                    Some(_) if coercion == Coercion::Exact => None,
                    Some(other) => types::common(other, given),
                };
                merged.is_some_and(|merged| {
                    bound.bind(*letter, merged);
                    true
                })
            }
            (Self::Array(element), DataType::List(field)) => element.fits(field.data_type(), coercion, bound),
            (Self::Map(key, value), DataType::Map(..)) => match types::map_parts(given) {
                Some((given_key, given_value)) => key.fits(given_key, coercion, bound) && value.fits(given_value, coercion, bound),
                None => false,
            },
            (Self::Array(_) | Self::Map(..) | Self::Struct(_) | Self::Lambda(..), _) => false,
        }
    }

    /// The type that this is, with the letters filled in; a letter that nothing was given for is text.
    pub(crate) fn filled(&self, bound: &Bindings) -> DataType {
        match self {
            Self::Plain(plain) => plain.data_type(),
            Self::Unit => DataType::Utf8,
            Self::Decimal | Self::WidestDecimal => bound.decimal.clone().unwrap_or(DataType::Decimal128(10, 0)),
            Self::Any(letter) => bound.of(*letter).cloned().unwrap_or(DataType::Utf8),
            Self::Array(element) => types::list_of(element.filled(bound)),
            Self::Map(key, value) => types::map_of(key.filled(bound), value.filled(bound)),
            Self::Struct(fields) => types::struct_of(fields.iter().map(|(name, field)| (name.clone(), field.filled(bound)))),
            Self::Lambda(_, result) => result.filled(bound),
        }
    }

    /// The type to which an argument is cast.
    pub(crate) fn coerced(&self, given: &DataType, bound: &Bindings) -> DataType {
        match self {
            Self::Decimal => as_decimal(given, Coercion::Widening).unwrap_or(DataType::Decimal128(10, 0)),
            _ => self.filled(bound),
        }
    }

    /// Binds the letters of a lambda's result, once its body has a type.
    pub(crate) fn returned(&self, given: &DataType, bound: &mut Bindings) -> bool {
        match self {
            Self::Lambda(_, result) => result.fits(given, Coercion::Widening, bound),
            _ => false,
        }
    }

    /// The result of a lambda, if its type follows from the other arguments.
    pub(crate) fn known(&self, bound: &Bindings) -> Option<DataType> {
        let Self::Lambda(_, result) = self else { return None };
        match result.as_ref() {
            Self::Any(letter) => bound.of(*letter).cloned(),
            other => Some(other.filled(bound)),
        }
    }

    /// Number of letters in it: the fewer, the more a signature says.
    pub(crate) fn letters(&self) -> usize {
        match self {
            Self::Any(_) => 1,
            Self::Array(element) => element.letters(),
            Self::Map(key, value) => key.letters() + value.letters(),
            Self::Struct(fields) => fields.iter().map(|(_, field)| field.letters()).sum(),
            Self::Plain(_) | Self::Decimal | Self::WidestDecimal | Self::Unit | Self::Lambda(..) => 0,
        }
    }
}

/// Whether values of one type are also such of another.
fn converts(given: &DataType, wanted: &DataType, coercion: Coercion) -> bool {
    if given == wanted {
        return true;
    }
    let wider = matches!(
        (given, wanted),
        (DataType::Int32, DataType::Int64 | DataType::Float64)
            | (DataType::Int64 | DataType::Decimal128(..), DataType::Float64)
            | (DataType::Utf8, DataType::Date32 | DataType::Time32(_) | DataType::Timestamp(..))
    );
    let narrower = matches!((given, wanted), (DataType::Int64, DataType::Int32));
    coercion >= Coercion::Widening && wider || coercion >= Coercion::Narrowing && narrower
}

/// The DECIMAL that holds every value of a type.
fn as_decimal(given: &DataType, coercion: Coercion) -> Option<DataType> {
    match given {
        DataType::Decimal128(..) => Some(given.clone()),
        DataType::Int32 if coercion > Coercion::Exact => Some(DataType::Decimal128(10, 0)),
        DataType::Int64 if coercion > Coercion::Exact => Some(DataType::Decimal128(19, 0)),
        DataType::Null => Some(DataType::Decimal128(10, 0)),
        _ => None,
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(plain) => {
                let named = Plain::ALL.iter().find(|(other, _)| other == plain);
                f.write_str(named.map_or("", |(_, name)| name))
            }
            Self::Decimal | Self::WidestDecimal => f.write_str("DECIMAL"),
            Self::Unit => f.write_str("UNIT"),
            Self::Any(letter) => write!(f, "{letter}"),
            Self::Array(element) => write!(f, "ARRAY<{element}>"),
            Self::Map(key, value) => write!(f, "MAP<{key}, {value}>"),
            Self::Struct(fields) => {
                let fields: Vec<String> = fields.iter().map(|(name, field)| format!("{name} {field}")).collect();
                write!(f, "STRUCT<{}>", fields.join(", "))
            }
            Self::Lambda(parameters, result) => {
                let parameters: Vec<String> = parameters.iter().map(ToString::to_string).collect();
                write!(f, "({}) => {result}", parameters.join(", "))
            }
        }
    }
}

/// A parameter of a signature.
#[derive(Clone, Debug)]
pub(crate) struct Parameter {
    /// What the documentation calls it.
    pub(crate) name: String,
    /// What may be given.
    pub(crate) pattern: Pattern,
}

/// Reads a signature.
///
/// # Errors
/// What was expected, and before which text.
pub(crate) fn parse(text: &str) -> Result<(Vec<Parameter>, bool, Pattern), String> {
    let mut reader = Reader { rest: text.chars().peekable() };
    let mut parameters = Vec::new();
    let mut variadic = false;
    while !reader.takes("->") {
        if !parameters.is_empty() {
            reader.expect(",")?;
        }
        let name = reader.word();
        let pattern = reader.pattern()?;
        variadic = reader.takes("...");
        parameters.push(Parameter { name, pattern });
    }
    let returns = reader.pattern()?;
    reader.blank();
    match reader.rest.next() {
        None => Ok((parameters, variadic, returns)),
        Some(other) => Err(format!("the end was expected, not {other}")),
    }
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
}

impl Reader<'_> {
    fn blank(&mut self) {
        while self.rest.next_if(|next| next.is_whitespace()).is_some() {}
    }

    fn takes(&mut self, token: &str) -> bool {
        self.blank();
        let mut ahead = self.rest.clone();
        if !token.chars().all(|wanted| ahead.next() == Some(wanted)) {
            return false;
        }
        self.rest = ahead;
        true
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        if self.takes(token) { Ok(()) } else { Err(format!("{token} was expected before {}", self.rest.clone().collect::<String>())) }
    }

    fn word(&mut self) -> String {
        self.blank();
        let mut word = String::new();
        while let Some(next) = self.rest.next_if(|next| next.is_ascii_alphanumeric() || *next == '_') {
            word.push(next);
        }
        word
    }

    fn pattern(&mut self) -> Result<Pattern, String> {
        if self.takes("(") {
            let mut parameters = vec![self.pattern()?];
            while self.takes(",") {
                parameters.push(self.pattern()?);
            }
            self.expect(")")?;
            self.expect("=>")?;
            return Ok(Pattern::Lambda(parameters, Box::new(self.pattern()?)));
        }
        let word = self.word();
        if let Some((plain, _)) = Plain::ALL.iter().find(|(_, name)| *name == word) {
            return Ok(Pattern::Plain(*plain));
        }
        let mut letters = word.chars();
        match (word.as_str(), letters.next(), letters.next()) {
            ("UNIT", ..) => Ok(Pattern::Unit),
            ("DECIMAL", ..) => Ok(if self.takes("*") { Pattern::WidestDecimal } else { Pattern::Decimal }),
            ("ARRAY", ..) => {
                self.expect("<")?;
                let element = self.pattern()?;
                self.expect(">")?;
                Ok(Pattern::Array(Box::new(element)))
            }
            ("MAP", ..) => {
                self.expect("<")?;
                let key = self.pattern()?;
                self.expect(",")?;
                let value = self.pattern()?;
                self.expect(">")?;
                Ok(Pattern::Map(Box::new(key), Box::new(value)))
            }
            ("STRUCT", ..) => {
                self.expect("<")?;
                let mut fields = vec![(self.word(), self.pattern()?)];
                while self.takes(",") {
                    fields.push((self.word(), self.pattern()?));
                }
                self.expect(">")?;
                Ok(Pattern::Struct(fields))
            }
            (_, Some(letter), None) if letter.is_ascii_uppercase() => Ok(Pattern::Any(letter)),
            _ => Err(format!("a type was expected, not {word}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_reads_as_it_is_written() {
        let (parameters, variadic, returns) =
            parse("by VARCHAR, map MAP<VARCHAR, V>, f (VARCHAR, V) => U -> ARRAY<STRUCT<K VARCHAR, V V>>").unwrap();
        let shown: Vec<String> = parameters.iter().map(|one| format!("{} {}", one.name, one.pattern)).collect();
        assert_eq!(shown, ["by VARCHAR", "map MAP<VARCHAR, V>", "f (VARCHAR, V) => U"]);
        assert_eq!((variadic, returns.to_string()), (false, "ARRAY<STRUCT<K VARCHAR, V V>>".to_owned()));
        assert!(parse("values T... -> T").unwrap().1);
        assert!(parse("-> DOUBLE").unwrap().0.is_empty());
        for wrong in ["a INT", "a INT b INT -> INT", "a NUMBER -> INT", "a ARRAY<INT -> INT", "a INT -> INT x"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_letter_stands_for_one_type_in_a_call() {
        let any = Pattern::Any('T');
        let mut bound = Bindings::default();
        assert!(any.fits(&DataType::Int32, Coercion::Exact, &mut bound));
        assert!(any.fits(&DataType::Null, Coercion::Exact, &mut bound));
        assert!(!any.fits(&DataType::Int64, Coercion::Exact, &mut bound));
        assert!(any.fits(&DataType::Int64, Coercion::Widening, &mut bound));
        assert_eq!(any.filled(&bound), DataType::Int64);
        assert!(!any.fits(&DataType::Utf8, Coercion::Narrowing, &mut bound));
    }
}
