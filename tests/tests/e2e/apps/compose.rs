//! Services, app and logic as one component.

use std::path::Path;

use serde_json::{Value, json};
use syncline::compose::{self, ComposeError};
use syncline_tests::plasma::{alice, mutation, plasma_mount, push_body};
use syncline_tests::process::{command, run};
use syncline_tests::secsync::Author;
use syncline_tests::server::{Setup, TestServer, secsync_mount};

use super::{APP, answer, heard, plasma};
use crate::support::*;

/// What `syncline compose` makes of an app.
async fn composed(app: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("whole.wasm");
    let mut composing = command(&["compose", "--app", app, "--output"]);
    composing.arg(&output);
    let (composed, said) = run(composing).await;
    assert!(composed, "{said}");
    std::fs::read(&output).expect("it was written")
}

#[tokio::test]
async fn what_is_composed_ahead_of_time_serves_as_the_parts_do() {
    let component = composed(APP).await;
    let mounts = vec![secsync_mount("secsync", json!({"access": "app", "broadcast_access": "app"}))];
    let server = TestServer::with(Setup { component, mounts, ..Setup::default() }).await;
    let mut log = open(&server, &place("d", "log")).await.0;
    let (author, mut writer) = (Author::new(1), open(&server, &place("d", "w")).await.0);
    let snapshot = author.first_snapshot("d", b"x");
    writer.send(&snapshot.frame).await;
    assert_eq!(answer(&mut writer).await, snapshot_saved(&snapshot));
    assert_eq!(heard(&mut log, "createSnapshot").await["snapshot"], snapshot.frame);
    let mut refused = join(&server, "refuse-d").await;
    refused.send(&author.first_snapshot("refuse-d", b"x").frame).await;
    assert_eq!(answer(&mut refused).await, bare_failure());
}

#[tokio::test]
async fn mutators_that_are_composed_ahead_of_time_act_through_services_and_their_failures_are_their_mutations() {
    let component = composed(plasma::APP).await;
    let mounts = vec![plasma_mount(plasma::settings(json!({})))];
    let server = TestServer::with(Setup { component, mounts, ..Setup::default() }).await;
    let user = alice(server.address);
    let one = |id, name: &str, args: Value| mutation("c1", id, name, args);
    let push = [
        one(1, "createTodo", json!({"id": "a", "title": "same", "shared": false})),
        one(2, "copy", json!({"from": "a", "to": "b"})),
        one(3, "refuse", json!({})),
        one(4, "own", json!({"id": "c", "owner": "bob"})),
        one(5, "swallow", json!({})),
    ];
    let answer = user.push("g1", &push).await;
    let denied = "PlasmaAuthorizationError: insert on todos is not allowed";
    assert_eq!(plasma::outcomes(&answer), ["applied", "applied", "Error: so it is", denied, "applied"]);
    assert_eq!(answer["lastMutationIDChanges"]["c1"], 5);
    let seen = plasma::rows(user).await;
    assert_eq!(seen.rows.keys().collect::<Vec<_>>(), ["counters/after", "counters/before", "counters/same", "todos/b"]);
    let trap = [one(6, "trap", json!({}))];
    assert_eq!(user.post("/push", &push_body("g1", &trap)).await.status, 500, "here a trap takes its call along");
    let answer = user.push("g1", &trap).await;
    assert_eq!(plasma::outcomes(&answer), ["Error: mutator trap failed again and again"], "and the client is not held up for ever");
    let answer = user.push("g1", &[one(7, "copy", json!({"from": "b", "to": "d"}))]).await;
    assert_eq!((plasma::outcomes(&answer), &answer["cookie"]), (vec!["applied".to_owned()], &json!(7)));
    assert!(!plasma::rows(user).await.rows.contains_key("counters/fallen"), "nothing of what fell is there");
}

#[test]
fn what_is_no_app_is_refused_by_what_it_lacks() {
    assert!(matches!(compose::with_services(b"no component"), Err(ComposeError::NotAComponent(_))));
    let logic = syncline::runtime::GUEST_COMPONENT;
    assert!(matches!(compose::with_services(logic), Err(ComposeError::NoApp)));
    let empty = syncline::runtime::EMPTY_APP_COMPONENT;
    assert_eq!(compose::with_services(empty).expect("it is an app").as_ref(), empty, "it needs no services");
    assert!(Path::new(APP).exists());
}
