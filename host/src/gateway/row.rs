//! A mount's row of publications as far as this gateway knows it. A state machine without IO.
//!
//! Stretches of the row come with the answers of calls and of polls, which overlap; each publication is new once. The last
//! ones are kept, since a subscription that came with a late answer may begin before what is known by then.

use std::collections::VecDeque;

use syncline_spin_wire::Position;

use crate::pubsub::Publication;

/// Publications that are kept, and their bytes. A call's answer comes late by its duration at most: so much is published
/// meanwhile on a busy mount, and much less on others.
const RECENT_MAX: usize = 8192;
const RECENT_BYTES_MAX: usize = 32 << 20;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Row {
    /// Everything up to here was passed on.
    known: Position,
    recent: VecDeque<(Position, Publication)>,
    recent_bytes: usize,
    /// Everything after this and up to `known` is among the recent ones.
    kept_after: Position,
}

impl Row {
    /// Up to where everything was passed on.
    pub(super) fn known(&self) -> Position {
        self.known
    }

    /// Goes on from another position, whatever was in between.
    pub(super) fn go_to(&mut self, position: Position) {
        *self = Self { known: position, kept_after: position, ..Self::default() };
    }

    /// A publication comes, from a stretch that begins no later than what is known ends. Whether it is new.
    pub(super) fn take(&mut self, position: Position, publication: &Publication) -> bool {
        if position <= self.known {
            return false;
        }
        self.known = position;
        self.recent_bytes += bytes_of(publication);
        self.recent.push_back((position, publication.clone()));
        while self.recent.len() > RECENT_MAX || self.recent_bytes > RECENT_BYTES_MAX {
            let Some((oldest, publication)) = self.recent.pop_front() else { break };
            self.recent_bytes -= bytes_of(&publication);
            self.kept_after = oldest;
        }
        true
    }

    /// Nothing more stands up to a position.
    pub(super) fn complete_to(&mut self, position: Position) {
        self.known = self.known.max(position);
    }

    /// What was published on a topic after a position, as far as it is known; none where it is not kept any more.
    pub(super) fn since(&self, position: Position, topic: &str) -> Option<Vec<(Position, Publication)>> {
        if position < self.kept_after {
            return None;
        }
        let first = self.recent.partition_point(|(other, _)| *other <= position);
        let later = self.recent.range(first..);
        Some(later.filter(|(_, publication)| publication.topic == topic).cloned().collect())
    }
}

fn bytes_of(publication: &Publication) -> usize {
    size_of::<Publication>() + publication.topic.len() + publication.message.len()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::pubsub::Class;

    fn publication(topic: &str, message: impl Into<Bytes>) -> Publication {
        let (topic, message) = (topic.to_owned(), message.into());
        Publication { topic, message, order: None, class: Class::MustDeliver, except: None, close: None }
    }

    fn since(row: &Row, position: Position) -> Option<usize> {
        row.since(position, "t").map(|found| found.len())
    }

    #[test]
    fn the_oldest_are_let_go_and_then_nobody_can_begin_before_them() {
        let mut row = Row::default();
        let large = Bytes::from(vec![0; RECENT_BYTES_MAX / 4]);
        for position in 1..=5 {
            assert!(row.take(position * 10, &publication("t", large.clone())));
        }
        assert_eq!((row.known(), row.recent.len()), (50, 3));
        assert_eq!((since(&row, 19), since(&row, 20), since(&row, 35), since(&row, 50)), (None, Some(3), Some(2), Some(0)));
        row.go_to(70);
        assert_eq!((since(&row, 69), since(&row, 70), row.recent_bytes), (None, Some(0), 0));
    }

    proptest! {
        /// Whatever stretches come, in whatever order: each publication is new once, in order, and found again after any position.
        #[test]
        fn overlapping_stretches_make_one_row(cuts in prop::collection::vec((0u64..40, 0u64..40), 1..20), asked in 0u64..45) {
            let topic = |position: u64| if position.is_multiple_of(3) { "t" } else { "other" };
            let (mut row, mut passed_on) = (Row::default(), Vec::new());
            for (back, length) in cuts {
                let begin = row.known().saturating_sub(back);
                for position in begin + 1..=begin + length {
                    if row.take(position, &publication(topic(position), position.to_string())) {
                        passed_on.push(position);
                    }
                }
                row.complete_to(begin + length);
            }
            prop_assert_eq!(&passed_on, &(1..=row.known()).collect::<Vec<_>>());
            let found: Vec<_> = row.since(asked, "t").unwrap().into_iter().map(|(_, found)| found.message).collect();
            let expected: Vec<_> = passed_on.iter().filter(|position| **position > asked && topic(**position) == "t").map(|position| Bytes::from(position.to_string())).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
