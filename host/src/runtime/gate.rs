//! The output gate: nothing that a call lets out leaves before the transactions it rests on are durable, and what
//! leaves does so in commit order. A state machine without IO.
//!
//! * A call is [`Gate::open`]ed, perhaps in a *lane* (its connection): what the calls of a lane let out leaves in the
//!   order in which they were opened.
//! * Each transaction that ends in it takes a *place* in the order of its database ([`Gate::ended`]), rolled back or
//!   not: even a refusal rests on what it saw.
//! * [`Gate::finish`] hands over the call's effects, one bundle per place; [`Gate::fail`] drops them.
//! * [`Gate::settled`] says what became of a group. [`Gate::release`] gives what may leave now.
//!
//! Why it cannot lock up: a bundle waits for places taken, and for lane neighbours opened, before it; whether a call
//! finishes never depends on the gate.

use std::collections::{BTreeSet, HashMap, VecDeque};

/// A call that passes the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(u64);

/// What [`Gate::release`] gives, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Release<E> {
    /// These effects of a call may leave; `last` if nothing more comes of it.
    Effects {
        /// The call.
        call: CallId,
        /// In the order in which the call made them.
        effects: Vec<E>,
        /// Nothing more comes of this call.
        last: bool,
    },
    /// A group that the call rests on is lost, or a call before it in its lane is: nothing (more) of it may leave.
    Lost {
        /// The call.
        call: CallId,
        /// Its lane.
        lane: Option<u64>,
    },
}

/// The effects of a call between two of its transactions, with the place that they leave at.
#[derive(Debug)]
struct Bundle<E> {
    place: Option<Place>,
    effects: Vec<E>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    database: String,
    group: u64,
}

#[derive(Debug)]
enum State<E> {
    Running,
    /// Bundles still to be released, first first.
    Finished(VecDeque<Bundle<E>>),
}

#[derive(Debug)]
struct Call<E> {
    lane: Option<u64>,
    places: Vec<Place>,
    state: State<E>,
}

#[derive(Debug, Default)]
struct DatabaseOrder {
    /// Who has a place, in commit order.
    queue: VecDeque<CallId>,
    /// Groups up to and including this one are settled.
    settled: u64,
    /// Groups that were lost, as long as somebody may ask.
    lost: BTreeSet<u64>,
}

#[derive(Debug, Default)]
struct Lane {
    calls: VecDeque<CallId>,
    /// The first call that was lost: nothing later of this lane may leave. What is earlier and durable still does.
    lost: Option<CallId>,
    closed: bool,
}

/// The gate of one mount. `E` is an effect.
#[derive(Debug)]
pub struct Gate<E> {
    next_call: u64,
    calls: HashMap<CallId, Call<E>>,
    databases: HashMap<String, DatabaseOrder>,
    lanes: HashMap<u64, Lane>,
    /// Calls that may have become releasable.
    candidates: VecDeque<CallId>,
}

impl<E> Default for Gate<E> {
    fn default() -> Self {
        Self { next_call: 0, calls: HashMap::new(), databases: HashMap::new(), lanes: HashMap::new(), candidates: VecDeque::new() }
    }
}

impl<E> Gate<E> {
    /// A call begins.
    pub fn open(&mut self, lane: Option<u64>) -> CallId {
        let call = CallId(self.next_call);
        self.next_call += 1;
        if let Some(lane) = lane {
            self.lanes.entry(lane).or_default().calls.push_back(call);
        }
        self.calls.insert(call, Call { lane, places: Vec::new(), state: State::Running });
        call
    }

    /// A transaction of the call ended in a group. To be called in commit order.
    pub fn ended(&mut self, call: CallId, database: &str, group: u64) {
        let Some(entry) = self.calls.get_mut(&call) else { return };
        entry.places.push(Place { database: database.to_owned(), group });
        self.databases.entry(database.to_owned()).or_default().queue.push_back(call);
    }

    /// Calls that have not passed yet.
    pub fn calls_count(&self) -> usize {
        self.calls.len()
    }

    /// How many places a call has: the bundle that it is filling.
    pub fn places(&self, call: CallId) -> usize {
        self.calls.get(&call).map_or(0, |call| call.places.len())
    }

    /// The newest group of a database that this call or an earlier one of its lane rests on and that is not settled.
    pub fn unsettled(&self, call: CallId, database: &str) -> Option<u64> {
        let settled = self.databases.get(database).map_or(0, |order| order.settled);
        self.with_predecessors(call)
            .flat_map(|call| call.places.iter())
            .filter(|place| place.database == database && place.group > settled)
            .map(|place| place.group)
            .max()
    }

    /// Database and group of each place of a call.
    pub fn places_of(&self, call: CallId) -> Vec<(String, u64)> {
        let places = self.calls.get(&call).map(|call| call.places.as_slice()).unwrap_or_default();
        places.iter().map(|place| (place.database.clone(), place.group)).collect()
    }

    /// Whether a group is settled.
    pub fn is_settled(&self, database: &str, group: u64) -> bool {
        self.databases.get(database).is_some_and(|order| order.settled >= group)
    }

    /// Whether something that this call rests on is lost already, so that going on is in vain.
    pub fn is_lost(&self, call: CallId) -> bool {
        self.is_behind_lost(call) || self.with_predecessors(call).any(|call| self.rests_on_lost(call))
    }

    /// The call is over. `bundles[i]` are the effects that belong to place `i`; where the call has no place there is one bundle.
    pub fn finish(&mut self, call: CallId, bundles: Vec<Vec<E>>) {
        let Some(entry) = self.calls.get_mut(&call) else { return };
        let mut places: Vec<Option<Place>> = entry.places.iter().cloned().map(Some).collect();
        if places.is_empty() {
            places.push(None);
        }
        let mut bundles = bundles;
        // Anything beyond the places leaves with the last of them.
        while bundles.len() > places.len() {
            let rest = bundles.pop().unwrap_or_default();
            if let Some(last) = bundles.last_mut() {
                last.extend(rest);
            }
        }
        bundles.resize_with(places.len(), Vec::new);
        entry.state = State::Finished(places.into_iter().zip(bundles).map(|(place, effects)| Bundle { place, effects }).collect());
        self.candidates.push_back(call);
    }

    /// The call failed: nothing of it leaves.
    pub fn fail(&mut self, call: CallId) {
        self.forget(call);
    }

    /// A group became durable or was lost. To be called in the order of groups.
    pub fn settled(&mut self, database: &str, group: u64, durable: bool) {
        let order = self.databases.entry(database.to_owned()).or_default();
        order.settled = group;
        if !durable {
            order.lost.insert(group);
        }
        self.candidates.extend(order.queue.front());
        if !durable {
            // Who rests on it is let go now, not only when it reaches the head.
            self.candidates.extend(order.queue.iter());
        }
    }

    /// The lane is over (its connection is gone). What is in it already still leaves: others wait for it.
    pub fn close_lane(&mut self, lane: u64) {
        if let Some(entry) = self.lanes.get_mut(&lane) {
            entry.closed = true;
            if entry.calls.is_empty() {
                self.lanes.remove(&lane);
            }
        }
    }

    /// The next thing that may leave; none where everything left has to wait.
    pub fn release(&mut self) -> Option<Release<E>> {
        while let Some(&call) = self.candidates.front() {
            match self.try_release(call) {
                Some(release) => return Some(release),
                None => {
                    self.candidates.pop_front();
                }
            }
        }
        None
    }

    /// How many calls are in the gate, running ones included.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether no call is in the gate.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    fn try_release(&mut self, call: CallId) -> Option<Release<E>> {
        let entry = self.calls.get(&call)?;
        let State::Finished(bundles) = &entry.state else { return None };
        let place = bundles.front().and_then(|bundle| bundle.place.clone());
        // What is durable of a call leaves, though a later transaction of it is lost: others must not miss it.
        let lost = place.as_ref().is_some_and(|place| self.is_lost_place(place));
        if lost || self.is_behind_lost(call) {
            let lane = entry.lane;
            if let Some(lane) = lane.and_then(|lane| self.lanes.get_mut(&lane)) {
                lane.lost = Some(lane.lost.map_or(call, |first| first.min(call)));
            }
            self.forget(call);
            return Some(Release::Lost { call, lane });
        }
        if self.lane_of(call).is_some_and(|lane| lane.calls.front() != Some(&call)) {
            return None;
        }
        if let Some(Place { database, group }) = place {
            let order = self.databases.get_mut(&database)?;
            if order.queue.front() != Some(&call) || group > order.settled {
                return None;
            }
            order.queue.pop_front();
            self.candidates.extend(order.queue.front());
        }
        let State::Finished(bundles) = &mut self.calls.get_mut(&call)?.state else { return None };
        let effects = bundles.pop_front().map(|bundle| bundle.effects).unwrap_or_default();
        let last = bundles.is_empty();
        if last {
            self.forget(call);
        }
        Some(Release::Effects { call, effects, last })
    }

    fn lane_of(&self, call: CallId) -> Option<&Lane> {
        self.lanes.get(&self.calls.get(&call)?.lane?)
    }

    /// Whether an earlier call of its lane was lost.
    fn is_behind_lost(&self, call: CallId) -> bool {
        self.lane_of(call).and_then(|lane| lane.lost).is_some_and(|first| first < call)
    }

    fn rests_on_lost(&self, call: &Call<E>) -> bool {
        call.places.iter().any(|place| self.is_lost_place(place))
    }

    fn is_lost_place(&self, place: &Place) -> bool {
        self.databases.get(&place.database).is_some_and(|order| order.lost.contains(&place.group))
    }

    /// The call and those before it in its lane.
    fn with_predecessors(&self, call: CallId) -> impl Iterator<Item = &Call<E>> {
        let lane = self.calls.get(&call).and_then(|entry| entry.lane).and_then(|lane| self.lanes.get(&lane));
        let before = lane.into_iter().flat_map(|lane| lane.calls.iter().copied()).filter(move |other| *other < call);
        before.chain([call]).filter_map(|id| self.calls.get(&id))
    }

    /// Takes the call out of every queue; its neighbours may go on.
    fn forget(&mut self, call: CallId) {
        let Some(entry) = self.calls.remove(&call) else { return };
        for place in &entry.places {
            let Some(order) = self.databases.get_mut(&place.database) else { continue };
            order.queue.retain(|other| *other != call);
            self.candidates.extend(order.queue.front());
            if order.queue.is_empty() {
                order.lost.clear();
            }
        }
        if let Some((id, lane)) = entry.lane.and_then(|id| self.lanes.get_mut(&id).map(|lane| (id, lane))) {
            lane.calls.retain(|other| *other != call);
            self.candidates.extend(lane.calls.front());
            if lane.calls.is_empty() && (lane.closed || lane.lost.is_none()) {
                self.lanes.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drain(gate: &mut Gate<&'static str>) -> Vec<String> {
        let mut out = Vec::new();
        while let Some(release) = gate.release() {
            match release {
                Release::Effects { effects, .. } => out.extend(effects.into_iter().map(str::to_owned)),
                Release::Lost { .. } => out.push("lost".into()),
            }
        }
        out
    }

    #[test]
    fn effects_wait_for_their_group() {
        let mut gate = Gate::default();
        let call = gate.open(None);
        gate.ended(call, "d", 1);
        gate.finish(call, vec![vec!["saved"]]);
        assert!(drain(&mut gate).is_empty());
        gate.settled("d", 1, true);
        assert_eq!(drain(&mut gate), ["saved"]);
        assert!(gate.is_empty());
    }

    #[test]
    fn effects_without_a_transaction_leave_at_once() {
        let mut gate = Gate::default();
        let call = gate.open(Some(7));
        gate.finish(call, vec![vec!["hello"]]);
        assert_eq!(drain(&mut gate), ["hello"]);
    }

    #[test]
    fn a_lost_group_takes_its_calls_and_the_rest_of_their_lane_but_nobody_else() {
        let mut gate = Gate::default();
        let (lost, behind, other) = (gate.open(Some(1)), gate.open(Some(1)), gate.open(Some(2)));
        gate.ended(lost, "d", 1);
        gate.finish(lost, vec![vec!["saved"]]);
        gate.finish(behind, vec![vec!["relay"]]);
        gate.ended(other, "d", 2);
        gate.finish(other, vec![vec!["other"]]);
        gate.settled("d", 1, false);
        assert_eq!(drain(&mut gate), ["lost", "lost"]);
        gate.settled("d", 2, true);
        assert_eq!(drain(&mut gate), ["other"]);
    }

    /// The simulator found it: a durable update was never broadcast, which leaves a hole in the clocks of its author.
    #[test]
    fn a_lost_call_does_not_take_along_what_its_lane_made_durable_before() {
        let mut gate = Gate::default();
        let (other, durable, lost) = (gate.open(Some(2)), gate.open(Some(1)), gate.open(Some(1)));
        gate.ended(other, "d", 1);
        gate.ended(durable, "d", 1);
        gate.ended(lost, "d", 2);
        gate.finish(durable, vec![vec!["broadcast"]]);
        gate.finish(lost, vec![vec!["lost broadcast"]]);
        gate.settled("d", 1, true);
        assert!(drain(&mut gate).is_empty(), "a call before them is not over yet");
        gate.settled("d", 2, false);
        assert_eq!(drain(&mut gate), ["lost"]);
        gate.finish(other, vec![vec!["other"]]);
        assert_eq!(drain(&mut gate), ["other", "broadcast"]);
    }

    #[test]
    fn a_refusal_leaves_behind_the_broadcast_that_it_rests_on() {
        let mut gate = Gate::default();
        let (winner, loser) = (gate.open(Some(1)), gate.open(Some(2)));
        gate.ended(winner, "d", 1);
        gate.ended(loser, "d", 1);
        gate.finish(loser, vec![vec!["refused"]]);
        gate.settled("d", 1, true);
        assert!(drain(&mut gate).is_empty(), "the winner's call is not over yet");
        gate.finish(winner, vec![vec!["broadcast"]]);
        assert_eq!(drain(&mut gate), ["broadcast", "refused"]);
    }

    #[test]
    fn two_transactions_of_one_call_leave_at_their_own_places() {
        let mut gate = Gate::default();
        let (first, second) = (gate.open(Some(1)), gate.open(Some(2)));
        gate.ended(first, "d", 1);
        gate.ended(second, "d", 1);
        gate.ended(first, "d", 1);
        gate.finish(second, vec![vec!["2"]]);
        gate.finish(first, vec![vec!["1"], vec!["3"]]);
        gate.settled("d", 1, true);
        assert_eq!(drain(&mut gate), ["1", "2", "3"]);
    }

    #[test]
    fn what_is_durable_of_a_call_leaves_though_its_next_transaction_is_lost() {
        let mut gate = Gate::default();
        let call = gate.open(Some(1));
        gate.ended(call, "d", 1);
        gate.ended(call, "d", 2);
        gate.finish(call, vec![vec!["broadcast"], vec!["lost broadcast"], vec!["replies"]]);
        gate.settled("d", 1, true);
        assert_eq!(drain(&mut gate), ["broadcast"]);
        gate.settled("d", 2, false);
        assert_eq!(drain(&mut gate), ["lost"]);
        assert!(gate.is_empty());
    }

    #[test]
    fn a_failed_call_does_not_hold_up_the_others() {
        let mut gate = Gate::default();
        let (failed, next) = (gate.open(None), gate.open(None));
        gate.ended(failed, "d", 1);
        gate.ended(next, "d", 1);
        gate.finish(next, vec![vec!["next"]]);
        gate.settled("d", 1, true);
        gate.fail(failed);
        assert_eq!(drain(&mut gate), ["next"]);
    }

    #[test]
    fn a_call_knows_which_groups_its_lane_rests_on() {
        let mut gate = Gate::<()>::default();
        let first = gate.open(Some(1));
        gate.ended(first, "d", 4);
        let second = gate.open(Some(1));
        assert_eq!(gate.unsettled(second, "d"), Some(4));
        gate.settled("d", 4, false);
        assert_eq!(gate.unsettled(second, "d"), None);
        assert!(gate.is_lost(second));
    }

    /// A call that runs: itself, its lane, and its places (order, group).
    type OpenCall = (CallId, u64, Vec<(u64, u64)>);

    /// One step of a random run: which call or lane, and what happens.
    #[derive(Clone, Debug)]
    enum Step {
        Open(u8),
        End(u8),
        Finish(u8),
        Fail(u8),
        Settle(bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            any::<u8>().prop_map(Step::Open),
            any::<u8>().prop_map(Step::End),
            any::<u8>().prop_map(Step::Finish),
            any::<u8>().prop_map(Step::Fail),
            prop::bool::weighted(0.8).prop_map(Step::Settle),
        ]
    }

    proptest! {
        /// Whatever happens: nothing that rests on an unsettled or lost group leaves, order holds, nothing stays behind.
        #[test]
        fn nothing_leaves_early_out_of_order_or_never(steps in prop::collection::vec(step(), 1..200)) {
            let mut gate = Gate::<(CallId, u64, u64)>::default();
            let (mut open, mut group, mut lost) = (Vec::<OpenCall>::new(), 1u64, BTreeSet::new());
            let (mut order, mut left, mut lane_left) = (0u64, Vec::new(), HashMap::<u64, CallId>::new());
            let finish = |gate: &mut Gate<_>, open: &mut Vec<OpenCall>, index: usize| {
                let (call, _, places) = open.swap_remove(index);
                gate.finish(call, places.iter().map(|(order, group)| vec![(call, *order, *group)]).collect());
            };
            let check = |gate: &mut Gate<_>, settled: u64, lost: &BTreeSet<u64>, left: &mut Vec<u64>| -> Result<(), TestCaseError> {
                while let Some(release) = gate.release() {
                    if let Release::Effects { effects, .. } = release {
                        for (_, order, group) in effects {
                            prop_assert!(group <= settled && !lost.contains(&group));
                            prop_assert!(left.last().is_none_or(|last| *last < order));
                            left.push(order);
                        }
                    }
                }
                Ok(())
            };
            for step in steps {
                match step {
                    Step::Open(lane) => {
                        let lane = u64::from(lane % 4);
                        // As on a connection: one call runs at a time.
                        if !open.iter().any(|(_, other, _)| *other == lane) {
                            let call = gate.open(Some(lane));
                            lane_left.insert(lane, call);
                            open.push((call, lane, Vec::new()));
                        }
                    }
                    Step::End(which) if !open.is_empty() => {
                        let index = usize::from(which) % open.len();
                        order += 1;
                        open[index].2.push((order, group));
                        gate.ended(open[index].0, "d", group);
                    }
                    Step::Finish(which) if !open.is_empty() => {
                        let index = usize::from(which) % open.len();
                        finish(&mut gate, &mut open, index);
                    }
                    Step::Fail(which) if !open.is_empty() => {
                        let index = usize::from(which) % open.len();
                        gate.fail(open.swap_remove(index).0);
                    }
                    Step::Settle(durable) => {
                        if !durable {
                            lost.insert(group);
                        }
                        gate.settled("d", group, durable);
                        group += 1;
                    }
                    _ => {}
                }
                check(&mut gate, group - 1, &lost, &mut left)?;
            }
            while !open.is_empty() {
                finish(&mut gate, &mut open, 0);
            }
            gate.settled("d", group, true);
            check(&mut gate, group, &lost, &mut left)?;
            prop_assert!(gate.is_empty(), "left behind: {gate:?}");
        }
    }
}
