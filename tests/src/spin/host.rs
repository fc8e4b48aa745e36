//! The process that a test would else start: a listener, a component, and what all its instances share.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Cache, CacheConfig, Config, Engine};
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use super::instance::Instance;
use super::key_value::Values;
use super::postgres::Pools;
use super::{bindings, serve};
use crate::server::compilation_cache;

/// Its own threads: a test's single thread must not wait for a component that waits for it.
static THREADS: LazyLock<Runtime> = LazyLock::new(|| {
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().thread_name("spin").build();
    threads.expect("threads can be started")
});

/// Compiled once for all tests of a process. Memories are allocated as they are wanted: the usual pool takes long to set up.
static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let mut cache = CacheConfig::new();
    cache.with_directory(compilation_cache());
    let mut config = Config::new();
    config.concurrency_support(false).cache(Some(Cache::new(cache).expect("a folder of ours")));
    Engine::new(&config).expect("an engine")
});

/// What is served, and how.
#[derive(Clone, Debug)]
pub struct SpinSettings {
    /// A component that exports `wasi:http/incoming-handler@0.2`.
    pub component: Vec<u8>,
    /// Variables of the application.
    pub variables: BTreeMap<String, String>,
    /// The state folder: data of SQLite and of the key-value store.
    pub folder: PathBuf,
    /// Read-only files of the component.
    pub files: Option<PathBuf>,
    /// Where it listens; by default on a free port.
    pub listen: SocketAddr,
    /// Instances at once; a request beyond is answered 500.
    pub instances_max: usize,
    /// Bytes of a value in the key-value store; none: any. Hosted services: 1 MB.
    pub value_bytes_max: Option<usize>,
}

impl SpinSettings {
    /// As `spin up` has it.
    pub fn new(component: Vec<u8>, folder: impl Into<PathBuf>) -> Self {
        let folder = folder.into();
        let listen = ([127, 0, 0, 1], 0).into();
        Self { component, variables: BTreeMap::new(), folder, files: None, listen, instances_max: 1000, value_bytes_max: None }
    }
}

/// What all instances share.
pub struct Shared {
    /// As started.
    pub settings: SpinSettings,
    /// The component, ready to be instantiated.
    pub component: ProxyPre<Instance>,
    /// The key-value store.
    pub values: Values,
    /// Connections to PostgreSQL.
    pub pools: Pools,
    /// For so many instances.
    pub places: Arc<Semaphore>,
    /// Calls and connections; they end with the process.
    tasks: Mutex<JoinSet<()>>,
}

/// How a call ends, for whoever waits for it.
pub struct Call(oneshot::Receiver<wasmtime::Result<()>>);

impl Call {
    /// Waits for its end.
    pub async fn await_end(self) -> wasmtime::Result<()> {
        self.0.await.unwrap_or_else(|_| Err(wasmtime::Error::msg("it was ended from outside")))
    }
}

impl Shared {
    /// Runs a call to its end, whoever listens.
    pub fn spawn(&self, call: impl Future<Output = wasmtime::Result<()>> + Send + 'static) -> Call {
        let (ended, end) = oneshot::channel();
        self.keep(async move {
            if let Err(Err(error)) = ended.send(call.await) {
                eprintln!("fake of Spin: after the answer began: {error:?}");
            }
        });
        Call(end)
    }

    fn keep(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let mut tasks = self.tasks.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn_on(task, THREADS.handle())
    }
}

/// A running fake of Spin. Ended when dropped, and everything with it, as a process that is killed.
pub struct FakeSpin {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl FakeSpin {
    /// Serves a component.
    ///
    /// # Errors
    /// What Spin would say instead of starting.
    pub async fn start(settings: SpinSettings) -> anyhow::Result<Self> {
        THREADS.spawn(Self::listen(settings)).await?.map_err(|error| anyhow::anyhow!("{error:?}"))
    }

    async fn listen(settings: SpinSettings) -> wasmtime::Result<Self> {
        let mut linker = Linker::<Instance>::new(&ENGINE);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
        bindings::Spin::add_to_linker::<_, HasSelf<Instance>>(&mut linker, |instance| instance)?;
        let component = Component::from_binary(&ENGINE, &settings.component)?;
        let shared = Arc::new(Shared {
            component: ProxyPre::new(linker.instantiate_pre(&component)?)?,
            values: Values::open(&settings.folder, settings.value_bytes_max)?,
            pools: Pools::default(),
            places: Arc::new(Semaphore::new(settings.instances_max)),
            tasks: Mutex::default(),
            settings,
        });
        let listener = TcpListener::bind(shared.settings.listen).await?;
        let address = listener.local_addr()?;
        let serving = shared.clone();
        shared.keep(async move { accept(&serving, &listener).await });
        Ok(Self { address, shared })
    }

    /// Ends it; when this returns nothing of it uses its folder any more.
    pub async fn stop(self) {
        let mut tasks = std::mem::take(&mut *self.shared.tasks.lock());
        tasks.shutdown().await;
    }
}

impl Drop for FakeSpin {
    fn drop(&mut self) {
        self.shared.tasks.lock().abort_all();
    }
}

async fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    loop {
        let Ok((stream, client)) = listener.accept().await else { return };
        let of_connection = shared.clone();
        let service = service_fn(move |request| {
            let shared = of_connection.clone();
            async move { Ok::<_, std::convert::Infallible>(serve::serve(shared, client, request).await) }
        });
        shared.keep(async move {
            // Clients come and go; what a test needs to know of it, it sees at its own end.
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}
