//! From a publication to the fan-out: in the order of its row, with what is missing asked for (`socket.refill`), and with what
//! nobody announced found by looking.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::instance::{Answer, Invocation};
use super::limits::{SUBSCRIPTION_BYTES_MAX, SUBSCRIPTIONS_MAX};
use super::mount::MountCore;
use super::plans::Watch;
use super::sequences::{Sequences, Step};
use super::topics::{Subscriber, SubscriptionLimits, TooManySubscriptions};
use super::watched::Watched;
use crate::pubsub::{Publication, Receiver};

/// What another process committed a moment before may come a moment later: so long nobody asks for it.
const REORDERING: Duration = Duration::from_millis(30);
/// How often it is seen whether there is something to watch, where there was nothing.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Rows that are asked for at the same time: others are left their instances.
pub(super) const REFILLS_AT_ONCE: usize = 4;

const SUBSCRIPTION_LIMITS: SubscriptionLimits = SubscriptionLimits { topics: SUBSCRIPTIONS_MAX, bytes: SUBSCRIPTION_BYTES_MAX };

/// What a mount knows of publications before they are brought to subscribers.
#[derive(Default)]
pub(super) struct Inflow {
    pub(super) sequences: Sequences,
    pub(super) watched: Watched,
}

impl MountCore {
    /// Whether other processes may publish, or write what this one's clients wait for. Else everything comes in order and
    /// nothing is missing.
    pub(super) fn is_one_of_several(&self) -> bool {
        self.shares_databases || self.pubsub.is_shared()
    }

    /// A publication comes, from this process or another one.
    pub(crate) fn arrive(&self, publication: Publication) {
        if !self.is_one_of_several() {
            return self.fan_out(publication);
        }
        let plan = self.plan();
        let watch = plan.watch.as_ref().filter(|watch| watch.topics.contains(&publication.topic));
        let mut inflow = self.inflow.lock();
        if let (Some(watch), Some(order)) = (watch, &publication.order)
            && order.key == watch.key
            && !inflow.watched.announced(order)
        {
            return;
        }
        let steps = inflow.sequences.offer(publication);
        self.take_steps(steps);
    }

    /// Does what is to be done, in order: the inflow is locked meanwhile.
    fn take_steps(&self, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::FanOut(publication) => self.fan_out(publication),
                Step::Ask { topic, key } => drop(self.runtime.spawn(ask(self.myself.clone(), topic, key))),
            }
        }
    }

    /// A call of a connection subscribes to a topic.
    pub(super) fn begin_subscription(
        &self,
        connection: u64,
        call: u64,
        topic: &str,
        subscriber: Subscriber,
    ) -> Result<(), TooManySubscriptions> {
        if !self.is_one_of_several() {
            return self.topics.lock().subscribe_within(connection, topic, subscriber, SUBSCRIPTION_LIMITS);
        }
        // Nothing arrives between the two.
        let mut inflow = self.inflow.lock();
        let mut topics = self.topics.lock();
        let is_first = topics.subscribers(topic).next().is_none();
        topics.subscribe_within(connection, topic, subscriber, SUBSCRIPTION_LIMITS)?;
        inflow.sequences.subscribes(topic, is_first, connection, call);
        Ok(())
    }

    /// The effects of a call are released.
    pub(super) fn released(&self, connection: u64, call: u64, read: &[(String, u64)]) {
        if self.is_one_of_several() {
            // What is watched is no row in which each one counts.
            let plan = self.plan();
            let watched = plan.watch.as_ref().map(|watch| watch.key.as_str());
            let read: Vec<_> = read.iter().filter(|(key, _)| Some(key.as_str()) != watched).cloned().collect();
            let mut inflow = self.inflow.lock();
            let steps = inflow.sequences.released(connection, call, &read);
            self.take_steps(steps);
        }
    }

    /// Ends a subscription, or all of a connection.
    pub(super) fn end_subscriptions(&self, connection: u64, topic: Option<&str>) {
        if !self.is_one_of_several() {
            let mut topics = self.topics.lock();
            return match topic {
                Some(topic) => topics.unsubscribe(connection, topic),
                None => topics.remove(connection),
            };
        }
        let mut inflow = self.inflow.lock();
        let mut topics = self.topics.lock();
        let ended = topic.map_or_else(|| topics.of(connection), |topic| vec![topic.to_owned()]);
        for topic in ended {
            topics.unsubscribe(connection, &topic);
            if topics.subscribers(&topic).next().is_none() {
                inflow.sequences.forget(&topic);
            }
        }
        drop(topics);
        if topic.is_none() {
            let steps = inflow.sequences.gone(connection);
            self.take_steps(steps);
        }
    }

    /// Publications of other processes may have been lost.
    fn look_for_missed(&self) {
        let mut inflow = self.inflow.lock();
        let steps = inflow.sequences.missed();
        self.take_steps(steps);
        drop(inflow);
        self.watch_now.notify_one();
    }

    async fn refill(self: &Arc<Self>, topic: &str, key: &str, after: u64) -> Option<Vec<Publication>> {
        let _turn = self.refills.acquire().await.ok()?;
        let invocation = Invocation::Refill { topic: topic.to_owned(), key: key.to_owned(), after };
        let completed = self.run(&invocation, self.call_deadline()).await.ok()?;
        self.finish_and_wait(completed.call, completed.bundles).await.ok()?;
        match completed.answer {
            Answer::Publications(publications) => Some(publications.into_iter().map(Publication::from).collect()),
            _ => None,
        }
    }

    /// Closes whoever listens to a topic: they catch up by their protocol.
    fn close_subscribers(&self, topic: &str) {
        let ids: Vec<u64> = self.topics.lock().subscribers(topic).map(|(connection, _)| connection).collect();
        let connections = self.connections.read();
        for connection in ids.iter().filter_map(|id| connections.get(id)) {
            connection.close_now(self.closes().failed.clone());
        }
    }

    /// Looks for what nobody announced, if anybody waits for it. `anyway`: what was announced may have been lost.
    async fn look(self: &Arc<Self>, watch: &Watch, anyway: bool) {
        let somebody_listens = {
            let topics = self.topics.lock();
            watch.topics.iter().any(|topic| topics.subscribers(topic).next().is_some())
        };
        let Some(first) = watch.topics.first().filter(|_| somebody_listens && !self.is_stopping()) else { return };
        let after = if anyway { 0 } else { self.inflow.lock().watched.through() };
        let Some(found) = self.refill(first, &watch.key, after).await else { return };
        let mut inflow = self.inflow.lock();
        for publication in found {
            if let Some(order) = publication.order.as_ref().filter(|order| order.key == watch.key) {
                inflow.watched.found(order);
            }
            let steps = inflow.sequences.offer(publication);
            self.take_steps(steps);
        }
    }
}

/// Asks for what is missing of a row until nothing is.
async fn ask(mount: Weak<MountCore>, topic: String, key: String) {
    sleep(REORDERING).await;
    while let Some(mount) = mount.upgrade() {
        let wanted = mount.inflow.lock().sequences.wanted(&topic, &key);
        let Some(after) = wanted else { return };
        let found = mount.refill(&topic, &key, after).await;
        let mut inflow = mount.inflow.lock();
        match found {
            Some(publications) => {
                let steps = inflow.sequences.refilled(&topic, &key, publications);
                mount.take_steps(steps);
            }
            None => {
                inflow.sequences.gave_up(&topic, &key);
                drop(inflow);
                return mount.close_subscribers(&topic);
            }
        }
    }
}

/// Looks again and again for what nobody announced, where other processes write to the same databases; and whenever something
/// that was announced may have been lost.
pub(super) async fn keep_watch(mount: Weak<MountCore>) {
    while let Some(current) = mount.upgrade() {
        let watch_now = current.watch_now.clone();
        let interval =
            current.plan().watch.as_ref().filter(|_| current.shares_databases).map(|watch| Duration::from_millis(watch.interval_ms));
        drop(current);
        let was_lost = timeout(interval.unwrap_or(LOOK_AGAIN), watch_now.notified()).await.is_ok();
        let Some(mount) = mount.upgrade() else { return };
        if let Some(watch) = mount.plan().watch.clone().filter(|_| was_lost || interval.is_some()) {
            mount.look(&watch, was_lost).await;
        }
    }
}

/// Brings publications of other processes to the mounts of this one.
pub(crate) struct Inbound(pub(crate) Weak<crate::runtime::Runtime>);

impl Receiver for Inbound {
    fn receive(&self, mount: &str, publication: Publication) {
        if let Some(mount) = self.0.upgrade().and_then(|runtime| runtime.mount(mount)) {
            mount.arrive(publication);
        }
    }

    fn missed(&self) {
        for mount in self.0.upgrade().iter().flat_map(|runtime| runtime.mounts()) {
            mount.look_for_missed();
        }
    }
}
