//! From a publication to the queues of its subscribers.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;

use super::bindings::guest::exports::syncline::sync::socket::{Deliveries, Group, GroupOutcome, Part, Template};
use super::bindings::guest::syncline::host::pubsub as wit;
use super::bindings::guest::syncline::host::types;
use super::connection::{Connection, Given};
use super::instance::{Answer, Invocation};
use super::mount::MountCore;
use super::queue::{Arrival, Class, Close, Filled, Frame, Heading, Payload, Slot};
use super::topics::Mode;
use crate::pubsub::{Order, Publication};

/// A publication that the component must encode, and who gets what it makes.
pub(crate) struct DeliverJob {
    publication: Publication,
    groups: Groups,
    targets: Vec<Target>,
}

/// One who gets it.
struct Target {
    /// Index of its group; none: it has none any more.
    group: Option<usize>,
    connection: Arc<Connection>,
    /// Its place in the queue, as long as it is still there.
    slot: Weak<OnceLock<Filled>>,
    by_cursor: Option<ByCursor>,
}

/// One who gets what changed since its cursor.
struct ByCursor {
    /// Its last call when the publication came; none: one was under way.
    quiet_since: Option<u64>,
}

/// Distinct groups, in the order in which they were found.
#[derive(Default)]
struct Groups {
    list: Vec<Group>,
    places: HashMap<(String, Option<u64>), usize>,
}

impl Groups {
    /// The place of a group.
    fn place(&mut self, name: &str, cursor: Option<u64>) -> usize {
        *self.places.entry((name.to_owned(), cursor)).or_insert_with_key(|(name, cursor)| {
            self.list.push(Group { name: name.clone(), cursor: *cursor });
            self.list.len() - 1
        })
    }
}

/// What the component made of a publication.
struct Encoded {
    /// With the frame itself where it is the same for all.
    templates: Vec<(Option<Frame>, Template)>,
    outcomes: Vec<GroupOutcome>,
}

impl MountCore {
    /// Brings a publication to its subscribers in this process, in the order of these calls.
    pub(crate) fn fan_out(&self, publication: Publication) {
        self.fan_out_to(|_| true, publication, None);
    }

    /// The same, to those connections only for which it is meant; with its place in the row of all publications, where there is one.
    pub(crate) fn fan_out_to(&self, is_meant: impl Fn(u64) -> bool, publication: Publication, position: Option<u64>) {
        let text = std::str::from_utf8(&publication.message).is_ok();
        let closes = self.closes();
        let heading = Arc::new(Heading {
            topic: publication.topic.clone(),
            order: publication.order.as_ref().map(|order| (order.key.clone(), order.sequence)),
            class: publication.class.clone(),
            close: publication.close.clone(),
            position,
        });
        let (mut groups, mut targets) = (Groups::default(), Vec::new());
        // Counted once for all that share it.
        let mut shared = None;
        let mut message = || shared.get_or_insert_with(|| self.budget.hold(publication.message.clone())).clone();
        let topics = self.topics.lock();
        let connections = self.connections.read();
        for (id, subscriber) in topics.subscribers(&publication.topic).filter(|(id, _)| is_meant(*id)) {
            let payload = match subscriber.mode {
                // Nothing to be sent, only a close.
                _ if publication.message.is_empty() && publication.close.is_some() => Payload::Nothing,
                Mode::ForwardText if !text => {
                    tracing::error!(mount = self.name, "a publication that is not UTF-8 was not sent as text");
                    continue;
                }
                Mode::ForwardText => Payload::Frame(Frame::Text(message())),
                Mode::ForwardBinary => Payload::Frame(Frame::Binary(message())),
                Mode::Deliver | Mode::DeliverByCursor => Payload::Slot(Slot::default()),
            };
            if let Payload::Slot(slot) = &payload {
                let is_by_cursor = subscriber.mode == Mode::DeliverByCursor;
                // Cursors move until it is this publication's turn.
                let group = (!is_by_cursor).then(|| groups.place(&subscriber.group, None));
                if publication.except != Some(id)
                    && let Some(connection) = connections.get(&id)
                {
                    let by_cursor = is_by_cursor.then(|| ByCursor { quiet_since: connection.quiet_since() });
                    targets.push(Target { group, connection: connection.clone(), slot: Arc::downgrade(slot), by_cursor });
                }
            }
            if publication.except == Some(id) {
                continue;
            }
            let Some(connection) = connections.get(&id) else { continue };
            if !connection.publish(Arrival { heading: heading.clone(), payload }, &closes.slow) {
                self.metrics.slow_reader(&self.name);
            }
        }
        drop((topics, connections));
        self.metrics.published(&self.name);
        if !targets.is_empty() {
            self.backlog.add(publication.message.len());
            self.deliver_later(DeliverJob { publication, groups, targets });
        }
    }

    /// Publications of a topic are encoded one after the other, those of different topics beside each other: one that
    /// loops holds up its own topic only. The order among all of them is kept by the slots.
    fn deliver_later(&self, job: DeliverJob) {
        match self.deliveries.lock().entry(job.publication.topic.clone()) {
            Entry::Occupied(mut waiting) => waiting.get_mut().push_back(job),
            Entry::Vacant(free) => {
                let topic = free.key().clone();
                free.insert(VecDeque::from([job]));
                self.runtime.spawn(deliver_topic(self.myself.clone(), topic));
            }
        }
    }

    async fn deliver(self: &Arc<Self>, job: DeliverJob) {
        let DeliverJob { publication, mut groups, mut targets } = job;
        self.regroup(&publication, &mut groups, &mut targets);
        let message_bytes = publication.message.len();
        let (topic, must_deliver) = (publication.topic.clone(), publication.class == Class::MustDeliver);
        let invocation = Invocation::Deliver { publication: publication.into(), groups: groups.list };
        let closes = self.closes();
        let deliveries = match self.run(&invocation, self.call_deadline()).await {
            Ok(completed) => {
                let released = self.finish_and_wait(completed.call, completed.bundles).await;
                match completed.answer {
                    Answer::Deliveries(deliveries) if released.is_ok() => Some(self.encoded(deliveries)),
                    _ => None,
                }
            }
            Err(_) => None,
        };
        for target in targets {
            let Target { group, connection, slot, by_cursor } = &target;
            let keeps_up = match (&deliveries, by_cursor) {
                (Some(deliveries), Some(by_cursor)) => self.fill_by_cursor(deliveries, &target, by_cursor, &topic),
                (Some(deliveries), None) => {
                    let filled = self.for_group(deliveries, *group, connection, &topic);
                    connection.fill(slot, filled, &closes.slow)
                }
                (None, _) => {
                    if must_deliver {
                        connection.close_now(closes.failed.clone());
                    }
                    connection.fill(slot, Filled::default(), &closes.slow)
                }
            };
            if !keeps_up {
                self.metrics.slow_reader(&self.name);
            }
        }
        self.backlog.remove(message_bytes);
    }

    /// Finds the groups of those who get what changed since their cursors: as they are now, after the publications before this one.
    fn regroup(&self, publication: &Publication, groups: &mut Groups, targets: &mut [Target]) {
        if targets.iter().all(|target| target.by_cursor.is_none()) {
            return;
        }
        let topics = self.topics.lock();
        let mut place = |connection| {
            let subscriber =
                topics.subscriber(&publication.topic, connection).filter(|subscriber| subscriber.mode == Mode::DeliverByCursor)?;
            Some(groups.place(&subscriber.group, subscriber.cursor))
        };
        for target in targets.iter_mut().filter(|target| target.by_cursor.is_some()) {
            target.group = place(target.connection.id);
        }
        if let Some(excepted) = publication.except {
            // Its group counts, though it gets nothing.
            place(excepted);
        }
    }

    /// Fills the slot of one who gets what changed since its cursor, and moves the cursor, both or none: nothing is made for it while
    /// a call of its own may say or know something else, or while it does not keep up. Its alarm then has it look for itself.
    fn fill_by_cursor(self: &Arc<Self>, deliveries: &Encoded, target: &Target, by_cursor: &ByCursor, topic: &str) -> bool {
        let Target { group, connection, slot, .. } = target;
        let closes = self.closes();
        let slow = &closes.slow;
        let outcome = group.and_then(|group| deliveries.outcomes.get(group));
        let Some(GroupOutcome::Send(_) | GroupOutcome::Advance(_)) = outcome else {
            return connection.fill(slot, self.for_group(deliveries, *group, connection, topic), slow);
        };
        let mut topics = self.topics.lock();
        let cursor = topics.subscriber(topic, connection.id).and_then(|subscriber| subscriber.cursor);
        let (mut frames, mut moved_to, mut alarm_ms) = (Vec::new(), None::<u64>, None::<u64>);
        match outcome {
            Some(GroupOutcome::Send(indexes)) => {
                let templates = indexes.iter().filter_map(|index| deliveries.templates.get(usize::try_from(*index).ok()?));
                for (shared, template) in templates {
                    if cursor.zip(template.cursor_after).is_some_and(|(cursor, after)| cursor >= after) {
                        continue;
                    }
                    moved_to = moved_to.max(template.cursor_after);
                    alarm_ms = [alarm_ms, template.alarm_after_ms].into_iter().flatten().min();
                    frames.extend(self.written(shared.as_ref(), template, cursor));
                }
            }
            Some(GroupOutcome::Advance(after)) => moved_to = cursor.max(Some(*after)),
            _ => {}
        }
        let given = connection.fill_if_quiet(slot, Filled { frames, close: None }, by_cursor.quiet_since, slow);
        if let (Given::Taken { .. }, Some(cursor)) = (&given, moved_to) {
            topics.set_cursor(connection.id, topic, cursor);
        }
        drop(topics);
        match given {
            Given::Taken { keeps_up } => {
                if let Some(delay_ms) = alarm_ms {
                    connection.alarm_within(delay_ms, self);
                }
                keeps_up
            }
            Given::Refused => {
                connection.alarm_within(alarm_ms.unwrap_or(0), self);
                true
            }
            Given::Gone => true,
        }
    }

    fn encoded(&self, deliveries: Deliveries) -> Encoded {
        let shared = |template: &Template| match template.parts.as_slice() {
            [Part::Bytes(whole)] => self.frame(template.binary, Bytes::from(whole.clone())),
            _ => None,
        };
        let templates = deliveries.frames.into_iter().map(|template| (shared(&template), template)).collect();
        Encoded { templates, outcomes: deliveries.outcomes }
    }

    fn for_group(self: &Arc<Self>, deliveries: &Encoded, group: Option<usize>, connection: &Arc<Connection>, topic: &str) -> Filled {
        match group.and_then(|group| deliveries.outcomes.get(group)) {
            None | Some(GroupOutcome::Skip) => Filled::default(),
            Some(GroupOutcome::Send(indexes)) => {
                let (mut frames, mut bytes) = (Vec::new(), 0_u64);
                let templates = indexes.iter().filter_map(|index| deliveries.templates.get(usize::try_from(*index).ok()?));
                for frame in templates.filter_map(|(shared, template)| self.fill_in(shared.as_ref(), template, connection, topic)) {
                    bytes += frame.len() as u64;
                    frames.push(frame);
                    if bytes > self.plan().queue_bytes {
                        // More than may wait for anybody: the rest need not be made.
                        return Filled { frames: Vec::new(), close: Some(self.closes().slow.clone()) };
                    }
                }
                Filled { frames, close: None }
            }
            Some(GroupOutcome::Advance(cursor)) => {
                let current = self.cursor(connection.id, topic).unwrap_or(0);
                self.set_cursor(connection.id, topic, current.max(*cursor));
                Filled::default()
            }
            Some(GroupOutcome::Leave(last)) => {
                // What is queued keeps its place: it is for the component to say of each.
                self.end_subscriptions(connection.id, Some(topic));
                last.as_ref().map_or_else(Filled::default, |(frame, close)| Filled {
                    frames: vec![frame.clone().into()],
                    close: Some(close.clone().into()),
                })
            }
        }
    }

    /// A frame of a template for one subscriber; none where its cursor is already there, or where there is nothing in it.
    fn fill_in(self: &Arc<Self>, shared: Option<&Frame>, template: &Template, connection: &Arc<Connection>, topic: &str) -> Option<Frame> {
        let cursor = self.cursor(connection.id, topic);
        if let Some(after) = template.cursor_after {
            if cursor.is_some_and(|cursor| cursor >= after) {
                return None;
            }
            self.set_cursor(connection.id, topic, after);
        }
        if let Some(delay_ms) = template.alarm_after_ms {
            connection.alarm_within(delay_ms, self);
        }
        self.written(shared, template, cursor)
    }

    /// The frame of a template for a cursor.
    fn written(&self, shared: Option<&Frame>, template: &Template, cursor: Option<u64>) -> Option<Frame> {
        if shared.is_some() || template.parts.is_empty() {
            return shared.cloned();
        }
        let mut bytes = Vec::new();
        for part in &template.parts {
            match part {
                Part::Bytes(some) => bytes.extend_from_slice(some),
                Part::CursorDecimal => bytes.extend_from_slice(cursor.unwrap_or(0).to_string().as_bytes()),
                Part::CursorVarint => push_varint(&mut bytes, cursor.unwrap_or(0)),
            }
        }
        self.frame(template.binary, Bytes::from(bytes))
    }

    /// A frame of bytes that the component made.
    fn frame(&self, binary: bool, bytes: Bytes) -> Option<Frame> {
        if binary {
            return Some(Frame::Binary(self.budget.hold(bytes)));
        }
        if std::str::from_utf8(&bytes).is_err() {
            tracing::error!(mount = self.name, "a frame that is not UTF-8 was not sent as text");
            return None;
        }
        Some(Frame::Text(self.budget.hold(bytes)))
    }

    fn cursor(&self, connection: u64, topic: &str) -> Option<u64> {
        self.cursors(connection).into_iter().find(|(name, _)| name == topic).map(|(_, cursor)| cursor)
    }
}

/// Encodes the publications of a topic, one after the other: so cursors move in order.
async fn deliver_topic(mount: Weak<MountCore>, topic: String) {
    // When the mount is gone nobody waits for the slots any more.
    while let Some(mount) = mount.upgrade() {
        let job = {
            let mut deliveries = mount.deliveries.lock();
            match deliveries.get_mut(&topic).and_then(VecDeque::pop_front) {
                Some(job) => job,
                None => {
                    deliveries.remove(&topic);
                    return;
                }
            }
        };
        mount.deliver(job).await;
    }
}

fn push_varint(bytes: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = u8::try_from(value & 0x7f).unwrap_or_default();
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            break;
        }
        bytes.push(low | 0x80);
    }
}

impl From<wit::Publication> for Publication {
    fn from(publication: wit::Publication) -> Self {
        Self {
            topic: publication.topic,
            message: Bytes::from(publication.message),
            order: publication.order.map(|order| Order { key: order.key, after: order.after, sequence: order.sequence }),
            class: match publication.class {
                wit::Class::MustDeliver => Class::MustDeliver,
                wit::Class::Droppable => Class::Droppable,
                wit::Class::Latest(key) => Class::Latest(key),
            },
            except: publication.except,
            close: publication.close.map(Close::from),
        }
    }
}

impl From<Publication> for wit::Publication {
    fn from(publication: Publication) -> Self {
        Self {
            topic: publication.topic,
            message: Vec::from(publication.message),
            order: publication.order.map(|order| wit::Order { key: order.key, after: order.after, sequence: order.sequence }),
            class: match publication.class {
                Class::MustDeliver => wit::Class::MustDeliver,
                Class::Droppable => wit::Class::Droppable,
                Class::Latest(key) => wit::Class::Latest(key),
            },
            except: publication.except,
            close: publication.close.map(|close| types::Close { code: close.code, reason: close.reason }),
        }
    }
}
