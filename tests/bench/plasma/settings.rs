//! How the servers of plasma are set: as the conformance tests are.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context as _, ensure};
use serde_json::{Value as Json, json};
use syncline_tests::process::binary;

use crate::server::{Launch, Rows, Server};

/// Connections of one user; the listeners of pokes are only a few users.
const CONNECTIONS_PER_USER: u32 = 10_000;

/// The fixture as a mount, its rows in some store.
pub fn launch(disk: &Path, rows: Rows) -> anyhow::Result<Launch> {
    launch_with(disk, "plasma.json", rows, |_| {})
}

fn launch_with(disk: &Path, file: &str, rows: Rows, change: impl FnOnce(&mut Json)) -> anyhow::Result<Launch> {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/plasma.fixture.json");
    let text = std::fs::read_to_string(&fixture).with_context(|| fixture.display().to_string())?;
    let mut settings: Json = serde_json::from_str(&text)?;
    settings["poke"]["maxConnectionsPerUser"] = CONNECTIONS_PER_USER.into();
    change(&mut settings);
    let file = std::path::absolute(disk.join(file))?;
    std::fs::write(&file, settings.to_string())?;
    let mount = format!("protocol = \"plasma\"\npath = \"/sync\"\nsettings_file = {:?}\n", file.display().to_string());
    Ok(Launch { mount, rows })
}

/// The same with an app, which is told of nothing.
pub fn launch_with_app(disk: &Path, app: &Path) -> anyhow::Result<Launch> {
    let mut launch = launch_with(disk, "plasma-app.json", Rows::Sqlite, |settings| {
        for hook in ["onPushed", "onError", "onMetric"] {
            settings[hook] = json!({"app": false});
        }
    })?;
    launch.mount += &format!("app = {:?}\n", app.display().to_string());
    Ok(launch)
}

/// An app in TypeScript, with the mutator that the benchmarks call.
pub async fn typescript_app(disk: &Path) -> anyhow::Result<PathBuf> {
    let script = crate::server::clients_folder().join("plasma/bench_app.mjs");
    ensure!(
        script.with_file_name("../node_modules/esbuild").exists(),
        "packages of the real clients are missing: `make bench` installs them"
    );
    let app = std::path::absolute(disk.join("typescript-app.wasm"))?;
    let mut building = tokio::process::Command::new("node");
    let ended = building.arg(script).arg(&app).env("SYNCLINE_BIN", binary()).kill_on_drop(true).status().await?;
    ensure!(ended.success(), "the app was not built: {ended}");
    Ok(app)
}

/// The Node peer of blobs.
pub async fn files_peer(disk: &Path) -> anyhow::Result<Rc<Server>> {
    Server::node(disk, "files.mjs", &[]).await
}

/// The Node peer of plasma.
pub async fn peer(disk: &Path) -> anyhow::Result<Rc<Server>> {
    Server::node(disk, "plasma/main.mjs", &[]).await
}
