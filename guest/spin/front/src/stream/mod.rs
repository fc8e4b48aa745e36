//! Event streams: responses that are connections without frames (`http.body-out.stream`). One loop serves one stream: calls,
//! publications, timers and writes come one after the other.

mod deliver;
mod waiting;

use std::collections::{HashSet, VecDeque};

use crate::answers;
use crate::bindings::syncline::host::types::{Close, Frame};
use crate::bindings::syncline::sync::http::StreamStart;
use crate::bindings::syncline::sync::live::{Alarm, Connection, Failure, Outcome};
use crate::bindings::syncline::sync::socket::{Input, TaskFailure};
use crate::due::DUE_MS;
use crate::front::{Front, only_logged};
use crate::listening::Unheard;
use crate::log::{Level, log, words};
use crate::newest::Pace;
use crate::parked::RENEW_MS;
use crate::ports::{AnswerHead, Clock, Exchange};
use crate::requests::{AnswerBody, Answered, OpenRequest, Unanswered, fallback};

use waiting::{Arrival, Waiting};

/// Inputs that are handed over in one call.
const INPUTS_PER_CALL: usize = 16;
/// Bytes that are written in one go.
const WRITE_BYTES: usize = 64 << 10;
/// Keepalives are sent no more often than this.
const KEEPALIVE_MS_MIN: u64 = 100;
/// The close code of a stream whose client went away.
const NO_CLOSE: u16 = 1006;
/// A stream's place is its own for so long without a word.
const PLACE_LEASE_MS: u64 = 90_000;
/// The name of the places of streams.
const PLACES: &str = "streams";

/// One stream.
pub(super) struct Stream<'a> {
    request: OpenRequest<'a>,
    attachment: Vec<u8>,
    waiting: Waiting,
    /// Calls of this stream that have begun.
    calls: u64,
    inputs: VecDeque<Input>,
    /// Inputs were put off until then.
    deferred_until_ms: Option<u64>,
    tasks: VecDeque<(Connection, Vec<u8>)>,
    alarm_at_ms: Option<u64>,
    quiet_until_ms: Option<u64>,
    paced: bool,
    /// To be written.
    out: Vec<u8>,
    close: Option<Close>,
}

/// When the loop has something to do, whatever is published.
struct Timers {
    written_ms: u64,
    renew_at_ms: u64,
    due_at_ms: u64,
    ends_at_ms: Option<u64>,
    keepalive: Option<(u64, Vec<u8>)>,
}

impl<'a> Stream<'a> {
    fn new(request: OpenRequest<'a>) -> Self {
        Self {
            request,
            attachment: Vec::new(),
            waiting: Waiting::default(),
            // The one that made it.
            calls: 1,
            inputs: VecDeque::new(),
            deferred_until_ms: None,
            tasks: VecDeque::new(),
            alarm_at_ms: None,
            quiet_until_ms: None,
            paced: false,
            out: Vec::new(),
            close: None,
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        // Behind a close nothing follows.
        if self.close.is_none() {
            self.out.extend_from_slice(bytes);
        }
    }

    /// Ends once everything is written. The first close wins.
    fn close(&mut self, close: Close) {
        self.close.get_or_insert(close);
    }

    /// Ends without what is not written yet: the client catches up by its protocol.
    fn close_now(&mut self, close: Close) {
        self.out.clear();
        self.close = Some(close);
    }

    fn queue_bytes(&self) -> u64 {
        self.request.mount.plan.queue_bytes
    }

    /// Whether more can be added without the client falling behind.
    fn has_room(&self) -> bool {
        self.out.len() as u64 <= self.queue_bytes() / 2
    }

    /// The alarm goes off no later than so long from now.
    fn alarm_within(&mut self, delay_ms: u64, now_ms: u64) {
        let at_ms = now_ms.saturating_add(delay_ms);
        self.alarm_at_ms = Some(self.alarm_at_ms.map_or(at_ms, |alarm_at_ms| alarm_at_ms.min(at_ms)));
    }

    fn connection(&self) -> Connection {
        Connection { id: self.request.id(), attachment: self.attachment.clone(), cursors: self.request.listening.cursors(), failure: None }
    }

    /// Goes on when its time has come.
    fn take_due(&mut self, now_ms: u64) {
        let is_due = |at_ms: Option<u64>| at_ms.is_some_and(|at_ms| at_ms <= now_ms);
        if is_due(self.alarm_at_ms) {
            self.alarm_at_ms = None;
            self.inputs.push_back(Input::Wake);
        }
        if is_due(self.deferred_until_ms) {
            self.deferred_until_ms = None;
        }
        if is_due(self.quiet_until_ms) || self.waiting.is_pressing(self.queue_bytes()) {
            self.quiet_until_ms = None;
            self.waiting.end_pause();
        }
    }

    /// When a timer of its own goes off.
    fn next_due_ms(&self) -> Option<u64> {
        [self.alarm_at_ms, self.deferred_until_ms, self.quiet_until_ms].into_iter().flatten().min()
    }
}

impl<C: Clock> Front<C> {
    /// Makes a request a stream and serves it to its end.
    pub(crate) async fn stream(&self, mut request: OpenRequest<'_>, head: AnswerHead, start: StreamStart, exchange: &mut impl Exchange) {
        let holder = request.id().to_string();
        if !self.takes_place(&request, &holder) {
            let Answered { status, headers, body } = fallback(request.mount, Unanswered::Full);
            let AnswerBody::Whole(body) = body else { unreachable!("a fallback is whole") };
            answers::send_whole(exchange, status, headers, body, true).await;
            return self.forget(&mut request);
        }
        let began_ms = self.clock.now_ms();
        let limit_ms = request.deployment.config.limits.stream_ms;
        let mut timers = Timers {
            written_ms: began_ms,
            renew_at_ms: began_ms.saturating_add(RENEW_MS),
            due_at_ms: began_ms.saturating_add(DUE_MS),
            ends_at_ms: (limit_ms > 0).then(|| began_ms.saturating_add(limit_ms)),
            keepalive: start.keepalive.map(|(after_ms, bytes)| (after_ms.max(KEEPALIVE_MS_MIN), bytes)),
        };
        // All that it listens to was subscribed to by the call that made it.
        let fresh = request.listening.topics();
        let mut stream = Stream::new(request);
        self.release(&mut stream, start.start, fresh).await;
        let first = std::mem::take(&mut stream.out);
        let code = if exchange.begin(head, first).await.is_ok() {
            stream.drain_paced();
            self.pump(&mut stream, &mut timers, exchange).await
        } else {
            NO_CLOSE
        };
        self.end(stream, code, &holder).await;
    }

    fn takes_place(&self, request: &OpenRequest<'_>, holder: &str) -> bool {
        let limits = &request.deployment.config.limits;
        let held = self.adapter.hold(PLACES, holder, limits.streams, PLACE_LEASE_MS);
        held.unwrap_or_else(|error| {
            log(Level::Error, Some(&request.mount.name), "streams cannot be counted", words(&error));
            false
        })
    }

    async fn end(&self, stream: Stream<'_>, code: u16, holder: &str) {
        let connection = stream.connection();
        let Stream { mut request, .. } = stream;
        self.forget(&mut request);
        let mount = request.mount;
        if self.call(mount, |logic| logic.closed(&mount.name, &connection, code)).await.is_err() {
            log(Level::Warn, Some(&mount.name), "the logic was not told that a stream ended", "");
        }
        only_logged(Some(&mount.name), "the place of a stream is taken for a while yet", self.adapter.release(PLACES, holder));
    }

    /// Serves a stream until it ends. Gives the code of its close.
    async fn pump(&self, stream: &mut Stream<'_>, timers: &mut Timers, exchange: &mut impl Exchange) -> u16 {
        let mut pace = Pace::new(self.clock.now_ms());
        loop {
            if !stream.out.is_empty() {
                if self.write_out(stream, exchange).await.is_err() {
                    return NO_CLOSE;
                }
                timers.written_ms = self.clock.now_ms();
                pace = Pace::new(timers.written_ms);
                continue;
            }
            if let Some(close) = &stream.close {
                exchange.finish(true).await;
                return close.code;
            }
            let now_ms = self.clock.now_ms();
            if timers.ends_at_ms.is_some_and(|ends_at_ms| ends_at_ms <= now_ms) {
                stream.close(stream.request.mount.plan.closes.shutdown.clone());
                continue;
            }
            stream.take_due(now_ms);
            if self.one_call(stream).await || self.publications(stream).await {
                continue;
            }
            self.periodic(stream, timers, now_ms).await;
            if stream.out.is_empty() && stream.close.is_none() {
                self.clock.sleep(self.pause_ms(stream, timers, &pace)).await;
            }
        }
    }

    fn pause_ms(&self, stream: &Stream<'_>, timers: &Timers, pace: &Pace) -> u64 {
        let now_ms = self.clock.now_ms();
        let keepalive = timers.keepalive.as_ref().map(|(after_ms, _)| timers.written_ms.saturating_add(*after_ms));
        let due = [stream.next_due_ms(), timers.ends_at_ms, keepalive].into_iter().flatten().min();
        due.map_or(u64::MAX, |due_ms| due_ms.saturating_sub(now_ms)).min(pace.wait_ms(now_ms))
    }

    async fn write_out(&self, stream: &mut Stream<'_>, exchange: &mut impl Exchange) -> Result<(), crate::ports::Gone> {
        let mut out = std::mem::take(&mut stream.out);
        while out.len() > WRITE_BYTES {
            let rest = out.split_off(WRITE_BYTES);
            exchange.write(std::mem::replace(&mut out, rest)).await?;
        }
        exchange.write(out).await?;
        stream.drain_paced();
        Ok(())
    }

    /// What comes round: keepalives, leases, and work that is due while nobody asks for anything else.
    async fn periodic(&self, stream: &mut Stream<'_>, timers: &mut Timers, now_ms: u64) {
        if let Some((after_ms, bytes)) = &timers.keepalive
            && timers.written_ms.saturating_add(*after_ms) <= now_ms
        {
            stream.write(bytes);
        }
        if timers.renew_at_ms <= now_ms {
            timers.renew_at_ms = now_ms.saturating_add(RENEW_MS);
            let request = &stream.request;
            if request.listening.is_shown() {
                let renewed = self.adapter.renew(&request.mount.name, &[request.id()]);
                only_logged(Some(&request.mount.name), "a presence could not be renewed", renewed);
            }
            let limit = request.deployment.config.limits.streams;
            let held = self.adapter.hold(PLACES, &request.id().to_string(), limit, PLACE_LEASE_MS);
            only_logged(Some(&request.mount.name), "the place of a stream could not be renewed", held.map(drop));
        }
        if timers.due_at_ms <= now_ms {
            timers.due_at_ms = now_ms.saturating_add(DUE_MS);
            self.do_a_little(stream.request.deployment).await;
        }
    }

    /// Makes a call that waits to be made, if there is one.
    async fn one_call(&self, stream: &mut Stream<'_>) -> bool {
        if let Some((connection, work)) = stream.tasks.pop_front() {
            self.task(stream, &connection, work).await;
            return true;
        }
        if stream.inputs.is_empty() || stream.deferred_until_ms.is_some() {
            return false;
        }
        let count = stream.inputs.len().min(INPUTS_PER_CALL);
        let inputs: Vec<Input> = stream.inputs.drain(..count).collect();
        self.receive(stream, inputs).await;
        true
    }

    async fn task(&self, stream: &mut Stream<'_>, connection: &Connection, work: Vec<u8>) {
        let mount = stream.request.mount;
        let input = match self.call(mount, |logic| logic.task(&mount.name, connection, &work)).await {
            Ok(called) => {
                stream.request.listening.apply(called.ended.changes);
                Input::TaskDone(called.answer)
            }
            Err(_) => Input::TaskFailed(TaskFailure { work, failure: Failure::Trapped }),
        };
        stream.inputs.push_back(input);
    }

    async fn receive(&self, stream: &mut Stream<'_>, mut inputs: Vec<Input>) {
        stream.calls += 1;
        let (mount, connection) = (stream.request.mount, stream.connection());
        let Ok(called) = self.call(mount, |logic| logic.receive(&mount.name, &connection, &inputs)).await else {
            return stream.close_now(mount.plan.closes.failed.clone());
        };
        let mut outcome = called.answer;
        if let Some((index, delay_ms)) = outcome.defer.take() {
            let put_off = inputs.split_off(usize::try_from(index).unwrap_or(usize::MAX).min(inputs.len()));
            if !put_off.is_empty() {
                stream.deferred_until_ms = Some(self.clock.now_ms().saturating_add(delay_ms));
            }
            for input in put_off.into_iter().rev() {
                stream.inputs.push_front(input);
            }
        }
        let fresh = stream.request.listening.apply(called.ended.changes);
        self.release(stream, outcome, fresh).await;
    }

    /// Does what an outcome says, in its place among what was published until its call was over.
    async fn release(&self, stream: &mut Stream<'_>, outcome: Outcome, fresh: HashSet<String>) {
        // What was published while the call ran may be known to it already.
        self.gather(stream, u64::MAX, stream.calls.saturating_sub(1));
        let released = stream.waiting.release(&outcome.seen, fresh, outcome.quiet_ms.is_some());
        for arrival in released.before {
            self.deliver(stream, arrival).await;
        }
        outcome.send.iter().for_each(|frame| stream.write(bytes_of(frame)));
        if let Some(attachment) = outcome.attachment {
            stream.attachment = attachment;
        }
        for (topic, cursor) in &outcome.cursors {
            stream.request.listening.set_cursor(topic, *cursor);
        }
        let now_ms = self.clock.now_ms();
        match outcome.alarm {
            Alarm::Keep => {}
            Alarm::Stop => stream.alarm_at_ms = None,
            Alarm::AfterMs(delay_ms) => stream.alarm_at_ms = Some(now_ms.saturating_add(delay_ms)),
        }
        stream.paced |= outcome.pace;
        if let Some(close) = outcome.close {
            return stream.close(close);
        }
        let connection = stream.connection();
        stream.tasks.extend(outcome.tasks.into_iter().map(|work| (connection.clone(), work)));
        if let Some(quiet_ms) = outcome.quiet_ms {
            stream.quiet_until_ms = Some(now_ms.saturating_add(quiet_ms));
        }
        for arrival in released.after {
            self.deliver(stream, arrival).await;
        }
    }

    /// Finds what was published, up to a position.
    fn gather(&self, stream: &mut Stream<'_>, newest: u64, calls_before: u64) {
        let queue_bytes = stream.queue_bytes();
        let mount = stream.request.mount;
        // More than may wait shows that the client is slow; the rest is of no use to it.
        match self.fetch(mount, &mut stream.request.listening, newest, queue_bytes.saturating_add(1)) {
            Ok(found) => {
                for publication in found {
                    stream.waiting.add(Arrival { publication, calls_before });
                }
                if !stream.waiting.keeps_up(queue_bytes) {
                    stream.close_now(mount.plan.closes.slow.clone());
                }
            }
            Err(error) => {
                if let Unheard::Unavailable(error) = &error {
                    log(Level::Error, Some(&mount.name), "a stream ends, since it cannot be told of what is new", words(error));
                }
                stream.close_now(mount.plan.closes.failed.clone());
            }
        }
    }

    /// Brings what was published to the stream. Whether there was anything.
    async fn publications(&self, stream: &mut Stream<'_>) -> bool {
        let mount = stream.request.mount;
        let newest = match self.newest(stream.request.deployment, &mount.name) {
            Ok(newest) => newest,
            Err(error) => {
                log(Level::Error, Some(&mount.name), "a stream ends, since it cannot be told of what is new", words(&error));
                stream.close_now(mount.plan.closes.failed.clone());
                return true;
            }
        };
        self.gather(stream, newest, stream.calls);
        for publication in self.look(mount, &mut stream.request.listening).await {
            stream.waiting.add(Arrival { publication, calls_before: stream.calls });
        }
        let mut any = stream.close.is_some();
        while stream.close.is_none()
            && let Some(arrival) = stream.waiting.next()
        {
            self.deliver(stream, arrival).await;
            any = true;
        }
        any
    }
}

impl Stream<'_> {
    /// Everything is written: whoever sends pages is told.
    fn drain_paced(&mut self) {
        if std::mem::take(&mut self.paced) {
            self.inputs.push_back(Input::Drained);
        }
    }
}

/// What a frame is on a stream.
fn bytes_of(frame: &Frame) -> &[u8] {
    match frame {
        Frame::Text(text) => text.as_bytes(),
        Frame::Binary(bytes) => bytes,
    }
}
