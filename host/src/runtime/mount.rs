//! One mount in this process: its calls, its gate, its connections.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use super::backlog::{Backlog, wait_for};
use super::bindings::guest::exports::syncline::sync::mounts::{Closes, UpgradeAnswer};
use super::bindings::guest::exports::syncline::sync::{http, live, socket};
use super::bindings::guest::syncline::host::pubsub::{Member, Subscription};
use super::bindings::guest::syncline::host::types::{Header, RequestHead};
use super::budget::{Budget, IMPATIENCE, TIGHT_PATIENCE};
use super::connection::{Connection, split};
use super::effect::{Deferred, Effect};
use super::environment::Environment;
use super::fanout::DeliverJob;
use super::gate::{CallId, Gate, Release};
use super::instance::{Answer, InstancePool, Invocation};
use super::jobs::Jobs;
use super::limits::{SUBSCRIPTION_BYTES_MAX, SUBSCRIPTIONS_MAX, loggable};
use super::queue::Close;
use super::revision::{CurrentPlan, Revision};
use super::state::Call;
use super::topics::{Mode, Subscriber, SubscriptionLimits, TooManySubscriptions, Topics};
use crate::executor::{Database, DatabaseName, Executor, ExecutorError, GroupObserver};
use crate::metrics::Metrics;
use crate::pubsub::PubSub;
use crate::storage::Storage;

/// How often a call is run again because a database asked for it.
const RERUNS_MAX: u32 = 12;
/// Time for last publications, however short the drain is.
const STOP_TIME_MIN: Duration = Duration::from_secs(1);
/// How often it is looked at who holds most, while too much waits.
const BUDGET_PAUSE: Duration = Duration::from_millis(100);
/// Whoever holds less is not closed for it.
const FAT_BYTES_MIN: usize = 16 << 10;
/// How long what a client sent before it went away may still take.
const AFTERLIFE: Duration = Duration::from_secs(30);

const SUBSCRIPTION_LIMITS: SubscriptionLimits = SubscriptionLimits { topics: SUBSCRIPTIONS_MAX, bytes: SUBSCRIPTION_BYTES_MAX };

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
}

impl CallFailed {
    pub(crate) fn failure(self) -> live::Failure {
        match self {
            CallFailed::TimedOut => live::Failure::TimedOut,
            CallFailed::Trapped | CallFailed::NotDurable => live::Failure::Trapped,
        }
    }
}

/// A call that is over: its answer, and what is held for it.
pub(crate) struct Completed {
    pub(crate) call: CallId,
    pub(crate) answer: Answer,
    pub(crate) bundles: Vec<Vec<Effect>>,
}

/// What becomes of an upgrade.
pub(crate) enum Upgraded {
    /// The connection lives; `closing`: only to be told why not.
    Accepted { connection: Arc<Connection>, subprotocol: Option<String>, headers: Vec<Header>, closing: bool },
    /// It stays HTTP.
    Refused(Box<http::Response>),
    /// The host answers by itself.
    Host(UpgradeAnswer),
}

/// What a mount is made of.
pub(crate) struct MountParts {
    pub(crate) name: String,
    pub(crate) protocol: String,
    /// As configured.
    pub(crate) listen: String,
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) storage: Storage,
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) pubsub: Arc<dyn PubSub>,
    pub(crate) process: u64,
    pub(crate) environment: Arc<dyn Environment>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) pool: InstancePool,
    pub(crate) connection_ids: Arc<AtomicU64>,
}

/// One mount in this process.
pub(crate) struct MountCore {
    pub(crate) name: String,
    pub(crate) protocol: String,
    pub(crate) listen: String,
    pub(crate) storage: Storage,
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) runtime: Handle,
    pub(crate) environment: Arc<dyn Environment>,
    revision: RwLock<Arc<Revision>>,
    pub(super) pubsub: Arc<dyn PubSub>,
    pub(super) process: u64,
    pub(super) topics: Mutex<Topics>,
    pub(super) connections: RwLock<HashMap<u64, Arc<Connection>>>,
    /// Publications that the component is to encode, by topic; a topic that is here has somebody who works on it.
    pub(super) deliveries: Mutex<HashMap<String, VecDeque<DeliverJob>>>,
    executor: Arc<dyn Executor>,
    databases: tokio::sync::Mutex<HashMap<String, Arc<dyn Database>>>,
    pub(super) pool: InstancePool,
    pub(super) gate: Mutex<Gate<Effect>>,
    /// Held while released effects are applied, so that they are applied in order.
    applying: Mutex<()>,
    settled: Notify,
    deferred: mpsc::UnboundedSender<Deferred>,
    /// Deliveries and deferred effects that wait.
    pub(super) backlog: Backlog,
    /// What may wait in the queues of its connections.
    pub(crate) budget: Arc<Budget>,
    connection_ids: Arc<AtomicU64>,
    stopping: AtomicBool,
    pub(super) myself: Weak<MountCore>,
}

impl MountCore {
    /// A mount with its workers.
    pub(crate) fn new(parts: MountParts, revision: Arc<Revision>) -> Arc<Self> {
        let (deferred, deferred_work) = mpsc::unbounded_channel();
        let mount = Arc::new_cyclic(|myself| Self {
            name: parts.name,
            protocol: parts.protocol,
            listen: parts.listen,
            revision: RwLock::new(revision),
            storage: parts.storage,
            jobs: parts.jobs,
            metrics: parts.metrics,
            runtime: Handle::current(),
            environment: parts.environment,
            pubsub: parts.pubsub,
            process: parts.process,
            topics: Mutex::default(),
            connections: RwLock::default(),
            deliveries: Mutex::default(),
            executor: parts.executor,
            databases: tokio::sync::Mutex::default(),
            pool: parts.pool,
            gate: Mutex::default(),
            applying: Mutex::default(),
            settled: Notify::new(),
            deferred,
            backlog: Backlog::default(),
            budget: Arc::default(),
            connection_ids: parts.connection_ids,
            stopping: AtomicBool::new(false),
            myself: myself.clone(),
        });
        mount.runtime.spawn(keep_budget(Arc::downgrade(&mount), mount.budget.clone()));
        mount.runtime.spawn(carry_out_all(Arc::downgrade(&mount), deferred_work));
        mount
    }

    /// What runs now.
    pub(crate) fn revision(&self) -> Arc<Revision> {
        self.revision.read().clone()
    }

    /// The plan of what runs now.
    pub(crate) fn plan(&self) -> CurrentPlan {
        CurrentPlan(self.revision())
    }

    /// Runs something else from now on. Calls under way end on what they began with.
    pub(crate) fn exchange(&self, revision: Arc<Revision>) {
        *self.revision.write() = revision;
        self.pool.clear();
    }

    /// Time for a call that has no other deadline.
    pub(crate) fn call_deadline(&self) -> Duration {
        Duration::from_millis(self.plan().call_deadline_ms)
    }

    /// Time for a task.
    pub(crate) fn task_deadline(&self) -> Duration {
        let plan = self.plan();
        let own = plan.app_limits.as_ref().and_then(|limits| limits.task_ms);
        Duration::from_millis(own.unwrap_or(plan.call_deadline_ms))
    }

    /// How the host closes by itself.
    pub(crate) fn closes(&self) -> HostCloses {
        HostCloses::from(&self.plan().closes)
    }

    // Calls.

    /// Makes a call; what it lets out is held until [`MountCore::finish`].
    pub(crate) async fn run(self: &Arc<Self>, invocation: &Invocation, deadline: Duration) -> Result<Completed, CallFailed> {
        self.run_on(&self.revision(), invocation, deadline).await
    }

    async fn run_on(
        self: &Arc<Self>,
        revision: &Arc<Revision>,
        invocation: &Invocation,
        deadline: Duration,
    ) -> Result<Completed, CallFailed> {
        let started = Instant::now();
        let result = self.attempts(revision, invocation, deadline).await;
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
            let (answer, call) = lease
                .instance
                .invoke(Call::new(id, invocation.has_several_inputs(), invocation.has_quota()), deadline, invocation, failure)
                .await;
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
                        connection.close_now(self.closes().failed);
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
                self.fan_out(publication);
            }
            Effect::Send { connection, frame } => {
                let connection = self.connections.read().get(&connection).cloned();
                if connection.is_some_and(|connection| !connection.send(self.budget.hold_frame(frame), &self.closes().slow)) {
                    self.metrics.slow_reader(&self.name);
                }
            }
            Effect::Outcome { connection, call, released, after } => connection.release(call, released, after),
            // Whoever waited may have gone: then nobody is to be told.
            Effect::Permit(permit) => drop(permit.send(())),
            Effect::Deferred(work) => {
                self.backlog.add(work.bytes());
                // The worker ends with the mount.
                drop(self.deferred.send(work));
            }
        }
    }

    // What imports need.

    /// The full name of a database.
    pub(crate) fn database_name(&self, name: &str) -> DatabaseName {
        DatabaseName { mount: self.name.clone(), name: name.to_owned() }
    }

    /// A database, opened once.
    pub(crate) async fn database(&self, name: &str) -> Result<Arc<dyn Database>, ExecutorError> {
        let mut databases = self.databases.lock().await;
        if let Some(database) = databases.get(name) {
            return Ok(database.clone());
        }
        let observer = self.myself.upgrade().ok_or_else(|| ExecutorError::Unavailable("the mount is gone".into()))?;
        let observer: Arc<dyn GroupObserver> = Arc::new(WeakObserver(Arc::downgrade(&observer)));
        let opened = self.executor.open(&self.database_name(name), observer).await?;
        databases.insert(name.to_owned(), opened.clone());
        Ok(opened)
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

    async fn wait_until_settled(&self, groups: &[(String, u64)]) {
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

    pub(crate) fn subscribe(&self, connection: u64, subscription: Subscription) -> Result<(), TooManySubscriptions> {
        let mode = match subscription.mode {
            super::bindings::guest::syncline::host::pubsub::Mode::ForwardText => Mode::ForwardText,
            super::bindings::guest::syncline::host::pubsub::Mode::ForwardBinary => Mode::ForwardBinary,
            super::bindings::guest::syncline::host::pubsub::Mode::Deliver => Mode::Deliver,
            super::bindings::guest::syncline::host::pubsub::Mode::DeliverByCursor => Mode::DeliverByCursor,
        };
        let Subscription { topic, group, cursor, presence, .. } = subscription;
        let live = self.connections.read().get(&connection).cloned();
        // A connection that has gone meanwhile must not come back as a subscriber for ever.
        if let Some(live) = live {
            self.topics.lock().subscribe_within(connection, &topic, Subscriber { mode, group, cursor, presence }, SUBSCRIPTION_LIMITS)?;
            live.subscribed(&topic);
        }
        Ok(())
    }

    pub(crate) fn unsubscribe(&self, connection: u64, topic: &str) {
        self.topics.lock().unsubscribe(connection, topic);
        let live = self.connections.read().get(&connection).cloned();
        if let Some(live) = live {
            live.unsubscribed(topic);
        }
    }

    pub(crate) fn members(&self, topic: &str) -> Vec<Member> {
        let topics = self.topics.lock();
        let shown = |(connection, subscriber): (u64, &Subscriber)| Some(Member { connection, presence: subscriber.presence.clone()? });
        topics.subscribers(topic).filter_map(shown).collect()
    }

    pub(crate) fn cursors(&self, connection: u64) -> Vec<(String, u64)> {
        self.topics.lock().cursors(connection)
    }

    pub(crate) fn set_cursor(&self, connection: u64, topic: &str, cursor: u64) {
        self.topics.lock().set_cursor(connection, topic, cursor);
    }

    // What the server needs.

    /// Lets a revision create or migrate what the mount keeps.
    pub(crate) async fn start(self: &Arc<Self>, revision: &Arc<Revision>) -> Result<(), String> {
        if revision.plan.routes.is_empty() {
            return Ok(());
        }
        // Settings that no instance takes are told here, and not call by call.
        let configured = self.pool.take(self, revision, true).await;
        drop(configured.map_err(|error| format!("configure: {}", loggable(&error.root_cause().to_string())))?);
        let deadline = Duration::from_millis(revision.plan.call_deadline_ms);
        let mut cursor = None;
        loop {
            let started = self.run_on(revision, &Invocation::Start { cursor }, deadline).await;
            let completed = started.map_err(|error| error.to_string())?;
            self.finish_and_wait(completed.call, completed.bundles).await.map_err(|error| error.to_string())?;
            let Answer::Start(answer) = completed.answer else { return Err("start gave another answer".into()) };
            match answer? {
                None => return Ok(()),
                next => cursor = next,
            }
        }
    }

    /// A client wants a connection.
    pub(crate) async fn upgrade(self: &Arc<Self>, head: Arc<RequestHead>) -> Upgraded {
        let plan = self.plan();
        let upgrades = &plan.upgrades;
        if self.stopping.load(Ordering::Relaxed) {
            return Upgraded::Host(upgrades.failed.clone());
        }
        let limit = upgrades.max_connections.and_then(|limit| usize::try_from(limit).ok());
        if limit.is_some_and(|limit| self.connections.read().len() >= limit) {
            return Upgraded::Host(upgrades.full.clone());
        }
        let connection = Connection::new(self.new_id(), self);
        self.connections.write().insert(connection.id, connection.clone());
        let call = connection.start_upgrade();
        let invocation = Invocation::Upgrade { connection: connection.id, head };
        let answered = self.run(&invocation, Duration::from_millis(upgrades.deadline_ms)).await;
        let completed = match answered {
            Ok(completed) => completed,
            Err(error) => {
                self.forget(connection.id);
                let answer = if error == CallFailed::TimedOut { &upgrades.timed_out } else { &upgrades.failed };
                return Upgraded::Host(answer.clone());
            }
        };
        match completed.answer {
            Answer::Upgrade(socket::UpgradeResult::Accept(accept)) => {
                let mut start = accept.start;
                let closing = start.close.is_some();
                connection.end_upgrade(start.attachment.take());
                let (released, after) = split(start, &self.budget);
                let (permit, permitted) = oneshot::channel();
                let mut bundles = completed.bundles;
                let outcome = Effect::Outcome { connection: connection.clone(), call, released, after };
                bundles.push(vec![outcome, Effect::Permit(permit)]);
                self.finish(completed.call, bundles);
                if permitted.await.is_err() {
                    self.forget(connection.id);
                    return Upgraded::Host(upgrades.failed.clone());
                }
                Upgraded::Accepted { connection, subprotocol: accept.subprotocol, headers: accept.headers, closing }
            }
            Answer::Upgrade(socket::UpgradeResult::Refuse(response)) => {
                let released = self.finish_and_wait(completed.call, completed.bundles).await;
                self.forget(connection.id);
                if released.is_ok() { Upgraded::Refused(Box::new(response)) } else { Upgraded::Host(upgrades.failed.clone()) }
            }
            _ => Upgraded::Host(upgrades.failed.clone()),
        }
    }

    /// Decides from a request's head.
    pub(crate) async fn admit(self: &Arc<Self>, connection: u64, head: Arc<RequestHead>) -> Result<http::Admission, CallFailed> {
        let completed = self.run(&Invocation::Admit { connection, head }, self.call_deadline()).await?;
        self.finish_and_wait(completed.call, completed.bundles).await?;
        match completed.answer {
            Answer::Admission(admission) => Ok(admission),
            _ => Err(CallFailed::Trapped),
        }
    }

    /// Answers a request; when this returns, the answer may leave.
    pub(crate) async fn handle(
        self: &Arc<Self>,
        connection: u64,
        head: Arc<RequestHead>,
        context: Vec<u8>,
        body: http::BodyIn,
    ) -> Result<http::Response, CallFailed> {
        let completed = self.run(&Invocation::Handle { connection, head, context, body }, self.call_deadline()).await?;
        self.finish_and_wait(completed.call, completed.bundles).await?;
        match completed.answer {
            Answer::Response(response) => Ok(response),
            _ => Err(CallFailed::Trapped),
        }
    }

    /// A number for a connection or request.
    pub(crate) fn new_id(&self) -> u64 {
        self.connection_ids.fetch_add(1, Ordering::Relaxed)
    }

    /// The socket of a connection is gone. What it sent is still handled; then the component is told.
    pub(crate) fn disconnected(self: &Arc<Self>, connection: Arc<Connection>, code: u16) {
        connection.disconnected();
        self.topics.lock().remove(connection.id);
        self.metrics.disconnected(&self.name, code);
        let mount = self.clone();
        self.runtime.spawn(async move {
            let deadline = Instant::now() + AFTERLIFE;
            while !connection.is_idle() && !connection.is_closing() && Instant::now() < deadline {
                // Woken by every release; the pause only bounds how often a busy connection is looked at.
                let _ = tokio::time::timeout(Duration::from_millis(100), connection.progress()).await;
            }
            let closed = Invocation::Closed { connection: connection.as_called(&mount), code };
            if let Ok(completed) = mount.run(&closed, mount.call_deadline()).await {
                let _ = mount.finish_and_wait(completed.call, completed.bundles).await;
            }
            mount.forget(connection.id);
        });
    }

    fn forget(&self, connection: u64) {
        self.topics.lock().remove(connection);
        self.connections.write().remove(&connection);
        self.gate.lock().close_lane(connection);
    }

    /// Closes the connection that holds most, as a slow reader: where the budget is used up, or if nothing else helped.
    fn close_fattest(&self, anyway: bool) {
        let connections: Vec<_> = self.connections.read().values().cloned().collect();
        let (closing, open): (Vec<_>, Vec<_>) = connections.iter().partition(|connection| connection.is_closing());
        // What those that are being closed hold is as good as given back.
        let leaving: usize = closing.iter().map(|connection| connection.socket_bytes()).sum();
        if !anyway && self.budget.used().saturating_sub(leaving) <= self.budget.limit() {
            return;
        }
        let fattest = open.into_iter().map(|connection| (connection.waiting_bytes(), connection)).max_by_key(|(bytes, _)| *bytes);
        if let Some((bytes, fattest)) = fattest.filter(|(bytes, _)| *bytes >= FAT_BYTES_MIN) {
            tracing::warn!(mount = self.name, bytes, used = self.budget.used(), "too much waits: whoever holds most is closed");
            fattest.close_now(self.closes().slow);
            self.metrics.slow_reader(&self.name);
        }
    }

    /// How many connections are open.
    pub(crate) fn connection_count(&self) -> usize {
        self.connections.read().len()
    }

    /// Ends the mount: what was received is answered, then the sockets close.
    pub(crate) async fn stop(self: &Arc<Self>, drain_default: Duration) {
        self.stopping.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + self.plan().drain_ms.map_or(drain_default, Duration::from_millis);
        let time = deadline.saturating_duration_since(Instant::now()).max(STOP_TIME_MIN).min(self.call_deadline());
        if let Ok(completed) = self.run(&Invocation::Stop, time).await {
            let _ = self.finish_and_wait(completed.call, completed.bundles).await;
        }
        let mut connections: Vec<_> = self.connections.read().values().cloned().collect();
        connections.sort_by_key(|connection| connection.id);
        for connection in &connections {
            connection.drain();
        }
        let shutdown = self.closes().shutdown;
        for connection in connections {
            while !connection.is_idle() && !connection.is_closing() && Instant::now() < deadline {
                let _ = tokio::time::timeout(Duration::from_millis(20), connection.progress()).await;
            }
            connection.close_after_queue(shutdown.clone());
        }
        while self.connection_count() > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.pool.clear();
    }
}

/// An error of a component with its causes, for the log.
fn cause(error: &wasmtime::Error) -> String {
    loggable(&format!("{error:#}")).into_owned()
}

/// The closes of the plan, as the host keeps them.
pub(crate) struct HostCloses {
    pub(crate) slow: Close,
    pub(crate) idle: Close,
    pub(crate) too_large: Close,
    pub(crate) failed: Close,
    pub(crate) shutdown: Close,
}

impl From<&Closes> for HostCloses {
    fn from(closes: &Closes) -> Self {
        Self {
            slow: closes.slow.clone().into(),
            idle: closes.idle.clone().into(),
            too_large: closes.too_large.clone().into(),
            failed: closes.failed.clone().into(),
            shutdown: closes.shutdown.clone().into(),
        }
    }
}

/// Lets an executor tell a mount about groups without keeping it alive.
struct WeakObserver(Weak<MountCore>);

impl GroupObserver for WeakObserver {
    fn settled(&self, database: &DatabaseName, group: u64, durable: bool) {
        if let Some(mount) = self.0.upgrade() {
            if !durable {
                tracing::error!(mount = mount.name, database = database.name, group, "a group of transactions was lost");
            }
            mount.metrics.group_settled(&mount.name, durable);
            mount.gate.lock().settled(&database.name, group, durable);
            mount.settled.notify_waiters();
            mount.pump();
        }
    }
}

/// Closes whoever holds most where more waits than may, or where what waits does not go away.
async fn keep_budget(mount: Weak<MountCore>, budget: Arc<Budget>) {
    let mut in_vain: Option<Instant> = None;
    loop {
        budget.tight().await;
        let since = Instant::now();
        while budget.is_tight() {
            let Some(mount) = mount.upgrade() else { return };
            if since.elapsed() >= TIGHT_PATIENCE {
                in_vain = Some(Instant::now());
            }
            mount.close_fattest(in_vain.is_some_and(|then| then.elapsed() < IMPATIENCE));
            drop(mount);
            // The pause only bounds how often the connections are looked at.
            let _ = tokio::time::timeout(BUDGET_PAUSE, budget.roomy()).await;
        }
    }
}

/// Carries out effects that need IO, in the order in which they were released.
async fn carry_out_all(mount: Weak<MountCore>, mut work: mpsc::UnboundedReceiver<Deferred>) {
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
            Deferred::CancelJob { name: job } => mount.jobs.cancel(name, job).await.map_err(|error| error.to_string()),
        };
        mount.backlog.remove(deferred.bytes());
        if let Err(error) = done {
            tracing::error!(mount = name, error, "an effect of a call could not be carried out");
        }
    }
}
