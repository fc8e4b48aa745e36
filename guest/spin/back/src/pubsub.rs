//! `syncline:host/pubsub`: what is published, who listens, and jobs.

use std::collections::BTreeMap;

use crate::back::Back;
use crate::bindings::exports::syncline::host::pubsub::{Class, ConnectionId, Member, Publication, Subscription};
use crate::bindings::exports::syncline::host::types::Frame;
use crate::call::{Change, Effect};
use crate::sql::Error;
use crate::store::{jobs, presence, publications};

/// The topic of frames for one connection. No topic of the logic begins with a NUL.
pub const SENT_TOPIC: &str = "\0sent";
/// Name, payload or cursor of a job.
const JOB_BYTES_MAX: usize = 1 << 20;

impl Back {
    /// To all subscribers of a topic.
    pub fn publish(&self, publication: Publication) {
        self.try_call(|call| call.effect(Effect::Publish(publication)));
    }

    /// To one connection.
    pub fn send(&self, connection: ConnectionId, frame: Frame) {
        let (kind, bytes) = match &frame {
            Frame::Text(text) => (0, text.as_bytes()),
            Frame::Binary(bytes) => (1, bytes.as_slice()),
        };
        let mut message = Vec::with_capacity(9 + bytes.len());
        message.extend_from_slice(&connection.to_le_bytes());
        message.push(kind);
        message.extend_from_slice(bytes);
        let publication =
            Publication { topic: SENT_TOPIC.into(), message, order: None, class: Class::MustDeliver, except: None, close: None };
        self.publish(publication);
    }

    /// A connection listens, to what is published from now on.
    pub fn subscribe(&self, connection: ConnectionId, subscription: Subscription) {
        let done = self.with_call(|back, call| {
            let opened = back.opened()?;
            let mount = call.mount.clone();
            let position = match &mut call.root {
                Some(root) => publications::newest(&opened.database, root.link(), &mount),
                None => publications::newest_of(&opened.database, std::slice::from_ref(&mount)).map(|newest| newest.into_iter().sum()),
            };
            let position = call.noted(position)?;
            if call.weigh(subscription.topic.len() + subscription.group.len() + subscription.presence.as_ref().map_or(0, Vec::len)) {
                call.changes.push(Change::Subscribed(connection, subscription, position));
            }
            Ok(())
        });
        self.must("a subscription", done);
    }

    /// It does not any more.
    pub fn unsubscribe(&self, connection: ConnectionId, topic: String) {
        self.try_call(|call| {
            if call.weigh(topic.len()) {
                call.changes.push(Change::Unsubscribed(connection, topic));
            }
        });
    }

    /// Who shows itself on a topic, as this call sees it.
    pub fn members(&self, topic: &str) -> Vec<Member> {
        let found = self.with_call(|back, call| {
            let (mount, now_ms) = (call.mount.clone(), back.now_ms());
            let found = back.read(call, |run| presence::members(run, &mount, topic, now_ms))?;
            let mut members: BTreeMap<u64, Vec<u8>> = found.into_iter().map(|member| (member.connection, member.presence)).collect();
            for change in &call.changes {
                match change {
                    Change::Subscribed(connection, subscription, _) if subscription.topic == topic => match &subscription.presence {
                        Some(presence) => drop(members.insert(*connection, presence.clone())),
                        None => drop(members.remove(connection)),
                    },
                    Change::Unsubscribed(connection, of) if of == topic => drop(members.remove(connection)),
                    _ => {}
                }
            }
            Ok(members.into_iter().map(|(connection, presence)| Member { connection, presence }).collect())
        });
        self.must("the members of a topic", found).unwrap_or_default()
    }

    /// Puts a job down.
    pub fn schedule(&self, name: &str, due_ms: u64, payload: &[u8]) {
        let done = self.with_call(|back, call| {
            if name.len().max(payload.len()) > JOB_BYTES_MAX {
                return Err(Error::Limit(format!("the name or payload of a job has more than {JOB_BYTES_MAX} bytes")));
            }
            call.weigh(name.len() + payload.len());
            let write = jobs::schedule(&call.mount, name, due_ms, payload, back.ports.clock.random());
            back.write_lasting(call, write, true)
        });
        self.must("a job", done);
    }

    /// Removes a job.
    pub fn cancel(&self, name: &str) {
        let done = self.with_call(|back, call| back.write_lasting(call, jobs::cancel(&call.mount, name), true));
        self.must("a job", done);
    }

    /// The interface has no errors for it: without this the call cannot go on.
    fn must<T>(&self, what: &str, done: Result<T, Error>) -> Option<T> {
        match done {
            Ok(value) => Some(value),
            // Remembered already: the call is made again, or fails.
            Err(Error::Aborted) => None,
            Err(error) => {
                self.fail_call(format!("{what}: {error:?}"));
                None
            }
        }
    }
}
