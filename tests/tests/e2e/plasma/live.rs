//! Live select, the past, and pulls that wait (docs/protocols/plasma.md, sections 7 to 9).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::join_all;
use serde_json::{Value, json};
use syncline_tests::http::Answer;
use syncline_tests::plasma::{Events, Mirror, User, admin, alice, bob, mutation, pull_body};
use syncline_tests::server::TestServer;
use syncline_tests::socket::Socket;
use tokio::task::JoinHandle;

use super::{create_todo, increment, serve};

/// A socket of Bob's that has read its hello.
async fn socket(server: &TestServer) -> Socket {
    let mut socket = Socket::connect(server.address, "/sync/ws?auth=tok-bob").await;
    socket.json_of("hello").await;
    socket
}

async fn start(socket: &mut Socket, id: &str, query: &Value) {
    socket.send(&json!({"type": "live.start", "id": id, "query": query})).await;
}

/// The next message that is about a live query.
async fn next_live(socket: &mut Socket) -> Value {
    loop {
        let message = socket.json().await;
        if message["type"] != "poke" {
            return message;
        }
    }
}

async fn query(user: User, path: &str, query: &Value, rest: Value) -> Value {
    let mut body = json!({"protocolVersion": 1, "schemaVersion": "7", "query": query});
    body.as_object_mut().expect("an object").extend(rest.as_object().expect("an object").clone());
    let answer = user.post(path, &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn ranked() -> Value {
    json!({"from": "todos", "select": ["id", "title", "rank"], "orderBy": [["rank", "desc"]], "limit": 5})
}

#[tokio::test]
async fn a_live_query_is_told_what_changed() {
    let server = serve().await;
    let user = alice(server.address);
    let mut socket = socket(&server).await;
    start(&mut socket, "q", &json!({"from": "todos", "select": ["id", "title"]})).await;
    assert_eq!(next_live(&mut socket).await, json!({"type": "live.rows", "id": "q", "version": 0, "rows": []}));
    user.push("g", &[create_todo("c", 1, "a", true)]).await;
    let diff = json!({"type": "live.diff", "id": "q", "version": 1, "put": [{"id": "a", "title": "a"}], "del": [], "order": [["a"]]});
    assert_eq!(next_live(&mut socket).await, diff);
    user.push("g", &[increment("c", 2, "k", 1), mutation("c", 3, "setShared", json!({"id": "a", "shared": false}))]).await;
    assert_eq!(next_live(&mut socket).await, json!({"type": "live.diff", "id": "q", "version": 3, "put": [], "del": [["a"]], "order": []}));
    socket.send(&json!({"type": "live.stop", "id": "q"})).await;
    assert_eq!(next_live(&mut socket).await, json!({"type": "live.stopped", "id": "q"}));
}

#[tokio::test]
async fn a_stream_tells_of_a_live_query() {
    let server = serve().await;
    let asked = json!({"query": {"from": "counters", "where": {"op": "=", "left": {"col": "id"}, "right": {"param": "id"}}}, "params": {"id": "k"}});
    let target = format!("/sync/live?auth=tok-bob&q={}", URL_SAFE_NO_PAD.encode(asked.to_string()));
    let mut events = Events::open(server.address, &target, &[]).await;
    assert_eq!(events.next_of("rows").await.json(), json!({"version": 0, "rows": []}));
    alice(server.address).push("g", &[increment("c", 1, "other", 1)]).await;
    alice(server.address).push("g", &[increment("c", 2, "k", 3)]).await;
    let diff = json!({"version": 2, "put": [{"id": "k", "n": 3}], "del": [], "order": [["k"]]});
    assert_eq!(events.next_of("diff").await.json(), diff);
}

/// Reads until the mirror is at a version, or has the rows that are the last ones.
async fn follow(mut socket: Socket, mut mirrors: Vec<(&'static str, Mirror, Vec<Value>)>) -> Socket {
    while mirrors.iter().any(|(_, mirror, rows)| mirror.rows != *rows) {
        let message = next_live(&mut socket).await;
        let (_, mirror, _) = mirrors.iter_mut().find(|(id, ..)| message["id"] == *id).expect("a query of this socket");
        mirror.apply(&message).unwrap_or_else(|broken| panic!("{broken:#}"));
    }
    socket
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_mirrors_are_what_their_queries_give_in_the_end() {
    let server = serve().await;
    let by_owner = json!({"from": "todos", "where": {"op": "=", "left": {"col": "owner"}, "right": {"val": "alice"}}});
    let mut sockets = join_all((0..12).map(|_| socket(&server))).await;
    // Some begin before anything is written, the others in the middle of it.
    let late = sockets.split_off(6);
    let begin = |mut socket: Socket| {
        let by_owner = by_owner.clone();
        async move {
            start(&mut socket, "ranked", &ranked()).await;
            start(&mut socket, "by-owner", &by_owner).await;
            socket
        }
    };
    let early = join_all(sockets.into_iter().map(begin)).await;
    let writers = (0..4_u64).map(|writer| {
        let (user, client) = (alice(server.address), format!("c{writer}"));
        async move {
            for id in 1..=15_u64 {
                let todo = format!("t{writer}-{}", id % 4);
                let write = match id {
                    1..=4 => mutation(&client, id, "createTodo", json!({"id": todo, "title": "x", "rank": id * 7 % 5})),
                    _ if id % 5 == 0 => mutation(&client, id, "deleteTodo", json!({"id": todo})),
                    _ => mutation(&client, id, "putTodo", json!({"id": todo, "title": id.to_string()})),
                };
                user.push(&format!("g{writer}"), &[write]).await;
            }
        }
    });
    let (_, late) = tokio::join!(join_all(writers), join_all(late.into_iter().map(begin)));
    let reader = bob(server.address);
    let rows = |answer: Value| answer["rows"].as_array().expect("rows").clone();
    let (ranked, by_owner) =
        (rows(query(reader, "/query", &ranked(), json!({})).await), rows(query(reader, "/query", &by_owner, json!({})).await));
    let all = early.into_iter().chain(late).map(|socket| {
        let wanted = vec![("ranked", Mirror::new(&["id"]), ranked.clone()), ("by-owner", Mirror::new(&["id"]), by_owner.clone())];
        follow(socket, wanted)
    });
    join_all(all).await;
}

#[tokio::test]
async fn the_past_is_read_as_it_was() {
    let server = serve().await;
    let user = alice(server.address);
    let mut past = Vec::new();
    for id in 1..=12 {
        let (todo, rank) = (format!("t{}", id % 5), id * 3 % 7);
        let name = if id % 4 == 0 { "deleteTodo" } else { "putTodo" };
        user.push("g", &[mutation("c", id, name, json!({"id": todo, "title": rank.to_string()}))]).await;
        past.push(query(user, "/query", &ranked(), json!({})).await);
    }
    for now in past {
        assert_eq!(query(user, "/snapshot", &ranked(), json!({"asOf": {"version": now["version"]}})).await, now);
    }
}

/// A pull of a user that waits.
async fn wait(server: &TestServer, reader: User) -> JoinHandle<Answer> {
    let waiting = tokio::spawn(async move { reader.post("/pull?wait=60000", &pull_body("h", &json!(0))).await });
    // Spin tells nobody who waits: there the story must be the same if the pull comes late.
    let Some(server) = server.in_process() else { return waiting };
    let runtime = server.handle().runtime();
    let waits = || async { (runtime.status().iter().map(|mount| mount.connections).sum::<u64>() == 1).then_some(()) };
    syncline_tests::eventually("the pull waits", waits).await;
    waiting
}

#[tokio::test]
async fn a_pull_that_waits_ends_when_its_user_is_revoked_or_its_client_group_forgotten() {
    let server = serve().await;
    let (reader, admin) = (bob(server.address), admin(server.address));
    reader.pull("h", &Value::Null).await;
    let revoked = wait(&server, reader).await;
    let revoke = || async {
        assert_eq!(admin.post("/admin/revoke", &json!({"userId": "bob"})).await.status, 200);
        revoked.is_finished().then_some(())
    };
    syncline_tests::eventually("the pull ends", revoke).await;
    let answer = revoked.await.expect("it is answered");
    assert_eq!((answer.status, &answer.json()["error"]), (401, &json!("unauthorized")));
    let forgotten = wait(&server, reader).await;
    assert_eq!(admin.post("/admin/forget", &json!({"clientGroupID": "h"})).await.json()["forgotten"], true);
    let answer = forgotten.await.expect("it is answered");
    assert_eq!((answer.status, answer.json()), (200, json!({"error": "ClientStateNotFound"})));
}

#[tokio::test]
async fn a_pull_that_waits_is_answered_when_something_is_new() {
    let server = serve().await;
    let (writer, reader) = (alice(server.address), bob(server.address));
    reader.pull("h", &Value::Null).await;
    let waiting = wait(&server, reader).await;
    writer.push("g", &[increment("c", 1, "k", 1)]).await;
    let answer = waiting.await.expect("it is answered");
    assert_eq!((answer.status, answer.json()["cookie"].clone()), (200, json!(1)));
}
