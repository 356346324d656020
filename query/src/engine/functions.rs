//! SHOW FUNCTIONS and DESCRIBE FUNCTION: what the registry of functions, that of aggregates and that of table functions say.

use super::{Core, describe::texts, rows};
use crate::{
    answer::Answer,
    catalog::nearest,
    error::QueryError,
    functions::{self, Function, Scope},
    plan::{
        aggregates::{self, Aggregate},
        table_functions::{self, Described},
    },
};

/// What is told of a function, whichever kind it is.
struct Entry {
    name: &'static str,
    family: &'static str,
    about: &'static str,
    signatures: Vec<String>,
    examples: Vec<(&'static str, &'static str)>,
    note: Option<&'static str>,
}

impl Entry {
    fn of_function(function: &Function) -> Self {
        let is_other = function.scope() == Scope::Ksql;
        Self {
            name: function.name(),
            family: function.family().as_str(),
            about: function.about(),
            signatures: function.signatures().collect(),
            examples: function.examples().to_vec(),
            note: is_other
                .then_some("this is the rule of ksql; in standard the name means DataFusion's function, which follows PostgreSQL"),
        }
    }

    fn of_aggregate(aggregate: &Aggregate) -> Self {
        Self {
            name: aggregate.name,
            family: "aggregate",
            about: aggregate.description,
            signatures: aggregate.signatures.iter().map(|signature| (*signature).to_owned()).collect(),
            examples: vec![aggregate.example],
            note: None,
        }
    }

    fn of_table_function(function: &Described) -> Self {
        Self {
            name: function.name,
            family: "table",
            about: function.description,
            signatures: vec![function.signature.to_owned()],
            examples: Vec::new(),
            note: None,
        }
    }

    /// All of them, by name.
    fn all() -> Vec<Self> {
        let mut all: Vec<Self> = functions::all().map(Self::of_function).collect();
        all.extend(aggregates::all().iter().map(Self::of_aggregate));
        all.extend(table_functions::all().iter().map(Self::of_table_function));
        all.sort_by_key(|entry| entry.name);
        all
    }

    fn find(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let is_called = |aggregate: &&Aggregate| aggregate.name == name || aggregate.aliases.contains(&name.as_str());
        let aggregate = || aggregates::all().iter().find(is_called).map(Self::of_aggregate);
        let table_function = || table_functions::all().iter().find(|function| function.name == name).map(Self::of_table_function);
        functions::find(&name).map(Self::of_function).or_else(aggregate).or_else(table_function)
    }
}

impl Core {
    /// Every function, by name.
    pub(super) fn show_functions(&self) -> Result<Answer, QueryError> {
        let all = Entry::all();
        let column = |of: &dyn Fn(&Entry) -> &'static str| texts(all.iter().map(|entry| Some(of(entry).to_owned())));
        rows(
            self.head(),
            vec![
                ("name", column(&|entry| entry.name)),
                ("family", column(&|entry| entry.family)),
                ("description", column(&|entry| entry.about)),
            ],
        )
    }

    /// All that is known of a function, a line each.
    pub(super) fn describe_function(&self, name: &str) -> Result<Answer, QueryError> {
        let Some(entry) = Entry::find(name) else {
            let all = Entry::all();
            let hint = nearest(name, all.iter().map(|entry| entry.name));
            return Err(QueryError::Unknown { what: "function", name: name.to_owned(), hint, place: None });
        };
        let mut lines = vec![("name", entry.name.to_owned()), ("family", entry.family.to_owned()), ("description", entry.about.to_owned())];
        lines.extend(entry.note.map(|note| ("dialect", note.to_owned())));
        lines.extend(entry.signatures.into_iter().map(|signature| ("signature", signature)));
        lines.extend(entry.examples.into_iter().map(|(call, gives)| ("example", format!("{call} = {gives}"))));
        let (items, told): (Vec<_>, Vec<_>) = lines.into_iter().map(|(item, told)| (Some(item.to_owned()), Some(told))).unzip();
        rows(self.head(), vec![("item", texts(items.into_iter())), ("text", texts(told.into_iter()))])
    }
}
