//! The back adapter for Spin: what outlives a request, over what Spin offers.
//!
//! It implements `syncline:host` for the logic (SQL, storage, topics, effects) and `syncline:spin/adapter` for the front adapter.
//! All of it is plain logic over the traits of [`ports`], so that it is tested natively; `component` alone knows the bindings.
//!
//! Everything is in one database: the tables of the logic, told apart by mount and family ([`executor`]), and those of the
//! adapter itself ([`store`]). What a call lets out is written in the transaction that it belongs to, or at the end of the call
//! ([`call`]), so that a trap at any moment leaves what a crash would.

pub mod back;
pub mod bindings;
pub mod call;
mod codec;
#[cfg(target_family = "wasm")]
mod component;
mod documents;
mod due;
mod effects;
mod ending;
pub mod executor;
pub mod guard;
mod log;
pub mod metrics;
pub mod objects;
pub mod ports;
mod pubsub;
pub mod redis;
pub mod settings;
pub mod sql;
mod storage;
pub mod store;
#[cfg(test)]
mod tests;

pub use pubsub::SENT_TOPIC;
