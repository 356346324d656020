//! What never ends: queries as tasks that fold their sources in steps.

pub mod change;
pub mod view;
