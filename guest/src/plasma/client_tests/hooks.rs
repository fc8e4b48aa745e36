//! Section 17: who is told of what.

use std::cell::RefCell;
use std::rc::Rc;

use serde_json::{Value as Json, json};

use super::support::*;
use crate::imports::{self, App, AppFailure, Caller, Identity, NoApp, RouteRequest, RouteResponse, SqlError, Verdict};

/// An app that hears everything and agrees, or not, to what it hears.
#[derive(Default)]
struct Listener {
    heard: RefCell<Vec<(String, Json)>>,
    fails: bool,
}

impl App for Listener {
    fn describe(&self) -> String {
        json!({"functions": ["event"], "events": ["on-pushed", "on-error", "on-metric", "on-migration"]}).to_string()
    }
    fn authenticate(&self, _: &str, _: &str, _: &str) -> Result<Identity, AppFailure> {
        NoApp.authenticate("", "", "")
    }
    fn authorize(&self, _: &Caller, _: &str, _: &[String]) -> Vec<bool> {
        Vec::new()
    }
    fn mutate(&self, caller: &Caller, name: &str, arguments: &str) -> Result<String, AppFailure> {
        NoApp.mutate(caller, name, arguments)
    }
    fn validate(&self, _: &Caller, _: &str) -> Verdict {
        Verdict::Accept
    }
    fn call(&self, caller: &Caller, method: &str, parameters: &str) -> Result<imports::Reply, AppFailure> {
        NoApp.call(caller, method, parameters)
    }
    fn event(&self, _: &Caller, name: &str, data: &str) -> Result<imports::Reply, AppFailure> {
        self.heard.borrow_mut().push((name.into(), serde_json::from_str(data).unwrap()));
        if self.fails {
            return Err(AppFailure { code: "no".into(), message: "not today".into(), retriable: false });
        }
        Ok(imports::Reply { value: None, context: Vec::new() })
    }
    fn route(&self, caller: &Caller, request: &RouteRequest) -> RouteResponse {
        NoApp.route(caller, request)
    }
}

#[test]
fn a_webhook_is_posted_once_for_a_push_that_changed_rows() {
    let server = Server::with(json!({"onPushed": {"webhook": "https://hook.example/pushed"}}));
    server.push("tok-alice", "g", "c", 1, &[inc("a"), inc("b"), inc("c")]);
    let posts = server.host.effects.posts.take();
    assert_eq!(posts.len(), 1);
    assert_eq!(posts[0].url, "https://hook.example/pushed");
    let body: Json = serde_json::from_slice(&posts[0].body).unwrap();
    assert_eq!(body, json!({"clientGroupID": "g", "clientID": "c", "userId": "alice", "version": 3}));
    server.push("tok-alice", "g", "c", 1, &[inc("a"), inc("b"), inc("c")]);
    server.push("tok-alice", "g", "c", 4, &[("writeThenFail", json!({"id": "x"})), ("noop", json!({}))]);
    assert!(server.host.effects.posts.borrow().is_empty(), "duplicates and failures changed nothing");
}

#[test]
fn a_poke_and_a_webhook_share_the_fate_of_the_commit() {
    let server = Server::with(json!({"onPushed": {"webhook": "https://hook.example/pushed"}}));
    let peer = server.stream("/sync/poke?auth=tok-bob", &[]).ok().unwrap();
    peer.frames();
    server.host.fail(crate::test_host::Fault::Commit, SqlError::Unavailable("gone".into()));
    assert_eq!(server.push("tok-alice", "g", "c", 1, &[inc("a")]).status, 503);
    assert!(peer.frames().is_empty());
}

#[test]
fn pokes_can_be_left_to_the_app() {
    let server = Server::with(json!({"onPushed": {"poke": false}}));
    let peer = server.stream("/sync/poke?auth=tok-bob", &[]).ok().unwrap();
    peer.frames();
    server.push("tok-alice", "g", "c", 1, &[inc("a")]);
    assert!(peer.frames().is_empty());
    assert_eq!(server.pull("tok-bob", "h", &Json::Null)["cookie"], 1);
}

#[test]
fn the_app_hears_of_pushes_errors_and_metrics() {
    let app = Rc::new(Listener::default());
    let hooks = json!({"onPushed": {"app": true}, "onError": {"app": true}, "onMetric": {"app": true}});
    let server = Server::with_app(hooks, app.clone());
    server.push("tok-alice", "g", "c", 1, &[inc("a"), ("nothing", json!({}))]);
    let heard = app.heard.take();
    let names: Vec<_> = heard.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["on-error", "on-pushed", "on-metric"]);
    assert_eq!(heard[0].1["kind"], "mutation-error");
    let ctx = json!({"userId": "alice", "role": "member"});
    assert_eq!(heard[1].1, json!({"clientGroupID": "g", "clientID": "c", "ctx": ctx, "version": 2}));
    let metric = &heard[2].1;
    assert_eq!(
        (&metric["kind"], &metric["mutations"], &metric["applied"], &metric["errors"]),
        (&json!("push"), &json!(2), &json!(1), &json!(1))
    );
    server.push("tok-alice", "g", "c", 1, &[inc("a")]);
    assert!(app.heard.take().iter().all(|(name, _)| name == "on-metric"));
}

#[test]
fn a_hook_that_fails_leaves_the_push_as_it_is() {
    let app = Rc::new(Listener { fails: true, ..Listener::default() });
    let server = Server::with_app(json!({"onPushed": {"app": true}}), app);
    assert_eq!(server.push("tok-alice", "g", "c", 1, &[inc("a")]).status, 200);
    let errors = server.get("/admin/errors", "admin-secret").json();
    let expected = json!({"at": 1_000_000, "kind": "onPushed-failed", "clientGroupID": "g", "clientID": "c", "cause": "not today"});
    assert_eq!(errors["errors"], json!([expected]));
}

#[test]
fn hooks_in_the_background_wait_for_a_job() {
    let app = Rc::new(Listener::default());
    let server = Server::with_app(json!({"onPushed": {"app": true}, "waitUntil": "background"}), app.clone());
    server.push("tok-alice", "g", "c", 1, &[inc("a")]);
    assert!(app.heard.borrow().is_empty());
    let job = server.host.pubsub.jobs.borrow().keys().find(|name| name.starts_with("hook/")).cloned().unwrap();
    let payload = json!({"hook": "on-pushed", "data": {"clientGroupID": "g"}, "userId": "alice"}).to_string().into_bytes();
    assert_eq!(server.mount().fire(server.imports(), &job, payload, None), None);
    assert_eq!(app.heard.take(), [("on-pushed".to_owned(), json!({"clientGroupID": "g"}))]);
}

#[test]
fn errors_are_kept_logged_and_posted() {
    let server = Server::with(json!({"onError": {"ring": 3, "webhook": "https://hook.example/errors"}}));
    server.post("/push", "tok-alice", &json!({"protocolVersion": 2, "schemaVersion": "7"}));
    server.host.now_ms.set(1_000_001);
    server.post("/pull", "tok-alice", &json!({"pullVersion": 1, "schemaVersion": "6"}));
    server.host.now_ms.set(1_000_002);
    server.post("/pull", "nope", &json!({}));
    server.host.now_ms.set(1_000_003);
    server.ask(&Ask::get(&format!("/sync/blob/{}", "x".repeat(64))).token("tok-alice"));
    let kept = server.get("/admin/errors", "admin-secret").json();
    assert_eq!(
        kept["errors"],
        json!([
            {"at": 1_000_001, "kind": "schema-mismatch", "expected": "7", "got": "6"},
            {"at": 1_000_002, "kind": "unauthorized"},
            {"at": 1_000_003, "kind": "blob-invalid-request", "reason": "the hash must be 64 lowercase hex digits"},
        ])
    );
    let posts = server.host.effects.posts.take();
    assert_eq!(posts.len(), 4);
    assert_eq!(
        serde_json::from_slice::<Json>(&posts[0].body).unwrap(),
        json!({"at": 1_000_000, "kind": "protocol-mismatch", "expected": 1, "got": 2})
    );
    let logged = server.host.effects.lines.borrow().iter().filter(|(_, line)| line.contains("-mismatch")).count();
    assert_eq!(logged, 2);
    assert!(!server.host.effects.lines.borrow().iter().any(|(_, line)| line.contains("tok-alice")), "no credentials in the log");
}
