//! What is composed for Spin, served there: what other stories do not ask, since our own host does it otherwise.

use std::time::{Duration, Instant};

use ::http::{Method, Request};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use syncline::runtime::GUEST_COMPONENT;
use syncline_tests::http::request;
use syncline_tests::plasma::{alice, fixture, mutation, plasma_mount, push_body};
use syncline_tests::spin::{Spin, SpinSettings, composed, config};
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::kind;
use crate::apps::plasma as apps;

/// More than an answer takes, and less than a client waits to acknowledge the first half of one.
const AT_ONCE: Duration = Duration::from_millis(30);

/// The fixture at `/sync`, with other keys of the configuration beside it.
async fn serve(changes: Value) -> (Spin, TempDir) {
    let (folder, mounts) = (tempfile::tempdir().expect("folders can be made"), [plasma_mount(fixture())]);
    let component = composed(kind(), GUEST_COMPONENT, &mounts).expect("the parts fit");
    let mut settings = SpinSettings::new(component, folder.path());
    let mut whole = config(&mounts, None, None);
    for (key, value) in changes.as_object().expect("changes are an object") {
        whole[key] = value.clone();
    }
    settings.variables.insert("config".into(), whole.to_string());
    (Spin::start(kind(), settings).await.expect("it starts"), folder)
}

#[tokio::test]
async fn an_answer_on_a_kept_connection_waits_for_no_acknowledgement() {
    let (spin, _folder) = serve(json!({})).await;
    let stream = TcpStream::connect(spin.address()).await.expect("it listens");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("it speaks HTTP");
    tokio::spawn(connection);
    let mut fastest = Duration::MAX;
    for _ in 0..10 {
        let asked = Request::get("/sync/health").header("host", "test").body(Empty::<Bytes>::new()).expect("a request");
        let since = Instant::now();
        let answer = sender.send_request(asked).await.expect("it is answered");
        assert_eq!(answer.status(), 200);
        let body = answer.into_body().collect().await.expect("as a whole").to_bytes();
        assert!(body.starts_with(b"{\"ok\":true"), "{body:?}");
        fastest = fastest.min(since.elapsed());
    }
    assert!(fastest < AT_ONCE, "no answer came in less than {fastest:?}");
}

#[tokio::test]
async fn streams_beyond_the_cap_are_refused_and_requests_are_not() {
    let (spin, _folder) = serve(json!({"limits": {"streams": 2}})).await;
    let user = alice(spin.address());
    let mut open = vec![user.events("").await, user.events("").await];
    for events in &mut open {
        events.next_of("hello").await;
    }
    let refused = user.get("/poke").await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert_eq!(user.get("/health").await.status, 200);
}

/// Here an app takes its request along: its client sends the mutation again, until it is recorded as failed.
#[tokio::test]
async fn a_mutation_whose_app_fell_three_times_is_recorded_as_failed_and_its_client_goes_on() {
    let mounts = [apps::mount(json!({}))];
    let (folder, component) = (tempfile::tempdir().expect("folders can be made"), composed(kind(), GUEST_COMPONENT, &mounts));
    let mut settings = SpinSettings::new(component.expect("the parts fit"), folder.path());
    settings.variables.insert("config".into(), config(&mounts, None, None).to_string());
    let spin = Spin::start(kind(), settings).await.expect("it starts");
    let user = alice(spin.address());
    let todo = |id, name: &str| mutation("c1", id, "createTodo", json!({"id": name, "title": "same", "shared": false}));
    let copy = |id, from: &str, to: &str| mutation("c1", id, "copy", json!({"from": from, "to": to}));
    let push = [todo(1, "a"), copy(2, "a", "b"), mutation("c1", 3, "trap", json!({})), copy(4, "b", "c")];
    for _ in 0..3 {
        assert_eq!(user.post("/push", &push_body("g1", &push)).await.status, 500);
        assert_eq!(
            user.push("g2", &[mutation("c2", 1, "copy", json!({"from": "none", "to": "d"}))]).await["results"].as_array().map(Vec::len),
            Some(1),
            "others go on"
        );
    }
    let answer = user.push("g1", &push).await;
    assert_eq!(apps::outcomes(&answer), ["applied", "applied", "Error: mutator trap trapped", "applied"]);
    assert_eq!(answer["lastMutationIDChanges"]["c1"], 4);
    assert_eq!(apps::outcomes(&user.push("g1", &[copy(5, "c", "e")]).await), ["applied"]);
}

#[tokio::test]
async fn a_configuration_that_cannot_be_serves_nothing_and_is_not_told_to_strangers() {
    let (spin, _folder) = serve(json!({"nonsense": "with a secret"})).await;
    for _ in 0..2 {
        let answer = request(spin.address(), &Method::GET, "/sync/health", &[], "").await;
        assert_eq!(answer.status, 500, "{answer:?}");
        assert!(!String::from_utf8_lossy(&answer.body).contains("secret"), "{answer:?}");
    }
}
