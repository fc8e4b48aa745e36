//! The queues of one connection: inputs on their way to the component, frames on their way to the client, and
//! publications that wait while a call runs. A state machine without IO or clock.
//!
//! Order (`wit/handler.wit`, `live.outcome`): when the effects of a call are released, publications that waited for it
//! go out *before* its frames, unless they arrived on a subscription that this very call made or their order key is
//! among its cut-offs with a greater sequence: those follow its frames. Covered ones are dropped.
//!
//! A publication waits for the next release at most, even if other calls are under way then: so the loser of a race sees
//! the winner's broadcast before its refusal however much it sent meanwhile, and a client that keeps sending does not
//! starve itself. Only what arrived on a subscription that a call just made waits for that very call.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

/// A WebSocket message, shared between all that get the same one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// UTF-8 text.
    Text(Bytes),
    /// Bytes.
    Binary(Bytes),
}

impl Frame {
    /// Payload bytes.
    pub fn len(&self) -> usize {
        match self {
            Frame::Text(bytes) | Frame::Binary(bytes) => bytes.len(),
        }
    }

    /// Whether the payload is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// How a connection is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// The close code; 1005 for a close frame without one.
    pub code: u16,
    /// The reason, up to 123 bytes.
    pub reason: String,
}

/// What may be left out or merged when a reader cannot keep up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Class {
    /// Never left out.
    MustDeliver,
    /// Left out first, oldest first.
    Droppable,
    /// Replaces one with the same topic and key that still waits.
    Latest(String),
}

/// Frames of a publication that the component is still encoding.
pub type Slot = Arc<OnceLock<Filled>>;

/// What the component made of a publication for one subscriber.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filled {
    /// Frames, in order.
    pub frames: Vec<Frame>,
    /// Closes once they are sent.
    pub close: Option<Close>,
}

impl Filled {
    /// Payload bytes.
    pub fn len(&self) -> usize {
        self.frames.iter().map(Frame::len).sum()
    }

    /// Whether there is nothing to be sent.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}

/// What a subscriber is to get.
#[derive(Clone, Debug)]
pub enum Payload {
    /// One frame.
    Frame(Frame),
    /// Whatever the slot is filled with.
    Slot(Slot),
    /// Nothing: the publication only closes.
    Nothing,
}

impl Payload {
    /// Bytes; of a slot, those that it is filled with.
    fn len(&self) -> usize {
        match self {
            Payload::Frame(frame) => frame.len(),
            Payload::Slot(slot) => slot.get().map_or(0, Filled::len),
            Payload::Nothing => 0,
        }
    }
}

/// A publication on its way to this connection.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Its topic.
    pub topic: String,
    /// Order key and sequence.
    pub order: Option<(String, u64)>,
    /// Its class.
    pub class: Class,
    /// Its content.
    pub payload: Payload,
    /// Closes the connection once the payload is sent.
    pub close: Option<Close>,
}

/// The released part of a call's outcome.
#[derive(Clone, Debug, Default)]
pub struct Released {
    /// Frames, in order.
    pub send: Vec<Frame>,
    /// Cut-offs.
    pub seen: Vec<(String, u64)>,
    /// Close after the frames.
    pub close: Option<Close>,
    /// Ask for `drained` once most is taken.
    pub pace: bool,
    /// Publications wait until [`ConnectionQueue::end_quiet`].
    pub quiet: bool,
}

/// Limits of a connection's queues.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// Bytes of publications that may wait for the client; beyond so many of its own answers the host stops reading.
    pub queue_bytes: usize,
    /// Bytes of inputs that may wait for the component; beyond them the host stops reading.
    pub inbox_bytes: usize,
    /// Calls of one connection that may wait at the output gate.
    pub calls_in_gate: usize,
}

/// Inputs that may wait for the component, however small.
const INBOX_INPUTS_MAX: usize = 1024;

#[derive(Debug)]
struct Outgoing {
    payload: Payload,
    class: Class,
    topic: Option<String>,
    counted: bool,
}

/// The queues of one connection. `I` is an input for the component.
#[derive(Debug)]
pub struct ConnectionQueue<I> {
    limits: QueueLimits,
    inbox: VecDeque<(I, usize)>,
    inbox_bytes: usize,
    /// A call runs right now.
    running: bool,
    /// Inputs are put off until `resume`.
    deferred: bool,
    calls_started: u64,
    /// Calls whose effects are not released yet, in order; the pause after an answer (`quiet`) counts as one.
    outstanding: VecDeque<u64>,
    /// The pause under way.
    quiet: Option<u64>,
    held: VecDeque<Arrival>,
    outbox: VecDeque<Outgoing>,
    /// Bytes in the outbox that answer the connection's own calls: they bound reading, not the queue.
    own_bytes: usize,
    /// Bytes of publications in `held` and `outbox`; a slot counts from when it is filled.
    publication_bytes: usize,
    /// Topics subscribed by a call that is not released yet.
    fresh_topics: HashMap<String, u64>,
    /// Per key what a released frame covered already, until something newer arrives: the publication of a commit may
    /// come after a frame that has read it.
    covered: HashMap<String, u64>,
    close: Option<Close>,
    pace: bool,
    /// The client is gone: nothing more is sent, but what it sent is still handled.
    gone: bool,
    /// The process stops: nothing more is read.
    draining: bool,
}

impl<I> ConnectionQueue<I> {
    /// Empty queues; inputs wait until the first call (the upgrade) is over.
    pub fn new(limits: QueueLimits) -> Self {
        Self {
            limits,
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            running: false,
            deferred: false,
            calls_started: 0,
            outstanding: VecDeque::new(),
            quiet: None,
            held: VecDeque::new(),
            outbox: VecDeque::new(),
            own_bytes: 0,
            publication_bytes: 0,
            fresh_topics: HashMap::new(),
            covered: HashMap::new(),
            close: None,
            pace: false,
            gone: false,
            draining: false,
        }
    }

    /// An input arrived (a frame of so many bytes, an alarm …).
    pub fn push_input(&mut self, input: I, bytes: usize) {
        if self.close.is_none() && !self.gone {
            self.inbox_bytes += bytes;
            self.inbox.push_back((input, bytes));
        }
    }

    /// Whether the host should go on reading from the socket.
    pub fn wants_input(&self) -> bool {
        let room = self.inbox_bytes <= self.limits.inbox_bytes && self.inbox.len() < INBOX_INPUTS_MAX;
        room && self.close.is_none() && !self.draining && self.own_bytes <= self.limits.queue_bytes
    }

    /// Reads no more: what was received is still handled and answered.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// The client is gone. What it sent before is still handled, since others wait for it; nothing is sent any more.
    pub fn disconnected(&mut self) {
        self.gone = true;
        self.clear_outgoing();
    }

    /// Starts a call without inputs: the upgrade.
    pub fn start_call(&mut self) -> u64 {
        self.running = true;
        self.next_call()
    }

    fn next_call(&mut self) -> u64 {
        self.calls_started += 1;
        self.outstanding.push_back(self.calls_started);
        self.calls_started
    }

    /// Starts a call with the inputs that wait, up to so many of them; none while another runs or nothing waits.
    pub fn start_receive(&mut self, inputs_max: usize) -> Option<(u64, Vec<I>)> {
        let gate_is_full = self.outstanding.len() >= self.limits.calls_in_gate;
        if self.running || self.deferred || self.close.is_some() || self.inbox.is_empty() || gate_is_full {
            return None;
        }
        let count = inputs_max.clamp(1, self.inbox.len());
        let inputs = self
            .inbox
            .drain(..count)
            .map(|(input, bytes)| {
                self.inbox_bytes -= bytes;
                input
            })
            .collect();
        Some((self.start_call(), inputs))
    }

    /// The running call is over; its effects may still wait at the gate. `put_off` go back to the head of the inbox
    /// and wait for [`ConnectionQueue::resume`].
    pub fn end_call(&mut self, put_off: Vec<(I, usize)>) {
        self.running = false;
        if !put_off.is_empty() {
            self.deferred = true;
            for (input, bytes) in put_off.into_iter().rev() {
                self.inbox_bytes += bytes;
                self.inbox.push_front((input, bytes));
            }
        }
    }

    /// Inputs that were put off may go on.
    pub fn resume(&mut self) {
        self.deferred = false;
    }

    /// A subscription was made by the running call.
    pub fn subscribed(&mut self, topic: &str) {
        if !self.outstanding.is_empty() {
            self.fresh_topics.insert(topic.to_owned(), self.calls_started);
        }
    }

    /// The effects of a call are released.
    pub fn release(&mut self, call: u64, released: Released) {
        self.outstanding.retain(|other| *other != call);
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for arrival in std::mem::take(&mut self.held) {
            let order = arrival.order.as_ref();
            let cut_off = order.and_then(|(key, _)| released.seen.iter().find(|(seen, _)| seen == key));
            let made_by = self.fresh_topics.get(&arrival.topic);
            if cut_off.is_some_and(|(_, through)| order.is_some_and(|(_, sequence)| sequence <= through)) {
                self.publication_bytes = self.publication_bytes.saturating_sub(arrival.payload.len());
            } else if made_by.is_some_and(|made_by| *made_by != call) {
                self.held.push_back(arrival);
            } else if cut_off.is_some() || made_by.is_some() {
                after.push(arrival);
            } else {
                before.push(arrival);
            }
        }
        for (key, through) in &released.seen {
            let covered = self.covered.entry(key.clone()).or_default();
            *covered = (*covered).max(*through);
        }
        for arrival in before {
            self.send_arrival(arrival);
        }
        for frame in released.send {
            if !self.gone {
                self.own_bytes += frame.len();
                self.outbox.push_back(Outgoing { payload: Payload::Frame(frame), class: Class::MustDeliver, topic: None, counted: false });
            }
        }
        self.pace |= released.pace;
        if released.close.is_some() {
            self.close_after_queue(released.close);
            return;
        }
        if released.quiet && !self.gone {
            let pause = self.next_call();
            self.quiet = Some(pause);
            self.fresh_topics.values_mut().filter(|made_by| **made_by == call).for_each(|made_by| *made_by = pause);
            after.into_iter().rev().for_each(|arrival| self.held.push_front(arrival));
        } else {
            self.fresh_topics.retain(|_, made_by| *made_by != call);
            after.into_iter().for_each(|arrival| self.send_arrival(arrival));
        }
    }

    /// Ends the pause after an answer: it is over, or the client has spoken.
    pub fn end_quiet(&mut self) {
        if let Some(pause) = self.quiet.take() {
            self.release(pause, Released::default());
        }
    }

    /// A subscription ended: what waits for it is dropped.
    pub fn unsubscribed(&mut self, topic: &str) {
        let bytes = &mut self.publication_bytes;
        self.held.retain(|held| {
            let drop = held.topic == topic;
            *bytes = bytes.saturating_sub(if drop { held.payload.len() } else { 0 });
            !drop
        });
        self.outbox.retain(|outgoing| {
            let drop = outgoing.topic.as_deref() == Some(topic);
            *bytes = bytes.saturating_sub(if drop { outgoing.payload.len() } else { 0 });
            !drop
        });
        self.fresh_topics.remove(topic);
    }

    /// A publication arrives. Whether it keeps up: false asks the host to close the connection as slow.
    pub fn publish(&mut self, arrival: Arrival) -> bool {
        if self.close.is_some() || self.gone {
            return true;
        }
        if let Some((key, sequence)) = &arrival.order
            && let Some(covered) = self.covered.get(key)
        {
            if sequence <= covered {
                return true;
            }
            // They come in order: nothing that was covered follows.
            self.covered.remove(key);
        }
        self.publication_bytes += arrival.payload.len();
        if !self.outstanding.is_empty() {
            if let Class::Latest(_) = arrival.class {
                let bytes = &mut self.publication_bytes;
                self.held.retain(|held| {
                    let replaced = held.topic == arrival.topic && held.class == arrival.class;
                    *bytes = bytes.saturating_sub(if replaced { held.payload.len() } else { 0 });
                    !replaced
                });
            }
            self.held.push_back(arrival);
        } else {
            self.send_arrival(arrival);
        }
        self.keeps_up()
    }

    /// A frame from outside any call (a direct `send`).
    pub fn send(&mut self, frame: Frame) -> bool {
        if self.close.is_none() && !self.gone {
            self.publication_bytes += frame.len();
            self.outbox.push_back(Outgoing { payload: Payload::Frame(frame), class: Class::MustDeliver, topic: None, counted: true });
        }
        self.keeps_up()
    }

    /// A slot was filled with so many bytes. Whether the client keeps up, as [`ConnectionQueue::publish`].
    pub fn slot_filled(&mut self, bytes: usize) -> bool {
        if self.close.is_none() && !self.gone {
            self.publication_bytes += bytes;
        }
        self.keeps_up()
    }

    /// Whether the client keeps up. Makes room by leaving out what may be left out.
    fn keeps_up(&mut self) -> bool {
        let limit = self.limits.queue_bytes;
        if self.publication_bytes > limit / 2 {
            // A pause is no reason to be slow.
            self.end_quiet();
        }
        if self.publication_bytes > limit {
            let bytes = &mut self.publication_bytes;
            self.held.retain(|held| {
                let leave_out = *bytes > limit && held.class == Class::Droppable;
                *bytes = bytes.saturating_sub(if leave_out { held.payload.len() } else { 0 });
                !leave_out
            });
            self.outbox.retain(|outgoing| {
                let leave_out = *bytes > limit && outgoing.class == Class::Droppable;
                *bytes = bytes.saturating_sub(if leave_out { outgoing.payload.len() } else { 0 });
                !leave_out
            });
        }
        self.publication_bytes <= limit
    }

    /// Closes once everything queued so far is sent; what arrives later is dropped. The first close wins.
    pub fn close_after_queue(&mut self, close: Option<Close>) {
        if self.close.is_none() {
            self.close = close;
            self.inbox.clear();
            self.inbox_bytes = 0;
            self.held.clear();
        }
    }

    /// Closes without sending what is queued: the client catches up by its protocol.
    pub fn close_now(&mut self, close: Close) {
        self.clear_outgoing();
        self.close = None;
        self.close_after_queue(Some(close));
    }

    /// Frames to be written now, up to about so many bytes (at least one, if there is one).
    pub fn take_frames(&mut self, bytes_max: usize) -> Vec<Frame> {
        let (mut frames, mut bytes) = (Vec::new(), 0);
        while bytes < bytes_max {
            match self.outbox.front().map(|outgoing| &outgoing.payload) {
                None => break,
                Some(Payload::Slot(slot)) if slot.get().is_none() => break,
                Some(_) => {}
            }
            let Some(outgoing) = self.outbox.pop_front() else { break };
            let waiting = if outgoing.counted { &mut self.publication_bytes } else { &mut self.own_bytes };
            *waiting = waiting.saturating_sub(outgoing.payload.len());
            match outgoing.payload {
                Payload::Frame(frame) => {
                    bytes += frame.len();
                    frames.push(frame);
                }
                Payload::Slot(slot) => {
                    let filled = slot.get().cloned().unwrap_or_default();
                    bytes += filled.len();
                    frames.extend(filled.frames);
                    if filled.close.is_some() {
                        self.clear_outgoing();
                        self.close_after_queue(filled.close);
                    }
                }
                Payload::Nothing => {}
            }
        }
        frames
    }

    /// The close frame, once nothing is left to be sent before it.
    pub fn due_close(&self) -> Option<&Close> {
        if self.outbox.is_empty() { self.close.as_ref() } else { None }
    }

    /// Whether the connection is to be closed, now or after its queue.
    pub fn is_closing(&self) -> bool {
        self.close.is_some()
    }

    /// Whether nothing received is unanswered: no input waits, no call runs or waits at the gate.
    pub fn is_idle(&self) -> bool {
        self.inbox.is_empty() && !self.running && self.outstanding.iter().all(|call| Some(*call) == self.quiet)
    }

    /// Once after a paced outcome: most of what was sent has been taken.
    pub fn take_drained(&mut self) -> bool {
        let drained = self.pace && self.own_bytes + self.publication_bytes <= self.limits.queue_bytes / 4;
        if drained {
            self.pace = false;
        }
        drained
    }

    fn clear_outgoing(&mut self) {
        self.outbox.clear();
        self.held.clear();
        self.own_bytes = 0;
        self.publication_bytes = 0;
    }

    fn send_arrival(&mut self, arrival: Arrival) {
        if self.gone {
            return;
        }
        let Arrival { topic, class, payload, close, .. } = arrival;
        if let Class::Latest(_) = class {
            let bytes = &mut self.publication_bytes;
            self.outbox.retain(|outgoing| {
                let replaced = outgoing.topic.as_deref() == Some(&topic) && outgoing.class == class;
                *bytes = bytes.saturating_sub(if replaced { outgoing.payload.len() } else { 0 });
                !replaced
            });
        }
        self.outbox.push_back(Outgoing { payload, class, topic: Some(topic), counted: true });
        if close.is_some() {
            self.close_after_queue(close);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: QueueLimits = QueueLimits { queue_bytes: 10, inbox_bytes: 10, calls_in_gate: 2 };

    fn text(text: &'static str) -> Frame {
        Frame::Text(Bytes::from_static(text.as_bytes()))
    }

    fn arrival(topic: &str, sequence: Option<u64>, frame: &'static str) -> Arrival {
        Arrival {
            topic: topic.into(),
            order: sequence.map(|sequence| (topic.into(), sequence)),
            class: Class::MustDeliver,
            payload: Payload::Frame(text(frame)),
            close: None,
        }
    }

    fn taken(queue: &mut ConnectionQueue<u8>) -> Vec<String> {
        let name = |frame: Frame| match frame {
            Frame::Text(bytes) | Frame::Binary(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        };
        queue.take_frames(1000).into_iter().map(name).collect()
    }

    #[test]
    fn the_document_comes_first_and_what_it_contains_does_not_come_again() {
        let mut queue = ConnectionQueue::<u8>::new(LIMITS);
        let upgrade = queue.start_call();
        queue.subscribed("d");
        assert!(queue.publish(arrival("d", Some(1), "1")));
        assert!(queue.publish(arrival("d", None, "e")));
        assert!(queue.publish(arrival("d", Some(2), "2")));
        queue.end_call(Vec::new());
        queue.release(upgrade, Released { send: vec![text("document")], seen: vec![("d".into(), 1)], ..Released::default() });
        assert_eq!(taken(&mut queue), ["document", "e", "2"]);
    }

    #[test]
    fn a_publication_that_comes_after_the_frame_that_covers_it_is_dropped() {
        let mut queue = ConnectionQueue::<u8>::new(LIMITS);
        let upgrade = queue.start_call();
        queue.subscribed("d");
        queue.end_call(Vec::new());
        queue.release(upgrade, Released { send: vec![text("document")], seen: vec![("d".into(), 2)], ..Released::default() });
        for sequence in 1..=3 {
            assert!(queue.publish(arrival("d", Some(sequence), "p")));
        }
        assert_eq!(taken(&mut queue), ["document", "p"]);
        assert!(queue.covered.is_empty());
    }

    #[test]
    fn after_a_quiet_answer_publications_wait_until_the_pause_is_over() {
        let mut queue = ConnectionQueue::<u8>::new(LIMITS);
        let upgrade = queue.start_call();
        queue.subscribed("d");
        assert!(queue.publish(arrival("d", Some(1), "1")));
        queue.end_call(Vec::new());
        queue.push_input(0, 1);
        let (first, _) = queue.start_receive(1).unwrap();
        assert!(queue.publish(arrival("d", Some(2), "2")));
        queue.release(upgrade, Released { send: vec![text("document")], seen: vec![("d".into(), 0)], quiet: true, ..Released::default() });
        assert!(queue.publish(arrival("d", Some(3), "3")));
        queue.end_call(Vec::new());
        assert_eq!(taken(&mut queue), ["document"]);
        queue.release(first, Released { send: vec![text("reply")], ..Released::default() });
        assert_eq!(taken(&mut queue), ["reply"]);
        assert!(queue.is_idle());
        queue.end_quiet();
        queue.end_quiet();
        assert_eq!(taken(&mut queue), ["1", "2", "3"]);
    }

    #[test]
    fn a_broadcast_that_waited_comes_before_the_reply_that_rests_on_it() {
        let mut queue = ConnectionQueue::<u8>::new(LIMITS);
        queue.push_input(0, 1);
        let (call, inputs) = queue.start_receive(10).unwrap();
        assert_eq!(inputs, [0]);
        assert!(queue.publish(arrival("d", Some(5), "won")));
        queue.end_call(Vec::new());
        queue.release(call, Released { send: vec![text("lost")], ..Released::default() });
        assert_eq!(taken(&mut queue), ["won", "lost"]);
    }

    #[test]
    fn a_slot_may_close_after_its_frames() {
        let mut queue = ConnectionQueue::<u8>::new(LIMITS);
        let slot = Slot::default();
        assert!(queue.publish(Arrival { payload: Payload::Slot(slot.clone()), ..arrival("d", Some(1), "") }));
        assert!(queue.publish(arrival("d", Some(2), "2")));
        let close = Close { code: 1005, reason: String::new() };
        slot.set(Filled { frames: vec![text("last")], close: Some(close.clone()) }).unwrap();
        assert_eq!(taken(&mut queue), ["last"]);
        assert_eq!(queue.due_close(), Some(&close));
    }

    #[test]
    fn what_waits_for_a_subscription_goes_with_it() {
        let mut queue = ConnectionQueue::<u8>::new(LIMITS);
        assert!(queue.publish(arrival("d", Some(1), "1")) && queue.publish(arrival("e", Some(1), "2")));
        queue.unsubscribed("d");
        assert_eq!(taken(&mut queue), ["2"]);
    }

    #[test]
    fn a_broadcast_comes_before_the_reply_that_rests_on_it_also_when_the_next_call_runs() {
        let mut queue = ConnectionQueue::<u8>::new(LIMITS);
        queue.push_input(0, 1);
        let (first, _) = queue.start_receive(1).unwrap();
        queue.end_call(Vec::new());
        queue.push_input(1, 1);
        queue.start_receive(1).unwrap();
        assert!(queue.publish(arrival("d", Some(5), "won")));
        queue.release(first, Released { send: vec![text("lost")], ..Released::default() });
        assert_eq!(taken(&mut queue), ["won", "lost"]);
    }

    #[test]
    fn a_publication_does_not_wait_for_calls_that_began_after_it() {
        let mut queue = ConnectionQueue::<u8>::new(LIMITS);
        queue.push_input(0, 1);
        let (first, _) = queue.start_receive(1).unwrap();
        assert!(queue.publish(arrival("d", Some(5), "p")));
        queue.end_call(Vec::new());
        queue.push_input(1, 1);
        let (second, _) = queue.start_receive(1).unwrap();
        queue.release(first, Released::default());
        assert_eq!(taken(&mut queue), ["p"]);
        queue.release(second, Released::default());
        assert!(queue.is_idle() || queue.start_receive(1).is_none());
    }

    #[test]
    fn only_so_many_calls_wait_at_the_gate() {
        let mut queue = ConnectionQueue::<u8>::new(LIMITS);
        for input in 0..3 {
            queue.push_input(input, 1);
        }
        let (first, _) = queue.start_receive(1).unwrap();
        queue.end_call(Vec::new());
        queue.start_receive(1).unwrap();
        queue.end_call(Vec::new());
        assert!(queue.start_receive(1).is_none());
        queue.release(first, Released::default());
        assert!(queue.start_receive(1).is_some());
    }

    #[test]
    fn a_slow_reader_loses_droppable_frames_first_and_is_then_closed() {
        let mut queue = ConnectionQueue::<u8>::new(LIMITS);
        assert!(queue.publish(Arrival { class: Class::Droppable, ..arrival("d", None, "presence") }));
        assert!(queue.publish(arrival("d", Some(1), "update")));
        assert_eq!(taken(&mut queue), ["update"]);
        assert!(queue.publish(arrival("d", Some(2), "update")));
        assert!(!queue.publish(arrival("d", Some(3), "update")));
    }

    #[test]
    fn the_newest_of_a_kind_replaces_the_one_that_waits() {
        let mut queue = ConnectionQueue::<u8>::new(LIMITS);
        let poke = |frame| Arrival { class: Class::Latest("k".into()), ..arrival("d", None, frame) };
        assert!(queue.publish(poke("1")) && queue.publish(arrival("d", None, "x")) && queue.publish(poke("2")));
        assert_eq!(taken(&mut queue), ["x", "2"]);
    }

    #[test]
    fn an_unfilled_slot_holds_back_what_is_behind_it() {
        let mut queue = ConnectionQueue::<u8>::new(LIMITS);
        let slot = Slot::default();
        assert!(queue.publish(Arrival { payload: Payload::Slot(slot.clone()), ..arrival("d", Some(1), "") }));
        assert!(queue.publish(arrival("d", Some(2), "2")));
        assert!(taken(&mut queue).is_empty());
        slot.set(Filled { frames: vec![text("1")], close: None }).unwrap();
        assert_eq!(taken(&mut queue), ["1", "2"]);
    }

    #[test]
    fn a_close_follows_the_frames_and_ends_the_reading() {
        let mut queue = ConnectionQueue::<u8>::new(LIMITS);
        queue.push_input(0, 1);
        let (call, _) = queue.start_receive(1).unwrap();
        queue.push_input(1, 1);
        queue.end_call(Vec::new());
        let close = Close { code: 1005, reason: String::new() };
        queue.release(call, Released { send: vec![text("unauthorized")], close: Some(close.clone()), ..Released::default() });
        assert!(queue.due_close().is_none() && !queue.wants_input());
        assert_eq!(taken(&mut queue), ["unauthorized"]);
        assert_eq!(queue.due_close(), Some(&close));
        assert!(queue.start_receive(1).is_none());
    }

    #[test]
    fn inputs_that_were_put_off_come_again_first() {
        let mut queue = ConnectionQueue::<u8>::new(LIMITS);
        for input in 0..3 {
            queue.push_input(input, 1);
        }
        let (_, inputs) = queue.start_receive(2).unwrap();
        assert_eq!(inputs, [0, 1]);
        queue.end_call(vec![(1, 1)]);
        assert!(queue.start_receive(2).is_none());
        queue.resume();
        assert_eq!(queue.start_receive(5).unwrap().1, [1, 2]);
    }
}
