//! Which publications of a row (a topic and an order key) this process has seen, and what is missing. A state machine without
//! IO or clock.
//!
//! Within a process publications come in commit order. Those of other processes take their time, and some may be lost: so a
//! `must-deliver` whose predecessor was not seen is held until that is there, or until the component was asked for what is
//! missing (`socket.refill`). Rows are remembered as long as somebody in this process listens to their topic.
//!
//! What the first to listen has read already is known when the call that subscribed is released, by its cut-offs; before, what
//! comes on the topic is held as well.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::pubsub::{Class, Publication};

/// Publications of one topic that are held; beyond them they are dropped and asked for.
const HELD_MAX: usize = 256;
/// Their bytes.
const HELD_BYTES_MAX: usize = 32 << 20;
/// Rows of one topic; beyond them they are forgotten, and the next publication of each begins anew.
const ROWS_MAX: usize = 1024;

/// What is to be done, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Bring this to the subscribers.
    FanOut(Publication),
    /// Something is missing: ask, for as long as [`Sequences::wanted`] says.
    Ask {
        /// The topic.
        topic: String,
        /// The order key.
        key: String,
    },
}

/// See the module.
#[derive(Debug, Default)]
pub struct Sequences {
    topics: HashMap<String, Topic>,
    /// The topics that connections are the first to listen to, until the calls that subscribed are released.
    joining: HashMap<u64, Vec<String>>,
}

#[derive(Debug, Default)]
struct Topic {
    /// The first to listen, with the calls that subscribed.
    joining: Vec<(u64, u64)>,
    /// The least that one of them has read, by key.
    read: HashMap<String, u64>,
    /// What came meanwhile.
    waiting: Held,
    rows: HashMap<String, Row>,
}

#[derive(Debug, Default)]
struct Row {
    last: u64,
    /// What came whose predecessor is missing, by sequence.
    held: BTreeMap<u64, Publication>,
    /// Whether somebody asks.
    asking: bool,
    /// Something may be missing, whatever is held.
    doubtful: bool,
    /// It is asked until nothing comes any more.
    to_the_end: bool,
    /// After which sequence it was asked.
    asked_after: u64,
    /// The last that was held then. What came since may have a predecessor that the answer could not know yet.
    held_when_asked: u64,
}

#[derive(Debug, Default)]
struct Held {
    publications: VecDeque<Publication>,
    bytes: usize,
    /// Some were dropped.
    is_lossy: bool,
}

impl Held {
    fn push(&mut self, publication: Publication) {
        self.bytes += publication.message.len();
        self.publications.push_back(publication);
        while self.publications.len() > HELD_MAX || self.bytes > HELD_BYTES_MAX {
            let Some(oldest) = self.publications.pop_front() else { break };
            self.bytes -= oldest.message.len();
            self.is_lossy = true;
        }
    }
}

impl Sequences {
    /// A call of a connection subscribes to a topic. `is_first`: nobody in this process listened to it before.
    pub fn subscribes(&mut self, topic: &str, is_first: bool, connection: u64, call: u64) {
        if is_first {
            self.forget(topic);
        }
        let known = self.topics.entry(topic.to_owned()).or_default();
        let is_open = is_first || !known.joining.is_empty();
        if is_open && !known.joining.iter().any(|(joining, _)| *joining == connection) {
            known.joining.push((connection, call));
            self.joining.entry(connection).or_default().push(topic.to_owned());
        }
    }

    /// The effects of a call are released: what it has read by key.
    pub fn released(&mut self, connection: u64, call: u64, read: &[(String, u64)]) -> Vec<Step> {
        let Some(topics) = self.joining.get_mut(&connection) else { return Vec::new() };
        let mut settled = Vec::new();
        topics.retain(|name| {
            let Some(topic) = self.topics.get_mut(name) else { return false };
            let before = topic.joining.len();
            topic.joining.retain(|joining| *joining != (connection, call));
            if topic.joining.len() == before {
                return true;
            }
            for (key, sequence) in read.iter().take(ROWS_MAX) {
                let least = topic.read.entry(key.clone()).or_insert(*sequence);
                *least = (*least).min(*sequence);
            }
            settled.push(name.clone());
            false
        });
        if topics.is_empty() {
            self.joining.remove(&connection);
        }
        settled.iter().flat_map(|name| self.settle(name)).collect()
    }

    /// A connection is gone.
    pub fn gone(&mut self, connection: u64) -> Vec<Step> {
        let topics = self.joining.remove(&connection).unwrap_or_default();
        for name in &topics {
            if let Some(topic) = self.topics.get_mut(name) {
                topic.joining.retain(|(joining, _)| *joining != connection);
            }
        }
        topics.iter().flat_map(|name| self.settle(name)).collect()
    }

    /// Nobody listens to a topic any more.
    pub fn forget(&mut self, topic: &str) {
        let Some(forgotten) = self.topics.remove(topic) else { return };
        for (connection, _) in forgotten.joining {
            if let Some(topics) = self.joining.get_mut(&connection) {
                topics.retain(|name| name != topic);
                if topics.is_empty() {
                    self.joining.remove(&connection);
                }
            }
        }
    }

    fn settle(&mut self, name: &str) -> Vec<Step> {
        let Some(topic) = self.topics.get_mut(name).filter(|topic| topic.joining.is_empty()) else { return Vec::new() };
        for (key, last) in std::mem::take(&mut topic.read) {
            topic.rows.entry(key).or_insert(Row { last, ..Row::default() });
        }
        let waiting = std::mem::take(&mut topic.waiting);
        let mut steps = if waiting.is_lossy { topic.doubt(name) } else { Vec::new() };
        steps.extend(waiting.publications.into_iter().flat_map(|publication| topic.take(publication)));
        steps
    }

    /// A publication comes, from this process or another one.
    pub fn offer(&mut self, publication: Publication) -> Vec<Step> {
        match (self.topics.get_mut(&publication.topic), &publication.class, &publication.order) {
            (Some(topic), Class::MustDeliver, Some(order)) => {
                if !topic.joining.is_empty() && !topic.rows.contains_key(&order.key) {
                    topic.waiting.push(publication);
                    return Vec::new();
                }
                topic.take(publication)
            }
            _ => vec![Step::FanOut(publication)],
        }
    }

    /// Publications of any row may have been lost.
    pub fn missed(&mut self) -> Vec<Step> {
        self.topics.iter_mut().flat_map(|(name, topic)| topic.doubt(name)).collect()
    }

    /// After which sequence whoever asks is to ask now; none: nothing is missing any more, and nobody asks until the next
    /// [`Step::Ask`].
    pub fn wanted(&mut self, topic: &str, key: &str) -> Option<u64> {
        let row = self.topics.get_mut(topic)?.rows.get_mut(key)?;
        row.to_the_end = std::mem::take(&mut row.doubtful);
        let is_wanted = row.to_the_end || !row.held.is_empty();
        row.asking = is_wanted;
        row.asked_after = row.last;
        row.held_when_asked = row.held.last_key_value().map_or(0, |(sequence, _)| *sequence);
        is_wanted.then_some(row.last)
    }

    /// The component has answered: what comes after the sequence that was asked for. Where that is nothing the host goes on
    /// with what was held when it was asked.
    pub fn refilled(&mut self, topic: &str, key: &str, publications: Vec<Publication>) -> Vec<Step> {
        let mut steps = Vec::new();
        let Some(row) = self.topics.get_mut(topic).and_then(|topic| topic.rows.get_mut(key)) else { return steps };
        let mut is_answered = false;
        for publication in publications {
            match &publication.order {
                Some(order) if publication.topic == topic && order.key == key => {
                    is_answered |= order.sequence > row.asked_after;
                    if order.sequence > row.last {
                        row.last = order.sequence;
                        // What was held says whom it is not for.
                        steps.push(Step::FanOut(row.held.remove(&order.sequence).unwrap_or(publication)));
                    }
                }
                _ => steps.push(Step::FanOut(publication)),
            }
        }
        row.held = row.held.split_off(&(row.last + 1));
        row.follow(&mut steps);
        row.doubtful |= row.to_the_end && is_answered;
        if !is_answered {
            while let Some(first) = row.held.first_entry()
                && *first.key() <= row.held_when_asked
            {
                row.last = *first.key();
                steps.push(Step::FanOut(first.remove()));
            }
            row.follow(&mut steps);
        }
        steps
    }

    /// The component could not be asked: the subscribers of the topic are closed, and the row begins anew.
    pub fn gave_up(&mut self, topic: &str, key: &str) {
        if let Some(topic) = self.topics.get_mut(topic) {
            topic.rows.remove(key);
        }
    }

    /// How many topics are remembered.
    pub fn len(&self) -> usize {
        self.topics.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty() && self.joining.is_empty()
    }
}

impl Topic {
    /// Publications of any of its rows may be missing.
    fn doubt(&mut self, name: &str) -> Vec<Step> {
        let ask = |(key, row): (&String, &mut Row)| {
            row.doubtful = true;
            row.ask(name, key)
        };
        self.rows.iter_mut().filter_map(ask).collect()
    }

    /// Takes a `must-deliver` that has a place.
    fn take(&mut self, publication: Publication) -> Vec<Step> {
        let Some(order) = publication.order.clone() else { return vec![Step::FanOut(publication)] };
        if self.rows.len() >= ROWS_MAX && !self.rows.contains_key(&order.key) {
            self.rows.clear();
        }
        let Some(row) = self.rows.get_mut(&order.key) else {
            self.rows.insert(order.key, Row { last: order.sequence, ..Row::default() });
            return vec![Step::FanOut(publication)];
        };
        if order.sequence <= row.last {
            return Vec::new();
        }
        let topic = publication.topic.clone();
        row.held.insert(order.sequence, publication);
        let mut steps = Vec::new();
        row.follow(&mut steps);
        let held_bytes: usize = row.held.values().map(|held| held.message.len()).sum();
        if row.held.len() > HELD_MAX || held_bytes > HELD_BYTES_MAX {
            // All of it can be asked for.
            row.held.clear();
            row.doubtful = true;
        }
        if !row.held.is_empty() || row.doubtful {
            steps.extend(row.ask(&topic, &order.key));
        }
        steps
    }
}

impl Row {
    /// What is held and follows what was seen.
    fn follow(&mut self, steps: &mut Vec<Step>) {
        let follows = |publication: &Publication, last| publication.order.as_ref().is_none_or(|order| order.after <= last);
        while let Some(first) = self.held.first_entry()
            && follows(first.get(), self.last)
        {
            self.last = *first.key();
            steps.push(Step::FanOut(first.remove()));
        }
    }

    fn ask(&mut self, topic: &str, key: &str) -> Option<Step> {
        let is_first = !std::mem::replace(&mut self.asking, true);
        is_first.then(|| Step::Ask { topic: topic.to_owned(), key: key.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pubsub::Order;

    fn publication(sequence: u64) -> Publication {
        let order = Some(Order { key: "k".into(), after: sequence - 1, sequence });
        let message = sequence.to_string().into();
        Publication { topic: "t".into(), message, order, class: Class::MustDeliver, except: None, close: None }
    }

    fn ask() -> Step {
        Step::Ask { topic: "t".into(), key: "k".into() }
    }

    /// The sequences that are brought to subscribers, and whether somebody is to ask.
    fn seen(steps: Vec<Step>) -> (Vec<u64>, bool) {
        let asks = steps.contains(&ask());
        let sequence = |step| if let Step::FanOut(publication) = step { publication.order.map(|order| order.sequence) } else { None };
        (steps.into_iter().filter_map(sequence).collect(), asks)
    }

    /// One who has read up to a sequence.
    fn joined(last: u64) -> Sequences {
        let mut sequences = Sequences::default();
        sequences.subscribes("t", true, 1, 1);
        assert_eq!(sequences.released(1, 1, &[("k".into(), last)]), []);
        sequences
    }

    #[test]
    fn what_comes_in_order_goes_on_and_what_comes_twice_does_not() {
        let mut sequences = joined(4);
        assert_eq!(seen(sequences.offer(publication(5))), (vec![5], false));
        assert_eq!(seen(sequences.offer(publication(6))), (vec![6], false));
        assert_eq!(seen(sequences.offer(publication(5))), (vec![], false));
    }

    #[test]
    fn what_comes_too_early_waits_for_what_is_before_it() {
        let mut sequences = joined(4);
        assert_eq!(seen(sequences.offer(publication(6))), (vec![], true));
        assert_eq!(seen(sequences.offer(publication(7))), (vec![], false), "somebody asks already");
        assert_eq!(seen(sequences.offer(publication(5))), (vec![5, 6, 7], false));
        assert_eq!(sequences.wanted("t", "k"), None, "it came by itself");
        assert_eq!(seen(sequences.offer(publication(9))), (vec![], true));
        assert_eq!(sequences.wanted("t", "k"), Some(7));
    }

    #[test]
    fn what_is_lost_comes_from_the_component_and_what_was_held_keeps_its_exception() {
        let mut sequences = joined(4);
        let own = Publication { except: Some(8), ..publication(7) };
        assert_eq!(seen(sequences.offer(own.clone())), (vec![], true));
        assert_eq!(sequences.wanted("t", "k"), Some(4));
        let steps = sequences.refilled("t", "k", [5, 6, 7, 8].map(publication).into());
        assert_eq!(steps, [5, 6].map(publication).into_iter().chain([own, publication(8)]).map(Step::FanOut).collect::<Vec<_>>());
        assert_eq!(seen(sequences.offer(publication(8))), (vec![], false));
        assert_eq!(sequences.wanted("t", "k"), None);
    }

    #[test]
    fn where_nothing_can_be_had_the_host_goes_on() {
        let mut sequences = joined(4);
        sequences.offer(publication(9));
        assert_eq!(sequences.wanted("t", "k"), Some(4));
        assert_eq!(seen(sequences.refilled("t", "k", [publication(5)].into())), (vec![5], false));
        assert_eq!(sequences.wanted("t", "k"), Some(5), "it ends before the hole does");
        assert_eq!(seen(sequences.refilled("t", "k", Vec::new())), (vec![9], false));
        assert_eq!(sequences.wanted("t", "k"), None);
    }

    #[test]
    fn what_comes_after_the_question_waits_for_the_next_answer() {
        let mut sequences = joined(4);
        assert_eq!(sequences.missed(), [ask()]);
        assert_eq!(sequences.wanted("t", "k"), Some(4));
        assert_eq!(seen(sequences.offer(publication(6))), (vec![], false), "5 was committed when the answer was on its way");
        assert_eq!(seen(sequences.refilled("t", "k", Vec::new())), (vec![], false));
        assert_eq!(sequences.wanted("t", "k"), Some(4));
        assert_eq!(seen(sequences.refilled("t", "k", [5, 6].map(publication).into())), (vec![5, 6], false));
    }

    #[test]
    fn those_who_join_together_miss_nothing_of_what_the_first_of_them_had_not_read() {
        let mut sequences = Sequences::default();
        sequences.subscribes("t", true, 1, 1);
        sequences.subscribes("t", false, 2, 3);
        assert_eq!(sequences.offer(publication(7)), []);
        assert_eq!(sequences.released(1, 1, &[("k".into(), 6)]), [], "the other one may have read less");
        assert_eq!(sequences.released(2, 2, &[]), [], "that is another call");
        assert_eq!(seen(sequences.released(2, 3, &[("k".into(), 5)])), (vec![], true));
        assert_eq!(seen(sequences.offer(publication(6))), (vec![6, 7], false));
        sequences.subscribes("t", false, 3, 1);
        assert_eq!(seen(sequences.offer(publication(8))), (vec![8], false), "whoever comes later has read what was seen before");
    }

    #[test]
    fn whoever_goes_before_having_read_holds_up_nobody_and_leaves_nothing_behind() {
        let mut sequences = Sequences::default();
        sequences.subscribes("t", true, 1, 1);
        sequences.subscribes("t", false, 2, 1);
        sequences.offer(publication(7));
        assert_eq!(sequences.released(1, 1, &[]), []);
        assert_eq!(seen(sequences.gone(2)), (vec![7], false), "nobody has said what was read: it begins here");
        sequences.forget("t");
        assert!(sequences.is_empty());
        sequences.subscribes("t", true, 1, 1);
        sequences.forget("t");
        assert!(sequences.is_empty() && sequences.gone(1).is_empty());
    }

    #[test]
    fn after_a_loss_each_row_is_asked_for_once() {
        let mut sequences = joined(4);
        assert_eq!(sequences.missed(), [ask()]);
        assert_eq!(sequences.missed(), [], "somebody asks already");
        assert_eq!(sequences.wanted("t", "k"), Some(4));
        assert_eq!(sequences.missed(), [], "but has not read yet what was lost now");
        assert_eq!(seen(sequences.refilled("t", "k", vec![publication(5)])), (vec![5], false));
        assert_eq!(sequences.wanted("t", "k"), Some(5));
        assert_eq!(sequences.refilled("t", "k", Vec::new()), []);
        assert_eq!(sequences.wanted("t", "k"), None);
        assert_eq!(sequences.missed(), [ask()]);
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut sequences = joined(1);
        let large = |sequence| Publication { message: vec![0; HELD_BYTES_MAX + 1].into(), ..publication(sequence) };
        assert_eq!(seen(joined(1).offer(large(2))), (vec![2], false), "what follows is not held, however large it is");
        for sequence in 3..1000 {
            sequences.offer(publication(sequence));
        }
        assert!(sequences.topics["t"].rows["k"].held.len() <= HELD_MAX);
        assert_eq!(sequences.wanted("t", "k"), Some(1));
        assert_eq!(seen(sequences.refilled("t", "k", (2..1000).map(publication).collect())).0, (2..1000).collect::<Vec<_>>());
        let mut sequences = Sequences::default();
        sequences.subscribes("t", true, 1, 1);
        assert_eq!(sequences.offer(large(2)), []);
        assert_eq!(sequences.released(1, 1, &[("k".into(), 1)]), [ask()], "what was dropped while nobody had read is asked for");
    }

    proptest! {
        /// Whatever comes in whatever order, lost and doubled, also between a question and its answer, whoever listens gets each
        /// once and in order.
        #[test]
        fn all_come_once_and_in_order(events in prop::collection::vec((1_u64..30, 0_u8..12), 0..200)) {
            let (mut sequences, mut told, mut asks) = (joined(0), Vec::new(), false);
            let mut committed = 0;
            let mut on_its_way = None;
            let read = |after: u64, committed: u64| (after + 1..=committed).take(3).map(publication).collect::<Vec<_>>();
            for (sequence, what) in events {
                match what {
                    // Who asks takes the answer, then asks again.
                    9.. if asks => {
                        if let Some(answer) = on_its_way.take() {
                            told.extend(seen(sequences.refilled("t", "k", answer)).0);
                        }
                        on_its_way = sequences.wanted("t", "k").map(|after| read(after, committed));
                        asks = on_its_way.is_some();
                    }
                    _ => {
                        committed = committed.max(sequence);
                        let steps = if what == 0 { sequences.missed() } else { sequences.offer(publication(sequence)) };
                        let (new, asked) = seen(steps);
                        told.extend(new);
                        asks |= asked;
                    }
                }
            }
            if let Some(answer) = on_its_way {
                told.extend(seen(sequences.refilled("t", "k", answer)).0);
            }
            sequences.missed();
            while let Some(after) = sequences.wanted("t", "k") {
                told.extend(seen(sequences.refilled("t", "k", read(after, committed))).0);
            }
            prop_assert_eq!(told, (1..=committed).collect::<Vec<_>>());
        }
    }
}
