//! Types as they are written in statements: columns, CAST, CREATE TYPE.
//!
//! sqlparser reads neither `MAP<..>` nor every nesting of `>`, so types are parsed here, over its tokens; what stands in a CAST
//! is handed through it as one quoted name ([`quote_types`]) and read again by [`of_cast`]. Names that are no type of ours are
//! looked up later, among the types that CREATE TYPE made.

use std::{fmt, ops::ControlFlow, sync::Arc};

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::{
    error::DataFusionError,
    logical_expr::planner::TypePlanner,
    sql::sqlparser::{
        ast,
        dialect::GenericDialect,
        keywords::Keyword,
        parser::Parser,
        tokenizer::{Span, Token, TokenWithSpan, Word},
    },
};

use super::{
    Dialect, guard,
    tokens::{end_of, is_word, place_of, shown, tokenize, unexpected},
};
use crate::{
    catalog::{
        nearest,
        types::{array_of, map_of, map_parts, struct_of, time_type, timestamp_type, type_name},
    },
    error::{Place, QueryError},
};

/// Names of the types that need no declaration, as errors tell them.
const KNOWN: [&str; 13] = [
    "BOOLEAN",
    "INT",
    "BIGINT",
    "DOUBLE",
    "DECIMAL(p, s)",
    "VARCHAR",
    "BYTES",
    "DATE",
    "TIME",
    "TIMESTAMP",
    "ARRAY<t>",
    "MAP<k, v>",
    "STRUCT<name t, ...>",
];

/// A type as it is written.
#[derive(Clone, Debug, PartialEq)]
pub enum TypeExpr {
    /// One that needs no declaration and has no parts.
    Known(DataType),
    /// One that CREATE TYPE made.
    Named {
        /// Its name, folded.
        name: String,
        /// Where it stands.
        place: Place,
    },
    /// `ARRAY<element>`.
    Array(Box<TypeExpr>),
    /// `MAP<key, value>`.
    Map(Box<TypeExpr>, Box<TypeExpr>),
    /// `STRUCT<name type, ...>`.
    Struct(Vec<(String, TypeExpr)>),
}

impl TypeExpr {
    /// The type that is meant, given what CREATE TYPE made.
    ///
    /// # Errors
    /// [`QueryError::Syntax`] with the place of a name that means nothing.
    pub fn resolve(&self, made: &dyn Fn(&str) -> Option<DataType>) -> Result<DataType, QueryError> {
        Ok(match self {
            Self::Known(data_type) => data_type.clone(),
            Self::Named { name, place } => made(name).ok_or_else(|| {
                let simple = KNOWN.into_iter().filter(|known| !known.contains(['(', '<'])).chain(["STRING", "INTEGER"]);
                let hint = nearest(name, simple).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
                let message = format!("there is no type {name}{hint}; known are {}, and those of CREATE TYPE", KNOWN.join(", "));
                QueryError::Syntax { place: *place, message }
            })?,
            Self::Array(element) => array_of(element.resolve(made)?),
            Self::Map(key, value) => map_of(key.resolve(made)?, value.resolve(made)?),
            Self::Struct(fields) => {
                let fields = fields.iter().map(|(name, field)| Ok((name.clone(), field.resolve(made)?)));
                struct_of(fields.collect::<Result<Vec<_>, QueryError>>()?)
            }
        })
    }

    /// Names of CREATE TYPE that are used.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        match self {
            Self::Known(_) => Vec::new(),
            Self::Named { name, .. } => vec![name],
            Self::Array(element) => element.names(),
            Self::Map(key, value) => key.names().into_iter().chain(value.names()).collect(),
            Self::Struct(fields) => fields.iter().flat_map(|(_, field)| field.names()).collect(),
        }
    }
}

impl From<&DataType> for TypeExpr {
    fn from(data_type: &DataType) -> Self {
        match data_type {
            DataType::List(item) => Self::Array(Box::new(item.data_type().into())),
            DataType::Struct(fields) => Self::Struct(fields.iter().map(|field| (field.name().clone(), field.data_type().into())).collect()),
            other => match map_parts(other) {
                Some((key, value)) => Self::Map(Box::new(key.into()), Box::new(value.into())),
                None => Self::Known(other.clone()),
            },
        }
    }
}

/// Every name in quotes, so that it is read again the same in every dialect.
impl fmt::Display for TypeExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        match self {
            Self::Known(data_type) => f.write_str(&type_name(data_type)),
            Self::Named { name, .. } => f.write_str(&quoted(name)),
            Self::Array(element) => write!(f, "ARRAY<{element}>"),
            Self::Map(key, value) => write!(f, "MAP<{key}, {value}>"),
            Self::Struct(fields) => {
                let fields: Vec<_> = fields.iter().map(|(name, field)| format!("{} {field}", quoted(name))).collect();
                write!(f, "STRUCT<{} >", fields.join(", "))
            }
        }
    }
}

/// Reads a type where the parser stands.
pub(super) fn parse_type(parser: &mut Parser<'_>, dialect: Dialect) -> Result<TypeExpr, QueryError> {
    let mut types = TypeParser { parser, dialect, closed: 0 };
    let read = types.read()?;
    if types.closed > 0 {
        let next = types.parser.peek_token();
        return Err(unexpected("no further > behind the type", Some(&next), next.span.start));
    }
    Ok(read)
}

/// The type of a CAST as sqlparser has it; those of [`quote_types`] included.
///
/// # Errors
/// [`QueryError::Syntax`] for what is no type.
pub fn of_cast(written: &ast::DataType, dialect: Dialect, made: &dyn Fn(&str) -> Option<DataType>) -> Result<DataType, QueryError> {
    let text = match written {
        ast::DataType::Custom(name, modifiers) if modifiers.is_empty() => match name.0.as_slice() {
            [ast::ObjectNamePart::Identifier(ident)] if ident.quote_style == Some(QUOTE) => ident.value.clone(),
            _ => name.to_string(),
        },
        other => other.to_string(),
    };
    read_type(&text, dialect).and_then(|read| read.resolve(made)).map_err(within)
}

/// The type that a text names, in the rules of `standard`; names of CREATE TYPE mean nothing.
///
/// # Errors
/// [`QueryError::Invalid`] for what is no type.
pub fn named(text: &str) -> Result<DataType, QueryError> {
    guard::check_text(text, guard::MAX_STATEMENT_BYTES)?;
    read_type(text, Dialect::STANDARD).and_then(|read| read.resolve(&|_| None)).map_err(within)
}

/// The error without its place, which is one within the type alone.
fn within(error: QueryError) -> QueryError {
    match error {
        QueryError::Syntax { message, .. } => QueryError::Invalid(message),
        other => other,
    }
}

/// Gives the names of CREATE TYPE that stand in casts their meaning; afterwards [`of_cast`] needs to know none.
///
/// # Errors
/// [`QueryError::Syntax`] for a name that means nothing.
pub fn expand(written: &mut impl ast::VisitMut, dialect: Dialect, made: &dyn Fn(&str) -> Option<DataType>) -> Result<(), QueryError> {
    let verdict = ast::visit_expressions_mut(written, |expr| {
        let ast::Expr::Cast { data_type, .. } = expr else { return ControlFlow::Continue(()) };
        match expanded(data_type, dialect, made) {
            Ok(None) => ControlFlow::Continue(()),
            Ok(Some(expanded)) => {
                *data_type = expanded;
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(error),
        }
    });
    match verdict {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// Names in the casts of a query that may be those of CREATE TYPE.
///
/// # Errors
/// [`QueryError::Syntax`] for what is no type.
pub fn names_in(query: &ast::Query, dialect: Dialect) -> Result<Vec<String>, QueryError> {
    let mut names = Vec::new();
    let verdict = ast::visit_expressions(query, |expr| {
        let ast::Expr::Cast { data_type: ast::DataType::Custom(name, _), .. } = expr else { return ControlFlow::Continue(()) };
        match name.0.as_slice() {
            [ast::ObjectNamePart::Identifier(ident)] if ident.quote_style == Some(QUOTE) => match read_type(&ident.value, dialect) {
                Ok(read) => names.extend(read.names().into_iter().map(str::to_owned)),
                Err(error) => return ControlFlow::Break(error),
            },
            [ast::ObjectNamePart::Identifier(ident)] => names.push(dialect.name(ident)),
            _ => {}
        }
        ControlFlow::Continue(())
    });
    match verdict {
        ControlFlow::Continue(()) => Ok(names),
        ControlFlow::Break(error) => Err(error),
    }
}

fn expanded(
    written: &ast::DataType,
    dialect: Dialect,
    made: &dyn Fn(&str) -> Option<DataType>,
) -> Result<Option<ast::DataType>, QueryError> {
    let ast::DataType::Custom(name, modifiers) = written else { return Ok(None) };
    let [ast::ObjectNamePart::Identifier(ident)] = name.0.as_slice() else { return Ok(None) };
    let means = if ident.quote_style == Some(QUOTE) {
        let read = read_type(&ident.value, dialect).map_err(within)?;
        if read.names().is_empty() { None } else { Some(read.resolve(made).map_err(within)?) }
    } else {
        made(&dialect.name(ident)).filter(|_| modifiers.is_empty())
    };
    Ok(means.map(|means| {
        let ident = ast::Ident::with_quote(QUOTE, TypeExpr::from(&means).to_string());
        ast::DataType::Custom(ast::ObjectName(vec![ast::ObjectNamePart::Identifier(ident)]), Vec::new())
    }))
}

/// Shows DataFusion's planner the types that it does not read itself.
#[derive(Debug)]
pub struct NestedTypes;

impl TypePlanner for NestedTypes {
    fn plan_type_field(&self, written: &ast::DataType) -> datafusion::error::Result<Option<FieldRef>> {
        let data_type = match written {
            ast::DataType::Bytes(None) => DataType::Binary,
            // As columns of TIME are, so that both meet.
            ast::DataType::Time(None, ast::TimezoneInfo::None | ast::TimezoneInfo::WithoutTimeZone) => {
                DataType::Time32(TimeUnit::Millisecond)
            }
            ast::DataType::Decimal(size) | ast::DataType::Numeric(size) | ast::DataType::Dec(size) => {
                // DataFusion has wider ones, which nothing of ours holds.
                return within_bounds(size).map(|()| None).map_err(|error| DataFusionError::External(Box::new(error)));
            }
            ast::DataType::Custom(..) => {
                of_cast(written, Dialect::STANDARD, &|_| None).map_err(|error| DataFusionError::External(Box::new(error)))?
            }
            _ => return Ok(None),
        };
        Ok(Some(Arc::new(Field::new("", data_type, true))))
    }
}

/// Refuses a DECIMAL that is larger than ours.
fn within_bounds(size: &ast::ExactNumberInfo) -> Result<(), QueryError> {
    let (precision, scale) = match size {
        ast::ExactNumberInfo::None => return Ok(()),
        ast::ExactNumberInfo::Precision(precision) => (*precision, 0),
        ast::ExactNumberInfo::PrecisionAndScale(precision, scale) => (*precision, *scale),
    };
    if (1..=38).contains(&precision) && u64::try_from(scale).is_ok_and(|scale| scale <= precision) {
        return Ok(());
    }
    let refused = format!("DECIMAL({precision}, {scale}) is out of range: the precision is 1 to 38, the scale 0 to the precision");
    Err(QueryError::Invalid(refused))
}

/// A type that stands alone in a text.
fn read_type(text: &str, dialect: Dialect) -> Result<TypeExpr, QueryError> {
    let mut tokens = tokenize(text)?;
    guard::check_tokens(&tokens)?;
    tokens.retain(|one| !matches!(one.token, Token::Whitespace(_)));
    let end = end_of(text);
    tokens.push(TokenWithSpan { token: Token::EOF, span: Span::new(end, end) });
    let mut parser = Parser::new(&GenericDialect {}).with_tokens_with_locations(tokens);
    let read = parse_type(&mut parser, dialect)?;
    let next = parser.peek_token();
    if next.token == Token::EOF { Ok(read) } else { Err(unexpected("the end of the type", Some(&next), next.span.start)) }
}

/// The quote of a type that is handed through sqlparser as a name: no statement can write it.
const QUOTE: char = '[';

/// Makes one quoted name of every nested type that follows AS in a CAST, or `::`.
pub(super) fn quote_types(tokens: Vec<TokenWithSpan>, dialect: Dialect) -> Result<Vec<TokenWithSpan>, QueryError> {
    let mut given = Vec::with_capacity(tokens.len());
    let mut at = 0;
    // Whether each open bracket is that of a CAST.
    let mut brackets: Vec<bool> = Vec::new();
    while let Some(token) = tokens.get(at) {
        let before = at.checked_sub(1).and_then(|before| tokens.get(before));
        let begins = match &token.token {
            Token::LParen => {
                let is_cast = |one: &TokenWithSpan| ["CAST", "TRY_CAST"].iter().any(|cast| is_word(&one.token, cast));
                brackets.push(before.is_some_and(is_cast));
                false
            }
            Token::RParen => {
                brackets.pop();
                false
            }
            Token::DoubleColon => true,
            token => brackets.last() == Some(&true) && is_word(token, "AS"),
        };
        given.push(token.clone());
        at += 1;
        let end = if begins { end_of_nested(&tokens, at) } else { None };
        let Some((end, nested)) = end.and_then(|end| Some((end, tokens.get(at..end)?))) else { continue };
        let mut parser = Parser::new(&GenericDialect {}).with_tokens_with_locations(nested.to_vec());
        let read = parse_type(&mut parser, dialect)?;
        if let (Some(first), Some(last)) = (nested.first(), nested.last()) {
            let word = Word { value: read.to_string(), quote_style: Some(QUOTE), keyword: Keyword::NoKeyword };
            let span = first.span.union(&last.span);
            given.push(TokenWithSpan { token: Token::Word(word), span });
        }
        at = end;
    }
    Ok(given)
}

/// Where the nested type that begins at a place ends (exclusive); none if no nested type begins there, or if it does not end.
fn end_of_nested(tokens: &[TokenWithSpan], at: usize) -> Option<usize> {
    let is_nested = ["ARRAY", "MAP", "STRUCT"].iter().any(|name| tokens.get(at).is_some_and(|one| is_word(&one.token, name)));
    let mut open = 0_usize;
    for (place, one) in tokens.iter().enumerate().skip(at + 1).take_while(|_| is_nested) {
        open = match one.token {
            Token::Lt => open + 1,
            Token::Neq => open,
            Token::Gt => open.saturating_sub(1),
            Token::ShiftRight => open.saturating_sub(2),
            _ if open == 0 => return None,
            _ => open,
        };
        if open == 0 {
            return Some(place + 1);
        }
    }
    None
}

struct TypeParser<'a, 'p> {
    parser: &'a mut Parser<'p>,
    dialect: Dialect,
    /// Brackets that a `>>` closed beyond its own.
    closed: usize,
}

impl TypeParser<'_, '_> {
    fn read(&mut self) -> Result<TypeExpr, QueryError> {
        let token = self.parser.next_token();
        let place = place_of(token.span.start);
        let Token::Word(word) = &token.token else { return Err(unexpected("a type", Some(&token), token.span.start)) };
        let named = |dialect: Dialect| {
            let ident = ast::Ident { value: word.value.clone(), quote_style: word.quote_style, span: token.span };
            TypeExpr::Named { name: dialect.name(&ident), place }
        };
        if word.quote_style.is_some() {
            return Ok(named(self.dialect));
        }
        let known = match word.value.to_uppercase().as_str() {
            "BOOLEAN" | "BOOL" => DataType::Boolean,
            "INT" | "INTEGER" | "INT4" => DataType::Int32,
            "BIGINT" | "INT8" => DataType::Int64,
            "DOUBLE" => {
                self.word("PRECISION");
                DataType::Float64
            }
            "FLOAT" | "FLOAT8" => DataType::Float64,
            "CHARACTER" if is_word(&self.parser.peek_token_ref().token, "VARYING") => {
                self.word("VARYING");
                self.length()?;
                DataType::Utf8
            }
            "VARCHAR" | "STRING" | "TEXT" => {
                self.length()?;
                DataType::Utf8
            }
            "BYTES" | "BYTEA" => DataType::Binary,
            "DATE" => DataType::Date32,
            "TIME" => time_type(),
            "TIMESTAMP" => timestamp_type(),
            "DECIMAL" | "NUMERIC" | "DEC" => self.decimal(place)?,
            "ARRAY" if self.opens() => {
                self.expect_open()?;
                let element = self.read()?;
                self.expect_close()?;
                return Ok(TypeExpr::Array(Box::new(element)));
            }
            "MAP" if self.opens() => {
                self.expect_open()?;
                let key = self.read()?;
                self.expect(&Token::Comma, ", and the type of the map's values")?;
                let value = self.read()?;
                self.expect_close()?;
                return Ok(TypeExpr::Map(Box::new(key), Box::new(value)));
            }
            "STRUCT" if self.opens() => return self.fields(),
            _ => return Ok(named(self.dialect)),
        };
        Ok(TypeExpr::Known(known))
    }

    fn fields(&mut self) -> Result<TypeExpr, QueryError> {
        // `<>` is one token.
        if self.parser.consume_token(&Token::Neq) {
            return Ok(TypeExpr::Struct(Vec::new()));
        }
        self.expect_open()?;
        if matches!(self.parser.peek_token_ref().token, Token::Gt | Token::ShiftRight) {
            self.expect_close()?;
            return Ok(TypeExpr::Struct(Vec::new()));
        }
        let mut fields: Vec<(String, TypeExpr)> = Vec::new();
        loop {
            let token = self.parser.next_token();
            let Token::Word(word) = &token.token else { return Err(unexpected("the name of a field", Some(&token), token.span.start)) };
            let name = self.dialect.name(&ast::Ident { value: word.value.clone(), quote_style: word.quote_style, span: token.span });
            if fields.iter().any(|(known, _)| *known == name) {
                let message = format!("field {name} is declared twice");
                return Err(QueryError::Syntax { place: place_of(token.span.start), message });
            }
            fields.push((name, self.read()?));
            if self.closed > 0 || !self.parser.consume_token(&Token::Comma) {
                break;
            }
        }
        self.expect_close()?;
        Ok(TypeExpr::Struct(fields))
    }

    fn decimal(&mut self, place: Place) -> Result<DataType, QueryError> {
        let fault = |message: String| Err(QueryError::Syntax { place, message });
        if !self.parser.consume_token(&Token::LParen) {
            return fault("DECIMAL needs a precision and a scale: DECIMAL(10, 2)".to_owned());
        }
        let precision = self.number("the precision")?;
        let scale = if self.parser.consume_token(&Token::Comma) { self.number("the scale")? } else { 0 };
        self.expect(&Token::RParen, ")")?;
        match (u8::try_from(precision), i8::try_from(scale)) {
            (Ok(p @ 1..=38), Ok(s @ 0..)) if s.unsigned_abs() <= p => Ok(DataType::Decimal128(p, s)),
            _ => fault(format!("DECIMAL({precision}, {scale}) is out of range: the precision is 1 to 38, the scale 0 to the precision")),
        }
    }

    /// Passes over the length of a VARCHAR, which has no effect.
    fn length(&mut self) -> Result<(), QueryError> {
        if self.parser.consume_token(&Token::LParen) {
            self.number("a length")?;
            self.expect(&Token::RParen, ")")?;
        }
        Ok(())
    }

    fn number(&mut self, wanted: &str) -> Result<u64, QueryError> {
        let token = self.parser.next_token();
        let number = match &token.token {
            Token::Number(digits, _) => digits.parse().ok(),
            _ => None,
        };
        number.ok_or_else(|| {
            let message = format!("expected {wanted}, a whole number, found {}", shown(Some(&token.token)));
            QueryError::Syntax { place: place_of(token.span.start), message }
        })
    }

    fn word(&mut self, text: &str) {
        if is_word(&self.parser.peek_token_ref().token, text) {
            self.parser.next_token();
        }
    }

    fn opens(&self) -> bool {
        matches!(self.parser.peek_token_ref().token, Token::Lt | Token::Neq)
    }

    fn expect_open(&mut self) -> Result<(), QueryError> {
        self.expect(&Token::Lt, "<")
    }

    fn expect_close(&mut self) -> Result<(), QueryError> {
        if self.closed > 0 {
            self.closed -= 1;
            return Ok(());
        }
        if self.parser.consume_token(&Token::ShiftRight) {
            self.closed = 1;
            return Ok(());
        }
        self.expect(&Token::Gt, ">")
    }

    fn expect(&mut self, token: &Token, wanted: &str) -> Result<(), QueryError> {
        let closed_early = self.closed > 0;
        if !closed_early && self.parser.consume_token(token) {
            return Ok(());
        }
        let next = self.parser.peek_token();
        Err(unexpected(wanted, Some(&next), next.span.start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Result<String, String> {
        let made = |name: &str| (name == "money").then_some(DataType::Decimal128(12, 2));
        let resolved = read_type(text, Dialect::STANDARD).and_then(|read| {
            // What is handed through sqlparser is read again the same.
            let again = read_type(&read.to_string(), Dialect::STANDARD)?.resolve(&made);
            let first = read.resolve(&made);
            assert_eq!(first.as_ref().ok(), again.as_ref().ok(), "{text}");
            first
        });
        resolved.map(|data_type| type_name(&data_type)).map_err(|error| error.to_string())
    }

    #[test]
    fn types_are_read_in_every_spelling_and_nesting() {
        for (text, name) in [
            ("int", "INTEGER"),
            ("String", "VARCHAR"),
            ("varchar(10)", "VARCHAR"),
            ("character varying(3)", "VARCHAR"),
            ("DOUBLE PRECISION", "DOUBLE"),
            ("decimal(4)", "DECIMAL(4, 0)"),
            ("BYTES", "BYTES"),
            ("TIME", "TIME"),
            ("ARRAY<ARRAY<int>>", "ARRAY<ARRAY<INTEGER>>"),
            ("array<array<array<int>>>", "ARRAY<ARRAY<ARRAY<INTEGER>>>"),
            ("map<string, array<bigint>>", "MAP<VARCHAR, ARRAY<BIGINT>>"),
            ("STRUCT<Id int, \"Name\" map<string, struct<x date>>>", "STRUCT<id INTEGER, \"Name\" MAP<VARCHAR, STRUCT<x DATE>>>"),
            (
                "struct<a array<int>, b array<struct<c int, d int>>, e time>",
                "STRUCT<a ARRAY<INTEGER>, b ARRAY<STRUCT<c INTEGER, d INTEGER>>, e TIME>",
            ),
            ("struct<key string, from bytes>", "STRUCT<key VARCHAR, from BYTES>"),
            ("struct<>", "STRUCT<>"),
            ("array<struct< >>", "ARRAY<STRUCT<>>"),
            ("ARRAY<Money>", "ARRAY<DECIMAL(12, 2)>"),
        ] {
            assert_eq!(named(text), Ok(name.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_no_type_is_told_with_its_place() {
        let known = "known are BOOLEAN, INT, BIGINT, DOUBLE, DECIMAL(p, s), VARCHAR, BYTES, DATE, TIME, TIMESTAMP, ARRAY<t>, MAP<k, v>, STRUCT<name t, ...>, and those of CREATE TYPE";
        for (text, message) in [
            ("ARRAY<INTT>", format!("line 1, column 7: there is no type intt; did you mean INT?; {known}")),
            ("ARRAY<int", "line 1, column 10: expected >, found the end".to_owned()),
            ("ARRAY<int>>", "line 1, column 12: expected no further > behind the type, found the end".to_owned()),
            ("MAP<int>", "line 1, column 8: expected , and the type of the map's values, found >".to_owned()),
            ("STRUCT<a int, a int>", "line 1, column 15: field a is declared twice".to_owned()),
            ("STRUCT<int>", "line 1, column 11: expected a type, found >".to_owned()),
            ("DECIMAL", "line 1, column 1: DECIMAL needs a precision and a scale: DECIMAL(10, 2)".to_owned()),
            ("DECIMAL(x, 2)", "line 1, column 9: expected the precision, a whole number, found x".to_owned()),
            ("VARCHAR(", "line 1, column 9: expected a length, a whole number, found the end".to_owned()),
        ] {
            assert_eq!(named(text), Err(message), "{text}");
        }
    }

    #[test]
    fn nested_types_in_a_cast_become_one_name_and_nothing_else_does() {
        let quoted = |text: &str| {
            let mut tokens = tokenize(text).unwrap();
            tokens.retain(|one| !matches!(one.token, Token::Whitespace(_)));
            let tokens = quote_types(tokens, Dialect::STANDARD).unwrap();
            tokens.iter().map(|one| one.token.to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(quoted("CAST(a AS MAP<STRING, ARRAY<INT>>) > b"), "CAST ( a AS [MAP<VARCHAR, ARRAY<INTEGER>>] ) > b");
        assert_eq!(quoted("a::array<x>[1]"), "a :: [ARRAY<\"x\">] [ 1 ]");
        assert_eq!(quoted("CAST(f(a) AS STRUCT<b INT>)"), "CAST ( f ( a ) AS [STRUCT<\"b\" INTEGER >] )");
        assert_eq!(quoted("SELECT a AS array, b < c, CAST(a AS INT)"), "SELECT a AS array , b < c , CAST ( a AS INT )");
        assert_eq!(quoted("CAST(a AS ARRAY<INT"), "CAST ( a AS ARRAY < INT");
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "(ARRAY<|MAP<|STRUCT<|CAST\\(|AS |::|\"|>|>>|, |DECIMAL\\(|[0-9]|\\)|INT|a |.){0,16}") {
            let _ = named(&text);
            if let Ok(tokens) = tokenize(&text) {
                let _ = quote_types(tokens, Dialect::STANDARD);
            }
        }
    }
}
