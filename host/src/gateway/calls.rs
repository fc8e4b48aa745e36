//! Calls of the logic on their way to the deployment and back: many in one request, each made once.
//!
//! A call whose answer does not come is sent again under its id, and the deployment sees to it that it is made no more than
//! once (or made again with `failure` set, where it cannot tell). After a while it has failed by the contract.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use syncline_spin_wire as wire;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::batches::Batches;
use super::feed::Feed;
use super::upstream::{Unanswered, Upstream};
use crate::runtime::{CallFailed, MountCore};

/// Requests at once: enough for every core of a deployment of some size, few enough that calls gather while it is busy.
const REQUESTS_MAX: usize = 8;
/// Requests with a task at once: they take long, and go beside the others.
const TASK_REQUESTS_MAX: usize = 16;
/// For how long a call is sent again.
const RETRIED_FOR: Duration = Duration::from_secs(30);
/// The first pause before that, which doubles, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How often a call that is alone in its request may be answered with status 500. A trap is; so is a request that found no
/// room for one more instance, which is no fault of the call.
const FALLS_MAX: u32 = 3;
/// What a request may take beyond the time of its calls: the way there and back, and a start of the deployment.
const WAY: Duration = Duration::from_secs(5);
/// However many calls there are in it.
const REQUEST_MAX: Duration = Duration::from_secs(60);
/// What a call weighs beside what it carries.
const CALL_BYTES: usize = 200;

/// See the module.
pub(super) struct Calls {
    upstream: Arc<Upstream>,
    gateway: u64,
    usual: Mutex<Batches<Pending>>,
    tasks: Mutex<Batches<Pending>>,
}

/// A call without an answer.
struct Pending {
    call: wire::SocketCall,
    waiter: Waiter,
}

/// Whoever waits for a call, and how it fared.
struct Waiter {
    mount: Arc<MountCore>,
    feed: Arc<Feed>,
    answer: oneshot::Sender<Result<wire::Reply, CallFailed>>,
    bytes: usize,
    /// Its time.
    deadline: Duration,
    /// It is not sent again after this.
    give_up: Instant,
    attempts: u32,
    /// How often it fell, alone in a request.
    falls: u32,
    alone: bool,
    /// A request that carried it broke off: it may still be under way there.
    broke_off: bool,
}

/// Where calls wait.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    Usual,
    Tasks,
}

/// Whether one of the calls is still being made.
struct Busy(bool);

/// What becomes of a call without an answer.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// It is sent again.
    Again {
        alone: bool,
        retry: bool,
        falls: u32,
    },
    Failed(CallFailed),
}

impl Calls {
    pub(super) fn new(upstream: Arc<Upstream>, gateway: u64) -> Arc<Self> {
        let (usual, tasks) = (Mutex::new(Batches::new(REQUESTS_MAX)), Mutex::new(Batches::new(TASK_REQUESTS_MAX)));
        Arc::new(Self { upstream, gateway, usual, tasks })
    }

    /// Makes a call. When this returns its publications were passed on, and its subscriptions have begun.
    pub(super) async fn make(
        self: &Arc<Self>,
        mount: &Arc<MountCore>,
        feed: &Arc<Feed>,
        invocation: wire::Invocation,
        deadline: Duration,
    ) -> Result<wire::Reply, CallFailed> {
        let (answer, answered) = oneshot::channel();
        let is_upgrade = matches!(invocation, wire::Invocation::Upgrade { .. });
        let line = if matches!(invocation, wire::Invocation::Task { .. }) { Line::Tasks } else { Line::Usual };
        let waiter = Waiter {
            mount: mount.clone(),
            feed: feed.clone(),
            answer,
            bytes: bytes_of(&invocation),
            deadline,
            give_up: Instant::now() + if is_upgrade { deadline } else { RETRIED_FOR.max(deadline + WAY) },
            attempts: 0,
            falls: 0,
            alone: line == Line::Tasks,
            broke_off: false,
        };
        let call = wire::SocketCall { id: rand::random(), mount: mount.name.clone(), known: 0, retry: false, ended: false, invocation };
        self.push(line, Pending { call, waiter });
        answered.await.unwrap_or(Err(CallFailed::Away))
    }

    fn line(&self, line: Line) -> &Mutex<Batches<Pending>> {
        match line {
            Line::Usual => &self.usual,
            Line::Tasks => &self.tasks,
        }
    }

    fn push(self: &Arc<Self>, line: Line, pending: Pending) {
        let (bytes, alone) = (pending.waiter.bytes, pending.waiter.alone);
        self.line(line).lock().push(pending, bytes, alone);
        self.start(line);
    }

    /// Sends what may be sent.
    fn start(self: &Arc<Self>, line: Line) {
        loop {
            let batch = self.line(line).lock().start();
            let Some(batch) = batch else { return };
            tokio::spawn(self.clone().send(line, batch));
        }
    }

    async fn send(self: Arc<Self>, line: Line, batch: Vec<Pending>) {
        let was_alone = batch.len() == 1;
        let mut open = VecDeque::from(batch);
        let exchanged = self.exchange(&mut open, line).await;
        self.upstream.reached(exchanged.as_ref().map(|_| ()));
        match exchanged {
            Ok(_) => {}
            Err(Unanswered::Fell) if !was_alone => self.one_by_one(line, open).await,
            Err(error) => open.into_iter().for_each(|pending| self.unanswered(line, pending, &error, was_alone)),
        }
        self.line(line).lock().ended();
        self.start(line);
    }

    /// A batch fell: of the calls without an answer the first ones were made, then one fell, and the others were never begun.
    /// So they are asked for one after the other until that one is found.
    async fn one_by_one(self: &Arc<Self>, line: Line, mut open: VecDeque<Pending>) {
        while let Some(mut pending) = open.pop_front() {
            pending.call.retry = true;
            let mut one = VecDeque::from([pending]);
            match self.exchange(&mut one, line).await {
                Ok(Busy(false)) => {}
                // It was begun, and not ended.
                Ok(Busy(true)) => break,
                Err(error) => {
                    one.into_iter().for_each(|pending| self.unanswered(line, pending, &error, true));
                    if !matches!(error, Unanswered::Fell) {
                        open.drain(..).for_each(|pending| self.unanswered(line, pending, &error, false));
                    }
                    break;
                }
            }
        }
        for pending in open {
            self.push(line, pending);
        }
    }

    /// Sends calls and takes their answers, as they come. Those that are left have none.
    async fn exchange(self: &Arc<Self>, open: &mut VecDeque<Pending>, line: Line) -> Result<Busy, Unanswered> {
        let patience =
            open.iter().map(|pending| pending.waiter.deadline).fold(WAY, Duration::saturating_add).min(REQUEST_MAX.max(longest(open)));
        let (mut calls, mut waiters) = (Vec::with_capacity(open.len()), Vec::with_capacity(open.len()));
        for mut pending in open.drain(..) {
            pending.call.known = pending.waiter.feed.known();
            pending.call.ended = !pending.waiter.broke_off;
            calls.push(pending.call);
            waiters.push(pending.waiter);
        }
        let request = wire::Calls { gateway: self.gateway, calls };
        let encoded = wire::encode(&request, wire::REQUEST_BYTES_MAX);
        open.extend(request.calls.into_iter().zip(waiters).map(|(call, waiter)| Pending { call, waiter }));
        let end = Instant::now() + patience;
        let encoded = encoded.map_err(|error| {
            tracing::error!(%error, "a call cannot be sent");
            Unanswered::TooLarge
        })?;
        let mut body = self.upstream.post(wire::CALLS, encoded, patience).await?;
        let (mut pieces, mut busy) = (wire::Pieces::default(), Busy(false));
        loop {
            while let Some(answer) =
                pieces.next::<wire::CallAnswer>(wire::ANSWER_BYTES_MAX).map_err(|error| Unanswered::Broken(error.to_string()))?
            {
                busy.0 |= matches!(answer.reply, wire::Reply::Busy);
                self.answered(open, answer, line)?;
            }
            match timeout_at(end, body.frame()).await {
                Err(_) => return Err(Unanswered::Broken(format!("no whole answer within {} ms", patience.as_millis()))),
                Ok(Some(Ok(frame))) => pieces.push(frame.data_ref().map_or(&[], |data| &data[..])),
                Ok(Some(Err(error))) => return Err(Unanswered::Broken(error.to_string())),
                Ok(None) => break,
            }
        }
        // What a trap leaves of an answer that has begun may look like its end.
        if pieces.end().is_ok() && open.is_empty() { Ok(busy) } else { Err(Unanswered::Fell) }
    }

    /// The answer to the first of these calls.
    fn answered(self: &Arc<Self>, open: &mut VecDeque<Pending>, answer: wire::CallAnswer, line: Line) -> Result<(), Unanswered> {
        let Some(pending) = open.pop_front_if(|pending| pending.call.id == answer.id) else {
            return Err(Unanswered::Broken("an answer to another call".into()));
        };
        let Waiter { mount, feed, .. } = &pending.waiter;
        feed.take(mount, answer.published, answer.changes);
        if let (Some(through), Some(connection)) = (answer.through, connection_of(&pending.call.invocation)) {
            mount.placed(connection, through);
        }
        match answer.reply {
            // Its first attempt is under way.
            wire::Reply::Busy => {
                let Waiter { alone, falls, .. } = pending.waiter;
                self.again(line, pending, Next::Again { alone, retry: true, falls });
            }
            // Nobody may wait any more: then it was made all the same.
            reply => drop(pending.waiter.answer.send(Ok(reply))),
        }
        Ok(())
    }

    fn unanswered(self: &Arc<Self>, line: Line, mut pending: Pending, error: &Unanswered, was_alone: bool) {
        let is_upgrade = matches!(pending.call.invocation, wire::Invocation::Upgrade { .. });
        pending.waiter.broke_off |= matches!(error, Unanswered::Broken(_));
        let next = after(error, is_upgrade, was_alone, &pending);
        tracing::debug!(mount = pending.call.mount, %error, ?next, "a call was not answered");
        self.again(line, pending, next);
    }

    fn again(self: &Arc<Self>, line: Line, mut pending: Pending, next: Next) {
        let waiter = &mut pending.waiter;
        let pause = PAUSE_MIN.saturating_mul(1 << waiter.attempts.min(10)).min(PAUSE_MAX);
        let next = match next {
            Next::Again { .. } if Instant::now() + pause >= waiter.give_up => Next::Failed(match pending.call.invocation {
                wire::Invocation::Upgrade { .. } => CallFailed::Away,
                _ => CallFailed::NotDurable,
            }),
            next => next,
        };
        match next {
            Next::Failed(error) => drop(pending.waiter.answer.send(Err(error))),
            Next::Again { alone, retry, falls } => {
                (waiter.alone, waiter.falls, waiter.attempts) = (alone, falls, waiter.attempts + 1);
                pending.call.retry = retry;
                let calls = self.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(pause).await;
                    calls.push(line, pending);
                });
            }
        }
    }
}

/// What becomes of a call whose request ended without its answer.
fn after(error: &Unanswered, is_upgrade: bool, was_alone: bool, pending: &Pending) -> Next {
    let (retry, Waiter { alone, falls, .. }) = (pending.call.retry, &pending.waiter);
    match error {
        // Who knocks can come again by himself; and nothing was asked yet.
        Unanswered::Unreachable(_) | Unanswered::Refused(_) if is_upgrade && !retry => Next::Failed(CallFailed::Away),
        Unanswered::Unreachable(_) | Unanswered::Refused(_) => Next::Again { alone: *alone, retry, falls: *falls },
        Unanswered::Broken(_) => Next::Again { alone: *alone, retry: true, falls: *falls },
        Unanswered::Fell if was_alone && falls + 1 >= FALLS_MAX => Next::Failed(CallFailed::Trapped),
        Unanswered::Fell => Next::Again { alone: true, retry: true, falls: falls + u32::from(was_alone) },
        Unanswered::TooLarge if was_alone => Next::Failed(CallFailed::Trapped),
        Unanswered::TooLarge => Next::Again { alone: true, retry, falls: *falls },
    }
}

/// Whose call it is.
fn connection_of(invocation: &wire::Invocation) -> Option<u64> {
    match invocation {
        wire::Invocation::Upgrade { connection, .. } => Some(*connection),
        wire::Invocation::Receive { connection, .. } => Some(connection.id),
        _ => None,
    }
}

/// The longest time of one of them, and of its way.
fn longest(open: &VecDeque<Pending>) -> Duration {
    open.iter().map(|pending| pending.waiter.deadline).max().unwrap_or_default().saturating_add(WAY)
}

/// About what a call takes as bytes.
fn bytes_of(invocation: &wire::Invocation) -> usize {
    let of_connection = |connection: &wire::Connection| connection.attachment.len() + connection.cursors.len() * CALL_BYTES;
    CALL_BYTES
        + match invocation {
            wire::Invocation::Upgrade { head, .. } => {
                let headers: usize = head.headers.iter().map(|header| header.name.len() + header.value.len()).sum();
                head.path.len() + head.query.as_ref().map_or(0, String::len) + headers
            }
            wire::Invocation::Receive { connection, inputs } => of_connection(connection) + inputs.iter().map(of_input).sum::<usize>(),
            wire::Invocation::Task { connection, work } => of_connection(connection) + work.len(),
            wire::Invocation::Closed { connection, .. } => of_connection(connection),
            wire::Invocation::Deliver { publication, groups } => {
                publication.message.len() + groups.iter().map(|group| group.name.len() + 10).sum::<usize>()
            }
            wire::Invocation::Refill { .. } => 0,
        }
}

fn of_input(input: &wire::Input) -> usize {
    match input {
        wire::Input::Frame(wire::Frame::Text(text)) => text.len(),
        wire::Input::Frame(wire::Frame::Binary(bytes)) | wire::Input::TaskDone(bytes) => bytes.len(),
        wire::Input::TaskFailed(failed) => failed.work.len(),
        wire::Input::Wake | wire::Input::Drained => 1,
    }
}
