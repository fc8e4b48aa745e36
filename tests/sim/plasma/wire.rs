//! Requests and frames as they are on the wire, in both dialects.

use serde_json::{Value, json};
use syncline::runtime::in_process::ConnectRequest;
use syncline_tests::plasma::{pull_body, push_body};

use super::mutations::Mutation;
use super::rows::key;

/// The schema version of the fixture.
pub const SCHEMA_VERSION: &str = "7";

/// A request's head.
pub fn head(path: &str, query: Option<String>, token: &str) -> ConnectRequest {
    let headers = vec![("authorization".to_owned(), token.into()), ("content-type".to_owned(), b"application/json".to_vec())];
    ConnectRequest { path: format!("/sync{path}"), query, headers, remote_address: "192.0.2.1".into(), secure: false }
}

/// The body of a push.
pub fn push(native: bool, group: &str, mutations: &[Mutation]) -> Value {
    let mutations: Vec<Value> = mutations.iter().map(Mutation::wire).collect();
    if native {
        json!({"protocolVersion": 1, "schemaVersion": SCHEMA_VERSION, "clientGroupID": group, "mutations": mutations})
    } else {
        push_body(group, &mutations)
    }
}

/// The body of a pull.
pub fn pull(native: bool, group: &str, client: &str, cookie: &Value) -> Value {
    if native {
        json!({"protocolVersion": 1, "schemaVersion": SCHEMA_VERSION, "clientGroupID": group, "clientID": client, "cookie": cookie})
    } else {
        pull_body(group, cookie)
    }
}

/// The answer to a pull in the words of Replicache.
pub fn in_words_of_replicache(mut answer: Value, native: bool) -> Result<Value, String> {
    let newest = answer["cookie"].as_u64().or(answer["cookie"]["v"].as_u64());
    for operation in answer["patch"].as_array_mut().into_iter().flatten().filter(|_| native) {
        if operation["op"] == "clear" {
            continue;
        }
        if operation["version"].as_u64() > newest || operation["version"].is_null() {
            return Err(format!("{operation} in an answer up to version {newest:?}"));
        }
        let parts: Vec<&str> = operation["pk"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let key = key(operation["table"].as_str().unwrap_or_default(), &parts);
        *operation = json!({"op": operation["op"], "key": key, "value": operation["row"]});
    }
    Ok(answer)
}

/// Something that a client is told on its connection.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// The first thing.
    Hello(u64),
    /// Something can be pulled.
    Poke(u64),
    /// An answer to a ping.
    Pong,
    /// Data mode: the answer to a pull that nobody made.
    Changes(Value),
    /// Data mode: the state is lost.
    StateLost,
}

/// What a frame of a WebSocket says.
pub fn told_by_socket(frame: &[u8]) -> Result<Vec<Told>, String> {
    let message: Value = serde_json::from_slice(frame).map_err(|error| error.to_string())?;
    let version = message["cookie"].as_u64();
    let told = match (message["type"].as_str(), version) {
        (Some("hello"), Some(version)) => Told::Hello(version),
        (Some("poke"), Some(version)) => Told::Poke(version),
        (Some("pong"), None) => Told::Pong,
        _ => return Err(message.to_string()),
    };
    Ok(vec![told])
}

/// What a piece of an event stream says.
pub fn told_by_events(piece: &[u8]) -> Result<Vec<Told>, String> {
    let text = std::str::from_utf8(piece).map_err(|error| error.to_string())?;
    if !text.ends_with("\n\n") {
        return Err(format!("a piece that is no whole event: {text:?}"));
    }
    let mut told = Vec::new();
    for block in text.split("\n\n").filter(|block| !block.is_empty()) {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let Some(data) = field("data") else { continue };
        let data: Value = serde_json::from_str(data).map_err(|error| format!("{error} in {block:?}"))?;
        told.push(match (field("event"), data["cookie"].as_u64()) {
            (Some("hello"), Some(version)) => Told::Hello(version),
            (Some("poke"), Some(version)) => Told::Poke(version),
            (Some("patch"), None) => Told::Changes(data),
            (Some("reset"), None) => Told::StateLost,
            _ => return Err(block.to_owned()),
        });
    }
    Ok(told)
}
