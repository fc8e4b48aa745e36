//! `syncline new-app`: a folder with an app to begin with.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};

use super::say;

/// What app, and where.
#[derive(Args)]
pub struct NewAppArguments {
    /// The language that it is written in.
    #[arg(long, value_enum, default_value = "rust")]
    lang: Language,
    /// Its name, and that of the folder: lower-case letters, digits and hyphens.
    name: String,
    /// The folder that the new one is made in.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    into: PathBuf,
}

/// A language that apps can be written in.
#[derive(Clone, Copy, ValueEnum)]
enum Language {
    /// Rust, with wit-bindgen.
    Rust,
}

/// The files of an app, by their place; `{{name}}` stands for its name and `{{crate}}` for the crate's.
const RUST: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("../../templates/rust/Cargo.toml.in")),
    ("README.md", include_str!("../../templates/rust/README.md")),
    ("src/lib.rs", include_str!("../../templates/rust/src/lib.rs")),
    ("tests/runs.rs", include_str!("../../templates/rust/tests/runs.rs")),
    (".gitignore", "/target\n"),
];

/// The interfaces of an app, as this version has them.
const WIT: &[(&str, &str)] =
    &[("app.wit", include_str!("../../../wit/deps/app/app.wit")), ("secsync.wit", include_str!("../../../wit/deps/app/secsync.wit"))];

/// Makes the folder.
pub fn run(arguments: &NewAppArguments) -> anyhow::Result<()> {
    let name = arguments.name.as_str();
    let fits = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit() || character == '-';
    if !name.starts_with(|first: char| first.is_ascii_lowercase()) || name.ends_with('-') || !name.chars().all(fits) {
        bail!("{name:?} cannot be the name of an app: it begins with a letter and has lower-case letters, digits and hyphens");
    }
    let folder = arguments.into.join(name);
    if folder.exists() {
        bail!("{} is there already", folder.display());
    }
    let files = match arguments.lang {
        Language::Rust => RUST,
    };
    for (place, text) in files {
        write(&folder.join(place), &text.replace("{{name}}", name).replace("{{crate}}", &name.replace('-', "_")))?;
    }
    for (place, text) in WIT {
        write(&folder.join("wit").join(place), text)?;
    }
    say(format_args!("{}: build it with `cargo build --target wasm32-wasip2 --release`, see its README.md", folder.display()))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let failed = || path.display().to_string();
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(failed)?;
    }
    std::fs::write(path, text).with_context(failed)
}
