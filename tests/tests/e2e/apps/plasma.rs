//! Mutators of a plasma mount's app: what they write is part of their mutation, and their falls cost their mutation only.

use std::path::Path;

use serde_json::{Value, json};
use syncline::runtime::MountSettings;
use syncline_tests::plasma::{Replica, User, admin, alice, fixture_with, mutation, plasma_mount};
use syncline_tests::server::{Setup, TestServer};

/// The app of these tests (`tests/components/plasma-app`).
pub const APP: &str = env!("SYNCLINE_PLASMA_APP");

/// Hooks that are not told of anything.
const SILENT: [&str; 3] = ["onPushed", "onError", "onMetric"];

/// The fixture with changes. Hooks hear what the changes let them hear.
pub fn settings(changes: Value) -> Value {
    let mut settings = changes;
    for hook in SILENT {
        if settings.get(hook).is_none() {
            settings[hook] = json!({"app": false});
        }
    }
    fixture_with(settings)
}

/// A mount at `/sync` with the app.
pub fn mount(changes: Value) -> MountSettings {
    MountSettings { app: Some(Path::new(APP).to_owned()), ..plasma_mount(settings(changes)) }
}

/// A server with it.
pub async fn serve(changes: Value) -> TestServer {
    TestServer::with(Setup { mounts: vec![mount(changes)], ..Setup::default() }).await
}

/// All that a user sees.
pub async fn rows(user: User) -> Replica {
    let mut replica = Replica::new();
    // A client group belongs to one user.
    let page = user.pull(&format!("reader with {}", user.token), &Value::Null).await;
    replica.apply(&page).unwrap_or_else(|broken| panic!("{broken}"));
    replica
}

/// The status of each mutation, and the names and texts of errors.
pub fn outcomes(answer: &Value) -> Vec<String> {
    let outcome = |result: &Value| match result.get("error") {
        Some(error) => format!("{}: {}", error["name"].as_str().unwrap_or_default(), error["message"].as_str().unwrap_or_default()),
        None => result["status"].as_str().unwrap_or_default().to_owned(),
    };
    answer["results"].as_array().expect("a push has results").iter().map(outcome).collect()
}

fn create(id: u64, todo: &str) -> Value {
    mutation("c1", id, "createTodo", json!({"id": todo, "title": "same", "shared": false}))
}

#[tokio::test]
async fn a_mutator_of_the_app_reads_queries_and_writes_within_its_mutation() {
    let server = serve(json!({})).await;
    let user = alice(server.address);
    let push = [create(1, "a"), create(2, "b"), mutation("c1", 3, "copy", json!({"from": "a", "to": "c"}))];
    let answer = user.push("g1", &push).await;
    assert_eq!((outcomes(&answer), &answer["cookie"]), (vec!["applied".to_owned(); 3], &json!(3)), "its writes share one version");
    let seen = rows(user).await;
    assert_eq!(seen.rows["counters/same"]["n"], 2, "the query saw what the push had written before");
    assert_eq!((&seen.rows["todos/c"]["rank"], &seen.rows["todos/c"]["title"]), (&json!(7), &json!("same")));
    assert!(!seen.rows.contains_key("todos/a"));
    let again = user.push("g1", &push).await;
    assert_eq!(outcomes(&again), vec!["duplicate"; 3]);
}

#[tokio::test]
async fn what_the_rules_forbid_is_an_authorization_error_of_the_mutation() {
    let server = serve(json!({})).await;
    let user = alice(server.address);
    let own = |id, name: &str, owner: &str| mutation("c1", id, name, json!({"id": format!("t{id}"), "owner": owner}));
    let push = [own(1, "own", "bob"), own(2, "own", "alice"), own(3, "own-for", "bob"), mutation("c1", 4, "inc", json!({"id": "locked"}))];
    let answer = user.push("g1", &push).await;
    let denied = |what: &str| format!("PlasmaAuthorizationError: {what} is not allowed");
    assert_eq!(outcomes(&answer), [denied("insert on todos"), "applied".into(), "applied".into(), denied("insert on counters")]);
    assert_eq!(rows(user).await.rows.into_keys().collect::<Vec<_>>(), ["todos/t2"], "bob's is not hers to see");
    let seen = rows(User { token: "tok-bob", ..user }).await;
    assert_eq!(seen.rows.into_keys().collect::<Vec<_>>(), ["todos/t3"], "the server's own write needs no permission");
}

#[tokio::test]
async fn the_app_judges_writes_of_others_too() {
    let server = serve(json!({})).await;
    let locked = |context: Value| json!({"as": context, "ops": [{"upsert": {"table": "counters", "row": {"id": "locked"}}}]});
    let refused = admin(server.address).post("/admin/db", &locked(json!({"userId": "alice"}))).await;
    assert_eq!((refused.status, refused.json()["error"].clone()), (403, json!("plasma-authorization")));
    for context in [json!({"userId": "root"}), Value::Null] {
        assert_eq!(admin(server.address).post("/admin/db", &locked(context)).await.status, 200);
    }
}

#[tokio::test]
async fn a_write_that_fails_within_a_mutator_is_undone_by_itself() {
    let server = serve(json!({})).await;
    let user = alice(server.address);
    let answer = user.push("g1", &[mutation("c1", 1, "swallow", json!({})), mutation("c1", 2, "unheard-of", json!({}))]).await;
    assert_eq!(outcomes(&answer), ["applied", "Error: unknown mutator: unheard-of"]);
    assert_eq!(rows(user).await.rows.into_keys().collect::<Vec<_>>(), ["counters/after", "counters/before"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mutator_that_falls_fails_its_own_mutation_and_the_next_is_applied() {
    let server = serve(json!({"mutatorTimeoutMs": 200, "appMemoryBytes": 16 << 20})).await;
    let user = alice(server.address);
    let expected = [
        ("refuse", "so it is"),
        ("trap", "mutator trap trapped"),
        ("eat", "mutator eat trapped"),
        ("loop", "mutator loop took too long"),
        ("write-on", "mutator write-on took too long"),
    ];
    for (turn, (name, why)) in expected.into_iter().enumerate() {
        let id = 3 * turn as u64;
        let tell = |id: u64| mutation("c1", id, "inc", json!({"id": "fine", "by": 1}));
        let answer = user.push("g1", &[tell(id + 1), mutation("c1", id + 2, name, json!({})), tell(id + 3)]).await;
        assert_eq!(outcomes(&answer), ["applied".to_owned(), format!("Error: {why}"), "applied".to_owned()]);
        assert_eq!(answer["lastMutationIDChanges"]["c1"], id + 3);
        let seen = rows(user).await;
        assert_eq!(seen.rows.into_iter().collect::<Vec<_>>(), [("counters/fine".into(), json!({"id": "fine", "n": 2 * (turn + 1)}))]);
    }
    let answer = user.push("g1", &[mutation("c1", 16, "swallow", json!({}))]).await;
    assert_eq!(outcomes(&answer), ["applied"], "the app itself goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mutator_may_take_longer_than_a_transaction_where_the_settings_say_so() {
    let server = serve(json!({"mutatorTimeoutMs": 5000})).await;
    let user = alice(server.address);
    let answer = user.push("g1", &[mutation("c1", 1, "think", json!({}))]).await;
    assert_eq!(outcomes(&answer), ["applied"]);
    assert_eq!(rows(user).await.rows.into_keys().collect::<Vec<_>>(), ["counters/thinking", "counters/thought"]);
}

#[tokio::test]
async fn the_app_says_who_a_caller_is() {
    let server = serve(json!({"auth": {"mode": "app"}})).await;
    let user = User { token: "Bearer user-dora", ..alice(server.address) };
    let answer = user.push("g1", &[mutation("c1", 1, "own", json!({"id": "t", "owner": "dora"}))]).await;
    assert_eq!(outcomes(&answer), ["applied"]);
    assert_eq!(rows(user).await.rows["todos/t"]["owner"], "dora");
    let refused = User { token: "tok-alice", ..user }.post("/pull", &json!({})).await;
    assert_eq!((refused.status, refused.json()), (401, json!({"error": "unauthorized", "reason": "not one of ours"})));
}
