//! What the user's app says that it has. Protocol rooms ask here before they call a function of it.
//!
//! An app describes itself by a JSON object; keys that this version does not know are passed over, so that newer apps run:
//! `{"functions": ["authorize", "call"], "calls": ["secsync.get-document"], "events": […], "mutators": […], …}`.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::imports::{App, AppFailure};

/// A function of the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Function {
    /// Judges credentials.
    Authenticate,
    /// Says who may do what.
    Authorize,
    /// Carries out named changes.
    Mutate,
    /// Judges operations before they are stored.
    Validate,
    /// Answers RPCs and hooks.
    Call,
    /// Hears of what happened.
    Event,
    /// Answers HTTP requests.
    Route,
}

impl Function {
    /// Its name in the contract.
    pub fn name(self) -> &'static str {
        match self {
            Self::Authenticate => "authenticate",
            Self::Authorize => "authorize",
            Self::Mutate => "mutate",
            Self::Validate => "validate",
            Self::Call => "call",
            Self::Event => "event",
            Self::Route => "route",
        }
    }
}

/// An HTTP route of the app.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Route {
    /// Below the mount.
    pub path: String,
    /// In upper case; none: any.
    #[serde(default)]
    pub method: Option<String>,
}

/// Something that the app wants to hear of again and again.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Schedule {
    /// The name of the event.
    pub name: String,
    /// How often, in milliseconds.
    pub every_ms: u64,
}

/// What an app has. Without an app: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Description {
    /// Its functions.
    pub functions: BTreeSet<Function>,
    /// The names that `mutate` knows; none: not told.
    pub mutators: Option<BTreeSet<String>>,
    /// The names that `call` knows, reserved ones included.
    pub calls: BTreeSet<String>,
    /// The names that `event` knows, reserved ones included.
    pub events: BTreeSet<String>,
    /// What `route` answers.
    pub routes: Vec<Route>,
    /// When `event` is to be called.
    pub schedules: Vec<Schedule>,
}

/// Why there is no description.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescriptionError {
    /// The app trapped or took too long.
    #[error("the app component fell when it was asked what it has")]
    Fell,
    /// It is not what it should be.
    #[error("the app component does not describe itself: {0}")]
    Invalid(String),
}

impl Description {
    /// Asks an app.
    pub fn of(app: &dyn App) -> Result<Self, DescriptionError> {
        let text = app.describe();
        if text.is_empty() {
            return Err(DescriptionError::Fell);
        }
        serde_json::from_str(&text).map_err(|error| DescriptionError::Invalid(error.to_string()))
    }

    /// Whether there is an app that does anything at all.
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty()
    }

    /// Whether the app has a function.
    pub fn has(&self, function: Function) -> bool {
        self.functions.contains(&function)
    }

    /// Whether it answers a name by `call`.
    pub fn has_call(&self, name: &str) -> bool {
        self.has(Function::Call) && self.calls.contains(name)
    }

    /// Whether it hears of a name by `event`.
    pub fn has_event(&self, name: &str) -> bool {
        self.has(Function::Event) && self.events.contains(name)
    }

    /// An error that names the setting and the function where the app lacks one that the setting asks for.
    pub fn require(&self, setting: &str, function: Function) -> Result<(), String> {
        if self.has(function) {
            return Ok(());
        }
        let name = function.name();
        Err(if self.is_empty() {
            format!("{setting}: needs an app component with the function `{name}`: give the mount an `app`")
        } else {
            format!("{setting}: needs the function `{name}`, which the app component does not name in its description")
        })
    }
}

/// Whether a failure says that the app fell, and not what it decided.
pub fn fell(failure: &AppFailure) -> bool {
    matches!(failure.code.as_str(), "trapped" | "timed-out")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imports::NoApp;

    #[test]
    fn an_app_says_what_it_has_and_newer_keys_are_passed_over() {
        let text = r#"{"functions": ["authorize", "call"], "calls": ["a"], "events": ["b"], "of-a-later-version": 1}"#;
        let description: Description = serde_json::from_str(text).unwrap();
        assert!(description.has(Function::Authorize) && description.has_call("a"));
        assert!(!description.has(Function::Mutate) && !description.has_call("b"));
        assert!(!description.has_event("b"), "it names an event but no function that would hear of it");
        assert_eq!(
            description.require("validate", Function::Validate),
            Err("validate: needs the function `validate`, which the app component does not name in its description".into())
        );
    }

    #[test]
    fn without_an_app_the_setting_that_needs_one_is_named() {
        let description = Description::of(&NoApp).unwrap();
        assert!(description.is_empty());
        assert_eq!(
            description.require("access", Function::Authorize),
            Err("access: needs an app component with the function `authorize`: give the mount an `app`".into())
        );
    }

    #[test]
    fn a_function_that_does_not_exist_is_no_description() {
        assert!(serde_json::from_str::<Description>(r#"{"functions": ["autorize"]}"#).is_err());
    }
}
