//! A server in this process, with any backends; or the same component under Spin (`SYNCLINE_TEST_HOST`, see [`spin`]).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use syncline::executor::Executor;
use syncline::executor::postgres::{PostgresAddress, PostgresExecutor, PostgresSettings};
use syncline::executor::sqlite::{SqliteExecutor, SqliteSettings};
use syncline::pubsub::PubSub;
use syncline::pubsub::memory::MemoryPubSub;
use syncline::runtime::{Backends, GUEST_COMPONENT, MountSettings, Reloaded, Runtime, RuntimeError, RuntimeSettings};
use syncline::server::address::Network;
use syncline::server::limits::Limits;
use syncline::server::tls::TlsFiles;
use syncline::server::{Server, ServerSettings};
use syncline::storage::memory::{MemoryKeyValue, MemoryObjects};
use syncline::storage::{Objects, Storage};
use tempfile::TempDir;

use crate::{postgres, spin};

/// A server in this process. Dropping it leaves its tasks to the test's runtime; [`TestServer::stop`] ends it in order.
pub struct TestServer {
    /// Where it listens.
    pub address: SocketAddr,
    /// None under Spin, and when it was stopped.
    server: Option<Server>,
    /// None in this process.
    spin: Option<spin::Spin>,
    folder: Arc<TempDir>,
}

/// How a [`TestServer`] is set.
pub struct Setup {
    /// The component.
    pub component: Vec<u8>,
    /// The mounts.
    pub mounts: Vec<MountSettings>,
    /// SQL; none: SQLite in a folder of the test, or PostgreSQL where that is chosen ([`postgres::is_chosen`]).
    pub executor: Option<Arc<dyn Executor>>,
    /// Objects; none: in memory.
    pub objects: Option<Arc<dyn Objects>>,
    /// Publications between processes; none: in memory.
    pub pubsub: Option<Arc<dyn PubSub>>,
    /// Limits.
    pub runtime: RuntimeSettings,
    /// For `/metrics`.
    pub admin_token: Option<String>,
    /// Certificates by listener; the main one is `127.0.0.1:0`.
    pub tls: BTreeMap<String, TlsFiles>,
    /// What clients may take.
    pub limits: Limits,
    /// Proxies that are believed.
    pub trusted_proxies: Vec<Network>,
    /// Data of an earlier server, to go on with.
    pub folder: Option<Arc<TempDir>>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            component: GUEST_COMPONENT.to_vec(),
            mounts: vec![secsync_mount("secsync", json!({}))],
            executor: None,
            objects: None,
            pubsub: None,
            runtime: RuntimeSettings { cache: Some(compilation_cache()), ..RuntimeSettings::default() },
            admin_token: None,
            tls: BTreeMap::new(),
            limits: Limits::default(),
            trusted_proxies: Vec::new(),
            folder: None,
        }
    }
}

/// Compiled code is shared by all tests: compiling the component takes longer than most of them.
pub fn compilation_cache() -> std::path::PathBuf {
    std::env::temp_dir().join("syncline-tests-cache")
}

/// A secsync mount of a name at `/NAME` with settings.
pub fn secsync_mount(name: &str, settings: Value) -> MountSettings {
    let mut settings: Map<String, Value> = settings.as_object().cloned().unwrap_or_default();
    settings.entry("path").or_insert_with(|| format!("/{name}").into());
    MountSettings { name: name.into(), protocol: "secsync".into(), settings, app: None, listen: "127.0.0.1:0".into(), quota_bytes: None }
}

impl TestServer {
    /// Starts a server with the defaults.
    pub async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    /// Starts a server with one secsync mount at `/secsync`.
    pub async fn with_settings(settings: Value) -> Self {
        Self::with(Setup { mounts: vec![secsync_mount("secsync", settings)], ..Setup::default() }).await
    }

    /// Starts a server.
    pub async fn with(setup: Setup) -> Self {
        Self::try_with(setup).await.expect("the server starts")
    }

    /// Starts a server, or says why not.
    pub async fn try_with(setup: Setup) -> anyhow::Result<Self> {
        if let Some(kind) = spin::chosen() {
            return Self::under_spin(kind, setup).await;
        }
        let folder = match setup.folder {
            Some(folder) => folder,
            None => Arc::new(tempfile::tempdir()?),
        };
        let executor = match setup.executor {
            Some(executor) => executor,
            None if postgres::is_chosen() => {
                let address = PostgresAddress::parse(postgres::of_folder(folder.path()).await.url())?;
                Arc::new(PostgresExecutor::start(PostgresSettings::new(address)).await?)
            }
            None => Arc::new(SqliteExecutor::start(SqliteSettings::new(folder.path())).await?),
        };
        let objects = setup.objects.unwrap_or_else(|| Arc::new(MemoryObjects::new()));
        let storage = Storage { keyvalue: Arc::new(MemoryKeyValue::new()), objects };
        let backends = Backends { executor, storage, pubsub: setup.pubsub.unwrap_or_else(|| Arc::new(MemoryPubSub::default())) };
        let runtime = Runtime::start(&setup.component, setup.runtime, &setup.mounts, backends).await?;
        let settings = ServerSettings {
            listen: "127.0.0.1:0".into(),
            admin_token: setup.admin_token,
            tls: setup.tls,
            limits: setup.limits,
            trusted_proxies: setup.trusted_proxies,
        };
        let server = Server::start(runtime, &setup.mounts, settings).await?;
        let address = server.addresses()[0];
        Ok(Self { address, server: Some(server), spin: None, folder })
    }

    /// Starts the composed component with what a setup says, as far as Spin can do it.
    async fn under_spin(kind: spin::Kind, setup: Setup) -> anyhow::Result<Self> {
        let backends = [setup.executor.is_some(), setup.objects.is_some(), setup.pubsub.is_some()];
        let around = [!setup.tls.is_empty(), !setup.trusted_proxies.is_empty()];
        anyhow::ensure!(!backends.contains(&true) && !around.contains(&true), "what the test brings along cannot be had under Spin");
        let folder = match setup.folder {
            Some(folder) => folder,
            None => Arc::new(tempfile::tempdir()?),
        };
        let mut settings = spin::SpinSettings::new(spin::composed(kind, &setup.component, &setup.mounts)?, folder.path());
        let database = match postgres::is_chosen() {
            true => Some(postgres::database_of_folder(folder.path()).await),
            false => None,
        };
        let config = spin::config(&setup.mounts, database.as_deref(), setup.admin_token.as_deref());
        settings.variables.insert("config".into(), config.to_string());
        let spin = spin::Spin::start(kind, settings).await?;
        Ok(Self { address: spin.address(), server: None, spin: Some(spin), folder })
    }

    /// Exchanges component and mounts.
    pub async fn reload(&self, component: &[u8], mounts: &[MountSettings]) -> Result<Reloaded, RuntimeError> {
        self.server.as_ref().expect("the server runs").handle().reload(component, mounts).await
    }

    /// Stops the server in order; its data, to go on with.
    pub async fn stop(mut self) -> Arc<TempDir> {
        if let Some(server) = self.server.take() {
            server.stop().await;
        }
        if let Some(spin) = self.spin.take() {
            spin.stop().await;
        }
        self.folder.clone()
    }

    /// The server itself.
    pub fn server(&self) -> &Server {
        self.server.as_ref().expect("the server was not stopped")
    }

    /// The server itself, where it is one of this process; none under Spin.
    pub fn in_process(&self) -> Option<&Server> {
        self.server.as_ref()
    }

    /// Whether clients may open WebSockets: under Spin they do so at a gateway.
    pub fn has_sockets(&self) -> bool {
        self.spin.is_none()
    }

    /// Where it listens, the main listener first.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.server.as_ref().map_or_else(|| vec![self.address], |server| server.addresses().to_vec())
    }

    /// The folder of its data.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// A URL of it.
    pub fn url(&self, scheme: &str, path_and_query: &str) -> String {
        format!("{scheme}://{}{path_and_query}", self.address)
    }
}
