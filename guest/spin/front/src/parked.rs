//! Requests that wait until something is published.

use crate::bindings::syncline::host::pubsub::Publication;
use crate::bindings::syncline::sync::http::{Parked, Response};
use crate::calls::NotDurable;
use crate::front::Front;
use crate::listening::Unheard;
use crate::log::{Level, log, words};
use crate::newest::Pace;
use crate::ports::Clock;
use crate::requests::{OpenRequest, Unanswered};

/// No request waits longer than a day.
const PARKED_MS_MAX: u64 = 24 * 60 * 60 * 1000;
/// Presence is renewed so often.
pub(crate) const RENEW_MS: u64 = 30_000;
/// Publications that are looked at in one go.
const FETCH_BYTES_MAX: u64 = 4 << 20;

impl<C: Clock> Front<C> {
    /// Waits until something is published that the request listens to, or its time is up, and goes on.
    pub(crate) async fn park(&self, request: &mut OpenRequest<'_>, parked: Parked) -> Result<Response, Unanswered> {
        let (mount, id) = (request.mount, request.id());
        let stream_ms = request.deployment.config.limits.stream_ms;
        let limit_ms = if stream_ms == 0 { PARKED_MS_MAX } else { stream_ms };
        let began_ms = self.clock.now_ms();
        let until_ms = began_ms.saturating_add(parked.timeout_ms.min(limit_ms));
        let (pace, mut renew_at_ms) = (Pace::new(began_ms), began_ms.saturating_add(RENEW_MS));
        loop {
            let now_ms = self.clock.now_ms();
            if now_ms >= until_ms || self.is_news(request, &parked).await? {
                break;
            }
            if request.listening.is_shown() && now_ms >= renew_at_ms {
                let renewed = self.adapter.renew(&mount.name, &[id]);
                crate::front::only_logged(Some(&mount.name), "a presence could not be renewed", renewed);
                renew_at_ms = now_ms.saturating_add(RENEW_MS);
            }
            self.clock.sleep(pace.wait_ms(now_ms).min(until_ms.saturating_sub(now_ms))).await;
        }
        let called = self.call(mount, |logic| logic.resume(&mount.name, id, &parked.state)).await?;
        request.listening.apply(called.ended.changes);
        Ok(called.answer)
    }

    /// Whether anything was published past the cut-offs.
    async fn is_news(&self, request: &mut OpenRequest<'_>, parked: &Parked) -> Result<bool, Unanswered> {
        let mount = request.mount;
        let newest = self.newest(request.deployment, &mount.name).map_err(|error| {
            log(Level::Error, Some(&mount.name), "a request cannot wait any longer", words(&error));
            NotDurable
        })?;
        let mut found = match self.fetch(mount, &mut request.listening, newest, FETCH_BYTES_MAX) {
            Ok(found) => found,
            // What was missed is there to be read.
            Err(Unheard::Missed) => return Ok(true),
            Err(Unheard::Unavailable(error)) => {
                log(Level::Error, Some(&mount.name), "a request cannot wait any longer", words(&error));
                return Err(NotDurable.into());
            }
        };
        found.extend(self.look(mount, &mut request.listening).await);
        if found.iter().any(|publication| publication.close.is_some()) {
            // Whoever published closes all who listen.
            return Err(NotDurable.into());
        }
        Ok(found.iter().any(|publication| !is_cut_off(publication, &parked.seen)))
    }
}

/// Whether a publication is covered by cut-offs.
pub(crate) fn is_cut_off(publication: &Publication, seen: &[(String, u64)]) -> bool {
    let Some(order) = &publication.order else { return false };
    seen.iter().any(|(key, through)| *key == order.key && order.sequence <= *through)
}
