//! Section 8.4: live select, and section 9: the past.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::support::*;
use crate::contract::exports::syncline::sync::socket::GroupOutcome;
use crate::encoding::base64url;
use crate::imports::{Mode, Publication};
use crate::registry::Group;

/// The rows of a live query as a client keeps them.
#[derive(Default)]
struct Mirror {
    rows: Vec<Json>,
    key: Vec<&'static str>,
}

impl Mirror {
    fn of(key: &[&'static str]) -> Self {
        Self { key: key.to_vec(), ..Self::default() }
    }

    fn key_of(&self, row: &Json) -> Json {
        self.key.iter().map(|column| row[column].clone()).collect()
    }

    fn apply(&mut self, message: &Json) {
        match message["type"].as_str().unwrap() {
            "live.rows" => self.rows = message["rows"].as_array().unwrap().clone(),
            "live.diff" => {
                let list = |name: &str| message[name].as_array().unwrap().clone();
                let before = std::mem::take(&mut self.rows);
                let mut by_key: BTreeMap<String, Json> = before.into_iter().map(|row| (self.key_of(&row).to_string(), row)).collect();
                for key in list("del") {
                    assert!(by_key.remove(&key.to_string()).is_some(), "{key} was not there");
                }
                for row in list("put") {
                    by_key.insert(self.key_of(&row).to_string(), row);
                }
                self.rows = list("order").iter().map(|key| by_key[&key.to_string()].clone()).collect();
                assert_eq!(self.rows.len(), by_key.len(), "all that is left has its place");
            }
            other => panic!("{other}: {message}"),
        }
    }
}

fn start(id: &str, query: &Json) -> String {
    json!({"type": "live.start", "id": id, "query": query}).to_string()
}

/// A socket whose hello was read.
fn socket<'a>(server: &'a Server, token: &str) -> Peer<'a> {
    let (peer, _) = server.socket(&format!("/sync/ws?auth={token}"), &[]).ok().unwrap();
    peer.frames();
    peer
}

/// What has come beside pokes.
fn live(peer: &Peer<'_>) -> Vec<Json> {
    peer.messages().into_iter().filter(|message| message["type"] != "poke").collect()
}

fn by_owner(owner: &str) -> Json {
    json!({"from": "todos", "where": {"op": "=", "left": {"col": "owner"}, "right": {"val": owner}}, "orderBy": [["rank", "asc"]]})
}

fn ask(server: &Server, path: &str, token: &str, query: &Json, rest: Json) -> Reply {
    let mut body = json!({"protocolVersion": 1, "schemaVersion": "7", "query": query});
    body.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    server.post(path, token, &body)
}

#[test]
fn a_result_comes_whole_and_then_what_changed_of_it() {
    let server = Server::new();
    server.push("tok-alice", "g", "c", 1, &[todo("a", "first")]);
    let bob = socket(&server, "tok-bob");
    bob.send(&start("q", &by_owner("alice")));
    let rows = live(&bob);
    assert_eq!((rows.len(), &rows[0]["type"], &rows[0]["id"], &rows[0]["version"]), (1, &json!("live.rows"), &json!("q"), &json!(1)));
    assert_eq!(rows[0]["rows"][0]["title"], "first");
    let before = json!({"id": "b", "title": "x", "rank": -1});
    server.push("tok-alice", "g", "c", 2, &[("createTodo", before), ("setTitle", json!({"id": "a", "title": "second"}))]);
    let diff = live(&bob);
    assert_eq!((&diff[0]["type"], &diff[0]["version"], &diff[0]["del"]), (&json!("live.diff"), &json!(3), &json!([])));
    assert_eq!(diff[0]["order"], json!([["b"], ["a"]]));
    assert_eq!(diff[0]["put"].as_array().unwrap().len(), 2);
    server.push("tok-alice", "g", "c", 4, &[("deleteTodo", json!({"id": "b"}))]);
    assert_eq!(live(&bob), [json!({"type": "live.diff", "id": "q", "version": 4, "put": [], "del": [["b"]], "order": [["a"]]})]);
    server.push("tok-bob", "h", "d", 1, &[todo("of-bob", "x"), inc("k")]);
    server.push("tok-alice", "g", "c", 5, &[("setTitle", json!({"id": "a", "title": "second"}))]);
    assert!(live(&bob).is_empty(), "nothing of it changed");
    bob.send(r#"{"type":"live.stop","id":"q"}"#);
    assert_eq!(live(&bob), [json!({"type": "live.stopped", "id": "q"})]);
    server.push("tok-alice", "g", "c", 6, &[todo("z", "z")]);
    assert!(live(&bob).is_empty());
}

#[test]
fn what_becomes_invisible_is_gone() {
    let server = Server::new();
    let all = json!({"from": "todos"});
    let boards = json!({"from": "boards", "select": ["id", "name"]});
    let join = ("join", json!({"team": "t", "userId": "bob"}));
    server.push("tok-alice", "g", "c", 1, &[todo("a", "x"), ("createBoard", json!({"id": "b", "team": "t", "name": "n"})), join]);
    let bob = socket(&server, "tok-bob");
    bob.send(&start("todos", &all));
    bob.send(&start("boards", &boards));
    // The second start brings the first up to date, which is up to date already.
    let rows = live(&bob);
    assert_eq!(rows.iter().map(|message| message["rows"].as_array().unwrap().len()).collect::<Vec<_>>(), [1, 1]);
    server.push("tok-alice", "g", "c", 4, &[("setShared", json!({"id": "a", "shared": false}))]);
    assert_eq!(live(&bob), [json!({"type": "live.diff", "id": "todos", "version": 4, "put": [], "del": [["a"]], "order": []})]);
    server.push("tok-alice", "g", "c", 5, &[("leave", json!({"team": "t", "userId": "bob"}))]);
    assert_eq!(live(&bob), [json!({"type": "live.diff", "id": "boards", "version": 5, "put": [], "del": [["b"]], "order": []})]);
}

#[test]
fn results_without_keys_come_whole_again() {
    let server = Server::new();
    server.push("tok-alice", "g", "c", 1, &[inc("k")]);
    let bob = socket(&server, "tok-bob");
    bob.send(&start("sum", &json!({"from": "counters", "aggregates": {"total": {"fn": "sum", "col": "n"}}})));
    bob.send(&start("keyless", &json!({"from": "counters", "select": ["n"]})));
    live(&bob);
    server.push("tok-alice", "g", "c", 2, &[inc("k")]);
    let rows = [
        json!({"type": "live.rows", "id": "sum", "version": 2, "rows": [{"total": 2}]}),
        json!({"type": "live.rows", "id": "keyless", "version": 2, "rows": [{"n": 2}]}),
    ];
    assert_eq!(live(&bob), rows);
    server.push("tok-alice", "g", "c", 3, &[("inc", json!({"id": "k", "by": 0}))]);
    assert!(live(&bob).is_empty(), "the same is not sent again");
}

#[test]
fn equal_subscribers_are_served_by_one_run() {
    let server = Server::new();
    let peers: Vec<_> = (0..40).map(|_| socket(&server, "tok-bob")).collect();
    for (number, peer) in peers.iter().enumerate() {
        peer.send(&start(if number % 2 == 0 { "even" } else { "odd" }, &by_owner("alice")));
        peer.send(&start("other", &json!({"from": "counters"})));
    }
    server.push("tok-alice", "g", "c", 1, &[todo("a", "x")]);
    for peer in &peers {
        let frames = live(peer);
        assert_eq!(frames.iter().filter(|frame| frame["type"] == "live.diff").count(), 1, "{frames:?}");
    }
    let groups: Vec<Group> = {
        let subscriptions = server.host.pubsub.subscriptions.borrow();
        let by_cursor = subscriptions.values().filter(|subscription| subscription.mode == Mode::DeliverByCursor);
        by_cursor.map(|subscription| Group { name: subscription.group.clone(), cursor: Some(1) }).collect()
    };
    assert_eq!(groups.len(), 40);
    let publication = |tables: Json| Publication {
        topic: "plasma/v/live".into(),
        message: json!({"version": 1, "tables": tables}).to_string().into_bytes(),
        order: None,
        class: crate::imports::Class::MustDeliver,
        except: None,
        close: None,
    };
    let reads = |groups: &[Group]| {
        server.host.steps.borrow_mut().clear();
        let deliveries = server.mount().deliver(server.imports(), publication(json!(["todos"])), groups.to_vec());
        (deliveries.frames.len(), server.host.steps.borrow().iter().filter(|step| *step == "read").count())
    };
    let (one, all) = (reads(&groups[..1]), reads(&groups));
    assert_eq!((one.0, all.0), (1, 2), "one frame a name");
    assert_eq!(one.1, all.1, "as many reads for forty as for one");
    server.host.steps.borrow_mut().clear();
    let untouched = server.mount().deliver(server.imports(), publication(json!(["notes"])), groups);
    assert!(untouched.outcomes.iter().all(|outcome| matches!(outcome, GroupOutcome::Skip)));
    assert!(!server.host.steps.borrow().iter().any(|step| step == "read"), "other tables are no work");
}

#[test]
fn what_is_wrong_with_a_subscription_is_said_and_ends_it() {
    let server = Server::with(json!({"live": {"maxPerConnection": 2, "maxRows": 2}, "queryPolicy": "named",
        "namedQueries": {"mine": {"from": "todos", "where": {"op": "=", "left": {"col": "owner"}, "right": {"param": "who"}}}, "all": {"from": "todos"}}}));
    let bob = socket(&server, "tok-bob");
    let error = |message: Json| {
        bob.send(&message.to_string());
        let frames = live(&bob);
        assert_eq!((frames.len(), &frames[0]["type"]), (1, &json!("live.error")), "{frames:?}");
        (frames[0]["id"].clone(), frames[0]["error"].as_str().unwrap().to_owned())
    };
    let invalid = |id: Json| (id, "invalid-request".to_owned());
    assert_eq!(error(json!({"type": "live.start", "id": "q", "query": {"from": "todos"}})), (json!("q"), "forbidden".into()));
    assert_eq!(error(json!({"type": "live.start", "id": "q", "query": "nobody"})), invalid(json!("q")));
    assert_eq!(error(json!({"type": "live.start", "id": "q", "query": "mine"})), invalid(json!("q")), "a parameter is missing");
    assert_eq!(error(json!({"type": "live.start", "id": 7, "query": "all"})), invalid(json!(7)));
    assert_eq!(error(json!({"type": "live.start", "id": "q", "query": "all", "params": []})), invalid(json!("q")));
    bob.send(&json!({"type": "live.start", "id": "q", "query": "mine", "params": {"who": "alice"}}).to_string());
    assert_eq!(live(&bob)[0]["rows"], json!([]));
    bob.send(&start("p", &json!("all")));
    live(&bob);
    server.push("tok-alice", "g", "c", 1, &[todo("a", "x"), todo("b", "x"), todo("c", "x")]);
    let ended = live(&bob);
    assert_eq!(
        ended.iter().map(|frame| (frame["type"].as_str().unwrap(), frame["id"].as_str().unwrap())).collect::<Vec<_>>(),
        [("live.error", "q"), ("live.error", "p")]
    );
    server.push("tok-alice", "g", "c", 4, &[todo("d", "x")]);
    assert!(live(&bob).is_empty());
    for id in ["1", "2", "2", "3"] {
        assert_eq!(bob.close_code(), None);
        bob.send(&json!({"type": "live.start", "id": id, "query": "mine", "params": {"who": "nobody"}}).to_string());
    }
    assert_eq!(bob.close_code(), Some(4429));
}

#[test]
fn a_stream_tells_of_one_query() {
    let server = Server::new();
    server.push("tok-alice", "g", "c", 1, &[todo("a", "x")]);
    let url = |asked: &Json| format!("/sync/live?auth=tok-bob&q={}", base64url(asked.to_string()));
    let query =
        json!({"from": "todos", "select": ["id", "title"], "where": {"op": "=", "left": {"col": "owner"}, "right": {"param": "who"}}});
    let peer = server.stream(&url(&json!({"query": query, "params": {"who": "alice"}})), &[]).ok().unwrap();
    assert_eq!(peer.events(), [("rows".to_owned(), None, json!({"version": 1, "rows": [{"id": "a", "title": "x"}]}))]);
    server.push("tok-alice", "g", "c", 2, &[("setTitle", json!({"id": "a", "title": "y"}))]);
    assert_eq!(
        peer.events(),
        [("diff".to_owned(), None, json!({"version": 2, "put": [{"id": "a", "title": "y"}], "del": [], "order": [["a"]]}))]
    );
    for wrong in [
        url(&json!({"query": {"from": "nothing"}})),
        url(&json!([])),
        "/sync/live?auth=tok-bob&q=%%%".into(),
        "/sync/live?auth=tok-bob".into(),
    ] {
        assert_eq!(server.stream(&wrong, &[]).err().unwrap().status, 400, "{wrong}");
    }
    assert_eq!(server.get("/live", "nobody").status, 401);
    assert_eq!(server.post("/admin/revoke", "admin-secret", &json!({"userId": "bob"})).status, 200);
    assert_eq!(peer.close_code(), Some(4401));
}

#[test]
fn the_past_is_refused_where_nobody_knows_it() {
    let server = Server::new();
    server.push("tok-alice", "g", "c", 1, &[todo("a", "x"), ("deleteTodo", json!({"id": "a"})), todo("b", "x")]);
    let query = json!({"from": "todos", "select": ["id"]});
    let at = |as_of: Json| ask(&server, "/snapshot", "tok-bob", &query, json!({ "asOf": as_of }));
    let ids = |version: u64| at(json!({ "version": version })).json();
    assert_eq!(ids(1), json!({"ok": true, "version": 1, "rows": [{"id": "a"}]}));
    assert_eq!(ids(2), json!({"ok": true, "version": 2, "rows": []}));
    assert_eq!(ids(3)["rows"], json!([{"id": "b"}]));
    assert_eq!(at(json!({"timestamp": 1_000_000_000_000_u64})).json()["version"], 3, "the newest one");
    assert_eq!(at(json!({"timestamp": 1})).json(), json!({"ok": true, "version": 0, "rows": []}));
    for wrong in [
        json!({"version": 4}),
        json!({"version": -1}),
        json!({}),
        json!({"version": 1, "timestamp": 1}),
        json!({"version": "1"}),
        Json::Null,
    ] {
        assert_eq!(at(wrong.clone()).status, 400, "{wrong}");
    }
    assert_eq!(server.post("/admin/compact", "admin-secret", &json!({"upToVersion": 2})).status, 200);
    let gone = at(json!({"version": 1}));
    assert_eq!((gone.status, gone.json()), (410, json!({"error": "snapshot-compacted", "minVersion": 2})));
    assert_eq!(ids(2)["rows"], json!([]));
    server.push("tok-alice", "g", "c", 4, &[("deleteTodo", json!({"id": "b"})), ("noop", json!({}))]);
    assert_eq!(server.post("/admin/compact", "admin-secret", &json!({})).status, 200);
    let newest = json!({"ok": true, "version": 5, "rows": []});
    assert_eq!(at(json!({"timestamp": 1_000_000_000_000_u64})).json(), newest, "nothing was written after it");
    let seeded = Server::with(json!({"seed": {"todos": [{"id": "s", "title": "x", "owner": "alice", "rank": 0}]}}));
    let of_seed = |version: u64| ask(&seeded, "/snapshot", "tok-alice", &query, json!({"asOf": {"version": version}})).json();
    assert_eq!((&of_seed(0)["rows"], &of_seed(1)["rows"]), (&json!([]), &json!([{"id": "s"}])), "before the seed there was nothing");
    let off = Server::with(json!({"changeLog": {"beforeImages": false}}));
    off.push("tok-alice", "g", "c", 1, &[todo("a", "x")]);
    off.push("tok-alice", "g", "c", 2, &[("deleteTodo", json!({"id": "a"}))]);
    assert_eq!(ask(&off, "/snapshot", "tok-bob", &query, json!({"asOf": {"version": 1}})).status, 410);
}

/// Queries of all shapes, with the columns of their keys; none: their rows have none.
fn queries() -> Vec<(Json, Option<Vec<&'static str>>)> {
    let counted = json!({"from": "todos", "groupBy": ["owner"], "aggregates": {"n": {"fn": "count"}}, "orderBy": [["owner", "asc"]]});
    let related = json!({"comments": {"orderBy": [["id", "desc"]], "limit": 2}});
    let commented = json!({"exists": {"table": "comments", "where": {"op": "=", "left": {"col": "todoId"}, "right": {"outer": "id"}}}});
    vec![
        (json!({"from": "todos"}), Some(vec!["id"])),
        (by_owner("alice"), Some(vec!["id"])),
        (json!({"from": "todos", "select": ["id", "title"], "orderBy": [["rank", "desc"]], "limit": 2, "offset": 1}), Some(vec!["id"])),
        (json!({"from": "todos", "where": commented}), Some(vec!["id"])),
        (json!({"from": "todos", "related": related}), Some(vec!["id"])),
        (json!({"from": "boards"}), Some(vec!["id"])),
        (json!({"from": "members"}), Some(vec!["team", "userId"])),
        (counted, None),
        (
            json!({"from": "comments", "joins": [{"type": "inner", "table": "todos", "as": "t", "on": [["todoId", "t.id"]]}], "select": ["id", "t.title"]}),
            None,
        ),
        (json!({"from": "todos", "distinct": true, "select": ["owner"]}), None),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Mutate(&'static str, Json),
    /// The live queries of a connection that comes now, by their places.
    Come(usize),
    Stop(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let id = prop::sample::select(vec!["a", "b", "c", "d"]);
    let user = prop::sample::select(vec!["alice", "bob"]);
    let team = prop::sample::select(vec!["s", "t"]);
    prop_oneof![
        3 => (id.clone(), -2_i64..3, any::<bool>()).prop_map(|(id, rank, shared)| Step::Mutate("createTodo", json!({"id": id, "title": "t", "rank": rank, "shared": shared}))),
        2 => (id.clone(), 0_u8..3).prop_map(|(id, title)| Step::Mutate("setTitle", json!({"id": id, "title": title.to_string()}))),
        2 => (id.clone(), any::<bool>()).prop_map(|(id, shared)| Step::Mutate("setShared", json!({"id": id, "shared": shared}))),
        2 => id.clone().prop_map(|id| Step::Mutate("deleteTodo", json!({"id": id}))),
        2 => (id.clone(), 0_u8..6).prop_map(|(id, comment)| Step::Mutate("addComment", json!({"id": comment.to_string(), "todoId": id, "body": "b"}))),
        1 => (team.clone(), user.clone()).prop_map(|(team, user)| Step::Mutate("join", json!({"team": team, "userId": user}))),
        1 => (team.clone(), user).prop_map(|(team, user)| Step::Mutate("leave", json!({"team": team, "userId": user}))),
        1 => (id, team).prop_map(|(id, team)| Step::Mutate("createBoard", json!({"id": id, "team": team, "name": "n"}))),
        1 => (0_usize..10).prop_map(Step::Come),
        1 => (0_usize..10).prop_map(Step::Stop),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever is written, mirrors of live queries are what the queries give, and the past is what it was.
    #[test]
    fn mirrors_are_what_queries_give_and_the_past_is_what_it_was(steps in prop::collection::vec((step(), any::<bool>()), 1..30)) {
        let server = Server::new();
        let bob = socket(&server, "tok-bob");
        let queries = queries();
        let now = |query: &Json| ask(&server, "/query", "tok-bob", query, json!({})).json();
        let mut mirrors: BTreeMap<usize, Mirror> = BTreeMap::new();
        let mut history: Vec<(u64, Vec<Json>)> = Vec::new();
        let mut next = BTreeMap::from([("tok-alice", 1), ("tok-bob", 1)]);
        for (step, of_alice) in steps {
            match step {
                Step::Mutate(name, args) => {
                    let token = if of_alice { "tok-alice" } else { "tok-bob" };
                    let id = next[token];
                    prop_assert_eq!(server.push(token, token, token, id, &[(name, args)]).status, 200);
                    next.insert(token, id + 1);
                }
                Step::Come(place) => {
                    bob.send(&start(&place.to_string(), &queries[place].0));
                    mirrors.insert(place, Mirror::of(queries[place].1.as_deref().unwrap_or_default()));
                }
                Step::Stop(place) => {
                    bob.send(&json!({"type": "live.stop", "id": place.to_string()}).to_string());
                    mirrors.remove(&place);
                }
            }
            for frame in live(&bob) {
                let mirror = mirrors.get_mut(&frame["id"].as_str().unwrap().parse::<usize>().unwrap());
                if let Some(mirror) = mirror.filter(|_| frame["type"] != "live.stopped") {
                    mirror.apply(&frame);
                }
            }
            for (place, mirror) in &mirrors {
                prop_assert_eq!(&json!(mirror.rows), &now(&queries[*place].0)["rows"], "query {}", place);
            }
            let results: Vec<Json> = queries.iter().map(|(query, _)| now(query)).collect();
            history.push((results[0]["version"].as_u64().unwrap(), results.into_iter().map(|result| result["rows"].clone()).collect()));
        }
        for (version, results) in history {
            for ((query, _), rows) in queries.iter().zip(results) {
                let then = ask(&server, "/snapshot", "tok-bob", query, json!({"asOf": {"version": version}})).json();
                prop_assert_eq!(&then["rows"], &rows, "{} at {}", query, version);
            }
        }
    }
}
