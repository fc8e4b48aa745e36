//! `syncline compose`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use syncline::compose;

use super::say;

/// What is composed, and where it goes.
#[derive(Args)]
pub struct ComposeArguments {
    /// The app component; without one: the empty app.
    #[arg(long, value_name = "FILE")]
    app: Option<PathBuf>,
    /// The file of the composed component.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// Makes one component of services, app and logic.
pub fn run(arguments: &ComposeArguments) -> anyhow::Result<()> {
    let read = |path: &PathBuf| std::fs::read(path).with_context(|| path.display().to_string());
    let app = arguments.app.as_ref().map(read).transpose()?;
    let named = || arguments.app.as_ref().map_or_else(String::new, |path| path.display().to_string());
    let composed = compose::whole(app.as_deref()).with_context(named)?;
    let output = arguments.output.display();
    std::fs::write(&arguments.output, &composed).with_context(|| output.to_string())?;
    say(format_args!("{output}: {} bytes; serve it with `component = \"{output}\"`", composed.len()))
}
