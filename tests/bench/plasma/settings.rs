//! How the servers of plasma are set: as the conformance tests are.

use std::path::Path;
use std::rc::Rc;

use anyhow::Context as _;
use serde_json::Value as Json;

use crate::server::{Launch, Rows, Server};

/// Connections of one user; the listeners of pokes are only a few users.
const CONNECTIONS_PER_USER: u32 = 10_000;

/// The fixture as a mount, its rows in some store.
pub fn launch(disk: &Path, rows: Rows) -> anyhow::Result<Launch> {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/plasma.fixture.json");
    let text = std::fs::read_to_string(&fixture).with_context(|| fixture.display().to_string())?;
    let mut settings: Json = serde_json::from_str(&text)?;
    settings["poke"]["maxConnectionsPerUser"] = CONNECTIONS_PER_USER.into();
    let file = std::path::absolute(disk.join("plasma.json"))?;
    std::fs::write(&file, settings.to_string())?;
    let mount = format!("protocol = \"plasma\"\npath = \"/sync\"\nsettings_file = {:?}\n", file.display().to_string());
    Ok(Launch { mount, rows })
}

/// The Node peer of plasma.
pub async fn peer(disk: &Path) -> anyhow::Result<Rc<Server>> {
    Server::node(disk, "plasma/main.mjs", &[]).await
}
