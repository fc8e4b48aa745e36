//! Who listens to what. A state machine without IO.

use std::collections::{BTreeMap, HashMap, HashSet};

/// What the host does with a publication for a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The message is the text frame.
    ForwardText,
    /// The message is the binary frame.
    ForwardBinary,
    /// The component makes a frame per group.
    Deliver,
    /// The component makes a frame per group and cursor.
    DeliverByCursor,
}

/// How a connection listens to a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscriber {
    /// What is done with a publication.
    pub mode: Mode,
    /// Equal groups get equal frames.
    pub group: String,
    /// Kept by the host.
    pub cursor: Option<u64>,
    /// What `members` shows.
    pub presence: Option<Vec<u8>>,
}

/// The topics of one mount in one process.
#[derive(Debug, Default)]
pub struct Topics {
    /// Ordered by connection, so that a publication goes out in the same order everywhere.
    by_topic: HashMap<String, BTreeMap<u64, Subscriber>>,
    by_connection: HashMap<u64, Subscriptions>,
}

/// What one connection listens to.
#[derive(Debug, Default)]
struct Subscriptions {
    topics: HashSet<String>,
    /// What they hold in memory.
    bytes: usize,
}

/// What one connection may listen to.
#[derive(Clone, Copy, Debug)]
pub struct SubscriptionLimits {
    /// Topics.
    pub topics: usize,
    /// Bytes of their names, groups and presences.
    pub bytes: usize,
}

/// A connection listens to as much as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a connection has more than {} subscriptions, or more than {} bytes of them", .0, .1)]
pub struct TooManySubscriptions(usize, usize);

impl Topics {
    /// Subscribes, as [`Topics::subscribe`], within limits.
    pub fn subscribe_within(
        &mut self,
        connection: u64,
        topic: &str,
        subscriber: Subscriber,
        limits: SubscriptionLimits,
    ) -> Result<(), TooManySubscriptions> {
        let (topics, bytes) = self.by_connection.get(&connection).map_or((0, 0), |all| (all.topics.len(), all.bytes));
        let before = self.by_topic.get(topic).and_then(|subscribers| subscribers.get(&connection));
        let topics = topics + usize::from(before.is_none());
        let bytes = bytes + bytes_of(topic, &subscriber) - before.map_or(0, |before| bytes_of(topic, before));
        if topics > limits.topics || bytes > limits.bytes {
            return Err(TooManySubscriptions(limits.topics, limits.bytes));
        }
        self.subscribe(connection, topic, subscriber);
        Ok(())
    }

    /// Subscribes, or changes a subscription; the cursor stays where none is given.
    pub fn subscribe(&mut self, connection: u64, topic: &str, mut subscriber: Subscriber) {
        let subscribers = self.by_topic.entry(topic.to_owned()).or_default();
        if subscriber.cursor.is_none() {
            subscriber.cursor = subscribers.get(&connection).and_then(|existing| existing.cursor);
        }
        let bytes = bytes_of(topic, &subscriber);
        let before = subscribers.insert(connection, subscriber).map_or(0, |before| bytes_of(topic, &before));
        let all = self.by_connection.entry(connection).or_default();
        all.topics.insert(topic.to_owned());
        all.bytes = all.bytes + bytes - before;
    }

    /// Ends a subscription.
    pub fn unsubscribe(&mut self, connection: u64, topic: &str) {
        let Some(subscribers) = self.by_topic.get_mut(topic) else { return };
        let Some(before) = subscribers.remove(&connection) else { return };
        if subscribers.is_empty() {
            self.by_topic.remove(topic);
        }
        if let Some(all) = self.by_connection.get_mut(&connection) {
            all.topics.remove(topic);
            all.bytes -= bytes_of(topic, &before);
            if all.topics.is_empty() {
                self.by_connection.remove(&connection);
            }
        }
    }

    /// Ends all subscriptions of a connection.
    pub fn remove(&mut self, connection: u64) {
        for topic in self.of(connection) {
            self.unsubscribe(connection, &topic);
        }
    }

    /// The topics of a connection.
    pub fn of(&self, connection: u64) -> Vec<String> {
        self.by_connection.get(&connection).map_or_else(Vec::new, |all| all.topics.iter().cloned().collect())
    }

    /// The subscribers of a topic.
    pub fn subscribers(&self, topic: &str) -> impl Iterator<Item = (u64, &Subscriber)> {
        self.by_topic.get(topic).into_iter().flatten().map(|(connection, subscriber)| (*connection, subscriber))
    }

    /// How a connection listens to a topic.
    pub fn subscriber(&self, topic: &str, connection: u64) -> Option<&Subscriber> {
        self.by_topic.get(topic)?.get(&connection)
    }

    /// The cursors of a connection.
    pub fn cursors(&self, connection: u64) -> Vec<(String, u64)> {
        let topics = self.by_connection.get(&connection).into_iter().flat_map(|all| &all.topics);
        let mut cursors: Vec<_> =
            topics.filter_map(|topic| Some((topic.clone(), self.by_topic.get(topic)?.get(&connection)?.cursor?))).collect();
        cursors.sort();
        cursors
    }

    /// Sets a cursor; a topic that is not subscribed to is passed over.
    pub fn set_cursor(&mut self, connection: u64, topic: &str, cursor: u64) {
        if let Some(subscriber) = self.by_topic.get_mut(topic).and_then(|subscribers| subscribers.get_mut(&connection)) {
            subscriber.cursor = Some(cursor);
        }
    }

    /// How many topics have subscribers.
    pub fn len(&self) -> usize {
        self.by_topic.len()
    }

    /// Whether nobody listens to anything.
    pub fn is_empty(&self) -> bool {
        self.by_topic.is_empty()
    }
}

/// What a subscription holds in memory.
fn bytes_of(topic: &str, subscriber: &Subscriber) -> usize {
    topic.len() + subscriber.group.len() + subscriber.presence.as_ref().map_or(0, Vec::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscriber(group: &str, cursor: Option<u64>) -> Subscriber {
        Subscriber { mode: Mode::Deliver, group: group.into(), cursor, presence: None }
    }

    #[test]
    fn a_connection_that_goes_leaves_nothing_behind() {
        let mut topics = Topics::default();
        topics.subscribe(1, "a", subscriber("g", None));
        topics.subscribe(1, "b", subscriber("g", None));
        topics.subscribe(2, "a", subscriber("g", None));
        topics.remove(1);
        assert_eq!(topics.subscribers("a").map(|(connection, _)| connection).collect::<Vec<_>>(), [2]);
        topics.remove(2);
        assert!(topics.is_empty() && topics.by_connection.is_empty());
    }

    #[test]
    fn a_connection_that_listens_to_too_much_is_refused_until_it_listens_to_less() {
        let (mut topics, limits) = (Topics::default(), SubscriptionLimits { topics: 2, bytes: 10 });
        let subscribe =
            |topics: &mut Topics, topic: &str, group: &str| topics.subscribe_within(1, topic, subscriber(group, None), limits).is_ok();
        assert!(subscribe(&mut topics, "a", "ggg") && subscribe(&mut topics, "b", "ggg"));
        assert!(!subscribe(&mut topics, "c", ""), "too many");
        assert!(!subscribe(&mut topics, "a", "gggggg"), "too large");
        assert!(subscribe(&mut topics, "a", "ggggg") && subscribe(&mut topics, "a", ""));
        topics.unsubscribe(1, "c");
        topics.unsubscribe(1, "b");
        assert!(subscribe(&mut topics, "c", "gggggggg"));
        assert!(topics.subscribe_within(2, "a", subscriber("g", None), limits).is_ok(), "others are not concerned");
    }

    #[test]
    fn subscribing_again_keeps_the_cursor_and_replaces_the_rest() {
        let mut topics = Topics::default();
        topics.subscribe(1, "a", subscriber("old", Some(4)));
        topics.subscribe(1, "a", subscriber("new", None));
        assert_eq!(topics.subscribers("a").collect::<Vec<_>>(), [(1, &subscriber("new", Some(4)))]);
        topics.set_cursor(1, "elsewhere", 9);
        assert_eq!(topics.cursors(1), [("a".to_owned(), 4)]);
    }
}
