//! Realtime (docs/protocols/plasma.md, section 8): server-sent events and WebSockets that are poked, and streams of changes.
//!
//! A connection subscribes first and reads the version then, so no change falls between; pokes that its `hello` covers are cut
//! off. Pokes are encoded once per transport by whoever commits (`topics`) and forwarded as they are. Streams of changes are
//! only woken by publications: each reads for itself from its own cookie, so its patches always fit onto one another.

pub mod attachment;
mod changes;
mod coalesce;
mod events;
mod open;
mod receive;
pub mod topics;

pub use coalesce::deliver;
pub use open::{open_socket, open_stream};
pub use receive::{closed, receive};
