//! Section 18, metrics and jobs: what whoever runs the server sees and does.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::support::*;

#[test]
fn without_an_admin_token_there_is_no_admin_surface() {
    let server = Server::with(json!({"adminToken": null}));
    for path in ["/admin/errors", "/admin/stats", "/admin/nope"] {
        assert_eq!(server.get(path, "admin-secret").status, 404);
    }
    let with = Server::new();
    assert_eq!(with.get("/admin/errors", "tok-root").status, 401, "a user's token never works");
    assert_eq!(with.get("/admin/errors?auth=admin-secret", "x").status, 401);
    assert_eq!(with.get("/admin/db", "admin-secret").header("allow"), "POST, OPTIONS");
    assert_eq!(with.post("/admin/stats", "admin-secret", &json!({})).header("allow"), "GET, OPTIONS");
}

#[test]
fn the_schema_is_told() {
    let shown = Server::new().get("/admin/schema", "admin-secret").json();
    assert_eq!(shown["schemaVersion"], "7");
    assert_eq!(shown["tables"], json!(["boards", "comments", "counters", "docs", "members", "notes", "todos"]));
    assert_eq!(shown["schema"], fixture(json!({}))["schema"]);
}

#[test]
fn stats_count() {
    let server = Server::new();
    server.push("tok-alice", "g", "c", 1, &[todo("a", "x"), todo("b", "x")]);
    let stats = server.get("/admin/stats", "admin-secret").json();
    assert_eq!((&stats["tables"]["todos"], &stats["version"], &stats["clients"]), (&json!(2), &json!(2), &json!(1)));
}

#[test]
fn the_server_writes_in_its_own_name_or_in_a_users() {
    let server = Server::new();
    let db = |body: Json| server.post("/admin/db", "admin-secret", &body);
    let insert = json!({"insert": {"table": "notes", "row": {"id": "n", "owner": "alice",
        "body": {"v": 1, "alg": "a", "keyId": "k1", "iv": "AAAA", "ct": "AAAA"}}}});
    let denied = db(json!({"as": {"userId": "bob"}, "ops": [insert.clone()]}));
    assert_eq!((denied.status, denied.json()), (403, json!({"error": "plasma-authorization", "table": "notes", "action": "insert"})));
    assert_eq!(db(json!({"as": null, "ops": [insert.clone()]})).json(), json!({"ok": true, "version": 1, "changed": 1}));
    let failed = db(json!({"ops": [{"insert": {"table": "counters", "row": {"id": "x"}}}, insert]}));
    assert_eq!((failed.status, failed.json()["error"].as_str()), (422, Some("db-error")));
    assert_eq!(server.ask(&Ask::get("/sync/health")).json()["version"], 1, "all or nothing");
    let wrong_contexts = [json!(7), json!({"userId": {}}), json!({"userId": "a\0"}), json!({"userId": "a", "teams": ["\0"]})];
    let wrong_contexts = wrong_contexts.map(|ctx| json!({"as": ctx, "ops": []}));
    for malformed in [json!({}), json!({"ops": {}}), json!({"ops": [{"explode": {}}]})].into_iter().chain(wrong_contexts) {
        assert_eq!(db(malformed.clone()).status, 400, "{malformed}");
    }
}

#[test]
fn a_query_shows_what_its_caller_may_see() {
    let named =
        json!({"open": {"from": "todos", "select": ["id"], "where": {"op": "=", "left": {"col": "done"}, "right": {"param": "done"}}}});
    let server = Server::with(json!({"namedQueries": named}));
    server.push("tok-alice", "g", "c", 1, &[todo("a", "x"), todo("b", "y"), ("setShared", json!({"id": "b", "shared": false}))]);
    let ask = |token: &str, query: Json, params: Json| {
        server.post("/query", token, &json!({"protocolVersion": 1, "schemaVersion": "7", "query": query, "params": params}))
    };
    let all = json!({"from": "todos", "select": ["id", "title"]});
    assert_eq!(ask("tok-bob", all.clone(), Json::Null).json(), json!({"ok": true, "version": 3, "rows": [{"id": "a", "title": "x"}]}));
    assert_eq!(ask("tok-alice", all.clone(), Json::Null).json()["rows"].as_array().unwrap().len(), 2);
    assert_eq!(ask("tok-bob", json!("open"), json!({"done": false})).json()["rows"], json!([{"id": "a"}]));
    for (query, params) in [
        (json!("closed"), Json::Null),
        (json!("open"), Json::Null),
        (json!({"from": "_plasma_meta"}), Json::Null),
        (json!({"from": "todos", "limit": -1}), Json::Null),
        (Json::Null, Json::Null),
        (all.clone(), json!(7)),
    ] {
        let reply = ask("tok-bob", query.clone(), params);
        assert_eq!((reply.status, reply.json()["error"].as_str()), (400, Some("invalid-request")), "{query}");
    }
    let strict = Server::with(json!({"namedQueries": named, "queryPolicy": "named"}));
    let body = json!({"protocolVersion": 1, "schemaVersion": "7", "query": all});
    assert_eq!(strict.post("/query", "tok-bob", &body).json()["reason"], "named-queries-only");
    assert_eq!(strict.post("/query", "tok-bob", &json!({"protocolVersion": 2})).status, 409);
}

#[test]
fn a_compaction_is_asked_for() {
    let server = Server::new();
    for number in 1..=10 {
        server.push("tok-alice", "g", "c", number, &[inc("k")]);
    }
    let done = server.post("/admin/compact", "admin-secret", &json!({"keepVersions": 2})).json();
    assert_eq!((&done["ok"], &done["minVersion"], &done["done"]), (&json!(true), &json!(8), &json!(true)));
    assert_eq!(server.pull("tok-alice", "g", &json!(3))["reset"], true);
    assert_eq!(server.post("/admin/compact", "admin-secret", &json!({"keepVersions": 1, "upToVersion": 2})).status, 400);
    assert_eq!(server.push("tok-alice", "g", "c", 10, &[inc("k")]).json()["results"][0]["status"], "duplicate");
}

#[test]
fn a_migration_can_be_tried_and_is_refused_with_reasons() {
    let server = Server::new();
    let mut schema = fixture(json!({}))["schema"].clone();
    schema["tables"]["todos"]["columns"]["rank"]["type"] = json!("text");
    schema["tables"]["todos"]["columns"]["rank"]["default"] = json!("0");
    let reply = server.post("/admin/migrate", "admin-secret", &json!({"schema": schema, "dryRun": true}));
    assert_eq!((reply.status, reply.json()["error"].as_str()), (409, Some("migration-refused")));
    assert_eq!(reply.json()["reasons"], json!(["column todos.rank would change"]));
    let mut wider = fixture(json!({}))["schema"].clone();
    wider["tables"]["todos"]["columns"]["note"] = json!({"type": "text", "nullable": true});
    let tried = server.post("/admin/migrate", "admin-secret", &json!({"schema": wider, "dryRun": true})).json();
    assert_eq!((&tried["ok"], &tried["dryRun"]), (&json!(true), &json!(true)));
    assert_eq!(server.post("/admin/migrate", "admin-secret", &json!({"schema": {"tables": 1}})).status, 400);
}

#[test]
fn metrics_add_up() {
    let server = Server::new();
    server.push("tok-alice", "g", "c", 1, &[inc("k"), ("nothing", json!({}))]);
    server.push("tok-alice", "g", "c", 1, &[inc("k")]);
    server.pull("tok-alice", "g", &Json::Null);
    server.post("/pull", "nope", &json!({}));
    let _stream = server.stream("/sync/poke?auth=tok-bob", &[]).ok().unwrap();
    let (socket, _) = server.socket("/sync/ws?auth=tok-bob", &[]).ok().unwrap();
    socket.send("nonsense");
    let text = server.get("/admin/metrics", "admin-secret").text();
    let total = |series: &str| -> f64 {
        let lines = text.lines().filter_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse::<f64>().ok());
        lines.sum()
    };
    assert_eq!(total("plasma_requests_total{kind=\"push\",ok=\"true\"}"), 2.0, "{text}");
    assert_eq!(total("plasma_requests_total{kind=\"pull\",ok=\"false\"}"), 1.0);
    assert_eq!(total("plasma_mutations_total{status=\"applied\"}"), 1.0);
    assert_eq!(total("plasma_mutations_total{status=\"duplicate\"}"), 1.0);
    assert_eq!(total("plasma_pull_rows_total"), 1.0);
    assert_eq!(total("plasma_pokes_total"), 1.0);
    assert_eq!(total("plasma_version"), 2.0);
    assert_eq!(total("plasma_errors_total{kind=\"mutation-error\"}"), 1.0);
    assert_eq!((total("plasma_connections{kind=\"sse\"}"), total("plasma_connections{kind=\"ws\"}")), (1.0, 0.0));
    assert_eq!(total("plasma_request_seconds_count{kind=\"push\"}"), total("plasma_request_seconds_bucket{kind=\"push\",le=\"+Inf\"}"));
    assert!(!text.contains("slots"));
}

/// A sample of Prometheus' text: its name, its labels, its value.
fn sample(line: &str) -> (&str, BTreeMap<String, String>, f64) {
    let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
    let (name, labels) = series.split_once('{').map_or((series, ""), |(name, labels)| (name, labels.strip_suffix('}').unwrap()));
    let label = |label: &str| {
        let (name, value) = label.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
        (name.to_owned(), value.strip_suffix('"').unwrap().to_owned())
    };
    (name, labels.split(',').filter(|label| !label.is_empty()).map(label).collect(), value.parse().unwrap())
}

#[test]
fn durations_are_a_histogram_of_prometheus() {
    let server = Server::new();
    server.push("tok-alice", "g", "c", 1, &[inc("k")]);
    for _ in 0..3 {
        server.pull("tok-alice", "g", &Json::Null);
    }
    let text = server.get("/admin/metrics", "admin-secret").text();
    let mut families = BTreeMap::<&str, (&str, Vec<_>)>::new();
    let mut family = "";
    for line in text.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').unwrap();
            assert!(families.insert(name, (kind, Vec::new())).is_none(), "{name} is declared twice");
            family = name;
        } else {
            let sample = sample(line);
            let suffix = sample.0.strip_prefix(family).unwrap_or_else(|| panic!("{line} is not of {family}"));
            let expected: &[&str] = if families[family].0 == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(expected.contains(&suffix), "{line}");
            assert!(!sample.1.contains_key("mount"), "{line}");
            families.get_mut(family).unwrap().1.push(sample);
        }
    }
    let (kind, samples) = &families["plasma_request_seconds"];
    assert_eq!(*kind, "histogram");
    // By the labels other than `le`: buckets, sums, counts.
    let mut series = BTreeMap::<_, [Vec<(Option<String>, f64)>; 3]>::new();
    for (name, labels, value) in samples {
        let mut labels = labels.clone();
        let le = labels.remove("le");
        let place = ["_bucket", "_sum", "_count"].iter().position(|suffix| name.ends_with(suffix)).unwrap();
        series.entry(labels).or_default()[place].push((le, *value));
    }
    let kinds: Vec<_> = series.keys().map(|labels| labels["kind"].as_str()).collect();
    assert_eq!(kinds, ["pull", "push"]);
    for (labels, [buckets, sums, counts]) in &series {
        assert_eq!((sums.len(), counts.len()), (1, 1), "{labels:?}");
        let bound = |(le, _): &(Option<String>, f64)| le.as_ref().unwrap().parse::<f64>().unwrap();
        assert!(buckets.windows(2).all(|pair| bound(&pair[0]) < bound(&pair[1]) && pair[0].1 <= pair[1].1), "{buckets:?}");
        assert_eq!((bound(buckets.last().unwrap()), buckets.last().unwrap().1), (f64::INFINITY, counts[0].1));
        assert!(sums[0].1 > 0.0 && sums[0].1.is_finite());
    }
    assert_eq!(series.values().map(|[_, _, counts]| counts[0].1).collect::<Vec<_>>(), [3.0, 1.0]);
}

#[test]
fn jobs_are_put_down_at_the_start_and_after_each_run() {
    let server = Server::with(json!({"changeLog": {"keepVersions": 1, "compactEveryMs": 60_000}}));
    assert_eq!(server.host.pubsub.jobs.borrow().keys().collect::<Vec<_>>(), ["blobs", "compaction", "expiry"]);
    for number in 1..=5 {
        server.push("tok-alice", "g", "c", number, &[inc("k")]);
    }
    server.host.pubsub.jobs.borrow_mut().clear();
    let mut cursor = None;
    loop {
        cursor = server.mount().fire(server.imports(), "compaction", Vec::new(), cursor);
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(server.host.pubsub.jobs.borrow().get("compaction"), Some(&1_060_000));
    assert_eq!(server.pull("tok-alice", "g", &json!(2))["reset"], true);
    server.host.now_ms.set(1_000_000 + 31 * 24 * 3_600_000);
    while server.mount().fire(server.imports(), "expiry", Vec::new(), None).is_some() {}
    assert_eq!(server.post("/pull", "tok-alice", &pull_body("g", &json!(5))).json(), json!({"error": "ClientStateNotFound"}));
    server.host.fail(crate::test_host::Fault::Begin, crate::imports::SqlError::Unavailable("gone".into()));
    server.host.pubsub.jobs.borrow_mut().clear();
    assert_eq!(server.mount().fire(server.imports(), "compaction", Vec::new(), None), None);
    assert!(server.host.pubsub.jobs.borrow().contains_key("compaction"), "it is tried again");
}
