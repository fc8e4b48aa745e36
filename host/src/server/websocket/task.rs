//! The task of one socket: moves messages between it and the connection's queues.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::socket::{End, Received, Socket};
use crate::runtime::queue::{Close, Frame};
use crate::runtime::wit_types::Frame as ComponentFrame;
use crate::runtime::{Connection, MountCore};
use crate::server::frames::{FrameError, Message, Outgoing};
use crate::server::limiter::Flow;
use crate::server::rate::Pace;

/// Bytes taken from the queue in one go: what the socket takes at once.
const WRITE_BYTES: usize = 64 << 10;
/// How long the peer may take to answer a close frame, and to go away after a protocol error.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Pings in a row that may stay unanswered.
const PONGS_MISSED_MAX: u32 = 2;

/// A frame of a queue as it goes out.
pub(super) fn outgoing(frame: Frame) -> Outgoing {
    match frame {
        Frame::Text(bytes) => Outgoing::Text(bytes),
        Frame::Binary(bytes) => Outgoing::Binary(bytes),
    }
}

/// Sends what the socket has and a close frame, and sees it off.
pub(super) async fn see_off(socket: Socket, close: &Close, broken: bool) {
    // 1005 stands for a close frame without a code.
    let frame = (close.code != 1005).then(|| (close.code, close.reason.clone()));
    socket.say_goodbye(frame, broken, CLOSE_TIMEOUT).await;
}

/// What happened on a socket.
enum Event {
    Received(Received),
    Written(std::io::Result<()>),
}

/// The task of one socket.
pub(super) struct SocketTask<'a> {
    socket: Socket,
    connection: Arc<Connection>,
    mount: &'a Arc<MountCore>,
    flow: Arc<Flow>,
    last_heard: Instant,
    next_ping: Option<Instant>,
    pongs_missed: u32,
    /// Of the message that has begun.
    pace: Option<Pace>,
}

/// Why the task goes on or not.
enum Next {
    GoOn,
    /// The socket is gone.
    Gone,
    /// The client closes.
    Answer(Option<u16>),
    /// The host closes, in order.
    Close(Close),
    /// The client broke a rule or went silent: it is closed without waiting for what it still sends.
    Abort(Close),
}

impl<'a> SocketTask<'a> {
    pub(super) fn new(socket: Socket, connection: Arc<Connection>, mount: &'a Arc<MountCore>, flow: Arc<Flow>) -> Self {
        let now = Instant::now();
        let next_ping = mount.plan().ping_ms.map(|ping_ms| now + Duration::from_millis(ping_ms));
        Self { socket, connection, mount, flow, last_heard: now, next_ping, pongs_missed: 0, pace: None }
    }

    /// Serves the socket until it is gone; the close code.
    pub(super) async fn run(mut self) -> u16 {
        let budget = &self.mount.budget;
        let mut held = budget.charge(0);
        // One timer, set anew only when it is due at another time: that costs more than a frame does.
        let mut sleep = pin!(sleep_until(Instant::now()));
        let mut sleep_end = None;
        loop {
            match poll_fn(|context| Poll::Ready(self.flush(context))).await {
                Poll::Pending => {}
                Poll::Ready(Err(_)) => return 1006,
                Poll::Ready(Ok(())) => {
                    if let Some(close) = self.connection.due_close() {
                        see_off(self.socket, &close, false).await;
                        return close.code;
                    }
                }
            }
            self.connection.set_socket_bytes(self.socket.held_bytes());
            held.resize(self.socket.uncounted_bytes());
            let throttle = self.flow.wait();
            let tight = budget.is_tight();
            let reading = throttle.is_zero() && !tight && self.connection.wants_input();
            let timer = self.next_timer(throttle, reading);
            if let Some(end) = timer.filter(|_| timer != sleep_end) {
                sleep.as_mut().reset(end);
            }
            sleep_end = timer;
            let connection = self.connection.clone();
            let next = tokio::select! {
                event = self.event(reading) => match event {
                    Event::Written(Ok(())) => Next::GoOn,
                    Event::Written(Err(_)) => Next::Gone,
                    Event::Received(received) => self.received(received),
                },
                () = connection.changed() => self.while_writing(),
                () = budget.roomy(), if tight => Next::GoOn,
                () = &mut sleep, if timer.is_some() => {
                    sleep_end = None;
                    self.timer(reading)
                }
            };
            match next {
                Next::GoOn => {}
                Next::Gone => return 1006,
                Next::Answer(code) => {
                    self.socket.answer_close(code, CLOSE_TIMEOUT).await;
                    return code.unwrap_or(1005);
                }
                Next::Close(close) => {
                    see_off(self.socket, &close, false).await;
                    return close.code;
                }
                Next::Abort(close) => {
                    see_off(self.socket, &close, true).await;
                    return close.code;
                }
            }
        }
    }

    /// Writes what there is, as much as the socket takes now.
    fn flush(&mut self, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        loop {
            if !self.socket.has_output() {
                self.take_frames();
                if !self.socket.has_output() {
                    return Poll::Ready(Ok(()));
                }
            }
            ready!(self.socket.poll_write(context))?;
        }
    }

    /// Waits for the socket: for bytes if `reading`, for the end of what is written if there is anything.
    async fn event(&mut self, reading: bool) -> Event {
        poll_fn(|context| {
            if self.socket.has_output()
                && let Poll::Ready(written) = self.socket.poll_write(context)
            {
                return Poll::Ready(Event::Written(written));
            }
            if reading {
                return self.socket.poll_read(context, self.message_bytes_max()).map(Event::Received);
            }
            Poll::Pending
        })
        .await
    }

    fn message_bytes_max(&self) -> u64 {
        if self.connection.has_received() { self.mount.plan().max_frame_bytes } else { self.mount.plan().max_frame_bytes_before_auth }
    }

    /// A reader that does not read is not waited for once it is to be closed.
    fn while_writing(&self) -> Next {
        match self.connection.due_close() {
            Some(close) if self.socket.has_output() => Next::Close(close),
            _ => Next::GoOn,
        }
    }

    /// Hands frames from the queue to the socket.
    fn take_frames(&mut self) {
        for frame in self.connection.take_frames(WRITE_BYTES) {
            self.mount.traffic.sent(frame.len());
            self.socket.queue(outgoing(frame));
        }
    }

    fn received(&mut self, received: Received) -> Next {
        self.last_heard = Instant::now();
        self.pongs_missed = 0;
        self.flow.take(received.frames, received.bytes);
        for message in received.messages {
            match message {
                Message::Text(text) => self.push(text.len(), ComponentFrame::Text(text)),
                Message::Binary(bytes) => self.push(bytes.len(), ComponentFrame::Binary(bytes)),
                Message::Ping(payload) => self.socket.queue_pong(payload),
                Message::Pong => {}
                Message::Close(code) => return Next::Answer(code),
            }
        }
        match received.end {
            None => {}
            Some(End::Gone) => return Next::Gone,
            Some(End::Broken(error)) => return self.broken(error),
        }
        let now = self.flow.now();
        match &mut self.pace {
            _ if !self.socket.has_begun() => self.pace = None,
            Some(pace) => pace.received(now, received.bytes),
            none => *none = Some(Pace::new(now, self.flow.stall_timeout())),
        }
        Next::GoOn
    }

    fn push(&self, bytes: usize, frame: ComponentFrame) {
        self.mount.traffic.received(bytes);
        self.connection.push_frame(frame);
    }

    fn broken(&self, error: FrameError) -> Next {
        Next::Abort(match error {
            FrameError::TooLarge => self.mount.closes().too_large.clone(),
            FrameError::NotUtf8 => Close { code: 1007, reason: error.to_string() },
            FrameError::Protocol(reason) => Close { code: 1002, reason: reason.into() },
        })
    }

    /// When the host may read again, a ping, or the end of patience is due.
    fn next_timer(&self, throttle: Duration, reading: bool) -> Option<Instant> {
        let now = Instant::now();
        let plan = self.mount.plan();
        let idle = plan.idle_ms.map(|idle_ms| self.last_heard + Duration::from_millis(idle_ms));
        let room = (!throttle.is_zero()).then(|| now + throttle);
        // Whoever is not read cannot be too slow.
        let pace = self.pace.filter(|_| reading).map(|pace| now + pace.deadline().saturating_sub(self.flow.now()));
        [self.next_ping, idle, room, pace].into_iter().flatten().min()
    }

    fn timer(&mut self, reading: bool) -> Next {
        let now = Instant::now();
        if reading && self.mount.plan().idle_ms.is_some_and(|idle_ms| now >= self.last_heard + Duration::from_millis(idle_ms)) {
            return Next::Abort(self.mount.closes().idle.clone());
        }
        if let Some(pace) = &mut self.pace {
            match reading {
                true if pace.deadline() <= self.flow.now() => return Next::Abort(self.mount.closes().idle.clone()),
                true => {}
                false => pace.pause(self.flow.now()),
            }
        }
        if self.next_ping.is_some_and(|next_ping| now >= next_ping) {
            self.next_ping = self.mount.plan().ping_ms.map(|ping_ms| now + Duration::from_millis(ping_ms));
            // While the host does not read, it cannot hear a pong either.
            if reading && self.pongs_missed >= PONGS_MISSED_MAX {
                return Next::Gone;
            }
            self.pongs_missed += 1;
            if !self.socket.has_output() {
                self.socket.queue(Outgoing::Ping);
            }
        }
        Next::GoOn
    }
}
