//! Realtime (docs/protocols/plasma.md, section 8): server-sent events and WebSockets that are poked, and streams of changes.
//!
//! A connection subscribes first and reads the version then, so no change falls between; pokes that its `hello` covers are cut
//! off. Pokes are encoded once per transport by whoever commits (`topics`) and forwarded as they are. Streams of changes are
//! only woken by publications: each reads for itself from its own cookie, so its patches always fit onto one another. Live queries
//! are run and encoded once for all who have the same.

pub mod attachment;
mod changes;
mod coalesce;
mod events;
pub mod live;
mod open;
mod receive;
pub mod topics;

pub use attachment::Transport;
pub use open::{open_live, open_socket, open_stream};
pub use receive::{closed, receive};

use crate::imports::Publication;
use crate::plasma::Call;
use crate::registry::{Deliveries, Group};

/// What a publication becomes for the groups that listen.
pub fn deliver(call: &Call<'_>, publication: &Publication, groups: &[Group]) -> Deliveries {
    match live::is_topic(call, &publication.topic) {
        true => live::deliver(call, publication, groups),
        false => coalesce::deliver(call, publication, groups),
    }
}
