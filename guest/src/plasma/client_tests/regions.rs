//! Cookies where several regions write to one database.

use serde_json::{Value as Json, json};

use super::sequencing::{reserving, write_and_close};
use super::support::*;

/// The region `eu` writes a counter, under one version.
fn write_in_eu(server: &Server, id: &str) -> u64 {
    let range = server.post("/admin/reserve", "admin-secret", &json!({"region": "eu", "count": 1})).json();
    assert!(write_and_close(server, &range, id));
    range["last"].as_u64().unwrap()
}

/// Versions 1 and 3 are of `local`, 2 of `eu`.
fn with_two_regions() -> Server {
    let server = reserving();
    server.push("tok-alice", "g", "c", 1, &[inc("a")]);
    assert_eq!(write_in_eu(&server, "b"), 2);
    server.push("tok-alice", "g", "c", 2, &[inc("c")]);
    server
}

fn keys(pulled: &Json) -> Vec<&str> {
    pulled["patch"].as_array().unwrap().iter().filter_map(|op| op["key"].as_str()).collect()
}

#[test]
fn a_number_goes_on_as_a_cookie_of_regions() {
    let server = reserving();
    server.push("tok-alice", "g", "c", 1, &[inc("a")]);
    let number = server.pull("tok-bob", "h", &Json::Null)["cookie"].clone();
    assert_eq!(number, 1);
    write_in_eu(&server, "b");
    server.push("tok-alice", "g", "c", 2, &[inc("c")]);
    let both = server.pull("tok-bob", "h", &number);
    assert_eq!((keys(&both), &both["cookie"]), (vec!["counters/b", "counters/c"], &json!({"order": 5, "r": {"eu": 2, "local": 3}})));
    assert_eq!(write_in_eu(&server, "d"), 4);
    let next = server.pull("tok-bob", "h", &both["cookie"]);
    assert_eq!((keys(&next), &next["cookie"]), (vec!["counters/d"], &json!({"order": 7, "r": {"eu": 4, "local": 3}})));
    // A number from before has lost nothing.
    assert_eq!(keys(&server.pull("tok-bob", "h", &json!(2))), ["counters/c", "counters/d"]);
}

#[test]
fn where_nothing_is_new_the_very_cookie_comes_back_in_both_dialects() {
    let server = with_two_regions();
    let cookie = server.pull("tok-bob", "h", &Json::Null)["cookie"].clone();
    for asked in [cookie, json!(3), json!({"order": 9.5, "r": {"eu": 2, "local": 3, "mars": 0}})] {
        let again = server.pull("tok-bob", "h", &asked);
        assert_eq!((&again["cookie"], keys(&again)), (&asked, Vec::new()));
        let native = json!({"protocolVersion": 1, "schemaVersion": "7", "clientGroupID": "h", "clientID": "d", "cookie": asked});
        assert_eq!(server.post("/pull", "tok-bob", &native).json()["cookie"], asked);
    }
    server.push("tok-alice", "g", "c", 3, &[inc("e")]);
    let native = json!({"protocolVersion": 1, "schemaVersion": "7", "clientGroupID": "h", "clientID": "d", "cookie": 3});
    let native = server.post("/pull", "tok-bob", &native).json();
    assert_eq!((&native["cookie"], &native["patch"][0]["pk"]), (&json!({"order": 6, "r": {"eu": 2, "local": 4}}), &json!(["e"])));
}

#[test]
fn a_load_in_pages_tells_of_regions_and_of_its_place() {
    let server = with_two_regions();
    let hint = server.stream("/sync/poke?auth=tok-bob&clientGroupID=h", &[]).ok().unwrap();
    hint.frames();
    let (mut cookie, mut seen) = (Json::Null, Vec::new());
    loop {
        let body = pull_body("h", &cookie);
        let page = server.post("/pull?limit=1", "tok-bob", &body).json();
        seen.push((page["cookie"].clone(), keys(&page).len()));
        cookie = page["cookie"].clone();
        if page["hasMore"] == false {
            break;
        }
    }
    let page = |order: u64, eu: u64, v: u64| (json!({"order": order, "r": {"eu": eu, "local": v}, "v": v, "s": 3}), 1);
    assert_eq!(seen, [page(2, 1, 1), page(4, 2, 2), (json!({"order": 5, "r": {"eu": 2, "local": 3}}), 1)]);
    let pokes: Vec<_> = hint.events().into_iter().map(|(_, _, data)| data).collect();
    assert_eq!(pokes, [json!({"cookie": 1, "hasMore": true}), json!({"cookie": 2, "hasMore": true})], "pokes name versions");
}

#[test]
fn a_cookie_beyond_what_its_regions_gave_out_is_of_lost_state() {
    let server = with_two_regions();
    server.pull("tok-bob", "h", &Json::Null);
    let ask = |cookie: Json| server.post("/pull", "tok-bob", &pull_body("h", &cookie)).json();
    for ahead in [json!({"eu": 3}), json!({"eu": 2, "local": 4}), json!({"local": 70}), json!({"mars": 70}), json!({"eu": 2, "mars": 1})] {
        assert_eq!(ask(json!({"order": 9, "r": ahead})), json!({"error": "ClientStateNotFound"}), "{ahead}");
    }
    // The database has one region again, as it was restored from before the second.
    let single = Server::new();
    single.push("tok-alice", "g", "c", 1, &[inc("a")]);
    single.pull("tok-bob", "h", &Json::Null);
    let ask = |cookie: Json| single.post("/pull", "tok-bob", &pull_body("h", &cookie)).json();
    for older in [json!({"eu": 2, "local": 3}), json!({"eu": 2, "local": 1}), json!({"eu": 2})] {
        assert_eq!(ask(json!({"order": 5, "r": older})), json!({"error": "ClientStateNotFound"}), "{older}");
    }
    single.push("tok-alice", "g", "c", 2, &[inc("b"), inc("c"), inc("d"), inc("e"), inc("f")]);
    let back = ask(json!({"order": 3, "r": {"eu": 0, "local": 1}}));
    assert_eq!((keys(&back).len(), &back["cookie"]), (5, &json!(6)), "an entry of 0 says nothing");
}

#[test]
fn pulls_that_wait_and_streams_of_changes_have_the_same_cookies() {
    let server = with_two_regions();
    let cookie = server.pull("tok-bob", "h", &Json::Null)["cookie"].clone();
    let ask = Ask::post("/sync/pull?wait=5000", &pull_body("h", &cookie)).token("tok-bob");
    let Err(parked) = server.ask_waiting(&ask) else { panic!("nothing is new") };
    // `{"order":5,"r":{"eu":2,"local":3}}`, once in the URL and once as the browser brings it back.
    let stream = "/sync/poke?auth=tok-bob&clientGroupID=h&mode=data";
    let in_url = format!("{stream}&cookie=%7B%22order%22%3A5%2C%22r%22%3A%7B%22eu%22%3A2%2C%22local%22%3A3%7D%7D");
    let streams =
        [server.stream(&in_url, &[]).ok().unwrap(), server.stream(stream, &[("last-event-id", &cookie.to_string())]).ok().unwrap()];
    for stream in &streams {
        assert_eq!(stream.events().len(), 1, "the hello, and nothing new");
    }
    server.push("tok-alice", "g", "c", 3, &[inc("e")]);
    let after = json!({"order": 6, "r": {"eu": 2, "local": 4}});
    let reply = server.resume(parked).unwrap_or_else(|_| panic!("something is new"));
    assert_eq!(reply.json()["cookie"], after);
    for stream in &streams {
        let (name, id, data) = stream.events().pop().unwrap();
        assert_eq!((name.as_str(), &data["baseCookie"], &data["pullResponse"]["cookie"]), ("patch", &cookie, &after));
        assert_eq!(serde_json::from_str::<Json>(&id.unwrap()).unwrap(), after);
    }
}
