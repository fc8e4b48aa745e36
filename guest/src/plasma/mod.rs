//! plasma: push and pull over SQL tables.

pub mod envelope;
pub mod language;
pub mod schema;
