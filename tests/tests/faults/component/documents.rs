//! Documents that the host fetches for a component.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use syncline_tests::receiver::{Arrived, WebServer, answer};

use super::{Client, FAULTY, mount, server, setup};
use syncline_tests::process::{Process, command, data_folder};
use syncline_tests::server::TestServer;

/// A server of one document: what is in the lock, with an etag; nothing in it: 500.
async fn keys(content: &Arc<Mutex<Option<String>>>) -> WebServer {
    let content = content.clone();
    WebServer::start(move |arrived: &Arrived| match content.lock().as_deref() {
        None => answer(500, ""),
        Some(content) if arrived.header("if-none-match") == format!("\"{}\"", content.len()) => answer(304, ""),
        Some(content) => {
            let mut answer = answer(200, content);
            answer.headers_mut().insert("etag", format!("\"{}\"", content.len()).parse().expect("a header"));
            answer
        }
    })
    .await
}

fn settings(url: &str, refresh_ms: u64) -> Value {
    json!({"documents": [{"name": "keys", "url": url, "refresh_ms": refresh_ms}]})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_is_there_from_the_start_and_refreshed_while_sockets_stay() {
    let content = Arc::new(Mutex::new(Some("one".into())));
    let mut keys = keys(&content).await;
    let server = server(settings(&keys.url("/keys"), 1000)).await;
    let mut client = Client::connect(server.address).await;
    assert_eq!(client.ask("document keys").await, "document keys=one");
    assert_eq!(client.ask("document others").await, "document others=nothing");
    assert_eq!(keys.next().await.header("if-none-match"), "");
    assert_eq!(keys.next().await.header("if-none-match"), "\"3\"", "it is asked whether there is another");
    *content.lock() = Some("three".into());
    client.ask_until("document keys", "document keys=three").await;
    // One that cannot be had, or is not taken, changes nothing.
    *content.lock() = None;
    keys.so_far();
    keys.next().await;
    keys.next().await;
    assert_eq!(client.ask("document keys").await, "document keys=three");
    *content.lock() = Some("refused".into());
    keys.next().await;
    keys.next().await;
    assert_eq!(client.ask("document keys").await, "document keys=three");
    // Too large is as good as not there.
    *content.lock() = Some("x".repeat((1 << 20) + 1));
    keys.so_far();
    keys.next().await;
    keys.next().await;
    assert_eq!(client.ask("document keys").await, "document keys=three");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_component_that_asks_again_gets_one_fetch_and_no_more_for_a_while() {
    let content = Arc::new(Mutex::new(None));
    let mut keys = keys(&content).await;
    let server = server(Value::Null).await;
    let mut client = Client::connect(server.address).await;
    assert_eq!(client.ask("refresh keys").await, "refreshed keys=nothing", "the plan has none of this name");
    server.reload(FAULTY, &[mount(settings(&keys.url("/keys"), 0), None)]).await.expect("the settings are fine");
    assert_eq!(keys.so_far().len(), 1, "it was tried before the reload");
    assert_eq!(client.ask("document keys").await, "document keys=nothing");
    *content.lock() = Some("one".into());
    assert_eq!(client.ask("refresh keys").await, "refreshed keys=nothing", "it was just tried");
    assert_eq!(keys.so_far().len(), 0);
    // Under another URL it is another document.
    server.reload(FAULTY, &[mount(settings(&keys.url("/other"), 0), None)]).await.expect("the settings are fine");
    assert_eq!(keys.so_far().len(), 1);
    assert_eq!(client.ask("refresh keys").await, "refreshed keys=one");
    assert_eq!(client.ask("document keys").await, "document keys=one");
    assert_eq!(keys.so_far().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_that_was_fetched_once_is_there_after_a_restart_though_its_server_is_not() {
    let content = Arc::new(Mutex::new(Some("one".into())));
    let keys = keys(&content).await;
    let data = data_folder();
    let file = |name: &str| data.path().join(name);
    std::fs::write(file("faulty.wasm"), FAULTY).expect("files can be written");
    let documents = format!("{{ name = \"keys\", url = \"{}\" }}", keys.url("/keys"));
    let mount = format!("[[mount]]\nprotocol = \"faulty\"\npath = \"/faulty\"\nsettings = {{ documents = [{documents}] }}\n");
    std::fs::write(file("syncline.toml"), format!("component = \"faulty.wasm\"\n{mount}")).expect("files can be written");
    let start = || {
        let mut command = command(&["serve", "--listen", "127.0.0.1:0", "--config"]);
        command.arg(file("syncline.toml")).arg("--data").arg(data.path().join("data"));
        Process::spawn(command)
    };
    let first = start().await;
    first.kill().await;
    drop(keys);
    let second = start().await;
    let mut client = Client::connect(second.address).await;
    assert_eq!(client.ask("document keys").await, "document keys=one");
    assert_eq!(second.terminate().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_that_a_component_refuses_stops_the_start() {
    let keys = keys(&Arc::new(Mutex::new(Some("refused".into())))).await;
    let refused = TestServer::try_with(setup(settings(&keys.url("/keys"), 0), None)).await;
    let error = refused.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("a document is refused"), "{error}");
}
