//! All functions by name, and which form of one a call means.
//!
//! The form is chosen as ksqlDB does: first among those that take exactly the types given (NULL fits any), then among those that
//! take them widened; a form with a fixed number of arguments before one that takes any number, one that says more of its types
//! before one that says less. Forms between which nothing decides are an error.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use arrow::datatypes::DataType;
use datafusion::logical_expr::ScalarUDF;

use super::{
    arrays, bytes,
    call::{Argument, Registered},
    chance, choice, dates,
    definition::{Body, Definition, Family, Form, Scope},
    json, lambda, maps, masks, math,
    pattern::{Bindings, Coercion, Pattern},
    regex, rounding, text, types, urls,
};
use crate::{catalog::type_name, error::QueryError};

/// A function.
#[derive(Debug)]
pub struct Function {
    name: &'static str,
    about: &'static str,
    examples: &'static [(&'static str, &'static str)],
    family: Family,
    scope: Scope,
    forms: Vec<Form>,
}

/// The form of a function that a call means.
#[derive(Debug)]
pub(crate) struct Chosen {
    /// Its place among the function's forms.
    pub(crate) place: usize,
    /// The type that each argument is cast to; of a lambda that of its result, once that is known.
    pub(crate) coerced: Vec<DataType>,
    /// What it gives.
    pub(crate) returns: DataType,
    /// What its letters stand for.
    pub(crate) bound: Bindings,
}

static FUNCTIONS: LazyLock<BTreeMap<&'static str, Function>> = LazyLock::new(|| {
    let families = [
        (Family::Math, math::FUNCTIONS),
        (Family::Math, rounding::FUNCTIONS),
        (Family::Math, chance::RANDOM),
        (Family::Text, text::FUNCTIONS),
        (Family::Text, masks::FUNCTIONS),
        (Family::Text, chance::UUID),
        (Family::Bytes, bytes::FUNCTIONS),
        (Family::Regex, regex::FUNCTIONS),
        (Family::Array, arrays::FUNCTIONS),
        (Family::Map, maps::FUNCTIONS),
        (Family::Lambda, lambda::FUNCTIONS),
        (Family::Json, json::FUNCTIONS),
        (Family::Time, dates::FUNCTIONS),
        (Family::Url, urls::FUNCTIONS),
        (Family::Choice, choice::FUNCTIONS),
    ];
    let functions =
        families.into_iter().flat_map(|(family, functions)| functions.iter().map(move |one| (one.name, Function::of(one, family))));
    functions.collect()
});

/// The function of a name, however its letters are written.
#[must_use]
pub fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.get(name.to_ascii_lowercase().as_str())
}

/// All functions, by name.
pub fn all() -> impl Iterator<Item = &'static Function> {
    FUNCTIONS.values()
}

/// The functions whose names mean ours, for DataFusion's planner; in `ksql` all of them do.
#[must_use]
pub fn udfs(is_ksql: bool) -> Vec<Arc<ScalarUDF>> {
    let ours = all().filter(|function| (is_ksql || function.scope == Scope::Both) && !function.takes_lambdas());
    ours.map(|function| Arc::new(ScalarUDF::from(Registered::named(function)))).collect()
}

impl Function {
    fn of(definition: &'static Definition, family: Family) -> Self {
        let read = |form| Form::read(form).unwrap_or_else(|fault| panic!("{}: {fault}", definition.name));
        Self {
            name: definition.name,
            about: definition.about,
            examples: definition.examples,
            family,
            scope: definition.scope,
            forms: definition.forms.iter().map(read).collect(),
        }
    }

    /// Its name, in small letters.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What it does, in a sentence or two.
    #[must_use]
    pub fn about(&self) -> &'static str {
        self.about
    }

    /// The family that it belongs to.
    #[must_use]
    pub fn family(&self) -> Family {
        self.family
    }

    /// In which dialects its name means it.
    #[must_use]
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// Calls and what they give.
    #[must_use]
    pub fn examples(&self) -> &'static [(&'static str, &'static str)] {
        self.examples
    }

    /// Its forms as users read them: `ABS(number INT) -> INT`.
    pub fn signatures(&self) -> impl Iterator<Item = String> {
        self.forms.iter().map(|form| form.shown(self.name))
    }

    /// Whether the argument at a place may be a bare unit of time, as `DAYS`; the function takes it as text.
    #[must_use]
    pub fn takes_unit(&self, at: usize) -> bool {
        self.forms.iter().any(|form| form.parameter(at).is_some_and(|parameter| parameter.pattern == Pattern::Unit))
    }

    /// Whether it takes lambdas: then it is called through [`Function::with_lambdas`].
    #[must_use]
    pub fn takes_lambdas(&self) -> bool {
        self.forms.iter().any(|form| matches!(form.body, Body::Lambda(_)))
    }

    /// Whether a call of so many arguments always has the same value for the same arguments.
    #[must_use]
    pub fn is_repeatable(&self, arguments: usize) -> bool {
        self.forms.iter().filter(|form| form.takes(arguments)).all(|form| form.repeatable)
    }

    pub(crate) fn form(&self, place: usize) -> Option<&Form> {
        self.forms.get(place)
    }

    /// The form that a call means, and its types.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] if there is none, or more than one.
    pub(crate) fn choose(&self, arguments: &[Argument<'_>], loosest: Coercion) -> Result<Chosen, QueryError> {
        let given: Vec<Argument<'_>> = arguments.to_vec();
        let canonical: Vec<DataType> = arguments.iter().map(Argument::canonical).collect();
        for coercion in [Coercion::Exact, Coercion::Widening, Coercion::Narrowing] {
            if coercion > loosest {
                break;
            }
            let mut fitting: Vec<(usize, Bindings)> = Vec::new();
            for (place, form) in self.forms.iter().enumerate() {
                if let Some(bound) = fits(form, &given, &canonical, coercion) {
                    fitting.push((place, bound));
                }
            }
            let rank = |place: usize| {
                self.forms.get(place).map(|form| (form.variadic, form.parameters.iter().map(|one| one.pattern.letters()).sum::<usize>()))
            };
            let Some(best) = fitting.iter().map(|(place, _)| rank(*place)).min() else { continue };
            fitting.retain(|(place, _)| rank(*place) == best);
            if fitting.len() > 1 && loosest < Coercion::Narrowing {
                let message = format!(
                    "{} can be taken in more than one way; CAST the arguments. There are: {}",
                    self.call_of(arguments),
                    self.known()
                );
                return Err(QueryError::Invalid(message));
            }
            if let Some((place, bound)) = fitting.into_iter().next() {
                return self.chosen(place, bound, &canonical);
            }
        }
        Err(QueryError::Invalid(format!("there is no {}; there are: {}", self.call_of(arguments), self.known())))
    }

    fn chosen(&self, place: usize, bound: Bindings, canonical: &[DataType]) -> Result<Chosen, QueryError> {
        let Some(form) = self.forms.get(place) else { return Err(QueryError::Execution(format!("{} has no form {place}", self.name))) };
        let coerced: Vec<DataType> = canonical
            .iter()
            .enumerate()
            .map(|(at, given)| form.parameter(at).map_or_else(|| given.clone(), |parameter| parameter.pattern.coerced(given, &bound)))
            .collect();
        let returns = match (form.computed, &form.returns) {
            (Some(computed), _) => computed(&coerced),
            (None, Pattern::Decimal) => {
                coerced.iter().find(|one| matches!(one, DataType::Decimal128(..))).cloned().unwrap_or(DataType::Decimal128(10, 0))
            }
            (None, returns) => returns.filled(&bound),
        };
        Ok(Chosen { place, coerced, returns, bound })
    }

    fn call_of(&self, arguments: &[Argument<'_>]) -> String {
        let shown: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        format!("{}({})", self.name.to_uppercase(), shown.join(", "))
    }

    fn known(&self) -> String {
        self.signatures().collect::<Vec<_>>().join("; ")
    }
}

fn fits(form: &Form, given: &[Argument<'_>], canonical: &[DataType], coercion: Coercion) -> Option<Bindings> {
    if !form.takes(given.len()) {
        return None;
    }
    let mut bound = Bindings::default();
    for (at, (argument, data_type)) in given.iter().zip(canonical).enumerate() {
        let pattern = &form.parameter(at)?.pattern;
        let fits = match (argument, pattern) {
            (Argument::Lambda { parameters }, Pattern::Lambda(wanted, _)) => wanted.len() == *parameters,
            (Argument::Lambda { .. }, _) | (Argument::Value(_), Pattern::Lambda(..)) => false,
            (Argument::Value(_), _) => pattern.fits(data_type, coercion, &mut bound),
        };
        if !fits {
            return None;
        }
    }
    Some(bound)
}

impl Argument<'_> {
    pub(crate) fn canonical(&self) -> DataType {
        match self {
            Self::Value(data_type) => types::canonical(data_type),
            Self::Lambda { .. } => DataType::Null,
        }
    }
}

impl std::fmt::Display for Argument<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Value(data_type) if data_type.is_null() => f.write_str("NULL"),
            Self::Value(data_type) => f.write_str(&type_name(data_type)),
            Self::Lambda { parameters } => write!(f, "a lambda of {parameters}"),
        }
    }
}
