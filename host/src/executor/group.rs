//! Group commit: who writes next, and when a group of transactions goes to disk.
//!
//! One fsync is dear, a transaction is cheap. So the transactions that arrive while one group is being flushed wait
//! and become the next group, which is flushed as a whole.
//!
//! [`GroupCommit`] decides and nothing else. Invariant: it does no IO, reads no clock and draws no random number; the
//! time comes in as a parameter, what is to be done goes out as a [`Step`]. So the simulator drives the very machine
//! that runs.
//!
//! What it promises, whatever the driver does:
//! * one writer at a time, and none while a flush runs;
//! * waiters are granted in the order they came; one that gave up is skipped;
//! * groups are numbered 1, 2, 3 …, and each is flushed exactly once, in that order;
//! * a queue that never empties does not hold a group open: it is flushed at its limits;
//! * a group that somebody holds open for more waits for it, but not beyond its limits.

use std::collections::VecDeque;

/// When a group is flushed although others still wait to join it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupLimits {
    /// Transactions in a group, those rolled back included. 0 counts as 1.
    pub transactions_max: u32,
    /// Milliseconds from its first grant until a group takes no more transactions.
    pub age_ms_max: u64,
}

/// Names one request, for [`GroupCommit::cancel`] and [`GroupCommit::holds`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

/// How the writer gave up its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The transaction is part of the group.
    Committed,
    /// The transaction is undone; what it saw may rest on the group, so it has a place in it.
    RolledBack,
    /// No transaction took place: the waiter was gone, or the writer could not be had. No group is opened for it.
    NeverBegan,
    /// The database undid the whole group.
    Lost,
}

/// How a group reaches its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Commit it, with an fsync. The result decides whether it is durable.
    Commit,
    /// All of it was rolled back: nothing to sync, and nothing that could be lost.
    Nothing,
    /// It is lost already; what is left of it is to be cleared away.
    Lost,
}

/// What the driver does next.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a step that is not taken stops the database"]
pub enum Step<W> {
    /// Nothing: the writer is idle, or busy.
    Rest,
    /// Nobody waits, but somebody may come with more: call [`GroupCommit::tick`] at this time at the latest.
    Linger {
        /// When the group takes no more.
        until_ms: u64,
    },
    /// Wake the waiter: it is the writer until [`GroupCommit::end`].
    Grant {
        /// Its request.
        ticket: Ticket,
        /// As given to [`GroupCommit::request`].
        waiter: W,
        /// The group that its transaction will be in.
        group: u64,
        /// Nothing has been written in this group: the outer transaction is to be begun.
        first: bool,
    },
    /// Bring the group to its end, tell who rests on it, then call [`GroupCommit::flushed`].
    Flush {
        /// The group.
        group: u64,
        /// How.
        flush: Flush,
    },
}

/// What the writer is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Running(Ticket),
    Flushing,
}

/// The group that transactions join.
#[derive(Clone, Copy, Debug, Default)]
struct Open {
    opened_ms: u64,
    ended_count: u32,
    committed_count: u32,
}

/// The queue in front of the writer of one database. `W` is whatever wakes a waiter.
#[derive(Debug)]
pub struct GroupCommit<W> {
    limits: GroupLimits,
    waiting: VecDeque<(Ticket, W)>,
    ticket_next: u64,
    phase: Phase,
    group: u64,
    /// Time of the grant that may open the group.
    granted_ms: u64,
    /// None as long as no transaction of the current group has ended.
    open: Option<Open>,
    /// How many may come with more.
    holds_count: u32,
}

impl<W> GroupCommit<W> {
    /// An idle writer; its first group is number 1.
    pub fn new(limits: GroupLimits) -> Self {
        Self { limits, waiting: VecDeque::new(), ticket_next: 1, phase: Phase::Idle, group: 1, granted_ms: 0, open: None, holds_count: 0 }
    }

    /// Queues up for the writer. Granted at once where it is idle.
    pub fn request(&mut self, now_ms: u64, waiter: W) -> (Ticket, Step<W>) {
        let ticket = Ticket(self.ticket_next);
        self.ticket_next += 1;
        self.waiting.push_back((ticket, waiter));
        let step = match self.open {
            _ if self.phase != Phase::Idle => Step::Rest,
            Some(open) if self.is_old(open, now_ms) => self.flush_open(open),
            _ => self.grant_next(now_ms),
        };
        (ticket, step)
    }

    /// Takes a request back. None if it no longer waits: if it [holds](Self::holds) the writer, the turn must be ended.
    pub fn cancel(&mut self, ticket: Ticket) -> Option<W> {
        // Tickets grow, and the queue is in their order.
        let index = self.waiting.binary_search_by_key(&ticket, |(waiting, _)| *waiting).ok()?;
        self.waiting.remove(index).map(|(_, waiter)| waiter)
    }

    /// Takes all waiting requests back, in their order.
    pub fn cancel_all(&mut self) -> Vec<W> {
        self.waiting.drain(..).map(|(_, waiter)| waiter).collect()
    }

    /// The writer's turn is over.
    pub fn end(&mut self, now_ms: u64, ending: Ending) -> Step<W> {
        debug_assert!(matches!(self.phase, Phase::Running(_)), "a turn ended that nobody had");
        if !matches!(self.phase, Phase::Running(_)) {
            return Step::Rest;
        }
        match ending {
            Ending::NeverBegan => {}
            Ending::Lost => return self.flush(Flush::Lost),
            Ending::Committed | Ending::RolledBack => {
                let open = self.open.get_or_insert(Open { opened_ms: self.granted_ms, ..Open::default() });
                open.ended_count += 1;
                open.committed_count += u32::from(ending == Ending::Committed);
            }
        }
        let Some(open) = self.open else { return self.grant_next(now_ms) };
        let full = open.ended_count >= self.limits.transactions_max.max(1);
        if full || self.is_old(open, now_ms) {
            return self.flush_open(open);
        }
        if !self.waiting.is_empty() {
            return self.grant_next(now_ms);
        }
        if self.holds_count > 0 && open.committed_count > 0 {
            self.phase = Phase::Idle;
            return Step::Linger { until_ms: open.opened_ms.saturating_add(self.limits.age_ms_max) };
        }
        self.flush_open(open)
    }

    /// Somebody may come with more soon: a group is not flushed only because nobody waits.
    pub fn hold(&mut self) {
        self.holds_count += 1;
    }

    /// What [`GroupCommit::hold`] said holds no longer.
    pub fn unhold(&mut self, now_ms: u64) -> Step<W> {
        self.holds_count = self.holds_count.saturating_sub(1);
        self.tick(now_ms)
    }

    /// Looks again at a group that lingers.
    pub fn tick(&mut self, now_ms: u64) -> Step<W> {
        match self.open {
            Some(open) if self.phase == Phase::Idle => {
                if self.holds_count == 0 || self.is_old(open, now_ms) {
                    self.flush_open(open)
                } else {
                    Step::Rest
                }
            }
            _ => Step::Rest,
        }
    }

    fn is_old(&self, open: Open, now_ms: u64) -> bool {
        now_ms.saturating_sub(open.opened_ms) >= self.limits.age_ms_max
    }

    fn flush_open(&mut self, open: Open) -> Step<W> {
        self.flush(if open.committed_count > 0 { Flush::Commit } else { Flush::Nothing })
    }

    /// The flush asked for is done, well or badly, and all who rest on the group know.
    pub fn flushed(&mut self, now_ms: u64) -> Step<W> {
        debug_assert_eq!(self.phase, Phase::Flushing, "a flush ended that nobody asked for");
        if self.phase != Phase::Flushing {
            return Step::Rest;
        }
        self.group += 1;
        self.open = None;
        self.grant_next(now_ms)
    }

    /// The number of the group that transactions join, or that is being flushed.
    pub fn group(&self) -> u64 {
        self.group
    }

    /// Whether the request has been granted and its turn is not over.
    pub fn holds(&self, ticket: Ticket) -> bool {
        self.phase == Phase::Running(ticket)
    }

    /// Whether there is no writer, no waiter, and no group that is not settled.
    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Idle && self.open.is_none()
    }

    /// Requests that wait.
    pub fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    fn grant_next(&mut self, now_ms: u64) -> Step<W> {
        let Some((ticket, waiter)) = self.waiting.pop_front() else {
            self.phase = Phase::Idle;
            return Step::Rest;
        };
        self.phase = Phase::Running(ticket);
        let first = self.open.is_none();
        if first {
            self.granted_ms = now_ms;
        }
        Step::Grant { ticket, waiter, group: self.group, first }
    }

    fn flush(&mut self, flush: Flush) -> Step<W> {
        self.phase = Phase::Flushing;
        Step::Flush { group: self.group, flush }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: GroupLimits = GroupLimits { transactions_max: 3, age_ms_max: 10 };

    #[test]
    fn those_who_come_during_a_flush_share_the_next() {
        let mut machine = GroupCommit::new(LIMITS);
        let (a, step) = machine.request(0, 'a');
        assert_eq!(step, Step::Grant { ticket: a, waiter: 'a', group: 1, first: true });
        assert_eq!(machine.end(0, Ending::Committed), Step::Flush { group: 1, flush: Flush::Commit });
        let (b, step) = machine.request(1, 'b');
        assert_eq!(step, Step::Rest);
        let (c, _) = machine.request(1, 'c');
        assert_eq!(machine.flushed(2), Step::Grant { ticket: b, waiter: 'b', group: 2, first: true });
        assert_eq!(machine.end(2, Ending::RolledBack), Step::Grant { ticket: c, waiter: 'c', group: 2, first: false });
        assert_eq!(machine.end(2, Ending::Committed), Step::Flush { group: 2, flush: Flush::Commit });
        assert_eq!(machine.flushed(3), Step::Rest);
        assert!(machine.is_idle());
    }

    #[test]
    fn a_group_lingers_for_somebody_who_may_come_with_more() {
        let mut machine = GroupCommit::new(LIMITS);
        machine.hold();
        let _ = machine.request(0, 'a');
        assert_eq!(machine.end(1, Ending::Committed), Step::Linger { until_ms: 10 });
        assert!(!machine.is_idle());
        let (b, step) = machine.request(2, 'b');
        assert_eq!(step, Step::Grant { ticket: b, waiter: 'b', group: 1, first: false });
        assert_eq!(machine.end(3, Ending::Committed), Step::Linger { until_ms: 10 });
        assert_eq!(machine.tick(9), Step::Rest);
        assert_eq!(machine.unhold(9), Step::Flush { group: 1, flush: Flush::Commit });
        assert_eq!(machine.flushed(10), Step::Rest);
        assert!(machine.is_idle());
    }

    #[test]
    fn a_hold_does_not_keep_a_group_open_for_ever() {
        let mut machine = GroupCommit::new(LIMITS);
        machine.hold();
        let _ = machine.request(0, 'a');
        assert_eq!(machine.end(1, Ending::Committed), Step::Linger { until_ms: 10 });
        assert_eq!(machine.tick(10), Step::Flush { group: 1, flush: Flush::Commit });
        assert_eq!(machine.unhold(10), Step::Rest);
    }

    #[test]
    fn an_old_group_takes_no_more() {
        let mut machine = GroupCommit::new(LIMITS);
        let _ = machine.request(0, 'a');
        let _ = machine.request(0, 'b');
        assert_eq!(machine.end(10, Ending::Committed), Step::Flush { group: 1, flush: Flush::Commit });
    }

    #[test]
    fn only_rolled_back_needs_no_sync() {
        let mut machine = GroupCommit::new(LIMITS);
        let _ = machine.request(0, 'a');
        assert_eq!(machine.end(0, Ending::RolledBack), Step::Flush { group: 1, flush: Flush::Nothing });
    }

    #[test]
    fn who_never_began_opens_no_group() {
        let mut machine = GroupCommit::new(LIMITS);
        let _ = machine.request(0, 'a');
        let (b, _) = machine.request(0, 'b');
        assert_eq!(machine.end(0, Ending::NeverBegan), Step::Grant { ticket: b, waiter: 'b', group: 1, first: true });
        assert_eq!(machine.end(0, Ending::NeverBegan), Step::Rest);
        assert!(machine.is_idle());
        assert_eq!(machine.group(), 1);
    }

    #[test]
    fn who_gave_up_is_skipped() {
        let mut machine = GroupCommit::new(LIMITS);
        let (a, _) = machine.request(0, 'a');
        let (b, _) = machine.request(0, 'b');
        let (c, _) = machine.request(0, 'c');
        assert_eq!(machine.cancel(b), Some('b'));
        assert_eq!(machine.cancel(a), None, "a runs");
        assert!(machine.holds(a));
        assert_eq!(machine.end(0, Ending::Committed), Step::Grant { ticket: c, waiter: 'c', group: 1, first: false });
    }

    #[derive(Clone, Debug)]
    enum Event {
        Request,
        Cancel(prop::sample::Index),
        End(Ending),
        Flushed,
        Pass(u64),
        Hold,
        Unhold,
        Tick,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => Just(Event::Request),
            1 => any::<prop::sample::Index>().prop_map(Event::Cancel),
            4 => prop_oneof![
                4 => Just(Ending::Committed),
                2 => Just(Ending::RolledBack),
                1 => Just(Ending::NeverBegan),
                1 => Just(Ending::Lost),
            ].prop_map(Event::End),
            3 => Just(Event::Flushed),
            1 => (0u64..8).prop_map(Event::Pass),
            1 => Just(Event::Hold),
            1 => Just(Event::Unhold),
            1 => Just(Event::Tick),
        ]
    }

    /// What a bystander sees of the machine, kept as plain lists.
    #[derive(Default)]
    struct Witness {
        now_ms: u64,
        waiting: Vec<(Ticket, u32)>,
        running: Option<u64>,
        flushing: Option<u64>,
        settled: Vec<u64>,
        group_endings: Vec<Ending>,
        group_opened_ms: u64,
        holds_count: u32,
    }

    impl Witness {
        fn see(&mut self, step: Step<u32>) -> Result<(), TestCaseError> {
            match step {
                Step::Rest => {
                    let busy = self.running.is_some() || self.flushing.is_some();
                    prop_assert!(busy || self.waiting.is_empty(), "idle although somebody waits");
                    prop_assert!(busy || self.group_endings.is_empty() || self.holds_count > 0, "idle although a group is open");
                }
                Step::Linger { until_ms } => {
                    prop_assert!(self.running.is_none() && self.flushing.is_none() && self.waiting.is_empty());
                    prop_assert!(self.holds_count > 0 && self.group_endings.contains(&Ending::Committed));
                    prop_assert_eq!(until_ms, self.group_opened_ms + LIMITS.age_ms_max);
                }
                Step::Grant { ticket, waiter, group, first } => {
                    prop_assert_eq!(self.running, None, "two writers");
                    prop_assert_eq!(self.flushing, None, "a writer during a flush");
                    prop_assert_eq!(self.waiting.remove(0), (ticket, waiter), "not the one who waited longest");
                    prop_assert_eq!(first, self.group_endings.is_empty());
                    prop_assert_eq!(group, self.settled.len() as u64 + 1);
                    if first {
                        self.group_opened_ms = self.now_ms;
                    } else {
                        prop_assert!(self.group_endings.len() < LIMITS.transactions_max as usize);
                        prop_assert!(self.now_ms - self.group_opened_ms < LIMITS.age_ms_max);
                    }
                    self.running = Some(group);
                }
                Step::Flush { group, flush } => {
                    prop_assert_eq!(self.flushing, None, "two flushes");
                    prop_assert_eq!(group, self.settled.len() as u64 + 1, "out of order, or twice");
                    let expected = if self.group_endings.contains(&Ending::Lost) {
                        Flush::Lost
                    } else if self.group_endings.contains(&Ending::Committed) {
                        Flush::Commit
                    } else {
                        Flush::Nothing
                    };
                    prop_assert_eq!(flush, expected);
                    self.flushing = Some(group);
                }
            }
            Ok(())
        }
    }

    fn play(machine: &mut GroupCommit<u32>, witness: &mut Witness, event: &Event, waiter: u32) -> Result<(), TestCaseError> {
        match event {
            Event::Request => {
                let (ticket, step) = machine.request(witness.now_ms, waiter);
                witness.waiting.push((ticket, waiter));
                witness.see(step)?;
            }
            Event::Cancel(_) if witness.waiting.is_empty() => {}
            Event::Cancel(index) => {
                let (ticket, waiter) = witness.waiting.remove(index.index(witness.waiting.len()));
                prop_assert_eq!(machine.cancel(ticket), Some(waiter));
                prop_assert_eq!(machine.cancel(ticket), None);
            }
            Event::End(ending) => {
                if witness.running.take().is_some() {
                    if *ending != Ending::NeverBegan {
                        witness.group_endings.push(*ending);
                    }
                    let step = machine.end(witness.now_ms, *ending);
                    witness.see(step)?;
                }
            }
            Event::Flushed => {
                if let Some(group) = witness.flushing.take() {
                    witness.settled.push(group);
                    witness.group_endings.clear();
                    let step = machine.flushed(witness.now_ms);
                    witness.see(step)?;
                }
            }
            Event::Pass(milliseconds) => witness.now_ms += milliseconds,
            Event::Hold => {
                witness.holds_count += 1;
                machine.hold();
            }
            Event::Unhold if witness.holds_count == 0 => {}
            Event::Unhold => {
                witness.holds_count -= 1;
                let step = machine.unhold(witness.now_ms);
                witness.see(step)?;
            }
            Event::Tick => {
                let step = machine.tick(witness.now_ms);
                witness.see(step)?;
            }
        }
        prop_assert_eq!(machine.waiting_count(), witness.waiting.len());
        let open = !witness.group_endings.is_empty();
        prop_assert_eq!(machine.is_idle(), witness.running.is_none() && witness.flushing.is_none() && !open);
        Ok(())
    }

    proptest! {
        #[test]
        fn any_history_keeps_the_promises(events in prop::collection::vec(event(), 0..200)) {
            let mut machine = GroupCommit::new(LIMITS);
            let mut witness = Witness::default();
            for (waiter, event) in (0..).zip(&events) {
                play(&mut machine, &mut witness, event, waiter)?;
            }
            while witness.holds_count > 0 {
                play(&mut machine, &mut witness, &Event::Unhold, 0)?;
            }
            // Nobody starves: with no more than three steps per waiter left all have had their turn.
            for _ in 0..=witness.waiting.len() {
                play(&mut machine, &mut witness, &Event::End(Ending::Committed), 0)?;
                play(&mut machine, &mut witness, &Event::Flushed, 0)?;
            }
            prop_assert!(witness.waiting.is_empty());
            prop_assert!(machine.is_idle());
        }
    }
}
