//! The wasmtime host of Syncline: embeds the component, gives it SQL, storage and topics, and holds the sockets.
//!
//! The binary `syncline` is a thin command line over this library. A program of its own may start it with backends of
//! its own; here with those that come along:
//!
//! ```no_run
//! use std::sync::Arc;
//! use syncline::executor::sqlite::{SqliteExecutor, SqliteSettings};
//! use syncline::pubsub::memory::MemoryPubSub;
//! use syncline::runtime::{Backends, GUEST_COMPONENT, MountSettings, Runtime, RuntimeSettings};
//! use syncline::server::{Server, ServerSettings};
//! use syncline::storage::{Storage, files::FileObjects, sqlite::SqliteKeyValue};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let backends = Backends {
//!     executor: Arc::new(SqliteExecutor::start(SqliteSettings::new("./data")).await?),
//!     storage: Storage {
//!         objects: Arc::new(FileObjects::open("./data/objects").await?),
//!         keyvalue: Arc::new(SqliteKeyValue::open("./data").await?),
//!     },
//!     pubsub: Arc::new(MemoryPubSub::default()),
//! };
//! let listen = String::from("127.0.0.1:8787");
//! let mounts = [MountSettings {
//!     name: "notes".into(),
//!     protocol: "secsync".into(),
//!     settings: serde_json::Map::from_iter([("path".into(), "/notes".into())]),
//!     app: None,
//!     listen: listen.clone(),
//!     quota_bytes: None,
//! }];
//! let runtime = Runtime::start(GUEST_COMPONENT, RuntimeSettings::default(), &mounts, backends).await?;
//! let server = Server::start(runtime, &mounts, ServerSettings { listen, ..ServerSettings::default() }).await?;
//! tokio::signal::ctrl_c().await?;
//! server.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! Map of the modules: `ARCHITECTURE.md`. Contract with the component: `wit/`.

pub mod backup;
pub mod compose;
pub mod config;
pub mod control;
pub mod doctor;
pub mod executor;
pub mod gateway;
pub mod metrics;
mod outbound;
pub mod pubsub;
pub mod runtime;
pub mod server;
pub mod storage;
