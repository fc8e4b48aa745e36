//! Posts to targets outside: they share the fate of their transaction, and arrive at least once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::json;
use syncline_tests::postgres;
use syncline_tests::process::{Process, command, data_folder};
use syncline_tests::receiver::{WebServer, answer};
use syncline_tests::server::{Setup, TestServer};
use syncline_tests::tls::Certificate;

use super::requests::ask;
use super::{Client, FAULTY, setup};
use crate::commits::{Commits, Fate};

async fn receiver() -> WebServer {
    WebServer::start(|_| answer(204, "")).await
}

/// A server that may post to a target.
async fn server(target: &str) -> TestServer {
    TestServer::with(setup(json!({"targets": [target]}), None)).await
}

/// The same, whose commits the test holds.
async fn server_over(commits: &Arc<Commits>, target: &str) -> TestServer {
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let executor = Arc::new(commits.executor(folder.path()).await);
    TestServer::with(Setup { executor: Some(executor), folder: Some(folder), ..setup(json!({"targets": [target]}), None) }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_leaves_when_its_transaction_is_durable_and_never_if_it_is_lost() {
    let mut receiver = receiver().await;
    let url = receiver.url("/hook");
    let commits = Commits::of("faulty");
    let server = server_over(&commits, &url).await;
    let mut client = Client::connect(server.address).await;
    commits.hold();
    client.say(&format!("begin\nput k 1\npost {url} lost\ncommit\necho never")).await;
    commits.settle(Fate::Lost).await;
    client.closed(4011).await;
    let mut client = Client::connect(server.address).await;
    client.say(&format!("begin\nput k 2\npost {url} kept\ncommit\necho done")).await;
    commits.held().await;
    assert_eq!(receiver.so_far().len(), 0, "nothing leaves before it is durable");
    commits.settle(Fate::Kept).await;
    commits.release();
    client.hears(&["done"]).await;
    let arrived = receiver.next().await;
    assert_eq!((arrived.line.as_str(), arrived.body.as_str(), arrived.header("x-test")), ("POST /hook", "kept", "1"));
    assert_eq!(arrived.header("x-syncline-post-id").len(), 32);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_rolled_back_takes_its_posts_along_and_the_rest_leaves() {
    let mut receiver = receiver().await;
    let url = receiver.url("/hook");
    let server = server(&url).await;
    let rolled_back = format!("begin\npost {url} no\nrollback\necho done");
    assert_eq!(ask(server.address, &rolled_back).await, (200, "done".into()));
    let savepoints = format!("begin\npost {url} 1\nbegin\npost {url} no\nrollback\nbegin\npost {url} 2\ncommit\nput k 1\ncommit");
    assert_eq!(ask(server.address, &savepoints).await.0, 200);
    // Before a transaction: with it. After the last one, or without one: by itself.
    assert_eq!(ask(server.address, &format!("post {url} 3\nwrite k 1\npost {url} 4")).await.0, 200);
    assert_eq!(ask(server.address, &format!("post {url} 5")).await.0, 200);
    // A call that fails lets out what it had committed; the second try does nothing.
    assert_eq!(ask(server.address, &format!("post {url} no\ntrap")).await.1, "failure trapped");
    assert_eq!(ask(server.address, &format!("begin\nput k 1\npost {url} 6\ncommit\ntrap")).await.1, "failure trapped");
    let mut bodies = Vec::new();
    while bodies.len() < 6 {
        bodies.push(receiver.next().await.body);
    }
    bodies.sort();
    assert_eq!(bodies, ["1", "2", "3", "4", "5", "6"]);
    assert_eq!(receiver.so_far().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_is_tried_again_under_the_same_id_until_it_is_taken_and_holds_up_no_other() {
    let failures = AtomicUsize::new(0);
    let mut receiver = WebServer::start(move |arrived| match arrived.line.as_str() {
        // A redirect is not followed.
        "POST /flaky" if failures.fetch_add(1, Ordering::Relaxed) == 0 => {
            let mut answer = answer(307, "");
            answer.headers_mut().insert("location", "/elsewhere".parse().expect("a header"));
            answer
        }
        _ => answer(200, "taken"),
    })
    .await;
    let (flaky, well) = (receiver.url("/flaky"), receiver.url("/well"));
    let server = TestServer::with(setup(json!({"targets": [flaky, well]}), None)).await;
    let posts = format!("begin\nput k 1\npost {flaky} a\npost {well} b\npost {} c\ncommit", receiver.url("/forbidden"));
    assert_eq!(ask(server.address, &posts).await.0, 200);
    let mut arrived = [receiver.next().await, receiver.next().await, receiver.next().await];
    arrived.sort_by(|a, b| a.line.cmp(&b.line));
    let lines = arrived.each_ref().map(|arrived| arrived.line.as_str());
    assert_eq!(lines, ["POST /flaky", "POST /flaky", "POST /well"], "and none to another target");
    assert_eq!(arrived[0].header("x-syncline-post-id"), arrived[1].header("x-syncline-post-id"));
    let counted = || async {
        let metrics = server.server().handle().runtime().metrics_text().await.expect("metrics can be written");
        let value = |name: &str| metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        let posts = |result: &str| value(&format!("syncline_posts_total{{mount=\"faulty\",result=\"{result}\"}}"));
        let waiting = value("syncline_posts_waiting{mount=\"faulty\"}");
        ([posts("sent"), posts("retried"), posts("failed"), waiting] == [Some(2), Some(1), Some(0), Some(0)]).then_some(())
    };
    syncline_tests::eventually("the metrics say so", counted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posts_that_a_killed_server_left_are_sent_over_tls_by_the_next_one() {
    let certificate = Certificate::new("localhost");
    let up = Arc::new(AtomicBool::new(false));
    let is_up = up.clone();
    let mut receiver = WebServer::start_tls(&certificate, move |_| answer(if is_up.load(Ordering::Relaxed) { 200 } else { 503 }, "")).await;
    let url = format!("https://localhost:{}/hook", receiver.address.port());
    let data = data_folder();
    let file = |name: &str| data.path().join(name);
    certificate.write(&file("roots.pem"), &file("key.pem"));
    std::fs::write(file("faulty.wasm"), FAULTY).expect("files can be written");
    let mount = format!("[[mount]]\nprotocol = \"faulty\"\npath = \"/faulty\"\nsettings = {{ targets = [\"{url}\"] }}\n");
    std::fs::write(file("syncline.toml"), format!("component = \"faulty.wasm\"\n{mount}")).expect("files can be written");
    let start = async || {
        let mut command = command(&["serve", "--listen", "127.0.0.1:0", "--config"]);
        command.arg(file("syncline.toml")).arg("--data").arg(data.path().join("data")).env("SSL_CERT_FILE", file("roots.pem"));
        if postgres::is_chosen() {
            command.arg("--executor").arg(postgres::of_folder(data.path()).await.url());
        }
        Process::spawn(command).await
    };
    let first = start().await;
    assert_eq!(ask(first.address, &format!("begin\nput k 1\npost {url} in\ncommit\npost {url} without")).await.0, 200);
    let mut tried = [receiver.next().await, receiver.next().await];
    first.kill().await;
    receiver.so_far();
    up.store(true, Ordering::Relaxed);
    let second = start().await;
    let mut sent = [receiver.next().await, receiver.next().await];
    for pair in [&mut tried, &mut sent] {
        pair.sort_by(|a, b| a.body.cmp(&b.body));
    }
    for (tried, sent) in tried.iter().zip(&sent) {
        assert_eq!((&tried.body, tried.header("x-syncline-post-id")), (&sent.body, sent.header("x-syncline-post-id")));
    }
    assert_eq!(second.terminate().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_logic_hears_of_a_post_that_failed() {
    // Nobody listens there any more.
    let gone = receiver().await.url("/hook");
    let server = server(&gone).await;
    assert_eq!(ask(server.address, &format!("begin\nput k 1\npost {gone} lost\ncommit")).await.0, 200);
    let told = || async {
        let (status, fact) = ask(server.address, "get failed-post").await;
        assert_eq!(status, 200);
        (fact == "get failed-post=1 false lost").then_some(())
    };
    syncline_tests::eventually("it is told", told).await;
}
