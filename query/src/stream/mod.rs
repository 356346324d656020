//! What never ends: queries as tasks that fold their sources in steps.

pub mod change;
pub(crate) mod check;
pub(crate) mod checkpoint;
pub(crate) mod commit;
pub(crate) mod decode;
pub mod fold;
pub(crate) mod followers;
pub(crate) mod operator;
pub mod pace;
pub(crate) mod query;
pub(crate) mod scanned;
pub(crate) mod source;
pub(crate) mod state;
pub(crate) mod task;
pub mod view;
pub(crate) mod worker;
