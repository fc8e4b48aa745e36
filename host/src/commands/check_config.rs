//! `syncline check-config`.

use syncline::runtime::Checker;

use super::{ServeArguments, named, say};

/// Says what is wrong with a configuration, or what it comes to.
pub async fn run(arguments: ServeArguments) -> anyhow::Result<()> {
    let config = arguments.config()?;
    let mut warnings = config.check()?;
    config.server_settings()?.check()?;
    let mounts = config.mount_settings()?;
    let mut settings = config.runtime_settings();
    settings.cache = None;
    let described = Checker::new(&config.component()?, settings).map_err(|error| named(&config, error))?.describe_all(&mounts).await?;
    say("the configuration is valid")?;
    for mount in described {
        say(&mount.line)?;
        warnings.extend(mount.warnings);
    }
    for warning in warnings {
        say(format_args!("warning: {warning}"))?;
    }
    Ok(())
}
