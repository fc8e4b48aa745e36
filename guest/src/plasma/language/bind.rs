//! Values from outside, brought to the type that they are compared with.

use serde_json::{Map, Value as Json};

/// Where the values of a run come from.
#[derive(Clone, Copy, Debug)]
pub struct Bindings<'a> {
    /// The caller's context.
    pub context: &'a Map<String, Json>,
    /// Parameters of a query; none: it has none.
    pub parameters: Option<&'a Map<String, Json>>,
    /// Arguments of a mutation.
    pub arguments: Option<&'a Json>,
    /// The present element of a `forEach`.
    pub item: Option<&'a Json>,
    /// The row that [`super::Scope::Bound`] stands for, complete.
    pub outer: Option<&'a Map<String, Json>>,
}

impl<'a> Bindings<'a> {
    /// Only a context, as for read predicates.
    pub fn of_context(context: &'a Map<String, Json>) -> Self {
        Self { context, parameters: None, arguments: None, item: None, outer: None }
    }
}

/// Why values cannot be bound: 400 in a query, a mutation's error in a mutator.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BindError {
    /// A parameter that was not given.
    #[error("parameter {0} is missing")]
    MissingParameter(String),
    /// A value that cannot be compared with what it is compared with.
    #[error("{source_name} expects {expected}")]
    Unfit {
        /// Which (`param p`).
        source_name: String,
        /// What it should be.
        expected: String,
    },
}
