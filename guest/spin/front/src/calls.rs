//! Calls of the logic: each from `begin` to `end`, and again where a database asked for it.
//!
//! A trap takes the instance along, and the request with it: there is no second try of that here.

use crate::bindings::syncline::spin::adapter::Ended;
use crate::front::Front;
use crate::log::{Level, log, words};
use crate::mount::Mount;
use crate::ports::{Clock, Logic};

/// How often a call is run again because a database asked for it.
const RERUNS_MAX: u32 = 12;
/// The longest pause before that, in milliseconds, where it is the first time.
const RERUN_PAUSE_MS: u64 = 4;

/// A call that is over. What it committed is durable, what it let out is on its way.
pub(crate) struct Called<T> {
    pub(crate) answer: T,
    pub(crate) ended: Ended,
}

/// What the call rests on could not be made durable, or could not be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its data could not be made durable")]
pub(crate) struct NotDurable;

impl<C: Clock> Front<C> {
    /// Makes a call. Nothing else happens in this instance from its begin to its end.
    pub(crate) async fn call<T>(&self, mount: &Mount, make: impl FnMut(&dyn Logic) -> T) -> Result<Called<T>, NotDurable> {
        self.call_within(mount, false, make).await
    }

    /// A call that may take long.
    pub(crate) async fn call_long<T>(&self, mount: &Mount, make: impl FnMut(&dyn Logic) -> T) -> Result<Called<T>, NotDurable> {
        self.call_within(mount, true, make).await
    }

    /// See [`Front::call`] and [`Front::call_long`].
    pub(crate) async fn call_within<T>(
        &self,
        mount: &Mount,
        long: bool,
        mut make: impl FnMut(&dyn Logic) -> T,
    ) -> Result<Called<T>, NotDurable> {
        for rerun in 0..=RERUNS_MAX {
            self.adapter.begin(&mount.name, long);
            let answer = make(&*self.logic);
            let ended = self.adapter.end(false).map_err(|error| {
                log(Level::Error, Some(&mount.name), "a call is lost", words(&error));
                NotDurable
            })?;
            if ended.refreshed {
                mount.look_again();
            }
            if !ended.again {
                return Ok(Called { answer, ended });
            }
            drop(answer);
            let pause_ms = self.clock.random() % (RERUN_PAUSE_MS << rerun.min(6));
            self.clock.sleep(pause_ms).await;
        }
        log(Level::Error, Some(&mount.name), "a call was given up: others were always faster", "");
        Err(NotDurable)
    }
}
