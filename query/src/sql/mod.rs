//! From text to statements: bounds, dialect, parser. Knows no catalog and no log.

pub mod dialect;
pub mod guard;
pub mod parser;
pub mod statement;

pub use dialect::Dialect;
pub use parser::{parse, split};
pub use statement::{Piece, Statement};
