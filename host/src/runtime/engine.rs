//! The wasmtime engine: pooled instances, epoch deadlines, compiled code from the cache.

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Cache, CacheConfig, Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::RuntimeError;
use super::bindings::{app, guest};
use super::state::State;

/// Address space for each memory of a component, in bytes: all that 32-bit addresses reach, so that compiled code need
/// not check them. With less, an access costs a comparison, and checking a signature half as much again.
const MEMORY_RESERVATION_BYTES: u64 = 4 << 30;

/// Memories of one component: services, app and logic where they are composed. So many has a call, too, where they are
/// two instances.
const MEMORIES_PER_COMPONENT: u32 = 3;

/// Code from the cache is there sooner than this: what takes longer is compiled, and whoever waits is told.
const COMPILING_TOLD_AFTER: Duration = Duration::from_millis(700);

/// Limits of the engine.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    /// Memory that one instance may grow to, in bytes. Freed with the instance, see [`EngineSettings::instance_keep_bytes`].
    pub instance_memory_bytes: usize,
    /// An instance that has grown beyond this is not used again, so that one large frame does not hold memory for ever.
    pub instance_keep_bytes: usize,
    /// Memory of an instance of an app, its services included, where the protocol says nothing; at most
    /// [`EngineSettings::instance_memory_bytes`].
    pub app_memory_bytes: usize,
    /// Instances of all mounts together, app instances included.
    pub instances: u32,
    /// How often a call that computes is looked at: how finely its deadline is kept, and how long it keeps a thread before
    /// it lets others run (10 ms). None: never, so that a call takes the same course every time; for simulations, where
    /// no call computes for ever.
    pub tick: Option<Duration>,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            instance_memory_bytes: 256 << 20,
            instance_keep_bytes: 64 << 20,
            app_memory_bytes: 64 << 20,
            instances: 256,
            tick: Some(Duration::from_millis(10)),
        }
    }
}

/// The engine with what is linked once.
pub struct RuntimeEngine {
    engine: Engine,
    guest_linker: Linker<State>,
    app_linker: Linker<State>,
}

impl RuntimeEngine {
    /// An engine; compiled code is kept below `cache` where one is given.
    pub fn new(settings: &EngineSettings, cache: Option<&Path>) -> Result<Self, RuntimeError> {
        let engine = start_engine(settings, cache)?;
        if let Some(interval) = settings.tick {
            tick(engine.weak(), interval);
        }

        let mut guest_linker = Linker::<State>::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut guest_linker).map_err(RuntimeError::engine)?;
        guest::Guest::add_to_linker::<_, HasSelf<State>>(&mut guest_linker, |state| state).map_err(RuntimeError::engine)?;
        let app_linker = link_app(&engine).map_err(RuntimeError::engine)?;
        Ok(Self { engine, guest_linker, app_linker })
    }

    /// The engine itself.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Compiles a component (or takes it from the cache).
    pub fn compile(&self, bytes: &[u8]) -> Result<Component, RuntimeError> {
        let tell = || tracing::info!("compiling the component, once; this takes up to a minute");
        telling_if_slow(COMPILING_TOLD_AFTER, tell, || Component::from_binary(&self.engine, bytes)).map_err(RuntimeError::component)
    }

    /// Makes the logic ready to be instantiated.
    pub fn prepare_guest(&self, component: &Component) -> Result<guest::GuestPre<State>, RuntimeError> {
        self.guest_linker.instantiate_pre(component).and_then(guest::GuestPre::new).map_err(RuntimeError::component)
    }

    /// Makes an app ready to be instantiated.
    pub fn prepare_app(&self, component: &Component) -> Result<app::ComponentPre<State>, RuntimeError> {
        self.app_linker.instantiate_pre(component).and_then(app::ComponentPre::new).map_err(RuntimeError::component)
    }
}

/// Does something, and tells of it meanwhile where it takes longer than that.
fn telling_if_slow<T>(after: Duration, tell: impl FnOnce() + Send + 'static, work: impl FnOnce() -> T) -> T {
    let (done, is_done) = mpsc::channel::<()>();
    let wait = move || {
        if is_done.recv_timeout(after) == Err(mpsc::RecvTimeoutError::Timeout) {
            tell();
        }
    };
    if let Err(error) = std::thread::Builder::new().name("patience".into()).spawn(wait) {
        tracing::debug!(%error, "no thread to tell that something takes long");
    }
    let result = work();
    drop(done);
    result
}

/// What services need of the host; `checker` sees to it that an app itself wants none of it.
fn link_app(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    use guest::syncline::host::{effects, executor, pubsub, storage, types};
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    types::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?;
    executor::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?;
    storage::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?;
    pubsub::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?;
    effects::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?;
    Ok(linker)
}

/// The engine, with memories that need no checks where there is address space for them. Nothing of it is backed by memory,
/// but `ulimit -v` counts it, and some kernels have little.
fn start_engine(settings: &EngineSettings, cache: Option<&Path>) -> Result<Engine, RuntimeError> {
    match Engine::new(&engine_config(settings, cache, MEMORY_RESERVATION_BYTES)?) {
        Ok(engine) => Ok(engine),
        Err(error) => {
            tracing::warn!(%error, "address space is short: components run with checked memory accesses, which takes more CPU");
            let least = u64::try_from(settings.instance_memory_bytes).unwrap_or(u64::MAX);
            Engine::new(&engine_config(settings, cache, least)?).map_err(RuntimeError::engine)
        }
    }
}

fn engine_config(settings: &EngineSettings, cache: Option<&Path>, reservation_bytes: u64) -> Result<Config, RuntimeError> {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(settings.instances)
        .total_core_instances(settings.instances.saturating_mul(8))
        .total_memories((settings.instances / 2).max(1).saturating_mul(MEMORIES_PER_COMPONENT))
        .max_memories_per_component(MEMORIES_PER_COMPONENT)
        .total_tables(settings.instances.saturating_mul(4))
        .total_stacks(settings.instances)
        .max_memory_size(settings.instance_memory_bytes)
        .max_core_instances_per_component(32)
        .max_tables_per_component(16)
        .max_core_instance_size(4 << 20)
        .max_component_instance_size(4 << 20)
        .linear_memory_keep_resident(1 << 20);
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .concurrency_support(false)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .memory_reservation(reservation_bytes);
    if let Some(directory) = cache {
        let mut cache_config = CacheConfig::new();
        cache_config.with_directory(directory);
        config.cache(Some(Cache::new(cache_config).map_err(RuntimeError::engine)?));
    }
    Ok(config)
}

/// Grows the epoch for as long as the engine lives, on a thread of its own: a busy runtime must not stop the clock that
/// stops it. The engine lives as long as any instance: a call that outlives the run time still meets its deadline.
fn tick(engine: wasmtime::EngineWeak, interval: Duration) {
    let run = move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(interval);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("epoch".into()).spawn(run) {
        tracing::error!(%error, "no thread for deadlines: calls are bounded by their waiting only");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_long_is_told_of_while_it_is_done() {
        let (tell, told) = mpsc::channel();
        // The work ends when it was told of.
        let result = telling_if_slow(Duration::from_millis(1), move || tell.send(()).unwrap(), || told.recv());
        assert_eq!(result, Ok(()));
        let (tell, told) = mpsc::channel::<()>();
        assert_eq!(telling_if_slow(Duration::from_secs(3600), move || tell.send(()).unwrap(), || 7), 7);
        assert!(told.recv().is_err(), "what was quick is not told of");
    }
}
