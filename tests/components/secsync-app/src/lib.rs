//! An app component for secsync. Sessions and documents say by their names what it is to do with them. What each hook was
//! given it tells the session `log` on the document.
#![allow(unsafe_code, reason = "the export macro of the generated bindings defines the component's entry points")]

/// Generated from `wit/deps/app`.
#[allow(missing_docs, unsafe_code, clippy::all)]
mod bindings {
    wit_bindgen::generate!({
        path: "../../../wit/deps/app",
        inline: "
            package syncline:test;
            world component {
                import syncline:app/secsync@0.1.0;
                export syncline:app/app@0.1.0;
            }
        ",
        world: "syncline:test/component",
        generate_all,
    });
}

use bindings::exports::syncline::app::app::{Caller, Failure, Guest, Identity, Reply, RouteRequest, RouteResponse, Verdict};
use bindings::syncline::app::secsync;
use serde_json::{Value, json};

struct App;

fn refusal(code: &str) -> Failure {
    Failure { code: code.into(), message: String::new(), retriable: false }
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

/// Falls as the beginning of a name says; comes back where it says nothing.
fn fall(name: &str) {
    match name.split('-').next() {
        Some("trap") => panic!("the app was told to trap"),
        Some("loop") => loop {
            std::hint::black_box(());
        },
        Some("eat") => {
            let mut kept = Vec::new();
            loop {
                kept.push(std::hint::black_box(vec![1_u8; 1 << 20]));
            }
        }
        _ => {}
    }
}

/// Sends a message to the connections on a document.
fn send(document: &str, message: &Value, session_keys: Option<&[String]>) -> Result<(), Failure> {
    secsync::send(document, &message.to_string(), session_keys).map_err(|error| refusal(&format!("{error:?}")))
}

/// Tells what a hook was given.
fn tell(document: &str, hook: &str, given: &Value) {
    let told = send(document, &json!({"type": "heard", "hook": hook, "given": given}), Some(&["log".into()]));
    told.expect("a document has a name");
}

/// What is to become of something that would be saved.
fn judge(document: &str, number: u64) -> Verdict {
    match document.split('-').next() {
        Some("refuse") => Verdict::Reject(refusal("no")),
        Some("outdated") if number > 0 => Verdict::Reject(refusal("outdated")),
        Some("misses") if number > 0 => Verdict::Reject(refusal("misses-updates")),
        Some("rotate") if number > 2 => Verdict::Reject(refusal("new-snapshot-required")),
        _ => Verdict::Accept,
    }
}

impl Guest for App {
    fn describe() -> String {
        json!({
            "functions": ["authorize", "mutate", "validate", "call"],
            "calls": ["secsync.get-document", "secsync.validate-public-data"],
        })
        .to_string()
    }

    fn authenticate(_mount: String, _credentials: String, _request: String) -> Result<Identity, Failure> {
        Err(refusal("not-implemented"))
    }

    fn authorize(_caller: Caller, action: String, objects: Vec<String>) -> Vec<bool> {
        let allowed = |object: String| {
            let given = parsed(&object);
            let session = given["websocketSessionKey"].as_str().unwrap_or_default();
            if action == "broadcast" {
                return session != "muted";
            }
            tell(given["documentId"].as_str().unwrap_or_default(), "hasAccess", &given);
            if action != "read" {
                fall(session);
            }
            session != "stranger" && (action == "read" || session != "reader")
        };
        objects.into_iter().map(allowed).collect()
    }

    fn mutate(_caller: Caller, name: String, arguments: String) -> Result<String, Failure> {
        fall(&name);
        if name == "refuse" { Err(refusal("no")) } else { Ok(arguments) }
    }

    fn validate(_caller: Caller, operation: String) -> Verdict {
        let given = parsed(&operation);
        let (hook, frame) = match given["type"].as_str() {
            Some("create-snapshot") => ("createSnapshot", &given["snapshot"]),
            _ => ("createUpdate", &given["update"]),
        };
        let document = frame["publicData"]["docId"].as_str().unwrap_or_default();
        let seen = match secsync::document(document) {
            Ok(seen) => parsed(&seen.unwrap_or_default()),
            Err(error) => return Verdict::Reject(refusal(&format!("{error:?}"))),
        };
        let number = seen["sequence"].as_u64().unwrap_or_default();
        // To everybody, but only if it is saved.
        if let Err(failure) = send(document, &json!({"type": "judged", "hook": hook, "seen": seen}), None) {
            return Verdict::Reject(failure);
        }
        if number > 0 {
            fall(document);
        }
        tell(document, hook, &given);
        judge(document, number)
    }

    fn call(_caller: Caller, method: String, parameters: String) -> Result<Reply, Failure> {
        let given = parsed(&parameters);
        let reply = |value: Option<Value>| Ok(Reply { value: value.map(|value| value.to_string()), context: Vec::new() });
        if method == "secsync.validate-public-data" {
            return if given["publicData"]["tag"] == "wrong" { Err(refusal("tag")) } else { reply(None) };
        }
        let document = given["documentId"].as_str().unwrap_or_default();
        tell(document, "getDocument", &given);
        match document.split('-').next() {
            Some("none") => reply(Some(Value::Null)),
            Some("broken") => Err(refusal("broken")),
            Some("given") => reply(Some(json!({"snapshot": {"of": "the app"}, "updates": [], "snapshotProofChain": []}))),
            _ => reply(None),
        }
    }

    fn event(_caller: Caller, _name: String, _data: String) -> Result<Reply, Failure> {
        Err(refusal("not-implemented"))
    }

    fn route(_caller: Caller, _request: RouteRequest) -> RouteResponse {
        RouteResponse { status: 404, headers: Vec::new(), body: Vec::new() }
    }
}

bindings::export!(App with_types_in bindings);
