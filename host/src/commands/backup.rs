//! `syncline backup`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use syncline::backup::{CallOff, back_up};
use syncline::config::Config;
use syncline::control::{Answer, Command, ControlError, ask, note_backup};

use super::{ServeArguments, report};

/// What to back up, and where to.
#[derive(Args)]
pub struct BackupArguments {
    /// Folder for the backup: new or empty. The server writes it, where one runs.
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
    #[command(flatten)]
    serve: ServeArguments,
}

/// Lets the server that runs make a backup, or makes it where none runs.
pub async fn run(arguments: BackupArguments) -> anyhow::Result<()> {
    let config = arguments.serve.config()?;
    config.check()?;
    let to = std::path::absolute(&arguments.to).with_context(|| arguments.to.display().to_string())?;
    match ask(&config.data, &Command::Backup { to: to.clone() }).await {
        Ok(answer) => report(&answer),
        Err(ControlError::NotRunning) => offline(&config, &to).await,
        Err(error) => Err(error.into()),
    }
}

/// Nobody else works on the data folder: as a server would, but for nobody to be held still.
async fn offline(config: &Config, to: &Path) -> anyhow::Result<()> {
    if !config.data.is_dir() {
        bail!("{} is no data folder: nothing was ever served from it", config.data.display());
    }
    let data = config.take_data_folder()?;
    let backends = config.open_backends().await?;
    let made = back_up(&backends, to, CallOff::default()).await;
    backends.executor.close().await;
    let manifest = made.context("no backup was made")?;
    note_backup(data.path(), manifest.created_ms);
    report(&Answer::done(manifest.report(to)))
}
