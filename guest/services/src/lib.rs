//! What apps act through: the engines of `syncline_guest` as interfaces of `syncline:app`. A host, or `syncline compose`,
//! puts this component beneath an app; what it does joins the call that called the app, since it reaches the same
//! transaction and the same effects. Nothing is decided here.
#![allow(unsafe_code, reason = "the export macro of the generated bindings defines the component's entry points")]

/// Generated from `wit/deps/app`.
#[allow(missing_docs, unsafe_code, clippy::all)]
mod bindings {
    wit_bindgen::generate!({
        path: "../../wit/deps/app",
        inline: "
            package syncline:services;
            world component {
                export syncline:app/secsync@0.1.0;
            }
        ",
        world: "syncline:services/component",
    });
}

mod secsync;

use syncline_guest::host;
use syncline_guest::imports::{Imports, NoApp};

/// The component.
struct Services;

fn imports() -> Imports<'static> {
    host::imports(&NoApp)
}

bindings::export!(Services with_types_in bindings);
