//! What never ends: queries as tasks that fold their sources in steps.

pub mod change;
mod state;
pub mod view;
