//! Syncline under Spin as a process, for tests in other languages: `spin --config FILE --data FOLDER [--listen ADDRESS]
//! [--executor URL]`, as a server is started. `SYNCLINE_TEST_HOST` chooses the Spin, `SYNCLINE_GATEWAY_SECRET` opens it to gateways.
//!
//! It says `listening on http://…` when it serves. When its standard input ends it is gone, as if it had been killed.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};
use syncline::runtime::GUEST_COMPONENT;
use syncline_tests::spin::{Kind, Spin, SpinSettings, chosen, composed};

/// The variable `config` for what a configuration file says: its keys are the same, but for files beside it, which Spin would not find.
fn config(file: &Path) -> anyhow::Result<Value> {
    let mut config: Value = toml::from_str(&std::fs::read_to_string(file)?)?;
    let mounts = config["mount"].as_array_mut().context("a file with mounts is expected")?;
    for mount in mounts.iter_mut().filter_map(Value::as_object_mut) {
        if let Some(settings) = mount.remove("settings_file") {
            let beside = file.with_file_name(settings.as_str().context("settings_file is a name")?);
            mount.insert("settings".into(), serde_json::from_slice(&std::fs::read(beside)?)?);
        }
    }
    Ok(config)
}

/// `--name value`, again and again.
fn options() -> anyhow::Result<BTreeMap<String, String>> {
    let mut arguments = std::env::args().skip(1);
    let mut options = BTreeMap::new();
    while let Some(name) = arguments.next() {
        anyhow::ensure!(["--config", "--data", "--listen", "--executor"].contains(&name.as_str()), "{name} is no option");
        let value = arguments.next().with_context(|| format!("{name} needs a value"))?;
        options.insert(name, value);
    }
    Ok(options)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut options = options()?;
    let mut config = config(options.get("--config").context("--config is missing")?.as_ref())?;
    if let Some(executor) = options.remove("--executor") {
        config["executor"] = executor.into();
    }
    if let Ok(secret) = std::env::var("SYNCLINE_GATEWAY_SECRET") {
        config["gateway"] = json!({ "secret": secret });
    }
    let kind = chosen().unwrap_or(Kind::Fake);
    let component = composed(kind, GUEST_COMPONENT, &[])?;
    let mut settings = SpinSettings::new(component, options.remove("--data").context("--data is missing")?);
    settings.variables.insert("config".into(), config.to_string());
    if let Some(listen) = options.remove("--listen") {
        settings.listen = listen.parse()?;
    }
    let spin = Spin::start(kind, settings).await?;
    println!("listening on http://{}", spin.address());
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    drop(spin);
    // Nothing is waited for, as nothing would be by a signal.
    std::process::exit(0)
}
