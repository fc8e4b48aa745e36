//! An app component that falls: its functions trap, loop, recurse or take memory without end, as an argument says.
#![allow(unsafe_code, reason = "the export macro of the generated bindings defines the component's entry points")]

/// Generated from `wit/deps/app`.
#[allow(missing_docs, unsafe_code, clippy::all)]
mod bindings {
    wit_bindgen::generate!({
        path: "../../../wit/deps/app",
        inline: "
            package syncline:bad;
            world component { export syncline:app/app@0.1.0; }
        ",
        world: "syncline:bad/component",
    });
}

use bindings::exports::syncline::app::app::{Caller, Failure, Guest, Identity, Reply, RouteRequest, RouteResponse, Verdict};

struct Bad;

/// Falls as the word says; comes back where the word says nothing.
fn fall(how: &str) {
    match how {
        "trap" => panic!("the app was told to trap"),
        "loop" => loop {
            std::hint::black_box(());
        },
        "eat" => {
            let mut kept = Vec::new();
            loop {
                kept.push(std::hint::black_box(vec![1_u8; 1 << 20]));
            }
        }
        "recurse" => drop(std::hint::black_box(recurse(0))),
        _ => {}
    }
}

#[allow(unconditional_recursion, reason = "that is the fault")]
fn recurse(depth: u64) -> u64 {
    std::hint::black_box(recurse(std::hint::black_box(depth + 1)) + 1)
}

impl Guest for Bad {
    fn describe() -> String {
        r#"{"functions":["mutate"]}"#.into()
    }
    fn authenticate(_mount: String, credentials: String, _request: String) -> Result<Identity, Failure> {
        fall(&credentials);
        Ok(Identity { user_id: None, roles: Vec::new(), claims: "{}".into() })
    }
    fn authorize(_caller: Caller, action: String, objects: Vec<String>) -> Vec<bool> {
        fall(&action);
        vec![true; objects.len()]
    }
    fn mutate(_caller: Caller, name: String, arguments: String) -> Result<String, Failure> {
        fall(&name);
        Ok(if name == "huge" { "x".repeat(20 << 20) } else { arguments })
    }
    fn validate(_caller: Caller, operation: String) -> Verdict {
        fall(&operation);
        Verdict::Accept
    }
    fn call(_caller: Caller, method: String, _parameters: String) -> Result<Reply, Failure> {
        fall(&method);
        Ok(Reply { value: None, context: Vec::new() })
    }
    fn event(_caller: Caller, name: String, _data: String) -> Result<Reply, Failure> {
        fall(&name);
        Ok(Reply { value: None, context: Vec::new() })
    }
    fn route(_caller: Caller, request: RouteRequest) -> RouteResponse {
        fall(request.path.trim_start_matches('/'));
        RouteResponse { status: 200, headers: Vec::new(), body: request.body }
    }
}

bindings::export!(Bad with_types_in bindings);
