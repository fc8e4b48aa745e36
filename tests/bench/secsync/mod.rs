//! The cases of secsync.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use tempfile::TempDir;

use crate::children::{Raw, RawRows};
use crate::context::{Context, round};
use crate::judge::SYNC;
use crate::load::{Contestant, Loaded, micros, open_loop};
use crate::machine::{self, Cpu, Disk};
use crate::report::{Case, Entry, Sample};
use crate::server::{Server, syncline_command};

pub mod frames;
mod logic;
pub mod raw;
mod settings;
pub mod targets;
pub mod workers;

use settings::{PLAIN, Settings};
use workers::{FanOut, Loader, Writer};

/// With how many connections and documents updates are written.
const WRITES: [(usize, usize); 5] = [(1, 1), (16, 1), (16, 16), (64, 1), (64, 64)];
/// Readers of a fan-out.
const READERS: [usize; 3] = [50, 200, 500];
/// Updates of a document that is loaded.
const LOADED_UPDATES: [u64; 3] = [30, 300, 3000];
/// Updates signed beforehand for each of 16 connections, a second of each round.
const SIGNED_PER_SECOND: u64 = 600;
/// The same where nothing but the logic takes part.
const SIGNED_PER_SECOND_ALONE: u64 = 10_000;
/// Writes after which it is looked whether they still cost the same.
const GROWN: [u64; 3] = [10_000, 100_000, 1_000_000];
/// Time for all those writes; on a machine that is too slow for it the last size is what it got to.
const GROWTH_MAX: Duration = Duration::from_secs(240);

/// Syncs of the disk that are timed beside a case.
const SYNCS: usize = 100;

const OPEN: &str = "secsync/updates, open loop at half of the saturated rate, 64 connections, 64 documents";
const SIGNED: &str = "secsync/updates, signatures checked, 16 in flight, 16 documents";
const EPHEMERAL: &str = "secsync/ephemeral messages, 16 senders, 4 readers each";

/// Runs all cases that are asked for.
pub async fn run(context: &mut Context) {
    for (connections, documents) in WRITES {
        let name = writes_name(connections, documents);
        context.attempt(&name, async |context| writes(context, &name, connections, documents).await).await;
    }
    context.attempt(OPEN, open_writes).await;
    context.attempt(SIGNED, signatures).await;
    context.attempt(targets::COMPONENT, async |context| component(context, targets::COMPONENT, None).await).await;
    let signed = Some(context.seconds() * SIGNED_PER_SECOND_ALONE);
    context.attempt(targets::COMPONENT_SIGNED, async |context| component(context, targets::COMPONENT_SIGNED, signed).await).await;
    for updates in LOADED_UPDATES {
        let name = format!("secsync/load of a document with {updates} updates, 8 in flight");
        context.attempt(&name, async |context| loads(context, &name, updates).await).await;
    }
    for readers in READERS {
        let name = targets::fan_out_name(readers);
        context.attempt(&name, async |context| fan_out(context, &name, readers).await).await;
    }
    context.attempt(EPHEMERAL, ephemeral).await;
    context.attempt(targets::IDLE, idle).await;
    context.attempt(targets::START, start).await;
    context.attempt(targets::GROWTH, growth).await;
}

/// The name of a case of [`WRITES`].
fn writes_name(connections: usize, documents: usize) -> String {
    let plural = if documents == 1 { "" } else { "s" };
    format!("secsync/updates, {connections} in flight, {documents} document{plural}")
}

async fn writes(context: &mut Context, name: &str, connections: usize, documents: usize) -> anyhow::Result<()> {
    let disk = context.disk();
    let sync = Disk::measure(disk, SYNCS)?;
    let ours = Server::syncline(disk, PLAIN).await?;
    let undurable = Server::syncline(disk, Settings { durable: false, ..PLAIN }).await?;
    let peer = Server::peer(disk, PLAIN).await?;
    let contestants: Vec<Box<dyn Contestant>> = vec![
        Box::new(Loaded::new(&ours, Writer::many(&ours, connections, documents, 0).await?)),
        Box::new(Loaded::new(&undurable, Writer::many(&undurable, connections, documents, 0).await?)),
        Box::new(Loaded::new(&peer, Writer::many(&peer, connections, documents, 0).await?)),
        Box::new(Raw::start(disk, RawRows::Secsync, connections)?),
    ];
    let mut case = context.compare(name, "an update, acknowledged (and sent to the others on its document)", contestants).await?;
    case.figure(SYNC, sync.fdatasync_median_ms);
    context.add(case);
    Ok(())
}

async fn open_writes(context: &mut Context) -> anyhow::Result<()> {
    let mut entries = Vec::new();
    for peer in [false, true] {
        let server = if peer { Server::peer(context.disk(), PLAIN).await? } else { Server::syncline(context.disk(), PLAIN).await? };
        let mut saturated = Loaded::new(&server, Writer::many(&server, 64, 64, 0).await?);
        round(&mut saturated, context.window / 2).await?;
        let rate = round(&mut saturated, context.window).await?.rate / 2.0;
        let mut samples = Vec::new();
        for _ in 0..context.rounds {
            let connections = Writer::many(&server, 64, 64, 0).await?.into_iter().map(Writer::open).collect();
            samples.push(open_loop(&server, connections, rate, context.window).await?);
        }
        entries.push(Entry::new(&server.name, samples));
    }
    context.add(Case::new(OPEN, "an update, timed from the moment that it was due", entries));
    Ok(())
}

async fn signatures(context: &mut Context) -> anyhow::Result<()> {
    let settings = Settings { signatures: true, ..PLAIN };
    let (disk, count) = (context.disk(), context.seconds() * SIGNED_PER_SECOND);
    let (ours, peer, unchecked) =
        (Server::syncline(disk, settings).await?, Server::peer(disk, settings).await?, Server::syncline(disk, PLAIN).await?);
    let contestants: Vec<Box<dyn Contestant>> = vec![
        Box::new(Loaded::new(&ours, Writer::many(&ours, 16, 16, count).await?)),
        Box::new(Loaded::new(&unchecked, Writer::many(&unchecked, 16, 16, 0).await?).named("syncline, not checked")),
        Box::new(Loaded::new(&peer, Writer::many(&peer, 16, 16, count).await?).named("node peer, node:crypto")),
    ];
    let case = context.compare(SIGNED, "a signed update, acknowledged", contestants).await?;
    context.add(case);
    Ok(())
}

async fn component(context: &mut Context, name: &str, signed: Option<u64>) -> anyhow::Result<()> {
    let cache = TempDir::new_in(context.disk())?;
    let mut contestants: Vec<Box<dyn Contestant>> =
        vec![Box::new(logic::InComponent::start(cache.path(), None, signed).await?), Box::new(logic::Native::start(signed)?)];
    for file in context.components.clone() {
        contestants.push(Box::new(logic::InComponent::start(cache.path(), Some(&file), signed).await?));
    }
    let mut case = context.compare(name, "an update from text to answer over SQLite in memory, no socket, no disk", contestants).await?;
    // Signatures are all that tells the two cases apart.
    let unchecked = context.cases.iter().find(|case| signed.is_some() && case.name == targets::COMPONENT);
    for without in unchecked.map_or(&[][..], |case| &case.entries) {
        let with = case.entry(&without.name).map(|entry| entry.cpu_us.median);
        let check = with.context("the same were compared")? - without.cpu_us.median;
        case.figure(&format!("{}: µs of a signature check", without.name), check);
    }
    context.add(case);
    Ok(())
}

async fn loads(context: &mut Context, name: &str, updates: u64) -> anyhow::Result<()> {
    let (ours, peer) = (Server::syncline(context.disk(), PLAIN).await?, Server::peer(context.disk(), PLAIN).await?);
    let mut contestants: Vec<Box<dyn Contestant>> = Vec::new();
    for server in [ours, peer] {
        let place = workers::fill(&server, updates).await?;
        let loader = || Loader { address: server.address, url: workers::url(&place.document) };
        contestants.push(Box::new(Loaded::new(&server, (0..8).map(|_| loader()).collect())));
    }
    let case = context.compare(name, "connecting and taking the whole document in one frame", contestants).await?;
    context.add(case);
    Ok(())
}

async fn fan_out(context: &mut Context, name: &str, readers: usize) -> anyhow::Result<()> {
    let disk = context.disk();
    let (ours, peer, bare) =
        (Server::syncline(disk, PLAIN).await?, Server::peer(disk, PLAIN).await?, Server::bare("messages", readers).await?);
    let weight = u32::try_from(readers)?;
    let contestants: Vec<Box<dyn Contestant>> = vec![
        Box::new(Loaded::new(&ours, vec![FanOut::updates(&ours, readers).await?]).weighing(weight)),
        Box::new(Loaded::new(&peer, vec![FanOut::updates(&peer, readers).await?]).weighing(weight)),
        Box::new(Loaded::new(&bare, vec![FanOut::bare(&bare, readers).await?]).weighing(weight)),
    ];
    let case = context.compare(name, "one delivery; times are until the last reader has the update", contestants).await?;
    context.add(case);
    Ok(())
}

async fn ephemeral(context: &mut Context) -> anyhow::Result<()> {
    let (ours, peer) = (Server::syncline(context.disk(), PLAIN).await?, Server::peer(context.disk(), PLAIN).await?);
    let mut contestants: Vec<Box<dyn Contestant>> = Vec::new();
    for server in [ours, peer] {
        let mut senders = Vec::new();
        for _ in 0..16 {
            senders.push(FanOut::ephemeral(&server, 4).await?);
        }
        contestants.push(Box::new(Loaded::new(&server, senders)));
    }
    let case = context.compare(EPHEMERAL, "a message, relayed to four", contestants).await?;
    context.add(case);
    Ok(())
}

async fn idle(context: &mut Context) -> anyhow::Result<()> {
    let count = if context.quick { 500 } else { 10_000 };
    let mut case = Case::new(targets::IDLE, &format!("a socket is opened on one of 100 documents, {count} in all"), Vec::new());
    for server in [Server::syncline(context.disk(), PLAIN).await?, Server::peer(context.disk(), PLAIN).await?] {
        let share = idle_share(&server, context.window).await?;
        case.figure(&format!("{}: per cent of a core without a connection", server.name), share * 100.0);
        let documents: Vec<_> = (0..100).map(|_| workers::fresh_document()).collect();
        let mut clients = Vec::with_capacity(count);
        // What the first connections load once is no part of a socket's cost.
        for document in &documents {
            clients.push(workers::join(&server, document).await?);
        }
        let (before, cpu, start, mut latencies_us) =
            (machine::resident_bytes(server.process)?, Cpu::of(server.process)?, Instant::now(), Vec::new());
        for number in clients.len()..count {
            let begun = Instant::now();
            clients.push(workers::join(&server, &documents[number % documents.len()]).await?);
            latencies_us.push(micros(begun));
        }
        let mut sample = Sample::new(latencies_us, start.elapsed(), Cpu::of(server.process)?.since(cpu), 1);
        sample.resident_bytes = machine::resident_bytes(server.process)?;
        let each = sample.resident_bytes.saturating_sub(before) as f64 / (count - documents.len()) as f64 / 1024.0;
        case.figure(&format!("{}: KiB of resident memory a socket", server.name), each);
        let share = idle_share(&server, context.window).await?;
        case.figure(&format!("{}: per cent of a core with all of them", server.name), share * 100.0);
        case.entries.push(Entry::new(&server.name, vec![sample]));
    }
    context.add(case);
    Ok(())
}

/// The share of a core that a server takes while nobody asks for anything.
async fn idle_share(server: &Server, window: Duration) -> anyhow::Result<f64> {
    let before = Cpu::of(server.process)?;
    tokio::time::sleep(window).await;
    Ok(Cpu::of(server.process)?.since(before).total_s() / window.as_secs_f64())
}

async fn start(context: &mut Context) -> anyhow::Result<()> {
    let disk = context.disk();
    let mut samples: [Vec<Sample>; 3] = Default::default();
    let warm = TempDir::new_in(disk)?;
    for round in 0..=context.rounds.max(3) {
        let cold = TempDir::new_in(disk)?;
        let started = [start_once(syncline_command(cold.path(), PLAIN)?).await?, start_once(syncline_command(warm.path(), PLAIN)?).await?];
        let begun = Instant::now();
        let peer = Server::peer(disk, PLAIN).await?;
        workers::join(&peer, "first").await?;
        let peer = Sample::new(vec![micros(begun)], begun.elapsed(), Cpu::of(peer.process)?, 1);
        // The first round fills the warm folder.
        if round > 0 {
            for (all, one) in samples.iter_mut().zip(started.into_iter().chain([peer])) {
                all.push(one);
            }
        }
    }
    let [cold, warm, peer] = samples;
    let entries = vec![Entry::new(targets::WARM, warm), Entry::new("syncline, no compiled code yet", cold), Entry::new("node peer", peer)];
    context.add(Case::new(targets::START, "from the start of the process until a client has its first document", entries));
    Ok(())
}

async fn start_once(command: tokio::process::Command) -> anyhow::Result<Sample> {
    let begun = Instant::now();
    let running = syncline_tests::process::Process::spawn(command).await;
    let mut client = crate::wire::Client::connect(running.address, &workers::url("first")).await?;
    client.receive_with(r#""type":"document""#).await?;
    let mut sample = Sample::new(vec![micros(begun)], begun.elapsed(), Cpu::of(running.id())?, 1);
    sample.resident_bytes = machine::resident_bytes(running.id())?;
    running.terminate().await;
    Ok(sample)
}

async fn growth(context: &mut Context) -> anyhow::Result<()> {
    let server = Server::syncline(context.disk(), PLAIN).await?;
    let mut load = Loaded::new(&server, Writer::many(&server, 64, 64, 0).await?);
    let (window, begun) = (context.window / 2, Instant::now());
    let (mut written, mut entries) = (0, Vec::new());
    for size in GROWN.map(|size| if context.quick { size / 100 } else { size }) {
        while written < size && begun.elapsed() < GROWTH_MAX {
            written += round(&mut load, window.min(Duration::from_millis(500))).await?.operations;
        }
        let (after, mut samples) = (written, Vec::new());
        for _ in 0..context.rounds {
            let sample = round(&mut load, window).await?;
            written += sample.operations;
            samples.push(sample);
        }
        entries.push(Entry::new(&format!("after {after} updates"), samples));
    }
    context.add(Case::new(targets::GROWTH, "an update, 64 in flight, 64 documents, after so many", entries));
    Ok(())
}
