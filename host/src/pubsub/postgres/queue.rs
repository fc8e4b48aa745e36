//! Publications on their way out. A state machine without IO or clock.

use std::collections::VecDeque;

use super::envelope::{HEAD_BYTES, INLINE_BYTES_MAX, PacketId, notice_of, packet};

/// Publications that wait at most, and their bytes, those of the statement that is under way among them.
const WAITING_MAX: usize = 65_536;
const WAITING_BYTES_MAX: usize = 64 << 20;
/// What leaves in one statement.
const BATCH_PACKETS_MAX: usize = 256;
const BATCH_BYTES_MAX: usize = 4 << 20;

/// A packet to be put into the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    /// Which one.
    pub(super) id: PacketId,
    /// Its bytes.
    pub(super) bytes: Vec<u8>,
    /// Whether whoever does not listen right now must find it later.
    pub(super) is_kept: bool,
}

/// What leaves in one statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Batch {
    /// For the table.
    pub(super) stored: Vec<Stored>,
    /// What is told, in order.
    pub(super) notices: Vec<String>,
    publications: usize,
    bytes: usize,
}

struct Waiting {
    encoded: Vec<u8>,
    is_kept: bool,
}

/// See the module.
pub(super) struct Outgoing {
    origin: u64,
    next_number: u64,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    under_way: Option<Batch>,
    /// Publications were lost, and nobody is told of it yet.
    is_lossy: bool,
    waiting_max: usize,
    waiting_bytes_max: usize,
}

impl Outgoing {
    /// Nothing waits.
    pub(super) fn new(origin: u64) -> Self {
        Self {
            origin,
            next_number: 1,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            under_way: None,
            is_lossy: false,
            waiting_max: WAITING_MAX,
            waiting_bytes_max: WAITING_BYTES_MAX,
        }
    }

    /// A publication is to leave. `is_kept`: it cannot be found again by reading, so whoever misses it must be able to get it later.
    /// Where too much waits, what can be found again is dropped, and those who miss it will know.
    pub(super) fn push(&mut self, encoded: Vec<u8>, is_kept: bool) {
        self.waiting_bytes += encoded.len();
        self.waiting.push_back(Waiting { encoded, is_kept });
        if self.is_too_much() {
            self.is_lossy = true;
            self.waiting.retain(|waiting| waiting.is_kept);
            self.waiting_bytes = self.waiting.iter().map(|waiting| waiting.encoded.len()).sum();
        }
        while self.is_too_much() {
            self.take();
        }
    }

    fn is_too_much(&self) -> bool {
        let (publications, bytes) = self.under_way.as_ref().map_or((0, 0), |batch| (batch.publications, batch.bytes));
        !self.waiting.is_empty()
            && (self.waiting.len() + publications > self.waiting_max || self.waiting_bytes + bytes > self.waiting_bytes_max)
    }

    fn take(&mut self) -> Option<Waiting> {
        let waiting = self.waiting.pop_front()?;
        self.waiting_bytes -= waiting.encoded.len();
        Some(waiting)
    }

    /// Whether publications were lost of which nobody is told yet.
    pub(super) fn is_lossy(&self) -> bool {
        self.is_lossy
    }

    /// Whether nothing is left to be sent.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_none() && !self.is_lossy
    }

    /// What is to be sent now: the same again until it [`Outgoing::left`].
    pub(super) fn batch(&mut self) -> Option<Batch> {
        if self.under_way.is_none() && !self.is_empty() {
            self.under_way = Some(self.next_batch());
        }
        self.under_way.clone()
    }

    fn next_batch(&mut self) -> Batch {
        let mut batch = Batch::default();
        if std::mem::take(&mut self.is_lossy) {
            // A number that nobody hears of, and one that everybody does.
            self.next_number += 1;
            let id = self.next_id();
            batch.notices.push(notice_of(&packet(id, [])));
        }
        while batch.notices.len() < BATCH_PACKETS_MAX && batch.bytes < BATCH_BYTES_MAX {
            let Some(first) = self.take() else { break };
            let is_kept = first.is_kept;
            let mut size = HEAD_BYTES + first.encoded.len();
            let mut publications = vec![first.encoded];
            while let Some(next) = self.waiting.front()
                && !is_kept
                && !next.is_kept
                && size + next.encoded.len() <= INLINE_BYTES_MAX
            {
                size += next.encoded.len();
                publications.extend(self.take().map(|waiting| waiting.encoded));
            }
            let id = self.next_id();
            let bytes = packet(id, &publications);
            batch.bytes += bytes.len();
            batch.publications += publications.len();
            if is_kept || bytes.len() > INLINE_BYTES_MAX {
                batch.notices.push(id.notice());
                batch.stored.push(Stored { id, bytes, is_kept });
            } else {
                batch.notices.push(notice_of(&bytes));
            }
        }
        batch
    }

    fn next_id(&mut self) -> PacketId {
        let id = PacketId { origin: self.origin, number: self.next_number };
        self.next_number += 1;
        id
    }

    /// The batch is sent.
    pub(super) fn left(&mut self) {
        self.under_way = None;
    }
}

#[cfg(test)]
mod tests {
    use super::super::envelope::{Notice, encode, read_notice, read_packet};
    use super::*;
    use crate::pubsub::{Class, Publication};

    fn encoded(topic: &str, bytes: usize) -> Vec<u8> {
        let message = vec![b'x'; bytes].into();
        let publication = Publication { topic: topic.into(), message, order: None, class: Class::MustDeliver, except: None, close: None };
        encode(1, "m", &publication)
    }

    /// The numbers and topics of a batch's packets.
    fn read(batch: &Batch) -> Vec<(u64, Vec<String>)> {
        let packet = |notice: &String| {
            let (id, sent) = match read_notice(notice).unwrap() {
                Notice::Packet(id, sent) => (id, sent),
                Notice::Stored(id) => {
                    let stored = batch.stored.iter().find(|stored| stored.id == id).expect("it is stored");
                    read_packet(&stored.bytes).unwrap()
                }
            };
            (id.number, sent.into_iter().map(|sent| sent.publication.topic).collect())
        };
        batch.notices.iter().map(packet).collect()
    }

    #[test]
    fn what_waits_leaves_together_in_order_and_again_until_it_has_left() {
        let mut outgoing = Outgoing::new(7);
        assert_eq!(outgoing.batch(), None);
        for (topic, bytes, is_kept) in [("a", 10, false), ("b", 10, false), ("c", 9_000, false), ("d", 10, true), ("e", 10, false)] {
            outgoing.push(encoded(topic, bytes), is_kept);
        }
        let batch = outgoing.batch().expect("something waits");
        let topics = |topics: &[&str]| topics.iter().map(|topic| (*topic).to_owned()).collect::<Vec<_>>();
        assert_eq!(read(&batch), [(1, topics(&["a", "b"])), (2, topics(&["c"])), (3, topics(&["d"])), (4, topics(&["e"]))]);
        assert_eq!(batch.stored.iter().map(|stored| (stored.id.number, stored.is_kept)).collect::<Vec<_>>(), [(2, false), (3, true)]);
        outgoing.push(encoded("f", 10), false);
        assert_eq!(outgoing.batch(), Some(batch), "it may not have arrived");
        outgoing.left();
        assert_eq!(read(&outgoing.batch().expect("one more")), [(5, topics(&["f"]))]);
        outgoing.left();
        assert!(outgoing.is_empty() && outgoing.batch().is_none());
    }

    #[test]
    fn where_too_much_waits_a_number_is_left_out_and_what_cannot_be_read_again_stays() {
        let mut outgoing = Outgoing { waiting_max: 10, ..Outgoing::new(7) };
        outgoing.push(encoded("revoked", 10), true);
        for _ in 0..10 {
            outgoing.push(encoded("lost", 10), false);
        }
        assert!(outgoing.is_lossy() && !outgoing.is_empty());
        let batch = outgoing.batch().expect("others are told");
        assert_eq!(read(&batch), [(2, vec![]), (3, vec!["revoked".to_owned()])]);
        assert!(!outgoing.is_lossy());
        let mut outgoing = Outgoing { waiting_bytes_max: 1000, ..Outgoing::new(7) };
        for _ in 0..20 {
            outgoing.push(encoded("revoked", 100), true);
        }
        assert!(outgoing.waiting_bytes <= 1000 && outgoing.is_lossy(), "it is bounded all the same");
        // Nothing of it is left to be sent but the word that something is missing.
        let mut outgoing = Outgoing { waiting_bytes_max: 50, ..Outgoing::new(7) };
        outgoing.push(encoded("lost", 100), false);
        assert_eq!(read(&outgoing.batch().expect("others are told")), [(2, vec![])]);
    }

    #[test]
    fn a_batch_ends_somewhere() {
        let mut outgoing = Outgoing::new(7);
        for _ in 0..5 {
            outgoing.push(encoded("large", 3 << 20), false);
        }
        assert_eq!(outgoing.batch().expect("some").notices.len(), 2);
    }
}
