// How components are compiled for wasm32-wasip2 by a build script; `include!`d by those that do.

/// Compiles packages of the workspace as components and gives the folder that holds them.
fn build_components(packages: &[&str], watched: &[&str]) -> std::path::PathBuf {
    // Asked for when it runs: the compiled build script may have come along with a target folder from another checkout.
    let workspace = std::path::PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR")).join("..");
    for watched in watched.iter().chain(&["wit", "Cargo.toml", "Cargo.lock"]) {
        println!("cargo::rerun-if-changed={}", workspace.join(watched).display());
    }
    // A target directory of its own: cargo holds a lock on the one that this build runs in.
    let out = std::path::PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let target = out.ancestors().find(|folder| folder.ends_with("build")).and_then(|build| build.parent()?.parent()).unwrap_or(&out);
    let target = target.join("component");
    let mut cargo = std::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(&workspace).args(["build", "--profile", "component", "--locked", "--target", "wasm32-wasip2", "--target-dir"]).arg(&target);
    for package in packages {
        cargo.args(["-p", package]);
    }
    // Flags and wrappers of the host's build (coverage, sanitizers, clippy) are not meant for components.
    for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WORKSPACE_WRAPPER", "RUSTC_WRAPPER"] {
        cargo.env_remove(variable);
    }
    let status = cargo.status().expect("cargo can be started");
    assert!(
        status.success(),
        "the components could not be built; if the target is missing: rustup target add wasm32-wasip2 (`make build` does it)"
    );
    target.join("wasm32-wasip2/component")
}
