//! The cases of plasma.

use std::path::Path;
use std::process::Stdio;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::children::{Raw, RawRows};
use crate::context::{Context, round};
use crate::judge::SYNC;
use crate::load::{Contestant, Loaded, Worker};
use crate::machine::{self, Cpu, Disk};
use crate::report::{Case, Entry, Sample};
use crate::server::{Rows, Server, pinned};

mod postgres;
pub mod raw;
mod reads;
mod settings;
pub mod targets;
pub mod workers;

use postgres::{PgBench, Postgres};
use settings::{launch, peer};
use workers::{FanOut, Loader, Mutations, Puller, Pusher, fill};

/// Connections that push one mutation each.
const PUSHERS: [usize; 3] = [1, 16, 64];
/// Mutations of a large push, and connections that make such.
const LARGE: (u64, usize) = (100, 4);
/// Connections that pull nothing, and connections that pull ten rows.
const PULLERS: (usize, usize) = (16, 8);
/// Rows of a server that is pulled from.
const ROWS: u64 = 10_000;
/// Rows that a client misses: each was changed by a version of its own.
const DELTA_ROWS: u64 = 10;
/// Rows of a first load, and clients that load at once.
const LOAD: (u64, usize) = (20_000, 2);
/// Listeners of a poke.
const READERS: [usize; 2] = [50, 500];
/// Sizes whose cost is compared; the last takes minutes and is asked for by `--large`.
const GROWN: [u64; 3] = [1_000, 100_000, 1_000_000];
/// Mutations in one client whose way to another is timed.
const LATENCIES: u32 = 100;
/// Syncs of the disk that are timed beside a case.
const SYNCS: usize = 100;

/// Runs all cases that are asked for.
pub async fn run(context: &mut Context) {
    for connections in PUSHERS {
        let name = targets::pushes_name(connections);
        context.attempt(&name, async |context| pushes(context, &name, connections, 1).await).await;
    }
    let name = format!("plasma/pushes of {} mutations, {} connections", LARGE.0, LARGE.1);
    context.attempt(&name, async |context| pushes(context, &name, LARGE.1, LARGE.0).await).await;
    context.attempt(targets::MUTATORS, mutators).await;
    context.attempt(targets::IDLE_PULLS, idle_pulls).await;
    context.attempt(targets::DELTA_PULLS, delta_pulls).await;
    context.attempt(targets::FIRST_LOAD, first_load).await;
    for readers in READERS {
        let name = targets::pokes_name(readers);
        context.attempt(&name, async |context| pokes(context, &name, readers).await).await;
    }
    reads::run(context).await;
    context.attempt(targets::REAL_CLIENT, real_client).await;
    for growing in [Growing::Rows, Growing::Log] {
        for measured in [Measured::Pushes, Measured::IdlePulls, Measured::DeltaPulls] {
            let name = targets::growth_name(growing, measured);
            context.attempt(&name, async |context| growth(context, &name, growing, measured).await).await;
        }
    }
    for connections in PUSHERS {
        let name = format!("plasma/pushes of 1 mutation on PostgreSQL, {connections} connections");
        context.attempt(&name, async |context| postgres_pushes(context, &name, connections).await).await;
    }
}

async fn pushes(context: &mut Context, name: &str, connections: usize, mutations: u64) -> anyhow::Result<()> {
    let disk = context.disk();
    let sync = Disk::measure(disk, SYNCS)?;
    let servers = [
        Server::syncline(disk, launch(disk, Rows::Sqlite)?).await?,
        Server::syncline(disk, launch(disk, Rows::NotDurable)?).await?,
        peer(disk).await?,
    ];
    let mut contestants: Vec<Box<dyn Contestant>> = Vec::new();
    for server in &servers {
        let load = Loaded::new(server, Pusher::many(server, connections, mutations).await?);
        contestants.push(Box::new(load.weighing(u32::try_from(mutations)?)));
    }
    contestants.push(Box::new(Raw::start(disk, RawRows::Plasma, connections * usize::try_from(mutations)?)?));
    let mut case = context.compare(name, "a mutation that makes a row, acknowledged; times are those of its push", contestants).await?;
    case.figure(SYNC, sync.fdatasync_median_ms);
    context.add(case);
    Ok(())
}

/// Mutators of the settings beside those of apps, in pushes so large that little else counts.
async fn mutators(context: &mut Context) -> anyhow::Result<()> {
    let disk = context.disk();
    let typescript = settings::typescript_app(disk).await?;
    let of_settings = ("in the settings", Mutations::Create, launch(disk, Rows::Sqlite)?);
    let rust = ("app in Rust", Mutations::CreateByApp, settings::launch_with_app(disk, Path::new(env!("SYNCLINE_PLASMA_APP")))?);
    let typescript = ("app in TypeScript", Mutations::CreateByApp, settings::launch_with_app(disk, &typescript)?);
    let mut contestants: Vec<Box<dyn Contestant>> = Vec::new();
    for (name, mutations, launch) in [of_settings, rust, typescript] {
        let server = Server::syncline(disk, launch).await?;
        let load = Loaded::new(&server, Pusher::many_that(mutations, &server, LARGE.1, LARGE.0).await?);
        contestants.push(Box::new(load.weighing(u32::try_from(LARGE.0)?).named(name)));
    }
    let operation = format!("a mutation that makes a row, in pushes of {} by {} connections; times are those of a push", LARGE.0, LARGE.1);
    let case = context.compare(targets::MUTATORS, &operation, contestants).await?;
    context.add(case);
    Ok(())
}

/// Ours and the peer, each with so many rows.
async fn filled(context: &Context, rows: u64) -> anyhow::Result<[Rc<Server>; 2]> {
    let disk = context.disk();
    let servers = [Server::syncline(disk, launch(disk, Rows::Sqlite)?).await?, peer(disk).await?];
    for server in &servers {
        fill(server, rows).await?;
    }
    Ok(servers)
}

async fn idle_pulls(context: &mut Context) -> anyhow::Result<()> {
    let mut contestants: Vec<Box<dyn Contestant>> = Vec::new();
    for server in filled(context, ROWS).await? {
        contestants.push(Box::new(Loaded::new(&server, Puller::idle(&server, PULLERS.0).await?)));
    }
    let case = context.compare(targets::IDLE_PULLS, "a pull that finds nothing new", contestants).await?;
    context.add(case);
    Ok(())
}

async fn delta_pulls(context: &mut Context) -> anyhow::Result<()> {
    let mut contestants: Vec<Box<dyn Contestant>> = Vec::new();
    for server in filled(context, ROWS).await? {
        change_rows(&server, DELTA_ROWS, ROWS).await?;
        contestants.push(Box::new(Loaded::new(&server, Puller::behind(&server, PULLERS.1, DELTA_ROWS).await?)));
    }
    let case = context.compare(targets::DELTA_PULLS, "a pull that finds ten changed rows", contestants).await?;
    context.add(case);
    Ok(())
}

/// Changes so many of the first rows, each by a version of its own.
async fn change_rows(server: &Server, count: u64, rows: u64) -> anyhow::Result<()> {
    Pusher::new(server, Mutations::Change(rows), count).await?.push().await.map(|_| ())
}

async fn first_load(context: &mut Context) -> anyhow::Result<()> {
    let (rows, clients) = LOAD;
    let rows = if context.quick { rows / 4 } else { rows };
    let mut contestants: Vec<Box<dyn Contestant>> = Vec::new();
    for server in filled(context, rows).await? {
        let mut loaders = Vec::new();
        for _ in 0..clients {
            loaders.push(Loader::new(&server, usize::try_from(rows)?).await?);
        }
        contestants.push(Box::new(Loaded::new(&server, loaders).weighing(u32::try_from(rows)?)));
    }
    let operation = format!("a row of a first load of {rows} by pages of 1000, {clients} clients at once; times are those of a load");
    let case = context.compare(targets::FIRST_LOAD, &operation, contestants).await?;
    context.add(case);
    Ok(())
}

async fn pokes(context: &mut Context, name: &str, readers: usize) -> anyhow::Result<()> {
    let disk = context.disk();
    let (ours, peer, bare) =
        (Server::syncline(disk, launch(disk, Rows::Sqlite)?).await?, peer(disk).await?, Server::bare("events", readers).await?);
    let (weight, mut contestants, mut memory) = (u32::try_from(readers)?, Vec::<Box<dyn Contestant>>::new(), Vec::new());
    for server in [ours, peer, bare] {
        let before = machine::resident_bytes(server.process)?;
        let load = FanOut::new(&server, readers).await?;
        let each = machine::resident_bytes(server.process)?.saturating_sub(before) as f64 / readers as f64 / 1024.0;
        memory.push((format!("{}: KiB of resident memory a listener", server.name), each));
        contestants.push(Box::new(Loaded::new(&server, vec![load]).weighing(weight)));
    }
    let operation = "a poke, delivered; times are from the push until the last listener has it";
    let mut case = context.compare(name, operation, contestants).await?;
    for (name, kib) in memory {
        case.figure(&name, kib);
    }
    context.add(case);
    Ok(())
}

/// Two real clients: from a mutation in one until the other has it.
async fn real_client(context: &mut Context) -> anyhow::Result<()> {
    let count = if context.quick { 5 } else { LATENCIES };
    let disk = context.disk();
    let mut samples = [Vec::new(), Vec::new()];
    for _ in 0..context.rounds {
        let servers = [Server::syncline(disk, launch(disk, Rows::Sqlite)?).await?, peer(disk).await?];
        for (server, samples) in servers.iter().zip(&mut samples) {
            samples.push(latencies(server, count).await?);
        }
    }
    let names = ["syncline", "node peer"];
    let entries = names.iter().zip(samples).map(|(name, samples)| Entry::new(name, samples)).collect();
    context.add(Case::new(targets::REAL_CLIENT, "a mutation in one client, seen in another: push, poke, pull", entries));
    Ok(())
}

async fn latencies(server: &Server, count: u32) -> anyhow::Result<Sample> {
    let script = crate::server::clients_folder().join("plasma/latency.mjs");
    ensure!(script.with_file_name("../node_modules/replicache").exists(), "the real client is missing: `make bench` installs it");
    let (before, begun) = (Cpu::of(server.process)?, Instant::now());
    let mut command = tokio::process::Command::new("node");
    command.arg(script).arg(format!("http://{}/sync", server.address)).arg(count.to_string());
    let output = command.stderr(Stdio::inherit()).kill_on_drop(true).output().await?;
    ensure!(output.status.success(), "the real clients ended with {}", output.status);
    let latencies_us: Vec<u32> = serde_json::from_slice(&output.stdout).context("latencies")?;
    Ok(Sample::new(latencies_us, begun.elapsed(), Cpu::of(server.process)?.since(before), 1))
}

/// What grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growing {
    /// Rows, each with one entry of the log.
    Rows,
    /// Entries of the log, all of the same thousand rows.
    Log,
}

/// Whose cost is looked at while it grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measured {
    /// Pushes of one mutation.
    Pushes,
    /// Pulls that find nothing.
    IdlePulls,
    /// Pulls that find ten rows.
    DeltaPulls,
}

async fn growth(context: &mut Context, name: &str, growing: Growing, measured: Measured) -> anyhow::Result<()> {
    let disk = context.disk();
    let server = Server::syncline(disk, launch(disk, Rows::Sqlite)?).await?;
    let mut filler = Pusher::new(&server, Mutations::Change(GROWN[0]), LARGE.0).await?;
    let (mut size, mut entries) = (0, Vec::new());
    let sizes = &GROWN[..if context.large { 3 } else { 2 }];
    for next in sizes.iter().map(|size| if context.quick { size / 10 } else { *size }) {
        match growing {
            Growing::Rows => filler.fill(size, next).await?,
            Growing::Log => {
                if size == 0 {
                    filler.fill(0, GROWN[0]).await?;
                }
                while size < next {
                    filler.push().await?;
                    size += LARGE.0;
                }
            }
        }
        size = next;
        let samples = match measured {
            Measured::Pushes => rounds(context, &server, Pusher::many(&server, 64, 1).await?).await?,
            Measured::IdlePulls => rounds(context, &server, Puller::idle(&server, PULLERS.0).await?).await?,
            Measured::DeltaPulls => {
                change_rows(&server, DELTA_ROWS, GROWN[0] / 10).await?;
                rounds(context, &server, Puller::behind(&server, PULLERS.1, DELTA_ROWS).await?).await?
            }
        };
        entries.push(Entry::new(&format!("at {size}"), samples));
    }
    let operation = match measured {
        Measured::Pushes => "a push of one mutation, 64 connections",
        Measured::IdlePulls => "a pull that finds nothing new",
        Measured::DeltaPulls => "a pull that finds ten changed rows",
    };
    context.add(Case::new(name, operation, entries));
    Ok(())
}

async fn rounds<W: Worker + 'static>(context: &Context, server: &Rc<Server>, workers: Vec<W>) -> anyhow::Result<Vec<Sample>> {
    let (mut load, mut samples) = (Loaded::new(server, workers), Vec::new());
    round(&mut load, context.window.min(Duration::from_millis(500))).await?;
    for _ in 0..context.rounds {
        samples.push(round(&mut load, context.window).await?);
    }
    Ok(samples)
}

/// Ours with its rows in PostgreSQL beside `pgbench`, which sends the same statements straight there.
async fn postgres_pushes(context: &mut Context, name: &str, connections: usize) -> anyhow::Result<()> {
    let postgres = Postgres::given()?;
    let disk = context.disk();
    let ours = Server::syncline(disk, launch(disk, Rows::Postgres(postgres.database()?))?).await?;
    let contestants: Vec<Box<dyn Contestant>> = vec![
        Box::new(Loaded::new(&ours, Pusher::many(&ours, connections, 1).await?)),
        Box::new(PgBench::new(disk, postgres.database()?, connections, pinned)?),
    ];
    let operation = "a push of one mutation; PostgreSQL runs on the generator's core, and its processor time is not counted";
    let case = context.compare(name, operation, contestants).await?;
    context.add(case);
    Ok(())
}
