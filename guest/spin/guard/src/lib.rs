//! Stands between app and logic under Spin, where they are one component: an app that traps takes its whole request along. A client
//! would send the same mutation again for ever, so one that fell three times is not made a fourth time: it is answered as our own
//! host answers a trap, and the logic records it as failed.
#![allow(unsafe_code, reason = "the export macro of the generated bindings defines the component's entry points")]

/// Generated from `wit/deps/app` and `wit/deps/spin`.
#[allow(missing_docs, unsafe_code, clippy::all)]
mod bindings {
    wit_bindgen::generate!({
        path: "../../../wit",
        inline: "
            package syncline:guard;
            world component {
                import syncline:spin/guard@0.1.0;
                import syncline:app/app@0.1.0;
                export syncline:app/app@0.1.0;
            }
        ",
        world: "syncline:guard/component",
        generate_all,
    });
}

mod convert;

use bindings::exports::syncline::app::app::{Caller, Failure, Guest, Identity, Reply, RouteRequest, RouteResponse, Verdict};
use bindings::syncline::app::app;
use bindings::syncline::spin::guard;

/// How often a mutation may fall.
const FALLS_MAX: u32 = 3;

struct Guard;

/// What a mutation is known by: its client, and its number there. None: the protocol names none, and nothing would send it again.
fn known_by(caller: &Caller) -> Option<(String, String)> {
    let value = |key: &str| caller.context.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
    let operation = value("mutationID")?.to_owned();
    let subject = [caller.mount.as_str(), value("clientGroupID").unwrap_or_default(), value("clientID")?].join("\u{0}");
    Some((subject, operation))
}

fn fell_too_often(falls: u32) -> Failure {
    Failure { code: "trapped".into(), message: format!("the app component trapped {falls} times"), retriable: true }
}

impl Guest for Guard {
    fn describe() -> String {
        app::describe()
    }

    fn authenticate(mount: String, credentials: String, request: String) -> Result<Identity, Failure> {
        Ok(app::authenticate(&mount, &credentials, &request)?.into())
    }

    fn authorize(caller: Caller, action: String, objects: Vec<String>) -> Vec<bool> {
        app::authorize(&caller.into(), &action, &objects)
    }

    fn mutate(caller: Caller, name: String, arguments: String) -> Result<String, Failure> {
        if let Some((subject, operation)) = known_by(&caller) {
            let falls = guard::enter(&subject, &operation);
            if falls >= FALLS_MAX {
                return Err(fell_too_often(falls));
            }
        }
        Ok(app::mutate(&caller.into(), &name, &arguments)?)
    }

    fn validate(caller: Caller, operation: String) -> Verdict {
        app::validate(&caller.into(), &operation).into()
    }

    fn call(caller: Caller, method: String, parameters: String) -> Result<Reply, Failure> {
        Ok(app::call(&caller.into(), &method, &parameters)?.into())
    }

    fn event(caller: Caller, name: String, data: String) -> Result<Reply, Failure> {
        Ok(app::event(&caller.into(), &name, &data)?.into())
    }

    fn route(caller: Caller, request: RouteRequest) -> RouteResponse {
        app::route(&caller.into(), &request.into()).into()
    }
}

bindings::export!(Guard with_types_in bindings);
