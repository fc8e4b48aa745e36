//! The wasmtime host of Syncline: embeds the component, gives it SQL, storage and topics, and holds the sockets.

pub mod executor;
pub mod metrics;
pub mod pubsub;
pub mod runtime;
pub mod storage;
pub mod server;
pub mod config;
