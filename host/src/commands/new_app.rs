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
    /// TypeScript, with mutators that run in the browser too.
    #[value(name = "ts", alias = "typescript")]
    TypeScript,
}

/// What an app of a language begins with.
struct Template {
    files: &'static [(&'static str, &'static str)],
    /// Where the interfaces go.
    wit: &'static str,
    /// What builds it.
    build: &'static str,
}

impl Language {
    fn template(self) -> Template {
        match self {
            Self::Rust => Template { files: RUST, wit: "wit", build: "cargo build --target wasm32-wasip2 --release" },
            Self::TypeScript => Template { files: TYPESCRIPT, wit: "wit/deps/app", build: "npm install && npm run build" },
        }
    }
}

/// The files of an app, by their place; `{{name}}` stands for its name and `{{crate}}` for the crate's.
const RUST: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("../../templates/rust/Cargo.toml.in")),
    ("README.md", include_str!("../../templates/rust/README.md")),
    ("src/lib.rs", include_str!("../../templates/rust/src/lib.rs")),
    ("tests/runs.rs", include_str!("../../templates/rust/tests/runs.rs")),
    (".gitignore", "/target\n"),
];

/// The same in TypeScript.
const TYPESCRIPT: &[(&str, &str)] = &[
    ("package.json", include_str!("../../templates/typescript/package.json.in")),
    (".npmrc", include_str!("../../templates/typescript/npmrc")),
    (".gitignore", "/data/\n/dist/\n/node_modules/\n"),
    ("README.md", include_str!("../../templates/typescript/README.md")),
    ("build.mjs", include_str!("../../templates/typescript/build.mjs")),
    ("settings.json", include_str!("../../templates/typescript/settings.json")),
    ("syncline.toml", include_str!("../../templates/typescript/syncline.toml")),
    ("tsconfig.json", include_str!("../../templates/typescript/tsconfig.json")),
    ("src/app.ts", include_str!("../../templates/typescript/src/app.ts")),
    ("src/mutators.ts", include_str!("../../templates/typescript/src/mutators.ts")),
    ("syncline/app.ts", include_str!("../../templates/typescript/syncline/app.ts")),
    ("syncline/build.mjs", include_str!("../../templates/typescript/syncline/build.mjs")),
    ("syncline/interfaces.d.ts", include_str!("../../templates/typescript/syncline/interfaces.d.ts")),
    ("syncline/schema.ts", include_str!("../../templates/typescript/syncline/schema.ts")),
    ("syncline/server_transaction.ts", include_str!("../../templates/typescript/syncline/server_transaction.ts")),
    ("syncline/transaction.ts", include_str!("../../templates/typescript/syncline/transaction.ts")),
    ("test/runs.test.mjs", include_str!("../../templates/typescript/test/runs.test.mjs")),
    ("wit/world.wit", include_str!("../../templates/typescript/world.wit")),
];

/// The interfaces of an app, as this version has them.
const WIT: &[(&str, &str)] = &[
    ("app.wit", include_str!("../../../wit/deps/app/app.wit")),
    ("plasma.wit", include_str!("../../../wit/deps/app/plasma.wit")),
    ("secsync.wit", include_str!("../../../wit/deps/app/secsync.wit")),
];

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
    let template = arguments.lang.template();
    for (place, text) in template.files {
        write(&folder.join(place), &text.replace("{{name}}", name).replace("{{crate}}", &name.replace('-', "_")))?;
    }
    for (place, text) in WIT {
        write(&folder.join(template.wit).join(place), text)?;
    }
    say(format_args!("{}: build it with `{}`, see its README.md", folder.display(), template.build))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let failed = || path.display().to_string();
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(failed)?;
    }
    std::fs::write(path, text).with_context(failed)
}
