//! Compiles the component and the empty app for wasm32-wasip2, to be built into the host.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for watched in ["wit", "guest/src", "guest/component", "guest/app", "guest/Cargo.toml", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", workspace.join(watched).display());
    }
    // A target directory of its own: cargo holds a lock on the one that this build runs in.
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let target = out.ancestors().find(|folder| folder.ends_with("build")).and_then(|build| build.parent()?.parent()).unwrap_or(&out);
    let target = target.join("component");
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(&workspace)
        .args(["build", "--release", "--locked", "--target", "wasm32-wasip2", "-p", "syncline-component", "-p", "syncline-app-empty"])
        .arg("--target-dir")
        .arg(&target)
        // Flags and wrappers of the host's build (coverage, sanitizers, clippy) are not meant for the component.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTC_WRAPPER")
        .status()
        .expect("cargo can be started");
    assert!(
        status.success(),
        "the component could not be built; if the target is missing: rustup target add wasm32-wasip2 (`make build` does it)"
    );
    for (variable, file) in
        [("SYNCLINE_GUEST_COMPONENT", "syncline_component.wasm"), ("SYNCLINE_EMPTY_APP_COMPONENT", "syncline_app_empty.wasm")]
    {
        println!("cargo::rustc-env={variable}={}", target.join("wasm32-wasip2/release").join(file).display());
    }
}
