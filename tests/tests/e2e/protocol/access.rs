//! Who may do what (section 6), with the rules of the conformance configuration.

use serde_json::{Value, json};
use syncline_tests::secsync::{Author, Snapshot};
use syncline_tests::server::TestServer;
use syncline_tests::socket::Socket;

use crate::support::*;

/// The author whose public key the rules name.
const NAMED_AUTHOR: u8 = 7;

fn rules() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/conformance/secsync-policy.json");
    serde_json::from_str(&std::fs::read_to_string(path).expect("the file is there")).expect("it is JSON")
}

fn rules_with(key: &str, value: &str) -> Value {
    let mut rules = rules();
    rules[key] = value.into();
    rules
}

async fn enter(server: &TestServer, document: &str, session_key: &str) -> Socket {
    open(server, &place(document, session_key)).await.0
}

/// A document with a snapshot by a session that may do everything.
async fn written(server: &TestServer, document: &str) -> (Socket, Snapshot) {
    let mut socket = enter(server, document, "writer").await;
    let snapshot = Author::new(1).first_snapshot(document, b"x");
    assert_eq!(ask(&mut socket, &snapshot.frame).await, snapshot_saved(&snapshot));
    (socket, snapshot)
}

/// Sends something that the session has no right for.
async fn thrown_out(server: &TestServer, document: &str, session_key: &str, frame: &Value) {
    let mut socket = enter(server, document, session_key).await;
    assert_eq!(ask(&mut socket, frame).await, json!({"type": "unauthorized"}), "{session_key}");
    closed_without_code(&mut socket).await;
}

#[tokio::test]
async fn reading_needs_a_rule_for_session_and_document() {
    let server = TestServer::with_settings(rules()).await;
    for session_key in ["writer", "writer-2", "reader", "muted", "quiet", "bykey"] {
        enter(&server, "pol-1", session_key).await;
    }
    for (document, session_key) in [("pol-1", "stranger"), ("pol-1", ""), ("pol-1", "writer-3"), ("other", "writer"), ("nope-1", "reader")]
    {
        let mut socket = Socket::connect(server.address, &place(document, session_key)).await;
        assert_eq!(socket.json().await, json!({"type": "unauthorized"}), "{document} {session_key}");
        closed_without_code(&mut socket).await;
    }
    let mut socket = Socket::connect(server.address, &place("nope-1", "writer")).await;
    assert_eq!(socket.json().await, json!({"type": "document-not-found"}));
    closed_without_code(&mut socket).await;
}

#[tokio::test]
async fn each_action_that_no_rule_grants_ends_the_connection() {
    let server = TestServer::with_settings(rules()).await;
    let author = Author::new(1);
    let (mut writer, snapshot) = written(&server, "pol-1").await;
    let update = author.update("pol-1", &snapshot.id, 0, b"x");
    let next = author.snapshot_on(&snapshot, &clock_table(&[]), b"x");
    let ephemeral = author.ephemeral("pol-1", b"x");
    for session_key in ["reader", "muted", "bykey"] {
        for frame in [&update, &next.frame, &ephemeral] {
            thrown_out(&server, "pol-1", session_key, frame).await;
        }
    }
    thrown_out(&server, "pol-1", "quiet", &ephemeral).await;
    // A forged frame of an author without the right is no right either, and what has no shape is not looked at.
    thrown_out(&server, "pol-1", "reader", &changed(&update, "/signature", ephemeral["signature"].clone())).await;
    let mut reader = enter(&server, "pol-1", "reader").await;
    nothing_waits(&mut reader).await;
    assert_eq!(ask(&mut reader, &author.update("pol-2", &snapshot.id, 0, b"x")).await, update_refused(&snapshot.id, 0));
    assert_eq!(ask(&mut reader, &author.first_snapshot("pol-2", b"x").frame).await, bare_failure());
    nothing_waits(&mut writer).await;

    let mut quiet = enter(&server, "pol-1", "quiet").await;
    save(&mut quiet, &update).await;
    save_on(&mut quiet, &author, &snapshot, &[(&author, 0)]).await;
}

#[tokio::test]
async fn what_follows_a_denied_frame_is_not_handled() {
    let server = TestServer::with_settings(rules()).await;
    let author = Author::new(1);
    let (mut writer, snapshot) = written(&server, "pol-1").await;
    let mut quiet = enter(&server, "pol-1", "quiet").await;
    quiet.send(&author.ephemeral("pol-1", b"x")).await;
    // The server may be gone already.
    let _ = quiet.try_send(text(&author.update("pol-1", &snapshot.id, 0, b"x").to_string())).await;
    assert_eq!(quiet.json().await, json!({"type": "unauthorized"}));
    assert_eq!(quiet.closed().await, 1005);
    save(&mut writer, &author.update("pol-1", &snapshot.id, 0, b"y")).await;
}

#[tokio::test]
async fn a_rule_may_name_the_authors_that_a_session_writes_for() {
    let server = TestServer::with_settings(rules()).await;
    let (named, other) = (Author::new(NAMED_AUTHOR), Author::new(1));
    let (mut writer, snapshot) = written(&server, "pol-1").await;
    let mut bykey = enter(&server, "pol-1", "bykey").await;
    let update = named.update("pol-1", &snapshot.id, 0, b"x");
    save(&mut bykey, &update).await;
    assert_eq!(writer.json().await, relayed("update", &update));
    let ephemeral = named.ephemeral("pol-1", b"x");
    bykey.send(&ephemeral).await;
    assert_eq!(writer.json().await, relayed("ephemeral-message", &ephemeral));
    let next = save_on(&mut bykey, &named, &snapshot, &[(&named, 0)]).await;
    assert_eq!(writer.json().await, relayed_snapshot(&next));
    thrown_out(&server, "pol-1", "bykey", &other.update("pol-1", &next.id, 0, b"x")).await;
}

#[tokio::test]
async fn a_session_without_broadcasts_gets_none_and_stays() {
    let server = TestServer::with_settings(rules()).await;
    let author = Author::new(1);
    let mut muted = enter(&server, "pol-1", "muted").await;
    let mut reader = enter(&server, "pol-1", "reader").await;
    let (mut writer, snapshot) = written(&server, "pol-1").await;
    assert_eq!(reader.json().await, relayed_snapshot(&snapshot));
    for clock in 0..3 {
        let update = author.update("pol-1", &snapshot.id, clock, b"x");
        save(&mut writer, &update).await;
        assert_eq!(reader.json().await, relayed("update", &update));
        nothing_waits(&mut muted).await;
    }
    let ephemeral = author.ephemeral("pol-1", b"x");
    writer.send(&ephemeral).await;
    assert_eq!(reader.json().await, relayed("ephemeral-message", &ephemeral));
    nothing_waits(&mut muted).await;
    server.stop().await;
    assert_eq!(muted.closed().await, 1001, "and nothing came before the end");
}

#[tokio::test]
async fn a_session_without_broadcasts_is_told_and_closed_where_that_is_set() {
    let server = TestServer::with_settings(rules_with("on_broadcast_denied", "close")).await;
    let mut muted = [enter(&server, "pol-1", "muted").await, enter(&server, "pol-1", "muted").await];
    let mut reader = enter(&server, "pol-1", "reader").await;
    nothing_waits(&mut muted[0]).await;
    let (_writer, snapshot) = written(&server, "pol-1").await;
    assert_eq!(reader.json().await, relayed_snapshot(&snapshot));
    for socket in &mut muted {
        assert_eq!(socket.json().await, json!({"type": "unauthorized"}));
        closed_without_code(socket).await;
    }
}

#[tokio::test]
async fn broadcasts_that_rules_filter_come_in_the_order_of_the_commits_and_without_a_gap() {
    let server = TestServer::with_settings(rules()).await;
    let author = Author::new(1);
    let (mut writer, snapshot) = written(&server, "pol-1").await;
    let mut readers = [enter(&server, "pol-1", "reader").await, enter(&server, "pol-1", "writer-2").await];
    for clock in 0..200 {
        writer.send(&author.update("pol-1", &snapshot.id, clock, b"x")).await;
        if clock % 50 == 49 {
            let (mut late, document) = open(&server, &place("pol-1", "reader")).await;
            let seen = document["updates"].as_array().expect("updates").len();
            if seen <= usize::try_from(clock).expect("small") {
                assert_eq!(late.json_of("update").await["publicData"]["clock"], seen);
            }
        }
    }
    for clock in 0..200 {
        for reader in &mut readers {
            assert_eq!(reader.json_of("update").await["publicData"]["clock"], clock);
        }
        assert_eq!(writer.json().await, update_saved(&snapshot.id, clock));
    }
}

#[tokio::test]
async fn ephemeral_messages_without_the_right_can_be_dropped_instead() {
    let server = TestServer::with_settings(rules_with("deny_ephemeral", "drop")).await;
    let author = Author::new(1);
    let (mut writer, _) = written(&server, "pol-1").await;
    let mut reader = enter(&server, "pol-1", "reader").await;
    for _ in 0..3 {
        reader.send(&author.ephemeral("pol-1", b"denied")).await;
    }
    nothing_waits(&mut reader).await;
    let ephemeral = author.ephemeral("pol-1", b"x");
    writer.send(&ephemeral).await;
    assert_eq!(reader.json().await, relayed("ephemeral-message", &ephemeral));
    nothing_waits(&mut writer).await;
}

#[tokio::test]
async fn the_limit_of_updates_holds_for_the_documents_it_names() {
    let server = TestServer::with_settings(rules()).await;
    let author = Author::new(1);
    for (document, last) in [("pol-limit-1", json!(true)), ("pol-1", json!(null))] {
        let (mut writer, snapshot) = written(&server, document).await;
        for clock in 0..3 {
            save(&mut writer, &author.update(document, &snapshot.id, clock, b"x")).await;
        }
        let answer = ask(&mut writer, &author.update(document, &snapshot.id, 3, b"x")).await;
        assert_eq!(answer["requiresNewSnapshot"], last);
    }
}

#[tokio::test]
async fn configured_public_data_is_checked_signed_stored_and_relayed() {
    let server = TestServer::with_settings(rules()).await;
    let author = Author::new(1);
    let mut writer = enter(&server, "pol-1", "writer").await;
    let mut reader = enter(&server, "pol-1", "reader").await;
    let plain = author.first_snapshot("pol-1", b"x");
    let titled = |title: Value| author.sign("secsync_snapshot", changed(&plain.frame["publicData"], "/title", title), b"x");
    for title in [json!(3), json!(null), json!(["x"])] {
        assert_eq!(ask(&mut writer, &titled(title)).await, bare_failure());
    }
    let unknown = author.sign("secsync_snapshot", changed(&plain.frame["publicData"], "/tag", json!("x")), b"x");
    assert_eq!(ask(&mut writer, &unknown).await, bare_failure(), "a field of another kind");
    let snapshot = Snapshot { frame: titled(json!("Café \u{1F600}")), id: plain.id.clone() };
    assert_eq!(ask(&mut writer, &snapshot.frame).await, snapshot_saved(&snapshot));
    assert_eq!(reader.json().await, relayed_snapshot(&snapshot));

    let plain = author.update("pol-1", &snapshot.id, 0, b"x");
    let tagged = |tag: Value| author.sign("secsync_update", changed(&plain["publicData"], "/tag", tag), b"x");
    for tag in [json!(3), json!({})] {
        assert_eq!(ask(&mut writer, &tagged(tag)).await, update_refused(&snapshot.id, 0));
    }
    let update = tagged(json!(""));
    save(&mut writer, &update).await;
    assert_eq!(reader.json().await, relayed("update", &update));

    let plain = author.ephemeral("pol-1", b"x");
    for room in [json!(3), json!("r1")] {
        writer.send(&author.sign("secsync_ephemeral_message", changed(&plain["publicData"], "/room", room), b"x")).await;
    }
    assert_eq!(reader.json_of("ephemeral-message").await["publicData"]["room"], "r1");
    let stored = load(&server, &place("pol-1", "reader")).await;
    assert_eq!((&stored["snapshot"], &stored["updates"]), (&snapshot.frame, &json!([update])));
}

#[tokio::test]
async fn public_data_may_be_demanded_or_left_open_under_either_name_of_the_setting() {
    let author = Author::new(1);
    for name in ["additional_public_data", "additionalAuthenticationDataValidations"] {
        let schemas =
            json!({"snapshot": "any", "update": {"n": "number", "b": "boolean?", "any": "any"}, "ephemeralMessage": {"clock": "string"}});
        let server = TestServer::with_settings(json!({name: schemas})).await;
        let mut writer = join(&server, "doc").await;
        let mut reader = join(&server, "doc").await;
        let plain = author.first_snapshot("doc", b"x");
        let anything = json!({"deep": [1, 2.5, {"ä": null}], "e": 1e21, "": ""});
        let frame = author.sign("secsync_snapshot", changed(&plain.frame["publicData"], "/app", anything), b"x");
        let snapshot = Snapshot { frame, id: plain.id };
        assert_eq!(ask(&mut writer, &snapshot.frame).await, snapshot_saved(&snapshot));
        assert_eq!(reader.json().await, relayed_snapshot(&snapshot));
        let public_data = &author.update("doc", &snapshot.id, 0, b"x")["publicData"];
        let with = |fields: Value| {
            let mut public_data = public_data.clone();
            public_data.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
            author.sign("secsync_update", public_data, b"x")
        };
        for fields in [
            json!({}),
            json!({"n": 1}),
            json!({"n": "1", "any": 1}),
            json!({"n": 1, "any": 1, "b": "true"}),
            json!({"n": 1, "any": 1, "x": 1}),
        ] {
            assert_eq!(ask(&mut writer, &with(fields)).await, update_refused(&snapshot.id, 0));
        }
        let update = with(json!({"n": 1.5, "any": null, "b": false}));
        save(&mut writer, &update).await;
        assert_eq!(reader.json().await, relayed("update", &update));
    }
}
