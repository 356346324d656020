//! From text to statements: bounds, dialect, parser. Knows no catalog and no log.

pub mod dialect;
pub mod guard;
pub mod lexemes;
mod mistakes;
mod parameters;
pub mod parser;
pub mod session;
pub mod statement;
pub mod sugar;
mod tokens;
pub mod types;

pub use dialect::{Dialect, DialectKind};
pub use parameters::check_parameters;
pub use parser::{parse, take_limit};
pub use session::{Session, SessionChange};
pub use statement::{Piece, Statement};
pub(crate) use tokens::place_of_expr;
pub use tokens::{located, split};
