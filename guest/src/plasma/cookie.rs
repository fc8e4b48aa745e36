//! Cookies: up to where a client has seen the log.

use serde_json::{Value as Json, json};

/// What is added to the order of a cookie that must grow while the version does not.
const ORDER_STEP: f64 = 1.0 / (1 << 20) as f64;

/// Up to where a client has seen the log.
///
/// It has every row whose newest entry is at or below `v` as it was visible at `basis`. Of rows with newer entries it has what
/// it had before; where those entries are at or below `s` that is nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cookie {
    /// Nothing yet.
    Null,
    /// Caught up at a version.
    Version(u64),
    /// In the middle of a load.
    Loading(Loading),
}

/// A cookie in the middle of a load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loading {
    /// What clients compare; grows whenever anything changed.
    pub order: f64,
    /// The version that is reached.
    pub v: u64,
    /// The version at which this load began.
    pub s: u64,
    /// The version whose visibility holds for the rows that the client has; none: the greater of `v` and `s`.
    pub p: Option<u64>,
}

impl Cookie {
    /// From JSON; none: 400.
    pub fn parse(source: &Json) -> Option<Self> {
        todo!("{source}")
    }

    /// As JSON.
    pub fn to_json(&self) -> Json {
        match self {
            Self::Null => Json::Null,
            Self::Version(version) => json!(version),
            Self::Loading(_) => todo!("{ORDER_STEP}"),
        }
    }
}
