//! What a function is: its name, its forms, and what its documentation says. All of it is data, in the files of the families.

use arrow::{array::ArrayRef, datatypes::DataType};
use datafusion::common::Result;

use super::{
    input::Input,
    pattern::{self, Parameter, Pattern},
};

/// Computes a call for every row of its input; a row that fails is NULL and told to the input.
pub(crate) type Kernel = fn(&Input<'_>) -> Result<ArrayRef>;

/// A function as its family writes it down.
#[derive(Clone, Copy)]
pub(crate) struct Definition {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) forms: &'static [FormDefinition],
    pub(crate) examples: &'static [(&'static str, &'static str)],
    pub(crate) scope: Scope,
}

/// One signature of a function with what computes it.
#[derive(Clone, Copy)]
pub(crate) struct FormDefinition {
    signature: &'static str,
    body: Body,
    returns: Option<fn(&[DataType]) -> DataType>,
    repeatable: bool,
}

/// What computes a form.
#[derive(Clone, Copy)]
pub(crate) enum Body {
    /// Values of its arguments.
    Kernel(Kernel),
    /// Lambdas besides.
    Lambda(super::lambda::Body),
}

/// In which dialects a name means this function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In both.
    Both,
    /// In `ksql` alone: in `standard` DataFusion has a function of this name with PostgreSQL's rule, or one that does the same.
    Ksql,
}

/// Family of functions, for `SHOW FUNCTIONS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// Numbers.
    Math,
    /// Texts.
    Text,
    /// Bytes and encodings.
    Bytes,
    /// Patterns.
    Regex,
    /// Arrays.
    Array,
    /// Maps.
    Map,
    /// Functions of functions.
    Lambda,
    /// JSON as text.
    Json,
    /// Dates, times and timestamps.
    Time,
    /// URLs.
    Url,
    /// Choosing among values, and NULL.
    Choice,
}

impl Family {
    /// The family's name, as users see it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Math => "math",
            Self::Text => "text",
            Self::Bytes => "bytes",
            Self::Regex => "regex",
            Self::Array => "array",
            Self::Map => "map",
            Self::Lambda => "lambda",
            Self::Json => "json",
            Self::Time => "time",
            Self::Url => "url",
            Self::Choice => "choice",
        }
    }
}

/// A form that computes values.
pub(crate) const fn form(signature: &'static str, kernel: Kernel) -> FormDefinition {
    FormDefinition { signature, body: Body::Kernel(kernel), returns: None, repeatable: true }
}

/// A form that takes lambdas.
pub(crate) const fn lambda_form(signature: &'static str, body: super::lambda::Body) -> FormDefinition {
    FormDefinition { signature, body: Body::Lambda(body), returns: None, repeatable: true }
}

impl FormDefinition {
    /// With a result whose type is computed from those of the arguments.
    pub(crate) const fn returning(self, returns: fn(&[DataType]) -> DataType) -> Self {
        Self { returns: Some(returns), ..self }
    }

    /// With another value each time.
    pub(crate) const fn not_repeatable(self) -> Self {
        Self { repeatable: false, ..self }
    }
}

impl Definition {
    /// A function of both dialects.
    pub(crate) const fn new(
        name: &'static str,
        about: &'static str,
        forms: &'static [FormDefinition],
        examples: &'static [(&'static str, &'static str)],
    ) -> Self {
        Self { name, about, forms, examples, scope: Scope::Both }
    }

    /// Leaves the name to DataFusion's function in `standard`.
    pub(crate) const fn only_ksql(self) -> Self {
        Self { scope: Scope::Ksql, ..self }
    }
}

/// A form, read.
#[derive(Debug)]
pub(crate) struct Form {
    /// What it takes.
    pub(crate) parameters: Vec<Parameter>,
    /// Whether the last parameter may be given any number of times, also none.
    pub(crate) variadic: bool,
    /// What it gives.
    pub(crate) returns: Pattern,
    pub(crate) computed: Option<fn(&[DataType]) -> DataType>,
    pub(crate) body: Body,
    pub(crate) repeatable: bool,
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Kernel(_) => "Kernel",
            Self::Lambda(_) => "Lambda",
        })
    }
}

impl Form {
    /// # Errors
    /// What is wrong with the signature.
    pub(crate) fn read(definition: &FormDefinition) -> Result<Self, String> {
        let (parameters, variadic, returns) =
            pattern::parse(definition.signature).map_err(|fault| format!("{}: {fault}", definition.signature))?;
        Ok(Self { parameters, variadic, returns, computed: definition.returns, body: definition.body, repeatable: definition.repeatable })
    }

    /// The parameter that takes the argument at a place.
    pub(crate) fn parameter(&self, at: usize) -> Option<&Parameter> {
        self.parameters.get(at).or_else(|| if self.variadic { self.parameters.last() } else { None })
    }

    /// Whether so many arguments may be given.
    pub(crate) fn takes(&self, arguments: usize) -> bool {
        if self.variadic { arguments + 1 >= self.parameters.len() } else { arguments == self.parameters.len() }
    }

    /// `NAME(parameters) -> RESULT`, as users read it.
    pub(crate) fn shown(&self, name: &str) -> String {
        let last = self.parameters.len();
        let shown = self.parameters.iter().enumerate().map(|(at, parameter)| {
            let more = if self.variadic && at + 1 == last { "..." } else { "" };
            format!("{} {}{more}", parameter.name, parameter.pattern)
        });
        format!("{}({}) -> {}", name.to_uppercase(), shown.collect::<Vec<_>>().join(", "), self.returns)
    }
}
