//! The real Spin, where it is installed.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::SpinSettings;
use crate::server::compilation_cache;
use crate::{DEADLINE, sha256};

/// The version of Fermyon's Spin on the path, major and minor; none: there is none. (Another program of that name checks models.)
pub fn version() -> Option<(u32, u32)> {
    let output = std::process::Command::new("spin").arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut numbers = text.strip_prefix("spin ")?.split(|letter: char| !letter.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// How long a start may take: a component that Spin has not seen yet is compiled first.
const START_DEADLINE: Duration = Duration::from_secs(120);

/// A running `spin up`: two processes of one group, which is killed when this is dropped.
pub struct SpinUp {
    /// Where it listens.
    pub address: SocketAddr,
    child: Child,
    group: Pid,
    _manifest: TempDir,
}

/// A component as a file, to which all tests may point.
fn component_file(component: &[u8]) -> std::io::Result<PathBuf> {
    let folder = compilation_cache();
    std::fs::create_dir_all(&folder)?;
    let path = folder.join(format!("{}.wasm", sha256(component)));
    if !path.exists() {
        // Others may do the same at the same time: it appears as a whole.
        let mut file = tempfile::NamedTempFile::new_in(&folder)?;
        std::io::Write::write_all(&mut file, component)?;
        file.persist(&path)?;
    }
    Ok(path)
}

fn manifest(settings: &SpinSettings, component: &Path) -> String {
    let (mut declared, mut given) = (String::new(), String::new());
    for name in settings.variables.keys() {
        writeln!(declared, "{name} = {{ required = true }}").expect("a text takes all");
        writeln!(given, "{name} = \"{{{{ {name} }}}}\"").expect("a text takes all");
    }
    let files = settings.files.as_ref().map_or(String::new(), |files| format!("files = [{{ source = {files:?}, destination = \"/\" }}]"));
    format!(
        r#"spin_manifest_version = 2
[application]
name = "syncline-tests"
version = "0.1.0"
[variables]
{declared}
[[trigger.http]]
route = "/..."
component = "tested"
[component.tested]
source = {component:?}
sqlite_databases = ["default"]
key_value_stores = ["default"]
allowed_outbound_hosts = ["*://*:*"]
{files}
[component.tested.variables]
{given}"#
    )
}

impl SpinUp {
    /// Starts it, and waits until it serves.
    ///
    /// # Errors
    /// What it said instead.
    pub async fn start(settings: &SpinSettings) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("spin.toml");
        std::fs::write(&file, manifest(settings, &component_file(&settings.component)?))?;
        let mut command = Command::new("spin");
        command.args(["up", "--listen", &settings.listen.to_string(), "-f"]).arg(&file).arg("--state-dir").arg(&settings.folder);
        for (name, value) in &settings.variables {
            let path = folder.path().join(name);
            std::fs::write(&path, value)?;
            command.arg("--variable").arg(format!("{name}=@{}", path.display()));
        }
        // A process for each test: a pool for a thousand instances takes long to set up.
        command.env("SPIN_MAX_INSTANCE_COUNT", settings.instances_max.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).process_group(0);
        let mut child = command.spawn()?;
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed())).expect("it was just started");
        let mut lines = BufReader::new(child.stdout.take().expect("standard output is piped")).lines();
        let mut started = Self { address: ([127, 0, 0, 1], 0).into(), child, group, _manifest: folder };
        let serving = async {
            let mut said = String::new();
            while let Some(line) = lines.next_line().await? {
                if let Some(address) = line.trim().strip_prefix("Serving http://") {
                    return Ok(address.trim_end_matches('/').parse()?);
                }
                said = format!("{said}{line}\n");
            }
            anyhow::bail!("spin up ended: {said}")
        };
        started.address = tokio::time::timeout(START_DEADLINE, serving).await??;
        // What it goes on to say must not fill the pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(started)
    }

    /// Ends it; when this returns nothing of it uses its folder any more.
    pub async fn stop(mut self) {
        let _ = kill_process_group(self.group, Signal::TERM);
        let ended = tokio::time::timeout(DEADLINE, self.child.wait()).await;
        drop(ended.expect("it ends within the deadline"));
    }
}

impl Drop for SpinUp {
    fn drop(&mut self) {
        // Those that have ended cannot be killed.
        let _ = kill_process_group(self.group, Signal::KILL);
    }
}
