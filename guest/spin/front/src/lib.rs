//! What stands in for the host under Spin: it answers requests and calls the logic that it was composed with. What outlives a
//! request is kept by the back adapter, by the interface between the two (`wit/deps/spin/adapter.wit`).
//!
//! The same contract as with the server of this project holds (`wit/handler.wit`), without its concurrency: in one instance the
//! logic works on one call at a time, and connections do not meet in memory but in the row of publications.
//!
//! Nothing here knows how a request came: two kinds of handlers give it an [`Exchange`] each.

pub mod bindings;
pub mod config;
pub mod imports;
pub mod ports;

mod address;
mod answers;
mod body;
mod calls;
mod due;
mod front;
mod gateway;
mod head;
mod listening;
mod log;
mod mount;
mod newest;
mod operations;
mod parked;
mod requests;
mod routes;
mod stream;
#[cfg(test)]
mod tests;

pub use front::Front;
pub use ports::{AnswerHead, Clock, Exchange, Gone, Incoming, Unread};
