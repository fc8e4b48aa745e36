//! {{name}}: an app component for Syncline.
// Natively there is nothing to build: `cargo test` runs the component in a server.
#![cfg(target_family = "wasm")]

wit_bindgen::generate!({
    path: "wit",
    inline: "
        package local:component;
        world component {
            import syncline:app/secsync@0.1.0;
            export syncline:app/app@0.1.0;
        }
    ",
    world: "local:component/component",
    generate_all,
});

use exports::syncline::app::app::{Caller, Failure, Guest, Identity, Reply, RouteRequest, RouteResponse, Verdict};
use syncline::app::secsync;

struct App;

/// Why something is refused; what is not described is never called.
fn refusal(code: &str, message: &str) -> Failure {
    Failure { code: code.into(), message: message.into(), retriable: false }
}

impl Guest for App {
    /// The functions that are meant. The server asks once and never calls the others.
    fn describe() -> String {
        r#"{"functions": ["authorize", "mutate", "validate"]}"#.into()
    }

    /// A hook: who may open and write documents. Here: sessions whose key begins with `member-`.
    fn authorize(_caller: Caller, _action: String, objects: Vec<String>) -> Vec<bool> {
        objects.iter().map(|object| object.contains(r#""websocketSessionKey":"member-"#)).collect()
    }

    /// A mutator: a named change that clients ask for, for protocols that have such. Its writes go through the services
    /// that are imported; a failure undoes them.
    fn mutate(_caller: Caller, name: String, arguments: String) -> Result<String, Failure> {
        match name.as_str() {
            "echo" => Ok(arguments),
            _ => Err(refusal("unknown-mutator", &name)),
        }
    }

    /// A hook: the last word about what is saved. Here everything is, and whoever is on the document `news` hears of it.
    fn validate(_caller: Caller, _operation: String) -> Verdict {
        match secsync::send("news", r#"{"type":"something-was-saved"}"#, None) {
            Ok(()) => Verdict::Accept,
            Err(error) => Verdict::Reject(refusal("news", &format!("{error:?}"))),
        }
    }

    fn authenticate(_mount: String, _credentials: String, _request: String) -> Result<Identity, Failure> {
        Err(refusal("not-implemented", ""))
    }

    fn call(_caller: Caller, _method: String, _parameters: String) -> Result<Reply, Failure> {
        Err(refusal("not-implemented", ""))
    }

    fn event(_caller: Caller, _name: String, _data: String) -> Result<Reply, Failure> {
        Err(refusal("not-implemented", ""))
    }

    fn route(_caller: Caller, _request: RouteRequest) -> RouteResponse {
        RouteResponse { status: 404, headers: Vec::new(), body: Vec::new() }
    }
}

export!(App);
