//! What one request or stream listens to, and what was published on it since.

use std::collections::{BTreeMap, HashSet};

use crate::bindings::syncline::host::pubsub::{Publication, Subscription};
use crate::bindings::syncline::spin::adapter::{Change, Error};
use crate::front::Front;
use crate::mount::Mount;
use crate::ports::Clock;

/// Bytes of publications that are fetched at once.
const FETCH_BYTES: u64 = 1 << 20;
/// What nobody announces is not looked for more often than this.
const WATCH_MS_MIN: u64 = 1000;

/// See the module.
pub(crate) struct Listening {
    id: u64,
    topics: BTreeMap<String, Listened>,
    /// Everything up to here has been looked at.
    read_up_to: u64,
    /// Others see it.
    shown: bool,
    /// Up to where what nobody announces is known, and when it was looked for.
    watched: Option<Watched>,
}

struct Listened {
    subscription: Subscription,
    /// What stands after it counts.
    after: u64,
}

struct Watched {
    through: u64,
    looked_at_ms: u64,
}

/// Publications of others came too late to be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unheard {
    /// They are gone from the row.
    #[error("publications were missed")]
    Missed,
    /// The row cannot be read.
    #[error("publications cannot be read")]
    Unavailable(Error),
}

impl Listening {
    pub(crate) fn new(id: u64) -> Self {
        Self { id, topics: BTreeMap::new(), read_up_to: 0, shown: false, watched: None }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Whether others see it among the members of a topic.
    pub(crate) fn is_shown(&self) -> bool {
        self.shown
    }

    /// How it listens to a topic.
    pub(crate) fn subscription(&self, topic: &str) -> Option<&Subscription> {
        self.topics.get(topic).map(|listened| &listened.subscription)
    }

    /// Takes over what a call changed. Gives the topics that are new.
    pub(crate) fn apply(&mut self, changes: Vec<Change>) -> HashSet<String> {
        let mut fresh = HashSet::new();
        for change in changes {
            match change {
                Change::Subscribed((id, subscription, after)) if id == self.id => {
                    fresh.insert(subscription.topic.clone());
                    self.subscribe(subscription, after);
                }
                Change::Unsubscribed((id, topic)) if id == self.id => {
                    fresh.remove(&topic);
                    self.unsubscribe(&topic);
                }
                // Of a connection that this request does not hold.
                Change::Subscribed(_) | Change::Unsubscribed(_) => {}
            }
        }
        fresh
    }

    fn subscribe(&mut self, mut subscription: Subscription, after: u64) {
        if self.topics.is_empty() {
            self.read_up_to = after;
        }
        self.shown |= subscription.presence.is_some();
        match self.topics.get_mut(&subscription.topic) {
            Some(listened) => {
                subscription.cursor = subscription.cursor.or(listened.subscription.cursor);
                listened.subscription = subscription;
            }
            None => drop(self.topics.insert(subscription.topic.clone(), Listened { subscription, after })),
        }
    }

    /// It does not listen to a topic any more.
    pub(crate) fn unsubscribe(&mut self, topic: &str) {
        self.topics.remove(topic);
    }

    /// What it listens to.
    pub(crate) fn topics(&self) -> HashSet<String> {
        self.topics.keys().cloned().collect()
    }

    /// The cursors, by topic.
    pub(crate) fn cursors(&self) -> Vec<(String, u64)> {
        self.topics.iter().filter_map(|(topic, listened)| Some((topic.clone(), listened.subscription.cursor?))).collect()
    }

    /// Sets a cursor; a topic that is not listened to is passed over.
    pub(crate) fn set_cursor(&mut self, topic: &str, cursor: u64) {
        if let Some(listened) = self.topics.get_mut(topic) {
            listened.subscription.cursor = Some(cursor);
        }
    }

    fn takes(&self, publication: &Publication, position: u64) -> bool {
        publication.except != Some(self.id) && self.topics.get(&publication.topic).is_some_and(|listened| position > listened.after)
    }
}

impl<C: Clock> Front<C> {
    /// What is new, where the newest position says that something is. About so many bytes at most: the rest comes with the next call.
    pub(crate) fn fetch(&self, mount: &Mount, listening: &mut Listening, newest: u64, bytes_max: u64) -> Result<Vec<Publication>, Unheard> {
        let mut found = Vec::new();
        let mut bytes = 0;
        while !listening.topics.is_empty() && listening.read_up_to < newest && bytes < bytes_max {
            let topics: Vec<String> = listening.topics.keys().cloned().collect();
            let published =
                self.adapter.publications(&mount.name, &topics, listening.read_up_to, FETCH_BYTES).map_err(Unheard::Unavailable)?;
            if published.missed {
                return Err(Unheard::Missed);
            }
            listening.read_up_to = listening.read_up_to.max(published.next);
            if published.publications.is_empty() {
                break;
            }
            for (position, publication) in published.publications {
                if listening.takes(&publication, position) {
                    bytes += publication.message.len() as u64;
                    found.push(publication);
                }
            }
        }
        if let Some(watch) = &mount.plan.watch {
            listening.note_watched(&watch.key, &found);
        }
        Ok(found)
    }

    /// What nobody announced (`mounts.watch`), where it is time to look.
    pub(crate) async fn look(&self, mount: &Mount, listening: &mut Listening) -> Vec<Publication> {
        let Some(watch) = &mount.plan.watch else { return Vec::new() };
        if !watch.topics.iter().any(|topic| listening.topics.contains_key(topic)) {
            return Vec::new();
        }
        let now_ms = self.clock.now_ms();
        // What there was before it listened it has read.
        let watched = listening.watched.get_or_insert(Watched { through: 0, looked_at_ms: now_ms });
        if now_ms.saturating_sub(watched.looked_at_ms) < watch.interval_ms.max(WATCH_MS_MIN) {
            return Vec::new();
        }
        watched.looked_at_ms = now_ms;
        let (Some(topic), through) = (watch.topics.first(), watched.through) else { return Vec::new() };
        let Ok(called) = self.call(mount, |logic| logic.refill(&mount.name, topic, &watch.key, through)).await else { return Vec::new() };
        listening.note_watched(&watch.key, &called.answer);
        called.answer.into_iter().filter(|publication| listening.takes(publication, u64::MAX)).collect()
    }
}

impl Listening {
    /// Publications under the key that is watched say up to where it is known.
    pub(crate) fn note_watched(&mut self, key: &str, publications: &[Publication]) {
        let sequences = publications.iter().filter_map(|publication| publication.order.as_ref().filter(|order| order.key == key));
        let newest = sequences.map(|order| order.sequence).max();
        if let (Some(watched), Some(newest)) = (&mut self.watched, newest) {
            watched.through = watched.through.max(newest);
        }
    }
}
