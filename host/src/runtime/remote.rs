//! Mounts whose calls are made elsewhere: here are their connections, queues and subscribers, and no code.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};

use super::calls::Completed;
use super::instance::Answer;
use super::jobs::Jobs;
use super::mount::FIRST_REVISION;
use super::outbox::Outbox;
use super::plans::Plan;
use super::queue::Close;
use super::revision::{Code, HostCloses, Identity, Revision};
use super::{Backends, CallFailed, Invocation, MountCore, Runtime, RuntimeError, RuntimeSettings, limits};
use crate::metrics::Metrics;
use crate::outbound::HttpClient;

/// Whoever makes the calls of a mount.
#[async_trait]
pub(crate) trait Remote: Send + Sync + 'static {
    /// Makes a call. When this returns what it let out is durable, its publications were brought to the mount, and so were
    /// its subscriptions: see [`MountCore::fan_out`] and [`MountCore::subscribe`].
    async fn call(&self, mount: &Arc<MountCore>, invocation: &Invocation, deadline: Duration) -> Result<Answer, CallFailed>;
}

/// A mount as it is described by whoever makes its calls.
pub(crate) struct RemoteMount {
    pub(crate) name: String,
    pub(crate) protocol: String,
    /// The listener that its routes are on.
    pub(crate) listen: String,
    pub(crate) plan: Plan,
    pub(crate) remote: Arc<dyn Remote>,
}

impl RemoteMount {
    fn revision(self, number: u64) -> Arc<Revision> {
        let plan = limits::within_limits(self.plan);
        let identity = Identity {
            component_digest: [0; 32],
            app_digest: Sha256::digest(format!("{plan:?}")).into(),
            settings: String::new(),
            quota_bytes: None,
        };
        let (closes, code) = (Arc::new(HostCloses::from(&plan.closes)), Code::Remote(self.remote));
        Arc::new(Revision { number, plan, closes, code, quota: None, documents: Vec::new(), identity })
    }
}

impl MountCore {
    /// Has a call made elsewhere. Nothing is held for it here: it was let out there.
    pub(super) async fn ask(
        self: &Arc<Self>,
        remote: &dyn Remote,
        invocation: &Invocation,
        deadline: Duration,
    ) -> Result<Completed, CallFailed> {
        if invocation.adds_work() {
            self.backlog.room().await;
        }
        let call = self.gate.lock().open(invocation.lane());
        match remote.call(self, invocation, deadline).await {
            Ok(answer) => Ok(Completed { call, answer, bundles: Vec::new() }),
            Err(error) => {
                self.gate.lock().fail(call);
                Err(error)
            }
        }
    }

    /// Whether a connection is held here.
    pub(crate) fn holds(&self, connection: u64) -> bool {
        self.connections.read().contains_key(&connection)
    }

    /// The connections that are held here.
    pub(crate) fn held(&self) -> Vec<u64> {
        self.connections.read().keys().copied().collect()
    }

    /// Whether a connection listens to a topic already.
    pub(crate) fn listens(&self, connection: u64, topic: &str) -> bool {
        self.topics.lock().subscriber(topic, connection).is_some()
    }

    /// Whether nobody listens to anything.
    pub(crate) fn nobody_listens(&self) -> bool {
        self.topics.lock().is_empty()
    }

    /// The call of a connection that runs has its place among what was published: later publications follow its effects.
    pub(crate) fn placed(&self, connection: u64, through: u64) {
        if let Some(connection) = self.connections.read().get(&connection) {
            connection.placed(through);
        }
    }

    /// A frame to one connection, from outside any call.
    pub(crate) fn send_to(&self, connection: u64, frame: super::queue::Frame) {
        let connection = self.connections.read().get(&connection).cloned();
        if connection.is_some_and(|connection| !connection.send(self.budget.hold_frame(frame), &self.closes().slow)) {
            self.metrics.slow_reader(&self.name);
        }
    }

    /// Closes a connection, so that its client catches up by its protocol.
    pub(crate) fn close_as_failed(&self, connection: u64) {
        let connection = self.connections.read().get(&connection).cloned();
        if let Some(connection) = connection {
            connection.close_now(self.closes().failed.clone());
        }
    }

    /// Closes everybody who listens to anything: something was published that cannot be had any more.
    pub(crate) fn close_listeners(&self) {
        let failed: Close = self.closes().failed.clone();
        let connections: Vec<_> = self.connections.read().values().cloned().collect();
        for connection in connections {
            if !self.topics.lock().of(connection.id).is_empty() {
                connection.close_now(failed.clone());
            }
        }
    }
}

impl Runtime {
    /// A run time without code or mounts: [`Runtime::exchange_remote`] brings them.
    pub(crate) async fn without_code(settings: RuntimeSettings, backends: Backends) -> Result<Arc<Self>, RuntimeError> {
        let http = Arc::new(HttpClient::default());
        Ok(Arc::new(Self {
            mounts: parking_lot::RwLock::default(),
            jobs: Arc::new(Jobs::none(&*backends.executor, settings.environment.clone()).await?),
            outbox: Arc::new(Outbox::new(backends.executor.clone(), http.clone())),
            backends,
            http,
            metrics: Arc::new(Metrics::new()?),
            process: settings.environment.random(),
            connection_ids: Arc::new(AtomicU64::new(settings.environment.random() >> 2)),
            settings,
            checker: tokio::sync::Mutex::new(None),
        }))
    }

    /// The number of this process.
    pub(crate) fn process(&self) -> u64 {
        self.process
    }

    /// Exchanges all mounts for those that are described. Connections of mounts that stay are kept; those of mounts that are
    /// gone, or speak another protocol now, are closed in order.
    pub(crate) fn exchange_remote(&self, described: Vec<RemoteMount>) {
        let mut mounts = Vec::with_capacity(described.len());
        for mount in described {
            let same = self.mount(&mount.name).filter(|core| core.protocol == mount.protocol);
            mounts.push(match same {
                Some(core) => {
                    let next = mount.revision(core.next_revision_number());
                    if core.revision().identity != next.identity {
                        core.exchange(next);
                    }
                    core
                }
                None => {
                    self.metrics.start_mount(&mount.name, Invocation::EXPORTS);
                    let parts = self.parts(&mount.name, &mount.protocol, &mount.listen);
                    MountCore::new(parts, mount.revision(FIRST_REVISION))
                }
            });
        }
        let before = std::mem::replace(&mut *self.mounts.write(), mounts.clone());
        for gone in before.into_iter().filter(|before| !mounts.iter().any(|mount| Arc::ptr_eq(mount, before))) {
            let drain = self.settings.drain;
            // Whoever brings the new mounts has more to do than to wait for the sockets of old ones.
            tokio::spawn(async move { gone.stop(drain).await });
        }
    }
}
