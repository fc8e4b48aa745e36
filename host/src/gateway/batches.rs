//! Which calls go together in one request. A state machine without IO.
//!
//! A few requests are under way at once; what comes while they all are waits, and goes together with the next one. So a call
//! on a quiet gateway leaves at once and by itself, and on a busy one many share the cost of a request.

use std::collections::VecDeque;

use syncline_spin_wire::CALLS_MAX;

/// Bytes of a batch that has more than one call: hosted services take no more than 10 MiB.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// Calls on their way.
#[derive(Debug)]
pub(super) struct Batches<C> {
    requests_max: usize,
    requests: usize,
    waiting: VecDeque<Waiting<C>>,
}

#[derive(Debug)]
struct Waiting<C> {
    call: C,
    bytes: usize,
    /// Not together with others: it may take long, or end the request.
    alone: bool,
}

impl<C> Batches<C> {
    /// None yet, and at most so many requests at once.
    pub(super) fn new(requests_max: usize) -> Self {
        Self { requests_max, requests: 0, waiting: VecDeque::new() }
    }

    /// A call is to be made.
    pub(super) fn push(&mut self, call: C, bytes: usize, alone: bool) {
        self.waiting.push_back(Waiting { call, bytes, alone });
    }

    /// The calls of the next request, if there may be one: [`Batches::ended`] follows.
    pub(super) fn start(&mut self) -> Option<Vec<C>> {
        if self.requests >= self.requests_max {
            return None;
        }
        let first = self.waiting.pop_front()?;
        let (mut bytes, mut calls) = (first.bytes, vec![first.call]);
        while !first.alone && calls.len() < CALLS_MAX {
            let Some(next) = self.waiting.pop_front_if(|next| !next.alone && bytes + next.bytes <= BATCH_BYTES_MAX) else { break };
            bytes += next.bytes;
            calls.push(next.call);
        }
        self.requests += 1;
        Some(calls)
    }

    /// A request is over.
    pub(super) fn ended(&mut self) {
        self.requests = self.requests.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_while_all_requests_are_under_way_goes_together() {
        let mut batches = Batches::new(2);
        for call in 1..=5 {
            batches.push(call, 1, false);
            match call {
                1 | 2 => assert_eq!(batches.start(), Some(vec![call])),
                _ => assert_eq!(batches.start(), None),
            }
        }
        batches.ended();
        assert_eq!(batches.start(), Some(vec![3, 4, 5]));
        batches.ended();
        assert_eq!(batches.start(), None, "nothing waits");
    }

    #[test]
    fn a_batch_is_bounded_and_some_calls_go_alone() {
        let mut batches = Batches::new(usize::MAX);
        batches.push(0, BATCH_BYTES_MAX - 1, false);
        batches.push(1, 1, false);
        batches.push(2, 1, false);
        batches.push(3, 1, true);
        batches.push(4, 10 * BATCH_BYTES_MAX, false);
        (5..5 + CALLS_MAX + 1).for_each(|call| batches.push(call, 0, false));
        let sizes: Vec<_> = std::iter::from_fn(|| batches.start().map(|calls| (calls[0], calls.len()))).collect();
        assert_eq!(sizes, [(0, 2), (2, 1), (3, 1), (4, 1), (5, CALLS_MAX), (5 + CALLS_MAX, 1)]);
    }
}
