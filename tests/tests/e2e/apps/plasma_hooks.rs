//! Hooks of a plasma mount's app, which write what they hear: outside of a mutation each write is a version of its own.

use serde_json::{Value, json};
use syncline_tests::plasma::{admin, alice, bob, fixture, mutation, plasma_mount};
use syncline_tests::server::{Setup, TestServer};

use super::plasma::{mount, rows, serve};

fn increment(id: u64) -> Value {
    mutation("c1", id, "inc", json!({"id": "k", "by": 1}))
}

#[tokio::test]
async fn a_hook_that_writes_takes_a_version_of_its_own_and_pokes() {
    let server = serve(json!({"onPushed": {}})).await;
    let mut events = bob(server.address).events("").await;
    let answer = alice(server.address).push("g1", &[increment(1)]).await;
    assert_eq!(answer["cookie"], 1, "the push tells of itself");
    assert_eq!(events.poke_at(2).await, 2, "whoever has not yet heard of the first hears of the newest alone");
    let seen = rows(bob(server.address)).await;
    assert_eq!((&seen.cookie, &seen.rows["counters/pushed by alice"]["n"]), (&json!(2), &json!(1)));
}

#[tokio::test]
async fn hooks_in_the_background_write_too() {
    let server = serve(json!({"onPushed": {}, "waitUntil": "background"})).await;
    let mut events = bob(server.address).events("").await;
    alice(server.address).push("g1", &[increment(1)]).await;
    assert_eq!(events.poke_at(2).await, 2);
    assert_eq!(rows(bob(server.address)).await.rows["counters/pushed by alice"]["n"], 1);
}

#[tokio::test]
async fn the_app_hears_of_errors_and_of_requests() {
    let server = serve(json!({"onError": {}, "onMetric": {"app": true}})).await;
    alice(server.address).push("g1", &[mutation("c1", 1, "nothing", json!({}))]).await;
    assert_eq!(alice(server.address).post("/pull", &json!({})).await.status, 400);
    let seen = rows(alice(server.address)).await;
    let heard: Vec<_> = seen.rows.into_keys().collect();
    assert_eq!(heard, ["counters/error invalid-request", "counters/error mutation-error", "counters/failed pull"]);
}

#[tokio::test]
async fn a_hook_that_falls_leaves_the_push_as_it_is() {
    let server = serve(json!({"onPushed": {}})).await;
    let answer = alice(server.address).push("g1", &[mutation("trap", 1, "inc", json!({"id": "k", "by": 1}))]).await;
    assert_eq!(answer["results"][0]["status"], "applied");
    let errors = admin(server.address).get("/admin/errors").await.json();
    assert_eq!(errors["errors"][0]["kind"], "onPushed-failed");
    assert_eq!(rows(alice(server.address)).await.rows.into_keys().collect::<Vec<_>>(), ["counters/k"]);
}

#[tokio::test]
async fn the_app_hears_of_migrations() {
    let server = serve(json!({})).await;
    let mut schema = fixture()["schema"].clone();
    schema["tables"]["todos"]["columns"]["due"] = json!({"type": "timestamp", "nullable": true});
    let answer = admin(server.address).post("/admin/migrate", &json!({"schema": schema})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let told = answer.json()["events"].as_array().expect("a migration has events").len();
    assert_eq!(rows(alice(server.address)).await.rows["counters/migrated"]["n"], told);
}

#[tokio::test]
async fn what_the_settings_ask_of_an_app_it_must_have() {
    let mut lacks = mount(json!({"onError": {"app": true}}));
    lacks.app = Some(env!("SYNCLINE_BAD_APP").into());
    for (mount, problem) in [
        (lacks, "onError.app: needs the function `event`"),
        (plasma_mount(syncline_tests::plasma::fixture_with(json!({"auth": {"mode": "app"}}))), "auth.mode: needs an app component"),
    ] {
        let started = TestServer::try_with(Setup { mounts: vec![mount], ..Setup::default() }).await;
        let said = started.err().expect("it does not start").to_string();
        assert!(said.contains(problem), "{said}");
    }
}
