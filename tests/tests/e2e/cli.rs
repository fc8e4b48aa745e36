//! The shipped binary: its commands, its configuration, its signals, its log.

use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::json;
use syncline_tests::DEADLINE;
pub use syncline_tests::process::data_folder;
use syncline_tests::process::{self, Process, command, with_compiled_code};
use syncline_tests::secsync::Author;
use syncline_tests::socket::Socket;
use tempfile::TempDir;

use crate::raw::{RawConnection, UPGRADE_HEADERS};
use crate::support::*;

/// Runs a command to its end.
pub async fn run(arguments: &[&str], variables: &[(&str, &str)]) -> (Output, String) {
    let mut command = command(arguments);
    command.envs(variables.iter().copied()).stdin(Stdio::null());
    let output = tokio::time::timeout(DEADLINE, command.output()).await.expect("it ends within the deadline").expect("it can be run");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output, text)
}

/// A run that must fail with a message that has all these words.
pub async fn fails(arguments: &[&str], words: &[&str]) {
    process::fails(command(arguments), words).await;
}

/// Writes a file into a folder; its path.
pub fn write(folder: &TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, text).expect("files can be written");
    path.to_str().expect("paths are text").to_owned()
}

/// An empty folder.
pub fn folder() -> TempDir {
    tempfile::tempdir().expect("folders can be made")
}

/// The path of a folder as text.
pub fn path_of(folder: &TempDir) -> &str {
    folder.path().to_str().expect("paths are text")
}

fn conformance(name: &str) -> String {
    format!("{}/conformance/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Opens a document of a process.
pub async fn enter(process: &Process, place: &str) -> (Socket, serde_json::Value) {
    let mut socket = Socket::connect(process.address, place).await;
    let document = socket.json_of("document").await;
    (socket, document)
}

/// As `make run` starts it: nothing is said, so everything is below the working directory.
#[tokio::test]
async fn without_arguments_the_data_is_below_the_working_directory() {
    let folder = folder();
    for arguments in [&[][..], &["--data", "elsewhere"]] {
        let mut command = command(arguments);
        command.args(["--listen", "127.0.0.1:0"]).current_dir(folder.path()).stderr(Stdio::inherit());
        let process = Process::spawn(command).await;
        enter(&process, "/secsync/d?sessionKey=k").await.0.close().await;
        assert_eq!(process.terminate().await, 0);
    }
    for data in ["data", "elsewhere"] {
        assert!(folder.path().join(data).join("secsync").is_dir(), "{data} is there");
    }
}

#[tokio::test]
async fn the_version_is_said_by_command_and_flag() {
    for arguments in [["version"], ["--version"], ["-V"]] {
        let (output, text) = run(&arguments, &[]).await;
        assert!(output.status.success());
        assert_eq!(text.trim(), format!("syncline {}", env!("CARGO_PKG_VERSION")));
    }
    let (output, text) = run(&["--help"], &[("SYNCLINE_ADMIN_TOKEN", "hidden-token")]).await;
    assert!(output.status.success() && text.contains("SYNCLINE_ADMIN_TOKEN") && !text.contains("hidden-token"));
    fails(&["no-such-command"], &["no-such-command"]).await;
    fails(&["--no-such-flag"], &["--no-such-flag"]).await;
}

#[tokio::test]
async fn inspect_shows_imports_exports_and_mounts() {
    let (output, text) = run(&["inspect"], &[]).await;
    assert!(output.status.success());
    for line in
        ["import syncline:host/executor@", "import syncline:host/pubsub@", "export syncline:sync/mounts@", "export syncline:sync/socket@"]
    {
        assert!(text.contains(line), "{line:?} is missing in {text}");
    }
    assert!(text.contains("mount secsync: secsync at /secsync/… on 127.0.0.1:8787"));
    assert!(!text.contains("import wasi:filesystem") && !text.contains("import wasi:sockets") && !text.contains("import wasi:http"));
}

#[tokio::test]
async fn valid_configurations_are_valid_and_nothing_is_touched() {
    let data = folder();
    let unused = data.path().join("unused");
    let toml = write(&data, "a.toml", "listen = \"127.0.0.1:1\"\n[[mount]]\nprotocol = \"secsync\"\npath = \"/a\"\n");
    let json = write(&data, "a.json", r#"{"listen": "127.0.0.1:1", "mount": [{"protocol": "secsync", "settings": {"path": "/a"}}]}"#);
    for config in [&toml, &json] {
        let (output, text) = run(&["check-config", "--config", config, "--data", unused.to_str().expect("text")], &[]).await;
        assert!(output.status.success(), "{text}");
        assert!(text.contains("the configuration is valid") && text.contains("mount secsync: secsync at /a/… on 127.0.0.1:1"), "{text}");
    }
    let (output, text) = run(&["check-config"], &[("SYNCLINE_CONFIG", &conformance("secsync.toml"))]).await;
    assert!(output.status.success() && text.contains("mount secsync-policy: secsync at /secsync-policy/…"), "{text}");
    let (output, text) = run(&["check-config"], &[("SYNCLINE_CONFIG", &conformance("plasma.toml"))]).await;
    assert!(output.status.success() && text.contains("mount plasma: plasma at /sync/…"), "{text}");
    assert!(!unused.exists());
}

#[tokio::test]
async fn wrong_configurations_name_what_is_wrong() {
    let data = folder();
    let config = |text: &str| write(&data, "wrong.toml", text);
    fails(&["check-config", "--config", &config("lisen = \"x\"")], &["wrong.toml", "lisen"]).await;
    fails(&["check-config", "--config", &config("[[mount]]\nprotocol = \"secsync\"\ncolour = 1")], &["wrong.toml", "colour"]).await;
    fails(&["check-config", "--config", &config("[storage]\nobject = \"x\"")], &["object"]).await;
    fails(&["check-config", "--config", &config("[[mount]]\npath = \"/x\"")], &["protocol"]).await;
    fails(&["check-config", "--config", &config("listen = [")], &["wrong.toml"]).await;
    fails(&["check-config", "--config", "/no/such/file.toml"], &["/no/such/file.toml"]).await;
    fails(&["check-config", "--config", &config("[[mount]]\nprotocol = \"no-such-protocol\"")], &["no-such-protocol"]).await;
    fails(&["check-config", "--config", &config("admin_token = \"\"")], &["admin_token"]).await;
    let two = "[[mount]]\nname = \"first\"\nprotocol = \"secsync\"\npath = \"/same\"\n[[mount]]\nname = \"second\"\nprotocol = \"secsync\"\npath = \"/same/\"";
    fails(&["check-config", "--config", &config(two)], &["first", "second", "/same"]).await;
    let namesakes = "[[mount]]\nprotocol = \"secsync\"\npath = \"/a\"\n[[mount]]\nprotocol = \"secsync\"\npath = \"/b\"";
    fails(&["check-config", "--config", &config(namesakes)], &["secsync", "name"]).await;
    fails(&["check-config", "--config", &config("[[mount]]\nprotocol = \"secsync\"\nsettings_file = \"missing.json\"")], &["missing.json"])
        .await;
}

#[tokio::test]
async fn wrong_settings_are_all_named_by_their_keys() {
    let data = data_folder();
    let settings = json!({
        "pth": "/x", "path": "relative", "auto_create": 3, "access": "everybody", "broadcast_access": "nobody",
        "policy": [{"session_keys": "x", "documents": ["*"], "actions": ["fly"], "colour": 1}],
        "max_updates_per_snapshot": "many", "additional_public_data": {"snapshot": {"title": "text"}, "updates": {}},
        "deny_ephemeral": "perhaps", "on_broadcast_denied": "loud", "verify": {"signatures": "yes", "parent_proof": "maybe", "x": 1},
        "logging": "all", "max_message_bytes": 0, "max_backlog_bytes": -1, "max_bad_frames": "x", "ping_interval_ms": 1.5,
        "retention": {"days": 3}, "snapshot_grace_ms": "1s", "quiet_pipelined_refusals": 1, "shutdown_drain_ms": null, "enabled": "on",
    });
    let config = write(&data, "a.json", &json!({"mount": [{"protocol": "secsync", "settings": settings}]}).to_string());
    let keys = [
        "pth",
        "path",
        "auto_create",
        "access",
        "broadcast_access",
        "policy[0].session_keys",
        "policy[0].actions",
        "policy[0].colour",
        "max_updates_per_snapshot",
        "snapshot.title",
        "updates",
        "deny_ephemeral",
        "on_broadcast_denied",
        "verify.signatures",
        "verify.parent_proof",
        "verify.x",
        "logging",
        "max_message_bytes",
        "max_backlog_bytes",
        "max_bad_frames",
        "ping_interval_ms",
        "retention.days",
        "snapshot_grace_ms",
        "quiet_pipelined_refusals",
        "shutdown_drain_ms",
        "enabled",
    ];
    let named: Vec<_> = keys.iter().map(|key| format!("{key}: ")).collect();
    let mut words: Vec<_> = named.iter().map(String::as_str).collect();
    words.push("secsync");
    fails(&["check-config", "--config", &config], &words).await;
    // Serving refuses them as well.
    fails(&["serve", "--config", &config, "--data", path_of(&data), "--listen", "127.0.0.1:0"], &["pth: ", "enabled: "]).await;
}

#[tokio::test]
async fn sigterm_and_sigint_end_in_order_and_large_contents_are_there_after_a_restart() {
    let data = data_folder();
    let author = Author::new(1);
    let process = Process::start(data.path(), &[]).await;
    let (mut socket, _) = enter(&process, &place("doc", "k")).await;
    let snapshot = author.first_snapshot("doc", &vec![7; 400 << 10]);
    assert_eq!(ask(&mut socket, &snapshot.frame).await, snapshot_saved(&snapshot));
    let update = author.update("doc", &snapshot.id, 0, &vec![8; 300 << 10]);
    save(&mut socket, &update).await;
    assert_eq!(process.terminate().await, 0);
    assert_eq!(socket.closed().await, 1001);

    let process = Process::start(data.path(), &[]).await;
    let (mut socket, document) = enter(&process, &place("doc", "k")).await;
    assert_eq!((&document["snapshot"], &document["updates"]), (&snapshot.frame, &json!([update])));
    save(&mut socket, &author.update("doc", &snapshot.id, 1, b"x")).await;
    let pid = process.id().to_string();
    let interrupted = tokio::process::Command::new("kill").args(["-INT", &pid]).status().await;
    assert!(interrupted.expect("kill can be run").success());
    assert_eq!(socket.closed().await, 1001);
}

#[tokio::test]
async fn a_killed_process_has_kept_what_it_acknowledged() {
    let data = data_folder();
    let author = Author::new(1);
    let process = Process::start(data.path(), &[]).await;
    let (mut socket, _) = enter(&process, &place("doc", "k")).await;
    let snapshot = author.first_snapshot("doc", b"x");
    assert_eq!(ask(&mut socket, &snapshot.frame).await, snapshot_saved(&snapshot));
    for clock in 0..20 {
        save(&mut socket, &author.update("doc", &snapshot.id, clock, b"x")).await;
    }
    process.kill().await;
    let process = Process::start(data.path(), &[]).await;
    let (_socket, document) = enter(&process, &place("doc", "k")).await;
    assert_eq!((&document["snapshot"], document["updates"].as_array().map(Vec::len)), (&snapshot.frame, Some(20)));
}

/// Which of some tokens opens the metrics.
async fn token_in_force(process: &Process, tokens: &[&'static str]) -> &'static str {
    let mut connection = RawConnection::connect(process.address).await;
    for token in tokens {
        if connection.request("GET", "/metrics", &[("authorization", &format!("Bearer {token}"))]).await.status == 200 {
            return token;
        }
    }
    panic!("none of them");
}

#[tokio::test]
async fn a_flag_beats_a_variable_and_a_variable_beats_the_file() {
    let base = folder();
    let in_file = base.path().join("file-data");
    let text = format!("listen = \"127.0.0.1:0\"\nadmin_token = \"of-file\"\ndata = {in_file:?}\n[[mount]]\nprotocol = \"secsync\"\n");
    let config = write(&base, "a.toml", &text);
    let tokens = ["of-file", "of-variable", "of-flag"];
    for (variable, flag, expected) in [(false, false, 0), (true, false, 1), (true, true, 2), (false, true, 2)] {
        let mut command = command(&["serve", "--config", &config]);
        let (by_variable, by_flag) = (base.path().join("variable-data"), base.path().join("flag-data"));
        let folders = [&in_file, &by_variable, &by_flag];
        for folder in folders {
            with_compiled_code(folder);
        }
        if variable {
            command.env("SYNCLINE_ADMIN_TOKEN", tokens[1]).env("SYNCLINE_DATA", &by_variable);
        }
        if flag {
            command.args(["--admin-token", tokens[2]]).arg("--data").arg(&by_flag);
        }
        let process = Process::spawn(command).await;
        assert_eq!(token_in_force(&process, &tokens).await, tokens[expected]);
        assert_eq!(process.terminate().await, 0);
        for (index, folder) in folders.into_iter().enumerate() {
            assert_eq!(folder.join("lock").exists(), index == expected);
            std::fs::remove_dir_all(folder).expect("it is there");
        }
    }
}

#[tokio::test]
async fn a_data_folder_belongs_to_one_process() {
    let data = data_folder();
    let process = Process::start(data.path(), &[]).await;
    fails(&["serve", "--data", path_of(&data), "--listen", "127.0.0.1:0"], &[path_of(&data), "in use by another process"]).await;
    let (socket, _) = enter(&process, &place("doc", "k")).await;
    socket.close().await;
    let address = process.address.to_string();
    let other = data_folder();
    fails(&["serve", "--data", path_of(&other), "--listen", &address], &["cannot listen on", &address]).await;
    assert_eq!(process.terminate().await, 0);
    Process::start(data.path(), &[]).await;
}

fn newer_format(database: &Path) {
    let database = rusqlite::Connection::open(database).expect("it can be opened");
    assert_eq!(database.execute("UPDATE ss_meta SET value = 99 WHERE name = 'format'", []).expect("it has a format"), 1);
}

#[tokio::test]
async fn data_of_a_newer_version_is_refused_by_name() {
    let data = data_folder();
    let process = Process::start(data.path(), &[]).await;
    assert_eq!(process.terminate().await, 0);
    newer_format(&data.path().join("secsync").join("secsync.sqlite"));
    fails(&["serve", "--data", path_of(&data), "--listen", "127.0.0.1:0"], &["secsync", "format 99", "up to 1"]).await;
}

#[tokio::test]
async fn backends_that_do_not_exist_are_refused_by_key_and_without_passwords() {
    let data = data_folder();
    for (flag, key) in [
        ("--executor", "executor"),
        ("--storage-objects", "storage.objects"),
        ("--storage-keyvalue", "storage.keyvalue"),
        ("--pubsub", "pubsub"),
    ] {
        let arguments = ["serve", "--data", path_of(&data), "--listen", "127.0.0.1:0", flag, "mystery://me:pass-word@db/x"];
        let (output, text) = run(&arguments, &[]).await;
        assert!(!output.status.success());
        assert!(text.contains(key) && text.contains("mystery") && !text.contains("pass-word"), "{text}");
    }
    fails(&["serve", "--data", "/dev/null/x", "--listen", "127.0.0.1:0"], &["/dev/null/x"]).await;
    fails(&["serve", "--data", path_of(&data), "--listen", "nonsense"], &["nonsense"]).await;
    fails(&["serve", "--data", path_of(&data), "--log-level", "a=b=c"], &["a=b=c"]).await;
}

#[tokio::test]
async fn the_log_at_debug_has_neither_session_keys_nor_tokens_nor_ciphertexts() {
    let data = folder();
    let settings = json!({
        "logging": "debug", "access": "policy",
        "policy": [{"session_keys": ["key-of-alice"], "documents": ["public-name"], "actions": ["read", "write-snapshot", "write-update"], "broadcast": true}],
    });
    let config = write(&data, "a.json", &json!({"mount": [{"protocol": "secsync", "settings": settings}]}).to_string());
    let log_path = data.path().join("log");
    with_compiled_code(&data.path().join("data"));
    let mut command = command(&["serve", "--config", &config, "--listen", "127.0.0.1:0", "--log-level", "debug", "--log-format", "json"]);
    command.arg("--data").arg(data.path().join("data")).args(["--admin-token", "token-of-the-operator"]);
    command.stderr(std::fs::File::create(&log_path).expect("files can be made"));
    let process = Process::spawn(command).await;

    let author = Author::new(1);
    let (mut socket, _) = enter(&process, &place("public-name", "key-of-alice")).await;
    let snapshot = author.first_snapshot("public-name", b"some-content");
    assert_eq!(ask(&mut socket, &snapshot.frame).await, snapshot_saved(&snapshot));
    save(&mut socket, &author.update("public-name", &snapshot.id, 0, b"some-content")).await;
    assert_eq!(ask(&mut socket, &author.update("public-name", &snapshot.id, 7, b"some-content")).await, update_refused(&snapshot.id, 7));
    socket.send_message(text("no message: key-of-alice")).await;
    socket.send(&author.ephemeral("public-name", b"some-content")).await;
    assert_eq!(socket.json().await, json!({"type": "unauthorized"}));
    let mut denied = Socket::connect(process.address, &place("public-name", "key-of-mallory")).await;
    assert_eq!(denied.json().await, json!({"type": "unauthorized"}));
    let mut http = RawConnection::connect(process.address).await;
    for target in ["/secsync/public-name?sessionKey=key-of-http", "/nowhere?sessionKey=key-of-http", "/metrics"] {
        http.request("GET", target, &[("authorization", "Bearer token-of-somebody"), ("cookie", "cookie-of-somebody")]).await;
    }
    assert_eq!(http.request("GET", "/metrics", &[("authorization", "Bearer token-of-the-operator")]).await.status, 200);
    let upgrade = [("connection", "upgrade"), ("upgrade", "websocket")];
    http.request("GET", "/secsync/x?sessionKey=key-of-upgrade", &upgrade).await;
    let mut refused = RawConnection::connect(process.address).await;
    let place = "/secsync/public-name?sessionKey=key-of-a-refused-upgrade";
    let malformed = [&UPGRADE_HEADERS[..3], &[("sec-websocket-key", "key-of-no-length")]].concat();
    assert_eq!(refused.request("GET", place, &malformed).await.status, 400);
    assert_eq!(process.terminate().await, 0);

    let log = std::fs::read_to_string(&log_path).expect("the log is there");
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("each line is JSON: {line}"));
        // Debug is that of this program: what its parts say to each other would drown it.
        assert!(line["target"].as_str().is_some_and(|target| target.starts_with("syncline")), "{line}");
    }
    // It says what happened …
    for word in ["public-name", "refused", "snapshot-saved", "stopped"] {
        assert!(log.contains(word), "{word:?} is missing in {log}");
    }
    // … and nothing that opens or shows anything.
    let ciphertext = snapshot.frame["ciphertext"].as_str().expect("a text");
    for secret in ["key-of-", "token-of-", "cookie-of-", "sessionKey", "some-content", ciphertext] {
        assert!(!log.contains(secret), "{secret:?} in {log}");
    }
}

#[tokio::test]
async fn without_rules_the_log_says_that_everybody_may_do_everything() {
    let data = folder();
    with_compiled_code(&data.path().join("data"));
    for (log_format, needle) in [("pretty", "allow-all"), ("json", "\"level\":\"WARN\"")] {
        let log_path = data.path().join(log_format);
        let mut command = command(&["--listen", "127.0.0.1:0", "--log-format", log_format]);
        command.arg("--data").arg(data.path().join("data")).stderr(std::fs::File::create(&log_path).expect("files can be made"));
        assert_eq!(Process::spawn(command).await.terminate().await, 0);
        let log = std::fs::read_to_string(&log_path).expect("the log is there");
        assert!(log.contains(needle) && log.contains("session keys are not verified"), "{log}");
        assert!(!log.contains('\u{1b}'), "no colours in a file");
    }
}
