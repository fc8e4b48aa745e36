//! How much the databases of a mount hold, for its quota.
//!
//! The server is asked at most once a second and the answer kept, so a quota is looked at with a figure that is a moment
//! old.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::Shared;

/// How old a figure may be before it is asked for again.
const AGE_MAX: Duration = Duration::from_secs(1);

/// What is known of each mount.
#[derive(Default)]
pub(super) struct Spaces(Arc<Mutex<HashMap<String, Space>>>);

#[derive(Clone, Copy, Default)]
struct Space {
    bytes: u64,
    /// None before the first answer.
    asked: Option<Instant>,
    asking: bool,
}

impl Spaces {
    /// What a mount held when the server was last asked; asks again where that is a while ago.
    pub(super) fn bytes(&self, shared: &Arc<Shared>, mount: &str) -> u64 {
        let mut spaces = self.0.lock();
        let space = spaces.entry(mount.to_owned()).or_default();
        if !space.asking && space.asked.is_none_or(|asked| asked.elapsed() >= AGE_MAX) {
            space.asking = true;
            let (spaces, shared, mount) = (Arc::clone(&self.0), Arc::clone(shared), mount.to_owned());
            shared.runtime.clone().spawn(async move {
                let found = shared.size_bytes(&mount).await;
                let mut spaces = spaces.lock();
                let space = spaces.entry(mount).or_default();
                match found {
                    Ok(bytes) => space.bytes = bytes,
                    Err(error) => tracing::debug!(%error, "the size of databases cannot be said"),
                }
                (space.asked, space.asking) = (Some(Instant::now()), false);
            });
        }
        space.bytes
    }
}
