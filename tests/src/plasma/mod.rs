//! Clients of plasma for the tests: plain requests, a strict replica, and a reader of event streams.

mod events;
pub mod grown;
mod mirror;
mod replica;

use std::net::SocketAddr;

use http::Method;
use serde_json::{Value, json};
use syncline::runtime::MountSettings;

pub use events::{Event, Events};
pub use mirror::Mirror;
pub use replica::{Pulled, Replica};

use crate::http::{Answer, request};

/// The configuration of the conformance suite: seven tables, declarative mutators, static tokens.
pub fn fixture() -> Value {
    serde_json::from_str(include_str!("../../conformance/plasma.fixture.json")).expect("the fixture is JSON")
}

/// The fixture with some keys changed; null takes one out.
pub fn fixture_with(changes: Value) -> Value {
    let mut settings = fixture();
    for (key, value) in changes.as_object().expect("changes are an object") {
        let keys = settings.as_object_mut().expect("settings are an object");
        if value.is_null() {
            keys.remove(key);
        } else {
            keys.insert(key.clone(), value.clone());
        }
    }
    settings
}

/// A plasma mount at `/sync`.
pub fn plasma_mount(settings: Value) -> MountSettings {
    let Value::Object(mut settings) = settings else { panic!("settings are an object") };
    settings.entry("path").or_insert_with(|| "/sync".into());
    MountSettings { name: "plasma".into(), protocol: "plasma".into(), settings, app: None, listen: "127.0.0.1:0".into(), quota_bytes: None }
}

/// Somebody with credentials, at a server.
#[derive(Clone, Copy, Debug)]
pub struct User {
    /// Where the server listens.
    pub address: SocketAddr,
    /// The value of `Authorization`.
    pub token: &'static str,
}

/// Alice of the fixture.
pub fn alice(address: SocketAddr) -> User {
    User { address, token: "tok-alice" }
}

/// Bob of the fixture.
pub fn bob(address: SocketAddr) -> User {
    User { address, token: "tok-bob" }
}

/// Who holds the admin token of the fixture.
pub fn admin(address: SocketAddr) -> User {
    User { address, token: "Bearer admin-secret" }
}

impl User {
    /// A POST of JSON below `/sync`.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        let headers = [("authorization", self.token), ("content-type", "application/json")];
        request(self.address, &Method::POST, &format!("/sync{path}"), &headers, body.to_string()).await
    }

    /// A GET below `/sync`.
    pub async fn get(&self, path: &str) -> Answer {
        request(self.address, &Method::GET, &format!("/sync{path}"), &[("authorization", self.token)], "").await
    }

    /// A push in the words of Replicache; it must be taken.
    pub async fn push(&self, client_group_id: &str, mutations: &[Value]) -> Value {
        let answer = self.post("/push", &push_body(client_group_id, mutations)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// A pull in the words of Replicache; it must be answered.
    pub async fn pull(&self, client_group_id: &str, cookie: &Value) -> Value {
        let answer = self.post("/pull", &pull_body(client_group_id, cookie)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// The events of `/poke`.
    pub async fn events(&self, query: &str) -> Events {
        Events::open(self.address, &format!("/sync/poke{query}"), &[("authorization", self.token)]).await
    }
}

/// One mutation, as Replicache sends it.
pub fn mutation(client_id: &str, id: u64, name: &str, args: Value) -> Value {
    json!({"id": id, "clientID": client_id, "name": name, "args": args, "timestamp": 910.185_939})
}

/// A push, as Replicache sends it.
pub fn push_body(client_group_id: &str, mutations: &[Value]) -> Value {
    json!({"pushVersion": 1, "schemaVersion": "7", "profileID": "p1", "clientGroupID": client_group_id, "mutations": mutations})
}

/// A pull, as Replicache sends it.
pub fn pull_body(client_group_id: &str, cookie: &Value) -> Value {
    json!({"pullVersion": 1, "schemaVersion": "7", "profileID": "p1", "clientGroupID": client_group_id, "cookie": cookie})
}
