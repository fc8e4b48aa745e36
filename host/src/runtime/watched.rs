//! How far what is watched (`mounts.watch`) was announced without a gap, and how far it was found. A state machine without IO
//! or clock.

use std::collections::BTreeSet;

use crate::pubsub::Order;

/// Announcements that came before those that are before them; beyond so many it is looked at.
const EARLY_MAX: usize = 1024;

/// See the module.
#[derive(Debug, Default)]
pub struct Watched {
    /// Everything up to here was announced or found.
    through: u64,
    early: BTreeSet<u64>,
    /// The newest that was found by looking.
    found: u64,
}

impl Watched {
    /// Something is announced. Whether it is news: what was found by looking before is none.
    pub fn announced(&mut self, order: &Order) -> bool {
        if order.after <= self.through {
            self.through = self.through.max(order.sequence);
            // The sequence of one is where the next goes on.
            while self.early.first().is_some_and(|early| *early <= self.through + 1) {
                self.through = self.through.max(self.early.pop_first().unwrap_or(0));
            }
        } else if self.early.len() < EARLY_MAX {
            self.early.insert(order.sequence);
        }
        order.sequence > self.found
    }

    /// What to ask after.
    pub fn through(&self) -> u64 {
        self.through
    }

    /// Something was found by looking.
    pub fn found(&mut self, order: &Order) {
        self.found = self.found.max(order.sequence);
        self.through = self.through.max(order.sequence);
        self.early = self.early.split_off(&(self.through + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(sequence: u64) -> Order {
        Order { key: "v".into(), after: sequence - 1, sequence }
    }

    #[test]
    fn what_was_announced_need_not_be_asked_for() {
        let mut watched = Watched::default();
        for sequence in [1, 2, 2, 5, 4] {
            assert!(watched.announced(&order(sequence)));
        }
        assert_eq!(watched.through(), 2, "3 was not announced");
        assert!(watched.announced(&order(3)));
        assert_eq!(watched.through(), 5);
    }

    #[test]
    fn what_was_found_is_no_news_when_it_is_announced_late() {
        let mut watched = Watched::default();
        watched.announced(&order(7));
        watched.found(&order(8));
        assert_eq!((watched.through(), watched.announced(&order(8)), watched.announced(&order(9))), (8, false, true));
        assert_eq!(watched.through(), 9);
    }

    #[test]
    fn what_comes_early_is_bounded() {
        let mut watched = Watched::default();
        for sequence in 2..5_000 {
            watched.announced(&order(sequence));
        }
        assert!(watched.early.len() <= EARLY_MAX && watched.through() == 0);
    }
}
