//! CREATE TYPE and DROP TYPE: names for types, and what they stand for in a statement.

use std::collections::BTreeMap;

use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast;

use super::{Core, done};
use crate::{
    answer::Answer,
    catalog::{Catalog, Change, nearest, type_name},
    error::QueryError,
    sql::{
        Dialect,
        types::{self, TypeExpr},
    },
    stack::with_stack,
};

impl Core {
    pub(super) fn create_type(&self, name: String, if_not_exists: bool, written: &TypeExpr) -> Result<Answer, QueryError> {
        let catalog = self.snapshot();
        // With or without digits, it would be read before what is made here.
        if types::named(&name).is_ok() || types::named(&format!("{name}(1, 0)")).is_ok() {
            return Err(QueryError::Invalid(format!("{name} is a type of SQL; choose another name")));
        }
        if catalog.type_made(&name).is_some() {
            if if_not_exists {
                return Ok(done(self.head(), format!("type {name} exists already")));
            }
            return Err(QueryError::Exists { what: "a type called", name });
        }
        let data_type = written.resolve(&|name| catalog.type_made(name))?;
        let what = format!("type {name} stands for {}", type_name(&data_type));
        Ok(done(self.commit(&Change::CreateType { name, data_type })?, what))
    }

    pub(super) fn drop_type(&self, name: String, if_exists: bool) -> Result<Answer, QueryError> {
        let catalog = self.snapshot();
        if catalog.type_made(&name).is_none() {
            if if_exists {
                return Ok(done(self.head(), format!("type {name} does not exist")));
            }
            let hint = nearest(&name, catalog.types().keys().map(String::as_str));
            return Err(QueryError::Unknown { what: "type", name, hint, place: None });
        }
        let what = format!("type {name} dropped; what was declared with it stays as it is");
        Ok(done(self.commit(&Change::DropType { name })?, what))
    }

    /// Gives the names of CREATE TYPE in the casts of a statement their meaning.
    pub(super) fn expand_types(&self, catalog: &Catalog, dialect: Dialect, written: &mut impl ast::VisitMut) -> Result<(), QueryError> {
        with_stack(|| types::expand(written, dialect, &|name| catalog.type_made(name)))
    }

    /// The names of CREATE TYPE that a query uses, and what they stand for.
    pub(super) fn types_used(
        &self,
        catalog: &Catalog,
        dialect: Dialect,
        query: &ast::Query,
    ) -> Result<BTreeMap<String, DataType>, QueryError> {
        let names = with_stack(|| types::names_in(query, dialect))?;
        Ok(names.into_iter().filter_map(|name| catalog.type_made(&name).map(|data_type| (name, data_type))).collect())
    }
}
