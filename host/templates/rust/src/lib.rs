//! {{name}}: an app component for Syncline.
// Natively there is nothing to build: `cargo test` runs the component in a server.
#![cfg(target_family = "wasm")]

wit_bindgen::generate!({
    path: "wit",
    inline: "
        package local:component;
        world component {
            import syncline:app/plasma@0.1.0;
            import syncline:app/secsync@0.1.0;
            export syncline:app/app@0.1.0;
        }
    ",
    world: "local:component/component",
    generate_all,
});

use exports::syncline::app::app::{Caller, Failure, Guest, Identity, Reply, RouteRequest, RouteResponse, Verdict};
use syncline::app::plasma::{self, Error};
use syncline::app::secsync;

struct App;

/// Why something is refused; what is not described is never called.
fn refusal(code: &str, message: &str) -> Failure {
    Failure { code: code.into(), message: message.into(), retriable: false }
}

/// A write that was not done, as a mutation's error.
fn failed(error: Error) -> Failure {
    match error {
        Error::Authorization(denial) => refusal("PlasmaAuthorizationError", &format!("{} on {}", denial.action, denial.table)),
        Error::Invalid(why) => refusal("", &why),
        Error::Unavailable(why) => Failure { code: String::new(), message: why, retriable: true },
    }
}

impl Guest for App {
    /// The functions that are meant. The server asks once and never calls the others.
    fn describe() -> String {
        r#"{"functions": ["authorize", "mutate", "validate"]}"#.into()
    }

    /// A hook: who may open and write documents. Here: sessions whose key begins with `member-`. Rows of a plasma mount are
    /// left to the rules of their tables.
    fn authorize(caller: Caller, _action: String, objects: Vec<String>) -> Vec<bool> {
        let is_member = |object: &String| object.contains(r#""websocketSessionKey":"member-"#);
        objects.iter().map(|object| caller.mount == "plasma" || is_member(object)).collect()
    }

    /// A mutator: a named change that clients ask for, for protocols that have such. Its writes go through the services
    /// that are imported; a failure undoes them.
    fn mutate(_caller: Caller, name: String, arguments: String) -> Result<String, Failure> {
        match name.as_str() {
            "echo" => Ok(arguments),
            // In a plasma mount with a table `todos`: a new row, for which the rules of the table hold.
            "create-todo" => plasma::insert("todos", &arguments).map(|()| "null".into()).map_err(failed),
            // The arguments are the primary key, such as `["t1"]`.
            "complete-todo" => match plasma::get("todos", &arguments).map_err(failed)? {
                Some(_) => plasma::update("todos", &arguments, r#"{"done": true}"#).map(|()| "null".into()).map_err(failed),
                None => Err(refusal("not-found", "there is no such todo")),
            },
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
