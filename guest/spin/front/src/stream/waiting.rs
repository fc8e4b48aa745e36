//! Publications on their way to one stream: a state machine without IO or clock.
//!
//! Order (`wit/handler.wit`, `live.outcome`): when a call is over, publications that came until then go out *before* its frames,
//! unless they came on a subscription that this very call made or their order key is among its cut-offs with a greater sequence:
//! those follow its frames. Covered ones are dropped.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::bindings::syncline::host::pubsub::{Class, Publication};

/// A publication that waits.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Arrival {
    pub(super) publication: Publication,
    /// How many calls of the connection had begun when it was found; of a call that was under way then, one less.
    pub(super) calls_before: u64,
}

/// What waits.
#[derive(Default)]
pub(super) struct Waiting {
    arrivals: VecDeque<Arrival>,
    bytes: u64,
    /// Per key what an outcome covered already, until something newer arrives.
    covered: HashMap<String, u64>,
    /// The pause after an answer is under way: nothing leaves.
    quiet: bool,
    /// Topics that the call before the pause subscribed to: what came on them waits for its end, whatever other calls do.
    fresh_in_pause: HashSet<String>,
}

/// What the end of a call sets free.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Released {
    pub(super) before: Vec<Arrival>,
    pub(super) after: Vec<Arrival>,
}

impl Waiting {
    /// Something was published.
    pub(super) fn add(&mut self, arrival: Arrival) {
        if let Some(order) = &arrival.publication.order
            && let Some(covered) = self.covered.get(&order.key)
        {
            if order.sequence <= *covered {
                return;
            }
            // They come in order: nothing that was covered follows.
            self.covered.remove(&order.key);
        }
        if let Class::Latest(_) = arrival.publication.class {
            let (topic, class) = (&arrival.publication.topic, &arrival.publication.class);
            self.leave_out(|waiting, _| waiting.topic == *topic && waiting.class == *class);
        }
        self.bytes += size(&arrival.publication);
        self.arrivals.push_back(arrival);
    }

    /// Whether the reader keeps up. Makes room by leaving out what may be left out.
    pub(super) fn keeps_up(&mut self, bytes_max: u64) -> bool {
        if self.bytes > bytes_max {
            self.leave_out(|publication, bytes| bytes > bytes_max && publication.class == Class::Droppable);
        }
        self.bytes <= bytes_max
    }

    /// Whether a pause should end because of what waits.
    pub(super) fn is_pressing(&self, bytes_max: u64) -> bool {
        self.quiet && self.bytes > bytes_max / 2
    }

    /// A call is over, which subscribed to these topics and has seen so much. `pause`: one begins behind its frames.
    pub(super) fn release(&mut self, seen: &[(String, u64)], fresh: HashSet<String>, pause: bool) -> Released {
        let mut released = Released::default();
        let mut held = VecDeque::new();
        for arrival in std::mem::take(&mut self.arrivals) {
            let publication = &arrival.publication;
            let order = publication.order.as_ref();
            let cut_off = order.and_then(|order| seen.iter().find(|(key, _)| *key == order.key));
            let is_fresh = fresh.contains(&publication.topic);
            if cut_off.zip(order).is_some_and(|((_, through), order)| order.sequence <= *through) {
                continue;
            }
            if self.quiet && !is_fresh && self.fresh_in_pause.contains(&publication.topic) {
                held.push_back(arrival);
            } else if cut_off.is_some() || is_fresh {
                released.after.push(arrival);
            } else {
                released.before.push(arrival);
            }
        }
        for (key, through) in seen {
            let covered = self.covered.entry(key.clone()).or_default();
            *covered = (*covered).max(*through);
        }
        self.arrivals = held;
        if pause {
            self.quiet = true;
            self.fresh_in_pause.extend(fresh);
            for arrival in std::mem::take(&mut released.after).into_iter().rev() {
                self.arrivals.push_front(arrival);
            }
        }
        self.bytes = self.arrivals.iter().map(|arrival| size(&arrival.publication)).sum();
        released
    }

    /// The pause is over.
    pub(super) fn end_pause(&mut self) {
        self.quiet = false;
        self.fresh_in_pause.clear();
    }

    /// What may leave now, the oldest first.
    pub(super) fn next(&mut self) -> Option<Arrival> {
        if self.quiet {
            return None;
        }
        let arrival = self.arrivals.pop_front()?;
        self.bytes = self.bytes.saturating_sub(size(&arrival.publication));
        Some(arrival)
    }

    /// A subscription ended: what waits for it is dropped.
    pub(super) fn unsubscribed(&mut self, topic: &str) {
        self.leave_out(|publication, _| publication.topic == topic);
    }

    /// Drops what waits, the oldest first; `which` also gets the bytes that are left.
    fn leave_out(&mut self, which: impl Fn(&Publication, u64) -> bool) {
        let bytes = &mut self.bytes;
        self.arrivals.retain(|arrival| {
            let leave_out = which(&arrival.publication, *bytes);
            if leave_out {
                *bytes = bytes.saturating_sub(size(&arrival.publication));
            }
            !leave_out
        });
    }
}

fn size(publication: &Publication) -> u64 {
    u64::try_from(publication.message.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::syncline::host::pubsub::Order;

    fn arrival(topic: &str, message: &str, order: Option<(&str, u64)>, class: Class) -> Arrival {
        let order = order.map(|(key, sequence)| Order { key: key.into(), after: sequence - 1, sequence });
        let publication = Publication { topic: topic.into(), message: message.into(), order, class, except: None, close: None };
        Arrival { publication, calls_before: 0 }
    }

    fn must(topic: &str, message: &str, order: Option<(&str, u64)>) -> Arrival {
        arrival(topic, message, order, Class::MustDeliver)
    }

    fn texts(arrivals: &[Arrival]) -> Vec<String> {
        arrivals.iter().map(|arrival| String::from_utf8(arrival.publication.message.clone()).unwrap()).collect()
    }

    fn all(waiting: &mut Waiting) -> Vec<String> {
        texts(&std::iter::from_fn(|| waiting.next()).collect::<Vec<_>>())
    }

    fn seen(key: &str, through: u64) -> Vec<(String, u64)> {
        vec![(key.to_owned(), through)]
    }

    #[test]
    fn what_came_before_the_end_of_a_call_goes_before_its_frames_and_what_is_newer_than_it_knows_behind_them() {
        let mut waiting = Waiting::default();
        for arrival in
            [must("a", "covered", Some(("k", 3))), must("a", "newer", Some(("k", 4))), must("b", "fresh", None), must("a", "other", None)]
        {
            waiting.add(arrival);
        }
        let released = waiting.release(&seen("k", 3), HashSet::from(["b".to_owned()]), false);
        assert_eq!(
            (texts(&released.before), texts(&released.after)),
            (vec!["other".to_owned()], vec!["newer".to_owned(), "fresh".to_owned()])
        );
        assert!(waiting.next().is_none());
    }

    #[test]
    fn what_an_outcome_covered_is_dropped_when_it_comes_later() {
        let mut waiting = Waiting::default();
        waiting.release(&seen("k", 3), HashSet::new(), false);
        waiting.add(must("a", "late", Some(("k", 3))));
        waiting.add(must("a", "new", Some(("k", 4))));
        assert_eq!(all(&mut waiting), ["new"]);
    }

    #[test]
    fn in_a_pause_everything_waits_and_another_call_lets_go_what_is_not_fresh() {
        let mut waiting = Waiting::default();
        waiting.add(must("fresh", "1", None));
        let released = waiting.release(&[], HashSet::from(["fresh".to_owned()]), true);
        assert_eq!(released, Released::default());
        waiting.add(must("old", "2", None));
        assert!(waiting.next().is_none());
        let released = waiting.release(&[], HashSet::new(), false);
        assert_eq!(texts(&released.before), ["2"]);
        waiting.end_pause();
        assert_eq!(all(&mut waiting), ["1"]);
    }

    #[test]
    fn the_latest_replaces_and_what_may_be_left_out_is_left_out_the_oldest_first() {
        let latest = |message: &str| arrival("a", message, None, Class::Latest("k".into()));
        let mut waiting = Waiting::default();
        waiting.add(latest("1"));
        waiting.add(must("a", "2", None));
        waiting.add(latest("3"));
        assert_eq!(all(&mut waiting), ["2", "3"]);
        for message in ["4444", "5555", "6666"] {
            waiting.add(arrival("a", message, None, Class::Droppable));
        }
        assert!(waiting.keeps_up(8));
        assert_eq!(all(&mut waiting), ["5555", "6666"]);
        waiting.add(must("a", "777777777", None));
        assert!(!waiting.keeps_up(8));
    }

    #[test]
    fn a_subscription_that_ends_takes_along_what_waits_for_it() {
        let mut waiting = Waiting::default();
        waiting.add(must("a", "1", None));
        waiting.add(must("b", "2", None));
        waiting.unsubscribed("a");
        assert_eq!(all(&mut waiting), ["2"]);
    }
}
