//! `syncline inspect`.

use syncline::runtime::Checker;

use super::{ServeArguments, named, say};

/// Shows the component's imports and exports, the mounts, and the versions.
pub async fn run(arguments: ServeArguments) -> anyhow::Result<()> {
    let config = arguments.config()?;
    let mounts = config.mount_settings()?;
    let mut settings = config.runtime_settings();
    settings.cache = None;
    say(format_args!("syncline {}", env!("CARGO_PKG_VERSION")))?;
    let checker = Checker::new(&config.component()?, settings).map_err(|error| named(&config, error))?;
    for line in checker.component_interfaces() {
        say(line)?;
    }
    for mount in checker.describe_all(&mounts).await? {
        say(&mount.line)?;
    }
    Ok(())
}
