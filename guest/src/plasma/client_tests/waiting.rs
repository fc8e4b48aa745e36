//! Pulls that wait.

use serde_json::{Value as Json, json};

use super::support::*;

fn waiting(cookie: &Json, wait: &str) -> Ask {
    Ask::post(&format!("/sync/pull?wait={wait}"), &pull_body("g", cookie)).token("tok-bob")
}

#[test]
fn a_pull_waits_until_there_is_something_for_its_client() {
    let server = Server::new();
    let first = server.ask_waiting(&waiting(&Json::Null, "5000")).unwrap_or_else(|_| panic!("a first load is something new"));
    assert_eq!(first.json()["cookie"], 0);
    let Err(parked) = server.ask_waiting(&waiting(&json!(0), "5000")) else { panic!("nothing is new") };
    assert_eq!(parked.timeout_ms, 5000);
    assert!(server.host.pubsub.subscriptions.borrow().keys().any(|(id, topic)| *id == parked.id && topic == "plasma/v/sse"));
    // An acknowledgement for somebody else is nothing for bob.
    server.push("tok-alice", "h", "c", 1, &[("writeThenFail", json!({"id": "t"}))]);
    let Err(parked) = server.resume(parked) else { panic!("nothing is there to be seen") };
    server.push("tok-alice", "h", "c", 2, &[inc("k")]);
    let reply = server.resume(parked).unwrap_or_else(|_| panic!("something is new"));
    assert_eq!((reply.status, reply.json()["cookie"].clone()), (200, json!(2)));
    assert_eq!(reply.json()["patch"][0]["key"], "counters/k");
}

/// What has been published on a topic to which a request that waits is subscribed.
fn is_woken(server: &Server, parked: &Waiting) -> bool {
    let published = server.host.pubsub.published.borrow();
    let subscriptions = server.host.pubsub.subscriptions.borrow();
    published.iter().any(|publication| subscriptions.contains_key(&(parked.id, publication.topic.clone())))
}

/// Does something on the admin surface, and tells whether it wakes a pull.
fn wakes(server: &Server, parked: &Waiting, name: &str, body: &Json) -> bool {
    let request = Ask::post(&format!("/sync/admin/{name}"), body).token("admin-secret");
    let reply = server.ask_waiting(&request).unwrap_or_else(|_| panic!("{name} waits for nothing"));
    assert_eq!(reply.status, 200, "{reply:?}");
    let woken = is_woken(server, parked);
    server.settle();
    woken
}

#[test]
fn a_pull_that_waits_ends_when_its_user_is_revoked() {
    for poke in [json!({}), json!(false)] {
        let server = Server::with(json!({ "poke": poke }));
        server.pull("tok-bob", "g", &Json::Null);
        let Err(parked) = server.ask_waiting(&waiting(&json!(0), "5000")) else { panic!("nothing is new") };
        assert!(!wakes(&server, &parked, "revoke", &json!({"userId": "alice"})));
        let Err(parked) = server.resume(parked) else { panic!("that was somebody else") };
        assert!(wakes(&server, &parked, "revoke", &json!({"userId": "bob"})));
        let reply = server.resume(parked).unwrap_or_else(|_| panic!("it ends"));
        assert_eq!((reply.status, &reply.json()["error"]), (401, &json!("unauthorized")));
        assert_eq!(reply.header("www-authenticate"), "Bearer");
        // What is presented afterwards is judged anew, and holds until it is revoked again.
        let Err(parked) = server.ask_waiting(&waiting(&json!(0), "5000")) else { panic!("nothing is new") };
        let Err(parked) = server.resume(parked) else { panic!("it was not revoked since") };
        server.post("/admin/revoke", "admin-secret", &json!({"userId": "bob"}));
        assert_eq!(server.resume(parked).ok().map(|reply| reply.status), Some(401));
    }
}

#[test]
fn a_pull_that_waits_learns_that_its_client_group_is_forgotten() {
    let server = Server::new();
    server.pull("tok-bob", "g", &Json::Null);
    server.pull("tok-bob", "h", &Json::Null);
    let Err(parked) = server.ask_waiting(&waiting(&json!(0), "5000")) else { panic!("nothing is new") };
    assert!(!wakes(&server, &parked, "forget", &json!({"clientGroupID": "h"})));
    assert!(wakes(&server, &parked, "forget", &json!({"clientGroupID": "g"})));
    let reply = server.resume(parked).unwrap_or_else(|_| panic!("it ends"));
    assert_eq!((reply.status, reply.json()), (200, json!({"error": "ClientStateNotFound"})));
}

#[test]
fn a_pull_waits_no_longer_than_it_may() {
    let server = Server::new();
    server.pull("tok-bob", "g", &Json::Null);
    let Err(parked) = server.ask_waiting(&waiting(&json!(0), "5000")) else { panic!("nothing is new") };
    server.host.now_ms.set(server.host.now_ms.get() + 5000);
    let reply = server.resume(parked).unwrap_or_else(|_| panic!("its time is up"));
    assert_eq!(reply.json(), json!({"cookie": 0, "hasMore": false, "lastMutationIDChanges": {}, "patch": [], "reset": false}));
    assert!(server.ask_waiting(&waiting(&json!(0), "0")).is_ok());
    let Err(long) = server.ask_waiting(&waiting(&json!(0), "99999999999999999999999")) else { panic!("nothing is new") };
    assert_eq!(long.timeout_ms, 60_000);
    for wrong in ["-1", "x", "1.5", ""] {
        assert_eq!(server.ask_waiting(&waiting(&json!(0), wrong)).ok().unwrap().status, 400, "{wrong}");
    }
    let off = Server::with(json!({"poke": false, "sequencer": {"pollMs": 700}}));
    off.pull("tok-bob", "g", &Json::Null);
    let Err(parked) = off.ask_waiting(&waiting(&json!(0), "5000")) else { panic!("nothing is new") };
    assert_eq!(parked.timeout_ms, 700, "nobody tells it: it looks now and then");
}
