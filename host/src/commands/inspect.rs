//! `syncline inspect`.

use syncline::runtime::Checker;

use super::ServeArguments;

/// Shows the component's imports and exports, the mounts, and the versions.
pub async fn run(arguments: ServeArguments) -> anyhow::Result<()> {
    let config = arguments.config()?;
    let mounts = config.mount_settings()?;
    let mut settings = config.runtime_settings();
    settings.cache = None;
    println!("syncline {}", env!("CARGO_PKG_VERSION"));
    let checker = Checker::new(&config.component()?, settings)?;
    for line in checker.component_interfaces() {
        println!("{line}");
    }
    for mount in checker.describe_all(&mounts).await? {
        println!("{}", mount.line);
    }
    Ok(())
}
