//! From the deployment's row of publications to the connections here, in order and without a gap.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use syncline_spin_wire as wire;
use wire::{Change, Position, Published};

use super::records;
use super::row::Row;
use crate::pubsub::Publication;
use crate::runtime::MountCore;

/// What a mount of this gateway is fed by.
#[derive(Default)]
pub(super) struct Feed {
    /// Locked for as long as something is passed on, so that this happens in order.
    passing: Mutex<Passing>,
    /// The topic of what goes to one connection.
    sent_topic: Mutex<Arc<str>>,
    /// Calls that were sent and not answered: their subscriptions may begin anywhere from now on.
    calls: AtomicUsize,
}

/// What was passed on, and what is to be.
#[derive(Default)]
struct Passing {
    row: Row,
    /// Subscriptions that begin further on than what is known, by connection and topic.
    ahead: HashMap<(u64, String), Position>,
}

/// A call that is under way.
pub(super) struct UnderWay(Arc<Feed>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Feed {
    /// A call is under way until what this gives is dropped.
    pub(super) fn call(self: &Arc<Self>) -> UnderWay {
        self.calls.fetch_add(1, Ordering::Relaxed);
        UnderWay(self.clone())
    }

    /// Up to where publications were passed on.
    pub(super) fn known(&self) -> Position {
        self.passing.lock().row.known()
    }

    /// What stands in the deployment's description: its row ends at a position. Where nobody listens it goes on from there;
    /// where the row is shorter than what was known it is another one, and whoever listens must read anew.
    pub(super) fn described(&self, mount: &MountCore, sent_topic: &str, newest: Position) {
        *self.sent_topic.lock() = sent_topic.into();
        let Passing { row, ahead } = &mut *self.passing.lock();
        if newest < row.known() {
            tracing::warn!(mount = mount.name, "the deployment has forgotten what it published: connections are closed, to read anew");
            mount.close_listeners();
            ahead.clear();
            row.go_to(newest);
        } else if mount.nobody_listens() && self.calls.load(Ordering::Relaxed) == 0 {
            row.go_to(newest);
        }
    }

    /// Passes on what was published, and lets a call's subscriptions begin at their positions.
    pub(super) fn take(&self, mount: &MountCore, published: Published, changes: Vec<Change>) {
        let sent_topic = self.sent_topic.lock().clone();
        let passing = &mut *self.passing.lock();
        let first = published.publications.first().map_or(published.next, |(position, _)| position.saturating_sub(1));
        // What is missing since the question may have come with another answer.
        if published.missed && first > passing.row.known() {
            tracing::warn!(mount = mount.name, "publications were missed: connections that listen are closed, to read anew");
            mount.close_listeners();
            passing.row.go_to(first);
        }
        let mut publications = published.publications.into_iter().peekable();
        for change in changes {
            match change {
                Change::Unsubscribed { connection, topic } => {
                    mount.unsubscribe(connection, &topic);
                    passing.ahead.remove(&(connection, topic));
                }
                Change::Subscribed { connection, subscription, position } => {
                    while let Some((position, publication)) = publications.next_if(|(other, _)| *other <= position) {
                        passing.pass_on(mount, &sent_topic, position, records::publication(publication));
                    }
                    passing.complete_to(position.min(published.next));
                    passing.subscribe(mount, connection, subscription, position);
                }
            }
        }
        for (position, publication) in publications {
            passing.pass_on(mount, &sent_topic, position, records::publication(publication));
        }
        passing.complete_to(published.next);
    }
}

impl Passing {
    /// Nothing more stands up to a position.
    fn complete_to(&mut self, position: Position) {
        self.row.complete_to(position);
        let known = self.row.known();
        self.ahead.retain(|_, begins_after| *begins_after > known);
    }

    fn pass_on(&mut self, mount: &MountCore, sent_topic: &str, position: Position, publication: Publication) {
        if !self.row.take(position, &publication) {
            return;
        }
        if publication.topic == sent_topic {
            match records::sent(&publication.message) {
                Some((connection, frame)) => mount.send_to(connection, frame),
                None => tracing::error!(mount = mount.name, "what was to be sent to one connection cannot be understood"),
            }
        } else if self.ahead.is_empty() {
            mount.fan_out_to(|_| true, publication, Some(position));
        } else {
            let topic = publication.topic.clone();
            let begins_after = |connection| self.ahead.get(&(connection, topic.clone())).copied().unwrap_or(0);
            mount.fan_out_to(|connection| begins_after(connection) < position, publication, Some(position));
        }
    }

    /// Begins a subscription at a position: what was passed on since is made up for, and what comes from before is kept from it.
    fn subscribe(&mut self, mount: &MountCore, connection: u64, subscription: wire::Subscription, position: Position) {
        if !mount.holds(connection) {
            return;
        }
        let (topic, again) = (subscription.topic.clone(), mount.listens(connection, &subscription.topic));
        if let Err(error) = mount.subscribe(connection, records::subscription(subscription)) {
            tracing::error!(mount = mount.name, %error, "a connection is closed");
            return mount.close_as_failed(connection);
        }
        if again {
            // It has heard everything since it began.
            return;
        }
        if position > self.row.known() {
            self.ahead.insert((connection, topic), position);
            return;
        }
        match self.row.since(position, &topic) {
            Some(missing) => {
                for (position, publication) in missing {
                    mount.fan_out_to(|other| other == connection, publication, Some(position));
                }
            }
            None => {
                tracing::warn!(mount = mount.name, "a subscription begins before what is kept of publications: its connection is closed");
                mount.close_as_failed(connection);
            }
        }
    }
}
