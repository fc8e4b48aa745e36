//! Loads: closed loops with a stated number in flight, and the open loop.

use std::rc::Rc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::machine::{self, Cpu};
use crate::report::Sample;
use crate::server::Server;

/// Something that is done over and over.
#[async_trait(?Send)]
pub trait Worker {
    /// Does it once: sends a request and waits for what answers it.
    async fn step(&mut self) -> anyhow::Result<()>;
}

/// One of those that are compared.
#[async_trait(?Send)]
pub trait Contestant {
    /// What the report calls it.
    fn name(&self) -> &str;
    /// One round.
    async fn round(&mut self, window: Duration) -> anyhow::Result<Sample>;
}

/// A server under load by workers, each with one operation in flight.
pub struct Loaded<W> {
    name: String,
    server: Rc<Server>,
    workers: Vec<W>,
    /// What an operation counts for: of a fan-out each delivery counts.
    weight: u32,
}

impl<W: Worker + 'static> Loaded<W> {
    /// A server and its workers.
    pub fn new(server: &Rc<Server>, workers: Vec<W>) -> Self {
        Self { name: server.name.clone(), server: server.clone(), workers, weight: 1 }
    }

    /// Counts each operation as so many.
    pub fn weighing(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// Under another name.
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }
}

#[async_trait(?Send)]
impl<W: Worker + 'static> Contestant for Loaded<W> {
    fn name(&self) -> &str {
        &self.name
    }

    async fn round(&mut self, window: Duration) -> anyhow::Result<Sample> {
        let (server_before, own_before, start) = (Cpu::of(self.server.process)?, Cpu::own()?, Instant::now());
        let mut running = JoinSet::new();
        for mut worker in self.workers.drain(..) {
            running.spawn_local(async move {
                let mut latencies_us = Vec::new();
                while start.elapsed() < window {
                    let begun = Instant::now();
                    worker.step().await?;
                    latencies_us.push(micros(begun));
                }
                anyhow::Ok((worker, latencies_us))
            });
        }
        let mut latencies_us = Vec::new();
        while let Some(ended) = running.join_next().await {
            let (worker, own_us) = ended??;
            self.workers.push(worker);
            latencies_us.extend(own_us);
        }
        let elapsed = start.elapsed();
        let used = Cpu::of(self.server.process)?.since(server_before);
        let own_share = Cpu::own()?.since(own_before).total_s() / elapsed.as_secs_f64();
        let mut sample = Sample::new(latencies_us, elapsed, used, self.weight);
        sample.resident_bytes = machine::resident_bytes(self.server.process)?;
        sample.own_share = Some(own_share);
        Ok(sample)
    }
}

/// Microseconds since a moment.
pub fn micros(since: Instant) -> u32 {
    u32::try_from(since.elapsed().as_micros()).unwrap_or(u32::MAX)
}

/// A connection of the open loop.
pub struct OpenConnection {
    /// Where it reads answers.
    pub reader: crate::wire::Reader,
    /// Where it sends.
    pub writer: tokio::net::tcp::OwnedWriteHalf,
    /// Gives the next frame.
    pub next_frame: Box<dyn FnMut() -> Vec<u8>>,
    /// What an answer begins with.
    pub answer_starts: &'static str,
}

/// Sends at a rate that does not depend on the answers. Latencies count from the moment that a request was *due*, so
/// one that had to wait because the server or the generator was late is charged with the wait.
pub async fn open_loop(server: &Server, connections: Vec<OpenConnection>, rate: f64, window: Duration) -> anyhow::Result<Sample> {
    let count = connections.len();
    let (mut due_senders, mut running) = (Vec::new(), JoinSet::new());
    for mut connection in connections {
        let (due_sender, mut due) = mpsc::unbounded_channel::<Instant>();
        let (sent_sender, mut sent) = mpsc::unbounded_channel::<Instant>();
        due_senders.push(due_sender);
        running.spawn_local(async move {
            let mut latencies_us = Vec::new();
            while let Some(due) = sent.recv().await {
                connection.reader.receive_starting(connection.answer_starts).await?;
                latencies_us.push(micros(due));
            }
            anyhow::Ok(latencies_us)
        });
        running.spawn_local(async move {
            while let Some(due) = due.recv().await {
                sent_sender.send(due)?;
                tokio::io::AsyncWriteExt::write_all(&mut connection.writer, &(connection.next_frame)()).await?;
            }
            // Dropping it would end the connection while answers are still under way.
            connection.writer.forget();
            anyhow::Ok(Vec::new())
        });
    }
    let (server_before, own_before, start) = (Cpu::of(server.process)?, Cpu::own()?, Instant::now());
    // A thread of its own: it wakes within a tenth of a millisecond of the due time, which the runtime's timer does not.
    let pacer = std::thread::spawn(move || {
        let mut sent = 0;
        for number in 0_u32.. {
            let due = start + Duration::from_secs_f64(f64::from(number) / rate);
            if due > start + window {
                break;
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if due_senders[number as usize % count].send(due).is_err() {
                break;
            }
            sent += 1;
        }
        sent
    });
    let mut latencies_us = Vec::new();
    while let Some(ended) = running.join_next().await {
        latencies_us.extend(ended??);
    }
    let elapsed = start.elapsed();
    let sent = pacer.join().map_err(|_| anyhow::anyhow!("the pacer panicked"))?;
    anyhow::ensure!(sent == latencies_us.len(), "{sent} were sent and {} answered", latencies_us.len());
    let used = Cpu::of(server.process)?.since(server_before);
    let mut sample = Sample::new(latencies_us, elapsed, used, 1);
    sample.resident_bytes = machine::resident_bytes(server.process)?;
    sample.own_share = Some(Cpu::own()?.since(own_before).total_s() / elapsed.as_secs_f64());
    Ok(sample)
}
