//! The run time: the component's instances, the calls, and what they let out.
//!
//! From a frame to the disk and back: `connection` queues the input and calls an `instance`; the component writes
//! through `imports`; what it lets out waits in the [`gate`] until the executor reports its group as durable (`mount`);
//! then it is applied: publications by `fanout` to the [`queue`]s of their subscribers, frames to the connection's own.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use wasmtime::Store;
use wasmtime::component::Component;

use crate::executor::{Executor, ExecutorError};
use crate::metrics::Metrics;
use crate::pubsub::PubSub;
use crate::storage::Storage;

mod backlog;
pub(crate) mod bindings;
mod connection;
mod effect;
mod engine;
mod fanout;
pub mod gate;
pub mod imports;
mod instance;
mod jobs;
mod mount;
pub mod queue;
mod state;
pub mod topics;

pub use engine::EngineSettings;

pub(crate) use bindings::guest::exports::syncline::sync::{http, mounts as plans};
pub(crate) use bindings::guest::syncline::host::types as wit_types;
pub(crate) use connection::Connection;
pub(crate) use mount::{CallFailed, MountCore, Upgraded};

use bindings::guest::GuestPre;
use engine::RuntimeEngine;
use imports::app::App;
use instance::InstancePool;
use jobs::Jobs;
use mount::MountParts;
use state::{State, bound};

/// The component that is built into the host.
pub const GUEST_COMPONENT: &[u8] = include_bytes!(env!("SYNCLINE_GUEST_COMPONENT"));
/// The app component of a mount that names none.
pub const EMPTY_APP_COMPONENT: &[u8] = include_bytes!(env!("SYNCLINE_EMPTY_APP_COMPONENT"));

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
    /// Time for a call of an app, in milliseconds.
    pub app_call_ms: u64,
    /// Time for what was received when the process stops, where the protocol says nothing.
    pub drain: Duration,
    /// Where compiled code is kept; none: nowhere.
    pub cache: Option<PathBuf>,
}

impl Default for RuntimeSettings {
    fn default() -> Self {
        Self { engine: EngineSettings::default(), calls_per_mount: 64, app_call_ms: 1000, drain: Duration::from_secs(5), cache: None }
    }
}

/// Checks settings of mounts without touching anything.
pub struct Checker {
    engine: RuntimeEngine,
    pre: GuestPre<State>,
    settings: RuntimeSettings,
}

impl Checker {
    /// Compiles a component.
    pub fn new(component: &[u8], settings: RuntimeSettings) -> Result<Self, RuntimeError> {
        let engine = RuntimeEngine::new(&settings.engine, settings.cache.as_deref())?;
        let compiled = engine.compile(component)?;
        let pre = engine.prepare_guest(&compiled)?;
        Ok(Self { engine, pre, settings })
    }

    /// The plan of a mount, or what is wrong with its settings.
    pub(crate) async fn check(&self, mount: &MountSettings) -> Result<plans::Plan, RuntimeError> {
        let mut store = Store::new(self.pre.engine(), State::unbound(self.settings.engine.instance_memory_bytes));
        bound(&mut store);
        store.data_mut().deadline = Instant::now() + Duration::from_secs(10);
        let guest = self.pre.instantiate_async(&mut store).await.map_err(RuntimeError::component)?;
        let settings = serde_json::Value::Object(mount.settings.clone()).to_string();
        let checked = guest.syncline_sync_mounts().call_check(&mut store, &mount.protocol, &settings).await;
        match checked.map_err(RuntimeError::component)? {
            Ok(plan) => Ok(plan),
            Err(problems) => Err(RuntimeError::Settings { mount: mount.name.clone(), problems }),
        }
    }

    /// The plans of all mounts; their names and routes do not collide.
    pub(crate) async fn check_all(&self, mounts: &[MountSettings]) -> Result<Vec<plans::Plan>, RuntimeError> {
        let mut plans = Vec::with_capacity(mounts.len());
        let (mut names, mut routes) = (Vec::new(), HashMap::new());
        for mount in mounts {
            if names.contains(&mount.name) || mount.name == "syncline" {
                return Err(RuntimeError::SameName(mount.name.clone()));
            }
            names.push(mount.name.clone());
            let plan = self.check(mount).await?;
            if mount.app.is_some() {
                self.app(mount)?;
            }
            for route in &plan.routes {
                if let Some(first) = routes.insert((mount.listen.clone(), route.path.clone()), mount.name.clone()) {
                    let (second, path, listen) = (mount.name.clone(), route.path.clone(), mount.listen.clone());
                    return Err(RuntimeError::Conflict { first, second, path, listen });
                }
            }
            plans.push(plan);
        }
        Ok(plans)
    }

    /// One line a mount: what it is and where it answers.
    pub async fn describe_all(&self, mounts: &[MountSettings]) -> Result<Vec<String>, RuntimeError> {
        let plans = self.check_all(mounts).await?;
        let describe = |(mount, plan): (&MountSettings, plans::Plan)| {
            let routes: Vec<_> =
                plan.routes.iter().map(|route| format!("{}{}", route.path, if route.prefix { "/…" } else { "" })).collect();
            format!("mount {}: {} at {} on {}", mount.name, mount.protocol, routes.join(", "), mount.listen)
        };
        Ok(mounts.iter().zip(plans).map(describe).collect())
    }

    /// One line an import or export of the component.
    pub fn component_interfaces(&self) -> Vec<String> {
        let engine = self.engine.engine();
        let kind = self.pre.instance_pre().component().component_type();
        let imports = kind.imports(engine).map(|(name, _)| format!("import {name}"));
        let exports = kind.exports(engine).map(|(name, _)| format!("export {name}"));
        imports.chain(exports).collect()
    }

    fn app(&self, mount: &MountSettings) -> Result<App, RuntimeError> {
        let (bytes, path) = match &mount.app {
            None => (EMPTY_APP_COMPONENT.to_vec(), PathBuf::from("(built in)")),
            Some(path) => {
                let read = std::fs::read(path);
                (read.map_err(|error| app_error(mount, path.clone(), error.to_string()))?, path.clone())
            }
        };
        let prepared = self.engine.compile(&bytes).and_then(|component: Component| self.engine.prepare_app(&component));
        let pre = prepared.map_err(|error| app_error(mount, path, error.to_string()))?;
        Ok(App::new(pre, self.settings.engine.instance_memory_bytes, self.settings.app_call_ms))
    }
}

fn app_error(mount: &MountSettings, path: PathBuf, reason: String) -> RuntimeError {
    RuntimeError::App { mount: mount.name.clone(), path, reason }
}

/// All mounts of a process.
pub struct Runtime {
    mounts: Vec<Arc<MountCore>>,
    backends: Backends,
    metrics: Arc<Metrics>,
    process: u64,
    drain: Duration,
    /// Its clock ticks as long as there are mounts: deadlines hang on it.
    _engine: RuntimeEngine,
}

impl Runtime {
    /// Checks and starts mounts on backends.
    pub async fn start(
        component: &[u8],
        settings: RuntimeSettings,
        mounts: &[MountSettings],
        backends: Backends,
    ) -> Result<Arc<Self>, RuntimeError> {
        let checker = Checker::new(component, settings)?;
        let plans = checker.check_all(mounts).await?;
        let jobs = Arc::new(Jobs::open(&*backends.executor).await?);
        let metrics = Arc::new(Metrics::new()?);
        let process = rand::random();
        // Ids start at random, so that those of other processes and of earlier starts are others.
        let connection_ids = Arc::new(AtomicU64::new(rand::random::<u64>() >> 2));
        let settings = &checker.settings;
        let mut started = Vec::new();
        for (mount, plan) in mounts.iter().zip(plans) {
            let parts = MountParts {
                name: mount.name.clone(),
                protocol: mount.protocol.clone(),
                settings: serde_json::Value::Object(mount.settings.clone()).to_string(),
                executor: backends.executor.clone(),
                storage: backends.storage.clone(),
                jobs: jobs.clone(),
                pubsub: backends.pubsub.clone(),
                process,
                metrics: metrics.clone(),
                app: Arc::new(checker.app(mount)?),
                pool: InstancePool::new(
                    checker.pre.clone(),
                    settings.engine.instance_memory_bytes,
                    settings.engine.instance_keep_bytes,
                    settings.calls_per_mount,
                ),
                connection_ids: connection_ids.clone(),
            };
            let core = MountCore::new(parts, plan);
            if !core.plan.routes.is_empty() {
                core.start().await.map_err(|reason| RuntimeError::Start { mount: mount.name.clone(), reason })?;
            }
            started.push(core);
        }
        let by_name = started.iter().map(|mount| (mount.name.clone(), Arc::downgrade(mount))).collect();
        tokio::spawn(jobs.run(by_name));
        let drain = settings.drain;
        let runtime = Arc::new(Self { mounts: started, backends, metrics, process, drain, _engine: checker.engine });
        let inbound = Arc::new(fanout::Inbound(Arc::downgrade(&runtime)));
        runtime.backends.pubsub.attach(process, inbound);
        Ok(runtime)
    }

    /// The mounts.
    pub(crate) fn mounts(&self) -> &[Arc<MountCore>] {
        &self.mounts
    }

    pub(crate) fn mount(&self, name: &str) -> Option<Arc<MountCore>> {
        self.mounts.iter().find(|mount| mount.name == name).cloned()
    }

    /// The metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Asks every backend whether it works; what does not, by name.
    pub async fn ready(&self) -> Vec<(&'static str, String)> {
        let (executor, objects, keyvalue, pubsub) = tokio::join!(
            self.backends.executor.ready(),
            self.backends.storage.objects.ready(),
            self.backends.storage.keyvalue.ready(),
            self.backends.pubsub.ready(),
        );
        let mut problems = Vec::new();
        problems.extend(executor.err().map(|error| ("executor", error.to_string())));
        problems.extend(objects.err().map(|error| ("objects", error.to_string())));
        problems.extend(keyvalue.err().map(|error| ("keyvalue", error.to_string())));
        problems.extend(pubsub.err().map(|error| ("pubsub", error.to_string())));
        problems
    }

    /// Ends all mounts: what was received is answered, sockets close, data is settled.
    pub async fn stop(&self) {
        let mut stopping = tokio::task::JoinSet::new();
        for mount in self.mounts.clone() {
            let drain = self.drain;
            stopping.spawn(async move { mount.stop(drain).await });
        }
        while stopping.join_next().await.is_some() {}
        self.backends.pubsub.detach(self.process);
        self.backends.executor.close().await;
    }
}
