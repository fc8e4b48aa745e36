//! Sections 6 and 10: what the app decides, what it is given, and what it may do.

use std::cell::RefCell;
use std::rc::Rc;

use serde_json::{Value as Json, json};

use crate::imports::*;
use crate::secsync::service;
use crate::secsync::test_support::*;

/// An app that remembers what it was given and answers as a function says. No answer: it fell.
struct Scripted<F> {
    functions: Json,
    heard: Rc<RefCell<Vec<Json>>>,
    answer: F,
}

type Heard = Rc<RefCell<Vec<Json>>>;

fn app<F: Fn(&str, &Json) -> Option<Json>>(functions: Json, answer: F) -> (Scripted<F>, Heard) {
    let heard = Heard::default();
    (Scripted { functions, heard: heard.clone(), answer }, heard)
}

fn fallen() -> AppFailure {
    AppFailure { code: "trapped".into(), message: "the app component trapped".into(), retriable: true }
}

fn refusal(code: &str) -> AppFailure {
    AppFailure { code: code.into(), message: String::new(), retriable: false }
}

impl<F: Fn(&str, &Json) -> Option<Json>> Scripted<F> {
    fn ask(&self, what: &str, parameters: &str) -> Option<Json> {
        let parameters: Json = serde_json::from_str(parameters).unwrap();
        self.heard.borrow_mut().push(parameters.clone());
        (self.answer)(what, &parameters)
    }
}

impl<F: Fn(&str, &Json) -> Option<Json>> App for Scripted<F> {
    fn describe(&self) -> String {
        self.functions.to_string()
    }
    fn authorize(&self, _caller: &Caller, action: &str, objects: &[String]) -> Vec<bool> {
        objects.iter().map_while(|object| self.ask(action, object)?.as_bool()).collect()
    }
    fn validate(&self, caller: &Caller, operation: &str) -> Verdict {
        assert!(caller.identity.claims.contains("websocketSessionKey"));
        match self.ask("validate", operation) {
            None => Verdict::Reject(fallen()),
            Some(Json::Null) => Verdict::Accept,
            Some(code) => Verdict::Reject(refusal(code.as_str().unwrap())),
        }
    }
    fn call(&self, _caller: &Caller, method: &str, parameters: &str) -> Result<Reply, AppFailure> {
        match self.ask(method, parameters) {
            None => Err(fallen()),
            Some(Json::String(word)) if word == "stored" => Ok(Reply { value: None, context: Vec::new() }),
            Some(Json::String(code)) => Err(refusal(&code)),
            Some(value) => Ok(Reply { value: Some(value.to_string()), context: Vec::new() }),
        }
    }
    fn authenticate(&self, _: &str, _: &str, _: &str) -> Result<Identity, AppFailure> {
        NoApp.authenticate("", "", "")
    }
    fn mutate(&self, caller: &Caller, name: &str, arguments: &str) -> Result<String, AppFailure> {
        NoApp.mutate(caller, name, arguments)
    }
    fn event(&self, caller: &Caller, name: &str, data: &str) -> Result<Reply, AppFailure> {
        NoApp.event(caller, name, data)
    }
    fn route(&self, caller: &Caller, request: &RouteRequest) -> RouteResponse {
        NoApp.route(caller, request)
    }
}

fn by_app() -> Json {
    json!({"access": "app", "broadcast_access": "app"})
}

#[test]
fn a_mount_whose_app_lacks_what_the_settings_ask_for_does_not_start() {
    for key in ["access", "broadcast_access"] {
        let host = TestHost::stopped(json!({key: "app"}), NoApp);
        let problem = host.mount().start(host.imports(), None).unwrap_err();
        assert_eq!(problem, format!("{key}: needs an app component with the function `authorize`: give the mount an `app`"));
        let (app, _) = app(json!({"functions": ["validate"]}), |_, _| None);
        let host = TestHost::stopped(json!({key: "app"}), app);
        let problem = host.mount().start(host.imports(), None).unwrap_err();
        assert_eq!(problem, format!("{key}: needs the function `authorize`, which the app component does not name in its description"));
    }
}

#[test]
fn has_access_is_asked_field_for_field() {
    let (app, heard) = app(json!({"functions": ["authorize"]}), |_, _| Some(true.into()));
    let host = TestHost::with_app(json!({"access": "app"}), app);
    let (a, peer) = (Author::new(1), host.join("d", "k"));
    assert_eq!(peer.ask(&a.snapshot("d", "s", None, json!({})))["type"], "snapshot-saved");
    assert_eq!(peer.ask(&a.update("d", "s", 0, "x")), saved("s", 0));
    peer.send(&a.ephemeral_message("d", "x"));
    let with_key = |action: &str| json!({"action": action, "documentId": "d", "publicKey": a.pub_key, "websocketSessionKey": "k"});
    let expected = [
        json!({"action": "read", "documentId": "d", "websocketSessionKey": "k"}),
        with_key("write-snapshot"),
        with_key("write-update"),
        with_key("send-ephemeral-message"),
    ];
    assert_eq!(*heard.borrow(), expected);
}

#[test]
fn what_the_app_denies_is_unauthorized_and_what_it_falls_over_is_refused_alone() {
    let (app, _) = app(json!({"functions": ["authorize"]}), |action, object| match (action, object["websocketSessionKey"].as_str()?) {
        ("read", "stranger") => Some(false.into()),
        ("read", "trap") => None,
        ("read", _) => Some(true.into()),
        (_, "reader") => Some(false.into()),
        (_, "falls-on-writes") => None,
        _ => Some(true.into()),
    });
    let host = TestHost::with_app(json!({"access": "app"}), app);
    let a = Author::new(1);
    let stranger = host.join("d", "stranger");
    assert_eq!((stranger.one(), stranger.closed()), (json!({"type": "unauthorized"}), Some(1005)));
    let unlucky = host.join("d", "trap");
    assert_eq!((unlucky.take(), unlucky.closed()), (Vec::new(), Some(1013)), "the client comes back");
    let reader = host.join("d", "reader");
    assert_eq!(reader.ask(&a.snapshot("d", "s", None, json!({}))), json!({"type": "unauthorized"}));
    let peer = host.join("d", "falls-on-writes");
    assert_eq!(peer.ask(&a.snapshot("d", "s", None, json!({}))), failed());
    assert_eq!(peer.ask(&a.update("d", "s", 0, "x")), refused("s", 0));
    peer.send(&a.ephemeral_message("d", "x"));
    assert_eq!((peer.take(), peer.closed()), (Vec::new(), None));
}

#[test]
fn has_broadcast_access_is_asked_for_every_message_and_a_session_without_it_hears_no_more() {
    let muted = Rc::new(RefCell::new(false));
    let is_muted = muted.clone();
    let (app, heard) = app(json!({"functions": ["authorize"]}), move |action, object| {
        Some((action != "broadcast" || object["websocketSessionKey"] != "muted" || !*is_muted.borrow()).into())
    });
    let host = TestHost::with_app(by_app(), app);
    let (a, writer, reader) = (Author::new(1), host.join("d", "writer"), host.join("d", "muted"));
    reader.take();
    writer.send(&a.snapshot("d", "s", None, json!({})));
    assert_eq!(reader.one()["type"], "snapshot");
    assert!(heard.borrow().contains(&json!({"documentId": "d", "websocketSessionKey": "muted"})));
    *muted.borrow_mut() = true;
    writer.send(&a.update("d", "s", 0, "x"));
    *muted.borrow_mut() = false;
    writer.send(&a.update("d", "s", 1, "x"));
    assert_eq!((reader.take(), reader.closed()), (Vec::new(), None));
}

#[test]
fn a_broadcast_that_the_app_falls_over_reaches_nobody_and_the_next_one_does() {
    let falls = Rc::new(RefCell::new(true));
    let now = falls.clone();
    let (app, _) =
        app(json!({"functions": ["authorize"]}), move |action, _| (action != "broadcast" || !now.borrow().to_owned()).then(|| true.into()));
    let host = TestHost::with_app(by_app(), app);
    let (a, writer, reader) = (Author::new(1), host.join("d", "w"), host.join("d", "r"));
    reader.take();
    writer.send(&a.ephemeral_message("d", "x"));
    assert_eq!(reader.take(), Vec::<Json>::new());
    *falls.borrow_mut() = false;
    writer.send(&a.ephemeral_message("d", "y"));
    assert_eq!(reader.one()["type"], "ephemeral-message");
}

#[test]
fn create_snapshot_gets_the_server_data_and_has_the_last_word() {
    let (app, heard) = app(json!({"functions": ["validate"]}), |_, operation| match &operation["snapshot"]["additionalServerData"] {
        Json::String(word) if word == "trap" => None,
        word => Some(word.clone()),
    });
    let host = TestHost::with_app(json!({}), app);
    let (a, peer) = (Author::new(1), host.join("d", "k"));
    let with = |mut frame: Json, word: Json| {
        frame["additionalServerData"] = word;
        frame
    };
    for word in ["refuse", "trap"] {
        assert_eq!(peer.ask(&with(a.snapshot("d", "s", None, json!({})), word.into())), failed(), "{word}");
    }
    let first = with(a.snapshot("d", "s", None, json!({})), Json::Null);
    assert_eq!(peer.ask(&first)["type"], "snapshot-saved");
    assert_eq!(heard.borrow()[2], json!({"type": "create-snapshot", "snapshot": first}));
    let next = |word: &str| with(a.snapshot("d", "s2", Some(&first), json!({})), word.into());
    let outdated = peer.ask(&next("outdated"));
    assert_eq!((&outdated["snapshot"]["publicData"]["snapshotId"], &outdated["snapshotProofChain"]), (&json!("s"), &json!([])));
    let misses = peer.ask(&next("misses-updates"));
    assert_eq!((misses.get("snapshot"), &misses["updates"]), (None, &json!([])));
    assert_eq!(host.sql("SELECT COUNT(*) FROM t_ss_snapshots"), [[Value::Integer(1)]]);
}

#[test]
fn create_update_refuses_or_asks_for_a_new_snapshot() {
    let (app, heard) = app(json!({"functions": ["validate"]}), |_, operation| {
        Some(match operation["update"]["publicData"]["tag"].as_str() {
            Some("refuse") => "no".into(),
            Some("rotate") => "new-snapshot-required".into(),
            _ => Json::Null,
        })
    });
    let host = TestHost::with_app(json!({"additional_public_data": {"update": "any"}}), app);
    let (a, peer) = (Author::new(1), host.join("d", "k"));
    peer.ask(&a.snapshot("d", "s", None, json!({})));
    let tagged = |tag: &str, clock: u64| {
        a.sign("secsync_update", &ciphertext(tag), json!({"docId": "d", "refSnapshotId": "s", "clock": clock, "tag": tag}))
    };
    assert_eq!(peer.ask(&tagged("refuse", 0)), refused("s", 0));
    assert_eq!(peer.ask(&tagged("rotate", 0))["requiresNewSnapshot"], true);
    let fine = tagged("fine", 0);
    assert_eq!(peer.ask(&fine), saved("s", 0));
    assert_eq!(heard.borrow().last(), Some(&json!({"type": "create-update", "update": fine})));
    let asked = heard.borrow().len();
    assert_eq!(peer.ask(&fine), saved("s", 0), "what is there already needs no leave");
    assert_eq!(heard.borrow().len(), asked);
}

#[test]
fn get_document_may_give_another_document_none_an_error_or_what_is_stored() {
    let functions = json!({"functions": ["call"], "calls": ["secsync.get-document"]});
    let (app, heard) = app(functions, |_, parameters| {
        Some(match parameters["documentId"].as_str()? {
            "stored" => "stored".into(),
            "none" => Json::Null,
            "error" => "never".into(),
            "trap" => return None,
            _ => json!({"snapshot": {"of": "the app"}, "updates": [{"a": 1}], "snapshotProofChain": []}),
        })
    });
    let host = TestHost::with_app(json!({}), app);
    assert_eq!(host.join("stored", "k").one(), empty_document());
    for (document, message) in [("none", "document-not-found"), ("error", "document-error")] {
        let peer = host.join(document, "k");
        assert_eq!((peer.one(), peer.closed()), (json!({"type": message}), Some(1005)));
    }
    let peer = host.join("trap", "k");
    assert_eq!((peer.take(), peer.closed()), (Vec::new(), Some(1013)));
    let given = json!({"type": "document", "snapshot": {"of": "the app"}, "updates": [{"a": 1}], "snapshotProofChain": []});
    assert_eq!(host.join("given", "k").one(), given);
    host.open("/secsync/stored?sessionKey=k&mode=delta&knownSnapshotId=s&knownSnapshotUpdateClocks=%7B%22a%22%3A3%7D");
    let parameters = json!({"documentId": "stored", "mode": "delta", "knownSnapshotId": "s", "knownSnapshotUpdateClocks": {"a": 3.0}});
    assert_eq!(heard.borrow().last(), Some(&parameters));
}

#[test]
fn the_app_judges_public_data() {
    let functions = json!({"functions": ["call"], "calls": ["secsync.validate-public-data"]});
    let (app, heard) =
        app(functions, |_, parameters| Some(if parameters["publicData"]["room"] == "bad" { "bad".into() } else { "stored".into() }));
    let host = TestHost::with_app(json!({"additional_public_data": {"ephemeral_message": "any"}}), app);
    let (a, peer, other) = (Author::new(1), host.join("d", "k"), host.join("d", "k"));
    other.take();
    for room in ["bad", "good"] {
        peer.send(&a.sign("secsync_ephemeral_message", &ciphertext("x"), json!({"docId": "d", "room": room})));
    }
    assert_eq!(other.one()["publicData"]["room"], "good");
    assert_eq!(heard.borrow()[0]["kind"], "ephemeral-message");
}

#[test]
fn an_app_sends_messages_of_its_own_to_all_or_to_sessions() {
    let (app, _) = app(json!({"functions": ["authorize"]}), |_, _| None);
    let host = TestHost::with_app(json!({}), app);
    let (one, two) = (host.join("d", "one"), host.join("d", "two"));
    let send = |message: Json, keys: Option<&[String]>| service::send(host.imports(), "d", &message.to_string(), keys);
    one.take();
    two.take();
    send(json!({"type": "note", "text": "to all"}), None).unwrap();
    send(json!({"type": "note"}), Some(&["two".into(), "two".into(), "nobody".into()])).unwrap();
    host.broadcast();
    assert_eq!(one.take(), [json!({"type": "note", "text": "to all"})]);
    assert_eq!(two.take(), [json!({"type": "note", "text": "to all"}), json!({"type": "note"})]);
    for wrong in [json!({"type": "update"}), json!({"type": 1}), json!({}), json!([])] {
        assert!(send(wrong, None).is_err());
    }
}

#[test]
fn an_app_sees_what_its_call_has_written() {
    let (app, _) = app(json!({"functions": ["authorize"]}), |_, _| None);
    let host = TestHost::with_app(json!({}), app);
    let (a, peer) = (Author::new(1), host.join("d", "k"));
    assert_eq!(service::document(host.imports(), "nowhere").unwrap(), None);
    peer.ask(&a.snapshot("d", "s", None, json!({})));
    peer.ask(&a.update("d", "s", 0, "x"));
    let document: Json = serde_json::from_str(&service::document(host.imports(), "d").unwrap().unwrap()).unwrap();
    assert_eq!(document, json!({"activeSnapshotId": "s", "sequence": 2, "updateCount": 1, "clocks": {a.pub_key: 0}}));
}
