//! One mount in this process: what it is made of, how it starts and stops. Its calls are in `calls.rs`, its clients in
//! `clients.rs`.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::Instant;

use super::backlog::Backlog;
use super::bindings::guest::syncline::host::pubsub::{Member, Subscription};
use super::budget::Budget;
use super::calls::{WeakObserver, carry_out_all};
use super::clients::keep_budget;
use super::connection::Connection;
use super::documents::{Documents, keep_fresh};
use super::effect::{Deferred, Effect};
use super::environment::Environment;
use super::fanout::DeliverJob;
use super::gate::Gate;
use super::heavy::HeavyCalls;
use super::instance::{Answer, InstancePool, Invocation};
use super::jobs::Jobs;
use super::leaving::Leaving;
use super::limits::{LONG_CALL, loggable};
use super::object_cache::ObjectCache;
use super::outbox::{MountOutbox, Outbox};
use super::queue::Frame;
use super::refill::{Inflow, REFILLS_AT_ONCE, keep_watch};
use super::revision::{CurrentPlan, HostCloses, Revision};
use super::topics::{Mode, Subscriber, TooManySubscriptions, Topics};
use crate::executor::{Database, DatabaseName, Executor, ExecutorError, GroupObserver, TransactionTime};
use crate::metrics::{Metrics, Traffic};
use crate::pubsub::PubSub;
use crate::storage::Storage;
use crate::storage::folders::WithFolders;

/// The number of the revision that a mount begins with.
pub(super) const FIRST_REVISION: u64 = 1;
/// Time for last publications, however short the drain is.
const STOP_TIME_MIN: Duration = Duration::from_secs(1);

/// What a mount is made of.
pub(crate) struct MountParts {
    pub(crate) name: String,
    pub(crate) protocol: String,
    /// As configured.
    pub(crate) listen: String,
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) storage: Storage,
    pub(crate) folders_in: PathBuf,
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) documents: Arc<Documents>,
    pub(crate) pubsub: Arc<dyn PubSub>,
    pub(crate) process: u64,
    pub(crate) environment: Arc<dyn Environment>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) pool: InstancePool,
    pub(crate) heavy: HeavyCalls,
    pub(crate) connection_ids: Arc<AtomicU64>,
}

/// One mount in this process.
pub(crate) struct MountCore {
    pub(crate) name: String,
    pub(crate) protocol: String,
    pub(crate) listen: String,
    /// The files of its folders among the objects.
    pub(crate) storage: Storage,
    folders: Arc<WithFolders>,
    /// What the paths of its folders are relative to.
    folders_in: PathBuf,
    pub(crate) jobs: Arc<Jobs>,
    pub(super) outbox: Arc<Outbox>,
    /// What it is to post.
    pub(super) posts: MountOutbox,
    pub(super) documents: Arc<Documents>,
    /// The number of the last revision that was made.
    revision_number: AtomicU64,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) traffic: Traffic,
    pub(crate) runtime: Handle,
    pub(crate) environment: Arc<dyn Environment>,
    revision: RwLock<Arc<Revision>>,
    pub(super) pubsub: Arc<dyn PubSub>,
    pub(super) process: u64,
    pub(super) topics: Mutex<Topics>,
    pub(super) connections: RwLock<HashMap<u64, Arc<Connection>>>,
    /// Those of them whose sockets are gone, and that are not done.
    pub(super) leaving: Arc<Leaving>,
    /// What is known of publications before they are brought to subscribers. Locked before the topics.
    pub(super) inflow: Mutex<Inflow>,
    pub(super) refills: Semaphore,
    /// What is watched is to be looked at.
    pub(super) watch_now: Arc<Notify>,
    /// Whether other processes may write to its databases.
    pub(super) shares_databases: bool,
    /// Publications that the component is to encode, by topic; a topic that is here has somebody who works on it.
    pub(super) deliveries: Mutex<HashMap<String, VecDeque<DeliverJob>>>,
    executor: Arc<dyn Executor>,
    databases: tokio::sync::Mutex<HashMap<String, Arc<dyn Database>>>,
    pub(super) pool: InstancePool,
    pub(super) heavy: HeavyCalls,
    pub(super) gate: Mutex<Gate<Effect>>,
    /// Held while released effects are applied, so that they are applied in order.
    pub(super) applying: Mutex<()>,
    pub(super) settled: Notify,
    pub(super) deferred: mpsc::UnboundedSender<Deferred>,
    /// Deliveries and deferred effects that wait.
    pub(super) backlog: Backlog,
    /// Objects that were sent.
    pub(super) object_cache: Mutex<ObjectCache>,
    /// What may wait in the queues of its connections.
    pub(crate) budget: Arc<Budget>,
    pub(super) connection_ids: Arc<AtomicU64>,
    pub(super) stopping: AtomicBool,
    pub(super) myself: Weak<MountCore>,
}

impl MountCore {
    /// A mount with its workers.
    pub(crate) fn new(parts: MountParts, revision: Arc<Revision>) -> Arc<Self> {
        let (deferred, deferred_work) = mpsc::unbounded_channel();
        let folders = Arc::new(WithFolders::new(parts.storage.objects));
        folders.exchange(revision.folders(&parts.folders_in));
        let mount = Arc::new_cyclic(|myself| Self {
            traffic: parts.metrics.traffic(&parts.name),
            name: parts.name,
            protocol: parts.protocol,
            listen: parts.listen,
            revision: RwLock::new(revision),
            storage: Storage { keyvalue: parts.storage.keyvalue, objects: folders.clone() },
            folders,
            folders_in: parts.folders_in,
            jobs: parts.jobs,
            outbox: parts.outbox,
            posts: MountOutbox::default(),
            documents: parts.documents,
            revision_number: AtomicU64::new(FIRST_REVISION),
            metrics: parts.metrics,
            runtime: Handle::current(),
            environment: parts.environment,
            pubsub: parts.pubsub,
            process: parts.process,
            topics: Mutex::default(),
            connections: RwLock::default(),
            leaving: Arc::default(),
            inflow: Mutex::default(),
            refills: Semaphore::new(REFILLS_AT_ONCE),
            watch_now: Arc::default(),
            shares_databases: parts.executor.is_shared(),
            deliveries: Mutex::default(),
            executor: parts.executor,
            databases: tokio::sync::Mutex::default(),
            pool: parts.pool,
            heavy: parts.heavy,
            gate: Mutex::default(),
            applying: Mutex::default(),
            settled: Notify::new(),
            deferred,
            backlog: Backlog::default(),
            object_cache: Mutex::default(),
            budget: Arc::default(),
            connection_ids: parts.connection_ids,
            stopping: AtomicBool::new(false),
            myself: myself.clone(),
        });
        mount.runtime.spawn(keep_budget(Arc::downgrade(&mount), mount.budget.clone()));
        mount.runtime.spawn(carry_out_all(Arc::downgrade(&mount), deferred_work));
        mount.runtime.spawn(keep_fresh(Arc::downgrade(&mount), mount.documents.clone()));
        if mount.is_one_of_several() {
            mount.runtime.spawn(keep_watch(Arc::downgrade(&mount)));
        }
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
        self.folders.exchange(revision.folders(&self.folders_in));
        *self.revision.write() = revision;
        self.pool.clear();
        self.documents.look_again();
    }

    /// The same, if what runs now is still what the new revision was made of.
    pub(super) fn exchange_from(&self, current: &Arc<Revision>, revision: Arc<Revision>) -> bool {
        let mut running = self.revision.write();
        let unchanged = Arc::ptr_eq(&running, current);
        if unchanged {
            *running = revision;
            drop(running);
            self.pool.clear();
        }
        unchanged
    }

    /// A number that no revision had.
    pub(super) fn next_revision_number(&self) -> u64 {
        self.revision_number.fetch_add(1, Ordering::Relaxed) + 1
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

    /// How long the transactions of a call may take.
    pub(crate) fn transaction_time(&self, call_is_long: bool) -> TransactionTime {
        let own = self.plan().app_limits.as_ref().and_then(|limits| limits.transaction_ms);
        match own {
            _ if call_is_long => TransactionTime::Long(LONG_CALL),
            Some(own_ms) => TransactionTime::Open(Duration::from_millis(own_ms)),
            None => TransactionTime::AsSet,
        }
    }

    /// What the host answers to a text by itself.
    pub(crate) fn auto_reply(&self, text: &str) -> Option<Frame> {
        let plan = self.plan();
        let (_, answer) = plan.auto_replies.iter().find(|(asked, _)| asked == text)?;
        Some(Frame::Text(self.budget.hold(answer.clone().into())))
    }

    /// How the host closes by itself.
    pub(crate) fn closes(&self) -> Arc<HostCloses> {
        self.revision.read().closes.clone()
    }

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
            self.begin_subscription(connection, live.running_call(), &topic, Subscriber { mode, group, cursor, presence })?;
            live.subscribed(&topic);
        }
        Ok(())
    }

    pub(crate) fn unsubscribe(&self, connection: u64, topic: &str) {
        self.end_subscriptions(connection, Some(topic));
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

    /// Lets a revision create or migrate what the mount keeps.
    pub(crate) async fn start(self: &Arc<Self>, revision: &Arc<Revision>) -> Result<(), String> {
        if revision.plan.routes.is_empty() {
            return Ok(());
        }
        // Settings that no instance takes are told here, and not call by call.
        let configured = self.pool.take(self, revision, true).await;
        drop(configured.map_err(|error| format!("configure: {}", loggable(&error.root_cause().to_string())))?);
        let mut cursor = None;
        loop {
            let started = self.run_on(revision, &Invocation::Start { cursor }, LONG_CALL).await;
            let completed = started.map_err(|error| error.to_string())?;
            self.finish_and_wait(completed.call, completed.bundles).await.map_err(|error| error.to_string())?;
            let Answer::Start(answer) = completed.answer else { return Err("start gave another answer".into()) };
            match answer? {
                None => return Ok(()),
                next => cursor = next,
            }
        }
    }

    /// Whether the mount stops.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// How many connections are open.
    pub(crate) fn connection_count(&self) -> usize {
        self.connections.read().len()
    }

    /// Ends the mount: what was received is answered, then the sockets close.
    pub(crate) async fn stop(self: &Arc<Self>, drain_default: Duration) {
        self.stopping.store(true, Ordering::Relaxed);
        // Whoever refreshes them ends.
        self.documents.look_again();
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
        let shutdown = self.closes().shutdown.clone();
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
