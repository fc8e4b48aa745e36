//! Versions, where many take them at once (docs/protocols/plasma.md, section 14): none twice, none skipped by any reader.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use serde_json::{Value, json};
use syncline::executor::Executor;
use syncline::executor::postgres::{PostgresAddress, PostgresExecutor, PostgresSettings};
use syncline::executor::sqlite::{SqliteExecutor, SqliteSettings};
use syncline_tests::eventually;
use syncline_tests::plasma::{Replica, User, admin, alice, bob, fixture_with, mutation, plasma_mount, push_body};
use syncline_tests::postgres::PostgresSchemas;
use syncline_tests::server::{Setup, TestServer};

async fn on_postgres(schemas: &PostgresSchemas) -> Arc<dyn Executor> {
    let settings = PostgresSettings::new(PostgresAddress::parse(schemas.url()).expect("an address"));
    Arc::new(PostgresExecutor::start(settings).await.expect("the server is there"))
}

async fn serve(executor: Arc<dyn Executor>, sequencer: Value) -> TestServer {
    let mounts = vec![plasma_mount(fixture_with(json!({"sequencer": sequencer})))];
    TestServer::with(Setup { mounts, executor: Some(executor), ..Setup::default() }).await
}

/// Pulls all that there is; rows that came more than once in the life of this replica are a defect, since none is written twice.
async fn follow(user: User, group: &str, replica: &mut Replica) {
    loop {
        let before = replica.clone();
        let pulled = replica.apply(&user.pull(group, &replica.cookie).await).unwrap_or_else(|broken| panic!("{broken}"));
        let again = pulled.put.iter().find(|key| before.rows.contains_key(*key));
        assert_eq!(again, None, "it came twice");
        for (region, entry) in before.cookie["r"].as_object().into_iter().flatten() {
            assert!(replica.cookie["r"][region].as_u64() >= entry.as_u64(), "{region} fell from {} to {}", before.cookie, replica.cookie);
        }
        if !pulled.has_more {
            return;
        }
    }
}

/// Follows until all of some writers are done, and then once more.
async fn follow_until_done(user: User, group: &str, writing: &AtomicUsize) -> Replica {
    let mut replica = Replica::new();
    while writing.load(Ordering::SeqCst) > 0 {
        follow(user, group, &mut replica).await;
    }
    follow(user, group, &mut replica).await;
    replica
}

/// Pushes counters of one's own, one at a time; what was not taken is pushed again. Their versions.
async fn push_counters(user: User, name: &str, count: u64, writing: &AtomicUsize) -> Vec<u64> {
    let mut versions = Vec::new();
    for id in 1..=count {
        let mutations = [mutation(name, id, "inc", json!({"id": format!("{name}-{id}"), "by": 1}))];
        let reply = eventually("a push is taken", || async {
            let answer = user.post("/push", &push_body(&format!("group of {name}"), &mutations)).await;
            assert!([200, 503].contains(&answer.status), "{answer:?}");
            (answer.status == 200).then(|| answer.json())
        });
        let reply = reply.await;
        assert_eq!(reply["results"][0]["status"], "applied", "{reply}");
        versions.push(reply["cookie"].as_u64().expect("a version"));
    }
    writing.fetch_sub(1, Ordering::SeqCst);
    versions
}

/// Reserves ranges and closes them; their versions.
async fn reserve_ranges(user: User, count: u64, writing: &AtomicUsize) -> Vec<u64> {
    let mut versions = Vec::new();
    for versions_of_range in 1..=count {
        let range = user.post("/admin/reserve", &json!({"count": versions_of_range})).await.json();
        versions.extend(range["first"].as_u64().expect("the first")..=range["last"].as_u64().expect("the last"));
        let close = json!({"close": {"first": range["first"], "epoch": range["epoch"]}});
        assert_eq!(user.post("/admin/reserve", &close).await.json()["closed"], true);
    }
    writing.fetch_sub(1, Ordering::SeqCst);
    versions
}

async fn sixteen_callers(executor: Arc<dyn Executor>) {
    const EACH: u64 = 6;
    let server = serve(executor, json!({"mode": "reserve"})).await;
    let writing = AtomicUsize::new(16);
    let names: Vec<_> = (0..8).map(|number| format!("c{number}")).collect();
    let pushing = join_all(names.iter().map(|name| push_counters(alice(server.address), name, EACH, &writing)));
    let reserving = join_all((0..8).map(|_| reserve_ranges(admin(server.address), EACH, &writing)));
    let reading = join_all(["r1", "r2"].map(|group| follow_until_done(bob(server.address), group, &writing)));
    let (pushed, reserved, readers) = tokio::join!(pushing, reserving, reading);
    let mut all: Vec<u64> = pushed.into_iter().chain(reserved).flatten().collect();
    all.sort_unstable();
    let last = 8 * EACH + 8 * EACH * (EACH + 1) / 2;
    assert_eq!(all, (1..=last).collect::<Vec<_>>(), "each version has one that took it");
    let written: BTreeSet<_> = names.iter().flat_map(|name| (1..=EACH).map(move |id| format!("counters/{name}-{id}"))).collect();
    for reader in readers {
        assert_eq!((reader.cookie, reader.rows.into_keys().collect::<BTreeSet<_>>()), (json!(last), written.clone()));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_callers_at_once_get_ranges_and_versions_of_their_own() {
    let folder = tempfile::tempdir().expect("a folder");
    sixteen_callers(Arc::new(SqliteExecutor::start(SqliteSettings::new(folder.path())).await.expect("a folder of its own"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_callers_at_once_get_ranges_and_versions_of_their_own_in_postgres() {
    let schemas = PostgresSchemas::new().await;
    sixteen_callers(on_postgres(&schemas).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_regions_write_to_one_database_and_every_reader_gets_every_row() {
    const EACH: u64 = 25;
    let schemas = PostgresSchemas::new().await;
    let eu = serve(on_postgres(&schemas).await, json!({"region": "eu"})).await;
    let us = serve(on_postgres(&schemas).await, json!({"region": "us"})).await;
    let writing = AtomicUsize::new(4);
    let writers = join_all([(&eu, "eu-1"), (&eu, "eu-2"), (&us, "us-1"), (&us, "us-2")].map(|(server, name)| {
        let writing = &writing;
        async move { push_counters(alice(server.address), name, EACH, writing).await }
    }));
    let readers = join_all([(&eu, "at-eu"), (&us, "at-us")].map(|(server, group)| follow_until_done(bob(server.address), group, &writing)));
    let (versions, readers) = tokio::join!(writers, readers);
    let (of_eu, of_us) = (versions[..2].concat(), versions[2..].concat());
    let all: BTreeSet<_> = of_eu.iter().chain(&of_us).copied().collect();
    assert_eq!(all, (1..=4 * EACH).collect(), "one order, and each version once");
    let last = |versions: &[u64]| *versions.iter().max().expect("some");
    let cookie = json!({"order": last(&of_eu) + last(&of_us), "r": {"eu": last(&of_eu), "us": last(&of_us)}});
    for mut reader in readers {
        assert_eq!(reader.rows.len() as u64, 4 * EACH);
        assert_eq!((&reader.cookie["r"], reader.order() >= cookie["order"].as_f64().expect("a number")), (&cookie["r"], true));
        // Whichever server is asked: the cookie is good at both, and nothing is new.
        for server in [&eu, &us] {
            let before = reader.cookie.clone();
            follow(bob(server.address), "at-eu", &mut reader).await;
            assert_eq!(reader.cookie, before);
        }
    }
    eu.stop().await;
    us.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_of_somebody_elses_that_stalls_before_its_commit_costs_nobody_a_row() {
    let schemas = PostgresSchemas::new().await;
    let server = serve(on_postgres(&schemas).await, json!({})).await;
    let (writing, writer) = (AtomicUsize::new(1), alice(server.address));
    assert_eq!(push_counters(writer, "first", 1, &writing).await, [1]);
    let mut reader = Replica::new();
    follow(bob(server.address), "r", &mut reader).await;

    let mut other = schemas.session("plasma", "plasma");
    other.run("BEGIN");
    let taken = other.run("UPDATE _plasma_region_versions SET version = version + 1 WHERE region = 'local' RETURNING version");
    assert_eq!(taken, [["2"]]);
    other.run("INSERT INTO counters (id, n) VALUES ('other', 7)");
    other.run(
        "INSERT INTO _plasma_changes (version, seq, tbl, pk, op, before, newest, region, at) \
         VALUES (2, 0, 'counters', '[\"other\"]', 'put', NULL, 1, 'local', 0)",
    );
    let pushing = tokio::spawn(async move { push_counters(writer, "second", 2, &AtomicUsize::new(1)).await });
    let waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid <> pg_backend_pid() \
                 AND query LIKE '%_plasma_region_versions%'";
    eventually("a push waits for the row", || async { (!schemas.query("plasma", "plasma", waits, &[]).is_empty()).then_some(()) }).await;
    for _ in 0..3 {
        let before = reader.cookie.clone();
        follow(bob(server.address), "r", &mut reader).await;
        assert_eq!((&reader.cookie, before), (&json!(1), json!(1)), "readers go on, and see nothing of it");
    }
    other.run("COMMIT");
    assert_eq!(pushing.await.expect("the pushes are taken"), [3, 4], "none takes the version of the other");
    follow(bob(server.address), "r", &mut reader).await;
    let keys: Vec<_> = reader.rows.keys().map(String::as_str).collect();
    assert_eq!((keys, reader.cookie), (vec!["counters/first-1", "counters/other", "counters/second-1", "counters/second-2"], json!(4)));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn below_an_open_range_rows_and_rules_are_as_they_were_in_postgres() {
    let schemas = PostgresSchemas::new().await;
    let server = serve(on_postgres(&schemas).await, json!({"mode": "reserve"})).await;
    let (writer, reader, root) = (alice(server.address), bob(server.address), admin(server.address));
    let inc = |id| mutation("c", id, "inc", json!({"id": "k", "by": 1}));
    let board = |id, name: &str| mutation("c", id, "createBoard", json!({"id": "b", "team": "x", "name": name}));
    let member = |id, name: &str| mutation("c", id, name, json!({"team": "x", "userId": "bob"}));
    writer.push("g", &[inc(1), board(2, "before"), member(3, "join")]).await;
    let range = root.post("/admin/reserve", &json!({})).await.json();
    writer.push("g", &[inc(4), board(5, "after"), member(6, "leave")]).await;
    let mut replica = Replica::new();
    replica.apply(&reader.pull("h", &replica.cookie).await).expect("a first load");
    assert_eq!(replica.cookie, json!(3));
    assert_eq!(replica.rows["counters/k"]["n"], 1);
    assert_eq!(replica.rows["boards/b"], json!({"id": "b", "team": "x", "name": "before"}));
    assert!(replica.rows.contains_key("members/x/bob"));
    let close = json!({"close": {"first": range["first"], "epoch": range["epoch"]}});
    assert_eq!(root.post("/admin/reserve", &close).await.json()["closed"], true);
    replica.apply(&reader.pull("h", &replica.cookie).await).expect("what came after");
    assert_eq!((replica.cookie, replica.rows.into_keys().collect::<Vec<_>>()), (json!(7), vec!["counters/k".to_owned()]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_the_first_format_are_brought_to_this_one_in_postgres() {
    let schemas = PostgresSchemas::new().await;
    let server = serve(on_postgres(&schemas).await, json!({})).await;
    push_counters(alice(server.address), "c", 1, &AtomicUsize::new(1)).await;
    server.stop().await;
    let sql = |sql: &str| schemas.query("plasma", "plasma", sql, &[]);
    sql("ALTER TABLE _plasma_blobs DROP COLUMN object");
    sql("UPDATE _plasma_meta SET value = '1' WHERE key = 'format'");
    let server = serve(on_postgres(&schemas).await, json!({})).await;
    assert_eq!(sql("SELECT value FROM _plasma_meta WHERE key = 'format'"), [["2"]]);
    let column = "SELECT data_type, collation_name, is_nullable, column_default FROM information_schema.columns \
                  WHERE table_schema = current_schema() AND table_name = '_plasma_blobs' AND column_name = 'object'";
    assert_eq!(sql(column), [["text", "C", "NO", "''::text"]]);
    // What needs it works, and the rows from before are there.
    let blob = syncline_tests::http::request(
        server.address,
        &http::Method::PUT,
        "/sync/blob/2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
        &[("authorization", "tok-alice"), ("content-type", "text/plain")],
        "hello",
    );
    assert_eq!(blob.await.status, 201);
    let mut reader = Replica::new();
    follow(bob(server.address), "r", &mut reader).await;
    assert_eq!((reader.rows.len(), reader.cookie), (1, json!(1)));
    server.stop().await;
    // A start that has nothing to do changes nothing, and a newer format is refused by name.
    sql("UPDATE _plasma_meta SET value = '99' WHERE key = 'format'");
    let mounts = vec![plasma_mount(fixture_with(json!({})))];
    let refused = TestServer::try_with(Setup { mounts, executor: Some(on_postgres(&schemas).await), ..Setup::default() }).await;
    assert!(format!("{:#}", refused.err().expect("it does not start")).contains("format 99"));
}
