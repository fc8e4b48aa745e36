//! The imports of the component, one file per interface of `wit/`.

pub mod app;
pub mod effects;
pub mod executor;
pub mod pubsub;
pub mod storage;

impl super::bindings::guest::syncline::host::types::Host for super::state::State {}
