//! A live connection: its queues, its attachment, and the calls that serve it one after the other.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::bindings::guest::exports::syncline::sync::{live, socket};
use super::bindings::guest::syncline::host::types;
use super::budget::{Budget, Charge};
use super::effect::Effect;
use super::instance::{Answer, Invocation};
use super::mount::MountCore;
use super::queue::{Arrival, Close, ConnectionQueue, Filled, Frame, Payload, QueueLimits, Released};

/// Calls of one connection that may wait at the gate: pipelining without end would only move the queue.
const CALLS_IN_GATE: usize = 64;
/// Inputs of one connection that wait before the host stops reading, in bytes.
const INBOX_BYTES: usize = 1 << 20;

/// What follows the frames of an outcome.
#[derive(Default)]
pub(crate) struct AfterRelease {
    pub(crate) alarm: Option<live::Alarm>,
    pub(crate) tasks: Vec<Vec<u8>>,
    pub(crate) cursors: Vec<(String, u64)>,
    pub(crate) quiet_ms: Option<u64>,
}

/// What became of frames for a quiet connection.
pub(crate) enum Given {
    /// They are in the queue.
    Taken {
        /// Whether the reader keeps up.
        keeps_up: bool,
    },
    /// The connection is not quiet, or has too much to take already.
    Refused,
    /// Nobody waits for them any more.
    Gone,
}

/// A connection of a mount.
pub(crate) struct Connection {
    pub(crate) id: u64,
    /// Where a client made it; a request has none.
    path: OnceLock<Box<str>>,
    mount: Weak<MountCore>,
    inner: Mutex<Inner>,
    /// Something changed that the socket's task must see.
    wake: Notify,
    /// A call was released: whoever waits for the connection to become idle looks again.
    progress: Notify,
    /// The first `receive` has returned without closing: the larger frame limit holds.
    received: AtomicBool,
    /// It is a request that waits for a publication.
    parked: AtomicBool,
    /// Bytes that the socket's task holds.
    socket_bytes: AtomicUsize,
}

struct Inner {
    queue: ConnectionQueue<socket::Input>,
    /// What the inputs that wait take of the mount's budget.
    inbox: Charge,
    attachment: Vec<u8>,
    alarm: Option<RunningAlarm>,
    /// Tasks that run.
    tasks: u32,
    /// Tasks that wait for others to end.
    tasks_waiting: VecDeque<Vec<u8>>,
}

/// The alarm, while it runs.
struct RunningAlarm {
    due: Instant,
    task: AbortHandle,
}

impl Connection {
    pub(crate) fn new(id: u64, mount: &Arc<MountCore>) -> Arc<Self> {
        let limits = QueueLimits {
            queue_bytes: usize::try_from(mount.plan().queue_bytes).unwrap_or(usize::MAX),
            inbox_bytes: INBOX_BYTES,
            calls_in_gate: CALLS_IN_GATE,
        };
        Arc::new(Self {
            id,
            path: OnceLock::new(),
            mount: Arc::downgrade(mount),
            inner: Mutex::new(Inner {
                queue: ConnectionQueue::new(limits),
                inbox: mount.budget.charge(0),
                attachment: Vec::new(),
                alarm: None,
                tasks: 0,
                tasks_waiting: VecDeque::new(),
            }),
            wake: Notify::new(),
            progress: Notify::new(),
            received: AtomicBool::new(false),
            parked: AtomicBool::new(false),
            socket_bytes: AtomicUsize::new(0),
        })
    }

    // What the socket's task needs.

    /// Waits until something changed.
    pub(crate) async fn changed(&self) {
        self.wake.notified().await;
    }

    /// Waits until a call was released.
    pub(crate) async fn progress(&self) {
        self.progress.notified().await;
    }

    /// Whether the socket should be read.
    pub(crate) fn wants_input(&self) -> bool {
        let inner = self.inner.lock();
        inner.queue.wants_input() && inner.tasks_waiting.is_empty()
    }

    /// The socket's task holds so many bytes itself: of a message that is not complete, and of frames on their way out.
    pub(crate) fn set_socket_bytes(&self, bytes: usize) {
        self.socket_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Bytes that the socket's task holds.
    pub(crate) fn socket_bytes(&self) -> usize {
        self.socket_bytes.load(Ordering::Relaxed)
    }

    /// Bytes that wait for this connection, in its queues and at its socket.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.inner.lock().queue.total_bytes() + self.socket_bytes()
    }

    /// Whether the larger frame limit holds.
    pub(crate) fn has_received(&self) -> bool {
        self.received.load(Ordering::Relaxed)
    }

    /// A message of the client.
    pub(crate) fn push_frame(self: &Arc<Self>, frame: types::Frame) {
        if let types::Frame::Text(text) = &frame
            && let Some(answer) = self.mount.upgrade().and_then(|mount| mount.auto_reply(text))
        {
            let mut inner = self.inner.lock();
            inner.queue.end_quiet();
            inner.queue.reply(answer);
            drop(inner);
            self.wake.notify_one();
            return;
        }
        let input = socket::Input::Frame(frame);
        let bytes = input_bytes(&input);
        self.inner.lock().queue.end_quiet();
        self.push(input, bytes);
        self.wake.notify_one();
    }

    /// Frames to be written now.
    pub(crate) fn take_frames(self: &Arc<Self>, bytes_max: usize) -> Vec<Frame> {
        let (frames, drained) = {
            let mut inner = self.inner.lock();
            (inner.queue.take_frames(bytes_max), inner.queue.take_drained())
        };
        if drained {
            self.push(socket::Input::Drained, 0);
        }
        frames
    }

    /// The close frame, once everything before it is written.
    pub(crate) fn due_close(&self) -> Option<Close> {
        self.inner.lock().queue.due_close().cloned()
    }

    /// Whether the connection is to be closed.
    pub(crate) fn is_closing(&self) -> bool {
        self.inner.lock().queue.is_closing()
    }

    /// Closes once what is queued has been sent.
    pub(crate) fn close_after_queue(&self, close: Close) {
        self.inner.lock().with_inbox(|queue| queue.close_after_queue(Some(close)));
        self.wake.notify_one();
    }

    /// Closes at once.
    pub(crate) fn close_now(&self, close: Close) {
        self.inner.lock().with_inbox(|queue| queue.close_now(close));
        self.wake.notify_one();
    }

    /// Reads no more, answers what was received.
    pub(crate) fn drain(&self) {
        self.inner.lock().queue.drain();
        self.wake.notify_one();
    }

    /// Whether nothing received is unanswered.
    pub(crate) fn is_idle(&self) -> bool {
        self.inner.lock().queue.is_idle()
    }

    /// Whether something received is being handled, or will be.
    pub(crate) fn is_at_work(&self) -> bool {
        self.inner.lock().queue.is_at_work()
    }

    /// The client is gone.
    pub(crate) fn disconnected(&self) {
        let mut inner = self.inner.lock();
        inner.queue.disconnected();
        if let Some(alarm) = inner.alarm.take() {
            alarm.task.abort();
        }
    }

    // What the mount needs.

    /// The connection as a call gets it.
    pub(crate) fn as_called(&self, mount: &MountCore) -> live::Connection {
        let attachment = self.inner.lock().attachment.clone();
        live::Connection { id: self.id, attachment, cursors: mount.cursors(self.id), failure: None }
    }

    /// Where a client made it.
    pub(crate) fn path(&self) -> Option<&str> {
        self.path.get().map(|path| &**path)
    }

    /// A client makes it at a path.
    pub(crate) fn made_at(&self, path: &str) {
        // There is one upgrade only.
        let _ = self.path.set(path.into());
    }

    /// The call begins that makes the connection.
    pub(crate) fn start_upgrade(&self) {
        self.inner.lock().queue.start_call();
    }

    /// The number of the call that runs.
    pub(crate) fn running_call(&self) -> u64 {
        self.inner.lock().queue.running_call()
    }

    /// A request waits from now on for something to be published: what it is does not matter.
    pub(crate) fn park(&self) {
        self.parked.store(true, Ordering::Relaxed);
    }

    /// Whether something was published since.
    pub(crate) fn has_outgoing(&self) -> bool {
        self.inner.lock().queue.has_outgoing()
    }

    /// The request goes on: what was published is there to be read.
    pub(crate) fn unpark(&self) {
        self.inner.lock().queue.start_resume();
        self.parked.store(false, Ordering::Relaxed);
    }

    /// A subscription was made.
    pub(crate) fn subscribed(&self, topic: &str) {
        self.inner.lock().queue.subscribed(topic);
    }

    /// The call that runs comes after the publications up to a position, and before later ones.
    pub(crate) fn placed(&self, through: u64) {
        self.inner.lock().queue.placed(through);
    }

    /// A subscription ended.
    pub(crate) fn unsubscribed(&self, topic: &str) {
        self.inner.lock().queue.unsubscribed(topic);
    }

    /// A publication arrives; a reader that cannot keep up is closed. Whether it keeps up.
    pub(crate) fn publish(&self, mut arrival: Arrival, slow: &Close) -> bool {
        if self.parked.load(Ordering::Relaxed) {
            arrival.payload = Payload::Nothing;
        }
        self.outgoing(slow, |queue| queue.publish(arrival))
    }

    /// A slot is filled; a reader that cannot keep up is closed. Whether it keeps up.
    pub(crate) fn fill(&self, slot: &Weak<OnceLock<Filled>>, filled: Filled, slow: &Close) -> bool {
        self.outgoing(slow, |queue| queue.fill(slot, filled))
    }

    /// The number of the last call, where none is under way.
    pub(crate) fn quiet_since(&self) -> Option<u64> {
        self.inner.lock().queue.quiet_since()
    }

    /// Fills a slot, if no call began since the one of that number, and if there is room; else with nothing.
    pub(crate) fn fill_if_quiet(&self, slot: &Weak<OnceLock<Filled>>, filled: Filled, quiet_since: Option<u64>, slow: &Close) -> Given {
        let mut given = Given::Gone;
        let keeps_up = self.outgoing(slow, |queue| {
            if slot.strong_count() == 0 {
                return true;
            }
            let takes = quiet_since.is_some() && queue.quiet_since() == quiet_since && queue.has_room_for(filled.len());
            given = if takes { Given::Taken { keeps_up: true } } else { Given::Refused };
            queue.fill(slot, if takes { filled } else { Filled::default() })
        });
        match given {
            Given::Taken { .. } => Given::Taken { keeps_up },
            other => other,
        }
    }

    /// A frame from outside any call. Whether the reader keeps up.
    pub(crate) fn send(&self, frame: Frame, slow: &Close) -> bool {
        self.outgoing(slow, |queue| queue.send(frame))
    }

    fn outgoing(&self, slow: &Close, add: impl FnOnce(&mut ConnectionQueue<socket::Input>) -> bool) -> bool {
        let mut inner = self.inner.lock();
        let keeps_up = add(&mut inner.queue);
        if !keeps_up {
            inner.with_inbox(|queue| queue.close_now(slow.clone()));
        }
        drop(inner);
        self.wake.notify_one();
        keeps_up
    }

    /// The effects of a call of this connection are released.
    pub(crate) fn release(self: &Arc<Self>, call: u64, released: Released, after: AfterRelease) {
        let read = released.seen.clone();
        self.inner.lock().with_inbox(|queue| queue.release(call, released));
        self.wake.notify_one();
        self.progress.notify_waiters();
        if let Some(mount) = self.mount.upgrade() {
            mount.released(self.id, call, &read);
            for (topic, cursor) in after.cursors {
                mount.set_cursor(self.id, &topic, cursor);
            }
            match after.alarm {
                None | Some(live::Alarm::Keep) => {}
                Some(live::Alarm::Stop) => self.set_alarm(None, &mount),
                Some(live::Alarm::AfterMs(delay_ms)) => self.set_alarm(Some(delay_ms), &mount),
            }
            if let Some(quiet_ms) = after.quiet_ms {
                self.end_quiet_later(quiet_ms, &mount);
            }
            self.inner.lock().tasks_waiting.extend(after.tasks);
            self.start_tasks(&mount);
        }
        self.drive();
    }

    /// Ends the call that made the connection.
    pub(crate) fn end_upgrade(self: &Arc<Self>, attachment: Option<Vec<u8>>) {
        let mut inner = self.inner.lock();
        if let Some(attachment) = attachment {
            inner.attachment = attachment;
        }
        inner.queue.end_call(Vec::new());
    }

    fn push(self: &Arc<Self>, input: socket::Input, bytes: usize) {
        self.inner.lock().with_inbox(|queue| queue.push_input(input, bytes));
        self.drive();
    }

    /// Serves what waits, if no call runs.
    pub(crate) fn drive(self: &Arc<Self>) {
        let Some(mount) = self.mount.upgrade() else { return };
        let next = self.next_inputs(&mount);
        if let Some((call, inputs)) = next {
            let connection = self.clone();
            mount.runtime.clone().spawn(async move {
                let mut next = Some((call, inputs));
                while let Some((call, inputs)) = next {
                    connection.receive(&mount, call, inputs).await;
                    next = connection.next_inputs(&mount);
                }
            });
        }
    }

    fn next_inputs(&self, mount: &MountCore) -> Option<(u64, Vec<socket::Input>)> {
        let inputs_max = mount.plan().inputs_per_call as usize;
        self.inner.lock().with_inbox(|queue| queue.start_receive(inputs_max))
    }

    async fn receive(self: &Arc<Self>, mount: &Arc<MountCore>, call: u64, inputs: Vec<socket::Input>) {
        let _handled = mount.budget.charge(inputs.iter().map(input_bytes).sum());
        let invocation = Invocation::Receive { connection: self.as_called(mount), inputs };
        match mount.run(&invocation, mount.call_deadline()).await {
            Ok(completed) => {
                let Answer::Outcome(mut outcome) = completed.answer else { return };
                let Invocation::Receive { inputs, .. } = invocation else { return };
                let (put_off, delay_ms) = put_off(&mut outcome, inputs);
                {
                    let mut inner = self.inner.lock();
                    if let Some(attachment) = outcome.attachment.take() {
                        inner.attachment = attachment;
                    }
                    inner.with_inbox(|queue| queue.end_call(put_off));
                }
                if let Some(delay_ms) = delay_ms {
                    self.resume_later(delay_ms, mount);
                }
                if outcome.close.is_none() {
                    self.received.store(true, Ordering::Relaxed);
                }
                let (released, after) = split(outcome, &mount.budget);
                let mut bundles = completed.bundles;
                bundles.push(vec![Effect::Outcome { connection: self.clone(), call, released, after }]);
                mount.finish(completed.call, bundles);
            }
            Err(_) => {
                self.inner.lock().queue.end_call(Vec::new());
                self.close_now(mount.closes().failed.clone());
                self.progress.notify_waiters();
            }
        }
    }

    /// Does something after a while, if the connection is still there.
    fn later(self: &Arc<Self>, delay_ms: u64, mount: &MountCore, act: impl FnOnce(Arc<Self>) + Send + 'static) -> AbortHandle {
        let connection = Arc::downgrade(self);
        let task = mount.runtime.spawn(async move {
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            if let Some(connection) = connection.upgrade() {
                act(connection);
            }
        });
        task.abort_handle()
    }

    /// Inputs that were put off come again after a while.
    fn resume_later(self: &Arc<Self>, delay_ms: u64, mount: &MountCore) {
        self.later(delay_ms, mount, |connection| {
            connection.inner.lock().queue.resume();
            connection.drive();
        });
    }

    fn set_alarm(self: &Arc<Self>, delay_ms: Option<u64>, mount: &Arc<MountCore>) {
        let alarm = delay_ms.map(|delay_ms| {
            let task = self.later(delay_ms, mount, |connection| {
                connection.inner.lock().alarm = None;
                connection.push(socket::Input::Wake, 0);
            });
            RunningAlarm { due: Instant::now() + Duration::from_millis(delay_ms), task }
        });
        if let Some(old) = std::mem::replace(&mut self.inner.lock().alarm, alarm) {
            old.task.abort();
        }
    }

    /// The alarm goes off no later than so long from now: it is started, or brought forward.
    pub(crate) fn alarm_within(self: &Arc<Self>, delay_ms: u64, mount: &Arc<MountCore>) {
        let due = Instant::now() + Duration::from_millis(delay_ms);
        // A short one may have gone off before it was noted here.
        let earlier = |alarm: &RunningAlarm| alarm.due <= due && !alarm.task.is_finished();
        if !self.inner.lock().alarm.as_ref().is_some_and(earlier) {
            self.set_alarm(Some(delay_ms), mount);
        }
    }

    fn end_quiet_later(self: &Arc<Self>, quiet_ms: u64, mount: &MountCore) {
        self.later(quiet_ms, mount, |connection| {
            connection.inner.lock().queue.end_quiet();
            connection.wake.notify_one();
        });
    }

    /// Starts tasks that wait, as many as may run at once.
    fn start_tasks(self: &Arc<Self>, mount: &Arc<MountCore>) {
        loop {
            let mut inner = self.inner.lock();
            if inner.tasks >= mount.plan().max_tasks.max(1) {
                return;
            }
            let Some(work) = inner.tasks_waiting.pop_front() else { return };
            inner.tasks += 1;
            drop(inner);
            self.start_task(work, mount);
        }
    }

    fn start_task(self: &Arc<Self>, work: Vec<u8>, mount: &Arc<MountCore>) {
        let (connection, mount) = (self.clone(), mount.clone());
        mount.runtime.clone().spawn(async move {
            let invocation = Invocation::Task { connection: connection.as_called(&mount), work };
            let deadline = mount.task_deadline();
            let input = match mount.run(&invocation, deadline).await {
                Ok(completed) => {
                    let Answer::Task(result) = completed.answer else { return };
                    match mount.finish_and_wait(completed.call, completed.bundles).await {
                        Ok(()) => socket::Input::TaskDone(result),
                        Err(error) => task_failed(invocation, error.failure()),
                    }
                }
                Err(error) => task_failed(invocation, error.failure()),
            };
            connection.inner.lock().tasks -= 1;
            connection.start_tasks(&mount);
            connection.push(input, 0);
            connection.wake.notify_one();
        });
    }
}

impl Inner {
    /// Does something with the inbox, and counts it again.
    fn with_inbox<T>(&mut self, act: impl FnOnce(&mut ConnectionQueue<socket::Input>) -> T) -> T {
        let done = act(&mut self.queue);
        self.inbox.resize(self.queue.inbox_bytes());
        done
    }
}

/// What an input weighs in the queue.
fn input_bytes(input: &socket::Input) -> usize {
    match input {
        socket::Input::Frame(types::Frame::Text(text)) => text.len(),
        socket::Input::Frame(types::Frame::Binary(bytes)) => bytes.len(),
        _ => 0,
    }
}

/// The inputs that the component did not handle, and how long they wait.
fn put_off(outcome: &mut live::Outcome, mut inputs: Vec<socket::Input>) -> (Vec<(socket::Input, usize)>, Option<u64>) {
    let Some((index, delay_ms)) = outcome.defer.take() else { return (Vec::new(), None) };
    let index = usize::try_from(index).unwrap_or(usize::MAX).min(inputs.len());
    let rest = inputs.split_off(index);
    let delay_ms = (!rest.is_empty()).then_some(delay_ms);
    let weighed = |input| {
        let bytes = input_bytes(&input);
        (input, bytes)
    };
    (rest.into_iter().map(weighed).collect(), delay_ms)
}

fn task_failed(invocation: Invocation, failure: live::Failure) -> socket::Input {
    let work = match invocation {
        Invocation::Task { work, .. } => work,
        _ => Vec::new(),
    };
    socket::Input::TaskFailed(socket::TaskFailure { work, failure })
}

/// The parts of an outcome: what leaves as frames, and what follows.
pub(crate) fn split(outcome: live::Outcome, budget: &Arc<Budget>) -> (Released, AfterRelease) {
    let released = Released {
        send: outcome.send.into_iter().map(|frame| budget.hold_frame(frame.into())).collect(),
        seen: outcome.seen,
        close: outcome.close.map(Close::from),
        pace: outcome.pace,
        quiet: outcome.quiet_ms.is_some(),
    };
    (released, AfterRelease { alarm: Some(outcome.alarm), tasks: outcome.tasks, cursors: outcome.cursors, quiet_ms: outcome.quiet_ms })
}

impl From<types::Frame> for Frame {
    fn from(frame: types::Frame) -> Self {
        match frame {
            types::Frame::Text(text) => Frame::Text(Bytes::from(text)),
            types::Frame::Binary(bytes) => Frame::Binary(Bytes::from(bytes)),
        }
    }
}

impl From<types::Close> for Close {
    fn from(close: types::Close) -> Self {
        Close { code: close.code, reason: close.reason }
    }
}
