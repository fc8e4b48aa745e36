//! The sync logic of Syncline, as a plain library over what a host gives ([`imports`]).
//!
//! One room per protocol; shared rooms beside them. A protocol room never knows another protocol, a host or a
//! database product. `component/` turns this library into the WASI component that hosts run,
//! `services/` into what apps act through.

pub mod app;
pub mod auth;
pub mod contract;
pub mod cors;
pub mod encoding;
pub mod files;
pub mod gzip;
pub mod host;
pub mod http;
pub mod imports;
pub mod plasma;
pub mod ranges;
pub mod registry;
pub mod rows;
pub mod secrets;
pub mod secsync;
pub mod settings;
pub mod sql;
#[cfg(test)]
mod test_host;
