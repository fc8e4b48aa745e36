//! `syncline compose`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use syncline::compose::{self, Spin};

use super::say;

/// What is composed, and where it goes.
#[derive(Args)]
pub struct ComposeArguments {
    /// The app component; without one: the empty app.
    #[arg(long, value_name = "FILE")]
    app: Option<PathBuf>,
    /// What runs it.
    #[arg(long = "for", value_enum, default_value_t = Target::Server)]
    target: Target,
    /// The file of the composed component. Without it: the target's own name, in this folder.
    #[arg(short, long, alias = "out", value_name = "FILE")]
    output: Option<PathBuf>,
}

/// What runs a composed component.
#[derive(Clone, Copy, ValueEnum)]
enum Target {
    /// This server (`component` in its configuration).
    Server,
    /// Spin 4.1 and later.
    Spin,
    /// Spin 2.7 and later, and hosted services.
    SpinPortable,
}

impl Target {
    fn file_name(self) -> &'static str {
        match self {
            Self::Server => "syncline.wasm",
            Self::Spin => "syncline-spin.wasm",
            Self::SpinPortable => "syncline-spin-portable.wasm",
        }
    }

    fn compose(self, app: Option<&[u8]>) -> Result<Vec<u8>, compose::ComposeError> {
        match self {
            Self::Server => compose::whole(app),
            Self::Spin => compose::for_spin(app, Spin::Service),
            Self::SpinPortable => compose::for_spin(app, Spin::Portable),
        }
    }

    /// How to use it.
    fn use_of(self, file: impl std::fmt::Display) -> String {
        match self {
            Self::Server => format!("serve it with `component = \"{file}\"`"),
            Self::Spin | Self::SpinPortable => format!("serve it with `source = \"{file}\"` in spin.toml"),
        }
    }
}

/// Makes one component of services, app and logic; for Spin of its adapters too.
pub fn run(arguments: &ComposeArguments) -> anyhow::Result<()> {
    let read = |path: &PathBuf| std::fs::read(path).with_context(|| path.display().to_string());
    let app = arguments.app.as_ref().map(read).transpose()?;
    let named = || arguments.app.as_ref().map_or_else(String::new, |path| path.display().to_string());
    let composed = arguments.target.compose(app.as_deref()).with_context(named)?;
    let file = arguments.output.clone().unwrap_or_else(|| arguments.target.file_name().into());
    std::fs::write(&file, &composed).with_context(|| file.display().to_string())?;
    let file = file.display();
    say(format_args!("{file}: {} bytes; {}", composed.len(), arguments.target.use_of(&file)))
}
