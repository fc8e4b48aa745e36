//! The simulator: everything but the protocol. See README.md beside it.

pub mod disk;
pub mod faults;
pub mod model;
pub mod network;
pub mod objects;
pub mod requests;
pub mod wire;
pub mod world;

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use syncline::pubsub::memory::MemoryPubSub;
use syncline::runtime::{Backends, EngineSettings, GUEST_COMPONENT, Runtime, RuntimeSettings};
use syncline::storage::Storage;
use syncline_tests::server::compilation_cache;
use tokio::task::JoinSet;
use tokio::time::sleep;

use self::disk::Disk;
use self::faults::{Faults, around_ms, up_to_ms};
use self::model::ProtocolModel;
use self::network::Client;
use self::world::{End, World};

/// Simulated time in which faults happen.
const CHAOS: Duration = Duration::from_secs(20);
/// Lives of the server that end with a fault.
const LIVES_MAX: usize = 12;
/// Simulated time in which everything must be settled once faults are over.
const CALM_MAX: Duration = Duration::from_secs(240);
/// Nothing happens for so long: that is quiescence. Longer than any timer of the host that matters.
const QUIET: Duration = Duration::from_secs(2);
/// Instances of the component; each costs address space.
const INSTANCES: u32 = 48;

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    /// Events of the trace.
    pub events: u64,
    /// A hash of all of them: equal for equal runs.
    pub hash: String,
    /// What must not have happened and did.
    pub violations: Vec<String>,
    /// How often the server was started.
    pub lives: usize,
    /// The end of the trace.
    pub last_notes: Vec<String>,
}

/// How a life came to its end.
enum Outcome {
    Ended(End),
    /// Faults kept it from starting.
    NotStarted,
    /// Everything is settled, and the server was stopped.
    Settled,
    /// Faults are over, and something never came to an end.
    Stuck,
}

/// A run of a seed.
struct Simulation {
    world: Arc<World>,
    disk: Arc<Disk>,
    storage: Storage,
    mount: syncline::runtime::MountSettings,
    clients: Vec<Arc<Client>>,
    random: StdRng,
}

/// Runs a seed with a protocol. `printed`: the trace goes to the standard output.
pub fn run(seed: u64, faults: Faults, printed: bool, make: impl FnOnce(&World) -> Box<dyn ProtocolModel>) -> anyhow::Result<Report> {
    let world = World::new(seed, faults, printed);
    let mut model = make(&world);
    let clients = model.clients().into_iter().enumerate().map(|(number, model)| Client::new(&world, number, model)).collect();
    let mut simulation = Simulation {
        disk: Disk::new(world.clone(), model.observer())?,
        storage: objects::storage(&world),
        mount: model.mount(),
        clients,
        random: world.random(0x51b),
        world,
    };
    simulation.world.note(format_args!("{}", serde_json::Value::Object(simulation.mount.settings.clone())));
    let lives = simulation.run()?;
    let Simulation { world, disk, storage, .. } = simulation;
    disk.observe();
    if world.violations().is_empty() {
        model.check(disk.folder(), &storage).into_iter().for_each(|violation| world.violated(violation));
    }
    let (events, hash) = world.trace_hash();
    Ok(Report { events, hash, violations: world.violations(), lives, last_notes: world.last_notes() })
}

impl Simulation {
    /// Lets the server live, die and live again until everything is settled; how many lives that took.
    fn run(&mut self) -> anyhow::Result<usize> {
        for life in 1.. {
            if self.world.elapsed() >= CHAOS || life > LIVES_MAX {
                self.world.calm_down();
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
            let outcome = runtime.block_on(self.life(life));
            // Whatever the process still had in mind goes with it.
            drop(runtime);
            self.disk.restore()?;
            match outcome? {
                Outcome::Ended(_) | Outcome::NotStarted => {}
                Outcome::Settled => return Ok(life),
                Outcome::Stuck => {
                    self.world.violated("not everything was settled in time, though faults were over".into());
                    return Ok(life);
                }
            }
        }
        Ok(0)
    }

    async fn life(&mut self, life: usize) -> anyhow::Result<Outcome> {
        self.world.begin_life();
        self.world.note(format_args!("life {life}"));
        // A group that was written as the process died may be there.
        self.disk.observe();
        let outcome = self.live().await?;
        if matches!(outcome, Outcome::Ended(End::Crash)) {
            self.disk.crash();
            self.world.note(format_args!("crash"));
        }
        if !matches!(outcome, Outcome::Settled | Outcome::Stuck) {
            self.clients.iter().for_each(|client| client.crashed());
        }
        self.world.end_life(up_to_ms(&mut self.random, 1000));
        Ok(outcome)
    }

    async fn live(&mut self) -> anyhow::Result<Outcome> {
        let starting = self.start();
        let runtime = tokio::select! {
            biased;
            runtime = starting => match runtime? {
                Some(runtime) => runtime,
                None => return Ok(Outcome::NotStarted),
            },
            end = self.world.ended() => return Ok(Outcome::Ended(end)),
        };
        let mut tasks = JoinSet::new();
        for client in &self.clients {
            tasks.spawn(client.clone().live(runtime.clone(), self.mount.name.clone()));
        }
        let world = self.world.clone();
        if !world.is_calm() {
            let crash = around_ms(&mut self.random, world.faults.crash_mean_ms);
            let stop = around_ms(&mut self.random, world.faults.stop_mean_ms);
            let calm = CHAOS.saturating_sub(world.elapsed());
            let pause = |wait: Option<Duration>| async move {
                match wait {
                    Some(wait) => sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            let end = tokio::select! {
                biased;
                end = world.ended() => Some(end),
                () = sleep(calm) => None,
                () = pause(crash) => Some(End::Crash),
                () = pause(stop) => Some(End::Stop),
            };
            let end = match end {
                Some(End::Stop) => Some(self.stop(&runtime).await),
                end => end,
            };
            if end == Some(End::Crash) {
                // Before anything of the process is dropped.
                self.disk.crash();
            }
            match end {
                None => world.calm_down(),
                Some(end) => return Ok(Outcome::Ended(end)),
            }
        }
        let settled = tokio::time::timeout(CALM_MAX, self.settled()).await.is_ok();
        // Clients keep what they have: they do not hear of this stop.
        tasks.shutdown().await;
        self.stop(&runtime).await;
        Ok(if settled { Outcome::Settled } else { Outcome::Stuck })
    }

    /// Starts the server; none if faults keep it from starting.
    async fn start(&self) -> anyhow::Result<Option<Arc<Runtime>>> {
        let executor = Arc::new(self.disk.executor().await?);
        let backends = Backends { executor, storage: self.storage.clone(), pubsub: Arc::new(MemoryPubSub::default()) };
        let engine = EngineSettings { instances: INSTANCES, tick: None, ..EngineSettings::default() };
        let settings = RuntimeSettings {
            engine,
            calls_per_mount: INSTANCES as usize / 2,
            cache: Some(compilation_cache()),
            environment: self.world.clone(),
            ..RuntimeSettings::default()
        };
        match Runtime::start(GUEST_COMPONENT, settings, std::slice::from_ref(&self.mount), backends).await {
            Ok(runtime) => Ok(Some(runtime)),
            Err(error) if !self.world.is_calm() => {
                self.world.note(format_args!("not started: {error}"));
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Stops the server in order, unless it dies before that is done.
    async fn stop(&self, runtime: &Runtime) -> End {
        self.world.note(format_args!("stop"));
        tokio::select! {
            biased;
            end = self.world.ended() => end,
            () = runtime.stop() => End::Stop,
        }
    }

    /// Waits until every client is settled and nothing happens any more.
    async fn settled(&self) {
        loop {
            let (before, _) = self.world.trace_hash();
            sleep(QUIET).await;
            let (now, _) = self.world.trace_hash();
            if before == now && self.clients.iter().all(|client| client.is_settled()) {
                return;
            }
        }
    }
}
