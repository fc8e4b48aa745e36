//! plasma: push and pull over SQL tables.

pub mod compaction;
pub mod cookie;
pub mod engine;
pub mod envelope;
pub mod failure;
pub mod groups;
pub mod language;
pub mod migration;
pub mod mutators;
pub mod pull;
pub mod push;
pub mod schema;
pub mod server_db;
pub mod stats;
mod store;
mod table_sql;
mod write;

#[cfg(test)]
mod tests;
