//! `syncline restore`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use syncline::backup::restore::restore;

use super::say;

/// Which backup becomes which data folder.
#[derive(Args)]
pub struct RestoreArguments {
    /// The backup.
    #[arg(long, value_name = "FOLDER")]
    from: PathBuf,
    /// The data folder: new or empty.
    #[arg(long, env = "SYNCLINE_DATA", value_name = "FOLDER", default_value = "./data")]
    data: PathBuf,
}

/// Checks a backup and makes a data folder of it.
pub async fn run(arguments: RestoreArguments) -> anyhow::Result<()> {
    let RestoreArguments { from, data } = arguments;
    let into = data.clone();
    let manifest = tokio::task::spawn_blocking(move || restore(&from, &data)).await?.context("nothing was restored")?;
    say(format_args!("restored {} files, {} bytes, into {}", manifest.files.len(), manifest.size_bytes(), into.display()))?;
    Ok(())
}
