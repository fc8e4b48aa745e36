//! What other programs write into the tables (`changeLog.triggers`; docs/protocols/plasma.md, section 14). On SQLite there is none of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use syncline_tests::plasma::{Replica, User, admin, alice, bob, fixture_with, mutation, plasma_mount};
use syncline_tests::postgres::{self, PostgresSchemas};
use syncline_tests::server::{Setup, TestServer};
use tempfile::TempDir;

use super::{create_todo, increment, pull_all};

fn settings(changes: Value, triggers: bool) -> Value {
    let mut settings = fixture_with(changes);
    settings["changeLog"] = json!({ "triggers": triggers });
    settings
}

async fn start(settings: Value, folder: Option<Arc<TempDir>>) -> anyhow::Result<TestServer> {
    TestServer::try_with(Setup { mounts: vec![plasma_mount(settings)], folder, ..Setup::default() }).await
}

/// A server with triggers, and another program's way to its tables. None on SQLite, where it does not start.
async fn with_triggers(changes: Value) -> Option<(TestServer, Arc<PostgresSchemas>)> {
    let started = start(settings(changes, true), None).await;
    if !postgres::is_chosen() {
        let refused = started.err().expect("there are no triggers on SQLite").to_string();
        assert!(refused.contains("changeLog.triggers"), "{refused}");
        return None;
    }
    let server = started.expect("it starts");
    let schemas = postgres::known(server.folder()).expect("it has schemas");
    Some((server, schemas))
}

/// Does something in the database as another program.
fn sql(schemas: &PostgresSchemas, text: &str) -> Vec<Vec<String>> {
    schemas.query("plasma", "plasma", text, &[])
}

/// The rows of a fresh client of a user.
async fn fresh(user: User) -> BTreeMap<String, Value> {
    let mut replica = Replica::new();
    pull_all(user, &format!("fresh-{}", user.token), &mut replica).await;
    replica.rows
}

/// Todos of a user, as of a version where one is given: version and rows.
async fn todos(user: User, as_of: Option<&Value>) -> (Value, Value) {
    let query = json!({"from": "todos", "orderBy": [["id", "asc"]]});
    let mut body = json!({"protocolVersion": 1, "schemaVersion": "7", "query": query});
    let path = as_of.map_or("/query", |_| "/snapshot");
    if let Some(version) = as_of {
        body["asOf"] = json!({ "version": version });
    }
    let answer = user.post(path, &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    (answer.json()["version"].clone(), answer.json()["rows"].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_get_what_other_programs_wrote() {
    let Some((server, schemas)) = with_triggers(json!({})).await else { return };
    let (alice, bob) = (alice(server.address), bob(server.address));
    alice.push("g", &[create_todo("c", 1, "own", false)]).await;
    let (mut of_alice, mut of_bob) = (Replica::new(), Replica::new());
    let mut past = Vec::new();
    let steps = [
        // Many rows in one statement, with a key that needs escapes.
        "INSERT INTO todos (id, owner, title, done, rank, shared, meta) VALUES \
         (E'a\"\\\\\\n\\x01/%é', 'alice', 'x', true, 1, false, '{\"a\": [1, 2.5, null]}'), ('b', 'bob', 'y', false, 2, true, NULL)",
        "INSERT INTO todos (id, owner, title, done, rank, shared, meta) SELECT 'many' || n, 'bob', 'z', false, n, n % 2 = 0, NULL FROM generate_series(1, 1200) AS n",
        "UPDATE todos SET title = title || '!', shared = NOT shared",
        // Of what stays as it was nothing is told.
        "UPDATE todos SET title = title WHERE id = 'b'",
        "UPDATE todos SET id = 'moved' WHERE id = 'b'",
        "BEGIN; UPDATE todos SET rank = 9 WHERE id = 'own'; DELETE FROM todos WHERE id = 'moved'; \
         INSERT INTO todos (id, owner, title, done, rank, shared, meta) SELECT 'again', 'alice', 'w', false, 0, true, NULL; COMMIT",
        "INSERT INTO todos (id, owner, title, done, rank, shared, meta) SELECT 'own', 'alice', 'v', false, 0, true, NULL \
         ON CONFLICT (id) DO UPDATE SET title = 'merged'",
        // Of rows that become visible by others.
        "INSERT INTO boards (id, team, name) VALUES ('b1', 'x', 'board'); INSERT INTO members (team, \"userId\") VALUES ('x', 'bob')",
        "DELETE FROM members",
        "DELETE FROM todos WHERE rank < 600",
        "TRUNCATE todos",
    ];
    for step in steps {
        past.push((alice, todos(alice, None).await));
        past.push((bob, todos(bob, None).await));
        sql(&schemas, step);
        for (user, group, replica) in [(alice, "ra", &mut of_alice), (bob, "rb", &mut of_bob)] {
            pull_all(user, group, replica).await;
            assert_eq!(replica.rows, fresh(user).await, "{step}");
        }
        assert_eq!(of_bob.rows.contains_key("boards/b1"), step.starts_with("INSERT INTO boards"), "{step}");
    }
    for (user, (version, rows)) in past {
        assert_eq!(todos(user, Some(&version)).await.1, rows, "as of {version}");
    }
    // Versions of 500 rows at most, and nothing that did not change.
    let largest =
        sql(&schemas, "SELECT max(n), sum(n) FROM (SELECT count(*) AS n FROM _plasma_changes WHERE op = 'put' GROUP BY version) AS v");
    assert_eq!(largest[0][0], "500");
    assert_eq!(sql(&schemas, "SELECT count(*) FROM _plasma_changes WHERE pk = '[\"b\"]'"), [["3"]]);
    alice.push("g", &[create_todo("c", 2, "after", false)]).await;
    assert_eq!(sql(&schemas, "SELECT count(*) FROM _plasma_changes WHERE pk = '[\"after\"]'"), [["1"]], "the server logs its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn triggers_log_as_the_server_does() {
    let kinds = json!({"primaryKey": ["t", "i", "g", "b"], "columns": {
        "t": {"type": "text"}, "i": {"type": "integer"}, "g": {"type": "bigint"}, "b": {"type": "boolean"},
        "real": {"type": "real"}, "json": {"type": "json", "nullable": true}, "at": {"type": "timestamp"},
        "bytes": {"type": "bytes"}, "secret": {"type": "text", "encrypted": true, "nullable": true}, "n": {"type": "integer"},
    }});
    let changes = json!({"schema": {"tables": {"kinds": kinds}}, "mutators": {}});
    let Some((server, schemas)) = with_triggers(changes).await else { return };
    let admin = admin(server.address);
    let pk = json!(["a\"\\\n\u{1}\u{7f}/é€😀", -5, "-12345678901234567890", true]);
    let row = json!({"t": pk[0], "i": pk[1], "g": pk[2], "b": pk[3], "real": 0.1, "json": {"b": [1, 2.5, null, "x"]}, "at": 1_767_225_600_000_u64,
        "bytes": "A".repeat(200), "secret": null, "n": 0});
    let write = async |operation: Value| {
        let answer = admin.post("/admin/db", &json!({"as": null, "ops": [operation]})).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    write(json!({"insert": {"table": "kinds", "row": row}})).await;
    // Both see the row with 1, and log it as it was when they make it 2.
    write(json!({"update": {"table": "kinds", "pk": pk, "set": {"n": 1}}})).await;
    write(json!({"update": {"table": "kinds", "pk": pk, "set": {"n": 2}}})).await;
    sql(&schemas, "UPDATE kinds SET n = 1");
    sql(&schemas, "UPDATE kinds SET n = 2");
    let logged = sql(&schemas, "SELECT count(*), count(DISTINCT pk), sum(newest) FROM _plasma_changes");
    assert_eq!(logged, [["5", "1", "1"]]);
    let images = sql(&schemas, "SELECT count(*), count(DISTINCT before) FROM _plasma_changes WHERE (before ->> 'n') = '1'");
    assert_eq!(images, [["2", "1"]]);
    let columns = sql(&schemas, "SELECT DISTINCT region, at > 1600000000000 FROM _plasma_changes");
    assert_eq!(columns, [["local", "t"]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_of_all_who_write_are_seen_in_order() {
    let Some((server, schemas)) = with_triggers(json!({})).await else { return };
    let (writer, reader) = (alice(server.address), bob(server.address));
    let foreign = tokio::task::spawn_blocking(move || {
        for n in 0..20 {
            sql(&schemas, &format!("BEGIN; INSERT INTO counters VALUES ('f{n}', 1); UPDATE counters SET n = n + 1 WHERE id = 'k'; COMMIT"));
        }
        schemas
    });
    let mut replica = Replica::new();
    let mut id = 0;
    while !foreign.is_finished() || id == 0 {
        id += 1;
        writer.push("g", &[increment("c", id, "k", 1)]).await;
        pull_all(reader, "r", &mut replica).await;
    }
    let schemas = foreign.await.expect("all was written");
    pull_all(reader, "r", &mut replica).await;
    assert_eq!(replica.rows, fresh(reader).await);
    assert_eq!(replica.rows.keys().filter(|key| key.starts_with("counters/f")).count(), 20);
    let counts = sql(&schemas, "SELECT n FROM counters WHERE id = 'k'");
    assert_eq!(replica.rows["counters/k"]["n"].to_string(), counts[0][0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn triggers_follow_the_schema_and_go_when_nobody_wants_them() {
    let Some((server, schemas)) = with_triggers(json!({})).await else { return };
    alice(server.address).push("g", &[mutation("c", 1, "inc", json!({"id": "k", "by": 1}))]).await;
    let mut schema = fixture_with(json!({}))["schema"].clone();
    schema["tables"]["counters"]["columns"]["note"] = json!({"type": "text", "nullable": true});
    schema["tables"]["later"] = json!({"primaryKey": ["id"], "columns": {"id": {"type": "text"}}});
    let folder = server.stop().await;
    let server = start(settings(json!({"schema": schema}), true), Some(folder)).await.expect("it migrates");
    sql(&schemas, "UPDATE counters SET note = 'seen'; INSERT INTO later VALUES ('x')");
    let rows = fresh(bob(server.address)).await;
    assert_eq!((&rows["counters/k"]["note"], rows.contains_key("later/x")), (&json!("seen"), true));
    schema["tables"]["later"]["columns"]["more"] = json!({"type": "integer", "nullable": true});
    let answer = admin(server.address).post("/admin/migrate", &json!({"schema": schema})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    sql(&schemas, "INSERT INTO later VALUES ('y', 1)");
    assert!(fresh(bob(server.address)).await.contains_key("later/y"));
    let folder = server.stop().await;
    let server = start(settings(json!({"schema": schema}), false), Some(folder)).await.expect("it starts");
    let left = "SELECT count(*) FROM pg_trigger WHERE tgrelid IN ('counters'::regclass, 'later'::regclass) AND NOT tgisinternal";
    assert_eq!(sql(&schemas, left), [["0"]]);
    sql(&schemas, "INSERT INTO later VALUES ('z', 1)");
    assert!(!fresh(bob(server.address)).await.contains_key("later/z"));
}
