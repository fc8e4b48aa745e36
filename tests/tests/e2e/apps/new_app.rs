//! `syncline new-app`: what it makes is built by one command and runs.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use syncline_tests::process::{binary, command, run};
use tokio::process::Command;

/// Compiling the macros takes a while on a busy machine.
const BUILD_DEADLINE: Duration = Duration::from_secs(300);

#[tokio::test]
async fn what_is_made_is_built_by_one_command_and_runs_in_a_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut making = command(&["new-app", "--lang", "rust", "my-app", "--into"]);
    making.arg(folder.path());
    let (made, said) = run(making).await;
    assert!(made, "{said}");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let app = folder.path().join("my-app");
    // Versions that are there already: nothing is to be fetched.
    std::fs::copy(root.join("Cargo.lock"), app.join("Cargo.lock")).expect("it can be copied");
    let mut testing = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    testing.current_dir(&app).args(["test", "--quiet"]).env("CARGO_NET_OFFLINE", "true").env("SYNCLINE_BIN", binary());
    // Compiled once for all runs.
    testing.env("CARGO_TARGET_DIR", binary().with_file_name("new-app"));
    for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WORKSPACE_WRAPPER", "RUSTC_WRAPPER"] {
        testing.env_remove(variable);
    }
    let running = testing.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(BUILD_DEADLINE, running).await.expect("it ends within the deadline").expect("cargo can be started");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[tokio::test]
async fn what_is_there_is_not_overwritten_and_names_are_checked() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("there")).expect("folders can be made");
    for (name, why) in [("there", "is there already"), ("Upper", "cannot be the name"), ("a/b", "cannot be the name")] {
        let mut making = command(&["new-app", name, "--into"]);
        making.arg(folder.path());
        let (made, said) = run(making).await;
        assert!(!made && said.contains(why), "{name}: {said}");
    }
}
