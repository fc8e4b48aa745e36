//! The control socket, and how a server is stopped.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};
use syncline_tests::DEADLINE;
use syncline_tests::process::{Process, command, with_compiled_code};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::cli::{data_folder, fails, folder, path_of, run, write};
use crate::raw::RawConnection;
use crate::support::eventually;

/// What comes back for some bytes.
async fn say(data: &Path, bytes: &[u8]) -> Value {
    let mut socket = UnixStream::connect(data.join("control.sock")).await.expect("it is there");
    socket.write_all(bytes).await.expect("it reads");
    let mut answer = String::new();
    tokio::time::timeout(DEADLINE, socket.read_to_string(&mut answer)).await.expect("it answers").expect("text");
    assert!(answer.ends_with('\n') && answer.lines().count() == 1, "{answer:?}");
    serde_json::from_str(&answer).expect("JSON")
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

#[tokio::test]
async fn one_line_asks_and_one_line_answers() {
    let base = folder();
    let data = base.path().join("data");
    let process = Process::start(&data, &[]).await;
    assert_eq!((mode(&data), mode(&data.join("control.sock"))), (0o700, 0o600), "for its owner alone");
    let status = say(&data, b"{\"command\":\"status\"}\n").await;
    assert_eq!((&status["ok"], &status["status"]["version"]), (&json!(true), &json!(env!("CARGO_PKG_VERSION"))));
    assert_eq!(status["status"]["process_id"], process.id());
    let mount = |name: &str| json!({"name": name, "protocol": name, "connections": 0});
    assert_eq!(status["status"]["listeners"], json!([{"url": format!("http://{}", process.address), "mounts": ["secsync", "plasma"]}]));
    assert_eq!(status["status"]["mounts"], json!([mount("secsync"), mount("plasma")]));
    assert_eq!((&status["status"]["not_ready"], &status["status"]["backup_runs"]), (&json!([]), &json!(false)));
    for wrong in [&b"\n"[..], b"{\"command\":\"destroy\"}\n", b"nonsense\n", b"{\"command\":\"backup\"}\n", b"\xff\n"] {
        let answer = say(&data, wrong).await;
        assert!(answer["ok"] == false && answer["problems"].as_array().is_some_and(|problems| problems.len() == 1), "{answer}");
    }
    let inside = json!({"command": "backup", "to": data.join("copies/today")}).to_string();
    let refused = say(&data, format!("{inside}\n").as_bytes()).await;
    assert!(refused["ok"] == false && refused.to_string().contains("within the data folder"), "{refused}");
    let relative = say(&data, b"{\"command\":\"backup\",\"to\":\"some/where\"}\n").await;
    assert_eq!(relative["ok"], false);
    assert_eq!(process.terminate().await, 0);
    assert!(!data.join("control.sock").exists());
}

#[tokio::test]
async fn the_socket_of_a_process_that_was_killed_is_replaced() {
    let data = data_folder();
    Process::start(data.path(), &[]).await.kill().await;
    assert!(data.path().join("control.sock").exists());
    fails(&["status", "--data", path_of(&data)], &["no server runs", path_of(&data)]).await;
    let process = Process::start(data.path(), &[]).await;
    let (output, text) = run(&["status", "--data", path_of(&data)], &[]).await;
    assert!(output.status.success() && text.contains(&process.address.to_string()), "{text}");
}

#[tokio::test]
async fn a_data_folder_may_lie_deeper_than_a_socket_may() {
    let base = folder();
    let data = base.path().join("a".repeat(90)).join("b".repeat(90));
    with_compiled_code(&data);
    let process = Process::start(&data, &[]).await;
    let (output, text) = run(&["status", "--data", data.to_str().expect("text")], &[]).await;
    assert!(output.status.success() && text.contains(&process.address.to_string()), "{text}");
}

#[tokio::test]
async fn reload_says_what_it_did_or_why_not() {
    let (base, data) = (folder(), data_folder());
    let config = |text: &str| write(&base, "a.toml", text);
    let path = config("[[mount]]\nprotocol = \"secsync\"\n");
    let process = Process::start(data.path(), &["serve", "--config", &path]).await;
    let (output, text) = run(&["reload", "--data", path_of(&data)], &[]).await;
    assert!(output.status.success() && text.contains("secsync unchanged"), "{text}");
    config(
        "[[mount]]\nprotocol = \"secsync\"\nsettings = { enabled = false }\n[[mount]]\nname = \"more\"\nprotocol = \"secsync\"\npath = \"/more\"\n",
    );
    let (output, text) = run(&["reload", "--data", path_of(&data)], &[]).await;
    assert!(output.status.success() && text.contains("secsync changed") && text.contains("more added"), "{text}");
    config("[[mount]]\nprotocol = \"secsync\"\nsettings = { colour = 1 }\n");
    fails(&["reload", "--data", path_of(&data)], &["not reloaded", "colour"]).await;
    assert_eq!(process.terminate().await, 0);
    fails(&["reload", "--data", path_of(&data)], &["no server runs"]).await;
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let data = data_folder();
    let process = Process::start(data.path(), &[]).await;
    // Keeps an orderly stop waiting: a request that is never whole.
    let mut half = RawConnection::connect(process.address).await;
    half.send(b"GET /healthz HTTP/1.1\r\nhost: x").await;
    process.signal("TERM").await;
    eventually("the end of the listener", || async { TcpStream::connect(process.address).await.is_err().then_some(()) }).await;
    assert_eq!(process.terminate().await, 128 + 15);
    // Nothing is broken by it.
    assert_eq!(Process::start(data.path(), &[]).await.terminate().await, 0);
}

#[tokio::test]
async fn every_listener_is_announced_the_main_one_first() {
    let (base, data) = (folder(), data_folder());
    let text = "listen = \"127.0.0.1:0\"\n[[mount]]\nprotocol = \"secsync\"\n[[mount]]\nname = \"apart\"\nprotocol = \"secsync\"\nlisten = \"127.0.0.2:0\"\n";
    let mut command = command(&["serve", "--config", &write(&base, "a.toml", text)]);
    command.arg("--data").arg(data.path());
    let mut process = Process::spawn(command).await;
    let line = process.line().await;
    let address = line.strip_prefix("listening on http://").and_then(|rest| rest.strip_suffix(" for apart"));
    assert!(address.is_some_and(|address| address.starts_with("127.0.0.2:") && !address.ends_with(":0")), "{line}");
    assert_eq!(process.terminate().await, 0);
}
