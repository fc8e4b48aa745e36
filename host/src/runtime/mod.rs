//! The run time: the component's instances, the calls, and what they let out.
//!
//! From a frame to the disk and back: `connection` queues the input and calls an `instance`; the component writes
//! through `imports`; what it lets out waits in the [`gate`] until the executor reports its group as durable (`mount`);
//! then it is applied: publications by `fanout` to the [`queue`]s of their subscribers, frames to the connection's own.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::RwLock;

use crate::executor::{Executor, ExecutorError};
use crate::metrics::Metrics;
use crate::outbound::HttpClient;
use crate::pubsub::PubSub;
use crate::storage::Storage;

mod backlog;
pub(crate) mod bindings;
mod budget;
mod calls;
mod checker;
mod clients;
mod connection;
mod documents;
mod effect;
mod engine;
pub mod environment;
mod fanout;
pub mod gate;
mod heavy;
pub mod imports;
pub mod in_process;
mod instance;
mod jobs;
mod leaving;
pub mod limits;
mod mount;
mod object_cache;
mod objects;
mod observe;
mod outbox;
mod pieces;
pub mod queue;
mod quota;
mod ready;
mod refill;
mod reload;
mod remote;
mod requests;
mod revision;
pub mod sequences;
mod standard_error;
mod state;
mod streams;
pub mod topics;
pub mod watched;

pub use checker::{Checker, MountDescription};
pub use engine::EngineSettings;
pub use observe::MountStatus;
pub use pieces::BrokenOff;
pub use reload::{MountChange, Reloaded};

pub(crate) use bindings::guest::exports::syncline::sync::{http, mounts as plans};
pub(crate) use bindings::guest::syncline::host::types as wit_types;
pub(crate) use budget::Charge;
pub(crate) use calls::CallFailed;
pub(crate) use clients::Upgraded;
pub(crate) use connection::Connection;
pub(crate) use instance::{Answer, Invocation};
pub(crate) use mount::MountCore;
pub(crate) use pieces::Pieces;
pub(crate) use remote::{Remote, RemoteMount};
pub(crate) use requests::{Admitted, AnswerBody, Answered, Asker, Unanswered};

use checker::Checked;
use documents::Documents;
use environment::{Environment, SystemEnvironment};
use heavy::HeavyCalls;
use instance::InstancePool;
use jobs::Jobs;
use mount::{FIRST_REVISION, MountParts};
use outbox::Outbox;
use quota::Quota;

/// How long the last publications may take to leave.
const PUBLISH_MAX: Duration = Duration::from_secs(2);

/// Stands for the host itself where mounts have their names: no mount may have it.
pub(crate) const OWN_NAME: &str = "syncline";

/// The component that is built into the host.
pub const GUEST_COMPONENT: &[u8] = include_bytes!(env!("SYNCLINE_GUEST_COMPONENT"));
/// The app component of a mount that names none.
pub const EMPTY_APP_COMPONENT: &[u8] = include_bytes!(env!("SYNCLINE_EMPTY_APP_COMPONENT"));

/// What apps act through, to be composed with them.
pub const SERVICES_COMPONENT: &[u8] = include_bytes!(env!("SYNCLINE_SERVICES_COMPONENT"));

/// Why the run time does not start.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The engine cannot be made on this machine.
    #[error("the WebAssembly engine: {0}")]
    Engine(String),
    /// A component cannot be used: it is broken, or wants what no host gives.
    #[error("the component: {0}")]
    Component(String),
    /// Settings of a mount are wrong; one line a problem.
    #[error("settings of mount {mount:?} are not valid:\n  {}", problems.join("\n  "))]
    Settings {
        /// The mount.
        mount: String,
        /// Each names its key.
        problems: Vec<String>,
    },
    /// A mount names a protocol that the component does not speak.
    #[error("mount {mount:?}: {problem}")]
    Protocol {
        /// The mount.
        mount: String,
        /// Names those that it speaks.
        problem: String,
    },
    /// A mount is named as the host names what is its own.
    #[error("a mount cannot be named {0:?}, which stands for the server itself; give it another `name`")]
    ReservedName(String),
    /// Two mounts want the same route.
    #[error("mounts {first:?} and {second:?} both want {path:?} on {listen}")]
    Conflict {
        /// The mount that has it.
        first: String,
        /// The mount that wants it too.
        second: String,
        /// The path.
        path: String,
        /// The listener.
        listen: String,
    },
    /// Two mounts have the same name.
    #[error("two mounts are named {0:?}; give one of them a `name` of its own")]
    SameName(String),
    /// A mount could not create or migrate what it keeps.
    #[error("mount {mount:?} does not start: {reason}")]
    Start {
        /// The mount.
        mount: String,
        /// Why.
        reason: String,
    },
    /// The executor does not work.
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    /// An app component cannot be read.
    #[error("app component {path:?} of mount {mount:?}: {reason}")]
    App {
        /// The mount.
        mount: String,
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A reload asks for what only a restart can do.
    #[error("mount {mount:?}: {what} cannot be changed by a reload; restart the server")]
    NeedsRestart {
        /// The mount.
        mount: String,
        /// What was changed.
        what: &'static str,
    },
    /// The calls of the mounts are made elsewhere: there is nothing to be reloaded here.
    #[error("the mounts are those of another server; reload that one")]
    Elsewhere,
    /// The metrics cannot be registered.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
}

impl RuntimeError {
    fn engine(error: wasmtime::Error) -> Self {
        Self::Engine(format!("{error:#}"))
    }
    fn component(error: wasmtime::Error) -> Self {
        Self::Component(format!("{error:#}"))
    }
}

/// A mount as it is configured.
#[derive(Clone, Debug)]
pub struct MountSettings {
    /// Its name: data namespace and label of its metrics.
    pub name: String,
    /// The protocol.
    pub protocol: String,
    /// The settings of the protocol, `path` among them.
    pub settings: serde_json::Map<String, serde_json::Value>,
    /// Its app component, if it has one.
    pub app: Option<PathBuf>,
    /// The listener that its routes are on.
    pub listen: String,
    /// Bytes that its databases and objects may hold together; none: no limit.
    pub quota_bytes: Option<u64>,
}

/// What the run time stands on.
#[derive(Clone)]
pub struct Backends {
    /// SQL.
    pub executor: Arc<dyn Executor>,
    /// Key-value and objects.
    pub storage: Storage,
    /// Publications between processes.
    pub pubsub: Arc<dyn PubSub>,
}

/// How the run time is set.
#[derive(Clone, Debug)]
pub struct RuntimeSettings {
    /// Limits of instances.
    pub engine: EngineSettings,
    /// Calls of one mount that may run at once.
    pub calls_per_mount: usize,
    /// Requests of one mount that run at once of which nobody knows how much they ask for (queries that clients write); others
    /// wait. As many as the machine has cores, so that threads are left for the usual ones.
    pub heavy_calls_per_mount: usize,
    /// Time for a call of an app, in milliseconds.
    pub app_call_ms: u64,
    /// Time for what was received when the process stops, where the protocol says nothing.
    pub drain: Duration,
    /// Where compiled code is kept; none: nowhere.
    pub cache: Option<PathBuf>,
    /// What the folders that settings of mounts name are relative to; empty: the working folder.
    pub folders_in: PathBuf,
    /// Time and randomness.
    pub environment: Arc<dyn Environment>,
}

impl Default for RuntimeSettings {
    fn default() -> Self {
        Self {
            engine: EngineSettings::default(),
            calls_per_mount: 64,
            heavy_calls_per_mount: std::thread::available_parallelism().map_or(2, usize::from),
            app_call_ms: 1000,
            drain: Duration::from_secs(5),
            cache: None,
            folders_in: PathBuf::new(),
            environment: Arc::new(SystemEnvironment),
        }
    }
}

impl RuntimeSettings {
    /// Enough instances that mounts, and some that come with a reload, cannot take them from each other: in each of its
    /// calls one of the logic and one of the app.
    fn with_room_for(&self, mounts: usize) -> Self {
        let calls = mounts.saturating_add(2).saturating_mul(self.calls_per_mount);
        let mut settings = self.clone();
        settings.engine.instances = settings.engine.instances.max(u32::try_from(calls.saturating_mul(2)).unwrap_or(u32::MAX));
        settings
    }
}

/// All mounts of a process.
pub struct Runtime {
    mounts: RwLock<Vec<Arc<MountCore>>>,
    backends: Backends,
    jobs: Arc<Jobs>,
    outbox: Arc<Outbox>,
    http: Arc<HttpClient>,
    metrics: Arc<Metrics>,
    process: u64,
    connection_ids: Arc<AtomicU64>,
    settings: RuntimeSettings,
    /// The code that runs. Its engine's clock ticks as long as it lives: deadlines hang on it. Locked while a reload runs.
    ///
    /// None where the calls are made elsewhere.
    checker: tokio::sync::Mutex<Option<Checker>>,
}

impl Runtime {
    /// Checks and starts mounts on backends.
    pub async fn start(
        component: &[u8],
        settings: RuntimeSettings,
        mounts: &[MountSettings],
        backends: Backends,
    ) -> Result<Arc<Self>, RuntimeError> {
        let checker = Checker::new(component, settings.with_room_for(mounts.len()))?;
        let checked = checker.check_all(mounts).await?;
        for warning in mounts.iter().zip(&checked).flat_map(|(mount, checked)| checked.warnings(&mount.name)) {
            tracing::warn!("{warning}");
        }
        let jobs = Arc::new(Jobs::open(&*backends.executor, settings.environment.clone()).await?);
        let http = Arc::new(HttpClient::default());
        let outbox = Arc::new(Outbox::new(backends.executor.clone(), http.clone()));
        let runtime = Arc::new(Self {
            mounts: RwLock::default(),
            backends,
            jobs: jobs.clone(),
            outbox,
            http,
            metrics: Arc::new(Metrics::new()?),
            process: settings.environment.random(),
            // Ids start at random, so that those of other processes and of earlier starts are others.
            connection_ids: Arc::new(AtomicU64::new(settings.environment.random() >> 2)),
            settings,
            checker: tokio::sync::Mutex::new(Some(checker)),
        });
        for (mount, checked) in mounts.iter().zip(checked) {
            let core = runtime.add(mount, checked).await?;
            runtime.mounts.write().push(core);
        }
        tokio::spawn(jobs.run(Arc::downgrade(&runtime)));
        let inbound = Arc::new(refill::Inbound(Arc::downgrade(&runtime)));
        runtime.backends.pubsub.attach(runtime.process, inbound);
        Ok(runtime)
    }

    /// What a mount of this process is made of.
    fn parts(&self, name: &str, protocol: &str, listen: &str) -> MountParts {
        MountParts {
            name: name.to_owned(),
            protocol: protocol.to_owned(),
            listen: listen.to_owned(),
            executor: self.backends.executor.clone(),
            storage: self.backends.storage.clone(),
            folders_in: self.settings.folders_in.clone(),
            jobs: self.jobs.clone(),
            outbox: self.outbox.clone(),
            documents: Arc::new(Documents::new(name, self.backends.storage.keyvalue.clone(), self.http.clone())),
            pubsub: self.backends.pubsub.clone(),
            process: self.process,
            environment: self.settings.environment.clone(),
            metrics: self.metrics.clone(),
            pool: InstancePool::new(
                self.settings.engine.instance_memory_bytes,
                self.settings.engine.instance_keep_bytes,
                self.settings.calls_per_mount,
            ),
            heavy: HeavyCalls::new(self.settings.heavy_calls_per_mount),
            connection_ids: self.connection_ids.clone(),
        }
    }

    /// Makes a mount that is not there yet, and lets it create or migrate what it keeps.
    async fn add(&self, mount: &MountSettings, checked: Checked) -> Result<Arc<MountCore>, RuntimeError> {
        let parts = self.parts(&mount.name, &mount.protocol, &mount.listen);
        let documents = parts.documents.clone();
        documents.fetch_new(&checked.plan.documents).await;
        self.metrics.start_mount(&mount.name, Invocation::EXPORTS);
        let core = MountCore::new(parts, checked.into_revision(FIRST_REVISION, self.quota_of(mount).await?, &documents));
        core.start(&core.revision()).await.map_err(|reason| RuntimeError::Start { mount: mount.name.clone(), reason })?;
        core.keep_posting();
        Ok(core)
    }

    /// The quota of a mount, what is there added up; none: no limit.
    async fn quota_of(&self, mount: &MountSettings) -> Result<Option<Arc<Quota>>, RuntimeError> {
        let Some(bytes_max) = mount.quota_bytes else { return Ok(None) };
        let opened = Quota::open(&mount.name, bytes_max, self.backends.executor.clone(), &*self.backends.storage.objects).await;
        opened.map(Arc::new).map(Some).map_err(|reason| RuntimeError::Start { mount: mount.name.clone(), reason })
    }

    /// The mounts.
    pub(crate) fn mounts(&self) -> Vec<Arc<MountCore>> {
        self.mounts.read().clone()
    }

    pub(crate) fn mount(&self, name: &str) -> Option<Arc<MountCore>> {
        self.mounts.read().iter().find(|mount| mount.name == name).cloned()
    }

    /// The metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// What the mounts stand on.
    pub fn backends(&self) -> &Backends {
        &self.backends
    }

    /// Ends all mounts: what was received is answered, sockets close, data is settled.
    pub async fn stop(&self) {
        let mut stopping = tokio::task::JoinSet::new();
        for mount in self.mounts() {
            let drain = self.settings.drain;
            stopping.spawn(async move { mount.stop(drain).await });
        }
        while stopping.join_next().await.is_some() {}
        if tokio::time::timeout(PUBLISH_MAX, self.backends.pubsub.flush()).await.is_err() {
            tracing::warn!("last publications could not be sent to other servers");
        }
        self.backends.pubsub.detach(self.process);
        self.backends.executor.close().await;
    }
}
