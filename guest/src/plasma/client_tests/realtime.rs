//! Section 8: events, sockets, changes.

use serde_json::{Value as Json, json};

use super::support::*;
use crate::encoding::base64url;
use crate::plasma::Plasma;
use crate::registry::Alarm;
use crate::registry::Protocol as _;

fn poke(version: u64) -> (String, Option<String>, Json) {
    ("poke".into(), Some(version.to_string()), json!({"cookie": version}))
}

#[test]
fn a_stream_says_hello_and_then_pokes() {
    let server = Server::new();
    server.push("tok-alice", "g", "c", 1, &[inc("k")]);
    let bob = server.stream("/sync/poke?auth=tok-bob", &[]).ok().unwrap();
    assert_eq!(bob.frames(), ["retry: 2000\nid: 1\nevent: hello\ndata: {\"cookie\":1,\"pingIntervalMs\":25000}\n\n"]);
    server.push("tok-alice", "g", "c", 2, &[inc("k"), inc("k")]);
    assert_eq!(bob.frames(), ["id: 3\nevent: poke\ndata: {\"cookie\":3}\n\n"], "one for a push");
    server.push("tok-alice", "g", "c", 2, &[inc("k"), inc("k")]);
    assert_eq!(bob.frames(), [""; 0], "duplicates are nothing new");
    server.push("tok-alice", "g", "c", 4, &[("writeThenFail", json!({"id": "x"}))]);
    assert_eq!(bob.events(), [poke(4)], "an acknowledgement is something new");
    let ops = json!({"as": null, "ops": [{"insert": {"table": "counters", "row": {"id": "z"}}}]});
    assert_eq!(server.post("/admin/db", "admin-secret", &ops).status, 200);
    assert_eq!(bob.events(), [poke(5)]);
}

#[test]
fn whoever_asks_what_was_missed_is_told_of_the_present_on_every_topic() {
    let server = Server::new();
    let asked = |after: u64| {
        let told = server.mount().refill(server.imports(), "plasma/v/live", "v", after);
        told.into_iter().map(|told| (told.topic, told.order.map(|order| (order.after, order.sequence)))).collect::<Vec<_>>()
    };
    assert_eq!(asked(0), [], "there is nothing yet");
    let bob = server.stream("/sync/poke?auth=tok-bob", &[]).ok().unwrap();
    server.push("tok-alice", "g", "c", 1, &[inc("k"), inc("k")]);
    assert_eq!(bob.events().last(), Some(&poke(2)));
    assert_eq!(asked(2), []);
    let order = Some((1, 2));
    let told = ["live", "sse", "ws", "changes"].map(|name| (format!("plasma/v/{name}"), order));
    assert_eq!(asked(1), told);
    assert_eq!(asked(0), told);
    let plan_with = |changes: Json| Plasma.check(&fixture(changes).to_string()).unwrap();
    let watch = plan_with(json!({})).watch.expect("it is watched");
    assert_eq!((watch.key.as_str(), watch.interval_ms), ("v", 1000));
    assert_eq!(watch.topics, told.map(|(topic, _)| topic));
    assert!(plan_with(json!({"poke": false})).watch.is_none(), "nobody can listen");
    let unpoked = Server::with(json!({"onPushed": {"poke": false}}));
    unpoked.push("tok-alice", "g", "c", 1, &[inc("k")]);
    let told = unpoked.mount().refill(unpoked.imports(), "plasma/v/live", "v", 0);
    assert_eq!(told.iter().map(|told| told.topic.as_str()).collect::<Vec<_>>(), ["plasma/v/live"], "live queries are no pokes");
    assert!(server.mount().refill(server.imports(), "plasma/cg/sse/g", "other", 0).is_empty());
}

#[test]
fn who_comes_back_is_told_what_it_missed() {
    let server = Server::new();
    server.push("tok-alice", "g", "c", 1, &[inc("k"), inc("k")]);
    let back = |id: &str| server.stream("/sync/poke?auth=tok-bob", &[("last-event-id", id)]).ok().unwrap().events();
    assert_eq!(back("1")[1..], [poke(2)]);
    assert_eq!(back("9")[1..], [poke(2)], "the server went back to older data");
    for nothing in ["2", "", "x"] {
        assert_eq!(back(nothing).len(), 1, "{nothing}");
    }
}

#[test]
fn a_connection_listens_before_it_reads_so_nothing_falls_between() {
    let server = Server::new();
    server.host.steps.borrow_mut().clear();
    server.stream("/sync/poke?auth=tok-bob&clientGroupID=g", &[]).ok().unwrap();
    let steps = server.host.steps.borrow().clone();
    let last_read = steps.iter().rposition(|step| step == "read").unwrap();
    let subscribed: Vec<_> = steps.iter().enumerate().filter(|(_, step)| step.starts_with("subscribe ")).collect();
    assert_eq!(subscribed.len(), 3);
    assert!(subscribed.iter().all(|(index, _)| *index < last_read), "{steps:?}");
}

#[test]
fn a_socket_speaks_json() {
    let server = Server::new();
    let (alice, _) = server.socket("/sync/ws?clientGroupID=g", &[("authorization", "Bearer tok-alice")]).ok().unwrap();
    assert_eq!(alice.messages(), [json!({"type": "hello", "protocolVersion": 1, "cookie": 0, "pingIntervalMs": 25000})]);
    alice.send("{\"type\":\"ping\"}");
    server.push("tok-alice", "g", "c", 1, &[inc("k")]);
    assert_eq!(alice.messages(), [json!({"type": "pong"}), json!({"type": "poke", "cookie": 1})]);
    alice.send("{\"type\":\"dance\"}");
    assert_eq!(alice.messages(), [json!({"type": "error", "error": "invalid-request", "reason": "unknown type"})]);
    alice.send("{\"type\":\"live.start\",\"id\":\"q\",\"query\":{}}");
    assert_eq!(alice.messages()[0]["type"], "live.error");
    assert_eq!(alice.close_code(), None);
}

#[test]
fn a_bad_message_closes_the_socket() {
    let server = Server::new();
    for text in ["not json", "[]", "{}", "{\"type\":1}", "null", ""] {
        let (peer, _) = server.socket("/sync/ws?auth=tok-alice", &[]).ok().unwrap();
        peer.send(text);
        assert_eq!(peer.close_code(), Some(4400), "{text}");
    }
    let (peer, _) = server.socket("/sync/ws?auth=tok-alice", &[]).ok().unwrap();
    peer.send_binary(b"{\"type\":\"ping\"}");
    assert_eq!(peer.close_code(), Some(4400));
}

#[test]
fn upgrades_are_refused_before_they_happen() {
    let server = Server::new();
    let status = |url: &str| server.socket(url, &[]).err().map(|reply| reply.status);
    assert_eq!(status("/sync/ws"), Some(401));
    assert_eq!(status("/sync/poke?auth=tok-alice"), Some(404));
    assert_eq!(status("/sync/nope?auth=tok-alice"), Some(404));
    assert_eq!(status("/sync/ws?auth=tok-alice&clientGroupID="), Some(400));
    assert_eq!(server.get("/ws", "tok-alice").status, 400, "no handshake");
    let off = Server::with(json!({"poke": false}));
    assert_eq!(off.socket("/sync/ws?auth=tok-alice", &[]).err().unwrap().status, 404);
    assert_eq!(off.get("/poke", "tok-alice").status, 404);
    assert_eq!(off.push("tok-alice", "g", "c", 1, &[inc("k")]).status, 200);
    assert!(off.host.pubsub.published.borrow().is_empty());
    assert_eq!(off.pull("tok-bob", "h", &Json::Null)["patch"][1]["key"], "counters/k", "pulling is enough");
}

/// Fills the tables for two pages of `maxPullPageSize` 2.
fn paged(server: &Server) {
    for number in 1..=4 {
        server.push("tok-alice", "w", "c", number, &[todo(&format!("t{number}"), "x")]);
    }
}

#[test]
fn a_next_page_is_announced_to_the_group_or_to_those_without_one() {
    let server = Server::with(json!({"maxPullPageSize": 2}));
    paged(&server);
    let more = ("poke".to_owned(), None, json!({"cookie": 2, "hasMore": true}));
    let lonely = server.stream("/sync/poke?auth=tok-bob", &[]).ok().unwrap();
    let other_group = server.stream("/sync/poke?auth=tok-bob&clientGroupID=h", &[]).ok().unwrap();
    let other_user = server.stream("/sync/poke?auth=tok-alice", &[]).ok().unwrap();
    for peer in [&lonely, &other_group, &other_user] {
        peer.frames();
    }
    let first = server.pull("tok-bob", "g", &Json::Null);
    assert_eq!(first["hasMore"], true);
    assert_eq!(lonely.events(), [more]);
    let (named, _) = server.socket("/sync/ws?auth=tok-bob&clientGroupID=g", &[]).ok().unwrap();
    named.frames();
    server.pull("tok-bob", "g", &Json::Null);
    assert_eq!(named.messages(), [json!({"type": "poke", "cookie": 2, "hasMore": true})]);
    assert!(lonely.frames().is_empty() && other_group.frames().is_empty() && other_user.frames().is_empty());
    let mut native = pull_body("g", &Json::Null);
    native.as_object_mut().unwrap().remove("pullVersion");
    native["protocolVersion"] = json!(1);
    assert_eq!(server.post("/pull", "tok-bob", &native).json()["hasMore"], true);
    assert!(named.frames().is_empty(), "a native client looks at hasMore");
}

#[test]
fn changes_come_as_patches_that_fit_onto_one_another() {
    let server = Server::with(json!({"maxPullPageSize": 2}));
    paged(&server);
    let peer = server.stream("/sync/poke?auth=tok-bob&clientGroupID=g&mode=data", &[]).ok().unwrap();
    peer.drain();
    let mut cookie = Json::Null;
    let mut keys = Vec::new();
    let mut follow = |events: Vec<(String, Option<String>, Json)>| {
        for (name, id, data) in events.into_iter().filter(|(name, ..)| name != "hello") {
            assert_eq!((name.as_str(), &data["baseCookie"]), ("patch", &cookie));
            cookie = data["pullResponse"]["cookie"].clone();
            assert_eq!(serde_json::from_str::<Json>(&id.unwrap()).unwrap(), cookie);
            keys.extend(data["pullResponse"]["patch"].as_array().unwrap().iter().filter_map(|op| op["key"].as_str().map(str::to_owned)));
        }
        cookie.clone()
    };
    assert_eq!(follow(peer.events()), json!(4));
    server.push("tok-alice", "w", "c", 5, &[todo("t5", "x"), todo("t6", "x")]);
    assert_eq!(follow(peer.events()), json!(6));
    server.push("tok-alice", "w", "c", 7, &[inc("k")]);
    peer.drain();
    assert_eq!(follow(peer.events()), json!(7));
    assert_eq!(keys, ["todos/t1", "todos/t2", "todos/t3", "todos/t4", "todos/t5", "todos/t6", "counters/k"]);
    peer.wake();
    assert!(peer.frames().is_empty(), "nothing is new");
}

#[test]
fn a_stream_of_changes_begins_where_its_client_is() {
    let server = Server::new();
    paged(&server);
    server.pull("tok-bob", "g", &Json::Null);
    let from = |query: &str, headers: &[(&str, &str)]| {
        let url = format!("/sync/poke?auth=tok-bob&clientGroupID=g&mode=data{query}");
        server
            .stream(&url, headers)
            .map(|peer| peer.events().into_iter().skip(1).map(|(_, _, data)| data["baseCookie"].clone()).collect::<Vec<_>>())
    };
    assert_eq!(from("&cookie=3", &[]).unwrap(), [json!(3)]);
    assert_eq!(from("&cookie=3", &[("last-event-id", "2")]).unwrap(), [json!(2)], "it comes back");
    assert!(from("&cookie=4", &[]).unwrap().is_empty());
    for wrong in ["&cookie=x", "&cookie=-1"] {
        assert_eq!(from(wrong, &[]).err().unwrap().status, 400);
    }
    let status = |url: &str| server.stream(url, &[]).err().unwrap().status;
    assert_eq!(status("/sync/poke?auth=tok-bob&mode=data"), 400);
    assert_eq!(status("/sync/poke?auth=tok-bob&mode=all"), 400);
    let off = Server::with(json!({"poke": {"dataMode": false}}));
    assert_eq!(off.stream("/sync/poke?auth=tok-bob&mode=data&clientGroupID=g", &[]).err().unwrap().status, 400);
}

#[test]
fn lost_state_ends_a_stream_of_changes_with_a_word() {
    let server = Server::new();
    server.pull("tok-bob", "g", &Json::Null);
    let peer = server.stream("/sync/poke?auth=tok-bob&clientGroupID=g&mode=data&cookie=0", &[]).ok().unwrap();
    let hint = server.stream("/sync/poke?auth=tok-bob&clientGroupID=g", &[]).ok().unwrap();
    peer.frames();
    hint.frames();
    let reply = server.post("/admin/forget", "admin-secret", &json!({"clientGroupID": "g"}));
    assert_eq!(reply.json(), json!({"ok": true, "forgotten": true}));
    assert_eq!(peer.events(), [("reset".to_owned(), None, json!({"error": "ClientStateNotFound"}))]);
    assert!(peer.close_code().is_some());
    assert_eq!(hint.events(), [poke(0)], "it pulls and learns of it");
    assert_eq!(server.post("/pull", "tok-bob", &pull_body("g", &json!(0))).json(), json!({"error": "ClientStateNotFound"}));
}

#[test]
fn connections_end_with_their_credentials() {
    let secret = json!({"mode": "jwt", "alg": "HS256", "key": "s", "leewayMs": 0});
    let server = Server::with(json!({"auth": secret}));
    let message = format!("{}.{}", base64url(r#"{"alg":"HS256"}"#), base64url(r#"{"sub":"alice","exp":1060}"#));
    let token = {
        use hmac::{Hmac, KeyInit as _, Mac as _};
        let mac = Hmac::<sha2::Sha256>::new_from_slice(b"s").unwrap().chain_update(&message).finalize().into_bytes();
        format!("{message}.{}", base64url(mac))
    };
    let stream = server.stream(&format!("/sync/poke?auth={token}"), &[]).ok().unwrap();
    let (socket, _) = server.socket(&format!("/sync/ws?auth={token}"), &[]).ok().unwrap();
    let changes = server.stream(&format!("/sync/poke?auth={token}&mode=data&clientGroupID=g"), &[]).ok().unwrap();
    assert_eq!((stream.alarm_ms(), socket.alarm_ms(), changes.alarm_ms()), (Some(60_000), Some(60_000), Some(10_000)));
    server.host.now_ms.set(1_060_000);
    for peer in [&stream, &changes] {
        peer.frames();
        peer.wake();
        assert_eq!(peer.events(), [("error".to_owned(), None, json!({"error": "unauthorized"}))]);
        assert_eq!(peer.close_code(), Some(4401));
    }
    socket.frames();
    socket.wake();
    assert_eq!((socket.close_code(), socket.frames().len()), (Some(4401), 0));
    assert_eq!(server.get("/poke", &token).status, 401);
}

#[test]
fn a_revoked_user_is_cut_off_and_others_stay() {
    let server = Server::new();
    let (alice, _) = server.socket("/sync/ws?auth=tok-alice", &[]).ok().unwrap();
    let stream = server.stream("/sync/poke?auth=tok-alice", &[]).ok().unwrap();
    let changes = server.stream("/sync/poke?auth=tok-alice&mode=data&clientGroupID=g", &[]).ok().unwrap();
    let (bob, _) = server.socket("/sync/ws?auth=tok-bob", &[]).ok().unwrap();
    alice.frames();
    for peer in [&stream, &changes] {
        peer.frames();
    }
    assert_eq!(server.post("/admin/revoke", "admin-secret", &json!({"userId": "alice"})).json(), json!({"ok": true}));
    assert_eq!((alice.close_code(), stream.close_code(), bob.close_code()), (Some(4401), Some(4401), None));
    assert!(alice.frames().is_empty(), "the code says it");
    for peer in [&stream, &changes] {
        assert_eq!(peer.events(), [("error".to_owned(), None, json!({"error": "unauthorized"}))], "a stream has no code");
        assert_eq!(peer.close_code(), Some(4401));
    }
}

#[test]
fn a_user_has_so_many_connections_and_no_more() {
    let server = Server::with(json!({"poke": {"maxConnectionsPerUser": 2}}));
    let (first, _) = server.socket("/sync/ws?auth=tok-alice", &[]).ok().unwrap();
    let _second = server.stream("/sync/poke?auth=tok-alice", &[]).ok().unwrap();
    let reply = server.stream("/sync/poke?auth=tok-alice", &[]).err().unwrap();
    assert_eq!((reply.status, reply.json()), (403, json!({"error": "forbidden", "reason": "too-many-connections"})));
    assert!(server.stream("/sync/poke?auth=tok-bob", &[]).is_ok());
    first.send("nonsense");
    assert!(server.stream("/sync/poke?auth=tok-alice", &[]).is_ok());
}

#[test]
fn coalesced_pokes_keep_their_distance_and_the_last_one_arrives() {
    let server = Server::with(json!({"poke": {"coalesceMs": 500}}));
    let stream = server.stream("/sync/poke?auth=tok-bob", &[]).ok().unwrap();
    let (socket, _) = server.socket("/sync/ws?auth=tok-bob", &[]).ok().unwrap();
    stream.frames();
    socket.frames();
    for number in 1..=5 {
        server.push("tok-alice", "g", "c", number, &[inc("k")]);
    }
    assert_eq!(stream.events(), [poke(1)], "the first at once, the others wait");
    assert_eq!(socket.messages(), [json!({"type": "poke", "cookie": 1})]);
    assert_eq!(stream.alarm_ms(), Some(500));
    stream.wake();
    assert_eq!(stream.events(), [poke(5)]);
    stream.wake();
    assert_eq!((stream.events().len(), stream.alarm_ms()), (0, Some(500)), "it looks once more");
    stream.wake();
    assert_eq!((stream.events().len(), stream.alarm_ms()), (0, None));
    server.push("tok-alice", "g", "c", 6, &[inc("k")]);
    assert_eq!(stream.events(), [poke(6)]);
}

#[test]
fn a_connection_of_another_version_is_asked_to_come_back() {
    let server = Server::new();
    let connection = crate::registry::Connection { id: 9, attachment: b"q7{}".to_vec(), cursors: Vec::new(), failure: None };
    let outcome = server.mount().receive(server.imports(), connection, Vec::new());
    assert_eq!(outcome.close.map(|close| close.code), Some(1012));
    assert!(matches!(outcome.alarm, Alarm::Keep));
}
