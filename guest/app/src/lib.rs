//! The app component that fills the `app` import where a mount names none: it has no functions, so every call that
//! asks for one is refused.
#![allow(unsafe_code, reason = "the export macro of the generated bindings defines the component's entry points")]

/// Generated from `wit/deps/app`.
#[allow(missing_docs, unsafe_code, clippy::all)]
mod bindings {
    wit_bindgen::generate!({
        path: "../../wit/deps/app",
        inline: "
            package syncline:empty;
            world component { export syncline:app/app@0.1.0; }
        ",
        world: "syncline:empty/component",
    });
}

use bindings::exports::syncline::app::app::{Caller, Failure, Guest, Identity, Reply, RouteRequest, RouteResponse, Verdict};

struct Empty;

fn absent() -> Failure {
    Failure { code: "not-implemented".into(), message: "this mount has no app component".into(), retriable: false }
}

impl Guest for Empty {
    fn describe() -> String {
        "{}".into()
    }
    fn authenticate(_mount: String, _credentials: String, _request: String) -> Result<Identity, Failure> {
        Err(absent())
    }
    fn authorize(_caller: Caller, _action: String, objects: Vec<String>) -> Vec<bool> {
        vec![false; objects.len()]
    }
    fn mutate(_caller: Caller, _name: String, _arguments: String) -> Result<String, Failure> {
        Err(absent())
    }
    fn validate(_caller: Caller, _operation: String) -> Verdict {
        Verdict::Reject(absent())
    }
    fn call(_caller: Caller, _method: String, _parameters: String) -> Result<Reply, Failure> {
        Err(absent())
    }
    fn event(_caller: Caller, _name: String, _data: String) -> Result<Reply, Failure> {
        Err(absent())
    }
    fn route(_caller: Caller, _request: RouteRequest) -> RouteResponse {
        RouteResponse { status: 404, headers: Vec::new(), body: Vec::new() }
    }
}

bindings::export!(Empty with_types_in bindings);
