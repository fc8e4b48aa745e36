//! Calls for the sockets that a gateway holds.
//!
//! A call that may not be made twice has a place of its own while it is made, and its answer is remembered: a gateway that did not get it
//! asks again under the same id.

use std::collections::HashMap;

use syncline_spin_wire as wire;
use wire::{CallAnswer, CallFailure, Invocation, Reply, SocketCall};

use crate::answers;
use crate::bindings::syncline::spin::adapter::{Ended, Error};
use crate::bindings::syncline::sync::live::{Connection, Failure};
use crate::calls::NotDurable;
use crate::front::{Deployment, Front, only_logged};
use crate::log::{Level, log, words};
use crate::mount::Mount;
use crate::ports::{Clock, Exchange};

use super::{convert, headers};

/// A call that is made has its place for so long at most, whatever the plan allows: a trap cannot give it back.
const PLACE_MS_MAX: u64 = 15_000;
/// What a place outlasts the time for the call by.
const PLACE_SPARE_MS: u64 = 1000;
/// What is answered leaves after so long, though calls of the batch are left.
const FLUSH_MS: u64 = 20;
/// And when it has become so large.
const FLUSH_BYTES: usize = 256 << 10;

/// What may be known of a call that is sent.
enum Before {
    /// Nothing: it is made. `Some`: it was made before, and failed.
    Unknown(Option<Failure>),
    /// It is answered.
    Answered(Box<Remembered>),
    /// It is being made.
    Running,
    /// It failed twice.
    Failed,
}

/// What a call gave.
struct Remembered {
    reply: Reply,
    changes: Vec<wire::Change>,
    /// Where it has its place among what was published.
    through: Option<u64>,
}

impl<C: Clock> Front<C> {
    /// Makes the calls of a batch one after the other, and sends their answers.
    pub(super) async fn called(&self, deployment: &Deployment, calls: wire::Calls, exchange: &mut impl Exchange) {
        let mut known: HashMap<String, u64> = HashMap::new();
        let (mut body, mut begun, mut flushed_ms) = (Vec::new(), false, self.clock.now_ms());
        for call in calls.calls.into_iter().take(wire::CALLS_MAX) {
            let answer = self.one(deployment, call, &mut known).await;
            if let Err(error) = wire::append_piece(&mut body, &answer, wire::ANSWER_BYTES_MAX) {
                log(Level::Error, None, "an answer for a gateway cannot be written", error);
                let failed = CallAnswer {
                    reply: Reply::Failed(CallFailure::Failed),
                    changes: Vec::new(),
                    published: Default::default(),
                    through: None,
                    ..answer
                };
                if wire::append_piece(&mut body, &failed, wire::ANSWER_BYTES_MAX).is_err() {
                    break;
                }
            }
            let now_ms = self.clock.now_ms();
            if body.len() >= FLUSH_BYTES || now_ms.saturating_sub(flushed_ms) >= FLUSH_MS {
                flushed_ms = now_ms;
                let piece = std::mem::take(&mut body);
                let sent = match std::mem::replace(&mut begun, true) {
                    true => exchange.write(piece).await,
                    false => exchange.begin(answers::head(200, headers(), None, true), piece).await,
                };
                if sent.is_err() {
                    // The rest of the batch comes again.
                    return;
                }
            }
        }
        if !begun {
            return answers::send_whole(exchange, 200, headers(), body, true).await;
        }
        let sent = if body.is_empty() { Ok(()) } else { exchange.write(body).await };
        if sent.is_ok() {
            exchange.finish(true).await;
        }
    }

    async fn one(&self, deployment: &Deployment, call: SocketCall, known: &mut HashMap<String, u64>) -> CallAnswer {
        let id = call.id;
        let after = known.get(&call.mount).copied().unwrap_or(0).max(call.known);
        let failed = |failure| CallAnswer {
            id,
            reply: Reply::Failed(failure),
            changes: Vec::new(),
            published: wire::Published { next: after, ..Default::default() },
            through: None,
        };
        let Some(mount) = deployment.mount(&call.mount) else { return failed(CallFailure::NoMount) };
        if let Err(error) = self.ready(&mount).await {
            log(Level::Error, Some(&mount.name), "the mount does not serve", error);
            return failed(CallFailure::NotDurable);
        }
        let (reply, changes, through) = match self.made(&mount, call).await {
            Ok(Remembered { reply, changes, through }) => (reply, changes, through),
            Err(failure) => return failed(failure),
        };
        let published = match self.stretch_to(&mount.name, after, through.unwrap_or(after)) {
            Ok(published) => published,
            Err(error) => {
                // It is remembered, so asking again finds it.
                log(Level::Error, Some(&mount.name), "publications cannot be read", words(&error));
                return CallAnswer { reply: Reply::Busy, ..failed(CallFailure::NotDurable) };
            }
        };
        known.insert(mount.name.clone(), published.next);
        CallAnswer { id, reply, changes, published, through }
    }

    /// Makes a call, or gives what it gave before.
    async fn made(&self, mount: &Mount, call: SocketCall) -> Result<Remembered, CallFailure> {
        let key = format!("gateway/{:032x}", call.id);
        let mut failure = None;
        if call.invocation.is_remembered() {
            let before = self.before(mount, &key, &call).map_err(|error| {
                log(Level::Error, Some(&mount.name), "a call of a gateway cannot be looked up", words(&error));
                CallFailure::NotDurable
            })?;
            match before {
                Before::Unknown(found) => failure = found,
                Before::Answered(remembered) => return Ok(*remembered),
                Before::Running => return Ok(Remembered { reply: Reply::Busy, changes: Vec::new(), through: None }),
                Before::Failed => return Err(CallFailure::Failed),
            }
        }
        let is_remembered = call.invocation.is_remembered();
        let (reply, ended) = match (failure, call.invocation) {
            // Called once, at best: perhaps it was.
            (Some(_), Invocation::Closed { .. }) => return Ok(Remembered { reply: Reply::Done, changes: Vec::new(), through: None }),
            // Made once.
            (Some(_), Invocation::Task { .. }) => return Err(CallFailure::Failed),
            (failure, invocation) => self.invoke(mount, invocation, failure).await.map_err(|NotDurable| CallFailure::NotDurable)?,
        };
        let changes = ended.changes.into_iter().map(convert::change).collect();
        let answered = Remembered { reply, changes, through: ended.published.max(ended.saw) };
        if is_remembered {
            self.keep(mount, &key, &answered);
        }
        Ok(answered)
    }

    /// What is known of a call. Where nothing is, it has its place from now on.
    fn before(&self, mount: &Mount, key: &str, call: &SocketCall) -> Result<Before, Error> {
        if call.retry
            && let Some(bytes) = self.adapter.recall(key)?
        {
            return Ok(match recalled(&bytes) {
                Some(remembered) => Before::Answered(Box::new(remembered)),
                None => {
                    log(Level::Error, Some(&mount.name), "a remembered answer cannot be read", "");
                    Before::Failed
                }
            });
        }
        let lease_ms = mount.plan.call_deadline_ms.saturating_add(PLACE_SPARE_MS).min(PLACE_MS_MAX);
        let holder = format!("{:016x}", self.clock.random());
        // Whoever fell has left its place behind.
        let places = if call.retry && call.ended { u32::MAX } else { 1 };
        if !self.adapter.hold(key, &holder, places, lease_ms)? {
            return Ok(Before::Running);
        }
        if !call.retry {
            return Ok(Before::Unknown(None));
        }
        // Once more, and no more than that.
        let again = format!("{key}/again");
        if self.adapter.recall(&again)?.is_some() {
            return Ok(Before::Failed);
        }
        self.adapter.remember(&again, &[])?;
        Ok(Before::Unknown(Some(Failure::Trapped)))
    }

    fn keep(&self, mount: &Mount, key: &str, answered: &Remembered) {
        let Remembered { reply, changes, through } = answered;
        let (reply, changes, published) = (reply.clone(), changes.clone(), wire::Published::default());
        let answer = CallAnswer { id: 0, reply, changes, published, through: *through };
        match wire::encode(&answer, wire::ANSWER_BYTES_MAX) {
            Ok(bytes) => only_logged(Some(&mount.name), "an answer is not remembered", self.adapter.remember(key, &bytes)),
            Err(error) => log(Level::Error, Some(&mount.name), "an answer is not remembered", error),
        }
    }

    async fn invoke(&self, mount: &Mount, invocation: Invocation, failure: Option<Failure>) -> Result<(Reply, Ended), NotDurable> {
        let name = &mount.name;
        let connection = |connection: wire::Connection| {
            let connection = convert::connection(connection);
            Connection { failure: failure.or(connection.failure), ..connection }
        };
        Ok(match invocation {
            Invocation::Upgrade { connection, head } => {
                let head = convert::request_head(head);
                let called = self.call(mount, |logic| logic.upgrade(name, connection, &head)).await?;
                (convert::upgrade_result(called.answer).map_or(Reply::Failed(CallFailure::Failed), Reply::Upgrade), called.ended)
            }
            Invocation::Receive { connection: of, inputs } => {
                let (of, inputs) = (connection(of), inputs.into_iter().map(convert::input).collect::<Vec<_>>());
                let called = self.call(mount, |logic| logic.receive(name, &of, &inputs)).await?;
                (Reply::Outcome(convert::outcome(called.answer)), called.ended)
            }
            Invocation::Task { connection: of, work } => {
                let of = connection(of);
                let called = self.call(mount, |logic| logic.task(name, &of, &work)).await?;
                (Reply::Task(called.answer.into()), called.ended)
            }
            Invocation::Closed { connection: of, code } => {
                let of = connection(of);
                only_logged(Some(name), "somebody who is gone is still shown for a while", self.adapter.gone(name, &[of.id]));
                let called = self.call(mount, |logic| logic.closed(name, &of, code)).await?;
                (Reply::Done, called.ended)
            }
            Invocation::Deliver { publication, groups } => {
                let publication = convert::publication_in(publication);
                let groups: Vec<_> = groups.into_iter().map(convert::group).collect();
                let called = self.call(mount, |logic| logic.deliver(name, &publication, &groups)).await?;
                (Reply::Deliveries(convert::deliveries(called.answer)), called.ended)
            }
            Invocation::Refill { topic, key, after } => {
                let called = self.call(mount, |logic| logic.refill(name, &topic, &key, after)).await?;
                (Reply::Publications(called.answer.into_iter().map(convert::publication_out).collect()), called.ended)
            }
        })
    }
}

fn recalled(bytes: &[u8]) -> Option<Remembered> {
    let CallAnswer { reply, changes, through, .. } = wire::decode(bytes, wire::ANSWER_BYTES_MAX).ok()?;
    Some(Remembered { reply, changes, through })
}
