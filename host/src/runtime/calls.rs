//! Calls of a mount: running them, again where that is safe, and letting go what they let out once it is durable.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::backlog::wait_for;
use super::bindings::guest::exports::syncline::sync::live;
use super::effect::{Deferred, Effect};
use super::gate::{CallId, Release};
use super::instance::{Answer, Invocation};
use super::limits::loggable;
use super::mount::MountCore;
use super::revision::{Code, Revision};
use super::state::Call;
use crate::executor::{DatabaseName, ExecutorError, GroupObserver};

/// How often a call is run again because a database asked for it.
const RERUNS_MAX: u32 = 12;

/// Why a call gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallFailed {
    /// It trapped, and again where it was tried again.
    #[error("the call trapped")]
    Trapped,
    /// It took longer than its deadline.
    #[error("the call took longer than its deadline")]
    TimedOut,
    /// What it rests on could not be made durable, or could not be reached.
    #[error("its data could not be made durable")]
    NotDurable,
    /// Whoever was to make it could not be reached.
    #[error("whoever makes the calls cannot be reached")]
    Away,
}

impl CallFailed {
    pub(crate) fn failure(self) -> live::Failure {
        match self {
            CallFailed::TimedOut => live::Failure::TimedOut,
            CallFailed::Trapped | CallFailed::NotDurable | CallFailed::Away => live::Failure::Trapped,
        }
    }
}

/// A call that is over: its answer, and what is held for it.
pub(crate) struct Completed {
    pub(crate) call: CallId,
    pub(crate) answer: Answer,
    pub(crate) bundles: Vec<Vec<Effect>>,
}

impl MountCore {
    /// Makes a call; what it lets out is held until [`MountCore::finish`].
    pub(crate) async fn run(self: &Arc<Self>, invocation: &Invocation, deadline: Duration) -> Result<Completed, CallFailed> {
        self.run_on(&self.revision(), invocation, deadline).await
    }

    /// The same on a revision that need not be the current one.
    pub(super) async fn run_on(
        self: &Arc<Self>,
        revision: &Arc<Revision>,
        invocation: &Invocation,
        deadline: Duration,
    ) -> Result<Completed, CallFailed> {
        let started = Instant::now();
        let result = match &revision.code {
            Code::Component { .. } => self.attempts(revision, invocation, deadline).await,
            Code::Remote(remote) => self.ask(&**remote, invocation, deadline).await,
        };
        self.metrics.call(&self.name, invocation.export(), result.is_ok(), started.elapsed());
        if let Err(error) = &result {
            tracing::warn!(mount = self.name, export = invocation.export(), %error, "a call failed");
        }
        result
    }

    async fn attempts(
        self: &Arc<Self>,
        revision: &Arc<Revision>,
        invocation: &Invocation,
        deadline: Duration,
    ) -> Result<Completed, CallFailed> {
        if invocation.adds_work() {
            self.backlog.room().await;
        }
        let (mut failure, mut reruns) = (None, 0);
        loop {
            let mut lease = match self.pool.take(self, revision, failure.is_some()).await {
                Ok(lease) => lease,
                Err(error) => {
                    tracing::error!(mount = self.name, error = cause(&error), "no instance can be made");
                    return Err(CallFailed::NotDurable);
                }
            };
            let id = self.gate.lock().open(invocation.lane());
            let begun = Instant::now();
            let (answer, call) = lease.instance.invoke(Call::new(id, invocation), deadline, invocation, failure).await;
            match (answer, call) {
                (Ok(answer), Some(call)) => {
                    self.pool.give_back(lease, &self.revision());
                    if !call.aborted {
                        return Ok(Completed { call: id, answer, bundles: call.bundles });
                    }
                    let again = call.repeatable() && reruns < RERUNS_MAX;
                    self.fail_after(id, Some(call)).await;
                    if !again {
                        return Err(CallFailed::NotDurable);
                    }
                    reruns += 1;
                    let pause_us = self.environment.random() % (500 << reruns.min(8));
                    tokio::time::sleep(Duration::from_micros(pause_us)).await;
                }
                (answer, call) => {
                    drop(lease);
                    self.fail_after(id, call).await;
                    let timed_out = begun.elapsed() >= deadline;
                    let now = if timed_out { live::Failure::TimedOut } else { live::Failure::Trapped };
                    let error = answer.err().map_or_else(String::new, |error| cause(&error));
                    tracing::error!(mount = self.name, export = invocation.export(), error, "an instance was lost");
                    if failure.is_some() || !invocation.tried_again(now) {
                        return Err(if timed_out { CallFailed::TimedOut } else { CallFailed::Trapped });
                    }
                    failure = Some(now);
                }
            }
        }
    }

    /// Lets the effects of a call go as soon as what they rest on is durable. Bundles beyond its places leave last.
    pub(crate) fn finish(&self, call: CallId, bundles: Vec<Vec<Effect>>) {
        self.gate.lock().finish(call, bundles);
        self.pump();
    }

    /// Lets the effects of a call go and waits until they did.
    pub(crate) async fn finish_and_wait(&self, call: CallId, mut bundles: Vec<Vec<Effect>>) -> Result<(), CallFailed> {
        let (permit, permitted) = oneshot::channel();
        bundles.push(vec![Effect::Permit(permit)]);
        self.finish(call, bundles);
        permitted.await.map_err(|_| CallFailed::NotDurable)
    }

    /// A call failed. What it let out for transactions that it had committed leaves with them, since others must not miss
    /// it; the rest does not. Returns when what it committed is settled: the next attempt, or the client's next
    /// connection, is to see it.
    async fn fail_after(&self, id: CallId, call: Option<Call>) {
        let groups = self.gate.lock().places_of(id);
        let committed = call.filter(|call| call.committed > 0);
        match committed {
            Some(mut call) => {
                // The bundle of a transaction that was still open when the call failed goes with it.
                call.bundles.truncate(groups.len());
                call.bundles.iter_mut().for_each(|bundle| bundle.retain(Effect::outlives_its_call));
                self.gate.lock().finish(id, call.bundles);
            }
            None => self.gate.lock().fail(id),
        }
        self.pump();
        self.wait_until_settled(&groups).await;
    }

    /// Applies whatever the gate lets go.
    fn pump(&self) {
        let _in_order = self.applying.lock();
        loop {
            let release = self.gate.lock().release();
            match release {
                None => break,
                Some(Release::Effects { effects, .. }) => effects.into_iter().for_each(|effect| self.apply(effect)),
                Some(Release::Lost { lane, .. }) => {
                    let connection = lane.and_then(|lane| self.connections.read().get(&lane).cloned());
                    if let Some(connection) = connection {
                        connection.close_now(self.closes().failed.clone());
                    }
                }
            }
        }
    }

    fn apply(&self, effect: Effect) {
        match effect {
            Effect::Publish(publication) => {
                let publication = publication.into();
                self.pubsub.publish(self.process, &self.name, &publication);
                self.arrive(publication);
            }
            Effect::Send { connection, frame } => {
                let connection = self.connections.read().get(&connection).cloned();
                if connection.is_some_and(|connection| !connection.send(self.budget.hold_frame(frame), &self.closes().slow)) {
                    self.metrics.slow_reader(&self.name);
                }
            }
            Effect::Outcome { connection, call, released, after } => connection.release(call, released, after),
            Effect::Post(post) => self.apply(Effect::Deferred(Deferred::Post(post))),
            // Whoever waited may have gone: then nobody is to be told.
            Effect::Permit(permit) => drop(permit.send(())),
            Effect::Deferred(work) => {
                self.backlog.add(work.bytes());
                // The worker ends with the mount.
                drop(self.deferred.send(work));
            }
        }
    }

    /// Waits until everything that the call and those before it on its connection committed is durable.
    pub(crate) async fn wait_until_durable(&self, call: CallId, database: &str) -> Result<(), ExecutorError> {
        let durable = || {
            let gate = self.gate.lock();
            if gate.is_lost(call) {
                return Some(Err(ExecutorError::Unavailable("data that this call rests on was lost".into())));
            }
            gate.unsettled(call, database).is_none().then_some(Ok(()))
        };
        wait_for(&self.settled, durable).await
    }

    /// Waits until groups are durable or lost.
    pub(super) async fn wait_until_settled(&self, groups: &[(String, u64)]) {
        let settled = || groups.iter().all(|(database, group)| self.gate.lock().is_settled(database, *group)).then_some(());
        wait_for(&self.settled, settled).await;
    }

    /// Whether what the call rests on is lost.
    pub(crate) fn is_lost(&self, call: CallId) -> bool {
        self.gate.lock().is_lost(call)
    }

    /// How many transactions of the call have ended.
    pub(crate) fn places(&self, call: CallId) -> usize {
        self.gate.lock().places(call)
    }

    /// A transaction of the call ended in a group.
    pub(crate) fn ended(&self, call: CallId, database: &DatabaseName, group: u64) {
        self.gate.lock().ended(call, &database.name, group);
    }
}

/// An error of a component with its causes, for the log.
fn cause(error: &wasmtime::Error) -> String {
    loggable(&format!("{error:#}")).into_owned()
}

/// Lets an executor tell a mount about groups without keeping it alive.
pub(super) struct WeakObserver(pub(super) Weak<MountCore>);

impl GroupObserver for WeakObserver {
    fn settled(&self, database: &DatabaseName, group: u64, durable: bool) {
        if let Some(mount) = self.0.upgrade() {
            if !durable {
                tracing::error!(mount = mount.name, database = database.name, group, "a group of transactions was lost");
            }
            mount.metrics.group_settled(&mount.name, durable);
            mount.gate.lock().settled(&database.name, group, durable);
            mount.settled.notify_waiters();
            mount.posts_settled(&database.name, group);
            mount.pump();
        }
    }
}

/// Carries out effects that need IO, in the order in which they were released.
pub(super) async fn carry_out_all(mount: Weak<MountCore>, mut work: mpsc::UnboundedReceiver<Deferred>) {
    while let Some(deferred) = work.recv().await {
        let Some(mount) = mount.upgrade() else { break };
        let name = &mount.name;
        let keyvalue = &mount.storage.keyvalue;
        let done = match &deferred {
            Deferred::SetKey { key, value, time_to_live_ms } => {
                keyvalue.set(name, key, value.clone(), *time_to_live_ms).await.map_err(|error| error.to_string())
            }
            Deferred::DeleteKey { key } => keyvalue.delete(name, key).await.map_err(|error| error.to_string()),
            Deferred::DeleteObject { key } => mount.delete_object(key).await.map_err(|error| error.to_string()),
            Deferred::Post(post) => mount.keep_post(post).await.map_err(|error| error.to_string()),
            Deferred::CancelJob { name: job } => mount.jobs.cancel(name, job).await.map_err(|error| error.to_string()),
        };
        mount.backlog.remove(deferred.bytes());
        if let Err(error) = done {
            tracing::error!(mount = name, error, "an effect of a call could not be carried out");
        }
    }
}
