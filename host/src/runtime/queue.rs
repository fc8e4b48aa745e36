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
//!
//! Behind a gateway a publication may overtake the answer to a call that was made before it. There both have their places in one
//! row: what has a later place than the call follows its frames, or waits for the next call.

mod pieces;

use std::collections::{HashMap, VecDeque};
use std::sync::{OnceLock, Weak};

pub use pieces::{Arrival, Class, Close, Filled, Frame, Heading, Payload, Released, Slot};

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

/// What is on its way to the client.
#[derive(Debug)]
enum Outgoing {
    /// An answer to the connection's own calls.
    Answer(Frame),
    /// A frame from outside any call.
    Sent(Frame),
    Published(Arrival),
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
    /// A call, and the position that its effects have among publications.
    placed: Option<(u64, u64)>,
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
            placed: None,
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

    /// Payload bytes of inputs that wait.
    pub fn inbox_bytes(&self) -> usize {
        self.inbox_bytes
    }

    /// Payload bytes of everything that waits, in both directions.
    pub fn total_bytes(&self) -> usize {
        self.inbox_bytes + self.own_bytes + self.publication_bytes
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

    /// The number of the call that runs.
    pub fn running_call(&self) -> u64 {
        self.calls_started
    }

    /// The number of the last call, where none runs or waits at the gate: whatever it let out is on its way.
    pub fn quiet_since(&self) -> Option<u64> {
        (!self.running && self.outstanding.is_empty()).then_some(self.calls_started)
    }

    /// Whether so many bytes can be added without the client falling behind: half of what may wait is left for what must be sent.
    pub fn has_room_for(&self, bytes: usize) -> bool {
        let waiting = self.own_bytes + self.publication_bytes;
        waiting == 0 || waiting + bytes <= self.limits.queue_bytes / 2
    }

    /// Starts a call that finds by itself what was published: what waits for the client is dropped.
    pub fn start_resume(&mut self) -> u64 {
        self.clear_outgoing();
        self.start_call()
    }

    /// Whether anything waits for the client.
    pub fn has_outgoing(&self) -> bool {
        !self.outbox.is_empty()
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

    /// The call that runs comes after what was published up to a position, and before what comes later.
    pub fn placed(&mut self, through: u64) {
        self.placed = Some((self.calls_started, through));
    }

    /// The effects of a call are released.
    pub fn release(&mut self, call: u64, released: Released) {
        self.outstanding.retain(|other| *other != call);
        let through = self.placed.take_if(|(placed, _)| *placed == call).map(|(_, through)| through);
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for arrival in std::mem::take(&mut self.held) {
            let order = arrival.heading.order.as_ref();
            let cut_off = order.and_then(|(key, _)| released.seen.iter().find(|(seen, _)| seen == key));
            let made_by = self.fresh_topics.get(&arrival.heading.topic);
            let is_later = arrival.heading.position.zip(through).is_some_and(|(position, through)| position > through);
            if cut_off.is_some_and(|(_, through)| order.is_some_and(|(_, sequence)| sequence <= through)) {
                self.publication_bytes -= arrival.payload.len();
            } else if made_by.is_some_and(|made_by| *made_by != call) || (is_later && !self.outstanding.is_empty()) {
                self.held.push_back(arrival);
            } else if cut_off.is_some() || made_by.is_some() || is_later {
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
            // Behind a close nothing follows: what stood before the answer may have been dropped.
            if !self.gone && self.close.is_none() {
                self.own_bytes += frame.len();
                self.outbox.push_back(Outgoing::Answer(frame));
            }
        }
        self.pace |= released.pace;
        if released.close.is_some() {
            self.publication_bytes -= after.iter().map(|arrival| arrival.payload.len()).sum::<usize>();
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
        self.leave_out(|arrival, _| arrival.heading.topic == topic);
        self.fresh_topics.remove(topic);
    }

    /// A publication arrives. Whether it keeps up: false asks the host to close the connection as slow.
    pub fn publish(&mut self, arrival: Arrival) -> bool {
        if self.close.is_some() || self.gone {
            return true;
        }
        if let Some((key, sequence)) = &arrival.heading.order
            && let Some(covered) = self.covered.get(key)
        {
            if sequence <= covered {
                return true;
            }
            // They come in order: nothing that was covered follows.
            self.covered.remove(key);
        }
        self.replaced_by(&arrival);
        self.publication_bytes += arrival.payload.len();
        if !self.outstanding.is_empty() {
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
            self.outbox.push_back(Outgoing::Sent(frame));
        }
        self.keeps_up()
    }

    /// An answer that needs no call.
    pub fn reply(&mut self, frame: Frame) {
        if self.close.is_none() && !self.gone {
            self.own_bytes += frame.len();
            self.outbox.push_back(Outgoing::Answer(frame));
        }
    }

    /// Fills a slot, if it still waits here. Whether the client keeps up, as [`ConnectionQueue::publish`].
    pub fn fill(&mut self, slot: &Weak<OnceLock<Filled>>, filled: Filled) -> bool {
        let bytes = filled.len();
        // A slot that was dropped with its publication is nobody's; each is filled once.
        if slot.upgrade().is_some_and(|slot| slot.set(filled).is_ok()) {
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
            self.leave_out(|arrival, waiting_bytes| waiting_bytes > limit && arrival.heading.class == Class::Droppable);
        }
        self.publication_bytes <= limit
    }

    /// Drops publications that wait, oldest first; `which` also gets the bytes of those that are left.
    fn leave_out(&mut self, mut which: impl FnMut(&Arrival, usize) -> bool) {
        let bytes = &mut self.publication_bytes;
        let mut keeps = |arrival: &Arrival| {
            let leave_out = which(arrival, *bytes);
            if leave_out {
                *bytes -= arrival.payload.len();
            }
            !leave_out
        };
        // What is in the outbox came before what is held.
        self.outbox.retain(|outgoing| !matches!(outgoing, Outgoing::Published(arrival) if !keeps(arrival)));
        self.held.retain(keeps);
    }

    /// Drops what a newer publication of its kind makes superfluous.
    fn replaced_by(&mut self, newer: &Arrival) {
        if let Class::Latest(_) = newer.heading.class {
            self.leave_out(|waiting, _| waiting.heading.topic == newer.heading.topic && waiting.heading.class == newer.heading.class);
        }
    }

    /// Closes once everything queued so far is sent; what arrives later is dropped. The first close wins.
    pub fn close_after_queue(&mut self, close: Option<Close>) {
        if self.close.is_none() {
            self.close = close;
            self.inbox.clear();
            self.inbox_bytes = 0;
            let held_bytes: usize = self.held.drain(..).map(|arrival| arrival.payload.len()).sum();
            self.publication_bytes -= held_bytes;
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
            match self.outbox.front() {
                None => break,
                Some(Outgoing::Published(Arrival { payload: Payload::Slot(slot), .. })) if slot.get().is_none() => break,
                Some(_) => {}
            }
            let Some(outgoing) = self.outbox.pop_front() else { break };
            let taken = self.taken(outgoing);
            bytes += taken.len();
            frames.extend(taken.frames);
            if taken.close.is_some() {
                self.clear_outgoing();
                self.close_after_queue(taken.close);
            }
        }
        frames
    }

    /// What has left the outbox, and is no longer counted.
    fn taken(&mut self, outgoing: Outgoing) -> Filled {
        let payload = match outgoing {
            Outgoing::Answer(frame) => {
                self.own_bytes -= frame.len();
                Payload::Frame(frame)
            }
            Outgoing::Sent(frame) => {
                self.publication_bytes -= frame.len();
                Payload::Frame(frame)
            }
            Outgoing::Published(arrival) => {
                self.publication_bytes -= arrival.payload.len();
                arrival.payload
            }
        };
        match payload {
            Payload::Frame(frame) => Filled { frames: vec![frame], close: None },
            Payload::Slot(slot) => slot.get().cloned().unwrap_or_default(),
            Payload::Nothing => Filled::default(),
        }
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

    /// Whether something received is being handled, or will be: a closed connection takes up nothing more.
    pub fn is_at_work(&self) -> bool {
        if self.is_closing() { self.running } else { !self.is_idle() }
    }

    /// Once after a paced outcome: most of what was sent has been taken.
    pub fn take_drained(&mut self) -> bool {
        let drained = self.pace && self.own_bytes + self.publication_bytes <= self.limits.queue_bytes / 4;
        if drained {
            self.pace = false;
        }
        drained
    }

    /// Bytes that wait here, in both directions.
    pub fn waiting_bytes(&self) -> usize {
        self.inbox_bytes + self.own_bytes + self.publication_bytes
    }

    /// As [`ConnectionQueue::waiting_bytes`], from what is there instead of from the counters.
    #[cfg(test)]
    fn waiting_bytes_counted_anew(&self) -> usize {
        let outgoing = |outgoing: &Outgoing| match outgoing {
            Outgoing::Answer(frame) | Outgoing::Sent(frame) => frame.len(),
            Outgoing::Published(arrival) => arrival.payload.len(),
        };
        self.inbox.iter().map(|(_, bytes)| bytes).sum::<usize>()
            + self.outbox.iter().map(outgoing).sum::<usize>()
            + self.held.iter().map(|arrival| arrival.payload.len()).sum::<usize>()
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
        if self.close.is_some() {
            self.publication_bytes -= arrival.payload.len();
            return;
        }
        self.replaced_by(&arrival);
        let close = arrival.heading.close.clone();
        self.outbox.push_back(Outgoing::Published(arrival));
        if close.is_some() {
            self.close_after_queue(close);
        }
    }
}

#[cfg(test)]
mod tests;
