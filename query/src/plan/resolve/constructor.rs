//! `ARRAY[...]`, `MAP(...)` and `STRUCT(...)`, and the one type of values that stand side by side.
//!
//! Values side by side are those of an array, of a map, the results of CASE, and a list of IN with what is looked for in it. Their type is
//! the narrowest that holds all of them. A text that is written as such may stand for a number or a BOOLEAN there, also within a constructor.

use arrow::datatypes::DataType;
use datafusion::{
    common::ScalarValue,
    logical_expr::Expr,
    sql::sqlparser::ast::{self, FunctionArguments},
};

use super::{
    Resolver, Typed,
    call::{Written, written},
    cast, literal, nested,
};
use crate::{
    catalog::{
        type_name,
        types::{array_of, is_nested, map_of, map_parts, struct_of},
    },
    error::QueryError,
    functions::types::common,
    plan::kernel::apply,
};

/// A value and how it is written.
pub(super) type Given<'a> = (Typed, &'a ast::Expr);

impl Resolver<'_> {
    pub(super) fn array(&self, elements: &[ast::Expr]) -> Result<Typed, QueryError> {
        let written: Vec<&ast::Expr> = elements.iter().collect();
        let (elements, of) = self.alike_as_written(&written, "the elements of an array")?;
        array(elements, of)
    }

    pub(super) fn make_struct(&self, arguments: &[Written<'_>]) -> Result<Typed, QueryError> {
        let mut fields: Vec<(String, Typed)> = Vec::new();
        for (name, value) in struct_fields(arguments)? {
            fields.push((name, self.resolve(value)?));
        }
        make_struct(fields)
    }

    pub(super) fn make_map(&self, arguments: &[Written<'_>]) -> Result<Typed, QueryError> {
        let (keys, values) = self.entries(arguments)?;
        self.map(keys, values)
    }

    fn map(&self, keys: Vec<Given<'_>>, values: Vec<Given<'_>>) -> Result<Typed, QueryError> {
        let (keys, key) = self.alike(keys, "the keys of a map")?;
        let (values, value) = self.alike(values, "the values of a map")?;
        map((keys, key), (values, value))
    }

    /// Keys and values of a map.
    fn entries<'w>(&self, arguments: &[Written<'w>]) -> Result<(Vec<Given<'w>>, Vec<Given<'w>>), QueryError> {
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for argument in arguments {
            let Written::Named(key, value) = *argument else {
                return Err(QueryError::Invalid("MAP takes entries: MAP(key := value, ...)".to_owned()));
            };
            // A name or a text is never a constructor: what stands behind it is as good.
            keys.push(match key {
                Ok(ident) if ident.quote_style == Some('\'') => (literal(ScalarValue::Utf8(Some(ident.value.clone()))), value),
                Ok(ident) => (self.resolve(&ast::Expr::Identifier(ident.clone()))?, value),
                Err(key) => (self.resolve(key)?, key),
            });
            values.push((self.resolve(value)?, value));
        }
        Ok((keys, values))
    }

    /// As [`Resolver::alike`], of what is written.
    pub(super) fn alike_as_written(&self, all: &[&ast::Expr], what: &str) -> Result<(Vec<Expr>, DataType), QueryError> {
        let resolved = all.iter().map(|written| Ok((self.resolve(written)?, *written))).collect::<Result<Vec<_>, QueryError>>()?;
        self.alike(resolved, what)
    }

    /// The expressions in one type: the narrowest that holds all; texts become what the others are, where they can.
    pub(super) fn alike(&self, all: Vec<Given<'_>>, what: &str) -> Result<(Vec<Expr>, DataType), QueryError> {
        let all = self.fitted(all)?;
        let is_text = |one: &&Typed| one.data_type == DataType::Utf8;
        let first = all.iter().find(|one| !one.data_type.is_null()).map_or(DataType::Null, |one| one.data_type.clone());
        let mut of = DataType::Null;
        for one in &all {
            if one.data_type == DataType::Utf8 && first != DataType::Utf8 {
                continue;
            }
            of = match common(&of, &one.data_type) {
                Some(wider) => wider,
                None if first == DataType::Utf8 && one.can_be_text() => DataType::Utf8,
                None => {
                    let (given, other) = (type_name(&of), type_name(&one.data_type));
                    return Err(QueryError::Invalid(format!("{what} are of different types: {given} and {other}")));
                }
            };
        }
        // Literals of text stand for numbers: the type must hold them.
        for text in all.iter().filter(is_text).filter(|_| first != DataType::Utf8) {
            if let Some(wider) = text.literal_as_number().and_then(|number| common(&of, &number)) {
                of = wider;
            }
        }
        let mut given = Vec::with_capacity(all.len());
        for one in all {
            let refused = format!("{what} are {}, {} is {}", type_name(&of), one.expr, type_name(&one.data_type));
            let fits = one.constant_as(&of)?;
            given.push(match fits {
                Some(fits) => fits.expr,
                None if of == DataType::Utf8 && one.can_be_text() && !one.data_type.is_null() => one.cast_to(&of)?.expr,
                // Structs by name: what one of them lacks is NULL.
                None if is_nested(&of) && !one.data_type.is_null() && cast::can_cast(&one.data_type, &of) => one.cast_to(&of)?.expr,
                None => one.widened_to(&of).ok_or(QueryError::Invalid(refused))?.expr,
            });
        }
        Ok((given, of))
    }

    /// The values, each constructor that does not fit those before it written anew for their type.
    fn fitted(&self, all: Vec<Given<'_>>) -> Result<Vec<Typed>, QueryError> {
        let mut of = DataType::Null;
        let mut fitted = Vec::with_capacity(all.len());
        for (mut one, written) in all {
            if is_nested(&of) && common(&of, &one.data_type).is_none() {
                one = self.constructed(written, &of)?.unwrap_or(one);
            }
            of = common(&of, &one.data_type).unwrap_or(of);
            fitted.push(one);
        }
        Ok(fitted)
    }

    /// A constructor whose parts stand beside those of a type; none for everything else.
    fn constructed(&self, constructor: &ast::Expr, of: &DataType) -> Result<Option<Typed>, QueryError> {
        // Stands for the values of the type: has it, and is left out again.
        let typed = |data_type: &DataType| -> Result<Given<'_>, QueryError> {
            let null = ScalarValue::try_from(data_type).map_err(crate::plan::fault::of_planning)?;
            Ok((Typed { expr: literal(null).expr, data_type: data_type.clone() }, constructor))
        };
        let beside = |data_type: &DataType, parts: Vec<Given<'_>>, what: &str| {
            let all = std::iter::once(typed(data_type)?).chain(parts).collect();
            let (mut exprs, of) = self.alike(all, what)?;
            exprs.remove(0);
            Ok::<_, QueryError>((exprs, of))
        };
        match (constructor, of) {
            (ast::Expr::Nested(inner), _) => self.constructed(inner, of),
            (ast::Expr::Array(elements), DataType::List(item)) => {
                let elements = elements.elem.iter().map(|element| Ok((self.resolve(element)?, element)));
                let elements = elements.collect::<Result<Vec<_>, QueryError>>()?;
                let (elements, of) = beside(item.data_type(), elements, "the elements of an array")?;
                array(elements, of).map(Some)
            }
            (ast::Expr::Function(call), of) => {
                let name = call.name.to_string();
                let FunctionArguments::List(list) = &call.args else { return Ok(None) };
                let arguments = list.args.iter().map(|argument| written(argument, &name)).collect::<Result<Vec<_>, _>>()?;
                match (of, map_parts(of)) {
                    (_, Some((key, value))) if name.eq_ignore_ascii_case("MAP") => {
                        let (keys, values) = self.entries(&arguments)?;
                        let keys = beside(key, keys, "the keys of a map")?;
                        map(keys, beside(value, values, "the values of a map")?).map(Some)
                    }
                    (DataType::Struct(known), _) if name.eq_ignore_ascii_case("STRUCT") => {
                        let mut fields = Vec::new();
                        for (name, value) in struct_fields(&arguments)? {
                            let mut given = self.resolve(value)?;
                            if let Some((_, field)) = known.find(&name) {
                                let (exprs, of) = beside(field.data_type(), vec![(given.clone(), value)], "the values of a field")?;
                                given = Typed { expr: exprs.into_iter().next().unwrap_or(given.expr), data_type: of };
                            }
                            fields.push((name, given));
                        }
                        make_struct(fields).map(Some)
                    }
                    _ => Ok(None),
                }
            }
            _ => Ok(None),
        }
    }
}

fn array(elements: Vec<Expr>, of: DataType) -> Result<Typed, QueryError> {
    if of.is_null() {
        return Err(QueryError::Invalid("an array needs an element that is not NULL: its type is not known; CAST one".to_owned()));
    }
    let data_type = array_of(of);
    let DataType::List(field) = &data_type else { return Err(QueryError::Execution("an array is none".to_owned())) };
    let kernel = nested::MakeArray(std::sync::Arc::clone(field));
    Ok(Typed { expr: apply("array", data_type.clone(), kernel, elements), data_type })
}

fn map((keys, key): (Vec<Expr>, DataType), (values, value): (Vec<Expr>, DataType)) -> Result<Typed, QueryError> {
    if key.is_null() || value.is_null() {
        return Err(QueryError::Invalid("a map needs an entry that is not NULL: its type is not known; CAST one".to_owned()));
    }
    let data_type = map_of(key, value);
    let operands = keys.into_iter().zip(values).flat_map(|(key, value)| [key, value]).collect();
    Ok(Typed { expr: apply("map", data_type.clone(), nested::MakeMap(data_type.clone()), operands), data_type })
}

/// Names and values of a struct, each name once.
fn struct_fields<'w>(arguments: &[Written<'w>]) -> Result<Vec<(String, &'w ast::Expr)>, QueryError> {
    let mut fields: Vec<(String, &ast::Expr)> = Vec::new();
    for argument in arguments {
        let Written::Named(Ok(name), value) = *argument else {
            return Err(QueryError::Invalid("STRUCT takes fields: STRUCT(name := value, ...)".to_owned()));
        };
        if fields.iter().any(|(known, _)| *known == name.value) {
            return Err(QueryError::Invalid(format!("STRUCT has the field {} twice", name.value)));
        }
        fields.push((name.value.clone(), value));
    }
    Ok(fields)
}

fn make_struct(given: Vec<(String, Typed)>) -> Result<Typed, QueryError> {
    let (mut fields, mut values) = (Vec::new(), Vec::new());
    for (name, value) in given {
        if value.data_type.is_null() {
            return Err(QueryError::Invalid(format!("the type of field {name} is not known: CAST the NULL")));
        }
        fields.push((name, value.data_type));
        values.push(value.expr);
    }
    let data_type = struct_of(fields);
    Ok(Typed { expr: apply("struct", data_type.clone(), nested::MakeStruct(data_type.clone()), values), data_type })
}
