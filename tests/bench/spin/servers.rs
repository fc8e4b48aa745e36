//! The servers that are compared: our own host, and the composed components under Spin, or where it is not installed under the
//! fake of it that the tests use.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::rc::Rc;

use anyhow::{Context as _, ensure};
use serde_json::{Value as Json, json};
use syncline_tests::process::binary;
use syncline_tests::spin::version;
use tempfile::TempDir;

use crate::server::{Launch, Rows, Server, pinned};

/// What the gateway and Spin share.
const SECRET: &str = "bench";
/// The first version of Spin that serves `wasi:http/handler@0.3.0`.
const SERVICES: (u32, u32) = (4, 1);

/// Which of the composed components is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front {
    /// `wasi:http/handler@0.3.0`, on a real Spin.
    Service,
    /// `wasi:http/incoming-handler@0.2.0`, on a real Spin.
    Portable,
    /// The same on the fake.
    Fake,
}

impl Front {
    /// Those that can be measured here.
    pub fn available() -> Vec<Self> {
        match version() {
            Some(version) if version >= SERVICES => vec![Self::Service, Self::Portable],
            Some(_) => vec![Self::Portable],
            None => vec![Self::Fake],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Service => "spin up",
            Self::Portable => "spin up, portable",
            Self::Fake => "the tests' host, portable",
        }
    }

    /// For `syncline compose --for`, and for [`serve`].
    fn target(self) -> &'static str {
        match self {
            Self::Service => "spin",
            Self::Portable | Self::Fake => "spin-portable",
        }
    }
}

/// A server with the same two mounts, wherever it runs.
pub struct Deployment {
    server: Rc<Server>,
    disk: PathBuf,
}

fn plasma() -> anyhow::Result<Json> {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/plasma.fixture.json");
    Ok(serde_json::from_str(&std::fs::read_to_string(&fixture).with_context(|| fixture.display().to_string())?)?)
}

impl Deployment {
    /// Our own host, then Spin.
    pub async fn compared(disk: &Path) -> anyhow::Result<Vec<Self>> {
        let mut all = vec![Self::own(disk).await?];
        for front in Front::available() {
            all.push(Self::spin(disk, front).await?);
        }
        Ok(all)
    }

    /// Our own host.
    pub async fn own(disk: &Path) -> anyhow::Result<Self> {
        let file = std::path::absolute(disk.join("spin-plasma.json"))?;
        std::fs::write(&file, plasma()?.to_string())?;
        let mount = format!(
            "protocol = \"plasma\"\npath = \"/sync\"\nsettings_file = {:?}\n[[mount]]\nprotocol = \"secsync\"\n[mount.settings]\nverify = {{ signatures = false }}\n",
            file.display().to_string()
        );
        let server = Server::syncline(disk, Launch { mount, rows: Rows::Sqlite }).await?;
        Ok(Self { server, disk: disk.to_owned() })
    }

    /// Under Spin.
    pub async fn spin(disk: &Path, front: Front) -> anyhow::Result<Self> {
        let folder = Rc::new(TempDir::new_in(disk)?);
        let (component, config) = (folder.path().join("syncline.wasm"), folder.path().join("config.json"));
        let mut composing = tokio::process::Command::new(binary());
        let ended = composing.args(["compose", "--for", front.target(), "--output"]).arg(&component).stdout(Stdio::null()).status().await?;
        ensure!(ended.success(), "the component was not composed: {ended}");
        let mounts = json!([
            {"protocol": "plasma", "path": "/sync", "settings": plasma()?},
            {"protocol": "secsync", "path": "/secsync", "settings": {"verify": {"signatures": false}}},
        ]);
        std::fs::write(&config, json!({"gateway": {"secret": SECRET}, "mount": mounts}).to_string())?;
        let mut command = pinned(std::env::current_exe()?);
        let kind = if front == Front::Fake { "fake" } else { "up" };
        command.args(["child", "spin", kind]).arg(component).arg(config).arg(folder.path().join("state"));
        let server = Server::spawn_below(front.name(), command, Some(folder)).await?;
        Ok(Self { server, disk: disk.to_owned() })
    }

    /// Where requests go.
    pub fn server(&self) -> &Rc<Server> {
        &self.server
    }

    /// A gateway before it.
    pub async fn gateway(&self) -> anyhow::Result<Rc<Server>> {
        let mut command = pinned(binary());
        let upstream = format!("http://{}", self.server.address);
        command.args(["gateway", "--listen", "127.0.0.1:0", "--secret", SECRET, "--upstream", &upstream]);
        let folder = Rc::new(TempDir::new_in(&self.disk)?);
        Server::spawn_below("gateway", command, Some(folder)).await
    }
}
