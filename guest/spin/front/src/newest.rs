//! The newest positions of all mounts: looked at once for all who wait in this instance.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::bindings::syncline::spin::adapter::Error;
use crate::front::{Deployment, Front};
use crate::ports::Clock;

/// How often it is looked while something happens.
pub(crate) const LOOK_MS: u64 = 100;
/// How often while nothing does.
const IDLE_LOOK_MS: u64 = 250;
/// From when on nothing does.
const IDLE_AFTER_MS: u64 = 10_000;

/// What was seen last.
#[derive(Default)]
pub(crate) struct Newest(RefCell<Seen>);

#[derive(Default)]
struct Seen {
    looked_at_ms: Option<u64>,
    positions: HashMap<String, u64>,
}

/// How often somebody who waits looks.
pub(crate) struct Pace {
    busy_at_ms: u64,
}

impl Pace {
    /// Something happened just now.
    pub(crate) fn new(now_ms: u64) -> Self {
        Self { busy_at_ms: now_ms }
    }

    /// How long to wait before the next look.
    pub(crate) fn wait_ms(&self, now_ms: u64) -> u64 {
        if now_ms.saturating_sub(self.busy_at_ms) < IDLE_AFTER_MS { LOOK_MS } else { IDLE_LOOK_MS }
    }
}

impl<C: Clock> Front<C> {
    /// The newest position of a mount, as it was at most a look ago.
    pub(crate) fn newest(&self, deployment: &Deployment, mount: &str) -> Result<u64, Error> {
        let now_ms = self.clock.now_ms();
        let is_fresh = |seen: &Seen| seen.looked_at_ms.is_some_and(|looked_at_ms| now_ms.saturating_sub(looked_at_ms) < LOOK_MS / 2);
        if !is_fresh(&self.newest.0.borrow()) {
            let names: Vec<String> = deployment.mounts.iter().map(|mount| mount.name.clone()).collect();
            let positions = self.adapter.positions(&names)?;
            *self.newest.0.borrow_mut() = Seen { looked_at_ms: Some(now_ms), positions: names.into_iter().zip(positions).collect() };
        }
        Ok(self.newest.0.borrow().positions.get(mount).copied().unwrap_or(0))
    }
}
