//! What was published meanwhile, for a gateway that waits for it.

use std::rc::Rc;

use syncline_spin_wire as wire;

use crate::bindings::syncline::spin::adapter::Error;
use crate::due::DUE_MS;
use crate::front::{Deployment, Front, only_logged};
use crate::mount::Mount;
use crate::newest::LOOK_MS;
use crate::ports::Clock;

use super::{Refused, convert, encoded};

/// The places of those that are told of publications (`adapter.settings.gateway-secret`), how many there are, and for how long one is
/// kept that does not poll again.
const WOKEN: &str = "woken";
const WOKEN_MAX: u32 = 64;
const WOKEN_MS: u64 = 60_000;
/// Bytes of publications of one mount in one answer to a poll, about.
const STRETCH_BYTES: u64 = 4 << 20;

impl<C: Clock> Front<C> {
    /// Answers a poll, at once or when there is something new.
    pub(super) async fn polled(&self, deployment: &Deployment, body: &[u8]) -> Result<Vec<u8>, Refused> {
        let poll: wire::Poll = wire::decode(body, wire::REQUEST_BYTES_MAX)?;
        let revision = deployment.revision();
        for held in poll.held.iter().filter(|held| deployment.mount(&held.mount).is_some() && !held.connections.is_empty()) {
            let renewed = self.adapter.renew(&held.mount, &held.connections);
            only_logged(Some(&held.mount), "presences could not be renewed", renewed);
        }
        if let Some(url) = poll.callback.as_deref().filter(|url| url.starts_with("http://") || url.starts_with("https://")) {
            let held = self.adapter.hold(WOKEN, url, WOKEN_MAX, WOKEN_MS);
            only_logged(None, "a gateway has no place among those that are told of publications", held.map(drop));
        }
        let stream_ms = deployment.config.limits.stream_ms;
        let limit_ms = if stream_ms == 0 { u64::MAX } else { stream_ms };
        let wait_ms = u64::from(poll.wait_ms.min(wire::POLL_WAIT_MS_MAX)).min(limit_ms);
        let until_ms = self.clock.now_ms().saturating_add(wait_ms);
        let mut due_at_ms = self.clock.now_ms().saturating_add(DUE_MS);
        let known: Vec<(Rc<Mount>, u64)> =
            poll.mounts.iter().filter_map(|known| Some((deployment.mount(&known.mount)?, known.position))).collect();
        loop {
            let mut mounts = Vec::new();
            for (mount, position) in &known {
                if self.newest(deployment, &mount.name)? > *position {
                    let published = self.stretch(&mount.name, *position, STRETCH_BYTES)?;
                    mounts.push(wire::MountPublications { mount: mount.name.clone(), published });
                }
            }
            let now_ms = self.clock.now_ms();
            if !mounts.is_empty() || poll.revision != revision || now_ms >= until_ms {
                return encoded(&wire::Polled { revision, mounts });
            }
            if due_at_ms <= now_ms {
                // Where all clients speak to gateways no other request may come for long.
                due_at_ms = now_ms.saturating_add(DUE_MS);
                self.do_a_little(deployment).await;
            }
            self.clock.sleep(LOOK_MS.min(until_ms.saturating_sub(now_ms))).await;
        }
    }

    /// What was published after a position, of all topics.
    fn stretch(&self, mount: &str, after: u64, bytes_max: u64) -> Result<wire::Published, Error> {
        let published = self.adapter.publications(mount, &[], after, bytes_max)?;
        Ok(wire::Published {
            publications: published
                .publications
                .into_iter()
                .map(|(position, publication)| (position, convert::publication_out(publication)))
                .collect(),
            next: published.next.max(after),
            missed: published.missed,
        })
    }

    /// What was published after a position, up to another one at least.
    pub(super) fn stretch_to(&self, mount: &str, after: u64, through: u64) -> Result<wire::Published, Error> {
        let mut all = wire::Published { publications: Vec::new(), next: after, missed: false };
        while all.next < through {
            let more = self.stretch(mount, all.next, STRETCH_BYTES)?;
            let is_stuck = more.next <= all.next;
            all.publications.extend(more.publications);
            all.missed |= more.missed;
            all.next = more.next;
            if is_stuck {
                break;
            }
        }
        Ok(all)
    }
}
