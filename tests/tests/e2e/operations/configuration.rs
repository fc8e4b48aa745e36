//! What `check-config` says beyond what is wrong with single keys.

use tempfile::TempDir;

use crate::cli::{fails, folder, run, write};

async fn refused(base: &TempDir, text: &str, words: &[&str]) {
    fails(&["check-config", "--config", &write(base, "a.toml", text)], words).await;
}

async fn accepted(base: &TempDir, text: &str) -> String {
    let (output, said) = run(&["check-config", "--config", &write(base, "a.toml", text)], &[]).await;
    assert!(output.status.success(), "{said}");
    said
}

#[tokio::test]
async fn what_would_stop_the_start_is_said_before_it() {
    let base = folder();
    refused(&base, "listen = \"localhost\"", &["listen", "localhost", "with a port"]).await;
    refused(&base, "[[mount]]\nprotocol = \"secsync\"\nlisten = \"127.0.0.1:99999\"", &["mount[0].listen", "127.0.0.1:99999"]).await;
    refused(&base, "executor = \"mysql://me:pass-word@db/x\"", &["executor", "…@db/x", "sqlite:FOLDER", "postgres://"]).await;
    refused(&base, "executor = \"postgres://me:pass-word@db/x?sslmode=maybe\"", &["executor", "…@db/x", "verify-full"]).await;
    refused(&base, "pubsub = \"redis://x\"", &["pubsub", "memory:"]).await;
    refused(&base, "storage = { objects = \"gs://x\" }", &["storage.objects", "file:FOLDER"]).await;
    refused(&base, "storage = { keyvalue = \"sqlite:\" }", &["storage.keyvalue", "sqlite:FOLDER"]).await;
    refused(&base, "log = { level = \"verbose\" }", &["log.level", "verbose", "debug"]).await;
    refused(&base, "[[mount]]\nprotocol = \"secsync\"\napp = \"gone.wasm\"", &["mount[0].app", "gone.wasm"]).await;
    refused(&base, "[[mount]]\nprotocol = \"secsink\"", &["mount \"secsink\": protocol: \"secsink\" is not one of", "secsync"]).await;
    refused(&base, "[[mount]]\nname = \"syncline\"\nprotocol = \"secsync\"", &["cannot be named \"syncline\"", "another `name`"]).await;
}

#[tokio::test]
async fn a_text_that_cannot_be_read_is_not_quoted() {
    let base = folder();
    for text in [
        "admin_token = hidden-token",
        "admin_token = [\"hidden-token\"]",
        "[[mount]]\nprotocol = \"secsync\"\nsettings = { policy = [{ session_keys = \"hidden-token\", documents = [], actions = [] }] }",
    ] {
        let (output, said) = run(&["check-config", "--config", &write(&base, "a.toml", text)], &[]).await;
        assert!(!output.status.success() && !said.contains("hidden-token"), "{said}");
    }
    refused(&base, "data = \"x\"\nadmin_token = hidden-token", &["a.toml", "line 2, column"]).await;
}

#[tokio::test]
async fn what_has_no_effect_or_a_dangerous_one_is_warned_of() {
    let base = folder();
    let text = "listen = \"0.0.0.0:8787\"\nstorage = { objects = \"memory:\" }\n[[mount]]\nprotocol = \"secsync\"\nlisten = \"0.0.0.0:8787\"\n\
                settings = { policy = [{ session_keys = [\"a\"], documents = [\"*\"], actions = [\"read\"] }] }\n";
    let said = accepted(&base, text).await;
    for words in ["admin_token: ", "mount[0].listen: has no effect", "storage.objects: ", "mount \"secsync\": policy: has no effect"] {
        assert!(said.lines().any(|line| line.starts_with("warning: ") && line.contains(words)), "{words:?} in {said}");
    }
    let said = accepted(&base, "[[mount]]\nprotocol = \"secsync\"\n").await;
    assert!(!said.contains("warning"), "{said}");
}

#[tokio::test]
async fn a_mount_that_lets_everybody_in_on_an_address_that_others_reach_is_warned_of() {
    let base = folder();
    let mounts = "[[mount]]\nprotocol = \"secsync\"\n[[mount]]\nprotocol = \"plasma\"\nlisten = \"0.0.0.0:8788\"\n\
                  [mount.settings]\nschemaVersion = \"1\"\nschema = { tables = {} }\n\
                  auth = { mode = \"none\", allowInsecure = true, ctx = { userId = \"all\" } }\n";
    let said = accepted(&base, mounts).await;
    assert!(said.contains("mount \"plasma\": auth.mode: none: other machines reach 0.0.0.0:8788"), "{said}");
    assert!(!said.contains("allow-all"), "the main listener is for this machine only: {said}");
    let said = accepted(&base, &format!("listen = \"0.0.0.0:8787\"\nadmin_token = \"x\"\n{mounts}")).await;
    for key in ["access", "broadcast_access"] {
        assert!(said.contains(&format!("mount \"secsync\": {key}: allow-all: other machines reach 0.0.0.0:8787")), "{said}");
    }
}
