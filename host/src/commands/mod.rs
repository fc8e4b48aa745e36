//! The commands, one file each.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use syncline::config::Config;
use syncline::control::{Answer, Command as Asked, ask};
use syncline::runtime::RuntimeError;

mod arguments;
mod backup;
mod check_config;
mod compose;
mod doctor;
mod gateway;
mod inspect;
mod new_app;
mod restore;
mod serve;

pub use arguments::ServeArguments;

/// What `syncline` can do.
#[derive(Subcommand)]
pub enum Command {
    /// Serve (the default).
    Serve(ServeArguments),
    /// Check a configuration without touching anything.
    CheckConfig(ServeArguments),
    /// Show the component's imports and exports, the mounts, and the versions.
    Inspect(ServeArguments),
    /// Show how the server on the data folder is.
    Status(ServeArguments),
    /// Let the server on the data folder take over its changed configuration.
    Reload(ServeArguments),
    /// Copy all data into a new folder, while the server runs or not.
    Backup(backup::BackupArguments),
    /// Make a data folder of a backup.
    Restore(restore::RestoreArguments),
    /// Look whether a server can run, or runs, as it is configured.
    Doctor(doctor::DoctorArguments),
    /// Make a folder with an app component to begin with.
    NewApp(new_app::NewAppArguments),
    /// Make one component of an app, the services that it imports, and the logic; with --for spin one that Spin runs.
    Compose(compose::ComposeArguments),
    /// Hold the WebSockets of a deployment that cannot hold them itself (under Spin).
    Gateway(gateway::GatewayArguments),
    /// Show the version.
    Version,
}

/// Carries a command out.
pub async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve(arguments) => serve::run(arguments).await,
        Command::CheckConfig(arguments) => check_config::run(arguments).await,
        Command::Inspect(arguments) => inspect::run(arguments).await,
        Command::Status(arguments) => status(&arguments.config()?.data).await,
        Command::Reload(arguments) => report(&answer(&arguments.config()?.data, &Asked::Reload).await?),
        Command::Backup(arguments) => backup::run(arguments).await,
        Command::Restore(arguments) => restore::run(arguments).await,
        Command::Doctor(arguments) => doctor::run(arguments).await,
        Command::NewApp(arguments) => new_app::run(&arguments),
        Command::Compose(arguments) => compose::run(&arguments),
        Command::Gateway(arguments) => gateway::run(arguments).await,
        Command::Version => say(format_args!("syncline {}", env!("CARGO_PKG_VERSION"))),
    }
}

/// An error of the run time, with the file of the component where it is about that.
fn named(config: &Config, error: RuntimeError) -> anyhow::Error {
    match (&error, &config.component) {
        (RuntimeError::Component(_), Some(path)) => anyhow::Error::new(error).context(format!("component {}", path.display())),
        _ => error.into(),
    }
}

async fn answer(data: &Path, command: &Asked) -> anyhow::Result<Answer> {
    ask(data, command).await.with_context(|| format!("data folder {}", data.display()))
}

/// Prints what a server did, or fails with what it says.
fn report(answer: &Answer) -> anyhow::Result<()> {
    if !answer.ok {
        bail!("{}", answer.problems.join("\n"));
    }
    answer.report.iter().try_for_each(say)
}

/// One line on standard output; whoever reads it may have gone.
fn say(line: impl std::fmt::Display) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{line}").context("standard output")
}

async fn status(data: &Path) -> anyhow::Result<()> {
    let status = answer(data, &Asked::Status).await?.status.context("the server does not say how it is")?;
    say(serde_json::to_string_pretty(&status)?)
}
