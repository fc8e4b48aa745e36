//! Which packets were heard, of whom. A state machine without IO or clock.

use std::collections::{HashMap, HashSet};

use super::envelope::PacketId;

/// Senders that are remembered; each start of a process is another one.
const ORIGINS_MAX: usize = 1_000;

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hearing {
    /// One that was heard before.
    Again,
    /// The next one.
    Next,
    /// One before it was not heard.
    AfterGap,
}

/// See the module.
#[derive(Default)]
pub(super) struct Heard {
    /// The last number of each, and when it was heard.
    last: HashMap<u64, (u64, u64)>,
    /// Those that were read from the table ahead of their turn.
    ahead: HashSet<PacketId>,
    turn: u64,
}

impl Heard {
    /// A packet comes.
    pub(super) fn hear(&mut self, id: PacketId) -> Hearing {
        self.turn += 1;
        let last = self.last.get(&id.origin).map(|(number, _)| *number);
        if last.is_some_and(|last| id.number <= last) {
            return Hearing::Again;
        }
        self.last.insert(id.origin, (id.number, self.turn));
        if self.last.len() > ORIGINS_MAX
            && let Some(oldest) = self.last.iter().min_by_key(|(_, (_, turn))| *turn).map(|(origin, _)| *origin)
        {
            self.last.remove(&oldest);
        }
        match last {
            _ if self.ahead.remove(&id) => Hearing::Again,
            Some(last) if id.number > last + 1 => Hearing::AfterGap,
            _ => Hearing::Next,
        }
    }

    /// A packet is found in the table, after nothing was heard for a while. Whether it is new.
    pub(super) fn find(&mut self, id: PacketId) -> bool {
        self.last.get(&id.origin).is_none_or(|(last, _)| id.number > *last) && self.ahead.insert(id)
    }

    /// Nothing was heard for a while: what of it lay in the table before is no matter any more.
    pub(super) fn begin_anew(&mut self) {
        self.ahead.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_packet_is_taken_once_and_a_gap_is_noticed() {
        let mut heard = Heard::default();
        let id = |origin, number| PacketId { origin, number };
        assert_eq!(heard.hear(id(1, 5)), Hearing::Next, "whoever comes later has not missed what was before");
        assert_eq!([heard.hear(id(1, 6)), heard.hear(id(1, 6)), heard.hear(id(1, 5))], [Hearing::Next, Hearing::Again, Hearing::Again]);
        assert_eq!([heard.hear(id(1, 8)), heard.hear(id(2, 1)), heard.hear(id(1, 9))], [Hearing::AfterGap, Hearing::Next, Hearing::Next]);
        heard.begin_anew();
        assert_eq!([heard.find(id(1, 9)), heard.find(id(1, 11)), heard.find(id(1, 11))], [false, true, false]);
        assert_eq!([heard.hear(id(1, 10)), heard.hear(id(1, 11)), heard.hear(id(1, 12))], [Hearing::Next, Hearing::Again, Hearing::Next]);
    }

    #[test]
    fn senders_are_forgotten_when_there_are_too_many() {
        let mut heard = Heard::default();
        for origin in 0..3_000 {
            heard.hear(PacketId { origin, number: 1 });
            heard.hear(PacketId { origin: 0, number: origin + 2 });
        }
        assert_eq!(heard.last.len(), ORIGINS_MAX);
        assert_eq!(heard.hear(PacketId { origin: 0, number: 3_002 }), Hearing::Next, "not one that speaks");
    }
}
