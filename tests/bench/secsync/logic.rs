//! The logic without sockets and disks: as a component in the host's run time, and compiled for this machine.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use async_trait::async_trait;
use serde_json::json;
use syncline::pubsub::memory::MemoryPubSub;
use syncline::runtime::in_process::{ConnectRequest, InProcessSocket, SocketEvent};
use syncline::runtime::queue::Frame;
use syncline::runtime::{Backends, GUEST_COMPONENT, Runtime, RuntimeSettings};
use syncline::storage::Storage;
use syncline::storage::memory::{MemoryKeyValue, MemoryObjects};
use syncline_guest::imports::{Effects as _, Frame as LogicFrame, Imports, RequestHead};
use syncline_guest::registry::{self, Connection, Input, Mount, Outcome, UpgradeResult};
use syncline_tests::server::secsync_mount;

use super::frames::{Place, Updates};
use super::workers::{author, fresh_document};
use crate::load::{Contestant, micros};
use crate::machine::Cpu;
use crate::native::{MemoryExecutor, NativeImports};
use crate::report::Sample;

/// Updates of a place: signed beforehand, or not at all.
fn updates(place: Place, signed: Option<u64>) -> Updates {
    match signed {
        Some(count) => Updates::signed(author(1), place, count),
        None => Updates::unsigned(author(1), place),
    }
}

fn sample(latencies_us: Vec<u32>, start: Instant, before: Cpu) -> anyhow::Result<Sample> {
    Ok(Sample::new(latencies_us, start.elapsed(), Cpu::own()?.since(before), 1))
}

/// A component in the host's run time.
pub struct InComponent {
    name: String,
    socket: InProcessSocket,
    updates: Updates,
    _runtime: Arc<Runtime>,
}

impl InComponent {
    /// The component of a file, or the shipped one. Compiled code is kept in `cache`.
    pub async fn start(cache: &Path, file: Option<&Path>, signed: Option<u64>) -> anyhow::Result<Self> {
        let (component, name) = match file {
            None => (GUEST_COMPONENT.to_vec(), "component".to_owned()),
            Some(file) => (std::fs::read(file)?, file.display().to_string()),
        };
        let storage = Storage { keyvalue: Arc::new(MemoryKeyValue::new()), objects: Arc::new(MemoryObjects::new()) };
        let backends = Backends { executor: Arc::new(MemoryExecutor), storage, pubsub: Arc::new(MemoryPubSub::default()) };
        let mounts = [secsync_mount("secsync", json!({"verify": {"signatures": signed.is_some()}}))];
        let settings = RuntimeSettings { cache: Some(std::path::absolute(cache)?), ..RuntimeSettings::default() };
        let runtime = Runtime::start(&component, settings, &mounts, backends).await?;
        let document = fresh_document();
        let request = ConnectRequest {
            path: format!("/secsync/{document}"),
            query: Some("sessionKey=bench&mode=complete".into()),
            remote_address: "127.0.0.1".into(),
            ..ConnectRequest::default()
        };
        let socket = runtime.connect("secsync", request).await?;
        let snapshot = author(0).first_snapshot(&document, &[1; 1000]);
        let place = Place { document, snapshot: snapshot.id };
        let mut this = Self { name, socket, updates: updates(place, signed), _runtime: runtime };
        this.expect("document").await?;
        this.send(snapshot.frame.to_string(), "snapshot-saved").await?;
        Ok(this)
    }

    async fn send(&mut self, text: String, answer: &str) -> anyhow::Result<()> {
        ensure!(self.socket.send(Frame::Text(text.into())).is_ok(), "the host does not read though nothing is in flight");
        self.expect(answer).await
    }

    async fn expect(&mut self, kind: &str) -> anyhow::Result<()> {
        match self.socket.receive().await {
            SocketEvent::Frame(Frame::Text(text)) if text.starts_with(format!(r#"{{"type":"{kind}""#).as_bytes()) => Ok(()),
            other => bail!("{kind} was expected, not {other:?}"),
        }
    }
}

#[async_trait(?Send)]
impl Contestant for InComponent {
    fn name(&self) -> &str {
        &self.name
    }

    async fn round(&mut self, window: Duration) -> anyhow::Result<Sample> {
        let (before, start, mut latencies_us) = (Cpu::own()?, Instant::now(), Vec::new());
        while start.elapsed() < window {
            let begun = Instant::now();
            let text = self.updates.next_text();
            self.send(text, "update-saved").await?;
            latencies_us.push(micros(begun));
        }
        sample(latencies_us, start, before)
    }
}

/// The logic compiled for this machine, called directly.
pub struct Native {
    imports: NativeImports,
    mount: Rc<dyn Mount>,
    attachment: Vec<u8>,
    updates: Option<Updates>,
}

/// The only connection.
const CONNECTION: u64 = 1;

impl Native {
    /// With one document.
    pub fn start(signed: Option<u64>) -> anyhow::Result<Self> {
        let settings = json!({"verify": {"signatures": signed.is_some()}}).to_string();
        let protocol = registry::protocol("secsync").context("the protocol")?;
        let mount = protocol.configure("secsync", &settings, Vec::new()).map_err(anyhow::Error::msg)?;
        let mut this = Self { imports: NativeImports::new()?, mount, attachment: Vec::new(), updates: None };
        this.mount.start(this.imports()?, None).map_err(anyhow::Error::msg)?;
        let document = fresh_document();
        let head = RequestHead {
            method: "GET".into(),
            path: format!("/secsync/{document}"),
            query: Some("sessionKey=bench&mode=complete".into()),
            headers: Vec::new(),
            remote_address: "127.0.0.1".into(),
            secure: false,
        };
        match this.mount.upgrade(this.imports()?, CONNECTION, head) {
            UpgradeResult::Accept(accept) => this.attachment = accept.start.attachment.unwrap_or_default(),
            UpgradeResult::Refuse(_) => bail!("the upgrade was refused"),
        }
        let snapshot = author(0).first_snapshot(&document, &[1; 1000]);
        this.send(snapshot.frame.to_string(), "snapshot-saved")?;
        this.updates = Some(updates(Place { document, snapshot: snapshot.id }, signed));
        ensure!(this.imports.published() > 0 && this.imports.measured().is_empty(), "a saved snapshot is published");
        Ok(this)
    }

    fn imports(&self) -> anyhow::Result<Imports<'_>> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        let now_ms = u64::try_from(now.as_millis())?;
        let all = &self.imports;
        Ok(Imports { executor: all, storage: all, pubsub: all, effects: all, app: &syncline_guest::imports::NoApp, now_ms })
    }

    fn send(&mut self, text: String, kind: &str) -> anyhow::Result<()> {
        let connection = Connection { id: CONNECTION, attachment: self.attachment.clone(), cursors: Vec::new(), failure: None };
        let outcome: Outcome = self.mount.receive(self.imports()?, connection, vec![Input::Frame(LogicFrame::Text(text))]);
        if let Some(attachment) = outcome.attachment {
            self.attachment = attachment;
        }
        match outcome.send.as_slice() {
            [LogicFrame::Text(text)] if text.starts_with(&format!(r#"{{"type":"{kind}""#)) => Ok(()),
            other => bail!("{kind} was expected, not {other:?}"),
        }
    }
}

#[async_trait(?Send)]
impl Contestant for Native {
    fn name(&self) -> &str {
        "native"
    }

    async fn round(&mut self, window: Duration) -> anyhow::Result<Sample> {
        let mut updates = self.updates.take().context("the updates")?;
        let (before, start, mut latencies_us) = (Cpu::own()?, Instant::now(), Vec::new());
        while start.elapsed() < window {
            let begun = Instant::now();
            self.send(updates.next_text(), "update-saved")?;
            latencies_us.push(micros(begun));
        }
        self.updates = Some(updates);
        sample(latencies_us, start, before)
    }
}
