//! `syncline doctor`.

use anyhow::bail;
use clap::Args;
use syncline::doctor::{Outcome, examine};

use super::{ServeArguments, say};

/// What to look at.
#[derive(Args)]
pub struct DoctorArguments {
    /// Compare the content of every object with its hash, not of a sample.
    #[arg(long)]
    full: bool,
    #[command(flatten)]
    serve: ServeArguments,
}

/// Makes all checks; fails if one of them does.
pub async fn run(arguments: DoctorArguments) -> anyhow::Result<()> {
    let checks = examine(&arguments.serve.config()?, arguments.full).await;
    for check in &checks {
        say(check)?;
    }
    match checks.iter().filter(|check| check.outcome == Outcome::Failed).count() {
        0 => Ok(()),
        failed => bail!("{failed} of {} checks failed", checks.len()),
    }
}
